"""RetinaFace with the real MobileNet weights: faces where they are, and no influence from outside an image."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from retinaface.box_utils import decode, decode_landm
from torchvision.ops import nms

from lps.manifests.arrays import Floats
from lps.manifests.errors import UnreadableError
from lps.pipeline.faces import retinaface
from lps.pipeline.faces.anchors import VARIANCES, Backbone, decoded
from lps.pipeline.faces.detector import Faces, Image
from lps.pipeline.faces.onnx_graphs import retinaface_graph
from lps.pipeline.faces.retinaface import LEVELS, OnnxRetinaFace, RetinaFaceLocalizer
from lps.pipeline.faces.retinaface_torch import TorchRetinaFace, empty_network, pyramid
from lps.pipeline.faces.weights import as_arrays, filled, load_state

pytestmark = pytest.mark.usefixtures("one_thread")

Shared = Callable[[str], Path]


def photo(path: Path, scale: float = 1.0) -> Image:
    """RGB, scaled, cut to sides that are multiples of 32."""
    stored = cv2.imread(str(path))
    assert stored is not None, path
    image = cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = (side // 32 * 32 for side in image.shape[:2])
    return np.asarray(image[:height, :width], np.uint8)


def tiles(image: Image, side: int = 320, count: int = 5) -> NDArray[np.uint8]:
    """Return `count` overlapping squares of `image`, (count, side, side, 3)."""
    rows = np.linspace(0, image.shape[0] - side, count).astype(int)
    columns = np.linspace(0, image.shape[1] - side, count).astype(int)
    return np.stack([image[y : y + side, x : x + side] for y, x in zip(rows, columns, strict=True)])


def assert_same(one: Faces, other: Faces) -> None:
    assert np.array_equal(one.boxes_xyxy, other.boxes_xyxy)
    assert np.array_equal(one.scores, other.scores)
    assert np.array_equal(one.points, other.points)


def overlap(one: Floats, other: Floats) -> float:
    """Return the intersection over union of two boxes."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    common = float(np.prod(np.clip(high - low, 0, None)))
    return common / (float(np.prod(one[2:] - one[:2])) + float(np.prod(other[2:] - other[:2])) - common)


def graphs(state: dict[str, torch.Tensor]) -> list[bytes]:
    return [retinaface_graph(as_arrays(state), levels) for levels in LEVELS]


def mobilenet(state: dict[str, torch.Tensor], **bounds: float) -> RetinaFaceLocalizer:
    return RetinaFaceLocalizer(OnnxRetinaFace(graphs(state)), **bounds)


@pytest.fixture
def state(shared: Shared) -> dict[str, torch.Tensor]:
    return load_state(shared("weights/retinaface_mobilenet025.pth"))


@pytest.fixture
def localizer(state: dict[str, torch.Tensor]) -> RetinaFaceLocalizer:
    return mobilenet(state)


class TestFaces:
    def test_three_people_as_the_large_network_published_them(
        self, localizer: RetinaFaceLocalizer, shared: Shared
    ) -> None:
        faces = localizer.detect(photo(shared("media/images/three_people_ternaus_13.jpg"))[None], dense=False)[0]
        published = json.loads(shared("media/images/expected_retinaface_r50_three_people_ternaus_13.json").read_text())[
            "faces"
        ]
        assert len(faces) == len(published) == 3
        left_to_right = np.argsort(faces.boxes_xyxy[:, 0])
        for place, face in zip(left_to_right, published, strict=True):
            assert overlap(faces.boxes_xyxy[place], np.array(face["bbox"])) > 0.8
            width = face["bbox"][2] - face["bbox"][0]
            miss = np.linalg.norm(faces.points[place] - np.array(face["landmarks"]), axis=1)
            assert miss.max() < 0.15 * width
            assert faces.scores[place] > 0.95

    def test_no_face(self, localizer: RetinaFaceLocalizer, shared: Shared) -> None:
        faces = localizer.detect(photo(shared("media/images/no_face_ternaus.jpg"))[None], dense=False)[0]
        assert len(faces) == 0
        assert faces.points.shape == (0, 5, 2)

    def test_best_score_first_on_the_grid(self, localizer: RetinaFaceLocalizer, shared: Shared) -> None:
        faces = localizer.detect(photo(shared("media/images/multi_face_facenet.jpg"), 0.5)[None], dense=True)[0]
        assert len(faces) >= 5
        assert np.all(np.diff(faces.scores) <= 0)
        assert np.array_equal(np.round(faces.points * 16), faces.points * 16)
        assert faces.boxes_xyxy.dtype == faces.points.dtype == np.float64

    def test_channels_are_turned_for_the_network(self, localizer: RetinaFaceLocalizer, shared: Shared) -> None:
        small = photo(shared("media/images/multi_face_facenet.jpg"), 0.25)
        right, turned = (localizer.detect(image[None], dense=False)[0] for image in (small, small[..., ::-1]))
        assert len(right) >= len(turned)
        n = len(turned)
        assert np.all(right.scores[:n] > turned.scores + 0.05)

    def test_thresholds(self, state: dict[str, torch.Tensor], shared: Shared) -> None:
        image = photo(shared("media/images/three_people_ternaus_13.jpg"))[None]
        few = mobilenet(state, min_score=0.995).detect(image, dense=False)[0]
        many = mobilenet(state, max_overlap=1.0).detect(image, dense=False)[0]
        assert len(few) < 3 < len(many)


