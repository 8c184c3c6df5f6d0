"""Checks B4 and B14: how well the label can be told by what is no forgery."""

import numpy as np

from lps.manifests.arrays import Floats, Ints
from lps.manifests.audit.core.queries import PLACED, SURVIVORS, arrays
from lps.manifests.audit.core.types import (
    AuditContext,
    CheckResult,
    CheckSpec,
    Offender,
    Severity,
    State,
    not_evaluated,
    with_unread,
)
from lps.manifests.names import Level
from lps.manifests.shortcuts.held_out import (
    N_FOLDS,
    GroupFold,
    both_classes,
    fold_aucs,
    n_values,
    one_thread,
    told_by_trees,
)
from lps.manifests.shortcuts.panel import OF_PICTURES, measure_panel
from lps.manifests.shortcuts.sample import MIN_GROUPS, MIN_VIDEOS
from lps.manifests.shortcuts.tables import FILE_COLUMNS, coded

LIMITS: dict[str, float] = {
    "b4_warn_auc": 0.6,
    "b4_max_auc": 0.75,
    "b4_min_rows": 200,
    "b4_min_groups": 20,
    "b4_max_rows": 20_000,
    "b14_warn_auc": 0.6,
    "b14_max_clips": 4000,
}
N_TOP = 5
TINY_DROP = 0.005
"""Drop of the AUC; features worth less are not named."""

FEATURES = (*FILE_COLUMNS, "box_side", "sharpness")
_FILE = ", ".join(f"{value} AS {name}" for name, value in FILE_COLUMNS.items())

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
faces AS (SELECT video_id, avg(box_side_med) AS box_side, avg(blur_var_med) AS sharpness FROM clips GROUP BY video_id)
SELECT dense_rank() OVER (ORDER BY group_id) AS group_number, * EXCLUDE (group_id, video_id) FROM (
    SELECT s.group_id, s.video_id, s.label, {_FILE}, faces.box_side, faces.sharpness
    FROM survivors s LEFT JOIN faces USING (video_id)
    ORDER BY s.group_id, s.video_id LIMIT getvariable('b4_max_rows')::BIGINT
) ORDER BY group_id, video_id""",
)

JUDGED = ("order", "face-size", "geometry", *OF_PICTURES)
"""Shortcuts of the panel that B14 judges: B4 does those of files, and no trainer reads the names of sources."""

B14 = CheckSpec(
    id="B14",
    title="Pictures, boxes and order alone do not tell the label",
    rule="How well each of these tells the label alone, in five folds that keep groups whole (seed 0, at most "
    f"b14_max_clips videos, one clip each): {', '.join(JUDGED)}. A 95 % interval of the AUC that lies above "
    "b14_warn_auc is a WARN. UNKNOWN where one of them cannot be measured, or a class has fewer than "
    f"{MIN_VIDEOS} videos or {MIN_GROUPS} groups. The data has the whole panel, with metadata, bit rate and names of "
    "files, which are not judged here.",
    remedy="Look at the named features. What blending leaves (spectrum, band-power) may be what a detector is to "
    "find; face size, geometry and order are not: balance or augment them, and read every AUC beside the panel.",
    severity=Severity.WARN,
    level=Level.FULL,
)


def check_shortcut(ctx: AuditContext) -> CheckResult:
    """B4: train and test a classifier on metadata."""
    columns = {name: coded(values) for name, values in arrays(ctx, B4.sql).items()}
    label, groups = columns["label"].astype(np.int64), columns["group_number"].astype(np.int64)
    n_groups = min(len(np.unique(groups[label == number])) for number in (0, 1))
    if len(label) < ctx.limits["b4_min_rows"] or n_groups < max(N_FOLDS, ctx.limits["b4_min_groups"]):
        note = f"too few labelled videos with clips: {len(label)}, of {n_groups} groups in the smaller class"
        return not_evaluated(B4, State.SKIP, note)
    names = [name for name in FEATURES if n_values(columns[name]) > 1]
    if not any(n_values(columns[name]) for name in FEATURES):
        return not_evaluated(B4, State.SKIP, "the manifest holds none of the features")
    if not names:
        return CheckResult(
            id=B4.id,
            state=State.PASS,
            severity=B4.severity,
            measured="every feature has one value",
            n_checked=len(label),
        )
    found = cross_validate(np.column_stack([columns[name] for name in names]), label, groups)
    if found is None:
        return not_evaluated(B4, State.SKIP, "no fold holds both classes")
    folds, drops = found
    auc = float(np.mean(folds))
    warn, fail = ctx.limits["b4_warn_auc"], ctx.limits["b4_max_auc"]
    state = State.FAIL if auc > fail else State.WARN if auc > warn else State.PASS
    worth = [(names[i], float(drops[i])) for i in np.argsort(-drops, kind="stable")]
    top = [(name, drop) for name, drop in worth[:N_TOP] if drop > TINY_DROP]
    return CheckResult(
        id=B4.id,
        state=state,
        severity=B4.severity,
        measured=f"AUC {auc:.3f}"
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
            "auc": round(auc, 4),
            "folds": [round(auc, 4) for auc in folds],
            "importance": {name: round(drop, 4) for name, drop in worth},
        },
    )


def cross_validate(features: Floats, label: Ints, groups: Ints) -> tuple[list[float], Floats] | None:
    """Return the AUC of each fold that holds both classes, and what each feature is worth in them; None without any."""
    from sklearn.model_selection import GroupKFold

    folds = [GroupFold(train, test) for train, test in GroupKFold(n_splits=N_FOLDS).split(features, label, groups)]
    with one_thread():
        held = told_by_trees(features, label, both_classes(folds, label))
    aucs = fold_aucs(held, label)
    return (aucs, held.weights) if aucs else None


def check_panel(ctx: AuditContext) -> CheckResult:
    """B14: measure the panel and judge what a trainer sees."""
    found = measure_panel(ctx, max_clips=int(ctx.limits["b14_max_clips"]))
    panel, warn = found.panel, ctx.limits["b14_warn_auc"]
    judged = [score for score in panel.scores if score.name in JUDGED]
    over = [score for score in judged if score.low is not None and score.low > warn]
    open_ones = [score for score in judged if score.auc is None]
    state = State.WARN if over else State.UNKNOWN if open_ones else State.PASS
    measured = [score for score in judged if score.auc is not None]
    strongest = max(measured, key=lambda score: score.auc or 0, default=None)
    unknown = ", ".join(score.name for score in open_ones)
    result = CheckResult(
        id=B14.id,
        state=state,
        severity=B14.severity,
        measured=f"{strongest.name} AUC {strongest.shown()}" if strongest else "",
        limit=f"AUC {warn:g}",
        n_checked=panel.n_sampled,
        offenders=tuple(
            Offender(kind="column", key=score.name, detail=f"AUC {score.shown()}, from {score.because()}")
            for score in over
        ),
        note="; ".join(dict.fromkeys((f"unknown: {unknown}", *(s.note for s in open_ones)))) if open_ones else "",
        data={"panel": panel.record()},
    )
    return with_unread(result, found.unread, "clips")
