"""Make the certificate of a data set from an audit, and find where one differs from what is made anew.

Its bytes follow from the data set, the policy, the level, the split set and the versions that it names. It holds no
time, no path but those below the data set, and waivers by their last day instead of today's state of them.
"""

import json
import platform
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lps.manifests.audit.core.database import fetch_rows
from lps.manifests.audit.core.policy import Policy
from lps.manifests.audit.core.seal import check_file_signature, seal_paths, signature_of
from lps.manifests.audit.core.types import AuditContext, CheckResult, State
from lps.manifests.audit.imbalance import measure_imbalance
from lps.manifests.audit.run import Audit, OnResult, Suite, run_audit
from lps.manifests.canonical import brief_json, canonical_json, jsonable, parse_json, sha256_hex
from lps.manifests.certificates.record import CERTIFICATE_JSON, CERTIFICATE_SIG, SCHEMA, SCHEMA_VERSION, Certificate
from lps.manifests.columns import rule_path, split_path
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.index import INDEX_JSON, PLAN_JSON, PLAN_VIDEOS
from lps.manifests.names import Level, label_name
from lps.manifests.storage import Store

UNKNOWN = "UNKNOWN"
"""Stands for a number that is not known; the reason is beside it."""
PACKAGES = ("lps-prep", "duckdb", "numpy", "pillow", "pyarrow", "scikit-learn", "scipy")
DIGITS = 6
"""Significant digits of numbers: the rest depends on the order in which a sum was made."""
OF_BYTES = (
    *(("schema",), ("files",), ("split_set",), ("policy",), ("valid_until",)),
    *(("measured", "contents"), ("measured", "damage")),
)
"""Parts that no version of the program changes: they are compared whoever made the certificate."""
VERSIONS = "versions"
"""The part that says who made it, which is compared by itself."""
Place = tuple[str | int | tuple[str, int], ...]
"""Where a value stands: keys of records, numbers in lists; of a member with a name, that and how many had it before."""
ANSWERED = (State.PASS, State.WARN, State.FAIL, State.WAIVED)
AMBIGUOUS = re.compile(r"[.\[\]\"]")
"""What in a key would look like more than one."""
N_SHOWN = 90
"""Characters of a value in a line about a difference."""


def make_certificate(
    ctx: AuditContext, suite: Suite, policy: Policy, level: Level, on_result: OnResult = lambda result, title: None
) -> dict[str, Any]:
    """Audit an opened data set and return its certificate as plain values, schema `lps.certificate`.

    Waivers count whatever the day: ask `refuse_expired` before. `ctx` must have been opened with the limits of `suite`.
    Raises UnreadableError for what cannot be read.
    """
    ctx = replace(ctx, reads_runs=False)
    audit = run_audit(ctx, suite, policy, level=level, today=date.min, on_result=on_result)
    files = list(_files(ctx))
    [split_file] = (file for file in files if file["path"] == split_path(ctx.split_set))
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        VERSIONS: {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "level": str(level),
        "split_set": {"name": ctx.split_set, "path": split_file["path"], "sha256": split_file["sha256"]},
        "files": files,
        "policy": {
            "name": policy.name,
            "sha256": policy.sha256 or None,
            "limits": dict(sorted(suite.limits.items())),
            "severity": {check: str(severity) for check, severity in sorted(policy.severity.items())},
            "waivers": [{**asdict(waiver), "expires": waiver.expires.isoformat()} for waiver in policy.waivers],
        },
        "valid_until": min((waiver.expires.isoformat() for waiver in policy.waivers), default=None),
        "measured": _measured(ctx, audit),
        "checks": [_check(audit, result) for result in audit.results],
        "verdict": str(audit.verdict),
    }
    rounded: dict[str, Any] = _rounded(jsonable(record))
    return rounded


def refuse_expired(policy: Policy, today: date) -> None:
    """Raise RefusedError for a waiver that has expired: a certificate would hold it for valid."""
    for waiver in policy.waivers:
        if waiver.expires < today:
            raise RefusedError(
                f"policy {policy.name}: the waiver of {waiver.check} by {waiver.approver} expired on {waiver.expires}; "
                "take it out, or renew it"
            )


