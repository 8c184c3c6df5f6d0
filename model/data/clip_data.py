"""What is to be read: the samples of one split of a data set, or of a list of shards; as columns, for millions."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lps.manifests.arrays import Bools, Ints, inner_sides
from lps.manifests.columns import PATHS, column_batches, read_columns, split_path
from lps.manifests.errors import IntegrityError, RefusedError, UnreadableError
from lps.manifests.index import read_index, read_rule, split_sets
from lps.manifests.schemas import read_table
from lps.manifests.splits.across import COMPARED_COLUMNS, ComparedSet
from lps.manifests.storage import Store, open_store
from lps.model.data.sample import MAX_SAMPLE_BYTES, UNKNOWN_LABEL, BadSample, Sample, sample_name
from lps.model.data.shards import Shard

_ID = pa.binary(16)
SCHEMA_OF_HASHES = 3
"""Major version since which frames at 0, 1 and 2 seconds are hashed."""
WINDOW_KEY = int.from_bytes(b"lps-window/v1", "big")
"""Key of the random weights that windows are numbered with. Numbers are compared within one reading, never stored."""
SAMPLES = pa.schema(
    [
        ("key", pa.string()),
        ("clip_id", _ID),
        ("video_id", _ID),
        ("original_video_id", _ID),  # of a fake: the real video it was made from, null if unknown
        ("source_sha256", pa.binary(32)),  # of the file of its video; null for plain shards
        ("label", pa.int8()),  # 0 real, 1 fake, null unknown
        ("dataset", pa.string()),
        ("method", pa.string()),
        ("compression", pa.string()),  # of the source video; null where the data set does not say
        ("shard", pa.int32()),  # number in the list of shards
        ("offset", pa.int64()),  # bytes
        ("n_bytes", pa.int64()),
        ("n_frames", pa.int16()),
        ("side_px", pa.int16()),
        ("inner_px", pa.int16()),  # side of the inner square; what lies around it is the margin
        ("track_id", pa.int16()),
        ("face_id", pa.int16()),  # the face within its video; null where an older version made them
        ("start_s", pa.float64()),  # time stamp of the first frame
        ("window", pa.uint64()),  # number of its track and frames; null where no clip shares those of another video
        ("shares_window", pa.bool_()),  # of a fake: cut out where, and as, its original was
    ]
)
"""Columns of the table of samples, sorted by shard and offset."""

SELF_BLEND_COLUMNS = ("self_blend", "face_xy")
"""Columns besides, where self-blends were added: whether it is one, and its landmarks."""

CLIP_COLUMNS = {
    "sample_key": "key",
    "clip_id": "clip_id",
    "video_id": "video_id",
    "label": "label",
    "dataset": "dataset",
    "method": "method",
    "shard_id": "shard_id",
    "tar_offset": "offset",
    "tar_nbytes": "n_bytes",
    "n_frames": "n_frames",
    "out_size": "side_px",
    "align_template": "template",
    "track_id": "track_id",
    "face_id": "face_id",
    "pts_start_s": "start_s",
    "pair_mode": "pair_mode",
}
"""Columns of the manifest `clips`, and what they are called here."""

VIDEO_COLUMNS = {"original_video_id": "original_video_id", "sha256": "source_sha256", "compression": "compression"}
"""Columns of the manifest `videos`, and what they are called here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataIdentity:
    """What was read, for checkpoints and results."""

    index_sha256: str = ""
    """Hex, of index.json, which holds the digests of all else; empty for plain shards."""
    split_set: str = ""
    split: str = ""
    leaky: bool | None = None
    """The split set's stamp; None for plain shards, which carry none."""
    datasets: tuple[str, ...] = ()
    """Names of the data sets that the samples come from, sorted."""
    certificate_sha256: str = ""
    """Hex, of the certificate of this index and split set; empty, and not in the record, where there is none."""

    def as_json(self) -> dict[str, Any]:
        """Return it as a record of plain values."""
        record = {**asdict(self), "datasets": list(self.datasets)}
        return {k: value for k, value in record.items() if value or k != "certificate_sha256"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPart:
    """One of several data sets that are read together."""

    name: str
    weight: float
    """How often each of its clips is read in an epoch of training."""
    first_shard: int
    """Number of its first shard; its others follow."""
    identity: DataIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Samples that are there and not used, by reason."""

    n_short: int = 0
    """Fewer frames than training needs."""
    n_unlabelled: int = 0
    n_other_clips: int = 0
    """More clips of their video than asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipData:
    """The samples to be read, and the shards that they are in."""

    samples: pa.Table
    """Columns of `SAMPLES`, sorted by shard and offset."""
    shards: tuple[Shard, ...]
    identity: DataIdentity
    faults: tuple[BadSample, ...] = ()
    """Found while indexing plain shards; not among the samples."""
    left_out: LeftOut = field(default_factory=LeftOut)
    parts: tuple[DataPart, ...] = ()
    """The data sets of a mix, in the order of their samples; empty for one without a name."""

    def __len__(self) -> int:
        return int(self.samples.num_rows)

    @property
    def labels(self) -> Ints:
        """0 real, 1 fake, -1 unknown, for every sample."""
        return self.column("label", missing=UNKNOWN_LABEL)

    @property
    def faces(self) -> Ints:
        """Number of the face within its video of every sample; its track's where an older version says no more."""
        values = pc.coalesce(self.samples["face_id"], self.samples["track_id"]).fill_null(0)
        return np.asarray(values.to_numpy(), np.int64)

    @property
    def part_of(self) -> Ints:
        """Number of its data set in `parts` of every sample; 0 where there is but one."""
        firsts = [part.first_shard for part in self.parts] or [0]
        return np.searchsorted(np.array(firsts), self.column("shard"), side="right").astype(np.int64) - 1

    @property
    def self_blends(self) -> Bools:
        """Which samples are made into fakes while they are read; each follows its original. See `with_self_blends`."""
        if SELF_BLEND_COLUMNS[0] not in self.samples.column_names:
            return np.zeros(len(self), np.bool_)
        return np.asarray(self.samples[SELF_BLEND_COLUMNS[0]].to_numpy(), np.bool_)

    def names(self) -> list[str]:
        """Return what batches call every sample; see `Sample.name`."""
        sets = [part.name for part in self.parts] or [""]
        rows = zip(self.samples["key"].to_pylist(), self.part_of.tolist(), self.self_blends.tolist(), strict=True)
        return [sample_name(key, sets[k], self_blend=blend) for key, k, blend in rows]

    def column(self, name: str, *, missing: int = 0) -> Ints:
        """Return a column of whole numbers, nulls as `missing`."""
        values = self.samples[name].fill_null(missing).to_numpy(zero_copy_only=False)
        return np.asarray(values, np.int64)

    def records(self, numbers: Ints) -> tuple[Sample, ...]:
        """Return some samples as records, in the order asked for."""
        names = ["key", "clip_id", "video_id", "label", "n_frames", "side_px", "inner_px", "shard", "offset", "n_bytes"]
        names += [name for name in SELF_BLEND_COLUMNS if name in self.samples.column_names]
        rows = self.samples.select(names).take(pa.array(numbers)).to_pylist()
        return tuple(_record(row, self._part_name(row["shard"])) for row in rows)

    def _part_name(self, shard: int) -> str:
        return next((part.name for part in reversed(self.parts) if part.first_shard <= shard), "")

    def digest(self) -> str:
        """Return the SHA-256, in hex, of which samples these are: their shards' order, keys and labels."""
        digest = hashlib.sha256()
        for batch in self.samples.select(["shard", "key", "label"]).to_batches(max_chunksize=65536):
            shard, key, label = (column.to_pylist() for column in batch.columns)
            digest.update("\n".join(f"{s}\t{k}\t{v}" for s, k, v in zip(shard, key, label, strict=True)).encode())
            digest.update(b"\n")
        return digest.hexdigest()

    def select(self, mask: Bools, left_out: LeftOut) -> "ClipData":
        """Return the samples where `mask` is true."""
        return replace(self, samples=self.samples.filter(pa.array(mask)), left_out=left_out)


def _record(row: Mapping[str, Any], data: str) -> Sample:
    return Sample(
        key=row["key"],
        clip_id=row["clip_id"],
        video_id=row["video_id"],
        label=UNKNOWN_LABEL if row["label"] is None else row["label"],
        n_frames=row["n_frames"],
        side_px=row["side_px"],
        inner_px=row["inner_px"],
        shard=row["shard"],
        offset_bytes=row["offset"],
        n_bytes=row["n_bytes"],
        data=data,
        self_blend=row.get("self_blend", False),
        face_xy=tuple(row.get("face_xy") or ()),
    )


def open_data(location: str, split: str, *, split_set: str | None = None, allow_leaky: bool = False) -> ClipData:
    """Return the samples of a split, from the index and the manifests of a data set at a path or URL.

    `split_set` defaults to the one that the shards were made for; any other is a join by video, so that a split's
    samples may lie in shards of all names.

    Raises RefusedError for a split set with the stamp `leaky` unless `allow_leaky`, UnreadableError for what cannot be
    read, an unknown split set or a split without samples, IntegrityError for manifests that contradict each other.
    """
    store = open_store(location)
    record = read_index(store)
    index = record.values
    name = split_set or str(index["split_set"])
    leaky = _leaky(store, index, name)
    if leaky and not allow_leaky:
        raise RefusedError(
            f"split set '{name}' of {store.url} is stamped leaky: one person is on both sides of it, and results on it "
            "say little; use another split set (`lps-prep split`), or allow the leak explicitly"
        )
    table = _samples(store, _chosen_videos(store, name, split))
    shard_rows = _columns(store, "shards", ("shard_id", "uri", "bytes", "sha256")).sort_by("shard_id")
    shards = tuple(
        Shard(uri=store.join(row["uri"]), n_bytes=row["bytes"], sha256=row["sha256"].hex())
        for row in shard_rows.to_pylist()
    )
    place = pc.index_in(table["shard_id"], value_set=shard_rows["shard_id"].combine_chunks())
    if place.null_count:
        raise IntegrityError(f"{store.url}: a row of clips names a shard that the manifest of shards lacks")
    table = table.append_column("shard", place).select(SAMPLES.names).cast(SAMPLES)
    table = table.sort_by([("shard", "ascending"), ("offset", "ascending")])
    _check_places(table, shards, store)
    identity = DataIdentity(
        index_sha256=record.sha256,
        split_set=name,
        split=split,
        leaky=leaky,
        datasets=tuple(sorted(pc.unique(table["dataset"]).to_pylist())),
    )
    return ClipData(samples=table, shards=shards, identity=identity)


def _columns(store: Store, name: str, columns: Sequence[str], path: str = "") -> pa.Table:
    """Return columns of a manifest. Only a plain web server makes it read the file as a whole."""
    path = path or PATHS[name]
    if not store.url.startswith(("http://", "https://")):
        return read_columns(store, name, columns, path=path)
    return read_table(name, store.read(path), columns=columns)


def _leaky(store: Store, index: Mapping[str, Any], split_set: str) -> bool:
    path = split_path(split_set)
    if path not in index["manifests"]:
        known = ", ".join(split_sets(index)) or "none"
        raise UnreadableError(f"{store.url} has no split set '{split_set}'; it has: {known}")
    stamp = read_rule(store, split_set).get("leaky")
    return bool(stamp) or (split_set == index["split_set"] and bool(index.get("leaky")))


def _chosen_videos(store: Store, split_set: str, split: str) -> pa.Array:
    rows = _columns(store, "splits", ("video_id", "split"), split_path(split_set))
    chosen = rows.filter(pc.equal(rows["split"], split))
    if not chosen.num_rows:
        known = ", ".join(sorted(s for s in pc.unique(rows["split"]).to_pylist() if s)) or "none"
        raise UnreadableError(f"{store.url}: split set '{split_set}' has no videos in '{split}'; its splits: {known}")
    return chosen["video_id"].combine_chunks()


def _samples(store: Store, video_ids: pa.Array) -> pa.Table:
    clips = _columns(store, "clips", tuple(CLIP_COLUMNS)).rename_columns(list(CLIP_COLUMNS.values()))
    shares = pc.equal(clips["pair_mode"], "shared").fill_null(False)  # noqa: FBT003  as pyarrow has it
    window = _windows(store, clips.num_rows) if pc.any(shares).as_py() else pa.nulls(clips.num_rows, pa.uint64())
    clips = clips.append_column("shares_window", shares).append_column("window", window)
    clips = clips.filter(pc.is_in(clips["video_id"], value_set=video_ids))
    if not clips.num_rows:
        raise UnreadableError(f"{store.url}: the videos of this split have no clips; `lps-audit show` counts")
    if pc.count_distinct(clips["key"]).as_py() < clips.num_rows:
        raise IntegrityError(f"{store.url}: a sample key occurs twice in the manifest of clips")
    n_frames, side_px = clips["n_frames"].to_numpy(), clips["side_px"].to_numpy()
    wrong = np.flatnonzero((n_frames < 1) | (side_px < 1))
    if len(wrong):
        key = clips["key"][int(wrong[0])].as_py()
        raise IntegrityError(f"{store.url}: by the manifest of clips sample {key} has no frames or no pixels")
    inner = inner_sides(clips["template"], np.asarray(side_px, np.int64))
    clips = clips.append_column("inner_px", pa.array(inner, pa.int16()))
    videos = _columns(store, "videos", ("video_id", *VIDEO_COLUMNS))
    row = pc.index_in(clips["video_id"], value_set=videos["video_id"].combine_chunks())
    for column, name in VIDEO_COLUMNS.items():
        clips = clips.append_column(name, videos[column].take(row))
    return clips


def _windows(store: Store, n_rows: int) -> pa.ChunkedArray:
    """Return a number for the face track and the frames of every row of `clips`: equal for equal ones."""
    columns = ("track_id", "frame_idx")
    remote = store.url.startswith(("http://", "https://"))
    tables = [_columns(store, "clips", columns)] if remote else column_batches(store, "clips", columns)
    found = pa.chunked_array([window_numbers(table) for table in tables], pa.uint64())
    if len(found) != n_rows:
        raise IntegrityError(f"{store.url}: the manifest of clips changed while it was read; read it again")
    return found


def window_weights(n: int) -> NDArray[np.uint64]:
    """Return random 64-bit numbers by which windows are numbered: of the video, its face track, then of each frame."""
    return np.random.Philox(key=WINDOW_KEY).random_raw(n)


def window_numbers(table: pa.Table) -> pa.Array:
    """Hash lists of frames with their track: random 64-bit weights by place, so that any two differ."""
    frames = pa.concat_arrays(table["frame_idx"].chunks)
    values = np.asarray(frames.flatten().to_numpy(), np.int64).astype(np.uint64)
    stops = np.cumsum(np.asarray(pc.list_value_length(frames).to_numpy(), np.int64))
    sizes = np.diff(stops, prepend=0)
    place = np.arange(len(values)) - np.repeat(stops - sizes, sizes)
    weights = window_weights(2 + int(sizes.max(initial=0)))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum((values + np.uint64(1)) * weights[2 + place])])
    track = np.asarray(table["track_id"].to_numpy(), np.int64).astype(np.uint64)
    return pa.array(sums[stops] - sums[stops - sizes] + track * weights[1])


