"""What a job costs beside its videos: seconds, CPU seconds and memory of every step, at several numbers of videos.

    python benchmarks/scale.py                                  2,000 and 20,000 videos
    python benchmarks/scale.py --n 2000,20000,119146            up to as many as DFDC has

Every source is a small file that really is listed, hashed and opened. In place of decoding and finding faces there is a
function that returns a finished clip at once: 60 frames of 100 bytes, so that the data set fits a disk. CPU seconds are
those of all processes, Ray's as well, and of those that have ended; memory is the largest resident set during the step,
of the driver and of any other process. Every size runs in a process of its own, and the resume, which finds nothing to
do, in another. The last two columns draw a line through the two largest sizes; what does not grow is 0 a video.

The last line takes from the CPU time of a video what the same work costs in a loop without Ray: reading the file's
header, making the clip and writing the shard. The rest is what the engine costs.
"""

import argparse
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import processes  # type: ignore[import-not-found]  # beside this file
from numpy.typing import NDArray
from ray import cloudpickle
from rich.console import Console
from rich.table import Table

from lps.manifests.codes import Status
from lps.manifests.errors import Interrupted
from lps.manifests.records import Clip, Outcome, VideoResult
from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import open_store
from lps.pipeline.config.params import Params
from lps.pipeline.config.settings import DEFAULT_SHARD_MB
from lps.pipeline.faces.detector import Faces, no_faces
from lps.pipeline.faces.track import DetectFaces
from lps.pipeline.job.events import (
    DetectorsReady,
    Finalized,
    Planned,
    PrepEvent,
    PrepStarted,
    ShardCommitted,
    SourceProbed,
    SourcesListed,
    VideoDone,
)
from lps.pipeline.job.request import PrepRequest, RunOptions
from lps.pipeline.job.run import run_job
from lps.pipeline.job.shards import ShardJob, ShardVideo, write_shard
from lps.pipeline.sources.adapters import SourceFile, SourceOptions, list_videos
from lps.pipeline.tools.demo_videos import make_texture_video
from lps.pipeline.video.probe import probe_file
from lps.pipeline.video.source_reader import SourceReader, SourceRef

UNITS = {"seconds": "s", "cpu_seconds": "CPU s", "peak_mb": "MB", "other_mb": "MB, others"}
LARGEST = 12_000_000
CLIP_FRAMES, FRAME_BYTES = 60, 100
N_WORK = 500
RANDOM = SplitParams(rule="random", allow_leaky=True)
UNFINISHED = " (interrupted)"
STEPS_OF_VIDEOS = ("list", "probe", "plan", "process", "finalize")
"""Start and load cost the same for any number of videos."""


def instant_clip(source: SourceReader, video: ShardVideo, detect: DetectFaces, params: Params) -> VideoResult:
    """Return one finished clip, as `process_source` would after its work."""
    seed = sha256(video.source.video_id).digest()
    n = params.clip_frames
    point = (1.0, 2.0) * 5
    clip = Clip(
        track_id=0,
        n_tracks_in_video=1,
        face_label_certain=True,
        frame_idx=tuple(range(n)),
        pts_ticks=tuple(range(0, 512 * n, 512)),
        pts_seconds=tuple(k / 25 for k in range(n)),
        start_rule="seeded",
        start_seed=0,
        box_xyxy=tuple((100.0 + seed[k % 32], 80.0, 220.0, 240.0) for k in range(n)),
        box_source=(0,) * n,
        det_score=(0.99,) * n,
        lmk5=tuple(tuple(value + seed[k % 32] for value in point) for k in range(n)),
        align_M=tuple((1.0, 0.0, float(seed[k % 32]), 0.0, 1.0, 2.0) for k in range(n)),
        det_rate=1.0,
        quality={},
        phash=seed,
        frames_sha256=seed,
        frames=tuple((seed * 4)[:FRAME_BYTES] for _ in range(n)),
    )
    outcome = Outcome(status=Status.OK, n_frames_decoded=300, n_frames_sampled=n, n_frames_with_face=n, n_tracks=1)
    return VideoResult(video_id=video.source.video_id, outcome=outcome, clips=(clip,))


