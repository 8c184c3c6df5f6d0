"""Local copies of remote shards, in a folder of bounded size that the processes of a machine share."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lps.manifests.environment import cache_folder
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.remote.file_cache import FileCache, HeldFile, NoRoomError
from lps.model.data.download import RETRY_DELAYS_S, fetch_shard
from lps.model.data.shards import Shard

DEFAULT_MAX_BYTES = 100 * 1000**3


def user_cache() -> "ShardCache":
    """Return the cache of this user."""
    return ShardCache(cache_folder("shards"))


@dataclass(frozen=True, slots=True)
class ShardCache:
    """Copies of remote shards in a folder, as `FileCache` keeps them."""

    folder: Path
    max_bytes: int = DEFAULT_MAX_BYTES
    retry_delays_s: tuple[float, ...] = RETRY_DELAYS_S

    def copy_of(self, shard: Shard) -> Path:
        """Return where the copy of a shard lies, or will lie. Another size, digest or mark is another copy."""
        facts = "\0".join((shard.shown, shard.sha256, shard.mark, str(shard.n_bytes)))
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in PurePosixPath(shard.shown).stem)[-64:]
        return self.folder / f"{name}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.tar"

    def hold(self, shard: Shard, cancelled: Callable[[], bool] = lambda: False) -> HeldFile:
        """Return a local file of the shard, fetched if need be; it stays until it is released.

        Several processes may ask at once: one fetches, the others wait for it. Raises UnreadableError, IntegrityError
        (wrong size or digest; nothing is kept) and RefusedError where there is no room for it. A download ends early
        when `cancelled` says so.
        """
        if shard.is_local:
            return HeldFile(shard.local_path)

        def fill(target: Path) -> None:
            fetch_shard(shard, target, delays_s=self.retry_delays_s, cancelled=cancelled)

        try:
            return FileCache(self.folder, self.max_bytes).hold(self.copy_of(shard).name, shard.n_bytes, fill)
        except NoRoomError as e:
            raise RefusedError(
                f"no room for shard {shard.shown} in the cache {self.folder}: {self.max_bytes} bytes do not hold the "
                "shards in use; copy the data set to this machine and read it from there"
            ) from e
        except OSError as e:
            raise UnreadableError(f"cannot use the shard cache {self.folder}: {e.strerror or e}") from e
