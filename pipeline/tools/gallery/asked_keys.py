"""The clips and videos that a user wants to see: a list of keys, or the offenders of an audit."""

import json
from pathlib import Path
from typing import Any

from lps.manifests.errors import UnreadableError

MAX_BYTES = 256 << 20
SEEN_STATES = ("fail", "warn", "error", "waived")


def read_keys(path: Path) -> tuple[str, ...]:
    """Return the sample keys and ids of a file, in its order, each once.

    The file has one a line, or is the JSON report of `lps-audit check`, whose offenders they are. Raises
    UnreadableError.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UnreadableError(f"cannot read {path}: it is larger than {MAX_BYTES >> 20} MiB, so no list of keys")
        text = path.read_text(encoding="utf-8")
        keys = _offenders(json.loads(text)) if text.lstrip().startswith("{") else text.split()
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as e:
        reason = " ".join(str(e).split())
        raise UnreadableError(f"{path} is neither a list of keys nor the JSON report of an audit: {reason}") from e
    return tuple(dict.fromkeys(keys))


def _offenders(report: dict[str, Any]) -> list[str]:
    return [
        str(row["key"]).rpartition("/")[2]  # checks of tars name clips after their shard
        for check in report["checks"]
        if check["state"] in SEEN_STATES
        for row in check.get("sample") or ()
        if row.get("kind") in ("clip", "video")
    ]
