"""Effect sizes and their tests against textbook values."""

from random import Random

import numpy as np
import pytest

from lps.manifests.audit.core.stats import cliffs_delta, cramers_v, ks_distance, rate_gap, standardised
from lps.manifests.audit.core.types import State


def test_effects_have_their_textbook_values() -> None:
    low, high = np.arange(50.0), np.arange(50.0) + 100
    assert cliffs_delta(low, high).size == 1
    assert cliffs_delta(low, low).size == 0
    assert cliffs_delta(np.ones(40), np.ones(40)).p == 1
    assert ks_distance(low, high).size == 1
    assert cramers_v(np.array([[50, 0], [0, 50]])).size == pytest.approx(1)
    assert cramers_v(np.array([[50, 50]])).size == 0
    assert standardised((0.0, 1.0), (1.0, 1.0), (100, 100)).size == 1
    assert standardised((2.0, 2.0), (0.0, 0.0), (9, 9)).p == 1
    assert standardised((2.0, 3.0), (0.0, 0.0), (9, 9)).p == 0


def test_interval_of_two_rates_is_newcombes() -> None:
    """Newcombe 1998, method 10: 56/70 against 48/80."""
    gap = rate_gap(56, 70, 48, 80)
    assert (gap.low, gap.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    empty = rate_gap(0, 10, 0, 20)
    assert (empty.gap, empty.p) == (0, 1)
    assert empty.high == pytest.approx(0.2775, abs=1e-4)


def test_chance_differences_rarely_count() -> None:
    rng = Random(5)
    n_loud = 0
    for _ in range(200):
        a, b = (np.array([rng.gauss(0, 1) for _ in range(40)]) for _ in range(2))
        n_loud += ks_distance(a, b).grade(warn=0.1, fail=0.3, max_p=0.001) in (State.FAIL, State.WARN)
    assert n_loud == 0
