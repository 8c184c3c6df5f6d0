"""The anchors of RetinaFace, what a network says of them, and the boxes and points that this means."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Floats

Backbone = Literal["mobilenet", "resnet50"]

ANCHOR_SIDES = [[16, 32], [64, 128], [256, 512]]
"""In px, per stride."""
STRIDES = [8, 16, 32]
VARIANCES = [0.1, 0.2]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The anchors of one image whose score passes, and what the network says of them."""

    anchors: NDArray[np.intp]
    """(n,)."""
    scores: NDArray[np.float32]
    """(n,)."""
    codes: NDArray[np.float32]
    """(n, 14): box, then points."""


class FindCandidates(Protocol):
    """A network, loaded and ready."""

    def __call__(self, images: NDArray[np.uint8], levels: int, min_score: float) -> list[Candidates]:
        """Return the candidates of (B, H, W, 3) RGB images, of the coarsest `levels` of the three levels."""
        ...


def anchors_of(height: int, width: int, levels: int) -> Floats:
    """Return the anchors of the coarsest `levels`, (anchors, 4): centre x, y, width, height in shares of the image."""
    chosen = zip(STRIDES[-levels:], ANCHOR_SIDES[-levels:], strict=True)
    return np.concatenate([_anchors_of_level(height, width, stride, sides) for stride, sides in chosen])


def _anchors_of_level(height: int, width: int, stride: int, sides: list[int]) -> Floats:
    """Return two anchors for each cell of `stride` px, row by row, in float32 steps as retinaface-pytorch has them."""
    rows, columns = height // stride, width // stride
    y, x, side = np.meshgrid(np.arange(rows), np.arange(columns), np.array(sides, np.float64), indexing="ij")
    columns_of = [(x + 0.5) * stride / width, (y + 0.5) * stride / height, side / width, side / height]
    return np.stack(columns_of, axis=-1).reshape(-1, 4).astype(np.float32).astype(np.float64)


def decoded(codes: Floats, anchors: Floats) -> tuple[Floats, Floats]:
    """Return boxes (n, 4) and points (n, 5, 2) for (n, 14) codes, in shares of the image, as the authors code them."""
    centres, sides = anchors[:, :2], anchors[:, 2:]
    middle = centres + codes[:, :2] * VARIANCES[0] * sides
    half = sides * np.exp(codes[:, 2:4] * VARIANCES[1]) / 2
    points = centres[:, None] + codes[:, 4:].reshape(-1, 5, 2) * VARIANCES[0] * sides[:, None]
    return np.concatenate([middle - half, middle + half], axis=1), points
