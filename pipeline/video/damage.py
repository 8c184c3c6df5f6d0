"""What tells that pictures are missing: the packets of a stream, before any is decoded, and the decoder's log.

Decoders paper over a picture that is missing and go on. A packet tells of it by frame numbers (H.264, see
`frame_numbers`), HEVC's decoder by its log, all codecs by holes between time stamps. What cannot be told apart from a
recorder that dropped a frame is in doubt, and so is what follows it.
"""

import logging
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import av
import numpy as np
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from lps.pipeline.video.entry_points import EntryPoints, FrameIndex
from lps.pipeline.video.frame_numbers import FrameNumbers, TemporalReferences

CONSTANT_SHARE = 0.95
"""The rate of a video is constant if as many of the steps between its time stamps are the usual one."""
MPEG = ("mpeg1video", "mpeg2video")
PATIENT = (*MPEG, "h264", "hevc", "vp8", "vp9", "av1")
"""Codecs whose decoders show nothing until the first key frame; others begin with a picture made of nothing."""
MAX_REFS = 16
"""H.264 and HEVC keep at most as many pictures to predict from."""

LOST = re.compile(
    r"reference picture missing|Missing reference picture|Could not find ref with POC|unref (short|long) failure"
    r"|concealing|error while decoding MB|CABAC_MAX_BIN|undecodable NALU: ([12]?[0-9]|3[01])\b"
)
"""What the decoders of libav log where a picture or a part of one is not what was coded. Units 0 to 31 are slices."""
UNLISTED = re.compile(r"Sample size \d+ is too large")
"""What the demuxer of MP4 logs where it stops to list the packets, as if there were no more."""

av.logging.set_level(av.logging.WARNING)  # else they are mute; HEVC's only warns of slices that it leaves out
av.logging.set_skip_repeated(False)  # the same line may stand for another loss
logging.getLogger("libav").setLevel(logging.CRITICAL)  # the lines are read here, not shown


def tells_of_loss(log: Iterable[tuple[int, str, str]]) -> bool:
    """Return whether lines that `av.logging.Capture` gave name a loss."""
    return any(LOST.search(message) for _, _, message in log)


def listed_packets(stream: VideoStream, log: Iterable[tuple[int, str, str]]) -> int:
    """Return how many packets a container lists that was just opened; `log` has the lines of that.

    Where edit lists leave out frames, the list is shorter than the number that the container claims.
    """
    listed = len(stream.index_entries)
    return max(listed, stream.frames) if any(UNLISTED.search(message) for _, _, message in log) else listed


def is_clean_start(native: VideoFrame) -> bool:
    """Return whether a frame needs no other, nor do those after it. A P frame can be where a gradual refresh begins."""
    return bool(native.key_frame) and native.pict_type not in (PictureType.P, PictureType.B)


def with_number(packet: "Packet[VideoStream]", number: int) -> None:
    """Give a packet the number that `number_of` finds in its frame."""
    packet.opaque = (number,)  # PyAV knows it by its address, and small integers share one


def number_of(native: VideoFrame, default: int) -> int:
    """Return the number of the packet that a frame was decoded from, where its decoder hands it on."""
    return int(native.opaque[0]) if isinstance(native.opaque, tuple) else default


@dataclass(frozen=True, slots=True)
class PacketScan:
    """What the packets of a stream tell. Their numbers count in coded order, from 0."""

    n_frames: int = 0
    """Frames that the container promises."""
    n_listed: int = 0
    """Packets that the container listed when it was opened, as MP4 and AVI do; another may list few or none."""
    usual_ticks: int | None = None
    """The step between time stamps; None where the rate varies or is not known."""
    lost_before: frozenset[int] = frozenset()
    """Packets before which a picture is missing that they, or later ones, may show again."""
    doubts: Mapping[int, float] = field(default_factory=dict)
    """Packets before which one may be missing -> the step in time over it, in usual steps."""
    index: FrameIndex | None = None
    """Frames and where decoding may start; None where nothing but decoding from the start is known to be right."""

    def windows(self, max_step: float) -> FrameIndex | None:
        """Return the index if, as far as the packets tell, nothing is missing anywhere."""
        if self.lost_before or any(step > max_step for step in self.doubts.values()):
            return None
        return self.index


