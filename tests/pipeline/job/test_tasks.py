"""What a worker does with one video whose file changed, or cannot be read any more, since the plan was made."""

import errno
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lps.manifests.codes import Code, Status
from lps.manifests.errors import RefusedError
from lps.manifests.storage import Store
from lps.pipeline.config.params import Params
from lps.pipeline.faces.detector import Faces, no_faces
from lps.pipeline.job.shards import ShardVideo
from lps.pipeline.job.tasks import process_source
from tests.builders import folder_video

VIDEO = ShardVideo(source=folder_video("a.mp4", 0), n_bytes=1, sha256=bytes(32), original_video_id=None)


def see_nothing(images: NDArray[np.uint8], *, dense: bool) -> list[Faces]:
    return [no_faces() for _ in images]


def test_a_file_that_cannot_be_read_any_more_is_an_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", refuse)
    outcome = process_source(Store(str(tmp_path)), VIDEO, see_nothing, Params()).outcome
    assert (outcome.status, outcome.code, outcome.detail) == (Status.FAILED, Code.E_UNREADABLE, "Input/output error")


@pytest.mark.parametrize("data", [b"changed", None], ids=["other bytes", "gone"])
def test_a_file_that_changed_stops_the_run(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(RefusedError, match=r"source changed since the plan was made: a\.mp4"):
        process_source(Store(str(tmp_path)), VIDEO, see_nothing, Params())
