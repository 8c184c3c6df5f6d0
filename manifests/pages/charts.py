"""Charts of the audit's page as inline SVG: what real and fake videos look like, side by side.

Classes are told apart by place (real above the axis, fake below), by line (solid, dashed) and by word; colour only
repeats it. Text and strokes take the page's colours, so the charts follow its light, dark and printed form.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

import numpy as np
from markupsafe import Markup, escape

from lps.manifests.arrays import Floats

BINS = 32
TEXT_PX = 6.2
"""Width of a digit."""
TAIL = 0.005
"""Share of the values on each side that the axis leaves out; the outer bars hold them."""
ECDF_POINTS = 160
MOST_STEPS = 5
"""Between the ticks of an axis."""
ROUND_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis of a chart."""

    low: float
    high: float
    log: bool = False
    """Decades instead of units; values must be positive."""

    def place(self, value: float) -> float:
        """Return the position of a value between 0 and 1."""
        low, high, x = (_log(self.low), _log(self.high), _log(value)) if self.log else (self.low, self.high, value)
        return min(1.0, max(0.0, (x - low) / (high - low)))

    def edges(self, n: int = BINS) -> Floats:
        """Return the borders of `n` bins that are equally wide on the chart."""
        if self.log:
            return np.asarray(10 ** np.linspace(_log(self.low), _log(self.high), n + 1), np.float64)
        return np.linspace(self.low, self.high, n + 1)

    def ticks(self) -> list[float]:
        """Return round numbers along the axis, about five."""
        decades = _log(self.high) - _log(self.low) if self.log else 0.0
        found = _decades(self.low, self.high) if decades > 1 else _multiples(self.low, self.high)
        return [tick for tick in found if self.low <= tick <= self.high]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartFrame:
    """The two axes of a chart and their place in its drawing, in pixels."""

    x: Axis
    y: Axis = Axis(low=0.0, high=1.0)
    width: int = 250
    height: int = 150
    left: int = 38
    right: int = 8
    top: int = 8
    bottom: int = 32

    def point(self, a: float, b: float) -> tuple[float, float]:
        """Return the place of a pair of values."""
        across = self.left + self.x.place(float(a)) * (self.width - self.left - self.right)
        return across, self.height - self.bottom - self.y.place(float(b)) * (self.height - self.bottom - self.top)

    def x_scale(self, unit: str) -> list[str]:
        """Draw the horizontal axis: its ticks with their numbers, where these have room, and its unit."""
        y, end = self.height - self.bottom, self.width - self.right
        parts = [f'<line class="axis" x1="{self.left}" x2="{end}" y1="{y}" y2="{y}"/>']
        free = 0.0
        for tick in self.x.ticks():
            x, label = self.point(tick, 0.0)[0], tick_label(tick)
            parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}"/>')
            anchor, wide = "end" if x > end - 12 else "middle", TEXT_PX * len(label)
            left = x - wide if anchor == "end" else x - wide / 2
            if left >= free:
                free = left + wide + TEXT_PX
                parts.append(f'<text class="dim" x="{x:.1f}" y="{y + 15}" text-anchor="{anchor}">{label}</text>')
        parts.append(f'<text class="dim" x="{end}" y="{self.height - 3}" text-anchor="end">{escape(unit)}</text>')
        return parts

    def y_scale(self, labels: Mapping[float, str] | None = None) -> list[str]:
        """Draw the vertical axis: lines over the width with their numbers, at its ticks or at those of `labels`."""
        parts = []
        for tick, label in (labels or {tick: tick_label(tick) for tick in self.y.ticks()}).items():
            y = self.point(self.x.low, tick)[1]
            line = f'x1="{self.left}" x2="{self.width - self.right}" y1="{y:.1f}" y2="{y:.1f}"'
            parts.append(f'<line class="grid" {line}/>')
            parts.append(f'<text class="dim" x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        return parts

    def svg(self, title: str, parts: Sequence[str]) -> Markup:
        """Return the drawing of parts that are markup already; `title` is for who does not see it."""
        return Markup(
            f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(title)}">'
            f"{''.join(parts)}</svg>"
        )


def axis_of(samples: Sequence[Floats], *, log: bool) -> Axis:
    """Choose an axis that shows all of the pooled values but the outermost."""
    pooled = np.concatenate([*samples, np.empty(0)])
    if not len(pooled):
        return Axis(low=0.0, high=1.0)
    log = log and bool((pooled > 0).all())
    low, high = (float(edge) for edge in np.quantile(pooled, [TAIL, 1 - TAIL]))
    if high - low <= 1e-6 * max(1.0, abs(high)):
        margin = max(abs(high) * 0.1, 0.5)
        return Axis(low=low - margin, high=high + margin)
    return Axis(low=low, high=high, log=log)


