"""The two networks of RetinaFace in torch: both on GPUs, and resnet50 on CPUs as well."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from retinaface.net import FPN, SSH, conv_bn, conv_dw
from retinaface.network import RetinaFace as ResNet50RetinaFace
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lps.pipeline.faces.anchors import Backbone, Candidates
from lps.pipeline.faces.weights import filled

LEAK = 0.1
"""Slope of the leaky ReLUs of MobileNet-0.25."""
_BGR_MEANS = (104.0, 117.0, 123.0)
_IMAGENET_MEANS = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_IMAGENET_STDS = (0.229 * 255, 0.224 * 255, 0.225 * 255)


class TorchRetinaFace:
    """Runs one network at one batch shape, so that an image's faces never depend on its batch mates.

    Batch sizes above 1 give the same bits on a CPU; 1 takes other kernels there and differs by 1e-6 before rounding.
    """

    def __init__(self, backbone: Backbone, state: dict[str, Tensor], device: str, batch_size: int) -> None:
        self._bgr = backbone == "mobilenet"
        self._device = torch.device(device)
        self._format = torch.channels_last if self._device.type == "cpu" else torch.contiguous_format
        net = folded(filled(empty_network(backbone), state, f"retinaface-{backbone}"))
        self._net = net.to(device=self._device, memory_format=self._format)  # type: ignore[call-overload] # in the docs
        means, stds = (_BGR_MEANS, (1.0, 1.0, 1.0)) if self._bgr else (_IMAGENET_MEANS, _IMAGENET_STDS)
        self._means = torch.tensor(means, device=self._device)
        self._stds = torch.tensor(stds, device=self._device)
        self._batch_size = batch_size

    def __call__(self, images: NDArray[np.uint8], levels: int, min_score: float) -> list[Candidates]:
        """Return the candidates of each image."""
        starts = range(0, len(images), self._batch_size)
        return [one for k in starts for one in self._chunk(images[k : k + self._batch_size], levels, min_score)]

    def _chunk(self, images: NDArray[np.uint8], levels: int, min_score: float) -> list[Candidates]:
        count = len(images)
        with torch.inference_mode(), exact_convolutions():
            box_codes, logits, point_codes = pyramid(self._net, self._input(images), levels)
            scores = logits.softmax(-1)[:count, :, 1]
            image, anchor = torch.nonzero(scores > min_score, as_tuple=True)
            codes = torch.cat([box_codes[image, anchor], point_codes[image, anchor]], dim=1).cpu().numpy()
            chosen = scores[image, anchor].cpu().numpy()
        owner, place = image.cpu().numpy(), anchor.cpu().numpy()
        return [Candidates(place[owner == k], chosen[owner == k], codes[owner == k]) for k in range(count)]

    def _input(self, images: NDArray[np.uint8]) -> Tensor:
        """Return `images` as the network's normalised input, zero images filling up the batch."""
        batch = np.zeros((self._batch_size, *images.shape[1:]), np.uint8)
        batch[: len(images)] = images[..., ::-1] if self._bgr else images
        pixels = torch.from_numpy(batch).to(self._device).float().sub_(self._means)
        pixels = pixels if self._bgr else pixels.div_(self._stds)
        return pixels.permute(0, 3, 1, 2).contiguous(memory_format=self._format)


class MobileNetRetinaFace(ResNet50RetinaFace):  # type: ignore[misc] # without types
    """RetinaFace with MobileNet-0.25 (biubug6/Pytorch_Retinaface), in parts of retinaface-pytorch.

    BGR minus means, (B, 3, H, W), to box codes, class logits and point codes of all anchors, as its base class.
    """

    def __init__(self) -> None:
        nn.Module.__init__(self)  # the base class knows one body alone
        self.body = _MobileNet()
        self.fpn = FPN([64, 128, 256], 64)
        self.ssh1, self.ssh2, self.ssh3 = SSH(64, 64), SSH(64, 64), SSH(64, 64)
        self.ClassHead = self._make_class_head(in_channels=64)
        self.BboxHead = self._make_bbox_head(in_channels=64)
        self.LandmarkHead = self._make_landmark_head(in_channels=64)


class _MobileNet(nn.ModuleDict):
    """MobileNet V1 (Howard et al., 2017) at a quarter of its width, up to its last map."""

    def __init__(self) -> None:
        halved, same = 2, 1
        super().__init__(
            {
                "stage1": nn.Sequential(
                    conv_bn(3, 8, halved, leaky=LEAK),
                    *(conv_dw(8, 16, same), conv_dw(16, 32, halved), conv_dw(32, 32, same)),
                    *(conv_dw(32, 64, halved), conv_dw(64, 64, same)),
                ),
                "stage2": nn.Sequential(conv_dw(64, 128, halved), *(conv_dw(128, 128, same) for _ in range(5))),
                "stage3": nn.Sequential(conv_dw(128, 256, halved), conv_dw(256, 256, same)),
            }
        )

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the map of each stage, at 1/8, 1/16 and 1/32 of the image's sides."""
        maps = {}
        for name, stage in self.items():
            pixels = maps[name] = stage(pixels)
        return maps


def pyramid(net: Any, pixels: Tensor, levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return box codes (B, anchors, 4), class logits (B, anchors, 2) and point codes (B, anchors, 10) of `pixels`.

    What either network's own forward pass gives, but of the coarsest `levels` of its three levels only: the finest
    takes more than half of the time of mobilenet.
    """
    stages = list(net.body(pixels).values())[-levels:]
    laterals = (net.fpn.output1, net.fpn.output2, net.fpn.output3)[-levels:]
    merges = (net.fpn.merge1, net.fpn.merge2)[1 - levels :]
    maps = [lateral(stage) for lateral, stage in zip(laterals, stages, strict=True)]
    for k in reversed(range(levels - 1)):
        maps[k] = merges[k](maps[k] + F.interpolate(maps[k + 1], size=maps[k].shape[2:], mode="nearest"))
    contexts = (net.ssh1, net.ssh2, net.ssh3)[-levels:]
    features = [context(level) for context, level in zip(contexts, maps, strict=True)]
    boxes, logits, points = (
        torch.cat([head(feature) for head, feature in zip(heads[-levels:], features, strict=True)], dim=1)
        for heads in (net.BboxHead, net.ClassHead, net.LandmarkHead)
    )
    return boxes, logits, points


def empty_network(backbone: Backbone) -> nn.Module:
    """Return the network of `backbone` on the meta device: names and shapes, no memory, no random numbers drawn."""
    with torch.device("meta"):
        if backbone == "mobilenet":
            return MobileNetRetinaFace()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module=r"torchvision\.models\._utils")
            resnet50: nn.Module = ResNet50RetinaFace(
                name="Resnet50",
                pretrained=False,  # an old argument of torchvision, which warns
                return_layers={"layer2": 1, "layer3": 2, "layer4": 3},
                in_channels=256,
                out_channels=256,
            )
        return resnet50


def folded(net: nn.Module) -> nn.Module:
    """Fold every batch norm that directly follows a convolution in a `Sequential` into it: a quarter less CPU time."""
    for module in net.modules():
        names = list(module._modules) if isinstance(module, nn.Sequential) else []
        for name, after in zip(names, names[1:], strict=False):
            conv, norm = module._modules[name], module._modules[after]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module._modules[name] = fuse_conv_bn_eval(conv, norm)
                module._modules[after] = nn.Identity()
    return net


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Keep cuDNN from picking algorithms by timing and from rounding to TF32, while the context lasts."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
