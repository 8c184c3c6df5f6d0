"""What many files, many shards and many readers cost, and how that grows; three tables.

    python benchmarks/load.py                                   10,000 and 100,000 files, 200 and 2,000 shards, 8 and 64
    python benchmarks/load.py --parts files --files 10000       readers

files     A job over videos of which half are broken, each in one of ten ways: empty, a text, cut, only a header, zeros,
          noise, without a track, a link to nothing, a name that says nothing, a folder called as a video. Once they lie
          in `real/` and `fake/` themselves, once in folders six deep, four in each. As in `scale.py`, a function that
          returns a clip at once stands for decoding and finding faces; the rule of the split is `group`, and a fake is
          called as its original. Every file must have its row, and the code that it should have.
shards    A data set of `lps-prep` with two videos a shard, by the same function: opened for training, an epoch
          planned, `status`, the audit of level quick, and a run that finds nothing to do. Imports count.
readers   Processes that read all shards of a web server by way of one folder of copies, each in an order of its own,
          once with room for all copies, where each shard must be fetched once, and once with room for six of ten.
          Every copy is read, and must be whole.

CPU seconds are those of all processes, and of the driver, or the one process, alone; memory is the largest resident set
of the latter. Every step of `shards` and every job runs in a process of its own. The last columns draw a line through
the two largest sizes. Where other programs keep the processors busy, Ray's daemons, which wake up by the clock, take
more CPU a file; the driver's own seconds grow less.
"""

import argparse
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import load_files  # type: ignore[import-not-found]  # beside this file
import load_index  # type: ignore[import-not-found]
import load_readers  # type: ignore[import-not-found]
import scale  # type: ignore[import-not-found]
from rich.console import Console
from rich.table import Table

PARTS = ("files", "shards", "readers")
SMALLEST = {"files": [40], "shards": [6], "readers": [2]}
SHARDS_READ, SHARDS_READ_SMALLEST = 128, 8


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--files", type=int, nargs="+", default=[10_000, 100_000], help="numbers of files, ascending")
    parser.add_argument("--layouts", nargs="+", choices=load_files.LAYOUTS, default=load_files.LAYOUTS)
    parser.add_argument("--shards", type=int, nargs="+", default=[200, 2000], help="numbers of shards, ascending")
    parser.add_argument("--readers", type=int, nargs="+", default=[8, 64], help="numbers of readers, ascending")
    parser.add_argument(
        "--budget-minutes", type=float, default=math.inf, help="a job of `files` that takes longer is interrupted"
    )
    parser.add_argument("--smoke", action="store_true", help="the smallest sizes")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, help="where everything is made, and removed")
    args = parser.parse_args()
    sizes = SMALLEST if args.smoke else {part: getattr(args, part) for part in PARTS}
    if "files" in args.parts:
        show_files(sizes["files"], args.layouts, args.workers, args.folder, args.budget_minutes)
    if "shards" in args.parts:
        show_shards(sizes["shards"], args.workers, args.folder)
    if "readers" in args.parts:
        show_readers(sizes["readers"], SHARDS_READ_SMALLEST if args.smoke else SHARDS_READ, args.folder)


@contextmanager
def new_folder(place: Path | None) -> Iterator[Path]:
    """Give a folder that is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="lps-load-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def show_files(
    sizes: Sequence[int], layouts: Sequence[str], workers: int, place: Path | None, budget_minutes: float
) -> None:
    """Measure jobs over broken files and print their table."""
    for layout in layouts:
        measured = {}
        for n in sizes:
            with new_folder(place) as folder:
                measured[n], said = load_files.measure_files(n, layout, workers, folder, 60 * budget_minutes)
            print(f"{n:,} files, {layout}: {said}", flush=True)
        show(f"{layout} files, half of them broken", measured, "a file")


def show_shards(sizes: Sequence[int], workers: int, place: Path | None) -> None:
    """Measure what looks at many shards and print its table."""
    measured = {}
    for n in sizes:
        with new_folder(place) as folder:
            n_shards, costs = load_index.measure_index(n, workers, folder)
        measured[n_shards] = costs
    show("shards in one index", measured, "a shard")


def show(title: str, measured: Mapping[int, Mapping[str, scale.Cost]], item: str) -> None:
    """Print what every step costs at every size, and what one more item does."""
    sizes = list(measured)
    heads = [head for n in sizes for head in (f"{n:,}: CPU s", "driver's", "MB")]
    table = Table("step", *heads, f"{item}: CPU", "driver's", "memory", title=title)
    for step in dict.fromkeys(step for costs in measured.values() for step in costs):
        costs = [measured[n][step] for n in sizes if step in measured[n]]
        cells = [cell for n in sizes for cell in _cells(measured[n].get(step))]
        growth = ("", "", "")
        if len(costs) == len(sizes):  # else a job was interrupted
            cpu, _ = scale.growth(sizes, [cost.cpu_seconds for cost in costs], "s")
            own, _ = scale.growth(sizes, [cost.own_seconds for cost in costs], "s")
            memory, _ = scale.growth(sizes, [cost.peak_mb for cost in costs], "MB")
            growth = (cpu, own, memory)
        table.add_row(step, *cells, *growth)
    Console(width=160).print(table)


def _cells(cost: scale.Cost | None) -> tuple[str, str, str]:
    if cost is None:
        return "", "", ""
    return f"{cost.cpu_seconds:,.1f}", f"{cost.own_seconds:,.1f}", f"{cost.peak_mb:,.0f}"


def show_readers(sizes: Sequence[int], n_shards: int, place: Path | None) -> None:
    """Measure readers of one folder of copies and print their table."""
    table = Table(
        "readers", "room for", "s", "CPU s", "ms CPU a read", "reads", "fetches", "most of one", "MB of copies",
        title=f"{n_shards} shards of {load_readers.SHARD_BYTES >> 20} MiB",
    )  # fmt: skip
    for is_tight in (False, True):
        for n in sizes:
            with new_folder(place) as folder:
                cost = load_readers.measure_readers(n, n_shards, folder, is_tight=is_tight)
            print(f"{n} readers, {'tight' if is_tight else 'room for all'}: {cost}", flush=True)
            numbers = f"{cost.n_read:,}", f"{cost.n_fetched:,}", f"{cost.most_fetched}", f"{cost.peak_mb:.0f}"
            room = f"{load_readers.TIGHT_SHARE:.0%}" if is_tight else "all"
            each = f"{1e3 * cost.cpu_seconds / cost.n_read:.2f}"
            table.add_row(str(n), room, f"{cost.seconds:.1f}", f"{cost.cpu_seconds:.1f}", each, *numbers)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
