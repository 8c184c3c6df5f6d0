"""Copies of remote files in a folder of bounded size that the processes of a machine share."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LOW_WATER = 0.95
"""Share of the bound down to which old copies make room at a time: to find them, all have to be looked at."""
PARTIAL, LOCK = ".part", ".lock"
RESERVED = frozenset({PARTIAL, LOCK})
"""Endings that no copy may have."""


class NoRoomError(Exception):
    """The copies in use, or what must stay free of the disk, leave no room for another one."""


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A local file that stays while this is held. Files that were local before need no holding."""

    path: Path
    handle: int = -1

    def release(self) -> None:
        """Allow the copy to be removed when room is needed."""
        if self.handle >= 0:
            os.close(self.handle)


@dataclass(frozen=True, slots=True)
class FileCache:
    """A folder of copies. The least recently used ones that nobody holds make room for new ones.

    Copies appear whole or not at all, and are on the disk before they have their names. Locks are those of the kernel,
    on the copies themselves, so that a killed process leaves nothing behind but an unfinished copy, which the next one
    for that file overwrites. All users of a folder should agree on `max_bytes`.
    """

    folder: Path
    max_bytes: int
    min_free_share: float = 0.0
    """Share of the disk that no copy may take."""

    def held(self, name: str) -> HeldFile | None:
        """Return a copy that is there, to be released after use; None if it is not. Raises OSError."""
        path = self.folder / name
        handle = _locked(path, fcntl.LOCK_SH, os.O_RDWR)
        if handle is None:
            return None
        os.utime(path)
        return HeldFile(path, handle)

    def hold(self, name: str, n_bytes: int | None, fill: Callable[[Path], None]) -> HeldFile:
        """Return a copy, made by `fill` if need be; it stays until it is released.

        `fill` writes over what is in the file that it is given, which has as many bytes as there is room for, and cuts
        off what is left. Several processes may ask at once: one fills, the others wait for it. Room is made for
        `n_bytes` before; None: for what is there after. Raises NoRoomError, OSError where the folder cannot be used,
        and what `fill` raises.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            if (found := self.held(name)) is not None:
                return found
            self._fill(name, n_bytes, fill)

    def drop(self, name: str) -> bool:
        """Remove a copy that nobody holds; tell whether one was removed. Raises OSError."""
        with self.counting() as counter:
            n_bytes = _remove_unless_held(self.folder / name)
            if n_bytes is not None:
                _add(counter, -n_bytes)
        return n_bytes is not None

    @contextmanager
    def counting(self) -> Iterator[int]:
        """Let one process at a time count what is in the folder, and none begin or remove anything meanwhile."""
        handle = os.open(self.folder / f"room{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)

    def _fill(self, name: str, n_bytes: int | None, fill: Callable[[Path], None]) -> None:
        path = self.folder / name
        partial = path.with_suffix(PARTIAL)
        handle = _locked(partial, fcntl.LOCK_EX, os.O_RDWR | os.O_CREAT)
        assert handle is not None  # created
        reserved, is_whole = 0, False
        try:
            if path.exists():
                return
            os.truncate(partial, 0)
            reserved = self._reserve(partial, 0, n_bytes or 0)
            fill(partial)
            reserved = self._reserve(partial, reserved, partial.stat().st_size)
            os.fsync(handle)  # it gets a name that is trusted, also after the machine was lost
            with self.counting():
                partial.replace(path)
            is_whole = True
        finally:
            if not is_whole:
                with self.counting() as counter:
                    partial.unlink(missing_ok=True)
                    _add(counter, -reserved)
            os.close(handle)

    def _reserve(self, partial: Path, before: int, n_bytes: int) -> int:
        """Set room aside for a copy, in the count and as the size of its unfinished file; return how much it is.

        It had `before` bytes so far.
        """
        if n_bytes == before:
            return n_bytes
        with self.counting() as counter:
            more, disk = n_bytes - before, shutil.disk_usage(self.folder)
            if n_bytes > self.max_bytes or disk.free - more < self.min_free_share * disk.total:
                raise NoRoomError
            used = _count(counter)
            if used is None or used + more > self.max_bytes:
                used = before + self._make_room(partial, n_bytes)
            _set(counter, used + more)
            os.truncate(partial, n_bytes)
        return n_bytes

    def _make_room(self, partial: Path, n_bytes: int) -> int:
        """Remove old copies until there is room; return the bytes of those that stay, the unfinished one aside."""
        copies = []
        for path in self.folder.iterdir():
            if path.suffix != LOCK and path != partial:
                with suppress(FileNotFoundError):  # a fill that failed
                    facts = path.stat()
                    copies.append((facts.st_mtime_ns, facts.st_size, path))
        used = sum(size for _, size, _ in copies)
        if used + n_bytes > self.max_bytes:
            for _, size, path in sorted(copies):
                if used + n_bytes > LOW_WATER * self.max_bytes and _remove_unless_held(path) is not None:
                    used -= size
        if used + n_bytes > self.max_bytes:
            raise NoRoomError
        return used


def _locked(path: Path, kind: int, flags: int) -> int | None:
    """Open and lock the file that has this path once it is locked; None where there is none. Raises OSError."""
    while True:
        try:
            handle = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(handle, kind)
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass  # removed or renamed while we waited
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _remove_unless_held(path: Path) -> int | None:
    """Remove a file that no other process has locked, and return its bytes; None if nothing was removed."""
    try:
        handle = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB, os.O_RDWR)
    except BlockingIOError:
        return None
    if handle is None:
        return None
    try:
        n_bytes = os.fstat(handle).st_size
        path.unlink(missing_ok=True)
    finally:
        os.close(handle)
    return n_bytes


# The bytes of all copies, as text in the file that is locked to count them. A process that is killed leaves too high a
# number, which is put right when room is made: then all is counted.


def _count(counter: int) -> int | None:
    text = os.pread(counter, 32, 0)
    return int(text) if text.strip().isdigit() else None


def _set(counter: int, n_bytes: int) -> None:
    os.pwrite(counter, b"%-20d" % max(n_bytes, 0), 0)


def _add(counter: int, n_bytes: int) -> None:
    if (used := _count(counter)) is not None:
        _set(counter, used + n_bytes)
