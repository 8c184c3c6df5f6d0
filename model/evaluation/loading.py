"""Load the detector of a checkpoint, ready to score."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lps.manifests.errors import IntegrityError, RefusedError, first_line
from lps.manifests.splits.learnt import Learnt
from lps.model.networks.mesonet import AnyDetector, build_detector
from lps.model.networks.svm import Svm, svm_from_state
from lps.model.training.checkpoint import file_sha256, learnt_of, preset_of, read_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedDetector:
    """A detector ready to score clips, and where it comes from."""

    network: AnyDetector
    """In evaluation mode, on the CPU."""
    image_px: int
    margin: float = 1.0
    """Side of the square that it sees, in sides of the aligned face."""
    n_frames: int
    """Number of frames of a clip that it sees."""
    sha256: str
    """Digest of the checkpoint file, in hex."""
    stage: str
    config: dict[str, Any]
    data: dict[str, Any]
    """Identity of the data that it learnt from; `prep` has the parameters of preparation where they are known."""
    learnt: Learnt | None = None
    """The videos and clips that it learnt from; None where the checkpoint does not say."""
    svm: Svm | None = None
    """LPS_c: scores the contexts in place of the network's own head."""


def load_detector(path: Path | str) -> LoadedDetector:
    """Load the detector of a checkpoint of `classify` or `distill`.

    Raises RefusedError for another stage, and as `read_checkpoint` does.
    """
    path = Path(path)
    found = read_checkpoint(path)
    if found.stage not in ("classify", "distill"):
        raise RefusedError(
            f"{path} is of stage '{found.stage}', which has no detector; give one of classify or distill"
        )
    preset = preset_of(found, path)
    try:
        network = build_detector(preset.net, preset.head, preset.image_px)
        network.load_state_dict(found.network)
        svm = svm_from_state(found.extra) if found.extra else None
    except (RuntimeError, ValueError, KeyError) as e:
        raise IntegrityError(f"{path} does not hold the network that it says: {first_line(e)}") from e
    return LoadedDetector(
        network=network.eval(),
        image_px=preset.image_px,
        margin=preset.data.margin,
        n_frames=preset.n_frames,
        sha256=file_sha256(path),
        stage=found.stage,
        config=found.config,
        data=found.data,
        learnt=learnt_of(found, path),
        svm=svm,
    )
