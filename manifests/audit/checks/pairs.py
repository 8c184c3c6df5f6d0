"""Checks C7 and B13: a fake shares what it says it shares with its original, and no method shares less than others."""

from dataclasses import dataclass
from typing import Any

from lps.manifests.audit.checks.pair_pixels import C8, check_surroundings
from lps.manifests.audit.checks.pair_pixels import LIMITS as PIXEL_LIMITS
from lps.manifests.audit.core.database import fetch_number, sql_offenders
from lps.manifests.audit.core.queries import percent, records
from lps.manifests.audit.core.stats import Effect, rate_gap, worst
from lps.manifests.audit.core.types import (
    AuditContext,
    CheckEntry,
    CheckResult,
    CheckSpec,
    Offender,
    Severity,
    State,
    not_evaluated,
    pass_or_fail,
)

LIMITS: dict[str, float] = {"b13_warn_diff_pp": 5.0, "b13_max_diff_pp": 10.0, **PIXEL_LIMITS}

NO_COLUMNS = "the clips have no columns of pairs (schema before 3.1)"
NO_PAIRING = "the plan pairs no fake with its original"

SHARED_COLUMNS = (
    *("frame_idx", "box_xyxy", "box_source", "det_score", "lmk5", "align_M", "align_template", "interp", "border"),
    *("out_size", "block_len", "start_rule", "start_seed"),
)
"""Columns in which a shared clip and that of its original are equal."""
_ASPECT = """CASE WHEN v.sar_num > 0 AND v.sar_den > 0 AND v.sar_num / v.sar_den BETWEEN 1 / 8 AND 8
            THEN v.sar_num / v.sar_den ELSE 1 END"""
