"""What all encoders have in common: blocks of frames in, a feature map out, and parts of them that do not learn."""

from collections.abc import Iterator
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

Act = Literal["pool_relu", "relu_pool"]
"""A5. The paper puts the pooling inside the encoder, so the default is pool, then ReLU; MemDPC's classifier has it the
other way round."""
Tune = Literal["all", "norm"]

PROJECTION = "proj"
"""Name of the layer that brings a published network to our width. No file has weights for it, so it always learns."""
ALL_STAGES = "all"

FRAME_DETECTORS = ("mesonet4", "mesoinception4")
"""No encoders, but whole detectors that stand in the place of one: see `mesonet`."""

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm)
INNERMOST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Dimensions of a weight -> its layout with channels innermost."""


class Encoder(nn.Module):
    """Turns blocks (M, 3, T, H, W), normalised by ImageNet's mean and deviation, into `z` (M, `out_channels`, h, w)."""

    out_channels: int
    by_frame = False
    """Whether it begins with frames, one by one, for which it wants channels innermost in memory."""
    _still: tuple[str, ...] = ()

    def stages(self) -> dict[str, nn.Module]:
        """Return the parts of the network in the order of their work, by the names that they have in a state dict."""
        found = {name: child for name, child in self.named_children() if name != PROJECTION and _learns(child)}
        if len(found) == 1:
            ((name, whole),) = found.items()
            found = {f"{name}.{inner}": child for inner, child in whole.named_children()}
        return found

    def hold(self, frozen: str | None, tune: Tune) -> None:
        """Let only a part of the encoder learn.

        The stage `frozen` and all before it stay as they are, in evaluation mode: batch norms keep their statistics,
        and nothing is dropped. `all` are all stages, without the projection. With `norm`, only scale and shift of the
        norms learn in the others. Raises ValueError for a stage that this encoder does not have.
        """
        stages = self.stages()
        names = [*stages]
        if frozen not in (None, ALL_STAGES, *names):
            raise ValueError(f"this encoder has no stage '{frozen}' to freeze; it has {', '.join(names) or 'none'}")
        n_frozen = 0 if frozen is None else len(names) if frozen == ALL_STAGES else names.index(frozen) + 1
        self._still = tuple(names[:n_frozen])
        for name in self._still:
            stages[name].requires_grad_(requires_grad=False)
        if tune == "norm":
            for name in names[n_frozen:]:
                _hold_all_but_norms(stages[name])
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but frozen stages stay in evaluation mode."""
        super().train(mode)
        for name in self._still:
            self.get_submodule(name).eval()
        return self


def _learns(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _hold_all_but_norms(stage: nn.Module) -> None:
    stage.requires_grad_(requires_grad=False)
    for module in stage.modules():
        if isinstance(module, NORMS):
            module.requires_grad_(requires_grad=True)


def frames_of(blocks: Tensor) -> Tensor:
    """(M, 3, T, H, W) -> (M T, 3, H, W) with channels innermost in memory."""
    return blocks.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def keep_channels_innermost(module: nn.Module) -> None:
    """Lay the weights of 2-D and 3-D convolutions out with channels innermost."""
    for weight in _weights(module):
        weight.data = weight.data.contiguous(memory_format=INNERMOST[weight.ndim])


def _weights(module: nn.Module) -> Iterator[Any]:
    return (each for each in module.parameters() if each.ndim in INNERMOST)
