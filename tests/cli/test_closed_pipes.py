"""A reader that closes the pipe ends what is printed, and nothing else: not the reports, nor the exit code.

What cannot be written for another reason is one line and exit code 4.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lps.cli.audit.main import main
from lps.manifests.codes import Code, Stage
from lps.manifests.storage import Store
from lps.pipeline.config.params import Params
from lps.pipeline.faces.weights import LOCALIZER_WEIGHTS
from lps.pipeline.job.finalize import finalize
from lps.pipeline.job.plan import build_plan, publish_plan
from lps.pipeline.video.kept_probes import Probes
from lps.pipeline.video.probe import Probe
from tests.builders import folder_spec, folder_video

CHATTER = """
import click
from lps.cli.common import LpsGroup, console, echo

@click.group(cls=LpsGroup)
def main(): pass

@main.command()
@click.argument("printer", type=click.Choice(["echo", "rich", "print", "err"]))
def talk(printer):
    say = {"echo": echo, "rich": console().print, "print": print, "err": lambda line: echo(line, err=True)}[printer]
    for number in range(20_000):
        say(f"line {number}")
    raise click.exceptions.Exit(5)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a certified data set of two videos without clips, and one of which a file was changed."""
    place = tmp_path_factory.mktemp("pipes")
    for name in ("whole", "changed"):
        videos = [folder_video(f"{kind}/a.mp4", label) for label, kind in enumerate(("real", "fake"))]
        probes = {
            v.uri: Probe(n_bytes=9, sha256="0" * 63 + str(v.label), code=Code.E_PROBE, stage=Stage.PROBE)
            for v in videos
        }
        plan = build_plan(folder_spec(Params(), shard_bytes=1), videos, Probes.of(probes))
        publish_plan(plan, Store(str(place / name)))
        finalize(plan, Store(str(place / name)))
        for _ in range(2):  # where there is no shard, the first names no file in A5, the second itself
            assert CliRunner().invoke(main, ["certify", str(place / name), "--level", "quick"]).exit_code == 0
    with (place / "changed/plan/plan.json").open("ab") as file:
        file.write(b"\n")
    return place


def ended(program: str, *words: object, closed: str = "out", code: str = "") -> int:
    """Run a program whose stdout, stderr or both have no reader, and return its exit code."""
    start = code or f"from lps.cli.{program}.main import main"
    reader, gone = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"{start}\nmain()", *map(str, words)],
            stdout=gone if "out" in closed else subprocess.PIPE,
            stderr=gone if "err" in closed else subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(gone)
    assert not done.stderr or b"Broken" not in done.stderr, done.stderr
    return done.returncode


@pytest.mark.parametrize("printer", ["echo", "rich", "print", "err"])
def test_a_command_ends_with_its_exit_code_whoever_prints(printer: str) -> None:
    assert ended("", "talk", printer, closed="out err", code=CHATTER) == 5


def test_a_reader_that_takes_the_first_line_changes_no_exit_code(tmp_path: Path) -> None:
    script = tmp_path / "chatter.py"
    script.write_text(f"{CHATTER}\nmain()\n")
    line = f"set -o pipefail; '{sys.executable}' '{script}' talk echo | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (5, "line 0\n", "")


@pytest.mark.parametrize(("name", "code"), [("whole", 0), ("changed", 5)])
def test_an_audit_writes_its_reports_and_ends_with_its_verdict(
    place: Path, tmp_path: Path, name: str, code: int
) -> None:
    reports = {kind: tmp_path / f"report.{kind}" for kind in ("json", "html", "junit")}
    words = [word for kind, path in reports.items() for word in (f"--{kind}", path)]
    checks = ("check", place / name, "--checks", "A1,T4,L1")
    assert ended("audit", *checks, *words, "--reports", tmp_path / "kept") == code
    assert json.loads(reports["json"].read_bytes())["exit_code"] == code
    assert all(path.is_file() for path in reports.values())
    [kept] = (tmp_path / "kept").iterdir()
    assert len(list(kept.iterdir())) == 3
    assert ended("audit", *checks, "--json") == code
    assert ended("audit", *checks, "--json", "/dev/stdout") == code


def test_a_certificate_that_does_not_hold_ends_with_5(place: Path) -> None:
    assert ended("audit", "certify", place / "whole", "--verify") == 0
    assert ended("audit", "certify", place / "changed", "--verify") == 5


def test_other_commands_keep_their_codes(place: Path, tmp_path: Path) -> None:
    [weight, *_] = LOCALIZER_WEIGHTS["retinaface-mobilenet"]
    (tmp_path / weight.file_name).write_bytes(b"damaged")
    assert ended("prep", "weights", "check", "--weights-dir", tmp_path) == 4
    assert ended("prep", "status", place / "whole", "--json", tmp_path / "status.json") == 0
    assert json.loads((tmp_path / "status.json").read_bytes())
    for program in ("prep", "audit", "train"):
        assert ended(program, "--help") == 0
    assert ended("train", "figure", "stability", "x", "--before", tmp_path, "--after", tmp_path, closed="err") == 4
    assert ended("audit", "check", closed="out err") == 3


def by_shell(redirected: str, program: str, *words: object) -> tuple[int, str, str]:
    """Run a program with redirections of a shell, and return its exit code and what it printed elsewhere."""
    start = f"from lps.cli.{program}.main import main\nmain()"
    line = f'"$@" {redirected}'
    done = subprocess.run(
        ["bash", "-c", line, "bash", sys.executable, "-c", start, *map(str, words)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a disk that is always full")
def test_what_cannot_be_printed_is_one_line_and_4(place: Path, tmp_path: Path) -> None:
    said = "-c: cannot write to stdout: No space left on device\n"
    check = ("check", place / "whole", "--checks", "A1,T4,L1")
    reports = ("--html", tmp_path / "page.html", "--json", "-")
    assert by_shell("> /dev/full", "audit", *check, "--quiet", *reports) == (4, "", said)
    assert (tmp_path / "page.html").is_file()
    for words in (("show", place / "whole"), ("--help",)):
        code, _, err = by_shell("> /dev/full", "audit", *words)
        assert (code, err.endswith(said), "Traceback" in err) == (4, True, False), (words, err)
    code, _, _ = by_shell("> /dev/full", "audit", "check", place / "changed", "--checks", "A1,T4,L1")
    assert code == 5, "outranks the others"
    assert by_shell("2> /dev/full", "prep", "status", place / "absent")[0] == 4


@pytest.mark.parametrize("redirected", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_from_the_start_lead_nowhere(place: Path, redirected: str) -> None:
    for program, words in (("audit", ("show", place / "whole")), ("prep", ("status", place / "whole"))):
        code, _, err = by_shell(redirected, program, *words)
        assert (code, err) == (0, "")
