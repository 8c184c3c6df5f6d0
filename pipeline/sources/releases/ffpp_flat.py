"""FaceForensics++ as copies without its tree have it, such as Kaggle's `xdxd003/ff-c23`: one folder a method.

    FaceForensics++_C23/original/NNN.mp4    csv/*.csv
    FaceForensics++_C23/{Deepfakes,Face2Face,FaceShifter,FaceSwap,NeuralTextures}/NNN_NNN.mp4
    FaceForensics++_C23/DeepFakeDetection/<actors>__<scene>__<code>.mp4

Names, keys, lists and originals are those of `ffpp`. The compression is what a folder above the videos says, such as
`FaceForensics++_C23`: give the folder that holds it as SOURCE. Kaggle's copy has 1,000 of the 3,068 fakes of
DeepFakeDetection, and none of their originals; its tables give no split.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from lps.manifests.records import SourceVideo
from lps.pipeline.sources.releases.ffpp_lists import Lists, read_lists, with_lists
from lps.pipeline.sources.shared.grammars import DFD, FFPP, with_keys
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.tree import Parts, PlacedVideo, ReleaseFolder, ReleaseTree, read_tree
from lps.pipeline.sources.shared.types import (
    SourceFile,
    SourceListing,
    SourceOptions,
    make_listing,
    orphans,
    unresolved_note,
)

_METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
_REAL, _ACTORS, _DFD = "original", "actors", "DeepFakeDetection"
FOLDERS = {
    _REAL: ReleaseFolder(label=0, names=FFPP.real, n_published=1000),
    **{m.lower(): ReleaseFolder(label=1, names=FFPP.fake, method=m, n_published=1000) for m in _METHODS},
    _DFD.lower(): ReleaseFolder(label=1, names=DFD.fake, method=_DFD, n_published=3068),
    _ACTORS: ReleaseFolder(label=0, names=DFD.real, n_published=363),
}
_COMPRESSION = re.compile(r"(?:.*[^a-z0-9])?(raw|c0|c23|c40)")


def list_ffpp_flat(files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """List a flat copy of FaceForensics++; it may be partial. Published lists are optional, and come with notes."""
    tree = read_tree(files, FOLDERS, id="ffpp-flat", dataset="ffpp", title="a flat copy of FaceForensics++")
    lists = read_lists(files, options, "ffpp-flat")
    videos = tree.rows(lambda video, placed, parts: _described(tree, lists, video, placed, parts))
    is_unknown = any(video.label is not None and video.compression is None for video in videos)
    notes = ["ffpp-flat: compression unknown: no folder above the videos names it (as FaceForensics++_C23 does)"]
    notes = [*lists.notes, *(notes if is_unknown else ()), *tree.count_notes(videos)]
    return make_listing("ffpp-flat", videos, [*notes, *unresolved_note("ffpp-flat", orphans(videos))])


def _described(tree: ReleaseTree, lists: Lists, video: SourceVideo, placed: PlacedVideo, parts: Parts) -> SourceVideo:
    is_dfd = placed.folder in (_ACTORS, _DFD.lower())
    names, reals = (DFD, _ACTORS) if is_dfd else (FFPP, _REAL)
    video = replace(video, dataset="dfd" if is_dfd else "ffpp", compression=_compression(placed.top))
    if video.label == 1:
        video = replace(video, original_uri=tree.uris.get((reals, names.original_of(parts))))
    if not is_dfd:
        video = with_lists(video, [parts[role] for role in ("target", "donor") if role in parts], lists)
    return with_keys(video, names, parts)


def _compression(folders: Sequence[str]) -> str | None:
    """Return what the innermost folder that names a compression says; `raw` and `c0` are one."""
    found = [match[1] for folder in folders if (match := _COMPRESSION.fullmatch(folder.lower()))]
    return {"raw": "c0"}.get(found[-1], found[-1]) if found else None


LAYOUT = SourceLayout(
    id="ffpp-flat",
    title="FaceForensics++, copies with one folder a method (Kaggle: xdxd003/ff-c23)",
    adapter=list_ffpp_flat,
    tree=(
        "FaceForensics++_C23/original/NNN.mp4\nFaceForensics++_C23/<method>/NNN_NNN.mp4\n"
        "FaceForensics++_C23/DeepFakeDetection/<actors>__<scene>__<code>.mp4\n"
        "train.json, val.json, test.json, conversion_dict.json in --splits-dir"
    ),
    counts="1,000 real, 5,000 fake; DeepFakeDetection: 1,000 fake",
    labels="the folder",
    splits="not in the copy; the lists of FaceForensics++ in --splits-dir",
    leakage="as ffpp, with its keys: never mix the two; the fakes of DeepFakeDetection are without their originals",
    page="https://github.com/ondyari/FaceForensics",
    sign=re.compile(rf"(?:.*/)?(?:{'|'.join(_METHODS)})/(?:videos/)?[0-9]{{3}}_[0-9]{{3}}\.mp4", re.IGNORECASE),
    also=re.compile(rf"(?:.*/)?(?:{_REAL}|{_ACTORS}|{_DFD})/(?:videos/)?[0-9]{{2}}[^/]*\.mp4", re.IGNORECASE),
)
