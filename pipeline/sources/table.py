"""A table of videos, CSV or Parquet: at least `uri,label`; the uris are relative to the table's folder, or to its root.

| column | value |
|---|---|
| `uri` | path of the video, relative or absolute, below the root; backslashes are slashes where no file has them |
| `label` | `0` or `real`, `1` or `fake` in any case; empty is unknown |
| `method`, `compression` | free text |
| `dataset` | name of the data set, `table` by default |
| `split` | `train`, `val` or `test`, as published |
| `original` | uri of the real video that a fake was made from |
| `identity`, `source` | persons and recordings that may not be torn apart; several are separated by `;` |

A uri that ends with a slash is a folder of images (`manifests/sequences/names.py`).

An identity or source with a slash is a global key and is taken as it is (`celebdf2/id/id16`, `yt/--b1Ua-kWJE`): that
ties the video to other data sets. Without one it belongs to the row's own (`<dataset>/id/...`, `<dataset>/src/...`).

The table is the list of inputs: files that it does not name are none.
"""

import math
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.manifests.schemas import arrow_file
from lps.manifests.sequences.names import is_sequence
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.types import (
    DEFAULT_METHOD,
    SourceFile,
    SourceListing,
    SourceOptions,
    is_video,
    listed_code,
    make_listing,
    read_source,
    unresolved_note,
)

COLUMNS = ("uri", "label", "method", "dataset", "identity", "source", "original", "split", "compression")
_REQUIRED = ("uri", "label")

