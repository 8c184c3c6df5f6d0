"""MTCNN beside facenet-pytorch's own cascade: the same faces, wherever they are and on whatever the nets run."""

import hashlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from lps.manifests.errors import UnreadableError
from lps.pipeline.faces import mtcnn
from lps.pipeline.faces.detector import CROP_MIN_FACE_SHARE, Faces, Image
from lps.pipeline.faces.localizers import load_localizer
from lps.pipeline.faces.mtcnn import CHUNK, FACTOR, NETS, THRESHOLDS, WHOLE_MIN_FACE_PX, MtcnnLocalizer
from lps.pipeline.faces.onnx_graphs import mtcnn_graph
from lps.pipeline.faces.onnx_session import RunNet
from lps.pipeline.faces.weights import LOCALIZER_WEIGHTS, as_arrays, find_weight, load_state
from lps.pipeline.tools.demo_faces import load_portrait

pytestmark = pytest.mark.usefixtures("one_thread")

States = dict[str, dict[str, torch.Tensor]]
DIGEST = """
import hashlib
from lps.pipeline.faces.localizers import load_localizer
from tests.pipeline.faces.test_mtcnn import bytes_of, crowd
net = load_localizer("mtcnn", weights_dir=None, device="cpu", batch_size=1)
print(hashlib.sha256(bytes_of(net.detect(crowd()[None], dense=False)[0])).hexdigest())
"""


def bytes_of(faces: Faces) -> bytes:
    return b"".join(values.tobytes() for values in (faces.boxes_xyxy, faces.scores, faces.points))


def portrait(side: int = 320, *, at: tuple[int, int] = (0, 0)) -> Image:
    """The astronaut's face, about 100 px of `side`, moved by `at`; black where nothing is."""
    shift = np.array([[1.0, 0.0, at[0] - 65.0], [0.0, 1.0, at[1] + 40.0]])
    return np.asarray(
        cv2.warpAffine(np.ascontiguousarray(load_portrait("astronaut").rgba[..., :3]), shift, (side, side)), np.uint8
    )


def crowd() -> Image:
    """Twelve faces of two sizes in 480 x 640 px."""
    small = cv2.resize(
        np.ascontiguousarray(load_portrait("astronaut").rgba[..., :3]), (160, 160), interpolation=cv2.INTER_AREA
    )
    other = cv2.resize(
        np.ascontiguousarray(load_portrait("hopper").rgba[..., :3]), (160, 160), interpolation=cv2.INTER_AREA
    )
    return np.concatenate([np.concatenate([small, other] * 2, axis=1)] * 3).astype(np.uint8)


def noise() -> Image:
    return np.random.default_rng(0).integers(0, 256, (64, 90, 3), np.uint8)


@pytest.fixture(scope="module")
def states() -> States:
    paths = [find_weight(weight, None) for weight in LOCALIZER_WEIGHTS["mtcnn"]]
    return dict(zip(NETS, map(load_state, paths), strict=True))


def nets_of(states: States) -> dict[str, RunNet]:
    """Return the nets for a CPU."""
    return mtcnn.onnx_nets([mtcnn_graph(name, as_arrays(states[name])) for name in NETS])


@pytest.fixture(scope="module")
def localizer(states: States) -> MtcnnLocalizer:
    return MtcnnLocalizer(nets_of(states))


@pytest.fixture(scope="module")
def published() -> Iterator[torch.nn.Module]:
    from facenet_pytorch import MTCNN

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its torch.load call predates weights_only
        yield MTCNN(keep_all=True, device="cpu").eval()


def expected(published: torch.nn.Module, image: Image, *, dense: bool) -> tuple[NDArray[np.float64], ...]:
    """Return boxes, scores and points that the package finds."""
    from facenet_pytorch.models.utils.detect_face import detect_face

    min_face_px = CROP_MIN_FACE_SHARE * min(image.shape[:2]) if dense else WHOLE_MIN_FACE_PX
    nets = published.pnet, published.rnet, published.onet
    with torch.inference_mode():
        boxes, points = detect_face(image, min_face_px, *nets, THRESHOLDS, FACTOR, torch.device("cpu"))
    found, corners = np.asarray(boxes[0], np.float64).reshape(-1, 5), np.asarray(points[0], np.float64)
    return found[:, :4], found[:, 4], corners.reshape(-1, 5, 2)


def assert_alike(faces: Faces, wanted: tuple[NDArray[np.float64], ...]) -> None:
    """Boxes, scores and points are equal but for the rounding, in any order."""
    boxes, scores, points = wanted
    assert len(faces) == len(scores)
    if len(scores):
        own = np.abs(boxes[:, None] - faces.boxes_xyxy).max(axis=2).argmin(axis=1)
        assert len(set(own)) == len(scores)
        assert np.abs(faces.boxes_xyxy[own] - boxes).max() <= 1 / 16
        assert np.abs(faces.scores[own] - scores).max() <= 1e-4
        assert np.abs(faces.points[own] - points).max() <= 1 / 16


