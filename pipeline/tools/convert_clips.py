"""The clips that a convert takes, and their images: chosen by the manifests, read from the shards, digests checked."""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from lps.manifests.arrays import Floats, Square, inner_side, square_of
from lps.manifests.columns import read_arrays, read_columns, read_rows, split_path
from lps.manifests.errors import IntegrityError, UnreadableError
from lps.manifests.names import SPLITS
from lps.manifests.pages.pictures import DECODE_ERRORS, MAX_FRAME_PX, frame_members
from lps.manifests.schemas import BOX_UNITS, Row
from lps.manifests.storage import Store
from lps.pipeline.clips.encode import RGB

NARROW = ("sample_key", "video_id", "dataset", "method", "label", "n_frames")
WIDE = (
    *("clip_id", "sample_key", "shard_id", "tar_offset", "tar_nbytes", "members", "image_codec"),
    *("frame_idx", "pts_ticks", "align_template", "out_size"),
)
MAX_SAMPLE_BYTES = 1 << 30
"""Bytes of a sample above which it is none of ours."""
_KEY = re.compile(r"[A-Za-z0-9_-]{1,200}")
"""Sample keys become names of files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenClip:
    """A clip that is converted: what its place in the target depends on."""

    place: int
    """Its row in the manifest of clips."""
    key: str
    video_id: bytes
    original_video_id: bytes | None
    """Id of the video that a fake was made from, where the data set has it."""
    dataset: str
    method: str | None
    label: int | None
    compression: str | None
    split: str
    n_frames: int
    time_base: Fraction | None
    """Seconds of a tick of its video; None where the manifest has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredClip:
    """A chosen clip with what only its row in the manifest says."""

    chosen: ChosenClip
    clip_id: bytes
    shard: str
    """Path of its tar."""
    tar_offset: int
    tar_nbytes: int
    members: Sequence[Row]
    codec: str
    frame_idx: Sequence[int]
    pts_ticks: Sequence[int]
    out_size: int
    """Side of its images, px."""
    inner_px: int
    """Side of the aligned face in their middle, px; that of the images where they were stored without a margin."""

    @property
    def pts_s(self) -> list[float]:
        """The recorded time stamps, in seconds to the microsecond, as samples have them."""
        return [round(float(ticks * self.tick), 6) for ticks in self.pts_ticks]

    @property
    def fps(self) -> Fraction | None:
        """Mean frame rate, frames per second; None for one frame."""
        ticks = self.pts_ticks[-1] - self.pts_ticks[0]
        return (len(self.pts_ticks) - 1) / (ticks * self.tick) if ticks > 0 else None

    @property
    def tick(self) -> Fraction:
        """Seconds of a unit of `pts_ticks`. Raises UnreadableError where the manifest has none."""
        if self.chosen.time_base is None:
            raise UnreadableError(f"sample {self.chosen.key}: the manifest of videos has no time base for its video")
        return self.chosen.time_base


@dataclass(frozen=True, slots=True)
class Choice:
    """The clips that are converted."""

    clips: list[ChosenClip]
    n_unlabelled: int
    """Clips that were left out because their label is unknown."""


