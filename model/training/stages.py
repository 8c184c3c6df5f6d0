"""The stages of training as modules: tensors of a batch in; its loss, what is worth logging, and logits out.

`encoder` is stage 0 of LPS_e, `pretrain` is section 3.3 of the paper, `classify` and `distill` are section 3.4.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lps.model.data.frames import frames_to_blocks
from lps.model.networks.context_net import NetParams, build_encoder
from lps.model.networks.detector import N_CLASSES, AggPart, Detector
from lps.model.networks.losses import DistillParams, selective_distillation
from lps.model.networks.mesonet import MesoNet, clip_logits
from lps.model.networks.predictive_net import PredictiveNet, copy_baseline, mistakes, pretrain_loss
from lps.model.training.processes import smallest

Values = dict[str, Tensor]


class StageOutput(NamedTuple):
    """What a stage makes of a batch. A tuple, so that `DistributedDataParallel` finds the tensors in it."""

    loss: Tensor
    """Scalar."""
    values: Values
    """Worth logging: scalars, detached."""
    logits: Tensor | None = None
    """(B, 2), of detectors."""


class BlockClassifier(nn.Module):
    """Stage 0 of LPS_e: the encoder learns real from fake on single blocks, by a mean over places and a linear layer.

    The paper pretrains I3D "on the real/fake task" without details; other stages then start from its `backbone`.
    """

    def __init__(self, params: NetParams) -> None:
        super().__init__()
        self.params = params
        self.backbone = build_encoder(params)
        self.block_fc = nn.Linear(self.backbone.out_channels, N_CLASSES)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, N, 3, T, H, W) -> logits of every block (B, N, 2)."""
        z = self.backbone(clips.flatten(0, 1))
        with torch.autocast(z.device.type, enabled=False):
            return self.block_fc(F.relu(z).float().mean((-2, -1))).unflatten(0, clips.shape[:2])  # type: ignore[no-any-return]


class TrainingStage(nn.Module):
    """A network with the loss that it learns from; one level of subclasses, one for each stage."""

    network: nn.Module
    notes: tuple[str, ...] = ()
    """What the user should know of what it starts from."""

    def __init__(self, network: nn.Module, block_frames: int, *, channels_last: bool = False) -> None:
        super().__init__()
        self.network = network
        self.block_frames = block_frames
        self.channels_last = channels_last

    def blocks(self, frames: Tensor) -> Tensor:
        """(B, N T, H, W, 3) uint8 -> (B, N, 3, T, H, W) normalised, in memory with or without channels innermost."""
        blocks = frames_to_blocks(frames, self.block_frames)
        return blocks if self.channels_last else blocks.contiguous()

    def forward(self, inputs: Tensor, labels: Tensor) -> StageOutput:
        """Return the loss of a batch, values to log and logits."""
        raise NotImplementedError


class EncoderStage(TrainingStage):
    """Cross entropy of every block with its clip's label."""

    network: BlockClassifier

    def forward(self, inputs: Tensor, labels: Tensor) -> StageOutput:
        """Frames and labels."""
        logits = self.network(self.blocks(inputs))
        loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1]))
        return StageOutput(loss, {"accuracy": (logits.mean(1).argmax(1) == labels).float().mean()})


class PretrainStage(TrainingStage):
    """Contrastive prediction, both directions; labels are not used.

    With global negatives, processes contrast equally many clips: where one has fewer, as in an epoch's last step, the
    others leave out as many. Evaluation is each process on its own, since they need not be in step there; it also says
    what copying would reach, and what is taken for what.
    """

    network: PredictiveNet

    def forward(self, inputs: Tensor, labels: Tensor) -> StageOutput:
        """Frames; the loss is the sum over directions."""
        del labels
        params = self.network.pretrain
        if params.negatives == "global" and self.training:
            inputs = inputs[: smallest(len(inputs), inputs.device)]
        else:
            params = replace(params, negatives="local")
        z = self.network.encode(self.blocks(inputs))
        predictions = self.network.predict(z)
        found = pretrain_loss(predictions, params)
        values: Values = {}
        for name, contrast in zip(("forward", "backward"), found.directions, strict=False):
            values[f"loss_{name}"] = contrast.loss.detach()
            values[f"top1_{name}"] = contrast.top1
            values[f"top5_{name}"] = contrast.top5
        if not self.training:
            copied = copy_baseline(z, self.network.n_given)
            values |= {"top1_copy": copied.top1, "loss_copy": copied.loss, **mistakes(predictions[0])}
        rows = len(predictions[0].predicted) if params.reduction == "sum" else 1
        chance = rows * math.log(found.directions[0].n_candidates)
        mean = found.total.detach() / len(found.directions)
        return StageOutput(found.total, {**values, "share_of_chance": mean / chance})


