"""The reader: every sample once, the same batches whatever the workers and interruptions, options kept."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import torch

from lps.manifests.canonical import digest16
from lps.manifests.errors import RefusedError
from lps.model.data.clip_data import ClipData, open_data, spread_clips
from lps.model.data.clip_decoder import Batch, ReadOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions
from lps.model.data.epoch_plan import PlanOptions, Rank, Sampling
from lps.model.data.sample import LocalShard, Sample
from lps.model.data.shard_cache import ShardCache
from lps.model.data.shard_index import open_shards

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec

    Many = Callable[..., list[list[Spec]]]

READ = ReadOptions(n_frames=3)
ALL = list(range(10))


def read_all(
    data: ClipData,
    plan: PlanOptions,
    *,
    read: ReadOptions = READ,
    work: WorkOptions | None = None,
    rank: Rank | None = None,
    epochs: tuple[int, ...] = (0,),
) -> list[Batch]:
    """Return all batches of some epochs of local shards."""
    with ClipReader(data, read, plan, work, rank) as reader:
        return [batch for epoch in epochs for batch in reader.epoch(epoch)]


def keys(batches: list[Batch]) -> list[tuple[str, ...]]:
    """Return the keys of each batch."""
    return [batch.keys for batch in batches]


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    """Compare batches in all they hold."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert (a.step, a.keys, a.clip_ids, a.video_ids, a.bad) == (b.step, b.keys, b.clip_ids, b.video_ids, b.bad)
        assert torch.equal(a.frames, b.frames)
        assert torch.equal(a.labels, b.labels)


def test_a_batch_holds_the_frames_labels_and_ids_of_its_samples(make: "Maker", spec: "type[Spec]") -> None:
    specs = [spec(video="a", codec="png"), spec(video="b", label=1, codec="png")]
    data = open_data(str(make.data_set([specs])), "train")
    (batch,) = read_all(data, PlanOptions(shuffle=False))
    by_key = {each.key: each for each in specs}
    assert batch.frames.shape == (2, 3, 32, 32, 3)
    assert batch.frames.dtype == torch.uint8
    for k, key in enumerate(batch.keys):
        assert np.array_equal(batch.frames[k].numpy(), np.stack(by_key[key].frames())), "RGB, in time order"
        assert batch.labels[k] == by_key[key].label
        assert batch.video_ids[k] == by_key[key].video_id
        assert batch.clip_ids[k] == by_key[key].clip_id


@pytest.mark.parametrize("codec", ["jpg", "png", "webp"])
def test_frames_are_those_that_pillow_decodes(make: "Maker", spec: "type[Spec]", codec: str) -> None:
    import io

    from PIL import Image

    one = spec(video="a", codec=codec)
    (batch,) = read_all(open_data(str(make.data_set([[one]])), "train"), PlanOptions())
    expected = [np.asarray(Image.open(io.BytesIO(one.members()[f"{k:02d}.{codec}"])).convert("RGB")) for k in range(3)]
    assert np.array_equal(batch.frames[0].numpy(), np.stack(expected))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("sizes", [(1, 7, 30), (1,) * 9, (5, 40)])
def test_every_sample_is_read_once_over_all_ranks(make: "Maker", many: "Many", world: int, sizes: tuple[int]) -> None:
    data = open_data(str(make.data_set(many(*sizes))), "train")
    plan = PlanOptions(batch_size=12, window_samples=8)
    ranks = [read_all(data, plan, rank=Rank(rank, world)) for rank in range(world)]
    found = sorted(key for batches in ranks for batch in batches for key in batch.keys)
    assert found == sorted(data.samples["key"].to_pylist())
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(batch) for batches in ranks for batch in batches)


