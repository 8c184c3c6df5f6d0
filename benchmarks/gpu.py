"""What one GPU does in ten minutes: steps of paper-size training, localizers, the reader, and five minutes of training.

    python benchmarks/gpu.py --markdown gpu.md       on the first GPU; without one it says so and ends
    python benchmarks/gpu.py --device cpu --smoke    that it runs at all, at its smallest size: no numbers of interest

Needs no network and no data: it writes its shards (at most 60 MB) from pictures in installed packages. Every part is a
process with its own share of the time, and hands its rows over as they come: one that dies or runs out of time leaves
what it has, and a row that says so.

steps       a step of pretraining, 16 clips of 60 frames of 224 px: fp32, bf16, layouts, compiled, beside the plain form
            (plain_form.py); memory; share of the GPU's bf16 peak, by operations as PyTorch counts them in fp32
localizers  as detectors.py, batches of 32
reader      `lps-train` on shards beside one cached batch, by decoding processes: waiting, share of the compute floor
curve       five minutes of `lps-train pretrain`, its loss minute by minute
"""

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectors import LOCALIZERS, SHAPES, calls_per_second, face_image, loaded  # type: ignore[import-not-found]
from flops import PEAK_TFLOPS, count_flops  # type: ignore[import-not-found]  # all beside this file
from rich.console import Console
from rich.table import Table
from torch import nn
from train import Enough, write_shards  # type: ignore[import-not-found]

from lps.model.data.clip_decoder import Batch
from lps.model.data.frames import frames_to_blocks
from lps.model.data.sources import Sources
from lps.model.training.build import build_stage
from lps.model.training.engine import Learner
from lps.model.training.events import SpeedMeasured, StepDone, TrainEvent
from lps.model.training.job import TrainJob
from lps.model.training.presets import Preset, preset_for
from lps.model.training.train import train

SHARES_S = {"steps": 160, "localizers": 50, "reader": 60, "curve": 320}
"""Seconds of each part, its start included: 9:50 minutes together."""
N_CLIPS = 32
"""1.7 MB each."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    part: str
    what: str
    value: str
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all parts go by."""

    device: torch.device
    smoke: bool
    shards: str
    folder: Path
    weights_dir: Path | None

    def preset(self, **tables: dict[str, Any]) -> Preset:
        """Return the settings of a pretraining, those of the paper unless it is only a try."""
        small = {
            "image_px": 32,
            "net": {"width": 8},
            "pretrain": {"n_slots": 64},
            "train": {"batch_size": 2},
            "run": {"threads": 1},
        }
        values: dict[str, Any] = small if self.smoke else {}
        merged = {**values, **{name: {**values.get(name, {}), **table} for name, table in tables.items()}}
        return preset_for("paper", "pretrain", merged)


# ---- steps -----------------------------------------------------------------------------------------------------------

FORMS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "bf16, channels last": {"precision": "bf16", "channels_last": True},
    "bf16, channels last, compiled": {"precision": "bf16", "channels_last": True, "compile": True},
}
"""Settings of `run`."""


def measure_steps(setup: Setup) -> Iterator[Row]:
    """Yield seconds and memory of a step in every form, those of the plain form first."""
    preset = setup.preset()
    px, n_clips = preset.image_px, preset.train.batch_size
    frames = torch.randint(0, 256, (n_clips, preset.n_frames, px, px, 3), dtype=torch.uint8)
    batch = Batch(0, frames, torch.zeros(n_clips, dtype=torch.int64), ("",) * n_clips)
    operations = float(count_flops(our_step(setup, preset, batch)))
    for precision in ("fp32", "bf16"):
        yield step_row(setup, f"plain form, {precision}", partial(plain_step, setup, precision, batch), operations)
    for name, run in FORMS.items():
        if setup.smoke and run.get("compile"):
            yield Row("steps", name, "not run", "", "compiling takes minutes on a CPU")
            continue
        mine = setup.preset(run=run)
        yield step_row(setup, name, partial(our_step, setup, mine, batch), operations)


def step_row(setup: Setup, name: str, build: Callable[[], Callable[[], object]], operations: float) -> Row:
    """Return the row of one form, which is built here and gone afterwards; a form that cannot run says why."""
    gc.collect()
    cuda = setup.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        step = build()
        seconds = seconds_of(step, setup)
    except (RuntimeError, torch.cuda.OutOfMemoryError) as e:
        return Row("steps", name, "failed", "", str(e).splitlines()[0][:90])
    rate = operations / seconds / 1e12
    peak = next((p for key, p in PEAK_TFLOPS.items() if key in torch.cuda.get_device_name()), None) if cuda else None
    share = f", {rate / peak:.1%} of the bf16 peak" if peak else ""
    memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if cuda else ""
    return Row("steps", name, f"{seconds * 1e3:,.1f}", "ms", f"{rate:.3g} TFLOP/s{share}{memory}")


