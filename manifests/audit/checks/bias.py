"""Checks B1 to B12: whether the label can be learnt from anything but the forgery."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from lps.manifests.audit.checks.bias_media import (
    B3,
    B5,
    B6,
    B7,
    B8,
    check_detection,
    check_encoding,
    check_quality,
    check_resolution,
    check_timing,
)
from lps.manifests.audit.checks.bias_media import LIMITS as MEDIA_LIMITS
from lps.manifests.audit.checks.bias_names import B12, check_names
from lps.manifests.audit.checks.bias_names import LIMITS as NAME_LIMITS
from lps.manifests.audit.checks.shortcut import B4, B14, check_panel, check_shortcut
from lps.manifests.audit.checks.shortcut import LIMITS as SHORTCUT_LIMITS
from lps.manifests.audit.core.database import sql_offenders
from lps.manifests.audit.core.queries import PLACED, SURVIVORS, count, percent, read_claim, records
from lps.manifests.audit.core.stats import rate_gap, worst
from lps.manifests.audit.core.types import (
    AuditContext,
    CheckEntry,
    CheckResult,
    CheckSpec,
    Offender,
    Severity,
    State,
    not_evaluated,
)
from lps.manifests.names import CLASSES, SPLITS

LIMITS: dict[str, float] = {
    "b1_max_diff_pp": 2.0,
    "b1_min_groups": 30,
    "b2_warn_diff_pp": 0.5,
    "b2_max_diff_pp": 1.0,
    "b2_max_p": 0.001,
    "b9_max_shift_pp": 1.0,
    "b11_max_ambiguous_pct": 5.0,
    **MEDIA_LIMITS,
    **SHORTCUT_LIMITS,
    **NAME_LIMITS,
}

B1 = CheckSpec(
    id="B1",
    title="Both classes in every split, in like shares",
    rule="Of the labelled videos with clips: no split that the rule wants, or that exists, is without a real "
    "or a fake video (else FAIL); the share of reals in a split is within b1_max_diff_pp points of the "
    "overall one, and each class of a split has at least b1_min_groups groups (else WARN).",
    remedy="Use the rule ranked or stratified, other ratios, or more data. Few groups mean wide error bars on "
    "every result.",
    severity=Severity.ERROR,
    sql=f"""WITH {PLACED}, {SURVIVORS}
SELECT split, label, count(*) AS videos, sum(n_clips)::BIGINT AS clips, count(DISTINCT group_id) AS groups
FROM survivors GROUP BY ALL ORDER BY ALL""",
)
B2 = CheckSpec(
    id="B2",
    title="Both classes fail as often",
    rule="Share of inputs that failed or are partial, per data set, fakes (all, and each method) against "
    "reals: FAIL where they differ by more than b2_max_diff_pp points and Fisher's p is below b2_max_p; "
    "WARN above b2_warn_diff_pp. Skipped rows are no inputs.",
    remedy="See the codes of the failed videos (`lps-audit show`): what is lost in one class only changes what "
    "the model sees of it. Correct the cause and `lps-prep retry --code ...`, or leave out the "
    "counterparts.",
    severity=Severity.ERROR,
    sql="""SELECT dataset, label, CASE label WHEN 1 THEN coalesce(method, 'unnamed') ELSE 'real' END AS method,
    count(*) AS n, count(*) FILTER (status IN ('failed', 'partial')) AS lost
FROM videos WHERE label IS NOT NULL AND status <> 'skipped' GROUP BY ALL ORDER BY ALL""",
)
_CODES = """SELECT error_code AS code, label, count(*) AS n FROM videos
WHERE error_code IS NOT NULL AND status <> 'skipped' GROUP BY ALL ORDER BY ALL"""
B9 = CheckSpec(
    id="B9",
    title="Preparing does not shift the mix of methods",
    rule="Each method's share of all fakes with clips is within b9_max_shift_pp points of its share of all "
    "fake inputs (else WARN). SKIP with a single method.",
    remedy="Find out why one method's videos fail more often (B2), or weight the methods in training.",
    severity=Severity.WARN,
    sql="""SELECT dataset, coalesce(method, 'unnamed') AS method, count(*) AS before,
    count(*) FILTER (n_clips > 0) AS after
