"""Pictures of the audit's page: small JPEG frames, pulled out of the shards by byte range."""

import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from lps.manifests.columns import read_columns
from lps.manifests.errors import UnreadableError
from lps.manifests.report_data import ClipTile
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
    if not chosen:
        return {}
    try:
        shards = read_columns(store, "shards", ("shard_id", "uri")).to_pylist()
    except UnreadableError:
        return {}
    uris = {str(row["shard_id"]): str(row["uri"]) for row in shards}
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda tile: _picture(store, uris, tile.row), chosen)
        return {str(tile.row["sample_key"]): picture for tile, picture in zip(chosen, found, strict=True) if picture}


def _picture(store: Store, shard_uris: Mapping[str, str], row: Row) -> str | None:
    uri, member = shard_uris.get(str(row["shard_id"])), _middle(row["members"] or ())
    if uri is None or member is None:
        return None
    start = int(member["offset"])
    try:
        data = store.read_range(uri, start, start + int(member["nbytes"]))
        return _small(data)
    except (UnreadableError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _middle(members: Sequence[Row]) -> Row | None:
    """Return the image in the middle of the clip: members are named by the number of their frame."""
    images = [member for member in members if str(member["ext"]).partition(".")[0].isdigit()]
    images.sort(key=lambda member: int(str(member["ext"]).partition(".")[0]))
    return images[len(images) // 2] if images else None


def _small(data: bytes) -> str:
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
        if max(image.size) > MAX_FRAME_PX:
            raise ValueError(f"{image.width} x {image.height} px is no aligned frame")
        small = image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    small.save(sink, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()
