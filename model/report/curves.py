"""Charts of the trainer's page as inline SVG: values over the steps, ROC curves, intervals.

Runs are told apart by colour and by dashes, and named in the page's key; the page's style sheet colours `s0` to `s6`,
so that the charts follow its light, dark and printed form.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from lps.manifests.arrays import Floats
from lps.manifests.pages.charts import Axis, ChartFrame, number, polyline
from lps.model.evaluation.scores import THRESHOLD, LabelledScores
from lps.model.report.runs import Series

N_COLOURS = 7
MAX_POINTS = 240
"""Points of a curve; more steps are averaged in equal parts."""
MARGIN = 0.04
"""Room above and below the curves, as a share of their height."""
TAIL = 0.005
"""Share of many values on each side that may lie outside of the axis, so that one spike does not flatten the rest."""
MANY = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One run's values in a chart."""

    name: str
    number: int
    """Number of the run; decides colour and dashes."""
    train: Series | None = None
    """At each logged step; drawn thin."""
    validation: Series | None = None
    """After epochs; drawn with dots."""
    best_step: int | None = None
    """Gets a ring."""


def colour(number: int) -> str:
    """Return the style of a run by its number."""
    return f"s{number % N_COLOURS}"


def thinned(series: Series, n: int = MAX_POINTS) -> Series:
    """Return at most n points: means of equal parts of the steps."""
    if len(series.steps) <= n:
        return series
    parts = np.array_split(np.arange(len(series.steps)), n)
    return Series(
        steps=np.array([series.steps[part].mean() for part in parts]),
        values=np.array([series.values[part].mean() for part in parts]),
    )


def curves_chart(title: str, curves: Sequence[Curve], *, log: bool = False) -> Markup:
    """Draw a value over the steps, one or two lines for each run."""
    drawn = [
        (curve, kind, thinned(series))
        for curve in curves
        for kind, series in (("train", curve.train), ("validation", curve.validation))
        if series is not None and len(series.steps)
    ]
    if not drawn:
        return Markup("")
    x = _x_axis([series.steps for _, _, series in drawn])
    y = _y_axis([series.values for _, _, series in drawn], log=log)
    frame = _frame(x, y, 420, 214)
    parts = [*frame.y_scale(), *frame.x_scale("step")]
    for curve, kind, series in drawn:
        points = [frame.point(*at) for at in zip(series.steps, series.values, strict=True)]
        parts.append(polyline(points, f"curve {kind} {colour(curve.number)}"))
        if kind == "validation" or len(points) == 1:
            parts += [_circle(point, f"dot {colour(curve.number)}", 2.6) for point in points]
        if kind == "validation" and curve.best_step is not None:
            rings = [p for p, step in zip(points, series.steps, strict=True) if step == curve.best_step]
            parts += [_circle(point, f"ring {colour(curve.number)}", 5.5) for point in rings]
    return frame.svg(f"{title} by step: {'; '.join(_told(*each) for each in drawn)}", parts)


def _told(curve: Curve, kind: str, series: Series) -> str:
    """Say what who does not see a line should know of it."""
    first, last = (short(float(series.values[k])) for k in (0, -1))
    return f"{curve.name}, {'training' if kind == 'train' else kind}, from {first} to {last}"


def short(value: float) -> str:
    """Write a value with the digits that a reader of curves needs."""
    return f"{value:.2g}" if 0 < abs(value) < 1e-3 else f"{value:.4g}" if abs(value) < 1000 else number(value)


def spans_decades(series: Sequence[Floats]) -> bool:
    """Tell whether values span so much that decades show them better."""
    pooled = np.concatenate([*series, np.empty(0)])
    return bool(len(pooled)) and float(pooled.min()) > 0 and float(pooled.max() / pooled.min()) > 50


def roc_points(labelled: LabelledScores) -> tuple[Floats, Floats, tuple[float, float]] | None:
    """Return the ROC of labelled scores, false alarms and hits, and its point at the threshold; None with one class."""
    from sklearn.metrics import roc_curve

    if not len(labelled) or labelled.labels.min() == labelled.labels.max():
        return None
    alarms, hits, _ = roc_curve(labelled.labels, labelled.p_fake)
    called = labelled.p_fake > THRESHOLD
    point = [float(called[labelled.labels == label].mean()) for label in (0, 1)]
    if len(alarms) > 2 * MAX_POINTS:
        kept = np.unique(np.linspace(0, len(alarms) - 1, 2 * MAX_POINTS).astype(int))
        alarms, hits = alarms[kept], hits[kept]
    return np.asarray(alarms, np.float64), np.asarray(hits, np.float64), (point[0], point[1])


