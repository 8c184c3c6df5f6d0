"""What `lps-prep` shows: a bar on a terminal, plain lines elsewhere, and tables at the end."""

import sys
import time
from types import TracebackType
from typing import Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from lps.manifests.codes import CODE_MEANING, Code
from lps.pipeline.job.finalize import Summary
from lps.pipeline.job.plan import Plan, clips_bound
from lps.pipeline.job.status import JobStatus

LINE_SECONDS = 10.0
"""Pause between plain progress lines."""


class PrepProgress:
    """Shows a run's events on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._began = self._last_line = time.monotonic()
        self._n_done = self._n_total = self._n_clips = self._n_frames = self._n_failed = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(), console=self._console,
            )  # fmt: skip
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def on_event(self, kind: str, facts: dict[str, Any]) -> None:
        """Take one event of the run."""
        if kind == "probed":
            self._probed(facts)
        elif kind == "planned":
            self._planned(facts)
        elif kind == "video":
            self._video(facts)
        elif kind in ("note", "retry", "charge", "quarantine", "shard", "sources"):
            self._say(_EVENT_LINE[kind].format(**{**_BLANK, **facts}))

    def _say(self, line: str) -> None:
        if self._bars is not None:
            self._bars.console.print(line, highlight=False, markup=False)
        else:
            click.echo(line, err=True)

    def _probed(self, facts: dict[str, Any]) -> None:
        self._show("reading headers", facts["n_done"], facts["n_videos"], "")

    def _planned(self, facts: dict[str, Any]) -> None:
        self._began = time.monotonic()
        self._n_total, self._n_done = facts["n_left"], 0
        self._task = None
        already = facts["n_videos"] - facts["n_left"]
        resumed = f", {already} done before" if already else ""
        self._say(f"planned: {facts['n_videos']} videos{resumed}, {facts['n_shards']} shards to write")

    def _video(self, facts: dict[str, Any]) -> None:
        self._n_done += 1
        self._n_clips += facts["n_clips"]
        self._n_frames += facts["n_frames"]
        self._n_failed += facts["status"] == "failed"
        seconds = max(time.monotonic() - self._began, 1e-3)
        left = (self._n_total - self._n_done) * seconds / self._n_done
        note = (
            f"{self._n_clips} clips, {self._n_failed} without, {self._n_done / seconds:.2f} videos/s, "
            f"{self._n_frames / seconds:.0f} frames/s, {_duration(left)} left"
        )
        self._show("processing", self._n_done, self._n_total, note)

    def _show(self, what: str, n_done: int, n_total: int, note: str) -> None:
        if self._bars is not None:
            if self._task is None or self._bars.tasks[-1].description != what:
                self._task = self._bars.add_task(what, total=n_total, note=note)
            self._bars.update(self._task, completed=n_done, total=n_total, note=note)
        elif n_done == n_total or time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            click.echo(f"{what}: {n_done}/{n_total} {note}".rstrip(), err=True)


_BLANK = {"text": "", "job": "", "cause": "", "pause_s": 0, "code": "", "detail": "", "shard_id": "", "n_samples": 0}
_EVENT_LINE = {
    "note": "note: {text}",
    "sources": "sources: {n_videos} files",
    "retry": "retry: {job} ({cause}), not charged",
    "charge": "charged: {job} {code} ({detail}), one more try",
    "quarantine": "quarantined: {job} {code} ({detail})",
    "shard": "committed: {shard_id}, {n_samples} clips",
}


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _console() -> Console:
    # A file or a pipe gets full lines, however narrow the terminal that started us.
    return Console(width=None if sys.stdout.isatty() else 120)


def print_summary(summary: Summary, out: str) -> None:
    """Print what a data set holds."""
    console = _console()
    console.print(_clips_table(summary.by_split))
    if summary.by_code:
        console.print(_codes_table(summary.by_code))
    console.print(
        f"{summary.n_videos} input files: {summary.n_ok} with clips, {summary.n_quarantined} quarantined. "
        f"Data set: {out}",
        highlight=False,
    )


def _clips_table(by_split: dict[tuple[str, str], tuple[int, int]]) -> Table:
    table = Table("split", "label", "videos", "clips", title="clips")
    for (split, label), (videos, clips) in by_split.items():
        table.add_row(split, label, str(videos), str(clips))
    return table


def _codes_table(by_code: dict[tuple[str, str], int]) -> Table:
    table = Table("code", "label", "videos", "meaning", title="videos with a code")
    for (code, label), n in by_code.items():
        table.add_row(code, label, str(n), CODE_MEANING[Code(code)])
    return table


def print_status(status: JobStatus, out: str) -> None:
    """Print how far a data set is."""
    console = _console()
    state = "complete" if status.complete else "in progress"
    console.print(
        f"{out}: {state}; {status.n_shards_done} of {status.n_shards} shards, "
        f"{status.n_videos_done} of {status.n_videos} videos",
        highlight=False,
    )
    if status.summary.by_split:
        console.print(_clips_table(status.summary.by_split))
    if status.summary.by_code:
        console.print(_codes_table(status.summary.by_code))


def print_plan(plan: Plan) -> None:
    """Print what a run of this plan would make and cost."""
    console = _console()
    params = plan.spec.params
    table = Table("split", "videos", "shards", "clips at most", "frames to decode", title="plan")
    for split in sorted({v.split for v in plan.videos if v.shard_id and v.split}):
        chosen = [v for v in plan.videos if v.shard_id and v.split == split]
        clips = sum(clips_bound(v, params) for v in chosen)
        frames = sum(v.n_frames_promised for v in chosen)
        table.add_row(split, str(len(chosen)), str(len({v.shard_id for v in chosen})), str(clips), str(frames))
    console.print(table)
    known: dict[tuple[str, str], int] = {}
    for video in plan.videos:
        if video.code is not None:
            key = (
                str(video.code),
                {0: "real", 1: "fake"}.get(video.source.label or 0, "")
                if video.source.label is not None
                else "unknown",
            )
            known[key] = known.get(key, 0) + 1
    if known:
        console.print(_codes_table(dict(sorted(known.items()))))
    for line in plan.estimate():
        console.print(line, highlight=False)


def print_weights() -> None:
    """Print every weight file."""
    from lps.pipeline.faces.weights import LOCALIZER_WEIGHTS

    for localizer, files in LOCALIZER_WEIGHTS.items():
        for weight in files:
            size = f"{weight.size_bytes} bytes" if weight.size_bytes else "size not published"
            place = weight.url or "inside an installed package"
            click.echo(
                f"{localizer}: {weight.file_name}, {size}, sha256 {weight.sha256}, {place}\n    {weight.license}"
            )
