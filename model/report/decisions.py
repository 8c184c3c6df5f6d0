"""What thresholds do to the videos of an evaluation, for the trainer's page: errors by group, and operating points.

Scores decide, not the record: a page can show thresholds that nobody asked for while evaluating.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lps.manifests.arrays import Bools
from lps.manifests.names import CLASSES
from lps.model.evaluation.metrics import LEVEL
from lps.model.evaluation.scores import THRESHOLD, UNNAMED, LabelledScores
from lps.model.evaluation.threshold import (
    FPRS,
    OperatingPoint,
    StoredThreshold,
    one_class,
    operating_point,
    point_at,
    read_threshold,
)
from lps.model.report.curves import interval
from lps.model.report.metrics import EvaluatedData, by_title
from lps.model.report.views import CellView, DecisionsView, ErrorRateRow, ThresholdRow

MAX_GROUPS = 60
"""Methods and compressions of one evaluation that a table shows, largest first."""
USUAL, AT_EER = f"p_fake > {THRESHOLD:g}", "equal error rate"


@dataclass(frozen=True, slots=True)
class GivenThreshold:
    """A threshold of a file, which belongs to one detector."""

    name: str
    stored: StoredThreshold

    @property
    def title(self) -> str:
        """What its column is called."""
        return f"{self.stored.at} of {self.stored.data} ({self.name})"

    def fits(self, each: EvaluatedData, videos: LabelledScores) -> bool:
        """Tell whether it is of the detector and of the rule that made these scores."""
        same = self.stored.checkpoint_sha256 == str(each.evaluation.checkpoint.get("sha256"))
        return same and self.stored.video_score == videos.rule


def read_thresholds(paths: Sequence[Path]) -> list[GivenThreshold]:
    """Read what `lps-train evaluate --save-threshold` stored. Raises UnreadableError."""
    return [GivenThreshold(path.name, read_threshold(path)) for path in paths]


def unused(given: Sequence[GivenThreshold], found: Sequence[EvaluatedData]) -> list[tuple[str, str]]:
    """Return a note for each threshold that is of none of the detectors here."""
    measured = [(each, videos) for each in found if (videos := each.labelled()) is not None]
    return [
        (each.name, "a threshold of another detector or video score than those evaluated here; not shown")
        for each in given
        if not any(each.fits(*one) for one in measured)
    ]


def decision_views(found: Sequence[EvaluatedData], given: Sequence[GivenThreshold]) -> dict[str, DecisionsView]:
    """Return errors by group and operating points by the title of the data; what has no labelled scores is left out."""
    views = {}
    for title, group in by_title(found).items():
        measured = [(each, videos) for each in group if (videos := each.labelled()) is not None and len(videos)]
        if not measured:
            continue
        fitting = [each for each in given if any(each.fits(*one) for one in measured)]
        heads = (USUAL, AT_EER, *dict.fromkeys(each.title for each in fitting))
        views[title] = DecisionsView(
            heads=heads,
            errors=tuple(row for one in measured for row in _error_rows(*one, heads, fitting)),
            thresholds=tuple(row for one in measured for row in _threshold_rows(*one, fitting)),
            reasons=tuple(reason for one in measured for reason in _reasons(*one)),
        )
    return views


def _points(each: EvaluatedData, videos: LabelledScores, given: Sequence[GivenThreshold]) -> dict[str, OperatingPoint]:
    """Return the operating points by their titles; none where one class is there alone."""
    labels, p_fake = videos.labels, videos.p_fake
    if one_class(labels):
        return {}
    points = {USUAL: point_at(labels, p_fake, THRESHOLD), AT_EER: operating_point(labels, p_fake, None)}
    points |= {f"false-positive rate ≤ {fpr:g}": operating_point(labels, p_fake, fpr) for fpr in FPRS}
    fitting = [one for one in given if one.fits(each, videos)]
    return points | {one.title: point_at(labels, p_fake, one.stored.threshold) for one in fitting}


def _error_rows(
    each: EvaluatedData, videos: LabelledScores, heads: Sequence[str], given: Sequence[GivenThreshold]
) -> Iterator[ErrorRateRow]:
    points = _points(each, videos, given)
    thresholds = [THRESHOLD if head == USUAL else points[head].threshold if head in points else None for head in heads]
    for group, label, mask in _groups(videos):
        p_fake, n = videos.p_fake[mask], int(mask.sum())
        wrong = [None if at is None else int(((p_fake > at) != bool(label)).sum()) for at in thresholds]
        cells = tuple(CellView("–") if k is None else rate_cell(k, n) for k in wrong)
        yield ErrorRateRow(who=each.who, group=group, label=CLASSES[label], n=f"{n:,}", cells=cells)


def _groups(videos: LabelledScores) -> Iterator[tuple[str, int, Bools]]:
    """Yield the name, class and members of each group: all, methods of fakes, compressions of both classes."""
    masks = [videos.labels == label for label in (0, 1)]
    yield from (("all", label, masks[label]) for label in (0, 1) if masks[label].any())
    methods = np.array([str(name or UNNAMED) for name in videos.method], object)
    if set(methods[masks[1]]) != {UNNAMED}:  # else all fakes are, which stand above
        yield from (("method " + name, 1, masks[1] & (methods == name)) for name in _largest(methods[masks[1]]))
    if not any(name is not None for name in videos.compression):
        return
    compressions = np.array([str(name or "not known") for name in videos.compression], object)
    for name in _largest(compressions):
        for label in (0, 1):
            mask = masks[label] & (compressions == name)
            if mask.any():
                yield f"compression {name}", label, mask


def _largest(names: "np.ndarray[tuple[int, ...], np.dtype[np.object_]]") -> list[str]:
    found, counts = np.unique(names.astype(str), return_counts=True)
    return sorted(str(name) for name in found[np.argsort(-counts, kind="stable")[:MAX_GROUPS]])


def rate_cell(n_wrong: int, n: int) -> CellView:
    """Return a share of n videos with its interval (Wilson, for videos that are independent)."""
    from scipy.stats import binomtest

    low, high = binomtest(n_wrong, n).proportion_ci(LEVEL, method="wilson")
    rate = n_wrong / n
    return CellView(f"{n_wrong:,} ({rate:.1%})", f"{low:.1%}–{high:.1%}", interval(rate, float(low), float(high)))


def _threshold_rows(
    each: EvaluatedData, videos: LabelledScores, given: Sequence[GivenThreshold]
) -> Iterator[ThresholdRow]:
    n_fake = int(videos.labels.sum())
    n_real = len(videos) - n_fake
    for at, point in _points(each, videos, given).items():
        alarms, hits = round(point.fpr * n_real), round(point.recall * n_fake)
        precision = f"{hits / (hits + alarms):.3f}" if hits + alarms else "–"
        accuracy = (hits + n_real - alarms) / len(videos)
        yield ThresholdRow(
            who=each.who,
            at=at,
            cells=(
                f"{point.threshold:.4f}",
                f"{point.fpr:.3f}",
                f"{point.recall:.3f}",
                f"{accuracy:.3f}",
                f"{(point.recall + 1 - point.fpr) / 2:.3f}",
                precision,
                f"{alarms:,} of {n_real:,}",
                f"{n_fake - hits:,} of {n_fake:,}",
            ),
        )


def _reasons(each: EvaluatedData, videos: LabelledScores) -> Iterator[str]:
    """Yield why there are no thresholds, or which of them the videos are too few for."""
    if reason := one_class(videos.labels):
        yield f"{each.evaluation.name}: no thresholds: {reason}"
        return
    n_real = int((videos.labels == 0).sum())
    if few := [f"{fpr:g}" for fpr in FPRS if fpr * n_real < 1]:
        yield f"{each.evaluation.name}: {n_real:,} real videos cannot tell a false-positive rate of {' or '.join(few)}"
