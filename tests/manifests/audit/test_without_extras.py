"""What an installation without extras can do: the programs run with every package hidden that only extras bring."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from tests.test_packaging import requirements

RUN = """
import contextlib, importlib, io, json, sys

hidden = set(json.loads(sys.argv[1]))

class Without:
    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, *more):
        return None if name.partition(".")[0] in hidden else self._finder.find_spec(name, *more)

    def __getattr__(self, name):
        return getattr(self._finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
ended = []
for program, *words in json.loads(sys.argv[2]):
    main = importlib.import_module(f"lps.cli.{program}.main").main
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(words, prog_name=f"lps-{program}")
        except SystemExit as e:
            code = e.code or 0
    ended.append([code, said.getvalue()])
print(json.dumps(ended))
"""


@cache
def extra_modules() -> frozenset[str]:
    """Return the top names of all modules that are installed, but not by what is always required."""
    always, left = set(), [name for name in requirements("")]
    while left:
        name = left.pop()
        if name not in always:
            always.add(name)
            left += required_by(name)
    return frozenset(
        module
        for module, owners in packages_distributions().items()
        if not always & {plain(owner) for owner in owners} and module not in ("lps", "tests", "_distutils_hack")
    )


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required_by(name: str) -> list[str]:
    """Return what a package requires always, on this machine."""
    found = []
    for line in requires(name) or ():
        requirement, _, marker = line.partition(";")
        if not re.search(r"extra\b|win32|Windows|python_version\s*<", marker):
            found.append(plain(re.match(r"[\w.-]+", requirement).group()))  # type: ignore[union-attr]
    return found


def ended(commands: Sequence[Sequence[object]]) -> list[tuple[int, str]]:
    """Return exit code and output of commands of an installation without extras."""
    words = [[str(word) for word in command] for command in commands]
    call = [sys.executable, "-c", RUN, json.dumps(sorted(extra_modules())), json.dumps(words)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [(code, said) for code, said in json.loads(done.stdout.splitlines()[-1])]


def test_what_is_hidden() -> None:
    hidden = extra_modules()
    assert hidden >= {"torch", "ray", "av", "cv2", "face_alignment", "retinaface", "webdataset", "matplotlib", "pytest"}
    assert not hidden & {"numpy", "pyarrow", "duckdb", "sklearn", "scipy", "PIL", "jinja2", "click", "rich", "fsspec"}


def test_audit_and_what_is_told_of_a_data_set(dataset: Path, tmp_path: Path) -> None:
    out = shutil.copytree(dataset, tmp_path / "out")
    commands = [
        ("audit", "show", out),
        ("audit", "check", out, "--level", "full", "--json", tmp_path / "full.json", "--html", tmp_path / "page.html"),
        ("audit", "check", "--explain", "R1"),
        ("audit", "diff", out, out),
        ("audit", "seal", out),
        ("prep", "status", out),
        ("prep", "split", out, "--rule", "ranked", "--name", "another"),
        ("prep", "preview", out, "--to", tmp_path / "sheet.png"),
        ("prep", "sources", "ffpp"),
        ("prep", "weights", "list"),
        *([program, "--help"] for program in ("audit", "prep", "train")),
    ]
    for command, (code, said) in zip(commands, ended(commands), strict=True):
        assert code == 0, (command, said)
        assert "not installed" not in said, (command, said)
    checks = {check["id"]: check for check in json.loads((tmp_path / "full.json").read_text())["checks"]}
    assert not [check for check in checks.values() if "module" in check["note"].lower()]
    assert {checks[name]["state"] for name in ("A2", "L6", "C4")} == {"pass"}
    assert (tmp_path / "page.html").read_text().count("<svg") > 3
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_other_commands_name_their_extra(dataset: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", dataset / "index.json"
    commands: dict[tuple[object, ...], str] = {
        ("prep", "run", tmp_path, out): "`run` needs ray|prep",
        ("prep", "plan", tmp_path, out): "`plan` needs ray|prep",
        ("prep", "demo", out): "`demo` needs ray|prep",
        ("prep", "convert", dataset, out, "--to", "mp4"): "`convert` needs av|prep",
        ("prep", "weights", "fetch", "retinaface-mobilenet", "--weights-dir", out): "`weights fetch` needs pooch|prep",
        ("train", "pretrain", out, "--data", dataset, "--init", "random"): "`pretrain` needs torch|train",
        ("train", "classify", out, "--data", dataset, "--init", "random"): "`classify` needs torch|train",
        ("train", "evaluate", "--checkpoint", file, "--data", dataset, "--split", "test", "--out", out):
            "`evaluate` needs cv2|train",
        ("train", "score", file, "--checkpoint", file): "`score` needs torch|all",
        ("train", "export", tmp_path / "x.pt2", "--checkpoint", file): "`export` needs torch|train",
        ("train", "report", tmp_path): "`report` needs cv2|train",
        ("train", "figure", "roc", out, "--scores", f"a={out}"): "`figure roc` needs cv2|train",
        ("audit", "check", dataset, "--level", "deep"): "`check --level deep` needs av|prep",
    }  # fmt: skip
    for (command, wanted), (code, said) in zip(commands.items(), ended([*commands]), strict=True):
        needs, _, extra = wanted.partition("|")
        line = f"lps-{command[0]}: {needs}, which is not installed: pip install 'lps-prep[{extra}]'\n"
        assert (code, said) == (4, line), command
    assert not out.exists()
