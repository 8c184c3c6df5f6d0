"""Samples per second of the trainer's data reader beside its bound and beside the usual way; one table, one run.

    python benchmarks/train.py                       clips of 60 frames of 224 px, as many workers as cores
    python benchmarks/train.py --clips 256 --workers 8

Rows: (o) the floor: the same JPEGs in memory decoded by the reader's library, one after another into one place, and
nothing else; (i) tars read from end to end and nothing decoded; (ii) plain `webdataset`, Pillow, and torch's loader;
(iii) this project's reader, without and with augmentation, and with frames resized while they are read. All with the
same number of processes, one thread each, over the same shards, after a first pass that starts them. Passes take turns,
and ratios are medians over the turns: what else the machine does falls on all. CPU seconds are those of all processes.

Then what training adds (--parts waiting,checkpoint,resume): the share of step time that waits for data, the cost of a
checkpoint, and of resuming from one.
"""

import argparse
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from processes import Processes  # type: ignore[import-not-found]  # beside this file
from rich.console import Console
from rich.table import Table
from simplejpeg import decode_jpeg
from torch.utils.data import DataLoader, IterableDataset

from lps.manifests.canonical import canonical_json, digest16
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions
from lps.model.data.epoch_plan import PlanOptions
from lps.model.data.shard_cache import ShardCache
from lps.model.data.shard_index import open_shards
from lps.model.data.sources import Sources
from lps.model.training.build import build_stage
from lps.model.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from lps.model.training.engine import Learner
from lps.model.training.events import CheckpointWritten, StepDone, TrainEvent
from lps.model.training.feed import open_feed, open_run_data
from lps.model.training.job import TrainJob
from lps.model.training.presets import preset_for
from lps.model.training.processes import choose_device
from lps.model.training.train import train
from lps.pipeline.clips.encode import encode_image
from lps.pipeline.config.params import Params
from lps.pipeline.tools.demo_faces import PORTRAITS, load_portrait

N_SHARDS = 8
N_FRAMES = 60
IMAGE_PX = 224


@dataclass(frozen=True, slots=True)
class Bench:
    """What all rows have in common."""

    pattern: str
    folder: Path
    n_clips: int
    n_workers: int
    batch_size: int
    n_passes: int

    def paths(self) -> list[Path]:
        """Return the shards."""
        return sorted((self.folder / "shards").glob("*.tar"))


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    name: str
    value: str
    unit: str
    note: str = ""


# ---- shards to read --------------------------------------------------------------------------------------------------


