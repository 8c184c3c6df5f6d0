"""What the clips of videos will take, judged by headers and packets: for the estimate of a plan, and nothing else.

The rates are CPU seconds of one core, measured with benchmarks/prep.py and with videos of 720p in each codec.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lps.manifests.arrays import Floats, Ints
from lps.pipeline.config.params import ALL_CLIPS, Params

COLUMNS = ("n_frames_promised", "key_distance", "width", "height", "codec")
"""Columns of `kept_probes.SCHEMA`."""

SECONDS_PER_MEGAPIXEL = {
    "png": 0.02,
    "h264": 0.0020,
    "hevc": 0.0020,
    "vp9": 0.0016,
    "vp8": 0.0014,
    "mjpeg": 0.0014,
    "av1": 0.0008,
    "mpeg4": 0.0005,
    "mpeg2video": 0.0005,
}
"""Decoded; by name of the codec. Others are taken as h264."""
HASH_FRAMES = 61
"""The first two seconds, whose hashes are taken, at the rate of most videos."""
LEAD_SHARE = {"h264": 0.6, "hevc": 0.6}
"""Share of the frames before a wanted one that decode: those that others refer to, with the usual B frames. Other
codecs: all."""
SECONDS_PER_FRAME = 0.0002
"""Decoded, whatever its size."""
SECONDS_PER_PACKET = 0.00015
"""Looked at by the probe and once more by the processing."""
SECONDS_PER_CLIP_FRAME = {"mtcnn": 0.0055, "retinaface-mobilenet": 0.0048, "retinaface-fan": 0.6}
"""Finding faces, alignment and images."""
SECONDS_PER_SHARED_CLIP_FRAME = 0.0015
"""Alignment, images and comparison of a fake that takes the faces of its original; it has them looked for on few."""
SECONDS_PER_VIDEO = 0.05
USUAL_SIZE = (1280, 720)
"""Where a header does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What some videos will take."""

    n_frames: int
    """Frames to decode."""
    core_seconds: float


def effort(videos: pa.Table, n_clips: Ints, params: Params, shares: NDArray[np.bool_] | None = None) -> Effort:
    """Estimate what `n_clips` clips of each video take; `videos` has COLUMNS.

    `shares` marks fakes that are expected to share the windows of their originals.
    """
    n_promised = _numbers(videos["n_frames_promised"], 0)
    share = _by_codec(videos["codec"], LEAD_SHARE, 1.0)
    frames = frames_to_decode(n_promised, _numbers(videos["key_distance"], 0), n_clips, params, lead_share=share)
    megapixels = _numbers(videos["width"], USUAL_SIZE[0]) * _numbers(videos["height"], USUAL_SIZE[1]) / 1e6
    rate = _by_codec(videos["codec"], SECONDS_PER_MEGAPIXEL, SECONDS_PER_MEGAPIXEL["h264"])
    per_frame = SECONDS_PER_CLIP_FRAME[params.localizer]
    looked_for = min(1, params.pair.face_frames / params.clip_frames)
    per_shared_frame = min(per_frame, SECONDS_PER_SHARED_CLIP_FRAME + looked_for * per_frame)
    n_shared = 0 if shares is None else int(n_clips[shares].sum())
    n_own = int(n_clips.sum()) - n_shared
    seconds = (
        float(frames @ (megapixels * rate + SECONDS_PER_FRAME))
        + float(n_promised.sum()) * SECONDS_PER_PACKET
        + params.clip_frames * (n_own * per_frame + n_shared * per_shared_frame)
        + len(frames) * SECONDS_PER_VIDEO
    )
    return Effort(n_frames=round(float(frames.sum())), core_seconds=seconds)


def frames_to_decode(
    n_promised: Floats, key_distance: Floats, n_clips: Ints, params: Params, *, lead_share: Floats
) -> Floats:
    """Return the frames that decode of each video, on average over the starts of its clips.

    A clip needs its own frames and, of those from the key frame before it on, `lead_share`. So do the frames of the
    hashes, unless they lie on that way. Where clips lie closer, as all clips do, one pass over the video serves them.
    """
    if params.decode.scan == "whole" or params.clips == ALL_CLIPS:
        return n_promised
    on_the_way = np.minimum(1, (2 * key_distance + 1) / np.maximum(n_promised, 1))  # the clip is after the first key
    lead = n_clips * key_distance + (1 - on_the_way) * HASH_FRAMES
    return np.asarray(np.minimum(n_promised, n_clips * params.clip_frames + lead_share * lead), np.float64)


def _numbers(column: pa.ChunkedArray, unknown: int) -> Floats:
    return np.asarray(pc.fill_null(pc.cast(column, pa.float64()), unknown), np.float64)


def _by_codec(codec: pa.ChunkedArray, values: dict[str, float], other: float) -> Floats:
    places = np.asarray(pc.fill_null(pc.index_in(codec, value_set=pa.array(list(values))), len(values)))
    return np.asarray(np.array([*values.values(), other])[places], np.float64)


def bytes_bound(params: Params) -> int:
    """Return an upper estimate of one clip's bytes in a shard, used to pack shards before any pixel is seen."""
    per_pixel = {"jpg": 0.6, "png": 2.0, "webp": 1.6}[params.codec]
    image = int(params.stored_px**2 * per_pixel)
    return params.clip_frames * (image + 1024) + 32 * 1024
