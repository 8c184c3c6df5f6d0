"""Check L6: near-duplicates across splits, by PDQ hashes of three whole frames of each video: at 0, 1 and 2 seconds.

Two videos are compared frame by frame at the same places, so that copies re-encoded, resized, recoloured or without
their end are found. Of copies without their start some are, of cropped or mirrored ones none. Videos of one group are
no finding: a fake shares its target's picture. Data sets of before schema 3 have hashes at 10, 50 and 90 % of a video.

What counts as near is calibrated, not assumed. PDQ's published threshold holds for unlike pictures; faces before one
backdrop are closer than that. The threshold of a data set is where one in a million pairs of different groups would
match. That quantile is extrapolated from the bulk of the sampled distances: read off the sample itself it would be
lowered by the very copies that are looked for.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Bools, Ints
from lps.manifests.audit.core.queries import PLACED, placed_table, read_claim, records
from lps.manifests.audit.core.types import (
    AuditContext,
    CheckResult,
    CheckSpec,
    Offender,
    Severity,
    State,
    not_evaluated,
)
from lps.manifests.names import Level
from lps.manifests.splits.key_edges import KeyEdges

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
MAX_MATCHES = 200_000
SHOWN_PAIRS = 200
HISTOGRAM_BINS = 64

Words = NDArray[np.uint64]

L6 = CheckSpec(
    id="L6",
    title="No near-duplicate in two splits",
    rule="No two videos of different splits and groups have PDQ hashes within the threshold at every "
    "comparable frame of three (at least two). Near at one frame only: WARN. The threshold of a data set "
    "is the distance that a share l6_chance of pairs of different groups would reach, at most "
    "l6_max_distance of 256 bits; frames of quality below l6_min_quality are not compared. UNKNOWN below "
    "l6_min_pairs pairs to calibrate with, SKIP above l6_max_videos videos.",
    remedy="Look at the pairs. If they are copies, give them a common key or an alias and split again; if not, "
    "state why in a waiver.",
    severity=Severity.ERROR,
    level=Level.FULL,
)


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


def check_near_duplicates(ctx: AuditContext) -> CheckResult:
    """L6: compare every pair of videos of different splits."""
    videos = _read(ctx)
    if videos is None or len(videos.ids) < 2:
        return not_evaluated(L6, State.UNKNOWN, "no placed video has hashes of its frames")
    if len(videos.ids) > ctx.limits["l6_max_videos"]:
        return not_evaluated(
            L6, State.SKIP, f"{len(videos.ids)} videos are more than l6_max_videos: too many pairs to compare"
        )
    thresholds, data = calibrate(videos, ctx.limits)
    if max(thresholds.values()) < 0:
        return CheckResult(
            id=L6.id,
            state=State.UNKNOWN,
            severity=L6.severity,
            note="the hashes cannot tell videos apart: too few pairs of different groups, or all pictures alike",
            data=data,
        )
    pairs, complete = _near_pairs(videos, thresholds)
    return _result(videos, pairs, thresholds, data, complete=complete)


def _result(
    videos: Hashed, pairs: list[Pair], thresholds: dict[str, int], data: dict[str, Any], *, complete: bool
) -> CheckResult:
    confirmed = [pair for pair in pairs if pair.confirmed]
    data["pairs"] = [
        _shown(videos, pair) for pair in [*confirmed, *(p for p in pairs if not p.confirmed)][:SHOWN_PAIRS]
    ]
    blind = int((videos.usable.sum(axis=1) < MIN_FRAMES).sum())
    unmeasured = [name for name, threshold in thresholds.items() if threshold < 0]
    state = State.UNKNOWN if unmeasured or not complete else State.PASS
    if pairs:
        state = State.FAIL if confirmed else State.WARN
    notes = [
        *([f"{blind} of {len(videos.ids)} videos have too few usable hashes to be compared"] if blind else []),
        *([f"no threshold for {', '.join(unmeasured)}"] if unmeasured else []),
        *([] if complete else [f"stopped after {MAX_MATCHES} near pairs"]),
    ]
    return CheckResult(
        id=L6.id,
        state=state,
        severity=L6.severity,
        measured=f"{len(confirmed)} confirmed pairs, {len(pairs) - len(confirmed)} near at some frame only",
        limit="0 within " + ", ".join(f"{t} bits ({name})" for name, t in thresholds.items() if t >= 0),
        n_checked=len(videos.ids) - blind,
        offenders=tuple(_offender(videos, pair) for pair in sorted(pairs, key=lambda pair: not pair.confirmed)),
        note="; ".join(notes),
        data=data,
    )


def _offender(videos: Hashed, pair: Pair) -> Offender:
    a, b = pair.a, pair.b
    bits = "/".join("-" if d is None else str(d) for d in pair.distances)
    how = "is a near copy of" if pair.confirmed else "has a frame like one of"
    return Offender(
        kind="video",
        key=videos.ids[b],
        detail=f"{videos.uris[b]} ({videos.splits[b]}) {how} {videos.uris[a]} ({videos.splits[a]}): {bits} bits",
    )


def _shown(videos: Hashed, pair: Pair) -> dict[str, Any]:
    sides = [
        {"video_id": videos.ids[i], "uri": videos.uris[i], "split": str(videos.splits[i])} for i in (pair.a, pair.b)
    ]
    return {"videos": sides, "distances": list(pair.distances), "confirmed": pair.confirmed}


def _read(ctx: AuditContext) -> Hashed | None:
    rows = records(
        ctx,
        f"""WITH {PLACED} SELECT lower(hex(video_id)) AS id, uri, split, dataset,
        phash[1] || phash[2] || phash[3] AS bits, phash_quality AS quality
        FROM placed WHERE len(phash) = {N_FRAMES} AND len(phash_quality) = {N_FRAMES} ORDER BY video_id""",
    )
    rows = [row for row in rows if len(row["bits"]) == N_FRAMES * 32]
    if not rows:
        return None
    tied, _ = placed_table(ctx)
    groups, _ = KeyEdges.of(tied, read_claim(ctx).aliases).labels()
    group_of = dict(zip((v.hex() for v in tied["video_id"].to_pylist()), groups.tolist(), strict=True))
    words = np.frombuffer(b"".join(row["bits"] for row in rows), np.uint64).reshape(-1, N_FRAMES, 4)
    quality = np.array([row["quality"] for row in rows], dtype=np.float64)
    return Hashed(
        ids=[row["id"] for row in rows],
        uris=[row["uri"] for row in rows],
        splits=np.array([row["split"] for row in rows]),
        datasets=np.array([row["dataset"] for row in rows]),
        groups=np.array([group_of[row["id"]] for row in rows], dtype=np.int64),
        words=words,
        usable=quality >= ctx.limits["l6_min_quality"],
    )


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


def _sampled_distances(videos: Hashed, members: Ints) -> Ints:
    """Return distances of frames at equal places, of pairs of different groups: all pairs, or a seeded sample."""
    n = len(members)
    if n * (n - 1) // 2 <= N_SAMPLED:
        first, second = np.triu_indices(n, k=1)
    else:
        first, second = np.random.default_rng(0).integers(0, n, (2, N_SAMPLED))
    a, b = members[first], members[second]
    apart = videos.groups[a] != videos.groups[b]
    a, b = a[apart], b[apart]
    # One frame per pair: the three of one pair are not independent.
    frame = np.arange(len(a)) % N_FRAMES
    both = videos.usable[a, frame] & videos.usable[b, frame]
    return _distance(videos.words[a[both], frame[both]], videos.words[b[both], frame[both]])


def _distance(a: Words, b: Words) -> Ints:
    bits: Ints = np.bitwise_count(a ^ b).sum(axis=-1, dtype=np.int64)
    return bits


def _near_pairs(videos: Hashed, thresholds: dict[str, int]) -> tuple[list[Pair], bool]:
    """Return the near pairs, and whether the search came to its end."""
    limit = np.array([thresholds[name] for name in videos.datasets.tolist()], dtype=np.int64)
    found: set[tuple[int, int]] = set()
    for seen, held in (("train", "val"), ("train", "test"), ("val", "test")):
        for frame in range(N_FRAMES):
            one = np.flatnonzero((videos.splits == seen) & videos.usable[:, frame] & (limit >= 0))
            two = np.flatnonzero((videos.splits == held) & videos.usable[:, frame] & (limit >= 0))
            for a, b, distance in _matches(videos.words[:, frame], one, two, int(limit.max())):
                near = (distance <= np.minimum(limit[a], limit[b])) & (videos.groups[a] != videos.groups[b])
                found.update(zip(a[near].tolist(), b[near].tolist(), strict=True))
                if len(found) > MAX_MATCHES:
                    return compared(videos, found, limit), False
    return compared(videos, found, limit), True


def _matches(words: Words, one: Ints, two: Ints, limit: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield index pairs within `limit`, tile by tile. Half of the bits rule out nearly all pairs at half the cost."""
    for i in range(0, len(one), TILE[0]):
        rows = one[i : i + TILE[0]]
        left = words[rows]
        for j in range(0, len(two), TILE[1]):
            columns = two[j : j + TILE[1]]
            right = words[columns]
            half = np.bitwise_count(left[:, None, 0] ^ right[None, :, 0])
            half += np.bitwise_count(left[:, None, 1] ^ right[None, :, 1])
            r, c = np.nonzero(half <= limit)
            if len(r):
                distance = _distance(left[r], right[c])
                near = distance <= limit
                yield rows[r[near]], columns[c[near]], distance[near]


def compared(videos: Hashed, found: Collection[tuple[int, int]], limit: Ints) -> list[Pair]:
    """Compare pairs of videos at every frame; `limit` is the largest near distance of each video."""
    pairs: list[Pair] = []
    for a, b in sorted(found):
        usable = (videos.usable[a] & videos.usable[b]).tolist()
        bits = _distance(videos.words[a], videos.words[b]).tolist()
        near = [d <= min(limit[a], limit[b]) for d, use in zip(bits, usable, strict=True) if use]
        pairs.append(
            Pair(
                a=a,
                b=b,
                distances=tuple(d if use else None for d, use in zip(bits, usable, strict=True)),
                confirmed=len(near) >= MIN_FRAMES and all(near),
            )
        )
    return pairs
