"""The names and lists by which DeepfakeBench reads data sets: its `abstract_dataset.py`, `rearrange.py`.

A list is `dataset_json/<name>.json`:

    {name: {label: {split: {video: {"label": label, "frames": [paths]}}}}}

with a compression between split and video in those of FaceForensics++. The reader asks every label for its split, and
there for the compression of its settings; takes frames in the order of the list; wants a number as the name of a frame;
and takes a path that begins with `./` as it is, below the folder where it was started.

Landmarks are looked for at the path of an image with `landmarks` for `frames` and `.npy` for `.png`: `load_landmark`
takes an array of any number of points (x, y), px of the image as it is stored. Its own have 81, of which the first 68
are those of 300-W (`shape_predictor_81_face_landmarks` of `preprocess.py`); `sbi_api.py` takes 68, too.
"""

import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lps.manifests.arrays import Floats
from lps.manifests.names import SPLITS
from lps.pipeline.tools.convert_clips import ChosenClip, picture_names

IMAGES = "rgb"
LISTS = "dataset_json"
SEEN_AS = "./datasets/rgb"
"""What the reader calls the folder IMAGES: its checkout has the data there, or links to it."""

_FFPP = "FaceForensics++"
_FFPP_FAKES = {"deepfakes": "FF-DF", "face2face": "FF-F2F", "faceswap": "FF-FS", "neuraltextures": "FF-NT"}
_COMPRESSED = frozenset({_FFPP, *_FFPP_FAKES.values(), "DeepFakeDetection", "FaceShifter"})
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
        name = _plain(dataset)
        found = BenchName(name, f"{name}_{('Real', 'Fake')[label]}", (name,))
    return found


def _ffpp_name(method: str, label: int) -> BenchName | None:
    if not label:
        return BenchName(_FFPP, "FF-real", (_FFPP, *_FFPP_FAKES.values(), "FaceShifter"))
    if method.lower() == "faceshifter":
        return BenchName(_FFPP, "FF-FH", ("FaceShifter",))
    fake = _FFPP_FAKES.get(method.lower())
    return BenchName(_FFPP, fake, (_FFPP, fake)) if fake else None


def _plain(text: str) -> str:
    """Return text as a name of a folder."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)[:100] or "_"


def bench_path(clip: ChosenClip, kind: str = "frames") -> str:
    """Return the folder of a clip's frames, or its landmarks, below IMAGES."""
    name = _name_of(clip)
    folders = [name.folder, name.label, kind, clip.key]
    if name.folder in _COMPRESSED:
        folders.insert(2, _compression(clip))
    return "/".join(folders)


def _name_of(clip: ChosenClip) -> BenchName:
    return bench_name(clip.dataset, clip.method, 1 if clip.label else 0)


def _compression(clip: ChosenClip) -> str:
    return _plain(_COMPRESSION.get(clip.compression, clip.compression or ""))


def bench_lists(clips: Iterable[ChosenClip]) -> dict[str, dict[str, Any]]:
    """Return each list of some clips by its name. Those of a method of FaceForensics++ are there if it has fakes."""
    found: dict[str, dict[str, list[ChosenClip]]] = {}
    for clip in clips:
        name = _name_of(clip)
        for listed in name.lists:
            found.setdefault(listed, {}).setdefault(name.label, []).append(clip)
    whole = {name: labels for name, labels in found.items() if set(labels) != {"FF-real"} or name == _FFPP}
    return {name: {name: _labels(name, labels)} for name, labels in sorted(whole.items())}


def _labels(name: str, clips_of: Mapping[str, Sequence[ChosenClip]]) -> dict[str, Any]:
    """Return what a list says of each label: for every split, and compression where the reader asks for it."""
    compressions = sorted({_compression(clip) for clips in clips_of.values() for clip in clips})
    found: dict[str, Any] = {}
    for label, clips in clips_of.items():
        videos: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
        for clip in clips:
            place = (clip.split, _compression(clip) if name in _COMPRESSED else "")
            videos[place][clip.key] = {"label": label, "frames": _frames(clip)}
        found[label] = {
            split: {each: videos[split, each] for each in compressions} if name in _COMPRESSED else videos[split, ""]
            for split in SPLITS
        }
    return found


def _frames(clip: ChosenClip) -> list[str]:
    folder = f"{SEEN_AS}/{bench_path(clip)}"
    return [f"{folder}/{name}" for name in picture_names(clip.n_frames, "png")]


def landmark_files(points: Floats) -> dict[str, bytes]:
    """Return the files of a clip's landmarks, (n, 68, 2) px, each (68, 2) float32, with the names of its pictures."""
    found = {}
    for name, face in zip(picture_names(len(points), "npy"), points, strict=True):
        sink = io.BytesIO()
        np.save(sink, face.astype(np.float32), allow_pickle=False)
        found[name] = sink.getvalue()
    return found


def bench_labels(clips: Iterable[ChosenClip]) -> dict[str, int]:
    """Return the labels of some clips with their classes, as a detector's settings list them: 0 real, 1 fake."""
    return dict(sorted({_name_of(clip).label: 1 if clip.label else 0 for clip in clips}.items()))


def label_lines(label_dict: dict[str, int]) -> str:
    """Return the labels as the YAML of a detector's settings."""
    return "".join(["label_dict:\n", *(f"  {label}: {value}\n" for label, value in label_dict.items())])
