"""What a worker process does: read the samples of one batch, decode and augment them, and say which are bad."""

import ctypes
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from lps.manifests.arrays import Pixels, square_of
from lps.manifests.errors import LpsError
from lps.model.data.changes.augment import Augmentation, Draws, apply_change, draw_change
from lps.model.data.changes.face_region import points_in, points_of
from lps.model.data.changes.self_blend import apply_blend, blend_draws, draw_blend
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
    margin: float = 1.0
    """Side of the square that is cut, in sides of the inner one; above 1 it needs clips that are stored so."""
    margins: tuple[float, float] | None = None
    """In training: least and largest margin, of which one is drawn for every clip in place of `margin`."""
    image_px: int | None = None
    """Side to which frames are resized; None leaves them as they are, which needs clips of one size."""
    labelled: bool = True
    """False also reads samples without a label, as pretraining may."""

    def __post_init__(self) -> None:
        if self.n_frames < 1 or (self.image_px is not None and self.image_px < 1):
            raise ValueError(f"sizes must be above 0: {self.n_frames = }, {self.image_px = }")
        if self.margins is not None and self.image_px is None:
            raise ValueError("drawn margins need image_px, to which what is cut is resized")

    @property
    def max_margin(self) -> float:
        """The largest margin that is cut with."""
        return self.margin if self.margins is None or not self.train else self.margins[1]


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One sample to be read."""

    sample: Sample
    shard: LocalShard
    subject: str
    """What its draws are made for: its key, with a number for repetitions, or the key of its partner."""

    def shows(self, other: "SampleRequest") -> bool:
        """Whether it shows the very frames of another one."""
        return (self.subject, self.shard, self.sample.offset_bytes) == (
            other.subject,
            other.shard,
            other.sample.offset_bytes,
        )


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One batch to be made."""

    seed: int
    epoch: int
    step: int
    wanted: tuple[SampleRequest, ...]
    room: int | None = None
    """Which of the `Rooms` to write the frames to; None takes fresh memory."""


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


class Rooms:
    """Shared memory for the frames of batches, used again and again.

    Fresh pages for every batch cost a quarter of what decoding does: the kernel clears them. A room is taken for a
    request, written to by a worker, lent to whoever has the batch, and free again when nobody holds its frames. Where
    none is free, as for someone who keeps a whole epoch, a batch takes fresh memory.
    """

    def __init__(self, n: int, n_bytes: int) -> None:
        self.tensors = [_shared(n_bytes) for _ in range(n)]
        """Uint8, 1-D; a room that is never written to takes no memory."""
        self._free = list(range(n))
        self._taken: list[int | None] = []
        """Those of the requests under way, in their order."""

    def take(self, n_bytes: int) -> int | None:
        """Return a room for the next request; None where there is none of this size."""
        fits = self._free and n_bytes <= len(self.tensors[0])
        room = self._free.pop() if fits else None  # the last one that was in use: its pages are in the caches
        self._taken.append(room)
        return room

    def lend(self, frames: Tensor | None) -> Tensor | None:
        """Return what came of the oldest request under way, None for nothing; its room is free when that is gone."""
        room = self._taken.pop(0)
        if room is None:
            return frames
        if frames is None or frames.is_pinned():  # a copy in other memory
            self._free.append(room)
            return frames
        held = frames.numpy()  # what all tensors of the same memory keep alive
        weakref.finalize(held, self._free.append, room).atexit = False
        return torch.from_numpy(held)

    def forget(self) -> None:
        """Take back the rooms of all requests under way; nobody may write to them any more."""
        self._free += [room for room in self._taken if room is not None]
        self._taken.clear()


