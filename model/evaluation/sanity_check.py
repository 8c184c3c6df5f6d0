"""A check of the machinery on a small data set: does the network fit its training videos, and what does that show?

Fitting some dozens of videos is no evidence of detection: a thumbnail can do it. So the same is asked of a thumbnail
with logistic regression, and of both on groups of people that they have not seen, with intervals.
"""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lps.manifests.arrays import Floats, Ints, Pixels
from lps.manifests.canonical import pretty_json
from lps.manifests.storage import open_store
from lps.model.data.clip_data import ClipData
from lps.model.data.sources import groups_of, open_split
from lps.model.data.video_score import DEFAULT_RULE, video_scores
from lps.model.evaluation.metrics import NOT_MEANINGFUL, Bootstrap, auc, few_videos, intervals
from lps.model.evaluation.scores import LabelledScores
from lps.model.training.build import build_stage
from lps.model.training.checkpoint import read_checkpoint
from lps.model.training.events import OnTrainEvent
from lps.model.training.feed import open_run_data, still_reader
from lps.model.training.job import TrainJob
from lps.model.training.presets import preset_from_record
from lps.model.training.processes import choose_device
from lps.model.training.stages import TrainingStage
from lps.model.training.train import train

THUMBNAIL_PX = 8
EVAL_CLIPS = 3
N_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class VideoScores:
    """One row a video."""

    labels: Ints
    scores: Floats
    groups: Ints

    @classmethod
    def of_clips(
        cls, videos: NDArray[np.bytes_], faces: Ints, labels: Ints, groups: Ints, p_fake: Floats
    ) -> "VideoScores":
        """Score videos from clips, whose videos' ids are `videos`, as `video_scores` does by default."""
        _, first, video = np.unique(videos, return_index=True, return_inverse=True)
        return cls(labels[first], video_scores(video, faces, p_fake, DEFAULT_RULE), groups[first])

    def auc(self) -> float:
        """Return the area under the ROC curve."""
        return auc(self.labels, self.scores)

    def interval(self) -> tuple[float | None, float | None]:
        """Return the 95 % bootstrap interval of the AUC, resampling groups: their videos are not independent."""
        nobody = np.full(len(self.labels), None, object)
        scored = LabelledScores(
            labels=self.labels, p_fake=self.scores, video=np.arange(len(self.labels)), face=np.zeros_like(self.labels),
            method=nobody, dataset=nobody, compression=nobody,
        )  # fmt: skip
        return intervals(scored, Bootstrap(n_draws=N_RESAMPLES), self.groups)["auc"][:2]


def check(job: TrainJob, n_folds: int, on_event: OnTrainEvent) -> dict[str, Any]:
    """Train on all of a split, then once for each of `n_folds` parts of its groups; returns and writes the record.

    RUN/all and RUN/fold-<k> are runs as any other, so that a check that was stopped resumes. Raises as `train` does.
    """
    fitted = _scores_of(replace(job, out=job.out / "all"), held_out=False, on_event=on_event)
    thumbnails = _thumbnails(job)
    record: dict[str, Any] = {
        "what": "a check of the machinery, not of accuracy",
        "seed": job.seed,
        "n_videos": {"real": int((fitted.labels == 0).sum()), "fake": int((fitted.labels == 1).sum())},
        "n_groups": len(np.unique(fitted.groups)),
        "training_auc": fitted.auc(),
        "training_auc_interval": fitted.interval(),
        "thumbnail_training_auc": _thumbnail_auc(thumbnails, thumbnails).auc(),
    }
    if n_folds > 1:
        record |= _cross_validated(job, n_folds, thumbnails, on_event)
    open_store(str(job.out)).publish("check.json", pretty_json(record))
    return record


def _cross_validated(job: TrainJob, n_folds: int, thumbnails: "_Thumbnails", on_event: OnTrainEvent) -> dict[str, Any]:
    networks, baselines = [], []
    for k in range(n_folds):
        fold = replace(job, sources=replace(job.sources, fold=(k, n_folds)), out=job.out / f"fold-{k}")
        networks.append(_scores_of(fold, held_out=True, on_event=on_event))
        held_out = thumbnails.part(k, n_folds, inside=True)
        baselines.append(_thumbnail_auc(thumbnails.part(k, n_folds, inside=False), held_out))
    network, thumbnail = _pooled(networks), _pooled(baselines)
    return {
        "n_folds": n_folds,
        "fold_aucs": [each.auc() for each in networks],
        "held_out_auc": network.auc(),
        "held_out_auc_interval": network.interval(),
        "thumbnail_held_out_auc": thumbnail.auc(),
        "thumbnail_held_out_auc_interval": thumbnail.interval(),
    }


def _pooled(parts: list[VideoScores]) -> VideoScores:
    """Put folds together by ranks in (0, 1): scores of different networks are not on one scale."""
    from scipy.stats import rankdata

    return VideoScores(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([(rankdata(part.scores) - 0.5) / len(part.scores) for part in parts]),
        np.concatenate([part.groups for part in parts]),
    )


