"""A run that was killed and started again leaves what an undisturbed one leaves: the same losses, the same weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from lps.manifests.environment import is_unfinished
from lps.model.training.checkpoint import read_checkpoint
from lps.model.training.run_folder import step_checkpoints
from lps.model.training.run_log import read_log
from tests.model.board_events import without_times

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Runner, Spec

    Settings = Callable[..., Path]

Train = Callable[[Path], list[object]]
"""The arguments of a run, given its folder."""

MID_EPOCH = ("outside", "StepDone", 3)
AFTER_CHECKPOINT = ("self", "CheckpointWritten", 1)
VALIDATING = ("self", "Validating", 1)
WRITING = ("self", "save", 1)


@pytest.fixture(scope="module")
def trained(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the best checkpoint of a small detector."""
    out = tmp_path_factory.mktemp("trained") / "run"
    ended = lps_train("classify", out, "--data", tiny_data, "--init", "random", "--config", settings())
    assert ended.code == 0, ended.stderr
    return Path(out / "checkpoints" / "best.pt")


@pytest.fixture(params=["pretrain", "classify", "distill"])
def stage(request: pytest.FixtureRequest, settings: "Settings", tiny_data: Path, trained: Path) -> Train:
    """Return the command of each stage, with everything in it that is drawn or carried on."""
    train, init = {
        "pretrain": ('sampling = "balanced"\naugment = "strong"', "random"),
        "classify": ('augment = "strong"\npatience_epochs = 1\nema_decay = 0.7\ngrad_clip = 1.0', "random"),
        "distill": ('sampling = "balanced"\nschedule = "cosine"\nlr = 0.01', str(trained)),
    }[request.param]
    config = settings(train)
    return lambda out: [request.param, out, "--data", tiny_data, "--init", init, "--config", config, "--seed", 5]


def left(out: Path) -> tuple[object, ...]:
    """Return what a finished run left that must not depend on how it came about."""
    states = []
    for path in (out / "checkpoints" / "best.pt", step_checkpoints(out / "checkpoints")[-1]):
        found = read_checkpoint(path)
        states.append((path.name, found.network, found.training, found.progress, found.metrics, found.data))
    return without_times(out / "log.jsonl"), json.loads((out / "result.json").read_text()), states


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Compare nested values; tensors bit by bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_same(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for k, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{k}]")
    else:
        assert one == other, where


