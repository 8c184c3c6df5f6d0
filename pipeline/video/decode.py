"""Decode one video with its true timing: PyAV, one thread, presentation order, rotation and pixel aspect kept apart."""

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from lps.manifests.codes import Code, Stage
from lps.manifests.errors import VideoFault
from lps.manifests.records import Header
from lps.pipeline.config.params import Limits, Params
from lps.pipeline.video.color_names import FIELD_ORDERS, MATRICES, PRIMARIES, RANGES, TRANSFERS, UNKNOWN
from lps.pipeline.video.damage import (
    PacketScan,
    PacketWatch,
    is_clean_start,
    listed_packets,
    number_of,
    tells_of_loss,
)
from lps.pipeline.video.frame_numbers import FrameNumbers
from lps.pipeline.video.memory import at_memory_limit
from lps.pipeline.video.reading import fault_of_reading
from lps.pipeline.video.rotation import rotation_of
from lps.pipeline.video.tone_map import ToneMap, tone_map_of

cv2.setNumThreads(1)  # one task owns one core

THUMB = (32, 18)
"""Size of the luma thumbnails in which scene cuts are found."""

HOLE = 2.5
"""Where the rate varies, a step between time stamps above this many of the shortest is a hole."""
MAX_PIXEL_ASPECT = 8.0
"""Pixels that claim to be longer than this are taken as square."""

ANY_TEXT: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}
"""Opens files whose texts (titles, names of streams) are not UTF-8; from version 19 on av always does."""

NOT_VIDEOS = frozenset({"concat", "dash", "hls", "imf", "sdp", "tty"})
"""Formats of libav that are lists of other files, whose bytes nobody recorded, or text drawn as on a terminal."""

UNTIMED = frozenset({"avi"})
"""Formats that store no order of display: what libav makes up goes to and fro."""

# What the media layer raises for reasons of content. ENOMEM is among it: libav says so of a nonsense size, too.
MEDIA_ERRORS = (FFmpegError, ValueError, OverflowError, IndexError, EOFError, OSError)


