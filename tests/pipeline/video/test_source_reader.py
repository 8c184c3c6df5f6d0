"""Remote videos as local files: kept between two uses in a private, bounded folder, and read anew where that fails."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.records import VideoResult
from lps.manifests.storage import Store
from lps.pipeline.clips import process as clips
from lps.pipeline.config.params import Limits, Params
from lps.pipeline.faces.detector import Faces
from lps.pipeline.job.shards import ShardVideo
from lps.pipeline.job.tasks import process_source
from lps.pipeline.tools.demo_videos import make_texture_video
from lps.pipeline.video import source_reader
from lps.pipeline.video.probe import holds_video, probe_file
from lps.pipeline.video.source_reader import SourceReader, SourceRef
from tests.builders import folder_video

A = SourceRef("real/a.mp4", "first", 1000)
DATA = bytes(range(250)) * 4


@pytest.fixture
def bucket(tmp_path: Path) -> Store:
    """Return a store that is not local, with one file."""
    store = Store(f"memory://{tmp_path.name}")
    store.publish(A.uri, DATA)
    return store


@pytest.fixture
def reader(bucket: Store, tmp_path: Path) -> SourceReader:
    return SourceReader(bucket, str(tmp_path), cache_bytes=2500)


def read(reader: SourceReader, file: SourceRef, *, keep: bool = True) -> bytes:
    with reader.local(file, keep=keep) as path:
        assert path.suffix == ".mp4"
        return path.read_bytes()


def copies(reader: SourceReader) -> list[Path]:
    found = reader.cache_folder.glob("*") if reader.cache_folder.exists() else ()
    return sorted(path for path in found if path.suffix != ".lock")


def test_a_file_is_fetched_once_for_all_who_ask(reader: SourceReader) -> None:
    other = SourceReader(reader.store, reader.scratch, reader.cache_bytes)
    assert read(reader, A) == read(other, A) == read(other, A, keep=False) == DATA
    assert (reader.n_fetched, other.n_fetched) == (1000, 0)
    assert [path.stat().st_mode & 0o777 for path in (reader.cache_folder, *copies(reader))] == [0o700, 0o600]


def test_another_mark_is_another_file(reader: SourceReader) -> None:
    read(reader, A)
    reader.store.publish(A.uri, DATA[::-1])
    assert read(reader, SourceRef(A.uri, "second", 1000)) == DATA[::-1]
    assert read(reader, A) == DATA  # who asks for the one that was listed


def test_what_will_not_be_asked_for_again_is_forgotten(reader: SourceReader) -> None:
    read(reader, A)
    assert reader.forget(A)
    assert not reader.forget(A)
    assert copies(reader) == []


@pytest.mark.parametrize("file", [SourceRef(A.uri), SourceRef("real/a.part", "x"), SourceRef("real/a.mp4?x=1", "x")])
def test_what_cannot_be_told_apart_is_not_kept(reader: SourceReader, file: SourceRef) -> None:
    reader.store.publish(file.uri, DATA)
    for _ in range(2):
        with reader.local(file) as path:
            assert path.read_bytes() == DATA
    assert reader.n_fetched == 2000
    assert copies(reader) == []


def test_the_folder_stays_within_its_bound(reader: SourceReader) -> None:
    files = [SourceRef(f"{name}.mp4", "first", 1000) for name in "abcdef"]
    for file in files:
        reader.store.publish(file.uri, DATA)
    with reader.local(files[0]) as first, reader.local(files[1]) as second:
        assert read(reader, files[2]) == DATA  # no room: read without the cache
        assert copies(reader) == sorted([first, second])
    for file in files:
        assert read(reader, file) == DATA
        assert sum(path.stat().st_size for path in copies(reader)) <= 2500
    assert read(reader, SourceRef("real/a.mp4", "large", 9999)) == DATA


def test_without_room_of_its_own_nothing_is_kept(reader: SourceReader, monkeypatch: pytest.MonkeyPatch) -> None:
    reader.cache_folder.parent.write_text("in the way")
    assert read(reader, A) == read(reader, A) == DATA
    reader.cache_folder.parent.unlink()
    reader.cache_folder.mkdir(parents=True, mode=0o755)  # others can read it
    assert read(reader, A) == DATA
    reader.cache_folder.chmod(0o700)
    monkeypatch.setattr(source_reader, "MIN_FREE_SHARE", 1.0)
    assert read(reader, A) == DATA
    assert copies(reader) == []
    assert reader.n_fetched == 4000


def test_a_full_disk_means_no_cache(reader: SourceReader, monkeypatch: pytest.MonkeyPatch) -> None:
    def truncate(path: Path, n_bytes: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "truncate", truncate)
    assert read(reader, A) == DATA
    assert copies(reader) == []


def test_a_file_that_the_store_does_not_give_is_named(reader: SourceReader) -> None:
    with pytest.raises(UnreadableError, match=r"real/none\.mp4"):
        read(reader, SourceRef("real/none.mp4", "x", 10))
    assert copies(reader) == []


def test_a_scratch_folder_that_is_not_there_is_named(reader: SourceReader, tmp_path: Path) -> None:
    reader.scratch = str(tmp_path / "none")
    with pytest.raises(UnreadableError, match=r"^cannot keep copies of videos in the folder .*none: No such file"):
        read(reader, A)


def test_local_files_are_themselves(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(DATA)
    reader = SourceReader(Store(str(tmp_path)), str(tmp_path / "scratch"), 10**6)
    with reader.local(SourceRef("a.mp4", "x", 1000)) as path:
        assert path == tmp_path / "a.mp4"
    assert reader.n_fetched == 0


def test_copies_of_what_will_not_be_processed_do_not_stay(reader: SourceReader) -> None:
    assert probe_file(reader, A, Limits()).code == "E_PROBE"
    assert not holds_video(reader, A, Limits())
    assert copies(reader) == []
    assert probe_file(reader, SourceRef(A.uri, "x", 1000), Limits(max_bytes=10)).code == "E_LIMIT"
    assert reader.n_fetched == 2000


def test_look_and_probe_read_a_video_once(reader: SourceReader, tmp_path: Path) -> None:
    make_texture_video(tmp_path / "video.mp4", n_frames=3, width=64, height=64)
    data = (tmp_path / "video.mp4").read_bytes()
    reader.cache_bytes = 2 * len(data)
    reader.store.publish("odd.xyz", data)
    file = SourceRef("odd.xyz", "first", len(data))
    assert holds_video(reader, file, Limits())
    assert probe_file(reader, file, Limits()).n_frames_promised == 3
    with reader.local(file, keep=False) as path:
        assert path.read_bytes() == data
    assert reader.n_fetched == len(data)


KILLED = """
import os, signal, sys
from pathlib import Path
from lps.manifests.storage import Store
from lps.pipeline.video.source_reader import SourceReader, SourceRef

