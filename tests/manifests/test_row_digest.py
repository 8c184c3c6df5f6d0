"""Digests by columns are those by rows, for every type that a manifest has."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lps.manifests.canonical import rows_digest
from lps.manifests.row_digest import batches_digest, json_texts, table_digest
from lps.manifests.schemas import TABLES

floats = st.floats(allow_nan=False, allow_infinity=False)
singles = st.floats(allow_nan=False, allow_infinity=False, width=32)
texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)
KINDS: list[tuple[pa.DataType, st.SearchStrategy[object]]] = [
    (pa.bool_(), st.booleans()),
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.float64(), floats),
    (pa.float32(), singles),
    (pa.string(), texts),
    (pa.dictionary(pa.int32(), pa.string()), texts),
    (pa.binary(4), st.binary(min_size=4, max_size=4)),
    (pa.list_(pa.binary()), st.lists(st.none() | st.binary(max_size=3), max_size=3)),
    (pa.list_(pa.string()), st.lists(st.none() | texts, max_size=3)),
    (pa.list_(pa.list_(pa.float32(), 2)), st.lists(st.lists(singles, min_size=2, max_size=2), max_size=3)),
    (
        pa.list_(pa.struct([("z", pa.int32()), ("a", pa.binary(2))])),
        st.lists(st.fixed_dictionaries({"z": st.none() | st.integers(0, 9), "a": st.binary(min_size=2, max_size=2)})),
    ),
]


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    n = draw(st.integers(0, 6))
    chosen = draw(st.lists(st.sampled_from(range(len(KINDS))), max_size=5))
    columns = {}
    for name, i in zip(('é"', "b", "B", "a\n", ""), chosen, strict=False):
        kind, values = KINDS[i]
        columns[name] = pa.array(draw(st.lists(st.none() | values, min_size=n, max_size=n)), kind)
    return pa.table(columns)


@given(tables(), st.data())
def test_digest_is_that_of_the_rows(table: pa.Table, data: st.DataObject) -> None:
    assert table_digest(table) == rows_digest(table.to_pylist())
    part = table.slice(data.draw(st.integers(0, len(table))))
    assert table_digest(part) == rows_digest(part.to_pylist())


@pytest.mark.parametrize("name", TABLES)
def test_every_type_of_the_manifests_is_known(name: str) -> None:
    for field in TABLES[name]:
        assert json_texts(pa.nulls(2, field.type)).to_pylist() == ["null", "null"]


def test_batches_and_order_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"a": np.arange(50), "b": [[i, None][: i % 3] for i in range(50)]})
    wanted = rows_digest(table.to_pylist())
    monkeypatch.setattr("lps.manifests.row_digest.BATCH_ROWS", 7)
    assert batches_digest(table.to_batches(max_chunksize=9)) == wanted
    assert table_digest(table.take(pa.array(range(49, -1, -1)))) == wanted


def test_zeros_of_both_signs_differ_as_they_do_in_json() -> None:
    assert json_texts(pa.array([0.0, -0.0, 1e16, 1e-7, 5.0])).to_pylist() == ["0.0", "-0.0", "1e+16", "1e-07", "5.0"]


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_json_has_not(number: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        table_digest(pa.table({"a": [1.0, None, number]}))


def test_other_types_are_no_part_of_a_manifest() -> None:
    with pytest.raises(TypeError, match="timestamp"):
        json_texts(pa.array([0], pa.timestamp("s")))
