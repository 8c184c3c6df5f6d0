"""Sequences of images for tests: the frames of sample videos as files, and archives of them."""

import gzip
import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lps.pipeline.config.params import Params
from lps.pipeline.video.decode import DecodeStats, decode

Tree = Mapping[str, bytes]
"""Path -> content."""


def image_bytes(picture: NDArray[np.uint8], form: str = "png") -> bytes:
    """Return a picture as a file of this format."""
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, form, **({"lossless": True} if form == "webp" else {}))
    return sink.getvalue()


def frames_of(video: Path) -> list[bytes]:
    """Return the frames of a video as PNG files."""
    return [image_bytes(frame.rgb()) for frame in decode(video, Params(), DecodeStats())]


def numbered(images: Iterable[bytes], folder: str = "", *, first: int = 0, width: int = 1) -> dict[str, bytes]:
    """Name images by their numbers: `<folder>/7.png`."""
    return {f"{folder}/{k:0{width}}.png".lstrip("/"): data for k, data in enumerate(images, first)}


def write_tree(root: Path, tree: Tree) -> Path:
    """Write files below a folder."""
    for path, data in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def tar_of(tree: Tree, *, compressed: bool = True, more: Iterable[tarfile.TarInfo] = ()) -> bytes:
    """Return a tar of files, the same bytes every time, with further members that have no content."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for path, data in tree.items():
            member = tarfile.TarInfo(f"./{path}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in more:
            archive.addfile(member)
    return gzip.compress(sink.getvalue(), mtime=0) if compressed else sink.getvalue()
