"""Pictures of the pages: small JPEG frames, pulled out of the shards by byte range."""

import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from lps.manifests.columns import read_columns
from lps.manifests.errors import UnreadableError
from lps.manifests.pages.parts import ClipTile
from lps.manifests.schemas import Row
from lps.manifests.storage import Store

SIDE_PX = 96
JPEG_QUALITY = 78
MAX_PICTURES = 200
MAX_FRAME_PX = 4096
"""Side of a stored frame above which it is none of ours."""
READERS = 8
"""Frames read at a time: an object store answers slowly, but many at once."""


def read_pictures(store: Store, tiles: Sequence[ClipTile]) -> dict[str, str]:
    """Return the middle frame of each clip as a data URI, by sample key; the first 200 clips, without the unreadable.

    A page about a damaged data set is still a page: what cannot be read or decoded has no picture.
    """
    chosen = list({str(tile.row["sample_key"]): tile for tile in tiles}.values())[:MAX_PICTURES]
    return _drawn(store, [tile.row for tile in chosen], 1)


def read_strips(store: Store, rows: Sequence[Row], n_frames: int) -> dict[str, str]:
    """Return frames of each clip, spread evenly over it and side by side, as a data URI, by sample key.

    Rows have `sample_key`, `shard_id` and `members` of the manifest `clips`. Unreadable ones are left out.
    """
    return _drawn(store, rows, n_frames)


def _drawn(store: Store, rows: Sequence[Row], n_frames: int) -> dict[str, str]:
    if not rows:
        return {}
    try:
        shards = read_columns(store, "shards", ("shard_id", "uri")).to_pylist()
    except UnreadableError:
        return {}
    uris = {str(row["shard_id"]): str(row["uri"]) for row in shards}
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda row: _picture(store, uris, row, n_frames), rows)
        return {str(row["sample_key"]): picture for row, picture in zip(rows, found, strict=True) if picture}


def _picture(store: Store, shard_uris: Mapping[str, str], row: Row, n_frames: int) -> str | None:
    uri, members = shard_uris.get(str(row["shard_id"])), _spread(row["members"] or (), n_frames)
    if uri is None or not members:
        return None
    try:
        return _data_uri([_small(_member(store, uri, member)) for member in members])
    except (UnreadableError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _member(store: Store, uri: str, member: Row) -> bytes:
    start = int(member["offset"])
    return store.read_range(uri, start, start + int(member["nbytes"]))


def _spread(members: Sequence[Row], n: int) -> list[Row]:
    """Return n images of a clip, from the middles of n equal parts: members are named by the number of their frame."""
    images = [member for member in members if str(member["ext"]).partition(".")[0].isdigit()]
    images.sort(key=lambda member: int(str(member["ext"]).partition(".")[0]))
    return [images[(2 * k + 1) * len(images) // (2 * n)] for k in range(n)] if images else []


def _small(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
        if max(image.size) > MAX_FRAME_PX:
            raise ValueError(f"{image.width} x {image.height} px is no aligned frame")
        return image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)


def _data_uri(frames: Sequence[Image.Image]) -> str:
    whole = Image.new("RGB", (SIDE_PX * len(frames), SIDE_PX))
    for k, frame in enumerate(frames):
        whole.paste(frame, (k * SIDE_PX, 0))
    sink = io.BytesIO()
    whole.save(sink, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()
