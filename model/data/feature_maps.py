"""Feature maps on disk: where the encoder is frozen, each clip goes through it once, and an epoch takes seconds.

`maps.f16` holds the maps of all samples, one after another, (clips, N, C, h, w) in float16 and in this machine's byte
order; `maps.json`, written last, says whose they are. Half precision has a step of 1/1000 of a value, and the maps
reach some tens.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lps.manifests.arrays import Ints
from lps.manifests.canonical import canonical_json, parse_json, pretty_json, sha256_hex
from lps.manifests.environment import write_atomically
from lps.manifests.errors import LpsError, UnreadableError
from lps.model.data.clip_decoder import Batch
from lps.model.data.clip_reader import ClipReader, resume_place
from lps.model.data.epoch_plan import EpochPlan, Mix, PlanOptions, Rank, balanced_order, natural_order, plan_epoch
from lps.model.data.sample import BadSample

JSON, ARRAY = "maps.json", "maps.f16"

Encode = Callable[[Tensor], Tensor]
"""Frames (B, N T, H, W, 3) uint8 on the CPU -> feature maps (B, N, C, h, w)."""


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of a split."""

    array: NDArray[np.float16]
    labels: Ints
    keys: tuple[str, ...]
    identity: str
    bad: tuple[BadSample, ...] = ()
    """Samples that have none, and why."""


def maps_of(
    open_reader: Callable[[], ClipReader], encode: Encode, owner: Mapping[str, Any], folder: Path
) -> tuple[Maps, bool]:
    """Return the maps of all samples that the reader reads, and whether they had to be made.

    `owner` names all that the maps depend on: samples, encoder, frames, sizes; maps of another owner lie elsewhere.
    Raises UnreadableError where there is no room, and as the reader does.
    """
    identity = sha256_hex(canonical_json(owner))
    place = folder / identity[:16]
    found = _load(place, identity)
    if found is not None:
        return found, False
    try:
        _fill(open_reader, encode, place, {"identity": identity, "owner": owner})
    except OSError as e:
        raise UnreadableError(
            f"cannot write feature maps to {place}: {e.strerror or e}; make room and run the same command again"
        ) from e
    made = _load(place, identity)
    if made is None:
        raise UnreadableError(f"feature maps that were just written to {place} are not there; look at the disk")
    return made, True


def _load(place: Path, identity: str) -> Maps | None:
    """Return what is there, None for nothing whole."""
    try:
        facts = parse_json((place / JSON).read_bytes())
        shape = tuple(facts["shape"])
        if facts["identity"] != identity or (place / ARRAY).stat().st_size != 2 * int(np.prod(shape)):
            return None
        array: NDArray[np.float16] = np.memmap(place / ARRAY, np.float16, "r", shape=shape)
        bad = tuple(BadSample(**each) for each in facts["bad"])
        return Maps(array, np.array(facts["labels"], np.int64), tuple(facts["keys"]), identity, bad)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fill(open_reader: Callable[[], ClipReader], encode: Encode, place: Path, facts: Mapping[str, Any]) -> None:
    """Write the maps, then the record. By plain writes: a full disk kills a process that writes to a mapped file."""
    keys: list[str] = []
    labels: list[int] = []
    shape: tuple[int, ...] = ()
    with write_atomically(place / ARRAY) as temporary, temporary.open("wb") as file:
        with open_reader() as reader:
            for batch in reader.epoch(0):
                z = encode(batch.frames).half().cpu().contiguous().numpy()
                if not np.isfinite(z).all():
                    raise LpsError(
                        f"feature maps of {', '.join(batch.keys)} are not finite in half precision; look at the "
                        "checkpoint of --init, or set run.cache_maps = false"
                    )
                file.write(z.tobytes())
                shape = z.shape[1:]
                keys += batch.keys
                labels += batch.labels.tolist()
            bad = [asdict(each) for each in reader.bad_samples]
        if not keys:
            raise LpsError("no sample could be read, so there is no feature map")
    with write_atomically(place / JSON) as temporary:
        record = {**facts, "shape": [len(keys), *shape], "keys": keys, "labels": labels, "bad": bad}
        temporary.write_bytes(pretty_json(record))


class MapReader:
    """Reads maps in the way that `ClipReader` reads clips: same plan, same state."""

    def __init__(self, maps: Maps, options: PlanOptions, rank: Rank | None = None, mix: Mix | None = None) -> None:
        self.maps = maps
        self.mix = mix
        self.options = options
        self.rank = rank or Rank()
        self.n_steps = self.plan(0).n_steps

    @property
    def n_samples(self) -> int:
        """As `ClipReader.n_samples`."""
        return len(self.maps.keys)

    @property
    def bad_samples(self) -> list[BadSample]:
        """Samples without maps."""
        return list(self.maps.bad)

    def plan(self, epoch: int) -> EpochPlan:
        """Return this rank's plan of an epoch."""
        one_shard = np.zeros(len(self.maps.keys), np.int64)
        mix = self.mix.weighted if self.mix is not None and self.options.shuffle else None
        if self.options.sampling == "balanced":
            order = balanced_order(one_shard, self.maps.labels, self.options, epoch, mix)
        else:
            order = natural_order(one_shard, self.options, epoch, mix)
        return plan_epoch(order, self.options, self.rank, None if self.mix is None else self.mix.sizes)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from a step on: `frames` are maps, float16 (B, N, C, h, w)."""
        plan = self.plan(epoch)
        for step in range(start_step, plan.n_steps):
            chosen = plan.samples(step)
            maps = torch.from_numpy(np.stack([self.maps.array[k] for k in chosen]))
            labels = torch.from_numpy(self.maps.labels[chosen])
            yield Batch(step, maps, labels, tuple(self.maps.keys[k] for k in chosen))

    def state(self, epoch: int, step: int) -> dict[str, Any]:
        """As `ClipReader.state`."""
        shape = {"n_steps": self.n_steps, "world_size": self.rank.world_size}
        return {"epoch": epoch, "step": step, **shape, "plan": self._facts()}

    def resume(self, state: Mapping[str, Any]) -> tuple[int, int]:
        """As `ClipReader.resume`. Raises RefusedError."""
        return resume_place(state, self._facts(), self.n_steps)

    def _facts(self) -> dict[str, Any]:
        weights = {} if self.mix is None else {"weights": list(self.mix.weights)}
        return {**asdict(self.options), **weights, "maps": self.maps.identity}
