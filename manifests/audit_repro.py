"""Checks R2 to R6: what the data set says of itself is enough to make it again, and nothing is left to chance."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pyarrow.parquet as pq

from lps.manifests.audit_results import judged, unjudged
from lps.manifests.audit_types import AuditContext, CheckEntry, CheckResult, CheckSpec, Offender, Severity, State
from lps.manifests.columns import split_path
from lps.manifests.components import SplitInput, inputs_from_table
from lps.manifests.dataset import fetch_number, fetch_rows, local_manifest, read_json, split_sets, sql_offenders
from lps.manifests.errors import RefusedError
from lps.manifests.seal import TRANSIENT
from lps.manifests.splits import SplitParams, SplitRow, assign_splits, rule_record

LIMITS: dict[str, float] = {"r6_tolerance": 0.001}

R2 = CheckSpec(
    id="R2",
    title="The split can be made again",
    rule="The rule record of the split set, run on the videos of this data set (and the base set, where it has one), "
    "gives the same row for every video and the same record. UNKNOWN where it used aliases, which are not stored.",
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
    "that decodes, warps or encodes, the device, and the SHA-256 of each weight file; none is absent.",
    remedy="Prepare again with `lps-prep run`, which records them, from an environment in which they are installed.",
    severity=Severity.WARN,
)
R5 = CheckSpec(
    id="R5",
    title="No passing faults left",
    rule="No video ended with E_OOM, E_TIMEOUT or E_WORKER_LOST, which another run may cure. FAIL in a sealed data "
    "set, WARN before.",
    remedy="`lps-prep retry OUT --code CODE`, then `lps-prep run` again; if they stay, say so in a waiver.",
    severity=Severity.ERROR,
    sql=f"""SELECT 'video' AS kind, lower(hex(video_id)) AS key, error_code || ' ' || uri AS detail FROM videos
WHERE error_code IN ({", ".join(f"'{code}'" for code in TRANSIENT)}) ORDER BY key""",
)
R6 = CheckSpec(
    id="R6",
    title="As many videos as published",
    rule="Videos of a published data set are as many as its authors or measured copies say, within r6_tolerance or "
    "the published range: FaceForensics++ 1000 a method and compression, DFDC 119,140 to 119,200, Celeb-DF v2 590 + "
    "300 real and 5639 fake. SKIP for own folders and tables.",
    remedy="A download is incomplete, or only a part was chosen: complete it, or state the part in a waiver.",
    severity=Severity.WARN,
    sql="""SELECT dataset, label, coalesce(method, 'real'), compression, count(*) FROM videos
