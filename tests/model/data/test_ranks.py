"""Two processes that talk to each other at every step: neither waits for ever, and together they read all."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Members, Spec

    Many = Callable[..., list[list[Spec]]]

RANK = """
import json, sys
import torch
import torch.distributed as dist
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_data import open_data
from lps.model.data.epoch_plan import Rank, PlanOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions

def read(out, rank, options):
    read = ReadOptions(n_frames=3, augment="strong")
    plan = PlanOptions(**options)
    work = WorkOptions(n_workers=1, max_bad_share=1.0)
    net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 1))
    steps = []
    with ClipReader(open_data(out, "train"), read, plan, work, Rank(rank, 2)) as reader:
        for epoch in range(2):
            for batch in reader.epoch(epoch):
                net(batch.frames.float().mean(dim=(1, 2, 3))).sum().backward()  # waits for the other rank
                steps.append([epoch, batch.step, batch.keys, [bad.key for bad in batch.bad]])
    dist.barrier()
    return steps

if __name__ == "__main__":
    rank, meeting, jobs = sys.argv[1:]
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=2)
    print(json.dumps([read(out, int(rank), options) for out, options in json.loads(jobs)]))
    dist.destroy_process_group()
"""
SIZES = ((1, 7, 30), (1, 1, 1))
OPTIONS: tuple[dict[str, Any], ...] = ({"batch_size": 8}, {"batch_size": 4, "sampling": "balanced"})


def halved(members: "Members") -> None:
    members["01.jpg"] = members["01.jpg"][: len(members["01.jpg"]) // 2]


@pytest.mark.slow
def test_two_ranks_stay_in_step_over_uneven_shards_with_bad_samples(
    make: "Maker", many: "Many", tmp_path: Path
) -> None:
    sources = []
    for sizes in SIZES:
        shards = many(*sizes, real_every=3)
        spoiled = [each for shard in shards for each in shard[5::6]]
        sources.append((make.data_set(shards, spoil={each.video: halved for each in spoiled}), shards, spoiled))
    jobs = [(str(out), options) for out, _, _ in sources for options in OPTIONS]
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), str(rank), str(tmp_path / "meeting"), json.dumps(jobs)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ended = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    each_rank = [json.loads(out.splitlines()[-1]) for out, _ in ended]
    expected = [(shards, spoiled, options) for _, shards, spoiled in sources for options in OPTIONS]
    for first, second, (shards, spoiled, options) in zip(*each_rank, expected, strict=True):
        assert [step[:2] for step in first] == [step[:2] for step in second]
        bad = {each.key for each in spoiled}
        everything = {each.key for shard in shards for each in shard}
        for epoch in range(2):
            steps = [step for step in (*first, *second) if step[0] == epoch]
            found = Counter(key for step in steps for key in step[2])
            assert {*found} == everything - bad
            assert {key for step in steps for key in step[3]} == bad
            if options.get("sampling") != "balanced":
                assert max(found.values()) == 1
