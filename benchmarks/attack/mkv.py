"""Changes of Matroska and WebM files that know their elements: sizes, times, blocks, clusters, headers."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.attack.edits import Edit, Propose, number, other_value, swap

PARENTS = {0x18538067, 0x1654AE6B, 0xAE, 0xE0, 0x1F43B675, 0xA0, 0x1C53BB6B, 0xBB, 0xB7, 0x1549A966, 0x114D9B74, 0x4DBB}
"""Segment, Tracks, TrackEntry, Video, Cluster, BlockGroup, Cues, CuePoint, CueTrackPositions, Info, SeekHead, Seek."""
CLUSTER, TIMESTAMP, SIMPLE_BLOCK, BLOCK, CODEC_PRIVATE = 0x1F43B675, 0xE7, 0xA3, 0xA1, 0x63A2
NUMBERS = {
    0xE7: "Timestamp", 0xB0: "PixelWidth", 0xBA: "PixelHeight", 0x2AD7B1: "TimestampScale", 0x4489: "Duration",
    0xF1: "CueClusterPosition", 0xB3: "CueTime", 0xD7: "TrackNumber", 0x83: "TrackType", 0x23E383: "DefaultDuration",
    0x53AC: "SeekPosition", 0x9B: "BlockDuration", 0xFB: "ReferenceBlock", 0x54B0: "DisplayWidth",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a file."""

    at: int
    n_id: int
    n_size: int
    n_content: int
    kind: int

    @property
    def content(self) -> int:
        """Where its content begins."""
        return self.at + self.n_id + self.n_size

    @property
    def piece(self) -> tuple[int, int]:
        """First byte, bytes."""
        return self.at, self.n_id + self.n_size + self.n_content


def _width(first: int) -> int:
    return 9 - first.bit_length() if first else 9


def elements(data: bytes, first: int = 0, end: int | None = None) -> Iterator[Element]:
    """Yield all elements, those that hold others before them."""
    at, end = first, len(data) if end is None else end
    while at + 2 <= end:
        n_id = _width(data[at])
        if n_id > 4 or at + n_id >= end:
            return
        n_size = _width(data[at + n_id])
        if n_size > 8 or at + n_id + n_size > end:
            return
        raw = int.from_bytes(data[at + n_id : at + n_id + n_size], "big") & (1 << 7 * n_size) - 1
        unknown = raw == (1 << 7 * n_size) - 1
        content = at + n_id + n_size
        n_content = end - content if unknown else min(raw, end - content)
        element = Element(at, n_id, n_size, n_content, int.from_bytes(data[at : at + n_id], "big"))
        yield element
        if element.kind in PARENTS:
            yield from elements(data, content, content + n_content)
        at = content + n_content


def _all(data: bytes, *kinds: int) -> list[Element]:
    return [element for element in elements(data) if not kinds or element.kind in kinds]


def sizes(data: bytes, rng: random.Random) -> list[Edit]:
    """Write another size, the unknown one included, or another id on an element."""
    one = rng.choice(_all(data))
    if rng.random() < 0.3:
        return [Edit(one.at, one.n_id, rng.randbytes(one.n_id), f"id of {one.kind:x}")]
    mark = 1 << 7 * one.n_size
    value = rng.choice((0, 1, mark - 1, mark - 2, one.n_content + rng.randint(-5, 5), rng.randrange(mark)))
    return [number(one.at + one.n_id, one.n_size, mark | value % mark, f"size of {one.kind:x}")]


def numbers(data: bytes, rng: random.Random) -> list[Edit]:
    """Write other numbers into times, sizes of pictures, cues and the like."""
    found = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        one = rng.choice(_all(data, *NUMBERS) or _all(data))
        if 0 < one.n_content <= 8:
            value = other_value(data, one.content, one.n_content, rng)
            found.append(number(one.content, one.n_content, value, NUMBERS.get(one.kind, f"{one.kind:x}")))
    return found


def block_heads(data: bytes, rng: random.Random) -> list[Edit]:
    """Change track number, time or flags (lacing, key frame, invisible) of a block."""
    found = []
    for _ in range(rng.choice((1, 2, 3))):
        one = rng.choice(_all(data, SIMPLE_BLOCK, BLOCK) or _all(data))
        if one.n_content > 4:
            place, width = rng.choice(((0, 1), (1, 2), (3, 1)))
            at = one.content + place
            found.append(number(at, width, other_value(data, at, width, rng), f"head of a block, byte {place}"))
    return found


def whole_elements(data: bytes, rng: random.Random) -> list[Edit]:
    """Lose, double or exchange blocks or clusters: lost and reordered packets."""
    kinds = rng.choice(((SIMPLE_BLOCK, 0xA0), (SIMPLE_BLOCK, 0xA0), (CLUSTER,), ()))
    found = _all(data, *kinds) or _all(data)
    if len(found) < 3:
        return []
    one, other = rng.sample(found[1:], 2)
    way = rng.randrange(3)
    (a, n), (b, m) = sorted((one.piece, other.piece))
    if way == 0:
        return [Edit(*one.piece, b"", f"{one.kind:x} dropped")]
    if way == 1:
        start, n_bytes = one.piece
        return [Edit(other.at, 0, data[start : start + n_bytes], f"{one.kind:x} written twice")]
    return swap(data, (a, n), (b, m), f"{one.kind:x} and {other.kind:x} exchanged") if a + n <= b else []


def codec_header(data: bytes, rng: random.Random) -> list[Edit]:
    """Change bits of the parameters that the decoder is given."""
    found = _all(data, CODEC_PRIVATE)
    if not found or not found[0].n_content:
        return []
    places = sorted(
        {found[0].content + rng.randrange(min(64, found[0].n_content)) for _ in range(rng.choice((1, 2, 4)))}
    )
    return [Edit(k, 1, bytes([data[k] ^ 1 << rng.randrange(8)]), "bit of CodecPrivate") for k in places]


MKV: dict[str, Propose] = {
    "mkv sizes": sizes,
    "mkv numbers": numbers,
    "mkv block heads": block_heads,
    "mkv elements": whole_elements,
    "mkv codec header": codec_header,
}
