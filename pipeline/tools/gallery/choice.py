"""Which clips and rejects a gallery shows: of every kind in turn, so that rare kinds are there, too.

The choice depends on the manifests alone, not on the order of their rows. Clips that are asked for by name come first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lps.manifests.codes import Code
from lps.manifests.columns import read_rows
from lps.manifests.names import LABELS, SPLITS, label_name
from lps.manifests.pages.pictures import evenly_spaced
from lps.manifests.schemas import TABLES, Row
from lps.manifests.storage import Store
from lps.pipeline.tools.preview import opened_manifests, place_in, places_of, uris_of_videos

if TYPE_CHECKING:
    import duckdb

SORTED = {
    "videos": ("video_id", "uri", "dataset", "label", "error_code"),
    "clips": ("sample_key", "video_id", "split", "label", "method", "dataset", "clip_id"),
}
"""Columns of every row that are looked at; the others are read of the rows that are shown."""
CLIP_KIND = ("split", "label", "method", "dataset")
REJECT_KIND = ("error_code", "label", "dataset")
CLIP_COLUMNS = (
    *("sample_key", "video_id", "split", "label", "method", "dataset", "shard_id", "members", "n_frames"),
    *("pts_ticks", "pts_start_s", "pts_end_s", "det_rate", "pair_id", "pair_mode", "clip_id"),
)
VIDEO_COLUMNS = (
    *("video_id", "uri", "dataset", "label", "method", "status", "error_code", "error_stage", "error_detail"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What a gallery shows of a data set."""

    clips: list[Row]
    """Rows of CLIP_COLUMNS, by split, label, method, data set and key."""
    rejects: list[Row]
    """Rows of VIDEO_COLUMNS, by code, label and path."""
    uris: dict[bytes, str]
    """Paths of the clips' videos by id."""
    n_by_split: dict[tuple[str, str], int]
    """How many clips there are in all of a split and label."""
    n_by_code: dict[str, int]
    """How many videos ended with a code."""
    datasets: tuple[str, ...]


def choose(out: Store, n_clips: int, n_rejects: int, keys: Sequence[str] = ()) -> Chosen:
    """Choose at most `n_clips` clips and `n_rejects` videos that ended with a code.

    `keys` are clips (sample keys, or ids in hex) and videos (ids in hex: the first clip of each) that come first; those
    that are not there are left out. Raises UnreadableError.
    """
    with opened_manifests(out, SORTED) as db:
        asked = places_of(db, _ASKED, [list(keys)])[:n_clips]
        in_turn = _in_turn(db, "clips", CLIP_KIND, "sample_key", n_clips)
        clips = read_rows(out, "clips", CLIP_COLUMNS, list(dict.fromkeys([*asked, *in_turn]))[:n_clips])
        rejects = places_of(db, _ASKED_REJECTS, [list(keys)])
        rejects += _in_turn(db, "videos", REJECT_KIND, "uri, video_id", n_rejects, "error_code <> ''")
        rejects = list(dict.fromkeys(rejects))[:n_rejects]
        n_by_split = db.execute("SELECT split, label, count(*) FROM clips GROUP BY ALL").fetchall()
        codes = db.execute("SELECT error_code, count(*) FROM videos WHERE error_code <> '' GROUP BY ALL").fetchall()
        datasets = db.execute("SELECT DISTINCT dataset FROM videos ORDER BY ALL").fetchall()
        return Chosen(
            clips=sorted(clips, key=_clip_place),
            rejects=sorted(read_rows(out, "videos", VIDEO_COLUMNS, rejects), key=_reject_place),
            uris=uris_of_videos(out, db, [row["video_id"] for row in clips]),
            n_by_split=_summed(n_by_split),
            n_by_code=dict(sorted(codes, key=lambda code: place_in(tuple(Code), code[0]))),
            datasets=tuple(str(name) for (name,) in datasets),
        )


_ASKED = """SELECT place FROM clips WHERE list_contains($1::VARCHAR[], sample_key)
UNION SELECT place FROM clips WHERE list_contains($1::VARCHAR[], lower(hex(clip_id)))
UNION SELECT min_by(place, sample_key) FROM clips WHERE list_contains($1::VARCHAR[], lower(hex(video_id)))
GROUP BY video_id ORDER BY ALL"""
_ASKED_REJECTS = """SELECT place FROM videos
WHERE error_code <> '' AND list_contains(?::VARCHAR[], lower(hex(video_id))) ORDER BY ALL"""


def _in_turn(
    db: "duckdb.DuckDBPyConnection", table: str, kind: Sequence[str], order: str, n: int, where: str = "true"
) -> list[int]:
    """Return the places of `n` rows: one of each kind, then another of each, and so on, evenly spaced in each kind."""
    names = ", ".join(kind)
    kinds = db.execute(f"SELECT {names}, count(*) FROM {table} WHERE {where} GROUP BY ALL ORDER BY ALL").fetchall()
    wanted = [(*values, rank) for values, rank in _ranks(kinds, n)]
    fields = [*(TABLES[table].field(name) for name in kind), pa.field("rank", pa.int64())]
    rows = [dict(zip([*kind, "rank"], each, strict=True)) for each in wanted]
    plain = [pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in fields]
    db.register("wanted", pa.Table.from_pylist(rows, pa.schema(plain)))
    same = " AND ".join(f"n.{name} IS NOT DISTINCT FROM w.{name}" for name in kind)
    numbered = (
        f"SELECT *, row_number() OVER (PARTITION BY {names} ORDER BY {order}, place) - 1 AS rank "
        f"FROM {table} WHERE {where}"
    )
    found = places_of(db, f"SELECT place FROM ({numbered}) n JOIN wanted w ON n.rank = w.rank AND {same}", [])
    db.unregister("wanted")
    return sorted(found)


def _ranks(kinds: Sequence[tuple[Any, ...]], n: int) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Yield which rows of each kind are shown; a kind is its values and how many rows it has."""
    left, quota = n, [0] * len(kinds)
    while left > 0 and (open_kinds := [k for k, kind in enumerate(kinds) if quota[k] < kind[-1]]):
        step = max(1, left // len(open_kinds))  # whole rounds at a time
        for k in open_kinds[:left]:
            more = min(step, kinds[k][-1] - quota[k])
            quota[k], left = quota[k] + more, left - more
    for (*values, count), shown in zip(kinds, quota, strict=True):
        for rank in evenly_spaced(range(count), shown) if shown else ():
            yield tuple(values), rank


def _summed(rows: Sequence[tuple[Any, ...]]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for split, label, n in rows:
        key = (str(split), label_name(label))
        found[key] = found.get(key, 0) + n
    return dict(sorted(found.items(), key=lambda item: (place_in(SPLITS, item[0][0]), LABELS.index(item[0][1]))))


def _clip_place(row: Row) -> tuple[Any, ...]:
    split, label = place_in(SPLITS, str(row["split"])), LABELS.index(label_name(row["label"]))
    return (split, label, str(row["method"] or ""), str(row["dataset"]), str(row["sample_key"]))


def _reject_place(row: Row) -> tuple[Any, ...]:
    code, label = place_in(tuple(Code), str(row["error_code"])), LABELS.index(label_name(row["label"]))
    return (code, label, str(row["uri"]), bytes(row["video_id"]))
