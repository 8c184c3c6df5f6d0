"""Where whole groups go: three pure rules over the positions, sizes and contents of groups."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Ints
from lps.manifests.names import SPLITS
from lps.manifests.splits.groups import Groups
from lps.manifests.splits.inputs import SplitInput
from lps.manifests.splits.records import Ratios, SplitParams, position

SMALL_SET_GROUPS = 50
"""Below this, the shares that a hash gives are off by 14 points or more in one set of twenty."""

VideoKind = tuple[str, str, str, str]
"""Label, method, data set and compression of a video, as text: what a balanced split balances."""
Cell = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Videos that already have a split."""

    kinds: Sequence[tuple[VideoKind, str]] = ()
    """Kind and split of each."""
    n_groups: int = 0

    def within(self, splits: Sequence[str]) -> "Settled":
        """Forget the videos of other splits; the number of groups stays an upper bound."""
        return replace(self, kinds=[(kind, split) for kind, split in self.kinds if split in splits])


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """How many videos of which kind each group holds."""

    kinds: tuple[VideoKind, ...]
    counts: tuple[tuple[tuple[int, int], ...], ...]
    """Per group: pairs of the number of a kind and how many videos have it."""


def contents_of(kinds: Sequence[VideoKind], groups: Groups) -> Contents:
    """Count the kinds of videos in every group; `kinds` has one for each video."""
    names = sorted(set(kinds))
    number = {kind: i for i, kind in enumerate(names)}
    codes = np.array([number[kind] for kind in kinds], dtype=np.int64)
    pairs, n = np.unique(groups.of_video * max(1, len(names)) + codes, return_counts=True)
    counts: list[list[tuple[int, int]]] = [[] for _ in range(len(groups))]
    for pair, count in zip(pairs.tolist(), n.tolist(), strict=True):
        group, code = divmod(pair, len(names))
        counts[group].append((code, count))
    return Contents(kinds=tuple(names), counts=tuple(tuple(group) for group in counts))


