"""A data set of many shards, and what it costs to look at it: a part of `load.py`."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import scale  # type: ignore[import-not-found]  # beside this file

from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import open_store

VIDEOS_A_SHARD = 2
SHARD_MB = 4
"""As many MiB as VIDEOS_A_SHARD clips may take at most, by the estimate of a plan."""


def open_train(out: str) -> str:
    """Open the training split, and name its samples by digest."""
    from lps.model.data.sources import Sources, open_split, samples_sha256

    data = open_split(Sources(data=out), "train")
    return f"{len(data):,} clips in {len(data.shards):,} shards, {samples_sha256(data)[:8]}"


def plan_train(out: str) -> str:
    """Open the training split and plan an epoch of it."""
    from lps.model.data.epoch_plan import PlanOptions, Rank, natural_order, plan_epoch
    from lps.model.data.mix import mix_of
    from lps.model.data.sources import Sources, open_split

    data = open_split(Sources(data=out), "train")
    options = PlanOptions(batch_size=16)
    order = natural_order(data.column("shard"), options, 0, mix_of(data))
    return f"{plan_epoch(order, options, Rank()).n_steps:,} steps"


def status(out: str) -> str:
    """Count what is done."""
    from lps.pipeline.job.status import read_status

    found = read_status(out)
    assert found.complete
    return f"{found.n_shards_done:,} of {found.n_shards:,} shards"


def audit_quick(out: str) -> str:
    """Run every check of the level quick, and say which took longest."""
    from lps.manifests.audit.core.database import open_dataset
    from lps.manifests.audit.core.policy import Policy
    from lps.manifests.audit.run import base_suite, run_audit

    suite = base_suite()
    ends = [(time.process_time(), "")]
    with open_dataset(out, limits=suite.limits) as ctx:
        audit = run_audit(
            ctx, suite, Policy(), on_result=lambda result, _: ends.append((time.process_time(), result.id))
        )
    took = sorted(((b - a, id) for (a, _), (b, id) in pairwise(ends)), reverse=True)
    return f"{audit.verdict}; {', '.join(f'{id} {seconds:.1f} s' for seconds, id in took[:5])}"


STEPS: dict[str, Callable[[str], str]] = {
    "open for training": open_train,
    "the same, and plan an epoch": plan_train,
    "status": status,
    "quick audit": audit_quick,
}


def step(name: str, out: str) -> tuple[scale.Cost, str]:
    """Return what a step costs in this process, imports included, and what it says."""
    start = time.perf_counter()
    said = STEPS[name](out)
    seconds, busy = time.perf_counter() - start, time.process_time()
    return scale.Cost(seconds, busy, scale.peak_mb(), 0.0, busy), said


def measure_index(n: int, workers: int, folder: Path) -> tuple[int, dict[str, scale.Cost]]:
    """Make a data set of about `n` shards; return how many it has, and the costs of looking at it."""
    source, out, split = str(folder / "source"), str(folder / "out"), SplitParams()
    scale.make_sources(Path(source), n * VIDEOS_A_SHARD)
    costs: dict[str, scale.Cost] = {}
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(scale.run_once, source, out, workers, split, SHARD_MB).result()
    n_shards = sum(file.path.endswith(".tar") for file in open_store(out).walk("shards"))
    for name in STEPS:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            costs[name], said = pool.submit(step, name, out).result()
        print(f"{n_shards:,} shards, {name}: {costs[name].cpu_seconds:.2f} s CPU, {said}", flush=True)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        costs |= pool.submit(scale.resume, source, out, workers, split, SHARD_MB).result()
    return n_shards, costs
