"""Encoders by name give the maps of torchvision's networks and learn as far as they are let; MesoNet is its paper's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lps.manifests.canonical import file_sha256
from lps.manifests.errors import IntegrityError, LpsError, RefusedError, UnreadableError
from lps.model.data.frames import IMAGENET_MEAN, IMAGENET_STD
from lps.model.networks.context_net import NetParams, build_encoder
from lps.model.networks.detector import HeadParams
from lps.model.networks.encoder import keep_channels_innermost
from lps.model.networks.mesonet import MesoNet, build_detector
from lps.model.networks.published_weights import load_encoder_weights
from lps.model.networks.torchvision_encoder import BLOCK_NETWORKS, FRAME_NETWORKS, PREFIX, TorchvisionEncoder

pytestmark = pytest.mark.usefixtures("one_thread")

KINETICS_MEAN, KINETICS_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(7)


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    """Return torchvision's network; tests only read it."""
    network: nn.Module = torchvision.models.get_model("resnet18", weights=None)
    return network.eval()


@pytest.fixture(scope="module")
def published(resnet18: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return its weights as a file, head and all."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet18.state_dict(), path)
    return path


def maps_of(network: nn.Module, x: Tensor) -> Tensor:
    """Return what torchvision's own network has before its pooling."""
    found: list[Tensor] = []
    handle = network.get_submodule("avgpool").register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    network(x)
    handle.remove()
    return found[0]


def per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values)[:, None, None, None]


# ---- torchvision -----------------------------------------------------------------------------------------------------


def test_every_name_is_one_of_torchvision() -> None:
    models = torchvision.models
    assert {*FRAME_NETWORKS} <= {*models.list_models(module=models)}
    assert {*BLOCK_NETWORKS} <= {*models.list_models(module=models.video)}


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "convnext_tiny"])
@torch.no_grad()
def test_block_has_the_mean_of_its_frames(name: str) -> None:
    network = torchvision.models.get_model(name, weights=None).eval()
    encoder = TorchvisionEncoder(PREFIX + name, None).eval()
    encoder.load_state_dict(network.state_dict(), strict=False)
    blocks = torch.randn(2, 3, 2, 64, 40)
    wanted = sum(maps_of(network, blocks[:, :, k]) for k in range(2)) / 2
    assert isinstance(wanted, Tensor)
    assert torch.allclose(encoder(blocks), wanted, atol=1e-5)
    assert encoder.out_channels == wanted.shape[1]


@torch.no_grad()
def test_3d_network_takes_a_block_as_a_clip_of_kinetics() -> None:
    network = torchvision.models.get_model("r3d_18", weights=None).eval()
    encoder = TorchvisionEncoder(f"{PREFIX}r3d_18", None).eval()
    encoder.load_state_dict(network.state_dict(), strict=False)
    pixels = torch.rand(2, 3, 5, 32, 48)
    blocks = (pixels - per_channel(IMAGENET_MEAN)) / per_channel(IMAGENET_STD)
    wanted = maps_of(network, (pixels - per_channel(KINETICS_MEAN)) / per_channel(KINETICS_STD)).mean(2)
    assert wanted.shape == (2, 512, 2, 3)
    assert torch.allclose(encoder(blocks), wanted, atol=1e-4)


@torch.no_grad()
def test_projection_brings_maps_to_our_width_and_both_signs() -> None:
    encoder = build_encoder(NetParams(encoder=f"{PREFIX}resnet18", proj_dim=24)).eval()
    blocks = torch.randn(2, 3, 2, 64, 64)
    raw, clipped = encoder(blocks), encoder(blocks, "relu_pool")
    assert raw.shape == (2, encoder.out_channels, 2, 2) == (2, 24, 2, 2)
    assert float(raw.min()) < 0 <= float(clipped.min())
    assert bool((clipped >= F.relu(raw) - 1e-5).all())  # Jensen
    keep_channels_innermost(encoder)
    assert torch.allclose(encoder(blocks), raw, atol=1e-5)


