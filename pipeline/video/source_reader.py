"""The files of a source as local files: of a remote one as copies, which a cache keeps between probe and processing.

A sequence of images is a folder. Where it lies in an archive or on a store that is not local, that is one of the
reader's own, with copies of its images.
"""

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lps.manifests.canonical import unescape_name
from lps.manifests.codes import Code, Stage
from lps.manifests.environment import scratch_folder
from lps.manifests.errors import UnreadableError, VideoFault
from lps.manifests.remote.file_cache import RESERVED, FileCache, HeldFile, NoRoomError
from lps.manifests.sequences.archive import ArchiveLimits, images_in
from lps.manifests.sequences.names import archive_of, is_image, is_sequence
from lps.manifests.storage import ASKED_AT_A_TIME, Store, StoredFile
from lps.pipeline.config.params import Limits
from lps.pipeline.video.reading import fault_of_reading

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
    def local(self, file: SourceRef, *, keep: bool = True, limits: Limits | None = None) -> Iterator[Path]:
        """Give a file as a local path, a sequence of images as a folder: itself where the store is local, else a copy.

        The copy is kept for the next who asks, if there is room; without `keep` one that is there is used, but none is
        made. Raises UnreadableError where a store that is not local does not give the file, and VideoFault where a
        sequence cannot be taken out of its archive.
        """
        if is_sequence(file.uri):
            with self._sequence(file, limits or Limits()) as folder:
                yield folder
        elif self.store.is_local:
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
    def _sequence(self, file: SourceRef, limits: Limits) -> Iterator[Path]:
        inside = archive_of(file.uri)
        if inside is None and self.store.is_local:
            yield self.store.local_path(file.uri)
        elif inside is None:
            with self._own_folder() as folder:
                self._fetch_images(file.uri, folder, limits)
                yield folder
        else:
            # its copy is kept: other sequences lie in it, too
            with self.local(SourceRef(inside[0], file.mark)) as path, self._own_folder() as folder:
                unpack(path, inside[1], folder, limits)
                yield folder

    def _fetch_images(self, uri: str, folder: Path, limits: Limits) -> None:
        """Copy the images of a folder of the store. Raises UnreadableError, VideoFault E_LIMIT."""
        images = [file for file in self.store.walk(uri.rstrip("/")) if _is_image_of(file, uri)]
        if len(images) > limits.max_frames or sum(file.n_bytes or 0 for file in images) > limits.max_bytes:
            raise VideoFault(Code.E_LIMIT, Stage.PROBE, f"{len(images)} images, more bytes or images than allowed")
        targets = [folder / file.path.rpartition("/")[2] for file in images]
        with ThreadPoolExecutor(ASKED_AT_A_TIME) as pool:
            list(pool.map(self.store.fetch, [file.path for file in images], targets))
        self.n_fetched += sum(target.stat().st_size for target in targets)

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


def _is_image_of(file: StoredFile, uri: str) -> bool:
    folder, _, name = file.path.rpartition("/")
    return f"{folder}/" == uri and is_image(name)


def archive_limits(limits: Limits) -> ArchiveLimits:
    """Return the bounds of an archive: what it holds may be as much as a video."""
    return ArchiveLimits(max_bytes=limits.max_bytes, max_members=limits.max_frames)


def unpack(archive: Path, inner: str, folder: Path, limits: Limits) -> None:
    """Write the images of one folder of an archive into a folder of the disk.

    Raises VideoFault as `images_in`, and where the archive cannot be read; UnreadableError where the disk is why.
    """
    images = images_in(archive, archive_limits(limits), inner)
    while True:
        try:
            image = next(images, None)
        except OSError as e:
            raise fault_of_reading(e) from e
        if image is None:
            return
        try:
            (folder / unescape_name(image.name)).write_bytes(image.data)
        except OSError as e:
            raise UnreadableError(f"cannot keep images in the folder {folder.parent}: {e.strerror or e}") from e


def _make_private(folder: Path) -> None:
    """Make a folder that only this user can read or write. Raises OSError where somebody else has made it."""
    for each, forbidden in ((folder.parent, 0o022), (folder, 0o077)):
        each.mkdir(mode=0o700, exist_ok=True)
        facts = each.lstat()  # a link has all rights
        if facts.st_uid != os.getuid() or facts.st_mode & forbidden:
            raise PermissionError(errno.EPERM, "it is not a private folder of this user", str(each))
