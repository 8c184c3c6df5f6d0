"""IDForge (v1): videos of 54 people, and forgeries of faces, lips, speech and text.

    {pristine,<task>}/<person>/<session>/<person>_<...>.mp4    {train,val,test}.csv

Seven of the ten tasks change the picture. **The other three change the sound alone and are real here**; they have
their task as `source_part`. The lists have a path `<task>/<person>/<session>/<file>` a line, without a header. Which
recording a fake was made from is not published: fakes have their person, and no original.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lps.manifests.names import SPLITS
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.lists import find_list, text_lines
from lps.pipeline.sources.shared.tree import Name, Parts, PlacedVideo, ReleaseFolder, place_of, read_tree
from lps.pipeline.sources.shared.types import SourceFile, SourceListing, SourceOptions, make_listing

_REAL = "pristine"
_FAKE = (
    "face_audiomismatch_textmismatch",
    "face_rvc_textmismatch",
    "face_tts",
    "face_tts_textgen",
    "lip_audiomismatch_textmismatch",
    "lip_rvc_textmismatch",
    "lip_tts_textgen",
)
_HEARD = ("rvc_textmismatch", "tts_textgen", "tts_textmismatch")
_NAMES = re.compile(r"(?P<person>id[0-9]+)_.+")


def _folder(label: int, method: str | None = None, n_published: int | None = None) -> ReleaseFolder:
    return ReleaseFolder(
        label=label, names=_NAMES, method=method, n_published=n_published, is_nested=True, repeats_stems=True
    )


FOLDERS = {
    _REAL: _folder(0, n_published=80_000),
    **{task: _folder(1, task) for task in _FAKE},
    **{task: _folder(0) for task in _HEARD},
}


@dataclass(frozen=True, slots=True)
class _SplitLists:
    """What the three lists say."""

    of_name: dict[Name, str] = field(default_factory=dict)
    of_any: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Splits of a session's video in whatever task."""

    def split_of(self, name: Name) -> str | None:
        """Return the split of a video; one that no line names has that of its namesakes, if they have one."""
        others = self.of_any.get(name[1], set())
        return self.of_name.get(name) or (next(iter(others)) if len(others) == 1 else None)


def list_idforge(files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """List an IDForge tree; it may be partial."""
    tree = read_tree(files, FOLDERS, id="idforge", dataset="idforge", title="IDForge")
    lists, notes = _read_lists(files, options)
    videos = tree.rows(lambda video, placed, parts: _described(lists, video, placed, parts))
    n_heard = sum(video.code is None and video.source_part in _HEARD for video in videos)
    notes += [f"idforge: {n_heard} videos with real pictures and fake sound count as real"] if n_heard else []
    notes += ["idforge: no fake has its original: it is not published", *tree.count_notes(videos)]
    return make_listing("idforge", videos, notes)


def _described(lists: _SplitLists, video: SourceVideo, placed: PlacedVideo, parts: Parts) -> SourceVideo:
    person = (f"idforge/id/{parts['person']}",)
    return replace(
        video,
        source_part=placed.folder,
        official_split=lists.split_of(placed.name),
        target_keys=person,
        identity_keys=person,
        identity_confidence="published",
    )


def _read_lists(files: Sequence[SourceFile], options: SourceOptions) -> tuple[_SplitLists, list[str]]:
    lists = _SplitLists()
    notes: list[str] = []
    for split in SPLITS:
        found = find_list(files, options, f"{split}.csv")
        if found is None:
            notes.append(f"idforge: official split unknown: no {split}.csv")
            continue
        n_unread = 0
        for _, line in text_lines(*found):
            placed = place_of(line, FOLDERS)
            n_unread += placed is None
            if placed is not None:
                lists.of_name.setdefault(placed.name, split)
                lists.of_any[placed.name[1]].add(split)
        notes += [f"idforge: {n_unread} lines of {found[0]} name no video of IDForge"] if n_unread else []
    return lists, notes


LAYOUT = SourceLayout(
    id="idforge",
    title="IDForge (v1)",
    adapter=list_idforge,
    tree="pristine/<person>/<session>/<person>_<...>.mp4\n<task>/<person>/<session>/<person>_<...>.mp4\n"
    "{train,val,test}.csv",
    counts="80,000 real, 170,000 by ten tasks, of which three change the sound alone",
    labels="the folder; real pictures with fake sound are real",
    splits="train.csv, val.csv, test.csv",
    leakage="54 persons by file name, each in many videos; originals are not published",
    page="https://github.com/xyyandxyy/IDForge",
    sign=re.compile(
        rf"(?:.*/)?(?:{'|'.join((_REAL, *_FAKE, *_HEARD))})/(?:.*/)?id[0-9]+_[^/]*/(?:videos/)?id[0-9]+_[^/]+\.mp4",
        re.IGNORECASE,
    ),
)
