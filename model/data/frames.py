"""Which frames of a clip are used, and how they reach the network: uint8 until they are on the device."""

from typing import Literal

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Start = Literal["seeded", "centre"]
"""Where to begin in a clip with more frames than asked for."""


def frame_span(n_available: int, n_wanted: int, start: Start, position: float) -> tuple[int, int]:
    """Return the first frame to use and the one after the last: consecutive frames, fewer where there are fewer.

    `position` in [0, 1) is the draw for `seeded`.
    """
    if n_wanted < 1:
        raise ValueError(f"a clip has at least one frame, got {n_wanted = }")
    slack = max(0, n_available - n_wanted)
    first = int(position * (slack + 1)) if start == "seeded" else slack // 2
    return first, min(n_available, first + n_wanted)


def frames_to_blocks(frames: Tensor, block_frames: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, N * T, H, W, 3) uint8 -> (B, N, 3, T, H, W) of `dtype`, normalised by ImageNet's mean and deviation.

    Runs on the device of `frames`, computes in float32, and keeps the channels innermost in memory, which is what
    convolutions on GPUs want. `block_frames` is T. Raises ValueError unless the frames divide into whole blocks.
    """
    if frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 (B, frames, H, W, 3), got {frames.dtype} {tuple(frames.shape)}")
    if block_frames < 1 or frames.shape[1] % block_frames:
        raise ValueError(f"{frames.shape[1]} frames do not divide into blocks of {block_frames}")
    scale = torch.tensor([1 / (255 * std) for std in IMAGENET_STD], device=frames.device)
    shift = torch.tensor([-m / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)], device=frames.device)
    pixels = (frames * scale).add_(shift).to(dtype)
    clips, n_frames, height, width, _ = frames.shape
    blocks = pixels.view(clips, n_frames // block_frames, block_frames, height, width, 3)
    return blocks.permute(0, 1, 5, 2, 3, 4)