PLANAR_8BIT = ("yuv420p", "yuvj420p")
CELL = 32
UNSPECIFIED = 2
"""Code point of H.273 for a color that the stream does not name."""
CONVERTIBLE = frozenset({"gbr", "bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc"})
"""Color matrices that libswscale knows."""
_TO_RGB = VideoReformatter()
_SHRINK = VideoReformatter()
"""They keep their tables from frame to frame; the frames' own would be built anew for each."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame. Pixels stay in the decoder's own format until they are asked for."""

    index: int
    """Counts the frames that decode, from 0, in presentation order."""
    pts_ticks: int
    pts_seconds: float
    rotation: int
    """Clockwise degrees that display needs: 0, 90, 180, 270."""
    pixel_aspect: float
    """Width of a stored pixel over its height, before rotation."""
    breaks: bool
    """True where this frame does not continue the one before: first frame, scene cut, hole, damage or new size."""
    native: VideoFrame
    tone_map: ToneMap | None = None
    """What makes an SDR picture of this one; None where it is one."""
    spoiled: bool = False
    """Something was lost before, or may have been, and the frame may show what was predicted from it."""

    @property
    def aspect_xy(self) -> tuple[float, float]:
        """Factors that turn source px (after rotation) into square px."""
        return (1.0, self.pixel_aspect) if self.rotation in (90, 270) else (self.pixel_aspect, 1.0)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in source px: after rotation, pixels as stored."""
        w, h = self.native.width, self.native.height
        return (h, w) if self.rotation in (90, 270) else (w, h)

    def rgb(self) -> NDArray[np.uint8]:
        """Return the full frame, (H, W, 3) RGB, rotated for display."""
        return _upright(self._shown(self._converted(self.native)), self.rotation)

    def region(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
        """Return `rgb()[y0:y1, x0:x1]`, the same values, converting little more than that where the format allows."""
        width, height = self.native.width, self.native.height
        left, top, right, bottom = {
            0: (x0, y0, x1, y1),
            90: (y0, height - x1, y1, height - x0),
            180: (width - x1, height - y1, width - x0, height - y0),
            270: (width - y1, x0, width - y0, x1),
        }[self.rotation]
        x = y = 0
        part = self.native
        if self.native.format.name in PLANAR_8BIT:
            # On whole cells the conversion takes the same path as on the full frame, and chroma is not split.
            x, y = left // CELL * CELL, top // CELL * CELL
            cells = (x, y, min(-(-right // CELL) * CELL, width), min(-(-bottom // CELL) * CELL, height))
            part = _cut(self.native, cells)
        pixels = self._converted(part)[top - y : bottom - y, left - x : right - x]
        return _upright(self._shown(pixels), self.rotation)

    def small(self, longest_px: int) -> NDArray[np.uint8]:
        """Return the frame with square pixels and its longest side at `longest_px` (never enlarged), (h, w, 3) RGB."""
        width, height = self.native.width * self.pixel_aspect, float(self.native.height)
        scale = min(1.0, longest_px / max(width, height))
        size = (max(2, round(width * scale)), max(2, round(height * scale)))
        return _upright(self._shown(self._converted(self.native, size)), self.rotation)

    def _converted(self, native: VideoFrame, size: tuple[int, int] | None = None) -> NDArray[Any]:
        """Return this frame or a part of it as RGB, (h, w, 3), shrunk to `size` if given: 16 bits if HDR, else 8."""
        convert = partial(_TO_RGB.reformat if size is None else _SHRINK.reformat, threads=1)  # else one for each core
        if size is not None:
            convert = partial(convert, interpolation="AREA")
        width, height = size or (native.width, native.height)
        if self.tone_map is None:
            return convert(native, width=width, height=height, format="rgb24").to_ndarray()
        # without a name libav would take the matrix of BT.601, which no HDR has
        unnamed = native.colorspace == UNSPECIFIED and not native.format.is_rgb
        matrix = Colorspace.BT2020 if unnamed else None
        return convert(native, width=width, height=height, format="rgb48le", src_colorspace=matrix).to_ndarray()

    def _shown(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        return np.asarray(pixels if self.tone_map is None else self.tone_map.apply(pixels), np.uint8)


def _cut(native: VideoFrame, box: tuple[int, int, int, int]) -> VideoFrame:
    """Return a copy of a rectangle of a frame in one of PLANAR_8BIT; left and top are even."""
    x0, y0, x1, y1 = box
    part = VideoFrame(x1 - x0, y1 - y0, native.format.name)
    for k, (source, target) in enumerate(zip(native.planes, part.planes, strict=True)):
        step = 1 if k == 0 else 2
        pixels, copy = (
            np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]  # a buffer
            for plane in (source, target)
        )
        height, width = -(-(y1 - y0) // step), -(-(x1 - x0) // step)
        copy[:height, :width] = pixels[y0 // step :, x0 // step :][:height, :width]
    part.colorspace, part.color_range = native.colorspace, native.color_range
    return part


def _upright(image: NDArray[np.uint8], rotation: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.rot90(image, k=-rotation // 90)) if rotation else image


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
        return self.max_step_ticks - self.min_step_ticks > max(1, round(0.02 * self.min_step_ticks))


def open_video(path: Path, limits: Limits) -> tuple[av.container.InputContainer, VideoStream]:
    """Open `path` and choose its main video stream. The caller closes the container.

    Raises VideoFault: E_MISSING_FILE, E_UNREADABLE, E_EMPTY_FILE, E_LIMIT, E_PROBE, E_NO_VIDEO_STREAM.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise VideoFault(Code.E_UNREADABLE, Stage.PROBE, "no regular file")
        with path.open("rb") as file:
            file.read(1)  # libav gives the same errors for what is in a file
    except OSError as e:
        raise fault_of_reading(e) from e
    n_bytes = facts.st_size
    if n_bytes == 0:
        raise VideoFault(Code.E_EMPTY_FILE, Stage.PROBE)
    if n_bytes > limits.max_bytes:
        raise VideoFault(Code.E_LIMIT, Stage.PROBE, f"{n_bytes} bytes, limit {limits.max_bytes}")
    try:
        # "file:" keeps names with a colon from being read as a protocol
        container = av.open(f"file:{path}", **ANY_TEXT)
    except MEDIA_ERRORS as e:
        _raise_at_limit(e)
        raise VideoFault(Code.E_PROBE, Stage.PROBE, _short(e)) from e
    try:
        if container.format.name in NOT_VIDEOS:
            raise VideoFault(Code.E_PROBE, Stage.PROBE, f"{container.format.name} is no video format")
        stream = _main_stream(container)
        _check_limits(stream, container, limits)
    except VideoFault:
        container.close()
        raise
    stream.codec_context.thread_count = 1
    stream.thread_type = "NONE"
    return container, stream


