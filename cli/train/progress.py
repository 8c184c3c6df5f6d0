"""What `lps-train` shows of a stage: a bar on a terminal, plain lines elsewhere."""

from time import monotonic
from types import TracebackType
from typing import Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

LINE_SECONDS = 10.0
"""Pause between plain progress lines."""
SMOOTHING = 0.05
"""Of the loss that is shown."""


class TrainProgress:
    """Shows a run's events on stderr; nothing if `quiet`, as all processes of a run but the first are."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._first = self._total = 0
        self._began = self._last_line = monotonic()
        self._loss: float | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            self._bars = Bars(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(), console=self._console,
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
        if self._quiet:
            return
        if kind == "note":
            self._say(f"note: {facts['text']}")
        elif kind == "begin":
            self._begin(facts)
        elif kind == "step":
            self._step(facts)
        elif kind == "validating" and self._bars is not None and self._task is not None:
            self._bars.update(self._task, note="validating")
        elif kind == "validation":
            shown = ", ".join(f"{name} {facts[name]:.4g}" for name in ("loss", "auc") if facts.get(name) is not None)
            found = f": {shown}{' (best)' if facts['best'] else ''}" if shown else ""  # nothing without validation
            self._say(f"epoch {facts['epoch']}, step {facts['step']}{found}")

    def _begin(self, facts: dict[str, Any]) -> None:
        self._first, self._total = facts["step"], facts["n_steps"]
        self._began = monotonic()
        self._loss = None  # of the run before, where a command has several
        going = f", going on from step {facts['step']}" if facts["resumed"] else ""
        self._say(
            f"{facts['stage']}: {facts['n_clips']} clips, {facts['n_parameters']:,} trainable parameters, "
            f"{facts['n_steps']} steps on {facts['device']}{going}"
        )
        if self._bars is not None:
            self._task = self._bars.add_task(facts["stage"], total=self._total, completed=self._first, note="")

    def _step(self, facts: dict[str, Any]) -> None:
        loss = facts["loss"]
        if loss is not None:
            self._loss = loss if self._loss is None else self._loss + SMOOTHING * (loss - self._loss)
        step = facts["step"]
        rate = (step - self._first) / max(monotonic() - self._began, 1e-3)
        note = f"loss {self._loss:.4f}, lr {facts['lr']:.1e}, {rate:.2f} steps/s"
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=step, note=note)
        elif step == self._total or monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = monotonic()
            left = (self._total - step) / max(rate, 1e-9)
            click.echo(f"step {step}/{self._total} {note}, {left / 60:.1f} min left", err=True)

    def _say(self, line: str) -> None:
        if self._bars is not None:
            self._bars.console.print(line, highlight=False, markup=False)
        else:
            click.echo(line, err=True)
