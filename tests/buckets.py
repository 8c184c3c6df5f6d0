"""An S3 server in this process, as the environment names it to every client."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def bucket_server() -> Iterator[Any]:
    """Serve S3 and yield a client (boto3) of the server.

    fsspec keeps file systems by their arguments, which do not hold the address of the environment: what a test before
    this one left there would ask a server that is gone.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()
        client: Any = boto3.client("s3")
        yield client
        client.close()
        S3FileSystem.clear_instance_cache()
    server.stop()


def upload_folder(client: Any, folder: Path) -> str:
    """Upload the files of a folder into a new bucket and return the URL of the folder there."""
    bucket = f"lps-{uuid4().hex[:8]}"  # servers of one process share their buckets
    client.create_bucket(Bucket=bucket)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        client.upload_file(str(path), bucket, f"{folder.name}/{path.relative_to(folder).as_posix()}")
    return f"s3://{bucket}/{folder.name}"
