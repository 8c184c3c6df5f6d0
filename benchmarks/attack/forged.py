"""Attack with forged files: whatever a data set or run folder holds, commands end in one line and touch nothing else.

No file outside of the output may be written or changed, no code of a file may run, and every exit code is one that the
docs have.
"""

import hashlib
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.attack.forgeries import forged
from benchmarks.attack.kills import PATIENCE_SECONDS, audit_alone
from benchmarks.attack.outputs import judge_line
from benchmarks.attack.records import Budget, Place, Try, Verdict
from tests.model.conftest import TINY, Maker, Runner, Spec
from tests.pipeline.job.kill_machine import REPOSITORY, RUN, SEAL, SPLIT, Command, Machine, copy_of, make_source
from tests.pipeline.job.killed_writes import Ended

ARM = "forged"
MEMORY_BYTES = 6 << 30
PREP: Sequence[Command] = (
    RUN,
    (*RUN, "--verify"),
    ("lps-prep", "status", "OUT"),
    ("lps-prep", "status", "OUT", "--json"),
    ("lps-prep", "retry", "OUT", "--code", "E_NO_FACE"),
    ("lps-prep", "split", "OUT", "--rule", "ranked", "--name", "another"),
    ("lps-prep", "convert", "OUT", "OUT/../to", "--to", "frames"),
    ("lps-prep", "preview", "OUT", "--to", "OUT/../to.png"),
    ("lps-audit", "check", "OUT", "--level", "quick"),
    ("lps-audit", "check", "OUT", "--level", "full"),
    ("lps-audit", "show", "OUT"),
    ("lps-audit", "diff", "WHOLE", "OUT"),
    SEAL,
)
TRAIN: Sequence[Command] = (
    (
        "lps-train",
        "evaluate",
        "--checkpoint",
        "RUN/checkpoints/best.pt",
        "--data",
        "DATA",
        "--split",
        "val",
        "--out",
        "NEW",
    ),
    ("lps-train", "classify", "NEW", "--data", "DATA", "--init", "random", "--config", "CONFIG"),
    ("lps-train", "classify", "NEW", "--data", "DATA", "--init", "RUN/checkpoints/best.pt", "--config", "CONFIG"),
    ("lps-train", "classify", "RUN", "--data", "DATA", "--init", "random", "--config", "CONFIG"),
    ("lps-train", "report", "RUN"),
    ("lps-audit", "check", "DATA", "--level", "full"),
)
CODES = {
    "lps-prep": frozenset({0, 1, 2, 3, 4, 5}),
    "lps-audit": frozenset({0, 1, 2, 3, 4, 5, 6}),
    "lps-train": frozenset({0, 2, 3, 4, 5}),
}
"""What the docs have."""
OF_COMMANDS = ("to", "to.png", "new", "tmp")
"""What commands are told to write, beside the output."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Undamaged folders, and processes that run commands."""

    machine: Machine
    runner: Runner
    whole: Path
    """A data set of `lps-prep`, with two split sets and a seal."""
    begun: Path
    """The same, killed before its manifests were written."""
    trained: Path
    """`data`, that can be learnt from, and `run`, that learnt from it."""
    words: dict[str, str]


