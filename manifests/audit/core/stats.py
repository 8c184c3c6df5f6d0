"""Differences between two classes: effect sizes with the chance of them, intervals, histograms."""

from dataclasses import dataclass
from math import erfc, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, fisher_exact, ks_2samp, mannwhitneyu

from lps.manifests.arrays import Floats
from lps.manifests.audit.core.types import State

HISTOGRAM_BINS = 24
LARGEST_D = 99.0
"""Stands for a difference of two constants: JSON has no infinity."""
_ORDER = (State.FAIL, State.WARN, State.UNKNOWN, State.PASS)


@dataclass(frozen=True, slots=True)
class Effect:
    """Size of a difference, and the chance of one at least as large between samples of equal classes."""

    size: float
    p: float

    def grade(self, *, warn: float, fail: float | None = None, max_p: float) -> State:
        """Return FAIL or WARN above their limits; UNKNOWN where the samples are too small to tell it from chance."""
        if abs(self.size) <= warn:
            return State.PASS
        if self.p >= max_p:
            return State.UNKNOWN
        return State.FAIL if fail is not None and abs(self.size) > fail else State.WARN


@dataclass(frozen=True, slots=True, kw_only=True)
class RateGap:
    """Difference of two rates, the first minus the second."""

    gap: float
    low: float
    high: float
    """Newcombe's hybrid score interval, 95 %."""
    p: float
    """Fisher's exact test, two-sided."""

    def record(self, said: str) -> dict[str, Any]:
        """Return the gap in percent points as plain values, and as text that begins with what was `said`."""
        interval = f"[{100 * self.low:+.2f}, {100 * self.high:+.2f}]"
        return {
            "gap_pp": 100 * self.gap,
            "low_pp": 100 * self.low,
            "high_pp": 100 * self.high,
            "p": self.p,
            "text": f"{said}{100 * self.gap:+.2f} pp {interval}, p {self.p:.2g}",
        }


def worst(states: list[State]) -> State:
    """Return the gravest of these; SKIP where there are none."""
    return min(states, key=_ORDER.index, default=State.SKIP)


def cliffs_delta(real: Floats, fake: Floats) -> Effect:
    """Return P(fake > real) - P(fake < real), with the p of Mann-Whitney."""
    if np.ptp(np.concatenate([real, fake])) == 0:
        return Effect(0.0, 1.0)
    test = mannwhitneyu(fake, real, method="asymptotic")
    return Effect(2 * float(test.statistic) / (len(real) * len(fake)) - 1, float(test.pvalue))


def ks_distance(real: Floats, fake: Floats) -> Effect:
    """Return the largest gap between the two cumulative distributions."""
    test = ks_2samp(real, fake, method="asymp")
    return Effect(float(test.statistic), float(test.pvalue))


def cramers_v(table: NDArray[np.int64]) -> Effect:
    """Return how far rows and columns of a table of counts depend on each other; 0 with only one of either."""
    table = table[table.any(axis=1)][:, table.any(axis=0)] if table.size else table
    if min(table.shape) < 2:
        return Effect(0.0, 1.0)
    test = chi2_contingency(table, correction=False)
    return Effect(sqrt(float(test.statistic) / (int(table.sum()) * (min(table.shape) - 1))), float(test.pvalue))


def standardised(means: tuple[float, float], variances: tuple[float, float], sizes: tuple[int, int]) -> Effect:
    """Return the difference of two means over their common deviation (Cohen's d), with the p of a z test."""
    n, m = sizes
    pooled = ((n - 1) * variances[0] + (m - 1) * variances[1]) / max(1, n + m - 2)
    if pooled <= 0:
        return Effect(0.0, 1.0) if means[0] == means[1] else Effect(LARGEST_D, 0.0)
    d = (means[1] - means[0]) / sqrt(pooled)
    return Effect(d, erfc(abs(d) * sqrt(n * m / (n + m)) / sqrt(2)))


def rate_gap(k1: int, n1: int, k2: int, n2: int) -> RateGap:
    """Compare k1 of n1 with k2 of n2; both n at least 1."""
    p1, p2 = k1 / n1, k2 / n2
    low1, high1 = _wilson(k1, n1)
    low2, high2 = _wilson(k2, n2)
    return RateGap(
        gap=p1 - p2,
        low=p1 - p2 - sqrt((p1 - low1) ** 2 + (high2 - p2) ** 2),
        high=p1 - p2 + sqrt((high1 - p1) ** 2 + (p2 - low2) ** 2),
        p=float(fisher_exact([[k1, n1 - k1], [k2, n2 - k2]])[1]),
    )


def _wilson(k: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    centre = (k + z * z / 2) / (n + z * z)
    half = z * sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    return max(0.0, centre - half), min(1.0, centre + half)


def histogram(real: Floats, fake: Floats) -> dict[str, Any]:
    """Count both classes in common bins between the 0.5 and 99.5 percentile; what lies beyond joins the end bins."""
    low, high = np.percentile(np.concatenate([real, fake]), [0.5, 99.5])
    edges = np.linspace(low, high if high > low else low + 1, HISTOGRAM_BINS + 1)
    counts = [np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].tolist() for values in (real, fake)]
    return {"edges": edges.tolist(), "real": counts[0], "fake": counts[1]}


def crossed(rows: NDArray[Any], columns: NDArray[Any], weights: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """Return the table of counts of two categories."""
    names, row = np.unique(rows, return_inverse=True)
    others, column = np.unique(columns, return_inverse=True)
    table = np.zeros((len(names), len(others)), dtype=np.int64)
    np.add.at(table, (row, column), 1 if weights is None else weights)
    return table
