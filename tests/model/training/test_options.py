"""How the work is done: precision, memory, layout, compilation, and what a run leaves to look at."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner
from tensorboardX.proto.event_pb2 import SessionLog
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from lps.cli.train.main import main
from lps.model.data.clip_decoder import Batch
from lps.model.evaluation.loading import load_detector
from lps.model.training.checkpoint import read_checkpoint
from lps.model.training.engine import Learner, cosine_lr, step_seed
from lps.model.training.params import TrainParams
from lps.model.training.run_log import read_log
from lps.model.training.stages import StageOutput, TrainingStage
from tests.model.board_events import events

if TYPE_CHECKING:
    from tests.model.conftest import Runner

    Settings = Callable[..., Path]


@pytest.fixture
def first_losses(lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path) -> Callable[..., object]:
    """Return a function that trains with some settings and returns the losses of the first two steps."""

    def run(name: str, stage: str = "pretrain", **tables: str) -> list[float]:
        config = settings("epochs = 1", **tables)
        ended = lps_train(stage, tmp_path / name, "--data", tiny_data, "--init", "random", "--config", config)
        assert ended.code == 0, ended.stderr
        found = read_checkpoint(tmp_path / name / "checkpoints/best.pt").network
        assert all(torch.isfinite(value).all() for value in found.values())
        assert all(value.dtype != torch.bfloat16 for value in found.values())
        return [record["loss"] for record in read_log(tmp_path / name / "log.jsonl")[:2]]

    return run


@pytest.mark.parametrize("stage", ["pretrain", "classify"])
def test_bfloat16_is_close_to_float32(stage: str, first_losses: Callable[..., Any]) -> None:
    usual = first_losses("usual", stage)
    rounded = first_losses("bf16", stage, run='precision = "bf16"')
    assert rounded != usual
    assert rounded[0] == pytest.approx(usual[0], rel=0.1)


def test_recomputed_activations_change_nothing(first_losses: Callable[..., object]) -> None:
    usual = first_losses("usual")
    assert first_losses("again", net="recompute = true") == pytest.approx(usual, rel=1e-4)


@pytest.mark.parametrize("stage", ["pretrain", "classify", "encoder"])
def test_channels_last_changes_digits_only(
    stage: str, lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    losses = []
    for name, run in (("usual", ""), ("last", "channels_last = true")):
        init = [] if stage == "encoder" else ["--init", "random"]
        config = settings("epochs = 1", run=run)
        ended = lps_train(stage, tmp_path / name, "--data", tiny_data, "--config", config, *init)
        assert ended.code == 0, ended.stderr
        losses.append(read_log(tmp_path / name / "log.jsonl")[0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.slow
def test_compiled_encoder_keeps_names_and_numbers(
    settings: "Settings", tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a backend that only traces; the usual one takes minutes on a CPU, also for a small network."""
    compiled: list[str] = []

    def trace(self: torch.nn.Module) -> None:
        compiled.append(type(self).__name__)
        self._compiled_call_impl = torch.compile(self._call_impl, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", trace)
    found = []
    for name, run in (("usual", ""), ("compiled", "compile = true")):
        config = settings("epochs = 1\nema_decay = 0.5", run=run)
        command = ["classify", tmp_path / name, "--data", tiny_data, "--init", "random", "--config", config]
        result = CliRunner().invoke(main, [str(arg) for arg in command], catch_exceptions=False)
        assert result.exit_code == 0
        found.append((read_log(tmp_path / name / "log.jsonl"), load_detector(tmp_path / name / "checkpoints/best.pt")))
    assert compiled == ["ResNet2d3d"]
    assert found[1][0][0]["loss"] == pytest.approx(found[0][0][0]["loss"], rel=1e-4)
    assert found[1][1].network.state_dict().keys() == found[0][1].network.state_dict().keys()


@pytest.mark.parametrize("log_steps", [1, 3, 100])
def test_looking_less_often_changes_nothing(log_steps: int, first_losses: Callable[..., object]) -> None:
    assert first_losses("rare", run=f"log_steps = {log_steps}") == first_losses("often", run="checkpoint_steps = 1")


def test_learning_rate_falls_on_a_plateau_and_training_stops(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    config = settings("epochs = 9\nlr = 1e-6\nmin_lr = 2e-7\npatience_epochs = 1\nstop_epochs = 4")
    ended = lps_train("pretrain", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config", config)
    assert ended.code == 0
    log = [r for r in read_log(tmp_path / "run/log.jsonl") if r["kind"] == "validation"]
    losses = [r["loss"] for r in log]
    assert len(losses) == min(9, losses.index(min(losses)) + 1 + 4)  # stops after four without a better one
    rate, best, n_bad, rates = 1e-6, math.inf, 0, []
    for loss in losses:
        n_bad = 0 if loss < best * (1 - 1e-4) else n_bad + 1
        best = min(best, loss) if n_bad == 0 else best
        if n_bad > 1:
            rate, n_bad = max(rate * 0.1, 2e-7), 0
        rates.append(rate)
    assert [r["lr"] for r in log] == rates
    assert rates[-1] == 2e-7


def test_cosine_falls_from_first_to_last_step() -> None:
    params = TrainParams(lr=1.0, min_lr=0.1, schedule="cosine")
    rates = [cosine_lr(params, step, 10) for step in range(12)]
    assert rates[0] == 1.0
    assert rates[5] == pytest.approx(0.55)
    assert rates[10] == rates[11] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)


def test_moving_average_is_what_is_validated_and_kept(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    config = settings("epochs = 1\nema_decay = 0.5\nlr = 0.01")
    ended = lps_train("classify", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config", config)
    assert ended.code == 0
    folder = tmp_path / "run/checkpoints"
    last = read_checkpoint(folder / "step-00000004.pt")
    assert not torch.equal(last.network["final_fc.1.weight"], last.training["network"]["final_fc.1.weight"])
    assert all(torch.equal(value, last.training["average"][f"module.{n}"]) for n, value in last.network.items())
    assert torch.equal(last.network["backbone.bn1.running_mean"], last.training["network"]["backbone.bn1.running_mean"])


@pytest.mark.parametrize("n_clips", [2, 5, 8])
def test_parts_of_a_batch_teach_what_the_whole_does(n_clips: int) -> None:
    """Without batch norm; uneven parts count by their clips."""
    found = []
    frames, labels = torch.rand(n_clips, 4), torch.arange(n_clips) % 2
    for accumulate in (1, 3):
        torch.manual_seed(0)
        stage = Linear()
        params = TrainParams(schedule="constant", batch_size=8, accumulate=accumulate, grad_clip=0.1)
        optimizer = torch.optim.SGD(stage.parameters(), lr=0.1)
        learner = Learner(stage, stage.network, optimizer, params, torch.device("cpu"))
        values = learner.step(Batch(0, frames, labels, ("key",) * n_clips), 0)
        found.append((stage.n_forward, [*values.values(), *stage.parameters()]))
    (once, whole), (often, parts) = found
    assert (once, often) == (1, min(3, n_clips))
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


class Linear(TrainingStage):
    """A linear classifier that counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(4, 2), 1)
        self.n_forward = 0

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> StageOutput:
        self.n_forward += 1
        return StageOutput(torch.nn.functional.cross_entropy(self.network(inputs), labels), {"mean": inputs.mean()})


def test_draws_of_a_step_are_its_own() -> None:
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(3)}
    assert len(seeds) == 450
    assert all(0 <= seed < 2**63 for seed in seeds)


# ---- TensorBoard -----------------------------------------------------------------------------------------------------


def test_tensorboard_has_every_step_once_after_a_kill(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path: Path
) -> None:
    command = ["classify", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config", settings()]
    assert lps_train(*command, kill=("self", "Validating", 1)).code == -9
    assert lps_train(*command).code == 0
    scalars: dict[str, dict[int, float]] = {}
    hparams: dict[str, list[Any]] = {}
    for event in events(tmp_path / "run/tensorboard"):
        if event.session_log.status == SessionLog.START:  # as TensorBoard does: drop what comes from here on
            scalars = {tag: {s: v for s, v in found.items() if s < event.step} for tag, found in scalars.items()}
        for value in event.summary.value:
            if value.tag.startswith("_hparams_/"):
                hparams.setdefault(value.tag, []).append(
                    HParamsPluginData.FromString(value.metadata.plugin_data.content)
                )
                continue
            assert event.step not in scalars.setdefault(value.tag, {})
            scalars[value.tag][event.step] = value.simple_value
    log = read_log(tmp_path / "run/log.jsonl")
    losses = {r["step"]: r["loss"] for r in log if r["kind"] == "step"}
    assert scalars["step/loss"].keys() == losses.keys()
    assert all(math.isclose(scalars["step/loss"][step], loss, rel_tol=1e-6) for step, loss in losses.items())
    assert {"validation/auc", "validation/loss", "step/lr", "step/grad_norm"} <= scalars.keys()

    result = json.loads((tmp_path / "run/result.json").read_bytes())
    best = next(r for r in log if r["kind"] == "validation" and r["step"] == result["best_step"])
    for name in ("auc", "loss"):
        assert scalars[f"best/{name}"] == {result["steps"]: pytest.approx(best[name])}
    assert {tag.removeprefix("_hparams_/"): len(found) for tag, found in hparams.items()} == {
        "experiment": 1, "session_start_info": 1, "session_end_info": 1
    }  # fmt: skip
    metrics = hparams["_hparams_/experiment"][0].experiment.metric_infos
    assert [metric.name.tag for metric in metrics] == ["best/auc", "best/loss"]
    shown = hparams["_hparams_/session_start_info"][0].session_start_info.hparams
    config = json.loads((tmp_path / "run/config.json").read_bytes())
    assert shown["train.lr"].number_value == config["preset"]["train"]["lr"]
    assert shown["stage"].string_value == "classify"
