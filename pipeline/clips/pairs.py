"""Whether a fake lines up with its original: the same pictures but for the face, at the same frames and places.

A swapped or driven face changes what lies inside a square around it; what lies outside is compared. Over the frames of
a window, small pictures tell whether another frame of the original fits better. On a few frames, larger pictures tell
by how much one is moved: the least-squares shift between them, from the gradients of one and the difference of both
(Lucas and Kanade, 1981), with a factor and an offset for brightness; of each alone, with an affine map.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Floats
from lps.manifests.codes import PairFallback
from lps.manifests.records import Clip, SharedWindow
from lps.pipeline.config.params import PairParams
from lps.pipeline.video.frame import Frame

THUMB_PX = 96
"""Longest side of the pictures of every frame: these tell shifts in time."""
STILL_PX = 640
"""Longest side of the pictures of a few frames: these tell shifts in space."""
N_STILLS = 3
FACE_MARGIN = 1.5
"""Side of the square that the comparison leaves out, in longer sides of the face's box."""
MIN_SHARE = 0.05
"""Share of the picture that must lie outside of it."""
STEPS = (-2, -1, 1, 2)
"""Frames of the original, counted from the same one, that must not fit better ..."""
STEP_RATIO = 1.05
"""... by more than this factor of the mismatch: where nothing moves, all fit alike."""
PART_STEP_RATIO = 1.2
"""The same for each third of the window: fewer frames, more noise."""
MIN_SHIFT_PX = 1.0
"""Shift in source px above which the two do not line up ..."""
MIN_STILL_SHIFT_PX = 0.3
"""... unless it is below this in px of a still, where noise alone gives as much."""
MIN_DISTORTION_PX = 0.5
"""The same for one still, with scale, rotation and shear."""
BLUR_PX = 1.0
JPEG_QUALITY = 95

Gray = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """What comparing the surroundings of two faces gave."""

    correlation: float | None
    """-1 to 1, mean over the frames of the window; None where too little is seen around the face."""
    code: PairFallback | None
    """Why the two do not line up; None if they do."""


def shared_window(run: Sequence[Frame], clips: Sequence[Clip]) -> SharedWindow:
    """Return what fakes need of a window of their original: its clips, without images, and pictures to compare."""
    thumbs = [frame.luma(THUMB_PX) for frame in run]
    return SharedWindow(
        clips=tuple(replace(clip, frames=()) for clip in clips),
        thumbs=_coded(".png", np.concatenate(thumbs)),
        stills=tuple(_coded(".jpg", run[k].luma(STILL_PX)) for k in still_places(len(run))),
    )


