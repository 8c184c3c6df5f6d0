"""Many processes that read remote shards by way of one folder of copies: a part of `load.py`."""

import hashlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event, Lock, Thread

import numpy as np

from lps.model.data.shard_cache import DEFAULT_MAX_BYTES, ShardCache
from lps.model.data.shards import Shard

SHARD_BYTES = 1 << 20
TIGHT_SHARE = 0.6
"""Of the shards' bytes, what the smaller cache may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadersCost:
    """What all readers together took, and what their server saw."""

    seconds: float
    cpu_seconds: float
    """Of the readers, from their first shard on; the server aside."""
    n_read: int
    """Shards that were read, each whole: with the digest that its record says."""
    n_fetched: int
    """Requests for a shard."""
    most_fetched: int
    """Of one shard."""
    peak_mb: float
    """Of the folder of copies, unfinished ones included, as far as it was seen."""


# ---- server ----------------------------------------------------------------------------------------------------------


class _Web(SimpleHTTPRequestHandler):
    asked: Counter[str] = Counter()
    counting = Lock()

    def do_GET(self) -> None:
        with self.counting:
            self.asked[self.path] += 1
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 256


def serve(folder: str, answers: Connection) -> None:
    """Serve a folder until told to end; answer with the port, then to anything else with what was asked for since."""
    with _Server(("127.0.0.1", 0), partial(_Web, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        answers.send(server.server_port)
        while answers.recv() != "end":
            answers.send(Counter(_Web.asked))
            _Web.asked.clear()
        server.shutdown()


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, Connection]]:
    """Give the URL of a folder that a process of its own serves, and the way to ask it."""
    context = get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(str(folder), theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}", ours
        ours.send("end")
    finally:
        process.join(10)
        process.terminate()


# ---- readers ---------------------------------------------------------------------------------------------------------


def make_shards(folder: Path, n: int) -> list[str]:
    """Write `n` files of SHARD_BYTES; return their digests."""
    folder.mkdir()
    digests = []
    for k in range(n):
        data = np.random.default_rng(k).bytes(SHARD_BYTES)
        (folder / f"train-{k:06d}.tar").write_bytes(data)
        digests.append(hashlib.sha256(data).hexdigest())
    return digests


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one reader did."""

    begun: float
    """On the clock that all processes share, in seconds."""
    ended: float
    cpu_seconds: float
    n_shards: int


def read_all(url: str, digests: list[str], cache: ShardCache, seed: int) -> _Reading:
    """Read every shard once, in an order of this reader's own. Raises AssertionError for a copy that is not whole."""
    begun, busy = time.perf_counter(), time.process_time()
    order = list(range(len(digests)))
    random.Random(seed).shuffle(order)
    for k in order:
        held = cache.hold(Shard(uri=f"{url}/train-{k:06d}.tar", n_bytes=SHARD_BYTES, sha256=digests[k]))
        try:
            with held.path.open("rb") as file:
                assert hashlib.file_digest(file, "sha256").hexdigest() == digests[k], f"{held.path} is torn"
        finally:
            held.release()
    return _Reading(begun, time.perf_counter(), time.process_time() - busy, len(order))


class _Sizes(Thread):
    """Looks at a folder now and then, and keeps its largest size."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.peak_bytes, self.ended = folder, 0, Event()

    def run(self) -> None:
        while not self.ended.wait(0.1):
            n_bytes = 0
            for path in self.folder.glob("*"):
                with suppress(FileNotFoundError):  # another copy took its place
                    n_bytes += path.stat().st_size
            self.peak_bytes = max(self.peak_bytes, n_bytes)


def measure_readers(n_readers: int, n_shards: int, folder: Path, *, is_tight: bool) -> ReadersCost:
    """Let all readers read all shards at the same time.

    Raises AssertionError where the folder grew beyond its limit, or, with room for all, a shard was fetched twice.
    """
    digests = make_shards(folder / "remote", n_shards)
    max_bytes = int(TIGHT_SHARE * n_shards * SHARD_BYTES) if is_tight else DEFAULT_MAX_BYTES
    cache = ShardCache(folder / "copies", max_bytes)
    context = get_context("fork")  # what is imported here is not imported by each reader
    started = context.Barrier(n_readers)
    sizes = _Sizes(cache.folder)
    with (
        served(folder / "remote") as (url, server),
        ProcessPoolExecutor(n_readers, mp_context=context, initializer=started.wait) as pool,
    ):
        jobs = [pool.submit(read_all, url, digests, cache, seed) for seed in range(n_readers)]
        sizes.start()
        read = [job.result() for job in jobs]
        server.send("count")
        asked: Counter[str] = server.recv()
    sizes.ended.set()
    sizes.join()
    assert sizes.peak_bytes <= max_bytes + 4096, f"{sizes.peak_bytes} bytes in a folder of {max_bytes}"
    assert len(asked) == n_shards
    assert is_tight or asked.total() == n_shards, asked.most_common(3)
    return ReadersCost(
        seconds=max(each.ended for each in read) - min(each.begun for each in read),
        cpu_seconds=sum(each.cpu_seconds for each in read),
        n_read=sum(each.n_shards for each in read),
        n_fetched=asked.total(),
        most_fetched=max(asked.values()),
        peak_mb=sizes.peak_bytes / 1e6,
    )
