"""Add another split set over the shards of a complete data set."""

from dataclasses import replace

import pyarrow.compute as pc

from lps.manifests.canonical import pretty_json
from lps.manifests.columns import read_columns, rule_path, split_path
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.index import INDEX_JSON, read_index, readable_rule
from lps.manifests.names import UNTIED_FAKES
from lps.manifests.schemas import parquet_bytes, read_table
from lps.manifests.splits.inputs import INPUT_COLUMNS
from lps.manifests.splits.records import SplitParams, SplitRow, recorded_aliases, rows_from_table
from lps.manifests.splits.table import split_table
from lps.manifests.storage import Store, open_store
from lps.pipeline.job.finalize import manifest_entry
from lps.pipeline.job.lease import driver_lease


def add_split_set(location: str, name: str, params: SplitParams, base: str | None) -> dict[str, int]:
    """Write another split set over the shards of a complete data set. Returns counts by split, and of untied fakes.

    Aliases that the base was made with hold here too: people whom it keeps together must not be parted by new videos.
    The index is rewritten with the new file, last. Raises RefusedError for a name in use, UnreadableError for an
    incomplete data set or an unknown base. Raises RefusedError also while another driver writes the data set.
    """
    if not name.replace("-", "").replace("_", "").isalnum():
        raise RefusedError(f"a split set's name is made of letters, digits, '-' and '_', got '{name}'")
    out = open_store(location)
    read_index(out)
    with driver_lease(out, "split"):
        return _added(out, name, params, base)


def _added(out: Store, name: str, params: SplitParams, base: str | None) -> dict[str, int]:
    index = read_index(out).values
    uri = split_path(name)
    if uri in index["manifests"]:
        raise RefusedError(f"split set '{name}' exists; split sets are never rewritten, choose another name")
    videos = read_columns(out, "videos", (*INPUT_COLUMNS, "status"))
    videos = videos.filter(pc.not_equal(videos["status"], "skipped"))
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
    out.publish(INDEX_JSON, pretty_json(index))
    counts = {str(key): int(n) for key, n in rule["counts"].items()}
    return counts | ({UNTIED_FAKES: int(rule["untied_fakes"])} if rule["untied_fakes"] else {})


def _split_rows(out: Store, name: str) -> list[SplitRow]:
    uri = split_path(name)
    if not out.exists(uri):
        raise UnreadableError(f"{out.url} has no split set '{name}'")
    return rows_from_table(read_table("splits", out.read(uri)))
