"""Groups of videos that no split may tear apart: connected components over videos and the keys they share.

Keys are names in one global namespace (`ffpp/seq/071`, `yt/--b1Ua-kWJE`, `celebdf2/id/id16`), so two data sets that
reuse a sequence meet in one group without being told. Besides the published keys of a video, three links tie videos:
the original of a fake, equal file content, and pairs of keys that the user declares to be the same (aliases).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from lps.manifests.arrays import Ints
from lps.manifests.canonical import digest16
from lps.manifests.splits.inputs import Aliases, SplitInput, inputs_table
from lps.manifests.splits.key_edges import KeyEdges


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
    keys: Sequence[Sequence[str]] = ()
    """The keys that tie each video in, sorted; at least one. Only of groups of records, not of tables."""

    @classmethod
    def of(cls, edges: KeyEdges) -> "Groups":
        """Find the groups. Neither the order of the videos nor the order of their keys changes anchors or sizes."""
        video_label, key_label = edges.labels()
        present, of_video, sizes = np.unique(video_label, return_inverse=True, return_counts=True)
        anchors = edges.names.take(pa.array(edges.anchors(key_label)[present]))
        return cls(of_video=of_video.astype(np.int64), anchors=tuple(anchors.to_pylist()), sizes=sizes.astype(np.int64))

    def __len__(self) -> int:
        return len(self.anchors)

    def membership(self, index: int) -> Membership:
        """Return how the video belongs to its group that is at this place among the videos asked about."""
        group = int(self.of_video[index])
        return Membership(anchor=self.anchors[group], size=int(self.sizes[group]), keys=self.keys[index])


def group_id(anchor: str) -> bytes:
    """Return the 16 bytes that name the group of this anchor."""
    return digest16(anchor)


def group_videos(inputs: Sequence[SplitInput], aliases: Aliases = ()) -> Groups:
    """Find the groups of records, with the keys of each."""
    edges = KeyEdges.of(inputs_table(inputs), aliases)
    return replace(Groups.of(edges), keys=edges.keys_of_videos())


def alias_roots(aliases: Aliases) -> dict[str, str]:
    """Map every key that an alias mentions to the smallest key declared equal to it."""
    edges = KeyEdges.of(inputs_table(()), aliases)
    smallest: dict[int, str] = {}
    labels = edges.labels()[1].tolist()
    return {name: smallest.setdefault(label, name) for name, label in zip(edges.names.to_pylist(), labels, strict=True)}
