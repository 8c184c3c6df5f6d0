"""What changed between two versions of a data set: videos, clips, splits, parameters and versions.

Rows are matched by their ids, in DuckDB: millions are joined, never looped over. Of each kind of change the number is
exact and the first few are named.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import duckdb
import pyarrow as pa

from lps.manifests.columns import read_columns, rule_path, split_path
from lps.manifests.index import PLAN_JSON, read_index, read_plan, read_rule, split_sets
from lps.manifests.storage import Store

SCHEMA = "lps.diff"
SCHEMA_VERSION = "1.0"
NAMED = 20
"""Changes of one kind that are named; all are counted."""
SHOWN = 5
"""Changes of one kind that the lines for people name."""

VIDEO_COLUMNS = ("video_id", "uri", "label", "status", "error_code", "sha256")
CLIP_COLUMNS = ("clip_id", "video_id", "sample_key", "frames_sha256", "pair_mode", "pair_fallback")
SPLIT_COLUMNS = ("video_id", "split")
RULE_FIELDS = ("algorithm", "version", "rule", "ratios", "seed", "tries", "giant", "aliases_sha256")
"""What the user decides about a split; the rest of its rule file is counted from the videos."""
PLAN_FIELDS = ("dataset", "params", "shard_bytes", "versions", "writer_version")

_LABEL = "CASE {} WHEN 0 THEN 'real' WHEN 1 THEN 'fake' ELSE 'unknown' END"
_OUTCOME = "concat_ws(' ', {0}.status, {0}.error_code)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that differs."""

    key: str
    """Id in hex, or the path of a parameter."""
    name: str
    """Path of the video, or key of the sample."""
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """All changes of one kind."""

    what: str
    n: int
    named: tuple[Change, ...] = ()
    """The first, in the order of their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitDiff:
    """One split set that both versions have."""

    name: str
    moved: Changes
    """Videos that both have and that lie in another split now, or became excluded or included."""
    new_rule: bool
    """The rule's own parameters differ, so that moves are wanted."""
    unknown_rule: bool = False
    """A version does not state its rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDiff:
    """What changed from `a` to `b`."""

    videos: tuple[Changes, ...]
    clips: tuple[Changes, ...]
    splits: tuple[SplitDiff, ...]
    split_sets_added: tuple[str, ...]
    split_sets_removed: tuple[str, ...]
    parameters: tuple[Change, ...]
    """Changes of the plan: parameters and versions, with `(none)` where one side has no such entry."""
    notes: tuple[str, ...] = ()
    """What could not be compared, and why."""

    @property
    def moved_without_new_rule(self) -> bool:
        """True where a split set moved videos although its rule is the same: no append may do that."""
        return any(split.moved.n and not split.new_rule for split in self.splits)

    @property
    def same(self) -> bool:
        """True where nothing that is compared differs."""
        counted = (*self.videos, *self.clips, *(split.moved for split in self.splits))
        sets = (*self.split_sets_added, *self.split_sets_removed)
        new_rules = any(split.new_rule for split in self.splits)
        return not (any(changes.n for changes in counted) or sets or self.parameters or new_rules)

    def lines(self) -> list[str]:
        """Return the differences for people."""
        lines = ["no difference" if self.same else "differences"]
        for changes in (*self.videos, *self.clips):
            lines += _lines(changes)
        lines += [f"split set '{name}' added" for name in self.split_sets_added]
        lines += [f"split set '{name}' removed" for name in self.split_sets_removed]
        for split in self.splits:
            lines += _split_lines(split)
        if self.parameters:
            lines.append(f"parameters and versions changed: {len(self.parameters)}")
            lines += [f"  {change.key}: {change.before} -> {change.after}" for change in self.parameters]
        return lines + [f"not compared: {note}" for note in self.notes]

    def record(self) -> dict[str, Any]:
        """Return the differences as plain JSON values."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "same": self.same,
            "moved_without_new_rule": self.moved_without_new_rule,
            **json.loads(json.dumps(asdict(self))),
        }


