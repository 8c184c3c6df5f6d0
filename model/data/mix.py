"""Several data sets read together: their samples as one list, in which each keeps its name."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.canonical import canonical_json, sha256_hex
from lps.manifests.names import DATA_NAME
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFiles:
    """Source files that are learnt from in one data set of a mix and held out in another."""

    learnt: str
    """Name of the data set that they are learnt from in."""
    held_out: str
    split: str
    """Where they are in the data set `held_out`."""
    n_files: int
    example: str
    """URI of the first of them there."""

    def said(self) -> str:
        """Say so in words."""
        files = "source file is" if self.n_files == 1 else "source files are"
        return (
            f"{self.n_files} {files} learnt from in {self.learnt} and held out in {self.held_out}, in its split "
            f"'{self.split}' (such as {self.example})"
        )

    def record(self) -> dict[str, Any]:
        """Return what results say of it."""
        return {name: value for name, value in asdict(self).items() if name != "example"}


def shared_files(data: ClipData, files: Sequence[pa.Table]) -> tuple[SharedFiles, ...]:
    """Return what the samples `data` of a mix take from the splits that its other data sets hold out.

    `files` has the `video_files` of each data set, in its order. Files are compared by SHA-256: the same film encoded
    anew is not noticed. What else may tell that two videos are one is to be looked for here.
    """
    part_of, digests = data.part_of, data.samples["source_sha256"]
    found = []
    for k, part in enumerate(data.parts):
        learnt = digests.filter(pa.array(part_of == k)).combine_chunks().drop_null()
        for other, table in zip(data.parts, files, strict=True):
            if other is part:
                continue
            held = table.filter(pc.not_equal(table["split"], part.identity.split))
            held = held.filter(pc.is_in(held["sha256"], value_set=learnt))
            for split in sorted(set(held["split"].to_pylist())):
                mine = held.filter(pc.equal(held["split"], split))
                found.append(
                    SharedFiles(
                        learnt=part.name,
                        held_out=other.name,
                        split=split,
                        n_files=pc.count_distinct(mine["sha256"]).as_py(),
                        example=min(mine["uri"].to_pylist()),
                    )
                )
    return tuple(found)


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
