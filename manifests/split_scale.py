"""The rule `group` on columns instead of rows: the same split as `assign_splits`, for tables of millions of videos.

Keys become numbers once, and everything after that is arithmetic on arrays; only groups, not videos, pass through
Python. What is not a plain hash of whole groups (few groups, a giant one, a split that stays empty) goes the slow way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lps.manifests.components import (
    CONTENT_PREFIX,
    EMPTY_SHA256,
    INPUT_COLUMNS,
    VIDEO_PREFIX,
    Ints,
    component_labels,
    group_id,
    inputs_from_table,
)
from lps.manifests.errors import RefusedError
from lps.manifests.schemas import SPLITS as SCHEMA
from lps.manifests.split_groups import GIANT_FACTOR, GIANT_MIN_VIDEOS
from lps.manifests.split_records import SPLITS, SplitParams, position
from lps.manifests.split_rules import SMALL_SET_GROUPS, hash_places
from lps.manifests.splits import assign_splits

BATCH_ROWS = 1 << 20
KEY_COLUMNS = INPUT_COLUMNS[-4:]
SCALE_COLUMNS = ("video_id", "sha256", "original_video_id", *KEY_COLUMNS)
"""Columns of the manifest `videos` that decide the rule `group`."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edges:
    """Every key of every video, in the order of videos and then of keys."""

    video: Ints
    key: Ints
    """Rank of the key among `names`."""
    names: pa.Array
    """All keys, sorted."""
    alias_video: Ints
    """Aliases tie keys as videos do that do not exist."""
    alias_key: Ints
    n_videos: int


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


def assign_group_splits(videos: pa.Table, params: SplitParams) -> pa.Table:
    """Split a whole table of videos by the rule `group`, without a base.

    Args:
        videos: at least `SCALE_COLUMNS` of the manifest `videos`; where the slow way is taken, all `INPUT_COLUMNS`.
        params: as for `assign_splits`; any other rule is refused.

    Returns:
        The manifest `splits`, sorted by video id: row by row what `assign_splits` gives for the same videos.
    """
    if params.rule != "group":
        raise RefusedError(f"only the rule 'group' works on whole tables, not {params.rule!r}")
    ids = _fixed(videos["video_id"], 16)
    order = _order(ids)
    ids = ids[order]
    repeated = bool((ids[1:] == ids[:-1]).all(axis=1).any())
    if not repeated and len(ids):
        edges = _edges(videos.select(SCALE_COLUMNS).take(pa.array(order)), ids, params)
        placed = _place(edges, params)
        if placed is not None:
            return pa.Table.from_batches(_batches(ids, edges, placed, params), schema=SCHEMA)
    return _slow(videos, params)


# ---- edges ---------------------------------------------------------------------------------------------------------


def _edges(videos: pa.Table, ids: Bytes, params: SplitParams) -> _Edges:
    n = len(ids)
    parts: list[tuple[Ints, pa.Array]] = []
    keyed = np.zeros(n, dtype=np.bool_)
    for column in KEY_COLUMNS:
        lists = _whole(videos[column].cast(pa.large_list(pa.large_string())))
        owners = np.asarray(pc.list_parent_indices(lists), np.int64)
        keyed[owners] = True
        parts.append((owners, pc.list_flatten(lists)))
    originals = videos["original_video_id"]
    named = np.flatnonzero(pc.is_valid(originals).to_numpy())
    targets = _fixed(originals.filter(pc.is_valid(originals)), 16)
    is_original = pc.is_in(_binary(ids), value_set=_binary(targets)).to_numpy(zero_copy_only=False)
    own = np.flatnonzero(~keyed | is_original)
    parts += [(own, _hex_keys(VIDEO_PREFIX, ids[own])), (named, _hex_keys(VIDEO_PREFIX, targets))]
    parts.append(_content_edges(videos["sha256"]))
    aliases = np.repeat(np.arange(len(params.aliases)), 2)
    parts.append((n + aliases, pa.array([key for pair in params.aliases for key in pair], pa.large_string())))
    return _ranked(np.concatenate([owners for owners, _ in parts]), [keys for _, keys in parts], n)


def _ranked(owners: Ints, keys: Sequence[pa.Array], n_videos: int) -> _Edges:
    """Number the keys by their order, and drop edges that several columns repeat."""
    encoded = pa.concat_arrays(keys).dictionary_encode()
    by_name = np.asarray(pc.sort_indices(encoded.dictionary), np.int64)
    rank = np.empty(len(by_name), dtype=np.int64)
    rank[by_name] = np.arange(len(by_name))
    pairs = np.unique(owners * max(1, len(by_name)) + rank[np.asarray(encoded.indices, np.int64)])
    video, key = np.divmod(pairs, max(1, len(by_name)))
    end = int(np.searchsorted(video, n_videos))
    return _Edges(
        video=video[:end],
        key=key[:end],
        names=encoded.dictionary.take(pa.array(by_name)),
        alias_video=video[end:],
        alias_key=key[end:],
        n_videos=n_videos,
    )


