"""Changes of transport streams, which know their packets, and of raw streams, which know their units."""

import random
import re

from benchmarks.attack.edits import Edit, Propose, number, swap

PACKET = 188
START = re.compile(rb"\x00\x00\x01")


# ---- transport streams -----------------------------------------------------------------------------------------------


def _packets(data: bytes, rng: random.Random, n: int) -> list[int]:
    """Return where n packets, after the first two, begin, in order."""
    n_packets = len(data) // PACKET
    return sorted(PACKET * k for k in rng.sample(range(min(2, n_packets - 1), n_packets), min(n, n_packets - 2)))


def ts_lost(data: bytes, rng: random.Random) -> list[Edit]:
    """Lose packets, alone or in a row."""
    row = rng.choice((1, 1, 2, 8))
    return [
        Edit(at, min(PACKET * row, len(data) - at), b"", "packet lost")
        for at in _packets(data, rng, rng.choice((1, 2, 4)))
    ]


def ts_reordered(data: bytes, rng: random.Random) -> list[Edit]:
    """Exchange, double or insert packets of elsewhere."""
    a, b = _packets(data, rng, 2)
    way = rng.randrange(3)
    if way == 0:
        return swap(data, (a, PACKET), (b, PACKET), "packets exchanged")
    return [Edit(b if way == 1 else a + PACKET, 0, data[a : a + PACKET], "packet doubled")]


def ts_heads(data: bytes, rng: random.Random) -> list[Edit]:
    """Change fields of packets: sync byte, error bit, start of unit, PID, scrambling, continuity, adaptation."""
    found = []
    for at in _packets(data, rng, rng.choice((1, 1, 2, 4))):
        head = int.from_bytes(data[at : at + 4], "big")
        what, value = rng.choice((
            ("error bit", head ^ 1 << 23), ("unit start", head ^ 1 << 22), ("PID", head ^ rng.randrange(1 << 13) << 8),
            ("scrambling", head ^ rng.randrange(1, 4) << 6), ("adaptation", head ^ rng.randrange(1, 4) << 4),
            ("continuity", head ^ rng.randrange(1, 16)), ("sync byte", head ^ 1 << 24 + rng.randrange(8)),
        ))  # fmt: skip
        found.append(number(at, 4, value, f"{what} of a packet"))
    return found


def ts_tables(data: bytes, rng: random.Random) -> list[Edit]:
    """Change bits of the tables of programs (PAT, PMT), which begin a file, and of PES headers with their times."""
    units = [at for at in range(0, len(data) - PACKET, PACKET) if data[at + 1] & 0x40]
    at = rng.choice(units[:3] if rng.random() < 0.5 else units)
    places = sorted({at + 4 + rng.randrange(40) for _ in range(rng.choice((1, 2, 4)))})
    return [Edit(k, 1, bytes([data[k] ^ 1 << rng.randrange(8)]), "bit of a table or PES header") for k in places]


TS: dict[str, Propose] = {
    "ts lost packets": ts_lost,
    "ts reordered packets": ts_reordered,
    "ts packet heads": ts_heads,
    "ts tables and times": ts_tables,
}


# ---- raw streams -----------------------------------------------------------------------------------------------------


def _units(data: bytes) -> list[tuple[int, int]]:
    """Return (first byte, bytes) of each unit, its start code included."""
    starts = [found.start() for found in START.finditer(data)] or [0]
    return [(a, b - a) for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def raw_lost(data: bytes, rng: random.Random) -> list[Edit]:
    """Lose whole units: parameters, slices, key frames."""
    units = _units(data)
    return [Edit(at, n, b"", "unit lost") for at, n in rng.sample(units, min(len(units), rng.choice((1, 1, 2, 5))))]


def raw_reordered(data: bytes, rng: random.Random) -> list[Edit]:
    """Exchange units, or write one again elsewhere."""
    units = _units(data)
    if len(units) < 2:
        return []
    one, other = sorted(rng.sample(units, 2))
    if rng.random() < 0.5:
        return swap(data, one, other, "units exchanged")
    return [Edit(other[0], 0, data[one[0] : sum(one)], "unit doubled")]


def raw_heads(data: bytes, rng: random.Random) -> list[Edit]:
    """Change bits at the beginning of units: type, parameters with their sizes, slice headers with their numbers."""
    found = []
    for at, n in rng.sample(_units(data), 1) if rng.random() < 0.7 else _units(data)[:2]:
        for _ in range(rng.choice((1, 1, 3))):
            k = min(at + 3 + rng.randrange(max(1, min(n - 3, 24))), len(data) - 1)
            found.append(Edit(k, 1, bytes([data[k] ^ 1 << rng.randrange(8)]), "bit of a unit's head"))
    return list({edit.at: edit for edit in found}.values())


def raw_cut(data: bytes, rng: random.Random) -> list[Edit]:
    """Cut off the ends of units."""
    at, n = rng.choice(_units(data))
    kept = rng.randrange(3, max(4, n))
    return [Edit(at + kept, max(0, n - kept), b"", "unit cut")]


RAW: dict[str, Propose] = {
    "raw lost units": raw_lost,
    "raw reordered units": raw_reordered,
    "raw unit heads": raw_heads,
    "raw cut units": raw_cut,
}
