"""Checks A1, A5, A7, A8 and A9: the manifests fit each other, the plan, the files and the sources."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lps.manifests.audit.checks.tars import CHECKS as TAR_CHECKS
from lps.manifests.audit.core.database import fetch_number, fetch_rows, listing, local_manifest, sql_offenders
from lps.manifests.audit.core.queries import read_claim
from lps.manifests.audit.core.seal import FOUND_LATER, SIDE_FILES
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
)
from lps.manifests.codes import Code, PairFallback, Stage, Status
from lps.manifests.columns import PATHS, split_path
from lps.manifests.errors import UnreadableError, VideoFault
from lps.manifests.index import INDEX_JSON, PLAN_JSON
from lps.manifests.names import PAIR_MODES, RULES, SPLITS, Level
from lps.manifests.schemas import TABLES
from lps.manifests.sequences.archive import MAX_ARCHIVE_BYTES, MAX_ARCHIVE_MEMBERS, ArchiveLimits
from lps.manifests.sequences.folder import sources_of
from lps.manifests.sequences.names import archive_of, is_sequence
from lps.manifests.sequences.stored import SourceDigests
from lps.manifests.splits.records import BRIDGE, NOT_SELECTED

LIMITS: dict[str, float] = {"a8_sample_videos": 200}


def _names(values: Sequence[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


_KEYS = {"videos": "video_id", "clips": "clip_id", "shards": "shard_id", "splits": "video_id"}
_HEX = "lower(hex({}))"


def _repeated(table: str) -> str:
    key = _KEYS[table]
    shown = key if table == "shards" else _HEX.format(key)
    return f"""SELECT '{table[:-1]}' AS kind, {shown} AS key, count(*) || ' rows in {table}' AS detail
FROM {table} GROUP BY {key} HAVING count(*) > 1"""


def _strange(table: str, column: str, allowed: Sequence[str]) -> str:
    return f"""SELECT 'column', '{table}.{column}', count(*) || ' rows with ' || {column} FROM {table}
