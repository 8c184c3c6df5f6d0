"""The files of a source as local files: of a remote one as copies, which a cache keeps between probe and processing."""

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lps.manifests.environment import scratch_folder
from lps.manifests.errors import UnreadableError
from lps.manifests.remote.file_cache import RESERVED, FileCache, HeldFile, NoRoomError
from lps.manifests.storage import Store

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
MIN_FREE_SHARE = 0.1
"""Share of the disk that the cache leaves free."""
PLAIN_SUFFIX = re.compile(r"(\.\w{1,16})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class SourceRef:
    """One file of a source, as its listing has it."""

    uri: str
    mark: str = ""
    """Changes when the file changes; empty where it is not known: then no copy is kept."""
    n_bytes: int | None = None


@dataclass(slots=True)
class SourceReader:
    """Gives the files of a source as local files.

    It travels to other processes, each of which counts what it reads from a store that is not local.
    """

    store: Store
    scratch: str | None = None
    """Folder for copies; None: TMPDIR."""
    cache_bytes: int = 0
    """Bytes of copies that a machine keeps, for all runs of a user; 0: none."""
    n_fetched: int = 0
    """Bytes of the files that this process has read from the store."""

    @property
    def place(self) -> str:
        """The folder for large temporary files, on whatever machine this is asked."""
        return self.scratch or tempfile.gettempdir()

    @property
    def cache_folder(self) -> Path:
        """Where copies are kept, on whatever machine this is asked."""
        return Path(self.place, f"lps-prep-{os.getuid()}", "sources")

    @contextmanager
    def local(self, file: SourceRef, *, keep: bool = True) -> Iterator[Path]:
        """Give a file as a local path: itself where the store is local, else a copy.

        The copy is kept for the next who asks, if there is room; without `keep` one that is there is used, but none is
        made. Raises UnreadableError where a store that is not local does not give the file.
        """
        if self.store.is_local:
            yield self.store.local_path(file.uri)
        elif (held := self._held(file, keep=keep)) is not None:
            try:
                yield held.path
            finally:
                held.release()
        else:
            with self._own_folder() as folder:
                path = folder / f"video{PurePosixPath(file.uri).suffix}"
                self._fetch(file, path)
                yield path

    def forget(self, file: SourceRef) -> bool:
        """Remove a copy that will not be asked for again, or that is not what it should be; tell whether one was."""
        if (name := self._name_of(file)) is not None:
            with suppress(OSError):
                return FileCache(self.cache_folder, self.cache_bytes).drop(name)
        return False

    @contextmanager
    def _own_folder(self) -> Iterator[Path]:
        with ExitStack() as opened:
            try:
                folder = opened.enter_context(scratch_folder("lps-source-", self.place))
            except OSError as e:
                where = f"the folder {self.place}: {e.strerror or e}"
                raise UnreadableError(f"cannot keep copies of videos in {where}") from e
            yield folder

    def _held(self, file: SourceRef, *, keep: bool) -> HeldFile | None:
        """Return the copy in the cache; None where it cannot be used, has no room, or none is to be made."""
        if (name := self._name_of(file)) is None:
            return None
        cache = FileCache(self.cache_folder, self.cache_bytes, MIN_FREE_SHARE)
        try:
            _make_private(cache.folder)
            if not keep:
                return cache.held(name)
            return cache.hold(name, file.n_bytes, lambda path: self._fetch(file, path))
        except (NoRoomError, OSError):
            return None
        except UnreadableError as e:
            if isinstance(e.__cause__, OSError) and e.__cause__.errno in FULL:
                return None
            raise

    def _name_of(self, file: SourceRef) -> str | None:
        """Return the name of a file's copy; None for what is not kept. Decoders go by the suffix, so it stays."""
        suffix = PurePosixPath(file.uri).suffix
        if self.store.is_local or not self.cache_bytes or not file.mark or suffix in RESERVED:
            return None
        if not PLAIN_SUFFIX.fullmatch(suffix):
            return None
        facts = "\0".join((self.store.url, file.uri, file.mark))
        return hashlib.sha256(facts.encode()).hexdigest()[:32] + suffix

    def _fetch(self, file: SourceRef, path: Path) -> None:
        """Copy a file over what is there. Raises UnreadableError, also where it cannot be written."""
        try:
            path.touch()
            with path.open("r+b") as sink:
                for data in self.store.chunks(file.uri):
                    self.n_fetched += len(data)
                    sink.write(data)
                sink.truncate()
        except OSError as e:
            raise UnreadableError(f"cannot keep a copy of {self.store.join(file.uri)}: {e.strerror or e}") from e


def _make_private(folder: Path) -> None:
    """Make a folder that only this user can read or write. Raises OSError where somebody else has made it."""
    for each, forbidden in ((folder.parent, 0o022), (folder, 0o077)):
        each.mkdir(mode=0o700, exist_ok=True)
        facts = each.lstat()  # a link has all rights
        if facts.st_uid != os.getuid() or facts.st_mode & forbidden:
            raise PermissionError(errno.EPERM, "it is not a private folder of this user", str(each))
