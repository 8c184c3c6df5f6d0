"""Forward and training step of the networks, beside the plain form of the reference: seconds and peak memory.

    python benchmarks/model.py                      # CPU, 2 threads: 4 clips of 112 px, one clip of 224 px
    python benchmarks/model.py --device cuda --batch 224:16

Plain form (benchmarks/plain_form.py): Conv3d everywhere, a ConvGRU cell of three convolutions step by step, a predictor
called for each step, scores by einsum. Both have the same weights and clips, and the same Adam. Each form runs in a
fresh process of its own, whose largest resident size (VmHWM) is its peak memory; the two take turns, call by call, so
that what else the machine does falls on both, and the smallest time of each counts. Each row is also written to the
standard error as it comes.

On a GPU the encoder runs in bfloat16 with channels last, and the share of the GPU's peak is printed: floating-point
operations of a call as PyTorch counts them (on a clip of 224 px 223.6 GFLOP forward for the encoder, and about three
times that for a training step).
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from flops import PEAK_TFLOPS, count_flops  # type: ignore[import-not-found]  # beside this file
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lps.model.data.frames import frames_to_blocks
from lps.model.networks.context_net import NetParams
from lps.model.networks.detector import Detector, HeadParams
from lps.model.networks.predictive_net import PredictiveNet, PretrainParams, pretrain_loss

FORMS = ("plain", "ours")
TASKS = ("pretraining", "detector")
MODES = ("forward", "step")
HEAD = HeadParams(final_bn=False)
"""A batch norm over clips cannot train on a single one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one process does."""

    form: str
    task: str
    mode: str
    image_px: int
    n_clips: int
    device: str
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The best of a few calls."""

    wall_s: float
    cpu_s: float
    """CPU time of all threads; on a GPU nothing of interest."""
    peak_mib: float
    flops: float
    """Operations of one call."""


# ---- one process -----------------------------------------------------------------------------------------------------


def build(case: Case) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    """Return a network and the loss of its outputs; both forms have the same weights."""
    import plain_form  # type: ignore[import-not-found]  # beside this file

    torch.manual_seed(0)
    params, pretrain = NetParams(), PretrainParams()
    labels = torch.arange(case.n_clips, device=case.device) % 2
    pretraining = case.task == "pretraining"
    net: nn.Module = PredictiveNet(params, pretrain) if pretraining else Detector(params, HEAD)
    if case.form == "plain":
        weights = net.state_dict()
        net = plain_form.PlainPredictive(params, pretrain) if pretraining else plain_form.PlainDetector(params, HEAD)
        net.load_state_dict(weights)
    elif case.device == "cuda":
        net.to(memory_format=torch.channels_last_3d)
    net.to(case.device)
    if not pretraining:
        return net, lambda logits: F.cross_entropy(logits, labels)
    if case.form == "plain":
        return net, plain_form.plain_loss
    return net, lambda predictions: pretrain_loss(predictions, pretrain).total


def build_call(case: Case) -> Callable[[], object]:
    """Return what is measured: a forward pass in evaluation, or a whole training step."""
    net, loss_of = build(case)
    size = (case.n_clips, 60, case.image_px, case.image_px, 3)
    frames = torch.randint(0, 256, size, dtype=torch.uint8, device=case.device)
    clips = frames_to_blocks(frames, 5)
    if case.form == "plain":
        clips = clips.contiguous()  # 3-D convolutions without channels last, as the reference has them
    del frames
    bf16 = torch.autocast("cuda", torch.bfloat16) if case.device == "cuda" else nullcontext()
    if case.mode == "forward":
        net.eval()

        def forward() -> object:
            with torch.no_grad(), bf16:
                return net(clips)

        return forward
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, fused=case.device == "cuda")

    def step() -> object:
        with bf16:
            loss = loss_of(net(clips))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step


def work(case: Case, pipe: Connection) -> None:
    """Answer `time` with (wall, cpu) seconds of a call, `flops` with its operations, `peak` with MiB; None ends it."""
    torch.set_num_threads(case.threads)
    cuda = case.device == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = cuda
    call = build_call(case)
    while question := pipe.recv():
        if question == "time":
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            if cuda:
                torch.cuda.synchronize()
            pipe.send((time.perf_counter() - wall, time.process_time() - cpu))
        elif question == "flops":
            pipe.send(count_flops(call) if cuda else 0)
        else:
            pipe.send(torch.cuda.max_memory_allocated() / 2**20 if cuda else resident_peak_mib())