def choose_clips(out: Store, split_set: str, limit: int | None, *, labelled: bool) -> Choice:
    """Choose the clips of a split set, in the order of the manifest, which is that of the shards.

    Args:
        split_set: whose splits count; clips of videos that it leaves out are not chosen.
        limit: at most so many of each split and label, the first by their keys, which are digests.
        labelled: leave out clips whose label is unknown.

    Raises:
        UnreadableError: a manifest cannot be read, or no clip is left.
        IntegrityError: a key or a split is not what this program writes, or a key occurs twice.
    """
    clips = read_columns(out, "clips", NARROW)
    splits = _splits(out, split_set, clips["video_id"])
    videos = read_columns(
        out, "videos", ("video_id", "original_video_id", "compression", "time_base_num", "time_base_den")
    )
    at = pc.index_in(clips["video_id"], value_set=videos["video_id"].combine_chunks())
    for name in videos.column_names[1:]:
        clips = clips.append_column(name, videos[name].take(at))
    clips = clips.append_column("split", splits).append_column("place", pa.array(range(len(clips)), pa.int64()))
    wanted = clips.filter(pc.is_valid(clips["split"]))
    n = len(wanted)
    if labelled:
        wanted = wanted.filter(pc.is_valid(wanted["label"]))
    if not len(wanted):
        without = " with a label" if labelled else ""
        raise UnreadableError(f"{out.url}: split set '{split_set}' has no clips{without}; `lps-audit show` counts them")
    chosen = [_chosen(out, row) for batch in wanted.to_batches() for row in batch.to_pylist()]
    return Choice(_first_of_each(_each_once(out, chosen), limit), n - len(wanted))


