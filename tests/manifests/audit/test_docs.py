"""docs/audit.md says what the checks do, and what it tells an auditor to type works."""

import re
import shutil
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from lps.cli.audit.main import full_suite
from lps.cli.docs.audit_checks import with_checks
from lps.manifests.splits.groups import alias_roots
from lps.manifests.splits.records import SplitParams
from lps.pipeline.job.split_sets import add_split_set

PAGE = Path(__file__).parents[3] / "docs/audit.md"
ALIASES = (("ffpp/seq/004", "person/x"), ("person/x", "ffpp/seq/000"), ("b", "c"))


def blocks(language: str, having: str) -> str:
    """Return the one block of code on the page that has these words."""
    [found] = [b for b in re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL) if having in b]
    return str(found)


def test_page_is_current() -> None:
    assert PAGE.read_text() == with_checks(PAGE.read_text()), "run: python -m lps.cli.docs.audit_checks docs/audit.md"


def test_page_has_every_check_and_limit() -> None:
    suite, page = full_suite(), PAGE.read_text()
    assert all(f"</a>{check_id} " in page for check_id in suite.ids)
    assert all(f"`{name}` " in " ".join(page.split()) for name in suite.limits)


def test_sql_and_digests_work_as_written(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(dataset, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    with duckdb.connect() as db:
        for having in ("CREATE VIEW videos", "CREATE TABLE aliases"):
            db.execute(blocks("sql", having))
        assert db.execute("SELECT count(*) FROM aliases").fetchall() == [(0,)]
        leaks = next(spec for spec in full_suite().specs("L1"))
        assert db.execute(leaks.sql).fetchall() == []
        add_split_set("out", "same", SplitParams(rule="ranked", giant="component", aliases=ALIASES), None)
        db.execute("DROP TABLE aliases")
        db.execute(blocks("sql", "CREATE TABLE aliases").replace("group.json", "same.json"))
        assert dict(db.execute("SELECT key, root FROM aliases").fetchall()) == alias_roots(ALIASES)
    exec(blocks("python", "hashlib"), {})
    found = (pq.read_metadata("out/manifests/videos.parquet").metadata or {})[b"lps.rows_sha256"]
    assert capsys.readouterr().out.strip() == found.decode()
