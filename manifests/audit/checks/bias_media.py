"""Checks B3 and B5 to B8: whether pictures, files and faces of the two classes differ in what is no forgery."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import INNER_SQL, Floats
from lps.manifests.audit.core.queries import DECLARED_RATE, PLACED, SURVIVORS, VIDEO_FRAMES, arrays, count, records
from lps.manifests.audit.core.stats import (
    Effect,
    cliffs_delta,
    cramers_v,
    crossed,
    histogram,
    ks_distance,
    standardised,
    worst,
)
from lps.manifests.audit.core.types import AuditContext, CheckResult, CheckSpec, Offender, Severity, State
from lps.manifests.names import CLASSES

LIMITS: dict[str, float] = {
    "b_min_per_class": 30,
    "b_max_p": 0.001,
    "b3_warn_diff_pp": 1.0,
    "b3_warn_delta": 0.147,
    "b3_max_delta": 0.33,
    "b5_warn_ks": 0.1,
    "b5_max_ks": 0.3,
    "b6_warn_v": 0.1,
    "b6_warn_ks": 0.1,
    "b7_warn_ks": 0.1,
    "b8_warn_d": 0.2,
}

_CLIPS = f"""WITH {PLACED}, {SURVIVORS},
faces AS (
    SELECT video_id, avg(box_side_med) AS box_side, avg({INNER_SQL} / nullif(box_side_med, 0)) AS upscaling,
        max(pts_end_s - pts_start_s) AS span_s, max(n_frames) AS span_frames
    FROM clips GROUP BY video_id)
"""

B3 = CheckSpec(
    id="B3",
    title="Faces are found as often in both classes",
    rule="Share of asked frames in which the face was found, per video: medians differ by at most "
    "b3_warn_diff_pp points and Cliff's delta by at most b3_warn_delta (else WARN), b3_max_delta (else "
    "FAIL). A fake that shares its original's cut counts with the rate of that: faces are looked for there. "
    "Differences that chance gives with p >= b_max_p are UNKNOWN; SKIP below b_min_per_class videos in a class.",
    remedy="Lower the detector's threshold or use a better localizer; look at the videos with low rates by class.",
    severity=Severity.ERROR,
    sql="""WITH sharing AS (SELECT DISTINCT video_id FROM clips WHERE pair_mode = 'shared')
SELECT v.label, o.n_frames_with_face / o.n_frames_sampled AS rate
FROM videos v LEFT JOIN sharing s USING (video_id)
JOIN videos o ON o.video_id = CASE WHEN s.video_id IS NULL THEN v.video_id ELSE v.original_video_id END
WHERE v.label IS NOT NULL AND v.status <> 'skipped' AND o.n_frames_sampled > 0""",
)
B5 = CheckSpec(
    id="B5",
    title="Same resolution and face size in both classes",
    rule="Kolmogorov-Smirnov distance between the classes, of the height of the picture and of the face box's "
    "side: WARN above b5_warn_ks, FAIL above b5_max_ks. UNKNOWN where chance gives it with p >= b_max_p; "
    "SKIP below b_min_per_class videos in a class.",
    remedy="Leave out or balance resolutions, or downscale to a common size before training; report results by size.",
    severity=Severity.WARN,
    sql=f"""{_CLIPS}SELECT label, CASE WHEN rotation IN (90, 270) THEN width ELSE height END AS height,
    box_side, upscaling
FROM survivors LEFT JOIN faces USING (video_id)""",
)
_KINDS = f"""WITH {PLACED}, {SURVIVORS}
SELECT label, codec, container, pix_fmt, compression,
    CASE WHEN color_transfer = 'smpte2084' THEN 'PQ' WHEN color_transfer = 'arib-std-b67' THEN 'HLG'
        WHEN color_transfer IS NOT NULL THEN 'SDR' END AS transfer,
    CASE WHEN field_order IN ('tt', 'bb', 'tb', 'bt') THEN 'interlaced'
        WHEN field_order IS NOT NULL THEN 'progressive' END AS scan,
    count(*) AS n
