"""Check L9: training runs that learnt from what a split set holds out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lps.manifests.audit.core.policy import Policy, read_policy
from lps.manifests.audit.core.seal import seal_dataset
from lps.manifests.audit.run import Audit
from lps.manifests.canonical import sha256_hex
from lps.manifests.errors import RefusedError
from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import Store
from lps.pipeline.job.split_sets import add_split_set

Mutated = Callable[..., Path]


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes what a finished run over a data set says of itself."""

    def train(out: Path, split_set: str = "group", **changes: object) -> Path:
        folder = tmp_path / "runs" / "classify"
        folder.mkdir(parents=True, exist_ok=True)
        index = sha256_hex((out / "index.json").read_bytes())
        data = {"index_sha256": index, "split_set": split_set, "split": "train", "leaky": False, **changes}
        (folder / "result.json").write_text(json.dumps({"stage": "classify", "data": data}))
        return folder

    return train


def reused(audit: Callable[..., Audit], out: Path, run: Path, split_set: str = "ranked") -> Any:
    [result] = audit(out, "L9", split_set=split_set, policy=Policy(runs=(run,))).results
    return result


def learnt_and_held(out: Path) -> set[str]:
    """Return the videos with clips that `group` trains on and `ranked` holds out."""
    read = {name: pq.read_table(out / f"manifests/splits/{name}.parquet").to_pylist() for name in ("group", "ranked")}
    split = {name: {row["video_id"]: row["split"] for row in rows} for name, rows in read.items()}
    videos = pq.read_table(out / "manifests/videos.parquet").to_pylist()
    ids = [row["video_id"] for row in videos if row["n_clips"]]
    return {i.hex() for i in ids if split["group"][i] == "train" and split["ranked"][i] in ("val", "test")}


def test_run_on_the_same_split_set_uses_nothing(
    dataset: Path, trained: Callable[..., Path], audit: Callable[..., Audit]
) -> None:
    result = reused(audit, dataset, trained(dataset), "group")
    assert result.state == "pass"
    assert result.n_checked > 0


def test_held_out_videos_that_another_split_trains_on_are_named(
    dataset: Path, trained: Callable[..., Path], audit: Callable[..., Audit]
) -> None:
    result = reused(audit, dataset, trained(dataset))
    assert result.state == "fail"
    assert {offender.key for offender in result.offenders} == learnt_and_held(dataset) != set()
    assert result.offenders[0].detail.endswith("; run classify learnt from it")


def test_split_set_added_after_the_run_needs_a_seal_to_prove_it(
    mutated: Mutated, trained: Callable[..., Path], audit: Callable[..., Audit]
) -> None:
    out = mutated()
    run = trained(out)
    seal_dataset(Store(str(out)))
    add_split_set(str(out), "third", SplitParams(rule="ranked", seed=7, giant="component"), None)
    assert reused(audit, out, run).state == "fail"
    (out / "seals/000001.json").unlink()
    unproven = reused(audit, out, run)
    assert (unproven.state, unproven.offenders) == ("unknown", ())
    assert unproven.note == "run classify read another data set, or a version of this one that no seal proves"
    (out / "seals/000001.json").write_text("{}")
    assert reused(audit, out, run).state == "unknown"


def test_split_set_that_changed_since_the_run_is_unknown(
    mutated: Mutated, trained: Callable[..., Path], audit: Callable[..., Audit]
) -> None:
    out = mutated()
    run = trained(out)
    seal_dataset(Store(str(out)))
    changed = mutated({"splits": lambda row: {**row, "u": 0.5}}, base=out)
    result = reused(audit, changed, run)
    assert (result.state, result.note) == ("unknown", "run classify learnt with split set group, changed since")


def test_run_over_plain_shards_is_unknown(
    dataset: Path, trained: Callable[..., Path], audit: Callable[..., Audit]
) -> None:
    result = reused(audit, dataset, trained(dataset, "", index_sha256="", split=""))
    assert (result.state, result.note) == ("unknown", "run classify read shards without manifests")


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
    run = trained(dataset)
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
