"""The faces of the sample videos: two portraits out of installed packages, and the flickering forgery of a face.

Nothing here looks for a face. The portraits never change, so what a detector would say about them is written down.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import cv2
import numpy as np
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray
from PIL import Image as PillowImage
from skimage import data as skimage_data

from lps.manifests.arrays import Floats
from lps.pipeline.faces.detector import Image

FloatImage = NDArray[np.float32]
"""Colours 0 to 255, or pixel coordinates."""
Points = tuple[tuple[int, int], ...]
PortraitName = Literal["astronaut", "hopper"]

PORTRAITS: tuple[PortraitName, ...] = ("astronaut", "hopper")
"""Eileen Collins (scikit-image, 512x512) and Grace Hopper (matplotlib, 512x600), both public domain."""

_SILHOUETTES: dict[PortraitName, Points] = {
    "astronaut": (
        *((186, 31), (180, 42), (157, 59), (154, 69), (158, 103), (171, 115), (173, 124), (181, 132), (182, 148)),
        *((154, 152), (132, 168), (122, 184), (123, 205), (114, 207), (112, 216), (77, 236), (66, 247), (55, 268)),
        *((41, 295), (35, 316), (26, 376), (20, 392), (20, 409), (25, 431), (24, 459), (31, 494), (38, 501), (40, 511)),
        *((503, 511), (499, 479), (492, 467), (500, 459), (494, 453), (492, 422), (477, 385), (454, 362), (435, 352)),
        *((417, 346), (394, 345), (363, 349), (359, 329), (355, 303), (341, 267), (321, 253), (302, 234), (298, 220)),
        *((291, 208), (269, 185), (257, 174), (256, 158), (261, 148), (264, 137), (274, 131), (277, 124), (294, 108)),
        *((299, 91), (295, 59), (285, 41), (275, 32), (250, 20), (236, 17), (213, 23)),
    ),
    "hopper": (
        *((219, 32), (216, 43), (190, 52), (178, 71), (176, 85), (155, 106), (146, 106), (148, 167), (156, 182)),
        *((154, 210), (164, 236), (161, 268), (176, 290), (195, 299), (196, 325), (166, 345), (130, 356), (97, 364)),
        *((69, 375), (48, 388), (38, 416), (28, 427), (28, 460), (18, 527), (12, 599), (506, 599), (506, 435)),
        *((491, 394), (460, 377), (431, 370), (355, 337), (330, 314), (334, 298), (353, 285), (357, 264), (366, 226)),
        *((373, 200), (370, 136), (368, 104), (364, 90), (352, 87), (349, 76), (336, 58), (312, 45), (286, 31)),
        *((250, 24), (228, 32)),
    ),
}
"""Outline of the person, in pixels of the portrait: OpenCV's GrabCut started from a rough polygon, its contour
thinned by approxPolyDP (1.6 px), then a few points corrected by eye at hair and collar."""

_FACES: dict[PortraitName, Points] = {
    "astronaut": (
        *((181, 92), (181, 120), (184, 140), (190, 160), (204, 174), (224, 179), (244, 175), (258, 160)),
        *((266, 140), (269, 115), (269, 95), (262, 81), (240, 82), (205, 82)),
    ),
    "hopper": (
        *((175, 152), (173, 200), (176, 244), (190, 289), (213, 320), (264, 333), (310, 320), (332, 284)),
        *((346, 244), (352, 200), (350, 157), (305, 140), (218, 140)),
    ),
}
"""Convex outline of the face from brow to chin, in pixels of the portrait: read off by eye around the box and the five
points that MTCNN gives (astronaut: box 181,62,268,172, eyes 205,102 and 247,104; Hopper: box 174,120,356,340, eyes
222,192 and 310,186)."""

MATTE_TRIM_PX = 1
"""Taken off the outline all round: the edge pixels carry light of the studio's backdrop, which would show as a halo."""
MATTE_BLUR_PX = 1.5
"""Softens the cut around the person: a hard edge would shimmer when it moves by parts of a pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Portrait:
    """A person cut out of a still picture. Arrays are read-only."""

    rgba: Image
    """(H, W, 4): RGB and the matte, 255 on the person."""
    face: Floats
    """(n, 2): convex outline of the face, brow to chin, x and y in pixels of `rgba`."""

    @property
    def face_height(self) -> float:
        """Height of the face, brow to chin, in pixels."""
        return float(np.ptp(self.face[:, 1]))

    @property
    def face_centre(self) -> Floats:
        """(2,): middle of the face's box, in pixels."""
        return np.asarray((self.face.min(axis=0) + self.face.max(axis=0)) / 2, np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flicker:
    """How far a forged face strays from the real one, drawn anew for every frame. Lengths are in face heights.

    The sizes stay below those of the paper (shifts of 3 %, scales of 5 %): every frame looks like a face, and it is the
    change from frame to frame that gives the forgery away.
    """

    shift: float = 0.015
    """Largest shift, each way."""
    scale: float = 0.03
    """Largest change of size."""
    turn_deg: float = 2.0
    """Largest in-plane turn."""
    elastic: float = 0.012
    """Largest displacement of the elastic warp, whose control grid is `ELASTIC_GRID` points square."""
    hue_deg: float = 7.0
    """Largest turn of the hue."""
    saturation: float = 0.18
    """Largest relative change of the saturation."""
    gain: float = 0.09
    """Largest relative change of the brightness."""
    outline: float = 0.03
    """Largest displacement of a point of the blending outline."""
    softness: float = 0.045
    """Standard deviation of the blur of the blending mask."""


FLICKER = Flicker()
ELASTIC_GRID = 5
"""Coarse, so that features bend but do not break."""


@cache
def load_portrait(name: PortraitName, *, mirrored: bool = False) -> Portrait:
    """Return the portrait `name` with its matte, left and right swapped if `mirrored`. Reads no network.

    Raises:
        ValueError: no such portrait.
    """
    if name not in PORTRAITS:
        raise ValueError(f"no portrait {name!r}: choose from {', '.join(PORTRAITS)}")
    rgb = _astronaut() if name == "astronaut" else _hopper()
    silhouette = np.zeros(rgb.shape[:2], np.uint8)
    cv2.fillPoly(silhouette, [np.array(_SILHOUETTES[name], np.int32)], (255,))
    matte = cv2.erode(silhouette, np.ones((3, 3), np.uint8), iterations=MATTE_TRIM_PX)
    rgba = np.dstack([rgb, cv2.GaussianBlur(matte, (0, 0), MATTE_BLUR_PX)]).astype(np.uint8)
    face = np.array(_FACES[name], np.float64)
    if mirrored:
        rgba = np.ascontiguousarray(rgba[:, ::-1])
        face[:, 0] = rgb.shape[1] - 1 - face[:, 0]
    for array in (rgba, face):
        array.setflags(write=False)
    return Portrait(rgba=rgba, face=face)


def _astronaut() -> Image:
    # One of the pictures inside scikit-image's wheel: it is found there before a download is thought of.
    read: Callable[[], Image] = skimage_data.astronaut
    return read()


def _hopper() -> Image:
    with PillowImage.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as picture:
        return np.asarray(picture.convert("RGB"), np.uint8)


def forge_face(frame: Image, face: Floats, rng: np.random.Generator, flicker: Flicker = FLICKER) -> Image:
    """Return `frame` with its face replaced by a warped, recoloured copy of itself behind a soft mask.

    This is the idea of Self-Blended Images (Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR
    2022): source and target of the swap are the same picture, so that only the traces of the swap remain. There one
    still picture is made; here all sizes are drawn anew for each frame, and the forgery flickers.

    Args:
        frame: (H, W, 3) RGB; left as it is.
        face: (n, 2) convex outline of the face in pixels of the frame; may lie partly or wholly outside it.
        rng: gives this frame's sizes.
        flicker: bounds of the sizes.
    """
    height = float(np.ptp(face[:, 1]))
    outline = face + rng.uniform(-1, 1, face.shape) * flicker.outline * height
    margin = 4 * flicker.softness * height  # the blurred mask has faded out there
    limits = np.array(frame.shape[1::-1])
    left, top = np.clip(np.floor(outline.min(axis=0) - margin).astype(int), 0, limits)
    right, bottom = np.clip(np.ceil(outline.max(axis=0) + margin).astype(int), 0, limits)
    out = frame.copy()
    if right <= left or bottom <= top:
        return out
    crop = frame[top:bottom, left:right]
    map_x, map_y = _jitter_maps(crop.shape[:2], height, rng, flicker)
    copy = cv2.remap(crop, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    recoloured = _recolour(copy.astype(np.float32), rng, flicker)
    mask = np.zeros(crop.shape[:2], np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(outline - (left, top)).astype(np.int32)), (1.0,))
    mask = cv2.GaussianBlur(mask, (0, 0), flicker.softness * height).astype(np.float32)
    out[top:bottom, left:right] = np.clip(np.rint(crop + mask[..., None] * (recoloured - crop)), 0, 255)
    return out


def _jitter_maps(
    shape: tuple[int, ...], face_height: float, rng: np.random.Generator, flicker: Flicker
) -> tuple[FloatImage, FloatImage]:
    """Draw where each pixel of the copy comes from: a small similarity about the middle, then an elastic part."""
    shift = rng.uniform(-1, 1, 2) * flicker.shift * face_height
    scale = 1 + rng.uniform(-1, 1) * flicker.scale
    turn = np.deg2rad(rng.uniform(-1, 1) * flicker.turn_deg)
    grid = rng.uniform(-1, 1, (ELASTIC_GRID, ELASTIC_GRID, 2)) * flicker.elastic * face_height
    height, width = shape
    elastic = cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    x, y = np.meshgrid(np.arange(width) - width / 2, np.arange(height) - height / 2)
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    map_x = cos * x - sin * y + width / 2 + shift[0] + elastic[..., 0]
    map_y = sin * x + cos * y + height / 2 + shift[1] + elastic[..., 1]
    return map_x.astype(np.float32), map_y.astype(np.float32)


def _recolour(rgb: FloatImage, rng: np.random.Generator, flicker: Flicker) -> FloatImage:
    """Draw a turn of the hue and a change of saturation and brightness; return the colours, 0 to 255."""
    turn, saturation, gain = rng.uniform(-1, 1, 3) * (flicker.hue_deg, flicker.saturation, flicker.gain)
    hsv = cv2.cvtColor(rgb / np.float32(255), cv2.COLOR_RGB2HSV)  # hue in degrees, the others 0 to 1
    hsv = (hsv + (turn, 0, 0)) * (1, 1 + saturation, 1 + gain)
    hsv[..., 0] %= 360
    np.minimum(hsv[..., 1:], 1, out=hsv[..., 1:])
    return np.asarray(cv2.cvtColor(hsv.astype(np.float32), cv2.COLOR_HSV2RGB) * 255, np.float32)
