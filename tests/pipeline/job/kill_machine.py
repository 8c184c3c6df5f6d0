"""What is killed at any write: commands on a data set of four small videos, and a process that runs and kills them.

`killed_writes.py` is that process. Tests and `benchmarks/attack` share what is here.
"""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from lps.manifests.environment import is_unfinished
from lps.pipeline.tools.demo_videos import make_texture_video
from tests.guarantees import Window, windows

if TYPE_CHECKING:
    from tests.pipeline.job.killed_writes import Asked, Ended

REPOSITORY = Path(__file__).resolve().parents[3]
VIDEOS = ("real/a.mp4", "real/b.mp4", "real/faceless.mp4", "fake/blend/c.mp4")
SETTINGS = """
clip_frames = 5
block_frames = 5
[split]
ratios = [0.6, 0.2, 0.2]
"""
TAR = "shards/train/train-000000.tar"
Command = tuple[str, ...]

RUN = ("lps-prep", "run", "SOURCE", "OUT", "--localizer", "mtcnn", "--params", "SETTINGS", "--workers", "1")
SPLIT = ("lps-prep", "split", "OUT", "--rule", "ranked", "--name", "ranked-v1")
SEAL = ("lps-audit", "seal", "OUT", "--key", "KEY")
RETRY = ("lps-prep", "retry", "OUT", "--code", "E_WORKER_LOST")
REPLAN = (*RETRY, "--replan")


@dataclass(frozen=True, slots=True)
class Disk:
    """What is wrong with the disk that a command writes to."""

    max_bytes: int = 0
    """Writes beyond so many bytes into a file fail; 0: none does."""
    pause_ms: int = 0
    """So long every write waits."""


