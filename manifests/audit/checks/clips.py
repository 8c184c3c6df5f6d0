"""Checks C1, C3, C4, C5 and C6: a clip is contiguous in time, well cut, alive, and one face's."""

import io
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

import numpy as np
import pyarrow as pa

from lps.manifests.arrays import ARCFACE_112, CROPPED, INNER_SQL, Floats, inner_side, is_cropped, margin_side
from lps.manifests.audit.checks.screen import screen_cuts, screen_steps
from lps.manifests.audit.core.database import fetch_number, fetch_rows, sql_offenders
from lps.manifests.audit.core.queries import DECLARED_RATE, VIDEO_FRAMES
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
    with_unread,
)
from lps.manifests.errors import UnreadableError
from lps.manifests.names import CLASSES, Level
from lps.manifests.schemas import BOX_UNITS, Row
from lps.manifests.storage import Store

LIMITS: dict[str, float] = {
    "c3_box_margin": 0.1,
    "c3_shear": 1e-3,
    "c3_landmark_px": 3.0,
    "c4_sample_clips": 2000,
    "c4_min_std": 2.0,
    "c4_max_share": 0.001,
    "c5_min_iou": 0.3,
    "c5_max_jump": 0.5,
    "c6_min_p": 1e-6,
    "c6_min_clips": 20,
    "c6_min_places": 20,
}
BATCH_CLIPS = 512
SCREENED_CLIPS = 1024


