"""Batches per second of the localizers on a GPU, as the actors of lps-prep run them, by batch size and shape.

    python benchmarks/detectors.py --weights-dir DIR             on the first GPU; without one it says so and ends
    python benchmarks/detectors.py --device cpu --smoke          that it runs at all

Crops are those in which a known face is found again (with its landmarks), frames those in which faces are looked for:
`Localizer.detect` from pixels in memory to faces in memory, preparing and sorting on the CPU included, by one thread as
in an actor. Every image shows one face. Where weights are missing, the networks have random ones and the box of the
face is told to the landmark network: the same operations, but for the few boxes that real weights would sort.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from face_alignment.models import FAN
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lps.manifests.errors import UnreadableError
from lps.pipeline.config.params import LocalizeParams
from lps.pipeline.faces.anchors import Backbone, FindCandidates
from lps.pipeline.faces.detector import Faces, Localizer
from lps.pipeline.faces.fan import HOURGLASSES, FanLocalizer, fan_network
from lps.pipeline.faces.localizers import load_localizer
from lps.pipeline.faces.onnx_graphs import retinaface_graph
from lps.pipeline.faces.retinaface import LEVELS, OnnxRetinaFace, RetinaFaceLocalizer
from lps.pipeline.faces.retinaface_torch import TorchRetinaFace, empty_network
from lps.pipeline.faces.weights import as_arrays
from lps.pipeline.tools.demo_faces import load_portrait

LOCALIZERS = ("retinaface-mobilenet", "retinaface-fan")
BATCH_SIZES = (1, 8, 32, 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Images of one kind."""

    name: str
    height: int
    width: int
    dense: bool
    """Asked with landmarks."""


SHAPES = (
    Shape(name="crops", height=LocalizeParams().crop_px, width=LocalizeParams().crop_px, dense=True),
    Shape(name="frames", height=384, width=LocalizeParams().detect_side_px, dense=False),
)
"""Frames: 16:9 at the side where faces are looked for, filled up to multiples of 32."""


class Told:
    """A detector that runs its network and then says what it was told."""

    def __init__(self, detector: Localizer) -> None:
        self.detector = detector

    def detect(self, images: NDArray[np.uint8], *, dense: bool) -> list[Faces]:
        """Return the face of `face_image` in each image."""
        self.detector.detect(images, dense=dense)
        _, box = face_image(*images.shape[1:3])
        points = np.linspace(box[:2], box[2:], 5)
        return [Faces(box[None], np.ones(1), points[None]) for _ in images]


def face_image(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return a picture, (height, width, 3), of a face in its middle, and the face's box."""
    portrait = load_portrait("astronaut")
    whole = np.pad(portrait.rgba[..., :3], ((512, 512), (512, 512), (0, 0)), mode="edge")
    x, y = (portrait.face_centre + 512).astype(int)
    left, top = x - width // 2, y - height // 2
    corners = np.concatenate([portrait.face.min(axis=0), portrait.face.max(axis=0)])
    return whole[top : top + height, left : left + width], corners + 512 - np.array([left, top, left, top])


def random_state(net: nn.Module) -> dict[str, Tensor]:
    """Return weights for `net` that keep activations near unit size; norms that change nothing."""

    def drawn(name: str, tensor: Tensor) -> Tensor:
        if tensor.ndim < 2:
            zero = tensor.ndim == 0 or name.endswith(("bias", "running_mean"))
            return torch.full(tensor.shape, 0.0 if zero else 1.0, dtype=tensor.dtype)
        return torch.randn(tensor.shape).div(tensor[0].numel() ** 0.5)

    torch.manual_seed(0)
    return {name: drawn(name, tensor) for name, tensor in net.state_dict().items()}


def without_weights(name: str, device: str, batch_size: int) -> Localizer:
    """Return the localizer with random weights."""
    backbone: Backbone = "resnet50" if name == "retinaface-fan" else "mobilenet"
    state = random_state(empty_network(backbone))
    network: FindCandidates
    if backbone == "mobilenet" and device == "cpu":
        network = OnnxRetinaFace([retinaface_graph(as_arrays(state), levels) for levels in LEVELS])
    else:
        network = TorchRetinaFace(backbone, state, device, batch_size)
    told = Told(RetinaFaceLocalizer(network, min_score=1.0))
    if name != "retinaface-fan":
        return told
    return FanLocalizer(told, fan_network(random_state(FAN(HOURGLASSES))), device, batch_size)


def loaded(name: str, weights_dir: Path | None, device: str, batch_size: int) -> tuple[Localizer, str]:
    """Return the localizer, and which weights it has."""
    try:
        return load_localizer(name, weights_dir=weights_dir, device=device, batch_size=batch_size), "published"
    except UnreadableError:
        return without_weights(name, device, batch_size), "random"


def calls_per_second(call: Callable[[], Any], seconds: float) -> float:
    """Call once, and then again and again for at least so long; the first call does not count."""
    call()
    started, passed, n = time.perf_counter(), 0.0, 0
    while not n or passed < seconds:
        call()
        passed, n = time.perf_counter() - started, n + 1
    return n / passed


def main() -> None:
    """Measure every localizer at every shape and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="default %(default)s")
    parser.add_argument("--weights-dir", type=Path, metavar="DIR", help="as of lps-prep")
    parser.add_argument("--localizers", nargs="+", choices=LOCALIZERS, default=LOCALIZERS)
    parser.add_argument("--batch", type=int, nargs="+", default=BATCH_SIZES, help="images a batch")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each number; default %(default)s")
    parser.add_argument("--smoke", action="store_true", help="batches of 1 and 2, one call each")
    args = parser.parse_args()
    on_gpu = args.device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        print("not run: there is no CUDA device here (--device cpu runs it on the CPU)")
        return
    torch.set_num_threads(1)
    batch_sizes, seconds = ((1, 2), 0.0) if args.smoke else (args.batch, args.seconds)
    device = torch.cuda.get_device_name() if on_gpu else f"1 of {os.cpu_count()} CPUs"
    table = Table("localizer", "weights", "images", "batch", "batches/s", "images/s", "GPU MiB", title=device)
    for name in args.localizers:
        for shape in SHAPES:
            image, _ = face_image(shape.height, shape.width)
            for batch_size in batch_sizes:
                localizer, weights = loaded(name, args.weights_dir, args.device, batch_size)
                images = np.stack([image] * batch_size)
                if on_gpu:
                    torch.cuda.reset_peak_memory_stats()
                rate = calls_per_second(lambda: localizer.detect(images, dense=shape.dense), seconds)  # noqa: B023
                peak = f"{torch.cuda.max_memory_allocated() / 2**20:,.0f}" if on_gpu else ""
                said = f"{shape.name} {shape.width}x{shape.height}"
                table.add_row(
                    name, weights, said, str(batch_size), f"{rate:.2f}", f"{rate * batch_size:,.1f}", peak
                )  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
