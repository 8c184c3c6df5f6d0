"""What `lps-train evaluate` shows: a bar while it works, then one table."""

from pathlib import Path
from typing import Any

from rich.table import Table

from lps.cli.common import ProgressView, console
from lps.manifests.records import Note
from lps.model.data.video_score import VIDEO_RULE_TEXT
from lps.model.evaluation.baselines import BASELINES, SOURCES, remarks
from lps.model.evaluation.events import ClipsScored, DataSetBegun, EvaluateEvent
from lps.model.evaluation.metrics import MIN_VIDEOS, NOT_MEANINGFUL, TITLES, few_videos

PARTS = {"datasets": "data set", "methods": "method", "compressions": "compression"}
"""Kinds of groups within one evaluated data set, and what a row of the table calls them."""
FEW = "(few)"


class EvaluateProgress(ProgressView):
    """Shows the events of an evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self._n_done = 0

    def on_event(self, event: EvaluateEvent) -> None:
        """Show one event."""
        match event:
            case Note(text):
                self.say(f"note: {text}")
            case DataSetBegun(name, n_clips):
                self._n_done = 0
                self.say(f"{name}: {n_clips} clips")
                self.start(name, n_clips, unit="clips")
            case ClipsScored(n_clips):
                self._n_done += n_clips
                self.update(self._n_done)


def print_metrics(record: dict[str, Any], out: Path) -> None:
    """Print pairs first, where there are any, then the metrics by video: every data set, below it its baselines and its
    methods where there are several; then all together.
    """
    screen = console()
    level = f"{record['request']['bootstrap']['level']:.0%}"
    table = Table("data", "real + fake", *TITLES.values(), title=f"by video, with {level} intervals")
    rule = VIDEO_RULE_TEXT[record["request"]["video_score"]]
    for entry in record["data"]:
        results = entry["results"]
        _add(table, entry["name"], results["all"]["video"])
        _add_baselines(table, entry)
        for kind, word in PARTS.items():
            parts = results.get(kind, {})  # an older version knew no compressions
            if len(parts) > 1:
                for name, found in parts.items():
                    _add(table, f"  {word} {name}", found["video"])
        table.add_section()
    if "together" in record:
        _add(table, "together (micro)", record["together"]["micro"]["video"])
        _add_means(table, record["together"]["macro"]["video"])
    if any(_pairs(entry) for entry in record["data"]):
        screen.print(_pair_table(record, level))
    screen.print(table)
    if any(entry.get("margins") for entry in record["data"]):
        screen.print(_margin_table(record, level))
    for line in (f"p_fake of a {rule}", *_remarks(record)):
        screen.print(line, highlight=False, markup=False)
    screen.print(f"{out / 'scores.parquet'}, {out / 'metrics.json'}", highlight=False, markup=False)


def _pairs(entry: dict[str, Any]) -> dict[str, Any] | None:
    """Return the pair accuracy of a data set; None where it has no pairs, or an older version did not look for them."""
    found: dict[str, Any] | None = entry.get("pairs")
    return found if found and found["all"]["n_pairs"] else None


def _pair_table(record: dict[str, Any], level: str) -> Table:
    from rich.text import Text

    title = f"share of pairs in which the fake scores higher than its original, with {level} intervals"
    table = Table("data", "pairs", "originals", "pair accuracy", title=title)
    for entry in record["data"]:
        if found := _pairs(entry):
            methods = found["methods"] if len(found["methods"]) > 1 else {}
            rows = {entry["name"]: found["all"], **{f"  method {name}": each for name, each in methods.items()}}
            shared = found.get("shared", {}).get("all", {})  # an older version did not look for them
            if shared.get("n_pairs"):
                rows["  clips of the same frames"] = shared
            for name, each in rows.items():
                cell = Text(shown(each, few=few_videos(each["n_originals"], each["n_pairs"])))
                table.add_row(Text(name), str(each["n_pairs"]), str(each["n_originals"]), cell)
    return table


def _margin_table(record: dict[str, Any], level: str) -> Table:
    from rich.text import Text

    title = f"how much depends on the margin: AUC by video, with {level} intervals"
    table = Table("data", "margin", "AUC", title=title)
    usual = record["checkpoint"]["margin"]
    for entry in record["data"]:
        for each in entry.get("margins", ()):
            cell = Text(shown(each["video"]["auc"], few=_few(each["video"])))
            table.add_row(Text(entry["name"]), f"{each['margin']:g}{' (its own)' * (each['margin'] == usual)}", cell)
        table.add_section()
    return table


def _few(found: dict[str, Any]) -> bool:
    return few_videos(found["n_real"], found["n_fake"])


def _add(table: Table, name: str, found: dict[str, Any]) -> None:
    from rich.text import Text

    cells = [Text(shown(found[metric], few=_few(found))) for metric in TITLES]
    table.add_row(Text(name), f"{found['n_real']} + {found['n_fake']}", *cells)


def _add_baselines(table: Table, entry: dict[str, Any]) -> None:
    """Add what tells the label without a detector, below the AUC that it is held against."""
    from rich.text import Text

    for name, score in entry.get("baselines", {}).get("scores", {}).items():  # an older version did not look for them
        if score["value"] is not None:
            cells = [Text(shown(score, few=_few(score))) if metric == "auc" else "" for metric in TITLES]
            table.add_row(Text(f"  {BASELINES[name]} alone"), f"{score['n_real']} + {score['n_fake']}", *cells)


def _add_means(table: Table, found: dict[str, Any]) -> None:
    """Add the means over data sets; one that is not of all says of how many."""
    cells = []
    for name in TITLES:
        value, n = found[name]["value"], found[name]["n_data_sets"]
        of = "" if n == found["n_data_sets"] else f"\nof {n}"
        cells.append("-" if value is None else f"{value:.3f}{of}")
    table.add_row("mean (macro)", f"{found['n_data_sets']} data sets", *cells)


def shown(metric: dict[str, Any], *, few: bool) -> str:
    """Return a metric with its interval, or a dash; `few` videos give no interval that means anything."""
    if metric["value"] is None:
        return "-"
    value = f"{metric['value']:.3f}"
    if metric["low"] is None:
        return value
    return f"{value}\n{FEW}" if few else f"{value}\n{metric['low']:.3f}-{metric['high']:.3f}"


def _groups(entry: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return what is shown of one kind of groups: the metrics by video of each."""
    found = entry["results"].get(kind, {})
    groups = [found] if kind == "all" else list(found.values()) if len(found) > 1 else []
    return [group["video"] for group in groups]


