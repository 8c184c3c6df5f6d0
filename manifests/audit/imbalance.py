"""How even a split set is: sizes, classes and facets of each split, and how many groups really stand behind them.

Groups are those that the split set states; whether they are right is for the checks L1 and R2.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from lps.manifests.audit.core.queries import PLACED, records
from lps.manifests.audit.core.stats import cramers_v
from lps.manifests.audit.core.types import AuditContext
from lps.manifests.index import readable_rule
from lps.manifests.names import SPLITS

UNKNOWN = "?"
HEIGHT_EDGES = (360, 540, 720, 1080)
_HEIGHT = " ".join(f"WHEN height >= {edge} THEN '>={edge}'" for edge in reversed(HEIGHT_EDGES))
FACETS = {
    "label": "label::VARCHAR",
    "method": "method",
    "dataset": "dataset",
    "compression": "compression",
    "part": "source_part",
    "height": f"CASE {_HEIGHT} WHEN height < {HEIGHT_EDGES[0]} THEN '<{HEIGHT_EDGES[0]}' END",
    "pair": "(SELECT max(c.pair_mode) FROM clips c WHERE c.video_id = placed.video_id)",
}
"""Name of each facet, and what it is of a video. `pair`: its pair mode, shared if any of its clips is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitBalance:
    """One split as a whole."""

    split: str
    n_videos: int
    n_clips: int
    n_real: int
    n_fake: int
    n_groups: int
    effective_groups: float
    """1 / sum of squared group shares: fakes of few originals are worth few videos."""
    share: float
    """Share of all included videos."""
    target: float | None
    """None where the rule record does not say."""
    error95: float | None
    """Half width of the interval around `target` in which 95 of 100 hash splits of so many groups fall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FacetCell:
    """One value of a facet in one split."""

    value: str
    split: str
    n_videos: int
    n_clips: int
    n_groups: int
    share: float
    """Share of the videos with this value that this split has; compare with the split's target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FacetBalance:
    """One facet over all splits."""

    facet: str
    cells: tuple[FacetCell, ...]
    """For every value and split that has videos."""
    chi2_p: float
    """p of independence of value and split, over videos; 1 where there is only one of either. Videos of one group are
    not independent, so with large groups a small p is weak evidence: read it with `cramers_v`."""
    cramers_v: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Imbalance:
    """The whole report."""

    splits: tuple[SplitBalance, ...]
    facets: tuple[FacetBalance, ...]


def measure_imbalance(ctx: AuditContext) -> Imbalance:
    """Report sizes and facets of every split of the audited split set. Excluded videos count nowhere."""
    ratios = readable_rule(ctx.store, ctx.split_set).get("ratios")
    wanted = ratios if isinstance(ratios, list) and len(ratios) == len(SPLITS) else [None] * len(SPLITS)
    targets = dict(zip(SPLITS, wanted, strict=True))
    found = {row["split"]: row for row in records(ctx, _SIZES)}
    whole = found.pop(None, {"n_videos": 0, "effective": 0.0})
    return Imbalance(
        splits=tuple(_split_balance(split, found.get(split, {}), whole, targets[split]) for split in SPLITS),
        facets=tuple(_facet_balance(ctx, name, value) for name, value in FACETS.items()),
    )


_SIZES = f"""WITH {PLACED},
groups AS (
    SELECT split, group_id, count(*) AS n, sum(n_clips) AS clips, count(*) FILTER (label = 0) AS n_real,
        count(*) FILTER (label = 1) AS n_fake
    FROM placed GROUP BY split, group_id)
SELECT split, sum(n)::BIGINT AS n_videos, sum(clips)::BIGINT AS n_clips, sum(n_real)::BIGINT AS n_real,
    sum(n_fake)::BIGINT AS n_fake, count(*) AS n_groups, sum(n) ** 2 / sum(n ** 2) AS effective
FROM groups GROUP BY GROUPING SETS ((split), ())"""


def _split_balance(split: str, row: dict[str, Any], whole: dict[str, Any], target: float | None) -> SplitBalance:
    effective = float(whole["effective"] or 0)
    return SplitBalance(
        split=split,
        n_videos=row.get("n_videos", 0),
        n_clips=row.get("n_clips", 0),
        n_real=row.get("n_real", 0),
        n_fake=row.get("n_fake", 0),
        n_groups=row.get("n_groups", 0),
        effective_groups=float(row.get("effective", 0)),
        share=row.get("n_videos", 0) / whole["n_videos"] if whole["n_videos"] else 0.0,
        target=target,
        error95=1.96 * sqrt(target * (1 - target) / effective) if effective and target is not None else None,
    )


def _facet_balance(ctx: AuditContext, facet: str, value: str) -> FacetBalance:
    rows = records(
        ctx,
        f"""WITH {PLACED} SELECT coalesce({value}, '{UNKNOWN}') AS value, split, count(*) AS n_videos,
        sum(n_clips)::BIGINT AS n_clips, count(DISTINCT group_id) AS n_groups FROM placed GROUP BY ALL""",
    )
    rows.sort(key=lambda row: (row["value"], SPLITS.index(row["split"])))
    values = list(dict.fromkeys(row["value"] for row in rows))
    table = np.zeros((len(values), len(SPLITS)), dtype=np.int64)
    for row in rows:
        table[values.index(row["value"]), SPLITS.index(row["split"])] = row["n_videos"]
    totals = dict(zip(values, table.sum(axis=1).tolist(), strict=True))
    effect = cramers_v(table)
    return FacetBalance(
        facet=facet,
        cells=tuple(FacetCell(**row, share=row["n_videos"] / totals[row["value"]]) for row in rows),
        chi2_p=effect.p,
        cramers_v=effect.size,
    )
