"""The reference cannot drift from the commands, and every command explains itself."""

from pathlib import Path

import click
import pytest

from lps.cli.reference import PROGRAMS, reference, walk

ROOT = Path(__file__).parents[2]
COMMANDS = [(path, context.command) for name, program in PROGRAMS.items() for path, context in walk(name, program)]


def test_reference_page_is_current() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == reference(), "run `make docs`"


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_every_command_has_help_with_an_example(path: str, command: click.Command) -> None:
    assert command.help
    assert "Example:\n" in command.help
    assert path.split()[0] in command.help.split("Example:")[1]


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_every_option_has_help(path: str, command: click.Command) -> None:
    assert all(p.help for p in command.params if isinstance(p, click.Option)), path
