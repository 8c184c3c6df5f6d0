"""Which clip of its original a fake is read with, and that both members of a pair show the same."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lps.manifests.errors import RefusedError
from lps.model.data.clip_data import ClipData, open_data, window_numbers
from lps.model.data.clip_decoder import Batch, ReadOptions
from lps.model.data.clip_reader import ClipReader
from lps.model.data.epoch_plan import PlanOptions, Rank
from lps.model.data.mix import NamedData
from lps.model.data.pairs import ClipPairs, pair_up
from lps.model.data.shard_cache import ShardCache
from lps.model.data.sources import Sources, open_split

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec, WebServer

Place = tuple[str, int, int]
"""Video, face track, first frame."""


def fake(spec: "type[Spec]", name: str, **known: Any) -> "Spec":
    """Return a fake of r0 that shares its window."""
    return spec(video=name, **{"label": 1, "original": "r0", "pair_mode": "shared", **known})


def opened(make: "Maker", specs: "list[Spec]") -> ClipData:
    """Return what is read of the samples, in two shards."""
    half = len(specs) // 2
    return open_data(str(make.data_set([specs[:half], specs[half:]])), "train")


def places(data: ClipData, pairs: ClipPairs, specs: "list[Spec]") -> dict[Place, Place]:
    """Return the real clip of every fake one."""
    by_key = {each.key: (each.video, each.track, each.start_frame) for each in specs}
    keys = data.samples["key"].to_pylist()
    return {by_key[keys[b]]: by_key[keys[a]] for a, b in pairs.samples}


def originals(spec: "type[Spec]") -> "list[Spec]":
    """Return two faces of r0 at the same times, and one of another video."""
    clips = [spec(video="r0", track=track, start_frame=start) for track in (0, 1) for start in (0, 50, 100)]
    return [*clips, spec(video="r1", start_frame=50)]


def test_a_shared_window_is_found_among_faces_and_times(make: "Maker", spec: "type[Spec]") -> None:
    specs = [
        *originals(spec),
        *(fake(spec, "f0", track=track, start_frame=start) for track in (0, 1) for start in (0, 50, 100)),
        fake(spec, "f1", track=1, start_frame=50),
        fake(spec, "f2", original="r1", start_frame=50),
    ]
    data = opened(make, specs)
    pairs = pair_up(data)
    found = places(data, pairs, specs)
    assert found == {
        **{("f0", track, start): ("r0", track, start) for track in (0, 1) for start in (0, 50, 100)},
        ("f1", 1, 50): ("r0", 1, 50),
        ("f2", 0, 50): ("r1", 0, 50),
    }
    assert pairs.shared.all()
    assert pairs.record() == {"n_pairs": 8, "n_shared": 8, "n_fakes_in_no_pair": 0, "n_reals_in_no_pair": 0}


@pytest.mark.parametrize("pair_mode", [None, "own", "fallback"])
def test_without_a_shared_window_the_nearest_in_time_is_taken_the_earlier_of_two(
    make: "Maker", spec: "type[Spec]", pair_mode: str | None
) -> None:
    """A face that is numbered alike in two videos that were tracked apart need not be the same one."""
    specs = [
        *originals(spec),
        fake(spec, "f0", track=1, start_frame=50, pair_mode=pair_mode),
        fake(spec, "f1", start_frame=75, pair_mode=pair_mode),
        fake(spec, "f2", start_frame=76, pair_mode=pair_mode),
    ]
    data = opened(make, specs)
    pairs = pair_up(data)
    found = {key: (video, start) for key, (video, _, start) in places(data, pairs, specs).items()}
    assert found == {("f0", 1, 50): ("r0", 50), ("f1", 0, 75): ("r0", 50), ("f2", 0, 76): ("r0", 100)}
    assert not pairs.shared.any()


def test_a_shared_window_whose_other_side_is_missing_counts_as_none(make: "Maker", spec: "type[Spec]") -> None:
    specs = [
        spec(video="r0"),
        fake(spec, "f0", start_frame=9),  # no such window
        fake(spec, "f1", n_frames=4),  # one frame more
        fake(spec, "f2", track=1),  # another face
        fake(spec, "f3", original="nowhere"),
        fake(spec, "f4"),
    ]
    data = opened(make, specs)
    pairs = pair_up(data)
    found = places(data, pairs, specs)
    assert set(found) == {("f0", 0, 9), ("f1", 0, 0), ("f2", 1, 0), ("f4", 0, 0)}
    shared = places(data, pairs.only_shared(), specs)
    assert set(shared) == {("f4", 0, 0)}
    assert pairs.said() == (
        "4 pairs of a fake and its original, 1 of them of the same frames; 1 fake and 0 real clips are in no pair"
    )


def test_a_data_set_of_an_older_version_is_paired_as_before(make: "Maker", spec: "type[Spec]") -> None:
    specs = [*originals(spec), fake(spec, "f0", track=1, start_frame=75, pair_mode=None)]
    out = make.data_set([specs])
    path = out / "manifests/clips.parquet"
    table = pq.read_table(path)
    older = [name for name in table.column_names if not name.startswith(("pair_", "lmk68"))]
    pq.write_table(table.select(older), path)
    data = open_data(str(out), "train")
    assert [start for _, _, start in places(data, pair_up(data), specs).values()] == [50]
    assert data.samples["window"].null_count == len(data)


def test_of_a_mix_each_data_set_is_paired_as_alone(make: "Maker", spec: "type[Spec]") -> None:
    """Equal ids and windows in two data sets are other videos."""
    with_two = [*originals(spec), fake(spec, "f0", track=1, start_frame=50)]
    older = [*originals(spec)[:3], fake(spec, "f0", start_frame=50, pair_mode=None)]
    sets = {"a": make.data_set([with_two]), "b": make.data_set([older])}
    named = tuple(NamedData(name=name, data=str(path)) for name, path in sets.items())
    data = open_split(Sources(sets=named), "train")
    pairs = pair_up(data)
    assert pairs.shared.tolist() == [True, False]
    assert (data.part_of[pairs.samples[:, 0]] == data.part_of[pairs.samples[:, 1]]).all()
    assert pairs.samples[0].tolist() == pair_up(open_data(str(sets["a"]), "train")).samples[0].tolist()
    options = PlanOptions(batch_size=2, sampling="shared_pairs")
    with pytest.raises(
        RefusedError, match=r"^b has no pair of a fake and its original of the same frames; use another"
    ):
        ClipReader(data, ReadOptions(n_frames=3), options)


def test_windows_are_found_on_a_plain_web_server_too(
    make: "Maker", spec: "type[Spec]", web: "WebServer", cache: ShardCache
) -> None:
    out = make.data_set([[*originals(spec), fake(spec, "f0", track=1, start_frame=50)]])
    assert open_data(f"{web.url}/{out.name}", "train").samples.equals(open_data(str(out), "train").samples)


LISTS = st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 2**31 - 1), max_size=4)), max_size=12)


@given(LISTS)
def test_windows_have_equal_numbers_where_track_and_frames_are_equal(rows: list[tuple[int, list[int]]]) -> None:
    columns = {
        "track_id": pa.array([track for track, _ in rows], pa.int16()),
        "frame_idx": pa.array([frames for _, frames in rows], pa.list_(pa.int32())),
    }
    found = window_numbers(pa.table(columns)).to_pylist()
    alike = {(track, tuple(frames)): number for (track, frames), number in zip(rows, found, strict=True)}
    assert len(set(found)) == len(alike) == len({(track, tuple(frames)) for track, frames in rows})
    half = len(rows) // 2
    again = [*window_numbers(pa.table(columns).slice(0, half)), *window_numbers(pa.table(columns).slice(half))]
    assert [each.as_py() for each in again] == found, "also of a part of a table"


# ---- read ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def twins(make: "Maker", spec: "type[Spec]") -> ClipData:
    """Return eight originals of two clips, longer than what is read, each with a fake of the very same pictures."""

    class Twin(spec):  # type: ignore[misc, valid-type]
        """A fake that shows what its original shows."""

        def frames(self) -> list[np.ndarray]:
            return spec(video=self.original, start_frame=self.start_frame, n_frames=9, codec="png").frames()

    known: dict[str, Any] = {"n_frames": 9, "codec": "png"}
    reals = [spec(video=f"r{k}", start_frame=start, **known) for k in range(8) for start in (0, 60)]
    fakes = [
        Twin(video=f"f{k}", label=1, original=f"r{k}", start_frame=start, pair_mode="shared", **known)
        for k in range(8)
        for start in (0, 60)
    ]
    return open_data(str(make.data_set([reals[:5], [*fakes[:9], *reals[5:]], fakes[9:]])), "train")


def read_by(data: ClipData, world: int, epoch: int, first_step: int = 0, stop_step: int = 99) -> list[list[Batch]]:
    """Return the batches of some steps by rank; each is checked to show one thing in both members of every pair."""
    read = ReadOptions(n_frames=4, augment="strong")
    plan = PlanOptions(batch_size=8, sampling="shared_pairs", seed=2)
    ranks = []
    for rank in range(world):
        with ClipReader(data, read, plan, rank=Rank(rank, world)) as reader:
            batches = [batch for batch in reader.epoch(epoch, first_step) if batch.step < stop_step]
        for batch in batches:
            assert batch.labels.tolist() == [0, 1] * (len(batch) // 2)
            assert torch.equal(batch.frames[0::2], batch.frames[1::2]), "crop, flip, colours and compression alike"
        ranks.append(batches)
    return ranks


def by_step(ranks: list[list[Batch]]) -> dict[int, set[tuple[tuple[str, ...], bytes]]]:
    """Return the pairs of each step over all ranks, with their pixels."""
    found: dict[int, set[tuple[tuple[str, ...], bytes]]] = {}
    for batch in (batch for batches in ranks for batch in batches):
        for k in range(0, len(batch), 2):
            pair = (batch.keys[k : k + 2], batch.frames[k : k + 2].numpy().tobytes())
            found.setdefault(batch.step, set()).add(pair)
    return found


def test_both_members_show_the_same_under_one_augmentation_whatever_the_ranks(twins: ClipData) -> None:
    alone = [by_step(read_by(twins, 1, epoch)) for epoch in range(2)]
    for steps in alone:
        assert [len(pairs) for pairs in steps.values()] == [4, 4, 4, 4]
        assert len({keys for pairs in steps.values() for keys, _ in pairs}) == 16, "each pair once an epoch"
    assert alone[0] != alone[1]
    for world in (2, 4):
        assert by_step(read_by(twins, world, 0)) == alone[0]
    goes_on = {**by_step(read_by(twins, 2, 0, 0, 1)), **by_step(read_by(twins, 4, 0, 1, 3))}
    assert {**goes_on, **by_step(read_by(twins, 1, 0, 3))} == alone[0], "resumed by other numbers of processes"


def test_only_pairs_of_the_same_frames_are_read_where_that_is_asked_for(make: "Maker", spec: "type[Spec]") -> None:
    specs = [
        *originals(spec),
        fake(spec, "f0", track=1, start_frame=50),
        fake(spec, "f1", pair_mode="fallback"),
    ]
    data = opened(make, specs)
    keys: dict[str, set[str]] = {}
    for sampling in ("pairs", "shared_pairs"):
        with ClipReader(data, ReadOptions(n_frames=3), PlanOptions(batch_size=2, sampling=sampling)) as reader:
            keys[sampling] = {key for batch in reader.epoch(0) for key in batch.keys}
    assert keys["pairs"] == {specs[4].key, specs[7].key, specs[0].key, specs[8].key}
    assert keys["shared_pairs"] == {specs[4].key, specs[7].key}
    none = opened(make, [*originals(spec), fake(spec, "f0", pair_mode="own")])
    with pytest.raises(RefusedError, match=r"of 1 pairs\): prepare with `lps-prep run --pairing original`, or use"):
        ClipReader(none, ReadOptions(n_frames=3), PlanOptions(sampling="shared_pairs"))


def test_folds_keep_pairs_together(make: "Maker", spec: "type[Spec]", tmp_path: Path) -> None:
    specs = [
        *(spec(video=f"r{k}") for k in range(6)),
        *(spec(video=f"f{k}", label=1, original=f"r{k}", pair_mode="shared") for k in range(6)),
    ]
    out = str(make.data_set([specs]))
    found = [pair_up(open_split(Sources(data=out, fold=(k, 3)), "train", held_out=True)) for k in range(3)]
    assert [pairs.record()["n_shared"] for pairs in found] == [2, 2, 2]
