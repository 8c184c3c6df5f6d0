"""Files of a data set under one root, on any fsspec URL: read, list, and publish whole or not at all."""

import hashlib
import os
import shutil
import stat
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeAlias

from lps.manifests.canonical import escape_name, open_regular, unescape_name
from lps.manifests.codes import Code
from lps.manifests.environment import is_unfinished, remove_file, remove_unfinished, write_atomically
from lps.manifests.errors import UnreadableError
from lps.manifests.remote.web import web_chunks, web_exists, web_ranges, web_size

CHUNK_BYTES = 8 << 20
"""Bytes of one request, where a file is read piece by piece."""
ASKED_AT_A_TIME = 16
"""Files whose size is asked for at the same time."""
Size = int | None | UnreadableError
"""Bytes of a file; None where it is not there; why it is not known."""

MAX_LINKS = 4
"""Linked folders on a path of a local store: folders that link to one another would give n! paths."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a listing."""

    path: str
    """POSIX path relative to the root; of a local store as `escape_name` writes it."""
    n_bytes: int | None
    """None where the listing does not tell, as those of web servers."""
    mark: str
    """Changes when the file changes (size and time, or an object store's ETag); equal marks mean an equal file."""
    link: str = ""
    """The last link on its path; empty where there is none, as in object stores."""
    real: str = ""
    """Absolute path without links, of a local file that a link is on the path of; others lie where their path says."""
    code: Code | None = None
    """S_LINK for a link that is not followed because it leads back, E_UNREADABLE for what cannot be read: no files."""
    detail: str = ""


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

    @property
    def _local_root(self) -> Path:
        return Path(self.url.removeprefix("file://"))

    @property
    def real_root(self) -> str:
        """The root without links on its way; the URL where it is not local."""
        return os.path.realpath(self._local_root) if self.is_local else self.url

    def relative(self, location: str) -> str | None:
        """Return the path below the root of an absolute path or URL, however it is spelled; None if it is elsewhere."""
        if not self.is_local:
            return location.removeprefix(f"{self.url}/") if lies_in(location, self.url) else None
        found = location.removeprefix("file://")
        folder, _, name = found.rpartition("/")
        real_root = escape_name(self.real_root)
        real = f"{escape_name(os.path.realpath(unescape_name(folder) or '/'))}/{name}"
        for path, root in ((found, str(self._local_root)), (found, real_root), (real, real_root)):
            if lies_in(path, root):
                return path.removeprefix(root.rstrip("/")).lstrip("/")
        return None

    @property
    def is_web(self) -> bool:
        """True for plain web servers: they list files or not, know ranges or not, and cannot be written to."""
        return self.url.startswith(("http://", "https://"))

    def local_path(self, path: str) -> Path:
        """Return the local file of a relative path, which a listing gave; only for local stores."""
        return self._local_root / unescape_name(check_relative(path))

    def read(self, path: str) -> bytes:
        """Return a whole file. Raises UnreadableError."""
        with self._errors("read", path):
            if self.is_local:
                with open_regular(self.local_path(path)) as file:
                    return file.read()
            fs, full = self._fs(path)
            return b"".join(web_chunks(fs, full)) if self.is_web else bytes(fs.cat_file(full))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Return bytes `start` to `end` (exclusive) of a file, fewer where it ends before. Raises UnreadableError."""
        return next(self.read_ranges(path, [(start, end)]))

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Yield what `read_range` returns for each range; their starts must not fall.

        For a file from which many are wanted: a server that knows no ranges sends it once. Raises UnreadableError.
        """
        for start, end in ranges:
            if not 0 <= start <= end:
                raise UnreadableError(f"cannot read {self.join(path)}: {start} to {end} is no range of bytes")
        with self._errors("read", path):
            fs, full = self._fs(path)
            if self.is_local:
                open_regular(self.local_path(path)).close()  # fsspec would wait for who writes into a pipe
            # HTTP has no form for an empty range
            found = web_ranges(fs, full, [r for r in ranges if r[0] < r[1]]) if self.is_web else None
            for start, end in ranges:
                if start == end:
                    yield b""
                else:
                    yield next(found) if found else bytes(fs.cat_file(full, start=start, end=end))

    def chunks(self, path: str) -> Iterator[bytes]:
        """Yield a file from its first byte to its last, without holding it whole. Raises UnreadableError."""
        with self._errors("read", path):
            if self.is_local:
                with open_regular(self.local_path(path)) as file:
                    while data := file.read(CHUNK_BYTES):
                        yield data
                return
            fs, full = self._fs(path)
            if self.is_web:
                yield from web_chunks(fs, full)
                return
            fs.invalidate_cache()
            n_bytes = int(fs.info(full)["size"])
            for start in range(0, n_bytes, CHUNK_BYTES):
                yield bytes(fs.cat_file(full, start=start, end=min(start + CHUNK_BYTES, n_bytes)))

    def sha256(self, path: str) -> str:
        """Return the digest of a file as hex, without holding it whole. Raises UnreadableError."""
        digest = hashlib.sha256()
        for data in self.chunks(path):
            digest.update(data)
        return digest.hexdigest()

    def exists(self, path: str) -> bool:
        """Return whether a file is there. Raises UnreadableError where the store does not answer."""
        with self._errors("look for", path):
            if self.is_local:
                return self.local_path(path).exists()
            fs, full = self._fs(path)
            if self.is_web:
                return web_exists(fs, full)
            fs.invalidate_cache()
            return bool(fs.exists(full))

    def size(self, path: str) -> int | None:
        """Return how many bytes a file has, None where it is not there. Raises UnreadableError."""
        with self._errors("look for", path):
            fs, full = self._fs(path)
            if self.is_web:
                return web_size(fs, full)
            fs.invalidate_cache()
            try:
                if not self.is_local:
                    return int(fs.info(full)["size"])
                found = self.local_path(path).stat()
                return None if stat.S_ISDIR(found.st_mode) else found.st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

    def sizes(self, paths: Iterable[str], *, under: str = "") -> dict[str, Size]:
        """Return the size of each file, from one listing below `under`; what that does not tell is asked for by name.

        So stores that cannot list tell it too, and a file is absent only if the store says so of itself.
        """
        listed: dict[str, int | None] = {}
        if not self.is_web:  # its listings tell no sizes
            with suppress(UnreadableError):
                listed = {file.path: file.n_bytes for file in self.walk(under)}
        known: dict[str, Size] = {path: listed.get(path) for path in paths}
        left = [path for path, n_bytes in known.items() if n_bytes is None]
        return known | self.sizes_by_name(left)

    def sizes_by_name(self, paths: Sequence[str]) -> dict[str, Size]:
        """Return the size of each file, each asked for by itself; many at a time."""
        with ThreadPoolExecutor(ASKED_AT_A_TIME) as pool:
            return dict(zip(paths, pool.map(self._asked_size, paths), strict=True))

    def _asked_size(self, path: str) -> Size:
        try:
            return self.size(path)
        except UnreadableError as e:
            return e

    def fetch(self, path: str, target: Path) -> None:
        """Copy a file to a local path. Raises UnreadableError."""
        with self._errors("fetch", path):
            fs, full = self._fs(path)
            if self.is_web:
                with target.open("wb") as sink:
                    sink.writelines(web_chunks(fs, full))
                return
            fs.get_file(full, str(target))

    def walk(self, under: str = "", *, leaving: bool = False) -> list[StoredFile]:
        """Return every file below `under`, sorted by path; an absent folder is empty. Raises UnreadableError.

        Links are followed. What they lead to outside of the root is left out, and so is what a killed writer left: a
        data set is what lies in it whole. With `leaving`, as for sources, both are listed, and what cannot be listed is
        there with a code instead of an error.
        """
        with self._errors("list", under):
            if self.is_local:
                return self._walk_local(under, leaving=leaving)
            fs, full = self._fs(under)
            root = fs._strip_protocol(self.url).rstrip("/")
            fs.invalidate_cache()
            found = fs.find(full, detail=True)
        files = []
        for name, info in found.items():
            relative = str(name)[len(root) :].lstrip("/")
            if self.is_web and (not relative or "?" in relative):
                continue  # the folder itself, links that sort its page
            size, when = info.get("size"), info.get("mtime") or info.get("LastModified")
            # of a file of which nothing is known it is not known that it is the same as before
            mark = str(info.get("ETag") or (uuid.uuid4() if size is None and when is None else f"{size}-{when}"))
            files.append(StoredFile(relative, size, mark))
        return sorted(files, key=lambda f: f.path)

    def _walk_local(self, under: str, *, leaving: bool) -> list[StoredFile]:
        top = str(self.local_path(under) if under else self._local_root)
        found: Iterable[StoredFile] = list_local(top, "" if leaving else self.real_root)
        if under:
            found = (replace(file, path=f"{under}/{file.path}".rstrip("/")) for file in found)
        if not leaving:
            found = (file for file in found if not is_unfinished(file.path.rpartition("/")[2]))
        return sorted(found, key=lambda f: f.path)

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
            if self.is_local:
                remove_file(self.local_path(path))
                return
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
                remove_unfinished(self._local_root)

    def _fs(self, path: str) -> tuple[Any, str]:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        if self.is_local:
            return LocalFileSystem(), str(self.local_path(path) if path else self._local_root)
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


