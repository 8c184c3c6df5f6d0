"""What the face networks cost on a CPU with each runtime, and how far their landmarks are from those of torch.

    python benchmarks/runtimes.py                                    the sample videos of lps-prep demo
    python benchmarks/runtimes.py --media DIR --weights-dir DIR      videos of one person each, named man_* and woman_*

Images are what lps-prep shows its localizer: crops around a known face, and whole frames. Every row is a process of its
own with one thread; times are of CPU, the least of many calls. `load` is from the weights in memory to the first crop
and the first whole frame done, the import of the runtime included, that of torch aside. Around the networks all
runtimes have the code of lps-prep; `facenet-pytorch` is that package's cascade, of its nets in torch. Runtimes that are
not installed are left out: `pip install openvino` adds one.
"""

import argparse
import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import media  # type: ignore[import-not-found]  # beside this file
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import Params
from lps.pipeline.faces import onnx_graphs, onnx_session
from lps.pipeline.faces.detector import CROP_MIN_FACE_SHARE, Faces, Localizer, rounded_faces
from lps.pipeline.faces.localizers import load_localizer
from lps.pipeline.faces.mtcnn import FACTOR, THRESHOLDS, WHOLE_MIN_FACE_PX
from lps.pipeline.faces.onnx_graphs import State
from lps.pipeline.faces.onnx_session import Array, RunNet
from lps.pipeline.faces.retinaface_torch import empty_network, folded, pyramid

NAMES = ("man_*", "woman_*")
NEEDS = {
    "torch": "torch", "torch.compile": "torch", "facenet-pytorch": "facenet_pytorch", "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}  # fmt: skip
"""The package of each runtime. The first one is what others are compared with."""
OPENVINO = {
    "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"
}  # fmt: skip
BATCHES = (1, 2, 4, 8)
N_CROPS, N_WHOLE = 32, 8
SECONDS = 0.2
"""Wall time for which a call is repeated, five times at least."""

Images = NDArray[np.uint8]
INPUTS: dict[str, dict[str, tuple[str, tuple[int, int]]]] = {
    "retinaface-mobilenet": {"2 levels, crop": ("2 levels", (320, 320)), "3 levels, frame": ("3 levels", (384, 640))},
    "mtcnn": {
        "pnet, crop": ("pnet", (41, 41)), "pnet, frame": ("pnet", (231, 385)), "rnet": ("rnet", (24, 24)),
        "onet": ("onet", (48, 48)),
    },
}  # fmt: skip
"""The networks of each localizer alone, and the height and width of an input: PNet's are the largest of its scales."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one process found."""

    load_s: float
    crop_ms: float
    whole_ms: float
    """Of the whole localizer, an image."""
    nets_ms: dict[str, list[float]]
    """Of each network alone, an input, at each batch size that was taken."""
    faces: list[Faces]
    """Of the crops."""


# ---- images ----------------------------------------------------------------------------------------------------------


def seen_images(paths: Sequence[Path], localizer: str, weights_dir: Path | None) -> tuple[Images, Images]:
    """Return crops and whole frames, of one shape each, that the localizer is asked about, in turns over the videos."""
    net = load_localizer(localizer, weights_dir=weights_dir, device="cpu", batch_size=1)
    crops: list[list[Images]] = []
    wholes: list[list[Images]] = []

    def detect(images: Images, *, dense: bool) -> list[Faces]:
        (crops if dense else wholes)[-1].extend(images)
        return net.detect(images, dense=dense)

    for path in paths:
        crops.append([])
        wholes.append([])
        process_video(path, b"0" * 16, detect, Params(localizer=localizer))
    shapes = [whole.shape for video in wholes for whole in video]
    shape = max(set(shapes), key=lambda each: (shapes.count(each), each))
    wholes = [[whole for whole in video if whole.shape == shape] for video in wholes]
    return np.stack(in_turns(crops)[:N_CROPS]), np.stack(in_turns(wholes)[:N_WHOLE])


def in_turns(lists: Sequence[Sequence[Images]]) -> list[Images]:
    """Return the first of every list, the second of every list, and so on."""
    return [each[k] for k in range(max(map(len, lists))) for each in lists if k < len(each)]


# ---- runtimes --------------------------------------------------------------------------------------------------------


def openvino_session(graph: bytes) -> RunNet:
    """Return what runs a graph with OpenVINO, compiled for every shape of one image and for any batch of candidates."""
    import openvino  # type: ignore[import-not-found,unused-ignore]

    compiled: dict[Any, Any] = {}

    def run(pixels: Array) -> list[Array]:
        small = pixels.shape[2] <= 48 and pixels.shape[2] % 24 == 0
        shape = [-1, *pixels.shape[1:]] if small else list(pixels.shape)
        if (key := tuple(shape)) not in compiled:
            core = openvino.Core()
            model = core.read_model(graph, b"")
            model.reshape(shape)
            compiled[key] = core.compile_model(model, "CPU", OPENVINO).create_infer_request()
        request = compiled[key]
        request.infer([pixels], share_inputs=True)
        return [np.array(output.data) for output in request.output_tensors]

    return run


class Pyramid(nn.Module):
    """RetinaFace with the outputs of its graph."""

    def __init__(self, state: dict[str, Tensor], levels: int) -> None:
        super().__init__()
        net = empty_network("mobilenet")
        net.load_state_dict(state, assign=True)
        self.net, self.levels = folded(net.eval()), levels

    def forward(self, pixels: Tensor) -> Tensor:
        boxes, logits, points = pyramid(self.net, pixels, self.levels)
        return torch.cat([logits, boxes, points], dim=2)


def torch_session(net: nn.Module, *, compiled: bool) -> RunNet:
    """Return what runs a network in torch, channels innermost. Of several outputs the last one comes first."""
    net = net.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
    forward: Any = torch.compile(net) if compiled else net

    def run(pixels: Array) -> list[Array]:
        with torch.inference_mode():
            found = forward(torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last))
        *others, first = found if isinstance(found, tuple) else (found,)
        return [output.numpy() for output in (first, *others)]

    return run


