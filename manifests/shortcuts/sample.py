"""Which videos a panel looks at, by whole groups, and the clip of each."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lps.manifests.arrays import Bools, Ints
from lps.manifests.audit.core.queries import PLACED, SURVIVORS, arrays
from lps.manifests.audit.core.types import AuditContext
from lps.manifests.canonical import unit_interval

GROUP_SHARE = 20
"""A group gives at most one in so many of the sampled videos: one that holds most of a data set must leave room."""
MIN_VIDEOS = 30
"""Fewer of a class make an interval that says nothing."""
MIN_GROUPS = 20
"""With videos of each class."""

_VIDEOS = f"""WITH {PLACED}, {SURVIVORS}
SELECT s.video_id, s.label, dense_rank() OVER (ORDER BY s.group_id) AS group_number, o.row_number AS original
FROM (SELECT *, row_number() OVER (ORDER BY video_id) AS row_number FROM survivors) s
LEFT JOIN (SELECT video_id, row_number() OVER (ORDER BY video_id) AS row_number FROM survivors) o
    ON o.video_id = s.original_video_id
ORDER BY s.video_id"""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSample:
    """Videos in the order of their ids."""

    video_ids: NDArray[Any]
    """(n,) of bytes."""
    labels: Ints
    groups: Ints
    """Number of the group of each; a fake and its original are in one, whatever the split set says."""
    n_all: int
    """Videos that could have been chosen."""

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(np.unique(self.groups))

    def select(self, mask: Bools) -> "VideoSample":
        """Return the videos where `mask` is true."""
        return replace(self, video_ids=self.video_ids[mask], labels=self.labels[mask], groups=self.groups[mask])

    def too_few(self) -> str:
        """Return why nothing can be said of so few, empty where there are enough."""
        for number, word in enumerate(("real", "fake")):
            mine = self.labels == number
            n, n_groups = int(mine.sum()), len(np.unique(self.groups[mine]))
            if n < MIN_VIDEOS:
                return f"too few videos: {n} {word}, {MIN_VIDEOS} are needed"
            if n_groups < MIN_GROUPS:
                return f"too few groups: {n_groups} with {word} videos, {MIN_GROUPS} are needed"
        return ""


def draw_sample(ctx: AuditContext, max_clips: int, seed: int) -> VideoSample:
    """Choose labelled videos with clips, by hashes of their ids and the seed, groups one after the other.

    Raises UnreadableError where manifests cannot be read.
    """
    found = arrays(ctx, _VIDEOS)
    ids, labels = found["video_id"], found["label"].astype(np.int64)
    if not len(ids):
        nothing = np.empty(0, np.int64)
        return VideoSample(video_ids=ids, labels=nothing, groups=nothing, n_all=0)
    groups = _joined(found["group_number"].astype(np.int64), found["original"].astype(np.float64))
    u = np.array([unit_interval("lps-shortcuts/v1", str(seed), bytes(i).hex()) for i in ids])
    first = np.unique(groups, return_index=True)[1]  # ids are digests: the first of a group is any of it
    order = np.lexsort((u, u[first][groups]))
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    most = max(2, max_clips // GROUP_SHARE)
    chosen = np.sort(order[place < most][:max_clips])
    return VideoSample(video_ids=ids[chosen], labels=labels[chosen], groups=groups[chosen], n_all=len(ids))


def _joined(groups: Ints, original: NDArray[np.float64]) -> Ints:
    """Number groups anew, from 0, so that a video and its original (row from 1, NaN for none) are in one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    fakes = np.flatnonzero(np.isfinite(original))
    a, b = groups[fakes] - 1, groups[original[fakes].astype(np.int64) - 1] - 1
    n = int(groups.max())
    return np.asarray(connected_components(coo_array((np.ones(len(a)), (a, b)), (n, n)))[1][groups - 1], np.int64)


def chosen_table(sample: VideoSample) -> pa.Table:
    """Return the chosen ids with their places, to be joined as `chosen`."""
    ids = pa.array([bytes(i) for i in sample.video_ids], pa.binary())
    return pa.table({"video_id": ids, "place": pa.array(np.arange(len(ids)))})