def _files(ctx: AuditContext) -> Iterator[dict[str, Any]]:
    """Yield every file that the certificate is about, by path: the index, what it lists, the plan, the newest seal.

    What the index lists and nobody finds has null for its size and digest.
    """
    listed = ctx.index["manifests"]
    paths = {INDEX_JSON, *listed, rule_path(ctx.split_set), PLAN_JSON, PLAN_VIDEOS, *seal_paths(ctx.store)[-1:]}
    for path in sorted(paths):
        n_bytes = sha256 = None
        if ctx.store.exists(path):
            n_bytes, sha256 = _digest(ctx.store, path)
        if sha256 is not None or path in listed:
            yield {"path": path, "bytes": n_bytes, "sha256": sha256, "rows": listed.get(path, {}).get("rows")}


def _digest(store: Store, path: str) -> tuple[int, str]:
    data = store.read(path)
    return len(data), sha256_hex(data)


def missing_files(record: Mapping[str, Any]) -> list[str]:
    """Return the files that the index lists and that are not there, of a record that was made now."""
    return [file["path"] for file in record["files"] if file["sha256"] is None]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


# ---- what was measured -----------------------------------------------------------------------------------------------


def _measured(ctx: AuditContext, audit: Audit) -> dict[str, Any]:
    results = {result.id: result for result in audit.results}
    return {
        "contents": _contents(ctx),
        "balance": asdict(measure_imbalance(ctx)),
        "leakage": {
            "kinds": [_answer(audit, result) for result in audit.results if result.id[0] == "L"],
            "rates": results["L1"].data.get("leakage") or UNKNOWN,
        },
        "shortcuts": _shortcuts(audit, results),
        "damage": {**_damage(ctx), "gaps": results["B2"].data.get("gaps") or UNKNOWN},
        "reproducibility": [_answer(audit, result) for result in audit.results if result.id[0] == "R"],
    }


def _contents(ctx: AuditContext) -> dict[str, Any]:
    [(n_videos, n_clips, n_frames, n_shards, n_bytes)] = fetch_rows(
        ctx,
        """SELECT (SELECT count(*) FROM videos), (SELECT count(*) FROM clips),
        (SELECT coalesce(sum(n_frames), 0)::BIGINT FROM clips), (SELECT count(*) FROM shards),
        (SELECT coalesce(sum(bytes), 0)::BIGINT FROM shards)""",
    )
    [(n_members,)] = fetch_rows(ctx, "SELECT coalesce(sum(len(members)), 0)::BIGINT FROM clips")
    cells = fetch_rows(
        ctx,
        """SELECT coalesce(s.split, 'excluded'), v.label, v.method, count(*), coalesce(sum(v.n_clips), 0)::BIGINT
        FROM videos v LEFT JOIN splits s USING (video_id) WHERE v.status <> 'skipped' GROUP BY ALL
        ORDER BY ALL""",
    )
    names = ("split", "label", "method", "videos", "clips")
    return {
        "videos": n_videos, "clips": n_clips, "frames": n_frames,
        "shards": n_shards, "shard_bytes": n_bytes, "members": n_members,
        "cells": [dict(zip(names, (row[0], label_name(row[1]), *row[2:]), strict=True)) for row in cells],
    }  # fmt: skip


def _damage(ctx: AuditContext) -> dict[str, Any]:
    """Count what was lost, by code; the share of each class with its 95 % interval (Wilson), of all that were tried."""
    from scipy.stats import binomtest

    codes = fetch_rows(
        ctx,
        """SELECT status, error_code, label, count(*) FROM videos WHERE error_code IS NOT NULL GROUP BY ALL
        ORDER BY ALL""",
    )
    tried = fetch_rows(
        ctx,
        """SELECT label, count(*), count(*) FILTER (status = 'failed'), count(*) FILTER (status = 'partial')
        FROM videos WHERE status <> 'skipped' GROUP BY ALL ORDER BY ALL""",
    )
    classes = []
    for label, n, n_failed, n_partial in tried:
        interval = binomtest(n_failed, n).proportion_ci(method="wilson")
        share = {"failed": n_failed / n, "low": interval.low, "high": interval.high}
        counts = {"videos": n, "failed": n_failed, "partial": n_partial}
        classes.append({"label": label_name(label), **counts, "share": share})
    names = ("status", "code", "label", "videos")
    return {
        "codes": [dict(zip(names, (*row[:2], label_name(row[2]), row[3]), strict=True)) for row in codes],
        "classes": classes,
    }