def test_the_number_of_workers_changes_nothing(make: "Maker", many: "Many") -> None:
    data = open_data(str(make.data_set(many(1, 7, 13))), "train")
    plan = PlanOptions(batch_size=4, seed=3)
    read = ReadOptions(n_frames=2, augment="strong")
    alone = read_all(data, plan, read=read, epochs=(0, 1))
    for n in (1, 2):
        with_workers = read_all(data, plan, read=read, epochs=(0, 1), work=WorkOptions(n_workers=n))
        assert_equal(alone, with_workers)
    assert keys(alone[:6]) != keys(alone[6:])


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("sampling", ["natural", "balanced", "pairs"])
def test_a_run_taken_up_within_an_epoch_reads_the_same_batches(
    make: "Maker", many: "Many", n_workers: int, sampling: Sampling
) -> None:
    out = str(make.data_set(many(3, 9, 8, real_every=4)))
    plan = PlanOptions(batch_size=4, sampling=sampling)
    read = ReadOptions(n_frames=2, augment="strong")
    whole = read_all(open_data(out, "train"), plan, read=read, epochs=(0, 1))
    with ClipReader(open_data(out, "train"), read, plan) as reader:
        stopped = [batch for batch, _ in zip(reader.epoch(0), range(2), strict=False)]
        state = reader.state(0, stopped[-1].step + 1)
    with ClipReader(open_data(out, "train"), read, plan, WorkOptions(n_workers=n_workers)) as reader:
        epoch, step = reader.resume(state)
        assert (epoch, step) == (0, 2)
        rest = [*reader.epoch(epoch, step), *reader.epoch(epoch + 1)]
    assert_equal(whole, [*stopped, *rest])


@pytest.mark.parametrize("sampling", ["natural", "pairs"])
def test_other_numbers_of_ranks_go_on_with_an_epoch(make: "Maker", many: "Many", sampling: Sampling) -> None:
    data = open_data(str(make.data_set(many(3, 9, 9, real_every=3))), "train")
    plan = PlanOptions(batch_size=12 if sampling == "pairs" else 6, sampling=sampling)
    found: list[str] = []
    state = None
    for world, n_steps in ((2, 1), (3, 1), (1, 9)):
        for rank in range(world):
            with ClipReader(data, READ, plan, rank=Rank(rank, world)) as reader:
                epoch, step = reader.resume(state) if state else (0, 0)
                batches = [batch for batch, _ in zip(reader.epoch(epoch, step), range(n_steps), strict=False)]
                found += [key for batch in batches for key in batch.keys]
                after = reader.state(epoch, batches[-1].step + 1)
        state = after
    assert after["epoch"] == 1
    times = {*Counter(found).values()} if sampling == "natural" else {n for k, n in Counter(found).items() if fake(k)}
    assert times == {1}


def fake(key: str) -> bool:
    return key.startswith(tuple(digest16("test", f"f{n}").hex() for n in range(30)))


def test_states_of_other_shares_are_refused_in_words(make: "Maker", many: "Many") -> None:
    data = open_data(str(make.data_set(many(9))), "train")
    plan = PlanOptions(batch_size=4)
    with ClipReader(data, READ, plan, rank=Rank(0, 2)) as reader:
        at_last, old = reader.state(0, 2), reader.state(0, 1)
    with ClipReader(data, READ, plan, rank=Rank(0, 4)) as reader:
        assert reader.resume(old) == (0, 1)
        with pytest.raises(RefusedError, match="within epoch 0 at its last step: .* use as many processes as before"):
            reader.resume(at_last)
        old["plan"] |= {"batch_size": 2, "world_size": 2}
        with pytest.raises(RefusedError, match="shared by 2 processes of an older version"):
            reader.resume(old)


def test_an_epoch_left_early_does_not_disturb_the_next(make: "Maker", many: "Many") -> None:
    data = open_data(str(make.data_set(many(12))), "train")
    plan = PlanOptions(batch_size=2)
    expected = read_all(data, plan, epochs=(1,))
    with ClipReader(data, READ, plan, WorkOptions(n_workers=2)) as reader:
        next(iter(reader.epoch(0)))
        assert_equal(expected, list(reader.epoch(1)))


