"""The similarity transform, the template, and the proof of both: stored faces can be cut again from the source."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image as PilImage

from lps.manifests.arrays import ARCFACE_112, Floats, square_of
from lps.manifests.canonical import digest16
from lps.manifests.codes import Code, Status
from lps.manifests.errors import VideoFault
from lps.manifests.records import Clip
from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import Params
from lps.pipeline.faces.align import (
    BOX_MARGIN,
    align_matrix,
    crop_matrix,
    output_scale,
    outside_share,
    similarity,
    template,
    warp,
    warp_frame,
)
from lps.pipeline.faces.detector import Faces, Localizer
from lps.pipeline.faces.localizers import load_localizer
from lps.pipeline.tools.demo_videos import make_face_video
from lps.pipeline.video.decode import DecodeStats, decode
from tests.builders import psnr

Image = NDArray[np.uint8]
Write = Callable[..., Path]

PARAMS = Params(localizer="mtcnn", codec="png", clip_frames=20)
WHOLE = square_of(32, 32)
WIDE = square_of(49, 32)
"""An odd number of px more: 8 to the left and above, 9 to the right and below."""

coordinates = arrays(np.float64, (5, 2), elements=st.floats(-500, 500, allow_nan=False, width=32))
angles = st.floats(-np.pi, np.pi)
scales = st.floats(0.02, 50)
shifts = st.tuples(st.floats(-1000, 1000), st.floats(-1000, 1000))


def spread(points: Floats) -> float:
    return float(((points - points.mean(0)) ** 2).sum())


def transform(scale: float, angle: float, shift: tuple[float, float]) -> Floats:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def applied(matrix: NDArray[np.floating], points: Floats) -> Floats:
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float64)


def residual(matrix: Floats, points: Floats, target: Floats) -> float:
    return float(((applied(matrix, points) - target) ** 2).sum())


# ---- the similarity --------------------------------------------------------------------------------------------------
@given(coordinates, scales, angles, shifts)
def test_a_known_transform_is_recovered(points: Floats, scale: float, angle: float, shift: tuple[float, float]) -> None:
    assume(spread(points) > 1)
    known = transform(scale, angle, shift)
    found = similarity(points, applied(known, points))
    assert np.allclose(applied(found, points), applied(known, points), atol=1e-6 * max(1, scale))
    assert output_scale(found) == pytest.approx(scale, rel=1e-6)


@given(coordinates, coordinates)
def test_never_a_shear_nor_a_reflection(points: Floats, target: Floats) -> None:
    assume(spread(points) > 1)
    (a, b, _), (c, d, _) = similarity(points, target)
    assert a == d
    assert b == -c
    assert a * d - b * c >= 0


def test_a_mirrored_face_is_turned_but_not_mirrored() -> None:
    target = template(224, 0.85)
    found = similarity(target * (-1, 1), target)
    assert np.linalg.det(found[:, :2]) > 0


@given(coordinates, coordinates, st.tuples(*[st.floats(-1, 1)] * 4), st.floats(1e-3, 1))
def test_no_other_similarity_fits_better(
    points: Floats, target: Floats, direction: tuple[float, ...], size: float
) -> None:
    assume(spread(points) > 1)
    found = similarity(points, target)
    a, b, x, y = np.array(direction) * size
    other = found + np.array([[a, -b, x], [b, a, y]])
    best = residual(found, points, target)
    assert best <= residual(other, points, target) * (1 + 1e-9) + 1e-6


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((5, 2)),
        np.full((5, 2), 77.0),
        np.full((5, 2), np.nan),
        np.vstack([np.ones((4, 2)), [[np.inf, 0]]]),
        np.full((5, 2), 3.0) + np.arange(10).reshape(5, 2) * 1e-4,
    ],
)
def test_points_that_are_no_face(points: Floats) -> None:
    with pytest.raises(VideoFault) as caught:
        align_matrix(points, (1.0, 1.0), template(224, 0.85))
    assert caught.value.code is Code.E_LANDMARK


# ---- template and matrices -------------------------------------------------------------------------------------------
def test_template_is_arcface_doubled() -> None:
    assert np.array_equal(template(112, 1.0), ARCFACE_112)
    assert np.allclose(template(224, 1.0), 2 * ARCFACE_112)
    assert ARCFACE_112[0].tolist() == [38.2946, 51.6963]  # published numbers: left eye, right mouth corner
    assert ARCFACE_112[4].tolist() == [70.7299, 92.2041]


@pytest.mark.parametrize("scale", [0.5, 0.85, 1.2])
def test_template_scales_about_the_centre(scale: float) -> None:
    assert np.allclose(template(224, scale) - 112, scale * (template(224, 1.0) - 112))


def test_default_scale_is_the_documented_one() -> None:
    assert Params().template_scale == 0.85
    eyes = np.subtract(*template(Params().out_px, Params().template_scale)[:2])
    assert np.hypot(*eyes) == pytest.approx(0.85 * 2 * 35.2378, abs=1e-3)


@given(coordinates, st.sampled_from([(1.0, 1.0), (15 / 16, 1.0), (1.0, 4 / 3), (2.0, 1.0)]))
def test_align_matrix_undoes_the_pixel_aspect(points: Floats, aspect: tuple[float, float]) -> None:
    assume(spread(points) > 1)
    matrix = align_matrix(points, aspect, template(224, 0.85))
    assert matrix.dtype == np.float32
    assert matrix.shape == (2, 3)
    square = matrix[:, :2] / np.array(aspect, np.float32)
    assert square[0, 0] == pytest.approx(square[1, 1], rel=1e-5, abs=1e-6)
    assert square[0, 1] == pytest.approx(-square[1, 0], rel=1e-5, abs=1e-6)


def test_align_matrix_takes_a_squeezed_face_to_the_template() -> None:
    target = template(224, 0.85)
    face = applied(transform(1.7, 0.3, (400, 200)), target)
    for aspect in ((1.0, 1.0), (4 / 3, 1.0), (1.0, 15 / 16)):
        stored = face / np.array(aspect)
        assert np.allclose(applied(align_matrix(stored, aspect, target), stored), target, atol=1e-3)


@pytest.mark.parametrize("aspect", [(1.0, 1.0), (4 / 3, 1.0), (1.0, 0.9)])
def test_crop_matrix(aspect: tuple[float, float]) -> None:
    box = np.array([100.0, 50.0, 180.0, 170.0])
    matrix = crop_matrix(box, aspect, 224)
    centre = np.array([[140.0, 110.0]])
    assert np.allclose(applied(matrix, centre), 112, atol=1e-4)
    sides = (box[2:] - box[:2]) * aspect
    corners = applied(matrix, box.reshape(2, 2))
    assert np.allclose((corners[1] - corners[0]) / sides, 224 / (BOX_MARGIN * sides.max()), rtol=1e-5)
    assert matrix[0, 1] == matrix[1, 0] == 0


@pytest.mark.parametrize("box", [[5, 5, 5, 5], [5, 5, 5.5, 5.5], [9, 9, 1, 1], [0, 0, np.nan, 4], [0, 0, np.inf, 4]])
def test_boxes_that_hold_nothing(box: Sequence[float]) -> None:
    with pytest.raises(VideoFault) as caught:
        crop_matrix(np.array(box, np.float64), (1.0, 1.0), 224)
    assert caught.value.code is Code.E_ALIGN


def test_warp_keeps_pixels_and_reflects_at_borders() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    assert np.array_equal(warp(rgb, np.array([[1, 0, 0], [0, 1, 0]], np.float32), WHOLE), rgb[:32, :32])
    shifted = warp(rgb, np.array([[1, 0, 3], [0, 1, 0]], np.float32), WHOLE)
    assert np.array_equal(shifted[:, 3:], rgb[:32, :29])
    assert np.array_equal(shifted[:, :3], rgb[:32, 2::-1])


# ---- the contract: source, matrix, face ------------------------------------------------------------------------------
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_face_cut_from_a_frame_is_that_of_the_whole_image(write_video: Write, tmp_path: Path, turn: int) -> None:
    random = np.random.default_rng(turn)
    noise = [np.asarray(random.integers(0, 256, (120, 160, 3)), np.uint8) for _ in range(2)]
    path = write_video(tmp_path / "v.mp4", noise)
    frame = replace(next(iter(decode(path, Params(), DecodeStats()))), rotation=turn)
    whole = frame.rgb()
    for _ in range(200):
        scale, angle = 10 ** random.uniform(-1, 1), random.uniform(-np.pi, np.pi)
        a, b = scale * np.cos(angle), scale * np.sin(angle)
        centre = random.uniform(-1.0, 2.0, 2) * frame.size  # also far outside of the frame
        shift = 16 - np.array([[a, -b], [b, a]]) @ centre
        matrix = np.array([[a, -b, shift[0]], [b, a, shift[1]]], np.float32)
        assert np.array_equal(face := warp_frame(frame, matrix, WHOLE), warp(whole, matrix, WHOLE)), matrix
        wide = warp_frame(frame, matrix, WIDE)
        assert np.array_equal(wide, warp(whole, matrix, WIDE)), matrix
        assert np.array_equal(wide[8:40, 8:40], face), matrix


def test_what_lies_around_the_inner_square_goes_on_from_it() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (90, 90, 3)).astype(np.uint8)
    matrix = np.array([[1, 0, -20], [0, 1, -30]], np.float32)
    assert np.array_equal(warp(rgb, matrix, WIDE), rgb[22:71, 12:61])
    smooth = np.asarray(cv2.GaussianBlur(rgb, (0, 0), 4), np.uint8)
    turned = np.array([[0.9, -0.3, 3.7], [0.3, 0.9, -31.3]], np.float32)
    moved = (turned + np.array([[0, 0, 8.0]], np.float32)).astype(np.float32)
    apart = np.abs(warp(smooth, turned, WIDE).astype(int) - warp(smooth, moved, square_of(49, 49)))
    assert apart[:8].max() == apart[:, 40:].max() == 0
    assert apart.max() <= 1, "a seam that shows"


@pytest.fixture(scope="module")
def mtcnn() -> Iterator[Localizer]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_localizer("mtcnn", weights_dir=None, device="cpu", batch_size=1)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def ask(mtcnn: Localizer) -> Callable[..., list[Faces]]:
    """MTCNN that remembers its answers: what comes after it is what these tests are about."""
    answers: dict[bytes, list[Faces]] = {}

    def remembered(images: Image, *, dense: bool) -> list[Faces]:
        key = hashlib.sha256(repr((dense, images.shape)).encode() + images.tobytes()).digest()
        if key not in answers:
            answers[key] = mtcnn.detect(images, dense=dense)
        return answers[key]

    return remembered


def pyav_frames(path: Path, wanted: Sequence[int], rotation: int) -> dict[int, Image]:
    """Return frames counted as they decode, by nothing but PyAV and NumPy."""
    with av.open(str(path)) as container:
        found = {}
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                image = frame.to_ndarray(format="rgb24")
                found[index] = np.ascontiguousarray(np.rot90(image, -rotation // 90))
        return found  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("move", "share"), [((0, 0), 0.0), ((-50, 0), 0.25), ((0, 100), 0.25), ((-50, 100), 7 / 16), ((1000, 0), 1.0)]
)
def test_the_share_outside_the_picture(move: tuple[int, int], share: float) -> None:
    """A square of 200 px of a picture of 250 x 250, from its corner or moved, shown in 100 px."""
    x, y = move
    matrix = np.array([[0.5, 0, -0.25 - 0.5 * x], [0, 0.5, -0.25 - 0.5 * y]], np.float32)
    assert outside_share((250, 250), matrix, 100) == pytest.approx(share)


def test_the_share_outside_is_what_a_warp_of_ones_lacks() -> None:
    rng = np.random.default_rng(0)
    ones = np.ones((120, 160), np.float32)
    for _ in range(20):
        angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 3)
        a, b = scale * np.cos(angle), scale * np.sin(angle)
        matrix = np.array([[a, -b, rng.uniform(-150, 150)], [b, a, rng.uniform(-150, 150)]], np.float32)
        warped = cv2.warpAffine(ones, matrix, (224, 224), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        assert outside_share((160, 120), matrix, 224) == pytest.approx(float((warped < 0.5).mean()), abs=0.01)


def worst_psnr(path: Path, clip: Clip, rotation: int) -> float:
    """Cut the clip's faces from the source again and compare them with the stored ones."""
    source = pyav_frames(path, clip.frame_idx, rotation)
    worst = float("inf")
    for index, matrix, stored in zip(clip.frame_idx, clip.align_M, clip.frames, strict=True):
        m = np.array(matrix, np.float32).reshape(2, 3)
        assert [float(value) for value in m.ravel()] == list(matrix), "the matrix is not a float32 one"
        face = cv2.warpAffine(source[index], m, (224, 224), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        worst = min(worst, psnr(np.asarray(face, np.uint8), np.asarray(PilImage.open(io.BytesIO(stored)))))
    return worst


def assert_cut_again(path: Path, ask: Callable[..., list[Faces]], params: Params) -> Clip:
    result = process_video(path, digest16("media", path.name), ask, params)
    assert result.outcome.status is Status.OK, result.outcome.detail
    clip = result.clips[0]
    worst = worst_psnr(path, clip, result.outcome.header.rotation or 0)
    if params.codec == "jpg":
        assert worst >= 33
    else:
        assert worst == float("inf")
    return clip


MEDIA = [
    "man_nonsquare_sar_512x480.mp4",
    "man_sofa_gestures_1920x1080.mp4",
    "man_suit_vfr_700.mp4",
    "woman_small_face_hevc_1080x1920.mp4",
]


@pytest.mark.media
@pytest.mark.parametrize("name", MEDIA)
@pytest.mark.slow
def test_faces_of_media_files(shared: Callable[[str], Path], ask: Callable[..., list[Faces]], name: str) -> None:
    assert_cut_again(shared("media/videos") / name, ask, PARAMS)


@pytest.mark.media
@pytest.mark.parametrize("name", MEDIA[:2])
@pytest.mark.slow
def test_the_codec_changes_the_stored_image_alone(
    shared: Callable[[str], Path], ask: Callable[..., list[Faces]], name: str
) -> None:
    path = shared("media/videos") / name
    lossless = assert_cut_again(path, ask, PARAMS)
    lossy = assert_cut_again(path, ask, replace(PARAMS, codec="jpg"))
    assert lossless.frames != lossy.frames
    assert lossless.frames_sha256 == lossy.frames_sha256
    assert lossless.align_M == lossy.align_M


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> list[Image]:
    path = tmp_path_factory.mktemp("portrait") / "a.mp4"
    make_face_video(path, n_frames=24, width=480, height=360, seed=3)
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]  # type: ignore[misc]


