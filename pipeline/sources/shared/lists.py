"""Metadata files of releases: where they lie, and rows of CSV files."""

import csv
import io
from collections.abc import Iterator, Sequence

from lps.manifests.errors import UnreadableError
from lps.pipeline.sources.shared.types import SourceFile, SourceOptions, parse_text, read_list


def find_list(files: Sequence[SourceFile], options: SourceOptions, *names: str) -> tuple[str, bytes] | None:
    """Find a metadata file by its names, in any case, in the user's folder or in the tree: the one that lies highest.

    A name may have folders: `lists/splits/train.txt`.
    """
    given = tuple(name.rpartition("/")[2] for name in names)
    ends = tuple(f"/{name.lower()}" for name in names)
    in_tree = [file.path for file in files if f"/{file.path.lower()}".endswith(ends)]
    in_tree.sort(key=lambda path: (path.count("/"), path))
    return read_list(options, given, in_tree, frozenset(in_tree))


def csv_rows(path: str, data: bytes, *columns: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield `file, line` and the values of each row. Raises UnreadableError where a column or value is missing."""
    rows = csv.reader(io.StringIO(parse_text(path, data), newline=""))
    try:
        header = next(rows, [])
        missing = [column for column in columns if column not in header]
        if missing:
            raise UnreadableError(f"{path}: needs the columns {','.join(columns)}; found {','.join(header)[:200]!r}")
        for row in filter(None, rows):
            if len(row) != len(header):
                raise UnreadableError(f"{path}, line {rows.line_num}: {len(row)} values for {len(header)} columns")
            yield f"{path}, line {rows.line_num}", dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise UnreadableError(f"{path}, line {rows.line_num}: {error}") from error


def text_lines(path: str, data: bytes) -> Iterator[tuple[str, str]]:
    """Yield `file, line` and the text of each line that is not empty."""
    for number, line in enumerate(parse_text(path, data).splitlines(), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()
