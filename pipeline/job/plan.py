"""The plan: every input video with its split and shard, a pure function of sources, parameters and versions."""

import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lps.manifests.arrays import Ints
from lps.manifests.canonical import brief_json, pretty_json, sha256_hex, unit_interval
from lps.manifests.codes import Code, Stage, Status
from lps.manifests.errors import IntegrityError, RefusedError, UnreadableError
from lps.manifests.index import INDEX_JSON, PLAN_JSON, PLAN_SPLITS, PLAN_VIDEOS, read_plan
from lps.manifests.names import SPLITS
from lps.manifests.records import Header, Outcome, SourceVideo
from lps.manifests.rows import video_row
from lps.manifests.schemas import PLANNED_VIDEOS, SCHEMA_VERSION, Row, arrow_file, parquet_bytes
from lps.manifests.splits.inputs import source_inputs
from lps.manifests.splits.records import SplitParams
from lps.manifests.splits.table import split_table
from lps.manifests.storage import Store
from lps.pipeline.clips.effort import COLUMNS as COLUMNS_OF_EFFORT
from lps.pipeline.clips.effort import Effort, bytes_bound, effort
from lps.pipeline.config.params import ALL_CLIPS, WITHOUT_MARGIN, WRITER_VERSION, Params
from lps.pipeline.job.shards import ShardJob, ShardVideo
from lps.pipeline.video.kept_probes import Probes, probes_in
from lps.pipeline.video.probe import Probe

