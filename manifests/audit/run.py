"""Run an audit: choose the checks, run each behind one boundary, apply the policy, and say what came of it.

Exit codes: 0 pass; 1 a check of severity error failed; 2 warnings only, with --strict; 3 wrong usage or a bad policy;
4 the data set cannot be read; 5 a check of severity critical failed, which outranks all others; 6 a check could not
run, or not read what it needs, or none did. SKIP and UNKNOWN never count as PASS.
"""

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lps.manifests.audit.checks import bias, clips, integrity, leakage, pairs, reproducibility, tamper
from lps.manifests.audit.checks.look_alikes import look_alike_check, read_embeddings
from lps.manifests.audit.checks.reuse import reuse_check
from lps.manifests.audit.core.database import fetch_number
from lps.manifests.audit.core.policy import Policy
from lps.manifests.audit.core.seal import check_signature, read_seals, seal_state
from lps.manifests.audit.core.types import (
    CHECK_CLASSES,
    AuditContext,
    CheckEntry,
    CheckResult,
    CheckSpec,
    Severity,
    State,
    not_evaluated,
    with_unread,
)
from lps.manifests.canonical import canonical_json, sha256_hex
from lps.manifests.errors import IntegrityError, UnreadableError
from lps.manifests.names import LEVELS, Level
from lps.manifests.rows import scrubbed

SCHEMA = "lps.audit"
SCHEMA_VERSION = "1.0"
SAMPLE = 20
"""Offenders that the JSON report shows of each check; the findings file has all."""

OnResult = Callable[[CheckResult, str], None]