def make_sources(folder: Path, n: int) -> None:
    """Make `n` small videos that differ in their last bytes, half of them real, each half in one folder."""
    make_texture_video(folder / "one.mp4", n_frames=2, width=64, height=64)
    one = (folder / "one.mp4").read_bytes()
    for label in ("real", "fake"):
        (folder / label).mkdir(parents=True, exist_ok=True)
    for k in range(n):
        # a box that players skip, with the number of the file
        (folder / ("real", "fake")[k % 2] / f"{k:08d}.mp4").write_bytes(one + b"\0\0\0\x10free" + k.to_bytes(8, "big"))
    (folder / "one.mp4").unlink()


# ---- what a step costs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one step."""

    seconds: float
    cpu_seconds: float
    """Of this process and all below it, as Ray's are, ended ones among them."""
    peak_mb: float
    """Largest resident memory of this process."""
    other_mb: float
    """And of any process below it."""
    own_seconds: float
    """CPU seconds of this process alone."""


@dataclass(slots=True)
class Meter:
    """Measures step after step."""

    counter: processes.Processes
    costs: dict[str, Cost] = field(default_factory=dict)
    step: str = ""
    start: float = 0.0
    cpu_start: float = 0.0
    own_start: float = 0.0
    shards_left: int = 0
    n_left: int = 0
    """Videos that are still to be processed."""
    ends_at: float = math.inf
    """When the job is to be interrupted, on the clock `time.perf_counter`."""

    def begin(self, step: str) -> None:
        """End the step before, and begin another."""
        now, cpu, other_mb = time.perf_counter(), self.counter.cpu_seconds(), self.counter.take_peak_mb()
        own = time.process_time()
        if self.step:
            self.costs[self.step] = Cost(
                now - self.start, cpu - self.cpu_start, peak_mb(), other_mb, own - self.own_start
            )
        Path("/proc/self/clear_refs").write_text("5")  # lets the kernel forget the peak
        self.step, self.start, self.cpu_start, self.own_start = step, now, cpu, own

    def take(self, event: PrepEvent) -> None:
        """Begin a step where an event says that the one before is over. Raises KeyboardInterrupt when time is up."""
        self._divide(event)
        self.n_left -= isinstance(event, VideoDone)
        if time.perf_counter() > self.ends_at:
            raise KeyboardInterrupt

    def _divide(self, event: PrepEvent) -> None:
        match event:
            case PrepStarted():
                self.begin("list")
            case SourcesListed():
                self.begin("probe")
            case SourceProbed(done, total) if done == total:
                self.begin("plan")
            case Planned(_, n_left, n_shards):
                self.n_left, self.shards_left = n_left, n_shards
                self.begin("load")
            case DetectorsReady():
                self.begin("process")
            case ShardCommitted():
                self.shards_left -= 1
                if not self.shards_left:
                    self.begin("finalize")
            case Finalized():
                self.begin("")
            case _:
                pass


