"""What a TensorBoard folder holds, read without TensorBoard."""

import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


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
