"""The reader: from the plan of an epoch to batches of decoded clips, in the plan's order, through worker processes.

    data = open_data("OUT", "train")
    with ClipReader(data, ReadOptions(n_frames=60), PlanOptions(batch_size=16), WorkOptions(n_workers=4)) as reader:
        for batch in reader.epoch(0):
            blocks = frames_to_blocks(batch.frames.to(device), 5)

Remote shards are fetched by this process, ahead of their use; workers only ever read local files. What a batch holds
depends on the plan alone, not on the number of workers or on where an epoch was taken up again.
"""

import multiprocessing.util
import signal
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from multiprocessing import forkserver, get_context, resource_tracker
from typing import Any, Self

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from lps.manifests.arrays import Ints, margin_side
from lps.manifests.environment import socket_place
from lps.manifests.errors import IntegrityError, LpsError, RefusedError, UnreadableError
from lps.model.data.clip_data import ClipData, long_enough, with_labels
from lps.model.data.clip_decoder import Batch, BatchRequest, ClipDecoder, ReadOptions, Rooms, SampleRequest
from lps.model.data.download import verify_local
from lps.model.data.epoch_plan import (
    EpochPlan,
    PlanOptions,
    Rank,
    balanced_order,
    natural_order,
    pair_order,
    plan_epoch,
)
from lps.model.data.mix import mix_of, training_mix
from lps.model.data.pairs import ClipPairs, pair_up
from lps.model.data.prefetch import ShardPrefetcher
from lps.model.data.sample import BadSample
from lps.model.data.shard_cache import ShardCache, user_cache

OLDER_FACTS: Mapping[str, Any] = {"margin": 1.0}
"""What the plan of an epoch was before it said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOptions:
    """How the work is done; none of it changes a batch."""

    n_workers: int = 0
    """Decoding processes; 0 decodes in this one."""
    batches_ahead: int = 2
    """Per worker; each takes its room in shared memory."""
    pin_memory: bool = False
    """Hand batches over in page-locked memory, for copies to a GPU that overlap; ignored without one."""
    max_bad_share: float = 0.01
    """Share of an epoch's samples on this rank; where more than that cannot be used, the reader stops."""

    def __post_init__(self) -> None:
        if self.n_workers < 0 or self.batches_ahead < 1 or not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"not possible: {self}")


