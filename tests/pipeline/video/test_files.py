"""Which files and streams are read, which are refused and with what code, and the limits."""

import errno
import os
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from lps.manifests.codes import Code, Stage
from lps.manifests.errors import VideoFault
from lps.manifests.storage import Store
from lps.pipeline.config.params import Limits, Params
from lps.pipeline.video.container import count_packets, open_video, read_header
from lps.pipeline.video.decode import DecodeStats, decode
from lps.pipeline.video.probe import holds_video, probe_file
from lps.pipeline.video.source_reader import SourceReader, SourceRef
from tests.builders import LIMITS, decoded

Image = NDArray[np.uint8]
Write = Callable[..., Path]
Scene = Callable[..., list[Image]]


def fault_of(path: Path, limits: Limits = LIMITS) -> Code | None:
    try:
        decoded(path, limits)
    except VideoFault as fault:
        return fault.code
    return None


def test_cover_art_is_no_video(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as sink:
        cover = sink.add_stream("mjpeg", rate=1)
        assert isinstance(cover, VideoStream)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 64, 64, "yuvj420p", Disposition.attached_pic
        song = sink.add_stream("libmp3lame", rate=44100)
        picture = av.VideoFrame.from_ndarray(scene(1, 64, 64)[0], format="rgb24").reformat(format="yuvj420p")
        picture.pts = 0
        sink.mux([*cover.encode(picture), *cover.encode(None)])
        silence = av.AudioFrame(format="s16p", layout="stereo", samples=1152)
        silence.rate = 44100
        for plane in silence.planes:
            plane.update(bytes(plane.buffer_size))
        sink.mux([*song.encode(silence), *song.encode(None)])
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert fault_of(path) is Code.E_NO_VIDEO_STREAM


def test_the_first_of_two_streams_is_read(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as sink:
        for size in ((96, 64), (192, 128)):
            stream = sink.add_stream("libx264", rate=25)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for stream, size in zip(sink.streams.video, ((96, 64), (192, 128)), strict=True):
            for image in scene(5, *size):
                sink.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            sink.mux(stream.encode(None))
    frames, _ = decoded(path)
    assert {f.size for f in frames} == {(96, 64)}
    assert len(frames) == 5
    assert read_header(path, LIMITS).n_video_streams == 2


def _text(path: Path) -> None:
    path.write_text("Lorem ipsum dolor sit amet.\n" * 40)


def _empty(path: Path) -> None:
    path.touch()


def _folder(path: Path) -> None:
    path.mkdir()


def _nothing(path: Path) -> None:
    pass


def _audio(path: Path) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))


def _random(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(4096))


@pytest.mark.parametrize(
    ("name", "make", "code"),
    [
        ("notes.mp4", _text, Code.E_PROBE),
        ("notes.txt", _text, Code.E_PROBE),
        ("empty.mp4", _empty, Code.E_EMPTY_FILE),
        ("folder.mp4", _folder, Code.E_UNREADABLE),
        ("pipe.mp4", os.mkfifo, Code.E_UNREADABLE),
        ("missing.mp4", _nothing, Code.E_MISSING_FILE),
        ("sound.wav", _audio, Code.E_NO_VIDEO_STREAM),
        ("random.mp4", _random, Code.E_PROBE),
    ],
)
def test_what_is_no_video(tmp_path: Path, name: str, make: Callable[[Path], None], code: Code) -> None:
    path = tmp_path / name
    make(path)
    for use in (decoded, read_header, count_packets):
        with pytest.raises(VideoFault) as caught:
            use(path, LIMITS)
        assert caught.value.code is code
        assert str(tmp_path) not in str(caught.value)


def test_a_path_through_a_file_is_missing(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(2))
    assert fault_of(path / "b.mp4") is Code.E_MISSING_FILE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), Code.E_UNREADABLE),
        (OSError(errno.EIO, "Input/output error"), Code.E_UNREADABLE),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), Code.E_MISSING_FILE),
    ],
    ids=["no permission", "broken disk", "gone since it was listed"],
)
def test_a_file_that_cannot_be_read(
    write_video: Write, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, code: Code
) -> None:
    path = write_video(tmp_path / "a.mp4", scene(2))
    refuse_to_open(monkeypatch, error)
    assert fault_of(path) is code
    probe = probe_file(SourceReader(Store(str(tmp_path))), SourceRef("a.mp4"), LIMITS)
    assert (probe.code, probe.stage, probe.detail, probe.sha256) == (code, Stage.PROBE, error.strerror, "")


