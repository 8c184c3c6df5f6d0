"""The main job: sources to plan to shards to manifests. Reads top-down; policy is in pool, work is in tasks."""

import contextlib
import platform
from collections.abc import Collection, Iterator
from datetime import UTC, datetime

import pyarrow as pa

from lps.manifests.canonical import escape_name, pretty_json
from lps.manifests.errors import Interrupted, RefusedError, UnreadableError
from lps.manifests.index import (
    INDEX_JSON,
    PLAN_JSON,
    Commit,
    committed_shards,
    read_commits,
    read_plan,
    withdraw_index,
)
from lps.manifests.records import Note
from lps.manifests.schemas import Row
from lps.manifests.storage import Store, lies_in, open_store
from lps.pipeline.faces.localizers import LocalizerSpec, require_usable
from lps.pipeline.job.cluster import DEVICE_VERSIONS, load_workers, start_detectors
from lps.pipeline.job.events import DetectorsReady, Finalized, OnEvent, Planned, PrepStarted, SourceRead, SourcesListed
from lps.pipeline.job.finalize import Summary, finalize, finished_summary
from lps.pipeline.job.lease import driver_lease, new_run_id, utc_now
from lps.pipeline.job.plan import Plan, PlanSpec, build_plan, publish_plan, refuse_other_writer
from lps.pipeline.job.request import MIB, EventLog, PrepRequest, RunContext, RunOptions, ignore_event
from lps.pipeline.job.shard_work import ShardScheduler
from lps.pipeline.job.shards import ShardJob
from lps.pipeline.job.survey import (
    SourceTree,
    kept_probes,
    list_sources,
    probe_all,
    source_store,
    versions_of,
    with_archives,
    with_marks,
    with_odd_names,
)
from lps.pipeline.job.wholeness import Fault, fault_lines, find_faults
from lps.pipeline.video.kept_probes import Probes
from lps.pipeline.video.source_reader import SourceReader


def run_job(request: PrepRequest, options: RunOptions | None = None, on_event: OnEvent = ignore_event) -> Summary:
    """Make the data set, or finish one that was begun. Returns its summary.

    Raises RefusedError (parameters or sources changed, another driver writes the output), UnreadableError (source,
    output, weights or cluster), IntegrityError (a shard came out with other bytes than before).
    """
    with _started("run", request, options or RunOptions(), on_event) as run:
        plan, probes = _make_plan(run)
        run.out.sweep()
        sizes = plan.shard_sizes()
        whole, faults = _whole_shards(run, plan, sizes)
        left = plan.shard_jobs(set(sizes) - set(whole))
        run.log(Planned(sum(sizes.values()), _n_videos(left), len(left)))
        run.log.flush()
        if not left and not faults and run.out.exists(INDEX_JSON):
            return finished_summary(plan, run.out)
        run.lease.check()
        # An index promises that everything is there; until then there is none.
        withdraw_index(run.out)
        if left:
            _process(run, plan, left if run.source.store.is_local else with_marks(left, probes))
        run.lease.check()
        summary = finalize(plan, run.out, run.options.scratch, whole, run.lease.check)
        run.log(Finalized(summary.n_videos, summary.n_ok))
        return summary


def plan_job(request: PrepRequest, options: RunOptions | None = None, on_event: OnEvent = ignore_event) -> Plan:
    """Make and publish the plan, and process nothing. Raises as `run_job` does."""
    with _started("plan", request, options or RunOptions(), on_event) as run:
        return _make_plan(run)[0]


@contextlib.contextmanager
def _started(command: str, request: PrepRequest, options: RunOptions, on_event: OnEvent) -> Iterator[RunContext]:
    _refuse_bytes(request.source, request.out, request.root or "")
    require_usable(request.params.localizer)  # before the source is listed, which can take an hour
    out = open_store(request.out)
    _refuse_nesting(source_store(request), out)
    refuse_other_writer(out)
    run_id = new_run_id(utc_now())
    log = EventLog(out, run_id, on_event, [])
    # First of all: an output that cannot be written, or that another driver writes, shows now, not after hours.
    with contextlib.ExitStack() as opened:
        opened.enter_context(_frugal_arrow())
        lease = opened.enter_context(driver_lease(out, command, run_id))
        out.publish(f"runs/{run_id}/run.json", pretty_json(_run_record(request, options)))
        source = SourceReader(source_store(request), options.scratch, options.source_cache_bytes)
        run = RunContext(request=request, options=options, source=source, out=out, lease=lease, log=log, opened=opened)
        try:
            if not out.exists(PLAN_JSON):
                run.start_ray()  # there is work; that there is no cluster to do it shows now, too
            log(PrepStarted(run_id))
            yield run
        except KeyboardInterrupt as e:
            raise Interrupted("committed shards are kept; run the same command again to resume") from e
        finally:
            if run.traffic.n_bytes_fetched:
                log(SourceRead(run.traffic.n_bytes_fetched, run.traffic.n_bytes_source))
            with contextlib.suppress(UnreadableError):  # an error on its way out matters more
                log.flush()


