"""The plan: every input video with its split and shard, a pure function of sources, parameters and versions."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lps.manifests.canonical import brief_json, pretty_json, sha256_hex, unit_interval
from lps.manifests.codes import Code, Stage, Status
from lps.manifests.errors import IntegrityError, RefusedError, UnreadableError
from lps.manifests.index import INDEX_JSON, PLAN_JSON, PLAN_SPLITS, PLAN_VIDEOS, read_plan
from lps.manifests.names import SPLITS
from lps.manifests.records import Header, Outcome, SourceVideo
from lps.manifests.rows import video_row
from lps.manifests.schemas import PLANNED_VIDEOS, SCHEMA_VERSION, Row, arrow_file, parquet_bytes
from lps.manifests.splits.inputs import inputs_table, split_input
from lps.manifests.splits.records import SplitParams, SplitRow, rows_from_table
from lps.manifests.splits.table import split_table
from lps.manifests.storage import Store
from lps.pipeline.clips.encode import bytes_bound
from lps.pipeline.config.params import ALL_CLIPS, Params
from lps.pipeline.job.shards import WRITER_VERSION, ShardJob, ShardVideo
from lps.pipeline.video.probe import Probe

# CPU seconds measured by benchmarks/prep.py on 720p and 1080p clips; only the printed estimate uses them.
SECONDS_PER_FRAME = 0.004
SECONDS_PER_CLIP_FRAME = {"mtcnn": 0.018, "retinaface-mobilenet": 0.011, "retinaface-fan": 0.6}


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
class PlannedVideo:
    """One input video of the plan."""

    source: SourceVideo
    n_bytes: int | None
    sha256: str | None
    n_frames_promised: int
    header: Header
    original_video_id: bytes | None
    split: str | None
    shard_id: str | None
    """None: not processed, because `code` is known already or the split excludes it."""
    code: Code | None
    stage: Stage | None
    detail: str

    def known_row(self) -> Row:
        """Return the manifest row of a video that is not processed."""
        code = self.code or Code.S_NOT_SELECTED
        status = Status.SKIPPED if code.startswith("S_") else Status.FAILED
        outcome = Outcome(
            status=status, code=code, stage=self.stage or Stage.DISCOVER, detail=self.detail, header=self.header
        )
        return video_row(
            self.source,
            outcome,
            n_bytes=self.n_bytes,
            sha256=bytes.fromhex(self.sha256) if self.sha256 else None,
            split=self.split,
            n_clips=0,
            original_video_id=self.original_video_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a run needs. Equal plans give equal data sets."""

    spec: PlanSpec
    videos: tuple[PlannedVideo, ...]
    """Sorted by video id."""
    split_rows: tuple[SplitRow, ...]
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

    def shard_jobs(self) -> list[ShardJob]:
        """Return the shards in the order in which they are worked on."""
        by_shard: dict[str, list[PlannedVideo]] = {}
        for video in sorted(self.videos, key=lambda v: _order(v, self.spec.params.seed)):
            if video.shard_id is not None:
                by_shard.setdefault(video.shard_id, []).append(video)
        return [self._job(shard_id, videos) for shard_id, videos in sorted(by_shard.items(), key=_train_first)]

    def estimate(self) -> list[str]:
        """Return what processing will take, as lines for people."""
        chosen = [v for v in self.videos if v.shard_id is not None]
        params = self.spec.params
        frames = sum(v.n_frames_promised for v in chosen)
        clips = sum(clips_bound(v, params) for v in chosen)
        hours = frames * SECONDS_PER_FRAME + clips * params.clip_frames * SECONDS_PER_CLIP_FRAME[params.localizer]
        read = sum(v.n_bytes or 0 for v in chosen)
        return [
            f"reads {read / 1e9:.2f} GB of {len(chosen)} videos, {frames} frames to decode",
            f"writes at most {clips * bytes_bound(params) / 1e9:.2f} GB: {clips} clips in "
            f"{len({v.shard_id for v in chosen})} shards",
            f"takes about {hours / 3600:.2f} core hours with {params.localizer} on CPUs "
            "(rates of docs/benchmarks.md; a GPU takes over most of it)",
        ]

    def _job(self, shard_id: str, videos: Sequence[PlannedVideo]) -> ShardJob:
        split = videos[0].split
        assert split is not None  # a video without a split gets no shard
        return ShardJob(
            shard_id=shard_id,
            split=split,
            plan_sha256=self.sha256,
            videos=tuple(
                ShardVideo(
                    source=v.source,
                    n_bytes=v.n_bytes or 0,
                    sha256=bytes.fromhex(v.sha256 or ""),
                    original_video_id=v.original_video_id,
                )
                for v in videos
            ),
        )


def _train_first(item: tuple[str, Any]) -> tuple[int, str]:
    split = item[0].rsplit("-", 1)[0]
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), item[0])


def _order(video: PlannedVideo, seed: int) -> float:
    return unit_interval("order", str(seed), video.source.video_id.hex())


