"""Rows of a table sorted by video id, of which few are held at a time: the others lie in files of a folder."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from lps.manifests.arrays import Ints
from lps.manifests.row_digest import fixed_bytes

PART_ROWS = 16384
"""Rows of a part of the order, about, and rows that wait to be written to the parts: each some 15 MB of videos."""


class SortedById:
    """Takes tables with a column `video_id` in any order and gives their rows back sorted by it.

    Ids are digests, so a part of the order is a range of their first 32 bits, and all parts are about as large. A part
    is a file of Arrow record batches without their schema.
    """

    def __init__(self, folder: Path, schema: pa.Schema, n_rows: int) -> None:
        """Sort about `n_rows` rows of a schema by files below a folder, which must be there and empty."""
        self._folder, self._schema = folder, schema
        self._n_parts = n_rows // PART_ROWS + 1
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0

    def add(self, table: pa.Table) -> None:
        """Take rows, columns in the order of the schema. Raises OSError where the folder cannot be written."""
        self._waiting.append(pa.Table.from_arrays(table.columns, schema=self._schema))
        self._n_waiting += table.num_rows
        if self._n_waiting >= PART_ROWS:
            self._write()

    def pieces(self) -> Iterator[pa.Table]:
        """Yield all rows in order, a part at a time, once. Raises OSError where the folder cannot be read."""
        self._write()
        for number in range(self._n_parts):
            if self._path(number).exists():
                part = self._read(number)
                self._path(number).unlink()
                yield part.sort_by("video_id")

    def _path(self, number: int) -> Path:
        return self._folder / f"part-{number:06d}"

    def _write(self) -> None:
        if not self._n_waiting:
            return
        rows = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting, self._n_waiting = [], 0
        numbers = self._numbers(rows)
        rows = rows.take(pa.array(np.argsort(numbers, kind="stable")))
        start = 0
        for number, n in enumerate(np.bincount(numbers).tolist()):
            if n:
                with self._path(number).open("ab") as file:
                    for batch in rows.slice(start, n).to_batches():
                        file.write(batch.serialize())
                start += n

    def _numbers(self, rows: pa.Table) -> Ints:
        """Return the number of the part of each row."""
        ids = fixed_bytes(rows["video_id"].combine_chunks())
        heads = np.ascontiguousarray(ids[:, :4]).view(">u4").reshape(-1).astype(np.int64)
        return np.asarray(heads * self._n_parts >> 32)

    def _read(self, number: int) -> pa.Table:
        batches = []
        with pa.OSFile(str(self._path(number))) as file:
            while file.tell() < file.size():
                batches.append(pa.ipc.read_record_batch(pa.ipc.read_message(file), self._schema))
        return pa.Table.from_batches(batches, self._schema)
