"""Copies that check L6 finds, by where in a video its frames are hashed, and what it costs to reach these frames.

    python benchmarks/duplicates.py                 the sample videos of lps-prep demo
    python benchmarks/duplicates.py --media DIR     all videos below a folder

Every video is cut to its first frames, and copied in each of the ways of COPIES. A cell gives the share of the copies
that L6 confirms, and of those that it finds near at one frame at least. The last rows count pairs of different videos,
which should be none; they are named below the table. The threshold is calibrated as L6 does, from the originals; where
these are too few, it is the largest allowed.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, islice
from pathlib import Path

import av
import cv2
import media  # type: ignore[import-not-found]  # beside this file
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from rich.console import Console
from rich.table import Table

from lps.manifests.errors import VideoFault
from lps.manifests.splits.near_copies import LIMITS, Hashed, Pair, calibrate, compared
from lps.pipeline.clips.encode import RGB, perceptual_hash
from lps.pipeline.clips.places import hash_places
from lps.pipeline.config.params import Params
from lps.pipeline.video.container import read_header
from lps.pipeline.video.decode import DecodeStats, decode

Images = list[RGB]
Places = Callable[[int, float], list[int]]
Hash = tuple[bytes, int]

MIN_FRAMES = 60
CLIP_FRAMES = 60


def shares(*percents: int) -> Places:
    """Return the frames at percents of a video."""
    return lambda n, fps: [min(n - 1, round(n * percent / 100)) for percent in percents]


PLACES: Mapping[str, Places] = {
    "10, 50, 90 %": shares(10, 50, 90),
    "0, 10, 20 %": shares(0, 10, 20),
    "0, 1, 2 s": lambda n, fps: sorted(hash_places(n, fps)),
    "0, 2, 4 s": lambda n, fps: sorted(hash_places(n, 2 * fps)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A video as somebody else may hold it."""

    change: Callable[[Images, float], Images] = lambda images, fps: images
    crf: int = 23
    fps: float | None = None
    """Frame rate of the copy, where it is another."""


def resampled(images: Images, fps: float, to: float) -> Images:
    """Return what is shown at another frame rate."""
    return [images[int(k * fps / to)] for k in range(int(len(images) * to / fps))]


