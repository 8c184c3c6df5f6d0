"""What an experiment gives: rows of metrics with intervals, the paper's beside them, and their form as Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class MetricColumn:
    """How a metric is headed and written."""

    title: str
    digits: int = 2


COLUMNS: dict[str, MetricColumn] = {
    "auc": MetricColumn("AUC %"),
    "recall": MetricColumn("recall %"),
    "precision": MetricColumn("precision %"),
    "pair_accuracy": MetricColumn("pair accuracy %"),
    "loss_val": MetricColumn("L_ssd, val", 3),
    "cross_entropy_val": MetricColumn("cross entropy, val", 3),
    "auc_val": MetricColumn("AUC %, val"),
    "loss_train": MetricColumn("L_ssd, train", 3),
    "cross_entropy_train": MetricColumn("cross entropy, train", 3),
    "auc_train": MetricColumn("AUC %, train"),
    "ms": MetricColumn("ms per video"),
    "ms_frame": MetricColumn("ms per frame", 4),
    "ms_p95": MetricColumn("ms per video, 95th percentile"),
}
"""Every metric that an experiment gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One metric with its 95 % interval, in the unit of its head; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    """What the paper prints for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """One line of a table."""

    name: str
    data: str
    """Data set that it was evaluated on; of timings, the device."""
    values: dict[str, Value]
    cited: bool = False
    """A value of another publication, not measured here."""
    trained_on: str = ""
    checkpoint_sha256: str = ""
    notes: tuple[str, ...] = ()
    """What makes the metrics say less than they seem to, as the evaluation tells it."""
    alone: str = ""
    """What tells the label of the evaluated data best without a detector; empty where that is not known."""
    lacking: tuple[str, ...] = ()
    """Why that is not known, or not all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An experiment's outcome."""

    experiment: str
    item: str
    """Table or figure of the paper, or what else it is."""
    rows: tuple[ResultRow, ...]
    metrics: tuple[str, ...]
    """Names in COLUMNS, the columns."""
    drawn: tuple[str, ...] = ()
    """Those of the picture; all by default."""
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is worth keeping, as plain values."""

    @property
    def evaluated(self) -> bool:
        """Tell whether detectors were evaluated on data sets; otherwise modules were timed."""
        return any(row.trained_on for row in self.rows)

    def has_paper(self, metric: str) -> bool:
        """Tell whether the paper prints any value of this kind."""
        return any(metric in row.values and row.values[metric].paper is not None for row in self.rows)

    def lacking(self) -> tuple[str, ...]:
        """Say of each data set why it is not known what tells its label without a detector, or not all of it."""
        return tuple(dict.fromkeys(f"{row.data}: {said}." for row in self.rows for said in row.lacking))

    def pairs_first(self) -> "Result":
        """Return it with pair accuracy as the first metric, where a row has it."""
        if not any("pair_accuracy" in row.values for row in self.rows):
            return self
        others = tuple(metric for metric in self.metrics if metric != "pair_accuracy")
        return replace(self, metrics=("pair_accuracy", *others))


def table_of(result: Result) -> tuple[list[str], list[list[str]]]:
    """Return heads and cells of the table, ours beside the paper's where it prints any."""
    heads = ["model", "trained on", "evaluated on"] if result.evaluated else ["module", "on"]
    for metric in result.metrics:
        interval = (
            " [95 %]" if any(metric in row.values and row.values[metric].low is not None for row in result.rows) else ""
        )
        heads += [COLUMNS[metric].title + interval, *(["paper"] if result.has_paper(metric) else [])]
    told = any(row.alone for row in result.rows)
    heads += ["best without a detector, AUC %"] * told
    table = []
    for row in result.rows:
        name = row.name + (" (cited)" if row.cited else "")
        cells = [name, row.trained_on or "-", row.data] if result.evaluated else [name, row.data]
        for metric in result.metrics:
            value = row.values.get(metric)
            cells.append(shown(value, COLUMNS[metric].digits))
            if result.has_paper(metric):
                cells.append("-" if value is None or value.paper is None else f"{value.paper:.2f}")
        cells += [row.alone or "-"] * told
        table.append(cells)
    return heads, table


def markdown(result: Result, *, smoke: bool = False) -> str:
    """Return the result as a Markdown table."""
    heads, table = table_of(result)
    lines = [f"# {result.item}", ""]
    if smoke:
        lines += ["**Smoke size: shows that the experiment runs. The metrics mean nothing.**", ""]
    lines += [_line(heads), "|" + "---|" * len(heads), *(_line(cells) for cells in table), ""]
    for note in result.notes:
        lines += [note, ""]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def shown(value: Value | None, digits: int = 2) -> str:
    """Return a metric with its interval."""
    if value is None or value.value is None:
        return "-"
    if value.low is None or value.high is None:
        return f"{value.value:.{digits}f}"
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"
