"""Every command that is written can be called: no module keeps one that no program reaches."""

import ast
import os
import signal
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from inspect import unwrap
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType

import click
import pytest
from click.shell_completion import get_completion_class
from click.testing import CliRunner

import lps.cli
from lps.cli.common import (
    BashPathsComplete,
    FishPathsComplete,
    LpsCommand,
    LpsGroup,
    PathsComplete,
    ZshPathsComplete,
    write_output,
)
from lps.cli.docs.reference import PROGRAMS, walk
from lps.manifests.errors import UnreadableError

MODULES = [import_module(info.name) for info in walk_packages(lps.cli.__path__, "lps.cli.") if not info.ispkg]


@pytest.mark.parametrize(
    ("signum", "code", "says"),
    [(signal.SIGTERM, 143, "program: interrupted by SIGTERM; "), (signal.SIGINT, 130, "program: interrupted; ")],
)
def test_signals_end_a_program_in_one_line(signum: int, code: int, says: str) -> None:
    @click.group(cls=LpsGroup)
    def program() -> None:
        pass

    @program.command()
    def work() -> None:
        try:
            os.kill(os.getpid(), signum)
        finally:
            if signum == signal.SIGTERM:  # what is being closed is closed, however often one asks
                os.kill(os.getpid(), signum)
            click.echo("closed")

    before = signal.getsignal(signal.SIGTERM)
    ended = CliRunner().invoke(program, ["work"], prog_name="program")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (code, "closed\n", f"{says}run the same command again\n")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda name: UnreadableError(f"{name}: gone"), r"a/\xd6.mp4: gone"),
        (lambda name: UnicodeEncodeError("utf-8", f'{{"x": "{name}"}}', 9, 10, "surrogates not allowed"),
         r"not UTF-8: a/\xd6.mp4; rename it, or give a link to it"),
    ],
    ids=["in a message", "where text is needed"],
)  # fmt: skip
def test_a_name_that_is_not_utf8_ends_a_program_in_one_line(fault: Callable[[str], Exception], says: str) -> None:
    @click.group(cls=LpsGroup)
    def program() -> None:
        pass

    @program.command()
    def work() -> None:
        raise fault(os.fsdecode(b"a/\xd6.mp4"))

    ended = CliRunner().invoke(program, ["work"], prog_name="program")
    assert (ended.exit_code, ended.stderr) == (4, f"program: {says}\n")


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


COMMANDS = [(path, context.command) for name, program in PROGRAMS.items() for path, context in walk(name, program)]
USAGE = {"lps-prep": 2, "lps-audit": 3, "lps-train": 2}
"""Exit codes of wrong usage, as the help of each program gives them."""
HOLDING_ONE = [
    pytest.param(path, name, id=f"{path} {name}")
    for path, command in COMMANDS
    for option in command.params
    if isinstance(option, click.Option) and not option.multiple and (not option.is_flag or option.secondary_opts)
    for name in (option.opts[-1],)
]


@pytest.mark.parametrize(("path", "name"), HOLDING_ONE)
def test_an_option_that_takes_one_value_refuses_a_second(path: str, name: str) -> None:
    program, *words = path.split()
    command: click.Command = PROGRAMS[program]
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    option = next(each for each in command.params if name in each.opts)
    given = [name] if isinstance(option, click.Option) and option.is_flag else [name, "1"]
    ended = CliRunner().invoke(PROGRAMS[program], [*words, *given, *given])
    assert ended.exit_code == USAGE[program], ended.output
    assert ended.output == f"Error: {name} is given 2 times, but takes one value\n"


def test_control_characters_of_words_are_shown() -> None:
    name = "a\x1b[2Jb"

    @click.group(cls=LpsGroup)
    def program() -> None:
        pass

    @program.command()
    @click.argument("number", type=int)
    def work(number: int) -> None:
        raise click.BadParameter(name)

    for words in ([name], [f"--{name}"], ["work", name], ["work", "3", f"--{name}"], ["work", "3"]):
        ended = CliRunner().invoke(program, words)
        assert (ended.exit_code, "\x1b" in ended.output) == (2, False)
        assert "\\x1b[2Jb" in ended.output


def test_no_command_prints_a_name_as_it_is() -> None:
    files = Path(lps.cli.common.__file__).parent.rglob("*.py")
    assert [file.name for file in files if "click.echo(" in file.read_text()] == ["common.py"]