class ClipReader:
    """Reads one rank's part of the data, epoch after epoch.

    * Training: samples of fewer frames than asked for are left out. A bad sample is missing from its batch; where all
      of a batch are bad, the next good sample of the plan takes their place, so that no batch is empty and all ranks
      stay in step.
    * Evaluation (`ReadOptions(train=False)`): short clips are padded. A batch of bad samples only is passed over.

    What is missing is in `bad_samples`. More than `max_bad_share` of an epoch end it with an IntegrityError.

    `bad_samples` and the other attributes may be read at any time; `data` is what is left after leaving out.
    """

    def __init__(
        self,
        data: ClipData,
        read: ReadOptions | None = None,
        plan: PlanOptions | None = None,
        work: WorkOptions | None = None,
        rank: Rank | None = None,
        cache: ShardCache | None = None,
    ) -> None:
        """Prepare to read. Raises RefusedError where nothing is left to read, or samples cannot be put together."""
        self.read_options = read = read or ReadOptions()
        self.plan_options = plan = plan or PlanOptions()
        self.work_options = work or WorkOptions()
        self.rank = rank or Rank()
        self.data = _usable(data, read)
        self.bad_samples: list[BadSample] = list(data.faults)
        self._check_bad_share(len(data.faults), len(self.data) + len(data.faults))
        self._shard_of = self.data.column("shard")
        self._mix = mix_of(self.data)
        self.pairs = _pairs(self.data, plan)
        fakes = np.flatnonzero(self.data.labels == 1) if self.pairs is None else self.pairs.samples[:, 1]
        self._reads = training_mix(self.data, fakes, plan.self_blend_share) if read.train else None
        self._samples_sha256 = self.data.digest()
        self.decoder = ClipDecoder(read, _image_px(self.data, read))
        first = self.plan(0)
        self.n_steps = first.n_steps
        self._rooms = self._open_rooms(first)
        self._ahead = ShardPrefetcher(data.shards, cache or user_cache())
        self._requests = _Requests()
        self._loader = _loader(self.decoder, self._requests, self.work_options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and let go of the cached shards."""
        # torch has no public way to end workers at a given moment; without this one they end with the loader
        running = getattr(self._loader, "_iterator", None)
        end_workers = getattr(running, "_shutdown_workers", None)
        if end_workers is not None:
            end_workers()
        self._loader._iterator = None
        self._ahead.close()

    def _open_rooms(self, plan: EpochPlan) -> Rooms:
        """Return room for what workers decode ahead, what they are about to, and what is learnt from meanwhile."""
        work = self.work_options
        largest = int(np.diff(plan.spans).max(initial=0)) * plan.order.samples.shape[1]
        n = work.n_workers * work.batches_ahead + 3 if work.n_workers else 0
        rooms = Rooms(min(n, plan.n_steps + 1), self.decoder.n_bytes(largest))
        self.decoder.rooms = rooms.tensors
        return rooms

    @property
    def image_px(self) -> int:
        """Side of the frames in a batch."""
        return self.decoder.image_px

    @property
    def n_samples(self) -> int:
        """Samples that an epoch draws from."""
        return len(self.data)

    def plan(self, epoch: int) -> EpochPlan:
        """Return this rank's plan of an epoch: all epochs have `n_steps` steps."""
        options = self.plan_options
        mix = self._reads
        if options.sampling == "balanced":
            order = balanced_order(self._shard_of, self.data.labels, options, epoch, mix)
        elif self.pairs is not None:
            order = pair_order(self._shard_of, self.pairs.samples, options, epoch, mix)
        else:
            order = natural_order(self._shard_of, options, epoch, mix)
        return plan_epoch(order, options, self.rank, None if self._mix is None else self._mix.sizes)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from a step on.

        One epoch at a time: asking for another ends the first. Raises UnreadableError, IntegrityError (damaged shards,
        too many bad samples) and RefusedError (no room in the cache).
        """
        plan = self.plan(epoch)
        left = plan.order.samples[plan.rows(start_step, plan.n_steps)]
        sizes = np.diff(plan.spans[start_step:])[:, 0] * left.shape[1]
        self._ahead.begin(self._shard_of[left.ravel()], np.repeat(np.arange(start_step, plan.n_steps), sizes))
        self._requests.source = self._with_rooms(self.requests_of(plan, epoch, start_step))
        outcomes = iter(self._loader)
        n_bad = 0
        for step in range(start_step, plan.n_steps):
            batch = self._received(outcomes)
            self._ahead.done(step)
            if batch.bad:
                n_bad += len(batch.bad)
                self.bad_samples += [bad for bad in batch.bad if bad not in self.bad_samples]
                self._check_bad_share(n_bad, plan.n_reads)
            if not len(batch) and self.read_options.train:
                batch = self._substitute(plan, epoch, batch)
            if len(batch):
                yield batch
        self._ahead.release()

    def state(self, epoch: int, step: int) -> dict[str, Any]:
        """Return what a checkpoint needs, in plain values, to resume at step `step` of `epoch`."""
        if step >= self.n_steps:
            epoch, step = epoch + 1, 0
        shape = {"n_steps": self.n_steps, "world_size": self.rank.world_size}
        return {"epoch": epoch, "step": step, **shape, "plan": self._facts()}

    def resume(self, state: Mapping[str, Any]) -> tuple[int, int]:
        """Return the epoch and the step to resume at. Raises RefusedError as `resume_place` says."""
        return resume_place(state, self._facts(), self.n_steps)

    def _facts(self) -> dict[str, Any]:
        options = {**asdict(self.plan_options), **asdict(self.read_options)}
        if not self.data.self_blends.any():
            del options["self_blend_share"]  # checkpoints of older versions do not name it
        weights = {} if self._mix is None else {"weights": list(self._mix.weights)}
        return {**options, **weights, "samples_sha256": self._samples_sha256}

    def requests_of(self, plan: EpochPlan, epoch: int, start_step: int) -> Iterator[BatchRequest]:
        """Yield what workers are asked for, step by step."""
        for step in range(start_step, plan.n_steps):
            yield self._batch_request(plan, epoch, step, plan.rows(step, step + 1))

    def _with_rooms(self, requests: Iterator[BatchRequest]) -> Iterator[BatchRequest]:
        """Give each request a room. The first is asked for when workers are done with the epoch before."""
        self._rooms.forget()
        for request in requests:
            yield replace(request, room=self._rooms.take(self.decoder.n_bytes(len(request.wanted))))

    def _batch_request(self, plan: EpochPlan, epoch: int, step: int, rows: Ints) -> BatchRequest:
        order = plan.order
        samples = self.data.records(order.samples[rows].ravel())
        partners = self.data.samples["key"].take(order.drawn_as[rows].ravel()).to_pylist()
        copies = order.copies[rows].ravel().tolist()
        wanted = tuple(
            SampleRequest(sample, self._ahead.local(sample.shard), f"{partner}#{copy}" if copy else partner)
            for sample, partner, copy in zip(samples, partners, copies, strict=True)
        )
        return BatchRequest(self.plan_options.seed, epoch, step, wanted)

    def _received(self, outcomes: Iterator[Batch | LpsError]) -> Batch:
        try:
            outcome = next(outcomes)
        except RuntimeError as e:
            if "DataLoader worker" not in str(e):
                raise
            raise UnreadableError(
                "a process that decodes clips died, mostly because memory or shared memory (/dev/shm) ran out: "
                "use fewer workers"
            ) from e
        if isinstance(outcome, LpsError):
            self._rooms.lend(None)
            raise outcome
        frames = self._rooms.lend(outcome.frames if len(outcome) else None)
        return outcome if frames is None else replace(outcome, frames=frames)

    def _substitute(self, plan: EpochPlan, epoch: int, empty: Batch) -> Batch:
        """Return a batch of the first good row after an empty one, in the plan's order and round its end."""
        after, before = plan.rows(empty.step + 1, plan.n_steps), plan.rows(0, empty.step + 1)
        for row in np.concatenate([after, before]):
            batch = self.decoder.read(self._batch_request(plan, epoch, empty.step, row[None]))
            if len(batch):
                return replace(batch, bad=empty.bad)
        raise IntegrityError(f"no sample of epoch {epoch} can be used; the first: {empty.bad[0]}")

    def _check_bad_share(self, n_bad: int, n_samples: int) -> None:
        share = self.work_options.max_bad_share
        if n_bad > share * n_samples:
            raise IntegrityError(
                f"{n_bad} of {n_samples} samples cannot be used, more than the {share:.2%} allowed; the first: "
                f"{self.bad_samples[0]}. To allow more: run.max_bad_share in the settings, --max-bad-share of evaluate"
            )


def resume_place(state: Mapping[str, Any], facts: Mapping[str, Any], n_steps: int) -> tuple[int, int]:
    """Return the epoch and the step to resume at; `facts` are those of the plan now, and `n_steps` the steps it has.

    The number of ranks is no such fact: it only deals the batches. Raises RefusedError in the middle of an epoch whose
    plan was another one: its batches would differ, some samples would come twice and others never. At the start of an
    epoch everything may have changed.
    """
    epoch, step, plan = int(state["epoch"]), int(state["step"]), state["plan"]
    if not step:
        return epoch, step
    where = f"cannot resume within epoch {epoch}"
    if plan.get("world_size", 1) > 1:
        raise RefusedError(
            f"{where}: it was shared by {plan['world_size']} processes of an older version, in another way; delete "
            "the last checkpoints up to one from the end of an epoch, or go on in another folder with --init"
        )
    changed = sorted(name for name, value in facts.items() if plan.get(name, OLDER_FACTS.get(name)) != value)
    if changed:
        name = changed[0]
        raise RefusedError(f"{where}: {name} was {plan.get(name)!r} and is {facts[name]!r}; set it back")
    before = int(state.get("n_steps", n_steps))
    if before != n_steps and step >= min(before, n_steps):
        raise RefusedError(
            f"{where} at its last step: with one sample or pair for each process this step is cut in another way; "
            "use as many processes as before"
        )
    return epoch, step


def verify_shards(data: ClipData, rank: Rank | None = None) -> int:
    """Compare the local shards that hold samples with their SHA-256, each rank some of them. Returns how many.

    Remote shards are always compared when they are fetched. Raises IntegrityError naming the shard, UnreadableError.
    """
    where = rank or Rank()
    used = np.unique(data.column("shard"))
    mine = [data.shards[number] for number in used[where.index :: where.world_size]]
    known = [shard for shard in mine if shard.is_local and shard.sha256]
    for shard in known:
        verify_local(shard)
    return len(known)


@dataclass(slots=True)
class _Requests:
    """What the loader is to ask of its workers; another source for each epoch, while the workers stay."""

    source: Iterator[BatchRequest] = iter(())

    def __iter__(self) -> Iterator[BatchRequest]:
        return self.source


def _usable(data: ClipData, read: ReadOptions) -> ClipData:
    chosen = with_labels(data) if read.labelled else data
    if read.train:
        chosen = long_enough(chosen, read.n_frames)
    if not len(chosen):
        left = chosen.left_out
        raise RefusedError(
            f"nothing to read: of {len(data)} samples, {left.n_unlabelled} have no label and {left.n_short} fewer than "
            f"{read.n_frames} frames"
        )
    return replace(chosen, samples=chosen.samples.combine_chunks())  # picking rows from many chunks is slow


def _pairs(data: ClipData, plan: PlanOptions) -> ClipPairs | None:
    """Return the pairs that a plan asks for, None for one without; refuse a data set that has none of them."""
    if not plan.in_pairs:
        return None
    pairs = pair_up(data)
    if plan.sampling == "shared_pairs":
        if not pairs.shared.any():
            raise RefusedError(
                "no fake here is cut out of the same frames as its original (of "
                f'{len(pairs)} pairs): prepare with `lps-prep run --pairing original`, or use train.sampling = "pairs"'
            )
        pairs = pairs.only_shared()
    paired = set(data.part_of[pairs.samples[:, 1]].tolist())
    lacking = [part.name for k, part in enumerate(data.parts) if k not in paired]
    if lacking:
        what = (
            "its original of the same frames" if plan.sampling == "shared_pairs" else "the real video it was made from"
        )
        raise RefusedError(
            f"{lacking[0]} has no pair of a fake and {what}; use another train.sampling, or leave it out"
        )
    return pairs


def _image_px(data: ClipData, read: ReadOptions) -> int:
    require_margin(data, read.max_margin)
    sides = sorted({margin_side(inner, read.margin) for inner in set(data.column("inner_px").tolist())})
    if read.image_px is None and len(sides) > 1:
        raise RefusedError(f"clips of {' and '.join(map(str, sides))} px cannot be read together; set image_px")
    return read.image_px or sides[0]


def require_margin(data: ClipData, margin: float, name: str = "", *, evaluated: bool = False) -> None:
    """Raise RefusedError for clips that are not stored with so much around their inner square.

    `name` is what the data set is called, where it is not one of a mix. `evaluated`: the margin is that of a detector
    that is evaluated, which has learnt with it and cannot be asked for less.
    """
    kinds = data.part_of << 32 | data.column("side_px") << 16 | data.column("inner_px")
    for kind in np.unique(kinds).tolist():
        part, stored, inner = kind >> 32, kind >> 16 & 0xFFFF, kind & 0xFFFF
        if margin_side(inner, margin) > stored:
            name = data.parts[part].name if data.parts else name
            said = (
                f"the clips{f' of {name}' if name else ''} are stored with a margin of {stored / inner:.4g} (a face of "
                f"{inner} px in {stored}), and"
            )
            prepare = f"prepare them with `[crop] margin = {margin:g}`"
            if evaluated:
                raise RefusedError(
                    f"{said} the detector's is {margin:g}: {prepare}, or evaluate a detector with a margin of at most "
                    f"{stored / inner:.4g} (data.margin)"
                )
            raise RefusedError(
                f"{said} {margin:g} is asked for (data.margin, augment.margins, --margins): ask for less, or {prepare}"
            )


def _loader(decoder: ClipDecoder, requests: _Requests, work: WorkOptions) -> "DataLoader[Batch | LpsError]":
    """Return torch's loader, as transport: it hands a request to a worker, and what comes back on in order."""
    pin = work.pin_memory and torch.cuda.is_available()
    own_numbers = torch.Generator()  # without it, every epoch would take one from the generator of the training
    if not work.n_workers:
        return DataLoader(decoder, None, sampler=requests, collate_fn=_same, pin_memory=pin, generator=own_numbers)
    keep_sockets_short()
    context = get_context("forkserver")  # a fork would copy locks held by other threads, of CUDA and of downloads
    context.set_forkserver_preload(["lps.model.data.clip_decoder"])
    _start_forkserver()
    return DataLoader(
        decoder,
        None,
        sampler=requests,
        num_workers=work.n_workers,
        collate_fn=_same,
        pin_memory=pin,
        generator=own_numbers,
        multiprocessing_context=context,
        prefetch_factor=work.batches_ahead,
        persistent_workers=True,
        worker_init_fn=_start_worker,
    )


def keep_sockets_short() -> None:
    """Let this process keep its sockets elsewhere than in TMPDIR, where that is too long for them."""
    place = socket_place("pymp-12345678/listener-12345678")
    if place != tempfile.gettempdir():
        before, tempfile.tempdir = tempfile.tempdir, place
        try:
            multiprocessing.util.get_temp_dir()  # made once; later calls, and those of workers, find it
        finally:
            tempfile.tempdir = before


def _start_forkserver() -> None:
    """Start the process that starts the workers, deaf to SIGTERM: it ends with this one.

    Schedulers send SIGTERM to all processes of a job, terminals Ctrl-C; who trains then finishes a step, for which it
    needs its workers.
    """
    resource_tracker.ensure_running()  # where it has to be started, that unblocks SIGTERM
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # children inherit it
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(_number: int) -> None:
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)
    cv2.setNumThreads(1)  # there are as many processes as cores
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a damaged image is told by its sample


def _same(value: Any) -> Any:
    return value
