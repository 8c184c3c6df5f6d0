"""Attack with a sick store: 500, 503, half bodies, requests that are done twice or whose answers are lost, delays.

An S3 server stands behind something that does all that. A run ends as one, or in one line; when the store is well
again, the same command leaves the bytes of the local run.
"""

import hashlib
import json
import os
import random
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from benchmarks.attack.kills import PATIENCE_SECONDS
from benchmarks.attack.outputs import judge_line
from benchmarks.attack.records import Budget, Place, Try, Verdict
from tests.pipeline.job.kill_machine import RUN, Machine, digests_of, make_source

ARM = "store"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
FAULTS = ("500", "503", "half body", "twice", "answer lost", "slow")
SLOW_SECONDS = 0.5
BODIES = {
    "500": ("500 Internal Server Error", b"<Error><Code>InternalError</Code></Error>"),
    "503": ("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>"),
}


@dataclass(slots=True)
class SickServer:
    """An S3 server with faults in a share of its answers."""

    app: Any
    faults: tuple[str, ...] = ()
    share: float = 0.0
    rng: random.Random = field(default_factory=random.Random)
    lock: Lock = field(default_factory=Lock)
    n_faults: int = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request, or fail to."""
        with self.lock:
            fault = self.rng.choice(self.faults) if self.faults and self.rng.random() < self.share else ""
            self.n_faults += bool(fault)
        if fault in BODIES:
            return _answer(start_response, *BODIES[fault])
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        if fault in ("twice", "answer lost"):
            return self._again(environ, start_response, lost=fault == "answer lost")
        answer = self.app(environ, start_response)
        return _half(answer) if fault == "half body" and environ["REQUEST_METHOD"] == "GET" else answer

    def _again(self, environ: dict[str, Any], start_response: Any, *, lost: bool) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))

        def ask(start: Any) -> Iterable[bytes]:
            from io import BytesIO

            return list(self.app({**environ, "wsgi.input": BytesIO(body)}, start))

        ask(lambda *_: None)
        return _answer(start_response, *BODIES["500"]) if lost else ask(start_response)


def _answer(start_response: Any, status: str, body: bytes) -> list[bytes]:
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def _half(answer: Iterable[bytes]) -> Iterator[bytes]:
    data = b"".join(answer)
    yield data[: len(data) // 2]
    if len(data) > 1:
        raise ConnectionResetError("half of the body")


class Quiet(WSGIRequestHandler):
    """Says nothing of requests."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  the name of the base class
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """The server with its bucket, `media`."""

    served: SickServer
    client: Any
    env: dict[str, str]

    def digests(self, prefix: str) -> dict[str, str]:
        """Return the digests of all that must be a pure function of its inputs below a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="media", Prefix=prefix)
        names = [entry["Key"].removeprefix(prefix) for page in pages for entry in page.get("Contents", ())]
        bodies = {
            name: self.client.get_object(Bucket="media", Key=prefix + name)["Body"].read()
            for name in names
            if not name.startswith("runs/")
        }
        return {name: hashlib.sha256(body).hexdigest() for name, body in bodies.items()}


@contextmanager
def bucket() -> Iterator[Bucket]:
    """Serve a bucket on the loopback."""
    served = SickServer(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, served, threaded=True, request_handler=Quiet)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name=KEYS["AWS_DEFAULT_REGION"],
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    client.create_bucket(Bucket="media")
    yield Bucket(served, client, {**KEYS, "AWS_ENDPOINT_URL": url})
    client.close()
    server.shutdown()
    thread.join()
    server.server_close()


def one_try(
    machine: Machine, whole: dict[str, str], well: Bucket, rng: random.Random, seed: int
) -> tuple[str, str, Verdict, str]:
    """Run while the store is sick, and then while it is well."""
    faults = (rng.choice(FAULTS),) if rng.random() < 0.7 else FAULTS
    share = rng.choice((0.02, 0.1, 0.3, 1.0))
    if share == 1.0 and faults == ("slow",):
        share = 0.3  # every request slow takes minutes, and shows no more
    words = {"SOURCE": "s3://media/videos"} if rng.random() < 0.5 else {}
    url, out = f"s3://media/out-{seed}", machine.folder / "nowhere"
    kind, served = faults[0] if len(faults) == 1 else "all faults", well.served
    served.rng, served.faults, served.share, served.n_faults = rng, faults, share, 0
    ended = machine.ask(RUN, out, url=url, words=words)
    n_faults, served.faults = served.n_faults, ()
    done = f"{kind} in {share:.0%} of the answers ({n_faults}){', source in the bucket, too' if words else ''}"
    verdict, said = judge_line(ended, RUN, frozenset({0, 1, 4}))
    if verdict is not Verdict.SURVIVED:
        return kind, done, verdict, said
    for _ in range(2):  # a video that could not be read is a row; retry is what a user does then
        again = machine.ask(RUN, out, url=url, words=words)
        if again["code"] == 0:
            break
    else:
        return kind, done, Verdict.STUCK, f"resumed: {again['code']}: {again['says']}"[:300]
    found = well.digests(f"out-{seed}/")
    if found != whole:
        names = sorted(name for name in {*found, *whole} if found.get(name) != whole.get(name))
        return kind, done, Verdict.WRONG, f"{said}, then other bytes than the local run's: {', '.join(names[:4])}"
    return kind, done, Verdict.SURVIVED, said


def attack(budget: Budget, seeds: Iterator[int], place: Place) -> Iterator[Try]:
    """Run against sick stores until the budget is spent."""
    source, folder = make_source(place.scratch / "source"), place.scratch / "machine"
    folder.mkdir()
    with bucket() as well:
        for path in sorted(source.rglob("*.mp4")):
            well.client.upload_file(str(path), "media", f"videos/{path.relative_to(source).as_posix()}")
        machine = Machine(
            source, folder, {**os.environ, **well.env, "TMPDIR": str(place.scratch)}, patience_seconds=PATIENCE_SECONDS
        )
        local = place.scratch / "local"
        if machine.ask(RUN, local)["code"] != 0:
            raise RuntimeError("the undisturbed run failed")
        whole = digests_of(local)
        for seed in budget.seeds(seeds):
            started = time.monotonic()
            kind, done, verdict, said = one_try(machine, whole, well, random.Random(seed), seed)
            evidence = _keep(well, seed, place) if verdict is not Verdict.SURVIVED else ""
            seconds = round(time.monotonic() - started, 3)
            yield Try(
                arm=ARM, kind=kind, seed=seed, done=done, verdict=verdict, said=said, seconds=seconds, evidence=evidence
            )
        machine.close()


def _keep(well: Bucket, seed: int, place: Place) -> str:
    kept = place.evidence(ARM, seed)
    pages = well.client.get_paginator("list_objects_v2").paginate(Bucket="media", Prefix=f"out-{seed}/")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
    (kept / "objects.json").write_text(json.dumps(keys, indent=1))
    for key in keys:
        target = kept / Path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        well.client.download_file("media", key, str(target))
    return kept.relative_to(place.report).as_posix()
