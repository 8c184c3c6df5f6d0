"""Features of the sampled videos that the manifests hold: of files, names, order, faces and boxes."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Floats
from lps.manifests.audit.core.queries import VIDEO_FRAMES, arrays, each_record
from lps.manifests.audit.core.types import AuditContext
from lps.manifests.schemas import BOX_UNITS, Row
from lps.manifests.shortcuts.pictures import chosen_members
from lps.manifests.shortcuts.sample import VideoSample, chosen_table

FILE_COLUMNS: dict[str, str] = {
    "width": "width",
    "height": "height",
    "frame_rate": "fps_num / nullif(fps_den, 0)",
    "n_frames": VIDEO_FRAMES,
    "bitrate": "bitrate_bps",
    "codec": "coalesce(codec, '')",
    "duration": "duration_s",
    "bytes": "bytes",
    "pix_fmt": "coalesce(pix_fmt, '')",
    "has_audio": "has_audio::DOUBLE",
}
"""What B4 and the panel take of a file: name of the feature -> what it is of a row of `videos`; no text is null."""
MORE_COLUMNS: dict[str, str] = {
    "container": "coalesce(container, '')",
    "rotation": "rotation",
    "pixel_aspect": "sar_num / nullif(sar_den, 0)",
    "variable_rate": "is_vfr::DOUBLE",
    "time_base": "time_base_num / nullif(time_base_den, 0)",
    "n_video_streams": "n_video_streams",
    "color_transfer": "coalesce(color_transfer, '')",
    "color_primaries": "coalesce(color_primaries, '')",
    "color_matrix": "coalesce(color_matrix, '')",
    "color_range": "coalesce(color_range, '')",
    "field_order": "coalesce(field_order, '')",
}
MAX_CHARACTERS = 40
"""Characters of names that are counted, the most frequent ones."""
POINTS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
GEOMETRY = (
    *("box_width", "box_height", "box_aspect", "box_share_of_frame", "box_x", "box_y", "box_step"),
    *("roll", "eye_distance_in_box", *(f"{point} {axis}" for point in POINTS for axis in "xy"), "box_size_change"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTable:
    """Features of the sampled videos, a row each in their order."""

    names: tuple[str, ...]
    values: Floats
    """(n, features); NaN where a value is absent."""

    @classmethod
    def of(cls, columns: Mapping[str, NDArray[Any]]) -> "FeatureTable":
        """Take columns; texts become numbers in alphabetical order, empty ones NaN."""
        return cls(names=tuple(columns), values=np.column_stack([coded(values) for values in columns.values()]))


def coded(values: NDArray[Any]) -> Floats:
    """Return numbers as they are, and texts as their places in alphabetical order; empty ones are NaN."""
    if values.dtype.kind not in "OUS":
        return np.asarray(values, np.float64)
    texts = np.array([str(value or "") for value in values])
    codes = np.unique(texts, return_inverse=True)[1].astype(np.float64)
    return np.where(texts == "", np.nan, codes)


def file_features(ctx: AuditContext, sample: VideoSample) -> FeatureTable:
    """Return what containers and streams say of themselves."""
    sql = ", ".join(f"{value} AS {name}" for name, value in {**FILE_COLUMNS, **MORE_COLUMNS}.items())
    return FeatureTable.of(_joined(ctx, sample, f"SELECT place, {sql} FROM chosen JOIN videos USING (video_id)"))


def name_features(ctx: AuditContext, sample: VideoSample) -> FeatureTable:
    """Return what the names of the files, without their folders, are made of, and their places in the sorted list."""
    uris = _joined(ctx, sample, "SELECT place, uri FROM chosen JOIN videos USING (video_id)")["uri"]
    paths = [PurePosixPath(str(uri)) for uri in uris]
    stems = [path.stem for path in paths]
    numbers = [re.findall(r"\d+", stem) for stem in stems]
    common = [c for c, _ in sorted(Counter("".join(stems)).items(), key=lambda item: (-item[1], item[0]))]
    columns: dict[str, NDArray[Any]] = {
        "extension": np.array([path.suffix.lower() for path in paths]),
        "length": np.array([len(stem) for stem in stems]),
        "n_digits": np.array([sum(c.isdigit() for c in stem) for stem in stems]),
        "n_letters": np.array([sum(c.isalpha() for c in stem) for stem in stems]),
        "first_number": np.array([float(found[0][:15]) if found else np.nan for found in numbers]),
        "place_in_sorted_list": np.argsort(np.argsort(stems, kind="stable"), kind="stable"),
    }
    for c in common[:MAX_CHARACTERS]:
        columns[f"n of '{c}'"] = np.array([stem.count(c) for stem in stems])
    return FeatureTable.of(columns)


def order_features(ctx: AuditContext, sample: VideoSample) -> FeatureTable:
    """Return where a reader meets the clip: its shard, its place in it, and the order of its key."""
    columns = _joined(
        ctx,
        sample,
        """SELECT place, shard, place_in_shard, key_order FROM (
            SELECT video_id, sample_key, dense_rank() OVER (ORDER BY shard_id) AS shard,
                row_number() OVER (PARTITION BY shard_id ORDER BY tar_offset) AS place_in_shard,
                row_number() OVER (ORDER BY sample_key) AS key_order
            FROM clips)
        JOIN (SELECT place, min(sample_key) AS sample_key FROM clips JOIN chosen USING (video_id) GROUP BY place)
            USING (sample_key)""",
    )
    return FeatureTable.of(columns)


def _joined(ctx: AuditContext, sample: VideoSample, sql: str) -> dict[str, NDArray[Any]]:
    """Return the columns of a query over `chosen` in the order of the sample."""
    ctx.db.register("chosen", chosen_table(sample))
    try:
        found = arrays(ctx, sql)
    finally:
        ctx.db.unregister("chosen")
    order = np.argsort(found.pop("place").astype(np.int64), kind="stable")
    return {name: values[order] for name, values in found.items()}


_CLIPS = """WITH first AS (
    SELECT place, min(sample_key) AS sample_key FROM clips JOIN chosen USING (video_id) GROUP BY place)
