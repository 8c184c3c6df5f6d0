"""Batch norm, max pooling and ReLU of the stem in one go, for training on the CPU.

Where the scale of a batch norm is positive it keeps the order of values, so that pooling first gives the same result,
and scale, shift and ReLU then touch a quarter of the places. The statistics are still those of all places. The largest
map of the network is neither kept twice nor written three more times: a sixth less memory for a training step.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

aten: Any = torch.ops.aten
POOL = ((3, 3), (2, 2), (1, 1))
"""Kernel, stride and padding."""


def fits(norm: nn.Module, x: Tensor) -> bool:
    """Whether `pooled_norm` may stand in for this batch norm on `x`, (frames, 3, H, W)."""
    return (
        type(norm) is nn.BatchNorm2d  # and no variant of it, such as one that several processes share
        and norm.training
        and norm.momentum is not None
        and x.device.type == "cpu"
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def pooled_norm(x: Tensor, weight: Tensor, stride: int, padding: int, norm: nn.BatchNorm2d) -> Tensor:
    """Return `relu(max_pool(norm(conv(x))))`, (frames, out, H/4, W/4), and update the statistics of `norm`."""
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
        # What arrives at the winners of the pooling, then what every place gives to mean and variance.
        factor = scale * inverse
        places = ((1, 1), False, index)
        grad_x = aten.max_pool2d_with_indices_backward(grad.mul_(_channels(factor)), x, *POOL, *places)
        n = x.numel() // x.shape[1]
        slope = -factor * inverse * grad_scale / n
        offset = -factor * grad_shift / n - slope * mean
        grad_x.addcmul_(x, _channels(slope)).add_(_channels(offset))
        return grad_x, grad_scale, grad_shift, None


def _channels(v: Tensor) -> Tensor:
    return v[:, None, None]
