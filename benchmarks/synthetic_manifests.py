"""Manifests of a synthetic data set, as large as is asked for: what `benchmarks/manifests.py` measures on."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lps.manifests.arrays import template_name
from lps.manifests.audit.checks.reproducibility import VERSIONS
from lps.manifests.canonical import canonical_json, digest16, pretty_json, sha256_hex
from lps.manifests.columns import PATHS, split_path
from lps.manifests.index import PLAN_VIDEOS
from lps.manifests.names import SPLITS
from lps.manifests.row_digest import fixed_bytes, hex_texts
from lps.manifests.schemas import CLIPS, PLANNED_VIDEOS, SCHEMA_ID, SCHEMA_VERSION, SHARDS, VIDEOS
from lps.manifests.splits.inputs import INPUT_COLUMNS
from lps.manifests.splits.records import SplitParams
from lps.manifests.splits.table import split_table
from lps.pipeline.clips.places import start_seed
from lps.pipeline.config.params import PairParams, Params
from lps.pipeline.faces.align import align_matrix, template

REAL_SHARE = 19_154 / 119_146
CLIPS_PER_SHARD = 230
CHUNK_ROWS = 32_768
SPLIT_SET = "group"
OUT_PX = 224
PAIR = PairParams(mode="original")

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the tables have in common, in the order of video ids."""

    dataset: str
    seed: int
    """Other ones give other digests and hashes."""
    ids: NDArray[np.uint8]
    uris: list[str]
    label: Ints
    original: Ints
    """Row of the original, -1 for real videos."""
    has_clip: NDArray[np.bool_]
    n_frames: Ints

    @property
    def in_family(self) -> NDArray[np.bool_]:
        """True for fakes, and for the originals of some."""
        found = self.original >= 0
        found[self.original[found]] = True
        return found


def make_world(n: int, dataset: str, seed: int) -> World:
    """Name `n` videos; every fake has an original."""
    rng = np.random.default_rng((0, seed))
    n_real = int(n * REAL_SHARE)
    uris = [f"{dataset}_train_part_{i % 50}/{i:09d}.mp4" for i in range(n)]
    ids = np.frombuffer(b"".join(digest16(dataset, uri) for uri in uris), np.uint8).reshape(n, 16)
    words = np.ascontiguousarray(ids).view(">u8").astype(np.uint64)
    order = np.lexsort((words[:, 1], words[:, 0]))
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    label = (np.arange(n) >= n_real).astype(np.int64)
    original = np.where(label == 1, rank[rng.integers(0, n_real, n)], -1)[order]
    has_clip = rng.random(n) > 0.02
    return World(
        dataset=dataset,
        seed=seed,
        ids=ids[order],
        uris=[uris[i] for i in order.tolist()],
        label=label[order],
        original=original,
        has_clip=has_clip,
        n_frames=rng.choice([300, 299, 240], n)[np.where(original < 0, np.arange(n), original)],
    )


def make_data_set(folder: Path, n: int, clip_frames: int, *, dataset: str = "dfdc", seed: int = 0) -> None:
    """Write manifests, plan, index and sparse shards."""
    world = make_world(n, dataset, seed)
    params = Params(localizer="mtcnn", clip_frames=clip_frames or 60, pair=PAIR).record()
    marks = {"lps.params_sha256": sha256_hex(canonical_json(params)), "lps.code_version": "0.1.0"}
    for name in ("manifests/splits", "plan"):
        (folder / name).mkdir(parents=True)
    batches = [batch.select(INPUT_COLUMNS) for batch in _videos(world, None)]
    splits, rule = split_table(pa.Table.from_batches(batches), SplitParams())
    del batches
    names = np.asarray(pc.index_in(splits["split"], pa.array(SPLITS)), np.int64)
    _write(folder / split_path(SPLIT_SET), "splits", splits.schema, iter(splits.to_batches()), marks)
    _write(folder / PATHS["videos"], "videos", VIDEOS, _videos(world, names), marks)
    _write_plan_table(folder / PLAN_VIDEOS, _videos(world, names))
    if not clip_frames:
        return
    shards = _shard_rows(world, names)
    _write(folder / PATHS["clips"], "clips", CLIPS, _clips(world, shards, clip_frames), marks)
    _write(folder / PATHS["shards"], "shards", SHARDS, iter([_shard_batch(folder, shards, world, clip_frames)]), marks)
    _records(folder, params, shards, rule, _sample_bytes(clip_frames))


