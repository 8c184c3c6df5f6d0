"""A cluster that cannot be joined or started shows at once; which one is meant, and how large a private one is."""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from lps.cli.prep.main import main
from lps.manifests.environment import OWNER
from lps.manifests.errors import UnreadableError
from lps.pipeline.faces.localizers import LocalizerSpec, load_localizer, own_localizer
from lps.pipeline.job.cluster import load_workers, ray_cluster, start_detectors
from lps.pipeline.tools.demo_faces import load_portrait


@pytest.fixture(autouse=True)
def unconnected() -> None:
    """Leave the cluster that earlier tests have joined."""
    ray.shutdown()


@pytest.mark.timeout(60)
def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (
        pytest.raises(UnreadableError, match=f"^no Ray cluster at '{address}': Connection refused$"),
        ray_cluster(address, 1),
    ):
        pass


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "no-such-host.invalid:6379"])
@pytest.mark.timeout(60)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UnreadableError, match=f"^no Ray cluster at '{address}': "), ray_cluster(address, 1):
        pass


# ---- through the command, with a Ray that does not start -----------------------------------------------------------


@dataclass
class FakeRay:
    """Takes the place of `ray.init`."""

    error: Exception
    asked: dict[str, Any] = field(default_factory=dict)

    def init(self, **asked: Any) -> None:
        """Note what was asked for, and fail."""
        self.asked = asked
        self.asked["is there"] = Path(asked.get("_temp_dir", "")).is_dir()
        raise self.error


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Result, FakeRay]]:
    """Return a function that runs `lps-prep plan` with a Ray that fails with an error."""
    (tmp_path / "in/real").mkdir(parents=True)
    (tmp_path / "in/real/a.mp4").write_bytes(b"x")
    for name in ("RAY_ADDRESS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)

    def run(*options: str, error: Exception | None = None) -> tuple[Result, FakeRay]:
        fake = FakeRay(error or RuntimeError("stop here"))
        monkeypatch.setattr("ray.init", fake.init)
        line = ["plan", str(tmp_path / "in"), str(tmp_path / "out"), "--localizer", "mtcnn", *options]
        return CliRunner().invoke(main, line), fake

    return run


Plan = Callable[..., tuple[Result, FakeRay]]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(13, "Permission denied", "/somewhere/ray"), "Permission denied: /somewhere/ray"),
        (OSError("AF_UNIX path length cannot exceed 107 bytes"), "AF_UNIX path length cannot exceed 107 bytes"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (KeyError("getpwuid(): uid not found: 12345"), "'getpwuid(): uid not found: 12345'"),
        (Exception("The current node timed out during startup.\nMore."), "The current node timed out during startup."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_whatever_keeps_ray_from_starting_is_one_line(plan: Plan, error: Exception, says: str) -> None:
    result, fake = plan(error=error)
    assert result.exit_code == 4
    assert result.output == f"main: Ray does not start on this machine: {says}\n"
    assert fake.asked["is there"]
    assert not Path(fake.asked["_temp_dir"]).exists()  # left behind by nobody


def test_ray_keeps_its_sockets_elsewhere_where_tmpdir_is_too_long(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    _, fake = plan()
    assert len(fake.asked["_temp_dir"]) + len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store") <= 107
    assert fake.asked["is there"]


def test_what_late_workers_of_killed_runs_made_is_removed(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path("/dev/shm") / f"lps-test-{os.getpid()}"  # short enough for sockets
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    reborn, alive, foreign = place / "lps-aaaaaaaa", place / "lps-bbbbbbbb", place / "lps-cccccccc"
    try:
        for folder in (reborn, alive):
            (folder / "session_2026-01-01_00-00-00_000000_1/logs/old").mkdir(parents=True)
        (alive / OWNER).write_text("another host")
        foreign.mkdir()
        plan()
        assert sorted(place.iterdir()) == [alive, foreign]
    finally:
        shutil.rmtree(place)


def test_the_default_of_workers_is_what_the_process_may_use(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert plan()[1].asked["num_cpus"] <= 3  # a quota may allow less
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert plan()[1].asked["num_cpus"] == 1
    assert plan("--workers", "5")[1].asked["num_cpus"] == 5


def test_auto_is_the_cluster_that_ray_address_names(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for options in (["--address", "auto"], ["--address", address]):
            monkeypatch.setenv("RAY_ADDRESS", address)
            result, fake = plan(*options)
            assert fake.asked["address"] == address
            assert result.output == f"main: no Ray cluster at '{address}': stop here\n"
        assert plan("--address", "auto")[1].asked["address"] == "auto"
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert plan()[1].asked["address"] == "local"  # a private one is never joined by accident


# ---- with Ray ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_localizer_that_does_not_load_is_said_once(cluster_address: str, tmp_path: Path) -> None:
    spec = LocalizerSpec("retinaface-mobilenet", tmp_path, "cpu", 1)
    with (
        ray_cluster(cluster_address, 2),
        pytest.raises(UnreadableError, match=r"^weight file \S+ is missing") as caught,
    ):
        load_workers(spec, 2)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_workers_load_what_the_first_video_needs(cluster_address: str) -> None:
    def loaded() -> set[str]:
        import sys

        needed = {"onnxruntime", "lps.pipeline.faces.mtcnn", "scipy.signal", "lps.pipeline.clips.process"}
        return needed - set(sys.modules)

    with ray_cluster(cluster_address, 2):
        load_workers(LocalizerSpec("mtcnn", None, "cpu", 1), 2)
        task = ray.remote(num_cpus=1)(loaded)
        assert [missing for missing in ray.get([task.remote() for _ in range(2)]) if missing] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mtcnn", "retinaface-mobilenet"])
def test_workers_on_cpus_have_the_networks_without_torch(name: str, shared: Callable[[str], Path]) -> None:
    def has_torch(*_: object) -> bool:
        import sys

        return "torch" in sys.modules

    def faces(spec: LocalizerSpec, image: NDArray[np.uint8]) -> tuple[str, bool]:
        return repr(own_localizer(spec).detect(image[None], dense=True)), has_torch()

    weights = shared("weights") if name != "mtcnn" else None
    image = np.ascontiguousarray(load_portrait("astronaut").rgba[:320, 64:384, :3])
    with ray_cluster(None, 1) as cluster:
        [spec] = start_detectors(cluster, name, weights, None)
        assert spec.graphs
        answers = [ray.get(ray.remote(faces).remote(spec, image))]
        [actor] = start_detectors(cluster, name, weights, 1)
        found = ray.get(actor.detect.remote(image[None], dense=True))
        answers.append((repr(found), ray.get(actor.__ray_call__.remote(has_torch))))
    here = load_localizer(name, weights_dir=weights, device="cpu", batch_size=1)
    expected = repr(here.detect(image[None], dense=True))
    assert answers == [(expected, False), (expected, True)]


@pytest.mark.slow
@pytest.mark.usefixtures("unconnected", "joined")
def test_a_program_that_is_connected_stays_so(cluster_address: str) -> None:
    for address in (None, "auto", cluster_address):
        with ray_cluster(address, 3) as cluster:
            assert (cluster.n_workers, cluster.n_gpus) == (3, 0)
        assert ray.is_initialized()
    refusal = f"^no Ray cluster at 'other:1': this process is connected to the one at '{cluster_address}'"
    with pytest.raises(UnreadableError, match=refusal), ray_cluster("other:1", 3):
        pass
