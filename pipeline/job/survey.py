"""Look at the sources before the plan: list them, read their headers, record the versions."""

import contextlib
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa

from lps.manifests.canonical import escape_name, unescape_name
from lps.manifests.codes import Code, Stage
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.names import AUTO, TABLE_SUFFIXES
from lps.manifests.sequences.folder import with_sequences
from lps.manifests.sequences.names import archive_of, uri_in
from lps.manifests.storage import Store, StoredFile, lies_in, open_store
from lps.pipeline.config.params import Limits
from lps.pipeline.faces.localizers import weight_digests
from lps.pipeline.job.events import SourceProbed
from lps.pipeline.job.pool import Done, FirstVideos, Pool, Quarantined, file_ends, file_jobs
from lps.pipeline.job.request import PrepRequest, RunContext, RunOptions
from lps.pipeline.job.shards import ShardJob
from lps.pipeline.job.tasks import FileWork, file_task
from lps.pipeline.sources.adapters import LAYOUTS, SourceFile, SourceListing, SourceOptions, list_videos
from lps.pipeline.sources.guess import guess_layout
from lps.pipeline.sources.shared.split_lists import list_digests, read_split_lists, with_listed_splits
from lps.pipeline.sources.shared.types import NO_SEQUENCE, NOT_A_VIDEO, may_be_video
from lps.pipeline.video.kept_probes import ProbeKeeper, Probes, read_probes
from lps.pipeline.video.probe import ArchiveProbe, Probe, holds_video, probe_archive, probe_file
from lps.pipeline.video.source_reader import SourceReader, SourceRef


@dataclass(frozen=True, slots=True)
class SourceTree:
    """A source and what its adapter makes of it."""

    store: Store
    files: dict[str, StoredFile]
    """By path; sequences of images in the place of their images, those of archives beside these once they are known."""
    listing: SourceListing
    request: PrepRequest
    """With the layout that was found, where none was given."""
    told: str = ""
    """Why it is this layout; empty where it was given."""

    @property
    def links(self) -> dict[str, str]:
        """Where every link that was followed leads: absolute path by path of the link."""
        linked = (file for file in self.files.values() if file.link and file.real)
        return {file.link: escape_name(file.real).removesuffix(file.path.removeprefix(file.link)) for file in linked}


def with_marks(shards: Sequence[ShardJob], probes: Probes) -> list[ShardJob]:
    """Return shards whose videos have the marks of their files, by which copies are known."""
    uris = [video.source.uri for shard in shards for video in shard.videos]
    marks = iter(probes.aligned(pa.array(uris, pa.string()), ["mark"])["mark"].to_pylist())
    return [
        replace(shard, videos=tuple(replace(video, mark=next(marks) or "") for video in shard.videos))
        for shard in shards
    ]


def list_sources(request: PrepRequest) -> SourceTree:
    """List the source and let its adapter read it. Raises UnreadableError where there is nothing to read."""
    store = source_store(request)
    files = {file.path: file for file in store.walk(leaving=True)}
    if not files:
        raise UnreadableError(f"source {request.root or request.source} is empty or not there")
    _refuse_own_output(files, open_store(request.out))
    request, told = _with_layout(request, files)
    request = replace(request, split=replace(request.split, lists=list_digests(read_split_lists(request.split_lists))))
    if LAYOUTS[request.dataset].has_sequences:
        folders = {file.path: file for file in with_sequences(files.values())}
        files = files | folders if request.dataset == "table" else folders  # a table may name anything
    return SourceTree(store, files, _read_listing(request, store, files, frozenset()), request, told)


def _with_layout(request: PrepRequest, files: Iterable[str]) -> tuple[PrepRequest, str]:
    """Return the request with a layout, and why it is this one if none was given. Raises RefusedError if none fits."""
    if request.dataset != AUTO:
        return request, ""
    if is_table(request):
        return replace(request, dataset="table"), f"--dataset auto: read as table: {request.source} is one by its name"
    dataset, told = guess_layout(files)
    return replace(request, dataset=dataset), told


def kept_probes(run: RunContext, tree: SourceTree) -> ProbeKeeper:
    """Return what an earlier run kept of files that are unchanged since."""
    limits, files = run.request.params.limits, tree.files
    marks = pa.array([file.mark for file in files.values()], pa.string())
    kept = read_probes(run.out, limits).of_files(pa.array(list(files), pa.string()), marks)
    return ProbeKeeper(run.out, limits, kept)


