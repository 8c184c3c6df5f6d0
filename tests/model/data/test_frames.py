"""Which frames are used, and their way from bytes to normalised blocks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lps.model.data.frames import IMAGENET_MEAN, IMAGENET_STD, frame_span, frames_to_blocks


@given(n=st.integers(1, 100), wanted=st.integers(1, 100), position=st.floats(0, 1, exclude_max=True))
def test_a_span_is_inside_and_as_long_as_can_be(n: int, wanted: int, position: float) -> None:
    for start in ("seeded", "centre"):
        first, stop = frame_span(n, wanted, start, position)
        assert 0 <= first < stop <= n
        assert stop - first == min(n, wanted)


def test_spans_begin_where_they_are_told() -> None:
    assert frame_span(60, 30, "centre", 0.9) == (15, 45)
    assert frame_span(60, 30, "seeded", 0.0) == (0, 30)
    assert frame_span(60, 30, "seeded", 0.999) == (30, 60)
    assert frame_span(60, 60, "seeded", 0.999) == (0, 60)
    with pytest.raises(ValueError, match="at least one frame"):
        frame_span(60, 0, "centre", 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_blocks_are_the_frames_in_order_and_normalised(dtype: torch.dtype) -> None:
    frames = torch.randint(0, 256, (2, 12, 8, 8, 3), dtype=torch.uint8)
    blocks = frames_to_blocks(frames, 4, dtype)
    assert blocks.shape == (2, 3, 3, 4, 8, 8)
    assert blocks.dtype == dtype
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    for clip, block, t in ((0, 0, 0), (1, 2, 3), (0, 1, 2)):
        expected = ((frames[clip, block * 4 + t] / 255 - mean) / std).permute(2, 0, 1)
        assert torch.allclose(
            blocks[clip, block, :, t].float(), expected, atol=1e-5 if dtype != torch.bfloat16 else 0.01
        )


def test_channels_are_innermost_in_memory() -> None:
    blocks = frames_to_blocks(torch.zeros(2, 10, 8, 8, 3, dtype=torch.uint8), 5)
    frames = blocks.flatten(0, 1).transpose(1, 2).flatten(0, 1)
    assert frames.is_contiguous(memory_format=torch.channels_last)
    assert frames.data_ptr() == blocks.data_ptr(), "no copy on the way into 2-D convolutions"


def test_frames_come_back() -> None:
    frames = torch.randint(0, 256, (2, 10, 8, 8, 3), dtype=torch.uint8)
    pixels = frames_to_blocks(frames, 5).permute(0, 1, 3, 4, 5, 2).flatten(1, 2)
    back = (pixels * torch.tensor(IMAGENET_STD) + torch.tensor(IMAGENET_MEAN)) * 255
    assert torch.equal(back.round().to(torch.uint8), frames)


def test_what_is_no_clip_is_refused() -> None:
    frames = torch.zeros(2, 10, 8, 8, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="10 frames do not divide into blocks of 4"):
        frames_to_blocks(frames, 4)
    with pytest.raises(ValueError, match="uint8"):
        frames_to_blocks(frames.float(), 5)
    with pytest.raises(ValueError, match="uint8"):
        frames_to_blocks(frames[0], 5)
