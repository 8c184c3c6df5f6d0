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
from lps.model.evaluation.metrics import MIN_DRAWS, Bootstrap, Metric, draw_counts, percentile_interval
from lps.model.evaluation.scores import UNNAMED, Scores

NO_PAIRS = "no fake is here with the real video that it was made from"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Fakes and their originals, by the scores of their videos, as arrays of one length."""

    wins: Floats
    """1 where the fake scores higher, 0.5 where both score alike, else 0."""
    original: Ints
    """Number of the original, from 0: what the bootstrap draws, with all its fakes."""
    method: NDArray[np.object_]

    def record(self, bootstrap: Bootstrap) -> dict[str, Any]:
        """Return the share of pairs in which the fake scores higher, of all and of each method, as plain values."""
        methods = sorted(set(self.method.tolist()))
        return {
            "all": _record(self.wins, self.original, bootstrap),
            "methods": {
                name: _record(self.wins[self.method == name], self.original[self.method == name], bootstrap)
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
    return Pairs(
        wins=np.where(ahead > 0, 1.0, np.where(ahead < 0, 0.0, 0.5)),
        original=np.unique(place[fakes], return_inverse=True)[1].astype(np.int64),
        method=np.array([name or UNNAMED for name in videos.method[fakes]], object),
    )


def _record(wins: Floats, original: Ints, bootstrap: Bootstrap) -> Mapping[str, Any]:
    metric, n_originals = Metric(value=None, reason=NO_PAIRS), len(np.unique(original))
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
