"""What holds for the project as a whole: packages, paths, and what a start-up costs."""

import ast
import os
import re
import subprocess
import sys
from configparser import ConfigParser
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from lps.cli.docs.reference import PROGRAMS
from lps.cli.extras import EXTRAS, OF_PROGRAM

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("cli", "manifests", "model", "pipeline")
CONFIG = ConfigParser()
CONFIG.read(ROOT / "setup.cfg")


def pairs(section: str, key: str) -> dict[str, str]:
    """Return a setting of lines `name = value`."""
    lines = CONFIG[section][key].split("\n")
    return dict(re.split(r"\s*=\s*", line) for line in lines if line)


def requirements(extra: str) -> set[str]:
    """Return the names of what setup.cfg requires, for an extra with what it includes; "" is without extras."""
    lines = CONFIG["options"]["install_requires"] if not extra else CONFIG["options.extras_require"][extra]
    names: set[str] = set()
    for line in lines.split("\n"):
        name, included = re.findall(r"^([\w.-]*)(?:\[([\w,]+)\])?", line)[0]
        if name == "lps-prep":
            names = names.union(*map(requirements, included.split(",")))
        elif name:
            names.add(name.lower())
    return names


SCRIPTS = pairs("options.entry_points", "console_scripts")

# Packages whose name in an import is another one.
MODULES = {
    "face-alignment": "face_alignment",
    "facenet-pytorch": "facenet_pytorch",
    "lazy-loader": "lazy_loader",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "retinaface-pytorch": "retinaface",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "tensorboardx": "tensorboardX",
}
# Brought by what requires them: each in a release of its own accord.
BROUGHT = {"aiohttp": "s3fs", "botocore": "s3fs", "markupsafe": "jinja2", "threadpoolctl": "scikit-learn"}

MACHINE_PATH = re.compile(r"(?<![\w./:~-])/(?:home|root|Users|work|workspace)/[\w.-]+")


def test_setup_cfg_lists_every_package() -> None:
    """An unlisted folder imports from the checkout and is missing from the wheel."""
    listed = set(CONFIG["options"]["packages"].split())
    on_disk = {
        ".".join(("lps", *file.parent.relative_to(ROOT).parts))
        for part in PARTS
        for file in (ROOT / part).rglob("*.py")
    }
    assert listed == on_disk


def test_setup_cfg_maps_every_package() -> None:
    assert pairs("options", "package_dir") == {f"lps.{part}": part for part in PARTS}


def test_package_data_is_every_other_file() -> None:
    """A template that no pattern names is missing from the wheel."""
    patterns = re.split(r",\s*", CONFIG["options.package_data"]["*"])
    files = [file for part in PARTS for file in (ROOT / part).rglob("*") if file.is_file()]
    others = [file for file in files if file.suffix != ".py" and file.parent.name != "__pycache__"]
    assert len(others) >= len(PARTS)
    assert not [file for file in others if not any(file.match(pattern) for pattern in patterns)]


@pytest.mark.parametrize("part", PARTS)
def test_packages_are_typed(part: str) -> None:
    folder = ROOT / part
    assert (folder / "__init__.py").is_file()
    assert (folder / "py.typed").is_file()
    assert not (ROOT / "lps").exists(), "the parent must stay a namespace"


def test_console_scripts_exist() -> None:
    installed = {script.name: script.value for script in entry_points(group="console_scripts")}
    for name, target in SCRIPTS.items():
        module, function = target.split(":")
        assert getattr(import_module(module), function) is PROGRAMS[name]
        assert installed.get(name, target) == target
    assert PROGRAMS.keys() == SCRIPTS.keys()


@cache
def imported_in(folder: str) -> set[str]:
    """Return the top names of what the modules of a folder import, but for this project and the standard library."""
    nodes: list[ast.AST] = [ast.parse(path.read_text()) for path in (ROOT / folder).rglob("*.py")]
    for node in nodes:  # grows: statements alone, since most of a tree are expressions
        nodes += [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt | ast.ExceptHandler)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"lps"}


