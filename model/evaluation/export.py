"""Export a detector as one file that runs without this package: `.pt2` for PyTorch, `.onnx` for anything else.

    torch.export.load("detector.pt2").module()(clips)
    onnxruntime.InferenceSession("detector.onnx").run(["logits"], {"clips": clips.numpy()})

Both take `clips` (B, N, 3, T, H, W), float32, RGB / 255 less the mean by the standard deviation of `FACTS`, for any B;
the other sizes are those of training. Both return `logits` (B, 2), real first. What else a user of the file must know
stands inside it as JSON: in a `.pt2` as the extra file `lps.json`, in an `.onnx` as the metadata entry `lps`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import Dim, ExportedProgram

from lps.manifests.environment import write_atomically
from lps.manifests.errors import IntegrityError, RefusedError, UnreadableError
from lps.model.data.frames import IMAGENET_MEAN, IMAGENET_STD
from lps.model.evaluation.loading import LoadedDetector
from lps.model.networks.mesonet import AnyDetector

FACTS: Mapping[str, Any] = {
    "layout": "clips, blocks, RGB, frames of a block, height, width",
    "scale": "value / 255",
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "outputs": ["real", "fake"],
}
TOLERANCE = 1e-4
"""Largest difference of a logit, beside the largest logit or 1: other kernels add up in another order."""
N_TRACED, N_CHECKED = 2, 3
"""Clips; two numbers, so that a file which holds for one batch size only is found out. A 1 would be taken as fixed."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written and gave the network's own outputs."""

    path: Path
    n_bytes: int
    difference: float
    """Largest difference of a logit on random clips."""


def export_detector(detector: LoadedDetector, path: Path) -> Exported:
    """Write a detector to `path` in the format of its suffix, read it back and compare its outputs.

    Raises RefusedError for other suffixes and for support vector machines, UnreadableError if packages are missing or
    the file cannot be written, IntegrityError if its outputs are not the network's.
    """
    if path.suffix not in WRITERS:
        raise RefusedError(f"cannot export to {path.name}: the suffix must be one of {', '.join(WRITERS)}")
    if detector.svm is not None:
        raise RefusedError(
            "this checkpoint scores with a support vector machine, which cannot be exported; "
            "give the checkpoint of a detector with a linear head"
        )
    facts = {
        **FACTS,
        "n_blocks": detector.network.params.n_blocks,
        "block_frames": detector.network.params.block_frames,
        "image_px": detector.image_px,
        "margin": detector.margin,
        "checkpoint_sha256": detector.sha256,
        "stage": detector.stage,
    }
    return export_network(detector.network, detector.image_px, path, facts)


def export_network(network: AnyDetector, image_px: int, path: Path, facts: Mapping[str, Any] | None = None) -> Exported:
    """Export a network in evaluation mode on the CPU, as `export_detector` does."""
    if network.training:
        raise ValueError("a network is exported in evaluation mode")
    if path.suffix == ".onnx":
        _require_onnx()
    write, run = WRITERS[path.suffix]
    params = network.params
    shape = (params.n_blocks, 3, params.block_frames, image_px, image_px)
    rng = torch.Generator().manual_seed(0)
    clips = torch.randn((N_CHECKED, *shape), generator=rng)
    batch = Dim("batch", min=1)
    with torch.no_grad():
        wanted = network(clips).numpy()
        program = torch.export.export(network, (clips[:N_TRACED],), dynamic_shapes={"clips": {0: batch}})
        try:
            with write_atomically(path) as temporary:
                write(program, temporary, json.dumps(dict(facts or FACTS)))
                difference = float(np.abs(run(temporary, clips) - wanted).max())
                if not difference <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
                    raise IntegrityError(
                        f"the exported {path.name} is not the network: its logits differ by {difference}"
                    )
        except OSError as e:
            raise UnreadableError(f"cannot write {path}: {e.strerror or e}") from e
    return Exported(path, path.stat().st_size, difference)


def _write_torch(program: ExportedProgram, path: Path, facts: str) -> None:
    program.example_inputs = None  # the clips that it was traced with: 28 MB beside 1.3 MB of weights
    with path.open("wb") as file:  # of a path, torch wants another suffix than that of a temporary file
        torch.export.save(program, file, extra_files={"lps.json": facts})


def _run_torch(path: Path, clips: Tensor) -> NDArray[np.float32]:
    with path.open("rb") as file:
        program = torch.export.load(file)
    return np.asarray(program.module()(clips).detach().numpy(), np.float32)


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise UnreadableError(f"export to ONNX needs {e.name}: pip install 'lps-prep[export]'") from e


def _write_onnx(program: ExportedProgram, path: Path, facts: str) -> None:
    written = torch.onnx.export(
        program,
        dynamo=True,
        dynamic_shapes={"clips": {0: "batch"}},
        input_names=["clips"],
        output_names=["logits"],
        verbose=False,
    )
    assert written is not None  # mypy
    written.model.metadata_props["lps"] = facts
    written.save(path)


def _run_onnx(path: Path, clips: Tensor) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"clips": clips.numpy()})
    return np.asarray(logits, np.float32)


Writer = Callable[[ExportedProgram, Path, str], None]
Runner = Callable[[Path, Tensor], NDArray[np.float32]]
WRITERS: dict[str, tuple[Writer, Runner]] = {".onnx": (_write_onnx, _run_onnx), ".pt2": (_write_torch, _run_torch)}
