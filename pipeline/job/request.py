"""What data set to make, how to make it, and the events that tell how far it is."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lps.manifests.canonical import canonical_json
from lps.manifests.splits.assign import SplitParams
from lps.manifests.storage import Store
from lps.pipeline.config.params import Params
from lps.pipeline.config.settings import DEFAULT_SHARD_MB, RunSettings
from lps.pipeline.job.tasks import ProcessFunction, process_source

MIB = 1 << 20

OnEvent = Callable[[str, dict[str, Any]], None]
"""`on_event(kind, facts)`: `start`, `sources`, `note`, `probed`, `planned`, `ready`, `video`, `shard`, `retry`,
`charge`, `quarantine`, `finalize`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepRequest:
    """What data set to make."""

    source: str
    """Folder, table file or URL."""
    out: str
    dataset: str
    params: Params
    split: SplitParams
    shard_mb: int = DEFAULT_SHARD_MB
    splits_dir: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions(RunSettings):
    """How and where to make it: nothing here changes a byte of the result."""

    workers: int | None = None
    address: str | None = None
    weights_dir: Path | None = None
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
