"""The localizers by name. Importing this module loads neither torch nor OpenCV."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lps.manifests.names import LOCALIZERS
from lps.pipeline.faces.detector import Localizer
from lps.pipeline.faces.weights import LOCALIZER_WEIGHTS, find_weight, load_state, verify_weight

GPU_BATCH = 32
CPU_BATCH = 1
"""On a CPU larger batches are no faster per image, and padding them is wasted work."""


def batch_size_on(device: str) -> int:
    """Return the images per pass of a localizer on `device`."""
    return GPU_BATCH if device.startswith("cuda") else CPU_BATCH


@dataclass(frozen=True, slots=True)
class LocalizerSpec:
    """Which localizer to load, wherever that happens."""

    name: str
    weights_dir: Path | None
    device: str
    batch_size: int

    def load(self) -> Localizer:
        """Return it with its weights. Raises as `load_localizer` does."""
        return load_localizer(self.name, weights_dir=self.weights_dir, device=self.device, batch_size=self.batch_size)


@lru_cache(maxsize=1)
def own_localizer(spec: LocalizerSpec) -> Localizer:
    """Return the localizer of this process, loaded at the first call and kept for the videos to come; one thread."""
    import torch

    torch.set_num_threads(1)
    return spec.load()


def load_localizer(name: str, *, weights_dir: Path | None, device: str, batch_size: int) -> Localizer:
    """Return the localizer called `name` with its weights on `device` ("cpu", "cuda", "cuda:1").

    `batch_size` is the number of images per pass of the network, and of faces per pass of the landmark network; mtcnn
    runs one image at a time. Raises UnreadableError for a missing weight file, IntegrityError for a wrong one,
    ValueError for an unknown name.
    """
    _require_known(name)
    paths = [find_weight(weight, weights_dir) for weight in LOCALIZER_WEIGHTS[name]]
    return _LOADERS[name](paths, device, batch_size)


def weight_digests(name: str, weights_dir: Path | None) -> dict[str, str]:
    """Return the sha256 of every weight file of the localizer called `name`, by the weight's name.

    Raises as `load_localizer` does.
    """
    _require_known(name)
    return {weight.name: verify_weight(weight, weights_dir).sha256 for weight in LOCALIZER_WEIGHTS[name]}


def _require_known(name: str) -> None:
    if name not in LOCALIZERS:
        raise ValueError(f"unknown localizer '{name}'; known ones: {', '.join(LOCALIZERS)}")


def _load_fan(paths: list[Path], device: str, batch_size: int) -> Localizer:
    from lps.pipeline.faces.fan import FanLocalizer, fan_network
    from lps.pipeline.faces.retinaface import RetinaFaceLocalizer

    detector = RetinaFaceLocalizer("resnet50", load_state(paths[0]), device, batch_size)
    return FanLocalizer(detector, fan_network(load_state(paths[1])), device, batch_size)


def _load_mobilenet(paths: list[Path], device: str, batch_size: int) -> Localizer:
    from lps.pipeline.faces.retinaface import RetinaFaceLocalizer

    return RetinaFaceLocalizer("mobilenet", load_state(paths[0]), device, batch_size)


def _load_mtcnn(paths: list[Path], device: str, batch_size: int) -> Localizer:
    from lps.pipeline.faces.mtcnn import NETS, MtcnnLocalizer

    return MtcnnLocalizer(dict(zip(NETS, map(load_state, paths), strict=True)), device)


_LOADERS: dict[str, Callable[[list[Path], str, int], Localizer]] = {
    "retinaface-fan": _load_fan,
    "retinaface-mobilenet": _load_mobilenet,
    "mtcnn": _load_mtcnn,
}
"""Each takes the localizer's verified weight files, in the order of LOCALIZER_WEIGHTS."""
