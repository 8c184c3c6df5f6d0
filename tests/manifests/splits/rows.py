"""Splits of records through the table that they are, and what of a split the tests look at."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from lps.manifests.canonical import digest16
from lps.manifests.names import SPLITS
from lps.manifests.splits.inputs import Aliases, SplitInput, inputs_table
from lps.manifests.splits.leakage import Crossing, Leak, crossing_groups, measure_leakage
from lps.manifests.splits.records import SplitParams, SplitRow, rows_from_table
from lps.manifests.splits.table import split_table

Base = Sequence[SplitRow] | None


def video(name: str, *keys: str, **other: object) -> SplitInput:
    """Return a fake of this name with these keys."""
    fields = {"label": 1, "dataset": "toy", "keys": keys, **other}
    return SplitInput(video_id=digest16("toy", name), **fields)  # type: ignore[arg-type]


def split(videos: Sequence[SplitInput], params: SplitParams, base: Base = None) -> list[SplitRow]:
    """Return the rows of a split."""
    return rows_from_table(split_table(inputs_table(videos), params, base)[0])


def record(videos: Sequence[SplitInput], params: SplitParams, base: Base = None) -> dict[str, Any]:
    """Return the rule record of a split."""
    return split_table(inputs_table(videos), params, base)[1]


def codes(videos: Sequence[SplitInput], rows: Sequence[SplitRow]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return the number of the split of each video, -1 where it has none."""
    number = {row.video_id: SPLITS.index(row.split) for row in rows if row.split is not None}
    return np.array([number.get(video.video_id, -1) for video in videos], np.int64)


def crossing(videos: Sequence[SplitInput], rows: Sequence[SplitRow], aliases: Aliases = ()) -> list[Crossing]:
    """Return the groups that lie in more than one split."""
    return crossing_groups(inputs_table(videos), codes(videos, rows), aliases)


def leaks_of(videos: Sequence[SplitInput], rows: Sequence[SplitRow], aliases: Aliases = ()) -> list[Leak]:
    """Measure every kind of overlap."""
    return measure_leakage(inputs_table(videos), codes(videos, rows), aliases=aliases)


def where(rows: Sequence[SplitRow]) -> dict[bytes, str | None]:
    """Return the split of each video."""
    return {row.video_id: row.split for row in rows}


def count(rows: Sequence[SplitRow]) -> tuple[int, ...]:
    """Return the numbers of train, val and test videos."""
    splits = Counter(row.split for row in rows)
    return tuple(splits[name] for name in SPLITS)
