"""Decode one video with its true timing: PyAV, one thread, presentation order, rotation and pixel aspect kept apart."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from lps.manifests.codes import Code, Stage
from lps.manifests.errors import VideoFault
from lps.pipeline.config.params import Limits, Params
from lps.pipeline.video.color_names import MATRICES
from lps.pipeline.video.container import MEDIA_ERRORS, UNTIMED, open_video, raise_at_limit, scan_packets
from lps.pipeline.video.cuts import cut_score_between, thumbnail
from lps.pipeline.video.damage import PacketScan, is_clean_start, number_of, tells_of_loss, with_number
from lps.pipeline.video.entry_points import varies
from lps.pipeline.video.frame import UNSPECIFIED, Frame
from lps.pipeline.video.rotation import rotation_of
from lps.pipeline.video.tone_map import ToneMap, tone_map_of

cv2.setNumThreads(1)  # one task owns one core

HOLE = 2.5
"""Where the rate varies, a step between time stamps above this many of the shortest is a hole."""
MAX_PIXEL_ASPECT = 8.0
"""Pixels that claim to be longer than this are taken as square."""
CONVERTIBLE = frozenset({"gbr", "bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc"})
"""Color matrices that libswscale knows."""


@dataclass(slots=True)
class DecodeStats:
    """What one pass over the stream has seen so far."""

    n_frames: int = 0
    n_errors: int = 0
    ended_by_error: bool = False
    pts_nominal: bool = False
    """The stream carries no time stamps; they were counted from the frame rate."""
    rotation: int = 0
    min_step_ticks: int | None = None
    max_step_ticks: int | None = None
    last_pts: int | None = None
    spoiled_to: int | None = None
    """After a loss: the number of the first packet whose picture can end the damage."""
    thumb: NDArray[np.float32] | None = field(default=None, repr=False)
    cut_scores: list[float] = field(default_factory=list, repr=False)

    def note_loss(self, number: int) -> None:
        """Note a loss that spoils all frames up to a clean start in packet `number`, or a later one."""
        self.n_errors += self.spoiled_to is None
        self.spoil(number)

    def note_failure(self, number: int) -> None:
        """Note a packet or frame that does not decode; none of before packet `number` ends the damage."""
        self.n_errors += 1
        self.ended_by_error = True
        self.spoil(number)

    def note_scanned(self, number: int, scan: PacketScan, max_step: float) -> None:
        """Note what the packets told of packet `number`, before it is decoded."""
        if number in scan.lost_before:
            self.note_loss(number)
        elif scan.doubts.get(number, 0.0) > max_step:
            self.spoil(number)

    def spoil(self, number: int) -> None:
        """Trust no frame up to a clean start in packet `number`, or a later one."""
        self.spoiled_to = number if self.spoiled_to is None else max(number, self.spoiled_to)

    @property
    def is_vfr(self) -> bool | None:
        """True if the steps between time stamps differ by more than one tick of rounding."""
        if self.min_step_ticks is None or self.max_step_ticks is None:
            return None
        return varies(self.min_step_ticks, self.max_step_ticks)


def decode(path: Path, params: Params, stats: DecodeStats, scan: PacketScan | None = None) -> Iterator[Frame]:
    """Yield the frames of `path` in presentation order, one at a time, and keep `stats` up to date.

    A damaged packet is counted and skipped. The frames after it, and after pictures that are missing, show what was
    predicted from what is not there, so all of them `break`, up to and including the next clean key frame. `scan` is
    what `scan_packets` gave, if that is at hand. Raises VideoFault as `open_video` does, and E_LIMIT when more frames,
    or larger ones, decode than allowed, E_DECODE for a color matrix that nothing here converts from.
    """
    scan = scan or scan_packets(path, params.limits)
    container, stream = open_video(path, params.limits)
    with container:
        facts = StreamFacts.of(stream)
        untimed = container.format.name in UNTIMED
        size = (0, 0)
        for native in _natives(container, stream, stats, scan, params.max_step):
            check_frame(native, stats, params.limits)
            pts = None if untimed else native.pts
            if pts is None:
                stats.pts_nominal = True
                pts = 0 if stats.last_pts is None else stats.last_pts + facts.tick_step
            resized = (native.width, native.height) != size
            size = (native.width, native.height)
            usual = None if stats.pts_nominal else scan.usual_ticks
            widest = facts.widest_step(stats, pts, usual, stats.min_step_ticks, params.max_step)
            breaks = note_frame(stats, native, pts, widest=widest, cut_score=params.localize.cut_score) or resized
            yield facts.frame(native, stats.n_frames - 1, pts, stats, params, breaks=breaks)


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What the frames of a stream share."""

    base: Fraction
    """Seconds of a tick."""
    tick_step: int
    """Ticks of a frame at the nominal rate."""
    pixel_aspect: float
    claimed: tuple[int, int]
    """Transfer and primaries that the container claims."""

    @classmethod
    def of(cls, stream: VideoStream) -> "StreamFacts":
        """Return what the frames of a stream share."""
        base = stream.time_base or Fraction(1, 1000)
        rate = stream.average_rate or stream.base_rate or Fraction(25)
        context = stream.codec_context
        aspect = float(stream.sample_aspect_ratio or context.sample_aspect_ratio or 1)
        return cls(
            base=base,
            tick_step=max(1, round(1 / (rate * base))),
            pixel_aspect=aspect if 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT else 1.0,
            claimed=(context.color_trc, context.color_primaries),
        )

    def widest_step(
        self, stats: "DecodeStats", pts: int, usual: int | None, shortest: int | None, max_step: float
    ) -> float:
        """Return the step from the last time stamp above which there is a hole before `pts`.

        `usual` is the step of a constant rate; without one, `shortest` is that between the frames before, if there are
        any.
        """
        if usual is not None:
            return usual * max_step
        return HOLE * max(self.tick_step, pts - (stats.last_pts or 0) if shortest is None else shortest)

    def frame(
        self, native: VideoFrame, index: int, pts: int, stats: "DecodeStats", params: Params, *, breaks: bool
    ) -> Frame:
        """Return the frame of a decoded picture that `stats` has noted."""
        shown = self._tone_map(native) if params.tone_map else None
        spoiled = stats.spoiled_to is not None
        seconds = float(pts * self.base)
        return Frame(index, pts, seconds, stats.rotation, self.pixel_aspect, breaks, native, shown, spoiled)

    def _tone_map(self, native: VideoFrame) -> ToneMap | None:
        """Return what maps this frame; where it does not say, the container's claim counts."""
        found = (native.color_trc, native.color_primaries)
        return tone_map_of(*(one if one != UNSPECIFIED else two for one, two in zip(found, self.claimed, strict=True)))


