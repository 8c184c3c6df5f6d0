"""The steps of an adapter whose folders say what their videos are: a table of folders, and a grammar of names for each.

Folders are found in any case, with or without a folder `videos/` in them, and below others: SOURCE may be the folder
that the release was unpacked into. Where several copies lie beside each other, none is chosen.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.manifests.sequences.names import archive_of, is_archive
from lps.pipeline.sources.shared.types import (
    NO_SEQUENCE,
    NOT_A_VIDEO,
    SourceFile,
    flag_duplicates,
    foreign,
    is_hidden,
    is_video,
    listed_code,
    parts_of,
    stem_of,
)

VIDEOS = "videos"
"""A folder that copies of a release put between a published folder and its videos."""
ABSENT = frozenset({Code.E_MISSING_FILE, Code.E_NAME_GRAMMAR, Code.E_DUP_NAME, Code.S_FOREIGN, Code.S_MASK})

Name = tuple[str, str]
"""Published folder and stem: what a video is called in every copy of the release.

Where stems repeat, the folders between belong to the second, as `plain` writes them.
"""
_UNLIKE = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFolder:
    """One published folder: a line of an adapter's table."""

    label: int
    names: re.Pattern[str]
    """Stems of its videos."""
    method: str | None = None
    n_published: int | None = None
    """Videos in it; None where nobody published that."""
    is_nested: bool = False
    """Whether its videos lie in folders of their own."""
    is_mask: bool = False
    repeats_stems: bool = False
    """Whether videos in different folders of it may have one stem."""
    same_as: str = ""
    """The folder of the table that this is another spelling of."""
    has_archives: bool = False
    """Whether its videos, which are sequences of images, may lie in archives."""


@dataclass(frozen=True, slots=True)
class PlacedVideo:
    """Where a video lies, in the terms of the table."""

    folder: str
    """As the table has it: in lower case."""
    stem: str
    top: tuple[str, ...]
    """Folders above the published one."""
    inner: tuple[str, ...]
    """Folders between the published one and the video; an archive is none."""

    name: Name
    """What it is called in every copy."""


Folders = Mapping[str, ReleaseFolder]
"""Path below the release's own folder, in lower case -> what is in it."""
Parts = Mapping[str, str]
"""What the grammar finds in a stem."""
Describe = Callable[[SourceVideo, PlacedVideo, Parts], SourceVideo]
"""Adds what an adapter knows of a video whose name follows the grammar."""


def place_of(path: str, folders: Folders) -> PlacedVideo | None:
    """Find the published folder that a video lies in; None for other files, and for videos elsewhere."""
    if is_hidden(path) or not (is_video(path) or is_archive(path)):
        return None
    above = tuple(parts_of(path)[:-1])
    lower = tuple(part.lower() for part in above)
    end = len(above) - 1 if lower[-1:] == (VIDEOS,) else len(above)
    for start in range(end):
        for stop in range(end, start, -1):
            key = "/".join(lower[start:stop])
            if key in folders and (folders[key].is_nested or stop == end):
                if is_archive(path) and not folders[key].has_archives:
                    return None
                return _placed(path, folders[key], folders[key].same_as or key, above[:start], above[stop:end])
    return None


def _placed(path: str, folder: ReleaseFolder, key: str, top: tuple[str, ...], inner: tuple[str, ...]) -> PlacedVideo:
    stem, archive = stem_of(path), archive_of(path)
    if archive is not None:
        inner = tuple(part for part in inner if part != f"{archive[0].rpartition('/')[2]}!")
    name = "/".join([*map(plain, inner), stem]) if folder.repeats_stems else stem
    return PlacedVideo(key, stem, top, inner, (key, name))


def plain(folder: str) -> str:
    """Write the name of a folder as all copies may: `Asian (East)` and `Asian_East` are `asian-east`."""
    return _UNLIKE.sub("-", folder.lower()).strip("-")


