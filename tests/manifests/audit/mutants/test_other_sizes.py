"""Mutants of one clip and of ten thousand, those that sixteen are too few to tell, and those that are decoded."""

import pytest

from tests.manifests.audit.mutants.measuring import MUTANTS, Bench
from tests.manifests.audit.mutants.spoiling import Mutant
from tests.manifests.audit.mutants.table import read_table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
CASES = [(m, n) for m in MUTANTS for n in m.sizes if n in (1, 10_000) or m.statistical or m.deep]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return what makes data sets and audits them."""
    return Bench(tmp_path_factory.mktemp("mutants"))


@pytest.mark.parametrize(("mutant", "n"), CASES, ids=[f"{m.name}, {n}" for m, n in CASES])
def test_mutant_is_found_as_the_table_says(bench: Bench, mutant: Mutant, n: int) -> None:
    renew = "run: python -m tests.manifests.audit.mutants"
    assert bench.outcome(mutant, n).record() == read_table()[mutant.name][str(n)], renew
