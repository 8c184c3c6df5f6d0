"""The driver dies without warning; the next run finishes what it began, and the bytes do not tell."""

import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lps.pipeline.job.events import Planned, PrepEvent, ShardCommitted, SourceProbed, VideoDone

if TYPE_CHECKING:
    from lps.pipeline.job.request import PrepRequest
    from tests.pipeline.conftest import Digests, Scenario

pytestmark = pytest.mark.slow

DRIVER = """
import os, pickle, signal, sys
from pathlib import Path
from lps.pipeline.job.run import RunOptions, run_job

request = pickle.loads(Path(sys.argv[1]).read_bytes())
kind_of_death, n_left = sys.argv[2], int(sys.argv[3])

def on_event(event):
    global n_left
    n_left -= event.kind == kind_of_death
    if n_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

run_job(request, RunOptions(workers=1), on_event)
"""

TERMINATED = """
import os, signal, sys
from lps.cli.prep.main import main
from lps.cli.prep.progress import PrepProgress

def on_event(self, event, usual=PrepProgress.on_event):
    usual(self, event)
    if event.kind == "video":
        os.kill(os.getpid(), signal.SIGTERM)

PrepProgress.on_event = on_event
main(["run", *sys.argv[1:], "--localizer", "mtcnn", "--workers", "2"], prog_name="lps-prep")
"""

WITHOUT_A_PROCESS = """
import os, signal, sys
from pathlib import Path
from lps.cli.prep.main import main
from lps.cli.prep.progress import PrepProgress

def on_event(self, event, usual=PrepProgress.on_event):
    usual(self, event)
    if event.kind == "sources":
        for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\\0")[0].endswith(NAME.encode()):
                os.kill(int(pid), signal.SIGKILL)
                os.waitid(os.P_PID, int(pid), os.WEXITED | os.WNOWAIT)

NAME = sys.argv.pop(1)
PrepProgress.on_event = on_event
main(["plan", *sys.argv[1:], "--localizer", "mtcnn", "--workers", "2", "--json"], prog_name="lps-prep")
"""


def run_until(request: "PrepRequest", kind: str, number: int, folder: Path) -> None:
    """Run the job on a private cluster in a process that kills itself at the given event."""
    pickled = folder / "request.pickle"
    pickled.write_bytes(pickle.dumps(request))
    command = [sys.executable, "-c", DRIVER, str(pickled), kind, str(number)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def test_sigterm_ends_a_run_in_one_line(scenario: "Scenario", tmp_path: Path) -> None:
    command = [sys.executable, "-c", TERMINATED, scenario.source, str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 143, ended.stderr
    last = "lps-prep: interrupted by SIGTERM; committed shards are kept; run the same command again to resume"
    assert ended.stderr.splitlines()[-1] == last
    assert "received" not in ended.stderr, "no dump of Ray's"


@pytest.mark.parametrize(("name", "does"), [("raylet", "hands out work"), ("gcs_server", "knows the cluster")])
def test_the_death_of_a_process_of_ray_is_one_line(scenario: "Scenario", tmp_path: Path, name: str, does: str) -> None:
    command = [sys.executable, "-c", WITHOUT_A_PROCESS, name, scenario.source, str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 4, ended.stderr
    assert ended.stdout == "", "pages of Ray's own log"
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"lps-prep: the process of Ray on this machine that {does} ({name}) has ended; ")
    assert "state-dump" not in ended.stderr


def committed(out: Path) -> dict[str, tuple[int, int]]:
    """Return path -> inode and time of every committed tar and commit record."""
    found = {}
    for record in sorted((out / "commits").glob("*.json")):
        split = record.stem.rsplit("-", 1)[0]
        for path in (record, out / "shards" / split / f"{record.stem}.tar"):
            if path.exists():
                found[path.relative_to(out).as_posix()] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


@pytest.mark.parametrize(
    ("kind", "number", "n_at_least"),
    [("planned", 1, 0), ("shard", 1, 1), ("shard", 4, 4)],
    ids=["after the plan", "after the first shard", "before finalize"],
)
def test_a_run_after_a_killed_driver_keeps_what_is_committed(
    scenario: "Scenario",
    tmp_path: Path,
    undisturbed: "Digests",
    digests: "Callable[[Path], Digests]",
    kind: str,
    number: int,
    n_at_least: int,
) -> None:
    out = tmp_path / "out"
    run_until(scenario.request(out), kind, number, tmp_path)
    assert not (out / "index.json").exists()
    half = out / "shards/train/.train-000000.tar.0123abcd.tmp"  # as a writer that is killed at the wrong moment leaves
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(b"half a shard")
    kept: dict[str, tuple[int, int]] = {}

    def note(event: PrepEvent) -> None:
        if isinstance(event, Planned):
            kept.update(committed(out))

    result = scenario.run(scenario.request(out), note)
    shards = {Path(name).stem for name in kept}
    assert n_at_least <= len(shards) <= 4
    assert digests(out) == undisturbed
    assert {name: mark for name, mark in committed(out).items() if name in kept} == kept
    assert shards.isdisjoint(video.video.split("/")[0] for video in result.of(VideoDone))
    assert shards.isdisjoint(shard.shard_id for shard in result.of(ShardCommitted))


def test_a_killed_run_reads_no_header_twice_that_it_kept(
    scenario: "Scenario", tmp_path: Path, undisturbed: "Digests", digests: "Callable[[Path], Digests]"
) -> None:
    out = tmp_path / "out"
    run_until(scenario.request(out), "probed", 2, tmp_path)
    assert not (out / "plan/plan.json").exists()
    result = scenario.run(scenario.request(out))
    first, *others = result.of(SourceProbed)
    assert first.n_done >= 2, "one was kept, and another one is read now"
    assert [event.n_done for event in others] == list(range(first.n_done + 1, first.n_videos + 1))
    assert digests(out) == undisturbed
