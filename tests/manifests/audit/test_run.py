"""The runner and the policy: states, verdicts, exit codes, waivers, limits."""

import io
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lps.manifests.audit.core.policy import Policy, Waiver, read_policy
from lps.manifests.audit.core.types import AuditContext, CheckEntry, CheckResult, CheckSpec, Offender, Severity, State
from lps.manifests.audit.run import Audit, Suite, Verdict, base_suite, verdict_of
from lps.manifests.errors import RefusedError
from lps.manifests.names import Level

Mutated = Callable[..., Path]
TODAY = date(2026, 6, 1)
TWO = (Offender(kind="video", key="aa"), Offender(kind="clip", key="bb"))


def result(state: State, severity: Severity = Severity.ERROR, **values: Any) -> CheckResult:
    return CheckResult(**{"id": "C1", "state": state, "severity": severity, **values})


@pytest.mark.parametrize(
    ("results", "verdict", "code", "strict_code"),
    [
        ([result(State.PASS), result(State.SKIP), result(State.UNKNOWN)], Verdict.PASS, 0, 0),
        ([result(State.PASS), result(State.WAIVED)], Verdict.PASS, 0, 0),
        ([result(State.PASS), result(State.WARN)], Verdict.WARN, 0, 2),
        ([result(State.FAIL, Severity.WARN)], Verdict.WARN, 0, 2),
        ([result(State.FAIL, Severity.INFO), result(State.WARN, Severity.INFO)], Verdict.PASS, 0, 0),
        ([result(State.FAIL), result(State.WARN)], Verdict.FAIL, 1, 1),
        ([result(State.FAIL), result(State.ERROR)], Verdict.FAIL, 1, 1),
        ([result(State.FAIL), result(State.FAIL, Severity.CRITICAL)], Verdict.INTEGRITY, 5, 5),
        ([result(State.PASS), result(State.ERROR)], Verdict.INCOMPLETE, 6, 6),
        ([result(State.SKIP), result(State.UNKNOWN)], Verdict.INCOMPLETE, 6, 6),
        ([], Verdict.INCOMPLETE, 6, 6),
    ],
)
def test_verdict_and_exit_code(results: list[CheckResult], verdict: Verdict, code: int, strict_code: int) -> None:
    assert verdict_of(results, strict=False) == (verdict, code)
    assert verdict_of(results, strict=True) == (verdict, strict_code)


def test_checks_are_complete_and_in_order() -> None:
    suite = base_suite()
    assert list(suite.ids) == [
        *(f"A{k}" for k in range(1, 10)),
        *(f"T{k}" for k in range(1, 5)),
        *(f"L{k}" for k in range(1, 12)),
        *(f"B{k}" for k in (*range(1, 10), 11, 12, 13, 14)),
        *(f"C{k}" for k in (1, *range(3, 9))),
        *("R2", "R3", "R4", "R5", "R6"),
    ]
    for entry in suite.entries:
        spec = entry.spec
        assert spec.title
        assert spec.rule.endswith((".", ")"))
        assert spec.remedy.endswith((".", ")"))
    assert all(name.split("_")[0].upper() in (*suite.ids, *"ATLBCR") for name in suite.limits)


def test_selection_takes_classes_and_ids() -> None:
    suite = base_suite()
    assert suite.chosen(()) == suite.ids
    assert suite.chosen(("t", "C1")) == ("T1", "T2", "T3", "T4", "C1")
    with pytest.raises(KeyError):
        suite.chosen(("X9",))


def test_check_that_raises_is_an_error_and_the_others_still_run(dataset: Path, audit: Callable[..., Audit]) -> None:
    def breaks(_: AuditContext) -> CheckResult:
        raise ZeroDivisionError("over\nthere")

    spec = CheckSpec(id="A1", title="t", rule="r.", remedy="r.", severity=Severity.ERROR)
    suite = base_suite()
    others = tuple(entry for entry in suite.entries if entry.spec.id in ("A5", "A7"))
    found = audit(dataset, "A", suite=Suite(entries=(CheckEntry(spec, breaks), *others), limits=suite.limits))
    assert [str(r.state) for r in found.results] == ["error", "pass", "pass"]
    assert found.results[0].note == "ZeroDivisionError: over there"
    assert found.exit_code == 6


def test_level_decides_which_checks_run(dataset: Path, audit: Callable[..., Audit]) -> None:
    quick = {r.id: r for r in audit(dataset, "A,C", level="quick").results}
    assert (quick["A4"].state, quick["A4"].note) == ("skip", "needs --level full")
    assert quick["A2"].note == "sizes only; level full reads the bytes"
    full = {r.id: r for r in audit(dataset, "A,C", level="full").results}
    assert full["A4"].state == full["A2"].state == "pass"
    assert full["A2"].note == ""
    assert Level.DEEP not in {entry.spec.level for entry in base_suite().entries if entry.spec.id[0] in "AC"}


def test_report_is_json_with_everything_an_auditor_needs(mutated: Mutated, audit: Callable[..., Audit]) -> None:
    out = mutated({"clips": lambda row: {**row, "max_gap_frames": 3}})
    found = audit(out, "C1,T", level="quick", policy=Policy(name="p", sha256="ab", limits={"t4_quick_rows": 7}))
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["schema"], record["schema_version"] == ("lps.audit", "1.0")
    assert (record["verdict"], record["exit_code"], record["level"]) == ("fail", 1, "quick")
    assert (record["policy"], record["policy_sha256"], record["limits"]["t4_quick_rows"]) == ("p", "ab", 7)
    assert record["data"]["split_set"] == "group"
    assert record["data"]["seal"] == "not sealed"
    assert record["counts"] == {"fail": 1, "pass": 1, "skip": 3}
    check = next(check for check in record["checks"] if check["id"] == "C1")
    assert (check["n_checked"], check["n_offenders"], len(check["sample"])) == (39, 39, 20)
    assert check["sql"].startswith("WITH c AS")
    findings = pq.read_table(io.BytesIO(found.findings())).to_pylist()
    assert len(findings) == 39
    assert findings[0]["check"] == "C1"
    assert findings[0]["detail"] == "max_gap_frames is 3"


