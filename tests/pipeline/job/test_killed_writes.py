"""Killed before and after any write, a command that is given again leaves the bytes of one that nothing disturbed.

`killed_writes.py` does the killing; here is what is killed, what a user does then, and what must be there at the end.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lps.manifests.environment import is_unfinished
from lps.pipeline.tools.demo_videos import make_texture_video
from tests.conftest import REPOSITORY
from tests.guarantees import windows

if TYPE_CHECKING:
    from tests.pipeline.conftest import Digests
    from tests.pipeline.job.killed_writes import Asked, Ended

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


class Machine:
    """Runs commands in a process that forks, and kills them."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.folder = folder
        (folder / "settings.toml").write_text(SETTINGS)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
        self.words = {"SOURCE": str(source), "SETTINGS": str(folder / "settings.toml"), "KEY": str(folder / "key")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.pipeline.job.killed_writes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )

    def ask(self, command: Command, out: Path, *, url: str = "", kill_at: int = 0, crash: str = "") -> "Ended":
        """Run a command on an output, under its URL if it has one."""
        words = {**self.words, "OUT": url or str(out)}
        line = [words.get(word, word) for word in command]
        asked: Asked = {"command": line, "watch": str(out), "kill_at": kill_at, "crash": crash}
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


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with small videos that differ in their last bytes."""
    folder = tmp_path_factory.mktemp("source")
    make_texture_video(folder / "one.mp4", n_frames=2, width=64, height=64)
    data = (folder / "one.mp4").read_bytes()
    (folder / "one.mp4").unlink()
    for name in VIDEOS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        box = b"free" + name.encode()  # players skip it
        (folder / name).write_bytes(data + (len(box) + 4).to_bytes(4, "big") + box)
    return folder


@pytest.fixture(scope="module")
def machine(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Start the process that forks."""
    made = Machine(source, tmp_path_factory.mktemp("killed"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def new(machine: Machine, digests: "Callable[[Path], Digests]") -> "Digests":
    """Return the digests of a run that nothing disturbs, of sources that are all well."""
    out = machine.folder / "new"
    assert machine.ask(RUN, out)["code"] == 0
    return digests(out)


pytestmark = pytest.mark.slow
THIS = (Path(__file__).relative_to(REPOSITORY).as_posix(), "test_killed_at_any_write")
WINDOWS = [window for window in windows() if THIS in window.tests]


def window_of(path: str) -> int | None:
    """Return the number of the window before a write, by the file's name; None for a file that the page lacks."""
    folder, slash, name = path.rpartition("/")
    whole = folder + slash + (name[1:-13] if is_unfinished(name) else name)
    return next((window.number for window in WINDOWS if window.holds(whole)), None)


def deaths(writes: "list[tuple[str, str]]") -> list[int]:
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


@pytest.mark.parametrize(
    ("name", "scheme"), [*((name, "") for name in SCENARIOS), *((name, "bucket://") for name in ("a new run", "retry"))]
)
def test_killed_at_any_write(
    machine: Machine, digests: "Callable[[Path], Digests]", new: "Digests", name: str, scheme: str
) -> None:
    scenario, label = SCENARIOS[name], f"{name} {scheme[:6]}"
    before = machine.prepared(scenario, label, scheme)
    whole = Path(shutil.copytree(before, machine.folder / f"{label} whole"))
    undisturbed = machine.ask(scenario.killed, whole, url=scheme and f"{scheme}{whole}")
    assert undisturbed["code"] == 0, undisturbed
    finish(machine, scenario, whole, scheme)
    expected = digests(whole)
    assert not scenario.crash or expected == new, "a retry gives what a run without the fault gives"

    out = machine.folder / f"{label} out"
    for kill_at in deaths(undisturbed["writes"]):
        where = f"before {undisturbed['writes'][kill_at - 1]}"
        shutil.copytree(before, out)
        assert machine.ask(scenario.killed, out, url=scheme and f"{scheme}{out}", kill_at=kill_at)["code"] == -9, where
        finish(machine, scenario, out, scheme)
        assert digests(out) == expected, where
        assert not [path for path in out.rglob("*") if is_unfinished(path.name)], where
        shutil.rmtree(out)


def test_killed_again_and_again(machine: Machine, digests: "Callable[[Path], Digests]", new: "Digests") -> None:
    out = machine.folder / "again"
    codes = [machine.ask(RUN, out, kill_at=kill_at)["code"] for kill_at in range(9, 28, 3)]
    assert codes.count(-9) > 4
    assert machine.ask(RUN, out)["code"] == 0
    assert digests(out) == new


def test_a_run_killed_without_its_index_still_knows_the_digests_of_split_sets(machine: Machine) -> None:
    scenario = SCENARIOS["a run that mends"]
    out = machine.prepared(scenario, "other set", "")
    shutil.copyfile(out / "manifests/splits/group.parquet", out / "manifests/splits/ranked-v1.parquet")
    whole = Path(shutil.copytree(out, machine.folder / "other set whole"))
    writes = [tuple(write) for write in machine.ask(RUN, whole)["writes"]]
    away = writes.index(("remove", "index.json")) + 1
    assert machine.ask(RUN, out, kill_at=away + 1)["code"] == -9
    assert not (out / "index.json").exists()
    assert machine.ask(RUN, out)["code"] == 0
    for place in (out, whole):
        assert "ranked-v1" not in (place / "index.json").read_text()
