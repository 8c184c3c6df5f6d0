"""Validation after an epoch: the loss, and for detectors the AUC over videos."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lps.manifests.errors import Interrupted, LpsError
from lps.model.data.clip_decoder import Batch
from lps.model.data.video_score import ClipScore, Face, video_auc
from lps.model.training.processes import StopSignals, all_gather_list
from lps.model.training.stages import TrainingStage


@torch.no_grad()
def validate(
    stage: TrainingStage,
    batches: Iterable[Batch],
    face_of: Mapping[str, Face],
    device: torch.device,
    stop: StopSignals,
) -> dict[str, Any]:
    """Return the mean loss and values over the clips of a split and, for detectors, `auc` over videos.

    `face_of` gives each sample key's video and face; a video is scored as `video_scores` does by default. `auc` is None
    where only one class is there. With several processes each validates its part, and all get the same result. Raises
    LpsError in all of them, naming the samples, where a loss is not finite, and Interrupted where one is asked to stop.
    """
    stage.eval()
    sums: dict[str, float] = {}
    scores: list[ClipScore] = []
    lost: list[str] = []
    n = 0
    for batch in batches:
        if stop.asked:
            break
        outcome = stage(batch.frames.to(device), batch.labels.to(device))
        values = {name: float(value) for name, value in {"loss": outcome.loss, **outcome.values}.items()}
        if not math.isfinite(values["loss"]):
            lost += batch.keys
            break
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value * len(batch.keys)
        n += len(batch.keys)
        if outcome.logits is not None:
            scores += _scores(outcome.logits, batch, face_of)
    lost = all_gather_list(lost)
    if lost:
        raise LpsError(
            f"the loss of validation is not finite on the samples {', '.join(lost)}; look at them, or lower the "
            "learning rate; the last checkpoint is from before this validation"
        )
    if stop.agreed():
        raise Interrupted("", stop.signum)
    parts = all_gather_list([(sums, scores, n)])
    total = sum(part[2] for part in parts)
    names = sorted({name for part in parts for name in part[0]})
    result: dict[str, Any] = {name: sum(part[0].get(name, 0.0) for part in parts) / max(total, 1) for name in names}
    pooled = [score for part in parts for score in part[1]]
    if pooled:
        result["auc"] = video_auc(pooled)
    return {**result, "n_clips": total}


def share_buffers(module: nn.Module) -> None:
    """Give all processes the batch-norm statistics of the first, which are those that are saved."""
    if dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def _scores(logits: Tensor, batch: Batch, face_of: Mapping[str, Face]) -> list[ClipScore]:
    fake = logits.float().softmax(1)[:, 1].tolist()
    labels = batch.labels.tolist()
    return [(face_of[key], label, p) for key, label, p in zip(batch.keys, labels, fake, strict=True)]
