"""Check L6: near-duplicates across splits, as `splits/near_copies.py` finds them."""

from typing import Any

import numpy as np

from lps.manifests.audit.core.queries import PLACED, placed_table, read_claim, records
from lps.manifests.audit.core.types import (
    AuditContext,
    CheckResult,
    CheckSpec,
    Offender,
    Severity,
    State,
    not_evaluated,
)
from lps.manifests.names import Level
from lps.manifests.splits.key_edges import KeyEdges
from lps.manifests.splits.near_copies import (
    MAX_MATCHES,
    MIN_FRAMES,
    N_FRAMES,
    Hashed,
    Pair,
    calibrate,
    near_pairs,
)

SHOWN_PAIRS = 200

L6 = CheckSpec(
    id="L6",
    title="No near-duplicate in two splits",
    rule="No two videos of different splits and groups have PDQ hashes within the threshold at every comparable frame "
    "of three (at least two), nor has one with the other's mirror image. Near at one frame only: WARN. The threshold "
    "of a data set is the distance that a share l6_chance of pairs of different groups would reach, at most "
    "l6_max_distance of 256 bits; frames of quality below l6_min_quality are not compared. UNKNOWN below "
    "l6_min_pairs pairs to calibrate with, SKIP above l6_max_videos videos.",
    remedy="Look at the pairs. If they are copies, give them a common key or an alias and split again; if not, "
    "state why in a waiver.",
    severity=Severity.ERROR,
    level=Level.FULL,
)


def check_near_duplicates(ctx: AuditContext) -> CheckResult:
    """L6: compare every pair of videos of different splits."""
    videos = _read(ctx)
    if videos is None:
        return not_evaluated(L6, State.UNKNOWN, "no placed video has hashes of its frames")
    if len(videos.ids) < 2:
        return not_evaluated(L6, State.UNKNOWN, "one placed video alone has hashes of its frames")
    if len(videos.ids) > ctx.limits["l6_max_videos"]:
        return not_evaluated(
            L6, State.SKIP, f"{len(videos.ids)} videos are more than l6_max_videos: too many pairs to compare"
        )
    thresholds, data = calibrate(videos, ctx.limits)
    if max(thresholds.values()) < 0:
        return CheckResult(
            id=L6.id,
            state=State.UNKNOWN,
            severity=L6.severity,
            note="the hashes cannot tell videos apart: too few pairs of different groups, or all pictures alike",
            data=data,
        )
    pairs, complete = near_pairs(videos, thresholds)
    return _result(videos, pairs, thresholds, data, complete=complete)


def _result(
    videos: Hashed, pairs: list[Pair], thresholds: dict[str, int], data: dict[str, Any], *, complete: bool
) -> CheckResult:
    confirmed = [pair for pair in pairs if pair.confirmed]
    data["pairs"] = [
        _shown(videos, pair) for pair in [*confirmed, *(p for p in pairs if not p.confirmed)][:SHOWN_PAIRS]
    ]
    blind = int((videos.usable.sum(axis=1) < MIN_FRAMES).sum())
    unmeasured = [name for name, threshold in thresholds.items() if threshold < 0]
    state = State.UNKNOWN if unmeasured or not complete else State.PASS
    if pairs:
        state = State.FAIL if confirmed else State.WARN
    notes = [
        *([f"{blind} of {len(videos.ids)} videos have too few usable hashes to be compared"] if blind else []),
        *([f"no threshold for {', '.join(unmeasured)}"] if unmeasured else []),
        *([] if complete else [f"stopped after {MAX_MATCHES} near pairs"]),
    ]
    return CheckResult(
        id=L6.id,
        state=state,
        severity=L6.severity,
        measured=f"{len(confirmed)} confirmed pairs, {len(pairs) - len(confirmed)} near at some frame only",
        limit="0 within " + ", ".join(f"{t} bits ({name})" for name, t in thresholds.items() if t >= 0),
        n_checked=len(videos.ids) - blind,
        offenders=tuple(_offender(videos, pair) for pair in sorted(pairs, key=lambda pair: not pair.confirmed)),
        note="; ".join(notes),
        data=data,
    )


def _offender(videos: Hashed, pair: Pair) -> Offender:
    a, b = pair.a, pair.b
    bits = "/".join("-" if d is None else str(d) for d in pair.distances)
    how = "is a near copy of" if pair.confirmed else "has a frame like one of"
    if pair.mirrored:
        how = "is a mirrored copy of" if pair.confirmed else "has a frame like the mirror image of one of"
    return Offender(
        kind="video",
        key=videos.ids[b],
        detail=f"{videos.uris[b]} ({videos.splits[b]}) {how} {videos.uris[a]} ({videos.splits[a]}): {bits} bits",
    )


def _shown(videos: Hashed, pair: Pair) -> dict[str, Any]:
    sides = [
        {"video_id": videos.ids[i], "uri": videos.uris[i], "split": str(videos.splits[i])} for i in (pair.a, pair.b)
    ]
    return {"videos": sides, "distances": list(pair.distances), "confirmed": pair.confirmed, "mirrored": pair.mirrored}


def _read(ctx: AuditContext) -> Hashed | None:
    rows = records(
        ctx,
        f"""WITH {PLACED} SELECT lower(hex(video_id)) AS id, uri, split, dataset,
        phash[1] || phash[2] || phash[3] AS bits, phash_quality AS quality
        FROM placed WHERE len(phash) = {N_FRAMES} AND len(phash_quality) = {N_FRAMES} ORDER BY video_id""",
    )
    rows = [row for row in rows if len(row["bits"]) == N_FRAMES * 32]
    if not rows:
        return None
    tied, _ = placed_table(ctx)
    groups, _ = KeyEdges.of(tied, read_claim(ctx).aliases).labels()
    group_of = dict(zip((v.hex() for v in tied["video_id"].to_pylist()), groups.tolist(), strict=True))
    words = np.frombuffer(b"".join(row["bits"] for row in rows), np.uint64).reshape(-1, N_FRAMES, 4)
    quality = np.array([row["quality"] for row in rows], dtype=np.float64)
    return Hashed(
        ids=[row["id"] for row in rows],
        uris=[row["uri"] for row in rows],
        splits=np.array([row["split"] for row in rows]),
        datasets=np.array([row["dataset"] for row in rows]),
        groups=np.array([group_of[row["id"]] for row in rows], dtype=np.int64),
        words=words,
        usable=quality >= ctx.limits["l6_min_quality"],
    )
