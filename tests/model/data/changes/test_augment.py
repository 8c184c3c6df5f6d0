"""Augmentation: one draw a clip, the same for all its frames, a function of seed, epoch and sample."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lps.model.data.changes.augment import (
    HUE_TURN,
    JPEG_QUALITY,
    SHIFT_PX,
    ClipChange,
    Draws,
    apply_change,
    colour_matrix,
    draw_change,
)
from lps.model.data.clip_data import open_data
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_reader import ClipReader
from lps.model.data.epoch_plan import PlanOptions

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec

    Many = Callable[..., list[list[Spec]]]

Frames = NDArray[np.uint8]
NOTHING = ClipChange(
    flip=False, right_px=0, down_px=0, brightness=1, contrast=1, saturation=1, hue_turn=0, jpeg_quality=None
)


@pytest.fixture
def picture() -> Frames:
    """A smooth picture without symmetry, 40x40."""
    coarse = np.random.default_rng(1).integers(60, 196, (5, 5, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (40, 40), interpolation=cv2.INTER_CUBIC), np.uint8)


def changed(frame: Frames, **changes: float | None) -> Frames:
    """Return one frame after a change."""
    return apply_change(frame[None], replace(NOTHING, **changes))[0]  # type: ignore[arg-type, no-any-return]


def test_no_change_is_no_change(picture: Frames) -> None:
    assert np.array_equal(changed(picture), picture)


@pytest.mark.parametrize("number", range(20))
def test_all_frames_of_a_clip_are_changed_alike(picture: Frames, number: int) -> None:
    still = np.stack([picture] * 5)
    out = apply_change(still, draw_change(Draws(0, number, "key")))
    assert out.shape == still.shape
    assert out.dtype == np.uint8
    assert (out == out[0]).all()


@pytest.mark.parametrize("number", range(10))
def test_a_frame_is_changed_in_the_same_way_whatever_its_neighbours_but_for_their_mean_light(
    picture: Frames, number: int
) -> None:
    change = replace(draw_change(Draws(0, number, "key")), contrast=1.0)
    other = picture[::-1]
    together = apply_change(np.stack([picture, other]), change)
    assert np.array_equal(together[0], apply_change(picture[None], change)[0])
    assert np.array_equal(together[1], apply_change(other[None], change)[0])


def test_a_flip_mirrors(picture: Frames) -> None:
    assert np.array_equal(changed(picture, flip=True), picture[:, ::-1])


def test_a_shift_moves_and_repeats_the_edge(picture: Frames) -> None:
    out = changed(picture, right_px=3, down_px=-2)
    assert np.array_equal(out[:-2, 3:], picture[2:, :-3])
    assert (out[:, :3] == out[:, 3:4]).all()
    assert (out[-2:] == out[-3:-2]).all()


def test_brightness_contrast_and_saturation_do_what_they_say(picture: Frames) -> None:
    x = picture.astype(float)
    luma = x @ [0.299, 0.587, 0.114]
    assert np.abs(changed(picture, brightness=0.8) - x * 0.8).max() <= 1
    mean = luma.mean()
    assert np.abs(changed(picture, contrast=0.8) - (mean + 0.8 * (x - mean))).max() <= 1
    assert np.abs(changed(picture, saturation=0.8) - (luma[..., None] + 0.8 * (x - luma[..., None]))).max() <= 1


def test_a_turn_of_hue_keeps_the_light_and_grey(picture: Frames) -> None:
    grey = np.full((40, 40, 3), 120, np.uint8)
    assert np.abs(changed(grey, hue_turn=HUE_TURN).astype(int) - 120).max() <= 1
    out = changed(picture, hue_turn=HUE_TURN).astype(float)
    weights = [0.299, 0.587, 0.114]
    assert np.abs(out @ weights - picture @ weights).mean() < 1
    assert not np.array_equal(out, picture)


def test_recompression_changes_a_little(picture: Frames) -> None:
    out = changed(picture, jpeg_quality=60)
    far = np.abs(out.astype(int) - picture)
    assert 0 < far.mean() < 8


def test_the_colour_matrix_of_nothing_is_the_identity() -> None:
    assert np.allclose(colour_matrix(NOTHING, 100.0), np.eye(3, 4), atol=1e-9)


def test_draws_keep_their_bounds_and_use_them() -> None:
    draws = [draw_change(Draws(3, 0, f"key-{k}")) for k in range(2000)]
    assert {d.right_px for d in draws} == {d.down_px for d in draws} == {*range(-SHIFT_PX, SHIFT_PX + 1)}
    assert 0.45 < np.mean([d.flip for d in draws]) < 0.55
    qualities = [d.jpeg_quality for d in draws if d.jpeg_quality is not None]
    assert 0.45 < len(qualities) / len(draws) < 0.55
    assert (min(qualities), max(qualities)) == JPEG_QUALITY
    for name in ("brightness", "contrast", "saturation"):
        values = [getattr(d, name) for d in draws]
        assert 0.8 <= min(values) < 0.81 < 1.19 < max(values) < 1.2


def test_draws_depend_on_seed_epoch_and_subject_alone() -> None:
    one = draw_change(Draws(1, 2, "key"))
    assert draw_change(Draws(1, 2, "key")) == one
    others = [Draws(2, 2, "key"), Draws(1, 3, "key"), Draws(1, 2, "other"), Draws(1, 2, "key#1")]
    assert len({one, *map(draw_change, others)}) == 5


def test_the_draw_is_pinned() -> None:
    """A change of this silently changes every resumed run; then the name of its version must change."""
    change = draw_change(Draws(1, 2, "key"))
    assert (change.flip, change.right_px, change.down_px, change.jpeg_quality) == PINNED


PINNED = (False, 4, -1, None)


def test_a_pair_shares_its_draws_and_the_start_of_its_stretch(make: "Maker", spec: "type[Spec]") -> None:
    """A fake with the very frames of its real comes out equal to it, pixel by pixel, at every epoch."""
    real = [spec(video=f"r{k}", n_frames=8, codec="png") for k in range(3)]

    class Twin(spec):  # type: ignore[misc, valid-type]
        """A fake that shows what its original shows."""

        def frames(self) -> list[Frames]:
            return spec(video=self.original, n_frames=8, codec="png").frames()

    fake = [Twin(video=f"f{k}", label=1, original=f"r{k}", n_frames=8, codec="png") for k in range(3)]
    data = open_data(str(make.data_set([real, fake])), "train")
    read = ReadOptions(n_frames=4, augment="strong")
    seen = set()
    with ClipReader(data, read, PlanOptions(batch_size=2, sampling="pairs")) as reader:
        for epoch in range(4):
            for batch in reader.epoch(epoch):
                assert batch.labels.tolist() == [0, 1]
                assert torch.equal(batch.frames[0], batch.frames[1])
                seen.add(batch.frames[0].numpy().tobytes())
    assert len(seen) == 12
    with ClipReader(data, read, PlanOptions(batch_size=6)) as reader:
        (batch,) = reader.epoch(0)
        assert len({clip.numpy().tobytes() for clip in batch.frames}) == 6, "without pairs, each its own"


def test_augmentation_does_not_depend_on_the_batch_or_the_rank(make: "Maker", many: "Many") -> None:
    data = open_data(str(make.data_set(many(8))), "train")
    read = ReadOptions(n_frames=3, augment="strong")
    found = []
    for size in (2, 8):
        with ClipReader(data, read, PlanOptions(batch_size=size)) as reader:
            batches = list(reader.epoch(5))
        found.append({key: clip.numpy().tobytes() for b in batches for key, clip in zip(b.keys, b.frames, strict=True)})
    assert found[0] == found[1]
