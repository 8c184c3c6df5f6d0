"""A run whose videos give no clip ends with a code of its own, whatever is allowed to fail."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from click.testing import CliRunner

from lps.cli.audit.main import main as audit
from lps.cli.prep.main import check_summary
from lps.manifests.errors import TooManyFailedError
from lps.manifests.schemas import VIDEOS, Row
from lps.pipeline.job.finalize import SUMMARY_COLUMNS, Summary, summarise

if TYPE_CHECKING:
    from tests.pipeline.conftest import Scenario

    Ended = subprocess.CompletedProcess[str]


def row(split: str | None, label: int, n_clips: int, code: str | None = None) -> Row:
    status = "ok" if n_clips else "skipped" if code and code.startswith("S_") else "failed"
    return {"split": split, "label": label, "n_clips": n_clips, "status": status, "error_code": code}


def counted(rows: list[dict[str, object]]) -> Summary:
    columns = pa.schema([VIDEOS.field(name) for name in SUMMARY_COLUMNS])
    nullable = pa.schema([(field.name, field.type) for field in columns])
    return summarise([pa.Table.from_pylist(rows, schema=nullable)], 0)


@pytest.mark.slow
def test_a_run_without_clips_ends_with_1(
    command: "Callable[..., Ended]",
    assert_one_line: "Callable[[Ended, int, str], None]",
    scenario: "Scenario",
    tmp_path: Path,
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    for name in ("no_face", "too_short"):
        (source / "real").mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(scenario.source) / f"real/{name}.mp4", source / f"real/{name}.mp4")
    for _ in range(2):  # also when nothing is left to do
        ended = command(out, "--max-failed", "100", source=str(source))
        assert_one_line(ended, 1, "no clips: none of 2 input files gave one (E_NO_FACE, E_TOO_SHORT)")
    assert (out / "index.json").exists()
    assert CliRunner().invoke(audit, ["check", str(out)]).exit_code == 1


def test_no_clips_at_all_is_not_done() -> None:
    with pytest.raises(TooManyFailedError, match=r"none of 2 input files gave one \(E_INTERNAL, S_FOREIGN\)"):
        check_summary(counted([row("train", 0, 0, "E_INTERNAL"), row(None, 1, 0, "S_FOREIGN")]), 100)
    with pytest.raises(TooManyFailedError, match="no videos"):
        check_summary(counted([]), 100)
    check_summary(counted([row("train", 0, 1)]), 0)


def test_a_class_of_a_split_without_clips_is_counted() -> None:
    found = counted([row("train", 0, 2), row("train", 1, 0, "E_NO_FACE"), row("val", 0, 0, "E_DECODE")])
    assert found.without_clips == (("train", "fake", 1), ("val", "real", 1))
    assert found.n_clips == 2