ONE = 1 << 16
TURNS = {
    0: (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30),
    90: (0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30),
    270: (0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30),
}


@pytest.mark.parametrize(("turn", "aspect"), [(0, None), (90, None), (270, Fraction(4, 3)), (0, Fraction(3, 4))])
def test_faces_of_turned_and_squeezed_videos(
    portrait: list[Image],
    ask: Callable[..., list[Faces]],
    write_video: Write,
    set_display_matrix: Callable[[Path, Sequence[int]], None],
    tmp_path: Path,
    turn: int,
    aspect: Fraction | None,
) -> None:
    """Whatever way a video is stored, its faces come out as from the plain one."""
    if aspect is not None:
        width = round(480 / aspect / 2) * 2 if turn == 0 else 480
        height = 360 if turn == 0 else round(360 / aspect / 2) * 2
        squeezed = [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in portrait]
        images = [np.asarray(image, np.uint8) for image in squeezed]
    else:
        images = portrait
    coded = [np.ascontiguousarray(np.rot90(image, turn // 90)) for image in images]
    path = write_video(tmp_path / "a.mp4", coded, pixel_aspect=aspect, options={"crf": "12"})
    set_display_matrix(path, TURNS[turn])
    clip = assert_cut_again(path, ask, PARAMS)
    face = np.asarray(PilImage.open(io.BytesIO(clip.frames[0])))
    plain = write_video(tmp_path / "plain.mp4", portrait, options={"crf": "12"})
    expected = process_video(plain, digest16("media", path.name), ask, PARAMS).clips[0]
    assert clip.frame_idx == expected.frame_idx
    assert psnr(face, np.asarray(PilImage.open(io.BytesIO(expected.frames[0])))) > 24


def test_crops_without_alignment(
    portrait: list[Image], ask: Callable[..., list[Faces]], write_video: Write, tmp_path: Path
) -> None:
    path = write_video(tmp_path / "a.mp4", portrait)
    clip = assert_cut_again(path, ask, replace(PARAMS, align=False, codec="webp"))
    for matrix, box in zip(clip.align_M, clip.box_xyxy, strict=True):
        m = np.array(matrix).reshape(2, 3)
        assert m[0, 1] == m[1, 0] == 0
        centre = np.array([[(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]])
        assert np.allclose(applied(m, centre), 112, atol=1e-2)
