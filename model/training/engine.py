"""One epoch of any stage: take a batch, step, read the losses once in a while."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from lps.manifests.canonical import unit_interval
from lps.manifests.errors import LpsError
from lps.model.data.clip_decoder import Batch
from lps.model.data.clip_reader import ClipReader
from lps.model.data.epoch_plan import Rank
from lps.model.data.feature_maps import MapReader
from lps.model.training.params import TrainParams
from lps.model.training.processes import all_gather_list, smallest

Report = Callable[[int, dict[str, float]], None]
"""Called with a step and its values, every step once. With several processes these are means over them."""


@dataclass(slots=True)
class RunProgress:
    """Where a run is. `position` counts the steps done in `epoch`, `step` those done in all."""

    epoch: int = 0
    position: int = 0
    step: int = 0
    best: float | None = None
    """AUC of the best validation, its loss with the sign changed where there is no AUC."""
    best_loss: float | None = None
    best_step: int = 0
    stale_epochs: int = 0
    """Epochs since the best validation."""

    def improves(self, score: float | None, loss: float | None) -> bool:
        """Return whether a validation is the best so far; at equal scores the lower loss is. Without any, all are."""
        if score is None or self.best is None:
            return True
        loss, lowest = (math.inf if value is None else value for value in (loss, self.best_loss))
        return (score, -loss) > (self.best, -lowest)


WARM_UP_STEPS = 2
"""First steps of a start, which are not counted: workers start, kernels are chosen, memory is laid out."""
FLOOR_STEPS, FLOOR_FROM = 3, 20
"""Steps on a cached batch, and the number of steps to come from which on they are worth their time."""
WAIT_SHARE, WAIT_STEPS = 0.1, 20
"""Share of a step that waits for data, from which a run says what to do about it; steps before it does."""

Mark = float | torch.cuda.Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How long the steps since the last look took, on average; of several processes the longest times."""

    n_steps: int
    wait_s: float
    """What a step waits for its batch: on a GPU, what that has nothing to do meanwhile."""
    work_s: float
    """The rest of a step."""
    floor_s: float | None
    """The compute floor: the shortest step on a batch that was there, never above `work_s`. None in a short run."""

    @property
    def wait_share(self) -> float:
        """Share of a step that waits for data."""
        return self.wait_s / max(self.wait_s + self.work_s, 1e-12)

    def values(self) -> dict[str, float | None]:
        """Return what is logged."""
        step_s = self.wait_s + self.work_s
        floor = None if self.floor_s is None else self.floor_s / max(step_s, 1e-12)
        return {"wait_share": self.wait_share, "floor_share": floor, "step_s": step_s, "floor_s": self.floor_s}


class Pace:
    """Measures steps. On a GPU by its own clock, since steps are only asked for and done later."""

    def __init__(self, device: torch.device, n_steps: int) -> None:
        """Measure the `n_steps` steps of a start."""
        self._device = device
        self._has_floor = n_steps >= FLOOR_FROM
        self._n_begun = 0
        self._n_full = 0
        """Clips of the cached batch: fewer, as at the end of an epoch, take less time and tell nothing of the floor."""
        self._end = self._mark()
        self._steps: list[tuple[float, Mark, Mark, Mark, int]] = []
        """Seconds waited, end of the step before, beginning, end and clips, of the steps that nobody has looked at."""
        self.floor_s: float | None = None

    def measured(self, learner: "Learner", batch: Batch, step: int, waited_s: float) -> dict[str, Tensor]:
        """Let the learner take a step, and return what that does."""
        begun = self._mark()
        values = learner.step(batch, step)
        before, self._end = self._end, self._mark()
        self._n_begun += 1
        if self._n_begun > WARM_UP_STEPS:
            self._steps.append((waited_s, before, begun, self._end, len(batch)))
        elif self._n_begun == WARM_UP_STEPS and self._has_floor:
            self._n_full = len(batch)
            self.floor_s = self._floor(learner, batch, step)
        return values

    def _floor(self, learner: "Learner", batch: Batch, step: int) -> float:
        """Return the seconds of the shortest step on a batch that is there."""
        with unchanged(learner):
            marks = [(self._mark(), learner.step(batch, step), self._mark()) for _ in range(FLOOR_STEPS)]
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            return min(_seconds(begun, ended) for begun, _, ended in marks)

    def look(self) -> Speed | None:
        """Return the speed since the last look, which waited for the device; None without steps that count.

        All processes call this at the same steps.
        """
        if not self._steps:
            return None
        n = len(self._steps)
        waits = [min(waited, _seconds(before, begun)) for waited, before, begun, _, _ in self._steps]
        work = [_seconds(begun, ended) for _, _, begun, ended, _ in self._steps]
        if self.floor_s is not None:  # the steps on the cached batch may have been slow, so soon after the start
            full = [each for each, (*_, clips) in zip(work, self._steps, strict=True) if clips >= self._n_full]
            self.floor_s = min([self.floor_s, *full])
        self._steps.clear()
        work_s = sum(work) / n
        found = torch.tensor([sum(waits) / n, work_s, min(self.floor_s or 0.0, work_s)], dtype=torch.float64)
        if dist.is_initialized():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        wait_s, work_s, floor_s = found.tolist()
        return Speed(n_steps=n, wait_s=wait_s, work_s=work_s, floor_s=floor_s or None)

    def _mark(self) -> Mark:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event


