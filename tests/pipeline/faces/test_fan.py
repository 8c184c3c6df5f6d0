"""FAN: geometry and peaks against known places and against face-alignment's own, and the pair retinaface-fan."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from face_alignment.models import FAN
from face_alignment.utils import crop, get_preds_fromhm
from numpy.typing import NDArray
from torch import Tensor, nn

from lps.manifests.arrays import Floats
from lps.manifests.errors import UnreadableError
from lps.pipeline.faces.detector import Faces, Image, no_faces, rounded_faces
from lps.pipeline.faces.fan import (
    MAX_DENSE_FACES,
    RETINAFACE_REFERENCE_PX,
    FanLocalizer,
    crop_map,
    fan_network,
    five_points,
    heatmap_peaks,
    largest,
    warped,
)
from lps.pipeline.faces.localizers import load_localizer
from lps.pipeline.faces.retinaface import RetinaFaceLocalizer
from lps.pipeline.faces.retinaface_torch import TorchRetinaFace, empty_network

pytestmark = pytest.mark.usefixtures("one_thread")

Shared = Callable[[str], Path]

BOX = np.array([100.0, 80.0, 180.0, 190.0])


def faces_at(*boxes: Floats) -> Faces:
    """Faces of falling score; all points of a face at its upper left corner."""
    corners = np.array([[box[:2]] * 5 for box in boxes])
    return rounded_faces(np.array(boxes), np.linspace(0.9, 0.8, len(boxes)), corners)


class Planted:
    """A detector that finds what it was told."""

    def __init__(self, found: list[Faces]) -> None:
        self.found = found

    def detect(self, images: NDArray[np.uint8], *, dense: bool) -> list[Faces]:
        assert len(images) == len(self.found)
        return self.found


class Brightness(nn.Module):
    """All 68 heatmaps are the smoothed green channel: every landmark lies on the bright spot."""

    def forward(self, pixels: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(pixels[:, 1:2], 4).expand(-1, 68, -1, -1).contiguous()


class Scattered(nn.Module):
    """Every landmark has its own place in the crop, whatever that shows."""

    def forward(self, pixels: Tensor) -> Tensor:
        maps = torch.zeros(len(pixels), 68, 64, 64)
        for k in range(68):
            maps[:, k, (37 * k) % 61 + 1, (23 * k) % 59 + 1] = 1
        return maps


def spot(x: float, y: float, sigma: float = 5.0, size: int = 320) -> Image:
    """A bright Gaussian spot in a black image."""
    rows, columns = np.mgrid[:size, :size]
    value = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(value[:, :, None], 3, axis=2).astype(np.uint8)


def random_state(net: nn.Module) -> dict[str, Tensor]:
    """Return weights for `net` that keep activations near unit size; norms that change nothing."""
    generator = torch.Generator().manual_seed(0)

    def drawn(name: str, tensor: Tensor) -> Tensor:
        if tensor.ndim < 2:
            zero = tensor.ndim == 0 or name.endswith(("bias", "running_mean"))
            return torch.full(tensor.shape, 0.0 if zero else 1.0, dtype=tensor.dtype)
        return torch.randn(tensor.shape, generator=generator).div(tensor[0].numel() ** 0.5)

    return {name: drawn(name, tensor) for name, tensor in net.state_dict().items()}


class TestGeometry:
    @pytest.mark.parametrize("place", [(140.0, 120.0), (151.3, 160.8), (120.6, 99.5)])
    @pytest.mark.parametrize("average_flip", [False, True])
    def test_landmarks_lie_on_the_spot(self, place: tuple[float, float], average_flip: bool) -> None:
        localizer = FanLocalizer(Planted([]), Brightness(), "cpu", 2, average_flip=average_flip)
        points = localizer.landmarks(spot(*place)[None], [BOX[None]])[0]
        assert points.shape == (1, 68, 2)
        assert np.abs(points - place).max() < 0.25, "a quarter of a pixel, an eighth of a cell of the heatmap"

    @pytest.mark.slow
    def test_steadier_than_the_package_and_equal_on_average(self) -> None:
        """The package truncates to whole pixels of the image; over many places its points agree with these."""
        localizer = FanLocalizer(Planted([]), Brightness(), "cpu", 4, average_flip=False)
        rng = np.random.default_rng(0)
        places = rng.uniform(110, 170, (24, 2))
        images = np.stack([spot(x, y) for x, y in places])
        ours = np.array([p[0, 0] for p in localizer.landmarks(images, [BOX[None]] * len(images))])
        width, height = BOX[2:] - BOX[:2]
        centre = (BOX[:2] + BOX[2:]) / 2 - [0, 0.12 * height]
        scale = (width + height) / RETINAFACE_REFERENCE_PX
        theirs = []
        for image in images:
            pixels = torch.from_numpy(crop(image, torch.tensor(centre), scale)).permute(2, 0, 1)[None] / 255.0
            _, points, _ = get_preds_fromhm(Brightness()(pixels).numpy(), centre, scale)
            theirs.append(points[0, 0])
        our_miss, their_miss = ours - places, np.array(theirs) - places
        assert np.abs(our_miss).max() < 0.25
        assert np.abs(their_miss).max() < 2.0
        assert np.abs(our_miss).mean() < np.abs(their_miss).mean() / 3
        assert np.abs(our_miss.mean(axis=0) - their_miss.mean(axis=0)).max() < 0.6

    def test_crop_outside_of_the_image_is_black(self) -> None:
        white = np.full((64, 64, 3), 255, np.uint8)
        assert warped(white, crop_map(np.array([-300.0, -300.0, -200.0, -200.0]))).max() == 0
        corner = warped(white, crop_map(np.array([-20.0, -20.0, 20.0, 20.0])))
        assert corner[:100, :100].max() == 0
        assert corner[-20:, -20:].min() == 255

    def test_crop_map_shows_the_box_where_the_network_expects_it(self) -> None:
        source = crop_map(BOX)
        x, y = (BOX[:2] + BOX[2:]) / 2
        middle = source @ [127.5, 127.5, 1.0]
        assert np.allclose(middle, [x - 0.5, y - 0.5 - 0.12 * 110])
        assert source[0, 0] * 256 == pytest.approx(200 * (80 + 110) / 165)


class TestPeaks:
    def test_between_cells(self) -> None:
        rng = np.random.default_rng(0)
        places = rng.uniform(3, 60, (50, 2))
        rows, columns = np.mgrid[:64, :64]
        maps = np.exp(-((columns - places[:, :1, None]) ** 2 + (rows - places[:, 1:, None]) ** 2) / (2 * 1.5**2))
        peaks = heatmap_peaks(torch.from_numpy(maps[None]).float())[0].numpy()
        _, quarter, _ = maps[None], get_preds_fromhm(maps[None])[0][0] - 0.5, None
        assert np.abs(peaks - places).max() < 0.06
        assert np.abs(quarter - places).max() > 0.2
        assert np.abs(peaks - quarter).max() <= 0.26, "never further from the package's rule than that rule's step"

    def test_on_the_border_and_on_plateaus(self) -> None:
        maps = torch.zeros(1, 4, 8, 6)
        maps[0, 0, 0, 0] = 1
        maps[0, 1, 7, 5] = 1
        maps[0, 2, 3, 2:5] = 1
        peaks = heatmap_peaks(maps)[0]
        assert peaks.tolist() == [[0, 0], [5, 7], [2.5, 3], [0, 0]]

    def test_any_heatmap_gives_places_inside(self) -> None:
        peaks = heatmap_peaks(torch.randn(3, 68, 64, 64, generator=torch.Generator().manual_seed(0)))
        assert torch.isfinite(peaks).all()
        assert peaks.min() >= 0
        assert peaks.max() <= 63


class TestReduction:
    def test_five_of_sixty_eight(self) -> None:
        points = np.arange(2 * 68 * 2, dtype=float).reshape(2, 68, 2)
        five = five_points(points)
        assert five.shape == (2, 5, 2)
        assert five[0].tolist() == [[77, 78], [89, 90], [60, 61], [96, 97], [108, 109]]
        assert five_points(np.zeros((0, 68, 2))).shape == (0, 5, 2)

    def test_left_and_right_as_the_published_landmarks_have_them(self, shared: Shared) -> None:
        published = json.loads(shared("media/images/expected_3dfan_68_face_alignment_aflw_test.json").read_text())
        left, right, nose, left_corner, right_corner = five_points(np.array(published["landmarks"])[None, :, :2])[0]
        assert left[0] < nose[0] < right[0]
        assert left_corner[0] < right_corner[0]
        assert left[1] < nose[1] < left_corner[1]

    def test_only_the_largest_faces(self) -> None:
        boxes = [np.array([0.0, 0.0, side, side]) for side in (30, 90, 50, 70, 20, 90)]
        assert largest(faces_at(*boxes)).tolist() == [1, 5, 3, 2]
        assert largest(no_faces()).tolist() == []


class TestLocalizer:
    def test_dense_moves_the_points_of_the_largest_only(self) -> None:
        small = [np.array([10.0 * i, 250.0, 10.0 * i + 30, 290.0]) for i in range(4)]
        found = [no_faces(), faces_at(BOX, *small), no_faces()]
        images = np.stack([spot(140, 120)] * 3)
        localizer = FanLocalizer(Planted(found), Brightness(), "cpu", 3)
        assert localizer.detect(images, dense=False) is found
        dense = localizer.detect(images, dense=True)
        assert [len(faces) for faces in dense] == [0, 5, 0]
        assert np.array_equal(dense[1].boxes_xyxy, found[1].boxes_xyxy)
        assert np.array_equal(dense[1].scores, found[1].scores)
        assert np.abs(dense[1].points[0] - [140, 120]).max() < 0.25
        moved = [not np.array_equal(a, b) for a, b in zip(dense[1].points, found[1].points, strict=True)]
        assert sum(moved) == MAX_DENSE_FACES
        assert np.array_equal(np.round(dense[1].points * 16), dense[1].points * 16)

    def test_dense_gives_the_landmarks_that_the_points_are_reduced_from(self) -> None:
        boxes = [BOX, *(BOX + 9.0 * i for i in range(1, 6))]
        localizer = FanLocalizer(Planted([faces_at(*boxes)]), Scattered(), "cpu", 3)
        image = spot(140, 120)[None]
        faces = localizer.detect(image, dense=True)[0]
        assert faces.points68 is not None
        with_68 = np.isfinite(faces.points68).all(axis=(1, 2))
        assert with_68.sum() == MAX_DENSE_FACES
        assert np.isnan(faces.points68[~with_68]).all()
        landmarks = faces.points68[with_68]
        assert np.ptp(landmarks, axis=1).min() > 40, "68 places, not one"
        assert np.abs(five_points(landmarks) - faces.points[with_68]).max() <= 1 / 16, "both are rounded to 1/16 px"
        assert np.array_equal(np.round(landmarks * 16), landmarks * 16)

    def test_without_dense_nothing_has_landmarks(self) -> None:
        localizer = FanLocalizer(Planted([faces_at(BOX)]), Brightness(), "cpu", 1)
        assert localizer.detect(spot(140, 120)[None], dense=False)[0].points68 is None

    @pytest.mark.slow
    def test_a_face_alone_and_beside_others(self) -> None:
        net = FAN(1)
        net.load_state_dict(random_state(net))
        noise = np.random.default_rng(0).integers(0, 256, (3, 320, 320, 3), np.uint8)
        images = np.stack([cv2.GaussianBlur(image, (0, 0), 6) for image in noise])
        boxes = [np.stack([BOX + 7 * i, BOX - 11 * i]) for i in range(3)]
        localizer = FanLocalizer(Planted([]), net, "cpu", 4)
        together = localizer.landmarks(images, boxes)
        for i in (0, 2):
            assert localizer.landmarks(images[i : i + 1], boxes[i : i + 1])[0].tobytes() == together[i].tobytes()
        assert localizer.landmarks(images[1:2], [boxes[1][1:]])[0][0].tobytes() == together[1][1].tobytes()

    def test_nothing_to_do(self) -> None:
        localizer = FanLocalizer(Planted([no_faces()]), Brightness(), "cpu", 2)
        image = np.zeros((1, 64, 64, 3), np.uint8)
        assert len(localizer.detect(image, dense=True)[0]) == 0
        assert localizer.landmarks(image, [np.zeros((0, 4))])[0].shape == (0, 68, 2)

    def test_state_of_another_network(self) -> None:
        with pytest.raises(UnreadableError, match="weights of 2DFAN-4 do not fit"):
            fan_network(FAN(1).state_dict())


class TestPair:
    """`retinaface-fan` as a whole. Its weights are not everywhere, so structure is tested with random ones.

    The published outputs come from another image size (boxes) and the 3D network (landmarks), hence the tolerances.
    """

    @pytest.mark.slow
    def test_end_to_end_with_random_weights(self) -> None:
        state, images = random_state(empty_network("resnet50")), np.zeros((2, 64, 96, 3), np.uint8)
        images[1] = np.random.default_rng(1).integers(0, 256, images.shape[1:], np.uint8)
        net = fan_network(random_state(FAN(4)))
        found = []
        for batch in (images, images[::-1]):
            detector = RetinaFaceLocalizer(TorchRetinaFace("resnet50", state, "cpu", 2))
            found.append(FanLocalizer(detector, net, "cpu", 4, average_flip=False).detect(batch, dense=True))
        for faces, again in zip(found[0], found[1][::-1], strict=True):
            assert np.isfinite(faces.points).all()
            assert faces.points.shape == (len(faces), 5, 2)
            assert np.array_equal(faces.points, again.points)
            assert np.array_equal(faces.boxes_xyxy, again.boxes_xyxy)
        assert len(found[0][1]) > 0

    @pytest.fixture
    def published(self) -> FanLocalizer:
        try:
            localizer = load_localizer("retinaface-fan", weights_dir=None, device="cpu", batch_size=1)
        except UnreadableError as e:
            pytest.skip(f"the published weights are not here: {e}")
        assert isinstance(localizer, FanLocalizer)
        return localizer

    def test_published_boxes(self, published: FanLocalizer, shared: Shared) -> None:
        faces = published.detect(
            rgb(shared("media/images/three_people_ternaus_13.jpg"), (928, 672))[None], dense=False
        )[0]
        expected = json.loads(shared("media/images/expected_retinaface_r50_three_people_ternaus_13.json").read_text())[
            "faces"
        ]
        assert len(faces) == len(expected)
        boxes = np.array([face["bbox"] for face in expected])
        points = np.array([face["landmarks"] for face in expected])
        order = np.argsort(faces.boxes_xyxy[:, 0])
        miss_px = 0.1 * (boxes[:, 2] - boxes[:, 0]).min()
        assert np.abs(faces.boxes_xyxy[order] - boxes).max() < miss_px
        assert np.abs(faces.points[order] - points).max() < miss_px

    def test_published_landmarks(self, published: FanLocalizer, shared: Shared) -> None:
        expected = json.loads(shared("media/images/expected_3dfan_68_face_alignment_aflw_test.json").read_text())
        image = rgb(shared("media/images/face_alignment_aflw_test.jpg"), (448, 448))[None]
        inner = slice(17, 68)  # the jaw of the 2D network follows the visible contour, the reference does not
        points = published.landmarks(image, [published.detect(image, dense=False)[0].boxes_xyxy[:1]])[0][0]
        assert np.abs(points[inner] - np.array(expected["landmarks"])[inner, :2]).mean() < 6.0


def rgb(path: Path, size: tuple[int, int]) -> Image:
    """Return the upper left `size` (width, height) of the image at `path`."""
    stored = cv2.imread(str(path))
    assert stored is not None, path
    return np.asarray(cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)[: size[1], : size[0]], np.uint8)
