"""Figures 1 and 2: second differences of a recognizer's features, their statistics, and which files are taken."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from facenet_pytorch import InceptionResnetV1
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lps.cli.train.main import main
from lps.manifests.errors import LpsError, RefusedError, UnreadableError
from lps.model.paper.figures.clips import open_whole, some_of_each
from lps.model.paper.figures.second_difference import (
    Patterns,
    compared,
    draw_second_difference,
    second_differences,
    statistics,
)
from lps.model.paper.recognizer import FACENET_FILE, Recognizer, open_recognizer

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec

pytestmark = pytest.mark.usefixtures("one_thread")

PX = 32


def pooled(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return means over cells of 8 px as a feature map of three channels, (n, 3, 4, 4)."""
    n = len(frames)
    cells = frames.reshape(n, 4, PX // 4, 4, PX // 4, 3).mean((2, 4))
    return np.asarray(cells.transpose(0, 3, 1, 2), np.float32)


POOLED = Recognizer("pooled", "", PX, pooled)


@pytest.fixture
def specs(spec: "type[Spec]") -> "list[Spec]":
    found = []
    for k in range(3):
        found.append(spec(video=f"r{k}", label=0, split="test", codec="png"))
        found.append(spec(video=f"f{k}", label=1, original=f"r{k}", split="test", codec="png"))
    return found


@pytest.fixture
def data(make: "Maker", specs: "list[Spec]") -> str:
    return str(make.data_set([specs]))


def graph(
    path: Path, *, node: Any = None, sides: tuple[Any, ...] = (1, 3, PX, PX), out: Any = (1, 2, None, None)
) -> Path:
    """Write an ONNX file: a convolution of two channels over cells of 8 px, or another node."""
    weight = numpy_helper.from_array(np.ones((2, 3, 8, 8), np.float32) / 192, "w")
    node = node or helper.make_node("Conv", ["x", "w"], ["y"], strides=[8, 8])
    made = helper.make_graph(
        [node],
        "trunk",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [weight],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["figure", "second-diff", *map(str, words)])


# ---- the difference --------------------------------------------------------------------------------------------------


def test_maps_are_second_differences_of_channel_means(data: str, specs: "list[Spec]") -> None:
    found = second_differences(POOLED, "test", open_whole(data), 0)
    assert found.maps.shape == (6, 4, 4)
    for key, label, values in zip(found.keys, found.labels, found.maps, strict=True):
        (mine,) = [each for each in specs if each.key == key]
        a, b, c = (pooled(frame[None])[0].mean(0) for frame in mine.frames())
        assert label == mine.label
        np.testing.assert_allclose(values, a - 2 * b + c, atol=1e-4)


def test_frames_are_drawn_by_the_seed(make: "Maker", spec: "type[Spec]") -> None:
    location = str(make.data_set([[spec(video=f"v{k}", label=k % 2, n_frames=20) for k in range(8)]]))
    first, again, other = (second_differences(POOLED, "test", open_whole(location), seed).maps for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_whole_data_set_with_one_clip_a_video(make: "Maker", spec: "type[Spec]") -> None:
    train = [spec(video="a", label=0, start_frame=start) for start in (0, 10, 20)]
    test = [spec(video="b", label=1, split="test"), spec(video="c", label=None, split="test")]
    whole = open_whole(str(make.data_set([train, test])))
    assert sorted(whole.labels.tolist()) == [0, 1]
    assert whole.identity.split == "test, train"


def test_videos_of_each_class_are_limited(data: str) -> None:
    whole = open_whole(data)
    some = some_of_each(whole, 2, 0)
    assert some.labels.tolist().count(0) == some.labels.tolist().count(1) == 2
    assert some.samples.equals(some_of_each(whole, 2, 0).samples)
    assert len(some_of_each(whole, 9, 0)) == 6


def test_maps_that_are_not_finite_are_an_error(data: str) -> None:
    broken = Recognizer("broken", "", PX, lambda frames: np.full((len(frames), 2, 4, 4), np.nan, np.float32))
    with pytest.raises(LpsError, match="recognizer 'broken' are not finite"):
        second_differences(broken, "test", open_whole(data), 0)


def test_one_class_alone_is_refused(make: "Maker", spec: "type[Spec]", tmp_path: Path) -> None:
    whole = open_whole(str(make.data_set([[spec(video=f"r{k}", label=0) for k in range(3)]])))
    with pytest.raises(RefusedError, match="does not have both real and fake videos"):
        draw_second_difference([POOLED], {"test": whole}, tmp_path)


def test_a_class_that_cannot_be_read_is_refused(make: "Maker", specs: "list[Spec]") -> None:
    spoil = {name: lambda members: members.pop("00.png") for name in ("r0", "r1", "r2")}
    whole = open_whole(str(make.data_set([specs], spoil=spoil)))
    with pytest.raises(RefusedError, match="'test' has no readable clip of one class"):
        second_differences(POOLED, "test", whole, 0)


# ---- statistics ------------------------------------------------------------------------------------------------------


def test_statistics_of_known_maps() -> None:
    spike = np.zeros((5, 5))
    spike[2, 2] = -50.0
    corner = np.zeros((5, 5))
    corner[0, 0] = 25.0
    found = statistics(np.stack([spike, corner, np.ones((5, 5)), np.zeros((5, 5))]))
    np.testing.assert_allclose(found["strength"], [2, 1, 1, 0])
    np.testing.assert_allclose(found["centre"], [25 / 9, 0, 1, np.nan])
    np.testing.assert_allclose(found["spread"], [50 * np.sqrt(24) / 25, np.sqrt(24), 0, 0])
    # spike . (corner + ones) over their lengths: 50 / (50 sqrt(26^2 + 24))
    np.testing.assert_allclose(found["likeness"][0], 1 / np.sqrt(26**2 + 24))
    assert np.isnan(found["likeness"][3])


def test_fakes_are_compared_with_intervals() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(0, 1, (60, 5, 5)), rng.normal(0, 3, (60, 5, 5))
    labels = np.repeat([0, 1], 60)
    found = compared(Patterns(POOLED, "test", np.concatenate([real, fake]), labels, ("",) * 120), 0)
    for name in ("strength", "spread"):
        ratio = found[name]["fake_over_real"]
        assert ratio["low"] < ratio["value"] < ratio["high"]
        assert ratio["low"] < 3 < ratio["high"]
    even = found["centre"]["fake_over_real"]
    assert even["low"] < 1 < even["high"]


def test_too_few_videos_have_no_interval() -> None:
    maps = np.stack([np.eye(3), 2 * np.eye(3)])
    found = compared(Patterns(POOLED, "test", maps, np.array([0, 1]), ("a", "b")), 0)
    assert found["strength"]["fake_over_real"] == {"value": 2.0, "low": None, "high": None}
    assert found["likeness"]["fake_over_real"] == {"value": None, "low": None, "high": None}


def test_frames_without_a_change_have_no_ratio() -> None:
    found = compared(Patterns(POOLED, "test", np.zeros((4, 3, 3)), np.array([0, 0, 1, 1]), tuple("abcd")), 0)
    assert {each["fake_over_real"]["value"] for each in found.values()} == {None}


# ---- recognizers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def facenet() -> InceptionResnetV1:
    torch.manual_seed(0)
    return InceptionResnetV1(pretrained=None).eval()


@pytest.mark.parametrize("zipped", [False, True])
def test_facenet_gives_maps_of_5x5(facenet: InceptionResnetV1, tmp_path: Path, zipped: bool) -> None:
    state = {key: value.half() if value.is_floating_point() else value for key, value in facenet.state_dict().items()}
    state |= {"logits.weight": torch.zeros(8631, 512).half(), "logits.bias": torch.zeros(8631).half()}  # as published
    torch.save(state, tmp_path / "weights.pt", _use_new_zipfile_serialization=zipped)
    opened = open_recognizer("facenet", tmp_path / "weights.pt")
    frames = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype(np.uint8)
    maps = opened.semantic_maps(frames)
    assert maps.shape == (2, 5, 5)
    assert opened.image_px == 224
    if zipped:
        return
    x = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() - 127.5) / 128
    with torch.inference_mode():
        for name, layer in facenet.named_children():
            if name == "avgpool_1a":
                break
            x = layer(x)
    np.testing.assert_allclose(maps, x.mean(1), rtol=0.02, atol=1e-4)  # weights were rounded to half precision


def test_onnx_is_computed_frame_by_frame(tmp_path: Path) -> None:
    opened = open_recognizer("own", graph(tmp_path / "own.onnx"))
    frames = np.random.default_rng(0).integers(0, 256, (3, PX, PX, 3)).astype(np.uint8)
    assert opened.image_px == PX
    np.testing.assert_allclose(opened.semantic_maps(frames), pooled(frames).mean(1), rtol=1e-4)
    assert open_recognizer("any", graph(tmp_path / "any.onnx", sides=("n", 3, "h", "w"))).image_px == 224


class Hostile:
    """Leaves a mark where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"weight": Hostile(tmp_path / "was-here")}, tmp_path / "weights.pt")
    with pytest.raises(UnreadableError, match="not a readable file of weights"):
        open_recognizer("facenet", tmp_path / "weights.pt")
    assert not (tmp_path / "was-here").exists()


def test_programs_are_not_taken(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        archive.writestr("program/data.pkl", b"")
        archive.writestr("program/constants.pkl", b"")
    with pytest.raises(UnreadableError, match="programs of TorchScript and torch.export are not run"):
        open_recognizer("own", tmp_path / "program.pt")


def test_other_files_are_one_line(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(UnreadableError, match=r"holds another network than FaceNet \(see"):
        open_recognizer("facenet", tmp_path / "other.pt")
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    with pytest.raises(UnreadableError, match="holds more than weights by name"):
        open_recognizer("facenet", tmp_path / "list.pt")
    whole = bytearray((tmp_path / "other.pt").read_bytes())
    place = whole.index(bytes(12), whole.index(b"data/0"))  # of the tensor's zeros
    whole[place] ^= 1
    (tmp_path / "damaged.pt").write_bytes(whole)
    with pytest.raises(UnreadableError, match="not a readable file of weights"):
        open_recognizer("facenet", tmp_path / "damaged.pt")
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(UnreadableError, match="not a readable ONNX file"):
        open_recognizer("own", tmp_path / "bad.onnx")


def test_graphs_with_other_inputs_or_outputs_are_refused(tmp_path: Path) -> None:
    for sides in ((2, 3, PX, PX), (1, 1, PX, PX), (1, 3, PX, 2 * PX)):
        node = helper.make_node("Identity", ["x"], ["y"])
        with pytest.raises(RefusedError, match=r"a recognizer takes float32 \(1 or any, 3, H, H\)"):
            open_recognizer("own", graph(tmp_path / "in.onnx", node=node, sides=sides, out=sides))
    flat = helper.make_node("Flatten", ["x"], ["y"])
    with pytest.raises(RefusedError, match="up to its last convolution"):
        open_recognizer("own", graph(tmp_path / "out.onnx", node=flat, out=(1, 3 * PX * PX)))


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_figures_maps_and_statistics(data: str, tmp_path: Path) -> None:
    own = graph(tmp_path / "own.onnx")
    words = ("--data", f"a={data}", "--data", f"b={data}", "--recognizer", f"own={own}")
    texts = []
    for name in ("one", "two"):
        result = call(tmp_path / name, *words)
        assert result.exit_code == 0, result.output
        texts.append([(tmp_path / name / file).read_bytes() for file in (
            "second-diff.png", "second-diff-frames.png", "second-diff.json")])  # fmt: skip
    assert texts[0] == texts[1]
    assert all(text.startswith(b"\x89PNG") for text in texts[0][:2])
    assert "own on a, 3 real and 3 fake videos, fake over real:" in result.output
    facts = json.loads(texts[0][2])
    assert [(each["recognizer"], each["data"], each["map"]) for each in facts["results"]] == [
        ("own", "a", [4, 4]), ("own", "b", [4, 4]),
    ]  # fmt: skip
    with np.load(tmp_path / "one/second-diff.npz") as arrays:
        assert arrays["own-a-maps"].shape == (6, 4, 4)
        strength = np.abs(arrays["own-a-maps"][arrays["own-a-labels"] == 1]).mean()
    assert facts["results"][0]["statistics"]["strength"]["fake"]["value"] == pytest.approx(strength, rel=1e-5)


def test_missing_weights_say_what_to_fetch(data: str, tmp_path: Path) -> None:
    for words in ((), ("--recognizer", f"facenet={tmp_path / 'none.pt'}")):
        result = call(tmp_path / "out", "--data", f"test={data}", *words)
        assert result.exit_code == 4
        assert len(result.stderr.splitlines()) == 1
        assert FACENET_FILE in result.stderr
    assert call(tmp_path / "out", "--data", data).exit_code == 2
    assert call(tmp_path / "out", "--data", f"a={data}", "--data", f"a={data}").exit_code == 2
