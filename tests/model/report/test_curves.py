"""Charts of the trainer's page: values stand where they are, whatever they are."""

import re

import numpy as np
import pytest

from lps.model.report.curves import MAX_POINTS, Curve, curves_chart, interval, thinned
from lps.model.report.runs import Series


def test_long_logs_are_thinned_to_means() -> None:
    steps = np.arange(40.0 * MAX_POINTS)
    few = thinned(Series(steps=steps, values=2 * steps))
    assert len(few.steps) == MAX_POINTS
    np.testing.assert_allclose(few.values, 2 * few.steps)
    assert few.values.mean() == pytest.approx(2 * steps.mean())


def test_curves_stand_where_their_values_are() -> None:
    series = Series(steps=np.array([0.0, 5, 10]), values=np.array([1.0, 3, 2]))
    drawn = curves_chart("t", [Curve(name="<n>", number=1, validation=series, best_step=5)])
    points = re.search(r'<polyline class="curve validation s1" points="([^"]+)"', drawn)
    assert points is not None
    xs, ys = zip(*(map(float, point.split(",")) for point in points[1].split()), strict=True)
    assert xs[1] == pytest.approx((xs[0] + xs[2]) / 2)
    assert ys[1] < ys[2] < ys[0], "3 above 2 above 1"
    assert (ys[0] - ys[2]) == pytest.approx((ys[0] - ys[1]) / 2, abs=0.2)
    assert f'<circle class="ring s1" cx="{xs[1]:.1f}" cy="{ys[1]:.1f}"' in drawn
    assert "&lt;n&gt;, validation, from 1 to 2" in drawn


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [1e-90, 3e-90], [-1e99, 1e99], [0.0, 0.0], list(range(2000))])
def test_any_values_have_axes(values: list[float]) -> None:
    series = Series(steps=np.arange(len(values), dtype=float), values=np.array(values, float))
    for log in (False, True):
        drawn = curves_chart("t", [Curve(name="n", number=0, train=series)], log=log)
        assert "nan" not in drawn
        assert "inf" not in drawn
    assert curves_chart("t", []) == ""


def test_intervals_are_drawn_to_scale() -> None:
    drawn = interval(0.5, 0.25, 0.75)
    assert 'x="25.0" y="2" width="50.0"' in drawn
    assert 'x="49.2"' in drawn
    assert 'width="0.6"' in interval(0.0, 0.0, 0.0)
