"""Copy a remote shard to a local file: in one stream, resumed where a server breaks off, digested on the way."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from lps.manifests.canonical import open_regular
from lps.manifests.errors import IntegrityError, UnreadableError
from lps.manifests.storage import Store
from lps.model.data.shards import Shard

CHUNK_BYTES = 1 << 20
RANGE_BYTES = 16 << 20
"""Size of one request to an object store: large enough for its full speed."""
TIMEOUT_S = 60.0
"""Without a byte, after which an attempt counts as broken off."""
RETRY_DELAYS_S = (0.0, 1.0, 5.0)
"""Waits before each further attempt over HTTP; clients of object stores repeat requests by themselves."""
WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})
REMEDY = "restore it from a copy, or make it again with `lps-prep run`"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What arrived."""

    n_bytes: int
    sha256: str
    """Hex."""
    mark: str = ""
    """ETag or date that the server gave; empty where it gave none."""


def fetch_shard(
    shard: Shard,
    target: Path,
    *,
    delays_s: tuple[float, ...] = RETRY_DELAYS_S,
    cancelled: Callable[[], bool] = lambda: False,
) -> Fetched:
    """Copy a remote shard to `target`, and check it against what is known of it.

    A file that is there is written over from its start, so that room may be set aside for it.
    Raises UnreadableError where it cannot be read (after `len(delays_s)` more attempts over HTTP) or written, or when
    `cancelled` says so, and IntegrityError where size or SHA-256 differ from the shard's record, or the file changed
    since it was indexed.
    """
    try:
        target.touch()
        with target.open("r+b") as sink:
            download = _Download(shard, sink, cancelled)
            if is_http(shard):
                _over_http(download, delays_s)
            else:
                _in_ranges(download)
            sink.truncate(download.n_bytes)
    except OSError as e:
        raise UnreadableError(f"cannot keep a copy of shard {shard.shown}: {e.strerror or e}") from e
    fetched = Fetched(download.n_bytes, download.digest.hexdigest(), download.mark)
    if shard.mark and fetched.mark and fetched.mark != shard.mark:
        raise IntegrityError(f"shard {shard.shown} changed since it was indexed: start again")
    check_shard(shard, fetched)
    return fetched


def identified(shard: Shard) -> Shard:
    """Return a shard with the size and the mark that its server knows, without reading it. Raises UnreadableError."""
    if shard.is_local:
        return shard
    if is_http(shard):
        download = _Download(shard, None)
        try:
            with _rest_over_http(download) as (_, n_total):
                return replace(shard, n_bytes=n_total, mark=download.mark)
        except (OSError, HTTPException) as e:
            raise UnreadableError(f"cannot read shard {shard.shown}: {_reason(e)}") from e
    folder, _, name = shard.uri.rpartition("/")
    found = [file for file in Store(folder).walk(name) if file.path == name]
    if not found:
        raise UnreadableError(f"cannot read shard {shard.shown}: no such file")
    return replace(shard, n_bytes=found[0].n_bytes, mark=found[0].mark)


def check_shard(shard: Shard, found: Fetched) -> None:
    """Raise IntegrityError unless size and digest are those of the shard's record."""
    if shard.n_bytes is not None and found.n_bytes != shard.n_bytes:
        said = f"has {found.n_bytes} bytes, its record says {shard.n_bytes}"
        raise IntegrityError(f"shard {shard.shown} {said}: {REMEDY}")
    if shard.sha256 and found.sha256 != shard.sha256:
        said = f"has SHA-256 {found.sha256}, its record says {shard.sha256}"
        raise IntegrityError(f"shard {shard.shown} {said}: {REMEDY}")


def verify_local(shard: Shard) -> None:
    """Read a local shard once and compare it with its record. Raises UnreadableError or IntegrityError."""
    try:
        with open_regular(shard.local_path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            found = Fetched(file.tell(), digest)
    except OSError as e:
        raise UnreadableError(f"cannot read shard {shard.shown}: {e.strerror or e}") from e
    check_shard(shard, found)


def is_http(shard: Shard) -> bool:
    """Return whether a plain web server has the shard."""
    return shard.uri.startswith(("http://", "https://"))


@dataclass(slots=True)
class _Download:
    """What has arrived so far."""

    shard: Shard
    sink: BinaryIO | None
    cancelled: Callable[[], bool] = lambda: False
    n_bytes: int = 0
    mark: str = ""
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, data: bytes) -> None:
        if self.cancelled():
            raise UnreadableError(f"shard {self.shard.shown} is no longer wanted")
        if self.sink is not None:
            try:
                self.sink.write(data)
            except OSError as e:
                raise UnreadableError(f"cannot keep a copy of shard {self.shard.shown}: {e.strerror or e}") from e
        self.digest.update(data)
        self.n_bytes += len(data)

    def restart(self, mark: str) -> None:
        if self.sink is not None:
            self.sink.seek(0)
        self.n_bytes, self.mark, self.digest = 0, mark, hashlib.sha256()


def _in_ranges(download: _Download) -> None:
    folder, _, name = download.shard.uri.rpartition("/")
    store = Store(folder)
    end = download.shard.n_bytes
    while end is None or download.n_bytes < end:
        stop = download.n_bytes + RANGE_BYTES
        data = store.read_range(name, download.n_bytes, stop if end is None else min(stop, end))
        download.add(data)
        if len(data) < RANGE_BYTES:
            return


def _over_http(download: _Download, delays_s: tuple[float, ...]) -> None:
    for delay_s in (*delays_s, None):
        try:
            with _rest_over_http(download) as (response, n_total):
                while data := response.read(CHUNK_BYTES):
                    download.add(data)
            if n_total is None or download.n_bytes == n_total:
                return
            raise ConnectionError(f"the server broke off at byte {download.n_bytes} of {n_total}")
        except (OSError, HTTPException) as e:
            final = isinstance(e, HTTPError) and e.code not in WORTH_ANOTHER_TRY
            if final or delay_s is None:
                raise UnreadableError(f"cannot fetch shard {download.shard.shown}: {_reason(e)}") from e
            time.sleep(delay_s)


@contextmanager
def _rest_over_http(download: _Download) -> Iterator[tuple[HTTPResponse, int | None]]:
    """Open what is missing, and say how long the whole is. A server may send it all again: then all is dropped."""
    headers = {"User-Agent": "lps-train", "Accept-Encoding": "identity"}
    if download.n_bytes:
        headers["Range"] = f"bytes={download.n_bytes}-"
        if download.mark.startswith('"'):
            headers["If-Range"] = download.mark  # another file meanwhile: all of it, please
    with urlopen(Request(download.shard.uri, headers=headers), timeout=TIMEOUT_S) as response:  # only http, see caller
        mark = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        if response.status != 206:
            download.restart(mark)
        elif mark != download.mark:
            download.restart("")
            raise ConnectionError("the file changed while it was read")
        length = response.headers.get("Content-Length", "")
        yield response, download.n_bytes + int(length) if length.isdigit() else None


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return " ".join(str(getattr(error, "reason", None) or error).split()) or type(error).__name__
