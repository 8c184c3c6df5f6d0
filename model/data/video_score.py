"""One score for a video from those of its clips: the same rule for evaluation, validation and `lps-train score`."""

from collections.abc import Iterable

import numpy as np

from lps.manifests.arrays import Floats, Ints
from lps.manifests.names import VideoRule

VIDEO_RULE_TEXT: dict[VideoRule, str] = {
    "max": "face: mean of its clips; video: its highest face",
    "mean": "video: mean of all its clips",
}
"""`max`, the default: a label says that one face of a video is forged, not that all are. Where one face of each video
is prepared, as in most published results, both are the mean of its clips."""


DEFAULT_RULE: VideoRule = "max"

Face = tuple[str, int]
"""A video and the number of a face in it."""
ClipScore = tuple[Face, int, float]
"""Face, label and score of a clip."""


def video_scores(video: Ints, face: Ints, scores: Floats, rule: VideoRule) -> Floats:
    """Return the score of each video (videos,) from clips (clips,): their videos from 0 on, faces within them, scores.

    Every number of a video up to the largest must be there.
    """
    if rule == "mean" or not len(scores):
        return _means(video, scores)
    faces, number = np.unique(np.stack([video, face]), axis=1, return_inverse=True)
    highest = np.full(faces[0, -1] + 1, -np.inf)
    np.maximum.at(highest, faces[0], _means(number.reshape(-1), scores))
    return highest


def _means(number: Ints, scores: Floats) -> Floats:
    return np.asarray(np.bincount(number, weights=scores) / np.bincount(number), np.float64)


def auc(labels: Ints, p_fake: Floats) -> float:
    """Return the area under the ROC of both classes."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, p_fake))


def video_auc(scores: Iterable[ClipScore]) -> float | None:
    """Return the AUC over videos, scored as `video_scores` does by default; None with only one class."""
    ordered = sorted(scores)
    _, first, number = np.unique([video for (video, _), _, _ in ordered], return_index=True, return_inverse=True)
    labels = np.array([label for _, label, _ in ordered], np.int64)[first]
    if len(np.unique(labels)) < 2:
        return None
    faces = np.array([face for (_, face), _, _ in ordered], np.int64)
    return auc(labels, video_scores(number, faces, np.array([score for _, _, score in ordered]), DEFAULT_RULE))
