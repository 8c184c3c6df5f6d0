"""The contact sheet of a finished data set: sample clips by split and label, and sample rejects by code.

Which ones are shown depends on the manifests alone. Frames are read from the shards by the byte ranges of the manifest,
three images a clip, so that a sheet of a data set of terabytes takes seconds.
"""

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from lps.manifests.codes import Code, meaning_of
from lps.manifests.columns import read_columns, read_rows
from lps.manifests.errors import UnreadableError
from lps.manifests.index import read_index
from lps.manifests.names import LABELS, SPLITS, label_name
from lps.manifests.pages.pictures import DECODE_ERRORS, READERS, decode_frame, evenly_spaced, frame_members, shard_uris
from lps.manifests.schemas import Row
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

VIDEO_COLUMNS = (
    *("video_id", "uri", "dataset", "label", "n_clips"),
    *("status", "error_code", "error_stage", "error_detail", "n_frames_decoded"),
)
CLIP_COLUMNS = ("sample_key", "video_id", "split", "label", "method", "det_rate", "pts_start_s")
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
    videos, clips = read_columns(out, "videos", VIDEO_COLUMNS), read_columns(out, "clips", CLIP_COLUMNS)
    rows = sheet_rows(videos, clips, per_row)
    layout = Layout(heading=_heading(index, videos, clips, len(rows) - max_rows), rows=tuple(rows[:max_rows]))
    page = draw_sheet(layout, _read_frames(out, layout.rows, clips["sample_key"]))
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    open_store(str(target.parent)).publish(target.name, buffer.getvalue())


def sheet_rows(videos: pa.Table, clips: pa.Table, per_row: int) -> list[SheetRow]:
    """Choose what the sheet shows: clips by split and label, then videos by code, in a fixed order.

    `videos` and `clips` are the columns VIDEO_COLUMNS and CLIP_COLUMNS of the manifests, rows in any order. Every code
    has its row. Only what is shown becomes Python objects: manifests may have millions of rows.
    """
    if per_row < 1:
        raise ValueError(f"per_row must be at least 1, got {per_row}")
    return [*_clip_rows(videos, clips, per_row), *_reject_rows(videos, per_row)]


def _clip_rows(videos: pa.Table, clips: pa.Table, per_row: int) -> list[SheetRow]:
    kinds = clips.group_by(["split", "label"]).aggregate([("video_id", "count_distinct"), ([], "count_all")])
    rows = []
    for kind in sorted(kinds.to_pylist(), key=_clips_place):
        mask = pc.and_(_equals(clips["split"], kind["split"]), _equals(clips["label"], kind["label"]))
        shown = _spaced(clips, mask, ("sample_key",), per_row)
        uris = _uris(videos, [row["video_id"] for row in shown])
        n = kind["count_all"]
        rows.append(
            SheetRow(
                title=str(kind["split"]),
                counts=((label_name(kind["label"]), n),),
                note=f"clips from {_count(kind['video_id_count_distinct'], 'video')}{_shown(len(shown), n)}",
                tiles=tuple(_clip_tile(row, uris.get(row["video_id"], "")) for row in shown),
            )
        )
    return rows


def _clips_place(kind: Row) -> tuple[tuple[int, str], int]:
    return (_place(SPLITS, str(kind["split"])), LABELS.index(label_name(kind["label"])))


def _equals(column: pa.ChunkedArray, value: Any) -> pa.ChunkedArray:
    return column.is_null() if value is None else pc.fill_null(pc.equal(column, value), fill_value=False)


def _spaced(table: pa.Table, mask: pa.ChunkedArray, keys: Sequence[str], n: int) -> list[Row]:
    """Return at most `n` of the rows of a mask, evenly spaced in the order of their keys."""
    places = pc.indices_nonzero(mask)
    order = pc.sort_indices(table.select(keys).take(places), [(key, "ascending") for key in keys])
    chosen = [places[order[place].as_py()].as_py() for place in evenly_spaced(range(len(order)), n)]
    return list(table.take(pa.array(chosen, pa.int64())).to_pylist())


def _uris(videos: pa.Table, video_ids: Sequence[bytes]) -> dict[bytes, str]:
    wanted = pa.array(video_ids, videos.schema.field("video_id").type)
    found = videos.select(["video_id", "uri"]).filter(pc.is_in(videos["video_id"], wanted))
    return {row["video_id"]: str(row["uri"]) for row in found.to_pylist()}


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


def _reject_rows(videos: pa.Table, per_row: int) -> list[SheetRow]:
    counts: dict[str, Counter[str]] = {}
    for kind in videos.group_by(["error_code", "label"]).aggregate([([], "count_all")]).to_pylist():
        if kind["error_code"]:
            counts.setdefault(str(kind["error_code"]), Counter())[label_name(kind["label"])] += kind["count_all"]
    rows = []
    for code in sorted(counts, key=lambda code: _place(tuple(Code), code)):
        shown = _spaced(videos, _equals(videos["error_code"], code), ("uri", "video_id"), per_row)
        labels = counts[code]
        rows.append(
            SheetRow(
                title=code,
                counts=tuple((label, labels[label]) for label in LABELS if labels[label]),
                note=meaning_of(code) + _shown(len(shown), labels.total()),
                tiles=tuple(_reject_tile(row) for row in shown),
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


def _place(order: Sequence[str], name: str) -> tuple[int, str]:
    """Sort key: by `order`, and what is not in it last, by name."""
    return (order.index(name) if name in order else len(order), name)


def _shown(n_shown: int, n: int) -> str:
    return "" if n_shown == n else f"; {n_shown} shown"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _heading(index: Row, videos: pa.Table, clips: pa.Table, n_cut: int) -> SheetHeading:
    names = ", ".join(sorted(map(str, videos["dataset"].unique().to_pylist()))) or "no videos"
    n_without = pc.sum(pc.equal(videos["n_clips"], 0)).as_py() or 0
    lines = [
        f"{_count(len(clips), 'clip')} · {_count(len(videos), 'video')}, {n_without:,} without clips · "
        f"split set '{index.get('split_set')}' · parameters {str(index.get('params_sha256'))[:12]}"
    ]
    if len(clips):
        lines.append(LEGEND)
    if videos["error_code"].null_count == len(videos):
        lines.append("No video ended with a code.")
    warnings = []
    if index.get("leaky"):
        warnings.append("Leaky split: its parts share people or sources, so results on it say little.")
    if n_cut > 0:
        warnings.append(f"{_count(n_cut, 'row')} more than fit on a sheet, not drawn.")
    return SheetHeading(title=f"Contact sheet: {names}", lines=tuple(lines), warnings=tuple(warnings))


def _read_frames(out: Store, rows: Iterable[SheetRow], keys: pa.ChunkedArray) -> dict[str, ClipPictures]:
    """Return the pictures of every clip of the rows, by sample key. `keys` are those of the manifest, in its order."""
    shown = {tile.sample_key for row in rows for tile in row.tiles if isinstance(tile, SheetClip)}
    places = pc.indices_nonzero(pc.is_in(keys, pa.array(sorted(shown), pa.string()))).to_pylist()
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
