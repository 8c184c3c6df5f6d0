"""The reference cannot drift from the commands, and every command explains itself."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from lps.cli.docs.reference import PROGRAMS, reference, walk

ROOT = Path(__file__).parents[3]
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


CALL = re.compile(r"(?:^|--no-python |&& )(lps-(?:prep|train|audit) .+?)(?= && |$)")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def calls() -> Iterator[tuple[str, str]]:
    """Yield where a call of a program is shown, and the call: in examples of the help, and in blocks of the pages."""
    for path, command in COMMANDS:
        for line in (command.help or "").partition("Example:")[2].splitlines():
            yield f"{path} --help", line.strip()
    for page in PAGES:
        for block in page.read_text().split("```")[1::2]:
            if block.startswith("sh\n"):
                yield from ((page.name, line.strip()) for line in block.splitlines())


def test_calls_that_are_shown_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Path, "convert", lambda _self, value, *_: value)  # the files are not here
    n_calls = 0
    for where, line in calls():
        for call in CALL.findall(line):
            program, *args = shlex.split(call, comments=True)
            command: Any = PROGRAMS[program]
            while isinstance(command, click.Group) and args and not args[0].startswith("-"):
                command = command.commands[args.pop(0)]
            try:
                command.make_context(program, args)
            except click.exceptions.Exit:
                pass  # --help and --version
            except click.ClickException as e:
                pytest.fail(f"{where}: {call}: {e.format_message()}")
            n_calls += 1
    assert n_calls > 50
