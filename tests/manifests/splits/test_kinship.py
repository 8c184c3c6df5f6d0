"""What is known of published data sets."""

from pathlib import Path

import pytest

import lps.pipeline.sources.releases
from lps.manifests.splits.kinship import KINSHIPS, kinships


def test_names_are_those_that_adapters_give() -> None:
    folder = Path(next(iter(lps.pipeline.sources.releases.__path__)))
    written = "".join(path.read_text() for path in folder.glob("*.py"))
    named = {name for kin in KINSHIPS for name in (kin.one, kin.two)}
    assert len(named) == 14
    assert [name for name in sorted(named) if f'"{name}"' not in written] == []


def test_no_pair_comes_twice() -> None:
    assert len({frozenset((kin.one, kin.two)) for kin in KINSHIPS}) == len(KINSHIPS)
    assert all(kin.one != kin.two and kin.source for kin in KINSHIPS)


@pytest.mark.parametrize(("one", "two"), [(["celebdf2"], ["x", "celebdfpp"]), (["celebdfpp", "x"], ["celebdf2"])])
def test_kin_is_found_in_either_order(one: list[str], two: list[str]) -> None:
    assert [kin.how for kin in kinships(one, two)] == ["Celeb-DF++ contains the videos of Celeb-DF v2"]
    assert kinships(one, one) == []
