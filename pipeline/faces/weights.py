"""The pretrained weights of the localizers: where they come from, where they are kept, and how they are trusted.

A weight file is looked for in `--weights-dir`, then in the folder LPS_WEIGHTS_DIR names, then in the user's cache, and
its whole sha256 is compared before every use. Nothing is trusted on first use:

* where upstream publishes the whole digest, any other file is refused;
* where it publishes none, the copy that this project was tested with is accepted, and any other file only if the user
  wrote its digest into `<file>.sha256` beside it;
* where only the first digits are known (in the file's name, as torch.hub has it), the user has to write the digest.

Only tensors are ever read from these files (`weights_only=True`). TorchScript archives carry code and are refused.
"""

import importlib.util
import io
import os
import pickle
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lps.manifests.canonical import file_sha256
from lps.manifests.environment import cache_folder
from lps.manifests.errors import IntegrityError, NotInstalledError, UnreadableError, first_line
from lps.manifests.storage import refuse_compressed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

WEIGHTS_DIR_VARIABLE = "LPS_WEIGHTS_DIR"
OFFLINE_ADVICE = "or use --localizer mtcnn, whose weights come with its package"
FETCH_TIMEOUT_S = 60.0
MAX_BYTES = 1 << 30
"""Ten times the largest file: beyond it an unpacked member is not what it says."""
FULL_DIGEST = 64
"""Hex digits of a whole sha256."""
_UNREADABLE = (
    OSError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What torch.load and zipfile raise for bytes that are not what they should be."""


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One pretrained file."""

    name: str
    file_name: str
    url: str
    """Where it is fetched from; empty for files that come inside a package."""
    sha256: str
    """All 64 hex digits, or the first ones where no more are known: then only the user can name the whole digest."""
    size_bytes: int | None
    """None where upstream says no size."""
    license: str
    also_named: tuple[str, ...] = ()
    """Other names under which the same file is handed around."""
    inside: str = ""
    """Folder of the installed package that carries the file, such as 'package/data'."""
    published: bool = True
    """False if upstream publishes no digest: `sha256` is then that of the tested copy; the user may name another."""


@dataclass(frozen=True, slots=True)
class WeightCheck:
    """What was found where a weight file should be."""

    weight: WeightFile
    path: Path | None
    """None if it was not found."""
    sha256: str
    """Digest of the file at `path`; empty if there is none."""
    ok: bool
    note: str
    """One line; empty if there is nothing to say."""


RESNET50 = WeightFile(
    name="retinaface-resnet50",
    file_name="retinaface_resnet50_2020-07-20-f168fae3c.zip",
    url="https://github.com/ternaus/retinaface/releases/download/0.01/retinaface_resnet50_2020-07-20-f168fae3c.zip",
    sha256="f168fae3c",
    size_bytes=None,
    license="MIT (ternaus/retinaface); trained on WIDER FACE, which is for research",
)
FAN4 = WeightFile(
    name="fan-2d-4",
    file_name="2DFAN4-11f355bf06.pth.tar",
    url="https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar",
    sha256="11f355bf0693120222f5955ce3f9dc8fb5763ebb30a47d7906e509490d32e4aa",
    size_bytes=None,
    license="BSD-3-Clause (1adrianb/face-alignment); trained on 300-W-LP, which is for research",
)
MOBILENET = WeightFile(
    name="retinaface-mobilenet",
    file_name="retinaface_mobilenet0.25.pth",
    url="https://www.adrianbulat.com/downloads/python-fan/retinaface_mobilenet0.25.pth",
    sha256="5f88f7957d9eaef82b49b9e0202bc56e97292e2aede2999209accd34442cc4df",
    size_bytes=1_786_259,
    license="MIT (biubug6/Pytorch_Retinaface); trained on WIDER FACE, which is for research",
    also_named=("retinaface_mobilenet025.pth", "mobilenet0.25_Final.pth"),
    published=False,
)


def _mtcnn_file(net: str, sha256: str, size_bytes: int) -> WeightFile:
    return WeightFile(
        name=f"mtcnn-{net}",
        file_name=f"{net}.pt",
        url="",
        sha256=sha256,
        size_bytes=size_bytes,
        license="MIT (timesler/facenet-pytorch 2.5.3)",
        inside="facenet_pytorch/data",
    )


PNET = _mtcnn_file("pnet", "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f", 28_570)
RNET = _mtcnn_file("rnet", "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86", 403_147)
ONET = _mtcnn_file("onet", "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d", 1_559_269)

LOCALIZER_WEIGHTS: dict[str, tuple[WeightFile, ...]] = {
    "retinaface-fan": (RESNET50, FAN4),
    "retinaface-mobilenet": (MOBILENET,),
    "mtcnn": (PNET, RNET, ONET),
}


def list_weights() -> tuple[WeightFile, ...]:
    """Return every known weight file, in the order of the localizers."""
    return tuple(weight for weights in LOCALIZER_WEIGHTS.values() for weight in weights)


def weights_folder(weights_dir: Path | None) -> Path:
    """Return the folder into which files are fetched: `weights_dir`, else LPS_WEIGHTS_DIR, else the user's cache."""
    return _folders(weights_dir)[0]


def find_weight(weight: WeightFile, weights_dir: Path | None) -> Path:
    """Return the path of a weight file, its digest verified. Raises as `verify_weight` does."""
    path = verify_weight(weight, weights_dir).path
    assert path is not None  # mypy: verify_weight raises instead
    return path


def verify_weight(weight: WeightFile, weights_dir: Path | None) -> WeightCheck:
    """Find `weight` and verify its digest.

    Raises UnreadableError if it is nowhere or cannot be read, IntegrityError if its digest is wrong.
    """
    path = _look_for(weight, weights_dir)
    if path is None:
        raise UnreadableError(_missing(weight, weights_dir))
    return _examine(weight, path)


def check_weights(weights_dir: Path | None) -> list[WeightCheck]:
    """Look at every known weight file. What is missing or wrong is in the notes, not raised."""
    checks = []
    for weight in list_weights():
        path = _look_for(weight, weights_dir)
        if path is None:
            checks.append(WeightCheck(weight, None, "", ok=False, note=_missing(weight, weights_dir)))
            continue
        try:
            checks.append(_examine(weight, path))
        except (IntegrityError, UnreadableError) as e:
            checks.append(WeightCheck(weight, path, "", ok=False, note=str(e)))
    return checks


def fetch_weight(weight: WeightFile, weights_dir: Path | None) -> WeightCheck:
    """Download `weight` into `weights_folder(weights_dir)`, unless a good copy is found already.

    The file appears under its name only after its digest was verified. Raises UnreadableError when the network or the
    folder fails and where nobody has named a whole digest, IntegrityError for a wrong digest.
    """
    if _look_for(weight, weights_dir) is not None or not weight.url:
        return verify_weight(weight, weights_dir)
    import pooch
    from requests import RequestException

    target = weights_folder(weights_dir) / weight.file_name
    expected = _expected(weight, target)
    if not expected:
        raise UnreadableError(
            f"no whole sha256 of {weight.file_name} is published, only its first digits {weight.sha256}: write the "
            f"digest that you trust into {_sidecar(target)} and fetch it again, {OFFLINE_ADVICE}"
        )
    pooch.get_logger().setLevel("WARNING")
    # not streamed: its connection would stay open after a bad answer
    downloader = pooch.HTTPDownloader(timeout=FETCH_TIMEOUT_S, chunk_size=1 << 20, stream=False)
    try:
        pooch.retrieve(weight.url, f"sha256:{expected}", weight.file_name, target.parent, downloader=downloader)
        target.chmod(0o644)
    except RequestException as e:
        raise UnreadableError(
            f"cannot fetch {weight.file_name} from {weight.url}: {first_line(e)}; fetch it elsewhere and name its "
            f"folder with --weights-dir, {OFFLINE_ADVICE}"
        ) from e
    except OSError as e:
        raise UnreadableError(f"cannot write into {target.parent}: {e.strerror}; choose another --weights-dir") from e
    except ValueError as e:
        raise IntegrityError(f"the file fetched from {weight.url} is not the expected one: {first_line(e)}") from e
    return _examine(weight, target)


def load_state(path: Path) -> "dict[str, Tensor]":
    """Return the state dict in `path`, on the CPU, without the `module.` that DataParallel puts before names.

    Reads torch files, old and new, and a zip that holds exactly one of them (as torch.hub distributes some). Nothing is
    unpacked to disk, nothing but tensors is built. Raises UnreadableError for anything else.
    """
    import torch

    try:
        data = _torch_bytes(path)
        refuse_compressed(data)
        loaded = torch.load(data, map_location="cpu", weights_only=True)
    except _UNREADABLE as e:
        raise UnreadableError(f"{path} is not a readable weight file: {first_line(e)}") from e
    if isinstance(loaded, dict) and "state_dict" in loaded:
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise UnreadableError(f"{path} holds no state dict of tensors")
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}


