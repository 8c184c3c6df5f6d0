"""What a split is asked for and what it answers: parameters, one row per video, and the hash position."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lps.manifests.canonical import canonical_json, sha256_hex, unit_interval
from lps.manifests.errors import RefusedError
from lps.manifests.names import GIANT_POLICIES, RULES, SPLITS
from lps.manifests.schemas import SPLITS as SCHEMA
from lps.manifests.splits.groups import Membership, group_id
from lps.manifests.splits.inputs import Aliases, SplitInput

BRIDGE = "bridge"
NOT_SELECTED = "not_selected"

Ratios = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitParams:
    """Everything besides the videos that decides a split.

    * `group`: the hash of each group's anchor decides. Needs no state; the shares are only right on average.
      Sets of fewer than 50 groups, and sets where the hash leaves a split empty, are placed by `stratified` instead.
    * `ranked`: the same order, cut at the wanted shares inside every stratum.
    * `stratified`: largest group first, wherever labels and methods are most wanting.
    * `identity-hash`: every identity has its own position; videos whose identities disagree are excluded.
    * `official`: as published; a data set that publishes no val gets one, carved by group from its train.
    * `official-clean`: `official`, without the val and test videos of groups that cross splits.
    * `random`: every video by itself. It leaks, and is refused without `allow_leaky`.
    """

    rule: str = "group"
    ratios: Ratios = (0.6, 0.2, 0.2)
    """Wanted shares of train, val and test."""
    seed: int = 0
    giant: str = "fail"
    """What to do when one group outweighs every split: `fail`, keep the `component` whole, or divide its videos by
    `identity-hash` or by `target-only`, which accepts that donors cross splits."""
    aliases: Aliases = ()
    """Pairs of keys that mean the same person or recording."""
    lists: tuple[tuple[str, str], ...] = ()
    """Name and sha256 of each split list that was given, for the rules that follow lists: no other video is taken."""
    allow_leaky: bool = False
    tries: int = 1
    """Only for identity-hash: how many divisions of the identities to try; the one that excludes least is kept.
    With more than one, identities are divided by rank, so that the shares of the divisions are alike."""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise RefusedError(f"unknown split rule {self.rule!r}; choose one of {', '.join(RULES)}")
        if self.giant not in GIANT_POLICIES:
            raise RefusedError(f"unknown giant policy {self.giant!r}; choose one of {', '.join(GIANT_POLICIES)}")
        if len(self.ratios) != len(SPLITS) or min(self.ratios) < 0 or abs(sum(self.ratios) - 1) > 1e-9:
            raise RefusedError(f"split ratios must be three shares of train, val, test that sum to 1: {self.ratios}")
        if not 0 <= self.seed < 2**64:
            raise RefusedError(f"a split seed is a whole number from 0 to 2**64 - 1, got {self.seed}")
        if self.lists and not self.rule.startswith("official"):
            raise RefusedError(f"rule {self.rule} follows no split list: use rule official or official-clean with one")
        if self.tries < 1:
            raise RefusedError(f"identity-hash needs at least one try, got {self.tries}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRow:
    """One video in one split set; columns of the manifest `splits`."""

    video_id: bytes
    split: str | None
    """`train`, `val` or `test`; None for excluded videos."""
    excluded: bool
    exclude_reason: str | None
    """`bridge`: it ties two splits together. `not_selected`: the published list does not have it."""
    group_id: bytes
    group_anchor: str
    group_size: int
    """Videos in the group when this row was made. A bridge is in no group and stands alone."""
    group_keys: tuple[str, ...]
    """The keys that tie this video into its group, sorted."""
    u: float
    """Hash position in [0, 1) of what was placed: the group, or the video itself under `random`."""
    rule: str
    """How this row was decided: `official`, `hash`, `ranked`, `stratified`, `identity-hash`, `random`, or `pinned`
    for a video that follows rows of the base."""
    seed: int
    pinned: bool = False
    """Copied from the base, where it was decided."""
    origin_run: str = ""
    """Name of the split set or run that decided the row."""


def sorted_aliases(aliases: Aliases) -> list[list[str]]:
    """Spell aliases so that neither the order of the pairs nor that inside a pair counts."""
    return sorted(sorted(pair) for pair in aliases)


def aliases_digest(aliases: Aliases) -> str | None:
    """Return the digest of aliases; None where there are none."""
    return sha256_hex(canonical_json(sorted_aliases(aliases))) if aliases else None


def recorded_aliases(record: Mapping[str, Any]) -> Aliases:
    """Return the aliases that a rule record states; none where what it states is no list of pairs of keys."""
    pairs = record.get("aliases")
    if not isinstance(pairs, list):
        return ()
    good = (isinstance(p, list) and len(p) == 2 and all(isinstance(key, str) for key in p) for p in pairs)
    return tuple((a, b) for a, b in pairs) if all(good) else ()


def position(seed: int | str, anchor: str) -> float:
    """Return where a group lies in [0, 1): sha256 of `lps-split/v1`, seed and anchor, joined by NUL."""
    return unit_interval("lps-split/v1", str(seed), anchor)


def make_row(
    video: SplitInput,
    params: SplitParams,
    group: Membership,
    *,
    split: str | None,
    rule: str,
    reason: str | None = None,
) -> SplitRow:
    """Build the row of a video that is placed together with its group."""
    return SplitRow(
        video_id=video.video_id,
        split=split,
        excluded=split is None,
        exclude_reason=reason,
        group_id=group_id(group.anchor),
        group_anchor=group.anchor,
        group_size=group.size,
        group_keys=tuple(group.keys),
        u=position(params.seed, group.anchor),
        rule=rule,
        seed=params.seed,
    )


def bridge_row(video: SplitInput, params: SplitParams, *, rule: str, keys: Sequence[str]) -> SplitRow:
    """Build the row of a video that would tie two splits together: it is left out, so that nobody has to move."""
    alone = Membership(anchor=video.own_key, size=1, keys=keys)
    return make_row(video, params, alone, split=None, rule=rule, reason=BRIDGE)


def rows_table(rows: Sequence[SplitRow]) -> pa.Table:
    """Return the rows of a split as the manifest `splits`."""
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in SCHEMA]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def rows_from_table(splits: pa.Table) -> list[SplitRow]:
    """Return the rows of a manifest `splits`."""
    return [SplitRow(**{**row, "group_keys": tuple(row["group_keys"])}) for row in splits.to_pylist()]
