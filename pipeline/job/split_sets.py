"""Add another split set over the shards of a complete data set."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.canonical import pretty_json
from lps.manifests.columns import read_columns, rule_path, split_path
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.index import CARDS, INDEX_JSON, read_index, readable_rule
from lps.manifests.names import UNTIED_FAKES
from lps.manifests.records import Note, SourceVideo
from lps.manifests.schemas import parquet_bytes, read_table
from lps.manifests.splits.inputs import INPUT_COLUMNS
from lps.manifests.splits.records import SplitParams, SplitRow, recorded_aliases, rows_from_table
from lps.manifests.splits.table import split_table
from lps.manifests.storage import Store, open_store
from lps.pipeline.job.finalize import manifest_entry, publish_cards
from lps.pipeline.job.lease import driver_lease
from lps.pipeline.sources.shared.bench_lists import BenchList
from lps.pipeline.sources.shared.split_lists import list_digests, read_split_lists, with_listed_splits
from lps.pipeline.sources.shared.types import SourceListing

OnNote = Callable[[Note], None]


def add_split_set(
    location: str,
    name: str,
    params: SplitParams,
    base: str | None,
    *,
    split_lists: Sequence[str] = (),
    on_note: OnNote = lambda note: None,
) -> dict[str, int]:
    """Write another split set over the shards of a complete data set. Returns counts by split, and of untied fakes.

    With lists of DeepfakeBench their splits are the published ones; `on_note` is told what does not go together,
    and where edited cards are kept.

    Aliases that the base was made with hold here too: people whom it keeps together must not be parted by new videos.
    Cards are made anew, and the index is rewritten with the new file, last. Raises RefusedError for a name in use,
    UnreadableError for an incomplete data set or an unknown base. Raises RefusedError also while another driver writes
    the data set.
    """
    if not name.replace("-", "").replace("_", "").isalnum():
        raise RefusedError(f"a split set's name is made of letters, digits, '-' and '_', got '{name}'")
    out = open_store(location)
    read_index(out)
    lists = read_split_lists(split_lists)
    params = replace(params, lists=list_digests(lists))
    with driver_lease(out, "split"):
        return _added(out, name, params, base, lists, on_note)


def _added(
    out: Store, name: str, params: SplitParams, base: str | None, lists: Sequence[BenchList], on_note: OnNote
) -> dict[str, int]:
    index = read_index(out).values
    uri = split_path(name)
    if uri in index["manifests"]:
        raise RefusedError(f"split set '{name}' exists; split sets are never rewritten, choose another name")
    videos = read_columns(out, "videos", (*INPUT_COLUMNS, "status", *(("uri",) if lists else ())))
    videos = videos.filter(pc.not_equal(videos["status"], "skipped"))
    if lists:
        videos = _with_listed_splits(videos, lists, on_note)
    pinned = None
    if base is not None:
        pinned = _split_rows(out, base)
        known = recorded_aliases(readable_rule(out, base))
        params = replace(params, aliases=tuple(dict.fromkeys((*known, *params.aliases))))
    table, rule = split_table(videos, params, pinned)
    marks = {"lps.params_sha256": str(index["params_sha256"])}
    files = {
        uri: (parquet_bytes("splits", table, marks), table.num_rows),
        rule_path(name): (pretty_json(rule), None),
    }
    for path, (data, n_rows) in files.items():
        out.publish(path, data)
        index["manifests"][path] = manifest_entry(data, n_rows)
    if any(card in index["manifests"] for card in CARDS):  # older writers made none
        for kept in publish_cards(out, index, dict(index["manifests"])):
            on_note(Note(f"a card had been edited and is made anew; what it said is in {kept}"))
    out.publish(INDEX_JSON, pretty_json(index))
    counts = {str(key): int(n) for key, n in rule["counts"].items()}
    return counts | ({UNTIED_FAKES: int(rule["untied_fakes"])} if rule["untied_fakes"] else {})


def _with_listed_splits(videos: pa.Table, lists: Sequence[BenchList], on_note: OnNote) -> pa.Table:
    """Return the videos with the splits of the lists as their published ones."""
    names = ("uri", "dataset", "label", "method", "compression")
    rows = videos.select(names).to_pylist()
    sources = tuple(SourceVideo(label_source="metadata", **row) for row in rows)
    listing = with_listed_splits(SourceListing(videos=sources, notes=()), lists)
    for text in listing.notes:
        on_note(Note(text))
    place = videos.schema.get_field_index("official_split")
    splits = pa.array([source.official_split for source in listing.videos], pa.string())
    return videos.set_column(place, "official_split", splits).drop_columns(["uri"])


def _split_rows(out: Store, name: str) -> list[SplitRow]:
    uri = split_path(name)
    if not out.exists(uri):
        raise UnreadableError(f"{out.url} has no split set '{name}'")
    return rows_from_table(read_table("splits", out.read(uri)))
