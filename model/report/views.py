"""What the trainer's page prints, part by part: plain records between what was read and the template."""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from lps.manifests.pages.html import Mark
from lps.model.report.errors import ErrorsView


@dataclass(frozen=True, slots=True, kw_only=True)
class NameView:
    """A run or an evaluation, as it is called on the page."""

    name: str
    style: str
    """Its colour and dashes in charts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryView:
    """One line of the summary: a run, or an evaluation on one data set."""

    who: NameView
    kind: str
    marks: tuple[Mark, ...]
    how_far: str
    metric: str
    bar: Markup | str = ""


@dataclass(frozen=True, slots=True)
class CellView:
    """One metric with its interval, or why there is none."""

    value: str
    span: str = ""
    bar: Markup | str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsRow:
    """The metrics of one detector on one group of videos or clips."""

    who: NameView
    group: str
    n: str
    cells: tuple[CellView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRateRow:
    """How many videos of a group are on the wrong side of thresholds."""

    who: NameView
    group: str
    label: str
    n: str
    cells: tuple[CellView, ...]
    """One for each threshold of the table's head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdRow:
    """What a threshold does to the videos of an evaluation."""

    who: NameView
    at: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionsView:
    """Errors by group and operating points of evaluations on one data set."""

    heads: tuple[str, ...]
    """Thresholds at which errors are counted."""
    errors: tuple[ErrorRateRow, ...]
    thresholds: tuple[ThresholdRow, ...]
    reasons: tuple[str, ...]
    """Why thresholds are missing or mean little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataView:
    """What was measured on one data set."""

    title: str
    pairs: tuple[MetricsRow, ...]
    """Pair accuracy, which stands first; none where there are no pairs."""
    videos: tuple[MetricsRow, ...]
    baselines: tuple[MetricsRow, ...]
    """The AUC beside what tells the label without a detector, where that was measured."""
    groups: tuple[MetricsRow, ...]
    """By method and by data set, where there are several."""
    margins: tuple[MetricsRow, ...]
    """By margin, where `evaluate --margins` asked for it."""
    margin_chart: Markup | str
    clips: tuple[MetricsRow, ...]
    reasons: tuple[str, ...]
    """Why metrics are missing, or say less than they seem to."""
    roc: Markup | str
    histograms: tuple[tuple[NameView, Markup], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TogetherView:
    """What was measured on several data sets together: pooled, and as means over them."""

    videos: tuple[MetricsRow, ...]
    clips: tuple[MetricsRow, ...]
    reasons: tuple[str, ...]
    """Why metrics are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveRow:
    """One run in the table below a chart."""

    who: NameView
    train: str
    validation: str
    best: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveView:
    """One value over the steps."""

    title: str
    said: str
    chart: Markup
    rows: tuple[CurveRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """The curves of the runs of one stage."""

    stage: str
    names: tuple[NameView, ...]
    charts: tuple[CurveView, ...]
    folded: tuple[CurveView, ...]
    """Further values, which few will ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRow:
    """One setting, side by side."""

    name: str
    cited: str
    """As the paper has it; empty where it says nothing."""
    cells: tuple[str, ...]
    differs: bool
    """Between runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StampView:
    """What a run or an evaluation is about, and the stamp of its split set: a column of the identities."""

    who: NameView
    what: str
    mark: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureView:
    """A figure that lies in a folder."""

    who: NameView
    title: str
    image: str
    """A data URI."""
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPageView:
    """All that the template prints."""

    verdict: Mark
    verdict_said: tuple[str, ...]
    leaky: tuple[str, ...]
    """Names of what rests on a leaky split set."""
    learnt: tuple[str, ...]
    """Names of evaluations on videos that the detector learnt from."""
    title: str
    summary: tuple[SummaryView, ...]
    notes: tuple[tuple[str, str], ...]
    """Name, and what to know of it."""
    level: str
    """Confidence of the intervals, as a percentage."""
    data: tuple[DataView, ...]
    decisions: Mapping[str, DecisionsView]
    """By title of the data."""
    together: TogetherView | None
    """None where no evaluation has several data sets."""
    heads: tuple[str, ...]
    """Titles of the columns of metrics."""
    baseline_heads: tuple[str, ...]
    errors: tuple[ErrorsView, ...]
    strip_px: tuple[int, int]
    stages: tuple[StageView, ...]
    runs: tuple[NameView, ...]
    settings: tuple[SettingRow, ...]
    """What differs between runs, or from the paper's recipe."""
    all_settings: tuple[SettingRow, ...]
    stamps: tuple[StampView, ...]
    identity: tuple[SettingRow, ...]
    """With a cell for each stamp."""
    pictures: tuple[PictureView, ...]
    made_by: str
