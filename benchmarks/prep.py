"""What preparing a video costs: CPU seconds of lps-prep beside one whole decode and beside the way the field does it.

    python benchmarks/prep.py                                    the sample videos of lps-prep demo
    python benchmarks/prep.py --media DIR --weights-dir DIR      videos of 300 and 500 frames, see sources.py

The unit is decoding a whole video once: PyAV, one thread, no conversion. lps-prep on Ray counts all processes, Ray's
too, probing and writing included; its start is taken out by a line through two numbers of copies. Without Ray it is
`process_video` in one process, on the same copies, so with the same clips. The way of the field is facenet-pytorch's
MTCNN on every full-resolution frame, crop, write: measured on the first frames of one video of each size, and
multiplied by the frames of each video. `estimate` is what `lps-prep plan` says of the same videos. Frames per second
are those of clips.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import cv2
import media  # type: ignore[import-not-found]  # beside this file
import numpy as np
import processes  # type: ignore[import-not-found]
import sources  # type: ignore[import-not-found]
from rich.console import Console
from rich.table import Table

from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import open_store
from lps.pipeline.clips.effort import effort
from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import ALL_CLIPS, DecodeParams, Params
from lps.pipeline.faces.localizers import load_localizer
from lps.pipeline.job.plan import clips_bound
from lps.pipeline.job.request import PrepRequest, RunOptions
from lps.pipeline.job.run import run_job
from lps.pipeline.sources.adapters import SourceFile, SourceOptions, list_videos
from lps.pipeline.video.kept_probes import Probes
from lps.pipeline.video.probe import probe_file
from lps.pipeline.video.source_reader import SourceReader, SourceRef

MOST_DECODES = {"retinaface-mobilenet": 0.85, "mtcnn": 1.1}
"""Bar: CPU seconds a video, in whole decodes of it."""
LEAST_TIMES_THE_FIELD = {"mtcnn": 30}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one video costs; the mean of many."""

    cpu_s: float
    core_s: float
    """Wall time, times the cores that worked."""
    n_frames: float = 0.0
    """In clips."""
    n_decoded: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table."""

    name: str
    cost: Cost
    estimate_s: float | None = None


# ---- what one process does; module level, so that spawned processes find it ------------------------------------------


def alone(work: Callable[..., Any], *args: object) -> Any:
    """Return what `work` gives in a process of its own, with one thread."""
    with ProcessPoolExecutor(1, get_context("spawn"), one_thread) as pool:
        return pool.submit(work, *args).result()


def one_thread() -> None:
    """Keep libraries from using more than one core."""
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def timed(work: Callable[[Any], tuple[int, int]], things: Sequence[Any]) -> Cost:
    """Return the mean cost of `work` on each of `things`; it returns frames in clips, and decoded."""
    cpu, wall = time.process_time(), time.perf_counter()
    counts = [work(thing) for thing in things]
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    n_frames, n_decoded = np.mean(counts, axis=0).tolist()
    n = len(things)
    return Cost(cpu_s=cpu / n, core_s=wall / n, n_frames=n_frames, n_decoded=n_decoded)


def decode_whole(paths: Sequence[Path]) -> Cost:
    """Decode each video once and do nothing with its frames."""

    def decode(path: Path) -> tuple[int, int]:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count, stream.thread_type = 1, "NONE"
            return 0, sum(1 for _ in container.decode(stream))

    decode(paths[0])  # which loads what it needs
    return timed(decode, paths)


def field(path: Path, n_frames: int) -> Cost:
    """Do as the field does with the first frames of a video; return what one frame costs."""
    from facenet_pytorch import MTCNN

    net = MTCNN(device="cpu")
    with av.open(path) as container, tempfile.TemporaryDirectory() as folder:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.thread_type = 1, "NONE"
        frames = container.decode(stream)

        def detect_and_write(number: int) -> tuple[int, int]:
            rgb = next(frames).to_ndarray(format="rgb24")
            boxes, _ = net.detect(rgb)
            if boxes is not None:
                x0, y0, x1, y1 = np.maximum(boxes[0], 0).astype(int)
                face = cv2.resize(rgb[y0:y1, x0:x1], (224, 224))
                cv2.imwrite(f"{folder}/{number:04d}.jpg", face[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            return 1, 1

        detect_and_write(0)
        return timed(detect_and_write, range(1, n_frames))


def without_ray(videos: Sequence[tuple[Path, bytes]], params: Params, weights_dir: Path | None) -> Cost:
    """Process each video in this process."""
    net = load_localizer(params.localizer, weights_dir=weights_dir, device="cpu", batch_size=1)

    def process(video: tuple[Path, bytes]) -> tuple[int, int]:
        result = process_video(*video, net.detect, params)
        return sum(clip.n_frames for clip in result.clips), result.outcome.n_frames_decoded or 0

    process(videos[0])  # which loads what it needs
    return timed(process, videos)


def job(source: Path, params: Params, n_workers: int, weights_dir: Path | None) -> tuple[float, float, int]:
    """Run the whole job on Ray; return CPU seconds of all processes, seconds, and frames in clips."""
    counter, started = processes.Processes(), time.perf_counter()
    counter.start()
    with tempfile.TemporaryDirectory() as out:
        request = PrepRequest(
            source=str(source), out=out, params=params, split=SplitParams(rule="random", allow_leaky=True)
        )
        summary = run_job(request, RunOptions(workers=n_workers, weights_dir=weights_dir))
    cpu_s, seconds = counter.cpu_seconds(), time.perf_counter() - started
    counter.end()
    return cpu_s, seconds, params.clip_frames * sum(clips for _, clips in summary.by_split.values())


# ---- measuring -------------------------------------------------------------------------------------------------------


def make_copies(videos: Sequence[Path], numbers: range, folder: Path) -> None:
    """Put copies of every video into a source folder: the same pictures, other bytes, and so other clips."""
    real = folder / "real"
    real.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        for video in videos:
            path = real / f"{number}_{video.name}"
            shutil.copyfile(video, path)
            with path.open("ab") as file:
                file.write(b"\0\0\0\x10free" + number.to_bytes(8, "big"))  # a box that players skip


def identified(folder: Path) -> list[tuple[Path, bytes]]:
    """Return the videos of a source folder with their ids, which decide where clips begin."""
    store = open_store(str(folder))
    files = [SourceFile(path=file.path, n_bytes=1) for file in store.walk()]
    listed = list_videos("folder", files, SourceOptions(read_bytes=store.read)).videos
    return [(folder / video.uri, video.video_id) for video in listed]


def told(row: Row) -> Row:
    """Return a row, and tell of it: the table comes late."""
    print(f"{row.name}: {row.cost.cpu_s:.2f} CPU s a video", file=sys.stderr, flush=True)
    return row


def estimate_s(paths: Sequence[Path], params: Params) -> float:
    """Return the CPU seconds of a video as `lps-prep plan` estimates them."""
    reader = SourceReader(open_store(str(paths[0].parent)))
    probes = Probes.of({path.name: probe_file(reader, SourceRef(path.name), params.limits) for path in paths}).table
    return effort(probes, clips_bound(probes["n_frames_promised"], params), params).core_seconds / len(paths)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all rows share."""

    few: Path
    """Source folder with the smaller number of copies."""
    many: Path
    """And with the larger."""
    once: tuple[tuple[Path, bytes], ...]
    """Videos of one copy, with their ids."""
    added: tuple[tuple[Path, bytes], ...]
    """Those that only `many` has."""
    n_workers: int
    weights_dir: Path | None

    def on_ray(self, params: Params) -> Cost:
        """Run the job on both folders; return what one of the added videos costs."""
        few, many = (alone(job, folder, params, self.n_workers, self.weights_dir) for folder in (self.few, self.many))
        cpu, wall, frames = ((b - a) / len(self.added) for a, b in zip(few, many, strict=True))
        return Cost(cpu_s=cpu, core_s=wall * self.n_workers, n_frames=frames)

    def rows(self, localizer: str, n_clips: int) -> list[Row]:
        """Return the rows of one localizer, that of the job first."""
        usual = Params(localizer=localizer, clips=n_clips, decode=DecodeParams(scan="window"))
        whole = replace(usual, decode=DecodeParams(scan="whole"))
        rows = [
            self.without_ray("the same without Ray", usual, self.added),
            self.without_ray("without Ray, scan = whole", whole, self.once),
            self.without_ray("without Ray, clips = all", replace(usual, clips=ALL_CLIPS), self.once),
        ]
        cost = replace(self.on_ray(usual), n_decoded=rows[0].cost.n_decoded)
        return [told(Row(name=f"lps-prep on Ray, {localizer}", cost=cost, estimate_s=rows[0].estimate_s)), *rows]

    def without_ray(self, name: str, params: Params, videos: Sequence[tuple[Path, bytes]]) -> Row:
        """Return the row of some videos, processed one after the other."""
        cost = alone(without_ray, videos, params, self.weights_dir)
        return told(Row(name=name, cost=cost, estimate_s=estimate_s([path for path, _ in videos], params)))


