"""Table 5: detectors of one encoder, measured on the feature maps that they learnt from, so that none is encoded again.

Both losses are given, because the paper prints one without saying which: that of Eq. 6, which is not comparable between
lambdas, and the cross entropy in it, which is.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lps.manifests.arrays import Floats, Ints
from lps.model.evaluation.metrics import Bootstrap, Metric, draw_counts, measure, percentile_interval
from lps.model.evaluation.scores import LabelledScores
from lps.model.networks.losses import DistillParams, soft_terms
from lps.model.training.build import build_stage
from lps.model.training.checkpoint import read_checkpoint
from lps.model.training.feed import open_feed, open_run_data
from lps.model.training.job import TrainJob
from lps.model.training.processes import choose_device
from lps.model.training.stages import DistillStage


@torch.inference_mode()
def measure_distilled(job: TrainJob, checkpoint: Path, split: str) -> dict[str, Metric]:
    """Return `loss`, `cross_entropy` and `auc` of a finished distillation on a split, with intervals over videos.

    `job` is the one that made `checkpoint`. Clips are those of validation: `train.eval_clips` of each video. Raises as
    `train` does.
    """
    device = choose_device(job.preset.run.device)
    stage = build_stage("distill", job.preset, job.init)
    assert isinstance(stage, DistillStage)  # mypy
    stage.network.load_state_dict(read_checkpoint(checkpoint).network)
    stage = stage.to(device).eval()
    students, teachers, labels, faces = [], [], [], []
    here = replace(job, sources=replace(job.sources, val_split=split))
    data = open_run_data(here)
    with open_feed(here, data, stage, device) as feed:
        for batch in feed.validation or ():
            z = stage.maps(batch.frames.to(device))
            students.append(stage.network.classify(z).cpu())
            teachers.append(stage.teacher.classify(z).cpu())
            labels.append(batch.labels)
            faces += [data.face_of[key] for key in batch.keys]
    found = torch.cat(students), torch.cat(teachers), torch.cat(labels)
    video = np.unique([name for name, _ in faces], return_inverse=True)[1].astype(np.int64)
    return distilled_metrics(*found, video, np.array([face for _, face in faces], np.int64), job.preset.distill)


def distilled_metrics(
    student: Tensor, teacher: Tensor, labels: Tensor, video: Ints, face: Ints, params: DistillParams
) -> dict[str, Metric]:
    """Return the metrics of clips: logits (n, 2) of both, labels, numbers of their videos and of faces there (n,)."""
    nobody = np.full(len(video), None, object)
    clips = LabelledScores(
        labels=labels.numpy(), p_fake=student.double().softmax(1)[:, 1].numpy(), video=video, face=face,
        method=nobody, dataset=nobody, compression=nobody,
    )  # fmt: skip
    hard = F.cross_entropy(student.float(), labels, reduction="none")
    soft, selected = soft_terms(student, teacher, labels, params)
    terms = torch.stack([hard, soft, selected, torch.ones(len(video))], 1).double().numpy()
    sums: Floats = np.stack([np.bincount(video, weights=column).astype(np.float64) for column in terms.T], 1)
    return {
        "loss": over_videos(partial(_loss, params), sums),
        "cross_entropy": over_videos(lambda total: total[..., 0] / total[..., 3], sums),
        "auc": measure(clips.by_video()).metrics["auc"],
    }


def _loss(params: DistillParams, total: Floats) -> Floats:
    """Eq. 6 from sums over clips (..., 4): cross entropy, divergence, clips that the teacher gets right, clips."""
    hard, soft, selected, clips = np.moveaxis(total, -1, 0)
    count = np.maximum(selected, 1) if params.normaliser == "selected" else clips
    return np.asarray(params.weight * hard / clips + (1 - params.weight) * soft / count, np.float64)


def over_videos(metric: Callable[[Floats], Floats], sums: Floats, bootstrap: Bootstrap | None = None) -> Metric:
    """Return a metric with its interval from the sums of each video (videos, k); videos are drawn whole.

    `metric` takes totals over videos (..., k) and returns a value for each.
    """
    plan = bootstrap or Bootstrap()
    counts = draw_counts(len(sums), plan.n_draws, np.random.default_rng(plan.seed))
    drawn = np.concatenate([metric(drawn @ sums) for drawn in counts])
    low, high = percentile_interval(drawn, plan.level)
    return Metric(value=float(metric(sums.sum(0))), low=low, high=high, n_draws=len(drawn))
