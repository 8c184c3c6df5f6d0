"""Self-blends among the samples: how many are read, beside what, and that nothing but the plan decides their pixels."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from lps.manifests.arrays import ARCFACE_112
from lps.manifests.errors import IntegrityError
from lps.manifests.schemas import BOX_UNITS, Row, read_table, table_bytes
from lps.model.data.clip_data import ClipData, open_data
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions
from lps.model.data.epoch_plan import PlanOptions, Rank
from lps.model.data.fakes.self_blends import landmarks_of, said_of_blends, with_self_blends
from lps.model.data.sample import SELF_BLEND
from lps.model.data.sources import Sources, open_split

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec

READ = ReadOptions(n_frames=4, augment="strong")


def opened(make: "Maker", spec: "type[Spec]", n_reals: int, n_fakes: int = 0, **known: Any) -> ClipData:
    """Return what is read of some real clips and fakes of the first of them, each real clip with its self-blend."""
    reals = [spec(video=f"r{k}", n_frames=6, **known) for k in range(n_reals)]
    fakes = [spec(video=f"f{k}", label=1, original=f"r{k % n_reals}", n_frames=6, **known) for k in range(n_fakes)]
    data = open_data(str(make.data_set([reals[: n_reals // 2], reals[n_reals // 2 :] + fakes])), "train")
    return with_self_blends(data, {})


def read_all(data: ClipData, plan: PlanOptions, *, epoch: int = 3, first_step: int = 0, **how: Any) -> dict[str, bytes]:
    """Return the pixels of every clip of an epoch by its name."""
    with ClipReader(data, READ, plan, **how) as reader:
        batches = list(reader.epoch(epoch, first_step))
    return {key: clip.numpy().tobytes() for each in batches for key, clip in zip(each.keys, each.frames, strict=True)}


def test_each_real_clip_stands_beside_its_self_blend_under_one_augmentation(make: "Maker", spec: "type[Spec]") -> None:
    data = opened(make, spec, 6, codec="png")
    with ClipReader(data, ReadOptions(n_frames=4), PlanOptions(batch_size=4, sampling="pairs")) as reader:
        batches = [batch for epoch in range(2) for batch in reader.epoch(epoch)]
    seen = set()
    for batch in batches:
        assert batch.labels.tolist() == [0, 1, 0, 1]
        for real, fake in ((0, 1), (2, 3)):
            assert batch.keys[fake] == batch.keys[real] + SELF_BLEND
            assert batch.clip_ids[fake] == batch.clip_ids[real]
            assert not torch.equal(batch.frames[real], batch.frames[fake])
            seen.add(batch.frames[fake].numpy().tobytes())
    assert len(seen) == 12, "another blend of each in each epoch"
    assert "6 real clips" in said_of_blends(data)
    assert "6 by the template" in said_of_blends(data)


def test_pixels_depend_on_neither_workers_nor_ranks_nor_where_an_epoch_was_taken_up(
    make: "Maker", spec: "type[Spec]"
) -> None:
    data = opened(make, spec, 8)
    plan = PlanOptions(batch_size=8, sampling="pairs", seed=5)
    whole = read_all(data, plan)
    assert len(whole) == 16
    assert read_all(data, plan, work=WorkOptions(n_workers=1)) == whole
    for world_size in (2, 4):
        parts = [read_all(data, plan, rank=Rank(k, world_size)) for k in range(world_size)]
        assert sum(map(len, parts)) == 16
        assert {name: clip for part in parts for name, clip in part.items()} == whole
    rest = read_all(data, plan, first_step=1)
    assert len(rest) == 8
    assert rest.items() <= whole.items()
    natural = read_all(data, PlanOptions(batch_size=3, seed=5))
    assert natural == whole, "read alone, a self-blend is what it is beside its original"


@pytest.mark.parametrize("sampling", ["natural", "balanced", "pairs"])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_among_fakes_that_are_there_they_have_their_share(
    make: "Maker", spec: "type[Spec]", sampling: Any, share: float
) -> None:
    data = opened(make, spec, 10, 20)
    with ClipReader(data, READ, PlanOptions(batch_size=2, sampling=sampling, self_blend_share=share)) as reader:
        plan = reader.plan(0)
        assert reader.plan(7).n_steps == plan.n_steps
    read = plan.order.samples.ravel()
    blends, labels = data.self_blends[read], data.labels[read]
    assert blends.sum() / labels.sum() == pytest.approx(share, abs=0.03)
    if sampling != "natural":
        assert labels.mean() == 0.5


def test_without_fakes_they_are_half_of_each_batch(make: "Maker", spec: "type[Spec]") -> None:
    data = opened(make, spec, 8)
    for sampling in ("balanced", "pairs"):
        with ClipReader(data, READ, PlanOptions(batch_size=4, sampling=sampling)) as reader:
            assert [batch.labels.sum().item() for batch in reader.epoch(0)] == [2] * 4


def test_a_bad_clip_is_missing_with_its_self_blend(make: "Maker", spec: "type[Spec]") -> None:
    reals = [spec(video=f"r{k}", n_frames=4) for k in range(4)]
    data = open_data(
        str(make.data_set([reals], spoil={"r1": lambda members: members.update({"00.jpg": b"x"})})), "train"
    )
    plan, work = PlanOptions(batch_size=8, sampling="pairs"), WorkOptions(max_bad_share=0.5)
    with ClipReader(with_self_blends(data, {}), READ, plan, work) as reader:
        (batch,) = reader.epoch(0)
    assert len(batch) == 6
    assert sorted(bad.key for bad in batch.bad) == [reals[1].key, reals[1].key + SELF_BLEND]


# ---- landmarks -------------------------------------------------------------------------------------------------------

TWICE = [2.0, 0.0, 4.0, 0.0, 2.0, 8.0]


def rewrite(out: Path, change: Any) -> None:
    """Change the rows of the manifest of clips."""
    path = out / "manifests/clips.parquet"
    rows: list[Row] = [change(k, row) for k, row in enumerate(read_table("clips", path.read_bytes()).to_pylist())]
    path.write_bytes(table_bytes("clips", rows, {}))


def test_landmarks_are_the_median_of_a_clip_in_its_frame(make: "Maker", spec: "type[Spec]") -> None:
    out = make.data_set([[spec(video=f"r{k}") for k in range(2)]])

    def found_in_source(k: int, row: Row) -> Row:
        dense = [[8 * v for v in range(136)]] * 3 if k else None
        five = [(np.full(10, place * BOX_UNITS) + np.arange(10) * BOX_UNITS).tolist() for place in (0, 2, 90)]
        return {**row, "lmk5": five, "lmk68": dense, "align_M": [TWICE] * 3}

    rewrite(out, found_in_source)
    sources = Sources(data=str(out))
    data = open_split(sources, "train")
    found = landmarks_of(sources, data)
    five, dense = sorted(found.values(), key=len)
    xy = 2 + np.arange(10).reshape(5, 2)
    assert np.allclose(five * 32, 2 * xy + (4, 8))
    assert np.allclose(dense * 32, 2 * np.arange(136).reshape(68, 2) + (4, 8))
    assert "1 by 68 landmarks, 1 by five landmarks" in said_of_blends(with_self_blends(data, found))


def test_landmarks_that_do_not_fit_are_an_error_of_one_line(make: "Maker", spec: "type[Spec]") -> None:
    out = make.data_set([[spec(video="r0")]])
    points = (ARCFACE_112 * BOX_UNITS).astype(int).ravel().tolist()
    rewrite(out, lambda _, row: {**row, "lmk5": [points] * 3, "align_M": [TWICE]})
    sources = Sources(data=str(out))
    with pytest.raises(IntegrityError, match="landmarks and transforms of clip"):
        landmarks_of(sources, open_split(sources, "train"))
