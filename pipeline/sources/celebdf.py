"""Celeb-DF (v2): the label is the folder's, the person is in the file name, the test list only names the test videos.

    Celeb-real/idA_NNNN.mp4    YouTube-real/NNNNN.mp4    Celeb-synthesis/idA_idB_NNNN.mp4    List_of_testing_videos.txt

`idA` is the person in the original video, `idB` the one whose face is swapped in. The list writes **1 for real and 0
for fake**, and has no header: its first line is a video. Copies of the set that spell the folders in another case or
put the files into a folder `videos/` are read too.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.grammars import CELEBDF, with_keys
from lps.pipeline.sources.types import (
    SourceFile,
    SourceListing,
    SourceOptions,
    flag_duplicates,
    foreign,
    is_hidden,
    listed_code,
    make_listing,
    orphans,
    parse_text,
    read_list,
    unresolved_note,
)

TEST_LIST = "List_of_testing_videos.txt"
N_LISTED = 518

_PATH = re.compile(r"(?P<folder>[^/]+)/(?:videos/)?(?P<stem>[^/]+)\.(?i:mp4)")
_LINE = re.compile(r"(?P<real>[01])\s+(?P<path>\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """One published folder."""

    label: int
    grammar: re.Pattern[str]
    n_published: int


_FOLDERS = {
    "celeb-real": _Folder(label=0, grammar=CELEBDF.real, n_published=590),
    "youtube-real": _Folder(label=0, grammar=re.compile(r"[0-9]{5}"), n_published=300),
    "celeb-synthesis": _Folder(
        label=1,
        grammar=CELEBDF.fake,
        n_published=5639,
    ),
}

Name = tuple[str, str]
"""Folder in lower case, and stem: what a video is called in every copy of the set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """What the test list says of one video."""

    path: str
    labels: frozenset[int]
    """Ours: 0 real, 1 fake. Two where the list contradicts itself."""


def list_celebdf(files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """List a Celeb-DF (v2) tree; it may be partial. Videos of the test list are `test`, the others `train`."""
    if not any(file.path.partition("/")[0].lower() in _FOLDERS for file in files):
        raise UnreadableError("not Celeb-DF: the source has no Celeb-real/, YouTube-real/ or Celeb-synthesis/ folder")
    listed, notes = _read_test_list(files, options)
    uris: dict[Name, str] = {}
    for file in files:
        if name := _name(file.path):
            uris.setdefault(name, file.used_path)
    videos = [_video(file, listed, uris) for file in files]
    videos += [_missing(name, entry, uris) for name, entry in (listed or {}).items() if name not in uris]
    videos = flag_duplicates(videos, lambda video: _name(video.uri))
    notes = [*notes, *_count_notes(videos), *unresolved_note("celebdf", orphans(videos))]
    return make_listing("celebdf", videos, notes)


def _name(path: str) -> Name | None:
    match = None if is_hidden(path) else _PATH.fullmatch(path)
    return (match["folder"].lower(), match["stem"]) if match and match["folder"].lower() in _FOLDERS else None


def _read_test_list(
    files: Sequence[SourceFile], options: SourceOptions
) -> tuple[dict[Name, _Listed] | None, list[str]]:
    """Read the list from the user's folder or the tree; without one, no video has an official split."""
    in_tree = [file.path for file in files if file.path.lower() == TEST_LIST.lower()]
    found = read_list(
        options, (TEST_LIST, "celeb_df_v2_list_of_testing_videos.txt"), in_tree, frozenset(file.path for file in files)
    )
    if found is None:
        return None, [f"celebdf: official split unknown: no {TEST_LIST}"]
    path, data = found
    listed: dict[Name, _Listed] = {}
    for number, line in enumerate(parse_text(path, data).splitlines(), start=1):
        if line.strip():
            name, entry = _parse_line(f"{path}, line {number}", line.strip())
            earlier = listed[name].labels if name in listed else frozenset[int]()
            listed[name] = replace(entry, labels=entry.labels | earlier)
    notes = [] if len(listed) == N_LISTED else [f"celebdf: {path} names {len(listed)} videos, published {N_LISTED}"]
    return listed, notes


def _parse_line(where: str, line: str) -> tuple[Name, _Listed]:
    match = _LINE.fullmatch(line)
    name = _name(match["path"]) if match else None
    if match is None or name is None or not _FOLDERS[name[0]].grammar.fullmatch(name[1]):
        raise UnreadableError(f"{where}: expected '<1 real, 0 fake> <folder>/<name>.mp4', found {line[:80]!r}")
    return name, _Listed(path=match["path"], labels=frozenset({1 - int(match["real"])}))


def _video(file: SourceFile, listed: Mapping[Name, _Listed] | None, uris: Mapping[Name, str]) -> SourceVideo:
    name = _name(file.path)
    if name is None:
        return foreign("celebdf2", file, "outside the published layout")
    video = _described(file.path, name, uris)
    if video.code is not None or listed is None:
        return replace(video, code=video.code or listed_code(file))
    entry = listed.get(name)
    video = replace(video, official_split="test" if entry else "train")
    if entry and entry.labels != {video.label}:
        return replace(video, code=Code.E_LABEL_CONFLICT, detail="the test list and the folder disagree")
    return replace(video, code=listed_code(file))


def _missing(name: Name, entry: _Listed, uris: Mapping[Name, str]) -> SourceVideo:
    video = _described(entry.path, name, uris)
    return replace(video, official_split="test", code=Code.E_MISSING_FILE, detail="named by the test list")


def _described(uri: str, name: Name, uris: Mapping[Name, str]) -> SourceVideo:
    """Return the row of one video as its folder and name describe it."""
    folder = _FOLDERS[name[0]]
    video = SourceVideo(
        uri=uri,
        dataset="celebdf2",
        label=folder.label,
        label_source="folder",
        method="celeb_synthesis" if folder.label == 1 else None,
    )
    match = folder.grammar.fullmatch(name[1])
    if match is None:
        return replace(video, code=Code.E_NAME_GRAMMAR, detail=f"expected {folder.grammar.pattern}")
    parts = match.groupdict()
    if "target" not in parts:
        return video  # YouTube-real: nobody published who these people are
    if "donor" in parts:
        video = replace(video, original_uri=uris.get(("celeb-real", CELEBDF.original_of(parts))))
    return with_keys(video, CELEBDF, parts)


def _count_notes(videos: Sequence[SourceVideo]) -> list[str]:
    absent = (Code.E_MISSING_FILE, Code.E_NAME_GRAMMAR, Code.E_DUP_NAME, Code.S_FOREIGN)
    found = Counter(video.uri.partition("/")[0].lower() for video in videos if video.code not in absent)
    return [
        f"celebdf: {found[name]} of {folder.n_published} {name} videos found"
        for name, folder in _FOLDERS.items()
        if found[name] != folder.n_published
    ]
