"""MTCNN (Zhang et al., 2016) of facenet-pytorch: boxes and five points, weights inside the wheel, any CPU."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from lps.pipeline.faces.detector import CROP_MIN_FACE_SHARE, Faces, no_faces, rounded_faces

THRESHOLDS = (0.6, 0.7, 0.7)
"""Least scores of the three stages, as published with the weights."""
FACTOR = 0.709
WHOLE_MIN_FACE_PX = 20
"""Smallest face, in px of the image as given, that is looked for in a whole frame."""


class MtcnnLocalizer:
    """Three-stage cascade. The cascade's inner batches are of the image's own candidates, so images run one by one."""

    def __init__(self, device: str) -> None:
        from facenet_pytorch import MTCNN

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its torch.load call predates weights_only
            self._net = MTCNN(keep_all=True, device=device, thresholds=list(THRESHOLDS), factor=FACTOR).eval()
        self._device = torch.device(device)
        if self._device.type == "cpu":  # where pooling is several times as fast with channels innermost
            self._net.to(memory_format=torch.channels_last)

    def detect(self, images: NDArray[np.uint8], *, dense: bool) -> list[Faces]:
        """Find the faces of (B, H, W, 3) RGB images; `dense` says that each image is a crop around a known face."""
        min_face_px = CROP_MIN_FACE_SHARE * min(images.shape[1:3]) if dense else WHOLE_MIN_FACE_PX
        return [self._detect_one(image, min_face_px) for image in images]

    def _detect_one(self, image: NDArray[np.uint8], min_face_px: float) -> Faces:
        from facenet_pytorch.models.utils.detect_face import detect_face

        with torch.inference_mode():
            boxes, points = detect_face(
                image, min_face_px, self._net.pnet, self._net.rnet, self._net.onet, THRESHOLDS, FACTOR, self._device
            )
        boxes = np.asarray(boxes[0], np.float64).reshape(-1, 5)
        if len(boxes) == 0:
            return no_faces()
        return rounded_faces(boxes[:, :4], boxes[:, 4], np.asarray(points[0], np.float64).reshape(-1, 5, 2))
