"""The split of whole tables is that of single rows, for every kind of link between videos."""

from dataclasses import asdict

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lps.manifests.canonical import digest16
from lps.manifests.errors import RefusedError
from lps.manifests.row_digest import table_digest
from lps.manifests.schemas import SPLITS, VIDEOS, parquet_bytes, table_bytes
from lps.manifests.splits.assign import assign_splits, distinct
from lps.manifests.splits.inputs import EMPTY_SHA256, INPUT_COLUMNS, inputs_from_table, inputs_table
from lps.manifests.splits.records import SplitParams, rows_from_table, rows_table
from lps.manifests.splits.table import split_table

Row = dict[str, object]
SCHEMA = pa.schema([VIDEOS.field(name) for name in INPUT_COLUMNS])
ALIASES = (("seq/1", "seq/2"), ("nowhere", "seq/3"), ("nowhere", "seq/9"), ("alone", "alone too"))


def video(number: int, **values: object) -> Row:
    row: Row = dict.fromkeys(INPUT_COLUMNS)
    row.update({name: [] for name in INPUT_COLUMNS if name.endswith("_keys")})
    return row | {"video_id": digest16(str(number)), "label": number % 2, "dataset": "xy"[number % 23 == 7]} | values


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def split(videos: pa.Table, params: SplitParams) -> pa.Table:
    return split_table(videos, params)[0]


def assert_equal(videos: pa.Table, params: SplitParams) -> set[str]:
    """Split as a table and as rows; return how the rows were decided."""
    rows = assign_splits(distinct(inputs_from_table(videos)), params)
    found, record = split_table(videos, params)
    assert found.schema.equals(SPLITS)
    assert found.to_pylist() == [{**asdict(row), "group_keys": list(row.group_keys)} for row in rows]
    assert record == split_table(inputs_table(inputs_from_table(videos)), params)[1]
    marks = {"lps.params_sha256": "0" * 64}
    assert parquet_bytes("splits", found, marks) == table_bytes("splits", [asdict(row) for row in rows], marks)
    return set(found["rule"].to_pylist())


@st.composite
def videos(draw: st.DrawFn) -> list[Row]:
    n = draw(st.integers(90, 160))
    key = st.sampled_from([f"seq/{i}" for i in range(150)] + ["yt/é", "yt/e", "sha256/named", "Z", "a"])
    keys = st.lists(key, max_size=1)
    digest = st.sampled_from([None, EMPTY_SHA256, *(bytes([i]) * 32 for i in range(90))])
    original = st.one_of(st.none(), st.integers(0, 2 * n))
    rows = []
    for i in range(n):
        of = draw(original) if i % 3 == 0 else None
        rows.append(
            video(
                i,
                sha256=draw(digest),
                original_video_id=None if of is None else digest16(str(of)),
                target_keys=draw(keys),
                identity_keys=draw(keys) if i % 7 == 0 else [],
                donor_keys=draw(keys) if i % 5 == 0 else [],
            )
        )
    return rows


@settings(max_examples=40, deadline=None)
@given(rows=videos(), seed=st.integers(0, 2**64 - 1), aliased=st.booleans(), rule=st.sampled_from(["group", "random"]))
def test_equal_to_the_split_by_rows(rows: list[Row], seed: int, aliased: bool, rule: str) -> None:
    aliases = ALIASES if aliased else ()
    params = SplitParams(rule=rule, seed=seed, aliases=aliases, giant="component", allow_leaky=True)
    assert_equal(table(rows), params)


def test_large_sets_are_hashed_and_order_does_not_matter() -> None:
    rows = [video(i, source_keys=[f"dfdc/src/{i // 6}"], sha256=digest16(str(i)) * 2) for i in range(1200)]
    assert assert_equal(table(rows), SplitParams()) == {"hash"}
    assert split(table(rows[::-1]), SplitParams()) == split(table(rows), SplitParams())


def test_chunks_and_other_columns_do_not_matter() -> None:
    rows = [video(i, target_keys=[f"seq/{i // 2}"]) for i in range(400)]
    whole = table(rows)
    pieces = pa.concat_tables([table(rows[:7]), table(rows[7:9]), table(rows[9:]).slice(0, 391)])
    extra = whole.append_column("width", pa.array([1] * len(whole)))
    assert split_table(pieces, SplitParams()) == split_table(extra, SplitParams()) == split_table(whole, SplitParams())


def test_batches_are_of_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    videos = table([video(i, target_keys=[f"seq/{i // 2}"], donor_keys=["b", "a"][: i % 3]) for i in range(400)])
    params = SplitParams(giant="component")
    wanted, record = split_table(videos, params)
    monkeypatch.setattr("lps.manifests.splits.table.BATCH_ROWS", 7)
    found, again = split_table(videos, params)
    assert (found.to_pylist(), again) == (wanted.to_pylist(), record)


@pytest.mark.parametrize("n", [0, 1, 30])
def test_few_groups_go_the_slow_way(n: int) -> None:
    rows = [video(i, target_keys=[f"seq/{i // 2}"]) for i in range(n)]
    assert assert_equal(table(rows), SplitParams()) <= {"stratified"}


def test_a_giant_group_is_refused_or_placed_as_by_rows() -> None:
    rows = [video(i, target_keys=[f"seq/{max(0, i - 300)}"]) for i in range(400)]
    with pytest.raises(RefusedError, match="choose the giant policy"):
        split(table(rows), SplitParams())
    assert assert_equal(table(rows), SplitParams(giant="component")) == {"stratified"}


def test_repeated_videos_count_once_and_contradictions_are_refused() -> None:
    rows = [video(i, target_keys=[f"seq/{i}"]) for i in range(100)]
    assert_equal(table([*rows, rows[5]]), SplitParams())
    with pytest.raises(RefusedError, match="two different rows"):
        split(table([*rows, {**rows[5], "label": None}]), SplitParams())


def test_other_rules_go_the_slow_way() -> None:
    rows = [video(i, target_keys=[f"seq/{i // 2}"]) for i in range(200)]
    assert assert_equal(table(rows), SplitParams(rule="ranked")) == {"ranked"}


def test_a_base_moves_nobody() -> None:
    rows = [video(i, target_keys=[f"seq/{i // 2}"]) for i in range(200)]
    base = rows_from_table(split(table(rows[:150]), SplitParams()))
    made = assign_splits(inputs_from_table(table(rows)), SplitParams(seed=3), base)
    found, record = split_table(table(rows), SplitParams(seed=3), base)
    assert found.to_pylist() == [{**asdict(row), "group_keys": list(row.group_keys)} for row in made]
    assert record["base_sha256"] == table_digest(rows_table(base))
