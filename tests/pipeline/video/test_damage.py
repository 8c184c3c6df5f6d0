"""Damage and cuts: what follows a frame without a break is the next frame of the undamaged video, bit by bit."""

import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from lps.manifests.codes import Code
from lps.manifests.errors import VideoFault
from lps.pipeline.video.container import count_packets
from lps.pipeline.video.cuts import cut_score_between
from lps.pipeline.video.frame import Frame
from lps.pipeline.video.memory import limit_memory
from tests.builders import LIMITS, breaks, decoded, decoded_by_pyav

Image = NDArray[np.uint8]
Write = Callable[..., Path]
Scene = Callable[..., list[Image]]

GOP = {"g": "20", "keyint_min": "20", "sc_threshold": "0"}
FASTSTART = {"movflags": "faststart"}


def overwrite_packet(path: Path, number: int, *, filling: bytes = b"\0", after: float = 0.0) -> None:
    """Fill the payload of one packet, in coded order, `after` a share of it."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        assert packet.pos is not None
        at, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    kept = round(after * size)
    data[at + kept : at + size] = filling * (size - kept)
    path.write_bytes(bytes(data))


def assert_runs_are_whole(frames: Sequence[Frame], truth: dict[int, Image]) -> None:
    """What follows a frame without a break is the next frame of the undamaged video, bit by bit."""
    times = sorted(truth)
    after = dict(zip(times, times[1:], strict=False))
    for before, frame in zip(frames, frames[1:], strict=False):
        if not frame.breaks:
            assert frame.pts_ticks == after[before.pts_ticks], f"hole before frame {frame.index}"
            assert np.array_equal(frame.rgb(), truth[frame.pts_ticks]), f"frame {frame.index} is smeared"


@pytest.mark.parametrize("b_frames", ["0", "3"])
@pytest.mark.parametrize("number", [21, 22, 25, 27, 33, 39, 41])
def test_damage_in_the_middle_breaks_up_to_the_next_key_frame(
    write_video: Write, scene: Scene, tmp_path: Path, b_frames: str, number: int
) -> None:
    path = write_video(tmp_path / "a.mp4", scene(80), options={**GOP, "bf": b_frames}, container=FASTSTART)
    truth = decoded_by_pyav(path)
    overwrite_packet(path, number)
    frames, stats = decoded(path)
    assert stats.n_errors >= 1
    assert not stats.ended_by_error
    assert 70 <= stats.n_frames < 80
    assert_runs_are_whole(frames, truth)
    assert [f.index for f in frames] == list(range(len(frames)))
    broken = breaks(frames)
    assert max(broken[1:]) - min(broken[1:]) <= 20, "one group of pictures at most"
    assert frames[max(broken)].native.key_frame


def test_slices_that_hevc_leaves_out_are_damage(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none:keyint=20:min-keyint=20"}
    n_errors = []
    for number in (23, 27, 29, 31, 33, 35):
        path = write_video(tmp_path / "a.mp4", scene(70), codec="libx265", options=options, container=FASTSTART)
        truth = decoded_by_pyav(path)
        overwrite_packet(path, number, filling=b"\xff", after=0.2)
        frames, stats = decoded(path)
        n_errors.append(stats.n_errors)
        assert_runs_are_whole(frames, truth)
        assert breaks(frames)[-1] == [frame.index for frame in frames if frame.native.key_frame][2]
    assert n_errors == [1] * 6


def test_several_damaged_places(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(120), options={**GOP, "bf": "2"}, container=FASTSTART)
    truth = decoded_by_pyav(path)
    for number in (23, 26, 84):
        overwrite_packet(path, number)
    frames, stats = decoded(path)
    assert stats.n_errors >= 3
    assert_runs_are_whole(frames, truth)
    assert any(40 <= f.pts_seconds * 25 <= 78 and not f.breaks for f in frames)


@pytest.mark.parametrize("b_frames", ["0", "3"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_truncated_file(write_video: Write, scene: Scene, tmp_path: Path, b_frames: str, share: float) -> None:
    path = write_video(tmp_path / "a.mp4", scene(80), options={**GOP, "bf": b_frames}, container=FASTSTART)
    truth = decoded_by_pyav(path)
    os.truncate(path, int(path.stat().st_size * share))
    frames, stats = decoded(path)
    assert stats.ended_by_error
    assert stats.n_errors == 1
    assert 15 < stats.n_frames < 78
    assert count_packets(path, LIMITS) >= stats.n_frames
    assert_runs_are_whole(frames, truth)
    assert max(breaks(frames)[1:], default=len(frames)) >= len(frames) - 4


def test_truncated_file_without_its_index(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(80))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(VideoFault) as caught:
        decoded(path)
    assert caught.value.code is Code.E_PROBE


def test_a_frame_of_another_size_breaks(write_video: Write, tmp_path: Path) -> None:
    parts = [tmp_path / "0.h264", tmp_path / "1.h264"]
    for k, part in enumerate(parts):
        write_video(part, [np.full((64, 96 + 32 * k, 3), 128, np.uint8)] * 20, options={"bf": "0"})
    path = tmp_path / "a.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, _ = decoded(path)
    assert breaks(frames) == [0, 20]
    assert [frames[k].size for k in (19, 20)] == [(96, 64), (128, 64)]


@pytest.mark.parametrize(("left_mb", "error"), [(None, VideoFault), (4096, VideoFault), (64, MemoryError)])
def test_lack_of_memory_is_no_fault_of_the_video_if_there_is_none(
    write_video: Write, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    left_mb: int | None, error: type[Exception],
) -> None:  # fmt: skip
    path = write_video(tmp_path / "a.mp4", scene(4))

    def refuse(*args: object, **kwargs: object) -> None:
        raise av.error.MemoryError(12, "Cannot allocate memory")

    before = resource.getrlimit(resource.RLIMIT_DATA)
    if left_mb is not None:
        limit_memory(left_mb << 20)
    monkeypatch.setattr(av, "open", refuse)
    try:
        with pytest.raises(error):
            decoded(path)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.media
@pytest.mark.parametrize("name", ["oom_frag.mp4", "oom_rot.mp4"])
def test_files_with_nonsense_sizes_decode_up_to_them(shared: Callable[[str], Path], name: str) -> None:
    _, stats = decoded(shared(f"field/{name}"))
    assert stats.ended_by_error


# ---- cuts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 37, 49])
def test_a_cut_breaks_at_its_frame(write_video: Write, scene: Scene, tmp_path: Path, at: int) -> None:
    shots = [*scene(at, seed=1), *scene(50 - at, seed=2)]
    frames, stats = decoded(write_video(tmp_path / "a.mp4", shots))
    assert breaks(frames) == [0, at]
    assert len(stats.cut_scores) == 49
    assert max(stats.cut_scores) == stats.cut_scores[at - 1]


def test_a_black_frame_is_a_cut(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    images = scene(40)
    images[20] = np.zeros_like(images[20])
    assert breaks(decoded(write_video(tmp_path / "a.mp4", images))[0]) == [0, 20, 21]


def _lamp(images: list[Image]) -> list[Image]:
    gains = [0.45 if k < 20 else 1.0 for k in range(len(images))]
    return [(image * gain).astype(np.uint8) for image, gain in zip(images, gains, strict=True)]


def _offset(images: list[Image]) -> list[Image]:
    return [
        np.clip(image.astype(int) + (0 if k < 20 else 60), 0, 255).astype(np.uint8) for k, image in enumerate(images)
    ]


def _black_noise(images: list[Image]) -> list[Image]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 7, image.shape).astype(np.uint8) for image in images]


def _noise_over(images: list[Image]) -> list[Image]:
    rng = np.random.default_rng(0)
    return [np.clip(image + rng.normal(0, 25, image.shape), 0, 255).astype(np.uint8) for image in images]


def _fade(images: list[Image]) -> list[Image]:
    return [(image * (k / len(images))).astype(np.uint8) for k, image in enumerate(images)]


def _flat(images: list[Image]) -> list[Image]:
    return [np.full_like(image, 40 if k < 20 else 200) for k, image in enumerate(images)]


@pytest.mark.parametrize("change", [_lamp, _offset, _black_noise, _noise_over, _fade, _flat])
def test_no_cut_where_the_picture_goes_on(
    write_video: Write, scene: Scene, tmp_path: Path, change: Callable[[list[Image]], list[Image]]
) -> None:
    frames, stats = decoded(write_video(tmp_path / "a.mp4", change(scene(40, 192, 128)), options={"crf": "10"}))
    assert breaks(frames) == [0], max(stats.cut_scores)


def test_a_fast_pan_is_no_cut(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    frames, stats = decoded(write_video(tmp_path / "a.mp4", scene(40, 192, 128, speed=4.0)))
    assert breaks(frames) == [0], max(stats.cut_scores)


def test_cut_scores_are_within_bounds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = (rng.uniform(0, 255, (18, 32)).astype(np.float32) for _ in range(2))
        assert 0.0 <= cut_score_between(a, b) <= 1.0
        assert cut_score_between(a, a) == 0.0
        assert cut_score_between(a, b) == cut_score_between(b, a)
    assert cut_score_between(a, 255 - a) == 1.0
