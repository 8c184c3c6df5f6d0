"""The JSON files that say what there is: the index of a data set, its plan, its split sets, its commit records.

A commit record says that a shard is done. It is small; the rows that the shard adds to the manifests lie beside it as
Parquet, a part of the table `videos` and one of `clips`. It is written last: a shard without one is not there.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from lps.manifests.canonical import canonical_json, parse_json, sha256_hex
from lps.manifests.columns import rule_path, split_path
from lps.manifests.errors import IntegrityError, RefusedError, UnreadableError, first_line
from lps.manifests.fields import NUMBER, TEXT, wrong_place
from lps.manifests.rows import row_from_json
from lps.manifests.schemas import TABLES, PackedTable, Row, check_version, read_table, rows_table
from lps.manifests.storage import Store, check_relative

INDEX_JSON = "index.json"
PLAN_JSON = "plan/plan.json"
PLAN_VIDEOS = "plan/videos.parquet"
PLAN_SPLITS = "plan/splits.parquet"
CARDS = ("README.md", "croissant.json")
"""Cards for people and tools. The index names them among the manifests; people may fill them in (their licence)."""
EDITED_CARD = "runs/withdrawn/{}"
"""Where a card is kept that people had edited when it was written anew."""
WITHDRAWN_INDEX = "runs/withdrawn/index.json"
"""The last index, while a run or a retry has taken it away and none is written yet: it knows the added split sets."""


_RULE_TYPES: dict[str, Any] = {
    "accepted_leakage": [str], "aliases": [[str]], "aliases_sha256": TEXT, "base_sha256": TEXT, "counts": {"*": int},
    "crossing_groups": int, "decided_by": {"*": int}, "edge_kinds": [str], "giant": {"policy": str},
    "inputs_sha256": str, "leaky": bool, "n_groups": int, "n_videos": int, "ratios": [NUMBER], "rule": str, "seed": int,
    "strata": [str], "tries": int, "untied_fakes": int,
}  # fmt: skip
_INDEX_TYPES: dict[str, Any] = {
    "leaky": bool, "params_sha256": str, "plan_sha256": str, "split_set": str, "untied_fakes": int,
    "manifests": {"*": {"bytes": int, "rows": (int, type(None)), "sha256": str}},
    "shards": {"*": [{"shard_id": str, "uri": str, "sha256": str, "bytes": int, "n_samples": int}]},
}  # fmt: skip
_PLAN_TYPES: dict[str, Any] = {
    "dataset": str, "n_videos": int,
    "params": {
        "clips": int, "crop": {"margin": NUMBER}, "localize": {"min_face_px": NUMBER}, "out_px": int, "seed": int,
    },
    "params_sha256": str, "shard_bytes": int, "shards": [{"shard_id": str, "n_videos": int}], "split": _RULE_TYPES,
    "split_set": str, "splits_sha256": str, "versions": {"*": str}, "videos_sha256": str, "writer_version": str,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class JsonRecord:
    """A JSON file of a data set: what it says, and the digest of the same bytes."""

    values: dict[str, Any]
    sha256: str


def split_sets(index: Mapping[str, Any]) -> list[str]:
    """Return the names of all split sets, sorted."""
    head, tail = split_path("\0").split("\0")
    return sorted(p[len(head) : -len(tail)] for p in index["manifests"] if p.startswith(head) and p.endswith(tail))


def read_index(store: Store) -> JsonRecord:
    """Return index.json. Raises UnreadableError where there is none, a damaged, a foreign or a newer one."""
    if store.is_local and not store.exists(INDEX_JSON):
        raise UnreadableError(
            f"{store.url} has no {INDEX_JSON}: it is no data set, or not a complete one (`lps-prep run` finishes it)"
        )
    return _read_index(store, INDEX_JSON)


def _read_index(store: Store, place: str) -> JsonRecord:
    record, where = _read(store, place), store.join(place)
    index = record.values
    if index.get("schema") != "lps.dataset":
        raise UnreadableError(f"{where} is not the index of a data set of this program")
    check_version(str(index.get("schema_version")), what=where)
    if not isinstance(index.get("manifests"), dict) or not isinstance(index.get("split_set"), str):
        raise UnreadableError(f"{where} is damaged: it lists no manifests")
    for path in index["manifests"]:
        check_relative(path)
    if not _lists_are_whole(index["manifests"], index.get("shards", {})):
        raise UnreadableError(f"{where} is damaged: an entry of its manifests or shards is not whole")
    _require_types(index, _INDEX_TYPES, where)
    return record


def _require_types(value: Any, types: Any, what: str) -> None:
    """Raise UnreadableError for the first value of a record that is not of its type."""
    place = wrong_place(value, types)
    if place is not None:
        raise UnreadableError(f"{what} is damaged: its '{place}' is of the wrong type")


def _lists_are_whole(manifests: Mapping[str, Any], shards: Any) -> bool:
    """Tell whether every entry of an index names what readers of it rely on."""
    groups = list(shards.values()) if isinstance(shards, dict) else [None]
    entries = [entry for group in groups for entry in (group if isinstance(group, list) else [None])]
    wanted = {"shard_id", "uri", "sha256", "bytes", "n_samples"}
    return all(isinstance(entry, dict) and "sha256" in entry for entry in manifests.values()) and all(
        isinstance(entry, dict) and wanted <= set(entry) for entry in entries
    )


def withdraw_index(out: Store) -> None:
    """Take the index away and keep a copy below runs/. Raises UnreadableError if the output cannot be written."""
    if out.exists(INDEX_JSON):
        out.publish(WITHDRAWN_INDEX, out.read(INDEX_JSON))
        out.delete(INDEX_JSON)


def publish_index(out: Store, index: bytes) -> None:
    """Write the index: from here on the data set is complete. Raises UnreadableError if it cannot be written."""
    out.publish(INDEX_JSON, index)
    out.delete(WITHDRAWN_INDEX)


def named_manifests(out: Store) -> Row:
    """Return the entries of the index for manifests, or of the one that was taken away; none where neither is whole."""
    for path in (INDEX_JSON, WITHDRAWN_INDEX):
        with suppress(UnreadableError):
            return dict(_read_index(out, path).values["manifests"])
    return {}


def read_plan(store: Store) -> JsonRecord | None:
    """Return plan.json, None where there is none. Raises UnreadableError for a damaged or a newer one."""
    if not store.exists(PLAN_JSON):
        return None
    plan = _read(store, PLAN_JSON)
    check_version(str(plan.values.get("schema_version")), what=store.join(PLAN_JSON))
    _require_types(plan.values, _PLAN_TYPES, store.join(PLAN_JSON))
    if not all("shard_id" in shard for shard in plan.values.get("shards", ())):
        raise UnreadableError(f"{store.join(PLAN_JSON)} is damaged: an entry of its shards is not whole")
    return plan


def read_rule(store: Store, split_set: str) -> dict[str, Any]:
    """Return the rule record of a split set. Raises UnreadableError for one that is missing or damaged."""
    path = rule_path(split_set)
    rule = read_json(store, path)
    _require_types(rule, _RULE_TYPES, store.join(path))
    return rule


def readable_rule(store: Store, split_set: str) -> dict[str, Any]:
    """Return the rule record of a split set, empty where there is none that can be read: nothing is excused then."""
    try:
        return read_rule(store, split_set)
    except UnreadableError:
        return {}


def read_json(store: Store, path: str) -> dict[str, Any]:
    """Return a JSON file of the data set. Raises UnreadableError for one that is missing or damaged."""
    return _read(store, path).values


def _read(store: Store, path: str) -> JsonRecord:
    data = store.read(path)
    try:
        value = parse_json(data)
    except ValueError as e:
        raise UnreadableError(f"{store.join(path)} is damaged: {e}") from e
    if not isinstance(value, dict):
        raise UnreadableError(f"{store.join(path)} is damaged: it holds no record")
    return JsonRecord(value, sha256_hex(data))


# ---- commit records --------------------------------------------------------------------------------------------------

COMMIT_VERSION = 2
"""2 since rows lie beside the record; before, they stood in it."""
READERS = 16
TABLES_OF_A_COMMIT = ("videos", "clips")
_COMMIT_TYPES: dict[str, Any] = {
    "commit_version": int, "shard_id": str, "plan_sha256": str,
    "shard": (type(None), {"uri": str, "bytes": int, "sha256": str}),
    "rows": {"*": {"n_rows": int, "rows_sha256": str, "n_bytes": int, "sha256": str}},
    "videos": [{"video_id": str}], "clips": [{"clip_id": str}],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CommittedRows:
    """The rows that one shard adds to one table."""

    n_rows: int
    rows_sha256: str
    """Digest of the rows, as `lps.rows_sha256` of the file."""
    n_bytes: int
    sha256: str
    """Digest of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit record."""

    shard_id: str
    plan_sha256: str
    shard: Row | None
    """The shard's row, bytes as hex; None where no video of it gave a clip, so that it has no tar."""
    rows: Mapping[str, CommittedRows]
    """By table: `videos` and `clips`."""

    @property
    def content(self) -> tuple[Any, ...]:
        """What two runs of one plan agree in. How rows are packed into Parquet is the library's affair."""
        return (self.plan_sha256, self.shard, *((p.n_rows, p.rows_sha256) for _, p in sorted(self.rows.items())))


