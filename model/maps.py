"""Feature maps on disk: where the encoder is frozen, each clip goes through it once, and an epoch takes seconds.

`maps.npy` is a float16 array (clips, N, C, h, w) in the order of the samples; `maps.json`, written last, says whose
maps they are. Half precision has a step of 1/1000 of a value, and the maps reach some tens.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from lps.manifests.canonical import canonical_json, pretty_json, sha256_hex
from lps.manifests.errors import LpsError, UnreadableError
from lps.model.clips import Batch
from lps.model.plan import EpochPlan, Place, PlanOptions, balanced_order, natural_order, plan_epoch
from lps.model.reader import ClipReader

JSON = "maps.json"
ARRAY = "maps.npy"

Encode = Callable[[Tensor], Tensor]
"""Frames (B, N T, H, W, 3) uint8 on the CPU -> feature maps (B, N, C, h, w)."""


@dataclass(frozen=True, slots=True)
class MapBatch:
    """As `clips.Batch`, with feature maps for frames."""

    step: int
    frames: Tensor
    """float16 (B, N, C, h, w)."""
    labels: Tensor
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of a split."""

    array: NDArray[np.float16]
    labels: NDArray[np.int64]
    keys: tuple[str, ...]


def maps_of(reader: ClipReader, encode: Encode, owner: Mapping[str, Any], folder: Path) -> Maps:
    """Return the maps of all samples that `reader` reads in evaluation, from `folder` if they are there.

    `owner` names what the maps depend on besides the samples: encoder, frames, sizes. Raises UnreadableError where
    there is no room.
    """
    identity = sha256_hex(canonical_json({**owner, "samples": reader.data.digest()}))
    place = folder / identity[:16]
    if not (place / JSON).exists():
        try:
            _fill(reader, encode, place, {"identity": identity, **owner})
        except OSError as e:
            raise UnreadableError(f"cannot write feature maps to {place}: {e.strerror or e}; make room") from e
    facts = json.loads((place / JSON).read_bytes())
    return Maps(np.load(place / ARRAY, mmap_mode="r"), np.array(facts["labels"], np.int64), tuple(facts["keys"]))


def _fill(reader: ClipReader, encode: Encode, place: Path, facts: Mapping[str, Any]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    keys: list[str] = []
    labels: list[int] = []
    temporary = place / f".{ARRAY}"
    array: NDArray[np.float16] | None = None
    batches: Iterable[Batch] = reader.epoch(0)
    for batch in batches:
        z = encode(batch.frames).half().cpu().numpy()
        if not np.isfinite(z).all():
            raise LpsError(f"feature maps of {', '.join(batch.keys)} are not finite; look at the checkpoint of --init")
        if array is None:
            array = open_memmap(temporary, mode="w+", dtype=np.float16, shape=(len(reader.data), *z.shape[1:]))
        array[len(keys) : len(keys) + len(z)] = z
        keys += batch.keys
        labels += batch.labels.tolist()
    if array is None:
        raise LpsError("no sample could be read, so there is no feature map")
    np.memmap.flush(array)  # type: ignore[arg-type]  # open_memmap gives one
    temporary.replace(place / ARRAY)
    record = place / f".{JSON}"
    record.write_bytes(pretty_json({**facts, "keys": keys, "labels": labels}))
    record.replace(place / JSON)


class MapReader:
    """Reads maps in the way that `ClipReader` reads clips: same plan, same state."""

    def __init__(self, maps: Maps, options: PlanOptions, place: Place | None = None) -> None:
        self.maps = maps
        self.options = options
        self.place = place or Place()
        self.n_steps = self.plan(0).n_steps

    def plan(self, epoch: int) -> EpochPlan:
        """Return this rank's plan of an epoch."""
        one_shard = np.zeros(len(self.maps.keys), np.int64)
        if self.options.sampling == "balanced":
            order = balanced_order(one_shard, self.maps.labels, self.options, epoch)
        else:
            order = natural_order(one_shard, self.options, epoch)
        return plan_epoch(order, self.options, self.place)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[MapBatch]:
        """Yield the batches of an epoch from a step on."""
        plan = self.plan(epoch)
        for step in range(start_step, plan.n_steps):
            chosen = plan.samples(step)
            maps = torch.from_numpy(self.maps.array[np.sort(chosen)][np.argsort(np.argsort(chosen))])
            labels = torch.from_numpy(self.maps.labels[chosen])
            yield MapBatch(step, maps, labels, tuple(self.maps.keys[k] for k in chosen))

    def close(self) -> None:
        """Nothing to do; as ClipReader."""
