"""The data of a run: its samples, and the open readers of training and validation."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lps.manifests.errors import RefusedError, UnreadableError
from lps.model.data.clip_data import ClipData, compared_videos, long_enough, spread_clips, with_labels
from lps.model.data.clip_decoder import Batch, ReadOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions, verify_shards
from lps.model.data.epoch_plan import IN_PAIRS, PlanOptions, Rank
from lps.model.data.fakes.self_blends import landmarks_of, said_of_blends, with_self_blends
from lps.model.data.feature_maps import MapReader, maps_of
from lps.model.data.mix import compare_mix, mix_of_names, part_data, shared_ids
from lps.model.data.pairs import ClipPairs
from lps.model.data.sample import BadSample
from lps.model.data.sources import Sources, data_identity, open_split, open_val_shards, samples_sha256
from lps.model.training.build import state_sha256
from lps.model.training.engine import RunProgress
from lps.model.training.job import TrainJob
from lps.model.training.presets import Preset
from lps.model.training.processes import all_gather_list
from lps.model.training.stages import DistillStage, TrainingStage


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """The samples of a run."""

    train: ClipData
    """As it is stored, without self-blends."""
    val: ClipData | None
    identity: dict[str, Any]
    """What checkpoints and results say about the data."""
    face_of: Mapping[str, tuple[str, int]]
    """Hex id of the video, and face in it, of each sample key of validation."""
    notes: tuple[str, ...]
    """What the user should know."""

    @property
    def val_sets(self) -> tuple[str, ...]:
        """Names of the data sets of validation, where there are several."""
        return () if self.val is None else tuple(part.name for part in self.val.parts)


def open_run_data(job: TrainJob) -> RunData:
    """Return the samples of a run. Raises RefusedError for a split that cannot teach the stage."""
    preset = job.preset
    train = _learnable(job, open_split(job.sources, job.sources.split))
    val = _open_val(job.sources, preset)
    identity = {**data_identity(job.sources, train), "samples_sha256": samples_sha256(train)}
    notes = _stamp_shared(job.sources, train, identity)
    face_of: dict[str, tuple[str, int]] = {}
    if val is not None and preset.makes_fakes(job.stage) and not (val.labels == 1).any():
        notes.append("nothing to validate with but real clips: self-blends are never made of clips that are held out")
        val = None
    if val is None:
        plateau = ", and the learning rate stays as it is" if preset.train.schedule == "plateau" else ""
        notes.append(f"no validation: the last checkpoint counts as the best{plateau}")
    else:
        identity["val_samples_sha256"] = samples_sha256(val)
        number = {part.name: k for k, part in enumerate(val.parts)}
        for each in identity.get("sets", ()):
            if each["name"] in number:
                each["val_samples_sha256"] = samples_sha256(part_data(val, number[each["name"]]))
            else:
                notes.append(f"{each['name']} has no shards to validate with: it counts in no metric")
        if job.sources.plain:
            notes += shared_ids(train, val)
        face_of = _faces(val)
        if job.stage in ("classify", "distill"):
            notes += _one_class(val)
    if job.stage == "distill" and preset.run.cache_maps:
        notes.append("every clip goes through the frozen encoder once; after that an epoch is short")
    return RunData(train=train, val=val, identity=identity, face_of=face_of, notes=tuple(notes))


def _stamp_shared(sources: Sources, train: ClipData, identity: dict[str, Any]) -> list[str]:
    """Stamp the identity of a mix as leaky where one data set learns from what another holds out; returns notes.

    Raises RefusedError unless leaks are allowed.
    """
    if len(sources.ordered_shards) > 1:
        return ["shards without manifests: what one set learns from and another holds out is not looked for"]
    if len(sources.ordered_data) < 2:
        return []
    found = compare_mix(
        train,
        [
            compared_videos(each.data, part.identity.split_set, each.name)
            for each, part in zip(sources.ordered_data, train.parts, strict=True)
        ],
    )
    if found.shared and not sources.allow_leaky:
        raise RefusedError(
            f"{found.refusal()}: results there would say little; use split sets that agree (`lps-prep split`), "
            "leave a data set out, or allow it with --allow-leaky"
        )
    if found.shared:
        identity |= {"leaky": True, "shared_videos": [each.record() for each in found.shared]}
    if found.notes:
        identity["shared_notes"] = list(found.notes)
    return [*(each.said() for each in found.shared), *found.notes]


def _one_class(val: ClipData) -> list[str]:
    """Say where validation has no AUC."""
    lowest = "validation has one class only{}, so no AUC: the lowest loss counts as the best"
    if not val.parts:
        return [] if {0, 1} <= {*val.labels.tolist()} else [lowest.format("")]
    labels, part_of = val.labels, val.part_of
    lacking = [part.name for k, part in enumerate(val.parts) if not {0, 1} <= {*labels[part_of == k].tolist()}]
    if len(lacking) == len(val.parts):
        return [lowest.format(" in each data set")]
    return [f"validation of {name} has one class only: its AUC is none, and not in the mean" for name in lacking]


def _faces(data: ClipData) -> dict[str, tuple[str, int]]:
    """Return video and face of every sample by its name; equal ids in two data sets are two videos."""
    ids = [video.hex() for video in data.samples["video_id"].to_pylist()]
    if data.parts:
        ids = [f"{data.parts[k].name}:{video}" for k, video in zip(data.part_of.tolist(), ids, strict=True)]
    return dict(zip(data.names(), zip(ids, data.faces.tolist(), strict=True), strict=True))


def _learnable(job: TrainJob, data: ClipData) -> ClipData:
    """Return the samples that a stage can learn from. Raises RefusedError where that is too little."""
    where = job.sources.shown
    chosen = data if job.stage == "pretrain" else with_labels(data)
    blends = job.preset.makes_fakes(job.stage)
    if blends and job.preset.fakes.share == 1:
        chosen = chosen.select(chosen.labels == 0, chosen.left_out)
    chosen = long_enough(chosen, job.preset.n_frames)
    if not len(chosen):
        left = chosen.left_out
        raise RefusedError(
            f"{where} has nothing to learn from: of {len(data)} clips, {left.n_unlabelled} have no label and "
            f"{left.n_short} fewer than {job.preset.n_frames} frames"
        )
    for number, part in enumerate(chosen.parts):
        if number not in chosen.part_of:
            what, option = (
                ("the set", "--shards") if job.sources.plain else (f"split '{part.identity.split}' of", "--data")
            )
            raise RefusedError(
                f"{what} {part.name} has nothing to learn from, by label or length; leave {option} {part.name}=... out"
            )
    found = {*chosen.labels.tolist(), *([1] if blends else [])}
    if job.stage != "pretrain" and found != {0, 1}:
        raise RefusedError(f"{where} has only {'fake' if 1 in found else 'real'} clips; a detector needs both classes")
    return chosen


def _open_val(sources: Sources, preset: Preset) -> ClipData | None:
    if sources.plain:
        data = open_val_shards(sources)
    elif sources.fold is not None:
        data = open_split(sources, sources.split, held_out=True)
    elif sources.val_split is None:
        data = None
    else:
        try:
            data = open_split(sources, sources.val_split)
        except UnreadableError as e:
            raise UnreadableError(f"validation: {e}; name another with --val-split, or 'none' to do without") from e
    return None if data is None else spread_clips(data, preset.train.eval_clips)


@dataclass(frozen=True, slots=True)
class Feed:
    """The open readers of a run."""

    train: ClipReader | MapReader
    val: ClipReader | MapReader | None
    notes: tuple[str, ...] = ()
    """What the user should know."""
    pairs: ClipPairs | None = None
    """What is learnt from, where that is pairs."""

    @property
    def validation(self) -> Iterator[Batch] | None:
        """A fresh pass over the validation split, None where there is none."""
        return None if self.val is None else self.val.epoch(0)

    @property
    def bad_samples(self) -> list[BadSample]:
        """Samples that this process could not use so far."""
        return list(dict.fromkeys([*self.train.bad_samples, *(self.val.bad_samples if self.val is not None else ())]))

    def state(self, progress: RunProgress) -> dict[str, Any]:
        """Return what a checkpoint needs of the readers."""
        return self.train.state(progress.epoch, progress.position)

    def check_resume(self, state: Mapping[str, Any], progress: RunProgress) -> None:
        """Raise RefusedError if the plan of the epoch under way is another one now."""
        self.train.resume({**state, "epoch": progress.epoch, "step": progress.position})


def own_cores() -> int:
    """Return how many cores there are for each process of this run on this machine."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def crowded_note(n_workers: int, n_cores: int) -> str | None:
    """Say that there are more decoding processes than cores for them, None where there are not."""
    if n_workers <= n_cores:
        return None
    return f"run.workers = {n_workers} decoding processes share {n_cores} cores: set run.workers = {n_cores}"


