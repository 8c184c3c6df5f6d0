"""What holds for the project as a whole: packages, paths, and what a start-up costs."""

import os
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from lps.cli.docs.reference import PROGRAMS

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("cli", "manifests", "model", "pipeline")
CONFIG = ConfigParser()
CONFIG.read(ROOT / "setup.cfg")


def pairs(section: str, key: str) -> dict[str, str]:
    """Return a setting of lines `name = value`."""
    lines = CONFIG[section][key].split("\n")
    return dict(re.split(r"\s*=\s*", line) for line in lines if line)


SCRIPTS = pairs("options.entry_points", "console_scripts")

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
