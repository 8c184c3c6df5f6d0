"""How a frame is turned for display."""

from typing import Any

import numpy as np
from av.video.frame import VideoFrame


def rotation_of(native: VideoFrame) -> int:
    """Return the clockwise degrees, in quarter turns, that the frame's display matrix asks for.

    Where the matrix also mirrors the picture, the mirror is left out: faces stay upright and as they were filmed.
    """
    try:
        side_data: Any = native.side_data  # its stub knows of motion vectors only
    except ValueError:
        return 0  # PyAV fails at kinds of side data that are newer than it: EXIF of JPEG pictures
    matrix = side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 0
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(np.float64)  # x becomes (a, b) and y (c, d)
    if a * d - b * c < 0:
        a = -a
    return round(float(np.degrees(np.arctan2(b, a))) / 90) * 90 % 360
