"""The contact sheet of a finished data set: sample clips by split and label, and sample rejects by code.

Which ones are shown depends on the manifests alone. Frames are read from the shards by the byte ranges of the manifest,
three images a clip, so that a sheet of a data set of terabytes takes seconds.
"""

import io
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image

from lps.manifests.codes import Code, meaning_of
from lps.manifests.columns import column_batches, read_rows
from lps.manifests.environment import scratch_folder
from lps.manifests.errors import UnreadableError, first_line
from lps.manifests.index import read_index
from lps.manifests.names import LABELS, SPLITS, label_name
from lps.manifests.pages.pictures import DECODE_ERRORS, READERS, decode_frame, evenly_spaced, frame_members, shard_uris
from lps.manifests.schemas import TABLES, Row
from lps.manifests.storage import Store, open_store
from lps.pipeline.tools.contact_sheet import (
    FACE_PX,
    SIDE_PX,
    ClipPictures,
    Layout,
    SheetClip,
    SheetHeading,
    SheetReject,
    SheetRow,
    draw_sheet,
)

if TYPE_CHECKING:
    import duckdb

SORTED = {
    "videos": ("video_id", "uri", "dataset", "label", "n_clips", "error_code"),
    "clips": ("sample_key", "video_id", "split", "label"),
}
"""Columns of every row that are looked at; the others are read of the rows that are shown."""
VIDEO_COLUMNS = ("uri", "label", "status", "error_code", "error_stage", "error_detail", "n_frames_decoded")
CLIP_COLUMNS = ("sample_key", "video_id", "label", "method", "det_rate", "pts_start_s")
SHEET_MEMORY, SHEET_THREADS = "256MB", 2
"""What a sheet may use for sorting; a machine's all would be used without limits."""
LEGEND = (
    "A clip: its middle frame, beside it the first and the last · det: of the frames asked about, those with the face"
)


def draw_preview(location: str, target: Path, *, per_row: int = 8, max_rows: int = 60) -> None:
    """Draw the contact sheet of the data set at `location` (a folder or an fsspec URL) as the PNG file `target`.

    Args:
        per_row: most clips of one split and label, and most videos of one code, that are shown.
        max_rows: bound on the page's length; a full set of splits, labels and codes has fewer rows.

    Raises:
        UnreadableError: the data set is not complete or not readable, or `target` cannot be written.
    """
    out = open_store(location)
    index = read_index(out).values
    with opened_manifests(out) as db:
        rows = _chosen(out, db, per_row)
        layout = Layout(heading=_heading(index, db, len(rows) - max_rows), rows=tuple(rows[:max_rows]))
        shown = [tile.sample_key for row in layout.rows for tile in row.tiles if isinstance(tile, SheetClip)]
        places = places_of(db, "SELECT place FROM clips WHERE list_contains(?, sample_key)", [shown])
    page = draw_sheet(layout, _read_frames(out, places))
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    open_store(str(target.parent)).publish(target.name, buffer.getvalue())


def sheet_rows(out: Store, per_row: int) -> list[SheetRow]:
    """Choose what the sheet shows: clips by split and label, then videos by code, in a fixed order.

    The order of the manifests' rows does not matter. Every code has its row.
    """
    with opened_manifests(out) as db:
        return _chosen(out, db, per_row)


@contextmanager
def opened_manifests(
    out: Store, sorted_by: Mapping[str, Sequence[str]] = SORTED
) -> Iterator["duckdb.DuckDBPyConnection"]:
    """Give what a choice depends on as the tables `videos` and `clips`; beyond SHEET_MEMORY they lie on the disk.

    `sorted_by` has the columns of each; `place` is a row's number in its manifest. Manifests have tens of millions of
    rows: none is held whole. Raises UnreadableError.
    """
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {"autoinstall_known_extensions": "false"}
    settings |= {"memory_limit": SHEET_MEMORY, "threads": SHEET_THREADS}
    try:
        with (
            scratch_folder("lps-preview-") as folder,
            duckdb.connect(config={**settings, "temp_directory": str(folder / "spill")}) as db,
        ):
            for name, columns in sorted_by.items():
                fields = [*(TABLES[name].field(column) for column in columns), pa.field("place", pa.int64())]
                db.from_arrow(pa.schema(fields).empty_table()).create(name)
                n = 0
                for batch in column_batches(out, name, columns):
                    places = pa.array(np.arange(n, n + len(batch)))
                    db.from_arrow(batch.append_column("place", places)).insert_into(name)
                    n += len(batch)
            yield db
    except (OSError, duckdb.Error) as e:
        raise UnreadableError(
            f"cannot sort the manifests of {out.url} in {tempfile.gettempdir()}: {first_line(e)}"
        ) from e


