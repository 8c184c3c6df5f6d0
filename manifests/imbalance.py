"""How even a split is: sizes, classes and facets of each split, and how many groups really stand behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from lps.manifests.components import Ints, SplitInput
from lps.manifests.leakage import split_codes
from lps.manifests.split_records import SPLITS, Ratios, SplitRow

HEIGHT_EDGES = (360, 540, 720, 1080)
UNKNOWN = "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitBalance:
    """One split as a whole."""

    split: str
    n_videos: int
    n_clips: int | None
    n_real: int
    n_fake: int
    n_groups: int
    effective_groups: float
    """1 / sum of squared group shares: fakes of few originals are worth few videos."""
    share: float
    """Of all included videos."""
    target: float
    error95: float
    """Half width of the interval around `target` in which 95 of 100 hash splits of so many groups fall."""

    @property
    def real_per_fake(self) -> float | None:
        """Return real videos per fake one; None without fakes."""
        return self.n_real / self.n_fake if self.n_fake else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FacetCell:
    """One value of a facet in one split."""

    value: str
    split: str
    n_videos: int
    n_clips: int | None
    n_groups: int
    share: float
    """Of the videos with this value, the share that this split has; compare with the target ratio."""
    target: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FacetBalance:
    """One facet over all splits."""

    facet: str
    cells: tuple[FacetCell, ...]
    chi2_p: float | None
    """Of independence of value and split, over videos; None where there is only one of either. Videos of one group are
    not independent, so with large groups a small p is weak evidence: read it with `cramers_v`."""
    cramers_v: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imbalance:
    """The whole report."""

    splits: tuple[SplitBalance, ...]
    facets: tuple[FacetBalance, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    codes: Ints
    groups: Ints
    labels: Ints
    clips: Ints | None
    targets: Ratios

    def clips_in(self, mask: NDArray[np.bool_]) -> int | None:
        return None if self.clips is None else int(self.clips[mask].sum())


def measure_imbalance(
    inputs: Sequence[SplitInput],
    rows: Sequence[SplitRow],
    ratios: Ratios,
    *,
    facets: Mapping[str, Sequence[str]] | None = None,
    n_clips: Sequence[int] | None = None,
) -> Imbalance:
    """Report sizes and facets of every split. Excluded videos count nowhere.

    Label, method, data set and compression are always reported; `facets` adds columns in the order of `inputs`, such
    as the part of the data set or `height_bucket` of each video.
    """
    codes = split_codes(inputs, rows)
    included = codes >= 0
    anchor = {row.video_id: row.group_anchor for row in rows}
    names = [anchor.get(video.video_id, "") for video in inputs]
    columns = _Columns(
        codes=codes[included],
        groups=np.unique(np.asarray(names, dtype=np.str_), return_inverse=True)[1].astype(np.int64)[included],
        labels=np.array([-1 if v.label is None else v.label for v in inputs], dtype=np.int64)[included],
        clips=None if n_clips is None else np.asarray(n_clips, dtype=np.int64)[included],
        targets=ratios,
    )
    values: dict[str, Sequence[str]] = {
        "label": [UNKNOWN if video.label is None else str(video.label) for video in inputs],
        "method": [video.method or UNKNOWN for video in inputs],
        "dataset": [video.dataset for video in inputs],
        "compression": [video.compression or UNKNOWN for video in inputs],
        **(facets or {}),
    }
    kept = {name: np.asarray(column, dtype=np.str_)[included] for name, column in values.items()}
    return Imbalance(
        splits=tuple(_split_balance(i, columns) for i in range(len(SPLITS))),
        facets=tuple(_facet_balance(name, column, columns) for name, column in kept.items()),
    )


def height_bucket(height: int | None) -> str:
    """Name the range of picture heights that a video falls into."""
    if height is None:
        return UNKNOWN
    below = [edge for edge in HEIGHT_EDGES if edge <= height]
    return f">={below[-1]}" if below else f"<{HEIGHT_EDGES[0]}"


def effective_number(groups: Ints) -> float:
    """Return how many equal groups would say as much as these videos' groups do: 1 / sum of squared shares."""
    if len(groups) == 0:
        return 0.0
    sizes = np.unique(groups, return_counts=True)[1]
    return float(len(groups) ** 2 / np.square(sizes, dtype=np.float64).sum())


def _split_balance(split: int, columns: _Columns) -> SplitBalance:
    here = columns.codes == split
    target = columns.targets[split]
    effective = effective_number(columns.groups)
    return SplitBalance(
        split=SPLITS[split],
        n_videos=int(here.sum()),
        n_clips=columns.clips_in(here),
        n_real=int((here & (columns.labels == 0)).sum()),
        n_fake=int((here & (columns.labels == 1)).sum()),
        n_groups=len(np.unique(columns.groups[here])),
        effective_groups=effective_number(columns.groups[here]),
        share=float(here.mean()) if len(here) else 0.0,
        target=target,
        error95=1.96 * sqrt(target * (1 - target) / effective) if effective else 0.0,
    )


def _facet_balance(facet: str, column: NDArray[np.str_], columns: _Columns) -> FacetBalance:
    values, code = np.unique(column, return_inverse=True)
    table = np.zeros((len(values), len(SPLITS)), dtype=np.int64)
    np.add.at(table, (code, columns.codes), 1)
    cells: list[FacetCell] = []
    for i, value in enumerate(values.tolist()):
        for j, split in enumerate(SPLITS):
            here = (code == i) & (columns.codes == j)
            cells.append(
                FacetCell(
                    value=value,
                    split=split,
                    n_videos=int(table[i, j]),
                    n_clips=columns.clips_in(here),
                    n_groups=len(np.unique(columns.groups[here])),
                    share=float(table[i, j] / table[i].sum()),
                    target=columns.targets[j],
                )
            )
    p, v = _independence(table)
    return FacetBalance(facet=facet, cells=tuple(cells), chi2_p=p, cramers_v=v)


def _independence(table: Ints) -> tuple[float | None, float | None]:
    """Return the chi-square p and Cramer's V of a table, without its empty rows and columns."""
    table = table[table.any(axis=1)][:, table.any(axis=0)] if table.size else table
    if min(table.shape) < 2:
        return None, None
    result = chi2_contingency(table, correction=False)
    return float(result.pvalue), sqrt(float(result.statistic) / (int(table.sum()) * (min(table.shape) - 1)))
