"""A detector over batches of clips, wherever they come from: frames in, one probability per clip out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lps.manifests.errors import LpsError, RefusedError
from lps.model.data.clip_decoder import Batch
from lps.model.data.frames import frames_to_blocks
from lps.model.evaluation.scores import ScoreRows, Scores
from lps.model.networks.mesonet import AnyDetector

if TYPE_CHECKING:
    from lps.model.networks.svm import Svm

MAX_NAMED = 8
"""Samples that an error names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """Where and how it is computed; results differ in their last digits only."""

    device: torch.device
    bf16: bool = False
    """Autocast of the encoder; aggregator, head and softmax stay in float32."""
    svm: "Svm | None" = None
    """Scores the contexts in place of the network's head (LPS_c)."""


def predict(
    detector: AnyDetector,
    batches: Iterable[Batch],
    options: PredictOptions,
    on_batch: Callable[[int], None] = lambda n_clips: None,
) -> Scores:
    """Return the probability of fake of every clip, in the order of the batches.

    The detector must be on the device; it is put into evaluation mode and left as it was. `on_batch` is told how many
    clips each batch had. Raises LpsError with the sample keys for a score that is not finite, RefusedError for clips of
    a length that the network does not take.
    """
    rows = ScoreRows()
    was_training = detector.training
    detector.eval()
    try:
        for batch in batches:
            p_fake = _score_batch(detector, batch, options)
            rows.add(batch.video_ids, batch.clip_ids, batch.labels.tolist(), p_fake)
            on_batch(len(p_fake))
    finally:
        detector.train(was_training)
    return rows.scores()


@torch.inference_mode()
def _score_batch(detector: AnyDetector, batch: Batch, options: PredictOptions) -> list[float]:
    params = detector.params
    if batch.frames.shape[1] != params.n_blocks * params.block_frames:
        raise RefusedError(
            f"clips of {batch.frames.shape[1]} frames were read, the network takes {params.n_blocks} blocks of "
            f"{params.block_frames}"
        )
    frames = batch.frames.to(options.device, non_blocking=True)
    blocks = frames_to_blocks(frames, params.block_frames).contiguous()
    with torch.autocast(options.device.type, torch.bfloat16, enabled=options.bf16):
        z = detector.encode_clips(blocks)
    p_fake = _head(detector, z, options.svm).cpu()
    wrong = (~torch.isfinite(p_fake)).nonzero()[:, 0].tolist()
    if wrong:
        names = ", ".join(batch.keys[k] for k in wrong[:MAX_NAMED])
        more = f" and {len(wrong) - MAX_NAMED} more" if len(wrong) > MAX_NAMED else ""
        raise LpsError(f"the detector's output is not finite for samples {names}{more}; its weights are not usable")
    return list(p_fake.tolist())


def _head(detector: AnyDetector, z: Tensor, svm: "Svm | None") -> Tensor:
    """(B, N, C, h, w) -> (B,) float32."""
    if svm is None:
        return F.softmax(detector.classify(z).float(), dim=1)[:, 1]
    return svm.p_fake(detector.context(z).cpu())
