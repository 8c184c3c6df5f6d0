"""What `lps-train` shows of a stage: a bar on a terminal, plain lines elsewhere."""

from typing import Any

from lps.cli.common import ProgressView

SMOOTHING = 0.05
"""Share of the newest loss in the smoothed one that is shown."""


class TrainProgress(ProgressView):
    """Shows a run's events; nothing if `quiet`, as all processes of a run but the first are."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._loss: float | None = None

    def on_event(self, kind: str, facts: dict[str, Any]) -> None:
        """Take one event of the run."""
        if kind == "note":
            self.say(f"note: {facts['text']}")
        elif kind == "begin":
            self._begin(facts)
        elif kind == "step":
            self._step(facts)
        elif kind == "validating":
            self.note("validating")
        elif kind == "validation":
            shown = ", ".join(f"{name} {facts[name]:.4g}" for name in ("loss", "auc") if facts.get(name) is not None)
            found = f": {shown}{' (best)' if facts['best'] else ''}" if shown else ""  # nothing without validation
            self.say(f"epoch {facts['epoch']}, step {facts['step']}{found}")

    def _begin(self, facts: dict[str, Any]) -> None:
        self._loss = None  # drop that of the run before, where a command has several
        resumed = f", resumed at step {facts['step']}" if facts["resumed"] else ""
        self.say(
            f"{facts['stage']}: {facts['n_clips']} clips, {facts['n_parameters']:,} trainable parameters, "
            f"{facts['n_steps']} steps on {facts['device']}{resumed}"
        )
        self.start(facts["stage"], facts["n_steps"], done=facts["step"], unit="steps")

    def _step(self, facts: dict[str, Any]) -> None:
        loss = facts["loss"]
        if loss is not None:
            self._loss = loss if self._loss is None else self._loss + SMOOTHING * (loss - self._loss)
        self.update(facts["step"], f"loss {self._loss:.4f}, lr {facts['lr']:.1e}")
