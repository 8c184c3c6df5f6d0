"""Packets that are missing: no wrong picture is part of a run of frames, in whatever codec and container."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lps.pipeline.config.params import Params
from lps.pipeline.video.container import scan_packets
from lps.pipeline.video.decode import DecodeStats, decode
from lps.pipeline.video.frame import Frame
from lps.pipeline.video.frame_numbers import FrameNumbers
from tests.builders import LIMITS, breaks, decoded, take_out

Image = NDArray[np.uint8]
Write = Callable[..., Path]
Scene = Callable[..., list[Image]]

GOP = {"g": "20", "keyint_min": "20", "sc_threshold": "0"}
X265 = {"x265-params": "log-level=none:keyint=20:min-keyint=20"}
CODINGS = [
    ("a.mp4", "libx264", {**GOP, "bf": "0"}),
    ("a.mp4", "libx264", {**GOP, "bf": "3", "x264-params": "open-gop=1"}),
    ("a.mp4", "libx264", {**GOP, "bf": "0", "x264-params": "intra-refresh=1"}),
    ("a.mkv", "libx264", {**GOP, "bf": "3", "b_strategy": "0"}),
    ("a.ts", "libx264", {**GOP, "bf": "3"}),
    ("a.avi", "libx264", {**GOP, "bf": "0"}),
    ("a.mp4", "libx265", X265),
    ("a.mp4", "mpeg4", {**GOP, "bf": "2"}),
    ("a.avi", "mpeg4", {**GOP, "bf": "0"}),
    ("a.mpg", "mpeg2video", {**GOP, "bf": "2"}),
    ("a.webm", "libvpx-vp9", {"g": "20", "keyint_min": "20", "speed": "8"}),
    ("a.mp4", "libsvtav1", {"g": "20", "preset": "12", "svtav1-params": "keyint=20"}),
]


def pixels(frame: Frame) -> bytes:
    return bytes(frame.native.to_ndarray().tobytes())


def assert_runs_are_right(frames: Sequence[Frame], whole: Sequence[Frame]) -> None:
    """A frame that follows another without a break is the next of the whole video, bit by bit."""
    place = {pixels(frame): frame.index for frame in whole}
    assert len(place) == len(whole), "no two frames are alike"
    for before, frame in zip(frames, frames[1:], strict=False):
        if not frame.breaks:
            assert not frame.spoiled
            assert pixels(frame) in place, f"frame {frame.index} is not of the video"
            assert place[pixels(frame)] == place[pixels(before)] + 1, f"hole before frame {frame.index}"


@pytest.mark.parametrize(("name", "codec", "options"), CODINGS)
def test_no_run_holds_what_a_lost_packet_spoiled(
    write_video: Write, scene: Scene, tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = write_video(tmp_path / name, scene(70, 128, 96), codec=codec, options=options)
    whole, stats = decoded(path)
    assert (len(whole), stats.n_errors) == (70, 0)
    assert breaks(whole) == [0]
    for number in (1, 2, 3, 20, 21, 22, 30, 41, 43, 57):
        frames, _ = decoded(take_out(path, tmp_path / f"lost-{name}", number))
        assert_runs_are_right(frames, whole)


@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_a_lost_reference_is_damage_up_to_the_next_key_frame(
    write_video: Write, scene: Scene, tmp_path: Path, b_frames: str
) -> None:
    path = write_video(tmp_path / "a.mp4", scene(70), options={**GOP, "bf": b_frames, "b_strategy": "0"})
    frames, stats = decoded(take_out(path, tmp_path / "b.mp4", 21))
    assert (stats.n_errors, stats.ended_by_error) == (1, False)
    spoiled = [frame.index for frame in frames if frame.spoiled]
    assert min(spoiled) >= 18
    assert max(spoiled) == 38
    assert frames[39].native.key_frame
    assert breaks(frames)[-1] == 39


def test_a_lost_picture_that_no_other_needs_is_a_hole_and_no_damage(
    write_video: Write, scene: Scene, tmp_path: Path
) -> None:
    options = {**GOP, "bf": "2", "b_strategy": "0", "b-pyramid": "none"}
    path = write_video(tmp_path / "a.mp4", scene(60), options=options)
    frames, stats = decoded(take_out(path, tmp_path / "b.mp4", 31))
    assert stats.n_errors == 0
    assert not any(frame.spoiled for frame in frames)
    assert len(breaks(frames)) == 2


def test_losses_are_counted_by_stretches(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(80), options={**GOP, "bf": "0"})
    _, stats = decoded(take_out(path, tmp_path / "b.mp4", 5, 10, 11, 12, 50))
    assert stats.n_errors == 2


def test_a_key_frame_lost_right_after_another(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    options = {"g": "3", "keyint_min": "3", "sc_threshold": "0", "bf": "0"}
    path = write_video(tmp_path / "a.mp4", scene(40), options=options)
    whole, _ = decoded(path)
    for number in range(1, 39):
        frames, _ = decoded(take_out(path, tmp_path / "b.mp4", number))
        assert_runs_are_right(frames, whole)


@pytest.mark.parametrize(("max_step", "expected"), [(1.5, [0, 30]), (2.5, [0])])
def test_a_step_of_two_breaks_as_the_parameter_says(
    write_video: Write, scene: Scene, tmp_path: Path, max_step: float, expected: list[int]
) -> None:
    times = [40 * k for k in range(61) if k != 30]
    path = write_video(tmp_path / "a.mkv", scene(60, speed=0.1), pts=times, options={"bf": "0"})
    frames = list(decode(path, Params(max_step=max_step), DecodeStats()))
    assert breaks(frames) == expected


def test_numbers_that_an_encoder_leaves_out_are_no_loss() -> None:
    """A picture that forgets all others (operation 5 of 8.2.5.4) counts as number 0, and the next as 1."""
    sequence = bytes.fromhex("674200 0a".replace(" ", "")) + _bits("11110100111")
    picture = b"\x68" + _bits("1100111000111000")

    def slice_of(kind: int, frame_num: int, marking: str) -> memoryview:
        head = "1" + "00110" + "1" + f"{frame_num:04b}" + ("1" if kind == 0x65 else "") + "0000"
        body = "00" if kind == 0x65 else "00" + marking
        return memoryview(b"\0\0\1" + bytes([kind]) + _bits(head + body))

    forget, keep = "1001101", "0"
    numbers = FrameNumbers()
    numbers.configure(b"\0\0\1" + sequence + b"\0\0\1" + picture)
    found = [
        numbers.missing_before(slice_of(0x65, 0, "")),
        numbers.missing_before(slice_of(0x61, 1, keep)),
        numbers.missing_before(slice_of(0x61, 2, forget)),
        numbers.missing_before(slice_of(0x61, 1, keep)),
        numbers.missing_before(slice_of(0x61, 2, keep)),
        numbers.missing_before(slice_of(0x61, 4, keep)),
        numbers.missing_before(slice_of(0x61, 5, keep)),
    ]
    assert found == [False] * 5 + [True, False]


def _bits(text: str) -> bytes:
    text += "1"
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def test_heads_of_slices_may_hold_anything() -> None:
    rng = np.random.default_rng(0)
    for length_bytes in (0, 4):
        numbers = FrameNumbers(length_bytes=length_bytes)
        numbers.configure(rng.bytes(200))
        for _ in range(300):
            start = b"\0\0\1" if length_bytes == 0 else b"\0\0\0\x40"
            kind = bytes([rng.choice([0x67, 0x68, 0x65, 0x61, 0x41, 6])])
            numbers.missing_before(memoryview(start + kind + rng.bytes(80)))


@pytest.mark.media
@pytest.mark.parametrize("number", [1, 5, 50, 53])
def test_lost_packets_of_a_real_video(shared: Callable[[str], Path], tmp_path: Path, number: int) -> None:
    path = shared("media/videos/woman_head_turns_512.mp4")
    whole, _ = decoded(path)
    frames, stats = decoded(take_out(path, tmp_path / "a.mp4", number))
    assert stats.n_errors >= 1
    right = {pixels(frame) for frame in whole}
    wrong = [frame for frame in frames if pixels(frame) not in right]
    assert wrong
    assert all(frame.breaks and frame.spoiled for frame in wrong)


def test_packets_are_counted_as_before(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    scan = scan_packets(write_video(tmp_path / "a.mp4", scene(30)), LIMITS)
    assert (scan.n_frames, scan.lost_before, dict(scan.doubts)) == (30, frozenset(), {})
    assert scan.usual_ticks == 512
