"""Late crops: what is cut out of clips that are stored with more around the face, and how wide in training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from lps.manifests.arrays import Pixels
from lps.manifests.errors import RefusedError
from lps.model.data.clip_data import ClipData, open_data
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions
from lps.model.data.epoch_plan import PlanOptions, evaluation_plan
from lps.model.data.mix import NamedData
from lps.model.data.shard_cache import ShardCache
from lps.model.data.shard_index import open_shards
from lps.model.data.sources import Sources, open_split

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec

STILL = ReadOptions(n_frames=3, train=False)
DRAWN = ReadOptions(n_frames=3, margins=(1.0, 1.3), image_px=32)


@pytest.fixture
def specs(spec: "type[Spec]") -> "list[Spec]":
    """Return two families of clips of 32 px with 43 px stored: 5 more at the left and above, 6 at right and below."""
    return [
        spec(video=f"{kind}{k}", label=label, original=f"real{k}" if label else None, margin=1.34, codec="png")
        for k in range(2)
        for label, kind in enumerate(("real", "fake"))
    ]


@pytest.fixture
def wide(make: "Maker", specs: "list[Spec]") -> ClipData:
    return open_data(str(make.data_set([specs])), "train")


def read(
    data: ClipData, options: ReadOptions = STILL, plan: PlanOptions | None = None, n_workers: int = 0, epoch: int = 0
) -> dict[str, Pixels]:
    """Return the frames of every clip by its name."""
    work = WorkOptions(n_workers=n_workers)
    with ClipReader(data, options, plan or evaluation_plan(2), work) as reader:
        batches = list(reader.epoch(epoch))
    return {key: frames for batch in batches for key, frames in zip(batch.keys, batch.frames.numpy(), strict=True)}


def stored(spec: "Spec") -> Pixels:
    return np.stack(spec.frames())


def test_the_inner_square_is_read_by_default_with_manifests_and_without(
    make: "Maker", specs: "list[Spec]", wide: ClipData, cache: ShardCache
) -> None:
    found = read(wide)
    plain = read(open_data(str(make.data_set([[replace(each, margin=1.0) for each in specs]])), "train"))
    shards = read(open_shards(make.shards([specs]), cache))
    for spec in specs:
        assert found[spec.key].shape == (3, 32, 32, 3)
        assert np.array_equal(found[spec.key], stored(spec)[:, 5:37, 5:37])
        assert np.array_equal(found[spec.key], plain[spec.key])
        assert np.array_equal(found[spec.key], shards[spec.key])


@pytest.mark.parametrize(("margin", "first", "side"), [(1.34, 0, 43), (1.25, 1, 40), (1.03, 5, 33)])
def test_a_margin_cuts_about_the_middle_of_the_face(
    specs: "list[Spec]", wide: ClipData, margin: float, first: int, side: int
) -> None:
    whole, small = (read(wide, replace(STILL, margin=margin, image_px=px)) for px in (None, 32))
    for spec in specs:
        cut = stored(spec)[:, first : first + side, first : first + side]
        assert np.array_equal(whole[spec.key], cut)
        shrunk = [cv2.resize(frame, (32, 32), interpolation=cv2.INTER_LINEAR) for frame in cut]
        assert np.array_equal(small[spec.key], np.stack(shrunk))


def test_jpeg_decodes_whole_before_it_is_cut(make: "Maker", specs: "list[Spec]") -> None:
    jpegs = [replace(each, codec="jpg") for each in specs]
    data = open_data(str(make.data_set([jpegs])), "train")
    whole, inner = read(data, replace(STILL, margin=1.34)), read(data)
    for spec in jpegs:
        assert np.array_equal(whole[spec.key][:, 5:37, 5:37], inner[spec.key])


def test_drawn_margins_follow_from_seed_epoch_and_sample(specs: "list[Spec]", wide: ClipData) -> None:
    plans = [PlanOptions(batch_size=size, seed=seed) for seed, size in ((0, 1), (0, 4), (1, 4))]
    one, four, other = (read(wide, DRAWN, plan) for plan in plans)
    next_epoch = read(wide, DRAWN, plans[0], epoch=1)
    by_workers = read(wide, DRAWN, plans[0], n_workers=2)
    widths = {spec.key: width_of_border(one[spec.key]) for spec in specs}
    assert len(set(widths.values())) > 1, "each clip has a margin of its own"
    assert min(widths.values()) >= 0
    for spec in specs:
        assert np.array_equal(one[spec.key], four[spec.key])
        assert np.array_equal(one[spec.key], by_workers[spec.key])
    assert any(not np.array_equal(one[spec.key], other[spec.key]) for spec in specs)
    assert any(not np.array_equal(one[spec.key], next_epoch[spec.key]) for spec in specs)


def width_of_border(frames: Pixels) -> int:
    """Return how many px at the left are of the colour that surrounds the face, which is as many in all frames."""
    colours = 20 * (np.arange(len(frames)) + 1)
    around = (np.abs(frames.astype(int) - colours[:, None, None, None]) <= 1).all(axis=(1, 3))
    (width,) = set(np.cumprod(around, axis=1).sum(axis=1).tolist())
    return int(width)


def test_a_fake_and_its_original_have_one_margin(specs: "list[Spec]", wide: ClipData) -> None:
    found = read(wide, DRAWN, PlanOptions(batch_size=2, sampling="pairs", seed=4))
    for real, fake in (specs[:2], specs[2:]):
        assert width_of_border(found[real.key]) == width_of_border(found[fake.key])


def test_evaluation_draws_nothing(wide: ClipData) -> None:
    drawn = read(wide, replace(DRAWN, train=False))
    assert all(np.array_equal(frames, drawn[key]) for key, frames in read(wide).items())


def test_data_sets_of_different_margins_are_read_together(
    make: "Maker", specs: "list[Spec]", assert_refused: Callable[[ClipData, ReadOptions, str], None]
) -> None:
    plain = [replace(each, video=f"plain-{each.video}", margin=1.0, original=None) for each in specs]
    places = {"plain": make.data_set([plain]), "wide": make.data_set([specs])}
    data = open_split(Sources(sets=tuple(NamedData(name=name, data=str(out)) for name, out in places.items())), "train")
    found = read(data)
    for name, mine in (("plain", plain), ("wide", specs)):
        for spec in mine:
            inner = stored(spec) if name == "plain" else stored(spec)[:, 5:37, 5:37]
            assert np.array_equal(found[f"{name}:{spec.key}"], inner)
    said = "the clips of plain are stored with a margin of 1 (a face of 32 px in 32), and 1.1 is asked for"
    assert_refused(data, replace(STILL, margin=1.1), said)
    assert_refused(data, replace(DRAWN, margins=(1.0, 1.1)), said)


@pytest.fixture
def assert_refused() -> Callable[[ClipData, ReadOptions, str], None]:
    def check(data: ClipData, options: ReadOptions, said: str) -> None:
        with pytest.raises(RefusedError) as caught:
            ClipReader(data, options)
        assert str(caught.value).startswith(said)
        assert "\n" not in str(caught.value)

    return check


def test_more_than_is_stored_is_one_line(
    wide: ClipData, assert_refused: Callable[[ClipData, ReadOptions, str], None]
) -> None:
    said = (
        "the clips are stored with a margin of 1.344 (a face of 32 px in 43), and 1.5 is asked for (data.margin, "
        "augment.margins, --margins): ask for less, or prepare them with `[crop] margin = 1.5`"
    )
    assert_refused(wide, replace(STILL, margin=1.5), said)
    assert_refused(wide, replace(DRAWN, margins=(1.0, 1.5)), said)


def test_an_epoch_is_not_gone_on_with_by_another_margin(wide: ClipData, tmp_path: Path) -> None:
    plan = PlanOptions(batch_size=1)
    with ClipReader(wide, replace(DRAWN, margins=None), plan) as reader:
        state = reader.state(0, 2)
        assert reader.resume(state) == (0, 2)
        older = {**state, "plan": {k: v for k, v in state["plan"].items() if k not in ("margin", "margins")}}
        assert reader.resume(older) == (0, 2), "before there were margins, the inner square was cut"
    with ClipReader(wide, DRAWN, plan) as reader, pytest.raises(RefusedError, match="margins was None and is"):
        reader.resume(state)
    with (
        ClipReader(wide, ReadOptions(n_frames=3, margin=1.2), plan) as reader,
        pytest.raises(RefusedError, match=r"margin was 1\.0 and is 1\.2"),
    ):
        reader.resume({**state, "plan": {**state["plan"], "image_px": None}})
