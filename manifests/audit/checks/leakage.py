"""Checks L1 to L11: nothing that a model is tested on was there to be learnt.

Everything is recomputed from the keys, digests and hashes of the videos. The columns that describe groups are not read:
they are what a wrong split would have got wrong.
"""

from dataclasses import replace

from lps.manifests.audit.checks.look_alikes import LIMITS as LOOK_ALIKE_LIMITS
from lps.manifests.audit.checks.look_alikes import look_alike_check
from lps.manifests.audit.checks.near_duplicates import L6, check_near_duplicates
from lps.manifests.audit.checks.reuse import reuse_check
from lps.manifests.audit.core.database import sql_offenders
from lps.manifests.audit.core.queries import (
    DIGESTS,
    IN_SPLITS,
    KEYS,
    LINKS,
    PLACED,
    Claim,
    count,
    percent,
    placed_table,
    read_claim,
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
)
from lps.manifests.names import UNTIED_FAKES
from lps.manifests.splits.groups import Groups
from lps.manifests.splits.key_edges import KeyEdges
from lps.manifests.splits.leakage import crossing_groups, measure_leakage, untied_fakes
from lps.manifests.splits.near_copies import LIMITS as NEARDUP_LIMITS

LIMITS: dict[str, float] = {
    "l2_max_unresolved_pct": 0.1,
    "l4_max_unknown_pct": 5.0,
    **NEARDUP_LIMITS,
    **LOOK_ALIKE_LIMITS,
}

_NOTHING_PLACED = "the split set places no video"


def _crossing(rows: str, where: str = "true") -> str:
    """Return the query for what lies in two splits: `rows` are `keys`, or `links` for every tie."""
    tables = f"{PLACED}, {KEYS}, {LINKS}" if rows == "links" else f"{PLACED}, {KEYS}"
    return f"""WITH {tables}
SELECT 'group' AS kind, key, 'in ' || {IN_SPLITS} AS detail
FROM {rows} WHERE {where}
GROUP BY key HAVING min(split) <> max(split) ORDER BY key"""


