"""The folder that a convert writes: one process at a time, each clip whole or not there, what was asked recorded.

`.begun.json` is written before the first clip, `convert.json` after everything else.
"""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lps.manifests.canonical import parse_json, pretty_json
from lps.manifests.environment import is_unfinished, make_folder, remove_file, sync, write_atomically
from lps.manifests.errors import RefusedError, UnreadableError, first_line
from lps.manifests.storage import Store, lies_in

MARKER = "convert.json"
BEGUN = ".begun.json"


@contextmanager
def write_errors(root: Path) -> Iterator[None]:
    """Turn what a file system raises into UnreadableError."""
    try:
        yield
    except OSError as e:
        raise UnreadableError(f"cannot write {e.filename or root}: {first_line(e)}") from e


def refuse_inside(root: Path, out: Store) -> None:
    """Raise RefusedError for a folder that lies in the data set."""
    if out.is_local and lies_in(os.path.realpath(root), out.real_root):
        raise RefusedError(f"{root} lies inside the data set {out.url}; name a folder elsewhere")


@contextmanager
def held_target(root: Path) -> Iterator[None]:
    """Make the folder and hold it. Raises RefusedError where another process does."""
    with write_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root, os.O_RDONLY)
    try:
        _lock(handle, root)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, root: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise RefusedError(f"another convert writes {root}; wait until it ends") from e
    except OSError:  # a file system without locks
        return


def begin_target(root: Path, asked: Mapping[str, Any]) -> None:
    """Record what is asked, or compare it with what was recorded before.

    Raises RefusedError, with the differences by name, for a folder that holds anything else.
    """
    with write_errors(root):
        names = {entry.name for entry in root.iterdir() if not is_unfinished(entry.name)}
        recorded = [name for name in (MARKER, BEGUN) if name in names]
        if names and not recorded:
            raise RefusedError(f"{root} is not empty and no convert of this program; name a new folder")
        for name in recorded:
            _compare(root / name, asked)
        if not recorded:
            _write_json(root / BEGUN, asked)


def _compare(record: Path, asked: Mapping[str, Any]) -> None:
    try:
        found = parse_json(record.read_bytes())
    except ValueError as e:
        raise UnreadableError(f"{record} is damaged: {e}; name a new folder") from e
    found = found if isinstance(found, dict) else {}
    others = [f"{name} {found.get(name)!r}, now {value!r}" for name, value in asked.items() if found.get(name) != value]
    if others:
        raise RefusedError(
            f"{record.parent} was begun otherwise: {'; '.join(others)}; ask for the same, or name a new folder"
        )


def clean_target(root: Path, folders: Iterable[str]) -> None:
    """Remove what a killed convert left in some folders, whose paths are relative to `root`."""
    with write_errors(root):
        for folder in (root / each for each in folders):
            for entry in folder.iterdir() if folder.is_dir() else ():
                if not is_unfinished(entry.name):
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink(missing_ok=True)


def reopen_target(root: Path, asked: Mapping[str, Any]) -> None:
    """Take the marker away, before clips that were lost are made again."""
    with write_errors(root):
        if (root / MARKER).exists():
            _write_json(root / BEGUN, asked)
            remove_file(root / MARKER)


def finish_target(root: Path, record: Mapping[str, Any]) -> None:
    """Write the marker: from here on the convert is complete."""
    with write_errors(root):
        _write_json(root / MARKER, record)
        remove_file(root / BEGUN)


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises UnreadableError."""
    with write_errors(path), write_atomically(path) as temporary:
        temporary.write_bytes(data)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files whole or not at all. Raises UnreadableError."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with write_errors(path):
        try:
            make_folder(path.parent)
            temporary.mkdir()
            for name, data in files.items():
                (temporary / name).write_bytes(data)
                sync(temporary / name)
            sync(temporary)
            temporary.rename(path)
            sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    with write_atomically(path) as temporary:
        temporary.write_bytes(pretty_json(record))
