"""Window decoding held against decoding from the start: the same frames, bit by bit."""

import random
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from lps.pipeline.config.params import Params
from lps.pipeline.video.container import scan_packets
from lps.pipeline.video.damage import PacketScan
from lps.pipeline.video.decode import DecodeStats, decode
from lps.pipeline.video.entry_points import FrameIndex
from lps.pipeline.video.frame import Frame
from lps.pipeline.video.window import Cursor, WindowError, decode_windows

PARAMS = Params()
AnyPacket = Any
"""`av.Packet`, whose stub is generic over the kind of its stream."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is compared of a frame."""

    index: int
    pts_ticks: int
    rotation: int
    size: tuple[int, int]
    pixels: int
    breaks: bool | None
    """None for the first frame after a leap: nothing is known of the one before."""

    @classmethod
    def of(cls, frame: Frame, *, leapt: bool = False) -> "Seen":
        native = frame.native
        pixels = zlib.crc32(native.to_ndarray().tobytes(), zlib.crc32(native.format.name.encode()))
        return cls(frame.index, frame.pts_ticks, frame.rotation, frame.size, pixels, None if leapt else frame.breaks)


def whole(path: Path, scan: PacketScan) -> list[Seen]:
    """Return all frames of a video, decoded from the start."""
    return [Seen.of(frame) for frame in decode(path, PARAMS, DecodeStats(), scan)]


def windows(path: Path, scan: PacketScan, places: Sequence[tuple[int, int]]) -> tuple[list[Seen], Cursor]:
    """Return the frames of windows, each a first frame and the one after its last, rising, from one pass."""
    left = list(places)
    cursor, seen = Cursor(left[0][0]), []
    for frame in decode_windows(path, PARAMS, DecodeStats(), scan, cursor):
        seen.append(Seen.of(frame, leapt=frame.index == left[0][0]))
        if frame.index == left[0][1] - 1:
            del left[0]
            if not left:
                return seen, cursor
            cursor.frame = left[0][0]
    return seen, cursor


def expected(frames: Sequence[Seen], places: Sequence[tuple[int, int]]) -> list[Seen]:
    """Return what `windows` gives where it keeps its promise."""
    found = []
    for first, end in places:
        for frame in frames[first:end]:
            breaks = None if frame.index == first else frame.breaks
            found.append(Seen(frame.index, frame.pts_ticks, frame.rotation, frame.size, frame.pixels, breaks))
    return found


def places_to_try(n_frames: int, length: int, n_starts: int) -> list[list[tuple[int, int]]]:
    """Return windows for passes of their own, and then for passes with several leaps."""
    last = max(0, n_frames - length)
    rng = random.Random(n_frames)
    starts = sorted({0, 1, last // 2, last, *(rng.randint(0, last) for _ in range(n_starts))})
    singles = [[(start, min(start + length, n_frames))] for start in starts]
    leaps: list[tuple[int, int]] = []
    for start in starts:
        if not leaps or start > leaps[-1][1]:
            leaps.append((start, min(start + length, n_frames)))
    near = [(k, k + 1) for k in range(0, n_frames, 3)]
    return [*singles, leaps, near]


def index_of(path: Path) -> FrameIndex | None:
    """Return the index with which windows of a video are decoded; None where the whole video is."""
    return scan_packets(path, PARAMS.limits).windows(PARAMS.max_step)


def assert_same_frames(
    path: Path, *, length: int = 10, n_starts: int = 4, n_passes: int | None = None, may_refuse: bool = False
) -> None:
    """Check that windows give the frames of the whole video, in all passes or only in some."""
    scan = scan_packets(path, PARAMS.limits)
    index = scan.windows(PARAMS.max_step)
    assert index is not None, "the whole video is decoded"
    frames = whole(path, scan)
    assert may_refuse or [frame.pts_ticks for frame in frames] == index.times.tolist()
    tried = places_to_try(len(frames), length, n_starts)
    for places in tried if n_passes is None else tried[-1 - n_passes : -1]:
        try:
            seen, _ = windows(path, scan, places)
        except WindowError:
            if not may_refuse:
                raise
            continue
        assert seen == expected(frames, places), f"windows {places}"


def rewritten(path: Path, out: Path, change: Callable[[int, AnyPacket], AnyPacket | None]) -> Path:
    """Write the packets of a video anew, each as `change` gives it for its number in coded order; None: left out."""
    with av.open(str(path)) as source, av.open(str(out), "w") as sink:
        stream = source.streams.video[0]
        copy = sink.add_stream_from_template(stream, opaque=True)
        for number, packet in enumerate(packet for packet in source.demux(stream) if packet.size):
            changed = change(number, packet)
            if changed is not None:
                changed.stream = copy
                sink.mux(changed)
    return out


def with_bytes(packet: AnyPacket, data: bytes) -> AnyPacket:
    """Return a packet that has other bytes."""
    changed: AnyPacket = av.Packet(data)
    changed.pts, changed.dts, changed.duration = packet.pts, packet.dts, packet.duration
    changed.time_base, changed.is_keyframe = packet.time_base, packet.is_keyframe
    return changed


def joined(paths: Sequence[Path], out: Path, *, head_of: int = 0) -> Path:
    """Write the packets of videos one after the other, below the head of one of them."""
    with ExitStack() as stack, av.open(str(out), "w") as sink:
        sources = [stack.enter_context(av.open(str(path))) for path in paths]
        copy = sink.add_stream_from_template(sources[head_of].streams.video[0], opaque=True)
        begin = 0
        for source in sources:
            packets = [packet for packet in source.demux(video=0) if packet.size]
            first = min(packet.pts or 0 for packet in packets)
            end = max((packet.pts or 0) + (packet.duration or 0) for packet in packets) - first
            for packet in packets:
                packet.pts = (packet.pts or 0) - first + begin
                packet.dts = (packet.dts or 0) - first + begin
                packet.stream = copy
                sink.mux(packet)
            begin += end
    return out


def assert_right_or_refused(path: Path, undamaged: Path, *, length: int = 10) -> int:
    """Check windows of a damaged video against it, decoded whole, and the undamaged one. Return how many were decoded.

    A frame is that of the undamaged video wherever the other one has that, and wherever damage was met there. Damage
    that no decoder tells of may look otherwise.
    """
    scan = scan_packets(path, PARAMS.limits)
    index = scan.windows(PARAMS.max_step)
    if index is None:
        return 0
    truth = {frame.pts_ticks: frame.pixels for frame in whole(undamaged, scan_packets(undamaged, PARAMS.limits))}
    unseen = set()
    for frame in decode(path, PARAMS, DecodeStats(), scan):
        if not frame.spoiled and Seen.of(frame).pixels != truth.get(frame.pts_ticks):
            unseen.add(frame.pts_ticks)
    n_decoded = 0
    for places in places_to_try(len(index), length, 3):
        try:
            seen, _ = windows(path, scan, places)
        except WindowError:
            continue
        n_decoded += 1
        for shown in seen:
            assert shown.pixels == truth.get(shown.pts_ticks) or shown.pts_ticks in unseen, f"{shown} of {places}"
    return n_decoded
