"""Scene cuts: how unlike two neighbouring frames are, by small luma images."""

import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

THUMB = (32, 18)
"""Size of the luma thumbnails in which scene cuts are found."""


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
