"""What `lps-audit` shows: a table of checks, what stands behind one, and what a data set holds."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Self

from rich.markup import escape
from rich.table import Table

from lps.cli.common import ProgressView, codes_table, console
from lps.manifests.audit.core.database import fetch_rows
from lps.manifests.audit.core.policy import Policy
from lps.manifests.audit.core.types import AuditContext, CheckResult, CheckSpec, State
from lps.manifests.audit.run import Audit, seal_facts
from lps.manifests.index import split_sets
from lps.manifests.names import UNTIED_FAKES

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
_LABEL = "CASE label WHEN 0 THEN 'real' WHEN 1 THEN 'fake' ELSE 'unknown' END"


class AuditView(ProgressView):
    """Shows an audit: a bar on a terminal while it runs, then a table."""

    def __init__(self, n_checks: int) -> None:
        super().__init__(lines=False)
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

    def print_end(self, audit: Audit) -> None:
        """Print all results and the verdict."""
        out = console()
        table = Table("check", "state", "severity", title="audit")
        for name in ("measured (limit)", "offenders and notes"):
            table.add_column(name, overflow="fold")
        for result in audit.results:
            table.add_row(
                f"{result.id} {escape(self._titles.get(result.id, ''))}",
                f"[{STYLE[result.state]}]{result.state.upper()}[/]",
                str(result.severity),
                escape(f"{result.measured} ({result.limit})" if result.limit else result.measured),
                escape(_remarks(result)),
            )
        out.print(table)
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
    if spec.sql:
        variables = [f"SET VARIABLE {name} = {value!r}::DOUBLE;" for name, value in mine.items() if name in spec.sql]
        lines += [
            "",
            "SQL (DuckDB, over views of the Parquet files)",
            *textwrap.indent("\n".join(variables), "  ").split("\n"),
        ]
        lines += textwrap.indent(spec.sql, "  ").split("\n")
    return "\n".join(lines) + "\n"


def print_contents(ctx: AuditContext) -> None:
    """Print what a data set holds."""
    out = console()
    out.print(_clips_table(ctx))
    codes = fetch_rows(
        ctx,
        f"SELECT error_code, {_LABEL}, count(*) FROM videos WHERE error_code IS NOT NULL GROUP BY ALL ORDER BY ALL",
    )
    if codes:
        out.print(codes_table({(code, label): n for code, label, n in codes}))
    out.print(_splits_table(ctx))
    for table in _balance_tables(ctx):
        out.print(table)
    [(n_videos, n_bytes, n_shards)] = fetch_rows(
        ctx, "SELECT (SELECT count(*) FROM videos), sum(bytes), count(*) FROM shards"
    )
    lines = [
        f"{ctx.store.url}: {n_videos} input files, {n_shards} shards of {(n_bytes or 0) / 1e9:.2f} GB",
        f"schema {ctx.index['schema_version']}, parameters {str(ctx.index.get('params_sha256'))[:16]}",
        f"seal: {seal_facts(ctx, Policy())['seal']}",
    ]
    for line in lines:
        out.print(line, highlight=False, markup=False)


def _clips_table(ctx: AuditContext) -> Table:
    table = Table("split", "label", "method", "videos", "clips", title="clips")
    sql = f"""SELECT * FROM (
        SELECT split, {_LABEL} AS class, coalesce(method, '') AS method, count(*), sum(n_clips)
        FROM videos WHERE n_clips > 0 GROUP BY ALL
    ) ORDER BY list_position(['train', 'val', 'test'], split), class DESC, method"""
    for row in fetch_rows(ctx, sql):
        table.add_row(*map(escape, map(str, row)))
    return table


def _splits_table(ctx: AuditContext) -> Table:
    from lps.manifests.audit.core.database import local_manifest
    from lps.manifests.columns import split_path

    table = Table("split set", "train", "val", "test", "excluded", "note", title="split sets")
    for name in split_sets(ctx.index):
        local = local_manifest(ctx, split_path(name))
        if local is None:
            continue
        sql = f"SELECT coalesce(split, 'excluded'), count(*) FROM read_parquet('{local}') GROUP BY ALL"
        counts = dict(fetch_rows(ctx, sql))
        table.add_row(name, *(str(counts.get(s, 0)) for s in ("train", "val", "test", "excluded")), _note(ctx, name))
    return table


def _balance_tables(ctx: AuditContext) -> tuple[Table, Table]:
    """Say how even the opened split set is, and which facets of the videos go with the split."""
    from lps.manifests.audit.imbalance import measure_imbalance

    report = measure_imbalance(ctx)
    names = ("split", "videos", "share (wanted)", "clips", "real : fake", "groups", "groups that count")
    sizes = Table(*names, title=f"balance of split set {escape(ctx.split_set)}")
    for split in report.splits:
        wanted = "" if split.target is None else f" ({split.target:.1%})"
        if split.error95 is not None:
            wanted = f" ({split.target:.1%} ± {split.error95:.1%})"
        row = (split.n_videos, f"{split.share:.1%}{wanted}", split.n_clips, f"{split.n_real} : {split.n_fake}")
        sizes.add_row(split.split, *map(str, row), str(split.n_groups), f"{split.effective_groups:.1f}")
    facets = Table("facet", "values", "Cramer's V with the split", "p", title="what goes with the split")
    for facet in report.facets:
        n = len({cell.value for cell in facet.cells})
        shown = (f"{facet.cramers_v:.3f}", f"{facet.chi2_p:.2g}") if n > 1 else ("", "")
        facets.add_row(facet.facet, str(n), *shown)
    return sizes, facets


def _note(ctx: AuditContext, name: str) -> str:
    from lps.manifests.columns import rule_path
    from lps.manifests.index import read_json

    path = rule_path(name)
    rule = read_json(ctx.store, path) if path in ctx.index["manifests"] else {}
    notes: Sequence[str] = (
        f"rule {rule['rule']}, seed {rule['seed']}" if "rule" in rule and "seed" in rule else "",
        "of the shards" if name == ctx.index["split_set"] else "",
        "LEAKY" if rule.get("leaky") else "",
        f"{rule['crossing_groups']} groups cross" if rule.get("crossing_groups") else "",
        f"{rule['untied_fakes']} {UNTIED_FAKES}" if rule.get("untied_fakes") else "",
    )
    return "; ".join(note for note in notes if note)
