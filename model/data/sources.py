"""Which samples a run reads: a split of a data set, a fold of it, one of several data sets, or plain shards."""

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow.compute as pc

from lps.manifests.arrays import Ints
from lps.manifests.certificates.record import Certificate, certificate_for, fitting_certificate
from lps.manifests.columns import read_columns, split_path
from lps.manifests.errors import LpsError, RefusedError
from lps.manifests.index import read_plan
from lps.manifests.storage import open_store
from lps.model.data.clip_data import ClipData, open_data
from lps.model.data.mix import NamedData, NamedShards, join_data, part_data
from lps.model.data.shard_cache import user_cache
from lps.model.data.shard_index import open_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Which samples to train on and to validate with."""

    data: str | None = None
    """Folder or URL of a data set."""
    sets: tuple[NamedData, ...] | tuple[NamedShards, ...] = ()
    """Instead of `data` and `shards`: several, or one with a name. They are read in the order of their names."""
    split: str = "train"
    val_split: str | None = "val"
    """None trains without validation."""
    split_set: str | None = None
    """Default: the one that the shards were made for."""
    shards: str | None = None
    """Instead of `data`: a pattern of shards, without manifests."""
    val_shards: str | None = None
    allow_leaky: bool = False
    require_certificate: bool = False
    """Refuse data without a certificate that fits them (`lps-audit certify`)."""
    fold: tuple[int, int] | None = None
    """(k, n) for cross-validation: of the n parts into which the groups of `split` fall, part k is held out from
    training and validated with. Nobody is in two groups."""

    def __post_init__(self) -> None:
        if [self.data is None, self.shards is None, not self.sets].count(False) != 1:
            raise ValueError("name either a data set (--data) or shards (--shards)")
        if len({each.name for each in self.sets}) < len(self.sets):
            raise ValueError("two data sets have the same name")

    @property
    def ordered(self) -> tuple[NamedData | NamedShards, ...]:
        """`sets` in the order in which they are read."""
        return tuple(sorted(self.sets, key=lambda each: each.name))

    @property
    def ordered_data(self) -> tuple[NamedData, ...]:
        """Those of `ordered` that have manifests: all or none."""
        return tuple(each for each in self.ordered if isinstance(each, NamedData))

    @property
    def ordered_shards(self) -> tuple[NamedShards, ...]:
        """Those of `ordered` that are plain shards: all or none."""
        return tuple(each for each in self.ordered if isinstance(each, NamedShards))

    @property
    def plain(self) -> bool:
        """True where shards without manifests are read."""
        return self.shards is not None or bool(self.ordered_shards)

    @property
    def places(self) -> list[str]:
        """Folders and URLs of the data sets."""
        named = [each.data for each in self.ordered if isinstance(each, NamedData)]
        return named if self.data is None else [self.data]

    @property
    def shown(self) -> str:
        """What is read, for messages."""
        if self.shards is not None:
            return self.shards
        if self.ordered_shards:
            return f"the shards of {', '.join(each.name for each in self.ordered)}"
        return f"split '{self.split}' of {self.data or ', '.join(each.name for each in self.ordered)}"

    def record(self) -> dict[str, Any]:
        """Return what decides which samples are read."""
        record = asdict(self)
        del record["sets"], record["require_certificate"]  # it decides whether they are read, not which
        return {**record, "sets": [asdict(each) for each in self.ordered]} if self.sets else record


def open_split(sources: Sources, split: str, *, held_out: bool = False) -> ClipData:
    """Return the samples of a split, or of its part that is `held_out`. Raises as `open_data` and `open_shards` do."""
    if sources.plain and sources.require_certificate:
        raise RefusedError("shards without manifests have no certificate, which --require-certificate asks for")
    if sources.data is not None:
        data = _open_certified(sources, sources.data, split)
        if sources.fold is None:
            return data
        k, n = sources.fold
        return data.select((groups_of(sources, data) % n == k) == held_out, data.left_out)
    if sources.sets:
        assert sources.fold is None  # `check` takes one data set
        return join_data(sources.ordered, [_open_part(sources, each, split) for each in sources.ordered])
    assert sources.shards is not None  # Sources has one or the other
    return open_shards(sources.shards, user_cache())


def _open_part(sources: Sources, each: NamedData | NamedShards, split: str) -> ClipData:
    if isinstance(each, NamedShards):
        return open_shards(each.shards, user_cache())
    try:
        return _open_certified(sources, each.data, split)
    except LpsError as e:
        raise type(e)(f"{each.name}: {e}") from e


def _open_certified(sources: Sources, location: str, split: str) -> ClipData:
    """Return the samples of a data set's split, with the certificate that fits index and split set in their identity.

    Raises as `open_data`, and as `certificate_for` where one is required.
    """
    data = open_data(location, split, split_set=sources.split_set, allow_leaky=sources.allow_leaky)
    store, index, name = open_store(location), data.identity.index_sha256, data.identity.split_set
    if sources.require_certificate:
        found: Certificate | None = certificate_for(store, index, name, datetime.now(UTC).date())
    else:
        found = fitting_certificate(store, index, name)
    return data if found is None else replace(data, identity=replace(data.identity, certificate_sha256=found.sha256))


def open_val_shards(sources: Sources) -> ClipData | None:
    """Return the samples of plain shards to validate with, None for none. Raises as `open_shards` does."""
    if sources.shards is not None:
        return open_shards(sources.val_shards, user_cache()) if sources.val_shards else None
    chosen = [(each, each.val_shards) for each in sources.ordered_shards if each.val_shards]
    if not chosen:
        return None
    return join_data([each for each, _ in chosen], [open_shards(pattern, user_cache()) for _, pattern in chosen])


def groups_of(sources: Sources, data: ClipData) -> Ints:
    """Return the number of every sample's group: samples that share people or recordings have one number.

    Groups are those of the split set, numbered in order of their size and id, so that parts `number % n` are even.
    """
    assert sources.data is not None  # plain shards know no groups
    rows = read_columns(
        open_store(sources.data), "splits", ("video_id", "group_id"), path=split_path(data.identity.split_set)
    )
    place = pc.index_in(data.samples["video_id"], value_set=rows["video_id"].combine_chunks())
    group = rows["group_id"].take(place).to_pylist()
    counts = Counter(group)
    number = {g: k for k, g in enumerate(sorted(counts, key=lambda g: (-counts[g], g)))}
    return np.array([number[g] for g in group], np.int64)


def data_identity(sources: Sources, data: ClipData) -> dict[str, Any]:
    """Return what checkpoints and results say about the data, with how its clips were prepared where that is known.

    Of a mix, `sets` says it of each data set.
    """
    identity = data.identity.as_json()
    if sources.shards is not None:
        return {**identity, "shards": sources.shards}
    if sources.data is not None:
        return {**identity, "prep": _preparation(sources.data)}
    sets = [
        {
            "name": each.name,
            "weight": each.weight,
            **data.parts[k].identity.as_json(),
            "samples_sha256": samples_sha256(part_data(data, k)),
            **({"prep": _preparation(each.data)} if isinstance(each, NamedData) else {"shards": each.shards}),
        }
        for k, each in enumerate(sources.ordered)
    ]
    return {**identity, "prep": None, "sets": sets}


def _preparation(location: str) -> dict[str, Any] | None:
    plan = read_plan(open_store(location))
    return plan.values.get("params") if plan else None


def samples_sha256(data: ClipData) -> str:
    """Return the SHA-256, in hex, of what is read: the samples, their places, and the shards as far as known."""
    digest = hashlib.sha256(data.digest().encode())
    for part in data.parts:
        digest.update(f"{part.name}\t{part.first_shard}\n".encode())
    for name in ("offset", "n_bytes"):
        digest.update(data.column(name).astype("<i8").tobytes())
    for number in np.unique(data.column("shard")):
        shard = data.shards[number]
        digest.update(f"{shard.sha256}\t{shard.mark}\n".encode())
    return digest.hexdigest()