@contextlib.contextmanager
def _frugal_arrow() -> Iterator[None]:
    """Let Arrow give back at once what it frees: its usual allocator keeps half a kilobyte a video for later."""
    usual = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(usual)


def _refuse_bytes(*locations: str) -> None:
    """Ray starts no process from a command line that is not UTF-8. Names below the source may be anything."""
    for location in locations:
        try:
            location.encode()
        except UnicodeEncodeError as e:
            raise RefusedError(f"{escape_name(location)} is not UTF-8: rename it, or give a link to it") from e


def _refuse_nesting(source: Store, out: Store) -> None:
    """An output below its source would be listed as a source by the next run, and the plan would differ."""
    if out.is_local == source.is_local and lies_in(out.real_root, source.real_root):
        raise RefusedError(f"output {out.url} lies inside the source {source.url}; choose a place outside of it")


def _run_record(request: PrepRequest, options: RunOptions) -> Row:
    return {
        "source": request.source,
        "root": request.root,
        "host": platform.node(),
        "workers": options.workers,
        "address": options.address,
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _make_plan(run: RunContext) -> tuple[Plan, Probes]:
    tree = list_sources(run.request)
    run.request = tree.request
    if tree.told:
        run.log(Note(tree.told))
    keeper = kept_probes(run, tree)
    tree = with_archives(run, with_odd_names(run, tree, keeper), keeper)
    _record_links(run, tree)
    for text in tree.listing.notes:
        run.log(Note(text))
    run.log(SourcesListed(len(tree.listing.videos), len(tree.files)))
    probe_all(run, tree, keeper)
    videos = tree.listing.videos
    del tree  # the files: a plan takes as much memory again
    plan = build_plan(_spec(run), videos, keeper.probes)
    run.lease.check()
    publish_plan(plan, run.out)
    keeper.save(planned=True)
    return plan, keeper.probes


def _spec(run: RunContext) -> PlanSpec:
    """Return what is asked for. Where Ray has not started, its device is taken to be that of the published plan."""
    request = run.request
    device = run.cluster.versions if run.has_ray else _planned_device(run.out)
    return PlanSpec(
        dataset=request.dataset,
        params=request.params,
        split=request.split,
        split_set=request.split.rule,
        shard_bytes=request.shard_mb * MIB,
        versions=versions_of(request, run.options) | (device or run.cluster.versions),
    )


def _planned_device(out: Store) -> dict[str, str]:
    """Return what the published plan says of the device; nothing where there is none that can be read."""
    try:
        plan = read_plan(out)
    except UnreadableError:
        return {}  # `publish_plan` names the damage
    versions = plan.values.get("versions", {}) if plan else {}
    return {name: versions[name] for name in DEVICE_VERSIONS if name in versions}


def _record_links(run: RunContext, tree: SourceTree) -> None:
    """Keep where links of the source led, beside the data set: a copy without links gives the same one."""
    if links := tree.links:
        root = escape_name(tree.store.real_root)
        n_outside = sum(not lies_in(target, root) for target in links.values())
        path = f"runs/{run.log.run_id}/links.json"
        run.out.publish(path, pretty_json(links))
        run.log(Note(f"{len(links)} links of the source were followed, {n_outside} of them out of it: {path}"))


def _whole_shards(run: RunContext, plan: Plan, shard_ids: Collection[str]) -> tuple[dict[str, Commit], list[Fault]]:
    """Return the commits of the shards that are done, by shard, and all faults.

    The others are to be made: they have no commit record, or other files than theirs says. Whatever is not as it should
    be is told; what the index names wrongly is mended when it is written again.
    """
    committed = committed_shards(run.out)
    commits = read_commits(run.out, [shard_id for shard_id in shard_ids if shard_id in committed], plan.sha256)
    faults = find_faults(run.out, commits, verify=run.options.verify)
    for line in fault_lines(faults):
        run.log(Note(line))
    damaged = {fault.shard_id for fault in faults}
    return {commit.shard_id: commit for commit in commits if commit.shard_id not in damaged}, faults


def _n_videos(shards: list[ShardJob]) -> int:
    return sum(len(shard.videos) for shard in shards)


def _process(run: RunContext, plan: Plan, shards: list[ShardJob]) -> None:
    localizer, options = run.request.params.localizer, run.options
    # where the plan was made without Ray, its device was that of the published one: another is refused here
    publish_plan(plan.with_versions({**plan.spec.versions, **run.cluster.versions}), run.out)
    detectors = start_detectors(run.cluster, localizer, options.weights_dir, options.detectors)
    if isinstance(detectors[0], LocalizerSpec):
        load_workers(detectors[0], min(run.cluster.n_workers, _n_videos(shards)))
    run.log(DetectorsReady(len(detectors)))
    ShardScheduler(run, plan, shards, detectors).run()
