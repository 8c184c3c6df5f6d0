"""What `lps-audit check` shows: a table of checks, and what stands behind one."""

import textwrap
from collections.abc import Mapping
from typing import Self

from rich.markup import escape
from rich.table import Table

from lps.cli.common import ProgressView, console, echo, linked
from lps.manifests.audit.core.types import CheckResult, CheckSpec, State
from lps.manifests.audit.run import Audit
from lps.manifests.names import check_link

FIRST_OFFENDERS = 3
STYLE = {
    State.PASS: "green",
    State.WARN: "yellow",
    State.FAIL: "bold red",
    State.ERROR: "bold magenta",
    State.UNKNOWN: "cyan",
    State.SKIP: "dim",
    State.WAIVED: "yellow",
}
PROBLEMS = frozenset({State.WARN, State.FAIL, State.ERROR, State.UNKNOWN})
"""What did not pass, or is not known. What is skipped was not asked for, what is waived was accepted."""
BROKEN = PROBLEMS - {State.UNKNOWN}
"""What somebody has to do something about."""


class AuditView(ProgressView):
    """Shows an audit: a bar on a terminal while it runs, then a table."""

    def __init__(self, n_checks: int, *, quiet: bool = False) -> None:
        super().__init__(lines=False, quiet=quiet)
        self._n_checks = n_checks
        self._n_done = 0
        self._titles: dict[str, str] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        self.start("checking", self._n_checks)
        return self

    def on_result(self, result: CheckResult, title: str) -> None:
        """Take one result."""
        self._titles[result.id] = title
        self._n_done += 1
        self.update(self._n_done, what=f"checked {result.id}")

    def print_end(self, audit: Audit, *, problems_only: bool = False) -> None:
        """Print all results, or those that somebody must look at, and the verdict."""
        out = console()
        table = Table("check", "state", "severity", title="audit")
        for name in ("measured (limit)", "offenders and notes"):
            table.add_column(name, overflow="fold")
        results = [each for each in audit.results if not problems_only or each.state in PROBLEMS]
        for result in results:
            table.add_row(
                linked(result.id, check_link(result.id), f" {self._titles.get(result.id, '')}".rstrip()),
                f"[{STYLE[result.state]}]{result.state.upper()}[/]",
                str(result.severity),
                escape(f"{result.measured} ({result.limit})" if result.limit else result.measured),
                escape(_remarks(result)),
            )
        if results:
            out.print(table)
        for result in results:
            if result.state in BROKEN:
                echo(f"{result.id}: see {check_link(result.id)}")
        data = audit.facts["data"]
        states = [result.state for result in audit.results]
        counts = ", ".join(f"{states.count(state)} {state}" for state in State if state in states)
        out.print(f"{data['name']}, split set {data['split_set']}: {data['seal']}", highlight=False, markup=False)
        out.print(f"{counts}. Level {audit.facts['level']}. Verdict: {audit.verdict.upper()}", highlight=False)


def _remarks(result: CheckResult) -> str:
    shown = [f"{o.kind} {o.key}: {o.detail}".rstrip(": ") for o in result.offenders[:FIRST_OFFENDERS]]
    more = len(result.offenders) - len(shown)
    lines = [*shown, f"and {more} more" if more else "", result.note]
    return "\n".join(line for line in lines if line)


def explained(spec: CheckSpec, limits: Mapping[str, float]) -> str:
    """Return what `--explain` prints of a check."""
    prefixes = (f"{spec.id.lower()}_", f"{spec.id[0].lower()}_")  # of the check and of its class
    mine = {name: value for name, value in sorted(limits.items()) if name.startswith(prefixes)}
    lines = [f"{spec.id}  {spec.title}", f"severity {spec.severity}, from level {spec.level}", "", "Rule"]
    lines += textwrap.wrap(spec.rule, 96, initial_indent="  ", subsequent_indent="  ")
    if mine:
        lines += ["", "Limits (policy table [limits])", *(f"  {name} = {value:g}" for name, value in mine.items())]
    lines += ["", "When it fails", *textwrap.wrap(spec.remedy, 96, initial_indent="  ", subsequent_indent="  ")]
    lines += ["", f"See {check_link(spec.id)}"]
    if spec.sql:
        variables = [f"SET VARIABLE {name} = {value!r}::DOUBLE;" for name, value in mine.items() if name in spec.sql]
        lines += [
            "",
            "SQL (DuckDB, over views of the Parquet files)",
            *textwrap.indent("\n".join(variables), "  ").split("\n"),
        ]
        lines += textwrap.indent(spec.sql, "  ").split("\n")
    return "\n".join(lines) + "\n"