def halved(image: RGB) -> RGB:
    """Return an image of half the size."""
    return np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def cropped(image: RGB) -> RGB:
    """Return nine tenths of the height and width of an image."""
    h, w = image.shape[:2]
    return image[h // 20 : h - h // 20, w // 20 : w - w // 20]


COPIES: Mapping[str, Copy] = {
    "encoded anew, crf 23": Copy(),
    "crf 32": Copy(crf=32),
    "crf 40": Copy(crf=40),
    "half the size": Copy(change=lambda images, fps: [halved(image) for image in images]),
    "24 frames/s": Copy(change=lambda images, fps: resampled(images, fps, 24), fps=24),
    "last 1 s cut off": Copy(change=lambda images, fps: images[: -round(fps)]),
    "first 0.5 s cut off": Copy(change=lambda images, fps: images[round(fps / 2) :]),
    "first 1 s cut off": Copy(change=lambda images, fps: images[round(fps) :]),
    "first 2 s cut off": Copy(change=lambda images, fps: images[round(2 * fps) :]),
    "cropped by 10 %": Copy(change=lambda images, fps: [cropped(image) for image in images]),
    "mirrored": Copy(change=lambda images, fps: [image[:, ::-1] for image in images]),
}


@dataclass(frozen=True, slots=True)
class Video:
    """A video, or a copy of one: its hashes at all of PLACES."""

    n_frames: int
    fps: float
    hashes: Mapping[int, Hash]

    def at(self, places: Places) -> list[Hash]:
        """Return the hashes of three frames."""
        return [self.hashes[index] for index in places(self.n_frames, self.fps)]


def hashed(images: Iterable[RGB], n: int, fps: float) -> Video:
    """Hash the images that any of PLACES asks for."""
    wanted = {index for places in PLACES.values() for index in places(n, fps)}
    return Video(n, fps, {k: perceptual_hash(image) for k, image in enumerate(images) if k in wanted})


def read(path: Path, n: int) -> tuple[Images, float] | None:
    """Return the first frames of a video as L6 sees them, and its frame rate; None if it is too short or damaged."""
    params = Params()
    try:
        header = read_header(path, params.limits)
        frames = islice(decode(path, params, DecodeStats()), n)
        images = [frame.small(params.localize.detect_side_px) for frame in frames]
    except VideoFault:
        return None
    return (images, (header.fps_num or 25) / (header.fps_den or 1)) if len(images) >= MIN_FRAMES else None


def copied(images: Images, fps: float, copy: Copy, path: Path) -> Video | None:
    """Encode a copy and hash what is decoded of it; None where less than a second would remain."""
    images = copy.change(images, fps)
    fps = copy.fps or fps
    if len(images) < fps:
        return None
    with av.open(str(path), "w") as sink:
        options = {"threads": "1", "preset": "ultrafast", "crf": str(copy.crf)}
        stream = sink.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        assert isinstance(stream, VideoStream)
        height, width = (side // 2 * 2 for side in images[0].shape[:2])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in images:
            even = np.ascontiguousarray(image[:height, :width])
            sink.mux(stream.encode(VideoFrame.from_ndarray(even, format="rgb24")))
        sink.mux(stream.encode(None))
    with av.open(str(path)) as source:
        source.streams.video[0].codec_context.thread_count = 1
        decoded = (np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in source.decode(video=0))
        return hashed(decoded, len(images), fps)


def table_of(videos: Sequence[Video], places: Places) -> Hashed:
    """Return the hashes as L6 compares them: each video a group of its own."""
    found = [video.at(places) for video in videos]
    n = len(found)
    words = np.frombuffer(b"".join(bits for hashes in found for bits, _ in hashes), np.uint64).reshape(n, 3, 4)
    quality = np.array([[quality for _, quality in hashes] for hashes in found])
    one = np.full(n, "", np.str_)
    return Hashed(
        ids=[""] * n,
        uris=[""] * n,
        splits=one,
        datasets=one,
        groups=np.arange(n),
        words=words,
        usable=quality >= LIMITS["l6_min_quality"],
    )


def near(pair: Pair, threshold: int) -> bool:
    """Return whether the two are near at one frame at least."""
    return any(distance is not None and distance <= threshold for distance in pair.distances)


def threshold_of(originals: Sequence[Video], places: Places) -> int:
    """Return the largest distance that is near."""
    thresholds, _ = calibrate(table_of(originals, places), LIMITS)
    return thresholds[""] if thresholds[""] >= 0 else int(LIMITS["l6_max_distance"])


def pairs_of(videos: Sequence[Video], pairs: Sequence[tuple[int, int]], places: Places, threshold: int) -> list[Pair]:
    """Decide pairs of videos as L6 does."""
    both = [(a, b, mirrored) for a, b in pairs for mirrored in (False, True)]
    return compared(table_of(videos, places), both, np.full(len(videos), threshold))


def share_found(pairs: Sequence[tuple[Video, Video]], places: Places, threshold: int) -> str:
    """Return the share of originals and their copies that is confirmed, and the share near at some frame."""
    if not pairs:
        return ""
    videos = [video for pair in pairs for video in pair]
    found = pairs_of(videos, [(2 * k, 2 * k + 1) for k in range(len(pairs))], places, threshold)
    confirmed, some = sum(pair.confirmed for pair in found), sum(near(pair, threshold) for pair in found)
    return f"{confirmed / len(pairs):.0%} / {some / len(pairs):.0%}"


def frames_beside(places: Places, n: int, fps: float, gop: int) -> tuple[float, float]:
    """Return how many frames are decoded for a clip, and how many more for the hashes: means over all starts.

    Decoding begins at the key frame before a clip or before a frame that is hashed; the first frame is always decoded.
    """
    window, more = [], []
    for start in range(n - CLIP_FRAMES + 1):
        frames = {0, *range(start // gop * gop, start + CLIP_FRAMES)}
        hashes = {k for place in places(n, fps) for k in range(place // gop * gop, place + 1)}
        window.append(len(frames))
        more.append(len(hashes - frames))
    return float(np.mean(window)), float(np.mean(more))


def cost_table() -> Table:
    """Return what PLACES cost."""
    table = Table("frames", "key frames every", "decoded for a clip", *(f"more for {name}" for name in PLACES))
    for n, fps in ((300, 30), (500, 25)):
        for gop in (250, 30, 12):
            costs = [frames_beside(places, n, fps, gop) for places in PLACES.values()]
            table.add_row(str(n), str(gop), f"{costs[0][0]:.0f}", *(f"{more:.0f}" for _, more in costs))
    return table


def found_table(names: Sequence[str], originals: Sequence[Video], copies: Mapping[str, list[Video | None]]) -> Table:
    """Return the shares of copies that are found, and the pairs of different videos that are."""
    thresholds = {name: threshold_of(originals, places) for name, places in PLACES.items()}
    table = Table("copy", "copies", *PLACES)
    for kind, made in copies.items():
        pairs = [(original, copy) for original, copy in zip(originals, made, strict=True) if copy]
        cells = (share_found(pairs, places, thresholds[name]) for name, places in PLACES.items())
        table.add_row(kind, str(len(pairs)), *cells)
    others = list(combinations(range(len(originals)), 2))
    counts, said = [], defaultdict(list)
    for name, places in PLACES.items():
        found = pairs_of(originals, others, places, thresholds[name])
        counts.append([sum(p.confirmed for p in found), sum(near(p, thresholds[name]) for p in found)])
        for pair in found:
            if near(pair, thresholds[name]):
                said[names[pair.a], names[pair.b]].append(f"{name}: {pair.distances}")
    table.add_row("different videos", str(len(others)), *(f"{confirmed} / {some}" for confirmed, some in counts))
    table.add_row("threshold, bits", "", *map(str, thresholds.values()))
    table.caption = "\n".join(f"{a}, {b}: {'; '.join(distances)}" for (a, b), distances in said.items()) or None
    return table


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    media.add_media_options(parser)
    parser.add_argument("--frames", type=int, default=300, help="frames of each video; default 300")
    parser.add_argument("--limit", type=int, help="only so many videos")
    args = parser.parse_args()
    names, originals = [], []
    copies: dict[str, list[Video | None]] = {kind: [] for kind in COPIES}
    with media.videos(args.media, ()) as paths, tempfile.TemporaryDirectory(prefix="lps-duplicates-") as folder:
        for path in paths[: args.limit]:
            if (video := read(path, args.frames)) is None:
                continue
            names.append(path.name)
            originals.append(hashed(video[0], len(video[0]), video[1]))
            for kind, copy in COPIES.items():
                copies[kind].append(copied(*video, copy, Path(folder) / "copy.mp4"))
    console = Console(width=120)
    console.print(found_table(names, originals, copies))
    console.print(cost_table())


if __name__ == "__main__":
    main()
