"""What features tell of a label in groups that were not learnt from: cross-validation, AUC, interval by groups.

Every function is deterministic. AUCs are of pairs within a fold: scores of two folds come from two models and have no
common scale, so that pooling them would hide or feign what one model tells.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from lps.manifests.arrays import Bools, Floats, Ints

N_FOLDS = 5
N_TREES = 60
MAX_LEAF = 20
"""Rows of a leaf; fewer where there are few rows in all, or nothing could be divided."""
N_DRAWS = 1000
LEVEL = 0.95
CHUNK = 1 << 21
"""Weights held at a time, draws times rows: some 16 MB for each of a few arrays."""
LOGISTIC_C = 0.1
"""Weak features of few videos need a strong prior: 192 pixels of a hundred thumbnails would fit any label."""


@dataclass(frozen=True, slots=True)
class GroupFold:
    """Rows to learn from and rows to be told; no group is in both."""

    train: Ints
    test: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Scores of rows by models that learnt from other groups."""

    scores: Floats
    """Larger: more likely fake; NaN for rows of no fold."""
    fold: Ints
    """Number of the fold that each row was told in, -1 for none."""
    weights: Floats
    """What each feature is worth, see `TellingFeature.weight`; of nearest neighbours 0."""


def one_thread() -> AbstractContextManager[object]:
    """Return a context in which models use one thread, for the same digits and little waiting.

    The threads of OpenMP wait for each other by spinning: on a busy machine one alone is many times faster. Only
    libraries that are loaded already are told, so they are loaded here.
    """
    import sklearn.ensemble
    import sklearn.linear_model
    import sklearn.neighbors  # noqa: F401
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits


def both_classes(folds: Sequence[GroupFold], labels: Ints) -> list[GroupFold]:
    """Return the folds that have both classes to learn from and to tell."""
    return [f for f in folds if all(len(np.unique(labels[rows])) == 2 for rows in (f.train, f.test))]


def group_folds(labels: Ints, groups: Ints, seed: int) -> list[GroupFold]:
    """Divide rows into N_FOLDS by group, classes as even as groups allow; folds of one class are left out."""
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(groups)) < N_FOLDS or min(np.bincount(labels, minlength=2)) < N_FOLDS:
        return []
    made = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed).split(labels, labels, groups)
    return both_classes([GroupFold(train, test) for train, test in made], labels)


