"""Where a score means "fake", and how sure it is: a threshold and a temperature, chosen on one split, kept for others.

A temperature divides the logit of a video's score, so that scores are as sure as they are right (Guo et al., On
Calibration of Modern Neural Networks, ICML 2017). It changes no ranking: a threshold means the same with and without.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from lps.manifests.arrays import Floats, Ints
from lps.manifests.errors import RefusedError, UnreadableError, first_line
from lps.manifests.fields import checked
from lps.manifests.schemas import check_version
from lps.model.evaluation.metrics import NOTHING, ONLY_FAKE, ONLY_REAL

SCHEMA, SCHEMA_VERSION = "lps.threshold", "1.0"
FPRS = (0.01, 0.05, 0.1)
"""False-positive rates whose thresholds are always reported."""
N_BINS = 15
"""Bins of equal width of the expected calibration error, as Guo et al. have them."""
STEEPEST = 20.0
"""Temperatures lie in 1 / 20 to 20: scores that part the classes without an error would become infinitely sure."""
EPS = 1e-7
"""Scores are taken from at least so far from 0 and 1: float32 knows nothing nearer to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """A threshold, and what it does to the videos that it was measured on."""

    at: str
    """`eer`, where as many reals are called fake as fakes are missed; `fpr <= 0.01`; `given`."""
    threshold: float
    """A video above it is called fake."""
    fpr: float
    """Share of the real videos that are called fake."""
    recall: float
    """Share of the fake videos that are called fake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a temperature makes of the scores of videos."""

    temperature: float
    ece_before: float
    """Expected calibration error: mean distance, over bins, of the mean score and the share of fakes."""
    ece_after: float


def one_class(labels: Ints) -> str:
    """Return why no threshold can be chosen; empty where both classes are there."""
    if not len(labels):
        return NOTHING
    return "" if labels.min() < labels.max() else (ONLY_FAKE if labels[0] else ONLY_REAL)


def operating_point(labels: Ints, p_fake: Floats, fpr: float | None) -> OperatingPoint:
    """Return the threshold at the equal error rate, or the one with the highest recall at no more than `fpr`.

    It lies half way between the scores on its two sides, so that the last digits of another machine change no verdict.
    `labels` (videos,) must have both classes, `p_fake` (videos,) lie in 0 to 1.
    """
    from sklearn.metrics import roc_curve

    alarms, hits, scores = roc_curve(labels, p_fake, drop_intermediate=False)
    if fpr is None:
        worse = np.abs(alarms + hits - 1)  # false alarms less misses
        k = int(np.lexsort((alarms + 1 - hits, worse))[0])
    else:
        k = int(np.argmax(np.where(alarms <= fpr, hits, -1)))  # the first of equal recall has the fewest false alarms
    lowest_called = min(float(scores[k]), 1.0)  # the curve begins at infinity
    highest_left = float(scores[k + 1]) if k + 1 < len(scores) else 0.0
    middle = (lowest_called + highest_left) / 2
    threshold = middle if middle < lowest_called else highest_left
    return point_at(labels, p_fake, threshold, "eer" if fpr is None else f"fpr <= {fpr:g}")


def point_at(labels: Ints, p_fake: Floats, threshold: float, at: str = "given") -> OperatingPoint:
    """Return what a threshold does to videos of both classes."""
    called = p_fake > threshold
    shares = {"fpr": float(called[labels == 0].mean()), "recall": float(called[labels == 1].mean())}
    return OperatingPoint(at=at, threshold=threshold, **shares)


def calibrated(p_fake: Floats, temperature: float) -> Floats:
    """Return scores whose logits are divided by a temperature."""
    return np.asarray(1 / (1 + np.exp(-_logits(p_fake) / temperature)), np.float64)


