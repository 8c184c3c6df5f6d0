"""Groups of videos that no split may tear apart: connected components over videos and the keys they share.

Keys are names in one global namespace (`ffpp/seq/071`, `yt/--b1Ua-kWJE`, `celebdf2/id/id16`), so two data sets that
reuse a sequence meet in one group without being told. Besides the published keys of a video, three links tie videos:
the original of a fake, equal file content, and pairs of keys that the user declares to be the same (aliases).
"""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lps.manifests.canonical import digest16
from lps.manifests.records import SourceVideo

Ints = NDArray[np.int64]
Aliases = tuple[tuple[str, str], ...]

VIDEO_PREFIX = "video/"
CONTENT_PREFIX = "sha256/"
EMPTY_SHA256 = hashlib.sha256(b"").digest()
INPUT_COLUMNS = (
    "video_id",
    "label",
    "dataset",
    "method",
    "compression",
    "official_split",
    "sha256",
    "original_video_id",
    "identity_keys",
    "target_keys",
    "donor_keys",
    "source_keys",
)
"""Columns of the manifest `videos` that a split depends on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitInput:
    """What a split may depend on: who and what is in a video, never how its processing went."""

    video_id: bytes
    label: int | None
    dataset: str
    method: str | None = None
    compression: str | None = None
    keys: tuple[str, ...] = ()
    """All published grouping keys: the union of the four kinds below."""
    identity_keys: tuple[str, ...] = ()
    target_keys: tuple[str, ...] = ()
    donor_keys: tuple[str, ...] = ()
    source_keys: tuple[str, ...] = ()
    official_split: str | None = None
    sha256: bytes | None = None
    """Digest of the file, which ties exact duplicates; None leaves them untied."""
    original_video_id: bytes | None = None

    @property
    def own_key(self) -> str:
        """The key that stands for the video itself, as an original or where nothing is published."""
        return video_key(self.video_id)

    @property
    def content_key(self) -> str | None:
        """The key that exact duplicates share; None for unread and empty files, which are not copies of one video."""
        if self.sha256 is None or self.sha256 == EMPTY_SHA256:
            return None
        return CONTENT_PREFIX + self.sha256.hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What ties one video into its group."""

    anchor: str
    """Name of the group."""
    size: int
    """Videos in the group."""
    keys: Sequence[str]
    """The keys that tie this video in, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The group of every video, in the order of the videos asked about."""

    of_video: Ints
    """Number of the group of each video, 0 to `n - 1`."""
    anchors: tuple[str, ...]
    """Name of each group: its lexicographically smallest published key, else its smallest `video/` key."""
    sizes: Ints
    """Videos in each group."""
    links: "Links"

    def __len__(self) -> int:
        return len(self.anchors)

    def membership(self, index: int, video: SplitInput) -> Membership:
        """Return how `video` belongs to its group; `index` is its place among the videos asked about."""
        group = int(self.of_video[index])
        return Membership(anchor=self.anchors[group], size=int(self.sizes[group]), keys=self.links.keys(video))


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Which of the unpublished keys really tie something in a set of videos. The others would only cost memory."""

    repeated: frozenset[str]
    """Content keys that two or more videos have."""
    originals: frozenset[bytes]
    """Video ids that some video names as its original."""

    @classmethod
    def among(cls, inputs: Sequence[SplitInput]) -> "Links":
        """Find the digests and originals that tie these videos."""
        seen: set[bytes] = set()
        repeated: set[str] = set()
        for video in inputs:
            if video.sha256 is not None:
                if video.sha256 in seen and video.content_key is not None:
                    repeated.add(video.content_key)
                seen.add(video.sha256)
        originals = frozenset(v.original_video_id for v in inputs if v.original_video_id is not None)
        return cls(repeated=frozenset(repeated), originals=originals)

    def keys(self, video: SplitInput) -> tuple[str, ...]:
        """Return every key that ties `video` in: at least one, sorted."""
        keys = set(video.keys)
        if not keys or video.video_id in self.originals:
            keys.add(video.own_key)
        if video.original_video_id is not None:
            keys.add(video_key(video.original_video_id))
        content = video.content_key if self.repeated else None
        if content is not None and content in self.repeated:
            keys.add(content)
        return tuple(sorted(keys))


def video_key(video_id: bytes) -> str:
    """Return the global key of one video."""
    return VIDEO_PREFIX + video_id.hex()


def group_id(anchor: str) -> bytes:
    """Return the 16 bytes that name the group of this anchor."""
    return digest16(anchor)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGraph:
    """Edges between videos and keys as arrays, aliases as extra edges of videos that do not exist."""

    names: tuple[str, ...]
    n_carried: int
    """The first `n_carried` names belong to videos; the rest only occur in aliases and never name a group."""
    video_index: Ints
    key_index: Ints
    n_videos: int
    n_aliases: int

    @classmethod
    def build(cls, keys_of_videos: Iterable[Sequence[str]], aliases: Aliases = ()) -> "KeyGraph":
        """Number the keys in the order in which they come."""
        numbers: dict[str, int] = {}
        video_index, key_index = array("q"), array("q")
        n_videos = 0
        for keys in keys_of_videos:
            for key in keys:
                video_index.append(n_videos)
                key_index.append(numbers.setdefault(key, len(numbers)))
            n_videos += 1
        n_carried = len(numbers)
        for i, pair in enumerate(aliases):
            for key in pair:
                video_index.append(n_videos + i)
                key_index.append(numbers.setdefault(key, len(numbers)))
        return cls(
            names=tuple(numbers),
            n_carried=n_carried,
            video_index=np.array(video_index, dtype=np.int64),
            key_index=np.array(key_index, dtype=np.int64),
            n_videos=n_videos,
            n_aliases=len(aliases),
        )

    def labels(self, use: NDArray[np.bool_] | None = None) -> tuple[Ints, Ints]:
        """Label videos and keys; `use` keeps only some of the edges."""
        videos, keys = self.video_index, self.key_index
        if use is not None:
            videos, keys = videos[use], keys[use]
        video_label, key_label = component_labels(videos, keys, self.n_videos + self.n_aliases, len(self.names))
        return video_label[: self.n_videos], key_label

    def anchors(self, key_label: Ints) -> dict[int, str]:
        """Return the name of every component: published keys come before `video/` keys, content never names one."""
        names = self.names
        # A content key comes last: it names a group only where a source published nothing but a key of that form.
        candidates = sorted(
            range(self.n_carried),
            key=lambda i: (names[i].startswith(CONTENT_PREFIX), names[i].startswith(VIDEO_PREFIX), names[i]),
        )
        labels, first = np.unique(key_label[candidates], return_index=True)
        return {int(label): names[candidates[i]] for label, i in zip(labels, first, strict=True)}


def group_videos(inputs: Sequence[SplitInput], aliases: Aliases = ()) -> Groups:
    """Find the groups. Neither the order of the videos nor the order of their keys changes anchors or sizes."""
    links = Links.among(inputs)
    graph = KeyGraph.build((links.keys(video) for video in inputs), aliases)
    video_label, key_label = graph.labels()
    anchors = graph.anchors(key_label)
    present, of_video, sizes = np.unique(video_label, return_inverse=True, return_counts=True)
    return Groups(
        of_video=of_video.astype(np.int64),
        anchors=tuple(anchors[int(component)] for component in present),
        sizes=sizes.astype(np.int64),
        links=links,
    )


def alias_roots(aliases: Aliases) -> dict[str, str]:
    """Map every key that an alias mentions to the smallest key declared equal to it."""
    graph = KeyGraph.build((), aliases)
    _, key_label = graph.labels()
    smallest: dict[int, str] = {}
    for name, label in zip(graph.names, key_label.tolist(), strict=True):
        smallest[label] = min(name, smallest.get(label, name))
    return {name: smallest[label] for name, label in zip(graph.names, key_label.tolist(), strict=True)}


def split_input(
    video: SourceVideo, *, sha256: bytes | None = None, original_video_id: bytes | None = None
) -> SplitInput:
    """Take from a source video what a split may depend on."""
    keys = {*video.target_keys, *video.donor_keys, *video.source_keys, *video.identity_keys}
    return SplitInput(
        video_id=video.video_id,
        label=video.label,
        dataset=video.dataset,
        method=video.method,
        compression=video.compression,
        keys=tuple(sorted(keys)),
        identity_keys=video.identity_keys,
        target_keys=video.target_keys,
        donor_keys=video.donor_keys,
        source_keys=video.source_keys,
        official_split=video.official_split,
        sha256=sha256,
        original_video_id=original_video_id,
    )


def inputs_from_table(videos: pa.Table) -> list[SplitInput]:
    """Read the rows of `videos.parquet`; optional columns that the table lacks count as null."""
    nothing = pa.nulls(videos.num_rows)
    columns = [(videos[c] if c in videos.column_names else nothing).to_pylist() for c in INPUT_COLUMNS]
    return [_input_from_row(dict(zip(INPUT_COLUMNS, row, strict=True))) for row in zip(*columns, strict=True)]


def _input_from_row(row: dict[str, Any]) -> SplitInput:
    identity, target, donor, source = (tuple(row.pop(c) or ()) for c in INPUT_COLUMNS[-4:])
    return SplitInput(
        keys=tuple(sorted({*identity, *target, *donor, *source})),
        identity_keys=identity,
        target_keys=target,
        donor_keys=donor,
        source_keys=source,
        **row,
    )