def _splits(out: Store, split_set: str, video_ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the split of each video, null for those that the split set leaves out."""
    rows = read_columns(out, "splits", ("video_id", "split", "excluded"), path=split_path(split_set))
    rows = rows.filter(pc.invert(rows["excluded"]))
    return rows["split"].take(pc.index_in(video_ids, value_set=rows["video_id"].combine_chunks()))


def _chosen(out: Store, row: Row) -> ChosenClip:
    key, split, label = row["sample_key"], row["split"], row["label"]
    if not _KEY.fullmatch(key) or split not in SPLITS or label not in (0, 1, None):
        raise IntegrityError(
            f"{out.url}: sample {key!r} of split {split!r} and label {label!r} is not what this program writes; "
            "check the data set with lps-audit"
        )
    num, den = row["time_base_num"], row["time_base_den"]
    return ChosenClip(
        place=row["place"],
        key=key,
        video_id=row["video_id"],
        original_video_id=row["original_video_id"],
        dataset=row["dataset"],
        method=row["method"],
        label=label,
        compression=row["compression"],
        split=split,
        n_frames=row["n_frames"],
        time_base=Fraction(num, den) if num and den and num > 0 and den > 0 else None,
    )


def _each_once(out: Store, clips: list[ChosenClip]) -> list[ChosenClip]:
    if len({clip.key for clip in clips}) < len(clips):
        key = Counter(clip.key for clip in clips).most_common(1)[0][0]
        raise IntegrityError(f"{out.url}: sample {key} is twice in the manifest of clips; check it with lps-audit")
    return clips


def _first_of_each(clips: list[ChosenClip], limit: int | None) -> list[ChosenClip]:
    if limit is None:
        return clips
    n_of: Counter[tuple[str, int | None]] = Counter()
    kept = []
    for clip in sorted(clips, key=lambda clip: clip.key):
        kind = (clip.split, clip.label)
        n_of[kind] += 1
        if n_of[kind] <= limit:
            kept.append(clip)
    return sorted(kept, key=lambda clip: clip.place)


def stored_clips(out: Store, chosen: Sequence[ChosenClip], uris: Mapping[str, str]) -> list[StoredClip]:
    """Return what the manifest says of some clips. Raises IntegrityError where it contradicts itself."""
    rows = read_rows(out, "clips", WIDE, [clip.place for clip in chosen])
    return [_stored(out, clip, row, uris) for clip, row in zip(chosen, rows, strict=True)]


def _stored(out: Store, clip: ChosenClip, row: Row, uris: Mapping[str, str]) -> StoredClip:
    start, n_bytes = row["tar_offset"], row["tar_nbytes"]
    inside = all(
        start <= member["offset"] and member["nbytes"] >= 0 and member["offset"] + member["nbytes"] <= start + n_bytes
        for member in row["members"]
    )
    counts = {clip.n_frames, len(frame_members(row["members"])), len(row["frame_idx"]), len(row["pts_ticks"])}
    is_whole = inside and start >= 0 and 0 < n_bytes <= MAX_SAMPLE_BYTES and len(counts) == 1 and clip.n_frames > 0
    if not is_whole or row["shard_id"] not in uris or row["sample_key"] != clip.key:
        raise IntegrityError(f"{out.url}: the row of sample {clip.key} in the manifest of clips contradicts itself")
    return StoredClip(
        chosen=clip,
        clip_id=row["clip_id"],
        shard=uris[row["shard_id"]],
        tar_offset=start,
        tar_nbytes=n_bytes,
        members=row["members"],
        codec=row["image_codec"],
        frame_idx=row["frame_idx"],
        pts_ticks=row["pts_ticks"],
        out_size=row["out_size"],
        inner_px=inner_side(row["align_template"], row["out_size"]),
    )


def read_landmarks(out: Store, chosen: Sequence[ChosenClip]) -> list[Floats | None]:
    """Return the 68 landmarks of some clips, (n_frames, 68, 2) px of their images; None where the manifest has none.

    Raises IntegrityError where it has some, but not for every frame.
    """
    places = [clip.place for clip in chosen]
    found = read_arrays(out, "clips", ("lmk68", "align_M"), places)
    cuts = read_rows(out, "clips", ("align_template", "out_size"), places)
    return [
        _landmarks(out, clip, row["lmk68"], row["align_M"], square_of(side, inner_side(cut["align_template"], side)))
        for clip, row, cut in zip(chosen, found, cuts, strict=True)
        for side in [cut["out_size"]]
    ]


def _landmarks(
    out: Store, clip: ChosenClip, lmk68: Floats | None, matrices: Floats | None, inner: Square
) -> Floats | None:
    if lmk68 is None:
        return None
    if matrices is None or lmk68.shape != (clip.n_frames, 136) or matrices.shape != (clip.n_frames, 6):
        raise IntegrityError(f"{out.url}: the row of sample {clip.key} in the manifest of clips contradicts itself")
    points = lmk68.reshape(-1, 68, 2) / BOX_UNITS
    maps = matrices.astype(np.float64).reshape(-1, 2, 3)
    placed = points @ maps[:, :, :2].transpose(0, 2, 1) + maps[:, None, :, 2]
    return np.asarray(placed + inner.first_px, np.float64)


def read_images(out: Store, clip: StoredClip) -> list[bytes]:
    """Return the image files of a clip, in order, after the digests of all its members were compared.

    Raises IntegrityError for bytes that are not those of the manifest, UnreadableError for a tar that cannot be read.
    """
    data = out.read_range(clip.shard, clip.tar_offset, clip.tar_offset + clip.tar_nbytes)
    found = {}
    for member in clip.members:
        start = member["offset"] - clip.tar_offset
        part = data[start : start + member["nbytes"]]
        if hashlib.sha256(part).digest() != member["sha256"]:
            raise IntegrityError(
                f"{clip.chosen.key}.{member['ext']} in {out.join(clip.shard)} is not what the manifest of clips says; "
                "restore the shard, or run the same `lps-prep run` with --verify, which makes it again"
            )
        found[member["ext"]] = part
    return [found[member["ext"]] for member in frame_members(clip.members)]


def picture_names(n: int, suffix: str) -> list[str]:
    """Return the names of n pictures, which sort as their numbers do: 00.png, 01.png and so on."""
    width = max(2, len(str(n - 1)))
    return [f"{k:0{width}d}.{suffix}" for k in range(n)]


def decode_image(data: bytes, clip: StoredClip) -> RGB:
    """Return a stored image, (H, W, 3) RGB. Raises UnreadableError for bytes that are none of ours."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            if max(image.size) > MAX_FRAME_PX:
                raise ValueError(f"{image.width} x {image.height} px is no aligned frame")
            return np.asarray(image.convert("RGB"), np.uint8)
    except DECODE_ERRORS as e:
        reason = " ".join(str(e).split())
        raise UnreadableError(
            f"cannot decode an image of sample {clip.chosen.key} in {clip.shard}: {reason}; check it with lps-audit"
        ) from e
