"""The worst errors of evaluations with their frames, where the evaluated data set can be reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.columns import read_columns, read_rows
from lps.manifests.errors import UnreadableError
from lps.manifests.index import read_index
from lps.manifests.names import label_name
from lps.manifests.pages.html import gallery_link, shortened
from lps.manifests.pages.pictures import SIDE_PX, read_strips, uris_of
from lps.manifests.schemas import Row
from lps.manifests.storage import Store, open_store
from lps.model.evaluation.scores import Scores, worst_errors
from lps.model.report.runs import Evaluation, Record, named_sets

N_FRAMES = 6
STRIP_PX = (SIDE_PX * N_FRAMES, SIDE_PX)
"""Width and height of a strip of frames."""
STRIP_COLUMNS = ("sample_key", "shard_id", "video_id", "members")


@dataclass(frozen=True, slots=True)
class FrameSource:
    """A data set that frames may come from."""

    store: Store
    index_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorView:
    """One clip on the wrong side of the threshold."""

    label: str
    called: str
    p_fake: float
    lines: tuple[str, ...]
    uri: str
    others: tuple[tuple[str, float], ...]
    """What other evaluations say of the same clip."""
    image: str = ""
    """A data URI."""
    link: str = ""
    """Its address in the gallery; empty without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorsView:
    """The worst errors of one evaluation on one data set."""

    name: str
    number: int
    data: str
    said: str
    note: str
    """Why frames are missing, or come from elsewhere; empty where nothing is to be said."""
    errors: tuple[ErrorView, ...]


def open_frame_sources(named: Sequence[str], recorded: Sequence[str]) -> tuple[list[FrameSource], list[str]]:
    """Open the data sets that the user `named` and those that runs `recorded`; returns them, and notes.

    Raises UnreadableError where a named one is not there; a recorded one that is gone is a note.
    """
    sources, notes = [], []
    for location in dict.fromkeys([*named, *recorded]):
        store = open_store(location)
        try:
            sources.append(FrameSource(store, read_index(store).sha256))
        except UnreadableError:
            if location in named:
                raise
            notes.append(f"data set '{store.name}' is not where its run found it; name its place with --data")
    return sources, notes


def errors_view(
    evaluation: Evaluation,
    number: int,
    title: str,
    others: Mapping[str, Scores],
    sources: Sequence[FrameSource],
    n: int,
    gallery: str = "",
) -> ErrorsView | None:
    """Return the worst errors of an evaluation on entry `number` of its data; None without a table of scores.

    `others` are the scores of other evaluations by name. In `gallery`, the address of the page of `lps-prep preview
    --html`, an error is found by the key of its clip, or by its video where the evaluated data set is not at hand.
    """
    if evaluation.scores is None:
        return None
    scores = of_entry(evaluation.scores, number)
    wrong = worst_errors(scores, len(scores))
    shown = wrong[:n]
    n_clips = len(scores.labelled())
    said = f"{len(wrong):,} of {n_clips:,} labelled clips are on the wrong side of 0.5"
    said += f"; the {len(shown)} most confident errors" if len(shown) < len(wrong) else ""
    found, note = _find(evaluation.data[number], [bytes(row["clip_id"]) for row in shown], sources)
    elsewhere = {name: _by_clip(table, shown) for name, table in others.items()}
    return ErrorsView(
        name=evaluation.name,
        number=evaluation.number,
        data=title,
        said=said,
        note=note,
        errors=tuple(_error(row, found, elsewhere, gallery) for row in shown),
    )


def of_entry(scores: Scores, number: int) -> Scores:
    """Return the scores on one entry of an evaluation's data."""
    return replace(scores, table=scores.table.filter(pc.equal(scores.table["data"].fill_null(0), number)))


def _by_clip(scores: Scores, rows: Sequence[Row]) -> dict[bytes, float]:
    table = scores.table
    asked = pa.array([row["clip_id"] for row in rows], table["clip_id"].type)
    found = table.filter(pc.is_in(table["clip_id"], value_set=asked))
    return dict(zip(found["clip_id"].to_pylist(), found["p_fake"].to_pylist(), strict=True))


