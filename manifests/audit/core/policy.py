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

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lps.manifests.audit.core.types import (
    CheckResult,
    Offender,
    Severity,
    State,
)
from lps.manifests.canonical import sha256_hex
from lps.manifests.errors import RefusedError

TABLES = ("limits", "severity", "require", "training", "waivers")
FEW = 12
"""Fewer names than this fit into a message."""
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


def read_policy(path: Path | None, *, limits: Collection[str], checks: Collection[str]) -> Policy:
    """Read a policy file; None gives the default. Raises RefusedError that names the entry at fault."""
    if path is None:
        return Policy()
    try:
        data = path.read_bytes()
        values = tomllib.loads(data.decode())
    except (OSError, ValueError) as e:
        raise RefusedError(f"policy {path}: not a readable TOML file: {e}") from e
    _known(values, TABLES, f"policy {path}")
    try:
        return Policy(
            name=path.name,
            sha256=sha256_hex(data),
            limits=_limits(_table(values, "limits"), limits),
            severity=_severities(_table(values, "severity"), checks),
            require=_require(_table(values, "require"), path.parent),
            runs=_runs(_table(values, "training"), path.parent),
            waivers=tuple(_waiver(entry, checks) for entry in _list(values, "waivers")),
        )
    except ValueError as e:
        raise RefusedError(f"policy {path}: {e}") from e


def _table(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = values.get(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"[{name}] must be a table")
    return table


def _list(values: Mapping[str, Any], name: str) -> list[Any]:
    entries = values.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"[[{name}]] must be a list of tables")
    return entries


def _limits(table: Mapping[str, Any], known: Collection[str]) -> dict[str, float]:
    _known(table, known, "[limits]")
    for name, value in table.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"[limits] {name} must be a number, got {value!r}")
    return {name: float(value) for name, value in table.items()}


def _severities(table: Mapping[str, Any], checks: Collection[str]) -> dict[str, Severity]:
    _known(table, checks, "[severity]")
    for name, value in table.items():
        if value not in tuple(Severity):
            raise ValueError(f"[severity] {name} must be one of {', '.join(Severity)}, got {value!r}")
    return {name: Severity(value) for name, value in table.items()}


def _require(table: Mapping[str, Any], folder: Path) -> Require:
    _known(table, ("seal", "signature", "allowed_signers"), "[require]")
    for name in ("seal", "signature"):
        if not isinstance(table.get(name, False), bool):
            raise ValueError(f"[require] {name} must be true or false")
    signers = table.get("allowed_signers")
    file = folder / str(signers) if signers is not None else None
    if file is not None and not file.is_file():
        raise ValueError(f"[require] allowed_signers: no file {file}")
    return Require(seal=table.get("seal", False), signature=table.get("signature", False), allowed_signers=file)


def _runs(table: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    _known(table, ("runs",), "[training]")
    names = table.get("runs", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("[training] runs must be a list of folders")
    for name in names:
        if not (folder / name / RESULT_JSON).is_file():
            raise ValueError(
                f"[training] runs: {folder / name} has no {RESULT_JSON}; is it a finished run of lps-train?"
            )
    return tuple(folder / name for name in names)


def _waiver(entry: Mapping[str, Any], checks: Collection[str]) -> Waiver:
    names = ("check", "scope", "reason", "approver", "expires")
    _known(entry, names, "[[waivers]]")
    missing = [name for name in names if not entry.get(name)]
    if missing:
        raise ValueError(f"[[waivers]] needs {', '.join(names)}; {missing[0]} is missing")
    _known({entry["check"]: None}, checks, "[[waivers]] check")
    if isinstance(entry["expires"], datetime) or not isinstance(entry["expires"], date):
        raise ValueError(f"[[waivers]] expires must be a date such as 2027-01-31, got {entry['expires']!r}")
    text = {name: str(entry[name]) for name in names[:4]}
    return Waiver(**text, expires=entry["expires"])


def _known(found: Collection[str], known: Collection[str], where: str) -> None:
    for name in found:
        if name not in known:
            close = get_close_matches(str(name), list(known), n=1)
            names = ", ".join(sorted(known)) if len(known) < FEW else "those that `lps-audit check --explain ID` shows"
            hint = f"; did you mean '{close[0]}'?" if close else f"; known ones: {names}"
            raise RefusedError(f"{where}: unknown name '{name}'{hint}")
