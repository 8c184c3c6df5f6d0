"""What an audit is made of: a check's description, what it may look at, and what it answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from lps.manifests.names import Level
from lps.manifests.storage import Store

if TYPE_CHECKING:
    import duckdb


class State(StrEnum):
    """Answer of a check. Only PASS means that the rule was checked and holds."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"
    """Not asked for at this level, or does not apply; the note says why."""
    UNKNOWN = "unknown"
    """Cannot be known from what the data set publishes, or its store gives. A result, not an omission."""
    ERROR = "error"
    """The check itself could not run: the audit is incomplete."""
    WAIVED = "waived"


class Severity(StrEnum):
    """What a FAIL of the check means for the exit code."""

    CRITICAL = "critical"
    ERROR = "error"
    WARN = "warn"
    INFO = "info"


CHECK_CLASSES = {
    "A": "Integrity",
    "T": "Tamper evidence",
    "L": "Leakage between splits",
    "B": "Bias and shortcuts",
    "C": "Correct clips",
    "R": "Reproducibility",
}
"""First letter of the ids of checks, and what these are about, in the order of the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSpec:
    """A check's description; `--explain ID` prints it."""

    id: str
    title: str
    rule: str
    """The exact rule, thresholds by their names in the policy."""
    remedy: str
    """What to do when it fails."""
    severity: Severity
    level: Level = Level.QUICK
    sql: str = ""
    """DuckDB query over the views `videos`, `clips`, `shards`, `splits` listing offenders; empty where SQL cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offender:
    """One thing that breaks a rule."""

    kind: str
    """`video`, `clip`, `shard`, `file`, `group`, `split` or `column`."""
    key: str
    """Its id or path, as the manifests spell it (ids in hex)."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What one check found."""

    id: str
    state: State
    severity: Severity
    measured: str = ""
    limit: str = ""
    n_checked: int = 0
    offenders: tuple[Offender, ...] = ()
    """All of them; reports show the first few."""
    note: str = ""
    unread: bool = False
    """The store did not give everything that the check needs: the audit is incomplete."""
    data: dict[str, Any] = field(default_factory=dict)
    """Plain JSON values for charts: distributions, matrices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditContext:
    """What a check may look at."""

    store: Store
    index: dict[str, Any]
    """index.json."""
    plan: dict[str, Any]
    """plan/plan.json; empty where there is none."""
    db: "duckdb.DuckDBPyConnection"
    """Views `videos`, `clips`, `shards`, `splits` (of the audited split set) and `plan_videos` over the Parquet files;
    texts are VARCHAR, ids and digests BLOB."""
    split_set: str
    limits: dict[str, float]
    """The policy's limits by name, defaults filled in."""
    index_sha256: str = ""
    plan_sha256: str = ""
    source: Store | None = None
    """Root of the source videos, where the auditor has them."""
    reads_runs: bool = True
    """False for an answer that a published copy gives, too: it need not have runs/."""


Check = Callable[[AuditContext], CheckResult]


@dataclass(frozen=True, slots=True)
class CheckEntry:
    """A description with the function that checks it; each module of checks ends with a tuple `CHECKS` of these."""

    spec: CheckSpec
    run: Check


def pass_or_fail(
    spec: CheckSpec,
    offenders: Sequence[Offender],
    n: int,
    what: str,
    *,
    measured: str = "",
    note: str = "",
    limit: str = "0",
) -> CheckResult:
    """Return the result of a check that no offender may break; SKIP where there is nothing that could break it.

    `what` names the `n` things looked at; `measured` says it in other words than "3 wrong of 10 videos".
    """
    if not n and not offenders:
        return not_evaluated(spec, State.SKIP, "; ".join(filter(None, (note, f"there are no {what} to check"))))
    return CheckResult(
        id=spec.id,
        state=State.FAIL if offenders else State.PASS,
        severity=spec.severity,
        measured=measured or f"{len(offenders)} wrong of {n} {what}",
        limit=limit,
        n_checked=n,
        offenders=tuple(offenders),
        note=note,
    )


def with_unread(result: CheckResult, reasons: Sequence[str], what: str = "files") -> CheckResult:
    """Return a result in view of what the store did not give: without a finding, the answer is not known."""
    if not reasons:
        return result
    state = result.state if result.offenders else State.UNKNOWN
    note = f"{len(reasons)} {what} cannot be read; {reasons[0]}"
    return replace(result, state=state, note="; ".join(filter(None, (result.note, note))), unread=True)


def wrong_file(path: str, detail: str) -> Offender:
    """Return an offender that is a file of the data set."""
    return Offender(kind="file", key=path, detail=detail)


def not_evaluated(spec: CheckSpec, state: State, note: str) -> CheckResult:
    """Return the result of a check that has no answer: SKIP or UNKNOWN, and why."""
    return CheckResult(id=spec.id, state=state, severity=spec.severity, note=note)
