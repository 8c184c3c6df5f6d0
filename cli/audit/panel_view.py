"""What `lps-audit shortcuts` and `show` print of a panel of shortcuts."""

from rich.markup import escape
from rich.table import Table

from lps.cli.common import console
from lps.manifests.shortcuts.records import ShortcutPanel


def print_panel(panel: ShortcutPanel, *, stale: bool = False) -> None:
    """Print how well each kind of feature tells the label; `stale` says that the data set has changed since."""
    title = f"what tells the label, split set {panel.split_set}{' (STALE: measured before a change)' if stale else ''}"
    table = Table("shortcut", "AUC [95 %]", "most from (its own AUC)", title=escape(title))
    for score in panel.scores:
        mark = "yellow" if score.tells else "cyan" if score.auc is None else "green"
        table.add_row(score.name, f"[{mark}]{escape(score.shown())}[/]", escape(score.because()))
    out = console()
    out.print(table)
    out.print(f"{panel.said()}; folds keep groups whole, 0.5 tells nothing", highlight=False, markup=False)
    said = "in brackets, the AUC of a feature by itself, below 0.5 where fakes have the smaller values"
    out.print(said, highlight=False)
