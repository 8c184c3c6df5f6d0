"""Changes of a file's bytes, and those that need no knowledge of its format."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

EXTREMES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0x7FFFFFFFFFFFFFFF,
    0xFFFFFFFFFFFFFFFF,
)


@dataclass(frozen=True, slots=True)
class Edit:
    """`n_bytes` bytes at `at` of the undamaged file are replaced by `data`."""

    at: int
    n_bytes: int
    data: bytes
    why: str

    def __str__(self) -> str:
        shown = self.data[:8].hex() + ("…" if len(self.data) > 8 else "")
        return f"{self.why}: {self.n_bytes} bytes at {self.at} -> {len(self.data)} bytes {shown}"


Propose = Callable[[bytes, random.Random], list[Edit]]
"""Takes an undamaged file and returns changes of it."""


def edited(data: bytes, edits: Sequence[Edit]) -> bytes:
    """Return the bytes with all changes; one that overlaps a later place of the file is left out."""
    end, parts = len(data), []
    for edit in sorted(edits, key=lambda each: (each.at, each.n_bytes), reverse=True):
        if edit.at + edit.n_bytes <= end:
            parts += [data[edit.at + edit.n_bytes : end], edit.data]
            end = edit.at
    return b"".join([data[:end], *reversed(parts)])


def number(at: int, n_bytes: int, value: int, why: str, *, little: bool = False) -> Edit:
    """Return the change that writes a number over one of `n_bytes` bytes."""
    return Edit(at, n_bytes, (value % (1 << 8 * n_bytes)).to_bytes(n_bytes, "little" if little else "big"), why)


def other_value(data: bytes, at: int, n_bytes: int, rng: random.Random) -> int:
    """Return an extreme, near or random value for the number of `n_bytes` bytes at `at`."""
    old = int.from_bytes(data[at : at + n_bytes], "big")
    near = (old + 1, old - 1, old * 2, old // 2, -old, old ^ 1 << rng.randrange(8 * n_bytes))
    return rng.choice((rng.choice(EXTREMES), rng.choice(near), rng.getrandbits(8 * n_bytes)))


def swap(data: bytes, one: tuple[int, int], other: tuple[int, int], why: str) -> list[Edit]:
    """Return changes that exchange two pieces, each (first byte, bytes)."""
    (a, n), (b, m) = one, other
    return [Edit(a, n, data[b : b + m], why), Edit(b, m, data[a : a + n], why)]


def flips(data: bytes, rng: random.Random) -> list[Edit]:
    """Flip some bits anywhere."""
    places = [rng.randrange(len(data)) for _ in range(rng.choice((1, 1, 2, 4, 8, 32)))]
    return [Edit(at, 1, bytes([data[at] ^ 1 << rng.randrange(8)]), "bit flip") for at in sorted(set(places))]


def header_flips(data: bytes, rng: random.Random) -> list[Edit]:
    """Flip some bits in the first bytes, or the last ones, where headers and tables are."""
    n = min(len(data), rng.choice((64, 512, 4096)))
    first = rng.choice((0, len(data) - n))
    places = [first + rng.randrange(n) for _ in range(rng.choice((1, 2, 4, 8)))]
    return [Edit(at, 1, bytes([data[at] ^ 1 << rng.randrange(8)]), "bit flip") for at in sorted(set(places))]


def cut(data: bytes, rng: random.Random) -> list[Edit]:
    """Cut off the end."""
    at = rng.randrange(1, len(data))
    return [Edit(at, len(data) - at, b"", "cut")]


def lost_blocks(data: bytes, rng: random.Random) -> list[Edit]:
    """Lose blocks as a disk or a download does: zeros, noise, another block's bytes, or nothing at all."""
    found = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        n = min(len(data), rng.choice((16, 188, 512, 4096)))
        at = rng.randrange(max(1, len(data) - n)) // n * n
        other = rng.randrange(max(1, len(data) - n))
        filling = rng.choice((bytes(n), b"\xff" * n, rng.randbytes(n), data[other : other + n], b""))
        found.append(Edit(at, min(n, len(data) - at), filling, "lost block"))
    return found


def doubled(data: bytes, rng: random.Random) -> list[Edit]:
    """Write a piece a second time somewhere."""
    n = rng.randrange(1, max(2, len(data) // 4))
    start = rng.randrange(max(1, len(data) - n))
    return [Edit(rng.randrange(len(data)), 0, data[start : start + n], "doubled piece")]


ANYWHERE: dict[str, Propose] = {
    "bit flips": flips,
    "bit flips in headers": header_flips,
    "cut": cut,
    "lost blocks": lost_blocks,
    "doubled piece": doubled,
}
