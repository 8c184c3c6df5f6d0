"""The localizers by name. Importing this module loads neither torch nor OpenCV."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lps.manifests.errors import NotInstalledError
from lps.manifests.names import LOCALIZERS
from lps.pipeline.faces.detector import Localizer
from lps.pipeline.faces.weights import LOCALIZER_WEIGHTS, as_arrays, find_weight, load_state, verify_weight

if TYPE_CHECKING:
    from torch import Tensor

GPU_BATCH = 32
CPU_BATCH = 1
"""On a CPU larger batches are no faster per image, and padding them is wasted work."""
FACE_ALIGNMENT = "face-alignment>=1.5,<2"
"""What pip is told; below 2 since its weight files are known by digest."""


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
    graphs: tuple[bytes, ...] = ()
    """What `onnx_networks` gives, so that a process neither reads the weights nor loads torch for that; else empty."""

    def load(self) -> Localizer:
        """Return it with its weights. Raises as `load_localizer` does."""
        if self.graphs:
            return _OF_GRAPHS[self.name](self.graphs)
        return load_localizer(self.name, weights_dir=self.weights_dir, device=self.device, batch_size=self.batch_size)


@lru_cache(maxsize=1)
def own_localizer(spec: LocalizerSpec) -> Localizer:
    """Return the localizer of this process, loaded at the first call and kept for the videos to come; one thread."""
    if not spec.graphs:
        import torch

        torch.set_num_threads(1)
    return spec.load()


def load_localizer(name: str, *, weights_dir: Path | None, device: str, batch_size: int) -> Localizer:
    """Return the localizer called `name` with its weights on `device` ("cpu", "cuda", "cuda:1").

    `batch_size` is the number of images per pass of the network, and of faces per pass of the landmark network; mtcnn
    runs one image at a time. Raises UnreadableError for a missing weight file, IntegrityError for a wrong one,
    NotInstalledError where its package is missing, ValueError for an unknown name.
    """
    require_usable(name)
    paths = [find_weight(weight, weights_dir) for weight in LOCALIZER_WEIGHTS[name]]
    return _LOADERS[name](paths, device, batch_size)


def onnx_networks(spec: LocalizerSpec) -> tuple[bytes, ...]:
    """Return the networks of a localizer as ONNX, if it runs on ONNX Runtime; else nothing.

    Raises as `load_localizer` does.
    """
    if spec.device != "cpu" or spec.name not in _GRAPHS:
        return ()
    paths = [find_weight(weight, spec.weights_dir) for weight in LOCALIZER_WEIGHTS[spec.name]]
    return _GRAPHS[spec.name]([load_state(path) for path in paths])


def weight_digests(name: str, weights_dir: Path | None) -> dict[str, str]:
    """Return the sha256 of every weight file of the localizer called `name`, by the weight's name.

    Raises as `load_localizer` does.
    """
    require_usable(name)
    return {weight.name: verify_weight(weight, weights_dir).sha256 for weight in LOCALIZER_WEIGHTS[name]}


def require_usable(name: str) -> None:
    """Raise ValueError for an unknown localizer, NotInstalledError where its package is missing; weights may be."""
    if name not in LOCALIZERS:
        raise ValueError(f"unknown localizer '{name}'; known ones: {', '.join(LOCALIZERS)}")
    if name == "retinaface-fan" and find_spec("face_alignment") is None:
        raise NotInstalledError(
            "the localizer retinaface-fan needs face-alignment, which no extra has since it asks for a second OpenCV: "
            f"pip install --no-deps '{FACE_ALIGNMENT}'"
        )


def _load_fan(paths: list[Path], device: str, batch_size: int) -> Localizer:
    from lps.pipeline.faces.fan import FanLocalizer, fan_network
    from lps.pipeline.faces.retinaface import RetinaFaceLocalizer
    from lps.pipeline.faces.retinaface_torch import TorchRetinaFace

    network = TorchRetinaFace("resnet50", load_state(paths[0]), device, batch_size)
    return FanLocalizer(RetinaFaceLocalizer(network), fan_network(load_state(paths[1])), device, batch_size)


def _load_mobilenet(paths: list[Path], device: str, batch_size: int) -> Localizer:
    states = [load_state(path) for path in paths]
    if device == "cpu":
        return _mobilenet_of_graphs(_mobilenet_graphs(states))
    from lps.pipeline.faces.retinaface import RetinaFaceLocalizer
    from lps.pipeline.faces.retinaface_torch import TorchRetinaFace

    return RetinaFaceLocalizer(TorchRetinaFace("mobilenet", states[0], device, batch_size))


def _load_mtcnn(paths: list[Path], device: str, batch_size: int) -> Localizer:
    states = [load_state(path) for path in paths]
    if device == "cpu":
        return _mtcnn_of_graphs(_mtcnn_graphs(states))
    from lps.pipeline.faces.mtcnn import NETS, MtcnnLocalizer, torch_nets

    return MtcnnLocalizer(torch_nets(dict(zip(NETS, states, strict=True)), device))


def _mobilenet_graphs(states: "list[dict[str, Tensor]]") -> tuple[bytes, ...]:
    from lps.pipeline.faces.onnx_graphs import retinaface_graph
    from lps.pipeline.faces.retinaface import LEVELS

    return tuple(retinaface_graph(as_arrays(states[0]), levels) for levels in LEVELS)


def _mobilenet_of_graphs(graphs: tuple[bytes, ...]) -> Localizer:
    from lps.pipeline.faces.retinaface import OnnxRetinaFace, RetinaFaceLocalizer

    return RetinaFaceLocalizer(OnnxRetinaFace(graphs))


def _mtcnn_graphs(states: "list[dict[str, Tensor]]") -> tuple[bytes, ...]:
    from lps.pipeline.faces.mtcnn import NETS
    from lps.pipeline.faces.onnx_graphs import mtcnn_graph

    return tuple(mtcnn_graph(name, as_arrays(state)) for name, state in zip(NETS, states, strict=True))


def _mtcnn_of_graphs(graphs: tuple[bytes, ...]) -> Localizer:
    from lps.pipeline.faces.mtcnn import MtcnnLocalizer, onnx_nets

    return MtcnnLocalizer(onnx_nets(graphs))


_LOADERS: dict[str, Callable[[list[Path], str, int], Localizer]] = {
    "retinaface-fan": _load_fan,
    "retinaface-mobilenet": _load_mobilenet,
    "mtcnn": _load_mtcnn,
}
"""Each takes the localizer's verified weight files, in the order of LOCALIZER_WEIGHTS."""
_GRAPHS: "dict[str, Callable[[list[dict[str, Tensor]]], tuple[bytes, ...]]]" = {
    "retinaface-mobilenet": _mobilenet_graphs,
    "mtcnn": _mtcnn_graphs,
}
_OF_GRAPHS: dict[str, Callable[[tuple[bytes, ...]], Localizer]] = {
    "retinaface-mobilenet": _mobilenet_of_graphs,
    "mtcnn": _mtcnn_of_graphs,
}
