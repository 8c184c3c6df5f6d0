"""What an auditor decides beforehand: limits, severities, what the seal must have, training runs, and waivers.

[limits]
c3_landmark_px = 4.0        # any limit that `lps-audit check --explain ID` names
[severity]
C4 = "error"                # critical, error, warn or info
[require]
seal = true
signature = true
allowed_signers = "signers" # file of ssh-keygen(1), relative to this one
[training]
runs = ["runs/pretrain"]    # folders of finished runs of lps-train, relative to this file
[[waivers]]
check = "L2"
scope = "video:00ff*"       # kind:key of what is waived, with * and ?; "*" for all of the check
reason = "known since 2024, see the data sheet"
approver = "J. Doe"
expires = 2027-01-31
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path

from lps.manifests.audit.core.types import CheckResult, Offender, Severity, State
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.fields import read_toml, require_known, with_values

RESULT_JSON = "result.json"
"""What `lps-train` writes into the folder of a run when it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Require:
    """What a policy requires of the seal."""

    seal: bool = False
    signature: bool = False
    allowed_signers: Path | None = None


NOTHING_REQUIRED = Require()


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """A finding that somebody accepted, for a while."""

    check: str
    scope: str
    reason: str
    approver: str
    expires: date
    """Last day on which it counts."""

    def __post_init__(self) -> None:
        for name in ("scope", "reason", "approver"):
            if not getattr(self, name):
                raise ValueError(f"{name} is missing")

    def covers(self, offender: Offender) -> bool:
        """Return whether this offender is meant."""
        return self.scope == "*" or fnmatchcase(f"{offender.kind}:{offender.key}", self.scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy that was read, or the default."""

    name: str = "default"
    sha256: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)
    severity: Mapping[str, Severity] = field(default_factory=dict)
    require: Require = field(default_factory=Require)
    runs: tuple[Path, ...] = ()
    """Folders of training runs, for L9."""
    waivers: tuple[Waiver, ...] = ()

    def apply(self, result: CheckResult, today: date) -> CheckResult:
        """Return `result` with the severity and the waivers of this policy.

        A finding is WAIVED when valid waivers cover every offender; one that covers a part, or has expired, is named in
        the note and changes nothing.
        """
        result = replace(result, severity=self.severity.get(result.id, result.severity))
        mine = [waiver for waiver in self.waivers if waiver.check == result.id]
        if not mine or result.state not in (State.FAIL, State.WARN):
            return result
        valid = [waiver for waiver in mine if waiver.expires >= today]
        notes = [f"waiver of {w.approver} expired on {w.expires}" for w in mine if w.expires < today]
        covered = [o for o in result.offenders if any(waiver.covers(o) for waiver in valid)]
        whole = any(waiver.scope == "*" for waiver in valid) or (covered and len(covered) == len(result.offenders))
        if whole:
            notes += [f"waived by {w.approver} until {w.expires}: {w.reason}" for w in valid]
            result = replace(result, state=State.WAIVED)
        elif covered:
            notes.append(f"{len(covered)} of {len(result.offenders)} waived")
        return replace(result, note="; ".join(filter(None, (result.note, *notes))))


@dataclass(frozen=True, slots=True, kw_only=True)
class _RequireTable:
    seal: bool = False
    signature: bool = False
    allowed_signers: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _TrainingTable:
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _PolicyFile:
    limits: Mapping[str, float] = field(default_factory=dict)
    severity: Mapping[str, Severity] = field(default_factory=dict)
    require: _RequireTable = field(default_factory=_RequireTable)
    training: _TrainingTable = field(default_factory=_TrainingTable)
    waivers: tuple[Waiver, ...] = ()


def read_policy(path: Path | None, *, limits: Collection[str], checks: Collection[str]) -> Policy:
    """Read a policy file; None gives the default. Raises RefusedError that names the entry at fault."""
    if path is None:
        return Policy()
    try:
        values, sha256 = read_toml(path)
        file = with_values(_PolicyFile(), values)
        require_known(file.limits, limits, "limits")
        require_known(file.severity, checks, "severity")
        require_known([waiver.check for waiver in file.waivers], checks, "")
        return Policy(
            name=path.name,
            sha256=sha256,
            limits=file.limits,
            severity=file.severity,
            require=_require(file.require, path.parent),
            runs=_runs(file.training, path.parent),
            waivers=file.waivers,
        )
    except UnreadableError as e:
        raise RefusedError(f"policy {str(e) if str(e).startswith(str(path)) else f'{path}: {e}'}") from e


def _require(table: _RequireTable, folder: Path) -> Require:
    file = folder / table.allowed_signers if table.allowed_signers else None
    if file is not None and not file.is_file():
        raise UnreadableError(f"[require] allowed_signers: no file {file}")
    return Require(seal=table.seal, signature=table.signature, allowed_signers=file)


def _runs(table: _TrainingTable, folder: Path) -> tuple[Path, ...]:
    for name in table.runs:
        if not (folder / name / RESULT_JSON).is_file():
            raise UnreadableError(
                f"[training] runs: {folder / name} has no {RESULT_JSON}; is it a finished run of lps-train?"
            )
    return tuple(folder / name for name in table.runs)
