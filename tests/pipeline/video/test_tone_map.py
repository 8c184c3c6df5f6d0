"""PQ and HLG: a master looks alike from an SDR, a PQ and an HLG file, as FFmpeg's filters show it, on any machine."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from lps.manifests.arrays import Floats
from lps.manifests.codes import Code
from lps.manifests.errors import VideoFault
from lps.manifests.records import Header
from lps.pipeline.config.params import Params
from lps.pipeline.video.container import read_header
from lps.pipeline.video.decode import DecodeStats, decode
from lps.pipeline.video.tone_map import (
    BT709,
    BT2020,
    PEAK_NITS,
    WHITE_NITS,
    eetf,
    hlg_scene,
    pq_light,
    pq_signal,
    to_xyz,
    tone_map_of,
)
from tests.builders import LIMITS, decoded, decoded_by_pyav

Image = NDArray[np.uint8]
Scene = Callable[..., list[Image]]

SDR, PQ, HLG = 1, 16, 18
"""Code points of the transfer function."""


def light_of(master: Image) -> Floats:
    """Return the light, nits of BT.2020, of a picture of BT.709 whose white is the reference white."""
    light = (master / 255.0) ** 2.4 * WHITE_NITS
    return np.asarray(light @ np.linalg.solve(to_xyz(BT2020), to_xyz(BT709)).T)


def hlg_signal(light: Floats) -> Floats:
    """Return the HLG signal that a display of 1000 nits shows as `light`."""
    shown = light / PEAK_NITS
    luminance = (shown @ to_xyz(BT2020)[1])[..., None]
    scene = shown * np.maximum(luminance, 1e-12) ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.asarray(np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c))


def signal_of(light: Floats, transfer: int) -> NDArray[np.uint16]:
    """Return the 16-bit RGB signal that shows `light`."""
    signal = pq_signal(light) if transfer == PQ else hlg_signal(light)
    return np.asarray(np.rint(signal.clip(0, 1) * 65535), np.uint16)


class Coding(TypedDict, total=False):
    """How `write_hdr` encodes."""

    codec: str
    pix_fmt: str
    options: dict[str, str]


LOSSLESS = Coding(codec="libx265", options={"x265-params": "log-level=none:lossless=1:bframes=0"})


def write_hdr(
    path: Path,
    signals: Sequence[NDArray[np.uint16]],
    transfer: int,
    *,
    codec: str = "ffv1",
    pix_fmt: str = "yuv420p10le",
    matrix: int = 9,
    options: dict[str, str] | None = None,
    late: bool = False,
) -> Path:
    """Encode pictures of 16 bits, tagged with a transfer function and the primaries of BT.2020.

    `late` tags after the encoder has been opened: the container is told, the stream is not.
    """
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream(codec, rate=25, options=options or {})
        assert isinstance(stream, VideoStream)  # mypy
        stream.height, stream.width = signals[0].shape[:2]
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        if late:
            context.open()
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = transfer, 9, matrix, 1
        for k, signal in enumerate(signals):
            frame = av.VideoFrame.from_ndarray(signal, format="rgb48le")
            frame = frame.reformat(format=pix_fmt, dst_colorspace=Colorspace.BT2020, dst_color_range=ColorRange.MPEG)
            if not late:
                frame.color_trc, frame.color_primaries, frame.colorspace = transfer, 9, matrix
            frame.pts = k
            _mux(sink, stream.encode(frame))
        _mux(sink, stream.encode(None))
    return path


def _mux(sink: av.container.OutputContainer, packets: "list[av.Packet[VideoStream]]") -> None:
    """Write packets in the order of display: of a few frames, x265 leaves the times of decoding undefined."""
    for packet in packets:
        packet.dts = packet.pts
        sink.mux(packet)


@pytest.fixture(scope="module")
def master(scene: Scene) -> Image:
    """Return a picture with all tones and strong colours."""
    landscape = scene(1, 256, 128, seed=4)[0]
    ramp = np.repeat(np.linspace(0, 255, 256).astype(np.uint8)[None, :, None], 16, axis=0)
    bars = np.repeat(np.array([[[220, 60, 50], [60, 180, 70], [50, 70, 200], [225, 180, 150]]], np.uint8), 64, axis=1)
    return np.vstack([landscape, ramp.repeat(3, axis=2), bars.repeat(16, axis=0)])


@pytest.fixture(scope="module")
def files(master: Image, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Return the master as an SDR, a PQ and an HLG file."""
    folder = tmp_path_factory.mktemp("hdr")
    light = light_of(master)
    return {
        transfer: write_hdr(folder / f"{transfer}.mkv", [signal_of(light, transfer)] * 2, transfer)
        for transfer in (PQ, HLG)
    }