def commit_path(shard_id: str) -> str:
    """Return the path of a shard's commit record; a tar without one does not exist."""
    return f"commits/{shard_id}.json"


def rows_path(shard_id: str, table: str) -> str:
    """Return the path of the rows that a shard adds to a table."""
    return f"commits/{shard_id}.{table}.parquet"


def committed_shards(out: Store) -> set[str]:
    """Return the ids of all shards with a commit record."""
    names = [file.path.rsplit("/", 1)[-1] for file in out.walk("commits")]
    return {name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")}


def commit_of(shard_id: str, plan_sha256: str, shard: Row | None, packed: Mapping[str, PackedTable]) -> Commit:
    """Return the record of a shard whose rows, `videos` and `clips`, are packed."""
    rows = {
        table: CommittedRows(one.n_rows, one.rows_sha256, len(one.data), sha256_hex(one.data))
        for table, one in packed.items()
    }
    return Commit(shard_id=shard_id, plan_sha256=plan_sha256, shard=shard, rows=rows)


def publish_commit(out: Store, commit: Commit, packed: Mapping[str, PackedTable]) -> None:
    """Write the rows of a shard, then its record. Raises UnreadableError if they cannot be written."""
    for table, one in packed.items():
        out.publish(rows_path(commit.shard_id, table), one.data)
    out.publish(commit_path(commit.shard_id), canonical_json({"commit_version": COMMIT_VERSION, **asdict(commit)}))


def commit_from(record: Row, *, older: bool = False) -> Commit:
    """Return the record of a commit from its JSON values. Raises KeyError, TypeError or ValueError for what is none.

    `older` allows a record that holds the rows itself: then `rows` of the commit is empty.
    """
    place = wrong_place(record, _COMMIT_TYPES)
    if place is not None:
        raise TypeError(f"its '{place}' is of the wrong type")
    tables = () if older and record["commit_version"] == 1 else TABLES_OF_A_COMMIT
    if tables and record["shard"] is not None:
        try:
            rows_table("shards", [row_from_json("shards", record["shard"])])
        except OverflowError as e:
            raise ValueError(f"a number of its 'shard' is too large: {e}") from e
    return Commit(
        shard_id=record["shard_id"],
        plan_sha256=record["plan_sha256"],
        shard=record["shard"],
        rows={table: CommittedRows(**record["rows"][table]) for table in tables},
    )


def read_commit(out: Store, shard_id: str, plan_sha256: str, *, older: bool = False) -> Commit:
    """Return one commit record.

    Raises IntegrityError when it belongs to another plan or is not readable, and RefusedError for one
    of an older writer, unless `older` allows it.
    """
    path = commit_path(shard_id)
    try:
        record = parse_json(out.read(path))
        if not older and isinstance(record, dict) and record.get("commit_version") == 1:
            raise RefusedError(
                f"{out.url} was made by an older version of this program: {path} is of version 1, now "
                f"{COMMIT_VERSION}. It can be read, audited and trained on, but not resumed: use a new output folder"
            )
        commit = commit_from(record, older=older)
    except (ValueError, KeyError, TypeError) as e:
        raise IntegrityError(f"{out.join(path)} is not a commit record: {e}; delete it and run again") from e
    if commit.plan_sha256 != plan_sha256:
        raise IntegrityError(f"{out.join(path)} belongs to another plan; use a new output")
    return commit


def read_commits(out: Store, shard_ids: Sequence[str], plan_sha256: str, *, older: bool = False) -> list[Commit]:
    """Return the commit records of shards, many read at a time. Raises as `read_commit`."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda shard_id: read_commit(out, shard_id, plan_sha256, older=older), shard_ids))


def read_committed(out: Store, commit: Commit, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a shard in one table, or some of their columns.

    Raises IntegrityError when they are not those of the record, UnreadableError when they cannot be read.
    """
    path = rows_path(commit.shard_id, table)
    if not commit.rows:
        return _rows_in_record(out, commit, table, columns or TABLES[table].names)
    data = out.read(path)
    if sha256_hex(data) != commit.rows[table].sha256:
        raise IntegrityError(
            f"{out.join(path)} is not what {commit_path(commit.shard_id)} names; delete that record and run again"
        )
    return read_table(table, data, columns=columns)


def _rows_in_record(out: Store, commit: Commit, table: str, columns: Sequence[str]) -> pa.Table:
    """Return columns that JSON has values of (no bytes) from a record that holds the rows itself."""
    path = commit_path(commit.shard_id)
    schema = pa.schema([TABLES[table].field(name) for name in columns])
    try:
        return pa.Table.from_pylist(parse_json(out.read(path))[table], schema=schema)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise IntegrityError(f"{out.join(path)} is not a commit record: {first_line(e)}") from e


def withdraw_commit(out: Store, shard_id: str) -> None:
    """Move the commit record of a shard, and its rows, below runs/withdrawn/. Raises UnreadableError."""
    record = out.read(commit_path(shard_id))
    paths = [commit_path(shard_id), *(rows_path(shard_id, table) for table in TABLES_OF_A_COMMIT)]
    for path in filter(out.exists, paths):
        out.publish(f"runs/withdrawn/{sha256_hex(record)[:12]}/{path.removeprefix('commits/')}", out.read(path))
    for path in paths:  # the record first: without it the rows are nothing
        out.delete(path)
