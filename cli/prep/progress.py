"""What `lps-prep` shows: a bar on a terminal, plain lines elsewhere, and tables at the end."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc
from rich.table import Table

from lps.cli.common import SEE_CODES, ProgressView, codes_table, console, echo
from lps.manifests.codes import fallback_meaning
from lps.manifests.names import UNTIED_FAKES, label_name
from lps.manifests.records import Note
from lps.pipeline.job.events import (
    JobCharged,
    JobQuarantined,
    JobRetried,
    Planned,
    PrepEvent,
    ShardCommitted,
    SourceProbed,
    SourceRead,
    SourcesListed,
    VideoDone,
)
from lps.pipeline.job.finalize import SHARED, Summary
from lps.pipeline.job.plan import Plan, clips_bound
from lps.pipeline.job.status import JobStatus
from lps.pipeline.job.wholeness import fault_lines

READING = "reading headers"


class PrepProgress(ProgressView):
    """Shows a run's events."""

    def __init__(self) -> None:
        super().__init__()
        self._n_done = self._n_clips = self._n_frames = self._n_failed = 0

    def on_event(self, event: PrepEvent) -> None:
        """Take one event of the run."""
        match event:
            case SourceProbed(n_done, n_videos):
                if self.what != READING:
                    self.start(READING, n_videos, done=n_done - 1)
                self.update(n_done)
            case Planned():
                self._planned(event)
            case VideoDone():
                self._video_done(event)
            case _:
                if line := _line(event):
                    self.say(line)

    def _planned(self, event: Planned) -> None:
        already = event.n_videos - event.n_left
        resumed = f", {already} done before" if already else ""
        self.say(f"planned: {event.n_videos} videos{resumed}, {event.n_shards} shards to write")
        self.start("processing", event.n_left, unit="videos")

    def _video_done(self, event: VideoDone) -> None:
        self._n_done += 1
        self._n_clips += event.n_clips
        self._n_frames += event.n_frames
        self._n_failed += event.status == "failed"
        rate = self._n_frames / self.seconds
        self.update(self._n_done, f"{self._n_clips} clips, {self._n_failed} without, {rate:.0f} frames/s")


def _line(event: PrepEvent) -> str:
    """Return what is said of an event; empty for those that say nothing."""
    match event:
        case Note(text):
            return f"note: {text}"
        case SourcesListed(n_videos):
            return f"sources: {n_videos} files"
        case SourceRead(n_fetched, n_source):
            times = f" ({n_fetched / n_source:.2f} times)" if n_source else ""
            return f"source: {n_fetched / 1e6:.1f} MB read from the store for {n_source / 1e6:.1f} MB of files{times}"
        case JobRetried(job, cause):
            return f"retry: {job} ({cause}), not charged"
        case JobCharged(job, code, detail):
            return f"charged: {job} {code} ({detail}), one more try"
        case JobQuarantined(job, code, detail):
            return f"quarantined: {job} {code} ({detail})"
        case ShardCommitted(shard_id, n_samples):
            return f"committed: {shard_id}, {n_samples} clips"
    return ""


def print_summary(summary: Summary, location: str) -> None:
    """Print what a data set holds."""
    out = console()
    _print_counts(summary, complete=True)
    _print_untied(summary.untied_fakes)
    out.print(
        f"{summary.n_videos} input files: {summary.n_ok} with clips, {summary.n_quarantined} quarantined. "
        f"Data set: {location}",
        highlight=False,
        markup=False,
    )


def _print_untied(n: int) -> None:
    """Say aloud how many fakes a split may part from their originals."""
    if n:
        echo(f"{n} {UNTIED_FAKES}: nothing ties them to a real video, which may be in another split")


