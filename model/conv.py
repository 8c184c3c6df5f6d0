"""3-D convolutions whose gradients can be relied on."""

import torch
from torch import Tensor, nn


class Conv3d(nn.Conv3d):
    """As torch's, but in float32 under autocast on a CPU; what comes out has autocast's type all the same.

    The bfloat16 kernels of processors with `avx512_bf16` (oneDNN 3.13) leave the gradient of a 3x3x3 weight partly
    unwritten where there are two frames, as there are in the last stage: it holds whatever was in memory.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """(M, in, T, H, W) -> (M, out, T', H', W')."""
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(torch.get_autocast_dtype("cpu"))
