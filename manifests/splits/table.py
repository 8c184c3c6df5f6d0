"""Splits of whole tables: the rule `group` on columns instead of rows, the same split as `assign_splits`.

Only groups, not videos, pass through Python there. What is not a plain hash of whole groups (other rules, a base, few
groups, a giant one, a split that stays empty) goes the way of rows: about 1 GB for a million videos.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lps.manifests.names import SPLITS
from lps.manifests.row_digest import batches_digest
from lps.manifests.schemas import SPLITS as SCHEMA
from lps.manifests.splits.assign import RecordFacts, assign_splits, record_of, rows_table, rule_record
from lps.manifests.splits.by_group import GIANT_FACTOR, GIANT_MIN_VIDEOS
from lps.manifests.splits.components import INPUT_COLUMNS, Ints, group_id, inputs_from_table
from lps.manifests.splits.key_edges import EDGE_COLUMNS, KEY_COLUMNS, Bytes, KeyEdges, binary, byte_order, fixed, whole
from lps.manifests.splits.placement import SMALL_SET_GROUPS, hash_places
from lps.manifests.splits.records import SplitParams, SplitRow, position

BATCH_ROWS = 1 << 20

Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """What was decided, group by group."""

    group: Ints
    """Group of each video."""
    anchor: Ints
    """Rank of the key that names each group."""
    size: Ints
    digest: Bytes
    """Id of each group, (groups, 16)."""
    u: NDArray[np.float64]
    place: Ints


def split_table(
    videos: pa.Table, params: SplitParams, base: Sequence[SplitRow] | None = None
) -> tuple[pa.Table, Record]:
    """Split a whole table of videos.

    Args:
        videos: at least `INPUT_COLUMNS` of the manifest `videos`.
        params: as for `assign_splits`.
        base: rows that must not move.

    Returns:
        The manifest `splits`, sorted by video id, and its rule record: what `assign_splits` and `rule_record` give for
        the same videos, value by value.
    """
    made = _by_columns(videos, params) if params.rule == "group" and base is None else None
    if made is not None:
        return made
    inputs = inputs_from_table(videos)
    rows = assign_splits(inputs, params, base=base)
    return rows_table(rows), rule_record(params, inputs, rows, base)


def _by_columns(videos: pa.Table, params: SplitParams) -> tuple[pa.Table, Record] | None:
    """Split by hashes of groups; None where the rule is more than that."""
    ids = fixed(videos["video_id"], 16)
    order = byte_order(ids)
    tied = videos.select(EDGE_COLUMNS)
    if not bool((order[1:] > order[:-1]).all()):  # manifests are sorted: no copy then
        ids, tied = ids[order], tied.take(pa.array(order))
    del order
    if not len(ids) or bool((ids[1:] == ids[:-1]).all(axis=1).any()):
        return None
    edges = KeyEdges.of(tied, params.aliases)
    placed = _place(edges, params)
    if placed is None:
        return None
    table = pa.Table.from_batches(_batches(ids, edges, placed, params), schema=SCHEMA)
    counts = np.bincount(placed.place, weights=placed.size, minlength=len(SPLITS)).astype(np.int64).tolist()
    facts = RecordFacts(
        n_videos=len(ids),
        n_groups=len(placed.size),
        n_giant=0,
        largest_group=int(placed.size.max()),
        edge_kinds=edge_kinds(videos, edges, params),
        inputs_sha256=inputs_digest(videos),
        decided_by=Counter(hash=len(ids)),
        counts=Counter({split: n for split, n in zip(SPLITS, counts, strict=True) if n}),
    )
    return table, record_of(params, facts)


# ---- groups --------------------------------------------------------------------------------------------------------


def _place(edges: KeyEdges, params: SplitParams) -> _Placed | None:
    """Find the groups and hash them; None where the rule is more than a hash."""
    video_label, key_label = edges.labels()
    labels, group, size = np.unique(video_label, return_inverse=True, return_counts=True)
    giant = edges.n_videos >= GIANT_MIN_VIDEOS and size.max() > GIANT_FACTOR * max(params.ratios) * edges.n_videos
    if len(labels) < SMALL_SET_GROUPS or giant:
        return None
    anchor = edges.anchors(key_label)[labels]
    digest = np.empty((len(labels), 16), dtype=np.uint8)
    u = np.empty(len(labels))
    for start in range(0, len(labels), BATCH_ROWS):
        names = edges.names.take(pa.array(anchor[start : start + BATCH_ROWS])).to_pylist()
        stop = start + len(names)
        digest[start:stop] = np.frombuffer(b"".join(map(group_id, names)), np.uint8).reshape(-1, 16)
        u[start:stop] = [position(params.seed, name) for name in names]
    place = hash_places(u, params.ratios)
    wanted = {i for i, ratio in enumerate(params.ratios) if ratio > 0}
    if not wanted <= set(np.unique(place).tolist()):
        return None
    return _Placed(
        group=group.astype(np.int64), anchor=anchor, size=size.astype(np.int64), digest=digest, u=u, place=place
    )


# ---- rows ----------------------------------------------------------------------------------------------------------


def _batches(ids: Bytes, edges: KeyEdges, placed: _Placed, params: SplitParams) -> Iterator[pa.RecordBatch]:
    bounds = np.searchsorted(edges.video, np.arange(edges.n_videos + 1))
    for start in range(0, len(ids), BATCH_ROWS):
        stop = min(start + BATCH_ROWS, len(ids))
        group = placed.group[start:stop]
        n = len(group)
        keys = edges.names.take(pa.array(edges.key[bounds[start] : bounds[stop]])).cast(pa.string())
        offsets = pa.array(bounds[start : stop + 1] - bounds[start], pa.int32())
        columns = {
            "video_id": binary(ids[start:stop]),
            "split": _names(placed.place[group], SPLITS),
            "excluded": pa.array(np.zeros(n, dtype=np.bool_)),
            "exclude_reason": pa.DictionaryArray.from_arrays(pa.nulls(n, pa.int32()), pa.array([], pa.string())),
            "group_id": binary(placed.digest[group]),
            "group_anchor": edges.names.take(pa.array(placed.anchor[group])).cast(pa.string()),
            "group_size": pa.array(placed.size[group], pa.int32()),
            "group_keys": pa.ListArray.from_arrays(offsets, keys),
            "u": pa.array(placed.u[group]),
            "rule": _names(np.zeros(n, dtype=np.int64), ("hash",)),
            "seed": pa.array(np.full(n, params.seed, dtype=np.uint64)),
            "pinned": pa.array(np.zeros(n, dtype=np.bool_)),
            "origin_run": pa.array([""], pa.string()).take(pa.array(np.zeros(n, dtype=np.int64))),
        }
        yield pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _names(codes: Ints, names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(list(names), pa.string()))


# ---- record --------------------------------------------------------------------------------------------------------


def edge_kinds(videos: pa.Table, edges: KeyEdges, params: SplitParams) -> list[str]:
    """Name the kinds of links that tie these videos, as `splits.edge_kinds` does for rows."""
    lengths = {name: pc.fill_null(pc.list_value_length(videos[name]), 0).to_numpy() for name in KEY_COLUMNS}
    found = {
        "PAIR": bool(((lengths["target_keys"] > 0) & (lengths["donor_keys"] > 0)).any()),
        "ORIG": videos["original_video_id"].null_count < videos.num_rows,
        "SRC": bool((lengths["source_keys"] > 0).any()),
        "ID": bool((lengths["identity_keys"] > 0).any()),
        "ALIAS": bool(params.aliases),
        "DUP": edges.has_copies,
        "XDS": _is_shared(videos),
    }
    return [kind for kind, present in found.items() if present]


def _is_shared(videos: pa.Table) -> bool:
    """Tell whether a published key has videos of two data sets."""
    data_sets = pc.unique(videos["dataset"].cast(pa.string()))
    if len(data_sets) < 2:
        return False
    code = pc.index_in(videos["dataset"].cast(pa.string()), value_set=data_sets).to_numpy()
    lists = [whole(videos[name].cast(pa.large_list(pa.large_string()))) for name in KEY_COLUMNS]
    keys = pa.concat_arrays([pc.list_flatten(column) for column in lists]).dictionary_encode()
    owner = code[np.concatenate([np.asarray(pc.list_parent_indices(column), np.int64) for column in lists])]
    key = np.asarray(keys.indices, np.int64)
    first, last = np.full(len(keys.dictionary), len(data_sets)), np.full(len(keys.dictionary), -1)
    np.minimum.at(first, key, owner)
    np.maximum.at(last, key, owner)
    return bool((first < last).any())


def inputs_digest(videos: pa.Table) -> str:
    """Return the digest of what the split depends on, as `splits.inputs_digest` does for rows."""
    return batches_digest(_input_batch(batch) for batch in videos.select(INPUT_COLUMNS).to_batches(BATCH_ROWS))


def _input_batch(videos: pa.RecordBatch) -> pa.RecordBatch:
    """Add all keys of each video, and sort every list: the order of keys does not count."""
    lists = {name: videos.column(name).cast(pa.large_list(pa.large_string())) for name in KEY_COLUMNS}
    owners = [np.asarray(pc.list_parent_indices(column), np.int64) for column in lists.values()]
    keys = pa.concat_arrays([pc.list_flatten(column) for column in lists.values()])
    columns = {name: videos.column(name) for name in INPUT_COLUMNS if name not in KEY_COLUMNS}
    for name, owner in zip(lists, owners, strict=True):
        columns[name] = _sorted_lists(owner, pc.list_flatten(lists[name]), videos.num_rows, once=False)
    columns["keys"] = _sorted_lists(np.concatenate(owners), keys, videos.num_rows, once=True)
    return pa.RecordBatch.from_pydict(columns)


def _sorted_lists(owner: Ints, keys: pa.Array, n: int, *, once: bool) -> pa.Array:
    """Return the keys of each of `n` videos, sorted; `once`: without repetitions."""
    encoded = keys.dictionary_encode()
    by_name = np.asarray(pc.sort_indices(encoded.dictionary), np.int64)
    rank = np.empty(len(by_name), dtype=np.int64)
    rank[by_name] = np.arange(len(by_name))
    pairs = owner * max(1, len(by_name)) + rank[np.asarray(encoded.indices, np.int64)]
    pairs = np.unique(pairs) if once else np.sort(pairs)
    video, key = np.divmod(pairs, max(1, len(by_name)))
    offsets = np.searchsorted(video, np.arange(n + 1))
    names = encoded.dictionary.take(pa.array(by_name[key]))
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), names)
