"""DFDC preview: paid actors, and swaps between them by two methods.

    original_videos/<actor>/**/<actor>_<setting>_<clip>.mp4    dataset.json
    method_{A,B}/<actor>/<actor>_<setting>/<donor>_<actor>_<setting>_<clip>.mp4

`<actor>` gives body and background, `<donor>` the face: the original of a fake has its name without the donor.
`dataset.json` has an entry `{"label": "real" or "fake", "set": "train" or "test"}` for each path. It gives the split;
its labels are compared with the folders.

DFDC is a later data set of the same makers. Whether an actor is in both is not published, so their keys are not shared.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.shared.grammars import NameGrammar, with_keys
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.lists import find_list
from lps.pipeline.sources.shared.tree import (
    Name,
    Parts,
    PlacedVideo,
    ReleaseFolder,
    ReleaseTree,
    place_of,
    read_tree,
)
from lps.pipeline.sources.shared.types import (
    SourceFile,
    SourceListing,
    SourceOptions,
    make_listing,
    orphans,
    parse_json,
    unresolved_note,
)

NAMES = NameGrammar(
    title="DFDC preview",
    real=re.compile(r"(?P<target>[0-9]+)_(?P<clip>[A-Za-z]+_[0-9]+)"),
    fake=re.compile(r"(?P<donor>[0-9]+)_(?P<target>[0-9]+)_(?P<clip>[A-Za-z]+_[0-9]+)"),
    original="{target}_{clip}",
    prefix="dfdcp/actor",
    names_persons=True,
)
FOLDERS = {
    "original_videos": ReleaseFolder(label=0, names=NAMES.real, n_published=1131, is_nested=True),
    "method_a": ReleaseFolder(label=1, names=NAMES.fake, method="method_A", is_nested=True),
    "method_b": ReleaseFolder(label=1, names=NAMES.fake, method="method_B", is_nested=True),
}
N_FAKES = 4119
_LABELS = {"real": 0, "fake": 1}
_SETS = ("train", "test")


@dataclass(frozen=True, slots=True)
class _PreviewEntry:
    """What the list says of one path."""

    path: str
    label: int
    split: str


def list_dfdc_preview(files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """List a tree of the DFDC preview; it may be partial."""
    tree = read_tree(files, FOLDERS, id="dfdc-preview", dataset="dfdcp", title="DFDC preview")
    entries, notes = _read_entries(files, options)

    def described(video: SourceVideo, placed: PlacedVideo, parts: Parts) -> SourceVideo:
        return _described(tree, entries, video, placed, parts)

    videos = tree.rows(described)
    videos += tree.missing((entry.path for entry in entries.values()), described, "dataset.json")
    n_fakes = sum(video.label == 1 and video.code != Code.E_MISSING_FILE for video in videos)
    counted = [f"dfdc-preview: {n_fakes} of {N_FAKES} fakes found"] if n_fakes != N_FAKES else []
    notes = [*notes, *tree.count_notes(videos), *counted, *unresolved_note("dfdc-preview", orphans(videos))]
    return make_listing("dfdc-preview", videos, notes)


def _described(
    tree: ReleaseTree, entries: Mapping[Name, _PreviewEntry], video: SourceVideo, placed: PlacedVideo, parts: Parts
) -> SourceVideo:
    if video.label == 1:
        video = replace(video, original_uri=tree.uris.get(("original_videos", NAMES.original_of(parts))))
    video = with_keys(video, NAMES, parts)
    entry = entries.get(placed.name)
    if entry is None:
        return video
    video = replace(video, official_split=entry.split)
    if entry.label != video.label:
        return replace(video, code=Code.E_LABEL_CONFLICT, detail="dataset.json and the folder disagree")
    return video


def _read_entries(files: Sequence[SourceFile], options: SourceOptions) -> tuple[dict[Name, _PreviewEntry], list[str]]:
    found = find_list(files, options, "dataset.json")
    if found is None:
        return {}, ["dfdc-preview: official split unknown: no dataset.json"]
    path, data = found
    table = parse_json(path, data)
    if not isinstance(table, dict):
        raise UnreadableError(f"{path}: expected an object keyed by video path")
    entries: dict[Name, _PreviewEntry] = {}
    for key, value in table.items():
        placed = place_of(key, FOLDERS)
        if placed is None:
            raise UnreadableError(
                f"{path}: {key!r} is no path of the DFDC preview, such as original_videos/1/1_A_001.mp4"
            )
        entries[placed.name] = _entry(path, key, value)
    return entries, []


def _entry(path: str, key: str, value: Any) -> _PreviewEntry:
    label, split = (
        (str(value.get(field)).lower() for field in ("label", "set")) if isinstance(value, dict) else ("", "")
    )
    if label not in _LABELS or split not in _SETS:
        raise UnreadableError(f'{path}: entry {key!r} needs a label "real" or "fake" and a set "train" or "test"')
    return _PreviewEntry(key, _LABELS[label], split)


LAYOUT = SourceLayout(
    id="dfdc-preview",
    title="DFDC preview",
    adapter=list_dfdc_preview,
    tree=(
        "original_videos/<actor>/<actor>_<setting>_<clip>.mp4\n"
        "method_{A,B}/<actor>/<actor>_<setting>/<donor>_<actor>_<setting>_<clip>.mp4\ndataset.json"
    ),
    counts="1,131 real, 4,119 fake by two methods",
    labels="the folder, compared with dataset.json",
    splits="train and test in dataset.json",
    leakage="actors by file name; dfdc is a later data set of the same makers, and may show the same actors",
    page="https://ai.meta.com/datasets/dfdc/",
    sign=re.compile(r"(?:.*/)?(?:method_[ab]/.*/[0-9]+_|original_videos/.*/)[0-9]+_[a-z]+_[0-9]+\.mp4", re.IGNORECASE),
)
