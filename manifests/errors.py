"""Errors that stop a command. Each prints as one line and carries the exit code of the command.

* LpsError                exit 4
    + RefusedError        exit 3   what was asked would break a promise (changed parameters, changed sources)
    + UnreadableError     exit 4   a source, manifest, weight file or URL cannot be read or written
    + IntegrityError      exit 5   committed bytes are not what they must be
    + NotInstalledError   exit 4   a package is missing; the message has the line that installs it
    + TooManyFailedError  exit 1   the run finished, but gave no clip, or too many videos were quarantined

A fault of one video is not an error: it is a `VideoFault`, and one place turns it into a row.
"""

import re
import signal

from lps.manifests.codes import Code, Stage


class LpsError(Exception):
    """Root of all errors that end a command. The message is one line: what, which file, what to do."""

    exit_code = 4


class RefusedError(LpsError):
    """The request contradicts what the output already holds."""

    exit_code = 3


class UnreadableError(LpsError):
    """Something that must be read or written cannot be."""

    exit_code = 4


class NotInstalledError(LpsError):
    """A package that a command needs is not installed."""

    exit_code = 4


class IntegrityError(LpsError):
    """Committed bytes differ from their record."""

    exit_code = 5


class TooManyFailedError(LpsError):
    """No video gave a clip, or more were quarantined than the limit allows."""

    exit_code = 1


class Interrupted(KeyboardInterrupt):
    """SIGTERM or Ctrl-C ended a command in good order. Carries the signal, and what is kept and how to go on."""

    def __init__(self, kept: str, signum: int = signal.SIGINT) -> None:
        super().__init__(kept)
        self.kept = kept
        self.signum = signum


class VideoFault(Exception):
    """One video cannot give what was asked; the caller turns it into a row.

    Carries the code, the stage and a short detail without absolute paths.
    """

    def __init__(self, code: Code, stage: Stage, detail: str = "") -> None:
        super().__init__(code, stage, detail)
        self.code = code
        self.stage = stage
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code} at {self.stage}: {self.detail}" if self.detail else f"{self.code} at {self.stage}"


def first_line(error: BaseException) -> str:
    """Return what an error says in one line. A first line that ends with a colon takes the next one with it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = re.sub(r":\s*\n\s*", ": ", str(error).strip()).splitlines()
    return lines[0][:200] if lines else type(error).__name__
