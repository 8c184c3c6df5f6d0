"""How good scores are: the usual metrics by scikit-learn, their intervals by drawing videos again.

Fake is the positive class throughout. What cannot be said is null with a reason, never a number and never a crash.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lps.manifests.arrays import Floats, Ints
from lps.model.data.video_score import auc as auc
from lps.model.evaluation.scores import THRESHOLD, LabelledScores

METRICS = (
    "auc",
    "average_precision",
    "eer",
    "accuracy",
    "recall",
    "precision",
    "balanced_accuracy",
    "balanced_recall",
    "balanced_precision",
)
"""A16. Accuracy, recall and precision are at 0.5 and at the prevalence of the data; `balanced_*` weigh the scores so
that reals and fakes count the same, which makes precision comparable between data sets and leaves recall as it is."""
TITLES = {
    "auc": "AUC",
    "average_precision": "AP",
    "eer": "EER",
    "accuracy": "accuracy",
    "recall": "recall",
    "precision": "precision",
    "balanced_precision": "balanced precision",
}
"""Metrics that tables show, and their heads."""
MIN_VIDEOS = 10
"""An interval where a class has fewer videos is not meaningful: draws of so few do not say what others would give."""
NOT_MEANINGFUL = f"interval not meaningful: a class has fewer than {MIN_VIDEOS} videos"
N_DRAWS = 1000
LEVEL = 0.95
"""Level of the bootstrap intervals, which run between percentiles."""
CHUNK = 1 << 22
"""Weights held at a time, draws times scores: some 32 MB for each of a few arrays."""
MIN_DRAWS = 20
"""An interval from fewer usable draws is not given."""

NOTHING, ONLY_REAL, ONLY_FAKE = "no labelled video", "only real videos", "only fake videos"
NONE_CALLED_FAKE = f"no score above {THRESHOLD}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One value with its interval."""

    value: float | None
    reason: str = ""
    """Why there is none."""
    low: float | None = None
    high: float | None = None
    n_draws: int = 0
    """Draws in which it could be computed; the interval is over these."""

    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        if self.value is None:
            return {"value": None, "reason": self.reason}
        return {"value": self.value, "low": self.low, "high": self.high, "n_draws": self.n_draws}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The metrics of one group of scores."""

    n_real: int
    n_fake: int
    n_videos: int
    metrics: Mapping[str, Metric]

    def record(self) -> dict[str, Any]:
        """Return them as plain values."""
        counts = {"n_real": self.n_real, "n_fake": self.n_fake, "n_videos": self.n_videos}
        return counts | {name: metric.record() for name, metric in self.metrics.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """How intervals are made."""

    n_draws: int = N_DRAWS
    """0 makes none."""
    seed: int = 0
    level: float = LEVEL

    def __post_init__(self) -> None:
        if self.n_draws < 0 or self.seed < 0 or not 0 < self.level < 1:
            raise ValueError(f"not possible: {self}")


def few_videos(n_real: int, n_fake: int) -> bool:
    """Tell whether intervals are not meaningful, by the videos of each class; a class that is not there counts not."""
    return any(0 < n < MIN_VIDEOS for n in (n_real, n_fake))


def measure(scores: LabelledScores, bootstrap: Bootstrap | None = None) -> Measured:
    """Return all metrics of labelled scores with their intervals."""
    plan = bootstrap or Bootstrap()
    spans = intervals(scores, plan) if len(scores) and plan.n_draws else {}
    metrics = {}
    for name, value in point_values(scores.labels, scores.p_fake).items():
        if isinstance(value, str):
            metrics[name] = Metric(value=None, reason=value)
        else:
            low, high, n = spans.get(name, (None, None, 0))
            metrics[name] = Metric(value=value, low=low, high=high, n_draws=n)
    n_fake = int(scores.labels.sum())
    return Measured(n_real=len(scores) - n_fake, n_fake=n_fake, n_videos=len(np.unique(scores.video)), metrics=metrics)


def point_values(labels: Ints, p_fake: Floats) -> dict[str, float | str]:
    """Return every metric, or the reason why there is none."""
    from sklearn import metrics as sk

    if not len(labels):
        return dict.fromkeys(METRICS, NOTHING)
    called = (p_fake > THRESHOLD).astype(np.int64)
    found: dict[str, float | str] = {"accuracy": sk.accuracy_score(labels, called)}
    if labels.min() == labels.max():
        reason = ONLY_FAKE if labels[0] else ONLY_REAL
        recall = sk.recall_score(labels, called) if labels[0] else reason
        found |= {"recall": recall, "balanced_recall": recall}
        return {name: _plain(found.get(name, reason)) for name in METRICS}
    weights = np.where(labels == 1, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    found |= {
        "auc": auc(labels, p_fake),
        "average_precision": sk.average_precision_score(labels, p_fake),
        "eer": equal_error_rate(labels, p_fake),
        "recall": sk.recall_score(labels, called),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "balanced_recall": sk.recall_score(labels, called, sample_weight=weights),
        "precision": NONE_CALLED_FAKE,
        "balanced_precision": NONE_CALLED_FAKE,
    }
    if called.any():
        found["precision"] = sk.precision_score(labels, called)
        found["balanced_precision"] = sk.precision_score(labels, called, sample_weight=weights)
    return {name: _plain(found[name]) for name in METRICS}


def _plain(value: float | str) -> float | str:
    return value if isinstance(value, str) else float(value)


def equal_error_rate(labels: Ints, p_fake: Floats) -> float:
    """Return where the ROC, its points joined by straight lines, has as many false alarms as misses."""
    from sklearn.metrics import roc_curve

    alarms, hits, _ = roc_curve(labels, p_fake)
    return float(_crossing(alarms[None], hits[None])[0])


def _crossing(alarms: Floats, hits: Floats) -> Floats:
    """Return, for each of some ROCs (draws, points) from (0, 0) to (1, 1), the rate where both errors are equal."""
    excess = alarms + hits - 1  # false alarms less misses: from -1 to 1, never falling
    after = np.argmax(excess >= 0, axis=1)[:, None]
    before = np.maximum(after - 1, 0)
    low, high = (np.take_along_axis(excess, k, 1) for k in (before, after))
    start, end = (np.take_along_axis(alarms, k, 1) for k in (before, after))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(high > low, -low / (high - low), 0.0)
    return np.asarray((start + share * (end - start))[:, 0], np.float64)


def intervals(
    scores: LabelledScores, bootstrap: Bootstrap, groups: Ints | None = None
) -> dict[str, tuple[float | None, float | None, int]]:
    """Return the bounds of every metric over draws of as many videos, with replacement, and the number of usable draws.

    A video is drawn with all its clips; with `groups`, a number for each score, a group is drawn with all its videos,
    because these are not independent. Draws in which a metric cannot be computed (of one class only) do not count.
    """
    parts: dict[str, list[Floats]] = {name: [] for name in METRICS}
    order = np.argsort(-scores.p_fake, kind="stable")
    ranked = RankedScores.of(scores.labels[order], scores.p_fake[order])
    names, unit = np.unique((scores.video if groups is None else groups)[order], return_inverse=True)
    rng = np.random.default_rng(bootstrap.seed)
    for drawn in draw_counts(len(names), bootstrap.n_draws, rng, n_weights=len(scores)):
        for name, values in ranked.values(drawn[:, unit].astype(np.float64)).items():
            parts[name].append(values)
    found: dict[str, tuple[float | None, float | None, int]] = {}
    for name, pieces in parts.items():
        usable = np.concatenate(pieces)
        usable = usable[np.isfinite(usable)]
        low, high = percentile_interval(usable, bootstrap.level) if len(usable) >= MIN_DRAWS else (None, None)
        found[name] = (low, high, len(usable))
    return found


def draw_counts(n: int, n_draws: int, rng: np.random.Generator, n_weights: int = 0) -> Iterator[Ints]:
    """Yield (draws, n): how often each of `n` is drawn when `n` are drawn with replacement.

    The numbers do not depend on the chunks, which are the smaller the more weights (`n_weights`) a draw is turned into.
    """
    rows = max(1, CHUNK // max(n, n_weights, 1))
    for start in range(0, n_draws, rows):
        size = min(rows, n_draws - start)
        picked = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(picked.ravel(), minlength=size * n).reshape(size, n)


def percentile_interval(draws: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Return the bounds between which `level` of the draws lie."""
    low, high = np.quantile(draws, ((1 - level) / 2, (1 + level) / 2)).tolist()
    return low, high


