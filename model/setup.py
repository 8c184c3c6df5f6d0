"""From the words of a job to its parts: the readers of its data, and the stage with its first weights."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import nn

from lps.manifests.columns import read_columns, split_path
from lps.manifests.dataset import read_json
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.storage import open_store
from lps.model.cache import user_cache
from lps.model.checkpoint import Checkpoint, State, preset_of, read_checkpoint
from lps.model.clips import ReadOptions
from lps.model.data import ClipData, long_enough, open_data, spread_clips, with_labels
from lps.model.detector import Detector
from lps.model.engine import AnyBatch, Batches, Progress, everywhere
from lps.model.maps import MapReader, maps_of
from lps.model.plan import Place, PlanOptions
from lps.model.presets import Preset, StageName
from lps.model.pretrainer import PredictiveNet
from lps.model.reader import ClipReader, WorkOptions, verify_shards
from lps.model.sample import BadSample
from lps.model.scan import open_shards
from lps.model.stages import (
    BlockClassifier,
    ClassifyStage,
    DistillOptions,
    DistillStage,
    EncoderStage,
    PretrainStage,
    Stage,
)

RANDOM = "random"
PLAN_JSON = "plan/plan.json"

# ---- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Which samples to train on and to validate with."""

    data: str | None = None
    """Folder or URL of a data set."""
    split: str = "train"
    val_split: str | None = "val"
    """None trains without validation."""
    split_set: str | None = None
    """Default: the one that the shards were made for."""
    shards: str | None = None
    """Instead of `data`: a pattern of shards, without manifests."""
    val_shards: str | None = None
    allow_leaky: bool = False
    fold: tuple[int, int] | None = None
    """(k, n) for cross-validation: of the n parts into which the groups of `split` fall, part k is held out from
    training and validated with. Nobody is in two groups."""

    def __post_init__(self) -> None:
        if (self.data is None) == (self.shards is None):
            raise ValueError("name either a data set (--data) or shards (--shards)")

    def record(self) -> dict[str, Any]:
        """Return what decides which samples are read."""
        return asdict(self)


def open_split(sources: Sources, split: str, *, held_out: bool = False) -> ClipData:
    """Return the samples of a split, or of its part that is `held_out`. Raises as `open_data` and `open_shards` do."""
    if sources.data is not None:
        data = open_data(sources.data, split, split_set=sources.split_set, allow_leaky=sources.allow_leaky)
        if sources.fold is None:
            return data
        k, n = sources.fold
        return data.select((groups_of(sources, data) % n == k) == held_out, data.left_out)
    assert sources.shards is not None  # Sources has one or the other
    return open_shards(sources.shards, user_cache())


def groups_of(sources: Sources, data: ClipData) -> NDArray[np.int64]:
    """Return the number of every sample's group: samples that share people or recordings have one number.

    Groups are those of the split set, numbered in order of their size and id, so that parts `number % n` are even.
    """
    assert sources.data is not None  # plain shards know no groups
    rows = read_columns(
        open_store(sources.data), "splits", ("video_id", "group_id"), path=split_path(data.identity.split_set)
    )
    place = pc.index_in(data.samples["video_id"], value_set=rows["video_id"].combine_chunks())
    group = rows["group_id"].take(place).to_pylist()
    counts = Counter(group)
    number = {g: k for k, g in enumerate(sorted(counts, key=lambda g: (-counts[g], g)))}
    return np.array([number[g] for g in group], np.int64)


def data_identity(sources: Sources, data: ClipData) -> dict[str, Any]:
    """Return what checkpoints and results say about the data, with how its clips were prepared where that is known."""
    identity = data.identity.as_json()
    if sources.data is None:
        return {**identity, "shards": sources.shards}
    store = open_store(sources.data)
    prep = read_json(store, PLAN_JSON).get("params") if store.exists(PLAN_JSON) else None
    return {**identity, "prep": prep}


@dataclass(slots=True)
class Feed:
    """The readers of a run; `batches` is there once `open` was called."""

    stage: StageName
    preset: Preset
    seed: int
    place: Place
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

    def open(self, stage: Stage, device: torch.device) -> Batches:
        """Open the readers and return the training batches. Raises as the readers do."""
        preset = self.preset
        if preset.run.verify_shards:
            for data in (self.train, self.val):
                if data is not None:
                    verify_shards(data, self.place)
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
        self._still.append(self._reader(data, training=False, place=Place()))
        return self._still[-1]

    def _reader(self, data: ClipData, *, training: bool, place: Place | None = None) -> ClipReader:
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
        return ClipReader(data, read, self._plan(training=training), work, place or self.place)

    def _plan(self, *, training: bool) -> PlanOptions:
        params, world = self.preset.train, self.place.world_size
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

        if self.place.rank:
            everywhere(())  # the first process fills the cache for all of a machine
        maps, made = maps_of(lambda: self.still(data), encode, owner, self.folder)
        if not self.place.rank:
            everywhere(())
        self.notes.append(f"feature maps of {len(maps.keys)} clips were {'made' if made else 'there already'}")
        return MapReader(maps, self._plan(training=training), self.place)

    def state(self, progress: Progress) -> dict[str, Any]:
        """Return what a checkpoint needs of the readers."""
        assert self._train is not None  # open() comes first
        return self._train.state(progress.epoch, progress.position)

    def check_resume(self, state: dict[str, Any], progress: Progress) -> None:
        """Raise RefusedError if the plan of the epoch under way is another one now."""
        assert self._train is not None  # open() comes first
        self._train.resume({**state, "epoch": progress.epoch, "step": progress.position})

    def close(self) -> None:
        """End the workers."""
        for reader in (self._train, self._val, *self._still):
            if reader is not None:
                reader.close()


