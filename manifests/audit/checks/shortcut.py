"""Check B4: how well the label can be told without looking at the pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Floats
from lps.manifests.audit.core.queries import PLACED, SURVIVORS, VIDEO_FRAMES, arrays
from lps.manifests.audit.core.types import (
    AuditContext,
    CheckResult,
    CheckSpec,
    Offender,
    Severity,
    State,
    not_evaluated,
)

LIMITS: dict[str, float] = {
    "b4_warn_auc": 0.6,
    "b4_max_auc": 0.75,
    "b4_min_rows": 200,
    "b4_min_groups": 20,
    "b4_max_rows": 20_000,
}
N_FOLDS = 5
N_TREES = 60
N_TOP = 5
TINY_DROP = 0.005
"""Drop of the AUC; features worth less are not named."""

FEATURES = (
    "width",
    "height",
    "frame_rate",
    "n_frames",
    "bitrate",
    "codec",
    "duration",
    "bytes",
    "pix_fmt",
    "has_audio",
    "box_side",
    "sharpness",
)

B4 = CheckSpec(
    id="B4",
    title="Metadata alone does not tell the label",
    rule="A gradient-boosted classifier of shallow trees on size, frame rate, frames, bit rate, codec, "
    "duration, bytes, pixel format, audio, box side and sharpness, cross-validated in five folds that "
    "keep groups whole (seed 0, at most b4_max_rows videos): mean AUC above b4_warn_auc is a WARN, above "
    "b4_max_auc a FAIL. SKIP below b4_min_rows videos or b4_min_groups groups in a class.",
    remedy="See the named features: encode, trim or resize both classes alike, or balance them.",
    severity=Severity.ERROR,
    # Group ids are digests, so their order is a shuffle of whole groups: a cut leaves a fair sample.
    sql=f"""WITH {PLACED}, {SURVIVORS},
faces AS (SELECT video_id, avg(box_side_med) AS box_side, avg(blur_var_med) AS sharpness FROM clips GROUP BY video_id),
codecs AS (SELECT codec, row_number() OVER (ORDER BY codec) AS code FROM (SELECT DISTINCT codec FROM survivors)),
formats AS (SELECT pix_fmt, row_number() OVER (ORDER BY pix_fmt) AS code FROM (SELECT DISTINCT pix_fmt FROM survivors))
SELECT dense_rank() OVER (ORDER BY group_id) AS group_number, * EXCLUDE (group_id, video_id) FROM (
    SELECT s.group_id, s.video_id, s.label, s.width, s.height, s.fps_num / nullif(s.fps_den, 0) AS frame_rate,
        {VIDEO_FRAMES} AS n_frames, s.bitrate_bps AS bitrate, codecs.code AS codec, s.duration_s AS duration,
        s.bytes, formats.code AS pix_fmt, s.has_audio::DOUBLE AS has_audio, faces.box_side, faces.sharpness
    FROM survivors s LEFT JOIN faces USING (video_id) LEFT JOIN codecs USING (codec)
        LEFT JOIN formats USING (pix_fmt)
    ORDER BY s.group_id, s.video_id LIMIT getvariable('b4_max_rows')::BIGINT
) ORDER BY group_id, video_id""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortcut:
    """What the classifier got out of the metadata."""

    auc: float
    folds: tuple[float, ...]
    drops: tuple[tuple[str, float], ...]
    """Feature and the AUC lost when its values are shuffled, largest first."""


def check_shortcut(ctx: AuditContext) -> CheckResult:
    """B4: train and test a classifier on metadata."""
    columns = arrays(ctx, B4.sql)
    label, groups = columns["label"].astype(np.int64), columns["group_number"].astype(np.int64)
    n_groups = min(len(np.unique(groups[label == number])) for number in (0, 1))
    if len(label) < ctx.limits["b4_min_rows"] or n_groups < max(N_FOLDS, ctx.limits["b4_min_groups"]):
        note = f"too few labelled videos with clips: {len(label)}, of {n_groups} groups in the smaller class"
        return not_evaluated(B4, State.SKIP, note)
    names = [name for name in FEATURES if len(np.unique(_finite(columns[name]))) > 1]
    if not any(len(_finite(columns[name])) for name in FEATURES):
        return not_evaluated(B4, State.SKIP, "the manifest holds none of the features")
    if not names:
        return CheckResult(
            id=B4.id,
            state=State.PASS,
            severity=B4.severity,
            measured="every feature has one value",
            n_checked=len(label),
        )
    features = np.column_stack([columns[name].astype(np.float64) for name in names])
    found = cross_validate(features, label, groups, names)
    if found is None:
        return not_evaluated(B4, State.SKIP, "no fold holds both classes")
    warn, fail = ctx.limits["b4_warn_auc"], ctx.limits["b4_max_auc"]
    state = State.FAIL if found.auc > fail else State.WARN if found.auc > warn else State.PASS
    top = [(name, drop) for name, drop in found.drops[:N_TOP] if drop > TINY_DROP]
    return CheckResult(
        id=B4.id,
        state=state,
        severity=B4.severity,
        measured=f"AUC {found.auc:.3f}"
        + (f", most from {', '.join(name for name, _ in top)}" if top and state != State.PASS else ""),
        limit=f"AUC {warn:g} (fail {fail:g})",
        n_checked=len(label),
        offenders=tuple(
            Offender(kind="column", key=name, detail=f"AUC falls by {drop:.3f} when its values are shuffled")
            for name, drop in top
        )
        if state != State.PASS
        else (),
        data={
            "auc": round(found.auc, 4),
            "folds": [round(auc, 4) for auc in found.folds],
            "importance": {name: round(drop, 4) for name, drop in found.drops},
        },
    )


def cross_validate(
    features: Floats, label: NDArray[np.int64], groups: NDArray[np.int64], names: Sequence[str]
) -> Shortcut | None:
    """Return the mean AUC over the folds that hold both classes, and what each feature is worth in them."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    rng = np.random.default_rng(0)
    folds: list[float] = []
    drops = np.zeros(len(names))
    # The threads of OpenMP wait for each other by spinning: on a busy machine one alone is many times faster.
    with threadpool_limits(1):
        for train, test in GroupKFold(n_splits=N_FOLDS).split(features, label, groups):
            if len(np.unique(label[train])) < 2 or len(np.unique(label[test])) < 2:
                continue
            # Where a fold leaves a feature without two values, there is nothing to split on, and sklearn refuses it.
            varied = [i for i in range(len(names)) if len(np.unique(_finite(features[train, i]))) > 1]
            if not varied:
                continue
            model = HistGradientBoostingClassifier(max_iter=N_TREES, max_depth=3, early_stopping=False, random_state=0)
            model.fit(features[np.ix_(train, varied)], label[train])
            held = features[np.ix_(test, varied)]
            auc = float(roc_auc_score(label[test], model.predict_proba(held)[:, 1]))
            folds.append(auc)
            for place, i in enumerate(varied):
                shuffled = held.copy()
                shuffled[:, place] = rng.permutation(held[:, place])
                drops[i] += auc - float(roc_auc_score(label[test], model.predict_proba(shuffled)[:, 1]))
    order = np.argsort(-drops, kind="stable")
    if not folds:
        return None
    return Shortcut(
        auc=float(np.mean(folds)),
        folds=tuple(folds),
        drops=tuple((names[i], float(drops[i]) / len(folds)) for i in order),
    )


def _finite(values: NDArray[np.float64]) -> Floats:
    values = values.astype(np.float64)
    return values[np.isfinite(values)]