def _write(path: Path, table: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch], marks: dict[str, str]) -> None:
    own = {"lps.schema_id": SCHEMA_ID, "lps.schema_version": SCHEMA_VERSION, "lps.table": table}
    schema = schema.with_metadata({**own, "lps.rows_sha256": "0" * 64, **marks})
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as sink:
        for batch in batches:
            sink.write_batch(batch.replace_schema_metadata(schema.metadata), row_group_size=65_536)


def _write_plan_table(path: Path, videos: Iterator[pa.RecordBatch]) -> None:
    """Write what the plan says of the videos: the same, ids and digests in hex."""
    schema = pa.schema([(name, pa.string()) for name in PLANNED_VIDEOS.names])
    for name in ("label", "bytes", "n_frames_promised"):
        schema = schema.set(schema.get_field_index(name), pa.field(name, pa.int64()))
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as sink:
        for batch in videos:
            hexed = {name: hex_texts(fixed_bytes(batch[name])) for name in ("video_id", "sha256")}
            same = {name: batch[name] for name in ("uri", "dataset", "label", "method", "bytes", "split")}
            known = {**same, **hexed, "n_frames_promised": batch["n_frames_decoded"]}
            columns = [known.get(field.name, pa.nulls(len(batch))).cast(field.type) for field in schema]
            sink.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema), row_group_size=65_536)