def _chosen(out: Store, db: "duckdb.DuckDBPyConnection", per_row: int) -> list[SheetRow]:
    if per_row < 1:
        raise ValueError(f"per_row must be at least 1, got {per_row}")
    return [*_clip_rows(out, db, per_row), *_reject_rows(out, db, per_row)]


def _clip_rows(out: Store, db: "duckdb.DuckDBPyConnection", per_row: int) -> list[SheetRow]:
    kinds = db.execute(
        "SELECT split, label, count(*) AS n, count(DISTINCT video_id) AS n_videos FROM clips GROUP BY ALL"
    ).fetchall()
    rows = []
    for split, label, n, n_videos in sorted(kinds, key=_clips_place):
        kind = "clips WHERE split IS NOT DISTINCT FROM ? AND label IS NOT DISTINCT FROM ?"
        places = _spaced(db, kind, [split, label], "sample_key", (n, per_row))
        shown = read_rows(out, "clips", CLIP_COLUMNS, places)
        uris = uris_of_videos(out, db, [row["video_id"] for row in shown])
        rows.append(
            SheetRow(
                title=str(split),
                counts=((label_name(label), n),),
                note=f"clips from {_count(n_videos, 'video')}{_shown(len(shown), n)}",
                tiles=tuple(_clip_tile(row, uris.get(row["video_id"], "")) for row in shown),
            )
        )
    return rows


def _clips_place(kind: tuple[Any, ...]) -> tuple[tuple[int, str], int]:
    split, label, *_ = kind
    return (place_in(SPLITS, str(split)), LABELS.index(label_name(label)))


def _spaced(
    db: "duckdb.DuckDBPyConnection", kind: str, values: Sequence[Any], keys: str, numbers: tuple[int, int]
) -> list[int]:
    """Return the places of the rows of a kind that are shown, evenly spaced in the order of `keys`.

    `kind` is a table and its condition, for whose marks the `values` stand; `numbers` are how many rows of it there
    are and the most that are shown.
    """
    n, most = numbers
    ranks = evenly_spaced(range(n), most)
    numbered = f"SELECT place, row_number() OVER (ORDER BY {keys}, place) - 1 AS rank FROM {kind}"
    return places_of(db, f"SELECT place FROM ({numbered}) WHERE list_contains(?, rank) ORDER BY rank", [*values, ranks])


def places_of(db: "duckdb.DuckDBPyConnection", sql: str, values: Sequence[Any]) -> list[int]:
    """Return the places in a manifest that a query of `opened_manifests` gives."""
    return [int(place) for (place,) in db.execute(sql, list(values)).fetchall()]


def uris_of_videos(out: Store, db: "duckdb.DuckDBPyConnection", video_ids: Sequence[bytes]) -> dict[bytes, str]:
    """Return the paths of some videos by id."""
    places = places_of(db, "SELECT place FROM videos WHERE list_contains(?::BLOB[], video_id)", [list(video_ids)])
    return {row["video_id"]: str(row["uri"]) for row in read_rows(out, "videos", ("video_id", "uri"), places)}


def _clip_tile(row: Row, uri: str) -> SheetClip:
    label = label_name(row["label"])
    return SheetClip(
        sample_key=str(row["sample_key"]),
        label=label,
        method=str(row["method"] or label),
        uri=uri,
        video_id=bytes(row["video_id"]).hex(),
        det_rate=float(row["det_rate"]),
        start_s=float(row["pts_start_s"]),
    )


def _reject_rows(out: Store, db: "duckdb.DuckDBPyConnection", per_row: int) -> list[SheetRow]:
    kinds = "SELECT error_code, label, count(*) FROM videos WHERE error_code <> '' GROUP BY ALL"
    counts: dict[str, Counter[str]] = {}
    for code, label, n in db.execute(kinds).fetchall():
        counts.setdefault(code, Counter())[label_name(label)] += n
    rows = []
    for code in sorted(counts, key=lambda code: place_in(tuple(Code), code)):
        labels = counts[code]
        places = _spaced(db, "videos WHERE error_code = ?", [code], "uri, video_id", (labels.total(), per_row))
        rows.append(
            SheetRow(
                title=code,
                counts=tuple((label, labels[label]) for label in LABELS if labels[label]),
                note=meaning_of(code) + _shown(len(places), labels.total()),
                tiles=tuple(_reject_tile(row) for row in read_rows(out, "videos", VIDEO_COLUMNS, places)),
            )
        )
    return rows


