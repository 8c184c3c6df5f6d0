"""Splits by whole groups, with the policies for a group too large for any split, and the split that ignores groups."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lps.manifests.errors import RefusedError
from lps.manifests.names import SPLITS
from lps.manifests.splits.by_identity import identity_rows
from lps.manifests.splits.groups import Groups, group_videos
from lps.manifests.splits.inputs import SplitInput
from lps.manifests.splits.pins import Owners
from lps.manifests.splits.placement import Settled, kind_of, place_groups
from lps.manifests.splits.records import Ratios, SplitParams, SplitRow, make_row

GIANT_FACTOR = 1.2
GIANT_MIN_VIDEOS = 20
"""In smaller sets one person often is most of the videos; refusing those would refuse every first attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What the rules need to know about videos other than those they place."""

    n_videos: int
    owners: Owners
    settled: Settled
    published: frozenset[tuple[str, str]]
    """Data sets with the splits that they publish."""


def group_rows(videos: Sequence[SplitInput], params: SplitParams, scene: Scene) -> list[SplitRow]:
    """Place whole groups by `group`, `ranked` or `stratified`, after the policy for giant groups."""
    rule = "hash" if params.rule == "group" else params.rule
    groups = group_videos(videos, params.aliases)
    giant = giant_groups(groups, params.ratios, scene.n_videos)
    if not giant.any():
        return _placed_rows(videos, groups, params, rule, scene)
    if params.giant == "component":
        return _placed_rows(videos, groups, params, "stratified", scene)
    inside = giant[groups.of_video].tolist()
    if params.giant == "identity-hash":
        divided = [video for video, is_in in zip(videos, inside, strict=True) if is_in]
        whole = [video for video, is_in in zip(videos, inside, strict=True) if not is_in]
        kept = group_videos(whole, params.aliases)
        return [*identity_rows(divided, params, scene.owners), *_placed_rows(whole, kept, params, rule, scene)]
    if params.giant == "target-only":
        loose = [by_target(video) if is_in else video for video, is_in in zip(videos, inside, strict=True)]
        regrouped = group_videos(loose, params.aliases)
        if not giant_groups(regrouped, params.ratios, scene.n_videos).any():
            return _placed_rows(loose, regrouped, params, rule, scene)
        groups = regrouped
    raise RefusedError(_explain_giant(groups, params, scene.n_videos))


def giant_groups(groups: Groups, ratios: Ratios, n_videos: int) -> NDArray[np.bool_]:
    """Mark the groups that outweigh the largest split by a fifth or more; in tiny sets there are none."""
    if n_videos < GIANT_MIN_VIDEOS:
        return np.zeros(len(groups), dtype=np.bool_)
    return np.asarray(groups.sizes > GIANT_FACTOR * max(ratios) * n_videos)


def by_target(video: SplitInput) -> SplitInput:
    """Return the video without the keys of its donor; one that names no target keeps all keys."""
    return replace(video, keys=video.target_keys or video.keys)


def _explain_giant(groups: Groups, params: SplitParams, n_videos: int) -> str:
    largest = int(np.argmax(groups.sizes))
    size, anchor = int(groups.sizes[largest]), groups.anchors[largest]
    wanted = "/".join(f"{100 * ratio:g}" for ratio in params.ratios)
    hint = " even by target alone" if params.giant == "target-only" else ""
    return (
        f"{size} of {n_videos} videos ({size / n_videos:.0%}) share people or sources with one another{hint} "
        f"(group {anchor}), so no split near {wanted} keeps them apart: choose the giant policy 'component' "
        f"(whole group to one split), 'identity-hash' (divide the people, leave out videos that mix sides) or "
        f"'target-only' (accept that donors cross), or the rule 'official'"
    )


def _placed_rows(
    videos: Sequence[SplitInput], groups: Groups, params: SplitParams, rule: str, scene: Scene
) -> list[SplitRow]:
    placed = place_groups(lambda: map(kind_of, videos), groups, params, rule, scene.settled)
    return [
        make_row(video, params, groups.membership(i), split=SPLITS[placed.split[group]], rule=placed.rule)
        for i, (video, group) in enumerate(zip(videos, groups.of_video.tolist(), strict=True))
    ]


def random_rows(videos: Sequence[SplitInput], params: SplitParams, scene: Scene) -> list[SplitRow]:
    """Place every video by itself, and still name the group that this tears."""
    groups = group_videos(videos, params.aliases)
    alone = replace(
        groups,
        of_video=np.arange(len(videos)),
        anchors=tuple(video.own_key for video in videos),
        sizes=np.ones(len(videos), dtype=np.int64),
    )
    placed = place_groups(lambda: map(kind_of, videos), alone, params, "hash", scene.settled)
    return [
        replace(
            make_row(video, params, groups.membership(i), split=SPLITS[placed.split[i]], rule="random"),
            u=float(placed.u[i]),
        )
        for i, video in enumerate(videos)
    ]
