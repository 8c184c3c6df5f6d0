"""One epoch of any stage: take a batch, step, read the losses once in a while."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
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
    for batch in batches.epoch(progress.epoch, progress.position):
        values = learner.step(batch, progress.step)
        progress.step += 1
        progress.position = batch.step + 1
        waiting.append(PendingStep(progress.step, batch.keys, learner.lr, values))
        if should_stop() or len(waiting) >= log_steps or progress.position == batches.n_steps:
            report_losses(waiting, report)
            waiting.clear()
            yield progress.step


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
                f"them, or lower the learning rate ({pending.lr:g}); the last checkpoint is from before this step"
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
