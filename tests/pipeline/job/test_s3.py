"""Source and output in a bucket: the bytes of the local run, and a quick, clear end where there is no bucket."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from tests.pipeline.conftest import Digests

    Ended = subprocess.CompletedProcess[str]

pytestmark = pytest.mark.slow

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}

HOLDER = """
import sys
from lps.manifests.storage import Store
from lps.pipeline.job.lease import driver_lease

with driver_lease(Store("s3://media/out"), "run", "first"):
    print("held", flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A server with one bucket, `media`, which holds the sources below `videos`."""

    env: dict[str, str]
    """For processes that use it."""
    client: Any


@pytest.fixture(scope="module")
def bucket(scenario_source: Path) -> Iterator[Bucket]:
    """Start a server on the loopback and upload the sources."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name=KEYS["AWS_DEFAULT_REGION"],
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket="media")
    for path in sorted(scenario_source.rglob("*.mp4")):
        client.upload_file(str(path), "media", f"videos/{path.relative_to(scenario_source).as_posix()}")
    yield Bucket({**KEYS, "AWS_ENDPOINT_URL": url}, client)
    client.close()
    server.stop()


def bucket_digests(client: Any, prefix: str) -> dict[str, str]:
    """Return the digests of all that must be a pure function of its inputs below `prefix`."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="media", Prefix=prefix)
    names = [entry["Key"].removeprefix(prefix) for page in pages for entry in page.get("Contents", ())]
    return {
        name: hashlib.sha256(client.get_object(Bucket="media", Key=prefix + name)["Body"].read()).hexdigest()
        for name in names
        if not name.startswith("runs/")
    }


def test_a_job_from_bucket_to_bucket_gives_the_bytes_of_the_local_one(
    command: "Callable[..., Ended]",
    assert_one_line: "Callable[[Ended, int, str], None]",
    bucket: Bucket,
    undisturbed: "Digests",
) -> None:
    line = [sys.executable, "-c", HOLDER]
    ours = {**os.environ, **bucket.env}
    with subprocess.Popen(line, env=ours, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        ended = command("s3://media/out", source="s3://media/videos", private=True, env=bucket.env)
        assert_one_line(ended, 3, "lps-prep: s3://media/out is being written by `lps-prep run` (run first) on host ")
        holder.kill()  # its lease is left
    # The environment of the private cluster that the run starts is that of the run.
    ended = command("s3://media/out", source="s3://media/videos", private=True, env=bucket.env)
    assert ended.returncode == 0, ended.stderr
    assert bucket_digests(bucket.client, "out/") == undisturbed
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
