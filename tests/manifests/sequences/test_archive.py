"""Archives of images: what is read of them, and what becomes of hostile and damaged ones."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import VideoFault
from lps.manifests.sequences.archive import ArchiveLimits, images_in
from tests.frame_trees import tar_of

LIMITS = ArchiveLimits(max_bytes=1 << 20, max_members=100)
# sizes around the blocks of a tar, and one that is larger than what gzip has in its buffer
TREE = {
    f"1/real/{k % 2}/{k}.png": bytes([k]) * size for k, size in enumerate((0, 1, 511, 512, 513, 1024, 200_000, 512))
}
Found = list[tuple[str, str, bytes]]


def read(path: Path, data: bytes, *, limits: ArchiveLimits = LIMITS, folder: str | None = None) -> Found:
    path.write_bytes(data)
    return [(image.folder, image.name, image.data) for image in images_in(path, limits, folder)]


def fault(path: Path, data: bytes, limits: ArchiveLimits = LIMITS) -> tuple[Code, str]:
    with pytest.raises(VideoFault) as caught:
        read(path, data, limits=limits)
    return caught.value.code, caught.value.detail


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **fields: str) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.size = kind, size
    for field, value in fields.items():
        setattr(made, field, value)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "1.tar.gz"


@pytest.mark.parametrize("compressed", [True, False])
def test_images_come_with_their_folders_whatever_the_name_of_the_archive_says(path: Path, *, compressed: bool) -> None:
    data = tar_of({**TREE, "1/real/notes.txt": b"x", "1/real/0/._0.png": b"x", "a.png": b"y"}, compressed=compressed)
    expected = [(*name.rpartition("/")[::2], content) for name, content in TREE.items()]
    assert read(path, data) == [*expected, ("", "a.png", b"y")]
    assert read(path, data, folder="1/real/1") == [found for found in expected if found[0] == "1/real/1"]
    assert read(path, data, folder="1/real") == []


@pytest.mark.parametrize("compressed", [True, False])
def test_an_archive_that_breaks_off_anywhere_is_no_archive(path: Path, *, compressed: bool) -> None:
    data = tar_of(TREE, compressed=compressed)
    ends = range(1, len(data), 97) if compressed else range(512, len(data) - 10240, 512)
    for end in [*ends, len(data) // 2]:
        code, _ = fault(path, data[:end])
        assert code == Code.E_TRUNCATED or (end == 1 and code == Code.E_PROBE)


def test_other_bytes_of_a_compressed_archive_are_noticed(path: Path) -> None:
    data = bytearray(tar_of(TREE))
    data[-6] ^= 1  # of the checksum
    assert fault(path, bytes(data))[0] == Code.E_TRUNCATED


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (member("../1.png"), "its member '../1.png' leads out of it"),
        (member("/etc/1.png"), "its member '/etc/1.png' leads out of it"),
        (member("a/../../1.png"), "leads out of it"),
        (member("a/1.png", tarfile.SYMTYPE, linkname="/etc/passwd"), "its member 'a/1.png' is a link or device"),
        (member("a/1.png", tarfile.LNKTYPE, linkname="1/real/0/0.png"), "is a link or device"),
        (member("a/1.png", tarfile.CHRTYPE), "is a link or device"),
        (member("a/1.png", tarfile.FIFOTYPE), "is a link or device"),
        (member("a/x.txt", tarfile.BLKTYPE), "is a link or device"),
    ],
)
def test_one_hostile_member_and_the_archive_is_refused(path: Path, odd: tarfile.TarInfo, said: str) -> None:
    code, detail = fault(path, tar_of(TREE, more=[odd]))
    assert (code, detail.partition(": ")[0]) == (Code.E_PROBE, "the archive is refused")
    assert said in detail


def test_bombs_end_at_the_limits(path: Path) -> None:
    limits = "more than 1048576 bytes or 100 members"
    assert fault(path, tar_of({f"{k}.png": b"" for k in range(101)})) == (Code.E_LIMIT, limits)
    assert fault(path, tar_of({"1.png": b"\0" * 2**21})) == (Code.E_LIMIT, limits)
    assert fault(path, gzip.compress(b"\0" * 2**24, mtime=0))[0] in (Code.E_LIMIT, Code.E_PROBE)
    huge = gzip.compress(member("1.png", size=1 << 40).tobuf(), mtime=0)
    assert fault(path, huge) == (Code.E_LIMIT, limits)
    behind = gzip.compress(gzip.decompress(tar_of({"1.png": b"x"})) + b"\0" * 2**23, mtime=0)
    assert fault(path, behind) == (Code.E_LIMIT, "more than 1048576 bytes in the archive")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_of_endless_length_are_not_read(path: Path, kind: bytes) -> None:
    head = member("x", kind, size=1 << 30).tobuf()
    code, detail = fault(path, gzip.compress(head + b"x" * 4096, mtime=0))
    assert (code, detail) == (Code.E_LIMIT, "a header of 1073741824 bytes, limit 67108864")


def test_sparse_members_and_names_with_nul_are_refused(path: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as archive:
        odd = tarfile.TarInfo("1.png")
        odd.pax_headers = {"path": "a\0b/1.png"}
        archive.addfile(odd)
    assert fault(path, sink.getvalue())[0] == Code.E_PROBE
    head = bytearray(member("1.png", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    assert fault(path, bytes(head) + b"\0" * 1024)[0] == Code.E_PROBE


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\x1f\x8b", b"\x1f\x8bxxxxxxxxxxxxxxxxxx", b"x" * 4096, gzip.compress(b"x" * 999, mtime=0)]
)
def test_what_is_no_archive(path: Path, data: bytes) -> None:
    assert fault(path, data)[0] in (Code.E_PROBE, Code.E_TRUNCATED)


def test_an_archive_without_members_holds_nothing(path: Path) -> None:
    assert read(path, tar_of({})) == []
