"""Where decoding may start so that every later pixel is that of decoding from the start.

A key frame of a container promises less: libav marks pictures where a gradual refresh begins (H.264), and pictures
before which others are shown that need what came earlier (open groups). Here a start is a picture that makes the
decoder forget all before it, found in the packet's own bytes, and no frame from it on is coded before it. What else a
decoder remembers are parameters: those of the file's head and of its first packet are known, and a stream with others
is decoded from the start. One of them is no standard's: the build of x264, of which libav must know to decode what
older ones made of High 4:4:4, stands in a message in the first packet only.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from lps.manifests.arrays import Ints

HEVC_START = range(16, 22)
"""Types of units (ITU-T H.265, table 7-1) of pictures from which decoding can start: BLA, IDR, CRA."""
EACH_ALONE = ("mjpeg", "prores", "dnxhd")
"""Codecs whose every packet is a picture that needs no other."""
BY_UNITS = ("h264", "hevc")
BUILD = b"x264 - core"
"""Begins the message in which x264 names its build."""


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """All frames of a stream in presentation order, and where decoding may start."""

    packets: Ints
    """(n,) the number of each frame's packet in coded order."""
    times: Ints
    """(n,) presentation time stamps in ticks, rising."""
    starts: Ints
    """(m,) numbers of packets at which decoding may start, rising; the first is 0."""
    first_frames: Ints
    """(m,) the first frame in presentation order of each."""

    def __len__(self) -> int:
        return len(self.times)

    @property
    def is_vfr(self) -> bool | None:
        """Whether the steps between time stamps differ by more than one tick of rounding; None for a single frame."""
        steps = np.diff(self.times)
        return varies(int(steps.min()), int(steps.max())) if len(steps) else None

    def start_of(self, frame: int) -> int:
        """Return the last packet from which decoding gives `frame` and all after it."""
        return int(self.starts[bisect_right(self.first_frames.tolist(), frame) - 1])

    def frame_of(self) -> dict[int, int]:
        """Return the frame of each packet that shows one."""
        return dict(zip(self.packets.tolist(), range(len(self)), strict=True))

    def shortest_steps(self) -> Ints:
        """Return for each frame the shortest step, in ticks, between those before it; frames 0 and 1 have none: 0."""
        steps = np.minimum.accumulate(np.diff(self.times)) if len(self) > 1 else np.zeros(0, np.int64)
        return np.concatenate([np.zeros(min(2, len(self)), np.int64), steps[:-1]])


def varies(shortest: int, longest: int) -> bool:
    """Return whether steps between time stamps, in ticks, differ by more than one tick of rounding."""
    return longest - shortest > max(1, round(0.02 * shortest))


