"""The page of the audit describes the checks as they are."""

from pathlib import Path

from lps.cli.audit import full_suite
from lps.cli.audit_docs import with_checks

PAGE = Path(__file__).resolve().parents[2] / "docs/audit.md"


def test_page_is_current() -> None:
    page = PAGE.read_text()
    assert page == with_checks(page), "run `python -m lps.cli.audit_docs docs/audit.md`"


def test_page_has_every_check_and_limit() -> None:
    suite, page = full_suite(), PAGE.read_text()
    assert all(f"#### {check_id} " in page for check_id in suite.ids)
    assert all(f"`{name}` " in " ".join(page.split()) for name in suite.limits)
