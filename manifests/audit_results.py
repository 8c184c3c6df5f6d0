"""The two results that most checks end with."""

from collections.abc import Sequence

from lps.manifests.audit_types import CheckResult, CheckSpec, Offender, State


def judged(
    spec: CheckSpec, offenders: Sequence[Offender], n: int, what: str, *, note: str = "", limit: str = "0"
) -> CheckResult:
    """Return the result of a check that no offender may break; `what` names the `n` things looked at."""
    return CheckResult(
        id=spec.id,
        state=State.FAIL if offenders else State.PASS,
        severity=spec.severity,
        measured=f"{len(offenders)} wrong of {n} {what}",
        limit=limit,
        n_checked=n,
        offenders=tuple(offenders),
        note=note,
    )


def unjudged(spec: CheckSpec, state: State, note: str) -> CheckResult:
    """Return the result of a check that found nothing to judge: SKIP or UNKNOWN, and why."""
    return CheckResult(id=spec.id, state=state, severity=spec.severity, note=note)
