"""The encoder: a 2d3d-ResNet that turns a block of frames into one feature map, `z`.

Paper, section 3.2 and Table of layers: 64, 128, 256 filters, kernels 1x7x7, 1x3x3 and 3x3x3; the stages are those of
the published MemDPC backbone (Han et al., ECCV 2020), whose parameter names are kept so that its checkpoints load.

The stem and the first two stages do not mix frames. They run as 2-D convolutions over all frames of all clips at once;
batch norm then sees the same set of values as its 3-D form would, so that the result is the same, only faster.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from lps.model.networks import stem
from lps.model.networks.conv import Conv3d, strided
from lps.model.networks.encoder import Act, Encoder, frames_of

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class SpatialConv(nn.Module):
    """A 1 x k x k convolution that runs in 2-D. The weight keeps its 3-D shape, (out, in, 1, k, k)."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.padding = kernel // 2
        self.weight = nn.Parameter(torch.empty(n_out, n_in, 1, kernel, kernel))

    def forward(self, x: Tensor) -> Tensor:
        """(frames, in, H, W) -> (frames, out, H', W')."""
        x, stride = strided(x, self.weight.shape[1], self.weight.shape[-1], self.stride)
        return F.conv2d(x, self.weight.squeeze(2), stride=stride, padding=self.padding)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut; 2-D over frames or 3-D over blocks."""

    def __init__(self, n_in: int, n_out: int, *, stride: int, spatial: bool, final_relu: bool) -> None:
        super().__init__()
        self.conv1: nn.Module
        self.conv2: nn.Module
        norm: type[nn.BatchNorm2d | nn.BatchNorm3d]
        if spatial:
            norm = nn.BatchNorm2d
            self.conv1 = SpatialConv(n_in, n_out, 3, stride)
            self.conv2 = SpatialConv(n_out, n_out, 3)
        else:
            norm = nn.BatchNorm3d
            self.conv1 = Conv3d(n_in, n_out, 3, stride, padding=1, bias=False)
            self.conv2 = Conv3d(n_out, n_out, 3, padding=1, bias=False)
        self.bn1 = norm(n_out)
        self.bn2 = norm(n_out)
        self.final_relu = final_relu
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            shortcut: nn.Module = (
                SpatialConv(n_in, n_out, 1, stride) if spatial else Conv3d(n_in, n_out, 1, stride, bias=False)
            )
            self.downsample = nn.Sequential(shortcut, norm(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Same layout in and out; H, W (and T in 3-D) divided by the stride, rounded up."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return F.relu(out, inplace=True) if self.final_relu else out


class ResNet2d3d(Encoder):
    """2d3d-ResNet of `depth` 18 or 34 whose first stage has `width` channels; `z` has `4 * width`.

    `recompute` keeps no activations of the stem and the two large stages for the backward pass and computes them again:
    about 80 % less memory for about a third more time; batch-norm statistics are updated once all the same.
    """

    by_frame = True

    def __init__(self, depth: int = 18, width: int = 64, *, recompute: bool = False) -> None:
        super().__init__()
        if depth not in STAGES:
            raise ValueError(f"encoder depth {depth} is not one of {sorted(STAGES)}")
        self.recompute = recompute
        self.out_channels = 4 * width
        self.conv1 = SpatialConv(3, width, 7, 2)
        self.bn1 = nn.BatchNorm2d(width)
        n = STAGES[depth]
        self.layer1 = _stage(n[0], width, width, stride=1, spatial=True)
        self.layer2 = _stage(n[1], width, 2 * width, stride=2, spatial=True)
        self.layer3 = _stage(n[2], 2 * width, 4 * width, stride=2, spatial=False)
        self.layer4 = _stage(n[3], 4 * width, 4 * width, stride=2, spatial=False, final_relu=False)
        for module in self.modules():
            if isinstance(module, SpatialConv | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def frames(self, x: Tensor) -> Tensor:
        """(F, 3, H, W) -> (F, 2 width, ceil(H/8), ceil(W/8)): what is computed for each frame on its own."""
        if stem.fits(self.bn1, x):
            conv = self.conv1
            x = stem.pooled_norm(x, conv.weight.squeeze(2), conv.stride, conv.padding, self.bn1)
        else:
            # ReLU after the pooling is the same, on a quarter of the places.
            x = F.relu(F.max_pool2d(self.bn1(self.conv1(x)), 3, 2, 1), inplace=True)
        return self.layer2(self.layer1(x))  # type: ignore[no-any-return]

    def stem_to_layer4(self, blocks: Tensor) -> Tensor:
        """(M, 3, T, H, W) -> (M, 4 width, ceil(T/4), ceil(H/32), ceil(W/32)), the last block without ReLU."""
        m, _, t, _, _ = blocks.shape
        x = frames_of(blocks)
        if self.recompute and self.training and torch.is_grad_enabled():
            x = checkpoint(self.frames, x, use_reentrant=False, context_fn=self._recomputing)
        else:
            x = self.frames(x)
        x = x.reshape(m, t, *x.shape[1:]).transpose(1, 2)
        return self.layer4(self.layer3(x))  # type: ignore[no-any-return]

    def forward(self, blocks: Tensor, act: Act = "pool_relu") -> Tensor:
        """Encode blocks of frames.

        `blocks` (M, 3, T, H, W) for any T, H and W; returns `z` (M, 4 width, ceil(H/32), ceil(W/32)), the mean of the
        last stage over time. With `relu_pool` the ReLU comes before the mean, and `z` is not negative.
        """
        x = self.stem_to_layer4(blocks)
        return (F.relu(x) if act == "relu_pool" else x).mean(2)

    def _recomputing(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), frozen_statistics(self)


def _stage(n: int, n_in: int, n_out: int, *, stride: int, spatial: bool, final_relu: bool = True) -> nn.Sequential:
    blocks = [BasicBlock(n_in, n_out, stride=stride, spatial=spatial, final_relu=final_relu or n > 1)]
    for k in range(1, n):
        blocks.append(BasicBlock(n_out, n_out, stride=1, spatial=spatial, final_relu=final_relu or k < n - 1))
    return nn.Sequential(*blocks)


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep batch norms in `module` from updating their statistics, for a forward pass that is a repetition.

    With no momentum they update by nothing: to turn the update off would change what is saved for the backward pass.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count


class PixelEncoder(Encoder):
    """No encoder (ablation): `z` is a block's own pixels, arranged as a 7x7 map.

    The paper removes the encoder without saying what takes its place. A mean over pixels would lose all detail, so
    frames are resized to `side` and 8x8 patches become channels: 3 * 64 * T = 960 of them for 5 frames. Each map is
    standardised over channels and places; nothing is learned.
    """

    PATCH = 8

    def __init__(self, block_frames: int = 5, side: int = 56) -> None:
        super().__init__()
        self.side = side
        self.out_channels = 3 * self.PATCH**2 * block_frames

    def forward(self, blocks: Tensor, act: Act = "pool_relu") -> Tensor:
        """(M, 3, T, H, W) -> (M, 192 T, side/8, side/8)."""
        m, c, t, _, _ = blocks.shape
        x = blocks.transpose(1, 2).flatten(0, 1)
        x = F.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True, align_corners=False)
        x = F.pixel_unshuffle(x, self.PATCH)
        x = x.reshape(m, t * c * self.PATCH**2, *x.shape[-2:])
        x = F.layer_norm(x, x.shape[1:])
        return F.relu(x) if act == "relu_pool" else x