def test_every_command_counts_its_options() -> None:
    assert len(HOLDING_ONE) > 100
    assert [path for path, command in COMMANDS if not isinstance(command, LpsCommand)] == []


def test_what_may_be_given_again_still_may() -> None:
    for words in (
        ["lps-prep", "retry", "x", "--code", "E_OOM", "--code", "E_TIMEOUT"],
        ["lps-audit", "check", "x", "--strict", "--strict"],
    ):
        ended = CliRunner().invoke(PROGRAMS[words[0]], words[1:])
        assert ended.exit_code == 4, ended.output


# ---- completion ------------------------------------------------------------------------------------------------------


SHELLS = (BashPathsComplete, ZshPathsComplete, FishPathsComplete)


def completed(path: str, *words: str, incomplete: str, shell: type[PathsComplete] = BashPathsComplete) -> list[str]:
    """Return the lines that the shell is given."""
    program, *names = path.split()
    completion = shell(PROGRAMS[program], {}, program, "_COMPLETE")
    items = completion.get_completions([*names, *words], incomplete)
    return [f"{item.type},{item.value}" for item in items]


def test_what_has_no_words_of_its_own_is_completed_as_a_path() -> None:
    n = 0
    for path, command in COMMANDS:
        for parameter in command.params:
            option = parameter if isinstance(parameter, click.Option) else None
            if isinstance(parameter.type, click.Choice) or (option and (option.is_flag or option.count)):
                continue
            words = [option.opts[-1]] if option else []
            assert completed(path, *words, incomplete="vi") in (["file,vi"], ["dir,vi"]), (path, parameter)
            n += 1
    assert n > 100


def test_completion_is_that_of_every_shell_and_knows_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for shell in SHELLS:
        assert get_completion_class(shell.name) is shell
        assert completed("lps-prep run", incomplete="vi", shell=shell) == ["file,vi"]
    assert completed("lps-prep", incomplete="pl") == ["plain,plan"]
    assert completed("lps-prep run", "--dataset", incomplete="ff") == ["plain,ffpp", "plain,ffpp-flat", "plain,ffiw"]
    assert completed("lps-prep run", "--dataset", incomplete="ffpp-") == ["plain,ffpp-flat"]
    assert "plain,--dataset" in completed("lps-prep run", "videos", incomplete="--da")
    for name, value in (
        ("_LPS_PREP_COMPLETE", "bash_complete"),
        ("COMP_WORDS", "lps-prep run vi"),
        ("COMP_CWORD", "2"),
    ):
        monkeypatch.setenv(name, value)
    assert CliRunner().invoke(PROGRAMS["lps-prep"], prog_name="lps-prep").output == "file,vi\n"


# ---- files that are asked for ----------------------------------------------------------------------------------------


def test_files_are_written_whole_links_are_kept_and_pipes_are_not_replaced(tmp_path: Path) -> None:
    real, link, pipe = tmp_path / "real.json", tmp_path / "link.json", tmp_path / "pipe"
    real.write_bytes(b"before")
    link.symlink_to(real)
    write_output(link, b"after")
    assert (link.is_symlink(), real.read_bytes()) == (True, b"after")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_output(pipe, b"through")
    assert (os.read(reader, 99), pipe.is_fifo()) == (b"through", True)
    os.close(reader)
    with pytest.raises(UnreadableError, match=r"cannot write .*x: "):
        write_output(real / "x", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "pipe", "real.json"]


@pytest.mark.parametrize("name", ["lps-prep plan", "lps-prep status", "lps-audit show", "lps-audit check"])
def test_json_is_asked_for_alike(name: str) -> None:
    [command] = [command for path, command in COMMANDS if path == name]
    [option] = [each for each in command.params if "--json" in each.opts]
    assert (option.name, option.make_metavar(click.Context(command))) == ("json_to", "[FILE]")


def test_no_option_takes_nan_for_a_number() -> None:
    said = [
        CliRunner().invoke(program, [*path.split()[1:], option, "nan"])
        for name, program in PROGRAMS.items()
        for path, context in walk(name, program)
        for parameter in context.command.params
        if isinstance(parameter.type, click.types.FloatParamType)
        for option in parameter.opts
    ]
    assert len(said) > 2
    assert {(each.exit_code, "nan is not a number" in each.stderr) for each in said} == {(2, True)}
