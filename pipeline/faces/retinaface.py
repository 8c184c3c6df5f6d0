"""RetinaFace (Deng et al., 2020): boxes and five points in one pass, with either of two published networks.

`mobilenet` is MobileNet-0.25 as face-alignment carries it: BGR minus channel means. (That package feeds it RGB in the
same place, which costs score; this module turns the channels.) `resnet50` is the network of retinaface-pytorch:
ImageNet-normalised RGB. Anchors and box coding are the same, and only what passes the score is decoded.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Floats
from lps.pipeline.faces.anchors import ANCHOR_SIDES, Candidates, FindCandidates, anchors_of, decoded
from lps.pipeline.faces.detector import CROP_MIN_FACE_SHARE, Faces, Image, no_faces, rounded_faces
from lps.pipeline.faces.suppression import best_boxes

SIDE_MULTIPLE = 32
"""Sides of the input that are not multiples of the last stride give maps that do not add up."""
LEVELS = (2, 3)
"""Levels of the pyramid, the coarsest ones, that images are searched with: crops around a known face, and others."""
_BGR_MEANS = np.array([[[104.0]], [[117.0]], [[123.0]]], np.float32)


class RetinaFaceLocalizer:
    """Finds faces with one of the two networks.

    Candidates need a score above `min_score`; an overlap (IoU) above `max_overlap` with a better one suppresses them.
    """

    def __init__(self, network: FindCandidates, *, min_score: float = 0.5, max_overlap: float = 0.4) -> None:
        self._candidates = network
        self._min_score = min_score
        self._max_overlap = max_overlap
        self._anchors: dict[tuple[int, int, int], Floats] = {}

    def detect(self, images: NDArray[np.uint8], *, dense: bool) -> list[Faces]:
        """Find the faces of `images`, (B, H, W, 3) RGB uint8. The five points are the network's own, `dense` or not.

        With `dense` the finest level of the pyramid, for small faces, is left out where CROP_MIN_FACE_SHARE allows it.
        Raises ValueError if H or W is not a multiple of 32.
        """
        require_images(images)
        height, width = images.shape[1:3]
        if height % SIDE_MULTIPLE or width % SIDE_MULTIPLE:
            raise ValueError(f"sides must be multiples of {SIDE_MULTIPLE}, got {images.shape = }")
        levels = 2 if dense and min(height, width) * CROP_MIN_FACE_SHARE >= ANCHOR_SIDES[1][0] else 3
        anchors = self.anchors(height, width, levels)
        found = self._candidates(images, levels, self._min_score)
        return [self._faces(one, anchors, width, height) for one in found]

    def anchors(self, height: int, width: int, levels: int) -> Floats:
        """Return the anchors as (centre x, centre y, width, height) in shares of the image, (anchors, 4)."""
        key = (height, width, levels)
        if key not in self._anchors:
            self._anchors[key] = anchors_of(height, width, levels)
        return self._anchors[key]

    def _faces(self, found: Candidates, anchors: Floats, width: int, height: int) -> Faces:
        if len(found.anchors) == 0:
            return no_faces()
        # float64 from here on: few rows, and the same on every device
        boxes, points = decoded(found.codes.astype(np.float64), anchors[found.anchors])
        boxes, points = boxes * [width, height, width, height], points * [width, height]
        usable = np.isfinite(boxes).all(axis=1) & np.isfinite(points).all(axis=(1, 2))
        boxes, points, scores = boxes[usable], points[usable], found.scores[usable].astype(np.float64)
        kept = best_boxes(boxes, scores, self._max_overlap)
        return rounded_faces(boxes[kept], scores[kept], points[kept])


class OnnxRetinaFace:
    """MobileNet-0.25 with ONNX Runtime, on one thread of a CPU, an image at a time; `graphs` are those of LEVELS."""

    def __init__(self, graphs: Sequence[bytes]) -> None:
        from lps.pipeline.faces.onnx_session import cpu_session

        self._run = dict(zip(LEVELS, map(cpu_session, graphs), strict=True))

    def __call__(self, images: NDArray[np.uint8], levels: int, min_score: float) -> list[Candidates]:
        """Return the candidates of each image."""
        return [self._of_image(image, levels, min_score) for image in images]

    def _of_image(self, image: Image, levels: int, min_score: float) -> Candidates:
        bgr = np.ascontiguousarray(image.transpose(2, 0, 1)[::-1], np.float32) - _BGR_MEANS
        heads = self._run[levels](bgr[None])[0][0]
        with np.errstate(over="ignore"):  # a score of 0
            scores = 1 / (1 + np.exp(heads[:, 0] - heads[:, 1]))
        anchors = np.flatnonzero(scores > min_score)
        return Candidates(anchors, scores[anchors], heads[anchors, 2:])


def require_images(images: NDArray[np.uint8]) -> None:
    """Raise ValueError unless `images` are (B, H, W, 3) uint8."""
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be (B, H, W, 3) uint8, got {images.shape = }, {images.dtype = }")
