"""Commands in any order, some killed at any write: after every one the promises of docs/guarantees.md hold.

Steps are drawn by Hypothesis; LPS_EXAMPLES sets how many sequences of them, `-s` and an `LPS_SEED` other ones.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lps.manifests.environment import is_unfinished
from lps.manifests.index import CARDS
from tests.pipeline.job.kill_machine import RETRY, RUN, SEAL, Command, Machine, digests_of, make_source, unfinished

if TYPE_CHECKING:
    from tests.pipeline.job.killed_writes import Ended

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

N_EXAMPLES = int(os.environ.get("LPS_EXAMPLES", "3"))
STATUS: Command = ("lps-prep", "status", "OUT", "--json", "STATUS")
PLAN: Command = ("lps-prep", "plan", *RUN[2:])
AUDIT: Command = ("lps-audit", "check", "OUT", "--level", "quick", "--quiet", "--json", "AUDIT")
UNREADABLE, BROKEN = 4, 5
"""Exit codes of an audit: no data set, or not a complete one; bytes are wrong, which is the code of a run, too."""
OF_SEALS = {"T1", "T2", "T3"}
OF_BYTES = {"A2", "A5", "T1", "T4"}
"""Checks that fail where files are lost, changed since a seal, or named by nothing."""
SETS = ("ranked-v1", "other")
NAMES_SPLIT_SETS = ("index.json", *CARDS)
LOSABLE = ("shards/*/*.tar", "commits/*.parquet", "manifests/*.parquet", "index.json")
"""What a run makes again."""
KILLED = -9
ANY_WRITE = st.integers(1, 60)


@dataclass(slots=True)
class World:
    """What all sequences share."""

    machine: Machine
    whole: dict[str, str]
    """Digests of a run that nothing disturbs."""
    audit_code: int
    audited: dict[str, str]
    """Check -> state, as an audit of that run has them."""
    n_sequences: int = 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Start the process that forks, and run once."""
    folder = tmp_path_factory.mktemp("states")
    machine = Machine(make_source(folder / "source"), folder, patience_seconds=200)
    out = folder / "whole"
    assert machine.ask(RUN, out)["code"] == 0
    code = machine.ask(AUDIT, out, words={"AUDIT": str(folder / "audit.json")})["code"]
    yield World(machine, digests_of(out), code, states_of(folder / "audit.json"))
    machine.close()


def states_of(report: Path) -> dict[str, str]:
    """Return check -> state of an audit's report."""
    return {check["id"]: check["state"] for check in json.loads(report.read_bytes())["checks"]}


