"""What the programs share: errors as one line with an exit code, a version, completion, tables and progress."""

import io
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

from lps.cli.extras import not_installed
from lps.manifests.canonical import pretty_json, visible, visible_json
from lps.manifests.codes import code_link, meaning_of
from lps.manifests.environment import write_atomically
from lps.manifests.errors import Interrupted, LpsError, UnreadableError, first_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table
    from rich.text import Text

F = TypeVar("F", bound=Callable[..., Any])

SEE_CODES = f"what to do about codes: {code_link()}"
"""A line below tables of codes, in which each leads there, but on terminals alone."""
VERSION = version("lps-prep")
EXIT_SIGNAL = 128
"""A command that a signal ended exits with this and the signal's number, as shells have it: 130 Ctrl-C, 143 SIGTERM."""
WIDTH = 140
"""Columns of tables that go to a file or a pipe."""
LINE_SECONDS = 10.0
"""Pause between plain progress lines."""


def echo(message: object, *, err: bool = False, nl: bool = True) -> None:
    """Print a message in which control characters of names are escaped; in bytes, a file's, as JSON escapes them."""
    shown = visible_json(message) if isinstance(message, bytes) else visible(str(message))
    click.echo(shown, err=err, nl=nl)


@contextmanager
def _usage_errors_are_shown() -> Iterator[None]:
    """Escape control characters in what click says of a word of the command line."""
    try:
        yield
    except click.UsageError as e:
        said = e.format_message()
        if visible(said) == said:
            raise
        raise click.UsageError(visible(said), e.ctx) from e


class NumberRange(click.FloatRange):
    """A range of numbers that `nan`, which is neither below nor above anything, is not in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number. Raises BadParameter."""
        number = float(super().convert(value, param, ctx))
        if number != number:
            self.fail(f"{value} is not a number.", param, ctx)
        return number