C1 = CheckSpec(
    id="C1",
    title="Clips are contiguous in time",
    rule="frame_idx counts n_frames frames one by one and ends before the video does; max_gap_frames is 1; "
    "pts_ticks rise strictly; pts_start_s and pts_end_s are its ends in the video's time base; every list has "
    "n_frames entries. UNKNOWN where clips are of sequences of images, which have no time stamps of their own.",
    remedy="A hole in time is what a temporal detector learns from. Prepare the named videos again; if the pipeline "
    "made this, report it.",
    severity=Severity.ERROR,
    sql=f"""WITH c AS (
    SELECT c.*, {VIDEO_FRAMES} AS video_frames, v.time_base_num / v.time_base_den AS tick_s,
        list_min([pair[2] - pair[1] for pair in list_zip(pts_ticks[:-2], pts_ticks[2:])]) AS least_step
    FROM clips c LEFT JOIN videos v USING (video_id)
)
SELECT 'clip' AS kind, sample_key AS key, CASE
    WHEN len(frame_idx) <> n_frames THEN len(frame_idx) || ' frame indices for n_frames = ' || n_frames
    WHEN frame_idx <> range(frame_idx[1], frame_idx[1] + n_frames)
        THEN 'frame_idx has a hole between ' || frame_idx[1] || ' and ' || frame_idx[-1]
    WHEN max_gap_frames <> 1 THEN 'max_gap_frames is ' || max_gap_frames
    WHEN frame_idx[1] < 0 OR frame_idx[-1] >= video_frames THEN 'frame_idx leaves the video'
    WHEN least_step <= 0 OR len(pts_ticks) <> n_frames
        THEN 'pts_ticks do not rise strictly'
    WHEN pts_end_s <= pts_start_s OR abs(pts_start_s - pts_ticks[1] * tick_s) > 1e-3
        OR abs(pts_end_s - pts_ticks[-1] * tick_s) > 1e-3 THEN 'pts_start_s or pts_end_s is not that of pts_ticks'
    ELSE 'a list has not n_frames entries' END AS detail
FROM c
WHERE len(frame_idx) <> n_frames OR frame_idx <> range(frame_idx[1], frame_idx[1] + n_frames) OR max_gap_frames <> 1
    OR frame_idx[1] < 0 OR frame_idx[-1] >= video_frames
    OR least_step <= 0 OR len(pts_ticks) <> n_frames OR pts_end_s <= pts_start_s
    OR abs(pts_start_s - pts_ticks[1] * tick_s) > 1e-3 OR abs(pts_end_s - pts_ticks[-1] * tick_s) > 1e-3
    OR len(box_xyxy) <> n_frames OR len(box_source) <> n_frames OR len(det_score) <> n_frames
    OR len(lmk5) <> n_frames OR len("align_M") <> n_frames
ORDER BY key""",
)
_SIDES_SQL = f"""SELECT 'clip' AS kind, sample_key AS key,
    'a face of ' || ({INNER_SQL}) || ' px in images of ' || out_size || ' px, not of '
        || getvariable('c3_inner_px') || ' in ' || getvariable('c3_stored_px') || ' px' AS detail
FROM clips WHERE ({INNER_SQL}) <> getvariable('c3_inner_px') OR out_size <> getvariable('c3_stored_px') ORDER BY key"""
"""Clips that were stored otherwise than planned: a data set has one size of images and one of faces in them."""
_USUAL_SIDES_SQL = f"""SELECT ({INNER_SQL}) AS inner_px, out_size FROM clips GROUP BY ALL
ORDER BY count(*) DESC, inner_px, out_size LIMIT 1"""
_TARGETS = [", ".join(map(str, column)) for column in ARCFACE_112.T.tolist()]
_C3_SQL = f"""WITH cut AS (
    SELECT sample_key, ({INNER_SQL})::DOUBLE AS side, align_template AS template, width, height,
        coalesce(rotation, 0) IN (90, 270) AS turned,
        coalesce(try_cast(regexp_extract(align_template, 'x([0-9.]+)$', 1) AS DOUBLE), 1) AS scale,
        CASE WHEN sar_num > 0 AND sar_den > 0 AND sar_num / sar_den BETWEEN 1 / 8 AND 8
            THEN sar_num / sar_den ELSE 1 END AS aspect,
        unnest(box_xyxy) AS b, unnest(lmk5) AS p, unnest("align_M") AS m
    FROM clips JOIN videos USING (video_id)),
frames AS (
    SELECT *, [n / {BOX_UNITS} for n in b] AS box, CASE WHEN turned THEN 1 ELSE aspect END AS ax,
        CASE WHEN turned THEN aspect ELSE 1 END AS ay, CASE WHEN turned THEN height ELSE width END AS shown_width,
        CASE WHEN turned THEN width ELSE height END AS shown_height,
        [p[2 * k - 1] / {BOX_UNITS} for k in range(1, 6)] AS xs, [p[2 * k] / {BOX_UNITS} for k in range(1, 6)] AS ys,
        [(t * side / 112 - side / 2) * scale + side / 2 for t in [{_TARGETS[0]}]] AS us,
        [(t * side / 112 - side / 2) * scale + side / 2 for t in [{_TARGETS[1]}]] AS vs
    FROM cut),
centred AS (
    SELECT *, [(x - list_avg(xs)) * ax for x in xs] AS zx, [(y - list_avg(ys)) * ay for y in ys] AS zy,
        [u - list_avg(us) for u in us] AS wx, [v - list_avg(vs) for v in vs] AS wy,
        sqrt(power(m[1] / ax, 2) + power(m[4] / ax, 2)) AS first,
        sqrt(power(m[2] / ay, 2) + power(m[5] / ay, 2)) AS second
    FROM frames),
fitted AS (  -- the best similarity onto the template, as a complex number
    SELECT *, (list_dot_product(zx, wx) + list_dot_product(zy, wy)) / spread AS re,
        (list_dot_product(zx, wy) - list_dot_product(zy, wx)) / spread AS im
    FROM (SELECT *, greatest(list_dot_product(zx, zx) + list_dot_product(zy, zy), 1e-9) AS spread FROM centred)),
evaluated AS (
    SELECT *, CASE WHEN template = '{CROPPED}' OR template LIKE '{CROPPED}-%' THEN
            sqrt(power(m[1] * (box[1] + box[3]) / 2 + m[2] * (box[2] + box[4]) / 2 + m[3] - side / 2, 2)
                + power(m[4] * (box[1] + box[3]) / 2 + m[5] * (box[2] + box[4]) / 2 + m[6] - side / 2, 2))
        ELSE list_max([
            sqrt(power(m[1] * xs[k] + m[2] * ys[k] + m[3] - (re * zx[k] - im * zy[k] + list_avg(us)), 2)
                + power(m[4] * xs[k] + m[5] * ys[k] + m[6] - (im * zx[k] + re * zy[k] + list_avg(vs)), 2))
            for k in range(1, 6)]) END AS miss,
        box[3] <= box[1] OR box[4] <= box[2] AS is_empty, box[4] - box[2] AS face,
        coalesce(
            least(box[1] / shown_width, box[2] / shown_height) < -getvariable('c3_box_margin')
            OR greatest(box[3] / shown_width, box[4] / shown_height) > 1 + getvariable('c3_box_margin'), false
        ) AS leaves,
        NOT list_bool_and([isfinite(n) for n in m]) AS is_odd,
        abs(first - second) > getvariable('c3_shear') * greatest(first, second) AS shears,
        m[1] * m[5] - m[2] * m[4] <= 0 AS mirrors
    FROM fitted),
clip AS (
    SELECT sample_key, bool_or(is_empty) AS is_empty, max(face) AS face, bool_or(leaves) AS leaves,
        bool_or(is_odd) AS is_odd, bool_or(shears) AS shears, bool_or(mirrors) AS mirrors, median(miss) AS miss
    FROM evaluated GROUP BY sample_key)
SELECT 'clip' AS kind, sample_key AS key, CASE
    WHEN is_empty THEN 'a box without a size'
    WHEN face < getvariable('c3_min_face_px') THEN 'no box reaches ' || getvariable('c3_min_face_px') || ' px'
    WHEN leaves THEN 'a box leaves the frame'
    WHEN is_odd THEN 'align_M is not finite'
    WHEN shears THEN 'align_M is no similarity'
    WHEN mirrors THEN 'align_M mirrors'
    ELSE 'align_M misses by ' || round(miss, 1) || ' px' END AS detail
FROM clip
WHERE is_empty OR face < getvariable('c3_min_face_px') OR leaves OR is_odd OR shears OR mirrors
    OR miss > getvariable('c3_landmark_px')
ORDER BY key"""
"""The rule as a query: what an auditor can run without this program. Screening arrays answers the same much faster."""
C3 = CheckSpec(
    id="C3",
    title="Geometry of the cut",
    rule="The side of the inner square, which align_template names, and out_size are those of the plan, or without one "
    "those of most clips. Boxes have a size, lie within the frame by c3_box_margin of its sides, and reach min_face_px "
    "at least once; "
    "align_M is a similarity in square pixels (column norms equal within c3_shear, no mirror); it takes the landmarks "
    "to within c3_landmark_px of where the best similarity onto the template takes them (median over the clip), or, "
    "where the clip was cropped, the box's middle to the middle of the inner square.",
    remedy="Look at the named clips (`lps-prep preview`); prepare their videos again.",
    severity=Severity.ERROR,
    sql=f"{_C3_SQL};\n{_SIDES_SQL}",
)
C4 = CheckSpec(
    id="C4",
    title="No blank or frozen clips",
    rule="Over all clips, images are not all equal (by SHA-256); in c4_sample_clips clips chosen by their ids (0: "
    "all) every image decodes at out_size, and one image at least has a standard deviation of c4_min_std. Share of "
    "clips that break this: at most c4_max_share; an image that does not decode always counts.",
    remedy="Look at the named clips; exclude their videos or prepare them again.",
    severity=Severity.WARN,
    level=Level.FULL,
    sql="""SELECT 'clip' AS kind, sample_key AS key, 'all images are equal' AS detail FROM (
    SELECT sample_key, image_codec, unnest(members) AS m FROM clips
) WHERE m.ext LIKE '__.' || image_codec GROUP BY sample_key HAVING count(*) > 1 AND count(DISTINCT m.sha256) = 1
ORDER BY key""",
)
C5 = CheckSpec(
    id="C5",
    title="One face per clip",
    rule="Boxes of neighbouring frames overlap (IoU at least c5_min_iou), and their middles move by at most "
    "c5_max_jump of the longer side.",
    remedy="The track jumped to another face, or the camera cut: look at the named clips, lower cut_score or exclude "
    "them.",
    severity=Severity.WARN,
    sql="""WITH steps AS (
    SELECT sample_key, unnest(list_zip([b::DOUBLE[] for b in box_xyxy[:-2]], [b::DOUBLE[] for b in box_xyxy[2:]])) AS s
    FROM clips WHERE len(box_xyxy) > 1),
pairs AS (SELECT sample_key, s[1] AS a, s[2] AS b FROM steps),
measured AS (
    SELECT sample_key, greatest(least(a[3], b[3]) - greatest(a[1], b[1]), 0)
            * greatest(least(a[4], b[4]) - greatest(a[2], b[2]), 0) AS common,
        (a[3] - a[1]) * (a[4] - a[2]) + (b[3] - b[1]) * (b[4] - b[2]) AS areas,
        sqrt(power(b[1] + b[3] - a[1] - a[3], 2) + power(b[2] + b[4] - a[2] - a[4], 2)) / 2
            / greatest(a[3] - a[1], a[4] - a[2], 1e-9) AS jump
    FROM pairs),
clip AS (
    SELECT sample_key, min(common / greatest(areas - common, 1e-9)) AS iou, max(jump) AS jump
    FROM measured GROUP BY sample_key)
SELECT 'clip' AS kind, sample_key AS key,
    'neighbouring boxes overlap by ' || round(iou, 2) || ', jump ' || round(jump, 2) || ' sides' AS detail
FROM clip WHERE iou < getvariable('c5_min_iou') OR jump > getvariable('c5_max_jump') ORDER BY key""",
)
_SEEDS_SQL = """SELECT 'clip' AS kind, sample_key AS key, 'start_seed is not that of its video' AS detail FROM clips
WHERE start_seed <> ('0x' || substr(sha256(concat_ws(chr(0), 'start', getvariable('c6_seed'),
    CASE WHEN pair_mode = 'shared' THEN pair_id ELSE lower(hex(video_id)) END)), 1, 16))::UBIGINT
ORDER BY key"""
"""`c6_seed` is the seed in plan.json, as text. A shared clip begins where its original's does."""
_STARTS_SQL = f"""SELECT label, (frame_idx[1] + (start_seed // places % 1000003 + 0.5) / 1000003) / places AS place
FROM (
    SELECT c.*, ({VIDEO_FRAMES} - c.n_frames + 1)::UBIGINT AS places FROM clips c JOIN videos v USING (video_id)
    WHERE c.start_rule = 'seeded' AND c.label IN (0, 1) AND c.pair_mode IS DISTINCT FROM 'shared'
        AND {VIDEO_FRAMES} - c.n_frames + 1 >= getvariable('c6_min_places'))"""
