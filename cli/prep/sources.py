"""What `lps-prep sources` shows of the layouts."""

from lps.cli.common import echo
from lps.pipeline.sources.adapters import LAYOUTS


def print_layouts() -> None:
    """Print a line for each layout: its id, counts, leakage."""
    wide_id = max(len(layout.id) for layout in LAYOUTS.values())
    for layout in LAYOUTS.values():
        echo(f"{layout.id:<{wide_id}}  {layout.counts}. Leakage: {layout.leakage}")


def print_layout(id: str) -> None:
    """Print all that is known of one layout."""
    layout = LAYOUTS[id]
    facts = {
        "videos": layout.counts,
        "labels": layout.labels,
        "splits": layout.splits,
        "leakage": layout.leakage,
        "licence": layout.page or "your own videos",
    }
    echo(f"{layout.title}: --dataset {layout.id}")
    for line in layout.tree.splitlines():
        echo(f"  {line}")
    for name, fact in facts.items():
        echo(f"{name:<8} {fact}")