def with_odd_names(run: RunContext, tree: SourceTree, keeper: ProbeKeeper) -> SourceTree:
    """List again with the videos whose names do not say that they are: doubtful files are looked into on the cluster.

    Only for folders: published sets and tables name their videos. Of a file that holds none, `keeper` keeps that.
    """
    rows = tree.listing.videos if run.request.dataset == "folder" else ()
    odd = [
        row.uri
        for row in rows
        if row.detail == NOT_A_VIDEO and may_be_video(row.uri) and tree.files[row.uri].n_bytes != 0
    ]
    known = keeper.probes.aligned(pa.array(odd, pa.string()), ["n_bytes", "code"]).to_pylist()
    opened = {uri for uri, probe in zip(odd, known, strict=True) if probe["code"] != Code.S_FOREIGN}
    doubtful = [uri for uri, probe in zip(odd, known, strict=True) if probe["n_bytes"] is None]
    for uri, end in _read_files(run, tree, doubtful, holds_video, "look into"):
        if not (isinstance(end, Done) and end.value):
            opened.discard(uri)
            file = tree.files[uri]
            run.traffic.n_bytes_source += file.n_bytes or 0
            nothing = Probe(n_bytes=file.n_bytes or 0, sha256="", code=Code.S_FOREIGN, stage=Stage.DISCOVER)
            keeper.add(uri, file.mark, nothing, is_certain=isinstance(end, Done))
    listing = _read_listing(run.request, tree.store, tree.files, frozenset(opened)) if opened else tree.listing
    return replace(tree, listing=listing)


def with_archives(run: RunContext, tree: SourceTree, keeper: ProbeKeeper) -> SourceTree:
    """List again with the sequences that lie in archives, which are read on the cluster; `keeper` keeps all of them."""
    wanted = [row.uri for row in tree.listing.videos if row.detail == NO_SEQUENCE]
    if not wanted:
        return tree
    known = keeper.probes.in_archives()
    for uri, end in _read_files(run, tree, [uri for uri in wanted if uri not in known], probe_archive, "look into"):
        mark = tree.files[uri].mark
        if isinstance(end, Done):
            found: ArchiveProbe = end.value
        else:
            own = Probe(n_bytes=tree.files[uri].n_bytes or 0, sha256="", code=end.code, detail=end.detail)
            found = ArchiveProbe(own, {})
        for folder, probe in found.sequences.items():
            keeper.add(uri_in(uri, folder), mark, probe, is_certain=True)
        keeper.add(uri, mark, found.own, is_certain=isinstance(end, Done) and found.own.code != Code.E_UNREADABLE)
    keeper.save()
    run.traffic.n_bytes_source += sum(tree.files[uri].n_bytes or 0 for uri in wanted)
    files = tree.files | {file.path: file for file in _in_archives(tree, keeper.probes, wanted)}
    return replace(tree, files=files, listing=_read_listing(run.request, tree.store, files, frozenset()))


def _in_archives(tree: SourceTree, probes: Probes, archives: Sequence[str]) -> Iterator[StoredFile]:
    """Yield the sequences of archives as files of the listing, and archives that hold none with what is wrong."""
    known = probes.in_archives()
    for archive in archives:
        file, uris = tree.files[archive], known[archive]
        facts = probes.aligned(pa.array([archive, *uris], pa.string()), ["n_bytes", "code", "detail"]).to_pylist()
        if facts[0]["code"]:
            yield replace(file, code=Code(facts[0]["code"]), detail=facts[0]["detail"] or "")
        for uri, fact in zip(uris, facts[1:], strict=True):
            real = file.real + uri.removeprefix(archive) if file.real else ""
            yield replace(file, path=uri, n_bytes=fact["n_bytes"], real=real)


def _read_files(
    run: RunContext,
    tree: SourceTree,
    uris: Sequence[str],
    read: Callable[[SourceReader, SourceRef, Limits], Any],
    name: str,
    first: FirstVideos | None = None,
) -> Iterator[tuple[str, Done | Quarantined]]:
    """Call `read` for each file on the cluster, in tasks called `name` and the file. Yield the file's uri and end.

    Ray starts if there is a file.
    """
    if not uris:
        return
    options, width = run.options, run.cluster.n_workers
    work = FileWork(
        read=read,
        source=run.source,
        limits=run.request.params.limits,
        memory_bytes=options.memory_bytes,
        start_times=run.start_times,
    )
    task = file_task(work)
    sizes = {uri: tree.files[uri].n_bytes for uri in uris}

    def submit(label: str, batch: Sequence[str]) -> Any:
        files = [SourceRef(uri, tree.files[uri].mark, sizes[uri]) for uri in batch]
        return task.options(name=f"{name} {label.rpartition('#')[0]}").remote(label, files)

    pool = Pool(width=width, start_times=run.start_times, on_event=run.log, check=run.lease.check, first=first)
    for uri, end in file_ends(pool.run(file_jobs(sizes, submit, width, options.deadline_seconds))):
        if isinstance(end, Done):
            value, n_bytes_fetched = end.value
            run.traffic.n_bytes_fetched += n_bytes_fetched
            yield uri, Done(end.job, value)
        else:
            yield uri, end


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
    root = f"{store.real_root.rstrip('/')}/" if store.is_local else ""
    listed = [
        SourceFile(
            path=file.path,
            n_bytes=file.n_bytes,
            real=file.real or (f"{root}{unescape_name(file.path)}" if root and not file.link else ""),
            is_linked=bool(file.link),
            code=file.code,
            detail=file.detail,
            opens=file.path in opened,
        )
        for file in files.values()
    ]
    listing = list_videos(request.dataset, listed, options)
    unopened = any(row.detail == NO_SEQUENCE for row in listing.videos) and not any(map(archive_of, files))
    if not request.split_lists or unopened:  # what lies in archives is listed later
        return listing
    return with_listed_splits(listing, read_split_lists(request.split_lists))