def imported(*folders: str) -> set[str]:
    """Return what the modules of all of these folders import."""
    return set().union(*map(imported_in, folders))


def modules(*extras: str) -> set[str]:
    """Return the names in imports of what is installed without extras, and by these."""
    names = set().union(*map(requirements, ("", *extras)))
    return {MODULES.get(name, name) for name in names} | {name for name, by in BROUGHT.items() if by in names}


def test_every_role_has_what_its_code_imports() -> None:
    assert imported("manifests", "cli/audit") <= modules("s3"), "the auditor's part"
    assert imported("pipeline", "cli/prep") - {"face_alignment"} <= modules("prep", "s3")
    assert imported("model") <= modules("train", "export", "s3")
    assert imported("cli") - {"face_alignment"} <= modules("all")


def test_extras_that_messages_name_are_those_of_setup_cfg() -> None:
    always = modules()
    assert EXTRAS["prep"] == (imported("pipeline", "cli/prep") & modules("prep")) - always
    assert EXTRAS["train"] == (imported("model") & modules("train")) - always
    assert set(OF_PROGRAM) == set(SCRIPTS)
    assert requirements("all") >= requirements("prep") | requirements("train") | requirements("s3")


def test_one_opencv() -> None:
    """The one without windows, which needs no libGL; constraints.txt has what pip finds for all extras."""
    exact = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split("\n") if "==" in line)
    assert [name for name in exact if name.startswith("opencv")] == ["opencv-python-headless"]
    assert "face-alignment" not in {*requirements("all"), *requirements("dev")}, "it requires the other one"
    assert {name.lower() for name in exact} >= {*requirements("all"), *requirements("dev")}


def test_readme_links_lead_to_files_of_the_repository() -> None:
    """PyPI shows the README, where links without an address lead nowhere."""
    url, text = CONFIG["metadata"]["url"], (ROOT / "README.md").read_text()
    targets = dict(re.findall(r"^\[([^]]+)\]: (\S+)$", text, re.MULTILINE))
    assert targets == {path: f"{url}/{'tree' if path.endswith('/') else 'blob'}/main/{path}" for path in targets}
    assert not [path for path in targets if not (ROOT / path).exists()]
    used = re.findall(r"\[([\w/]+(?:\.md|/))\](?!: https)", text)
    assert set(used) == set(targets)
    assert not re.findall(r"\]\((?!https://)", text)
    assert all(link.startswith(url) for link in pairs("metadata", "project_urls").values())


def test_license_is_mit() -> None:
    assert CONFIG["metadata"]["license_expression"] == "MIT"
    text = (ROOT / CONFIG["metadata"]["license_files"]).read_text()
    assert text.startswith("MIT License\n\nCopyright (c) ")
    assert "The lps-prep maintainers" in text


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_machine() -> None:
    here = {str(ROOT), sys.prefix, os.path.expanduser("~")} - {"/", "/usr", "/usr/local", "/root"}  # noqa: PTH111
    named = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not text
        found = MACHINE_PATH.findall(text) + [place for place in here if place in text]
        named += [f"{path.relative_to(ROOT)}: {place}" for place in found]
    assert not named


# ---- start-up --------------------------------------------------------------------------------------------------------
START = """
import sys
import {module}
for arguments in {runs}:
    try:
        {module}.main(arguments, standalone_mode=False)
    except SystemExit:
        pass
print("LOADED", *[name for name in ("torch", "ray", "cv2", "av", "matplotlib") if name in sys.modules])
"""


@pytest.mark.parametrize("target", SCRIPTS.values())
def test_help_loads_nothing_heavy(target: str) -> None:
    module, function = target.split(":")
    assert function == "main"
    commands = [[name, "--help"] for name in import_module(module).main.commands]
    code = START.format(module=module, runs=[["--help"], *commands])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("Usage:") == len(commands) + 1
    assert done.stdout.splitlines()[-1].strip() == "LOADED"
    assert done.stderr == ""