def build_plan(spec: PlanSpec, sources: Sequence[SourceVideo], probes: Mapping[str, Probe]) -> Plan:
    """Assign every source its split and shard. `probes` holds one probe per uri that was worth opening.

    Raises RefusedError where the split rule cannot be followed.
    """
    by_uri = {(s.dataset, s.uri): s for s in sources}
    originals = {s.video_id: _original_id(s, by_uri) for s in sources}
    inputs = [
        split_input(
            s,
            sha256=bytes.fromhex(probes[s.uri].sha256) if s.uri in probes and probes[s.uri].sha256 else None,
            original_video_id=originals[s.video_id],
        )
        for s in sources
        if s.code is None or not s.code.startswith("S_")
    ]
    splits, rule = split_table(inputs_table(inputs), spec.split)
    split_rows = rows_from_table(splits)
    by_id = {row.video_id: row for row in split_rows}
    videos = [_planned(s, probes.get(s.uri), by_id.get(s.video_id), originals[s.video_id]) for s in sources]
    videos = _packed(sorted(videos, key=lambda v: v.source.video_id), spec)
    marks = {"lps.params_sha256": spec.params.sha256()}
    videos_bytes = _plan_table(videos)
    splits_bytes = parquet_bytes("splits", splits, marks)
    record = plan_record(spec, videos, rule, videos_bytes, splits_bytes)
    return Plan(
        spec=spec,
        videos=tuple(videos),
        split_rows=tuple(split_rows),
        json_bytes=pretty_json(record),
        videos_bytes=videos_bytes,
        splits_bytes=splits_bytes,
    )


def _original_id(source: SourceVideo, by_uri: Mapping[tuple[str, str], SourceVideo]) -> bytes | None:
    if source.original_uri is None:
        return None
    original = by_uri.get((source.dataset, source.original_uri))
    return original.video_id if original else None


def _planned(source: SourceVideo, probe: Probe | None, row: SplitRow | None, original: bytes | None) -> PlannedVideo:
    split = row.split if row and not row.excluded else None
    code, stage, detail = source.code, Stage.DISCOVER if source.code else None, source.detail
    if code is None and probe is not None and probe.code is not None:
        code, stage, detail = probe.code, probe.stage, probe.detail
    if code is None and split is None:
        code, stage, detail = (
            Code.S_NOT_SELECTED,
            Stage.DISCOVER,
            f"excluded from the split: {row.exclude_reason if row else ''}",
        )
    return PlannedVideo(
        source=source,
        n_bytes=probe.n_bytes if probe else None,
        sha256=probe.sha256 or None if probe else None,
        n_frames_promised=probe.n_frames_promised if probe else 0,
        header=probe.header if probe else Header(),
        original_video_id=original,
        split=split,
        shard_id=None,
        code=code,
        stage=stage,
        detail=detail,
    )


def clips_bound(video: PlannedVideo, params: Params) -> int:
    """Return the most clips that a video can give, by its container's promise."""
    fits = max(1, video.n_frames_promised // params.clip_frames)
    clips = fits if params.clips == ALL_CLIPS else min(params.clips, fits)
    return clips * (4 if params.localize.faces == "all" else 1)  # more faces than four per run are rare


def _packed(videos: Sequence[PlannedVideo], spec: PlanSpec) -> list[PlannedVideo]:
    """Give every processable video its shard: in seeded order, filled up to the byte target by an upper bound."""
    shard_of: dict[bytes, str] = {}
    clip_bytes = bytes_bound(spec.params)
    for split in sorted({v.split for v in videos if v.split and v.code is None}):
        members = [v for v in videos if v.split == split and v.code is None]
        number, filled = 0, 0
        for video in sorted(members, key=lambda v: _order(v, spec.params.seed)):
            bound = clips_bound(video, spec.params) * clip_bytes
            if filled and filled + bound > spec.shard_bytes:
                number, filled = number + 1, 0
            filled += bound
            shard_of[video.source.video_id] = f"{split}-{number:06d}"
    return [replace(v, shard_id=shard_of.get(v.source.video_id)) for v in videos]


def plan_record(
    spec: PlanSpec, videos: Sequence[PlannedVideo], rule: Row, videos_bytes: bytes, splits_bytes: bytes
) -> Row:
    """Return the content of plan.json."""
    shards: dict[str, int] = {}
    for video in videos:
        if video.shard_id:
            shards[video.shard_id] = shards.get(video.shard_id, 0) + 1
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
        "n_videos": len(videos),
        "shards": [{"shard_id": name, "n_videos": n} for name, n in sorted(shards.items())],
        "videos_sha256": sha256_hex(videos_bytes),
        "splits_sha256": sha256_hex(splits_bytes),
    }


def _plan_table(videos: Sequence[PlannedVideo]) -> bytes:
    rows = [
        {
            "video_id": v.source.video_id.hex(),
            "uri": v.source.uri,
            "dataset": v.source.dataset,
            "label": v.source.label,
            "method": v.source.method,
            "bytes": v.n_bytes,
            "sha256": v.sha256,
            "n_frames_promised": v.n_frames_promised,
            "split": v.split,
            "shard_id": v.shard_id,
            "code": str(v.code) if v.code else None,
            "detail": v.detail or None,
        }
        for v in videos
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=PLANNED_VIDEOS), sink, compression="zstd")
    return sink.getvalue()


def plan_rows(data: bytes) -> list[Row]:
    """Read plan/videos.parquet back as plain rows."""
    return list(pq.read_table(arrow_file(data)).to_pylist())


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
        raise RefusedError(_differences(old.values if old else {}, json.loads(plan.json_bytes), plan, out))
    if sha256_hex(out.read(PLAN_VIDEOS)) != sha256_hex(plan.videos_bytes):
        raise IntegrityError(
            f"{out.join(PLAN_VIDEOS)} is not the table its plan.json names; restore it or start a new output"
        )
    return True


def _differences(old: Row, new: Row, plan: Plan, out: Store) -> str:
    """Say in one line what changed since the output's plan was made."""
    ignored = {"videos_sha256", "splits_sha256", "shards", "params_sha256", "n_videos"}
    asked = ("split.rule", "split.ratios", "split.seed", "split.tries", "split.giant.policy", "split.aliases")
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
