"""Rows sorted by id through files: the order is that of the ids, and no row is lost, whatever the ids are."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from lps.manifests.sorting import PART_ROWS, SortedById

SCHEMA = pa.schema([("video_id", pa.binary(16)), ("number", pa.int64()), ("keys", pa.list_(pa.string()))])
N = 2 * PART_ROWS + 100


def table(ids: list[bytes]) -> pa.Table:
    rows = [{"video_id": one, "number": k, "keys": [one.hex()] * (k % 3)} for k, one in enumerate(ids)]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param([hashlib.sha256(str(k).encode()).digest()[:16] for k in range(N)], id="digests"),
        pytest.param([(N - k).to_bytes(16, "big") for k in range(N)], id="all-in-one-part"),
        pytest.param([bytes([255] * 16), bytes(16)], id="first-and-last"),
        pytest.param([], id="none"),
    ],
)
def test_rows_come_back_sorted(ids: list[bytes], tmp_path: Path) -> None:
    rows = SortedById(tmp_path, SCHEMA, len(ids))
    given = table(ids)
    for start in range(0, len(ids), 1000):
        rows.add(given.slice(start, 1000))
    pieces = list(rows.pieces())
    assert pa.concat_tables([SCHEMA.empty_table(), *pieces]).equals(given.sort_by("video_id"))
    assert not list(tmp_path.iterdir())


def test_a_part_holds_a_share_of_the_rows(tmp_path: Path) -> None:
    ids = [hashlib.sha256(str(k).encode()).digest()[:16] for k in range(N)]
    rows = SortedById(tmp_path, SCHEMA, N)
    rows.add(table(ids))
    assert all(0 < piece.num_rows < PART_ROWS for piece in rows.pieces())
