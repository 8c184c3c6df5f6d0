"""Sequences of images as videos: probe and decode them, and give files and folders to those that read any video.

Every image is decoded alone, by the decoder of its format in libav, from its bytes. Time stamps are the numbers in the
names of the images, in ticks of a rate that somebody declared: images say nothing of time. A number that is missing is
a hole. What a clip is made of may be decoded without the rest: no image needs another.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from PIL import Image, UnidentifiedImageError

from lps.manifests.canonical import open_regular, sha256_hex, unescape_name
from lps.manifests.codes import Code, Stage
from lps.manifests.errors import VideoFault
from lps.manifests.records import Header
from lps.manifests.sequences.folder import image_names, sequence_sha256
from lps.manifests.sequences.names import frame_ticks, in_order
from lps.pipeline.config.params import Limits, Params
from lps.pipeline.video.color_names import MATRICES, PRIMARIES, RANGES, TRANSFERS, UNKNOWN
from lps.pipeline.video.container import MEDIA_ERRORS, VideoFile, raise_at_limit, read_file
from lps.pipeline.video.damage import PacketScan
from lps.pipeline.video.decode import DecodeStats, StreamFacts, check_frame, decode, note_frame
from lps.pipeline.video.entry_points import FrameIndex
from lps.pipeline.video.frame import UNSPECIFIED, Frame
from lps.pipeline.video.reading import fault_of_reading
from lps.pipeline.video.window import Cursor, WindowError, decode_windows

CONTAINER = "image2"
"""FFmpeg's name of a sequence of images."""
CODECS = {"PNG": "png", "JPEG": "mjpeg", "MPO": "mjpeg", "WEBP": "webp", "BMP": "bmp"}
"""Name of a format at Pillow -> of its decoder at libav."""
TURNS = {3: 180, 6: 90, 8: 270}
"""Orientation in EXIF -> clockwise degrees. As with videos, a mirror is left out."""
DAMAGED = re.compile(r"EOI missing|overread|bad vlc|error (?:dc|y|count)|CRC mismatch|inflate returned|not enough data")
"""What the decoders log of an image that they show though a part of it is missing."""


# ---- any source ------------------------------------------------------------------------------------------------------


def read_source(path: Path, params: Params) -> VideoFile:
    """Return what a file, or the images of a folder, say of a video. Raises VideoFault as `open_video` does."""
    return read_images(path, params.limits, params.decode.rate) if path.is_dir() else read_file(path, params.limits)


def decode_source(path: Path, params: Params, stats: DecodeStats, scan: PacketScan | None = None) -> Iterator[Frame]:
    """Yield the frames of a video file, or of the images of a folder, as `decode` does."""
    if not path.is_dir():
        return decode(path, params, stats, scan)
    return _every_image(path, params, stats)


def decode_source_windows(
    path: Path, params: Params, stats: DecodeStats, scan: PacketScan, cursor: Cursor
) -> Iterator[Frame]:
    """Yield the wanted frames of a video file, or of the images of a folder, as `decode_windows` does."""
    if not path.is_dir():
        return decode_windows(path, params, stats, scan, cursor)
    return _wanted_images(path, params, stats, cursor)


# ---- what a sequence is ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageHead:
    """What the first bytes of an image say."""

    codec: str
    size: tuple[int, int]
    """Width and height as stored, before rotation."""
    rotation: int


