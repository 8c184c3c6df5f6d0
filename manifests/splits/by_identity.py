"""The rule that divides identities instead of groups: for sets where one group ties nearly everything together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from lps.manifests.arrays import Ints
from lps.manifests.names import SPLITS
from lps.manifests.splits.groups import group_videos
from lps.manifests.splits.inputs import CONTENT_PREFIX, Aliases, SplitInput, inputs_table, video_key
from lps.manifests.splits.key_edges import KeyEdges
from lps.manifests.splits.pins import Owners, all_keys
from lps.manifests.splits.placement import hash_places, ranked_places
from lps.manifests.splits.records import SplitParams, SplitRow, bridge_row, make_row, position

TORN = -1
"""Place of an identity that the base holds in two splits: no video of it can be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """The identities of a set of videos, and which of them each video shows."""

    names: tuple[str, ...]
    keys: tuple[frozenset[str], ...]
    """All keys of each identity."""
    of_video: tuple[frozenset[int], ...]
    keys_of_video: Sequence[Sequence[str]]
    """The keys that tie each video to others, sorted."""


def identity_rows(videos: Sequence[SplitInput], params: SplitParams, owners: Owners) -> list[SplitRow]:
    """Keep the videos whose identities all lie in one split, and leave out the others as bridges.

    An identity is what the real videos tie together: its sequence, its recording, its person. A fake shows two.
    """
    identities = find_identities(videos, params.aliases)
    places = _places(identities, params, owners)
    kept: list[SplitInput] = []
    splits: list[str] = []
    rows: list[SplitRow] = []
    for video, shown, keys in zip(videos, identities.of_video, identities.keys_of_video, strict=True):
        where = {int(places[identity]) for identity in shown}
        where |= {SPLITS.index(split) for split in owners.splits_of(all_keys(video))}
        if len(where) == 1 and TORN not in where:
            kept.append(video)
            splits.append(SPLITS[where.pop()])
        else:
            rows.append(bridge_row(video, params, rule="identity-hash", keys=keys))
    groups = group_videos(kept, params.aliases)
    for i, (video, split) in enumerate(zip(kept, splits, strict=True)):
        rows.append(make_row(video, params, groups.membership(i), split=split, rule="identity-hash"))
    return rows


def find_identities(videos: Sequence[SplitInput], aliases: Aliases = ()) -> Identities:
    """Tie keys to identities by the real videos, by originals and by aliases; fakes tie nothing, they show."""
    originals = {video.original_video_id for video in videos}
    implied = {
        (video_key(video.original_video_id), key)
        for video in videos
        if video.original_video_id is not None
        for key in video.target_keys
    }
    ties = np.array([video.label == 0 or video.video_id in originals for video in videos], np.bool_)
    edges = KeyEdges.of(inputs_table(videos), (*aliases, *sorted(implied)))
    content = pc.starts_with(edges.names, CONTENT_PREFIX).to_numpy(zero_copy_only=False)[edges.key]
    # Content ties real videos; as a key of a fake it would be one more identity that has to agree.
    tying = ties[edges.video]
    showing = edges.only(tying | ~content)
    _, key_label = edges.only(tying).labels()
    names = edges.names.to_pylist()
    carried = np.unique(showing.key)
    anchor = showing.anchors(key_label)
    number_of_label = {int(label): i for i, label in enumerate(np.unique(key_label[carried]))}
    number_of_key = [number_of_label.get(label) for label in key_label.tolist()]
    keys: list[set[str]] = [set() for _ in number_of_label]
    for name, number in zip(names, number_of_key, strict=True):
        if number is not None:
            keys[number].add(name)
    shown: list[set[int]] = [set() for _ in videos]
    for video, key in zip(showing.video.tolist(), showing.key.tolist(), strict=True):
        number = number_of_key[key]
        assert number is not None  # the key is carried
        shown[video].add(number)
    _unite_copies(videos, shown)
    return Identities(
        names=tuple(names[int(anchor[label])] for label in number_of_label),
        keys=tuple(frozenset(group) for group in keys),
        of_video=tuple(frozenset(numbers) for numbers in shown),
        keys_of_video=edges.keys_of_videos(),
    )


def _unite_copies(videos: Sequence[SplitInput], shown: list[set[int]]) -> None:
    """Let equal files show the same identities, whatever their names say."""
    of_content: dict[str, set[int]] = {}
    for video, identities in zip(videos, shown, strict=True):
        if video.content_key is not None:
            of_content.setdefault(video.content_key, set()).update(identities)
    for video, identities in zip(videos, shown, strict=True):
        identities.update(of_content.get(video.content_key or "", ()))


def _places(identities: Identities, params: SplitParams, owners: Owners) -> Ints:
    """Divide the identities; the base, where it holds one, has decided already."""
    owned = _owned(identities, owners)
    best = _with(owned, hash_places(_positions(identities.names, str(params.seed)), params.ratios))
    if params.tries == 1:
        return best
    shared = [shown for shown in identities.of_video if len(shown) > 1]
    if not shared:
        return best
    flat = np.fromiter((identity for shown in shared for identity in shown), dtype=np.int64)
    starts = np.cumsum([0, *(len(shown) for shown in shared[:-1])])
    entangled = np.unique(flat)
    fewest = len(shared) + 1
    for attempt in range(params.tries):
        seed = str(params.seed) if attempt == 0 else f"{params.seed}/{attempt}"
        names = [identities.names[i] for i in entangled]
        sizes = np.ones(len(entangled), dtype=np.int64)
        places = best.copy()
        places[entangled] = ranked_places(_positions(names, seed), sizes, [""] * len(names), params.ratios)
        places = _with(owned, places)
        low, high = (f.reduceat(places[flat], starts) for f in (np.minimum, np.maximum))
        lost = int(np.count_nonzero((low != high) | (low == TORN)))
        if lost < fewest:
            fewest, kept = lost, places
    return kept


def _positions(names: Sequence[str], seed: str) -> NDArray[np.float64]:
    return np.array([position(seed, name) for name in names])


def _owned(identities: Identities, owners: Owners) -> dict[int, int]:
    found: dict[int, int] = {}
    for i, keys in enumerate(identities.keys):
        splits = owners.splits_of(keys)
        if splits:
            found[i] = SPLITS.index(splits.pop()) if len(splits) == 1 else TORN
    return found


def _with(owned: dict[int, int], places: Ints) -> Ints:
    for identity, place in owned.items():
        places[identity] = place
    return places
