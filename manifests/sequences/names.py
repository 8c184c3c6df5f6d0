"""What a sequence of images is called, and the order of its images.

The uri of a sequence ends with a slash, which that of no file does: `real/000/` is a folder of images, and
`real/1.tar.gz!/1/real/3/` the folder `1/real/3` of an archive. Its images lie directly in the folder. They are
numbered: their names differ in one number and nothing else.
"""

import re
from collections.abc import Sequence

from lps.manifests.codes import Code, Stage
from lps.manifests.errors import VideoFault

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")
MAX_TICKS = 2**31
"""Numbers of one sequence are less than this apart."""

_IN_ARCHIVE = re.compile(r"(?P<archive>.+?(?:\.tar\.gz|\.tgz|\.tar))!/(?P<folder>.*)", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"([0-9]+)")


def is_sequence(uri: str) -> bool:
    """Tell whether a uri is that of a sequence of images, not of a file."""
    return uri.endswith("/")


def is_image(path: str) -> bool:
    """Tell by name whether a file may be an image of a sequence."""
    name = path.rpartition("/")[2]
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def is_archive(path: str) -> bool:
    """Tell by name whether a file is an archive that sequences are read from.

    None is in a folder whose name would make the uri of its sequences that of others.
    """
    name = path.rpartition("/")[2]
    return not name.startswith(".") and name.lower().endswith(ARCHIVE_SUFFIXES) and archive_of(f"{path}/") is None


def archive_of(uri: str) -> tuple[str, str] | None:
    """Return the archive that holds a sequence, and the folder in it (without a slash at its end); None without one."""
    found = _IN_ARCHIVE.fullmatch(uri) if is_sequence(uri) else None
    return (found["archive"], found["folder"].removesuffix("/")) if found else None


def uri_in(archive: str, folder: str) -> str:
    """Return the uri of the sequence in a folder of an archive."""
    return f"{archive}!/{folder}/" if folder else f"{archive}!/"


def in_order(names: Sequence[str]) -> list[str]:
    """Return the names of images in the order of the numbers in them: `2.png` before `10.png`."""
    return sorted(names, key=lambda name: ([_key(part) for part in _NUMBER.split(name)], name))


def _key(part: str) -> tuple[int, str]:
    digits = part.lstrip("0") if part.isdigit() else ""
    return (len(digits), digits) if part.isdigit() else (0, part)


def frame_ticks(names: Sequence[str]) -> list[int]:
    """Return the number of each image less that of the first; `names` are `in_order`.

    Raises VideoFault: E_NAME_GRAMMAR where they differ in more than a number, or two have the same.
    """
    parts = [_NUMBER.split(name.rpartition(".")[0]) for name in names]
    first = parts[0]
    for name, each in zip(names, parts, strict=True):
        if each[::2] != first[::2]:
            raise _fault(f"images of more than one kind: {names[0]} and {name}")
    values = [[each[1::2][k] for each in parts] for k in range(len(first) // 2)]
    varying = [column for column in values if len({number.lstrip("0") for number in column}) > 1]
    if len(names) > 1 and len(varying) != 1:
        raise _fault(f"images must differ in one number: {names[0]} and {names[-1]}")
    numbers = [int(number[-20:]) if len(number.lstrip("0")) <= 18 else -1 for number in varying[0]] if varying else [0]
    if min(numbers) < 0 or numbers[-1] - numbers[0] >= MAX_TICKS:
        raise _fault(f"numbers too far apart: {names[0]} and {names[-1]}")
    for k in range(1, len(numbers)):
        if numbers[k] <= numbers[k - 1]:
            raise _fault(f"two images of one number: {names[k - 1]} and {names[k]}")
    return [number - numbers[0] for number in numbers]


def _fault(detail: str) -> VideoFault:
    return VideoFault(Code.E_NAME_GRAMMAR, Stage.PROBE, detail)
