"""Open a data set for auditing: its index, its plan, and its tables as views of one DuckDB connection.

Local Parquet files are read in place; those of a bucket are fetched once into a temporary folder.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lps.manifests.audit.core.types import AuditContext, Offender
from lps.manifests.columns import PATHS, split_path
from lps.manifests.errors import UnreadableError
from lps.manifests.index import INDEX_JSON, PLAN_VIDEOS, read_index, read_plan, readable_rule, split_sets
from lps.manifests.schemas import PLANNED_VIDEOS, SCHEMA_ID, TABLES, check_table
from lps.manifests.splits.groups import alias_roots
from lps.manifests.splits.records import recorded_aliases
from lps.manifests.storage import Store, StoredFile, open_store

if TYPE_CHECKING:
    import duckdb

DUCKDB_MEMORY = "4GB"
"""Queries that need more use the disk. Without a limit DuckDB takes most of the machine."""
NO_LIMITS: Mapping[str, float] = MappingProxyType({})


@contextmanager
def open_dataset(
    location: str, split_set: str | None = None, source: str | None = None, limits: Mapping[str, float] = NO_LIMITS
) -> Iterator[AuditContext]:
    """Open the data set at a path or URL; the context ends the connection and removes what was fetched.

    `split_set` defaults to the one that the shards were made for. Every limit is also a variable of the connection, so
    that the SQL of a check reads it with `getvariable`. Raises UnreadableError for everything that cannot be read: no
    index, a damaged or foreign table, a newer version, no videos, an unknown split set.
    """
    store = open_store(location)
    record, plan = read_index(store), read_plan(store)
    index = record.values
    name = split_set or str(index["split_set"])
    if split_path(name) not in index["manifests"]:
        known = ", ".join(split_sets(index)) or "none"
        raise UnreadableError(f"{store.url} has no split set '{name}'; it has: {known}")
    with TemporaryDirectory(prefix="lps-audit-") as folder:
        db = _connect(store, index, name, Path(folder), limits)
        try:
            yield AuditContext(
                store=store,
                index=index,
                index_sha256=record.sha256,
                plan=plan.values if plan else {},
                plan_sha256=plan.sha256 if plan else "",
                db=db,
                split_set=name,
                limits=dict(limits),
                source=open_store(source) if source else None,
            )
        finally:
            db.close()


def local_manifest(ctx: AuditContext, path: str) -> Path | None:
    """Return the local file of a manifest by its path in the data set; None where the data set lacks it."""
    found = ctx.db.execute("SELECT local FROM audit_files WHERE path = ?", [path]).fetchone()
    return None if found is None else Path(found[0])


def listing(store: Store) -> dict[str, StoredFile] | None:
    """Return every file of the data set by its path; None where the store cannot list (most web servers)."""
    try:
        files = {file.path: file for file in store.walk()}
    except UnreadableError:
        return None
    return files if INDEX_JSON in files else None


def read_present(store: Store, path: str) -> bytes | None:
    """Return a file, None where it is not there. Raises UnreadableError where it is, or where nobody says."""
    try:
        return store.read(path)
    except UnreadableError:
        if store.exists(path):
            raise
        return None


def fetch_rows(ctx: AuditContext, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run a query over the views and return its rows."""
    return [tuple(row) for row in ctx.db.execute(sql, list(values)).fetchall()]


def fetch_number(ctx: AuditContext, sql: str) -> int:
    """Run a query whose answer is one number; null counts as 0."""
    row = ctx.db.execute(sql).fetchone()
    return int(row[0] or 0) if row else 0


def sql_offenders(ctx: AuditContext, sql: str) -> tuple[Offender, ...]:
    """Run the query of a check: its columns are kind, key and detail of each offender."""
    return tuple(Offender(kind=k, key=key or "", detail=detail or "") for k, key, detail in fetch_rows(ctx, sql))


def _connect(
    store: Store, index: Mapping[str, Any], split_set: str, folder: Path, limits: Mapping[str, float]
) -> "duckdb.DuckDBPyConnection":
    import duckdb

    settings = {"autoinstall_known_extensions": "false", "memory_limit": DUCKDB_MEMORY}
    db = duckdb.connect(config={**settings, "temp_directory": str(folder / "spill")})
    try:
        if db.execute("FROM duckdb_settings() WHERE name = 'enable_external_file_cache'").fetchall():
            db.execute("SET enable_external_file_cache = false")  # it would hold in memory what was read once
        db.execute("CREATE TABLE audit_files (path VARCHAR, local VARCHAR)")
        for name, value in limits.items():
            db.execute(f"SET VARIABLE {name} = {float(value)!r}::DOUBLE")
        required = {**PATHS, "splits": split_path(split_set)}
        tables = sorted({path for path in index["manifests"] if path.endswith(".parquet")} | {*required.values()})
        for number, path in enumerate(tables):
            local = folder / f"{number}.parquet"
            if _put(store, path, local, needed=path in required.values()):
                db.execute("INSERT INTO audit_files VALUES (?, ?)", [path, str(local)])
        for table, path in required.items():
            local = folder / f"{tables.index(path)}.parquet"
            db.execute(f"CREATE VIEW {table} AS {_select(table, local, store.join(path))}")
        _plan_view(db, store, folder / "plan.parquet")
        alias_table(db, readable_rule(store, split_set))
        if not db.execute("SELECT count(*) FROM videos").fetchall()[0][0]:
            raise UnreadableError(f"{store.url} holds no videos: there is nothing to audit")
    except BaseException:
        db.close()
        raise
    return db