def test_a_state_after_the_last_step_is_the_start_of_the_next_epoch(make: "Maker", many: "Many") -> None:
    data = open_data(str(make.data_set(many(4))), "train")
    with ClipReader(data, READ, PlanOptions(batch_size=2)) as reader:
        assert reader.resume(reader.state(0, reader.n_steps)) == (1, 0)


def test_a_changed_plan_is_refused_within_an_epoch_only(make: "Maker", many: "Many") -> None:
    data = open_data(str(make.data_set(many(8))), "train")
    with ClipReader(data, READ, PlanOptions(batch_size=2)) as reader:
        middle, start = reader.state(3, 1), reader.state(3, 0)
    with ClipReader(data, READ, PlanOptions(batch_size=4)) as reader:
        assert reader.resume(start) == (3, 0)
        with pytest.raises(RefusedError, match="within epoch 3: batch_size was 2 and is 4"):
            reader.resume(middle)
    other = open_data(str(make.data_set(many(9))), "train")
    with (
        ClipReader(other, READ, PlanOptions(batch_size=2)) as reader,
        pytest.raises(RefusedError, match="samples_sha256 was"),
    ):
        reader.resume(middle)


def test_a_state_is_plain_and_loads_as_weights_only(make: "Maker", many: "Many", tmp_path: Path) -> None:
    data = open_data(str(make.data_set(many(4))), "train")
    with ClipReader(data, READ, PlanOptions(batch_size=2)) as reader:
        state = reader.state(1, 1)
        torch.save({"reader": state, "data": data.identity.as_json()}, tmp_path / "state.pt")
        assert reader.resume(torch.load(tmp_path / "state.pt", weights_only=True)["reader"]) == (1, 1)


def test_training_does_not_lose_random_numbers_to_the_reader(make: "Maker", many: "Many") -> None:
    data = open_data(str(make.data_set(many(4))), "train")
    for n_workers in (0, 1):
        torch.manual_seed(1)
        expected = torch.rand(1)
        torch.manual_seed(1)
        read_all(data, PlanOptions(), work=WorkOptions(n_workers=n_workers))
        assert torch.equal(torch.rand(1), expected)


def test_longer_clips_give_a_drawn_stretch_in_training_and_the_middle_in_evaluation(
    make: "Maker", spec: "type[Spec]"
) -> None:
    one = spec(video="a", n_frames=9, codec="png")
    data = open_data(str(make.data_set([[one]])), "train")
    frames = np.stack(one.frames())
    starts = set()
    for batch in read_all(data, PlanOptions(), read=ReadOptions(n_frames=4), epochs=tuple(range(20))):
        found = [k for k in range(6) if np.array_equal(frames[k : k + 4], batch.frames[0].numpy())]
        assert len(found) == 1, "consecutive frames"
        starts |= {*found}
    assert len(starts) > 2
    (batch,) = read_all(data, PlanOptions(), read=ReadOptions(n_frames=4, train=False))
    assert np.array_equal(frames[2:6], batch.frames[0].numpy())


def test_short_clips_are_left_out_of_training_and_padded_in_evaluation(make: "Maker", spec: "type[Spec]") -> None:
    short, whole = spec(video="a", n_frames=2, codec="png"), spec(video="b", n_frames=4, codec="png")
    data = open_data(str(make.data_set([[short, whole]])), "train")
    with ClipReader(data, ReadOptions(n_frames=4), PlanOptions()) as reader:
        assert [batch.keys for batch in reader.epoch(0)] == [(whole.key,)]
        assert reader.data.left_out.n_short == 1
    (batch,) = read_all(data, PlanOptions(), read=ReadOptions(n_frames=4, train=False))
    frames = batch.frames[batch.keys.index(short.key)].numpy()
    assert np.array_equal(frames, np.stack([*short.frames(), *[short.frames()[-1]] * 2]))


