"""Validation after an epoch: the loss, and for detectors the AUC over videos; of a mix by data set and together."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lps.manifests.errors import Interrupted, LpsError
from lps.model.data.clip_decoder import Batch
from lps.model.data.mix import part_name
from lps.model.data.video_score import ClipScore, Face, video_auc
from lps.model.training.processes import StopSignals, all_gather_list
from lps.model.training.stages import TrainingStage


@dataclass(slots=True)
class Tally:
    """What one process found on one data set."""

    n_clips: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """Over clips."""
    scores: list[ClipScore] = field(default_factory=list)

    def add(self, values: Mapping[str, float], n_clips: int) -> None:
        """Add the means of a batch."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * n_clips
        self.n_clips += n_clips


def metrics_of(tallies: Sequence[Mapping[str, Tally]], sets: Sequence[str]) -> dict[str, Any]:
    """Return the metrics of what processes found, by name of the data set; `sets` are the names of a mix.

    Of a mix, `loss`, `auc` and so on are means over its data sets, each of which counts alike (macro); `loss_micro` is
    over all clips and `auc_micro` over all videos; `loss/NAME` is that of one data set. A data set with one class has
    no AUC, and the mean is of the others.
    """
    together = _metrics([tally for each in tallies for tally in each.values()])
    if not sets:
        return together
    by_set = {name: _metrics([each[name] for each in tallies if name in each]) for name in sets}
    n_clips = together.pop("n_clips")
    result: dict[str, Any] = {}
    for metric in together:
        values = [found[metric] for found in by_set.values() if found.get(metric) is not None]
        result[metric] = sum(values) / len(values) if values else None
    result |= {f"{metric}_micro": value for metric, value in together.items()}
    result |= {f"{metric}/{name}": value for name, found in by_set.items() for metric, value in found.items()}
    return {**result, "n_clips": n_clips}


def _metrics(tallies: Sequence[Tally]) -> dict[str, Any]:
    total = sum(tally.n_clips for tally in tallies)
    names = sorted({name for tally in tallies for name in tally.sums})
    result: dict[str, Any] = {name: sum(t.sums.get(name, 0.0) for t in tallies) / max(total, 1) for name in names}
    pooled = [score for tally in tallies for score in tally.scores]
    if pooled:
        result["auc"] = video_auc(pooled)
    return {**result, "n_clips": total}


@torch.no_grad()
def validate(
    stage: TrainingStage,
    batches: Iterable[Batch],
    face_of: Mapping[str, Face],
    device: torch.device,
    stop: StopSignals,
    sets: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the mean loss and values over the clips of a split and, for detectors, `auc` over videos.

    `sets` are the names of the data sets of a mix, of which a batch holds one; see `metrics_of`. `face_of` gives each
    sample's video and face; a video is scored as `video_scores` does by default. `auc` is None where only one class is
    there. With several processes each validates its part, and all get the same result. Raises LpsError in all of them,
    naming the samples, where a loss is not finite, and Interrupted where one is asked to stop.
    """
    stage.eval()
    tallies: dict[str, Tally] = {}
    lost: list[str] = []
    for batch in batches:
        if stop.asked:
            break
        outcome = stage(batch.frames.to(device), batch.labels.to(device))
        values = {name: float(value) for name, value in {"loss": outcome.loss, **outcome.values}.items()}
        if not math.isfinite(values["loss"]):
            lost += batch.keys
            break
        tally = tallies.setdefault(part_name(batch.keys[0]) if sets else "", Tally())
        tally.add(values, len(batch.keys))
        if outcome.logits is not None:
            tally.scores += _scores(outcome.logits, batch, face_of)
    lost = all_gather_list(lost)
    if lost:
        raise LpsError(
            f"the loss of validation is not finite on the samples {', '.join(lost)}; look at them, or lower the "
            "learning rate; the last checkpoint is from before this validation"
        )
    if stop.agreed():
        raise Interrupted("", stop.signum)
    return metrics_of(all_gather_list([tallies]), sets)


def share_buffers(module: nn.Module) -> None:
    """Give all processes the batch-norm statistics of the first, which are those that are saved."""
    if dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def _scores(logits: Tensor, batch: Batch, face_of: Mapping[str, Face]) -> list[ClipScore]:
    fake = logits.float().softmax(1)[:, 1].tolist()
    labels = batch.labels.tolist()
    return [(face_of[key], label, p) for key, label, p in zip(batch.keys, labels, fake, strict=True)]