def told_by_trees(features: Floats, labels: Ints, folds: Sequence[GroupFold]) -> HeldOut:
    """Score by gradient-boosted shallow trees, which use values, steps and absence (NaN), and shuffle each feature."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(0)
    scores, number = _nothing(len(labels))
    drops = np.zeros(features.shape[1])
    for k, fold in enumerate(folds):
        # Where a fold leaves a feature without two values, there is nothing to split on, and sklearn refuses it.
        varied = np.flatnonzero([n_values(features[fold.train, i]) > 1 for i in range(features.shape[1])])
        if not len(varied):
            continue
        leaf = min(MAX_LEAF, max(2, len(fold.train) // 8))
        model = HistGradientBoostingClassifier(
            max_iter=N_TREES, max_depth=3, min_samples_leaf=leaf, early_stopping=False, random_state=0
        )
        model.fit(features[np.ix_(fold.train, varied)], labels[fold.train])
        held = features[np.ix_(fold.test, varied)]
        scores[fold.test] = model.decision_function(held)
        number[fold.test] = k
        auc = plain_auc(labels[fold.test], scores[fold.test])
        for place, i in enumerate(varied):
            shuffled = held.copy()
            shuffled[:, place] = rng.permutation(held[:, place])
            drops[i] += auc - plain_auc(labels[fold.test], model.decision_function(shuffled))
    return HeldOut(scores=scores, fold=number, weights=drops / max(1, len(np.unique(number[number >= 0]))))


def told_by_logistic(features: Floats, labels: Ints, folds: Sequence[GroupFold]) -> HeldOut:
    """Score by logistic regression on standardised values; absent ones count as the median."""
    from sklearn.linear_model import LogisticRegression

    scores, number = _nothing(len(labels))
    weights = np.zeros(features.shape[1])
    for k, fold in enumerate(folds):
        train, test = _standardised(features, fold)
        model = LogisticRegression(C=LOGISTIC_C, class_weight="balanced", max_iter=1000)
        model.fit(train, labels[fold.train])
        scores[fold.test] = model.decision_function(test)
        number[fold.test] = k
        weights += np.abs(model.coef_[0]) / len(folds)
    return HeldOut(scores=scores, fold=number, weights=weights)


def told_by_nearest(features: Floats, labels: Ints, folds: Sequence[GroupFold]) -> HeldOut:
    """Score by how much nearer the nearest fake is than the nearest real: above 0 where 1-NN calls it fake."""
    from sklearn.neighbors import NearestNeighbors

    scores, number = _nothing(len(labels))
    for k, fold in enumerate(folds):
        train, test = _standardised(features, fold)
        far = [
            NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train[labels[fold.train] == c]).kneighbors(test)[0]
            for c in (0, 1)
        ]
        scores[fold.test] = (far[0] - far[1])[:, 0]
        number[fold.test] = k
    return HeldOut(scores=scores, fold=number, weights=np.zeros(features.shape[1]))


def _nothing(n: int) -> tuple[Floats, Ints]:
    return np.full(n, np.nan), np.full(n, -1, np.int64)


def n_values(values: Floats) -> int:
    """Return how many different finite values there are."""
    return len(np.unique(values[np.isfinite(values)]))


def _standardised(features: Floats, fold: GroupFold) -> tuple[Floats, Floats]:
    """Return the rows to learn from and to be told, by the scale of the former; a column without two values is 0."""
    known = np.isfinite(features[fold.train]).any(axis=0)
    middle = np.zeros(features.shape[1])
    middle[known] = np.nanmedian(np.where(np.isfinite(features), features, np.nan)[fold.train][:, known], axis=0)
    filled = np.where(np.isfinite(features), features, middle)
    train, test = filled[fold.train], filled[fold.test]
    mean, spread = train.mean(axis=0), train.std(axis=0)
    varies = spread > 1e-12 * np.maximum(1, np.abs(mean))
    scale = np.where(varies, spread, 1.0)
    return np.where(varies, (train - mean) / scale, 0.0), np.where(varies, (test - mean) / scale, 0.0)


def plain_auc(labels: Ints, scores: Floats) -> float:
    """Return the share of pairs of a fake and a real in which the fake has the larger score, ties half."""
    wins, pairs = _wins(labels, scores, np.ones((1, len(labels))))
    return float(wins[0] / pairs[0])


def fold_aucs(held: HeldOut, labels: Ints) -> list[float]:
    """Return the AUC of each fold."""
    numbers = np.unique(held.fold[held.fold >= 0])
    return [plain_auc(labels[held.fold == k], held.scores[held.fold == k]) for k in numbers]


def auc_interval(held: HeldOut, labels: Ints, groups: Ints, seed: int) -> tuple[float, float, float]:
    """Return the AUC over pairs within folds, and its bounds over N_DRAWS draws of groups with replacement.

    Draws of one class do not count. The models stay as they are: what another sample to learn from would give is not
    in the interval.
    """
    numbers = np.unique(held.fold[held.fold >= 0])
    names, unit = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    share = np.full(len(names), 1 / len(names))
    whole = _within(held, labels, np.ones((1, len(labels))), numbers)[0]
    rows = max(1, CHUNK // len(labels))
    parts = [rng.multinomial(len(names), share, min(rows, N_DRAWS - k)) for k in range(0, N_DRAWS, rows)]
    draws = np.concatenate([_within(held, labels, part[:, unit].astype(np.float64), numbers) for part in parts])
    low, high = np.quantile(draws[np.isfinite(draws)], ((1 - LEVEL) / 2, (1 + LEVEL) / 2)).tolist()
    return float(whole), low, high


def _within(held: HeldOut, labels: Ints, weights: Floats, numbers: Ints) -> Floats:
    won, of = np.zeros(len(weights)), np.zeros(len(weights))
    for k in numbers:
        rows: Bools = held.fold == k
        wins, pairs = _wins(labels[rows], held.scores[rows], weights[:, rows])
        won, of = won + wins, of + pairs
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(won / of, np.float64)


def _wins(labels: Ints, scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return, for each row of weights (draws, n), the weight of pairs that the fake wins, and that of all pairs."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    by_class = [weights[:, order] * (labels[order] == c) for c in (0, 1)]
    real, fake = (np.add.reduceat(each, starts, axis=1) for each in by_class)
    below = np.cumsum(real, axis=1) - real
    return (fake * (below + real / 2)).sum(axis=1), fake.sum(axis=1) * real.sum(axis=1)