def prepare(folder: Path) -> Scene:
    """Make the undamaged folders."""
    (folder / "machine").mkdir(parents=True)
    (folder / "tmp").mkdir()
    machine = Machine(
        make_source(folder / "source"),
        folder / "machine",
        {**os.environ, "TMPDIR": str(folder / "tmp")},
        patience_seconds=PATIENCE_SECONDS,
    )
    whole, begun = folder / "whole", folder / "begun"
    for command in (RUN, SPLIT, SEAL):
        if (ended := machine.ask(command, whole))["code"] != 0:
            raise RuntimeError(f"{command[1]}: {ended}")
    writes = machine.ask(RUN, folder / "counted")["writes"]
    last = max(k for k, (what, path) in enumerate(writes, 1) if what == "name" and path.startswith("commits/"))
    machine.ask(RUN, begun, kill_at=last)
    runner = start_runner(folder)
    trained = folder / "trained"
    Maker(trained).data_set([clips("a", 6, "train"), clips("v", 6, "val")]).rename(trained / "data")
    config = folder / "settings.toml"
    tables = {**TINY, "train": "epochs = 1\nbatch_size = 4"}
    config.write_text("image_px = 32\n" + "".join(f"[{name}]\n{text}\n" for name, text in tables.items()))
    made = runner("classify", trained / "run", "--data", trained / "data", "--init", "random", "--config", config)
    if made.code != 0:
        raise RuntimeError(made.stderr[0])
    for process in (machine.process, runner.server):
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    return Scene(machine, runner, whole, begun, trained, {"CONFIG": str(config), "WHOLE": str(whole)})


def start_runner(folder: Path) -> Runner:
    """Start the process that runs `lps-train`."""
    (folder / "said").mkdir()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "tmp"), "TMPDIR": str(folder / "tmp")}
    server = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "tests/model/forked_runs.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        process_group=0,  # Ctrl-C is for who asks
    )
    return Runner(server, folder / "said")


def clips(name: str, n: int, split: str) -> list[Spec]:
    """Return samples, real and fake in turns."""
    return [
        Spec(video=f"{name}{'rf'[k % 2]}{k // 2}", label=k % 2, original=f"{name}r{k // 2}" if k % 2 else None,
             split=split, n_frames=8)
        for k in range(n)
    ]  # fmt: skip


