"""Folders of many files, half of them broken, and what a job over them costs: a part of `load.py`."""

import math
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import scale  # type: ignore[import-not-found]  # beside this file

from lps.manifests.codes import Code, Status
from lps.manifests.columns import column_batches
from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import open_store
from lps.pipeline.config.settings import DEFAULT_SHARD_MB
from lps.pipeline.tools.demo_videos import make_texture_video

LAYOUTS = ("flat", "deep")
DEEP_FOLDERS, FILES_A_FOLDER = 6, 4
"""Folders above each file of the layout `deep`, the class's included, and files in each."""


def broken(one: bytes) -> dict[str, Callable[[Path], object]]:
    """Return how each kind of broken file is made in the place of a video, by kind; `one` is a whole video."""
    header = one[: int.from_bytes(one[:4], "big")]
    return {
        "empty": lambda path: path.touch(),
        "text": lambda path: path.write_text("this video has been removed\n"),
        "cut": lambda path: path.write_bytes(one[: len(one) // 2]),
        "header only": lambda path: path.write_bytes(header),
        "zero bytes": lambda path: path.write_bytes(bytes(len(one))),
        "noise": lambda path: path.write_bytes(os.urandom(len(one))),
        "link to nothing": lambda path: path.symlink_to("gone.mp4"),
        "no track": lambda path: path.write_bytes(one.replace(b"trak", b"free")),
        "no name of a video": lambda path: (path.parent / f"{path.stem} \udcff").write_bytes(os.urandom(len(one))),
        "folder with a video's name": _folder,
    }


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "caf\u00e9\nnotes").write_text("a folder whose name says that it is a video\n")


def make_files(folder: Path, n: int, layout: str) -> Counter[str]:
    """Make `n` videos, every other one broken, half of them below `real` and half below `fake`; count their kinds."""
    folder.mkdir(parents=True)
    make_texture_video(folder / "one.mp4", n_frames=2, width=64, height=64)
    one = (folder / "one.mp4").read_bytes()
    (folder / "one.mp4").unlink()
    kinds = broken(one)
    names = list(kinds)
    made: Counter[str] = Counter()
    places: set[Path] = set()
    for k in range(n):
        family, fake = k // 4, k // 2 % 2
        place = folder / ("real", "fake")[fake] / (_deep(family) if layout == "deep" else "")
        if place not in places:
            place.mkdir(parents=True, exist_ok=True)
            places.add(place)
        path = place / f"{2 * family + k % 2:08d}.mp4"  # a fake is called as its original
        if k % 2:
            kind = names[k // 2 % len(names)]
            kinds[kind](path)
        else:
            kind = "whole"
            path.write_bytes(one + b"\0\0\0\x10free" + k.to_bytes(8, "big"))  # a box that players skip
        made[kind] += 1
    return made


def _deep(family: int) -> str:
    """Return the folders of a family's files below that of their class, with names as people give them."""
    leaf = family // (FILES_A_FOLDER // 2)
    digits = [leaf // 16**k % 16 for k in reversed(range(DEEP_FOLDERS - 1))]
    return "/".join(f"{('part', 'Über', 'a b', 'take', 'cam')[k]} {digit:x}" for k, digit in enumerate(digits))


def measure_files(
    n: int, layout: str, workers: int, folder: Path, budget_seconds: float = math.inf
) -> tuple[dict[str, scale.Cost], str]:
    """Make the files, run the job and, if that was done within its budget, resume it; return costs, and what came out.

    Each runs in a process of its own. Raises AssertionError where a file has no row, or a row says otherwise than its
    file is.
    """
    source, out = str(folder / "source"), str(folder / "out")
    made = make_files(Path(source), n, layout)
    split = SplitParams()
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        costs: dict[str, scale.Cost] = pool.submit(
            scale.run_once, source, out, workers, split, DEFAULT_SHARD_MB, budget_seconds
        ).result()
    if any(scale.UNFINISHED in step for step in costs):
        return costs, "interrupted"
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        costs |= pool.submit(scale.resume, source, out, workers, split, DEFAULT_SHARD_MB).result()
    return costs, check_rows(out, made)


def check_rows(out: str, made: Counter[str]) -> str:
    """Compare the rows of the manifest with what was made; return the codes and how many files have each."""
    codes: Counter[str] = Counter()
    for batch in column_batches(open_store(out), "videos", ("status", "error_code")):
        codes.update(row["error_code"] or row["status"] for row in batch.to_pylist())
    assert sum(codes.values()) == sum(made.values()), (codes, made)
    # to libav one of some thousand files of noise is the header of a video; decoding, which is left out, would tell
    assert 0 <= codes[str(Status.OK)] - made["whole"] <= made["noise"] // 100, (codes, made)
    assert codes[str(Code.E_EMPTY_FILE)] == made["empty"], (codes, made)
    assert codes[str(Code.S_FOREIGN)] == made["no name of a video"] + made["folder with a video's name"], (codes, made)
    return ", ".join(f"{codes[code]:,} {code}" for code in sorted(codes))
