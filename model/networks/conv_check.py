"""A 3-D convolution in bfloat16 beside float32, before it is relied on: is it right, in which layout, and how quick?

Releases of cuDNN 9.8 to 9.10 gave wrong results without a word (torch's issue 163539), and torch 2.9.0 was four times
slower under autocast (166122), each in one layout and not in the other.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lps.manifests.errors import RefusedError
from lps.model.networks.conv import Conv3d

TOLERANCE = 0.05
"""Largest difference from float32 that is no fault, over the root mean square of the tensor. Rounding to bfloat16 gives
up to 0.02: half a unit of 2^-8 of the largest values, which are some five times the mean."""
SLOWER = 2.0
"""How many times as long as the other layout takes the one that was asked for before it is left for the other."""
SLOW = 1.5
"""How many times as long as float32 bfloat16 may take before a run is warned."""
CHANNELS = 64
N_TIMED = 3
MAX_VALUES = 1 << 27
"""Size of the input: half a gigabyte in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvShape:
    """Input of the checked convolution, as the encoder's first 3x3x3 ones have it."""

    n_blocks: int
    n_frames: int
    side_px: int

    @classmethod
    def of_run(cls, n_blocks: int, block_frames: int, image_px: int, device: torch.device) -> "ConvShape":
        """Return the shape for the blocks of a step; a small one on a CPU, whose kernels do not differ by size."""
        side = max(4, image_px // 4)
        if device.type == "cpu":
            return cls(n_blocks=1, n_frames=min(block_frames, 2), side_px=min(side, 7))
        most = MAX_VALUES // (CHANNELS * block_frames * side * side)
        return cls(n_blocks=max(1, min(n_blocks, most)), n_frames=block_frames, side_px=side)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutFound:
    """What was found of one layout."""

    channels_last: bool
    error: float
    """Largest difference from float32 over the root mean square, of output and gradients; infinite if not finite."""
    bf16_s: float
    fp32_s: float
    """Forward and backward, the quickest of a few."""

    @property
    def right(self) -> bool:
        """Whether the differences are rounding."""
        return self.error <= TOLERANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutChoice:
    """The layout to run with."""

    channels_last: bool
    notes: tuple[str, ...]
    """What the user should know."""


def check_layouts(shape: ConvShape, device: torch.device) -> list[LayoutFound]:
    """Return what a 3x3x3 convolution under autocast is like in both layouts. Leaves random numbers as they were."""
    draws = torch.Generator(device).manual_seed(0)
    size: tuple[int, ...] = (shape.n_blocks, CHANNELS, shape.n_frames, shape.side_px, shape.side_px)
    # values that bfloat16 holds exactly: what differs is arithmetic alone
    x, gradient, weight = (
        torch.randn(drawn, generator=draws, device=device).mul_(scale).bfloat16().float()
        for drawn, scale in ((size, 1.0), (size, 1.0), ((CHANNELS, CHANNELS, 3, 3, 3), (27 * CHANNELS) ** -0.5))
    )
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        wanted, _ = _convolved(x, weight, gradient, bf16=False)
    found = []
    for channels_last in (False, True):
        laid = torch.channels_last_3d if channels_last else torch.contiguous_format
        tensors = [each.contiguous(memory_format=laid) for each in (x, weight, gradient)]
        results, bf16_s = _convolved(*tensors, bf16=True)
        error = max(_error(one, other) for one, other in zip(results, wanted, strict=True))
        del results
        _, fp32_s = _convolved(*tensors, bf16=False)
        found.append(LayoutFound(channels_last=channels_last, error=error, bf16_s=bf16_s, fp32_s=fp32_s))
    if device.type == "cuda":
        del x, gradient, weight, wanted, tensors
        torch.cuda.empty_cache()
    return found


def choose_layout(found: Sequence[LayoutFound], asked: bool, versions: str) -> LayoutChoice:  # noqa: FBT001
    """Return the layout that is right and quick: the one asked for, unless it is wrong or far slower than the other.

    `versions` name the libraries, for messages. Raises RefusedError where neither is right.
    """
    [mine] = [each for each in found if each.channels_last == asked]
    [other] = [each for each in found if each.channels_last != asked]
    if not mine.right and not other.right:
        raise RefusedError(
            f"3-D convolutions in bf16 are wrong here, by {min(mine.error, other.error):.2g} of their size or more "
            f'({versions}): set run.precision = "fp32" or leave out --bf16, or use another release of torch and cuDNN'
        )
    names = {True: "channels innermost", False: "channels outermost"}
    notes = []
    taken = mine
    if not mine.right:
        taken = other
        notes.append(
            f"3-D convolutions in bf16 are wrong with {names[asked]} ({versions}), by {mine.error:.2g} of their size: "
            f"this run takes {names[not asked]}"
        )
    elif other.right and mine.bf16_s > SLOWER * other.bf16_s:
        taken = other
        notes.append(
            f"3-D convolutions in bf16 take {mine.bf16_s / other.bf16_s:.1f} times as long with {names[asked]} "
            f"({versions}): this run takes {names[not asked]}"
        )
    if taken.bf16_s > SLOW * taken.fp32_s:
        notes.append(
            f"3-D convolutions take {taken.bf16_s / taken.fp32_s:.1f} times as long in bf16 as in fp32 ({versions}): "
            'set run.precision = "fp32" or leave out --bf16, or use another release of torch'
        )
    return LayoutChoice(channels_last=taken.channels_last, notes=tuple(notes))


def worst(found: Sequence[LayoutFound]) -> list[LayoutFound]:
    """Return the worst that several processes found of each layout, so that all choose alike."""
    return [
        LayoutFound(
            channels_last=channels_last,
            error=max(each.error for each in mine),
            bf16_s=max(each.bf16_s for each in mine),
            fp32_s=max(each.fp32_s for each in mine),
        )
        for channels_last in (False, True)
        if (mine := [each for each in found if each.channels_last == channels_last])
    ]


def library_versions(device: torch.device) -> str:
    """Return the releases that decide what a convolution is."""
    cudnn = torch.backends.cudnn.version() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    return f"torch {torch.__version__}" + (f", cuDNN {cudnn}" if cudnn else "")


def _convolved(x: Tensor, weight: Tensor, gradient: Tensor, *, bf16: bool) -> tuple[list[Tensor], float]:
    """Return output, gradient of the input and of the weight, and the seconds of the quickest of a few calls."""
    conv = Conv3d(CHANNELS, CHANNELS, 3, padding=1, bias=False, device="meta")
    conv.weight = nn.Parameter(weight)
    inputs = x.detach().requires_grad_()
    seconds = []
    for _ in range(1 + N_TIMED):
        conv.weight.grad = inputs.grad = None
        _wait(x.device)
        begun = time.perf_counter()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            out = conv(inputs)
        out.backward(gradient.to(out.dtype))
        _wait(x.device)
        seconds.append(time.perf_counter() - begun)
    assert inputs.grad is not None  # mypy: backward made them
    assert conv.weight.grad is not None
    return [out.detach().float(), inputs.grad.float(), conv.weight.grad.float()], min(seconds[1:])


def _error(found: Tensor, wanted: Tensor) -> float:
    error = (found - wanted).abs().max() / wanted.square().mean().sqrt()
    return float(error) if torch.isfinite(error) else float("inf")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
