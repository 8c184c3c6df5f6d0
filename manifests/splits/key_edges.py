"""Which keys tie which videos, as arrays: the groups of whole tables, for millions of videos.

Keys become numbers once, and everything after that is arithmetic.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lps.manifests.arrays import Ints
from lps.manifests.row_digest import fixed_bytes, hex_texts
from lps.manifests.splits.inputs import CONTENT_PREFIX, EMPTY_SHA256, KEY_COLUMNS, VIDEO_PREFIX, Aliases, key_columns

EDGE_COLUMNS = ("video_id", "sha256", "original_video_id", *KEY_COLUMNS)
"""Columns of the manifest `videos` that tie videos to each other."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEdges:
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
    has_copies: bool
    """Whether two videos have equal files."""

    @classmethod
    def of(cls, videos: pa.Table, aliases: Aliases = ()) -> "KeyEdges":
        """Collect the edges of a table with at least `EDGE_COLUMNS`, or `keys` instead; every video has one row."""
        n = videos.num_rows
        copies = _copies(videos["sha256"])
        has_copies = len(copies[0]) > 0
        ids = fixed(videos["video_id"], 16)
        keyed = np.zeros(n, dtype=np.bool_)
        parts = [listed(videos[column]) for column in key_columns(videos)]
        for owners, _ in parts:
            keyed[owners] = True
        originals = videos["original_video_id"]
        named = np.flatnonzero(pc.is_valid(originals).to_numpy())
        targets = fixed(originals.drop_null(), 16)
        is_original = pc.is_in(binary(ids), value_set=binary(targets)).to_numpy(zero_copy_only=False)
        own = np.flatnonzero(~keyed | is_original)
        parts += [(own, hex_texts(ids[own], VIDEO_PREFIX)), (named, hex_texts(targets, VIDEO_PREFIX))]
        mentioned = np.repeat(np.arange(len(aliases)), 2)
        parts += [copies, (n + mentioned, pa.array([key for pair in aliases for key in pair], pa.large_string()))]
        del originals, targets, copies
        return cls._ranked(parts, n_videos=n, has_copies=has_copies)

    @classmethod
    def _ranked(cls, parts: list[tuple[Ints, pa.Array]], *, n_videos: int, has_copies: bool) -> "KeyEdges":
        """Number the keys by their order, and drop edges that several columns repeat. Empties `parts` on the way."""
        pairs = np.concatenate([owners for owners, _ in parts])
        encoded = pa.chunked_array([keys for _, keys in parts], pa.large_string()).dictionary_encode()
        parts.clear()  # the texts of all edges are most of the memory
        names = encoded.chunk(0).dictionary if encoded.num_chunks else pa.array([], pa.large_string())
        by_name = np.asarray(pc.sort_indices(names), np.int64)
        rank = np.empty(len(by_name), dtype=np.int64)
        rank[by_name] = np.arange(len(by_name))
        pairs *= max(1, len(by_name))
        if len(pairs):
            pairs += rank[np.concatenate([np.asarray(chunk.indices) for chunk in encoded.chunks])]
        pairs.sort()
        video, key = np.divmod(pairs[_first(pairs)], max(1, len(by_name)))
        end = int(np.searchsorted(video, n_videos))
        return cls(
            video=video[:end],
            key=key[:end],
            names=names.take(pa.array(by_name)),
            alias_video=video[end:],
            alias_key=key[end:],
            n_videos=n_videos,
            has_copies=has_copies,
        )

    def only(self, use: NDArray[np.bool_]) -> "KeyEdges":
        """Return some of the edges of videos, and all aliases."""
        return replace(self, video=self.video[use], key=self.key[use])

    def keys_of_videos(self) -> list[list[str]]:
        """Return the keys of each video, sorted."""
        offsets = pa.array(np.searchsorted(self.video, np.arange(self.n_videos + 1)))
        return list(pa.LargeListArray.from_arrays(offsets, self.names.take(pa.array(self.key))).to_pylist())

    def labels(self) -> tuple[Ints, Ints]:
        """Return the component of each video and of each key, in one numbering."""
        n_aliases = int(self.alias_video.max()) + 1 - self.n_videos if len(self.alias_video) else 0
        video_label, key_label = component_labels(
            np.concatenate([self.video, self.alias_video]),
            np.concatenate([self.key, self.alias_key]),
            self.n_videos + n_aliases,
            len(self.names),
        )
        return video_label[: self.n_videos], key_label

    def anchors(self, key_label: Ints) -> Ints:
        """Return the rank of the key that names each component: published, else a single video's, else content."""
        n_names = len(self.names)
        carried = np.zeros(n_names, dtype=np.bool_)
        carried[self.key] = True
        of_content = pc.starts_with(self.names, CONTENT_PREFIX).to_numpy(zero_copy_only=False)
        of_video = pc.starts_with(self.names, VIDEO_PREFIX).to_numpy(zero_copy_only=False)
        candidates = np.flatnonzero(carried)
        first = np.full(int(key_label.max(initial=0)) + 1, 3 * n_names, dtype=np.int64)
        place = candidates + n_names * of_video[candidates] + 2 * n_names * of_content[candidates]
        np.minimum.at(first, key_label[candidates], place)
        return np.asarray(first % max(1, n_names), np.int64)


