"""Groups of videos: the graph against a plain union-find, anchors, and the published lists."""

import random
from collections import Counter
from hashlib import sha256

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lps.manifests.canonical import digest16
from lps.manifests.records import SourceVideo
from lps.manifests.splits.groups import alias_roots, group_id, group_videos
from lps.manifests.splits.inputs import SplitInput, inputs_from_table, source_inputs
from lps.manifests.splits.key_edges import component_labels
from tests.manifests.splits.rows import video


def parts(videos: list[SplitInput], aliases: tuple[tuple[str, str], ...] = ()) -> set[frozenset[bytes]]:
    """Return the groups as sets of video ids."""
    groups = group_videos(videos, aliases)
    return {
        frozenset(v.video_id for v, n in zip(videos, groups.of_video, strict=True) if n == group)
        for group in range(len(groups))
    }


edges = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 7)), max_size=30)


@given(edges)
def test_labels_agree_with_union_find(pairs: list[tuple[int, int]]) -> None:
    parent = list(range(20))

    def root(node: int) -> int:
        while parent[node] != node:
            node = parent[node]
        return node

    for left, right in pairs:
        parent[root(left)] = root(12 + right)
    left_side = np.array([a for a, _ in pairs], dtype=np.int64)
    right_side = np.array([b for _, b in pairs], dtype=np.int64)
    labels = np.concatenate(component_labels(left_side, right_side, 12, 8))
    for i in range(20):
        for j in range(i):
            assert (labels[i] == labels[j]) == (root(i) == root(j))


@given(st.lists(st.sets(st.sampled_from("abcdefgh"), max_size=3), min_size=1, max_size=12), st.randoms())
def test_order_changes_neither_anchor_nor_size(keys: list[set[str]], rng: random.Random) -> None:
    videos = [video(str(i), *sorted(names)) for i, names in enumerate(keys)]
    shuffled = rng.sample(videos, len(videos))

    def by_id(these: list[SplitInput]) -> dict[bytes, tuple[str, int]]:
        groups = group_videos(these)
        found = {v.video_id: groups.membership(i) for i, v in enumerate(these)}
        return {video_id: (group.anchor, group.size) for video_id, group in found.items()}

    assert by_id(videos) == by_id(shuffled)


def test_chain_of_keys_is_one_group_named_by_its_smallest_key() -> None:
    groups = group_videos([video("1", "b", "c"), video("2", "c", "d"), video("3", "e"), video("4", "d", "a")])
    assert groups.of_video.tolist()[0] == groups.of_video.tolist()[1] == groups.of_video.tolist()[3]
    assert sorted(zip(groups.anchors, groups.sizes.tolist(), strict=True)) == [("a", 3), ("e", 1)]
    assert group_id("a") == digest16("a")


def test_video_without_keys_is_its_own_group() -> None:
    lone = video("1")
    groups = group_videos([lone, video("2")])
    assert groups.anchors[groups.of_video[0]] == f"video/{lone.video_id.hex()}"
    assert groups.sizes.tolist() == [1, 1]


def test_no_videos_no_groups() -> None:
    assert len(group_videos([])) == 0


def test_original_ties_even_when_it_is_absent() -> None:
    original = video("original", label=0)
    fakes = [video(str(i), f"k{i}", original_video_id=original.video_id) for i in range(3)]
    assert len(parts([original, *fakes])) == 1
    assert len(parts(fakes)) == 1
    assert group_videos([original, *fakes]).anchors == ("k0",)


def test_equal_content_ties_but_never_names_a_group() -> None:
    digest = sha256(b"film").digest()
    twins = [video("1", sha256=digest), video("2", "z", sha256=digest)]
    assert group_videos(twins).anchors == ("z",)
    lone = group_videos([video("1", sha256=digest)])
    assert lone.anchors == (f"video/{digest16('toy', '1').hex()}",)
    assert tuple(lone.keys[0]) == lone.anchors


