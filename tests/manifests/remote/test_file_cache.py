"""A folder of copies: whole or not there, within its bound, and never taken from under who uses them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lps.manifests.remote.file_cache import FileCache, HeldFile, NoRoomError

KIB = 1024


def text(name: str, n_bytes: int = KIB) -> bytes:
    return (name.encode() * n_bytes)[:n_bytes]


def keep(cache: FileCache, name: str, n_bytes: int | None = KIB, *, size: int = KIB) -> HeldFile:
    return cache.hold(name, n_bytes, lambda path: fill(path, text(name, size)))


def fill(path: Path, data: bytes) -> None:
    with path.open("r+b") as sink:
        sink.write(data)
        sink.truncate()


def broken_fill(path: Path) -> None:
    path.write_bytes(b"half")
    raise ZeroDivisionError


def never(path: Path) -> None:
    pytest.fail("filled again")


def names(cache: FileCache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir() if path.suffix != ".lock")


@pytest.fixture
def cache(tmp_path: Path) -> FileCache:
    return FileCache(tmp_path / "cache", 4 * KIB)


def test_a_copy_is_made_once_and_used_again(cache: FileCache) -> None:
    keep(cache, "a").release()
    held = cache.hold("a", KIB, never)
    assert held.path.read_bytes() == text("a")
    held.release()
    assert names(cache) == ["a"]


def test_the_least_recently_used_makes_room(cache: FileCache) -> None:
    for number, name in enumerate("abc"):
        keep(cache, name).release()
        os.utime(cache.folder / name, (number, number))
    cache.hold("a", KIB, never).release()  # used again
    keep(cache, "d").release()
    assert names(cache) == ["a", "b", "c", "d"]
    keep(cache, "e").release()
    assert {"a", "e"} <= set(names(cache)) < set("acde")


def test_what_is_held_stays_and_what_does_not_fit_removes_nothing(cache: FileCache) -> None:
    held = [keep(cache, name) for name in "abcd"]
    with pytest.raises(NoRoomError):
        keep(cache, "e")
    assert names(cache) == ["a", "b", "c", "d"]
    for one in held:
        one.release()
    with pytest.raises(NoRoomError):
        keep(cache, "f", 5 * KIB)
    assert names(cache) == ["a", "b", "c", "d"]


def test_room_is_counted_where_the_size_is_not_known_before(cache: FileCache) -> None:
    keep(cache, "a").release()
    keep(cache, "b", None, size=3 * KIB).release()
    assert names(cache) == ["a", "b"]
    keep(cache, "c", KIB, size=2 * KIB).release()  # larger than was said
    assert sum(path.stat().st_size for path in map(cache.folder.joinpath, names(cache))) <= cache.max_bytes
    with pytest.raises(NoRoomError):
        keep(cache, "d", None, size=5 * KIB)
    assert "d" not in names(cache)


def test_a_fill_that_fails_leaves_nothing_and_gives_its_room_back(cache: FileCache) -> None:
    for _ in range(9):
        with pytest.raises(ZeroDivisionError):
            cache.hold("a", 3 * KIB, broken_fill)
    assert names(cache) == []
    keep(cache, "b").release()
    keep(cache, "c", 3 * KIB, size=3 * KIB).release()
    assert names(cache) == ["b", "c"]


def test_a_copy_is_dropped_unless_it_is_held(cache: FileCache) -> None:
    held = keep(cache, "a")
    assert not cache.drop("a")
    held.release()
    assert cache.drop("a")
    assert not cache.drop("a")
    assert cache.held("a") is None
    for name in "bcde":  # its room is free again
        keep(cache, name).release()
    assert names(cache) == ["b", "c", "d", "e"]


def test_a_share_of_the_disk_stays_free(tmp_path: Path) -> None:
    with pytest.raises(NoRoomError):
        keep(FileCache(tmp_path, 4 * KIB, min_free_share=1.0), "a")


KILLED = """
import os, signal, sys
from pathlib import Path
from lps.manifests.remote.file_cache import FileCache

def fill(path):
    path.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

FileCache(Path(sys.argv[1]), 4096).hold("a", 3072, fill)
"""


def test_a_killed_fill_is_no_copy_and_takes_no_room_for_long(cache: FileCache) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(cache.folder)], check=False, timeout=100)
    assert ended.returncode == -signal.SIGKILL
    assert names(cache) == ["a.part"]
    assert cache.held("a") is None
    keep(cache, "b", 4 * KIB, size=4 * KIB).release()
    assert names(cache) == ["b"]


READERS = """
import hashlib, random, sys
from pathlib import Path
from lps.manifests.remote.file_cache import FileCache

cache, seed = FileCache(Path(sys.argv[1]), 8 * 4096), int(sys.argv[2])
numbers = list(range(24)) * 4
random.Random(seed).shuffle(numbers)
n_filled = 0

def fill(path, number):
    global n_filled
    n_filled += 1
    with path.open("r+b") as sink:
        for _ in range(4):
            sink.write(bytes([number]) * 1024)
            sink.flush()

for number in numbers:
    held = cache.hold(f"{number}.mp4", 4096, lambda path: fill(path, number))
    for _ in range(3):
        assert held.path.read_bytes() == bytes([number]) * 4096
    with cache.counting():
        assert sum(path.stat().st_size for path in cache.folder.iterdir() if path.suffix != ".lock") <= 8 * 4096
    held.release()
print(n_filled)
"""


def test_processes_share_a_folder(tmp_path: Path) -> None:
    line = [sys.executable, "-c", READERS, str(tmp_path)]
    running = [
        subprocess.Popen([*line, str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in range(3)
    ]
    ended = [(process.communicate(timeout=300), process.returncode) for process in running]
    assert [code for _, code in ended] == [0, 0, 0], ended
    assert sum(int(said) for (said, _), _ in ended) < 3 * 96  # some were there already


def test_processes_that_want_the_same_file_make_it_once(tmp_path: Path) -> None:
    code = READERS.replace("8 * 4096", "99 * 4096")
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(seed)], stdout=subprocess.PIPE, text=True)
        for seed in range(3)
    ]
    assert sum(int(process.communicate(timeout=300)[0]) for process in running) == 24
