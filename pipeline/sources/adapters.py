"""The inputs of a run: which adapter reads which data set.

Every listed file becomes exactly one row, whatever it is; only a table chooses its own rows.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from lps.manifests.errors import UnreadableError
from lps.pipeline.sources.celebdf import list_celebdf
from lps.pipeline.sources.dfdc import list_dfdc
from lps.pipeline.sources.ffpp import list_ffpp
from lps.pipeline.sources.folder import list_folder
from lps.pipeline.sources.table import list_table
from lps.pipeline.sources.types import Adapter, SourceFile, SourceListing, SourceOptions

__all__ = ["ADAPTERS", "SourceFile", "SourceListing", "SourceOptions", "list_videos"]

ADAPTERS: dict[str, Adapter] = {
    "folder": list_folder,
    "table": list_table,
    "ffpp": list_ffpp,
    "dfdc": list_dfdc,
    "celebdf": list_celebdf,
}


def list_videos(dataset: str, files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """Turn the files below a source root into input videos; the order of `files` does not matter.

    Raises UnreadableError when the tree is not of this data set or a metadata file is malformed. A fault of a single
    video is its row's `code` instead.
    """
    if dataset not in ADAPTERS:
        raise UnreadableError(f"no data set is called {dataset!r}: choose one of {', '.join(ADAPTERS)}")
    _refuse_repeats("the store lists", (file.path for file in files))
    listing = ADAPTERS[dataset](sorted(files, key=lambda file: file.path), options)
    # Rows are named by data set and uri from here on, so one of two equal rows would vanish.
    _refuse_repeats("the source yields", (f"{video.dataset}: {video.uri}" for video in listing.videos))
    return listing


def _refuse_repeats(who: str, names: Iterable[str]) -> None:
    repeated = sorted(name for name, n in Counter(names).items() if n > 1)
    if repeated:
        raise UnreadableError(f"{who} {repeated[0]!r} more than once ({len(repeated)} such names)")
