"""Deepfake-Eval-2024: videos that people met in 2024, with labels by forensic analysts.

    video-data/<file>    video-metadata-publish[-with-links].csv

The table has the file as `Filename` and `Real` or `Fake` as `Video Ground Truth`; other words are no label, and such
videos are left out. It alone says what is an input. Nobody published persons, originals, methods or a split.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.lists import csv_rows, find_list
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
)

FOLDER = "video-data"
TABLES = ("video-metadata-publish-with-links.csv", "video-metadata-publish.csv")
DATASET = "deepfake-eval-2024"
_FILE, _TRUTH = "Filename", "Video Ground Truth"
_LABELS = {"real": 0, "fake": 1}


@dataclass(frozen=True, slots=True)
class _Line:
    """What the table says of one file."""

    file: str
    words: frozenset[str]
    """Two where the table contradicts itself."""


def list_deepfake_eval(files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """List the videos of Deepfake-Eval-2024; the copy may be partial."""
    found = find_list(files, options, *TABLES)
    if found is None:
        raise UnreadableError(f"not Deepfake-Eval-2024: the source has no {TABLES[0]}, which has the labels")
    lines: dict[str, _Line] = {}
    for _, row in csv_rows(*found, _FILE, _TRUTH):
        file, word = row[_FILE].strip(), row[_TRUTH].strip().lower()
        known = lines.get(file.lower(), _Line(file, frozenset()))
        lines[file.lower()] = replace(known, words=known.words | {word})
    present = {_name(file.path) for file in files}
    videos = [_video(file, lines.get(_name(file.path))) for file in files]
    videos += [_missing(line) for name, line in lines.items() if name not in present and name]
    videos = flag_duplicates(videos, lambda video: _name(video.uri) if video.label is not None else video.uri)
    n = sum(video.label is not None and video.code != Code.E_MISSING_FILE for video in videos)
    notes = [f"{DATASET}: {n} of {len(lines)} videos of its table found"] if n != len(lines) else []
    notes.append(f"{DATASET}: no persons, originals or split are published: use it as a test set")
    return make_listing(DATASET, videos, notes)


def _name(path: str) -> str:
    return path.rpartition("/")[2].lower()


def _video(file: SourceFile, line: _Line | None) -> SourceVideo:
    if line is None or is_hidden(file.path):
        return foreign(DATASET, file, "not in the table" if is_video(file.path) else NOT_A_VIDEO)
    video = _described(file.path, line)
    return replace(video, code=video.code or listed_code(file))


def _missing(line: _Line) -> SourceVideo:
    video = _described(f"{FOLDER}/{line.file}", line)
    return replace(video, code=video.code or Code.E_MISSING_FILE, detail=video.detail or "named by the table")


def _described(uri: str, line: _Line) -> SourceVideo:
    words = sorted(line.words)
    label = _LABELS.get(words[0])
    video = SourceVideo(uri=uri, dataset=DATASET, label=label, label_source="csv")
    if len(words) > 1:
        return replace(video, label=None, code=Code.E_LABEL_CONFLICT, detail=f"the table says {' and '.join(words)}")
    if label is None:
        return replace(video, code=Code.S_NOT_SELECTED, detail=f"{_TRUTH} is {words[0][:40]!r}")
    return replace(video, method=DEFAULT_METHOD if label == 1 else None)


LAYOUT = SourceLayout(
    id=DATASET,
    title="Deepfake-Eval-2024, videos",
    adapter=list_deepfake_eval,
    tree=f"{FOLDER}/<file>\n{TABLES[0]}",
    counts="as its table says",
    labels=f"the column {_TRUTH!r}",
    splits="none",
    leakage="from the wild: neither persons nor originals are known; a test set, not one to be divided",
    page="https://huggingface.co/datasets/nuriachandra/Deepfake-Eval-2024",
    sign=re.compile(r".*\.[a-z0-9]{2,4}", re.IGNORECASE),
    sign_files=re.compile(rf"(?:.*/)?(?:{'|'.join(map(re.escape, TABLES))})", re.IGNORECASE),
)