@contextmanager
def open_feed(stage: StageName, sources: Sources, preset: Preset, seed: int, place: Place, out: Path) -> Iterator[Feed]:
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
    feed = Feed(stage, preset, seed, place, train, val, identity, Path(maps_folder) if maps_folder else out / "maps",
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


def samples_sha256(data: ClipData) -> str:
    """Return the SHA-256, in hex, of what is read: the samples, their places, and the shards as far as known."""
    digest = hashlib.sha256(data.digest().encode())
    for name in ("offset", "n_bytes"):
        digest.update(data.column(name).astype("<i8").tobytes())
    for number in np.unique(data.column("shard")):
        shard = data.shards[number]
        digest.update(f"{shard.sha256}\t{shard.mark}\n".encode())
    return digest.hexdigest()


# ---- networks --------------------------------------------------------------------------------------------------------


def build_stage(stage: StageName, preset: Preset, init: str) -> Stage:
    """Return the stage with its first weights: random ones, or those of the stage before.

    Raises RefusedError where `init` does not fit, UnreadableError or IntegrityError where it cannot be read.
    """
    start = None if init == RANDOM else read_checkpoint(Path(init))
    if start is None and stage == "distill":
        raise RefusedError("distillation needs a trained detector: give its checkpoint with --init")
    if start is not None:
        _require_stage(start, stage, init)
        _require_same(start, preset, "net", {"gru_dropout", "recompute"}, init)
    try:
        return _built(stage, preset, start, init)
    except ValueError as e:  # what the networks refuse
        raise RefusedError(f"this configuration has no network: {e}") from e


def _built(stage: StageName, preset: Preset, start: Checkpoint | None, init: str) -> Stage:
    frames = preset.net.block_frames
    inner = preset.run.channels_last or preset.net.encoder.startswith("resnet")  # which wants them so anyway
    if stage == "encoder":
        return EncoderStage(BlockClassifier(preset.net), frames, channels_last=inner)
    if stage == "pretrain":
        net = PredictiveNet(preset.net, preset.pretrain)
        if start is not None:
            take_over(net, start, ("",) if start.stage == "pretrain" else ("backbone.",), init)
        return PretrainStage(net, frames, channels_last=inner)
    if stage == "classify":
        detector = Detector(preset.net, preset.head)
        if start is not None:
            take_over(detector, start, ("backbone.",) if start.stage == "encoder" else ("backbone.", "agg_"), init)
        return ClassifyStage(detector, frames, channels_last=inner)
    assert start is not None  # build_stage asks for it
    _require_same(start, preset, "head", {"dropout"}, init)
    student, teacher = Detector(preset.net, preset.head), Detector(preset.net, preset.head)
    for network in (student, teacher):
        take_over(network, start, ("",), init)
    return DistillStage(student, teacher, DistillOptions(preset.distill, preset.agg_part), frames, channels_last=inner)


COMES_AFTER: dict[StageName, tuple[str, ...]] = {
    "encoder": (),
    "pretrain": ("encoder", "pretrain"),
    "classify": ("encoder", "pretrain", "classify", "distill"),
    "distill": ("classify", "distill"),
}
"""Stages whose checkpoints a stage can start from. A detector always learns its head anew, but for distillation."""


def _require_stage(start: Checkpoint, stage: StageName, init: str) -> None:
    if start.stage not in COMES_AFTER[stage]:
        raise RefusedError(
            f"{init} is of stage '{start.stage}'; {stage} starts from {' or '.join(COMES_AFTER[stage]) or 'nothing'}"
        )
    if stage == "distill" and start.extra:
        raise RefusedError(f"{init} judges by a support vector machine; distillation needs a trained linear head")


def _require_same(start: Checkpoint, preset: Preset, table: str, free: set[str], init: str) -> None:
    """Compare a table of the configuration with the checkpoint's. Raises RefusedError that names what differs."""
    theirs = preset_of(start, Path(init)).record()[table]
    ours = preset.record()[table]
    for name in sorted(ours):
        if name not in free and ours[name] != theirs[name]:
            raise RefusedError(
                f"{init} has {table}.{name} = {theirs[name]!r}, this configuration {ours[name]!r}; use the same preset "
                "and settings"
            )


def take_over(network: nn.Module, start: Checkpoint, prefixes: tuple[str, ...], path: str) -> None:
    """Load the parts of a checkpoint whose names begin with one of `prefixes`; they must all be there and fit.

    Raises RefusedError.
    """
    own = network.state_dict()
    wanted = {name for name in own if name.startswith(prefixes)}
    found: State = {name: value for name, value in start.network.items() if name in wanted}
    missing = sorted(wanted - set(found))
    if missing:
        raise RefusedError(
            f"{path} (stage '{start.stage}') has no '{missing[0]}'; give the checkpoint of another stage"
        )
    wrong = sorted(name for name, value in found.items() if value.shape != own[name].shape)
    if wrong:
        name = wrong[0]
        raise RefusedError(
            f"{path}: '{name}' is {tuple(found[name].shape)}, this network needs {tuple(own[name].shape)}"
        )
    network.load_state_dict(found, strict=False)


def state_sha256(module: nn.Module) -> str:
    """Return the SHA-256 of a module's parameters and buffers, in hex."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else
                      str(value.item()).encode())  # fmt: skip
    return digest.hexdigest()
