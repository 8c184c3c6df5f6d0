"""What it costs to plan training on several data sets together: opening them, an epoch's plan, the search for leaks.

    python benchmarks/mix.py                        29,786 and 119,146 videos, as many as DFDC has, in three data sets
    python benchmarks/mix.py --n 2000,4000

The data sets have 60, 30 and 10 % of the videos, one clip each, and nothing in common; their manifests are synthetic
(`synthetic_manifests.py`), read from the disk as a run does. Every step runs in a process of its own, whose imports do
not count. The last columns draw a line through the two largest sizes. The search for leaks compares pairs of videos,
so that twice as many take four times as long: no line fits it.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table
from synthetic_manifests import SPLIT_SET, make_data_set  # type: ignore[import-not-found]  # beside this file

from lps.model.data.clip_data import ClipData, compared_videos
from lps.model.data.epoch_plan import PlanOptions, Rank, balanced_order, natural_order, plan_epoch
from lps.model.data.mix import NamedData, compare_mix, mix_of
from lps.model.data.sources import Sources, open_split, samples_sha256

SHARES = {"a": 0.6, "b": 0.3, "c": 0.1}
WEIGHTS = {"a": 0.5, "b": 1.0, "c": 3.0}
CLIP_FRAMES = 5
OPTIONS = PlanOptions(batch_size=16)


@dataclass(frozen=True, slots=True)
class MixCost:
    """Of one step."""

    seconds: float
    cpu_seconds: float
    grown_mb: float
    """By how much the largest resident memory is more than what the process had before the step."""
    said: str


def sources(folder: Path) -> Sources:
    """Return the mix below a folder."""
    sets = tuple(NamedData(name=name, data=str(folder / name), weight=weight) for name, weight in WEIGHTS.items())
    return Sources(sets=sets)


def open_mix(folder: Path) -> Callable[[], str]:
    """Open the data sets and name their samples by digest."""

    def step() -> str:
        data = open_split(sources(folder), "train")
        return f"{len(data):,} clips, {samples_sha256(data)[:8]}"

    return step


def plan_natural(folder: Path) -> Callable[[], str]:
    """Plan an epoch by the weights."""
    data = open_split(sources(folder), "train")

    def step() -> str:
        order = natural_order(data.column("shard"), OPTIONS, 0, mix_of(data))
        return f"{plan_epoch(order, OPTIONS, Rank()).n_steps:,} steps"

    return step


def plan_balanced(folder: Path) -> Callable[[], str]:
    """Plan an epoch by the weights, real and fake in turns."""
    data = open_split(sources(folder), "train")

    def step() -> str:
        order = balanced_order(data.column("shard"), data.labels, OPTIONS, 0, mix_of(data))
        return f"{plan_epoch(order, OPTIONS, Rank()).n_steps:,} steps"

    return step


def look_for_leaks(folder: Path) -> Callable[[], str]:
    """Compare the videos of all data sets, as each start of a run does."""
    data: ClipData = open_split(sources(folder), "train")

    def step() -> str:
        videos = [compared_videos(str(folder / name), SPLIT_SET, name) for name in WEIGHTS]
        found = compare_mix(data, videos)
        return f"{sum(each.videos.num_rows for each in videos):,} videos, {len(found.shared)} overlaps"

    return step


STEPS: dict[str, Callable[[Path], Callable[[], str]]] = {
    "open": open_mix,
    "plan an epoch": plan_natural,
    "plan, balanced": plan_balanced,
    "look for leaks": look_for_leaks,
}


def measure(name: str, folder: Path) -> MixCost:
    """Return what a step costs."""
    step = STEPS[name](folder)
    Path("/proc/self/clear_refs").write_text("5")  # lets the kernel forget the peak
    before, start, busy = _peak_mb(), time.perf_counter(), time.process_time()
    said = step()
    return MixCost(time.perf_counter() - start, time.process_time() - busy, _peak_mb() - before, said)


def _peak_mb() -> float:
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1e3


def measure_all(n: int, folder: Path) -> dict[str, MixCost]:
    """Make the data sets and measure every step."""
    for seed, (name, share) in enumerate(SHARES.items()):
        make_data_set(folder / name, round(n * share), CLIP_FRAMES, dataset=name, seed=seed)
    costs = {}
    for name in STEPS:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            costs[name] = pool.submit(measure, name, folder).result()
    return costs


def main() -> None:
    """Run every size and print what its steps cost and how that grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", default="29786,119146", help="numbers of videos, ascending")
    parser.add_argument("--folder", type=Path, help="where data sets are made, and removed")
    args = parser.parse_args()
    sizes = [int(n) for n in args.n.split(",")]
    measured: dict[int, dict[str, MixCost]] = {}
    for n in sizes:
        folder = Path(tempfile.mkdtemp(prefix="lps-mix-", dir=args.folder))
        try:
            measured[n] = measure_all(n, folder)
        finally:
            shutil.rmtree(folder)
        for step, cost in measured[n].items():
            said = f"{cost.seconds:.2f} s, {cost.cpu_seconds:.2f} s CPU, {cost.grown_mb:.0f} MB, {cost.said}"
            print(f"{n:,} {step}: {said}", flush=True)
    heads = [head for n in sizes for head in (f"{n:,}: CPU s", "MB")]
    table = Table("step", *heads, "a video: CPU ms", "kB", title="three data sets together")
    for step in STEPS:
        costs = [measured[n][step] for n in sizes]
        cells = [cell for cost in costs for cell in (f"{cost.cpu_seconds:.2f}", f"{cost.grown_mb:.0f}")]
        table.add_row(step, *cells, *_growth(sizes, costs))
    Console(width=140).print(table)


def _growth(sizes: list[int], costs: list[MixCost]) -> tuple[str, str]:
    """Return what one more video costs: a line through the two largest sizes."""
    if len(sizes) < 2:
        return "", ""
    more = sizes[-1] - sizes[-2]
    cpu, memory = (costs[-1].cpu_seconds - costs[-2].cpu_seconds), (costs[-1].grown_mb - costs[-2].grown_mb)
    return f"{1e3 * max(0.0, cpu) / more:.4f}", f"{1e3 * max(0.0, memory) / more:.2f}"


if __name__ == "__main__":
    main()
