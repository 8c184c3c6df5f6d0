"""What the held-out splits share with those that are trained on.

Nothing here trusts the group columns of a split: overlaps and groups are recomputed from the keys of the videos, as
arrays, so that millions of videos can be measured. What a data set does not publish is UNKNOWN, never zero.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.arrays import Bools, Ints
from lps.manifests.names import SPLITS
from lps.manifests.splits.groups import Groups, alias_roots
from lps.manifests.splits.inputs import CONTENT_PREFIX, EMPTY_SHA256, KEY_COLUMNS, VIDEO_PREFIX, Aliases
from lps.manifests.splits.key_edges import KeyEdges, listed, whole

KINDS = ("identity", "target", "donor", "donor_only", "source", "original", "duplicate", "any")
"""Kinds of overlap. `any` counts every published key; `donor_only` the fakes whose donor is known and target is not."""
OF_FAKES = frozenset({"donor", "donor_only", "original"})
"""Kinds that a real video cannot have."""
PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))
MAX_SHUFFLES = 20
SHUFFLED_VIDEOS = 100_000
"""Shuffle at least this many videos for the baseline, in one large or several small shuffles."""

K = TypeVar("K", str, bytes)


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

    def record(self) -> dict[str, Any]:
        """Return the measure as plain JSON values."""
        return {**asdict(self), "rate": self.rate, "rate_all": self.rate_all, "state": self.state}


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A key or a group that lies in more than one split."""

    name: str
    videos: tuple[tuple[str, int], ...]
    """Split and number of its videos there, in the order train, val, test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _VideoKeys:
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


def measure_leakage(videos: pa.Table, codes: Ints, *, aliases: Aliases = ()) -> list[Leak]:
    """Measure every kind of overlap for pairs (seen, held) of splits.

    The baseline comes from seeded shuffles of the same split sizes over the same videos.

    Args:
        videos: `label` and the columns of `key_edges.EDGE_COLUMNS`; a column `keys` may add keys of no kind.
        codes: number of the split of each video in `SPLITS`, -1 for videos that count nowhere.
        aliases: pairs of keys that mean the same.
    """
    n = videos.num_rows
    overlaps = _overlaps(videos, aliases)
    can_have = pc.fill_null(videos["label"], 1).to_numpy() != 0
    shuffles = _shuffles(codes)
    leaks: list[Leak] = []
    for seen, held in PAIRS:
        for kind in KINDS:
            able = can_have if kind in OF_FAKES else np.ones(n, dtype=np.bool_)
            known = overlaps["donor" if kind == "donor_only" else kind].known(n) & able
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


def crossing_groups(
    videos: pa.Table, codes: Ints, aliases: Aliases = (), groups: Groups | None = None
) -> list[Crossing]:
    """List the groups that lie in more than one split, from the keys of the videos that are in some split.

    `groups` are those of all videos, where they are known.
    """
    included = codes >= 0
    if groups is None or not included.all():
        groups = Groups.of(KeyEdges.of(videos.filter(pa.array(included)), aliases))
    found = _crossing(groups.of_video, codes[included])
    crossing = (Crossing(name=groups.anchors[group], videos=counts) for group, counts in found)
    return sorted(crossing, key=lambda crossing: crossing.name)


def untied_fakes(videos: pa.Table, groups: Groups) -> Bools:
    """Mark the fakes in whose group there are only fakes: no split can keep these beside their originals.

    `groups` are those of `videos`, which need a column `label`.
    """
    fake = pc.fill_null(videos["label"], -1).to_numpy() == 1
    has_other = np.zeros(len(groups), dtype=np.bool_)
    has_other[groups.of_video[~fake]] = True
    return np.asarray(fake & ~has_other[groups.of_video])


def split_codes(splits: pa.Table) -> Ints:
    """Return the number in `SPLITS` of the split of each row, -1 for those excluded."""
    numbers = pc.index_in(splits["split"].cast(pa.string()), value_set=pa.array(SPLITS))
    return np.asarray(pc.fill_null(numbers, -1).to_numpy(), np.int64)


def _crossing(numbers: Ints, codes: Ints) -> list[tuple[int, tuple[tuple[str, int], ...]]]:
    """Return the numbers that occur in more than one split, each with its count by split."""
    pairs, counts = np.unique(numbers * len(SPLITS) + codes, return_counts=True)
    number, code = np.divmod(pairs, len(SPLITS))
    several = np.zeros(len(number), dtype=np.bool_)
    several[1:] = number[1:] == number[:-1]
    several[:-1] |= several[1:]
    found: dict[int, list[tuple[str, int]]] = {}
    for i in np.flatnonzero(several).tolist():
        found.setdefault(int(number[i]), []).append((SPLITS[int(code[i])], int(counts[i])))
    return [(number, tuple(videos)) for number, videos in found.items()]


def _shuffles(codes: Ints) -> list[Ints]:
    included = np.flatnonzero(codes >= 0)
    n = min(MAX_SHUFFLES, 1 + SHUFFLED_VIDEOS // max(1, len(included)))
    rng = np.random.default_rng(0)
    shuffles = []
    for _ in range(n):
        shuffled = codes.copy()
        shuffled[included] = rng.permutation(codes[included])
        shuffles.append(shuffled)
    return shuffles


def _hits(overlaps: Mapping[str, _VideoKeys], kind: str, codes: Ints, seen: str) -> tuple[Bools, Bools]:
    if kind != "donor_only":
        return overlaps[kind].hits(codes, SPLITS.index(seen))
    some, every = overlaps["donor"].hits(codes, SPLITS.index(seen))
    target, _ = overlaps["target"].hits(codes, SPLITS.index(seen))
    return some & ~target, every & ~target


@dataclass(frozen=True, slots=True, kw_only=True)
class _PublishedKeys:
    """All published keys of all videos."""

    owner: Ints
    key: Ints
    """Number of the key; keys that aliases declare equal have one number."""
    where: dict[str, slice]
    """Place of the keys of each kind."""
    names: pa.Array

    @classmethod
    def of(cls, videos: pa.Table, roots: Mapping[str, str]) -> "_PublishedKeys":
        columns = [*KEY_COLUMNS, *(["keys"] if "keys" in videos.column_names else [])]
        parts = [listed(videos[column]) for column in columns]
        ends = np.cumsum([len(owners) for owners, _ in parts]).tolist()
        where = {
            column.removesuffix("_keys"): slice(end - len(owners), end)
            for column, end, (owners, _) in zip(columns, ends, parts, strict=True)
        }
        encoded = pa.concat_arrays([keys for _, keys in parts]).dictionary_encode()
        return cls(
            owner=np.concatenate([owners for owners, _ in parts]),
            key=_merged(encoded, roots),
            where={**where, "any": slice(None)},
            names=encoded.dictionary,
        )


def _overlaps(videos: pa.Table, aliases: Aliases) -> dict[str, _VideoKeys]:
    """Number the keys of each kind. A video gives people and places away in whatever role it has them."""
    roots = alias_roots(aliases)
    published = _PublishedKeys.of(videos, roots)
    found = {
        kind: _VideoKeys(
            asked_video=published.owner[where],
            asked_key=published.key[where],
            carried_video=published.owner,
            carried_key=published.key,
            n_keys=len(published.names),
        )
        for kind, where in published.where.items()
    }
    ids, originals = whole(videos["video_id"]), whole(videos["original_video_id"])
    named = originals.is_valid()
    keys = pa.concat_arrays([originals.filter(named), ids.cast(originals.type)]).dictionary_encode()
    numbers = _merged(keys, _of_bytes(roots, VIDEO_PREFIX))
    fakes = np.flatnonzero(named.to_numpy(zero_copy_only=False))
    found["original"] = _VideoKeys(
        asked_video=fakes,
        asked_key=numbers[: len(fakes)],
        carried_video=np.arange(len(ids)),
        carried_key=numbers[len(fakes) :],
        n_keys=len(keys.dictionary),
    )
    digests = whole(videos["sha256"])
    read = pc.fill_null(pc.not_equal(digests, pa.scalar(EMPTY_SHA256, digests.type)), False)  # noqa: FBT003
    keys = digests.filter(read).dictionary_encode()
    numbers = _merged(keys, _of_bytes(roots, CONTENT_PREFIX))
    owners = np.flatnonzero(read.to_numpy(zero_copy_only=False))
    found["duplicate"] = _VideoKeys(
        asked_video=owners,
        asked_key=numbers,
        carried_video=owners,
        carried_key=numbers,
        n_keys=len(keys.dictionary),
    )
    return found


def _of_bytes(roots: Mapping[str, str], prefix: str) -> dict[bytes, str]:
    """Return the aliases of keys that spell bytes in hex."""
    named = {key.removeprefix(prefix): root for key, root in roots.items() if key.startswith(prefix)}
    return {bytes.fromhex(key): root for key, root in named.items() if re.fullmatch("(?:[0-9a-f]{2})+", key)}


def _merged(keys: pa.DictionaryArray, roots: Mapping[K, str]) -> Ints:
    """Return the number of each key, the same one for keys that have one root: that of the smallest."""
    numbers = np.asarray(keys.indices, np.int64)
    if not roots:
        return numbers
    wanted = sorted(roots)
    found = pc.index_in(pa.array(wanted, keys.dictionary.type), value_set=keys.dictionary).to_pylist()
    first: dict[str, int] = {}
    number = np.arange(len(keys.dictionary))
    for key, place in zip(wanted, found, strict=True):
        if place is not None:
            number[place] = first.setdefault(roots[key], place)
    return np.asarray(number[numbers], np.int64)