L1 = CheckSpec(
    id="L1",
    title="No group in two splits",
    rule="No two videos of different splits are tied by a published key (target, donor, recording, person), by "
    "one being the original of the other, or by equal bytes. Ties are followed through all videos and "
    "recomputed from the keys and the aliases of the rule record; the group columns are not read. Under the rule "
    "official, groups torn only by recordings or persons, and under accepted donor leakage those torn only by donors, "
    "are a WARN: L3 and L4 measure them.",
    remedy="Make a split set that keeps groups whole (`lps-prep split --rule group`, or `official-clean` for "
    "published lists), and use that.",
    severity=Severity.ERROR,
    sql=_crossing("links"),
)
L2 = CheckSpec(
    id="L2",
    title="Fakes beside their originals",
    rule="A fake's original is in the fake's split, or in none; then all fakes of it are in one. The original is the "
    "one that the video names, or that its clips name (pair_id). WARN where more than l2_max_unresolved_pct of the "
    "fakes of a data set that names originals have none among the inputs, or where nothing ties more than that share "
    "of all fakes to a real video: no name, no list, no key.",
    remedy="Split by group. Where originals are missing, complete the source tree or accept that their fakes are "
    "only tied by keys. Where nothing is known, use the adapter of the data set, or a table with originals.",
    severity=Severity.ERROR,
    sql=f"""WITH {PLACED},
named AS (
    SELECT DISTINCT video_id, CASE WHEN regexp_full_match(pair_id, '[0-9a-f]{{32}}') THEN unhex(pair_id) END AS original
    FROM clips WHERE pair_id IS NOT NULL),
families AS (
    SELECT p.*, coalesce(p.original_video_id, n.original) AS original FROM placed p LEFT JOIN named n USING (video_id)),
torn AS (
    SELECT original, {IN_SPLITS} AS splits FROM families ANTI JOIN placed o ON o.video_id = families.original
    WHERE original IS NOT NULL GROUP BY original HAVING min(split) <> max(split))
SELECT 'video' AS kind, lower(hex(f.video_id)) AS key,
    f.uri || ' is in ' || f.split || ', its original ' || o.uri || ' in ' || o.split AS detail
FROM families f JOIN placed o ON o.video_id = f.original WHERE f.split <> o.split
UNION ALL
SELECT 'video', lower(hex(f.video_id)),
    f.uri || ' is in ' || f.split || ', fakes of its original ' || left(lower(hex(original)), 12) || ' in ' || splits
FROM families f JOIN torn USING (original) ORDER BY detail""",
)
L3 = CheckSpec(
    id="L3",
    title="No recording in two splits",
    rule="No source key (such as a YouTube video) has videos in two splits. WARN under the rule official, "
    "which is published so. UNKNOWN where no recording is published.",
    remedy="Use the rule group or official-clean; with official, say in the paper which recordings cross.",
    severity=Severity.ERROR,
    sql=_crossing("keys", "role = 'source'"),
)
L4 = CheckSpec(
    id="L4",
    title="No published person in two splits",
    rule="No identity key has videos in two splits. FAIL where the rule of the split set promises it (every "
    "rule but official, random, and those with accepted donor leakage), else WARN with the rate. UNKNOWN "
    "where no persons are published, or for more than l4_max_unknown_pct of the videos.",
    remedy="Use the rule group, or identity-hash where one group of persons outweighs every split; else report "
    "the rate beside every result.",
    severity=Severity.ERROR,
    sql=_crossing("keys", "role = 'identity'"),
)
L5 = CheckSpec(
    id="L5",
    title="No exact copy in two splits",
    rule="No two videos of different splits have equal files (sha256) or equal clips (frames_sha256). Empty "
    "files do not count.",
    remedy="Split again: the rules tie equal files. For equal clips of different files, name them as aliases or "
    "remove one.",
    severity=Severity.ERROR,
    sql=f"""WITH {PLACED}, {DIGESTS},
shown AS (SELECT d.what, d.digest, p.video_id, p.uri, p.split FROM digests d JOIN placed p USING (video_id)),
torn AS (SELECT what, digest, {IN_SPLITS} AS splits FROM shown GROUP BY ALL HAVING min(split) <> max(split))
SELECT 'video' AS kind, lower(hex(video_id)) AS key,
    min(uri || ' (' || split || '): same ' || what || ' ' || left(lower(hex(digest)), 12) || ' in ' || splits) AS detail
FROM shown JOIN torn USING (what, digest) GROUP BY video_id ORDER BY min(digest), key""",
)
L7 = CheckSpec(
    id="L7",
    title="One video at several compressions or sizes stays together",
    rule="Videos of one data set with equal label, method, keys and file name that differ in compression (or, "
    "if they have keys, in size) are the same video: all of them are in one split.",
    remedy="Give the copies a common key (the column `source` of a table) and split again, or prepare one compression.",
    severity=Severity.ERROR,
    sql=f"""WITH {PLACED},
copies AS (
    SELECT *, hash(dataset, label, method, parse_filename(uri, true), list_sort(target_keys), list_sort(donor_keys),
        list_sort(source_keys), list_sort(identity_keys)) AS video,
        len(target_keys) + len(donor_keys) + len(source_keys) + len(identity_keys) > 0 AS has_keys
    FROM placed),
torn AS (
    SELECT video, {IN_SPLITS} AS splits FROM copies GROUP BY video
    HAVING min(split) <> max(split) AND (min(compression) <> max(compression)
        OR (bool_or(has_keys) AND (min(width) <> max(width) OR min(height) <> max(height)))))
SELECT 'video' AS kind, lower(hex(video_id)) AS key,
    uri || ' (' || split || '): copies in ' || splits AS detail
FROM copies JOIN torn USING (video) ORDER BY uri""",
)
L8 = CheckSpec(
    id="L8",
    title="No copy with the opposite label",
    rule="No two videos with equal files (sha256) or equal clips (frames_sha256) have different labels, in any "
    "split or none.",
    remedy="Find out which label is right, correct the source's list, and prepare again.",
    severity=Severity.ERROR,
    sql=f"""WITH {DIGESTS},
shown AS (SELECT d.what, d.digest, v.video_id, v.uri, v.label FROM digests d JOIN videos v USING (video_id)),
torn AS (SELECT what, digest FROM shown GROUP BY ALL HAVING min(label) <> max(label))
SELECT 'video' AS kind, lower(hex(video_id)) AS key,
    min(uri || ' (label ' || coalesce(label::VARCHAR, 'unknown') || '): same ' || what || ' '
        || left(lower(hex(digest)), 12)) AS detail
FROM shown JOIN torn USING (what, digest) GROUP BY video_id ORDER BY min(digest), key""",
)
L10 = CheckSpec(
    id="L10",
    title="No key shared between data sets across splits",
    rule="No key has a train video of one data set and a val or test video of another. SKIP with a single data set.",
    remedy="Split all data sets together with the rule group: keys live in one namespace, so shared sequences meet.",
    severity=Severity.ERROR,
    sql=f"""WITH {PLACED}, {KEYS},
sides AS (
    SELECT key, {IN_SPLITS} AS splits,
        min(dataset) FILTER (split = 'train') AS train_first, max(dataset) FILTER (split = 'train') AS train_last,
        min(dataset) FILTER (split <> 'train') AS held_first, max(dataset) FILTER (split <> 'train') AS held_last
    FROM keys GROUP BY key)
SELECT 'group' AS kind, key, 'in ' || splits || ' of ' || least(train_first, held_first) || ' and '
    || greatest(train_last, held_last) AS detail
FROM sides
WHERE train_first IS NOT NULL AND held_first IS NOT NULL
    AND least(train_first, held_first) <> greatest(train_last, held_last) ORDER BY key""",
)


