"""Several data sets read together: their samples as one list, in which each keeps its name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.arrays import Bools
from lps.manifests.canonical import canonical_json, sha256_hex
from lps.manifests.names import DATA_NAME
from lps.manifests.splits.across import ComparedSet, Comparison, compare_sets
from lps.model.data.clip_data import SAMPLES, ClipData, DataIdentity, DataPart
from lps.model.data.epoch_plan import Mix
from lps.model.data.shards import Shard

MAX_WEIGHT = 1000.0
"""More is a mistake: each clip comes so often in every epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedData:
    """One of the data sets of a mix, as it was asked for."""

    name: str
    data: str
    """Folder or URL."""
    weight: float = 1.0
    """How often each of its clips is read in an epoch: 2 twice, 0.5 half of them, drawn anew for each epoch."""

    def __post_init__(self) -> None:
        if not DATA_NAME.fullmatch(self.name):
            raise ValueError(f"a name of a data set has letters, digits, '_' and '-', got '{self.name}'")
        if not (math.isfinite(self.weight) and 0 < self.weight <= MAX_WEIGHT):
            raise ValueError(f"the weight of {self.name} must be above 0 and at most {MAX_WEIGHT:g}, got {self.weight}")


def join_data(named: Sequence[NamedData], found: Sequence[ClipData]) -> ClipData:
    """Return the samples of several data sets as one list, in the order given, their shards numbered on."""
    parts: list[DataPart] = []
    tables: list[pa.Table] = []
    shards: list[Shard] = []
    for each, data in zip(named, found, strict=True):
        parts.append(DataPart(name=each.name, weight=each.weight, first_shard=len(shards), identity=data.identity))
        tables.append(_shifted(data.samples, len(shards)))
        shards += data.shards
    return ClipData(
        samples=pa.concat_tables(tables), shards=tuple(shards), identity=_joined_identity(parts), parts=tuple(parts)
    )


def part_data(data: ClipData, number: int) -> ClipData:
    """Return the samples of one data set of a mix, as they are without the others."""
    part = data.parts[number]
    stop = data.parts[number + 1].first_shard if number + 1 < len(data.parts) else len(data.shards)
    mine = data.samples.filter(pa.array(data.part_of == number))
    return replace(
        data,
        samples=_shifted(mine, -part.first_shard),
        shards=data.shards[part.first_shard : stop],
        identity=part.identity,
        parts=(),
    )


def compare_mix(data: ClipData, videos: Sequence[ComparedSet]) -> Comparison:
    """Return what the samples `data` of a mix take from the splits that its other data sets hold out.

    `videos` are those of each data set, in its order.
    """
    sets = []
    for k, (part, each) in enumerate(zip(data.parts, videos, strict=True)):
        mine = data.samples["video_id"].filter(pa.array(data.part_of == k)).combine_chunks()
        sets.append(
            replace(
                each,
                learnt=_mask(pc.is_in(each.videos["video_id"], value_set=mine)),
                held=_mask(pc.not_equal(each.videos["split"], part.identity.split)),
            )
        )
    return compare_sets(sets)


def _mask(values: pa.ChunkedArray) -> Bools:
    return np.asarray(values.fill_null(False).to_numpy(), np.bool_)  # noqa: FBT003


def mix_of(data: ClipData) -> Mix | None:
    """Return which data set each sample is of, and their weights; None for samples of one alone."""
    return Mix(data.part_of, tuple(part.weight for part in data.parts)) if data.parts else None


def mix_of_names(names: Sequence[str], data: ClipData) -> Mix | None:
    """Return the same for some samples of `data` by their names."""
    number = {part.name: k for k, part in enumerate(data.parts)}
    if not number:
        return None
    found = np.array([number[part_name(name)] for name in names], np.int64)
    return Mix(found, tuple(part.weight for part in data.parts))


def part_name(name: str) -> str:
    """Return the name of the data set that the name of a sample begins with."""
    return name.partition(":")[0]


def _shifted(samples: pa.Table, by: int) -> pa.Table:
    """Return samples with the numbers of their shards raised."""
    numbers = pa.array(np.asarray(samples["shard"].to_numpy(), np.int32) + np.int32(by), pa.int32())
    return samples.set_column(SAMPLES.get_field_index("shard"), SAMPLES.field("shard"), numbers)


def _joined_identity(parts: Sequence[DataPart]) -> DataIdentity:
    """Return the identity of a mix; its `index_sha256` is that of the names and the digests of the indexes."""
    found = [part.identity for part in parts]
    indexes = [[part.name, part.identity.index_sha256] for part in parts]
    return DataIdentity(
        index_sha256=sha256_hex(canonical_json(indexes)),
        split_set=", ".join(dict.fromkeys(each.split_set for each in found)),
        split=found[0].split,
        leaky=any(each.leaky for each in found),
        datasets=tuple(sorted({name for each in found for name in each.datasets})),
    )