WHERE {column} NOT IN ({_names(allowed)}) GROUP BY {column}"""


def _differing(kind: str, key: str, pairs: str, columns: Sequence[str], other: str) -> str:
    """Return the query for columns that two tables spell differently; `pairs` joins them, once, as `a` and `b`."""
    differs = [f"a.{column} IS DISTINCT FROM b.{column}" for column in columns]
    said = [
        f"CASE WHEN {where} THEN '{column} is ' || coalesce(a.{column}::VARCHAR, 'null')\n"
        f"            || ', {other} ' || coalesce(b.{column}::VARCHAR, 'null') END"
        for column, where in zip(columns, differs, strict=True)
    ]
    return f"""SELECT '{kind}', key, detail FROM (
    SELECT {key} AS key, unnest([
        {f",{chr(10)}        ".join(said)}]) AS detail
    FROM {pairs}
    WHERE {f"{chr(10)}        OR ".join(differs)}
) WHERE detail IS NOT NULL"""


_DISAGREE = _differing(
    "clip",
    "lower(hex(a.clip_id))",
    "clips a JOIN videos b USING (video_id)",
    ("dataset", "method", "label", "split"),
    "its video says",
)
_REPLANNED = _differing(
    "video",
    "b.video_id",
    "(SELECT *, lower(hex(sha256)) AS digest FROM videos) a\n"
    "    JOIN (SELECT *, sha256 AS digest FROM plan_videos) b ON lower(hex(a.video_id)) = b.video_id",
    ("dataset", "method", "label", "split", "bytes", "digest"),
    "the plan says",
)

A1 = CheckSpec(
    id="A1",
    title="Schema, keys and references",
    rule="Primary keys are unique; columns that must not be null are not; columns whose values are a closed list "
    "(status, error_code, error_stage, label, split, rule and such) hold no other; error_code is null exactly where "
    "status is ok; video_id is that of data set and path; every clip has its video and shard, every split row its "
    "video; dataset, method, label and split say the same in every table that repeats them, and in the plan, as do "
    "size and digest. (A table that does not match the schema at all cannot be audited: exit code 4.)",
    remedy="Nothing here can come from `lps-prep`: find out what edited the manifests, and restore them.",
    severity=Severity.ERROR,
    sql="\nUNION ALL\n".join(
        [
            *(_repeated(table) for table in _KEYS),
            _strange("videos", "status", tuple(Status)),
            _strange("videos", "error_code", tuple(Code)),
            _strange("videos", "error_stage", tuple(Stage)),
            _strange("videos", "split", SPLITS),
            _strange("splits", "split", SPLITS),
            _strange("shards", "status", ("sealed", "open", "orphan")),
            _strange("videos", "label_source", ("folder", "metadata", "list", "csv")),
            _strange("videos", "identity_confidence", ("published", "alias_list", "embedding", "none")),
            _strange("splits", "exclude_reason", (BRIDGE, NOT_SELECTED)),
            _strange("splits", "rule", (*RULES, "hash", "pinned")),
            _strange("clips", "start_rule", ("seeded", "all")),
            _strange("clips", "image_codec", ("jpg", "png", "webp")),
            _strange("clips", "pair_mode", PAIR_MODES),
            _strange("clips", "pair_fallback", tuple(PairFallback)),
            "SELECT 'column', 'videos.label', count(*) || ' rows with ' || label FROM videos\n"
            "WHERE label NOT IN (0, 1) GROUP BY label",
            "SELECT 'video', lower(hex(video_id)), 'status ' || status || ', code ' || coalesce(error_code, 'null')\n"
            "FROM videos WHERE (status = 'ok') <> (error_code IS NULL)",
            "SELECT 'video', lower(hex(video_id)), 'not the id of ' || dataset || ' ' || uri FROM videos\n"
            "WHERE lower(hex(video_id)) <> substr(sha256(dataset || chr(0) || uri), 1, 32)",
            "SELECT 'clip', lower(hex(clip_id)), 'its video is not in videos'\n"
            "FROM clips ANTI JOIN videos USING (video_id)",
            "SELECT 'clip', lower(hex(clip_id)), 'its shard is not in shards'\n"
            "FROM clips ANTI JOIN shards USING (shard_id)",
            "SELECT 'video', lower(hex(video_id)), 'in splits, not in videos'\n"
            "FROM splits ANTI JOIN videos USING (video_id)",
            _DISAGREE,
            _REPLANNED,
            "SELECT 'clip', lower(hex(clip_id)), 'split is ' || c.split || ', its shard says ' || s.split\n"
            "FROM clips c JOIN shards s USING (shard_id) WHERE c.split <> s.split",
        ]
    ),
)
_SPLIT_SQL = """SELECT 'video', lower(hex(video_id)),
    'split is ' || coalesce(v.split, 'null') || ', the split set says ' || coalesce(s.split, 'null')
FROM videos v JOIN splits s USING (video_id) WHERE v.split IS DISTINCT FROM s.split"""
"""Only for the split set that the shards were made for."""

A5 = CheckSpec(
    id="A5",
    title="No orphans",
    rule="Every file below shards/ is in the manifest and every shard there is used by a clip, none is open, and each "
    "has its commit record. FAIL in a sealed data set, WARN before. Side files of readers (x.tar.idx, x.idx), and what "
    "an audit found, left at the top (audit.*, certificate.*), are named in the note.",
    remedy="Delete files that belong to nothing; if a run was cut off, finish it with `lps-prep run`.",
    severity=Severity.ERROR,
    sql="""SELECT 'shard' AS kind, shard_id AS key, 'no clip is in it' AS detail
FROM shards ANTI JOIN clips USING (shard_id)
UNION ALL SELECT 'shard', shard_id, 'is ' || status FROM shards WHERE status <> 'sealed' ORDER BY 2""",
)
A7 = CheckSpec(
    id="A7",
    title="Nothing vanished",
    rule="Planned videos and rows of `videos` are the same; every row but the skipped has a row in the split set; a "
    "video has clips exactly where its status is ok or partial, and as many as n_clips says; counts and keys of each "
    "shard are those of its clips; no split that has videos, or to which the rule gives a share, is without clips. "
    "With --source: every video file there has a row (where the store can list them), and every row its file.",
    remedy="Compare with the plan which rows are missing; restore the manifests or run `lps-prep run` again.",
    severity=Severity.ERROR,
    sql="""WITH made AS (SELECT video_id, count(*) AS n FROM clips GROUP BY video_id),
