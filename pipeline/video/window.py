"""Decode only the frames that are wanted, each the same in every pixel as when all are decoded.

The packets are walked in order. Those before the key frame that a wanted frame needs are not decoded, but for the
first, whose parameters decoders keep; see `entry_points`. On the way from a key frame to the first wanted frame
pictures that no other needs are left out, but for the last few.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from lps.pipeline.config.params import Params
from lps.pipeline.video.container import MEDIA_ERRORS, open_video, raise_at_limit
from lps.pipeline.video.damage import PacketScan, number_of, tells_of_loss, with_number
from lps.pipeline.video.decode import DecodeStats, StreamFacts, check_frame, note_frame
from lps.pipeline.video.entry_points import FrameIndex
from lps.pipeline.video.frame import Frame

NEAR = 4
"""As many frames before a wanted one are decoded, needed or not: that they come in order shows that it is the one."""
SKIPPING = ("h264", "hevc", "mpeg4")
"""Codecs whose decoders leave out just the picture that they are told to."""


class WindowError(Exception):
    """The video is to be decoded from the start: what was decoded is not what its packets promised."""


@dataclass(slots=True)
class Cursor:
    """What is wanted of a video; whoever takes its frames may move it on between two of them."""

    frame: int = 0
    """The first frame that is still wanted. At the number of frames or beyond it, decoding ends."""
    decoded: set[int] = field(default_factory=set)
    """The frames that came out of the decoder so far."""


def decode_windows(path: Path, params: Params, stats: DecodeStats, scan: PacketScan, cursor: Cursor) -> Iterator[Frame]:
    """Yield the frames of `path` from `cursor.frame` on, in presentation order; a frame after a leap `breaks`.

    The scan has an index for windows. Raises WindowError where packets and decoder disagree, or something is damaged,
    and VideoFault as `decode` does.
    """
    index = scan.windows(params.max_step)
    if index is None:
        raise WindowError
    container, stream = open_video(path, params.limits)
    with container:
        facts, shortest = StreamFacts.of(stream), index.shortest_steps()
        expected, size = -1, (0, 0)
        for frame, native in _wanted(container, stream, index, cursor):
            check_frame(native, stats, params.limits)
            pts = int(index.times[frame])
            if native.pts != pts:
                raise WindowError
            if frame != expected:  # nothing is known of the frame before
                stats.last_pts = stats.thumb = None
            resized = (native.width, native.height) != size
            size, expected = (native.width, native.height), frame + 1
            widest = facts.widest_step(stats, pts, scan.usual_ticks, int(shortest[frame]) or None, params.max_step)
            breaks = note_frame(stats, native, pts, widest=widest, cut_score=params.localize.cut_score) or resized
            yield facts.frame(native, frame, pts, stats, params, breaks=breaks)


def _wanted(
    container: av.container.InputContainer, stream: VideoStream, index: FrameIndex, cursor: Cursor
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield the wanted frames with their numbers. Raises WindowError."""
    context, frame_of = stream.codec_context, index.frame_of()
    context.copy_opaque = True
    skips = context.codec.canonical_name in SKIPPING
    wanted, last = cursor.frame, -1
    start, near = index.start_of(wanted), index.gapless_from(wanted, NEAR)
    for number, packet in enumerate(_packets(container, stream)):
        if 0 < number < start:
            continue
        if number == start > 0:
            context.flush_buffers()
            last = -1
        # what is shown well before the first wanted frame is decoded only where others need it
        leave_out = skips and frame_of.get(number, len(index)) < near
        context.skip_frame = "NONREF" if leave_out else "DEFAULT"
        with_number(packet, number)
        for native in _decoded(packet):
            frame = frame_of.get(number_of(native, -1))
            # several of one packet, or another order than the time stamps'
            if frame is None or frame <= last or (frame > near and frame != last + 1):
                raise WindowError
            last = frame
            cursor.decoded.add(frame)
            if frame < wanted:
                continue
            if frame > wanted:
                raise WindowError
            yield frame, native
            wanted = cursor.frame = max(frame + 1, cursor.frame)
            if wanted >= len(index):
                return
            if wanted > frame + 1:
                start, near = index.start_of(wanted), index.gapless_from(wanted, NEAR)
    raise WindowError


def _packets(container: av.container.InputContainer, stream: VideoStream) -> Iterator["Packet[VideoStream]"]:
    try:
        yield from container.demux(stream)
    except MEDIA_ERRORS as e:
        raise_at_limit(e)
        raise WindowError from e


def _decoded(packet: "Packet[VideoStream]") -> list[VideoFrame]:
    try:
        with av.logging.Capture() as log:
            frames = packet.decode()
    except MEDIA_ERRORS as e:
        raise_at_limit(e)
        raise WindowError from e
    if packet.is_corrupt or tells_of_loss(log) or any(frame.is_corrupt for frame in frames):
        raise WindowError
    return frames
