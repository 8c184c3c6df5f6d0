"""The folder of a run: held by one process at a time, and by one configuration for good."""

import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lps.manifests.canonical import parse_json, pretty_json
from lps.manifests.environment import remove_unfinished, write_atomically
from lps.manifests.errors import RefusedError, UnreadableError
from lps.model.data.epoch_plan import Rank
from lps.model.training.checkpoint import read_checkpoint
from lps.model.training.params import RESULT_FIELDS
from lps.model.training.presets import preset_from_record

CONFIG, RESULT, BEST, LOCK = "config.json", "result.json", "best.pt", ".lock"
EPOCHS = "train.epochs"
DATA_SHA256 = "data_sha256"
"""Digests of the data in a configuration. They are compared with the samples, in words that name the data set."""


@contextmanager
def lock_run_folder(folder: Path, rank: Rank) -> Iterator[None]:
    """Hold a folder, so that no second run writes into it, and remove what a killed writer left in it.

    Raises RefusedError, and UnreadableError if it cannot be.
    """
    if rank.index:
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
            remove_unfinished(folder)
        except BlockingIOError as e:
            raise RefusedError(f"another process is training in {folder}; wait for it, or use another folder") from e
        except OSError:
            pass  # a file system without locks
        yield


def require_same(folder: Path, record: dict[str, Any]) -> None:
    """Compare a configuration with that of the run in the folder, if any. Raises RefusedError that names what differs.

    Samples and the checkpoint that it starts from are known by digest, so how they are spelled is no matter; a run may
    be given more epochs. Raises UnreadableError or IntegrityError where it cannot be told.
    """
    theirs = recorded(folder)
    if theirs is None:
        return
    old, new = (_compared(each) for each in (theirs, record))
    differing = [
        f"{name} was {old.get(name)!r} and is {value!r}"
        for name, value in new.items()
        if old.get(name) != value and not (name == EPOCHS and value > old.get(name, 0))
    ]
    if differing:
        raise RefusedError(
            f"{folder} holds a run with another configuration: {'; '.join(differing[:3])}; use another folder"
        )


def recorded(folder: Path) -> dict[str, Any] | None:
    """Return the configuration of the run in a folder, None for no run. Raises UnreadableError, IntegrityError."""
    if (folder / CONFIG).exists():
        return read_json(folder / CONFIG)
    last = step_checkpoints(folder / "checkpoints")[-1:]
    return read_checkpoint(last[0]).config if last else None


def _compared(record: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same in a configuration; what an older version did not know has its default."""
    known = {"keep_head": False, "head": "linear", "kernel": None, **json.loads(json.dumps(record))}
    if "preset" in known:
        known["preset"] = json.loads(json.dumps(preset_from_record(known["preset"]).record()))
    by_digest = ("data", "init", DATA_SHA256)
    return result_settings({name: value for name, value in known.items() if name not in by_digest})


def result_settings(record: dict[str, Any]) -> dict[str, Any]:
    """Flatten a configuration and leave out what changes nothing in the result.

    That is how the work is done, and where weights lie that are known by their digest.
    """
    flat: dict[str, Any] = {}
    for name, value in record.items():
        for key, inner in value.items() if isinstance(value, dict) else ((None, value),):
            if isinstance(inner, dict):
                ignored = key == "run"
                flat |= {f"{key}.{k}": v for k, v in inner.items() if not ignored or k in RESULT_FIELDS}
            else:
                flat[f"{name}.{key}" if key else name] = inner
    flat.pop("net.weights", None)
    return flat


def read_json(path: Path) -> dict[str, Any]:
    """Read a record of a run. Raises UnreadableError."""
    try:
        return dict(parse_json(path.read_bytes()))
    except (OSError, ValueError, TypeError) as e:
        raise UnreadableError(f"cannot read {path}: {e}; restore it, or use another folder") from e


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record that is there completely or not at all. Raises UnreadableError."""
    write_file(path, pretty_json(record))


def write_file(path: Path, data: bytes) -> None:
    """Write a file of a run that is there completely or not at all. Raises UnreadableError."""
    try:
        with write_atomically(path) as temporary:
            temporary.write_bytes(data)
    except OSError as e:
        raise UnreadableError(
            f"cannot write {path}: {e.strerror or e}; make room and run the same command again to resume from the "
            "last checkpoint"
        ) from e


NAME = re.compile(r"step-(\d{8})\.pt")


def step_path(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return folder / f"step-{step:08d}.pt"


def step_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of steps in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))


def prune(folder: Path, n_kept: int, epoch_start: int) -> None:
    """Delete checkpoints of steps but the last `n_kept`, and what a killed writer left behind.

    The last one up to the step `epoch_start` is kept besides: it is no part of the epoch under way.
    """
    found = step_checkpoints(folder)
    before = [path for path in found if path <= step_path(folder, epoch_start)]
    for path in {*found[:-n_kept]} - {*before[-1:]}:
        path.unlink(missing_ok=True)
    remove_unfinished(folder)
