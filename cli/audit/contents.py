"""What `lps-audit show` says of a data set: read once, then printed as tables or written as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from lps.cli.audit.panel_view import print_panel
from lps.cli.common import SEE_CODES, codes_table, console, echo
from lps.manifests.audit.core.database import fetch_rows, local_manifest
from lps.manifests.audit.core.policy import Policy
from lps.manifests.audit.core.types import AuditContext
from lps.manifests.audit.imbalance import Imbalance, measure_imbalance
from lps.manifests.audit.run import dataset_facts, seal_facts
from lps.manifests.certificates.record import read_certificate
from lps.manifests.codes import fallback_meaning
from lps.manifests.columns import rule_path, split_path
from lps.manifests.errors import IntegrityError, UnreadableError
from lps.manifests.index import read_rule, split_sets
from lps.manifests.names import UNTIED_FAKES
from lps.manifests.shortcuts.records import ShortcutPanel, read_panels

PAIR_NAMES = ("method", "pair_mode", "pair_fallback", "videos", "clips")
_LABEL = "CASE label WHEN 0 THEN 'real' WHEN 1 THEN 'fake' ELSE 'unknown' END"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSetContents:
    """One split set: how many videos it puts where, and what its rule record says."""

    name: str
    n_train: int
    n_val: int
    n_test: int
    n_excluded: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetContents:
    """What a data set holds."""

    location: str
    """Path or URL, for people: records tell the name alone."""
    facts: Mapping[str, Any]
    """Which data set it is."""
    schema_version: str
    n_bytes: int
    """Size of its shards."""
    clips: tuple[tuple[str, str, str, int, int], ...]
    """Split, label, method (empty: none), videos, clips."""
    codes: tuple[tuple[str, str, int], ...]
    """Code, label, videos."""
    pairs: tuple[tuple[str, str, str, int, int], ...]
    """Method (empty: none), pair mode, code of fallback (empty: none), videos, clips; empty where nothing is paired."""
    split_sets: tuple[SplitSetContents, ...]
    balance: Imbalance
    """How even the split set that was opened is."""
    seal: str
    certificate: str
    """What the certificate beside it says, and whether it names the index that is there now."""
    panels: Mapping[str, ShortcutPanel]
    """What was kept of `lps-audit shortcuts`, by split set."""
    stale_panels: tuple[str, ...]
    """Split sets whose panel is of another state of the data set, or of another version of this program."""
    panels_fault: str = ""
    """Why the panels cannot be read."""

    def record(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        clips = ("split", "label", "method", "videos", "clips")
        return {
            **self.facts,
            "schema_version": self.schema_version,
            "n_bytes": self.n_bytes,
            "clips": [dict(zip(clips, (*row[:2], row[2] or None, *row[3:]), strict=True)) for row in self.clips],
            "pairs": [
                dict(zip(PAIR_NAMES, (row[0] or None, row[1], row[2] or None, *row[3:]), strict=True))
                for row in self.pairs
            ],
            "codes": [{"code": code, "label": label, "videos": n} for code, label, n in self.codes],
            "split_sets": [asdict(each) for each in self.split_sets],
            "balance": asdict(self.balance),
            "seal": self.seal,
            "certificate": self.certificate,
            "shortcuts": {
                name: {**panel.record(), "stale": name in self.stale_panels} for name, panel in self.panels.items()
            },
            "shortcuts_fault": self.panels_fault,
        }


def contents_of(ctx: AuditContext) -> DatasetContents:
    """Count what a data set holds. Raises LpsError for what cannot be read."""
    clips = f"""SELECT * FROM (
        SELECT split, {_LABEL} AS class, coalesce(method, '') AS method, count(*), sum(n_clips)::BIGINT
        FROM videos WHERE n_clips > 0 GROUP BY ALL
    ) ORDER BY list_position(['train', 'val', 'test'], split), class DESC, method"""
    codes = f"SELECT error_code, {_LABEL}, count(*) FROM videos WHERE error_code IS NOT NULL GROUP BY ALL ORDER BY ALL"
    pairs = """SELECT coalesce(method, ''), pair_mode, coalesce(pair_fallback, ''), count(DISTINCT video_id), count(*)
        FROM clips WHERE label = 1 AND EXISTS (FROM clips WHERE pair_mode <> 'own') GROUP BY ALL ORDER BY ALL"""
    panels, fault = _panels(ctx)
    [(n_bytes,)] = fetch_rows(ctx, "SELECT sum(bytes)::BIGINT FROM shards")
    return DatasetContents(
        location=ctx.store.url,
        facts=dataset_facts(ctx),
        schema_version=str(ctx.index["schema_version"]),
        n_bytes=n_bytes or 0,
        clips=tuple(fetch_rows(ctx, clips)),
        codes=tuple(fetch_rows(ctx, codes)),
        pairs=tuple(fetch_rows(ctx, pairs)),
        split_sets=tuple(each for name in split_sets(ctx.index) if (each := _split_set(ctx, name)) is not None),
        balance=measure_imbalance(ctx),
        seal=str(seal_facts(ctx, Policy())["seal"]),
        certificate=_certificate(ctx),
        panels=panels,
        stale_panels=tuple(name for name, panel in panels.items() if not panel.is_of(ctx.index)),
        panels_fault=fault,
    )


def _panels(ctx: AuditContext) -> tuple[dict[str, ShortcutPanel], str]:
    try:
        return read_panels(ctx.store), ""
    except UnreadableError as e:
        return {}, str(e).replace(f"{ctx.store.url}/", "")


def _certificate(ctx: AuditContext) -> str:
    try:
        found = read_certificate(ctx.store)
    except (IntegrityError, UnreadableError) as e:
        return f"not readable: {e}".replace(f"{ctx.store.url}/", "")
    if found is None:
        return "none"
    level, verdict = found.values["level"], found.values["verdict"]
    state = "of this index" if found.is_of(ctx.index_sha256, found.split_set) else "of an earlier state: another index"
    return f"{state}, split set {found.split_set}, level {level}, verdict {verdict} (`certify --verify` recomputes it)"


def _split_set(ctx: AuditContext, name: str) -> SplitSetContents | None:
    local = local_manifest(ctx, split_path(name))
    if local is None:
        return None
    sql = f"SELECT coalesce(split, 'excluded'), count(*) FROM read_parquet('{local}') GROUP BY ALL"
    counts = dict(fetch_rows(ctx, sql))
    return SplitSetContents(
        name=name,
        n_train=counts.get("train", 0),
        n_val=counts.get("val", 0),
        n_test=counts.get("test", 0),
        n_excluded=counts.get("excluded", 0),
        notes=_notes(ctx, name),
    )


def _notes(ctx: AuditContext, name: str) -> tuple[str, ...]:
    path = rule_path(name)
    rule = read_rule(ctx.store, name) if path in ctx.index["manifests"] else {}
    notes: Sequence[str] = (
        f"rule {rule['rule']}, seed {rule['seed']}" if "rule" in rule and "seed" in rule else "",
        "of the shards" if name == ctx.index["split_set"] else "",
        "LEAKY" if rule.get("leaky") else "",
        f"{rule['crossing_groups']} groups cross" if rule.get("crossing_groups") else "",
        f"{rule['untied_fakes']} {UNTIED_FAKES}" if rule.get("untied_fakes") else "",
    )
    return tuple(note for note in notes if note)


def print_contents(found: DatasetContents) -> None:
    """Print what a data set holds."""
    out = console()
    clips = Table("split", "label", "method", "videos", "clips", title="clips")
    for row in found.clips:
        clips.add_row(*map(escape, map(str, row)))
    out.print(clips)
    if found.codes:
        out.print(codes_table({(code, label): n for code, label, n in found.codes}))
    if found.pairs:
        out.print(_pairs_table(found))
    if found.codes or any(code for _, _, code, *_ in found.pairs):
        echo(SEE_CODES)
    sets = Table("split set", "train", "val", "test", "excluded", "note", title="split sets")
    for each in found.split_sets:
        n = (each.n_train, each.n_val, each.n_test, each.n_excluded)
        sets.add_row(each.name, *map(str, n), "; ".join((*each.notes, *_panel_notes(found, each.name))))
    out.print(sets)
    for table in _balance_tables(found):
        out.print(table)
    split_set = str(found.facts["split_set"])
    if split_set in found.panels:
        print_panel(found.panels[split_set], stale=split_set in found.stale_panels)
    counts = f"{found.facts['n_videos']} input files, {found.facts['n_shards']} shards of {found.n_bytes / 1e9:.2f} GB"
    lines = [
        f"{found.location}: {counts}",
        f"schema {found.schema_version}, parameters {str(found.facts['params_sha256'])[:16]}",
        f"seal: {found.seal}",
        f"certificate: {found.certificate}",
        *([f"shortcuts are not known: {found.panels_fault}"] if found.panels_fault else []),
    ]
    for line in lines:
        out.print(line, highlight=False, markup=False)


def _panel_notes(found: DatasetContents, name: str) -> tuple[str, ...]:
    """Say in short what tells the label, where that was measured."""
    panel = found.panels.get(name)
    if panel is None:
        return ()
    if name in found.stale_panels:
        return ("shortcuts: stale",)
    telling = sorted((s for s in panel.scores if s.tells), key=lambda s: -(s.auc or 0))
    measured = any(s.auc is not None for s in panel.scores)
    said = ", ".join(f"{s.name} {s.auc:.2f}" for s in telling[:3]) or ("none found" if measured else "UNKNOWN")
    return (f"shortcuts: {said}",)


def _pairs_table(found: DatasetContents) -> Table:
    """Say how many fakes share the cut of their original, and why others do not."""
    table = Table("method", "window and cut", "why", "videos", "clips", title="fakes beside their originals")
    for method, mode, code, *counts in found.pairs:
        why = f"{code}: {fallback_meaning(code)}" if code else ""
        table.add_row(*map(escape, (method, mode, why)), *map(str, counts))
    return table


def _balance_tables(found: DatasetContents) -> tuple[Table, Table]:
    """Say how even the opened split set is, and which facets of the videos go with the split."""
    names = ("split", "videos", "share (wanted)", "clips", "real : fake", "groups", "groups that count")
    sizes = Table(*names, title=f"balance of split set {escape(str(found.facts['split_set']))}")
    for split in found.balance.splits:
        wanted = "" if split.target is None else f" ({split.target:.1%})"
        if split.error95 is not None:
            wanted = f" ({split.target:.1%} ± {split.error95:.1%})"
        row = (split.n_videos, f"{split.share:.1%}{wanted}", split.n_clips, f"{split.n_real} : {split.n_fake}")
        sizes.add_row(split.split, *map(str, row), str(split.n_groups), f"{split.effective_groups:.1f}")
    facets = Table("facet", "values", "Cramer's V with the split", "p", title="what goes with the split")
    for facet in found.balance.facets:
        n = len({cell.value for cell in facet.cells})
        shown = (f"{facet.cramers_v:.3f}", f"{facet.chi2_p:.2g}") if n > 1 else ("", "")
        facets.add_row(facet.facet, str(n), *shown)
    return sizes, facets