WELL = Disk()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A command that is killed, and what comes before and after."""

    killed: Command
    before: tuple[Command, ...] = ()
    """Make the output that the command finds; the first one loses the worker of every task with `crash` in its name."""
    crash: str = ""
    lost: tuple[str, ...] = ()
    """Files that are removed then."""
    after: tuple[Command, ...] = ()
    """What a user does then: as a rule, the same command. Ones but the last may find that there is nothing to do."""


SCENARIOS = {
    "a new run": Scenario(RUN, after=(RUN,)),
    "a run that mends": Scenario(
        RUN, before=(RUN, SPLIT), lost=(TAR, "commits/val-000000.clips.parquet"), after=(RUN,)
    ),
    # a run that has nothing to do removes what a killed writer left
    "split": Scenario(SPLIT, before=(RUN,), after=(SPLIT, RUN)),
    "seal": Scenario(SEAL, before=(RUN,), after=(SEAL, RUN)),
    "retry": Scenario(RETRY, before=(RUN,), crash="process real/a.mp4", after=(RETRY, RUN)),
    "retry of a header": Scenario(REPLAN, before=(RUN,), crash="probe real/a.mp4", after=(REPLAN, RUN)),
}
NOTHING_LEFT = {0, 3, 4}
"""Exit codes of what may find nothing to do: done, refused (done before), no plan (withdrawn before)."""
TEST = ("tests/pipeline/job/test_killed_writes.py", "test_killed_at_any_write")
WINDOWS: Sequence[Window] = [window for window in windows() if TEST in window.tests]
"""Those of docs/guarantees.md that are reached here."""


class Machine:
    """Runs commands in a process that forks, and kills them."""

    def __init__(
        self, source: Path, folder: Path, env: Mapping[str, str] | None = None, *, patience_seconds: int = 0
    ) -> None:
        """Start the process. With patience, a command that takes longer is ended, and given once more.

        A fork in which a thread waits for a lock that another one held when it was made waits for ever, which a
        process of its own does not: so it was with DuckDB's threads at their end.
        """
        self.folder, self.patience_seconds = folder, patience_seconds
        (folder / "settings.toml").write_text(SETTINGS)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
        self.words = {"SOURCE": str(source), "SETTINGS": str(folder / "settings.toml"), "KEY": str(folder / "key")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.pipeline.job.killed_writes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=env,
            process_group=0,  # Ctrl-C is for who asks
        )

    def ask(
        self,
        command: Command,
        out: Path,
        *,
        url: str = "",
        kill_at: int = 0,
        crash: str = "",
        disk: Disk = WELL,
        seconds: int = 0,
        words: Mapping[str, str] = MappingProxyType({}),
    ) -> "Ended":
        """Run a command on an output, under its URL if it has one. `words` stand for those of the command."""
        known = {**self.words, "OUT": url or str(out), **words}
        line = [known.get(word, word) for word in command]
        asked: Asked = {
            "command": line, "watch": str(out), "kill_at": kill_at, "crash": crash,
            "max_bytes": disk.max_bytes, "pause_ms": disk.pause_ms,
            "seconds": seconds or self.patience_seconds,
        }  # fmt: skip
        ended = self._told(asked)
        return self._told(asked) if ended["code"] == -signal.SIGALRM and self.patience_seconds else ended

    def _told(self, asked: "Asked") -> "Ended":
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        ended: Ended = json.loads(self.process.stdout.readline())
        return ended

    def prepared(self, scenario: Scenario, name: str, scheme: str) -> Path:
        """Return the output that the killed command of a scenario finds."""
        out = self.folder / f"{name} before"
        out.mkdir()
        for k, command in enumerate(scenario.before):
            ended = self.ask(command, out, url=scheme and f"{scheme}{out}", crash="" if k else scenario.crash)
            assert ended["code"] in (0, 1), ended
        for path in scenario.lost:
            (out / path).unlink()
        return out

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def make_source(folder: Path) -> Path:
    """Make a folder with small videos that differ in their last bytes, and return it."""
    make_texture_video(folder / "one.mp4", n_frames=2, width=64, height=64)
    data = (folder / "one.mp4").read_bytes()
    (folder / "one.mp4").unlink()
    for name in VIDEOS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        box = b"free" + name.encode()  # players skip it
        (folder / name).write_bytes(data + (len(box) + 4).to_bytes(4, "big") + box)
    return folder


def window_of(path: str) -> int | None:
    """Return the number of the window before a write, by the file's name; None for a file that the page lacks."""
    folder, slash, name = path.rpartition("/")
    whole = folder + slash + (name[1:-13] if is_unfinished(name) else name)
    return next((window.number for window in WINDOWS if window.holds(whole)), None)


def deaths(writes: Sequence[tuple[str, str]]) -> list[int]:
    """Return at which writes to die, counted from 1: the first write and the first removal of each window.

    A new file is written under a temporary name: then just before it gets its own, when all of it is there.
    """
    is_local = any(what == "name" for what, _ in writes)
    known = [
        ((what, window_of(path)), k) for k, (what, path) in enumerate(writes, 1) if not is_local or what != "begin"
    ]
    assert not [writes[k - 1] for (_, window), k in known if window is None], "windows that docs/guarantees.md lacks"
    return sorted(dict(reversed(known)).values())


def finish(machine: Machine, scenario: Scenario, out: Path, scheme: str) -> None:
    """Do what a user does after a command was killed."""
    for command in scenario.after:
        ended = machine.ask(command, out, url=scheme and f"{scheme}{out}")
        is_last = command == scenario.after[-1]
        assert ended["code"] in ({0} if is_last else NOTHING_LEFT), ended


def digests_of(out: Path) -> dict[str, str]:
    """Return path -> SHA-256 of every file of a data set that must be a pure function of its inputs."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    names = {path.relative_to(out).as_posix(): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if not name.startswith("runs/")
    }


def unfinished(out: Path) -> list[str]:
    """Return the temporary files that a killed writer left."""
    return [path.relative_to(out).as_posix() for path in out.rglob("*") if is_unfinished(path.name)]


def copy_of(folder: Path, to: Path) -> Path:
    """Copy a folder anew and return the copy."""
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(folder, to, symlinks=True))
