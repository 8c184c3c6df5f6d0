"""Check B12: names and order of samples and shards say nothing of the label."""

from math import erfc, sqrt

from lps.manifests.audit.core.database import sql_offenders
from lps.manifests.audit.core.queries import records
from lps.manifests.audit.core.stats import Effect
from lps.manifests.audit.core.types import (
    AuditContext,
    CheckResult,
    CheckSpec,
    Offender,
    Severity,
    State,
    not_evaluated,
)

LIMITS: dict[str, float] = {
    "b12_min_samples": 20,
    "b12_warn_delta": 0.147,
    "b12_max_p": 0.001,
}

_TOLD = r"""WITH words AS (
    SELECT DISTINCT regexp_replace(lower(method), '[^a-z0-9]', '', 'g') AS word FROM videos WHERE length(method) > 2
    UNION SELECT unnest(['real', 'fake', 'swap', 'synth', 'manipulated', 'original', 'authentic'])),
names AS (
    SELECT 'clip' AS kind, sample_key AS name FROM clips UNION ALL SELECT 'shard', shard_id FROM shards),
spelt AS (
    SELECT kind, name, replace(replace(lower(name), '-', ''), '_', '') AS joined,
        string_split_regex(lower(name), '[^a-z0-9]+') AS parts
    FROM names)
SELECT kind, name AS key, 'says ' || string_agg(word, ', ' ORDER BY word) AS detail
FROM spelt JOIN words ON length(word) > 2
    AND CASE WHEN regexp_matches(word, '[g-z]') THEN contains(joined, word) ELSE list_contains(parts, word) END
GROUP BY kind, name ORDER BY kind, name"""
_SINGLE = """WITH classes AS (
    SELECT split, sum(n_real)::DOUBLE AS n_real, sum(n_fake)::DOUBLE AS n_fake FROM shards GROUP BY split)
SELECT shard_id, n_samples, CASE WHEN s.n_real > 0 THEN 'real' ELSE 'fake' END AS class,
    power(CASE WHEN s.n_real > 0 THEN c.n_real ELSE c.n_fake END / (c.n_real + c.n_fake), n_samples)
        * (SELECT count(*) FROM shards) AS p
FROM shards s JOIN classes c USING (split)
WHERE (s.n_real = 0) <> (s.n_fake = 0) AND c.n_real > 0 AND c.n_fake > 0 ORDER BY shard_id"""
_ORDER = """WITH firsts AS (
    SELECT label, min(sample_key) AS key FROM clips WHERE label IS NOT NULL GROUP BY video_id, label),
ranked AS (SELECT label, row_number() OVER (ORDER BY key) AS place FROM firsts)
SELECT count(*) FILTER (label = 0) AS n_real, count(*) FILTER (label = 1) AS n_fake,
    coalesce(sum(place) FILTER (label = 1), 0)::DOUBLE AS places FROM ranked"""

# Keys are digests: names such as `dfdc` that are spelt with hex digits alone come up in them by chance.
B12 = CheckSpec(
    id="B12",
    title="Names do not tell the label",
    rule="No sample key or shard name holds the name of a method or a word such as fake or real (names of hex "
    "digits alone count as whole words only): else FAIL. No shard of more than b12_min_samples samples is "
    "of one class where its split has both (unless chance gives it with p >= b12_max_p), and the order of "
    "the keys does not follow the label (Cliff's delta at most b12_warn_delta): else WARN, or UNKNOWN "
    "where that could be chance.",
    remedy="Prepare again with keys made from digests and shards filled in shuffled order, as `lps-prep run` does.",
    severity=Severity.ERROR,
    sql=f"{_TOLD};\n{_SINGLE};\n{_ORDER}",
)


def check_names(ctx: AuditContext) -> CheckResult:
    """B12: keys, shards and their order."""
    order = records(ctx, _ORDER)[0]
    n_real, n_fake = order["n_real"], order["n_fake"]
    told = sql_offenders(ctx, _TOLD)
    if not told and not (n_real and n_fake):
        return not_evaluated(B12, State.SKIP, "no clips of both classes")
    limits = ctx.limits
    pure = [
        Offender(kind="shard", key=row["shard_id"], detail=f"all {row['n_samples']} samples are {row['class']}")
        for row in records(ctx, _SINGLE)
        if row["n_samples"] > limits["b12_min_samples"] and row["p"] < limits["b12_max_p"]
    ]
    order_effect = _order_effect(n_real, n_fake, order["places"])
    ordered = order_effect.grade(warn=limits["b12_warn_delta"], max_p=limits["b12_max_p"])
    size = f"{order_effect.size:+.3f}"
    follows = [Offender(kind="column", key="sample_key", detail=f"order follows the label: delta {size}")]
    return CheckResult(
        id=B12.id,
        state=State.FAIL if told else State.WARN if pure else ordered,
        severity=B12.severity,
        measured=f"{len(told)} names tell, {len(pure)} shards of one class, order delta {size}",
        limit=f"0, 0, {limits['b12_warn_delta']:g}",
        n_checked=n_real + n_fake,
        offenders=(*told, *pure, *(follows if ordered == State.WARN else [])),
        note="too few videos to tell the order of the keys from chance" if ordered == State.UNKNOWN else "",
    )


def _order_effect(n_real: int, n_fake: int, places: float) -> Effect:
    """Return Cliff's delta of the place in the order of keys, and its chance (Mann-Whitney's normal form)."""
    if not n_real or not n_fake:
        return Effect(0.0, 1.0)
    delta = 2 * (places - n_fake * (n_fake + 1) / 2) / (n_real * n_fake) - 1
    spread = sqrt((n_real + n_fake + 1) / (3 * n_real * n_fake))
    return Effect(delta, erfc(abs(delta) / spread / sqrt(2)))