def waiting_note(share: float, n_workers: int, n_cores: int, *, maps: bool = False) -> str:
    """Say that steps wait for data, and what to do. `maps`: what is read are feature maps, which nobody decodes."""
    told = f"steps wait for data for {share:.0%} of their time"
    if maps:
        return f"{told}: put run.maps_folder on a faster disk, or make room for the maps in memory"
    told += f", with run.workers = {n_workers} and {n_cores} cores for this process"
    if n_workers < n_cores:
        return f"{told}: set run.workers = {n_cores}"
    return f"{told}, which all decode: use less augmentation, a smaller image_px, more cores or a faster disk"


@contextmanager
def open_feed(
    job: TrainJob, data: RunData, stage: TrainingStage, device: torch.device, rank: Rank | None = None
) -> Iterator[Feed]:
    """Open the readers of a run: of clips, or of feature maps where a distillation keeps them. Raises as they do."""
    own = rank or Rank()
    run, params = job.preset.run, job.preset.train
    if run.verify_shards:
        for part in (data.train, data.val):
            if part is not None:
                verify_shards(part, own)
    if not (isinstance(stage, DistillStage) and run.cache_maps):
        with ExitStack() as stack:
            train = stack.enter_context(_clip_reader(job, data.train, own, _plan(job, training=True)))
            val = None
            if data.val is not None:
                val = stack.enter_context(_clip_reader(job, data.val, own, _plan(job, training=False)))
            crowded = crowded_note(run.workers, own_cores())
            notes = [*_said_of(train), *([] if crowded is None else [crowded])]
            yield Feed(train, val, tuple(notes), train.pairs)
        return
    if job.preset.makes_fakes(job.stage):
        raise RefusedError(
            "feature maps are computed once, and self-blends are other ones in every epoch: set run.cache_maps = false,"
            ' or fakes.kind = "none"'
        )
    if params.augment != "none" or params.sampling in IN_PAIRS or job.preset.augment.margins is not None:
        raise RefusedError(
            "feature maps are computed once, each clip on its own, so they can neither be augmented nor be in "
            'pairs: set train.augment = "none", augment.margins = "none" and another train.sampling, or '
            "run.cache_maps = false"
        )
    stage.eval()
    maps = _MapSource(job, stage, device, own)
    train_maps, note = maps.reader(data.train, training=True)
    if data.val is None:
        yield Feed(train_maps, None, (note,))
    else:
        val_maps, val_note = maps.reader(data.val, training=False)
        yield Feed(train_maps, val_maps, (note, val_note))


