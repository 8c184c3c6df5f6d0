"""Sequences of images as videos: header, time stamps, frames, damage."""

import io
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lps.manifests.codes import Code, Stage
from lps.manifests.errors import UnreadableError, VideoFault
from lps.manifests.sequences.folder import image_names, source_sha256
from lps.manifests.storage import Store, open_store
from lps.pipeline.config.params import DecodeParams, Limits, Params
from lps.pipeline.video.decode import DecodeStats
from lps.pipeline.video.frame import Frame
from lps.pipeline.video.images import decode_image, decode_source, decode_source_windows, read_source
from lps.pipeline.video.probe import probe_archive, probe_file
from lps.pipeline.video.source_reader import SourceReader, SourceRef
from lps.pipeline.video.window import Cursor, WindowError
from tests.builders import breaks
from tests.frame_trees import image_bytes, numbered, tar_of, write_tree

Picture = NDArray[np.uint8]
PARAMS, LIMITS = Params(), Limits()


@pytest.fixture(scope="module")
def pictures(scene: Callable[..., list[Picture]]) -> list[Picture]:
    return scene(12)


@pytest.fixture(scope="module")
def pngs(pictures: list[Picture]) -> list[bytes]:
    return [image_bytes(picture) for picture in pictures]


def whole(folder: Path, params: Params = PARAMS) -> tuple[list[Frame], DecodeStats]:
    stats = DecodeStats()
    return list(decode_source(folder, params, stats)), stats


def windows(folder: Path, first: int, end: int, params: Params = PARAMS) -> tuple[list[Frame], DecodeStats]:
    stats, cursor = DecodeStats(), Cursor(frame=first)
    found = []
    for frame in decode_source_windows(folder, params, stats, read_source(folder, params).scan, cursor):
        found.append(frame)
        if frame.index == end:
            break
    return found, stats


# ---- frames ----------------------------------------------------------------------------------------------------------


def test_frames_are_the_images_in_the_order_of_their_numbers(tmp_path: Path, pictures: list[Picture]) -> None:
    """PNG after PNG comes out as it is, none with a trace of the one before."""
    write_tree(tmp_path, numbered(map(image_bytes, pictures), first=5))
    frames, stats = whole(tmp_path)
    assert len(frames) == len(pictures)
    for k, (frame, picture) in enumerate(zip(frames, pictures, strict=True)):
        assert np.array_equal(frame.rgb(), picture)
        assert np.array_equal(frame.region(8, 8, 40, 30), picture[8:30, 8:40])
        assert (frame.index, frame.pts_ticks, frame.pts_seconds) == (k, k, k / 25)
    assert (breaks(frames), stats.pts_nominal, stats.is_vfr, stats.n_errors) == ([0], True, False, 0)


@pytest.mark.parametrize("form", ["png", "bmp", "webp"])
def test_lossless_formats_keep_their_pixels(pictures: list[Picture], form: str) -> None:
    native = decode_image(image_bytes(pictures[0], form))
    assert native is not None
    assert np.array_equal(native.to_ndarray(format="rgb24"), pictures[0])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1", "I;16"])