def histogram(samples: dict[str, Floats], axis: Axis, title: str, unit: str) -> Markup:
    """Draw the shares of each class per bin: real upwards, fake downwards, on one scale."""
    edges = axis.edges()
    shares = {name: _shares(values, edges) for name, values in samples.items()}
    peak = max((float(share.max()) for share in shares.values()), default=0.0) or 1.0
    frame = ChartFrame(x=axis, y=Axis(low=-peak, high=peak))
    middle = frame.point(axis.low, 0.0)[1]
    bars = []
    for name, share in shares.items():
        for i in np.flatnonzero(share):
            left, right = (frame.point(float(edge), 0.0)[0] for edge in edges[i : i + 2])
            tall = max(0.6, middle - frame.point(axis.low, float(share[i]))[1])
            top = middle - tall if name == "real" else middle
            bars.append(
                f'<rect class="{name}" x="{left:.1f}" y="{top:.1f}" width="{max(0.5, right - left - 0.6):.1f}" '
                f'height="{tall:.1f}"/>'
            )
    words = [
        f'<text{style} x="{frame.left - 6}" y="{y:.1f}" text-anchor="end">{word}</text>'
        for style, y, word in (
            (' class="dim"', frame.top + 8, f"{peak:.0%}"),
            ("", middle - 6, "real"),
            ("", middle + 13, "fake"),
            (' class="dim"', frame.height - frame.bottom, f"{peak:.0%}"),
        )
    ]
    ends = f'x1="{frame.left}" x2="{frame.width - frame.right}" y1="{middle:.1f}" y2="{middle:.1f}"'
    parts = [*bars, f'<line class="axis" {ends}/>', *words, *frame.x_scale(unit)]
    return frame.svg(f"{title}: share of real and fake by value", parts)


def ecdf(samples: dict[str, Floats], axis: Axis, title: str, unit: str) -> Markup:
    """Draw the share of each class at or below every value: real solid, fake dashed."""
    frame = ChartFrame(x=axis)
    parts = frame.y_scale({0.0: "0%", 0.5: "50%", 1.0: "100%"})
    points = axis.edges(ECDF_POINTS)
    for name, values in samples.items():
        if len(values):
            shares = np.searchsorted(np.sort(values), points, side="right") / len(values)
            parts.append(polyline([frame.point(*at) for at in zip(points, shares, strict=True)], f"line {name}"))
    return frame.svg(f"{title}: cumulative share of real and fake", [*parts, *frame.x_scale(unit)])


def polyline(points: Iterable[tuple[float, float]], style: str) -> str:
    """Draw a line through points in pixels."""
    return f'<polyline class="{style}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>'


def bar(share: float, name: str) -> Markup:
    """Draw a share between 0 and 1 as a bar for a table's cell."""
    width = 100 * min(1.0, max(0.0, share))
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="8"/>'
        f'<rect class="{escape(name)}" width="{width:.1f}" height="8"/></svg>'
    )


def number(value: float) -> str:
    """Write a number with three digits that matter, without an exponent."""
    if not isfinite(value):
        return "?"
    if value == 0 or abs(value) >= 1000 or value == round(value):
        return f"{round(value):,}"
    digits = max(0, min(6, 2 - floor(log10(abs(value)))))
    return f"{value:.{digits}f}"


def tick_label(value: float) -> str:
    """Write the number of a tick: a round one."""
    if 1e4 <= abs(value) < 1e15:
        power = floor(log10(abs(value)) / 3)
        return f"{value / 1000**power:g}{'kMGT'[power - 1]}"
    return f"{value:g}"


def _multiples(low: float, high: float) -> list[float]:
    """Return the multiples of a round step from `low` to `high`: at most six, and two where some step gives two."""
    power = floor(log10((high - low) / MOST_STEPS))
    steps = [step for step in ROUND_STEPS if step * 10.0**power * MOST_STEPS >= (high - low) * (1 - 1e-9)]
    for step in (steps[0], *reversed(ROUND_STEPS[: -len(steps)])):
        size = step * 10.0**power
        first, last = ceil(low / size - 1e-9), floor(high / size + 1e-9)
        if last > first:
            break
    return [round(k * size, 2 - power) for k in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Return powers of ten from `low` to `high`, about five, and threes between them where there are few."""
    first, last = ceil(_log(low)), floor(_log(high))
    leap = (last - first) // MOST_STEPS + 1
    factors = (1.0, 3.0) if _log(high) - _log(low) < 3 else (1.0,)
    return [factor * 10.0**power for power in range(first - leap, last + 1, leap) for factor in factors]


def _shares(values: Floats, edges: Floats) -> Floats:
    if not len(values):
        return np.zeros(len(edges) - 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return counts / len(values)


def _log(value: float) -> float:
    return log10(max(value, 1e-12))
