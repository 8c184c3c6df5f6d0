"""Five points to a 2x3 matrix to a 224x224 face.

Template: the five-point ArcFace template (Deng et al., 2019, 112 x 112 px), doubled to 224 px and scaled about the
centre of the output by `Params.template_scale`. The transform is the least-squares similarity (no reflection or shear),
solved in square pixels and written for source pixels, so that it also undoes a pixel aspect other than 1.

With a margin the image is larger, and the face lies in its inner square (`manifests/arrays.py`): the same pixels as
without, by the same matrix.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import ARCFACE_112, Floats, Square
from lps.manifests.codes import Code, Stage
from lps.manifests.errors import VideoFault
from lps.pipeline.video.frame import Frame

BOX_MARGIN = 1.3
"""Without alignment the crop is the box's square times this, the usual margin of the field."""


def template(out_px: int, scale: float) -> Floats:
    """Return the five template points, (5, 2), in output px."""
    points = ARCFACE_112 * (out_px / 112.0)
    centre = out_px / 2.0
    return (points - centre) * scale + centre


def similarity(points: Floats, target: Floats) -> Floats:
    """Return the 2x3 least-squares similarity that takes `points` (n, 2) to `target` (n, 2).

    As complex numbers the map is z -> a z + b, which is linear in a and b. Raises VideoFault E_LANDMARK when the points
    coincide or are not finite.
    """
    if not np.isfinite(points).all():
        raise VideoFault(Code.E_LANDMARK, Stage.ALIGN, "landmarks are not finite")
    z, w = points @ np.array([1, 1j]), target @ np.array([1, 1j])
    zc, wc = z - z.mean(), w - w.mean()
    spread = float((np.abs(zc) ** 2).sum())
    if spread < 1e-3:
        raise VideoFault(Code.E_LANDMARK, Stage.ALIGN, "landmarks coincide")
    a = (np.conj(zc) * wc).sum() / spread
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def output_scale(matrix: Floats) -> float:
    """Return how many output px one square source px becomes."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def align_matrix(points: Floats, aspect_xy: tuple[float, float], target: Floats) -> NDArray[np.float32]:
    """Return the 2x3 float32 matrix from source px to output px for five points (5, 2) in source px."""
    aspect = np.array(aspect_xy)
    square = similarity(points * aspect, target)
    return np.asarray(square * np.array([aspect[0], aspect[1], 1.0]), np.float32)


def crop_matrix(box_xyxy: Floats, aspect_xy: tuple[float, float], out_px: int) -> NDArray[np.float32]:
    """Return the 2x3 float32 matrix that crops the box (source px) to a square with BOX_MARGIN, without turning."""
    aspect = np.array(aspect_xy)
    low, high = box_xyxy[:2] * aspect, box_xyxy[2:] * aspect
    side = float((high - low).max()) * BOX_MARGIN
    if not np.isfinite(side) or side < 1.0:
        raise VideoFault(Code.E_ALIGN, Stage.ALIGN, "empty box")
    scale = out_px / side
    x, y = out_px / 2.0 - scale * (low + high) / 2.0
    return np.array([[scale * aspect[0], 0.0, x], [0.0, scale * aspect[1], y]], np.float32)


def outside_share(size: tuple[int, int], matrix: NDArray[np.float32], out_px: int) -> float:
    """Return the share, 0 to 1, of the output's pixels whose centres lie outside a frame of `size` (width, height) px.

    They show a reflection. Centres are at whole numbers, so that the frame reaches from -0.5 to its size less 0.5.
    """
    (a, b, x0), (c, d, y0) = cv2.invertAffineTransform(matrix.astype(np.float64))

    def share(u: NDArray[np.intp], v: NDArray[np.intp]) -> float:
        x, y = a * u + b * v + x0, c * u + d * v + y0
        inside = (x >= -0.5) & (x <= size[0] - 0.5) & (y >= -0.5) & (y <= size[1] - 0.5)
        return 1.0 - float(inside.mean())

    corners = np.array([0, out_px - 1])
    if share(corners, corners[:, None]) == 0:
        return 0.0  # what lies between them is inside, too
    v, u = np.ogrid[:out_px, :out_px]
    return share(u, v)


def warp(rgb: NDArray[np.uint8], matrix: NDArray[np.float32], square: Square) -> NDArray[np.uint8]:
    """Return the face of an image, (H, W, 3), with what lies around it: bilinear, borders reflected.

    The result is (n, n, 3) with n = `square.stored_px`. `matrix` leads to px of `square`, the inner square.
    """
    return _warped(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA), np.uint8), matrix, square)


def _warped(rgba: NDArray[np.uint8], matrix: NDArray[np.float32], square: Square) -> NDArray[np.uint8]:
    # four channels: OpenCV takes half as long as for three, and gives the same values
    face = _affine(rgba, matrix, square.side_px)
    if square.stored_px > square.side_px:
        # the inner square anew: OpenCV rounds places to 1/32 px, and by a moved matrix some would round elsewhere
        wide = _affine(rgba, _moved(matrix, square), square.stored_px)
        inside = slice(square.first_px, square.end_px)
        wide[inside, inside] = face
        face = wide
    return np.asarray(cv2.cvtColor(face, cv2.COLOR_RGBA2RGB), np.uint8)


def _affine(rgba: NDArray[np.uint8], matrix: Floats | NDArray[np.float32], side_px: int) -> NDArray[np.uint8]:
    size = (side_px, side_px)
    return np.asarray(cv2.warpAffine(rgba, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def _moved(matrix: NDArray[np.float32], square: Square) -> Floats:
    """Return the matrix to px of the whole image."""
    return np.asarray(matrix.astype(np.float64) + np.array([[0, 0, square.first_px]]))


def warp_frame(frame: Frame, matrix: NDArray[np.float32], square: Square) -> NDArray[np.uint8]:
    """Return `warp(frame.rgb(), matrix, square)`, converting only the part of the frame that is shown."""
    inverse = cv2.invertAffineTransform(matrix.astype(np.float64))
    low_px, high_px = -square.first_px, square.stored_px - square.first_px
    ends = np.array([[low_px, low_px], [high_px, low_px], [low_px, high_px], [high_px, high_px]])
    corners = ends @ inverse[:, :2].T + inverse[:, 2]
    # a pixel more for the neighbours that bilinear sampling takes, and one for rounding
    low, high = np.floor(corners.min(0)).astype(int) - 2, np.ceil(corners.max(0)).astype(int) + 2
    width, height = frame.size
    x0, x1 = _span(low[0], high[0], width)
    y0, y1 = _span(low[1], high[1], height)
    # in its place on an unwritten frame: a moved matrix would round elsewhere
    canvas = np.empty((height, width, 4), np.uint8)
    canvas[y0:y1, x0:x1] = cv2.cvtColor(frame.region(x0, y0, x1, y1), cv2.COLOR_RGB2RGBA)
    return _warped(canvas, matrix, square)


def _span(low: int, high: int, size: int) -> tuple[int, int]:
    """Return the pixels of an axis that `low` to `high` shows once its ends are reflected at 0 and `size`."""
    if low <= -size or high >= 2 * size:
        return 0, size  # reflected more than once
    return (
        max(0, min(low, 2 * size - high) if high > size else low),
        min(size, max(high, -low) if low < 0 else high),
    )
