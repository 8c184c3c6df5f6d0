"""What a run leaves to read: one JSON line a step and a validation, and the same for TensorBoard."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lps.manifests.canonical import canonical_json
from lps.manifests.errors import UnreadableError

LOG = "log.jsonl"


class RunLog:
    """Appends to `log.jsonl` and to the TensorBoard folder of a run.

    A run that was killed may have logged steps that its last checkpoint does not have. They are cut off, so that after
    going on, each step is there once.
    """

    def __init__(self, folder: Path, last_step: int) -> None:
        """Open for appending after `last_step`."""
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / LOG
        kept = [line for line in _lines(self._path) if json.loads(line)["step"] <= last_step]
        temporary = self._path.with_name(f".{LOG}")
        temporary.write_bytes(b"".join(line + b"\n" for line in kept))
        temporary.replace(self._path)
        self._file = self._path.open("ab")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=last_step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Log one record: `kind` is `step` or `validation`. Numbers go to TensorBoard, too."""
        self._file.write(canonical_json({"kind": kind, "step": step, **values}) + b"\n")
        for name, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def flush(self) -> None:
        """Put everything on the disk. Raises UnreadableError where there is no room."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as e:
            raise UnreadableError(f"cannot write {self._path}: {e.strerror}") from e
        self._board.flush()


def _lines(path: Path) -> list[bytes]:
    """Return the whole lines of a log; the last one may have been cut off when its writer was killed."""
    if not path.exists():
        return []
    data = path.read_bytes()
    return data[: data.rfind(b"\n") + 1].splitlines()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the records of a run's log, in order."""
    return [json.loads(line) for line in _lines(path)]