@dataclass(slots=True)
class PacketWatch:
    """Takes the packets of one stream in coded order."""

    codec: str
    intra_only: bool
    timed: bool
    """The container stores times of display, else only an order of packets."""
    numbers: FrameNumbers
    points: EntryPoints
    n_listed: int = 0
    ended_early: bool = False
    """Reading failed before the end."""
    references: TemporalReferences = field(default_factory=TemporalReferences)
    n_frames: int = 0
    times: list[int | None] = field(default_factory=list)
    anchors: list[int] = field(default_factory=list)
    """Packets that others may refer to, as far as their first bytes say."""
    keys: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    tells: list[bool] = field(default_factory=list)
    """Whether a packet's codec, and its sequence, has numbers that tell of a loss before it."""
    early: list[bool] = field(default_factory=list)
    """Whether its number may be the first after a key frame."""

    def add(self, packet: "Packet[VideoStream]") -> None:
        number, data = len(self.times), memoryview(packet)
        kind = _kind(self.codec, data) if packet.size else "P"
        hidden = not packet.size or packet.is_discard
        self.n_frames += not hidden
        self.points.add(packet, is_hidden=hidden or kind == "hidden")
        self.times.append(None if hidden or kind == "hidden" else packet.pts if self.timed else packet.dts)
        if packet.is_keyframe:
            self.keys.append(number)
        if kind != "B":
            self.anchors.append(number)
        if self.codec == "h264" and packet.size and self.numbers.missing_before(data):
            self.lost.append(number)
        elif self.codec in MPEG:
            lost = self.references.missing_before(data, number) if packet.size else self.references.missing_at_end()
            self.lost += [] if lost is None else [lost]
        if number == 0 and not (packet.is_keyframe or self.intra_only or self.codec in PATIENT):
            self.lost.append(0)
        self.tells.append(self.codec == "hevc" or self.numbers.tells)
        self.early.append(self.codec == "hevc" or self.numbers.number <= 1)

    def scan(self) -> PacketScan:
        """Return what they told."""
        stamped = [(time, number) for number, time in enumerate(self.times) if time is not None]
        shown = np.array(sorted(stamped), np.int64).reshape(-1, 2)
        usual, wide = (None, []) if self.numbers.fields else holes(shown[:, 0])
        # for each time stamp: the first packet shown then or later, and the last up to then that others refer to
        late = np.minimum.accumulate(shown[::-1, 1])[::-1]
        early = np.maximum.accumulate(np.where(np.isin(shown[:, 1], self.anchors), shown[:, 1], -1))
        doubts: dict[int, float] = {}
        for k in wide if usual and not self.intra_only and self.codec not in MPEG else ():
            steps = float(shown[k + 1, 0] - shown[k, 0]) / (usual or 1)
            number = self._may_be_lost(int(late[k + 1]), int(early[k]), steps)
            if number is not None:
                doubts[number] = max(steps, doubts.get(number, 0.0))
        return PacketScan(self.n_frames, self.n_listed, usual, frozenset(self.lost), doubts, self._index())

    def _index(self) -> FrameIndex | None:
        n_packets = len(self.times) - 1  # the last one is empty and flushes the decoder
        whole = not self.ended_early and n_packets >= self.n_listed
        index = self.points.index() if self.timed and whole and not self.numbers.fields else None
        return index if index is not None and len(index) == self.n_frames else None

    def _may_be_lost(self, late: int, early: int, steps: float) -> int | None:
        """Return the first packet that may show what is missing in a hole of the time stamps; None if none can."""
        if not self.timed or not self.tells[late]:
            return min(
                late, early + 1
            )  # what is missing was coded after the last picture before it that others refer to
        # The numbers go on over it: no picture that is needed is missing, but for a key frame soon after another, from
        # which they start anew, or so many pictures that they have gone round.
        key = self.keys[bisect_right(self.keys, late) - 1] if self.keys and self.keys[0] <= late else 0
        restarted = late - key <= MAX_REFS and self.early[late]
        return late if key != late and (restarted or steps > MAX_REFS) else None


def holes(times: NDArray[np.int64]) -> tuple[int | None, list[int]]:
    """Return the usual step of sorted time stamps, None where it varies, and after which of them others are missing."""
    steps = np.diff(times)
    usual = int(np.median(steps)) if len(steps) > 1 else 0
    alike = np.abs(steps - usual) <= min(max(1, round(0.02 * usual)), usual // 2)
    if usual < 1 or alike.mean() < CONSTANT_SHARE:
        return None, []
    return usual, [int(k) for k in np.flatnonzero((steps > usual) & ~alike)]


def _kind(codec: str, data: memoryview) -> str:
    """Return the type of a packet's picture where its first bytes say so: B if no other refers to it; else P."""
    if codec == "vp8":
        return "P" if data[0] >> 4 & 1 else "hidden"
    if codec == "mpeg4":
        head = bytes(data[:512])
        at = head.find(b"\0\0\1\xb6") + 4
        return "B" if 4 <= at < len(head) and head[at] >> 6 == 2 else "P"
    return "P"