def _error(
    row: Row, found: "Mapping[bytes, FoundClip]", elsewhere: Mapping[str, Mapping[bytes, float]], gallery: str
) -> ErrorView:
    clip = found.get(row["clip_id"], FoundClip())
    start = row["start_s"]
    lines = [str(row["method"])] if row["method"] else []
    lines += [f"from {start:.1f} s"] if start is not None else []
    return ErrorView(
        label=label_name(row["label"]),
        called=label_name(int(not row["label"])),
        p_fake=float(row["p_fake"]),
        lines=tuple(lines),
        uri=shortened(clip.uri or f"video {row['video_id'].hex()}"),
        others=tuple((name, clips[row["clip_id"]]) for name, clips in elsewhere.items() if row["clip_id"] in clips),
        image=clip.image,
        link=gallery_link(gallery, clip.sample_key or row["video_id"].hex()),
    )


@dataclass(frozen=True, slots=True)
class FoundClip:
    """What a data set says of a clip."""

    sample_key: str = ""
    uri: str = ""
    image: str = ""


def _find(
    entry: Record, clip_ids: Sequence[bytes], sources: Sequence[FrameSource]
) -> tuple[dict[bytes, FoundClip], str]:
    """Look for clips in the evaluated data set, then in any other that has them; returns them, and a note.

    Ids of clips follow from the videos and how they were prepared, so the same id means the same clip.
    """
    if not clip_ids:
        return {}, ""
    evaluated = entry.get("index_sha256")
    if not evaluated:
        return {}, "No frames: what was evaluated were shards without manifests."
    same = [source for source in sources if source.index_sha256 == evaluated]
    unreadable = ""
    for source in (*same, *(source for source in sources if source not in same)):
        try:
            clips = _clips(source.store, clip_ids)
        except UnreadableError:
            unreadable = source.store.name
            continue
        if len(clips) < len(set(clip_ids)):
            continue
        if not all(clip.image for clip in clips.values()):
            return clips, f"Frames are missing: shards of '{source.store.name}' cannot be read."
        changed = f"Frames are from '{source.store.name}', whose index is not the one that was evaluated."
        return clips, "" if source in same else changed
    if unreadable:
        return {}, f"No frames: manifests of '{unreadable}' cannot be read."
    return (
        {},
        f"No frames: the evaluated data set (index {str(evaluated)[:12]}…) was not found; name it with --data.",
    )


def _clips(store: Store, clip_ids: Sequence[bytes]) -> dict[bytes, FoundClip]:
    """Return what a data set holds of some clips. Raises UnreadableError."""
    ids = read_columns(store, "clips", ("clip_id",))["clip_id"]
    rows = pc.index_in(pa.array(clip_ids, ids.type), value_set=ids.combine_chunks()).to_pylist()
    places = {clip_id: row for clip_id, row in zip(clip_ids, rows, strict=True) if row is not None}
    if not places:
        return {}
    found = read_rows(store, "clips", STRIP_COLUMNS, list(places.values()))
    uris = uris_of(read_columns(store, "videos", ("video_id", "uri")), [bytes(row["video_id"]) for row in found])
    images = read_strips(store, found, N_FRAMES)
    return {
        clip_id: FoundClip(
            sample_key=str(row["sample_key"]),
            uri=uris.get(bytes(row["video_id"]).hex(), ""),
            image=images.get(str(row["sample_key"]), ""),
        )
        for clip_id, row in zip(places, found, strict=True)
    }


def recorded_locations(configs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Return where runs say that their data sets are, from the `data` of their configurations, and notes.

    Only folders: a URL in a record of somebody else must not make this program ask a server.
    """
    places = [place.get("data") for config in configs for place in (config, *(s for _, s in named_sets(config)))]
    found = [location for location in places if isinstance(location, str) and location]
    local = [location for location in found if "://" not in location and "::" not in location]
    note = "a data set of a run is at a URL; name it with --data to have its frames"
    return local, [note] if len(local) < len(found) else []
