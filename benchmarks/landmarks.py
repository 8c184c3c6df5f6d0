"""How far sparse detection is from detecting every frame, clip by clip; one table per localizer.

    python benchmarks/landmarks.py                                    the sample videos of lps-prep demo
    python benchmarks/landmarks.py --media DIR --weights-dir DIR      videos of one person each, named man_* and woman_*

Both runs use the same network and the same code; the reference has a stride of 1. Distances are between the final
landmarks (the ones that frames are aligned by), in output px. Jitter is the mean second difference of the landmarks
over time, output px, of sparse and of every-frame detection.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import media  # type: ignore[import-not-found]  # beside this file
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lps.manifests.records import Clip
from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import ALL_CLIPS, Params
from lps.pipeline.faces.detector import Localizer
from lps.pipeline.faces.localizers import load_localizer

NAMES = ("man_*", "woman_*")
"""Files that show one person."""
SHORT = 20
"""Frames of a clip for videos that are too short for one of the usual length."""


def clips_of(path: Path, net: Localizer, params: Params) -> dict[int, Clip]:
    """Return the clips of a video by their first frame."""
    result = process_video(path, b"0" * 16, net.detect, params)
    return {clip.frame_idx[0]: clip for clip in result.clips}


def distances(clip: Clip, reference: Clip) -> NDArray[np.float64]:
    """Return the distance of every landmark to its reference, (frames, 5), output px."""
    points = np.array(clip.lmk5).reshape(-1, 5, 2) - np.array(reference.lmk5).reshape(-1, 5, 2)
    matrices = np.array(reference.align_M).reshape(-1, 2, 3)[:, :, :2]
    moved = np.einsum("nij,npj->npi", matrices, points)
    return np.asarray(np.hypot(moved[..., 0], moved[..., 1]), np.float64)


def jitter(clips: Sequence[Clip]) -> float:
    """Return the mean jitter of clips."""
    return float(np.mean([clip.quality["jitter_px"] for clip in clips]))


def row(path: Path, net: Localizer, params: Params) -> tuple[list[str], float, float] | None:
    """Measure one video; None if it gives no clip."""
    every = replace(params, localize=replace(params.localize, stride_frames=1))
    sparse, reference = clips_of(path, net, params), clips_of(path, net, every)
    shared = sorted(set(sparse) & set(reference))
    if not shared:
        return None
    found = np.concatenate([distances(sparse[k], reference[k]) for k in shared])
    detected = sum(source == 0 for k in shared for source in sparse[k].box_source)
    mean, p95 = float(found.mean()), float(np.percentile(found, 95))
    jitters = f"{jitter([sparse[k] for k in shared]):.2f} / {jitter([reference[k] for k in shared]):.2f}"
    clips = f"{len(shared)}/{len(reference)}"
    cells = [path.name, clips, f"{detected}/{len(found)}", f"{mean:.2f}", f"{p95:.2f}", f"{found.max():.1f}", jitters]
    return cells, mean, p95


def main() -> None:
    """Measure every single-face clip with each localizer and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    media.add_media_options(parser)
    parser.add_argument("--limit", type=int, help="only so many videos")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with media.videos(args.media, NAMES) as paths:
        show(paths[: args.limit], args.localizers, args.weights_dir)


def show(paths: Sequence[Path], localizers: Sequence[str], weights_dir: Path | None) -> None:
    """Print a table for each localizer whose weights are here."""
    for name in media.usable(localizers, weights_dir):
        net = load_localizer(name, weights_dir=weights_dir, device="cpu", batch_size=1)
        params = Params(localizer=name, clips=ALL_CLIPS)
        title = f"{name}, bound {params.localize.bound_px} px"
        table = Table("video", "clips", "detected", "mean", "p95", "max", "jitter", title=title)
        worst_mean = worst_p95 = 0.0
        for path in paths:
            measured = row(path, net, params) or row(path, net, replace(params, clip_frames=SHORT))
            if measured is not None:
                cells, mean, p95 = measured
                table.add_row(*cells)
                worst_mean, worst_p95 = max(worst_mean, mean), max(worst_p95, p95)
        table.add_row("worst", "", "", f"{worst_mean:.2f}", f"{worst_p95:.2f}", "", "")
        Console(width=120).print(table)


if __name__ == "__main__":
    main()
