"""Streams in which a key frame is not enough: their windows are right all the same, or the whole video is decoded."""

import random
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from lps.pipeline.video.container import scan_packets
from tests.builders import decoded, take_out
from tests.pipeline.video.window_checks import (
    PARAMS,
    AnyPacket,
    assert_right_or_refused,
    assert_same_frames,
    index_of,
    joined,
    rewritten,
    whole,
    with_bytes,
)

Image = NDArray[np.uint8]
Write = Callable[..., Path]
Scene = Callable[..., list[Image]]

N_FRAMES = 60
LARGE = (192, 128)
"""Pictures of MPEG-4 that are smaller look like none: those that repeat one are as short."""
KEYS = {"g": "20", "keyint_min": "20", "sc_threshold": "0"}
X265 = {"x265-params": "log-level=none:keyint=20:min-keyint=20"}
VPX = {**KEYS, "deadline": "realtime", "cpu-used": "8"}
CODECS = [
    ("a.mp4", "libx264", {**KEYS, "bf": "3", "b_strategy": "0"}),
    ("a.mkv", "libx264", {**KEYS, "bf": "0"}),
    ("a.mp4", "libx264", {**KEYS, "bf": "3", "x264-params": "open-gop=1"}),
    ("a.mp4", "libx265", X265),
    ("a.mkv", "libx265", X265),
    ("a.mp4", "mpeg4", {**KEYS, "bf": "2"}),
    ("a.webm", "libvpx", VPX),
    ("a.webm", "libvpx-vp9", VPX),
    ("a.mkv", "libsvtav1", {"g": "20", "preset": "12", "svtav1-params": "keyint=20"}),
]
each_codec = pytest.mark.parametrize(
    ("name", "codec", "options"), CODECS, ids=lambda x: x if isinstance(x, str) else ""
)


# ---- what x264 tells of itself in the first packet only --------------------------------------------------------------


def with_build(path: Path, out: Path, builds: dict[int, bytes]) -> Path:
    """Write other numbers of x264's build into the packets named; those without the message get that of the first."""
    message = b""

    def change(number: int, packet: AnyPacket) -> AnyPacket:
        nonlocal message
        data = bytes(packet)
        if number == 0:
            size = 4 + int.from_bytes(data[:4], "big")
            message = data[:size]
            assert b"x264 - core" in message
        if number not in builds:
            return packet
        data = data if number == 0 else message + data
        return with_bytes(packet, re.sub(rb"x264 - core \d{3}", b"x264 - core " + builds[number], data))

    return rewritten(path, out, change)


def decoded_after(path: Path, start: int) -> list[bytes]:
    """Return the pictures of a decoder that saw no packet before `start`."""
    with av.open(str(path)) as source:
        packets = [packet for number, packet in enumerate(source.demux(video=0)) if number >= start]
        return [frame.to_ndarray().tobytes() for packet in packets for frame in packet.decode()]


