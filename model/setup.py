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
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from lps.manifests.columns import read_columns, split_path
from lps.manifests.dataset import read_json
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.storage import open_store
from lps.model.cache import user_cache
from lps.model.checkpoint import Checkpoint, State, read_checkpoint
from lps.model.clips import ReadOptions
from lps.model.data import ClipData, open_data, spread_clips
from lps.model.detector import Detector
from lps.model.engine import AnyBatch, Batches, Progress
from lps.model.maps import MapReader, maps_of
from lps.model.plan import Place, PlanOptions
from lps.model.presets import Preset, StageName, preset_from_record
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
    video_of: dict[str, str] = field(default_factory=dict)
    _train: ClipReader | MapReader | None = None
    _val: ClipReader | MapReader | None = None
    _frames: ClipReader | None = None

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
        """Samples that could not be used so far."""
        readers = (self._train, self._val, self._frames)
        return [bad for reader in readers if isinstance(reader, ClipReader) for bad in reader.bad_samples]

    def open(self, stage: Stage, device: torch.device) -> Batches:
        """Open the readers and return the training batches. Raises as the readers do."""
        preset = self.preset
        if preset.run.verify_shards:
            for data in (self.train, self.val):
                if data is not None:
                    verify_shards(data, self.place)
        if isinstance(stage, DistillStage) and preset.run.cache_maps:
            if preset.train.augment != "none":
                raise RefusedError(
                    'feature maps are computed once, so they cannot be augmented: set train.augment = "none" or '
                    "run.cache_maps = false"
                )
            self._open_maps(stage, device)
        else:
            self._train = self._reader(self.train, training=True)
            self._val = None if self.val is None else self._reader(self.val, training=False)
        return self.batches

    def still(self, data: ClipData) -> ClipReader:
        """Return a reader of the samples in their order, unchanged, for this process alone."""
        return self._reader(data, training=False, place=Place())

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
        if params.batch_size % world:
            raise RefusedError(
                f"a batch of {params.batch_size} cannot be shared by {world} processes; change train.batch_size"
            )
        return PlanOptions(
            batch_size=params.batch_size // world,
            sampling=params.sampling if training else "natural",
            shuffle=training,
            equal_steps=training,
            seed=self.seed,
        )

    def _open_maps(self, stage: DistillStage, device: torch.device) -> None:
        owner = {"encoder": state_sha256(stage.teacher.backbone), "act": stage.teacher.head.feature_act,
                 "image_px": self.preset.image_px, "n_frames": self.preset.n_frames}  # fmt: skip
        bf16 = self.preset.run.precision == "bf16"

        def encode(frames: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                return stage.maps(frames.to(device))

        def reader_of(data: ClipData, *, training: bool) -> MapReader:
            # Rank 0 fills the cache for all.
            if dist.is_initialized() and self.place.rank:
                dist.barrier()
            alone = self.still(data)
            self._frames = alone
            maps = maps_of(alone, encode, owner, self.folder)
            alone.close()
            if dist.is_initialized() and not self.place.rank:
                dist.barrier()
            return MapReader(maps, self._plan(training=training), self.place)

        stage.eval()
        self._train = reader_of(self.train, training=True)
        self._val = None if self.val is None else reader_of(self.val, training=False)

    def state(self, progress: Progress) -> dict[str, Any]:
        """Return what a checkpoint needs of the readers."""
        reader = self._train
        return reader.state(progress.epoch, progress.position) if isinstance(reader, ClipReader) else {}

    def check_resume(self, state: dict[str, Any], progress: Progress) -> None:
        """Raise RefusedError if the plan of the epoch under way is another one now."""
        reader = self._train
        if isinstance(reader, ClipReader):
            reader.resume({**state, "epoch": progress.epoch, "step": progress.position})

    def close(self) -> None:
        """End the workers."""
        for reader in (self._train, self._val):
            if reader is not None:
                reader.close()


@contextmanager
def open_feed(stage: StageName, sources: Sources, preset: Preset, seed: int, place: Place, out: Path) -> Iterator[Feed]:
    """Open the data of a run. Raises RefusedError for a split that cannot teach this stage."""
    train = open_split(sources, sources.split)
    notes: list[str] = []
    if stage != "pretrain":
        _require_both_classes(train, sources)
    val = _open_val(sources, preset, notes)
    video_of: dict[str, str] = {}
    if val is not None:
        ids = val.samples["video_id"].to_pylist()
        video_of = {key: video.hex() for key, video in zip(val.samples["key"].to_pylist(), ids, strict=True)}
    feed = Feed(stage, preset, seed, place, train, val, data_identity(sources, train), out / "maps", notes, video_of)
    try:
        yield feed
    finally:
        feed.close()


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
            if "no sample" not in str(e):
                raise
            data = None
    if data is None:
        notes.append("no validation samples: the last checkpoint counts as the best")
        return None
    return spread_clips(data, preset.train.eval_clips)


def _require_both_classes(data: ClipData, sources: Sources) -> None:
    labels = set(np.unique(data.labels).tolist()) & {0, 1}
    if labels != {0, 1}:
        what = {0: "only real clips", 1: "only fake clips"}[labels.pop()] if labels else "no labelled clip"
        where = f"split '{sources.split}' of {sources.data}" if sources.data else str(sources.shards)
        raise RefusedError(f"{where} has {what}; a detector needs both classes")


# ---- networks --------------------------------------------------------------------------------------------------------


def build_stage(stage: StageName, preset: Preset, init: str) -> Stage:
    """Return the stage with its first weights: random ones, or those of the stage before.

    Raises RefusedError where `init` does not fit, UnreadableError or IntegrityError where it cannot be read.
    """
    frames, inner = preset.net.block_frames, preset.run.channels_last
    start = None if init == RANDOM else read_checkpoint(Path(init))
    if start is not None:
        _require_same_net(start, preset, init)
    if stage == "encoder":
        return EncoderStage(
            BlockClassifier(preset.net), preset.net.block_frames, channels_last=preset.run.channels_last
        )
    if stage == "pretrain":
        net = PredictiveNet(preset.net, preset.pretrain)
        if start is not None:
            take_over(net, start, ("backbone.",), init)
        return PretrainStage(net, frames, channels_last=inner)
    if stage == "classify":
        detector = Detector(preset.net, preset.head)
        if start is not None:
            take_over(detector, start, ("backbone.", "agg_"), init)
        return ClassifyStage(detector, frames, channels_last=inner)
    if start is None:
        raise RefusedError("distillation needs a trained detector: give its checkpoint with --init")
    student, teacher = Detector(preset.net, preset.head), Detector(preset.net, preset.head)
    for network in (student, teacher):
        take_over(network, start, ("backbone.", "agg_", "final_"), init)
    return DistillStage(student, teacher, DistillOptions(preset.distill, preset.agg_part), frames, channels_last=inner)


def _require_same_net(start: Checkpoint, preset: Preset, init: str) -> None:
    theirs = preset_from_record(start.config["preset"]).record()["net"]
    ours = preset.record()["net"]
    free = {"gru_dropout", "recompute"}
    differing = sorted(name for name in ours if name not in free and ours[name] != theirs[name])
    if differing:
        name = differing[0]
        raise RefusedError(
            f"{init} has net.{name} = {theirs[name]!r}, this configuration {ours[name]!r}; use the same preset and "
            "settings"
        )


def take_over(network: nn.Module, start: Checkpoint, prefixes: tuple[str, ...], path: str) -> None:
    """Load the parts of a checkpoint that begin with one of `prefixes`; they must all be there and fit.

    An aggregator is not asked of a checkpoint of stage `encoder`, which has none. Raises RefusedError.
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
