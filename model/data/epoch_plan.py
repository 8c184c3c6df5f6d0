"""The plan of an epoch: which samples each rank reads at each step. A pure function of a few numbers.

All samples form one line: shards in a drawn order, samples of a shard in theirs. The line is shuffled within windows,
so that at any time only the shards of a window are read, and cut into one stretch for each rank. Every sample is in
exactly one stretch, and all ranks take the same number of steps whatever the sizes of the shards.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Ints
from lps.manifests.errors import RefusedError

Sampling = Literal["natural", "balanced", "pairs"]
"""How often a sample is read in an epoch.

* `natural`: each once.
* `balanced`: real and fake take turns. Each sample of the larger class once, those of the smaller one equally often (up
  to one more or less), so that an epoch is twice the larger class.
* `pairs`: each fake once, always next to the real clip that it was made from; no others.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What decides an epoch's order besides the samples themselves."""

    batch_size: int = 16
    """Clips per rank and step."""
    sampling: Sampling = "natural"
    shuffle: bool = True
    """False: in the order of the shards."""
    equal_steps: bool = True
    """All ranks take the same number of steps, none of them empty. Evaluation can do without."""
    seed: int = 0
    window_samples: int = 4096
    """Samples that are shuffled with each other; the shards that hold them must fit into the cache. Sets of fewer are
    shuffled as a whole."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.window_samples < 1:
            raise ValueError(f"sizes must be above 0: {self.batch_size = }, {self.window_samples = }")
        if self.sampling == "pairs" and self.batch_size % 2:
            raise ValueError(f"a batch of pairs has an even size, got {self.batch_size}")


def evaluation_plan(batch_size: int) -> PlanOptions:
    """Return the plan of an evaluation: everything once, in the order of the shards; ranks need not stay in step."""
    return PlanOptions(batch_size=batch_size, shuffle=False, equal_steps=False)


@dataclass(frozen=True, slots=True)
class Rank:
    """Which of how many processes this is."""

    index: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.world_size:
            raise ValueError(f"no rank {self.index} among {self.world_size}")


@dataclass(frozen=True, slots=True)
class Order:
    """Rows of an epoch, over all ranks; a row is never divided. Each array is (rows, samples of a row)."""

    samples: Ints
    """Numbers of the samples."""
    drawn_as: Ints
    """Numbers of the samples whose draws they use: their own, or that of the fake of a pair."""
    copies: Ints
    """How often the sample was in an earlier row of this epoch."""

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """One rank's steps."""

    order: Order
    bounds: Ints
    """(steps + 1): step k reads the rows from bounds[k] to bounds[k + 1]."""

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return len(self.bounds) - 1

    @property
    def n_reads(self) -> int:
        """Samples that this rank reads, repetitions included."""
        return int(self.bounds[-1] - self.bounds[0]) * int(self.order.samples.shape[1])

    def rows(self, step: int) -> slice:
        """Return the rows of a step."""
        return slice(int(self.bounds[step]), int(self.bounds[step + 1]))

    def samples(self, step: int) -> Ints:
        """Return the numbers of a step's samples, in their order within the batch."""
        return self.order.samples[self.rows(step)].ravel()


