"""Checks A2, A3, A4 and A6: every shard is there, whole, and holds exactly what the manifests say.

At level full each tar is read once, from its first byte to its last, into two tables of the connection: `tar_files`
(shard_id, bytes, sha256, md5, error) and `tar_members` (shard_id, name, key, ext, begins, nbytes, sha256, regular);
`begins` is the first byte of a member's content. The checks are queries over them.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import pyarrow as pa

from lps.manifests.audit.core.database import fetch_number, fetch_rows, sql_offenders
from lps.manifests.audit.core.types import (
    AuditContext,
    CheckEntry,
    CheckResult,
    CheckSpec,
    Offender,
    Severity,
    pass_or_fail,
    with_unread,
)
from lps.manifests.errors import UnreadableError
from lps.manifests.names import Level
from lps.manifests.storage import Store

LIMITS: dict[str, float] = {}
MISSING = "missing"
_UNREAD = f"sha256 IS NULL AND error <> '{MISSING}'"
"""Condition on `tar_files`: the store has the file and does not give its bytes."""

_MEMBERS = pa.schema(
    [
        ("shard_id", pa.string()),
        ("name", pa.string()),
        ("key", pa.string()),
        ("ext", pa.string()),
        ("begins", pa.int64()),
        ("nbytes", pa.int64()),
        ("sha256", pa.binary()),
        ("regular", pa.bool_()),
    ]
)

_TABLES = {
    "tar_files": "shard_id VARCHAR, bytes BIGINT, sha256 BLOB, md5 BLOB, error VARCHAR",
    "tar_members": "shard_id VARCHAR, name VARCHAR, key VARCHAR, ext VARCHAR, begins BIGINT, nbytes BIGINT, "
    "sha256 BLOB, regular BOOLEAN",
}

_LISTED = """listed AS (
    SELECT shard_id, sample_key AS key, m.ext AS ext, m."offset" AS begins, m.nbytes AS nbytes, m.sha256 AS sha256
    FROM (SELECT shard_id, sample_key, unnest(members) AS m FROM clips)
)"""

A2_SIZE = CheckSpec(
    id="A2",
    title="Shards are there",
    rule="Every shard of the manifest is a file of the size that the manifest says. Level full also reads every byte "
    "and compares SHA-256 and MD5.",
    remedy="Restore the shard from a copy, or delete its commit record and run `lps-prep run` again: it comes out "
    "with the same bytes.",
    severity=Severity.CRITICAL,
    level=Level.QUICK,
)
A2_BYTES = CheckSpec(
    id="A2",
    title="Shards are there, byte for byte",
    rule="Every shard of the manifest is a file of the size, SHA-256 and MD5 that the manifest says. UNKNOWN where a "
    "shard cannot be read: then nothing is known of its bytes (A3, A4 and A6 likewise).",
    remedy=A2_SIZE.remedy,
    severity=Severity.CRITICAL,
    level=Level.FULL,
    sql="""SELECT 'shard' AS kind, shard_id AS key, CASE
    WHEN f.error IS NOT NULL AND f.sha256 IS NULL THEN f.error
    WHEN f.bytes <> s.bytes THEN f.bytes || ' bytes, the manifest says ' || s.bytes
    WHEN f.sha256 <> s.sha256 THEN 'sha256 ' || lower(hex(f.sha256)) || ', the manifest says ' || lower(hex(s.sha256))
    ELSE 'md5 differs from the manifest' END AS detail
FROM shards s JOIN tar_files f USING (shard_id)
WHERE f.sha256 IS NULL OR f.bytes <> s.bytes OR f.sha256 <> s.sha256 OR f.md5 <> s.md5 ORDER BY key""",
)
A3 = CheckSpec(
    id="A3",
    title="Nothing in a tar but what the manifest lists",
    rule="Every tar can be read to its end. Each of its members is a plain file, occurs once, and belongs to a sample "
    "whose row in `clips` lists it.",
    remedy="Find out who wrote into the shard; restore it from a copy.",
    severity=Severity.CRITICAL,
    level=Level.FULL,
    sql=f"""WITH {_LISTED}