def _lines(changes: Changes, why: str = "") -> Iterator[str]:
    if not changes.n:
        return
    yield f"{changes.what}: {changes.n:,}{why}"
    for change in changes.named[:SHOWN]:
        arrow = f": {change.before} -> {change.after}" if change.before or change.after else ""
        yield f"  {change.name}{arrow}"
    if changes.n > SHOWN:
        yield f"  … and {changes.n - min(SHOWN, len(changes.named)):,} more"


def _split_lines(split: SplitDiff) -> list[str]:
    if split.new_rule:
        why = " (its rule changed)"
    elif split.unknown_rule:
        why = " (a version does not state its rule)"
    else:
        why = " although its rule is the same"
    if not split.moved.n and split.new_rule:
        return [f"split set '{split.name}': the rule changed, no video moved"]
    return list(_lines(split.moved, why))


def diff_datasets(a: Store, b: Store) -> DatasetDiff:
    """Compare two finished data sets. Raises UnreadableError where the index or a manifest of either cannot be read."""
    sets_a, sets_b = _split_sets(a), _split_sets(b)
    plans, notes = _plans(a, b)
    with duckdb.connect() as db:
        _register(db, "videos", VIDEO_COLUMNS, a, b)
        videos = _video_changes(db)
        splits = tuple(_split_diff(db, name, a, b) for name in sorted(sets_a & sets_b))
        _register(db, "clips", CLIP_COLUMNS, a, b)
        clips = (*_clip_changes(db), _pair_changes(db))
    return DatasetDiff(
        videos=videos,
        clips=clips,
        splits=splits,
        split_sets_added=tuple(sorted(sets_b - sets_a)),
        split_sets_removed=tuple(sorted(sets_a - sets_b)),
        parameters=_parameter_changes(*plans) if plans else (),
        notes=notes,
    )


def _video_changes(db: duckdb.DuckDBPyConnection) -> tuple[Changes, ...]:
    both = "a_videos a JOIN b_videos b USING (video_id)"
    label_a, label_b = _LABEL.format("a.label"), _LABEL.format("b.label")
    outcome_a, outcome_b = _OUTCOME.format("a"), _OUTCOME.format("b")
    return (
        _changes(db, "videos added", "video_id", "uri", "b_videos ANTI JOIN a_videos USING (video_id)"),
        _changes(db, "videos removed", "video_id", "uri", "a_videos ANTI JOIN b_videos USING (video_id)"),
        _changes(db, "videos relabelled", "video_id", "b.uri", both, label_a, label_b),
        _changes(db, "videos with another status or code", "video_id", "b.uri", both, outcome_a, outcome_b),
        _changes(db, "videos with other content", "video_id", "b.uri", both, *_short("sha256")),
    )


def _clip_changes(db: duckdb.DuckDBPyConnection) -> tuple[Changes, ...]:
    """Compare clips. An id depends on all parameters, a key on video, face and first frame alone."""
    both = "a_clips a JOIN b_clips b USING (clip_id)"
    alike = "a_clips a JOIN b_clips b ON a.sample_key = b.sample_key AND a.clip_id <> b.clip_id"
    only = "{0}_clips ANTI JOIN {1}_clips USING (clip_id) ANTI JOIN {1}_clips AS same USING (sample_key)"
    return (
        _changes(db, "clips added", "clip_id", "sample_key", only.format("b", "a")),
        _changes(db, "clips removed", "clip_id", "sample_key", only.format("a", "b")),
        _changes(db, "clips with other frames", "clip_id", "b.sample_key", both, *_short("frames_sha256")),
        _changes(db, "clips made with other parameters", "b.clip_id", "b.sample_key", alike),
    )


def _pair_changes(db: duckdb.DuckDBPyConnection) -> Changes:
    """Compare how videos with clips on both sides are paired; what is older than pairs was cut on its own."""
    paired = """(SELECT video_id, string_agg(DISTINCT concat_ws(' ', coalesce(pair_mode, 'own'), pair_fallback), ', '
        ORDER BY concat_ws(' ', coalesce(pair_mode, 'own'), pair_fallback)) AS mode FROM {0}_clips GROUP BY video_id)"""
    joined = f"{paired.format('a')} a JOIN {paired.format('b')} b USING (video_id) JOIN b_videos v USING (video_id)"
    return _changes(db, "videos paired otherwise", "video_id", "v.uri", joined, "a.mode", "b.mode")


