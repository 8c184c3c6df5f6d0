"""Where the face is in an aligned frame, as outlines: from its landmarks, or from the template it was aligned to.

Coordinates are shares of the frame's side, so that they hold at any size.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import cv2
import numpy as np

from lps.manifests.arrays import ARCFACE_112, Floats, Square, square_of

Region = Literal["face", "forehead", "inner", "lower"]
"""`face`: brows to chin; `forehead`: with it; `inner`: brows to mouth; `lower`: nose bridge to chin."""
REGIONS: tuple[Region, ...] = get_args(Region)

USUAL_SCALE = 0.85
"""Scale of the template in the output of `lps-prep` (`template_scale`), for faces of which nothing else is known."""
N_DENSE = 68
JAW, BROWS, NOSE, EYES_AND_MOUTH = slice(0, 17), slice(17, 27), slice(27, 36), slice(36, 68)
NOSE_TIP = 30
"""Places of the usual 68 landmarks (iBUG)."""
FOREHEAD_RISE = 0.7
"""How far the forehead reaches above the brows, in distances of the brows from the tip of the nose."""

CHIN = ((21, 60), (23, 74), (28, 89), (36, 102), (46, 111), (56, 114))
OUTLINES: dict[Region, tuple[tuple[int, int], ...]] = {
    "face": ((20, 47), *CHIN, (25, 43), (33, 38), (44, 38)),
    "forehead": ((20, 47), *CHIN, (22, 34), (31, 22), (43, 16), (56, 14)),
    "inner": ((25, 43), (33, 38), (44, 38), (29, 58), (36, 92), (45, 100), (56, 102)),
    "lower": (*CHIN[1:], (28, 70), (50, 52)),
}
"""Left half of an average face in the 112 px of the five-point template, drawn on the mean of aligned faces."""
MIDDLE = 56


def points_of(values: Sequence[float]) -> Floats:
    """Return landmarks (n, 2) from a flat list of x and y in turn; (0, 2) for none."""
    return np.array(values, np.float64).reshape(-1, 2)


def points_in(points_xy: Floats, square: Square) -> Floats:
    """Return landmarks, in shares of the inner square of a stored image, in shares of the `square` that is cut."""
    if square.side_px == square.inner_px:
        return points_xy
    known = points_xy if len(points_xy) else (ARCFACE_112 / 112 - 0.5) * USUAL_SCALE + 0.5
    before = square_of(square.stored_px, square.inner_px).first_px - square.first_px
    return np.asarray((known * square.inner_px + before) / square.side_px, np.float64)


def outline(points_xy: Floats, region: Region) -> Floats:
    """Return the convex outline (k, 2) of a region of the face, in shares of the side.

    `points_xy` are 68 landmarks, five (eyes, nose, mouth corners), or none: (68, 2), (5, 2) or (0, 2).
    """
    corners = _of_dense(points_xy, region) if len(points_xy) == N_DENSE else _of_five(points_xy, region)
    return np.asarray(cv2.convexHull(corners.astype(np.float32))[:, 0], np.float64)


def _of_dense(points: Floats, region: Region) -> Floats:
    if region == "inner":
        return np.concatenate([points[BROWS], points[NOSE], points[EYES_AND_MOUTH]])
    if region == "lower":
        return np.concatenate([points[JAW][2:-2], points[NOSE], points[EYES_AND_MOUTH][12:]])
    if region == "face":
        return points
    rise = FOREHEAD_RISE * (points[BROWS].mean(0) - points[NOSE_TIP])
    return np.concatenate([points, points[BROWS] + rise])


def _of_five(points: Floats, region: Region) -> Floats:
    """Return the outline of the average face where the similarity of its five points to these takes it."""
    half = np.array(OUTLINES[region], np.float64)
    whole = np.concatenate([half, half * (-1, 1) + (2 * MIDDLE, 0)])
    target = points if len(points) else (ARCFACE_112 / 112 - 0.5) * USUAL_SCALE + 0.5
    z, w = ARCFACE_112 @ np.array([1, 1j]), target @ np.array([1, 1j])
    far = z - z.mean()
    turn = (np.conj(far) * (w - w.mean())).sum() / (np.abs(far) ** 2).sum()
    moved = turn * (whole @ np.array([1, 1j]) - z.mean()) + w.mean()
    return np.stack([moved.real, moved.imag], axis=1)
