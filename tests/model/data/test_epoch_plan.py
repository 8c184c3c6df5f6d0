"""The plan of an epoch: everything exactly once, equal steps, nothing that depends on anything else."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lps.manifests.arrays import Ints
from lps.manifests.errors import RefusedError
from lps.model.data.epoch_plan import (
    EpochPlan,
    Order,
    PlanOptions,
    Rank,
    Sampling,
    balanced_order,
    evaluation_plan,
    natural_order,
    pair_order,
    plan_epoch,
)


def shards_of(*sizes: int) -> Ints:
    """Return the shard of each sample, for shards of these sizes."""
    return np.repeat(np.arange(len(sizes)), sizes)


def plans(order: Order, options: PlanOptions, world: int) -> list[EpochPlan]:
    """Return the plans of all ranks."""
    return [plan_epoch(order, options, Rank(rank, world)) for rank in range(world)]


def reads(ranks: list[EpochPlan]) -> list[list[list[int]]]:
    """Return the samples of each rank and step."""
    return [[plan.samples(step).tolist() for step in range(plan.n_steps)] for plan in ranks]


@settings(max_examples=300)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    world=st.integers(1, 5),
    share=st.integers(1, 5),
    window=st.integers(1, 60),
    epoch=st.integers(0, 3),
)
def test_every_sample_is_read_once_and_ranks_stay_in_step(
    sizes: list[int], world: int, share: int, window: int, epoch: int
) -> None:
    options = PlanOptions(batch_size=share * world, window_samples=window, seed=7)
    shards = shards_of(*sizes)
    n = len(shards)
    order = natural_order(shards, options, epoch)
    assert sorted(order.samples.ravel().tolist()) == list(range(n))
    if n < world:
        with pytest.raises(RefusedError, match="too few"):
            plans(order, options, world)
        return
    found = reads(plans(order, options, world))
    times = Counter(sample for rank in found for step in rank for sample in step)
    assert max(times.values()) == 1
    assert len(times) == n
    assert len({len(rank) for rank in found}) == 1
    for steps in zip(*found, strict=True):
        widths = [len(step) for step in steps]
        assert 1 <= min(widths) <= max(widths) <= min(widths) + 1
        assert max(widths) <= share or share == 1


@settings(max_examples=200)
@given(n=st.integers(4, 80), sampling=st.sampled_from(["natural", "balanced", "pairs"]), epoch=st.integers(0, 2))
def test_steps_read_the_same_samples_whatever_the_number_of_ranks(n: int, sampling: Sampling, epoch: int) -> None:
    """So a run goes on with another number of them. Where ranks have one row each, the last step is cut otherwise."""
    options = PlanOptions(batch_size=12, sampling=sampling, seed=n)
    if sampling == "pairs":
        order = pair_order(np.arange(2 * n) // 5, np.arange(2 * n).reshape(-1, 2), options, epoch)
    elif sampling == "balanced":
        order = balanced_order(np.arange(n) // 7, np.arange(n) % 3 % 2, options, epoch)
    else:
        order = natural_order(shards_of(n // 2, n - n // 2), options, epoch)
    rows = len(order)
    batch_rows = 6 if sampling == "pairs" else 12
    alone = [sorted(step) for step in reads(plans(order, options, 1))[0]]
    for world in (2, 3, 4, 6, 12):
        if batch_rows % world or rows < world:
            continue
        together = [sorted(sum(parts, [])) for parts in zip(*reads(plans(order, options, world)), strict=True)]
        cut_otherwise = world == batch_rows and rows >= batch_rows and bool(rows % batch_rows)
        same = rows // batch_rows - 1 if cut_otherwise else len(alone)
        assert together[:same] == alone[:same]
        assert len(together) == len(alone) - cut_otherwise


def test_ranks_of_one_clip_see_both_classes() -> None:
    options = PlanOptions(batch_size=4, sampling="balanced")
    labels = np.arange(40) % 2
    for rank in plans(balanced_order(shards_of(40), labels, options, 0), options, 4):
        assert {int(labels[k]) for step in range(rank.n_steps) for k in rank.samples(step)} == {0, 1}


@pytest.mark.parametrize(("sampling", "world"), [("natural", 3), ("pairs", 4)])
def test_batches_that_ranks_cannot_share_are_refused(sampling: Sampling, world: int) -> None:
    options = PlanOptions(batch_size=4, sampling=sampling)
    order = natural_order(shards_of(9), options, 0)
    if sampling == "pairs":
        order = pair_order(shards_of(18), np.arange(18).reshape(-1, 2), options, 0)
    with pytest.raises(RefusedError, match=f"a batch of 4 cannot be shared by {world} processes"):
        plan_epoch(order, options, Rank(0, world))


@settings(max_examples=100)
@given(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=5), world=st.integers(1, 6), share=st.integers(1, 5))
def test_evaluation_reads_everything_once_in_the_order_of_the_shards(sizes: list[int], world: int, share: int) -> None:
    options = evaluation_plan(share * world)
    found = reads(plans(natural_order(shards_of(*sizes), options, 0), options, world))
    assert [sample for rank in found for step in rank for sample in step] == list(range(sum(sizes)))
    assert all(1 <= len(step) <= share for rank in found for step in rank)


@settings(max_examples=100)
@given(
    labels=st.lists(st.integers(0, 1), min_size=2, max_size=60).filter(lambda v: len(set(v)) == 2),
    batch=st.integers(1, 4),
    window=st.integers(1, 80),
)
def test_balanced_draws_the_larger_class_once_and_the_other_equally_often(
    labels: list[int], batch: int, window: int
) -> None:
    options = PlanOptions(batch_size=2 * batch, sampling="balanced", window_samples=window)
    shards = np.arange(len(labels)) // 7
    order = balanced_order(shards, np.array(labels), options, 1)
    times = Counter(order.samples.ravel().tolist())
    sizes = Counter(labels)
    larger = max(sizes.values())
    for label in (0, 1):
        counts = {times[k] for k, of in enumerate(labels) if of == label}
        assert counts <= {larger // sizes[label], -(-larger // sizes[label])}
    assert len(order) == 2 * larger
    for step in reads(plans(order, options, 1))[0]:
        n_fake = sum(labels[k] for k in step)
        assert abs(2 * n_fake - len(step)) <= 1
    seen = zip(order.samples.ravel().tolist(), order.copies.ravel().tolist(), strict=True)
    assert len(set(seen)) == len(order), "each repetition has a number of its own"


@settings(max_examples=100)
@given(n=st.integers(1, 40), share=st.integers(1, 4), world=st.integers(1, 3))
def test_pairs_stay_together_and_share_their_draws(n: int, share: int, world: int) -> None:
    options = PlanOptions(batch_size=2 * share * world, sampling="pairs", window_samples=8)
    pairs = np.stack([np.arange(n) // 3, n + np.arange(n)], axis=1)
    order = pair_order(np.arange(2 * n) // 5, pairs, options, 0)
    if n < world:
        return
    found = reads(plans(order, options, world))
    together = [tuple(step[k : k + 2]) for rank in found for step in rank for k in range(0, len(step), 2)]
    assert sorted(together) == sorted(map(tuple, pairs.tolist()))
    assert (order.drawn_as == order.samples[:, 1:]).all()


def test_epochs_and_seeds_differ_and_repeat() -> None:
    shards = shards_of(10, 10, 10)
    orders = {
        (seed, epoch): tuple(natural_order(shards, PlanOptions(seed=seed), epoch).samples.ravel())
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    again = natural_order(shards, PlanOptions(seed=1), 1).samples.ravel()
    assert orders[1, 1] == tuple(again)


def test_the_order_is_pinned() -> None:
    """A change of this order silently changes every resumed run; then the name of its version must change."""
    order = natural_order(shards_of(3, 4, 3), PlanOptions(seed=5, window_samples=5), 2)
    assert order.samples.ravel().tolist() == PINNED


PINNED = [8, 9, 3, 7, 4, 2, 0, 1, 5, 6]


def test_a_window_touches_few_shards() -> None:
    shards = shards_of(*[50] * 40)
    order = natural_order(shards, PlanOptions(window_samples=200), 0)
    for start in range(0, 2000, 16):
        assert len(set(shards[order.samples[start : start + 16, 0]])) <= 8, "two windows at most"
    assert len({*shards[order.samples[:200, 0]]}) == 4, "a window is whole shards where sizes allow"


def test_a_small_set_is_shuffled_as_a_whole() -> None:
    shards = shards_of(50, 50)
    half = shards[natural_order(shards, PlanOptions(window_samples=4096), 0).samples[:50, 0]]
    assert 10 < half.sum() < 40


def test_a_small_rest_is_spread_over_two_steps() -> None:
    options = PlanOptions(batch_size=8, shuffle=False)
    found = reads(plans(natural_order(shards_of(17), options, 0), options, 2))
    assert [[len(step) for step in rank] for rank in found] == [[4, 3, 2], [4, 2, 2]]


def test_a_million_samples_can_be_planned() -> None:
    shards = np.arange(1_000_000) // 230
    options = PlanOptions(batch_size=128)
    plan = plan_epoch(natural_order(shards, options, 0), options, Rank(3, 8))
    assert plan.n_steps == 7813
    assert plan.n_reads == 125_000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "above 0"),
        ({"window_samples": 0}, "above 0"),
        ({"sampling": "pairs", "batch_size": 3}, "even"),
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlanOptions(**wrong)  # type: ignore[arg-type]


def test_balanced_needs_both_classes() -> None:
    with pytest.raises(RefusedError, match="real and fake"):
        balanced_order(shards_of(4), np.zeros(4, np.int64), PlanOptions(), 0)


def test_pairs_need_pairs() -> None:
    with pytest.raises(RefusedError, match="no pairs"):
        pair_order(shards_of(4), np.empty((0, 2), np.int64), PlanOptions(sampling="pairs"), 0)