"""Starts are whole frames. What the seed leaves over spreads each evenly over its frame's share of the range: otherwise
ten thousand clips of short videos would be told from uniform by their steps alone. Shared clips copy
a start."""

C6 = CheckSpec(
    id="C6",
    title="Clips begin at random places",
    rule="start_seed of every clip is that of its video (of its original for shared clips) and the plan's seed. Where "
    "one clip a video was made, the place of its start, 0 to 1, is uniform in each class and the same in both "
    "(Kolmogorov-Smirnov, p at least c6_min_p; shared clips, videos with fewer than c6_min_places possible starts, and "
    "classes of fewer than c6_min_clips clips, are left out).",
    remedy="Starts that depend on the class are a shortcut: find out which videos give clips only late (data key "
    "starts).",
    severity=Severity.INFO,
    sql=f"{_SEEDS_SQL};\n{_STARTS_SQL}",
)


def check_contiguity(ctx: AuditContext) -> CheckResult:
    """C1: no holes in time."""
    n = fetch_number(ctx, "SELECT count(*) FROM clips")
    result = pass_or_fail(C1, sql_offenders(ctx, C1.sql), n, "clips")
    counted = fetch_number(ctx, f"SELECT count(*) FROM clips JOIN videos USING (video_id) WHERE {DECLARED_RATE}")
    if not counted or result.offenders:
        return result
    note = f"{counted} of {n} clips are of images, which have no time stamps: theirs are counted at a declared rate"
    return replace(result, state=State.UNKNOWN, note=note)


