"""Changes of MP4 files that know their boxes: sizes, tables of samples and times, edit lists, headers, fragments."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.attack.edits import EXTREMES, Edit, Propose, number, other_value, swap

PARENTS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf", b"dinf"}
FIELDS: dict[bytes, tuple[tuple[int, int], ...]] = {
    b"mvhd": ((12, 4), (16, 4), (20, 4)),
    b"mdhd": ((12, 4), (16, 4)),
    b"tkhd": ((12, 4), (20, 4), (40, 4), (44, 4), (56, 4), (76, 4), (80, 4)),
    b"stsd": ((4, 4), (8, 4), (12, 4), (40, 2), (42, 2), (56, 2)),
    b"tfhd": ((0, 4), (4, 4), (8, 4), (12, 4)),
    b"tfdt": ((4, 4), (8, 4)),
    b"trun": ((0, 4), (4, 4), (8, 4), (12, 4), (16, 4), (20, 4)),
    b"trex": ((4, 4), (8, 4), (12, 4), (16, 4)),
    b"ftyp": ((0, 4), (4, 4)),
}
"""Box -> (place, bytes) of numbers in its content, version 0."""
ENTRIES = dict.fromkeys((b"stts", b"ctts", b"stco", b"stsc", b"stss", b"elst"), (8, 4)) | {b"stsz": (12, 4)}
"""Box -> (place of its first entry, bytes of a number)."""
TABLES = tuple(ENTRIES)


@dataclass(frozen=True, slots=True)
class Box:
    """One box of a file."""

    at: int
    n_bytes: int
    kind: bytes

    @property
    def content(self) -> int:
        """Where its content begins."""
        return self.at + 8


def boxes(data: bytes, first: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yield all boxes, those that hold others before them."""
    at, end = first, len(data) if end is None else end
    while at + 8 <= end:
        n = int.from_bytes(data[at : at + 4], "big")
        if not 8 <= n <= end - at:
            return
        box = Box(at, n, data[at + 4 : at + 8])
        yield box
        if box.kind in PARENTS:
            yield from boxes(data, at + 8, at + n)
        at += n


def _one(data: bytes, rng: random.Random, kinds: tuple[bytes, ...] = ()) -> Box | None:
    found = [box for box in boxes(data) if not kinds or box.kind in kinds]
    return rng.choice(found) if found else None


def sizes(data: bytes, rng: random.Random) -> list[Edit]:
    """Write another size, or another name, on boxes."""
    found = []
    for _ in range(rng.choice((1, 1, 2))):
        box = _one(data, rng)
        if box is not None:
            name = rng.random() < 0.25
            kind = box.kind.decode(errors="replace")
            value = rng.choice((*EXTREMES, box.n_bytes + rng.randint(-9, 9), box.n_bytes * 2))
            new = int.from_bytes(rng.choice((b"free", b"moov", b"stbl", b"trak", rng.randbytes(4))), "big")
            found.append(
                number(box.at + 4 * name, 4, new if name else value, f"{'name' if name else 'size'} of {kind}")
            )
    return found


def table(data: bytes, rng: random.Random) -> list[Edit]:
    """Write other numbers into a table: an entry, or how many there are."""
    box = _one(data, rng, TABLES)
    if box is None:
        return []
    first, width = ENTRIES[box.kind]
    found, kind = [], box.kind.decode()
    for _ in range(rng.choice((1, 1, 2, 5))):
        n_entries = (box.n_bytes - 8 - first) // width
        at = box.content + (
            first + width * rng.randrange(n_entries) if n_entries > 0 and rng.random() < 0.8 else first - 4
        )
        found.append(number(at, 4, other_value(data, at, 4, rng), f"number in {kind}"))
    return found


def swapped_entries(data: bytes, rng: random.Random) -> list[Edit]:
    """Exchange two entries of a table, or two samples' bytes: reordered packets."""
    box = _one(data, rng, (b"stsz", b"stco", b"stts", b"ctts", b"stsc"))
    if box is None:
        return []
    first, width = ENTRIES[box.kind]
    step = {b"stts": 8, b"ctts": 8, b"stsc": 12}.get(box.kind, width)
    n_entries = (box.n_bytes - 8 - first) // step
    if n_entries < 2:
        return []
    a, b = sorted(rng.sample(range(n_entries), 2))
    places = [(box.content + first + step * k, step) for k in (a, b)]
    return swap(data, places[0], places[1], f"entries {a} and {b} of {box.kind.decode()} exchanged")


def header(data: bytes, rng: random.Random) -> list[Edit]:
    """Write extreme numbers into headers."""
    found = []
    for _ in range(rng.choice((1, 1, 3))):
        box = _one(data, rng, tuple(FIELDS))
        if box is not None:
            place, width = rng.choice(FIELDS[box.kind])
            if place + width <= box.n_bytes - 8:
                at = box.content + place
                found.append(number(at, width, other_value(data, at, width, rng), f"number in {box.kind.decode()}"))
    return found


def codec_header(data: bytes, rng: random.Random) -> list[Edit]:
    """Change bits of the parameters that the decoder is given."""
    for name in rng.sample((b"avcC", b"hvcC", b"esds", b"vpcC", b"av1C"), 5):
        at = data.find(name)
        if at > 4:
            n = max(1, min(64, int.from_bytes(data[at - 4 : at], "big") - 8))
            places = sorted({at + 4 + rng.randrange(n) for _ in range(rng.choice((1, 2, 4)))})
            return [Edit(k, 1, bytes([data[k] ^ 1 << rng.randrange(8)]), f"bit of {name.decode()}") for k in places]
    return []


def whole_boxes(data: bytes, rng: random.Random) -> list[Edit]:
    """Drop a box, write it twice, or exchange two."""
    found = [box for box in boxes(data) if box.kind != b"mdat"]
    one, other = rng.choice(found), rng.choice(found)
    way, kind = rng.randrange(3), one.kind.decode(errors="replace")
    if way == 0:
        return [Edit(one.at, one.n_bytes, b"", f"{kind} dropped")]
    if way == 1:
        return [Edit(other.at, 0, data[one.at : one.at + one.n_bytes], f"{kind} written twice")]
    apart = one.at + one.n_bytes <= other.at or other.at + other.n_bytes <= one.at
    return swap(data, (one.at, one.n_bytes), (other.at, other.n_bytes), f"{kind} exchanged") if apart else []


MP4: dict[str, Propose] = {
    "mp4 sizes": sizes,
    "mp4 tables": table,
    "mp4 reordered": swapped_entries,
    "mp4 headers": header,
    "mp4 codec header": codec_header,
    "mp4 boxes": whole_boxes,
}
