"""The audit as JUnit XML: what each state becomes, that it is red where the exit code is, and what XML cannot hold."""

import xml.etree.ElementTree as ET
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lps.manifests.audit.core.types import CheckResult, Offender, Severity, State
from lps.manifests.audit.report.junit import SHOWN, junit_xml, xml_text
from lps.manifests.audit.run import verdict_of
from lps.manifests.names import check_link

Kind = dict[str, tuple[str, str]]


def audited(*results: CheckResult, strict: bool = False) -> tuple[ET.Element, int]:
    """Return the suite of some results as a reader of XML gets it, and the exit code."""
    verdict, exit_code = verdict_of(results, strict=strict)
    data = dict.fromkeys(("split_set", "index_sha256", "plan_sha256", "seal"), "x")
    record: dict[str, Any] = {
        "version": "1",
        "level": "quick",
        "strict": strict,
        "policy": "default",
        "policy_sha256": None,
        "audited_utc": "2026-11-29T10:00:00+00:00",
        "verdict": str(verdict),
        "exit_code": exit_code,
        "data": {"name": "out", **data},
        "checks": [{"title": "A title", "remedy": "Repair it."} for _ in results],
    }
    [suite] = ET.fromstring(junit_xml(record, results))
    return suite, exit_code


def result(state: State, severity: Severity = Severity.ERROR, **known: Any) -> CheckResult:
    return CheckResult(id="L1", state=state, severity=severity, **known)


def kinds(suite: ET.Element) -> list[str]:
    """Return what stands in each test case."""
    return [case[0].tag for case in suite.iter("testcase")]


@pytest.mark.parametrize(
    ("state", "severity", "strict", "expected"),
    [
        (State.PASS, Severity.ERROR, True, "system-out"),
        (State.FAIL, Severity.CRITICAL, False, "failure"),
        (State.FAIL, Severity.ERROR, False, "failure"),
        (State.FAIL, Severity.WARN, False, "system-out"),
        (State.FAIL, Severity.WARN, True, "failure"),
        (State.FAIL, Severity.INFO, True, "system-out"),
        (State.WARN, Severity.ERROR, False, "system-out"),
        (State.WARN, Severity.ERROR, True, "failure"),
        (State.WARN, Severity.INFO, True, "system-out"),
        (State.SKIP, Severity.ERROR, True, "skipped"),
        (State.UNKNOWN, Severity.ERROR, True, "skipped"),
        (State.WAIVED, Severity.ERROR, True, "skipped"),
        (State.ERROR, Severity.INFO, False, "error"),
    ],
)
def test_states(state: State, severity: Severity, strict: bool, expected: str) -> None:  # noqa: FBT001
    suite, _ = audited(result(state, severity), result(State.PASS), strict=strict)
    assert kinds(suite) == [expected, "system-out"]


def test_it_is_red_exactly_where_the_exit_code_is_not_0() -> None:
    each = [
        result(state, severity, unread=unread)
        for state, severity, unread in product(State, Severity, (False, True))
        if not (unread and state == State.ERROR)
    ]
    for first, second, strict in product(each, (None, result(State.PASS), result(State.SKIP)), (False, True)):
        suite, exit_code = audited(*(each for each in (first, second) if each), strict=strict)
        red = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
        assert bool(red) == bool(exit_code), (first, second, strict)
        assert red == sum(kind in ("failure", "error") for kind in kinds(suite))
        assert int(suite.attrib["tests"]) == len(kinds(suite))
        assert int(suite.attrib["skipped"]) == kinds(suite).count("skipped")


def test_a_failure_says_what_was_found_and_what_to_do() -> None:
    offenders = tuple(Offender(kind="video", key=f"{k:02d}", detail="is in two splits") for k in range(SHOWN + 3))
    suite, _ = audited(result(State.FAIL, measured="23 of 40", limit="0", offenders=offenders, note="a note"))
    [failure] = suite.iter("failure")
    assert failure.attrib == {"type": "error", "message": "FAIL: 23 of 40 (limit 0)"}
    assert failure.text is not None
    lines = failure.text.splitlines()
    assert lines[0] == "video 00: is in two splits"
    said = ["and 3 more; --reports lists all", "a note", "When it fails: Repair it.", f"See {check_link('L1')}"]
    assert lines[SHOWN:] == said
    [case] = suite.iter("testcase")
    assert case.attrib == {"classname": "lps-audit.Leakage between splits", "name": "L1 A title"}


def test_what_is_not_known_says_so() -> None:
    suite, _ = audited(result(State.UNKNOWN, note="nobody published it"), result(State.PASS))
    [skipped] = suite.iter("skipped")
    assert skipped.attrib == {"type": "unknown", "message": "UNKNOWN: nobody published it"}


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_read_back(text: str) -> None:
    """Names of files hold control characters and, where they are not UTF-8, lone surrogates."""
    offender = Offender(kind="file", key=text, detail="<&>\"']]>")
    suite, _ = audited(result(State.FAIL, measured=text, offenders=(offender,)))
    [failure] = suite.iter("failure")
    shown = xml_text(text).replace("\r\n", "\n").replace("\r", "\n")  # as XML has ends of lines in elements
    assert (failure.text or "").startswith(f"file {shown}: <&>\"']]>")
    assert xml_text("a\x07b\ud800\tc\x00") == "a#x07b#xD800\tc#x00"
