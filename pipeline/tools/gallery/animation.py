"""A clip as pictures for a page: its first frame, and all of it as an animated WebP."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from lps.manifests.errors import UnreadableError
from lps.manifests.pages.pictures import DECODE_ERRORS, JPEG_QUALITY, decode_frame, frame_members
from lps.manifests.schemas import Row
from lps.manifests.storage import Store

SIDE_PX = 112
MAX_FRAMES = 60
"""Frames of a clip that are shown; a longer one has every second, third, ... of its own."""
MAX_CLIP_BYTES = 256 << 20
"""Frames of a clip, as stored, above which it is none of ours."""
WEBP_QUALITY, WEBP_EFFORT = 50, 2
"""About 55 kB for 60 frames of 112 px; more effort costs twice the time for a tenth of the bytes."""
LEAST_MS, MOST_MS = 20, 10_000
"""Browsers show a frame of less than this for longer; and a page is no place to wait for a hole."""


@dataclass(frozen=True, slots=True)
class Animation:
    """What a page shows of a clip."""

    still: bytes
    """The first frame as JPEG."""
    moving: bytes
    """The clip as animated WebP, in its own time; a clip of one frame as one that stands."""


def animate(out: Store, shard_uri: str, clip: Row) -> Animation:
    """Return the pictures of a clip, a row of `clips`. Equal frames give equal bytes. Raises UnreadableError."""
    members = frame_members(clip["members"])
    if not members:
        raise UnreadableError("its manifest names no frames")
    step = -(-len(members) // MAX_FRAMES)
    members = members[::step]
    frames = _frames(out, shard_uri, members)
    still, moving = io.BytesIO(), io.BytesIO()
    frames[0].save(still, "JPEG", quality=JPEG_QUALITY, optimize=True)
    durations = durations_ms(clip["pts_ticks"] or (), clip["pts_end_s"] - clip["pts_start_s"], step, len(frames))
    frames[0].save(
        moving, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=WEBP_QUALITY,
        method=WEBP_EFFORT,
    )  # fmt: skip
    return Animation(still.getvalue(), moving.getvalue())


def _frames(out: Store, shard_uri: str, members: Sequence[Row]) -> list[Image.Image]:
    """Read the frames at once: they lie beside each other in the tar."""
    spans = [(int(member["offset"]), int(member["offset"]) + int(member["nbytes"])) for member in members]
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    if not 0 <= last - first <= MAX_CLIP_BYTES:
        raise UnreadableError(f"its frames have {last - first} bytes")
    data = out.read_range(shard_uri, first, last)
    if len(data) != last - first:
        raise UnreadableError(f"got {len(data)} bytes of its frames, its manifest says {last - first}")
    try:
        return [decode_frame(data[start - first : end - first], SIDE_PX) for start, end in spans]
    except DECODE_ERRORS as e:
        raise UnreadableError(f"cannot decode a frame: {' '.join(str(e).split())}") from e


def durations_ms(pts_ticks: Sequence[int], span_seconds: float, step: int, n: int) -> list[int]:
    """Return how long each of `n` frames is shown, every `step`-th of a clip whose time stamps are given.

    `span_seconds` is the time from the first time stamp to the last. Rounding does not add up. The last frame is shown
    as long as the one before.
    """
    ticks = list(pts_ticks)[::step]
    whole = pts_ticks[-1] - pts_ticks[0] if len(pts_ticks) > 1 else 0
    if n < 2 or len(ticks) != n or whole <= 0 or not 0 < span_seconds < float("inf"):
        return [40] * n
    at_ms = [round((tick - ticks[0]) / whole * span_seconds * 1000) for tick in ticks]
    shown = [min(max(b - a, LEAST_MS), MOST_MS) for a, b in zip(at_ms, at_ms[1:], strict=False)]
    return [*shown, shown[-1]]