PLANNED_OF_PROBES = ("n_bytes", "sha256", "n_frames_promised", "code", "detail")
BATCH_ROWS = 1024
"""Rows of videos that are not processed, made at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSpec:
    """What was asked for: all that the plan depends on besides the source files."""

    dataset: str
    params: Params
    split: SplitParams
    split_set: str
    shard_bytes: int
    versions: Mapping[str, str]
    """Versions of code, libraries and weights: others may give other bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a run needs. Equal plans give equal data sets.

    What it knows of each video is a row of a table: there may be a hundred thousand.
    """

    spec: PlanSpec
    sources: tuple[SourceVideo, ...]
    """Sorted by video id."""
    rows: pa.Table
    """What plan/videos.parquet holds, a row for each source; a video without a shard is not processed."""
    original_ids: pa.Array
    """Id of the original of each source; null where it has none."""
    known: pa.Table
    """Probes, as columns of `kept_probes.SCHEMA`, of the sources that are not processed; null where there is none."""
    effort: Effort
    """What all videos that are processed will take."""
    json_bytes: bytes
    videos_bytes: bytes
    splits_bytes: bytes

    @property
    def sha256(self) -> str:
        """Digest that every commit record carries."""
        return sha256_hex(self.json_bytes)

    @property
    def untied_fakes(self) -> int:
        """Number of fakes that nothing ties to a real video."""
        return int(json.loads(self.json_bytes)["split"]["untied_fakes"])

    def with_versions(self, versions: Mapping[str, str]) -> "Plan":
        """Return the same plan as other versions would have made it."""
        record = json.loads(self.json_bytes) | {"versions": dict(sorted(versions.items()))}
        return replace(self, spec=replace(self.spec, versions=versions), json_bytes=pretty_json(record))

    def shard_sizes(self) -> dict[str, int]:
        """Return the number of videos of each shard, sorted by shard."""
        return dict(sorted(Counter(self.rows["shard_id"].drop_null().to_pylist()).items()))

    def frames_promised(self) -> dict[bytes, int]:
        """Return the number of frames that the container of each video that is processed promises, by video id."""
        places = _places(self.rows["shard_id"].is_valid())
        frames = self.rows["n_frames_promised"].take(pa.array(places)).to_pylist()
        return {self.sources[k].video_id: n for k, n in zip(places.tolist(), frames, strict=True)}

    def shard_jobs(self, shard_ids: Collection[str] | None = None) -> list[ShardJob]:
        """Return the shards, or some of them, in the order in which they are worked on."""
        by_shard: dict[str, list[int]] = {}
        for place, shard_id in enumerate(self.rows["shard_id"].to_pylist()):
            if shard_id is not None and (shard_ids is None or shard_id in shard_ids):
                by_shard.setdefault(shard_id, []).append(place)
        families = family_ids([source.video_id for source in self.sources], self.original_ids)
        return [
            self._job(shard_id, places, families) for shard_id, places in sorted(by_shard.items(), key=_train_first)
        ]

    def _job(self, shard_id: str, places: list[int], pair_ids: pa.Array) -> ShardJob:
        columns = {name: self.rows[name].take(pa.array(places)).to_pylist() for name in ("split", "bytes", "sha256")}
        originals = self.original_ids.take(pa.array(places)).to_pylist()
        families = pair_ids.take(pa.array(places)).to_pylist()
        videos = [
            ShardVideo(
                source=self.sources[place],
                n_bytes=n_bytes or 0,
                sha256=bytes.fromhex(sha256 or ""),
                original_video_id=original,
                pair_id=family,
            )
            for place, n_bytes, sha256, original, family in zip(
                places, columns["bytes"], columns["sha256"], originals, families, strict=True
            )
        ]
        seed = self.spec.params.seed
        videos.sort(key=lambda video: _order(video.source.video_id, seed))
        return ShardJob(shard_id=shard_id, split=columns["split"][0], plan_sha256=self.sha256, videos=tuple(videos))

    def known_rows(self) -> Iterator[Row]:
        """Yield the manifest rows of the videos that are not processed."""
        left = _places(self.rows["shard_id"].is_null())
        for start in range(0, len(left), BATCH_ROWS):
            places = left[start : start + BATCH_ROWS]
            rows = self.rows.take(pa.array(places)).to_pylist()
            originals = self.original_ids.take(pa.array(places)).to_pylist()
            probes = probes_in(self.known.slice(start, len(places)))
            for place, row, probe, original in zip(places.tolist(), rows, probes, originals, strict=True):
                yield _known_row(self.sources[place], row, probe, original)

    def estimate(self) -> list[str]:
        """Return what processing will take, as lines for people."""
        chosen = self.rows.filter(self.rows["shard_id"].is_valid())
        params = self.spec.params
        frames = int(pc.sum(chosen["n_frames_promised"]).as_py() or 0)
        clips = int(clips_bound(chosen["n_frames_promised"], params).sum())
        read, seconds = pc.sum(chosen["bytes"]).as_py() or 0, self.effort.core_seconds
        work = f"{seconds / 3600:.2f} core hours" if seconds >= 360 else f"{seconds:.0f} core seconds"
        return [
            f"reads {read / 1e9:.2f} GB of {chosen.num_rows} videos, "
            f"{self.effort.n_frames} of {frames} frames to decode",
            f"writes at most {clips * bytes_bound(params) / 1e9:.2f} GB: {clips} clips in "
            f"{pc.count_distinct(chosen['shard_id']).as_py()} shards",
            f"takes about {work} with {params.localizer} on CPUs "
            "(rates of docs/benchmarks.md; a GPU takes over most of it)",
        ]


def _places(marked: pa.ChunkedArray) -> Ints:
    return np.flatnonzero(marked.to_numpy())


def _known_row(source: SourceVideo, row: Row, probe: Probe | None, original: bytes | None) -> Row:
    code = Code(row["code"] or Code.S_NOT_SELECTED)
    of_probe = source.code is None and probe is not None and probe.code is not None
    outcome = Outcome(
        status=Status.SKIPPED if code.startswith("S_") else Status.FAILED,
        code=code,
        stage=(probe.stage if probe and of_probe else None) or Stage.DISCOVER,
        detail=row["detail"] or "",
        header=probe.header if probe else Header(),
    )
    return video_row(
        source,
        outcome,
        n_bytes=row["bytes"],
        sha256=bytes.fromhex(row["sha256"]) if row["sha256"] else None,
        split=row["split"],
        n_clips=0,
        original_video_id=original,
    )


def _train_first(item: tuple[str, Any]) -> tuple[int, str]:
    split = item[0].rsplit("-", 1)[0]
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), item[0])


def _order(video_id: bytes, seed: int) -> float:
    return unit_interval("order", str(seed), video_id.hex())


def build_plan(spec: PlanSpec, sources: Sequence[SourceVideo], probes: Probes) -> Plan:
    """Assign every source its split and shard. `probes` holds one probe per uri that was worth opening.

    Raises RefusedError where the split rule cannot be followed.
    """
    pairs = sorted(((source.video_id, source) for source in sources), key=lambda pair: pair[0])
    ids, sources = [video_id for video_id, _ in pairs], tuple(source for _, source in pairs)
    del pairs
    originals = pa.array(_original_ids(ids, sources), pa.binary(16))
    uris = pa.array([source.uri for source in sources], pa.string())
    found = probes.aligned(uris, PLANNED_OF_PROBES)
    release_memory = pa.default_memory_pool().release_unused  # what is freed between steps is a third of the peak
    splits, rule = _splits(spec, ids, sources, found["sha256"], originals)
    release_memory()
    marks = {"lps.params_sha256": spec.params.sha256()}
    splits_bytes = parquet_bytes("splits", splits, marks)
    release_memory()
    rows = _packed(_rows(ids, sources, found, splits), ids, originals, spec)
    del splits, found
    release_memory()
    left = rows["shard_id"].is_null()
    known = probes.aligned(uris.filter(left.combine_chunks()))
    taken = probes.aligned(uris.filter(pc.invert(left).combine_chunks()), COLUMNS_OF_EFFORT)
    n_clips = clips_bound(taken["n_frames_promised"], spec.params)
    work = effort(taken, n_clips, spec.params, _shares(rows, ids, originals, spec.params))
    del taken, n_clips
    videos_bytes = _plan_table(rows)
    record = plan_record(spec, rows, rule, videos_bytes, splits_bytes)
    return Plan(
        spec=spec,
        sources=sources,
        rows=rows,
        original_ids=originals,
        known=known,
        effort=work,
        json_bytes=pretty_json(record),
        videos_bytes=videos_bytes,
        splits_bytes=splits_bytes,
    )


def _original_ids(ids: Sequence[bytes], sources: Sequence[SourceVideo]) -> Iterator[bytes | None]:
    """Yield the id of each fake's original: of its own data set, else of the only one that has a video there."""
    named = {source.original_uri for source in sources if source.original_uri is not None}
    by_uri: dict[str | None, dict[str, bytes]] = {}
    for video_id, source in zip(ids, sources, strict=True):
        if source.uri in named:
            by_uri.setdefault(source.uri, {})[source.dataset] = video_id
    for source in sources:
        found = by_uri.get(source.original_uri, {})
        yield found.get(source.dataset) or (next(iter(found.values())) if len(found) == 1 else None)


