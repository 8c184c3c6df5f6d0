"""What keeps the four packages simple: imports that run one way, short files, one meaning for each class name.

Every rule takes a `Tree` and returns what breaks it, one line each. The last test breaks each of them in a small tree.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MAY_IMPORT_PACKAGES = {
    "cli": "manifests model pipeline",
    "model": "manifests",
    "pipeline": "manifests",
    "manifests": "",
}

MAY_IMPORT = {
    "cli": "manifests",
    "cli.audit": """cli manifests manifests.audit manifests.audit.core manifests.audit.report manifests.certificates
        manifests.pages manifests.shortcuts pipeline.tools""",
    "cli.docs": "cli.audit cli.prep cli.train manifests manifests.audit.core",
    "cli.prep": """cli manifests manifests.splits pipeline.config pipeline.faces pipeline.job pipeline.sources
        pipeline.tools pipeline.tools.gallery""",
    "cli.train": """cli manifests manifests.pages manifests.sequences manifests.splits model.data model.evaluation
        model.paper model.paper.figures model.report model.training pipeline.clips pipeline.config pipeline.faces
        pipeline.sources.shared pipeline.video""",
    "manifests.audit": "manifests manifests.audit.checks manifests.audit.core manifests.certificates",
    "manifests.audit.checks": "manifests manifests.audit.core manifests.sequences manifests.shortcuts manifests.splits",
    "manifests.audit.core": "manifests manifests.splits",
    "manifests.audit.report": "manifests manifests.audit.core manifests.pages manifests.shortcuts",
    "manifests.cards": "manifests",
    "manifests.certificates": "manifests",
    "manifests.pages": "manifests",
    "manifests": "manifests.remote",
    "manifests.sequences": "manifests",
    "manifests.shortcuts": "manifests manifests.audit.core",
    "manifests.splits": "manifests",
    "model.data": "manifests manifests.certificates manifests.remote manifests.splits model.data.changes",
    "model.data.changes": "manifests",
    "model.data.fakes": "manifests model.data",
    "model.evaluation": "manifests manifests.shortcuts manifests.splits model.data model.networks model.training",
    "model.networks": "manifests",
    "model.paper": "manifests manifests.splits model.data model.evaluation model.networks model.training",
    "model.paper.figures": """manifests model.data model.data.changes model.data.fakes model.evaluation
        model.paper""",
    "model.report": "manifests manifests.pages model.data model.evaluation model.training",
    "model.training": "manifests manifests.splits model.data model.data.changes model.data.fakes model.networks",
    "pipeline.clips": "manifests pipeline.config pipeline.faces pipeline.video",
    "pipeline.config": "manifests manifests.splits",
    "pipeline.faces": "manifests pipeline.config pipeline.video",
    "pipeline.job": """manifests manifests.cards manifests.sequences manifests.splits pipeline.clips pipeline.config
        pipeline.faces pipeline.sources pipeline.sources.shared pipeline.video""",
    "pipeline.sources": "manifests manifests.sequences pipeline.sources.releases pipeline.sources.shared",
    "pipeline.sources.releases": "manifests manifests.sequences pipeline.sources.shared",
    "pipeline.sources.shared": "manifests manifests.sequences",
    "pipeline.tools": """manifests manifests.audit.core manifests.pages manifests.sequences pipeline.clips
        pipeline.config pipeline.faces pipeline.sources.shared pipeline.video""",
    "pipeline.tools.gallery": "manifests manifests.pages pipeline.config pipeline.tools pipeline.video",
    "pipeline.video": "manifests manifests.remote manifests.sequences pipeline.config",
}
"""Folder -> folders that its modules may import, besides their own. Every arrow here is used by some import."""

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_FOLDER_FILES = 18
SOURCES = (".py", ".pyi", ".j2", ".css", ".js")


@dataclass(frozen=True)
class Tree:
    """The packages below a folder."""

    root: Path
    may_import: Mapping[str, str]

    @cached_property
    def files(self) -> list[Path]:
        """Every file of the packages that is not made by Python, in order."""
        found = (path for part in MAY_IMPORT_PACKAGES for path in (self.root / part).rglob("*"))
        return sorted(path for path in found if path.is_file() and path.parent.name != "__pycache__")

    @cached_property
    def modules(self) -> dict[str, ast.Module]:
        """Name without `lps.` -> syntax tree. The name of a package's own file ends with `.__init__`."""
        paths = [path for path in self.files if path.suffix == ".py"]
        names = [".".join(path.relative_to(self.root).with_suffix("").parts) for path in paths]
        return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in zip(names, paths, strict=True)}

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """Module -> modules that it imports anywhere: at its top, in functions, for type checkers only."""
        return {name: set(self._imported(name)) - {name} for name in self.modules}

    def _imported(self, name: str) -> Iterator[str]:
        for full in full_names(self.modules[name]):
            module = full.removeprefix("lps.")
            for candidate in (module, f"{module}.__init__", parent(module), f"{parent(module)}.__init__"):
                if full.startswith("lps.") and candidate in self.modules:
                    yield candidate
                    break

    @cached_property
    def arrows(self) -> dict[tuple[str, str], list[str]]:
        """(folder, folder that it imports) -> the imports. What an `__init__` names is another matter."""
        found = defaultdict(list)
        for name, imported in self.imports.items():
            for other in imported:
                if parent(name) != parent(other) and not name.endswith(".__init__"):
                    found[parent(name), parent(other)].append(f"{name} imports {other}")
        return found

    @cached_property
    def allowed(self) -> set[tuple[str, str]]:
        """The arrows of the table."""
        return {(folder, other) for folder, others in self.may_import.items() for other in others.split()}


