"""What a run leaves to read: one JSON line a step, a look at the speed and a validation; the same for TensorBoard.

`RunLog` is the only writer of `log.jsonl`; `read_log` reads it, also while a run is under way. A record has `kind`
(`step`, `speed` or `validation`), `step` (from 1, of the optimiser), and values by name: numbers, null where not
finite. Those of `speed` are times, and the only ones that differ between a run and its repetition.
"""

import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams

from lps.manifests.canonical import canonical_json, parse_json
from lps.manifests.environment import write_atomically
from lps.manifests.errors import UnreadableError

LOG, BOARD = "log.jsonl", "tensorboard"


class RunLog:
    """Appends to `log.jsonl` and to the TensorBoard folder of a run.

    A run that was killed may have logged steps that its last checkpoint does not have. They are cut off, so that after
    resuming, each step is there once.
    """

    def __init__(self, folder: Path, last_step: int) -> None:
        """Open for appending after `last_step`. Raises UnreadableError where it cannot be written."""
        self._path = folder / LOG
        with self._writing():
            kept = [canonical_json(record) + b"\n" for record in read_log(self._path) if record["step"] <= last_step]
            with write_atomically(self._path) as temporary:
                temporary.write_bytes(b"".join(kept))
            self._file = self._path.open("ab")
            self._board = _Board(folder / BOARD, last_step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._writing():
                self._file.close()
                self._board.close()
        except UnreadableError:
            if error is None:  # else the first error is the one to tell
                raise

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Log one record: `kind` is `step`, `speed` or `validation`. Numbers go to TensorBoard, too.

        Raises UnreadableError.
        """
        with self._writing():
            self._file.write(canonical_json({"kind": kind, "step": step, **values}) + b"\n")
            self._board.write({f"{kind}/{name}": v for name, v in _numbers(values).items()}, step)

    def write_settings(self, settings: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Tell TensorBoard's HParams, once a run, the settings by flat names, and the tags of `best/...` to come.

        Raises UnreadableError.
        """
        with self._writing():
            self._board.write_settings(settings, metrics)

    def finish(self, best_step: int, step: int) -> None:
        """Give TensorBoard what was measured at `best_step`, as `best/...`. Raises UnreadableError."""
        with self._writing():
            self._file.flush()
            for record in read_log(self._path):
                if record["kind"] == "validation" and record["step"] == best_step:
                    values = {f"best/{name}": v for name, v in _numbers(record).items() if name != "step"}
                    self._board.write(values, step)
            self._board.finish(step)

    def flush(self) -> None:
        """Put everything on the disk. Raises UnreadableError where there is no room."""
        with self._writing():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._board.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise UnreadableError(
                f"cannot write {self._path}: {e.strerror or e}; make room and run the same command again to "
                "resume from the last checkpoint"
            ) from e


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(v) for name, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}


class _Board:
    """Scalars and settings in TensorBoard's form, by way of tensorboardX.

    Its `SummaryWriter` writes in a thread, and would wait for ever where that thread dies of a full disk. This one
    writes at once, and says so when it cannot.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        n_before = len(list(folder.glob("events.*")))
        self._begun_before = n_before > 0
        self._writer = EventsWriter(str(folder / "events"), f".{n_before}")
        # Whatever another process logged from this step on, it was cut short.
        self._write(first_step, session_log=SessionLog(status=SessionLog.START))
        self.flush()

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(step, summary=Summary(value=values))

    def write_settings(self, settings: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Write what HParams shows, unless an earlier file of the run has it."""
        if self._begun_before:
            return
        shown = {name: _shown(value) for name, value in settings.items() if value is not None}
        experiment, start, _ = hparams(shown, dict.fromkeys(metrics, 0.0))
        self._write(0, summary=experiment)
        self._write(0, summary=start)

    def finish(self, step: int) -> None:
        """Say that the run is finished."""
        self._write(step, summary=hparams({}, {})[2])

    def _write(self, step: int, **content: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def replace_board(folder: Path, step: int, scalars: Mapping[str, float], pictures: Mapping[str, bytes]) -> None:
    """Write scalars and pictures (PNG, RGB) by tag into a TensorBoard folder, in place of what an older call left.

    Raises OSError where it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = list(folder.glob("events.*"))
    writer = EventsWriter(str(folder / "events"), f".{len(old)}")
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    values += [Summary.Value(tag=tag, image=_picture(data)) for tag, data in pictures.items()]
    for value in values:
        writer.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[value])))
    writer.close()
    for path in old:
        path.unlink(missing_ok=True)


def _picture(png: bytes) -> Summary.Image:
    width, height = struct.unpack_from(">II", png, 16)  # of its header, which comes first
    return Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)


def _shown(value: Any) -> str | float:
    return value if isinstance(value, str | int | float) else canonical_json(value).decode()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the records of a run's log, in order. What a killed writer or machine left torn is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines():
        try:
            record = parse_json(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            found.append(record)
    return found