FROM survivors GROUP BY ALL ORDER BY ALL"""
_BITRATES = f"""WITH {PLACED}, {SURVIVORS}
SELECT label, bitrate_bps AS bitrate FROM survivors"""
B6 = CheckSpec(
    id="B6",
    title="Same encoding in both classes",
    rule="Cramer's V of codec, container, pixel format, compression, transfer (SDR, PQ or HLG) and scan (progressive "
    "or interlaced) with the label above b6_warn_v: WARN. A class that is wholly of one kind which less than half of "
    "the other has: FAIL. Kolmogorov-Smirnov distance of the bit rate above b6_warn_ks: WARN. UNKNOWN where chance "
    "gives it with p >= b_max_p, or codec, transfer or scan are not recorded; SKIP below b_min_per_class videos.",
    remedy="Encode both classes again with one encoder and setting before preparing them, or augment with compression.",
    severity=Severity.ERROR,
    sql=f"{_KINDS};\n{_BITRATES}",
)
B7 = CheckSpec(
    id="B7",
    title="Same timing in both classes",
    rule="Kolmogorov-Smirnov distance between the classes, of frame rate, duration, stretch of the clips' time "
    "stamps against the frame rate, and variable frame rate: WARN above b7_warn_ks. UNKNOWN where chance "
    "gives it with p >= b_max_p, and where videos are sequences of images, which have no time stamps of their own; "
    "SKIP below b_min_per_class videos in a class.",
    remedy="Resample to one frame rate, or balance; a model of temporal patterns sees the frame rate.",
    severity=Severity.WARN,
    sql=f"""{_CLIPS}SELECT label, fps_num / nullif(fps_den, 0) AS frame_rate,
    coalesce(duration_s, ({VIDEO_FRAMES}) * fps_den / nullif(fps_num, 0)) AS duration,
    abs(span_s * fps_num / nullif(fps_den * (span_frames - 1), 0) - 1) AS time_stretch,
    CASE WHEN NOT ({DECLARED_RATE}) THEN is_vfr::DOUBLE END AS variable_frame_rate
FROM survivors LEFT JOIN faces USING (video_id)""",
)
B8 = CheckSpec(
    id="B8",
    title="Same picture quality in both classes",
    rule="Difference of the means over the common deviation of (log) sharpness, brightness, contrast, landmark "
    "jitter, the largest yaw and the share outside the picture of the clips: WARN above b8_warn_d. UNKNOWN where "
    "chance gives it with p >= b_max_p; SKIP below b_min_per_class clips in a class.",
    remedy="Some of it may be the forgery itself (blending blurs). Check that augmentation covers the difference.",
    severity=Severity.WARN,
    sql=f"""WITH {PLACED}
SELECT p.label, ln(1 + greatest(c.blur_var_med, 0)) AS log_sharpness, c.luma_mean AS brightness, c.luma_std AS contrast,
    c.jitter_px AS jitter, c.yaw_absmax AS yaw, c.outside_share
