"""What a split may depend on, as a record for each video or as a table of all of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lps.manifests.records import SourceVideo

Aliases = tuple[tuple[str, str], ...]

VIDEO_PREFIX = "video/"
CONTENT_PREFIX = "sha256/"
EMPTY_SHA256 = hashlib.sha256(b"").digest()
INPUT_COLUMNS = (
    "video_id",
    "label",
    "dataset",
    "method",
    "compression",
    "official_split",
    "sha256",
    "original_video_id",
    "identity_keys",
    "target_keys",
    "donor_keys",
    "source_keys",
)
"""Columns of the manifest `videos` that a split depends on."""
KEY_COLUMNS = INPUT_COLUMNS[-4:]
BATCH_VIDEOS = 4096
_KINDS: dict[str, pa.DataType] = {
    **dict.fromkeys(INPUT_COLUMNS, pa.string()),
    "label": pa.int8(),
    "sha256": pa.binary(32),
    "video_id": pa.binary(16),
    "original_video_id": pa.binary(16),
    **dict.fromkeys((*KEY_COLUMNS, "keys"), pa.list_(pa.string())),
}
"""Types of these columns, and of `keys`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitInput:
    """What a split may depend on: who and what is in a video, never how its processing went."""

    video_id: bytes
    label: int | None
    dataset: str
    method: str | None = None
    compression: str | None = None
    keys: tuple[str, ...] = ()
    """All published grouping keys: the union of the four kinds below."""
    identity_keys: tuple[str, ...] = ()
    target_keys: tuple[str, ...] = ()
    donor_keys: tuple[str, ...] = ()
    source_keys: tuple[str, ...] = ()
    official_split: str | None = None
    sha256: bytes | None = None
    """Digest of the file, which ties exact duplicates; None leaves them untied."""
    original_video_id: bytes | None = None

    @property
    def own_key(self) -> str:
        """The key that stands for the video itself, as an original or where nothing is published."""
        return video_key(self.video_id)

    @property
    def content_key(self) -> str | None:
        """The key that exact duplicates share; None for unread and empty files, which are not copies of one video."""
        if self.sha256 is None or self.sha256 == EMPTY_SHA256:
            return None
        return CONTENT_PREFIX + self.sha256.hex()


def video_key(video_id: bytes) -> str:
    """Return the global key of one video."""
    return VIDEO_PREFIX + video_id.hex()


def source_inputs(
    videos: Sequence[SourceVideo], ids: Sequence[bytes], sha256: pa.Array, originals: pa.Array
) -> pa.Table:
    """Take from source videos, of these ids, what a split may depend on, as a table like that of `inputs_table`.

    Args:
        videos: as their data set describes them.
        ids: the id of each.
        sha256: digest of the file of each, null where it is not known.
        originals: id of the original of each, null where it has none.
    """
    columns = {
        "video_id": pa.array(ids, _KINDS["video_id"]),
        "sha256": sha256.cast(_KINDS["sha256"]),
        "original_video_id": originals.cast(_KINDS["original_video_id"]),
    }
    for name, kind in _KINDS.items():
        if name not in columns:
            parts = [videos[start : start + BATCH_VIDEOS] for start in range(0, len(videos), BATCH_VIDEOS)]
            columns[name] = pa.chunked_array([pa.array([_value(v, name) for v in p], kind) for p in parts], kind)
    return pa.table({name: columns[name] for name in _KINDS})


def _value(video: SourceVideo, name: str) -> object:
    return sorted(_keys_of(video)) if name == "keys" else getattr(video, name)


def _keys_of(video: SourceVideo) -> set[str]:
    return {*video.target_keys, *video.donor_keys, *video.source_keys, *video.identity_keys}


def inputs_from_table(videos: pa.Table) -> list[SplitInput]:
    """Read the rows of `videos.parquet`; optional columns that the table lacks count as null."""
    nothing = pa.nulls(videos.num_rows)
    names = (*INPUT_COLUMNS, "keys")
    columns = [(videos[c] if c in videos.column_names else nothing).to_pylist() for c in names]
    return [_input_from_row(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def _input_from_row(row: dict[str, Any]) -> SplitInput:
    identity, target, donor, source = (tuple(row.pop(c) or ()) for c in KEY_COLUMNS)
    keys = row.pop("keys")
    return SplitInput(
        keys=tuple(sorted({*identity, *target, *donor, *source} if keys is None else keys)),
        identity_keys=identity,
        target_keys=target,
        donor_keys=donor,
        source_keys=source,
        **row,
    )


def inputs_table(inputs: Sequence[SplitInput]) -> pa.Table:
    """Return inputs as a table of `INPUT_COLUMNS` and `keys`, which holds all keys that count."""
    return pa.table({name: pa.array([getattr(v, name) for v in inputs], kind) for name, kind in _KINDS.items()})


def key_columns(videos: pa.Table) -> tuple[str, ...]:
    """Return the columns that hold the keys of videos: `keys` where the table has it, else those of each kind."""
    return ("keys",) if "keys" in videos.column_names else KEY_COLUMNS
