"""Pictures of pages and contact sheets: small frames, pulled out of the shards by byte range."""

import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from lps.manifests.columns import read_columns
from lps.manifests.errors import UnreadableError
from lps.manifests.schemas import Row
from lps.manifests.storage import Store

SIDE_PX = 96
JPEG_QUALITY = 78
MAX_PICTURES = 200
"""Clips of one call that are drawn: a page has to open in a browser."""
MAX_FRAME_PX = 4096
"""Side of a stored frame above which it is none of ours."""
MAX_FRAME_BYTES = 8 << 20
"""Bytes of a stored frame above which it is none of ours."""
READERS = 8
"""Frames read at a time: an object store answers slowly, but many at once."""

T = TypeVar("T")
Taken = Literal["spread", "first"]
"""Which frames of a clip are shown: from the middles of equal parts of it, or its first ones."""


def evenly_spaced(items: Sequence[T], n: int) -> list[T]:
    """Return at most `n` of the items, evenly spaced, the first and the last among them; of one, the middle."""
    if len(items) <= n:
        return list(items)
    if n == 1:
        return [items[len(items) // 2]]
    return [items[i * (len(items) - 1) // (n - 1)] for i in range(n)]


def uris_of(videos: pa.Table | None, asked: Sequence[bytes]) -> dict[str, str]:
    """Return the paths of some videos by id in hex, from columns `video_id` and `uri`."""
    if videos is None or not asked:
        return {}
    named = videos.select(["video_id", "uri"])
    rows = named.filter(pc.is_in(named["video_id"], value_set=pa.array(asked, named["video_id"].type))).to_pylist()
    return {bytes(row["video_id"]).hex(): str(row["uri"]) for row in rows}


def shard_uris(store: Store) -> dict[str, str]:
    """Return the paths of the shards by id. Raises UnreadableError."""
    shards = read_columns(store, "shards", ("shard_id", "uri")).to_pylist()
    return {str(row["shard_id"]): str(row["uri"]) for row in shards}


def frame_members(members: Sequence[Row] | None) -> list[Row]:
    """Return the tar members of a clip that are its frames, in order: they are named by their numbers."""
    frames = [member for member in members or () if _frame_number(member).isdigit()]
    return sorted(frames, key=lambda member: int(_frame_number(member)))


def _frame_number(member: Row) -> str:
    return str(member["ext"]).partition(".")[0]


def decode_frame(data: bytes, side_px: int) -> Image.Image:
    """Return a stored frame at `side_px`. Raises what Pillow raises for bytes that are none: see DECODE_ERRORS."""
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
        if max(image.size) > MAX_FRAME_PX:
            raise ValueError(f"{image.width} x {image.height} px is no aligned frame")
        return image.convert("RGB").resize((side_px, side_px), Image.Resampling.LANCZOS)


DECODE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for a damaged picture."""


def data_uri(image: Image.Image, kind: str) -> str:
    """Return an image as a data URI; `kind` is `jpeg` or `png`."""
    sink = io.BytesIO()
    image.save(sink, kind, quality=JPEG_QUALITY, optimize=kind == "png")
    return f"data:image/{kind};base64,{base64.b64encode(sink.getvalue()).decode()}"


def read_strips(
    store: Store, rows: Sequence[Row], n_frames: int = 1, taken: Taken = "spread", side_px: int = SIDE_PX
) -> dict[str, str]:
    """Return frames of each clip side by side, `side_px` high, as a JPEG's data URI, by sample key.

    Rows have `sample_key`, `shard_id` and `members` of the manifest `clips`; the first 200 clips are drawn. A page
    about a damaged data set is still a page: what cannot be read or decoded has no picture.
    """
    chosen = list({str(row["sample_key"]): row for row in rows}.values())[:MAX_PICTURES]
    if not chosen:
        return {}
    try:
        uris = shard_uris(store)
    except UnreadableError:
        return {}
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda row: _strip(store, uris, row, _places(row, n_frames, taken), side_px), chosen)
        return {str(row["sample_key"]): picture for row, picture in zip(chosen, found, strict=True) if picture}


def _places(row: Row, n_frames: int, taken: Taken) -> list[Row]:
    """Return the tar members of n frames; none of a clip without frames."""
    members = frame_members(row["members"])
    if taken == "first":
        return members[:n_frames]
    return [members[(2 * k + 1) * len(members) // (2 * n_frames)] for k in range(n_frames)] if members else []


def _strip(store: Store, uris: Mapping[str, str], row: Row, members: Sequence[Row], side_px: int) -> str | None:
    uri = uris.get(str(row["shard_id"]))
    if uri is None or not members:
        return None
    strip = Image.new("RGB", (side_px * len(members), side_px))
    try:
        for k, member in enumerate(members):
            start, n_bytes = int(member["offset"]), int(member["nbytes"])
            if not 0 < n_bytes <= MAX_FRAME_BYTES:
                return None
            strip.paste(decode_frame(store.read_range(uri, start, start + n_bytes), side_px), (k * side_px, 0))
    except (UnreadableError, *DECODE_ERRORS):
        return None
    return data_uri(strip, "jpeg")
