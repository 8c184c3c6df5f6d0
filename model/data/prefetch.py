"""Remote shards, fetched ahead of their use and released after it. Runs in the process of a rank, not in workers."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Event

import numpy as np

from lps.manifests.arrays import Ints
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.remote.file_cache import HeldFile
from lps.model.data.sample import LocalShard
from lps.model.data.shard_cache import ShardCache
from lps.model.data.shards import Shard

N_THREADS = 4
N_AHEAD = 4
"""Shards that are fetched, or being fetched, before they are asked for."""


class ShardPrefetcher:
    """Keeps those shards local that the steps at hand need, and the next few."""

    def __init__(self, shards: Sequence[Shard], cache: ShardCache) -> None:
        self._shards = shards
        self._cache = cache
        self._threads = ThreadPoolExecutor(N_THREADS, thread_name_prefix="lps-fetch")
        self._held: dict[int, Future[HeldFile]] = {}
        self._asked: set[int] = set()
        self._closed = Event()
        self._queue: deque[int] = deque()
        self._last_step: dict[int, int] = {}

    def begin(self, shards: Ints, steps: Ints) -> None:
        """Take up a run of steps: for every read, in order, the number of its shard and its step."""
        self.release()
        remote = np.array([not shard.is_local for shard in self._shards])[shards]
        numbers, first = np.unique(shards[remote], return_index=True)
        self._queue = deque(numbers[np.argsort(first)].tolist())
        self._last_step = dict(zip(shards[remote].tolist(), steps[remote].tolist(), strict=True))
        self._fetch_more(N_AHEAD)

    def local(self, number: int) -> LocalShard:
        """Return a shard that can be read, waiting for it if need be. Raises what fetching raises."""
        shard = self._shards[number]
        if shard.is_local:
            return LocalShard(shard.local_path, shard.shown, shard.n_bytes)
        try:
            while number not in self._held and self._queue:
                self._fetch_more(1)
            self._asked.add(number)
            self._fetch_more(N_AHEAD - len(self._held.keys() - self._asked))
            held = self._wait_for(number)
        except (KeyError, CancelledError, RuntimeError) as error:  # another thread closes this: released, shut down
            if self._closed.is_set():
                raise UnreadableError(f"shard {shard.shown} is no longer wanted") from error
            raise
        return LocalShard(held.path, shard.shown, shard.n_bytes)

    def _wait_for(self, number: int) -> HeldFile:
        try:
            return self._held[number].result()
        except RefusedError:  # there was no room when it was fetched ahead; there may be now
            self._held[number] = self._threads.submit(self._cache.hold, self._shards[number], self._closed.is_set)
            return self._held[number].result()

    def done(self, step: int) -> None:
        """Release the shards that no later step reads."""
        self._release([number for number in self._asked if self._last_step[number] <= step])

    def release(self) -> None:
        """Release every shard."""
        self._queue.clear()
        self._release(list(self._held))

    def close(self) -> None:
        """Release every shard and end the threads, with whatever they are fetching."""
        self._closed.set()
        self.release()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _fetch_more(self, n: int) -> None:
        for _ in range(max(0, min(n, len(self._queue)))):
            number = self._queue.popleft()
            self._held[number] = self._threads.submit(self._cache.hold, self._shards[number], self._closed.is_set)

    def _release(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._asked.discard(number)
            future = self._held.pop(number)
            future.cancel()
            future.add_done_callback(_let_go)


def _let_go(future: Future[HeldFile]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().release()