def check_groups(ctx: AuditContext) -> CheckResult:
    """L1: groups, recomputed."""
    n, n_tied = count(
        ctx,
        """SELECT count(*), count(*) FILTER (len(target_keys) + len(donor_keys) + len(source_keys)
        + len(identity_keys) > 0 OR original_video_id IS NOT NULL) FROM placed""",
    )
    if not n:
        return not_evaluated(L1, State.SKIP, _NOTHING_PLACED)
    claim = read_claim(ctx)
    found = sql_offenders(ctx, L1.sql)
    n_keys = len(found)
    videos, codes = placed_table(ctx)
    leaks = measure_leakage(videos, codes, aliases=claim.aliases)
    if found:
        found = tuple(
            Offender(kind="group", key=group.name, detail=", ".join(f"{k} {split}" for split, k in group.videos))
            for group in crossing_groups(videos, codes, claim.aliases)
        )
    notes = []
    if claim.rule is None:
        notes.append("the rule record cannot be read: groups are those of the keys alone, without aliases")
    elif not claim.knows_aliases:
        notes.append("the split used aliases that its rule record does not hold: groups are those of the keys alone")
    if n_tied < n:
        notes.append(f"{n - n_tied} of {n} videos publish no key and no original")
    state = State.PASS if n_tied else State.UNKNOWN
    if found:
        state = State.WARN if _is_excused(ctx, claim) else State.FAIL
        notes.append(_excuse(claim) if state == State.WARN else f"{n_keys} keys cross")
    return CheckResult(
        id=L1.id,
        state=state,
        severity=L1.severity,
        measured=f"{len(found)} groups cross",
        limit="0",
        n_checked=n,
        offenders=found,
        note="; ".join(notes),
        data={"leakage": [leak.record() for leak in leaks]},
    )