def _print_counts(summary: Summary, *, complete: bool) -> None:
    out = console()
    if summary.by_split:
        out.print(_clips_table(summary.by_split))
    if summary.by_code:
        out.print(codes_table(summary.by_code))
    _print_paired(summary.paired)
    if summary.by_code or set(summary.paired) - {SHARED}:
        echo(SEE_CODES)
    if complete:
        for split, label, n_videos in summary.without_clips:
            out.print(f"no clips: {split} {label}, of {n_videos} videos", highlight=False)


def _print_paired(paired: Mapping[str, int]) -> None:
    """Say how many fakes share the window and cut of their originals, and why others do not."""
    if not paired:
        return
    n_sharing, n_fakes = paired.get(SHARED, 0), sum(paired.values())
    echo(f"{n_sharing} of {n_fakes} fakes of a known original share its window and cut")
    for code, n in paired.items():
        if code != SHARED:
            echo(f"  {n} fell back on their own, {code}: {fallback_meaning(code)}")


def _clips_table(by_split: dict[tuple[str, str], tuple[int, int]]) -> Table:
    table = Table("split", "label", "videos", "clips", title="clips")
    for (split, label), (videos, clips) in by_split.items():
        table.add_row(split, label, str(videos), str(clips))
    return table


def print_status(status: JobStatus, location: str) -> None:
    """Print how far a data set is."""
    out = console()
    state = "complete" if status.complete else "not whole" if status.faults else "in progress"
    out.print(
        f"{location}: {state}; {status.n_shards_done} of {status.n_shards} shards, "
        f"{status.n_videos_done} of {status.n_videos} videos",
        highlight=False,
        markup=False,
    )
    _print_counts(status.summary, complete=status.complete)
    _print_untied(status.summary.untied_fakes)
    for line in fault_lines(status.faults):
        out.print(f"not whole: {line}", highlight=False, markup=False)


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return what a run of this plan would make and cost, as plain JSON values."""
    chosen = plan.rows.filter(plan.rows["shard_id"].is_valid())
    by_split = []
    for split in sorted(chosen["split"].unique().to_pylist()):
        rows = chosen.filter(pc.equal(chosen["split"], split))
        by_split.append(
            {
                "split": split,
                "videos": rows.num_rows,
                "shards": pc.count_distinct(rows["shard_id"]).as_py(),
                "max_clips": int(clips_bound(rows["n_frames_promised"], plan.spec.params).sum()),
                "frames": pc.sum(rows["n_frames_promised"]).as_py(),
            }
        )
    coded = plan.rows.filter(plan.rows["code"].is_valid()).select(["code", "label"]).to_pylist()
    codes = Counter((row["code"], label_name(row["label"])) for row in coded)
    return {
        "plan_sha256": plan.sha256,
        "n_videos": plan.rows.num_rows,
        "splits": by_split,
        "codes": [{"code": code, "label": label, "videos": n} for (code, label), n in sorted(codes.items())],
        "untied_fakes": plan.untied_fakes,
        "estimate": plan.estimate(),
    }


def print_plan(plan: Plan) -> None:
    """Print what a run of this plan would make and cost."""
    out, record = console(), plan_record(plan)
    table = Table("split", "videos", "shards", "clips at most", "frames", title="plan")
    for row in record["splits"]:
        table.add_row(*map(str, row.values()))
    out.print(table)
    if record["codes"]:
        out.print(codes_table({(row["code"], row["label"]): row["videos"] for row in record["codes"]}))
        echo(SEE_CODES)
    _print_untied(plan.untied_fakes)
    for line in record["estimate"]:
        out.print(line, highlight=False)


def print_weights() -> None:
    """Print every weight file."""
    from lps.pipeline.faces.weights import LOCALIZER_WEIGHTS

    for localizer, files in LOCALIZER_WEIGHTS.items():
        for weight in files:
            size = f"{weight.size_bytes} bytes" if weight.size_bytes else "size not published"
            place = weight.url or f"inside {weight.inside.partition('/')[0]}, which lps-prep[prep] brings"
            echo(f"{localizer}: {weight.file_name}, {size}, sha256 {weight.sha256}, {place}\n    {weight.license}")