FROM videos WHERE label = 1 AND status <> 'skipped' GROUP BY ALL ORDER BY ALL""",
)
B11 = CheckSpec(
    id="B11",
    title="It is certain which face is the fake one",
    rule="At most b11_max_ambiguous_pct of the fake clips are of videos with several faces of which nobody "
    "published which is forged (face_label_certain = false); else WARN.",
    remedy='Prepare with `faces = "single"`, or leave these clips out: a real face labelled fake teaches the '
    "wrong thing.",
    severity=Severity.WARN,
    sql="""SELECT 'clip' AS kind, sample_key AS key, n_tracks_in_video || ' faces in the video' AS detail
FROM clips WHERE label = 1 AND NOT face_label_certain ORDER BY sample_key""",
)


def check_balance(ctx: AuditContext) -> CheckResult:
    """B1: classes by split."""
    rows = records(ctx, B1.sql)
    if not rows and not count(ctx, "SELECT count(*) FROM placed WHERE label IS NOT NULL")[0]:
        return not_evaluated(B1, State.SKIP, "no labelled video is in a split")
    cells = {(row["split"], row["label"]): row for row in rows}
    wanted = [split for split in SPLITS if split in read_claim(ctx).splits or any(key[0] == split for key in cells)]
    n_videos = sum(row["videos"] for row in rows)
    overall = sum(row["videos"] for row in rows if row["label"] == 0) / max(1, n_videos)
    empty = [] if rows else [Offender(kind="split", key="*", detail="no labelled video has clips")]
    uneven: list[Offender] = []
    for split in wanted:
        here = [cells.get((split, label)) for label in (0, 1)]
        n = [cell["videos"] if cell else 0 for cell in here]
        gap = 100 * (n[0] / max(1, sum(n)) - overall)
        if min(n) and abs(gap) > ctx.limits["b1_max_diff_pp"]:
            uneven.append(Offender(kind="split", key=split, detail=f"real share {gap:+.2f} pp from the overall one"))
        for name, cell in zip(CLASSES, here, strict=True):
            if cell is None:
                empty.append(Offender(kind="split", key=split, detail=f"no {name} video"))
            elif cell["groups"] < ctx.limits["b1_min_groups"]:
                uneven.append(Offender(kind="split", key=split, detail=f"{cell['groups']} groups of {name} videos"))
    return CheckResult(
        id=B1.id,
        state=State.FAIL if empty else State.WARN if uneven else State.PASS,
        severity=B1.severity,
        measured=f"{len(empty)} empty, {len(uneven)} uneven or small; {100 * overall:.2f} % real overall",
        limit=f"0 empty, {ctx.limits['b1_max_diff_pp']:g} pp, {ctx.limits['b1_min_groups']:g} groups",
        n_checked=n_videos,
        offenders=(*empty, *uneven),
        data={"cells": rows},
    )


def check_failures(ctx: AuditContext) -> CheckResult:
    """B2: failures by class."""
    rows = records(ctx, B2.sql)
    by_set: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_set[row["dataset"]].append(row)
    gaps = [gap for name, members in by_set.items() for gap in _gaps(name, members)]
    if not gaps:
        return not_evaluated(B2, State.SKIP, "no data set has inputs of both classes")
    limits = ctx.limits
    offenders: list[Offender] = []
    for gap in gaps:
        significant = gap["p"] < limits["b2_max_p"] and abs(gap["gap_pp"]) > limits["b2_max_diff_pp"]
        high = abs(gap["gap_pp"]) > limits["b2_warn_diff_pp"]
        gap["state"] = str(State.FAIL if significant else State.WARN if high else State.PASS)
        if gap["state"] != State.PASS:
            offenders.append(Offender(kind="group", key=gap["name"], detail=gap["text"]))
    one_sided = sorted(name for name, members in by_set.items() if len({row["label"] for row in members}) < 2)
    state = worst([State(gap["state"]) for gap in gaps])
    largest = max(gaps, key=lambda gap: abs(gap["gap_pp"]))
    return CheckResult(
        id=B2.id,
        state=State.UNKNOWN if state == State.PASS and one_sided else state,
        severity=B2.severity,
        measured=f"{largest['name']}: {largest['text']}",
        limit=f"{limits['b2_max_diff_pp']:g} pp at p < {limits['b2_max_p']:g}, warn {limits['b2_warn_diff_pp']:g} pp",
        n_checked=sum(row["n"] for row in rows),
        offenders=tuple(offenders),
        note=f"one class only in {', '.join(one_sided)}" if one_sided else "",
        data={"gaps": gaps, "codes": records(ctx, _CODES)},
    )


def _gaps(dataset: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare all fakes, and each method if there are several, with the reals of one data set."""
    reals = [row for row in rows if row["label"] == 0]
    fakes = [row for row in rows if row["label"] == 1]
    if not reals or not fakes:
        return []
    n_real, lost_real = sum(row["n"] for row in reals), sum(row["lost"] for row in reals)
    compared = [("fake", fakes), *((row["method"], [row]) for row in fakes if len(fakes) > 1)]
    gaps: list[dict[str, Any]] = []
    for name, members in compared:
        n, lost = sum(row["n"] for row in members), sum(row["lost"] for row in members)
        gap = rate_gap(lost, n, lost_real, n_real)
        text = f"{percent(lost, n)} of {n} lost, real {percent(lost_real, n_real)} of {n_real}: "
        gaps.append(
            {
                "name": f"{dataset}/{name}",
                "n": n,
                "lost": lost,
                "n_real": n_real,
                "lost_real": lost_real,
                **gap.record(text),
            }
        )
    return gaps