class Verdict(StrEnum):
    """The audit in one word."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    INTEGRITY = "integrity"
    """A check of severity critical failed: bytes or seals are not what they must be."""
    INCOMPLETE = "incomplete"
    """A check could not run, or not read what it needs, or none did: nothing is proven."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Checks and the defaults of their limits."""

    entries: tuple[CheckEntry, ...]
    limits: Mapping[str, float]

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids of all checks in the order of the report, each once."""
        return tuple(sorted({entry.spec.id for entry in self.entries}, key=check_order))

    def concat(self, entries: Sequence[CheckEntry], limits: Mapping[str, float]) -> "Suite":
        """Return this suite with more checks: those that need the pipeline are given by the caller."""
        return Suite(entries=(*self.entries, *entries), limits={**self.limits, **limits})

    def specs(self, check_id: str) -> tuple[CheckSpec, ...]:
        """Return the descriptions of a check, one for each level that has its own."""
        return tuple(entry.spec for entry in self.entries if entry.spec.id == check_id)

    def with_policy(self, policy: Policy) -> "Suite":
        """Return this suite with the limits of a policy, what it requires of the seal, and the runs it names."""
        others = tuple(entry for entry in self.entries if entry.spec.id[0] != "T" and entry.spec.id != "L9")
        own = (*tamper.tamper_checks(policy.require), reuse_check(policy.runs))
        return Suite(entries=(*others, *own), limits={**self.limits, **policy.limits})

    def with_embeddings(self, path: Path) -> "Suite":
        """Return this suite with a file of face embeddings that an auditor brings. Raises UnreadableError."""
        others = tuple(entry for entry in self.entries if entry.spec.id != "L11")
        return replace(self, entries=(*others, look_alike_check(read_embeddings(path))))

    def chosen(self, selection: Sequence[str]) -> tuple[str, ...]:
        """Return the ids that a selection of classes and ids means; all for an empty one. Raises KeyError."""
        wanted = [part.strip().upper() for part in selection if part.strip()]
        for part in wanted:
            if part not in CHECK_CLASSES and part not in self.ids:
                raise KeyError(part)
        return tuple(i for i in self.ids if not wanted or i in wanted or i[0] in wanted)


def check_order(check_id: str) -> tuple[int, int]:
    """Return the place of a check in a report."""
    return list(CHECK_CLASSES).index(check_id[0]), int(check_id[1:])


def base_suite() -> Suite:
    """Return all checks that need the data set alone."""
    modules = (integrity, tamper, leakage, bias, clips, pairs, reproducibility)
    return Suite(
        entries=tuple(entry for module in modules for entry in module.CHECKS),
        limits={name: value for module in modules for name, value in module.LIMITS.items()},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found. Its report names no machine and no folder: it is made to be passed on."""

    results: tuple[CheckResult, ...]
    specs: Mapping[str, CheckSpec]
    verdict: Verdict
    exit_code: int
    facts: dict[str, Any] = field(default_factory=dict)
    """The head of the report: tool, policy, seal, data set, level."""

    def record(self) -> dict[str, Any]:
        """Return the JSON report, schema `lps.audit`."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            **self.facts,
            "verdict": str(self.verdict),
            "exit_code": self.exit_code,
            "counts": {str(state): n for state, n in sorted(Counter(r.state for r in self.results).items())},
            "checks": [_check_record(result, self.specs[result.id]) for result in self.results],
        }

    @property
    def audit_id(self) -> str:
        """Return the name of the folder of its reports: when, how thorough, and a digest."""
        when = datetime.fromisoformat(self.facts["audited_utc"])
        return f"{when:%Y%m%dT%H%M%SZ}-{self.facts['level']}-{sha256_hex(canonical_json(self.record()))[:8]}"

    def findings(self) -> bytes:
        """Return a Parquet file with every offender of every check."""
        rows = [
            {
                "check": result.id,
                "state": str(result.state),
                "severity": str(result.severity),
                "kind": offender.kind,
                "key": offender.key,
                "detail": offender.detail,
            }
            for result in self.results
            for offender in result.offenders
        ]
        names = ("check", "state", "severity", "kind", "key", "detail")
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema([(n, pa.string()) for n in names])), sink)
        return sink.getvalue()


def _check_record(result: CheckResult, spec: CheckSpec) -> dict[str, Any]:
    sample = [{"kind": o.kind, "key": o.key, "detail": o.detail} for o in result.offenders[:SAMPLE]]
    return {
        "id": result.id,
        "title": spec.title,
        "state": str(result.state),
        "severity": str(result.severity),
        "level": str(spec.level),
        "rule": spec.rule,
        "remedy": spec.remedy,
        "measured": result.measured,
        "limit": result.limit,
        "n_checked": result.n_checked,
        "n_offenders": len(result.offenders),
        "sample": sample,
        "note": result.note,
        "sql": spec.sql,
        "data": result.data,
    }


def run_audit(
    ctx: AuditContext,
    suite: Suite,
    policy: Policy,
    *,
    level: Level = Level.QUICK,
    selection: Sequence[str] = (),
    strict: bool = False,
    today: date | None = None,
    on_result: OnResult = lambda result, title: None,
) -> Audit:
    """Run the chosen checks of `suite` up to `level`; `on_result` is called with each result and its title.

    `ctx` must have been opened with the limits of `suite`. Raises KeyError for a selection that names no check.
    """
    now = datetime.now(UTC)
    results: list[CheckResult] = []
    specs: dict[str, CheckSpec] = {}
    for check_id in suite.chosen(selection):
        entry, enough = _entry(suite, check_id, level)
        specs[check_id] = entry.spec
        result = _without_places(_run(entry, ctx), ctx) if enough else _above(entry.spec)
        result = policy.apply(result, today or now.date())
        results.append(result)
        on_result(result, entry.spec.title)
    verdict, exit_code = verdict_of(results, strict=strict)
    facts = {
        "tool": "lps-audit",
        "version": version("lps-prep"),
        "audited_utc": now.isoformat(timespec="seconds"),
        "level": str(level),
        "selection": list(selection),
        "strict": strict,
        "policy": policy.name,
        "policy_sha256": policy.sha256 or None,
        "limits": dict(sorted(suite.limits.items())),
        "data": {**dataset_facts(ctx), **seal_facts(ctx, policy)},
    }
    return Audit(results=tuple(results), specs=specs, verdict=verdict, exit_code=exit_code, facts=facts)


def _entry(suite: Suite, check_id: str, level: Level) -> tuple[CheckEntry, bool]:
    """Return the most thorough form of a check that `level` allows, else its least, and whether it may run."""
    forms = [entry for entry in suite.entries if entry.spec.id == check_id]
    forms.sort(key=lambda entry: LEVELS.index(entry.spec.level))
    allowed = [entry for entry in forms if LEVELS.index(entry.spec.level) <= LEVELS.index(level)]
    return (allowed[-1], True) if allowed else (forms[0], False)


def _above(spec: CheckSpec) -> CheckResult:
    return CheckResult(id=spec.id, state=State.SKIP, severity=spec.severity, note=f"needs --level {spec.level}")


def _run(entry: CheckEntry, ctx: AuditContext) -> CheckResult:
    """Run one check. Whatever it raises is its result: the audit is then incomplete, and the other checks still run."""
    try:
        return entry.run(ctx)
    except UnreadableError as e:
        return with_unread(not_evaluated(entry.spec, State.UNKNOWN, ""), [str(e)])
    except Exception as e:  # noqa: BLE001  an auditor must get all other answers, and this one's name
        note = scrubbed(f"{type(e).__name__}: {' '.join(str(e).split())}")
        return CheckResult(id=entry.spec.id, state=State.ERROR, severity=entry.spec.severity, note=note)


def _without_places(result: CheckResult, ctx: AuditContext) -> CheckResult:
    """Return the result with paths relative to the data set and the source: messages of errors hold whole ones."""
    roots = [store for store in (ctx.store, ctx.source) if store is not None]

    def relative(text: str) -> str:
        for store in roots:
            text = text.replace(f"{store.url}/", "").replace(store.url, store.name)
        return text

    offenders = tuple(replace(o, key=relative(o.key), detail=relative(o.detail)) for o in result.offenders)
    note = relative(result.note)
    return replace(result, note=scrubbed(note) if result.unread else note, offenders=offenders)


def verdict_of(results: Sequence[CheckResult], *, strict: bool) -> tuple[Verdict, int]:
    """Return the verdict over results, and its exit code."""
    failed = {result.severity for result in results if result.state == State.FAIL}
    warned = Severity.WARN in failed or any(r.state == State.WARN and r.severity != Severity.INFO for r in results)
    answered = {State.PASS, State.WARN, State.FAIL, State.WAIVED}
    if Severity.CRITICAL in failed:
        return Verdict.INTEGRITY, 5
    if Severity.ERROR in failed:
        return Verdict.FAIL, 1
    open_ones = any(result.state == State.ERROR or result.unread for result in results)
    if open_ones or not any(result.state in answered for result in results):
        return Verdict.INCOMPLETE, 6
    if warned:
        return Verdict.WARN, 2 if strict else 0
    return Verdict.PASS, 0


def seal_facts(ctx: AuditContext, policy: Policy) -> dict[str, Any]:
    """Say how far the data set is sealed."""
    try:
        seals = read_seals(ctx.store)
        signature = check_signature(ctx.store, seals[-1], policy.require.allowed_signers) if seals else None
    except (IntegrityError, UnreadableError) as e:
        return {"seal": f"not readable: {e}".replace(f"{ctx.store.url}/", ""), "seal_sha256": None}
    return {"seal": seal_state(seals, signature), "seal_sha256": seals[-1].sha256 if seals else None}


def dataset_facts(ctx: AuditContext) -> dict[str, Any]:
    """Say which data set this is."""
    return {
        "name": ctx.store.name,
        "index_sha256": ctx.index_sha256,
        "plan_sha256": ctx.index.get("plan_sha256"),
        "params_sha256": ctx.index.get("params_sha256"),
        "split_set": ctx.split_set,
        "shards_split_set": ctx.index["split_set"],
        "leaky": bool(ctx.index.get("leaky", False)),
        "n_videos": fetch_number(ctx, "SELECT count(*) FROM videos"),
        "n_clips": fetch_number(ctx, "SELECT count(*) FROM clips"),
        "n_shards": fetch_number(ctx, "SELECT count(*) FROM shards"),
    }
