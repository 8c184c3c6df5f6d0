"""Attack with outputs that are full, read-only or slow, or end files early: one line, nothing torn, then it goes on."""

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.attack.kills import PATIENCE_SECONDS, Range, Target
from benchmarks.attack.records import Budget, Place, Try, Verdict
from lps.manifests.index import CARDS
from tests.pipeline.job.kill_machine import SCENARIOS, Command, Disk, copy_of, finish

if TYPE_CHECKING:
    from tests.pipeline.job.killed_writes import Ended

ARM = "outputs"
KIB = 1024
Sick = Callable[[Range, Target, Path, random.Random], tuple[str, "Ended"]]
"""Runs the command of a scenario on a sick output; returns what was done, and how it ended. The output is well then."""


def mount(options: list[str], folder: Path) -> bool:
    """Mount or remount a small disk; return whether that is allowed here."""
    return subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False).returncode == 0


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """Give a file system of its own, large at first."""
    folder.mkdir(parents=True, exist_ok=True)
    if not mount(["-t", "tmpfs", "-o", "size=100m", "tmpfs"], folder):
        raise PermissionError("needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def can_mount(folder: Path) -> bool:
    """Tell whether small disks can be made here."""
    try:
        with disk(folder):
            return True
    except PermissionError:
        return False


def used_kib(folder: Path) -> int:
    """Return how much of a disk is used."""
    found = shutil.disk_usage(folder)
    return found.used // KIB


def full(reach: Range, target: Target, out: Path, rng: random.Random) -> tuple[str, "Ended"]:
    """Leave little room on the disk."""
    room = rng.choice((0, 4, 8, 16, rng.randrange(400), rng.randrange(400)))
    kib = max(4, used_kib(out.parent) + room)
    mount(["-o", f"remount,size={kib}k"], out.parent)
    ended = reach.machine.ask(SCENARIOS[target.name].killed, out)
    mount(["-o", "remount,size=100m"], out.parent)
    return f"{room} KiB left", ended


def read_only(reach: Range, target: Target, out: Path, _: random.Random) -> tuple[str, "Ended"]:
    """Let nothing be written."""
    mount(["-o", "remount,ro"], out.parent)
    ended = reach.machine.ask(SCENARIOS[target.name].killed, out)
    mount(["-o", "remount,rw"], out.parent)
    return "read-only", ended


def short_files(reach: Range, target: Target, out: Path, rng: random.Random) -> tuple[str, "Ended"]:
    """Let every file end early (RLIMIT_FSIZE), scratch included; needs no rights."""
    max_bytes = rng.choice((1, 512, 4 * KIB, 10 * KIB, rng.randrange(1, 40 * KIB)))
    ended = reach.machine.ask(SCENARIOS[target.name].killed, out, disk=Disk(max_bytes=max_bytes))
    return f"files end after {max_bytes} bytes", ended


def slow(reach: Range, target: Target, out: Path, rng: random.Random) -> tuple[str, "Ended"]:
    """Let every write wait: leases and kept headers are renewed by the clock meanwhile."""
    pause_ms = rng.choice((20, 100, 400))
    ended = reach.machine.ask(SCENARIOS[target.name].killed, out, disk=Disk(pause_ms=pause_ms))
    return f"each write waits {pause_ms} ms", ended


def torn(out: Path, lost: Sequence[str]) -> str:
    """Return what of the output is torn: a commit record whose tar is another, an index that names what is not so.

    `lost` was taken away before. Cards are written before the index that has their digests, and may be of a state that
    it does not know yet: to a reader they are edited, and the next command writes both.
    """
    named: dict[str, str] = {}
    for path in sorted((out / "commits").glob("*.json")):
        if (shard := json.loads(path.read_bytes())["shard"]) is not None:
            named[shard["uri"]] = shard["sha256"]
    if (out / "index.json").exists():
        index = json.loads((out / "index.json").read_bytes())
        named |= {uri: facts["sha256"] for uri, facts in index["manifests"].items()}
    for uri, digest in named.items():
        if uri in lost and not (out / uri).exists():
            continue
        if not (out / uri).exists():
            return uri
        if uri not in CARDS and sha256((out / uri).read_bytes()).hexdigest() != digest:
            return uri
    return ""


def judge_line(ended: "Ended", command: Command, codes: frozenset[int]) -> tuple[Verdict, str]:
    """Return the verdict over how a command ended: a documented code, and one line where it is not 0."""
    code, program = ended["code"], command[0]
    lines = [line for line in ended["stderr"].splitlines() if line.startswith(f"{program}: ")]
    if code == -14:
        return Verdict.HUNG, f"{program} {command[1]} is not done after {PATIENCE_SECONDS} s, twice"
    if code < 0:
        return Verdict.CRASHED, f"{program} {command[1]}: signal {-code}"
    if code not in codes or "Traceback" in ended["stderr"]:
        return Verdict.UNNAMED, f"{program} {command[1]}: exit code {code}: {ended['says']}"[:300]
    if code != 0 and (len(lines) != 1 or not ended["says"].startswith(f"{program}: ")):
        return Verdict.UNNAMED, f"{program} {command[1]}: exit code {code} with {len(lines)} lines: {ended['says']}"[
            :300
        ]
    return Verdict.SURVIVED, f"exit code {code}"


SICK: dict[str, Sick] = {"full": full, "read-only": read_only, "short files": short_files, "slow": slow}
CODES = {
    "full": frozenset({0, 4}),
    "read-only": frozenset({0, 3, 4}),
    "short files": frozenset({0, 4}),
    "slow": frozenset({0}),
}
"""Exit codes that may come of each."""


def one_try(reach: Range, rng: random.Random, out: Path, sick: dict[str, Sick]) -> tuple[str, str, Verdict, str]:
    """Run a command on a sick output, and again on a well one."""
    kind, name = rng.choice(list(sick)), rng.choice(list(SCENARIOS))
    target, scenario = reach.target(name, ""), SCENARIOS[name]
    copy_of(target.before, out)
    how, ended = sick[kind](reach, target, out, rng)
    done = f"{name}: {how}"
    verdict, said = judge_line(ended, scenario.killed, CODES[kind])
    if verdict is Verdict.SURVIVED and (uri := torn(out, scenario.lost)):
        verdict, said = Verdict.WRONG, f"{uri} is not what names it says"
    if verdict is not Verdict.SURVIVED:
        return kind, done, verdict, said
    try:
        finish(reach.machine, scenario, out, "")
    except AssertionError as e:
        return kind, done, Verdict.STUCK, str(e)[:300]
    after, what = reach.ended_well(out, target.expected, audited=False)
    return kind, done, after, said if after is Verdict.SURVIVED else what


def attack(budget: Budget, seeds: Iterator[int], place: Place) -> Iterator[Try]:
    """Spoil outputs until the budget is spent. Where nothing can be mounted, files end early or writes wait."""
    reach = Range.at(place.scratch)
    mountable = can_mount(place.scratch / "disk")
    sick: dict[str, Sick] = SICK if mountable else {"short files": short_files, "slow": slow}
    for seed in budget.seeds(seeds):
        rng, started = random.Random(seed), time.monotonic()
        if mountable:
            with disk(place.scratch / "disk") as folder:
                made = _tried(reach, rng, folder / "out", sick, place, seed)
        else:
            made = _tried(reach, rng, place.scratch / "out", sick, place, seed)
        kind, done, verdict, said, evidence = made
        seconds = round(time.monotonic() - started, 3)
        yield Try(
            arm=ARM, kind=kind, seed=seed, done=done, verdict=verdict, said=said, seconds=seconds, evidence=evidence
        )
    reach.machine.close()


def _tried(
    reach: Range, rng: random.Random, out: Path, sick: dict[str, Sick], place: Place, seed: int
) -> tuple[str, str, Verdict, str, str]:
    kind, done, verdict, said = one_try(reach, rng, out, sick)
    evidence = ""
    if verdict is not Verdict.SURVIVED:
        folder = place.evidence(ARM, seed)
        copy_of(out, folder / "out")
        evidence = folder.relative_to(place.report).as_posix()
    return kind, done, verdict, said, evidence
