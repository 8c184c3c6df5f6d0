"""Runs mutants: what every check says of a mutant, beside what it says of the clean twin."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lps.cli.audit.main import full_suite
from lps.manifests.audit.core.database import open_dataset
from lps.manifests.audit.core.policy import Policy
from lps.manifests.audit.core.types import State
from lps.manifests.audit.run import check_order, run_audit
from lps.manifests.names import Level
from tests.manifests.audit.mutants.intact import INTEGRITY, REPRODUCIBILITY, TAMPER
from tests.manifests.audit.mutants.made import Recipe
from tests.manifests.audit.mutants.shown import BIAS, CLIPS, LEAKAGE
from tests.manifests.audit.mutants.spoiling import TWINS, Brought, Copy, Mutant, Twin, built, copied

MUTANTS = tuple(
    sorted(
        (*INTEGRITY, *TAMPER, *LEAKAGE, *BIAS, *CLIPS, *REPRODUCIBILITY), key=lambda mutant: check_order(mutant.check)
    )
)
SMALL = 100
"""Up to so many clips everything is audited; larger sets by their manifests and by the check that a mutant is for."""
BY_MANIFESTS = "A1,A5,A7,A9,T1,T2,T3,L,B,C,R"
"""Not A2 and T4, which take longer than all others together, unless the mutant is theirs."""
TARS = "A2,A3,A4,A6"
"""Checks that read the shards, once for all of them."""
RANK = {State.WARN: 1, State.FAIL: 2, State.ERROR: 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a mutant at one size."""

    twin: str
    """State of its check on the clean twin."""
    mutant: str
    """State of its check on the mutant."""
    others: Mapping[str, str]
    """Other checks that answer otherwise than on the twin, and what they say."""

    @property
    def found(self) -> bool:
        """Whether the check says of the mutant what it does not of the twin: a fault, or a worse one."""
        return RANK.get(State(self.mutant), 0) > RANK.get(State(self.twin), 0)

    @property
    def alone(self) -> bool:
        """Whether no other check says another thing."""
        return self.found and not self.others

    def record(self) -> dict[str, Any]:
        """Return the outcome as JSON has it."""
        return {"twin": self.twin, "mutant": self.mutant, "others": dict(self.others)}


@dataclass(slots=True)
class Bench:
    """Makes data sets below a folder, each once, and audits them."""

    root: Path
    _built: dict[Recipe, Copy] = field(default_factory=dict)
    _twins: dict[tuple[str, int], Copy] = field(default_factory=dict)
    _states: dict[tuple[str, int, str, tuple[tuple[str, float], ...]], dict[str, str]] = field(default_factory=dict)
    _n: int = 0

    def twin(self, name: str, n_clips: int) -> Copy:
        """Return a clean twin of so many clips."""
        key = (name, n_clips)
        if key not in self._twins:
            twin = TWINS[name]
            copy = copied(self._base(twin, n_clips), self._folder())
            twin.prepare(copy)
            self._twins[key] = copy
        return self._twins[key]

    def _base(self, twin: Twin, n_clips: int) -> Copy:
        recipe = Recipe(n_clips=n_clips, **twin.recipe)  # type: ignore[arg-type]
        if recipe not in self._built:
            self._built[recipe] = built(self._folder(), recipe)
        return self._built[recipe]

    def _folder(self) -> Path:
        self._n += 1
        return self.root / f"{self._n:03d}"

    def outcome(self, mutant: Mutant, n_clips: int) -> Outcome:
        """Make a mutant and its twin of so many clips, and audit both."""
        twin = self.twin(mutant.twin, n_clips)
        checks = "" if n_clips <= SMALL else BY_MANIFESTS
        clean = self._clean(mutant, twin, checks)
        copy = copied(twin, self._folder())
        try:
            mutant.edit(copy)
            found = self._audit(mutant, copy, checks)
        finally:
            shutil.rmtree(copy.root)
        others = {name: state for name, state in found.items() if state != clean[name] and name != mutant.check}
        return Outcome(twin=clean[mutant.check], mutant=found[mutant.check], others=others)

    def _clean(self, mutant: Mutant, twin: Copy, checks: str) -> dict[str, str]:
        whole = (_read_whole(mutant) or _asked(mutant)) if checks else ""
        key = (mutant.twin, twin.recipe.n_clips, whole, tuple(mutant.limits.items()))
        if key not in self._states:
            self._states[key] = self._audit(mutant, twin, checks)
        return self._states[key]

    def _audit(self, mutant: Mutant, copy: Copy, checks: str) -> dict[str, str]:
        brought = TWINS[mutant.twin].bring(copy)
        if not checks:
            return states_of(copy, brought, mutant.limits, Level.DEEP if mutant.deep else Level.FULL)
        states = states_of(copy, brought, mutant.limits, Level.QUICK, f"{checks},{_asked(mutant)}")
        if whole := _read_whole(mutant):
            states |= states_of(copy, brought, mutant.limits, Level.FULL, whole)
        return states


def _asked(mutant: Mutant) -> str:
    """Return the check of a mutant, where it is not asked of every data set of many clips."""
    return mutant.check if mutant.check == "T4" else ""


def _read_whole(mutant: Mutant) -> str:
    """Return the checks of level full that a mutant of many clips needs."""
    if not mutant.full:
        return ""
    return TARS if mutant.check in TARS.split(",") else mutant.check


def states_of(
    copy: Copy, brought: Brought, limits: Mapping[str, float], level: Level, checks: str = ""
) -> dict[str, str]:
    """Return the state of each check."""
    policy = Policy(limits=limits, require=brought.policy.require, runs=brought.policy.runs)
    suite = full_suite().with_policy(policy)
    suite = suite.with_embeddings(brought.embeddings) if brought.embeddings else suite
    source = str(brought.source) if brought.source else None
    with open_dataset(str(copy.out), brought.split_set, source, suite.limits) as ctx:
        audit = run_audit(ctx, suite, policy, level=level, selection=checks.split(","))
    return {result.id: str(result.state) for result in audit.results}
