"""What the cards of a data set tell: counted from its manifests, which are read some rows and few columns at a time."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.arrays import MIN_MARGIN, Square, margin_side, square_of
from lps.manifests.codes import Status
from lps.manifests.columns import column_batches, stored_schema
from lps.manifests.errors import UnreadableError
from lps.manifests.index import PLAN_JSON, read_plan, readable_rule, split_sets
from lps.manifests.names import SPLITS, label_name
from lps.manifests.schemas import Row
from lps.manifests.storage import Store

KEYS = ("dataset", "method", "label", "split", "status", "error_code")
GEOMETRY = ("align_template", "interp", "border", "image_codec", "out_size", "block_len")
"""Columns of `clips` whose values say how its pictures were made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Videos of which the manifest says the same."""

    dataset: str
    method: str | None
    label: str
    """`real`, `fake` or `unknown`."""
    split: str | None
    status: str
    error_code: str | None
    n_videos: int
    n_with_clips: int
    n_clips: int


@dataclass(frozen=True, slots=True)
class Count:
    """One line of a table of counts."""

    n_videos: int = 0
    """Inputs, without those that were skipped."""
    n_with_clips: int = 0
    n_clips: int = 0

    def plus(self, kind: Kind) -> "Count":
        """Return the sum."""
        return Count(self.n_videos + kind.n_videos, self.n_with_clips + kind.n_with_clips, self.n_clips + kind.n_clips)


@dataclass(frozen=True, slots=True)
class SplitSet:
    """One split set and what its rule record says."""

    name: str
    rule: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """All that the cards hold. Equal data sets give equal facts."""

    index: Row
    """The index as it will be written, but for the cards themselves."""
    plan: Row
    kinds: tuple[Kind, ...]
    """Sorted by all that they have."""
    n_frames: int
    """Frames of all clips."""
    geometry: Mapping[str, tuple[str, ...]]
    """Column of GEOMETRY -> the values that it has."""
    pair_modes: Mapping[str, int]
    """How fakes are paired with their originals -> clips, where the plan pairs them."""
    columns: Mapping[str, pa.Schema]
    """The columns of `videos`, `clips` and `shards`."""
    split_sets: tuple[SplitSet, ...]

    @property
    def params(self) -> Row:
        """The parameters of the plan."""
        return dict(self.plan.get("params", {}))

    @property
    def inner(self) -> Square:
        """The inner square of the images: all of them without a margin."""
        side = int(self.params["out_px"])
        return square_of(margin_side(side, float((self.params.get("crop") or {}).get("margin", MIN_MARGIN))), side)

    @property
    def total(self) -> Count:
        """All inputs."""
        return next(iter(self.counts(lambda kind: ("",)).values()), Count())

    def counts(self, key: Callable[[Kind], tuple[str, ...]]) -> dict[tuple[str, ...], Count]:
        """Return how many videos and clips there are of each key, sorted; skipped videos are no inputs."""
        found: dict[tuple[str, ...], Count] = {}
        for kind in self.kinds:
            if kind.status != Status.SKIPPED:
                found[key(kind)] = found.get(key(kind), Count()).plus(kind)
        return dict(sorted(found.items()))

    def codes(self) -> dict[tuple[str, ...], int]:
        """Return how many videos ended with each code, by code and label."""
        found: Counter[tuple[str, ...]] = Counter()
        for kind in self.kinds:
            if kind.error_code:
                found[kind.error_code, kind.label] += kind.n_videos
        return dict(sorted(found.items()))

    def shards(self) -> dict[str, list[Row]]:
        """Return the shards of each split that has any, as the index names them, train first."""
        by_split = {name: list(rows) for name, rows in self.index["shards"].items() if rows}
        order = [name for name in SPLITS if name in by_split]
        return {name: by_split[name] for name in (*order, *sorted(set(by_split) - set(order)))}


def read_facts(out: Store, index: Row) -> CardFacts:
    """Return what is known of a data set whose manifests are written. Raises UnreadableError where one is not."""
    plan = read_plan(out)
    if plan is None:
        raise UnreadableError(f"{out.url} has no {PLAN_JSON}: its cards cannot be written")
    n_frames, geometry, pair_modes = _clips(out)
    is_paired = (plan.values.get("params", {}).get("pair") or {}).get("mode", "none") != "none"
    return CardFacts(
        index=index,
        plan=plan.values,
        kinds=_kinds(out),
        n_frames=n_frames,
        geometry=geometry,
        pair_modes=pair_modes if is_paired else {},
        columns={name: stored_schema(out, name) for name in ("videos", "clips", "shards")},
        split_sets=tuple(SplitSet(name, readable_rule(out, name)) for name in split_sets(index)),
    )


def _kinds(out: Store) -> tuple[Kind, ...]:
    found: dict[tuple[Any, ...], Counter[str]] = {}
    for row in _grouped(out):
        sums = found.setdefault(tuple(row[key] for key in KEYS), Counter())
        sums["n_videos"] += row["count_all"]
        sums["n_with_clips"] += row["count_all"] * row["has_clips"]
        sums["n_clips"] += row["n_clips_sum"] or 0
    ordered = sorted(found.items(), key=lambda item: tuple((value is not None, str(value)) for value in item[0]))
    return tuple(
        Kind(**{**dict(zip(KEYS, key, strict=True)), "label": label_name(key[KEYS.index("label")]), **sums})
        for key, sums in ordered
    )


def _grouped(out: Store) -> Iterator[Row]:
    for videos in column_batches(out, "videos", (*KEYS, "n_clips")):
        counted = videos.append_column("has_clips", pc.greater(videos["n_clips"], 0))
        yield from counted.group_by([*KEYS, "has_clips"]).aggregate([("n_clips", "sum"), ([], "count_all")]).to_pylist()


def _clips(out: Store) -> tuple[int, dict[str, tuple[str, ...]], dict[str, int]]:
    """Return the number of frames, the values of GEOMETRY, and clips by how they are paired."""
    n_frames, modes = 0, Counter[str]()
    values: dict[str, set[str]] = {name: set() for name in GEOMETRY}
    for clips in column_batches(out, "clips", ("n_frames", "pair_mode", *GEOMETRY)):
        n_frames += pc.sum(clips["n_frames"]).as_py() or 0
        for name, seen in values.items():
            seen.update(str(value) for value in pc.unique(clips[name]).to_pylist())
        modes.update(clips["pair_mode"].drop_null().to_pylist())
    return n_frames, {name: tuple(sorted(seen)) for name, seen in values.items()}, dict(sorted(modes.items()))