_GEOMETRY_SQL = """SELECT c.sample_key, c.box_xyxy, c.lmk5, c."align_M" AS matrix, c.align_template, c.out_size,
    v.width, v.height, coalesce(v.rotation, 0) AS rotation, coalesce(v.sar_num, 1) AS sar_num,
    coalesce(v.sar_den, 1) AS sar_den
FROM clips c JOIN videos v USING (video_id)"""


def check_geometry(ctx: AuditContext) -> CheckResult:
    """C3: boxes, landmarks and matrices."""
    offenders = _other_sides(ctx)
    n, worst = 0, 0.0
    min_face = float(ctx.plan.get("params", {}).get("localize", {}).get("min_face_px", 0))
    ctx.db.execute(f"SET VARIABLE c3_min_face_px = {min_face!r}::DOUBLE")  # for who runs the query of the rule
    for clips in _clip_tables(ctx, _GEOMETRY_SQL):
        n += len(clips)
        found = screen_cuts(clips, ctx.limits, min_face, ARCFACE_112)
        worst = max([worst, *found.worst[~found.marked].tolist()])
        for row in clips.filter(pa.array(found.marked)).to_pylist():
            detail, miss = cut_fault(row, ctx.limits, min_face)
            worst = max(worst, miss)
            if detail:
                offenders.append(Offender(kind="clip", key=row["sample_key"], detail=detail))
    result = pass_or_fail(C3, offenders, n, "clips", limit=f"{ctx.limits['c3_landmark_px']:g} px")
    return replace(result, measured=f"{result.measured}; worst landmark miss {worst:.2f} px")