def seconds_of(step: Callable[[], object], setup: Setup) -> float:
    """Return the median seconds of a step, after some to warm up."""
    n_before, n = (1, 1) if setup.smoke else (3, 10)
    seconds = []
    for _ in range(n_before + n):
        begun = time.perf_counter()
        step()
        if setup.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds[n_before:]))


def our_step(setup: Setup, preset: Preset, batch: Batch) -> Callable[[], object]:
    """Return a step as `lps-train` takes it."""
    torch.manual_seed(0)
    stage = build_stage("pretrain", preset, "random").to(setup.device).train()
    backbone = stage.network.backbone
    assert isinstance(backbone, nn.Module)  # mypy
    if preset.run.channels_last:
        backbone.to(memory_format=torch.channels_last_3d)
    if preset.run.compile:
        backbone.compile()
    optimizer = torch.optim.Adam(stage.parameters(), lr=1e-4, fused=setup.device.type == "cuda")
    bf16 = preset.run.precision == "bf16"
    learner = Learner(stage, stage.network, optimizer, preset.train, setup.device, bf16=bf16)
    return lambda: learner.step(batch, 0)


def plain_step(setup: Setup, precision: str, batch: Batch) -> Callable[[], object]:
    """Return a step of the reference's form."""
    import plain_form  # type: ignore[import-not-found]  # beside this file

    preset = setup.preset()
    torch.manual_seed(0)
    net = plain_form.PlainPredictive(preset.net, preset.pretrain).to(setup.device).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, fused=setup.device.type == "cuda")
    autocast = precision == "bf16"

    def step() -> None:
        clips = frames_to_blocks(batch.frames.to(setup.device), preset.net.block_frames).contiguous()
        with torch.autocast(setup.device.type, torch.bfloat16) if autocast else nullcontext():
            loss = plain_form.plain_loss(net(clips))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


# ---- localizers ------------------------------------------------------------------------------------------------------


def measure_localizers(setup: Setup) -> Iterator[Row]:
    """Yield batches per second of every localizer at every shape."""
    names, batch_size, seconds = (LOCALIZERS[:1], 1, 0.0) if setup.smoke else (LOCALIZERS, 32, 2.0)
    for name in names:
        for shape in SHAPES:
            localizer, weights = loaded(name, setup.weights_dir, setup.device.type, batch_size)
            images = np.stack([face_image(shape.height, shape.width)[0]] * batch_size)
            rate = calls_per_second(lambda: localizer.detect(images, dense=shape.dense), seconds)  # noqa: B023
            what = f"{name}, {batch_size} {shape.name} of {shape.width}x{shape.height}"
            note = f"{rate * batch_size:,.0f} images/s, {weights} weights"
            yield Row("localizers", what, f"{rate:.2f}", "batches/s", note)


# ---- training on shards ----------------------------------------------------------------------------------------------


