"""Near copies of videos, by PDQ hashes of three whole frames of each: at 0, 1 and 2 seconds.

Two videos are compared frame by frame at the same places, so that copies re-encoded, resized, recoloured or without
their end are found, and mirrored ones: PDQ's bits are signs of cosine waves, of which a mirror turns every second one,
so that the hash of the mirrored frame is known without the frame. Of copies without their start some are found, of
cropped ones none. Videos of one group are no finding: a fake shares its target's picture. Data sets of before schema 3
have hashes at 10, 50 and 90 % of a video.

What counts as near is calibrated, not assumed. PDQ's published threshold holds for unlike pictures; faces before one
backdrop are closer than that. The threshold of a data set is where one in a million pairs of different groups would
match. That quantile is extrapolated from the bulk of the sampled distances: read off the sample itself it would be
lowered by the very copies that are looked for.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Bools, Ints
from lps.manifests.splits.leakage import PAIRS

LIMITS: dict[str, float] = {
    "l6_max_distance": 31,
    "l6_chance": 1e-6,
    "l6_min_quality": 50,
    "l6_min_pairs": 50,
    "l6_max_videos": 500_000,
}
N_FRAMES = 3
MIN_FRAMES = 2
"""Frames that must be comparable, and near, for a pair to be confirmed; a single still may be a shared title."""
N_SAMPLED = 200_000
TILE = (128, 4096)
"""Hashes compared at a time: their distances stay in the cache."""
CHUNK_BITS = 16
N_CHUNKS = 256 // CHUNK_BITS
LOOKUP_COST = 16
"""Times that a pair looked up by a chunk costs what a pair of a tile does, about."""
MAX_LOOKED_UP = 1 << 18
"""Pairs looked up at a time, but for a chunk that more have."""
MAX_MATCHES = 200_000
HISTOGRAM_BINS = 64

MIRROR = np.uint64(0x5555_5555_5555_5555)
"""Bits of a hash that a mirror turns: the odd columns of 16 x 16."""

Words = NDArray[np.uint64]
Chunks = NDArray[np.uint16]
"""(chunks, hashes)."""
Found = tuple[int, int, bool]
"""Rows of two videos, and whether one is compared with the mirror image of the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashed:
    """The placed videos that have hashes."""

    ids: list[str]
    uris: list[str]
    splits: NDArray[np.str_]
    datasets: NDArray[np.str_]
    groups: Ints
    words: Words
    """(videos, frames, 4): 256 bits."""
    usable: Bools
    """(videos, frames): the hash says enough of the picture to be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two videos of different splits and groups that are near at some frame."""

    a: int
    b: int
    distances: tuple[int | None, ...]
    """Bits that differ, per frame; None where a frame cannot be compared."""
    confirmed: bool
    mirrored: bool = False
    """One is near the other's mirror image."""


def calibrate(videos: Hashed, limits: Mapping[str, float]) -> tuple[dict[str, int], dict[str, Any]]:
    """Return the threshold of each data set (-1: none can be given) and the histograms of sampled distances."""
    thresholds: dict[str, int] = {}
    histograms: dict[str, Any] = {}
    for name in np.unique(videos.datasets).tolist():
        distances = _sampled_distances(videos, np.flatnonzero(videos.datasets == name))
        enough = len(distances) >= limits["l6_min_pairs"]
        tail = chance_distance(distances, limits["l6_chance"]) if enough else -1
        thresholds[name] = min(tail, int(limits["l6_max_distance"]))
        counts, edges = np.histogram(distances, bins=HISTOGRAM_BINS, range=(0, 256))
        histograms[name] = {"edges": edges.tolist(), "counts": counts.tolist(), "threshold": thresholds[name]}
    return thresholds, {"distances": histograms}


def chance_distance(distances: Ints, chance: float) -> int:
    """Return the largest distance that at most a share `chance` of such pairs reaches, or -1.

    A normal tail through the median and a low quantile that a few real copies cannot move.
    """
    level = min(0.25, max(1e-3, 5 / len(distances)))
    middle, low = np.quantile(distances, [0.5, level])
    normal = NormalDist()
    spread = (middle - low) / -normal.inv_cdf(level)
    return max(-1, int(np.ceil(middle + spread * normal.inv_cdf(chance))) - 1)


def stranger_pairs(groups: Ints) -> tuple[Ints, Ints]:
    """Return pairs of rows of different groups: all of them, or a seeded sample."""
    n = len(groups)
    if n * (n - 1) // 2 <= N_SAMPLED:
        first, second = np.triu_indices(n, k=1)
    else:
        first, second = np.random.default_rng(0).integers(0, n, (2, N_SAMPLED))
    apart = groups[first] != groups[second]
    return first[apart], second[apart]


def _sampled_distances(videos: Hashed, members: Ints) -> Ints:
    """Return distances of frames at equal places, of pairs of different groups."""
    first, second = stranger_pairs(videos.groups[members])
    a, b = members[first], members[second]
    # One frame per pair: the three of one pair are not independent.
    frame = np.arange(len(a)) % N_FRAMES
    both = videos.usable[a, frame] & videos.usable[b, frame]
    return _distance(videos.words[a[both], frame[both]], videos.words[b[both], frame[both]])


def _distance(a: Words, b: Words) -> Ints:
    bits: Ints = np.bitwise_count(a ^ b).sum(axis=-1, dtype=np.int64)
    return bits