class TestSameFaces:
    @pytest.mark.parametrize("dense", [True, False])
    @pytest.mark.parametrize("at", [(0, 0), (-110, 10), (140, -100), (25, 150)])
    def test_a_face_anywhere_in_a_crop(
        self, localizer: MtcnnLocalizer, published: torch.nn.Module, at: tuple[int, int], dense: bool
    ) -> None:
        image = portrait(at=at)
        faces = localizer.detect(image[None], dense=dense)[0]
        assert_alike(faces, expected(published, image, dense=dense))
        assert at != (0, 0) or len(faces) == 1

    def test_many_faces(self, states: States, published: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes: list[int] = []

        def counted(pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
            sizes.append(len(pixels))
            return net(pixels)

        nets = nets_of(states)
        net = nets["rnet"]
        faces = MtcnnLocalizer(nets | {"rnet": counted}).detect(crowd()[None], dense=False)[0]
        assert len(faces) >= 12
        assert len(sizes) > 1
        assert max(sizes) == CHUNK
        assert_alike(faces, expected(published, crowd(), dense=False))

    @pytest.mark.parametrize("image", [noise(), np.zeros((320, 320, 3), np.uint8), np.zeros((9, 20, 3), np.uint8)])
    def test_no_face(self, localizer: MtcnnLocalizer, image: Image) -> None:
        for dense in (True, False):
            assert len(localizer.detect(image[None], dense=dense)[0]) == 0

    def test_nets_in_torch_give_the_same(self, localizer: MtcnnLocalizer, states: States) -> None:
        """What a GPU runs, on the CPU."""
        other = MtcnnLocalizer(mtcnn.torch_nets(states, "cpu"))
        found = other.detect(crowd()[None], dense=False)[0]
        ours = localizer.detect(crowd()[None], dense=False)[0]
        assert_alike(ours, (found.boxes_xyxy, found.scores, found.points))


class TestSameBytes:
    def test_alone_and_beside_others(self, localizer: MtcnnLocalizer) -> None:
        images = np.stack([portrait(), portrait(at=(30, 20)), np.zeros((320, 320, 3), np.uint8)])
        together = localizer.detect(images, dense=True)
        assert [len(faces) for faces in together] == [1, 1, 0]
        for image, faces in zip(images, together, strict=True):
            assert bytes_of(localizer.detect(image[None], dense=True)[0]) == bytes_of(faces)

    def test_in_every_process(self) -> None:
        """Whatever number of threads a library is told to use."""
        net = load_localizer("mtcnn", weights_dir=None, device="cpu", batch_size=1)
        here = hashlib.sha256(bytes_of(net.detect(crowd()[None], dense=False)[0])).hexdigest()
        for threads in ("1", "2"):
            environment = os.environ | {"OMP_NUM_THREADS": threads}
            ended = subprocess.run(
                [sys.executable, "-c", DIGEST], env=environment, check=True, capture_output=True, text=True
            )
            assert ended.stdout.strip() == here


class TestMeans:
    @pytest.mark.parametrize(("width", "height"), [(37, 90), (24, 24), (5, 23), (1, 1), (100, 48)])
    @pytest.mark.parametrize("side", [24, 48])
    def test_windows_shrink_and_grow_as_torch_has_it(self, width: int, height: int, side: int) -> None:
        image = np.random.default_rng(1).integers(0, 256, (100, 120, 3), np.uint8)
        sums = cv2.integral(image, sdepth=cv2.CV_32S)
        x, y = 7, 9
        found = mtcnn.means_of_windows(np.asarray(sums), np.array([[0, 0, 9, 9], [x, y, x + width, y + height]]), side)[
            1
        ]
        part = torch.from_numpy(image[y : y + height, x : x + width]).permute(2, 0, 1)[None].double()
        area = interpolate(part, size=(side, side), mode="area")[0].permute(1, 2, 0).numpy()
        assert np.abs(found - area).max() < 1e-4

    def test_whole_images_as_torch_has_it(self) -> None:
        image = noise()
        found = mtcnn.means_of_image(np.asarray(cv2.integral(image, sdepth=cv2.CV_32S)), 39, 55)
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].double()
        area = interpolate(pixels, size=(39, 55), mode="area")[0].permute(1, 2, 0).numpy()
        assert np.abs(found - area).max() < 1e-4

    def test_boxes_beside_the_image_are_dropped(self) -> None:
        boxes = np.array([[-30, -30, -2, -2], [-5, 3, 8, 12], [95, 2, 130, 9], [101, 2, 130, 9]], np.float32)
        inside, windows = mtcnn.windows_inside(boxes, (51, 101, 3))
        assert np.array_equal(inside, boxes[1:3])
        assert windows.tolist() == [[0, 2, 8, 12], [94, 1, 100, 9]]


@pytest.mark.parametrize("load", [nets_of, lambda states: mtcnn.torch_nets(states, "cpu")], ids=["onnx", "torch"])
def test_weights_of_another_net(states: States, load: Callable[[States], object]) -> None:
    with pytest.raises(UnreadableError, match="weights of mtcnn-onet do not fit its network") as caught:
        load(states | {"onet": states["rnet"]})
    assert "\n" not in str(caught.value)
