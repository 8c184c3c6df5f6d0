"""What a probe tells of where decoding may start."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lps.manifests.storage import open_store
from lps.pipeline.video.probe import Probe, probe_file
from lps.pipeline.video.source_reader import SourceReader, SourceRef
from tests.builders import LIMITS

Write = Callable[..., Path]
Scene = Callable[..., list[NDArray[np.uint8]]]


def probe(path: Path) -> Probe:
    return probe_file(SourceReader(open_store(str(path.parent))), SourceRef(path.name), LIMITS)


@pytest.mark.parametrize("distance", [1, 10, 100])
def test_frames_from_the_key_frame_before(write_video: Write, scene: Scene, tmp_path: Path, distance: int) -> None:
    options = {"g": str(distance), "keyint_min": str(distance), "sc_threshold": "0"}
    path = write_video(tmp_path / "a.mp4", scene(35), options=options)
    assert probe(path).key_distance == pytest.approx(np.mean([number % distance for number in range(35)]), abs=1e-3)


def test_a_video_that_decodes_only_whole(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(35), options={"g": "10", "x264-params": "intra-refresh=1", "bf": "0"})
    found = probe(write_video(tmp_path / "a.avi", scene(35), options={"bf": "0"}))
    assert found.key_distance == found.n_frames_promised == 35  # no order of display is stored
    assert probe(path).key_distance == 17.0  # only the first frame is a start
