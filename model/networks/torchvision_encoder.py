"""Networks of torchvision as encoders, by name: 2-D ones see frames, 3-D ones blocks.

The network ends before its pooling. A 2-D one makes a map of every frame, and a block has the mean of its frames' maps;
a 3-D one takes a block as a clip, and what is left of its time is averaged. Both end in a 1x1 convolution with batch
norm and without ReLU, as I3D does (A15), so that maps have our width and both signs. Weights come from a file
(`published_weights.load_encoder_weights`); nothing is ever fetched.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lps.model.networks.conv import Conv3d
from lps.model.networks.encoder import Act, Encoder, frames_of

PREFIX = "torchvision:"
# fmt: off
FRAME_NETWORKS = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
    "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2",
    "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_b5",
    "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l",
    "convnext_tiny", "convnext_small", "convnext_base", "convnext_large",
)
# fmt: on
"""ResNet, ResNeXt and wide ResNet, EfficientNet, ConvNeXt."""
BLOCK_NETWORKS = ("r3d_18", "mc3_18", "r2plus1d_18")
"""Those of Tran et al., CVPR 2018: R3D, mixed convolutions, R(2+1)D."""
TORCHVISION_ENCODERS = tuple(f"{PREFIX}{name}" for name in (*FRAME_NETWORKS, *BLOCK_NETWORKS))

HEAD = ("avgpool", "fc", "classifier")
"""What a network has after its feature maps."""
IMAGENET_NETWORK = "resnet18"
"""Its published weights are for frames as all encoders here get them."""


class TorchvisionEncoder(Encoder):
    """A network of `TORCHVISION_ENCODERS` with random weights, under the names that torchvision gives its parts.

    `proj_dim` None leaves its channels as they are: with ReLU and so not negative for ResNets.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, name: str, proj_dim: int | None = 256) -> None:
        from torchvision.models import get_model

        super().__init__()
        name = name.removeprefix(PREFIX)
        self.by_frame = name in FRAME_NETWORKS
        network = get_model(name, weights=None)
        *_, head = (each for each in network.modules() if isinstance(each, nn.Linear))
        for part, module in network.named_children():
            if part not in HEAD:
                self.add_module(part, module)
        self.layers = tuple(self._modules)
        _use_our_convolutions(self)
        self.out_channels = proj_dim or head.in_features
        self.proj: nn.Module = nn.Identity()
        if proj_dim:
            conv, norm = (nn.Conv2d, nn.BatchNorm2d) if self.by_frame else (Conv3d, nn.BatchNorm3d)
            self.proj = nn.Sequential(conv(head.in_features, proj_dim, 1, bias=False), norm(proj_dim))
            nn.init.kaiming_normal_(self.proj[0].weight, mode="fan_out")  # type: ignore[arg-type]
        (mean, std), (own_mean, own_std) = _normalisation(IMAGENET_NETWORK), _normalisation(name)
        self.renormalised = not torch.equal(mean, own_mean) or not torch.equal(std, own_std)
        self.register_buffer("scale", _channels(std / own_std), persistent=False)
        self.register_buffer("shift", _channels((mean - own_mean) / own_std), persistent=False)

    def forward(self, blocks: Tensor, act: Act = "pool_relu") -> Tensor:
        """(M, 3, T, H, W) -> z (M, proj_dim or the network's channels, h, w), the mean over time.

        h and w are H / 32 and W / 32, rounded up, and H / 16 and W / 16 for `BLOCK_NETWORKS`.
        """
        m, _, t, _, _ = blocks.shape
        x = blocks * self.scale + self.shift if self.renormalised else blocks
        if self.by_frame:
            x = frames_of(x)
        for name in self.layers:
            x = self.get_submodule(name)(x)
        x = self.proj(x)
        x = F.relu(x) if act == "relu_pool" else x
        return x.reshape(m, t, *x.shape[1:]).mean(1) if self.by_frame else x.mean(2)


def _normalisation(name: str) -> tuple[Tensor, Tensor]:
    """Return mean and deviation by which the frames of a network's published weights are normalised, (3,) each."""
    from torchvision.models import get_model_weights

    preset = get_model_weights(name).DEFAULT.transforms()
    return torch.tensor(preset.mean), torch.tensor(preset.std)


def _channels(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _use_our_convolutions(network: nn.Module) -> None:
    """Make torch's 3-D convolutions ours, which have nothing more: right in bfloat16 on a CPU, and fewer products."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.__class__ = Conv3d