def _main_stream(container: av.container.InputContainer) -> VideoStream:
    # The first real stream, as `decode(video=0)` of other tools sees it: frame indices must mean the same to them.
    for stream in container.streams.video:
        if stream.codec_context is not None and not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise VideoFault(Code.E_NO_VIDEO_STREAM, Stage.PROBE)


def _check_limits(stream: VideoStream, container: av.container.InputContainer, limits: Limits) -> None:
    w, h = stream.codec_context.width, stream.codec_context.height
    if max(w, h) > limits.max_side_px or w * h > limits.max_area_px:
        raise VideoFault(Code.E_LIMIT, Stage.PROBE, f"frame of {w}x{h} px")
    seconds = _duration_seconds(stream, container)
    if seconds is not None and seconds > limits.max_seconds:
        raise VideoFault(Code.E_LIMIT, Stage.PROBE, f"{seconds:.0f} s, limit {limits.max_seconds:.0f} s")


def _duration_seconds(stream: VideoStream, container: av.container.InputContainer) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration is not None else None


def read_header(path: Path, limits: Limits) -> Header:
    """Return what the container claims. Raises VideoFault as `open_video` does."""
    container, stream = open_video(path, limits)
    with container:
        rate, base, context = stream.average_rate, stream.time_base, stream.codec_context
        aspect = stream.sample_aspect_ratio or context.sample_aspect_ratio or Fraction(1)
        seconds = _duration_seconds(stream, container)
        return Header(
            container=container.format.name.split(",")[0],
            codec=context.codec.canonical_name,
            pix_fmt=context.pix_fmt,
            width=context.width or None,
            height=context.height or None,
            sar_num=aspect.numerator,
            sar_den=aspect.denominator,
            fps_num=rate.numerator if rate else None,
            fps_den=rate.denominator if rate else None,
            time_base_num=base.numerator if base else None,
            time_base_den=base.denominator if base else None,
            n_frames_container=stream.frames if 0 < stream.frames < 2**31 else None,  # a claim, and stored as int32
            duration_s=round(seconds, 6) if seconds is not None else None,
            bitrate_bps=container.bit_rate or None,
            has_audio=len(container.streams.audio) > 0,
            n_video_streams=len(container.streams.video),
            color_transfer=TRANSFERS.get(context.color_trc, UNKNOWN),
            color_primaries=PRIMARIES.get(context.color_primaries, UNKNOWN),
            color_matrix=MATRICES.get(context.colorspace, UNKNOWN),
            color_range=RANGES.get(context.color_range, UNKNOWN),
            field_order=FIELD_ORDERS.get(context.field_order, UNKNOWN),
        )


def count_packets(path: Path, limits: Limits) -> int:
    """Return how many frames the container promises, as `scan_packets` counts them."""
    return scan_packets(path, limits).n_frames