@pytest.mark.slow
def test_killed_runs_end_as_undisturbed_ones(lps_train: "Runner", stage: Train, tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert lps_train(*stage(undisturbed)).code == 0
    for kill in (MID_EPOCH, AFTER_CHECKPOINT, VALIDATING, WRITING):
        assert lps_train(*stage(killed), kill=kill).code == -9, kill
        assert not (killed / "result.json").exists()
    ended = lps_train(*stage(killed))
    assert ended.code == 0, ended.stderr
    assert "resumed at step" in ended.stderr[0]
    assert_same(left(killed), left(undisturbed))
    steps = [record["step"] for record in read_log(killed / "log.jsonl") if record["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))


DEATHS = (
    ("name", "config.json", 1), ("name", "learnt.parquet", 1), ("name", "log.jsonl", 1),
    ("name", "step-00000002.pt", 1), ("name", "best.pt", 1), ("name", "best.pt", 1), ("remove", "step-00000002.pt", 1),
    ("name", "result.json", 1),
)  # fmt: skip
"""The files of a run in their order. Killed before its best checkpoint, a run writes it as soon as it is resumed."""


def test_killed_before_each_of_its_files_a_run_ends_as_an_undisturbed_one(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    def command(out: Path) -> list[object]:
        config = settings("epochs = 2\nbatch_size = 8", run="checkpoint_steps = 100\nkeep_checkpoints = 1")
        return ["classify", out, "--data", tiny_data, "--init", "random", "--config", config]

    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert lps_train(*command(undisturbed)).code == 0
    for kill in DEATHS:
        assert lps_train(*command(killed), kill=kill).code == -9, kill
        assert not (killed / "result.json").exists()
    assert lps_train(*command(killed)).code == 0
    assert_same(left(killed), left(undisturbed))
    assert [path for path in killed.rglob("*") if is_unfinished(path.name)] == []


def test_a_best_checkpoint_that_was_not_written_is_made_of_that_of_its_step(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    config = settings("epochs = 1\nbatch_size = 8", run="checkpoint_steps = 100")
    command = ["classify", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config", config]
    assert lps_train(*command, kill=("name", "best.pt", 1)).code == -9
    step = read_checkpoint(step_checkpoints(tmp_path / "run/checkpoints")[-1])
    assert lps_train(*command, kill=("name", "result.json", 1)).code == -9
    best = read_checkpoint(tmp_path / "run/checkpoints/best.pt")
    assert_same([best.network, best.progress, best.metrics], [step.network, step.progress, step.metrics])
    assert best.training == {}


def test_killed_while_it_writes_feature_maps_a_run_makes_them_anew(
    lps_train: "Runner", settings: "Settings", trained: Path, tiny_data: Path, tmp_path: Path
) -> None:
    def command(out: Path) -> list[object]:
        config = settings("epochs = 1", run="checkpoint_steps = 100")
        return ["distill", out, "--data", tiny_data, "--init", trained, "--config", config]

    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert lps_train(*command(undisturbed)).code == 0
    for kill in (("name", "maps.f16", 1), ("name", "maps.json", 1)):
        assert lps_train(*command(killed), kill=kill).code == -9, kill
    assert lps_train(*command(killed)).code == 0
    assert_same(left(killed), left(undisturbed))


def test_killed_before_each_of_its_files_an_evaluation_ends_as_an_undisturbed_one(
    lps_train: "Runner", trained: Path, tiny_data: Path, tmp_path: Path
) -> None:
    def command(out: Path) -> list[object]:
        return ["evaluate", "--checkpoint", trained, "--data", tiny_data, "--split", "val", "--out", out]

    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert lps_train(*command(undisturbed)).code == 0
    part = f"{'?' * 32}.parquet"
    for kill in (("name", part, 1), ("name", "scores.parquet", 1), ("name", "metrics.json", 1), ("remove", part, 1)):
        assert lps_train(*command(killed), kill=kill).code == -9, kill
    ended = lps_train(*command(killed))
    assert ended.code == 0, ended.stderr

    def whole(out: Path) -> dict[str, bytes]:
        files = [path for path in out.rglob("*") if path.is_file() and not is_unfinished(path.name)]
        return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}

    assert whole(killed) == whole(undisturbed)


@pytest.mark.slow
def test_killed_between_steps_with_workers(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    def command(out: Path, workers: int) -> list[object]:
        config = settings('augment = "strong"', run=f"workers = {workers}")
        return ["classify", out, "--data", tiny_data, "--init", "random", "--config", config]

    assert lps_train(*command(tmp_path / "alone", 0)).code == 0
    assert lps_train(*command(tmp_path / "killed", 2), kill=("outside", "StepDone", 5)).code == -9
    assert lps_train(*command(tmp_path / "killed", 2)).code == 0
    assert_same(left(tmp_path / "killed"), left(tmp_path / "alone"))


def test_finished_runs_are_not_run_again(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    command = ["pretrain", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config", settings()]
    first = lps_train(*command)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    second = lps_train(*command)
    assert (second.code, second.stdout) == (0, first.stdout)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_lost_record_of_the_configuration_is_no_way_around_it(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    command = ["pretrain", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config"]
    assert lps_train(*command, settings(), kill=("self", "CheckpointWritten", 1)).code == -9
    (tmp_path / "run/config.json").unlink()
    refused = lps_train(*command, settings("lr = 0.002"))
    assert refused.code == 3
    assert "train.lr was 0.001 and is 0.002" in refused.last_line
    assert lps_train(*command, settings()).code == 0


def test_other_start_and_other_samples_are_refused(
    lps_train: "Runner",
    settings: "Settings",
    tiny_data: Path,
    trained: Path,
    tmp_path: Path,
    make: "Maker",
    family: "Callable[..., list[Spec]]",
) -> None:
    data, start, out = tmp_path / "data", tmp_path / "start.pt", tmp_path / "run"
    shutil.copytree(tiny_data, data)
    shutil.copy(trained, start)
    command = ["classify", out, "--data", data, "--init", start, "--config", settings()]
    assert lps_train(*command, kill=("self", "Validated", 1)).code == -9
    values = torch.load(start, weights_only=True)
    values["network"]["backbone.bn1.weight"] += 1
    torch.save(values, start)
    refused = lps_train(*command)
    assert refused.code == 3
    assert "init_sha256 was" in refused.last_line
    shutil.copy(trained, start)
    shutil.rmtree(data)
    make.data_set([family("a", 6, "train"), family("c", 7, "train"), family("v", 6, "val")]).rename(data)
    refused = lps_train(*command)
    assert refused.code == 3
    assert (
        "the samples are not those that this run began with (index_sha256, samples_sha256 changed)" in refused.last_line
    )
    shutil.rmtree(data)
    shutil.copytree(tiny_data, data)
    assert lps_train(*command).code == 0


def test_samples_and_start_are_known_by_digest_not_by_spelling(
    lps_train: "Runner",
    settings: "Settings",
    tiny_data: Path,
    trained: Path,
    tmp_path: Path,
    make: "Maker",
    family: "Callable[..., list[Spec]]",
) -> None:
    out, options = tmp_path / "run", ["--config", settings()]
    data, start = Path(shutil.copytree(tiny_data, tmp_path / "data")), tmp_path / "start.pt"
    start.write_bytes(trained.read_bytes())
    command = ["classify", out, "--data", data, "--init", start, *options]
    assert lps_train(*command, kill=("self", "Validated", 1)).code == -9
    data, start = data.rename(tmp_path / "moved"), start.rename(tmp_path / "moved.pt")
    ended = lps_train("classify", out, "--data", f"{data}/", "--split-set", "group", "--init", start, *options)
    assert ended.code == 0, ended.stderr
    assert "resumed at step" in ended.stderr[0]
    again = lps_train("classify", out, "--data", data, "--init", f"{tmp_path}/./moved.pt", *options)
    assert (again.code, again.stdout) == (0, ended.stdout)
    other = make.data_set([family("a", 6, "train"), family("c", 7, "train"), family("v", 6, "val")])
    for changed in (["--data", other], ["--data", data, "--val-split", "none"]):
        refused = lps_train("classify", out, *changed, "--init", start, *options)
        assert refused.code == 3
        assert "the samples are not those that this run began with" in refused.last_line
    refused = lps_train("classify", out, "--data", data, "--init", "random", *options)
    assert (refused.code, "init_sha256 was" in refused.last_line) == (3, True)


def test_a_machine_is_found_again_and_is_no_other_run(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, trained: Path, tmp_path: Path
) -> None:
    command = ["classify", tmp_path / "run", "--config", settings(), "--init", trained, "--data"]
    first = lps_train(*command, tiny_data, "--head", "svm")
    assert first.code == 0, first.stderr
    assert lps_train(*command, f"{tiny_data}/", "--head", "svm").stdout == first.stdout
    refused = lps_train(*command, tiny_data)
    assert (refused.code, "head was 'svm' and is 'linear'" in refused.last_line) == (3, True)


def test_settings_that_an_older_version_did_not_know_are_no_change(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = ["pretrain", out, "--data", tiny_data, "--init", "random", "--config", settings()]
    assert lps_train(*command, kill=("self", "CheckpointWritten", 1)).code == -9
    config = json.loads((out / "config.json").read_bytes())
    del config["preset"]["train"]["accumulate"], config["keep_head"]
    (out / "config.json").write_text(json.dumps(config))
    assert lps_train(*command).code == 0


# ---- more epochs -----------------------------------------------------------------------------------------------------


def test_a_finished_run_goes_on_to_more_epochs(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    whole, more = tmp_path / "whole", tmp_path / "more"
    options = ["--data", tiny_data, "--init", "random", "--config", settings("patience_epochs = 1")]
    assert lps_train("classify", whole, *options).code == 0
    assert lps_train("classify", more, *options, "--epochs", 1).code == 0
    assert json.loads((more / "result.json").read_bytes())["epochs"] == 1
    assert lps_train("classify", more, *options, "--epochs", 2, kill=("self", "StepDone", 1)).code == -9
    assert not (more / "result.json").exists()
    ended = lps_train("classify", more, *options)
    assert ended.code == 0, ended.stderr
    assert_same(left(more), left(whole))
    refused = lps_train("classify", more, *options, "--epochs", 1)
    assert (refused.code, "train.epochs was 2 and is 1" in refused.last_line) == (3, True)
    for path in step_checkpoints(more / "checkpoints"):
        path.unlink()
    refused = lps_train("classify", more, *options, "--epochs", 3)
    assert refused.code == 3
    assert "has no checkpoint to go on from any more; learn on in another folder, with --init" in refused.last_line


def test_more_epochs_of_a_cosine_and_of_a_run_that_stopped_early(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    options = ["--data", tiny_data, "--init", "random", "--config"]
    cosine = ["pretrain", tmp_path / "cosine", *options, settings('schedule = "cosine"')]
    assert lps_train(*cosine, "--epochs", 1).code == 0
    ended = lps_train(*cosine)
    assert "note: train.epochs was 1 and is 2: a cosine over 2 epochs has another rate here" in ended.stderr[0]
    early = ["pretrain", tmp_path / "early", *options, settings("stop_epochs = 1\nlr = 1e-30\nmin_lr = 0.0")]
    assert lps_train(*early, "--epochs", 5).code == 0
    assert lps_train(*early, "--epochs", 5).code == 0
    refused = lps_train(*early, "--epochs", 6)
    assert refused.code == 3
    assert "stopped after 2 epochs, because validation did not get better (train.stop_epochs)" in refused.last_line