def _scores_of(job: TrainJob, *, held_out: bool, on_event: OnTrainEvent) -> VideoScores:
    """Train, then score the training videos or the held-out ones with the last weights."""
    stage, device = trained_stage(job, on_event)
    scored = replace(job, preset=replace(job.preset, train=replace(job.preset.train, eval_clips=EVAL_CLIPS)))
    data = open_run_data(scored).val if held_out else open_split(job.sources, job.sources.split)
    assert data is not None  # folds hold something out
    return _by_video(job, data, _network_scores(scored, stage, data, device))


def trained_stage(job: TrainJob, on_event: OnTrainEvent) -> tuple[TrainingStage, torch.device]:
    """Train a detector and return it with its last weights, ready to score, and its device. Raises as `train` does."""
    checkpoint = read_checkpoint(job.out / train(job, on_event)["last_checkpoint"])
    stage = build_stage("classify", preset_from_record(checkpoint.config["preset"]), "random")
    stage.network.load_state_dict(checkpoint.network)
    device = choose_device(job.preset.run.device)
    return stage.to(device).eval(), device


@torch.inference_mode()
def _network_scores(job: TrainJob, stage: TrainingStage, data: ClipData, device: torch.device) -> dict[str, float]:
    found: dict[str, float] = {}
    with still_reader(job, data) as reader:
        for batch in reader.epoch(0):
            logits = stage(batch.frames.to(device), batch.labels.to(device)).logits
            assert logits is not None  # detectors have them
            p = logits.float().softmax(1)[:, 1].tolist()
            found |= dict(zip(batch.keys, p, strict=True))
    return found


def _by_video(job: TrainJob, data: ClipData, scores: dict[str, float]) -> VideoScores:
    """Score videos from clip scores by sample key."""
    videos = data.samples["video_id"].to_pylist()
    groups = groups_of(job.sources, data)
    keys = data.samples["key"].to_pylist()
    scored = np.array([key in scores for key in keys])
    p_fake = np.array([scores[key] for key in keys if key in scores])
    return VideoScores.of_clips(
        np.array(videos)[scored], data.faces[scored], data.labels[scored], groups[scored], p_fake
    )


@dataclass(frozen=True, slots=True)
class _Thumbnails:
    """One row a clip: the mean frame at 8x8 px."""

    pixels: Floats
    labels: Ints
    videos: NDArray[np.bytes_]
    faces: Ints
    groups: Ints

    def part(self, k: int, n: int, *, inside: bool) -> "_Thumbnails":
        mask = (self.groups % n == k) == inside
        return _Thumbnails(self.pixels[mask], self.labels[mask], self.videos[mask], self.faces[mask], self.groups[mask])


def _thumbnails(job: TrainJob) -> _Thumbnails:
    pixels: list[Floats] = []
    keys: list[str] = []
    data = open_run_data(job).train
    with still_reader(job, data) as reader:
        for batch in reader.epoch(0):
            pixels += [thumbnail(clip) for clip in batch.frames.numpy()]
            keys += batch.keys
    place = {key: k for k, key in enumerate(data.samples["key"].to_pylist())}
    rows = np.array([place[key] for key in keys])
    videos = np.array(data.samples["video_id"].to_pylist())
    groups = groups_of(job.sources, data)
    return _Thumbnails(np.stack(pixels), data.labels[rows], videos[rows], data.faces[rows], groups[rows])


def thumbnail(clip: Pixels, side_px: int = THUMBNAIL_PX) -> Floats:
    """Return the mean frame of a clip (n, H, W, 3) at a few px a side, as a row."""
    small = cv2.resize(clip.mean(0, dtype=np.float32), (side_px, side_px), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float64).ravel()


def _thumbnail_auc(train_on: _Thumbnails, held_out: _Thumbnails) -> VideoScores:
    """Fit logistic regression on some clips and score the videos of others."""
    p = probe_scores(train_on.pixels, train_on.labels, held_out.pixels)
    return VideoScores.of_clips(held_out.videos, held_out.faces, held_out.labels, held_out.groups, p)


def probe_scores(learnt: Floats, labels: Ints, held_out: Floats) -> Floats:
    """Fit logistic regression on rows with labels and return p_fake of other rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(learnt, labels)
    return np.asarray(model.predict_proba(held_out)[:, 1], np.float64)


def lines(record: dict[str, Any]) -> list[str]:
    """Return the record as lines for people."""

    def shown(name: str) -> str:
        low, high = record[f"{name}_interval"]
        if low is not None and few_videos(n["real"], n["fake"]):
            return f"{record[name]:.3f} ({NOT_MEANINGFUL})"
        return f"{record[name]:.3f}" + ("" if low is None else f" [{low:.2f}, {high:.2f}]")

    n = record["n_videos"]
    text = [
        f"{n['real']} real and {n['fake']} fake videos in {record['n_groups']} groups, seed {record['seed']}; "
        "AUC over videos [95 % by group]",
        f"network on the videos it was trained on:      {shown('training_auc')}",
        f"thumbnail with logistic regression, the same: {record['thumbnail_training_auc']:.3f}",
    ]
    if "n_folds" in record:
        text += [
            f"network on groups it has not seen ({record['n_folds']} folds):  {shown('held_out_auc')}",
            f"thumbnail on groups it has not seen:          {shown('thumbnail_held_out_auc')}",
        ]
    return [*text, "This is a check of the machinery, not of accuracy: fitting few videos takes no detection."]