def _videos(world: World, splits: Ints | None) -> Iterator[pa.RecordBatch]:
    rng = np.random.default_rng((1, world.seed))
    for start in range(0, len(world.ids), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        label, ids = world.label[rows], world.ids[rows]
        n, fake, kept = len(label), world.label[rows] == 1, world.has_clip[rows]
        family = np.where(fake, world.original[rows], np.arange(start, start + n))
        height = np.array([480, 720, 1080])[family % 3]
        n_frames = world.n_frames[rows]
        known: dict[str, Any] = {
            "video_id": _binary(ids),
            "uri": world.uris[rows],
            "dataset": world.dataset,
            "root": "source",
            "bytes": rng.integers(1_000_000, 9_000_000, n),
            "sha256": _binary(rng.integers(0, 256, (n, 32), dtype=np.uint8)),
            "label": label.astype(np.int8),
            "label_source": "metadata",
            "method": pa.array(np.full(n, "dfdc", dtype=object), pa.string(), mask=~fake),
            "source_part": _of([f"dfdc_train_part_{i}" for i in range(50)], family % 50),
            "original_video_id": _binary(world.ids[np.maximum(world.original[rows], 0)], mask=~fake),
            "source_keys": _lists(pa.array([f"{world.dataset}/src/{i:09d}" for i in family.tolist()]), 1),
            "identity_confidence": "none",
            "split": None if splits is None else _of(SPLITS, splits[rows]),
            "container": "mov",
            "codec": "h264",
            "pix_fmt": "yuv420p",
            "width": height * 16 // 9,
            "height": height,
            "rotation": np.zeros(n, np.int16),
            "fps_num": np.full(n, 30),
            "fps_den": np.ones(n, np.int32),
            "is_vfr": np.zeros(n, np.bool_),
            "pts_nominal": np.zeros(n, np.bool_),
            "time_base_num": np.ones(n, np.int32),
            "time_base_den": np.full(n, 15360),
            "n_frames_container": n_frames,
            "n_frames_decoded": n_frames,
            "duration_s": n_frames / 30,
            "bitrate_bps": rng.integers(1_000_000, 5_000_000, n),
            "has_audio": np.ones(n, np.bool_),
            "n_video_streams": np.ones(n, np.int16),
            "color_transfer": "bt709",
            "color_primaries": "bt709",
            "color_matrix": "bt709",
            "color_range": "tv",
            "field_order": "progressive",
            "status": _of(("failed", "ok"), kept.astype(np.int64)),
            "error_code": pa.array(np.full(n, "E_NO_FACE", dtype=object), pa.string(), mask=kept),
            "error_stage": pa.array(np.full(n, "detect", dtype=object), pa.string(), mask=kept),
            "n_frames_sampled": np.full(n, 20),
            "n_frames_with_face": np.where(kept, 20, 0),
            "n_tracks": kept.astype(np.int16),
            "n_clips": kept.astype(np.int32),
            "det_score_mean": rng.uniform(0.9, 1, n),
            "face_px_median": rng.normal(180, 30, n),
            "phash": _lists(_binary(rng.integers(0, 256, (3 * n, 32), dtype=np.uint8)), 3),
            "phash_quality": _lists(pa.array(np.full(3 * n, 90, np.uint8)), 3),
        }
        yield _batch(VIDEOS, known, n)


def _clips(world: World, shards: list["Shard"], n_frames: int) -> Iterator[pa.RecordBatch]:
    rng = np.random.default_rng(2)
    wide = _wide_columns(n_frames, CHUNK_ROWS)
    pending: list[tuple[Ints, str]] = []
    for shard in shards:
        pending.append((shard.rows, shard.name))
        if sum(len(rows) for rows, _ in pending) >= CHUNK_ROWS - CLIPS_PER_SHARD:
            yield _clip_batch(world, pending, wide, n_frames, rng)
            pending = []
    if pending:
        yield _clip_batch(world, pending, wide, n_frames, rng)


def _clip_batch(
    world: World, shards: list[tuple[Ints, str]], wide: dict[str, pa.Array], n_frames: int, rng: np.random.Generator
) -> pa.RecordBatch:
    rows = np.concatenate([rows for rows, _ in shards])
    names = [name for rows, name in shards for _ in range(len(rows))]
    place = np.concatenate([np.arange(len(rows)) for rows, _ in shards])
    n, nbytes = len(rows), _sample_bytes(n_frames)
    fake = world.label[rows] == 1
    ids = world.ids[rows]
    params = Params(localizer="mtcnn", clip_frames=n_frames)
    original = np.where(fake, world.original[rows], rows)
    shared = fake & world.has_clip[original]
    cut_of = world.ids[np.where(shared, original, rows)]
    seeds = np.array([start_seed(video_id, params) for video_id in map(bytes, cut_of)], np.uint64)
    start = (seeds % (world.n_frames[rows] - n_frames + 1).astype(np.uint64)).astype(np.int64)
    frames = (start[:, None] + np.arange(n_frames)).astype(np.int32)
    known: dict[str, Any] = {
        "clip_id": _binary(ids ^ 255),
        "video_id": _binary(ids),
        "dataset": "dfdc",
        "method": pa.array(np.full(n, "dfdc", dtype=object), pa.string(), mask=~fake),
        "label": world.label[rows].astype(np.int8),
        "split": [name.rsplit("-", 1)[0] for name in names],
        "track_id": np.zeros(n, np.int16),
        "n_tracks_in_video": np.ones(n, np.int16),
        "face_label_certain": np.ones(n, np.bool_),
        "shard_id": names,
        "sample_key": [f"{name}_{i:05d}" for name, i in zip(names, place.tolist(), strict=True)],
        "tar_offset": place * nbytes,
        "tar_nbytes": np.full(n, nbytes),
        "n_frames": np.full(n, n_frames, np.int16),
        "block_len": np.full(n, 5, np.int16),
        "frame_idx": _lists(pa.array(frames.ravel()), n_frames),
        "pts_ticks": _lists(pa.array(frames.ravel().astype(np.int64) * 512), n_frames),
        "pts_start_s": frames[:, 0] / 30,
        "pts_end_s": frames[:, -1] / 30,
        "max_gap_frames": np.ones(n, np.int16),
        "start_rule": "seeded",
        "start_seed": seeds,
        "align_template": template_name(OUT_PX, 0.85, 1.0),
        "interp": "linear",
        "border": "constant",
        "out_size": np.full(n, OUT_PX, np.int16),
        "image_codec": "jpg",
        "jpeg_q": np.full(n, 95, np.uint8),
        "blur_var_med": rng.lognormal(5, 0.6, n),
        "luma_mean": rng.normal(120, 20, n),
        "luma_std": rng.normal(45, 8, n),
        "box_side_med": rng.normal(180, 30, n),
        "iod_med": rng.normal(72, 12, n),
        "yaw_absmax": rng.uniform(2, 30, n),
        "jitter_px": rng.lognormal(-1, 0.4, n),
        "outside_share": np.maximum(0, rng.uniform(-0.3, 0.1, n)),
        "det_rate": rng.choice([1.0, 0.95, 0.9], n),
        "phash": _binary(rng.integers(0, 256, (n, 32), dtype=np.uint8)),
        "frames_sha256": _binary(rng.integers(0, 256, (n, 32), dtype=np.uint8)),
        "pair_id": pa.array(
            [video_id.hex() for video_id in map(bytes, world.ids[original])], mask=~world.in_family[rows]
        ),
        "pair_mode": _of(("own", "shared", "fallback"), np.where(shared, 1, np.where(fake, 2, 0))),
        "pair_fallback": pa.array(np.full(n, "P_ORIGINAL_FAILED", dtype=object), pa.string(), mask=shared | ~fake),
        "pair_face_px": pa.array(rng.uniform(0, 6, n), mask=~shared),
        "pair_background": pa.array(rng.uniform(0.95, 1, n), mask=~shared),
        **{name: column.slice(0, n) for name, column in wide.items()},
    }
    return _batch(CLIPS, known, n)


def _sample_bytes(n_frames: int) -> int:
    return 512 + n_frames * 18_432


def _wide_columns(n_frames: int, n: int) -> dict[str, pa.Array]:
    """Make the columns that hold numbers of every frame, the same for all clips: it is their volume that counts."""
    points = template(OUT_PX, 0.85) * 1.5 + 100
    matrix = align_matrix(points, (1.0, 1.0), template(OUT_PX, 0.85)).astype(np.float32).ravel()
    box = np.array([120, 90, 400, 440], np.int16) * 8
    exts = [*(f"{i:02d}.jpg" for i in range(n_frames)), "cls", "json"]
    offsets = 512 + np.arange(len(exts)) * 18_432
    kinds = CLIPS.field("members").type.value_type
    parts = [pa.array(exts), pa.array(offsets), pa.array(np.full(len(exts), 17_000))]
    parts.append(_binary(np.zeros((len(exts), 32), np.uint8)))
    members = pa.StructArray.from_arrays(parts, fields=[kinds.field(i) for i in range(kinds.num_fields)])
    every = pa.array(np.tile(np.arange(len(exts)), n))
    per_frame = {
        "box_xyxy": pa.FixedSizeListArray.from_arrays(pa.array(np.tile(box, n * n_frames)), 4),
        "box_source": pa.array(np.tile(np.arange(n_frames) % 8 > 0, n).astype(np.uint8)),
        "det_score": pa.array(np.full(n * n_frames, 250, np.uint8)),
        "lmk5": pa.FixedSizeListArray.from_arrays(
            pa.array(np.tile((points * 8).astype(np.int16).ravel(), n * n_frames)), 10
        ),
        "align_M": pa.FixedSizeListArray.from_arrays(pa.array(np.tile(matrix, n * n_frames)), 6),
    }
    columns = {name: _lists(values, n_frames) for name, values in per_frame.items()}
    return {"members": _lists(members.take(every), len(exts)), **columns}


@dataclass(frozen=True, slots=True)
class Shard:
    """The clips of one tar, by the rows of their videos."""

    name: str
    rows: Ints


def _shard_rows(world: World, codes: Ints) -> list[Shard]:
    shards = []
    for split in sorted(SPLITS):
        rows = np.flatnonzero((codes == SPLITS.index(split)) & world.has_clip)
        rows = np.random.default_rng(3).permutation(rows)
        for number, start in enumerate(range(0, len(rows), CLIPS_PER_SHARD)):
            shards.append(Shard(f"{split}-{number:06d}", rows[start : start + CLIPS_PER_SHARD]))
    return shards


def _shard_batch(folder: Path, shards: list[Shard], world: World, n_frames: int) -> pa.RecordBatch:
    rows = []
    for shard in shards:
        n, split = len(shard.rows), shard.name.rsplit("-", 1)[0]
        n_fake = int(world.label[shard.rows].sum())
        uri = f"shards/{split}/{shard.name}.tar"
        (folder / uri).parent.mkdir(parents=True, exist_ok=True)
        with (folder / uri).open("wb") as sink:
            sink.truncate(n * _sample_bytes(n_frames))
        rows.append({
            "shard_id": shard.name, "uri": uri, "split": split, "bytes": n * _sample_bytes(n_frames),
            "sha256": bytes(32), "md5": bytes(16), "n_samples": n, "n_members": n * (n_frames + 2),
            "exts": ["cls", "json"], "n_real": n - n_fake, "n_fake": n_fake, "first_key": f"{shard.name}_00000",
            "last_key": f"{shard.name}_{n - 1:05d}", "clips_rows_sha256": bytes(32), "writer_version": "0.1.0",
            "status": "sealed",
        })  # fmt: skip
    columns = {name: [row[name] for row in rows] for name in SHARDS.names}
    return _batch(SHARDS, columns, len(rows))


def _records(
    folder: Path, params: dict[str, Any], shards: list[Shard], rule: dict[str, Any], sample_bytes: int
) -> None:
    (folder / f"manifests/splits/{SPLIT_SET}.json").write_bytes(pretty_json(rule))
    versions = {**dict.fromkeys(VERSIONS, "1"), "weights/mtcnn": "0" * 64}
    digest = sha256_hex(canonical_json(params))
    plan = {
        "schema": "lps.plan",
        "schema_version": SCHEMA_VERSION,
        "dataset": "dfdc",
        "params": params,
        "params_sha256": digest,
        "shards": [],
    }
    (folder / "plan/plan.json").write_bytes(pretty_json({**plan, "versions": versions, "split": rule}))
    listing = {}
    for path in (*PATHS.values(), split_path(SPLIT_SET), f"manifests/splits/{SPLIT_SET}.json"):
        with (folder / path).open("rb") as source:
            found = hashlib.file_digest(source, "sha256").hexdigest()
        rows = pq.read_metadata(folder / path).num_rows if path.endswith(".parquet") else None
        listing[path] = {"sha256": found, "bytes": (folder / path).stat().st_size, "rows": rows}
    by_split: dict[str, list[dict[str, Any]]] = {}
    for shard in shards:
        split, size = shard.name.rsplit("-", 1)[0], len(shard.rows)
        brief = {"shard_id": shard.name, "uri": f"shards/{split}/{shard.name}.tar", "sha256": "0" * 64}
        by_split.setdefault(split, []).append({**brief, "bytes": size * sample_bytes, "n_samples": size})
    index = {"schema": "lps.dataset", "schema_version": SCHEMA_VERSION, "params_sha256": digest, "leaky": False}
    plan_sha256 = sha256_hex((folder / "plan/plan.json").read_bytes())
    index |= {"plan_sha256": plan_sha256, "split_set": SPLIT_SET, "manifests": listing, "shards": by_split}
    (folder / "index.json").write_text(json.dumps(index))


def _batch(schema: pa.Schema, known: dict[str, Any], n: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([_column(field, known.get(field.name), n) for field in schema], schema=schema)


def _column(field: pa.Field, values: Any, n: int) -> pa.Array:
    if values is None:
        values = [[]] * n if pa.types.is_list(field.type) and not field.nullable else pa.nulls(n)
    if isinstance(values, str):
        values = [values] * n
    return values.cast(field.type) if isinstance(values, pa.Array) else pa.array(values, field.type)


def _binary(data: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> pa.Array:
    packed = np.ascontiguousarray(data)
    kind = pa.binary(packed.shape[1])
    array = pa.FixedSizeBinaryArray.from_buffers(kind, len(packed), [None, pa.py_buffer(packed)])
    return array if mask is None else pa.compute.if_else(pa.array(mask), pa.scalar(None, kind), array)


def _of(names: Sequence[str], codes: Ints) -> pa.Array:
    """Spell codes by their names."""
    return pa.array(list(names), pa.string()).take(pa.array(codes, pa.int32()))


def _lists(values: pa.Array, width: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, width), pa.int32()), values)
