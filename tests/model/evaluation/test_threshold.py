"""Thresholds and temperatures: what they are chosen to be, and that a file gives them back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lps.manifests.canonical import pretty_json
from lps.manifests.errors import RefusedError, UnreadableError
from lps.model.evaluation.threshold import (
    StoredThreshold,
    calibrated,
    calibration,
    calibration_error,
    decision_record,
    fit_temperature,
    operating_point,
    read_threshold,
)

# Few different scores, so that ties are common; both classes; 0 and 1 among them.
SCORED = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8).map(lambda k: k / 8)), min_size=2, max_size=30).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@given(SCORED, st.sampled_from([0.0, 0.1, 0.34, 0.5, 0.9]))
def test_no_threshold_within_the_false_positive_rate_finds_more_fakes(
    rows: list[tuple[int, float]], fpr: float
) -> None:
    labels, p_fake = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    found = operating_point(labels, p_fake, fpr)
    assert found.fpr == (p_fake[labels == 0] > found.threshold).mean() <= fpr
    assert found.recall == (p_fake[labels == 1] > found.threshold).mean()
    for other in np.append(p_fake, 0.0):
        if (p_fake[labels == 0] > other).mean() <= fpr:
            assert (p_fake[labels == 1] > other).mean() <= found.recall


@given(SCORED)
def test_at_the_equal_error_rate_no_threshold_has_errors_more_alike(rows: list[tuple[int, float]]) -> None:
    labels, p_fake = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    found = operating_point(labels, p_fake, None)
    for other in np.append(p_fake, 1.0):
        apart = abs((p_fake[labels == 0] > other).mean() - (p_fake[labels == 1] <= other).mean())
        assert abs(found.fpr - (1 - found.recall)) <= apart + 1e-12


def test_thresholds_lie_between_scores() -> None:
    labels, p_fake = np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.7, 0.9])
    assert operating_point(labels, p_fake, None).threshold == pytest.approx(0.5)
    assert operating_point(labels, p_fake, 0.5).threshold == pytest.approx(0.5)
    upside_down = operating_point(labels, 1 - p_fake, 0.0)
    assert upside_down.threshold == pytest.approx(0.95)
    assert (upside_down.fpr, upside_down.recall) == (0.0, 0.0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_scores_too_sure_is_found_and_the_error_falls(temperature: float) -> None:
    rng = np.random.default_rng(0)
    honest = rng.uniform(0.02, 0.98, 20000)
    labels = (rng.uniform(size=20000) < honest).astype(np.int64)
    p_fake = calibrated(honest, 1 / temperature)
    assert fit_temperature(labels, p_fake) == pytest.approx(temperature, rel=0.05)
    found = calibration(labels, p_fake)
    assert found.ece_after < 0.02
    assert found.ece_after <= found.ece_before + 0.005
    assert calibration(labels, p_fake, found.temperature) == found


def test_calibration_error_is_that_of_its_bins() -> None:
    labels, p_fake = np.array([0, 1, 1, 1]), np.array([0.01, 0.02, 0.95, 1.0])
    assert calibration_error(labels, p_fake) == pytest.approx((abs(0.03 - 1) + abs(1.95 - 2)) / 4)


def test_scores_that_part_the_classes_or_reach_0_and_1_have_a_finite_temperature() -> None:
    for p_fake in (np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.2, 0.3, 0.6, 0.7])):
        found = calibration(np.array([0, 0, 1, 1]), p_fake)
        assert 0.05 <= found.temperature <= 20.0
    assert decision_record(np.array([1, 1]), np.array([0.1, 0.2])) == {
        "operating_points": [],
        "calibration": {"reason": "only fake videos"},
    }
    assert decision_record(np.zeros(0, np.int64), np.zeros(0))["calibration"] == {"reason": "no labelled video"}


def stored(**changes: Any) -> StoredThreshold:
    values = {
        "checkpoint_sha256": "ab" * 32, "video_score": "max", "clips": "3", "data": "ff", "n_real": 20, "n_fake": 20,
        "at": "eer", "threshold": 0.25, "fpr": 0.1, "recall": 0.9, "temperature": 2.0, "ece_before": 0.2,
        "ece_after": 0.1,
    }  # fmt: skip
    return StoredThreshold(**{**values, **changes})


def test_a_file_gives_back_what_was_stored_and_fits_one_detector(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(pretty_json(stored().record()))
    found = read_threshold(tmp_path / "t.json")
    assert found == stored()
    found.require_fit("ab" * 32, "max")
    with pytest.raises(RefusedError, match="chosen for the detector abababababab, this one is cdcdcdcdcdcd"):
        found.require_fit("cd" * 32, "max")
    with pytest.raises(RefusedError, match="chosen with --video-score max, not mean"):
        found.require_fit("ab" * 32, "mean")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema": "lps.metrics"}, "is no threshold of"),
        ({"schema_version": "2.0"}, "this program reads up to 1.0"),
        ({"threshold": "0.5"}, "'threshold.threshold' must be a number"),
        ({"threshold": 1.5}, "lies in 0 to 1"),
        ({"temperature": 0}, "above 0"),
        ({"later": 1, "schema_version": "1.4"}, ""),
    ],
)
def test_damaged_and_newer_files(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    (tmp_path / "t.json").write_text(json.dumps({**stored().record(), **changes}))
    if not says:
        assert read_threshold(tmp_path / "t.json") == stored()
        return
    with pytest.raises(UnreadableError, match=says):
        read_threshold(tmp_path / "t.json")


@pytest.mark.parametrize("text", ["", "[1]", "[" * 100_000])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UnreadableError):
        read_threshold(tmp_path / "t.json")
    with pytest.raises(UnreadableError):
        read_threshold(tmp_path / "absent.json")