def as_arrays(state: "dict[str, Tensor]") -> "dict[str, NDArray[np.float32]]":
    """Return the tensors of `state` as arrays."""
    return {name: value.float().numpy() for name, value in state.items()}


def filled(net: "nn.Module", state: "dict[str, Tensor]", what: str) -> "nn.Module":
    """Give `net`, built on the meta device, the tensors of `state` (float32, frozen, in eval mode) and return it.

    Raises UnreadableError naming `what` if names or shapes do not fit.
    """
    try:
        net.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as e:
        raise UnreadableError(f"the weights of {what} do not fit its network: {first_line(e)}") from e
    return net.float().requires_grad_(requires_grad=False).eval()


def _folders(weights_dir: Path | None) -> list[Path]:
    named = os.environ.get(WEIGHTS_DIR_VARIABLE)
    folders = [weights_dir, Path(named) if named else None, cache_folder("weights")]
    return [folder for folder in folders if folder is not None]


def _look_for(weight: WeightFile, weights_dir: Path | None) -> Path | None:
    folders = [_package_folder(weight.inside)] if weight.inside else _folders(weights_dir)
    names = (weight.file_name, *weight.also_named)
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def _package_folder(inside: str) -> Path:
    """Return the folder without importing the package."""
    package, _, folder = inside.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise NotInstalledError(f"the package {package} is not installed: pip install 'lps-prep[prep]'")
    return Path(spec.submodule_search_locations[0]) / folder


