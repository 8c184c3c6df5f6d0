"""Attack with kills: at every named crash window, and of every process of a run on Ray at random moments.

After each, the same command must finish what was begun: the bytes are those of a run that nothing disturbed, nothing
temporary is left, and the audit says what it says of that run.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.attack.records import Budget, Place, Try, Verdict
from tests.guarantees import Window, windows
from tests.pipeline.job.kill_machine import (
    REPOSITORY,
    RUN,
    SCENARIOS,
    WINDOWS,
    Command,
    Machine,
    copy_of,
    deaths,
    digests_of,
    finish,
    make_source,
    unfinished,
    window_of,
)

ARM = "kills"
AUDIT = ("lps-audit", "check", "OUT", "--level", "quick", "--quiet")
SCHEMES = ("", "bucket://")
OTHER_WINDOWS = [window for window in windows() if window not in WINDOWS]
"""Of trainers, caches and converts: reached by the tests that the page names."""
DEADLINE_SECONDS = 400
PATIENCE_SECONDS = 200
"""For a command of some tenths of a second, on a busy machine."""
ENDING_SECONDS = 180.0
"""For the processes of a run whose driver or GCS was killed. Ray's own give up on a GCS that is gone after 60 s
(`RAY_gcs_rpc_server_reconnect_timeout_s`), counted from when they first ask it, which is after their imports."""
CODES_OF_A_RUN = {0, 1, 4, 130, 143, -signal.SIGKILL, -signal.SIGTERM}
"""What may come of a run one of whose processes was killed; the last two are the driver's own death."""
PROCESSES = {
    "raylet": re.compile(r"/raylet\b"),
    "gcs": re.compile(r"/gcs_server\b"),
    "agent": re.compile(r"runtime_env/agent|dashboard/agent|(dashboard|runtime_env)_agent|agent/main\.py"),
    "log monitor": re.compile(r"log_monitor\.py|autoscaler/_private/monitor\.py"),
    "worker": re.compile(r"ray::|default_worker\.py"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A scenario before its command is killed, and what must be there at the end."""

    name: str
    scheme: str
    before: Path
    writes: list[tuple[str, str]]
    expected: dict[str, str]


@dataclass(slots=True)
class Range:
    """The machine that kills, and what is known of undisturbed runs."""

    machine: Machine
    targets: dict[tuple[str, str], Target] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)
    audit_code: int = 0
    run_seconds: float = 8.0
    """Of a run on Ray, from the start of its raylet to its end, as far as is known."""

    @classmethod
    def at(cls, folder: Path) -> "Range":
        """Start the machine, and run once without a kill."""
        (folder / "machine").mkdir(parents=True)
        made = cls(Machine(make_source(folder / "source"), folder / "machine", patience_seconds=PATIENCE_SECONDS))
        out = folder / "undisturbed"
        if made.machine.ask(RUN, out)["code"] != 0:
            raise RuntimeError("the undisturbed run failed")
        made.whole, made.audit_code = digests_of(out), audit_alone(out)[0]
        return made

    def target(self, name: str, scheme: str) -> Target:
        """Return a scenario, prepared once."""
        if (name, scheme) not in self.targets:
            label, scenario = f"{name} {scheme[:6]}", SCENARIOS[name]
            before = self.machine.prepared(scenario, label, scheme)
            whole = copy_of(before, self.machine.folder / f"{label} whole")
            ended = self.machine.ask(scenario.killed, whole, url=scheme and f"{scheme}{whole}")
            finish(self.machine, scenario, whole, scheme)
            self.targets[name, scheme] = Target(
                name, scheme, before, [(what, path) for what, path in ended["writes"]], digests_of(whole)
            )
        return self.targets[name, scheme]

    def ended_well(self, out: Path, expected: dict[str, str], *, audited: bool) -> tuple[Verdict, str]:
        """Return the verdict over what a resumed command left."""
        found = digests_of(out)
        if found != expected:
            names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            return Verdict.WRONG, f"other bytes than undisturbed: {', '.join(names[:4])}"
        if left := unfinished(out):
            return Verdict.WRONG, f"temporary files are left: {left[0]}"
        if audited:
            code, last = audit_alone(out)
            if code != self.audit_code:
                return Verdict.WRONG, f"the quick audit ends with {code} instead of {self.audit_code}: {last}"
        return Verdict.SURVIVED, "resumed to the same bytes"


def audit_alone(out: Path, command: Command = AUDIT) -> tuple[int, str]:
    """Return exit code and last line of an audit in a process of its own: in forks DuckDB may wait for ever."""
    program, *words = (str(out) if word == "OUT" else word for word in command)
    line = [str(Path(sys.executable).parent / program), *words]
    ended = subprocess.run(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=DEADLINE_SECONDS, check=False
    )
    said = ended.stderr.decode(errors="backslashreplace").strip().splitlines() or [""]
    return ended.returncode, "Traceback: " * any(one.startswith("Traceback") for one in said) + said[-1]


# ---- at a write ------------------------------------------------------------------------------------------------------


def kill_at_a_window(reach: Range, rng: random.Random, out: Path) -> tuple[str, str, Verdict, str]:
    """Kill a command just before a write of a named window, at times again when it is resumed."""
    name, scheme = rng.choice(list(SCENARIOS)), rng.choice(SCHEMES)
    scheme = scheme if name in ("a new run", "retry") else ""
    target, scenario = reach.target(name, scheme), SCENARIOS[name]
    kill_at = rng.choice(deaths(target.writes))
    what, path = target.writes[kill_at - 1]
    done = f"{name} {scheme}: killed before {what} {path}"
    copy_of(target.before, out)
    url = scheme and f"{scheme}{out}"
    kind = f"window {window_of(path)}"
    if (code := reach.machine.ask(scenario.killed, out, url=url, kill_at=kill_at)["code"]) != -9:
        return kind, done, Verdict.WRONG, f"was not killed there, ended with {code}"
    if rng.random() < 0.3:
        again = rng.randint(1, max(2, len(target.writes)))
        done += f", then before write {again} of the same command"
        reach.machine.ask(scenario.killed, out, url=url, kill_at=again)
    try:
        finish(reach.machine, scenario, out, scheme)
    except AssertionError as e:
        return kind, done, Verdict.STUCK, str(e)[:300]
    return kind, done, *reach.ended_well(out, target.expected, audited=False)


def kill_by_a_test(window: Window) -> tuple[str, str, Verdict, str]:
    """Run the tests that docs/guarantees.md names for a window."""
    names = [f"{file}::{name}" for file, name in window.tests]
    line = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-x", "-p", "no:cacheprovider", *names]
    ended = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    said = (ended.stdout.strip().splitlines() or [""])[-1]
    verdict = Verdict.SURVIVED if ended.returncode == 0 else Verdict.STUCK
    return f"window {window.number}", " ".join(names), verdict, "its tests pass" if ended.returncode == 0 else said


# ---- at a moment -----------------------------------------------------------------------------------------------------


def descendants(root: int) -> dict[int, str]:
    """Return process id -> command line of all processes below one."""
    parents, lines = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            pid = int(stat.parent.name)
            parents[pid] = int(stat.read_text().rpartition(") ")[2].split()[1])
            lines[pid] = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    below = {root}
    while more := {pid for pid, parent in parents.items() if parent in below and pid not in below}:
        below |= more
    return {pid: lines[pid] for pid in below - {root}}


def kind_of(line: str) -> str:
    """Return what a process of Ray is."""
    return next((name for name, pattern in PROCESSES.items() if pattern.search(line)), "other")


def run_on_ray(reach: Range, out: Path, log: Path) -> "subprocess.Popen[bytes]":
    """Start a run with a private cluster."""
    words = {**reach.machine.words, "OUT": str(out)}
    line = [words.get(word, word) for word in (*RUN[1:-1], "2")]
    command = [sys.executable, "-m", "benchmarks.attack.instant_run", *line]
    with log.open("wb") as file:
        return subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=file, stdin=subprocess.DEVNULL
        )


def await_raylet(run: "subprocess.Popen[bytes]") -> None:
    """Wait until the cluster of a run begins, or the run ends: before that there is only its driver to kill."""
    while run.poll() is None and not any(kind_of(line) == "raylet" for line in descendants(run.pid).values()):
        time.sleep(0.05)


def kill_at_a_moment(reach: Range, rng: random.Random, out: Path) -> tuple[str, str, Verdict, str]:
    """Kill one process of a run on Ray after a random time, and resume."""
    shutil.rmtree(out, ignore_errors=True)
    log = out.with_suffix(".log")
    run = run_on_ray(reach, out, log)
    if rng.random() < 0.85:
        await_raylet(run)
    started, wait = time.monotonic(), rng.uniform(0.0, reach.run_seconds)
    with suppress(subprocess.TimeoutExpired):
        run.wait(wait)
    seen = descendants(run.pid)
    kinds = {kind: [pid for pid, line in seen.items() if kind_of(line) == kind] for kind in PROCESSES}
    aimed = rng.choice(["driver", *(kind for kind, pids in kinds.items() if pids)])
    pid = run.pid if aimed == "driver" else rng.choice(kinds[aimed])
    signum = signal.SIGTERM if aimed == "driver" and rng.random() < 0.3 else signal.SIGKILL
    done = f"{signum.name} to {aimed} after {wait:.2f} s" + ("" if run.poll() is None else ", when the run had ended")
    if run.poll() is None:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
    try:
        code = run.wait(DEADLINE_SECONDS)
    except subprocess.TimeoutExpired:
        end_all(run, {**seen, **descendants(run.pid)})
        return f"ray: {aimed}", done, Verdict.HUNG, f"the run has not ended after {DEADLINE_SECONDS} s"
    if signum == signal.SIGKILL and aimed != "driver" and code == 0:
        reach.run_seconds = 0.7 * reach.run_seconds + 0.3 * (time.monotonic() - started)
    verdict, said = judge_run(code, log.read_text(errors="replace"), killed=aimed == "driver")
    ended, left = time.monotonic(), left_alive(seen)
    done += f", its processes lived for {time.monotonic() - ended:.0f} s"
    if left:
        verdict, said = Verdict.WRONG, f"left running: {', '.join(sorted(left.values()))[:200]}"
        end_all(run, left)
    if verdict is Verdict.SURVIVED:
        resumed = reach.machine.ask(RUN, out)
        if resumed["code"] != 0:
            return f"ray: {aimed}", done, Verdict.STUCK, f"resumed: {resumed['code']}: {resumed['says']}"
        verdict, said = reach.ended_well(out, reach.whole, audited=True)
    return f"ray: {aimed}", done, verdict, said


def judge_run(code: int, stderr: str, *, killed: bool) -> tuple[Verdict, str]:
    """Return the verdict over how a run ended one of whose processes was killed."""
    last = (stderr.strip().splitlines() or [""])[-1]
    if code not in CODES_OF_A_RUN or "Traceback" in stderr:
        return Verdict.UNNAMED, f"exit code {code}: {last}"
    if not killed and code != 0 and not last.startswith("lps-prep: "):
        return Verdict.UNNAMED, f"exit code {code} without a line: {last}"
    return Verdict.SURVIVED, ""


def left_alive(seen: dict[int, str], seconds: float = ENDING_SECONDS) -> dict[int, str]:
    """Return the processes of a run that live on, with what they are, when they have had time to end."""
    ends = time.monotonic() + seconds
    while True:
        left = {}
        for pid, line in seen.items():
            with suppress(OSError):
                now = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if now and (now == line or kind_of(now) == kind_of(line) != "other"):
                    left[pid] = kind_of(line)
        if not left or time.monotonic() >= ends:
            return left
        time.sleep(0.5)


def end_all(run: "subprocess.Popen[bytes]", seen: dict[int, str]) -> None:
    """End a run and what it started, each process by its id."""
    for pid in (run.pid, *seen):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        run.wait(10)


# ---- the arm ---------------------------------------------------------------------------------------------------------


def attack(budget: Budget, seeds: Iterator[int], place: Place) -> Iterator[Try]:
    """Kill until the budget is spent: seven of ten at windows of `lps-prep`, a quarter at random moments on Ray."""
    reach, out = Range.at(place.scratch), place.scratch / "out"
    for seed in budget.seeds(seeds):
        rng, started = random.Random(seed), time.monotonic()
        way = rng.random()
        if way < 0.7:
            kind, done, verdict, said = kill_at_a_window(reach, rng, out)
        elif way < 0.95:
            kind, done, verdict, said = kill_at_a_moment(reach, rng, out)
        else:
            kind, done, verdict, said = kill_by_a_test(rng.choice(OTHER_WINDOWS))
        evidence = ""
        if verdict is not Verdict.SURVIVED:
            folder = place.evidence(ARM, seed)
            if out.exists():
                copy_of(out, folder / "out")
            if out.with_suffix(".log").exists():
                shutil.copyfile(out.with_suffix(".log"), folder / "stderr.log")
            evidence = folder.relative_to(place.report).as_posix()
        seconds = round(time.monotonic() - started, 3)
        yield Try(
            arm=ARM, kind=kind, seed=seed, done=done, verdict=verdict, said=said, seconds=seconds, evidence=evidence
        )
    reach.machine.close()