def test_builds_of_x264_that_code_4_4_4_otherwise(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    """libav decodes lossless pictures of a build below 151 in another way, and learns of it from the first packet."""
    options = {**KEYS, "qp": "0", "coder": "0", "bf": "0"}
    new = write_video(tmp_path / "new.mp4", scene(N_FRAMES), options=options, pix_fmt="yuv444p")
    old = with_build(new, tmp_path / "old.mp4", {0: b"142"})
    right = [frame.native.to_ndarray().tobytes() for frame in decoded(old)[0]]
    wrong = decoded_after(old, 40)
    assert len(wrong) == 20
    assert not set(wrong) & set(right), "the trap is real"
    index = index_of(old)
    assert index is not None
    assert index.starts.tolist() == [0, 20, 40]
    assert_same_frames(old)


def test_another_build_in_a_later_packet(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    options = {**KEYS, "qp": "0", "coder": "0", "bf": "0"}
    path = write_video(tmp_path / "a.mp4", scene(N_FRAMES), options=options, pix_fmt="yuv444p")
    assert index_of(with_build(path, tmp_path / "b.mp4", {20: b"142"})) is None
    assert index_of(with_build(path, tmp_path / "c.mp4", {0: b"142", 30: b"142"})) is not None
    assert_same_frames(tmp_path / "c.mp4")


# ---- parameters that change ------------------------------------------------------------------------------------------

IN_BAND = [
    ("mp4", "libx264", {**KEYS, "x264-params": "repeat-headers=1"}, {"refs": "1", "coder": "0"}),
    ("mkv", "libx264", {**KEYS, "x264-params": "repeat-headers=1"}, {"refs": "1", "coder": "0"}),
    ("ts", "libx264", KEYS, {"refs": "1", "coder": "0"}),
    (
        "mkv",
        "libx265",
        {"x265-params": X265["x265-params"] + ":repeat-headers=1"},
        {"crf": "40", "preset": "ultrafast"},
    ),
    ("ts", "libx265", X265, {"x265-params": X265["x265-params"] + ":no-sao=1:ref=1:bframes=0"}),
]


@pytest.mark.parametrize(("container", "codec", "options", "others"), IN_BAND)
@pytest.mark.parametrize("width", [96, 128])
def test_a_stream_that_goes_on_with_other_parameters(
    write_video: Write, scene: Scene, tmp_path: Path, container: str, codec: str,
    options: dict[str, str], others: dict[str, str], width: int,
) -> None:  # fmt: skip
    one = write_video(tmp_path / f"1.{container}", scene(40), codec=codec, options=options)
    two = write_video(tmp_path / f"2.{container}", scene(40, width, seed=1), codec=codec, options={**options, **others})
    for head_of in (0, 1):
        path = joined([one, two], tmp_path / f"{head_of}.{container}", head_of=head_of)
        assert len(whole(path, scan_packets(path, PARAMS.limits))) == 80
        assert index_of(path) is None


@pytest.mark.parametrize(("container", "codec", "options", "others"), IN_BAND[:3])
def test_a_stream_that_goes_on_with_the_same_parameters(
    write_video: Write, scene: Scene, tmp_path: Path, container: str, codec: str,
    options: dict[str, str], others: dict[str, str],
) -> None:  # fmt: skip
    parts = [
        write_video(tmp_path / f"{seed}.{container}", scene(40, seed=seed), codec=codec, options={**options, **others})
        for seed in (1, 2)
    ]
    assert_same_frames(joined(parts, tmp_path / f"a.{container}"))


@pytest.mark.parametrize(("container", "codec"), [("webm", "libvpx"), ("webm", "libvpx-vp9"), ("mkv", "mjpeg")])
def test_pictures_of_another_size(write_video: Write, scene: Scene, tmp_path: Path, container: str, codec: str) -> None:
    """Their key frames say all that there is to know."""
    options, pix_fmt = (VPX, "yuv420p") if codec != "mjpeg" else ({}, "yuvj420p")
    parts = [
        write_video(tmp_path / f"{w}.{container}", scene(40, w), codec=codec, options=options, pix_fmt=pix_fmt)
        for w in (96, 128)
    ]
    assert_same_frames(joined(parts, tmp_path / f"a.{container}"))


# ---- pictures that are not shown, or not in order --------------------------------------------------------------------


def test_a_picture_of_mpeg4_that_is_not_coded(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    """Decoders show nothing for it: every later frame has another number than its packet promises."""

    def change(number: int, packet: AnyPacket) -> AnyPacket:
        if number != 10:
            return packet
        data = bytes(packet)
        bits = "".join(f"{byte:08b}" for byte in data[4:8])
        end = bits.index("0", 2) + 1 + 1 + 5 + 1  # type, seconds, marker, 25ths of a second, marker
        bits = bits[:end] + "0"
        bits += "0" + "1" * (-(len(bits) + 1) % 8)
        return with_bytes(packet, data[:4] + int(bits, 2).to_bytes(len(bits) // 8, "big"))

    path = write_video(tmp_path / "a.mp4", scene(N_FRAMES, *LARGE), codec="mpeg4", options={**KEYS, "bf": "0"})
    path = rewritten(path, tmp_path / "b.mp4", change)
    assert len(whole(path, scan_packets(path, PARAMS.limits))) == N_FRAMES - 1
    assert index_of(path) is None


def test_two_pictures_of_mpeg4_in_one_packet(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(N_FRAMES, *LARGE), codec="mpeg4", options={**KEYS, "bf": "2"})
    with av.open(str(path)) as source:
        second = [bytes(packet) for packet in source.demux(video=0) if packet.size][11]
    packed = rewritten(
        path, tmp_path / "b.mp4", lambda k, packet: with_bytes(packet, bytes(packet) + second) if k == 10 else packet
    )
    assert index_of(path) is not None
    assert index_of(packed) is None


def test_a_sequence_of_hevc_that_ends(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    """Pictures of an open GOP after that are not shown."""
    path = write_video(tmp_path / "a.mp4", scene(N_FRAMES), codec="libx265", options=X265)
    end = bytes.fromhex("00000002 4801")
    ended = rewritten(
        path, tmp_path / "b.mp4", lambda k, packet: with_bytes(packet, bytes(packet) + end) if k == 16 else packet
    )
    assert len(whole(ended, scan_packets(ended, PARAMS.limits))) < N_FRAMES
    assert index_of(path) is not None
    assert index_of(ended) is None


def test_a_broken_link_of_hevc(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    def change(number: int, packet: AnyPacket) -> AnyPacket:
        data = bytes(packet)
        return with_bytes(packet, data[:4] + b"\x20" + data[5:]) if number == 17 else packet

    path = write_video(tmp_path / "a.mp4", scene(N_FRAMES), codec="libx265", options=X265)
    broken = rewritten(path, tmp_path / "b.mp4", change)
    assert len(whole(broken, scan_packets(broken, PARAMS.limits))) < N_FRAMES
    assert index_of(broken) is None


def test_pictures_of_vp8_that_are_not_shown(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    def change(number: int, packet: AnyPacket) -> AnyPacket:
        data = bytes(packet)
        return with_bytes(packet, bytes([data[0] & ~16]) + data[1:]) if number in (11, 31) else packet

    path = write_video(tmp_path / "a.webm", scene(N_FRAMES), codec="libvpx", options=VPX)
    assert index_of(rewritten(path, tmp_path / "b.webm", change)) is None


@pytest.mark.parametrize("kind", ["h264", "hevc"])
def test_a_picture_that_is_turned_within_the_stream(
    write_video: Write, scene: Scene, tmp_path: Path, kind: str
) -> None:
    """What a message says stays until another one comes, over key frames."""
    codec = {"h264": "libx264", "hevc": "libx265"}[kind]
    path = write_video(
        tmp_path / "a.mp4", scene(N_FRAMES), codec=codec, options={**KEYS, **X265} if kind == "hevc" else KEYS
    )
    head = "06" if kind == "h264" else "4e01"
    unit = bytes.fromhex(head + "2f 03 08 00 1a 80")
    turned = rewritten(
        path,
        tmp_path / "b.mp4",
        lambda k, packet: (
            with_bytes(packet, len(unit).to_bytes(4, "big") + unit + bytes(packet)) if k == 20 else packet
        ),
    )
    assert index_of(path) is not None
    assert index_of(turned) is None


def test_pictures_of_jpeg_without_tables(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    """They are decoded with those of the picture before."""

    def change(number: int, packet: AnyPacket) -> AnyPacket:
        data = bytes(packet)
        at = data.index(b"\xff\xdb")
        size = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        return with_bytes(packet, data[:at] + data[at + size :]) if number == 10 else packet

    path = write_video(tmp_path / "a.mkv", scene(20), codec="mjpeg", pix_fmt="yuvj420p", options={"g": "1"})
    assert index_of(path) is not None
    assert index_of(rewritten(path, tmp_path / "b.mkv", change)) is None


@each_codec
def test_time_stamps_in_another_order(
    write_video: Write, scene: Scene, tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = write_video(tmp_path / name, scene(N_FRAMES, *LARGE), codec=codec, options=options)
    with av.open(str(path)) as source:
        times = [packet.pts for packet in source.demux(video=0) if packet.size]
    for one, other in ((24, 25), (24, 27), (39, 40), (5, 50)):

        def change(number: int, packet: AnyPacket, swap: tuple[int, int] = (one, other)) -> AnyPacket:
            packet.pts = times[{swap[0]: swap[1], swap[1]: swap[0]}.get(number, number)]
            return packet

        try:
            swapped = rewritten(path, tmp_path / f"swapped-{name}", change)
        except (av.error.FFmpegError, ValueError):
            continue  # no such file can be written
        if index_of(swapped) is not None:
            assert_same_frames(swapped, n_starts=12, may_refuse=True)


@each_codec
def test_streams_that_begin_in_the_middle(
    write_video: Write, scene: Scene, tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    """The first pictures may be shown before the first key frame, or never."""
    path = write_video(tmp_path / name, scene(N_FRAMES, *LARGE), codec=codec, options=options)
    with av.open(str(path)) as source:
        keys = [k for k, packet in enumerate(source.demux(video=0)) if packet.size and packet.is_keyframe]
    for first in (1, keys[1] - 1, keys[1], keys[1] + 1):
        late = take_out(path, tmp_path / f"late-{name}", *range(first))
        if index_of(late) is not None:
            assert_same_frames(late)


# ---- damage ----------------------------------------------------------------------------------------------------------


@each_codec
def test_key_frames_that_are_none(
    write_video: Write, scene: Scene, tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    def change(number: int, packet: AnyPacket) -> AnyPacket:
        packet.is_keyframe = True
        return packet

    path = write_video(tmp_path / name, scene(N_FRAMES, *LARGE), codec=codec, options=options)
    index = index_of(path)
    claimed = rewritten(path, tmp_path / f"claimed-{name}", change)
    found = index_of(claimed)
    assert index is not None
    assert found is not None
    assert found.starts.tolist() == index.starts.tolist()
    assert_same_frames(claimed)


@each_codec
def test_damage(
    write_video: Write, scene: Scene, tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = write_video(tmp_path / name, scene(N_FRAMES, *LARGE), codec=codec, options=options)
    rng = random.Random(0)
    n_decoded = 0

    def overwrite(at: int, share: float) -> Callable[[int, AnyPacket], AnyPacket]:
        def change(number: int, packet: AnyPacket) -> AnyPacket:
            data = bytearray(bytes(packet))
            if number == at:
                first = round(share * len(data))
                data[first : first + 16] = rng.randbytes(len(data[first : first + 16]))
            return with_bytes(packet, bytes(data)) if number == at else packet

        return change

    def garbage(at: int) -> Callable[[int, AnyPacket], AnyPacket]:
        return lambda number, packet: with_bytes(packet, rng.randbytes(300)) if number == at else packet

    for number in (0, 5, 19, 20, 21, 30, 41, 55):
        damaged = [take_out(path, tmp_path / f"lost-{name}", number)]
        for share in (0.0, 0.3, 0.8):
            with suppress(av.error.InvalidDataError):  # the muxer of AV1 reads what it writes
                damaged.append(rewritten(path, tmp_path / f"{share}-{name}", overwrite(number, share)))
        with suppress(av.error.InvalidDataError):
            damaged.append(rewritten(path, tmp_path / f"garbage-{name}", garbage(number)))
        for file in damaged:
            n_decoded += assert_right_or_refused(file, path)
    for share in (0.4, 0.9):
        data = path.read_bytes()
        cut = tmp_path / f"cut-{name}"
        cut.write_bytes(data[: round(share * len(data))])
        if cut.suffix != ".mp4":
            n_decoded += assert_right_or_refused(cut, path)
    assert n_decoded > 20, "else nothing was tried"


@pytest.mark.parametrize(
    ("codec", "options"),
    [("libx264", {**KEYS, "bf": "3", "b_strategy": "0"}), ("libx265", X265), ("mpeg4", {**KEYS, "bf": "2"})],
)
def test_a_time_stamp_that_no_decoder_keeps(
    write_video: Write, scene: Scene, tmp_path: Path, codec: str, options: dict[str, str]
) -> None:
    """Frames would be numbered by time in windows, and as they come out of the decoder in the whole video."""
    path = write_video(tmp_path / "a.mkv", scene(N_FRAMES, *LARGE), codec=codec, options=options)
    index = index_of(path)
    assert index is not None
    late = int(index.packets[33])
    with av.open(str(path)) as source:
        coded = bytes(next(packet for k, packet in enumerate(source.demux(video=0)) if k == late))
    data = bytearray(path.read_bytes())
    at = data.index(coded) - 3  # of the head of its block: the time since that of the cluster, in ms
    time = int.from_bytes(data[at : at + 2], "big", signed=True) - int(index.times[33] - index.times[18]) + 10
    data[at : at + 2] = time.to_bytes(2, "big", signed=True)
    (tmp_path / "wrong.mkv").write_bytes(data)
    assert index_of(tmp_path / "wrong.mkv") is None
