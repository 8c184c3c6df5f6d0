"""What is asked of a training run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lps.manifests.names import StageName
from lps.model.data.sources import Sources
from lps.model.training.presets import Preset


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """One stage to train."""

    stage: StageName
    out: Path
    sources: Sources
    preset: Preset
    init: str
    """Path of the checkpoint to start from, or `random`."""
    seed: int = 0
    keep_head: bool = False
    """`classify` only: go on with the whole detector of `init`; else its head is learnt anew."""

    def record(self) -> dict[str, Any]:
        """Return what decides the result, as plain values."""
        return {
            "stage": self.stage,
            "init": self.init,
            "seed": self.seed,
            "keep_head": self.keep_head,
            "data": self.sources.record(),
            "preset": self.preset.record(),
        }