def _check_places(table: pa.Table, shards: Sequence[Shard], store: Store) -> None:
    """Refuse places outside of their shard, so that no reader follows them."""
    ends = np.array([shard.n_bytes for shard in shards], np.int64)
    offset, n_bytes, shard = (np.asarray(table[name].to_numpy()) for name in ("offset", "n_bytes", "shard"))
    wrong = (offset < 0) | (n_bytes <= 0) | (n_bytes > MAX_SAMPLE_BYTES) | (offset + n_bytes > ends[shard])
    if wrong.any():
        key = table["key"][int(np.flatnonzero(wrong)[0])].as_py()
        raise IntegrityError(f"{store.url}: the manifest of clips places sample {key} outside of its shard")


def compared_videos(location: str, split_set: str, name: str) -> ComparedSet:
    """Return the videos with clips of a data set, to be compared with those of others; none is marked yet.

    `name` is what the data set is called. Raises UnreadableError and IntegrityError as `open_data` does.
    """
    store = open_store(location)
    videos = _columns(store, "videos", (*COMPARED_COLUMNS, "status"))
    videos = videos.filter(pc.is_in(videos["status"], value_set=pa.array(["ok", "partial"])))
    rows = _columns(store, "splits", ("video_id", "split"), split_path(split_set))
    place = pc.index_in(videos["video_id"], value_set=rows["video_id"].combine_chunks())
    table = videos.select(COMPARED_COLUMNS).append_column("split", rows["split"].take(place))
    nobody = np.zeros(table.num_rows, np.bool_)
    version = int(str(read_index(store).values["schema_version"]).split(".")[0])
    return ComparedSet(name=name, videos=table, learnt=nobody, held=nobody, older_hashes=version < SCHEMA_OF_HASHES)


