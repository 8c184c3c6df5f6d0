"""Several data sets read as one: each sample as often as its weight says, equal ids apart, no batch of two sets."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lps.manifests.arrays import Ints
from lps.model.data.clip_data import ClipData, spread_clips
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_reader import ClipReader
from lps.model.data.epoch_plan import (
    Mix,
    PlanOptions,
    Rank,
    balanced_order,
    evaluation_plan,
    natural_order,
    pair_order,
    plan_epoch,
)
from lps.model.data.mix import NamedData, part_data
from lps.model.data.pairs import pair_up
from lps.model.data.shard_cache import ShardCache
from lps.model.data.sources import Sources, open_split, samples_sha256

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec

    Family = Callable[..., list[Spec]]

SHARD_OF = np.repeat(np.arange(6), 10)
"""Two data sets: 4 shards of 10 samples, and 2."""
PART = np.repeat([0, 1], [40, 20])
LABELS = np.arange(60) % 3 // 2
"""A third are fakes."""
PLAN = PlanOptions(batch_size=8, window_samples=16, seed=3)


def mix(*weights: float) -> Mix:
    return Mix(PART, weights)


def counts(samples: Ints) -> Counter[int]:
    return Counter(samples.ravel().tolist())


@pytest.mark.parametrize(
    ("weights", "n"), [((1.0, 2.0), 80), ((0.5, 1.0), 40), ((0.33, 1.25), 13 + 25), ((1e-9, 1), 21)]
)
def test_each_sample_is_read_as_often_as_its_weight_says(weights: tuple[float, float], n: int) -> None:
    orders = [natural_order(SHARD_OF, PLAN, epoch, mix(*weights)) for epoch in range(3)]
    assert [len(order) for order in orders] == [n, n, n], "every epoch has as many steps"
    for order in orders:
        found = counts(order.samples)
        for k, weight in enumerate(weights):
            times = {found[sample] for sample in np.flatnonzero(k == PART).tolist()}
            assert times <= {int(weight), int(weight) + 1}, "none comes twice more often than another of its data set"
        assert sorted(order.copies.ravel().tolist()) == sorted(c for t in found.values() for c in range(t))
    if weights[0] < 1:
        assert len({tuple(sorted(counts(order.samples))) for order in orders}) == 3, "drawn anew in each epoch"
    again = natural_order(SHARD_OF, PLAN, 1, mix(*weights))
    assert np.array_equal(again.samples, orders[1].samples)


def test_without_weights_a_mix_is_read_as_one_data_set() -> None:
    assert mix(1.0, 1.0).weighted is None
    weighted = mix(1.0, 2.0)
    assert weighted.weighted is weighted


def test_classes_in_balance_and_pairs_keep_to_the_weights() -> None:
    order = balanced_order(SHARD_OF, LABELS, PLAN, 0, mix(1.0, 3.0))
    labels = LABELS[order.samples.ravel()]
    assert (labels[::2] == 0).all()
    assert (labels[1::2] == 1).all()
    reals, fakes = (np.flatnonzero(label == LABELS) for label in (0, 1))
    wanted = [(PART[reals] == 0).sum(), 3 * (PART[reals] == 1).sum()]
    assert np.bincount(PART[order.samples[0::2].ravel()]).tolist() == wanted
    found = np.bincount(PART[order.samples[1::2].ravel()])
    ideal = sum(wanted) * np.array([(PART[fakes] == 0).sum(), 3 * (PART[fakes] == 1).sum()])
    assert (np.abs(found - ideal / (ideal.sum() / sum(wanted))) < 1).all()
    pairs = np.stack([np.arange(0, 60, 2), np.arange(1, 60, 2)], axis=1)
    order = pair_order(SHARD_OF, pairs, PLAN, 0, mix(1.0, 2.0))
    assert counts(order.samples) == Counter({k: 1 + int(PART[k]) for k in range(60)})
    assert (order.samples[:, 0] + 1 == order.samples[:, 1]).all()
    assert (order.copies[:, 0] == order.copies[:, 1]).all()
    assert order.copies.sum() == 2 * 10, "a pair that comes again is drawn for anew"


@settings(max_examples=60, deadline=None)
@given(weight=st.floats(0.05, 5), world=st.sampled_from([1, 2, 4]), epoch=st.integers(0, 2))
def test_steps_are_the_same_for_any_number_of_ranks(weight: float, world: int, epoch: int) -> None:
    order = natural_order(SHARD_OF, PLAN, epoch, mix(1.0, weight))
    alone = plan_epoch(order, PLAN, Rank())
    ranks = [plan_epoch(order, PLAN, Rank(k, world)) for k in range(world)]
    for step in range(alone.n_steps):
        together = np.concatenate([plan.samples(step) for plan in ranks])
        assert counts(together) == counts(alone.samples(step))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_never_puts_two_data_sets_into_one_batch(world: int) -> None:
    sizes = np.array([7, 0, 4, 1])
    part = np.repeat(np.arange(4), sizes)
    options = evaluation_plan(3 * world)
    order = natural_order(np.zeros(12, np.int64), options, 0)
    plans = [plan_epoch(order, options, Rank(k, world), sizes) for k in range(world)]
    batches = [plan.samples(step) for plan in plans for step in range(plan.n_steps)]
    assert sorted(np.concatenate(batches).tolist()) == list(range(12))
    assert all(len(np.unique(part[batch])) == 1 for batch in batches)
    if world == 1:
        assert [len(batch) for batch in batches] == [3, 3, 1, 3, 1, 1]


# ---- from the disk ---------------------------------------------------------------------------------------------------


@pytest.fixture
def two(make: "Maker", family: "Family") -> dict[str, Path]:
    """Return two data sets that call different videos by the same ids, the first of two shards."""
    first = make.data_set([family("a", 4), family("b", 3)])
    return {"one": first, "two": make.data_set([family("a", 6, px=40)])}


def opened(two: dict[str, Path], *, reverse: bool = False) -> ClipData:
    sets = tuple(NamedData(name=name, data=str(path)) for name, path in two.items())
    return open_split(Sources(sets=sets[::-1] if reverse else sets), "train")


def test_equal_keys_stay_two_samples_with_the_pictures_of_their_own_data_set(
    two: dict[str, Path], cache: ShardCache
) -> None:
    data = opened(two)
    names = data.names()
    assert len(set(names)) == len(names) == 13
    assert len(set(data.samples["key"].to_pylist())) == 9
    read = ReadOptions(n_frames=8, train=False, image_px=32)
    plan = evaluation_plan(4)

    def pictures(source: ClipData) -> dict[str, torch.Tensor]:
        with ClipReader(source, read, plan, cache=cache) as reader:
            return {k: frames for b in reader.epoch(0) for k, frames in zip(b.keys, b.frames, strict=True)}

    found = pictures(data)
    assert list(found) == names
    for name, path in two.items():
        alone = pictures(open_split(Sources(data=str(path)), "train"))
        for key, frames in alone.items():
            assert torch.equal(found[f"{name}:{key}"], frames)
    shared = set(data.samples["key"].to_pylist()[:4])
    assert all(not torch.equal(found[f"one:{key}"], found[f"two:{key}"]) for key in shared)


def test_the_order_on_the_command_line_is_no_matter(two: dict[str, Path]) -> None:
    data, turned = opened(two), opened(two, reverse=True)
    assert data.names() == turned.names()
    assert samples_sha256(data) == samples_sha256(turned)
    sets = [Sources(sets=tuple(NamedData(name=n, data="x") for n in names)).record() for names in ("ab", "ba")]
    assert sets[0] == sets[1]


def test_part_of_a_mix_has_the_digest_of_its_data_set_alone(two: dict[str, Path]) -> None:
    data = opened(two)
    for k, path in enumerate(two.values()):
        alone = open_split(Sources(data=str(path)), "train")
        assert samples_sha256(part_data(data, k)) == samples_sha256(alone)
        assert part_data(data, k).identity == alone.identity
    renamed = opened({"one": two["one"], "zwei": two["two"]})
    assert samples_sha256(renamed) != samples_sha256(data)
    assert data.identity.index_sha256 not in ("", opened({"one": two["one"]}).identity.index_sha256)


def test_pairs_and_clips_of_a_video_are_looked_for_in_their_own_data_set(two: dict[str, Path]) -> None:
    data = opened(two)
    pairs = pair_up(data).samples
    assert len(pairs) == 2 + 1 + 3
    assert (data.part_of[pairs[:, 0]] == data.part_of[pairs[:, 1]]).all()
    assert len(spread_clips(data, 1)) == 13


@pytest.mark.parametrize(("name", "weight"), [("a b", 1.0), ("", 1.0), ("a", 0.0), ("a", float("nan")), ("a", 1e6)])
def test_impossible_names_and_weights_are_refused(name: str, weight: float) -> None:
    with pytest.raises(ValueError, match="name of a data set|weight of a"):
        NamedData(name=name, data="x", weight=weight)
    with pytest.raises(ValueError, match="same name"):
        Sources(sets=(NamedData(name="a", data="x"), NamedData(name="a", data="y")))
