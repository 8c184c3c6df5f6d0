"""Damage found over damage made: a packet is taken out of a video, or overwritten; which frames come out wrong?

    python benchmarks/damage.py                     frames of a sample video of lps-prep demo
    python benchmarks/damage.py --media DIR         frames of a video with the name of SOURCE

For each codec and container a video is coded, and decoded whole: that is the truth. Then, at each position, one packet
is taken out (the container written anew) or 16 bytes in its middle are overwritten. `harm`: trials in which a frame
decodes that is no frame of the whole video. `found`: of these, trials in which all such frames are marked as spoiled.
`missed`: wrong frames that are not. `lost`: share of the right frames that were given up with the wrong ones.
"""

import argparse
import os
import random
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import av
import media  # type: ignore[import-not-found]  # beside this file
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from rich.console import Console
from rich.table import Table

from lps.manifests.errors import VideoFault
from lps.pipeline.config.params import Params
from lps.pipeline.video.decode import DecodeStats, decode

SOURCE = ("woman_head_turns_512.mp4",)
SIDE_PX = 192
GOP = 30
N_BYTES = 16

os.environ.setdefault("SVT_LOG", "1")  # errors only


@dataclass(frozen=True, slots=True)
class Coding:
    """One way to code a video."""

    name: str
    encoder: str
    containers: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)


CODINGS = (
    Coding("h264, P only", "libx264", ("mp4", "mkv", "ts", "avi"), {"bf": "0", "refs": "3"}),
    Coding("h264, B pyramid", "libx264", ("mp4", "mkv", "ts", "avi"), {"bf": "3", "refs": "4"}),
    Coding("h264, open GOP", "libx264", ("mp4",), {"bf": "3", "x264-params": "open-gop=1"}),
    Coding("h264, refresh", "libx264", ("mp4",), {"bf": "0", "x264-params": "intra-refresh=1"}),
    Coding("hevc", "libx265", ("mp4", "mkv", "ts"), {"x265-params": f"log-level=none:keyint={GOP}:min-keyint={GOP}"}),
    Coding("mpeg4, P only", "mpeg4", ("mp4", "mkv", "avi"), {"bf": "0"}),
    Coding("mpeg4, B", "mpeg4", ("mp4", "mkv", "avi"), {"bf": "2"}),
    Coding("mpeg2, P only", "mpeg2video", ("mpg", "ts"), {"bf": "0"}),
    Coding("mpeg2, B", "mpeg2video", ("mpg", "ts", "mkv"), {"bf": "2"}),
    Coding("vp8", "libvpx", ("webm",), {"auto-alt-ref": "1", "lag-in-frames": "16"}),
    Coding("vp9", "libvpx-vp9", ("webm", "mp4"), {"lag-in-frames": "16"}),
    Coding("av1", "libsvtav1", ("mp4", "mkv"), {"preset": "10"}),
    Coding("mjpeg", "mjpeg", ("mp4", "avi"), {}),
)


@dataclass(slots=True)
class Found:
    """One row of the table: what came of all trials of one kind."""

    trials: int = 0
    harm: int = 0
    found: int = 0
    missed: int = 0
    right: int = 0
    given_up: int = 0

    def add(self, frames: Sequence[tuple[int, bool]], truth: frozenset[int]) -> None:
        """Count a trial by its frames: digest, and whether it is marked as spoiled."""
        wrong = [spoiled for digest, spoiled in frames if digest not in truth]
        self.trials += 1
        self.harm += bool(wrong)
        self.found += bool(wrong) and all(wrong)
        self.missed += sum(not spoiled for spoiled in wrong)
        self.right += len(frames) - len(wrong)
        self.given_up += sum(spoiled for digest, spoiled in frames if digest in truth)


