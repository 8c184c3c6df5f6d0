"""The plan of an epoch: which samples each rank reads at each step. A pure function of a few numbers.

All samples form one line: shards in a drawn order, samples of a shard in theirs. The line is shuffled within windows,
so that at any time only the shards of a window are read, and cut into the batches of the steps. Line and batches follow
from seed and epoch alone; only then is every batch dealt to the ranks. So the steps done so far have read the same
samples however many ranks there were, and any other number of ranks can go on from there.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Ints
from lps.manifests.errors import RefusedError

Sampling = Literal["natural", "balanced", "pairs", "shared_pairs"]
"""How often a sample is read in an epoch.

* `natural`: each once.
* `balanced`: real and fake take turns. Each sample of the larger class once, those of the smaller one equally often (up
  to one more or less), so that an epoch is twice the larger class.
* `pairs`: each fake once, always next to a clip of the real video that it was made from; no others.
* `shared_pairs`: of these pairs those whose clips show the same frames.
"""
IN_PAIRS: tuple[Sampling, ...] = ("pairs", "shared_pairs")
"""Samplings whose rows are pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What decides an epoch's order besides the samples themselves."""

    batch_size: int = 16
    """Clips per step, over all ranks."""
    sampling: Sampling = "natural"
    shuffle: bool = True
    """False: in the order of the shards."""
    equal_steps: bool = True
    """All ranks take the same number of steps, none of them empty. Evaluation can do without."""
    seed: int = 0
    window_samples: int = 4096
    """Samples that are shuffled with each other; the shards that hold them must fit into the cache. Sets of fewer are
    shuffled as a whole."""
    self_blend_share: float = 0.5
    """Share of the fakes that are self-blends, where the samples have both."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.window_samples < 1:
            raise ValueError(f"sizes must be above 0: {self.batch_size = }, {self.window_samples = }")
        if not 0 < self.self_blend_share <= 1:
            raise ValueError(f"{self.self_blend_share = } is not above 0 and at most 1")
        if self.in_pairs and self.batch_size % 2:
            raise ValueError(f"a batch of pairs has an even size, got {self.batch_size}")

    @property
    def in_pairs(self) -> bool:
        """Whether a row is a pair."""
        return self.sampling in IN_PAIRS


def evaluation_plan(batch_size: int) -> PlanOptions:
    """Return the plan of an evaluation: everything once, in the order of the shards; ranks need not stay in step."""
    return PlanOptions(batch_size=batch_size, shuffle=False, equal_steps=False)


@dataclass(frozen=True, slots=True)
class Mix:
    """Data sets that are read together."""

    part: Ints
    """Number of the data set of every sample, from 0; the samples of one follow one another."""
    weights: tuple[float, ...]
    """How often each sample of a data set is read in an epoch of training, on average."""

    @property
    def weighted(self) -> "Mix | None":
        """The mix, None where every sample is read once, as if there were one data set."""
        return None if all(weight == 1 for weight in self.weights) else self

    @property
    def sizes(self) -> Ints:
        """Number of samples of each data set."""
        return np.bincount(self.part, minlength=len(self.weights)).astype(np.int64)

    def reads(self, members: Ints) -> Ints:
        """Return how many of the samples `members` an epoch reads of each data set; of one that has any, 1 at least."""
        counts = np.bincount(self.part[members], minlength=len(self.weights))
        wanted = np.floor(counts * np.array(self.weights) + 0.5).astype(np.int64)
        return np.where(counts > 0, np.maximum(wanted, 1), 0)


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
    spans: Ints
    """(steps, 2): step k reads the rows from spans[k, 0] to spans[k, 1]."""

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return len(self.spans)

    @property
    def n_reads(self) -> int:
        """Samples that this rank reads, repetitions included."""
        return int(np.diff(self.spans).sum()) * int(self.order.samples.shape[1])

    def rows(self, first_step: int, stop_step: int) -> Ints:
        """Return the rows of some steps, in order."""
        spans = self.spans[first_step:stop_step]
        sizes = np.diff(spans)[:, 0]
        return np.repeat(spans[:, 1] - np.cumsum(sizes), sizes) + np.arange(sizes.sum())

    def samples(self, step: int) -> Ints:
        """Return the numbers of a step's samples, in their order within the batch."""
        return self.order.samples[slice(*self.spans[step])].ravel()


