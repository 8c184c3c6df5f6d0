"""What a run reports while it works."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lps.manifests.records import Note


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBegun:
    """A run is about to take its first step, or its next one after an interruption."""

    stage: str
    step: int
    """Steps done before."""
    n_steps: int
    """Steps of the whole run."""
    n_clips: int
    """Clips of an epoch."""
    n_parameters: int
    """Parameters that are trained."""
    device: str
    resumed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """A step was taken; several are reported at once."""

    step: int
    epoch: int
    values: Mapping[str, float | None]
    """`loss`, `lr`, `grad_norm` and what the stage adds; None for a value that is not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedMeasured:
    """How long the steps since the last such event took."""

    step: int
    values: Mapping[str, float | None]
    """`wait_share`, `floor_share`, `step_s`, `floor_s`, as in the log; None for a floor that was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validating:
    """A validation begins."""

    step: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """A validation ended, or the epoch did where there is none."""

    step: int
    epoch: int
    best: bool
    metrics: Mapping[str, Any]
    """What is logged: `epoch`, `lr`; with a validation split `loss` and, for detectors, `auc` (None for one class);
    of several data sets what `metrics_of` returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten:
    """A checkpoint is on the disk."""

    step: int
    best: bool


TrainEvent = Note | RunBegun | StepDone | SpeedMeasured | Validating | Validated | CheckpointWritten
OnTrainEvent = Callable[[TrainEvent], None]
