"""What the audit's page prints, part by part: plain records between the report and its template."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lps.manifests.audit.report.data import ValueCounts
from lps.manifests.pages.html import Mark
from lps.manifests.schemas import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class LineView:
    """A row of numbers with its name."""

    title: str = ""
    label: str = ""
    method: str = ""
    cells: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileView:
    """A clip or a video with its caption."""

    label: str
    lines: tuple[str, ...]
    uri: str
    image: str = ""
    """A data URI."""
    blank: str = ""
    """What stands in place of the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThumbView:
    """The first frame of a clip that breaks a rule, or of the first clip of such a video."""

    key: str
    """The offender's."""
    image: str
    """A data URI."""
    link: str
    """Its address in the gallery; empty without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckView:
    """One check on the page."""

    id: str
    link: str
    """Where docs/audit.md explains it."""
    title: str
    mark: Mark
    severity: str
    said: str
    """Its finding in one line."""
    measured: str
    limit: str
    n_checked: int
    n_offenders: int
    sample: tuple[Row, ...]
    note: str
    rule: str
    remedy: str
    numbers: str
    sql: str
    thumbs: tuple[ThumbView, ...] = ()

    @property
    def state(self) -> str:
        """Its state as a word of a style sheet."""
        return self.mark.style

    @property
    def unfolded(self) -> bool:
        """True for what somebody has to read."""
        return self.mark.tone in ("bad", "warn")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """Checks of one class."""

    letter: str
    title: str
    checks: tuple[CheckView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldView:
    """Checks of one state that nobody has to read."""

    mark: Mark
    n: int
    groups: tuple[GroupView, ...]


@dataclass(frozen=True, slots=True)
class CountView:
    """How many checks ended in one state."""

    mark: Mark
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixView:
    """Videos, clips and groups by split, label and method."""

    splits: tuple[str, ...] = ()
    rows: tuple[LineView, ...] = ()
    totals: tuple[LineView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakView:
    """What held-out videos share with those of another split, by kind."""

    pairs: tuple[str, ...] = ()
    rows: tuple[LineView, ...] = ()
    """Cells: pairs of the share and what stands beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortcutsView:
    """What tells the label besides the forgery."""

    rows: tuple[LineView, ...] = ()
    """Cells: what it is, its AUC, and the features that tell or why nothing is known."""
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartView:
    """One measure by class."""

    title: str
    said: str
    of: str
    histogram: Markup
    ecdf: Markup
    rows: tuple[LineView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairView:
    """Two videos that look alike."""

    check: str
    said: str
    left: TileView
    right: TileView


@dataclass(frozen=True, slots=True, kw_only=True)
class StripView:
    """Clips in a row."""

    title: str
    said: str
    tiles: tuple[TileView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeView:
    """One code with some of its videos."""

    code: str
    link: str
    """Where docs/codes.md says what to do."""
    meaning: str
    by_label: tuple[int, int, int]
    tiles: tuple[TileView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPageView:
    """All that the template prints."""

    verdict: Mark
    verdict_said: tuple[str, ...]
    name: str
    split_set: str
    counts: tuple[CountView, ...]
    to_do: tuple[CheckView, ...]
    notes: tuple[str, ...]
    identity: tuple[tuple[str, str], ...]
    matrix: MatrixView
    leaks: LeakView
    shortcuts: ShortcutsView
    problems: tuple[GroupView, ...]
    """What did not pass, or is not known."""
    folds: tuple[FoldView, ...]
    """What was skipped, and what passes."""
    charts: tuple[ChartView, ...]
    tallies: tuple[ValueCounts, ...]
    codes: tuple[CodeView, ...]
    totals: tuple[int, int, int]
    pairs: tuple[PairView, ...]
    pairs_said: str
    strips: tuple[StripView, ...]
    made_by: str
