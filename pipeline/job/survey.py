"""Look at the sources before the plan: list them, read their headers, record the versions."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lps.manifests.canonical import canonical_json, escape_name, parse_json, sha256_hex
from lps.manifests.codes import Stage
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.schemas import Row
from lps.manifests.storage import Store, StoredFile, lies_in, open_store
from lps.pipeline.faces.localizers import weight_digests
from lps.pipeline.job.events import SourceProbed
from lps.pipeline.job.pool import Done, FirstVideos, Job, Pool, ProbeJob, Quarantined
from lps.pipeline.job.request import PrepRequest, RunContext
from lps.pipeline.job.tasks import run_look, run_probe
from lps.pipeline.sources.adapters import SourceFile, SourceListing, SourceOptions, list_videos
from lps.pipeline.sources.types import NOT_A_VIDEO, may_be_video
from lps.pipeline.video.probe import Probe, probe_from_record

PROBE_CACHE = "runs/cache/probes.json"


@dataclass(frozen=True, slots=True)
class SourceTree:
    """A source and what its adapter makes of it."""

    store: Store
    files: dict[str, StoredFile]
    """By path."""
    listing: SourceListing

    @property
    def links(self) -> dict[str, str]:
        """Where every link that was followed leads: absolute path by path of the link."""
        linked = (file for file in self.files.values() if file.link and file.real)
        return {file.link: escape_name(file.real).removesuffix(file.path.removeprefix(file.link)) for file in linked}


def list_sources(request: PrepRequest) -> SourceTree:
    """List the source and let its adapter read it. Raises UnreadableError where there is nothing to read."""
    store = source_store(request)
    files = {file.path: file for file in store.walk(leaving=True)}
    if not files:
        raise UnreadableError(f"source {request.root or request.source} is empty or not there")
    _refuse_own_output(files, open_store(request.out))
    return SourceTree(store, files, _read_listing(request, store, files, frozenset()))


def with_odd_names(run: RunContext, tree: SourceTree) -> SourceTree:
    """List again with the videos whose names do not say that they are: doubtful files are looked into on the cluster.

    Only for folders: published sets and tables name their videos.
    """
    import ray

    rows = tree.listing.videos if run.request.dataset == "folder" else ()
    odd = [
        row.uri
        for row in rows
        if row.detail == NOT_A_VIDEO and may_be_video(row.uri) and tree.files[row.uri].n_bytes != 0
    ]
    task = ray.remote(num_cpus=1, max_retries=0, max_calls=200)(run_look)
    limits, options = run.request.params.limits, run.options

    def job(uri: str) -> Job:
        def submit(label: str) -> Any:
            named = task.options(name=f"look into {uri}")
            return named.remote(run.start_times, label, tree.store, uri, limits, options.memory_bytes)

        return Job(ProbeJob(uri), submit, options.deadline_seconds)

    pool = Pool(width=run.cluster.n_workers, start_times=run.start_times, on_event=run.log, check=run.lease.check)
    ends = pool.run(job(uri) for uri in odd)
    found = frozenset(str(end.job.key) for end in ends if isinstance(end, Done) and end.value)
    listing = _read_listing(run.request, tree.store, tree.files, found) if found else tree.listing
    return replace(tree, listing=listing)


def _read_listing(
    request: PrepRequest, store: Store, files: Mapping[str, StoredFile], opened: frozenset[str]
) -> SourceListing:
    """Let the adapter read the files; `opened` are those that hold a video though their names do not say so."""
    table, table_path = table_place(request) if request.dataset == "table" else (store, "")
    splits = open_store(request.splits_dir) if request.splits_dir else None

    def read_split(name: str) -> bytes | None:
        return splits.read(name) if splits is not None and splits.exists(name) else None

    options = SourceOptions(
        read_bytes=table.read,
        splits_dir_read=read_split if splits else None,
        table_path=table_path,
        below_root=store.relative,
    )
    listed = [
        SourceFile(
            path=file.path,
            n_bytes=file.n_bytes,
            real=file.real,
            is_linked=bool(file.link),
            code=file.code,
            detail=file.detail,
            opens=file.path in opened,
        )
        for file in files.values()
    ]
    return list_videos(request.dataset, listed, options)


def _refuse_own_output(files: Mapping[str, StoredFile], out: Store) -> None:
    """Raise RefusedError where a link leads into the output: the next run would plan what this one wrote."""
    root = out.real_root
    inside = [file.link for file in files.values() if file.link and file.real and lies_in(file.real, root)]
    if inside:
        raise RefusedError(f"the link {inside[0]} of the source leads into the output; remove it, or move the output")


def source_store(request: PrepRequest) -> Store:
    """Return the root that uris are relative to."""
    if request.dataset != "table":
        return open_store(request.source)
    return open_store(request.root) if request.root else table_place(request)[0]


def table_place(request: PrepRequest) -> tuple[Store, str]:
    """Return the folder of a table, and its name."""
    folder, slash, name = request.source.rpartition("/")
    return open_store(folder or slash or "."), name


def probe_all(run: RunContext, tree: SourceTree) -> dict[str, Probe]:
    """Probe every source worth opening; files that are unchanged since an earlier run are taken from its cache.

    Raises LpsError where none of the first ones can be probed, for a fault of the program.
    """
    import ray

    out, files, limits = run.out, tree.files, run.request.params.limits
    wanted = sorted({s.uri for s in tree.listing.videos if s.code is None and s.uri in files})
    # The limits decide a probe too, so they are part of what must be unchanged.
    marks = {uri: f"{files[uri].mark} {canonical_json(asdict(limits)).decode()}" for uri in wanted}
    probes = kept_probes(out, marks)
    task = ray.remote(num_cpus=1, max_retries=0, max_calls=200)(run_probe)

    def job(uri: str) -> Job:
        def submit(label: str) -> Any:
            named = task.options(name=f"probe {uri}")
            return named.remote(run.start_times, label, tree.store, uri, limits, run.options.memory_bytes)

        return Job(ProbeJob(uri), submit, run.options.deadline_seconds)

    fresh = [uri for uri in wanted if uri not in probes]
    first = None if probes else FirstVideos(len(fresh))
    pool = Pool(
        width=run.cluster.n_workers,
        start_times=run.start_times,
        on_event=run.log,
        check=run.lease.check,
        first=first,
    )
    for end in pool.run(job(uri) for uri in fresh):
        match end:
            case Done(Job(ProbeJob(uri)), probe):
                probes[uri] = probe
            case Quarantined(Job(ProbeJob(uri)), code, detail):
                size = files[uri].n_bytes or 0
                probes[uri] = Probe(n_bytes=size, sha256="", code=code, stage=Stage.PROBE, detail=detail)
        run.log.on_event(SourceProbed(len(probes), len(wanted)))
    if fresh:
        kept = {uri: _kept(marks[uri], probe) for uri, probe in probes.items() if probe.sha256}
        out.publish(PROBE_CACHE, canonical_json(kept))
    return probes


def _kept(mark: str, probe: Probe) -> Row:
    record = probe.record()
    return {"mark": mark, "probe": record, "sha256": sha256_hex(canonical_json(record))}


def kept_probes(out: Store, marks: Mapping[str, str]) -> dict[str, Probe]:
    """Return what an earlier run kept of files that are unchanged since; what is damaged there counts as not kept."""
    try:
        kept = parse_json(out.read(PROBE_CACHE)) if out.exists(PROBE_CACHE) else {}
        same = [uri for uri, mark in marks.items() if uri in kept and kept[uri]["mark"] == mark]
        whole = [uri for uri in same if kept[uri]["sha256"] == sha256_hex(canonical_json(kept[uri]["probe"]))]
        return {uri: probe_from_record(kept[uri]["probe"]) for uri in whole}
    except (UnreadableError, ValueError, LookupError, TypeError, AttributeError):
        return {}  # of another version, or no record at all


def versions_of(run: RunContext) -> dict[str, str]:
    """Return the versions of everything whose change could change bytes. Raises for missing weights."""
    import av
    from PIL import features

    names = ("lps-prep", "numpy", "opencv-python-headless", "av", "pillow", "torch", "torchvision", "scipy", "pdqhash")
    localizers = ("facenet-pytorch", "retinaface-pytorch", "face-alignment")
    found = {name: _version(name) for name in (*names, *localizers)}
    found |= {f"ffmpeg/{name}": ".".join(map(str, v)) for name, v in av.library_versions.items()}
    found["libjpeg"] = str(features.version("jpg"))
    found["python"] = platform.python_version()
    found["device"] = run.cluster.device
    found["batch_size"] = str(run.cluster.batch_size)
    digests = weight_digests(run.request.params.localizer, run.options.weights_dir)
    return found | {f"weights/{name}": digest for name, digest in digests.items()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