def scan_packets(path: Path, limits: Limits) -> PacketScan:
    """Walk the packets without decoding: how many frames they promise, and what is missing. Cheap.

    Raises VideoFault as `open_video` does, and E_LIMIT for more frames than allowed.
    """
    with av.logging.Capture() as log:
        container, stream = open_video(path, limits)
    with container:
        context = stream.codec_context
        numbers = FrameNumbers()
        if context.extradata:
            numbers.configure(context.extradata)
        codec = context.codec
        timed, n_listed = container.format.name not in UNTIMED, listed_packets(stream, log)
        watch = PacketWatch(codec.canonical_name, codec.intra_only, timed, numbers, n_listed)
        try:
            for packet in container.demux(stream):
                watch.add(packet)
                if watch.n_frames > limits.max_frames:
                    raise VideoFault(Code.E_LIMIT, Stage.PROBE, f"more than {limits.max_frames} frames")
        except MEDIA_ERRORS as e:
            _raise_at_limit(e)  # the decoding pass names all other faults
    return watch.scan()


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
        base = stream.time_base or Fraction(1, 1000)
        tick_step = _nominal_step(stream, base)
        aspect = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
        aspect = aspect if 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT else 1.0
        untimed = container.format.name in UNTIMED
        size = (0, 0)
        claimed = (stream.codec_context.color_trc, stream.codec_context.color_primaries)
        for native in _natives(container, stream, stats, scan, params.max_step):
            _check_frame(native, stats, params.limits)
            pts = None if untimed else native.pts
            if pts is None:
                stats.pts_nominal = True
                pts = 0 if stats.last_pts is None else stats.last_pts + tick_step
            resized = (native.width, native.height) != size
            size = (native.width, native.height)
            widest = _widest_step(stats, pts, tick_step, scan.usual_ticks, params.max_step)
            breaks = _note(stats, native, pts, widest=widest, cut_score=params.localize.cut_score) or resized
            spoiled = stats.spoiled_to is not None
            shown = _tone_map(native, claimed) if params.tone_map else None
            seconds = float(pts * base)
            yield Frame(stats.n_frames - 1, pts, seconds, stats.rotation, aspect, breaks, native, shown, spoiled)


def _tone_map(native: VideoFrame, claimed: tuple[int, int]) -> ToneMap | None:
    """Return what maps this frame; where it does not say, the container's claim of transfer and primaries counts."""
    found = (native.color_trc, native.color_primaries)
    return tone_map_of(*(one if one != UNSPECIFIED else two for one, two in zip(found, claimed, strict=True)))


def _check_frame(native: VideoFrame, stats: DecodeStats, limits: Limits) -> None:
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
            packet.opaque = number
            stats.note_scanned(number, scan, max_step)
            with av.logging.Capture() as log:
                frames = packet.decode()
        except MEDIA_ERRORS as e:
            _raise_at_limit(e)
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


def _nominal_step(stream: VideoStream, base: Fraction) -> int:
    rate = stream.average_rate or stream.base_rate or Fraction(25)
    return max(1, round(1 / (rate * base)))


def _widest_step(stats: DecodeStats, pts: int, tick_step: int, constant: int | None, max_step: float) -> float:
    """Return the step from the last time stamp above which there is a hole before `pts`."""
    if constant is not None and not stats.pts_nominal:
        return constant * max_step
    step = pts - (stats.last_pts or 0)
    return HOLE * max(tick_step, step if stats.min_step_ticks is None else stats.min_step_ticks)


def _note(stats: DecodeStats, native: VideoFrame, pts: int, *, widest: float, cut_score: float) -> bool:
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


def thumbnail(native: VideoFrame) -> NDArray[np.float32]:
    """Return a small luma image, (18, 32) float32, cheaply: from the luma plane where there is one of 8 bits."""
    if native.format.name in {"yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuvj444p", "nv12", "gray"}:
        plane = native.planes[0]
        luma = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        # every few pixels are enough: the average over a cell is what counts
        luma = luma[:: max(1, luma.shape[0] // 144), :: max(1, luma.shape[1] // 256)]
        luma = np.ascontiguousarray(luma)
    else:
        luma = np.asarray(native.reformat(width=256, height=144, format="gray", threads=1).to_ndarray(), np.uint8)
    return np.asarray(cv2.resize(luma, THUMB, interpolation=cv2.INTER_AREA), np.float32)


def cut_score_between(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Score 0 (same picture) to 1 (unrelated picture) for two thumbnails.

    The change of structure (1 - correlation) counts only as far as the pictures also differ in brightness values,
    so that noise on a black screen and a lamp that is switched on both stay below a cut.
    """
    da, db = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((da * da).sum() * (db * db).sum()))
    correlation = float((da * db).sum()) / norm if norm > 1e-6 else 0.0  # a black frame continues nothing
    amount = float(np.abs(da - db).mean())
    return round(min(1.0, max(0.0, 1.0 - correlation)) * min(1.0, amount / 12.0), 4)


def _raise_at_limit(error: Exception) -> None:
    """Raise what is no fault of the content: an allocation that fails because the process is at its memory limit."""
    if isinstance(error, MemoryError) and at_memory_limit():
        raise error


def _short(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or type(error).__name__
    return f"{type(error).__name__}: {text}"[:120]
