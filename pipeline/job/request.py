"""What data set to make, how to make it, and what every step of a run shares."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lps.manifests.canonical import canonical_json
from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import Store
from lps.pipeline.config.params import Params
from lps.pipeline.config.settings import DEFAULT_SHARD_MB, RunSettings
from lps.pipeline.job.cluster import Cluster, ray_cluster
from lps.pipeline.job.events import ClusterReady, OnEvent, PrepEvent, event_record
from lps.pipeline.job.lease import Lease
from lps.pipeline.job.start_times import start_times_actor
from lps.pipeline.job.tasks import ProcessFunction, process_source
from lps.pipeline.video.source_reader import SourceReader

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepRequest:
    """What data set to make."""

    source: str
    """Folder, table file or URL."""
    root: str | None = None
    """Folder or URL that the paths of a table are relative to; None: the table's own."""
    out: str
    dataset: str = "folder"
    """Layout of the source, or `auto`."""
    params: Params = field(default_factory=Params)
    split: SplitParams = field(default_factory=SplitParams)
    shard_mb: int = DEFAULT_SHARD_MB
    splits_dir: str | None = None
    split_lists: tuple[str, ...] = ()
    """Lists of DeepfakeBench, paths or fsspec URLs, that give the published splits instead of the source's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions(RunSettings):
    """How and where to make it: nothing here changes a byte of the result."""

    workers: int | None = None
    address: str | None = None
    weights_dir: Path | None = None
    verify: bool = False
    """Compare every byte of what is committed, not sizes alone."""
    process: ProcessFunction = process_source
    """What a worker does with a video; tests replace it."""

    @property
    def memory_bytes(self) -> int:
        """`memory_mb` in bytes."""
        return self.memory_mb * MIB

    @property
    def source_cache_bytes(self) -> int:
        """`source_cache_mb` in bytes."""
        return int(self.source_cache_mb * MIB)


def ignore_event(event: PrepEvent) -> None:
    """Take an event and say nothing."""


@dataclass(slots=True)
class EventLog:
    """Events of one run: told to the caller at once, and kept below runs/ in segments."""

    out: Store
    run_id: str
    on_event: OnEvent
    pending: list[bytes]
    n_segments: int = 0

    def __call__(self, event: PrepEvent) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.pending.append(canonical_json({"at": stamp, **event_record(event)}))
        self.on_event(event)

    def flush(self) -> None:
        """Publish what has gathered since the last flush."""
        if self.pending:
            self.n_segments += 1
            data = b"\n".join(self.pending) + b"\n"
            self.out.publish(f"runs/{self.run_id}/events-{self.n_segments:06d}.jsonl", data)
            self.pending.clear()


@dataclass(slots=True)
class SourceTraffic:
    """What a run reads of a source that is not local; grows with each step."""

    n_bytes_fetched: int = 0
    n_bytes_source: int = 0


@dataclass(slots=True, kw_only=True)
class RunContext:
    """What every step of a run shares. Ray starts when a step first needs it: a run may have nothing to do."""

    request: PrepRequest
    options: RunOptions
    source: SourceReader
    out: Store
    lease: Lease
    log: EventLog
    opened: ExitStack
    """What ends with the run."""
    traffic: SourceTraffic = field(default_factory=SourceTraffic)
    _ray: tuple[Cluster, Any] | None = None

    @property
    def has_ray(self) -> bool:
        """Whether Ray has started."""
        return self._ray is not None

    @property
    def cluster(self) -> Cluster:
        """What there is to work with. Raises as `ray_cluster` does."""
        return self.start_ray()[0]

    @property
    def start_times(self) -> Any:
        """Handle of the actor `StartTimes`. Raises as `ray_cluster` does."""
        return self.start_ray()[1]

    def start_ray(self) -> tuple[Cluster, Any]:
        """Return `cluster` and `start_times`."""
        if self._ray is None:
            cluster = self.opened.enter_context(ray_cluster(self.options.address, self.options.workers))
            self._ray = cluster, start_times_actor()
            self.log(ClusterReady(cluster.n_workers, cluster.n_gpus))
        return self._ray
