"""What the three programs share: errors as one line with an exit code, and a version."""

import os
import sys
from importlib.metadata import version
from typing import Any

import click

from lps.manifests.errors import LpsError

VERSION = version("lps-prep")
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class LpsGroup(click.Group):
    """A command group in which every LpsError, and Ctrl-C, ends the program as one line on stderr and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except LpsError as e:
            click.echo(f"{ctx.info_name}: {' '.join(str(e).split())}", err=True)
            ctx.exit(e.exit_code)
        except KeyboardInterrupt:
            click.echo(f"\n{ctx.info_name}: interrupted; the same command again goes on where this one was", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:  # the reader of our output is gone: `lps-prep status OUT | head`
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  stays open until the process ends
            ctx.exit(0)
