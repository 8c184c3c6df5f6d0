"""The I3D encoder of LPS_e (paper, Table 4): Inception-v1 inflated to 3-D, up to Mixed_5c, then 1x1 to our width.

Carreira and Zisserman, CVPR 2017; layers and parameter names are those of the published PyTorch port, so that its
weights load. The paper gives no channels for this variant ("same setting"); Mixed_5c has 1024 after a ReLU, so a 1x1x1
convolution with batch norm and without ReLU brings it to 256 and to both signs (A15).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lps.model.networks.conv import Conv3d
from lps.model.networks.encoder import Act, Encoder

MIXED: tuple[tuple[str, int, tuple[int, int, int, int, int, int]], ...] = (
    ("Mixed_3b", 192, (64, 96, 128, 16, 32, 32)),
    ("Mixed_3c", 256, (128, 128, 192, 32, 96, 64)),
    ("MaxPool3d_4a_3x3", 0, (0,) * 6),
    ("Mixed_4b", 480, (192, 96, 208, 16, 48, 64)),
    ("Mixed_4c", 512, (160, 112, 224, 24, 64, 64)),
    ("Mixed_4d", 512, (128, 128, 256, 24, 64, 64)),
    ("Mixed_4e", 512, (112, 144, 288, 32, 64, 64)),
    ("Mixed_4f", 528, (256, 160, 320, 32, 128, 128)),
    ("MaxPool3d_5a_2x2", 0, (0,) * 6),
    ("Mixed_5b", 832, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5c", 832, (384, 192, 384, 48, 128, 128)),
)
"""Name, input channels, channels of: 1x1; 1x1 and 3x3; 1x1 and 3x3; 1x1 after the pool."""


def same_pad(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int], value: float = 0.0) -> Tensor:
    """Pad (M, C, T, H, W) as TensorFlow's SAME does: output sizes are ceil(size / stride), the odd cell at the end."""
    pads: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value) if any(pads) else x


class Unit3D(nn.Module):
    """Convolution with SAME padding, batch norm, ReLU."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.kernel = (kernel,) * 3
        self.stride = (stride,) * 3
        self.conv3d = Conv3d(n_in, n_out, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(n_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(M, in, T, H, W) -> (M, out, ceil(T/s), ceil(H/s), ceil(W/s))."""
        x = self.conv3d(same_pad(x, self.kernel, self.stride))
        return F.relu(self.bn(x), inplace=True)


class MaxPool(nn.Module):
    """Max pooling with SAME padding by zeros, which is right after a ReLU."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, T, H, W), each size divided by its stride, rounded up."""
        return F.max_pool3d(same_pad(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Four parallel branches, concatenated."""

    def __init__(self, n_in: int, n: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = Unit3D(n_in, n[0])
        self.b1a = Unit3D(n_in, n[1])
        self.b1b = Unit3D(n[1], n[2], 3)
        self.b2a = Unit3D(n_in, n[3])
        self.b2b = Unit3D(n[3], n[4], 3)
        self.b3a = MaxPool((3, 3, 3), (1, 1, 1))
        self.b3b = Unit3D(n_in, n[5])

    def forward(self, x: Tensor) -> Tensor:
        """(M, in, T, H, W) -> (M, sum of the branches, T, H, W)."""
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], 1)


class I3D(Encoder):
    """I3D to Mixed_5c. `proj_dim` None leaves its 1024 channels as they are."""

    CHANNELS = 1024

    def __init__(self, proj_dim: int | None = 256) -> None:
        super().__init__()
        self.out_channels = proj_dim or self.CHANNELS
        self.Conv3d_1a_7x7 = Unit3D(3, 64, 7, 2)
        self.MaxPool3d_2a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3D(64, 64)
        self.Conv3d_2c_3x3 = Unit3D(64, 192, 3)
        self.MaxPool3d_3a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        for name, n_in, n in MIXED:
            if name == "MaxPool3d_4a_3x3":
                self.add_module(name, MaxPool((3, 3, 3), (2, 2, 2)))
            elif name == "MaxPool3d_5a_2x2":
                self.add_module(name, MaxPool((2, 2, 2), (2, 2, 2)))
            else:
                self.add_module(name, Mixed(n_in, n))
        self.layers = tuple(self._modules)
        self.proj: nn.Module = nn.Identity()
        if proj_dim:
            self.proj = nn.Sequential(Conv3d(self.CHANNELS, proj_dim, 1, bias=False), nn.BatchNorm3d(proj_dim))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def mixed_5c(self, blocks: Tensor) -> Tensor:
        """(M, 3, T, H, W) -> (M, 1024, ceil(T/8), ceil(H/32), ceil(W/32))."""
        x = blocks
        for name in self.layers:
            x = self.get_submodule(name)(x)
        return x

    def forward(self, blocks: Tensor, act: Act = "pool_relu") -> Tensor:
        """(M, 3, T, H, W) -> z (M, proj_dim or 1024, ceil(H/32), ceil(W/32)), the mean over time."""
        x = self.proj(self.mixed_5c(blocks))
        return (F.relu(x) if act == "relu_pool" else x).mean(2)