def plan_epoch(order: Order, options: PlanOptions, rank: Rank, sizes: Ints | None = None) -> EpochPlan:
    """Return the steps of one rank. Raises RefusedError where a batch cannot be shared by the ranks.

    `sizes` are the rows of each data set of a mix that is evaluated, in their order: no batch holds rows of two.
    """
    batch_rows = max(1, options.batch_size // order.samples.shape[1])
    if batch_rows % rank.world_size:
        whole = " without dividing pairs" if options.in_pairs else ""
        raise RefusedError(
            f"a batch of {options.batch_size} cannot be shared by {rank.world_size} processes{whole}; change "
            "train.batch_size or the number of processes"
        )
    if options.equal_steps:
        return EpochPlan(order, dealt_spans(step_bounds(len(order), batch_rows, rank.world_size), rank))
    rows = np.array([len(order)]) if sizes is None else sizes
    spans = [
        first + stretch_spans(int(n), batch_rows // rank.world_size, rank)
        for first, n in zip(np.cumsum(rows) - rows, rows, strict=True)
    ]
    return EpochPlan(order, np.concatenate(spans))


def step_bounds(n_rows: int, batch_rows: int, n_ranks: int) -> Ints:
    """Cut `n_rows` into the batches of an epoch: step k has the rows from bounds[k] to bounds[k + 1].

    Whole batches first, then the rest. A rest of less than half a batch is put together with the batch before, and both
    are cut in half: then every number of ranks that has two rows of a whole batch has one at least of the last. Where
    a rank has one row of a whole batch, the rest goes into the last one. Raises RefusedError where there are fewer rows
    than ranks.
    """
    if n_rows < n_ranks:
        raise RefusedError(f"{n_rows} samples or pairs are too few for {n_ranks} processes: use fewer processes")
    n_full, rest = divmod(n_rows, batch_rows)
    sizes = [batch_rows] * n_full
    if rest and n_full and n_ranks == batch_rows:
        sizes[-1] += rest
    elif n_full and 0 < 2 * rest < batch_rows:
        last = sizes.pop() + rest
        sizes += [last - last // 2, last // 2]
    elif rest:
        sizes.append(rest)
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def dealt_spans(bounds: Ints, rank: Rank) -> Ints:
    """Return one rank's share of every step: (steps, 2). Shares of a step differ by one row at most.

    Ranks take turns at the places of a batch: where real and fake alternate, none of them sees one class only.
    """
    first, sizes = bounds[:-1], np.diff(bounds)
    place = (rank.index + np.arange(len(sizes))) % rank.world_size
    cuts = [sizes * p // rank.world_size for p in (place, place + 1)]
    return np.stack([first + cut for cut in cuts], axis=1)


def stretch_spans(n_rows: int, batch_rows: int, rank: Rank) -> Ints:
    """Cut `n_rows` evenly, each rank's share into batches; ranks may take different numbers of steps, even none."""
    start, stop = (n_rows * k // rank.world_size for k in (rank.index, rank.index + 1))
    firsts = np.arange(start, stop, batch_rows)
    return np.stack([firsts, np.minimum(firsts + batch_rows, stop)], axis=1).astype(np.int64)


def natural_order(shards: Ints, options: PlanOptions, epoch: int, mix: Mix | None = None) -> Order:
    """Every sample once, or as the weights of a `mix` have it.

    `shards` has the shard of every sample; samples are numbered in the order of their shards.
    """
    samples = _line(shards, np.arange(len(shards)), options, epoch)
    if mix is not None:
        samples = np.repeat(samples, _mixed_times(samples, mix.reads(samples), mix, options, epoch))
    samples = samples[_windows(len(samples), options, epoch, "natural")]
    return _single(samples)


def balanced_order(shards: Ints, labels: Ints, options: PlanOptions, epoch: int, mix: Mix | None = None) -> Order:
    """Real and fake in turns, within each class as the weights of a `mix` have it. `labels` are 0 and 1.

    Raises RefusedError where one of them is absent.
    """
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    if not all(len(members) for members in classes):
        raise RefusedError("balanced sampling needs real and fake samples, and there is only one kind of them")
    n = max(len(members) if mix is None else int(mix.reads(members).sum()) for members in classes)
    sides = []
    for name, members in zip(("real", "fake"), classes, strict=True):
        line = _line(shards, members, options, epoch)
        if mix is None:
            times = _times(len(members), n, options, epoch)
        else:
            times = _mixed_times(line, _apportioned(mix.reads(members), n), mix, options, epoch)
        line = np.repeat(line, times)
        sides.append(line[_windows(n, options, epoch, name, window=max(1, options.window_samples // 2))])
    return _single(np.stack(sides, axis=1).ravel())


def pair_order(shards: Ints, pairs: Ints, options: PlanOptions, epoch: int, mix: Mix | None = None) -> Order:
    """Every pair once, or as the weights of a `mix` have it. `pairs` is (n, 2): a real sample, and a fake made from it.

    Raises RefusedError for none.
    """
    if not len(pairs):
        raise RefusedError("there are no pairs of a fake and the real video it was made from; use another sampling")
    place = _shard_places(shards, options, epoch)[shards[pairs[:, 1]]]
    line = pairs[np.lexsort((pairs[:, 1], place))]
    if mix is not None:
        line = np.repeat(line, _mixed_times(line[:, 1], mix.reads(line[:, 1]), mix, options, epoch), axis=0)
    line = line[_windows(len(line), options, epoch, "pairs", window=max(1, options.window_samples // 2))]
    return Order(line, np.repeat(line[:, 1:], 2, axis=1), np.repeat(_copies(line[:, 1])[:, None], 2, axis=1))


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


def _times(n: int, n_wanted: int, options: PlanOptions, epoch: int, purpose: str = "times") -> Ints:
    """Return how often each of n is taken to make n_wanted: equally often, who is taken once more is drawn."""
    times = np.full(n, n_wanted // n)
    lucky = np.argsort(random_keys(options.seed, epoch, purpose, n), kind="stable")[: n_wanted % n]
    times[lucky] += 1
    return times


def _mixed_times(samples: Ints, wanted: Ints, mix: Mix, options: PlanOptions, epoch: int) -> Ints:
    """Return how often each of some samples is taken to make `wanted` of each data set."""
    part = mix.part[samples]
    times = np.zeros(len(samples), np.int64)
    for k in np.unique(part).tolist():
        mine = part == k
        times[mine] = _times(int(mine.sum()), int(wanted[k]), options, epoch, f"times/{k}")
    return times


def _apportioned(shares: Ints, n: int) -> Ints:
    """Divide n in proportion to whole numbers: what is left over goes to the largest remainders, the first of equal."""
    total = int(shares.sum())
    whole, rest = np.divmod(shares * n, total)
    whole[np.argsort(-rest, kind="stable")[: n - int(whole.sum())]] += 1
    return np.asarray(whole, np.int64)


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