def test_other_kinds_of_png_decode(tmp_path: Path, mode: str, pictures: list[Picture]) -> None:
    image = Image.fromarray(pictures[0])
    sink = io.BytesIO()
    (Image.fromarray(pictures[0][..., 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)).save(
        sink, "png"
    )
    write_tree(tmp_path, {"0.png": sink.getvalue()})
    [frame], _ = whole(tmp_path)
    shown = pictures[0][..., 0] if mode == "I;16" else np.asarray(image.convert(mode).convert("RGB"))
    assert np.abs(frame.rgb().astype(int) - shown.reshape(*shown.shape[:2], -1)).max() <= 1


def test_a_jpeg_is_turned_as_its_exif_says(tmp_path: Path, pictures: list[Picture]) -> None:
    image, sink = Image.fromarray(pictures[0]), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(sink, "jpeg", quality=95, subsampling=0, exif=exif)
    write_tree(tmp_path, {"0.jpg": sink.getvalue(), "1.jpg": sink.getvalue()})
    frames, _ = whole(tmp_path)
    assert {frame.rotation for frame in frames} == {90}
    assert frames[0].rgb().shape == (96, 64, 3)
    assert np.abs(frames[0].rgb().astype(int) - np.rot90(pictures[0], -1)).mean() < 3


def test_a_window_is_a_part_of_the_whole(tmp_path: Path, pngs: list[bytes]) -> None:
    tree = numbered(pngs)
    write_tree(tmp_path, {path: data for path, data in tree.items() if path != "6.png"})
    every, _ = whole(tmp_path)
    for first, end in ((0, 10), (3, 7), (9, 10)):
        found, stats = windows(tmp_path, first, end)
        assert stats.pts_nominal
        assert [(f.index, f.pts_ticks, f.breaks or f.index == first) for f in found] == [
            (f.index, f.pts_ticks, f.breaks or f.index == first) for f in every[first : end + 1]
        ]
        assert all(np.array_equal(a.rgb(), b.rgb()) for a, b in zip(found, every[first:], strict=False))


# ---- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("absent", "holes"), [({6}, [0, 6]), ({6, 7, 9}, [0, 6, 7]), ({1, 3, 8}, [0, 1, 2, 6])])
def test_a_missing_number_is_a_hole_however_many_are_missing(
    tmp_path: Path, pngs: list[bytes], absent: set[int], holes: list[int]
) -> None:
    write_tree(tmp_path, {path: data for path, data in numbered(pngs).items() if int(path[:-4]) not in absent})
    frames, _ = whole(tmp_path)
    assert breaks(frames) == holes
    assert [frame.pts_ticks for frame in frames] == [k for k in range(12) if k not in absent]


def test_a_longer_step_than_max_step_allows_may_be_allowed(tmp_path: Path, pngs: list[bytes]) -> None:
    write_tree(tmp_path, {path: data for path, data in numbered(pngs).items() if path != "6.png"})
    assert breaks(whole(tmp_path, Params(max_step=2.0))[0]) == [0]


def test_every_fifth_image_is_a_rate_and_no_hole(tmp_path: Path, pngs: list[bytes]) -> None:
    write_tree(tmp_path, {f"frame{5 * k}.png": data for k, data in enumerate(pngs)})
    frames, _ = whole(tmp_path)
    assert breaks(frames) == [0]
    assert frames[1].pts_seconds == 0.2


@pytest.mark.parametrize(
    ("fps", "tick"),
    [(25.0, Fraction(1, 25)), (29.97, Fraction(100, 2997)), (0.5, Fraction(2)), (1000, Fraction(1, 1000))],
)
def test_the_declared_rate_decides_time_stamps(tmp_path: Path, pngs: list[bytes], fps: float, tick: Fraction) -> None:
    params = Params(decode=DecodeParams(frames_fps=fps))
    header = read_source(write_tree(tmp_path, numbered(pngs[:2])), params).header
    assert (header.time_base_num, header.time_base_den) == (tick.numerator, tick.denominator)
    assert (header.fps_num, header.duration_s) == (None, None)
    assert whole(tmp_path, params)[0][1].pts_seconds == pytest.approx(float(tick))


@pytest.mark.parametrize("fps", [0.0, -25.0, 1e9, float("nan")])
def test_rates_that_are_none_are_refused(fps: float) -> None:
    with pytest.raises(ValueError, match="frames_fps must be from 0.1 to 1000"):
        DecodeParams(frames_fps=fps)


# ---- faults ----------------------------------------------------------------------------------------------------------


def fault(folder: Path, params: Params = PARAMS) -> tuple[Code, str]:
    with pytest.raises(VideoFault) as caught:
        read_source(folder, params)
    return caught.value.code, caught.value.detail


@pytest.mark.parametrize("cut", [0, 10, 60, -20])
def test_an_image_that_does_not_decode_breaks_the_run_and_is_counted(
    tmp_path: Path, pngs: list[bytes], cut: int
) -> None:
    write_tree(tmp_path, {**numbered(pngs), "4.png": pngs[4][:cut]})
    frames, stats = whole(tmp_path)
    assert (breaks(frames), len(frames), stats.n_errors, stats.ended_by_error) == ([0, 4], 11, 1, False)
    assert [frame.pts_ticks for frame in frames] == [k for k in range(12) if k != 4]
    assert len(windows(tmp_path, 5, 9)[0]) == 5
    with pytest.raises(WindowError):
        windows(tmp_path, 2, 9)


def test_a_jpeg_that_breaks_off_is_no_frame(tmp_path: Path, pictures: list[Picture]) -> None:
    data = image_bytes(pictures[0], "jpeg")
    for cut in (len(data) // 2, len(data) - 2):
        assert decode_image(data[:cut]) is None
    write_tree(tmp_path, {"0.jpg": data, "1.jpg": data[:-30]})
    frames, stats = whole(tmp_path)
    assert (len(frames), stats.n_errors, stats.ended_by_error) == (1, 1, True)


def test_images_of_two_sizes_are_named(tmp_path: Path, pictures: list[Picture], pngs: list[bytes]) -> None:
    write_tree(tmp_path, {**numbered(pngs), "7.png": image_bytes(pictures[7][:32])})
    assert fault(tmp_path) == (Code.E_PROBE, "images of different sizes: 7.png 96x32 px, 0.png 96x64 px")


def test_what_is_no_sequence(tmp_path: Path, pngs: list[bytes]) -> None:
    assert fault(write_tree(tmp_path / "a", {"a/0.png": pngs[0]})) == (Code.E_MISSING_FILE, "no images in the folder")
    assert fault(write_tree(tmp_path / "b", {"0.png": b"x", "1.png": b""}))[0] == Code.E_PROBE
    assert fault(write_tree(tmp_path / "c", {"0_0.png": pngs[0], "1_1.png": pngs[1]}))[0] == Code.E_NAME_GRAMMAR


@pytest.mark.parametrize(
    "limits",
    [{"max_bytes": 1000}, {"max_frames": 11}, {"max_side_px": 95}, {"max_area_px": 96 * 63}, {"max_seconds": 0.47}],
)
def test_limits_are_those_of_videos(tmp_path: Path, pngs: list[bytes], limits: dict[str, int]) -> None:
    write_tree(tmp_path, numbered(pngs))
    assert fault(tmp_path, Params(limits=replace(LIMITS, **limits)))[0] == Code.E_LIMIT


def test_an_image_that_claims_a_size_beyond_all_reason_is_not_decoded(tmp_path: Path, pngs: list[bytes]) -> None:
    big = bytearray(pngs[0])
    big[16:24] = (60_000).to_bytes(4, "big") * 2
    big[29:33] = zlib.crc32(big[12:29]).to_bytes(4, "big")
    assert fault(write_tree(tmp_path, {**numbered(pngs), "3.png": bytes(big)}))[0] == Code.E_LIMIT


def test_files_that_are_no_images_do_not_count(tmp_path: Path, pngs: list[bytes]) -> None:
    write_tree(tmp_path, {**numbered(pngs), "Thumbs.db": b"x", "._0.png": b"x", "b/0.png": pngs[0], "notes.txt": b"x"})
    (tmp_path / "13.png").symlink_to("nowhere")
    assert len(whole(tmp_path)[0]) == 12


# ---- probes and the reader -------------------------------------------------------------------------------------------


def reader(root: Path) -> SourceReader:
    return SourceReader(open_store(str(root)), scratch=str(root))


def test_a_folder_and_an_archive_give_one_probe(tmp_path: Path, pngs: list[bytes]) -> None:
    tree = numbered(pngs, "1/real/3")
    write_tree(tmp_path, {**tree, "1.tar.gz": tar_of(tree)})
    probe = probe_file(reader(tmp_path), SourceRef("1/real/3/"), LIMITS)
    assert (probe.code, probe.n_frames_promised, probe.n_bytes) == (None, 12, sum(map(len, pngs)))
    assert probe.sha256 == source_sha256(tmp_path / "1/real/3")
    facts = (probe.header.container, probe.header.codec, probe.header.pix_fmt, probe.header.width, probe.header.height)
    assert facts == ("image2", "png", "rgb24", 96, 64)
    found = probe_archive(reader(tmp_path), SourceRef("1.tar.gz"), LIMITS)
    assert found.sequences == {"1/real/3": probe}
    assert (found.own.code, found.own.n_frames_promised) == (None, 1)


def test_a_sequence_in_an_archive_is_a_folder_while_it_is_used(tmp_path: Path, pngs: list[bytes]) -> None:
    tree = numbered(pngs, "1/real/3")
    write_tree(tmp_path, {**tree, "1.tar": tar_of(tree | numbered(pngs, "1/real/4"), compressed=False)})
    with reader(tmp_path).local(SourceRef("1.tar!/1/real/3/")) as folder:
        assert source_sha256(folder) == source_sha256(tmp_path / "1/real/3")
    assert not folder.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "1.tar"]


def test_an_archive_with_a_fault_costs_its_sequences(tmp_path: Path, pngs: list[bytes]) -> None:
    whole_tar = tar_of(numbered(pngs, "1/real/3"))
    write_tree(tmp_path, {"cut.tar.gz": whole_tar[:-1000], "odd.tar.gz": whole_tar})
    found = probe_archive(reader(tmp_path), SourceRef("cut.tar.gz"), LIMITS)
    assert (found.own.code, found.own.stage, found.sequences) == (Code.E_TRUNCATED, Stage.PROBE, {})
    assert found.own.n_bytes == len(whole_tar) - 1000
    small = replace(LIMITS, max_bytes=1000)
    assert probe_archive(reader(tmp_path), SourceRef("odd.tar.gz"), small).own.code == Code.E_LIMIT
    assert probe_archive(reader(tmp_path), SourceRef("gone.tar.gz"), LIMITS).own.code == Code.E_MISSING_FILE


def test_sequences_of_an_archive_fail_alone(tmp_path: Path, pictures: list[Picture], pngs: list[bytes]) -> None:
    odd = {**numbered(pngs, "b"), "b/3.png": image_bytes(pictures[0][:32])}
    write_tree(
        tmp_path, {"1.tar.gz": tar_of({**numbered(pngs, "a"), **odd, "c/1_1.png": pngs[0], "c/2_2.png": pngs[1]})}
    )
    found = probe_archive(reader(tmp_path), SourceRef("1.tar.gz"), LIMITS).sequences
    assert {folder: probe.code for folder, probe in found.items()} == {
        "a": None, "b": Code.E_PROBE, "c": Code.E_NAME_GRAMMAR,
    }  # fmt: skip


def test_no_room_for_copies_is_no_fault_of_a_sequence(tmp_path: Path, pngs: list[bytes]) -> None:
    write_tree(tmp_path, {"1.tar": tar_of(numbered(pngs), compressed=False)})
    source = SourceReader(open_store(str(tmp_path)), scratch=str(tmp_path / "nowhere"))
    with pytest.raises(UnreadableError, match="cannot keep copies"), source.local(SourceRef("1.tar!/")):
        pass


# ---- stores that are not local ---------------------------------------------------------------------------------------


@pytest.fixture
def remote(tmp_path: Path, pngs: list[bytes]) -> SourceReader:
    """Return a reader of a store that is not local, with a folder of images and an archive of two sequences."""
    store = Store(f"memory://{tmp_path.name}")
    for path, data in {**numbered(pngs, "real/a"), "real/a/b/0.png": pngs[0], "real/a/x.txt": b"x"}.items():
        store.publish(path, data)
    store.publish("1.tar.gz", tar_of(numbered(pngs, "1/real/3") | numbered(pngs[:5], "1/real/4")))
    return SourceReader(store, str(tmp_path), cache_bytes=1 << 30)


def test_a_folder_of_a_store_is_read_for_each_use(remote: SourceReader, pngs: list[bytes], tmp_path: Path) -> None:
    probe = probe_file(remote, SourceRef("real/a/", "mark", 1000), LIMITS)
    assert probe.sha256 == source_sha256(write_tree(tmp_path / "same", numbered(pngs)))
    n_bytes = sum(map(len, pngs))
    assert (probe.code, probe.n_frames_promised, remote.n_fetched) == (None, 12, n_bytes)
    with remote.local(SourceRef("real/a/", "mark"), keep=False) as folder:
        assert image_names(folder) == [*numbered(pngs)]
    assert remote.n_fetched == 2 * n_bytes
    assert probe_file(remote, SourceRef("real/gone/", "mark"), LIMITS).code == Code.E_MISSING_FILE
    small = replace(LIMITS, max_bytes=n_bytes - 1)
    assert probe_file(remote, SourceRef("real/a/", "mark"), small).code == Code.E_LIMIT
    assert remote.n_fetched == 2 * n_bytes  # that one was not fetched


def test_an_archive_of_a_store_is_fetched_once_for_all_its_sequences(remote: SourceReader) -> None:
    file = SourceRef("1.tar.gz", "mark", remote.store.size("1.tar.gz"))
    found = probe_archive(remote, file, LIMITS)
    for folder, probe in found.sequences.items():
        with remote.local(SourceRef(f"1.tar.gz!/{folder}/", "mark"), keep=False) as path:
            assert source_sha256(path) == probe.sha256
    assert (len(found.sequences), remote.n_fetched) == (2, file.n_bytes)
    assert probe_archive(remote, file, replace(LIMITS, max_bytes=100)).own.code == Code.E_LIMIT
