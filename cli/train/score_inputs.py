"""The videos that `lps-train score` is asked for: files, folders, patterns and lists of these."""

import os
import sys
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

from lps.cli.train.score_files import shown
from lps.manifests.errors import RefusedError, UnreadableError, first_line
from lps.pipeline.sources.shared.types import is_video


def find_videos(given: Sequence[str], list_file: Path | None) -> list[Path]:
    """Return the videos behind names, each once, in the order of the names; those of folders and patterns sorted.

    A name that is not there stays, for its row says so. Raises RefusedError for what is no local file, and for folders
    and patterns without a video, UnreadableError for a list that cannot be read.
    """
    names = [*given, *(_listed(list_file) if list_file is not None else ())]
    found = {os.path.abspath(path): path for name in names for path in _videos(name)}  # noqa: PTH100  links stay
    if not found:
        raise RefusedError("there is no video to score: name files, folders or patterns, or a --list that has some")
    return list(found.values())


def _listed(path: Path) -> list[str]:
    """Return the lines of a list, of stdin for '-': paths from the working folder, as `find` writes them."""
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as e:
        raise UnreadableError(f"cannot read the list {shown(path)}: {first_line(e)}") from e
    if b"\0" in data:
        raise UnreadableError(f"the list {shown(path)} has bytes that no name has; it must have a name a line")
    return [os.fsdecode(line) for line in data.splitlines() if line.strip()]


def _videos(name: str) -> list[Path]:
    if name == "-":
        raise RefusedError(
            "a video cannot be scored from stdin ('-'): its file is read more than once, so save it and name the file "
            "(names of files come by `--list -`)"
        )
    if "://" in name:
        raise RefusedError(f"{name} is a URL, and only files of this machine are scored: fetch it, or mount its store")
    if os.path.isdir(name):  # noqa: PTH112  false for names that no file can have
        return _below(name)
    if not has_magic(name) or os.path.lexists(name):
        return [Path(name)]
    matches = sorted(glob(name, recursive=True))  # noqa: PTH207  patterns may be absolute
    if not matches:
        raise RefusedError(f"no file matches {shown(Path(name))}")
    return [
        path
        for match in matches
        for path in (_below(match, required=False) if os.path.isdir(match) else [Path(match)])  # noqa: PTH112
    ]


def _below(folder: str, *, required: bool = True) -> list[Path]:
    """Return the videos below a folder, as `lps-prep run --dataset folder` knows them by name, sorted."""
    top = Path(folder)
    files = (path for path in top.rglob("*") if path.is_file())
    found = sorted(path for path in files if is_video(path.relative_to(top).as_posix()))
    if required and not found:
        raise RefusedError(f"no file below {shown(top)} is a video by its name")
    return found
