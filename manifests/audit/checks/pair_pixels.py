"""Check C8: around the face, a shared fake shows what its original shows.

Cut alike, the two show the same pixels wherever the forgery changed nothing. Another window, another cut or another
video shows in the pixels around the face, whatever the manifests say.
"""

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lps.manifests.arrays import Bools, Floats, inner_side, square_of
from lps.manifests.audit.core.database import fetch_number
from lps.manifests.audit.core.queries import records
from lps.manifests.audit.core.types import (
    AuditContext,
    CheckResult,
    CheckSpec,
    Offender,
    Severity,
    State,
    not_evaluated,
    pass_or_fail,
    with_unread,
)
from lps.manifests.errors import UnreadableError
from lps.manifests.names import Level
from lps.manifests.schemas import BOX_UNITS, Row
from lps.manifests.storage import Store

LIMITS: dict[str, float] = {
    "c8_sample_pairs": 1000,
    "c8_frames": 4,
    "c8_face_margin": 1.2,
    "c8_min_around": 0.05,
    "c8_min_correlation": 0.8,
    "c8_max_diff": 5.0,
    "c8_max_share": 0.01,
}
PAIRS_AT_ONCE = 100
"""Pairs whose images are held at a time: about 15 MB."""

C8 = CheckSpec(
    id="C8",
    title="Shared fakes look like their originals around the face",
    rule="In c8_sample_pairs shared clips chosen by their keys (0: all) and those of their originals, c8_frames images "
    "of each are compared in grey where no face is: outside the box widened by c8_face_margin, inside the picture. A "
    "pair breaks this where the correlation of these pixels is below c8_min_correlation while they differ by more than "
    "c8_max_diff grey levels in the mean, or where an image does not decode. FAIL where more than c8_max_share of the "
    "pairs do, else WARN. Pairs that show less than c8_min_around of an image around the face are not counted.",
    remedy="Look at the named pairs. Where the fake shows another moment or place, its window or cut is not its "
    "original's: prepare it again and report it. Where the method repaints everything, raise the plan's "
    "min_background, so that such fakes fall back.",
    severity=Severity.ERROR,
    level=Level.FULL,
    sql="""WITH chosen AS (
    SELECT sample_key, track_id, n_frames, frame_idx, box_xyxy, "align_M", shard_id, members, image_codec,
        out_size, align_template, video_id, sha256(sample_key) AS turn
    FROM clips WHERE pair_mode = 'shared' ORDER BY turn LIMIT getvariable('c8_limit')::BIGINT)
SELECT f.*, fs.uri AS shard, o.members AS original_members, o.sample_key AS original_key, os.uri AS original_shard,
    fv.uri AS uri, ov.uri AS original_uri,
    CASE WHEN fv.rotation IN (90, 270) THEN fv.height ELSE fv.width END AS width,
    CASE WHEN fv.rotation IN (90, 270) THEN fv.width ELSE fv.height END AS height
FROM chosen f JOIN videos fv ON fv.video_id = f.video_id JOIN videos ov ON ov.video_id = fv.original_video_id
JOIN clips o ON o.video_id = ov.video_id AND o.track_id IS NOT DISTINCT FROM f.track_id
    AND o.frame_idx[1] = f.frame_idx[1] AND o.n_frames = f.n_frames
JOIN shards fs ON fs.shard_id = f.shard_id JOIN shards os ON os.shard_id = o.shard_id
ORDER BY shard, original_shard, f.sample_key""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What two clips show around the face."""

    share: float
    """Share of the pixels that were compared, 0 to 1."""
    correlation: float
    difference: float
    """Mean absolute difference, grey levels."""


def check_surroundings(ctx: AuditContext) -> CheckResult:
    """C8: what lies around both faces."""
    n_shared = fetch_number(ctx, "SELECT count(*) FROM clips WHERE pair_mode = 'shared'")
    if not n_shared:
        return not_evaluated(C8, State.SKIP, "no clip shares the cut of its original")
    limits = ctx.limits
    ctx.db.execute(f"SET VARIABLE c8_limit = {int(limits['c8_sample_pairs']) or n_shared}")
    rows = records(ctx, C8.sql)
    offenders, unread, found, n_bare = [], [], [], 0
    for start in range(0, len(rows), PAIRS_AT_ONCE):
        for row, seen in _seen(ctx, rows[start : start + PAIRS_AT_ONCE]):
            if isinstance(seen, UnreadableError):
                unread.append(str(seen))
            elif isinstance(seen, str):
                offenders.append(Offender(kind="clip", key=row["sample_key"], detail=seen))
            elif seen.share < limits["c8_min_around"]:
                n_bare += 1
            else:
                found.append((row, seen))
    unlike = [(row, seen) for row, seen in found if _is_unlike(seen, limits)]
    offenders += [Offender(kind="clip", key=row["sample_key"], detail=_said(row, seen)) for row, seen in unlike]
    n = len(rows) - n_bare - len(unread)
    bare = f"{n_bare} pairs show too little around the face" if n_bare else ""
    result = pass_or_fail(C8, offenders, n, "pairs", limit=f"{limits['c8_max_share']:.1%}", note=bare)
    if offenders and len(offenders) <= limits["c8_max_share"] * n:
        result = replace(result, state=State.WARN)
    if found:
        lowest = min(seen.correlation for _, seen in found)
        median = float(np.median([seen.correlation for _, seen in found]))
        shown = f"{result.measured}, of {n_shared}; correlation {median:.3f} in the median, {lowest:.3f} at least"
        result = replace(result, measured=shown, data=_data([seen for _, seen in found]))
    return with_unread(result, unread, "pairs")


def _is_unlike(seen: Around, limits: dict[str, float]) -> bool:
    """Tell whether both measures say so: before an even wall correlation measures the noise."""
    return not seen.correlation >= limits["c8_min_correlation"] and seen.difference > limits["c8_max_diff"]


def _said(row: Row, seen: Around) -> str:
    return (
        f"{row['uri']} is not like {row['original_uri']} ({row['original_key']}) around the face: correlation "
        f"{seen.correlation:.2f}, {seen.difference:.1f} grey levels apart"
    )


def _data(found: Sequence[Around]) -> dict[str, list[float]]:
    shares = (0, 1, 5, 25, 50, 75, 100)
    return {
        "percentiles": list(map(float, shares)),
        "correlation": np.percentile([seen.correlation for seen in found], shares).tolist(),
        "difference": np.percentile([seen.difference for seen in found], shares).tolist(),
    }


def _seen(ctx: AuditContext, rows: Sequence[Row]) -> Iterator[tuple[Row, Around | str | UnreadableError]]:
    """Compare some pairs; with each, what was seen, what is wrong with an image, or why it cannot be read."""
    places = [_places(row, int(ctx.limits["c8_frames"])) for row in rows]
    read = _read(ctx.store, [place for mine in places for place in mine])
    at = 0
    for row, mine in zip(rows, places, strict=True):
        images = read[at : at + len(mine)]
        at += len(mine)
        failed = next((data for data in images if isinstance(data, UnreadableError)), None)
        yield row, failed or _compared(row, [data for data in images if isinstance(data, bytes)], ctx.limits)


def _places(row: Row, n: int) -> list[tuple[str, int, int]]:
    """Return shard, first byte and end of evenly spaced images of the fake, then of the original's of these frames."""
    frames = _frames(row, n)
    found: list[tuple[str, int, int]] = []
    for shard, members in ((row["shard"], row["members"]), (row["original_shard"], row["original_members"])):
        images = [member for member in members if member["ext"].endswith(row["image_codec"])]
        chosen = (images[k] for k in frames if k < len(images))
        found += [(shard, member["offset"], member["offset"] + member["nbytes"]) for member in chosen]
    return found


def _frames(row: Row, n: int) -> list[int]:
    return sorted({int(k) for k in np.linspace(0, row["n_frames"] - 1, max(1, n)).round()})


def _read(store: Store, places: Sequence[tuple[str, int, int]]) -> list[bytes | UnreadableError]:
    """Read places of several shards, each shard in the order of its bytes."""
    found: list[bytes | UnreadableError] = [b""] * len(places)
    of_shard: dict[str, list[int]] = defaultdict(list)
    for number, (shard, _, _) in enumerate(places):
        of_shard[shard].append(number)
    for shard, numbers in of_shard.items():
        numbers.sort(key=lambda number: places[number][1])
        try:
            data = store.read_ranges(shard, [places[number][1:] for number in numbers])
            for number, image in zip(numbers, data, strict=True):
                found[number] = image
        except UnreadableError as e:
            for number in numbers:
                found[number] = e
    return found


def _compared(row: Row, images: Sequence[bytes], limits: dict[str, float]) -> Around | str:
    """Compare the images of a fake (the first half) with those of its original."""
    frames = _frames(row, int(limits["c8_frames"]))
    if len(images) != 2 * len(frames):
        return f"{len(images)} images for twice {len(frames)} frames"
    try:
        pictures = [_grey(data) for data in images]
    except (OSError, SyntaxError, ValueError) as e:
        return f"an image of it or of {row['original_key']} does not decode: {type(e).__name__}"
    side = row["out_size"]
    if any(picture.shape != (side, side) for picture in pictures):
        return f"an image of it or of {row['original_key']} is not {side}x{side} px"
    masks = [around_face(row, frame, limits["c8_face_margin"]) for frame in frames]
    return compare_around(pictures[: len(frames)], pictures[len(frames) :], masks)


def _grey(data: bytes) -> Floats:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("L"), np.float64)


