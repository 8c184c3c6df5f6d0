"""3-D convolutions: gradients that can be relied on, and fewer products where a block has two or three frames left."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812

aten: Any = torch.ops.aten
R = math.sqrt(2)

Matrix = tuple[tuple[float, ...], ...]

SCHEMES: dict[int, tuple[Matrix, Matrix, Matrix]] = {
    2: (
        ((1, 1), (0, 1), (1, 0)),
        ((0, 1, 0), (0, -1, 1), (1, -1, 0)),
        ((1, 1), (1, 0), (0, 1)),
    ),
    3: (
        ((1, R, 1), (1, -R, 1), (1, 0, -1), (0, 1, 0), (1, 0, -1)),
        ((R / 8, 1 / 4, R / 8), (-R / 8, 1 / 4, -R / 8), (0, 1 / 2, 0), (-1 / 2, 0, 1 / 2), (-1 / 2, 0, 1 / 2)),
        ((1, R, 1), (1, -R, 1), (1, 0, -1), (1, 0, -1), (0, -1, 0)),
    ),
}
"""How two and three frames are convolved, a line for each product: which sum of frames, which sum of the weight's three
slices, and what the product is to each frame that comes out.

A 3x3x3 convolution that is padded by one is a banded matrix over frames, whose entries are 2-D convolutions: four for
two frames, seven for three. They are made of three slices only, so that three and five products will do, as in the
minimal filtering of Winograd (1980). Two frames: Karatsuba's scheme. Three, with u, v, w the slices: the part of the
matrix that u + w and v make is symmetric and its eigenvectors are those of a chain of three, (1, +-sqrt 2, 1) and
(1, 0, -1); the rest is w - u, seen by the middle frame and by the difference of the outer ones.
"""


NARROW = 16
"""Channels below which oneDNN's 1x1 kernels with a stride write past their memory when they compute the gradient of the
weight of channels-last input, for AVX2 below 8 (its issue 6035): crashes, hangs or wrong numbers."""


def strided(x: Tensor, n_in: int, kernel: int, stride: int) -> tuple[Tensor, int]:
    """Return the input of a convolution and its stride: the places chosen here where oneDNN must not (`NARROW`).

    `x` is (M, in, ...) with places in all further dimensions.
    """
    if kernel > 1 or stride == 1 or n_in >= NARROW or x.device.type != "cpu":
        return x, stride
    return x[(slice(None), slice(None), *[slice(None, None, stride)] * (x.ndim - 2))], 1


class Conv3d(nn.Conv3d):
    """As torch's, by `along_time` where that is faster; in float32 under autocast on a CPU.

    What comes out under autocast has its type all the same. The bfloat16 kernels of processors with `avx512_bf16`
    (oneDNN 3.13) leave the gradient of a 3x3x3 weight partly unwritten where there are two frames, as there are in the
    last stage: it holds whatever was in memory.
    """

    memory_format: torch.memory_format | None = None
    """Layout that the input is brought to on a GPU; None takes it as it comes. Torch follows the input's."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """(M, in, T, H, W) -> (M, out, T', H', W')."""
        if input.device.type != "cpu" or torch.compiler.is_compiling():
            if self.memory_format is not None:
                input = input.contiguous(memory_format=self.memory_format)  # noqa: A001
            return super().forward(input)
        if not torch.is_autocast_enabled("cpu"):
            return self._on_cpu(input)
        with torch.autocast("cpu", enabled=False):
            return self._on_cpu(input.float()).to(torch.get_autocast_dtype("cpu"))

    def _on_cpu(self, x: Tensor) -> Tensor:
        if (
            x.shape[2] in SCHEMES
            and x.dtype in (torch.float32, torch.float64)
            and self.kernel_size == (3, 3, 3)
            and self.stride == self.padding == self.dilation == (1, 1, 1)
            and self.groups == 1
            and self.bias is None
        ):
            return along_time(x, self.weight)
        if self.kernel_size == (1, 1, 1) and self.padding == (0, 0, 0) and len({*self.stride}) == 1:
            x, stride = strided(x, self.in_channels, 1, self.stride[0])
            return F.conv3d(x, self.weight, self.bias, stride, groups=self.groups)
        return super().forward(x)


def along_time(x: Tensor, weight: Tensor) -> Tensor:
    """Return `conv3d(x, weight, padding=1)` of two or three frames by 3 or 5 2-D convolutions instead of 4 or 7.

    `x` (M, in, T, H, W), `weight` (out, in, 3, 3, 3); returns (M, out, T, H, W) with channels last.
    """
    return _AlongTime.apply(x, weight)  # type: ignore[no-any-return]


class _AlongTime(torch.autograd.Function):
    """Keeps frames and weight for the backward pass, and none of their sums."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        m, _, t, h, w = x.shape
        out = x.new_zeros(m, t, h, w, len(weight)).permute(0, 4, 1, 2, 3)
        frames, slices, frames_out = x.unbind(2), _slices(weight), out.unbind(2)
        for of_frames, of_slices, to_frames in zip(*SCHEMES[t], strict=True):
            product = F.conv2d(_sum(frames, of_frames), _sum(slices, of_slices), padding=1)
            _add(frames_out, product, to_frames)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wanted = (*ctx.needs_input_grad, False)
        frames, slices, grads_out = x.unbind(2), _slices(weight), grad.unbind(2)
        grad_x, grad_slices = torch.zeros_like(x), torch.zeros_like(slices)
        grads_in = grad_x.unbind(2)
        for of_frames, of_slices, to_frames in zip(*SCHEMES[x.shape[2]], strict=True):
            operands = _sum(grads_out, to_frames), _sum(frames, of_frames), _sum(slices, of_slices)
            conv = ((1, 1), (1, 1), (1, 1), False, (0, 0), 1)  # stride, padding, dilation; not transposed
            to_x, to_kernel, _ = aten.convolution_backward(*operands, None, *conv, wanted)
            if wanted[0]:
                _add(grads_in, to_x, of_frames)
            if wanted[1]:
                _add(grad_slices, to_kernel, of_slices)
        return grad_x if wanted[0] else None, grad_slices.movedim(0, 2) if wanted[1] else None


def _slices(weight: Tensor) -> Tensor:
    """(out, in, 3, 3, 3) -> (3, out, in, 3, 3)."""
    return weight.movedim(2, 0).contiguous()


def _sum(parts: Iterable[Tensor], factors: Sequence[float]) -> Tensor:
    """Return the sum of the parts with these factors."""
    first, *others = [(part, factor) for part, factor in zip(parts, factors, strict=True) if factor]
    total = first[0] * first[1]
    for part, factor in others:
        total.add_(part, alpha=factor)
    return total


def _add(parts: Iterable[Tensor], x: Tensor, factors: Sequence[float]) -> None:
    """Add `x` to each of the parts with these factors."""
    for part, factor in zip(parts, factors, strict=True):
        if factor:
            part.add_(x, alpha=factor)
