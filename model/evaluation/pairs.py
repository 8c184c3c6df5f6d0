"""Pair accuracy: how often a fake scores higher than the real video that it was made from.

Both show the same scene, so that what is alike in all videos of a data set, and differs between data sets, plays no
part. A threshold plays none either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lps.manifests.arrays import Floats, Ints
from lps.model.data.clip_data import ClipData
from lps.model.data.pairs import pair_up
from lps.model.evaluation.metrics import MIN_DRAWS, Bootstrap, Metric, draw_counts, percentile_interval
from lps.model.evaluation.scores import UNNAMED, Scores

NO_PAIRS = "no fake is here with the real video that it was made from"
NO_SHARED = "no clip of a fake is here with the clip of its original that has the same frames"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Fakes and their originals, by the scores of their videos or of their clips, as arrays of one length."""

    wins: Floats
    """1 where the fake scores higher, 0.5 where both score alike, else 0."""
    original: Ints
    """Number of the original video, from 0: what the bootstrap draws, with all its fakes."""
    method: NDArray[np.object_]

    def record(self, bootstrap: Bootstrap, lacking: str = NO_PAIRS) -> dict[str, Any]:
        """Return the share of pairs in which the fake scores higher, of all and of each method, as plain values.

        `lacking` is the reason for no value where there are none.
        """
        methods = sorted(set(self.method.tolist()))
        return {
            "all": _record(self.wins, self.original, bootstrap, lacking),
            "methods": {
                name: _record(self.wins[self.method == name], self.original[self.method == name], bootstrap, lacking)
                for name in methods
            },
        }


def pairs_of(scores: Scores, samples: pa.Table) -> Pairs:
    """Return the fakes whose originals are scored, too. `samples` has the `original_video_id` of each `video_id`."""
    cases = scores.labelled()
    ids = scores.table.filter(scores.table["label"].is_valid())["video_id"].combine_chunks().dictionary_encode()
    videos = cases.by_video()
    names = ids.dictionary
    originals = samples["original_video_id"].take(pc.index_in(names, value_set=samples["video_id"].combine_chunks()))
    place = np.asarray(pc.index_in(originals, value_set=names).fill_null(-1).to_numpy(), np.int64)
    fakes = np.flatnonzero((videos.labels == 1) & (place >= 0))
    fakes = fakes[videos.labels[place[fakes]] == 0]
    ahead = videos.p_fake[fakes] - videos.p_fake[place[fakes]]
    return _compared(ahead, place[fakes], videos.method[fakes])


def shared_windows_of(scores: Scores, data: ClipData) -> Pairs:
    """Return the scored clips of fakes that show the same frames as a scored clip of their original, both of `data`.

    Clips rather than videos: of a video some clips may share their window and others not.
    """
    if not data.identity.index_sha256:  # shards alone do not say what was made from what
        return _compared(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, object))
    found = pair_up(data).only_shared().samples
    row = pc.index_in(data.samples["clip_id"], value_set=scores.table["clip_id"].combine_chunks()).fill_null(-1)
    place = np.asarray(row.to_numpy(), np.int64)[found]
    scored = (place >= 0).all(axis=1)
    place, fakes = place[scored], found[scored, 1]
    names = data.samples.select(["original_video_id", "method"]).take(pa.array(fakes))
    originals = names["original_video_id"].combine_chunks().dictionary_encode().indices
    ahead = scores.p_fake[place[:, 1]] - scores.p_fake[place[:, 0]]
    return _compared(ahead, originals.to_numpy(), np.array(names["method"].to_pylist(), object))


def _compared(ahead: Floats, original: Ints, method: NDArray[np.object_]) -> Pairs:
    return Pairs(
        wins=np.where(ahead > 0, 1.0, np.where(ahead < 0, 0.0, 0.5)),
        original=np.unique(original, return_inverse=True)[1].astype(np.int64),
        method=np.array([name or UNNAMED for name in method], object),
    )


def _record(wins: Floats, original: Ints, bootstrap: Bootstrap, lacking: str) -> Mapping[str, Any]:
    metric, n_originals = Metric(value=None, reason=lacking), len(np.unique(original))
    if len(wins):
        low, high, n_draws = _interval(wins, original, bootstrap)
        metric = Metric(value=float(wins.mean()), low=low, high=high, n_draws=n_draws)
    return {"n_pairs": len(wins), "n_originals": n_originals, **metric.record()}


def _interval(wins: Floats, original: Ints, bootstrap: Bootstrap) -> tuple[float | None, float | None, int]:
    """Return the bounds over draws of as many originals, each with all its fakes, and the number of draws."""
    _, family = np.unique(original, return_inverse=True)
    n_pairs, n_wins = np.bincount(family), np.bincount(family, wins)
    rng = np.random.default_rng(bootstrap.seed)
    drawn = [(d @ n_wins) / (d @ n_pairs) for d in draw_counts(len(n_pairs), bootstrap.n_draws, rng)]
    shares = np.concatenate(drawn) if drawn else np.zeros(0)
    if len(shares) < MIN_DRAWS:
        return None, None, len(shares)
    low, high = percentile_interval(shares, bootstrap.level)
    return low, high, len(shares)
