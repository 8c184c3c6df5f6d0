"""WildDeepfake: sequences of faces that were cut out of videos of the internet.

    {real,fake}_{train,test}/<n>.tar.gz    in each: ./<n>/{real,fake}/<sequence>/<frame>.png

A sequence is one input; some of the archives are plain tars, whatever their names say. Unpacked ones are read, too. The
pictures are faces of 224x224 px already. Nobody published which video or person a sequence shows: those of one archive
share a key, as far as they may be of one video. Neither is the rate; time stamps are counted from `frames_fps`.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from lps.manifests.codes import Code
from lps.manifests.records import SourceVideo
from lps.manifests.sequences.names import archive_of
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.tree import Parts, PlacedVideo, ReleaseFolder, read_tree
from lps.pipeline.sources.shared.types import (
    DEFAULT_METHOD,
    SourceFile,
    SourceListing,
    SourceOptions,
    make_listing,
)

_ID = "wilddeepfake"
_N_PUBLISHED = {"real_train": 3409, "real_test": 396, "fake_train": 3099, "fake_test": 410}
FOLDERS = {
    name: ReleaseFolder(
        label=int(name.startswith("fake")),
        method=DEFAULT_METHOD if name.startswith("fake") else None,
        names=re.compile(r"(?P<sequence>[0-9]+)"),
        n_published=n,
        is_nested=True,
        repeats_stems=True,
        has_archives=True,
    )
    for name, n in _N_PUBLISHED.items()
}


def list_wilddeepfake(files: Sequence[SourceFile], _options: SourceOptions) -> SourceListing:
    """List a WildDeepfake tree; it may be partial."""
    tree = read_tree(files, FOLDERS, id=_ID, dataset=_ID, title="WildDeepfake")
    videos = tree.rows(_described)
    notes = [
        "wilddeepfake: persons and videos are not published; sequences of one archive are kept together",
        "wilddeepfake: its pictures are faces already, without time stamps",
    ]
    return make_listing(_ID, videos, [*notes, *tree.count_notes(videos)])


def _described(video: SourceVideo, placed: PlacedVideo, parts: Parts) -> SourceVideo:
    label = next((folder.lower() for folder in placed.inner if folder.lower() in ("real", "fake")), "")
    archive = archive_of(video.uri)
    number = archive[0].rpartition("/")[2].partition(".")[0] if archive else "".join(placed.inner[:1])
    key = f"archive/{placed.folder}/{number}" if number.isdigit() else f"sequence/{placed.folder}/{parts['sequence']}"
    video = replace(video, official_split=placed.folder.rpartition("_")[2], target_keys=(f"{_ID}/{key}",))
    if label and label != ("real", "fake")[video.label or 0]:
        return replace(video, code=Code.E_LABEL_CONFLICT, detail=f"a folder {label}/ in {placed.folder}/")
    return video


LAYOUT = SourceLayout(
    id=_ID,
    title="WildDeepfake",
    adapter=list_wilddeepfake,
    tree="{real,fake}_{train,test}/<n>.tar.gz: ./<n>/{real,fake}/<sequence>/<frame>.png",
    counts="3,805 real, 3,509 fake sequences of faces",
    labels="the folder",
    splits="train 3,409 real and 3,099 fake, test 396 and 410, by folder",
    leakage="persons and videos are not published; sequences of one archive are kept together",
    page="https://github.com/OpenTAI/wild-deepfake",
    sign=re.compile(r"(?:.*/)?(?:real|fake)_(?:train|test)/[0-9]+(?:\.tar\.gz|/.*\.png)", re.IGNORECASE),
    has_sequences=True,
)