# Tables that pass through floating point, as labels with gaps do in pandas, write 1 as 1.0.
_LABELS = {"": None, "0": 0, "1": 1, "0.0": 0, "1.0": 1, "real": 0, "fake": 1}
_SPLITS = {"": None, "train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
Choice = TypeVar("Choice")

_DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class _TableLine:
    """One line of the table as text; an absent or null value is empty."""

    where: str
    """`line 7` of a CSV file, `row 7` of a Parquet file: for messages."""
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values.get(column, "")


@dataclass(frozen=True, slots=True)
class _Root:
    """What the paths of a table are below."""

    folder: str
    """Where relative paths begin, below the source root: the table's own folder."""
    files: Mapping[str, SourceFile]
    """All of the source, by path."""
    below: Callable[[str], str | None]
    """Makes an absolute path relative to the source root."""

    def path_of(self, where: str, text: str) -> str | None:
        """Return a path of the table relative to the source root; None if it is empty."""
        if not text:
            return None
        path = text if self._joined(text.split("/")) in self.files else text.replace("\\", "/")
        first = path.partition("/")[0]
        is_relative = bool(first) and not first.endswith(":")
        below = path if is_relative else self.below(path if first else posixpath.normpath(path))
        inner = None if below is None or "\0" in below else _resolved(below)
        if inner is None:
            raise UnreadableError(f"{where}: {text!r} leaves the table's root; give paths below it, or another --root")
        found = self._joined(inner) if is_relative else "/".join(inner) or None
        return f"{found}/" if found and path.endswith("/") else found

    def _joined(self, parts: Sequence[str]) -> str | None:
        inner = [part for part in parts if part not in ("", ".")]
        return "/".join([self.folder, *inner] if self.folder else inner) if inner else None


def _resolved(path: str) -> list[str] | None:
    """Return the parts of a path without `.` and `..`; None where a `..` leaves the place where it begins."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and not parts:
            return None
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return parts


def list_table(files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """List the videos that the table `options.table_path` names, present or not."""
    path = options.table_path
    root = _Root(path.rpartition("/")[0], {file.path: file for file in files}, options.below_root)
    videos: dict[str, SourceVideo] = {}
    repeats: list[SourceVideo] = []
    n_backslashes = n_dots = 0
    for row in _read_rows(path, read_source(options, path)):
        video = _video(f"{path}, {row.where}", root, row)
        n_backslashes += "\\" in row["uri"] and "\\" not in video.uri
        n_dots += ".." in re.split(r"[/\\]", row["uri"])
        first = videos.setdefault(video.uri, video)
        if first is not video:
            repeats.append(_repeat(video, row.where))
            videos[video.uri] = _contradicted(first, video, row.where)
    if videos and all(video.code == Code.E_MISSING_FILE for video in videos.values()):
        raise UnreadableError(
            f"{path}: none of its {len(videos)} videos is there, such as {min(videos)}: its paths are "
            "relative to its folder, or to --root"
        )
    unlisted = sum(is_video(file.path) and file.path not in videos for file in files if not is_sequence(file.path))
    notes = [f"table: {unlisted} videos below its root are not in it, and not inputs"] if unlisted else []
    notes += [f"table: {n_backslashes} uris with backslashes were read with slashes"] if n_backslashes else []
    notes += [f"table: {n_dots} uris with '..' were read as the paths that they lead to"] if n_dots else []
    listed = [*videos.values(), *repeats]
    resolved = [_with_original(video, videos) for video in listed]
    n_named = sum(video.original_uri is not None for video in listed)
    n_resolved = sum(video.original_uri is not None for video in resolved)
    return make_listing("table", resolved, [*notes, *unresolved_note("table", n_named - n_resolved)])


def _read_rows(path: str, data: bytes) -> Iterator[_TableLine]:
    is_parquet = path.lower().endswith((".parquet", ".pq"))
    try:
        table = _read_parquet(data) if is_parquet else _read_csv(data)
        names = table.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UnreadableError(f"{path}: not a readable table ({str(error).partition(chr(10))[0]})") from error
    repeated = [name for name, n in Counter(names).items() if n > 1 and name in COLUMNS]
    missing = [name for name in _REQUIRED if name not in names]
    if missing or repeated:
        raise UnreadableError(f"{path}: needs the columns uri,label, each column once; found {','.join(names)}")
    known = [name for name in COLUMNS if name in names]
    places = _rows_of(table.num_rows) if is_parquet else _lines_of(data)
    columns = [table[name].to_pylist() for name in known]
    # A line break inside quotes makes more lines than rows: later line numbers are then too small, no row is lost.
    for where, row in zip(places, zip(*columns, strict=True), strict=False):
        yield _TableLine(where=where, values={name: _text(value) for name, value in zip(known, row, strict=True)})


def _read_csv(data: bytes) -> pa.Table:
    # Every known column is text: type inference would turn an identity "007" into 7.
    types = {name: pa.string() for name in COLUMNS}
    return pa.csv.read_csv(arrow_file(data), convert_options=pa.csv.ConvertOptions(column_types=types))


def _read_parquet(data: bytes) -> pa.Table:
    return pa.parquet.read_table(arrow_file(data))


def _rows_of(n: int) -> Iterator[str]:
    return (f"row {number}" for number in range(1, n + 1))


def _lines_of(data: bytes) -> Iterator[str]:
    """Name the lines that hold rows: the reader skips the header and empty lines."""
    numbers = [number for number, line in enumerate(data.splitlines(), start=1) if line]
    return (f"line {number}" for number in numbers[1:])


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list):
        return ";".join(_text(item) for item in value)
    if isinstance(value, bool):
        return str(int(value))
    return str(value).strip()


def _video(where: str, root: _Root, row: _TableLine) -> SourceVideo:
    files, uri = root.files, root.path_of(where, row["uri"])
    if uri is None:
        raise UnreadableError(f"{where}: no uri")
    label = _choice(where, "label", row["label"], _LABELS)
    dataset = row["dataset"] or "table"
    if _DATASET.fullmatch(dataset) is None:
        raise UnreadableError(f"{where}: dataset {dataset!r} may hold letters, digits, '.', '_' and '-' only")
    original = root.path_of(where, row["original"])
    identities = _keys(f"{dataset}/id", row["identity"])
    if original is not None and original in files:
        original = files[original].used_path
    own = files[uri].used_path if uri in files else uri
    target = original or (own if label == 0 else None)
    return SourceVideo(
        uri=uri,
        dataset=dataset,
        label=label,
        label_source="csv",
        method=_method(label, row["method"]),
        compression=row["compression"] or None,
        official_split=_choice(where, "split", row["split"], _SPLITS),
        original_uri=original if label != 0 else None,
        target_keys=(f"table/{target}",) if target else (),
        source_keys=_keys(f"{dataset}/src", row["source"]),
        identity_keys=identities,
        identity_confidence="published" if identities else "none",
        code=listed_code(files[uri]) if uri in files else Code.E_MISSING_FILE,
        detail="" if uri in files else "named by the table",
    )


def _choice(where: str, column: str, value: str, choices: Mapping[str, Choice]) -> Choice:
    if value.lower() not in choices:
        allowed = ", ".join(sorted(choice for choice in choices if choice and "." not in choice))
        raise UnreadableError(f"{where}: {column} {value!r} is none of {allowed} or empty")
    return choices[value.lower()]


def _method(label: int | None, method: str) -> str | None:
    if label == 0:
        return None
    return method or (DEFAULT_METHOD if label == 1 else None)


def _keys(prefix: str, text: str) -> tuple[str, ...]:
    values = {value.strip() for value in text.split(";")} - {""}
    return tuple(sorted(value if "/" in value else f"{prefix}/{value}" for value in values))


def _repeat(video: SourceVideo, where: str) -> SourceVideo:
    """Return the row of a repeated line; its uri says which line, because two rows may not have one name."""
    mark = where.replace(" ", "-")
    return replace(video, uri=f"{video.uri}#{mark}", code=Code.E_DUP_NAME, detail=f"uri repeated in {where}")


def _contradicted(first: SourceVideo, later: SourceVideo, where: str) -> SourceVideo:
    """Refuse a video that the table lists as real and as fake: either label may be the wrong one."""
    if first.code is not None or None in (first.label, later.label) or first.label == later.label:
        return first
    return replace(first, code=Code.E_LABEL_CONFLICT, detail=f"{where} gives another label")


def _with_original(video: SourceVideo, videos: Mapping[str, SourceVideo]) -> SourceVideo:
    """Drop an original that the table does not list, or lists as a fake."""
    original = videos.get(video.original_uri or "")
    if original is not None and original.label != 1 and original.uri != video.uri:
        return video
    return replace(video, original_uri=None)


LAYOUT = SourceLayout(
    id="table",
    title="a CSV or Parquet file that lists videos",
    adapter=list_table,
    tree=f"columns uri,label; also {','.join(name for name in COLUMNS if name not in _REQUIRED)}",
    counts="your own",
    labels="the column",
    splits="the column",
    leakage="what the columns identity, source and original say",
    page="",
    has_sequences=True,
)
