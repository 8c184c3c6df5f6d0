"""Where decoding may start so that every later pixel is that of decoding from the start.

A key frame of a container promises less: libav marks pictures where a gradual refresh begins (H.264), and pictures
before which others are shown that need what came earlier (open groups). Here a start is a picture that makes the
decoder forget all before it, found in the packet's own bytes, and no frame from it on is coded before it. What else a
decoder remembers are parameters: those of the file's head and of its first packet are known, and a stream with others
is decoded from the start. One of them is no standard's: the build of x264, of which libav must know to decode what
older ones made of High 4:4:4, stands in a message in the first packet only.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from lps.manifests.arrays import Ints
from lps.pipeline.video.frame_numbers import Bits

HEVC_START = range(16, 22)
"""Types of units (ITU-T H.265, table 7-1) of pictures from which decoding can start: BLA, IDR, CRA."""
HEVC_BROKEN = (16, 17, 18, 36, 37)
"""BLA and ends of a sequence or stream: pictures between them and the next that starts anew are not shown."""
SEQUENCE_ENDS = (b"\1\x48\1", b"\2\x48\1", b"\1\x4a\1", b"\2\x4a\1")
"""Last bytes of a packet that ends a sequence or stream of HEVC, after a start code or a length."""
FOR_ALL_LATER = (19, 47, 147)
"""Messages (ITU-T H.274) that add grain, turn the picture, or name other colors, until another one comes."""
NOT_CODED_BYTES = 19
"""As long is an MPEG-4 packet at most that repeats a picture, which no decoder shows."""
EACH_ALONE = ("mjpeg", "prores", "dnxhd")
"""Codecs whose every packet is a picture that needs no other."""
BY_UNITS = ("h264", "hevc")
REORDERED = (*BY_UNITS, "mpeg4")
"""Codecs whose pictures may be coded in another order than that of display."""
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

    @property
    def key_distance(self) -> float:
        """Frames from where decoding may start to a frame, on average."""
        gaps = np.diff(np.append(self.first_frames, len(self)))
        return float((gaps * (gaps - 1)).sum()) / (2 * len(self))

    def start_of(self, frame: int) -> int:
        """Return the last packet from which decoding gives `frame` and all after it."""
        return int(self.starts[self._start(frame)])

    def gapless_from(self, frame: int, n: int) -> int:
        """Return the frame `n` before `frame`, or the first that decoding from `start_of(frame)` gives."""
        return max(frame - n, int(self.first_frames[self._start(frame)]))

    def _start(self, frame: int) -> int:
        return int(np.searchsorted(self.first_frames, frame, side="right")) - 1

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
    reorder_depth: int = 0
    """How many pictures the decoder holds back at first to hand them out in order."""
    known: set[bytes] = field(default_factory=set)
    """Parameters that the decoder has after the first packet."""
    tables: frozenset[tuple[int, int]] = frozenset()
    """Tables of the last JPEG picture, by marker and number."""
    starts: list[int] = field(default_factory=list)
    times: list[int | None] = field(default_factory=list)
    """Time stamp of each packet, hidden or not."""
    hidden: list[bool] = field(default_factory=list)
    ended: bool = False
    """The last packet ended a sequence of HEVC."""
    from_start: bool = False
    """Something was met after which equality is not known."""

    @classmethod
    def of(cls, context: VideoCodecContext) -> "EntryPoints":
        """Return one for a stream whose head was read."""
        codec = context.codec.canonical_name
        points, head = cls(codec, reorder_depth=context.reorder_depth), context.extradata or b""
        by_lengths = codec in BY_UNITS and head[:1] == b"\1" and len(head) > 22
        if by_lengths:
            points.length_bytes = (head[4 if codec == "h264" else 21] & 3) + 1
            points.known.update(_listed_units(codec, head))
        else:
            points.known.update(unit for unit in _start_code_units(head) if points._is_parameter(unit))
        if codec in BY_UNITS:
            points.from_start = points._is_beyond_key_frames(list(points.known), b"")
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
            replaced = any(BUILD not in unit for unit in parameters)
            self.known = {*parameters, *(() if replaced else self.known)}
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
        if (np.diff(times) <= 0).any() or not self._keeps_order(packets):
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

    def _keeps_order(self, packets: Ints) -> bool:
        """Return whether the decoder hands out every picture, and in the order of the time stamps."""
        if self.codec not in REORDERED:
            return bool((np.diff(packets) > 0).all())
        # H.264's may learn only from a picture that comes too late, and is lost, how many it has to hold back; and time
        # stamps that ask for more than the codec allows contradict the order in which any decoder hands them out
        return _reorder_depth(packets) <= (1 if self.codec == "mpeg4" else self.reorder_depth)

    def _look(self, packet: "Packet[VideoStream]") -> tuple[list[bytes], bool]:
        """Return the parameters that a packet brings, and whether decoding may start with it."""
        data = memoryview(packet)
        if self.codec in EACH_ALONE:
            self._look_at_tables(data)
            return [], True
        if self.codec in BY_UNITS:
            units, picture = self._units(data)
            self.from_start |= self._is_beyond_key_frames(units, picture) or self.ended
            self.ended = self.codec == "hevc" and bytes(data[-3:]) in SEQUENCE_ENDS
            parameters = [unit for unit in units if self._is_parameter(unit)]
            return parameters, packet.is_keyframe and self._forgets_all(picture)
        if self.codec == "mpeg4":
            head = bytes(data[:4096])
            at = head.find(b"\0\0\1\xb6")
            # a second picture is packed with the first, and a later packet stands for it
            self.from_start |= len(data) <= NOT_CODED_BYTES or b"\0\0\1\xb6" in bytes(data)[at + 4 :]
            parameters = [unit for unit in _start_code_units(head[: max(at, 0)]) if self._is_parameter(unit)]
            return parameters, packet.is_keyframe and at >= 0 and len(head) > at + 4 and head[at + 4] >> 6 == 0
        if self.codec == "vp8":
            return [], packet.is_keyframe and not data[0] & 1
        if self.codec == "vp9":
            self.from_start |= not _shows_vp9(data[0], data[-1])
            return [], packet.is_keyframe and _is_vp9_key(data[0])
        if self.codec == "av1":
            return [], packet.is_keyframe and _is_av1_key(bytes(data[:4096]))
        self.from_start = True
        return [], False

    def _look_at_tables(self, data: memoryview) -> None:
        """Take the tables of a JPEG picture; one without them is decoded with those of the last that had some."""
        if self.codec == "mjpeg":
            tables = _jpeg_tables(data)
            self.from_start |= bool(self.times[1:]) and tables != self.tables
            self.tables = tables

    def _is_beyond_key_frames(self, units: list[bytes], picture: bytes) -> bool:
        """Return whether a packet changes what later ones mean, or whether they are shown, in a way not followed."""
        n_head, messages = (1, (6,)) if self.codec == "h264" else (2, (39, 40))
        if any(
            kind in FOR_ALL_LATER for unit in units if self._type(unit) in messages for kind in _messages(unit[n_head:])
        ):
            return True
        if self.codec == "h264":
            return False
        kinds = {self._type(unit) for unit in (*units, picture)}
        drops = self._type(picture) in HEVC_START and len(picture) > 2 and bool(picture[2] & 0x40)
        hides = any(_may_hide(unit) for unit in units if self._type(unit) == 34)
        return hides or (len(self.times) > 1 and (drops or not kinds.isdisjoint(HEVC_BROKEN)))

    def _units(self, data: memoryview) -> tuple[list[bytes], bytes]:
        """Return the units before the first slice, whole, and the first bytes of that slice."""
        units: list[bytes] = []
        if not self.length_bytes:
            for unit in _start_code_units(bytes(data[:4096])):
                if self._is_slice(unit):
                    return units, unit[:3]
                units.append(unit)
            units = _start_code_units(bytes(data))
            place = next((k for k, unit in enumerate(units) if self._is_slice(unit)), len(units))
            return units[:place], units[place][:3] if place < len(units) else b""
        at = 0
        while at + self.length_bytes < len(data):
            size = int.from_bytes(data[at : at + self.length_bytes], "big")
            at += self.length_bytes
            if self._is_slice(bytes(data[at : at + 2])):
                return units, bytes(data[at : at + 3])
            units.append(bytes(data[at : at + size]))
            at += size
        return units, b""

    def _type(self, unit: bytes) -> int:
        """Return the type of a unit; -1 if it is empty."""
        if not unit:
            return -1
        return unit[0] & 31 if self.codec == "h264" else unit[0] >> 1 & 63

    def _is_slice(self, unit: bytes) -> bool:
        kind = self._type(unit)
        return kind in (1, 2, 5) if self.codec == "h264" else 0 <= kind < 32

    def _is_parameter(self, unit: bytes) -> bool:
        """Return whether a unit changes what a decoder remembers beside pictures."""
        if not unit:
            return False
        if self.codec == "h264":
            return self._type(unit) in (7, 8, 13, 15) or BUILD in unit
        if self.codec == "hevc":
            return self._type(unit) in (32, 33, 34)
        return unit[0] <= 0x2F or unit[0] in (0xB0, 0xB2, 0xB5)  # MPEG-4: layer, object, user data

    def _forgets_all(self, picture: bytes) -> bool:
        return self._type(picture) in ((5,) if self.codec == "h264" else HEVC_START)


def _reorder_depth(packets: Ints) -> int:
    """Return how many pictures at most are coded before one and shown after it; above 32 it may be more."""
    places = np.argsort(packets)  # in coded order, the place of each in order of display
    depths = np.zeros(len(places), np.int64)
    for step in range(1, min(33, len(places))):
        depths[step:] += places[:-step] > places[step:]
    return int(depths.max())


def _messages(data: bytes) -> Iterator[int]:
    """Yield the types of the messages in a unit (H.264, 7.3.2.3.1; H.265, 7.3.5)."""
    data, at = data.replace(b"\0\0\3", b"\0\0"), 0
    while at + 1 < len(data):
        numbers = [0, 0]
        for k in range(2):
            while at < len(data) and data[at] == 255:
                numbers[k], at = numbers[k] + 255, at + 1
            numbers[k], at = numbers[k] + (data[at] if at < len(data) else 0), at + 1
        yield numbers[0]
        at += numbers[1]


def _may_hide(unit: bytes) -> bool:
    """Return whether pictures with these parameters (HEVC) may say that they are not shown."""
    try:
        bits = Bits(unit[1:])
        bits.skip(2)
        bits.flag()
        return bits.flag()
    except ValueError:
        return True


def _jpeg_tables(data: memoryview) -> frozenset[tuple[int, int]]:
    """Return the tables that a picture brings, by marker and number: DQT, DHT (ISO/IEC 10918-1, B.2.4.1, B.2.4.2)."""
    found, at = set(), 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        marker, table = data[at + 1], at + 4
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        while marker in (0xDB, 0xC4) and table + 17 <= min(at, len(data)):
            found.add((marker, data[table]))
            n_values = sum(data[table + 1 : table + 17]) + 16 if marker == 0xC4 else 64 * (1 + (data[table] >> 4))
            table += 1 + n_values
    return frozenset(found)


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


def _shows_vp9(first: int, last: int) -> bool:
    """Return whether a packet shows a picture, by its first and last byte: several in one end with an index."""
    bit = 3 if first >> 4 & 3 != 3 else 2
    return bool(first >> bit & 1 or first >> (bit - 2) & 1) or last >> 5 == 6


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