def outside_of(sandbox: Path) -> dict[str, str]:
    """Return path -> digest of everything in the sandbox that no command is told to write."""
    found = {}
    for path in sandbox.rglob("*"):
        name = path.relative_to(sandbox)
        if name.parts[0] not in ("out", *OF_COMMANDS):
            found[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return found


@dataclass(frozen=True, slots=True)
class Forged:
    """What was forged, and which commands read it."""

    kind: str
    done: str
    commands: Sequence[Command]
    words: dict[str, str]


def forge(scene: Scene, rng: random.Random, sandbox: Path) -> Forged:
    """Fill the sandbox with a folder one of whose files is forged."""
    (sandbox / "canary").write_bytes(b"untouched")
    base = rng.choice((scene.whole, scene.whole, scene.begun, scene.trained))
    out = copy_of(base, sandbox / "out")
    files = sorted(
        path
        for path in out.rglob("*")
        if path.is_file() and path.suffix in (".json", ".parquet", ".tar", ".pt", ".sig", ".jsonl")
    )
    kinds = sorted({kind_of(path, out) for path in files})
    kind = rng.choice(kinds)
    done = []
    for path in rng.sample(
        of := [path for path in files if kind_of(path, out) == kind], min(len(of), rng.choice((1, 1, 1, 2)))
    ):
        done.append(f"{path.relative_to(out)}: {forged(path, rng, sandbox)}")
    if base == scene.trained:
        words = {"DATA": f"{out}/data", "RUN": f"{out}/run", "NEW": f"{sandbox}/new"}
        return Forged(kind, "; ".join(done), rng.sample(TRAIN, rng.choice((1, 2))), words)
    return Forged(kind, "; ".join(done), rng.sample(PREP, rng.choice((1, 2, 3))), {})


def kind_of(path: Path, out: Path) -> str:
    """Return the class of a file of a data set or run."""
    name = path.relative_to(out)
    if path.suffix in (".tar", ".pt"):
        return {".tar": "tars", ".pt": "checkpoints"}[path.suffix]
    if name.name == "index.json":
        return "indices"
    folder = name.parts[1] if name.parts[0] in ("data", "run") and len(name.parts) > 2 else name.parts[0]
    return {"plan": "plans", "manifests": "manifests", "commits": "commit records", "seals": "seals"}.get(
        folder, "logs and others"
    )


def ask(scene: Scene, command: Command, out: Path, words: dict[str, str]) -> Ended:
    """Run a command."""
    if command[0] != "lps-train":
        known = {
            **scene.words,
            **words,
            "OUT/../to": str(out.parent / "to"),
            "OUT/../to.png": str(out.parent / "to.png"),
        }
        return scene.machine.ask(command, out, words=known)
    line = [_filled(word, {**scene.words, **words}) for word in command[1:]]
    ended = scene.runner(*line, seconds=2 * PATIENCE_SECONDS)
    last = (ended.stderr[0].strip().splitlines() or [""])[-1]
    return Ended(code=ended.code, writes=[], says=last, stderr=ended.stderr[0])


def _filled(word: str, words: dict[str, str]) -> str:
    first, slash, rest = word.partition("/")
    return words.get(first, first) + slash + rest


def judge(command: Command, ended: Ended) -> tuple[Verdict, str]:
    """Return the verdict over how one command ended."""
    program, code = command[0], ended["code"]
    if program == "lps-audit" or code in (1, 2):  # findings, rows without clips, or usage: more lines than one
        if code in CODES[program] and "Traceback" not in ended["stderr"]:
            return Verdict.SURVIVED, f"{program} exit code {code}"
        ended = {**ended, "says": ended["says"] or "nothing said"}
    verdict, said = judge_line(ended, command, CODES[program])
    return verdict, f"{program} {said}" if verdict is Verdict.SURVIVED else said


def one_try(scene: Scene, rng: random.Random, sandbox: Path) -> tuple[str, str, Verdict, str, str]:
    """Forge, run commands, and look at what is there then. The last text is what the failed command said."""
    made = forge(scene, rng, sandbox)
    before, out, said = outside_of(sandbox), sandbox / "out", ""
    for command in made.commands:
        ended = ask(scene, command, out, made.words)
        done = f"{made.done} | {' '.join(command)}"
        verdict, said = judge(command, ended)
        if verdict is not Verdict.SURVIVED and command[0] == "lps-audit":  # a fault of the fork?
            known = {**scene.machine.words, **scene.words, **made.words}
            code, last = audit_alone(out, tuple(known.get(word, word) for word in command))
            ended = {**ended, "code": code, "says": last, "stderr": last}
            verdict, said = judge(command, ended)
        if verdict is not Verdict.SURVIVED:
            return made.kind, done, verdict, said, ended["stderr"]
        if (after := outside_of(sandbox)) != before:
            names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
            return (
                made.kind,
                done,
                Verdict.ESCAPED,
                f"written outside of the output: {', '.join(names[:3])}",
                ended["stderr"],
            )
    return made.kind, f"{made.done} | {len(made.commands)} commands", Verdict.SURVIVED, said, ""


def attack(budget: Budget, seeds: Iterator[int], place: Place) -> Iterator[Try]:
    """Forge files until the budget is spent."""
    scene = prepare(place.scratch / "scene")
    for seed in budget.seeds(seeds):
        started, sandbox = time.monotonic(), place.scratch / "sandbox"
        shutil.rmtree(sandbox, ignore_errors=True)
        sandbox.mkdir()
        kind, done, verdict, said, stderr = one_try(scene, random.Random(seed), sandbox)
        evidence = ""
        if verdict is not Verdict.SURVIVED:
            folder = place.evidence(ARM, seed)
            copy_of(sandbox, folder / "sandbox")
            (folder / "stderr.log").write_text(stderr, errors="backslashreplace")
            evidence = folder.relative_to(place.report).as_posix()
        seconds = round(time.monotonic() - started, 3)
        yield Try(
            arm=ARM,
            kind=kind,
            seed=seed,
            done=done[:600],
            verdict=verdict,
            said=said,
            seconds=seconds,
            evidence=evidence,
        )
    scene.machine.close()
    scene.runner.server.communicate()