class ClassifyStage(TrainingStage):
    """Cross entropy; every parameter learns."""

    network: Detector

    def forward(self, inputs: Tensor, labels: Tensor) -> StageOutput:
        """Frames and labels."""
        with _norm_for(self.network, len(inputs)):
            logits = self.network(self.blocks(inputs))
        accuracy = (logits.argmax(1) == labels).float().mean()
        return StageOutput(F.cross_entropy(logits, labels), {"accuracy": accuracy}, logits)


class FrameStage(TrainingStage):
    """Cross entropy of every frame with its clip's label; the clip is judged by the mean of its frames."""

    network: MesoNet

    def forward(self, inputs: Tensor, labels: Tensor) -> StageOutput:
        """Frames and labels."""
        each = self.network.frame_logits(self.network.encode_clips(self.blocks(inputs)))
        loss = F.binary_cross_entropy_with_logits(each, labels[:, None].expand_as(each).to(each.dtype))
        logits = clip_logits(each)
        return StageOutput(loss, {"accuracy": (logits.argmax(1) == labels).float().mean()}, logits)


@dataclass(frozen=True, slots=True)
class DistillOptions:
    """What is distilled, and into which part."""

    loss: DistillParams
    part: AggPart = "out_gate"


class DistillStage(TrainingStage):
    """Selective self-distillation: the student starts as a copy of its teacher and learns in the head and `part`.

    Both share the frozen encoder, so feature maps are computed once; they may come from a cache instead of frames.
    """

    network: Detector

    def __init__(
        self,
        student: Detector,
        teacher: Detector,
        options: DistillOptions,
        block_frames: int,
        *,
        channels_last: bool = False,
    ) -> None:
        super().__init__(student, block_frames, channels_last=channels_last)
        self.network.freeze(options.part)
        self.options = options
        # Not a submodule: the teacher is no part of what is trained, saved or kept in step between processes.
        self._teacher = (teacher.eval().requires_grad_(False),)  # noqa: FBT003

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001, FBT002  as torch
        self.teacher._apply(fn, recurse)  # type: ignore[no-untyped-call]  # `to` and its like move the teacher, too
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def teacher(self) -> Detector:
        """The frozen detector that the student started from."""
        return self._teacher[0]

    def forward(self, inputs: Tensor, labels: Tensor) -> StageOutput:
        """Frames (uint8) or feature maps (B, N, C, h, w), and labels."""
        z = self.maps(inputs)
        with torch.no_grad():
            taught = self.teacher.classify(z)
        with _norm_for(self.network, len(inputs)):
            logits = self.network.classify(z)
        loss = selective_distillation(logits, taught, labels, self.options.loss)
        values = {
            "cross_entropy": F.cross_entropy(logits.detach(), labels),
            "selected": (taught.argmax(1) == labels).float().mean(),
            "accuracy": (logits.argmax(1) == labels).float().mean(),
        }
        return StageOutput(loss, values, logits)

    @torch.no_grad()
    def maps(self, inputs: Tensor) -> Tensor:
        """Frames -> feature maps; feature maps stay what they are."""
        return self.network.encode_clips(self.blocks(inputs)) if inputs.dtype == torch.uint8 else inputs.float()


@contextmanager
def _norm_for(network: Detector, n_clips: int) -> Iterator[None]:
    """Let the head's batch norm use its running statistics for a batch of one, which has no variance of its own."""
    single = n_clips == 1 and network.training
    if single:
        network.final_bn.eval()
    try:
        yield
    finally:
        if single:
            network.final_bn.train()