WHERE status <> 'skipped' GROUP BY ALL ORDER BY ALL""",
)

VERSIONS = ("lps-prep", "python", "numpy", "av", "opencv-python-headless", "pillow", "torch", "device")
FFPP_VIDEOS = 1000
DFD_VIDEOS = {0: 363, 1: 3068}
DFDC_RANGE = (119_140, 119_200)
CELEBDF_VIDEOS = {0: 890, 1: 5639}


# ---- splits --------------------------------------------------------------------------------------------------------


def check_replay(ctx: AuditContext) -> CheckResult:
    """R2: the rule, run again."""
    path = f"manifests/splits/{ctx.split_set}.json"
    if not ctx.store.exists(path):
        return unjudged(R2, State.UNKNOWN, f"there is no {path} to run again")
    rule = read_json(ctx.store, path)
    if rule.get("aliases_sha256"):
        return unjudged(R2, State.UNKNOWN, "the split used aliases, which the data set does not hold")
    base_set = base_of(ctx, rule)
    if rule.get("base_sha256") and base_set is None:
        return unjudged(R2, State.UNKNOWN, "the base split set is not in the data set")
    stored = split_rows(ctx, ctx.split_set)
    inputs = _inputs(ctx, {row.video_id for row in stored})
    base = split_rows(ctx, base_set) if base_set else None
    try:
        params = _params(rule)
        made = assign_splits(inputs, params, base=base)
        record = rule_record(params, inputs, made, base)
    except (RefusedError, KeyError, TypeError) as e:
        return judged(R2, [Offender(kind="file", key=path, detail=f"cannot be run again: {e}")], len(stored), "videos")
    offenders = list(_moved(stored, made))
    changed = sorted(name for name in {*record, *rule} if record.get(name) != rule.get(name))
    if changed:
        offenders.append(Offender(kind="file", key=path, detail=f"made again, {', '.join(changed)} would differ"))
    return judged(R2, offenders, len(stored), "videos", note=f"rule {params.rule}, seed {params.seed}")


def _params(rule: dict[str, Any]) -> SplitParams:
    return SplitParams(
        rule=rule["rule"],
        ratios=tuple(rule["ratios"]),
        seed=rule["seed"],
        giant=rule["giant"]["policy"],
        allow_leaky=True,
        tries=rule["tries"],
    )


def _moved(stored: list[SplitRow], made: list[SplitRow]) -> Iterator[Offender]:
    again = {row.video_id: row for row in made}
    for row in stored:
        new = again.pop(row.video_id, None)
        if new is None:
            yield Offender(kind="video", key=row.video_id.hex(), detail="in the split set, not in videos, or twice")
        elif new != row:
            name = next(f.name for f in fields(SplitRow) if getattr(new, f.name) != getattr(row, f.name))
            detail = f"{name} is {getattr(row, name)}, made again {getattr(new, name)}"
            yield Offender(kind="video", key=row.video_id.hex(), detail=detail)


def _inputs(ctx: AuditContext, video_ids: set[bytes]) -> list[SplitInput]:
    path = local_manifest(ctx, "manifests/videos.parquet")
    inputs = inputs_from_table(pq.read_table(path))
    return [video for video in inputs if video.video_id in video_ids]


def split_rows(ctx: AuditContext, split_set: str) -> list[SplitRow]:
    """Return the rows of a split set."""
    rows = pq.read_table(local_manifest(ctx, split_path(split_set))).to_pylist()
    names = {f.name for f in fields(SplitRow)}
    known = [{name: value for name, value in row.items() if name in names} for row in rows]
    return [SplitRow(**{**row, "group_keys": tuple(row["group_keys"])}) for row in known]


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
    path = f"manifests/splits/{ctx.split_set}.json"
    rule = read_json(ctx.store, path) if ctx.store.exists(path) else {}
    if not rule.get("base_sha256"):
        return unjudged(R3, State.SKIP, "the split set was made without a base")
    base_set = base_of(ctx, rule)
    if base_set is None:
        return unjudged(R3, State.UNKNOWN, "the base split set is not in the data set")
    local = local_manifest(ctx, split_path(base_set))
    ctx.db.execute(f"SET VARIABLE r3_base = '{local}'")
    n = fetch_number(ctx, "SELECT count(*) FROM read_parquet(getvariable('r3_base'))")
    return judged(R3, sql_offenders(ctx, R3.sql), n, "videos", note=f"base {base_set}")


# ---- provenance ----------------------------------------------------------------------------------------------------


def check_provenance(ctx: AuditContext) -> CheckResult:
    """R4: everything whose change could change bytes is named."""
    if not ctx.plan:
        return unjudged(R4, State.UNKNOWN, "the data set has no plan")
    versions = {str(name): str(value) for name, value in dict(ctx.plan.get("versions") or {}).items()}
    weights = {name: value for name, value in versions.items() if name.startswith("weights/")}
    missing = [f"versions.{name}" for name in VERSIONS if versions.get(name, "absent") in ("", "absent")]
    missing += [f"plan.{name}" for name in ("params", "params_sha256", "split") if not ctx.plan.get(name)]
    missing += [f"versions.{name}" for name, value in weights.items() if len(value) != 64]
    missing += [] if weights else ["versions.weights/*"]
    offenders = [Offender(kind="file", key="plan/plan.json", detail=f"{name} is missing") for name in missing]
    return judged(R4, offenders, len(VERSIONS) + 3 + max(1, len(weights)), "facts")


def check_transient(ctx: AuditContext) -> CheckResult:
    """R5: faults of the cluster."""
    offenders = sql_offenders(ctx, R5.sql)
    n = fetch_number(ctx, "SELECT count(*) FROM videos")
    result = judged(R5, offenders, n, "videos")
    if offenders and not ctx.store.walk("seals"):
        return replace(result, state=State.WARN, note="not sealed yet: a WARN now, a FAIL once it is")
    return result


def check_counts(ctx: AuditContext) -> CheckResult:
    """R6: counts that others published."""
    adapter = str(ctx.plan.get("dataset", ""))
    if adapter not in ("ffpp", "dfdc", "celebdf"):
        return unjudged(R6, State.SKIP, "nobody published how many videos an own folder or table has")
    rows = fetch_rows(ctx, R6.sql)
    offenders = list(_miscounted(adapter, rows, ctx.limits["r6_tolerance"]))
    return judged(R6, offenders, sum(int(row[-1]) for row in rows), "videos")


def _miscounted(adapter: str, rows: list[tuple[Any, ...]], tolerance: float) -> Iterator[Offender]:
    """Yield groups whose number of videos is not the published one. Rows: data set, label, method, compression, n."""
    if adapter == "dfdc":
        total = sum(int(row[-1]) for row in rows)
        if not DFDC_RANGE[0] <= total <= DFDC_RANGE[1]:
            yield Offender(kind="group", key="dfdc", detail=f"{total} videos, measured copies have 119146")
        return
    if adapter == "celebdf":
        for label, expected in CELEBDF_VIDEOS.items():
            n = sum(int(row[-1]) for row in rows if row[1] == label)
            if abs(n - expected) > tolerance * expected:
                yield Offender(kind="group", key=f"celebdf label {label}", detail=f"{n} videos, published {expected}")
        return
    for dataset, label, method, compression, n in rows:
        expected = DFD_VIDEOS[label] if dataset == "dfd" else FFPP_VIDEOS
        if abs(n - expected) > tolerance * expected:
            key = f"{dataset} {method} {compression or ''}".strip()
            yield Offender(kind="group", key=key, detail=f"{n} videos, published {expected}")


CHECKS = (
    CheckEntry(R2, check_replay),
    CheckEntry(R3, check_pinned),
    CheckEntry(R4, check_provenance),
    CheckEntry(R5, check_transient),
    CheckEntry(R6, check_counts),
)
