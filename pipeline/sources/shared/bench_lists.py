"""Lists of DeepfakeBench (`preprocessing/dataset_json/*.json`), as `rearrange.py` or `lps-prep convert` writes them.

    {data set: {label: {split: {video: {"label": label, "frames": [paths]}}}}}

with a compression between split and video in those of FaceForensics++. Of frames only their folder is kept: a list of
DFDC names four million.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lps.manifests.canonical import sha256_hex
from lps.manifests.errors import UnreadableError
from lps.manifests.names import SPLITS
from lps.pipeline.sources.shared.bench_names import our_compression
from lps.pipeline.sources.shared.types import is_video, parse_text, stem_of

_EXPECTED = "expected {data set: {label: {split: {video: {label, frames}}}}}, as DeepfakeBench writes it"
_CLIP = re.compile(r"(?P<video>[0-9a-f]{32})-[0-9]{2,}-[0-9]{6,}")
"""A sample key: what `lps-prep convert` calls a clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchVideo:
    """One video of a list, in one split of it."""

    name: str
    """As the list has it, without folders and the ending of a video."""
    data_set: str
    """What the list calls it."""
    label: str
    split: str
    compression: str | None
    """In our words; None where the list has no level for it, or does not know it."""
    folder: str
    """Folder of its frames, with slashes; empty where they lie in several or the list names none."""

    @property
    def video_id(self) -> bytes | None:
        """The video's id where the name is that of a clip of ours."""
        match = _CLIP.fullmatch(self.name)
        return bytes.fromhex(match["video"]) if match else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchList:
    """One file."""

    name: str
    sha256: str
    videos: tuple[BenchVideo, ...]
    n_nameless: int
    """Videos of which the list has the frames but no name: `rearrange.py` writes some of DFDC so."""


def parse_bench_list(path: str, data: bytes) -> BenchList:
    """Read a list. Raises UnreadableError for what is none."""
    try:
        root = json.loads(parse_text(path, data), object_hook=_without_frames)
    except (ValueError, RecursionError) as e:
        raise UnreadableError(f"{path}: not valid JSON ({e})") from e
    found = list(_videos(path, root))
    videos = tuple(video for video in found if video is not None)
    if not found:
        raise UnreadableError(f"{path}: has no video; {_EXPECTED}")
    name = path.rpartition("/")[2]
    return BenchList(name=name, sha256=sha256_hex(data), videos=videos, n_nameless=len(found) - len(videos))


def _without_frames(values: dict[str, Any]) -> dict[str, Any]:
    frames = values.get("frames")
    if isinstance(frames, list):
        values.pop("masks", None)
        folders = {frame.replace("\\", "/").rpartition("/")[0] for frame in frames if isinstance(frame, str)}
        values["frames"] = folders.pop() if len(folders) == 1 else ""
    return values


def _videos(path: str, root: Any) -> Iterator[BenchVideo | None]:
    """Yield each video, None for one without a name."""
    for data_set, labels in _level(path, "the file", root):
        for label, splits in _level(path, data_set, labels):
            for split, found in _level(path, f"{data_set}, {label}", splits):
                place = _ListPlace(path, data_set, label, split)
                if split not in SPLITS:
                    raise place.error("", f"expected one of the splits {', '.join(SPLITS)}; ")
                yield from _videos_of_split(place, found)


@dataclass(frozen=True, slots=True)
class _ListPlace:
    """Where in a list something is."""

    path: str
    data_set: str
    label: str
    split: str

    def error(self, inner: str, what: str = "") -> UnreadableError:
        where = ", ".join(filter(None, (self.data_set, self.label, self.split, inner)))
        return UnreadableError(f"{self.path}: {where}: {what}{_EXPECTED}")


def _videos_of_split(place: _ListPlace, found: Any) -> Iterator[BenchVideo | None]:
    if not isinstance(found, Mapping):
        raise place.error("")
    if _is_video(found):
        yield None
    for name, value in found.items():
        if _is_video(value):
            yield _video(place, name, name, value, None)
        elif isinstance(value, Mapping):
            for inner, video in value.items():
                yield _video(place, f"{name}, {inner}", inner, video, our_compression(name))
        elif not _is_video(found):
            raise place.error(name)


def _is_video(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("frames"), str)


def _video(place: _ListPlace, where: str, name: str, value: Any, compression: str | None) -> BenchVideo:
    """Return a video. Its own label counts, as for the reader of DeepfakeBench."""
    own = value.get("label", place.label) if _is_video(value) else None
    base = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    if not isinstance(own, str) or not base:
        raise place.error(where)
    return BenchVideo(
        name=stem_of(base) if is_video(base) else base,
        data_set=place.data_set,
        label=own,
        split=place.split,
        compression=compression,
        folder=value["frames"],
    )


def _level(path: str, where: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        raise UnreadableError(f"{path}: {where}: {_EXPECTED}")
    return iter(value.items())