def parent(name: str) -> str:
    """Return the folder of a module."""
    return name.rpartition(".")[0]


def full_names(module: ast.Module) -> Iterator[str]:
    """Yield the full name of everything that a module imports, anywhere in it."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (
                each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)
            )


# ---- rules -----------------------------------------------------------------------------------------------------------


def imports_by_another_name(tree: Tree) -> list[str]:
    """Only `lps.<package>` is the package: relative imports hide where they lead, bare ones load a second copy.

    `import lps` alone does not say what is used of it.
    """
    wrong = (".", *(f"{part}." for part in (*tree.may_import, "tests")))
    return [
        f"{name} imports {full}"
        for name, module in tree.modules.items()
        for full in full_names(module)
        if f"{full}.".startswith(wrong) or full == "lps"
    ]


def imports_against_the_table(tree: Tree) -> list[str]:
    return sorted(line for arrow, lines in tree.arrows.items() if arrow not in tree.allowed for line in lines)


def arrows_that_no_import_uses(tree: Tree) -> list[str]:
    return [f"{folder} -> {other}" for folder, other in sorted(tree.allowed - set(tree.arrows))]


def packages_against_their_order(tree: Tree) -> list[str]:
    pairs = {(folder.split(".")[0], other.split(".")[0]) for folder, other in tree.allowed}
    return [f"{a} -> {b}" for a, b in sorted(pairs) if a != b and b not in MAY_IMPORT_PACKAGES[a].split()]


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Return one circle of a graph, if it has any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        return [" <- ".join(e.args[1])]
    return []


def circles_of_files(tree: Tree) -> list[str]:
    return circle(tree.imports)


def circles_of_folders(tree: Tree) -> list[str]:
    graph: dict[str, set[str]] = defaultdict(set)
    for folder, other in tree.arrows:
        graph[folder].add(other)
    return circle(graph)


def packages_that_name_others(tree: Tree) -> list[str]:
    """An `__init__` is for users: it names what lies below it, and no module of ours goes through it."""
    return [
        f"{name} imports {other}"
        for name, imported in tree.imports.items()
        for other in imported
        if other.endswith(".__init__")
        or (name.endswith(".__init__") and not other.startswith(name.removesuffix("__init__")))
    ]


def long_files(tree: Tree) -> list[str]:
    sizes = {path: len(path.read_text().splitlines()) for path in tree.files if path.suffix in SOURCES}
    return [f"{path}: {n} lines" for path, n in sizes.items() if n > MAX_FILE_LINES]


def long_functions(tree: Tree) -> list[str]:
    return [
        f"{name}.{node.name}: {n} lines"
        for name, module in tree.modules.items()
        for node in ast.walk(module)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (n := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]


def full_folders(tree: Tree) -> list[str]:
    folders = [path.parent for path in tree.files]
    sizes = {folder: folders.count(folder) for folder in folders}
    return [f"{folder}: {n} files" for folder, n in sizes.items() if n > MAX_FOLDER_FILES]


def class_names_of_two_things(tree: Tree) -> list[str]:
    places: dict[str, list[str]] = defaultdict(list)
    for name, module in tree.modules.items():
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(f"{name}:{node.lineno}")
    return [f"{name}: {' '.join(found)}" for name, found in places.items() if len(found) > 1]


def docstrings_that_begin_with_of(tree: Tree) -> list[str]:
    """They begin with a noun or a verb."""
    return [
        f"{name}:{node.lineno}"
        for name, module in tree.modules.items()
        for node in ast.walk(module)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if str(node.value.value).startswith("Of ")
    ]


Rule = Callable[[Tree], list[str]]
BROKEN: dict[Rule, dict[str, str]] = {
    imports_by_another_name: {"model/data/a.py": "def f():\n    import model.data"},
    imports_against_the_table: {"model/data/a.py": "def f():\n    from lps.cli.b import c", "cli/b.py": "c = 1"},
    arrows_that_no_import_uses: {"model/networks/a.py": "import torch"},
    packages_against_their_order: {"TABLE": "manifests -> model.data"},
    circles_of_files: {
        "model/data/a.py": "def f():\n    from lps.model.data import b",
        "model/data/b.py": "if TYPE_CHECKING:\n    from lps.model.data.a import f",
    },
    circles_of_folders: {
        "model/data/a.py": "import lps.model.networks.a",
        "model/data/b.py": "",
        "model/networks/b.py": "from lps.model.data.b import c",
    },
    packages_that_name_others: {"model/__init__.py": "", "model/data/a.py": "from lps.model import open_data"},
    long_files: {"model/page.html.j2": "\n" * 501},
    long_functions: {"model/data/a.py": "class A:\n    def f(self):\n" + "        a\n" * 60},
    full_folders: {f"model/data/{k}.py": "" for k in range(19)},
    class_names_of_two_things: {"model/data/a.py": "class _A: ...", "pipeline/a.py": "def f():\n    class A: ..."},
    docstrings_that_begin_with_of: {"model/data/a.py": 'class A:\n    x: int\n    """Of a file, its size."""'},
}
"""Rule -> files that break it. In their table, `TABLE` is one more arrow."""


# ---- tests -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ours() -> Tree:
    """Return the packages as they are."""
    return Tree(ROOT, MAY_IMPORT)


@pytest.mark.parametrize("rule", BROKEN, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Rule, ours: Tree) -> None:
    assert rule(ours) == []


@pytest.mark.parametrize("rule", BROKEN, ids=lambda rule: rule.__name__)
def test_rule_finds_what_breaks_it(rule: Rule, tmp_path: Path) -> None:
    whole = {
        "cli/main.py": "def main():\n    import lps.model.data.a",
        "model/data/a.py": "if TYPE_CHECKING:\n    from lps.model.networks.a import Net",
        "model/networks/a.py": "from lps.manifests import errors",
        "manifests/errors.py": "",
    }
    table = {"cli": "model.data", "model.data": "model.networks", "model.networks": "manifests"}
    assert rule(written(tmp_path / "whole", whole, table)) == []
    files = {**whole, **BROKEN[rule]}
    folder, _, other = files.pop("TABLE", "").partition(" -> ")
    assert len(rule(written(tmp_path / "broken", files, {**table, folder: other} if folder else table))) == 1


def written(root: Path, files: Mapping[str, str], table: Mapping[str, str]) -> Tree:
    """Write files and return their tree."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Tree(root, table)


