"""What the held-out splits share with those that are trained on.

Nothing here trusts the group columns of a split: overlaps and groups are recomputed from the keys of the videos. What a
data set does not publish is UNKNOWN, never zero.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lps.manifests.components import Aliases, Ints, SplitInput, alias_roots, group_videos, video_key
from lps.manifests.split_records import SPLITS, SplitRow

KINDS = ("identity", "target", "donor", "donor_only", "source", "original", "duplicate", "any")
"""Kinds of overlap. `any` counts every published key; `donor_only` the fakes whose donor is known and target is not."""
OF_FAKES = frozenset({"donor", "donor_only", "original"})
"""Kinds that a real video cannot have."""
PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))
MAX_SHUFFLES = 20
SHUFFLED_VIDEOS = 100_000
"""Shuffle at least this many videos for the baseline, in one large or several small shuffles."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """One kind of overlap between two splits. Counts are videos of the split `held`."""

    kind: str
    seen: str
    """The split whose content is taken as known, usually train."""
    held: str
    n_videos: int
    """Videos that can have this kind of key: only fakes have donors and originals."""
    n_known: int
    """Those whose keys of this kind are published."""
    n_leaked: int
    """Those that share at least one such key with `seen`, in whatever role it has there."""
    n_leaked_all: int
    """Those that share all of them."""
    expected: float | None
    """The rate, were the same videos split at random one by one; gives the measured rate a scale."""

    @property
    def rate(self) -> float | None:
        """Share of the videos with known keys that leak; None where nothing is known."""
        return self.n_leaked / self.n_known if self.n_known else None

    @property
    def rate_all(self) -> float | None:
        """Share of the videos with known keys of which everything is in the other split."""
        return self.n_leaked_all / self.n_known if self.n_known else None

    @property
    def state(self) -> str:
        """Return `MEASURED`, `PARTLY UNKNOWN`, `UNKNOWN` (no keys) or `NONE` (no video could have them)."""
        if self.n_videos == 0:
            return "NONE"
        if self.n_known == 0:
            return "UNKNOWN"
        return "MEASURED" if self.n_known == self.n_videos else "PARTLY UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A key or a group that lies in more than one split."""

    name: str
    videos: tuple[tuple[str, int], ...]
    """Split and number of its videos there, in the order train, val, test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Overlap:
    """Which keys each video brings along (`carried`), and which of them count for one kind (`asked`)."""

    asked_video: Ints
    asked_key: Ints
    carried_video: Ints
    carried_key: Ints
    n_keys: int

    def known(self, n_videos: int) -> Bools:
        """Mark the videos that have keys of this kind."""
        known = np.zeros(n_videos, dtype=np.bool_)
        known[self.asked_video] = True
        return known

    def hits(self, codes: Ints, seen: int) -> tuple[Bools, Bools]:
        """Mark the videos with any, and with all, of their keys in the split `seen`."""
        in_seen = np.zeros(self.n_keys, dtype=np.bool_)
        in_seen[self.carried_key[codes[self.carried_video] == seen]] = True
        hit = in_seen[self.asked_key]
        some = np.zeros(len(codes), dtype=np.bool_)
        some[self.asked_video[hit]] = True
        every = self.known(len(codes))
        every[self.asked_video[~hit]] = False
        return some, every


def measure_leakage(
    inputs: Sequence[SplitInput],
    rows: Sequence[SplitRow],
    *,
    aliases: Aliases = (),
    pairs: Sequence[tuple[str, str]] = PAIRS,
    seed: int = 0,
) -> list[Leak]:
    """Measure every kind of overlap for pairs (seen, held) of splits. Excluded videos count nowhere.

    The baseline comes from seeded shuffles of the same split sizes over the same videos.
    """
    codes = split_codes(inputs, rows)
    overlaps = {kind: _overlap(inputs, kind, alias_roots(aliases)) for kind in KINDS if kind != "donor_only"}
    can_have = np.array([video.label != 0 for video in inputs], dtype=np.bool_)
    shuffles = _shuffles(codes, seed)
    leaks: list[Leak] = []
    for seen, held in pairs:
        for kind in KINDS:
            able = can_have if kind in OF_FAKES else np.ones(len(inputs), dtype=np.bool_)
            known = overlaps["donor" if kind == "donor_only" else kind].known(len(inputs)) & able
            some, every = _hits(overlaps, kind, codes, seen)
            here = codes == SPLITS.index(held)
            rates = []
            for shuffled in shuffles:
                counted = known & (shuffled == SPLITS.index(held))
                if counted.any():
                    rates.append(float(_hits(overlaps, kind, shuffled, seen)[0][counted].mean()))
            leaks.append(
                Leak(
                    kind=kind,
                    seen=seen,
                    held=held,
                    n_videos=int((here & able).sum()),
                    n_known=int((here & known).sum()),
                    n_leaked=int((here & known & some).sum()),
                    n_leaked_all=int((here & known & every).sum()),
                    expected=sum(rates) / len(rates) if rates else None,
                )
            )
    return leaks


def split_codes(inputs: Sequence[SplitInput], rows: Sequence[SplitRow]) -> Ints:
    """Return the number of the split of each video in `SPLITS`, -1 for those excluded or without a row."""
    code = {name: i for i, name in enumerate(SPLITS)}
    of_video = {row.video_id: code[row.split] for row in rows if row.split is not None}
    return np.array([of_video.get(video.video_id, -1) for video in inputs], dtype=np.int64)


def crossing_groups(inputs: Sequence[SplitInput], rows: Sequence[SplitRow], aliases: Aliases = ()) -> list[Crossing]:
    """List the groups that lie in more than one split, from the keys of the videos that are in some split."""
    codes = split_codes(inputs, rows)
    included = [video for video, code in zip(inputs, codes.tolist(), strict=True) if code >= 0]
    groups = group_videos(included, aliases)
    names = (groups.anchors[group] for group in groups.of_video.tolist())
    return _crossing(zip(names, codes[codes >= 0].tolist(), strict=True))


def crossing_keys(
    inputs: Sequence[SplitInput], rows: Sequence[SplitRow], kind: str = "any", aliases: Aliases = ()
) -> list[Crossing]:
    """List the keys of one kind that videos of more than one split have, in whatever role."""
    roots = alias_roots(aliases)
    asked = {roots.get(key, key) for video in inputs for key in _asked(kind)(video)}
    pairs: list[tuple[str, int]] = []
    for video, code in zip(inputs, split_codes(inputs, rows).tolist(), strict=True):
        if code >= 0:
            keys = {roots.get(key, key) for key in _carried(kind, video)}
            pairs.extend((key, code) for key in keys & asked)
    return _crossing(pairs)


def _crossing(pairs: Iterable[tuple[str, int]]) -> list[Crossing]:
    splits: dict[str, Counter[int]] = {}
    for name, code in pairs:
        splits.setdefault(name, Counter())[code] += 1
    return [
        Crossing(name=name, videos=tuple((SPLITS[code], count[code]) for code in sorted(count)))
        for name, count in sorted(splits.items())
        if len(count) > 1
    ]


def _shuffles(codes: Ints, seed: int) -> list[Ints]:
    included = np.flatnonzero(codes >= 0)
    n = min(MAX_SHUFFLES, 1 + SHUFFLED_VIDEOS // max(1, len(included)))
    rng = np.random.default_rng(seed)
    shuffles = []
    for _ in range(n):
        shuffled = codes.copy()
        shuffled[included] = rng.permutation(codes[included])
        shuffles.append(shuffled)
    return shuffles


def _hits(overlaps: dict[str, _Overlap], kind: str, codes: Ints, seen: str) -> tuple[Bools, Bools]:
    if kind != "donor_only":
        return overlaps[kind].hits(codes, SPLITS.index(seen))
    some, every = overlaps["donor"].hits(codes, SPLITS.index(seen))
    target, _ = overlaps["target"].hits(codes, SPLITS.index(seen))
    return some & ~target, every & ~target


def _asked(kind: str) -> Callable[[SplitInput], tuple[str, ...]]:
    """Return how to read the keys of one kind from a video."""
    return {
        "identity": lambda video: video.identity_keys,
        "target": lambda video: video.target_keys,
        "donor": lambda video: video.donor_keys,
        "source": lambda video: video.source_keys,
        "original": lambda video: () if video.original_video_id is None else (video_key(video.original_video_id),),
        "duplicate": _content_keys,
        "any": _published_keys,
    }[kind]


def _carried(kind: str, video: SplitInput) -> tuple[str, ...]:
    """Return the keys by which a video of the seen split gives another one away: for people and places, any role."""
    if kind == "original":
        return (video.own_key,)
    return _content_keys(video) if kind == "duplicate" else _published_keys(video)


def _content_keys(video: SplitInput) -> tuple[str, ...]:
    return () if video.content_key is None else (video.content_key,)


def _published_keys(video: SplitInput) -> tuple[str, ...]:
    return (*video.keys, *video.identity_keys, *video.target_keys, *video.donor_keys, *video.source_keys)


def _overlap(inputs: Sequence[SplitInput], kind: str, roots: dict[str, str]) -> _Overlap:
    numbers: dict[str, int] = {}
    asked = _edges(inputs, _asked(kind), roots, numbers)
    carried = _edges(inputs, lambda video: _carried(kind, video), roots, numbers)
    return _Overlap(
        asked_video=asked[0],
        asked_key=asked[1],
        carried_video=carried[0],
        carried_key=carried[1],
        n_keys=len(numbers),
    )


def _edges(
    inputs: Sequence[SplitInput],
    keys_of: Callable[[SplitInput], tuple[str, ...]],
    roots: dict[str, str],
    numbers: dict[str, int],
) -> tuple[Ints, Ints]:
    videos: list[int] = []
    keys: list[int] = []
    for i, video in enumerate(inputs):
        for key in {roots.get(key, key) for key in keys_of(video)}:
            videos.append(i)
            keys.append(numbers.setdefault(key, len(numbers)))
    return np.array(videos, dtype=np.int64), np.array(keys, dtype=np.int64)
