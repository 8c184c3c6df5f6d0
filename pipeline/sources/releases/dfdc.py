"""The Deepfake Detection Challenge: training parts with `metadata.json`, test folder with `labels.csv`.

A folder that holds one of these two files is a part, wherever it lies. The original of a fake is published, the donor
of its face is not: that no person is in two splits cannot be shown from these files.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.types import (
    NOT_A_VIDEO,
    SourceFile,
    SourceListing,
    SourceOptions,
    by_folder,
    flag_duplicates,
    foreign,
    is_hidden,
    is_video,
    listed_code,
    make_listing,
    orphans,
    parse_json,
    parse_text,
    read_source,
    unresolved_note,
)

METADATA = "metadata.json"
TEST_LABELS = "labels.csv"
N_PARTS = 50
N_TRAIN = range(119_140, 119_201)
"""Published counts differ (119,146 to 119,197): no single number can be asked for."""

_NAME = re.compile(r"[a-z]{10}\.mp4")
_WORDS = {"real": 0, "fake": 1}
_DIGITS = {"0": 0, "1": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class _MetadataEntry:
    """What a list says of one file name."""

    label: int
    original: str | None = None
    contradicted: bool = False
    """Another list of the same folder says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _DfdcPart:
    folder: str
    entries: Mapping[str, _MetadataEntry]
    is_test: bool

    def uri(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name


def list_dfdc(files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """List DFDC parts, complete or not. Labels come from the lists alone; a video that none names is foreign."""
    folders = by_folder(file for file in files if not is_hidden(file.path))
    for named in folders.values():
        for file in [*named.values()]:
            named.setdefault(_as_listed(file.path).rpartition("/")[2], file)
    parts = {folder: part for folder in sorted(folders) if (part := _read_part(folder, folders[folder], options))}
    if not parts:
        raise UnreadableError(f"not DFDC: the source has neither a {METADATA} nor a {TEST_LABELS}")
    used = {file.path: file.used_path for file in files}
    originals = _originals(parts.values(), {_as_listed(path): first for path, first in used.items()} | used)
    videos = [_unlisted(file, parts) for file in files if not _is_listed(file, parts, folders)]
    for part in parts.values():
        for name, entry in part.entries.items():
            videos.append(_video(part, name, entry, folders[part.folder].get(name), originals))
    videos = flag_duplicates(videos, lambda video: _as_listed(video.uri).rpartition("/")[2])
    # The test folder names no originals at all.
    n_orphans = orphans(video for video in videos if video.official_split == "train")
    notes = [*_count_notes(videos, parts.values()), *unresolved_note("dfdc", n_orphans)]
    return make_listing("dfdc", videos, notes)


def _as_listed(path: str) -> str:
    """Return a path as the lists spell it: copies of the set may have `.MP4`."""
    return f"{path[:-4]}.mp4" if path.lower().endswith(".mp4") else path


def _read_part(folder: str, files: Mapping[str, SourceFile], options: SourceOptions) -> _DfdcPart | None:
    """Read the lists of a folder. In a test folder the CSV counts, and `metadata.json` may only contradict it."""
    metadata: dict[str, _MetadataEntry] = {}
    if METADATA in files:
        metadata = _read_metadata(files[METADATA].path, options, partial=TEST_LABELS in files)
    if TEST_LABELS in files:
        labels = _read_labels(files[TEST_LABELS].path, options)
        entries = {
            name: _MetadataEntry(label=label, contradicted=name in metadata and metadata[name].label != label)
            for name, label in labels.items()
        }
        return _DfdcPart(folder=folder, entries=entries, is_test=True)
    return _DfdcPart(folder=folder, entries=metadata, is_test=False) if METADATA in files else None


def _read_metadata(path: str, options: SourceOptions, *, partial: bool) -> dict[str, _MetadataEntry]:
    """Read `{name: {label, original}}`; with `partial`, entries without a label are left out instead of refused."""
    table = parse_json(path, read_source(options, path))
    if not isinstance(table, dict):
        raise UnreadableError(f"{path}: expected an object keyed by file name")
    entries = {}
    for name, value in table.items():
        _refuse_path(path, name)
        entry = _metadata_entry(value)
        if entry is not None:
            entries[name] = entry
        elif not partial:
            raise UnreadableError(f'{path}: entry {name!r} has no label "REAL" or "FAKE"')
    return entries


def _metadata_entry(value: Any) -> _MetadataEntry | None:
    if not isinstance(value, dict) or not isinstance(value.get("label"), str):
        return None
    label, original = _WORDS.get(value["label"].lower()), value.get("original")
    if label is None:
        return None
    # Copies of the set differ in how they write "no original": no key, null, or an empty string.
    return _MetadataEntry(label=label, original=original if label == 1 and isinstance(original, str) else None)


def _read_labels(path: str, options: SourceOptions) -> dict[str, int]:
    rows = csv.reader(io.StringIO(parse_text(path, read_source(options, path)), newline=""))
    try:
        header = next(rows, [])
        if not {"filename", "label"} <= set(header):
            raise UnreadableError(f"{path}: expected the columns filename,label, found {','.join(header)!r}")
        name_at, label_at = header.index("filename"), header.index("label")
        labels: dict[str, int] = {}
        for row in filter(None, rows):
            if len(row) != len(header) or row[label_at] not in _DIGITS or row[name_at] in labels:
                raise UnreadableError(f"{path}, line {rows.line_num}: expected a new file name and the label 0 or 1")
            _refuse_path(path, row[name_at])
            labels[row[name_at]] = _DIGITS[row[label_at]]
    except csv.Error as error:
        raise UnreadableError(f"{path}, line {rows.line_num}: {error}") from error
    return labels


def _refuse_path(path: str, name: str) -> None:
    if not name or "/" in name or name in (".", ".."):
        raise UnreadableError(f"{path}: {name!r} is not a file name")


def _originals(parts: Iterable[_DfdcPart], present: Mapping[str, str]) -> dict[tuple[str | None, str], str]:
    """Index the real videos that are there by (folder, name), and by (None, name) for those in another part.

    `present` has the path that is used of every file by its own.
    """
    originals: dict[tuple[str | None, str], str] = {}
    for part in parts:
        for name, entry in part.entries.items():
            if entry.label == 0 and part.uri(name) in present:
                originals[part.folder, name] = present[part.uri(name)]
                originals.setdefault((None, name), present[part.uri(name)])
    return originals


def _video(
    part: _DfdcPart,
    name: str,
    entry: _MetadataEntry,
    file: SourceFile | None,
    originals: Mapping[tuple[str | None, str], str],
) -> SourceVideo:
    source = entry.original if entry.label == 1 else name
    original = None
    if entry.original is not None:
        original = originals.get((part.folder, entry.original)) or originals.get((None, entry.original))
    video = SourceVideo(
        uri=file.path if file else part.uri(name),
        dataset="dfdc",
        label=entry.label,
        label_source="csv" if part.is_test else "metadata",
        method="dfdc" if entry.label == 1 else None,
        source_part=part.folder.rpartition("/")[2] or None,
        official_split="test" if part.is_test else "train",
        original_uri=original,
        source_keys=(f"dfdc/src/{source.removesuffix('.mp4')}",) if source else (),
    )
    if file is None:
        return replace(video, code=Code.E_MISSING_FILE, detail="listed, but not in the folder")
    if _NAME.fullmatch(name) is None:
        return replace(video, code=Code.E_NAME_GRAMMAR, detail=f"expected {_NAME.pattern}")
    if entry.contradicted:
        return replace(video, code=Code.E_LABEL_CONFLICT, detail=f"{TEST_LABELS} and {METADATA} disagree")
    return replace(video, code=listed_code(file))


def _is_listed(
    file: SourceFile, parts: Mapping[str, _DfdcPart], folders: Mapping[str, Mapping[str, SourceFile]]
) -> bool:
    folder = file.path.rpartition("/")[0]
    names = {path.rpartition("/")[2] for path in (file.path, _as_listed(file.path))}
    return folder in parts and any(name in parts[folder].entries and folders[folder][name] is file for name in names)


def _unlisted(file: SourceFile, parts: Mapping[str, _DfdcPart]) -> SourceVideo:
    in_part = file.path.rpartition("/")[0] in parts
    detail = NOT_A_VIDEO
    if is_video(file.path):
        detail = "not in the list of its folder" if in_part else f"no {METADATA} or {TEST_LABELS} in its folder"
    return foreign("dfdc", file, detail)


def _count_notes(videos: Sequence[SourceVideo], parts: Iterable[_DfdcPart]) -> list[str]:
    found = Counter(video.official_split for video in videos if video.code != Code.E_MISSING_FILE)
    n_parts = sum(not part.is_test for part in parts)
    if not n_parts or (found["train"] in N_TRAIN and n_parts == N_PARTS):
        return []
    return [f"dfdc: {found['train']} of about {N_TRAIN.start} training videos found, in {n_parts} of {N_PARTS} parts"]


LAYOUT = SourceLayout(
    id="dfdc",
    title="Deepfake Detection Challenge",
    adapter=list_dfdc,
    tree="dfdc_train_part_*/metadata.json and its videos\ntest/labels.csv and its videos",
    counts="about 119,146 training videos in 50 parts, 5,000 of the test",
    labels="the lists",
    splits="train (all parts) and test",
    leakage="originals, but no persons are published: that nobody is on both sides cannot be shown; dfdc-preview is "
    "an earlier release of the same project with paid actors, who may be the same",
    page="https://ai.meta.com/datasets/dfdc/",
    sign=re.compile(r"(?:.*/)?[a-z]{10}\.(?i:mp4)"),
    sign_files=re.compile(rf"(?:.*/)?(?:{METADATA}|{TEST_LABELS})"),
)
