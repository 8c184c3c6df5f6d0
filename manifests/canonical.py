"""Canonical bytes, names and digests: one spelling of every record and file, so that equal content has equal hashes.

A name of a file system is bytes; one that is not UTF-8 has no text that a table could hold. Each byte that is no UTF-8
is written as `\\xd6`, as Python does, and a name that holds such a sequence of characters by itself has its backslash
written as `\\x5c`. All other names stay as they are, and each text stands for one name.
"""

import errno
import hashlib
import io
import json
import math
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_ESCAPE = r"\\x(?:[89a-f][0-9a-f]|5c)"
ESCAPED = re.compile(_ESCAPE)
"""What stands for a byte. No ASCII character but the backslash does: text cannot smuggle in a slash or a dot."""
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and end of line, and those that turn the direction of text."""
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of characters, which JSON may hold, but no name of a file."""
_BARE = re.compile(f"[\udc80-\udcff]|{_ESCAPE}")
"""How Python holds a byte that is no UTF-8; or a name that looks escaped."""


def canonical_json(value: Any) -> bytes:
    """Serialise `value` with sorted keys, no spaces and no NaN (RFC 8785 for the types used here)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def pretty_json(value: Any) -> bytes:
    """Serialise `value` for files that people open: sorted keys, two-space indent, final newline."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def brief_json(value: Any, width: int) -> str:
    """Write `value` for a message in at most `width` characters."""
    text = json.dumps(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def sha256_hex(data: bytes) -> str:
    """Return the lower-case hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def parse_json(data: str | bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError, also for nesting too deep and numbers that are not finite."""
    try:
        return json.loads(data, parse_constant=_finite, parse_float=_finite)
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text}, which is no finite number")
    return value


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read it. Raises OSError, also for a pipe or a device, which might never end or begin."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)  # or it would wait for somebody who writes into a pipe

    file = open(path, "rb", opener=opener)  # noqa: SIM115, PTH123  for the caller to close; Path.open has no opener
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file")
    return file


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a regular file. Raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest16(*parts: str) -> bytes:
    """Return the first 16 bytes of the SHA-256 over `parts` joined by NUL: the form of all ids here."""
    return hashlib.sha256("\0".join(parts).encode()).digest()[:16]


def unit_interval(*parts: str) -> float:
    """Map `parts` to a number in [0, 1) that depends on nothing else."""
    head = hashlib.sha256("\0".join(parts).encode()).digest()[:8]
    return int.from_bytes(head, "big") / 2**64


def rows_digest(rows: Iterable[dict[str, Any]]) -> str:
    """Return an order-independent digest of rows: the sum of their canonical SHA-256 modulo 2**256, in hex."""
    total = 0
    for row in rows:
        total += int.from_bytes(hashlib.sha256(canonical_json(jsonable(row))).digest(), "big")
    return f"{total % 2**256:064x}"


def jsonable(value: Any) -> Any:
    """Turn bytes into hex and tuples into lists, recursively, so that `value` fits JSON."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    return value


def escape_name(name: str) -> str:
    """Return a path or name, as Python reads it from the file system, as text without bytes that are no UTF-8."""
    return _BARE.sub(_escaped, name)


def unescape_name(text: str) -> str:
    """Return the path or name that `escape_name` gave as `text`, to open the file by."""
    return ESCAPED.sub(lambda found: _of_byte(int(found[0][2:], 16)), text)


def visible(message: str) -> str:
    """Return a message that a terminal only shows: bytes of names in it, and characters that steer it, are escaped.

    Spaces, ends of lines and what is escaped already stay.
    """
    text = _NO_BYTE.sub(_in_ascii, message).encode(errors="surrogateescape").decode(errors="backslashreplace")
    return _STEERING.sub(_in_ascii, text)


def _in_ascii(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def visible_json(data: bytes) -> bytes:
    """Return a JSON text, or a table, that means the same and that a terminal only shows."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", data.decode()).encode()


def _escaped(found: re.Match[str]) -> str:
    text = found[0]
    return f"\\x5c{text[1:]}" if text[0] == "\\" else f"\\x{ord(text) - 0xDC00:02x}"


def _of_byte(value: int) -> str:
    return chr(value) if value < 0x80 else chr(0xDC00 + value)
