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
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lps.manifests.arrays import Floats
from lps.manifests.names import SPLITS
from lps.pipeline.sources.shared.bench_names import COMPRESSED, FFPP, BenchName, bench_compression, bench_name
from lps.pipeline.tools.convert_clips import ChosenClip, picture_names

IMAGES = "rgb"
LISTS = "dataset_json"
SEEN_AS = "./datasets/rgb"
"""What the reader calls the folder IMAGES: its checkout has the data there, or links to it."""


def bench_path(clip: ChosenClip, kind: str = "frames") -> str:
    """Return the folder of a clip's frames, or its landmarks, below IMAGES."""
    name = _name_of(clip)
    folders = [name.folder, name.label, kind, clip.key]
    if name.folder in COMPRESSED:
        folders.insert(2, bench_compression(clip.compression))
    return "/".join(folders)


def _name_of(clip: ChosenClip) -> BenchName:
    return bench_name(clip.dataset, clip.method, 1 if clip.label else 0)


def bench_lists(clips: Iterable[ChosenClip]) -> dict[str, dict[str, Any]]:
    """Return each list of some clips by its name. Those of a method of FaceForensics++ are there if it has fakes."""
    found: dict[str, dict[str, list[ChosenClip]]] = {}
    for clip in clips:
        name = _name_of(clip)
        for listed in name.lists:
            found.setdefault(listed, {}).setdefault(name.label, []).append(clip)
    whole = {name: labels for name, labels in found.items() if set(labels) != {"FF-real"} or name == FFPP}
    return {name: {name: _labels(name, labels)} for name, labels in sorted(whole.items())}


def _labels(name: str, clips_of: Mapping[str, Sequence[ChosenClip]]) -> dict[str, Any]:
    """Return what a list says of each label: for every split, and compression where the reader asks for it."""
    compressions = sorted({bench_compression(clip.compression) for clips in clips_of.values() for clip in clips})
    found: dict[str, Any] = {}
    for label, clips in clips_of.items():
        videos: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
        for clip in clips:
            place = (clip.split, bench_compression(clip.compression) if name in COMPRESSED else "")
            videos[place][clip.key] = {"label": label, "frames": _frames(clip)}
        found[label] = {
            split: {each: videos[split, each] for each in compressions} if name in COMPRESSED else videos[split, ""]
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
