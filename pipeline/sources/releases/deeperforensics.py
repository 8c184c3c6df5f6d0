"""DeeperForensics-1.0: faces of paid actors, swapped into the videos of FaceForensics++.

    manipulated_videos/<variant>/NNN_<actor>.mp4    lists/splits/{train,val,test}.txt
    source_videos/<actor>/<light>/<expression>/<camera>/<actor>_<...>.mp4

`NNN` is the sequence of FaceForensics++ that gives body and background, `<actor>` (as `M101`) the face. Eleven variants
have the same 1,000 swaps: `end_to_end`, nine with distortions, one made otherwise. The lists name swaps, a line each,
and hold for all variants (dataset/README.md of EndlessSora/DeeperForensics-1.0).

The originals of the fakes are no part of it: they are the videos of FaceForensics++ at c23. The recordings of the
actors are real, but its authors did not mean them as the real class: they have `source_part` `source_videos`, no split.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lps.manifests.names import SPLITS
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.shared.grammars import FFPP
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.lists import find_list, text_lines
from lps.pipeline.sources.shared.tree import Parts, PlacedVideo, ReleaseFolder, read_tree
from lps.pipeline.sources.shared.types import SourceFile, SourceListing, SourceOptions, make_listing, stem_of

VARIANTS = (
    "end_to_end",
    *(f"end_to_end_level_{level}" for level in range(1, 6)),
    "end_to_end_random_level",
    *(f"end_to_end_mix_{n}_distortions" for n in (2, 3, 4)),
    "reenact_postprocess",
)
_SOURCE = "source_videos"
_ACTOR = r"[MW][0-9]{3}"
_SWAP = re.compile(rf"(?P<sequence>[0-9]{{3}})_(?P<actor>{_ACTOR})")
FOLDERS = {
    **{
        f"manipulated_videos/{variant}": ReleaseFolder(label=1, names=_SWAP, method=variant, n_published=1000)
        for variant in VARIANTS
    },
    _SOURCE: ReleaseFolder(label=0, names=re.compile(rf"(?P<actor>{_ACTOR})_.+"), n_published=48_475, is_nested=True),
}


def list_deeperforensics(files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """List a DeeperForensics-1.0 tree; it may be partial."""
    tree = read_tree(files, FOLDERS, id="deeperforensics", dataset="deeperforensics", title="DeeperForensics-1.0")
    split_of, notes = _read_splits(files, options)
    videos = tree.rows(lambda video, placed, parts: _described(split_of, video, placed, parts))
    if any(video.label == 1 for video in videos):
        notes.append("deeperforensics: no fake has its original: that is the video of its number in FaceForensics++")
    if any(video.label == 0 for video in videos):
        notes.append("deeperforensics: source_videos are real, but not meant as the real class by their authors")
    return make_listing("deeperforensics", videos, [*notes, *tree.count_notes(videos)])


def _described(split_of: Mapping[str, str], video: SourceVideo, placed: PlacedVideo, parts: Parts) -> SourceVideo:
    actor = f"deeperforensics/actor/{parts['actor']}"
    video = replace(video, identity_keys=(actor,), identity_confidence="published")
    if video.label == 0:
        return replace(video, source_part=_SOURCE, target_keys=(actor,))
    target = f"{FFPP.prefix}/{parts['sequence']}"
    split = split_of.get(placed.stem.lower())
    return replace(video, official_split=split, target_keys=(target,), donor_keys=(actor,))


def _read_splits(files: Sequence[SourceFile], options: SourceOptions) -> tuple[dict[str, str], list[str]]:
    split_of: dict[str, str] = {}
    missing = []
    for split in SPLITS:
        found = find_list(files, options, f"lists/splits/{split}.txt")
        if found is None:
            missing.append(f"{split}.txt")
            continue
        split_of |= {stem_of(line).lower(): split for _, line in text_lines(*found)}
    said = f"deeperforensics: official split unknown: no {', '.join(missing)} in lists/splits/"
    return split_of, [said] if missing else []


LAYOUT = SourceLayout(
    id="deeperforensics",
    title="DeeperForensics-1.0",
    adapter=list_deeperforensics,
    tree=(
        "manipulated_videos/<variant>/NNN_<actor>.mp4\n"
        "source_videos/<actor>/<light>/<expression>/<camera>/<actor>_<...>.mp4\nlists/splits/{train,val,test}.txt"
    ),
    counts="11,000 fake (1,000 in eleven variants), 48,475 recordings of actors",
    labels="the folder",
    splits="lists of the fakes (703, 96, 201 of each variant)",
    leakage="targets are the sequences of ffpp, with its keys, donors are actors; the originals are in ffpp",
    page="https://github.com/EndlessSora/DeeperForensics-1.0",
    sign=re.compile(
        rf"(?:.*/)?(?:manipulated_videos/[^/]+/(?:videos/)?[0-9]{{3}}_|source_videos/(?:.*/)?){_ACTOR}.*\.mp4", re.I
    ),
)