def _shortcuts(audit: Audit, results: Mapping[str, CheckResult]) -> dict[str, Any]:
    """Return how well the label is told without the forgery: the panel, and the checks that judge by features."""
    panel = results["B14"].data.get("panel")
    if panel:
        scores = [{**score, "auc": UNKNOWN if score["auc"] is None else score["auc"]} for score in panel["scores"]]
        panel = {**panel, "scores": scores}
    return {
        "panel": panel or UNKNOWN,
        "metadata": results["B4"].data or UNKNOWN,
        "checks": [_answer(audit, results[name]) for name in ("B4", "B12", "B14")],
    }


def _answer(audit: Audit, result: CheckResult) -> dict[str, Any]:
    """Return how many break the rule of a check, UNKNOWN where it has no answer, and the level that it needs."""
    spec, known = audit.specs[result.id], result.state in ANSWERED
    return {
        "id": result.id,
        "title": spec.title,
        "state": str(result.state),
        "level": str(spec.level),
        "offenders": len(result.offenders) if known else UNKNOWN,
        "of": result.n_checked if known else UNKNOWN,
        "reason": None if known else result.note,
    }


def _check(audit: Audit, result: CheckResult) -> dict[str, Any]:
    found = _answer(audit, result)
    waived = result.note if result.state == State.WAIVED else None
    more = {"severity": str(result.severity), "measured": result.measured, "limit": result.limit}
    return {**found, **more, "reason": found["reason"] or waived}


# ---- made anew -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that a certificate records otherwise than it is now."""

    place: Place
    """Empty for the record as a whole."""
    recorded: bytes | None
    """Canonical JSON of the value; None where there is none."""
    recomputed: bytes | None

    @property
    def path(self) -> str:
        """Place in the JSON, such as `measured.contents.videos`."""
        return _spelled(self.place)

    @property
    def is_of_bytes(self) -> bool:
        """True where no version of the program changes the value."""
        return not self.place or any(self.place[: len(part)] == part for part in OF_BYTES)

    def said(self) -> str:
        """Return it as one line."""
        return f"{self.path}: recorded {_shown(self.recorded)}, recomputed {_shown(self.recomputed)}"


def _spelled(place: Place) -> str:
    """Return a place as text; a key that could be taken for more than one stands in quotes."""
    text = ""
    for step in place:
        if isinstance(step, tuple):
            text += f"[{step[0]}]" if not step[1] else f"[{step[0]}, again ({step[1]})]"
        elif isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f"[{json.dumps(step)}]" if AMBIGUOUS.search(step) or not step else f".{step}"
    return text.removeprefix(".") or "SHA-256 without versions, as by the order of a list"


def _shown(text: bytes | None) -> str:
    return "nothing" if text is None else brief_json(parse_json(text), N_SHOWN)


def differences(recorded: Mapping[str, Any], made: Mapping[str, Any]) -> list[Difference]:
    """Return where two certificates differ, in the order of their paths, but for the versions.

    Bytes decide: it is empty for equal ones alone, whatever is found of the others.
    """
    parts = [{name: value for name, value in record.items() if name != VERSIONS} for record in (recorded, made)]
    before, now = map(canonical_json, parts)
    if before == now:
        return []
    old, new = (dict(_leaves(part, ())) for part in parts)
    places = sorted((place for place in {*old, *new} if old.get(place) != new.get(place)), key=_spelled)
    found = [Difference(place, old.get(place), new.get(place)) for place in places]
    return found or [Difference((), *(canonical_json(sha256_hex(data)) for data in (before, now)))]