_HASHES = ",\n        ".join(f'hash(c."{name}") AS "{name}"' for name in SHARED_COLUMNS)
_DIFFERENT = ",\n        ".join(
    f'CASE WHEN s."{name}" IS DISTINCT FROM o."{name}" THEN \'{name}\' END' for name in SHARED_COLUMNS
)
_TOLD = f"""WITH originals AS (
    SELECT DISTINCT original_video_id AS video_id FROM videos WHERE original_video_id IS NOT NULL),
told AS (
    SELECT c.sample_key, lower(hex(c.video_id)) AS id, c.label, c.pair_id, c.pair_mode, c.pair_fallback,
        c.pair_face_px, c.pair_background, c.track_id, c.n_frames, c.frame_idx[1] AS first,
        c.pts_end_s - c.pts_start_s AS span_s,
        coalesce(v.original_video_id, CASE WHEN c.video_id IN (FROM originals) THEN c.video_id END) AS family,
        {_HASHES},
        v.width, v.height, coalesce(v.rotation, 0) AS rotation, {_ASPECT} AS aspect
    FROM clips c JOIN videos v USING (video_id))
"""
C7 = CheckSpec(
    id="C7",
    title="Shared windows and cuts are those of the original",
    rule="pair_id is the video id of the original in `videos`, or of the video itself where others name it as theirs, "
    "and no clip of a known label has a fake as its original. pair_mode is that of the plan's pairing: all are own "
    "without one; with it, fakes whose original is among the inputs are shared or fallback; pair_fallback stands "
    "exactly with fallback. Each shared clip has its original's clip of the same frames and track in the data set. The "
    f"two have equal {', '.join(SHARED_COLUMNS)}, last as long within one step, and their videos are equal in width, "
    "height, rotation and pixel aspect. Its pair_face_px and pair_background are there, and within max_face_px and "
    "min_background of the plan.",
    remedy="A fake that is cut otherwise than its original is told from it by the cut alone. Prepare the named videos "
    "again; if the pipeline made this, report it.",
    severity=Severity.ERROR,
    sql=f"""{_TOLD}SELECT 'clip' AS kind, s.sample_key AS key, CASE
    WHEN s.pair_mode IS NULL THEN 'pair_mode is missing'
    WHEN s.pair_id IS DISTINCT FROM lower(hex(s.family)) THEN 'pair_id is ' || coalesce(s.pair_id, 'null')
        || ', the original of its family is ' || coalesce(lower(hex(s.family)), 'null')
    WHEN (s.pair_mode = 'fallback') <> (s.pair_fallback IS NOT NULL)
        THEN 'pair_mode is ' || s.pair_mode || ', pair_fallback ' || coalesce(s.pair_fallback, 'null')
    WHEN s.family IS NOT NULL AND v.video_id IS NULL THEN 'its original is not in videos'
    WHEN v.label = 1 AND s.label IS NOT NULL THEN 'its original is a fake'
    WHEN s.pair_mode <> 'own' AND getvariable('c7_pairing') = 'none' THEN 'is ' || s.pair_mode || ' without pairing'
    WHEN s.pair_mode <> 'own' AND coalesce(s.pair_id = s.id, true) THEN 'is ' || s.pair_mode || ', but no fake'
    WHEN s.pair_mode = 'own' AND getvariable('c7_pairing') = 'original' AND s.pair_id <> s.id
        THEN 'has an original, but is neither shared nor fallback'
    WHEN s.pair_mode <> 'shared' THEN NULL
    WHEN o.sample_key IS NULL THEN 'its original has no clip of these frames and this track'
    WHEN abs(s.span_s - o.span_s) > 1.01 * o.span_s / (o.n_frames - 1)
        THEN 'lasts ' || round(s.span_s, 3) || ' s, ' || o.sample_key || ' ' || round(o.span_s, 3) || ' s'
    WHEN (s.width, s.height, s.rotation) IS DISTINCT FROM (o.width, o.height, o.rotation)
        OR abs(s.aspect - o.aspect) > 1e-6 THEN 'its video has another size, rotation or pixel aspect than its original'
    WHEN s.pair_face_px IS NULL OR s.pair_background IS NULL THEN 'pair_face_px or pair_background is missing'
    WHEN NOT isfinite(s.pair_face_px) OR s.pair_face_px > getvariable('c7_max_face_px')::FLOAT
        THEN 'pair_face_px is ' || s.pair_face_px
    WHEN NOT isfinite(s.pair_background) OR s.pair_background < getvariable('c7_min_background')::FLOAT
        THEN 'pair_background is ' || s.pair_background
    ELSE 'differs from ' || o.sample_key || ' in ' || nullif(concat_ws(', ',
        {_DIFFERENT}), '') END AS detail
FROM told s LEFT JOIN videos v ON v.video_id = s.family
LEFT JOIN told o ON s.pair_mode = 'shared' AND o.id = s.pair_id AND o.track_id IS NOT DISTINCT FROM s.track_id
    AND o.first = s.first AND o.n_frames = s.n_frames
WHERE detail IS NOT NULL ORDER BY key""",
)
B13 = CheckSpec(
    id="B13",
    title="Every method shares its original's cut as often",
    rule="Share of the fakes with an original that fell back on a window and cut of their own: each method and each "
    "compression of a data set against its other fakes. FAIL where they differ by more than b13_max_diff_pp points, "
    "WARN above b13_warn_diff_pp; UNKNOWN where chance gives it with p >= b_max_p (Fisher). SKIP without pairing, and "
    "with a single method and compression.",
    remedy="See which codes its fakes have (data key codes; `lps-audit show`): a method whose fakes are cut otherwise "
    "is easier to tell. Leave the fallbacks out in training, or widen the limits of pairing and prepare again.",
    severity=Severity.WARN,
    sql="""WITH paired AS (
    SELECT video_id, bool_or(pair_mode = 'fallback') AS fell_back FROM clips
    WHERE pair_mode IN ('shared', 'fallback') GROUP BY video_id)
SELECT dataset, coalesce(method, 'unnamed') AS method, coalesce(compression, 'unnamed') AS compression,
    count(*) AS n, count(*) FILTER (fell_back) AS n_fallback
FROM paired JOIN videos USING (video_id) GROUP BY ALL ORDER BY ALL""",
)
_CODES = """SELECT v.dataset, coalesce(v.method, 'unnamed') AS method, pair_fallback AS code,
    count(DISTINCT video_id) AS n
FROM clips c JOIN videos v USING (video_id) WHERE pair_mode = 'fallback' GROUP BY ALL ORDER BY ALL"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPairing:
    """What the plan says of pairs; None where it does not."""

    mode: str | None
    max_face_px: float | None
    min_background: float | None


def planned_pairing(ctx: AuditContext) -> PlannedPairing:
    """Read what the plan says of pairs: plans from before there were any pair nothing."""
    params = ctx.plan.get("params")
    pair = dict(params.get("pair") or {}) if params else {}
    return PlannedPairing(
        mode=str(pair.get("mode", "none")) if params else None,
        max_face_px=pair.get("max_face_px"),
        min_background=pair.get("min_background"),
    )


def check_shared(ctx: AuditContext) -> CheckResult:
    """C7: a shared clip and its original."""
    if not fetch_number(ctx, "SELECT count(*) FROM clips WHERE pair_mode IS NOT NULL OR pair_id IS NOT NULL"):
        n_clips = fetch_number(ctx, "SELECT count(*) FROM clips")
        return not_evaluated(C7, State.SKIP, NO_COLUMNS if n_clips else "there are no clips to check")
    planned = planned_pairing(ctx)
    ctx.db.execute(f"SET VARIABLE c7_pairing = {_text(planned.mode)}")
    for name, limit in (("max_face_px", planned.max_face_px), ("min_background", planned.min_background)):
        ctx.db.execute(f"SET VARIABLE c7_{name} = {'NULL' if limit is None else repr(float(limit))}::DOUBLE")
    families = f"{_TOLD}SELECT count(*) FROM told WHERE family IS NOT NULL OR pair_id IS NOT NULL OR pair_mode <> 'own'"
    n_shared = fetch_number(ctx, "SELECT count(*) FROM clips WHERE pair_mode = 'shared'")
    note = f"{n_shared} clips share their original's cut" if n_shared or planned.mode != "none" else NO_PAIRING
    return pass_or_fail(C7, sql_offenders(ctx, C7.sql), fetch_number(ctx, families), "clips of families", note=note)


def _text(value: str | None) -> str:
    """Return a value as DuckDB writes it."""
    return "NULL::VARCHAR" if value is None else "'" + value.replace("'", "''") + "'"


def check_fallbacks(ctx: AuditContext) -> CheckResult:
    """B13: fallbacks by method and compression."""
    rows = records(ctx, B13.sql)
    if not rows:
        return not_evaluated(B13, State.SKIP, _why_nothing_is_paired(ctx))
    gaps = _gaps(rows, "method") + _gaps(rows, "compression")
    if not gaps:
        return not_evaluated(B13, State.SKIP, "one method and one compression: nothing to compare")
    limits = ctx.limits
    warn, fail = limits["b13_warn_diff_pp"], limits["b13_max_diff_pp"]
    offenders: list[Offender] = []
    for gap in gaps:
        state = Effect(gap["gap_pp"], gap["p"]).grade(warn=warn, fail=fail, max_p=limits["b_max_p"])
        gap["state"] = str(state)
        if state in (State.FAIL, State.WARN):
            offenders.append(Offender(kind="group", key=gap["name"], detail=gap["text"]))
    largest = max(gaps, key=lambda gap: abs(gap["gap_pp"]))
    n, n_fallback = (sum(row[name] for row in rows) for name in ("n", "n_fallback"))
    return CheckResult(
        id=B13.id,
        state=worst([State(gap["state"]) for gap in gaps]),
        severity=B13.severity,
        measured=f"{largest['name']}: {largest['text']}; all: {percent(n_fallback, n)} of {n}",
        limit=f"{fail:g} pp at p < {limits['b_max_p']:g}, warn {warn:g} pp",
        n_checked=n,
        offenders=tuple(offenders),
        data={"gaps": gaps, "codes": records(ctx, _CODES)},
    )


def _why_nothing_is_paired(ctx: AuditContext) -> str:
    if not fetch_number(ctx, "SELECT count(pair_mode) FROM clips"):
        return NO_COLUMNS
    return "no fake has an original that it could share with" if planned_pairing(ctx).mode == "original" else NO_PAIRING


def _gaps(rows: list[dict[str, Any]], trait: str) -> list[dict[str, Any]]:
    """Compare the fakes of each value of a trait with the other fakes of its data set."""
    gaps: list[dict[str, Any]] = []
    for dataset, value in sorted({(row["dataset"], row[trait]) for row in rows}):
        mine = [row for row in rows if (row["dataset"], row[trait]) == (dataset, value)]
        others = [row for row in rows if row["dataset"] == dataset and row[trait] != value]
        if not others:
            continue
        n, lost = sum(row["n"] for row in mine), sum(row["n_fallback"] for row in mine)
        n_others, lost_others = sum(row["n"] for row in others), sum(row["n_fallback"] for row in others)
        gap = rate_gap(lost, n, lost_others, n_others)
        text = f"{percent(lost, n)} of {n} fell back, others {percent(lost_others, n_others)} of {n_others}: "
        gaps.append(
            {
                "name": f"{dataset}/{value}",
                "trait": trait,
                "n": n,
                "n_fallback": lost,
                "n_others": n_others,
                "n_fallback_others": lost_others,
                **gap.record(text),
            }
        )
    return gaps


CHECKS = (
    CheckEntry(B13, check_fallbacks),
    CheckEntry(C7, check_shared),
    CheckEntry(C8, check_surroundings),
)
