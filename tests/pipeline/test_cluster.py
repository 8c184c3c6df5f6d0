"""A cluster that cannot be joined shows at once."""

import socket

import pytest

from lps.manifests.errors import UnreadableError
from lps.pipeline.cluster import ray_cluster


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
