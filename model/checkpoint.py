"""Checkpoints: tensors, plain values, nothing that runs code when it is read; written whole or not at all."""

import hashlib
import os
import pickle
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lps.manifests.errors import IntegrityError, RefusedError, UnreadableError

if TYPE_CHECKING:
    from lps.model.detector import Detector
    from lps.model.svm import Svm

FORMAT = 1
"""Of the file; a reader refuses a newer one."""
NAME = re.compile(r"step-(\d{8})\.pt")

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a run is made of at one step."""

    stage: str
    """`encoder`, `pretrain`, `classify` or `distill`."""
    config: dict[str, Any]
    """The resolved configuration."""
    data: dict[str, Any]
    """Identity of the data: index sha256, split set, stamp, and how its clips were prepared."""
    network: State
    """Under reference names. The moving average of the weights where the run keeps one."""
    progress: dict[str, Any]
    """Step, epoch, position and best so far, as plain values."""
    training: dict[str, Any] = field(default_factory=dict)
    """Optimiser, schedule, random numbers, raw weights: only in checkpoints that a run can go on from."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Of the last validation."""
    code: dict[str, Any] = field(default_factory=dict)
    """Versions and commit; filled in when it is written."""
    extra: State = field(default_factory=dict)
    """Further tensors, such as those of a support vector machine."""


@cache
def code_version() -> dict[str, Any]:
    """Return versions of this package and of torch, and the commit where it runs from a checkout."""
    import subprocess

    found: dict[str, Any] = {"lps-prep": version("lps-prep"), "torch": str(torch.__version__)}
    here = Path(__file__).resolve().parents[1]
    if (here / ".git").exists():
        try:
            ask = ["git", "-C", str(here)]
            run = subprocess.run
            head = run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
            dirty = run([*ask, "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
        except (OSError, subprocess.SubprocessError):
            return found
        found |= {"commit": head.stdout.strip(), "modified": bool(dirty.stdout.strip())}
    return found


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a file that is there completely or not at all. Raises UnreadableError where it cannot be written."""
    values = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)}
    values["code"] = checkpoint.code or code_version()
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
            temporary = Path(file.name)
            torch.save({"format": FORMAT, **values}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as e:  # torch reports a full disk as RuntimeError
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise UnreadableError(
            f"cannot write {path}: {_first_line(e)}; make room and run the same command again, it goes on from the "
            "last checkpoint"
        ) from e


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of this package to the CPU.

    Raises UnreadableError if it is not there or not a checkpoint, IntegrityError if it is damaged.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as e:
        raise UnreadableError(f"cannot read checkpoint {path}: {e.strerror or e}") from e
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as e:
        raise IntegrityError(f"{path} is not a whole checkpoint: {_first_line(e)}; copy it again") from e
    names = {f.name for f in fields(Checkpoint)}
    if not isinstance(values, Mapping) or "format" not in values:
        raise UnreadableError(
            f"{path} is not a checkpoint of lps-train; published weights load by lps.model.load_reference"
        )
    if values["format"] > FORMAT:
        raise UnreadableError(
            f"{path} has format {values['format']}, this version reads up to {FORMAT}; update lps-prep"
        )
    missing = names - set(values)
    if missing:
        raise IntegrityError(f"{path} lacks {', '.join(sorted(missing))}")
    return Checkpoint(**{name: values[name] for name in names})


def _first_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex. Raises UnreadableError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise UnreadableError(f"cannot read {path}: {e.strerror or e}") from e


# ---- the folder of a run ---------------------------------------------------------------------------------------------


def step_path(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return folder / f"step-{step:08d}.pt"


def step_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of steps in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))


def prune(folder: Path, n_kept: int) -> None:
    """Delete all but the last `n_kept` checkpoints of steps, and what a killed writer left behind."""
    for path in [*step_checkpoints(folder)[:-n_kept], *folder.glob(".writing-*")]:
        path.unlink(missing_ok=True)


# ---- detectors -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedDetector:
    """A detector ready to judge, and where it comes from."""

    network: "Detector"
    """In evaluation mode, on the CPU."""
    image_px: int
    n_frames: int
    """Frames of a clip that it sees."""
    sha256: str
    """Of the checkpoint file, in hex."""
    stage: str
    config: dict[str, Any]
    data: dict[str, Any]
    """Identity of the data that it learnt from; `prep` has the parameters of preparation where they are known."""
    svm: "Svm | None" = None
    """LPS_c: judges the contexts in place of the network's own head."""


def load_detector(path: Path) -> LoadedDetector:
    """Load the detector of a checkpoint of `classify` or `distill`.

    Raises RefusedError for another stage, and as `read_checkpoint` does.
    """
    from lps.model.detector import Detector
    from lps.model.presets import preset_from_record
    from lps.model.svm import svm_from_state

    found = read_checkpoint(path)
    if found.stage not in ("classify", "distill"):
        raise RefusedError(
            f"{path} is of stage '{found.stage}', which has no detector; give one of classify or distill"
        )
    preset = preset_from_record(found.config["preset"])
    network = Detector(preset.net, preset.head)
    try:
        network.load_state_dict(found.network)
    except RuntimeError as e:
        raise IntegrityError(f"{path} does not hold the network that it says: {_first_line(e)}") from e
    return LoadedDetector(
        network=network.eval(),
        image_px=preset.image_px,
        n_frames=preset.n_frames,
        sha256=file_sha256(path),
        stage=found.stage,
        config=found.config,
        data=found.data,
        svm=svm_from_state(found.extra) if found.extra else None,
    )
