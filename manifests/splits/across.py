"""Videos that one data set learns from and another one holds out: equal files, near copies, shared keys.

Evidence of three kinds, the strongest first; each held-out video counts once for each data set that learns from it:

    file       the same bytes, by SHA-256
    near_copy  PDQ hashes within the threshold, as check L6 of the audit finds them (`near_copies.py`)
    key        a published person, recording or target of both; names of files in somebody's folder are none
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, permutations
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.arrays import Bools, Ints
from lps.manifests.splits.inputs import EMPTY_SHA256, KEY_COLUMNS
from lps.manifests.splits.key_edges import EDGE_COLUMNS, KeyEdges, listed, whole
from lps.manifests.splits.kinship import kinships
from lps.manifests.splits.near_copies import LIMITS, MAX_MATCHES, N_FRAMES, Hashed, Pair, calibrate, near_pairs

COMPARED_COLUMNS = (*EDGE_COLUMNS, "uri", "dataset", "phash", "phash_quality")
"""Columns of the manifest `videos` that are compared."""
HASH_BYTES = 32
LOCAL_KEYS = r"^(folder|table)/"
"""Keys that adapters make from names of files: equal ones of two data sets mean nothing."""

Evidence = Literal["file", "near_copy", "key"]
EVIDENCE: tuple[Evidence, ...] = get_args(Evidence)
_ONE = {
    "file": "source file is learnt from in {} and held out",
    "near_copy": "video is a near copy of one learnt from in {} and held out",
    "key": "video shares a person or recording with one learnt from in {} and is held out",
}
_SEVERAL = {
    "file": "source files are learnt from in {} and held out",
    "near_copy": "videos are near copies of ones learnt from in {} and held out",
    "key": "videos share a person or recording with ones learnt from in {} and are held out",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedSet:
    """The videos of a data set, and which of them count."""

    name: str
    videos: pa.Table
    """`COMPARED_COLUMNS`, and `split`, null for none."""
    learnt: Bools
    held: Bools
    older_hashes: bool = False
    """Its hashes are of other places than those of newer data sets, and compare with none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedVideos:
    """Videos held out in one data set of which another one gives something away."""

    learnt: str
    """Name of the data set that learns from them."""
    held_out: str
    split: str
    """Where they are in the data set `held_out`."""
    kind: Evidence
    n_videos: int
    example: str
    """URI of the first of them there, and its key where that is the evidence."""

    def said(self) -> str:
        """Say so in words."""
        words = (_ONE if self.n_videos == 1 else _SEVERAL)[self.kind].format(self.learnt)
        return f"{self.n_videos} {words} in {self.held_out}, in its split '{self.split}' (such as {self.example})"

    def record(self) -> dict[str, Any]:
        """Return what results say of it."""
        return {name: value for name, value in asdict(self).items() if name != "example"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What data sets share, and what is not certain."""

    shared: tuple[SharedVideos, ...] = ()
    """By data sets, split, and the strength of the evidence."""
    notes: tuple[str, ...] = ()
    """What was not looked for, and what may be a copy, a sentence each."""

    def refusal(self) -> str:
        """Say what is shared, and how much more there is."""
        more = len(self.shared) - 1
        return self.shared[0].said() + (f", and {more} more such overlap{'s' * (more > 1)}" if more else "")


def compare_sets(sets: Sequence[ComparedSet]) -> Comparison:
    """Look for what each data set learns from in what every other one holds out."""
    hashed = _HashedSets.of(sets)
    shared: list[SharedVideos] = []
    notes = [*hashed.notes]
    for (a, one), (b, two) in permutations(enumerate(sets), 2):
        if not one.learnt.any() or not two.held.any():
            continue
        near, alike, whole_search = hashed.near(a, one.learnt, b, two.held)
        keys = _shared_keys(one, two)
        found = {"file": _equal_files(one, two), "near_copy": near, "key": keys >= 0}
        left = two.held.copy()
        for kind in EVIDENCE:
            mask = found[kind] & left
            left &= ~mask
            shared += _of_splits(one, two, kind, mask, keys)
        if n := int((alike & left).sum()):
            what = "video has" if n == 1 else "videos have"
            notes.append(f"{n} {what} one frame like one of {one.name} in {two.name}, which may be a shared title")
        if not whole_search:
            notes.append(f"the search for near copies in {two.name} stopped after {MAX_MATCHES} near pairs")
    return Comparison(shared=tuple(shared), notes=(*notes, *_kin_notes(sets, shared)))


def _kin_notes(sets: Sequence[ComparedSet], shared: Sequence[SharedVideos]) -> Iterator[str]:
    """Say what is known of published data sets of which one is learnt from, where nothing better was found."""
    found = {frozenset((each.learnt, each.held_out)) for each in shared}
    for one, two in combinations(sets, 2):
        apart = not (one.learnt.any() and two.held.any()) and not (two.learnt.any() and one.held.any())
        if apart or frozenset((one.name, two.name)) in found:
            continue
        names = [pc.unique(each.videos["dataset"]).to_pylist() for each in (one, two)]
        yield from (
            f"{one.name} and {two.name} are kin, though no file, near copy or key says so: {kin.said()}"
            for kin in kinships(*names)
        )


def _of_splits(one: ComparedSet, two: ComparedSet, kind: Evidence, mask: Bools, keys: Ints) -> Iterator[SharedVideos]:
    rows = two.videos.select(["uri", "split"]).append_column("number", pa.array(np.arange(len(mask))))
    rows = rows.filter(pa.array(mask))
    for split in sorted(set(rows["split"].to_pylist())):
        mine = rows.filter(pc.equal(rows["split"], split)).select(["uri", "number"]).to_pylist()
        first = min(mine, key=lambda row: row["uri"])
        key = f" with {_key_names(one).dictionary[int(keys[first['number']])].as_py()}" if kind == "key" else ""
        yield SharedVideos(
            learnt=one.name, held_out=two.name, split=split, kind=kind, n_videos=len(mine), example=first["uri"] + key
        )


def _equal_files(one: ComparedSet, two: ComparedSet) -> Bools:
    """Mark the videos of `two` whose bytes `one` learns from; empty files are no copies."""
    learnt = whole(one.videos["sha256"].filter(pa.array(one.learnt))).drop_null()
    learnt = learnt.filter(pc.not_equal(learnt, pa.scalar(EMPTY_SHA256, learnt.type)))
    return np.asarray(pc.is_in(two.videos["sha256"], value_set=learnt), np.bool_)


def _key_names(one: ComparedSet) -> pa.DictionaryArray:
    """Return the keys of the videos that `one` learns from."""
    keys = [listed(one.videos[column].filter(pa.array(one.learnt)))[1] for column in KEY_COLUMNS]
    published = pa.concat_arrays(keys)
    return published.filter(pc.invert(pc.match_substring_regex(published, LOCAL_KEYS))).dictionary_encode()


def _shared_keys(one: ComparedSet, two: ComparedSet) -> Ints:
    """Return for each video of `two` the number of a key that `one` learns from, -1 for none."""
    names = _key_names(one).dictionary
    found = np.full(two.videos.num_rows, -1, np.int64)
    for column in KEY_COLUMNS:
        owners, keys = listed(two.videos[column])
        numbers = _ints(pc.fill_null(pc.index_in(keys, value_set=names), -1))
        hit = numbers >= 0
        found[owners[hit]] = numbers[hit]
    return found


def _ints(values: pa.Array | pa.ChunkedArray) -> Ints:
    """Return numbers, nulls as 0."""
    return np.asarray(pc.fill_null(values, 0), np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _HashedSets:
    """The videos of all data sets that have hashes, or none where they cannot be compared."""

    videos: Hashed | None
    set_of: Ints
    """Number of the data set of each of them."""
    row_of: Ints
    """Its row there."""
    thresholds: dict[str, int]
    sizes: tuple[int, ...]
    """Videos of each data set."""
    notes: tuple[str, ...]

    @classmethod
    def of(cls, sets: Sequence[ComparedSet]) -> "_HashedSets":
        """Take the hashes of all sets, and calibrate each as the audit does."""
        sizes = tuple(each.videos.num_rows for each in sets)
        usable = [np.zeros(0, np.int64) if each.older_hashes else _hashed_rows(each.videos) for each in sets]
        none = [each.name for each, rows in zip(sets, usable, strict=True) if not len(rows)]
        notes = [f"no hashes of frames to compare in {name}: copies encoded anew are not noticed" for name in none]
        set_of = np.concatenate([np.full(len(rows), k) for k, rows in enumerate(usable)])
        row_of = np.concatenate(usable)
        empty = cls(videos=None, set_of=set_of, row_of=row_of, thresholds={}, sizes=sizes, notes=tuple(notes))
        if len(sets) - len(none) < 2:
            return empty
        if len(row_of) > LIMITS["l6_max_videos"]:
            limit = f"{LIMITS['l6_max_videos']:,.0f}"
            return replace(
                empty,
                notes=(*notes, f"{len(row_of):,} videos are more than {limit}: copies encoded anew are not noticed"),
            )
        videos = _hashed(sets, usable, set_of)
        thresholds, _ = calibrate(videos, LIMITS)
        notes += [
            f"too few or too similar videos in {name} to tell near copies of them: those encoded anew are not noticed"
            for name, threshold in thresholds.items()
            if threshold < 0
        ]
        return cls(videos=videos, set_of=set_of, row_of=row_of, thresholds=thresholds, sizes=sizes, notes=tuple(notes))

    def near(self, a: int, learnt: Bools, b: int, held: Bools) -> tuple[Bools, Bools, bool]:
        """Mark the videos of set `b` that are near copies, and that have one near frame; whether the search ended."""
        confirmed, alike = np.zeros(self.sizes[b], np.bool_), np.zeros(self.sizes[b], np.bool_)
        if self.videos is None or max(self.thresholds.values()) < 0:
            return confirmed, alike, True
        sides = np.full(len(self.set_of), "neither")
        sides[_chosen(self, a, learnt)] = "learnt"
        sides[_chosen(self, b, held)] = "held"
        pairs, complete = near_pairs(replace(self.videos, splits=sides), self.thresholds, [("learnt", "held")])
        _mark(confirmed, [pair for pair in pairs if pair.confirmed], self.row_of)
        _mark(alike, pairs, self.row_of)
        return confirmed, alike, complete


def _chosen(sets: _HashedSets, number: int, mask: Bools) -> Bools:
    chosen: Bools = sets.set_of == number
    chosen[chosen] = mask[sets.row_of[chosen]]
    return chosen


def _mark(mask: Bools, pairs: Sequence[Pair], row_of: Ints) -> None:
    mask[row_of[np.array([pair.b for pair in pairs], np.int64)]] = True


def _hashed_rows(videos: pa.Table) -> Ints:
    """Return the rows that have all hashes, whole, with their qualities."""
    counts = [_ints(pc.list_value_length(videos[name])) for name in ("phash", "phash_quality")]
    rows = np.flatnonzero((counts[0] == N_FRAMES) & (counts[1] == N_FRAMES)).astype(np.int64)
    hashes = pc.list_flatten(whole(videos["phash"].take(pa.array(rows))))
    lengths = _ints(pc.binary_length(hashes)).reshape(-1, N_FRAMES)
    found: Ints = rows[(lengths == HASH_BYTES).all(axis=1)]
    return found


def _hashed(sets: Sequence[ComparedSet], usable: Sequence[Ints], set_of: Ints) -> Hashed:
    tables = [each.videos.take(pa.array(rows)) for each, rows in zip(sets, usable, strict=True)]
    table = pa.concat_tables(tables)
    words = b"".join(pc.list_flatten(whole(table["phash"])).to_pylist())
    quality = _ints(pc.list_flatten(whole(table["phash_quality"]))).reshape(-1, N_FRAMES)
    names = [sets[k].name for k in set_of.tolist()]
    groups: list[Ints] = []
    for each, rows in zip(sets, usable, strict=True):  # as the audit of each has them: what two share is looked for
        labels = KeyEdges.of(each.videos.select(EDGE_COLUMNS)).labels()[0]
        groups.append(labels[rows] + (1 + max(int(known.max(initial=-1)) for known in groups) if groups else 0))
    return Hashed(
        ids=[],
        uris=[],
        splits=np.array([]),
        datasets=np.array([f"{name} ({data})" for name, data in zip(names, table["dataset"].to_pylist(), strict=True)]),
        groups=np.concatenate(groups),
        words=np.frombuffer(words, np.uint64).reshape(-1, N_FRAMES, 4),
        usable=quality >= LIMITS["l6_min_quality"],
    )
