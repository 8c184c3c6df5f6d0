"""Differences between two versions of a data set: each kind is found, counted and named; nothing else is."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from lps.cli.audit.main import main
from lps.manifests.audit.diff import NAMED, SHOWN, Changes, DatasetDiff, diff_datasets
from lps.manifests.errors import UnreadableError
from lps.manifests.schemas import Row
from lps.manifests.storage import open_store
from lps.pipeline.config.params import WRITER_VERSION
from tests.builders import manifest_rows

FAKE = "manipulated_sequences/Deepfakes/c23/videos/000_001.mp4"
REAL = "original_sequences/youtube/c23/videos/001.mp4"


def compared(a: Path, b: Path) -> DatasetDiff:
    return diff_datasets(open_store(str(a)), open_store(str(b)))


def counts(diff: DatasetDiff) -> dict[str, int]:
    found = (*diff.videos, *diff.clips, *(split.moved for split in diff.splits))
    return {changes.what: changes.n for changes in found if changes.n}


def only(uri: str, **values: object) -> Callable[[Row], Row]:
    return lambda row: {**row, **values} if row["uri"] == uri else row


def edit_json(**values: object) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        record: dict[str, Any] = json.loads(data)
        for path, value in values.items():
            *parents, name = path.split("__")
            place = record
            for parent in parents:
                place = place[parent]
            place[name] = value
        return json.dumps(record).encode()

    return edit


def video_id(dataset: Path, uri: str) -> bytes:
    rows = manifest_rows(dataset, "videos")
    return next(bytes(row["video_id"]) for row in rows if row["uri"] == uri)


def moved_rows(dataset: Path, uri: str) -> Callable[[Row], Row]:
    """Move one video to a split in which it was not."""
    moving = video_id(dataset, uri)

    def edit(row: Row) -> Row:
        elsewhere = "test" if row["split"] != "test" else "train"
        return {**row, "split": elsewhere} if row["video_id"] == moving else row

    return edit


def test_equal_data_sets_have_no_difference(dataset: Path) -> None:
    diff = compared(dataset, dataset)
    assert diff.same
    assert counts(diff) == {}
    assert diff.lines() == ["no difference"]
    assert [split.name for split in diff.splits] == ["group", "ranked"]
    assert not diff.moved_without_new_rule


@pytest.mark.parametrize(
    ("values", "what", "before", "after"),
    [
        ({"label": 0}, "videos relabelled", "fake", "real"),
        ({"label": None}, "videos relabelled", "fake", "unknown"),
        ({"status": "failed", "error_code": "E_OOM"}, "videos with another status or code", "ok", "failed E_OOM"),
        ({"sha256": b"\1" * 32}, "videos with other content", None, "01" * 32),
        ({"sha256": None}, "videos with other content", None, "unread"),
    ],
)
def test_changed_video_is_named(
    dataset: Path, mutated: Callable[..., Path], values: Row, what: str, before: str | None, after: str
) -> None:
    diff = compared(dataset, mutated({"videos": only(FAKE, **values)}))
    assert counts(diff) == {what: 1}
    (change,) = next(changes for changes in diff.videos if changes.n).named
    assert (change.key, change.name, change.after) == (video_id(dataset, FAKE).hex(), FAKE, after)
    assert before is None or change.before == before
    assert f"{what}: 1" in diff.lines()
    assert any(FAKE in line and change.after in line for line in diff.lines())


def test_added_and_removed_videos_and_clips(dataset: Path, mutated: Callable[..., Path]) -> None:
    gone = video_id(dataset, FAKE)

    def without(row: Row) -> Row | None:
        return None if row["video_id"] == gone else row

    fewer = mutated({"videos": without, "clips": without})
    shrunk, grown = compared(dataset, fewer), compared(fewer, dataset)
    assert counts(shrunk) == {"videos removed": 1, "clips removed": 1}
    assert counts(grown) == {"videos added": 1, "clips added": 1}
    assert next(changes for changes in grown.videos if changes.n).named[0].name == FAKE
    assert f"  {FAKE}" in shrunk.lines()


def test_other_frames_of_a_clip(dataset: Path, mutated: Callable[..., Path]) -> None:
    changing = video_id(dataset, REAL)

    def other(row: Row) -> Row:
        return {**row, "frames_sha256": bytes(32)} if row["video_id"] == changing else row

    diff = compared(dataset, mutated({"clips": other}))
    assert counts(diff) == {"clips with other frames": 1}
    assert next(changes for changes in diff.clips if changes.n).named[0].after == "00" * 32


def test_the_same_clip_with_other_parameters_is_neither_added_nor_removed(
    dataset: Path, mutated: Callable[..., Path]
) -> None:
    changing = video_id(dataset, REAL)
    other = mutated({"clips": lambda row: {**row, "clip_id": bytes(16)} if row["video_id"] == changing else row})
    diff = compared(dataset, other)
    assert not diff.same
    assert counts(diff) == {"clips made with other parameters": 1}
    (change,) = next(changes for changes in diff.clips if changes.n).named
    assert change.key == "00" * 16
    assert change.name.startswith(changing.hex())
    assert f"  {change.name}" in diff.lines()


def test_moved_video_is_found_in_its_split_set_alone(dataset: Path, mutated: Callable[..., Path]) -> None:
    diff = compared(dataset, mutated({"splits/ranked": moved_rows(dataset, FAKE)}))
    assert counts(diff) == {"split set 'ranked': videos moved": 1}
    assert diff.moved_without_new_rule
    assert "split set 'ranked': videos moved: 1 although its rule is the same" in diff.lines()
    assert diff.record()["moved_without_new_rule"] is True


def test_command_fails_where_videos_moved_without_a_new_rule(dataset: Path, mutated: Callable[..., Path]) -> None:
    moved = str(mutated({"splits/ranked": moved_rows(dataset, FAKE)}))
    found = CliRunner().invoke(main, ["diff", str(dataset), moved])
    assert found.exit_code == 1
    assert "moved: 1 although its rule is the same" in found.stdout
    assert CliRunner().invoke(main, ["diff", str(dataset), moved, "--json"]).exit_code == 1
    assert CliRunner().invoke(main, ["diff", str(dataset), str(dataset)]).exit_code == 0


def test_excluded_video_has_moved(dataset: Path, mutated: Callable[..., Path]) -> None:
    moving = video_id(dataset, FAKE)

    def exclude(row: Row) -> Row:
        return {**row, "split": None, "excluded": True} if row["video_id"] == moving else row

    diff = compared(dataset, mutated({"splits": exclude}))
    assert counts(diff) == {"split set 'group': videos moved": 1}
    assert diff.splits[0].moved.named[0].after == "excluded"


@pytest.mark.parametrize("edits", [{"seed": 9}, {"ratios": [0.8, 0.1, 0.1]}, {"giant__policy": "target-only"}])
def test_a_new_rule_may_move(dataset: Path, mutated: Callable[..., Path], edits: Row) -> None:
    files = {"manifests/splits/ranked.json": edit_json(**edits)}
    diff = compared(dataset, mutated({"splits/ranked": moved_rows(dataset, FAKE)}, files=files))
    assert counts(diff) == {"split set 'ranked': videos moved": 1}
    assert not diff.moved_without_new_rule
    assert "split set 'ranked': videos moved: 1 (its rule changed)" in diff.lines()
    still = compared(dataset, mutated(files=files))
    assert not still.same
    assert "split set 'ranked': the rule changed, no video moved" in still.lines()


def test_counted_parts_of_a_rule_are_no_new_rule(dataset: Path, mutated: Callable[..., Path]) -> None:
    edit = edit_json(n_videos=7, inputs_sha256="0", base_sha256="1", giant__largest_group=9)
    diff = compared(
        dataset,
        mutated({"splits/ranked": moved_rows(dataset, FAKE)}, files={"manifests/splits/ranked.json": edit}),
    )
    assert diff.moved_without_new_rule


def test_a_rule_that_is_not_stated_is_no_excuse(dataset: Path, mutated: Callable[..., Path]) -> None:
    files = {"manifests/splits/ranked.json": lambda _: None}
    diff = compared(dataset, mutated({"splits/ranked": moved_rows(dataset, FAKE)}, files=files))
    assert diff.splits[1].unknown_rule
    assert diff.moved_without_new_rule
    assert any(line.endswith("(a version does not state its rule)") for line in diff.lines())


def test_split_sets_of_one_side(dataset: Path, mutated: Callable[..., Path]) -> None:
    fewer = mutated(files={"manifests/splits/ranked.parquet": lambda _: None})
    shrunk, grown = compared(dataset, fewer), compared(fewer, dataset)
    assert (shrunk.split_sets_removed, grown.split_sets_added) == (("ranked",), ("ranked",))
    assert [split.name for split in shrunk.splits] == ["group"]
    assert "split set 'ranked' removed" in shrunk.lines()


def test_parameters_and_versions(dataset: Path, mutated: Callable[..., Path]) -> None:
    edit = edit_json(
        params__localize__stride_frames=4, versions__av="99", writer_version="0", params__new={"deep": True}
    )
    diff = compared(dataset, mutated(files={"plan/plan.json": edit}))
    found = {change.key: (change.before, change.after) for change in diff.parameters}
    assert found == {
        "params.localize.stride_frames": ("8", "4"),
        "params.new.deep": ("(none)", "true"),
        "versions.av": ('"1.0"', '"99"'),
        "writer_version": (f'"{WRITER_VERSION}"', '"0"'),
    }
    assert "  params.localize.stride_frames: 8 -> 4" in diff.lines()
    assert not diff.same


def test_a_data_set_without_a_plan_says_so(dataset: Path, mutated: Callable[..., Path]) -> None:
    diff = compared(dataset, mutated(files={"plan/plan.json": lambda _: None}))
    assert diff.parameters == ()
    assert "plan/plan.json" in diff.notes[0]
    assert diff.lines()[-1].startswith("not compared: parameters and versions")


def test_record_is_json_and_counts_more_than_it_names(dataset: Path, mutated: Callable[..., Path]) -> None:
    diff = compared(dataset, mutated({"clips": lambda row: {**row, "frames_sha256": bytes(32)}}))
    changes = next(changes for changes in diff.clips if changes.n)
    assert (changes.n, len(changes.named)) == (39, NAMED)
    assert [change.name for change in changes.named] == sorted(change.name for change in changes.named)
    assert diff.lines()[-1] == f"  … and {39 - SHOWN} more"
    record = json.loads(json.dumps(diff.record()))
    assert record["schema"] == "lps.diff"
    assert record["same"] is False
    assert record["clips"][2]["n"] == 39
    assert record["clips"][2]["named"][0]["after"] == "00" * 32


def test_order_of_rows_does_not_matter(dataset: Path, mutated: Callable[..., Path]) -> None:
    held: list[Row] = []

    def reverse(row: Row) -> list[Row]:
        held.insert(0, row)
        return list(held) if len(held) == 39 else []

    assert compared(dataset, mutated({"clips": reverse})).same


@pytest.mark.parametrize(
    ("path", "data", "message"),
    [
        ("manifests/videos.parquet", b"PAR1", "not readable"),
        ("manifests/clips.parquet", None, "no such file"),
        ("manifests/splits/ranked.json", b"{", "is damaged"),
        ("manifests/splits/ranked.json", b"[]", "holds no record"),
        ("plan/plan.json", b"\xff", "is damaged"),
    ],
)
def test_damage_is_one_line(
    dataset: Path, mutated: Callable[..., Path], path: str, data: bytes | None, message: str
) -> None:
    with pytest.raises(UnreadableError, match=message) as caught:
        compared(dataset, mutated(files={path: lambda _: data}))
    assert "\n" not in str(caught.value)


def rewritten(data: bytes, change: Callable[[pa.Table], pa.Table]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(change(pq.read_table(io.BytesIO(data))), sink)
    return sink.getvalue()


def newer(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({**table.schema.metadata, b"lps.schema_version": b"99.0"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (newer, "schema version '99.0'"),
        (lambda table: table.replace_schema_metadata(None), "is not a table 'videos' of"),
        (lambda table: table.drop_columns(["uri"]), "no column 'uri'"),
        (lambda table: table.set_column(0, "video_id", pa.array(["é"] * len(table))), "column 'video_id'"),
    ],
)
def test_foreign_tables_are_refused(
    dataset: Path, mutated: Callable[..., Path], change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    files = {"manifests/videos.parquet": lambda data: rewritten(data, change)}
    with pytest.raises(UnreadableError, match=message):
        compared(dataset, mutated(files=files))


def test_columns_that_may_be_absent_count_as_null(dataset: Path, mutated: Callable[..., Path]) -> None:
    files = {"manifests/videos.parquet": lambda data: rewritten(data, lambda table: table.drop_columns(["sha256"]))}
    diff = compared(dataset, mutated(files=files))
    assert counts(diff) == {"videos with other content": 43}


def test_empty_changes_have_no_lines() -> None:
    nothing = Changes(what="videos added", n=0)
    diff = DatasetDiff(
        videos=(nothing,), clips=(), splits=(), split_sets_added=(), split_sets_removed=(), parameters=()
    )
    assert diff.same
    assert diff.lines() == ["no difference"]
