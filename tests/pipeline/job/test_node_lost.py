"""A node of the cluster dies in the middle of a run: no video is charged for it, and the bytes do not tell."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import ray
from ray import cloudpickle
from ray.actor import ActorHandle

from lps.manifests.records import VideoResult
from lps.pipeline.config.params import Params
from lps.pipeline.faces.track import DetectFaces
from lps.pipeline.job import run
from lps.pipeline.job.cluster import Cluster, start_detectors
from lps.pipeline.job.events import Finalized, JobCharged, JobQuarantined, JobRetried, PrepEvent, VideoDone
from lps.pipeline.job.shards import ShardVideo
from lps.pipeline.job.tasks import ProcessFunction, process_source
from lps.pipeline.video.source_reader import SourceReader

if TYPE_CHECKING:
    from ray._private.node import Node

    from tests.pipeline.conftest import Digests, Result, Scenario

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

pytestmark = pytest.mark.slow

NODE = {"object_store_memory": 100 << 20}
# A node that is gone refuses connections at once, so few and frequent looks tell it from one that is slow.
SYSTEM = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 5}


class Nodes:
    """A cluster whose nodes can be taken away."""

    def __init__(self, head_cpus: int) -> None:
        from ray.cluster_utils import Cluster as TestCluster

        head = {**NODE, "num_cpus": head_cpus, "include_dashboard": False, "_system_config": SYSTEM}
        self.cluster = TestCluster(initialize_head=True, head_node_args=head)
        self.added: dict[str, Node] = {}
        """Node id -> node, without the head."""

    def add(self, n_cpus: int) -> None:
        """Add a node; only in the main thread."""
        node = self.cluster.add_node(num_cpus=n_cpus, **NODE)
        self.added[node.node_id] = node

    def kill(self, node_id: str) -> None:
        """Kill all processes of a node."""
        self.cluster.remove_node(self.added.pop(node_id), allow_graceful=False)


@pytest.fixture
def nodes() -> Iterator[Callable[..., Nodes]]:
    """Return a function that starts a cluster with a head and nodes of so many CPUs."""
    started = []

    def start(head_cpus: int, *node_cpus: int) -> Nodes:
        made = Nodes(head_cpus)
        started.append(made)
        for n_cpus in node_cpus:
            made.add(n_cpus)
        return made

    yield start
    for one in started:
        one.cluster.shutdown()


def telling_node(folder: Path) -> ProcessFunction:
    """Return the normal process function, but it writes the node of every video it finishes into `folder`."""

    def process(source: SourceReader, video: ShardVideo, detect: DetectFaces, params: Params) -> VideoResult:
        result = process_source(source, video, detect, params)
        context = ray.get_runtime_context()
        assert context.get_task_name() == f"process {video.source.uri}"  # what the dashboard shows
        (folder / video.source.video_id.hex()).write_text(context.get_node_id())
        return result

    return process


def assert_nobody_charged(result: "Result") -> None:
    """Check that the videos did not pay for the node."""
    assert result.of(JobCharged) + result.of(JobQuarantined) == []
    assert result.summary.n_quarantined == 0


def test_a_lost_node_takes_its_finished_results_along(
    scenario: "Scenario",
    nodes: "Callable[..., Nodes]",
    tmp_path: Path,
    undisturbed: "Digests",
    digests: "Callable[[Path], Digests]",
) -> None:
    made = nodes(0, 2, 2)
    killed: list[str] = []

    def kill_first(event: PrepEvent) -> None:
        # The result of the first finished video waits on its node for its shard mates.
        if isinstance(event, VideoDone) and not killed:
            shard_id, video = event.video.split("/")
            made.kill((tmp_path / video).read_text())
            killed.append(shard_id)

    request = scenario.request(tmp_path / "out")
    options = {"address": made.cluster.address, "workers": 4, "detectors": 1, "process": telling_node(tmp_path)}
    result = scenario.run(request, kill_first, **options)
    assert digests(tmp_path / "out") == undisturbed
    assert_nobody_charged(result)
    lost = {event.job for event in result.of(JobRetried) if event.cause == "results lost"}
    assert f"commit/{killed[0]}" in lost


def test_a_lost_node_takes_its_detectors_along(
    scenario: "Scenario",
    nodes: "Callable[..., Nodes]",
    tmp_path: Path,
    undisturbed: "Digests",
    digests: "Callable[[Path], Digests]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = nodes(2, 0)
    (victim,) = made.added
    homes: list[list[str]] = []
    detectors: list[ActorHandle] = []

    def start(cluster: Cluster, localizer: str, weights_dir: Path | None, n: int | None) -> list[ActorHandle]:
        # A node that has only just joined may not be counted yet when Ray spreads the actors over the nodes.
        while victim not in homes_of(detectors):
            for early in detectors:
                ray.kill(early)
            detectors[:] = start_detectors(cluster, localizer, weights_dir, n)
        homes.append(homes_of(detectors))
        return detectors

    def kill(event: PrepEvent) -> None:
        if isinstance(event, VideoDone) and victim in made.added:
            made.kill(victim)
        if isinstance(event, Finalized):
            homes.append(homes_of(detectors))

    monkeypatch.setattr(run, "start_detectors", start)
    request = scenario.request(tmp_path / "out")
    result = scenario.run(request, kill, address=made.cluster.address, workers=2, detectors=2)
    before, after = homes
    assert victim in before
    assert victim not in after
    assert digests(tmp_path / "out") == undisturbed
    assert_nobody_charged(result)
    assert {event.cause for event in result.of(JobRetried)} <= {"ActorUnavailableError", "ActorDiedError"}


def homes_of(actors: list[ActorHandle]) -> list[str]:
    """Return the node of every actor, once it lives."""
    # with retries the call waits for an actor that is restarting
    asked = [
        actor.__ray_call__.options(max_task_retries=-1).remote(lambda _: ray.get_runtime_context().get_node_id())
        for actor in actors
    ]
    return list(ray.get(asked))