def write_shards(folder: Path, n_clips: int) -> str:
    """Write moving portraits with a sensor's noise, as `lps-prep` writes clips; return the pattern of the shards."""
    (folder / "shards").mkdir(parents=True)
    for number in range(N_SHARDS):
        with tarfile.open(folder / f"shards/train-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for clip in range(number, n_clips, N_SHARDS):
                key = digest16("bench", str(clip)).hex()
                for ext, data in clip_members(clip, key):
                    info = tarfile.TarInfo(f"{key}.{ext}")
                    info.size = len(data)
                    tar.addfile(info, _stream(data))
    return f"{folder}/shards/train-{{000000..{N_SHARDS - 1:06d}}}.tar"


def clip_members(number: int, key: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files of one clip."""
    rng = np.random.default_rng(number)
    portrait = load_portrait(PORTRAITS[number % 2])
    x0, y0 = portrait.face.min(0)
    side = 1.4 * float(np.ptp(portrait.face, axis=0).max())
    for k in range(N_FRAMES):
        scale = IMAGE_PX / side
        shift = rng.normal(0, 1.0, 2) + k * 0.1
        matrix = np.array([[scale, 0, -x0 * scale + 30 + shift[0]], [0, scale, -y0 * scale + 40 + shift[1]]])
        warped = cv2.warpAffine(portrait.rgba[:, :, :3], matrix, (IMAGE_PX, IMAGE_PX), flags=cv2.INTER_LINEAR)
        noisy = warped.astype(np.float32) + rng.normal(0, 1.6, (IMAGE_PX, IMAGE_PX, 1)).astype(np.float32)
        yield f"{k:02d}.jpg", encode_image(np.clip(noisy, 0, 255).astype(np.uint8), Params())
    yield "cls", str(number % 2).encode()
    facts = {"clip_id": key, "video_id": key, "dataset": "bench", "label": number % 2, "method": None}
    yield "json", canonical_json({**facts, "track_id": 0, "pts_s": [k / 25 for k in range(N_FRAMES)]})


def _stream(data: bytes) -> Any:
    import io

    return io.BytesIO(data)


# ---- readers: each returns a function that makes one pass and counts what came -------------------------------------

Pass = Callable[[], int]


class RawTars(IterableDataset[int]):
    """Every byte of a worker's shards, through `webdataset`; nothing decoded. Yields 1 for each sample."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = [str(path) for path in paths]

    def __iter__(self) -> Iterator[int]:
        from webdataset.tariterators import group_by_keys, tar_file_expander

        worker = torch.utils.data.get_worker_info()
        mine = self.paths[worker.id :: worker.num_workers] if worker else self.paths
        sources = ({"url": path, "stream": Path(path).open("rb")} for path in mine)  # noqa: SIM115
        yield from (1 for _ in group_by_keys(tar_file_expander(sources)))


def stack_frames(sample: dict[str, Any]) -> tuple[NDArray[np.uint8], int]:
    """Return the clip and its label from what `webdataset` decoded."""
    frames = [sample[f"{k:02d}.jpg"] for k in range(N_FRAMES)]
    return np.stack(frames), int(sample["cls"])


class JpegFloor(IterableDataset[int]):
    """The JPEGs of a worker's shards, held in memory, decoded again and again. Yields 1 for each sample."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.clips: list[list[bytes]] = []

    def __iter__(self) -> Iterator[int]:
        worker = torch.utils.data.get_worker_info()
        if not self.clips:
            self.clips = [clip for path in self.paths for clip in jpegs(path)]
        rgb = np.empty((IMAGE_PX, IMAGE_PX, 3), np.uint8)
        for clip in self.clips[worker.id :: worker.num_workers] if worker else self.clips:
            for jpeg in clip:
                decode_jpeg(jpeg, "RGB", buffer=rgb)
            yield 1


def jpegs(path: Path) -> Iterator[list[bytes]]:
    """Yield the encoded frames of each sample of a shard."""
    with tarfile.open(path) as tar:
        members = {info.name: tar.extractfile(info) for info in tar}
        for key in dict.fromkeys(name.partition(".")[0] for name in members):
            files = (members[f"{key}.{k:02d}.jpg"] for k in range(N_FRAMES))
            yield [file.read() for file in files if file is not None]


def floor_reader(bench: Bench) -> tuple[Pass, Callable[[], None]]:
    """(o)."""
    loader = _torch_loader(JpegFloor(bench.paths()), bench)
    return (lambda: sum(1 for _ in loader)), lambda: None


def raw_reader(bench: Bench) -> tuple[Pass, Callable[[], None]]:
    """(i)."""
    loader = _torch_loader(RawTars(bench.paths()), bench)
    return (lambda: sum(1 for _ in loader)), lambda: None


def plain_reader(bench: Bench) -> tuple[Pass, Callable[[], None]]:
    """(ii) as `webdataset`'s own documentation has it: shards shared out among workers, `rgb8` decodes by Pillow."""
    import webdataset as wds

    urls = [str(path) for path in bench.paths()]
    clips = wds.WebDataset(urls, shardshuffle=False).decode("rgb8").map(stack_frames).batched(bench.batch_size)
    loader = _torch_loader(clips, bench)
    return (lambda: sum(len(labels) for _, labels in loader)), lambda: None


def _torch_loader(data: Any, bench: Bench) -> Iterable[Any]:
    ahead: dict[str, Any] = {"prefetch_factor": 2, "persistent_workers": True, "multiprocessing_context": "forkserver"}
    return DataLoader(data, None, num_workers=bench.n_workers, **(ahead if bench.n_workers else {}))


def our_reader(read: ReadOptions) -> Callable[[Bench], tuple[Pass, Callable[[], None]]]:
    """(iii)."""

    def make(bench: Bench) -> tuple[Pass, Callable[[], None]]:
        data = open_shards(bench.pattern, ShardCache(bench.folder / "cache"))
        plan = PlanOptions(batch_size=bench.batch_size)
        reader = ClipReader(data, read, plan, WorkOptions(n_workers=bench.n_workers))
        return (lambda: sum(len(batch) for batch in reader.epoch(0))), reader.close

    return make


FLOOR, USUAL = "(o) floor: the same JPEGs decoded", "(ii) webdataset, Pillow"
READERS: dict[str, Callable[[Bench], tuple[Pass, Callable[[], None]]]] = {
    FLOOR: floor_reader,
    "(i) tars, nothing decoded": raw_reader,
    USUAL: plain_reader,
    "(iii) lps reader": our_reader(ReadOptions()),
    "(iii) lps reader, strong augmentation": our_reader(ReadOptions(augment="strong")),
    "(iii) lps reader, frames of 112 px": our_reader(ReadOptions(image_px=112)),
}


def measure_readers(bench: Bench) -> list[Row]:
    """Return samples per second of every reader, beside the floor and the usual way: medians of passes in turns."""
    passes = {name: make(bench) for name, make in READERS.items()}
    wall: dict[str, list[float]] = {name: [] for name in passes}
    cpu: dict[str, list[float]] = {name: [] for name in passes}
    processes = Processes()
    for turn in range(bench.n_passes + 1):
        for name, (one_pass, _) in passes.items():
            before, start = processes.cpu_seconds(), time.perf_counter()
            n = one_pass()
            if n != bench.n_clips:
                raise RuntimeError(f"{name} gave {n} of {bench.n_clips} samples")
            if turn:  # the first starts the workers and fills the page cache
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(processes.cpu_seconds() - before)
    for _, close in passes.values():
        close()
    return [
        Row(
            name,
            f"{bench.n_clips / float(np.median(wall[name])):,.1f}",
            "samples/s",
            f"{_ratio(wall[FLOOR], wall[name])} x floor, {_ratio(wall[USUAL], wall[name])} x (ii); "
            f"CPU {float(np.median(cpu[name])) / bench.n_clips * 1e3:.1f} ms a sample, {_ratio(cpu[FLOOR], cpu[name])} "
            "x floor",
        )
        for name in passes
    ]


def _ratio(one: list[float], other: list[float]) -> str:
    return f"{float(np.median(np.array(one) / np.maximum(other, 1e-9))):.2f}"


# ---- training --------------------------------------------------------------------------------------------------------


class Enough(Exception):
    """Ends a run that has been measured."""


def training_job(bench: Bench, name: str) -> TrainJob:
    """Return a pretraining run: the network of `paper` on a GPU, that of `small` on a CPU."""
    settings = {
        "run": {"workers": bench.n_workers, "log_steps": 1, "checkpoint_steps": 2},
        "train": {"batch_size": bench.batch_size},
    }
    preset = preset_for("paper" if torch.cuda.is_available() else "small", "pretrain", settings)
    sources = Sources(shards=bench.pattern)
    return TrainJob(stage="pretrain", out=bench.folder / name, sources=sources, preset=preset, init="random")


def measure_waiting(bench: Bench) -> list[Row]:
    """Return the share of an epoch's time in which a step waits for its batch, the first one aside."""
    job = training_job(bench, "waiting")
    device = choose_device(job.preset.run.device)
    data = open_run_data(job)
    stage = build_stage(job.stage, job.preset, job.init).to(device).train()
    with open_feed(job, data, stage, device) as feed:
        optimizer = torch.optim.Adam(stage.parameters(), lr=1e-3)
        learner = Learner(stage, stage.network, optimizer, job.preset.train, device)
        waited, worked, first = 0.0, 0.0, 0.0
        mark = time.perf_counter()
        for k, batch in enumerate(feed.train.epoch(0)):
            arrived = time.perf_counter()
            float(learner.step(batch, k)["loss"])  # waits for the device
            done = time.perf_counter()
            if k == 0:
                first = arrived - mark
            else:
                waited, worked = waited + arrived - mark, worked + done - arrived
            mark = done
    n = max(feed.train.n_steps - 1, 1)
    name = f"pretraining on {device.type}, {job.preset.image_px} px, width {job.preset.net.width}"
    return [
        Row(f"{name}: a step", f"{(waited + worked) / n * 1e3:,.0f}", "ms", f"{bench.batch_size} clips"),
        Row("  of it, waiting for data", f"{100 * waited / max(waited + worked, 1e-9):.1f}", "%", "first step aside"),
        Row("  first batch of a run", f"{first:.2f}", "s", "workers start"),
    ]


def measure_checkpoint(bench: Bench) -> list[Row]:
    """Return what writing and reading a checkpoint of the paper's network costs, with the state of Adam."""
    stage = build_stage("pretrain", preset_for("paper", "pretrain"), "random")
    optimizer = torch.optim.Adam(stage.parameters())
    for parameter in stage.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    network = stage.network.state_dict()
    training = {"network": network, "optimizer": optimizer.state_dict()}
    checkpoint = Checkpoint(stage="pretrain", config={}, data={}, network=network, progress={}, training=training)
    path = bench.folder / "checkpoint.pt"
    seconds: dict[str, list[float]] = {"write": [], "read": []}
    for _ in range(bench.n_passes):
        marks = [time.perf_counter()]
        write_checkpoint(path, checkpoint)
        marks.append(time.perf_counter())
        read_checkpoint(path)
        marks.append(time.perf_counter())
        seconds["write"].append(marks[1] - marks[0])
        seconds["read"].append(marks[2] - marks[1])
    size = f"{path.stat().st_size / 1e6:,.0f} MB, "
    return [
        Row("a checkpoint is written", f"{np.median(seconds['write']):.2f}", "s", f"{size}on the disk"),
        Row("  and read", f"{np.median(seconds['read']):.2f}", "s", "checksums included"),
    ]


def measure_resume(bench: Bench) -> list[Row]:
    """Return the time from the start of a run to its first step, afresh and from the middle of an epoch."""
    job = training_job(bench, "resume")

    def seconds_to_first_step(last: type[TrainEvent]) -> float:
        start, found = time.perf_counter(), 0.0

        def on_event(event: TrainEvent) -> None:
            nonlocal found
            found = found or (time.perf_counter() - start if isinstance(event, StepDone) else 0.0)
            if isinstance(event, last):
                raise Enough

        with suppress(Enough):
            train(job, on_event)
        return found

    fresh, resumed = seconds_to_first_step(CheckpointWritten), seconds_to_first_step(StepDone)
    return [
        Row("from the start of a run to its first step", f"{fresh:.2f}", "s", "one step included"),
        Row("  resumed within an epoch", f"{resumed:.2f}", "s", f"{resumed - fresh:+.2f} s"),
    ]


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "readers": measure_readers,
    "waiting": measure_waiting,
    "checkpoint": measure_checkpoint,
    "resume": measure_resume,
}
"""Each part adds its rows to the table."""


def main() -> None:
    """Write the shards, run the parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--parts", default=",".join(PARTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    folder = Path(tempfile.mkdtemp(prefix="lps-train-"))
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        pattern = write_shards(folder, args.clips)
        bench = Bench(pattern, folder, args.clips, args.workers, args.batch, args.passes)
        size = sum(path.stat().st_size for path in bench.paths()) / args.clips / 1e6
        title = f"{args.clips} clips of {N_FRAMES} frames, {IMAGE_PX} px, {size:.2f} MB each; {args.workers} workers"
        table = Table("what", "value", "unit", "note", title=title)
        for part in args.parts.split(","):
            for row in PARTS[part](bench):
                table.add_row(row.name, row.value, row.unit, row.note)
    finally:
        shutil.rmtree(folder)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