held AS (
    SELECT shard_id, count(*) AS n, count(*) FILTER (label = 0) AS n_real, count(*) FILTER (label = 1) AS n_fake,
        sum(len(members)) AS n_members, min(sample_key) AS first_key, max(sample_key) AS last_key
    FROM clips GROUP BY shard_id
)
SELECT 'video' AS kind, p.video_id AS key, 'planned (' || p.uri || '), but without a row' AS detail
FROM plan_videos p ANTI JOIN videos v ON p.video_id = lower(hex(v.video_id))
UNION ALL
SELECT 'video', lower(hex(v.video_id)), v.uri || ' was never planned'
FROM videos v ANTI JOIN plan_videos p ON p.video_id = lower(hex(v.video_id))
WHERE (SELECT count(*) FROM plan_videos) > 0
UNION ALL
SELECT 'video', lower(hex(video_id)), 'not in the split set' FROM videos ANTI JOIN splits USING (video_id)
WHERE status <> 'skipped'
UNION ALL
SELECT 'video', lower(hex(video_id)), 'n_clips is ' || n_clips || ', clips has ' || coalesce(n, 0)
FROM videos LEFT JOIN made USING (video_id) WHERE n_clips <> coalesce(n, 0)
UNION ALL
SELECT 'video', lower(hex(video_id)), 'status ' || status || ' with ' || n_clips || ' clips'
FROM videos WHERE (n_clips > 0) <> (status IN ('ok', 'partial'))
UNION ALL
SELECT 'shard', shard_id, 'counts or keys are not those of its clips'
FROM shards s LEFT JOIN held h USING (shard_id)
WHERE (s.n_samples, s.n_real, s.n_fake, s.n_members, s.first_key, s.last_key)
    IS DISTINCT FROM (h.n, h.n_real, h.n_fake, h.n_members, h.first_key, h.last_key)
