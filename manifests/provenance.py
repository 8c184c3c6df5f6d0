"""Which code runs: version, commit, environment. For records of runs only: manifests depend on none of it."""

import subprocess
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from lps.manifests.canonical import sha256_hex


@cache
def code_version() -> dict[str, Any]:
    """Return the version of the program and a digest of all that is installed beside it.

    Where the program runs from a git checkout, also `commit` and whether it is `modified`.
    """
    installed = {f"{found.metadata['Name']}=={found.version}".lower() for found in distributions()}
    known: dict[str, Any] = {
        "lps-prep": version("lps-prep"),
        "environment_sha256": sha256_hex("\n".join(sorted(installed)).encode()),
    }
    return known | checkout(Path(__file__).resolve().parents[1])


def checkout(folder: Path) -> dict[str, Any]:
    """Return commit and state of the git checkout at `folder`; nothing where it is none, or git is not at hand."""
    if not (folder / ".git").exists():
        return {}
    try:
        commit, status = (_git(folder, *words) for words in (("rev-parse", "HEAD"), ("status", "--porcelain")))
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit, "modified": bool(status)}


def _git(folder: Path, *words: str) -> str:
    run = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True)
    return run.stdout.strip()
