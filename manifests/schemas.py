"""The Parquet tables of a data set: columns, units, null rules, and a writer whose bytes depend on the rows alone.

Versions: a major step renames, retypes or redefines a column, and older readers refuse it; a minor step adds a nullable
column, which readers fill with null. Types are those that pandas, Polars, Ray Data and others read without options:
no dictionary (that of a column of nulls is empty, which breaks batches of NumPy), no bytes of fixed width in a list
(pandas knows none). Schema 1 had both, and is still read.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lps.manifests.errors import UnreadableError
from lps.manifests.row_digest import table_digest

SCHEMA_ID = "lps.manifest"
SCHEMA_VERSION = "3.1"
BOX_UNITS = 8
"""Boxes and landmarks are stored as int16 eighths of a source pixel."""

Row = dict[str, Any]

_TEXT = pa.string()
_ID = pa.binary(16)
_SHA = pa.binary(32)
_KEYS = pa.list_(_TEXT)


def _field(name: str, kind: pa.DataType, unit: str = "", *, null: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=null, metadata={"unit": unit} if unit else None)


def _opt(name: str, kind: pa.DataType, unit: str = "") -> pa.Field:
    return _field(name, kind, unit, null=True)


VIDEOS = pa.schema(
    [
        _field("video_id", _ID),
        _field("uri", pa.string(), "POSIX path relative to the source root"),
        _field("dataset", _TEXT),
        _field("root", _TEXT),
        _opt("bytes", pa.int64(), "bytes"),
        _opt("sha256", _SHA),
        _opt("label", pa.int8(), "0 real, 1 fake, null unknown"),
        _field("label_source", _TEXT),
        _opt("method", _TEXT),
        _opt("compression", _TEXT),
        _opt("source_part", _TEXT),
        _opt("official_split", _TEXT),
        _opt("original_video_id", _ID),
        _field("target_keys", _KEYS),
        _field("donor_keys", _KEYS),
        _field("source_keys", _KEYS),
        _field("identity_keys", _KEYS),
        _field("identity_confidence", _TEXT),
        _opt("split", _TEXT),
        _opt("container", _TEXT),
        _opt("codec", _TEXT),
        _opt("pix_fmt", _TEXT),
        _opt("width", pa.int32(), "px as coded"),
        _opt("height", pa.int32(), "px as coded"),
        _opt("rotation", pa.int16(), "degrees clockwise, applied"),
        _opt("sar_num", pa.int32()),
        _opt("sar_den", pa.int32()),
        _opt("fps_num", pa.int32()),
        _opt("fps_den", pa.int32()),
        _opt("is_vfr", pa.bool_()),
        _opt("pts_nominal", pa.bool_(), "time stamps counted from the frame rate"),
        _opt("time_base_num", pa.int32()),
        _opt("time_base_den", pa.int32()),
        _opt("n_frames_container", pa.int32(), "frames that the packets promise, or, where none were read, the header"),
        _opt("n_frames_decoded", pa.int32(), "frames that were decoded: all only of a whole scan"),
        _opt("scan", _TEXT, "window or whole: what of the video was decoded; null: nothing; since 3.0"),
        _opt("duration_s", pa.float64(), "s"),
        _opt("bitrate_bps", pa.int64(), "bit/s"),
        _opt("has_audio", pa.bool_()),
        _opt("n_video_streams", pa.int16()),
        _opt("color_transfer", _TEXT, "name in FFmpeg; since 1.1"),
        _opt("color_primaries", _TEXT, "name in FFmpeg; since 1.1"),
        _opt("color_matrix", _TEXT, "name in FFmpeg; since 1.1"),
        _opt("color_range", _TEXT, "tv limited, pc full; since 1.1"),
        _opt("field_order", _TEXT, "field coded first, field shown first; since 1.1"),
        _field("status", _TEXT),
        _opt("error_code", _TEXT),
        _opt("error_stage", _TEXT),
        _opt("error_detail", pa.string()),
        _opt("n_frames_sampled", pa.int32(), "frames a detector was asked about"),
        _opt("n_frames_with_face", pa.int32()),
        _field("n_tracks", pa.int16()),
        _field("n_clips", pa.int32()),
        _opt("det_score_mean", pa.float32()),
        _opt("face_px_median", pa.float32(), "height of the face box, source px"),
        _opt("phash", pa.list_(pa.binary()), "PDQ, 32 bytes each, of whole frames at 0, 1, 2 s"),
        _opt("phash_quality", pa.list_(pa.uint8())),
    ]
)

CLIPS = pa.schema(
    [
        _field("clip_id", _ID),
        _field("video_id", _ID),
        _field("dataset", _TEXT),
        _opt("method", _TEXT),
        _opt("label", pa.int8(), "0 real, 1 fake, null unknown"),
        _field("split", _TEXT),
        _field("track_id", pa.int16()),
        _field("n_tracks_in_video", pa.int16()),
        _field("face_label_certain", pa.bool_()),
        _opt("face_id", pa.int16(), "from 0: clips of a video that show the same face share it"),
        _field("shard_id", _TEXT),
        _field("sample_key", pa.string()),
        _field("tar_offset", pa.int64(), "bytes"),
        _field("tar_nbytes", pa.int64(), "bytes"),
        _field(
            "members",
            pa.list_(
                pa.struct([("ext", pa.string()), ("offset", pa.int64()), ("nbytes", pa.int64()), ("sha256", _SHA)])
            ),
        ),
        _field("n_frames", pa.int16()),
        _field("block_len", pa.int16()),
        _field("frame_idx", pa.list_(pa.int32()), "true index in the decoded stream"),
        _field("pts_ticks", pa.list_(pa.int64()), "time base of the video"),
        _field("pts_start_s", pa.float64(), "s"),
        _field("pts_end_s", pa.float64(), "s"),
        _field("max_gap_frames", pa.int16(), "1 = contiguous"),
        _field("start_rule", _TEXT),
        _field("start_seed", pa.uint64()),
        _field("box_xyxy", pa.list_(pa.list_(pa.int16(), 4)), "source px * 8"),
        _field("box_source", pa.list_(pa.uint8()), "0 detected, 1 between detections, 2 missed and bridged"),
        _field("det_score", pa.list_(pa.uint8()), "score * 255"),
        _field("lmk5", pa.list_(pa.list_(pa.int16(), 10)), "source px * 8"),
        _opt("lmk68", pa.list_(pa.list_(pa.int16(), 136)), "source px * 8, of localizers that find 68; since 3.1"),
        _field("align_M", pa.list_(pa.list_(pa.float32(), 6)), "2x3 row-major, source px to output px"),
        _field("align_template", _TEXT),
        _field("interp", _TEXT),
        _field("border", _TEXT),
        _field("out_size", pa.int16(), "px"),
        _field("image_codec", _TEXT),
        _opt("jpeg_q", pa.uint8()),
        _opt("blur_var_med", pa.float32()),
        _opt("luma_mean", pa.float32()),
        _opt("luma_std", pa.float32()),
        _opt("box_side_med", pa.float32(), "source px"),
        _opt("iod_med", pa.float32(), "source px"),
        _opt("yaw_absmax", pa.float32(), "degrees, estimated from the five points"),
        _opt("jitter_px", pa.float32(), "output px"),
        _opt("outside_share", pa.float32(), "largest share of a frame's output px outside the source; since 1.1"),
        _field("det_rate", pa.float32(), "detected / asked frames"),
        _field("phash", _SHA, "PDQ of the middle aligned frame"),
        _field("frames_sha256", _SHA, "aligned RGB before encoding"),
        _opt("pair_id", _TEXT, "video id of the original, hex, of it and its fakes; since 3.1"),
        _opt("pair_mode", _TEXT, "own, shared with the original, or fallback; since 3.1"),
        _opt("pair_fallback", _TEXT, "code of why a fake shares nothing; since 3.1"),
        _opt(
            "pair_face_px", pa.float32(), "how far the fake's own face lies from its original's, output px; since 3.1"
        ),
        _opt("pair_background", pa.float32(), "correlation of what lies around both faces; since 3.1"),
    ]
)

SHARDS = pa.schema(
    [
        _field("shard_id", pa.string()),
        _field("uri", pa.string(), "relative to the data set root"),
        _field("split", _TEXT),
        _field("bytes", pa.int64(), "bytes"),
        _field("sha256", _SHA),
        _field("md5", _ID),
        _field("n_samples", pa.int32()),
        _field("n_members", pa.int32()),
        _field("exts", _KEYS),
        _field("n_real", pa.int32()),
        _field("n_fake", pa.int32()),
        _field("first_key", pa.string()),
        _field("last_key", pa.string()),
        _field("clips_rows_sha256", _SHA),
        _field("writer_version", _TEXT),
        _field("status", _TEXT),
    ]
)

SPLITS = pa.schema(
    [
        _field("video_id", _ID),
        _opt("split", _TEXT),
        _field("excluded", pa.bool_()),
        _opt("exclude_reason", _TEXT),
        _field("group_id", _ID),
        _field("group_anchor", pa.string()),
        _field("group_size", pa.int32()),
        _field("group_keys", _KEYS),
        _field("u", pa.float64(), "hash position in [0, 1)"),
        _field("rule", _TEXT),
        _field("seed", pa.uint64()),
        _field("pinned", pa.bool_()),
        _opt("origin_run", pa.string()),
    ]
)

TABLES = {"videos": VIDEOS, "clips": CLIPS, "shards": SHARDS, "splits": SPLITS}
ROW_GROUP_ROWS = {"videos": 65536, "clips": 4096, "shards": 65536, "splits": 65536}
"""Rows of a row group: few enough to hold (a clip has 10 kB) and to skip by statistics, enough to compress."""

PLANNED_VIDEOS = pa.schema(
    [
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("dataset", pa.string()),
        ("label", pa.int8()),
        ("method", pa.string()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("n_frames_promised", pa.int32()),
        ("split", pa.string()),
        ("shard_id", pa.string()),
        ("code", pa.string()),
        ("detail", pa.string()),
    ]
)
"""Table of the plan, plan/videos.parquet. Ids and digests are hex there."""


@dataclass(frozen=True, slots=True)
class PackedTable:
    """A table as a Parquet file."""

    data: bytes
    n_rows: int
    rows_sha256: str
    """Digest of its rows, whatever their order."""


def table_bytes(name: str, rows: Sequence[Row], metadata: dict[str, str]) -> bytes:
    """Return the Parquet file of `rows`, already sorted, for table `name`; raises as `packed_rows`."""
    return packed_rows(name, rows, metadata).data


def packed_rows(name: str, rows: Sequence[Row], metadata: dict[str, str]) -> PackedTable:
    """Pack `rows`, already sorted, as table `name`.

    `metadata` joins the file's own (`lps.params_sha256`, `lps.code_version`, ...). Equal rows give equal bytes.
    Raises ValueError when a row misses a column or holds a null where none is allowed, or a number that is not finite.
    """
    return packed_table(name, rows_table(name, rows), metadata)


def rows_table(name: str, rows: Sequence[Row]) -> pa.Table:
    """Return `rows` as table `name`. Raises ValueError for a null where none is allowed."""
    return pa.Table.from_arrays([_column(rows, field) for field in TABLES[name]], schema=TABLES[name])


def packed_table(name: str, table: pa.Table, metadata: dict[str, str]) -> PackedTable:
    """Pack a table that has the columns of `name`, as `packed_rows` does rows."""
    table = pa.Table.from_arrays(table.columns, schema=TABLES[name])
    rows_sha256 = table_digest(table)
    sink = io.BytesIO()
    with TableWriter(sink, name, rows_sha256, metadata) as writer:
        writer.add(table)
    return PackedTable(sink.getvalue(), table.num_rows, rows_sha256)


def parquet_bytes(name: str, table: pa.Table, metadata: dict[str, str]) -> bytes:
    """Return the Parquet file of a table that has the columns of `name`, as `table_bytes` does of rows."""
    return packed_table(name, table, metadata).data


class TableWriter:
    """Writes the Parquet file of table `name` piece by piece. Its bytes depend on the rows, not on the pieces."""

    def __init__(self, sink: Any, name: str, rows_sha256: str, metadata: dict[str, str]) -> None:
        """Begin a file of rows whose digest (that of `table_digest`) is known; `metadata` as in `table_bytes`."""
        marks = {
            "lps.schema_id": SCHEMA_ID,
            "lps.schema_version": SCHEMA_VERSION,
            "lps.table": name,
            "lps.rows_sha256": rows_sha256,
            "lps.box_convention": "xyxy_px8_source_topleft",
            "lps.label_map": '{"0":"real","1":"fake"}',
            **metadata,
        }
        self.n_rows = 0
        self._schema = TABLES[name].with_metadata(dict(sorted(marks.items())))
        self._group_rows = ROW_GROUP_ROWS[name]
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0
        self._file = pq.ParquetWriter(sink, self._schema, compression="zstd", compression_level=3)

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and (self._n_waiting or not self.n_rows):
            self._write(self._n_waiting)
        self._file.close()

    def add(self, table: pa.Table) -> None:
        """Append rows, columns in the order of the schema."""
        self._waiting.append(pa.Table.from_arrays(table.columns, schema=self._schema))
        self._n_waiting += table.num_rows
        while self._n_waiting >= self._group_rows:
            self._write(self._group_rows)

    def _write(self, n_rows: int) -> None:
        """Write the first of the waiting rows as one row group."""
        waiting = pa.concat_tables(self._waiting) if self._waiting else self._schema.empty_table()
        rest, group = waiting.slice(n_rows), waiting.slice(0, n_rows)
        self._waiting, self._n_waiting = [rest] if rest.num_rows else [], rest.num_rows
        del waiting
        self.n_rows += n_rows
        columns = []
        for name in self._schema.names:  # a column after the other, so that little is there twice
            columns.append(group[name].combine_chunks())
            group = group.drop_columns([name])
        pa.default_memory_pool().release_unused()
        self._file.write_table(pa.Table.from_arrays(columns, schema=self._schema), self._group_rows)
        columns.clear()
        pa.default_memory_pool().release_unused()


def single(value: float) -> float:
    """Return a number as a column of 32-bit floats holds it, so that a row says what the file says."""
    return float(np.float32(value))


def _column(rows: Sequence[Row], field: pa.Field) -> pa.Array:
    values = [row[field.name] for row in rows]
    if not field.nullable and any(value is None for value in values):
        raise ValueError(f"column {field.name} must not be null")
    return pa.array(values, field.type)


THREADS_FROM_BYTES = 1 << 20
"""Size of a Parquet file: to hand out the columns of a smaller one costs more than to read them."""


def arrow_file(data: bytes) -> pa.BufferReader:
    """Return a file held in memory of Arrow's own, to be read by Arrow.

    A thread of Arrow's pool may let go of what it read after the call that it read for. If that is a Python object, and
    the interpreter is ending meanwhile, the process aborts.
    """
    sink = pa.BufferOutputStream()
    sink.write(data)
    return pa.BufferReader(sink.getvalue())


def read_table(name: str, data: bytes, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Return table `name`, or some of its columns, from Parquet bytes: columns as declared here.

    A nullable column that an older file lacks is null; one that a newer file adds is left out. Raises UnreadableError
    for a foreign file, a damaged one, one without a column that must be there, or a newer major version.
    """
    try:
        file = pq.ParquetFile(arrow_file(data))
        stored = {*file.schema_arrow.names}  # each look at it is a conversion of the whole schema
        present = [column for column in columns or TABLES[name].names if column in stored]
        table = file.read(columns=present, use_threads=len(data) > THREADS_FROM_BYTES)
    except (pa.ArrowException, OSError) as e:
        raise UnreadableError(f"manifest '{name}' is not a readable Parquet file: {' '.join(str(e).split())}") from e
    check_table(table.schema, name, what=f"manifest '{name}'")
    return as_declared(name, table, columns or TABLES[name].names)