class TestBatches:
    def test_a_face_alone_and_beside_others(self, localizer: RetinaFaceLocalizer, shared: Shared) -> None:
        images = tiles(photo(shared("media/images/multi_face_facenet.jpg"), 0.7))
        together = localizer.detect(images, dense=False)
        assert len(together) == len(images)
        assert sum(len(faces) for faces in together) >= 3
        for image, faces in zip(images, together, strict=True):
            assert_same(localizer.detect(image[None], dense=False)[0], faces)
        for faces, mirrored in zip(together, localizer.detect(images[::-1], dense=False)[::-1], strict=True):
            assert_same(faces, mirrored)

    def test_raw_outputs_do_not_depend_on_the_neighbour(
        self, localizer: RetinaFaceLocalizer, shared: Shared, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[Floats, Floats, Floats]] = []

        def unrounded(boxes: Floats, scores: Floats, points: Floats) -> Faces:
            seen.append((boxes, scores, points))
            return Faces(boxes, scores, points)

        monkeypatch.setattr(retinaface, "rounded_faces", unrounded)
        image = photo(shared("media/images/multi_face_facenet.jpg"), 0.3)
        noise = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)
        for batch in (image[None], np.stack([image, noise]), np.stack([noise, image])):
            localizer.detect(batch, dense=False)
        alone, *others = [found for found in seen if len(found[1])]
        for found in others:
            for a, b in zip(alone, found, strict=True):
                assert a.tobytes() == b.tobytes(), "equal to the last bit, before any rounding"

    def test_no_images(self, localizer: RetinaFaceLocalizer) -> None:
        assert localizer.detect(np.zeros((0, 64, 64, 3), np.uint8), dense=False) == []

    @pytest.mark.parametrize("shape", [(1, 100, 64, 3), (1, 64, 65, 3), (64, 64, 3), (1, 64, 64, 1)])
    def test_shapes_that_do_not_fit(self, localizer: RetinaFaceLocalizer, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="images.shape"):
            localizer.detect(np.zeros(shape, np.uint8), dense=False)

    def test_pixels_that_are_not_bytes(self, localizer: RetinaFaceLocalizer) -> None:
        with pytest.raises(ValueError, match="float32"):
            localizer.detect(np.zeros((1, 64, 64, 3), np.float32), dense=False)

    def test_global_state_is_left_alone(self, state: dict[str, torch.Tensor]) -> None:
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        before = (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32)
        mobilenet(state).detect(np.zeros((1, 64, 64, 3), np.uint8), dense=False)
        assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32) == before
        assert torch.equal(torch.rand(2), expected)


