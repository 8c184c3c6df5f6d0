"""UADFV: 49 videos and a face swap of each.

    real/NNNN.mp4    fake/NNNN_fake.mp4

A fake has the number of the real video that it was made from. Nobody published who the people are, nor a split.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from lps.manifests.records import SourceVideo
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.tree import Parts, PlacedVideo, ReleaseFolder, ReleaseTree, read_tree
from lps.pipeline.sources.shared.types import (
    DEFAULT_METHOD,
    SourceFile,
    SourceListing,
    SourceOptions,
    make_listing,
    orphans,
    unresolved_note,
)

FOLDERS = {
    "real": ReleaseFolder(label=0, names=re.compile(r"(?P<number>[0-9]{4})"), n_published=49),
    "fake": ReleaseFolder(
        label=1, names=re.compile(r"(?P<number>[0-9]{4})_fake"), method=DEFAULT_METHOD, n_published=49
    ),
}


def list_uadfv(files: Sequence[SourceFile], _options: SourceOptions) -> SourceListing:
    """List a UADFV tree; it may be partial."""
    tree = read_tree(files, FOLDERS, id="uadfv", dataset="uadfv", title="UADFV")
    videos = tree.rows(lambda video, _placed, parts: _described(tree, video, _placed, parts))
    notes = ["uadfv: no official split is published", *tree.count_notes(videos)]
    return make_listing("uadfv", videos, [*notes, *unresolved_note("uadfv", orphans(videos))])


def _described(tree: ReleaseTree, video: SourceVideo, _placed: PlacedVideo, parts: Parts) -> SourceVideo:
    original = tree.uris.get(("real", parts["number"])) if video.label == 1 else None
    return replace(video, original_uri=original, target_keys=(f"uadfv/video/{parts['number']}",))


LAYOUT = SourceLayout(
    id="uadfv",
    title="UADFV",
    adapter=list_uadfv,
    tree="real/NNNN.mp4\nfake/NNNN_fake.mp4",
    counts="49 real, 49 fake",
    labels="the folder",
    splits="none",
    leakage="originals by number, persons are not known; DeepFaceLab fakes of df40 are made from it",
    page="https://docs.google.com/forms/d/e/1FAIpQLScKPoOv15TIZ9Mn0nGScIVgKRM9tFWOmjh9eHKx57Yp-XcnxA/viewform",
    sign=re.compile(r"(?:.*/)?fake/(?:videos/)?[0-9]{4}_fake\.mp4", re.IGNORECASE),
    also=re.compile(r"(?:.*/)?real/(?:videos/)?[0-9]{4}\.mp4", re.IGNORECASE),
)
