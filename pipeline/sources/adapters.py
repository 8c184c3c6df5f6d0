"""The inputs of a run: which adapter reads which data set.

Every listed file becomes exactly one row, whatever it is; only a table chooses its own rows, and sequences of images
have a row in the place of their images or of their archive. Where links make several paths of one file inputs, one is
used: a path without a link before those with one, then the first by its text. The others are rows with S_LINK.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.pipeline.sources import deepfakebench, folder, frames, table
from lps.pipeline.sources.releases import (
    avdeepfake,
    celebdf,
    deeperforensics,
    deepfake_eval,
    deepspeak,
    df40,
    dfdc,
    dfdc_preview,
    fakeavceleb,
    ffiw,
    ffpp,
    ffpp_flat,
    idforge,
    kodf,
    uadfv,
    wilddeepfake,
)
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.types import Adapter, SourceFile, SourceListing, SourceOptions

__all__ = ["ADAPTERS", "LAYOUTS", "SourceFile", "SourceListing", "SourceOptions", "list_videos"]

_ALL = (
    folder.LAYOUT,
    frames.LAYOUT,
    table.LAYOUT,
    ffpp.LAYOUT,
    ffpp_flat.LAYOUT,
    dfdc.LAYOUT,
    dfdc_preview.LAYOUT,
    celebdf.LAYOUT_V2,
    celebdf.LAYOUT_V1,
    celebdf.LAYOUT_PP,
    df40.LAYOUT,
    deeperforensics.LAYOUT,
    deepfake_eval.LAYOUT,
    fakeavceleb.LAYOUT,
    ffiw.LAYOUT,
    uadfv.LAYOUT,
    deepspeak.LAYOUT_V1,
    deepspeak.LAYOUT_V2,
    kodf.LAYOUT,
    avdeepfake.LAYOUT,
    idforge.LAYOUT,
    wilddeepfake.LAYOUT,
    deepfakebench.LAYOUT,
)
LAYOUTS: dict[str, SourceLayout] = {layout.id: layout for layout in _ALL}
ADAPTERS: dict[str, Adapter] = {name: layout.adapter for name, layout in LAYOUTS.items()}


def list_videos(dataset: str, files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """Turn the files below a source root into input videos; the order of `files` does not matter.

    Raises UnreadableError when the tree is not of this data set or a metadata file is malformed. A fault of a single
    video is its row's `code` instead.
    """
    if dataset not in ADAPTERS:
        raise UnreadableError(f"no data set is called {dataset!r}: choose one of {', '.join(ADAPTERS)}")
    _refuse_repeats("the store lists", (file.path for file in files))
    ordered = sorted(files, key=lambda file: file.path)
    listing = ADAPTERS[dataset](ordered, options)
    same_as = _other_paths(ordered, listing)
    if same_as:
        ordered = [_as_other_path(file, same_as[file.path]) if file.path in same_as else file for file in ordered]
        listing = ADAPTERS[dataset](ordered, options)
    listing = _with_details(listing, ordered)
    # Rows are named by data set and uri from here on, so one of two equal rows would vanish.
    _refuse_repeats("the source yields", (f"{video.dataset}: {video.uri}" for video in listing.videos))
    return listing


def _refuse_repeats(who: str, names: Iterable[str]) -> None:
    repeated = sorted(name for name, n in Counter(names).items() if n > 1)
    if repeated:
        raise UnreadableError(f"{who} {repeated[0]!r} more than once ({len(repeated)} such names)")


def _other_paths(files: Iterable[SourceFile], listing: SourceListing) -> dict[str, str]:
    """Map every further path of a file that several paths make an input to the path that is used."""
    inputs = {video.uri for video in listing.videos if video.code in (None, Code.E_DUP_NAME)}
    paths: dict[str, list[SourceFile]] = defaultdict(list)
    for file in files:
        if file.real and file.path in inputs:
            paths[file.real].append(file)
    found: dict[str, str] = {}
    for same in paths.values():
        used, *others = sorted(same, key=lambda file: (file.is_linked, file.path))
        found |= {file.path: used.path for file in others}
    return found


def _as_other_path(file: SourceFile, used: str) -> SourceFile:
    return replace(file, code=Code.S_LINK, detail=f"same file as {used}", same_as=used)


def _with_details(listing: SourceListing, files: Iterable[SourceFile]) -> SourceListing:
    """Say in the rows what the store said of files that it could not list, and of other paths."""
    said = {file.path: file for file in files if file.code is not None}
    videos = tuple(
        replace(video, detail=said[video.uri].detail)
        if video.uri in said and video.code == said[video.uri].code
        else video
        for video in listing.videos
    )
    return replace(listing, videos=videos)
