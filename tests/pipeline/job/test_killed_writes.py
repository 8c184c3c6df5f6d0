"""Killed before and after any write, a command that is given again leaves the bytes of one that nothing disturbed.

`killed_writes.py` does the killing; here is what is killed, what a user does then, and what must be there at the end.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import REPOSITORY
from tests.pipeline.job.kill_machine import (
    RUN,
    SCENARIOS,
    TEST,
    Machine,
    deaths,
    finish,
    make_source,
    unfinished,
)

if TYPE_CHECKING:
    from tests.pipeline.conftest import Digests


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with small videos that differ in their last bytes."""
    return make_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def machine(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Start the process that forks."""
    made = Machine(source, tmp_path_factory.mktemp("killed"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def new(machine: Machine, digests: "Callable[[Path], Digests]") -> "Digests":
    """Return the digests of a run that nothing disturbs, of sources that are all well."""
    out = machine.folder / "new"
    assert machine.ask(RUN, out)["code"] == 0
    return digests(out)


pytestmark = pytest.mark.slow


def test_the_windows_are_those_that_name_this_test() -> None:
    assert (Path(__file__).relative_to(REPOSITORY).as_posix(), test_killed_at_any_write.__name__) == TEST


@pytest.mark.parametrize(
    ("name", "scheme"), [*((name, "") for name in SCENARIOS), *((name, "bucket://") for name in ("a new run", "retry"))]
)
def test_killed_at_any_write(
    machine: Machine, digests: "Callable[[Path], Digests]", new: "Digests", name: str, scheme: str
) -> None:
    scenario, label = SCENARIOS[name], f"{name} {scheme[:6]}"
    before = machine.prepared(scenario, label, scheme)
    whole = Path(shutil.copytree(before, machine.folder / f"{label} whole"))
    undisturbed = machine.ask(scenario.killed, whole, url=scheme and f"{scheme}{whole}")
    assert undisturbed["code"] == 0, undisturbed
    finish(machine, scenario, whole, scheme)
    expected = digests(whole)
    assert not scenario.crash or expected == new, "a retry gives what a run without the fault gives"

    out = machine.folder / f"{label} out"
    for kill_at in deaths(undisturbed["writes"]):
        where = f"before {undisturbed['writes'][kill_at - 1]}"
        shutil.copytree(before, out)
        assert machine.ask(scenario.killed, out, url=scheme and f"{scheme}{out}", kill_at=kill_at)["code"] == -9, where
        finish(machine, scenario, out, scheme)
        assert digests(out) == expected, where
        assert unfinished(out) == [], where
        shutil.rmtree(out)


def test_killed_again_and_again(machine: Machine, digests: "Callable[[Path], Digests]", new: "Digests") -> None:
    out = machine.folder / "again"
    codes = [machine.ask(RUN, out, kill_at=kill_at)["code"] for kill_at in range(9, 28, 3)]
    assert codes.count(-9) > 4
    assert machine.ask(RUN, out)["code"] == 0
    assert digests(out) == new


def test_a_run_killed_without_its_index_still_knows_the_digests_of_split_sets(machine: Machine) -> None:
    scenario = SCENARIOS["a run that mends"]
    out = machine.prepared(scenario, "other set", "")
    shutil.copyfile(out / "manifests/splits/group.parquet", out / "manifests/splits/ranked-v1.parquet")
    whole = Path(shutil.copytree(out, machine.folder / "other set whole"))
    writes = [tuple(write) for write in machine.ask(RUN, whole)["writes"]]
    away = writes.index(("remove", "index.json")) + 1
    assert machine.ask(RUN, out, kill_at=away + 1)["code"] == -9
    assert not (out / "index.json").exists()
    assert machine.ask(RUN, out)["code"] == 0
    for place in (out, whole):
        assert "ranked-v1" not in (place / "index.json").read_text()
