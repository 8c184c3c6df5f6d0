"""Window decoding of rarer forms: fields, film grain, edit lists, two descriptions of samples, joined streams."""

import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from lps.pipeline.video.container import scan_packets
from tests.pipeline.video.window_checks import (
    PARAMS,
    AnyPacket,
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
KEYS = {"g": "20", "keyint_min": "20", "sc_threshold": "0"}
PYRAMID = {**KEYS, "bf": "3", "refs": "4", "b_strategy": "0"}
X265 = {"x265-params": "log-level=none:keyint=20:min-keyint=20"}
START = b"\0\0\0\1"


class Bitstream:
    """Writes numbers as H.264 and HEVC code them."""

    def __init__(self) -> None:
        self.bits = ""

    def fixed(self, *numbers: tuple[int, int]) -> "Bitstream":
        """Write numbers of fixed length, each (bits, value)."""
        self.bits += "".join(f"{value:0{n}b}" for n, value in numbers)
        return self

    def golomb(self, *values: int) -> "Bitstream":
        for value in values:
            self.bits += f"{value + 1:b}".zfill(2 * (value + 1).bit_length() - 1)
        return self

    def align(self, bit: str = "0") -> "Bitstream":
        self.bits += bit * (-len(self.bits) % 8)
        return self

    def unit(self, head: bytes) -> bytes:
        """Return a unit: its head, what was written, the bit that ends it; start codes are kept out."""
        self.bits += "1"
        data = bytearray()
        zeros = 0
        for byte in head + int(self.align().bits, 2).to_bytes(len(self.bits) // 8, "big"):
            if zeros == 2 and byte <= 3:
                data.append(3)
                zeros = 0
            data.append(byte)
            zeros = zeros + 1 if byte == 0 else 0
        return bytes(data)


# ---- what a message adds to the picture ------------------------------------------------------------------------------


def film_grain(*, persists: bool) -> bytes:
    """Return a message of HEVC (ITU-T H.274, 8.5) that adds grain to the luma of a picture, or of all from it on."""
    bits = Bitstream().fixed((1, 0), (2, 0), (1, 0), (2, 0), (4, 2), (1, 1), (1, 0), (1, 0))
    bits.fixed((8, 0), (3, 2), (8, 0), (8, 255)).golomb(159, 15, 15).fixed((1, persists)).align("1")
    payload = int(bits.bits, 2).to_bytes(len(bits.bits) // 8, "big")
    return b"\x4e\x01\x13" + bytes([len(payload)]) + payload + b"\x80"


@pytest.mark.parametrize("persists", [True, False])
def test_film_grain(write_video: Write, scene: Scene, tmp_path: Path, persists: bool) -> None:
    """What is added to all later pictures is told once, and forgotten where decoding starts anew."""
    path = write_video(tmp_path / "a.mp4", scene(N_FRAMES, *LARGE), codec="libx265", options=X265)
    unit = film_grain(persists=persists)
    message = len(unit).to_bytes(4, "big") + unit
    grainy = rewritten(
        path,
        tmp_path / "b.mp4",
        lambda k, packet: with_bytes(packet, message + bytes(packet)) if k == 0 else packet,
    )
    plain, other = (whole(file, scan_packets(file, PARAMS.limits)) for file in (path, grainy))
    changed = sum(one.pixels != two.pixels for one, two in zip(plain, other, strict=True))
    assert changed == (N_FRAMES if persists else 1), "the trap is real"
    assert index_of(path) is not None
    assert index_of(grainy) is None


def test_pictures_of_jpeg_with_some_tables_of_their_own(write_video: Write, scene: Scene, tmp_path: Path) -> None:
    """Those that they lack are those of the picture before, which may have had others than the first."""

    def change(number: int, packet: AnyPacket) -> AnyPacket:
        data = bytes(packet)
        at = data.index(b"\xff\xdb")
        other = b"\xff\xdb\0\x43\1" + bytes([1 + number] * 64)  # number 1, which no picture uses
        return with_bytes(packet, data[:at] + other + data[at:]) if number != 10 else packet

    path = write_video(tmp_path / "a.mkv", scene(20), codec="mjpeg", pix_fmt="yuvj420p", options={"g": "1"})
    assert index_of(path) is not None
    assert index_of(rewritten(path, tmp_path / "b.mkv", change)) is None


# ---- fields ----------------------------------------------------------------------------------------------------------

MACROBLOCKS, FIELD_ROWS = 4, 2


def raw_macroblock(bits: Bitstream, rng: np.random.Generator, kind: int) -> None:
    bits.golomb(kind).align()
    base = int(rng.integers(16, 200))
    bits.bits += "".join(f"{sample:08b}" for sample in rng.integers(base, base + 20, 384))


def field_unit(number: int, bottom: int, group: int, rng: np.random.Generator) -> bytes:
    """Return one field of an H.264 picture: raw macroblocks, in P fields after some that repeat an earlier field."""
    key = number == 0 and not bottom
    bits = Bitstream().golomb(0, 7 if key else 5, 0).fixed((4, number % 16), (1, 1), (1, bottom))
    if key:
        bits.golomb(group % 2).fixed((8, 0), (2, 0))
    else:
        bits.fixed((8, 2 * number + bottom), (1, 0), (1, 0), (1, 0))
    bits.golomb(0, 1)  # quantizer, no deblocking
    n = MACROBLOCKS * FIELD_ROWS
    if key:
        for _ in range(n):
            raw_macroblock(bits, rng, 25)
    else:
        skipped = int(rng.integers(0, n - 1))
        raw_macroblock(bits.golomb(skipped), rng, 30)
        bits.golomb(n - skipped - 1)
    return bits.unit(b"\x65" if key else b"\x61")


def field_coded(n: int, group: int) -> Iterable[tuple[bytes, bytes]]:
    """Yield pictures of H.264 as two fields each, which no encoder at hand writes."""
    sequence = Bitstream().fixed((8, 77), (8, 0), (8, 30)).golomb(0, 0, 0, 4, 2).fixed((1, 0))
    sequence.golomb(MACROBLOCKS - 1, FIELD_ROWS - 1).fixed((1, 0), (1, 0), (1, 1), (1, 0), (1, 0))
    picture = Bitstream().golomb(0, 0).fixed((1, 0), (1, 0)).golomb(0, 0, 0).fixed((1, 0), (2, 0)).golomb(0, 0, 0)
    picture.fixed((1, 1), (1, 0), (1, 0))
    head = START + sequence.unit(b"\x67") + START + picture.unit(b"\x68")
    rng = np.random.default_rng(0)
    for k in range(n):
        top, bottom = (START + field_unit(k % group, field, k // group, rng) for field in (0, 1))
        yield (head if k % group == 0 else b"") + top, bottom


@pytest.mark.parametrize("together", [True, False], ids=["pairs", "fields"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_pictures_that_are_coded_as_fields(tmp_path: Path, name: str, together: bool) -> None:
    pictures = list(field_coded(N_FRAMES, 20))
    raw = tmp_path / "a.h264"
    raw.write_bytes(b"".join(top + bottom for top, bottom in pictures))
    with av.open(str(raw)) as source, av.open(str(tmp_path / name), "w") as sink:
        stream = sink.add_stream_from_template(source.streams.video[0], opaque=True)
        for k, (top, bottom) in enumerate(pictures):
            for field, data in enumerate([top + bottom] if together else [top, bottom]):
                packet: AnyPacket = av.Packet(data)
                packet.pts = packet.dts = 2 * k + field
                packet.duration = 2 if together else 1
                packet.time_base, packet.is_keyframe, packet.stream = Fraction(1, 50), k % 20 == field == 0, stream
                sink.mux(packet)
    frames = whole(tmp_path / name, scan_packets(tmp_path / name, PARAMS.limits))
    assert len(frames) == len({frame.pixels for frame in frames}) == N_FRAMES
    assert index_of(tmp_path / name) is None


# ---- boxes of MP4 ----------------------------------------------------------------------------------------------------

TRACK = ("moov", "trak")
TABLES = (*TRACK, "mdia", "minf", "stbl")


def box(name: str, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name.encode() + content


def find(data: bytes, path: Sequence[str]) -> tuple[int, int]:
    """Return where the first box of a path begins and ends."""
    at, end = 0, len(data)
    for name in path:
        while data[at + 4 : at + 8] != name.encode():
            at += int.from_bytes(data[at : at + 4], "big")
        end = at + int.from_bytes(data[at : at + 4], "big")
        at, inner = at + 8, at
    return inner, end


def with_box(data: bytes, path: Sequence[str], new: bytes) -> bytes:
    """Return a file with another box at a path; nothing in the file points behind it."""
    at, end = find(data, path)
    out = bytearray(data[:at] + new + data[end:])
    for k in range(1, len(path)):
        outer, _ = find(data, path[:k])
        size = int.from_bytes(out[outer : outer + 4], "big") + len(new) - (end - at)
        out[outer : outer + 4] = size.to_bytes(4, "big")
    return bytes(out)


EDITS = (
    [(2000, 10)],
    [(1400, 27)],
    [(1000, -1), (1400, 25)],
    [(800, 20), (800, 40)],
    [(800, 41), (800, 13)],
    [(800, 30), (800, 30)],
)
"""Lists of milliseconds to show and the frame to begin with; -1: nothing."""


@pytest.mark.parametrize(
    ("codec", "options"), [("libx264", PYRAMID), ("libx265", X265), ("mpeg4", {**KEYS, "bf": "2"})]
)
def test_edit_lists(write_video: Write, scene: Scene, tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    path = write_video(tmp_path / "a.mp4", scene(N_FRAMES, *LARGE), codec=codec, options=options)
    with av.open(str(path)) as source:
        ticks = round(Fraction(1, 25) / (source.streams.video[0].time_base or 1))
    n_decoded = 0
    for edits in EDITS:
        listed = b"".join(struct.pack(">IiI", ms, max(-1, frame * ticks), 1 << 16) for ms, frame in edits)
        edited = tmp_path / "b.mp4"
        content = box("elst", struct.pack(">II", 0, len(edits)) + listed)
        edited.write_bytes(with_box(path.read_bytes(), (*TRACK, "edts"), box("edts", content)))
        scan = scan_packets(edited, PARAMS.limits)
        if scan.windows(PARAMS.max_step) is not None and len(whole(edited, scan)) == scan.n_frames:
            assert_same_frames(edited, may_refuse=True)
            n_decoded += 1
    assert n_decoded >= 2, "else nothing was tried"


@pytest.mark.parametrize("refs", ["1", "4"], ids=["other parameters", "the same"])
def test_two_descriptions_of_samples(write_video: Write, scene: Scene, tmp_path: Path, refs: str) -> None:
    """The second's parameters reach the decoder with the first packet that it describes."""
    paths = [
        write_video(tmp_path / f"{k}.mp4", scene(40, seed=k), options={**PYRAMID, "refs": one})
        for k, one in enumerate(("4", refs))
    ]
    data = joined(paths, tmp_path / "joined.mp4").read_bytes()
    entries = []
    for file in (data, paths[1].read_bytes()):
        at, end = find(file, (*TABLES, "stsd"))
        entries.append(file[at + 16 : end])
    at, end = find(data, (*TABLES, "stsz"))
    sizes = struct.unpack(">80I", data[at + 20 : end])
    at, _ = find(data, (*TABLES, "stco"))
    first = int.from_bytes(data[at + 16 : at + 20], "big")
    places = [first + sum(sizes[:k]) for k in range(80)]
    data = with_box(data, (*TABLES, "stsd"), box("stsd", struct.pack(">II", 0, 2) + b"".join(entries)))
    data = with_box(data, (*TABLES, "stsc"), box("stsc", struct.pack(">8I", 0, 2, 1, 1, 1, 41, 1, 2)))
    data = with_box(data, (*TABLES, "stco"), box("stco", struct.pack(">82I", 0, 80, *places)))
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    frames = whole(path, scan_packets(path, PARAMS.limits))
    expected = [frame.pixels for one in paths for frame in whole(one, scan_packets(one, PARAMS.limits))]
    assert [frame.pixels for frame in frames] == expected
    assert index_of(path) is None


# ---- transport streams -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_transport_streams(write_video: Write, scene: Scene, tmp_path: Path, codec: str) -> None:
    """One whose times begin anew is decoded whole; one whose clock goes round is not."""
    options = X265 if codec == "libx265" else PYRAMID

    def write(name: str, begin_s: float, seed: int = 0) -> Path:
        at = {"output_ts_offset": str(begin_s)}
        return write_video(tmp_path / name, scene(N_FRAMES, seed=seed), codec=codec, options=options, container=at)

    round_the_clock = write("b.ts", 2**33 / 90_000 - 2.5)
    times = [frame.pts_ticks for frame in whole(round_the_clock, scan_packets(round_the_clock, PARAMS.limits))]
    assert times == sorted(times)
    assert_same_frames(round_the_clock)
    one, again = write("1.ts", 0), write("2.ts", 0, seed=1)
    both = tmp_path / "a.ts"
    both.write_bytes(one.read_bytes() + again.read_bytes())
    assert index_of(both) is None
