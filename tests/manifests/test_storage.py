"""Stores: whole files or none, nothing outside the root, and one line where something cannot be read or written."""

import errno
import io
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lps.manifests.errors import UnreadableError
from lps.manifests.storage import Store, check_relative, open_store


@pytest.fixture(params=["folder", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store: a folder, the same as a file:// URL, or the memory of this process."""
    if request.param == "memory":
        memory = fsspec.filesystem("memory")
        yield open_store("memory://root/data")
        if memory.exists("/root"):
            memory.rm("/root", recursive=True)
    else:
        prefix = "file://" if request.param == "file" else ""
        yield open_store(prefix + str(tmp_path / "data"))


def paths(store: Store, under: str = "") -> list[str]:
    return [file.path for file in store.walk(under)]


def fill(store: Store) -> None:
    for path in ("b/2", "a", "b/1", "b/c/3"):
        store.publish(path, path.encode())


# ---- reading and writing ---------------------------------------------------------------------------------------------
def test_what_is_published_can_be_read(store: Store, tmp_path: Path) -> None:
    store.publish("a/b.bin", b"first")
    assert store.read("a/b.bin") == b"first"
    store.publish("a/b.bin", b"second")
    assert store.read("a/b.bin") == b"second"
    assert store.exists("a/b.bin")
    assert not store.exists("a/c.bin")
    store.fetch("a/b.bin", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"second"


def test_files_are_published_too(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(3 << 20))
    store.publish_file(source, "x/y.tar")
    assert store.read("x/y.tar") == bytes(3 << 20)
    assert source.exists()
    assert paths(store) == ["x/y.tar"]


def test_ranges(store: Store) -> None:
    store.publish("a", b"0123456789")
    assert store.read_range("a", 2, 5) == b"234"
    assert store.read_range("a", 8, 99) == b"89"
    assert store.read_range("a", 4, 4) == b""
    for start, end in ((-1, 3), (5, 4)):
        with pytest.raises(UnreadableError):
            store.read_range("a", start, end)


def test_walk_is_sorted_and_relative(store: Store) -> None:
    assert paths(store) == []
    fill(store)
    assert paths(store) == ["a", "b/1", "b/2", "b/c/3"]
    assert paths(store, "b") == ["b/1", "b/2", "b/c/3"]
    assert paths(store, "nowhere") == []
    assert [file.n_bytes for file in store.walk()] == [1, 3, 3, 5]


def test_marks_change_with_the_file(store: Store) -> None:
    store.publish("a", b"1")
    before = store.walk()[0].mark
    assert store.walk()[0].mark == before
    store.publish("a", b"22")
    assert store.walk()[0].mark != before


def test_marks_change_with_the_time_of_a_file_of_the_same_size(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish("a", b"1")
    before = store.walk()[0].mark
    os.utime(tmp_path / "a", (1, 1))
    assert store.walk()[0].mark != before


def test_delete(store: Store) -> None:
    fill(store)
    store.delete("b/1")
    store.delete("b/1")
    assert paths(store) == ["a", "b/2", "b/c/3"]


def test_a_store_travels_as_its_url(store: Store) -> None:
    store.publish("a", b"1")
    assert Store(store.url).read("a") == b"1"


def test_absent_files_are_one_line(store: Store, tmp_path: Path) -> None:
    uses: list[Any] = [
        lambda: store.read("none"),
        lambda: store.read_range("none", 0, 1),
        lambda: store.fetch("none", tmp_path / "copy"),
        lambda: store.publish_file(tmp_path / "none", "a"),
    ]
    for use in uses:
        with pytest.raises(UnreadableError) as caught:
            use()
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("cannot ")
    assert paths(store) == []


def test_an_unknown_protocol_is_one_line() -> None:
    with pytest.raises(UnreadableError, match="cannot list"):
        open_store("nonsense://bucket/data").walk()


# ---- whole or not at all ---------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "data"))


def everything(folder: Store) -> list[str]:
    """Every file below the root, temporary ones included."""
    return sorted(str(p.relative_to(folder.url)) for p in Path(folder.url).rglob("*") if p.is_file())


def full_disk(*args: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("from_file", [False, True])
def test_a_failing_write_leaves_the_old_file(
    folder: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, from_file: bool
) -> None:
    folder.publish("a/b", b"old")
    source = tmp_path / "source"
    source.write_bytes(b"new")
    write = partial(folder.publish_file, source, "a/b") if from_file else partial(folder.publish, "a/b", b"new")
    with monkeypatch.context() as broken:
        broken.setattr(os if step == "fsync" else Path, step, full_disk)
        with pytest.raises(UnreadableError, match="cannot write .*No space left on device"):
            write()
    assert folder.read("a/b") == b"old"
    assert everything(folder) == ["a/b"]


def test_a_write_that_breaks_off_leaves_the_old_file(folder: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.publish("a", b"old")

    class Disk(io.BytesIO):
        def write(self, data: object) -> int:
            full_disk()
            return 0

        def __exit__(self, *args: object) -> None:
            self.close()

    real = Path.open

    def opened(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode == "wb":
            real(path, mode).close()  # the file is there, and empty
            return Disk()
        return real(path, mode, *args, **kwargs)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "open", opened)
        with pytest.raises(UnreadableError):
            folder.publish("a", b"new and longer")
    assert folder.read("a") == b"old"
    assert everything(folder) == ["a"]


def test_a_killed_writer_leaves_no_file_in_a_listing_after_a_sweep(folder: Store) -> None:
    folder.publish("a/b.tar", b"1")
    left = folder.local_path("a/.c.tar.0123abcd.tmp")
    left.write_bytes(b"torn")
    folder.sweep()
    assert everything(folder) == ["a/b.tar"]


def test_what_a_killed_writer_left_is_no_file_of_a_data_set(folder: Store) -> None:
    folder.publish("a/b.tar", b"1")
    folder.local_path("a/.c.tar.0123abcd.tmp").write_bytes(b"torn")
    folder.local_path("a/.c.tar.tmp").write_bytes(b"somebody's own")
    assert [file.path for file in folder.walk()] == ["a/.c.tar.tmp", "a/b.tar"]
    assert len(folder.walk(leaving=True)) == 3, "a source may have any names"
    folder.sweep()
    assert everything(folder) == ["a/.c.tar.tmp", "a/b.tar"]


def test_names_are_on_the_disk_before_the_next_step(folder: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost machine keeps new folders, new names and removals that somebody was told of."""
    synced: list[tuple[str, list[str]]] = []
    usual = os.fsync

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        synced.append((path.name, sorted(p.name for p in path.iterdir()) if path.is_dir() else []))
        usual(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    folder.publish("a/b", b"1")
    found = dict(synced)
    assert found[Path(folder.url).parent.name] == ["data"]
    assert found["data"] == ["a"]
    assert synced[-1] == ("a", ["b"])
    synced.clear()
    folder.delete("a/b")
    folder.delete("a/b")
    assert synced == [("a", [])]


def test_the_file_is_complete_before_it_has_its_name(folder: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, list[str]]] = []
    replace = Path.replace

    def watched(path: Path, target: Path) -> Path:
        seen.append((path.read_bytes(), [p.name for p in target.parent.iterdir()]))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watched)
    folder.publish("a/b", b"whole")
    assert [data for data, _ in seen] == [b"whole"]
    assert "b" not in seen[0][1]
    assert seen[0][1][0].startswith(".b.")


def test_a_folder_that_cannot_be_made() -> None:
    with pytest.raises(UnreadableError, match="cannot write /proc/none/a: "):
        open_store("/proc/none").publish("a", b"1")


def test_a_file_where_a_folder_must_be(folder: Store) -> None:
    folder.publish("a", b"1")
    with pytest.raises(UnreadableError, match="cannot write"):
        folder.publish("a/b", b"2")
    assert folder.read("a") == b"1"


# ---- the root --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["a", "a/b.c", "..a/b", "a..b", ".hidden", "a b/é", "x:y", "a//b", "./a"])
def test_paths_below_the_root(path: str) -> None:
    assert check_relative(path) == path


@pytest.mark.parametrize(
    "path", ["/a", "../a", "a/../b", "a/..", "..", "", ".", "a\0b", "file:///a", "s3://bucket/a", "//a"]
)
def test_paths_that_leave_the_root(path: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="leaves its root"):
        check_relative(path)
    store = open_store(str(tmp_path))
    for use in (store.read, store.join, store.local_path):
        with pytest.raises(UnreadableError):
            use(path)
    with pytest.raises(UnreadableError):
        store.publish(path, b"")


def test_a_store_that_is_silent_is_said_to_be(folder: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def waited(*_: object, **__: object) -> bytes:
        raise TimeoutError

    monkeypatch.setattr("lps.manifests.storage.open_regular", waited)
    with pytest.raises(UnreadableError, match=r"cannot read .*/x: no answer in time"):
        folder.read("x")


def test_open_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_store("data").url == str(tmp_path / "data")
    assert open_store("~/data").url == str(tmp_path / "home" / "data")
    assert open_store("memory://a/b/").url == "memory://a/b"
    assert open_store("data").join("x/y") == str(tmp_path / "data/x/y")
    assert open_store("data").is_local
    assert open_store("file:///data").is_local
    assert open_store("file:///data").local_path("x") == Path("/data/x")
    assert not open_store("memory://a").is_local


@pytest.mark.parametrize(
    ("url", "location", "path"),
    [
        ("s3://bucket/p", "s3://bucket/p/a/b.mp4", "a/b.mp4"),
        ("s3://bucket/p", "s3://bucket/papa/b.mp4", None),
        ("s3://bucket/p", "/p/a/b.mp4", None),
        ("/srv/p", "/srv/p/a/b.mp4", "a/b.mp4"),
        ("file:///srv/p", "/srv/p/a/b.mp4", "a/b.mp4"),
        ("/srv/p", "file:///srv/p/a/b.mp4", "a/b.mp4"),
        ("/srv/p", "/srv/papa/b.mp4", None),
        ("/srv/p", "s3://srv/p/b.mp4", None),
        ("/", "/b.mp4", "b.mp4"),
    ],
)
def test_paths_below_a_root(url: str, location: str, path: str | None) -> None:
    assert Store(url).relative(location) == path
