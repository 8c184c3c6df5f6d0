"""Types of the arrays that all packages pass around, and the template that faces are aligned to."""

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]
"""(..., H, W, 3) RGB."""

ARCFACE_112: Floats = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Eyes, nose and mouth corners of the five-point ArcFace template, (5, 2), in 112 x 112 px."""