def component_labels(video_index: Ints, key_index: Ints, n_videos: int, n_keys: int) -> tuple[Ints, Ints]:
    """Label the connected components of a graph of videos and keys.

    Edge `i` ties video `video_index[i]` to key `key_index[i]`. Returns the component of each video and of each key,
    in one numbering. Linear in edges: 12 million videos take seconds.
    """
    n_nodes = n_videos + n_keys
    ones = np.ones(len(video_index), dtype=np.bool_)
    rows = np.asarray(video_index, dtype=np.int64)
    columns = np.asarray(key_index, dtype=np.int64) + n_videos
    graph = coo_matrix((ones, (rows, columns)), shape=(n_nodes, n_nodes))
    _, labels = connected_components(graph, directed=False)
    labels = labels.astype(np.int64)
    return labels[:n_videos], labels[n_videos:]


def _first(values: Ints) -> NDArray[np.bool_]:
    """Mark the first of equal values; `values` are sorted."""
    first = np.ones(len(values), dtype=np.bool_)
    first[1:] = values[1:] != values[:-1]
    return first


def listed(column: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """Return the keys of a column of lists, each with its video."""
    lists = whole(column.cast(pa.large_list(pa.large_string())))
    return np.asarray(pc.list_parent_indices(lists), np.int64), pc.list_flatten(lists)


def _copies(column: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """Tie the videos whose file is that of another one; empty files are no copies of each other."""
    known = np.flatnonzero(pc.is_valid(column).to_numpy())
    digests = fixed(column.drop_null(), 32)
    # Few files have copies: the first eight bytes tell nearly all of the others apart.
    heads = digests[:, :8].copy().view(np.uint64).ravel()
    values, counts = np.unique(heads, return_counts=True)
    some = np.flatnonzero(np.isin(heads, values[counts > 1]))
    known, digests = known[some], digests[some]
    filled = (digests != np.frombuffer(EMPTY_SHA256, np.uint8)).any(axis=1)
    known, digests = known[filled], digests[filled]
    order = byte_order(digests)
    same = (digests[order[1:]] == digests[order[:-1]]).all(axis=1)
    shared = np.zeros(len(known), dtype=np.bool_)
    shared[order[1:][same]] = True
    shared[order[:-1][same]] = True
    return known[shared], hex_texts(digests[shared], CONTENT_PREFIX)


def whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def fixed(column: pa.ChunkedArray, width: int) -> Bytes:
    """Return a binary column without nulls as a matrix of bytes."""
    return fixed_bytes(whole(column.cast(pa.binary(width))))


def binary(data: Bytes) -> pa.Array:
    """Return a matrix of bytes as a binary array."""
    packed = np.ascontiguousarray(data)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(packed.shape[1]), len(packed), [None, pa.py_buffer(packed)])


def byte_order(data: Bytes) -> Ints:
    """Return the order of rows of bytes."""
    words = np.ascontiguousarray(data).view(">u8").astype(np.uint64)  # big-endian words sort as bytes do
    return np.lexsort(tuple(words[:, i] for i in reversed(range(words.shape[1])))).astype(np.int64)