def _other_sides(ctx: AuditContext) -> list[Offender]:
    """Return the clips with other images, or faces of another size in them, than the plan says or most clips have."""
    params = ctx.plan.get("params") or {}
    if "out_px" in params:
        inner = int(params["out_px"])
        sides = (inner, margin_side(inner, float((params.get("crop") or {}).get("margin", 1))))
    else:
        sides = next(iter(fetch_rows(ctx, _USUAL_SIDES_SQL)), (0, 0))
    for name, side in zip(("c3_inner_px", "c3_stored_px"), sides, strict=True):
        ctx.db.execute(f"SET VARIABLE {name} = {int(side)}")
    return list(sql_offenders(ctx, _SIDES_SQL))


def _clip_tables(ctx: AuditContext, sql: str) -> Iterator[pa.Table]:
    """Yield the answer of a query as Arrow tables: rows of Python objects would take most of an audit's time."""
    answer = ctx.db.cursor().sql(sql)
    read = getattr(answer, "to_arrow_reader", None) or answer.fetch_record_batch  # its name in older versions
    for batch in read(SCREENED_CLIPS):
        yield pa.Table.from_batches([batch])


def _clip_rows(ctx: AuditContext, sql: str) -> Iterator[Row]:
    """Yield rows of a query a batch at a time."""
    cursor = ctx.db.cursor()
    try:
        cursor.execute(sql)
        names = [column[0] for column in cursor.description or ()]
        while batch := cursor.fetchmany(BATCH_CLIPS):
            yield from (dict(zip(names, row, strict=True)) for row in batch)
    finally:
        cursor.close()


def cut_fault(row: Row, limits: dict[str, float], min_face_px: float) -> tuple[str, float]:
    """Return what is wrong with the cut of a clip, and by how many output px its landmarks miss."""
    boxes = np.array(row["box_xyxy"], np.float64).reshape(-1, 4) / BOX_UNITS
    matrices = np.array(row["matrix"], np.float64).reshape(-1, 2, 3)
    aspect = _aspect(row)
    wrong = _wrong_boxes(boxes, row, limits["c3_box_margin"], min_face_px)
    if wrong or not np.isfinite(matrices).all():
        return wrong or "align_M is not finite", 0.0
    square = matrices[:, :, :2] / aspect  # source px to square px on the way in
    norms = np.linalg.norm(square, axis=1)
    if (abs(norms[:, 0] - norms[:, 1]) > limits["c3_shear"] * norms.max(axis=1)).any():
        return "align_M is no similarity", 0.0
    if (np.linalg.det(square) <= 0).any():
        return "align_M mirrors", 0.0
    miss = float(np.median(_misses(row, boxes, matrices, aspect)))
    if miss > limits["c3_landmark_px"]:
        return f"align_M misses by {miss:.1f} px", miss
    return "", miss


def _wrong_boxes(boxes: Floats, row: Row, margin: float, min_face_px: float) -> str:
    sides = boxes[:, 2:] - boxes[:, :2]
    if (sides <= 0).any():
        return "a box without a size"
    if sides[:, 1].max() < min_face_px:
        return f"no box reaches {min_face_px:g} px"
    if row["width"] is None or row["height"] is None:
        return ""
    size = np.array([row["width"], row["height"]], np.float64)
    size = size[::-1] if row["rotation"] in (90, 270) else size
    if (boxes[:, :2] < -margin * size).any() or (boxes[:, 2:] > (1 + margin) * size).any():
        return "a box leaves the frame"
    return ""


def _aspect(row: Row) -> Floats:
    """Return the factors from source px to square px, as the preparation takes them."""
    aspect = row["sar_num"] / row["sar_den"] if row["sar_num"] and row["sar_den"] else 1.0
    aspect = aspect if 1 / 8 <= aspect <= 8 else 1.0
    return np.array([1.0, aspect] if row["rotation"] in (90, 270) else [aspect, 1.0])


