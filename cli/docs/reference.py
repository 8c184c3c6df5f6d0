"""Write docs/cli.md from the commands themselves: `python -m lps.cli.docs.reference docs/cli.md`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from lps.cli.audit import main as audit
from lps.cli.prep import main as prep
from lps.cli.train import main as train

PROGRAMS: dict[str, click.Group] = {"lps-audit": audit.main, "lps-prep": prep.main, "lps-train": train.main}
WIDTH = 100


def walk(name: str, command: click.Command, parent: click.Context | None = None) -> Iterator[tuple[str, click.Context]]:
    """Yield (full name, context) of a command and everything below it, in the order of their names."""
    size = {"max_content_width": WIDTH, "terminal_width": WIDTH}
    context = command.make_context(name, [], parent=parent, resilient_parsing=True, **size)
    yield context.command_path, context
    if isinstance(command, click.Group):
        for child in sorted(command.commands):
            yield from walk(child, command.commands[child], context)


def reference() -> str:
    """Return the page: the help of every command, as the terminal shows it."""
    parts = ["# Command reference\n\nGenerated from the commands by `make docs`; do not edit.\n"]
    for name, program in PROGRAMS.items():
        for path, context in walk(name, program):
            parts.append(f"## {path}\n\n```text\n{context.get_help().rstrip()}\n```\n")
    return "\n".join(parts)


def main() -> None:
    """Write the page to the file named on the command line."""
    Path(sys.argv[1]).write_text(reference())


if __name__ == "__main__":
    main()
