"""Check L9: no training run that the policy names learnt from a video that is held out here.

A finished run of `lps-train` says in its result.json which data set it read (the digest of index.json), and which split
of which split set. Adding a split set changes the index; the seals of the data set then prove which index of before was
its own, and which split set it named. What cannot be proven so is UNKNOWN.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lps.manifests.audit.core.database import local_manifest, sql_offenders
from lps.manifests.audit.core.policy import RESULT_JSON
from lps.manifests.audit.core.queries import PLACED, count
from lps.manifests.audit.core.seal import read_seals
from lps.manifests.audit.core.types import (
    AuditContext,
    CheckEntry,
    CheckResult,
    CheckSpec,
    Offender,
    Severity,
    State,
    not_evaluated,
)
from lps.manifests.columns import split_path
from lps.manifests.errors import IntegrityError, UnreadableError
from lps.manifests.index import INDEX_JSON

L9 = CheckSpec(
    id="L9",
    title="Held-out videos stay unused",
    rule="No val or test video with clips is in the split that a training run learnt from. The runs are those that the "
    "policy names under [training]; what they read is in their result.json. UNKNOWN where a run read another data set, "
    "a version of this one that no seal proves, a split set that changed since, or shards without manifests; SKIP "
    "where the policy names no run.",
    remedy="Evaluate on the split set that the run learnt with, or train again with this one.",
    severity=Severity.ERROR,
    sql=f"""WITH {PLACED}
SELECT 'video' AS kind, lower(hex(video_id)) AS key, uri || ' is in ' || placed.split AS detail
FROM placed JOIN read_parquet(getvariable('l9_splits')) learnt USING (video_id)
WHERE placed.split <> 'train' AND placed.n_clips > 0 AND learnt.split = getvariable('l9_split') ORDER BY uri""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What one training run read."""

    name: str
    """Name of its folder."""
    index_sha256: str
    """Hex; empty for a run over plain shards."""
    split_set: str
    split: str


def read_learnt(folder: Path) -> Learnt:
    """Read what a finished run learnt from. Raises UnreadableError."""
    path = folder / RESULT_JSON
    try:
        data = json.loads(path.read_bytes())["data"]
        values = [str(data[name] or "") for name in ("index_sha256", "split_set", "split")]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UnreadableError(f"{folder.name}/{RESULT_JSON} is not the result of a training run: {e}") from e
    return Learnt(name=folder.resolve().name, index_sha256=values[0], split_set=values[1], split=values[2])


def check_reuse(ctx: AuditContext, *, runs: Sequence[Path] = ()) -> CheckResult:
    """L9: what the named runs learnt from, beside what is held out."""
    if not runs:
        return not_evaluated(L9, State.SKIP, "the policy names no training run ([training] runs)")
    versions = list(_versions(ctx))
    offenders: list[Offender] = []
    unknown: list[str] = []
    for learnt in map(read_learnt, runs):
        why = _unproven(ctx, learnt, versions)
        if why:
            unknown.append(f"run {learnt.name} {why}")
        else:
            offenders += _learnt_from(ctx, learnt)
    (n_held,) = count(ctx, "SELECT count(*) FROM placed WHERE split <> 'train' AND n_clips > 0")
    return CheckResult(
        id=L9.id,
        state=State.FAIL if offenders else State.UNKNOWN if unknown else State.PASS,
        severity=L9.severity,
        measured=f"{len(offenders)} held-out videos learnt from, by {len(runs)} runs",
        limit="0",
        n_checked=n_held,
        offenders=tuple(offenders),
        note="; ".join(unknown),
    )


def _versions(ctx: AuditContext) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the digest of each index that this data set has or provably had, with the digests of its manifests."""
    yield ctx.index_sha256, {p: entry["sha256"] for p, entry in ctx.index["manifests"].items()}
    try:
        seals = read_seals(ctx.store)
    except (IntegrityError, UnreadableError):
        return  # T2 says so; nothing of the past is proven then
    for seal in seals:
        digests = {file.path: file.sha256 for file in seal.files}
        yield digests.get(INDEX_JSON, ""), digests


def _unproven(ctx: AuditContext, learnt: Learnt, versions: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    """Say why it is not known what a run learnt from; empty where it is."""
    if not learnt.index_sha256:
        return "read shards without manifests"
    known = [digests for index, digests in versions if index == learnt.index_sha256]
    if not known:
        return "read another data set, or a version of this one that no seal proves"
    path = split_path(learnt.split_set)
    then, now = known[0].get(path), ctx.index["manifests"].get(path, {}).get("sha256")
    return (
        "" if then == now and local_manifest(ctx, path) else f"learnt with split set {learnt.split_set}, changed since"
    )


def _learnt_from(ctx: AuditContext, learnt: Learnt) -> Iterator[Offender]:
    ctx.db.execute("SET VARIABLE l9_splits = ?", [str(local_manifest(ctx, split_path(learnt.split_set)))])
    ctx.db.execute("SET VARIABLE l9_split = ?", [learnt.split])
    for found in sql_offenders(ctx, L9.sql):
        yield Offender(kind=found.kind, key=found.key, detail=f"{found.detail}; run {learnt.name} learnt from it")


def reuse_check(runs: Sequence[Path]) -> CheckEntry:
    """Return L9 for the runs that a policy names."""
    return CheckEntry(L9, partial(check_reuse, runs=tuple(runs)))
