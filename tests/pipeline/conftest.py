"""What the scenarios share: short videos, a Ray cluster, and the data set of a run that nothing disturbs."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lps.manifests.splits import SplitParams
from lps.pipeline.demo import make_face_video, make_texture_video
from lps.pipeline.finalize import Summary
from lps.pipeline.params import Params
from lps.pipeline.run import Request, RunOptions, run_job

Event = tuple[str, dict[str, Any]]
Digests = dict[str, str]
"""Path of a file of a data set -> its SHA-256."""

N_PAIRS = 4
PARAMS = Params(localizer="mtcnn", clip_frames=10, block_frames=5)
OBJECT_STORE_BYTES = 100 << 20


@dataclass(frozen=True, slots=True)
class Result:
    """What one run gave."""

    summary: Summary
    events: list[Event]

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the facts of all events of these kinds."""
        return [facts for kind, facts in self.events if kind in kinds]


@dataclass(frozen=True, slots=True)
class Scenario:
    """How the scenarios make their data sets: the same sources and parameters but for what a test changes."""

    source: str
    address: str | None
    """Of the shared cluster; None for a private one."""

    def request(self, out: Path | str, **changes: Any) -> Request:
        """Return the request of a data set at `out`. Three clips at most go into a shard."""
        made = Request(
            source=self.source,
            out=str(out),
            dataset="folder",
            params=PARAMS,
            split=SplitParams(rule="group", ratios=(0.6, 0.2, 0.2)),
            shard_mb=1,
        )
        return replace(made, **changes)

    def run(
        self,
        request: Request,
        on_event: Callable[[str, dict[str, Any]], None] = lambda kind, facts: None,
        **options: Any,
    ) -> Result:
        """Run the job. `options` are those of RunOptions, `on_event` is called besides the recording."""
        events: list[Event] = []

        def record(kind: str, facts: dict[str, Any]) -> None:
            events.append((kind, facts))
            on_event(kind, facts)

        chosen = RunOptions(**{"workers": 2, "detectors": 1, "address": self.address, **options})
        return Result(run_job(request, chosen, record), events)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four real faces, their fakes, a video without a face, and one too short for a clip."""
    root = tmp_path_factory.mktemp("source")
    for i in range(N_PAIRS):
        for folder, fake in (("real", False), ("fake/blend", True)):
            make_face_video(root / folder / f"face_{i}.mp4", n_frames=24 + i, width=320, height=240, seed=i, fake=fake)
    make_texture_video(root / "real/no_face.mp4", n_frames=24, width=320, height=240)
    make_face_video(root / "real/too_short.mp4", n_frames=8, width=320, height=240, seed=9)
    return root


@pytest.fixture(scope="session")
def cluster_address() -> Iterator[str]:
    """Address of a Ray cluster that lives as long as the session; starting one takes seconds."""
    from ray.cluster_utils import Cluster

    # Ray turns tokens on when a process first starts a private cluster, and that process cannot join this one any more.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    head = {"num_cpus": 4, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="session")
def scenario(source: Path, cluster_address: str) -> Scenario:
    """Runs on the shared cluster."""
    return Scenario(str(source), cluster_address)


@pytest.fixture(scope="session")
def private(source: Path) -> Scenario:
    """Runs that each start a cluster of their own, as `lps-prep run` does."""
    return Scenario(str(source), None)


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], Digests]:
    """Return a function that digests every file of a data set that must be a pure function of its inputs."""

    def digest(out: Path) -> Digests:
        files = sorted(path for path in out.rglob("*") if path.is_file())
        names = {path.relative_to(out).as_posix(): path for path in files}
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in names.items()
            if not name.startswith("runs/")
        }

    return digest


@pytest.fixture(scope="session")
def undisturbed_out(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data set of a run with one worker and nothing in its way. Tests only read it."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    scenario.run(scenario.request(out), workers=1)
    return out


@pytest.fixture(scope="session")
def undisturbed(undisturbed_out: Path, digests: Callable[[Path], Digests]) -> Digests:
    """Return the digests of that data set."""
    return digests(undisturbed_out)
