"""3-D convolutions of two and three frames beside torch's."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lps.model.networks import conv
from lps.model.networks.conv import NARROW, SCHEMES, Conv3d, along_time, strided
from lps.model.networks.resnet2d3d import ResNet2d3d, SpatialConv


def direct(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv3d(x, weight, padding=1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which each convolution along time adds its number of frames."""
    found = list[int]()

    def counted(x: Tensor, weight: Tensor) -> Tensor:
        found.append(x.shape[2])
        return along_time(x, weight)

    monkeypatch.setattr(conv, "along_time", counted)
    return found


def outcome(convolve: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, grad: Tensor) -> list[Tensor]:
    """Return what comes out, and the gradients of frames and weight."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    out = convolve(x, weight)
    return [out.detach(), *torch.autograd.grad(out, (x, weight), grad)]


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def operands(frames: int, size: tuple[int, int], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(frames)
    x = torch.randn(3, 8, frames, *size, dtype=dtype)
    return x, torch.randn(6, 8, 3, 3, 3, dtype=dtype), torch.randn(3, 6, frames, *size, dtype=dtype)


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (7, 5)])
@pytest.mark.parametrize("frames", sorted(SCHEMES))
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_the_same_as_torch(frames: int, size: tuple[int, int], layout: torch.memory_format) -> None:
    x, weight, grad = operands(frames, size)
    x, grad = x.contiguous(memory_format=layout), grad.contiguous(memory_format=layout)
    for ours, theirs in zip(outcome(along_time, x, weight, grad), outcome(direct, x, weight, grad), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("frames", sorted(SCHEMES))
def test_rounding_in_float32_is_as_small_as_of_torch(frames: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(4, 64, frames, 8, 8), torch.randn(64, 64, 3, 3, 3)
    grad = torch.randn(4, 64, frames, 8, 8)
    exact = outcome(direct, x.double(), weight.double(), grad.double())
    for ours, theirs, true in zip(
        outcome(along_time, x, weight, grad), outcome(direct, x, weight, grad), exact, strict=True
    ):
        assert ours.dtype == torch.float32
        assert rms(ours - true) < 3 * rms(theirs - true)
        assert rms(ours - true) < 1e-6 * rms(true)


@pytest.mark.parametrize("frames", sorted(SCHEMES))
def test_only_the_wanted_gradients(frames: int) -> None:
    x, weight, grad = operands(frames, (4, 4))
    _, to_x, to_weight = outcome(along_time, x, weight, grad)
    torch.autograd.backward(along_time(x.requires_grad_(), weight), grad)
    torch.testing.assert_close(x.grad, to_x)
    torch.autograd.backward(along_time(x.detach(), weight.requires_grad_()), grad)
    torch.testing.assert_close(weight.grad, to_weight)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_layer_for_any_number_of_frames(frames: int, stride: int, calls: list[int]) -> None:
    layer = Conv3d(8, 6, 3, stride, padding=1, bias=False).double()
    x = torch.randn(2, 8, frames, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.conv3d(x, layer.weight, stride=stride, padding=1), rtol=0, atol=1e-12)
    assert calls == ([frames] if frames in SCHEMES and stride == 1 else [])


def test_other_layers_are_as_torch_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv, "along_time", None)
    x = torch.randn(2, 8, 3, 5, 5)
    for layer in (
        Conv3d(8, 6, 3, padding=1),
        Conv3d(8, 6, 3, bias=False),
        Conv3d(8, 6, 1, bias=False),
        Conv3d(8, 8, 3, padding=1, groups=2, bias=False),
        Conv3d(8, 8, 3, padding=1, dilation=2, bias=False),
    ):
        expected = F.conv3d(x, layer.weight, layer.bias, 1, layer.padding, layer.dilation, layer.groups)
        assert torch.equal(layer(x), expected)
    half = Conv3d(8, 6, 3, padding=1, bias=False).bfloat16()
    assert half(x.bfloat16()).dtype == torch.bfloat16


def test_the_last_two_stages_are_convolved_along_time(calls: list[int]) -> None:
    ResNet2d3d(18, 4)(torch.randn(2, 3, 5, 64, 64))
    assert calls == [3, 3, 3, 2, 2, 2]


def test_there_is_no_second_derivative() -> None:
    x, weight, grad = operands(2, (4, 4))
    x = x.requires_grad_()
    (first,) = torch.autograd.grad(along_time(x, weight), x, grad.requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(first.sum())


@pytest.mark.parametrize("n_in", [4, 8, 16])
def test_strided_shortcuts_of_few_channels_have_the_gradients_of_the_plain_layout(n_in: int) -> None:
    torch.manual_seed(0)
    flat, deep = SpatialConv(n_in, 8, 1, 2), Conv3d(n_in, 8, 1, 2, bias=False)
    torch.nn.init.normal_(flat.weight)
    inputs = (
        (flat, torch.randn(16, n_in, 9, 16).contiguous(memory_format=torch.channels_last), F.conv2d),
        (deep, torch.randn(4, n_in, 3, 9, 8).contiguous(memory_format=torch.channels_last_3d), F.conv3d),
    )
    for module, x, plain in inputs:
        weight = module.weight.detach()
        weight = (weight.squeeze(2) if plain is F.conv2d else weight).double().requires_grad_()
        out, expected = module(x), plain(x.double().contiguous(), weight, stride=2)
        torch.testing.assert_close(out, expected.float())
        grad = torch.randn_like(out)
        (ours,) = torch.autograd.grad(out, module.weight, grad)
        (theirs,) = torch.autograd.grad(expected, weight, grad.double().contiguous())
        torch.testing.assert_close(ours.reshape(theirs.shape), theirs.float(), rtol=1e-4, atol=1e-4)
        assert strided(x, n_in, 1, 2)[1] == (1 if n_in < NARROW else 2)