@dataclass(frozen=True, slots=True)
class RankedScores:
    """Scores in falling order, ready to be measured under many weightings at once."""

    fake: Floats
    """1 for a fake, 0 for a real."""
    called: Floats
    """1 where it is called fake."""
    ends: Ints
    """Places of the last case of each score: the points of the ROC."""

    @classmethod
    def of(cls, labels: Ints, p_fake: Floats) -> "RankedScores":
        """Take labels and scores, highest first."""
        ends = np.append(np.flatnonzero(np.diff(p_fake)), len(p_fake) - 1)
        return cls(labels.astype(np.float64), (p_fake > THRESHOLD).astype(np.float64), ends)

    def values(self, weights: Floats) -> dict[str, Floats]:
        """Return every metric for each row of weights (draws, scores); NaN where it cannot be computed."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._values(weights)

    def _values(self, weights: Floats) -> dict[str, Floats]:
        total, fakes = weights.sum(1), weights @ self.fake
        reals = total - fakes
        hits, calls = weights @ (self.fake * self.called), weights @ self.called
        alarms = calls - hits
        recall, alarm_rate = hits / fakes, alarms / reals
        found = {
            "accuracy": (hits + reals - alarms) / total,
            "recall": recall,
            "precision": hits / calls,
            "balanced_accuracy": (recall + 1 - alarm_rate) / 2,
            "balanced_recall": recall,
            "balanced_precision": recall / (recall + alarm_rate),
            **self._curve(weights, fakes[:, None], reals[:, None]),
        }
        one_class = (fakes == 0) | (reals == 0)
        for name in ("auc", "average_precision", "eer", "precision", "balanced_precision"):
            found[name] = np.where(one_class, np.nan, found[name])
        return found

    def _curve(self, weights: Floats, fakes: Floats, reals: Floats) -> dict[str, Floats]:
        """Return what needs the whole ROC."""
        seen = np.cumsum(weights, axis=1)[:, self.ends]
        hits = np.cumsum(weights * self.fake, axis=1)[:, self.ends]
        nothing = np.zeros((len(weights), 1))
        recall = np.concatenate([nothing, hits / fakes], axis=1)
        alarms = np.concatenate([nothing, (seen - hits) / reals], axis=1)
        precision = np.where(seen > 0, hits / seen, 0.0)
        areas = np.diff(alarms, axis=1) * (recall[:, 1:] + recall[:, :-1]) / 2
        return {
            "auc": areas.sum(1),
            "average_precision": (np.diff(recall, axis=1) * precision).sum(1),
            "eer": _crossing(alarms, recall),
        }


def feasible_auc(recall: float, precision: float, prevalence: float) -> tuple[float, float] | None:
    """Return the lowest and highest AUC of any scores with this recall and precision at one threshold.

    They fix one point (f, t) of the ROC, and t (1 - f) <= AUC <= 1 - f (1 - t). `prevalence` is the share of fakes; 0.5
    for metrics of balanced classes. None where no scores have them: the share of false alarms would exceed 1, or
    nothing was called fake and yet something was found. Raises ValueError for shares outside of 0 and 1.
    """
    for name, value in (("recall", recall), ("precision", precision), ("prevalence", prevalence)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be within 0 and 1, got {value}")
    if not 0 < prevalence < 1 or (precision == 0) != (recall == 0):
        return None
    if recall == 0:
        return 0.0, 1.0  # nothing is known of the false alarms
    alarms = recall * (1 - precision) / precision * prevalence / (1 - prevalence)
    if alarms > 1 + 1e-12:
        return None
    alarms = min(alarms, 1.0)
    return recall * (1 - alarms), 1 - alarms * (1 - recall)
