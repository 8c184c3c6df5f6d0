"""Crops around a face, and optical flow between them: a cheap check of landmarks that were not detected."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Floats

WINDOW_PX = 25
"""Side of the patch around a point that is looked for: about a fifth of a face in a crop of 320 px."""
HALVINGS = 1
"""How often the pictures are halved: points are found again some 10 px away."""
MAX_CHANGE = 20.0
"""Mean difference of the patches, in gray levels, above which a point is not found: something passes in front of it."""
CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.02)
"""At most ten steps, or until one is below 0.02 px."""


@dataclass(frozen=True, slots=True)
class Crop:
    """What a detector is shown of one frame."""

    rgb: NDArray[np.uint8]
    """(px, px, 3), square pixels."""
    scale: Floats
    """Width and height of a crop px in source px, (2,)."""
    origin: Floats
    """Centre of the first crop px in source px, (2,)."""

    def shows(self, scale: Floats, origin: Floats) -> bool:
        """Return whether the crop is of this place."""
        return np.array_equal(self.scale, scale) and np.array_equal(self.origin, origin)


def miss_of_flow(start: Crop, points: Floats, end: Crop, expected: Floats) -> Floats | None:
    """Return where `end` shows what `start` shows at `points`, less `expected`; all (n, 2) source px.

    None where a point is not found, as on a plain surface or behind a hand, or where the crops differ in scale.
    """
    if not np.array_equal(start.scale, end.scale):
        return None
    begin = ((points - start.origin) / start.scale).astype(np.float32)
    guess = ((expected - end.origin) / end.scale).astype(np.float32)
    found, status, change = cv2.calcOpticalFlowPyrLK(
        cv2.cvtColor(start.rgb, cv2.COLOR_RGB2GRAY), cv2.cvtColor(end.rgb, cv2.COLOR_RGB2GRAY),
        begin, guess.copy(),
        winSize=(WINDOW_PX, WINDOW_PX), maxLevel=HALVINGS, criteria=CRITERIA, flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    if not status.all() or float(change.max()) > MAX_CHANGE:
        return None
    return np.asarray((found - guess) * end.scale, np.float64)
