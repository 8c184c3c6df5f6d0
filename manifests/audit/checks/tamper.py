"""Checks T1 to T4: nothing was changed since it was written.

Without a seal only T4 speaks. It follows the digests that every data set holds: index.json names the bytes of each
manifest and of the plan, the plan's digest is in every commit record, and the commit records hold the rows that the
manifests were made from. That finds accidents and careless edits; who rewrites all of it is found by a seal alone.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from lps.manifests.audit.core.database import fetch_number, fetch_rows, listing, local_manifest, read_present
from lps.manifests.audit.core.policy import NOTHING_REQUIRED, Require
from lps.manifests.audit.core.seal import (
    Signature,
    broken_links,
    check_signature,
    read_seals,
    seal_state,
    signature_path,
    verify_seal,
)
from lps.manifests.audit.core.types import (
    AuditContext,
    CheckEntry,
    CheckResult,
    CheckSpec,
    Offender,
    Severity,
    State,
    not_evaluated,
    pass_or_fail,
    with_unread,
    wrong_file,
)
from lps.manifests.canonical import (
    brief_json,
    canonical_json,
    jsonable,
    parse_json,
    rows_digest,
    sha256_hex,
    unit_interval,
)
from lps.manifests.columns import PATHS, split_path
from lps.manifests.errors import IntegrityError, UnreadableError
from lps.manifests.index import (
    CARDS,
    PLAN_JSON,
    PLAN_SPLITS,
    PLAN_VIDEOS,
    TABLES_OF_A_COMMIT,
    commit_from,
    commit_path,
    rows_path,
)
from lps.manifests.names import Level
from lps.manifests.row_digest import batches_digest
from lps.manifests.rows import row_to_json
from lps.manifests.schemas import TABLES, Row, read_table
from lps.manifests.storage import Store

ROWS_AT_ONCE = 2000
"""Commit records that are held in memory together, beside those of the manifests."""
LIMITS: dict[str, float] = {"t4_quick_rows": 2000, "t4_quick_values": 20_000_000}
DIGEST_ROWS = 8192
NOT_SEALED = "not sealed"
CANNOT_LIST = "the store cannot list files"

T1 = CheckSpec(
    id="T1",
    title="Files are as sealed",
    rule="Every file but runs/, audits/, seals/, and what A5 lets be, is in the newest seal with its size and SHA-256, "
    "none is missing, and the Merkle root is that of the files. Level quick compares shards by size, level full by "
    "every byte.",
    remedy="Restore the named files from a copy. If the change was wanted, seal again: the chain keeps the old seal.",
    severity=Severity.CRITICAL,
    level=Level.QUICK,
)
T1_BYTES = replace(T1, level=Level.FULL)
T2 = CheckSpec(
    id="T2",
    title="Chain of seals",
    rule="Seals are numbered from 1 without gaps; each names the SHA-256 of the one before it, and its Merkle root is "
    "that of the files it lists.",
    remedy="A seal was replaced or removed: compare with copies of the seals that others hold.",
    severity=Severity.CRITICAL,
)
T3 = CheckSpec(
    id="T3",
    title="Signature of the seal",
    rule="The newest seal has a valid ssh signature (namespace lps-prep) of a key that the policy's allowed_signers "
    "file lists. SKIP where there is none, FAIL if the policy requires one; UNKNOWN where nobody says whose key it is.",
    remedy="Sign with `lps-audit seal OUT --key FILE`; name the file of trusted keys in the policy under [require].",
    severity=Severity.CRITICAL,
)
T4 = CheckSpec(
    id="T4",
    title="Digests and rows agree from plan to manifest",
    rule="Each manifest that index.json names has the bytes, rows and SHA-256 given there, and no other manifest "
    "exists (where the store can list files); a card (README.md, croissant.json) that was edited, as to fill in a "
    "licence, is a WARN; a manifest's lps.rows_sha256 is that of its rows; the index's shard list is that "
    "of `shards`. Plan, plan tables and parameters have the digests that index and plan name. Every commit record is "
    "of this plan, has the rows that it names, and its rows are those of the manifests; manifests have no more rows "
    "than plan and records give, and no video stands in two. At level quick, commit records are compared up to "
    "t4_quick_rows rows, in seeded order, and row digests of tables of at most t4_quick_values values.",
    remedy="Somebody edited a file after the run: restore it, or delete index.json and let `lps-prep run` write the "
    "manifests again from the commit records.",
    severity=Severity.CRITICAL,
)
T4_ALL = replace(T4, level=Level.FULL)


def check_files(ctx: AuditContext, *, require: Require = NOTHING_REQUIRED, every_byte: bool = False) -> CheckResult:
    """T1: files against the newest seal."""
    try:
        seals = read_seals(ctx.store)
    except IntegrityError as e:
        return pass_or_fail(T1, [wrong_file("seals", str(e))], 1, "seals")
    if not seals:
        return _not_sealed(T1, require)
    found = verify_seal(ctx.store, seals[-1], every_byte=every_byte)
    offenders = [wrong_file(path, detail) for path, detail in found.wrong]
    notes = (
        f"seal {seals[-1].number}",
        "" if every_byte else "shards by size only; level full reads their bytes",
        "" if found.can_list else f"what was sealed was compared; {CANNOT_LIST}: there may be other files",
    )
    result = pass_or_fail(T1, offenders, len(seals[-1].files), "files", note="; ".join(filter(None, notes)))
    if result.state == State.PASS and not found.can_list:
        result = replace(result, state=State.UNKNOWN)
    return with_unread(result, found.unread)


def check_chain(ctx: AuditContext, *, require: Require = NOTHING_REQUIRED) -> CheckResult:
    """T2: each seal follows from the one before."""
    try:
        seals = read_seals(ctx.store)
    except IntegrityError as e:
        return pass_or_fail(T2, [wrong_file("seals", str(e))], 1, "seals")
    if not seals:
        return _not_sealed(T2, require)
    offenders = [wrong_file(path, detail) for path, detail in broken_links(seals)]
    return pass_or_fail(T2, offenders, len(seals), "seals")


def _not_sealed(spec: CheckSpec, require: Require) -> CheckResult:
    if require.seal or require.signature:
        return pass_or_fail(spec, [wrong_file("seals", NOT_SEALED)], 1, "seals", note="required")
    return not_evaluated(spec, State.SKIP, NOT_SEALED)


def check_signed(ctx: AuditContext, *, require: Require = NOTHING_REQUIRED) -> CheckResult:
    """T3: who vouches for the seal."""
    try:
        seals = read_seals(ctx.store)
    except IntegrityError:
        return not_evaluated(T3, State.UNKNOWN, "the seals are damaged, see T2")
    signature = check_signature(ctx.store, seals[-1], require.allowed_signers) if seals else None
    note = seal_state(seals, signature)
    if signature is None:
        if not require.signature:
            return not_evaluated(T3, State.SKIP, note)
        return pass_or_fail(T3, [wrong_file("seals", note)], 1, "seals", note="required by the policy")
    if not signature.valid:
        offender = wrong_file(signature_path(seals[-1]), signature.note)
        return pass_or_fail(T3, [offender], 1, "seals", note=note)
    return _vouched(signature, note, require)


def _vouched(signature: Signature, note: str, require: Require) -> CheckResult:
    if signature.signer:
        return pass_or_fail(T3, (), 1, "seals", note=note)
    if require.signature:
        return pass_or_fail(T3, [wrong_file("seals", note)], 1, "seals", note=signature.note)
    return not_evaluated(T3, State.UNKNOWN, f"{note}: {signature.note}; name allowed_signers in the policy")


def check_rows(ctx: AuditContext, *, every_row: bool = False) -> CheckResult:
    """T4: index, manifests, plan and commit records tell one story."""
    max_rows = None if every_row else int(ctx.limits["t4_quick_rows"])
    unread: list[str] = []
    committed = _Committed(ctx, max_rows, unread)
    offenders = [*_named_files(ctx, unread), *_unnamed_manifests(ctx), *_plan_digests(ctx, unread), *_shard_list(ctx)]
    try:
        offenders += committed.compare()
        offenders += _row_digests(ctx, None if every_row else ctx.limits["t4_quick_values"])
        n = sum(fetch_number(ctx, f"SELECT count(*) FROM {table}") for table in TABLES)
    except (duckdb.Error, pa.ArrowException, OSError) as e:
        if not offenders:
            raise
        # Bytes that are not those named explain why rows cannot be read; that finding must not be lost.
        return pass_or_fail(
            T4, offenders, len(offenders), "files", note=f"rows could not be compared: {type(e).__name__}"
        )
    note = (
        "" if committed.complete else f"rows of {committed.n_shards} of {committed.n_planned} shards; level full: all"
    )
    result = pass_or_fail(T4, offenders, n, "rows", note=note)
    edited = () if offenders else tuple(_edited_cards(ctx))
    if edited:
        told = "the cards hold no data, and people fill in a licence: compare what else they changed"
        note = "; ".join(filter(None, (note, told)))
        result = replace(result, state=State.WARN, offenders=edited, note=note)
    return with_unread(result, unread)


def _edited_cards(ctx: AuditContext) -> Iterator[Offender]:
    """Yield the cards that are not as they were written; `_named_files` tells those that are gone."""
    for path in CARDS:
        said = ctx.index["manifests"].get(path, {}).get("sha256")
        data = read_present(ctx.store, path) if said else None
        if data is not None and sha256_hex(data) != said:
            yield wrong_file(path, "edited since it was written")


def _named_files(ctx: AuditContext, unread: list[str]) -> Iterator[Offender]:
    """Hold every file that the index names against its entry; `unread` takes why one cannot be read."""
    for path, entry in sorted(ctx.index["manifests"].items()):
        local = local_manifest(ctx, path)
        try:
            sha256 = _digest(ctx, path)
        except UnreadableError as e:
            unread.append(str(e))
            continue
        if sha256 is None:
            yield wrong_file(path, "missing, though the index names it")
        elif sha256 != entry["sha256"] and path not in CARDS:
            yield wrong_file(path, f"sha256 {sha256[:16]}..., the index says {entry['sha256'][:16]}...")
        elif local is not None and pq.read_metadata(local).num_rows != entry.get("rows"):
            yield wrong_file(path, f"{pq.read_metadata(local).num_rows} rows, the index says {entry.get('rows')}")


def _digest(ctx: AuditContext, path: str) -> str | None:
    """Return the SHA-256 of a file, None where it is not there; tables, which may be large, are not held whole."""
    local = local_manifest(ctx, path)
    if local is not None:
        return Store(str(local.parent)).sha256(local.name)
    data = read_present(ctx.store, path)
    return None if data is None else sha256_hex(data)


def _unnamed_manifests(ctx: AuditContext) -> Iterator[Offender]:
    for path in listing(ctx.store) or ():
        if path.startswith("manifests/") and path not in ctx.index["manifests"]:
            yield wrong_file(path, "the index does not name it")


def _plan_digests(ctx: AuditContext, unread: list[str]) -> Iterator[Offender]:
    if not ctx.plan:
        yield wrong_file(PLAN_JSON, "missing")
        return
    if ctx.plan_sha256 != ctx.index.get("plan_sha256"):
        yield wrong_file(PLAN_JSON, "not the plan that the index names")
    for path, name in ((PLAN_VIDEOS, "videos_sha256"), (PLAN_SPLITS, "splits_sha256")):
        try:
            sha256 = _digest(ctx, path)
        except UnreadableError as e:
            unread.append(str(e))
            continue
        if sha256 != ctx.plan.get(name):
            yield wrong_file(path, "not the table that the plan names" if sha256 else "missing")
    params = sha256_hex(canonical_json(ctx.plan.get("params")))
    if not params == ctx.plan.get("params_sha256") == ctx.index.get("params_sha256"):
        yield wrong_file(PLAN_JSON, "params_sha256 is not the digest of the parameters")


def _shard_list(ctx: AuditContext) -> Iterator[Offender]:
    sql = "SELECT shard_id, uri, split, lower(hex(sha256)), bytes, n_samples FROM shards"
    manifest = {row[0]: row for row in fetch_rows(ctx, sql)}
    listed = {
        shard["shard_id"]: (shard["shard_id"], shard["uri"], split, shard["sha256"], shard["bytes"], shard["n_samples"])
        for split, shards in ctx.index.get("shards", {}).items()
        for shard in shards
    }
    for shard_id in sorted(set(manifest) | set(listed)):
        if manifest.get(shard_id) != listed.get(shard_id):
            yield Offender(kind="shard", key=shard_id, detail="index.json and the manifest of shards differ")


def _row_digests(ctx: AuditContext, max_values: float | None) -> Iterator[Offender]:
    """Hold the digest that each table carries against its rows; None as limit: however large it is."""
    for path in sorted({*PATHS.values(), split_path(ctx.split_set)}):
        local = local_manifest(ctx, path)
        assert local is not None  # opening the data set made sure
        file = pq.ParquetFile(local)
        marks = {key.decode(): value.decode() for key, value in (file.schema_arrow.metadata or {}).items()}
        if marks.get("lps.params_sha256", ctx.index["params_sha256"]) != ctx.index["params_sha256"]:
            yield wrong_file(path, "made with other parameters than the index says")
        if max_values is not None and _n_values(file.metadata) > max_values:
            continue
        try:
            found = batches_digest(file.iter_batches(DIGEST_ROWS))
        except ValueError:
            yield wrong_file(path, "holds numbers that are not finite")
            continue
        if marks.get("lps.rows_sha256") != found:
            yield wrong_file(path, "lps.rows_sha256 is not the digest of its rows")


def _n_values(metadata: pq.FileMetaData) -> int:
    """Count the single values of a table, also inside lists."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    return sum(group.column(i).num_values for group in groups for i in range(group.num_columns))