def _is_excused(ctx: AuditContext, claim: Claim) -> bool:
    """Tell whether nothing crosses but what the rule leaves to L3 and L4, or what its maker accepted."""
    if claim.rule == "official":
        others = "role NOT IN ('source', 'identity') AND NOT is_person"
    elif "donor" in claim.accepted:
        others = "NOT is_donor"
    else:
        return False
    return not sql_offenders(ctx, _crossing("links", others))


def _excuse(claim: Claim) -> str:
    if claim.rule == "official":
        return "published so: only shared recordings and persons tie these groups; see L3 and L4"
    return "only donors tie these groups, which the maker of the split accepted"


def check_originals(ctx: AuditContext) -> CheckResult:
    """L2: a fake and its original."""
    n_fakes, n_named, n_unresolved = count(
        ctx,
        """, naming AS (SELECT DISTINCT dataset FROM placed WHERE original_video_id IS NOT NULL)
        SELECT count(*), count(*) FILTER (original_video_id IN (SELECT video_id FROM videos)),
            count(*) FILTER (dataset IN (FROM naming)
                AND (original_video_id IS NULL OR original_video_id NOT IN (SELECT video_id FROM videos)))
        FROM placed WHERE label = 1""",
    )
    found = sql_offenders(ctx, L2.sql)
    limit = ctx.limits["l2_max_unresolved_pct"]
    n_untied = _n_untied(ctx)
    too_many = 100 * max(n_unresolved, n_untied) > limit * n_fakes
    if not n_named and not found and not too_many:
        why = "no originals are published" if n_fakes else "no fakes are placed"
        return not_evaluated(L2, State.UNKNOWN if n_fakes else State.SKIP, why)
    notes = (
        f"{percent(n_unresolved, n_fakes)} of the fakes have no original among the inputs" if n_unresolved else "",
        f"{n_untied} of {n_fakes} {UNTIED_FAKES}: nothing ties them to a real video" if n_untied else "",
    )
    return CheckResult(
        id=L2.id,
        state=State.FAIL if found else State.WARN if too_many else State.PASS,
        severity=L2.severity,
        measured=f"{len(found)} fakes apart from their original, {n_unresolved} without one",
        limit=f"0; {limit:g} % unresolved",
        n_checked=n_named,
        offenders=found,
        note="; ".join(filter(None, notes)),
        data={"untied_fakes": n_untied},
    )


def _n_untied(ctx: AuditContext) -> int:
    videos, _ = placed_table(ctx)
    return int(untied_fakes(videos, Groups.of(KeyEdges.of(videos, read_claim(ctx).aliases))).sum())


def check_recordings(ctx: AuditContext) -> CheckResult:
    """L3: shared recordings."""
    n, n_known = count(ctx, "SELECT count(*), count(*) FILTER (len(source_keys) > 0) FROM placed")
    if not n_known:
        return not_evaluated(
            L3, State.UNKNOWN if n else State.SKIP, "no recording is published" if n else _NOTHING_PLACED
        )
    found = sql_offenders(ctx, L3.sql)
    official = read_claim(ctx).rule == "official"
    torn = "the published lists themselves tear these recordings" if found and official else ""
    unknown = f"recordings of {n - n_known} of {n} videos are unknown" if n_known < n else ""
    note = "; ".join(filter(None, (torn, unknown)))
    result = pass_or_fail(L3, found, n_known, "videos", measured=f"{len(found)} recordings cross", note=note)
    return replace(result, state=State.WARN) if torn else result


