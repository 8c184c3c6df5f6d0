"""Figures equal those of scikit-learn, weighted draws too; intervals draw videos; what cannot be said has a reason."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn import metrics as sk

from lps.manifests.arrays import Floats, Ints
from lps.manifests.errors import IntegrityError
from lps.manifests.names import VideoRule
from lps.model.evaluation import metrics
from lps.model.evaluation.metrics import (
    METRICS,
    Bootstrap,
    RankedScores,
    equal_error_rate,
    feasible_auc,
    few_videos,
    intervals,
    measure,
    point_values,
)
from lps.model.evaluation.scores import LabelledScores

QUICK = Bootstrap(n_draws=200)


def cases(
    labels: Sequence[int], p_fake: Sequence[float], video: Sequence[int] | None = None, face: Sequence[int] = ()
) -> LabelledScores:
    n = len(labels)
    nobody = np.full(n, None, object)
    return LabelledScores(
        labels=np.array(labels, np.int64),
        p_fake=np.array(p_fake, np.float64),
        video=np.arange(n) if video is None else np.array(video, np.int64),
        face=np.array(face or [0] * n, np.int64),
        method=nobody,
        dataset=nobody,
        compression=nobody,
    )


def noisy(n: int, *, seed: int = 0, shift: float = 0.2) -> LabelledScores:
    """Return cases that a middling detector would give, with ties."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 2)
    return cases(labels.tolist(), np.round(np.clip(rng.normal(0.4 + shift * labels, 0.2), 0, 1), 2).tolist())


# Few different scores, so that ties are common; both classes.
SCORED = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8).map(lambda k: k / 8)), min_size=2, max_size=40).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


def reference_eer(labels: Ints, p_fake: Floats, weights: Floats | None = None) -> float:
    alarms, hits, _ = sk.roc_curve(labels, p_fake, sample_weight=weights)
    return float(brentq(lambda x: 1 - x - np.interp(x, alarms, hits), 0, 1))


# ---- figures -------------------------------------------------------------------------------------------------------


@given(SCORED)
@pytest.mark.slow
def test_figures_equal_those_of_scikit_learn(rows: list[tuple[int, float]]) -> None:
    labels, p_fake = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    called = p_fake > 0.5
    found = point_values(labels, p_fake)
    assert found["auc"] == sk.roc_auc_score(labels, p_fake)
    assert found["average_precision"] == sk.average_precision_score(labels, p_fake)
    assert found["accuracy"] == sk.accuracy_score(labels, called)
    assert found["recall"] == sk.recall_score(labels, called)
    assert found["balanced_accuracy"] == sk.balanced_accuracy_score(labels, called)
    assert found["balanced_recall"] == pytest.approx(found["recall"])
    if called.any():
        assert found["precision"] == sk.precision_score(labels, called)
        hits, alarms = called[labels == 1].mean(), called[labels == 0].mean()
        assert found["balanced_precision"] == pytest.approx(hits / (hits + alarms))
    else:
        assert found["precision"] == found["balanced_precision"] == "no score above 0.5"


def test_equal_error_rate_is_where_straight_lines_between_points_cross() -> None:
    for seed in range(20):
        given = noisy(60, seed=seed)
        expected = reference_eer(given.labels, given.p_fake)
        assert equal_error_rate(given.labels, given.p_fake) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("labels", "p_fake", "eer"),
    [
        ([0, 1], [0.1, 0.9], 0.0),
        ([0, 1], [0.9, 0.1], 1.0),
        ([0, 1], [0.5, 0.5], 0.5),
        ([0, 0, 1, 1], [1, 2, 2, 3], 0.25),
    ],
)
def test_equal_error_rate_of_simple_cases(labels: list[int], p_fake: list[float], eer: float) -> None:
    assert equal_error_rate(np.array(labels), np.array(p_fake)) == pytest.approx(eer)