def plan_epoch(order: Order, options: PlanOptions, rank: Rank) -> EpochPlan:
    """Return the steps of one rank. Raises RefusedError where there are too few samples for every rank to have one."""
    batch_rows = max(1, options.batch_size // order.samples.shape[1])
    if options.equal_steps:
        return EpochPlan(order, equal_bounds(len(order), batch_rows, rank))
    return EpochPlan(order, plain_bounds(len(order), batch_rows, rank))


def equal_bounds(n_rows: int, batch_rows: int, rank: Rank) -> Ints:
    """Cut `n_rows` so that all ranks take equally many steps, none empty, none larger than `batch_rows`.

    Whole batches first; the rest is divided evenly, so that last batches differ by at most one row between ranks. Where
    the rest is too small for that, each rank's last whole batch is spread over two steps. Only batches of one row
    cannot be spread: then some ranks have a last batch of two.
    """
    k, world = rank.index, rank.world_size
    n_full, rest = divmod(n_rows, batch_rows * world)
    if n_rows < world:
        raise RefusedError(
            f"{n_rows} samples or pairs are too few for {world} ranks with batches of {batch_rows}: use fewer processes"
        )
    share = rest // world + (k < rest % world)
    start = k * (n_full * batch_rows + rest // world) + min(k, rest % world)
    sizes = [batch_rows] * n_full
    if rest >= world:
        sizes.append(share)
    elif rest and batch_rows > 1:
        last = sizes.pop() + share
        sizes += [last - last // 2, last // 2]
    elif rest:
        sizes[-1] += share
    return start + np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def plain_bounds(n_rows: int, batch_rows: int, rank: Rank) -> Ints:
    """Cut `n_rows` evenly, each rank's share into batches; ranks may take different numbers of steps, even none."""
    start, stop = (n_rows * k // rank.world_size for k in (rank.index, rank.index + 1))
    return np.append(np.arange(start, stop, batch_rows), stop).astype(np.int64)


def natural_order(shards: Ints, options: PlanOptions, epoch: int) -> Order:
    """Every sample once. `shards` has the shard of every sample; samples are numbered in the order of their shards."""
    samples = _line(shards, np.arange(len(shards)), options, epoch)
    samples = samples[_windows(len(samples), options, epoch, "natural")]
    return _single(samples)


def balanced_order(shards: Ints, labels: Ints, options: PlanOptions, epoch: int) -> Order:
    """Real and fake in turns. `labels` are 0 and 1. Raises RefusedError where one of them is absent."""
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    if not all(len(members) for members in classes):
        raise RefusedError("balanced sampling needs real and fake samples, and there is only one kind of them")
    n = max(len(members) for members in classes)
    sides = []
    for name, members in zip(("real", "fake"), classes, strict=True):
        line = _line(shards, members, options, epoch)
        line = np.repeat(line, _times(len(members), n, options, epoch))
        sides.append(line[_windows(n, options, epoch, name, window=max(1, options.window_samples // 2))])
    return _single(np.stack(sides, axis=1).ravel())


def pair_order(shards: Ints, pairs: Ints, options: PlanOptions, epoch: int) -> Order:
    """Every pair once. `pairs` is (n, 2): a real sample, and a fake made from it. Raises RefusedError for none."""
    if not len(pairs):
        raise RefusedError("there are no pairs of a fake and the real video it was made from; use another sampling")
    place = _shard_places(shards, options, epoch)[shards[pairs[:, 1]]]
    line = pairs[np.lexsort((pairs[:, 1], place))]
    line = line[_windows(len(line), options, epoch, "pairs", window=max(1, options.window_samples // 2))]
    return Order(line, np.repeat(line[:, 1:], 2, axis=1), np.zeros_like(line))


def _single(samples: Ints) -> Order:
    return Order(samples[:, None], samples[:, None], _copies(samples)[:, None])


def _line(shards: Ints, samples: Ints, options: PlanOptions, epoch: int) -> Ints:
    """Return samples in the order of their shards' places, else as numbered."""
    return samples[np.argsort(_shard_places(shards, options, epoch)[shards[samples]], kind="stable")]


def _shard_places(shards: Ints, options: PlanOptions, epoch: int) -> Ints:
    n_shards = int(shards.max(initial=-1)) + 1
    if not options.shuffle:
        return np.arange(n_shards)
    places = np.empty(n_shards, np.int64)
    places[np.argsort(random_keys(options.seed, epoch, "shards", n_shards), kind="stable")] = np.arange(n_shards)
    return places


def _windows(n: int, options: PlanOptions, epoch: int, name: str, *, window: int | None = None) -> Ints:
    """Return a permutation of n places that shuffles them within windows of nearly equal size."""
    if not options.shuffle or n == 0:
        return np.arange(n)
    n_windows = max(1, round(n / (window or options.window_samples)))
    group = np.arange(n) * n_windows // n
    return np.lexsort((random_keys(options.seed, epoch, f"window/{name}", n), group))


def _times(n: int, n_wanted: int, options: PlanOptions, epoch: int) -> Ints:
    """Return how often each of n is taken to make n_wanted: equally often, who is taken once more is drawn."""
    times = np.full(n, n_wanted // n)
    lucky = np.argsort(random_keys(options.seed, epoch, "times", n), kind="stable")[: n_wanted % n]
    times[lucky] += 1
    return times


def _copies(samples: Ints) -> Ints:
    """Return for each place how often its sample occurred before: 3 5 3 3 -> 0 0 1 2."""
    by_sample = np.argsort(samples, kind="stable")
    first = np.flatnonzero(np.diff(samples[by_sample], prepend=-1))
    run_start = np.repeat(first, np.diff(np.append(first, len(samples))))
    copies = np.empty(len(samples), np.int64)
    copies[by_sample] = np.arange(len(samples)) - run_start
    return copies


def random_keys(seed: int, epoch: int, purpose: str, n: int) -> NDArray[np.uint64]:
    """Return n random 64-bit numbers for one purpose; the same on every machine and with every version of NumPy."""
    digest = hashlib.sha256(f"lps-plan/v1\0{seed}\0{epoch}\0{purpose}".encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "big")).random_raw(n)
