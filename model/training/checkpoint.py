"""Checkpoints: tensors, plain values, nothing that runs code when it is read; written whole or not at all."""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lps.manifests import canonical, environment
from lps.manifests.environment import write_atomically
from lps.manifests.errors import IntegrityError, LpsError, UnreadableError, first_line
from lps.manifests.splits.learnt import Learnt, learnt_bytes, read_learnt
from lps.manifests.storage import refuse_compressed
from lps.model.networks.context_net import StateDict
from lps.model.training.presets import Preset, preset_from_record

FORMAT = 1
"""Version of the file; a reader refuses a newer one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a run is made of at one step."""

    stage: str
    """`encoder`, `pretrain`, `classify` or `distill`."""
    config: dict[str, Any]
    """The resolved configuration."""
    data: dict[str, Any]
    """Identity of the data: index sha256, split set, stamp, and how its clips were prepared."""
    network: StateDict
    """Under reference names. The moving average of the weights where the run keeps one."""
    progress: dict[str, Any]
    """Step, epoch, position and best so far, as plain values."""
    training: dict[str, Any] = field(default_factory=dict)
    """Optimiser, schedule, random numbers, raw weights: only in checkpoints that a run can resume from."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Metrics of the last validation."""
    code: dict[str, Any] = field(default_factory=dict)
    """Versions and commit; filled in when it is written."""
    extra: StateDict = field(default_factory=dict)
    """Further tensors, such as those of a support vector machine."""
    learnt: Tensor | None = None
    """What it learnt from, by video and clip, as `learnt_tensor` has it; None in a file of an older version."""


def code_version() -> dict[str, Any]:
    """Return version, commit and environment of this program, and the version of torch."""
    return {**environment.code_version(), "torch": str(torch.__version__)}


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a file that is there completely or not at all. Raises UnreadableError where it cannot be written."""
    values = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)}
    values["code"] = checkpoint.code or code_version()
    try:
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            torch.save({"format": FORMAT, **values}, file)
    except (OSError, RuntimeError) as e:  # torch reports a full disk as RuntimeError
        cause = e if isinstance(e, OSError) else e.__context__ if isinstance(e.__context__, OSError) else e
        raise UnreadableError(
            f"cannot write {path}: {first_line(cause)}; make room and run the same command again to resume from the "
            "last checkpoint"
        ) from e


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of this package to the CPU.

    Raises UnreadableError if it is not there, of a newer program or not a checkpoint, IntegrityError if it is damaged.
    Nothing in the file is run.
    """
    foreign = f"{path} is not a checkpoint of lps-train; published weights load by lps.model.load_reference"
    try:
        wrong = _damage(path)
        if wrong is None:
            raise UnreadableError(foreign)
        if wrong:
            raise IntegrityError(f"{path} is cut off or damaged: {wrong}; copy it again")
        values = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as e:
        raise UnreadableError(f"cannot read checkpoint {path}: {e.strerror or e}") from e
    except LpsError:
        raise
    except pickle.UnpicklingError as e:  # whole, but with more in it than tensors and plain values
        raise UnreadableError(foreign) from e
    except Exception as e:  # noqa: BLE001  a file made up to look like one can bring out anything
        raise IntegrityError(f"{path} is damaged: {first_line(e)}; copy it again") from e
    if not isinstance(values, Mapping) or not isinstance(values.get("format"), int):
        raise UnreadableError(foreign)
    if values["format"] > FORMAT:
        raise UnreadableError(
            f"{path} has format {values['format']}, this version reads up to {FORMAT}; update lps-prep"
        )
    return _from_record(values, path)


def _from_record(values: Mapping[str, Any], path: Path) -> Checkpoint:
    """Return the checkpoint that a file holds. Raises IntegrityError where a part is missing or of another kind."""
    names = {f.name for f in fields(Checkpoint)}
    missing = names - set(values) - {"learnt"}
    if missing:
        raise IntegrityError(f"{path} lacks {', '.join(sorted(missing))}")
    wrong_kind = sorted(name for name in names & set(values) if not _is_of_kind(name, values[name]))
    if wrong_kind:
        raise IntegrityError(f"{path} is damaged: its {wrong_kind[0]} is a {type(values[wrong_kind[0]]).__name__}")
    return Checkpoint(**{name: values[name] for name in names & set(values)})


def _is_of_kind(name: str, value: object) -> bool:
    if name == "stage":
        return isinstance(value, str)
    if name == "learnt":
        return value is None or isinstance(value, Tensor)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return False
    return name not in ("network", "extra") or all(isinstance(each, Tensor) for each in value.values())


def _damage(path: Path) -> str | None:
    """Return what is wrong with a file in torch's form, a zip, as its checksums tell: torch does not look at them.

    Empty where nothing is, None for a file of another form. Raises OSError.
    """
    with canonical.open_regular(path) as file:
        if file.read(2) != b"PK":
            return None
        try:
            refuse_compressed(file)
            with zipfile.ZipFile(file) as members:
                wrong = members.testzip()
        except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, struct.error) as e:
            return first_line(e)
        return "" if wrong is None else f"the checksum of '{wrong}' is wrong"


def preset_of(checkpoint: Checkpoint, path: Path) -> Preset:
    """Return the configuration of a checkpoint. Raises UnreadableError where it has settings unknown here."""
    try:
        return preset_from_record(checkpoint.config["preset"])
    except (KeyError, TypeError, AttributeError, UnreadableError) as e:
        raise UnreadableError(f"{path} has settings that this version does not know: {first_line(e)}") from e


def learnt_tensor(learnt: Learnt) -> Tensor:
    """Return what a run learnt from as bytes in a tensor (uint8), which is all that a checkpoint may hold."""
    return torch.frombuffer(bytearray(learnt_bytes(learnt)), dtype=torch.uint8)


def learnt_of(checkpoint: Checkpoint, path: Path) -> Learnt | None:
    """Return what a checkpoint learnt from, None where it does not say. Raises IntegrityError, UnreadableError."""
    found = checkpoint.learnt
    if found is None:
        return None
    if not isinstance(found, Tensor) or found.dtype != torch.uint8 or found.ndim != 1:
        raise IntegrityError(f"{path} does not hold what was learnt from: it is no row of bytes")
    return read_learnt(found.numpy().tobytes(), str(path))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex. Raises UnreadableError."""
    try:
        return canonical.file_sha256(path)
    except OSError as e:
        raise UnreadableError(f"cannot read {path}: {e.strerror or e}") from e
