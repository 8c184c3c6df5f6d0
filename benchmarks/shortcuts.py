"""Time and memory of the panel of shortcuts, by the number of videos and of sampled clips; one table.

    python benchmarks/shortcuts.py                      1,000 and 4,000 clips of data sets of so many videos
    python benchmarks/shortcuts.py --n 119146           4,000 clips of as many videos as DFDC has

Manifests are those of `benchmarks/synthetic_manifests.py`, with 60 frames a clip; the four pictures that are read of
each sampled clip are JPEGs of noise, 224 px, at their places in sparse shards. Each size runs in a process of its own,
so that its peak memory is its own; the imports count.
"""

import argparse
import io
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from lps.manifests.audit.core.database import open_dataset
from lps.manifests.shortcuts.panel import MAX_CLIPS, measure_panel
from lps.manifests.shortcuts.sample import draw_sample
from lps.manifests.shortcuts.tables import sampled_clips

SIDE_PX = 224
N_PICTURES = 64
"""Different ones; clips take them in turns."""


def fill_pictures(folder: str, max_clips: int) -> None:
    """Write the pictures that the panel will read into the shards."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(N_PICTURES):
        small = Image.fromarray(rng.integers(60, 200, (20, 20, 3)).astype(np.uint8))
        data = io.BytesIO()
        small.resize((SIDE_PX, SIDE_PX)).save(data, "jpeg", quality=85, subsampling=0)
        assert data.tell() <= 17_000  # as much as the synthetic shards have room for
        pictures.append(data.getvalue())
    with open_dataset(folder) as ctx:
        clips = sampled_clips(ctx, draw_sample(ctx, max_clips, 0))
    for number, clip in enumerate(clips):
        with (Path(folder) / clip["uri"]).open("r+b") as shard:
            for k, member in enumerate(clip["pictures"]):
                shard.seek(member["offset"])
                shard.write(pictures[(number + k) % N_PICTURES][: member["nbytes"]])


def measure(folder: str, max_clips: int) -> tuple[float, float, float, str]:
    """Return seconds, seconds of all cores together, peak GB of this process, and what came out."""
    start, busy = time.perf_counter(), time.process_time()
    with open_dataset(folder) as ctx:
        found = measure_panel(ctx, max_clips=max_clips)
    assert not found.unread, found.unread[0]
    known = sum(score.auc is not None for score in found.panel.scores)
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1e6
    said = f"{found.panel.n_groups} groups, {known} of {len(found.panel.scores)} shortcuts measured"
    return time.perf_counter() - start, time.process_time() - busy, peak, said


def main() -> None:
    """Make the data sets, measure and print the table."""
    from synthetic_manifests import make_data_set  # type: ignore[import-not-found]  # beside this file

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 4000], help="videos")
    parser.add_argument("--max-clips", type=int, default=MAX_CLIPS)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    table = Table("videos", "sampled clips", "seconds", "CPU seconds", "peak GB", "result")
    for n in args.n:
        most = min(n, args.max_clips)
        with tempfile.TemporaryDirectory(prefix="lps-shortcuts-") as folder:
            make_data_set(Path(folder), n, 60)
            fill_pictures(folder, most)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                seconds, busy, peak, said = pool.submit(measure, folder, most).result()
        table.add_row(f"{n:,}", f"{most:,}", f"{seconds:.1f}", f"{busy:.1f}", f"{peak:.2f}", said)
        print(f"{n}: {seconds:.1f} s, {busy:.1f} s CPU, {peak:.2f} GB, {said}", flush=True)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
