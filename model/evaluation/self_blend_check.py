"""A check of the machinery on real clips alone: does the network learn to tell self-blends from their originals?

It learns from self-blends of some people and is asked about those of others, each pair under one later augmentation, so
that data, plan, worker processes, augmentation, losses and optimiser must all work. It is no detector and says nothing
of one: in a study of networks of this size none that had learnt this told true fakes better than chance.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lps.manifests.arrays import Floats, Ints
from lps.manifests.canonical import pretty_json
from lps.manifests.errors import RefusedError
from lps.manifests.storage import open_store
from lps.model.data.clip_data import ClipData, long_enough
from lps.model.data.epoch_plan import step_bounds
from lps.model.data.sample import SELF_BLEND
from lps.model.data.sources import groups_of, open_split
from lps.model.evaluation.metrics import MIN_VIDEOS, Bootstrap
from lps.model.evaluation.pairs import Pairs
from lps.model.evaluation.sanity_check import (
    N_RESAMPLES,
    VideoScores,
    probe_scores,
    thumbnail,
    trained_stage,
)
from lps.model.training.events import OnTrainEvent
from lps.model.training.feed import open_run_data, training_reader
from lps.model.training.job import TrainJob
from lps.model.training.stages import TrainingStage

RECIPE: dict[str, Any] = {
    "net": {"n_blocks": 1},
    "train": {"batch_size": 16, "lr": 1e-3, "sampling": "pairs", "augment": "strong"},
    "fakes": {"kind": "self-blend", "share": 1.0},
}
"""Single blocks and pairs: what learnt it within minutes on two cores."""
N_STEPS = 300
N_DRAWS = 4
"""Stretches of every clip that are blended, each in its own way."""
WHAT = "This is a check of the machinery, and no detector: it says that self-blends can be told, nothing of true fakes."


@dataclass(frozen=True, slots=True)
class _Windows:
    """Stretches of clips in pairs: a row each, (n, 2) for original and self-blend."""

    groups: Ints
    """(n,): group of people of each pair."""
    thumbnails: Floats
    """(n, 2, px * px * 3)."""
    colours: Floats
    """(n, 2, 3): mean colour."""
    scores: Floats
    """(n, 2): by the network."""

    def measured(self, scores: Floats) -> VideoScores:
        """Take scores (n, 2) as those of so many originals and self-blends."""
        labels = np.tile([0, 1], len(scores))
        return VideoScores(labels, scores.ravel(), np.repeat(self.groups, 2))


def check_self_blends(job: TrainJob, n_folds: int, on_event: OnTrainEvent, epochs: int | None = None) -> dict[str, Any]:
    """Train on self-blends of the split to learn from, ask about those of held-out clips; write and return the record.

    Held out is the split to validate with; without one, the first of `n_folds` parts of the groups. Without `epochs`
    there are so many that they have N_STEPS steps. Raises as `train` does, and RefusedError without people held out.
    """
    job, held_out = _held_out(job, n_folds)
    learnt = open_run_data(job).train
    n_steps = len(step_bounds(len(learnt), max(1, job.preset.train.batch_size // 2), 1)) - 1
    job = _with_epochs(job, epochs or -(-N_STEPS // n_steps))
    stage, device = trained_stage(job, on_event)
    asked, known = _windows(job, held_out, stage, device), _windows(job, learnt, stage, device)
    ahead = np.heaviside(asked.scores[:, 1] - asked.scores[:, 0], 0.5)
    pairs = Pairs(wins=ahead, original=asked.groups, method=np.full(len(ahead), "", object))
    ranked = pairs.record(Bootstrap(n_draws=N_RESAMPLES))["all"]
    network = asked.measured(asked.scores)
    record: dict[str, Any] = {
        "what": WHAT,
        "seed": job.seed,
        "epochs": job.preset.train.epochs,
        "n_clips": {"learnt": len(learnt), "held_out": len(held_out)},
        "n_groups": ranked["n_originals"],
        "n_pairs": ranked["n_pairs"],
        "pairs_ranked_right": ranked["value"],
        "pairs_ranked_right_interval": [ranked["low"], ranked["high"]],
        "pretext_auc": network.auc(),
        "pretext_auc_interval": list(network.interval()),
        "training_pretext_auc": known.measured(known.scores).auc(),
    }
    for name in ("thumbnails", "colours"):
        record[f"{name}_auc"] = _probe_auc(asked, getattr(asked, name), getattr(known, name))
    open_store(str(job.out.parent)).publish("check.json", pretty_json(record))
    return record


def _held_out(job: TrainJob, n_folds: int) -> tuple[TrainJob, ClipData]:
    """Return the job of the run, without validation, and the real clips to ask about."""
    sources = job.sources
    if sources.val_split is None:
        if n_folds < 2:
            raise RefusedError("nobody is held out: name a split with --val-split, or at least two --folds")
        sources = replace(sources, fold=(0, n_folds))
        data = open_split(sources, sources.split, held_out=True)
    else:
        data = open_split(sources, sources.val_split)
        sources = replace(sources, val_split=None)
    job = replace(job, sources=sources, out=job.out / "self-blend")
    data = long_enough(data.select(data.labels == 0, data.left_out), job.preset.n_frames)
    if not len(data):
        raise RefusedError(f"no real clip of {job.preset.n_frames} frames is held out; name a split with --val-split")
    return job, data


def _with_epochs(job: TrainJob, n: int) -> TrainJob:
    """Return the job with so many epochs, of which only the last one is followed by a checkpoint."""
    preset = job.preset
    train, run = replace(preset.train, epochs=n), replace(preset.run, validate_epochs=n)
    return replace(job, preset=replace(preset, train=train, run=run))


@torch.inference_mode()
def _windows(job: TrainJob, data: ClipData, stage: TrainingStage, device: torch.device) -> _Windows:
    """Read some stretches of every clip, each with its self-blend, and score them."""
    group = dict(zip(data.samples["key"].to_pylist(), groups_of(job.sources, data).tolist(), strict=True))
    rows: list[tuple[int, Floats, Floats, Floats]] = []
    with training_reader(job, data) as reader:
        for batch in (batch for epoch in range(N_DRAWS) for batch in reader.epoch(epoch)):
            logits = stage(batch.frames.to(device), batch.labels.to(device)).logits
            assert logits is not None  # detectors have them
            margin, clips = (logits[:, 1] - logits[:, 0]).double().cpu().numpy(), batch.frames.numpy()
            for k in np.flatnonzero([key.endswith(SELF_BLEND) for key in batch.keys]):
                two = slice(k - 1, k + 1)
                if k and batch.keys[k - 1] + SELF_BLEND == batch.keys[k]:
                    small = np.stack([thumbnail(clip) for clip in clips[two]])
                    colour = np.stack([thumbnail(clip, 1) for clip in clips[two]])
                    rows.append((group[batch.keys[k - 1]], small, colour, margin[two]))
    if not rows:
        raise RefusedError("no pair of a clip and its self-blend could be read")
    groups, smalls, colours, scores = zip(*rows, strict=True)
    return _Windows(np.array(groups, np.int64), np.stack(smalls), np.stack(colours), np.stack(scores))


def _probe_auc(asked: _Windows, rows: Floats, learnt: Floats) -> float:
    """Return the AUC of logistic regression on rows (n, 2, k), fitted on others."""
    labels = np.tile([0, 1], len(learnt))
    p = probe_scores(learnt.reshape(len(labels), -1), labels, rows.reshape(2 * len(rows), -1))
    return asked.measured(p.reshape(-1, 2)).auc()


def lines(record: dict[str, Any]) -> list[str]:
    """Return the record as lines for people."""

    def shown(name: str) -> str:
        low, high = record[f"{name}_interval"]
        return f"{record[name]:.3f}" + ("" if low is None else f" [{low:.2f}, {high:.2f}]")

    few = [f"intervals not meaningful: fewer than {MIN_VIDEOS} groups"] if record["n_groups"] < MIN_VIDEOS else []
    clips = record["n_clips"]
    return [
        f"{record['n_pairs']} pairs of a stretch and its self-blend, of {clips['held_out']} real clips in "
        f"{record['n_groups']} groups that were not learnt from ({clips['learnt']} clips were), seed {record['seed']}; "
        "[95 % by group]",
        *few,
        f"self-blend ranked above its original, share of pairs: {shown('pairs_ranked_right')}",
        f"AUC, self-blends against originals:                   {shown('pretext_auc')}",
        f"AUC of a thumbnail with logistic regression:          {record['thumbnails_auc']:.3f}",
        f"AUC of the mean colour with logistic regression:      {record['colours_auc']:.3f}",
        WHAT,
    ]
