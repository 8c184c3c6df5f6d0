"""Splits that follow published lists, as they are or without the groups that the lists tear apart."""

from collections.abc import Sequence
from dataclasses import replace

from lps.manifests.errors import RefusedError
from lps.manifests.names import SPLITS
from lps.manifests.splits.by_group import Scene, group_rows
from lps.manifests.splits.groups import group_videos
from lps.manifests.splits.inputs import SplitInput
from lps.manifests.splits.pins import Owners, all_keys, attach
from lps.manifests.splits.records import BRIDGE, NOT_SELECTED, SplitParams, SplitRow, make_row


def published_splits(videos: Sequence[SplitInput]) -> frozenset[tuple[str, str]]:
    """Return every pair of data set and split that some list names."""
    found = {(video.dataset, video.official_split) for video in videos if video.official_split is not None}
    unknown = {split for _, split in found if split not in SPLITS}
    if unknown:
        raise RefusedError(f"published splits must be train, val or test, got {', '.join(sorted(unknown))}")
    return frozenset(found)


def listed_split(video: SplitInput, published: frozenset[tuple[str, str]]) -> str | None:
    """Return the published split; where a data set only lists its test videos, the others are for training."""
    only_test = (video.dataset, "test") in published and (video.dataset, "train") not in published
    return video.official_split or ("train" if only_test else None)


def official_rows(videos: Sequence[SplitInput], params: SplitParams, scene: Scene) -> list[SplitRow]:
    """Follow the published lists; carve a val where a data set publishes none. Groups may cross, and are reported."""
    if not scene.published:
        raise RefusedError("no video has a published split, so rule official has nothing to follow: use rule group")
    published = frozenset[tuple[str, str]]() if params.lists else scene.published
    listed = {video.video_id: listed_split(video, published) for video in videos}
    carve = params.ratios[1] > 0
    pool = [v for v in videos if carve and listed[v.video_id] == "train" and (v.dataset, "val") not in scene.published]
    carved = {row.video_id: row for row in _carved_rows(pool, params, scene)} if pool else {}
    groups = group_videos(videos, params.aliases)
    rows: list[SplitRow] = []
    for i, video in enumerate(videos):
        row = carved.get(video.video_id) or make_row(
            video,
            params,
            groups.membership(i),
            split=listed[video.video_id],
            rule="official",
            reason=None if listed[video.video_id] else NOT_SELECTED,
        )
        rows.append(row)
    return rows


def _carved_rows(pool: Sequence[SplitInput], params: SplitParams, scene: Scene) -> list[SplitRow]:
    """Divide published training videos into train and val by group. A giant group stays whole, hence in train."""
    train, val, _ = params.ratios
    carve = replace(
        params, rule="group", lists=(), giant="component", ratios=(train / (train + val), val / (train + val), 0.0)
    )
    attached = attach(pool, scene.owners.within(("train", "val")), carve)
    here = replace(scene, n_videos=len(pool), settled=scene.settled.within(("train", "val")))
    return [*attached.rows, *group_rows(attached.free, carve, here)]


def without_crossing(
    videos: Sequence[SplitInput], rows: Sequence[SplitRow], params: SplitParams, owners: Owners
) -> list[SplitRow]:
    """Leave out what makes groups cross: their val and test videos, or their val videos where train is not involved.

    Rows of a base cannot move, so where a group touches one split of it, whatever disagrees is left out, and where it
    touches two, all of its new videos are.
    """
    row_of = {row.video_id: row for row in rows}
    included = [video for video in videos if row_of[video.video_id].split is not None]
    groups = group_videos(included, params.aliases)
    present: list[set[str]] = [set() for _ in range(len(groups))]
    held: list[set[str]] = [set() for _ in range(len(groups))]
    for video, group in zip(included, groups.of_video.tolist(), strict=True):
        present[group].add(str(row_of[video.video_id].split))
        held[group] |= owners.splits_of(all_keys(video))
    for video, group in zip(included, groups.of_video.tolist(), strict=True):
        row = row_of[video.video_id]
        if held[group]:
            keep = min(held[group]) if len(held[group]) == 1 else None
        else:
            keep = next(split for split in ("train", "test", "val") if split in present[group])
        if row.split != keep:
            row_of[video.video_id] = replace(row, split=None, excluded=True, exclude_reason=BRIDGE)
    return [row_of[row.video_id] for row in rows]
