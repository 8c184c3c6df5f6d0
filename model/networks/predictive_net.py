"""Predictive pretraining (paper, section 3.3 and Algorithm 1): from what was seen, predict the next feature map."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lps.model.networks.context_net import ContextNet, NetParams
from lps.model.networks.losses import Contrast, Reduction, contrastive
from lps.model.networks.memory_bank import Predictor, recall

GAIN = 0.1
"""Orthogonal initialisation of aggregator and predictor in pretraining (MemDPC)."""
ROWS_AT_A_TIME = 1024
"""Rows of a score matrix that is only looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainParams:
    """What is predicted from what, and how the loss counts it."""

    rollout: Literal["teacher_forced", "recursive"] = "teacher_forced"
    """A1. Algorithm 1, line 4 predicts one step from true maps z_1..z_i; the word "recursively" is MemDPC's, which
    feeds predictions back."""
    min_context: int = 3
    """First prediction after this many blocks (Algorithm 1); teacher-forced only."""
    pred_step: int = 3
    """Predictions fed back at the end of a clip; recursive only. "From 3 to the end" would be 9 of 12."""
    n_slots: int = 1024
    """Slots of the memory bank. 0 predicts without one: the ablation of Figure 8, and DPC's predictor."""
    stop_grad: bool = False
    """A9: no gradient through the targets. MemDPC lets it through."""
    reduction: Reduction = "mean"
    negatives: Literal["local", "global"] = "local"
    """A8: candidates of this process or of all; MemDPC has them per GPU."""
    chunk_rows: int = 0
    """Rows of the score matrix at a time; 0 is all."""

    def __post_init__(self) -> None:
        if min(self.min_context, self.pred_step) < 1:
            raise ValueError(f"steps must be above zero: {self.min_context = }, {self.pred_step = }")
        if min(self.n_slots, self.chunk_rows) < 0:
            raise ValueError(f"sizes must not be negative: {self.n_slots = }, {self.chunk_rows = }")


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predictions of one direction, rows ordered by clip, step, y, x."""

    predicted: Tensor
    """(Q, C), float32."""
    target: Tensor
    """(Q, C): the true maps in the same order."""
    context: Tensor
    """(B, hidden, h, w): state after the last true map that was read."""


@dataclass(frozen=True, slots=True)
class PretrainLoss:
    """The sum over directions, and each direction."""

    total: Tensor
    directions: tuple[Contrast, ...]


class PredictiveNet(ContextNet):
    """Encoder, aggregator, predictor and memory bank; state-dict names are MemDPC's."""

    def __init__(self, params: NetParams, pretrain: PretrainParams) -> None:
        super().__init__(params, GAIN)
        self.pretrain = pretrain
        given = pretrain.min_context if pretrain.rollout == "teacher_forced" else params.n_blocks - pretrain.pred_step
        if not 1 <= given < params.n_blocks:
            raise ValueError(f"nothing to predict: {given} blocks of context in clips of {params.n_blocks} blocks")
        if pretrain.rollout == "recursive" and params.aggregator == "none":
            raise ValueError("recursive prediction needs an aggregator")
        self.n_given = given
        self.network_pred = Predictor(self.n_context, self.n_feature, pretrain.n_slots)
        if pretrain.n_slots:
            self.mb = nn.Parameter(torch.randn(pretrain.n_slots, self.n_feature))

    def forward(self, clips: Tensor) -> list[Prediction]:
        """(B, N, 3, T, H, W) normalised frames -> one Prediction per direction."""
        return self.predict(self.encode(clips))

    def predict(self, z: Tensor) -> list[Prediction]:
        """(B, N, C, h, w) feature maps -> one Prediction per direction."""
        b, _, _, h, w = z.shape
        rows = self.directed(z)
        roll = self._teacher_forced if self.pretrain.rollout == "teacher_forced" else self._recursive
        predicted, context = roll(rows)
        target = rows[:, -predicted.shape[1] :]
        if self.pretrain.stop_grad:
            target = target.detach()
        return [
            Prediction(_by_clip(p, b), _by_clip(t, b), c.reshape(b, h, w, -1).permute(0, 3, 1, 2))
            for p, t, c in zip(predicted, target, context, strict=True)
        ]

    def next_rows(self, context: Tensor) -> Tensor:
        """(..., hidden) -> predicted feature rows (..., C), float32."""
        with torch.autocast(context.device.type, enabled=False):
            scores = self.network_pred.rows(context)
            return recall(scores, self.mb)[0] if self.pretrain.n_slots else scores

    def _teacher_forced(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        # One pass gives all contexts, and one predictor call all predictions.
        contexts = self.contexts(rows[:, :-1])
        return self.next_rows(contexts[:, self.pretrain.min_context - 1 :]), contexts[:, -1]

    def _recursive(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        context = state = self.contexts(rows[:, : -self.pretrain.pred_step])[:, -1]
        predicted = [self.next_rows(context)]
        for _ in range(self.pretrain.pred_step - 1):
            state = self.contexts(predicted[-1][:, None], state)[:, -1]
            predicted.append(self.next_rows(state))
        return torch.stack(predicted, 1), context


def _by_clip(rows: Tensor, b: int) -> Tensor:
    """(P, B h w, C) -> (B P h w, C)."""
    return rows.reshape(rows.shape[0], b, -1, rows.shape[-1]).transpose(0, 1).flatten(0, 2)


def pretrain_loss(predictions: list[Prediction], params: PretrainParams) -> PretrainLoss:
    """Contrast every direction's predictions with its targets; the total is the sum (MemDPC)."""
    found = tuple(
        contrastive(
            p.predicted,
            p.target,
            reduction=params.reduction,
            global_negatives=params.negatives == "global",
            chunk_rows=params.chunk_rows,
        )
        for p in predictions
    )
    return PretrainLoss(torch.stack([c.loss for c in found]).sum(), found)


def copy_baseline(z: Tensor, n_given: int) -> Contrast:
    """Contrast each map after the first `n_given` with its predecessor: what mere copying would reach, forwards.

    Frames of consecutive blocks are much alike, so a good loss alone does not show that anything was learnt.
    """
    rows = z.transpose(0, 1).permute(0, 1, 3, 4, 2).flatten(1, 3)
    return contrastive(_by_clip(rows[n_given - 1 : -1], len(z)), _by_clip(rows[n_given:], len(z)))


@torch.no_grad()
def mistakes(found: Prediction) -> dict[str, Tensor]:
    """Say what was taken for the right map, as shares of all rows; with top-1 they make 1.

    `wrong_step` is the right place of the clip at another time, `wrong_place` another place of it, `wrong_clip` another
    clip. The first is what pretraining is about; the others can be avoided by telling clips and places apart.
    """
    n_places = found.context.shape[-2] * found.context.shape[-1]
    n_rows = len(found.predicted) // len(found.context)  # of a clip
    own = torch.arange(len(found.predicted), device=found.predicted.device)
    with torch.autocast(own.device.type, enabled=False):
        parts = zip(torch.split(found.predicted, ROWS_AT_A_TIME), torch.split(own, ROWS_AT_A_TIME), strict=True)
        best = torch.cat([_best(rows @ found.target.to(rows.dtype).t(), wanted) for rows, wanted in parts])
    clip = best // n_rows != own // n_rows
    place = ~clip & (best % n_places != own % n_places)
    step = ~clip & ~place & (best != own)
    return {f"wrong_{name}": kind.float().mean() for name, kind in (("step", step), ("place", place), ("clip", clip))}


def _best(scores: Tensor, wanted: Tensor) -> Tensor:
    """Return the best candidate of each row, (Q,); in a tie with the wanted one the other, as top-1 counts it."""
    own = scores.gather(1, wanted[:, None]).squeeze(1)
    other, at = scores.scatter(1, wanted[:, None], -torch.inf).max(1)
    return torch.where(other >= own, at, wanted)
