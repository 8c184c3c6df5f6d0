"""Features of a clip's pictures that are no detector's business: a thumbnail of 8 x 8 px, and the power spectrum."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Floats, inner_side, square_of
from lps.manifests.errors import UnreadableError
from lps.manifests.schemas import Row
from lps.manifests.storage import Store

THUMBNAIL_PX = 8
MAX_PX = 4096
N_FRAMES = 4
"""Pictures of a clip that are read: the first, the last and those between at even steps."""
BAND = (24, 34)
"""Radii, in periods per picture side, of a band in which face swaps were seen to lose power."""
READERS = 8
"""Shards that are read at a time: a bucket answers a range in some 30 ms, whatever its size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFeatures:
    """Features of the pictures of one clip."""

    thumbnail: Floats
    """(192,): mean over its pictures, row by row, red, green and blue, 0 to 255."""
    spectrum: Floats
    """(side / 2,): log10 of the share of power at radii 1, 2, … periods per side, mean over its pictures."""
    first_thumbnail: Floats
    first_spectrum: Floats
    """The same of its first picture alone."""


def read_features(store: Store, clips: Sequence[Row]) -> tuple[list[PictureFeatures | None], list[str]]:
    """Return the features of every clip, None where a picture cannot be read, and what was wrong with these.

    Args:
        store: the data set.
        clips: `uri` of the shard, `tar_offset`, `align_template` and `pictures` of each: the members that
            `chosen_members` gives.
    """
    order = sorted(range(len(clips)), key=lambda i: (clips[i]["uri"], clips[i]["tar_offset"]))
    shards = [(uri, list(numbers)) for uri, numbers in groupby(order, key=lambda i: str(clips[i]["uri"]))]
    found: list[PictureFeatures | None] = [None] * len(clips)
    wrong: list[str] = []
    with ThreadPoolExecutor(READERS) as pool:
        read = pool.map(partial(_of_shard, store, clips), shards)
        for (_, numbers), (features, faults) in zip(shards, read, strict=True):
            wrong += faults
            for i, each in zip(numbers, features, strict=True):
                found[i] = each
    return found, wrong


def _of_shard(
    store: Store, clips: Sequence[Row], shard: tuple[str, list[int]]
) -> tuple[list[PictureFeatures | None], list[str]]:
    from PIL import Image

    uri, numbers = shard
    chosen: list[list[dict[str, Any]]] = [clips[i]["pictures"] for i in numbers]
    ranges = [(m["offset"], m["offset"] + m["nbytes"]) for members in chosen for m in members]
    found: list[PictureFeatures | None] = []
    wrong = []
    try:
        data = store.read_ranges(uri, ranges)
        for i, members in zip(numbers, chosen, strict=True):
            try:
                found.append(features_of([next(data) for _ in members], clips[i]["align_template"]))
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
                wrong.append(f"{uri}: a picture does not decode: {type(e).__name__}")
                found.append(None)
    except UnreadableError as e:
        wrong.append(str(e))
    return found + [None] * (len(numbers) - len(found)), wrong


def chosen_members(clip: Row) -> list[dict[str, Any]]:
    """Return the members of the pictures that count, in the order of the tar, of `members` and `image_codec`."""
    pictures = sorted((m for m in clip["members"] if m["ext"].endswith(clip["image_codec"])), key=itemgetter("ext"))
    places: list[int] = np.linspace(0, len(pictures) - 1, N_FRAMES).round().astype(int).tolist()
    return [pictures[i] for i in dict.fromkeys(places)] if pictures else []


def features_of(pictures: Sequence[bytes], template: str) -> PictureFeatures:
    """Return the features of the inner square of encoded pictures of one size, which `template` names.

    Raises OSError, SyntaxError or ValueError for a bad one.
    """
    from PIL import Image

    thumbnails, spectra = [], []
    for data in pictures:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > MAX_PX:
                raise ValueError(f"{image.width}x{image.height} px are no clip's")
            inner = square_of(image.width, inner_side(template, image.width))
            rgb = image.convert("RGB")
        if inner.side_px < inner.stored_px:
            rgb = rgb.crop((inner.first_px, inner.first_px, inner.end_px, inner.end_px))
        small = rgb.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
        thumbnails.append(np.asarray(small, np.float64).ravel())
        spectra.append(radial_power(np.asarray(rgb.convert("L"), np.float32)))
    if not thumbnails:
        raise ValueError("a clip without pictures")
    return PictureFeatures(
        thumbnail=np.mean(thumbnails, axis=0),
        spectrum=np.mean(spectra, axis=0),
        first_thumbnail=thumbnails[0],
        first_spectrum=spectra[0],
    )


def radial_power(gray: NDArray[np.float32]) -> Floats:
    """Return log10 of the share of power at each radius of a square picture, averaged over all directions.

    Radii are 1 to side / 2, in periods per side; brightness and contrast do not count. A Hann window keeps the
    picture's edges, which do not meet, out of it. A picture of one colour has the same share everywhere.
    """
    from scipy import fft

    side = gray.shape[0]
    if gray.ndim != 2 or gray.shape[1] != side or side < 2:
        raise ValueError(f"no square picture: {gray.shape}")
    window, radius, count = _rings(side)
    values = np.abs(fft.rfft2((gray - gray.mean()) * window))
    power = np.bincount(radius, weights=(values * values).ravel(), minlength=len(count))[1 : side // 2 + 1]
    mean = power / count[1 : side // 2 + 1] + 1e-6
    return np.asarray(np.log10(mean / mean.sum()), np.float64)


@cache
def _rings(side: int) -> tuple[NDArray[np.float32], NDArray[np.int64], Floats]:
    """Return the window, the radius of every value of `rfft2` (flat), and how many values each radius has."""
    edge = np.hanning(side).astype(np.float32)
    down, across = np.fft.fftfreq(side, 1 / side)[:, None], np.fft.rfftfreq(side, 1 / side)[None]
    radius = np.hypot(down, across).round().astype(np.int64).ravel()
    return np.outer(edge, edge), radius, np.bincount(radius).astype(np.float64)


def band_power(spectra: Floats) -> Floats | None:
    """Return log10 of the power in BAND of spectra (n, radii); None where the pictures are too small to have it."""
    low, high = BAND
    if spectra.shape[1] < high:
        return None
    return np.asarray(np.log10((10.0 ** spectra[:, low - 1 : high]).sum(axis=1)), np.float64)