def _reject_tile(row: Row) -> SheetReject:
    return SheetReject(
        uri=str(row["uri"]),
        label=label_name(row["label"]),
        status=str(row["status"]),
        code=str(row["error_code"]),
        stage=row["error_stage"],
        n_frames_decoded=row["n_frames_decoded"],
        detail=row["error_detail"] or "",
    )


def place_in(order: Sequence[str], name: str) -> tuple[int, str]:
    """Sort key: by `order`, and what is not in it last, by name."""
    return (order.index(name) if name in order else len(order), name)


def _shown(n_shown: int, n: int) -> str:
    return "" if n_shown == n else f"; {n_shown} shown"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _heading(index: Row, db: "duckdb.DuckDBPyConnection", n_cut: int) -> SheetHeading:
    datasets = db.execute("SELECT DISTINCT dataset FROM videos ORDER BY ALL").fetchall()
    names = ", ".join(str(name) for (name,) in datasets) or "no videos"
    totals = "count(*), count(*) FILTER (n_clips = 0), count(error_code)"
    n_videos, n_without, n_codes = db.execute(f"SELECT {totals} FROM videos").fetchall()[0]
    ((n_clips,),) = db.execute("SELECT count(*) FROM clips").fetchall()
    lines = [
        f"{_count(n_clips, 'clip')} · {_count(n_videos, 'video')}, {n_without:,} without clips · "
        f"split set '{index.get('split_set')}' · parameters {str(index.get('params_sha256'))[:12]}"
    ]
    if n_clips:
        lines.append(LEGEND)
    if not n_codes:
        lines.append("No video ended with a code.")
    warnings = []
    if index.get("leaky"):
        warnings.append("Leaky split: its parts share people or sources, so results on it say little.")
    if n_cut > 0:
        warnings.append(f"{_count(n_cut, 'row')} more than fit on a sheet, not drawn.")
    return SheetHeading(title=f"Contact sheet: {names}", lines=tuple(lines), warnings=tuple(warnings))


def _read_frames(out: Store, places: Sequence[int]) -> dict[str, ClipPictures]:
    """Return the pictures of the clips at some places of the manifest, by sample key."""
    if not places:
        return {}
    uris = shard_uris(out)
    clips = read_rows(out, "clips", ("sample_key", "shard_id", "members"), places)
    with ThreadPoolExecutor(READERS) as pool:
        frames = pool.map(lambda clip: _clip_frames(out, uris, clip), clips)
        return dict(zip((str(clip["sample_key"]) for clip in clips), frames, strict=True))


def _clip_frames(out: Store, uris: Mapping[str, str], clip: Row) -> ClipPictures:
    """Return the middle, the first and the last frame of a clip, in the sizes of the sheet."""
    key, shard_id, images = str(clip["sample_key"]), str(clip["shard_id"]), frame_members(clip["members"])
    if shard_id not in uris:
        raise UnreadableError(f"manifest 'shards' of {out.url} has no shard '{shard_id}'")
    if not images:
        raise UnreadableError(f"manifest 'clips' of {out.url} names no frames of sample {key}")
    chosen = ((images[len(images) // 2], FACE_PX), (images[0], SIDE_PX), (images[-1], SIDE_PX))
    return [_frame(out, uris[shard_id], f"{key}.{member['ext']}", member, side_px) for member, side_px in chosen]


def _frame(out: Store, uri: str, name: str, member: Row, side_px: int) -> Image.Image:
    start, n_bytes = int(member["offset"]), int(member["nbytes"])
    data = out.read_range(uri, start, start + n_bytes)
    where = f"{name} in {out.join(uri)}"
    if len(data) != n_bytes:
        raise UnreadableError(f"cannot read {where}: got {len(data)} bytes, its manifest says {n_bytes}")
    try:
        return decode_frame(data, side_px)
    except DECODE_ERRORS as e:
        reason = " ".join(str(e).split())
        raise UnreadableError(f"cannot decode {where}: {reason}; check the data set with lps-audit") from e
