"""FAN (Bulat and Tzimiropoulos, 2017): 68 landmarks per face by heatmap regression, after any detector.

Network, crop geometry and flip averaging are those of face-alignment (its 2DFAN-4), without its `FaceAlignment`, which
fetches, compiles and writes caches at run time. Two steps are done anew, because points that are followed over time
must not jump: the crop is one affine warp, where face-alignment rounds its corners to whole pixels, and the peak of a
heatmap is refined by the parabola through it and its neighbours, where face-alignment moves it by a quarter of a cell
and truncates the result to whole pixels.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from face_alignment.models import FAN
from face_alignment.utils import (
    CENTER_Y_OFFSET,
    CROP_RESOLUTION,
    HEATMAP_RESOLUTION,
    NUM_LANDMARKS,
    SCALE_FACTOR,
    flip,
)
from numpy.typing import NDArray
from torch import Tensor, nn

from lps.manifests.arrays import Floats
from lps.pipeline.faces.detector import Faces, Localizer, rounded_faces
from lps.pipeline.faces.retinaface import require_images
from lps.pipeline.faces.retinaface_torch import exact_convolutions
from lps.pipeline.faces.weights import filled

HOURGLASSES = 4
RETINAFACE_REFERENCE_PX = 165.0
"""Width plus height of a RetinaFace box at which a crop shows SCALE_FACTOR px, as face-alignment sets it."""
MAX_DENSE_FACES = 4
"""Per image, by area of the box. Smaller ones keep the points of the detector."""

LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
"""As seen in the image; of the 68 points of 300-W."""
NOSE_TIP, LEFT_MOUTH_CORNER, RIGHT_MOUTH_CORNER = 30, 48, 54


class FanLocalizer:
    """The faces of `detector`, with points from a FAN network where they are to be dense.

    `net` takes (batch_size, 3, 256, 256) RGB in 0..1 and gives 68 heatmaps of 64 x 64, or a list that ends with them.
    It always runs at that one shape, so that a face's points never depend on its batch mates. With `average_flip` the
    heatmaps of the mirrored crop are added, as face-alignment does by default: steadier, at twice the cost.
    """

    def __init__(
        self, detector: Localizer, net: nn.Module, device: str, batch_size: int, *, average_flip: bool = True
    ) -> None:
        self._detector = detector
        self._device = torch.device(device)
        self._format = torch.channels_last if self._device.type == "cpu" else torch.contiguous_format
        self._net = net.eval().to(device=self._device, memory_format=self._format)  # type: ignore[call-overload]
        self._batch_size = batch_size
        self._average_flip = average_flip

    def detect(self, images: NDArray[np.uint8], *, dense: bool) -> list[Faces]:
        """Find the faces of `images`, (B, H, W, 3) RGB uint8, H and W as the detector allows them.

        With `dense` the four largest faces per image have 68 landmarks, and points that are reduced from these.
        """
        found = self._detector.detect(images, dense=dense)
        if not dense:
            return found
        chosen = [largest(faces) for faces in found]
        boxes = [faces.boxes_xyxy[own] for faces, own in zip(found, chosen, strict=True)]
        landmarks = self.landmarks(images, boxes)
        return [
            _with_landmarks(faces, own, points) for faces, own, points in zip(found, chosen, landmarks, strict=True)
        ]

    def landmarks(self, images: NDArray[np.uint8], boxes: Sequence[Floats]) -> list[Floats]:
        """Return the 68 landmarks of each box: per image (n, 68, 2) px for its (n, 4) boxes.

        Order of 300-W; x to the right, y down, the centre of the first pixel at 0.
        """
        require_images(images)
        maps = [crop_map(box) for own in boxes for box in own]
        owners = [image for image, own in zip(images, boxes, strict=True) for _ in own]
        crops = [warped(image, source) for image, source in zip(owners, maps, strict=True)]
        peaks = [peak for batch in self._batches(crops) for peak in batch]
        # A cell of the heatmap covers `cell` pixels of the crop; its centre lies at their centre.
        cell = CROP_RESOLUTION / HEATMAP_RESOLUTION
        points = [
            (peak * cell + (cell - 1) / 2) * source[0, 0] + source[:, 2]
            for peak, source in zip(peaks, maps, strict=True)
        ]
        ends = np.cumsum([len(own) for own in boxes])
        stacked = np.array(points, np.float64).reshape(-1, NUM_LANDMARKS, 2)
        return [stacked[end - len(own) : end] for own, end in zip(boxes, ends, strict=True)]

    def _batches(self, crops: list[NDArray[np.uint8]]) -> Iterator[Floats]:
        """Yield the peaks of the crops, (n, 68, 2) in cells of the heatmap, batch by batch."""
        for start in range(0, len(crops), self._batch_size):
            chunk = crops[start : start + self._batch_size]
            batch = np.zeros((self._batch_size, CROP_RESOLUTION, CROP_RESOLUTION, 3), np.uint8)
            batch[: len(chunk)] = chunk
            pixels = torch.from_numpy(batch).to(self._device).permute(0, 3, 1, 2).float().div(255.0)
            with torch.inference_mode(), exact_convolutions():
                heatmaps = self._heatmaps(pixels)
                if self._average_flip:
                    heatmaps = heatmaps + flip(self._heatmaps(flip(pixels)), is_label=True)
                yield heatmap_peaks(heatmaps[: len(chunk)]).cpu().numpy()

    def _heatmaps(self, pixels: Tensor) -> Tensor:
        out = self._net(pixels.contiguous(memory_format=self._format))
        heatmaps: Tensor = out[-1] if isinstance(out, list) else out
        return heatmaps


def fan_network(state: dict[str, Tensor]) -> nn.Module:
    """Return 2DFAN-4 with the weights of `state`. Raises UnreadableError if they do not fit."""
    with torch.device("meta"):
        net = FAN(HOURGLASSES)
    return filled(net, state, "2DFAN-4")


def five_points(landmarks: Floats) -> Floats:
    """Reduce (n, 68, 2) landmarks to (n, 5, 2): left eye, right eye (in the image), nose tip, mouth corners."""
    eyes = [landmarks[:, LEFT_EYE].mean(axis=1), landmarks[:, RIGHT_EYE].mean(axis=1)]
    rest = [landmarks[:, i] for i in (NOSE_TIP, LEFT_MOUTH_CORNER, RIGHT_MOUTH_CORNER)]
    return np.stack([*eyes, *rest], axis=1)


def largest(faces: Faces) -> NDArray[np.intp]:
    """Return the places of at most MAX_DENSE_FACES faces of largest box, ties by score."""
    sides = faces.boxes_xyxy[:, 2:] - faces.boxes_xyxy[:, :2]
    return np.argsort(-sides.prod(axis=1), kind="stable")[:MAX_DENSE_FACES]


def crop_map(box_xyxy: Floats) -> Floats:
    """Return the 2x3 map from pixels of the 256 x 256 crop to pixels of the image: one scale and a shift."""
    width, height = box_xyxy[2:] - box_xyxy[:2]
    centre = (box_xyxy[:2] + box_xyxy[2:]) / 2 - [0.0, CENTER_Y_OFFSET * height]
    scale = SCALE_FACTOR * (width + height) / RETINAFACE_REFERENCE_PX / CROP_RESOLUTION
    corner = centre - 0.5 - scale * (CROP_RESOLUTION - 1) / 2
    return np.array([[scale, 0.0, corner[0]], [0.0, scale, corner[1]]])


def warped(image: NDArray[np.uint8], source: Floats) -> NDArray[np.uint8]:
    """Return the crop of `image` whose pixels `source` maps into it, black outside."""
    side = (CROP_RESOLUTION, CROP_RESOLUTION)
    crop = cv2.warpAffine(image, source, side, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(crop, np.uint8)


def heatmap_peaks(heatmaps: Tensor) -> Tensor:
    """Return the place of the maximum of each map, (n, k, h, w) to (n, k, 2) float64 as (x, y) in cells from the first.

    Between cells by the vertex of the parabola through the maximum and its two neighbours, along each axis; on the
    border of the map by whole cells.
    """
    height, width = heatmaps.shape[2:]
    flat = heatmaps.flatten(2).double()
    best = flat.argmax(dim=2, keepdim=True)
    x, y = best % width, best // width
    return torch.cat([x + _vertex(flat, best, x, 1, width), y + _vertex(flat, best, y, width, height)], dim=2)


def _vertex(flat: Tensor, best: Tensor, at: Tensor, step: int, size: int) -> Tensor:
    """Return how far the vertex lies from `best`, -0.5 to 0.5 cells, along the axis on which `step` is one cell."""
    inside = (at > 0) & (at < size - 1)
    peak = flat.gather(2, best)
    rise = peak - flat.gather(2, torch.where(inside, best - step, best))
    fall = peak - flat.gather(2, torch.where(inside, best + step, best))
    return torch.where(rise + fall > 0, 0.5 * (rise - fall) / (rise + fall), 0.0)


def _with_landmarks(faces: Faces, chosen: NDArray[np.intp], landmarks: Floats) -> Faces:
    points = faces.points.copy()
    points[chosen] = five_points(landmarks)
    points68 = np.full((len(faces), NUM_LANDMARKS, 2), np.nan)
    points68[chosen] = landmarks
    return rounded_faces(faces.boxes_xyxy, faces.scores, points, points68)
