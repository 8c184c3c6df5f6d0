"""Queries that several checks share, and what the audited split claims of itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lps.manifests.arrays import Ints
from lps.manifests.audit.core.types import AuditContext
from lps.manifests.index import readable_rule
from lps.manifests.names import SPLITS
from lps.manifests.splits.inputs import Aliases
from lps.manifests.splits.key_edges import EDGE_COLUMNS
from lps.manifests.splits.leakage import split_codes
from lps.manifests.splits.records import aliases_digest, recorded_aliases

RECORDS = 256
"""Rows that are Python objects at a time, where they are read one by one."""

PLACED = """placed AS (
    SELECT v.* EXCLUDE (split), s.split, s.group_id
    FROM videos v JOIN splits s USING (video_id)
    WHERE s.split IN ('train', 'val', 'test') AND NOT s.excluded
)"""
"""The videos that the audited split set places; their `split` is that of the set, not the one of the shards."""

SURVIVORS = "survivors AS (SELECT * FROM placed WHERE n_clips > 0 AND label IS NOT NULL)"
"""Rows of `placed` that a trainer sees: labelled videos with clips."""

VIDEO_FRAMES = "CASE WHEN scan = 'window' THEN n_frames_container ELSE n_frames_decoded END"
"""Length of a video: where only the window of a clip was decoded, as many frames as its packets promise."""

DECLARED_RATE = "coalesce(pts_nominal AND container = 'image2', false)"
"""Tells which videos are sequences of images: their time stamps are counted at a rate that somebody declared."""

KEYS = """keys AS (
    SELECT coalesce(a.root, name) AS key, k.* FROM (
        SELECT 'target' AS role, unnest(target_keys) AS name, * FROM placed
        UNION ALL SELECT 'donor', unnest(donor_keys), * FROM placed
        UNION ALL SELECT 'source', unnest(source_keys), * FROM placed
        UNION ALL SELECT 'identity', unnest(identity_keys), * FROM placed
    ) k LEFT JOIN aliases a ON k.name = a.key
)"""
"""One row per video and published key; keys that the split's aliases declare equal have one name, `key`."""

EMPTY_FILE = "from_hex('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')"

LINKS = f"""links AS (
    SELECT role, key, split, list_contains(identity_keys, name) AS is_person,
        list_contains(donor_keys, name) AND NOT list_contains(target_keys, name) AS is_donor
    FROM keys
    UNION ALL SELECT role, coalesce(a.root, name), split, false, false FROM (
        SELECT 'original' AS role, 'video/' || lower(hex(original_video_id)) AS name, split
        FROM placed WHERE original_video_id IS NOT NULL
        UNION ALL SELECT 'original', 'video/' || lower(hex(video_id)), split
        FROM placed WHERE video_id IN (SELECT original_video_id FROM placed)
        UNION ALL SELECT 'duplicate', 'sha256/' || lower(hex(sha256)), split
        FROM placed WHERE sha256 IN (
            SELECT sha256 FROM placed WHERE sha256 <> {EMPTY_FILE} GROUP BY sha256 HAVING count(*) > 1)
    ) k LEFT JOIN aliases a ON k.name = a.key
)"""
"""Every tie between videos: published keys, a fake's original, equal files."""

IN_SPLITS = """concat_ws(', ', CASE WHEN bool_or(split = 'train') THEN 'train' END,
        CASE WHEN bool_or(split = 'val') THEN 'val' END, CASE WHEN bool_or(split = 'test') THEN 'test' END)"""
"""The splits of a group of rows, as text."""

DIGESTS = f"""digests AS (
    SELECT video_id, 'file' AS what, sha256 AS digest FROM videos WHERE sha256 <> {EMPTY_FILE}
    UNION ALL SELECT video_id, 'frames', frames_sha256 FROM clips
)"""
"""Content of files and of clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What `manifests/splits/<set>.json` says of the split set."""

    rule: str | None
    """None where the record is missing or not readable: then nothing is excused."""
    accepted: frozenset[str] = frozenset()
    """Kinds of leakage that its maker accepted, such as `donor`."""
    splits: tuple[str, ...] = ()
    """Splits with a share above zero."""
    aliases: Aliases = ()
    """Keys that its maker declared equal."""
    knows_aliases: bool = True
    """False where the record has the digest of aliases, but not these."""

    @property
    def keeps_people_apart(self) -> bool:
        """True where the rule promises that no group, and so no published identity, crosses."""
        return self.rule not in ("official", "random") and "donor" not in self.accepted


def read_claim(ctx: AuditContext) -> Claim:
    """Read the rule record of the audited split set."""
    record = readable_rule(ctx.store, ctx.split_set)
    ratios, accepted = record.get("ratios"), record.get("accepted_leakage")
    shares = ratios if isinstance(ratios, list) and len(ratios) == len(SPLITS) else [0] * len(SPLITS)
    return Claim(
        rule=str(record["rule"]) if "rule" in record else None,
        accepted=frozenset(map(str, accepted)) if isinstance(accepted, list) else frozenset(),
        splits=tuple(split for split, share in zip(SPLITS, shares, strict=True) if share),
        aliases=recorded_aliases(record),
        knows_aliases=record.get("aliases_sha256") == aliases_digest(recorded_aliases(record)),
    )


def count(ctx: AuditContext, select: str) -> tuple[int, ...]:
    """Return the one row of a query over `placed` and `keys`, null as 0."""
    row = ctx.db.execute(f"WITH {PLACED}, {KEYS} {select}").fetchone() or ()
    return tuple(int(value or 0) for value in row)


def records(ctx: AuditContext, sql: str) -> list[dict[str, Any]]:
    """Return the rows of a query by column name."""
    return list(each_record(ctx, sql))


def each_record(ctx: AuditContext, sql: str) -> Iterator[dict[str, Any]]:
    """Yield what `records` returns, of which some rows are Python objects at a time."""
    cursor = ctx.db.execute(sql)
    names = [column[0] for column in cursor.description or ()]
    while rows := cursor.fetchmany(RECORDS):
        yield from (dict(zip(names, row, strict=True)) for row in rows)


def arrays(ctx: AuditContext, sql: str) -> dict[str, NDArray[Any]]:
    """Return the columns of a query; numbers with nulls come as floats with NaN."""
    columns: dict[str, NDArray[Any]] = {}
    for name, values in ctx.db.execute(sql).fetchnumpy().items():
        if np.ma.is_masked(values):
            values = np.ma.asarray(values, np.float64).filled(np.nan)
        columns[name] = np.asarray(values)
    return columns


def placed_table(ctx: AuditContext) -> tuple[pa.Table, Ints]:
    """Return what ties the placed videos, and the number of the split of each, for the measures of `leakage`."""
    columns = ", ".join(("label", *EDGE_COLUMNS, "split"))
    table = ctx.db.sql(f"WITH {PLACED} SELECT {columns} FROM placed ORDER BY video_id").to_arrow_table()
    return table.drop_columns("split"), split_codes(table)


def percent(part: int, whole: int) -> str:
    """Write a share for people."""
    return f"{100 * part / whole:.2f} %" if whole else "none"
