"""Check L9: training runs that have seen what a split set holds out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lps.manifests.audit.core.policy import Policy, read_policy
from lps.manifests.audit.run import Audit
from lps.manifests.canonical import sha256_hex
from lps.manifests.errors import RefusedError
from lps.manifests.names import Role
from lps.manifests.splits.learnt import Learnt, learnt_bytes, learnt_from, merge_learnt
from lps.manifests.splits.records import SplitParams
from lps.pipeline.job.split_sets import add_split_set

Mutated = Callable[..., Path]


def rows_of(out: Path, split_set: str, split: str) -> pa.Table:
    """Return video_id, source_sha256 and clip_id of every clip of a split."""
    read = {name: pq.read_table(out / f"manifests/{name}.parquet") for name in ("videos", f"splits/{split_set}")}
    placed = read[f"splits/{split_set}"].filter(pc.field("split") == split)
    videos = read["videos"].filter(pc.is_in(read["videos"]["video_id"], value_set=placed["video_id"].combine_chunks()))
    videos = videos.select(["video_id", "sha256"]).rename_columns(["video_id", "source_sha256"])
    clips = pq.read_table(out / "manifests/clips.parquet", columns=["video_id", "clip_id"])
    return clips.join(videos, "video_id", join_type="inner")


def without_digests(table: pa.Table) -> pa.Table:
    return table.set_column(
        table.schema.get_field_index("source_sha256"), "source_sha256", pa.nulls(table.num_rows, pa.binary(32))
    )


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes what a finished run says of itself that saw rows in roles."""

    def train(*seen: tuple[Role, pa.Table], gaps: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / "runs" / "classify"
        folder.mkdir(parents=True, exist_ok=True)
        table = merge_learnt([learnt_from(role, rows) for role, rows in seen]).table
        data = learnt_bytes(Learnt(table, gaps))
        (folder / "learnt.parquet").write_bytes(data)
        result = {"stage": "classify", "learnt": {"sha256": sha256_hex(data)}}
        (folder / "result.json").write_text(json.dumps(result))
        return folder

    return train


def reused(audit: Callable[..., Audit], out: Path, run: Path, split_set: str = "ranked") -> Any:
    [result] = audit(out, "L9", split_set=split_set, policy=Policy(runs=(run,))).results
    return result


def learnt_and_held(out: Path, held_in: tuple[str, ...] = ("val", "test")) -> set[str]:
    """Return the videos with clips that `group` trains on and `ranked` holds out."""
    learnt = set(rows_of(out, "group", "train")["video_id"].to_pylist())
    held = {video for split in held_in for video in rows_of(out, "ranked", split)["video_id"].to_pylist()}
    return {video.hex() for video in learnt & held}


def test_run_on_the_same_split_set_uses_nothing(
    dataset: Path, trained: Callable[..., Path], audit: Callable[..., Audit]
) -> None:
    seen = (Role.LABELS, rows_of(dataset, "group", "train")), (Role.VALIDATION, rows_of(dataset, "group", "val"))
    result = reused(audit, dataset, trained(*seen), "group")
    assert (result.state, result.note) == ("pass", "")
    assert result.n_checked > 0


@pytest.mark.parametrize("digests", [True, False])
@pytest.mark.parametrize("role", [Role.LABELS, Role.FRAMES])
def test_held_out_videos_that_were_learnt_from_are_named(
    role: Role, digests: bool, dataset: Path, trained: Callable[..., Path], audit: Callable[..., Audit]
) -> None:
    rows = rows_of(dataset, "group", "train")
    result = reused(audit, dataset, trained((role, rows if digests else without_digests(rows))))
    assert result.state == "fail"
    assert {offender.key for offender in result.offenders} == learnt_and_held(dataset) != set()
    said = "learnt from it" if role == Role.LABELS else "was pretrained on it, without its label"
    assert result.offenders[0].detail.endswith(f"; run classify {said}")
    assert ("it read shards without manifests" in result.note) == (not digests)


def test_copies_under_other_names_are_the_same_videos_and_namesakes_are_not(
    dataset: Path, trained: Callable[..., Path], audit: Callable[..., Audit]
) -> None:
    rows = rows_of(dataset, "group", "train")
    place = rows.schema.get_field_index("video_id")
    renamed = pa.array([bytes(reversed(video)) for video in rows["video_id"].to_pylist()], pa.binary(16))
    found = reused(audit, dataset, trained((Role.LABELS, rows.set_column(place, "video_id", renamed))))
    assert {offender.key for offender in found.offenders} == learnt_and_held(dataset)
    place = rows.schema.get_field_index("source_sha256")
    other = pa.array([bytes(reversed(digest)) for digest in rows["source_sha256"].to_pylist()], pa.binary(32))
    found = reused(audit, dataset, trained((Role.LABELS, rows.set_column(place, "source_sha256", other))))
    assert (found.state, found.offenders) == ("pass", ())


def test_test_videos_that_chose_the_checkpoint_are_a_warning(
    dataset: Path, trained: Callable[..., Path], audit: Callable[..., Audit]
) -> None:
    result = reused(audit, dataset, trained((Role.VALIDATION, rows_of(dataset, "group", "train"))))
    assert result.state == "warn"
    assert {offender.key for offender in result.offenders} == learnt_and_held(dataset, ("test",)) != set()
    assert result.offenders[0].detail.endswith("; run classify was chosen by its metrics on it")


def test_split_set_added_after_the_run_hides_nothing(
    mutated: Mutated, trained: Callable[..., Path], audit: Callable[..., Audit]
) -> None:
    out = mutated()
    run = trained((Role.LABELS, rows_of(out, "group", "train")))
    add_split_set(str(out), "third", SplitParams(rule="ranked", seed=7, giant="component"), None)
    assert reused(audit, out, run, "third").state == "fail"


def test_what_a_run_does_not_say_is_unknown(
    dataset: Path, trained: Callable[..., Path], audit: Callable[..., Audit]
) -> None:
    run = trained((Role.LABELS, rows_of(dataset, "group", "train")), gaps=("it started from something",))
    result = reused(audit, dataset, run, "group")
    assert (result.state, result.note) == ("unknown", "run classify: it started from something")
    assert reused(audit, dataset, run).state == "fail"
    (run / "result.json").write_text('{"stage": "classify"}')
    result = reused(audit, dataset, run)
    assert result.state == "unknown"
    assert result.note == "run classify does not say what it learnt from (an older version trained it)"


def test_another_record_than_the_run_wrote_leaves_the_audit_incomplete(
    dataset: Path, trained: Callable[..., Path], audit: Callable[..., Audit]
) -> None:
    run = trained((Role.LABELS, rows_of(dataset, "group", "train")))
    (run / "learnt.parquet").write_bytes((run / "learnt.parquet").read_bytes() + b" ")
    result = reused(audit, dataset, run)
    assert (result.state, "is not the one that its result.json names" in result.note) == ("unknown", True)


def test_without_runs_nothing_is_said(dataset: Path, audit: Callable[..., Audit]) -> None:
    [result] = audit(dataset, "L9").results
    assert (result.state, result.note) == ("skip", "the policy names no training run ([training] runs)")


def test_what_is_no_result_leaves_the_audit_incomplete(
    dataset: Path, tmp_path: Path, audit: Callable[..., Audit]
) -> None:
    (tmp_path / "result.json").write_text("[]")
    found = audit(dataset, "L9,A1", policy=Policy(runs=(tmp_path,)))
    assert found.exit_code == 6
    assert "is not the result of a training run" in next(r.note for r in found.results if r.id == "L9")


def test_policy_names_runs_beside_it(dataset: Path, trained: Callable[..., Path], tmp_path: Path) -> None:
    run = trained((Role.LABELS, rows_of(dataset, "group", "train")))
    path = tmp_path / "policy.toml"
    path.write_text('[training]\nruns = ["runs/classify"]\n')
    assert read_policy(path, limits=(), checks=("L9",)).runs == (run,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('runs = ["nowhere"]', "has no result.json"),
        ('runs = "runs"', "must be a list"),
        ("run = []", "did you mean 'runs'"),
    ],
)
def test_bad_runs_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(f"[training]\n{text}\n")
    with pytest.raises(RefusedError, match=said):
        read_policy(path, limits=(), checks=())