def use_torch(*, compiled: bool) -> None:
    """Let lps-prep have networks in torch where it asks for graphs and sessions."""
    from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

    def retinaface(state: State, levels: int) -> Any:
        return Pyramid({name: torch.from_numpy(value) for name, value in state.items()}, levels)

    def cascade(name: str, state: State) -> Any:
        net = {"pnet": PNet, "rnet": RNet, "onet": ONet}[name](pretrained=False)
        net.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
        return net

    changed, session = cast("Any", onnx_graphs), cast("Any", onnx_session)
    changed.retinaface_graph, changed.mtcnn_graph = retinaface, cascade
    session.cpu_session = lambda net: torch_session(net, compiled=compiled)


class FacenetCascade:
    """MTCNN as facenet-pytorch has it."""

    def __init__(self) -> None:
        from facenet_pytorch import MTCNN

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its torch.load call predates weights_only
            self._net = MTCNN(keep_all=True, device="cpu").eval().to(memory_format=torch.channels_last)

    def detect(self, images: Images, *, dense: bool) -> list[Faces]:
        """Find the faces of (B, H, W, 3) RGB images."""
        from facenet_pytorch.models.utils.detect_face import detect_face

        side = CROP_MIN_FACE_SHARE * min(images.shape[1:3]) if dense else WHOLE_MIN_FACE_PX
        nets, result = (self._net.pnet, self._net.rnet, self._net.onet), []
        for image in images:
            with torch.inference_mode():
                boxes, points = detect_face(image, side, *nets, THRESHOLDS, FACTOR, torch.device("cpu"))
            found = np.asarray(boxes[0], np.float64).reshape(-1, 5)
            result.append(rounded_faces(found[:, :4], found[:, 4], np.asarray(points[0], np.float64).reshape(-1, 5, 2)))
        return result


# ---- one process -----------------------------------------------------------------------------------------------------


def least_ms(call: Callable[[], object]) -> float:
    """Return the least CPU time of a call, ms."""
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 5:
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times) * 1e3


def measure(localizer: str, runtime: str, weights_dir: Path | None, images: tuple[Images, Images]) -> Measured:
    """Load the localizer with a runtime and take times. Changes what this process loads."""
    torch.set_num_threads(1)
    crops, wholes = images
    start = time.process_time()
    nets: list[RunNet] = []
    if runtime.startswith("torch"):
        use_torch(compiled=runtime == "torch.compile")
    elif runtime == "openvino":
        onnx_session.cpu_session = openvino_session
    session = onnx_session.cpu_session
    onnx_session.cpu_session = lambda graph: nets.append(session(graph)) or nets[-1]  # type: ignore[func-returns-value]
    net: Localizer = (
        FacenetCascade()
        if runtime == "facenet-pytorch"
        else load_localizer(localizer, weights_dir=weights_dir, device="cpu", batch_size=1)
    )
    net.detect(crops[:1], dense=True)
    net.detect(wholes[:1], dense=False)
    load_s = time.process_time() - start
    names = ("pnet", "rnet", "onet") if localizer == "mtcnn" else ("2 levels", "3 levels")
    runs = dict(zip(names, nets, strict=True)) if nets else {}
    random = np.random.default_rng(0)
    nets_ms: dict[str, list[float]] = {}
    for what, (name, sides) in INPUTS[localizer].items() if runs else ():
        for n in BATCHES if runtime != "torch.compile" else BATCHES[:1]:  # each is compiled for 7 s
            pixels = random.normal(0, 0.5, (n, 3, *sides)).astype(np.float32)
            runs[name](pixels)
            nets_ms.setdefault(what, []).append(least_ms(lambda run=runs[name], x=pixels: run(x)) / n)  # type: ignore[misc]
    by_crop = [least_ms(lambda image=image: net.detect(image[None], dense=True)) for image in crops[:8]]  # type: ignore[misc]
    by_frame = [least_ms(lambda image=image: net.detect(image[None], dense=False)) for image in wholes[:4]]  # type: ignore[misc]
    return Measured(
        load_s=load_s, crop_ms=float(np.mean(by_crop)), whole_ms=float(np.mean(by_frame)),
        nets_ms=nets_ms, faces=net.detect(crops, dense=True),
    )  # fmt: skip


