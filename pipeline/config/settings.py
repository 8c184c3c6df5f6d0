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
from lps.manifests.fields import checked
from lps.pipeline.config.params import Params, params_from_record

RUN_TYPES = {
    "detectors": int,
    "scratch": str,
    "memory_mb": int,
    "deadline_seconds": float,
    "deadline_seconds_per_frame": float,
}
REQUEST_TYPES = {"shard_mb": int}
SPLIT_TYPES = {"ratios": tuple, "giant": str, "tries": int, "aliases": tuple}
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
    try:
        return _settings(values)
    except UnreadableError as e:
        raise UnreadableError(f"{path}: {e}") from e


def _settings(values: dict[str, Any]) -> Settings:
    for name in OPTION_NAMES:
        if name in values:
            raise UnreadableError(f"'{name}' is set by its own option on the command line")
    split = _typed(values, "split", SPLIT_TYPES)
    run = _typed(values, "run", RUN_TYPES | REQUEST_TYPES)
    request = {name: run.pop(name) for name in REQUEST_TYPES if name in run}
    return Settings(params_from_record(values), split, run, request)


def _typed(values: dict[str, Any], name: str, kinds: dict[str, Any]) -> dict[str, Any]:
    """Take the table `name` out of `values`, checked."""
    table = values.pop(name, {})
    if not isinstance(table, dict):
        raise UnreadableError(f"[{name}] must be a table, got {table!r}")
    typed: dict[str, Any] = {}
    for key, value in table.items():
        where = f"{name}.{key}"
        if key not in kinds:
            raise UnreadableError(f"unknown name '{where}'; known ones: {', '.join(kinds)}")
        if key == "ratios":
            typed[key] = tuple(checked(ratio, float, where) for ratio in _listed(value, where))
        elif key == "aliases":
            typed[key] = tuple(_alias(pair, where) for pair in _listed(value, where))
        else:
            typed[key] = checked(value, kinds[key], where)
            if kinds[key] is not str and typed[key] <= 0:
                raise UnreadableError(f"'{where}' must be above zero, got {value}")
    return typed


def _alias(pair: Any, where: str) -> tuple[str, str]:
    keys = _listed(pair, where)
    if len(keys) != 2:
        raise UnreadableError(f"'{where}' must be pairs of keys, got {pair!r}")
    return checked(keys[0], str, where), checked(keys[1], str, where)


def _listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UnreadableError(f"'{where}' must be a list, got {value!r}")
    return value
