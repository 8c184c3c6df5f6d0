"""Geometry of clips, thousands at a time: which ones a check has to look at one by one.

The checks of boxes, landmarks and matrices say exactly what is wrong with a clip, but take a millisecond each. Here the
same rules run on whole columns and only mark: a clip that is not marked breaks none of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.arrays import Bools, Floats, Ints, inner_sides
from lps.manifests.schemas import BOX_UNITS

BLOCK_CLIPS = 128
"""Clips whose landmarks are measured at a time: what lies between fits the cache, which halves the time."""
NEAR = 1e-9
"""A distance this close to its limit is marked, whichever way it rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """What a screen found, in the order of the rows."""

    marked: Bools
    """To be looked at: a rule is broken, or the columns have no regular shape."""
    worst: Floats
    """Median landmark miss of each clip, output px; NaN where it is marked."""


def screen_cuts(clips: pa.Table, limits: Mapping[str, float], min_face_px: float, template: Floats) -> Screened:
    """Mark the clips whose boxes, landmarks or matrices break a rule of C3.

    Args:
        clips: `box_xyxy`, `lmk5`, `matrix`, `align_template`, `out_size`, `width`, `height`, `rotation`, `sar_num`,
            `sar_den` of each clip.
        limits: `c3_box_margin`, `c3_shear`, `c3_landmark_px`.
        min_face_px: height that at least one box must reach.
        template: (5, 2) points for 112 x 112 px.
    """
    marked = np.ones(len(clips), dtype=np.bool_)
    worst = np.full(len(clips), np.nan)
    widths = {"box_xyxy": 4, "lmk5": 10, "matrix": 6}
    lengths = np.stack([_lengths(clips[name]) for name in widths])
    regular = (lengths == lengths[0]).all(axis=0) & (lengths[0] > 0) & ~_cropped(clips["align_template"])
    for n_frames in np.unique(lengths[0][regular]).tolist():
        rows = np.flatnonzero(regular & (lengths[0] == n_frames))
        some = _chosen(clips, rows)
        boxes, points, matrices = (_planes(some[name], n_frames, width) for name, width in widths.items())
        if boxes is None or points is None or matrices is None:
            continue
        aspect = _aspects(some)
        wrong = _boxes_wrong(boxes / BOX_UNITS, some, limits["c3_box_margin"], min_face_px)
        wrong |= _matrices_wrong(matrices, aspect, limits["c3_shear"])
        miss, targets = np.empty(len(rows)), _targets(some, template)
        for start in range(0, len(rows), BLOCK_CLIPS):
            part = slice(start, start + BLOCK_CLIPS)
            misses_px = _misses(points[:, part] / BOX_UNITS, matrices[:, part], aspect[part], targets[part])
            miss[part] = np.median(misses_px, axis=1)
        wrong |= ~(miss <= limits["c3_landmark_px"] - NEAR)
        marked[rows] = wrong
        worst[rows] = np.where(wrong, np.nan, miss)
    return Screened(marked=marked, worst=worst)


def screen_steps(clips: pa.Table, limits: Mapping[str, float]) -> Bools:
    """Mark the clips whose neighbouring boxes (`box_xyxy`) break a rule of C5."""
    marked = np.ones(len(clips), dtype=np.bool_)
    lengths = _lengths(clips["box_xyxy"])
    for n_frames in np.unique(lengths[lengths > 1]).tolist():
        rows = np.flatnonzero(lengths == n_frames)
        boxes = _planes(_chosen(clips, rows)["box_xyxy"], n_frames, 4)
        if boxes is None:
            continue
        a, b = boxes[:, :, :-1], boxes[:, :, 1:]
        wide, high = boxes[2] - boxes[0], boxes[3] - boxes[1]
        common = np.clip(np.minimum(a[2], b[2]) - np.maximum(a[0], b[0]), 0, None)
        common *= np.clip(np.minimum(a[3], b[3]) - np.maximum(a[1], b[1]), 0, None)
        areas = wide * high
        iou = (common / np.maximum(areas[:, :-1] + areas[:, 1:] - common, 1e-9)).min(axis=1)
        step = np.hypot(b[0] + b[2] - a[0] - a[2], b[1] + b[3] - a[1] - a[3]) / 2
        jump = (step / np.maximum(np.maximum(wide, high)[:, :-1], 1e-9)).max(axis=1)
        marked[rows] = ~((iou >= limits["c5_min_iou"] + NEAR) & (jump <= limits["c5_max_jump"] - NEAR))
    marked[lengths == 1] = False
    return marked


def _boxes_wrong(boxes: Floats, clips: pa.Table, margin: float, min_face_px: float) -> Bools:
    left, top, right, bottom = boxes
    wrong = ((right <= left) | (bottom <= top)).any(axis=1) | ((bottom - top).max(axis=1) < min_face_px)
    size = np.stack([_numbers(clips["width"]), _numbers(clips["height"])], axis=1)
    turned = np.isin(_numbers(clips["rotation"]), (90, 270))
    size[turned] = size[turned, ::-1]
    size[np.isnan(size).any(axis=1)] = np.inf  # not known: no border to cross
    for first, last, length in ((left, right, size[:, 0]), (top, bottom, size[:, 1])):
        wrong |= (first.min(axis=1) < -margin * length) | (last.max(axis=1) > (1 + margin) * length)
    return np.asarray(wrong)


