"""Split rules: which video goes to train, val or test. Pure functions of the videos, the parameters and a base.

A split is a table beside the clips, not a place: many split sets can describe the same shards.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from lps.manifests.errors import RefusedError
from lps.manifests.row_digest import table_digest
from lps.manifests.schemas import SPLITS as SCHEMA
from lps.manifests.splits.by_group import GIANT_FACTOR, GIANT_MIN_VIDEOS, Scene, giant_groups, group_rows, random_rows
from lps.manifests.splits.by_identity import identity_rows
from lps.manifests.splits.components import Links, SplitInput, group_videos
from lps.manifests.splits.leakage import crossing_groups
from lps.manifests.splits.official import official_rows, published_splits, without_crossing
from lps.manifests.splits.pins import Owners, attach, pinned_rows, with_base_sizes
from lps.manifests.splits.placement import Settled, kind_of
from lps.manifests.splits.records import SplitParams, SplitRow, aliases_digest, sorted_aliases

__all__ = ["SplitParams", "SplitRow", "assign_splits", "rule_record"]

ALGORITHM_VERSION = 1


def assign_splits(
    inputs: Sequence[SplitInput], params: SplitParams, base: Sequence[SplitRow] | None = None, *, origin: str = ""
) -> list[SplitRow]:
    """Give every video one row, sorted by video id; the order and repetition of `inputs` change nothing.

    With `base`, its rows are copied unchanged but for `pinned`, and only new videos are decided: they join the group
    they touch, are left out where they touch two splits, and are placed by the rule where they touch none. `origin`
    names the set or run in the new rows.
    """
    if params.rule == "random" and not params.allow_leaky:
        raise RefusedError("rule random puts one person on both sides of a split; allow that leak explicitly to use it")
    videos = distinct(inputs)
    base = base or ()
    known = {row.video_id for row in base}
    new = [video for video in videos if video.video_id not in known]
    scene = Scene(
        n_videos=len(videos),
        owners=Owners.of(base, videos, params.aliases),
        settled=_settled(videos, base),
        published=published_splits(videos),
    )
    rows = with_base_sizes(_decide(new, params, scene), base)
    if origin:
        rows = [replace(row, origin_run=origin) for row in rows]
    return sorted([*pinned_rows(videos, base), *rows], key=lambda row: row.video_id)


def distinct(inputs: Sequence[SplitInput]) -> list[SplitInput]:
    """Return the videos sorted by id, each once; two different rows for one video are refused."""
    found: dict[bytes, SplitInput] = {}
    for video in inputs:
        if found.setdefault(video.video_id, video) != video:
            raise RefusedError(f"two different rows describe the video {video.video_id.hex()}; keep one of them")
    return sorted(found.values(), key=lambda video: video.video_id)


def _settled(videos: Sequence[SplitInput], base: Sequence[SplitRow]) -> Settled:
    split = {row.video_id: row.split for row in base}
    placed = ((video, split.get(video.video_id)) for video in videos)
    return Settled(
        kinds=[(kind_of(video), name) for video, name in placed if name is not None],
        n_groups=len({row.group_anchor for row in base if row.split is not None}),
    )


def _decide(new: Sequence[SplitInput], params: SplitParams, scene: Scene) -> list[SplitRow]:
    if params.rule == "random":
        return random_rows(new, params, scene)
    if params.rule == "identity-hash":
        return identity_rows(new, params, scene.owners)
    if params.rule in ("official", "official-clean"):
        rows = official_rows(new, params, scene)
        return without_crossing(new, rows, params, scene.owners) if params.rule == "official-clean" else rows
    attached = attach(new, scene.owners, params)
    return [*attached.rows, *group_rows(attached.free, params, scene)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFacts:
    """What a rule record states of the videos and rows themselves."""

    n_videos: int
    n_groups: int
    n_giant: int
    largest_group: int
    edge_kinds: list[str]
    inputs_sha256: str
    decided_by: Counter[str]
    counts: Counter[str]
    base_sha256: str | None = None
    n_crossing: int = 0


def rule_record(
    params: SplitParams,
    inputs: Sequence[SplitInput],
    rows: Sequence[SplitRow],
    base: Sequence[SplitRow] | None = None,
) -> dict[str, Any]:
    """Return what the rule record of a split set states: see `record_of`."""
    videos = distinct(inputs)
    groups = group_videos(videos, params.aliases)
    giant = giant_groups(groups, params.ratios, len(videos))
    facts = RecordFacts(
        n_videos=len(videos),
        n_groups=len(groups),
        n_giant=int(giant.sum()),
        largest_group=int(groups.sizes.max()) if len(groups) else 0,
        edge_kinds=edge_kinds(videos, params),
        inputs_sha256=inputs_digest(videos),
        decided_by=Counter(row.rule for row in rows),
        counts=Counter(row.split or f"excluded:{row.exclude_reason}" for row in rows),
        base_sha256=table_digest(rows_table(base)) if base is not None else None,
        n_crossing=len(crossing_groups(videos, rows, params.aliases)),
    )
    return record_of(params, facts)


def record_of(params: SplitParams, facts: RecordFacts) -> dict[str, Any]:
    """Return what `manifests/splits/<set>.json` states: enough to repeat the split, and what is known to be wrong.

    `leaky` is the stamp that trainers refuse. `crossing_groups` counts groups that lie in two splits all the same,
    which published lists and accepted donor leaks bring about.
    """
    return {
        "algorithm": "lps-split",
        "version": ALGORITHM_VERSION,
        "rule": params.rule,
        "ratios": list(params.ratios),
        "seed": params.seed,
        "tries": params.tries,
        "giant": {
            "policy": params.giant,
            "found": facts.n_giant,
            "largest_group": facts.largest_group,
            "limit": GIANT_FACTOR * max(params.ratios),
            "min_videos": GIANT_MIN_VIDEOS,
        },
        "edge_kinds": facts.edge_kinds,
        "strata": ["label", "method", "dataset", "compression"] if params.rule == "ranked" else [],
        "n_videos": facts.n_videos,
        "n_groups": facts.n_groups,
        "decided_by": dict(sorted(facts.decided_by.items())),
        "counts": dict(sorted(facts.counts.items())),
        "inputs_sha256": facts.inputs_sha256,
        "base_sha256": facts.base_sha256,
        "aliases": sorted_aliases(params.aliases),
        "aliases_sha256": aliases_digest(params.aliases),
        "leaky": "random" in facts.decided_by,
        "accepted_leakage": ["donor"] if params.giant == "target-only" and facts.n_giant else [],
        "crossing_groups": facts.n_crossing,
    }


def rows_table(rows: Sequence[SplitRow]) -> pa.Table:
    """Return the rows of a split as the manifest `splits`."""
    columns = []
    for field in SCHEMA:
        values = [getattr(row, field.name) for row in rows]
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        array = pa.array(values, plain)
        columns.append(array.dictionary_encode() if plain != field.type else array)
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def edge_kinds(videos: Sequence[SplitInput], params: SplitParams) -> list[str]:
    """Name the kinds of links that tie these videos: what is absent here was not known, so not kept apart."""
    data_sets: dict[str, str] = {}
    shared = False
    for video in videos:
        for key in video.keys:
            shared = shared or data_sets.setdefault(key, video.dataset) != video.dataset
    found = {
        "PAIR": any(video.target_keys and video.donor_keys for video in videos),
        "ORIG": any(video.original_video_id is not None for video in videos),
        "SRC": any(video.source_keys for video in videos),
        "ID": any(video.identity_keys for video in videos),
        "ALIAS": bool(params.aliases),
        "DUP": bool(Links.among(videos).repeated),
        "XDS": shared,
    }
    return [kind for kind, present in found.items() if present]


def inputs_digest(videos: Sequence[SplitInput]) -> str:
    """Return the digest of what a split depends on. Neither the order of videos nor that of their keys counts."""
    columns = {}
    for name in SplitInput.__slots__:
        values = [getattr(video, name) for video in videos]
        if name in ("video_id", "original_video_id", "sha256"):
            columns[name] = pa.array([None if value is None else value.hex() for value in values], pa.string())
        elif name == "label":
            columns[name] = pa.array(values, pa.int64())
        elif name in ("dataset", "method", "compression", "official_split"):
            columns[name] = pa.array(values, pa.string())
        else:
            columns[name] = pa.array([sorted(value) for value in values], pa.list_(pa.string()))
    return table_digest(pa.table(columns))
