"""What the pages name exists: files, modules, and what is said to be defined in a file."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").glob("*.md"))
IDS = [page.name for page in PAGES]

FOLDERS = "cli|pipeline|model|manifests|tests|benchmarks|examples|docs|.ci"
FILE = re.compile(rf"(?<![\w./-])((?:{FOLDERS})/[\w/.-]*\w/?)(?![\w*<{{])")
DEFINED = re.compile(r"`([\w/]+\.py)`\s\(((?:`\w+`(?:,\s)?)+)\)")
DOTTED = re.compile(r"(?<![\w.])lps\.(?:cli|manifests|model|pipeline)(?:\.\w+)*")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_files_that_are_named_exist(page: Path) -> None:
    text = "".join(page.read_text().split("```")[::2])  # blocks name a user's files
    named = {name for name in FILE.findall(text) if "." in name.rpartition("/")[2] or name.endswith("/")}
    missing = sorted(name for name in named if not (ROOT / name).exists())
    missing += sorted(link for link in LINK.findall(text) if not (page.parent / link).exists())
    assert not missing


def defined(path: Path) -> Iterator[str]:
    """Yield the names at the top of a file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_names_in_brackets_are_defined_in_their_file(page: Path) -> None:
    missing = [
        f"{path}: {name}"
        for path, names in DEFINED.findall(page.read_text())
        for name in re.findall(r"\w+", names)
        if name not in set(defined(ROOT / path))
    ]
    assert not missing


def resolves(dotted: str) -> bool:
    """Tell whether `lps.a.b.c` is a module or something in one."""
    parts = dotted.split(".")
    for n in range(len(parts), 1, -1):
        name = ".".join(parts[:n])
        try:
            found = find_spec(name)
        except ModuleNotFoundError:
            continue
        if found is not None:
            value = import_module(name)
            for part in parts[n:]:
                if not hasattr(value, part):
                    return False
                value = getattr(value, part)
            return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_dotted_names_can_be_imported(page: Path) -> None:
    assert not [name for name in sorted(set(DOTTED.findall(page.read_text()))) if not resolves(name)]


IMPORT = re.compile(r"\bfrom (lps(?:\.\w+)*) import (\w+(?:, \w+)*)|\bimport (lps(?:\.\w+)+)")


def imported_in_strings(path: Path) -> Iterator[str]:
    """Yield what the programs of a file import that it hands to another interpreter as a string."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for module, names, dotted in IMPORT.findall(node.value):
                yield from [dotted] if dotted else (f"{module}.{name}" for name in names.split(", "))


def test_imports_of_programs_in_strings_can_be_imported() -> None:
    files = [path for folder in ("tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    named = {name: path.name for path in files for name in imported_in_strings(path)}
    named = {name: path for name, path in named.items() if path != "test_architecture.py"}  # its files are made up
    assert len(named) > 10
    assert not [f"{path}: {name}" for name, path in named.items() if not resolves(name)]


def test_architecture_names_every_folder() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    folders = {
        file.parent for part in ("cli", "manifests", "model", "pipeline") for file in (ROOT / part).rglob("*.py")
    }
    missing = [str(path) for path in (folder.relative_to(ROOT) for folder in folders) if f"`{path}/`" not in page]
    assert sorted(missing) == ["cli", "model", "pipeline"]  # only their folders have a row
    assert len(DEFINED.findall(page)) > 60
