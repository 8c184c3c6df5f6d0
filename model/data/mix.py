"""Several data sets read together: their samples as one list, in which each keeps its name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.arrays import Bools, Ints
from lps.manifests.canonical import canonical_json, sha256_hex
from lps.manifests.errors import RefusedError
from lps.manifests.names import DATA_NAME
from lps.manifests.splits.across import ComparedSet, Comparison, compare_sets
from lps.model.data.clip_data import SAMPLES, ClipData, DataIdentity, DataPart
from lps.model.data.epoch_plan import Mix
from lps.model.data.sample import BadSample
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
        _check_named(self.name, self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedShards:
    """Shards without manifests as one of the data sets of a mix."""

    name: str
    shards: str
    """Pattern of those to train on."""
    val_shards: str | None = None
    """Pattern of those to validate with; None for none."""
    weight: float = 1.0
    """As of `NamedData`."""

    def __post_init__(self) -> None:
        _check_named(self.name, self.weight)


def _check_named(name: str, weight: float) -> None:
    if not DATA_NAME.fullmatch(name):
        raise ValueError(f"a name of a data set has letters, digits, '_' and '-', got '{name}'")
    if not (math.isfinite(weight) and 0 < weight <= MAX_WEIGHT):
        raise ValueError(f"the weight of {name} must be above 0 and at most {MAX_WEIGHT:g}, got {weight}")


def join_data(named: Sequence[NamedData | NamedShards], found: Sequence[ClipData]) -> ClipData:
    """Return the samples of several data sets as one list, in the order given, their shards numbered on.

    Raises RefusedError for one data set under two names.
    """
    parts: list[DataPart] = []
    tables: list[pa.Table] = []
    shards: list[Shard] = []
    faults: list[BadSample] = []
    for each, data in zip(named, found, strict=True):
        parts.append(DataPart(name=each.name, weight=each.weight, first_shard=len(shards), identity=data.identity))
        tables.append(_shifted(data.samples, len(shards)))
        shards += data.shards
        faults += [replace(fault, key=f"{each.name}:{fault.key}") for fault in data.faults]
    _refuse_repeated(parts, shards)
    return ClipData(
        samples=pa.concat_tables(tables),
        shards=tuple(shards),
        identity=_joined_identity(parts),
        faults=tuple(faults),
        parts=tuple(parts),
    )


def _refuse_repeated(parts: Sequence[DataPart], shards: Sequence[Shard]) -> None:
    """Refuse a data set, by the digest of its index, and a shard that come twice: both would count twice."""
    owners: dict[str, str] = {}
    for k, part in enumerate(parts):
        stop = parts[k + 1].first_shard if k + 1 < len(parts) else len(shards)
        index = part.identity.index_sha256
        for thing in [index] if index else [_place(shard) for shard in shards[part.first_shard : stop]]:
            other = owners.setdefault(thing, part.name)
            if other != part.name:
                what = f"index.json has the SHA-256 {index[:12]}…" if index else f"both have the shard {thing}"
                raise RefusedError(
                    f"{other} and {part.name} are one data set ({what}), whose clips would count twice: give it "
                    f"once, with a weight ([mix] {other} = 2.0)"
                )


def _place(shard: Shard) -> str:
    return str(shard.local_path.resolve()) if shard.is_local else shard.shown


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
    return compare_learning([part_data(data, k) for k in range(len(data.parts))], videos)


def compare_learning(learnt: Sequence[ClipData], videos: Sequence[ComparedSet], held: str = "") -> Comparison:
    """Return what the samples of data sets take from what the others hold out: the split `held`, else all not learnt.

    `videos` are those of each data set, in its order.
    """
    sets = []
    for data, each in zip(learnt, videos, strict=True):
        split = each.videos["split"]
        out = pc.equal(split, held) if held else pc.not_equal(split, data.identity.split)
        mine = data.samples["video_id"].combine_chunks()
        sets.append(replace(each, learnt=_mask(pc.is_in(each.videos["video_id"], value_set=mine)), held=_mask(out)))
    return compare_sets(sets)


def shared_ids(train: ClipData, val: ClipData) -> list[str]:
    """Say of how many videos of plain shards that validate the ids are learnt from, a sentence for each two data sets.

    Ids are all that such shards say of their videos, and those of two data sets may be namesakes.
    """
    notes = []
    for one, learnt in _ids(train):
        for two, held in _ids(val):
            n = pc.sum(pc.is_in(held, value_set=learnt)).as_py() or 0
            same = "the same videos" if one == two else "the same videos, or others of that name"
            where = f" of {two}" if two else ""
            of = f" {one}" if one else ""
            if n:
                notes.append(
                    f"{n} of {len(held)} videos of validation{where} have ids that are learnt from{of and ' in' + of}: "
                    f"{same}; shards without manifests say no more"
                )
    return notes


def _ids(data: ClipData) -> list[tuple[str, pa.Array]]:
    """Return the ids of the videos of each data set, with its name."""
    whole = data.samples["video_id"]
    if not data.parts:
        return [("", pc.unique(whole))]
    part_of = data.part_of
    return [(part.name, pc.unique(whole.filter(pa.array(part_of == k)))) for k, part in enumerate(data.parts)]


def _mask(values: pa.ChunkedArray) -> Bools:
    return np.asarray(values.fill_null(False).to_numpy(), np.bool_)  # noqa: FBT003


def mix_of(data: ClipData) -> Mix | None:
    """Return which data set each sample is of, and their weights; None for samples of one alone."""
    return Mix(data.part_of, tuple(part.weight for part in data.parts)) if data.parts else None


def training_mix(data: ClipData, fakes: Ints, blend_share: float) -> Mix | None:
    """Return how often an epoch reads each sample, None where it reads each once.

    Of the `fakes`, the numbers of those that it may read, self-blends are a share of `blend_share`, below 1, in each
    data set that has others; where it has none, there is one of every real clip.
    """
    mix, blends = mix_of(data), data.self_blends
    if not blends.any():
        return None if mix is None else mix.weighted
    part, weights = data.part_of, (1.0,) if mix is None else mix.weights
    is_fake = np.bincount(fakes, minlength=len(data)) > 0
    shares = []
    for k, weight in enumerate(weights):
        n_blends = int((blends & is_fake & (part == k)).sum())
        n_others = int((~blends & is_fake & (part == k)).sum())
        once = not n_others or not n_blends
        shares.append(weight if once else weight * blend_share / (1 - blend_share) * n_others / n_blends)
    return Mix(part + len(weights) * blends, (*weights, *shares)).weighted


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
    """Return the identity of a mix; its `index_sha256` is that of the names and the digests of the indexes.

    Plain shards have no index and no stamp, and so a mix of them has neither.
    """
    found = [part.identity for part in parts]
    indexes = [[part.name, part.identity.index_sha256] for part in parts]
    stamps = {each.leaky for each in found}
    return DataIdentity(
        index_sha256=sha256_hex(canonical_json(indexes)) if all(each.index_sha256 for each in found) else "",
        split_set=", ".join(dict.fromkeys(each.split_set for each in found)),
        split=found[0].split,
        leaky=next((stamp for stamp in (True, None, False) if stamp in stamps), None),
        datasets=tuple(sorted({name for each in found for name in each.datasets})),
    )