def _refuse_own_output(files: Mapping[str, StoredFile], out: Store) -> None:
    """Raise RefusedError where a link leads into the output: the next run would plan what this one wrote."""
    root = out.real_root
    inside = [file.link for file in files.values() if file.link and file.real and lies_in(file.real, root)]
    if inside:
        raise RefusedError(f"the link {inside[0]} of the source leads into the output; remove it, or move the output")


def source_store(request: PrepRequest) -> Store:
    """Return the root that uris are relative to."""
    if not is_table(request):
        return open_store(request.source)
    return open_store(request.root) if request.root else table_place(request)[0]


def is_table(request: PrepRequest) -> bool:
    """Tell whether the source is a table, not a folder."""
    is_named_so = request.source.lower().endswith(TABLE_SUFFIXES)
    return request.dataset == "table" or (request.dataset == AUTO and is_named_so)


def table_place(request: PrepRequest) -> tuple[Store, str]:
    """Return the folder of a table, and its name."""
    folder, slash, name = request.source.rpartition("/")
    return open_store(folder or slash or "."), name


def probe_all(run: RunContext, tree: SourceTree, keeper: ProbeKeeper) -> None:
    """Probe every source worth opening of which `keeper` knows nothing yet. Ray starts if there is one.

    Raises LpsError where none of the first ones can be probed, for a fault of the program.
    """
    wanted = sorted({s.uri for s in tree.listing.videos if s.code is None and s.uri in tree.files})
    run.traffic.n_bytes_source += sum(tree.files[uri].n_bytes or 0 for uri in wanted if archive_of(uri) is None)
    n_bytes = keeper.probes.aligned(pa.array(wanted, pa.string()), ["n_bytes"])["n_bytes"]
    fresh = [uri for uri, known in zip(wanted, n_bytes.is_valid().to_pylist(), strict=True) if not known]
    if fresh:
        try:
            _probe(run, tree, keeper, fresh, len(wanted))
        except BaseException:
            with contextlib.suppress(UnreadableError):  # what is on its way out matters more
                keeper.save()
            raise
        keeper.save()


def _probe(run: RunContext, tree: SourceTree, keeper: ProbeKeeper, uris: Sequence[str], n_wanted: int) -> None:
    n_done = n_wanted - len(uris)
    first = None if n_done else FirstVideos(len(uris))
    for uri, end in _read_files(run, tree, uris, probe_file, "probe", first):
        file = tree.files[uri]
        if isinstance(end, Done):
            keeper.add(uri, file.mark, end.value, is_certain=bool(end.value.sha256))
        else:
            lost = Probe(n_bytes=file.n_bytes or 0, sha256="", code=end.code, stage=Stage.PROBE, detail=end.detail)
            keeper.add(uri, file.mark, lost, is_certain=False)
        n_done += 1
        run.log.on_event(SourceProbed(n_done, n_wanted))


def versions_of(request: PrepRequest, options: RunOptions) -> dict[str, str]:
    """Return the versions of what is installed here and could change bytes. Raises for missing weights."""
    import av
    from PIL import features

    names = ("lps-prep", "numpy", "opencv-python-headless", "av", "pillow", "scipy", "pdqhash")
    localizers = ("facenet-pytorch", "retinaface-pytorch", "face-alignment")
    runtimes = ("onnxruntime", "torch", "torchvision")
    found = {name: _version(name) for name in (*names, *localizers, *runtimes)}
    found |= {f"ffmpeg/{name}": ".".join(map(str, v)) for name, v in av.library_versions.items()}
    found["libjpeg"] = str(features.version("jpg"))
    found["python"] = platform.python_version()
    digests = weight_digests(request.params.localizer, options.weights_dir)
    return found | {f"weights/{name}": digest for name, digest in digests.items()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
