"""Decoding: true indices and time stamps, rotation, pixel aspect and formats, and the header."""

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

import lps.pipeline.video.frame
from lps.manifests.errors import VideoFault
from lps.pipeline.config.params import Limits, Params
from lps.pipeline.video.container import count_packets, read_header
from lps.pipeline.video.decode import DecodeStats, decode
from lps.pipeline.video.frame import Frame
from tests.builders import LIMITS, breaks, decoded, decoded_by_pyav, psnr

Image = NDArray[np.uint8]
Write = Callable[..., Path]
Scene = Callable[..., list[Image]]
SetMatrix = Callable[[Path, Sequence[int]], None]


ONE = 1 << 16
UPRIGHT = (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
TURNS = {
    0: UPRIGHT,
    90: (0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30),
    180: (-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30),
    270: (0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30),
}
"""Display matrices of the track header, by clockwise degrees."""
MIRRORED = {
    0: (-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30),
    180: (ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30),
    90: (0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30),
    270: (0, -ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30),
}
"""The same turns, and the picture mirrored left to right after them."""


def same_scene(frames: Sequence[Frame], source: Sequence[Image]) -> bool:
    """Each frame is nearest to the source picture of its index."""
    for frame in frames:
        around = range(max(0, frame.index - 3), min(len(source), frame.index + 4))
        best = max(around, key=lambda k: psnr(frame.rgb(), source[k]))
        if best != frame.index:
            return False
    return True


# ---- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_every_frame_has_its_index_and_time(write_video: Write, scene: Scene, tmp_path: Path, b_frames: str) -> None:
    source = scene(50)
    path = write_video(tmp_path / "a.mp4", source, options={"bf": b_frames, "crf": "10"})
    frames, stats = decoded(path)
    assert [f.index for f in frames] == list(range(50))
    assert [f.pts_seconds for f in frames] == [k / 25 for k in range(50)]
    assert len({b.pts_ticks - a.pts_ticks for a, b in zip(frames, frames[1:], strict=False)}) == 1
    assert same_scene(frames, source)
    assert breaks(frames) == [0]
    assert stats.is_vfr is False
    assert not stats.pts_nominal
    assert (stats.n_frames, stats.n_errors) == (50, 0)


def test_b_frames_are_in_the_file_that_tests_them(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(50), options={"bf": "3", "b_strategy": "0"})
    with av.open(str(path)) as container:
        coded = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    assert coded != sorted(coded)
    assert [f.pts_ticks for f in decoded(path)[0]] == sorted(coded)


def test_variable_rate_keeps_true_times(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    steps = [33, 34, 66, 33, 50, 67, 33, 33, 66, 34] * 4
    times = [int(t) for t in np.cumsum([120, *steps])]
    frames, stats = decoded(write_video(tmp_path / "a.mkv", scene(41), pts=times))
    assert [round(f.pts_seconds * 1000) for f in frames] == times
    assert stats.is_vfr is True
    assert breaks(frames) == [0]


def test_ntsc_rounded_to_milliseconds_is_constant_rate(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    times = [round(k * 1001 / 30) for k in range(60)]
    frames, stats = decoded(write_video(tmp_path / "a.mkv", scene(60), pts=times))
    assert stats.is_vfr is False
    assert frames[59].pts_seconds == 1.969


def test_one_frame_has_no_rate_to_vary(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    assert decoded(write_video(tmp_path / "a.mp4", scene(1)))[1].is_vfr is None


@pytest.mark.parametrize("name", ["a.h264", "a.avi"])
def test_streams_without_times_of_display_get_counted_ones(
    write_video: Write, scene: Scene, tmp_path: Path, name: str
) -> None:
    source = scene(50)
    path = write_video(tmp_path / name, source, options={"bf": "3", "b_strategy": "0", "crf": "10"})
    frames, stats = decoded(path)
    assert stats.pts_nominal
    assert [f.pts_seconds for f in frames] == pytest.approx([k / 25 for k in range(50)])
    assert breaks(frames) == [0]
    assert same_scene(frames, source)


def test_a_hole_in_time_breaks(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    times = [40 * k for k in range(60) if k not in {20, 40, 41, 42}]
    frames, _ = decoded(write_video(tmp_path / "a.mkv", scene(56, speed=0.1), pts=times))
    assert breaks(frames) == [0, 20, 39]


def test_where_the_rate_varies_only_a_wide_hole_breaks(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    times = [40 * k for k in range(60) if k not in {5, 9, 14, 20, 26, 40, 41, 42}]
    frames, stats = decoded(write_video(tmp_path / "a.mkv", scene(52, speed=0.1), pts=times))
    assert breaks(frames) == [0, 35], "a frame that a recorder dropped now and then is variable rate, three are a hole"
    assert stats.is_vfr is True


def test_times_that_go_back_break(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    parts = [write_video(tmp_path / f"{k}.ts", scene(30, speed=0.1), options={"bf": "0"}) for k in range(2)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, _ = decoded(joined)
    steps = np.diff([f.pts_ticks for f in frames])
    assert set(np.nonzero(steps <= 0)[0] + 1) <= set(breaks(frames))
    assert 30 in breaks(frames)


# ---- pixels ----------------------------------------------------------------------------------------------------------


def test_pixels_are_those_of_plain_pyav(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(12))
    expected = decoded_by_pyav(path)
    for frame in decoded(path)[0]:
        assert np.array_equal(frame.rgb(), expected[frame.pts_ticks])


@pytest.mark.parametrize(("codec", "pix_fmt"), [("libx265", "yuv420p10le"), ("ffv1", "yuv422p10le"), ("ffv1", "gray")])
def test_other_pixel_formats(write_video: Write, scene: Scene, tmp_path: Path, codec: str, pix_fmt: str) -> None:
    source = scene(8)
    if pix_fmt == "gray":
        source = [np.repeat(image[..., :1], 3, axis=2) for image in source]
    options = {"x265-params": "log-level=none:crf=8"} if codec == "libx265" else {}
    path = write_video(tmp_path / "a.mkv", source, codec=codec, pix_fmt=pix_fmt, options=options)
    frames, _ = decoded(path)
    assert read_header(path, LIMITS).pix_fmt == pix_fmt
    assert breaks(frames) == [0]
    assert frames[0].rgb().dtype == np.uint8
    assert min(psnr(f.rgb(), image) for f, image in zip(frames, source, strict=True)) > 28


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotation_is_applied(
    write_video: Write, scene: Scene, set_display_matrix: SetMatrix, tmp_path: Path, turn: int, mirrored: bool
) -> None:
    path = write_video(tmp_path / "a.mp4", scene(4, 96, 64))
    coded = list(decoded_by_pyav(path).values())
    set_display_matrix(path, (MIRRORED if mirrored else TURNS)[turn])
    frames, stats = decoded(path)
    assert stats.rotation == turn
    for frame, image in zip(frames, coded, strict=True):
        assert frame.rotation == turn
        assert np.array_equal(frame.rgb(), np.rot90(image, -turn // 90))
        assert frame.size == ((96, 64) if turn % 180 == 0 else (64, 96))
        assert frame.rgb().shape == (frame.size[1], frame.size[0], 3)
        assert frame.small(48).shape == ((32, 48, 3) if turn % 180 == 0 else (48, 32, 3))


def test_a_display_matrix_of_zeros_turns_nothing(
    write_video: Write, scene: Scene, set_display_matrix: SetMatrix, tmp_path: Path
) -> None:
    path = write_video(tmp_path / "a.mp4", scene(4))
    set_display_matrix(path, (0,) * 9)
    assert decoded(path)[1].rotation == 0


@pytest.mark.media
@pytest.mark.parametrize(
    ("name", "turn"), [("rotation_0", 0), ("rotation_180", 180), ("rotation_minus90", 90), ("rotation_plus90", 270)]
)
def test_rotation_of_camera_files(shared: Callable[[str], Path], name: str, turn: int) -> None:
    path = shared(f"media/videos/noface_{name}_3f.mov")
    frames, stats = decoded(path)
    coded = list(decoded_by_pyav(path).values())
    assert stats.rotation == turn
    assert len(frames) == 3
    for frame, image in zip(frames, coded, strict=True):
        assert np.array_equal(frame.rgb(), np.rot90(image, -turn // 90))


@pytest.mark.media
@pytest.mark.parametrize("name", ["minus90", "plus90"])
def test_rotated_camera_files_are_upright(shared: Callable[[str], Path], name: str) -> None:
    """The letters of a key of the unrotated film are found in the rotated ones, and best as they come."""

    def gray(which: str) -> Image:
        first = decoded(shared(f"media/videos/noface_rotation_{which}_3f.mov"))[0][0]
        return np.asarray(cv2.cvtColor(first.rgb(), cv2.COLOR_RGB2GRAY), np.uint8)

    key = gray("0")[248:282, 450:520]
    keys = [cv2.resize(key, None, fx=scale, fy=scale) for scale in (0.8, 0.9, 1.0, 1.1, 1.2)]
    film = gray(name)

    def found(quarter_turns: int) -> float:
        turned = np.ascontiguousarray(np.rot90(film, quarter_turns))
        return max(float(cv2.matchTemplate(turned, k, cv2.TM_CCOEFF_NORMED).max()) for k in keys)

    assert found(0) > 0.1 + max(found(k) for k in (1, 2, 3))


@pytest.mark.parametrize(
    ("stored", "turn", "expected"),
    [
        (Fraction(4, 3), 0, (4 / 3, 1.0)),
        (Fraction(4, 3), 90, (1.0, 4 / 3)),
        (Fraction(8, 9), 180, (8 / 9, 1.0)),
        (Fraction(8, 9), 270, (1.0, 8 / 9)),
        (None, 0, (1.0, 1.0)),
        (Fraction(20, 1), 0, (1.0, 1.0)),
    ],
)
def test_pixel_aspect(
    write_video: Write,
    scene: Scene,
    set_display_matrix: SetMatrix,
    tmp_path: Path,
    stored: Fraction | None,
    turn: int,
    expected: tuple[float, float],
) -> None:
    path = write_video(tmp_path / "a.mp4", scene(2, 96, 72), pixel_aspect=stored)
    set_display_matrix(path, TURNS[turn])
    frame = decoded(path)[0][0]
    assert frame.aspect_xy == pytest.approx(expected)
    header = read_header(path, LIMITS)
    assert Fraction(header.sar_num or 0, header.sar_den or 1) == (stored or 1)
    width, height = np.array(frame.size) * frame.aspect_xy
    small = frame.small(64)
    assert max(small.shape) == 64
    assert small.shape[1] / small.shape[0] == pytest.approx(width / height, rel=0.03)


def test_small_frames_are_not_enlarged(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    frame = decoded(write_video(tmp_path / "a.mp4", scene(1)))[0][0]
    assert frame.small(640).shape == (64, 96, 3)
    assert psnr(frame.small(640), frame.rgb()) > 40
    assert frame.small(48).shape == (32, 48, 3)


# ---- header ----------------------------------------------------------------------------------------------------------


def test_header(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(45), rate=Fraction(30_000, 1001), pixel_aspect=Fraction(4, 3))
    header = read_header(path, LIMITS)
    assert (header.container, header.codec, header.pix_fmt) == ("mov", "h264", "yuv420p")
    assert (header.width, header.height, header.rotation) == (96, 64, None)
    assert (header.fps_num, header.fps_den) == (30_000, 1001)
    assert (header.sar_num, header.sar_den) == (4, 3)
    assert (header.n_frames_container, header.n_video_streams, header.has_audio) == (45, 1, False)
    assert header.duration_s == pytest.approx(1.5015, abs=1e-3)
    assert Fraction(header.time_base_num or 0, header.time_base_den or 1) * 30_000 == 1
    assert header.bitrate_bps is not None
    assert count_packets(path, LIMITS) == 45


def test_claims_beyond_what_a_manifest_holds_are_dropped(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", scene(5), options={"bf": "0"})
    data = bytearray(path.read_bytes())
    length = data.index(b"strh") + 8 + 32
    assert struct.unpack("<I", data[length : length + 4]) == (5,)
    data[length : length + 4] = b"\xff" * 4
    path.write_bytes(bytes(data))
    header = read_header(path, Limits(max_seconds=1e12))
    assert header.n_frames_container is None
    assert len(decoded(path, Limits(max_seconds=1e12))[0]) == 5


@pytest.mark.skipif(not Path("/proc/self/task").exists() or os.cpu_count() == 1, reason="threads are counted in /proc")
def test_conversion_starts_no_threads(
    write_video: Write, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task owns one core; libswscale would take them all."""
    frame = decoded(write_video(tmp_path / "v.mp4", scene(2)))[0][1]
    before = len(list(Path("/proc/self/task").iterdir()))
    for name in ("_TO_RGB", "_SHRINK"):
        monkeypatch.setattr(lps.pipeline.video.frame, name, VideoReformatter())
    frame.rgb()
    frame.small(32)
    assert len(list(Path("/proc/self/task").iterdir())) == before


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_region_has_the_pixels_of_the_whole(write_video: Write, scene: Scene, tmp_path: Path, turn: int) -> None:
    path = write_video(tmp_path / "v.mp4", scene(2))
    frame = replace(decoded(path)[0][1], rotation=turn)
    whole, (width, height) = frame.rgb(), frame.size
    random = np.random.default_rng(turn)
    for _ in range(50):
        x0, y0 = int(random.integers(0, width - 1)), int(random.integers(0, height - 1))
        x1, y1 = int(random.integers(x0 + 1, width + 1)), int(random.integers(y0 + 1, height + 1))
        assert np.array_equal(frame.region(x0, y0, x1, y1), whole[y0:y1, x0:x1]), (x0, y0, x1, y1)


@pytest.mark.media
def test_regions_of_camera_files_have_the_pixels_of_the_whole(shared: Callable[[str], Path]) -> None:
    paths = sorted(
        path for path in shared("media/videos").iterdir() if path.suffix in (".mp4", ".mov", ".webm", ".mkv")
    )
    random = np.random.default_rng(0)
    seen = set()
    for path in paths:
        try:
            frame = next(iter(decode(path, Params(), DecodeStats())))
        except (VideoFault, StopIteration):
            continue
        whole, (width, height) = frame.rgb(), frame.size
        seen.add(frame.native.format.name)
        for _ in range(8):
            x0, y0 = int(random.integers(0, width - 16)), int(random.integers(0, height - 16))
            x1, y1 = int(random.integers(x0 + 16, width + 1)), int(random.integers(y0 + 16, height + 1))
            assert np.array_equal(frame.region(x0, y0, x1, y1), whole[y0:y1, x0:x1]), (path.name, x0, y0, x1, y1)
    assert "yuv420p" in seen