def field_cost(paths: Sequence[Path], n_frames: int) -> Cost:
    """Return what a video costs the field on average, from some frames of one video of each size."""
    by_size: dict[tuple[int, int], Cost] = {}
    costs = []
    for path in paths:
        with av.open(path) as container:
            stream = container.streams.video[0]
            size, n = (stream.width, stream.height), stream.frames
        if size not in by_size:
            by_size[size] = alone(field, path, n_frames)
        costs.append((n * by_size[size].cpu_s, n * by_size[size].core_s, n))
    cpu, core, n = np.mean(costs, axis=0).tolist()
    return Cost(cpu_s=cpu, core_s=core, n_frames=n, n_decoded=n)


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    media.add_media_options(parser)
    sources.add_sources_option(parser)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clips", type=int, default=1, help="clips a video; another row has all")
    parser.add_argument("--copies", default="1,4", help="two numbers of copies of each video; default %(default)s")
    parser.add_argument("--field-frames", type=int, default=20, help="frames on which the way of the field is measured")
    parser.add_argument("--limit", type=int, help="only so many videos")
    args = parser.parse_args()
    few, many = (int(n) for n in args.copies.split(","))
    with (
        media.videos(args.media, sources.CLIPS) as clips,
        tempfile.TemporaryDirectory(prefix="lps-prep-") as name,
    ):
        videos, folder = sources.long_videos(clips, args.sources)[: args.limit], Path(name)
        make_copies(videos, range(few), folder / "few")
        make_copies(videos, range(many), folder / "many")
        with_ids = identified(folder / "many")
        first, added = (
            tuple((path, video_id) for path, video_id in with_ids if int(path.name.partition("_")[0]) in numbers)
            for numbers in (range(1), range(few, many))
        )
        bench = Bench(
            few=folder / "few", many=folder / "many", once=first, added=added,
            n_workers=args.workers, weights_dir=args.weights_dir,
        )  # fmt: skip
        rows = [
            told(Row(name="decode the whole video", cost=alone(decode_whole, videos))),
            told(Row(name="MTCNN, every full frame", cost=field_cost(videos, args.field_frames))),
        ]
        for localizer in media.usable(args.localizers, args.weights_dir):
            rows += bench.rows(localizer, args.clips)
    show(rows, args.workers)