def check_table(found: pa.Schema, name: str, *, what: str) -> None:
    """Raise UnreadableError if a file with the schema `found` is not table `name`, or of a newer major version."""
    marks = {key.decode(): value.decode() for key, value in (found.metadata or {}).items()}
    if marks.get("lps.schema_id") != SCHEMA_ID or marks.get("lps.table") != name:
        raise UnreadableError(f"{what} is not a table '{name}' of {SCHEMA_ID} (found {marks.get('lps.table')!r})")
    check_version(marks.get("lps.schema_version", ""), what=what)


def as_declared(name: str, table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return columns of table `name` as declared here, from older schemas, too; nullable ones that it lacks are null.

    Raises UnreadableError for other types, and where a column is missing that must be there.
    """
    stored = dict(zip(table.column_names, table.columns, strict=True))
    arrays = [_declared(name, stored.get(column), TABLES[name].field(column), len(table)) for column in columns]
    return pa.table(arrays, names=list(columns), metadata=table.schema.metadata)


def _declared(name: str, values: pa.ChunkedArray | None, field: pa.Field, n_rows: int) -> pa.ChunkedArray:
    if values is None:
        if not field.nullable:
            raise UnreadableError(f"manifest '{name}' has no column '{field.name}'")
        return pa.chunked_array([pa.nulls(n_rows, field.type)], field.type)
    try:
        return values if values.type == field.type else values.cast(field.type)
    except pa.ArrowException as e:
        raise UnreadableError(f"manifest '{name}': column '{field.name}' is not of type {field.type}: {e}") from e


def check_version(found: str, *, what: str, newest: str = SCHEMA_VERSION) -> None:
    """Raise UnreadableError if `found` has a newer major version than this program reads."""
    major = found.split(".")[0]
    if not major.isdigit() or int(major) > int(newest.split(".")[0]):
        raise UnreadableError(f"{what} has schema version {found!r}; this program reads up to {newest}")