def check_frame(native: VideoFrame, stats: DecodeStats, limits: Limits) -> None:
    """Raise VideoFault for a frame beyond the limits, or of colors that nothing here converts from."""
    w, h = native.width, native.height
    if w * h > limits.max_area_px or max(w, h) > limits.max_side_px or stats.n_frames >= limits.max_frames:
        raise VideoFault(Code.E_LIMIT, Stage.DECODE, f"frame {stats.n_frames}, {w}x{h} px")
    if native.colorspace != UNSPECIFIED and MATRICES.get(native.colorspace) not in CONVERTIBLE:
        name = MATRICES.get(native.colorspace, f"number {native.colorspace}")
        raise VideoFault(Code.E_DECODE, Stage.DECODE, f"colors of matrix {name} cannot be converted to RGB")


def _natives(
    container: av.container.InputContainer, stream: VideoStream, stats: DecodeStats, scan: PacketScan, max_step: float
) -> Iterator[VideoFrame]:
    """Yield the frames that decode whole, each with its packet's number; what was lost is noted in `stats`."""
    stream.codec_context.copy_opaque = True
    packets = container.demux(stream)
    for number in count():
        try:
            packet = next(packets, None)
            if packet is None:
                if number - 1 < scan.n_listed and not stats.ended_by_error:  # the last one flushes the decoder
                    stats.note_failure(number)  # a demuxer that meets nonsense may end as if the file did
                return
            with_number(packet, number)
            stats.note_scanned(number, scan, max_step)
            with av.logging.Capture() as log:
                frames = packet.decode()
        except MEDIA_ERRORS as e:
            raise_at_limit(e)
            stats.note_failure(number + 1)
            # a demuxer that fails at the same place for ever would never end
            if isinstance(e, (EOFError, OSError)) and not isinstance(e, av.error.InvalidDataError):
                return
            if stats.n_errors > 1000:
                return
            continue
        if packet.is_corrupt or tells_of_loss(log):
            stats.note_loss(number + 1)
        for frame in frames:
            if frame.is_corrupt:
                stats.note_failure(number_of(frame, number) + 1)
            else:
                stats.ended_by_error &= not packet.size  # without, the decoder only hands out what it had held back
                yield frame


def note_frame(stats: DecodeStats, native: VideoFrame, pts: int, *, widest: float, cut_score: float) -> bool:
    """Add one frame to `stats`; return True if it does not continue the frame before."""
    breaks = stats.last_pts is None or stats.spoiled_to is not None
    if stats.last_pts is not None:
        step = pts - stats.last_pts
        breaks = breaks or not 0 < step <= widest
        stats.min_step_ticks = step if stats.min_step_ticks is None else min(stats.min_step_ticks, step)
        stats.max_step_ticks = step if stats.max_step_ticks is None else max(stats.max_step_ticks, step)
    # a key frame of an earlier packet had only been held back when the loss was met
    if stats.spoiled_to is not None and is_clean_start(native) and number_of(native, -1) >= stats.spoiled_to:
        stats.spoiled_to = None
    if stats.n_frames == 0:
        stats.rotation = rotation_of(native)
    thumb = thumbnail(native)
    if stats.thumb is not None:
        score = cut_score_between(stats.thumb, thumb)
        stats.cut_scores.append(score)
        breaks = breaks or score > cut_score
    stats.thumb, stats.last_pts, stats.n_frames = thumb, pts, stats.n_frames + 1
    return breaks