def _leaves(value: Any, place: Place) -> Iterator[tuple[Place, bytes]]:
    """Yield every value that holds no others, as JSON, with its place, of which no two are equal."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, (*place, key))
    elif isinstance(value, list) and value:
        n_named: Counter[str] = Counter()
        for number, item in enumerate(value):
            name = (item.get("path") or item.get("id")) if isinstance(item, Mapping) else None
            name = name if isinstance(name, str) else None
            yield from _leaves(item, (*place, number if name is None else (name, n_named[name])))
            if name is not None:
                n_named[name] += 1
    else:
        yield place, canonical_json(value)


def other_versions(recorded: Mapping[str, str]) -> list[str]:
    """Return what differs between the versions of a certificate and those that are installed, a phrase each."""
    now = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return [
        f"{name} {recorded.get(name, 'unnamed')}, here {now.get(name, 'none')}"
        for name in sorted({*recorded, *now})
        if recorded.get(name) != now.get(name)
    ]


def require_policy(found: Certificate, policy: Policy) -> None:
    """Raise RefusedError unless the policy is the one that a certificate was made with, which it names."""
    theirs = found.values["policy"]
    if theirs["sha256"] == (policy.sha256 or None):
        return
    if theirs["sha256"] is None:
        raise RefusedError(
            f"{CERTIFICATE_JSON} was made without a policy: leave --policy out (for keys: --signers FILE)"
        )
    given = f"{policy.name} has {policy.sha256[:12]}…" if policy.sha256 else "none was given"
    raise RefusedError(
        f"{CERTIFICATE_JSON} was made with the policy {theirs['name']} of SHA-256 {theirs['sha256'][:12]}…, and "
        f"{given}: give that file with --policy"
    )


def publish_certificate(store: Store, record: Mapping[str, Any], key: Path | None) -> tuple[str, str]:
    """Write a certificate beside the index, signed where there is a key.

    Returns the SHA-256 of its file, in hex, and what is true of its signature. Nothing is touched before the key has
    signed. Then a signature of other bytes goes first and the new one comes last: whatever a kill leaves has its own
    signature or none. Raises RefusedError where ssh-keygen refuses the key, UnreadableError for a data set that lacks
    files, and where the store does not take it.
    """
    for path in missing_files(record):
        raise UnreadableError(f"{store.join(path)} is missing, though {INDEX_JSON} lists it: nothing was certified")
    data = canonical_json(record)
    signature = None if key is None else signature_of(data, key)
    kept = store.read(CERTIFICATE_SIG) if store.exists(CERTIFICATE_SIG) else None
    if not store.exists(CERTIFICATE_JSON) or store.read(CERTIFICATE_JSON) != data:
        store.delete(CERTIFICATE_SIG)
        try:
            store.publish(CERTIFICATE_JSON, data)
        except UnreadableError:
            if kept is not None:
                store.publish(CERTIFICATE_SIG, kept)  # of the certificate that is still there
            raise
        kept = None
    if signature is not None:
        store.publish(CERTIFICATE_SIG, signature)
        return sha256_hex(data), "signed"
    return sha256_hex(data), "not signed" if kept is None else "the same as before, whose signature stays"


def signature_fault(store: Store, policy: Policy, signers: Path | None) -> tuple[str, str]:
    """Return what is known of a certificate's signature, and what is wrong with it (empty: nothing).

    `signers` are allowed, else those of the policy. One that nobody demands may be missing: with allowed signers it is
    demanded by `signers`, and by a policy that requires signatures.
    """
    allowed = signers or policy.require.allowed_signers
    found = check_file_signature(store, CERTIFICATE_JSON, allowed)
    if found is None:
        demanded = signers is not None or policy.require.signature
        return "not signed", "it is not signed" if demanded else ""
    if not found.valid:
        return "signature not valid", f"its signature is not valid: {found.note}"
    return f"signed by {found.signer}" if found.signer else "signed by a key nobody vouches for", ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What came of making a certificate again."""

    found: tuple[Difference, ...]
    versions: tuple[str, ...]
    """Versions that are others than the certificate's, a phrase each."""
    fault: str
    """What is wrong with the signature; empty for nothing."""
    missing: tuple[str, ...] = ()
    """Files that the index lists and that are not there."""

    @classmethod
    def of(cls, recorded: Certificate, made: Mapping[str, Any], fault: str) -> "Verification":
        """Compare a certificate with the record that was made anew."""
        found = tuple(differences(recorded.values, made))
        versions = tuple(other_versions(recorded.values[VERSIONS]))
        return cls(found=found, versions=versions, fault=fault, missing=tuple(missing_files(made)))

    @property
    def exit_code(self) -> int:
        """0 for an equal one, 5 for another one, 6 where only versions can be the reason."""
        if self.fault or any(each.is_of_bytes or not self.versions for each in self.found):
            return 5
        return 6 if self.found else 0

    def lines(self) -> list[str]:
        """Return a line for each difference; before them the versions, the signature and files that are missing."""
        versions = f"made by other versions: {'; '.join(self.versions)}" if self.versions else ""
        missing = [f"{path} is missing, though {INDEX_JSON} lists it" for path in self.missing]
        return [line for line in (versions, self.fault) if line] + missing + [each.said() for each in self.found]

    def said(self) -> str:
        """Return the outcome in a few words."""
        if not self.found:
            return "everything in it was recomputed"
        n_of_bytes = sum(each.is_of_bytes for each in self.found)
        why = f", {n_of_bytes} of them in digests and counts" if n_of_bytes else ""
        hint = ", which other versions may explain" if self.exit_code == 6 else ""
        return f"{len(self.found)} values differ{why}{hint}"