def family_ids(ids: Sequence[bytes], originals: pa.Array) -> pa.Array:
    """Return the id of the original of each video's family, an original's own included; null without a family."""
    own = pa.array(ids, pa.binary(16))
    return pc.coalesce(originals, pc.if_else(pc.is_in(own, value_set=originals.drop_null()), own, None))


def _splits(
    spec: PlanSpec, ids: Sequence[bytes], sources: Sequence[SourceVideo], sha256: pa.ChunkedArray, originals: pa.Array
) -> tuple[pa.Table, Row]:
    """Split all that is not skipped."""
    places = [k for k, source in enumerate(sources) if source.code is None or not source.code.startswith("S_")]
    taken = pa.array(places, pa.int64())
    inputs = source_inputs(
        [sources[k] for k in places], [ids[k] for k in places], sha256.take(taken), originals.take(taken)
    )
    return split_table(inputs, spec.split)


def _rows(ids: Sequence[bytes], sources: Sequence[SourceVideo], found: pa.Table, splits: pa.Table) -> pa.Table:
    """Return the rows of the plan, without shards."""
    ids_of_splits = splits["video_id"].combine_chunks()
    placed = splits.select(["split", "excluded", "exclude_reason"]).take(
        pc.index_in(pa.array(ids, pa.binary(16)), value_set=ids_of_splits)
    )
    split = pc.if_else(pc.invert(placed["excluded"]), placed["split"], None)
    codes = pa.array([source.code for source in sources], pa.string())
    reason = pc.binary_join_element_wise("excluded from the split: ", pc.fill_null(placed["exclude_reason"], ""), "")
    is_out = pc.is_null(split)
    code = pc.coalesce(codes, found["code"], pc.if_else(is_out, str(Code.S_NOT_SELECTED), None))
    said = pa.array([source.detail for source in sources], pa.string())
    detail = pc.case_when(
        pc.make_struct(pc.is_valid(codes), pc.is_valid(found["code"]), is_out), said, found["detail"], reason, said
    )
    columns = {
        "video_id": _hex(ids),
        "uri": [source.uri for source in sources],
        "dataset": [source.dataset for source in sources],
        "label": [source.label for source in sources],
        "method": [source.method for source in sources],
        "bytes": found["n_bytes"],
        "sha256": _hex(digest for chunk in _slices(found["sha256"]) for digest in chunk.to_pylist()),
        "n_frames_promised": pc.fill_null(found["n_frames_promised"], 0),
        "split": split,
        "shard_id": pa.nulls(len(ids), pa.string()),
        "code": code,
        "detail": pc.if_else(pc.equal(detail, ""), None, detail),
    }
    return pa.table(columns, schema=PLANNED_VIDEOS).combine_chunks()


