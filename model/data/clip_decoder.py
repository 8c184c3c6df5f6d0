"""What a worker process does: read the samples of one batch, decode and augment them, and say which are bad."""

import ctypes
import sys
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from lps.manifests.arrays import Pixels
from lps.manifests.errors import LpsError
from lps.model.data.changes.augment import Augmentation, Draws, apply_change, draw_change
from lps.model.data.frames import Start, frame_span
from lps.model.data.sample import (
    BadSample,
    LocalShard,
    Sample,
    SampleFault,
    check_members,
    decode,
    read_range,
    unpack,
)

MADV_POPULATE_WRITE = 23
"""Advice to the kernel; Linux 5.14 and newer know it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What becomes of a clip."""

    n_frames: int = 60
    """Consecutive frames of each clip: blocks times frames per block."""
    train: bool = True
    """From clips with more frames, training takes a drawn stretch and evaluation the middle one. Clips with fewer are
    left out in training; in evaluation their last frame is repeated."""
    augment: Augmentation = "none"
    image_px: int | None = None
    """Side to which frames are resized; None leaves them as they are, which needs clips of one size."""
    labelled: bool = True
    """False also reads samples without a label, as pretraining may."""

    def __post_init__(self) -> None:
        if self.n_frames < 1 or (self.image_px is not None and self.image_px < 1):
            raise ValueError(f"sizes must be above 0: {self.n_frames = }, {self.image_px = }")


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One sample to be read."""

    sample: Sample
    shard: LocalShard
    subject: str
    """What its draws are made for: its key, with a number for repetitions, or the key of its partner."""


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One batch to be made."""

    seed: int
    epoch: int
    step: int
    wanted: tuple[SampleRequest, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Decoded clips, and what they are."""

    step: int
    """Step within its epoch; the next one to read after a crash is `step + 1`."""
    frames: Tensor
    """uint8 (B, n_frames, H, W, 3), RGB; from a reader of feature maps these."""
    labels: Tensor
    """int64 (B,): 0 real, 1 fake, -1 unknown."""
    keys: tuple[str, ...]
    """Names of the samples: their keys, after that of their data set where several are read together."""
    clip_ids: tuple[bytes, ...] = ()
    video_ids: tuple[bytes, ...] = ()
    bad: tuple[BadSample, ...] = ()
    """Samples that belong to this batch and are not in it."""

    def __len__(self) -> int:
        return len(self.keys)

    def pin_memory(self) -> "Batch":
        """Return it in page-locked memory; torch's loader calls this."""
        return replace(self, frames=self.frames.pin_memory(), labels=self.labels.pin_memory())


class ClipDecoder(Dataset["Batch | LpsError"]):
    """Makes batches; lives in every worker process.

    An error that must stop the reader comes back as a value: torch would wrap a raised one in pages of traceback.
    """

    def __init__(self, options: ReadOptions, image_px: int) -> None:
        self.options = options
        self.image_px = image_px

    def __getitem__(self, request: BatchRequest) -> Batch | LpsError:
        try:
            return self.read(request)
        except LpsError as e:
            return e

    def read(self, request: BatchRequest) -> Batch:
        """Return the batch of a request without its bad samples. Raises UnreadableError or IntegrityError."""
        frames = _shared_bytes(len(request.wanted), self.options.n_frames, self.image_px, self.image_px, 3)
        good: list[Sample] = []
        bad: list[BadSample] = []
        for wanted in request.wanted:
            try:
                draws = Draws(request.seed, request.epoch, wanted.subject)
                self._clip(wanted, draws, frames[len(good)].numpy())
                good.append(wanted.sample)
            except SampleFault as fault:
                bad.append(BadSample(wanted.sample.name, wanted.shard.shown, str(fault)))
        return Batch(
            step=request.step,
            frames=frames[: len(good)],
            labels=torch.tensor([sample.label for sample in good], dtype=torch.int64),
            keys=tuple(sample.name for sample in good),
            clip_ids=tuple(sample.clip_id for sample in good),
            video_ids=tuple(sample.video_id for sample in good),
            bad=tuple(bad),
        )

    def _clip(self, wanted: SampleRequest, draws: Draws, out: Pixels) -> None:
        sample = wanted.sample
        images = check_members(unpack(read_range(wanted.shard, sample), sample), sample)
        start: Start = "seeded" if self.options.train else "centre"
        first, stop = frame_span(len(images), self.options.n_frames, start, draws.unit("start"))
        n = stop - first
        decode(images[first:stop], first, sample.side_px, out[:n])
        if self.options.augment != "none":
            out[:n] = apply_change(out[:n], draw_change(draws, self.options.augment))
        out[n:] = out[n - 1]


def _shared_bytes(*shape: int) -> Tensor:
    """Return an empty uint8 tensor; in a worker, in shared memory, so that no copy is made on its way."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    n_bytes = int(np.prod(shape))
    storage = torch.UntypedStorage._new_shared(n_bytes)  # type: ignore[no-untyped-call]  # as torch does
    if sys.platform == "linux":
        # Pages come in at once, where one fault for each would cost a tenth of the decoding. An older system says no.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(storage.data_ptr()), ctypes.c_size_t(n_bytes), MADV_POPULATE_WRITE)
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
