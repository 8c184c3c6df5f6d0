"""FFIW-10K: videos of several people from the wild, in which faces were swapped.

    {source,target}/{train,val,test}/NNNNNNNN.mp4    target_mask/{train,val}/...

`source` is real, `target` fake; `target_mask` has masks, which are no inputs (README of tfzhou/FFIW). The test part
comes as a download of its own, so the parts need not lie beside each other. Source and target have the same numbers.
That the two of one number are a pair is published nowhere: a common key keeps them in one split, no original is set.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from lps.manifests.records import SourceVideo
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.tree import Parts, PlacedVideo, ReleaseFolder, read_tree
from lps.pipeline.sources.shared.types import DEFAULT_METHOD, SourceFile, SourceListing, SourceOptions, make_listing

_NAMES = re.compile(r"(?:train_|val_|test_)?(?P<number>[0-9]{8})")
_N_PUBLISHED = {"train": 8000, "val": 250, "test": 1738}
FOLDERS = {
    **{f"source/{s}": ReleaseFolder(label=0, names=_NAMES, n_published=n) for s, n in _N_PUBLISHED.items()},
    **{
        f"target/{s}": ReleaseFolder(label=1, names=_NAMES, method=DEFAULT_METHOD, n_published=n)
        for s, n in _N_PUBLISHED.items()
    },
    **{f"target_mask/{s}": ReleaseFolder(label=1, names=_NAMES, is_mask=True, is_nested=True) for s in _N_PUBLISHED},
}


def list_ffiw(files: Sequence[SourceFile], _options: SourceOptions) -> SourceListing:
    """List an FFIW-10K tree; it may be partial."""
    tree = read_tree(files, FOLDERS, id="ffiw", dataset="ffiw", title="FFIW-10K", is_scattered=True)
    videos = tree.rows(_described)
    notes = ["ffiw: source and target of one number are kept together; that they are pairs is not published"]
    return make_listing("ffiw", videos, [*notes, *tree.count_notes(videos)])


def _described(video: SourceVideo, placed: PlacedVideo, parts: Parts) -> SourceVideo:
    split = placed.folder.rpartition("/")[2]
    return replace(video, official_split=split, target_keys=(f"ffiw/video/{split}/{parts['number']}",))


LAYOUT = SourceLayout(
    id="ffiw",
    title="FFIW-10K",
    adapter=list_ffiw,
    tree="source/{train,val,test}/NNNNNNNN.mp4\ntarget/{train,val,test}/NNNNNNNN.mp4\ntarget_mask/{train,val}/...",
    counts="9,988 real, 9,988 fake",
    labels="the folder",
    splits="train 8,000, val 250, test 1,738 of each, by folder",
    leakage="persons and originals are not published; videos of one number are kept together",
    page="https://github.com/tfzhou/FFIW",
    sign=re.compile(r"(?:.*/)?(?:source|target)/(?:train|val|test)/(?:videos/)?[a-z_]*[0-9]{8}\.mp4", re.IGNORECASE),
)
