"""The contact sheet of a finished data set: sample clips by split and label, and sample rejects by code.

Which ones are shown depends on the manifests alone. Frames are read from the shards by the byte ranges of the manifest,
three images a clip, so that a sheet of a data set of terabytes takes seconds.
"""

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lps.manifests.codes import CODE_MEANING, Code
from lps.manifests.errors import UnreadableError
from lps.manifests.index import read_index
from lps.manifests.schemas import Row, read_table
from lps.manifests.storage import Store, open_store
from lps.pipeline.job.finalize import label_name
from lps.pipeline.job.plan import SPLIT_ORDER
from lps.pipeline.tools.contact_sheet import (
    FACE_PX,
    SIDE_PX,
    ClipTile,
    Frames,
    Head,
    Layout,
    RejectTile,
    SheetRow,
    draw_sheet,
)

VIDEO_COLUMNS = (
    *("video_id", "uri", "dataset", "label", "n_clips"),
    *("status", "error_code", "error_stage", "error_detail", "n_frames_decoded"),
)
CLIP_COLUMNS = ("sample_key", "shard_id", "video_id", "split", "label", "method", "det_rate", "pts_start_s")
LABELS = ("real", "fake", "unknown")
LEGEND = (
    "A clip: its middle frame, beside it the first and the last · det: of the frames asked about, those with the face"
)
MAX_FRAME_PX = 4096
"""Side of a stored frame above which it is none of ours."""
READERS = 8
"""Frames read at a time: an object store answers slowly, but many at once."""

T = TypeVar("T")


def draw_preview(location: str, target: Path, *, per_row: int = 8, max_rows: int = 60) -> None:
    """Draw the contact sheet of the data set at `location` (a folder or an fsspec URL) as the PNG file `target`.

    Args:
        per_row: most clips of one split and label, and most videos of one code, that are shown.
        max_rows: bound on the page's length; a full set of splits, labels and codes has fewer rows.

    Raises:
        UnreadableError: the data set is not complete or not readable, or `target` cannot be written.
    """
    out = open_store(location)
    index = read_index(out)
    clip_manifest = out.read("manifests/clips.parquet")
    videos = _rows("videos", out.read("manifests/videos.parquet"), VIDEO_COLUMNS)
    clips = _rows("clips", clip_manifest, CLIP_COLUMNS)
    rows = sheet_rows(videos, clips, per_row)
    layout = Layout(head=_head(index, videos, clips, len(rows) - max_rows), rows=tuple(rows[:max_rows]))
    page = draw_sheet(layout, _read_frames(out, layout.rows, clip_manifest))
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    open_store(str(target.parent)).publish(target.name, buffer.getvalue())


# ---- what is shown -------------------------------------------------------------------------------------------------


def sheet_rows(videos: Sequence[Row], clips: Sequence[Row], per_row: int) -> list[SheetRow]:
    """Choose what the sheet shows: clips by split and label, then videos by code, in a fixed order.

    `videos` and `clips` are rows of the manifests, in any order. Every code has its row.
    """
    if per_row < 1:
        raise ValueError(f"per_row must be at least 1, got {per_row}")
    return [*_clip_rows(videos, clips, per_row), *_reject_rows(videos, per_row)]