@dataclass(slots=True)
class EntryPoints:
    """Takes the packets of one stream in coded order and finds those at which decoding may start."""

    codec: str
    length_bytes: int = 0
    """Bytes that hold the length of a unit in MP4 and Matroska; 0 where start codes divide units."""
    known: set[bytes] = field(default_factory=set)
    """Parameters of the head and of the first packet."""
    starts: list[int] = field(default_factory=list)
    times: list[int | None] = field(default_factory=list)
    """Time stamp of each packet, hidden or not."""
    hidden: list[bool] = field(default_factory=list)
    from_start: bool = False
    """Something was met after which equality is not known."""

    @classmethod
    def of(cls, context: VideoCodecContext) -> "EntryPoints":
        """Return one for a stream whose head was read."""
        codec = context.codec.canonical_name
        points, head = cls(codec), context.extradata or b""
        by_lengths = codec in BY_UNITS and head[:1] == b"\1" and len(head) > 22
        if by_lengths:
            points.length_bytes = (head[4 if codec == "h264" else 21] & 3) + 1
            points.known.update(_listed_units(codec, head))
        else:
            points.known.update(unit for unit in _start_code_units(head) if points._is_parameter(unit))
        return points

    def add(self, packet: "Packet[VideoStream]", *, is_hidden: bool) -> None:
        """Take the next packet; a hidden one shows no frame."""
        number = len(self.times)
        self.times.append(packet.pts)
        self.hidden.append(is_hidden)
        if not packet.size:
            return
        self.from_start |= packet.is_corrupt or packet.has_sidedata("new_extradata")
        parameters, starts = self._look(packet)
        if number == 0:
            self.known.update(parameters)
        elif not self.known.issuperset(parameters):
            self.from_start = True
        if starts:
            self.starts.append(number)

    def index(self) -> FrameIndex | None:
        """Return the frames and starts; None where the stream is to be decoded from the start."""
        shown = [(time, k) for k, (time, hidden) in enumerate(zip(self.times, self.hidden, strict=True)) if not hidden]
        if self.from_start or self.starts[:1] != [0] or any(time is None for time, _ in shown) or not shown:
            return None
        order = np.array(sorted(shown), np.int64)
        times, packets = order[:, 0], order[:, 1]
        if (np.diff(times) <= 0).any():
            return None
        starts, firsts = [], []
        lowest = np.append(np.minimum.accumulate(packets[::-1])[::-1], len(self.times))
        for start in self.starts:
            time = self.times[start]
            first = int(np.searchsorted(times, time)) if time is not None else len(times)
            if first < len(times) and lowest[first] >= start:
                starts.append(start)
                firsts.append(first)
        if firsts[:1] != [0]:
            return None
        return FrameIndex(packets, times, np.array(starts, np.int64), np.array(firsts, np.int64))

    def _look(self, packet: "Packet[VideoStream]") -> tuple[list[bytes], bool]:
        """Return the parameters that a packet brings, and whether decoding may start with it."""
        if self.codec in EACH_ALONE:
            return [], True
        data = memoryview(packet)
        if self.codec in BY_UNITS:
            units, picture = self._units(data)
            parameters = [unit for unit in units if self._is_parameter(unit)]
            return parameters, packet.is_keyframe and self._forgets_all(picture)
        if self.codec == "mpeg4":
            head = bytes(data[:4096])
            at = head.find(b"\0\0\1\xb6")
            parameters = [unit for unit in _start_code_units(head[: max(at, 0)]) if self._is_parameter(unit)]
            return parameters, packet.is_keyframe and at >= 0 and len(head) > at + 4 and head[at + 4] >> 6 == 0
        if self.codec == "vp8":
            return [], packet.is_keyframe and not data[0] & 1
        if self.codec == "vp9":
            return [], packet.is_keyframe and _is_vp9_key(data[0])
        if self.codec == "av1":
            return [], packet.is_keyframe and _is_av1_key(bytes(data[:4096]))
        self.from_start = True
        return [], False

    def _units(self, data: memoryview) -> tuple[list[bytes], bytes]:
        """Return the units before the first slice, whole, and the first bytes of that slice."""
        units: list[bytes] = []
        if not self.length_bytes:
            for unit in _start_code_units(bytes(data[:4096])):
                if self._is_slice(unit):
                    return units, unit[:2]
                units.append(unit)
            units = _start_code_units(bytes(data))
            place = next((k for k, unit in enumerate(units) if self._is_slice(unit)), len(units))
            return units[:place], units[place][:2] if place < len(units) else b""
        at = 0
        while at + self.length_bytes < len(data):
            size = int.from_bytes(data[at : at + self.length_bytes], "big")
            at += self.length_bytes
            if self._is_slice(bytes(data[at : at + 2])):
                return units, bytes(data[at : at + 2])
            units.append(bytes(data[at : at + size]))
            at += size
        return units, b""

    def _is_slice(self, unit: bytes) -> bool:
        if not unit:
            return False
        return unit[0] & 31 in (1, 2, 5) if self.codec == "h264" else unit[0] >> 1 & 63 < 32

    def _is_parameter(self, unit: bytes) -> bool:
        """Return whether a unit changes what a decoder remembers beside pictures."""
        if not unit:
            return False
        if self.codec == "h264":
            return unit[0] & 31 in (7, 8, 13, 15) or BUILD in unit
        if self.codec == "hevc":
            return unit[0] >> 1 & 63 in (32, 33, 34)
        return unit[0] <= 0x2F or unit[0] in (0xB0, 0xB2, 0xB5)  # MPEG-4: layer, object, user data

    def _forgets_all(self, picture: bytes) -> bool:
        if not picture:
            return False
        return picture[0] & 31 == 5 if self.codec == "h264" else picture[0] >> 1 & 63 in HEVC_START


def _start_code_units(data: bytes) -> list[bytes]:
    """Return the units between start codes, without the zeros that may follow one."""
    return [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1")[1:]]


def _listed_units(codec: str, head: bytes) -> list[bytes]:
    """Return the parameter sets of `avcC` (ISO/IEC 14496-15, 5.3.3) or `hvcC` (8.3.3)."""
    units: list[bytes] = []
    at, groups = (5, [31, 255]) if codec == "h264" else (23, [0] * head[22])
    for mask in groups:
        if at + 3 > len(head):
            break
        if codec == "h264":
            count, at = head[at] & mask, at + 1  # the number of sequences shares its byte
        else:
            count, at = int.from_bytes(head[at + 1 : at + 3], "big"), at + 3
        for _ in range(count):
            size = int.from_bytes(head[at : at + 2], "big")
            units.append(head[at + 2 : at + 2 + size])
            at += 2 + size
    return units


def _is_vp9_key(first: int) -> bool:
    """Return whether the first byte of a frame is that of a key frame that is shown (VP9 bitstream, 6.2)."""
    bit = 3 if first >> 4 & 3 != 3 else 2  # profile 3 has a bit more
    return first >> 6 == 2 and not first >> bit & 1 and not first >> (bit - 1) & 1


def _is_av1_key(data: bytes) -> bool:
    """Return whether a temporal unit has a sequence header and then a key frame that is shown (AV1, 5.9.2)."""
    at, has_sequence = 0, False
    while at + 2 <= len(data) and data[at] & 2:  # without a size a unit ends with the packet, which nobody writes
        kind, at = data[at] >> 3 & 15, at + 1 + (data[at] >> 2 & 1)
        size = shift = 0
        while at < len(data):
            size |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if not data[at - 1] & 128:
                break
        has_sequence |= kind == 1
        if kind in (3, 6):
            return has_sequence and at < len(data) and data[at] >> 4 == 1  # not shown again, KEY_FRAME, shown
        at += size
    return False