def statistics(picture: Image) -> Floats:
    """Return mean and deviation of brightness, and mean distance from grey."""
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).astype(np.float64)
    grey = picture.mean(axis=2)
    return np.array([grey.mean(), grey.std(), np.hypot(lab[..., 1] - 128, lab[..., 2] - 128).mean()])


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_master_looks_the_same_whatever_it_was_coded_as(master: Image, files: dict[int, Path], transfer: int) -> None:
    wanted, found = statistics(master), statistics(decoded(files[transfer])[0][0].rgb())
    washed_out = statistics(next(iter(decoded_by_pyav(files[transfer]).values())))
    assert found == pytest.approx(wanted, abs=8)
    assert washed_out[2] < wanted[2] - 8


# ---- as FFmpeg's filters show it -------------------------------------------------------------------------------------

LEVELS = (0.5, 1, 2, 5, 10, 20, 40, 60, 80, 100, 150, 203, 300, 450, 700, 1000)
"""Nits of the brightest channel of a patch."""
COLORS = ((1, 1, 1), (1, 0.65, 0.5), (0.5, 0.33, 0.25), (1, 0.15, 0.1), (0.15, 1, 0.2), (0.15, 0.25, 1))
"""Grey, two of skin, and three strong ones, linear BT.709."""
PATCH = 16
REFERENCES = Path(__file__).with_name("tone_map_references.json")
"""What filters of FFmpeg make of `chart`: it says which, and with what options."""


def chart() -> Floats:
    """Return the light of a chart: a row for each of COLORS, a column for each of LEVELS."""
    light = np.array(COLORS)[:, None, :] * np.array(LEVELS)[None, :, None]
    light = (light @ np.linalg.solve(to_xyz(BT2020), to_xyz(BT709)).T).clip(0)
    return np.asarray(light.repeat(PATCH, 0).repeat(PATCH, 1))


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Floats]:
    """Return the middle of each patch of the chart as this program shows it, by transfer function."""
    folder = tmp_path_factory.mktemp("chart")
    made = {}
    for name, transfer in (("pq", PQ), ("hlg", HLG)):
        path = write_hdr(folder / f"{name}.mkv", [signal_of(chart(), transfer)] * 2, transfer, **LOSSLESS)
        made[name] = decoded(path)[0][0].rgb()[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].astype(np.float64)
    return made


@pytest.mark.parametrize("name", ["pq", "hlg"])
def test_the_whole_curve_is_that_of_libplacebo(patches: dict[str, Floats], name: str) -> None:
    """Its display has a black of 1/1000 of white, so that it shows dark tones a little darker."""
    expected = np.array(reference(f"libplacebo {name}"))
    off = np.abs(patches[name] - expected)
    bright = np.array(LEVELS) >= 150
    assert off[0, bright].max() <= 1
    assert off[0].max() <= 6
    assert off[1:3].max() <= 12
    assert off.max() <= 21
    assert off.mean() < 6


@pytest.mark.parametrize(("filters", "most"), [("zscale pq", (2, 2, 2, 2, 2, 2)), ("scale hlg", (1, 2, 2, 4, 10, 6))])
def test_what_is_below_the_knee_stays_as_it_is(patches: dict[str, Floats], filters: str, most: tuple[int, ...]) -> None:
    """Filters that convert, but do not tone-map. That of HLG goes through a coarse table, which strong colours show."""
    dark = np.array(LEVELS) <= 80
    off = np.abs(patches[filters.split()[1]] - np.array(reference(filters)))[:, dark]
    assert (off.max(axis=(1, 2)) <= most).all()


def reference(name: str) -> list[list[list[int]]]:
    """Return the colours that a filter gave the patches."""
    made: dict[str, dict[str, list[list[list[int]]]]] = json.loads(REFERENCES.read_text())
    return made[name]["patches"]


