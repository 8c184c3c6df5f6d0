"""Image files of the faces, and the numbers that describe a clip."""

import hashlib
import io

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage

from lps.pipeline.clips.effort import bytes_bound
from lps.pipeline.clips.encode import (
    clip_quality,
    encode_image,
    frames_digest,
    perceptual_hash,
    yaw_degrees,
)
from lps.pipeline.config.params import Params
from lps.pipeline.tools.demo_faces import load_portrait

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def face() -> Image:
    rgb = load_portrait("astronaut").rgba[..., :3]
    return np.asarray(cv2.resize(rgb, (224, 224), interpolation=cv2.INTER_AREA), np.uint8)


@pytest.fixture(scope="module")
def noise() -> Image:
    return np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)


def opened(data: bytes) -> PilImage.Image:
    return PilImage.open(io.BytesIO(data))


@pytest.mark.parametrize(("codec", "kind"), [("png", "PNG"), ("webp", "WEBP")])
def test_lossless_codecs(face: Image, noise: Image, codec: str, kind: str) -> None:
    params = Params(codec=codec)  # type: ignore[arg-type]
    for image in (face, noise):
        found = opened(encode_image(image, params))
        assert (found.format, found.mode) == (kind, "RGB")
        assert np.array_equal(np.asarray(found), image)


def test_jpeg_keeps_full_colour_resolution(face: Image) -> None:
    image = opened(encode_image(face, Params()))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (224, 224))
    assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
    error = np.mean((np.asarray(image).astype(float) - face) ** 2)
    assert 10 * np.log10(255**2 / error) > 38


def test_jpeg_quality_is_the_declared_one(face: Image) -> None:
    sizes = [len(encode_image(face, Params(jpeg_quality=quality))) for quality in (40, 75, 95, 100)]
    assert sizes == sorted(sizes)
    table = opened(encode_image(face, Params(jpeg_quality=95))).quantization[0]  # type: ignore[attr-defined]
    assert table[:4] == [2, 1, 1, 2], "the standard table at quality 95"


def test_the_same_image_gives_the_same_bytes(face: Image) -> None:
    for codec in ("jpg", "png", "webp"):
        params = Params(codec=codec)
        assert encode_image(face, params) == encode_image(face.copy(), params)


@pytest.mark.parametrize("codec", ["jpg", "png", "webp"])
def test_bound_of_a_clip_s_bytes(face: Image, codec: str) -> None:
    """The sharpest picture at hand hardly exceeds it; it is not so far above that shards come out half empty."""
    params = Params(codec=codec)  # type: ignore[arg-type]
    made = params.clip_frames * len(encode_image(face, params))
    assert 0.9 * made < bytes_bound(params) < 4 * made
    assert bytes_bound(Params(codec=codec, clip_frames=30)) < bytes_bound(params)  # type: ignore[arg-type]


def test_digest_of_frames(face: Image, noise: Image) -> None:
    assert frames_digest([face, noise]) == hashlib.sha256(face.tobytes() + noise.tobytes()).digest()
    assert frames_digest([noise, face]) != frames_digest([face, noise])
    assert frames_digest([face[:, ::-1]]) == frames_digest([np.ascontiguousarray(face[:, ::-1])])


def test_perceptual_hash(face: Image, noise: Image) -> None:
    digest, quality = perceptual_hash(face)
    assert len(digest) == 32
    assert 0 <= quality <= 100
    brighter = np.clip(face.astype(int) + 8, 0, 255).astype(np.uint8)

    def distance(a: bytes, b: bytes) -> int:
        return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count()

    assert distance(digest, perceptual_hash(brighter)[0]) < 20
    assert distance(digest, perceptual_hash(noise)[0]) > 80
    assert perceptual_hash(np.zeros_like(face))[1] == 0


def test_quality_numbers(face: Image, noise: Image) -> None:
    blurred = np.asarray(cv2.GaussianBlur(face, (0, 0), 3), np.uint8)
    points = np.zeros((3, 5, 2))
    sharp, soft, flat = (clip_quality([image] * 3, points) for image in (face, blurred, np.full_like(face, 90)))
    assert sharp["blur_var_med"] > 5 * soft["blur_var_med"] > 0
    plain = {"blur_var_med": 0.0, "luma_mean": 90.0, "luma_std": 0.0, "yaw_absmax": 0.0, "jitter_px": 0.0}
    assert flat == pytest.approx(plain, abs=1e-5)  # manifests hold four digits
    gray = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    assert sharp["blur_var_med"] == pytest.approx(cv2.Laplacian(gray, cv2.CV_64F).var())
    assert (sharp["luma_mean"], sharp["luma_std"]) == pytest.approx((gray.mean(), gray.std()))
    assert clip_quality([noise] * 3, points)["luma_std"] > 30


def test_jitter_is_blind_to_steady_motion() -> None:
    frames = [np.zeros((8, 8, 3), np.uint8)] * 6
    steady = np.arange(6)[:, None, None] * np.ones((1, 5, 2))
    shaking = steady + np.array([1, -1] * 3)[:, None, None] * [1.0, 0.0]
    assert clip_quality(frames, steady)["jitter_px"] == 0
    assert clip_quality(frames, shaking)["jitter_px"] == pytest.approx(4)
    assert clip_quality(frames[:2], steady[:2])["jitter_px"] == 0


HEAD_MM = np.array([[-31.5, -35, 0], [31.5, -35, 0], [0, 5, 27], [-24, 32, 0], [24, 32, 0]], float)
"""Eyes, nose and corners of the mouth: x to the right, y down, z towards the camera."""


def seen(yaw: float, pitch: float = 0, roll: float = 0) -> NDArray[np.float64]:
    """Return the five points (1, 5, 2) of the head as a camera sees them from afar; angles in degrees."""
    a, b, c = np.radians([yaw, pitch, roll])
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    tilt = np.array([[np.cos(c), -np.sin(c)], [np.sin(c), np.cos(c)]])
    points: NDArray[np.float64] = 1.3 * (HEAD_MM @ (nod @ turn).T)[:, :2] @ tilt.T + [112, 100]
    return points[None]


@pytest.mark.parametrize("yaw", [-75, -30, -5, 0, 10, 45, 80])
@pytest.mark.parametrize("roll", [0, 25, -160])
def test_yaw_of_an_average_head(yaw: float, roll: float) -> None:
    assert yaw_degrees(seen(yaw, roll=roll)) == pytest.approx([yaw], abs=1e-6)


def test_yaw_hardly_feels_a_nod() -> None:
    for yaw in (-40, 0, 20):
        for pitch in (-15, 15):
            assert yaw_degrees(seen(yaw, pitch)) == pytest.approx([yaw], abs=4)


def test_yaw_of_a_clip_is_its_largest() -> None:
    points = np.concatenate([seen(yaw) for yaw in (5, -35, 20)])
    assert clip_quality([np.zeros((8, 8, 3), np.uint8)] * 3, points)["yaw_absmax"] == pytest.approx(35)
