"""Build the stage of a job, with its first weights."""

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import nn

from lps.manifests.errors import RefusedError
from lps.manifests.names import StageName
from lps.model.networks.context_net import StateDict
from lps.model.networks.conv import Conv3d
from lps.model.networks.conv_check import (
    ConvShape,
    LayoutChoice,
    check_layouts,
    choose_layout,
    library_versions,
    worst,
)
from lps.model.networks.detector import Detector
from lps.model.networks.encoder import Encoder
from lps.model.networks.mesonet import MesoNet, build_detector
from lps.model.networks.predictive_net import PredictiveNet
from lps.model.networks.published_weights import load_encoder_weights
from lps.model.training.checkpoint import Checkpoint, preset_of, read_checkpoint
from lps.model.training.presets import Preset
from lps.model.training.processes import all_gather_list
from lps.model.training.stages import (
    BlockClassifier,
    ClassifyStage,
    DistillOptions,
    DistillStage,
    EncoderStage,
    FrameStage,
    PretrainStage,
    TrainingStage,
)

RANDOM = "random"
FREE = frozenset(("gru_dropout", "recompute", "weights", "weights_sha256", "frozen", "tune"))
"""Settings of a network that may be others in the next stage: they say how it learns, not what it is."""


def build_stage(
    stage: StageName, preset: Preset, init: str, *, keep_head: bool = False, resuming: bool = False
) -> TrainingStage:
    """Return the stage with its first weights: random ones, or those of the stage before.

    `keep_head` lets `classify` start from a whole detector; distillation always does. Where a run is `resuming`, all
    weights come from its own checkpoint, and a file of the encoder's first ones need not be there any more.
    Raises RefusedError where `init` does not fit, UnreadableError or IntegrityError where it cannot be read.
    """
    start = None if init == RANDOM else read_checkpoint(Path(init))
    if start is None and stage == "distill":
        raise RefusedError("distillation needs a trained detector: give its checkpoint with --init")
    if start is None and keep_head:
        raise RefusedError("--keep-head needs a trained detector: give its checkpoint with --init")
    if start is not None:
        _require_stage(start, stage, init)
        if keep_head or stage == "distill":
            _require_head(start, preset, init)
        _require_same(start, preset, "net", FREE, init)
    try:
        built = _built(stage, preset, start, init, keep_head=keep_head)
    except ValueError as e:  # what the networks refuse
        raise RefusedError(f"this configuration has no network: {e}") from e
    if start is not None:
        built.notes = _notes_on(start, preset, init, whole=keep_head or stage == "distill")
    elif preset.net.weights is not None and not resuming:
        encoder = built.network.backbone
        assert isinstance(encoder, Encoder)  # NetParams asks for one, and for both settings
        assert preset.net.weights_sha256 is not None
        load_encoder_weights(encoder, Path(preset.net.weights), preset.net.weights_sha256)
    return built


def _notes_on(start: Checkpoint, preset: Preset, init: str, *, whole: bool) -> tuple[str, ...]:
    """Say what is not looked at, and, where the `whole` detector goes on, what it sees otherwise than before."""
    notes = []
    if whole:
        theirs = preset_of(start, Path(init))
        notes += [
            f"it starts from a detector of {name} = {before} and has {name} = {now} itself"
            for name, before, now in (
                ("data.margin", theirs.data.margin, preset.data.margin),
                ("image_px", theirs.image_px, preset.image_px),
            )
            if before != now
        ]
    if preset.net.weights is not None:
        notes.append("net.weights is not looked at: the encoder comes from --init")
    return tuple(notes)


def _built(stage: StageName, preset: Preset, start: Checkpoint | None, init: str, *, keep_head: bool) -> TrainingStage:
    frames = preset.net.block_frames
    if stage == "encoder":
        classifier = BlockClassifier(preset.net)
        return EncoderStage(classifier, frames, channels_last=_channels_innermost(preset, classifier))
    if stage == "pretrain":
        net = PredictiveNet(preset.net, preset.pretrain)
        if start is not None:
            load_prefixed_weights(net, start, ("",) if start.stage == "pretrain" else ("backbone.",), init)
        return PretrainStage(net, frames, channels_last=_channels_innermost(preset, net))
    if stage == "classify":
        detector = build_detector(preset.net, preset.head, preset.image_px)
        if start is not None:
            encoder_only = start.stage == "encoder"
            parts = ("",) if keep_head else ("backbone.",) if encoder_only else ("backbone.", "agg_")
            load_prefixed_weights(detector, start, parts, init)
        if isinstance(detector, MesoNet):
            return FrameStage(detector, frames, channels_last=True)
        return ClassifyStage(detector, frames, channels_last=_channels_innermost(preset, detector))
    assert start is not None  # build_stage asks for it
    student, teacher = Detector(preset.net, preset.head), Detector(preset.net, preset.head)
    for network in (student, teacher):
        load_prefixed_weights(network, start, ("",), init)
    options = DistillOptions(preset.distill, preset.agg_part)
    return DistillStage(student, teacher, options, frames, channels_last=_channels_innermost(preset, student))