def _matrices_wrong(matrices: Floats, aspect: Floats, shear: float) -> Bools:
    """Mark clips with a matrix that is not finite, that shears or that mirrors."""
    finite = np.isfinite(matrices).all(axis=(0, 2))
    with np.errstate(all="ignore"):
        a, b, d, e = (matrices[i] / aspect[:, None, j] for i, j in ((0, 0), (1, 1), (3, 0), (4, 1)))
        first, second = np.hypot(a, d), np.hypot(b, e)
        skewed = ~(np.abs(first - second) <= shear * np.maximum(first, second) - NEAR * 1e-3)
        mirrored = ~(a * e - b * d > NEAR)
    return np.asarray(~finite | (skewed | mirrored).any(axis=1))


def _misses(points: Floats, matrices: Floats, aspect: Floats, targets: Floats) -> Floats:
    """Return how far each frame's landmarks lie from where the best similarity onto the template takes them.

    Point by point over planes of (clips, frames): an axis of five is what numpy is slowest at. Both ways lead from
    source px by a matrix and a shift, so what is measured is the length of one affine map: their difference.
    """
    m, ax, ay = matrices, aspect[:, None, 0], aspect[:, None, 1]
    us, vs = (targets[:, :, None, axis].transpose(1, 0, 2) for axis in (0, 1))  # (5, clips, 1)
    u, v = us.mean(axis=0), vs.mean(axis=0)
    with np.errstate(all="ignore"):
        cx, cy = points[0::2].mean(axis=0), points[1::2].mean(axis=0)
        xs, ys = points[0::2] - cx, points[1::2] - cy
        spread, re, im = np.zeros_like(cx), np.zeros_like(cx), np.zeros_like(cx)
        for x, y, wx, wy in zip(xs, ys, us - u, vs - v, strict=True):
            zx, zy = x * ax, y * ay
            spread += zx * zx + zy * zy
            re += zx * wx + zy * wy
            im += zx * wy - zy * wx
        spread = np.maximum(spread, 1e-9)
        re, im = re / spread, im / spread
        a, b, c = m[0] - re * ax, m[1] + im * ay, m[0] * cx + m[1] * cy + m[2] - u
        d, e, f = m[3] - im * ax, m[4] - re * ay, m[3] * cx + m[4] * cy + m[5] - v
        worst = np.zeros_like(cx)
        for x, y in zip(xs, ys, strict=True):
            across, down = a * x + b * y + c, d * x + e * y + f
            worst = np.maximum(worst, across * across + down * down)
    return np.asarray(np.sqrt(worst), np.float64)


def _targets(clips: pa.Table, template: Floats) -> Floats:
    """Return where the landmarks of each clip belong, (clips, 5, 2): template names end in the scale, `...x0.85`."""
    names = clips["align_template"].to_pylist()
    scales = {name: float(name.rpartition("x")[2]) for name in set(names)}
    scale = np.array([scales[name] for name in names])[:, None, None]
    stored = np.asarray(_numbers(clips["out_size"]), np.int64)
    out = inner_sides(clips["align_template"], stored).astype(np.float64)[:, None, None]
    return np.asarray((template[None] * out / 112 - out / 2) * scale + out / 2, np.float64)


def _aspects(clips: pa.Table) -> Floats:
    """Return the factors from source px to square px, (clips, 2); implausible aspects count as square."""
    num, den = _numbers(clips["sar_num"]), _numbers(clips["sar_den"])
    known = (num > 0) & (den > 0)
    aspect = np.where(known, num / np.where(known, den, 1), 1.0)
    aspect = np.where((aspect >= 1 / 8) & (aspect <= 8), aspect, 1.0)
    turned = np.isin(_numbers(clips["rotation"]), (90, 270))
    return np.stack([np.where(turned, 1.0, aspect), np.where(turned, aspect, 1.0)], axis=1)


def _cropped(templates: pa.ChunkedArray) -> Bools:
    """Mark the clips that were cropped instead of aligned, or whose template does not state its scale."""
    aligned = pc.match_substring_regex(templates, r"x\d+(\.\d+)?$").to_pylist()
    return np.array([state is not True for state in aligned], dtype=np.bool_)


def _lengths(column: pa.ChunkedArray) -> Ints:
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0).to_numpy(), np.int64)


def _numbers(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def _chosen(clips: pa.Table, rows: Ints) -> pa.Table:
    return clips if len(rows) == len(clips) else clips.take(pa.array(rows))


def _planes(column: pa.ChunkedArray, n_frames: int, width: int) -> Floats | None:
    """Return lists of equally many frames as (width, rows, frames); None where a number is missing."""
    flat = pc.list_flatten(column)
    while pa.types.is_list(flat.type) or pa.types.is_fixed_size_list(flat.type):
        if flat.null_count:
            return None
        flat = pc.list_flatten(flat)
    if flat.null_count or len(flat) != len(column) * n_frames * width:
        return None
    rows = flat.to_numpy().reshape(len(column), n_frames, width)
    return np.ascontiguousarray(rows.transpose(2, 0, 1), np.float64)
