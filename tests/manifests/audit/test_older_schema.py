"""A data set of schema 1 says what one of today says."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lps.manifests.audit.diff import diff_datasets
from lps.manifests.audit.run import Audit
from lps.manifests.canonical import pretty_json
from lps.manifests.storage import Store
from tests.builders import manifest_rows


def of_schema_1(data: bytes) -> bytes:
    """Return a manifest as schema 1 had it: names in dictionaries, bytes of fixed width in lists."""
    table = pq.read_table(io.BytesIO(data))
    marks = {**table.schema.metadata, b"lps.schema_version": b"1.1"}
    for i, field in enumerate(table.schema):
        if field.name in ("split", "dataset", "method", "rule", "shard_id"):
            table = table.set_column(i, field.name, table[field.name].dictionary_encode())
        elif field.name == "phash" and pa.types.is_list(field.type):
            table = table.set_column(i, field.name, table[field.name].cast(pa.list_(pa.binary(32))))
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(marks), sink)
    return sink.getvalue()


@pytest.fixture
def older(dataset: Path, mutated: Callable[..., Path]) -> Path:
    tables = sorted(path.relative_to(dataset).as_posix() for path in dataset.rglob("manifests/**/*.parquet"))
    out = mutated(files=dict.fromkeys(tables, of_schema_1))
    index = json.loads((out / "index.json").read_bytes())
    for path, entry in index["manifests"].items():
        data = (out / path).read_bytes()
        entry |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (out / "index.json").write_bytes(pretty_json({**index, "schema_version": "1.1"}))
    return out


def test_it_is_read(dataset: Path, older: Path) -> None:
    assert pq.read_schema(older / "manifests/videos.parquet").field("phash").type == pa.list_(pa.binary(32))
    for table in ("videos", "clips", "shards"):
        assert manifest_rows(older, table) == manifest_rows(dataset, table)


def test_it_is_audited_alike(dataset: Path, older: Path, audit: Callable[..., Audit]) -> None:
    now, then = (audit(out, "A,T,L,B,C,R").results for out in (dataset, older))
    assert [(r.id, r.state, r.offenders) for r in then] == [(r.id, r.state, r.offenders) for r in now]


def test_it_is_compared(dataset: Path, older: Path) -> None:
    assert diff_datasets(Store(str(dataset)), Store(str(older))).same
