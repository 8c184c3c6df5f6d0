"""One try of an attack, and what it may use: a budget, a place for files, seeds."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Verdict(StrEnum):
    """How a try ended. All but the first two are failures of the product."""

    SURVIVED = "survived"
    KNOWN = "known"
    """A limit that docs/guarantees.md names."""
    WRONG = "wrong"
    """Something came out that is not right, and nothing says so: a frame, a digest, a count, an audit that passed."""
    UNNAMED = "unnamed"
    """A traceback, an exit code that the docs do not have, more or less than one line."""
    CRASHED = "crashed"
    """A process died by a signal that nobody sent."""
    HUNG = "hung"
    MEMORY = "memory"
    """More memory than allowed."""
    ESCAPED = "escaped"
    """Something was written outside of the output, or code of a forged file ran."""
    STUCK = "stuck"
    """The same command, given again without the fault, does not finish what was begun."""


PASSED = frozenset({Verdict.SURVIVED, Verdict.KNOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One try: the seed alone, with the arm, makes it again."""

    arm: str
    kind: str
    """Class that it counts for."""
    seed: int
    done: str
    """What was done."""
    verdict: Verdict
    said: str
    """What the program said or gave."""
    seconds: float = 0.0
    evidence: str = ""
    """Folder below the report that keeps what failed; empty where nothing did."""

    def record(self) -> dict[str, Any]:
        """Return the try as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Budget:
    """How long an arm may begin tries, and how many at most."""

    ends: float
    """`time.monotonic` when no further try begins."""
    max_tries: int

    @classmethod
    def of(cls, seconds: float, max_tries: int) -> "Budget":
        """Return a budget that begins now."""
        return cls(time.monotonic() + seconds, max_tries)

    def seeds(self, seeds: Iterator[int]) -> Iterator[int]:
        """Yield a seed for each try that may begin; at least one."""
        for n_done, seed in enumerate(seeds):
            if n_done and (n_done >= self.max_tries or time.monotonic() >= self.ends):
                return
            yield seed
            if n_done + 1 >= self.max_tries or time.monotonic() >= self.ends:
                return


@dataclass(frozen=True, slots=True)
class Place:
    """Folders of an attack."""

    scratch: Path
    """Taken away at the end."""
    report: Path
    """Evidence is kept below it."""
    media: Path | None = None
    """Folder of real videos, if there is one."""

    def evidence(self, arm: str, seed: int) -> Path:
        """Return the new folder that keeps what a failed try left."""
        folder = self.report / "failures" / f"{arm}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder
