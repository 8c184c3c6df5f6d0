"""What a face detector gives, and the one verb that every localizer offers."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Floats

Image = NDArray[np.uint8]

GRID = 16.0
"""Boxes and points are rounded to 1/16 px: far below their error, far above the noise between kernels."""
CROP_MIN_FACE_SHARE = 0.3
"""In a crop around a known face, faces below this share of its side are somebody else's, and not looked for."""


@dataclass(frozen=True, slots=True)
class Faces:
    """All faces of one image, best score first, in pixels of that image (x to the right, y down)."""

    boxes_xyxy: Floats
    """(n, 4)."""
    scores: Floats
    """(n,), 0 to 1."""
    points: Floats
    """(n, 5, 2): left eye, right eye (as seen in the image), nose tip, left and right mouth corner."""
    points68: Floats | None = None
    """(n, 68, 2) in the order of 300-W, nan for faces without; None where no face has them."""

    def __post_init__(self) -> None:
        n = len(self.scores)
        dense = (n, 68, 2) if self.points68 is None else self.points68.shape
        if self.boxes_xyxy.shape != (n, 4) or self.points.shape != (n, 5, 2) or dense != (n, 68, 2):
            raise ValueError(
                f"faces disagree: {self.boxes_xyxy.shape = }, {self.scores.shape = }, {self.points.shape = }, "
                f"68 points {dense}"
            )

    def __len__(self) -> int:
        return len(self.scores)


class Localizer(Protocol):
    """A detector with its landmarks, loaded and ready. One image's result never depends on its batch mates."""

    def detect(self, images: NDArray[np.uint8], *, dense: bool) -> list[Faces]:
        """Find the faces of `images`, (B, H, W, 3) RGB uint8, all of one shape.

        With `dense` the points come from the localizer's landmark network; without, the detector's own five points
        are enough (whole frames, where faces are only looked for).
        """
        ...


def no_faces() -> Faces:
    """Return the empty result."""
    return Faces(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))


def rounded_faces(boxes: Floats, scores: Floats, points: Floats, points68: Floats | None = None) -> Faces:
    """Sort by score (ties by place), round coordinates to 1/16 px and scores to 1e-4."""
    boxes, points = _rounded(boxes), _rounded(points)
    scores = np.asarray(np.round(np.asarray(scores, np.float64), 4), np.float64)
    order = np.lexsort((boxes[:, 1], boxes[:, 0], -scores)) if len(scores) else np.zeros(0, np.int64)
    return Faces(boxes[order], scores[order], points[order], None if points68 is None else _rounded(points68)[order])


def _rounded(places: Floats) -> Floats:
    return np.asarray(np.round(places * GRID) / GRID, np.float64)


CHUNK = 16
"""Images per request to a detector: bounds what one video has in flight to about 12 MB."""