def resident_peak_mib() -> float:
    """Return the largest resident size that this process has had."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


# ---- two processes in turns ------------------------------------------------------------------------------------------


class Worker:
    """A process that runs one case."""

    def __init__(self, case: Case) -> None:
        context = multiprocessing.get_context("forkserver")  # which imports torch once for all of them
        context.set_forkserver_preload(["lps.model.networks.detector", "lps.model.networks.predictive_net"])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(case, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, question: str) -> Any:
        """Return the answer. Raises EOFError if the process has died."""
        self._pipe.send(question)
        return self._pipe.recv()

    def end(self) -> None:
        """Let the process end."""
        self._pipe.send(None)
        self._process.join()


def compare(cases: list[Case], n_calls: int) -> list[Measured]:
    """Run the cases in turns: once to warm up, then `n_calls` times."""
    workers = [Worker(case) for case in cases]
    seconds: list[list[tuple[float, float]]] = [[] for _ in cases]
    for turn in range(n_calls + 1):
        for worker, times in zip(workers, seconds, strict=True):
            found = worker.ask("time")
            if turn:
                times.append(found)
    measured = [
        Measured(
            wall_s=min(wall for wall, _ in times),
            cpu_s=min(cpu for _, cpu in times),
            peak_mib=worker.ask("peak"),
            flops=worker.ask("flops"),
        )
        for worker, times in zip(workers, seconds, strict=True)
    ]
    for worker in workers:
        worker.end()
    return measured


# ---- the table -------------------------------------------------------------------------------------------------------


def rows_of(what: str, plain: Measured, ours: Measured, peak_tflops: float | None) -> list[list[str]]:
    """Return a row for each form; ratios are of the plain form's value to ours."""
    rows = []
    for form, found in zip(FORMS, (plain, ours), strict=True):
        is_ours = found is ours
        cells = [
            what if not is_ours else "",
            form,
            f"{found.wall_s:.3g}",
            f"{found.cpu_s:.3g}",
            f"{found.peak_mib:,.0f}",
        ]
        cells += (
            [f"{plain.wall_s / ours.wall_s:.2f}", f"{plain.cpu_s / ours.cpu_s:.2f}",
             f"{plain.peak_mib / ours.peak_mib:.2f}"]
            if is_ours else ["", "", ""]
        )  # fmt: skip
        if found.flops:
            rate = found.flops / found.wall_s / 1e12
            share = f" ({rate / peak_tflops:.0%})" if peak_tflops else ""
            cells.append(f"{rate:.1f}{share}")
        rows.append(cells)
    return rows


def main() -> None:
    """Run all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", nargs="+", default=["112:4", "224:1"], metavar="PX:CLIPS")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--small-pages", action="store_true", help="for both forms; else huge, as in lps-train")
    args = parser.parse_args()
    os.environ["THP_MEM_ALLOC_ENABLE"] = "0" if args.small_pages else "1"  # the processes inherit it
    title = f"{args.device}, {args.threads} threads, smallest of {args.calls} calls each in turns"
    title += f", {'small' if args.small_pages else 'huge'} pages, load {os.getloadavg()[0]:.1f} at the start"
    peak = None
    columns = ["what", "form", "s", "CPU s", "peak MiB", "x wall", "x CPU", "x memory"]
    if args.device == "cuda":
        name = torch.cuda.get_device_name()
        peak = next((tflops for key, tflops in PEAK_TFLOPS.items() if key in name), None)
        title, columns = f"{name}; {title}", [*columns, "TFLOP/s (of peak)"]
    table = Table(*columns, title=title)
    for batch in args.batch:
        px, n_clips = map(int, batch.split(":"))
        for task in args.tasks:
            for mode in args.modes:
                cases = [
                    Case(form=form, task=task, mode=mode, image_px=px, n_clips=n_clips,
                         device=args.device, threads=args.threads)
                    for form in FORMS
                ]  # fmt: skip
                plain, ours = compare(cases, args.calls)
                for row in rows_of(f"{task}, {mode}, {n_clips} x {px} px", plain, ours, peak):
                    table.add_row(*row)
                    print(*row, sep=" | ", file=sys.stderr, flush=True)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
