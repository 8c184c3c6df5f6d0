"""What every data-set adapter takes and gives, and the few rules that they share.

An adapter is a pure function of a file listing and small metadata files, so it works for any store and opens no video.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lps.manifests.codes import CODE_MEANING, Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.manifests.sequences.names import is_sequence

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc",
    ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts",
    ".mxf", ".nut", ".obu", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m",
})
OTHER_SUFFIXES = frozenset({
    ".7z", ".aac", ".ass", ".bmp", ".bz2", ".cfg", ".csv", ".db", ".doc", ".docx", ".exe", ".flac", ".gz", ".h5",
    ".hdf5", ".html", ".ini", ".ipynb", ".jpeg", ".jpg", ".json", ".jsonl", ".lock", ".log", ".m4a", ".mat", ".md",
    ".md5", ".mp3", ".npy", ".npz", ".onnx", ".opus", ".parquet", ".pdf", ".pkl", ".png", ".pt", ".pth", ".py", ".rar",
    ".sh", ".sha256", ".srt", ".svg", ".tar", ".tgz", ".tif", ".tiff", ".toml", ".tsv", ".txt", ".vtt", ".wav",
    ".xlsx", ".xml", ".xz", ".yaml", ".yml", ".zip", ".zst",
})
"""No videos, and not looked into to make sure. All names with neither are."""
DESCRIBING = frozenset({".csv", ".json", ".md", ".txt"})
"""What a data set says of itself, which nobody takes for an input."""
# fmt: on

NOT_A_VIDEO = "not a video"
"""What the row of a file says whose name is no video's."""
NO_SEQUENCE = "an archive without a sequence of images"
"""What the row of an archive says in which none is, or that nobody has looked into."""
DEFAULT_METHOD = "fake"
"""Method of a fake whose source names none: a method must be null for real videos only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file below the source root, as the store lists it."""

    path: str
    """POSIX path relative to the source root."""
    n_bytes: int | None
    """None where the listing does not tell: web servers."""
    real: str = ""
    """Its path without links; empty where the store has none."""
    is_linked: bool = False
    """Whether a link is on its path."""
    code: Code | None = None
    """S_LINK for another path to a listed file, E_UNREADABLE for what the store could not list."""
    detail: str = ""
    same_as: str = ""
    """Path of the file that is used instead of one with S_LINK."""
    opens: bool = False
    """Whether libav finds a video in it, though its name does not say so."""

    @property
    def used_path(self) -> str:
        """The path under which its content is an input."""
        return self.same_as or self.path

    @property
    def is_video(self) -> bool:
        """Whether it is meant as a video: by its name, or by what is in it."""
        return self.opens or is_video(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """How an adapter reaches the small files that it reads."""

    read_bytes: Callable[[str], bytes]
    """Reads a metadata file by its path relative to the source root; raises OSError when it cannot."""
    splits_dir_read: Callable[[str], bytes | None] | None = None
    """Reads a published list by name from a folder that the user gave; None for a name that is not there."""
    table_path: str = ""
    """The table's own path, by which `read_bytes` reads it; only for data set `table`."""
    below_root: Callable[[str], str | None] = lambda location: None
    """Makes an absolute path or URL of a table relative to the source root; None for one that is not below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceListing:
    """All inputs of a source, and what its user should know about them."""

    videos: tuple[SourceVideo, ...]
    """Sorted by uri."""
    notes: tuple[str, ...]
    """Warnings of one line each."""


Adapter = Callable[[Sequence[SourceFile], SourceOptions], SourceListing]


def make_listing(name: str, videos: Iterable[SourceVideo], notes: Iterable[str]) -> SourceListing:
    """Sort `videos`, and add to `notes` one line for each code that a user did not ask for."""
    ordered = tuple(sorted(videos, key=lambda video: (video.uri, video.dataset)))
    return SourceListing(videos=ordered, notes=(*notes, *_code_notes(name, ordered)))


def _code_notes(name: str, videos: Sequence[SourceVideo]) -> list[str]:
    # Masks and the data set's own text files are expected: a line about them would hide the others.
    codes = [v.code for v in videos if v.code and v.code != Code.S_MASK]
    strays = [video.uri for video in videos if video.code == Code.S_FOREIGN and not is_video(video.uri)]
    telling = Counter[Code](codes)
    telling[Code.S_FOREIGN] -= len(strays)
    notes = [f"{name}: {telling[code]} x {code}: {CODE_MEANING[code]}" for code in Code if telling[code]]
    counted = by_suffix(path for path in strays if not is_hidden(path) and _suffix(path) not in DESCRIBING)
    return [*notes, f"{name}: left out, not videos: {counted}"] if counted else notes


def by_suffix(paths: Iterable[str]) -> str:
    """Count paths by the ending of their names, the most frequent first: `12 .txt, 1 without ending`."""
    counts = Counter(_suffix(path) for path in paths)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{n} {suffix or 'without ending'}" for suffix, n in ordered)


def may_be_video(path: str) -> bool:
    """Tell whether a name says neither that a file is a video nor that it is none."""
    return _suffix(path) not in VIDEO_SUFFIXES | OTHER_SUFFIXES and not is_hidden(path)


# Not pathlib: its objects would take most of the time of a listing.


def parts_of(path: str) -> list[str]:
    """Return the folders of a relative path, and the name, as PurePosixPath does."""
    return [part for part in path.split("/") if part not in ("", ".")]


def stem_of(path: str) -> str:
    """Return the name at the end of a path without its ending, as PurePosixPath does.

    The name of a sequence of images is that of its folder, which ends as a video does or not at all.
    """
    name = _name_of(path)
    ending = _ending(name)
    return name if is_sequence(path) and ending.lower() not in VIDEO_SUFFIXES else name.removesuffix(ending)


def _name_of(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _ending(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:] if 0 < dot < len(name) - 1 else ""


def _suffix(path: str) -> str:
    return _ending(_name_of(path)).lower()


def orphans(videos: Iterable[SourceVideo]) -> int:
    """Count the usable fakes without an original."""
    return sum(video.label == 1 and video.original_uri is None and video.code is None for video in videos)


def unresolved_note(name: str, n: int) -> list[str]:
    """Return the note on fakes whose original is not among the inputs: they stay usable, so it is no row's code."""
    code = Code.E_ORIGINAL_UNRESOLVED
    return [f"{name}: {n} x {code}: {CODE_MEANING[code]} (these fakes are still used)"] if n else []


def is_hidden(path: str) -> bool:
    """Tell whether a file or one of its folders has a name with a leading dot (`.DS_Store`, `._clip.mp4`)."""
    return "/." in f"/{path}" and any(part.startswith(".") for part in parts_of(path))


def is_video(path: str) -> bool:
    """Tell by name whether a file is meant as a video; a sequence of images is one."""
    return (is_sequence(path) or _suffix(path) in VIDEO_SUFFIXES) and not is_hidden(path)


def foreign(dataset: str, file: SourceFile, detail: str) -> SourceVideo:
    """Return the row of what is no input: without a label, and skipped, unless the store could not list it."""
    row = SourceVideo(uri=file.path, dataset=dataset, label=None, label_source="folder")
    if file.code is not None and not is_hidden(file.path):
        return replace(row, code=file.code, detail=file.detail)
    return replace(row, code=Code.S_FOREIGN, detail=detail)


def listed_code(file: SourceFile) -> Code | None:
    """Return the fault that the listing alone shows."""
    return file.code or (Code.E_EMPTY_FILE if file.n_bytes == 0 else None)


def flag_duplicates(videos: Iterable[SourceVideo], name_of: Callable[[SourceVideo], Hashable]) -> list[SourceVideo]:
    """Give E_DUP_NAME to all but one video of each name; the first usable one by uri stays.

    Videos that already carry a code keep it.
    """
    ordered = sorted(videos, key=lambda video: video.uri)
    kept: dict[Hashable, str] = {}
    for video in ordered:
        if video.code is None:
            kept.setdefault(name_of(video), video.uri)
    return [_flagged(video, kept.get(name_of(video))) for video in ordered]


def _flagged(video: SourceVideo, kept_uri: str | None) -> SourceVideo:
    if video.code is not None or kept_uri == video.uri:
        return video
    return replace(video, code=Code.E_DUP_NAME, detail=f"same name as {kept_uri}")


def by_folder(files: Iterable[SourceFile]) -> dict[str, dict[str, SourceFile]]:
    """Index files by folder (empty for the root) and name."""
    folders: dict[str, dict[str, SourceFile]] = defaultdict(dict)
    for file in files:
        folder, _, name = file.path.rpartition("/")
        folders[folder][name] = file
    return folders


def read_source(options: SourceOptions, path: str) -> bytes:
    """Read a metadata file of the source."""
    try:
        return options.read_bytes(path)
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from error


def read_list(
    options: SourceOptions, names: Sequence[str], tree_paths: Sequence[str], present: frozenset[str]
) -> tuple[str, bytes] | None:
    """Find a published list: by `names` in the user's folder, else by `tree_paths` among the `present` files."""
    for name in names:
        data = _read_given(options, name)
        if data is not None:
            return name, data
    for path in tree_paths:
        if path in present:
            return path, read_source(options, path)
    return None


def _read_given(options: SourceOptions, name: str) -> bytes | None:
    try:
        return options.splits_dir_read(name) if options.splits_dir_read else None
    except OSError as error:
        raise UnreadableError(f"{name}: cannot be read ({error.strerror or type(error).__name__})") from error


def parse_text(path: str, data: bytes) -> str:
    """Decode a metadata file, with or without a byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{path}: not UTF-8 text (byte {error.start})") from error


def parse_json(path: str, data: bytes) -> Any:
    """Parse a metadata file as JSON."""
    try:
        return json.loads(parse_text(path, data))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path}: not valid JSON ({error})") from error
