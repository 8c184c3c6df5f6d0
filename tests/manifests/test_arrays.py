"""The inner square of stored images: where it lies, and how its side is named."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lps.manifests.arrays import (
    INNER_SQL,
    MAX_MARGIN,
    check_margin,
    inner_side,
    inner_sides,
    is_cropped,
    margin_side,
    square_of,
    template_name,
)

NAMES = (
    "arcface5-224x0.85",
    "arcface5-224x1",
    "box",
    "box-224",
    "arcface5-0x1",
    "arcface5-291x1",
    "arcface5-292x1",
    "",
)
SIDES = (224, 224, 291, 224, 291, 291, 291, 291)
"""Sides of the inner square in images of 291 px."""


def test_sides_are_read_from_the_names_alike_everywhere() -> None:
    assert [inner_side(name, 291) for name in NAMES] == list(SIDES)
    names = pa.chunked_array([list(NAMES[:3]), [*NAMES[3:], None]], pa.string())
    assert inner_sides(names, np.full(len(names), 291)).tolist() == [*SIDES, 291]
    clips = pa.table({"align_template": list(NAMES), "out_size": pa.array([291] * len(NAMES), pa.int16())})
    with duckdb.connect() as db:
        db.register("clips", clips)
        assert [row[0] for row in db.execute(f"SELECT {INNER_SQL} FROM clips").fetchall()] == list(SIDES)  # noqa: S608


def test_names() -> None:
    assert template_name(224, 0.85, 1.0) == template_name(224, 0.85, 1.3) == "arcface5-224x0.85"
    assert template_name(224, None, 1.0) == "box"
    assert template_name(224, None, 1.3) == "box-224"
    assert [is_cropped(name) for name in ("box", "box-224", "arcface5-224x0.85", "boxer")] == [True, True, False, False]


def test_the_px_left_over_is_at_the_right_and_below() -> None:
    assert margin_side(224, 1.3) == 291
    inner = square_of(291, 224)
    assert (inner.first_px, inner.end_px) == (33, 257)
    even = square_of(292, 224)
    assert (even.first_px, even.end_px) == (34, 258)
    assert square_of(224, 224).first_px == 0


@given(st.integers(16, 512), st.floats(1.0, MAX_MARGIN), st.floats(1.0, MAX_MARGIN))
def test_squares_lie_about_the_inner_one_and_within_the_image(inner_px: int, stored: float, margin: float) -> None:
    stored_px, side = margin_side(inner_px, stored), margin_side(inner_px, margin)
    if side > stored_px:
        with pytest.raises(ValueError, match="does not lie within"):
            square_of(stored_px, inner_px, margin)
        return
    inner, square = square_of(stored_px, inner_px), square_of(stored_px, inner_px, margin)
    assert square.side_px == side
    assert 0 <= square.first_px <= inner.first_px
    assert inner.end_px <= square.end_px <= stored_px
    before, after = inner.first_px - square.first_px, square.end_px - inner.end_px
    assert after - before in (0, 1)
    direct = square_of(side, inner_px)
    assert before == direct.first_px, "cut late is as stored so"


@pytest.mark.parametrize("margin", [0.99, 2.01, float("nan"), float("inf")])
def test_margins_have_bounds(margin: float) -> None:
    with pytest.raises(ValueError, match=r"crop\.margin must be from 1 to 2, got "):
        check_margin("crop.margin", margin)
