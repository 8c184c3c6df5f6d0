"""What a worker does with a video whose file changed since the plan was made; which files share a task."""

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lps.manifests.codes import Code, Status
from lps.manifests.errors import RefusedError
from lps.manifests.records import Outcome, VideoResult
from lps.manifests.storage import Store
from lps.pipeline.config.params import Params
from lps.pipeline.faces.detector import Faces, no_faces
from lps.pipeline.job.pool import file_jobs
from lps.pipeline.job.shards import ShardVideo
from lps.pipeline.job.tasks import in_place, process_source
from lps.pipeline.video.source_reader import SourceReader
from tests.builders import folder_video, still_clip

VIDEO = ShardVideo(source=folder_video("a.mp4", 0), n_bytes=1, sha256=bytes(32), original_video_id=None)


def see_nothing(images: NDArray[np.uint8], *, dense: bool) -> list[Faces]:
    return [no_faces() for _ in images]


def test_a_file_that_cannot_be_read_any_more_is_an_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "open", refuse)
    outcome = process_source(SourceReader(Store(str(tmp_path))), VIDEO, see_nothing, Params()).outcome
    assert (outcome.status, outcome.code, outcome.detail) == (Status.FAILED, Code.E_UNREADABLE, "Input/output error")


@pytest.mark.parametrize("data", [b"changed", None], ids=["other bytes", "gone"])
def test_a_file_that_changed_stops_the_run(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(RefusedError, match=r"source changed since the plan was made: a\.mp4"):
        process_source(SourceReader(Store(str(tmp_path))), VIDEO, see_nothing, Params())


def test_images_of_a_result_pickle_without_a_copy() -> None:
    clips = (still_clip(2, frames=(b"one", b"two")), still_clip(1, frames=(b"three",)))
    result = VideoResult(video_id=bytes(16), outcome=Outcome(status=Status.OK), clips=clips)
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(in_place(result), protocol=5, buffer_callback=buffers.append)
    assert [bytes(buffer.raw()) for buffer in buffers] == [b"one", b"two", b"three"]
    views = [memoryview(buffer) for buffer in buffers]  # as Ray gives them back
    assert pickle.loads(data, buffers=views) == result


MIB = 1 << 20


@pytest.mark.parametrize(
    ("sizes", "width", "expected"),
    [
        ([1] * 100, 1, [25] * 4),  # four tasks for each worker
        ([1] * 100, 8, [3] * 33 + [1]),
        ([1] * 7, 2, [1] * 7),
        ([1] * 400, 2, [32] * 12 + [16]),
        ([40 * MIB, 1, 1, 20 * MIB, 20 * MIB, None, 1, 1] * 10, 1, [1, 3, 1, 1, 2] * 10),
    ],
    ids=["few", "few for many workers", "too few", "many", "large"],
)
def test_small_files_share_a_task(sizes: list[int | None], width: int, expected: list[int]) -> None:
    asked: list[str] = []
    files = {f"{k:04d}.mp4": size for k, size in enumerate(sizes)}
    jobs = list(file_jobs(files, lambda label, uris: asked.extend(uris), width, 7.0))
    for one in jobs:
        one.submit("attempt")
    assert asked == list(files)
    assert [max(1, len(one.parts)) for one in jobs] == expected
    assert {one.deadline_seconds for one in jobs} == {7.0}
    assert len({one.name for one in jobs}) == len(jobs)
    assert [part.name for one in jobs for part in one.parts or (one,)] == list(files)