def _said_of(train: ClipReader) -> Iterator[str]:
    if train.data.self_blends.any():
        yield said_of_blends(train.data)
    if train.pairs is not None:
        yield train.pairs.said()


def training_reader(job: TrainJob, data: ClipData) -> ClipReader:
    """Return a reader of samples as training reads them: drawn, augmented, with self-blends if these are asked for."""
    return _clip_reader(job, data, Rank(), _plan(job, training=True))


def still_reader(job: TrainJob, data: ClipData, rank: Rank | None = None) -> ClipReader:
    """Return a reader of all samples in their order, unchanged, in batches of the size that `rank` trains on."""
    plan = _plan(job, training=False)
    return _clip_reader(job, data, Rank(), replace(plan, batch_size=plan.batch_size // (rank or Rank()).world_size))


def _clip_reader(job: TrainJob, data: ClipData, rank: Rank, plan: PlanOptions) -> ClipReader:
    preset, training = job.preset, plan.shuffle  # evaluation reads in order
    if training and preset.makes_fakes(job.stage):
        data = with_self_blends(data, landmarks_of(job.sources, data))
    read = ReadOptions(
        n_frames=preset.n_frames,
        train=training,
        augment=preset.train.augment if training else "none",
        margin=preset.data.margin,
        margins=preset.augment.margins if training else None,
        image_px=preset.image_px,
        labelled=job.stage != "pretrain",
    )
    work = WorkOptions(
        n_workers=preset.run.workers,
        pin_memory=torch.cuda.is_available(),
        max_bad_share=preset.run.max_bad_share,
    )
    return ClipReader(data, read, plan, work, rank)


def _plan(job: TrainJob, *, training: bool) -> PlanOptions:
    params = job.preset.train
    return PlanOptions(
        batch_size=params.batch_size,
        sampling=params.sampling if training else "natural",
        shuffle=training,
        equal_steps=training,
        seed=job.seed,
        self_blend_share=job.preset.fakes.share,
    )


@dataclass(frozen=True, slots=True)
class _MapSource:
    """Makes readers of the feature maps of a distillation."""

    job: TrainJob
    stage: DistillStage
    device: torch.device
    rank: Rank

    def reader(self, data: ClipData, *, training: bool) -> tuple[MapReader, str]:
        """Return a reader, and what the user should know about the maps."""
        preset, teacher = self.job.preset, self.stage.teacher
        owner = {
            "encoder": state_sha256(teacher.backbone),
            "net": preset.record()["net"],
            "act": teacher.head.feature_act,
            "image_px": preset.image_px,
            "precision": preset.run.precision,
            "samples": samples_sha256(data),
            **({"margin": preset.data.margin} if preset.data.margin != 1 else {}),  # maps from before it are as good
        }
        folder = Path(preset.run.maps_folder) if preset.run.maps_folder else self.job.out / "maps"
        if self.rank.index:
            all_gather_list(())  # the first process fills the cache for all of a machine
        maps, made = maps_of(lambda: still_reader(self.job, data, self.rank), self._encode, owner, folder)
        if not self.rank.index:
            all_gather_list(())
        note = f"feature maps of {len(maps.keys)} clips were {'made' if made else 'there already'}"
        mix = mix_of_names(maps.keys, data)
        return MapReader(maps, _plan(self.job, training=training), self.rank, mix), note

    def _encode(self, frames: torch.Tensor) -> torch.Tensor:
        bf16 = self.job.preset.run.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return self.stage.maps(frames.to(self.device))