def peak_mb() -> float:
    """Return the largest resident memory of this process since the kernel was told to forget it."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1e3


def run_once(
    source: str,
    out: str,
    workers: int,
    split: SplitParams = RANDOM,
    shard_mb: int = DEFAULT_SHARD_MB,
    budget_seconds: float = math.inf,
) -> dict[str, Cost]:
    """Run the job, or find that there is nothing to do, and return what its steps cost.

    A job that takes longer than its budget is interrupted; the name of its last step then has UNFINISHED in it.
    """
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    counter = processes.Processes()
    counter.start()
    meter = Meter(counter, ends_at=time.perf_counter() + budget_seconds)
    meter.begin("start")
    request = PrepRequest(
        source=source,
        out=out,
        params=Params(localizer="mtcnn", clip_frames=CLIP_FRAMES),
        split=split,
        shard_mb=shard_mb,
    )
    try:
        run_job(request, RunOptions(workers=workers, process=instant_clip), meter.take)
    except Interrupted:
        meter.step += f"{UNFINISHED}, {meter.n_left:,} videos left"
    meter.begin("")
    counter.end()
    return meter.costs


def resume(
    source: str, out: str, workers: int, split: SplitParams = RANDOM, shard_mb: int = DEFAULT_SHARD_MB
) -> dict[str, Cost]:
    """Run a finished job again. What it takes is one step."""
    costs = run_once(source, out, workers, split, shard_mb).values()
    return {
        "resume": Cost(
            sum(cost.seconds for cost in costs),
            sum(cost.cpu_seconds for cost in costs),
            max(cost.peak_mb for cost in costs),
            max(cost.other_mb for cost in costs),
            sum(cost.own_seconds for cost in costs),
        )
    }


def measure(n: int, workers: int, folder: Path) -> dict[str, Cost]:
    """Make the sources, run the job and resume it, each in a process of its own."""
    source, out = str(folder / "source"), str(folder / "out")
    costs: dict[str, Cost] = {}
    make_sources(Path(source), n)
    for work in (run_once, resume):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            costs |= pool.submit(work, source, out, workers).result()
    return costs


def work_ms(folder: Path) -> float:
    """Return the CPU milliseconds that a video's work takes in a loop without Ray."""
    params = Params(localizer="mtcnn", clip_frames=CLIP_FRAMES)
    make_sources(folder / "source", N_WORK)
    store, out = open_store(str(folder / "source")), open_store(str(folder / "out"))
    source, uris = SourceReader(store), [file.path for file in store.walk()]
    probe_file(source, SourceRef(uris[0]), params.limits)  # which imports
    start = time.process_time()
    probes = [probe_file(source, SourceRef(uri), params.limits) for uri in uris]
    sources = list_videos(
        "folder", [SourceFile(path=uri, n_bytes=1) for uri in uris], SourceOptions(read_bytes=store.read)
    )
    videos = tuple(
        ShardVideo(source=one, n_bytes=probe.n_bytes, sha256=bytes.fromhex(probe.sha256), original_video_id=None)
        for one, probe in zip(sources.videos, probes, strict=True)
    )
    results = [instant_clip(source, video, see_nothing, params) for video in videos]
    job = ShardJob(shard_id="train-000000", split="train", plan_sha256="0" * 64, videos=videos)
    write_shard(job, results, params, out, folder)
    return 1e3 * (time.process_time() - start) / N_WORK


def see_nothing(images: NDArray[np.uint8], *, dense: bool) -> list[Faces]:
    """Find no face."""
    return [no_faces() for _ in images]


# ---- the table -------------------------------------------------------------------------------------------------------


def main() -> None:
    """Run every size and print what its steps cost, how that grows, and where it ends at 12 million."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", default="2000,20000", help="numbers of videos, ascending")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, help="where sources and data sets are made, and removed")
    args = parser.parse_args()
    sizes = [int(n) for n in args.n.split(",")]
    measured: dict[int, dict[str, Cost]] = {}
    for n in sizes:
        folder = Path(tempfile.mkdtemp(prefix="lps-scale-", dir=args.folder))
        try:
            measured[n] = measure(n, args.workers, folder)
        finally:
            shutil.rmtree(folder)
        for step, cost in measured[n].items():
            said = f"{cost.seconds:.1f} s, {cost.cpu_seconds:.1f} s CPU, {cost.peak_mb:.0f} and {cost.other_mb:.0f} MB"
            print(f"{n:,} {step}: {said}", flush=True)
    heads = [f"{n:,}" for n in sizes]
    table = Table("step", "of", *heads, "a video", f"{LARGEST:,}", title=f"{args.workers} workers")
    for step in measured[sizes[0]]:
        for name, unit in UNITS.items():
            values = [getattr(measured[n][step], name) for n in sizes]
            table.add_row(step, unit, *(f"{value:,.1f}" for value in values), *growth(sizes, values, unit))
    Console(width=140).print(table)
    with tempfile.TemporaryDirectory(prefix="lps-scale-", dir=args.folder) as work_folder:
        work = work_ms(Path(work_folder))
    for n in sizes:
        costs = measured[n]
        whole = 1e3 / n * sum(costs[step].cpu_seconds for step in STEPS_OF_VIDEOS)
        print(f"{n:,}: {whole:.2f} ms CPU a video, {work:.2f} of them work, {whole - work:.2f} engine")


def growth(sizes: Sequence[int], values: Sequence[float], unit: str) -> tuple[str, str]:
    """Return what one more video costs, and what the largest data set would: a line through the two largest sizes."""
    if len(sizes) < 2:
        return "", ""
    slope = max(0.0, (values[-1] - values[-2]) / (sizes[-1] - sizes[-2]))
    scale = unit.replace("MB", "kB") if "MB" in unit else f"m{unit}"
    return f"{slope * 1e3:.3f} {scale}", f"{values[-1] + slope * (LARGEST - sizes[-1]):,.0f}"


if __name__ == "__main__":
    main()
