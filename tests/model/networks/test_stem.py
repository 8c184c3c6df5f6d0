"""The stem's fused form equals batch norm, ReLU and max pooling one after the other."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lps.model.networks import stem
from lps.model.networks.resnet2d3d import ResNet2d3d, SpatialConv


def layers(scale: Tensor) -> tuple[SpatialConv, nn.BatchNorm2d]:
    """Return a convolution and a batch norm with this scale, in float64."""
    conv, norm = SpatialConv(3, len(scale), 7, 2), nn.BatchNorm2d(len(scale))
    nn.init.normal_(conv.weight)
    nn.init.normal_(norm.bias)
    norm.weight.data = scale.clone()
    return conv.double(), norm.double()


@pytest.mark.parametrize("size", [(32, 32), (31, 45), (7, 1)])
def test_values_gradients_and_statistics_are_those_of_the_plain_form(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stem, "FRAMES_AT_A_TIME", 2)
    torch.manual_seed(0)
    conv, norm = layers(torch.tensor([1.5, -0.7, 1e-3, -2.0]))
    other_conv, other_norm = deepcopy((conv, norm))
    x = torch.randn(3, 3, *size, dtype=torch.float64)
    fused = stem.pooled_norm(x, conv.weight.squeeze(2), conv.stride, conv.padding, norm)
    plain = F.max_pool2d(F.relu(other_norm(other_conv(x))), 3, 2, 1)
    torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(plain)
    (fused * weights).sum().backward()  # type: ignore[no-untyped-call]
    (plain * weights).sum().backward()  # type: ignore[no-untyped-call]
    for ours, theirs in zip((conv, norm), (other_conv, other_norm), strict=True):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-9)
        for name, held in ours.state_dict().items():
            torch.testing.assert_close(held, theirs.state_dict()[name], rtol=1e-12, atol=1e-12)


def test_a_second_pass_through_a_graph_is_refused() -> None:
    """The first one uses up what the second would need."""
    conv, norm = layers(torch.tensor([1.5, -0.7, 1e-3, -2.0]))
    y = stem.pooled_norm(
        torch.randn(2, 3, 9, 9, dtype=torch.float64), conv.weight.squeeze(2), conv.stride, conv.padding, norm
    )
    torch.autograd.grad(y.sum(), conv.weight, retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y.sum(), conv.weight)


@pytest.mark.parametrize("size", [(32, 32), (31, 45), (7, 1)])
def test_evaluation_is_that_of_the_plain_form(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv, norm = layers(torch.tensor([1.5, -0.7, 1e-3, -2.0]))
    norm.running_mean = torch.randn(4, dtype=torch.float64)
    norm.running_var = torch.rand(4, dtype=torch.float64) + 0.1
    norm.eval()
    x = torch.randn(3, 3, *size, dtype=torch.float64)
    fused = stem.pooled_norm(x, conv.weight.squeeze(2), conv.stride, conv.padding, norm)
    plain = F.max_pool2d(F.relu(norm(conv(x))), 3, 2, 1)
    torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-12)
    parameters = [conv.weight, norm.weight, norm.bias]
    weights = torch.randn_like(plain)
    gradients = [torch.autograd.grad((y * weights).sum(), parameters) for y in (fused, plain)]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


def test_training_without_gradients_does_not_take_the_fused_form(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    fused = stem.pooled_norm

    def noted(x: Tensor, weight: Tensor, stride: int, padding: int, norm: nn.BatchNorm2d) -> Tensor:
        used.append(1)
        return fused(x, weight, stride, padding, norm)

    monkeypatch.setattr(stem, "pooled_norm", noted)
    net = ResNet2d3d(width=4)
    x = torch.randn(1, 3, 5, 32, 32)
    net.train()(x)
    with torch.no_grad():
        net.train()(x)
    assert used == [1]
    net.eval()(x)
    with torch.no_grad():
        net.eval()(x)
    assert used == [1, 1, 1]


def test_other_batch_norms_keep_their_own_form() -> None:
    x = torch.zeros(1, 3, 32, 32)
    assert stem.fits(nn.BatchNorm2d(4), x)
    assert not stem.fits(nn.SyncBatchNorm(4), x)
    assert not stem.fits(nn.BatchNorm2d(4, momentum=None), x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not stem.fits(nn.BatchNorm2d(4), x)
