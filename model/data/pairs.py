"""Which real clip a fake is read with: the one that it was made from, or the nearest of its video."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from lps.manifests.arrays import Bools, Ints
from lps.manifests.errors import RefusedError
from lps.model.data.clip_data import ClipData, codes_of_parts, id_codes, window_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPairs:
    """Fakes, each beside a clip of the real video that it was made from."""

    samples: Ints
    """(n, 2): numbers of the real and of the fake clip."""
    shared: Bools
    """(n,): both are cut out of the same frames in the same way."""
    n_fakes: int
    """Fakes among the samples, in a pair or not."""
    n_reals: int

    def __len__(self) -> int:
        return len(self.samples)

    def only_shared(self) -> "ClipPairs":
        """Return the pairs that show the same frames."""
        return replace(self, samples=self.samples[self.shared], shared=self.shared[self.shared])

    def record(self) -> dict[str, int]:
        """Return how many there are, and how many clips are in none, as plain values."""
        return {
            "n_pairs": len(self),
            "n_shared": int(self.shared.sum()),
            "n_fakes_in_no_pair": self.n_fakes - len(self),
            "n_reals_in_no_pair": self.n_reals - len(np.unique(self.samples[:, 0])),
        }

    def said(self) -> str:
        """Say the same in words."""
        found = self.record()
        return (
            f"{found['n_pairs']} pairs of a fake and its original, {found['n_shared']} of them of the same frames; "
            f"{found['n_fakes_in_no_pair']} fake and {found['n_reals_in_no_pair']} real clips are in no pair"
        )


def pair_up(data: ClipData) -> ClipPairs:
    """Return a pair for every fake whose original is among the samples.

    A fake that shares the window of its original (`pair_mode`) has the original's clip of the same frames and face
    track. Any other one, and one whose partner is not among the samples, has the original's clip nearest in time, of
    two as near the earlier one. A self-blend has the clip that it is made of.

    Raises RefusedError for fakes of plain shards, which do not say what a fake was made from.
    """
    reals, blends = np.flatnonzero(data.labels == 0), np.flatnonzero(data.self_blends)
    fakes = np.flatnonzero((data.labels == 1) & ~data.self_blends)
    samples, shared = np.empty((0, 2), np.int64), np.empty(0, np.bool_)
    if len(fakes) or not len(blends):
        samples, shared = _pairs_of(data, reals, fakes)
    return ClipPairs(
        samples=np.concatenate([samples, np.stack([blends - 1, blends], axis=1)]),
        shared=np.concatenate([shared, np.ones(len(blends), np.bool_)]),
        n_fakes=len(fakes) + len(blends),
        n_reals=len(reals),
    )


def _pairs_of(data: ClipData, reals: Ints, fakes: Ints) -> tuple[Ints, Bools]:
    """Return the pairs of fakes that were made by others, and whether both members show the same frames."""
    if not data.identity.index_sha256:
        raise RefusedError("shards alone do not say which real video a fake was made from; name the data set instead")
    n = len(data)
    columns = [chunk for name in ("video_id", "original_video_id") for chunk in data.samples[name].chunks]
    codes = id_codes(pa.chunked_array(columns, pa.binary(16)))
    video, original = codes_of_parts(codes[:n], data), codes_of_parts(codes[n:], data)
    paired = fakes[(original[fakes] >= 0) & np.isin(original[fakes], video[reals])]
    if not len(paired):
        return np.empty((0, 2), np.int64), np.empty(0, np.bool_)
    mate = _same_window(data, (reals, video[reals]), (paired, original[paired]))
    real = np.where(mate >= 0, mate, _nearest(data, (reals, video[reals]), (paired, original[paired])))
    return np.stack([real, paired], axis=1), mate >= 0


def _nearest(data: ClipData, reals: tuple[Ints, Ints], fakes: tuple[Ints, Ints]) -> Ints:
    """Return for each fake the number of the clip nearest in time of the video that it was made from.

    Both are numbers of samples, and of the real videos that they belong to; each of these has some real clip.
    """
    start = np.asarray(data.samples["start_s"].to_numpy())
    start = start - start.min()
    span = float(start.max()) + 1.0
    (real, video), (fake, original) = reals, fakes
    line = video * 2 * span + start[real]  # videos apart, clips of one in order of time
    by_line = np.argsort(line, kind="stable")
    wanted = original * 2 * span + start[fake]
    after = np.clip(np.searchsorted(line[by_line], wanted), 0, len(real) - 1)
    before = np.maximum(after - 1, 0)
    far = np.abs(line[by_line][[before, after]] - wanted)
    far[video[by_line][[before, after]] != original] = np.inf
    return np.asarray(real[by_line[np.where(far[0] <= far[1], before, after)]], np.int64)


def _same_window(data: ClipData, reals: tuple[Ints, Ints], fakes: tuple[Ints, Ints]) -> Ints:
    """Return for each fake that shares its original's window the number of the original's clip of it, else -1.

    Arguments are as those of `_nearest`.
    """
    shares = np.asarray(data.samples["shares_window"].fill_null(False).to_numpy(), np.bool_)  # noqa: FBT003
    (real, video), (fake, original) = reals, fakes
    mate = np.full(len(fake), -1, np.int64)
    if not shares[fake].any():
        return mate
    window = np.asarray(data.samples["window"].fill_null(0).to_numpy(), np.uint64)
    theirs = window[real] + video.astype(np.uint64) * window_weights(1)
    wanted = window[fake] + original.astype(np.uint64) * window_weights(1)
    by_number = np.argsort(theirs, kind="stable")
    place = np.minimum(np.searchsorted(theirs[by_number], wanted), len(real) - 1)
    found = by_number[place]
    same = shares[fake] & (theirs[found] == wanted) & (video[found] == original)
    mate[same] = real[found[same]]
    return mate
