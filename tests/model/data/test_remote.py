"""Shards on web servers and in buckets: fetched once, checked, kept within bounds, gone on with after a break."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from lps.manifests.errors import IntegrityError, RefusedError, UnreadableError
from lps.manifests.remote.file_cache import FileCache
from lps.model.data.clip_data import ClipData, open_data
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions
from lps.model.data.download import fetch_shard, identified
from lps.model.data.epoch_plan import PlanOptions
from lps.model.data.prefetch import ShardPrefetcher
from lps.model.data.shard_cache import ShardCache
from lps.model.data.shard_index import open_shards
from lps.model.data.shards import Shard
from tests.buckets import bucket_server, upload_folder

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec, WebServer

    Many = Callable[..., list[list[Spec]]]

READ = ReadOptions(n_frames=3)


def read_keys(data: ClipData, cache: ShardCache, *, n_workers: int = 0, window: int = 4096) -> list[tuple[str, ...]]:
    """Return the keys of each batch of an epoch."""
    plan = PlanOptions(batch_size=4, window_samples=window)
    with ClipReader(data, READ, plan, WorkOptions(n_workers=n_workers), cache=cache) as reader:
        return [batch.keys for batch in reader.epoch(0)]


def url_of(web: "WebServer", pattern: str) -> str:
    """Return the URL of a path below the server's folder."""
    return f"{web.url}/{Path(pattern).relative_to(web.root)}"


# ---- HTTP ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_workers", [0, 1])
def test_shards_on_a_web_server_give_the_batches_of_local_ones(
    make: "Maker", many: "Many", web: "WebServer", cache: ShardCache, n_workers: int
) -> None:
    pattern = make.shards(many(1, 7, 5))
    expected = read_keys(open_shards(pattern, cache), cache)
    data = open_shards(url_of(web, pattern), cache)
    assert read_keys(data, cache, n_workers=n_workers) == expected
    bodies = [request for request in web.requests if request.startswith("GET")]
    assert len(bodies) == 2 * 3, "each shard is asked for its size and mark, then fetched once"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_breaks_off_is_asked_for_the_rest(
    make: "Maker", many: "Many", web: "WebServer", tmp_path: Path, ranges: bool
) -> None:
    path = Path(make.shards(many(4)).replace("{000000..000000}", "000000"))
    size = path.stat().st_size
    web.ranges = ranges
    web.break_after_bytes = [10_000, 5_000]
    fetched = fetch_shard(Shard(uri=url_of(web, str(path))), tmp_path / "copy", delays_s=(0.0, 0.0))
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    assert fetched.n_bytes == size
    asked = [request.rpartition(" ")[2] for request in web.requests]
    assert asked[1:] == (["bytes=10000-", "bytes=15000-"] if ranges else ["bytes=10000-", "bytes=5000-"])


def test_a_server_that_keeps_breaking_off_is_given_up(
    make: "Maker", many: "Many", web: "WebServer", cache: ShardCache
) -> None:
    out = make.data_set(many(4))
    data = open_data(f"{web.url}/{out.name}", "train")
    web.break_after_bytes = [100] * 10
    with pytest.raises(
        UnreadableError, match=r"cannot fetch shard http.*train-000000.tar: the server broke off at byte 300 of \d+"
    ):
        read_keys(data, cache)
    assert list(cache.folder.glob("*.tar")) == list(cache.folder.glob("*.part")) == []


def test_a_file_that_changes_while_it_is_fetched_is_fetched_as_a_whole(
    make: "Maker", many: "Many", web: "WebServer", tmp_path: Path
) -> None:
    path = Path(make.shards(many(4)).replace("{000000..000000}", "000000"))
    other = Path(make.shards(many(5)).replace("{000000..000000}", "000000")).read_bytes()
    web.break_after_bytes = [10_000]
    web.on_break = lambda: path.write_bytes(other)
    fetch_shard(Shard(uri=url_of(web, str(path))), tmp_path / "copy", delays_s=(0.0, 0.0))
    assert (tmp_path / "copy").read_bytes() == other