def check_survivors(ctx: AuditContext) -> CheckResult:
    """B9: mix of methods before and after."""
    rows = records(ctx, B9.sql)
    before, after = sum(row["before"] for row in rows), sum(row["after"] for row in rows)
    if len(rows) < 2 or not after:
        why = "no fake has clips" if rows and not after else "fewer than two methods"
        return not_evaluated(B9, State.SKIP, why)
    limit = ctx.limits["b9_max_shift_pp"]
    for row in rows:
        row["shift_pp"] = 100 * (row["after"] / after - row["before"] / before)
    shifted = [row for row in rows if abs(row["shift_pp"]) > limit]
    largest = max(rows, key=lambda row: abs(row["shift_pp"]))
    return CheckResult(
        id=B9.id,
        state=State.WARN if shifted else State.PASS,
        severity=B9.severity,
        measured=f"{largest['dataset']}/{largest['method']}: {largest['shift_pp']:+.2f} pp",
        limit=f"{limit:g} pp",
        n_checked=before,
        offenders=tuple(
            Offender(
                kind="group",
                key=f"{row['dataset']}/{row['method']}",
                detail=f"{percent(row['before'], before)} of inputs, {percent(row['after'], after)} of survivors",
            )
            for row in shifted
        ),
        data={"methods": rows},
    )


def check_ambiguous(ctx: AuditContext) -> CheckResult:
    """B11: fakes with several faces."""
    rows = records(
        ctx,
        """SELECT label, count(*) AS n, count(*) FILTER (NOT face_label_certain) AS ambiguous FROM clips
        WHERE label IS NOT NULL GROUP BY ALL ORDER BY ALL""",
    )
    fake = next((row for row in rows if row["label"] == 1), None)
    if fake is None:
        return not_evaluated(B11, State.SKIP, "no fake clips")
    limit = ctx.limits["b11_max_ambiguous_pct"]
    over = 100 * fake["ambiguous"] > limit * fake["n"]
    return CheckResult(
        id=B11.id,
        state=State.WARN if over else State.PASS,
        severity=B11.severity,
        measured=f"{percent(fake['ambiguous'], fake['n'])} of the fake clips",
        limit=f"{limit:g} %",
        n_checked=int(np.sum([row["n"] for row in rows])),
        offenders=sql_offenders(ctx, B11.sql) if over else (),
        data={"classes": rows},
    )


CHECKS: tuple[CheckEntry, ...] = (
    CheckEntry(B1, check_balance),
    CheckEntry(B2, check_failures),
    CheckEntry(B3, check_detection),
    CheckEntry(B4, check_shortcut),
    CheckEntry(B5, check_resolution),
    CheckEntry(B6, check_encoding),
    CheckEntry(B7, check_timing),
    CheckEntry(B8, check_quality),
    CheckEntry(B9, check_survivors),
    CheckEntry(B11, check_ambiguous),
    CheckEntry(B12, check_names),
    CheckEntry(B14, check_panel),
)