def _seconds(begun: Mark, ended: Mark) -> float:
    if isinstance(begun, torch.cuda.Event):
        assert isinstance(ended, torch.cuda.Event)  # mypy: both are of one device
        return max(0.0, float(begun.elapsed_time(ended)) / 1e3)
    assert isinstance(ended, float)
    return ended - begun


@contextmanager
def unchanged(learner: "Learner") -> Iterator[None]:
    """Put everything that steps change back to what it was: weights, statistics, optimiser, random numbers."""
    modules = [learner.model, *([] if learner.average is None else [learner.average])]
    tensors = [each for module in modules for each in chain(module.parameters(), module.buffers())]
    kept = [each.detach().clone() for each in tensors]
    optimizer = copy.deepcopy(learner.optimizer.state_dict())
    with torch.random.fork_rng([learner.device] if learner.device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for each, before in zip(tensors, kept, strict=True):
            each.copy_(before)
    learner.optimizer.load_state_dict(optimizer)
    learner.optimizer.zero_grad(set_to_none=True)


@dataclass(slots=True)
class Learner:
    """What changes while a stage is trained."""

    model: nn.Module
    """The stage, wrapped for several processes where there are some."""
    network: nn.Module
    """What is saved of it."""
    optimizer: Optimizer
    params: TrainParams
    device: torch.device
    bf16: bool = False
    rank: Rank = field(default_factory=Rank)
    seed: int = 0
    total_steps: int = 1
    average: AveragedModel | None = None
    pace: Pace | None = None
    """Measures the steps, where somebody wants to know."""

    def step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Learn from one batch. Returns `loss`, `grad_norm` and more, detached and still on the device."""
        if self.params.schedule == "cosine":
            set_lr(self.optimizer, cosine_lr(self.params, step, self.total_steps))
        # Dropout's random numbers follow from the step, so that nothing of their state has to be kept.
        torch.manual_seed(step_seed(self.seed, step, self.rank.index))
        self.optimizer.zero_grad(set_to_none=True)
        values = self._learn(batch)
        limit = math.inf if self.params.grad_clip is None else self.params.grad_clip
        grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return {**values, "grad_norm": grad_norm}

    def _learn(self, batch: Batch) -> dict[str, Tensor]:
        """Add up the gradients of a batch, part by part; returns the means over its clips."""
        n_parts = self.params.accumulate
        if n_parts > 1:  # processes whose batches differ by a clip take equally many parts
            n_parts = smallest(min(n_parts, len(batch)), self.device)
        found: dict[str, Tensor] = {}
        parts = zip(batch.frames.tensor_split(n_parts), batch.labels.tensor_split(n_parts), strict=True)
        for k, (frames, labels) in enumerate(parts):
            share = len(labels) / len(batch)
            with self._gradients_stay_here() if k + 1 < n_parts else nullcontext():
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    loss, values, _ = self.model(
                        frames.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
                    )
                (loss * share).backward()
            for name, value in {**values, "loss": loss.detach()}.items():
                found[name] = found.get(name, 0) + value * share
        return found

    def _gradients_stay_here(self) -> AbstractContextManager[None]:
        """Several processes exchange gradients once a step, with those of its last part."""
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) else nullcontext()

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])


@dataclass(frozen=True, slots=True)
class PendingStep:
    """A step that was taken, and whose values nobody has looked at yet."""

    step: int
    keys: tuple[str, ...]
    lr: float
    values: dict[str, Tensor]


def train_one_epoch(
    learner: Learner,
    batches: ClipReader | MapReader,
    progress: RunProgress,
    log_steps: int,
    report: Report,
    should_stop: Callable[[], bool],
) -> Iterator[int]:
    """Train from `progress` to the end of its epoch; yields the number of steps done each time the losses were read.

    Losses are read from the device every `log_steps` steps, because each look waits for it, and after a step where
    `should_stop`; the caller then stops. Raises LpsError with the sample keys of the first batch whose loss or gradient
    is not finite.
    """
    waiting: list[PendingStep] = []
    learner.model.train()
    for batch, waited_s in _with_waiting(batches.epoch(progress.epoch, progress.position)):
        if learner.pace is None:
            values = learner.step(batch, progress.step)
        else:
            values = learner.pace.measured(learner, batch, progress.step, waited_s)
        progress.step += 1
        progress.position = batch.step + 1
        waiting.append(PendingStep(progress.step, batch.keys, learner.lr, values))
        if should_stop() or len(waiting) >= log_steps or progress.position == batches.n_steps:
            report_losses(waiting, report)
            waiting.clear()
            yield progress.step


def _with_waiting(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Yield batches, and for how many seconds each was waited for."""
    asked = time.perf_counter()
    for batch in batches:
        yield batch, time.perf_counter() - asked
        del batch  # its memory is used again
        asked = time.perf_counter()


def report_losses(waiting: Sequence[PendingStep], report: Report) -> None:
    """Read the values of some steps from the device, all at once, and report them.

    All processes look at the same steps and see the same values, the means over them. Raises LpsError as
    `train_one_epoch` says, in all of them.
    """
    names = sorted(waiting[0].values)
    own = torch.stack([torch.stack([pending.values[name].double() for name in names]) for pending in waiting])
    mean = own
    if dist.is_initialized():
        mean = own.clone()
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
    for pending, mine, shared in zip(waiting, own.tolist(), mean.tolist(), strict=True):
        values = dict(zip(names, shared, strict=True))
        wrong = [name for name in ("loss", "grad_norm") if not math.isfinite(values[name])]
        if wrong:
            guilty = not math.isfinite(mine[names.index(wrong[0])])
            keys = all_gather_list(pending.keys if guilty else ())
            what = "loss" if wrong[0] == "loss" else "gradient's norm"
            raise LpsError(
                f"the {what} is {values[wrong[0]]} at step {pending.step}, on the samples {', '.join(keys)}; look at "
                f"them, or lower the learning rate ({pending.lr:g}); checkpoints, if any, are from before this step"
            )
        report(pending.step, {**values, "lr": pending.lr})


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of the random numbers of one step on one rank."""
    return int(unit_interval("lps-step/v1", str(seed), str(step), str(rank)) * 2**63)


def cosine_lr(params: TrainParams, step: int, total_steps: int) -> float:
    """Return the learning rate of a step: half a cosine from `lr` to `min_lr`."""
    share = min(step / max(total_steps, 1), 1.0)
    return params.min_lr + (params.lr - params.min_lr) * 0.5 * (1 + math.cos(math.pi * share))


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Give all parameter groups this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def nan_to_none(values: dict[str, Any]) -> dict[str, Any]:
    """Return values without those that JSON does not know."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