def with_labels(data: ClipData) -> ClipData:
    """Leave out samples whose label is unknown."""
    keep = data.labels != UNKNOWN_LABEL
    return data.select(keep, replace(data.left_out, n_unlabelled=data.left_out.n_unlabelled + int((~keep).sum())))


def long_enough(data: ClipData, n_frames: int) -> ClipData:
    """Leave out samples of fewer frames."""
    keep = data.column("n_frames") >= n_frames
    return data.select(keep, replace(data.left_out, n_short=data.left_out.n_short + int((~keep).sum())))


def spread_clips(data: ClipData, n_clips: int) -> ClipData:
    """Keep at most `n_clips` clips of each video, spread evenly over its clips in order of face track and time.

    1 keeps the middle one, 3 those in the middles of three equal parts. Raises ValueError below 1.
    """
    if n_clips < 1:
        raise ValueError(f"at least one clip of each video is needed, got {n_clips = }")
    video = codes_of_parts(id_codes(data.samples["video_id"]), data)
    start = np.asarray(data.samples["start_s"].to_numpy())
    order = np.lexsort((start, data.column("track_id"), video))
    first = np.flatnonzero(np.diff(video[order], prepend=-1))
    size = np.diff(np.append(first, len(order)))
    chosen = first[:, None] + (2 * np.arange(n_clips) + 1) * size[:, None] // (2 * n_clips)
    keep = np.zeros(len(data), bool)
    keep[order[np.unique(np.where(size[:, None] <= n_clips, _all_of(first, size, n_clips), chosen))]] = True
    left_out = replace(data.left_out, n_other_clips=data.left_out.n_other_clips + int((~keep).sum()))
    return data.select(keep, left_out)


def _all_of(first: Ints, size: Ints, width: int) -> Ints:
    """Return (groups, width) places that cover groups of at most `width`."""
    return first[:, None] + np.minimum(np.arange(width), size[:, None] - 1)


def id_codes(ids: pa.ChunkedArray) -> Ints:
    """Number ids from 0; nulls are -1."""
    codes = ids.combine_chunks().dictionary_encode().indices.fill_null(-1)
    return np.asarray(codes.to_numpy(zero_copy_only=False), np.int64)


def codes_of_parts(codes: Ints, data: ClipData) -> Ints:
    """Number ids anew, so that equal ones of different data sets are different; -1 stays."""
    return np.where(codes < 0, codes, codes * max(1, len(data.parts)) + data.part_of)
