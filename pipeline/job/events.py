"""What a run tells while it works: one dataclass for each event, whose `kind` names it in the log below runs/."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from lps.manifests.records import Note


@dataclass(frozen=True, slots=True)
class PrepStarted:
    """The output can be written, and is this run's."""

    kind: ClassVar[str] = "start"
    run_id: str


@dataclass(frozen=True, slots=True)
class ClusterReady:
    """Ray is there: at once where the output has no plan yet, else when there is something to do."""

    kind: ClassVar[str] = "cluster"
    workers: int
    gpus: int


@dataclass(frozen=True, slots=True)
class SourcesListed:
    """The adapter has read the source."""

    kind: ClassVar[str] = "sources"
    n_videos: int
    """Rows of the adapter, whatever they are."""
    n_files: int


@dataclass(frozen=True, slots=True)
class SourceProbed:
    """One more header was read. Shown, and not kept in the log."""

    kind: ClassVar[str] = "probed"
    n_done: int
    n_videos: int


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan is published."""

    kind: ClassVar[str] = "planned"
    n_videos: int
    n_left: int
    """Videos in shards that are not committed yet."""
    n_shards: int
    """Shards that are not committed yet."""


@dataclass(frozen=True, slots=True)
class SourceRead:
    """How much of a source that is not local was read by the end of the run; more than its bytes is read twice."""

    kind: ClassVar[str] = "source-read"
    n_bytes_fetched: int
    """Bytes of files that came from the store, of all attempts that gave a result."""
    n_bytes_source: int
    """Bytes of the files that the run had to look at."""


@dataclass(frozen=True, slots=True)
class DetectorsReady:
    """The localizer is loaded wherever it runs."""

    kind: ClassVar[str] = "ready"
    n_detectors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoDone:
    """One video has its result."""

    kind: ClassVar[str] = "video"
    video: str
    """Shard id, slash, video id in hex."""
    status: str
    code: str | None
    n_clips: int
    n_frames: int
    seconds: float | None
    """Time on the worker; None for a video that was quarantined."""
    n_bytes_fetched: int = 0
    """Bytes that were read from a store that is not local, for this step alone."""


@dataclass(frozen=True, slots=True)
class ShardCommitted:
    """A shard and its commit record are written."""

    kind: ClassVar[str] = "shard"
    shard_id: str
    n_samples: int


@dataclass(frozen=True, slots=True)
class JobRetried:
    """The cluster lost a job, which is tried again without a charge."""

    kind: ClassVar[str] = "retry"
    job: str
    cause: str
    pause_s: float


@dataclass(frozen=True, slots=True)
class JobCharged:
    """A job failed by its own fault, and is tried once more."""

    kind: ClassVar[str] = "charge"
    job: str
    code: str
    detail: str
    charges: int


@dataclass(frozen=True, slots=True)
class JobQuarantined:
    """A job failed by its own fault too often."""

    kind: ClassVar[str] = "quarantine"
    job: str
    code: str
    detail: str
    charges: int


@dataclass(frozen=True, slots=True)
class Finalized:
    """Manifests and index are written."""

    kind: ClassVar[str] = "finalize"
    n_videos: int
    n_ok: int


PrepEvent = (
    Note
    | PrepStarted
    | ClusterReady
    | SourcesListed
    | SourceProbed
    | SourceRead
    | Planned
    | DetectorsReady
    | VideoDone
    | ShardCommitted
    | JobRetried
    | JobCharged
    | JobQuarantined
    | Finalized
)
OnEvent = Callable[[PrepEvent], None]


def event_record(event: PrepEvent) -> dict[str, Any]:
    """Return the event as plain JSON values, its kind among them."""
    return {"kind": event.kind, **asdict(event)}
