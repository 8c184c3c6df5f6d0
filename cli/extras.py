"""What is missing where lps-prep is installed for another role, said in one line that names the extra."""

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType

from lps.manifests.errors import NotInstalledError

EXTRAS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "prep": frozenset(
            ("av", "cv2", "facenet_pytorch", "matplotlib", "onnx", "onnxruntime", "pdqhash", "pooch", "ray", "requests")
            + ("retinaface", "skimage", "torch")
        ),
        "train": frozenset(
            (
                "cv2",
                "facenet_pytorch",
                "matplotlib",
                "onnxruntime",
                "simplejpeg",
                "tensorboardX",
                "torch",
                "torchvision",
            )
            + ("webdataset",)
        ),
    }
)
"""Extra -> the packages of it that the code imports, by the name in the import. The extra `all` has both."""
OF_PROGRAM = MappingProxyType({"lps-audit": "prep", "lps-prep": "prep", "lps-train": "train"})


def not_installed(error: ModuleNotFoundError, command: str, extra: str = "") -> NotInstalledError | None:
    """Return the error that names the extra of a missing package; None for a package that no extra has.

    `command` is what the user called, from the program on; `extra` what it needs, if more than other commands do.
    """
    package = (error.name or "").partition(".")[0]
    if not any(package in packages for packages in EXTRAS.values()):
        return None
    extra = extra or OF_PROGRAM.get(command.split()[0], "all")
    return _error(command, package, extra if package in EXTRAS.get(extra, (package,)) else "all")


def require(extra: str, command: str) -> None:
    """Raise NotInstalledError unless all packages of `extra` are there. Imports none of them."""
    missing = next((package for package in sorted(EXTRAS[extra]) if find_spec(package) is None), "")
    if missing:
        raise _error(command, missing, extra)


def _error(command: str, package: str, extra: str) -> NotInstalledError:
    words = command.partition(" ")[2]
    return NotInstalledError(f"`{words}` needs {package}, which is not installed: pip install 'lps-prep[{extra}]'")
