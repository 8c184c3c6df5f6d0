"""Files of a data set under one root, on any fsspec URL: read, list, and publish whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lps.manifests.errors import UnreadableError


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a listing."""

    path: str
    """POSIX path relative to the root."""
    n_bytes: int
    mark: str
    """Changes when the file changes (size and time, or an object store's ETag); equal marks mean an equal file."""


def check_relative(path: str) -> str:
    """Return `path` if it stays below its root. Raises UnreadableError for absolute paths and `..`."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\0" in path or not pure.parts or "://" in path:
        raise UnreadableError(f"path '{path}' leaves its root; only relative paths without '..' are allowed")
    return path


@dataclass(frozen=True, slots=True)
class Store:
    """A root folder or bucket prefix. Holds only its URL, so that it travels to other processes."""

    url: str

    def join(self, path: str) -> str:
        """Return the full URL of a relative path."""
        return f"{self.url.rstrip('/')}/{check_relative(path)}"

    @property
    def name(self) -> str:
        """The last part of the URL: what may be told to others."""
        return self.url.rstrip("/").rpartition("/")[2]

    @property
    def is_local(self) -> bool:
        """True for folders of this machine (or one mounted on it)."""
        return "://" not in self.url or self.url.startswith("file://")

    def local_path(self, path: str) -> Path:
        """Return the local file of a relative path; only for local stores."""
        return Path(self.join(path).removeprefix("file://"))

    def read(self, path: str) -> bytes:
        """Return a whole file. Raises UnreadableError."""
        with self._errors("read", path):
            fs, full = self._fs(path)
            return bytes(fs.cat_file(full))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Return bytes `start` to `end` (exclusive) of a file, fewer where it ends before. Raises UnreadableError."""
        if not 0 <= start <= end:
            raise UnreadableError(f"cannot read {self.join(path)}: {start} to {end} is no range of bytes")
        if start == end:
            return b""  # HTTP has no form for an empty range
        with self._errors("read", path):
            fs, full = self._fs(path)
            return bytes(fs.cat_file(full, start=start, end=end))

    def exists(self, path: str) -> bool:
        """Return whether a file is there. Raises UnreadableError where the store does not answer."""
        with self._errors("look for", path):
            fs, full = self._fs(path)
            fs.invalidate_cache()
            return bool(fs.exists(full))

    def fetch(self, path: str, target: Path) -> None:
        """Copy a file to a local path. Raises UnreadableError."""
        with self._errors("fetch", path):
            fs, full = self._fs(path)
            fs.get_file(full, str(target))

    def walk(self, under: str = "") -> list[StoredFile]:
        """Return every file below `under`, sorted by path; an absent folder is empty. Raises UnreadableError."""
        with self._errors("list", under):
            fs, full = self._fs(under)
            root = fs._strip_protocol(self.url).rstrip("/")
            fs.invalidate_cache()
            found = fs.find(full, detail=True)
        files = []
        for name, info in found.items():
            mark = str(info.get("ETag") or f"{info.get('size')}-{info.get('mtime') or info.get('LastModified')}")
            relative = str(name)[len(root) :].lstrip("/")
            files.append(StoredFile(relative, int(info.get("size") or 0), mark))
        return sorted(files, key=lambda f: f.path)

    def publish(self, path: str, data: bytes) -> None:
        """Write a file so that it is seen whole or not at all. Raises UnreadableError and leaves nothing torn."""
        with self._errors("write", path):
            if self.is_local:
                with write_atomically(self.local_path(path)) as temporary, temporary.open("wb") as sink:
                    sink.write(data)
                return
            fs, full = self._fs(path)
            fs.pipe_file(full, data)

    def publish_file(self, source: Path, path: str) -> None:
        """Publish a local file under `path`, whole or not at all. Raises UnreadableError."""
        with self._errors("write", path):
            if self.is_local:
                with write_atomically(self.local_path(path)) as temporary:
                    shutil.copyfile(source, temporary)
                return
            fs, full = self._fs(path)
            fs.put_file(str(source), full)  # object stores show an upload only when it is complete

    def delete(self, path: str) -> None:
        """Remove a file if it is there. Raises UnreadableError."""
        with self._errors("delete", path):
            fs, full = self._fs(path)
            fs.invalidate_cache()
            if fs.exists(full):
                fs.rm_file(full)

    def sweep(self) -> None:
        """Remove what killed writers left in a local store (a bucket shows nothing of a broken upload).

        Only for who owns the store: a writer at work loses its file and fails. Raises UnreadableError.
        """
        if self.is_local:
            with self._errors("clean", ""):
                remove_unfinished(Path(self.url.removeprefix("file://")))

    def _fs(self, path: str) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        fs, full = url_to_fs(self.join(path) if path else self.url)
        return fs, str(full)

    @contextmanager
    def _errors(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except UnreadableError:
            raise
        except _store_errors() as e:
            silent = "no answer in time" if isinstance(e, TimeoutError) else type(e).__name__
            reason = getattr(e, "strerror", None) or " ".join(str(e).split()) or silent
            where = f"{self.url.rstrip('/')}/{path}" if path else self.url
            raise UnreadableError(f"cannot {verb} {where}: {reason}") from e


def _store_errors() -> tuple[type[Exception], ...]:
    """Return what the storage layers raise. Clients of object stores have error trees of their own."""
    errors: list[type[Exception]] = [OSError, ValueError, ImportError]
    try:
        from botocore.exceptions import BotoCoreError, ClientError

        errors += [BotoCoreError, ClientError]
    except ImportError:
        pass
    try:
        from aiohttp import ClientError as HttpError

        errors.append(HttpError)
    except ImportError:
        pass
    return tuple(errors)


@contextmanager
def write_atomically(target: Path) -> Iterator[Path]:
    """Give a temporary path in the target's folder (made if need be); what is written there replaces the target.

    The file is on the disk before it has its name. After an error the target is as before and the temporary file is
    removed; `remove_unfinished` removes those of killed writers. Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync(target.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left below a folder that no other process writes to. Raises OSError."""
    for left in folder.rglob(".*.????????.tmp"):
        left.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_store(location: str) -> Store:
    """Return the store at a path or URL; local paths become absolute, so that other processes find them."""
    if "://" in location:
        return Store(location.rstrip("/"))
    return Store(str(Path(location).expanduser().absolute()))
