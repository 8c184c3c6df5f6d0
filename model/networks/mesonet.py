"""MesoNet-4 and MesoInception-4 (Afchar et al., WIFS 2018, arXiv 1809.00888): small detectors of single frames.

Not encoders: each frame is judged on its own, and a clip has the mean of its frames' probabilities. Written from the
paper's figures 4 and 5; its numbers of parameters, 27,977 and 28,615, are those of frames of 256 px, and the first
dense layer has fewer at ours. Frames are normalised as for all networks here, where the paper's are 0 to 1.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lps.model.networks.context_net import NetParams
from lps.model.networks.detector import Detector, HeadParams
from lps.model.networks.encoder import FRAME_DETECTORS, frames_of

CHANNELS = 16
"""Channels of a frame's map, and units of the hidden dense layer."""
REDUCTION = 32
"""Sides of a frame and of its map."""
LEAK = 0.1
"""Slope of the hidden layer's ReLU below zero."""


class InceptionLayer(nn.Module):
    """Four branches side by side: 1x1, and 1x1 before a 3x3 with dilation 1, 2 and 3."""

    def __init__(self, n_in: int, n: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Conv2d(n_in, n[0], 1)])
        for dilation, n_out in enumerate(n[1:], 1):
            conv = nn.Conv2d(n_out, n_out, 3, padding=dilation, dilation=dilation)
            self.branches.append(nn.Sequential(nn.Conv2d(n_in, n_out, 1), nn.ReLU(inplace=True), conv))

    def forward(self, x: Tensor) -> Tensor:
        """(F, in, H, W) -> (F, sum of `n`, H, W), without ReLU."""
        return torch.cat([branch(x) for branch in self.branches], 1)


def _block(conv: nn.Module, n_out: int, pool: int) -> nn.Sequential:
    return nn.Sequential(conv, nn.ReLU(inplace=True), nn.BatchNorm2d(n_out), nn.MaxPool2d(pool))


def _convolutions(name: str) -> nn.Sequential:
    """Return the four blocks: (F, 3, H, W) -> (F, 16, H/32, W/32)."""
    if name == "mesonet4":
        first, second, n = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 5, padding=2), (8, 8)
        early = [_block(first, n[0], 2), _block(second, n[1], 2)]
    else:
        early = [_block(InceptionLayer(3, (1, 4, 4, 2)), 11, 2), _block(InceptionLayer(11, (2, 4, 4, 2)), 12, 2)]
        n = (11, 12)
    third, fourth = nn.Conv2d(n[1], CHANNELS, 5, padding=2), nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2)
    return nn.Sequential(*early, _block(third, CHANNELS, 2), _block(fourth, CHANNELS, 4))


class MesoNet(nn.Module):
    """Clip in, two logits out, as `detector.Detector`; `params.encoder` is one of `FRAME_DETECTORS`.

    The softmax of the logits is the mean of the frames' probabilities. Frames have at least 32 px.
    """

    def __init__(self, params: NetParams, head: HeadParams, image_px: int) -> None:
        super().__init__()
        self.params, self.head = params, head
        self.backbone = _convolutions(params.encoder)
        side = image_px // REDUCTION
        self.hidden = nn.Linear(CHANNELS * side**2, CHANNELS)
        self.output = nn.Linear(CHANNELS, 1)
        self.dropout = nn.Dropout(head.dropout)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, N, 3, T, H, W) normalised frames -> logits (B, 2), real first."""
        return self.classify(self.encode_clips(clips))

    def encode_clips(self, clips: Tensor) -> Tensor:
        """(B, N, 3, T, H, W) -> maps of all frames (B, N T, 16, h, w), float32 under autocast."""
        b, n, _, t, _, _ = clips.shape
        z: Tensor = self.backbone(frames_of(clips.flatten(0, 1)))
        return (z if z.dtype == torch.float64 else z.float()).reshape(b, n * t, *z.shape[1:])

    def classify(self, z: Tensor) -> Tensor:
        """(B, F, 16, h, w) -> logits (B, 2)."""
        return clip_logits(self.frame_logits(z))

    def frame_logits(self, z: Tensor) -> Tensor:
        """(B, F, 16, h, w) -> (B, F): the logit of fake of every frame, float32 under autocast."""
        with torch.autocast(z.device.type, enabled=False):
            return self.output(self.dropout(self._hidden(z))).squeeze(-1)  # type: ignore[no-any-return]

    def context(self, z: Tensor) -> Tensor:
        """(B, F, 16, h, w) -> (B, 16): the hidden layer's mean over frames."""
        return self._hidden(z).mean(1)

    def _hidden(self, z: Tensor) -> Tensor:
        return F.leaky_relu(self.hidden(self.dropout(z.flatten(2))), LEAK)


def clip_logits(frame_logits: Tensor) -> Tensor:
    """(B, F) -> (B, 2): logarithms of the mean probabilities of real and of fake."""
    both = torch.stack([F.logsigmoid(-frame_logits), F.logsigmoid(frame_logits)], 1)
    return both.logsumexp(2) - math.log(frame_logits.shape[1])


AnyDetector = Detector | MesoNet


def build_detector(params: NetParams, head: HeadParams, image_px: int) -> AnyDetector:
    """Return the detector of a configuration, initialised. Raises ValueError as the networks do."""
    if params.encoder in FRAME_DETECTORS:
        return MesoNet(params, head, image_px)
    return Detector(params, head)
