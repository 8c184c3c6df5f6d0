"""Each check finds its mutant, it alone unless the list says why, and passes the clean twin: data sets of few clips."""

import pytest

from lps.cli.audit.main import full_suite
from lps.manifests.audit.core.types import State
from tests.manifests.audit.mutants.measuring import MUTANTS, SMALL, Bench, Outcome
from tests.manifests.audit.mutants.spoiling import Mutant
from tests.manifests.audit.mutants.table import PAGE, TABLE, outcome_from, read_table, with_mutants

CASES = [(m, n) for m in MUTANTS for n in m.sizes if 1 < n <= SMALL and not m.statistical and not m.deep]
RENEW = "run: python -m tests.manifests.audit.mutants"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return what makes data sets and audits them."""
    return Bench(tmp_path_factory.mktemp("mutants"))


@pytest.mark.parametrize(("mutant", "n"), CASES, ids=[f"{m.name}, {n}" for m, n in CASES])
def test_mutant_is_found_as_the_table_says(bench: Bench, mutant: Mutant, n: int) -> None:
    assert bench.outcome(mutant, n).record() == read_table()[mutant.name][str(n)], RENEW


def outcomes() -> dict[str, list[tuple[Mutant, Outcome]]]:
    """Return what the table has of each check."""
    table = read_table()
    found: dict[str, list[tuple[Mutant, Outcome]]] = {}
    for mutant in MUTANTS:
        for n in mutant.sizes:
            found.setdefault(mutant.check, []).append((mutant, outcome_from(table[mutant.name][str(n)])))
    return found


def test_every_check_has_a_mutant_that_it_alone_finds_and_a_twin_that_it_passes() -> None:
    found = outcomes()
    assert set(found) == set(full_suite().ids)
    for check, mine in found.items():
        assert any(outcome.alone or (outcome.found and mutant.why) for mutant, outcome in mine), check
        assert any(outcome.found and outcome.twin == State.PASS for _, outcome in mine), check


def test_no_check_passes_its_mutant() -> None:
    passed = [(m.name, outcome) for mine in outcomes().values() for m, outcome in mine if outcome.mutant == State.PASS]
    assert passed == []


def test_what_is_not_found_has_no_answer() -> None:
    silent = {o.mutant for mine in outcomes().values() for _, o in mine if not o.found}
    assert silent <= {State.SKIP, State.UNKNOWN, State.FAIL}


def test_table_and_page_are_current() -> None:
    kept = {m.name: [str(n) for n in m.sizes] for m in MUTANTS}
    assert {name: list(sizes) for name, sizes in read_table().items()} == kept, f"{TABLE.name}: {RENEW}"
    assert PAGE.read_text() == with_mutants(PAGE.read_text(), read_table()), f"{RENEW} --page"
