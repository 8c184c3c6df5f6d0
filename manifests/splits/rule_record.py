"""The record of a split set: enough to repeat the split, and what is known to be wrong with it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.arrays import Ints
from lps.manifests.row_digest import batches_digest, table_digest
from lps.manifests.splits.by_group import GIANT_FACTOR, GIANT_MIN_VIDEOS, giant_groups
from lps.manifests.splits.groups import Groups
from lps.manifests.splits.inputs import INPUT_COLUMNS, KEY_COLUMNS, key_columns
from lps.manifests.splits.key_edges import KeyEdges, listed
from lps.manifests.splits.leakage import crossing_groups, split_codes, untied_fakes
from lps.manifests.splits.records import SplitParams, SplitRow, aliases_digest, rows_table, sorted_aliases

ALGORITHM_VERSION = 1
BATCH_ROWS = 1 << 20


def rule_record(
    videos: pa.Table,
    splits: pa.Table,
    params: SplitParams,
    edges: KeyEdges,
    groups: Groups,
    base: Sequence[SplitRow] | None = None,
) -> dict[str, Any]:
    """Return what `manifests/splits/<set>.json` states: enough to repeat the split, and what is known to be wrong.

    `leaky` is the stamp that trainers refuse. `crossing_groups` counts groups that lie in two splits all the same,
    which published lists and accepted donor leaks bring about; `untied_fakes` counts those that nothing ties to a real
    video, so that they may be in another split than their originals.
    """
    giant = giant_groups(groups, params.ratios, videos.num_rows)
    given = {"lists": [{"name": name, "sha256": digest} for name, digest in params.lists]} if params.lists else {}
    decided_by = _counts(splits["rule"])
    excluded = _counts(splits.filter(splits["excluded"])["exclude_reason"])
    counts = _counts(splits["split"]) | {f"excluded:{reason}": n for reason, n in excluded.items()}
    return {
        "algorithm": "lps-split",
        "version": ALGORITHM_VERSION,
        "rule": params.rule,
        **given,
        "ratios": list(params.ratios),
        "seed": params.seed,
        "tries": params.tries,
        "giant": {
            "policy": params.giant,
            "found": int(giant.sum()),
            "largest_group": int(groups.sizes.max(initial=0)),
            "limit": GIANT_FACTOR * max(params.ratios),
            "min_videos": GIANT_MIN_VIDEOS,
        },
        "edge_kinds": edge_kinds(videos, edges, params),
        "strata": ["label", "method", "dataset", "compression"] if params.rule == "ranked" else [],
        "n_videos": videos.num_rows,
        "n_groups": len(groups),
        "decided_by": dict(sorted(decided_by.items())),
        "counts": dict(sorted(counts.items())),
        "inputs_sha256": inputs_digest(videos),
        "base_sha256": None if base is None else table_digest(rows_table(base)),
        "aliases": sorted_aliases(params.aliases),
        "aliases_sha256": aliases_digest(params.aliases),
        "leaky": "random" in decided_by,
        "accepted_leakage": ["donor"] if params.giant == "target-only" and giant.any() else [],
        "untied_fakes": int(untied_fakes(videos, groups).sum()),
        "crossing_groups": len(crossing_groups(videos, split_codes(splits), params.aliases, groups)),
    }


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    found = pc.value_counts(column.drop_null().cast(pa.string())).to_pylist()
    return {str(each["values"]): int(each["counts"]) for each in found}


def edge_kinds(videos: pa.Table, edges: KeyEdges, params: SplitParams) -> list[str]:
    """Name the kinds of links that tie these videos: what is absent here was not known, so not kept apart."""
    lengths = {name: pc.fill_null(pc.list_value_length(videos[name]), 0).to_numpy() for name in KEY_COLUMNS}
    found = {
        "PAIR": bool(((lengths["target_keys"] > 0) & (lengths["donor_keys"] > 0)).any()),
        "ORIG": videos["original_video_id"].null_count < videos.num_rows,
        "SRC": bool((lengths["source_keys"] > 0).any()),
        "ID": bool((lengths["identity_keys"] > 0).any()),
        "ALIAS": bool(params.aliases),
        "DUP": edges.has_copies,
        "XDS": _is_shared(videos),
    }
    return [kind for kind, present in found.items() if present]


def _is_shared(videos: pa.Table) -> bool:
    """Tell whether a published key has videos of two data sets."""
    data_sets = pc.unique(videos["dataset"].cast(pa.string()))
    if len(data_sets) < 2:
        return False
    code = pc.index_in(videos["dataset"].cast(pa.string()), value_set=data_sets).to_numpy()
    owners, parts = zip(*(listed(videos[name]) for name in key_columns(videos)), strict=True)
    keys = pa.concat_arrays(parts).dictionary_encode()
    owner = code[np.concatenate(owners)]
    key = np.asarray(keys.indices, np.int64)
    first, last = np.full(len(keys.dictionary), len(data_sets)), np.full(len(keys.dictionary), -1)
    np.minimum.at(first, key, owner)
    np.maximum.at(last, key, owner)
    return bool((first < last).any())


def inputs_digest(videos: pa.Table) -> str:
    """Return the digest of what a split depends on. Neither the order of videos nor that of their keys counts."""
    return batches_digest(_input_batch(batch) for batch in videos.to_batches(BATCH_ROWS))


def _input_batch(videos: pa.RecordBatch) -> pa.RecordBatch:
    """Return `INPUT_COLUMNS` and all keys of each video, with every list sorted: the order of keys does not count."""
    columns = {name: videos.column(name) for name in INPUT_COLUMNS if name not in KEY_COLUMNS}
    lists = {name: _pairs(videos.column(name)) for name in KEY_COLUMNS}
    for name, (owner, keys) in lists.items():
        columns[name] = _sorted_lists(owner, keys, videos.num_rows, once=False)
    every = [_pairs(videos.column(name)) for name in key_columns(videos)]
    owners, parts = zip(*every, strict=True)
    columns["keys"] = _sorted_lists(np.concatenate(owners), pa.concat_arrays(parts), videos.num_rows, once=True)
    return pa.RecordBatch.from_pydict(columns)


def _pairs(column: pa.Array) -> tuple[Ints, pa.Array]:
    lists = column.cast(pa.large_list(pa.large_string()))
    return np.asarray(pc.list_parent_indices(lists), np.int64), pc.list_flatten(lists)


def _sorted_lists(owner: Ints, keys: pa.Array, n: int, *, once: bool) -> pa.Array:
    """Return the keys of each of `n` videos, sorted; `once`: without repetitions."""
    encoded = keys.dictionary_encode()
    by_name = np.asarray(pc.sort_indices(encoded.dictionary), np.int64)
    rank = np.empty(len(by_name), dtype=np.int64)
    rank[by_name] = np.arange(len(by_name))
    pairs = owner * max(1, len(by_name)) + rank[np.asarray(encoded.indices, np.int64)]
    pairs = np.unique(pairs) if once else np.sort(pairs)
    video, key = np.divmod(pairs, max(1, len(by_name)))
    offsets = np.searchsorted(video, np.arange(n + 1))
    names = encoded.dictionary.take(pa.array(by_name[key]))
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), names)
