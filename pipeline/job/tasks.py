"""What runs on the cluster: read a few files, process one video, write one shard, and the actor that serves them.

Task functions take the function that does the work as an argument, so that the pool's policy can be tested with any
behaviour of a video. They never retry by themselves: retries are the driver's decision. What is the same for all tasks
of a kind is part of the function that Ray exports once, and not an argument of each.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from pickle import PickleBuffer
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from lps.manifests.codes import Code, PairFallback, Status
from lps.manifests.environment import scratch_folder
from lps.manifests.errors import RefusedError, UnreadableError, VideoFault
from lps.manifests.records import NO_WINDOWS, OriginalWindows, Outcome, VideoResult
from lps.manifests.sequences.folder import source_sha256
from lps.manifests.sequences.names import archive_of
from lps.manifests.storage import Store
from lps.pipeline.config.params import Limits, Params
from lps.pipeline.faces.detector import CHUNK, Faces, Localizer
from lps.pipeline.faces.localizers import LocalizerSpec, own_localizer
from lps.pipeline.faces.track import DetectFaces
from lps.pipeline.job.events import ShardCommitted, VideoDone
from lps.pipeline.job.shards import ShardJob, ShardVideo, write_shard
from lps.pipeline.video.memory import limit_memory, resident_bytes
from lps.pipeline.video.reading import fault_of_reading
from lps.pipeline.video.source_reader import SourceReader, SourceRef

ProcessFunction = Callable[[SourceReader, ShardVideo, DetectFaces, Params], VideoResult]
MAX_CALLS = 10_000
"""Tasks of a kind after which a worker is replaced whatever its memory is: to load another one takes seconds of CPU."""
MAX_GROWTH_BYTES = 1 << 30
"""How much larger than after its first task a worker's resident memory may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileWork:
    """What is done with files of the source, beside their names."""

    read: Callable[[SourceReader, SourceRef, Limits], Any]
    """Called for each file; what it returns is the file's result."""
    source: SourceReader
    limits: Limits
    memory_bytes: int
    """What a file may add to the memory of its worker."""
    start_times: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoTasks:
    """What is done with the videos of a run, beside the videos."""

    process: ProcessFunction
    source: SourceReader
    params: Params
    memory_bytes: int
    """What a video may add to the memory of its worker."""
    detectors: Sequence[Any]
    """Actors, or the spec of a localizer that each worker loads for itself."""
    start_times: Any


def process_source(source: SourceReader, video: ShardVideo, detect: DetectFaces, params: Params) -> VideoResult:
    """Process one video of a source; that its file cannot be read is its outcome.

    Raises RefusedError if its bytes are not those of the plan.
    """
    file = SourceRef(video.source.uri, video.mark)
    try:
        result = _process(source, file, video, detect, params)
    except RefusedError:
        if not source.forget(file):
            raise
        # a copy that was kept is not what the plan knows; whether the source is, its own bytes decide
        result = _process(source, file, video, detect, params)
    if archive_of(file.uri) is None:  # else others lie in it, too
        source.forget(file)  # nobody needs it any more
    return result


def _process(
    source: SourceReader, file: SourceRef, video: ShardVideo, detect: DetectFaces, params: Params
) -> VideoResult:
    from lps.pipeline.clips.process import process_video

    share: OriginalWindows | PairFallback | None = None
    pairs = params.pair.mode == "original"
    if pairs and video.pair_id is not None and not video.is_original:
        share = video.original or PairFallback.P_ORIGINAL_ELSEWHERE
    try:
        with source.local(file, keep=False, limits=params.limits) as path:
            if _digest(path) == video.sha256.hex():
                return process_video(
                    path,
                    video.source.video_id,
                    detect,
                    params,
                    spool=source.place,
                    share=share,
                    keep_windows=pairs and video.is_original,
                )
    except VideoFault as fault:
        if fault.code == Code.E_UNREADABLE:
            outcome = Outcome(status=Status.FAILED, code=fault.code, stage=fault.stage, detail=fault.detail)
            return VideoResult(video_id=video.source.video_id, outcome=outcome)
    raise RefusedError(f"source changed since the plan was made: {video.source.uri}; restore it or use a new output")


def _digest(path: Path) -> str:
    """Return the digest of a file or sequence. Raises VideoFault where it cannot be read."""
    try:
        return source_sha256(path)
    except OSError as e:
        raise fault_of_reading(e) from e


def file_task(work: FileWork) -> Any:
    """Return the Ray function (label, files) -> for each what `work.read` gives, and the bytes fetched from a store."""

    def read_files(label: str, files: Sequence[SourceRef]) -> list[tuple[Any, int]]:
        work.start_times.started.remote(label)
        values = []
        for file in files:
            limit_memory(work.memory_bytes)
            before = work.source.n_fetched
            value = work.read(work.source, file, work.limits)
            values.append((value, work.source.n_fetched - before))
        leave_when_grown()
        return values

    return ray.remote(num_cpus=1, max_retries=0, max_calls=MAX_CALLS)(read_files)


def leave_when_grown(max_growth_bytes: int = MAX_GROWTH_BYTES) -> None:
    """Let this worker end after the task that it runs, if its memory has grown: no library's leak lasts long.

    Ray ends a worker in order, its result delivered, only after `max_calls` calls: they are counted to their end. Where
    another release of Ray keeps no such count, the worker stays until its calls are over.
    """
    if resident_bytes() - _first_resident_bytes() < max_growth_bytes:
        return
    from ray._private.worker import global_worker

    manager = getattr(global_worker, "function_actor_manager", None)
    calls = getattr(manager, "_num_task_executions", {})  # by function
    for function, info in getattr(manager, "_function_execution_info", {}).items():
        if info.max_calls:
            calls[function] = info.max_calls - 1  # and this one