@dataclass(frozen=True, slots=True)
class ReleaseTree:
    """The files of one release, by the names that its folders and grammars give them."""

    id: str
    dataset: str
    folders: Folders
    files: Sequence[SourceFile]
    placed: Mapping[str, PlacedVideo]
    """By path."""
    uris: Mapping[Name, str]
    """Path that is used of every name that is there."""

    def rows(self, describe: Describe) -> list[SourceVideo]:
        """Return the row of every file; of several with one name all but one have E_DUP_NAME."""
        opened = {found[0] for path in self.placed if (found := archive_of(path)) is not None}
        files = (file for file in self.files if file.path not in opened)  # what is in an archive stands for it
        return flag_duplicates((self._row(file, describe) for file in files), self._key)

    def row_of(self, uri: str, placed: PlacedVideo, describe: Describe) -> SourceVideo:
        """Describe a video by its folder and its name."""
        folder = self.folders[placed.folder]
        video = SourceVideo(
            uri=uri, dataset=self.dataset, label=folder.label, label_source="folder", method=folder.method
        )
        match = folder.names.fullmatch(placed.stem)
        if match is None:
            return replace(video, code=Code.E_NAME_GRAMMAR, detail=f"expected {folder.names.pattern}")
        return describe(video, placed, {key: value for key, value in match.groupdict().items() if value is not None})

    def missing(self, paths: Iterable[str], describe: Describe, who: str) -> Iterator[SourceVideo]:
        """Yield a row with E_MISSING_FILE for each path of a list, below the release, whose name no file has."""
        top = next(iter(self.placed.values())).top
        for path in paths:
            placed = place_of(path, self.folders)
            if placed is not None and placed.name not in self.uris:
                video = self.row_of("/".join((*top, path)), placed, describe)
                yield replace(video, code=Code.E_MISSING_FILE, detail=f"named by {who}")

    def count_notes(self, videos: Iterable[SourceVideo]) -> list[str]:
        """Compare what is there with what is published, a line for each folder that differs."""
        found = Counter(
            self.placed[video.uri].folder
            for video in videos
            if video.uri in self.placed and video.code not in ABSENT and not is_archive(video.uri)
        )
        return [
            f"{self.id}: {found[name]} of {folder.n_published} {name} videos found"
            for name, folder in self.folders.items()
            if folder.n_published is not None and found[name] != folder.n_published
        ]

    def _key(self, video: SourceVideo) -> object:
        placed = self.placed.get(video.uri)
        return placed.name if placed else video.uri

    def _row(self, file: SourceFile, describe: Describe) -> SourceVideo:
        placed = self.placed.get(file.path)
        if placed is None:
            said = "outside the published layout" if is_video(file.path) else NOT_A_VIDEO
            return foreign(self.dataset, file, said)
        if is_archive(file.path):
            return self._archive_row(file, self.folders[placed.folder])
        if self.folders[placed.folder].is_mask:
            return replace(foreign(self.dataset, file, "mask"), code=file.code or Code.S_MASK)
        video = self.row_of(file.path, placed, describe)
        return replace(video, code=video.code or listed_code(file))

    def _archive_row(self, file: SourceFile, folder: ReleaseFolder) -> SourceVideo:
        """Return the row of an archive of which no sequence is known."""
        row = foreign(self.dataset, file, NO_SEQUENCE)
        return row if file.code is None else replace(row, label=folder.label, method=folder.method)


def read_tree(
    files: Sequence[SourceFile], folders: Folders, *, id: str, dataset: str, title: str, is_scattered: bool = False
) -> ReleaseTree:
    """Find the videos of a release. Where `is_scattered`, its folders need not lie beside each other.

    Raises UnreadableError where there are none, or several copies.
    """
    placed = {file.path: found for file in files if (found := place_of(file.path, folders))}
    if not placed:
        names = ", ".join(f"{name}/" for name, folder in folders.items() if not folder.is_mask)
        raise UnreadableError(f"not {title}: the source has no videos in any of {names}")
    if not is_scattered:
        placed = _beside_each_other(placed, title)
    uris: dict[Name, str] = {}
    for file in files:
        if file.path in placed and not folders[placed[file.path].folder].is_mask:
            uris.setdefault(placed[file.path].name, file.used_path)
    return ReleaseTree(id, dataset, folders, files, placed, uris)


def _beside_each_other(placed: Mapping[str, PlacedVideo], title: str) -> dict[str, PlacedVideo]:
    """Keep the copy that lies highest. Raises UnreadableError where there are several of them."""
    depth = min(len(video.top) for video in placed.values())
    tops = sorted({video.top for video in placed.values() if len(video.top) == depth})
    if len(tops) > 1:
        named = ", ".join(f"{'/'.join(top)}/" for top in tops[:4])
        raise UnreadableError(f"{len(tops)} copies of {title} below the source ({named}): give one of them as SOURCE")
    return {path: video for path, video in placed.items() if video.top == tops[0]}
