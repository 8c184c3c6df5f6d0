"""Source and output in a bucket: the bytes of the local run, and a quick, clear end where there is no bucket."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from lps.pipeline.job.request import MIB, RunOptions
from tests.buckets import KEYS

if TYPE_CHECKING:
    from tests.pipeline.conftest import Digests, Scenario

    Ended = subprocess.CompletedProcess[str]

pytestmark = pytest.mark.slow

HOLDER = """
import sys
from lps.manifests.storage import Store
from lps.pipeline.job.lease import driver_lease

with driver_lease(Store("s3://media/out"), "run", "first"):
    print("held", flush=True)
    sys.stdin.read()
"""

JOB = """
import pickle, sys
from pathlib import Path
from lps.pipeline.job.run import run_job

run_job(*pickle.loads(Path(sys.argv[1]).read_bytes()))
"""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A server with one bucket, `media`, which holds the sources below `videos`."""

    env: dict[str, str]
    """For processes that use it."""
    client: Any
    served: "CountingServer"
    n_bytes: int
    """Of the sources."""


@dataclass(frozen=True, slots=True)
class CountingServer:
    """An S3 server that counts the bytes that it sends of each object."""

    app: Any
    n_sent: Counter[str] = field(default_factory=Counter)
    """Path, bucket included -> bytes."""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        """Answer a request."""
        answer: Iterable[bytes] = self.app(environ, start_response)
        for data in answer:
            if environ["REQUEST_METHOD"] == "GET":
                self.n_sent[environ["PATH_INFO"]] += len(data)
            yield data

    def sources(self) -> int:
        """Return the bytes of sources that were sent, and count from 0 again."""
        n_bytes = sum(n for path, n in self.n_sent.items() if path.startswith("/media/videos/"))
        self.n_sent.clear()
        return n_bytes


@pytest.fixture(scope="module")
def bucket(scenario_source: Path) -> Iterator[Bucket]:
    """Start a server on the loopback and upload the sources."""
    served = CountingServer(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, served, threaded=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name=KEYS["AWS_DEFAULT_REGION"],
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket="media")
    paths = sorted(scenario_source.rglob("*.mp4"))
    for path in paths:
        client.upload_file(str(path), "media", f"videos/{path.relative_to(scenario_source).as_posix()}")
    n_bytes = sum(path.stat().st_size for path in paths)
    yield Bucket({**KEYS, "AWS_ENDPOINT_URL": url}, client, served, n_bytes)
    client.close()
    server.shutdown()
    thread.join()
    server.server_close()


def bucket_digests(client: Any, prefix: str) -> dict[str, str]:
    """Return the digests of all that must be a pure function of its inputs below `prefix`."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="media", Prefix=prefix)
    names = [entry["Key"].removeprefix(prefix) for page in pages for entry in page.get("Contents", ())]
    return {
        name: hashlib.sha256(client.get_object(Bucket="media", Key=prefix + name)["Body"].read()).hexdigest()
        for name in names
        if not name.startswith("runs/")
    }


def read_of_source(client: Any, prefix: str) -> list[tuple[int, int]]:
    """Return what the logs of all runs say of the source: bytes that were fetched, and those of its files."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="media", Prefix=f"{prefix}runs/")
    names = [entry["Key"] for page in pages for entry in page.get("Contents", ()) if entry["Key"].endswith(".jsonl")]
    lines = [line for name in names for line in client.get_object(Bucket="media", Key=name)["Body"].iter_lines()]
    events = [event for event in map(json.loads, lines) if event["kind"] == "source-read"]
    return [(event["n_bytes_fetched"], event["n_bytes_source"]) for event in events]


