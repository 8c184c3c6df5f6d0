"""What a detector learnt from, compared with a data set that it is evaluated on, as far as the former is at hand.

Equal files are found by the checkpoint alone (`manifests/splits/learnt.py`). Near copies and shared keys need the
manifests of the training data: they are read from where the checkpoint says that it lay, if that is a local folder, or
from what is evaluated beside.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from lps.manifests.arrays import Bools
from lps.manifests.errors import LpsError
from lps.manifests.index import read_index
from lps.manifests.names import Role
from lps.manifests.splits.across import ComparedSet, Comparison, compare_sets
from lps.manifests.splits.kinship import kinships
from lps.manifests.storage import open_store
from lps.model.data.clip_data import ClipData, compared_videos
from lps.model.data.sources import Sources
from lps.model.evaluation.loading import LoadedDetector

NOT_AT_HAND = (
    "the data set {} that it learnt from is not at hand: copies encoded anew and people of both are not noticed"
)


@dataclass(frozen=True, slots=True)
class _LearntSet:
    """A data set that a detector learnt from, as its checkpoint tells it."""

    name: str
    location: str
    identity: Mapping[str, Any]


def compare_learnt(
    loaded: LoadedDetector, sources: Sources, data: ClipData, name: str, places: Sequence[str] = ()
) -> Comparison:
    """Return what the detector learnt from in other data sets of the split that it is evaluated on.

    `name` is what the data set is called; `places` are those of all data sets that were asked for. The split that it
    learnt from, and its own data set, are left out: what these give away is asked for, or stamped. Raises as
    `compared_videos` does for the data set of `sources`.
    """
    if sources.data is None:
        return Comparison()
    others = [
        each
        for each in _learnt_sets(loaded)
        if each.identity.get("index_sha256") != data.identity.index_sha256
        and each.identity.get("split") != sources.split
    ]
    if not others:
        return Comparison()
    mine = compared_videos(sources.data, data.identity.split_set, name)
    mine = replace(mine, held=_mask(pc.equal(mine.videos["split"], sources.split)))
    found: list[ComparedSet] = []
    notes: list[str] = []
    for each in others:
        videos = _at_hand(each, loaded, places)
        if videos is not None:
            found.append(videos)
            continue
        notes.append(NOT_AT_HAND.format(each.name))
        notes += [kin.said() for kin in kinships(each.identity.get("datasets", ()), data.identity.datasets)]
    compared = compare_sets([*found, mine]) if found else Comparison()
    return replace(compared, notes=(*compared.notes, *notes))


def _learnt_sets(loaded: LoadedDetector) -> Iterator[_LearntSet]:
    asked = loaded.config.get("data", {})
    places = {each["name"]: each.get("data") for each in asked.get("sets", ())}
    for each in loaded.data.get("sets") or [loaded.data]:
        if each.get("index_sha256"):  # plain shards have none
            name = str(each.get("name") or "+".join(each.get("datasets", ())))
            yield _LearntSet(name, str(places.get(name) or asked.get("data") or ""), each)


def _at_hand(each: _LearntSet, loaded: LoadedDetector, places: Sequence[str]) -> ComparedSet | None:
    """Return the videos of a data set, those marked that were learnt from; None where it does not lie in any place.

    A URL that only the checkpoint names is not opened: that may come from anybody.
    """
    own = [each.location] if each.location and "://" not in each.location else []
    found = next((videos for place in (*own, *places) if (videos := _found_at(place, each)) is not None), None)
    if found is None:
        return None
    if loaded.learnt is None:
        return replace(found, learnt=_mask(pc.equal(found.videos["split"], each.identity["split"])))
    rows = loaded.learnt.table
    seen = rows.filter(pc.not_equal(rows["role"], str(Role.VALIDATION)))
    by_bytes = pc.is_in(found.videos["sha256"], value_set=seen["sha256"].combine_chunks().drop_null())
    return replace(found, learnt=_mask(by_bytes))


def _found_at(place: str, each: _LearntSet) -> ComparedSet | None:
    try:
        if read_index(open_store(place)).sha256 != each.identity["index_sha256"]:
            return None
        return compared_videos(place, str(each.identity["split_set"]), each.name)
    except LpsError:
        return None


def _mask(values: Any) -> Bools:
    return np.asarray(pc.fill_null(values, False), np.bool_)  # noqa: FBT003
