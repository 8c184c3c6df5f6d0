"""Canonical bytes and digests: one spelling of every record, so that equal content has equal hashes."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


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


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file. Raises OSError."""
    with path.open("rb") as file:
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