def test_a_file_that_changed_since_it_was_indexed_is_refused(
    make: "Maker", many: "Many", web: "WebServer", cache: ShardCache
) -> None:
    pattern = make.shards(many(4))
    data = open_shards(url_of(web, pattern), cache)
    path = Path(pattern.replace("{000000..000000}", "000000"))
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    for copy in cache.folder.glob("*.tar"):
        copy.unlink()
    with pytest.raises(IntegrityError, match="changed since it was indexed: start again"):
        read_keys(data, cache)


@pytest.mark.parametrize(("status", "n_requests"), [(404, 1), (403, 1), (503, 3)])
def test_a_refusal_is_final_and_a_busy_server_is_asked_again(
    make: "Maker", many: "Many", web: "WebServer", cache: ShardCache, status: int, n_requests: int
) -> None:
    out = make.data_set(many(4))
    data = open_data(f"{web.url}/{out.name}", "train")
    web.status = status
    web.requests.clear()
    with pytest.raises(UnreadableError, match=rf"cannot fetch shard http.*train-000000.tar: HTTP {status}"):
        read_keys(data, cache)
    assert len(web.requests) == n_requests


def test_a_server_that_is_not_there_is_named(cache: ShardCache) -> None:
    with pytest.raises(UnreadableError, match=r"cannot read shard http://127.0.0.1:9/a.tar: .*[Rr]efused"):
        open_shards("http://127.0.0.1:9/a.tar", cache)


def test_a_fetched_shard_with_other_bytes_is_refused(
    make: "Maker", many: "Many", web: "WebServer", cache: ShardCache
) -> None:
    out = make.data_set(many(4))
    path = out / "shards/train/train-000000.tar"
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"train-000000.tar has SHA-256 [0-9a-f]{64}, its record says"):
        read_keys(open_data(f"{web.url}/{out.name}", "train"), cache)
    assert list(cache.folder.glob("*.tar")) == []


def test_closing_a_reader_ends_its_downloads(
    make: "Maker", many: "Many", web: "WebServer", cache: ShardCache, tmp_path: Path
) -> None:
    path = Path(make.shards(many(4)).replace("{000000..000000}", "000000"))
    with pytest.raises(UnreadableError, match="no longer wanted"):
        fetch_shard(Shard(uri=url_of(web, str(path))), tmp_path / "copy", cancelled=lambda: True)
    patient = ShardCache(cache.folder, retry_delays_s=(1.0,))
    reader = ClipReader(served(make, many, web, 4), READ, PlanOptions(), cache=patient)
    web.break_after_bytes, web.on_break = [10], Thread(target=reader.close).start
    with pytest.raises(UnreadableError, match="no longer wanted"):
        next(reader.epoch(0))


# ---- the cache -----------------------------------------------------------------------------------------------------


def served(make: "Maker", many: "Many", web: "WebServer", *sizes: int) -> ClipData:
    """Return a data set on the server."""
    return open_data(f"{web.url}/{make.data_set(many(*sizes)).name}", "train")


def fetched(web: "WebServer") -> int:
    """Return how many shards were sent."""
    return sum(".tar" in request for request in web.requests)


def test_a_second_epoch_and_a_second_reader_fetch_nothing(
    make: "Maker", many: "Many", web: "WebServer", cache: ShardCache
) -> None:
    data = served(make, many, web, 4, 4, 4)
    with ClipReader(data, READ, PlanOptions(), cache=cache) as reader:
        for epoch in range(2):
            assert sum(len(batch) for batch in reader.epoch(epoch)) == 12
    read_keys(data, cache)
    assert fetched(web) == 3


