"""Local copies of remote shards, in a folder of bounded size that the processes of a machine share."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lps.manifests.environment import cache_folder
from lps.manifests.errors import RefusedError, UnreadableError
from lps.model.data.download import RETRY_DELAYS_S, fetch_shard
from lps.model.data.shards import Shard

DEFAULT_MAX_BYTES = 100 * 1000**3


def user_cache() -> "ShardCache":
    """Return the cache of this user."""
    return ShardCache(cache_folder("shards"))


@dataclass(frozen=True, slots=True)
class HeldShard:
    """A local file that stays while this is held. Local shards need no holding."""

    path: Path
    lock: int = -1

    def release(self) -> None:
        """Allow the copy to be removed when room is needed."""
        if self.lock >= 0:
            os.close(self.lock)


@dataclass(frozen=True, slots=True)
class ShardCache:
    """A folder of copies. The least recently used ones that nobody holds make room for new ones.

    Copies appear whole or not at all. Locks are those of the kernel, so that a killed process leaves nothing behind but
    its unfinished download, which the next one for that shard overwrites. All users of a folder should agree on
    `max_bytes`.
    """

    folder: Path
    max_bytes: int = DEFAULT_MAX_BYTES
    retry_delays_s: tuple[float, ...] = RETRY_DELAYS_S

    def copy_of(self, shard: Shard) -> Path:
        """Return where the copy of a shard lies, or will lie. Another size, digest or mark is another copy."""
        facts = "\0".join((shard.shown, shard.sha256, shard.mark, str(shard.n_bytes)))
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in PurePosixPath(shard.shown).stem)[-64:]
        return self.folder / f"{name}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.tar"

    def hold(self, shard: Shard, cancelled: Callable[[], bool] = lambda: False) -> HeldShard:
        """Return a local file of the shard, fetched if need be; it stays until it is released.

        Several processes may ask at once: one fetches, the others wait for it. Raises UnreadableError, IntegrityError
        (wrong size or digest; nothing is kept) and RefusedError where there is no room for it. A download ends early
        when `cancelled` says so.
        """
        if shard.is_local:
            return HeldShard(shard.local_path)
        path = self.copy_of(shard)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while True:
                lock = _open_lock(path)
                fcntl.flock(lock, fcntl.LOCK_SH)
                if path.exists():
                    os.utime(path)
                    return HeldShard(path, lock)
                os.close(lock)
                self._fetch(shard, path, cancelled)
        except OSError as e:
            raise UnreadableError(f"cannot use the shard cache {self.folder}: {e.strerror or e}") from e

    def _fetch(self, shard: Shard, path: Path, cancelled: Callable[[], bool]) -> None:
        lock = _open_lock(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return
            partial = path.with_suffix(".part")
            try:
                with self.counting():
                    self._make_room(shard, partial, shard.n_bytes or 0)
                found = fetch_shard(shard, partial, delays_s=self.retry_delays_s, cancelled=cancelled)
                with self.counting():
                    if shard.n_bytes is None:
                        self._make_room(shard, partial, found.n_bytes)
                    partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        finally:
            os.close(lock)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Let one process at a time count what is in the folder, and none rename anything meanwhile."""
        lock = _open_lock(self.folder / "room")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _make_room(self, shard: Shard, partial: Path, n_bytes: int) -> None:
        """Set room aside for a copy, as the size of its unfinished file."""
        excess = n_bytes - self.max_bytes
        copies = []
        for path in self.folder.iterdir():
            if path.suffix in (".tar", ".part") and path != partial:
                with suppress(FileNotFoundError):  # a download that failed
                    facts = path.stat()
                    excess += facts.st_size
                    copies.append((facts.st_mtime_ns, facts.st_size, path))
        for _, size, path in sorted(copies):
            if excess > 0 and _remove_unless_held(path):
                excess -= size
        if excess > 0:
            raise RefusedError(
                f"no room for shard {shard.shown} in the cache {self.folder}: {self.max_bytes} bytes do not hold the "
                "shards in use; copy the data set to this machine and read it from there"
            )
        partial.touch()
        os.truncate(partial, n_bytes)


def _open_lock(path: Path) -> int:
    return os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _remove_unless_held(path: Path) -> bool:
    lock = _open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(lock)