def _split_diff(db: duckdb.DuckDBPyConnection, name: str, a: Store, b: Store) -> SplitDiff:
    _register(db, "splits", SPLIT_COLUMNS, a, b, path=split_path(name))
    joined = "a_splits a JOIN b_splits b USING (video_id) LEFT JOIN b_videos v USING (video_id)"
    place = "coalesce({}.split, 'excluded')"
    title = f"split set '{name}': videos moved"
    moved = _changes(db, title, "video_id", "coalesce(v.uri, '')", joined, place.format("a"), place.format("b"))
    rule_a, rule_b = _rule(a, name), _rule(b, name)
    unknown = rule_a is None or rule_b is None
    return SplitDiff(name=name, moved=moved, new_rule=not unknown and rule_a != rule_b, unknown_rule=unknown)


def _short(column: str) -> tuple[str, str]:
    """Compare digests by all their bytes, and name them by the first six."""
    spelled = "CASE WHEN {0}.{1} IS NULL THEN 'unread' ELSE lower(hex({0}.{1})) END"
    return spelled.format("a", column), spelled.format("b", column)


def _changes(
    db: duckdb.DuckDBPyConnection, what: str, key: str, name: str, source: str, before: str = "''", after: str = "''"
) -> Changes:
    """Count and name the rows of `source`; with `before` and `after`, those where the two differ."""
    where = "" if before == after else f"WHERE {before} IS DISTINCT FROM {after}"
    n = int(db.execute(f"SELECT count(*) FROM {source} {where}").fetchall()[0][0])
    if not n:
        return Changes(what=what, n=0)
    query = f"SELECT lower(hex({key})), {name}, {before}, {after} FROM {source} {where} ORDER BY 2, 1 LIMIT {NAMED}"
    rows = db.execute(query).fetchall()
    named = tuple(Change(key=k, name=str(label), before=x, after=y) for k, label, x, y in rows)
    return Changes(what=what, n=n, named=named)


def _register(
    db: duckdb.DuckDBPyConnection, name: str, columns: Sequence[str], a: Store, b: Store, *, path: str = ""
) -> None:
    """Offer a manifest of both sides as `a_<name>` and `b_<name>`."""
    for side, store in (("a", a), ("b", b)):
        table: pa.Table = read_columns(store, name, columns, path=path)
        db.register(f"{side}_{name}", table)


def _split_sets(store: Store) -> set[str]:
    """Return the split sets that the index names and that are there; a web server may not list them."""
    return {name for name in split_sets(read_index(store).values) if store.exists(split_path(name))}


def _rule(store: Store, name: str) -> dict[str, Any] | None:
    path = rule_path(name)
    if not store.exists(path):
        return None
    record = read_rule(store, name)
    rule = {field: record.get(field) for field in RULE_FIELDS}
    giant = rule["giant"]
    rule["giant"] = giant.get("policy") if isinstance(giant, dict) else giant  # the rest of it is counted
    return rule


def _plans(a: Store, b: Store) -> tuple[tuple[dict[str, Any], dict[str, Any]] | None, tuple[str, ...]]:
    before, after = read_plan(a), read_plan(b)
    if before and after:
        return (before.values, after.values), ()
    absent = [store.url for store, plan in ((a, before), (b, after)) if plan is None]
    return None, tuple(f"parameters and versions: {url} has no {PLAN_JSON}" for url in absent)


def _parameter_changes(a: dict[str, Any], b: dict[str, Any]) -> tuple[Change, ...]:
    before, after = dict(_leaves(a)), dict(_leaves(b))
    return tuple(
        Change(key=path, name=path, before=before.get(path, "(none)"), after=after.get(path, "(none)"))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    )


def _leaves(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Flatten what was decided: `params.localize.stride_frames`, `versions.av`."""
    stack: list[tuple[str, Any]] = [(name, plan[name]) for name in PLAN_FIELDS if name in plan]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            stack += [(f"{path}.{name}", item) for name, item in value.items()]
        else:
            yield path, json.dumps(value, ensure_ascii=False)
