"""DeepSpeak v1.1 and v2: actors who talk, and fakes of them by several engines.

    **/<actor>-<recording>.mp4    annotations-split-def.csv
    **/<engine>--<donor>-<target>--<donor's recording>-<target's recording>--<n>.mp4               v1.1
    **/<engine>-<donor's recording>-<target's recording>-<sound>.mp4    annotations-fake.csv       v2

The name tells what a video is, wherever it lies. Fakes of v2 name no actors: `annotations-fake.csv` does, in its
columns `video-file`, `engine`, `identity-source`, `identity-target` and `recording-target`. The original of a fake is
the recording of the target. `annotations-split-def.csv` has `identity` and `split`; a fake has the split of its people,
if they have one. That an actor has one number in both releases is not published, so their keys are not shared.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.shared.grammars import NameGrammar, with_keys
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.lists import csv_rows, find_list
from lps.pipeline.sources.shared.types import (
    NOT_A_VIDEO,
    SourceFile,
    SourceListing,
    SourceOptions,
    flag_duplicates,
    foreign,
    is_video,
    listed_code,
    make_listing,
    orphans,
    stem_of,
    unresolved_note,
)

_REAL = re.compile(r"(?P<target>[0-9]+)-(?P<recording>[0-9]+)")
_ENGINES_V1 = ("facefusion", "facefusion_gan", "facefusion_live", "retalking", "wav2lip")
_ENGINES_V2 = ("diff2lip", "facefusion", "hellomeme", "latentsync", "liveportrait", "memo")
_SPLITS = ("train", "test")
"""What the list may say; a third word is no split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeepSpeak:
    """One of the two releases."""

    id: str
    title: str
    fake: re.Pattern[str]
    n_published: tuple[int, int]
    """Real videos and fakes."""
    has_table: bool
    """Whether a table names the actors of its fakes."""

    @property
    def names(self) -> NameGrammar:
        return NameGrammar(
            title=self.title,
            real=_REAL,
            fake=self.fake,
            original="{target}-{recording}",
            prefix=f"{self.id}/actor",
            names_persons=True,
        )


V1 = _DeepSpeak(
    id="deepspeak-v1",
    title="DeepSpeak v1.1",
    fake=re.compile(
        rf"(?P<engine>{'|'.join(_ENGINES_V1)})--(?P<donor>[0-9]+)-(?P<target>[0-9]+)--[0-9]+-(?P<recording>[0-9]+)--[0-9]+"
    ),
    n_published=(6667, 6796),
    has_table=False,
)
V2 = _DeepSpeak(
    id="deepspeak-v2",
    title="DeepSpeak v2",
    fake=re.compile(rf"(?P<engine>{'|'.join(_ENGINES_V2)})-[0-9]+-[0-9]+-[a-z0-9_]+"),
    n_published=(9376, 7209),
    has_table=True,
)


