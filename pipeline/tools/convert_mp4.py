"""A clip as an MP4 file: lossless H.264 with the recorded time stamps, the same bytes every time."""

import io
from collections.abc import Sequence
from fractions import Fraction

import av

from lps.pipeline.clips.encode import RGB

X264 = {
    "preset": "veryfast",
    # Lossless, in RGB: profile High 4:4:4 Predictive. What comes out are the pixels of the stored images.
    "qp": "0",
    # One thread of every kind, no macroblock tree: see `demo_videos.X264`. No B-frames: times begin at 0 without a list
    # of edits.
    "x264-params": "threads=1:lookahead-threads=1:sliced-threads=0:mbtree=0:bframes=0",
    "flags": "+bitexact",
}
ONE_FRAME_FPS = Fraction(25)
"""Rate of a clip of one frame, whose time stamps tell none."""
MAX_DENOMINATOR = 1 << 16


def encode_mp4(images: Sequence[RGB], ticks: Sequence[int], tick: Fraction, fps: Fraction | None) -> bytes:
    """Return (H, W, 3) RGB images of one size as the bytes of an MP4 file.

    Args:
        ticks: time stamp of each image, in units of `tick` seconds; the first is shown at 0.
        fps: mean rate, frames per second, that the stream tells.

    Raises:
        ValueError: time stamps that do not rise, or images of several sizes.
        av.FFmpegError: the encoder or the container takes them otherwise not.
    """
    if any(b <= a for a, b in zip(ticks, ticks[1:], strict=False)):
        raise ValueError("its time stamps do not rise")
    if len({image.shape for image in images}) != 1:
        raise ValueError("its images have several sizes")
    rate = (fps or ONE_FRAME_FPS).limit_denominator(MAX_DENOMINATOR)
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264rgb", rate=rate, options=X264)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "rgb24"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = stream.time_base = tick
        for image, at in zip(images, ticks, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = at - ticks[0], tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return sink.getvalue()
