"""The detector: encoder, aggregator and a linear head over the context (paper, section 3.4)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lps.model.networks.context_net import ContextNet, NetParams
from lps.model.networks.encoder import Act

N_CLASSES = 2
"""0 real, 1 fake, as in the manifests. (The paper's Eq. 1 has fake as 0; only the order of the outputs differs.)"""

AggPart = Literal["out_gate", "all", "none", "gates", "forward"]
"""A10. "Part of the aggregator" is fine-tuned by distillation, and the paper does not say which. `out_gate`: the
candidate gate of both directions, which leaves the dynamics of the memory alone; `gates`: reset and update; `forward`:
all of the forward direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadParams:
    """Which contexts are classified, and how."""

    context: Literal["bidir_last", "bidir_mean", "uni_all", "uni_last"] = "bidir_last"
    """A3. "512 in, 2 out" and "concatenate all of the spatiotemporal context features": the last state of both
    directions, as in MemDPC's classifier. `bidir_mean` is the mean over blocks of both, `uni_all` all forward states,
    `uni_last` the last forward state."""
    feature_act: Act = "pool_relu"
    """A5. See `encoder.Act`."""
    final_bn: bool = True
    """A6. The paper has "a fully connected layer"; MemDPC has a batch norm and a dropout before it."""
    dropout: float = 0.5
    no_aggregator: Literal["concat", "mean"] = "concat"
    """Without an aggregator: pooled maps side by side ("contacted all the short-term outputs"), or their mean."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"{self.dropout = } is not in [0, 1)")


class Detector(ContextNet):
    """Clip in, two logits out."""

    def __init__(self, params: NetParams, head: HeadParams) -> None:
        super().__init__(params, gain=1.0)
        if head.context.startswith("bidir") and params.aggregator == "gru" and not params.bidirectional:
            raise ValueError(f"context '{head.context}' needs a bidirectional aggregator")
        self.head = head
        n_in = self.n_context * self._n_parts()
        self.final_bn: nn.Module = nn.BatchNorm1d(n_in) if head.final_bn else nn.Identity()
        self.final_fc = nn.Sequential(nn.Dropout(head.dropout), nn.Linear(n_in, N_CLASSES))
        nn.init.orthogonal_(self.final_fc[1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.final_fc[1].bias)  # type: ignore[arg-type]
        self._frozen = False

    def _n_parts(self) -> int:
        if self.params.aggregator == "none":
            return self.params.n_blocks if self.head.no_aggregator == "concat" else 1
        return {"bidir_last": 2, "bidir_mean": 2, "uni_all": self.params.n_blocks, "uni_last": 1}[self.head.context]

    def forward(self, clips: Tensor) -> Tensor:
        """(B, N, 3, T, H, W) normalised frames -> logits (B, 2), real first."""
        return self.classify(self.encode_clips(clips))

    def encode_clips(self, clips: Tensor) -> Tensor:
        """(B, N, 3, T, H, W) -> z (B, N, C, h, w) for `classify`; the same for every head on this encoder."""
        return self.encode(clips, self.head.feature_act)

    def classify(self, z: Tensor) -> Tensor:
        """(B, N, C, h, w) -> logits (B, 2), float32 under autocast."""
        with torch.autocast(z.device.type, enabled=False):
            return self.final_fc(self.final_bn(self.context(z)))  # type: ignore[no-any-return]

    def context(self, z: Tensor) -> Tensor:
        """(B, N, C, h, w) -> the pooled context of each clip, (B, 512) by default."""
        b = z.shape[0]
        if self.params.aggregator == "none":
            pooled = F.relu(z).mean((-2, -1))
            return pooled.flatten(1) if self.head.no_aggregator == "concat" else pooled.mean(1)
        rows = self.contexts(self.directed(z))
        states = rows.reshape(*rows.shape[:2], b, -1, self.n_context).mean(3)  # (D, N, B, hidden)
        if self.head.context == "bidir_last":
            return torch.cat(list(states[:, -1]), 1)
        if self.head.context == "bidir_mean":
            return torch.cat(list(states.mean(1)), 1)
        forward = states[0]
        return forward[-1] if self.head.context == "uni_last" else forward.transpose(0, 1).flatten(1)

    def freeze(self, part: AggPart) -> None:
        """Leave only the head and `part` of the aggregator trainable; the encoder's batch norms keep their statistics.

        Raises ValueError for a part that this network does not have.
        """
        if part not in ("none", "all") and self.params.aggregator == "none":
            raise ValueError(f"no aggregator, so no part '{part}' of it to train")
        for name, parameter in self.named_parameters():
            parameter.requires_grad = name.startswith("final_") or _in_part(name, part)
        self._frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> "Detector":
        """As `nn.Module.train`, but a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self


def _in_part(name: str, part: AggPart) -> bool:
    if not name.startswith("agg_"):
        return False
    return {
        "all": True,
        "none": False,
        "out_gate": "out_gate" in name,
        "gates": "out_gate" not in name,
        "forward": name.startswith("agg_f"),
    }[part]
