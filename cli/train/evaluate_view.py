"""What `lps-train evaluate` shows: a bar while it judges, then one table."""

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from lps.model.evaluation.metrics import TITLES

LINE_SECONDS = 10.0
"""Pause between plain progress lines."""


class JudgeProgress:
    """Shows the events of an evaluation on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._name = ""
        self._n_done = self._n_total = 0
        self._began = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"), TimeRemainingColumn(), console=self._console,
            )  # fmt: skip
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def on_event(self, kind: str, facts: dict[str, Any]) -> None:
        """Take one event."""
        if kind == "note":
            self._say(f"note: {facts['text']}")
        elif kind == "data":
            self._name, self._n_total, self._n_done = facts["name"], facts["n_clips"], 0
            self._began = self._last_line = time.monotonic()
            if self._bars is not None:
                self._task = self._bars.add_task(self._name, total=self._n_total, note="")
            else:
                self._say(f"{self._name}: {self._n_total} clips")
        elif kind == "clips":
            self._clips(facts["n"])

    def _clips(self, n: int) -> None:
        self._n_done += n
        rate = self._n_done / max(time.monotonic() - self._began, 1e-3)
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=self._n_done, note=f"{rate:.1f} clips/s")
        elif self._n_done < self._n_total and time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            left = (self._n_total - self._n_done) / rate
            self._say(
                f"{self._name}: {self._n_done}/{self._n_total} clips, {rate:.1f} a second, {left / 60:.1f} min left"
            )

    def _say(self, line: str) -> None:
        if self._bars is not None:
            self._bars.console.print(line, highlight=False, markup=False)
        else:
            click.echo(line, err=True)


def print_figures(record: dict[str, Any], out: Path) -> None:
    """Print the figures by video: every data set, below it its methods where there are several."""
    # A file or a pipe gets full lines, however narrow the terminal that started us.
    console = Console(width=None if sys.stdout.isatty() else 140)
    level = f"{record['request']['bootstrap']['level']:.0%}"
    table = Table("data", "real + fake", *TITLES.values(), title=f"by video, with {level} intervals")
    for entry in record["data"]:
        results = entry["results"]
        _add(table, entry["name"], results["all"]["video"])
        for kind in ("datasets", "methods"):
            if len(results[kind]) > 1:
                for name, found in results[kind].items():
                    _add(table, f"  {name}", found["video"])
        table.add_section()
    console.print(table)
    for line in _remarks(record):
        console.print(line, highlight=False, markup=False)
    console.print(f"{out / 'scores.parquet'}, {out / 'metrics.json'}", highlight=False, markup=False)


def _add(table: Table, name: str, found: dict[str, Any]) -> None:
    from rich.text import Text

    cells = [Text(shown(found[metric])) for metric in TITLES]
    table.add_row(Text(name), f"{found['n_real']} + {found['n_fake']}", *cells)


def shown(metric: dict[str, Any]) -> str:
    """Return a figure with its interval, or a dash."""
    if metric["value"] is None:
        return "-"
    value = f"{metric['value']:.3f}"
    return value if metric["low"] is None else f"{value}\n{metric['low']:.3f}-{metric['high']:.3f}"


def _remarks(record: dict[str, Any]) -> list[str]:
    """Say why figures are missing, and what was not used."""
    lines = []
    for entry in record["data"]:
        figures = entry["results"]["all"]["video"]
        reasons = {figures[name]["reason"] for name in TITLES if figures[name]["value"] is None}
        lines += [f"{entry['name']}: no figure where there is a dash: {reason}" for reason in sorted(reasons)]
        if entry["n_bad_samples"]:
            lines.append(f"{entry['name']}: {entry['n_bad_samples']} bad samples left out; {entry['bad_samples'][0]}")
        if entry["n_unlabelled_clips"]:
            lines.append(
                f"{entry['name']}: {entry['n_unlabelled_clips']} clips without a label are scored, not measured"
            )
        lines += [f"{entry['name']}: {note}" for note in entry["notes"]]
    return lines