# ---- the curve -------------------------------------------------------------------------------------------------------


def test_the_eetf() -> None:
    nits = np.linspace(0, PEAK_NITS, 5001)
    shown = eetf(nits)
    assert shown[nits < 85] == pytest.approx(nits[nits < 85], rel=1e-9)
    assert (np.diff(shown) >= 0).all()
    assert shown[-1] == pytest.approx(WHITE_NITS)
    # the knee of BT.2390 lies at 1.5 times the target's share of the peak, less a half
    most = pq_signal(np.array(WHITE_NITS)) / pq_signal(np.array(PEAK_NITS))
    knee = float(pq_light((1.5 * most - 0.5) * pq_signal(np.array(PEAK_NITS))))
    assert 85 < knee < 90
    assert eetf(np.array([knee * 1.05]))[0] < knee * 1.05 - 0.01


def test_signals_of_the_standards() -> None:
    """Reference white is 58 % of PQ and 75 % of HLG (BT.2408); HLG shows 203 nits there."""
    assert pq_signal(np.array(WHITE_NITS)) == pytest.approx(0.5807, abs=1e-4)
    assert pq_light(pq_signal(np.array([0.01, 1, 100, 4000]))) == pytest.approx([0.01, 1, 100, 4000])
    assert hlg_scene(np.array([0, 0.5, 1])) == pytest.approx([0, 1 / 12, 1], abs=1e-6)
    assert PEAK_NITS * hlg_scene(np.array(0.75)) ** 1.2 == pytest.approx(WHITE_NITS, rel=2e-3)


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("primaries", [9, 2, 12, 1])
def test_white_is_white_and_black_black(transfer: int, primaries: int) -> None:
    tones = tone_map_of(transfer, primaries)
    assert tones is not None
    greys = np.linspace(0, 65535, 257).round().astype(np.uint16)[None, :, None].repeat(3, axis=2)
    shown = tones.apply(greys)[0]
    assert shown[0].tolist() == [0, 0, 0]
    assert shown[-1].tolist() == [255, 255, 255]
    assert (np.ptp(shown.astype(int), axis=1) <= 1).all()
    assert (np.diff(shown[:, 0].astype(int)) >= 0).all()


def test_other_video_is_left_as_it_is() -> None:
    for transfer in set(range(19)) - {PQ, HLG}:
        assert tone_map_of(transfer, 9) is None


def test_the_same_bytes_on_every_machine() -> None:
    steps = np.linspace(0, 65535, 24).round().astype(np.uint16)
    colors = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(24, -1, 3)
    digest = hashlib.sha256()
    for transfer in (PQ, HLG):
        for primaries in (9, 12, 1):
            tones = tone_map_of(transfer, primaries)
            assert tones is not None
            digest.update(tones.apply(colors).tobytes())
    assert digest.hexdigest() == "09066a6e52520e96bc584f56b417001e86bc2654736bddbbe284c76cca03538d"


# ---- frames ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "name"),
    [
        ("libx265", "yuv420p10le", "a.mkv"),
        ("libx264", "yuv420p10le", "a.mov"),
        ("prores_ks", "yuv422p10le", "a.mov"),
        ("ffv1", "yuv444p12le", "a.mkv"),
        ("ffv1", "yuv420p", "a.mkv"),
    ],
)
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_region_is_a_part_of_the_whole(
    master: Image, tmp_path: Path, transfer: int, codec: str, pix_fmt: str, name: str
) -> None:
    options = {"x265-params": "log-level=none:bframes=0"} if codec == "libx265" else {}
    signal = signal_of(light_of(master), transfer)
    path = write_hdr(tmp_path / name, [signal] * 2, transfer, codec=codec, pix_fmt=pix_fmt, options=options)
    random = np.random.default_rng(0)
    for turn in (0, 90, 180, 270):
        frame = replace(decoded(path)[0][1], rotation=turn)
        whole, (width, height) = frame.rgb(), frame.size
        for _ in range(10):
            x0, y0 = int(random.integers(0, width - 1)), int(random.integers(0, height - 1))
            x1, y1 = int(random.integers(x0 + 1, width + 1)), int(random.integers(y0 + 1, height + 1))
            assert np.array_equal(frame.region(x0, y0, x1, y1), whole[y0:y1, x0:x1]), (x0, y0, x1, y1)
        small = frame.small(64)
        shrunk = cv2.resize(whole, small.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - shrunk).mean() < 8