class JobStates(RuleBasedStateMachine):
    """An output, and what a user may do to it."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.world.n_sequences += 1
        self.out = self.world.machine.folder / f"out-{self.world.n_sequences}"
        self.crashed = False
        """A row may say that a worker was lost."""
        self.loose: set[str] = set()
        """Split sets whose command was killed: no index may name them yet."""
        self.whole = False
        """What the status says after the last step."""

    def teardown(self) -> None:
        """Whatever came before, a run, and a retry where a worker was lost, leave the undisturbed bytes."""
        if self.crashed:
            self.ask(RUN, {0, 1})
            self.ask(RETRY, {0, 3})
            self.crashed = False
        self.ask(RUN, {0})
        names = json.loads((self.out / "index.json").read_bytes())["manifests"]
        varies = NAMES_SPLIT_SETS if any(f"manifests/splits/{name}.parquet" in names for name in SETS) else ()
        left, whole = (
            {name: digest for name, digest in digests.items() if "splits/" not in name and name not in varies}
            for digests in (self.digests(), self.world.whole)
        )
        assert left == whole
        assert unfinished(self.out) == []
        self.audit()
        shutil.rmtree(self.out)

    # ---- steps

    @rule()
    def run(self) -> None:
        before = self.marks()
        self.ask(RUN, {0, 1} if self.crashed else {0})
        if self.whole:
            assert self.marks() == before, "a run that has nothing to do rewrites nothing"

    @rule(kill_at=ANY_WRITE)
    def run_killed(self, kill_at: int) -> None:
        self.ask(RUN, {0, 1} if self.crashed else {0}, kill_at=kill_at)

    @rule(kill_at=st.sampled_from((0, 0, 3, 12, 14, 15)))
    def plan(self, kill_at: int) -> None:
        before = self.marks()
        code = self.ask(PLAN, {0}, kill_at=kill_at)["code"]
        new = {name: mark for name, mark in self.marks().items() if before.get(name) != mark}
        may_change = "plan/" if "plan/plan.json" not in before else "nothing"
        assert [name for name in new if not name.startswith(may_change)] == [], "a plan processes no video"
        assert code == KILLED or (self.out / "plan/plan.json").exists()

    @precondition(lambda self: self.out.exists())
    @rule()
    def audit(self) -> None:
        before, expected = self.marks(), self.audit_code()
        report = self.out.with_suffix(".audit")
        ended = self.ask(AUDIT, {expected})
        assert (ended["writes"], self.marks()) == ([], before), "an audit changes nothing"
        if expected == UNREADABLE:
            assert not report.exists()
            return
        states = states_of(report)
        report.unlink()
        failed = {check for check in OF_BYTES if states[check] == "fail"}
        assert bool(failed) == (expected == BROKEN), failed
        if not failed and not self.crashed:
            assert {name: state for name, state in states.items() if name not in OF_SEALS} == {
                name: state for name, state in self.world.audited.items() if name not in OF_SEALS
            }

    @rule(task=st.sampled_from(("process real/a.mp4", "process fake/blend/c.mp4")))
    def run_with_a_lost_worker(self, task: str) -> None:
        codes = {0, 1, BROKEN} if self.lacks_what_is_committed() else {0, 1}
        self.crashed |= self.ask(RUN, codes, crash=task)["code"] != BROKEN

    @rule(kill_at=st.sampled_from((0, 0, 1, 3, 5, 8)))
    def retry(self, kill_at: int) -> None:
        self.ask(RETRY, {0, 3, 4}, kill_at=kill_at)

    @rule(name=st.sampled_from(SETS), kill_at=st.sampled_from((0, 0, 2, 4, 6)))
    def split(self, name: str, kill_at: int) -> None:
        command = ("lps-prep", "split", "OUT", "--rule", "ranked", "--name", name)
        code = self.ask(command, {0, 3, 4}, kill_at=kill_at)["code"]
        if code == KILLED:
            self.loose.add(name)
        elif code == 0:
            self.loose.discard(name)

    @rule(kill_at=st.sampled_from((0, 0, 1, 2)))
    def seal(self, kill_at: int) -> None:
        self.ask(SEAL, {0, 3, 4, 5}, kill_at=kill_at)

    # A shard that charged a video for its worker is not the same when it is made again without: it is refused (code 5).
    @precondition(lambda self: self.out.exists() and not self.crashed)
    @rule(kind=st.sampled_from(LOSABLE), number=st.integers(0, 10))
    def lose(self, kind: str, number: int) -> None:
        files = sorted(self.out.glob(kind))
        if files:
            files[number % len(files)].unlink()

    # ---- promises

    @invariant()
    def no_file_is_there_in_part(self) -> None:
        for path in self.files():
            data = path.read_bytes()
            if path.suffix == ".json":
                json.loads(data)
            elif path.suffix == ".parquet":
                pq.read_table(io.BytesIO(data))

    @invariant()
    def a_committed_shard_is_its_tar(self) -> None:
        for path in self.out.glob("commits/*.json"):
            shard = json.loads(path.read_bytes())["shard"]
            if shard is not None and (tar := self.out / shard["uri"]).exists():  # or it was taken away
                assert hashlib.sha256(tar.read_bytes()).hexdigest() == shard["sha256"]

    @invariant()
    def the_status_adds_up(self) -> None:
        found = self.status()
        self.whole = found is not None and bool(found["complete"])
        if found is not None:
            n_commits = len(list(self.out.glob("commits/*.json")))
            assert found["shards"]["done"] <= n_commits <= found["shards"]["total"]
            assert found["videos"]["done"] <= found["videos"]["total"] == 4
            assert found["complete"] <= (found["shards"]["done"] == found["shards"]["total"])
        if self.whole:
            self.assert_the_index_names_what_is_there()

    def assert_the_index_names_what_is_there(self) -> None:
        """Compare the files of a whole data set with its index."""
        index = json.loads((self.out / "index.json").read_bytes())
        named = {path: facts["sha256"] for path, facts in index["manifests"].items()}
        named |= {shard["uri"]: shard["sha256"] for shards in index["shards"].values() for shard in shards}
        listed = ("manifests/", "shards/", "README.md", "croissant.json")
        found = {name: digest for name, digest in self.digests().items() if name.startswith(listed)}
        loose = {f"manifests/splits/{name}.{suffix}" for name in self.loose for suffix in ("parquet", "json")}
        assert {name: digest for name, digest in found.items() if name in named or name not in loose} == named

    # ---- tools

    def lacks_what_is_committed(self) -> bool:
        """Tell whether a shard or a table of a commit was lost."""
        for path in self.out.glob("commits/*.json"):
            record = json.loads(path.read_bytes())
            names = [f"commits/{record['shard_id']}.{table}.parquet" for table in record["rows"]]
            names += [record["shard"]["uri"]] if record["shard"] is not None else []
            if not all((self.out / name).exists() for name in names):
                return True
        return False

    def audit_code(self) -> int:
        """Return the exit code that docs/audit.md has for an audit of what is there."""
        found = self.digests()
        if "index.json" not in found:
            return UNREADABLE
        index = json.loads((self.out / "index.json").read_bytes())
        if not found.keys() >= index["manifests"].keys():
            return UNREADABLE
        loose = {name for name in found if name.startswith("manifests/")} - index["manifests"].keys()
        if loose or self.lacks_what_is_committed():
            return BROKEN
        seals = sorted(self.out.glob("seals/*.json"))
        sealed = json.loads(seals[-1].read_bytes())["files"] if seals else []
        is_sealed = not seals or found == {file["path"]: file["sha256"] for file in sealed}
        return self.world.audit_code if is_sealed else BROKEN

    def ask(self, command: Command, codes: set[int], *, kill_at: int = 0, crash: str = "") -> "Ended":
        """Run a command; it ends as it may, or dies where it was told to."""
        words = {"STATUS": str(self.out.with_suffix(".status")), "AUDIT": str(self.out.with_suffix(".audit"))}
        ended = self.world.machine.ask(command, self.out, kill_at=kill_at, crash=crash, words=words)
        assert ended["code"] in (codes | {KILLED} if kill_at else codes), ended
        assert "Traceback" not in ended["stderr"], ended
        return ended

    def status(self) -> dict[str, Any] | None:
        """Return what `status` says; None where there is no plan."""
        path = self.out.with_suffix(".status")
        path.unlink(missing_ok=True)
        self.ask(STATUS, {0, 4})
        found: dict[str, Any] | None = json.loads(path.read_bytes()) if path.exists() else None
        return found

    def files(self) -> list[Path]:
        """Return all files that have their names."""
        return [path for path in self.out.rglob("*") if path.is_file() and not is_unfinished(path.name)]

    def digests(self) -> dict[str, str]:
        """Return the digests of the data set, without seals and what killed writers left."""
        found = digests_of(self.out)
        return {
            name: digest
            for name, digest in found.items()
            if not name.startswith("seals/") and not is_unfinished(name.rpartition("/")[2])
        }

    def marks(self) -> dict[str, tuple[int, int]]:
        """Return inode and time of every file but logs and what killed writers left."""
        facts = {path.relative_to(self.out).as_posix(): path.stat() for path in self.files()}
        return {
            name: (fact.st_ino, fact.st_mtime_ns)
            for name, fact in facts.items()
            if not name.startswith("runs/")
        }  # fmt: skip


def test_after_any_commands_in_any_order_the_promises_hold(world: World) -> None:
    states = type("States", (JobStates,), {"world": world})
    run_state_machine_as_test(
        states,
        settings=settings(
            max_examples=N_EXAMPLES,
            stateful_step_count=7,
            deadline=None,
            derandomize="LPS_SEED" not in os.environ,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