def _remarks(record: dict[str, Any]) -> list[str]:
    """Say why metrics are missing, and what was not used."""
    lines = []
    groups = [group for entry in record["data"] for kind in ("all", *PARTS) for group in _groups(entry, kind)]
    few_originals = any(
        found["all"]["n_originals"] < MIN_VIDEOS for entry in record["data"] if (found := _pairs(entry))
    )
    if few_originals or any(map(_few, groups)):
        lines.append(f"{FEW}: {NOT_MEANINGFUL}")
    for entry in record["data"]:
        found = entry["results"]["all"]["video"]
        reasons = {found[name]["reason"] for name in TITLES if found[name]["value"] is None}
        lines += [f"{entry['name']}: no metric where there is a dash: {reason}" for reason in sorted(reasons)]
        if entry["n_bad_samples"]:
            lines.append(f"{entry['name']}: {entry['n_bad_samples']} bad samples left out; {entry['bad_samples'][0]}")
        if entry["n_unlabelled_clips"]:
            lines.append(
                f"{entry['name']}: {entry['n_unlabelled_clips']} clips without a label are scored, not measured"
            )
        lines += [f"{entry['name']}: {note}" for note in entry["notes"]]
        lines += [f"{entry['name']}: {said}" for said in remarks(entry)]
    if "together" in record:
        lines.append(f"together (micro): {SOURCES}")
    return lines
