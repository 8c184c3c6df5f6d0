"""The folder of a run: held by one process at a time, and by one configuration for good."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lps.manifests.canonical import pretty_json
from lps.manifests.errors import RefusedError, UnreadableError
from lps.model.checkpoint import read_checkpoint, step_checkpoints
from lps.model.params import RESULT_FIELDS
from lps.model.plan import Place

CONFIG, RESULT, BEST, LOCK = "config.json", "result.json", "best.pt", ".lock"


@contextmanager
def alone_in(folder: Path, place: Place) -> Iterator[None]:
    """Hold a folder, so that no second run writes into it. Raises RefusedError, and UnreadableError if it cannot be."""
    if place.rank:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("ab")
    except OSError as e:
        raise UnreadableError(f"cannot write to {folder}: {e.strerror or e}") from e
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it when the process ends
        except BlockingIOError as e:
            raise RefusedError(f"another process is training in {folder}; wait for it, or use another folder") from e
        except OSError:
            pass  # a file system without locks
        yield


def require_same(folder: Path, record: dict[str, Any]) -> None:
    """Compare a configuration with that of the run in the folder, if any. Raises RefusedError that names what differs.

    And UnreadableError or IntegrityError where it cannot be told.
    """
    path = folder / CONFIG
    last = step_checkpoints(folder / "checkpoints")[-1:]
    if path.exists():
        theirs = read_json(path)
    elif last:
        theirs = read_checkpoint(last[0]).config
    else:
        return
    old, new = (deciding(json.loads(json.dumps(each))) for each in (theirs, record))
    differing = [
        f"{name} was {old.get(name)!r} and is {value!r}" for name, value in new.items() if old.get(name) != value
    ]
    if differing:
        raise RefusedError(
            f"{folder} holds a run with another configuration: {'; '.join(differing[:3])}; use another folder"
        )


def deciding(record: dict[str, Any]) -> dict[str, Any]:
    """Flatten a configuration and leave out what changes nothing in the result."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        for key, inner in value.items() if isinstance(value, dict) else ((None, value),):
            if isinstance(inner, dict):
                ignored = key == "run"
                flat |= {f"{key}.{k}": v for k, v in inner.items() if not ignored or k in RESULT_FIELDS}
            else:
                flat[f"{name}.{key}" if key else name] = inner
    return flat


def read_json(path: Path) -> dict[str, Any]:
    """Read a record of a run. Raises UnreadableError."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as e:
        raise UnreadableError(f"cannot read {path}: {e}; restore it, or use another folder") from e


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record that is there completely or not at all. Raises UnreadableError."""
    temporary = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(pretty_json(record))
        temporary.replace(path)
    except OSError as e:
        raise UnreadableError(
            f"cannot write {path}: {e.strerror or e}; make room and run the same command again, it goes on from the "
            "last checkpoint"
        ) from e
