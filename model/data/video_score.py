"""One score for a video from those of its clips: the same rule for evaluation, validation and `lps-train score`."""

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