@dataclass(slots=True)
class _Committed:
    """The rows of the commit records beside those of the manifests."""

    ctx: AuditContext
    max_rows: int | None
    unread: list[str]
    """Takes why records could not be read."""
    n_shards: int = 0
    n_planned: int = 0
    n_rows: Counter[str] = field(default_factory=Counter)
    """Rows of the records that were compared, by table."""
    seen: set[str] = field(default_factory=set)
    """Their videos."""
    complete: bool = True
    """Whether every planned shard was compared."""

    def compare(self) -> Iterator[Offender]:
        """Compare shard by shard, in seeded order so that the first are a fair sample; yields what differs."""
        ctx = self.ctx
        planned = [str(shard["shard_id"]) for shard in ctx.plan.get("shards", ())]
        planned.sort(key=lambda shard_id: unit_interval("t4", str(ctx.index.get("plan_sha256")), shard_id))
        self.n_planned = len(planned)
        n_rows, n_compared, held = 0, 0, dict[str, Row]()
        for shard_id in planned:
            if self.max_rows is not None and n_rows >= self.max_rows:
                self.complete = False
                break
            try:
                record = self._record(shard_id)
            except UnreadableError as e:
                self.complete = False
                self.unread.append(str(e))
                continue
            if isinstance(record, Offender):
                self.complete = False
                yield record
                continue
            n_rows += len(record["videos"]) + len(record["clips"])
            self.n_rows.update(
                videos=len(record["videos"]), clips=len(record["clips"]), shards=int(bool(record["shard"]))
            )
            self.n_shards += 1
            held[shard_id] = record
            if n_rows - n_compared >= ROWS_AT_ONCE:
                yield from self._shards(held)
                n_compared, held = n_rows, {}
        yield from self._shards(held)
        if self.complete:
            yield from self._counts()

    def _counts(self) -> Iterator[Offender]:
        """Hold the number of rows of all records, and of those that the plan knows whole, against the manifests."""
        known = fetch_number(self.ctx, "SELECT count(*) FROM plan_videos WHERE shard_id IS NULL")
        planned = fetch_number(self.ctx, "SELECT count(*) FROM plan_videos")  # none where the plan's table is gone
        for table, more in (("videos", known), ("clips", 0), ("shards", 0)):
            stored = fetch_number(self.ctx, f"SELECT count(*) FROM {table}")
            committed = self.n_rows[table] + more
            if stored != committed and (planned or table != "videos"):
                yield wrong_file(PATHS[table], f"{stored} rows, plan and commit records have {committed}")

    def _record(self, shard_id: str) -> Row | Offender:
        """Return a commit record with its rows in JSON form."""
        path = commit_path(shard_id)
        try:
            record = parse_json(read_present(self.ctx.store, path) or b"")
            if "rows" not in record:  # before version 2 the rows stood in the record
                commit_from(record, older=True)
                found = {name: record[name] for name in ("plan_sha256", "shard", "videos", "clips")}
            else:
                commit = commit_from(record)
                found = {"plan_sha256": commit.plan_sha256, "shard": commit.shard}
        except (ValueError, KeyError, TypeError):
            return wrong_file(path, "no readable commit record")
        if found["plan_sha256"] != self.ctx.index.get("plan_sha256"):
            return wrong_file(path, "belongs to another plan")
        digests: dict[str, str] = {}
        for table in () if "videos" in found else TABLES_OF_A_COMMIT:
            data = read_present(self.ctx.store, rows_path(shard_id, table))
            if data is None or sha256_hex(data) != commit.rows[table].sha256:
                return wrong_file(rows_path(shard_id, table), "not the file that its commit record names")
            found[table] = [row_to_json(row) for row in read_table(table, data).to_pylist()]
            named, digests[table] = commit.rows[table], rows_digest(found[table])
            if (len(found[table]), digests[table]) != (named.n_rows, named.rows_sha256):
                return wrong_file(rows_path(shard_id, table), "not the rows that its commit record names")
        found["clips_rows_sha256"] = digests.get("clips") or rows_digest(found["clips"])
        return found

    def _shards(self, records: Mapping[str, Row]) -> Iterator[Offender]:
        """Compare some shards by one query a table: each scans it, which takes most of the time of many shards."""
        ids = {
            shard_id: list(dict.fromkeys(row["video_id"] for row in one["videos"])) for shard_id, one in records.items()
        }
        for video_id in (video_id for some in ids.values() for video_id in some):
            if video_id in self.seen:
                yield Offender(kind="video", key=video_id, detail="stands in two commit records")
            self.seen.add(video_id)
        videos = self._stored("videos", "lower(hex(video_id))", "video_id", [x for some in ids.values() for x in some])
        clips, shards = (self._stored(table, "shard_id", "shard_id", list(records)) for table in ("clips", "shards"))
        for shard_id, record in records.items():
            of_videos = [row for video_id in ids[shard_id] for row in videos[video_id]]
            yield from self._shard(shard_id, record, of_videos, clips[shard_id], shards[shard_id])

    def _stored(self, table: str, value: str, column: str, wanted: Sequence[str]) -> defaultdict[str, list[Row]]:
        """Return the rows of a manifest that have one of some values, by value."""
        found: defaultdict[str, list[Row]] = defaultdict(list)
        for row in _dicts(self.ctx, f"SELECT * FROM {table} WHERE {value} IN ?", [wanted]):
            found[row[column]].append(row)
        return found

    def _shard(
        self, shard_id: str, record: Row, videos: Sequence[Row], clips: Sequence[Row], shards: Sequence[Row]
    ) -> Iterator[Offender]:
        yield from _different("videos", record["videos"], videos)
        yield from _different("clips", record["clips"], clips)
        yield from _different("shards", [record["shard"]] if record["shard"] else [], shards)
        for row in shards:
            if row["clips_rows_sha256"] != record["clips_rows_sha256"]:
                yield Offender(
                    kind="shard", key=shard_id, detail="clips_rows_sha256 is not that of the committed clips"
                )