def roc_chart(title: str, curves: Sequence[tuple[int, Floats, Floats, tuple[float, float]]]) -> Markup:
    """Draw ROC curves: number of the run, false alarms, hits, and the point of the threshold, which gets a ring."""
    frame = _frame(Axis(low=0.0, high=1.0), Axis(low=0.0, high=1.0), 300, 300)
    parts = [*frame.y_scale(), *frame.x_scale("reals called fake")]
    parts.append(polyline([frame.point(share, share) for share in (0.0, 1.0)], "chance"))
    for k, alarms, hits, point in curves:
        points = [frame.point(*at) for at in zip(alarms, hits, strict=True)]
        parts.append(polyline(points, f"curve validation {colour(k)}"))
        parts.append(_circle(frame.point(*point), f"ring {colour(k)}", 5.5))
    return frame.svg(title, parts)


def margin_chart(title: str, lines: Sequence[tuple[str, int, Sequence[tuple[float, float]]]]) -> Markup:
    """Draw the AUC over the margin: name and number of each evaluation, its margins, which rise, and their AUC."""
    margins = [margin for _, _, points in lines for margin, _ in points]
    aucs = np.array([auc for _, _, points in lines for _, auc in points])
    x = Axis(low=min(margins), high=max(max(margins), min(margins) + 0.1))
    frame = _frame(x, _y_axis([aucs], log=False), 300, 200)
    parts = [*frame.y_scale(), *frame.x_scale("margin")]
    told = []
    for name, number_of, points in lines:
        places = [frame.point(*point) for point in points]
        parts.append(polyline(places, f"curve validation {colour(number_of)}"))
        parts += [_circle(place, f"dot {colour(number_of)}", 2.6) for place in places]
        told.append(f"{name}, {', '.join(f'{auc:.3f} at {margin:g}' for margin, auc in points)}")
    return frame.svg(f"{title}: {'; '.join(told)}", parts)


def interval(value: float, low: float | None, high: float | None) -> Markup:
    """Draw a metric between 0 and 1 with its interval, for a table's cell that says it in words, too."""
    edges = (value, value if low is None else low, value if high is None else high)
    value, low, high = (min(1.0, max(0.0, edge)) for edge in edges)
    return Markup(
        '<svg class="bar span" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" y="3" width="100" height="2"/>'
        f'<rect class="real" x="{100 * low:.1f}" y="2" width="{max(0.6, 100 * (high - low)):.1f}" height="4"/>'
        f'<rect class="ink" x="{100 * value - 0.8:.1f}" width="1.6" height="8"/></svg>'
    )


def _x_axis(steps: Sequence[Floats]) -> Axis:
    pooled = np.concatenate(list(steps))
    low, high = float(pooled.min()), float(pooled.max())
    return Axis(low=min(low, 0.0) if low < 0.2 * high else low - 0.5, high=max(high, low + 1.0))


def _y_axis(values: Sequence[Floats], *, log: bool) -> Axis:
    pooled = np.concatenate(list(values))
    low, high = float(pooled.min()), float(pooled.max())
    if len(pooled) > MANY:
        low, high = (float(edge) for edge in np.quantile(pooled, [TAIL, 1 - TAIL]))
    if high - low <= 1e-6 * max(abs(high), 1e-9):
        room = abs(high) * 0.1 or 0.5
        return Axis(low=low - room, high=high + room)
    if log and low > 0:
        return Axis(low=low / 1.15, high=high * 1.15, log=True)
    room = MARGIN * (high - low)
    # Losses, rates and shares are not below 0, and so neither is their axis.
    return Axis(low=max(0.0, low - room) if low >= 0 else low - room, high=high + room)


def _frame(x: Axis, y: Axis, width: int, height: int) -> ChartFrame:
    return ChartFrame(x=x, y=y, width=width, height=height, left=50, right=10, top=10, bottom=34)


def _circle(point: tuple[float, float], style: str, radius: float) -> str:
    return f'<circle class="{style}" cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="{radius}"/>'
