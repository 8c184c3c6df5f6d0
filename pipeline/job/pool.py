"""The driver's policy: what to submit, what to retry, what to charge, what to give up on.

Loss of a node, an actor or an object is the cluster's fault: the job is submitted again after a pause and the video is
not charged. A crash, a timeout or running out of memory is charged; the second charge quarantines the video. A fault of
the content never comes here: it is part of the result.
"""

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import exceptions as rx

from lps.manifests.codes import Code
from lps.manifests.errors import LpsError, UnreadableError
from lps.pipeline.job.cluster import POLL_SECONDS, ray_ended, require_ray
from lps.pipeline.job.events import JobCharged, JobQuarantined, JobRetried, OnEvent

MAX_CHARGES = 2
MAX_LOSSES = 20
"""Losses in a row of one job after which the cluster itself is not usable."""
MAX_STORE_ERRORS = 3
"""Store errors of one job after which the store is not usable."""
FIRST_VIDEOS = 20
"""If so many, the first of a job or all of a small one, end with E_INTERNAL alike, it is not for a reason of theirs."""
BATCH_FILES, BATCH_BYTES = 32, 32 << 20
"""The most files that are read in one task, and the most bytes of several."""

INFRASTRUCTURE = (
    rx.NodeDiedError,
    rx.ActorDiedError,
    rx.ActorUnavailableError,
    rx.ObjectLostError,
    rx.OwnerDiedError,
    rx.RaySystemError,
    rx.ObjectFetchTimedOutError,
    rx.ObjectStoreFullError,
    rx.OutOfDiskError,
)


@dataclass(frozen=True, slots=True)
class ProbeJob:
    """Read the header of a source file, or of several small ones."""

    uri: str
    """The first one's."""
    n_files: int = 1

    def __str__(self) -> str:
        return self.uri if self.n_files == 1 else f"{self.uri} and {self.n_files - 1} more"


@dataclass(frozen=True, slots=True)
class VideoJob:
    """Process one video of a shard."""

    shard_id: str
    video_id: bytes

    def __str__(self) -> str:
        return f"{self.shard_id}/{self.video_id.hex()}"


@dataclass(frozen=True, slots=True)
class CommitJob:
    """Write a shard whose videos are all processed."""

    shard_id: str

    def __str__(self) -> str:
        return f"commit/{self.shard_id}"


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of work. `submit` starts an attempt and returns its reference; the key is unique in a run."""

    key: ProbeJob | VideoJob | CommitJob
    submit: Callable[[str], Any]
    """Called with the attempt's own name, under which the worker reports its start."""
    deadline_seconds: float
    has_inputs: bool = False
    """True for jobs whose arguments are results of other jobs."""
    parts: tuple["Job", ...] = ()
    """Jobs that together do the same. They take its place where it fails, so that only the one at fault is charged."""

    @property
    def name(self) -> str:
        """What events and messages call it."""
        return str(self.key)


