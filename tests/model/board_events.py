"""What a run logged: a TensorBoard folder, read without TensorBoard, and the log without its times."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event

from lps.model.training.run_log import read_log


def events(folder: Path) -> Iterator[Event]:
    """Yield the events of a TensorBoard folder, oldest file first."""
    for path in sorted(folder.glob("events.*"), key=lambda path: int(path.suffix[1:])):
        data = path.read_bytes()
        at = 0
        while at < len(data):
            (n,) = struct.unpack_from("<Q", data, at)
            event = Event()
            event.ParseFromString(data[at + 12 : at + 12 + n])
            yield event
            at += 12 + n + 4


def without_times(log: Path) -> list[dict[str, Any]]:
    """Return the records of a log that a repetition of the run has, too."""
    return [record for record in read_log(log) if record["kind"] != "speed"]
