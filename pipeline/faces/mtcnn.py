"""MTCNN (Zhang et al., 2016) with the weights of facenet-pytorch, inside its wheel: boxes and five points, any CPU.

The cascade is that of facenet-pytorch's `detect_face` step by step, its float32 arithmetic and its rounding included.
Images are shrunk by way of sums over rectangles of an integral image: of all candidates at once, and exact.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from lps.pipeline.faces.detector import CROP_MIN_FACE_SHARE, Faces, Image, no_faces, rounded_faces
from lps.pipeline.faces.suppression import best_boxes

if TYPE_CHECKING:
    from torch import Tensor

    from lps.pipeline.faces.onnx_session import Array, RunNet

NETS = ("pnet", "rnet", "onet")
THRESHOLDS = (0.6, 0.7, 0.7)
"""Least scores of the three stages, as published with the weights."""
FACTOR = 0.709
WHOLE_MIN_FACE_PX = 20
"""Smallest face, in px of the image as given, that is looked for in a whole frame."""
CELL_PX, CELL_STRIDE = 12, 2
"""What one place of the first net sees, and the step to the next one."""
SIDES = {"rnet": 24, "onet": 48}
"""Input of the second and third net, px."""
OVERLAPS = (0.5, 0.7)
"""Most overlap (IoU) of two candidates of one scale of the first net, and later."""
CHUNK = 64
"""Candidates per pass: bounds what the nets hold in memory."""


class MtcnnLocalizer:
    """Three-stage cascade of `nets`, by name: those of ONNX Runtime on a CPU, of torch on a GPU.

    The cascade's inner batches are of the image's own candidates, so images run one by one.
    """

    def __init__(self, nets: "Mapping[str, RunNet]") -> None:
        self._nets = nets

    def detect(self, images: NDArray[np.uint8], *, dense: bool) -> list[Faces]:
        """Find the faces of (B, H, W, 3) RGB images; `dense` says that each image is a crop around a known face."""
        min_face_px = CROP_MIN_FACE_SHARE * min(images.shape[1:3]) if dense else WHOLE_MIN_FACE_PX
        return [self._detect_one(image, min_face_px) for image in images]

    def _detect_one(self, image: Image, min_face_px: float) -> Faces:
        sums = np.asarray(cv2.integral(image, sdepth=cv2.CV_32S), np.int32)
        boxes = self._proposed(sums, min_face_px)
        boxes, scores, codes, _ = self._refined("rnet", sums, boxes, THRESHOLDS[1])
        kept = best_boxes(boxes, scores, OVERLAPS[1])
        boxes = _squared(_moved(boxes[kept], codes[kept]))
        boxes, scores, codes, shares = self._refined("onet", sums, boxes, THRESHOLDS[2])
        if len(boxes) == 0:
            return no_faces()
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        points = np.stack([shares[:, :5], shares[:, 5:]], axis=2) * sides[:, None] + boxes[:, None, :2] - 1
        boxes = _moved(boxes, codes)
        kept = _uncovered(boxes, scores, OVERLAPS[1])
        found = (values[kept].astype(np.float64) for values in (boxes, scores, points))
        return rounded_faces(*found)

    def _proposed(self, sums: NDArray[np.int32], min_face_px: float) -> "Array":
        """Return squares, (n, 4), that the first net takes for faces at some scale of the image."""
        found = [
            proposals[best_boxes(proposals[:, :4], proposals[:, 4], OVERLAPS[0])]
            for scale in _scales(sums.shape, min_face_px)
            if len(proposals := self._proposed_at(sums, scale))
        ]
        together = np.concatenate(found) if found else np.zeros((0, 9), np.float32)
        together = together[best_boxes(together[:, :4], together[:, 4], OVERLAPS[1])]
        boxes, sides = together[:, :4], together[:, 2:4] - together[:, :2]
        return _squared(boxes + together[:, 5:] * np.concatenate([sides, sides], axis=1))

    def _proposed_at(self, sums: NDArray[np.int32], scale: float) -> "Array":
        """Return box, score and code, (n, 9), of the places of one scale that pass."""
        height, width = sums.shape[0] - 1, sums.shape[1] - 1
        small = means_of_image(sums, int(height * scale + 1), int(width * scale + 1))
        shares, codes = self._nets["pnet"](_normalised(small[None]))
        rows, columns = np.nonzero(shares[0, 1] >= THRESHOLDS[0])
        places = CELL_STRIDE * np.stack([columns, rows], axis=1).astype(np.float32)
        low, high = (np.floor((places + edge) / np.float32(scale)) for edge in (1, CELL_PX))
        return np.concatenate([low, high, shares[0, 1:, rows, columns], codes[0, :, rows, columns]], axis=1)

    def _refined(
        self, net: str, sums: NDArray[np.int32], boxes: "Array", threshold: float
    ) -> "tuple[Array, Array, Array, Array]":
        """Return the boxes that pass a net, their scores, codes (n, 4) and, of the last net, points (n, 10)."""
        outputs: list[list[Array]] = []
        boxes, windows = windows_inside(boxes, sums.shape)
        for start in range(0, len(boxes), CHUNK):
            crops = means_of_windows(sums, windows[start : start + CHUNK], SIDES[net])
            outputs.append(self._nets[net](_normalised(crops)))
        if not outputs:
            return boxes, np.zeros(0, np.float32), np.zeros((0, 4), np.float32), np.zeros((0, 10), np.float32)
        shares, codes, *points = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
        passed = shares[:, 1] > threshold
        return boxes[passed], shares[passed, 1], codes[passed], points[0][passed] if points else codes[passed]


def onnx_nets(graphs: Sequence[bytes]) -> "dict[str, RunNet]":
    """Return the nets for a CPU; `graphs` in the order of NETS."""
    from lps.pipeline.faces.onnx_session import cpu_session

    return dict(zip(NETS, map(cpu_session, graphs), strict=True))


def torch_nets(states: "Mapping[str, dict[str, Tensor]]", device: str) -> "dict[str, RunNet]":
    """Return the nets for a GPU, from their state dicts by name. Raises UnreadableError if one does not fit its net."""
    import torch
    from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

    from lps.pipeline.faces.retinaface_torch import exact_convolutions
    from lps.pipeline.faces.weights import filled

    def loaded(name: str, kind: "type[torch.nn.Module]") -> "RunNet":
        with torch.device("meta"):
            empty = kind(pretrained=False)
        net = filled(empty, states[name], f"mtcnn-{name}").to(device)

        def run(pixels: "Array") -> "list[Array]":
            with torch.inference_mode(), exact_convolutions():
                *others, shares = net(torch.from_numpy(pixels).to(device))
            return [output.cpu().numpy() for output in (shares, *others)]

        return run

    return {name: loaded(name, kind) for name, kind in zip(NETS, (PNet, RNet, ONet), strict=True)}


def _scales(shape: Sequence[int], min_face_px: float) -> Iterator[float]:
    """Yield how much smaller the image is to be, for faces of `min_face_px` first, up to those of its shorter side."""
    scale = CELL_PX / min_face_px
    side = min(shape[0] - 1, shape[1] - 1) * scale
    while side >= CELL_PX:
        yield scale
        scale, side = scale * FACTOR, side * FACTOR


def _normalised(means: "Array") -> "Array":
    """Return (n, H, W, 3) of 0 to 255 as (n, 3, H, W) of -1 to 1."""
    pixels: Array = np.ascontiguousarray(means.transpose(0, 3, 1, 2))
    pixels -= np.float32(127.5)
    pixels *= np.float32(0.0078125)
    return pixels


def _edges(low: NDArray[np.intp], size: NDArray[np.intp], n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return both edges, (k, n), of `n` windows over each span of `size` px from `low`, as torch's `area` has them."""
    at = np.arange(n)
    return low[:, None] + at * size[:, None] // n, low[:, None] - (-(at + 1) * size[:, None]) // n