def die(event, args):
    if event == "os.rename" and str(args[1]).endswith(".mp4"):
        os.kill(os.getpid(), signal.SIGKILL)

store = Store("memory://killed")
store.publish("real/a.mp4", bytes(1000))
sys.addaudithook(die)
with SourceReader(store, sys.argv[1], 2500).local(SourceRef("real/a.mp4", "first", 1000)):
    pass
"""


def test_a_worker_that_is_killed_when_it_has_fetched_a_video_leaves_no_copy(reader: SourceReader) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(reader.scratch)], check=False, timeout=100)
    assert ended.returncode == -signal.SIGKILL
    assert [path.suffix for path in copies(reader)] == [".part"]
    other = SourceRef("other.mp4", "first", 2000)  # with what was left there is no room
    reader.store.publish(other.uri, DATA * 2)
    assert read(reader, other) == DATA * 2
    assert [path.suffix for path in copies(reader)] == [".mp4"]


def see_nothing(images: object, *, dense: bool) -> list[Faces]:
    raise AssertionError


def test_a_copy_that_is_not_what_the_plan_knows_is_read_again(
    reader: SourceReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hashlib import sha256

    def processed(path: Path, video_id: bytes, detect: object, params: Params, **how: object) -> VideoResult:
        assert path.read_bytes() == DATA
        return VideoResult(video_id=video_id, outcome=None)  # type: ignore[arg-type]

    monkeypatch.setattr(clips, "process_video", processed)
    video = ShardVideo(
        source=folder_video(A.uri, 0),
        n_bytes=1000,
        sha256=sha256(DATA).digest(),
        original_video_id=None,
        mark=A.mark,
    )
    with reader.local(A) as path:
        path.write_bytes(b"something else")
    process_source(reader, video, see_nothing, Params())
    assert copies(reader) == []
    reader.store.publish(A.uri, b"changed")
    with pytest.raises(RefusedError, match=r"source changed since the plan was made: real/a\.mp4"):
        process_source(reader, video, see_nothing, Params())