def test_dark_tones_come_from_more_than_8_bits(tmp_path: Path) -> None:
    """Every tone of a dark ramp is there; from 8 bits one in five is not."""
    light = np.linspace(0.5, 5, 512)[None, :, None].repeat(32, axis=0).repeat(3, axis=2)
    frame = decoded(write_hdr(tmp_path / "a.mkv", [signal_of(light, PQ)], PQ))[0][0]
    assert frame.tone_map is not None
    coarse = frame.tone_map.apply(replace(frame, tone_map=None).rgb().astype(np.uint16) * 257)
    assert set(np.diff(np.unique(frame.rgb()))) == {1}
    assert len(np.unique(coarse)) < 0.85 * len(np.unique(frame.rgb()))


def test_without_tone_mapping_the_code_values_stay(files: dict[int, Path]) -> None:
    for path in files.values():
        expected = decoded_by_pyav(path)
        for frame in decode(path, Params(tone_map=False), DecodeStats()):
            assert np.array_equal(frame.rgb(), expected[frame.pts_ticks])


@pytest.mark.parametrize(("codec", "container"), [("libx265", "mkv"), ("libx264", "mp4")])
def test_what_only_the_container_says_counts(
    master: Image, files: dict[int, Path], tmp_path: Path, codec: str, container: str
) -> None:
    """libav's HEVC decoder forgets what the container says."""
    path = write_hdr(
        tmp_path / f"a.{container}",
        [signal_of(light_of(master), PQ)] * 2,
        PQ,
        codec=codec,
        options=LOSSLESS["options"] if codec == "libx265" else {"qp": "0", "bf": "0"},
        late=True,
    )
    header = read_header(path, LIMITS)
    assert (header.color_transfer, header.color_primaries, header.color_matrix) == ("smpte2084", "bt2020", "bt2020nc")
    off = decoded(path)[0][0].rgb().astype(int) - decoded(files[PQ])[0][0].rgb()
    assert np.abs(off).mean() < 2


def test_a_matrix_without_a_name_is_that_of_the_standard(master: Image, files: dict[int, Path], tmp_path: Path) -> None:
    path = write_hdr(tmp_path / "a.mkv", [signal_of(light_of(master), PQ)], PQ, matrix=2)
    assert read_header(path, LIMITS).color_matrix == "unknown"
    assert np.array_equal(decoded(path)[0][0].rgb(), decoded(files[PQ])[0][0].rgb())


@pytest.mark.parametrize(("matrix", "name"), [(8, "ycgco"), (10, "bt2020c"), (14, "ictcp")])
def test_colors_that_cannot_be_converted_are_a_fault_of_the_video(
    master: Image, tmp_path: Path, matrix: int, name: str
) -> None:
    path = write_hdr(tmp_path / "a.mkv", [signal_of(light_of(master), PQ)], PQ, matrix=matrix)
    assert read_header(path, LIMITS).color_matrix == name
    with pytest.raises(VideoFault, match=name) as caught:
        decoded(path)
    assert caught.value.code is Code.E_DECODE


# ---- the header ------------------------------------------------------------------------------------------------------


def facts(header: Header) -> tuple[str | None, ...]:
    return header.color_transfer, header.color_primaries, header.color_matrix, header.color_range, header.field_order


def test_the_header_names_colors_and_fields(
    files: dict[int, Path], write_video: Callable[..., Path], scene: Scene, tmp_path: Path
) -> None:
    assert facts(read_header(files[PQ], LIMITS))[:4] == ("smpte2084", "bt2020", "bt2020nc", "tv")
    assert facts(read_header(files[HLG], LIMITS))[:4] == ("arib-std-b67", "bt2020", "bt2020nc", "tv")
    plain = write_video(tmp_path / "a.mp4", scene(4))
    assert facts(read_header(plain, LIMITS)) == ("unknown", "unknown", "unknown", "unknown", "progressive")
    for first, order in (("tff", "tt"), ("bff", "bb")):
        path = write_video(tmp_path / f"{first}.mp4", scene(4), options={"x264-params": f"{first}=1"})
        assert read_header(path, LIMITS).field_order == order