def _content_edges(column: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """Tie the videos whose file is that of another one; empty files are no copies of each other."""
    known = np.flatnonzero(pc.is_valid(column).to_numpy())
    digests = _fixed(column.filter(pc.is_valid(column)), 32)
    empty = (digests == np.frombuffer(EMPTY_SHA256, np.uint8)).all(axis=1)
    known, digests = known[~empty], digests[~empty]
    order = _order(digests)
    same = (digests[order[1:]] == digests[order[:-1]]).all(axis=1)
    shared = np.zeros(len(known), dtype=np.bool_)
    shared[order[1:][same]] = True
    shared[order[:-1][same]] = True
    return known[shared], _hex_keys(CONTENT_PREFIX, digests[shared])


# ---- groups --------------------------------------------------------------------------------------------------------


def _place(edges: _Edges, params: SplitParams) -> _Placed | None:
    """Find the groups and hash them; None where the rule is more than a hash."""
    n_names = len(edges.names)
    video_label, key_label = component_labels(
        np.concatenate([edges.video, edges.alias_video]),
        np.concatenate([edges.key, edges.alias_key]),
        edges.n_videos + len(params.aliases),
        n_names,
    )
    labels, group, size = np.unique(video_label[: edges.n_videos], return_inverse=True, return_counts=True)
    giant = edges.n_videos >= GIANT_MIN_VIDEOS and size.max() > GIANT_FACTOR * max(params.ratios) * edges.n_videos
    if len(labels) < SMALL_SET_GROUPS or giant:
        return None
    anchor = _anchors(edges, key_label)[labels]
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


def _anchors(edges: _Edges, key_label: Ints) -> Ints:
    """Return the rank of the key that names each component: published, else a single video's, else content."""
    n_names = len(edges.names)
    carried = np.zeros(n_names, dtype=np.bool_)
    carried[edges.key] = True
    of_content = pc.starts_with(edges.names, CONTENT_PREFIX).to_numpy(zero_copy_only=False)
    of_video = pc.starts_with(edges.names, VIDEO_PREFIX).to_numpy(zero_copy_only=False)
    candidates = np.flatnonzero(carried)
    first = np.full(int(key_label.max()) + 1, 3 * n_names, dtype=np.int64)
    place = candidates + n_names * of_video[candidates] + 2 * n_names * of_content[candidates]
    np.minimum.at(first, key_label[candidates], place)
    return np.asarray(first % n_names, np.int64)


# ---- rows ----------------------------------------------------------------------------------------------------------


def _batches(ids: Bytes, edges: _Edges, placed: _Placed, params: SplitParams) -> Iterator[pa.RecordBatch]:
    bounds = np.searchsorted(edges.video, np.arange(edges.n_videos + 1))
    for start in range(0, len(ids), BATCH_ROWS):
        stop = min(start + BATCH_ROWS, len(ids))
        group = placed.group[start:stop]
        n = len(group)
        keys = edges.names.take(pa.array(edges.key[bounds[start] : bounds[stop]])).cast(pa.string())
        offsets = pa.array(bounds[start : stop + 1] - bounds[start], pa.int32())
        columns = {
            "video_id": _binary(ids[start:stop]),
            "split": _names(placed.place[group], SPLITS),
            "excluded": pa.array(np.zeros(n, dtype=np.bool_)),
            "exclude_reason": pa.DictionaryArray.from_arrays(pa.nulls(n, pa.int32()), pa.array([], pa.string())),
            "group_id": _binary(placed.digest[group]),
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


def _slow(videos: pa.Table, params: SplitParams) -> pa.Table:
    rows = [asdict(row) for row in assign_splits(inputs_from_table(videos), params)]
    columns = []
    for field in SCHEMA:
        values = [row[field.name] for row in rows]
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        array = pa.array(values, plain)
        columns.append(array.dictionary_encode() if plain != field.type else array)
    return pa.Table.from_arrays(columns, schema=SCHEMA)


# ---- arrays --------------------------------------------------------------------------------------------------------


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _fixed(column: pa.ChunkedArray, width: int) -> Bytes:
    """Return a binary column without nulls as a matrix of bytes."""
    array = _whole(column).cast(pa.binary(width))
    data = np.frombuffer(array.buffers()[1] or b"", np.uint8)
    return data[array.offset * width : (array.offset + len(array)) * width].reshape(-1, width)


def _binary(data: Bytes) -> pa.Array:
    packed = np.ascontiguousarray(data)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(packed.shape[1]), len(packed), [None, pa.py_buffer(packed)])


def _words(data: Bytes) -> NDArray[np.uint64]:
    """Read rows of bytes as big-endian words, so that words sort as bytes do."""
    return np.ascontiguousarray(data).view(">u8").astype(np.uint64)


def _order(data: Bytes) -> Ints:
    """Return the order of rows of bytes."""
    words = _words(data)
    return np.lexsort(tuple(words[:, i] for i in reversed(range(words.shape[1])))).astype(np.int64)


def _hex_keys(prefix: str, data: Bytes) -> pa.Array:
    """Spell rows of bytes as keys: the prefix and lower-case hex."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    head = np.frombuffer(prefix.encode(), np.uint8)
    width = len(head) + 2 * data.shape[1]
    text = np.empty((len(data), width), dtype=np.uint8)
    text[:, : len(head)] = head
    text[:, len(head) :: 2] = digits[data >> 4]
    text[:, len(head) + 1 :: 2] = digits[data & 15]
    offsets = np.arange(len(data) + 1, dtype=np.int64) * width
    return pa.LargeStringArray.from_buffers(len(data), pa.py_buffer(offsets), pa.py_buffer(text))


def _names(codes: Ints, names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(list(names), pa.string()))