def test_frames_are_resized_in_the_reader(make: "Maker", spec: "type[Spec]") -> None:
    specs = [spec(video="a", codec="png"), spec(video="b", px=64, codec="png")]
    data = open_data(str(make.data_set([specs])), "train")
    with pytest.raises(RefusedError, match="32 and 64 px cannot be read together"):
        ClipReader(data, READ, PlanOptions())
    (batch,) = read_all(data, PlanOptions(), read=ReadOptions(n_frames=3, image_px=16))
    for each in specs:
        small = [cv2.resize(frame, (16, 16), interpolation=cv2.INTER_AREA) for frame in each.frames()]
        assert np.array_equal(batch.frames[batch.keys.index(each.key)].numpy(), np.stack(small))


def test_samples_without_a_label_are_left_out_unless_asked_for(make: "Maker", spec: "type[Spec]") -> None:
    specs = [spec(video="a", label=None), spec(video="b", label=1)]
    data = open_data(str(make.data_set([specs])), "train")
    with ClipReader(data, READ, PlanOptions()) as reader:
        assert reader.data.left_out.n_unlabelled == 1
        assert [batch.labels.tolist() for batch in reader.epoch(0)] == [[1]]
    (batch,) = read_all(data, PlanOptions(), read=ReadOptions(n_frames=3, labelled=False))
    assert sorted(batch.labels.tolist()) == [-1, 1]


def test_nothing_left_to_read_is_refused(make: "Maker", many: "Many") -> None:
    data = open_data(str(make.data_set(many(3))), "train")
    with pytest.raises(RefusedError, match="of 3 samples, 0 have no label and 3 fewer than 60 frames"):
        ClipReader(data, ReadOptions(), PlanOptions())


def test_balanced_batches_are_half_real(make: "Maker", many: "Many") -> None:
    data = open_data(str(make.data_set(many(20, 20, real_every=5))), "train")
    batches = read_all(data, PlanOptions(batch_size=8, sampling="balanced"))
    assert [int(batch.labels.sum()) for batch in batches] == [4] * 8
    fakes = [key for batch in batches for key, label in zip(batch.keys, batch.labels, strict=True) if label]
    assert len(fakes) == len(set(fakes)) == 32


def test_repetitions_within_an_epoch_are_augmented_each_in_its_own_way(make: "Maker", many: "Many") -> None:
    data = open_data(str(make.data_set(many(5, real_every=5))), "train")
    read = ReadOptions(n_frames=3, augment="strong")
    batches = read_all(data, PlanOptions(batch_size=8, sampling="balanced"), read=read)
    real = [clip for batch in batches for clip, label in zip(batch.frames, batch.labels, strict=True) if not label]
    assert len(real) == 4
    assert len({clip.numpy().tobytes() for clip in real}) == 4


def test_pairs_are_a_fake_and_the_clip_of_its_original_nearest_in_time(make: "Maker", spec: "type[Spec]") -> None:
    specs = [
        *(spec(video="r0", start_frame=start) for start in (0, 50, 100)),
        spec(video="r1"),
        spec(video="f0", label=1, original="r0", start_frame=60),
        spec(video="f1", label=1, original="r0", start_frame=500),
        spec(video="f2", label=1, original="r1"),
        spec(video="f3", label=1, original="not-here"),
        spec(video="f4", label=1),
    ]
    data = open_data(str(make.data_set([specs[:4], specs[4:]])), "train")
    with ClipReader(data, READ, PlanOptions(batch_size=2, sampling="pairs")) as reader:
        found = {batch.keys[::-1] for batch in reader.epoch(0)}
        assert reader.n_samples - len({key for pair in found for key in pair}) == 3
        assert reader.n_steps == 3
    by_name = {(each.video, each.start_frame): each.key for each in specs}
    assert found == {
        (by_name["f0", 60], by_name["r0", 50]),
        (by_name["f1", 500], by_name["r0", 100]),
        (by_name["f2", 0], by_name["r1", 0]),
    }


