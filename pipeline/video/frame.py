"""One decoded frame: where it stands in its video, and its pixels in RGB, upright, whole, in part or small."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

from lps.pipeline.video.tone_map import ToneMap

PLANAR_8BIT = ("yuv420p", "yuvj420p")
CELL = 32
UNSPECIFIED = 2
"""Code point of H.273 for a color that the stream does not name."""
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

    def luma(self, longest_px: int) -> NDArray[np.uint8]:
        """Return the frame in gray with its longest side at `longest_px` (never enlarged), pixels as stored, (h, w).

        For comparing videos of one size: quick, and no more exact than that needs.
        """
        width, height = self.native.width, self.native.height
        scale = min(1.0, longest_px / max(width, height))
        size = (max(2, round(width * scale)), max(2, round(height * scale)))
        if self.native.format.name in PLANAR_8BIT:
            plane = self.native.planes[0]
            pixels = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]  # a buffer
            gray = cv2.resize(pixels[:height, :width], size, interpolation=cv2.INTER_AREA)
        else:
            gray = cv2.cvtColor(self._shown(self._converted(self.native, size)), cv2.COLOR_RGB2GRAY)
        return _upright(np.asarray(gray, np.uint8), self.rotation)

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
