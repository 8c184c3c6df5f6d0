"""Ray starts when there is something to run: not for a resume that finds all done, nor to write manifests again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import ray

from lps.manifests.errors import UnreadableError
from lps.pipeline.job.events import ClusterReady, Finalized, Planned, SourceProbed
from lps.pipeline.job.request import RunOptions
from lps.pipeline.job.run import plan_job, run_job

if TYPE_CHECKING:
    from tests.pipeline.conftest import Digests, Scenario

pytestmark = pytest.mark.slow


@pytest.fixture
def out(undisturbed_out: Path, tmp_path: Path) -> Path:
    """Return a finished data set that the test may spoil."""
    return shutil.copytree(undisturbed_out, tmp_path / "out")


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ray fail where it is started or joined; this process is not connected to any."""

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    ray.shutdown()
    monkeypatch.setattr(ray, "init", refused)


@pytest.mark.usefixtures("no_ray")
def test_a_resume_with_nothing_to_do_starts_no_ray(
    scenario: "Scenario", out: Path, digests: "Callable[[Path], Digests]", undisturbed: "Digests"
) -> None:
    ended = scenario.run(scenario.request(out), address=None)
    (planned,) = ended.of(Planned)
    assert (planned.n_left, planned.n_shards) == (0, 0)
    assert not ended.of(ClusterReady)
    assert not ended.of(SourceProbed), "headers come from the cache"
    assert not ended.of(Finalized), "what is whole is not written again"
    assert not ray.is_initialized()
    assert digests(out) == undisturbed


@pytest.mark.usefixtures("no_ray")
def test_manifests_and_index_are_written_without_ray(
    scenario: "Scenario", out: Path, digests: "Callable[[Path], Digests]", undisturbed: "Digests"
) -> None:
    (out / "index.json").unlink()
    (out / "manifests/clips.parquet").unlink()
    assert scenario.run(scenario.request(out), address=None).of(Finalized)
    assert digests(out) == undisturbed


@pytest.mark.usefixtures("no_ray")
def test_the_plan_of_an_unchanged_source_is_made_without_ray(
    scenario: "Scenario", out: Path, digests: "Callable[[Path], Digests]", undisturbed: "Digests"
) -> None:
    plan_job(scenario.request(out), RunOptions(), lambda event: None)
    assert digests(out) == undisturbed


def test_ray_starts_for_one_lost_shard(
    scenario: "Scenario", out: Path, digests: "Callable[[Path], Digests]", undisturbed: "Digests"
) -> None:
    (out / "shards/train/train-000000.tar").unlink()
    ended = scenario.run(scenario.request(out))
    assert len(ended.of(ClusterReady)) == 1
    assert ended.of(Planned)[0].n_shards == 1
    assert digests(out) == undisturbed


@pytest.mark.usefixtures("no_ray")
def test_without_a_plan_a_missing_cluster_shows_before_the_listing(scenario: "Scenario", tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="Ray was started"):
        run_job(scenario.request(tmp_path / "new", source=str(tmp_path / "nothing")), RunOptions())
