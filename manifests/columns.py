"""Some columns of a manifest, from wherever the data set lies: what is not asked for is not read."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lps.manifests.canonical import open_regular
from lps.manifests.errors import UnreadableError
from lps.manifests.schemas import Row, arrow_file, as_declared, check_table
from lps.manifests.storage import Store

T = TypeVar("T")

BATCH_ROWS = 4096
"""Rows of a wide column held at a time."""
NARROW_ROWS = 65536
"""Rows of narrow columns held at a time."""
GROUPS = 16
"""Row groups that one reader reads: those of `clips` are smaller than NARROW_ROWS."""

PATHS = {name: f"manifests/{name}.parquet" for name in ("videos", "clips", "shards")}


def split_path(split_set: str) -> str:
    """Return the path of a split set's table."""
    return f"manifests/splits/{split_set}.parquet"


def rule_path(split_set: str) -> str:
    """Return the path of a split set's rule record."""
    return f"manifests/splits/{split_set}.json"


def read_columns(store: Store, name: str, columns: Sequence[str], *, path: str = "") -> pa.Table:
    """Return columns of the manifest `name`, dictionaries decoded; nullable ones that the file lacks are null.

    Raises UnreadableError for a foreign file, a damaged one, one without a column that must be there, or a newer major
    version.
    """
    path = path or PATHS[name]
    with _opened(store, name, path) as file:
        present = set(file.schema_arrow.names)
        found = [column for column in columns if column in present]
        table = file.read(columns=found, use_threads=store.is_local)
    return as_declared(name, table, columns).replace_schema_metadata()


def stored_schema(store: Store, name: str) -> pa.Schema:
    """Return the columns that the file of the manifest `name` has. Raises as `read_columns` does."""
    with _opened(store, name, PATHS[name]) as file:
        return file.schema_arrow


def column_batches(store: Store, name: str, columns: Sequence[str], n_rows: int = NARROW_ROWS) -> Iterator[pa.Table]:
    """Yield the columns that `read_columns` returns, `n_rows` at a time at most, in order. Raises as that does."""
    with _opened(store, name, PATHS[name]) as file:
        found = [column for column in columns if column in file.schema_arrow.names]
        as_declared(name, file.schema_arrow.empty_table().select(found), columns)  # a table without rows has no batch
        n = file.num_row_groups
        for first in range(0, n, GROUPS):  # one reader of all groups would keep some of each
            groups = list(range(first, min(first + GROUPS, n)))
            for batch in file.iter_batches(n_rows, row_groups=groups, columns=found, use_threads=False):
                yield as_declared(name, pa.Table.from_batches([batch]), columns).replace_schema_metadata()


def read_rows(store: Store, name: str, columns: Sequence[str], rows: Sequence[int]) -> list[Row]:
    """Return some rows of a manifest by their place in it, in the order asked for. Holds one batch at a time."""
    found: dict[int, Row] = {}
    for places, batch in _batches_with(store, name, columns, rows):
        # a nullable column that an older file lacks is null
        nothing = dict.fromkeys(columns)
        found |= {row: {**nothing, **values} for row, values in zip(places, batch.to_pylist(), strict=True)}
    return _in_order(store, name, found, rows)


def read_arrays(
    store: Store, name: str, columns: Sequence[str], rows: Sequence[int]
) -> list[dict[str, NDArray[Any] | None]]:
    """Return columns of lists of k numbers as `read_rows` does, but each as an array (n, k) and not as objects.

    None stands for null, and for a nullable column that an older file lacks; one of the columns must be there.
    """
    found: dict[int, dict[str, NDArray[Any] | None]] = {}
    for places, batch in _batches_with(store, name, columns, rows):
        for k, row in enumerate(places):
            found[row] = {c: list_array(batch.column(c)[k]) if c in batch.schema.names else None for c in columns}
    return _in_order(store, name, found, rows)


def list_array(value: pa.ListScalar) -> NDArray[Any] | None:
    """Return a list of lists of k numbers as an array (n, k), None for null."""
    if not value.is_valid:
        return None
    lists = value.values
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False)).reshape(-1, lists.type.list_size)


def _in_order(store: Store, name: str, found: Mapping[int, T], rows: Sequence[int]) -> list[T]:
    missing = [row for row in sorted(set(rows)) if row not in found]
    if missing:
        raise UnreadableError(f"manifest '{name}' of {store.url} has no row {missing[0]}")
    return [found[row] for row in rows]


def _batches_with(
    store: Store, name: str, columns: Sequence[str], rows: Sequence[int]
) -> Iterator[tuple[list[int], pa.RecordBatch]]:
    """Yield the wanted rows, with those columns that the file has, and their places in the manifest."""
    wanted = sorted(set(rows))
    with _opened(store, name, PATHS[name]) as file:
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            inside = [row for row in wanted if start <= row < stop]
            if inside:
                places = [row - start for row in inside]
                for found, batch in _rows_of_group(file, group, columns, places, use_threads=store.is_local):
                    yield [start + place for place in found], batch
            start = stop


def _rows_of_group(
    file: pq.ParquetFile, group: int, columns: Sequence[str], rows: Sequence[int], *, use_threads: bool
) -> Iterator[tuple[list[int], pa.RecordBatch]]:
    start = 0
    known = [column for column in columns if column in file.schema_arrow.names]
    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=known, use_threads=use_threads):
        inside = [row for row in rows if start <= row < start + batch.num_rows]
        if inside:
            yield inside, batch.take(pa.array([row - start for row in inside], pa.int64()))
        start += batch.num_rows


@contextmanager
def _opened(store: Store, name: str, path: str) -> Iterator[pq.ParquetFile]:
    if not store.exists(path):
        raise UnreadableError(f"cannot read {store.join(path)}: no such file")
    try:
        with _parquet(store, path) as file:
            check_table(file.schema_arrow, name, what=f"manifest '{name}'")
            yield file
    except UnreadableError:
        raise
    except (pa.ArrowException, OSError, ValueError) as e:
        raise UnreadableError(f"manifest '{name}' of {store.url} is not readable: {' '.join(str(e).split())}") from e


@contextmanager
def _parquet(store: Store, path: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; that of a bucket is a Python object, which no thread of Arrow's may hold (`arrow_file`)."""
    from fsspec.core import url_to_fs

    if store.is_local:
        open_regular(store.local_path(path)).close()
        with pq.ParquetFile(store.local_path(path)) as file:
            yield file
    elif store.is_web:  # a server that knows no ranges would send the whole file for each of them
        with pq.ParquetFile(arrow_file(store.read(path))) as file:
            yield file
    else:
        fs, full = url_to_fs(store.join(path))
        with fs.open(full, "rb") as source, pq.ParquetFile(source) as file:
            yield file


def numbers(column: pa.ChunkedArray) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Return a numeric column as floats, null as NaN."""
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