def test_the_cache_stays_within_its_bounds_and_shards_in_use_stay(
    make: "Maker", many: "Many", web: "WebServer", cache: ShardCache, tmp_path: Path
) -> None:
    data = served(make, many, web, *[3] * 24)
    one = max(shard.n_bytes or 0 for shard in data.shards)
    small = ShardCache(tmp_path / "small", max_bytes=8 * one)
    expected = read_keys(data, cache, window=6)
    with ClipReader(data, READ, PlanOptions(batch_size=4, window_samples=6), cache=small) as reader:
        found = []
        for batch in reader.epoch(0):
            found.append(batch.keys)
            with FileCache(small.folder, small.max_bytes).counting():  # nothing comes or goes meanwhile
                assert sum(path.stat().st_size for path in small.folder.glob("*.tar")) <= small.max_bytes
    assert found == expected
    assert fetched(web) == 2 * 24


def test_a_cache_too_small_for_a_window_is_refused(
    make: "Maker", many: "Many", web: "WebServer", tmp_path: Path
) -> None:
    data = served(make, many, web, *[3] * 12)
    small = ShardCache(tmp_path / "small", max_bytes=3 * (data.shards[0].n_bytes or 0))
    with pytest.raises(RefusedError, match="no room for shard .* in the cache .*copy the data set"):
        read_keys(data, small)


def test_a_held_copy_is_never_removed(make: "Maker", many: "Many", web: "WebServer", tmp_path: Path) -> None:
    data = served(make, many, web, 3, 3, 3)
    room = ShardCache(tmp_path / "room", max_bytes=2 * max(shard.n_bytes or 0 for shard in data.shards))
    first, second = room.hold(data.shards[0]), room.hold(data.shards[1])
    with pytest.raises(RefusedError, match="no room"):
        room.hold(data.shards[2])
    first.release()
    third = room.hold(data.shards[2])
    assert not first.path.exists()
    assert second.path.exists()
    second.release()
    third.release()


def test_many_processes_fetch_a_shard_once(make: "Maker", many: "Many", web: "WebServer", tmp_path: Path) -> None:
    data = served(make, many, web, 4)
    code = f"""
from pathlib import Path
from threading import Thread
from lps.model.data.shard_cache import ShardCache
from lps.model.data.shards import Shard
held = ShardCache(Path({str(tmp_path / "shared")!r})).hold(
    Shard(uri={data.shards[0].uri!r}, n_bytes={data.shards[0].n_bytes}, sha256={data.shards[0].sha256!r})
)
print(held.path.stat().st_size)
"""
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sizes = {process.communicate()[0].strip() for process in running}
    assert sizes == {str(data.shards[0].n_bytes)}
    assert fetched(web) == 1


def test_what_a_killed_process_left_is_replaced(
    make: "Maker", many: "Many", web: "WebServer", cache: ShardCache
) -> None:
    data = served(make, many, web, 4)
    copy = cache.copy_of(data.shards[0])
    cache.folder.mkdir()
    copy.with_suffix(".part").write_bytes(b"half")
    assert len(read_keys(data, cache)) == 1
    assert [path.name for path in cache.folder.glob("*.part")] == []


FILL = """
import os, signal, sys
from pathlib import Path
from lps.model.data.shard_cache import ShardCache
from lps.model.data.shards import Shard

def die(event, args):
    if event == "os.rename" and str(args[1]).endswith(".tar"):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
folder, uri, n_bytes, digest = sys.argv[1:]
ShardCache(Path(folder)).hold(Shard(uri=uri, n_bytes=int(n_bytes), sha256=digest))
"""


def test_a_process_that_is_killed_when_it_has_fetched_a_shard_leaves_none(
    make: "Maker", many: "Many", web: "WebServer", cache: ShardCache, tmp_path: Path
) -> None:
    data = served(make, many, web, 4)
    expected = read_keys(data, ShardCache(tmp_path / "other"))
    (shard,) = data.shards
    command = [sys.executable, "-c", FILL, str(cache.folder), shard.uri, str(shard.n_bytes), shard.sha256]
    assert subprocess.run(command, check=False, timeout=120).returncode == -9
    copy = cache.copy_of(shard)
    assert copy.with_suffix(".part").stat().st_size == shard.n_bytes
    assert not copy.exists()
    assert read_keys(data, cache) == expected
    assert [path.suffix for path in sorted(cache.folder.glob(f"{copy.stem}*"))] == [".tar"]
    assert fetched(web) == 3