@cache
def _first_resident_bytes() -> int:
    return resident_bytes()


def run_load(spec: LocalizerSpec) -> None:
    """Load what every video needs into this worker."""
    import scipy.signal  # noqa: F401  takes most of a second

    import lps.pipeline.clips.process  # noqa: F401

    own_localizer(spec)


def process_task(work: VideoTasks) -> Any:
    """Return the Ray function (label, name of the job, number of the detector, video, what its original gave).

    It returns what `run_process` does, as three objects.
    """

    def process(
        label: str, name: str, detector: int, video: ShardVideo, original: OriginalWindows | None = None
    ) -> tuple[VideoDone, VideoResult, OriginalWindows | None]:
        work.start_times.started.remote(label)
        made = run_process(work, name, work.detectors[detector], replace(video, original=original))
        leave_when_grown()
        return made

    return ray.remote(num_cpus=1, max_retries=0, max_calls=MAX_CALLS, num_returns=3)(process)


def run_process(
    work: VideoTasks, name: str, detector: Any, video: ShardVideo
) -> tuple[VideoDone, VideoResult, OriginalWindows | None]:
    """Process one video and return the event for the driver, the result for the shard, and what its fakes need."""
    own = own_localizer(detector) if isinstance(detector, LocalizerSpec) else None
    limit_memory(work.memory_bytes)

    def detect(images: NDArray[np.uint8], *, dense: bool) -> list[Faces]:
        if own is not None:
            return own.detect(images, dense=dense)
        parts = [detector.detect.remote(images[k : k + CHUNK], dense) for k in range(0, len(images), CHUNK)]
        return [faces for part in ray.get(parts) for faces in part]

    started, before = time.perf_counter(), work.source.n_fetched
    result = work.process(work.source, video, detect, work.params)
    done = VideoDone(
        video=name,
        status=str(result.outcome.status),
        code=str(result.outcome.code) if result.outcome.code else None,
        n_clips=len(result.clips),
        n_frames=result.outcome.n_frames_decoded or 0,
        seconds=round(time.perf_counter() - started, 3),
        n_bytes_fetched=work.source.n_fetched - before,
    )
    windows = result.windows or (NO_WINDOWS if video.is_original else None)
    return done, in_place(replace(result, windows=None)), windows_in_place(windows)


AS_THEY_LIE: Callable[[Any], Any] = PickleBuffer


def in_place(result: VideoResult) -> VideoResult:
    """Return the result with images that the store of Ray takes as they lie, and gives back without a copy."""
    clips = tuple(replace(clip, frames=tuple(map(AS_THEY_LIE, clip.frames))) for clip in result.clips)
    return replace(result, clips=clips)


def windows_in_place(original: OriginalWindows | None) -> OriginalWindows | None:
    """Return what an original gave with pictures that the store of Ray takes as `in_place` does."""
    if original is None:
        return None
    windows = (window.with_pictures(tuple(map(AS_THEY_LIE, window.pictures))) for window in original.windows)
    return replace(original, windows=tuple(windows))


def run_commit(
    start_times: Any, label: str, work: tuple[ShardJob, Params, Store], scratch: str | None, *results: VideoResult
) -> ShardCommitted:
    """Write one shard and return the event of its commit. Raises as `write_shard`, also for the scratch disk."""
    import tempfile

    start_times.started.remote(label)
    job, params, out = work
    try:
        with scratch_folder("lps-shard-", scratch) as folder:
            commit = write_shard(job, results, params, out, folder)
    except OSError as e:
        where = scratch or tempfile.gettempdir()
        raise UnreadableError(f"cannot build {job.shard_id} in the scratch folder {where}: {e.strerror or e}") from e
    return ShardCommitted(job.shard_id, commit.rows["clips"].n_rows)


class LocalizerActor:
    """A localizer in a process of its own. Requests that wait together share batches; results do not depend on that."""

    def __init__(self, load: Callable[[], Localizer], batch_size: int) -> None:
        import torch

        torch.set_num_threads(1)
        self._localizer = load()
        self._batch_size = batch_size
        self._waiting: deque[tuple[NDArray[np.uint8], bool, asyncio.Future[list[Faces]]]] = deque()
        self._pump: asyncio.Task[None] | None = None

    async def ready(self) -> int:
        """Return the process id once the weights are loaded."""
        return os.getpid()

    async def detect(self, images: NDArray[np.uint8], dense: bool) -> list[Faces]:  # noqa: FBT001  a Ray call
        """Find the faces of (B, H, W, 3) RGB images."""
        future: asyncio.Future[list[Faces]] = asyncio.get_running_loop().create_future()
        self._waiting.append((images, dense, future))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._serve())
        return await future

    async def _serve(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft()]
            shape, dense = batch[0][0].shape[1:], batch[0][1]
            n_images = len(batch[0][0])
            for request in list(self._waiting):
                alike = request[0].shape[1:] == shape and request[1] == dense
                if alike and n_images + len(request[0]) <= self._batch_size:
                    self._waiting.remove(request)
                    batch.append(request)
                    n_images += len(request[0])
            await self._answer(batch)

    async def _answer(self, batch: list[tuple[NDArray[np.uint8], bool, "asyncio.Future[list[Faces]]"]]) -> None:
        images = np.concatenate([request[0] for request in batch])
        try:
            faces = await asyncio.to_thread(self._localizer.detect, images, dense=batch[0][1])
        except Exception as e:  # noqa: BLE001  every waiting caller must hear of it, or it waits for ever
            for _, _, future in batch:
                future.set_exception(e)
            return
        start = 0
        for request, _, future in batch:
            future.set_result(faces[start : start + len(request)])
            start += len(request)