FROM clips c JOIN placed p USING (video_id) WHERE p.label IS NOT NULL""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One trait compared between the classes."""

    trait: str
    state: State
    text: str
    size: float = 0.0
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """Numbers of both classes by trait."""

    real: Mapping[str, Floats]
    fake: Mapping[str, Floats]

    @classmethod
    def read(cls, ctx: AuditContext, sql: str) -> "Traits":
        """Run a query with a column `label` and one per trait; drop what is not finite."""
        columns = arrays(ctx, sql)
        label = columns.pop("label")
        classes: list[dict[str, Floats]] = []
        for number in (0, 1):
            chosen = {name: values[label == number].astype(np.float64) for name, values in columns.items()}
            classes.append({name: values[np.isfinite(values)] for name, values in chosen.items()})
        return cls(real=classes[0], fake=classes[1])

    def too_few(self, trait: str, ctx: AuditContext) -> bool:
        """Tell whether one class has fewer values than a comparison needs."""
        return min(len(self.real[trait]), len(self.fake[trait])) < ctx.limits["b_min_per_class"]

    def chart(self, trait: str) -> dict[str, Any]:
        """Return the histogram of a trait."""
        return histogram(self.real[trait], self.fake[trait])


def check_detection(ctx: AuditContext) -> CheckResult:
    """B3: detection rate by class."""
    traits = Traits.read(ctx, B3.sql)
    if traits.too_few("rate", ctx):
        return _result_of(B3, [], ["rate"], _sizes(traits, "rate"))
    real, fake = traits.real["rate"], traits.fake["rate"]
    delta, limits = cliffs_delta(real, fake), ctx.limits
    gap = 100 * float(np.median(fake) - np.median(real))
    states = [
        delta.grade(warn=limits["b3_warn_delta"], fail=limits["b3_max_delta"], max_p=limits["b_max_p"]),
        Effect(gap, delta.p).grade(warn=limits["b3_warn_diff_pp"], max_p=limits["b_max_p"]),
    ]
    text = f"delta {delta.size:+.3f}, medians differ by {gap:+.2f} pp (fake minus real), p {delta.p:.2g}"
    finding = Finding(
        trait="detection_rate", state=worst(states), text=text, size=abs(delta.size), data=traits.chart("rate")
    )
    limit = f"delta {limits['b3_warn_delta']:g} (fail {limits['b3_max_delta']:g}), {limits['b3_warn_diff_pp']:g} pp"
    return _result_of(B3, [finding], [], _sizes(traits, "rate"), limit)


def check_resolution(ctx: AuditContext) -> CheckResult:
    """B5: picture height and face size by class."""
    traits = Traits.read(ctx, B5.sql)
    warn, fail = ctx.limits["b5_warn_ks"], ctx.limits["b5_max_ks"]
    findings, missing = _distances(ctx, traits, ("height", "box_side"), warn, fail)
    result = _result_of(B5, findings, missing, _sizes(traits, "height"), f"KS {warn:g} (fail {fail:g})")
    for name, values in (("real", traits.real["upscaling"]), ("fake", traits.fake["upscaling"])):
        if len(values):
            result.data[f"median_upscaling_{name}"] = float(np.median(values))
    return result


def check_encoding(ctx: AuditContext) -> CheckResult:
    """B6: codec, container, pixel format, compression, transfer, scan, bit rate by class."""
    rows = records(ctx, _KINDS)
    sizes = (sum(row["n"] for row in rows if row["label"] == 0), sum(row["n"] for row in rows if row["label"] == 1))
    findings: list[Finding] = []
    missing: list[str] = []
    for trait in ("codec", "container", "pix_fmt", "compression", "transfer", "scan"):
        known = any(row[trait] is not None for row in rows)
        if min(sizes) < ctx.limits["b_min_per_class"] or (not known and trait in ("codec", "transfer", "scan")):
            missing.append(trait)
        elif known:
            findings.append(_kind_finding(ctx, trait, rows))
    traits = Traits.read(ctx, _BITRATES)
    rates, absent = _distances(ctx, traits, ("bitrate",), ctx.limits["b6_warn_ks"], None)
    limit = f"V {ctx.limits['b6_warn_v']:g}, KS {ctx.limits['b6_warn_ks']:g}"
    return _result_of(B6, [*findings, *rates], [*missing, *absent], sizes, limit)


def check_timing(ctx: AuditContext) -> CheckResult:
    """B7: frame rate, duration, time stamps by class."""
    traits = Traits.read(ctx, B7.sql)
    names = ("frame_rate", "duration", "time_stretch", "variable_frame_rate")
    findings, missing = _distances(ctx, traits, names, ctx.limits["b7_warn_ks"], None)
    result = _result_of(B7, findings, missing, _sizes(traits, "frame_rate"), f"KS {ctx.limits['b7_warn_ks']:g}")
    query = f"SELECT count(*) FROM placed WHERE n_clips > 0 AND label IS NOT NULL AND {DECLARED_RATE}"
    (counted,) = count(ctx, query)
    if not counted or result.state not in (State.PASS, State.SKIP):
        return result
    note = f"{counted} videos are sequences of images, which have no time stamps of their own"
    return replace(result, state=State.UNKNOWN, note="; ".join(filter(None, (result.note, note))))


def check_quality(ctx: AuditContext) -> CheckResult:
    """B8: sharpness, light, jitter, yaw and share outside the picture by class."""
    traits = Traits.read(ctx, B8.sql)
    warn, max_p = ctx.limits["b8_warn_d"], ctx.limits["b_max_p"]
    findings: list[Finding] = []
    missing: list[str] = []
    for trait in ("log_sharpness", "brightness", "contrast", "jitter", "yaw", "outside_share"):
        if traits.too_few(trait, ctx):
            missing.append(trait)
            continue
        real, fake = traits.real[trait], traits.fake[trait]
        means = (float(real.mean()), float(fake.mean()))
        effect = standardised(means, (float(real.var(ddof=1)), float(fake.var(ddof=1))), (len(real), len(fake)))
        text = f"d {effect.size:+.3f}, means {means[0]:.4g} real, {means[1]:.4g} fake, p {effect.p:.2g}"
        state = effect.grade(warn=warn, max_p=max_p)
        findings.append(Finding(trait=trait, state=state, text=text, size=abs(effect.size), data=traits.chart(trait)))
    return _result_of(B8, findings, missing, _sizes(traits, "brightness"), f"d {warn:g}")


def _result_of(
    spec: CheckSpec, findings: Sequence[Finding], missing: Sequence[str], sizes: tuple[int, int], limit: str = ""
) -> CheckResult:
    """Sum up traits: the worst state counts, and a trait that could not be compared stands in the way of a PASS."""
    lacking = f"too few values in one class for {', '.join(missing)}" if missing else ""
    if not findings:
        note = f"{lacking}: {sizes[0]} real, {sizes[1]} fake" if lacking else "nothing to compare"
        return CheckResult(id=spec.id, state=State.SKIP, severity=spec.severity, limit=limit, note=note)
    state = worst([finding.state for finding in findings])
    vague = [finding.trait for finding in findings if finding.state == State.UNKNOWN]
    largest = max(findings, key=lambda finding: (-_RANK[finding.state], finding.size))
    notes = [lacking] if missing else []
    if vague:
        notes.append(f"above the limit, but too few videos to tell from chance: {', '.join(vague)}")
    return CheckResult(
        id=spec.id,
        state=State.UNKNOWN if state == State.PASS and missing else state,
        severity=spec.severity,
        measured=f"{largest.trait}: {largest.text}",
        limit=limit,
        n_checked=sum(sizes),
        offenders=tuple(
            Offender(kind="column", key=finding.trait, detail=finding.text)
            for finding in findings
            if finding.state in (State.WARN, State.FAIL)
        ),
        note="; ".join(notes),
        data={"traits": {finding.trait: finding.data for finding in findings}},
    )


_RANK = {State.FAIL: 0, State.WARN: 1, State.UNKNOWN: 2, State.PASS: 3}


def _sizes(traits: Traits, trait: str) -> tuple[int, int]:
    return len(traits.real[trait]), len(traits.fake[trait])


def _distances(
    ctx: AuditContext, traits: Traits, names: Sequence[str], warn: float, fail: float | None
) -> tuple[list[Finding], list[str]]:
    findings: list[Finding] = []
    missing: list[str] = []
    for trait in names:
        if traits.too_few(trait, ctx):
            missing.append(trait)
            continue
        real, fake = traits.real[trait], traits.fake[trait]
        effect = ks_distance(real, fake)
        medians = f"medians {np.median(real):.5g} real, {np.median(fake):.5g} fake"
        findings.append(
            Finding(
                trait=trait,
                state=effect.grade(warn=warn, fail=fail, max_p=ctx.limits["b_max_p"]),
                text=f"KS {effect.size:.3f}, {medians}, p {effect.p:.2g}",
                size=effect.size,
                data=traits.chart(trait),
            )
        )
    return findings, missing


def _kind_finding(ctx: AuditContext, trait: str, rows: Sequence[dict[str, Any]]) -> Finding:
    values = np.array([row[trait] or "unknown" for row in rows])
    labels, weights = np.array([row["label"] for row in rows]), np.array([row["n"] for row in rows])
    table = crossed(labels, values, weights)
    effect = cramers_v(table)
    state = effect.grade(warn=ctx.limits["b6_warn_v"], max_p=ctx.limits["b_max_p"])
    text = f"V {effect.size:.3f}, p {effect.p:.2g}"
    names = np.unique(values).tolist()
    if (only := _wholly(table, names)) is not None:
        state, text = State.FAIL, f"{only}; {text}"
    counts = {name: {"real": int(table[0, i]), "fake": int(table[1, i])} for i, name in enumerate(names)}
    return Finding(trait=trait, state=state, text=text, size=effect.size, data={"counts": counts})


def _wholly(table: NDArray[np.int64], names: Sequence[str]) -> str | None:
    """Say which class is wholly of one kind that less than half of the other has."""
    shares = table / table.sum(axis=1, keepdims=True)
    for i, name in enumerate(CLASSES):
        kind = int(np.argmax(shares[i]))
        if shares[i, kind] == 1 and shares[1 - i, kind] < 0.5:
            return f"every {name} video is {names[kind]}"
    return None