UNION ALL
SELECT 'split', split, count(*) || ' videos, and no clip' FROM splits LEFT JOIN made USING (video_id)
WHERE split IS NOT NULL GROUP BY split HAVING count(n) = 0
ORDER BY 1, 2""",
)
A8 = CheckSpec(
    id="A8",
    title="Sources are unchanged",
    rule="Of a8_sample_videos source videos chosen by their ids (0: all), size and SHA-256 are those of the manifest. "
    "Needs --source.",
    remedy="Restore the source, or prepare again into a new output: clips of changed videos cannot be reproduced.",
    severity=Severity.ERROR,
    level=Level.FULL,
    sql="SELECT lower(hex(video_id)), uri, bytes, lower(hex(sha256)) FROM videos WHERE sha256 IS NOT NULL\n"
    "ORDER BY sha256(lower(hex(video_id)))",
)
_TRACE = (
    r"""(?:^|[\s'"(=:,;])(?:/[^/\s'"]+){2,}|^/|(?:^|[^A-Za-z])[A-Za-z]:[\\/]|\\\\\w|\w://|(?:^|/)\.\.(?:/|$)|\w@\w"""
)
"""For Python and for DuckDB's RE2 alike."""


def _as_text(field: pa.Field) -> str:
    """Return SQL for the values of a column as one text per row; empty for columns without text."""
    if pa.types.is_string(field.type):
        return f'"{field.name}"'
    if pa.types.is_list(field.type) and pa.types.is_string(field.type.value_type):
        return f'unnest("{field.name}")'
    return ""


_TEXTS = [(table, field, _as_text(field)) for table, schema in TABLES.items() for field in schema if _as_text(field)]


def _traces(table: str, field: pa.Field, text: str) -> str:
    pattern = _TRACE.replace("'", "''")
    return f"""SELECT 'column' AS kind, '{table}.{field.name}' AS key,
    count(*) || ' values, first ''' || min(t) || '''' AS detail
FROM (SELECT DISTINCT {text} AS t FROM {table}) WHERE regexp_matches(t, '{pattern}') HAVING count(*) > 0"""


A9 = CheckSpec(
    id="A9",
    title="No traces of machines",
    rule="No text in any table, in the plan or in the index holds an absolute path, a URL, a path that climbs with "
    "'..', or user@host.",
    remedy="Prepare again with relative paths; paths and names of people do not belong into a published data set.",
    severity=Severity.WARN,
    sql="\nUNION ALL\n".join(_traces(*text) for text in _TEXTS),
)


def check_schema(ctx: AuditContext) -> CheckResult:
    """A1: schema, keys, references."""
    offenders = list(sql_offenders(ctx, A1.sql))
    if ctx.split_set == ctx.index["split_set"]:
        offenders += sql_offenders(ctx, _SPLIT_SQL)
    offenders += _nulls(ctx)
    n = sum(fetch_number(ctx, f"SELECT count(*) FROM {table}") for table in TABLES)
    return pass_or_fail(A1, sorted(offenders, key=lambda o: (o.kind, o.key)), n, "rows")


def _nulls(ctx: AuditContext) -> Iterator[Offender]:
    """Count nulls where none may be. A column that its file declares required cannot hold any: it is not read."""
    for table, schema in TABLES.items():
        local = local_manifest(ctx, PATHS.get(table) or split_path(ctx.split_set))
        assert local is not None  # opening the data set made sure
        stored = pq.read_schema(local)
        open_to_null = [f.name for f in schema if not f.nullable and stored.field(f.name).nullable]
        if not open_to_null:
            continue
        counts = ", ".join(f'count(*) - count("{name}")' for name in open_to_null)
        for name, n in zip(open_to_null, fetch_rows(ctx, f"SELECT {counts} FROM {table}")[0], strict=True):
            if n:
                yield Offender(kind="column", key=f"{table}.{name}", detail=f"{n} nulls")


def check_orphans(ctx: AuditContext) -> CheckResult:
    """A5: files and rows that belong to nothing."""
    files = listing(ctx.store)
    if files is None:
        return not_evaluated(A5, State.UNKNOWN, "the store cannot list files")
    shards = dict(fetch_rows(ctx, "SELECT uri, shard_id FROM shards"))
    planned = {shard["shard_id"] for shard in ctx.plan.get("shards", ())} | set(shards.values())
    commits = {PurePosixPath(path).stem for path in files if path.startswith("commits/") and path.endswith(".json")}
    below = [path for path in files if path.startswith("shards/") and not SIDE_FILES.fullmatch(path)]
    beside = sorted(path for path in files if SIDE_FILES.fullmatch(path))
    found = sorted(path for path in files if FOUND_LATER.fullmatch(path))
    told = ((beside, "side files of readers"), (found, "files of audits"))
    note = "; ".join(f"{len(paths)} {what}, first {paths[0]}" for paths, what in told if paths)
    offenders = [Offender(kind="file", key=p, detail="not in the manifest of shards") for p in below if p not in shards]
    offenders += sql_offenders(ctx, A5.sql)
    offenders += [Offender(kind="shard", key=s, detail="has no commit record") for s in sorted(planned - commits)]
    offenders += [
        Offender(kind="file", key=f"commits/{s}.json", detail="not planned") for s in sorted(commits - planned)
    ]
    rows = [path for path in files if path.startswith("commits/") and path.endswith(".parquet")]
    offenders += [
        Offender(kind="file", key=path, detail="rows of no commit record")
        for path in rows
        if PurePosixPath(path).name.split(".")[0] not in commits | planned
    ]
    sealed = any(path.startswith("seals/") for path in files)
    result = pass_or_fail(A5, offenders, len(below), "files", note=note)
    if offenders and not sealed:
        notes = filter(None, ("not sealed yet: a WARN now, a FAIL once it is", note))
        return replace(result, state=State.WARN, note="; ".join(notes))
    return result


def check_accounting(ctx: AuditContext) -> CheckResult:
    """A7: every input has a row, every clip a count."""
    offenders = [*sql_offenders(ctx, A7.sql), *_without_videos(ctx)]
    unread: list[str] = []
    note = "" if ctx.plan else "the data set has no plan to compare with"
    if ctx.source is None:
        note = "; ".join(filter(None, (note, "without --source, files on disk are not counted")))
    else:
        offenders += _unaccounted(ctx, unread)
    result = pass_or_fail(A7, offenders, fetch_number(ctx, "SELECT count(*) FROM videos"), "videos", note=note)
    return with_unread(result, unread, "source files")


def _without_videos(ctx: AuditContext) -> Iterator[Offender]:
    """Yield the splits that should have videos and have none; all of them, where there are no clips and no splits."""
    found = {split for (split,) in fetch_rows(ctx, "SELECT DISTINCT split FROM splits WHERE split IS NOT NULL")}
    wanted = read_claim(ctx).splits
    for split in wanted:
        if split not in found:
            yield Offender(kind="split", key=split, detail="no video, though the split rule gives it a share")
    if not wanted and not found:
        yield Offender(kind="split", key="*", detail="no video is in any split")


def _unaccounted(ctx: AuditContext, unread: list[str]) -> Iterator[Offender]:
    """Hold rows and files against each other; `unread` takes why it is not known whether a file is there."""
    assert ctx.source is not None  # mypy
    rows = dict(fetch_rows(ctx, "SELECT uri, error_code FROM videos"))
    suffixes = {PurePosixPath(uri).suffix.lower() for uri in rows}
    files: set[str] = set()
    with suppress(UnreadableError):  # without a listing, the files that have a row are asked for by name
        files = sources_of(rows, ctx.source.walk(leaving=True))
    for path in sorted(files - set(rows)):
        if PurePosixPath(path).suffix.lower() in suffixes:
            yield Offender(kind="file", key=path, detail="in the source, but without a row")
    expected = {uri: uri for uri, code in rows.items() if code != Code.E_MISSING_FILE and uri not in files}
    for uri in [uri for uri in expected if is_sequence(uri)]:  # a folder has no size to ask for; an archive has
        inside = archive_of(uri)
        expected[uri] = inside[0] if inside else uri.rstrip("/")
    sizes = ctx.source.sizes_by_name(sorted(set(expected.values())))  # a listing may lack what is there
    for uri, asked in sorted(expected.items()):
        found = sizes[asked]
        if isinstance(found, UnreadableError):
            unread.append(str(found))
        elif found is None:
            yield Offender(kind="file", key=uri, detail="has a row, but is not in the source")


def check_sources(ctx: AuditContext) -> CheckResult:
    """A8: the bytes that the clips were made from."""
    if ctx.source is None:
        return not_evaluated(A8, State.SKIP, "needs the source videos: --source")
    k = int(ctx.limits["a8_sample_videos"])
    rows = fetch_rows(ctx, f"{A8.sql} LIMIT {k}" if k else A8.sql)
    offenders, unread = [], []
    digests = SourceDigests(ctx.source, _archive_limits(ctx))
    for uri, sha256 in sorted((uri, sha256) for _, uri, _, sha256 in rows):  # sequences of an archive in turn
        try:
            found = digests.of(uri)
        except UnreadableError as e:
            unread.append(str(e))
            continue
        except (OSError, VideoFault) as e:
            offenders.append(Offender(kind="file", key=uri, detail=f"cannot be read: {e}"))
            continue
        if found != sha256:
            said = "missing" if found is None else "has other bytes than the manifest says"
            offenders.append(Offender(kind="file", key=uri, detail=said))
    result = pass_or_fail(A8, offenders, len(rows), "videos", note="a sample" if k and len(rows) == k else "")
    return with_unread(result, unread, "source files")


def _archive_limits(ctx: AuditContext) -> ArchiveLimits:
    limits = ctx.plan.get("params", {}).get("limits", {})
    return ArchiveLimits(limits.get("max_bytes", MAX_ARCHIVE_BYTES), limits.get("max_frames", MAX_ARCHIVE_MEMBERS))


def check_traces(ctx: AuditContext) -> CheckResult:
    """A9: paths and names of machines and people."""
    offenders = list(sql_offenders(ctx, A9.sql))
    records = {PLAN_JSON: ctx.plan, INDEX_JSON: ctx.index}
    for name, record in records.items():
        found = [value for value in _strings(record) if re.search(_TRACE, value)]
        if found:
            offenders.append(Offender(kind="file", key=name, detail=f"{len(found)} values, first {found[0]!r}"))
    return pass_or_fail(A9, offenders, len(_TEXTS) + len(records), "columns and files")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


CHECKS = (
    *TAR_CHECKS,
    CheckEntry(A1, check_schema),
    CheckEntry(A5, check_orphans),
    CheckEntry(A7, check_accounting),
    CheckEntry(A8, check_sources),
    CheckEntry(A9, check_traces),
)
