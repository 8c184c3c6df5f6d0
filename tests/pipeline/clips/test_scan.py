"""Windows against the whole video: the same clips and codes, from fewer frames."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lps.manifests.canonical import digest16
from lps.manifests.codes import Code, Status
from lps.manifests.records import VideoResult
from lps.pipeline.clips.places import hash_places, start_frames
from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import ALL_CLIPS, DecodeParams, Params
from tests.pipeline.clips.test_process import PARAMS, coded_packets, named, overwrite, see, shot

Image = NDArray[np.uint8]
Write = Callable[..., Path]

LENGTH = PARAMS.clip_frames
OPTIONS = {"g": "20", "keyint_min": "20", "sc_threshold": "0", "bf": "2", "b_strategy": "0"}
FASTSTART = {"movflags": "faststart"}


def both(path: Path, params: Params, name: str = "a") -> tuple[VideoResult, VideoResult]:
    """Return what comes of a video with windows allowed, and decoded whole."""
    window, whole = (
        process_video(path, digest16(name), see, replace(params, decode=DecodeParams(scan=scan)))
        for scan in ("window", "whole")
    )
    assert whole.outcome.scan == "whole"
    return window, whole


def assert_same(window: VideoResult, whole: VideoResult) -> None:
    """The results differ only in what was decoded."""
    assert window.clips == whole.clips
    n_decoded = whole.outcome.n_frames_decoded
    assert replace(window.outcome, scan="whole", n_frames_decoded=n_decoded) == whole.outcome


def without_face(n: int, seed: int = 0) -> list[Image]:
    return shot(n, seed=seed, at=[])


@pytest.mark.parametrize("clips", [1, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_good_videos(write_video: Write, tmp_path: Path, clips: int, seed: int) -> None:
    path = write_video(tmp_path / "a.mp4", shot(400), options=OPTIONS)
    window, whole = both(path, replace(PARAMS, clips=clips, seed=seed))
    assert_same(window, whole)
    assert (window.outcome.status, window.outcome.scan, len(window.clips)) == (Status.OK, "window", clips)
    assert whole.outcome.n_frames_decoded == 400
    assert window.outcome.header.n_frames_container == 400
    places = len(hash_places(400, 25)) + clips
    decoded = window.outcome.n_frames_decoded
    assert decoded is not None
    assert places <= decoded <= 1 + 80 + clips * (LENGTH + 20 + 8), "two seconds for hashes, a group and a clip each"


def test_all_clips_are_of_the_whole_video(write_video: Write, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", shot(60), options=OPTIONS)
    window, whole = both(path, replace(PARAMS, clips=ALL_CLIPS))
    assert window == whole


def moved(n: int, k: int) -> list[Image]:
    """Return the k-th shot of a video: after it, the next one is a cut."""
    return shot(n, seed=k, at=[(40 + 50 * (k % 3), 40 + 40 * (k % 2))])


CASES: list[tuple[str, Sequence[Image], Code | None]] = [
    ("no face", without_face(200), Code.E_NO_FACE),
    ("a face at the end", [*without_face(180), *shot(20)], None),
    ("a face before the start", [*shot(15), *without_face(185)], None),
    ("a short stretch with a face before the start", [*without_face(33), *shot(12), *without_face(155)], None),
    (
        "cuts everywhere",
        [image for k in range(8) for image in moved(8, k)],
        Code.E_NO_CONTIGUOUS_RUN,
    ),
    ("too short", shot(LENGTH - 1), Code.E_TOO_SHORT),
    ("as short as can be", shot(LENGTH), None),
    ("one frame", shot(1), Code.E_TOO_SHORT),
]


@pytest.mark.parametrize(("frames", "code"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("clips", [1, 3])
def test_videos_that_are_searched(
    write_video: Write, tmp_path: Path, frames: Sequence[Image], code: Code | None, clips: int
) -> None:
    path = write_video(tmp_path / "a.mp4", frames, options=OPTIONS)
    params = replace(PARAMS, clips=clips)
    name = (
        named(lambda starts: min(starts) > min(50, len(frames) // 4), len(frames), params) if len(frames) > 99 else "a"
    )
    window, whole = both(path, params, name)
    assert_same(window, whole)
    assert window.outcome.code == code
    assert window.outcome.scan == "window"


def test_a_cut_within_the_window(write_video: Write, tmp_path: Path) -> None:
    name = named(lambda starts: min(starts) > 80, 200)
    cut = min(start_frames(digest16(name), 200, PARAMS)) + 4
    path = write_video(
        tmp_path / "a.mp4",
        [*moved(cut, 0), *moved(200 - cut, 1)],
        options=OPTIONS,
    )
    window, whole = both(path, PARAMS, name)
    assert_same(window, whole)
    assert window.clips[0].frame_idx[0] == cut


def test_damage_within_the_window_is_told_as_by_the_whole_video(write_video: Write, tmp_path: Path) -> None:
    name = named(lambda starts: 100 < min(starts) < 150, 200)
    start = min(start_frames(digest16(name), 200, PARAMS))
    path = write_video(tmp_path / "a.mp4", shot(200), options={**OPTIONS, "bf": "0"}, container=FASTSTART)
    overwrite(path, [coded_packets(path)[start + 3]])
    window, whole = both(path, PARAMS, name)
    assert window == whole
    assert window.outcome.scan == "whole"
    assert (window.outcome.status, window.outcome.code) == (Status.PARTIAL, Code.E_DECODE)


def test_damage_elsewhere_is_not_seen(write_video: Write, tmp_path: Path) -> None:
    """By design: nobody decodes it. The clips are the same."""
    name = named(lambda starts: 100 < min(starts) < 120, 200)
    path = write_video(tmp_path / "a.mp4", shot(200), options={**OPTIONS, "bf": "0"}, container=FASTSTART)
    undamaged, _ = both(path, PARAMS, name)
    at, size = coded_packets(path)[185]
    overwrite(path, [(at + size // 4, size - size // 4)])
    window, whole = both(path, PARAMS, name)
    assert window == undamaged
    assert (window.outcome.status, window.outcome.scan) == (Status.OK, "window")
    assert (whole.outcome.status, whole.outcome.code) == (Status.PARTIAL, Code.E_DECODE)
    assert window.clips == whole.clips


def test_packets_that_are_missing_are_seen_anywhere(write_video: Write, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", shot(200), options={**OPTIONS, "bf": "0"}, container=FASTSTART)
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * 0.95)])
    window, whole = both(path, PARAMS)
    assert window == whole
    assert window.outcome.code == Code.E_TRUNCATED
