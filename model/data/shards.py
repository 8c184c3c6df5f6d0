"""Where a shard lies, and how a list of shards is named: `path/train-{000000..000009}.tar`, `http(s)://`, `s3://`."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lps.manifests.errors import UnreadableError

MAX_SHARDS = 1_000_000
"""A pattern that stands for more is a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One tar file of samples."""

    uri: str
    """Local path or URL."""
    n_bytes: int | None = None
    """As the manifest or the server says; None where nobody does."""
    sha256: str = ""
    """Hex; empty where no manifest says it."""
    mark: str = ""
    """ETag or date of a remote file when it was indexed; another one means another file."""

    @property
    def is_local(self) -> bool:
        """True for files of this machine (or of one mounted on it)."""
        return "://" not in self.uri or self.uri.startswith("file://")

    @property
    def local_path(self) -> Path:
        """The file of a local shard."""
        return Path(self.uri.removeprefix("file://"))

    @property
    def shown(self) -> str:
        """The URI without what may be secret: user, password and query (signed URLs)."""
        if self.is_local:
            return self.uri
        parts = urlsplit(self.uri)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def expand_shards(pattern: str) -> tuple[Shard, ...]:
    """Return the shards that a pattern with braces names, in its order; `::` joins several patterns.

    `train-{000000..000009}.tar` are ten shards, `{a,b}.tar` two. Raises UnreadableError for unbalanced braces, no name
    or the same name twice.
    """
    from webdataset.shardlists import expand_urls

    try:
        uris = expand_urls(pattern)
    except ValueError as e:
        raise UnreadableError(f"cannot expand the shard pattern '{pattern}': {e}") from e
    if not all(uris) or not 0 < len(uris) <= MAX_SHARDS:
        raise UnreadableError(f"the shard pattern '{pattern}' names no shards")
    if len(set(uris)) < len(uris):
        raise UnreadableError(f"the shard pattern '{pattern}' names a shard twice: its samples would count twice")
    return tuple(Shard(uri=uri) for uri in uris)