def refuse_to_open(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(os, "open", refuse)


def test_too_many_open_files_are_no_fault_of_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")

    refuse_to_open(monkeypatch, OSError(errno.EMFILE, "Too many open files"))
    with pytest.raises(OSError, match="Too many open files"):
        probe_file(SourceReader(Store(str(tmp_path))), SourceRef("a.mp4"), LIMITS)


@pytest.mark.parametrize(
    ("name", "n_frames", "expected"), [("clip", 2, True), ("clip.odd", 5, True), ("picture", 1, False)]
)
def test_a_video_is_known_by_its_frames(
    write_video: Write, scene: Scene, tmp_path: Path, name: str, n_frames: int, expected: bool
) -> None:
    write_video(tmp_path / "a.mp4", scene(n_frames)).rename(tmp_path / name)
    assert holds_video(SourceReader(Store(str(tmp_path))), SourceRef(name), LIMITS) is expected


@pytest.mark.parametrize("ending", ["vob", "asf", "mxf", "3g2", "mov", "f4v"])
def test_formats_whose_names_are_videos_open(write_video: Write, scene: Scene, tmp_path: Path, ending: str) -> None:
    codec = "libx264" if ending in ("3g2", "mov", "f4v") else "mpeg2video"
    assert fault_of(write_video(tmp_path / f"a.{ending}", scene(4), codec=codec)) is None


@pytest.mark.parametrize("make", [_text, _empty, _folder, _nothing, _audio, _random])
def test_what_is_no_video_holds_none(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd")
    assert holds_video(SourceReader(Store(str(tmp_path))), SourceRef("odd"), LIMITS) is False


@pytest.mark.parametrize("name", ["list.mp4", "list.ffconcat", "list.m3u8"])
def test_lists_of_other_files_are_refused(write_video: Write, scene: Scene, tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "a.ts", scene(10))
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.4,\n{tmp_path / 'a.ts'}\n#EXT-X-ENDLIST\n"
    path = tmp_path / name
    path.write_text(hls if name.endswith("m3u8") else "ffconcat version 1.0\nfile a.ts\n")
    assert fault_of(path) is Code.E_PROBE


@pytest.mark.parametrize(
    "name",
    [
        "a:b.mp4",
        "http:x.mp4",
        "file:x.mp4",
        "concat:x.mp4",
        "two  spaces .mp4",
        "100%.mp4",
        "%03d.mp4",
        "é 漢字 😀.mp4",
        "a#b?c=d&e|f.mp4",
        "-dash.mp4",
        "[x]*.mp4",
        "back\\slash.mp4",
        "new\nline.mp4",
        os.fsdecode(b"not utf-8 \xff.mp4"),
    ],
)
def test_any_file_name_opens(
    write_video: Write, scene: Scene, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_video(tmp_path / "plain.mp4", scene(3))
    (tmp_path / "folder: 100%").mkdir()
    path = made.rename(tmp_path / "folder: 100%" / name)
    assert len(decoded(path)[0]) == 3
    monkeypatch.chdir(path.parent)
    assert len(decoded(Path(name))[0]) == 3


# ---- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        ({"max_side_px": 96}, True),
        ({"max_side_px": 95}, False),
        ({"max_area_px": 96 * 64}, True),
        ({"max_area_px": 96 * 64 - 1}, False),
        ({"max_seconds": 2.0}, True),
        ({"max_seconds": 1.9}, False),
        ({"max_frames": 50}, True),
        ({"max_frames": 49}, False),
    ],
)
def test_limits(write_video: Write, scene: Scene, tmp_path: Path, limits: dict[str, float], fits: bool) -> None:
    path = write_video(tmp_path / "a.mp4", scene(50))
    found = replace(LIMITS, **limits)  # type: ignore[arg-type]
    assert fault_of(path, found) is (None if fits else Code.E_LIMIT)


def test_limit_of_bytes(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(5))
    size = path.stat().st_size
    assert fault_of(path, Limits(max_bytes=size)) is None
    assert fault_of(path, Limits(max_bytes=size - 1)) is Code.E_LIMIT


def test_what_is_too_large_is_not_even_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x" * 101)
    monkeypatch.delattr("lps.pipeline.video.probe.file_sha256")
    found = probe_file(SourceReader(Store(str(tmp_path))), SourceRef("a.mp4"), replace(LIMITS, max_bytes=100))
    assert (found.code, found.n_bytes, found.sha256, found.detail) == (Code.E_LIMIT, 101, "", "101 bytes, limit 100")


def test_frames_are_limited_before_they_are_decoded(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(50))
    assert count_packets(path, Limits(max_frames=50)) == 50
    with pytest.raises(VideoFault) as caught:
        count_packets(path, Limits(max_frames=49))
    assert caught.value.code is Code.E_LIMIT


@pytest.mark.parametrize("limits", [Limits(max_side_px=100), Limits(max_area_px=100 * 64)])
def test_frames_that_grow_beyond_the_limits(write_video: Write, scene: Scene, tmp_path: Path, limits: Limits) -> None:
    parts = [write_video(tmp_path / f"{k}.h264", scene(9, 96 + 32 * k, 64)).read_bytes() for k in (0, 1)]
    path = tmp_path / "a.h264"
    path.write_bytes(b"".join(parts))
    assert fault_of(path, Limits()) is None
    assert fault_of(path, limits) is Code.E_LIMIT


def test_a_raw_stream_has_no_length_to_limit_but_its_frames(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.h264", scene(30))
    assert read_header(path, Limits(max_seconds=0.1)).duration_s is None
    assert fault_of(path, Limits(max_frames=29)) is Code.E_LIMIT


def test_containers_are_closed_on_a_fault(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(3))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(8):
        with pytest.raises(VideoFault):
            open_video(path, Limits(max_side_px=10))
        decode(path, Params(), DecodeStats()).__next__()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