class TestNetworks:
    def test_anchors_are_those_of_both_packages(self, localizer: RetinaFaceLocalizer) -> None:
        from face_alignment.detection.retinaface.net_retinaface import cfg_mnet
        from face_alignment.detection.retinaface.prior_box import PriorBox

        assert cfg_mnet["variance"] == VARIANCES
        theirs = PriorBox(cfg_mnet, image_size=(96, 160)).forward().double()
        assert np.array_equal(localizer.anchors(96, 160, 3), theirs.numpy())
        assert np.array_equal(localizer.anchors(96, 160, 2), theirs.numpy()[-2 * (6 * 10 + 3 * 5) :])

    def test_mobilenet_is_that_of_face_alignment(self) -> None:
        from face_alignment.detection.retinaface.net_retinaface import RetinaFace

        theirs = RetinaFace().eval()
        state = random_state(theirs)
        theirs.load_state_dict(state)
        ours = filled(empty_network("mobilenet"), state, "mobilenet")
        pixels = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(0)) * 60
        with torch.inference_mode():
            (boxes, logits, points), (their_boxes, shares, their_points) = ours(pixels), theirs(pixels)
        assert torch.equal(boxes, their_boxes)
        assert torch.equal(points, their_points)
        assert torch.equal(logits.softmax(-1), shares)
        assert boxes.abs().max() > 0

    @pytest.mark.parametrize("backbone", ["mobilenet", "resnet50"])
    def test_levels_are_those_of_the_whole_network(self, backbone: Backbone) -> None:
        net = filled(empty_network(backbone), random_state(empty_network(backbone)), backbone)
        pixels = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            boxes, logits, points = net(pixels)
            for levels, n_anchors in ((3, 2 * (12 * 20 + 6 * 10 + 3 * 5)), (2, 2 * (6 * 10 + 3 * 5))):
                part = pyramid(net, pixels, levels)
                assert part[0].shape[1] == n_anchors
                assert torch.equal(part[0], boxes[:, -n_anchors:])
                assert torch.equal(part[2], points[:, -n_anchors:])
                assert torch.allclose(part[1].softmax(-1), logits[:, -n_anchors:].softmax(-1), atol=1e-6)

    def test_a_known_face_is_found_alike_without_the_finest_level(
        self, localizer: RetinaFaceLocalizer, shared: Shared
    ) -> None:
        image = photo(shared("media/images") / "face_alignment_aflw_test.jpg")
        whole = localizer.detect(image[None], dense=False)[0]
        left, top, right, bottom = whole.boxes_xyxy[0]
        side = 2.5 * max(right - left, bottom - top)
        matrix = np.array(
            [[320 / side, 0, 160 - 160 / side * (left + right)], [0, 320 / side, 160 - 160 / side * (top + bottom)]]
        )
        crop = np.asarray(cv2.warpAffine(image, matrix, (320, 320)), np.uint8)
        fine, coarse = (localizer.detect(crop[None], dense=dense)[0] for dense in (False, True))
        assert np.array_equal(fine.points[0], coarse.points[0])
        assert fine.scores[0] == coarse.scores[0] > 0.9

    def test_codes_are_those_of_the_package(self) -> None:
        random = np.random.default_rng(0)
        codes, anchors = random.normal(0, 2, (50, 14)), random.uniform(0.01, 1, (50, 4))
        boxes, points = decoded(codes, anchors)
        theirs, priors = torch.from_numpy(codes), torch.from_numpy(anchors)
        assert np.allclose(boxes, decode(theirs[:, :4], priors, VARIANCES).numpy(), atol=1e-12)
        assert np.allclose(points.reshape(-1, 10), decode_landm(theirs[:, 4:], priors, VARIANCES).numpy(), atol=1e-12)

    @pytest.mark.parametrize("levels", [2, 3])
    def test_runtime_finds_what_torch_finds(self, state: dict[str, torch.Tensor], shared: Shared, levels: int) -> None:
        images = tiles(photo(shared("media/images/multi_face_facenet.jpg"), 0.7))
        ours = OnnxRetinaFace(graphs(state))(images, levels, 0.5)
        theirs = TorchRetinaFace("mobilenet", state, "cpu", 2)(images, levels, 0.5)
        assert sum(len(found.anchors) for found in ours) >= 3
        for one, other in zip(ours, theirs, strict=True):
            assert np.array_equal(one.anchors, other.anchors)
            assert np.allclose(one.scores, other.scores, atol=1e-5)
            assert np.allclose(one.codes, other.codes, atol=1e-3)

    def test_state_of_another_network(self, state: dict[str, torch.Tensor]) -> None:
        with pytest.raises(UnreadableError, match="weights of retinaface-resnet50 do not fit") as caught:
            RetinaFaceLocalizer(TorchRetinaFace("resnet50", state, "cpu", 1))
        assert "\n" not in str(caught.value)
        with pytest.raises(UnreadableError, match="weights of retinaface-mobilenet do not fit"):
            mobilenet(random_state(empty_network("resnet50")))

    def test_large_network_takes_what_its_package_feeds_it(self) -> None:
        """Random weights: the package's preprocessing, in float64, and its decoding give the same faces."""
        state = random_state(empty_network("resnet50"))
        localizer = RetinaFaceLocalizer(TorchRetinaFace("resnet50", state, "cpu", 1))
        image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
        means, stds = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        normalised = torch.from_numpy((image / 255.0 - means) / stds).permute(2, 0, 1)[None]
        net = filled(empty_network("resnet50"), state, "resnet50").double()
        with torch.inference_mode():
            codes, logits, _ = net(normalised)
        anchors = torch.from_numpy(localizer.anchors(64, 96, 3))
        boxes = decode(codes[0], anchors, [0.1, 0.2]) * torch.tensor([96, 64, 96, 64])
        scores = logits[0].softmax(-1)[:, 1]
        passed = scores > 0.5
        kept = nms(boxes[passed], scores[passed], 0.4)
        faces = localizer.detect(image[None], dense=False)[0]
        assert len(faces) == len(kept) > 0
        assert np.allclose(faces.scores, scores[passed][kept].numpy(), atol=2e-4)
        misses = np.abs(faces.boxes_xyxy[:, None] - boxes[passed][kept].numpy()[None]).max(axis=2)
        assert misses.min(axis=1).max() < 0.1


def random_state(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return weights for `net` that keep activations near unit size; norms that change nothing."""
    generator = torch.Generator().manual_seed(0)

    def drawn(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim < 2:
            zero = tensor.ndim == 0 or name.endswith(("bias", "running_mean"))
            return torch.full(tensor.shape, 0.0 if zero else 1.0, dtype=tensor.dtype)
        return torch.randn(tensor.shape, generator=generator).div(tensor[0].numel() ** 0.5)

    return {name: drawn(name, tensor) for name, tensor in net.state_dict().items()}
