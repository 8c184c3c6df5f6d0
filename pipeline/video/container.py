"""One video file opened: its main stream, its header, its packets. Nothing is decoded."""

import stat
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from av.video.stream import VideoStream

from lps.manifests.codes import Code, Stage
from lps.manifests.errors import VideoFault
from lps.manifests.records import Header
from lps.pipeline.config.params import Limits
from lps.pipeline.video.color_names import FIELD_ORDERS, MATRICES, PRIMARIES, RANGES, TRANSFERS, UNKNOWN
from lps.pipeline.video.damage import PacketScan, PacketWatch, listed_packets
from lps.pipeline.video.entry_points import EntryPoints
from lps.pipeline.video.frame_numbers import FrameNumbers
from lps.pipeline.video.memory import at_memory_limit
from lps.pipeline.video.reading import fault_of_reading

ANY_TEXT: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}
"""Opens files whose texts (titles, names of streams) are not UTF-8; from version 19 on av always does."""

NOT_VIDEOS = frozenset({"concat", "dash", "hls", "imf", "sdp", "tty"})
"""Formats of libav that are lists of other files, whose bytes nobody recorded, or text drawn as on a terminal."""

UNTIMED = frozenset({"avi"})
"""Formats that store no order of display: what libav makes up goes to and fro."""

# What the media layer raises for reasons of content. ENOMEM is among it: libav says so of a nonsense size, too.
MEDIA_ERRORS = (FFmpegError, ValueError, OverflowError, IndexError, EOFError, OSError)


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
        raise_at_limit(e)
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


@dataclass(frozen=True, slots=True)
class VideoFile:
    """What a file says of its video before anything is decoded."""

    header: Header
    scan: PacketScan
    fault: VideoFault | None = None
    """What kept the packets from being read to their end: E_LIMIT, more frames than allowed."""


def read_file(path: Path, limits: Limits) -> VideoFile:
    """Return header and packets of `path`, opened once. Raises VideoFault as `open_video` does."""
    with av.logging.Capture() as log:
        container, stream = open_video(path, limits)
    with container:
        header = _header(container, stream)
        try:
            return VideoFile(header, _scan(container, stream, listed_packets(stream, log), limits))
        except VideoFault as fault:
            return VideoFile(header, PacketScan(), fault.with_traceback(None))


def read_header(path: Path, limits: Limits) -> Header:
    """Return what the container claims. Raises VideoFault as `open_video` does."""
    container, stream = open_video(path, limits)
    with container:
        return _header(container, stream)


def _header(container: av.container.InputContainer, stream: VideoStream) -> Header:
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
    file = read_file(path, limits)
    if file.fault is not None:
        raise file.fault
    return file.scan


def _scan(container: av.container.InputContainer, stream: VideoStream, n_listed: int, limits: Limits) -> PacketScan:
    context = stream.codec_context
    numbers = FrameNumbers()
    if context.extradata:
        numbers.configure(context.extradata)
    codec = context.codec
    timed = container.format.name not in UNTIMED
    watch = PacketWatch(codec.canonical_name, codec.intra_only, timed, numbers, EntryPoints.of(context), n_listed)
    try:
        for packet in container.demux(stream):
            watch.add(packet)
            if watch.n_frames > limits.max_frames:
                raise VideoFault(Code.E_LIMIT, Stage.PROBE, f"more than {limits.max_frames} frames")
    except MEDIA_ERRORS as e:
        raise_at_limit(e)  # the decoding pass names all other faults
        watch.ended_early = True
    return watch.scan()


def raise_at_limit(error: Exception) -> None:
    """Raise what is no fault of the content: an allocation that fails because the process is at its memory limit."""
    if isinstance(error, MemoryError) and at_memory_limit():
        raise error


def _short(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or type(error).__name__
    return f"{type(error).__name__}: {text}"[:120]
