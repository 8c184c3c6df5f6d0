"""Self-blends: a real clip blended with a changed copy of itself inside the face. A fake without a forger.

After SBI (Shiohara and Yamasaki, CVPR 2022, arXiv 2204.08376): a mask from the landmarks, moved, bent and blurred; the
copy inside it, or what lies around it, gets other colours and another sharpness; the copy is moved a little. As in
FakeSTormer (arXiv 2501.01184) one set of parameters is drawn for a clip; half of the clips tremble besides.
"""

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Floats, Pixels
from lps.model.data.changes.augment import ClipChange, Draws, apply_colours, colour_matrix, mean_luma, recompressed
from lps.model.data.changes.face_region import REGIONS, Region, outline

Texture = Literal["none", "resize", "blur", "sharpen"]

UNIT_PX = 112.0
"""Lengths in px below are of a frame of this side; they grow with it."""
POINT_PX = 2.0
"""Largest displacement of a corner of the mask along each axis."""
BEND_GRID = 5
BEND_PX = (0.5, 4.0)
EDGE_PX = (0.6, 6.0)
"""Deviation of the Gaussian that softens the mask."""
RATIOS = (0.25, 0.5, 0.75, 1.0)
SHIFT, SCALE, TURN_DEGREES = 0.03, 0.05, 3.0
"""Largest movement of the copy: share of the side along each axis, share of its size, angle."""
LIGHT, TINT, HUE = 0.2, 12.0, 0.03
"""Changed colours: factors from 1 minus to 1 plus this, largest offset of a channel in levels, share of a turn."""
TEXTURES: tuple[Texture, ...] = ("resize", "blur", "sharpen", "sharpen", "none")
RESIZE, BLUR_PX, SHARPEN = (1.25, 3.0), (0.3, 1.0), (0.5, 2.0)
JPEG_SHARE, JPEG_QUALITY = 0.4, (40, 95)
TREMBLE_SHARE = 0.5
TREMBLE_PX, TREMBLE_LIGHT, TREMBLE_RATIO = (0.1, 0.8), 0.03, 0.15
"""Trembling clips: range of the largest displacement of the copy in a frame, largest change of its light and of
the ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfBlend:
    """What is drawn for one clip."""

    region: Region
    corners_px: Floats
    """(64, 2): displacements of the corners of the mask, in turn."""
    bend_px: Floats
    """(5, 5, 2): displacements of the mask at the points of a grid."""
    edge_px: float
    ratio: float
    """Largest weight of the copy."""
    changes_copy: bool
    """Whether the copy is changed, or what lies around it."""
    colour: ClipChange
    tint: tuple[float, float, float]
    """Added to the channels."""
    texture: Texture
    strength: float
    """Strength of the texture: factor, deviation in px or share."""
    jpeg_quality: int | None
    shift: tuple[float, float]
    scale: float
    turn_degrees: float
    tremble: Floats
    """(frames, 4): right and down in px, change of the light and of the ratio, of every frame."""


N_CORNERS = 64
"""More than any outline has."""


def blend_draws(draws: Draws) -> Draws:
    """Return the draws of a clip's self-blend, apart from those of its augmentation, which its original shares."""
    return replace(draws, subject=f"{draws.subject}/self-blend")


def draw_blend(draws: Draws, n_frames: int) -> SelfBlend:
    """Draw the self-blend of a clip of so many frames."""
    texture = TEXTURES[draws.whole("texture", 0, len(TEXTURES) - 1)]
    low, high = {"resize": RESIZE, "blur": BLUR_PX, "sharpen": SHARPEN, "none": (0.0, 0.0)}[texture]
    bend = draws.between("bend", *BEND_PX)
    quality = draws.whole("blend quality", *JPEG_QUALITY)
    colour = ClipChange(
        flip=False,
        right_px=0,
        down_px=0,
        brightness=draws.between("blend brightness", 1 - LIGHT, 1 + LIGHT),
        contrast=draws.between("blend contrast", 1 - LIGHT, 1 + LIGHT),
        saturation=draws.between("blend saturation", 1 - LIGHT, 1 + LIGHT),
        hue_turn=draws.between("blend hue", -HUE, HUE),
    )
    red, green, blue = (draws.between(f"tint {name}", -TINT, TINT) for name in ("red", "green", "blue"))
    return SelfBlend(
        region=REGIONS[draws.whole("region", 0, len(REGIONS) - 1)],
        corners_px=POINT_PX * draws.signed("corners", N_CORNERS, 2),
        bend_px=bend * draws.signed("grid", BEND_GRID, BEND_GRID, 2),
        edge_px=draws.between("edge", *EDGE_PX),
        ratio=RATIOS[draws.whole("ratio", 0, len(RATIOS) - 1)],
        changes_copy=draws.unit("side") < 0.5,
        colour=colour,
        tint=(red, green, blue),
        texture=texture,
        strength=draws.between("strength", low, high),
        jpeg_quality=quality if draws.unit("blend jpeg") < JPEG_SHARE else None,
        shift=(draws.between("shift right", -SHIFT, SHIFT), draws.between("shift down", -SHIFT, SHIFT)),
        scale=draws.between("scale", 1 - SCALE, 1 + SCALE),
        turn_degrees=draws.between("turn", -TURN_DEGREES, TURN_DEGREES),
        tremble=_draw_tremble(draws, n_frames),
    )


