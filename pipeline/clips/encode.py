"""Aligned frames to image bytes, and the numbers that describe a clip."""

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from lps.pipeline.config.params import Params

RGB = NDArray[np.uint8]


def encode_image(rgb: RGB, params: Params) -> bytes:
    """Return the image file of one (H, W, 3) RGB frame: JPEG 4:4:4, or lossless PNG or WebP."""
    buffer = io.BytesIO()
    image = PilImage.fromarray(rgb)
    if params.codec == "jpg":
        image.save(buffer, "JPEG", quality=params.jpeg_quality, subsampling=0)
    elif params.codec == "png":
        image.save(buffer, "PNG", compress_level=4)
    else:
        image.save(buffer, "WEBP", lossless=True, quality=50, method=3)
    return buffer.getvalue()


def frames_digest(frames: Sequence[RGB]) -> bytes:
    """Return the SHA-256 over the raw RGB bytes of all frames in order."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(np.ascontiguousarray(frame).data)
    return digest.digest()


def perceptual_hash(rgb: RGB) -> tuple[bytes, int]:
    """Return the PDQ hash (32 bytes) of an image and its quality, 0 to 100."""
    import pdqhash

    bits, quality = pdqhash.compute(np.ascontiguousarray(rgb))
    return np.packbits(bits.astype(np.uint8)).tobytes(), int(quality)


def yaw_degrees(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Estimate how far heads are turned to the side from five points, (n, 5, 2) -> (n,), 0 for a frontal face.

    The points are seen as a weak perspective view of an average face, whose eyes are 63 mm apart and whose nose stands
    27 mm out of the plane of eyes and corners of the mouth: the nose leaves the line between the two middles by
    27 mm sin(yaw), while the eyes are 63 mm cos(yaw) apart. Faces differ, so that the classes of a data set can be
    compared by it, and single heads not measured.
    """
    left, right, nose, *corners = np.moveaxis(points, 1, 0)
    eyes = (left + right) / 2
    across, down = right - left, sum(corners) / 2 - eyes
    apart = np.hypot(*across.T)
    share = ((nose - eyes) * down).sum(1) / np.maximum((down * down).sum(1), 1e-9)
    aside = nose - eyes - share[:, None] * down
    out_of_line = (aside * across).sum(1) / np.maximum(apart, 1e-9)
    yaw: NDArray[np.float64] = np.degrees(np.arctan2(out_of_line / 27, apart / 63))
    return yaw


def clip_quality(frames: Sequence[RGB], points: NDArray[np.float64]) -> dict[str, float]:
    """Describe a clip: sharpness, light, how far its head turns and the steadiness of its landmarks.

    `points` are the (n, 5, 2) landmarks in output px. Keys are the manifest's columns.
    """
    grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    lumas = np.array([_mean_and_std(gray) for gray in grays])
    edges = [_mean_and_std(cv2.Laplacian(gray, cv2.CV_16S)) for gray in grays]  # whole numbers, up to 1020
    steps = np.diff(points, n=2, axis=0)
    return {
        "blur_var_med": float(np.median([std**2 for _, std in edges])),
        "luma_mean": float(lumas[:, 0].mean()),
        "luma_std": float(lumas[:, 1].mean()),
        "yaw_absmax": float(np.abs(yaw_degrees(points)).max()),
        "jitter_px": float(np.hypot(steps[..., 0], steps[..., 1]).mean()) if len(steps) else 0.0,
    }


def _mean_and_std(image: NDArray[Any]) -> tuple[float, float]:
    mean, std = cv2.meanStdDev(image)
    return float(mean[0, 0]), float(std[0, 0])
