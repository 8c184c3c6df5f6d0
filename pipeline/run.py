"""The main job: sources to plan to shards to manifests. Reads top-down; policy is in engine, work is in tasks."""

import contextlib
import json
import platform
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lps.manifests.canonical import canonical_json, pretty_json
from lps.manifests.codes import Stage, Status
from lps.manifests.errors import LpsError, RefusedError, UnreadableError
from lps.manifests.records import Outcome, SourceVideo, VideoResult
from lps.manifests.schemas import Row
from lps.manifests.splits import SplitParams
from lps.manifests.storage import Store, StoredFile, open_store
from lps.pipeline.cluster import Cluster, load_workers, ray_cluster, start_detectors, start_ledger
from lps.pipeline.engine import Done, Job, LostInputs, Pool, Quarantined
from lps.pipeline.finalize import INDEX_JSON, Summary, committed_shards, finalize
from lps.pipeline.localizers import LocalizerSpec, weight_digests
from lps.pipeline.params import Params
from lps.pipeline.plan import Plan, PlanSpec, build_plan, publish_plan
from lps.pipeline.probe import Probe, probe_from_record
from lps.pipeline.shards import ShardJob, ShardVideo
from lps.pipeline.tasks import ProcessFunction, process_source, run_commit, run_probe, run_process

PROBE_CACHE = "runs/cache/probes.json"
MIB = 1 << 20
COMMIT_SECONDS = 3600.0
"""Deadline of writing one shard."""

