"""Every test that docs/guarantees.md names exists, and every window in it has a test that kills there."""

import ast

import pytest

from tests.conftest import REPOSITORY
from tests.guarantees import PAGE, TEST, Window, windows

KILLERS = ("killed", "kill", "was_not_written", "gives_nothing_now", "damaged")
"""Words of the names of tests that end a process, or begin with what its end leaves."""


def functions(file: str) -> set[str]:
    """Return the names of the functions at the top of a file; none where there is no file."""
    path = REPOSITORY / file
    body = ast.parse(path.read_text()).body if path.exists() else []
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_tests_that_are_named_exist() -> None:
    named = TEST.findall(PAGE.read_text())
    assert len(named) > 40
    assert sorted({f"{file}::{name}" for file, name in named if name not in functions(file)}) == []


def test_windows_are_numbered() -> None:
    assert [window.number for window in windows()] == list(range(1, len(windows()) + 1))


@pytest.mark.parametrize("window", windows(), ids=lambda window: str(window.number))
def test_every_window_has_a_test_that_kills_there(window: Window) -> None:
    names = [name for _, name in window.tests]
    assert any(word in name for name in names for word in KILLERS), names
