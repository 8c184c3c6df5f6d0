"""The machine: which code runs on it, where caches, sockets and scratch go, and files that are whole or not there.

Manifests depend on none of it.
"""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from lps.manifests.canonical import sha256_hex
from lps.manifests.errors import UnreadableError

SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket."""
SHORT_PLACES = ("/tmp", "/var/tmp", "/dev/shm")
OWNER = ".owner"
"""File in a scratch folder that the process which uses it has locked."""
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.tmp", re.DOTALL)


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


def cache_folder(name: str) -> Path:
    """Return the folder of one of this user's caches, which may not be there yet.

    It is lps-prep/`name` below XDG_CACHE_HOME, else below ~/.cache. Who has no home, or one that cannot be written to,
    as users of containers and services, gets a folder in TMPDIR.
    """
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "lps-prep" / name
    with suppress(RuntimeError):  # neither HOME nor an entry in the table of users
        folder = Path.home() / ".cache" / "lps-prep" / name
        there = next(place for place in (folder, *folder.parents) if os.access(place, os.F_OK))
        if there == folder or os.access(there, os.W_OK):
            return folder
    return Path(tempfile.gettempdir()) / f"lps-prep-{os.getuid()}" / name


def socket_place(below: str) -> str:
    """Return a folder that can be written to, and is short enough for a socket of the path `below` in it.

    That is TMPDIR, or another place where it is too long, as schedulers make it. Raises UnreadableError where none will
    do.
    """
    room = SOCKET_PATH_BYTES - len("/") - len(below)
    for place in (tempfile.gettempdir(), *SHORT_PLACES):
        if len(os.fsencode(place)) <= room and os.access(place, os.W_OK):
            return place
    raise UnreadableError(
        f"sockets need a folder that can be written to and whose path has {room} bytes at most: name one in TMPDIR"
    )


@contextmanager
def scratch_folder(prefix: str, place: str | None = None) -> Iterator[Path]:
    """Give a folder below `place` (default: TMPDIR) that is removed afterwards, and remove those of killed processes.

    A file in it is locked as long as its process lives; a folder of this host whose file nobody has locked is removed
    by the next one that asks for the same prefix and place. Raises OSError where it cannot be made.
    """
    _remove_abandoned(Path(place or tempfile.gettempdir()), prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as owner:
            owner.write(platform.node())
            owner.flush()
            with suppress(OSError):  # a file system without locks
                fcntl.flock(owner, fcntl.LOCK_EX)
            Path(owner.name).rename(folder / OWNER)  # nobody sees it before it is locked
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(place: Path, prefix: str) -> None:
    for folder in place.glob(f"{prefix}*"):
        with suppress(OSError), (folder / OWNER).open() as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if owner.read() == platform.node():  # locks may hold on one host only
                shutil.rmtree(folder, ignore_errors=True)


# ---- files that are there whole or not at all, also when the process or the machine is lost meanwhile ----------------


@contextmanager
def write_atomically(target: Path) -> Iterator[Path]:
    """Give a temporary path in the target's folder (made if need be); what is written there replaces the target.

    The file is on the disk before it has its name, and its name is when this ends. After an error the target is as
    before and the temporary file is removed; `remove_unfinished` removes those of killed writers. Raises OSError.
    """
    make_folder(target.parent)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync(target.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each on the disk as a name in the one above."""
    missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync(each.parent)


def remove_file(path: Path) -> None:
    """Remove a file if it is there, also from the disk: a lost machine does not bring it back. Raises OSError."""
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return
    sync(path.parent)


def is_unfinished(name: str) -> bool:
    """Tell whether a file name is that of a file which is being written, or was when its writer was killed."""
    return _UNFINISHED.fullmatch(name) is not None


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left below a folder that no other process writes to. Raises OSError."""
    for left in folder.rglob(".*.tmp"):
        if is_unfinished(left.name):
            left.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