def _slices(column: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    return (column.slice(start, BATCH_ROWS) for start in range(0, len(column), BATCH_ROWS))


def _hex(digests: Iterable[bytes | None]) -> pa.ChunkedArray:
    """Return digests as text, a part of them at a time."""
    left = iter(digests)
    parts = iter(lambda: [digest.hex() if digest else None for digest in islice(left, BATCH_ROWS)], [])
    return pa.chunked_array([pa.array(part, pa.string()) for part in parts], pa.string())


def clips_bound(n_frames: pa.ChunkedArray, params: Params) -> Ints:
    """Return the most clips that each video can give, by the frames that its container promises."""
    fits = np.maximum(1, np.asarray(n_frames, np.int64) // params.clip_frames)
    clips = fits if params.clips == ALL_CLIPS else np.minimum(params.clips, fits)
    return np.asarray(clips * (4 if params.localize.faces == "all" else 1))  # more faces than four per run are rare


def _packed(rows: pa.Table, ids: Sequence[bytes], originals: pa.Array, spec: PlanSpec) -> pa.Table:
    """Give every processable video its shard: in seeded order, filled up to the byte target by an upper bound.

    Where fakes share the windows of their originals, a family comes into one shard.
    """
    shards: list[str | None] = [None] * len(ids)
    bounds = (clips_bound(rows["n_frames_promised"], spec.params) * bytes_bound(spec.params)).tolist()
    families = family_ids(ids, originals).to_pylist() if spec.params.pair.mode == "original" else ids
    members: dict[str, dict[bytes, list[int]]] = {}
    for place, (split, code) in enumerate(zip(rows["split"].to_pylist(), rows["code"].to_pylist(), strict=True)):
        if split is not None and code is None:
            members.setdefault(split, {}).setdefault(families[place] or ids[place], []).append(place)
    for split, by_family in members.items():
        number, filled, shard_id = 0, 0, f"{split}-000000"
        for family in sorted(by_family, key=lambda family: _order(family, spec.params.seed)):
            n_bytes = sum(bounds[place] for place in by_family[family])
            if filled and filled + n_bytes > spec.shard_bytes:
                number, filled = number + 1, 0
                shard_id = f"{split}-{number:06d}"
            filled += n_bytes
            for place in by_family[family]:
                shards[place] = shard_id
    return rows.set_column(rows.schema.get_field_index("shard_id"), "shard_id", pa.array(shards, pa.string()))


def _shares(rows: pa.Table, ids: Sequence[bytes], originals: pa.Array, params: Params) -> NDArray[np.bool_] | None:
    """Return which of the videos that are processed are fakes with their original in the same shard."""
    if params.pair.mode != "original":
        return None
    own = pa.array(ids, pa.binary(16))
    shard = rows["shard_id"].combine_chunks()
    its_shard = shard.take(pc.index_in(originals, value_set=own))
    is_fake = pc.and_(pc.equal(shard, its_shard), pc.not_equal(originals, own))
    return np.asarray(pc.fill_null(is_fake, False).filter(shard.is_valid()))  # noqa: FBT003  as pyarrow has it


def plan_record(spec: PlanSpec, rows: pa.Table, rule: Row, videos_bytes: bytes, splits_bytes: bytes) -> Row:
    """Return the content of plan.json."""
    shards = Counter(rows["shard_id"].drop_null().to_pylist())
    return {
        "schema": "lps.plan",
        "schema_version": SCHEMA_VERSION,
        "writer_version": WRITER_VERSION,
        "dataset": spec.dataset,
        "params": spec.params.record(),
        "params_sha256": spec.params.sha256(),
        "split": rule,
        "split_set": spec.split_set,
        "shard_bytes": spec.shard_bytes,
        "versions": dict(sorted(spec.versions.items())),
        "n_videos": rows.num_rows,
        "shards": [{"shard_id": name, "n_videos": n} for name, n in sorted(shards.items())],
        "videos_sha256": sha256_hex(videos_bytes),
        "splits_sha256": sha256_hex(splits_bytes),
    }


def _plan_table(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    return sink.getvalue()


def plan_table(data: bytes) -> pa.Table:
    """Read plan/videos.parquet back."""
    return pq.read_table(arrow_file(data))


def plan_rows(data: bytes) -> list[Row]:
    """Read plan/videos.parquet back as plain rows."""
    return list(plan_table(data).to_pylist())


def refuse_other_writer(out: Store) -> None:
    """Raise RefusedError where the output was begun by a version that gives other clips or rows for the same source."""
    try:
        plan = read_plan(out)
    except UnreadableError:
        return  # `publish_plan` names the damage
    found = str(plan.values.get("writer_version", "1")) if plan else WRITER_VERSION  # the first one did not say
    if found != WRITER_VERSION:
        raise RefusedError(
            f"{out.url} was made by writer version {found}, this is version {WRITER_VERSION}: the two cannot mix in "
            "one data set. It can still be read, audited and trained on; to prepare the videos, use a new output folder"
        )


def publish_plan(plan: Plan, out: Store) -> bool:
    """Write the plan, or check that it is the one already there. Return True if it was there (a resumed run).

    Raises RefusedError that names the first differences when the output belongs to another plan.
    """
    if not out.exists(PLAN_JSON):
        if out.exists(INDEX_JSON):
            raise RefusedError(f"{out.url} holds an index but no plan; choose an empty output")
        out.publish(PLAN_VIDEOS, plan.videos_bytes)
        out.publish(PLAN_SPLITS, plan.splits_bytes)
        out.publish(PLAN_JSON, plan.json_bytes)
        return False
    found = out.read(PLAN_JSON)
    if found != plan.json_bytes:
        try:
            old = read_plan(out)
        except UnreadableError as e:
            raise IntegrityError(f"{e}; restore it or start a new output") from e
        raise RefusedError(_differences(dict(old.values) if old else {}, json.loads(plan.json_bytes), plan, out))
    if sha256_hex(out.read(PLAN_VIDEOS)) != sha256_hex(plan.videos_bytes):
        raise IntegrityError(
            f"{out.join(PLAN_VIDEOS)} is not the table its plan.json names; restore it or start a new output"
        )
    return True


def _differences(old: Row, new: Row, plan: Plan, out: Store) -> str:
    """Say in one line what changed since the output's plan was made."""
    ignored = {"videos_sha256", "splits_sha256", "shards", "params_sha256", "n_videos"}
    names = ("rule", "lists", "ratios", "seed", "tries", "giant.policy", "aliases")
    asked = tuple(f"split.{name}" for name in names)
    old["params"], new["params"] = ({**WITHOUT_MARGIN, **(each.get("params") or {})} for each in (old, new))
    changed = [
        c
        for c in _changed(old, new)
        # the rest of the split's record follows from these and from the sources
        if c.split(" ")[0] not in ignored and (not c.startswith("split.") or c.startswith(asked))
    ]
    if old.get("videos_sha256") != new["videos_sha256"]:
        changed += _changed_sources(plan_rows(out.read(PLAN_VIDEOS)), plan_rows(plan.videos_bytes))
    shown = "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
    return f"{out.url} was planned differently: {shown or 'the plan differs'}. Restore that, or use a new output folder"


def _changed(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted(set(old) | set(new))
            for line in _changed(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
        ]
    return [] if old == new else [f"{prefix} was {brief_json(old, 60)}, now {brief_json(new, 60)}"]


def _changed_sources(old: Sequence[Row], new: Sequence[Row]) -> list[str]:
    before, after = {row["uri"]: row for row in old}, {row["uri"]: row for row in new}
    lines = [f"source added: {uri}" for uri in sorted(set(after) - set(before))]
    lines += [f"source removed: {uri}" for uri in sorted(set(before) - set(after))]
    for uri in sorted(set(before) & set(after)):
        if before[uri]["sha256"] != after[uri]["sha256"]:
            lines.append(f"source changed: {uri} ({before[uri]['bytes']} bytes, now {after[uri]['bytes']})")
    return lines