def means_of_image(sums: NDArray[np.int32], height: int, width: int) -> "Array":
    """Return the image, whose integral is `sums`, as (height, width, 3) means."""
    zero, (rows, columns) = np.zeros(1, np.intp), (np.array([side - 1]) for side in sums.shape[:2])
    (top,), (bottom,) = _edges(zero, rows, height)
    (left,), (right,) = _edges(zero, columns, width)
    bands = sums[bottom] - sums[top]
    areas = np.outer(bottom - top, right - left).astype(np.float32)
    means: Array = (bands[:, right] - bands[:, left]).astype(np.float32) / areas[..., None]
    return means


def means_of_windows(sums: NDArray[np.int32], windows: NDArray[np.intp], side: int) -> "Array":
    """Return what lies in (n, 4) windows x0, y0, x1, y1 of the image as (n, side, side, 3) means."""
    left, right = _edges(windows[:, 0], windows[:, 2] - windows[:, 0], side)
    top, bottom = (edge * sums.shape[1] for edge in _edges(windows[:, 1], windows[:, 3] - windows[:, 1], side))
    flat = sums.reshape(-1, 3)

    def corner(y: NDArray[np.intp], x: NDArray[np.intp]) -> NDArray[np.int32]:
        return flat.take(y[:, :, None] + x[:, None, :], axis=0)

    total = corner(bottom, right)
    total -= corner(bottom, left)
    total -= corner(top, right)
    total += corner(top, left)
    areas = (bottom - top)[:, :, None] // sums.shape[1] * (right - left)[:, None, :]
    means: Array = total.astype(np.float32) / areas.astype(np.float32)[..., None]
    return means


def windows_inside(boxes: "Array", shape: Sequence[int]) -> "tuple[Array, NDArray[np.intp]]":
    """Return the boxes of which the image shows anything, and the windows of the image that they are, (n, 4) px."""
    windows = boxes.astype(np.intp)
    low = np.maximum(windows[:, :2], 1) - 1
    high = np.minimum(windows[:, 2:], [shape[1] - 1, shape[0] - 1])
    shown = (high > low).all(axis=1)
    return boxes[shown], np.concatenate([low, high], axis=1)[shown]


def _moved(boxes: "Array", codes: "Array") -> "Array":
    """Return boxes moved by their codes, which are in shares of their sides."""
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    moved: Array = boxes + codes * np.concatenate([sides, sides], axis=1)
    return moved


def _squared(boxes: "Array") -> "Array":
    """Return boxes as squares of their longer side about their centres."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.max(axis=1, keepdims=True)
    low = boxes[:, :2] + sides * np.float32(0.5) - longer * np.float32(0.5)
    squares: Array = np.concatenate([low, low + longer], axis=1)
    return squares


def _uncovered(boxes: "Array", scores: "Array", max_share: float) -> NDArray[np.intp]:
    """Return which boxes, best first, share no more than `max_share` of the smaller one of two with a better one."""
    areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    left, kept = np.argsort(scores)[::-1], []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        low, high = np.maximum(boxes[left, :2], boxes[best, :2]), np.minimum(boxes[left, 2:], boxes[best, 2:])
        common = np.maximum(high - low + 1, 0).prod(axis=1)
        left = left[common / np.minimum(areas[left], areas[best]) <= max_share]
    return np.array(kept, np.intp)
