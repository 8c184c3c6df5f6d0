"""What `lps-train evaluate` shows: a bar while it works, then one table."""

from pathlib import Path
from typing import Any

from rich.table import Table

from lps.cli.common import ProgressView, console
from lps.model.evaluation.metrics import TITLES


class EvaluateProgress(ProgressView):
    """Shows the events of an evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self._n_done = 0

    def on_event(self, kind: str, facts: dict[str, Any]) -> None:
        """Take one event."""
        if kind == "note":
            self.say(f"note: {facts['text']}")
        elif kind == "data":
            self._n_done = 0
            self.say(f"{facts['name']}: {facts['n_clips']} clips")
            self.start(facts["name"], facts["n_clips"], unit="clips")
        elif kind == "clips":
            self._n_done += facts["n"]
            self.update(self._n_done)


def print_metrics(record: dict[str, Any], out: Path) -> None:
    """Print the figures by video: every data set, below it its methods where there are several."""
    screen = console()
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
    screen.print(table)
    for line in _remarks(record):
        screen.print(line, highlight=False, markup=False)
    screen.print(f"{out / 'scores.parquet'}, {out / 'metrics.json'}", highlight=False, markup=False)


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
