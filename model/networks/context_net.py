"""Encoder and aggregator together: what pretraining learns and the detector starts from."""

import difflib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lps.model.networks.convgru import ConvGRU, scan, to_rows
from lps.model.networks.encoder import FRAME_DETECTORS, Act, Encoder, Tune
from lps.model.networks.i3d import I3D
from lps.model.networks.resnet2d3d import PixelEncoder, ResNet2d3d
from lps.model.networks.torchvision_encoder import PREFIX, TORCHVISION_ENCODERS, TorchvisionEncoder

StateDict = dict[str, Tensor]

NO_ENCODER_HIDDEN = 256
"""Width of the aggregator where there is no encoder to take it from: that of the full network."""
ENCODERS = ("resnet18", "resnet34", "i3d", "none", *FRAME_DETECTORS, *TORCHVISION_ENCODERS)
FAMILIES = "torchvision's ResNet, ResNeXt, EfficientNet, ConvNeXt, r3d_18, mc3_18 and r2plus1d_18"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetParams:
    """Shape of encoder and aggregator."""

    encoder: str = "resnet18"
    """One of `ENCODERS`. `i3d` is LPS_e (Table 4), `none` the ablation of Figure 8."""
    weights: str | None = None
    """Encoders of torchvision only: a file with its first weights, where nothing else is started from."""
    weights_sha256: str | None = None
    """Digest of that file, in hex."""
    frozen: str | None = None
    """Stage of the encoder that does not learn, and none before it does; see `Encoder.hold`."""
    tune: Tune = "all"
    """`norm`: of the encoder's other stages only scale and shift of the norms learn."""
    width: int = 64
    """ResNet18 and 34 only: channels of the first stage; the feature map has four times as many."""
    proj_dim: int | None = 256
    """A15, I3D and torchvision only: channels after the projection. The paper says "same setting"; None keeps
    Mixed_5c's 1024, or those of the network."""
    pixel_side: int = 56
    """Without encoder only: side in px that frames are resized to."""
    recompute: bool = False
    """ResNet18 and 34 only: recompute the activations of the large stages in the backward pass."""
    aggregator: Literal["gru", "none"] = "gru"
    """`none` is the ablation of Figure 8: a context is the feature map itself."""
    hidden: int | None = None
    """Channels of a context; None takes those of the feature map, as the paper does (256)."""
    bidirectional: bool = True
    """A4. Algorithm 1 shows the forward direction only; the classifier's 512 inputs need both."""
    gru_dropout: float = 0.1
    """Dropout of the state that is carried on. Not in the paper; MemDPC's."""
    n_blocks: int = 12
    """A2: `end` in the paper's sums is this number of blocks, not a number of frames."""
    block_frames: int = 5

    def __post_init__(self) -> None:
        _require_encoder(self)
        if min(self.width, self.n_blocks, self.block_frames) < 1:
            raise ValueError(f"sizes must be above zero: {self.width = }, {self.n_blocks = }, {self.block_frames = }")
        if (self.hidden is not None and self.hidden < 1) or (self.proj_dim is not None and self.proj_dim < 1):
            raise ValueError(f"channels must be above zero: {self.hidden = }, {self.proj_dim = }")
        if self.pixel_side < PixelEncoder.PATCH or self.pixel_side % PixelEncoder.PATCH:
            raise ValueError(f"{self.pixel_side = } is not a multiple of {PixelEncoder.PATCH}")
        if not 0 <= self.gru_dropout < 1:
            raise ValueError(f"{self.gru_dropout = } is not in [0, 1)")


def _require_encoder(params: NetParams) -> None:
    """Raise ValueError for an encoder that is not known, and for settings that it does not have."""
    name = params.encoder
    if name not in ENCODERS:
        near = difflib.get_close_matches(name, ENCODERS, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: resnet18, resnet34, i3d, none and {FAMILIES}"
        raise ValueError(f"no encoder '{name}' here; {hint}")
    if (params.weights is None) != (params.weights_sha256 is None):
        raise ValueError("weights and weights_sha256 belong together: the file, and what sha256sum prints of it")
    if params.weights is not None and name not in TORCHVISION_ENCODERS:
        raise ValueError(f"weights are for encoders of torchvision, not for '{name}'")
    if params.frozen is not None or params.tune != "all":
        if name in FRAME_DETECTORS:
            raise ValueError(f"'{name}' is a whole detector and learns as a whole: frozen and tune are for encoders")
        if name == "none":
            raise ValueError("frozen and tune are for encoders, and encoder = 'none' has nothing that learns")


def build_encoder(params: NetParams) -> Encoder:
    """Return the encoder, initialised, of which only a part learns where it is so set.

    Raises ValueError for `frozen` that it has no stage of, and for what is a whole detector.
    """
    encoder: Encoder
    if params.encoder in FRAME_DETECTORS:
        raise ValueError(f"'{params.encoder}' is a whole detector and no encoder: only classify trains it")
    if params.encoder == "none":
        encoder = PixelEncoder(params.block_frames, params.pixel_side)
    elif params.encoder == "i3d":
        encoder = I3D(params.proj_dim)
    elif params.encoder.startswith(PREFIX):
        encoder = TorchvisionEncoder(params.encoder, params.proj_dim)
    else:
        encoder = ResNet2d3d(int(params.encoder.removeprefix("resnet")), params.width, recompute=params.recompute)
    encoder.hold(params.frozen, params.tune)
    return encoder


class ContextNet(nn.Module):
    """Encoder and aggregators under their reference names: `backbone`, `agg_f` and `agg_b`."""

    def __init__(self, params: NetParams, gain: float) -> None:
        super().__init__()
        self.params = params
        self.backbone = build_encoder(params)
        self.n_feature = self.backbone.out_channels
        self.n_context = self.n_feature
        if params.aggregator == "gru":
            default = NO_ENCODER_HIDDEN if params.encoder == "none" else self.n_feature
            self.n_context = params.hidden or default
            self.agg_f = ConvGRU(self.n_feature, self.n_context, params.gru_dropout, gain)
            if params.bidirectional:
                self.agg_b = ConvGRU(self.n_feature, self.n_context, params.gru_dropout, gain)

    @property
    def grus(self) -> list[ConvGRU]:
        """The aggregators, forwards first."""
        return [self.agg_f, self.agg_b] if self.params.bidirectional else [self.agg_f]

    def encode(self, clips: Tensor, act: Act = "pool_relu") -> Tensor:
        """(B, N, 3, T, H, W) normalised frames -> z (B, N, C, h, w), float32 or wider whatever autocast says."""
        b, n = clips.shape[:2]
        z: Tensor = self.backbone(clips.flatten(0, 1), act)
        return (z if z.dtype == torch.float64 else z.float()).reshape(b, n, *z.shape[1:])

    def directed(self, z: Tensor) -> Tensor:
        """(B, N, C, h, w) -> (D, N, B h w, C): z as rows, and for the second direction in reversed order."""
        rows = to_rows(z)
        return torch.stack([rows, rows.flip(0)]) if self.params.bidirectional else rows[None]

    def contexts(self, z_rows: Tensor, h0: Tensor | None = None) -> Tensor:
        """Aggregate (D, N, R, C) into the contexts after each block, (D, N, R, hidden); float32 under autocast."""
        x = F.relu(z_rows)
        if self.params.aggregator == "none":
            return x
        with torch.autocast(x.device.type, enabled=False):
            return scan(self.grus, x, h0)
