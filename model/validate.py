"""Validation after an epoch: the loss, and for detectors the AUC over videos."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lps.model.engine import AnyBatch
from lps.model.stages import ClassifyStage, DistillStage, Stage


@torch.no_grad()
def validate(
    stage: Stage, batches: Iterable[AnyBatch], video_of: dict[str, str], device: torch.device
) -> dict[str, Any]:
    """Return the mean loss and values over the clips of a split and, for detectors, `auc` over videos.

    `video_of` gives each sample key's video; a video's score is the mean over its clips. `auc` is None where only one
    class is there. With several processes each validates its part, and all get the same result.
    """
    stage.eval()
    sums: dict[str, float] = {}
    scores: list[tuple[str, int, float]] = []
    n = 0
    for batch in batches:
        inputs, labels = batch.frames.to(device), batch.labels.to(device)
        loss, values = stage(inputs, labels)
        for name, value in {"loss": loss, **values}.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch.keys)
        n += len(batch.keys)
        if isinstance(stage, ClassifyStage | DistillStage):
            scores += _scores(stage.logits(inputs), batch, video_of)
    parts: list[Any] = [(sums, scores, n)]
    if dist.is_initialized():
        parts = [None] * dist.get_world_size()
        dist.all_gather_object(parts, (sums, scores, n))
    total = sum(part[2] for part in parts)
    names = sorted({name for part in parts for name in part[0]})
    result: dict[str, Any] = {name: sum(part[0].get(name, 0.0) for part in parts) / max(total, 1) for name in names}
    if isinstance(stage, ClassifyStage | DistillStage):
        result["auc"] = video_auc([score for part in parts for score in part[1]])
    return {**result, "n_clips": total}


def _scores(logits: Tensor, batch: AnyBatch, video_of: dict[str, str]) -> list[tuple[str, int, float]]:
    fake = logits.float().softmax(1)[:, 1].tolist()
    labels = batch.labels.tolist()
    return [(video_of[key], label, p) for key, label, p in zip(batch.keys, labels, fake, strict=True)]


def video_auc(scores: Iterable[tuple[str, int, float]]) -> float | None:
    """Return the AUC over videos of (video, label, score) per clip; None with only one class."""
    from sklearn.metrics import roc_auc_score

    videos: dict[str, tuple[int, list[float]]] = {}
    for video, label, score in sorted(scores):
        videos.setdefault(video, (label, []))[1].append(score)
    labels = [label for label, _ in videos.values()]
    if len(set(labels)) < 2:
        return None
    return float(roc_auc_score(labels, [sum(s) / len(s) for _, s in videos.values()]))
