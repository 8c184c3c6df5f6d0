"""The images of sequences in a tar, compressed with gzip or not, whatever its name says.

An archive is hostile input. It is read from its first byte to its last, nothing is unpacked under a name of its own,
and one that holds a link, a device, a path out of it, or more than it may, is refused as a whole: nobody knows what its
maker meant. So is one that breaks off, as it would be read otherwise after the download is complete.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from lps.manifests.canonical import escape_name, open_regular
from lps.manifests.codes import Code, Stage
from lps.manifests.errors import VideoFault
from lps.manifests.sequences.names import is_image

MAX_IMAGE_BYTES = 64 << 20
MAX_NAME_BYTES = 255
"""Longest name of a file: those of a sequence are unpacked to be decoded."""
MAX_ARCHIVE_BYTES, MAX_ARCHIVE_MEMBERS = 8 << 30, 250_000
"""What an archive may hold where nobody says otherwise."""
GZIP = b"\x1f\x8b"
BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bounds on what an archive unpacks to."""

    max_bytes: int
    max_members: int


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image, as it lies in an archive."""

    folder: str
    """Path in the archive, without slashes at its ends; as `escape_name` writes it, like the name."""
    name: str
    data: bytes


def images_in(path: Path, limits: ArchiveLimits, folder: str | None = None) -> Iterator[ArchivedImage]:
    """Yield the images of an archive, or of one folder of it, in their order there.

    Raises OSError where the file cannot be read, VideoFault for what it holds: E_PROBE (no tar, or a member that is
    refused), E_TRUNCATED (it breaks off), E_LIMIT.
    """
    with open_regular(path) as file:
        compressed = file.read(2) == GZIP
        file.seek(0)
        try:
            if not compressed:
                yield from _images(_Bounded(file, limits.max_bytes, leaps=True), limits, folder)
                return
            with gzip.GzipFile(fileobj=file) as unpacked:
                whole = _Bounded(unpacked, limits.max_bytes, leaps=False)
                yield from _images(whole, limits, folder)
                whole.drain()
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            raise _fault(Code.E_TRUNCATED, f"the archive breaks off: {e}") from e
        except (tarfile.TarError, ValueError, OverflowError) as e:
            text = " ".join(str(e).split())
            code = Code.E_TRUNCATED if "unexpected end" in text else Code.E_PROBE
            raise _fault(code, f"the archive cannot be read: {text or type(e).__name__}") from e


class _Bounded(io.RawIOBase):
    """Bytes of a tar, read forwards, of which nobody gets more at once than an image may have, nor too many in all."""

    def __init__(self, file: BinaryIO | gzip.GzipFile, max_bytes: int, *, leaps: bool) -> None:
        self.file, self.max_bytes, self.leaps = file, max_bytes, leaps
        self.place = 0
        self.last = b""
        """What was read last."""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_IMAGE_BYTES:
            raise _fault(Code.E_LIMIT, f"a header of {size} bytes, limit {MAX_IMAGE_BYTES}")
        self._check(self.place + size)
        if self._is_back:
            self._is_back, self.place = False, self.place + 1
            return self.last[-1:] + (self.read(size - 1) if size > 1 else b"")
        self.last = self.file.read(size)
        self.place += len(self.last)
        return self.last

    _is_back = False
    """The last byte is to be read again: tarfile looks at it before it goes on."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check(offset)
        if offset == self.place - 1 and self.last:
            self._is_back, self.place = True, offset
        elif offset < self.place:
            raise ValueError("a tar that does not go on where it should")
        elif self.leaps:
            self.place = self.file.seek(offset)
        else:
            while self.place < offset and self.read(min(BUFFER_BYTES, offset - self.place)):
                pass
        return self.place

    def tell(self) -> int:
        return self.place

    def drain(self) -> None:
        """Read to the end, where gzip has its checksum."""
        while self.read(BUFFER_BYTES):
            pass

    def _check(self, end: int) -> None:
        # a buffer more: what is behind the last member is read, too
        if end > self.max_bytes + 2 * BUFFER_BYTES:
            raise _fault(Code.E_LIMIT, f"more than {self.max_bytes} bytes in the archive")


def _images(file: _Bounded, limits: ArchiveLimits, folder: str | None) -> Iterator[ArchivedImage]:
    n_members, n_bytes = 0, 0
    with tarfile.open(fileobj=cast(BinaryIO, file), mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # a list of all that nobody asks for
            n_members, n_bytes = n_members + 1, n_bytes + member.size
            parts = _checked(member)
            if n_members > limits.max_members or n_bytes > limits.max_bytes:
                raise _fault(Code.E_LIMIT, f"more than {limits.max_bytes} bytes or {limits.max_members} members")
            if not member.isreg() or not is_image(parts[-1]) or any(part.startswith(".") for part in parts):
                continue
            if member.size > MAX_IMAGE_BYTES or len(parts[-1].encode(errors="surrogateescape")) > MAX_NAME_BYTES:
                raise _fault(Code.E_LIMIT, f"member {_shown(member)}: {member.size} bytes, or a name too long")
            place = escape_name("/".join(parts[:-1]))
            if folder is None or place == folder:
                source = archive.extractfile(member)
                data = source.read() if source is not None else b""
                if len(data) != member.size:
                    raise _fault(Code.E_TRUNCATED, f"the archive breaks off in {_shown(member)}")
                yield ArchivedImage(place, escape_name(parts[-1]), data)
    if file.last.strip(b"\0") or not file.last:  # tarfile takes any header that it cannot read for the end
        raise _fault(Code.E_TRUNCATED, f"the archive breaks off after {n_members} members")


def _checked(member: tarfile.TarInfo) -> list[str]:
    """Return the parts of a member's path. Raises VideoFault for what no archive of images has."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if member.name.startswith("/") or ".." in parts or "\0" in member.name:
        raise _fault(Code.E_PROBE, f"the archive is refused: its member {_shown(member)} leads out of it")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise _fault(Code.E_PROBE, f"the archive is refused: its member {_shown(member)} is a link or device")
    if member.isreg() and not parts:
        raise _fault(Code.E_PROBE, "the archive is refused: a member without a name")
    return parts


def _shown(member: tarfile.TarInfo) -> str:
    name = escape_name(member.name)
    return repr(name if len(name) <= 80 else f"{name[:77]}...")


def _fault(code: Code, detail: str) -> VideoFault:
    return VideoFault(code, Stage.PROBE, detail)
