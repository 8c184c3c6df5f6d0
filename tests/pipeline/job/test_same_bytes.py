"""The same inputs give the same bytes, whatever the number of workers and wherever source and output lie."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lps.pipeline.job.events import Planned, ShardCommitted, VideoDone

if TYPE_CHECKING:
    from tests.pipeline.conftest import Digests, Scenario

pytestmark = pytest.mark.slow

FILES = {
    "README.md",
    "croissant.json",
    *(
        f"commits/{shard}.{kind}"
        for shard in ("test-000000", "train-000000", "train-000001", "val-000000")
        for kind in ("clips.parquet", "json", "videos.parquet")
    ),
    "index.json",
    "manifests/clips.parquet",
    "manifests/shards.parquet",
    "manifests/splits/group.json",
    "manifests/splits/group.parquet",
    "manifests/videos.parquet",
    "plan/plan.json",
    "plan/splits.parquet",
    "plan/videos.parquet",
    "shards/train/train-000000.tar",
    "shards/train/train-000001.tar",
    "shards/val/val-000000.tar",
}
"""The test shard has no tar: neither of its videos gives a clip."""


def test_the_data_set_is_whole(undisturbed: "Digests") -> None:
    assert set(undisturbed) == FILES


def test_three_workers_give_the_bytes_of_one(
    scenario: "Scenario", tmp_path: Path, undisturbed: "Digests", digests: "Callable[[Path], Digests]"
) -> None:
    result = scenario.run(scenario.request(tmp_path / "out"), workers=3, detectors=2)
    assert digests(tmp_path / "out") == undisturbed
    assert (result.summary.n_videos, result.summary.n_ok, result.summary.n_quarantined) == (10, 8, 0)


def test_a_second_run_elsewhere_gives_the_same_bytes(
    private: "Scenario", tmp_path: Path, undisturbed: "Digests", digests: "Callable[[Path], Digests]"
) -> None:
    moved = shutil.copytree(private.source, tmp_path / "moved", copy_function=shutil.copyfile)
    private.run(private.request(tmp_path / "deeper" / "out", source=str(moved)), workers=1, detectors=None)
    assert digests(tmp_path / "deeper" / "out") == undisturbed


def test_running_a_finished_job_again_processes_nothing(
    scenario: "Scenario",
    tmp_path: Path,
    undisturbed_out: Path,
    undisturbed: "Digests",
    digests: "Callable[[Path], Digests]",
) -> None:
    out = shutil.copytree(undisturbed_out, tmp_path / "out")
    result = scenario.run(scenario.request(out))
    assert digests(out) == undisturbed
    assert result.of(VideoDone) + result.of(ShardCommitted) == []
    assert result.of(Planned) == [Planned(n_videos=10, n_left=0, n_shards=0)]
    assert result.summary.n_ok == 8