def in_a_process(*case: Any) -> Measured:
    """Call `measure` in a new process."""
    with tempfile.TemporaryDirectory(prefix="lps-runtimes-") as folder:
        path = Path(folder) / "case"
        path.write_bytes(pickle.dumps(case))
        code = (
            "import pickle, sys; sys.path.insert(0, sys.argv[2]); from runtimes import measure; p = sys.argv[1];"
            "found = measure(*pickle.load(open(p, 'rb'))); pickle.dump(found, open(p, 'wb'))"
        )
        subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(path), str(Path(__file__).parent)], check=True)
        found: Measured = pickle.loads(path.read_bytes())
        return found


# ---- tables ----------------------------------------------------------------------------------------------------------


def distance(found: list[Faces], reference: list[Faces]) -> tuple[str, str]:
    """Return mean and maximum of the landmarks' distances, px of the crop, where both have as many faces."""
    pairs = [(one, other) for one, other in zip(found, reference, strict=True) if len(one) == len(other)]
    misses = np.concatenate([np.hypot(*np.moveaxis(one.points - other.points, 2, 0)).ravel() for one, other in pairs])
    others = f", {len(found) - len(pairs)} crops with more or fewer faces" if len(pairs) < len(found) else ""
    return f"{misses.mean():.4f}", f"{misses.max():.3f}{others}"


def show(localizer: str, paths: Sequence[Path], weights_dir: Path | None, runtimes: Sequence[str]) -> None:
    """Print the two tables of a localizer."""
    images = seen_images(paths, localizer, weights_dir)
    shape = "x".join(map(str, images[1].shape[2:0:-1]))
    title = f"{localizer}: {len(images[0])} crops, frames of {shape}, load {os.getloadavg()[0]:.1f} at the start"
    table = Table("runtime", "load, CPU s", "ms a crop", "ms a frame", "landmarks, mean px", "max px", title=title)
    nets = Table("network", "runtime", *(f"batch {n}" for n in BATCHES), title=f"{localizer}: ms an input")
    measured = {name: in_a_process(localizer, name, weights_dir, images) for name in runtimes}
    reference = measured[next(iter(NEEDS))]
    for name, found in measured.items():
        table.add_row(
            name, f"{found.load_s:.2f}", f"{found.crop_ms:.2f}", f"{found.whole_ms:.1f}",
            *(distance(found.faces, reference.faces) if found is not reference else ("", "")),
        )  # fmt: skip
    for what in INPUTS[localizer]:
        for name, found in measured.items():
            if what in found.nets_ms:
                nets.add_row(what, name, *(f"{ms:.3g}" for ms in found.nets_ms[what]))
    for each in (table, nets):
        Console(width=120).print(each)


def main() -> None:
    """Measure every runtime with each localizer and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    media.add_media_options(parser)
    parser.add_argument("--runtimes", nargs="+", choices=list(NEEDS), default=list(NEEDS))
    parser.add_argument("--limit", type=int, help="only so many videos")
    args = parser.parse_args()
    here = [name for name in NEEDS if name in (*args.runtimes, "torch") and importlib.util.find_spec(NEEDS[name])]
    if missing := [name for name in args.runtimes if name not in here]:
        print(f"not installed, left out: {', '.join(missing)}", file=sys.stderr)
    with media.videos(args.media, NAMES) as paths:
        for localizer in media.usable(args.localizers, args.weights_dir):
            # the nets of mtcnn would be compiled anew for every scale and number of candidates
            own = [name for name in here if name != ("torch.compile" if localizer == "mtcnn" else "facenet-pytorch")]
            show(localizer, paths[: args.limit], args.weights_dir, own)


if __name__ == "__main__":
    main()
