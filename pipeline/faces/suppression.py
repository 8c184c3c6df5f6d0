"""Non-maximum suppression."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.floating[Any]]


def best_boxes(boxes_xyxy: Reals, scores: Reals, max_overlap: float) -> NDArray[np.intp]:
    """Return which of (n, 4) boxes no better one overlaps (IoU) by more than `max_overlap`, best score first."""
    if len(scores) == 0:
        return np.zeros(0, np.intp)
    corners, sides = boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    rectangles: Any = np.concatenate([corners, sides], axis=1).astype(np.float64)
    given: Any = scores.astype(np.float32)  # its stubs know lists only
    return np.asarray(cv2.dnn.NMSBoxes(rectangles, given, 0.0, max_overlap), np.intp).reshape(-1)