SELECT 'shard' AS kind, shard_id AS key, error AS detail FROM tar_files WHERE error <> '{MISSING}'
UNION ALL
SELECT 'clip', shard_id || '/' || key, 'sample in the tar without a row in clips'
FROM (SELECT DISTINCT shard_id, key FROM tar_members)
WHERE (shard_id, key) NOT IN (SELECT (shard_id, sample_key) FROM clips)
UNION ALL
SELECT 'file', t.shard_id || '/' || t.name, 'member that its row in clips does not list'
FROM tar_members t ANTI JOIN listed l ON t.shard_id = l.shard_id AND t.key = l.key AND t.ext = l.ext
WHERE (t.shard_id, t.key) IN (SELECT (shard_id, sample_key) FROM clips)
UNION ALL
SELECT 'file', shard_id || '/' || name, count(*) || ' times in the tar'
FROM tar_members GROUP BY shard_id, name HAVING count(*) > 1
UNION ALL
SELECT 'file', shard_id || '/' || name, 'not a plain file' FROM tar_members WHERE NOT regular
ORDER BY 1, 2""",
)
A4 = CheckSpec(
    id="A4",
    title="Everything that the manifest lists is in its tar",
    rule="Each member of each row in `clips` is in the shard's tar at the listed byte, with the listed size and "
    "SHA-256; the sample fills exactly tar_offset to tar_offset + tar_nbytes; it has n_frames images.",
    remedy="Restore the shard from a copy, or make it again with `lps-prep run`.",
    severity=Severity.CRITICAL,
    level=Level.FULL,
    sql=f"""WITH {_LISTED}, wrong AS (
    SELECT l.shard_id, l.key, CASE
        WHEN t.begins IS NULL THEN l.ext || ' is not in the tar'
        WHEN t.begins <> l.begins THEN l.ext || ' begins at byte ' || t.begins || ', listed at ' || l.begins
        ELSE l.ext || ' has other bytes than listed' END AS detail
    FROM listed l LEFT JOIN tar_members t ON t.shard_id = l.shard_id AND t.key = l.key AND t.ext = l.ext
    WHERE t.begins IS NULL OR t.begins <> l.begins OR t.nbytes <> l.nbytes OR t.sha256 <> l.sha256
    UNION ALL
    SELECT c.shard_id, c.sample_key, 'the sample does not fill tar_offset to tar_offset + tar_nbytes'
    FROM clips c JOIN (
        SELECT shard_id, key, min(begins) - 512 AS first, max(begins + ceil(nbytes / 512)::BIGINT * 512) AS last
        FROM tar_members GROUP BY ALL
    ) t ON t.shard_id = c.shard_id AND t.key = c.sample_key
    WHERE t.first <> c.tar_offset OR t.last <> c.tar_offset + c.tar_nbytes
    UNION ALL
    SELECT c.shard_id, c.sample_key, count(l.ext) || ' images for n_frames = ' || any_value(c.n_frames)
    FROM clips c LEFT JOIN listed l
        ON l.shard_id = c.shard_id AND l.key = c.sample_key AND l.ext LIKE '__.' || c.image_codec
    GROUP BY c.shard_id, c.sample_key HAVING count(l.ext) <> any_value(c.n_frames)
)
SELECT 'clip' AS kind, shard_id || '/' || key AS key,
    min(detail) || CASE WHEN count(*) > 1 THEN ', and ' || (count(*) - 1) || ' more' ELSE '' END AS detail