def near_pairs(
    videos: Hashed, thresholds: Mapping[str, int], sides: Sequence[tuple[str, str]] = PAIRS
) -> tuple[list[Pair], bool]:
    """Return the near pairs of videos of two splits, for pairs of splits, and whether the search came to its end."""
    limit = np.array([thresholds[name] for name in videos.datasets.tolist()], dtype=np.int64)
    found: set[Found] = set()
    for seen, held in sides:
        for frame in range(N_FRAMES):
            one = np.flatnonzero((videos.splits == seen) & videos.usable[:, frame] & (limit >= 0))
            two = np.flatnonzero((videos.splits == held) & videos.usable[:, frame] & (limit >= 0))
            left, right = videos.words[one, frame], videos.words[two, frame]
            for mirrored in (False, True):
                theirs = right ^ MIRROR if mirrored else right
                for i, j, distance in near_matches(left, theirs, int(limit.max())):
                    a, b = one[i], two[j]
                    near = (distance <= np.minimum(limit[a], limit[b])) & (videos.groups[a] != videos.groups[b])
                    found.update((x, y, mirrored) for x, y in zip(a[near].tolist(), b[near].tolist(), strict=True))
                    if len(found) > MAX_MATCHES:
                        return compared(videos, found, limit), False
    return compared(videos, found, limit), True


def near_matches(one: Words, two: Words, limit: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield rows of `one` and `two`, (hashes, 4) both, within `limit`, with their distances.

    A pair may come more than once.
    """
    flips = [0, *(1 << bit for bit in range(CHUNK_BITS))] if limit >= N_CHUNKS else [0]
    n_values, n_pairs = 1 << CHUNK_BITS, len(one) * len(two)
    n_asked = len(flips) * N_CHUNKS * (n_values + min(len(one), len(two)))
    if limit < 2 * N_CHUNKS and n_asked * LOOKUP_COST < n_pairs:
        left, right = (np.ascontiguousarray(side).view(np.uint16).T for side in (one, two))
        counts = [np.array([np.bincount(chunk, minlength=n_values) for chunk in side]) for side in (left, right)]
        n_asked += sum(int((counts[0] * counts[1][:, np.arange(n_values) ^ flip]).sum()) for flip in flips)
        if n_asked * LOOKUP_COST < n_pairs:
            if len(one) <= len(two):
                yield from _looked_up((one, left), (two, right), flips, limit)
            else:
                looked_up = _looked_up((two, right), (one, left), flips, limit)
                yield from ((a, b, distance) for b, a, distance in looked_up)
            return
    yield from _tiled(one, two, limit)


def _looked_up(
    one: tuple[Words, Chunks], two: tuple[Words, Chunks], flips: Sequence[int], limit: int
) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield what `near_matches` does by the pigeonhole principle: so near, one chunk differs in at most a bit."""
    for mine, theirs in zip(one[1], two[1], strict=True):
        order = np.argsort(theirs, kind="stable")
        starts = np.concatenate([[0], np.bincount(theirs, minlength=1 << CHUNK_BITS).cumsum()])
        for flip in flips:
            wanted = mine.astype(np.int64) ^ flip
            counts = starts[wanted + 1] - starts[wanted]
            ends = counts.cumsum()
            first = 0
            while first < len(mine):
                done = int(ends[first - 1]) if first else 0
                stop = max(first + 1, int(np.searchsorted(ends, done + MAX_LOOKED_UP, side="right")))
                each = counts[first:stop]
                rows = np.repeat(np.arange(first, stop), each)
                within = np.arange(len(rows)) - np.repeat(each.cumsum() - each, each)
                places = order[starts[wanted[rows]] + within]
                distance = _distance(one[0][rows], two[0][places])
                near = distance <= limit
                if near.any():
                    yield rows[near], places[near], distance[near]
                first = stop


def _tiled(one: Words, two: Words, limit: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield what `near_matches` does, tile by tile. Half of the bits rule out nearly all pairs at half the cost."""
    for i in range(0, len(one), TILE[0]):
        left = one[i : i + TILE[0]]
        for j in range(0, len(two), TILE[1]):
            right = two[j : j + TILE[1]]
            half = np.bitwise_count(left[:, None, 0] ^ right[None, :, 0])
            half += np.bitwise_count(left[:, None, 1] ^ right[None, :, 1])
            r, c = np.nonzero(half <= limit)
            if len(r):
                distance = _distance(left[r], right[c])
                near = distance <= limit
                yield i + r[near], j + c[near], distance[near]


def compared(videos: Hashed, found: Collection[Found], limit: Ints) -> list[Pair]:
    """Compare pairs of videos at every frame; `limit` is the largest near distance of each video.

    Two that are near both ways, at different frames, are one pair: the confirmed one, else the one not mirrored.
    """
    pairs: dict[tuple[int, int], Pair] = {}
    for a, b, mirrored in sorted(found):
        usable = (videos.usable[a] & videos.usable[b]).tolist()
        theirs = videos.words[b] ^ MIRROR if mirrored else videos.words[b]
        bits = _distance(videos.words[a], theirs).tolist()
        near = [d <= min(limit[a], limit[b]) for d, use in zip(bits, usable, strict=True) if use]
        pair = Pair(
            a=a,
            b=b,
            distances=tuple(d if use else None for d, use in zip(bits, usable, strict=True)),
            confirmed=len(near) >= MIN_FRAMES and all(near),
            mirrored=mirrored,
        )
        if pair.confirmed > pairs.get((a, b), pair).confirmed or (a, b) not in pairs:
            pairs[a, b] = pair
    return list(pairs.values())