@pytest.mark.parametrize(
    ("labels", "reason", "defined"),
    [
        ([], "no labelled video", set()),
        ([0, 0, 0], "only real videos", {"accuracy"}),
        ([1, 1, 1], "only fake videos", {"accuracy", "recall", "balanced_recall"}),
    ],
)
def test_one_class_gives_null_with_a_reason(labels: list[int], reason: str, defined: set[str]) -> None:
    found = measure(cases(labels, [0.2, 0.6, 0.7][: len(labels)]), QUICK).metrics
    assert set(found) == set(METRICS)
    for name, metric in found.items():
        if name in defined:
            assert metric.value is not None
        else:
            assert metric.record() == {"value": None, "reason": reason}


def test_a_score_of_one_half_is_called_real_as_by_equal_logits() -> None:
    assert point_values(np.array([0, 1]), np.array([0.5, 0.5]))["accuracy"] == 0.5
    assert point_values(np.array([0, 1]), np.array([0.5, 0.5]))["recall"] == 0.0


# ---- videos --------------------------------------------------------------------------------------------------------


def test_a_video_is_the_mean_of_its_clips() -> None:
    clips = cases([0, 1, 1, 0, 1], [0.1, 0.9, 0.3, 0.2, 0.6], [7, 3, 3, 7, 5])
    videos = clips.by_video()
    assert videos.labels.tolist() == [1, 1, 0]
    assert videos.p_fake == pytest.approx([0.6, 0.6, 0.15])
    assert videos.video.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("rule", "expected"), [("max", [0.75, 0.4, 0.2]), ("mean", [0.45, 0.25, 0.2])])
def test_a_video_is_its_highest_face_or_all_its_clips(rule: VideoRule, expected: list[float]) -> None:
    clips = cases([1, 0, 1, 0, 1, 0], [0.9, 0.1, 0.3, 0.4, 0.6, 0.2], [3, 5, 3, 5, 3, 9], [1, 2, 0, 7, 1, 0])
    clips = replace(clips, p_fake=np.array([0.9, 0.1, -0.15, 0.4, 0.6, 0.2]), rule=rule)
    assert clips.by_video().p_fake == pytest.approx(expected)


def test_a_video_with_both_labels_is_refused() -> None:
    with pytest.raises(IntegrityError, match="different labels"):
        cases([0, 1], [0.1, 0.9], [4, 4]).by_video()


# ---- intervals -----------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(SCORED, st.integers(0, 10_000))
def test_weighted_figures_equal_those_of_scikit_learn(rows: list[tuple[int, float]], seed: int) -> None:
    labels, p_fake = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    order = np.argsort(-p_fake, kind="stable")
    labels, p_fake = labels[order], p_fake[order]
    drawn = np.random.default_rng(seed).integers(0, 4, (3, len(labels))).astype(np.float64)
    found = RankedScores.of(labels, p_fake).values(drawn)
    for k, weights in enumerate(drawn):
        expected = weighted(labels, p_fake, weights)
        for name in METRICS:
            assert found[name][k] == pytest.approx(expected[name], abs=1e-9, nan_ok=True), name


def weighted(labels: Ints, p_fake: Floats, weights: Floats) -> dict[str, float]:
    """Return the figures of cases that count as often as their weights say; NaN where there is none."""
    repeated: Ints = np.repeat(np.arange(len(labels)), weights.astype(int))
    values = point_values(labels[repeated], p_fake[repeated])
    found = {name: float("nan") if isinstance(value, str) else value for name, value in values.items()}
    if not np.isnan(found["eer"]):
        found["eer"] = equal_error_rate(labels[repeated], p_fake[repeated])
    return found


def test_intervals_hold_the_figure_and_repeat_with_their_seed() -> None:
    given = noisy(200)
    first, again, other = (measure(given, Bootstrap(n_draws=300, seed=s)) for s in (1, 1, 2))
    assert first == again
    assert first != other
    for name, metric in first.metrics.items():
        assert metric.low is not None, name
        assert metric.high is not None
        assert metric.value is not None
        assert metric.low <= metric.value <= metric.high
        assert metric.n_draws == 300