def test_a_cache_folder_that_cannot_be_made_is_named(
    make: "Maker", many: "Many", web: "WebServer", tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnreadableError, match="cannot use the shard cache .*file"):
        read_keys(served(make, many, web, 4), ShardCache(tmp_path / "file"))


def test_fetching_ahead_is_bounded(make: "Maker", many: "Many", web: "WebServer", cache: ShardCache) -> None:
    import numpy as np

    from lps.model.data.prefetch import N_AHEAD

    data = served(make, many, web, *[1] * 20)
    ahead = ShardPrefetcher(data.shards, cache)
    ahead.begin(np.arange(20), np.arange(20))
    for number in range(3):
        ahead.local(number)
        ahead.done(number)
    ahead.close()
    assert 3 <= fetched(web) <= 3 + N_AHEAD


# ---- buckets -------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket() -> Iterator[Callable[[Path], str]]:
    """Return a function that uploads a folder into a bucket and returns its URL there."""
    with bucket_server() as client:
        yield partial(upload_folder, client)


READ_BUCKET = """
import sys
from pathlib import Path
from threading import Thread
from lps.manifests.errors import LpsError
from lps.model.data.shard_cache import ShardCache
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_data import open_data
from lps.model.data.epoch_plan import PlanOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions
from lps.model.data.shard_index import open_shards

if __name__ == "__main__":
    folder, *wanted = sys.argv[1:]
    cache = ShardCache(Path(folder))
    for what, where in zip(wanted[::2], wanted[1::2]):
        try:
            data = open_data(where, "train") if what == "data" else open_shards(where, cache)
            with ClipReader(data, ReadOptions(n_frames=3), PlanOptions(batch_size=4), WorkOptions(n_workers=1),
                            cache=cache) as reader:
                for batch in reader.epoch(0):
                    print(*batch.keys)
        except LpsError as e:
            print(f"{type(e).__name__}: {e}")
        print("end")
"""


def read_bucket(tmp_path: Path, *wanted: str) -> list[str]:
    """Return what each read gives, by pairs of what and where, or its error.

    It is a process of its own: clients of buckets keep threads, connections and settings for ever.
    """
    script = tmp_path / "read_bucket.py"
    script.write_text(READ_BUCKET)
    command = [sys.executable, str(script), str(tmp_path / "bucket-cache"), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=300)
    assert done.returncode == 0, done.stderr
    *ended, rest = done.stdout.split("end\n")
    assert rest == ""
    return [text.strip() for text in ended]


@pytest.mark.slow
def test_shards_in_a_bucket_give_the_batches_of_local_ones(
    make: "Maker", many: "Many", cache: ShardCache, bucket: Callable[[Path], str], tmp_path: Path
) -> None:
    out = make.data_set(many(1, 7, 5))
    expected = "\n".join(" ".join(keys) for keys in read_keys(open_data(str(out), "train"), cache))
    where = bucket(out)
    tars = f"{where}/shards/train/train-{{000000..000002}}.tar"
    assert read_bucket(tmp_path, "data", where, "shards", tars) == [expected, expected]


@pytest.mark.slow
def test_a_bucket_or_a_shard_that_is_not_there_is_named(
    make: "Maker", many: "Many", bucket: Callable[[Path], str], tmp_path: Path
) -> None:
    out = make.data_set(many(3, 3))
    (out / "shards/train/train-000001.tar").unlink()
    where = bucket(out)
    without_tar, nothing = read_bucket(tmp_path, "data", where, "shards", f"{where}/none.tar")
    assert "UnreadableError: cannot read s3://lps-" in without_tar
    assert "train-000001.tar" in without_tar
    assert nothing == f"UnreadableError: cannot read shard {where}/none.tar: no such file"


def test_the_facts_of_a_local_shard_are_left_to_the_disk() -> None:
    shard = Shard(uri="a.tar")
    assert identified(shard) is shard
