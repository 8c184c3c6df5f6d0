"""Canonical bytes and digests: one spelling, pinned, because ids and seals hang on it."""

import json
import math
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lps.manifests.canonical import (
    canonical_json,
    digest16,
    jsonable,
    pretty_json,
    rows_digest,
    sha256_hex,
    unit_interval,
)

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_canonical_form() -> None:
    value = {"b": [1, 2.5, None, True], "a": "é\n", "c": {}}
    assert canonical_json(value) == '{"a":"é\\n","b":[1,2.5,null,true],"c":{}}'.encode()


@given(values)
def test_canonical_json_says_the_same(value: object) -> None:
    assert json.loads(canonical_json(value)) == value
    assert json.loads(pretty_json(value)) == value


@given(st.dictionaries(st.text(), scalars, min_size=2, max_size=6))
def test_order_of_keys_does_not_count(value: dict[str, object]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(backwards)
    assert pretty_json(value) == pretty_json(backwards)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("write", [canonical_json, pretty_json])
def test_numbers_that_json_has_not(number: float, write: Callable[[object], bytes]) -> None:
    with pytest.raises(ValueError):
        write({"x": [number]})


def test_pretty_json_is_for_people() -> None:
    assert pretty_json({"b": 1, "a": "é"}) == '{\n  "a": "é",\n  "b": 1\n}\n'.encode()


def test_digests_are_pinned() -> None:
    """Other digests would rename every video of every data set."""
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest16("folder", "real/a.mp4").hex() == "0767925f31eb775598cb04fafac933d4"
    assert digest16("é") == bytes.fromhex(sha256_hex("é".encode()))[:16]


def test_parts_do_not_run_together() -> None:
    assert digest16("ab", "c") != digest16("a", "bc")
    assert unit_interval("ab", "c") != unit_interval("a", "bc")


@given(st.text(), st.text())
def test_unit_interval(a: str, b: str) -> None:
    assert 0.0 <= unit_interval(a, b) < 1.0
    assert unit_interval(a, b) == unit_interval(a, b)


def test_unit_interval_is_even() -> None:
    counts = [0] * 10
    for k in range(5000):
        counts[int(unit_interval("x", str(k)) * 10)] += 1
    assert max(abs(n - 500) for n in counts) < 5 * 500**0.5


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.integers() | st.binary(max_size=4)), max_size=6), st.randoms()
)
def test_rows_digest_does_not_depend_on_order(rows: list[dict[str, Any]], random: Random) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert rows_digest(shuffled) == rows_digest(rows)
    assert len(rows_digest(rows)) == 64


def test_rows_digest_counts_every_row() -> None:
    row, other = {"a": 1}, {"a": 2}
    digests = [rows_digest(rows) for rows in ([], [row], [other], [row, row], [row, other], [row, row, other])]
    assert len(set(digests)) == len(digests)
    assert rows_digest([]) == "0" * 64
    assert rows_digest([{"a": b"\x01"}]) == rows_digest([{"a": "01"}])


def test_jsonable() -> None:
    assert jsonable({"a": b"\xff\x00", "b": (1, (b"\x01", None)), "c": [{"d": b""}], "e": 1.5}) == {
        "a": "ff00",
        "b": [1, ["01", None]],
        "c": [{"d": ""}],
        "e": 1.5,
    }
