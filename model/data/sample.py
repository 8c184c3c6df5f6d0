"""One sample: where it lies in its shard, its members as `webdataset` groups them, its frames as pixels."""

import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from simplejpeg import decode_jpeg

from lps.manifests.arrays import Pixels, Square
from lps.manifests.canonical import open_regular
from lps.manifests.errors import IntegrityError, UnreadableError
from lps.model.data.image_size import image_size

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
TAR_BLOCK = 512
Bytes = bytes | memoryview
FRAME_MEMBER = re.compile(r"(\d{2,4})\.(?:jpg|jpeg|png|webp)")
UNKNOWN_LABEL = -1
MAX_SAMPLE_BYTES = 1 << 30
MAX_IMAGE_PX = 4096
"""Side. A few bytes of a hostile file can unfold to any size, so headers are read before pixels."""


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that cannot be used, and why."""

    key: str
    shard: str
    reason: str

    def __str__(self) -> str:
        return f"sample {self.key} of shard {self.shard}: {self.reason}"


class SampleFault(Exception):
    """What is wrong with one sample; one place turns it into a `BadSample`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What is known of a sample before it is read."""

    key: str
    clip_id: bytes
    video_id: bytes
    label: int
    """0 real, 1 fake, -1 unknown."""
    n_frames: int
    side_px: int
    """Side of its frames, which are square ..."""
    inner_px: int
    """... and of the inner square, which is all that there is without a margin."""
    shard: int
    """Number of the shard in the list of shards."""
    offset_bytes: int
    n_bytes: int
    data: str = ""
    """Name of its data set, where several are read together."""
    self_blend: bool = False
    """Made into a fake while it is read; what is stored is real."""
    face_xy: tuple[float, ...] = ()
    """The landmarks of a self-blend, as `model/data/fakes/landmarks.py` gives them."""

    @property
    def name(self) -> str:
        """What it is called in batches and messages: its key, with the name of its data set if that has one."""
        return sample_name(self.key, self.data, self_blend=self.self_blend)


SELF_BLEND = "+self-blend"
"""Ending of the names of self-blends."""


def sample_name(key: str, data: str = "", *, self_blend: bool = False) -> str:
    """Return what batches and messages call a sample of a key in a data set."""
    return (f"{data}:{key}" if data else key) + (SELF_BLEND if self_blend else "")


@dataclass(frozen=True, slots=True)
class LocalShard:
    """A shard that can be read here and now."""

    path: Path
    shown: str
    n_bytes: int | None


def read_range(shard: LocalShard, sample: Sample) -> bytes:
    """Return a sample's part of its shard: a piece of a tar.

    Raises UnreadableError where the file cannot be read, IntegrityError where it has another size than its record says,
    SampleFault where it ends before the sample does.
    """
    try:
        with open_regular(shard.path) as file:
            size = os.fstat(file.fileno()).st_size
            if shard.n_bytes is not None and size != shard.n_bytes:
                raise IntegrityError(
                    f"shard {shard.shown} has {size} bytes, its record says {shard.n_bytes} (found at sample "
                    f"{sample.name}): restore it from a copy, or make it again with `lps-prep run`"
                )
            data = os.pread(file.fileno(), sample.n_bytes, sample.offset_bytes)
    except OSError as e:
        raise UnreadableError(f"cannot read shard {shard.shown} at sample {sample.name}: {e.strerror or e}") from e
    if len(data) < sample.n_bytes:
        raise SampleFault(f"the shard ends {sample.n_bytes - len(data)} bytes before the sample does")
    return data


def unpack(data: bytes, sample: Sample) -> Mapping[str, Bytes]:
    """Return the members of one sample by extension. Raises SampleFault.

    What is not as `lps-prep` writes it is read and grouped by `webdataset`. Nothing is decoded and nothing unpickled:
    members are bytes, and none is written anywhere by its name.
    """
    plain = plain_members(data, sample.key)
    if plain is not None:
        return plain
    from webdataset.tariterators import group_by_keys, tar_file_expander

    source = [{"url": sample.key, "stream": io.BytesIO(data)}]
    try:
        found: list[dict[str, Any]] = list(group_by_keys(tar_file_expander(source)))
    except Exception as e:  # noqa: BLE001  tarfile and webdataset raise many kinds, and all mean damage
        raise SampleFault(f"not a readable piece of a tar: {e.args[0] if e.args else type(e).__name__}") from e
    if [each["__key__"] for each in found] != [sample.key]:
        keys = ", ".join(repr(each["__key__"]) for each in found) or "nothing"
        raise SampleFault(f"its place in the shard holds {keys}")
    return {ext: value for ext, value in found[0].items() if not ext.startswith("__")}


def plain_members(data: bytes, key: str) -> dict[str, Bytes] | None:
    """Return the members of a piece of a ustar by extension: nothing but regular files `key.ext` with whole headers.

    None for anything else, damage included. That is what `webdataset` finds there, in a tenth of its time: parsing by
    `tarfile` costs a sixth of the decoding. Members share the memory of `data`.
    """
    prefix = key.encode("utf-8", "surrogateescape") + b"."
    if b"." in prefix[:-1] or key.startswith("__"):
        return None
    found: dict[str, Bytes] = {}
    checksums: list[tuple[int, int]] = []
    whole, at = memoryview(data), 0
    while at < len(data):
        head = data[at : at + TAR_BLOCK]
        name, _, rest = head[:100].partition(b"\0")
        n_bytes, checksum = _octal(head[124:136]), _octal(head[148:156])
        ext = name[len(prefix) :]
        as_written = (
            len(head) == TAR_BLOCK
            and name.startswith(prefix)
            and ext.isascii()
            and ext.islower()
            and not ext.startswith(b"__")
            and b"/" not in ext
            and not rest.strip(b"\0")
            and head[156:157] == b"0"
            and head[257:265] == b"ustar\x0000"
            and head[345] == 0
        )
        if not as_written or n_bytes is None or checksum is None:
            return None
        checksums.append((at // TAR_BLOCK, checksum + sum(head[148:156]) - 8 * ord(" ")))
        start = at + TAR_BLOCK
        at = start + -(-n_bytes // TAR_BLOCK) * TAR_BLOCK
        content = whole[start : start + n_bytes]
        if at > len(data) or found.setdefault(ext.decode(), content) is not content:
            return None
    if not found:
        return None
    blocks, sums = np.array(checksums).T
    same = np.frombuffer(data, np.uint8).reshape(-1, TAR_BLOCK)[blocks].sum(1) == sums
    return found if same.all() else None


def _octal(field: bytes) -> int | None:
    """Return the number in a field of a header, None for anything but octal digits."""
    digits = field.strip(b"\0 ")
    return int(digits, 8) if digits.isdigit() and not {*b"89"} & {*digits} else None


def frame_members(members: Mapping[str, Bytes]) -> list[Bytes]:
    """Return the encoded frames in time order. Raises SampleFault for a gap, for none, or for a frame twice."""
    found: dict[int, Bytes] = {}
    for ext, data in members.items():
        match = FRAME_MEMBER.fullmatch(ext)
        if match and found.setdefault(int(match[1]), data) is not data:
            raise SampleFault(f"frame {match[1]} is there twice")
    missing = sorted({*range(max(found, default=0) + 1)} - found.keys())
    if missing:
        raise SampleFault(f"frame {missing[0]:02d} is missing")
    return [found[k] for k in range(len(found))]


def check_members(members: Mapping[str, Bytes], sample: Sample) -> list[Bytes]:
    """Return the encoded frames if all members are those that the index promised. Raises SampleFault."""
    frames = frame_members(members)
    if len(frames) != sample.n_frames:
        raise SampleFault(f"it has {len(frames)} frames, its record says {sample.n_frames}")
    if "json" not in members:
        raise SampleFault("its .json is missing")
    if sample.label != UNKNOWN_LABEL:
        label = label_of(members)
        if label is None:
            raise SampleFault("its .cls is missing")
        stored = 0 if sample.self_blend else sample.label
        if label != stored:
            raise SampleFault(f"its .cls says {label}, its record {stored}")
    return frames


def label_of(members: Mapping[str, Bytes]) -> int | None:
    """Return 0 (real) or 1 (fake) from `.cls`, None where there is none. Raises SampleFault for anything else."""
    if "cls" not in members:
        return None
    text = bytes(members["cls"])
    if text.strip() not in (b"0", b"1"):
        raise SampleFault(f"its .cls says {text[:16]!r}, neither 0 (real) nor 1 (fake)")
    return int(text)


def image_side(data: Bytes, name: str) -> int:
    """Return the side in pixels of a square image, from its header alone. Raises SampleFault."""
    size = image_size(data)
    if size is None:
        raise SampleFault(f"frame {name} is not a readable image")
    width, height = size
    if width != height or width > MAX_IMAGE_PX:
        raise SampleFault(f"frame {name} has {width}x{height} px; square images up to {MAX_IMAGE_PX} px are expected")
    return width


def decode(images: Sequence[Bytes], first: int, square: Square, out: Pixels) -> None:
    """Decode a square of square images into `out` (n, H, H, 3), resized to H where its side is another.

    `first` is the number of the first image within its sample, for messages. Raises SampleFault for an image that is
    damaged or of another size. Pixels are those that Pillow gives.
    """
    out_px, side_px = out.shape[1], square.stored_px
    whole = None if side_px == square.side_px == out_px else np.empty((side_px, side_px, 3), np.uint8)
    for k, data in enumerate(images):
        name = f"{first + k:02d}"
        if data[:2] != JPEG_START:  # others have memory for the whole image before they can be refused
            _require_side(data, name, side_px)
        elif JPEG_END not in bytes(data[-64:]):
            _require_side(data, name, side_px)
            raise SampleFault(f"frame {name} is cut off")
        try:
            decode_image(data, out[k] if whole is None else whole)
        except (ValueError, cv2.error) as e:
            _require_side(data, name, side_px)
            raise SampleFault(f"frame {name} is damaged") from e
        if whole is not None:
            _cut(whole, square, out[k])


def _cut(whole: Pixels, square: Square, out: Pixels) -> None:
    """Write a square of an image into `out` (H, H, 3)."""
    part = whole[square.first_px : square.end_px, square.first_px : square.end_px]
    if square.side_px == len(out):
        out[:] = part
    else:
        cv2.resize(part, out.shape[:2], dst=out, interpolation=_interpolation(square, len(out)))


def _interpolation(square: Square, out_px: int) -> int:
    """Return how a square is resized. A margin mostly shrinks it by a little, for which means over areas are slow."""
    if out_px > square.side_px:
        return cv2.INTER_CUBIC
    return cv2.INTER_LINEAR if square.side_px > square.inner_px and square.side_px < 2 * out_px else cv2.INTER_AREA


def _require_side(data: Bytes, name: str, side_px: int) -> None:
    """Raise SampleFault for an image of another size, or of none."""
    side = image_side(data, name)
    if side != side_px:
        raise SampleFault(f"frame {name} has {side}x{side} px, not {side_px}x{side_px}")


def decode_image(data: Bytes, rgb: Pixels) -> None:
    """Decode an image into `rgb` (H, W, 3). Raises ValueError or cv2.error for a damaged one or one of another size.

    JPEG by a library that is strict: it told 190 of 300 images with some bytes changed, OpenCV none. It is faster, too.
    """
    if data[:2] == JPEG_START:
        found = decode_jpeg(data, "RGB", buffer=rgb)
    else:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if found is None or found.shape != rgb.shape:
        raise ValueError("not an image of this size")
    if data[:2] != JPEG_START:
        cv2.cvtColor(found, cv2.COLOR_BGR2RGB, dst=rgb)
