"""FakeAVCeleb (v1.2): celebrities of VoxCeleb2, with fake pictures, fake sound, or both.

    {RealVideo,FakeVideo}-{RealAudio,FakeAudio}/<race>/<gender>/<id>/<clip>[_...].mp4    meta_data.csv

This project looks at pictures: **RealVideo-FakeAudio is real** and has no method. `source_part` has the type of each
video. A video made from clip `00109` has a name that begins with `00109_`. `<id>` is the VoxCeleb2 speaker in the
picture; ids in the name are those whose face or voice was put in. `meta_data.csv` gives the method, by which faces
(`faceswap`, `fsgan`) are donors, and voices (`wav2lip` alone) are not. Without it every id of a name counts as donor.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lps.manifests.records import SourceVideo
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.lists import csv_rows, find_list
from lps.pipeline.sources.shared.tree import Name, Parts, PlacedVideo, ReleaseFolder, ReleaseTree, place_of, read_tree
from lps.pipeline.sources.shared.types import (
    SourceFile,
    SourceListing,
    SourceOptions,
    make_listing,
    orphans,
    unresolved_note,
)

METADATA = "meta_data.csv"
SPEAKER = "voxceleb2/id"
"""Prefix of the keys of VoxCeleb2 speakers, in this and other data sets made from it."""
_TYPES = {
    "RealVideo-RealAudio": (0, 500),
    "RealVideo-FakeAudio": (0, 500),
    "FakeVideo-RealAudio": (1, 9709),
    "FakeVideo-FakeAudio": (1, 10_835),
}
_REAL = "realvideo-realaudio"
_TYPE_OF = {name.lower(): name for name in _TYPES}
_NAMES = re.compile(r"(?P<clip>[0-9]+)(?:_.+)?")
_ID = re.compile(r"(?:(?<=_)|^)id[0-9]{5}(?=_|$)")
_VOICE_ONLY = "wav2lip"
FOLDERS = {
    name.lower(): ReleaseFolder(
        label=label,
        names=_NAMES,
        method=name if label == 1 else None,
        n_published=n,
        is_nested=True,
        repeats_stems=True,
    )
    for name, (label, n) in _TYPES.items()
}


def list_fakeavceleb(files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """List a FakeAVCeleb tree; it may be partial."""
    tree = read_tree(files, FOLDERS, id="fakeavceleb", dataset="fakeavceleb", title="FakeAVCeleb")
    methods, paths, notes = _read_metadata(files, options)

    def described(video: SourceVideo, placed: PlacedVideo, parts: Parts) -> SourceVideo:
        return _described(tree, methods, video, placed, parts)

    videos = tree.rows(described)
    videos += tree.missing(paths, described, METADATA)
    n_heard = sum(video.code is None and video.source_part == "RealVideo-FakeAudio" for video in videos)
    notes += [f"fakeavceleb: {n_heard} videos with real pictures and fake sound count as real"] if n_heard else []
    notes += ["fakeavceleb: no official split is published", *tree.count_notes(videos)]
    return make_listing("fakeavceleb", videos, [*notes, *unresolved_note("fakeavceleb", orphans(videos))])


def _described(
    tree: ReleaseTree, methods: Mapping[Name, str], video: SourceVideo, placed: PlacedVideo, parts: Parts
) -> SourceVideo:
    person = placed.inner[-1].lower() if placed.inner else ""
    if not _ID.fullmatch(person):
        return video
    method = methods.get(placed.name, video.method) if video.label == 1 else None
    donors = _ID.findall(placed.stem) if video.label == 1 and method != _VOICE_ONLY else []
    clip = f"{placed.name[1].rpartition('/')[0]}/{parts['clip']}"
    persons = sorted({f"{SPEAKER}/{shown}" for shown in (person, *donors)})
    return replace(
        video,
        method=method,
        source_part=_TYPE_OF[placed.folder],
        original_uri=tree.uris.get((_REAL, clip)) if video.label == 1 else None,
        target_keys=(f"fakeavceleb/clip/{person}/{parts['clip']}",),
        donor_keys=tuple(sorted({f"{SPEAKER}/{donor}" for donor in donors})),
        identity_keys=tuple(persons),
        identity_confidence="published",
    )


def _read_metadata(files: Sequence[SourceFile], options: SourceOptions) -> tuple[dict[Name, str], list[str], list[str]]:
    """Return the method by name, the path of every name once, and notes."""
    found = find_list(files, options, METADATA)
    if found is None:
        return {}, [], [f"fakeavceleb: methods unknown: no {METADATA}"]
    methods: dict[Name, str] = {}
    paths: dict[Name, str] = {}
    for _, row in csv_rows(*found, "source", "method", "type", "race", "gender", "path"):
        path = "/".join(row[column].strip() for column in ("type", "race", "gender", "source", "path"))
        placed = place_of(path, FOLDERS)
        if placed is not None:
            methods[placed.name] = row["method"].strip()
            paths.setdefault(placed.name, path)
    return methods, [*paths.values()], []


LAYOUT = SourceLayout(
    id="fakeavceleb",
    title="FakeAVCeleb (v1.2)",
    adapter=list_fakeavceleb,
    tree=("{RealVideo,FakeVideo}-{RealAudio,FakeAudio}/<race>/<gender>/<id>/<clip>[_...].mp4\nmeta_data.csv"),
    counts="1,000 real pictures (500 of them with fake sound), 20,544 fake",
    labels="the folder; real pictures with fake sound are real",
    splits="none",
    leakage="speakers of VoxCeleb2 by folder and name, with the keys of av-deepfake1m-pp; most fakes join two of them",
    page="https://github.com/DASH-Lab/FakeAVCeleb",
    sign=re.compile(rf"(?:.*/)?(?:{'|'.join(_TYPES)})/(?:.*/)?id[0-9]{{5}}/(?:videos/)?[^/]+\.mp4", re.IGNORECASE),
)