def fit_temperature(labels: Ints, p_fake: Floats) -> float:
    """Return the temperature under which the labels of videos are the most likely."""
    from scipy.optimize import minimize_scalar

    margins = np.where(labels == 1, 1, -1) * _logits(p_fake)

    def loss(steepness: float) -> float:  # convex
        return float(np.logaddexp(0, -margins * steepness).mean())

    found = minimize_scalar(loss, bounds=(1 / STEEPEST, STEEPEST), method="bounded", options={"xatol": 1e-6})
    return float(1 / found.x)


def _logits(p_fake: Floats) -> Floats:
    inside = np.clip(p_fake, EPS, 1 - EPS)
    return np.asarray(np.log(inside / (1 - inside)), np.float64)


def calibration_error(labels: Ints, p_fake: Floats) -> float:
    """Return the expected calibration error of `p_fake` as the probability of a fake (Naeini et al., AAAI 2015)."""
    place = np.minimum((p_fake * N_BINS).astype(np.int64), N_BINS - 1)
    gaps = np.bincount(place, weights=p_fake - labels, minlength=N_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def calibration(labels: Ints, p_fake: Floats, temperature: float | None = None) -> Calibration:
    """Return what a temperature does to videos of both classes; the one that suits them best where none is given."""
    used = fit_temperature(labels, p_fake) if temperature is None else temperature
    return Calibration(
        temperature=used,
        ece_before=calibration_error(labels, p_fake),
        ece_after=calibration_error(labels, calibrated(p_fake, used)),
    )


def decision_record(labels: Ints, p_fake: Floats) -> dict[str, Any]:
    """Return the thresholds and the temperature that videos suggest, as plain values, or why there are none."""
    reason = one_class(labels)
    if reason:
        return {"operating_points": [], "calibration": {"reason": reason}}
    points = [operating_point(labels, p_fake, fpr) for fpr in (None, *FPRS)]
    return {
        "operating_points": [asdict(point) for point in points],
        "calibration": {**asdict(calibration(labels, p_fake)), "n_bins": N_BINS},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredThreshold:
    """A threshold in a file: of which detector, and how it was chosen."""

    checkpoint_sha256: str
    video_score: str
    """Rule that made the scores of videos from those of clips."""
    clips: str
    """Clips of each video that were scored, or `all`."""
    data: str
    """Name of the data that it was chosen on."""
    n_real: int
    n_fake: int
    at: str
    threshold: float
    fpr: float
    recall: float
    temperature: float
    ece_before: float
    ece_after: float

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1 or not self.temperature > 0:
            raise ValueError(
                f"a threshold lies in 0 to 1, a temperature above 0; got {self.threshold}, {self.temperature}"
            )

    def record(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **asdict(self)}

    def require_fit(self, checkpoint_sha256: str, video_score: str) -> None:
        """Raise RefusedError where it belongs to another detector or another rule."""
        if self.checkpoint_sha256 != checkpoint_sha256:
            raise RefusedError(
                f"the threshold was chosen for the detector {self.checkpoint_sha256[:12]}, this one is "
                f"{checkpoint_sha256[:12]}; choose one for it by `lps-train evaluate --save-threshold`"
            )
        if self.video_score != video_score:
            raise RefusedError(f"the threshold was chosen with --video-score {self.video_score}, not {video_score}")


def read_threshold(path: Path) -> StoredThreshold:
    """Read what `StoredThreshold.record` gave. Raises UnreadableError."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise UnreadableError(f"cannot read the threshold in {path}: {first_line(e)}") from e
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise UnreadableError(f"{path} is no threshold of `lps-train evaluate --save-threshold`, and no number")
    check_version(str(values.get("schema_version")), what=str(path), newest=SCHEMA_VERSION)
    known = {field.name: values[field.name] for field in fields(StoredThreshold) if field.name in values}
    try:
        found: StoredThreshold = checked(known, StoredThreshold, "threshold")
    except UnreadableError as e:
        raise UnreadableError(f"{path}: {e}") from e
    return found