def _missing(weight: WeightFile, weights_dir: Path | None) -> str:
    if weight.inside:
        return f"{weight.file_name} is missing from the installed package: {weight.inside}; install the package again"
    digest = weight.sha256 if len(weight.sha256) == FULL_DIGEST else f"{weight.sha256}..."
    size = "size not published" if weight.size_bytes is None else f"{weight.size_bytes} bytes"
    return (
        f"weight file {weight.file_name} is missing (sha256 {digest}, {size}): put it into "
        f"{weights_folder(weights_dir)}, run 'lps-prep weights fetch', {OFFLINE_ADVICE}"
    )


def _sidecar(path: Path) -> Path:
    """Return the file in which the user names the digest of `path`, in the form that sha256sum writes."""
    return path.with_name(f"{path.name}.sha256")


def _expected(weight: WeightFile, path: Path) -> str:
    """Return the whole digest that the file at `path` must have; empty if nobody has named one."""
    whole = len(weight.sha256) == FULL_DIGEST
    if whole and weight.published:
        return weight.sha256
    sidecar = _sidecar(path)
    try:
        words = sidecar.read_text("ascii").split() if sidecar.is_file() else []
    except (OSError, UnicodeDecodeError) as e:
        raise UnreadableError(f"cannot read {sidecar}: {first_line(e)}") from e
    return words[0].lower() if words else (weight.sha256 if whole else "")


def _examine(weight: WeightFile, path: Path) -> WeightCheck:
    try:
        digest = file_sha256(path)
    except OSError as e:
        raise UnreadableError(f"cannot read {path}: {e.strerror}") from e
    expected, sidecar = _expected(weight, path), _sidecar(path)
    if digest == expected:
        named = "" if digest == weight.sha256 else f"{path.name}: as {sidecar.name} says"
        return WeightCheck(weight, path, digest, ok=True, note=named)
    if sidecar.is_file() and expected != weight.sha256:
        raise IntegrityError(f"{path} has sha256 {digest}, not the one in {sidecar.name}: restore it")
    if weight.published and expected:
        raise IntegrityError(f"{path} has sha256 {digest}, not {expected}: remove it and fetch it again")
    known = f"not {expected}" if expected else f"of which only the first digits are published, {weight.sha256}"
    raise IntegrityError(f"{path} has sha256 {digest}, {known}: if you trust it, write that into {sidecar.name}")


def _torch_bytes(path: Path) -> BinaryIO:
    """Return what torch.load shall read: the file, or the one file inside a plain zip."""
    if not zipfile.is_zipfile(path):
        return io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        if any(info.filename.endswith("constants.pkl") for info in members):
            raise ValueError("a TorchScript archive, which carries code")
        if any(info.filename.endswith("data.pkl") for info in members):
            return io.BytesIO(path.read_bytes())
        if len(members) != 1 or members[0].file_size > MAX_BYTES:
            raise ValueError("a zip, but not of one weight file")
        return io.BytesIO(archive.read(members[0]))
