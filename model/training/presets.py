"""Whole configurations as plain values: `paper` to the letter, `strong` as practice has it, `small` for few videos.

They differ in named values only; a settings file changes any of them:

    [net]
    width = 32
    [train]
    epochs = 100
    [run]
    precision = "bf16"
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lps.manifests.fields import read_toml, with_values
from lps.manifests.names import PRESET_NAMES, StageName
from lps.model.networks.context_net import NetParams
from lps.model.networks.detector import AggPart, HeadParams
from lps.model.networks.encoder import FRAME_DETECTORS
from lps.model.networks.losses import DistillParams
from lps.model.networks.predictive_net import PretrainParams
from lps.model.networks.torchvision_encoder import TORCHVISION_ENCODERS
from lps.model.training.params import AugmentParams, DataParams, FakesParams, RunParams, TrainParams

LEAST_PX = 32
"""Side of the smallest frame of which published networks leave anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Everything that a stage needs to know besides its data."""

    image_px: int = 224
    net: NetParams = field(default_factory=NetParams)
    pretrain: PretrainParams = field(default_factory=PretrainParams)
    head: HeadParams = field(default_factory=HeadParams)
    distill: DistillParams = field(default_factory=DistillParams)
    agg_part: AggPart = "out_gate"
    train: TrainParams = field(default_factory=TrainParams)
    fakes: FakesParams = field(default_factory=FakesParams)
    data: DataParams = field(default_factory=DataParams)
    augment: AugmentParams = field(default_factory=AugmentParams)
    run: RunParams = field(default_factory=RunParams)

    def __post_init__(self) -> None:
        if self.image_px < 1:
            raise ValueError(f"{self.image_px = } is not above 0")
        if self.image_px < LEAST_PX and self.net.encoder in (*FRAME_DETECTORS, *TORCHVISION_ENCODERS):
            raise ValueError(f"{self.image_px = } is too small for '{self.net.encoder}': it takes {LEAST_PX} or more")

    @property
    def n_frames(self) -> int:
        """Frames of a clip that the network sees."""
        return self.net.n_blocks * self.net.block_frames

    def makes_fakes(self, stage: StageName) -> bool:
        """Whether a stage learns from self-blends; pretraining has no use for labels."""
        return self.fakes.kind == "self-blend" and stage != "pretrain"

    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


PAPER = Preset()
STRONG = replace(
    PAPER,
    train=TrainParams(augment="strong", ema_decay=0.999, stop_epochs=50, sampling="balanced", eval_clips=3),
)
SMALL = replace(
    PAPER,
    image_px=112,
    net=NetParams(width=16, gru_dropout=0.0),
    pretrain=PretrainParams(n_slots=256),
    head=HeadParams(final_bn=False, dropout=0.0),
    train=TrainParams(
        epochs=33, batch_size=8, lr=3e-4, min_lr=0.0, schedule="cosine", sampling="pairs", augment="light"
    ),
)
"""For some dozens of videos, where the literal recipe stalls: close to what fitted its training videos in a study on 32
of them. What made the difference there was the size of the face, pairs in a batch, and no dropout."""

PRESETS: dict[str, Preset] = dict(zip(PRESET_NAMES, (PAPER, STRONG, SMALL), strict=True))
STAGE_VALUES: dict[tuple[str, StageName], dict[str, Any]] = {
    ("strong", "distill"): {"lr": 1e-4, "min_lr": 1e-5, "augment": "none"},
    ("strong", "pretrain"): {"sampling": "natural"},
    ("small", "pretrain"): {"sampling": "natural"},
    ("small", "encoder"): {"sampling": "natural"},
    ("small", "distill"): {"sampling": "natural", "augment": "none", "epochs": 20},
    ("strong", "encoder"): {"sampling": "natural"},
}
"""A14 and the like: what a stage of a preset has otherwise. Pretraining has no use for labels, so none for classes in
balance; cached feature maps cannot be augmented."""


def preset_for(name: str, stage: StageName, settings: Mapping[str, Any] | None = None) -> Preset:
    """Return the configuration of a stage: a preset's values, then the stage's own, then those of `settings`.

    `settings` has the form of the file. Raises UnreadableError that names the entry at fault.
    """
    preset = PRESETS[name]
    preset = with_values(preset, {"train": STAGE_VALUES.get((name, stage), {})})
    return with_values(preset, settings or {})


def preset_from_record(record: Mapping[str, Any]) -> Preset:
    """Return the configuration that `Preset.record` gave. Raises UnreadableError."""
    return with_values(Preset(), record)


def read_settings(path: Path | None) -> dict[str, Any]:
    """Read a TOML settings file; None is an empty one. Raises UnreadableError."""
    values, _ = read_toml(path)
    return values
