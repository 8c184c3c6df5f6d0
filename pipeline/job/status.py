"""Count what is done of a data set that may still be in the making, and reopen failures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from lps.manifests.canonical import sha256_hex
from lps.manifests.codes import Code
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.index import (
    CARDS,
    INDEX_JSON,
    PLAN_JSON,
    PLAN_SPLITS,
    PLAN_VIDEOS,
    JsonRecord,
    committed_shards,
    read_commits,
    read_committed,
    read_plan,
    withdraw_commit,
    withdraw_index,
)
from lps.manifests.schemas import VIDEOS, Row
from lps.manifests.storage import Store, open_store
from lps.pipeline.job.finalize import PAIR_COLUMNS, SUMMARY_COLUMNS, Summary, count_paired, summarise
from lps.pipeline.job.lease import driver_lease
from lps.pipeline.job.plan import plan_table, refuse_other_writer
from lps.pipeline.job.wholeness import Fault, find_faults
from lps.pipeline.video.kept_probes import forget_probes


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
            "pairs": [{"pairing": how, "videos": n} for how, n in self.summary.paired.items()],
        }


def _plan_of(out: Store) -> JsonRecord:
    plan = read_plan(out)
    if plan is None:
        raise UnreadableError(f"{out.url} is not a data set of this program: it has no {PLAN_JSON}")
    if not {"shards", "split"} <= set(plan.values):
        raise UnreadableError(f"{out.join(PLAN_JSON)} is damaged: it names no shards, or no split")
    return plan


def read_status(location: str) -> JobStatus:
    """Count what is committed below `location`. Raises UnreadableError or IntegrityError."""
    out = open_store(location)
    plan = _plan_of(out)
    rows = plan_table(out.read(PLAN_VIDEOS))
    planned = {str(shard["shard_id"]) for shard in plan.values["shards"]}
    done = sorted(committed_shards(out) & planned)
    commits = read_commits(out, done, plan.sha256, older=True)
    known = [_known(row) for row in rows.filter(rows["shard_id"].is_null()).to_pylist()]
    counted = pa.schema([VIDEOS.field(name) for name in SUMMARY_COLUMNS])
    parts = [read_committed(out, commit, "videos", SUMMARY_COLUMNS).columns for commit in commits]
    tables = [pa.Table.from_arrays(columns, schema=counted) for columns in parts]
    videos = pa.concat_tables([pa.Table.from_pylist(known, schema=counted), *tables])
    indexed, in_work = out.exists(INDEX_JSON), planned - set(done)
    # while a run goes on, a tar without its commit record is one that is about to get it
    faults = tuple(f for f in find_faults(out, commits) if indexed or PurePosixPath(f.path).stem not in in_work)
    complete = indexed and not in_work and not faults
    summary = summarise([videos], int(plan.values["split"].get("untied_fakes", 0)))
    if is_paired(plan.values):
        clips = (read_committed(out, commit, "clips", PAIR_COLUMNS) for commit in commits)
        summary = replace(summary, paired=count_paired(clips))
    return JobStatus(complete, len(planned), len(done), rows.num_rows, videos.num_rows, summary, faults)


def is_paired(plan: Row) -> bool:
    """Return whether a plan lets fakes share the windows of their originals; those of older versions say nothing."""
    return bool((plan.get("params", {}).get("pair") or {}).get("mode") == "original")


def _known(row: Row) -> Row:
    skipped = str(row["code"]).startswith("S_")
    return {
        "label": row["label"],
        "split": row["split"],
        "status": "skipped" if skipped else "failed",
        "error_code": row["code"],
        "n_clips": 0,
    }


@dataclass(frozen=True, slots=True)
class Reopened:
    """What the next run does again."""

    n_videos: int
    n_shards: int
    """Shards that were committed."""
    replanned: bool
    """The plan itself is made anew."""


def reopen(location: str, codes: Sequence[str], *, replan: bool = False) -> Reopened:
    """Withdraw the commits of all shards that hold a video with one of `codes`.

    A fault that was found before the plan was made, such as in a header, is part of the plan: then that is withdrawn
    with all that follows from it, which `replan` must allow where there are commits. Withdrawn records are kept below
    runs/withdrawn/. The index goes first: until the next run is through, the data set is not complete. Raises
    RefusedError for unknown codes, where nothing has them, where `replan` is needed, and while another driver writes.
    """
    unknown = sorted(set(codes) - {str(code) for code in Code})
    if unknown:
        raise RefusedError(
            f"unknown code '{unknown[0]}'; known ones: {', '.join(code for code in Code if code[0] == 'E')}"
        )
    out = open_store(location)
    _plan_of(out)
    refuse_other_writer(out)
    with driver_lease(out, "retry"):
        return _reopened(out, codes, replan=replan)


def _reopened(out: Store, codes: Sequence[str], *, replan: bool) -> Reopened:
    plan = _plan_of(out)
    committed = sorted(committed_shards(out))
    chosen: dict[str, int] = {}
    for commit in read_commits(out, committed, plan.sha256):
        found = read_committed(out, commit, "videos", ["error_code"])["error_code"].to_pylist()
        if n := sum(code in codes for code in found):
            chosen[commit.shard_id] = n
    faults = {code for code in codes if code.startswith("E_")}
    rows = plan_table(out.read(PLAN_VIDEOS))
    n_planned = sum(code in faults for code in rows.filter(rows["shard_id"].is_null())["code"].to_pylist())
    if not chosen and not n_planned:
        raise RefusedError(f"no video of {out.url} has ended with code {' or '.join(codes)}")
    if n_planned and committed and not replan:
        raise RefusedError(
            f"the fault of {n_planned} of these videos was found before the plan was made, and is part of it; with "
            f"--replan the plan is made anew, and so are all {len(committed)} shards that are done"
        )
    withdraw_index(out)
    withdrawn = committed if n_planned else list(chosen)
    for shard_id in withdrawn:
        withdraw_commit(out, shard_id)
    if n_planned:
        _withdraw_plan(out, faults)
    return Reopened(sum(chosen.values()) + n_planned, len(withdrawn), bool(n_planned))


def _withdraw(out: Store, uri: str, name: str) -> None:
    """Move a record below runs/withdrawn/; `name` has a place for the first digits of its digest."""
    record = out.read(uri)
    out.publish(f"runs/withdrawn/{name.format(sha256_hex(record)[:12])}", record)
    out.delete(uri)


def _withdraw_plan(out: Store, faults: set[str]) -> None:
    """Let the next run make the plan anew, and read again the headers of what ended with one of `faults`.

    What followed from the plan goes: another one may fill other shards, and has other videos to split.
    """
    for folder in ("shards", "manifests", "commits"):  # rows whose record is withdrawn
        for file in list(out.walk(folder)):
            out.delete(file.path)
    for card in CARDS:
        out.delete(card)
    forget_probes(out, faults)
    _withdraw(out, PLAN_JSON, "plan-{}.json")
    for uri in (PLAN_VIDEOS, PLAN_SPLITS):
        out.delete(uri)
