"""Face recognizers as plug-ins of Figures 1 and 2: a file in, the map of a network's last convolution out.

Two kinds of file, told apart by the suffix:

* `.onnx`: any network. Input (n, 3, H, W), float32, RGB, 0 to 255: it normalises for itself. Its first output of four
  dimensions, (n, C, h, w), is the map. An .onnx file is a graph of known operators, which the runtime only computes.
* anything else: weights of the FaceNet of the package facenet-pytorch, which publishes them.

Programs of TorchScript and torch.export are not taken: reading one can run what its author wrote (PyTorch unpickles
parts of a .pt2 without `weights_only`).
"""

import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lps.manifests.arrays import Floats, Pixels
from lps.manifests.errors import LpsError, RefusedError, UnreadableError, first_line
from lps.manifests.storage import refuse_compressed
from lps.model.training.checkpoint import file_sha256
from lps.model.training.processes import choose_device

MapsOfFrames = Callable[[Pixels], NDArray[np.float32]]
"""Frames (n, H, W, 3) RGB of side `image_px` -> feature maps (n, C, h, w)."""

INPUT_PX = 224
"""FaceNet's map is 5x5 for it, as in the paper, and 3x3 for the 160 px that it was trained with. Also the side for a
network that takes any."""
FACENET_FILE = "20180402-114759-vggface2.pt"
FACENET_URL = f"https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/{FACENET_FILE}"
HOW_TO_GET = f"fetch FaceNet's, {FACENET_URL}, and give it as --recognizer facenet={FACENET_FILE}"

UNREADABLE = (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, LookupError, TypeError)
"""What PyTorch and zipfile raise for bytes that are not what they should be."""


@dataclass(frozen=True, slots=True)
class Recognizer:
    """A network that was trained to tell people apart."""

    name: str
    sha256: str
    """Digest of its file, in hex."""
    image_px: int
    """Side of the frames that it takes."""
    run: MapsOfFrames

    def semantic_maps(self, frames: Pixels) -> Floats:
        """Return (n, h, w): the feature maps of frames (n, H, W, 3), averaged over channels, as the paper does.

        Raises LpsError for values that are not finite.
        """
        maps = self.run(frames).mean(axis=1, dtype=np.float64)
        if not np.isfinite(maps).all():
            raise LpsError(f"the feature maps of recognizer '{self.name}' are not finite; its weights are not usable")
        return np.asarray(maps, np.float64)


def open_recognizer(name: str, path: Path) -> Recognizer:
    """Open a recognizer. Nothing in the file is run but a graph of ONNX.

    Raises UnreadableError for a file that is missing, damaged or another network's, or where ONNX is not installed,
    RefusedError for a graph that takes or returns something else.
    """
    if not path.is_file():
        raise UnreadableError(f"no weights of recognizer '{name}' at {path}; {HOW_TO_GET}")
    image_px, run = _open_onnx(path) if path.suffix == ".onnx" else (INPUT_PX, _open_facenet(path))
    return Recognizer(name, file_sha256(path), image_px, run)


def _open_facenet(path: Path) -> MapsOfFrames:
    from facenet_pytorch import InceptionResnetV1

    network = InceptionResnetV1(pretrained=None)
    # The published files also hold the layer that names the people of the training set.
    state = {key: value for key, value in _read_state(path).items() if not key.startswith("logits.")}
    own = network.state_dict()
    wrong = sorted(k for k in own.keys() | state.keys() if k not in own or k not in state)
    wrong += sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if wrong:
        raise UnreadableError(f"{path} holds another network than FaceNet (see '{wrong[0]}'); {HOW_TO_GET}")
    network.load_state_dict(state)
    device = choose_device("auto")
    network.eval().requires_grad_(requires_grad=False).to(device)
    found: list[Tensor] = []
    network.block8.register_forward_hook(lambda module, inputs, output: found.append(output))

    def run(frames: Pixels) -> NDArray[np.float32]:
        found.clear()
        pixels = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            network((pixels - 127.5) / 128.0)  # as it was trained
        return np.asarray(found.pop().cpu().numpy(), np.float32)

    return run


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            refuse_compressed(file)
        if zipfile.is_zipfile(path):
            _check_zip(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as e:
        raise UnreadableError(f"cannot read {path}: {e.strerror or e}") from e
    except UNREADABLE as e:
        raise UnreadableError(
            f"{path} is not a readable file of weights; {HOW_TO_GET}, or give another network as --recognizer "
            "NAME=FILE.onnx: programs of TorchScript and torch.export are not run"
        ) from e
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UnreadableError(f"{path} holds more than weights by name; {HOW_TO_GET}")
    return state


def _check_zip(path: Path) -> None:
    """Raise ValueError for a program and for wrong checksums, which PyTorch does not look at."""
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("constants.pkl") for name in archive.namelist()):
            raise ValueError("a TorchScript archive, which carries code")
        if archive.testzip() is not None:
            raise ValueError("damaged")


def _open_onnx(path: Path) -> tuple[int, MapsOfFrames]:
    try:
        import onnxruntime
    except ImportError as e:
        raise UnreadableError(f"recognizers as ONNX need {e.name}: pip install 'lps-prep[export]'") from e
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it would warn of what it makes faster
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # noqa: BLE001  its own kinds of errors have no common root
        raise UnreadableError(f"{path} is not a readable ONNX file: {first_line(e)}") from e
    inputs, outputs = session.get_inputs(), [o.name for o in session.get_outputs() if len(o.shape or ()) == 4]
    shape = inputs[0].shape if len(inputs) == 1 else []
    sides = [side if isinstance(side, int) else INPUT_PX for side in shape[2:]]
    fits = len(shape) == 4 and inputs[0].type == "tensor(float)" and sides[0] == sides[1]
    if not fits or shape[1] not in (3, None) or (isinstance(shape[0], int) and shape[0] != 1):
        took = ", ".join(f"{each.type} {each.shape}" for each in inputs)
        raise RefusedError(f"{path} takes {took}; a recognizer takes float32 (1 or any, 3, H, H)")
    if not outputs:
        raise RefusedError(f"{path} returns no map (n, C, h, w); export the network up to its last convolution")

    def run(frames: Pixels) -> NDArray[np.float32]:
        # one at a time: an exported graph is often fixed to one
        pixels = np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32)
        try:
            maps = [session.run(outputs[:1], {inputs[0].name: each[None]})[0] for each in pixels]
        except Exception as e:  # noqa: BLE001  as above
            raise RefusedError(f"{path} cannot be computed: {first_line(e)}") from e
        return np.concatenate(maps)

    return sides[0], run
