"""Check L9: no training run that the policy names has seen a video that is held out here.

A run of `lps-train` keeps the videos that it and all that it started from have seen, so that it does not matter what
became of the data set that they were read from.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from lps.manifests.audit.core.database import fetch_rows
from lps.manifests.audit.core.policy import RESULT_JSON
from lps.manifests.audit.core.queries import EMPTY_FILE, PLACED, count
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
from lps.manifests.canonical import parse_json, sha256_hex
from lps.manifests.errors import UnreadableError
from lps.manifests.names import Role
from lps.manifests.splits.learnt import LEARNT_PARQUET, Learnt, read_learnt

L9 = CheckSpec(
    id="L9",
    title="Held-out videos stay unused",
    rule="No val or test video with clips was learnt from, with labels or without, by a training run or by anything "
    "that it started from (encoder, pretraining, another detector); WARN where test videos were only validated on. The "
    "runs are those that the policy names under [training]; their learnt.parquet, l9_learnt in the SQL, says what they "
    "have seen. Videos are the same if their files have equal sha256, or equal ids where one side has no sha256. "
    "UNKNOWN where a run, or one that it started from, does not say what it learnt from (older versions did not), or "
    "knows videos by id only (shards without manifests); SKIP where the policy names no run.",
    remedy="Evaluate on videos that no run of the chain has seen, or train the whole chain again with this split set.",
    severity=Severity.ERROR,
    sql=f"""WITH {PLACED},
held AS (FROM placed WHERE split <> 'train' AND n_clips > 0),
same AS (
    SELECT h.video_id, l.role FROM held h JOIN l9_learnt l ON h.sha256 = l.sha256 AND h.sha256 <> {EMPTY_FILE}
    UNION SELECT h.video_id, l.role FROM held h JOIN l9_learnt l USING (video_id)
    WHERE h.sha256 IS NULL OR l.sha256 IS NULL)
SELECT 'video' AS kind, lower(hex(video_id)) AS key, any_value(uri) || ' is in ' || any_value(split) AS detail,
    list(DISTINCT role) AS roles
FROM held JOIN same USING (video_id) WHERE split = 'test' OR role <> '{Role.VALIDATION}'
GROUP BY video_id ORDER BY any_value(uri)""",
)

SAID = {
    Role.LABELS: "learnt from it",
    Role.FRAMES: "was pretrained on it, without its label",
    Role.VALIDATION: "was chosen by its metrics on it",
}


def read_run(folder: Path) -> Learnt | None:
    """Return what a finished run has seen, None where it does not say. Raises UnreadableError, IntegrityError."""
    name = folder.resolve().name
    try:
        result = parse_json((folder / RESULT_JSON).read_bytes())
        if "learnt" not in {**result}:
            return None
        data, digest = (folder / LEARNT_PARQUET).read_bytes(), result["learnt"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UnreadableError(f"{name}/{RESULT_JSON} is not the result of a training run: {e}") from e
    if sha256_hex(data) != digest:
        raise UnreadableError(f"{name}/{LEARNT_PARQUET} is not the one that its {RESULT_JSON} names; restore it")
    return read_learnt(data, f"{name}/{LEARNT_PARQUET}")


def check_reuse(ctx: AuditContext, *, runs: Sequence[Path] = ()) -> CheckResult:
    """L9: what the named runs have seen, beside what is held out."""
    if not runs:
        return not_evaluated(L9, State.SKIP, "the policy names no training run ([training] runs)")
    offenders: list[Offender] = []
    unknown: list[str] = []
    states = {State.PASS}
    for folder in runs:
        name, learnt = folder.resolve().name, read_run(folder)
        if learnt is None:
            unknown.append(f"run {name} does not say what it learnt from (an older version trained it)")
            continue
        unknown += [f"run {name}: {gap}" for gap in _gaps(learnt)]
        for kind, key, detail, roles in _seen(ctx, learnt):
            said = ", ".join(SAID[role] for role in Role if role in roles)
            offenders.append(Offender(kind=kind, key=key, detail=f"{detail}; run {name} {said}"))
            states.add(State.WARN if roles == [Role.VALIDATION] else State.FAIL)
    if unknown:
        states.add(State.UNKNOWN)
    (n_held,) = count(ctx, "SELECT count(*) FROM placed WHERE split <> 'train' AND n_clips > 0")
    return CheckResult(
        id=L9.id,
        state=next(s for s in (State.FAIL, State.WARN, State.UNKNOWN, State.PASS) if s in states),
        severity=L9.severity,
        measured=f"{len(offenders)} held-out videos seen, by {len(runs)} runs and what they started from",
        limit="0",
        n_checked=n_held,
        offenders=tuple(offenders),
        note="; ".join(unknown),
    )


def _gaps(learnt: Learnt) -> list[str]:
    n = pc.sum(learnt.table["sha256"].is_null()).as_py()
    return [*learnt.gaps, *(["it read shards without manifests, which name videos by id only"] if n else [])]


def _seen(ctx: AuditContext, learnt: Learnt) -> list[tuple[Any, ...]]:
    """Return kind, key, detail and roles of every held-out video that was seen."""
    ctx.db.register("l9_learnt", learnt.table)
    try:
        return fetch_rows(ctx, L9.sql)
    finally:
        ctx.db.unregister("l9_learnt")


def reuse_check(runs: Sequence[Path]) -> CheckEntry:
    """Return L9 for the runs that a policy names."""
    return CheckEntry(L9, partial(check_reuse, runs=tuple(runs)))
