"""Checks A1, A5, A7, A8 and A9: each finds what was done to it, and nothing else does."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lps.manifests.audit.core.seal import seal_dataset
from lps.manifests.audit.run import Audit
from lps.manifests.schemas import Row
from lps.manifests.storage import Store
from tests.builders import manifest_rows

Mutated = Callable[..., Path]
Broken = Callable[..., dict[str, set[str]]]
NO_FACE = "original_sequences/youtube/c23/videos/003.mp4"
OK = "original_sequences/youtube/c23/videos/000.mp4"


def only(uri: str, /, **changes: object) -> Callable[[Row], Row]:
    """Change the row of one video."""
    return lambda row: {**row, **changes} if row["uri"] == uri else row


def first_clip(out: Path) -> Row:
    return manifest_rows(out, "clips")[0]


def on_clip(clip: Row, **changes: object) -> Callable[[Row], Row]:
    return lambda row: {**row, **changes} if row["clip_id"] == clip["clip_id"] else row


def id_of(out: Path, uri: str) -> str:
    return next(bytes(row["video_id"]).hex() for row in manifest_rows(out, "videos") if row["uri"] == uri)


def test_nothing_is_broken_in_the_unspoiled_data_set(dataset: Path, dataset_source: Path, broken: Broken) -> None:
    assert broken(dataset, source=dataset_source) == {}
    assert broken(dataset, split_set="ranked") == {}
    assert broken(dataset, level="quick") == {}


# ---- A1 ------------------------------------------------------------------------------------------------------------


def test_forged_split_of_a_clip_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    clip = first_clip(dataset)
    other = "test" if clip["split"] != "test" else "val"
    assert broken(mutated({"clips": on_clip(clip, split=other)})) == {"A1": {clip["clip_id"].hex()}}


def test_forged_split_of_a_video_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    found = broken(mutated({"videos": only(NO_FACE, split="test")}))
    assert found == {"A1": {id_of(dataset, NO_FACE)}}


@pytest.mark.parametrize("column", ["label", "method", "dataset"])
def test_a_clip_that_contradicts_its_video_is_found(
    dataset: Path, mutated: Mutated, broken: Broken, column: str
) -> None:
    clip = first_clip(dataset)
    value = {"label": None, "method": "another", "dataset": "another"}[column]
    found = broken(mutated({"clips": on_clip(clip, **{column: value})}), "A1")
    assert found == {"A1": {clip["clip_id"].hex()}}


def test_repeated_row_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    out = mutated({"videos": lambda row: [row, row] if row["uri"] == NO_FACE else row})
    found = broken(out)
    assert found["A1"] == {id_of(dataset, NO_FACE)}
    assert set(found) == {"A1", "T4"}


def test_repeated_clip_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    clip = first_clip(dataset)
    found = broken(mutated({"clips": lambda row: [row, row] if row == clip else row}))
    assert clip["clip_id"].hex() in found["A1"]
    assert clip["sample_key"] in found["A6"]


@pytest.mark.parametrize(
    ("changes", "offender"),
    [
        ({"error_code": "E_STRANGE"}, "videos.error_code"),
        ({"error_stage": "nowhere"}, "videos.error_stage"),
        ({"label_source": "guess"}, "videos.label_source"),
        ({"identity_confidence": "high"}, "videos.identity_confidence"),
        ({"error_code": None}, id),
        ({"uri": "elsewhere/003.mp4"}, id),
        ({"sha256": bytes(32)}, id),
        ({"bytes": 7}, id),
    ],
)
def test_impossible_values_are_found(
    dataset: Path, mutated: Mutated, broken: Broken, changes: Row, offender: object
) -> None:
    found = broken(mutated({"videos": only(NO_FACE, **changes)}), "A1")
    assert found == {"A1": {id_of(dataset, NO_FACE) if offender is id else offender}}


@pytest.mark.parametrize(("table", "column"), [("videos", "uri"), ("clips", "frame_idx"), ("splits/group", "rule")])
def test_nulls_where_none_may_be_are_found(mutated: Mutated, broken: Broken, table: str, column: str) -> None:
    def with_null(data: bytes) -> bytes:
        read = pq.read_table(io.BytesIO(data))
        place = read.column_names.index(column)
        values = [*read[column].to_pylist()[:-1], None]
        kind, sink = read.schema.field(column).type, io.BytesIO()
        pq.write_table(read.set_column(place, pa.field(column, kind), pa.array(values, kind)), sink)
        return sink.getvalue()

    out = mutated(files={f"manifests/{table}.parquet": with_null})
    assert f"{table.split('/')[0]}.{column}" in broken(out, "A1", level="quick")["A1"]


def test_unknown_label_is_found(mutated: Mutated, broken: Broken) -> None:
    assert "videos.label" in broken(mutated({"videos": only(NO_FACE, label=2)}), "A1")["A1"]


def test_clip_without_video_or_shard_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    clip = first_clip(dataset)
    for changes in ({"video_id": bytes(16)}, {"shard_id": "train-000099"}):
        assert broken(mutated({"clips": on_clip(clip, **changes)}), "A1") == {"A1": {clip["clip_id"].hex()}}


# ---- A5 ------------------------------------------------------------------------------------------------------------


def test_orphan_tar_is_a_warning_before_the_seal_and_a_failure_after(
    mutated: Mutated, audit: Callable[..., Audit]
) -> None:
    out = mutated(files={"shards/train/train-000099.tar": lambda _: b"\0" * 10240})
    [before] = audit(out, "A5").results
    assert (before.state, {o.key for o in before.offenders}) == ("warn", {"shards/train/train-000099.tar"})
    seal_dataset(Store(str(out)))
    after = audit(out)
    failed = {result.id for result in after.results if result.state == "fail"}
    assert failed == {"A5"}
    assert after.exit_code == 1


def test_what_readers_put_beside_shards_is_named_and_no_offence(
    mutated: Mutated, audit: Callable[..., Audit], broken: Broken
) -> None:
    names = ["shards/train/train-000000.tar.idx", "shards/.nv-meta/index.sqlite", ".nv-meta/dataset.yaml"]
    sealed = mutated()
    seal_dataset(Store(str(sealed)))
    out = mutated(files={name: lambda _: b"x" for name in names}, base=sealed)
    assert broken(out) == {}
    [found] = audit(out, "A5").results
    assert found.note == "3 side files of readers, first .nv-meta/dataset.yaml"
    assert broken(mutated(files={"shards/notes.txt": lambda _: b"x"}, base=sealed), "A5")


def test_shard_without_commit_record_is_found(mutated: Mutated, broken: Broken) -> None:
    out = mutated(files={"commits/train-000000.json": lambda _: None})
    assert broken(out, "A") == {"A5": {"train-000000"}}


def test_shard_row_without_clips_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    ghost = {"shard_id": "train-000099", "uri": "shards/train/train-000099.tar"}
    last = manifest_rows(dataset, "shards")[-1]["shard_id"]
    out = mutated({"shards": lambda row: [row, {**row, **ghost}] if row["shard_id"] == last else row})
    assert "train-000099" in broken(out, "A5")["A5"]


def test_open_shard_is_found(mutated: Mutated, broken: Broken) -> None:
    out = mutated({"shards": lambda row: {**row, "status": "open"} if row["shard_id"] == "train-000000" else row})
    assert broken(out) == {"A5": {"train-000000"}}


# ---- A7, A8 --------------------------------------------------------------------------------------------------------


def test_deleted_row_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    found = broken(mutated({"videos": lambda row: None if row["uri"] == NO_FACE else row}))
    assert found["A7"] == {id_of(dataset, NO_FACE)}
    assert set(found) == {"A1", "A7", "C7", "R2"}  # the split set and the fakes of its family still have the video


def test_deleted_clip_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    clip = first_clip(dataset)
    found = broken(mutated({"clips": lambda row: None if row == clip else row}))
    assert found["A7"] == {clip["video_id"].hex(), clip["shard_id"]}
    assert found["A3"] == {f"{clip['shard_id']}/{clip['sample_key']}"}
    assert set(found) == {"A3", "A7"}


def test_wrong_count_of_clips_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    assert broken(mutated({"videos": only(OK, n_clips=2)})) == {"A7": {id_of(dataset, OK)}}


def test_status_that_contradicts_the_clips_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    found = broken(mutated({"videos": only(OK, status="failed", error_code="E_NO_FACE", error_stage="detect")}))
    assert found == {"A7": {id_of(dataset, OK)}}


def test_wrong_count_of_a_shard_is_found(mutated: Mutated, broken: Broken) -> None:
    out = mutated({"shards": lambda row: {**row, "n_real": 0} if row["shard_id"] == "train-000000" else row})
    assert broken(out) == {"A7": {"train-000000"}}


def test_video_missing_from_the_split_set_is_found(dataset: Path, mutated: Mutated, broken: Broken) -> None:
    video_id = bytes.fromhex(id_of(dataset, NO_FACE))
    found = broken(mutated({"splits": lambda row: None if row["video_id"] == video_id else row}))
    assert found["A7"] == {video_id.hex()}
    assert set(found) == {"A7", "R2"}


def test_source_files_and_rows_must_match(dataset: Path, dataset_source: Path, tmp_path: Path, broken: Broken) -> None:
    source = tmp_path / "source"
    shutil.copytree(dataset_source, source)
    (source / "extra.mp4").write_bytes(b"x")
    (source / "notes.txt").write_bytes(b"x")
    assert broken(dataset, "A", source=source) == {"A7": {"extra.mp4"}}
    (source / "extra.mp4").unlink()
    (source / NO_FACE).unlink()
    assert broken(dataset, "A", source=source) == {"A7": {NO_FACE}, "A8": {NO_FACE}}


def test_changed_source_is_found(
    dataset: Path, dataset_source: Path, tmp_path: Path, broken: Broken, audit: Callable[..., Audit]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(dataset_source, source)
    data = (source / OK).read_bytes()
    (source / OK).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert broken(dataset, source=source) == {"A8": {OK}}
    [skipped] = audit(dataset, "A8").results
    assert (skipped.state, skipped.note) == ("skip", "needs the source videos: --source")


# ---- A9 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trace",
    [
        "/data/jane/FaceForensics/003.mp4",
        "cannot open /data/jane/003.mp4",
        "file '/srv/x/003.mp4'",
        "C:\\Videos\\003.mp4",
        "\\\\server\\share",
        "s3://bucket/003.mp4",
        "../003.mp4",
        "jane@gpu07",
    ],
)
def test_trace_of_a_machine_is_found(mutated: Mutated, broken: Broken, trace: str) -> None:
    assert broken(mutated({"videos": only(NO_FACE, error_detail=trace)})) == {"A9": {"videos.error_detail"}}


def test_trace_inside_a_list_is_found(mutated: Mutated, broken: Broken) -> None:
    keys = ["ffpp/seq/003", "/data/jane/list"]
    assert broken(mutated({"videos": only(NO_FACE, donor_keys=keys)}), "A9") == {"A9": {"videos.donor_keys"}}


@pytest.mark.parametrize("text", ["2 damaged places, 81 frames decode", "1/2 done", "a: b", "frame of 64x64 px"])
def test_plain_text_is_no_trace(mutated: Mutated, broken: Broken, text: str) -> None:
    assert broken(mutated({"videos": only(NO_FACE, error_detail=text)})) == {}
