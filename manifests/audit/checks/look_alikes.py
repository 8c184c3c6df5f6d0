"""Check L11: look-alike persons across splits, by face embeddings that the auditor brings.

The embeddings are those of a recogniser of the auditor's choice, in a Parquet file with a row per video, clip or face:
`video_id` (hexadecimal text, or the 16 bytes) and `embedding` (a list of numbers, as many in each row). What counts as
alike is calibrated as for near copies: recognisers differ in how close strangers are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lps.manifests.arrays import Ints
from lps.manifests.audit.core.database import fetch_rows
from lps.manifests.audit.core.queries import PLACED, placed_table, read_claim
from lps.manifests.audit.core.types import (
    AuditContext,
    CheckEntry,
    CheckResult,
    CheckSpec,
    Offender,
    Severity,
    State,
    not_evaluated,
)
from lps.manifests.errors import UnreadableError, first_line
from lps.manifests.names import SPLITS
from lps.manifests.splits.key_edges import KeyEdges
from lps.manifests.splits.leakage import PAIRS
from lps.manifests.splits.near_copies import chance_distance, stranger_pairs

LIMITS: dict[str, float] = {"l11_min_cosine": 0.4, "l11_chance": 1e-6, "l11_min_pairs": 50}
COLUMNS = ("video_id", "embedding")
BY_CHANCE = 0.05
"""Pairs of strangers that may look alike in a whole data set: among millions of pairs, one in a million is many."""
STEPS = 10_000
"""Steps between cosines 1 and 0, in which distances are calibrated."""
TILE = (1024, 8192)
"""Videos compared at a time."""

L11 = CheckSpec(
    id="L11",
    title="No look-alike persons across splits",
    rule="No two videos with clips, of different splits and groups, have mean face embeddings (--embeddings FILE) of a "
    "cosine that a share l11_chance of pairs of different groups would reach (of large data sets a smaller share: 0.05 "
    "pairs of all that are compared), and of at least l11_min_cosine. UNKNOWN below l11_min_pairs pairs to calibrate "
    "with, and where nothing is found but some video with clips has no embedding. SKIP without embeddings: no "
    "recogniser is part of this program.",
    remedy="Look at the pairs. If they show one person, give them a common alias and split again "
    "(`lps-prep split --aliases`); if not, state why in a waiver.",
    severity=Severity.WARN,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """The mean face of each video."""

    ids: list[bytes]
    vectors: NDArray[np.float32]
    """(videos, n), of length 1."""


def read_embeddings(path: Path) -> Embeddings:
    """Read a file of embeddings; rows of one video are averaged. Raises UnreadableError."""
    try:
        if missing := [name for name in COLUMNS if name not in pq.read_schema(path).names]:
            raise UnreadableError(f"{path} has no column '{missing[0]}'; embeddings need {' and '.join(COLUMNS)}")
        table = pq.read_table(path, columns=list(COLUMNS))
    except (OSError, pa.ArrowException) as e:
        raise UnreadableError(f"{path}: no embeddings can be read: {first_line(e)}") from e
    if not len(table):
        raise UnreadableError(f"{path} holds no embedding")
    vectors = _vectors(table["embedding"].combine_chunks(), path)
    ids = _ids(table["video_id"], path).dictionary_encode().combine_chunks()
    rows = np.asarray(ids.indices)
    summed = np.zeros((len(ids.dictionary), vectors.shape[1]), np.float32)
    np.add.at(summed, rows, vectors)
    lengths = np.linalg.norm(summed, axis=1, keepdims=True)
    return Embeddings(ids=ids.dictionary.to_pylist(), vectors=summed / np.maximum(lengths, np.finfo(np.float32).tiny))


def _vectors(column: Any, path: Path) -> NDArray[np.float32]:
    """Return the rows at length 1, (rows, n)."""
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise UnreadableError(f"{path}: the column 'embedding' is {kind}, and no list of numbers")
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    flat = pc.list_flatten(column)
    if len(lengths) != 1 or not lengths[0] or flat.null_count:
        raise UnreadableError(f"{path}: all embeddings must have as many numbers, and no null")
    vectors: NDArray[np.float32] = np.asarray(flat).astype(np.float32).reshape(-1, lengths[0])
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    usable = np.isfinite(norms) & (norms > 0)
    if not usable.all():
        raise UnreadableError(f"{path}: an embedding is zero or not finite (row {int(np.argmin(usable))})")
    vectors /= norms
    return vectors


def _ids(column: Any, path: Path) -> Any:
    """Return the ids as bytes."""
    if pa.types.is_dictionary(column.type):  # as pandas writes categories
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        try:
            return pa.chunked_array([pa.array([bytes.fromhex(text) for text in column.to_pylist()], pa.binary())])
        except (ValueError, TypeError) as e:
            raise UnreadableError(f"{path}: the column 'video_id' holds what is no hexadecimal text: {e}") from e
    if column.null_count or not (
        pa.types.is_binary(column.type)
        or pa.types.is_large_binary(column.type)
        or pa.types.is_fixed_size_binary(column.type)
    ):
        raise UnreadableError(f"{path}: the column 'video_id' must be hexadecimal text or bytes, without null")
    return column.cast(pa.binary())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """The placed videos with clips that have an embedding, in the order of their ids."""

    ids: list[bytes]
    codes: Ints
    """Numbers of their splits in `SPLITS`."""
    groups: Ints
    vectors: NDArray[np.float32]


def check_look_alikes(ctx: AuditContext, *, embeddings: Embeddings | None = None) -> CheckResult:
    """L11: compare the mean faces of videos of different splits."""
    if embeddings is None:
        return not_evaluated(L11, State.SKIP, "no --embeddings: no recogniser is part of this program")
    videos, n_usable = _placed(ctx, embeddings)
    n_blind = n_usable - len(videos.ids)
    if not videos.ids:
        return not_evaluated(L11, State.UNKNOWN, f"none of {n_usable} placed videos with clips has an embedding")
    least = _least_cosine(videos, ctx.limits)
    if least is None:
        return not_evaluated(L11, State.UNKNOWN, "the embeddings cannot tell people apart, or there are too few videos")
    found = _nearest(videos, least)
    state = State.FAIL if found else State.UNKNOWN if n_blind else State.PASS
    return CheckResult(
        id=L11.id,
        state=state,
        severity=L11.severity,
        measured=f"{len(found)} videos look like one of an earlier split",
        limit=f"0 of cosine {least:.2f} or more",
        n_checked=len(videos.ids),
        offenders=_offenders(ctx, videos, found),
        note=f"{n_blind} of {n_usable} placed videos with clips have no embedding" if n_blind else "",
    )


def _placed(ctx: AuditContext, embeddings: Embeddings) -> tuple[_Placed, int]:
    """Return the placed videos with clips that have an embedding, and how many have clips.

    Those without clips tie others into groups, but show no face that anybody learns or is tested on.
    """
    tied, codes = placed_table(ctx)
    groups, _ = KeyEdges.of(tied, read_claim(ctx).aliases).labels()
    row_of = {video_id: row for row, video_id in enumerate(embeddings.ids)}
    usable = {
        video_id for (video_id,) in fetch_rows(ctx, f"WITH {PLACED} SELECT video_id FROM placed WHERE n_clips > 0")
    }
    ids = tied["video_id"].to_pylist()
    rows = [row for row, video_id in enumerate(ids) if video_id in row_of and video_id in usable]
    kept = [ids[row] for row in rows]
    vectors = embeddings.vectors[[row_of[video_id] for video_id in kept]]
    return _Placed(ids=kept, codes=codes[rows], groups=groups[rows], vectors=vectors), len(usable)


def _least_cosine(videos: _Placed, limits: Mapping[str, float]) -> float | None:
    """Return the cosine from which two are alike; None where that cannot be told."""
    one, two = stranger_pairs(videos.groups)
    if len(one) < limits["l11_min_pairs"]:
        return None
    cosines = np.einsum("ij,ij->i", videos.vectors[one], videos.vectors[two])
    chance = min(limits["l11_chance"], BY_CHANCE / max(1, _n_pairs(videos)))
    steps = chance_distance(np.rint((1 - cosines) * STEPS).astype(np.int64), chance)
    return None if steps < 0 else max(1 - steps / STEPS, limits["l11_min_cosine"])


def _n_pairs(videos: _Placed) -> int:
    """Return the number of pairs of videos of different splits."""
    sizes = np.bincount(videos.codes[videos.codes >= 0], minlength=len(SPLITS))
    return int((sizes.sum() ** 2 - (sizes**2).sum()) // 2)


def _nearest(videos: _Placed, least: float) -> list[tuple[int, int, float]]:
    """Return the held-out videos that look like one of a split before, with the nearest of these and the cosine."""
    found: dict[int, tuple[int, float]] = {}
    for seen, held in PAIRS:
        left, right = (np.flatnonzero(videos.codes == SPLITS.index(split)) for split in (seen, held))
        for i in range(0, len(right), TILE[0]):
            theirs = right[i : i + TILE[0]]
            for j in range(0, len(left), TILE[1]):
                mine = left[j : j + TILE[1]]
                cosines = videos.vectors[theirs] @ videos.vectors[mine].T
                cosines[videos.groups[theirs][:, None] == videos.groups[mine][None]] = -1
                best = cosines.argmax(axis=1)
                for row in np.flatnonzero(cosines.max(axis=1) >= least).tolist():
                    video, cosine = int(theirs[row]), float(cosines[row, best[row]])
                    if cosine > found.get(video, (0, -1.0))[1]:
                        found[video] = (int(mine[best[row]]), cosine)
    return [(video, other, cosine) for video, (other, cosine) in sorted(found.items())]


def _offenders(ctx: AuditContext, videos: _Placed, found: Sequence[tuple[int, int, float]]) -> tuple[Offender, ...]:
    named = {index for video, other, _ in found for index in (video, other)}
    ctx.db.register("l11_named", pa.table({"video_id": pa.array([videos.ids[k] for k in named], pa.binary())}))
    try:
        uris = dict(fetch_rows(ctx, "SELECT video_id, uri FROM videos JOIN l11_named USING (video_id)"))
    finally:
        ctx.db.unregister("l11_named")

    def said(index: int) -> str:
        return f"{uris[videos.ids[index]]} ({SPLITS[int(videos.codes[index])]})"

    return tuple(
        Offender(
            kind="video",
            key=videos.ids[video].hex(),
            detail=f"{said(video)} looks like {said(other)}: cosine {cosine:.2f}",
        )
        for video, other, cosine in found
    )


def look_alike_check(embeddings: Embeddings | None) -> CheckEntry:
    """Return L11 for the embeddings that an auditor brings."""
    return CheckEntry(L11, partial(check_look_alikes, embeddings=embeddings))