def _misses(row: Row, boxes: Floats, matrices: Floats, aspect: Floats) -> Floats:
    """Return, for each frame, how far align_M takes a face from where it belongs, in output px."""
    side = inner_side(row["align_template"], row["out_size"])
    if is_cropped(row["align_template"]):  # the box's middle is the image's
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        placed = np.einsum("nij,nj->ni", matrices[:, :, :2], middles) + matrices[:, :, 2]
        return np.asarray(np.linalg.norm(placed - side / 2, axis=1), np.float64)
    points = np.array(row["lmk5"], np.float64).reshape(-1, 5, 2) / BOX_UNITS
    centre = side / 2
    scale = float(str(row["align_template"]).rpartition("x")[2])  # arcface5-224x0.85
    target = (ARCFACE_112 * side / 112 - centre) * scale + centre
    placed = np.einsum("nij,nkj->nki", matrices[:, :, :2], points) + matrices[:, None, :, 2]
    z, w = (points * aspect) @ np.array([1, 1j]), target @ np.array([1, 1j])
    zc, wc = z - z.mean(axis=1, keepdims=True), w - w.mean()
    a = (np.conj(zc) * wc).sum(axis=1, keepdims=True) / np.maximum((abs(zc) ** 2).sum(axis=1, keepdims=True), 1e-9)
    best = a * zc + w.mean()
    return np.asarray(abs(placed @ np.array([1, 1j]) - best).max(axis=1), np.float64)


def check_tracks(ctx: AuditContext) -> CheckResult:
    """C5: no jump from face to face."""
    offenders: list[Offender] = []
    n = 0
    for clips in _clip_tables(ctx, "SELECT sample_key, box_xyxy FROM clips"):
        n += len(clips)
        for row in clips.filter(pa.array(screen_steps(clips, ctx.limits))).to_pylist():
            iou, jump = box_steps(np.array(row["box_xyxy"], np.float64).reshape(-1, 4))
            if iou < ctx.limits["c5_min_iou"] or jump > ctx.limits["c5_max_jump"]:
                detail = f"neighbouring boxes overlap by {iou:.2f}, jump {jump:.2f} sides"
                offenders.append(Offender(kind="clip", key=row["sample_key"], detail=detail))
    limit = f"IoU {ctx.limits['c5_min_iou']:g}, jump {ctx.limits['c5_max_jump']:g}"
    return pass_or_fail(C5, offenders, n, "clips", limit=limit)


def box_steps(boxes: Floats) -> tuple[float, float]:
    """Return the smallest IoU of neighbours, and the largest step of the middle in sides."""
    if len(boxes) < 2:
        return 1.0, 0.0
    a, b = boxes[:-1], boxes[1:]
    overlap = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    iou = overlap / np.maximum(areas[:-1] + areas[1:] - overlap, 1e-9)
    step = np.linalg.norm((b[:, :2] + b[:, 2:] - a[:, :2] - a[:, 2:]) / 2, axis=1)
    side = np.maximum((a[:, 2:] - a[:, :2]).max(axis=1), 1e-9)
    return float(iou.min()), float((step / side).max())


def check_pixels(ctx: AuditContext) -> CheckResult:
    """C4: frozen clips by digest, blank and broken ones by decoding a sample."""
    offenders = list(sql_offenders(ctx, C4.sql))
    k = int(ctx.limits["c4_sample_clips"])
    n, broken, unread = 0, False, []
    for uri, rows in groupby(_clip_rows(ctx, _sampled_sql(k)), key=itemgetter("uri")):
        try:
            for row, data in _with_bytes(ctx.store, uri, list(rows)):
                n += 1
                detail, is_broken = _looked_at(ctx, row, data)
                broken = broken or is_broken
                if detail:
                    offenders.append(Offender(kind="clip", key=row["sample_key"], detail=detail))
        except UnreadableError as e:
            unread.append(str(e))
    n_all = fetch_number(ctx, "SELECT count(*) FROM clips")
    share = len({offender.key for offender in offenders}) / max(1, n_all)
    fails = broken or share > ctx.limits["c4_max_share"]
    result = pass_or_fail(C4, offenders if fails else (), n_all, "clips", limit=f"{ctx.limits['c4_max_share']:.1%}")
    shown = f"{share:.2%} of {n_all} clips blank, frozen or broken; {n} decoded"
    return with_unread(replace(result, measured=shown if n_all else ""), unread, "shards")


