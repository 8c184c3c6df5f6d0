"""AV-Deepfake1M++: lip-synchronised words and cloned voices in videos of VoxCeleb2, LRS3 and silent recordings.

    [val/]vox_celeb_2/<speaker>/<YouTube id>/<utterance>/<name>.mp4    val_metadata.json
    [val/]lrs3/<clip>/<utterance>/<name>.mp4    [val/]silent_videos/subject_<n>_<...>/<name>.mp4

No folder tells what a video is: `val_metadata.json` is a list of `{"file", "original", "modify_type", "video_model"}`,
and alone says what is an input; a `train_metadata.json` is read alike. **`audio_modified` is real here**: its pictures
are. `source_part` has the `modify_type`. A fake changes moments of its original, the rest of it is the same pictures.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.releases.fakeavceleb import SPEAKER
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.lists import find_list
from lps.pipeline.sources.shared.types import (
    DEFAULT_METHOD,
    NOT_A_VIDEO,
    SourceFile,
    SourceListing,
    SourceOptions,
    flag_duplicates,
    foreign,
    is_hidden,
    is_video,
    listed_code,
    make_listing,
    orphans,
    parse_json,
    parts_of,
    unresolved_note,
)

ID = "av-deepfake1m-pp"
DATASET = "avdeepfake1mpp"
CORPORA = ("vox_celeb_2", "lrs3", "silent_videos")
_LABELS = {"real": 0, "audio_modified": 0, "visual_modified": 1, "both_modified": 1}
_LISTS = {"train": "train_metadata.json", "val": "val_metadata.json"}
_SUBJECT = re.compile(r"subject_[0-9]+")
_VOX = re.compile(r"id[0-9]{5}")


@dataclass(frozen=True, slots=True)
class _Item:
    """What the metadata say of one video."""

    file: str
    kind: str
    split: str
    model: str | None
    original: str


def list_avdeepfake(files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """List the videos that the metadata name, present or not."""
    items: dict[str, _Item] = {}
    for split, name in _LISTS.items():
        if found := find_list(files, options, name):
            items |= {_name(item.file): item for item in _read_items(split, *found)}
    if not items:
        raise UnreadableError("not AV-Deepfake1M++: the source has no val_metadata.json, which has the labels")
    uris: dict[str, str] = {}
    for file in files:
        uris.setdefault(_name(file.path), file.used_path)
    videos = [_video(file, items.get(_name(file.path)), uris) for file in files]
    top = next((path[: len(path) - len(name)] for name, path in uris.items() if name in items), "")
    for name, item in items.items():
        if name not in uris:
            video = _described(f"{top}{item.file}", item, uris)
            videos.append(replace(video, code=Code.E_MISSING_FILE, detail="named by the metadata"))
    videos = flag_duplicates(videos, lambda video: _name(video.uri) if video.label is not None else video.uri)
    n_heard = sum(video.code is None and video.source_part == "audio_modified" for video in videos)
    notes = [f"{ID}: {n_heard} videos with real pictures and fake sound count as real"] if n_heard else []
    n = sum(video.label is not None and video.code != Code.E_MISSING_FILE for video in videos)
    notes += [f"{ID}: {n} of {len(items)} videos of its metadata found"] if n != len(items) else []
    return make_listing(ID, videos, [*notes, *unresolved_note(ID, orphans(videos))])


def _name(path: str) -> str:
    """Return a path from the folder of its corpus on, in lower case; as it is where it has none."""
    parts = parts_of(path.lower())
    start = next((k for k, part in enumerate(parts) if part in CORPORA), 0)
    return "/".join(part for part in parts[start:] if part != "videos")


def _read_items(split: str, path: str, data: bytes) -> list[_Item]:
    rows = parse_json(path, data)
    if not isinstance(rows, list):
        raise UnreadableError(f"{path}: expected a list of objects with file and modify_type")
    return [_item(f"{path}, entry {number}", split, row) for number, row in enumerate(rows)]


def _item(where: str, split: str, row: Any) -> _Item:
    file, kind = (row.get("file"), row.get("modify_type")) if isinstance(row, dict) else (None, None)
    parts = parts_of(file) if isinstance(file, str) else []
    if not isinstance(file, str) or len(parts) < 3 or parts[0].lower() not in CORPORA or ".." in parts:
        raise UnreadableError(f"{where}: file {file!r} is not <{'|'.join(CORPORA)}>/<folder>/.../<name>")
    if kind not in _LABELS:
        raise UnreadableError(f"{where}: modify_type {kind!r} is none of {', '.join(_LABELS)}")
    model, original = row.get("video_model"), row.get("original")
    return _Item(
        file, kind, split, model if isinstance(model, str) else None, original if isinstance(original, str) else ""
    )


def _video(file: SourceFile, item: _Item | None, uris: Mapping[str, str]) -> SourceVideo:
    if item is None or is_hidden(file.path):
        return foreign(DATASET, file, "not in the metadata" if is_video(file.path) else NOT_A_VIDEO)
    return replace(_described(file.path, item, uris), code=listed_code(file))


def _described(uri: str, item: _Item, uris: Mapping[str, str]) -> SourceVideo:
    label = _LABELS[item.kind]
    corpus, who, *inner = parts_of(item.file)[:-1]
    is_own = parts_of(item.original)[:1] == [corpus]
    persons = (_person(corpus.lower(), who),) if _person(corpus.lower(), who) else ()
    return SourceVideo(
        uri=uri,
        dataset=DATASET,
        label=label,
        label_source="metadata",
        method=(item.model or DEFAULT_METHOD) if label == 1 else None,
        source_part=item.kind,
        official_split=item.split,
        original_uri=uris.get(_name(item.original)) if label == 1 and is_own else None,
        target_keys=(f"{DATASET}/clip/{'/'.join((corpus, who, *inner))}",),
        source_keys=(f"lrs3/clip/{who}",) if corpus.lower() == "lrs3" else (),
        identity_keys=persons,
        identity_confidence="published" if persons else "none",
    )


def _person(corpus: str, folder: str) -> str:
    """Return the key of the person that a folder names; empty where it names a recording."""
    if corpus == "vox_celeb_2" and _VOX.fullmatch(folder):
        return f"{SPEAKER}/{folder}"
    subject = _SUBJECT.match(folder) if corpus == "silent_videos" else None
    return f"{DATASET}/{subject[0]}" if subject else ""


LAYOUT = SourceLayout(
    id=ID,
    title="AV-Deepfake1M++, its labelled part",
    adapter=list_avdeepfake,
    tree=(
        "[val/]vox_celeb_2/<speaker>/<YouTube id>/<utterance>/<name>.mp4\n[val/]lrs3/<clip>/<utterance>/<name>.mp4\n"
        "[val/]silent_videos/subject_<n>_<...>/<name>.mp4\nval_metadata.json"
    ),
    counts="val: 39,158 real pictures (18,938 of them with fake sound), 38,168 fake",
    labels="modify_type of the metadata; real pictures with fake sound are real",
    splits="by the file of the metadata: val",
    leakage="speakers of VoxCeleb2 with the keys of fakeavceleb, clips of LRS3, subjects of silent videos",
    page="https://huggingface.co/datasets/ControlNet/AV-Deepfake1M-PlusPlus",
    sign=re.compile(rf"(?:.*/)?(?:{'|'.join(CORPORA)})/.*\.mp4", re.IGNORECASE),
    sign_files=re.compile(r"(?:.*/)?(?:train|val)_metadata\.json", re.IGNORECASE),
)
