"""Encoders by name, and detectors of single frames, go through the stages of the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torchvision

from lps.manifests.canonical import file_sha256
from lps.model.evaluation.loading import load_detector
from lps.model.networks.mesonet import MesoNet
from lps.model.training.checkpoint import read_checkpoint
from tests.model.board_events import without_times

if TYPE_CHECKING:
    from tests.model.conftest import Ended, Runner

    Settings = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("one_thread")

EFFICIENTNET = 'encoder = "torchvision:efficientnet_b0"\nproj_dim = 8'
"""The smallest file of all of them, with batch norms and dropped paths."""
FEW = "checkpoint_steps = 100\nkeep_checkpoints = 1"


def best(run: Path) -> Any:
    """Return a run's best checkpoint."""
    return read_checkpoint(run / "checkpoints/best.pt")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of weights as torchvision publishes them."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "efficientnet_b0.pth"
    torch.save(torchvision.models.get_model("efficientnet_b0", weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def runs(
    published: Path,
    settings: "Settings",
    lps_train: "Runner",
    tiny_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """Return the folders of a pretraining from weights, a classification and a distillation; tests only read them."""
    root = tmp_path_factory.mktemp("runs")
    weights = f'weights = "{published}"\nweights_sha256 = "{file_sha256(published)}"\nfrozen = "features.5"'
    for stage, init, net in (
        ("pretrain", "random", f"{EFFICIENTNET}\n{weights}"),
        ("classify", root / "pretrain/checkpoints/best.pt", f'{EFFICIENTNET}\ntune = "norm"'),
        ("distill", root / "classify/checkpoints/best.pt", EFFICIENTNET),
    ):
        config = settings("epochs = 1\nema_decay = 0.5\nlr = 0.01", net=net, run=FEW)
        ended = lps_train(stage, root / stage, "--data", tiny_data, "--config", config, "--init", init)
        assert ended.code == 0, ended.stderr
    return {path.name: path for path in root.iterdir()}


def test_pretraining_begins_with_the_weights_of_the_file(runs: dict[str, Path], published: Path) -> None:
    theirs, ours = torch.load(published, weights_only=True), best(runs["pretrain"]).network
    names = {name.removeprefix("backbone.") for name in ours if name.startswith("backbone.features")}
    same = {name for name in names if torch.equal(theirs[name], ours[f"backbone.{name}"])}
    frozen = {name for name in names if int(name.split(".")[1]) <= 5}
    assert same >= frozen
    assert not {name for name in same - frozen if name.endswith(("running_mean", "0.weight"))}
    result = json.loads((runs["pretrain"] / "result.json").read_text())
    gap = "its encoder began with efficientnet_b0.pth, which does not say what it learnt from"
    assert result["learnt"]["gaps"] == [gap]
    assert json.loads((runs["distill"] / "result.json").read_text())["learnt"]["gaps"] == [gap]


def test_only_what_learns_has_a_state_in_the_optimiser(runs: dict[str, Path]) -> None:
    checkpoint = read_checkpoint(next((runs["pretrain"] / "checkpoints").glob("step-*.pt")))
    kept = checkpoint.training["optimizer"]["state"]
    network = checkpoint.training["network"]
    counters = ("running_mean", "running_var", "num_batches_tracked")
    learning = [
        name for name in network
        if not name.endswith(counters) and not any(name.startswith(f"backbone.features.{k}.") for k in range(6))
    ]  # fmt: skip
    assert len(kept) == len(learning)


def test_norms_alone_learn_in_the_encoder(runs: dict[str, Path]) -> None:
    before, after = best(runs["pretrain"]).network, best(runs["classify"]).network
    moved = {
        name for name in before if name.startswith("backbone.features") and not torch.equal(before[name], after[name])
    }
    assert moved
    sized = {name for name in moved if before[name].ndim > 1 or "block.2.fc" in name}
    assert not sized, "only vectors of norms: convolutions and squeezes stay"


def test_weights_are_read_once_and_not_with_a_start(
    runs: dict[str, Path],
    published: Path,
    lps_train: "Runner",
    settings: "Settings",
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    lost = tmp_path / "lost.pth"
    lost.write_bytes(published.read_bytes())
    digest = file_sha256(published)

    def trained(name: str, epochs: int, path: Path, init: object = "random", sha256: str = digest) -> "Ended":
        net = f'{EFFICIENTNET}\nweights = "{path}"\nweights_sha256 = "{sha256}"'
        config = settings(f"epochs = {epochs}", net=net, run=FEW)
        return lps_train("pretrain", tmp_path / name, "--data", tiny_data, "--init", init, "--config", config)

    whole = trained("whole", 2, published)
    assert (whole.code, trained("resumed", 1, lost).code) == (0, 0), whole.stderr
    lost.unlink()
    refused = trained("resumed", 2, lost, sha256="0" * 64)
    assert refused.code == 3
    assert "net.weights_sha256 was" in refused.last_line
    resumed = trained("resumed", 2, lost)
    assert resumed.code == 0, resumed.stderr
    one, other = best(tmp_path / "whole").network, best(tmp_path / "resumed").network
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    missing = trained("new", 1, lost)
    assert (missing.code, "cannot read" in missing.last_line) == (4, True)
    started = trained("started", 1, lost, runs["pretrain"] / "checkpoints/best.pt")
    assert started.code == 0, started.stderr
    said = "net.weights is not looked at: the encoder comes from --init"
    assert f"note: {said}" in started.stderr[0]
    assert json.loads((tmp_path / "started/result.json").read_text())["notes"] == [said]


@pytest.mark.slow
def test_distilled_detector_is_exported(runs: dict[str, Path], lps_train: "Runner", tmp_path: Path) -> None:
    ended = lps_train("export", tmp_path / "it.pt2", "--checkpoint", runs["distill"] / "checkpoints/best.pt")
    assert ended.code == 0, ended.stderr


def test_distilled_detector_is_evaluated(
    runs: dict[str, Path], lps_train: "Runner", tiny_data: Path, tmp_path: Path
) -> None:
    checkpoint = runs["distill"] / "checkpoints/best.pt"
    loaded = load_detector(checkpoint)
    assert loaded.network.params.encoder == "torchvision:efficientnet_b0"
    asked = ["--checkpoint", checkpoint, "--data", tiny_data, "--split", "val", "--workers", 0, "--device", "cpu"]
    ended = lps_train("evaluate", *asked, "--out", tmp_path / "eval")
    assert ended.code == 0, ended.stderr
    assert "does not say what it learnt from" in (tmp_path / "eval/metrics.json").read_text()


def test_resumed_run_ends_as_an_undisturbed_one(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    net = f'{EFFICIENTNET}\nfrozen = "features.3"\ntune = "norm"'
    found = []
    for name, epochs in (("whole", (2,)), ("resumed", (1, 2))):
        for n in epochs:
            config = settings(f"epochs = {n}", net=net, run=FEW)
            command = ["classify", tmp_path / name, "--data", tiny_data, "--init", "random", "--config", config]
            ended = lps_train(*command)
            assert ended.code == 0, ended.stderr
        last = max((tmp_path / name / "checkpoints").glob("step-*.pt"))
        found.append((read_checkpoint(last).network, without_times(tmp_path / name / "log.jsonl")))
    assert found[0][1] == found[1][1]
    assert all(torch.equal(value, found[1][0][name]) for name, value in found[0][0].items())
    other = settings("epochs = 2", net=net.replace("features.3", "features.4"), run=FEW)
    refused = lps_train(*command[:-1], other)
    assert refused.code == 3
    assert "net.frozen was 'features.3' and is 'features.4'" in refused.last_line


@pytest.mark.parametrize(
    ("net", "code", "says"),
    [
        (
            'encoder = "torchvision:resnet19"',
            4,
            "[net] is not usable: no encoder 'torchvision:resnet19' here; did you mean",
        ),
        ('encoder = "torchvision:resnet18"\nfrozen = "layer7"', 3, "no stage 'layer7' to freeze; it has conv1, bn1"),
        ('encoder = "torchvision:resnet18"\nweights = "no.pth"\nweights_sha256 = "00"', 4, "cannot read no.pth"),
    ],
)
def test_wrong_encoder_is_one_line(
    net: str, code: int, says: str, lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    config = settings(net=net)
    ended = lps_train("classify", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config", config)
    assert (ended.code, says in ended.last_line) == (code, True), ended.stderr


def test_too_small_a_frame_is_one_line(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    config = settings(top="image_px = 16", net='encoder = "mesonet4"')
    ended = lps_train("classify", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config", config)
    assert ended.code == 4
    assert "not usable: image_px = 16 is too small for 'mesonet4': it takes 32 or more" in ended.last_line


def test_detector_of_frames_learns_from_each_frame_and_scores_clips(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    name = "mesoinception4"  # the other one is run by the experiment of Table 1
    data = ["--data", tiny_data, "--config", settings("epochs = 1", net=f'encoder = "{name}"', run=FEW)]
    ended = lps_train("classify", tmp_path / "run", *data, "--init", "random")
    assert ended.code == 0, ended.stderr
    checkpoint = tmp_path / "run/checkpoints/best.pt"
    assert isinstance(load_detector(checkpoint).network, MesoNet)
    assert best(tmp_path / "run").metrics["auc"] is not None
    asked = ["--checkpoint", checkpoint, "--data", tiny_data, "--split", "val", "--workers", 0, "--device", "cpu"]
    commands: list[list[object]] = [
        ["evaluate", *asked, "--out", tmp_path / "eval"],
        ["export", tmp_path / "detector.pt2", "--checkpoint", checkpoint],
        ["classify", tmp_path / "more", *data, "--init", checkpoint, "--keep-head"],
    ]
    for command in commands:
        ended = lps_train(*command)
        assert ended.code == 0, ended.stderr
    refusals: list[tuple[list[object], str]] = [
        (["pretrain", "--init", "random"], f"'{name}' is a whole detector and no encoder: only classify trains it"),
        (["distill", "--init", checkpoint], f"'{name}' is a whole detector and no encoder: only classify trains it"),
        (["classify", "--init", "random", "--head", "svm"], "judges single frames and has no context for --head svm"),
    ]
    for command, says in refusals:
        refused = lps_train(command[0], tmp_path / "no", *data, *command[1:])
        assert (refused.code, says in refused.last_line) == (3, True), refused.stderr