def test_sql_of_a_check_can_be_run_by_hand(dataset: Path, audit_context: Callable[..., AuditContext]) -> None:
    suite = base_suite()
    context = audit_context(dataset, limits=suite.limits)
    quick = [entry.spec for entry in suite.entries if entry.spec.level == Level.QUICK and entry.spec.sql]
    assert len(quick) > 10
    for spec in quick:
        if spec.id not in ("R3", "L9"):  # they read a base split set, or that of a training run
            context.db.execute(spec.sql).fetchall()


# ---- policy --------------------------------------------------------------------------------------------------------


def waiver(scope: str, expires: date = date(2026, 12, 31), check: str = "C1") -> Waiver:
    return Waiver(check=check, scope=scope, reason="known", approver="J. Doe", expires=expires)


@pytest.mark.parametrize(
    ("waivers", "state", "note"),
    [
        ([waiver("*")], "waived", "waived by J. Doe until 2026-12-31: known"),
        ([waiver("video:aa"), waiver("clip:*")], "waived", "known"),
        ([waiver("video:a?")], "fail", "1 of 2 waived"),
        ([waiver("nobody:*")], "fail", ""),
        ([waiver("*", expires=date(2026, 5, 31))], "fail", "waiver of J. Doe expired on 2026-05-31"),
        ([waiver("*", expires=TODAY)], "waived", "known"),
        ([waiver("*", check="C5")], "fail", ""),
    ],
)
def test_waivers(waivers: list[Waiver], state: str, note: str) -> None:
    found = Policy(waivers=tuple(waivers)).apply(result(State.FAIL, offenders=TWO), TODAY)
    assert found.state == state
    assert note in found.note


@pytest.mark.parametrize("state", [State.PASS, State.SKIP, State.UNKNOWN, State.ERROR])
def test_nothing_but_findings_is_waived(state: State) -> None:
    assert Policy(waivers=(waiver("*"),)).apply(result(state), TODAY).state == state


def test_waived_check_does_not_fail_the_audit(mutated: Mutated, audit: Callable[..., Audit]) -> None:
    out = mutated({"clips": lambda row: {**row, "max_gap_frames": 3}})
    policy = Policy(waivers=(waiver("*"),))
    assert audit(out, "C1", policy=policy, today=TODAY).exit_code == 0
    assert audit(out, "C1", policy=policy, today=date(2027, 1, 1)).exit_code == 1


def test_policy_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "signers").write_text("")
    path = tmp_path / "policy.toml"
    path.write_text(
        '[limits]\nc3_landmark_px = 4\n[severity]\nC4 = "error"\n[require]\nseal = true\nallowed_signers = "signers"\n'
        '[[waivers]]\ncheck = "C1"\nscope = "*"\nreason = "known"\napprover = "J. Doe"\nexpires = 2026-12-31\n'
    )
    policy = read_policy(path, limits={"c3_landmark_px"}, checks={"C1", "C4"})
    assert (policy.limits, policy.severity) == ({"c3_landmark_px": 4.0}, {"C4": "error"})
    assert policy.waivers == (waiver("*"),)
    assert policy.require.seal
    assert policy.require.allowed_signers == tmp_path / "signers"
    assert len(policy.sha256) == 64
    assert policy.apply(result(State.FAIL, Severity.WARN, id="C4"), TODAY).severity == "error"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[limit]\nx = 1", "did you mean 'limits'"),
        ("[limits]\nc3_landmark_pixels = 1", "did you mean 'c3_landmark_px'"),
        ('[limits]\nc3_landmark_px = "4"', "must be a number"),
        ("[limits]\nc3_landmark_px = true", "must be a number"),
        ('[severity]\nC1 = "fatal"', "must be one of critical"),
        ('[severity]\nC9 = "warn"', "unknown name 'severity.C9'"),
        ("limits = 3", "[limits] must be a table"),
        ('[require]\nseal = "yes"', "true or false"),
        ('[require]\nallowed_signers = "none"', "no file"),
        ('[[waivers]]\ncheck = "C1"', "scope is missing"),
        ('[[waivers]]\ncheck="C9"\nscope="*"\nreason="r"\napprover="a"\nexpires=2026-01-01', "unknown name 'C9'"),
        ('[[waivers]]\ncheck="C1"\nscope="*"\nreason="r"\napprover="a"\nexpires="2026-01-01"', "must be a date"),
        ("waivers = 3", "must be a list"),
        ("[limits", "not a readable TOML file"),
    ],
)
def test_bad_policy_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(RefusedError) as caught:
        read_policy(path, limits={"c3_landmark_px"}, checks={"C1"})
    assert said in str(caught.value)
    assert caught.value.exit_code == 3


def test_rows_without_their_id_are_findings_without_a_key(mutated: Mutated, audit: Callable[..., Audit]) -> None:
    def without_ids(data: bytes) -> bytes:
        table, sink = pq.read_table(io.BytesIO(data)), io.BytesIO()
        ids = pa.nulls(table.num_rows, table.schema.field("video_id").type)
        pq.write_table(table.set_column(table.column_names.index("video_id"), "video_id", ids), sink)
        return sink.getvalue()

    results = audit(mutated(files={"manifests/videos.parquet": without_ids})).results
    assert not [r.id for r in results if r.state == State.ERROR and "NoneType" in r.note]
    assert any(offender.key == "" for r in results for offender in r.offenders)
