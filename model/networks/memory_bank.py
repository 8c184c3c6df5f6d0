"""The predictor: what comes next, as a mixture of remembered patterns.

Paper, section 3.3: a two-layer perceptron turns a context into a probability over the slots of a memory bank, and the
prediction is the mean of the slots under it. The bank is a parameter like any other and learns by gradients alone; the
sentence in section 4.4 that it is "updated by new semantic features" has no counterpart in the method or in MemDPC.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Predictor(nn.Sequential):
    """phi: two 1x1 convolutions, applied to rows. `n_slots` = 0 predicts without a memory bank (ablation, as DPC)."""

    def __init__(self, n_context: int, n_feature: int, n_slots: int) -> None:
        super().__init__(
            nn.Conv2d(n_context, n_context, 1), nn.ReLU(inplace=True), nn.Conv2d(n_context, n_slots or n_feature, 1)
        )
        self.n_slots = n_slots
        for layer in (self[0], self[2]):
            assert isinstance(layer, nn.Conv2d)  # mypy
            assert layer.bias is not None
            nn.init.orthogonal_(layer.weight, 0.1)
            nn.init.zeros_(layer.bias)

    def rows(self, context: Tensor) -> Tensor:
        """(..., context) -> slot scores (..., slots), or without a bank the prediction (..., feature)."""
        first, second = self[0], self[2]
        x = F.relu(F.linear(context, first.weight.flatten(1), first.bias))  # type: ignore[operator, arg-type]
        return F.linear(x, second.weight.flatten(1), second.bias)  # type: ignore[operator, arg-type]


def recall(scores: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean slot under softmax(scores), (..., feature), and the probabilities, (..., slots), both float32.

    In float32 under autocast, too: a thousand small probabilities do not survive bfloat16.
    """
    with torch.autocast(scores.device.type, enabled=False):
        p = torch.softmax(scores if scores.dtype == torch.float64 else scores.float(), -1)
        return p @ bank.to(p.dtype), p
