"""Time and memory of what auditors do with manifests: index, components, split, quick audit; one table.

    python benchmarks/manifests.py                                       119,146 videos, as many as DFDC has
    python benchmarks/manifests.py --n 12000000 --stages index,components,columns,audit

The manifests are synthetic: originals with about five fakes each, one clip a video, sparse files for shards. There are
no commit records and no row digests, so A5 and T4 find faults: the comparison of commit records, which at level quick
ends after some thousand rows, is not in the time. Every stage runs in a process of its own, so that its peak memory is
its own; the imports count.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lps.manifests.columns import PATHS, read_columns
from lps.manifests.splits.groups import group_videos
from lps.manifests.splits.inputs import INPUT_COLUMNS, inputs_from_table
from lps.manifests.splits.key_edges import component_labels
from lps.manifests.splits.records import SplitParams
from lps.manifests.splits.table import split_table
from lps.manifests.storage import open_store

DFDC_VIDEOS = 119_146


# ---- stages, each in its own process ---------------------------------------------------------------------------------


def read_index(folder: str) -> str:
    """Read what a split needs, as columns."""
    table = read_columns(open_store(folder), "videos", INPUT_COLUMNS)
    return f"{table.num_rows:,} rows, {table.nbytes / 1e6:,.0f} MB"


def label_components(folder: str) -> str:
    """Label the components of videos and their published keys."""
    keys = read_columns(open_store(folder), "videos", ("source_keys",))["source_keys"].combine_chunks()
    encoded = keys.flatten().dictionary_encode()
    n_keys = len(encoded.dictionary)
    labels, _ = component_labels(np.arange(len(keys)), np.asarray(encoded.indices, np.int64), len(keys), n_keys)
    return f"{len(np.unique(labels)):,} components"


def group_rows(folder: str) -> str:
    """Group videos as single rows."""
    groups = group_videos(inputs_from_table(read_columns(open_store(folder), "videos", INPUT_COLUMNS)))
    return f"{len(groups):,} groups"


def split_by_rows(folder: str) -> str:
    """Split by rows: by the rule `random`, which decides video by video."""
    videos = read_columns(open_store(folder), "videos", INPUT_COLUMNS)
    _, record = split_table(videos, SplitParams(rule="random", allow_leaky=True))
    return f"{record['n_groups']:,} groups"


def split_columns(folder: str) -> str:
    """Split the table as a whole."""
    table, record = split_table(read_columns(open_store(folder), "videos", INPUT_COLUMNS), SplitParams())
    return f"{table.num_rows:,} rows, {record['n_groups']:,} groups"


def quick_audit(folder: str) -> str:
    """Run every check of the level quick, and say which took longest."""
    from lps.manifests.audit.core.database import open_dataset
    from lps.manifests.audit.core.policy import Policy
    from lps.manifests.audit.run import base_suite, run_audit

    suite = base_suite()
    took: list[tuple[float, str]] = []
    last = time.perf_counter()

    def note(result: Any, _: str) -> None:
        nonlocal last
        now = time.perf_counter()
        took.append((now - last, f"{result.id} {result.state}"))
        if now - last > 10:
            print(f"  {result.id} {result.state}: {now - last:.0f} s, peak so far {_peak_gb():.2f} GB", flush=True)
        last = now

    with open_dataset(folder, limits=suite.limits) as ctx:
        audit = run_audit(ctx, suite, Policy(), on_result=note)
    slowest = ", ".join(f"{name} {seconds:.1f} s" for seconds, name in sorted(took, reverse=True)[:6])
    return f"{audit.verdict}; {len(audit.results)} checks; slowest: {slowest}"


STAGES: dict[str, tuple[str, Callable[[str], str]]] = {
    "index": ("index: read the columns", read_index),
    "components": ("components: arrays", label_components),
    "groups": ("components: rows, links and names", group_rows),
    "rows": ("split: by rows", split_by_rows),
    "columns": ("split: columns and rule record", split_columns),
    "audit": ("quick audit", quick_audit),
}


def measure(stage: str, folder: str) -> tuple[float, float, float, str]:
    """Return seconds, seconds of all cores together, peak GB of this process, and what came out."""
    start, busy = time.perf_counter(), time.process_time()
    said = STAGES[stage][1](folder)
    return time.perf_counter() - start, time.process_time() - busy, _peak_gb(), said


def _peak_gb() -> float:
    """Return the largest resident memory of this process. `getrusage` would count the parent's, from before exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e6


def main() -> None:
    """Make the data set, run the stages and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=DFDC_VIDEOS, help="videos")
    parser.add_argument("--clip-frames", type=int, default=60, help="0 leaves clips and shards out: no audit then")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--folder", type=Path, help="keep the data set here; one that is there is used again")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="lps-manifests-"))
    title = f"{args.n:,} videos, clips of {args.clip_frames} frames"
    table = Table("stage", "seconds", "CPU seconds", "peak GB", "result", title=title)
    try:
        if not (folder / PATHS["videos"]).exists():
            from synthetic_manifests import make_data_set  # type: ignore[import-not-found]  # beside this file

            start = time.perf_counter()
            make_data_set(folder, args.n, args.clip_frames)
            size = sum(file.stat().st_size for file in (folder / "manifests").rglob("*.parquet")) / 1e9
            table.add_row(
                "(make the data set)", f"{time.perf_counter() - start:.1f}", "", "", f"{size:.2f} GB of Parquet"
            )
        for stage in args.stages.split(","):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                seconds, busy, peak, said = pool.submit(measure, stage, str(folder)).result()
            table.add_row(STAGES[stage][0], f"{seconds:.1f}", f"{busy:.1f}", f"{peak:.2f}", said)
            print(f"{stage}: {seconds:.1f} s, {busy:.1f} s CPU, {peak:.2f} GB, {said}", flush=True)
    finally:
        if args.folder is None:
            shutil.rmtree(folder)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
