"""How long steps take, what they wait for, and what one on a cached batch takes: logged, and nothing else changed."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from click.testing import CliRunner
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lps.cli.train.main import main
from lps.model.data.clip_decoder import Batch
from lps.model.networks.context_net import NetParams
from lps.model.training import engine
from lps.model.training import train as training
from lps.model.training.engine import FLOOR_FROM, Learner, Pace, Speed, unchanged
from lps.model.training.feed import crowded_note, waiting_note
from lps.model.training.params import TrainParams
from lps.model.training.run_log import read_log
from lps.model.training.stages import BlockClassifier, EncoderStage
from tests.model.board_events import events

if TYPE_CHECKING:
    Settings = Callable[..., Path]


def learner_and_batch() -> tuple[Learner, Batch]:
    """Return a learner with everything that steps change, and a batch for it."""
    torch.manual_seed(0)
    stage = EncoderStage(BlockClassifier(NetParams(width=4, n_blocks=2, block_frames=2)), 2).train()
    average = AveragedModel(stage.network, multi_avg_fn=get_ema_multi_avg_fn(0.5))  # type: ignore[no-untyped-call]
    learner = Learner(
        stage, stage.network, Adam(stage.parameters()), TrainParams(batch_size=2), torch.device("cpu"), average=average
    )
    frames = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    return learner, Batch(0, frames, torch.tensor([0, 1]), ("a", "b"))


def state(learner: Learner) -> list[torch.Tensor]:
    """Return all that a step changes."""
    assert learner.average is not None
    moments = [value for each in learner.optimizer.state_dict()["state"].values() for value in each.values()]
    tensors = [*learner.model.state_dict().values(), *learner.average.state_dict().values(), *moments]
    return [torch.get_rng_state(), *(tensor.clone() for tensor in tensors)]


@pytest.mark.parametrize("n_before", [0, 1])
def test_steps_on_a_cached_batch_leave_no_trace(n_before: int) -> None:
    learner, batch = learner_and_batch()
    for step in range(n_before):
        learner.step(batch, step)
    before = state(learner)
    with unchanged(learner):
        learner.step(batch, n_before)
        assert not all(torch.equal(a, b) for a, b in zip(before, state(learner), strict=False))
    after = state(learner)
    assert len(after) == len(before)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_measured_run_takes_the_steps_of_one_that_is_not() -> None:
    (plain, batch), (measured, _) = learner_and_batch(), learner_and_batch()
    pace = Pace(measured.device, n_steps=300)
    for step in range(4):
        plain.step(batch, step)
        pace.measured(measured, batch, step, waited_s=0.0)
    assert all(torch.equal(a, b) for a, b in zip(state(plain), state(measured), strict=True))


def test_the_first_steps_are_not_counted_and_the_floor_is_measured_after_them() -> None:
    learner, batch = learner_and_batch()
    pace = Pace(learner.device, n_steps=FLOOR_FROM)
    for step in range(2):
        pace.measured(learner, batch, step, waited_s=1000.0)  # workers start
    assert pace.look() is None
    assert pace.floor_s is not None
    for step in range(2, 4):
        pace.measured(learner, batch, step, waited_s=0.0)
    speed = pace.look()
    assert speed is not None
    assert (speed.n_steps, speed.wait_s, speed.floor_s) == (2, 0.0, pace.floor_s)
    assert speed.work_s > 0
    assert pace.look() is None


class Timed(Learner):
    """Its steps take the seconds of a list, again and again the last, and nothing else takes time."""

    def __init__(self, seconds: list[float]) -> None:
        learner, _ = learner_and_batch()
        super().__init__(**{each.name: getattr(learner, each.name) for each in fields(learner)})
        self.seconds, self.n_taken, self.now = seconds, 0, 0.0

    def step(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        del batch, step
        self.now += self.seconds[min(self.n_taken, len(self.seconds) - 1)]
        self.n_taken += 1
        return {}


def timed(monkeypatch: pytest.MonkeyPatch, n_steps: int, *seconds: float) -> tuple[Pace, Timed]:
    learner, pace = Timed([*seconds]), Pace(torch.device("cpu"), n_steps)
    monkeypatch.setattr(pace, "_mark", lambda: learner.now)
    return pace, learner


def test_the_floor_is_the_least_of_some_steps_and_none_for_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    _, batch = learner_and_batch()
    for n_steps, taken, floor_s in ((FLOOR_FROM, 5, 3.0), (10_000, 5, 3.0), (FLOOR_FROM - 1, 2, None)):
        pace, learner = timed(monkeypatch, n_steps, 50.0, 20.0, 9.0, 3.0, 4.0)
        for step in range(2):
            pace.measured(learner, batch, step, waited_s=0.0)
        assert (learner.n_taken, pace.floor_s) == (taken, floor_s)


def test_no_step_is_below_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    _, batch = learner_and_batch()
    part = Batch(0, batch.frames[:1], batch.labels[:1], batch.keys[:1])
    pace, learner = timed(monkeypatch, 100, 9.0, 9.0, 9.0, 9.0, 9.0, 4.0, 2.0, 1.0, 8.0)
    found = []
    for batches in ([batch] * 4, [part], [batch]):  # the first two are a warm-up; then a smaller one, as an epoch ends
        for each in batches:
            pace.measured(learner, each, 0, waited_s=0.0)
        speed = pace.look()
        assert speed is not None
        found.append((speed.floor_s, speed.work_s, pace.floor_s))
    assert found == [(2.0, 3.0, 2.0), (1.0, 1.0, 2.0), (2.0, 8.0, 2.0)]


def test_shares_are_of_the_whole_step() -> None:
    values = Speed(n_steps=5, wait_s=0.3, work_s=0.1, floor_s=0.08).values()
    assert values == pytest.approx({"wait_share": 0.75, "floor_share": 0.2, "step_s": 0.4, "floor_s": 0.08})
    assert Speed(n_steps=5, wait_s=0.3, work_s=0.1, floor_s=None).values()["floor_share"] is None


def test_remedies_name_the_setting_and_its_value() -> None:
    assert waiting_note(0.43, 2, 16) == (
        "steps wait for data for 43% of their time, with run.workers = 2 and 16 cores for this process: "
        "set run.workers = 16"
    )
    assert "less augmentation" in waiting_note(0.43, 16, 16)
    assert "run.maps_folder" in waiting_note(0.43, 2, 16, maps=True)
    assert crowded_note(2, 2) is None
    assert crowded_note(8, 2) == "run.workers = 8 decoding processes share 2 cores: set run.workers = 2"


def test_a_run_logs_its_speed_and_says_once_that_it_waits(
    settings: "Settings", tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "WAIT_SHARE", -1.0)  # as if all were much
    monkeypatch.setattr(training, "WAIT_STEPS", 1)
    monkeypatch.setattr(engine, "FLOOR_FROM", 1)
    command = ["classify", tmp_path / "run", "--data", tiny_data, "--init", "random", "--config", settings()]
    result = CliRunner().invoke(main, [str(arg) for arg in command], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stderr.count("steps wait for data for ") == 1
    assert result.stderr.count("set run.workers = ") == 1
    log = read_log(tmp_path / "run/log.jsonl")
    found = [record for record in log if record["kind"] == "speed"]
    assert [record["step"] for record in found] == list(range(3, 9)), "two of eight steps are a warm-up"
    for record in found:
        assert 0 <= record["wait_share"] < 1
        assert 0 < record["floor_share"] <= 1
        assert record["floor_share"] == pytest.approx(record["floor_s"] / record["step_s"])
    tags = {value.tag for event in events(tmp_path / "run/tensorboard") for value in event.summary.value}
    assert {"speed/wait_share", "speed/floor_share", "speed/step_s", "speed/floor_s"} <= tags
