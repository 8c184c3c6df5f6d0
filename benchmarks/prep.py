"""Frames per second of lps-prep beside its bounds and beside the way the field does it; one table, one run.

    python benchmarks/prep.py                                    the sample videos of lps-prep demo
    python benchmarks/prep.py --media DIR --weights-dir DIR      videos with the names of CLIPS

Rows: (a) decode only; (b) decode, warp and encode with a fixed matrix; (c) lps-prep on Ray with each localizer; the
same work without Ray; (d) facenet-pytorch's MTCNN on every full-resolution frame, crop, write. All with the same
number of processes, one thread each, after loading. Frames of (c) are those that end in clips, of the others all.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import cv2
import media  # type: ignore[import-not-found]  # beside this file
import numpy as np
from rich.console import Console
from rich.table import Table

from lps.manifests.splits.records import SplitParams
from lps.pipeline.clips.encode import encode_image
from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import ALL_CLIPS, Params
from lps.pipeline.faces.align import warp
from lps.pipeline.faces.localizers import load_localizer
from lps.pipeline.job.events import DetectorsReady, PrepEvent, ShardCommitted
from lps.pipeline.job.request import PrepRequest, RunOptions
from lps.pipeline.job.run import run_job
from lps.pipeline.video.decode import DecodeStats, decode

CLIPS = (
    "man_glasses_selfie_portrait_720x1280.mp4",
    "man_sofa_gestures_1920x1080.mp4",
    "woman_full_body_small_face_720x1080.mp4",
    "woman_slow_zoom_1280x720.mp4",
    "woman_small_face_hevc_1080x1920.mp4",
)
"""The 720p and 1080p clips with one face and enough frames for a clip."""


@dataclass(frozen=True, slots=True)
class Speed:
    """One row of the table."""

    name: str
    n_workers: int
    n_frames: int
    seconds: float

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.n_frames / self.seconds


# ---- what one process does; module level, so that spawned processes find it ------------------------------------------

_LOADED: dict[str, Any] = {}


def load(localizer: str | None, weights_dir: Path | None) -> None:
    """Prepare a process: one thread, and its networks."""
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if localizer == "field":
        from facenet_pytorch import MTCNN

        _LOADED["net"] = MTCNN(device="cpu")
    elif localizer:
        _LOADED["net"] = load_localizer(localizer, weights_dir=weights_dir, device="cpu", batch_size=1)


def decode_only(path: str) -> int:
    """(a)"""
    return sum(1 for _ in decode(Path(path), Params(), DecodeStats()))


def decode_warp_encode(path: str) -> int:
    """(b)"""
    params, n = Params(), 0
    for frame in decode(Path(path), params, DecodeStats()):
        scale = 1.2 * params.out_px / min(frame.size)
        matrix = np.array([[scale, 0, -10], [0, scale, -10]], np.float32)
        encode_image(warp(frame.rgb(), matrix, params.out_px), params)
        n += 1
    return n


def ours_without_ray(path: str, localizer: str) -> int:
    """(c) in this process."""
    net = _LOADED["net"]
    params = Params(localizer=localizer, clips=ALL_CLIPS)
    result = process_video(Path(path), b"0" * 16, net.detect, params)
    return sum(clip.n_frames for clip in result.clips)


def field(path: str) -> int:
    """(d)"""
    net, n = _LOADED["net"], 0
    with av.open(path) as container, tempfile.TemporaryDirectory() as folder:
        for frame in container.decode(video=0):
            rgb = frame.to_ndarray(format="rgb24")
            boxes, _ = net.detect(rgb)
            n += 1
            if boxes is None:
                continue
            x0, y0, x1, y1 = np.maximum(boxes[0], 0).astype(int)
            face = cv2.resize(rgb[y0:y1, x0:x1], (224, 224))
            cv2.imwrite(f"{folder}/{n:04d}.jpg", face[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return n


# ---- measuring -------------------------------------------------------------------------------------------------------


def ready(_: int) -> None:
    """Do nothing; a process that answers has loaded."""
    time.sleep(0.2)  # long enough that every process of the pool answers once


def measure(
    name: str,
    work: Callable[..., int],
    paths: list[str],
    n_workers: int,
    localizer: str | None,
    weights_dir: Path | None,
    *extra: str,
) -> Speed:
    """Run `work` over `paths` in `n_workers` processes and time it, loading left out."""
    with ProcessPoolExecutor(n_workers, get_context("spawn"), load, (localizer, weights_dir)) as pool:
        list(pool.map(ready, range(4 * n_workers)))
        started = time.perf_counter()
        frames = sum(pool.map(work, paths, *([value] * len(paths) for value in extra)))
        return Speed(name, n_workers, frames, time.perf_counter() - started)


def measure_job(localizer: str, source: Path, n_workers: int, weights_dir: Path | None) -> Speed:
    """Run the whole job on Ray and time it from the first video to the last commit."""
    marks: dict[str, float] = {}

    def on_event(event: PrepEvent) -> None:
        if isinstance(event, DetectorsReady):
            marks["ready"] = time.perf_counter()
        elif isinstance(event, ShardCommitted):
            marks["last"] = time.perf_counter()

    with tempfile.TemporaryDirectory() as out:
        request = PrepRequest(
            source=str(source),
            out=out,
            dataset="folder",
            params=Params(localizer=localizer, clips=ALL_CLIPS),
            split=SplitParams(),
        )
        summary = run_job(request, RunOptions(workers=n_workers, weights_dir=weights_dir), on_event)
    frames = sum(clips for _, clips in summary.by_split.values()) * request.params.clip_frames
    return Speed(f"(c) lps-prep, {localizer}", n_workers, frames, marks["last"] - marks["ready"])


@contextmanager
def copies(videos: Sequence[Path], n: int) -> Iterator[tuple[Path, list[str]]]:
    """Give a source folder with `n` copies of every video, longest work first."""
    with tempfile.TemporaryDirectory() as folder:
        real = Path(folder) / "real"
        real.mkdir()
        for k in range(n):
            for video in videos:
                # a trailing byte more makes each copy a file of its own; containers ignore it
                shutil.copy(video, real / f"{k}_{video.name}")
                with (real / f"{k}_{video.name}").open("ab") as file:
                    file.write(b"\0" * (k + 1))
        paths = sorted(real.iterdir(), key=lambda p: ("1080" not in p.name, p.name))
        yield Path(folder), [str(p) for p in paths]


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    media.add_media_options(parser)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--copies", type=int, default=6, help="copies of each video, for all rows but (d)")
    parser.add_argument("--limit", type=int, help="only so many videos")
    args = parser.parse_args()
    n, weights = args.workers, args.weights_dir
    with (
        media.videos(args.media, CLIPS) as videos,
        copies(videos[: args.limit], args.copies) as (source, paths),
        copies(videos[: args.limit], 1) as (_, once),
    ):
        rows = [
            measure("(a) decode", decode_only, paths, n, None, weights),
            measure("(b) decode, warp, encode", decode_warp_encode, paths, n, None, weights),
        ]
        for localizer in media.usable(args.localizers, weights):
            rows += [measure_job(localizer, source, workers, weights) for workers in sorted({n, 1}, reverse=True)]
            name = f"same without Ray, {localizer}"
            rows.append(measure(name, ours_without_ray, paths, n, localizer, weights, localizer))
        rows.append(measure("(d) MTCNN, every full frame", field, once, n, "field", weights))
    show(rows)


def show(rows: list[Speed]) -> None:
    """Print the table: speeds, and each beside (b) and (d) with as many workers."""
    b = next(row for row in rows if row.name.startswith("(b)"))
    d = next(row for row in rows if row.name.startswith("(d)"))
    table = Table("what", "workers", "frames", "seconds", "frames/s", "of (b)", "times (d)")
    for row in rows:
        table.add_row(
            row.name, str(row.n_workers), str(row.n_frames), f"{row.seconds:.1f}", f"{row.fps:.1f}",
            f"{row.fps / b.fps:.2f}", f"{row.fps / d.fps:.1f}",
        )  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
