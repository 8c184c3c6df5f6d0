"""The tables as pictures: ours as points with intervals, the paper's as open marks."""

from pathlib import Path
from typing import Any

from lps.model.paper.figures.style import COLOURS, figure
from lps.model.paper.results import COLUMNS, Result, ResultRow

ROW_INCHES = 0.26
PANEL_INCHES = 2.4
LETTER_INCHES = 0.07
MIN_SPAN = 1.0
"""Range of an axis in per cent: points that are all equal stay in the middle of it."""
WIDE = 30
"""Largest over smallest, above which an axis of times is logarithmic."""


def draw_table(result: Result, path: Path, *, smoke: bool = False) -> None:
    """Draw every row and write a PNG: one panel a data set and metric.

    Several metrics lie side by side and data sets below one another; data sets of one metric lie side by side.
    """
    metrics = result.drawn or result.metrics
    data = list(dict.fromkeys(row.data for row in result.rows)) if result.evaluated else [""]
    of = {name: [row for row in result.rows if not result.evaluated or row.data == name] for name in data}
    places = [(name, metric) for name in data for metric in metrics]
    columns = len(metrics) if len(metrics) > 1 else len(data)
    heights = [max(len(of[name]) for name, _ in places[k : k + columns]) for k in range(0, len(places), columns)]
    labels = LETTER_INCHES * max(len(_label(row)) for row in result.rows) * (1 if len(metrics) > 1 else len(data))
    size = labels + PANEL_INCHES * columns, 0.9 + sum(0.7 + ROW_INCHES * n for n in heights)
    with figure(path, *size) as drawn:
        drawn.set_layout_engine("constrained")
        ratios = [n + 1 for n in heights]
        sharex = "col" if len(metrics) > 1 else "all"
        grid = drawn.subplots(len(heights), columns, squeeze=False, height_ratios=ratios, sharex=sharex)
        for k, (name, metric) in enumerate(places):
            ax = grid[k // columns][k % columns]
            first = len(metrics) == 1 or k % columns == 0
            _draw_panel(ax, of[name], metric, labelled=first)
            if name and first:
                ax.set_title(f"evaluated on {name}", loc="left")
        for k, metric in enumerate(metrics if len(metrics) > 1 else metrics * len(data)):
            grid[-1][k].set_xlabel(COLUMNS[metric].title)
            _set_axis(grid[-1][k], _values(result, metric), metric)
        _draw_legend(drawn, result)
        drawn.suptitle(f"{result.item}{': smoke size, the metrics mean nothing' if smoke else ''}")


def _draw_panel(ax: Any, rows: list[ResultRow], metric: str, *, labelled: bool) -> None:
    for y, row in enumerate(rows):
        _draw_row(ax, y, row, metric)
    ax.set_yticks(range(len(rows)), [_label(row) for row in rows] if labelled else [""] * len(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)


def _set_axis(ax: Any, values: list[float], metric: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if metric == "ms" and values and max(values) > WIDE * min(values) > 0:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        return
    ax.xaxis.set_major_locator(MaxNLocator(5))
    if values and max(values) - min(values) < MIN_SPAN and "%" in COLUMNS[metric].title:
        ax.set_xlim(min(values) - MIN_SPAN, max(values) + MIN_SPAN)


def _values(result: Result, metric: str) -> list[float]:
    """Return every number that a panel of this metric shows."""
    shown = [row.values[metric] for row in result.rows if metric in row.values]
    return [x for each in shown for x in (each.low, each.value, each.high, each.paper) if x is not None]


def _draw_legend(drawn: Any, result: Result) -> None:
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], marker="o", color=COLOURS[0], label="ours, 95 % interval")]
    if any(result.has_paper(metric) for metric in result.drawn or result.metrics):
        marks.append(Line2D([], [], marker="D", linestyle="none", mfc="none", color=COLOURS[1], label="in the paper"))
    drawn.legend(handles=marks, loc="outside lower center", ncols=2)


def _label(row: ResultRow) -> str:
    other = f", trained on {row.trained_on}" if row.trained_on and row.trained_on != row.data else ""
    return f"{row.name}{other}{' (cited)' if row.cited else ''}"


def _draw_row(ax: Any, y: int, row: ResultRow, metric: str) -> None:
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