def test_plain_shards_cannot_be_paired(make: "Maker", many: "Many", cache: ShardCache) -> None:
    data = open_shards(make.shards(many(4)), cache)
    with pytest.raises(RefusedError, match="name the data set instead"):
        ClipReader(data, READ, PlanOptions(sampling="pairs"))


@pytest.mark.parametrize(("k", "expected"), [(1, [5]), (2, [2, 7]), (3, [1, 5, 8]), (10, ALL), (99, ALL)])
def test_clips_are_spread_evenly_over_their_video(
    make: "Maker", spec: "type[Spec]", k: int, expected: list[int]
) -> None:
    long = [spec(video="a", start_frame=60 * n) for n in range(10)]
    short = [spec(video="b", start_frame=0)]
    data = spread_clips(open_data(str(make.data_set([long, short])), "train"), k)
    kept = set(data.samples["key"].to_pylist())
    assert [n for n, each in enumerate(long) if each.key in kept] == expected
    assert short[0].key in kept
    assert data.left_out.n_other_clips == 10 - len(expected)


def test_three_clips_of_three_and_two_are_all(make: "Maker", spec: "type[Spec]") -> None:
    specs = [spec(video=name, start_frame=60 * n) for name, count in (("a", 3), ("b", 2)) for n in range(count)]
    data = open_data(str(make.data_set([specs])), "train")
    assert len(spread_clips(data, 3)) == 5
    assert len(spread_clips(data, 1)) == 2


def test_workers_write_to_the_same_memory_again_and_never_to_what_somebody_holds(make: "Maker", many: "Many") -> None:
    data = open_data(str(make.data_set(many(12, real_every=2))), "train")
    plan = PlanOptions(batch_size=1)
    expected = read_all(data, plan, epochs=(0, 1))
    places: set[int] = set()
    kept: list[Batch] = []
    with ClipReader(data, READ, plan, WorkOptions(n_workers=2)) as reader:
        for _ in zip(range(3), reader.epoch(5), strict=False):
            pass  # left early, with batches under way
        for epoch in (0, 1):
            for batch in reader.epoch(epoch):
                assert torch.equal(batch.frames, expected[len(kept)].frames)
                places.add(batch.frames.data_ptr())
                kept.append(replace(batch, frames=batch.frames.clone()))
        assert len(places) <= 7, "what two workers decode ahead, and three more"
        held = [*reader.epoch(0), *reader.epoch(1)]  # more than there is room for
    assert_equal(held, expected)
    assert_equal(kept, expected)


def test_a_part_of_a_batch_keeps_its_memory(make: "Maker", many: "Many") -> None:
    data = open_data(str(make.data_set(many(12, real_every=2))), "train")
    plan = PlanOptions(batch_size=2)
    expected = read_all(data, plan)
    with ClipReader(data, READ, plan, WorkOptions(n_workers=1)) as reader:
        parts = [batch.frames[1, 0] for batch in reader.epoch(0)]
    assert all(torch.equal(part, batch.frames[1, 0]) for part, batch in zip(parts, expected, strict=True))


def test_a_request_carries_all_that_a_worker_needs(make: "Maker", many: "Many") -> None:
    """Workers hold no table: a million samples cost each of them nothing."""
    import pickle

    data = open_data(str(make.data_set(many(40))), "train")
    with ClipReader(data, READ, PlanOptions()) as reader:
        request = next(reader.requests_of(reader.plan(0), 0, 0))
        assert len(pickle.dumps(request)) < 400 * 16
        assert isinstance(request.wanted[0].sample, Sample)
        assert isinstance(request.wanted[0].shard, LocalShard)
        assert len(pickle.dumps(reader.decoder)) < 1000