class LpsCommand(click.Command):
    """A command that refuses an option given twice, where click would drop the first value without a word.

    Options that may be given again (`multiple`), counters and plain switches are not concerned. A package that is not
    installed ends it as NotInstalledError.
    """

    extra = ""
    """What has to be installed for it, where that is more than for other commands of its program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line. Raises UsageError."""
        with _usage_errors_are_shown():
            return self._parsed(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises NotInstalledError."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as e:
            error = not_installed(e, ctx.command_path, self.extra)
            if error is None:
                raise
            raise error from e

    def _parsed(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option, n in Counter(given).items():
            if n > 1 and isinstance(option, click.Option) and _holds_one_value(option):
                raise click.UsageError(f"{option.opts[-1]} is given {n} times, but takes one value")
        return super().parse_args(ctx, args)


def _holds_one_value(option: click.Option) -> bool:
    is_switch = option.is_flag and not option.secondary_opts
    return not (option.multiple or option.count or is_switch)


class SubGroup(LpsCommand, click.Group):
    """A command group whose commands are LpsCommands."""

    command_class = LpsCommand


class PipeEnd(io.FileIO):
    """A standard stream that takes whatever comes once its reader has left: `lps-prep status OUT | head`.

    So it does once it cannot be written, as on a full disk, but keeps the error: reports and training go on.
    """

    lost: OSError | None = None
    """Why some of what was printed is lost, where a reader did not leave by itself."""

    def write(self, data: Any, /) -> int:
        """Write the bytes."""
        try:
            return super().write(data)
        except BrokenPipeError:
            pass
        except OSError as e:
            self.lost = self.lost or e
        return memoryview(data).nbytes


def _outlive_readers() -> None:
    """Let a reader that leaves end what is printed, and nothing else: not the command, nor its exit code.

    Streams that are closed from the start (`>&-`) lead nowhere. Those that somebody put in the place of the process's
    own, as tests do, stay.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in this order they get the numbers 0 to 2
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8", errors="backslashreplace", closefd=False))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper):
            continue
        stream.flush()
        pipe = io.BufferedWriter(PipeEnd(stream.fileno(), "w", closefd=False))
        by_line = stream.line_buffering or stream.write_through  # the latter where Python was told not to buffer
        setattr(
            sys, name, io.TextIOWrapper(pipe, encoding=stream.encoding, errors=stream.errors, line_buffering=by_line)
        )


def written(code: int) -> int:
    """Return the exit code once all is printed: 4 in the place of a lesser one where some of it is lost."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream.flush()
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(raw, PipeEnd) and raw.lost is not None:
            echo(f"{Path(sys.argv[0]).name}: cannot write to {name}: {first_line(raw.lost)}", err=True)
            code = max(code, UnreadableError.exit_code)
    return code


class LpsGroup(SubGroup):
    """A program: every LpsError, SIGTERM and Ctrl-C end it as one line on stderr and an exit code.

    So it does where nobody reads what it prints, and where that cannot be written.
    """

    group_class = SubGroup

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the program."""
        _outlive_readers()
        try:
            return super().main(*args, **options)
        except SystemExit as e:
            e.code = written(e.code) if isinstance(e.code, int) else e.code
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            with _usage_errors_are_shown(), TermAsInterrupt() as term:
                try:
                    return super().invoke(ctx)
                except KeyboardInterrupt as e:
                    raise Interrupted(getattr(e, "kept", ""), term.signum_of(e)) from e
        except LpsError as e:
            echo(f"{ctx.info_name}: {' '.join(str(e).split())}", err=True)
            ctx.exit(e.exit_code)
        except UnicodeEncodeError as e:  # names of videos are escaped; a folder of the command line may come this far
            before, after = e.object[: e.start].rpartition('"')[2], e.object[e.start :].partition('"')[0]
            name = " ".join(f"{before}{after}".split())
            echo(f"{ctx.info_name}: not UTF-8: {name}; rename it, or give a link to it", err=True)
            ctx.exit(LpsError.exit_code)
        except Interrupted as e:
            echo(interrupted_line(e), err=True)
            ctx.exit(EXIT_SIGNAL + e.signum)
        except BrokenPipeError as e:  # of another pipe than ours, as to a process that died: click would not say it
            echo(f"{ctx.info_name}: {first_line(e)}", err=True)
            ctx.exit(LpsError.exit_code)


class PathsComplete(ShellComplete):
    """Completes what has no words of its own as a path: click would leave it without any completion."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Return the words that may stand here, else one item that asks the shell for its paths."""
        return super().get_completions(args, incomplete) or [CompletionItem(incomplete, type="file")]


class BashPathsComplete(PathsComplete, BashComplete):
    """Completion of bash."""


class ZshPathsComplete(PathsComplete, ZshComplete):
    """Completion of zsh."""


class FishPathsComplete(PathsComplete, FishComplete):
    """Completion of fish."""


for _shell in (BashPathsComplete, ZshPathsComplete, FishPathsComplete):
    add_completion_class(_shell)


def json_option(command: F) -> F:
    """Give a command `--json [FILE]`, the argument `json_to`: what `show_or_write` takes."""
    return click.option(
        "--json", "json_to", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), is_flag=False,
        flag_value="-", metavar="[FILE]", help="Write JSON into FILE, too; without FILE, or with -, print it instead.",
    )(command)  # fmt: skip


def show_or_write(json_to: Path | None, record: Callable[[], Any], show: Callable[[], None]) -> None:
    """Write the record where `--json` says, then show something to people, unless JSON went to stdout."""
    if json_to is not None:
        write_output(json_to, pretty_json(record()))
    if not is_stdout(json_to):
        show()


def is_stdout(path: Path | None) -> bool:
    """Tell whether a file that was asked for is stdout."""
    return path is not None and str(path) == "-"


def write_output(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, to stdout where it is '-'. Raises UnreadableError."""
    if is_stdout(path):
        echo(data, nl=False)
        return
    try:
        if path.exists() and not path.is_file():  # a pipe or a device, which nothing may replace
            with suppress(BrokenPipeError):  # its reader has what it wanted
                path.write_bytes(data)
            return
        with write_atomically(path.resolve()) as temporary:  # a link leads to the file as before
            temporary.write_bytes(data)
    except OSError as e:
        raise UnreadableError(f"cannot write {path}: {first_line(e)}") from e


class TermAsInterrupt:
    """Lets SIGTERM end a command as Ctrl-C does, so that whatever is open is closed; once, for that may take a while.

    Libraries catch KeyboardInterrupt and raise one of their own, so which signal it was is kept here.
    """

    def __init__(self) -> None:
        self._received = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = signal.signal(signal.SIGTERM, self._raise)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _raise(self, _signum: int, _frame: object) -> None:
        if not self._received:
            self._received = True
            raise KeyboardInterrupt

    def signum_of(self, error: KeyboardInterrupt) -> int:
        """Return the signal that an interruption is due to."""
        return signal.SIGTERM if self._received else getattr(error, "signum", signal.SIGINT)


def interrupted_line(error: Interrupted) -> str:
    """Return how a program says that it was interrupted."""
    program = click.get_current_context().find_root().info_name
    by = "" if error.signum == signal.SIGINT else f" by {signal.Signals(error.signum).name}"
    start = "\n" if sys.stderr.isatty() else ""  # a terminal shows ^C
    return f"{start}{program}: interrupted{by}; {error.kept or 'run the same command again'}"


def console(width: int = WIDTH) -> "Console":
    """Return the console of stdout; a file or a pipe gets `width` columns, however narrow our terminal is."""
    from rich.console import Console

    return _only_shown(Console(width=None if sys.stdout.isatty() else width))


def _only_shown(made: "Console") -> "Console":
    """Let a console show names that hold control characters, and not obey them."""
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
    from rich.segment import Segment

    class Shown:
        def __init__(self, inner: ConsoleRenderable) -> None:
            self.inner = inner

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            for part in console.render(self.inner, options):
                yield part if part.control else Segment(visible(part.text), part.style)

    class Hook(RenderHook):
        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            return [Shown(each) for each in renderables]

    made.push_render_hook(Hook())
    return made


def codes_table(n_videos: Mapping[tuple[str, str], int]) -> "Table":
    """Return a table of the codes that videos ended with; `n_videos` has their number by code and label."""
    from rich.table import Table

    table = Table("code", "label", "videos", "meaning", title="videos with a code")
    for (code, label), n in n_videos.items():
        table.add_row(linked(code, code_link(code)), label, str(n), meaning_of(code))
    return table


def linked(text: str, address: str, after: str = "") -> "Text":
    """Return a text that leads to an address on terminals that have links, and what follows it."""
    from rich.text import Text

    return Text.assemble((text, f"link {address}"), after)


class ProgressView:
    """Progress on stderr: a bar on a terminal, elsewhere plain lines, one in LINE_SECONDS at most.

    `lines=False` leaves out the plain lines and clears the bar at the end; `quiet` shows nothing at all.
    """

    def __init__(self, *, lines: bool = True, quiet: bool = False) -> None:
        from rich.console import Console

        self._console = _only_shown(Console(stderr=True))
        self._lines, self._quiet = lines and not quiet, quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self.what = ""
        """What is in progress."""
        self._unit = ""
        self._first = self._total = 0
        self._began = self._last_line = monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
                       TextColumn("{task.fields[note]}", markup=False), TimeElapsedColumn())  # fmt: skip
            self._bar = Progress(*columns, console=self._console, transient=not self._lines)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, what: str, total: int, *, done: int = 0, unit: str = "") -> None:
        """Begin a new bar; with a `unit` ("clips") it tells the rate and the time that is left."""
        self.what, self._total, self._first, self._unit = what, total, done, unit
        self._began = monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task(what, total=total, completed=done, note="")

    @property
    def seconds(self) -> float:
        """Time since the bar began."""
        return max(monotonic() - self._began, 1e-3)

    def update(self, done: int, note: str = "", *, what: str = "") -> None:
        """Show that `done` of all are done; `what` replaces the name of the bar."""
        self.what = what or self.what
        if self._unit:
            rate = (done - self._first) / self.seconds
            left = duration((self._total - done) / max(rate, 1e-9))
            note = ", ".join(part for part in (note, f"{rate:.2f} {self._unit}/s", f"{left} left") if part)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, note=note, description=self.what)
        elif self._lines and (done == self._total or monotonic() - self._last_line >= LINE_SECONDS):
            self._last_line = monotonic()
            echo(f"{self.what}: {done}/{self._total} {note}".rstrip(), err=True)

    def note(self, text: str) -> None:
        """Replace what the bar says besides its numbers; plain lines do not show it."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, note=text)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        elif not self._quiet:
            echo(line, err=True)


def duration(seconds: float) -> str:
    """Return a time for people: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
