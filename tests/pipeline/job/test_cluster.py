"""A cluster that cannot be joined shows at once."""

import socket
from pathlib import Path

import pytest

from lps.manifests.errors import UnreadableError
from lps.pipeline.faces.localizers import LocalizerSpec
from lps.pipeline.job.cluster import load_workers, ray_cluster


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
    import ray

    def loaded() -> set[str]:
        import sys

        return {"torch", "facenet_pytorch", "scipy.signal", "lps.pipeline.clips.process"} - set(sys.modules)

    with ray_cluster(cluster_address, 2):
        load_workers(LocalizerSpec("mtcnn", None, "cpu", 1), 2)
        task = ray.remote(num_cpus=1)(loaded)
        assert [missing for missing in ray.get([task.remote() for _ in range(2)]) if missing] == []