def _draw_tremble(draws: Draws, n_frames: int) -> Floats:
    if draws.unit("trembles") >= TREMBLE_SHARE:
        return np.zeros((n_frames, 4))
    px = draws.between("tremble", *TREMBLE_PX)
    return draws.signed("frames", n_frames, 4) * (px, px, TREMBLE_LIGHT, TREMBLE_RATIO)


def apply_blend(frames: Pixels, points_xy: Floats, blend: SelfBlend) -> Pixels:
    """Return the self-blend of (n, H, H, 3) RGB frames; `points_xy` are landmarks as `outline` takes them."""
    side = frames.shape[1]
    changed = _changed(frames, blend, side / UNIT_PX)
    copy, around = (changed, frames) if blend.changes_copy else (frames, changed)
    mask = blend_mask(side, points_xy, blend)
    out = np.empty_like(frames)
    for k, (right, down, light, ratio) in enumerate(blend.tremble):
        moved = cv2.warpAffine(
            copy[k],
            _movement(blend, side, (right, down)),
            (side, side),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )
        if light:
            moved = cv2.convertScaleAbs(moved, alpha=1 + light)
        weight = mask * np.float32(1 + ratio * (blend.ratio < 1))
        cv2.blendLinear(moved, around[k], weight, 1 - weight, dst=out[k])
    return out


def blend_mask(side: int, points_xy: Floats, blend: SelfBlend) -> NDArray[np.float32]:
    """Return the weight of the copy, (side, side), from 0 to `blend.ratio`."""
    unit = side / UNIT_PX
    corners = outline(points_xy, blend.region) * side
    corners = corners + blend.corners_px[: len(corners)] * unit
    mask = np.zeros((side, side), np.float32)
    cv2.fillPoly(mask, [np.round(corners * 16).astype(np.int32)], (1.0,), cv2.LINE_8, shift=4)
    bend = cv2.resize((blend.bend_px * unit).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    right, down = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    bent = cv2.remap(mask, right + bend[..., 0], down + bend[..., 1], cv2.INTER_LINEAR)
    soft = cv2.GaussianBlur(bent, (0, 0), blend.edge_px * unit)
    return np.asarray(np.clip(soft, 0, 1) * blend.ratio, np.float32)


def _movement(blend: SelfBlend, side: int, tremble_px: tuple[float, float]) -> Floats:
    """Return the 2x3 matrix that moves the copy in one frame, about the middle."""
    middle = ((side - 1) / 2, (side - 1) / 2)
    matrix = np.asarray(cv2.getRotationMatrix2D(middle, blend.turn_degrees, blend.scale), np.float64)
    matrix[:, 2] += np.array(blend.shift) * side + np.array(tremble_px) * side / UNIT_PX
    return matrix


def _changed(frames: Pixels, blend: SelfBlend, unit: float) -> Pixels:
    """Return all frames with other colours, another sharpness and, by the draw, re-compressed."""
    matrix = colour_matrix(blend.colour, mean_luma(frames))
    matrix[:, 3] += blend.tint
    out = apply_colours(frames, matrix)
    if blend.texture != "none":
        out = np.stack([_textured(frame, blend, unit) for frame in out])
    return out if blend.jpeg_quality is None else recompressed(out, blend.jpeg_quality)


def _textured(frame: Pixels, blend: SelfBlend, unit: float) -> Pixels:
    height, width = frame.shape[:2]
    if blend.texture == "resize":
        small = (max(1, round(width / blend.strength)), max(1, round(height / blend.strength)))
        down = cv2.resize(frame, small, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(down, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    if blend.texture == "blur":
        return np.asarray(cv2.GaussianBlur(frame, (0, 0), blend.strength * unit), np.uint8)
    soft = cv2.GaussianBlur(frame, (0, 0), unit)
    return np.asarray(cv2.addWeighted(frame, 1 + blend.strength, soft, -blend.strength, 0), np.uint8)