def check_persons(ctx: AuditContext) -> CheckResult:
    """L4: published identities."""
    n, n_known, n_held, n_seen = count(
        ctx,
        """, known AS (SELECT * FROM keys WHERE role = 'identity'),
        trained AS (SELECT DISTINCT key FROM known WHERE split = 'train')
        SELECT (SELECT count(*) FROM placed), count(DISTINCT video_id),
            count(DISTINCT video_id) FILTER (split <> 'train'),
            count(DISTINCT video_id) FILTER (split <> 'train' AND key IN (FROM trained)) FROM known""",
    )
    if not n_known:
        return not_evaluated(
            L4, State.UNKNOWN if n else State.SKIP, "nobody published who is in these videos" if n else _NOTHING_PLACED
        )
    found = sql_offenders(ctx, L4.sql)
    unknown = n - n_known
    state = State.UNKNOWN if 100 * unknown > ctx.limits["l4_max_unknown_pct"] * n else State.PASS
    if found:
        state = State.FAIL if read_claim(ctx).keeps_people_apart else State.WARN
    return CheckResult(
        id=L4.id,
        state=state,
        severity=L4.severity,
        measured=f"{len(found)} persons cross; {percent(n_seen, n_held)} of held-out videos show one of train",
        limit="0",
        n_checked=n_known,
        offenders=found,
        note=f"the people in {unknown} of {n} videos ({percent(unknown, n)}) are unknown" if unknown else "",
        data={"n_held": n_held, "n_seen": n_seen, "n_unknown": unknown},
    )


def check_copies(ctx: AuditContext) -> CheckResult:
    """L5: equal content in two splits."""
    files, clips = count(
        ctx,
        """SELECT count(sha256), (SELECT count(*) FROM clips WHERE video_id IN (SELECT video_id FROM placed))
        FROM placed""",
    )
    if not files and not clips:
        return not_evaluated(L5, State.UNKNOWN, "no placed video has a digest")
    found = sql_offenders(ctx, L5.sql)
    measured, note = f"{len(found)} videos with a copy in another split", f"{files} files, {clips} clips"
    return pass_or_fail(L5, found, files, "files", measured=measured, note=note)


def check_versions(ctx: AuditContext) -> CheckResult:
    """L7: copies of one video at another compression or size."""
    (n,) = count(ctx, "SELECT count(*) FROM placed")
    if not n:
        return not_evaluated(L7, State.SKIP, _NOTHING_PLACED)
    found = sql_offenders(ctx, L7.sql)
    measured = f"{len(found)} videos torn from another version of themselves"
    return pass_or_fail(L7, found, n, "videos", measured=measured)


def check_opposite(ctx: AuditContext) -> CheckResult:
    """L8: equal content, different labels."""
    (n,) = count(ctx, "SELECT count(*) FROM videos WHERE label IS NOT NULL AND sha256 IS NOT NULL")
    if not n:
        return not_evaluated(L8, State.SKIP, "no video has both a label and a digest")
    found = sql_offenders(ctx, L8.sql)
    measured = f"{len(found)} videos with a copy of the opposite label"
    return pass_or_fail(L8, found, n, "videos", measured=measured)


def check_data_sets(ctx: AuditContext) -> CheckResult:
    """L10: keys shared between data sets."""
    n_sets, n = count(ctx, "SELECT count(DISTINCT dataset), count(*) FROM placed")
    if n_sets < 2:
        return not_evaluated(L10, State.SKIP, "one data set" if n else _NOTHING_PLACED)
    (n_keyed,) = count(ctx, "SELECT count(DISTINCT dataset) FROM keys")
    if n_keyed < 2:
        return not_evaluated(L10, State.UNKNOWN, "fewer than two of the data sets publish keys")
    found = sql_offenders(ctx, L10.sql)
    measured = f"{len(found)} keys shared across data sets and splits"
    return pass_or_fail(L10, found, n, "videos", measured=measured, note=f"{n_sets} data sets")


CHECKS: tuple[CheckEntry, ...] = (
    CheckEntry(L1, check_groups),
    CheckEntry(L2, check_originals),
    CheckEntry(L3, check_recordings),
    CheckEntry(L4, check_persons),
    CheckEntry(L5, check_copies),
    CheckEntry(L6, check_near_duplicates),
    CheckEntry(L7, check_versions),
    CheckEntry(L8, check_opposite),
    reuse_check(()),
    CheckEntry(L10, check_data_sets),
    look_alike_check(None),
)