def _channels_innermost(preset: Preset, network: BlockClassifier | PredictiveNet | Detector) -> bool:
    return preset.run.channels_last or network.backbone.by_frame  # which wants them so anyway


def check_stage_bf16(stage: TrainingStage, preset: Preset, device: torch.device, world_size: int) -> tuple[str, ...]:
    """Check bf16 as `check_bf16` does, for the steps of a stage; returns what the user should know."""
    networks = [stage, *([stage.teacher] if isinstance(stage, DistillStage) else [])]
    n_clips = -(-preset.train.batch_size // (world_size * preset.train.accumulate))
    shape = ConvShape.of_run(n_clips * preset.net.n_blocks, preset.net.block_frames, preset.image_px, device)
    choice = check_bf16(networks, shape, device, channels_last=stage.channels_last)
    stage.channels_last = choice.channels_last
    return choice.notes


def check_bf16(
    networks: Sequence[nn.Module], shape: ConvShape, device: torch.device, *, channels_last: bool
) -> LayoutChoice:
    """Check a 3-D convolution in bf16 and let those of the networks take the layout in which it is right and quick.

    That is the one asked for by `channels_last` if it is. All processes of a run call this, and take the same layout.
    Raises RefusedError where neither layout is right.
    """
    convs = [each for network in networks for each in network.modules() if isinstance(each, Conv3d)]
    if not convs:
        return LayoutChoice(channels_last=channels_last, notes=())
    found = worst(all_gather_list(check_layouts(shape, device)))
    choice = choose_layout(found, channels_last, library_versions(device))
    for conv in convs:
        conv.memory_format = torch.channels_last_3d if choice.channels_last else torch.contiguous_format
    return choice


VALID_INIT_STAGES: dict[StageName, tuple[str, ...]] = {
    "encoder": (),
    "pretrain": ("encoder", "pretrain"),
    "classify": ("encoder", "pretrain", "classify", "distill"),
    "distill": ("classify", "distill"),
}
"""Stages whose checkpoints a stage can start from."""


def _require_stage(start: Checkpoint, stage: StageName, init: str) -> None:
    if start.stage not in VALID_INIT_STAGES[stage]:
        raise RefusedError(
            f"{init} is of stage '{start.stage}'; "
            f"{stage} starts from {' or '.join(VALID_INIT_STAGES[stage]) or 'nothing'}"
        )


def _require_head(start: Checkpoint, preset: Preset, init: str) -> None:
    if start.stage not in VALID_INIT_STAGES["distill"]:
        raise RefusedError(f"{init} is of stage '{start.stage}' and has no head to keep; give that of a detector")
    if start.extra:
        raise RefusedError(f"{init} classifies by a support vector machine; what is kept must be a linear head")
    _require_same(start, preset, "head", {"dropout"}, init)


def _require_same(start: Checkpoint, preset: Preset, table: str, free: Collection[str], init: str) -> None:
    """Compare a table of the configuration with the checkpoint's. Raises RefusedError that names what differs."""
    theirs = preset_of(start, Path(init)).record()[table]
    ours = preset.record()[table]
    for name in sorted(ours):
        if name not in free and ours[name] != theirs[name]:
            raise RefusedError(
                f"{init} has {table}.{name} = {theirs[name]!r}, this configuration {ours[name]!r}; use the same preset "
                "and settings"
            )


def load_prefixed_weights(network: nn.Module, start: Checkpoint, prefixes: tuple[str, ...], path: str) -> None:
    """Load the parts of a checkpoint whose names begin with one of `prefixes`; they must all be there and fit.

    Raises RefusedError.
    """
    own = network.state_dict()
    wanted = {name for name in own if name.startswith(prefixes)}
    found: StateDict = {name: value for name, value in start.network.items() if name in wanted}
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
