"""Checks R2 to R6: what the data set says of itself is enough to make it again, and nothing is left to chance."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lps.manifests.audit.checks.published_counts import is_counted, miscounted
from lps.manifests.audit.core.database import (
    fetch_number,
    fetch_rows,
    listing,
    local_manifest,
    plain_type,
    sql_offenders,
)
from lps.manifests.audit.core.seal import TRANSIENT, seal_paths
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
    wrong_file,
)
from lps.manifests.columns import PATHS, read_columns, rule_path, split_path
from lps.manifests.errors import RefusedError
from lps.manifests.index import PLAN_JSON, read_json, read_rule, readable_rule, split_sets
from lps.manifests.splits.inputs import INPUT_COLUMNS
from lps.manifests.splits.key_edges import whole
from lps.manifests.splits.records import SplitParams, SplitRow, aliases_digest, recorded_aliases, rows_from_table
from lps.manifests.splits.rule_record import inputs_digest
from lps.manifests.splits.table import split_table
from lps.manifests.storage import Store

LIMITS: dict[str, float] = {"r6_tolerance": 0.001}
COMPARED_ROWS = 65_536
KNOWN_SINCE = {"untied_fakes": (1, 1)}
"""Facts of rule records, and the version of the schema since which they stand there."""

R2 = CheckSpec(
    id="R2",
    title="The split can be made again",
    rule="The rule record of the split set, run on the videos of this data set (and the base set, where it has one), "
    "gives the same row for every video and the same record. UNKNOWN where the base or the aliases that it used are "
    "not in the data set.",
    remedy="Somebody edited the split, or videos were added after it: make a new split set with `lps-prep split`.",
    severity=Severity.ERROR,
)
R3 = CheckSpec(
    id="R3",
    title="Pinned videos stayed",
    rule="Every video of the base split set that still exists has the same split, group and position here.",
    remedy="Make the set again with `lps-prep split --base`; a video that moved has been seen on both sides.",
    severity=Severity.ERROR,
    sql="""SELECT 'video' AS kind, lower(hex(video_id)) AS key,
    'was ' || coalesce(b.split, 'excluded') || ' in the base, is ' || coalesce(s.split, 'excluded') AS detail
FROM read_parquet(getvariable('r3_base')) b JOIN splits s USING (video_id)
WHERE (b.split, b.excluded, b.group_id, b.group_anchor, b.u, b.rule, b.seed)
    IS DISTINCT FROM (s.split, s.excluded, s.group_id, s.group_anchor, s.u, s.rule, s.seed)
ORDER BY key""",
)
R4 = CheckSpec(
    id="R4",
    title="Provenance is complete",
    rule="The plan names its parameters and their digest, the versions of the program, of Python and of every library "
    "that decodes, warps or encodes, the device, and the SHA-256 of each weight file; none is absent. The runs that "
    "are kept in runs/ were of one commit, and of no modified checkout.",
    remedy="Prepare again with `lps-prep run`, which records them, from an environment in which they are installed.",
    severity=Severity.WARN,
)
R5 = CheckSpec(
    id="R5",
    title="No faults of the processing left",
    rule="No video ended with E_OOM, E_TIMEOUT, E_WORKER_LOST or E_INTERNAL: these are faults of the run or of the "
    "program, not of the video. FAIL in a sealed data set, WARN before.",
    remedy="`lps-prep retry OUT --code CODE`, then `lps-prep run` again; if they stay, say so in a waiver.",
    severity=Severity.ERROR,
    sql=f"""SELECT 'video' AS kind, lower(hex(video_id)) AS key, error_code || ' ' || uri AS detail FROM videos
WHERE error_code IN ({", ".join(f"'{code}'" for code in TRANSIENT)}) ORDER BY key""",
)
R6 = CheckSpec(
    id="R6",
    title="As many videos as published",
    rule="Videos of a published data set are as many as its authors or measured copies say, within r6_tolerance or "
    "the published range: FaceForensics++ 1000 a method and compression, DFDC 119,140 to 119,200 and 5000 of the test, "
    "others by label, as `lps-prep sources` has them. SKIP for own folders and tables, and where nobody published a "
    "number.",
    remedy="A download is incomplete, or only a part was chosen: complete it, or state the part in a waiver.",
    severity=Severity.WARN,
    sql="""SELECT dataset, label, coalesce(method, 'real'), compression, count(*) FROM videos
