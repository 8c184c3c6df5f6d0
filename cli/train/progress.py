"""What `lps-train` shows of a stage: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Mapping
from typing import Any

from lps.cli.common import ProgressView
from lps.manifests.records import Note
from lps.model.training.events import RunBegun, SpeedMeasured, StepDone, TrainEvent, Validated, Validating

SMOOTHING = 0.05
"""Share of the newest loss in the smoothed one that is shown."""


class TrainProgress(ProgressView):
    """Shows a run's events; nothing if `quiet`, as all processes of a run but the first are."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._loss: float | None = None
        self._waits = ""

    def on_event(self, event: TrainEvent) -> None:
        """Show one event of the run."""
        match event:
            case Note(text):
                self.say(f"note: {text}")
            case RunBegun():
                self._begin(event)
            case StepDone():
                self._step(event)
            case SpeedMeasured():
                self._waits = f", waits for data {event.values['wait_share']:.0%}"
            case Validating():
                self.note("validating")
            case Validated():
                values = {name: event.metrics.get(name) for name in ("loss", "auc")}
                shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if value is not None)
                found = f": {shown}{' (best)' if event.best else ''}" if shown else ""  # nothing without validation
                self.say(f"epoch {event.epoch}, step {event.step}{found}{_by_set(event.metrics)}")

    def _begin(self, run: RunBegun) -> None:
        self._loss, self._waits = None, ""  # drop those of the run before, where a command has several
        resumed = f", resumed at step {run.step}" if run.resumed else ""
        self.say(
            f"{run.stage}: {run.n_clips} clips, {run.n_parameters:,} trainable parameters, "
            f"{run.n_steps} steps on {run.device}{resumed}"
        )
        self.start(run.stage, run.n_steps, done=run.step, unit="steps")

    def _step(self, done: StepDone) -> None:
        loss = done.values["loss"]
        if loss is not None:
            self._loss = loss if self._loss is None else self._loss + SMOOTHING * (loss - self._loss)
        self.update(done.step, f"loss {self._loss:.4f}, lr {done.values['lr']:.1e}{self._waits}")


def _by_set(metrics: Mapping[str, Any]) -> str:
    """Say what validation found on each of several data sets: the AUC, the loss where there is none."""
    for metric in ("auc", "loss"):
        names = [name.removeprefix(f"{metric}/") for name in metrics if name.startswith(f"{metric}/")]
        values = {name: metrics[f"{metric}/{name}"] for name in names}
        shown = [f"{name} {value:.4g}" for name, value in values.items() if value is not None]
        if shown:
            return f"; {metric} of {', '.join(shown)}"
    return ""