def measure_reader(setup: Setup) -> Iterator[Row]:
    """Yield what steps on shards wait for, and their share of the floor, with few and with many decoding processes."""
    cores = len(os.sched_getaffinity(0))
    seconds = 1.0 if setup.smoke else 12.0
    for workers in [1] if setup.smoke else sorted({max(1, cores // 4), max(1, cores // 2), cores}):
        _, speeds = trained(setup, f"reader-{workers}", workers, seconds)
        if not speeds:
            yield Row("reader", f"run.workers = {workers}", "none", "", "no step was counted in its time")
            continue
        wait, step_s, floor_s = (np.median([v[name] for v in speeds]) for name in ("wait_share", "step_s", "floor_s"))
        what = f"a step with run.workers = {workers}"
        note = f"waits {wait:.1%}; one on a cached batch takes {floor_s / step_s:.0%} of that, {floor_s * 1e3:,.1f} ms"
        yield Row("reader", what, f"{step_s * 1e3:,.1f}", "ms", note)


def measure_curve(setup: Setup) -> Iterator[Row]:
    """Yield the loss of a pretraining minute by minute, over log(number of candidates): 1 is chance."""
    cores = len(os.sched_getaffinity(0))
    seconds = 2.0 if setup.smoke else SHARES_S["curve"] - 20.0
    losses, speeds = trained(setup, "curve", 1 if setup.smoke else cores, seconds)
    if not losses:
        yield Row("curve", "training", "none", "", "no step was taken in its time")
        return
    for minute in range(int(losses[-1][0] // 60) + 1):
        found = [share for at, share in losses if at // 60 == minute]
        if found:
            yield Row("curve", f"minute {minute + 1}", f"{np.mean(found):.3f}", "of chance", f"{len(found):,} steps")
    waits = f"waits {np.median([v['wait_share'] for v in speeds]):.1%}" if speeds else ""
    yield Row("curve", "steps in all", f"{len(losses):,}", f"in {losses[-1][0]:,.0f} s", waits)


def trained(
    setup: Setup, name: str, workers: int, seconds: float
) -> tuple[list[tuple[float, float]], list[dict[str, float]]]:
    """Pretrain on the shards for so long, but 8 steps at least; returns (seconds, share of chance) of each step, and
    what was measured of their speed."""
    log_steps, epochs = (1, 100) if setup.smoke else (10, 100_000)
    run = {"workers": workers, "log_steps": log_steps, "device": setup.device.type, "checkpoint_steps": 1_000_000}
    run |= {"validate_epochs": epochs, **({} if setup.smoke else {"precision": "bf16", "channels_last": True})}
    preset = setup.preset(run=run, train={"epochs": epochs})
    sources = Sources(shards=setup.shards)
    job = TrainJob(stage="pretrain", out=setup.folder / name, sources=sources, preset=preset, init="random")
    losses: list[tuple[float, float]] = []
    speeds: list[dict[str, float]] = []
    begun = 0.0

    def on_event(event: TrainEvent) -> None:
        nonlocal begun
        if isinstance(event, StepDone):
            begun = begun or time.perf_counter()
            losses.append((time.perf_counter() - begun, float(event.values["share_of_chance"] or 0.0)))
        elif isinstance(event, SpeedMeasured) and event.values["floor_s"] is not None:
            speeds.append({key: float(value or 0.0) for key, value in event.values.items()})
        if begun and time.perf_counter() - begun > seconds and len(losses) >= 8:
            raise Enough

    with suppress(Enough):
        train(job, on_event)
    return losses, speeds


# ---- the parts, each in a process ------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Setup], Iterator[Row]]] = {
    "steps": measure_steps,
    "localizers": measure_localizers,
    "reader": measure_reader,
    "curve": measure_curve,
}


def run_part(part: str, args: Sequence[str], limit_s: float | None) -> list[Row]:
    """Run a part in a process of its own and return its rows, with one more if it did not end well."""
    begun = time.monotonic()
    command = [sys.executable, str(Path(__file__).resolve()), *args, "--part", part]
    rows: list[Row] = []
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(command, stdout=out)
        try:
            code = child.wait(limit_s)
            end = f"ended with exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            end = f"ran out of its {limit_s:.0f} s"
        out.seek(0)
        for line in out:
            with suppress(ValueError, TypeError):  # the last one of a process that was killed
                rows.append(Row(**json.loads(line)))
    rows += [Row(part, "the rest of this part", "not run", "", end)] if end else []
    print(f"{part}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return rows


def markdown(title: str, rows: Sequence[Row]) -> str:
    """Return the table as docs/benchmarks.md has it."""
    lines = [f"{title}.", "", "| part | what | value | note |", "|---|---|---|---|"]
    lines += [f"| {row.part} | {row.what} | {row.value} {row.unit} | {row.note} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all parts, or one of them as a process of another run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default %(default)s")
    parser.add_argument("--smoke", action="store_true", help="smallest sizes: that it runs at all")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--weights-dir", type=Path, metavar="DIR", help="of the localizers, as of lps-prep")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table there")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shards", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("not run: there is no CUDA device here (--device cpu --smoke runs it at its smallest size)")
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if args.part:
        setup = Setup(
            device=torch.device(args.device), smoke=args.smoke, shards=args.shards, folder=args.folder,
            weights_dir=args.weights_dir,
        )  # fmt: skip
        for row in PARTS[args.part](setup):
            print(json.dumps(asdict(row)), flush=True)
        return
    folder = Path(tempfile.mkdtemp(prefix="lps-gpu-"))
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        shards = write_shards(folder, 8 if args.smoke else N_CLIPS)
        given = ["--device", args.device, "--folder", str(folder), "--shards", shards]
        given += ["--smoke"] if args.smoke else []
        limits = dict.fromkeys(PARTS, None) if args.smoke else SHARES_S
        given += ["--weights-dir", str(args.weights_dir)] if args.weights_dir else []
        rows = [row for part in args.parts for row in run_part(part, given, limits[part])]
    finally:
        shutil.rmtree(folder)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU, a try at the smallest size"
    title = f"{name}, torch {torch.__version__}, {len(os.sched_getaffinity(0))} cores"
    table = Table("part", "what", "value", "unit", "note", title=title)
    for row in rows:
        table.add_row(row.part, row.what, row.value, row.unit, row.note)
    Console(width=160).print(table)
    if args.markdown:
        args.markdown.write_text(markdown(title, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
