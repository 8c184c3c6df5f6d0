"""What a run learnt from is in its checkpoints and in all that start from them; the loss decides between equal AUCs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from lps.manifests.canonical import sha256_hex
from lps.manifests.names import Role
from lps.manifests.splits.learnt import read_learnt
from lps.model.training import train as training
from lps.model.training.checkpoint import learnt_of, read_checkpoint, write_checkpoint
from lps.model.training.engine import RunProgress
from lps.model.training.run_folder import step_checkpoints

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Runner, Spec

    Settings = Callable[..., Path]


def seen(path: Path) -> dict[str, set[bytes]]:
    """Return the videos that a checkpoint saw, by role."""
    learnt = learnt_of(read_checkpoint(path), path)
    assert learnt is not None
    rows = learnt.table.to_pylist()
    assert all(row["sha256"] is not None for row in rows)
    return {str(role): {row["video_id"] for row in rows if row["role"] == role} for role in Role}


@pytest.fixture
def chain(family: "Callable[..., list[Spec]]", make: "Maker") -> tuple[Path, Path, dict[str, set[bytes]]]:
    """Return a data set to pretrain on, one to train on, and the ids of their videos."""
    parts = {"pre": ("p", "train"), "train": ("a", "train"), "val": ("v", "val"), "preval": ("w", "val")}
    specs = {name: family(prefix, 6, split) for name, (prefix, split) in parts.items()}
    ids = {name: {each.video_id for each in each_specs} for name, each_specs in specs.items()}
    return make.data_set([specs["pre"], specs["preval"]]), make.data_set([specs["train"], specs["val"]]), ids


def test_everything_is_inherited_through_the_whole_chain_of_starts(
    chain: tuple[Path, Path, dict[str, set[bytes]]], lps_train: "Runner", settings: "Settings", tmp_path: Path
) -> None:
    first, second, ids = chain
    best = "checkpoints/best.pt"
    config = "--config", settings("epochs = 1")
    for stage, data, start in (
        ("pretrain", first, "random"),
        ("classify", second, tmp_path / "pretrain" / best),
        ("distill", second, tmp_path / "classify" / best),
    ):
        ended = lps_train(stage, tmp_path / stage, "--data", data, "--init", start, *config)
        assert ended.code == 0, ended.stderr
    svm = lps_train("classify", tmp_path / "svm", "--data", second, "--init", tmp_path / "pretrain" / best, *config,
                    "--head", "svm")  # fmt: skip
    assert svm.code == 0, svm.stderr
    assert seen(tmp_path / "pretrain" / best) == {"labels": set(), "frames": ids["pre"], "validation": ids["preval"]}
    whole = {"labels": ids["train"], "frames": ids["pre"], "validation": ids["val"] | ids["preval"]}
    for run in ("classify", "distill", "svm"):
        assert seen(tmp_path / run / best) == whole, run
        file = (tmp_path / run / "learnt.parquet").read_bytes()
        said = json.loads((tmp_path / run / "result.json").read_bytes())["learnt"]
        assert said["sha256"] == sha256_hex(file)
        assert said["videos"] == {"labels": 6, "frames": 6, "validation": 12}
        assert read_learnt(file, run).n_videos() == said["videos"]
    last = step_checkpoints(tmp_path / "classify/checkpoints")[-1]
    assert seen(last) == whole
    out = tmp_path / "eval"
    ended = lps_train("evaluate", "--checkpoint", tmp_path / "distill" / best, "--data", first, "--split", "train",
                      "--out", out, "--workers", 0)  # fmt: skip
    assert ended.code == 0
    assert "note: test/train: the detector was pretrained on 6 of these 6 videos, without labels" in ended.stderr[0]


def test_start_that_does_not_say_what_it_learnt_from_is_told_from_then_on(
    chain: tuple[Path, Path, dict[str, set[bytes]]], lps_train: "Runner", settings: "Settings", tmp_path: Path
) -> None:
    first, second, _ = chain
    config = "--config", settings("epochs = 1")
    assert lps_train("pretrain", tmp_path / "pre", "--data", first, "--init", "random", *config).code == 0
    best = tmp_path / "pre/checkpoints/best.pt"
    write_checkpoint(best, replace(read_checkpoint(best), learnt=None))
    ended = lps_train("classify", tmp_path / "cls", "--data", second, "--init", best, *config)
    said = "it started from a checkpoint of pretrain that does not say what it learnt from (of an older version)"
    assert ended.code == 0
    assert f"note: {said}" in ended.stderr[0]
    assert json.loads((tmp_path / "cls/result.json").read_bytes())["learnt"]["gaps"] == [said]
    ended = lps_train("evaluate", "--checkpoint", tmp_path / "cls/checkpoints/best.pt", "--data", second, "--split",
                      "val", "--out", tmp_path / "out", "--workers", 0)  # fmt: skip
    assert f"note: test/val: {said}" in ended.stderr[0]


def test_resumed_run_has_the_same_record(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    for name, kill in (("undisturbed", None), ("killed", ("self", "CheckpointWritten", 1))):
        command = ["classify", tmp_path / name, "--data", tiny_data, "--init", "random", "--config", settings()]
        lps_train(*command, kill=kill)
        assert lps_train(*command).code == 0
    files = [(tmp_path / name / "learnt.parquet").read_bytes() for name in ("undisturbed", "killed")]
    assert files[0] == files[1]


# ---- which checkpoint is the best ------------------------------------------------------------------------------------


def test_at_equal_scores_the_lower_loss_is_better() -> None:
    progress = RunProgress(best=0.5, best_loss=0.7)
    assert progress.improves(0.5, 0.6)
    assert progress.improves(0.6, 0.9)
    assert not progress.improves(0.5, 0.7)
    assert not progress.improves(0.4, 0.1)
    assert progress.improves(None, None)
    assert RunProgress().improves(0.1, 9.0)
    assert RunProgress(best=0.5).improves(0.5, 0.7), "a run of an older version did not keep the loss"


def test_lower_loss_breaks_ties_of_auc_and_is_not_stale(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from lps.cli.train.main import main

    losses = iter([0.9, 0.8, 0.7, 0.75, 0.7, 0.1])

    def measured(*_: Any) -> Mapping[str, float]:
        return {"loss": next(losses), "auc": 0.5}

    monkeypatch.setattr(training, "validate", measured)
    config = settings("epochs = 6\nstop_epochs = 2")
    args = ["classify", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config", config]
    threads = torch.get_num_threads()
    try:
        ended = CliRunner().invoke(main, [str(arg) for arg in args])
    finally:
        torch.set_num_threads(threads)
    assert ended.exit_code == 0, ended.output
    result = json.loads((tmp_path / "run/result.json").read_bytes())
    assert (result["epochs"], result["best_step"], result["best"]) == (5, 12, 0.5)
    assert read_checkpoint(tmp_path / "run/checkpoints/best.pt").metrics["loss"] == 0.7
