"""Augmentation: drawn once per clip, applied alike to all of its frames.

A draw is a function of (seed, epoch, what it is drawn for) and of nothing else, so that it depends neither on the
number of processes nor on where a killed run began again. A real clip and its fake can share one draw.
"""

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from lps.manifests.arrays import Floats, Pixels
from lps.manifests.canonical import unit_interval

Augmentation = Literal["none", "light", "strong"]
"""`light`: flip and shift, which keep every pixel's value; `strong`: colour jitter and re-compression besides."""

FLIP_SHARE = 0.5
JPEG_SHARE = 0.5
"""Share of the clips; the others keep their own compression."""
JPEG_QUALITY = (40, 95)
SHIFT_PX = 4
"""Largest shift along each axis; edges are repeated."""
BRIGHTNESS = CONTRAST = SATURATION = 0.2
"""Factors are drawn from 1 minus to 1 plus this."""
HUE_TURN = 0.02
"""Share of the full circle, to either side: skin stays skin."""
LUMA = np.array([0.299, 0.587, 0.114])
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


@dataclass(frozen=True, slots=True)
class Draws:
    """A source of numbers in [0, 1), each with a name of its own."""

    seed: int
    epoch: int
    subject: str
    """What is drawn for: a sample's key, or that of its partner."""

    def unit(self, name: str) -> float:
        """Return the number of this name."""
        return unit_interval("lps-clip/v1", str(self.seed), str(self.epoch), self.subject, name)

    def between(self, name: str, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * self.unit(name)

    def whole(self, name: str, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return low + int(self.unit(name) * (high - low + 1))

    def signed(self, name: str, *shape: int) -> Floats:
        """Return an array of numbers in [-1, 1)."""
        n = int(np.prod(shape))
        return 2 * np.array([self.unit(f"{name}/{k}") for k in range(n)], np.float64).reshape(shape) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipChange:
    """What is done to every frame of a clip."""

    flip: bool
    right_px: int
    down_px: int
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue_turn: float = 0.0
    jpeg_quality: int | None = None
    """Quality of the re-compression; None for none."""


def draw_change(draws: Draws, kind: Augmentation = "strong") -> ClipChange:
    """Draw the change of one clip."""
    again = draws.unit("jpeg") < JPEG_SHARE
    still = ClipChange(
        flip=draws.unit("flip") < FLIP_SHARE,
        right_px=draws.whole("right", -SHIFT_PX, SHIFT_PX),
        down_px=draws.whole("down", -SHIFT_PX, SHIFT_PX),
    )
    if kind == "light":
        return still
    return replace(
        still,
        brightness=draws.between("brightness", 1 - BRIGHTNESS, 1 + BRIGHTNESS),
        contrast=draws.between("contrast", 1 - CONTRAST, 1 + CONTRAST),
        saturation=draws.between("saturation", 1 - SATURATION, 1 + SATURATION),
        hue_turn=draws.between("hue", -HUE_TURN, HUE_TURN),
        jpeg_quality=draws.whole("quality", *JPEG_QUALITY) if again else None,
    )


def apply_change(frames: Pixels, change: ClipChange) -> Pixels:
    """Return (n, H, W, 3) RGB frames of the same shape, all changed alike."""
    moved = _moved(frames, change)
    if (change.brightness, change.contrast, change.saturation, change.hue_turn) == (1.0, 1.0, 1.0, 0.0):
        return moved if change.jpeg_quality is None else recompressed(moved, change.jpeg_quality)
    coloured = apply_colours(moved, colour_matrix(change, mean_luma(moved)))
    return coloured if change.jpeg_quality is None else recompressed(coloured, change.jpeg_quality)


def mean_luma(frames: Pixels) -> float:
    """Return the mean light of a clip, 0 to 255; a mean per frame would flicker."""
    return float(np.dot(cv2.mean(frames.reshape(-1, frames.shape[2], 3))[:3], LUMA))


def apply_colours(frames: Pixels, matrix: Floats) -> Pixels:
    """Return (n, H, W, 3) frames with every pixel's colour changed by a 3x4 matrix."""
    return np.asarray(cv2.transform(frames.reshape(-1, frames.shape[2], 3), matrix), np.uint8).reshape(frames.shape)


def colour_matrix(change: ClipChange, about: float) -> Floats:
    """Return brightness, then contrast about the light `about`, then saturation and hue as one 3x4 matrix."""
    turn = 2 * np.pi * change.hue_turn
    rotation = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    chroma = np.diag([1.0, change.saturation, change.saturation])
    matrix = np.linalg.inv(TO_YIQ) @ rotation @ chroma @ TO_YIQ
    gain = change.brightness * change.contrast
    offset = (1 - change.contrast) * change.brightness * about
    return np.column_stack([gain * matrix, offset * matrix.sum(1)])


def _moved(frames: Pixels, change: ClipChange) -> Pixels:
    height, width = frames.shape[1:3]
    top, left = SHIFT_PX - change.down_px, SHIFT_PX - change.right_px
    out = np.empty_like(frames)
    for k, frame in enumerate(frames):
        wide = cv2.copyMakeBorder(frame, SHIFT_PX, SHIFT_PX, SHIFT_PX, SHIFT_PX, cv2.BORDER_REPLICATE)
        cut = wide[top : top + height, left : left + width]
        if change.flip:
            cv2.flip(cut, 1, dst=out[k])
        else:
            out[k] = cut
    return out


def recompressed(frames: Pixels, quality: int) -> Pixels:
    """Return (n, H, W, 3) RGB frames as they come out of JPEG files of a quality."""
    out = np.empty_like(frames)
    for k, frame in enumerate(frames):
        _, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        again = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert again is not None  # mypy: it was just encoded
        cv2.cvtColor(again, cv2.COLOR_BGR2RGB, dst=out[k])
    return out
