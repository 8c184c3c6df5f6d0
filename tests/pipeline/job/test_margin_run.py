"""`lps-prep run` with a margin: the same clips with more around them, pairs and audit included."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from lps.cli.audit.main import main as audit
from lps.cli.prep.main import main as prep
from tests.builders import manifest_rows

if TYPE_CHECKING:
    from tests.pipeline.conftest import Ended

SAME = ("frame_idx", "box_xyxy", "lmk5", "align_M", "phash", "blur_var_med", "outside_share", "sample_key")
WIDE = "[crop]\nmargin = 1.3"
Check = Callable[["Ended", int, str], None]
Command = Callable[..., "Ended"]


@pytest.mark.slow
def test_a_run_with_a_margin(command: Command, undisturbed_out: Path, assert_one_line: Check, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = command(out, "--pairing", "original", settings=WIDE)
    assert ended.returncode == 0, ended.stderr
    plain = {row["sample_key"]: row for row in manifest_rows(undisturbed_out, "clips") if row["label"] == 0}
    rows = manifest_rows(out, "clips")
    assert {row["sample_key"] for row in rows if row["label"] == 0} == set(plain)  # fakes have windows of originals
    assert {(row["out_size"], row["align_template"]) for row in rows} == {(291, "arcface5-224x0.85")}
    for row in rows:
        if row["label"] == 0:
            before = plain[row["sample_key"]]
            assert {name: row[name] for name in SAME} == {name: before[name] for name in SAME}
    assert {row["pair_mode"] for row in rows if row["label"] == 1} == {"shared"}
    card = (out / "README.md").read_text()
    assert "each is 291 × 291 px" in card
    assert "the inner square of 224 × 224 px, from px 33 on" in card
    found = CliRunner().invoke(audit, ["check", str(out), "--level", "full", "--json", "-"], prog_name="lps-audit")
    states = {each["id"]: each["state"] for each in json.loads(found.stdout)["checks"]}
    assert {name: states[name] for name in ("C3", "C4", "C7", "C8")} == dict.fromkeys(("C3", "C4", "C7", "C8"), "pass")

    again = command(out, "--pairing", "original", settings="[crop]\nmargin = 1.2")
    assert_one_line(again, 3, "was planned differently: params.crop.margin was 1.3, now 1.2. Restore that, or")
    without = command(out, "--pairing", "original")
    assert_one_line(without, 3, "was planned differently: params.crop.margin was 1.3, now 1.0. Restore that, or")


@pytest.mark.parametrize("margin", ["0.9", "2.5", '"wide"'])
def test_a_margin_out_of_bounds_is_one_line(tmp_path: Path, margin: str) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(f"[crop]\nmargin = {margin}\n")
    line = ["run", str(tmp_path), str(tmp_path / "out"), "--localizer", "mtcnn", "--params", str(settings)]
    ended = CliRunner().invoke(prep, line, prog_name="lps-prep")
    what = (
        f"'crop.margin' must be a number, got {margin[1:-1]!r}"
        if '"' in margin
        else (f"[crop] is not usable: margin must be from 1 to 2, got {margin}")
    )
    assert (ended.exit_code, ended.stderr) == (4, f"lps-prep: {settings}: {what}\n")
    assert not (tmp_path / "out").exists()