def evenly_spaced(items: Sequence[T], n: int) -> list[T]:
    """Return at most `n` of the items, evenly spaced, the first and the last among them; of one, the middle."""
    if len(items) <= n:
        return list(items)
    if n == 1:
        return [items[len(items) // 2]]
    return [items[i * (len(items) - 1) // (n - 1)] for i in range(n)]


def _clip_rows(videos: Sequence[Row], clips: Sequence[Row], per_row: int) -> list[SheetRow]:
    uris = {row["video_id"]: str(row["uri"]) for row in videos}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in clips:
        groups.setdefault((str(row["split"]), label_name(row["label"])), []).append(row)
    rows = []
    for split, label in sorted(groups, key=lambda key: (_place(SPLIT_ORDER, key[0]), LABELS.index(key[1]))):
        group = sorted(groups[split, label], key=lambda row: str(row["sample_key"]))
        shown = evenly_spaced(group, per_row)
        n_videos = len({row["video_id"] for row in group})
        rows.append(
            SheetRow(
                title=split,
                counts=((label, len(group)),),
                note=f"clips from {_count(n_videos, 'video')}{_shown(shown, group)}",
                tiles=tuple(_clip_tile(row, uris.get(row["video_id"], "")) for row in shown),
            )
        )
    return rows


def _clip_tile(row: Row, uri: str) -> ClipTile:
    label = label_name(row["label"])
    return ClipTile(
        sample_key=str(row["sample_key"]),
        shard_id=str(row["shard_id"]),
        label=label,
        method=str(row["method"] or label),
        uri=uri,
        video_id=bytes(row["video_id"]).hex(),
        det_rate=float(row["det_rate"]),
        start_s=float(row["pts_start_s"]),
    )


def _reject_rows(videos: Sequence[Row], per_row: int) -> list[SheetRow]:
    groups: dict[str, list[Row]] = {}
    for row in videos:
        if row["error_code"]:
            groups.setdefault(str(row["error_code"]), []).append(row)
    rows = []
    for code in sorted(groups, key=lambda code: _place(tuple(Code), code)):
        group = sorted(groups[code], key=lambda row: (str(row["uri"]), row["video_id"]))
        labels = Counter(label_name(row["label"]) for row in group)
        shown = evenly_spaced(group, per_row)
        meaning = CODE_MEANING[Code(code)] if code in tuple(Code) else "a code that this version does not know"
        rows.append(
            SheetRow(
                title=code,
                counts=tuple((label, labels[label]) for label in LABELS if labels[label]),
                note=meaning + _shown(shown, group),
                tiles=tuple(_reject_tile(row) for row in shown),
            )
        )
    return rows


def _reject_tile(row: Row) -> RejectTile:
    return RejectTile(
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


def _shown(shown: Sequence[Row], group: Sequence[Row]) -> str:
    return "" if len(shown) == len(group) else f"; {len(shown)} shown"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _head(index: Row, videos: Sequence[Row], clips: Sequence[Row], n_cut: int) -> Head:
    names = ", ".join(sorted({str(row["dataset"]) for row in videos})) or "no videos"
    n_without = sum(not row["n_clips"] for row in videos)
    lines = [
        f"{_count(len(clips), 'clip')} · {_count(len(videos), 'video')}, {n_without:,} without clips · "
        f"split set '{index.get('split_set')}' · parameters {str(index.get('params_sha256'))[:12]}"
    ]
    if clips:
        lines.append(LEGEND)
    if not any(row["error_code"] for row in videos):
        lines.append("No video ended with a code.")
    warnings = []
    if index.get("leaky"):
        warnings.append("Leaky split: its parts share people or sources, so results on it say little.")
    if n_cut > 0:
        warnings.append(f"{_count(n_cut, 'row')} more than fit on a sheet, not drawn.")
    return Head(title=f"Contact sheet: {names}", lines=tuple(lines), warnings=tuple(warnings))


# ---- reading -------------------------------------------------------------------------------------------------------


def _rows(name: str, data: bytes, columns: Sequence[str]) -> list[Row]:
    table = read_table(name, data, columns=columns)
    missing = sorted(set(columns) - set(table.column_names))
    if missing:
        raise UnreadableError(f"manifest '{name}' has no column '{missing[0]}'")
    return list(table.to_pylist())


def _read_frames(out: Store, rows: Iterable[SheetRow], clip_manifest: bytes) -> dict[str, Frames]:
    """Return the pictures of every clip of the rows, by sample key."""
    tiles = [tile for row in rows for tile in row.tiles if isinstance(tile, ClipTile)]
    if not tiles:
        return {}
    shards = _rows("shards", out.read("manifests/shards.parquet"), ("shard_id", "uri"))
    shard_uris = {str(row["shard_id"]): str(row["uri"]) for row in shards}
    members = _members(clip_manifest, {tile.sample_key for tile in tiles})

    def frames(tile: ClipTile) -> Frames:
        uri = shard_uris.get(tile.shard_id)
        if uri is None:
            raise UnreadableError(f"manifest 'shards' of {out.url} has no shard '{tile.shard_id}'")
        return _clip_frames(out, uri, tile.sample_key, members)

    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip((tile.sample_key for tile in tiles), pool.map(frames, tiles), strict=True))


def _members(clip_manifest: bytes, keys: set[str]) -> dict[str, list[Row]]:
    """Return the tar members of some samples. Passes over the widest column in batches: it can hold millions."""
    found = {}
    try:
        file = pq.ParquetFile(io.BytesIO(clip_manifest))
        for batch in file.iter_batches(batch_size=4096, columns=["sample_key", "members"]):
            wanted = [i for i, key in enumerate(batch.column("sample_key").to_pylist()) if key in keys]
            for row in batch.take(pa.array(wanted, pa.int64())).to_pylist():
                found[str(row["sample_key"])] = list(row["members"])
    except (pa.ArrowException, OSError, KeyError) as e:
        raise UnreadableError(f"manifest 'clips' is damaged: {' '.join(str(e).split())}") from e
    return found


def _clip_frames(out: Store, uri: str, key: str, members: Mapping[str, Sequence[Row]]) -> Frames:
    """Return the middle, the first and the last frame of a sample, in the sizes of the sheet."""
    numbered = ((str(member["ext"]).partition(".")[0], member) for member in members.get(key, ()))
    images = {int(number): member for number, member in numbered if number.isdigit()}
    if not images:
        raise UnreadableError(f"manifest 'clips' of {out.url} names no frames of sample {key}")
    order = sorted(images)
    chosen = ((order[len(order) // 2], FACE_PX), (order[0], SIDE_PX), (order[-1], SIDE_PX))
    return [_frame(out, uri, f"{key}.{images[i]['ext']}", images[i], side_px) for i, side_px in chosen]


def _frame(out: Store, uri: str, name: str, member: Row, side_px: int) -> Image.Image:
    start, n_bytes = int(member["offset"]), int(member["nbytes"])
    data = out.read_range(uri, start, start + n_bytes)
    where = f"{name} in {out.join(uri)}"
    if len(data) != n_bytes:
        raise UnreadableError(f"cannot read {where}: got {len(data)} bytes, its manifest says {n_bytes}")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            if max(image.size) > MAX_FRAME_PX:
                raise ValueError(f"{image.width} x {image.height} px is no aligned frame")
            return image.convert("RGB").resize((side_px, side_px), Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        reason = " ".join(str(e).split())
        raise UnreadableError(f"cannot decode {where}: {reason}; check the data set with lps-audit") from e