class ClipDecoder(Dataset["Batch | LpsError"]):
    """Makes batches; lives in every worker process.

    An error that must stop the reader comes back as a value: torch would wrap a raised one in pages of traceback.
    """

    def __init__(self, options: ReadOptions, image_px: int, rooms: Sequence[Tensor] = ()) -> None:
        self.options = options
        self.image_px = image_px
        self.rooms = rooms
        self._begun: set[int] = set()
        """Rooms whose pages this process has."""

    def n_bytes(self, n_clips: int) -> int:
        """Return the size of the frames of so many clips."""
        return n_clips * self.options.n_frames * self.image_px * self.image_px * 3

    def __getitem__(self, request: BatchRequest) -> Batch | LpsError:
        try:
            return self.read(request)
        except LpsError as e:
            return e

    def read(self, request: BatchRequest) -> Batch:
        """Return the batch of a request without its bad samples. Raises UnreadableError or IntegrityError."""
        frames = self._frames(len(request.wanted), request.room)
        good: list[SampleRequest] = []
        lengths: list[int] = []
        bad: list[BadSample] = []
        for wanted in request.wanted:
            try:
                out = frames[len(good)].numpy()
                if good and wanted.sample.self_blend and wanted.shows(good[-1]):
                    out[:], n = frames[len(good) - 1].numpy(), lengths[-1]
                else:
                    n = self._decoded(wanted, self._draws(request, wanted), out)
                good.append(wanted)
                lengths.append(n)
            except SampleFault as fault:
                bad.append(BadSample(wanted.sample.name, wanted.shard.shown, str(fault)))
        for wanted, n, clip in zip(good, lengths, frames, strict=False):
            self._change(wanted, self._draws(request, wanted), clip.numpy(), n)
        samples = [wanted.sample for wanted in good]
        return Batch(
            step=request.step,
            frames=frames[: len(good)],
            labels=torch.tensor([sample.label for sample in samples], dtype=torch.int64),
            keys=tuple(sample.name for sample in samples),
            clip_ids=tuple(sample.clip_id for sample in samples),
            video_ids=tuple(sample.video_id for sample in samples),
            bad=tuple(bad),
        )

    @staticmethod
    def _draws(request: BatchRequest, wanted: SampleRequest) -> Draws:
        return Draws(request.seed, request.epoch, wanted.subject)

    def _decoded(self, wanted: SampleRequest, draws: Draws, out: Pixels) -> int:
        """Decode the stretch of a clip into `out` and return how many frames it has; the rest of `out` is not set."""
        sample = wanted.sample
        images = check_members(unpack(read_range(wanted.shard, sample), sample), sample)
        start: Start = "seeded" if self.options.train else "centre"
        first, stop = frame_span(len(images), self.options.n_frames, start, draws.unit("start"))
        square = square_of(sample.side_px, sample.inner_px, self._margin(draws))
        decode(images[first:stop], first, square, out[: stop - first])
        return stop - first

    def _change(self, wanted: SampleRequest, draws: Draws, out: Pixels, n: int) -> None:
        """Make a self-blend of the first `n` frames where it is one, augment them, and repeat the last one."""
        sample = wanted.sample
        if sample.self_blend:
            blend = draw_blend(blend_draws(draws), n)
            square = square_of(sample.side_px, sample.inner_px, self._margin(draws))
            out[:n] = apply_blend(out[:n], points_in(points_of(sample.face_xy), square), blend)
        if self.options.augment != "none":
            out[:n] = apply_change(out[:n], draw_change(draws, self.options.augment))
        out[n:] = out[n - 1]

    def _margin(self, draws: Draws) -> float:
        options = self.options
        if options.margins is None or not options.train:
            return options.margin
        return draws.between("margin", *options.margins)

    def _frames(self, n_clips: int, room: int | None) -> Tensor:
        """Return (n_clips, n_frames, H, W, 3) to write to; in a worker, shared memory: no copy is made on its way."""
        n_bytes = self.n_bytes(n_clips)
        if get_worker_info() is None:
            memory = torch.empty(n_bytes, dtype=torch.uint8)
        elif room is None:
            memory = _with_pages(_shared(n_bytes))
        else:
            memory = self.rooms[room]
            if room not in self._begun:
                self._begun.add(room)
                _with_pages(memory)
        return memory[:n_bytes].view(n_clips, self.options.n_frames, self.image_px, self.image_px, 3)


def _shared(n_bytes: int) -> Tensor:
    storage = torch.UntypedStorage._new_shared(n_bytes)  # type: ignore[no-untyped-call]  # as torch does
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def _with_pages(memory: Tensor) -> Tensor:
    """Bring in all pages at once, where one fault for each would cost as much again. An older system says no."""
    if sys.platform == "linux":
        place = ctypes.c_void_p(memory.data_ptr())
        ctypes.CDLL(None).madvise(place, ctypes.c_size_t(memory.numel()), MADV_POPULATE_WRITE)
    return memory
