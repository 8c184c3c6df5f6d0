"""A bucket of many small files is listed by the page: nothing is asked of a single file."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

from lps.pipeline.job.request import PrepRequest
from lps.pipeline.job.survey import list_sources
from tests.buckets import bucket_server

pytestmark = pytest.mark.slow

N_KEYS, PAGE = 2100, 1000
"""Keys of the source, and those that a bucket lists at a time."""


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return what a server is asked whose bucket `many` has `N_KEYS` fakes and reals below `videos`."""
    asked: list[str] = []
    usual = DomainDispatcherApplication.__call__

    def counted(app: Any, environ: dict[str, Any], respond: Any) -> Iterable[bytes]:
        asked.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}")
        return usual(app, environ, respond)  # type: ignore[no-any-return]

    monkeypatch.setattr(DomainDispatcherApplication, "__call__", counted)
    with bucket_server() as client:
        client.create_bucket(Bucket="many")
        sides = ("real", "fake/swap")
        with ThreadPoolExecutor(8) as pool:
            keys = (f"videos/{sides[k % 2]}/{k // 2:06d}.mp4" for k in range(N_KEYS))
            list(pool.map(lambda key: client.put_object(Bucket="many", Key=key, Body=key.encode()), keys))
        asked.clear()
        yield asked


def test_a_bucket_is_asked_once_a_page(requests: list[str]) -> None:
    tree = list_sources(PrepRequest(source="s3://many/videos", out="s3://many/out"))
    assert len(requests) == -(-N_KEYS // PAGE), requests[:5]
    assert all(line.startswith("GET /many?") and "list-type=2" in line for line in requests), requests[:5]
    videos = tree.listing.videos
    assert len(videos) == N_KEYS
    assert sum(video.original_uri is not None for video in videos) == N_KEYS // 2
    assert {video.code for video in videos} == {None}
    sizes = {len(f"videos/{path}") for path in tree.files}
    assert {file.n_bytes for file in tree.files.values()} == sizes
    marks = {path: file.mark for path, file in tree.files.items()}
    assert len(set(marks.values())) == N_KEYS, "a digest of each"
    again = list_sources(PrepRequest(source="s3://many/videos", out="s3://many/out"))
    assert {path: file.mark for path, file in again.files.items()} == marks