WHERE status <> 'skipped' GROUP BY ALL ORDER BY ALL""",
)

VERSIONS = ("lps-prep", "python", "numpy", "av", "opencv-python-headless", "pillow", "torch", "device")


def check_replay(ctx: AuditContext) -> CheckResult:
    """R2: the rule, run again."""
    path = rule_path(ctx.split_set)
    if not ctx.store.exists(path):
        return not_evaluated(R2, State.UNKNOWN, f"there is no {path} to run again")
    rule = read_rule(ctx.store, ctx.split_set)
    if rule.get("aliases_sha256") != aliases_digest(recorded_aliases(rule)):
        return not_evaluated(R2, State.UNKNOWN, "the rule record does not hold the aliases that the split used")
    base_set = base_of(ctx, rule)
    if rule.get("base_sha256") and base_set is None:
        return not_evaluated(R2, State.UNKNOWN, "the base split set is not in the data set")
    stored = pq.ParquetFile(local_manifest(ctx, split_path(ctx.split_set)))
    n = stored.metadata.num_rows
    base = split_rows(ctx, base_set) if base_set else None
    try:
        params = _params(rule)
        videos = _videos_of(ctx, stored)
        if params.lists and inputs_digest(videos) != rule["inputs_sha256"]:  # lists that came after the plan
            names = ", ".join(name for name, _ in params.lists)
            return not_evaluated(R2, State.UNKNOWN, f"it follows split lists that are not in the data set: {names}")
        made, record = split_table(videos, params, base)
    except (RefusedError, KeyError, TypeError) as e:
        return pass_or_fail(R2, [wrong_file(path, f"cannot be run again: {e}")], n, "videos")
    offenders = list(_moved(stored, made))
    changed = sorted(name for name in {*record, *rule} - _unknown_then(ctx, rule) if record.get(name) != rule.get(name))
    if changed:
        offenders.append(wrong_file(path, f"made again, {', '.join(changed)} would differ"))
    return pass_or_fail(R2, offenders, n, "videos", note=f"rule {params.rule}, seed {params.seed}")


def _unknown_then(ctx: AuditContext, rule: dict[str, Any]) -> set[str]:
    """Return the facts that the rule record lacks because the version that made the data set did not know them."""
    then = tuple(int(part) for part in str(ctx.index["schema_version"]).split(".") if part.isdigit())
    return {name for name, since in KNOWN_SINCE.items() if name not in rule and then < since}


def _params(rule: dict[str, Any]) -> SplitParams:
    return SplitParams(
        rule=rule["rule"],
        ratios=tuple(rule["ratios"]),
        seed=rule["seed"],
        giant=rule["giant"]["policy"],
        aliases=recorded_aliases(rule),
        allow_leaky=True,
        tries=rule["tries"],
        lists=tuple((each["name"], each["sha256"]) for each in rule.get("lists", ())),
    )


def _videos_of(ctx: AuditContext, stored: pq.ParquetFile) -> pa.Table:
    """Return what a split may depend on, of the videos that the split set has."""
    local = local_manifest(ctx, PATHS["videos"])
    assert local is not None  # opening the data set made sure
    videos = read_columns(Store(str(local.parent)), "videos", INPUT_COLUMNS, path=local.name)
    kept = pc.is_in(whole(videos["video_id"]), value_set=whole(stored.read(columns=["video_id"])["video_id"]))
    return videos if pc.all(kept).as_py() else videos.filter(kept)


def _moved(stored: pq.ParquetFile, made: pa.Table) -> Iterator[Offender]:
    """Compare the stored rows with those made again, a batch at a time."""
    ids = whole(stored.read(columns=["video_id"])["video_id"])
    place = pc.index_in(ids, value_set=whole(made["video_id"])).to_numpy(zero_copy_only=False)
    first = np.zeros(len(ids), dtype=np.bool_)
    first[np.unique(place, return_index=True)[1]] = True
    names = [f.name for f in fields(SplitRow) if f.name in stored.schema_arrow.names]
    start = 0
    for batch in stored.iter_batches(COMPARED_ROWS, columns=names):
        rows = slice(start, start + len(batch))
        start += len(batch)
        again = first[rows] & ~np.isnan(place[rows])
        for row in np.flatnonzero(~again).tolist():
            key = batch.column("video_id")[row].as_py().hex()
            yield Offender(kind="video", key=key, detail="in the split set, not in videos, or twice")
        found = pa.Table.from_batches([batch]).filter(pa.array(again))
        yield from _different(found, made.select(names).take(pa.array(place[rows][again].astype(np.int64))))


def _different(stored: pa.Table, made: pa.Table) -> Iterator[Offender]:
    """Yield the first column in which each row differs."""
    seen: set[int] = set()
    for name in stored.column_names:
        plain = plain_type(stored[name].type)
        one, other = stored[name].cast(plain).combine_chunks(), made[name].combine_chunks()
        if one.equals(other):
            continue
        for row, (a, b) in enumerate(zip(one.to_pylist(), other.to_pylist(), strict=True)):
            if a != b and row not in seen:
                seen.add(row)
                key = stored["video_id"][row].as_py().hex()
                yield Offender(kind="video", key=key, detail=f"{name} is {a}, made again {b}")


def split_rows(ctx: AuditContext, split_set: str) -> list[SplitRow]:
    """Return the rows of a split set."""
    stored = pq.read_table(local_manifest(ctx, split_path(split_set)))
    known = {f.name for f in fields(SplitRow)}
    return rows_from_table(stored.select([name for name in stored.column_names if name in known]))


def base_of(ctx: AuditContext, rule: dict[str, Any]) -> str | None:
    """Return the split set that a rule record names as its base by the digest of its rows."""
    wanted = rule.get("base_sha256")
    for name in split_sets(ctx.index):
        path = local_manifest(ctx, split_path(name))
        if (
            wanted
            and path is not None
            and (pq.read_metadata(path).metadata or {}).get(b"lps.rows_sha256") == wanted.encode()
        ):
            return name
    return None


def check_pinned(ctx: AuditContext) -> CheckResult:
    """R3: nobody moved."""
    rule = readable_rule(ctx.store, ctx.split_set)
    if not rule.get("base_sha256"):
        return not_evaluated(R3, State.SKIP, "the split set was made without a base")
    base_set = base_of(ctx, rule)
    if base_set is None:
        return not_evaluated(R3, State.UNKNOWN, "the base split set is not in the data set")
    local = local_manifest(ctx, split_path(base_set))
    ctx.db.execute(f"SET VARIABLE r3_base = '{local}'")
    n = fetch_number(ctx, "SELECT count(*) FROM read_parquet(getvariable('r3_base'))")
    return pass_or_fail(R3, sql_offenders(ctx, R3.sql), n, "videos", note=f"base {base_set}")


def check_provenance(ctx: AuditContext) -> CheckResult:
    """R4: everything whose change could change bytes is named."""
    if not ctx.plan:
        return not_evaluated(R4, State.UNKNOWN, "the data set has no plan")
    versions = {str(name): str(value) for name, value in dict(ctx.plan.get("versions") or {}).items()}
    weights = {name: value for name, value in versions.items() if name.startswith("weights/")}
    missing = [f"versions.{name}" for name in VERSIONS if versions.get(name, "absent") in ("", "absent")]
    missing += [f"plan.{name}" for name in ("params", "params_sha256", "split") if not ctx.plan.get(name)]
    missing += [f"versions.{name}" for name, value in weights.items() if len(value) != 64]
    missing += [] if weights else ["versions.weights/*"]
    offenders = [wrong_file(PLAN_JSON, f"{name} is missing") for name in missing]
    files = listing(ctx.store) if ctx.reads_runs else {}
    runs = _codes_of_runs(ctx, files or ())
    offenders += [
        wrong_file(path, "ran from a modified checkout") for path, code in runs.items() if code.get("modified")
    ]
    commits = {str(code["commit"]): path for path, code in runs.items() if "commit" in code}
    if len(commits) > 1:
        offenders += [wrong_file(path, f"ran commit {commit[:12]}, others did not") for commit, path in commits.items()]
    silent = sum("commit" not in code for code in runs.values())
    none = "no runs are kept" if files is not None else "the store cannot list the runs that it keeps"
    note = f"{silent} of {len(runs)} kept runs do not name a commit" if silent else "" if runs else none
    return pass_or_fail(R4, offenders, len(VERSIONS) + 3 + max(1, len(weights)) + len(runs), "facts", note=note)


def _codes_of_runs(ctx: AuditContext, files: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what every kept run says of the code that ran."""
    codes: dict[str, dict[str, Any]] = {}
    for path in files:
        if path.startswith("runs/") and path.endswith("/run.json"):
            code = read_json(ctx.store, path).get("code")
            codes[path] = code if isinstance(code, dict) else {}
    return codes


def check_transient(ctx: AuditContext) -> CheckResult:
    """R5: faults of the cluster."""
    offenders = sql_offenders(ctx, R5.sql)
    n = fetch_number(ctx, "SELECT count(*) FROM videos")
    result = pass_or_fail(R5, offenders, n, "videos")
    if offenders and not seal_paths(ctx.store):
        return replace(result, state=State.WARN, note="not sealed yet: a WARN now, a FAIL once it is")
    return result


def check_counts(ctx: AuditContext) -> CheckResult:
    """R6: counts that others published."""
    adapter = str(ctx.plan.get("dataset", ""))
    if not is_counted(adapter):
        return not_evaluated(R6, State.SKIP, f"nobody published how many videos {adapter or 'this data set'} has")
    rows = fetch_rows(ctx, R6.sql)
    offenders = list(miscounted(adapter, rows, ctx.limits["r6_tolerance"]))
    return pass_or_fail(R6, offenders, sum(int(row[-1]) for row in rows), "videos")


CHECKS = (
    CheckEntry(R2, check_replay),
    CheckEntry(R3, check_pinned),
    CheckEntry(R4, check_provenance),
    CheckEntry(R5, check_transient),
    CheckEntry(R6, check_counts),
)
