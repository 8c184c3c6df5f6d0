"""Count what is done of a data set that may still be in the making, and reopen failures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from lps.manifests.canonical import sha256_hex
from lps.manifests.codes import QUARANTINE_CODES, Code
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.index import INDEX_JSON, PLAN_JSON, PLAN_VIDEOS, JsonRecord, read_plan
from lps.manifests.schemas import Row
from lps.manifests.storage import Store, open_store
from lps.pipeline.job.finalize import Summary, committed_shards, read_commit, summarise
from lps.pipeline.job.plan import plan_rows, refuse_other_writer
from lps.pipeline.job.shards import commit_uri
from lps.pipeline.job.wholeness import Fault, find_faults


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How far a data set is."""

    complete: bool
    """Manifests and index are written, and nothing is known to be wrong."""
    n_shards: int
    n_shards_done: int
    n_videos: int
    n_videos_done: int
    summary: Summary
    faults: tuple[Fault, ...]
    """Files that are not as the commit records and the index say, by size."""

    def record(self) -> dict[str, Any]:
        """Return the status as plain JSON values."""
        return {
            "complete": self.complete,
            "shards": {"total": self.n_shards, "done": self.n_shards_done},
            "videos": {
                "total": self.n_videos,
                "done": self.n_videos_done,
                "with_clips": self.summary.n_ok,
                "quarantined": self.summary.n_quarantined,
                "untied_fakes": self.summary.untied_fakes,
            },
            "clips": [
                {"split": split, "label": label, "videos": videos, "clips": clips}
                for (split, label), (videos, clips) in self.summary.by_split.items()
            ],
            "faults": [{"path": fault.path, "detail": fault.detail} for fault in self.faults],
            "codes": [{"code": code, "label": label, "videos": n} for (code, label), n in self.summary.by_code.items()],
        }


def _plan_of(out: Store) -> JsonRecord:
    plan = read_plan(out)
    if plan is None:
        raise UnreadableError(f"{out.url} is not a data set of this program: it has no {PLAN_JSON}")
    return plan


def read_status(location: str) -> JobStatus:
    """Count what is committed below `location`. Raises UnreadableError or IntegrityError."""
    out = open_store(location)
    plan = _plan_of(out)
    rows = plan_rows(out.read(PLAN_VIDEOS))
    planned = {str(shard["shard_id"]) for shard in plan.values["shards"]}
    done = sorted(committed_shards(out) & planned)
    videos = [_known(row) for row in rows if row["shard_id"] is None]
    tars: dict[str, Row | None] = {}
    for shard_id in done:
        commit = read_commit(out, shard_id, plan.sha256)
        videos += commit["videos"]
        tars[shard_id] = commit["shard"]
    indexed, in_work = out.exists(INDEX_JSON), planned - set(done)
    # while a run goes on, a tar without its commit record is one that is about to get it
    faults = tuple(f for f in find_faults(out, tars) if indexed or PurePosixPath(f.path).stem not in in_work)
    complete = indexed and not in_work and not faults
    summary = summarise(videos, int(plan.values["split"].get("untied_fakes", 0)))
    return JobStatus(complete, len(planned), len(done), len(rows), len(videos), summary, faults)


def _known(row: Row) -> Row:
    skipped = str(row["code"]).startswith("S_")
    return {
        "label": row["label"],
        "split": row["split"],
        "status": "skipped" if skipped else "failed",
        "error_code": row["code"],
        "n_clips": 0,
    }


def reopen(location: str, codes: Sequence[str]) -> tuple[int, int]:
    """Withdraw the commits of all shards that hold a video with one of `codes`. Returns (videos, shards) reopened.

    Withdrawn records are kept below runs/withdrawn/. The index goes first: until the next run is through, the data set
    is not complete. Raises RefusedError for unknown codes and where nothing has them.
    """
    unknown = sorted(set(codes) - {str(code) for code in Code})
    if unknown:
        raise RefusedError(
            f"unknown code '{unknown[0]}'; known ones: {', '.join(code for code in Code if code[0] == 'E')}"
        )
    out = open_store(location)
    plan = _plan_of(out)
    refuse_other_writer(out)
    chosen: dict[str, int] = {}
    for shard_id in sorted(committed_shards(out)):
        n = sum(row["error_code"] in codes for row in read_commit(out, shard_id, plan.sha256)["videos"])
        if n:
            chosen[shard_id] = n
    _refuse_probed(out, codes)
    if not chosen:
        raise RefusedError(f"no committed video of {location} has code {' or '.join(codes)}")
    out.delete(INDEX_JSON)
    for shard_id in chosen:
        record = out.read(commit_uri(shard_id))
        out.publish(f"runs/withdrawn/{shard_id}-{sha256_hex(record)[:12]}.json", record)
        out.delete(commit_uri(shard_id))
    return sum(chosen.values()), len(chosen)


def _refuse_probed(out: Store, codes: Sequence[str]) -> None:
    """Raise RefusedError for videos that were quarantined while their headers were read.

    They are in no shard: the plan knows their code, and a plan does not change. Nothing can be reopened for them.
    """
    quarantined = {str(code) for code in QUARANTINE_CODES} & set(codes)
    n = sum(row["code"] in quarantined for row in plan_rows(out.read(PLAN_VIDEOS))) if quarantined else 0
    if n:
        raise RefusedError(
            f"{n} videos were quarantined while their headers were read, so the plan itself holds their code; "
            "plan them again in a new output"
        )