def test_every_import_is_seen(ours: Tree) -> None:
    """No line that looks like an import of ours is missing from the graph."""
    n_lines = 0
    for path in ours.files:
        if path.suffix == ".py":
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for line in re.findall(r"^\s*(?:from|import) lps\.([\w.]+)", path.read_text(), re.MULTILINE):
                n_lines += 1
                assert any(other == line or parent(other) == line for other in ours.imports[name]), (name, line)
    assert n_lines > 500


IMPORTS_OF_OTHER_KINDS = ('import_module("lps.cli.b")', '__import__("lps.cli.b")', "from lps.cli import b")


@pytest.mark.parametrize("code", IMPORTS_OF_OTHER_KINDS)
def test_lazy_imports_of_every_kind_are_seen(code: str, tmp_path: Path) -> None:
    files = {"model/data/a.py": f"def f():\n    {code}", "cli/b.py": ""}
    assert imports_against_the_table(written(tmp_path, files, {})) == ["model.data.a imports cli.b"]


def test_import_of_the_namespace_alone_is_found(tmp_path: Path) -> None:
    assert imports_by_another_name(written(tmp_path, {"cli/b.py": "import lps"}, {})) == ["cli.b imports lps"]


def private_names_used(module: ast.Module) -> set[str]:
    """Return the private names of our modules that a test imports, or reaches by way of a module."""
    imported = [
        alias
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lps.")
        for alias in node.names
    ]
    modules = {alias.asname or alias.name for alias in imported}
    reached = {
        node.attr
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
    }
    return {name for name in reached | {alias.name for alias in imported} if re.match("_[^_]", name)}


def test_tests_use_no_private_names() -> None:
    files = sorted((ROOT / "tests").rglob("*.py"))
    found = {str(path): private_names_used(ast.parse(path.read_text())) for path in files}
    assert len(found) > 100
    assert {name: names for name, names in found.items() if names} == {}
    code = "from lps.model.data import frames\nfrom lps.model.data.frames import _a as a\nframes._b(frames.__name__)"
    assert private_names_used(ast.parse(code)) == {"_a", "_b"}