def test_a_job_from_bucket_to_bucket_gives_the_bytes_of_the_local_one(
    command: "Callable[..., Ended]",
    assert_one_line: "Callable[[Ended, int, str], None]",
    bucket: Bucket,
    undisturbed: "Digests",
    tmp_path: Path,
) -> None:
    line = [sys.executable, "-c", HOLDER]
    ours = {**os.environ, **bucket.env}
    with subprocess.Popen(line, env=ours, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        ended = command("s3://media/out", source="s3://media/videos", private=True, env=bucket.env)
        assert_one_line(ended, 3, "lps-prep: s3://media/out is being written by `lps-prep run` (run first) on host ")
        holder.kill()  # its lease is left
    bucket.served.sources()
    # The environment of the private cluster that the run starts is that of the run.
    settings = f'scratch = "{tmp_path}"'
    ended = command("s3://media/out", source="s3://media/videos", private=True, env=bucket.env, settings=settings)
    assert ended.returncode == 0, ended.stderr
    assert bucket_digests(bucket.client, "out/") == undisturbed
    # every video is read for its probe, and processed from the copy
    assert bucket.n_bytes <= bucket.served.sources() <= 1.05 * bucket.n_bytes
    assert read_of_source(bucket.client, "out/") == [(bucket.n_bytes, bucket.n_bytes)]
    assert "source: 0.3 MB read from the store for 0.3 MB of files (1.00 times)" in ended.stderr
    left = [path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix not in (".lock", ".toml")]
    assert left == []
    bucket.client.delete_object(Bucket="media", Key="out/index.json")
    ended = command("s3://media/out", source="s3://media/videos", private=True, env=bucket.env)
    assert ended.returncode == 0, ended.stderr
    assert bucket_digests(bucket.client, "out/") == undisturbed
    assert "planned: 10 videos, 10 done before, 0 shards to write" in ended.stderr
    bucket.client.delete_object(Bucket="media", Key="out/shards/train/train-000000.tar")
    ended = command("s3://media/out", source="s3://media/videos", private=True, env=bucket.env)
    assert ended.returncode == 0, ended.stderr
    assert "note: shards/train/train-000000.tar: missing" in ended.stderr
    assert bucket_digests(bucket.client, "out/") == undisturbed


def test_a_cache_smaller_than_the_source_costs_bytes_that_are_told(
    scenario: "Scenario", bucket: Bucket, undisturbed: "Digests", tmp_path: Path
) -> None:
    request = scenario.request("s3://media/small", source="s3://media/videos")
    pickled = tmp_path / "job.pickle"
    # a third of the source, which is not even a megabyte
    options = RunOptions(workers=2, scratch=str(tmp_path), source_cache_mb=bucket.n_bytes / 3 / MIB)
    pickled.write_bytes(pickle.dumps((request, options)))
    bucket.served.sources()
    line, ours = [sys.executable, "-c", JOB, str(pickled)], {**os.environ, **bucket.env}
    ended = subprocess.run(line, env=ours, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert bucket_digests(bucket.client, "small/") == undisturbed
    n_sent = bucket.served.sources()
    assert 1.05 * bucket.n_bytes < n_sent <= 2 * bucket.n_bytes
    assert read_of_source(bucket.client, "small/") == [(n_sent, bucket.n_bytes)]


def test_an_output_bucket_that_is_not_there_ends_the_run(
    command: "Callable[..., Ended]", assert_one_line: "Callable[[Ended, int, str], None]", bucket: Bucket
) -> None:
    ended = command("s3://no-bucket/out", env=bucket.env)
    assert_one_line(ended, 4, "lps-prep: cannot write s3://no-bucket/out/runs/")


def test_a_source_bucket_that_is_not_there_ends_the_run(
    command: "Callable[..., Ended]",
    assert_one_line: "Callable[[Ended, int, str], None]",
    bucket: Bucket,
    tmp_path: Path,
) -> None:
    ended = command(tmp_path / "out", source="s3://no-bucket/videos", env=bucket.env)
    assert_one_line(ended, 4, "s3://no-bucket/videos")


def test_an_endpoint_that_does_not_answer_ends_the_run(
    command: "Callable[..., Ended]", assert_one_line: "Callable[[Ended, int, str], None]"
) -> None:
    ended = command("s3://media/out", env={**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    assert_one_line(ended, 4, "lps-prep: cannot write s3://media/out/runs/")
    assert "Could not connect to the endpoint URL" in ended.stderr
