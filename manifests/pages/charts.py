"""Charts of the audit's page as inline SVG: what real and fake videos look like, side by side.

Classes are told apart by place (real above the axis, fake below), by line (solid, dashed) and by word; colour only
repeats it. Text and strokes take the page's colours, so the charts follow its light, dark and printed form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 250, 150
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 8, 32
BINS = 32
TEXT_PX = 6.2
"""Width of a digit."""
TAIL = 0.005
"""Share of the values on each side that the axis leaves out; the outer bars hold them."""
ECDF_POINTS = 160
CLASSES = ("real", "fake")


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The horizontal axis of a chart."""

    low: float
    high: float
    log: bool = False
    """Decades instead of units; values must be positive."""

    def place(self, value: float) -> float:
        """Return the position of a value between 0 and 1."""
        low, high, x = (_log(self.low), _log(self.high), _log(value)) if self.log else (self.low, self.high, value)
        return min(1.0, max(0.0, (x - low) / (high - low)))

    def x(self, value: float) -> float:
        """Return the position of a value on the chart."""
        return LEFT + self.place(value) * (WIDTH - LEFT - RIGHT)

    def edges(self, n: int = BINS) -> Floats:
        """Return the borders of `n` bins that are equally wide on the chart."""
        if self.log:
            return np.asarray(10 ** np.linspace(_log(self.low), _log(self.high), n + 1), np.float64)
        return np.linspace(self.low, self.high, n + 1)

    def ticks(self) -> list[float]:
        """Return round numbers along the axis, about four."""
        if self.log and _log(self.high) - _log(self.low) > 1:
            decades = range(floor(_log(self.low)), ceil(_log(self.high)) + 1)
            every = [m * 10.0**d for d in decades for m in (1, 3)]
            inside = [tick for tick in every if self.low <= tick <= self.high]
            return inside[:: max(1, ceil(len(inside) / 5))]
        step = _round_step((self.high - self.low) / 3.5)
        first = ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, floor(self.high / step + 1e-9) + 1)]


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
    middle = (TOP + HEIGHT - BOTTOM) / 2
    scale = (middle - TOP - 1) / peak
    bars = []
    for name, share in shares.items():
        for i in np.flatnonzero(share):
            left, right = axis.x(float(edges[i])), axis.x(float(edges[i + 1]))
            tall = max(0.6, float(share[i]) * scale)
            top = middle - tall if name == "real" else middle
            bars.append(
                f'<rect class="{name}" x="{left:.1f}" y="{top:.1f}" width="{max(0.5, right - left - 0.6):.1f}" '
                f'height="{tall:.1f}"/>'
            )
    words = [
        f'<text class="dim" x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{peak:.0%}</text>',
        f'<text x="{LEFT - 6}" y="{middle - 6:.1f}" text-anchor="end">real</text>',
        f'<text x="{LEFT - 6}" y="{middle + 13:.1f}" text-anchor="end">fake</text>',
        f'<text class="dim" x="{LEFT - 6}" y="{HEIGHT - BOTTOM}" text-anchor="end">{peak:.0%}</text>',
    ]
    line = f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{middle:.1f}" y2="{middle:.1f}"/>'
    return svg(f"{title}: share of real and fake by value", [*bars, line, *words, *_scale(axis, unit)])


def ecdf(samples: dict[str, Floats], axis: Axis, title: str, unit: str) -> Markup:
    """Draw the share of each class at or below every value: real solid, fake dashed."""
    bottom = HEIGHT - BOTTOM
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - TOP)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="dim" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    points = axis.edges(ECDF_POINTS)
    for name, values in samples.items():
        if len(values):
            shares = np.searchsorted(np.sort(values), points, side="right") / len(values)
            ys = bottom - shares * (bottom - TOP)
            path = [f"{axis.x(float(x)):.1f},{float(y):.1f}" for x, y in zip(points, ys, strict=True)]
            parts.append(f'<polyline class="line {name}" points="{" ".join(path)}"/>')
    return svg(f"{title}: cumulative share of real and fake", [*parts, *_scale(axis, unit)])


def bar(share: float, name: str) -> Markup:
    """Draw a share between 0 and 1 as a bar for a table's cell."""
    width = 100 * min(1.0, max(0.0, share))
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="8"/>'
        f'<rect class="{escape(name)}" width="{width:.1f}" height="8"/></svg>'
    )


def ks_distance(a: Floats, b: Floats) -> float | None:
    """Return the largest distance between the two cumulative shares; None where a side is empty."""
    if not len(a) or not len(b):
        return None
    a, b = np.sort(a), np.sort(b)
    at = np.concatenate([a, b])
    gaps = np.searchsorted(a, at, side="right") / len(a) - np.searchsorted(b, at, side="right") / len(b)
    return float(np.abs(gaps).max())


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
    for bound, letter in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= bound:
            return f"{value / (1e6 if letter == 'M' else 1e3):g}{letter}"
    return f"{round(value, 6):g}"


def svg(title: str, parts: Sequence[str], width: int = WIDTH, height: int = HEIGHT) -> Markup:
    """Return a drawing of parts that are markup already; `title` is for who does not see it."""
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _scale(axis: Axis, unit: str) -> list[str]:
    y = HEIGHT - BOTTOM
    parts = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>']
    free = 0.0
    for tick in axis.ticks():
        x = axis.x(tick)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}"/>')
        anchor = "end" if x > WIDTH - RIGHT - 12 else "middle"
        wide = TEXT_PX * len(tick_label(tick))
        left = x - wide if anchor == "end" else x - wide / 2
        if left < free:
            continue
        free = left + wide + TEXT_PX
        parts.append(f'<text class="dim" x="{x:.1f}" y="{y + 15}" text-anchor="{anchor}">{tick_label(tick)}</text>')
    parts.append(f'<text class="dim" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">{escape(unit)}</text>')
    return parts


def _shares(values: Floats, edges: Floats) -> Floats:
    if not len(values):
        return np.zeros(len(edges) - 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return counts / len(values)


def _round_step(step: float) -> float:
    magnitude = 10.0 ** floor(log10(step))
    return min((m * magnitude for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - step))


def _log(value: float) -> float:
    return log10(max(value, 1e-12))