def code(path: Path, images: Sequence[VideoFrame], coding: Coding) -> None:
    """Write a video of constant rate, 25 frames/s."""
    with av.open(str(path), "w") as sink:
        options = {"threads": "1", "g": str(GOP), "keyint_min": str(GOP), "sc_threshold": "0", **coding.options}
        stream = sink.add_stream(coding.encoder, rate=25, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = images[0].width, images[0].height
        stream.pix_fmt = "yuvj420p" if coding.encoder == "mjpeg" else "yuv420p"
        stream.bit_rate = 400_000
        for k, image in enumerate(images):
            image.pts = k
            sink.mux(stream.encode(image))
        sink.mux(stream.encode(None))


def without_packet(path: Path, out: Path, number: int) -> None:
    """Write the packets of a video anew, all but one."""
    with av.open(str(path)) as source, av.open(str(out), "w") as sink:
        stream = source.streams.video[0]
        copy = sink.add_stream_from_template(stream, opaque=True)
        for k, packet in enumerate(packet for packet in source.demux(stream) if packet.size):
            if k != number:
                packet.stream = copy
                sink.mux(packet)


def overwritten(path: Path, out: Path, number: int) -> None:
    """Write other bytes over N_BYTES in the middle of one packet, where they lie in the file in one piece."""
    with av.open(str(path)) as source:
        packet = next(islice((packet for packet in source.demux(video=0) if packet.size), number, None))
        payload, position = bytes(packet), packet.pos or 0
    data = bytearray(path.read_bytes())
    middle = len(payload) // 2
    for first in range(middle, max(0, middle - 200), -1):
        at = data.find(payload[first : first + N_BYTES], position)
        if at >= 0:
            noise = random.Random(number).randbytes(len(payload[first : first + N_BYTES]))
            data[at : at + len(noise)] = noise
            break
    out.write_bytes(bytes(data))


def seen(path: Path) -> list[tuple[int, bool]]:
    """Return digest and mark of each frame that decodes."""
    frames = []
    try:
        for frame in decode(path, Params(), DecodeStats()):
            frames.append((zlib.crc32(frame.native.to_ndarray().tobytes()), frame.spoiled))
    except VideoFault:
        return []
    return frames


def measure(images: Sequence[VideoFrame], coding: Coding, container: str, n: int, folder: Path) -> tuple[Found, Found]:
    """Return what was found of packets taken out, and of packets overwritten."""
    whole, damaged = folder / f"whole.{container}", folder / f"damaged.{container}"
    code(whole, images, coding)
    frames = seen(whole)
    truth = frozenset(digest for digest, _ in frames)
    assert not any(spoiled for _, spoiled in frames), f"{coding.name} in {container}: a whole video is marked"
    with av.open(str(whole)) as source:
        n_packets = sum(1 for packet in source.demux(video=0) if packet.size)
    removed, written_over = Found(), Found()
    for number in np.linspace(1, n_packets - 2, n).round().astype(int):
        for make, row in ((without_packet, removed), (overwritten, written_over)):
            make(whole, damaged, int(number))
            row.add(seen(damaged), truth)
    return removed, written_over


def cells(row: Found) -> list[str]:
    """Return the row's columns as text."""
    lost = row.given_up / row.right if row.right else 0.0
    return [str(row.trials), str(row.harm), str(row.found), str(row.missed), f"{lost:.1%}"]


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    media.add_media_options(parser)
    parser.add_argument("--frames", type=int, default=100, help="frames of each video; default 100")
    parser.add_argument("--positions", type=int, default=20, help="packets damaged, one at a time; default 20")
    parser.add_argument("--codings", type=int, default=len(CODINGS), help="only the first N of the codings")
    args = parser.parse_args()
    with media.videos(args.media, SOURCE) as paths, tempfile.TemporaryDirectory(prefix="lps-damage-") as folder:
        frames = islice(decode(paths[0], Params(), DecodeStats()), args.frames)
        images = [frame.native.reformat(width=SIDE_PX, height=SIDE_PX, format="yuv420p") for frame in frames]
        table = Table("coding", "container", "damage", "trials", "harm", "found", "missed", "lost")
        for coding in CODINGS[: args.codings]:
            for container in coding.containers:
                rows = measure(images, coding, container, args.positions, Path(folder))
                for name, row in zip(("taken out", "overwritten"), rows, strict=True):
                    table.add_row(coding.name, container, name, *cells(row))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