def _sampled_sql(k: int) -> str:
    """Return the query for `k` clips chosen by their keys (0: all), in the order in which they lie in the shards."""
    sql = """SELECT c.sample_key, s.uri, c.tar_offset, c.tar_nbytes, c.image_codec, c.out_size, c.members
        FROM clips c JOIN shards s USING (shard_id)"""
    chosen = f"{sql} ORDER BY sha256(c.sample_key) LIMIT {k}" if k else sql
    return f"SELECT * FROM ({chosen}) ORDER BY uri, tar_offset"


def _with_bytes(store: Store, uri: str, rows: list[Row]) -> Iterator[tuple[Row, bytes]]:
    """Yield the clips of one shard, which rise, with their bytes; of a place that is no range as many as there are."""
    starts = [max(0, row["tar_offset"]) for row in rows]
    ends = [max(start, row["tar_offset"] + row["tar_nbytes"]) for start, row in zip(starts, rows, strict=True)]
    return zip(rows, store.read_ranges(uri, list(zip(starts, ends, strict=True))), strict=True)


def _looked_at(ctx: AuditContext, row: Row, data: bytes) -> tuple[str, bool]:
    """Decode the images of one clip. Return what is wrong, and whether something does not decode."""
    from PIL import Image, UnidentifiedImageError

    start = row["tar_offset"]
    most = 0.0
    for member in row["members"]:
        if not member["ext"].endswith(row["image_codec"]):
            continue
        at = member["offset"] - start
        try:
            with Image.open(io.BytesIO(data[at : at + member["nbytes"]])) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as e:
            return f"{member['ext']} does not decode: {type(e).__name__}", True
        if pixels.shape[:2] != (row["out_size"], row["out_size"]):
            return f"{member['ext']} is {pixels.shape[1]}x{pixels.shape[0]} px", True
        most = max(most, float(pixels.std()))
    return (f"blank: standard deviation {most:.1f}", False) if most < ctx.limits["c4_min_std"] else ("", False)


def check_starts(ctx: AuditContext) -> CheckResult:
    """C6: seeds as planned, places uniform."""
    n = fetch_number(ctx, "SELECT count(*) FROM clips")
    params = ctx.plan.get("params")
    if not params or "seed" not in params:
        return not_evaluated(C6, State.UNKNOWN, "without a plan the seed is not known")
    ctx.db.execute(f"SET VARIABLE c6_seed = '{int(params['seed'])}'")
    offenders = list(sql_offenders(ctx, _SEEDS_SQL))
    if params.get("clips") != 1:
        return pass_or_fail(C6, offenders, n, "clips", note="more than one clip a video: only the seeds were checked")
    found = ctx.db.execute(_STARTS_SQL).fetchnumpy()
    labels, starts = np.asarray(found["label"]), np.asarray(found["place"], np.float64)
    places = {label: starts[labels == label] for label in (0, 1)}
    enough = {label: p for label, p in places.items() if len(p) >= ctx.limits["c6_min_clips"]}
    p_values = _p_values(enough)
    for name, p in p_values.items():
        if p < ctx.limits["c6_min_p"]:
            offenders.append(Offender(kind="group", key=name, detail=f"p = {p:.1e}"))
    note = "" if enough else "too few clips to test where they begin; only the seeds were checked"
    result = pass_or_fail(C6, offenders, n, "clips", limit=f"p >= {ctx.limits['c6_min_p']:g}", note=note)
    shown = ", ".join(f"{name} p = {p:.2g}" for name, p in p_values.items())
    data = {"starts": {str(label): _histogram(p) for label, p in places.items()}}
    return replace(result, measured="; ".join(filter(None, (result.measured, shown))), data=data)


def _p_values(places: dict[int, Floats]) -> dict[str, float]:
    from scipy.stats import ks_2samp, kstest

    found = {f"{CLASSES[label]} uniform": float(kstest(p, "uniform").pvalue) for label, p in places.items()}
    if len(places) == 2:
        found["real as fake"] = float(ks_2samp(places[0], places[1]).pvalue)
    return found


def _histogram(places: Floats) -> list[int]:
    return [int(n) for n in np.histogram(places, bins=20, range=(0.0, 1.0))[0]]


CHECKS = (
    CheckEntry(C1, check_contiguity),
    CheckEntry(C3, check_geometry),
    CheckEntry(C4, check_pixels),
    CheckEntry(C5, check_tracks),
    CheckEntry(C6, check_starts),
)
