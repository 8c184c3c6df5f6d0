"""Batch norm, max pooling and ReLU of the stem in one go, on the CPU.

Where the scale of a batch norm is positive it keeps the order of values, so that pooling first gives the same result,
and scale, shift and ReLU then touch a quarter of the places. The statistics are still those of all places. The largest
map of the network is neither kept twice nor written three more times: a sixth less memory for a training step. Its
gradient takes its own place, so a graph can be gone through once only; torch refuses a second time.

In evaluation the scale is known beforehand and goes into the convolution.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

aten: Any = torch.ops.aten
POOL = ((3, 3), (2, 2), (1, 1))
"""Kernel, stride and padding."""
DENSE = ((1, 1), False)
"""No dilation, sizes rounded down."""
FRAMES_AT_A_TIME = 16


def fits(norm: nn.Module, x: Tensor) -> bool:
    """Whether `pooled_norm` may stand in for this batch norm on `x`, (frames, 3, H, W)."""
    return (
        type(norm) is nn.BatchNorm2d  # and no variant of it, such as one that several processes share
        and (norm.momentum is not None and torch.is_grad_enabled() if norm.training else norm.running_var is not None)
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def pooled_norm(x: Tensor, weight: Tensor, stride: int, padding: int, norm: nn.BatchNorm2d) -> Tensor:
    """Return `relu(max_pool(norm(conv(x))))`, (frames, out, H/4, W/4); training updates the statistics of `norm`."""
    if not norm.training:
        return _evaluated(x, weight, stride, padding, norm)
    # A channel with a negative scale is turned over before it is pooled, and all scales are positive.
    sign = torch.where(norm.weight.detach() < 0, -1.0, 1.0).to(weight.dtype)
    x = F.conv2d(x, weight * sign[:, None, None, None], stride=stride, padding=padding)
    y, mean, var = _NormPool.apply(x, norm.weight * sign, norm.bias, norm.eps)
    if norm.track_running_stats:
        n = x.numel() // x.shape[1]
        assert norm.num_batches_tracked is not None  # mypy
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.momentum is not None
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            norm.running_mean.lerp_(mean * sign, norm.momentum)
            norm.running_var.lerp_(var * (n / (n - 1)), norm.momentum)
    return y  # type: ignore[no-any-return]


def _evaluated(x: Tensor, weight: Tensor, stride: int, padding: int, norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_mean is not None  # mypy
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    x = F.max_pool2d(F.conv2d(x, weight * scale[:, None, None, None], stride=stride, padding=padding), *POOL)
    return F.relu(x + _channels(norm.bias - norm.running_mean * scale), inplace=True)


class _NormPool(torch.autograd.Function):
    """Batch norm with scales >= 0, max pooling, ReLU; also returns the mean and the biased variance of the batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)
        inverse = (var + eps).rsqrt()
        best, index = F.max_pool2d(x, *POOL, return_indices=True)
        normed = best.sub_(_channels(mean)).mul_(_channels(inverse))
        y = torch.addcmul(_channels(shift), normed, _channels(scale)).relu_()
        ctx.save_for_backward(x, index, normed, y, scale, mean, inverse)
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, index, normed, y, scale, mean, inverse = ctx.saved_tensors
        grad = aten.threshold_backward(grad, y, 0)
        grad_shift = grad.sum((0, 2, 3))
        grad_scale = (grad * normed).sum((0, 2, 3))
        # What arrives at the winners of the pooling, then what every place gives to mean and variance. All of it goes
        # into the place of `x`, whose only reader this is: another map of that size would be the largest of the step.
        grad = grad.mul_(_channels(scale * inverse))
        n = x.numel() // x.shape[1]
        slope = -scale * inverse.square() * grad_scale / n
        offset = -scale * inverse * grad_shift / n - slope * mean
        parts = (v.split(FRAMES_AT_A_TIME) for v in (x, grad, index))
        for places, arrived, won in zip(*parts, strict=True):
            winners = aten.max_pool2d_with_indices_backward(arrived, places, *POOL, *DENSE, won)
            places.mul_(_channels(slope)).add_(_channels(offset)).add_(winners)
        return x, grad_scale, grad_shift, None


def _channels(v: Tensor) -> Tensor:
    return v[:, None, None]
