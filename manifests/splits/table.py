"""Splits of whole tables: the one entrance to the rules.

Where whole groups are placed, or every video by itself, only their names pass through Python. What decides video by
video (a base, a giant group, the rules `official` and `identity-hash`) goes by rows: about 1 GB for a million videos.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from lps.manifests.arrays import Ints
from lps.manifests.names import SPLITS
from lps.manifests.row_digest import hex_texts
from lps.manifests.schemas import SPLITS as SCHEMA
from lps.manifests.splits.assign import assign_splits, distinct, refuse_leak
from lps.manifests.splits.by_group import giant_groups
from lps.manifests.splits.groups import Groups, group_id
from lps.manifests.splits.inputs import VIDEO_PREFIX, inputs_from_table, inputs_table
from lps.manifests.splits.key_edges import Bytes, KeyEdges, binary, byte_order, fixed
from lps.manifests.splits.placement import Placement, VideoKind, place_groups
from lps.manifests.splits.records import SplitParams, SplitRow, rows_table
from lps.manifests.splits.rule_record import rule_record

BATCH_ROWS = 1 << 20
_BY_COLUMNS = ("group", "ranked", "stratified", "random")


def split_table(
    videos: pa.Table, params: SplitParams, base: Sequence[SplitRow] | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """Give every video of a table one row, sorted by video id; the order of `videos` changes nothing.

    Args:
        videos: at least `INPUT_COLUMNS` of the manifest `videos`; a column `keys` replaces the published keys.
        params: the rule and its settings.
        base: rows that must not move: they are copied but for `pinned`, and only new videos are decided.

    Returns:
        The manifest `splits`, and its rule record.

    Raises:
        RefusedError: the rule cannot be followed, or two different rows describe one video.
    """
    made = _by_columns(videos, params) if base is None and params.rule in _BY_COLUMNS else None
    if made is not None:
        return made
    inputs = distinct(inputs_from_table(videos))
    splits = rows_table(assign_splits(inputs, params, base))
    table = inputs_table(inputs)
    edges = KeyEdges.of(table, params.aliases)
    return splits, rule_record(table, splits, params, edges, Groups.of(edges), base)


def _by_columns(videos: pa.Table, params: SplitParams) -> tuple[pa.Table, dict[str, Any]] | None:
    """Place whole groups, or under `random` each video; None where a group is giant, a video is there twice, or none.

    Raises RefusedError for a leak that was not allowed.
    """
    refuse_leak(params)
    ids = fixed(videos["video_id"], 16)
    order = byte_order(ids)
    if not bool((order[1:] > order[:-1]).all()):  # manifests are sorted: no copy then
        ids, videos = ids[order], videos.take(pa.array(order))
    del order
    if not len(ids) or bool((ids[1:] == ids[:-1]).all(axis=1).any()):
        return None
    edges = KeyEdges.of(videos, params.aliases)
    groups = Groups.of(edges)
    if params.rule == "random":
        placed = _placed_alone(ids, videos, params)
    elif giant_groups(groups, params.ratios, len(ids)).any():
        return None
    else:
        rule = "hash" if params.rule == "group" else params.rule
        placed = place_groups(lambda: _kinds(videos), groups, params, rule)
        placed = replace(placed, split=placed.split[groups.of_video], u=placed.u[groups.of_video])
    splits = pa.Table.from_batches(_batches(ids, edges, groups, placed, params.seed), schema=SCHEMA)
    return splits, rule_record(videos, splits, params, edges, groups)


def _placed_alone(ids: Bytes, videos: pa.Table, params: SplitParams) -> Placement:
    """Place every video by itself, whatever its group."""
    keys = tuple(hex_texts(ids, VIDEO_PREFIX).to_pylist())
    alone = Groups(of_video=np.arange(len(ids)), anchors=keys, sizes=np.ones(len(ids), dtype=np.int64))
    return replace(place_groups(lambda: _kinds(videos), alone, params, "hash"), rule="random")


def _kinds(videos: pa.Table) -> Iterator[VideoKind]:
    """Return the kind of every video, as `placement.kind_of` does for records."""
    columns = (videos[name].to_pylist() for name in ("label", "method", "dataset", "compression"))
    for label, method, dataset, compression in zip(*columns, strict=True):
        yield "?" if label is None else str(label), method or "", dataset, compression or ""


def _batches(ids: Bytes, edges: KeyEdges, groups: Groups, placed: Placement, seed: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of all videos; `placed` has the place of each video, not of each group."""
    names = pa.array(groups.anchors, pa.string())
    digest = np.frombuffer(b"".join(map(group_id, groups.anchors)), np.uint8).reshape(-1, 16)
    bounds = np.searchsorted(edges.video, np.arange(edges.n_videos + 1))
    for start in range(0, len(ids), BATCH_ROWS):
        stop = min(start + BATCH_ROWS, len(ids))
        group = groups.of_video[start:stop]
        n = len(group)
        keys = edges.names.take(pa.array(edges.key[bounds[start] : bounds[stop]])).cast(pa.string())
        offsets = pa.array(bounds[start : stop + 1] - bounds[start], pa.int32())
        columns = {
            "video_id": binary(ids[start:stop]),
            "split": _names(placed.split[start:stop], SPLITS),
            "excluded": pa.array(np.zeros(n, dtype=np.bool_)),
            "exclude_reason": pa.DictionaryArray.from_arrays(pa.nulls(n, pa.int32()), pa.array([], pa.string())),
            "group_id": binary(digest[group]),
            "group_anchor": names.take(pa.array(group)),
            "group_size": pa.array(groups.sizes[group], pa.int32()),
            "group_keys": pa.ListArray.from_arrays(offsets, keys),
            "u": pa.array(placed.u[start:stop]),
            "rule": _names(np.zeros(n, dtype=np.int64), (placed.rule,)),
            "seed": pa.array(np.full(n, seed, dtype=np.uint64)),
            "pinned": pa.array(np.zeros(n, dtype=np.bool_)),
            "origin_run": pa.array([""], pa.string()).take(pa.array(np.zeros(n, dtype=np.int64))),
        }
        yield pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _names(codes: Ints, names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(list(names), pa.string()))
