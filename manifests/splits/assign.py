"""Split rules: which video goes to train, val or test. Pure functions of the videos, the parameters and a base.

A split is a table beside the clips, not a place: many split sets can describe the same shards.
"""

from collections.abc import Sequence

from lps.manifests.errors import RefusedError
from lps.manifests.splits.by_group import Scene, group_rows, random_rows
from lps.manifests.splits.by_identity import identity_rows
from lps.manifests.splits.inputs import SplitInput
from lps.manifests.splits.official import official_rows, published_splits, without_crossing
from lps.manifests.splits.pins import Owners, attach, pinned_rows, with_base_sizes
from lps.manifests.splits.placement import Settled, kind_of
from lps.manifests.splits.records import SplitParams, SplitRow


def assign_splits(
    inputs: Sequence[SplitInput], params: SplitParams, base: Sequence[SplitRow] | None = None
) -> list[SplitRow]:
    """Give every video one row, sorted by video id; the order and repetition of `inputs` change nothing.

    With `base`, its rows are copied unchanged but for `pinned`, and only new videos are decided: they join the group
    they touch, are left out where they touch two splits, and are placed by the rule where they touch none.
    """
    refuse_leak(params)
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
    return sorted([*pinned_rows(videos, base), *rows], key=lambda row: row.video_id)


def refuse_leak(params: SplitParams) -> None:
    """Raise RefusedError for the rule that leaks, unless that is allowed."""
    if params.rule == "random" and not params.allow_leaky:
        raise RefusedError("rule random puts one person on both sides of a split; allow that leak explicitly to use it")


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