OnEvent = Callable[[str, dict[str, Any]], None]
"""`on_event(kind, facts)`: `start`, `sources`, `note`, `probed`, `planned`, `ready`, `video`, `shard`, `retry`,
`charge`, `quarantine`, `finalize`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What data set to make."""

    source: str
    """Folder, table file or URL."""
    out: str
    dataset: str
    params: Params
    split: SplitParams
    shard_mb: int = 256
    splits_dir: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How to make it: nothing here changes a byte of the result."""

    workers: int | None = None
    detectors: int | None = None
    address: str | None = None
    weights_dir: Path | None = None
    scratch: str | None = None
    memory_mb: int = 4096
    """Memory that processing one video may add to its worker."""
    deadline_seconds: float = 120.0
    deadline_seconds_per_frame: float = 0.5
    """Added per frame of the video; about twenty times what a busy core needs."""
    process: ProcessFunction = process_source
    """What a worker does with a video; tests replace it."""


@dataclass(slots=True)
class Log:
    """Events of one run: told to the caller at once, and kept below runs/ in segments."""

    out: Store
    run_id: str
    on_event: OnEvent
    pending: list[bytes]
    n_segments: int = 0

    def __call__(self, kind: str, facts: dict[str, Any]) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.pending.append(canonical_json({"at": stamp, "kind": kind, **facts}))
        self.on_event(kind, facts)

    def flush(self) -> None:
        """Publish what has gathered since the last flush."""
        if self.pending:
            self.n_segments += 1
            data = b"\n".join(self.pending) + b"\n"
            self.out.publish(f"runs/{self.run_id}/events-{self.n_segments:06d}.jsonl", data)
            self.pending.clear()


def run_job(request: Request, options: RunOptions, on_event: OnEvent) -> Summary:
    """Make the data set, or finish one that was begun. Returns its summary.

    Raises RefusedError (parameters or sources changed), UnreadableError (source, output, weights or cluster),
    IntegrityError (a shard came out with other bytes than before).
    """
    with _started(request, options, on_event) as (out, cluster, ledger, log):
        plan = _make_plan(request, options, cluster, ledger, log)
        out.sweep()
        done = committed_shards(out)
        jobs = [job for job in plan.shard_jobs() if job.shard_id not in done]
        total = sum(len(job.videos) for job in plan.shard_jobs())
        n_left = sum(len(job.videos) for job in jobs)
        log("planned", {"n_videos": total, "n_left": n_left, "n_shards": len(jobs)})
        log.flush()
        if not jobs and out.exists(INDEX_JSON):
            return finalize(plan, out)
        # An index promises that everything is there; until then there is none.
        out.delete(INDEX_JSON)
        if jobs:
            detectors = start_detectors(cluster, request.params.localizer, options.weights_dir, options.detectors)
            if isinstance(detectors[0], LocalizerSpec):
                load_workers(detectors[0], min(cluster.n_workers, n_left))
            log("ready", {"n_detectors": len(detectors)})
            work = _Work(plan, jobs, request, options, detectors, ledger, log)
            work.run(Pool(width=cluster.n_workers, ledger=ledger, on_event=log))
        summary = finalize(plan, out)
        log("finalize", {"n_videos": summary.n_videos, "n_ok": summary.n_ok})
        return summary


def plan_job(request: Request, options: RunOptions, on_event: OnEvent) -> Plan:
    """Make and publish the plan, and process nothing. Raises as `run_job` does."""
    with _started(request, options, on_event) as (_, cluster, ledger, log):
        return _make_plan(request, options, cluster, ledger, log)


@contextlib.contextmanager
def _started(request: Request, options: RunOptions, on_event: OnEvent) -> Iterator[tuple[Store, Cluster, Any, Log]]:
    out = open_store(request.out)
    _refuse_nesting(source_store(request)[0], out)
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
    log = Log(out, run_id, on_event, [])
    # First of all: an output that cannot be written shows now, not after hours.
    out.publish(f"runs/{run_id}/run.json", pretty_json(_run_record(request, options)))
    with ray_cluster(options.address, options.workers) as cluster:
        log("start", {"run_id": run_id, "workers": cluster.n_workers, "gpus": cluster.n_gpus})
        try:
            yield out, cluster, start_ledger(), log
        finally:
            with contextlib.suppress(UnreadableError):  # an error on its way out matters more
                log.flush()


def _refuse_nesting(source: Store, out: Store) -> None:
    """An output below its source would be listed as a source by the next run, and the plan would differ."""
    if f"{out.url}/".startswith(f"{source.url}/"):
        raise RefusedError(f"output {out.url} lies inside the source {source.url}; choose a place outside of it")


def _run_record(request: Request, options: RunOptions) -> Row:
    return {
        "source": request.source,
        "host": platform.node(),
        "workers": options.workers,
        "address": options.address,
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


# ---- plan ----------------------------------------------------------------------------------------------------------


def _make_plan(request: Request, options: RunOptions, cluster: Cluster, ledger: Any, log: Log) -> Plan:
    spec = PlanSpec(
        dataset=request.dataset,
        params=request.params,
        split=request.split,
        split_set=request.split.rule,
        shard_bytes=request.shard_mb * MIB,
        versions=_versions(request.params, options, cluster),
    )
    store, files, sources, notes = list_sources(request)
    for note in notes:
        log("note", {"text": note})
    log("sources", {"n_videos": len(sources), "n_files": len(files)})
    pool = Pool(width=cluster.n_workers, ledger=ledger, on_event=log)
    probes = _probe_all(store, files, sources, request, options, pool, log)
    plan = build_plan(spec, sources, probes)
    publish_plan(plan, log.out)
    return plan


def list_sources(request: Request) -> tuple[Store, dict[str, StoredFile], Sequence[SourceVideo], Sequence[str]]:
    """List the source and let its adapter read it. Returns store, files by path, videos sorted by path, notes.

    Raises UnreadableError where there is nothing to read.
    """
    from lps.pipeline.sources import SourceFile, SourceOptions, list_videos

    store, table_path = source_store(request)
    files = {file.path: file for file in store.walk()}
    if not files:
        raise UnreadableError(f"source {request.source} is empty or not there")
    splits = open_store(request.splits_dir) if request.splits_dir else None

    def read_split(name: str) -> bytes | None:
        return splits.read(name) if splits is not None and splits.exists(name) else None

    options = SourceOptions(
        read_bytes=store.read, splits_dir_read=read_split if splits else None, table_path=table_path
    )
    listed = [SourceFile(path=file.path, n_bytes=file.n_bytes) for file in files.values()]
    listing = list_videos(request.dataset, listed, options)
    return store, files, listing.videos, listing.notes


def source_store(request: Request) -> tuple[Store, str]:
    """Return the root that uris are relative to, and for a table its own path below that root."""
    if request.dataset != "table":
        return open_store(request.source), ""
    root, _, name = request.source.replace("\\", "/").rpartition("/")
    return open_store(root or "."), name


def _probe_all(
    store: Store,
    files: dict[str, StoredFile],
    sources: Sequence[SourceVideo],
    request: Request,
    options: RunOptions,
    pool: Pool,
    log: Log,
) -> dict[str, Probe]:
    """Probe every source worth opening; files that are unchanged since an earlier run are taken from its cache."""
    import ray

    out, limits, memory = log.out, request.params.limits, options.memory_mb * MIB
    cache: dict[str, Any] = json.loads(out.read(PROBE_CACHE)) if out.exists(PROBE_CACHE) else {}
    wanted = sorted({s.uri for s in sources if s.code is None and s.uri in files})
    # The limits decide a probe too, so they are part of what must be unchanged.
    marks = {uri: f"{files[uri].mark} {canonical_json(_limits(request.params)).decode()}" for uri in wanted}
    probes = {u: probe_from_record(cache[u]["probe"]) for u in wanted if cache.get(u, {}).get("mark") == marks[u]}
    task = ray.remote(num_cpus=1, max_retries=0, max_calls=200)(run_probe)

    def job(uri: str) -> Job:
        return Job(
            uri, lambda label: task.remote(pool.ledger, label, store, uri, limits, memory), options.deadline_seconds
        )

    fresh = [uri for uri in wanted if uri not in probes]
    for end in pool.run(job(uri) for uri in fresh):
        if isinstance(end, Done):
            probes[end.job.name] = end.value
        elif isinstance(end, Quarantined):
            size = files[end.job.name].n_bytes
            probes[end.job.name] = Probe(n_bytes=size, sha256="", code=end.code, stage=Stage.PROBE, detail=end.detail)
        log.on_event("probed", {"n_done": len(probes), "n_videos": len(wanted)})
    if fresh:
        kept = {u: {"mark": marks[u], "probe": p.record()} for u, p in probes.items() if p.sha256}
        out.publish(PROBE_CACHE, canonical_json(kept))
    return probes


def _limits(params: Params) -> Row:
    return dict(params.record()["limits"])


def _versions(params: Params, options: RunOptions, cluster: Cluster) -> dict[str, str]:
    """Return the versions of everything whose change could change bytes. Raises for missing weights."""
    import av
    from PIL import features

    names = ("lps-prep", "numpy", "opencv-python-headless", "av", "pillow", "torch", "torchvision", "scipy", "pdqhash")
    localizers = ("facenet-pytorch", "retinaface-pytorch", "face-alignment")
    found = {name: _version(name) for name in (*names, *localizers)}
    found |= {f"ffmpeg/{name}": ".".join(map(str, v)) for name, v in av.library_versions.items()}
    found["libjpeg"] = str(features.version("jpg"))
    found["python"] = platform.python_version()
    found["device"] = cluster.device
    found["batch_size"] = str(cluster.batch_size)
    digests = weight_digests(params.localizer, options.weights_dir)
    return found | {f"weights/{name}": digest for name, digest in digests.items()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


# ---- work ----------------------------------------------------------------------------------------------------------


class _Work:
    """Process the videos of open shards and commit each shard when its last video is there."""

    def __init__(
        self,
        plan: Plan,
        jobs: Sequence[ShardJob],
        request: Request,
        options: RunOptions,
        detectors: Sequence[Any],
        ledger: Any,
        log: Log,
    ) -> None:
        import ray

        self.options, self.log, self.ledger = options, log, ledger
        self.source, _ = source_store(request)
        self.params = request.params
        self.frames = {v.source.video_id: v.n_frames_promised for v in plan.videos}
        self.closed: deque[ShardJob] = deque(jobs)
        self.queue: deque[Job] = deque()
        self.open: dict[str, ShardJob] = {}
        self.missing: dict[str, set[str]] = {}
        """Shard -> names of its videos without a result."""
        self.results: dict[str, Any] = {}
        """Video name -> its result, or the reference to it in the object store."""
        self.detectors = detectors
        self.seats: dict[str, int] = {}
        """Name of a running video -> its detector. Videos that run at the same time are spread evenly over them."""
        self.process_task = ray.remote(num_cpus=1, max_retries=0, max_calls=100, num_returns=2)(run_process)
        self.commit_task = ray.remote(num_cpus=0.5, max_retries=0)(run_commit)

    def run(self, pool: Pool) -> None:
        """Work until every shard is committed."""
        for end in pool.run(self):
            name = end.job.name
            if name.startswith("commit/"):
                shard_id = name.removeprefix("commit/")
                if isinstance(end, LostInputs):
                    self._reopen(shard_id)
                elif isinstance(end, Quarantined):
                    raise LpsError(f"shard {shard_id} cannot be written: {end.code}, {end.detail}")
                else:
                    self._close(shard_id, end.value)
                continue
            shard_id, _, video_hex = name.partition("/")
            if isinstance(end, Quarantined):
                self.results[name] = _quarantined(video_hex, end)
                self.log(
                    "video", {"video": name, "status": "failed", "code": str(end.code), "n_clips": 0, "n_frames": 0}
                )
            elif isinstance(end, Done):
                self.log("video", {"video": name, **end.value})
            self._finish(shard_id, name)

    # The pool asks for jobs as long as it has room. Shards are opened one by one, so that what waits in the object
    # store for its shard mates stays small.
    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        if not self.queue and self.closed:
            self._open(self.closed.popleft())
        if not self.queue:
            raise StopIteration
        return self.queue.popleft()

    def _open(self, job: ShardJob) -> None:
        self.open[job.shard_id] = job
        self.missing[job.shard_id] = {_video_name(job, video) for video in job.videos}
        # The longest first, so that no core is left with one at the end while the others have nothing to do.
        videos = sorted(job.videos, key=lambda video: -self.frames[video.source.video_id])
        self.queue.extend(self._video_job(job, video) for video in videos)

    def _video_job(self, job: ShardJob, video: ShardVideo) -> Job:
        name = _video_name(job, video)
        work = (self.options.process, self.source, video, self.params)
        memory = self.options.memory_mb * MIB

        def submit(label: str) -> Any:
            detector = self.detectors[self._seat(name)]
            brief, result = self.process_task.remote(self.ledger, label, detector, work, memory)
            self.results[name] = result
            return brief

        frames = self.frames[video.source.video_id]
        return Job(name, submit, self.options.deadline_seconds + frames * self.options.deadline_seconds_per_frame)

    def _seat(self, name: str) -> int:
        self.seats.pop(name, None)
        taken = Counter(self.seats.values())
        self.seats[name] = min(range(len(self.detectors)), key=lambda k: (taken[k], k))
        return self.seats[name]

    def _finish(self, shard_id: str, name: str) -> None:
        """Note that a video has its result; queue the commit when it was the shard's last."""
        job, missing = self.open[shard_id], self.missing[shard_id]
        self.seats.pop(name, None)
        missing.discard(name)
        if missing:
            return

        def submit(label: str) -> Any:
            results = [self.results[_video_name(job, video)] for video in job.videos]
            work = (job, self.params, self.log.out)
            return self.commit_task.remote(self.ledger, label, work, self.options.scratch, *results)

        self.queue.appendleft(Job(f"commit/{shard_id}", submit, COMMIT_SECONDS, has_inputs=True))

    def _close(self, shard_id: str, brief: Row) -> None:
        for video in self.open[shard_id].videos:
            del self.results[_video_name(self.open[shard_id], video)]
        del self.open[shard_id], self.missing[shard_id]
        self.log("shard", dict(brief))
        self.log.flush()

    def _reopen(self, shard_id: str) -> None:
        """Results were lost with a node before they were written: make the shard's videos again, uncharged."""
        self.log("retry", {"job": f"commit/{shard_id}", "cause": "results lost", "pause_s": 0.0})
        self._open(self.open[shard_id])


def _video_name(job: ShardJob, video: ShardVideo) -> str:
    return f"{job.shard_id}/{video.source.video_id.hex()}"


def _quarantined(video_hex: str, end: Quarantined) -> VideoResult:
    outcome = Outcome(status=Status.FAILED, code=end.code, stage=Stage.DECODE, detail=end.detail)
    return VideoResult(video_id=bytes.fromhex(video_hex), outcome=outcome)
