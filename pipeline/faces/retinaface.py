"""RetinaFace (Deng et al., 2020): boxes and five points in one pass, with either of two published networks.

`mobilenet` is MobileNet-0.25 as face-alignment carries it: BGR minus channel means. (That package feeds it RGB in the
same place, which costs score; this module turns the channels.) `resnet50` is the network of retinaface-pytorch:
ImageNet-normalised RGB. Anchors and box coding are the same, so both are decoded by the functions of
retinaface-pytorch, and only where the score passes.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from retinaface.box_utils import decode, decode_landm
from retinaface.network import RetinaFace as ResNet50RetinaFace
from retinaface.prior_box import priorbox
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import nms

from lps.pipeline.faces.detector import CROP_MIN_FACE_SHARE, Faces, no_faces, rounded_faces
from lps.pipeline.faces.weights import filled

Backbone = Literal["mobilenet", "resnet50"]

ANCHOR_SIDES = [[16, 32], [64, 128], [256, 512]]
"""In px, per stride."""
STRIDES = [8, 16, 32]
VARIANCES = [0.1, 0.2]
SIDE_MULTIPLE = 32
"""Sides of the input that are not multiples of the last stride give maps that do not add up."""

_BGR_MEANS = (104.0, 117.0, 123.0)
_IMAGENET_MEANS = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_IMAGENET_STDS = (0.229 * 255, 0.224 * 255, 0.225 * 255)


class RetinaFaceLocalizer:
    """Runs one network at one batch shape, so that an image's faces never depend on its batch mates.

    `state` is a state dict as `weights.load_state` gives it; `device` a torch device; `batch_size` the images per pass.
    Batch sizes above 1 give the same bits on a CPU; 1 takes other kernels there and differs by 1e-6 before rounding.
    Candidates need a score above `min_score`; an overlap (IoU) above `max_overlap` with a better one suppresses them.
    Raises UnreadableError if `state` does not fit the network.
    """

    def __init__(
        self,
        backbone: Backbone,
        state: dict[str, Tensor],
        device: str,
        batch_size: int,
        *,
        min_score: float = 0.5,
        max_overlap: float = 0.4,
    ) -> None:
        self._bgr = backbone == "mobilenet"
        self._device = torch.device(device)
        self._format = torch.channels_last if self._device.type == "cpu" else torch.contiguous_format
        net = folded(filled(empty_network(backbone), state, f"retinaface-{backbone}"))
        self._net = net.to(device=self._device, memory_format=self._format)  # type: ignore[call-overload] # in the docs
        means, stds = (_BGR_MEANS, (1.0, 1.0, 1.0)) if self._bgr else (_IMAGENET_MEANS, _IMAGENET_STDS)
        self._means = torch.tensor(means, device=self._device)
        self._stds = torch.tensor(stds, device=self._device)
        self._batch_size = batch_size
        self._min_score = min_score
        self._max_overlap = max_overlap
        self._priors: dict[tuple[int, int, int], Tensor] = {}

    def detect(self, images: NDArray[np.uint8], *, dense: bool) -> list[Faces]:
        """Find the faces of `images`, (B, H, W, 3) RGB uint8. The five points are the network's own, `dense` or not.

        With `dense` the finest level of the pyramid, for small faces, is left out where CROP_MIN_FACE_SHARE allows it.
        Raises ValueError if H or W is not a multiple of 32.
        """
        require_images(images)
        if images.shape[1] % SIDE_MULTIPLE or images.shape[2] % SIDE_MULTIPLE:
            raise ValueError(f"sides must be multiples of {SIDE_MULTIPLE}, got {images.shape = }")
        chunks = [images[start : start + self._batch_size] for start in range(0, len(images), self._batch_size)]
        levels = 2 if dense and min(images.shape[1:3]) * CROP_MIN_FACE_SHARE >= ANCHOR_SIDES[1][0] else 3
        return [faces for chunk in chunks for faces in self._detect_chunk(chunk, levels)]

    def _detect_chunk(self, images: NDArray[np.uint8], levels: int) -> list[Faces]:
        count, height, width = images.shape[:3]
        with torch.inference_mode(), exact_convolutions():
            box_codes, logits, point_codes = pyramid(self._net, self._input(images), levels)
            scores = logits.softmax(-1)[:count, :, 1]
            image, anchor = torch.nonzero(scores > self._min_score, as_tuple=True)
            found = torch.cat(
                [scores[image, anchor, None], box_codes[image, anchor], point_codes[image, anchor]], dim=1
            )
            # From here on the CPU in float64: few rows, and the same on every device.
            found, image, anchor = found.double().cpu(), image.cpu(), anchor.cpu()
            priors = self.anchors(height, width, levels)[anchor]
            boxes = decode(found[:, 1:5], priors, VARIANCES) * torch.tensor([width, height] * 2)
            points = decode_landm(found[:, 5:], priors, VARIANCES) * torch.tensor([width, height] * 5)
            usable = torch.isfinite(boxes).all(dim=1) & torch.isfinite(points).all(dim=1)
            return [
                self._suppressed(boxes[own], found[own, 0], points[own])
                for own in (torch.nonzero((image == i) & usable)[:, 0] for i in range(count))
            ]

    def _input(self, images: NDArray[np.uint8]) -> Tensor:
        """Return `images` as the network's normalised input, zero images filling up the batch."""
        batch = np.zeros((self._batch_size, *images.shape[1:]), np.uint8)
        batch[: len(images)] = images
        if self._bgr:
            batch = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2BGR) for image in batch])
        pixels = torch.from_numpy(batch).to(self._device).float().sub_(self._means)
        pixels = pixels if self._bgr else pixels.div_(self._stds)
        return pixels.permute(0, 3, 1, 2).contiguous(memory_format=self._format)

    def anchors(self, height: int, width: int, levels: int) -> Tensor:
        """Return the anchors as (centre x, centre y, width, height) in shares of the image, (anchors, 4)."""
        key = (height, width, levels)
        if key not in self._priors:
            sides, strides = ANCHOR_SIDES[-levels:], STRIDES[-levels:]
            self._priors[key] = priorbox(sides, strides, clip=False, image_size=(height, width)).double()
        return self._priors[key]

    def _suppressed(self, boxes: Tensor, scores: Tensor, points: Tensor) -> Faces:
        if len(scores) == 0:
            return no_faces()
        kept = nms(boxes, scores, self._max_overlap)
        return rounded_faces(boxes[kept].numpy(), scores[kept].numpy(), points[kept].numpy().reshape(-1, 5, 2))


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
            from face_alignment.detection.retinaface.net_retinaface import RetinaFace as MobileNetRetinaFace

            mobilenet: nn.Module = MobileNetRetinaFace()
            return mobilenet
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


def require_images(images: NDArray[np.uint8]) -> None:
    """Raise ValueError unless `images` are (B, H, W, 3) uint8."""
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be (B, H, W, 3) uint8, got {images.shape = }, {images.dtype = }")


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Keep cuDNN from picking algorithms by timing and from rounding to TF32, while the context lasts."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