def around_face(row: Row, frame: int, margin: float) -> Bools:
    """Return which px of a cut, (side, side), show the picture outside of the face's box widened by `margin`.

    Args:
        row: `box_xyxy`, `align_M`, `align_template`, `out_size` of the clip, `width` and `height` of its video as
            shown.
        frame: number of the frame in the clip.
        margin: factor of the box's sides.
    """
    matrix = np.array(row["align_M"][frame], np.float64).reshape(2, 3)
    left, top, right, bottom = np.array(row["box_xyxy"][frame], np.float64) / BOX_UNITS
    side = row["out_size"]
    v, u = np.mgrid[:side, :side] - square_of(side, inner_side(row["align_template"], side)).first_px
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:, :2])) < 1e-9:
        return np.zeros(u.shape, np.bool_)
    (a, b), (c, d) = np.linalg.inv(matrix[:, :2])
    du, dv = u - matrix[0, 2], v - matrix[1, 2]
    x, y = a * du + b * dv, c * du + d * dv
    face = (abs(x - (left + right) / 2) <= margin * (right - left) / 2) & (
        abs(y - (top + bottom) / 2) <= margin * (bottom - top) / 2
    )
    width, height = (np.inf if row[name] is None else row[name] for name in ("width", "height"))
    return np.asarray(~face & (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5), np.bool_)


def compare_around(fakes: Sequence[Floats], originals: Sequence[Floats], masks: Sequence[Bools]) -> Around:
    """Compare grey images of equal size where their masks say; each image is compared to its own mean."""
    share = float(np.mean([mask.mean() for mask in masks]))
    if not share:
        return Around(share=0.0, correlation=0.0, difference=0.0)
    parts = [(a[mask], b[mask]) for a, b, mask in zip(fakes, originals, masks, strict=True) if mask.any()]
    x = np.concatenate([a - a.mean() for a, _ in parts])
    y = np.concatenate([b - b.mean() for _, b in parts])
    scale = float(np.sqrt((x @ x) * (y @ y)))
    difference = float(np.mean(np.concatenate([abs(a - b) for a, b in parts])))
    return Around(share=share, correlation=float(x @ y) / scale if scale > 0 else 0.0, difference=difference)
