"""What the audit's page shows of a data set, taken from its manifests: counts, distributions, clips and rejects.

An audit is most needed where something is broken, so a manifest that cannot be read costs its part of the page, with a
note, and never the page.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.arrays import Floats, Ints
from lps.manifests.codes import Code, meaning_of
from lps.manifests.columns import numbers, read_columns, read_rows, split_path
from lps.manifests.errors import UnreadableError
from lps.manifests.names import CLASSES, label_name
from lps.manifests.pages.pictures import evenly_spaced, uris_of
from lps.manifests.schemas import Row
from lps.manifests.storage import Store

PER_STRIP = 12
"""Clips shown for one measure of quality."""
PER_CODE = 6
"""Videos shown for one code."""

VIDEO_COLUMNS = (
    *("video_id", "uri", "label", "method", "status", "error_code", "error_stage", "error_detail", "n_clips"),
    *("scan", "n_frames_container", "n_frames_decoded"),
    *("width", "height", "fps_num", "fps_den", "duration_s", "bitrate_bps"),
    *("codec", "container", "pix_fmt", "color_transfer", "field_order", "has_audio"),
)
CLIP_COLUMNS = (
    *("video_id", "label", "box_side_med", "blur_var_med", "det_rate", "jitter_px", "outside_share"),
    *("luma_mean", "luma_std", "pair_mode", "pair_fallback"),
)
TILE_COLUMNS = (
    *("sample_key", "shard_id", "video_id", "label", "method", "split", "members", "pts_start_s"),
    *("blur_var_med", "det_rate", "jitter_px", "outside_share"),
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTile:
    """One clip, as it is captioned. Its frame may be missing."""

    row: Row
    """TILE_COLUMNS of the manifest `clips`."""
    uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number of every video or clip, by class."""

    title: str
    unit: str
    values: dict[str, Floats]
    """`real` and `fake`; unknown labels are left out."""
    log: bool = False
    of: str = "clips"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueCounts:
    """How often each value occurs, by class."""

    title: str
    rows: tuple[tuple[str, tuple[int, int]], ...]
    """Value, and how many real and fake videos (clips, if the title says so) have it; most frequent first."""
    totals: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeCount:
    """One code."""

    code: str
    meaning: str
    by_label: tuple[int, int, int]
    """Videos: real, fake, unknown."""
    shown: tuple[Row, ...] = ()
    """Rows of the manifest `videos`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """The clips at the low end of one measure of quality."""

    title: str
    unit: str
    column: str
    tiles: tuple[ClipTile, ...]
    median: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All of it. Parts that could not be read are empty and have a note."""

    matrix: tuple[Row, ...] = ()
    """Rows with `split`, `label`, `method`, `videos`, `clips`, `groups`."""
    measures: tuple[Measure, ...] = ()
    tallies: tuple[ValueCounts, ...] = ()
    codes: tuple[CodeCount, ...] = ()
    totals: tuple[int, int, int] = (0, 0, 0)
    """Videos that were inputs, all but the skipped: real, fake, unknown."""
    strips: tuple[Strip, ...] = ()
    clip_of_video: dict[str, ClipTile] = field(default_factory=dict)
    """Video id in hex -> its first clip, for the videos that were asked about."""
    clip_of_key: dict[str, ClipTile] = field(default_factory=dict)
    """Sample key -> its clip, for the clips that were asked about."""
    uris: dict[str, str] = field(default_factory=dict)
    """Video id in hex -> path, for the videos that were asked about."""
    notes: tuple[str, ...] = ()


def is_id(text: Any) -> bool:
    """Whether this is the id of a video or clip in hex."""
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{32}", text) is not None