SELECT place, s.uri, c.tar_offset, c.image_codec, c.align_template, c.members, c.box_xyxy, c.lmk5, c.box_side_med,
    c.iod_med, c.yaw_absmax, c.jitter_px, c.outside_share, c.det_rate, v.face_px_median,
    CASE WHEN v.rotation IN (90, 270) THEN v.height ELSE v.width END AS width,
    CASE WHEN v.rotation IN (90, 270) THEN v.width ELSE v.height END AS height
FROM first JOIN clips c USING (sample_key) JOIN videos v USING (video_id) JOIN shards s USING (shard_id)
ORDER BY place"""


def sampled_clips(ctx: AuditContext, sample: VideoSample) -> list[Row]:
    """Return the first clip of every sampled video, by its key, with what pictures and geometry need.

    Instead of the values of every frame, which are most of a row, it has the members to read as `pictures`, and the
    values of GEOMETRY.
    """
    ctx.db.register("chosen", chosen_table(sample))
    try:
        return [_without_frames(clip) for clip in each_record(ctx, _CLIPS)]
    finally:
        ctx.db.unregister("chosen")


def _without_frames(clip: Row) -> Row:
    kept = {name: value for name, value in clip.items() if name not in ("members", "box_xyxy", "lmk5")}
    return {**kept, "pictures": chosen_members(clip), "geometry": _geometry(clip)}


def face_features(clips: Sequence[Row]) -> FeatureTable:
    """Return the size of the face in source px: of the clip's boxes, of its eyes' distance, and in the whole video."""
    names = {"box_side": "box_side_med", "eye_distance": "iod_med", "face_height": "face_px_median"}
    return FeatureTable.of({name: _numbers(clips, column) for name, column in names.items()})


def geometry_features(clips: Sequence[Row]) -> FeatureTable:
    """Return shape, place and motion of boxes, and where landmarks lie in them: medians over the frames of a clip."""
    rows = np.array([clip["geometry"] for clip in clips])
    given = {
        "yaw": "yaw_absmax",
        "landmark_jitter": "jitter_px",
        "outside_share": "outside_share",
        "detection_rate": "det_rate",
    }
    columns = dict(zip(GEOMETRY, rows.T, strict=True))
    return FeatureTable.of({**columns, **{name: _numbers(clips, column) for name, column in given.items()}})


def _geometry(clip: Row) -> Floats:
    """Return the values of GEOMETRY for a clip; NaN where it has no boxes and landmarks."""
    boxes = np.array(clip["box_xyxy"] or np.empty((0, 4)), np.float64).reshape(-1, 4) / BOX_UNITS
    points = np.array(clip["lmk5"] or np.empty((0, 10)), np.float64).reshape(-1, 5, 2) / BOX_UNITS
    if not len(boxes) or len(points) != len(boxes):
        return np.full(len(GEOMETRY), np.nan)
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9)
    side = size.max(axis=1)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    frame = np.array([clip["width"] or np.nan, clip["height"] or np.nan], np.float64)
    steps = np.linalg.norm(np.diff(centre, axis=0, prepend=centre[:1]), axis=1) / side
    eyes = points[:, 1] - points[:, 0]
    of_frames = [
        size,
        size[:, :1] / size[:, 1:],
        size[:, :1] / frame[0],
        centre / frame,
        steps[:, None],
        np.arctan2(eyes[:, 1:], eyes[:, :1]),
        np.linalg.norm(eyes, axis=1, keepdims=True) / side[:, None],
        ((points - boxes[:, None, :2]) / size[:, None]).reshape(-1, 10),
    ]
    return np.append(np.median(np.hstack(of_frames), axis=0), side.std() / side.mean())


def _numbers(clips: Sequence[Row], column: str) -> Floats:
    return np.array([np.nan if clip[column] is None else float(clip[column]) for clip in clips], np.float64)
