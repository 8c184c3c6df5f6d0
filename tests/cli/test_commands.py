"""Every command that is written can be called: no module keeps one that no program reaches."""

import ast
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from inspect import unwrap
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType

import click
import pytest

import lps.cli
from lps.cli.docs.reference import PROGRAMS, walk

MODULES = [import_module(info.name) for info in walk_packages(lps.cli.__path__, "lps.cli.") if not info.ispkg]


def reached() -> set[Callable[..., object]]:
    """Return the functions behind the commands of all programs."""
    contexts = [context for name, program in PROGRAMS.items() for _, context in walk(name, program)]
    return {unwrap(context.command.callback) for context in contexts if context.command.callback}


def unreached(module: ModuleType) -> set[str]:
    """Return the names of functions that are decorated as commands, and of commands, that no program reaches."""
    functions = reached()
    found = {
        item.callback.__name__
        for item in vars(module).values()
        if isinstance(item, click.Command) and item.callback and unwrap(item.callback) not in functions
    }
    names = {function.__name__ for function in functions if function.__module__ == module.__name__}
    for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text())):
        if isinstance(node, ast.FunctionDef):
            decorators = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
            if any(isinstance(each, ast.Attribute) and each.attr in ("command", "group") for each in decorators):
                found |= {node.name} - names
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_command_is_reached_by_a_program(module: ModuleType) -> None:
    assert unreached(module) == set()


def test_a_command_that_no_program_has_is_found(tmp_path: Path) -> None:
    file = tmp_path / "export.py"
    file.write_text(
        "import click\n"
        "@click.command()\ndef lost() -> None: ...\n"
        "def make() -> None:\n    @click.command('name')\n    def hidden() -> None: ...\n"
        "made = click.Command('made', callback=make)\n"
    )
    spec = spec_from_file_location("export", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert unreached(module) == {"lost", "hidden", "make"}
