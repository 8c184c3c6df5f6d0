"""The graphs for ONNX Runtime beside the torch networks whose weights they have."""

import numpy as np
import pytest
import torch
from face_alignment.detection.retinaface.net_retinaface import RetinaFace
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
from torch import nn

from lps.manifests.errors import UnreadableError
from lps.pipeline.faces.onnx_graphs import State, mtcnn_graph, retinaface_graph
from lps.pipeline.faces.onnx_session import cpu_session
from lps.pipeline.faces.weights import as_arrays


def filled_at_random(net: nn.Module) -> nn.Module:
    """Give `net` weights, norms and slopes of both signs that keep activations near unit size."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in net.state_dict().items():
        if "running_var" in name:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.is_floating_point():
            scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.5
            offset = 1.0 if tensor.ndim == 1 and name.endswith("weight") else 0.0
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale + offset)
    return net.eval()


@pytest.fixture(scope="module")
def retinaface() -> nn.Module:
    return filled_at_random(RetinaFace())


@pytest.fixture(scope="module")
def state(retinaface: nn.Module) -> State:
    return {name: value for name, value in as_arrays(retinaface.state_dict()).items() if ".fc." not in name}


@pytest.mark.parametrize("levels", [2, 3])
def test_retinaface(retinaface: nn.Module, state: State, levels: int) -> None:
    pixels = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(1)) * 60
    with torch.inference_mode():
        boxes, shares, points = retinaface(pixels)
    (heads,) = cpu_session(retinaface_graph(state, levels))(pixels.numpy())
    n_anchors = 2 * (6 * 10 + 3 * 5) + (2 * 12 * 20 if levels == 3 else 0)
    assert heads.shape == (2, n_anchors, 16)
    found_shares = torch.from_numpy(heads[..., :2]).softmax(-1)
    assert torch.allclose(found_shares, shares[:, -n_anchors:], atol=1e-4)
    for found, wanted in ((heads[..., 2:6], boxes), (heads[..., 6:], points)):
        reference = wanted[:, -n_anchors:].numpy()
        assert np.abs(found - reference).max() < 1e-4 * np.abs(reference).max()


@pytest.mark.parametrize(("name", "kind", "side"), [("pnet", PNet, 41), ("rnet", RNet, 24), ("onet", ONet, 48)])
def test_mtcnn(name: str, kind: type[nn.Module], side: int) -> None:
    net = filled_at_random(kind(pretrained=False))
    run = cpu_session(mtcnn_graph(name, as_arrays(net.state_dict())))
    for n in (1, 3):
        pixels = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(n)) * 2 - 1
        with torch.inference_mode():
            *others, shares = net(pixels)
        found = run(pixels.numpy())
        assert len(found) == len(others) + 1
        for ours, wanted in zip(found, (shares, *others), strict=True):
            assert ours.shape == wanted.shape
            assert np.abs(ours - wanted.numpy()).max() < 1e-4 * max(1.0, float(wanted.abs().max()))


def test_an_image_gives_the_same_bits_in_any_batch(state: State) -> None:
    run = cpu_session(retinaface_graph(state, 2))
    pixels = np.random.default_rng(0).normal(0, 60, (8, 3, 64, 96)).astype(np.float32)
    alone = [run(one[None])[0].tobytes() for one in pixels]
    for n in (2, 4, 8):
        assert [one.tobytes() for one in run(pixels[:n])[0]] == alone[:n]


def test_weights_that_do_not_fit(state: State) -> None:
    name = "ssh2.conv3X3.0.weight"
    without = {key: value for key, value in state.items() if key != name}
    flat = np.zeros((32, 64), np.float32)
    for other, why in (
        (without, f"{name} is missing"),
        ({**state, name: flat}, rf"{name} is of shape \(32, 64\)"),
        ({**state, "head.weight": flat}, "head.weight is not part of it"),
    ):
        with pytest.raises(UnreadableError, match=f"weights of retinaface-mobilenet do not fit its network: {why}"):
            retinaface_graph(other, 2)
