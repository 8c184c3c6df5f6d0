"""The TOML file of `--params`: everything that is not an option of its own.

clip_frames = 60            # any field of Params
[decode]                    # any field of DecodeParams
scan = "whole"
[crop]                      # any field of CropParams
margin = 1.3
[localize]                  # any field of LocalizeParams
bound_px = 1.0
[pair]                      # any field of PairParams but its mode
max_face_px = 10.0
[limits]                    # any field of Limits
max_seconds = 600
[split]                     # ratios, giant, tries
ratios = [0.7, 0.15, 0.15]
[run]                       # shard_mb, and how to run: nothing else here changes a byte
shard_mb = 512
detectors = 4
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lps.manifests.errors import UnreadableError
from lps.manifests.fields import checked_values, read_toml, with_values
from lps.manifests.splits.records import SplitParams
from lps.pipeline.config.params import Params, require_above_zero

DEFAULT_SHARD_MB = 256
SPLIT_NAMES = ("ratios", "giant", "tries", "aliases")
"""Fields of SplitParams that a file may set; the others are options of the command."""
OPTION_NAMES = ("localizer", "clips", "seed", "codec", "align")
"""Fields of Params that are options of the command; a second place for them would contradict the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How to make a data set: nothing here changes a byte of the result."""

    detectors: int | None = None
    scratch: str | None = None
    """Where tars are built, and copies of remote videos are kept; None: TMPDIR."""
    source_cache_mb: float = 20_480
    """Copies of remote videos that a machine keeps from their probe to their processing; 0: none."""
    memory_mb: int = 4096
    """Memory that processing one video may add to its worker."""
    deadline_seconds: float = 120.0
    deadline_seconds_per_frame: float = 0.5
    """Added per frame of the video; about twenty times what a busy core needs."""

    def __post_init__(self) -> None:
        require_above_zero(self, "memory_mb", "deadline_seconds", "deadline_seconds_per_frame")
        if self.source_cache_mb < 0:
            raise ValueError(f"source_cache_mb must not be below zero, got {self.source_cache_mb}")
        if self.detectors is not None:
            require_above_zero(self, "detectors")


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunTable(RunSettings):
    shard_mb: int = DEFAULT_SHARD_MB

    def __post_init__(self) -> None:
        RunSettings.__post_init__(self)
        require_above_zero(self, "shard_mb")


@dataclass(frozen=True, slots=True)
class Settings:
    """The file's content, sorted by whom it concerns."""

    params: Params
    split: Mapping[str, Any]
    """Fields of SplitParams."""
    run: Mapping[str, Any]
    """Fields of RunSettings."""
    shard_mb: int


def read_settings(path: Path | None) -> Settings:
    """Read a settings file; None gives the defaults. Raises UnreadableError that names the entry at fault."""
    values, _ = read_toml(path)
    try:
        return _settings(values)
    except UnreadableError as e:
        raise UnreadableError(f"{path}: {e}") from e


def _settings(values: dict[str, Any]) -> Settings:
    for name in OPTION_NAMES:
        if name in values:
            raise UnreadableError(f"'{name}' is set by its own option on the command line")
    if isinstance(pair := values.get("pair"), dict) and "mode" in pair:
        raise UnreadableError("'pair.mode' is set by its own option on the command line, --pairing")
    split = checked_values(SplitParams, values.pop("split", {}), "split", SPLIT_NAMES)
    run = asdict(with_values(_RunTable(), values.pop("run", {}), "run"))
    shard_mb = run.pop("shard_mb")
    return Settings(with_values(Params(), values), split, run, shard_mb)
