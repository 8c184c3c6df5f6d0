"""KoDF: Korean actors, and fakes of them by five methods.

    **/<actor>/<actor>_NNN.mp4    **/<date>/<target>/<target>_<donor>_<code>_<number>.mp4

An actor is 20 hexadecimal characters or six digits. The name alone tells what a video is, wherever it lies: a fake has
four parts, of which `<code>` is the method. Which recording a fake was made from, and a split, are not published.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.shared.grammars import NameGrammar, with_keys
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.types import (
    NOT_A_VIDEO,
    SourceFile,
    SourceListing,
    SourceOptions,
    flag_duplicates,
    foreign,
    is_video,
    listed_code,
    make_listing,
    stem_of,
)

METHODS = {"1": "dfl", "2": "dffs", "3": "fsgan", "4": "fo", "5": "audio-driven"}
_ACTOR = r"(?:[0-9a-f]{20}|[0-9]{6})"
NAMES = NameGrammar(
    title="KoDF",
    real=re.compile(rf"(?P<target>{_ACTOR})_[0-9]{{3}}"),
    fake=re.compile(rf"(?P<target>{_ACTOR})_(?P<donor>{_ACTOR})_(?P<code>[1-5])_[0-9]+"),
    original="{target}",
    prefix="kodf/actor",
    names_persons=True,
)
N_PUBLISHED = (62_166, 175_776)
"""Real videos and fakes."""


def list_kodf(files: Sequence[SourceFile], _options: SourceOptions) -> SourceListing:
    """List the videos whose names are those of KoDF; any part of it alone."""
    videos = flag_duplicates(map(_video, files), lambda video: stem_of(video.uri))
    counts = [sum(video.label == label for video in videos) for label in (0, 1)]
    if not any(counts):
        raise UnreadableError("not KoDF: the source has no videos named <actor>_NNN or <actor>_<actor>_<code>_<number>")
    notes = ["kodf: no official split is published", "kodf: no fake has its original: it is not published"]
    for n, published, side in zip(counts, N_PUBLISHED, ("real videos", "fakes"), strict=True):
        notes += [f"kodf: {n} of {published} {side} found"] if n != published else []
    return make_listing("kodf", videos, notes)


def _video(file: SourceFile) -> SourceVideo:
    stem = stem_of(file.path).lower()
    real, fake = NAMES.real.fullmatch(stem), NAMES.fake.fullmatch(stem)
    match = fake or real
    if match is None or not is_video(file.path):
        return foreign("kodf", file, "no name of KoDF" if is_video(file.path) else NOT_A_VIDEO)
    video = SourceVideo(
        uri=file.path,
        dataset="kodf",
        label=1 if fake else 0,
        label_source="folder",
        method=METHODS[fake["code"]] if fake else None,
    )
    return replace(with_keys(video, NAMES, match.groupdict()), code=listed_code(file))


LAYOUT = SourceLayout(
    id="kodf",
    title="KoDF",
    adapter=list_kodf,
    tree="**/<actor>/<actor>_NNN.mp4\n**/<date>/<target>/<target>_<donor>_<code>_<number>.mp4",
    counts="62,166 real, 175,776 fake by five methods",
    labels="the name",
    splits="none",
    leakage="403 actors by file name; fakes join two of them; originals are not published",
    page="https://github.com/deepbrainai-research/kodf",
    sign=re.compile(rf"(?:.*/)?{_ACTOR}_{_ACTOR}_[1-5]_[0-9]+\.mp4", re.IGNORECASE),
    also=re.compile(rf"(?:.*/)?{_ACTOR}_[0-9]{{3}}\.mp4", re.IGNORECASE),
)
