"""Mutants of one clip and of ten thousand, those that sixteen are too few to tell, and those that are decoded.

Of those of ten thousand, some; all, which take ten minutes, with LPS_ALL_MUTANTS=1.
"""

import os

import pytest

from tests.manifests.audit.mutants.measuring import MUTANTS, Bench
from tests.manifests.audit.mutants.spoiling import Mutant
from tests.manifests.audit.mutants.table import read_table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
LARGE, SOME = 10_000, ("L2", "L11", "B3", "C1")
"""Checks whose mutants of that size are always tried: of pairs of videos and of clips, of rates, of frames."""


def is_tried(mutant: Mutant, n: int) -> bool:
    if n == LARGE:
        return mutant.check in SOME or "LPS_ALL_MUTANTS" in os.environ
    return n == 1 or mutant.statistical or mutant.deep


CASES = [(m, n) for m in MUTANTS for n in m.sizes if is_tried(m, n)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return what makes data sets and audits them."""
    return Bench(tmp_path_factory.mktemp("mutants"))


@pytest.mark.parametrize(("mutant", "n"), CASES, ids=[f"{m.name}, {n}" for m, n in CASES])
def test_mutant_is_found_as_the_table_says(bench: Bench, mutant: Mutant, n: int) -> None:
    renew = "run: python -m tests.manifests.audit.mutants"
    assert bench.outcome(mutant, n).record() == read_table()[mutant.name][str(n)], renew