def test_intervals_do_not_depend_on_how_draws_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    given = noisy(50)
    whole = intervals(given, QUICK)
    monkeypatch.setattr(metrics, "CHUNK", 7 * 50)
    assert intervals(given, QUICK) == whole


def test_videos_are_drawn_with_all_their_clips() -> None:
    """Clips that are copies of each other say nothing new: the interval is that of the videos alone."""
    videos = noisy(40)
    copy = np.repeat(np.arange(40), 5)
    clips = cases(videos.labels[copy].tolist(), videos.p_fake[copy].tolist(), copy.tolist())
    one, five = intervals(videos, QUICK), intervals(clips, QUICK)
    for name in ("auc", "accuracy", "recall", "precision", "eer"):
        assert five[name] == pytest.approx(one[name])
    independent = intervals(replace(clips, video=np.arange(200)), QUICK)
    width = {kind: found["auc"][1] - found["auc"][0] for kind, found in (("videos", five), ("clips", independent))}  # type: ignore[operator]
    assert width["clips"] < 0.7 * width["videos"]


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Normal scores a standard deviation and a half apart have an AUC of 0.8556; 95 % intervals of 100 videos."""
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        labels = np.arange(100) % 2
        low, high, _ = intervals(cases(labels.tolist(), (rng.normal(size=100) + 1.5 * labels).tolist()), QUICK)["auc"]
        covered += low <= 0.8556 <= high  # type: ignore[operator]
    assert 86 <= covered <= 99


def test_draws_of_one_class_do_not_count_and_too_few_give_no_interval() -> None:
    few = measure(cases([0, 1], [0.2, 0.8]), Bootstrap(n_draws=100)).metrics["auc"]
    assert few.value == 1.0
    assert 30 <= few.n_draws <= 70
    assert measure(cases([0, 1], [0.2, 0.8]), Bootstrap(n_draws=20)).metrics["auc"].low is None


# ---- which figures go together -------------------------------------------------------------------------------------


@given(SCORED)
def test_no_scores_leave_the_feasible_interval(rows: list[tuple[int, float]]) -> None:
    labels, p_fake = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    found = point_values(labels, p_fake)
    precision = 0.0 if isinstance(found["precision"], str) else found["precision"]
    assert not isinstance(found["recall"], str)
    assert not isinstance(found["auc"], str)
    bounds = feasible_auc(found["recall"], precision, float(labels.mean()))
    assert bounds is not None
    assert bounds[0] - 1e-9 <= found["auc"] <= bounds[1] + 1e-9


def test_the_papers_own_triple_is_not_feasible() -> None:
    """AUC 99.93, recall 92.14, precision 96.17 (FF++, its Table 2): at 4 fakes to a real the AUC is at most 98.85."""
    natural, balanced = (feasible_auc(0.9214, 0.9617, share) for share in (0.8, 0.5))
    assert natural is not None
    assert balanced is not None
    assert natural[1] == pytest.approx(0.9885, abs=5e-5)
    assert balanced[1] == pytest.approx(0.9971, abs=5e-5)


def test_figures_that_no_scores_have() -> None:
    assert feasible_auc(0.9, 0.1, 0.5) is None  # more false alarms than there are reals
    assert feasible_auc(0.5, 0.0, 0.5) is None
    assert feasible_auc(1.0, 1.0, 0.3) == (1.0, 1.0)
    with pytest.raises(ValueError, match="recall must be within 0 and 1"):
        feasible_auc(92.14, 0.9, 0.5)


def test_groups_are_drawn_whole() -> None:
    clips = noisy(60)
    groups = np.arange(60) % 7
    together = intervals(replace(clips, video=groups), QUICK)
    assert intervals(clips, QUICK, groups) == together
    assert intervals(clips, QUICK) != together


def test_intervals_of_few_videos_mean_nothing() -> None:
    found = {case: few_videos(*case) for case in ((10, 10), (9, 10), (10, 9), (0, 10), (10, 0), (0, 9), (0, 0))}
    assert [case for case, few in found.items() if few] == [(9, 10), (10, 9), (0, 9)]