def kind_of(video: SplitInput) -> VideoKind:
    """Return the kind of a video; an unknown label is a kind of its own."""
    label = "?" if video.label is None else str(video.label)
    return label, video.method or "", video.dataset, video.compression or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The split of every group."""

    split: Ints
    """Number in `SPLITS`."""
    u: NDArray[np.float64]
    """Hash position, 0 to 1."""
    rule: str
    """What decided: `hash`, `ranked` or `stratified`."""


def place_groups(
    kinds: Callable[[], Iterable[VideoKind]],
    groups: Groups,
    params: SplitParams,
    rule: str,
    settled: Settled | None = None,
) -> Placement:
    """Choose a split for every group by `hash`, `ranked` or `stratified`; `kinds` gives that of every video if needed.

    Settled videos are counted, never moved. A hash that cannot be trusted (too few groups), or a rule that leaves a
    wanted split empty, gives way to `stratified`.
    """
    settled = settled or Settled()
    u = np.array([position(params.seed, anchor) for anchor in groups.anchors])
    few = len(groups) + settled.n_groups < SMALL_SET_GROUPS
    wanted = {i for i, ratio in enumerate(params.ratios) if ratio > 0} - {SPLITS.index(s) for _, s in settled.kinds}
    if rule == "hash" and not few:
        places = hash_places(u, params.ratios)
        if wanted <= set(np.unique(places).tolist()):
            return Placement(split=places, u=u, rule=rule)
    contents = contents_of(list(kinds()), groups)
    if rule == "ranked":
        places = ranked_places(u, groups.sizes, strata_of(contents), params.ratios, settled.kinds)
        if wanted <= set(np.unique(places).tolist()):
            return Placement(split=places, u=u, rule=rule)
    places = stratified_places(u, groups.sizes, contents, params.ratios, settled.kinds)
    return Placement(split=places, u=u, rule="stratified")


def hash_places(positions: NDArray[np.float64], ratios: Ratios) -> Ints:
    """Place each position by the cumulated ratios; adding or removing others changes nothing."""
    edges = np.cumsum(ratios)[:-1]
    last = max(i for i, ratio in enumerate(ratios) if ratio > 0)
    edges[last:] = np.inf  # rounding of the sum must not open a gap behind the last split
    return np.searchsorted(edges, positions, side="right").astype(np.int64)


def strata_of(contents: Contents) -> list[str]:
    """Name the stratum of each group: its sets of labels, methods, data sets and compressions."""
    names: list[str] = []
    for group in contents.counts:
        columns = zip(*(contents.kinds[code] for code, _ in group), strict=True)
        names.append(";".join(",".join(sorted(set(column))) for column in columns))
    return names


def ranked_places(
    positions: NDArray[np.float64],
    sizes: Ints,
    strata: Sequence[str],
    ratios: Ratios,
    settled: Sequence[tuple[VideoKind, str]] = (),
) -> Ints:
    """Order each stratum by position and cut it at the wanted shares; a group falls where its middle falls.

    What the settled videos and earlier strata miss, because groups cannot be cut, is made up for in the next stratum:
    many strata, or many appends, of one group each still come out at the wanted shares.
    """
    names, stratum = np.unique(np.asarray(strata, dtype=str), return_inverse=True)
    order = np.lexsort((positions, stratum))
    bounds = np.searchsorted(stratum[order], np.arange(len(names) + 1))
    shares = np.asarray(ratios, dtype=np.float64)
    settled_sizes = np.bincount([SPLITS.index(split) for _, split in settled], minlength=len(SPLITS))
    owed = shares * len(settled) - settled_sizes
    places = np.zeros(len(sizes), dtype=np.int64)
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        members = order[start:stop]
        ends = np.cumsum(sizes[members])
        total = float(ends[-1])
        wanted = np.clip(shares * total + owed, 0, None)
        edges = np.cumsum(wanted)[:-1] * (total / float(wanted.sum()))
        chosen = np.searchsorted(edges, ends - sizes[members] / 2, side="right")
        owed += shares * total - np.bincount(chosen, weights=sizes[members], minlength=len(SPLITS))
        places[members] = chosen
    return places


def stratified_places(
    positions: NDArray[np.float64],
    sizes: Ints,
    contents: Contents,
    ratios: Ratios,
    settled: Sequence[tuple[VideoKind, str]] = (),
) -> Ints:
    """Place the largest group first, each where it lowers the squared deviation from the wanted counts most.

    Counted are all videos, those of each label, and those of each label and method: with the finest cells alone,
    methods that have one video each would all go to train. While groups last, no wanted split stays empty.
    """
    groups = [_cells((contents.kinds[code], n) for code, n in group) for group in contents.counts]
    present = [_cells([(kind, 1)]) for kind, _ in settled]
    totals: dict[Cell, int] = {}
    for counts in (*groups, *present):
        for cell, n in counts.items():
            totals[cell] = totals.get(cell, 0) + n
    short = [{cell: ratio * n for cell, n in totals.items()} for ratio in ratios]
    for counts, (_, split) in zip(present, settled, strict=True):
        _take(short[SPLITS.index(split)], counts)
    usable = [i for i, ratio in enumerate(ratios) if ratio > 0]
    empty = set(usable) - {SPLITS.index(split) for _, split in settled}
    order = np.lexsort((positions, -sizes)).tolist()
    places = np.zeros(len(sizes), dtype=np.int64)
    for done, group in enumerate(order):
        choices = sorted(empty) if empty and len(order) - done <= len(empty) else usable
        # The change of the squared deviation is n * (n - 2 * short) summed over cells; n * n is the same everywhere.
        best = max(choices, key=lambda i: sum(n * short[i][cell] for cell, n in groups[group].items()))  # noqa: B023
        _take(short[best], groups[group])
        empty.discard(best)
        places[group] = best
    return places


def _cells(kinds: Iterable[tuple[VideoKind, int]]) -> dict[Cell, int]:
    counts: dict[Cell, int] = {}
    for (label, method, _, _), n in kinds:
        for cell in ((), (label,), (label, method)):
            counts[cell] = counts.get(cell, 0) + n
    return counts


def _take(short: dict[Cell, float], counts: dict[Cell, int]) -> None:
    for cell, n in counts.items():
        short[cell] -= n