def test_empty_files_are_not_copies_of_each_other() -> None:
    nothing = sha256(b"").digest()
    assert len(parts([video("1", sha256=nothing), video("2", sha256=nothing)])) == 2


def test_alias_ties_without_becoming_a_group_or_a_name() -> None:
    videos = [video("1", "ffpp/seq/043"), video("2", "ffpp/seq/343"), video("3", "ffpp/seq/001")]
    aliases = (("person/a", "ffpp/seq/043"), ("ffpp/seq/343", "person/a"), ("nobody", "noone"))
    assert sorted(map(len, parts(videos, aliases))) == [1, 2]
    assert set(group_videos(videos, (("aaa", "ffpp/seq/043"),)).anchors) == {v.keys[0] for v in videos}
    assert alias_roots(aliases)["person/a"] == "ffpp/seq/043"
    assert alias_roots(()) == {}


def test_shared_namespace_ties_data_sets() -> None:
    assert len(parts([video("1", "ffpp/seq/000"), video("2", "ffpp/seq/000", dataset="deeperforensics")])) == 1


def test_what_a_split_takes_of_a_source_has_every_kind_of_key() -> None:
    source = SourceVideo(
        uri="fake/a.mp4",
        dataset="ffpp",
        label=1,
        label_source="folder",
        target_keys=("t",),
        donor_keys=("d",),
        source_keys=("s",),
        identity_keys=("p", "t"),
    )
    digests = pa.array([b"\1" * 32, None], pa.binary())
    ids = [b"\2" * 16, b"\3" * 16]
    originals = pa.array([None, ids[0]], pa.binary(16))
    first, second = inputs_from_table(source_inputs([source] * 2, ids, digests, originals))
    assert first.keys == ("d", "p", "s", "t")
    assert (first.target_keys, first.donor_keys, first.source_keys) == (("t",), ("d",), ("s",))
    assert (first.identity_keys, first.label, first.dataset) == (("p", "t"), 1, "ffpp")
    assert (first.video_id, first.sha256, first.original_video_id) == (b"\2" * 16, b"\1" * 32, None)
    assert (second.video_id, second.sha256, second.original_video_id) == (b"\3" * 16, None, b"\2" * 16)


def test_inputs_from_table_equal_inputs_from_sources() -> None:
    made = video("1", "d", "t", target_keys=("t",), donor_keys=("d",), official_split="val", method="m")
    table = pa.table(
        {
            "video_id": pa.array([made.video_id], pa.binary(16)),
            "label": pa.array([1], pa.int8()),
            "dataset": pa.array(["toy"]).dictionary_encode(),
            "method": ["m"],
            "official_split": ["val"],
            "target_keys": [["t"]],
            "donor_keys": [["d"]],
            "source_keys": pa.array([None], pa.list_(pa.string())),
        }
    )
    assert inputs_from_table(table) == [made]


def test_ffpp_has_478_groups(ffpp: list[SplitInput]) -> None:
    groups = group_videos(ffpp[:1000] + [v for v in ffpp if v.method == "Deepfakes"])
    assert Counter((groups.sizes // 2).tolist()) == {2: 460, 4: 15, 6: 2, 8: 1}
    by_pair_only = [video(v.video_id.hex(), *v.target_keys, *v.donor_keys) for v in ffpp]
    assert len(group_videos(by_pair_only)) == 500


def test_celebdf_test_fakes_are_one_giant_group_and_three_others(celebdf: list[SplitInput]) -> None:
    fakes = [v for v in celebdf if v.label == 1]
    groups = group_videos(fakes)
    assert sorted(groups.sizes.tolist()) == [18, 23, 24, 275]
    people: list[set[str]] = [set() for _ in range(len(groups))]
    for fake, group in zip(fakes, groups.of_video.tolist(), strict=True):
        people[group].update(fake.identity_keys)
    assert sorted(map(len, people)) == [5, 10, 10, 30]
    assert people[int(np.argmin(groups.sizes))] == {f"celebdf2/id/id{i}" for i in range(39, 49)}
