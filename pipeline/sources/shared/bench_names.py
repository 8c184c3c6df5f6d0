"""The words of DeepfakeBench for data sets, methods, labels and compressions: those of its `rearrange.py`.

Its labels are words, which a detector's settings (`label_dict` of `train_config.yaml`) map to 0 and 1.
"""

import re
from dataclasses import dataclass

FFPP = "FaceForensics++"
_FFPP_METHODS = {
    "FF-DF": "Deepfakes",
    "FF-F2F": "Face2Face",
    "FF-FS": "FaceSwap",
    "FF-NT": "NeuralTextures",
    "FF-FH": "FaceShifter",
}
_FFPP_FAKES = {method.lower(): label for label, method in _FFPP_METHODS.items() if method != "FaceShifter"}
"""Those of the list FaceForensics++, in which FaceShifter is not."""
COMPRESSED = frozenset({FFPP, *_FFPP_FAKES.values(), "DeepFakeDetection", "FaceShifter"})
"""Lists that the reader asks for a compression."""
_COMPRESSION = {"c0": "raw", None: "unknown"}
"""Where DeepfakeBench has another word than our manifests."""
_TWO_LABELS = {
    "dfd": ("DeepFakeDetection", "DFD_real", "DFD_fake"),
    "celebdf1": ("Celeb-DF-v1", "CelebDFv1_real", "CelebDFv1_fake"),
    "celebdf2": ("Celeb-DF-v2", "CelebDFv2_real", "CelebDFv2_fake"),
    "dfdc": ("DFDC", "DFDC_Real", "DFDC_Fake"),
    "deeperforensics": ("DeeperForensics-1.0", "DF_real", "DF_fake"),
    "uadfv": ("UADFV", "UADFV_Real", "UADFV_Fake"),
}
"""Data set -> list, label of the reals, label of the fakes."""
_DFDCP = {None: "DFDCP_Real", "method_A": "DFDCP_FakeA", "method_B": "DFDCP_FakeB"}
_FFPP_LABELS = frozenset({*_FFPP_METHODS, "FF-SH"})
"""Labels of fakes that do not say so; no list has FF-SH, but the settings do."""
PUBLISHED_LABELS = frozenset(
    {"FF-real", *_FFPP_LABELS, *_DFDCP.values(), *(label for _, *labels in _TWO_LABELS.values() for label in labels)}
)
_METHODS = {
    "dfd": "DeepFakeDetection",
    "celebdf1": "celeb_synthesis",
    "celebdf2": "celeb_synthesis",
    "dfdc": "dfdc",
}
"""What the fakes of a data set are called that has one method; `fake` of others."""
_CLASS = re.compile(r"(?:.*[^a-z])?(?:(?P<real>real)|fake[a-z0-9]?)")


@dataclass(frozen=True, slots=True)
class BenchName:
    """What DeepfakeBench calls a clip's data set and label, and the lists that have it."""

    folder: str
    label: str
    lists: tuple[str, ...]


def bench_name(dataset: str, method: str | None, label: int) -> BenchName:
    """Return the names of a data set and method of ours; those that DeepfakeBench does not know keep their own."""
    if dataset == "ffpp":
        found = _ffpp_name(method or "", label)
    elif dataset == "dfdcp" and (method if label else None) in _DFDCP:
        found = BenchName("DFDCP", _DFDCP[method if label else None], ("DFDCP",))
    elif dataset in _TWO_LABELS:
        name, *labels = _TWO_LABELS[dataset]
        found = BenchName(name, labels[label], (name,))
    else:
        found = None
    if found is None:
        name = plain_name(dataset)
        found = BenchName(name, f"{name}_{('Real', 'Fake')[label]}", (name,))
    return found


def _ffpp_name(method: str, label: int) -> BenchName | None:
    if not label:
        return BenchName(FFPP, "FF-real", (FFPP, *_FFPP_FAKES.values(), "FaceShifter"))
    if method.lower() == "faceshifter":
        return BenchName(FFPP, "FF-FH", ("FaceShifter",))
    fake = _FFPP_FAKES.get(method.lower())
    return BenchName(FFPP, fake, (FFPP, fake)) if fake else None


def plain_name(text: str) -> str:
    """Return text as a name of a folder."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)[:100] or "_"


def bench_compression(compression: str | None) -> str:
    """Return what DeepfakeBench calls a compression of ours."""
    return plain_name(_COMPRESSION.get(compression, compression or ""))


def our_compression(level: str) -> str | None:
    """Return what we call a compression of DeepfakeBench; None for one that is not known."""
    return {word: ours for ours, word in _COMPRESSION.items()}.get(level, level)


def our_names(data_set: str, label: str) -> tuple[str, str | None]:
    """Return our name of the data set, and the method, of a label in a list; None for a method of reals."""
    if label == "FF-real" or label in _FFPP_METHODS:
        return "ffpp", _FFPP_METHODS.get(label)
    for method, name in _DFDCP.items():
        if name == label:
            return "dfdcp", method
    for dataset, (_, real, fake) in _TWO_LABELS.items():
        if label in (real, fake):
            return dataset, _METHODS.get(dataset, "fake") if label == fake else None
    return plain_name(data_set), "fake" if class_of_label(label) else None


def class_of_label(label: str) -> int | None:
    """Return the class that a label of any list says: 0 real, 1 fake; None where it says neither."""
    if label in _FFPP_LABELS:
        return 1
    word = _CLASS.fullmatch(label.lower())
    return None if word is None else int(word["real"] is None)
