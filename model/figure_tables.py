"""The tables as pictures: ours as points with intervals, the paper's as open marks."""

from pathlib import Path
from typing import Any

from lps.model.experiments import Result, Row
from lps.model.figure_style import COLOURS, figure

ROW_INCHES = 0.3


def draw_table(result: Result, path: Path, *, smoke: bool = False) -> None:
    """Draw the first metric of every row, one panel a data set, and write a PNG."""
    metric = result.metrics[0]
    data = list(dict.fromkeys(row.data for row in result.rows))
    longest = max(sum(row.data == name for row in result.rows) for name in data)
    with figure(path, 2.2 + 3.0 * len(data), 1.2 + ROW_INCHES * longest) as drawn:
        axes = drawn.subplots(1, len(data), squeeze=False, sharex=True)[0]
        for name, ax in zip(data, axes, strict=True):
            rows = [row for row in result.rows if row.data == name]
            for y, row in enumerate(rows):
                _draw_row(ax, y, row, metric)
            ax.set_yticks(range(len(rows)), [_label(row) for row in rows])
            ax.set_ylim(len(rows) - 0.5, -0.5)
            ax.set_title(f"judged on {name}")
            ax.set_xlabel(f"{metric} % over videos")
        axes[0].plot([], [], "o", color=COLOURS[0], label="ours, 95 % interval")
        axes[0].plot([], [], "D", mfc="none", color=COLOURS[1], label="printed in the paper")
        drawn.legend(loc="lower center", ncols=2, bbox_to_anchor=(0.5, -0.06))
        drawn.suptitle(f"{result.item}{': smoke size, the figures mean nothing' if smoke else ''}", y=1.02)
        drawn.tight_layout()


def _label(row: Row) -> str:
    other = f", trained on {row.trained_on}" if row.trained_on and row.trained_on != row.data else ""
    return f"{row.name}{other}{' (cited)' if row.cited else ''}"


def _draw_row(ax: Any, y: int, row: Row, metric: str) -> None:
    value = row.values.get(metric)
    if value is None:
        return
    if value.value is not None:
        low = value.low if value.low is not None else value.value
        high = value.high if value.high is not None else value.value
        ax.plot([low, high], [y, y], "-", color=COLOURS[0], linewidth=1.5)
        ax.plot([value.value], [y], "o", color=COLOURS[0])
    if value.paper is not None:
        ax.plot([value.paper], [y], "D", mfc="none", color=COLOURS[1])
