"""Appending to a split: rows that exist stay as they are, and new videos follow the rows whose keys they share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lps.manifests.splits.groups import Membership, alias_roots, group_videos
from lps.manifests.splits.inputs import Aliases, SplitInput, video_key
from lps.manifests.splits.records import SplitParams, SplitRow, bridge_row, make_row

Claims = frozenset[tuple[str, str]]
"""Pairs of split and group anchor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owners:
    """Which split and group of the base holds each key. Excluded rows hold nothing."""

    claims: dict[str, Claims]
    roots: dict[str, str]
    """The smallest key that aliases declare equal, for keys that have one."""

    @classmethod
    def of(cls, rows: Iterable[SplitRow], videos: Sequence[SplitInput], aliases: Aliases) -> "Owners":
        """Collect the keys of the rows themselves, so that videos since removed still count, and of their videos."""
        roots = alias_roots(aliases)
        current = {video.video_id: video for video in videos}
        claims: dict[str, Claims] = {}
        for row in rows:
            if row.split is None:
                continue
            claim = frozenset([(row.split, row.group_anchor)])
            video = current.get(row.video_id)
            known = all_keys(video) if video is not None else {video_key(row.video_id)}
            for key in known.union(row.group_keys):
                root = roots.get(key, key)
                held = claims.get(root)
                claims[root] = claim if held is None or held == claim else held | claim
        return cls(claims=claims, roots=roots)

    def touched_by(self, keys: Iterable[str]) -> Claims:
        """Return every split and group that holds one of these keys."""
        found = (self.claims.get(self.roots.get(key, key), frozenset()) for key in keys)
        return frozenset().union(*found)

    def splits_of(self, keys: Iterable[str]) -> set[str]:
        """Return every split that holds one of these keys."""
        return {split for split, _ in self.touched_by(keys)}

    def within(self, splits: Sequence[str]) -> "Owners":
        """Forget what other splits hold."""
        claims = {key: frozenset(c for c in held if c[0] in splits) for key, held in self.claims.items()}
        return Owners(claims={key: held for key, held in claims.items() if held}, roots=self.roots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What became of new videos beside a base."""

    rows: list[SplitRow]
    """Rows of those that join a group of the base, and of bridges."""
    free: list[SplitInput]
    """Those that touch nothing of the base."""


def all_keys(video: SplitInput) -> set[str]:
    """Return every key that could tie this video to another, whether or not it does."""
    keys = {*video.keys, video.own_key}
    if video.original_video_id is not None:
        keys.add(video_key(video.original_video_id))
    if video.content_key is not None:
        keys.add(video.content_key)
    return keys


def pinned_rows(videos: Sequence[SplitInput], base: Sequence[SplitRow]) -> list[SplitRow]:
    """Copy the rows of the base for the videos that still exist."""
    rows = {row.video_id: row for row in base}
    return [replace(rows[video.video_id], pinned=True) for video in videos if video.video_id in rows]


def attach(new: Sequence[SplitInput], owners: Owners, params: SplitParams) -> Attached:
    """Let each group of new videos join the one split that it touches.

    A video whose own keys lie in two splits is a bridge and is left out first, so that it does not drag its whole
    group along; then a group whose members together touch two splits is left out as a whole.
    """
    if not owners.claims:
        return Attached(rows=[], free=list(new))
    rows: list[SplitRow] = []
    rest: list[SplitInput] = []
    for video in new:
        if len(owners.splits_of(all_keys(video))) > 1:
            rows.append(bridge_row(video, params, rule="pinned", keys=sorted(all_keys(video))))
        else:
            rest.append(video)
    groups = group_videos(rest, params.aliases)
    touched: list[Claims] = [frozenset()] * len(groups)
    for video, group in zip(rest, groups.of_video.tolist(), strict=True):
        touched[group] |= owners.touched_by(all_keys(video))
    free: list[SplitInput] = []
    for video, group, keys in zip(rest, groups.of_video.tolist(), groups.keys, strict=True):
        claims = touched[group]
        if not claims:
            free.append(video)
        elif len({split for split, _ in claims}) > 1:
            rows.append(bridge_row(video, params, rule="pinned", keys=keys))
        else:
            split, anchor = min(claims)
            joined = Membership(anchor=anchor, size=int(groups.sizes[group]), keys=keys)
            rows.append(make_row(video, params, joined, split=split, rule="pinned"))
    return Attached(rows=rows, free=free)


def with_base_sizes(rows: Sequence[SplitRow], base: Sequence[SplitRow]) -> list[SplitRow]:
    """Count, for rows that joined a group of the base, all of its videos: old and new."""
    sizes: dict[str, int] = {}
    for row in (*base, *rows):
        if row.split is not None:
            sizes[row.group_anchor] = sizes.get(row.group_anchor, 0) + 1
    return [replace(row, group_size=sizes[row.group_anchor]) if _joined(row) else row for row in rows]


def _joined(row: SplitRow) -> bool:
    return row.rule == "pinned" and row.split is not None