def image_head(data: bytes) -> ImageHead | None:
    """Read the head of an image; None for what is none. Raises VideoFault E_LIMIT for a size beyond all reason."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "BMP")) as image:
            turn = image.getexif().get(0x0112) if image.format in ("JPEG", "MPO") else None
            return ImageHead(CODECS[str(image.format)], image.size, TURNS.get(turn, 0) if turn else 0)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise VideoFault(Code.E_LIMIT, Stage.PROBE, "an image of more pixels than any video has") from e
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, KeyError, TypeError, EOFError):
        return None


@dataclass(slots=True)
class SequenceLook:
    """Takes the images of a sequence in any order, and says what there is."""

    limits: Limits
    digests: dict[str, str] = field(default_factory=dict)
    """Name -> hex digest."""
    n_bytes: int = 0
    sizes: dict[tuple[int, int], str] = field(default_factory=dict)
    """Width and height -> the first image of it by its name."""
    first: tuple[str, ImageHead, bytes] | None = None
    """Name, head and bytes of the first image that has a head."""
    fault: VideoFault | None = None

    def add(self, name: str, data: bytes) -> None:
        self.n_bytes += len(data)
        if name in self.digests:
            self.fault = self.fault or VideoFault(Code.E_NAME_GRAMMAR, Stage.PROBE, f"two images of one name: {name}")
        self.digests[name] = sha256_hex(data)
        try:
            head = image_head(data)
        except VideoFault as fault:
            self.fault = self.fault or fault.with_traceback(None)
            return
        if head is not None:
            self.sizes[head.size] = min(name, self.sizes.get(head.size, name))
            if self.first is None or in_order([name, self.first[0]])[0] == name:
                self.first = (name, head, data)

    @property
    def sha256(self) -> str:
        """The digest of the sequence."""
        return sequence_sha256(self.digests)

    def file(self, rate: Fraction | None = None) -> VideoFile:
        """Return header and time stamps, at the declared rate if there is one yet. Raises VideoFault."""
        limits, names = self.limits, in_order(list(self.digests))
        if self.fault is not None:
            raise self.fault
        if not names:
            raise VideoFault(Code.E_MISSING_FILE, Stage.PROBE, "no images in the folder")
        if self.n_bytes > limits.max_bytes or len(names) > limits.max_frames:
            raise VideoFault(Code.E_LIMIT, Stage.PROBE, f"{len(names)} images of {self.n_bytes} bytes")
        if self.first is None:
            raise VideoFault(Code.E_PROBE, Stage.PROBE, f"none of {len(names)} images is one, such as {names[0]}")
        if len(self.sizes) > 1:
            (w, h), (w2, h2) = sorted(self.sizes)[:2]
            detail = f"images of different sizes: {self.sizes[w, h]} {w}x{h} px, {self.sizes[w2, h2]} {w2}x{h2} px"
            raise VideoFault(Code.E_PROBE, Stage.PROBE, detail)
        width, height = self.first[1].size
        if max(width, height) > limits.max_side_px or width * height > limits.max_area_px:
            raise VideoFault(Code.E_LIMIT, Stage.PROBE, f"images of {width}x{height} px")
        ticks = np.array(frame_ticks(names), np.int64)
        seconds = float((int(ticks[-1]) + 1) / rate) if rate is not None else 0.0
        if seconds > limits.max_seconds:
            raise VideoFault(Code.E_LIMIT, Stage.PROBE, f"{seconds:.0f} s, limit {limits.max_seconds:.0f} s")
        return VideoFile(self._header(len(names), rate), _scan(ticks))

    def _header(self, n_images: int, rate: Fraction | None) -> Header:
        assert self.first is not None  # mypy
        _, head, data = self.first
        native = decode_image(data)
        context = native if native is not None and (native.width, native.height) == head.size else None
        return Header(
            container=CONTAINER,
            codec=head.codec,
            pix_fmt=context.format.name if context else None,
            width=head.size[0],
            height=head.size[1],
            sar_num=1,
            sar_den=1,
            time_base_num=rate.denominator if rate else None,
            time_base_den=rate.numerator if rate else None,
            n_frames_container=n_images,
            has_audio=False,
            n_video_streams=1,
            color_transfer=TRANSFERS.get(context.color_trc, UNKNOWN) if context else None,
            color_primaries=PRIMARIES.get(context.color_primaries, UNKNOWN) if context else None,
            color_matrix=MATRICES.get(context.colorspace, UNKNOWN) if context else None,
            color_range=RANGES.get(context.color_range, UNKNOWN) if context else None,
            field_order="progressive",
        )


def _scan(ticks: "np.ndarray[Any, np.dtype[np.int64]]") -> PacketScan:
    n, usual = len(ticks), int(np.median(np.diff(ticks))) if len(ticks) > 1 else 1
    every = np.arange(n, dtype=np.int64)
    return PacketScan(n, n, max(1, usual), index=FrameIndex(every, ticks, every, every))


def read_images(folder: Path, limits: Limits, rate: Fraction | None = None) -> VideoFile:
    """Return what the images of a folder say, each read once. Raises VideoFault."""
    return look_at(folder, limits).file(rate)


def look_at(folder: Path, limits: Limits) -> SequenceLook:
    """Read all images of a folder. Raises VideoFault where they cannot be read, or are more than the limits allow."""
    look = SequenceLook(limits)
    try:
        for name in image_names(folder):
            path = folder / unescape_name(name)
            if look.n_bytes + path.stat().st_size > limits.max_bytes or len(look.digests) >= limits.max_frames:
                raise VideoFault(Code.E_LIMIT, Stage.PROBE, f"more than {limits.max_bytes} bytes, or too many images")
            look.add(name, _read(path))
    except OSError as e:
        raise fault_of_reading(e) from e
    return look


def _read(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read()


# ---- decoding --------------------------------------------------------------------------------------------------------


def decode_image(data: bytes) -> VideoFrame | None:
    """Return the picture of an image; None where it does not decode whole."""
    head = image_head(data)
    if head is None:
        return None
    context: Any = av.CodecContext.create(head.codec, "r")  # one of its own: nothing of another image is in it
    context.thread_count, context.thread_type = 1, "NONE"
    packet = av.Packet(data)
    packet.is_keyframe = True
    try:
        with av.logging.Capture() as log:
            frames = context.decode(packet)
    except MEDIA_ERRORS as e:
        raise_at_limit(e)
        return None
    if len(frames) != 1 or frames[0].is_corrupt or any(DAMAGED.search(message) for _, _, message in log):
        return None
    native: VideoFrame = frames[0]
    return native


@dataclass(slots=True)
class _Images:
    """The images of a folder while they are decoded."""

    paths: list[Path]
    ticks: list[int]
    usual: int
    rotation: int
    size: tuple[int, int]
    facts: StreamFacts

    @classmethod
    def of(cls, folder: Path, params: Params) -> "_Images":
        try:
            names = image_names(folder)
            paths = [folder / unescape_name(name) for name in names]
            head = next(filter(None, (image_head(_read(path)) for path in paths)), None)
        except OSError as e:
            raise fault_of_reading(e) from e
        if head is None:
            raise VideoFault(Code.E_PROBE, Stage.PROBE, f"none of {len(names)} images is one")
        ticks = frame_ticks(names)
        usual = _scan(np.array(ticks, np.int64)).usual_ticks or 1
        facts = StreamFacts(1 / params.decode.rate, 1, 1.0, (UNSPECIFIED, UNSPECIFIED))
        return cls(paths, ticks, usual, head.rotation, head.size, facts)

    def frame(self, place: int, index: int, native: VideoFrame, stats: DecodeStats, params: Params) -> Frame:
        """Note a decoded image and return its frame; its time stamp is that of its place."""
        check_frame(native, stats, params.limits)
        pts, widest = self.ticks[place], self.usual * params.max_step
        breaks = note_frame(stats, native, pts, widest=widest, cut_score=params.localize.cut_score)
        stats.rotation, stats.pts_nominal = self.rotation, True
        return self.facts.frame(native, index, pts, stats, params, breaks=breaks)

    def decoded(self, place: int) -> VideoFrame | None:
        """Return an image; None where it does not decode, or is of another size. Raises VideoFault of its file."""
        try:
            native = decode_image(_read(self.paths[place]))
        except OSError as e:
            raise fault_of_reading(e) from e
        return native if native is not None and (native.width, native.height) == self.size else None


def _every_image(folder: Path, params: Params, stats: DecodeStats) -> Iterator[Frame]:
    """Yield all frames; one that does not decode is counted, left out, and the next breaks."""
    images = _Images.of(folder, params)
    stats.pts_nominal = True
    for place in range(len(images.paths)):
        native = images.decoded(place)
        if native is None:
            stats.n_errors, stats.ended_by_error = stats.n_errors + 1, True
            stats.last_pts = stats.thumb = None
            continue
        stats.ended_by_error = False
        yield images.frame(place, stats.n_frames, native, stats, params)


def _wanted_images(folder: Path, params: Params, stats: DecodeStats, cursor: Cursor) -> Iterator[Frame]:
    """Yield the wanted frames. Raises WindowError at one that does not decode."""
    images = _Images.of(folder, params)
    stats.pts_nominal = True
    expected = -1
    while (place := cursor.frame) < len(images.paths):
        native = images.decoded(place)
        if native is None:
            raise WindowError
        if place != expected:  # nothing is known of the frame before
            stats.last_pts = stats.thumb = None
        cursor.decoded.add(place)
        expected = place + 1
        yield images.frame(place, place, native, stats, params)
        cursor.frame = max(expected, cursor.frame)