def _put(store: Store, path: str, target: Path, *, needed: bool) -> bool:
    """Put a file at `target`, as a link where the store is local, else fetched; False where there is none.

    A name of our own also keeps DuckDB from reading brackets and stars of the data set's path as patterns.
    """
    if not needed and not _is_given(store, path):
        return False
    if store.is_local:
        source = store.local_path(path)
        if not source.is_file():
            raise UnreadableError(f"{store.join(path)} is missing, though the index names it")
        target.symlink_to(source)
    else:
        store.fetch(path, target)
    return True


def _is_given(store: Store, path: str) -> bool:
    try:
        return store.exists(path)
    except UnreadableError:
        return False  # the checks that need it ask again, and say why they have no answer


def _select(table: str, local: Path, name: str) -> str:
    """Return the query of a view; nullable columns that an older minor version lacks are null."""
    found = _parquet_schema(local, name)
    check_table(found, table, what=name)
    columns = []
    for field in TABLES[table]:
        if field.name in found.names:
            kind, declared = found.field(field.name).type, field.type
            if plain_type(kind) != declared:
                raise UnreadableError(f"{name}: column {field.name} is {kind}, {SCHEMA_ID} has {declared}")
            columns.append(f'"{field.name}"')
        elif field.nullable:
            columns.append(f'NULL::{_duck_type(field.type)} AS "{field.name}"')
        else:
            raise UnreadableError(f"{name} has no column {field.name}, which {SCHEMA_ID} requires")
    return f"SELECT {', '.join(columns)} FROM read_parquet('{local}')"


def _parquet_schema(local: Path, name: str) -> pa.Schema:
    try:
        return pq.read_schema(local)
    except (pa.ArrowException, OSError) as e:
        raise UnreadableError(f"{name} is not a readable Parquet file: {e}") from e


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that today's schema has for a column of schema 1: no dictionary, no fixed width in lists."""
    if pa.types.is_list(kind) and pa.types.is_fixed_size_binary(kind.value_type):
        return pa.list_(pa.binary())
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _duck_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return _duck_type(kind.value_type) + "[]"
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind):
        return "BLOB"
    names = {"string": "VARCHAR", "bool": "BOOLEAN", "float": "FLOAT", "double": "DOUBLE", "uint8": "UTINYINT"}
    whole = {"int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT", "uint64": "UBIGINT"}
    return {**names, **whole}[str(kind)]


def alias_table(db: "duckdb.DuckDBPyConnection", record: Mapping[str, Any]) -> None:
    """Make the table `aliases` of the keys that a rule record declares equal: each, with the smallest of them."""
    roots = alias_roots(recorded_aliases(record))
    columns = [pa.array(list(values), pa.string()) for values in (roots, roots.values())]
    db.from_arrow(pa.table(columns, names=["key", "root"])).create("aliases")


def _plan_view(db: "duckdb.DuckDBPyConnection", store: Store, local: Path) -> None:
    if not store.exists(PLAN_VIDEOS):
        columns = ", ".join(f"NULL::{_duck_type(field.type)} AS {field.name}" for field in PLANNED_VIDEOS)
        db.execute(f"CREATE VIEW plan_videos AS SELECT {columns} LIMIT 0")
        return
    _put(store, PLAN_VIDEOS, local, needed=True)
    name = store.join(PLAN_VIDEOS)
    missing = sorted(set(PLANNED_VIDEOS.names) - set(_parquet_schema(local, name).names))
    if missing:
        raise UnreadableError(f"{name} has no column {missing[0]}")
    db.execute("INSERT INTO audit_files VALUES (?, ?)", [PLAN_VIDEOS, str(local)])
    columns = ", ".join(f"{field.name}::{_duck_type(field.type)} AS {field.name}" for field in PLANNED_VIDEOS)
    db.execute(f"CREATE VIEW plan_videos AS SELECT {columns} FROM read_parquet('{local}')")