@dataclass(frozen=True, slots=True)
class Done:
    """The job gave a result."""

    job: Job
    value: Any
    """What the reference held."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """The job was charged too often."""

    job: Job
    code: Code
    detail: str


@dataclass(frozen=True, slots=True)
class LostInputs:
    """Objects that the job was given are gone with their node; whoever made them must make them again."""

    job: Job


End = Done | Quarantined | LostInputs


def file_jobs(
    sizes: Mapping[str, int | None], submit: Callable[[str, Sequence[str]], Any], width: int, deadline_seconds: float
) -> Iterator[Job]:
    """Yield the jobs that read files, given with their bytes: small ones together, as long as `width` workers are busy.

    `submit` is called with the attempt's name and uris, and its reference is to hold one value per uri.
    """

    def job(uris: Sequence[str]) -> Job:
        parts = tuple(job([uri]) for uri in uris) if len(uris) > 1 else ()
        key = ProbeJob(uris[0], len(uris))
        return Job(key, lambda label: submit(label, uris), deadline_seconds, parts=parts)

    most = min(BATCH_FILES, max(1, len(sizes) // (4 * width)))
    batch: list[str] = []
    n_bytes = 0
    for uri, size in sizes.items():
        size = BATCH_BYTES if size is None else size
        if batch and (len(batch) == most or n_bytes + size > BATCH_BYTES):
            yield job(batch)
            batch, n_bytes = [], 0
        batch.append(uri)
        n_bytes += size
    if batch:
        yield job(batch)


def file_ends(ends: Iterable[End]) -> Iterator[tuple[str, "Done | Quarantined"]]:
    """Yield uri and end of each file of `file_jobs`, the value of a `Done` being that of the file."""
    for end in ends:
        if isinstance(end, Done):
            jobs = end.job.parts or (end.job,)
            for job, value in zip(jobs, end.value, strict=True):
                yield job.name, Done(job, value)
        elif isinstance(end, Quarantined):
            yield end.job.name, end


@dataclass(slots=True)
class FirstVideos:
    """Watches how the first videos of a job end."""

    n_videos: int
    """Videos of the whole job; the first FIRST_VIDEOS at most are watched."""
    _n_alike: int = 0
    _kind: str = ""

    def note(self, end: End) -> None:
        """Note how a job ended. Raises LpsError where all of the first videos ended with E_INTERNAL of one kind."""
        if not isinstance(end.job.key, (ProbeJob, VideoJob)):
            return
        detail = end.detail if isinstance(end, Quarantined) and end.code == Code.E_INTERNAL else ""
        kind = detail.partition(":")[0]  # of exception; what follows may name the file
        if not kind or kind != (self._kind or kind):
            self.n_videos = 0  # no longer watched
        self._kind, self._n_alike = kind, self._n_alike + 1
        if self._n_alike == min(self.n_videos, FIRST_VIDEOS):  # never, once it is 0
            raise LpsError(
                f"{'all' if self._n_alike == self.n_videos else 'the first'} {self._n_alike} videos ended with "
                f"{Code.E_INTERNAL} ({detail}): the fault is in this program, or in a library that it was not tested "
                "with; please report it. Versions that were tested are in constraints.txt of the source"
            )


@dataclass(slots=True)
class _JobState:
    job: Job
    label: str = ""
    """Name of the running attempt. No two attempts of a run share one, even if a job of the same name comes again."""
    charges: int = 0
    losses: int = 0
    store_errors: int = 0
    timed_out: bool = False


@dataclass(slots=True)
class Pool:
    """Runs jobs with at most `width` in flight, under the policy above."""

    width: int
    start_times: Any
    on_event: OnEvent
    """Told of retries, charges and quarantines."""
    check: Callable[[], None] = lambda: None
    """Called once in POLL_SECONDS; raises what must stop the run."""
    first: FirstVideos | None = None
    """Told of ends, where nothing has succeeded in this job before."""
    pause_seconds: float = 1.0
    """First pause after a loss; doubles with each further one, up to a minute."""
    _in_flight: dict[Any, _JobState] = field(default_factory=dict)
    _backing_off: list[tuple[float, int, _JobState]] = field(default_factory=list)
    _count: int = 0
    _attempts: int = 0
    _deadlines_checked: float = 0.0
    """When that was last done, on the monotonic clock."""

    def run(self, jobs: Iterator[Job]) -> Iterator[End]:
        """Yield every job's end, in order of completion.

        Raises the LpsError that a job raised on purpose, and as `FirstVideos` does.
        """
        require_ray()
        try:
            while True:
                # jobs may become available while others run, so the iterator is asked again after it was empty
                while len(self._in_flight) < self.width and (state := self._next_after_backoff() or self._next(jobs)):
                    self._launch(state)
                if not self._in_flight and not self._backing_off:
                    return
                for end in self._collect():
                    if self.first is not None:
                        self.first.note(end)
                    yield end
        finally:
            for ref in list(self._in_flight):
                _cancel(ref)
            self._in_flight.clear()

    @staticmethod
    def _next(jobs: Iterator[Job]) -> _JobState | None:
        job = next(jobs, None)
        return None if job is None else _JobState(job)

    def _next_after_backoff(self) -> _JobState | None:
        if self._backing_off and self._backing_off[0][0] <= time.monotonic():
            return heapq.heappop(self._backing_off)[2]
        return None

    def _launch(self, state: _JobState) -> None:
        self._attempts += 1
        state.label = f"{state.job.name}#{self._attempts}"
        state.timed_out = False
        self._in_flight[state.job.submit(state.label)] = state

    def _back_off(self, state: _JobState, seconds: float) -> None:
        self._count += 1  # a heap needs a tie-breaker
        heapq.heappush(self._backing_off, (time.monotonic() + seconds, self._count, state))

    def _collect(self) -> Iterator[End]:
        if not self._in_flight:
            # nothing runs: sleep until the first pause is over
            time.sleep(max(0.0, self._backing_off[0][0] - time.monotonic()))
            return
        ready, _ = ray.wait(list(self._in_flight), num_returns=1, timeout=POLL_SECONDS)
        for ref in ready:
            state = self._in_flight.pop(ref)
            try:
                yield Done(state.job, ray.get(ref))
            except rx.LocalRayletDiedError as error:  # ours: no attempt can succeed any more
                raise ray_ended("raylet") from error
            except rx.RayError as error:
                cause = _innermost(error)
                if state.job.parts and not isinstance(cause, INFRASTRUCTURE):
                    self._take_apart(state.job)
                elif (end := self._handle_failure(state, cause)) is not None:
                    yield end
        # by the clock: on a busy cluster something is always ready, and a hanging job must not wait for a lull
        if time.monotonic() - self._deadlines_checked >= POLL_SECONDS:
            require_ray()
            self.check()
            self._enforce_deadlines()

    def _enforce_deadlines(self) -> None:
        self._deadlines_checked = time.monotonic()
        labels = [state.label for state in self._in_flight.values()]
        try:
            ages: dict[str, float] = ray.get(self.start_times.ages.remote(labels), timeout=30)
        except rx.RayError:
            return  # the next round asks again
        for ref, state in self._in_flight.items():
            if not state.timed_out and ages.get(state.label, 0.0) > state.job.deadline_seconds:
                state.timed_out = True
                _cancel(ref)

    def _take_apart(self, job: Job) -> None:
        for part in job.parts:
            self._back_off(_JobState(part), 0.0)

    def _handle_failure(self, state: _JobState, cause: BaseException) -> End | None:
        """Decide on a failed attempt: back off and retry, or quarantine. Raises what must stop the run."""
        if state.timed_out:
            return self._charge(state, Code.E_TIMEOUT, f"no result after {state.job.deadline_seconds:.0f} s")
        if isinstance(cause, UnreadableError):
            state.store_errors += 1
            if state.store_errors >= MAX_STORE_ERRORS:
                raise cause
            self._retry(state, cause)
            return None
        if isinstance(cause, LpsError):
            raise cause
        if isinstance(cause, (rx.OutOfMemoryError, MemoryError)):
            return self._charge(state, Code.E_OOM, "memory limit reached")
        if state.job.has_inputs and isinstance(cause, (rx.ObjectLostError, rx.OwnerDiedError)):
            return LostInputs(state.job)
        if isinstance(cause, INFRASTRUCTURE) or type(cause).__name__ == "OutOfMemoryError":  # torch's, on a shared GPU
            self._retry(state, cause)
            return None
        if isinstance(cause, (rx.WorkerCrashedError, rx.TaskCancelledError)):
            return self._charge(state, Code.E_WORKER_LOST, "the worker process died")
        # as it stands in manifests; errors.first_line leaves the path out of an OSError
        text = str(cause).splitlines()[0] if str(cause) else ""
        return self._charge(state, Code.E_INTERNAL, f"{type(cause).__name__}: {text}")

    def _retry(self, state: _JobState, cause: BaseException) -> None:
        state.losses += 1
        if state.losses > MAX_LOSSES:
            raise LpsError(
                f"the cluster lost '{state.job.name}' {state.losses} times ({type(cause).__name__}); giving up"
            )
        pause = min(60.0, self.pause_seconds * 2 ** (state.losses - 1))
        self.on_event(JobRetried(state.job.name, type(cause).__name__, pause))
        self._back_off(state, pause)

    def _charge(self, state: _JobState, code: Code, detail: str) -> Quarantined | None:
        state.charges += 1
        facts = (state.job.name, str(code), detail, state.charges)
        if state.charges >= MAX_CHARGES:
            self.on_event(JobQuarantined(*facts))
            return Quarantined(state.job, code, detail)
        self.on_event(JobCharged(*facts))
        self._back_off(state, 0.0)
        return None


def _cancel(ref: Any) -> None:
    try:
        ray.cancel(ref, force=True)
    except (rx.RayError, ValueError):
        return  # it ended in the meantime


def _innermost(error: BaseException) -> BaseException:
    """Unwrap what was raised inside a task, also inside a task's own call to an actor."""
    seen = 0
    while isinstance(error, rx.RayTaskError) and isinstance(error.cause, BaseException) and seen < 10:
        error, seen = error.cause, seen + 1
    return error
