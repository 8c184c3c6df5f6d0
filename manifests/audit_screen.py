"""Geometry of clips, thousands at a time: which ones a check has to look at one by one.

The checks of boxes, landmarks and matrices say exactly what is wrong with a clip, but take a millisecond each. Here the
same rules run on whole columns and only mark: a clip that is not marked breaks none of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lps.manifests.schemas import BOX_UNITS

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

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
        some = clips.take(pa.array(rows))
        boxes, points, matrices = (_dense(some[name], n_frames, width) for name, width in widths.items())
        if boxes is None or points is None or matrices is None:
            continue
        aspect = _aspects(some)
        wrong = _boxes_wrong(boxes / BOX_UNITS, some, limits["c3_box_margin"], min_face_px)
        wrong |= _matrices_wrong(matrices, aspect, limits["c3_shear"])
        points = points.reshape(len(rows), n_frames, 5, 2) / BOX_UNITS
        miss = np.median(_misses(points, matrices, aspect, _targets(some, template)), axis=1)
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
        boxes = _dense(clips["box_xyxy"].take(pa.array(rows)), n_frames, 4)
        if boxes is None:
            continue
        a, b = boxes[:, :-1], boxes[:, 1:]
        overlap = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(
            axis=-1
        )
        areas = (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)
        iou = (overlap / np.maximum(areas[:, :-1] + areas[:, 1:] - overlap, 1e-9)).min(axis=1)
        step = np.linalg.norm((b[..., :2] + b[..., 2:] - a[..., :2] - a[..., 2:]) / 2, axis=-1)
        jump = (step / np.maximum((a[..., 2:] - a[..., :2]).max(axis=-1), 1e-9)).max(axis=1)
        marked[rows] = ~((iou >= limits["c5_min_iou"] + NEAR) & (jump <= limits["c5_max_jump"] - NEAR))
    marked[lengths == 1] = False
    return marked


# ---- rules ---------------------------------------------------------------------------------------------------------


def _boxes_wrong(boxes: Floats, clips: pa.Table, margin: float, min_face_px: float) -> Bools:
    sides = boxes[..., 2:] - boxes[..., :2]
    wrong = (sides <= 0).any(axis=(1, 2)) | (sides[..., 1].max(axis=1) < min_face_px)
    size = np.stack([_numbers(clips["width"]), _numbers(clips["height"])], axis=1)
    turned = np.isin(_numbers(clips["rotation"]), (90, 270))
    size[turned] = size[turned, ::-1]
    size[np.isnan(size).any(axis=1)] = np.inf  # not known: no border to cross
    wrong |= (boxes[..., :2].min(axis=1) < -margin * size).any(axis=1)
    return np.asarray(wrong | (boxes[..., 2:].max(axis=1) > (1 + margin) * size).any(axis=1))


def _matrices_wrong(matrices: Floats, aspect: Floats, shear: float) -> Bools:
    """Mark matrices that are not finite, that shear or that mirror; `matrices` are rows of six numbers."""
    finite = np.isfinite(matrices).all(axis=(1, 2))
    a, b, d, e = (matrices[..., i] / aspect[:, None, j] for i, j in ((0, 0), (1, 1), (3, 0), (4, 1)))
    with np.errstate(all="ignore"):
        first, second = np.hypot(a, d), np.hypot(b, e)
        skewed = ~(np.abs(first - second) <= shear * np.maximum(first, second) - NEAR * 1e-3)
        mirrored = ~(a * e - b * d > NEAR)
    return np.asarray(~finite | (skewed | mirrored).any(axis=1))


def _misses(points: Floats, matrices: Floats, aspect: Floats, targets: Floats) -> Floats:
    """Return how far each frame's landmarks lie from where the best similarity onto the template takes them."""
    x, y = points[..., 0], points[..., 1]
    m = matrices[:, :, None, :]
    with np.errstate(all="ignore"):
        placed = (m[..., 0] * x + m[..., 1] * y + m[..., 2]) + 1j * (m[..., 3] * x + m[..., 4] * y + m[..., 5])
        z = x * aspect[:, None, None, 0] + 1j * (y * aspect[:, None, None, 1])
        w = (targets[..., 0] + 1j * targets[..., 1])[:, None, :]
        zc, wc = z - z.mean(axis=-1, keepdims=True), w - w.mean(axis=-1, keepdims=True)
        scale = np.maximum((zc.real**2 + zc.imag**2).sum(axis=-1, keepdims=True), 1e-9)
        best = (np.conj(zc) * wc).sum(axis=-1, keepdims=True) / scale * zc + w.mean(axis=-1, keepdims=True)
        return np.asarray(np.abs(placed - best).max(axis=-1), np.float64)


def _targets(clips: pa.Table, template: Floats) -> Floats:
    """Return where the landmarks of each clip belong, (clips, 5, 2): template names end in the scale, `...x0.85`."""
    names = clips["align_template"].to_pylist()
    scales = {name: float(name.rpartition("x")[2]) for name in set(names)}
    scale = np.array([scales[name] for name in names])[:, None, None]
    out = _numbers(clips["out_size"])[:, None, None]
    return np.asarray((template[None] * out / 112 - out / 2) * scale + out / 2, np.float64)


def _aspects(clips: pa.Table) -> Floats:
    """Return the factors from source px to square px, (clips, 2); implausible aspects count as square."""
    num, den = _numbers(clips["sar_num"]), _numbers(clips["sar_den"])
    known = (num > 0) & (den > 0)
    aspect = np.where(known, num / np.where(known, den, 1), 1.0)
    aspect = np.where((aspect >= 1 / 8) & (aspect <= 8), aspect, 1.0)
    turned = np.isin(_numbers(clips["rotation"]), (90, 270))
    return np.stack([np.where(turned, 1.0, aspect), np.where(turned, aspect, 1.0)], axis=1)


# ---- columns -------------------------------------------------------------------------------------------------------


def _cropped(templates: pa.ChunkedArray) -> Bools:
    """Mark the clips that were cropped instead of aligned, or whose template does not state its scale."""
    aligned = pc.match_substring_regex(templates, r"x\d+(\.\d+)?$").to_pylist()
    return np.array([state is not True for state in aligned], dtype=np.bool_)


def _lengths(column: pa.ChunkedArray) -> Ints:
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0).to_numpy(), np.int64)


def _numbers(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def _dense(column: pa.ChunkedArray, n_frames: int, width: int) -> Floats | None:
    """Return lists of equally many frames as (rows, frames, width); None where a number is missing."""
    flat = pc.list_flatten(column)
    while pa.types.is_list(flat.type) or pa.types.is_fixed_size_list(flat.type):
        if flat.null_count:
            return None
        flat = pc.list_flatten(flat)
    if flat.null_count or len(flat) != len(column) * n_frames * width:
        return None
    return np.asarray(flat.to_numpy(), np.float64).reshape(len(column), n_frames, width)