# ---- parts that learn ------------------------------------------------------------------------------------------------


def after_a_step(params: NetParams) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the state of an encoder before and after one step of training."""
    encoder = build_encoder(params).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    encoder(torch.randn(4, 3, 2, 32, 32)).square().mean().backward()
    optimizer.step()
    return before, encoder.state_dict()


@pytest.mark.parametrize(
    ("encoder", "stage", "still"),
    [
        (f"{PREFIX}resnet18", "layer2", ("conv1.", "bn1.", "layer1.", "layer2.")),
        (f"{PREFIX}efficientnet_b0", "features.1", ("features.0.", "features.1.")),
        ("resnet18", "layer1", ("conv1.", "bn1.", "layer1.")),
        ("i3d", "Conv3d_1a_7x7", ("Conv3d_1a_7x7.",)),
        (f"{PREFIX}resnet18", "all", ("conv1.", "bn1.", "layer")),
    ],
)
def test_frozen_stages_stay_as_they_are_with_their_statistics(encoder: str, stage: str, still: tuple[str, ...]) -> None:
    before, after = after_a_step(NetParams(encoder=encoder, frozen=stage, width=4, proj_dim=8))
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved == {name for name in after if not name.startswith(still)}


@pytest.mark.parametrize(
    ("encoder", "frozen", "norms"),
    [
        (f"{PREFIX}resnet18", None, nn.BatchNorm2d),
        (f"{PREFIX}resnet18", "layer3", nn.BatchNorm2d),
        (f"{PREFIX}convnext_tiny", None, nn.LayerNorm),
        ("resnet18", None, nn.BatchNorm2d | nn.BatchNorm3d),
    ],
)
def test_norms_alone_learn(encoder: str, frozen: str | None, norms: Any) -> None:
    net = build_encoder(NetParams(encoder=encoder, frozen=frozen, tune="norm", width=4, proj_dim=8))
    learning = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    wanted = {name for name, module in net.named_modules() if isinstance(module, norms)}
    if frozen:
        wanted = {name for name in wanted if name.startswith(("layer4.", "proj."))}
    both = {f"{name}.{part}" for name in wanted for part in ("weight", "bias")}
    assert learning == both | {name for name, _ in net.named_parameters() if name.startswith("proj.")}
    assert len(learning) < len([*net.parameters()])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder": "resnet19"}, "no encoder 'resnet19' here; did you mean "),
        ({"encoder": f"{PREFIX}resnet19"}, "did you mean torchvision:resnet18 or torchvision:resnet152"),
        ({"encoder": f"{PREFIX}vit_b_16"}, "no encoder 'torchvision:vit_b_16' here; "),
        ({"encoder": "xyz"}, "known: resnet18, resnet34, i3d, none and torchvision's ResNet, ResNeXt"),
        ({"frozen": "layer9"}, "this encoder has no stage 'layer9' to freeze; it has conv1, bn1, layer1, layer2"),
        ({"encoder": "none", "frozen": "layer1"}, "frozen and tune are for encoders, and encoder = 'none' has nothing"),
        ({"encoder": "none", "frozen": "all"}, "frozen and tune are for encoders, and encoder = 'none' has nothing"),
        ({"encoder": "none", "tune": "norm"}, "frozen and tune are for encoders, and encoder = 'none' has nothing"),
        ({"encoder": f"{PREFIX}resnet18", "weights": "a.pth"}, "weights and weights_sha256 belong together"),
        ({"weights": "a.pth", "weights_sha256": "0"}, "weights are for encoders of torchvision, not for 'resnet18'"),
        ({"encoder": "mesonet4", "tune": "norm"}, "'mesonet4' is a whole detector and learns as a whole"),
        ({"encoder": "mesonet4"}, "'mesonet4' is a whole detector and no encoder: only classify trains it"),
    ],
)
def test_senseless_encoder_fails_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        build_encoder(NetParams(**values))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


# ---- weights of a file -----------------------------------------------------------------------------------------------


def test_weights_of_a_file_are_those_of_the_encoder(published: Path, resnet18: nn.Module) -> None:
    encoder = build_encoder(NetParams(encoder=f"{PREFIX}resnet18", proj_dim=8, frozen="layer1"))
    own = {name: value.clone() for name, value in encoder.state_dict().items() if name.startswith("proj.")}
    load_encoder_weights(encoder, published, file_sha256(published).upper())
    state = encoder.state_dict()
    assert all(torch.equal(state[name], value) for name, value in own.items())
    theirs = {name: value for name, value in resnet18.state_dict().items() if not name.startswith("fc.")}
    assert {*state} == {*own, *theirs}
    assert all(torch.equal(state[name], value) for name, value in theirs.items())


def test_weights_that_do_not_fit_are_one_line(published: Path, tmp_path: Path) -> None:
    encoder = build_encoder(NetParams(encoder=f"{PREFIX}resnet18"))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.load(published, weights_only=True)
    files: dict[str, Any] = {
        "other.pth": {name: value for name, value in state.items() if "layer4" not in name},
        "shape.pth": {**state, "conv1.weight": torch.zeros(64, 1, 7, 7)},
        "more.pth": {**state, "layer5.weight": torch.zeros(1)},
        "code.pth": {"state_dict": Path},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name)
    cases: list[tuple[str, str | None, type[LpsError], str]] = [
        ("nothing.pth", "0" * 64, UnreadableError, "cannot read "),
        ("other.pth", "0" * 64, IntegrityError, "net.weights_sha256 is 000000"),
        ("other.pth", None, RefusedError, "25 of its 100 tensors are missing (layer4.0.conv1.weight)"),
        ("shape.pth", None, RefusedError, "1 are of other names or shapes (conv1.weight)"),
        ("more.pth", None, RefusedError, "1 are of other names or shapes (layer5.weight)"),
        ("code.pth", None, UnreadableError, "needs pickle to run"),
    ]
    for name, sha256, kind, message in cases:
        with pytest.raises(kind) as raised:
            load_encoder_weights(encoder, tmp_path / name, sha256 or file_sha256(tmp_path / name))
        assert message in str(raised.value)
        assert name in str(raised.value)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


# ---- MesoNet ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n_parameters"), [("mesonet4", 27_977), ("mesoinception4", 28_615)])
def test_numbers_of_parameters_are_those_of_the_paper(name: str, n_parameters: int) -> None:
    """For its frames of 256 px; the table of docs/train.md has those at 224 px."""
    sizes = []
    for image_px in (256, 224):
        network = build_detector(NetParams(encoder=name), HeadParams(), image_px)
        sizes.append(sum(p.numel() for p in network.parameters()))
    assert sizes == [n_parameters, n_parameters - 16 * 16 * (8 * 8 - 7 * 7)]


@pytest.mark.parametrize("name", ["mesonet4", "mesoinception4"])
@torch.no_grad()
def test_clip_has_the_mean_probability_of_its_frames(name: str) -> None:
    network = MesoNet(NetParams(encoder=name), HeadParams(), 64).eval()
    clips = torch.randn(2, 3, 3, 2, 64, 64)
    one = torch.stack([network(clips[:, k : k + 1, :, j : j + 1]).softmax(1)[:, 1] for k in range(3) for j in range(2)])
    assert float(one.std(0).min()) > 0
    assert torch.allclose(network(clips).softmax(1)[:, 1], one.mean(0), atol=1e-6)
    assert network.context(network.encode_clips(clips)).shape == (2, 16)
    nn.init.constant_(network.output.bias, 200.0)  # far out, where a probability is 1 and its logarithm is not
    assert bool(torch.isfinite(network(clips)).all())


def test_mesonet_is_only_a_detector() -> None:
    assert isinstance(build_detector(NetParams(encoder="mesonet4"), HeadParams(), 32), MesoNet)
    with pytest.raises(ValueError, match="learns as a whole"):
        replace(NetParams(encoder="mesonet4"), frozen="all")