def refuse_compressed(file: BinaryIO) -> None:
    """Raise zipfile.BadZipFile for a zip whose members are compressed or share bytes: `torch.save` writes neither.

    PyTorch unfolds such members without limit. A file that is no zip passes; the place in the file is its start after.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise zipfile.BadZipFile("its members are compressed, as torch.save never writes them")
        if sum(member.file_size for member in members) > file.seek(0, os.SEEK_END):
            raise zipfile.BadZipFile("its members are larger than the file")
    file.seek(0)


def open_store(location: str) -> Store:
    """Return the store at a path or URL; local paths become absolute, so that other processes find them."""
    if "://" in location:
        return Store(location.rstrip("/"))
    return Store(str(Path(location).expanduser().absolute()))


@dataclass(frozen=True, slots=True)
class _LocalFolder:
    path: str
    real: str
    link: str
    left: tuple[str, ...]
    """The folders that links were followed from, on the way here."""


_Found: TypeAlias = "StoredFile | _LocalFolder | None"


def list_local(top: str, inside: str = "") -> Iterator[StoredFile]:
    """List the files below `top`, or `top` itself (with an empty path) if it is a file; an absent one is empty.

    What a link leads to is listed under the path of the link, as if it lay there. A link is not followed where it leads
    to a folder that it lies in, and no path goes through more than MAX_LINKS linked folders: every listing ends.
    Without `inside` every link is followed, and what cannot be listed is given with its code. With it, nothing is given
    that does not lie in this folder (a path without links) or in `top`, and a folder that cannot be listed raises
    OSError.
    """
    real = os.path.realpath(top)
    roots = (real, inside) if inside else ()
    waiting: list[_LocalFolder] = []
    if os.path.isdir(real):  # noqa: PTH112  paths here are text: a listing may have millions
        waiting.append(_LocalFolder("", real, "", ()))
    elif (found := _plain("", real, "")) is not None and found.code is None:
        yield found
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder.real) as entries:
                names = sorted((e.name, e.is_symlink(), e.is_dir(follow_symlinks=False)) for e in entries)
        except FileNotFoundError:
            continue  # gone since the folder above was read
        except OSError as error:
            if roots:
                raise
            yield _unreadable(folder.path, folder.link, f"a folder that cannot be listed: {error.strerror}")
            continue
        for name, is_link, is_folder in names:
            one = _linked(folder, name, roots) if is_link else _entry(folder, name, is_folder=is_folder)
            if isinstance(one, _LocalFolder):
                waiting.append(one)
            elif one is not None and (one.code is None or not roots):
                yield one


def _entry(folder: _LocalFolder, name: str, *, is_folder: bool) -> _Found:
    path, real = _path_in(folder, name), f"{folder.real.rstrip('/')}/{name}"
    if is_folder:
        return _LocalFolder(path, real, folder.link, folder.left)
    return _plain(path, real, folder.link)


def _path_in(folder: _LocalFolder, name: str) -> str:
    return f"{folder.path}/{escape_name(name)}".lstrip("/")


def _linked(folder: _LocalFolder, name: str, roots: tuple[str, ...]) -> _Found:
    path = _path_in(folder, name)
    try:
        real = os.path.realpath(f"{folder.real}/{name}", strict=True)
    except OSError as error:
        return _unreadable(path, path, f"a link that cannot be followed: {error.strerror}")
    if roots and not any(lies_in(real, root) for root in roots):
        return None
    if not os.path.isdir(real):  # noqa: PTH112
        return _plain(path, real, path)
    left = (*folder.left, folder.real)
    if any(lies_in(each, real) for each in left):
        return StoredFile(path, 0, "", link=path, code=Code.S_LINK, detail="leads back to a folder that it lies in")
    if len(left) > MAX_LINKS:
        return _unreadable(path, path, f"a link behind {MAX_LINKS} other linked folders")
    return _LocalFolder(path, real, path, left)


def _plain(path: str, real: str, link: str) -> StoredFile | None:
    try:
        facts = os.stat(real)  # noqa: PTH116
    except FileNotFoundError:
        return None  # gone since its folder was read
    except OSError as error:
        return _unreadable(path, link, f"cannot be read: {error.strerror}")
    if not stat.S_ISREG(facts.st_mode):
        return _unreadable(path, link, "no regular file")
    return StoredFile(path, facts.st_size, f"{facts.st_size}-{facts.st_mtime}", link=link, real=real if link else "")


def _unreadable(path: str, link: str, detail: str) -> StoredFile:
    return StoredFile(path, 0, "", link=link, code=Code.E_UNREADABLE, detail=detail)


def lies_in(path: str, folder: str) -> bool:
    """Tell whether an absolute path is a folder or lies below it."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")
