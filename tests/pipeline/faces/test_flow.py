"""Optical flow between crops, on a picture that is shifted by a known distance."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lps.pipeline.faces.flow import Crop, miss_of_flow

Image = NDArray[np.uint8]
SCALE = np.array([2.0, 1.5])
"""Source px of a crop px."""
POINTS = np.array([[250, 180], [330, 175], [290, 210], [260, 255], [320, 250]], float)
"""Source px."""


@pytest.fixture(scope="module")
def picture() -> Image:
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(320, 320)), (0, 0), 3)
    return np.asarray(np.clip(128 + 50 * noise / noise.std(), 0, 255), np.uint8)


def crop(gray: Image, origin: tuple[float, float] = (0, 0), scale: NDArray[np.float64] = SCALE) -> Crop:
    return Crop(np.repeat(gray[..., None], 3, axis=2), scale, np.array(origin, float))


def shifted(gray: Image, x: float, y: float) -> Image:
    moved = cv2.warpAffine(gray, np.array([[1, 0, x], [0, 1, y]], float), gray.shape, flags=cv2.INTER_CUBIC)
    return np.asarray(moved, np.uint8)


@pytest.mark.parametrize("move", [(0.0, 0.0), (0.4, -0.3), (5.0, 2.5), (-6.0, 4.0)])
def test_the_miss_is_how_far_the_picture_moved(picture: Image, move: tuple[float, float]) -> None:
    found = miss_of_flow(crop(picture), POINTS, crop(shifted(picture, *move)), POINTS)
    assert found is not None
    assert np.abs(found - SCALE * move).max() < 0.1
    right = miss_of_flow(crop(picture), POINTS, crop(shifted(picture, *move)), POINTS + SCALE * move)
    assert right is not None
    assert np.abs(right).max() < 0.1


def test_places_of_crops_are_allowed_for(picture: Image) -> None:
    """The second crop begins 32 of its px further to the right, and shows the same."""
    later = crop(shifted(picture, -32, 0), (32 * SCALE[0], 0))
    found = miss_of_flow(crop(picture), POINTS, later, POINTS)
    assert found is not None
    assert np.abs(found).max() < 0.1


def test_what_cannot_be_followed(picture: Image) -> None:
    assert miss_of_flow(crop(np.full_like(picture, 90)), POINTS, crop(np.full_like(picture, 90)), POINTS) is None
    assert miss_of_flow(crop(picture), POINTS, crop(picture, scale=2 * SCALE), POINTS) is None
    covered = picture.copy()
    covered[100:130, 105:140] = 255 - picture[100:130, 105:140]
    assert miss_of_flow(crop(picture), POINTS, crop(covered), POINTS) is None
