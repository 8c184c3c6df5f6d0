"""Window decoding: every frame is the one that decoding from the start gives, in whatever codec and container."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lps.pipeline.video.container import scan_packets
from tests.pipeline.video.window_checks import PARAMS, assert_same_frames, index_of, whole, windows

os.environ.setdefault("SVT_LOG", "1")  # errors only

Image = NDArray[np.uint8]
Write = Callable[..., Path]
Scene = Callable[..., list[Image]]

N_FRAMES, GOP = 90, 20
SIZE = (192, 128)
KEYS = {"g": str(GOP), "keyint_min": str(GOP), "sc_threshold": "0"}


@dataclass(frozen=True, slots=True)
class Coding:
    """One way to write a video, and whether windows of it may be decoded."""

    name: str
    file: str
    codec: str
    n_starts: int
    """Packets at which decoding may start; 0 where no windows are decoded but the whole video."""
    options: Mapping[str, str] = field(default_factory=dict)
    container: Mapping[str, str] = field(default_factory=dict)
    pix_fmt: str = "yuv420p"


def x264(name: str, file: str, n_starts: int = 5, pix_fmt: str = "yuv420p", /, **options: str) -> Coding:
    return Coding(name, file, "libx264", n_starts, {**KEYS, **options}, pix_fmt=pix_fmt)


def x265(name: str, file: str, n_starts: int = 5, more: str = "", pix_fmt: str = "yuv420p") -> Coding:
    params = f"log-level=none:keyint={GOP}:min-keyint={GOP}{more}"
    return Coding(name, file, "libx265", n_starts, {"x265-params": params}, pix_fmt=pix_fmt)


def vpx(name: str, file: str, codec: str, /, **options: str) -> Coding:
    return Coding(name, file, codec, 5, {**KEYS, "deadline": "good", "cpu-used": "5", **options})


PYRAMID = {"bf": "3", "refs": "4", "b_strategy": "0"}
CODINGS = (
    x264("P only", "a.mp4", bf="0", refs="3"),
    x264("B pyramid", "a.mp4", **PYRAMID),
    x264("B pyramid", "a.mkv", **PYRAMID),
    x264("B pyramid", "a.mov", **PYRAMID),
    x264("B pyramid", "a.ts", **PYRAMID),
    x264("order of display is not stored", "a.avi", 0, bf="0"),
    x264("open GOP: one IDR", "a.mp4", 1, **PYRAMID, **{"x264-params": "open-gop=1"}),
    x264("periodic intra refresh: one IDR", "a.mp4", 1, bf="0", **{"x264-params": "intra-refresh=1"}),
    x264("one key frame", "a.mp4", 1, g="1000", keyint_min="1000"),
    x264("GOPs of 3", "a.mp4", 30, g="3", keyint_min="3", bf="2", b_strategy="0"),
    x264("all intra", "a.mp4", 90, g="1"),
    x264("MBAFF", "a.mp4", **PYRAMID, **{"x264-params": "tff=1"}),
    x264("weights, 8 references", "a.mkv", bf="8", refs="8", **{"x264-params": "weightp=2"}),
    x264("High 4:4:4", "a.mp4", 5, "yuv444p", **PYRAMID),
    x264("High 4:4:4 lossless", "a.mp4", 5, "yuv444p", qp="0"),
    x264("High 4:2:2 10 bit", "a.mp4", 5, "yuv422p10le", **PYRAMID),
    x264("CAVLC", "a.mp4", coder="0", **PYRAMID),
    x264("parameters before every key frame", "a.mp4", **PYRAMID, **{"x264-params": "repeat-headers=1:aud=1"}),
    x264("parameters before every key frame", "a.mkv", **PYRAMID, **{"x264-params": "repeat-headers=1:aud=1"}),
    x264("slices", "a.ts", **PYRAMID, **{"x264-params": "slices=4"}),
    x265("open GOP: CRA", "a.mp4"),
    x265("open GOP: CRA", "a.mkv"),
    x265("open GOP: CRA", "a.ts"),
    x265("IDR", "a.mp4", more=":open-gop=0:bframes=4:b-adapt=0"),
    x265("P only", "a.mov", more=":bframes=0"),
    x265("temporal layers", "a.mp4", more=":temporal-layers=3:bframes=4:b-adapt=0"),
    x265("parameters before every key frame", "a.mp4", more=":repeat-headers=1:aud=1"),
    x265("slices", "a.mkv", more=":slices=2:ctu=16"),
    x265("10 bit", "a.mp4", pix_fmt="yuv420p10le"),
    Coding("P only", "a.mp4", "mpeg4", 5, {**KEYS, "bf": "0"}),
    Coding("B", "a.mp4", "mpeg4", 5, {**KEYS, "bf": "2"}),
    Coding("B", "a.mkv", "mpeg4", 5, {**KEYS, "bf": "2"}),
    Coding("quarter pel, four vectors", "a.mov", "mpeg4", 5, {**KEYS, "bf": "2", "flags": "+qpel+mv4"}),
    Coding("order of display is not stored", "a.avi", "mpeg4", 0, {**KEYS, "bf": "0"}),
    Coding("B", "a.mpg", "mpeg2video", 0, {**KEYS, "bf": "2"}),
    Coding("B", "a.ts", "mpeg2video", 0, {**KEYS, "bf": "2"}),
    vpx("", "a.webm", "libvpx"),
    vpx("", "a.webm", "libvpx-vp9"),
    vpx("error resilient", "a.mkv", "libvpx-vp9", **{"error-resilient": "1"}),
    vpx("tiles", "a.mp4", "libvpx-vp9", **{"tile-columns": "1", "lag-in-frames": "16"}),
    Coding("", "a.mp4", "libsvtav1", 5, {"g": "20", "preset": "12", "svtav1-params": "keyint=20"}),
    Coding("", "a.mkv", "libsvtav1", 5, {"g": "20", "preset": "12", "svtav1-params": "keyint=20"}),
    Coding("", "a.mp4", "mjpeg", 90, pix_fmt="yuvj420p"),
    Coding("", "a.mkv", "mjpeg", 90, pix_fmt="yuvj420p"),
    Coding("", "a.mov", "prores_ks", 90, pix_fmt="yuv422p10le"),
    Coding("not known", "a.mkv", "ffv1", 0),
)
"""Numbers of starts are told, so that a fall-back everywhere would be seen."""


@pytest.mark.parametrize("coding", CODINGS, ids=lambda coding: f"{coding.codec} {coding.name} {coding.file}")
def test_windows_are_the_frames_of_the_whole_video(
    write_video: Write, scene: Scene, tmp_path: Path, coding: Coding
) -> None:
    path = write_video(
        tmp_path / coding.file,
        scene(N_FRAMES, *SIZE),
        codec=coding.codec,
        options=coding.options,
        pix_fmt=coding.pix_fmt,
    )
    index = index_of(path)
    assert (index is None) == (coding.n_starts == 0)
    if index is None:
        return
    assert len(index.starts) == coding.n_starts
    assert_same_frames(path)
    group = N_FRAMES // coding.n_starts + 1
    scan = scan_packets(path, PARAMS.limits)
    for first in (3, 33, 75):
        _, cursor = windows(path, scan, [(first, first + 5)])
        assert len(cursor.decoded) <= 1 + group + 5 + 16, "the first packet, a group, the window, what is held back"


def test_pictures_that_no_other_needs_are_left_out_before_the_window(
    write_video: Write, scene: Scene, tmp_path: Path
) -> None:
    for codec in ("libx264", "libx265", "mpeg4"):
        options = {"g": "1000", "bf": "2", "b_strategy": "0", "x265-params": "log-level=none:bframes=2:b-adapt=0"}
        path = write_video(tmp_path / "a.mp4", scene(N_FRAMES, *SIZE), codec=codec, options=options)
        scan = scan_packets(path, PARAMS.limits)
        _, cursor = windows(path, scan, [(80, 85)])
        assert len(cursor.decoded) <= 62, codec
        assert_same_frames(path)


CONTAINERS: list[tuple[str, Mapping[str, str], bool]] = [
    ("a.mp4", {"movflags": "faststart"}, True),
    ("a.mp4", {"movflags": "frag_keyframe+empty_moov"}, True),
    ("a.mp4", {"movflags": "frag_every_frame+empty_moov+default_base_moof"}, True),
    ("a.mp4", {"movflags": "negative_cts_offsets"}, True),
    ("a.mp4", {"use_editlist": "0"}, True),
    ("a.mp4", {"avoid_negative_ts": "disabled"}, True),
    ("a.mkv", {"cluster_time_limit": "100"}, True),
    ("a.ts", {"mpegts_flags": "resend_headers"}, True),
    ("a.flv", {}, True),
    ("a.h264", {}, False),
]


@pytest.mark.parametrize(("name", "options", "expected"), CONTAINERS, ids=str)
def test_containers(
    write_video: Write, scene: Scene, tmp_path: Path, name: str, options: Mapping[str, str], expected: bool
) -> None:
    path = write_video(tmp_path / name, scene(N_FRAMES), options={**KEYS, **PYRAMID}, container=options)
    assert (index_of(path) is not None) == expected
    if expected:
        assert_same_frames(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_rate_that_varies(write_video: Write, scene: Scene, tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    steps = rng.choice([20, 33, 40, 70, 400], N_FRAMES, p=[0.3, 0.3, 0.2, 0.18, 0.02])
    times = np.cumsum(steps).tolist()
    options = {**KEYS, **PYRAMID}
    path = write_video(tmp_path / name, scene(N_FRAMES), pts=times, options=options, time_base=Fraction(1, 1000))
    assert_same_frames(path, length=25, n_starts=8)
    assert sum(bool(frame.breaks) for frame in whole(path, scan_packets(path, PARAMS.limits))) > 1, "there are holes"


def test_cuts_within_windows(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    images = [image for seed in range(6) for image in scene(15, seed=seed)]
    path = write_video(tmp_path / "a.mp4", images, options={**KEYS, **PYRAMID})
    assert_same_frames(path, length=40)


# ---- real footage ----------------------------------------------------------------------------------------------------

WHOLE = {
    "corrupted_undecodable.mp4": "packets are missing",
    "crowd_raw_h264_no_container_960x366.h264": "no time stamps",
    "three_people_walking_gif_480x270.gif": "a codec of which nothing is known here",
}
"""Files of which no window is decoded; beside these, MPEG-1 and MPEG-2."""
QUICK = (
    "noface_vp9_no_duration_1280x720.webm",
    "face_then_noface_hevc_vfr_960x540.mov",
    "man_speech_editlist_1280x720.mp4",
    "tiny_unordered_pts_4f.mov",
)


def check_footage(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.suffix in (".md", ".tsv"):
            continue
        if path.name in WHOLE or path.suffix == ".mpg":
            assert index_of(path) is None, path.name
        else:
            assert_same_frames(path, length=30, n_starts=1, n_passes=2)


@pytest.mark.media
@pytest.mark.parametrize("name", QUICK)
def test_some_footage(shared: Callable[[str], Path], name: str) -> None:
    assert_same_frames(shared("media/videos") / name, length=20, n_starts=2)


@pytest.mark.media
@pytest.mark.slow
@pytest.mark.parametrize("folder", ["videos", "reals"])
def test_all_footage(shared: Callable[[str], Path], folder: str) -> None:
    check_footage(shared(f"media/{folder}"))
