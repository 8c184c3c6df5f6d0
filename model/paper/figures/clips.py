"""Clips for figures that show data and no detector: labelled ones of the whole data set, a few of each class."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.columns import read_columns
from lps.manifests.storage import open_store
from lps.model.data.clip_data import ClipData, open_data, spread_clips, with_labels


def open_whole(location: str) -> ClipData:
    """Return the labelled clips of all splits, one of each video, sorted as the reader wants them.

    Nothing is learnt or evaluated on them, so a leak between splits does no harm. Raises as `open_data` does.
    """
    found = sorted(pc.unique(read_columns(open_store(location), "clips", ("split",))["split"]).to_pylist())
    parts = [open_data(location, split, allow_leaky=True) for split in found or ["train"]]
    samples = pa.concat_tables([part.samples for part in parts])
    whole = replace(
        parts[0],
        samples=samples.sort_by([("shard", "ascending"), ("offset", "ascending")]),
        identity=replace(parts[0].identity, split=", ".join(found)),
    )
    return spread_clips(with_labels(whole), 1)


def some_of_each(data: ClipData, n_each: int, seed: int) -> ClipData:
    """Return at most `n_each` real and `n_each` fake samples, drawn by `seed` and the samples' keys alone."""
    keys = np.array(data.samples["key"].to_pylist())
    keep = np.zeros(len(data), bool)
    for label in (0, 1):
        mine = np.flatnonzero(data.labels == label)
        mine = mine[np.argsort(keys[mine])]
        keep[np.random.default_rng([seed, label]).permutation(mine)[:n_each]] = True
    return data.select(keep, data.left_out)