FROM wrong GROUP BY shard_id, wrong.key ORDER BY 2""",
)
A6 = CheckSpec(
    id="A6",
    title="Uniform samples",
    rule="All samples of a shard have the same members; sample keys have no dot and occur once in the data set. "
    "Readers group members by their key up to the first dot, and some refuse shards with uneven samples.",
    remedy="Samples without a label have no .cls member: prepare unlabelled videos as a data set of their own.",
    severity=Severity.ERROR,
    level=Level.FULL,
    sql="""WITH shapes AS (
    SELECT shard_id, key, string_agg(ext, ' ' ORDER BY ext) AS shape FROM tar_members GROUP BY ALL
)
SELECT 'shard' AS kind, shard_id AS key, count(DISTINCT shape) || ' sets of members' AS detail
FROM shapes GROUP BY shard_id HAVING count(DISTINCT shape) > 1
UNION ALL
SELECT 'clip', sample_key, 'the key has a dot' FROM clips WHERE contains(sample_key, '.')
UNION ALL
SELECT 'clip', sample_key, count(*) || ' rows with this key' FROM clips GROUP BY sample_key HAVING count(*) > 1
UNION ALL
SELECT 'clip', key, 'in ' || count(*) || ' shards' FROM shapes GROUP BY key HAVING count(*) > 1
ORDER BY 1, 2""",
)


def check_sizes(ctx: AuditContext) -> CheckResult:
    """A2 without reading shards."""
    rows = fetch_rows(ctx, "SELECT shard_id, uri, bytes FROM shards ORDER BY shard_id")
    sizes = ctx.store.sizes([uri for _, uri, _ in rows], under="shards")
    offenders = []
    for shard_id, uri, n_bytes in rows:
        found = sizes[uri]
        if found is None:
            offenders.append(Offender(kind="shard", key=shard_id, detail=f"{uri} is missing"))
        elif found != n_bytes and not isinstance(found, UnreadableError):
            detail = f"{found} bytes, the manifest says {n_bytes}"
            offenders.append(Offender(kind="shard", key=shard_id, detail=detail))
    result = pass_or_fail(A2_SIZE, offenders, len(rows), "shards", note="sizes only; level full reads the bytes")
    return with_unread(result, [str(size) for size in sizes.values() if isinstance(size, UnreadableError)], "shards")


def check_bytes(ctx: AuditContext) -> CheckResult:
    """A2 with every byte."""
    return _over_tars(ctx, A2_BYTES, "SELECT count(*) FROM shards", "shards")


def check_tar_to_manifest(ctx: AuditContext) -> CheckResult:
    """A3: members without a row."""
    return _over_tars(ctx, A3, "SELECT count(*) FROM tar_members", "members")


def check_manifest_to_tar(ctx: AuditContext) -> CheckResult:
    """A4: rows without members."""
    return _over_tars(ctx, A4, "SELECT count(*) FROM clips", "clips")


def check_uniform(ctx: AuditContext) -> CheckResult:
    """A6: what readers rely on."""
    return _over_tars(ctx, A6, "SELECT count(*) FROM shards", "shards")


def _over_tars(ctx: AuditContext, spec: CheckSpec, count_sql: str, what: str) -> CheckResult:
    read_tars(ctx)
    unread = fetch_rows(ctx, f"SELECT shard_id, error FROM tar_files WHERE {_UNREAD} ORDER BY shard_id")
    names = {shard_id for shard_id, _ in unread}
    found = [o for o in sql_offenders(ctx, spec.sql) if o.key.partition("/")[0] not in names]
    result = pass_or_fail(spec, found, fetch_number(ctx, count_sql), what)
    return with_unread(result, [error for _, error in unread], "shards")


def read_tars(ctx: AuditContext) -> None:
    """Read every shard once and keep what was found in the connection; later calls find it there."""
    known = "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'tar_files'"
    if fetch_number(ctx, known):
        return
    ctx.db.execute("BEGIN")
    try:
        for name, columns in _TABLES.items():
            ctx.db.execute(f"CREATE TABLE {name} ({columns})")
        for shard_id, uri in fetch_rows(ctx, "SELECT shard_id, uri FROM shards ORDER BY shard_id"):
            found = _TarRead(shard_id)
            found.read(ctx.store, uri)
            ctx.db.execute("INSERT INTO tar_files VALUES (?, ?, ?, ?, ?)", found.file_row())
            ctx.db.register("audit_batch", pa.Table.from_pylist(found.members, schema=_MEMBERS))
            ctx.db.execute("INSERT INTO tar_members SELECT * FROM audit_batch")
            ctx.db.unregister("audit_batch")
    except BaseException:
        ctx.db.execute("ROLLBACK")
        raise
    ctx.db.execute("COMMIT")


@dataclass(slots=True)
class _TarRead:
    """What one pass over a shard finds."""

    shard_id: str
    n_bytes: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)
    md5: Any = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))
    error: str | None = None
    members: list[dict[str, Any]] = field(default_factory=list)

    def read(self, store: Store, uri: str) -> None:
        try:
            if not store.exists(uri):
                self.error = MISSING
                return
            stream = _Stream(store.chunks(uri), self)
            try:
                self._list(stream)
            except (tarfile.TarError, EOFError, ValueError) as e:
                self.error = f"not a readable tar: {e}"
            stream.drain()
        except UnreadableError as e:
            self.error, self.n_bytes = str(e), -1

    def _list(self, stream: "_Stream") -> None:
        with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|", errorlevel=2) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                digest = hashlib.file_digest(content, "sha256").digest() if content else None  # type: ignore[arg-type]
                key, _, ext = member.name.partition(".")
                facts = {"shard_id": self.shard_id, "name": member.name, "key": key, "ext": ext}
                place = {"begins": member.offset_data, "nbytes": member.size, "sha256": digest}
                self.members.append({**facts, **place, "regular": member.isreg()})
                vars(tar)["members"].clear()  # a streamed archive would keep every header

    def file_row(self) -> list[Any]:
        """Return the row of `tar_files`; without digests where the file could not be read."""
        if self.error == MISSING or self.n_bytes < 0:
            return [self.shard_id, None, None, None, self.error]
        return [self.shard_id, self.n_bytes, self.sha256.digest(), self.md5.digest(), self.error]


class _Stream(io.RawIOBase):
    """Chunks as a file that is read once; all that passes is digested."""

    def __init__(self, chunks: Iterator[bytes], into: _TarRead) -> None:
        self._chunks, self._into, self._left = chunks, into, b""

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes; empty at the end."""
        if not self._left:
            self._left = next(self._chunks, b"")
            self._into.n_bytes += len(self._left)
            self._into.sha256.update(self._left)
            self._into.md5.update(self._left)
        size = len(self._left) if size < 0 else size
        data, self._left = self._left[:size], self._left[size:]
        return data

    def drain(self) -> None:
        """Read what is left."""
        while self.read():
            pass


CHECKS = (
    CheckEntry(A2_SIZE, check_sizes),
    CheckEntry(A2_BYTES, check_bytes),
    CheckEntry(A3, check_tar_to_manifest),
    CheckEntry(A4, check_manifest_to_tar),
    CheckEntry(A6, check_uniform),
)
