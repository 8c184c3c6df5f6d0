"""Records to manifest rows, and rows to JSON and back for the commit records that manifests are made from.

Rows hold what the tables will hold: numbers of 32-bit columns are rounded here, so that a commit record, a row digest
and the Parquet file say the same.
"""

import re
from typing import Any

import pyarrow as pa

from lps.manifests.canonical import ESCAPED, digest16, jsonable
from lps.manifests.records import Clip, Outcome, SourceVideo
from lps.manifests.schemas import BOX_UNITS, TABLES, Row, single

INT16_MAX = 32767
DETAIL_LENGTH = 500

_SLASH = rf"(?:/|(?!{ESCAPED.pattern})\\)"
_ABSOLUTE = re.compile(rf"(?<![\w.])(?:[A-Za-z]:)?{_SLASH}(?:(?:[\w.@%+ -]|{ESCAPED.pattern})+{_SLASH})+")
"""Folders up to the last slash. A slash after a word is none of these: relative paths and 30000/1001 stay. Nor is the
backslash of an escaped name a slash."""


def scrubbed(detail: str) -> str:
    """Return `detail` without folders of absolute paths and at most 500 characters long."""
    return _ABSOLUTE.sub("", detail)[:DETAIL_LENGTH]


def video_row(
    source: SourceVideo,
    outcome: Outcome,
    *,
    n_bytes: int | None,
    sha256: bytes | None,
    split: str | None,
    n_clips: int,
    original_video_id: bytes | None,
) -> Row:
    """Return the row of one input video."""
    head = outcome.header
    return {
        "video_id": source.video_id,
        "uri": source.uri,
        "dataset": source.dataset,
        "root": "source",
        "bytes": n_bytes,
        "sha256": sha256,
        "label": source.label,
        "label_source": source.label_source,
        "method": source.method,
        "compression": source.compression,
        "source_part": source.source_part,
        "official_split": source.official_split,
        "original_video_id": original_video_id,
        "target_keys": list(source.target_keys),
        "donor_keys": list(source.donor_keys),
        "source_keys": list(source.source_keys),
        "identity_keys": list(source.identity_keys),
        "identity_confidence": source.identity_confidence,
        "split": split,
        **{name: getattr(head, name) for name in head.__slots__},
        "is_vfr": outcome.is_vfr,
        "pts_nominal": outcome.pts_nominal if outcome.n_frames_decoded else None,
        "n_frames_decoded": outcome.n_frames_decoded,
        "scan": outcome.scan if outcome.n_frames_decoded else None,
        "status": str(outcome.status),
        "error_code": str(outcome.code) if outcome.code else None,
        "error_stage": str(outcome.stage) if outcome.stage else None,
        "error_detail": scrubbed(outcome.detail) or None,
        "n_frames_sampled": outcome.n_frames_sampled if outcome.n_frames_decoded else None,
        "n_frames_with_face": outcome.n_frames_with_face if outcome.n_frames_decoded else None,
        "n_tracks": outcome.n_tracks,
        "n_clips": n_clips,
        "det_score_mean": _single(outcome.det_score_mean),
        "face_px_median": _single(outcome.face_px_median),
        "phash": list(outcome.phash) or None,
        "phash_quality": list(outcome.phash_quality) or None,
    }


def clip_id(video_id: bytes, clip: Clip, params_sha256: str) -> bytes:
    """Return the 16 bytes that name a clip: its video, track, place, length and the parameters it was made with."""
    return digest16(video_id.hex(), str(clip.track_id), str(clip.frame_idx[0]), str(clip.n_frames), params_sha256)


def clip_facts(source: SourceVideo, clip: Clip, *, split: str, params_sha256: str, pair_id: bytes | None = None) -> Row:
    """Return those columns of a clip's row that do not depend on its place in a shard or on the output format.

    `pair_id` is the video id of the family's original.
    """
    gaps = [b - a for a, b in zip(clip.frame_idx, clip.frame_idx[1:], strict=False)]
    names = (
        *("blur_var_med", "luma_mean", "luma_std", "box_side_med", "iod_med", "yaw_absmax", "jitter_px"),
        "outside_share",
    )
    return {
        "clip_id": clip_id(source.video_id, clip, params_sha256),
        "video_id": source.video_id,
        "dataset": source.dataset,
        "method": source.method,
        "label": source.label,
        "split": split,
        "track_id": clip.track_id,
        "n_tracks_in_video": clip.n_tracks_in_video,
        "face_label_certain": clip.face_label_certain,
        "face_id": clip.face_id,
        "n_frames": clip.n_frames,
        "frame_idx": list(clip.frame_idx),
        "pts_ticks": list(clip.pts_ticks),
        "pts_start_s": clip.pts_seconds[0],
        "pts_end_s": clip.pts_seconds[-1],
        "max_gap_frames": max(gaps, default=1),
        "start_rule": clip.start_rule,
        "start_seed": clip.start_seed,
        "box_xyxy": [_eighths(box) for box in clip.box_xyxy],
        "box_source": list(clip.box_source),
        "det_score": [round(min(max(score, 0.0), 1.0) * 255) for score in clip.det_score],
        "lmk5": [_eighths(points) for points in clip.lmk5],
        "lmk68": None if clip.lmk68 is None else [_eighths(points) for points in clip.lmk68],
        "align_M": [[single(value) for value in matrix] for matrix in clip.align_M],
        **{name: _single(clip.quality.get(name)) for name in names},
        "det_rate": single(clip.det_rate),
        "phash": clip.phash,
        "frames_sha256": clip.frames_sha256,
        "pair_id": pair_id.hex() if pair_id else None,
        "pair_mode": clip.pair_mode,
        "pair_fallback": str(clip.pair_fallback) if clip.pair_fallback else None,
        "pair_face_px": _single(clip.pair_face_px),
        "pair_background": _single(clip.pair_background),
    }


def _eighths(values: tuple[float, ...]) -> list[int]:
    return [max(-INT16_MAX, min(INT16_MAX, round(value * BOX_UNITS))) for value in values]


def _single(value: float | None) -> float | None:
    return None if value is None else single(value)


def row_to_json(row: Row) -> Row:
    """Return `row` with bytes as hex, ready for JSON."""
    return {key: jsonable(value) for key, value in row.items()}


def row_from_json(table: str, row: Row) -> Row:
    """Return a row of `table` from its JSON form. Raises KeyError when a column is missing."""
    return {field.name: _typed(row[field.name], field.type) for field in TABLES[table]}


def _typed(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if _is_bytes(kind):
        return bytes.fromhex(value)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = kind.value_type
        if _is_bytes(inner) or pa.types.is_struct(inner):
            return [_typed(item, inner) for item in value]
        return value
    if pa.types.is_struct(kind):
        return {field.name: _typed(value[field.name], field.type) for field in kind}
    return value


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind))