def _dicts(ctx: AuditContext, sql: str, values: Sequence[Any] = ()) -> list[Row]:
    """Return rows as the commit records spell them."""
    cursor = ctx.db.execute(sql, list(values))
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, map(jsonable, row), strict=True)) for row in cursor.fetchall()]


def _different(table: str, committed: Sequence[Row], stored: Sequence[Row]) -> Iterator[Offender]:
    """Yield what differs between committed and stored rows."""
    key = {"videos": "video_id", "clips": "clip_id", "shards": "shard_id"}[table]
    found: dict[str, list[Row]] = {}
    for row in stored:
        found.setdefault(row[key], []).append(row)
    for row in committed:
        here = found.pop(row[key], [])
        if len(here) != 1:
            detail = f"committed, but {len(here)} rows in {table}"
        else:
            columns = [name for name, value in row.items() if here[0][name] != value]
            if not columns:
                continue
            name = columns[0]
            detail = f"{name} is {brief_json(here[0][name], 40)}, committed as {brief_json(row[name], 40)}"
        yield Offender(kind=table[:-1], key=row[key], detail=detail)
    for name in found:
        yield Offender(kind=table[:-1], key=name, detail=f"in {table}, but not in the commit record of its shard")


def tamper_checks(require: Require) -> tuple[CheckEntry, ...]:
    """Return T1 to T4 for what a policy requires."""
    return (
        CheckEntry(T1, partial(check_files, require=require)),
        CheckEntry(T1_BYTES, partial(check_files, require=require, every_byte=True)),
        CheckEntry(T2, partial(check_chain, require=require)),
        CheckEntry(T3, partial(check_signed, require=require)),
        CheckEntry(T4, check_rows),
        CheckEntry(T4_ALL, partial(check_rows, every_row=True)),
    )


CHECKS = tamper_checks(NOTHING_REQUIRED)
