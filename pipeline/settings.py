"""The TOML file of `--params`: everything that is not an option of its own.

clip_frames = 60            # any field of Params
[localize]                  # any field of LocalizeParams
bound_px = 1.0
[limits]                    # any field of Limits
max_seconds = 600
[split]                     # ratios, giant, tries
ratios = [0.7, 0.15, 0.15]
[run]                       # shard_mb, and how to run: nothing else here changes a byte
shard_mb = 512
detectors = 4
"""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lps.manifests.errors import UnreadableError
from lps.pipeline.params import Params, params_from_record

RUN_NAMES = ("detectors", "scratch", "memory_mb", "deadline_seconds", "deadline_seconds_per_frame")
REQUEST_NAMES = ("shard_mb",)
SPLIT_NAMES = ("ratios", "giant", "tries", "aliases")
OPTION_NAMES = ("localizer", "clips", "seed", "codec", "align")
"""Fields of Params that are options of the command; a second place for them would contradict the first."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The file's content, sorted by whom it concerns."""

    params: Params = field(default_factory=Params)
    split: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)


def read_settings(path: Path | None) -> Settings:
    """Read a settings file; None gives the defaults. Raises UnreadableError that names the entry at fault."""
    if path is None:
        return Settings()
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise UnreadableError(f"{path}: not a readable TOML file: {e}") from e
    for name in OPTION_NAMES:
        if name in values:
            raise UnreadableError(f"{path}: '{name}' is set by its own option on the command line")
    split, run = _table(values, "split", path), _table(values, "run", path)
    _known(split, SPLIT_NAMES, f"{path}: split")
    _known(run, (*RUN_NAMES, *REQUEST_NAMES), f"{path}: run")
    if "ratios" in split:
        split["ratios"] = tuple(split["ratios"])
    if "aliases" in split:
        split["aliases"] = tuple(tuple(pair) for pair in split["aliases"])
    request = {name: run.pop(name) for name in REQUEST_NAMES if name in run}
    return Settings(params_from_record(values), split, run, request)


def _table(values: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = values.pop(name, {})
    if not isinstance(table, dict):
        raise UnreadableError(f"{path}: [{name}] must be a table")
    return table


def _known(table: dict[str, Any], names: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(table) - set(names))
    if unknown:
        raise UnreadableError(f"{where}: unknown name '{unknown[0]}'; known ones: {', '.join(names)}")