def show(rows: list[Row], n_workers: int) -> None:
    """Print the table, and how far the bars are."""
    decode, by_field = rows[0].cost, rows[1].cost
    table = Table(
        "what", "CPU s a video", "in decodes", "estimate", "videos/s and core", "frames/s and core", "decoded",
        "times the field", title=f"{n_workers} workers on Ray",
    )  # fmt: skip
    for row in rows:
        cost = row.cost
        table.add_row(
            row.name,
            f"{cost.cpu_s:.2f}",
            f"{cost.cpu_s / decode.cpu_s:.2f}",
            "" if row.estimate_s is None else f"{row.estimate_s:.2f}",
            f"{1 / cost.core_s:.3f}",
            f"{cost.n_frames / cost.core_s:.1f}" if cost.n_frames else "",
            f"{cost.n_decoded:.0f}" if cost.n_decoded else "",
            f"{by_field.cpu_s / cost.cpu_s:.1f}",
        )
    Console(width=150).print(table)
    for row in rows:
        localizer = row.name.removeprefix("lps-prep on Ray, ")
        if localizer in MOST_DECODES:
            print(f"{localizer}: {row.cost.cpu_s / decode.cpu_s:.2f} whole decodes, at most {MOST_DECODES[localizer]}")
        if localizer in LEAST_TIMES_THE_FIELD:
            times = by_field.cpu_s / row.cost.cpu_s
            print(f"{localizer}: {times:.1f} times the way of the field, at least {LEAST_TIMES_THE_FIELD[localizer]}")


if __name__ == "__main__":
    main()
