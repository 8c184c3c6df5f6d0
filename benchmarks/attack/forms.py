"""The undamaged videos that are attacked: one short face, coded and packed in every way, and cuts of real media."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from lps.pipeline.sources.shared.types import VIDEO_SUFFIXES
from lps.pipeline.tools.demo_videos import make_face_video

N_FRAMES, WIDTH, HEIGHT, GOP = 48, 192, 128, 12

X265 = f"log-level=none:keyint={GOP}:min-keyint={GOP}:pools=none:frame-threads=1"
AnyPacket = Any
"""`av.Packet`, whose stub is generic over the kind of its stream."""
MAX_REAL_BYTES = 3 << 20
REAL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Coding:
    """One way to code and pack a video."""

    name: str
    suffix: str
    encoder: str
    options: Mapping[str, str] = field(default_factory=dict)
    container: Mapping[str, str] = field(default_factory=dict)
    family: str = ""
    """Which changes know its format: mp4, mkv, ts, raw, or none."""


CODINGS = (
    Coding("h264-b.mp4", ".mp4", "libx264", {"bf": "3", "refs": "4"}, family="mp4"),
    Coding("h264-p.mp4", ".mp4", "libx264", {"bf": "0"}, {"movflags": "faststart"}, family="mp4"),
    Coding("h264-opengop.mp4", ".mp4", "libx264", {"bf": "3", "x264-params": "open-gop=1"}, family="mp4"),
    Coding(
        "h264-fragments.mp4", ".mp4", "libx264", {"bf": "2"}, {"movflags": "frag_keyframe+empty_moov"}, family="mp4"
    ),
    Coding("hevc.mp4", ".mp4", "libx265", {"x265-params": X265}, family="mp4"),
    Coding("mpeg4.mp4", ".mp4", "mpeg4", {"bf": "2"}, family="mp4"),
    Coding("h264-b.mkv", ".mkv", "libx264", {"bf": "3"}, family="mkv"),
    Coding("hevc.mkv", ".mkv", "libx265", {"x265-params": X265}, family="mkv"),
    Coding("vp9.webm", ".webm", "libvpx-vp9", {"lag-in-frames": "8", "cpu-used": "8"}, family="mkv"),
    Coding("vp8.webm", ".webm", "libvpx", {"lag-in-frames": "8", "cpu-used": "8"}, family="mkv"),
    Coding("h264-b.ts", ".ts", "libx264", {"bf": "3"}, family="ts"),
    Coding("hevc.ts", ".ts", "libx265", {"x265-params": X265}, family="ts"),
    Coding("mpeg2.ts", ".ts", "mpeg2video", {"bf": "2"}, family="ts"),
    Coding("h264-b.h264", ".h264", "libx264", {"bf": "3"}, family="raw"),
    Coding("h264-p.h264", ".h264", "libx264", {"bf": "0", "refs": "3"}, family="raw"),
    Coding("hevc.h265", ".h265", "libx265", {"x265-params": X265}, family="raw"),
    Coding("mpeg2.m2v", ".m2v", "mpeg2video", {"bf": "2"}, family="raw"),
    Coding("mpeg4.avi", ".avi", "mpeg4", {"bf": "0"}),
    Coding("mpeg2.mpg", ".mpg", "mpeg2video", {"bf": "2"}),
)
FAMILIES = {".mp4": "mp4", ".mov": "mp4", ".m4v": "mp4", ".mkv": "mkv", ".webm": "mkv", ".ts": "ts"}


@dataclass(frozen=True, slots=True)
class Form:
    """One undamaged video."""

    name: str
    path: Path
    family: str


def make_forms(folder: Path, media: Path | None) -> list[Form]:
    """Code the videos, and cut some of real media. What an encoder here lacks is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    face = folder / "face.mp4"
    make_face_video(face, n_frames=N_FRAMES, width=320, height=240, seed=1)
    with av.open(str(face)) as source:
        images = [f.reformat(width=WIDTH, height=HEIGHT, format="yuv420p") for f in source.decode(video=0)]
    made = []
    for coding in CODINGS:
        if coding.encoder in av.codecs_available:
            code(folder / coding.name, images, coding)
            made.append(Form(coding.name, folder / coding.name, coding.family))
    real = [] if media is None else sorted(path for path in media.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    return [*made, *(form for path in real if (form := cut_of(path, folder)) is not None)]


def code(path: Path, images: Sequence[VideoFrame], coding: Coding) -> None:
    """Write a video of 25 frames/s."""
    with av.open(str(path), "w", options=dict(coding.container)) as sink:
        options = {"threads": "1", "g": str(GOP), "keyint_min": str(GOP), "sc_threshold": "0", **coding.options}
        stream = sink.add_stream(coding.encoder, rate=25, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 300_000
        for k, image in enumerate(images):
            image.pts, image.time_base = k, Fraction(1, 25)
            sink.mux(stream.encode(image))
        sink.mux(stream.encode(None))


def cut_of(path: Path, folder: Path) -> Form | None:
    """Return the first seconds of a real video, its packets copied; None for one that is large or cannot be copied."""
    out = folder / f"real-{path.stem}{path.suffix.lower()}"

    def change(packets: list[AnyPacket]) -> list[AnyPacket]:
        return [packet for packet in packets if float((packet.dts or 0) * (packet.time_base or 0)) < REAL_SECONDS]

    try:
        repack(path, out, change)
    except (av.FFmpegError, ValueError):
        out.unlink(missing_ok=True)
        return None
    if not 0 < out.stat().st_size <= MAX_REAL_BYTES:
        return None
    return Form(out.name, out, FAMILIES.get(out.suffix, ""))


def repack(path: Path, out: Path, change: Callable[[list[AnyPacket]], list[AnyPacket]]) -> None:
    """Write a video anew with what `change` makes of its packets."""
    with av.open(str(path)) as source, av.open(str(out), "w") as sink:
        stream = source.streams.video[0]
        copy = sink.add_stream_from_template(stream, opaque=True)
        packets = [packet for packet in islice(source.demux(stream), 5000) if packet.size]
        for packet in change(packets):
            packet.stream = copy
            sink.mux(packet)


# ---- changes of packets ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PacketEdit:
    """A change of packet `number` in coded order, before the container is written anew."""

    way: str
    number: int
    other: int = 0
    """Another packet, a step in ticks, or a place in its bytes."""

    def __str__(self) -> str:
        return f"packet {self.number} {self.way} ({self.other})"


WAYS = ("lost", "payload of", "zeroed from", "cut at", "later by", "key flag")


def propose_packets(n_packets: int, rng: random.Random) -> list[PacketEdit]:
    """Return changes of packets: lost ones, another's payload, zeros, cuts, other times, wrong flags."""
    found = []
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        way = rng.choice(WAYS)
        other = rng.randrange(n_packets) if way == "payload of" else rng.choice((1, 2, 7, 40, 300, 4000))
        found.append(PacketEdit(way, rng.randrange(n_packets), other))
    return found


def packets_edited(form: Form, edits: Sequence[PacketEdit], out: Path) -> None:
    """Write a form anew with changed packets. Raises FFmpegError where the container refuses them."""
    by_number: dict[int, list[PacketEdit]] = {}
    for edit in edits:
        by_number.setdefault(edit.number, []).append(edit)

    def change(packets: list[AnyPacket]) -> list[AnyPacket]:
        payloads, found = [bytes(packet) for packet in packets], []
        for number, packet in enumerate(packets):
            changed: AnyPacket | None = packet
            for edit in by_number.get(number, []):
                changed = _changed(changed, edit, payloads) if changed is not None else None
            if changed is not None:
                found.append(changed)
        return found

    repack(form.path, out, change)


def _changed(packet: AnyPacket, edit: PacketEdit, payloads: Sequence[bytes]) -> AnyPacket | None:
    data = bytes(packet)
    match edit.way:
        case "lost":
            return None
        case "payload of":
            return _with_bytes(packet, payloads[edit.other % len(payloads)])
        case "zeroed from":
            return _with_bytes(packet, data[: edit.other] + bytes(max(0, len(data) - edit.other)))
        case "cut at":
            return _with_bytes(packet, data[: edit.other] or b"\0")
        case "later by":
            packet.pts = None if packet.pts is None else packet.pts + edit.other
        case _:
            packet.is_keyframe = not packet.is_keyframe
    return packet


def _with_bytes(packet: AnyPacket, data: bytes) -> AnyPacket:
    changed: AnyPacket = av.Packet(data)
    changed.pts, changed.dts, changed.duration = packet.pts, packet.dts, packet.duration
    changed.time_base, changed.is_keyframe = packet.time_base, packet.is_keyframe
    return changed