def list_deepspeak(release: _DeepSpeak, files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """List the videos of one release by their names; any part of it alone."""
    reals: dict[str, str] = {}
    for file in files:
        if is_video(file.path) and _REAL.fullmatch(stem_of(file.path)):
            reals.setdefault(stem_of(file.path), file.used_path)
    split_of, notes = _read_splits(release, files, options)
    rows, more = _read_fakes(release, files, options) if release.has_table else ({}, [])
    videos = [_video(release, file, rows, reals, split_of) for file in files]
    counts = [sum(video.label == label for video in videos) for label in (0, 1)]
    if not any(counts):
        raise UnreadableError(f"not {release.title}: the source has no videos with its names, such as 87-0.mp4")
    videos = flag_duplicates(videos, lambda video: stem_of(video.uri))
    notes += more
    for n, published, side in zip(counts, release.n_published, ("real videos", "fakes"), strict=True):
        notes += [f"{release.id}: {n} of {published} {side} found"] if n != published else []
    return make_listing(release.id, videos, [*notes, *unresolved_note(release.id, orphans(videos))])


def _video(
    release: _DeepSpeak,
    file: SourceFile,
    rows: Mapping[str, Mapping[str, str]],
    reals: Mapping[str, str],
    split_of: Mapping[str, str],
) -> SourceVideo:
    stem = stem_of(file.path)
    real, fake = _REAL.fullmatch(stem), release.fake.fullmatch(stem.lower())
    match = real or fake
    if match is None or not is_video(file.path):
        return foreign(release.id, file, "no name of DeepSpeak" if is_video(file.path) else NOT_A_VIDEO)
    video = SourceVideo(
        uri=file.path,
        dataset=release.id,
        label=0 if real else 1,
        label_source="folder",
        method=None if real else match["engine"],
        code=listed_code(file),
    )
    parts = {**match.groupdict(), **rows.get(stem.lower(), {})} if fake else match.groupdict()
    if "target" not in parts:
        return video
    splits = {split_of.get(parts[role]) for role in ("target", "donor") if role in parts}
    video = replace(video, official_split=splits.pop() if len(splits) == 1 else None)
    if video.label == 1 and "recording" in parts:
        video = replace(video, original_uri=reals.get(release.names.original_of(parts)))
    return with_keys(video, release.names, parts)


def _read_splits(
    release: _DeepSpeak, files: Sequence[SourceFile], options: SourceOptions
) -> tuple[dict[str, str], list[str]]:
    found = find_list(files, options, "annotations-split-def.csv")
    if found is None:
        return {}, [f"{release.id}: official split unknown: no annotations-split-def.csv"]
    rows = [row for _, row in csv_rows(*found, "identity", "split")]
    said = {row["identity"].strip(): row["split"].strip().lower() for row in rows}
    return {actor: split for actor, split in said.items() if split in _SPLITS}, []


def _read_fakes(
    release: _DeepSpeak, files: Sequence[SourceFile], options: SourceOptions
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return target, donor, recording and engine by stem, as far as the table has them."""
    found = find_list(files, options, "annotations-fake.csv")
    if found is None:
        return {}, [f"{release.id}: actors of its fakes unknown: no annotations-fake.csv"]
    columns = {
        "target": "identity-target",
        "donor": "identity-source",
        "recording": "recording-target",
        "engine": "engine",
    }
    table: dict[str, dict[str, str]] = {}
    for _, row in csv_rows(*found, "video-file", *columns.values()):
        values = {part: row[column].strip() for part, column in columns.items()}
        stem = stem_of(row["video-file"].strip()).lower()
        table[stem] = {part: value for part, value in values.items() if value}
    return table, []


def _layout(release: _DeepSpeak, tree: str, page: str) -> SourceLayout:
    n_real, n_fake = release.n_published
    return SourceLayout(
        id=release.id,
        title=release.title,
        adapter=partial(list_deepspeak, release),
        tree=tree,
        counts=f"{n_real:,} real, {n_fake:,} fake",
        labels="the name",
        splits="train and test by actor, in annotations-split-def.csv",
        leakage="actors by name" + (" and table" if release.has_table else "") + "; actors may be in both releases",
        page=page,
        sign=re.compile(rf"(?:.*/)?{release.fake.pattern}\.mp4", re.IGNORECASE),
        also=re.compile(rf"(?:.*/)?{_REAL.pattern}\.mp4"),
    )


LAYOUT_V1 = _layout(
    V1,
    "**/<actor>-<recording>.mp4\n**/<engine>--<donor>-<target>--<recording>-<recording>--<n>.mp4\n"
    "annotations-split-def.csv",
    "https://huggingface.co/datasets/faridlab/deepspeak_v1_1",
)
LAYOUT_V2 = _layout(
    V2,
    "**/<actor>-<recording>.mp4\n**/<engine>-<recording>-<recording>-<sound>.mp4\nannotations-fake.csv\n"
    "annotations-split-def.csv",
    "https://huggingface.co/datasets/faridlab/deepspeak_v2",
)