def still_places(n_frames: int) -> list[int]:
    """Return the offsets of the frames that are compared closely: the middles of equal parts."""
    return [(2 * k + 1) * n_frames // (2 * N_STILLS) for k in range(N_STILLS)]


def compare_background(window: SharedWindow, run: Sequence[Frame], params: PairParams) -> Background:
    """Compare the frames of a fake, as many as the window has, with those of its original."""
    boxes = np.array([box for clip in window.clips for box in clip.box_xyxy])
    thumbs = np.stack([frame.luma(THUMB_PX) for frame in run])
    originals = _gray(window.thumbs).reshape(thumbs.shape)
    around = _around(boxes, run[0].size, thumbs.shape[1:])
    if around.mean() < MIN_SHARE:
        return Background(correlation=None, code=PairFallback.P_NO_BACKGROUND)
    ours, theirs = _standardised(thumbs[:, around]), _standardised(originals[:, around])
    correlation = float((ours * theirs).mean())
    code = None
    if _fits_better_elsewhere(ours, theirs, params.min_background):
        code = PairFallback.P_SHIFTED
    elif correlation < params.min_background:
        code = PairFallback.P_BACKGROUND
    elif _is_moved(window, run, boxes):
        code = PairFallback.P_SHIFTED
    return Background(correlation=correlation, code=code)


def _fits_better_elsewhere(ours: Floats, theirs: Floats, min_correlation: float) -> bool:
    """Return whether the pictures of both, (n, px) each with mean 0 and variance 1, fit better some frames apart.

    Also where only a part of them does: a frame that is dropped or doubled on the way moves those after it.
    """
    reach = max(STEPS)
    inner = ours[reach : len(ours) - reach]
    if not len(inner):
        return False
    steps = (0, *STEPS)
    mismatch = np.stack(
        [1 - (inner * theirs[reach + step : len(theirs) - reach + step]).mean(axis=1) for step in steps]
    )
    parts = [(part, PART_STEP_RATIO) for part in np.array_split(mismatch, N_STILLS, axis=1) if part.shape[1]]
    for part, ratio in [(mismatch, STEP_RATIO), *parts]:
        of_steps = part.mean(axis=1)
        if of_steps[0] > ratio * of_steps.min() and 1 - of_steps.min() >= min_correlation:
            return True
    return False


def _is_moved(window: SharedWindow, run: Sequence[Frame], boxes: Floats) -> bool:
    """Return whether the stills of the fake are the original's, moved by too much, or one of them moved or distorted.

    All together give the shift least disturbed by noise. One at a time, with scale, rotation and shear, they show what
    the mean of all hides: pictures enlarged about their centre, and shifts of a part of the window.
    """
    products: list[Floats] = []
    scale = 1.0
    for k, data in zip(still_places(len(run)), window.stills, strict=True):
        frame = run[k]
        theirs, ours = (_blurred(still) for still in (_gray(data), frame.luma(STILL_PX)))
        scale = max(theirs.shape) / max(frame.size)
        around = _around(boxes, frame.size, theirs.shape)
        around[[0, -1]] = around[:, [0, -1]] = False  # no gradient there
        product, displacement = _displacement_products(ours, theirs, around)
        products.append(product)
        if displacement > max(MIN_SHIFT_PX * scale, MIN_DISTORTION_PX):
            return True
    together = np.sum(products, axis=0)[:4]
    shift = _solved(np.delete(together, np.s_[4:8], axis=1))[:2]
    return float(np.hypot(*shift)) > max(MIN_SHIFT_PX * scale, MIN_STILL_SHIFT_PX)


def _displacement_products(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], around: NDArray[np.bool_]
) -> tuple[Floats, float]:
    """Return the normal equations, (8, 9), of what moves one still to the other, and by how much, px of a still.

    Unknown are the shift in x and y, factor and offset of brightness, and four of an affine map. The displacement is
    the root of its mean square, pixels weighing as much as their gradients: where all is flat, none can be seen.
    """
    x, y = (axis[around] for axis in np.meshgrid(*(np.linspace(-1, 1, n) for n in theirs.shape[::-1])))
    dx = cv2.Sobel(theirs, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)[around].astype(np.float64)
    dy = cv2.Sobel(theirs, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)[around].astype(np.float64)
    light = theirs[around] - theirs[around].mean(dtype=np.float64)
    columns = np.stack([dx, dy, light, np.ones_like(dx), dx * x, dx * y, dy * x, dy * y], axis=1)
    miss = (ours - theirs)[around].astype(np.float64)
    product = columns.T @ np.column_stack([columns, miss])
    found = _solved(product)
    moved_x = found[0] + found[4] * x + found[5] * y
    moved_y = found[1] + found[6] * x + found[7] * y
    weight = dx**2 + dy**2
    total = float(weight.sum())
    displacement = float(np.sqrt((weight * (moved_x**2 + moved_y**2)).sum() / total)) if total > 0 else 0.0
    return product, displacement


def _solved(equations: Floats) -> Floats:
    """Return the least-squares solution of (n, n + 1) normal equations."""
    return np.asarray(np.linalg.lstsq(equations[:, :-1], equations[:, -1], rcond=None)[0], np.float64)


def _around(boxes: Floats, size: tuple[int, int], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which pixels of a picture of `shape` (h, w) show no face; boxes (n, 4) are px of a frame of `size`."""
    height, width = shape
    to_picture = np.array([width, height]) / size
    around = np.ones((height, width), np.bool_)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = FACE_MARGIN / 2 * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
    lows = np.floor((centres - half) * to_picture).astype(int).clip(0)
    highs = np.ceil((centres + half) * to_picture).astype(int).clip(0)
    for (x0, y0), (x1, y1) in zip(lows.tolist(), highs.tolist(), strict=True):
        around[y0:y1, x0:x1] = False
    return around


def _standardised(values: NDArray[np.uint8]) -> Floats:
    """Return (n, px) values with mean 0 and variance 1 in each of the n rows; 0 where all are alike."""
    centred = values - values.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    return np.asarray(centred / np.where(spread > 0, spread, 1), np.float64)


def _blurred(gray: Gray) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(gray.astype(np.float32), (0, 0), BLUR_PX), np.float32)


def _coded(kind: str, gray: Gray) -> bytes:
    return bytes(cv2.imencode(kind, gray, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if kind == ".jpg" else [])[1])


def _gray(data: bytes) -> Gray:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)
