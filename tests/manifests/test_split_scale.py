"""The split of whole tables is that of single rows, for every kind of link between videos."""

from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lps.manifests.canonical import digest16
from lps.manifests.components import EMPTY_SHA256, INPUT_COLUMNS, inputs_from_table
from lps.manifests.errors import RefusedError
from lps.manifests.schemas import SPLITS, VIDEOS
from lps.manifests.split_records import SplitParams
from lps.manifests.split_scale import SCALE_COLUMNS, assign_group_splits
from lps.manifests.splits import assign_splits

Row = dict[str, Any]
SCHEMA = pa.schema([VIDEOS.field(name) for name in INPUT_COLUMNS])
ALIASES = (("seq/1", "seq/2"), ("nowhere", "seq/3"), ("nowhere", "seq/9"), ("alone", "alone too"))


def video(number: int, **values: Any) -> Row:
    row: Row = dict.fromkeys(INPUT_COLUMNS)
    row.update({name: [] for name in INPUT_COLUMNS if name.endswith("_keys")})
    return row | {"video_id": digest16(str(number)), "label": number % 2, "dataset": "x"} | values


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def by_rows(videos: pa.Table, params: SplitParams) -> list[Row]:
    rows = [asdict(row) for row in assign_splits(inputs_from_table(videos), params)]
    return [{**row, "group_keys": list(row["group_keys"])} for row in rows]


def assert_equal(videos: pa.Table, params: SplitParams) -> set[str]:
    found = assign_group_splits(videos, params)
    assert found.schema.equals(SPLITS)
    assert found.to_pylist() == by_rows(videos, params)
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
@given(rows=videos(), seed=st.integers(0, 2**64 - 1), aliased=st.booleans())
def test_equal_to_the_split_by_rows(rows: list[Row], seed: int, aliased: bool) -> None:
    params = SplitParams(seed=seed, aliases=ALIASES if aliased else (), giant="component")
    assert_equal(table(rows), params)


def test_large_sets_are_hashed_and_order_does_not_matter() -> None:
    rows = [video(i, source_keys=[f"dfdc/src/{i // 6}"], sha256=digest16(str(i)) * 2) for i in range(1200)]
    assert assert_equal(table(rows), SplitParams()) == {"hash"}
    assert assign_group_splits(table(rows[::-1]), SplitParams()) == assign_group_splits(table(rows), SplitParams())


def test_chunks_and_other_columns_do_not_matter() -> None:
    rows = [video(i, target_keys=[f"seq/{i // 2}"]) for i in range(400)]
    whole = table(rows)
    pieces = pa.concat_tables([table(rows[:7]), table(rows[7:9]), table(rows[9:]).slice(0, 391)])
    wanted = assign_group_splits(whole, SplitParams())
    assert assign_group_splits(pieces, SplitParams()) == wanted
    assert assign_group_splits(pieces.select(SCALE_COLUMNS), SplitParams()) == wanted


def test_batches_are_of_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    videos = table([video(i, target_keys=[f"seq/{i // 2}"], donor_keys=["b", "a"][: i % 3]) for i in range(400)])
    params = SplitParams(giant="component")
    wanted = assign_group_splits(videos, params).to_pylist()
    monkeypatch.setattr("lps.manifests.split_scale.BATCH_ROWS", 7)
    assert assign_group_splits(videos, params).to_pylist() == wanted


@pytest.mark.parametrize("n", [0, 1, 30])
def test_few_groups_go_the_slow_way(n: int) -> None:
    rows = [video(i, target_keys=[f"seq/{i // 2}"]) for i in range(n)]
    assert assert_equal(table(rows), SplitParams()) <= {"stratified"}


def test_a_giant_group_is_refused_or_placed_as_by_rows() -> None:
    rows = [video(i, target_keys=[f"seq/{max(0, i - 300)}"]) for i in range(400)]
    with pytest.raises(RefusedError, match="choose the giant policy"):
        assign_group_splits(table(rows), SplitParams())
    assert assert_equal(table(rows), SplitParams(giant="component")) == {"stratified"}


def test_repeated_videos_count_once_and_contradictions_are_refused() -> None:
    rows = [video(i, target_keys=[f"seq/{i}"]) for i in range(100)]
    assert_equal(table([*rows, rows[5]]), SplitParams())
    with pytest.raises(RefusedError, match="two different rows"):
        assign_group_splits(table([*rows, {**rows[5], "label": None}]), SplitParams())


def test_other_rules_are_refused() -> None:
    with pytest.raises(RefusedError, match="only the rule 'group'"):
        assign_group_splits(table([video(1)]), SplitParams(rule="ranked"))
