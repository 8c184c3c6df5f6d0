"""The main job: sources to plan to shards to manifests. Reads top-down; policy is in engine, work is in tasks."""

import contextlib
import platform
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from lps.manifests.canonical import pretty_json
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.index import INDEX_JSON
from lps.manifests.schemas import Row
from lps.manifests.storage import Store, open_store
from lps.pipeline.faces.localizers import LocalizerSpec
from lps.pipeline.job.cluster import Cluster, load_workers, ray_cluster, start_detectors, start_times_actor
from lps.pipeline.job.finalize import Summary, committed_shards, finalize
from lps.pipeline.job.plan import Plan, PlanSpec, build_plan, publish_plan
from lps.pipeline.job.pool import Pool
from lps.pipeline.job.request import MIB, Log, OnEvent, PrepRequest, RunOptions
from lps.pipeline.job.shard_work import ShardScheduler
from lps.pipeline.job.survey import list_sources, probe_all, source_store, versions_of


def run_job(request: PrepRequest, options: RunOptions, on_event: OnEvent) -> Summary:
    """Make the data set, or finish one that was begun. Returns its summary.

    Raises RefusedError (parameters or sources changed), UnreadableError (source, output, weights or cluster),
    IntegrityError (a shard came out with other bytes than before).
    """
    with _started(request, options, on_event) as (out, cluster, start_times, log):
        plan = _make_plan(request, options, cluster, start_times, log)
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
            work = ShardScheduler(plan, jobs, request, options, detectors, start_times, log)
            work.run(Pool(width=cluster.n_workers, start_times=start_times, on_event=log))
        summary = finalize(plan, out)
        log("finalize", {"n_videos": summary.n_videos, "n_ok": summary.n_ok})
        return summary


def plan_job(request: PrepRequest, options: RunOptions, on_event: OnEvent) -> Plan:
    """Make and publish the plan, and process nothing. Raises as `run_job` does."""
    with _started(request, options, on_event) as (_, cluster, start_times, log):
        return _make_plan(request, options, cluster, start_times, log)


@contextlib.contextmanager
def _started(request: PrepRequest, options: RunOptions, on_event: OnEvent) -> Iterator[tuple[Store, Cluster, Any, Log]]:
    out = open_store(request.out)
    _refuse_nesting(source_store(request)[0], out)
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
    log = Log(out, run_id, on_event, [])
    # First of all: an output that cannot be written shows now, not after hours.
    out.publish(f"runs/{run_id}/run.json", pretty_json(_run_record(request, options)))
    with ray_cluster(options.address, options.workers) as cluster:
        log("start", {"run_id": run_id, "workers": cluster.n_workers, "gpus": cluster.n_gpus})
        try:
            yield out, cluster, start_times_actor(), log
        finally:
            with contextlib.suppress(UnreadableError):  # an error on its way out matters more
                log.flush()


def _refuse_nesting(source: Store, out: Store) -> None:
    """An output below its source would be listed as a source by the next run, and the plan would differ."""
    if f"{out.url}/".startswith(f"{source.url}/"):
        raise RefusedError(f"output {out.url} lies inside the source {source.url}; choose a place outside of it")


def _run_record(request: PrepRequest, options: RunOptions) -> Row:
    return {
        "source": request.source,
        "host": platform.node(),
        "workers": options.workers,
        "address": options.address,
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


# ---- plan ----------------------------------------------------------------------------------------------------------


def _make_plan(request: PrepRequest, options: RunOptions, cluster: Cluster, start_times: Any, log: Log) -> Plan:
    spec = PlanSpec(
        dataset=request.dataset,
        params=request.params,
        split=request.split,
        split_set=request.split.rule,
        shard_bytes=request.shard_mb * MIB,
        versions=versions_of(request.params, options, cluster),
    )
    store, files, sources, notes = list_sources(request)
    for note in notes:
        log("note", {"text": note})
    log("sources", {"n_videos": len(sources), "n_files": len(files)})
    pool = Pool(width=cluster.n_workers, start_times=start_times, on_event=log)
    probes = probe_all(store, files, sources, request, options, pool, log)
    plan = build_plan(spec, sources, probes)
    publish_plan(plan, log.out)
    return plan


# ---- work ----------------------------------------------------------------------------------------------------------