def read_facts(store: Store, split_set: str, video_ids: Sequence[str], keys: Sequence[str] = ()) -> Facts:
    """Read what the page shows.

    `video_ids` (hex) are videos that it names, whose first clips and paths come along; `keys` are clips: sample
    keys, or ids in hex.
    """
    notes: list[str] = []

    def part(read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except UnreadableError as e:
            if str(e) not in notes:
                notes.append(str(e))
            return otherwise

    videos = part(lambda: read_columns(store, "videos", VIDEO_COLUMNS), None)
    clips = part(lambda: read_columns(store, "clips", CLIP_COLUMNS), None)
    asked = [bytes.fromhex(video_id) for video_id in dict.fromkeys(video_ids)]
    matrix: tuple[Row, ...] = ()
    if videos is not None:
        matrix = part(lambda: _matrix(store, videos, split_set), matrix)
    strips: tuple[Strip, ...] = ()
    first_clips: dict[str, ClipTile] = {}
    clips_by_key: dict[str, ClipTile] = {}
    if clips is not None:
        strips, first_clips = part(lambda: _tiles(store, clips, videos, asked), (strips, first_clips))
    if keys:
        clips_by_key = part(lambda: _keyed(store, videos, keys), clips_by_key)
    return Facts(
        matrix=matrix,
        measures=(*_video_measures(videos), *_clip_measures(clips)),
        tallies=_tallies(videos, clips),
        codes=_codes(videos),
        totals=_totals(videos),
        strips=strips,
        clip_of_video=first_clips,
        clip_of_key=clips_by_key,
        uris=uris_of(videos, asked),
        notes=tuple(notes),
    )


def _matrix(store: Store, videos: pa.Table, split_set: str) -> tuple[Row, ...]:
    """Count videos, clips and groups of each split, label and method."""
    import duckdb

    if not split_set:
        return ()
    splits = read_columns(store, "splits", ("video_id", "split", "group_id"), path=split_path(split_set))
    query = """
        SELECT coalesce(s.split, 'excluded') AS split, v.label AS label, coalesce(v.method, '') AS method,
               count(*) AS videos, sum(v.n_clips)::BIGINT AS clips, count(DISTINCT s.group_id) AS groups
        FROM splits s JOIN videos v USING (video_id) GROUP BY ALL ORDER BY ALL
    """
    with duckdb.connect() as db:
        db.register("videos", videos.select(["video_id", "label", "method", "n_clips"]))
        db.register("splits", splits)
        found = db.execute(query).fetchall()
    names = ("split", "label", "method", "videos", "clips", "groups")
    return tuple({**dict(zip(names, row, strict=True)), "label": label_name(row[1])} for row in found)


def _totals(videos: pa.Table | None) -> tuple[int, int, int]:
    if videos is None:
        return (0, 0, 0)
    return _by_label(videos.filter(pc.not_equal(videos["status"], "skipped"))["label"])


def _by_label(labels: pa.ChunkedArray) -> tuple[int, int, int]:
    values = numbers(labels)
    return int((values == 0).sum()), int((values == 1).sum()), int((~np.isin(values, (0, 1))).sum())


def _codes(videos: pa.Table | None) -> tuple[CodeCount, ...]:
    if videos is None:
        return ()
    coded = videos.filter(pc.is_valid(videos["error_code"]))
    known = [str(code) for code in Code]
    names = sorted(set(coded["error_code"].to_pylist()), key=lambda code: (code not in known, code))
    return tuple(_code_count(coded.filter(pc.equal(coded["error_code"], name)), str(name)) for name in names)


def _code_count(rows: pa.Table, code: str) -> CodeCount:
    columns = ["video_id", "uri", "label", "status", "error_stage", "error_detail", "n_frames_decoded"]
    order = pc.sort_indices(rows, sort_keys=[("uri", "ascending")])
    places = pa.array(evenly_spaced(range(len(order)), PER_CODE), pa.int64())
    shown = rows.select(columns).take(order.take(places)).to_pylist()
    return CodeCount(code=code, meaning=meaning_of(code), by_label=_by_label(rows["label"]), shown=tuple(shown))


def _tallies(videos: pa.Table | None, clips: pa.Table | None) -> tuple[ValueCounts, ...]:
    columns = {
        "codec": "Codec",
        "container": "Container",
        "pix_fmt": "Pixel format",
        "color_transfer": "Transfer function",
        "field_order": "Field order",
        "has_audio": "Sound track",
    }
    of_pairs = {"pair_mode": "Window and cut (clips)", "pair_fallback": "Why none is shared (clips)"}
    is_paired = clips is not None and pc.any(pc.not_equal(clips["pair_mode"], "own")).as_py()
    asked = [(videos, columns), (clips if is_paired else None, of_pairs)]
    tallies = [_tally(table, *column) for table, names in asked if table is not None for column in names.items()]
    return tuple(tally for tally in tallies if tally.rows)


def _tally(table: pa.Table, column: str, title: str) -> ValueCounts:
    present = table.filter(pc.is_valid(table[column]))
    counts = present.group_by([column, "label"]).aggregate([([], "count_all")]).to_pylist()
    rows: dict[str, list[int]] = {}
    for row in counts:
        if row["label"] in (0, 1):
            value = {True: "yes", False: "no"}.get(row[column], str(row[column]))
            rows.setdefault(value, [0, 0])[row["label"]] += row["count_all"]
    ordered = sorted(rows.items(), key=lambda item: (-sum(item[1]), item[0]))
    totals = (sum(pair[0] for pair in rows.values()), sum(pair[1] for pair in rows.values()))
    return ValueCounts(title=title, rows=tuple((value, (a, b)) for value, (a, b) in ordered), totals=totals)


def _video_measures(videos: pa.Table | None) -> tuple[Measure, ...]:
    if videos is None:
        return ()
    label = numbers(videos["label"])
    width, height = numbers(videos["width"]), numbers(videos["height"])
    with np.errstate(divide="ignore", invalid="ignore"):
        fps = numbers(videos["fps_num"]) / numbers(videos["fps_den"])
    columns = (
        ("Resolution, short side", "px", np.minimum(width, height), False),
        ("Frame rate", "frames/s", fps, False),
        ("Duration", "s", numbers(videos["duration_s"]), False),
        ("Length", "frames", _lengths(videos), False),
        ("Bit rate", "kbit/s", numbers(videos["bitrate_bps"]) / 1000, True),
    )
    return tuple(_measure(label, title, unit, values, log, of="videos") for title, unit, values, log in columns)


def _lengths(videos: pa.Table) -> Floats:
    """Return the frames of each video: where only the window of a clip was decoded, what its packets promise."""
    window = pc.is_in(videos["scan"], pa.array(["window"]))
    return numbers(pc.if_else(window, videos["n_frames_container"], videos["n_frames_decoded"]))


def _clip_measures(clips: pa.Table | None) -> tuple[Measure, ...]:
    if clips is None:
        return ()
    label = numbers(clips["label"])
    columns = (
        ("Face size in the source", "px", "box_side_med", True),
        ("Sharpness (variance of the Laplacian)", "", "blur_var_med", True),
        ("Detection rate", "share of asked frames", "det_rate", False),
        ("Landmark jitter", "output px", "jitter_px", True),
        ("Outside the picture", "share of a frame", "outside_share", False),
        ("Brightness", "grey level", "luma_mean", False),
        ("Contrast", "grey level", "luma_std", False),
    )
    return tuple(_measure(label, title, unit, numbers(clips[name]), log) for title, unit, name, log in columns)


def _measure(label: Floats, title: str, unit: str, values: Floats, log: bool, of: str = "clips") -> Measure:
    finite = np.isfinite(values)
    by_class = {name: values[finite & (label == number)] for number, name in enumerate(CLASSES)}
    return Measure(title=title, unit=unit, values=by_class, log=log, of=of)


def _tiles(
    store: Store, clips: pa.Table, videos: pa.Table | None, asked: Sequence[bytes]
) -> tuple[tuple[Strip, ...], dict[str, ClipTile]]:
    """Read the clips with the lowest quality, and the first clip of each video that was asked about."""
    worst = {
        ("Least sharp", "variance of the Laplacian", "blur_var_med"): _lowest(numbers(clips["blur_var_med"])),
        ("Least often detected", "share of asked frames", "det_rate"): _lowest(numbers(clips["det_rate"])),
        ("Most jitter", "output px", "jitter_px"): _lowest(-numbers(clips["jitter_px"])),
        ("Most outside the picture", "share of a frame", "outside_share"): _lowest(-numbers(clips["outside_share"])),
    }
    first = _first_clips(clips["video_id"], asked)
    places = sorted({int(i) for found in worst.values() for i in found} | set(first.values()))
    rows = dict(zip(places, read_rows(store, "clips", TILE_COLUMNS, places), strict=True)) if places else {}
    uris = uris_of(videos, [bytes(row["video_id"]) for row in rows.values()])
    tile = {i: ClipTile(row=row, uri=uris.get(bytes(row["video_id"]).hex(), "")) for i, row in rows.items()}
    strips = tuple(
        Strip(
            title=title,
            unit=unit,
            column=column,
            tiles=tuple(tile[int(i)] for i in found),
            median=_median(clips, column),
        )
        for (title, unit, column), found in worst.items()
        if len(found) and _varies(clips, column)
    )
    return strips, {video_id.hex(): tile[i] for video_id, i in first.items()}


def _keyed(store: Store, videos: pa.Table | None, keys: Sequence[str]) -> dict[str, ClipTile]:
    """Read the clips of some sample keys or ids in hex; those that are not there are left out."""
    clips = read_columns(store, "clips", ("sample_key", "clip_id"))
    places = _places(clips["sample_key"], {key: key for key in keys})
    places |= _places(clips["clip_id"], {key: bytes.fromhex(key) for key in keys if is_id(key)})
    rows = dict(zip(places, read_rows(store, "clips", TILE_COLUMNS, list(places.values())), strict=True))
    uris = uris_of(videos, [bytes(row["video_id"]) for row in rows.values()])
    return {key: ClipTile(row=row, uri=uris.get(bytes(row["video_id"]).hex(), "")) for key, row in rows.items()}


def _places(column: pa.ChunkedArray, values: Mapping[str, str | bytes]) -> dict[str, int]:
    """Return the places at which a column first has some values, by the names of these."""
    found = pc.index_in(pa.array(list(values.values()), column.type), value_set=column.combine_chunks()).to_pylist()
    return {name: place for name, place in zip(values, found, strict=True) if place is not None}


def _lowest(values: Floats) -> Ints:
    """Return the places of the lowest values, lowest first; equal values in the order of the table."""
    places = np.flatnonzero(np.isfinite(values))
    return places[np.argsort(values[places], kind="stable")[:PER_STRIP]].astype(np.int64)


def _varies(clips: pa.Table, column: str) -> bool:
    """Tell whether there is a lowest: among equal clips none is worth a look."""
    found = pc.min_max(clips[column]).as_py()
    return bool(found["min"] != found["max"]) or len(clips) == 1


def _median(clips: pa.Table, column: str) -> float:
    return float(np.nanmedian(numbers(clips[column])))


def _first_clips(column: pa.ChunkedArray, asked: Sequence[bytes]) -> dict[bytes, int]:
    if not asked:
        return {}
    places = np.flatnonzero(pc.is_in(column, value_set=pa.array(asked, column.type)).to_numpy())
    found: dict[bytes, int] = {}
    for place in places.tolist():
        found.setdefault(bytes(column[place].as_py()), place)
    return found
