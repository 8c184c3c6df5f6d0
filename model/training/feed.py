"""The readers of a run: training batches, validation, feature maps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.names import StageName
from lps.model.data.clip_data import ClipData, long_enough, spread_clips, with_labels
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions, verify_shards
from lps.model.data.epoch_plan import PlanOptions, Rank
from lps.model.data.feature_maps import MapReader, maps_of
from lps.model.data.sample import BadSample
from lps.model.data.shard_cache import user_cache
from lps.model.data.shard_index import open_shards
from lps.model.data.sources import Sources, data_identity, open_split, samples_sha256
from lps.model.training.build import state_sha256
from lps.model.training.engine import AnyBatch, Batches, RunProgress
from lps.model.training.presets import Preset
from lps.model.training.processes import all_gather_list
from lps.model.training.stages import DistillStage, TrainingStage


@dataclass(slots=True)
class Feed:
    """The readers of a run; `batches` is there once `open` was called."""

    stage: StageName
    preset: Preset
    seed: int
    rank: Rank
    train: ClipData
    val: ClipData | None
    identity: dict[str, Any]
    folder: Path
    """Of feature maps."""
    notes: list[str] = field(default_factory=list)
    """What the user should know."""
    video_of: dict[str, str] = field(default_factory=dict)
    """Of each sample key of validation."""
    found_bad: list[BadSample] = field(default_factory=list)
    """By a process that this one goes on from."""
    _train: ClipReader | MapReader | None = None
    _val: ClipReader | MapReader | None = None
    _still: list[ClipReader] = field(default_factory=list)

    @property
    def batches(self) -> Batches:
        """The training batches."""
        assert self._train is not None  # open() comes first
        return self._train

    @property
    def n_train(self) -> int:
        """Clips that an epoch draws from."""
        reader = self._train
        return len(reader.maps.keys) if isinstance(reader, MapReader) else len(reader.data) if reader else 0

    @property
    def validation(self) -> Iterator[AnyBatch] | None:
        """A fresh pass over the validation split, None where there is none."""
        return None if self._val is None else self._val.epoch(0)

    @property
    def bad_samples(self) -> list[BadSample]:
        """Samples that could not be used so far; several processes have to be asked each."""
        readers = [reader for reader in (self._train, self._val, *self._still) if reader is not None]
        found = [*self.found_bad, *(bad for reader in readers for bad in reader.bad_samples)]
        return list(dict.fromkeys(found))

    def open(self, stage: TrainingStage, device: torch.device) -> Batches:
        """Open the readers and return the training batches. Raises as the readers do."""
        preset = self.preset
        if preset.run.verify_shards:
            for data in (self.train, self.val):
                if data is not None:
                    verify_shards(data, self.rank)
        if isinstance(stage, DistillStage) and preset.run.cache_maps:
            if preset.train.augment != "none" or preset.train.sampling == "pairs":
                raise RefusedError(
                    "feature maps are computed once, each clip on its own, so they can neither be augmented nor be in "
                    'pairs: set train.augment = "none" and another train.sampling, or run.cache_maps = false'
                )
            stage.eval()
            self._train = self._map_reader(stage, device, self.train, training=True)
            self._val = None if self.val is None else self._map_reader(stage, device, self.val, training=False)
        else:
            self._train = self._reader(self.train, training=True)
            self._val = None if self.val is None else self._reader(self.val, training=False)
        return self.batches

    def still(self, data: ClipData) -> ClipReader:
        """Return a reader of the samples in their order, unchanged, for this process alone."""
        self._still.append(self._reader(data, training=False, rank=Rank()))
        return self._still[-1]

    def _reader(self, data: ClipData, *, training: bool, rank: Rank | None = None) -> ClipReader:
        preset, params = self.preset, self.preset.train
        read = ReadOptions(
            n_frames=preset.n_frames,
            train=training,
            augment=params.augment if training else "none",
            image_px=preset.image_px,
            labelled=self.stage != "pretrain",
        )
        work = WorkOptions(
            n_workers=preset.run.workers,
            pin_memory=torch.cuda.is_available(),
            max_bad_share=preset.run.max_bad_share,
        )
        return ClipReader(data, read, self._plan(training=training), work, rank or self.rank)

    def _plan(self, *, training: bool) -> PlanOptions:
        params, world = self.preset.train, self.rank.world_size
        size, rest = divmod(params.batch_size, world)
        if rest or (params.sampling == "pairs" and size % 2):
            what = "" if rest else " without dividing pairs"
            raise RefusedError(
                f"a batch of {params.batch_size} cannot be shared by {world} processes{what}; change train.batch_size"
            )
        return PlanOptions(
            batch_size=size,
            sampling=params.sampling if training else "natural",
            shuffle=training,
            equal_steps=training,
            seed=self.seed,
        )

    def _map_reader(self, stage: DistillStage, device: torch.device, data: ClipData, *, training: bool) -> MapReader:
        preset = self.preset
        bf16 = preset.run.precision == "bf16"
        owner = {"encoder": state_sha256(stage.teacher.backbone), "net": preset.record()["net"],
                 "act": stage.teacher.head.feature_act, "image_px": preset.image_px,
                 "precision": preset.run.precision, "samples": samples_sha256(data)}  # fmt: skip

        def encode(frames: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                return stage.maps(frames.to(device))

        if self.rank.index:
            all_gather_list(())  # the first process fills the cache for all of a machine
        maps, made = maps_of(lambda: self.still(data), encode, owner, self.folder)
        if not self.rank.index:
            all_gather_list(())
        self.notes.append(f"feature maps of {len(maps.keys)} clips were {'made' if made else 'there already'}")
        return MapReader(maps, self._plan(training=training), self.rank)

    def state(self, progress: RunProgress) -> dict[str, Any]:
        """Return what a checkpoint needs of the readers."""
        assert self._train is not None  # open() comes first
        return self._train.state(progress.epoch, progress.position)

    def check_resume(self, state: dict[str, Any], progress: RunProgress) -> None:
        """Raise RefusedError if the plan of the epoch under way is another one now."""
        assert self._train is not None  # open() comes first
        self._train.resume({**state, "epoch": progress.epoch, "step": progress.position})

    def close(self) -> None:
        """End the workers."""
        for reader in (self._train, self._val, *self._still):
            if reader is not None:
                reader.close()


@contextmanager
def open_feed(stage: StageName, sources: Sources, preset: Preset, seed: int, rank: Rank, out: Path) -> Iterator[Feed]:
    """Open the data of a run. Raises RefusedError for a split that cannot teach this stage."""
    train = _learnable(open_split(sources, sources.split), stage, sources, preset)
    notes: list[str] = []
    val = _open_val(sources, preset, notes)
    identity = {**data_identity(sources, train), "samples_sha256": samples_sha256(train)}
    video_of: dict[str, str] = {}
    if val is not None:
        identity["val_samples_sha256"] = samples_sha256(val)
        ids = val.samples["video_id"].to_pylist()
        video_of = {key: video.hex() for key, video in zip(val.samples["key"].to_pylist(), ids, strict=True)}
        if stage in ("classify", "distill") and not {0, 1} <= {*val.labels.tolist()}:
            notes.append("validation has one class only, so no AUC: the lowest loss counts as the best")
    if stage == "distill" and preset.run.cache_maps:
        notes.append("every clip goes through the frozen encoder once; after that an epoch is short")
    maps_folder = preset.run.maps_folder
    feed = Feed(stage, preset, seed, rank, train, val, identity, Path(maps_folder) if maps_folder else out / "maps",
                notes, video_of)  # fmt: skip
    try:
        yield feed
    finally:
        feed.close()


def _learnable(data: ClipData, stage: StageName, sources: Sources, preset: Preset) -> ClipData:
    """Return the samples that a stage can learn from. Raises RefusedError where that is too little."""
    where = f"split '{sources.split}' of {sources.data}" if sources.data else str(sources.shards)
    chosen = data if stage == "pretrain" else with_labels(data)
    chosen = long_enough(chosen, preset.n_frames)
    if not len(chosen):
        left = chosen.left_out
        raise RefusedError(
            f"{where} has nothing to learn from: of {len(data)} clips, {left.n_unlabelled} have no label and "
            f"{left.n_short} fewer than {preset.n_frames} frames"
        )
    found = {*chosen.labels.tolist()}
    if stage != "pretrain" and found != {0, 1}:
        raise RefusedError(f"{where} has only {'fake' if 1 in found else 'real'} clips; a detector needs both classes")
    return chosen


def _open_val(sources: Sources, preset: Preset, notes: list[str]) -> ClipData | None:
    if sources.shards is not None:
        data = open_shards(sources.val_shards, user_cache()) if sources.val_shards else None
    elif sources.fold is not None:
        data = open_split(sources, sources.split, held_out=True)
    elif sources.val_split is None:
        data = None
    else:
        try:
            data = open_split(sources, sources.val_split)
        except UnreadableError as e:
            raise UnreadableError(f"validation: {e}; name another with --val-split, or 'none' to do without") from e
    if data is None:
        plateau = ", and the learning rate stays as it is" if preset.train.schedule == "plateau" else ""
        notes.append(f"no validation: the last checkpoint counts as the best{plateau}")
        return None
    return spread_clips(data, preset.train.eval_clips)
