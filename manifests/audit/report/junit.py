"""The audit's result as JUnit XML, which CI servers read: a test case for each check.

It has a failure or an error exactly where the exit code of the audit is not 0. Elements and attributes are those of the
xUnit plug-in's junit-10.xsd, which pytest writes, too.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any

from lps.manifests.audit.core.types import CHECK_CLASSES, CheckResult, Severity, State
from lps.manifests.names import check_link

SUITE = "lps-audit"
SHOWN = 20
"""Offenders that a test case lists; the findings file has all."""
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML 1.0 document can hold, not even escaped: control characters and lone surrogates."""
NO_ANSWER = frozenset({State.SKIP, State.UNKNOWN, State.WAIVED})
PROPERTIES = ("version", "level", "strict", "policy", "policy_sha256")
DATA_PROPERTIES = ("name", "split_set", "index_sha256", "plan_sha256", "seal")

Record = Mapping[str, Any]


def junit_xml(record: Record, results: Sequence[CheckResult]) -> bytes:
    """Return the document of an audit: `record` is its JSON report, `results` are what its checks found."""
    suite = ET.Element("testsuite", name=f"{SUITE} {xml_text(record['data']['name'])}")
    _add_properties(suite, record)
    for check, result in zip(record["checks"], results, strict=True):
        _add_case(suite, check, result, strict=bool(record["strict"]))
    if record["exit_code"] and suite.find("testcase/failure") is None and suite.find("testcase/error") is None:
        case = ET.SubElement(suite, "testcase", classname=SUITE, name="any answer")
        said = "no check that was asked for has an answer: nothing is proven"
        ET.SubElement(case, "error", type=str(record["verdict"]), message=said)
    counts = {
        "tests": "testcase",
        "failures": "testcase/failure",
        "errors": "testcase/error",
        "skipped": "testcase/skipped",
    }
    for name, path in counts.items():
        suite.set(name, str(len(suite.findall(path))))
    suite.set("timestamp", str(record["audited_utc"]).partition("+")[0])
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    document: bytes = ET.tostring(root, "utf-8", xml_declaration=True)
    return document + b"\n"


def xml_text(text: object) -> str:
    """Return a text with what XML 1.0 cannot hold spelled out: a bell as `#x07`."""
    return NOT_XML.sub(lambda found: f"#x{ord(found.group()):02X}", str(text))


def _add_properties(suite: ET.Element, record: Record) -> None:
    found = {**{name: record[name] for name in PROPERTIES}, "verdict": record["verdict"]}
    found |= {"exit_code": record["exit_code"], **{name: record["data"][name] for name in DATA_PROPERTIES}}
    properties = ET.SubElement(suite, "properties")
    for name, value in found.items():
        if value is not None:
            ET.SubElement(properties, "property", name=name, value=xml_text(value))


def _add_case(suite: ET.Element, check: Record, result: CheckResult, *, strict: bool) -> None:
    family = CHECK_CLASSES[result.id[0]]
    case = ET.SubElement(suite, "testcase", classname=f"{SUITE}.{family}", name=f"{result.id} {check['title']}")
    said = f"{result.measured} (limit {result.limit})" if result.limit else result.measured
    message = xml_text(": ".join(filter(None, (result.state.upper(), said or result.note))))
    kind = _kind(result, strict=strict)
    if kind == "skipped":
        ET.SubElement(case, kind, type=str(result.state), message=xml_text(f"{result.state.upper()}: {result.note}"))
    elif kind:
        found = ET.SubElement(case, kind, type=str(result.severity), message=message)
        found.text = _details(check, result)
    else:
        passed = result.state == State.PASS
        ET.SubElement(case, "system-out").text = message if passed else f"{message}\n{_details(check, result)}"


def _kind(result: CheckResult, *, strict: bool) -> str:
    """Return the element that tells a result, as the exit code has it; none where the check counts as passed."""
    failed, severity = result.state == State.FAIL, result.severity
    if failed and severity in (Severity.CRITICAL, Severity.ERROR):
        return "failure"
    if result.state == State.ERROR or result.unread:
        return "error"
    warned = (failed and severity == Severity.WARN) or (result.state == State.WARN and severity != Severity.INFO)
    if strict and warned:
        return "failure"
    return "skipped" if result.state in NO_ANSWER else ""


def _details(check: Record, result: CheckResult) -> str:
    shown = [f"{each.kind} {each.key}: {each.detail}".rstrip(": ") for each in result.offenders[:SHOWN]]
    more = len(result.offenders) - len(shown)
    lines = [*shown, f"and {more} more; --reports lists all" if more else "", result.note]
    remedy = (f"When it fails: {check['remedy']}", f"See {check_link(result.id)}")
    return xml_text("\n".join(line for line in (*lines, *remedy) if line))
