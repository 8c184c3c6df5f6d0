"""Split rules: test vectors, promises of every rule, small sets, and appending to a base."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lps.manifests.canonical import canonical_json, digest16
from lps.manifests.errors import RefusedError
from lps.manifests.splits.by_identity import find_identities
from lps.manifests.splits.groups import group_videos
from lps.manifests.splits.inputs import SplitInput
from lps.manifests.splits.records import SplitParams, position
from tests.manifests.splits.rows import count, crossing, record, video, where
from tests.manifests.splits.rows import split as assign

GROUP_SAFE = ("group", "ranked", "stratified", "identity-hash")


def families(n: int, fakes: int = 1) -> list[SplitInput]:
    """Return `n` real videos of one person each, every one with some fakes."""
    reals = [video(f"real{i}", f"toy/id/{i:04d}", label=0) for i in range(n)]
    return [*reals, *(video(f"fake{i}.{j}", f"toy/id/{i:04d}", method="swap") for i in range(n) for j in range(fakes))]


@st.composite
def universes(draw: st.DrawFn, max_size: int = 40) -> list[SplitInput]:
    """Draw videos that share few keys, originals and contents, so that groups of all shapes come up."""
    n = draw(st.integers(1, max_size))
    key = st.sampled_from([f"k{i}" for i in range(25)])
    made: list[SplitInput] = []
    for i in range(n):
        keys = tuple(sorted(draw(st.sets(key, max_size=2))))
        label = draw(st.sampled_from([0, 1, 1, None]))
        originals = [None, None, *(v.video_id for v in made if v.label == 0)]
        made.append(
            video(
                f"v{i}",
                *keys,
                label=label,
                target_keys=keys[:1],
                donor_keys=keys[1:],
                method=draw(st.sampled_from(["x", "y"])) if label else None,
                original_video_id=draw(st.sampled_from(originals)) if label else None,
                sha256=draw(st.sampled_from([None, None, bytes([i]) * 32, b"\xff" * 32])),
            )
        )
    return made


rules = st.sampled_from(GROUP_SAFE)


@pytest.mark.parametrize(
    ("anchor", "expected"),
    [
        ("ffpp/seq/000", 0.538935121246),
        ("ffpp/seq/001", 0.899418040826),
        ("celebdf2/id/id0", 0.886765023748),
        ("dfdc/src/aaqaifqrwn", 0.400548741408),
    ],
)
def test_position_vectors(anchor: str, expected: float) -> None:
    assert position(0, anchor) == pytest.approx(expected, abs=5e-13)


class TestRules:
    """What every rule promises."""

    @given(universes(), rules, st.randoms())
    @settings(deadline=None)
    def test_order_and_repetition_change_nothing(self, videos: list[SplitInput], rule: str, rng: random.Random) -> None:
        """Workers answer in any order, each with its share of the videos."""
        params = SplitParams(rule=rule, giant="component")
        again = rng.sample(videos, len(videos)) + videos[:3]
        assert assign(again, params) == assign(videos, params)

    @given(universes(), rules, st.sampled_from(["component", "identity-hash"]))
    @settings(deadline=None)
    def test_no_group_crosses(self, videos: list[SplitInput], rule: str, giant: str) -> None:
        params = SplitParams(rule=rule, giant=giant, aliases=(("k0", "k1"),))
        rows = assign(videos, params)
        assert crossing(videos, rows, params.aliases) == []
        assert sorted(v.video_id for v in videos) == [row.video_id for row in rows]
        assert all(row.excluded == (row.split is None) == (row.exclude_reason is not None) for row in rows)
        homes = {(row.group_id, row.split) for row in rows if not row.excluded}
        assert len(homes) == len({group for group, _ in homes})

    def test_hash_needs_no_state(self) -> None:
        videos = families(200)
        kept = [v for v in videos if int(v.keys[0][-1]) % 2]
        everything = where(assign(videos, SplitParams()))
        assert all(everything[key] == split for key, split in where(assign(kept, SplitParams())).items())

    def test_rows_say_how_they_came_about(self) -> None:
        rows = assign(families(60), SplitParams(seed=7))
        row = rows[0]
        assert row.u == position(7, row.group_anchor)
        assert (row.rule, row.seed, row.group_size, row.pinned, row.origin_run) == ("hash", 7, 2, False, "")
        assert row.group_keys == (row.group_anchor,)
        assert row.split == ("train" if row.u < 0.6 else "val" if row.u < 0.8 else "test")

    @pytest.mark.parametrize("rule", ["group", "ranked", "stratified", "random"])
    @pytest.mark.parametrize("ratios", [(0.8, 0.2, 0.0), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5)])
    def test_share_of_zero_gets_nothing(self, rule: str, ratios: tuple[float, float, float]) -> None:
        rows = assign(families(300), SplitParams(rule=rule, ratios=ratios, allow_leaky=True))
        shares = [n / len(rows) for n in count(rows)]
        assert [share == 0 for share in shares] == [ratio == 0 for ratio in ratios]
        assert shares == pytest.approx(ratios, abs=0.1)

    def test_many_strata_of_one_group_keep_the_shares(self) -> None:
        videos = [video(str(i), f"k{i}", method=f"m{i}") for i in range(100)]
        assert count(assign(videos, SplitParams(rule="ranked"))) == (60, 20, 20)

    def test_stratified_balances_labels_and_methods(self) -> None:
        reals = [video(f"r{i}", label=0) for i in range(50)]
        fakes = [video(f"{m}{i}", method=m) for m in "abcde" for i in range(20)]
        rows = assign([*reals, *fakes], SplitParams(rule="stratified"))
        split = where(rows)
        assert Counter(split[v.video_id] for v in reals) == {"train": 30, "val": 10, "test": 10}
        for m in "abcde":
            assert Counter(split[v.video_id] for v in fakes if v.method == m) == {"train": 12, "val": 4, "test": 4}

    def test_stratified_places_the_largest_group_first(self) -> None:
        videos = [video(f"{size}.{i}", f"k{size}") for size in (30, 12, 9, 2, 1) for i in range(size)]
        assert count(assign(videos, SplitParams(rule="stratified"))) == (32, 12, 10)

    def test_random_must_be_allowed_and_is_stamped(self) -> None:
        videos = families(100)
        with pytest.raises(RefusedError, match="leak"):
            assign(videos, SplitParams(rule="random"))
        params = SplitParams(rule="random", allow_leaky=True)
        rows = assign(videos, params)
        assert len(crossing(videos, rows)) == pytest.approx(56, abs=20)
        found = record(videos, params)
        assert found["leaky"] is True
        assert found["crossing_groups"] == len(crossing(videos, rows))

    def test_official_without_any_list_is_refused(self) -> None:
        with pytest.raises(RefusedError, match="no video has a published split"):
            assign(families(3), SplitParams(rule="official"))

    def test_official_leaves_out_what_no_list_names(self) -> None:
        names = ["train", "val", "test", None]
        videos = [video(str(i), official_split=name) for i, name in enumerate(names)]
        split = assign(videos, SplitParams(rule="official"))
        assert where(split) == {v.video_id: v.official_split for v in videos}
        assert [row.exclude_reason for row in split if row.excluded] == ["not_selected"]

    def test_official_test_list_alone_makes_the_others_training_videos(self) -> None:
        videos = [video(str(i), official_split="test" if i < 20 else None) for i in range(100)]
        assert count(assign(videos, SplitParams(rule="official"))) == (60, 20, 20)

    def test_giant_training_group_stays_in_train_when_val_is_carved(self) -> None:
        sizes = {"giant": 160, "middle": 20, **{f"small{i}": 1 for i in range(20)}}
        videos = [video(f"{k}.{i}", k, official_split="train") for k, size in sizes.items() for i in range(size)]
        videos += [video(f"test{i}", "giant", official_split="test") for i in range(50)]
        for seed in range(5):
            rows = assign(videos, SplitParams(rule="official", seed=seed))
            split = where(rows)
            assert {split[v.video_id] for v in videos if v.keys == ("giant",)} == {"train", "test"}
            assert count(rows) == (160, 40, 50)

    def test_official_clean_prefers_test_to_val(self) -> None:
        videos = [
            video("a", "k", official_split="val"),
            video("b", "k", official_split="test"),
            video("c", official_split="train"),
        ]
        split = where(assign(videos, SplitParams(rule="official-clean")))
        assert [split[v.video_id] for v in videos] == [None, "test", "train"]

    def test_unknown_published_split_is_refused(self) -> None:
        with pytest.raises(RefusedError, match="dev"):
            assign([video("a", official_split="dev")], SplitParams(rule="official"))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"rule": "hash"},
            {"giant": "shrink"},
            {"ratios": (0.5, 0.2, 0.2)},
            {"ratios": (1.2, -0.1, -0.1)},
            {"seed": -1},
            {"tries": 0},
        ],
    )
    def test_wrong_parameters_are_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(RefusedError):
            SplitParams(**wrong)  # type: ignore[arg-type]

    def test_two_rows_for_one_video_are_refused(self) -> None:
        with pytest.raises(RefusedError, match="two different rows"):
            assign([video("a", "k"), video("a", "l")], SplitParams())

    def test_no_videos(self) -> None:
        assert assign([], SplitParams()) == []
        assert record([], SplitParams())["n_groups"] == 0


class TestSmallSets:
    """A few demo videos must give what a person would expect."""

    def test_six_videos_fill_every_split(self) -> None:
        for seed in range(10):
            videos = [video(f"{seed}.{i}", label=i % 2) for i in range(6)]
            rows = assign(videos, SplitParams(seed=seed))
            assert count(rows) in {(4, 1, 1), (3, 2, 1), (3, 1, 2)}
            assert {row.rule for row in rows} == {"stratified"}

    def test_three_families_fill_every_split(self) -> None:
        assert sorted(count(assign(families(3), SplitParams()))) == [2, 2, 2]

    def test_one_person_goes_to_train(self) -> None:
        assert count(assign(families(1, fakes=5), SplitParams())) == (6, 0, 0)

    def test_one_person_is_refused_once_there_are_videos_enough(self) -> None:
        assert count(assign(families(1, fakes=18), SplitParams())) == (19, 0, 0)
        with pytest.raises(RefusedError, match=r"20 of 20 videos \(100%\)"):
            assign(families(1, fakes=19), SplitParams())

    def test_tens_of_groups_keep_the_shares(self) -> None:
        for seed in range(5):
            assert count(assign(families(30), SplitParams(seed=seed))) == (36, 12, 12)

    @given(universes(max_size=12))
    @settings(deadline=None)
    def test_no_split_is_empty_while_groups_last(self, videos: list[SplitInput]) -> None:
        rows = assign(videos, SplitParams())
        assert sum(n > 0 for n in count(rows)) == min(3, len(group_videos(videos)))


class TestBase:
    """Appending moves nobody."""

    @given(universes(), universes(), rules, st.integers(0, 3), st.randoms())
    @settings(deadline=None)
    @pytest.mark.slow
    def test_superset_moves_nobody_and_nothing_crosses(
        self, videos: list[SplitInput], more: list[SplitInput], rule: str, seed: int, rng: random.Random
    ) -> None:
        params = SplitParams(rule=rule, giant="component")
        base = assign(videos, params)
        known = {v.video_id for v in videos}
        added = [replace(v, video_id=digest16("more", v.video_id.hex())) for v in more]
        everything = [*videos, *added]
        grown = assign(everything, replace(params, seed=seed), base)
        assert [replace(row, pinned=False) for row in grown if row.video_id in known] == base
        assert all(row.pinned == (row.video_id in known) for row in grown)
        assert crossing(everything, grown) == []
        assert grown == assign(rng.sample(everything, len(everything)), replace(params, seed=seed), base)
        assert [replace(r, pinned=True) for r in grown] == assign(everything, params, grown)

    @given(universes(), rules, st.data())
    @settings(deadline=None)
    def test_removal_moves_nobody(self, videos: list[SplitInput], rule: str, data: st.DataObject) -> None:
        params = SplitParams(rule=rule, giant="component")
        base = assign(videos, params)
        kept = [v for v in videos if data.draw(st.booleans())]
        rows = assign(kept, params, base)
        assert where(rows).items() <= where(base).items()
        assert len(rows) == len(kept)

    def test_new_video_follows_the_group_it_touches(self) -> None:
        videos = families(60)
        base = assign(videos, SplitParams())
        new = video("new", "toy/id/0007", "a/smaller/anchor")
        row = next(r for r in assign([*videos, new], SplitParams(seed=5), base) if r.video_id == new.video_id)
        assert row.split == where(base)[videos[7].video_id]
        assert (row.group_anchor, row.group_size, row.rule, row.pinned) == ("toy/id/0007", 3, "pinned", False)

    def test_bridge_is_left_out_and_does_not_drag_its_group_along(self) -> None:
        videos = families(60)
        base = assign(videos, SplitParams())
        split = where(base)
        home = next(v for v in videos if split[v.video_id] == "val")
        away = next(v for v in videos if split[v.video_id] == "test")
        bridge = video("bridge", *home.keys, *away.keys, "new/key")
        friend = video("friend", *home.keys, "new/key")
        rows = {r.video_id: r for r in assign([*videos, bridge, friend], SplitParams(), base)}
        assert (rows[bridge.video_id].split, rows[bridge.video_id].exclude_reason) == (None, "bridge")
        assert rows[friend.video_id].split == "val"

    def test_group_that_touches_two_splits_is_left_out(self) -> None:
        videos = families(60)
        base = assign(videos, SplitParams())
        split = where(base)
        ends = [next(v for v in videos if split[v.video_id] == name) for name in ("train", "test")]
        chain = [video(f"end{i}", *end.keys, "new/key") for i, end in enumerate(ends)]
        rows = assign([*videos, *chain], SplitParams(), base)
        assert [where(rows)[v.video_id] for v in chain] == [None, None]

    def test_removed_videos_still_hold_their_keys(self) -> None:
        videos = families(60)
        base = assign(videos, SplitParams())
        new = video("new", "toy/id/0011")
        for seed in range(4):
            rows = assign([new], SplitParams(seed=seed), base)
            assert where(rows) == {new.video_id: where(base)[videos[11].video_id]}

    def test_copy_and_fake_of_a_pinned_video_follow_it(self) -> None:
        videos = [replace(v, sha256=digest16(v.video_id.hex()) * 2) for v in families(60)]
        base = assign(videos, SplitParams())
        target = next(v for v in videos if where(base)[v.video_id] == "test")
        copy = video("copy", sha256=target.sha256)
        fake = video("fake", original_video_id=target.video_id)
        rows = where(assign([*videos, copy, fake], SplitParams(), base))
        assert (rows[copy.video_id], rows[fake.video_id]) == ("test", "test")

    @pytest.mark.parametrize("rule", ["ranked", "stratified"])
    def test_many_small_appends_keep_the_shares(self, rule: str) -> None:
        params = SplitParams(rule=rule)
        videos = families(60)
        rows = assign(videos, params)
        for i in range(40):
            videos.append(video(f"more{i}", f"more/id/{i}"))
            rows = assign(videos, params, rows)
        shares = [n / len(rows) for n in count(rows)]
        assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.02)

    def test_new_alias_moves_nobody_and_binds_new_videos(self) -> None:
        videos = families(60)
        base = assign(videos, SplitParams())
        split = where(base)
        home = next(v for v in videos if split[v.video_id] == "val")
        params = SplitParams(aliases=(("person/x", home.keys[0]),))
        new = video("new", "person/x")
        rows = where(assign([*videos, new], params, base))
        assert rows[new.video_id] == "val"
        assert split.items() <= rows.items()

    def test_official_follows_lists_for_new_videos(self, ffpp: list[SplitInput]) -> None:
        params = SplitParams(rule="official")
        base = assign(ffpp[:2000], params)
        grown = assign(ffpp, params, base)
        split = where(grown)
        assert all(split[v.video_id] == v.official_split for v in ffpp)
        later = [v for v in ffpp if v.official_split == "train" or v in ffpp[:2000]]
        assert count(assign(later, params, base))[1:] == (280, 280)

    def test_official_clean_appends_without_crossing(self, ffpp: list[SplitInput]) -> None:
        params = SplitParams(rule="official-clean")
        base = assign(ffpp[:2000], params)
        grown = assign(ffpp, params, base)
        assert crossing(ffpp, grown) == []
        assert where(grown) == where(assign(ffpp, params))

    def test_carved_val_stays_when_training_videos_come(self) -> None:
        listed = [replace(v, official_split="test" if v.keys[0] < "toy/id/0020" else "train") for v in families(120)]
        params = SplitParams(rule="official")
        base = assign(listed, params)
        new = [video(f"n{i}", f"toy/id/{i:04d}", official_split="train") for i in range(20, 120)]
        grown = where(assign([*listed, *new], params, base))
        homes = {v.keys[0]: grown[v.video_id] for v in listed}
        assert all(grown[v.video_id] == homes[v.keys[0]] for v in new)


class TestIdentities:
    """What counts as one identity."""

    def test_real_videos_tie_keys_and_fakes_do_not(self) -> None:
        videos = [
            video("a", "seq/1", "yt/a", label=0),
            video("b", "seq/2", "yt/b", label=0),
            video("ab", "seq/1", "seq/2", "yt/a", "yt/b"),
        ]
        found = find_identities(videos)
        assert found.names == ("seq/1", "seq/2")
        assert found.of_video == (frozenset({0}), frozenset({1}), frozenset({0, 1}))

    def test_absent_original_is_its_target(self) -> None:
        gone = digest16("toy", "gone")
        fake = video("f", "seq/1", "seq/2", target_keys=("seq/1",), donor_keys=("seq/2",), original_video_id=gone)
        assert len(find_identities([fake]).of_video[0]) == 2

    def test_copies_show_the_same_identities(self) -> None:
        twins = [video("1", "seq/1", sha256=b"\1" * 32), video("2", "seq/2", sha256=b"\1" * 32)]
        assert len(set(find_identities(twins).of_video)) == 1


class TestRecord:
    """The record of the rule."""

    def test_record_depends_on_content_not_on_order(self) -> None:
        videos = families(60)
        params = SplitParams(aliases=(("a", "b"), ("c", "d")))
        other = SplitParams(aliases=(("d", "c"), ("a", "b")))
        records = [record(these, p) for p, these in ((params, videos), (other, videos[::-1]))]
        assert canonical_json(records[0]) == canonical_json(records[1])
        assert records[0]["leaky"] is False
        assert records[0]["counts"] == dict(sorted(Counter(where(assign(videos, params)).values()).items()))

    def test_digests_follow_inputs_base_and_aliases(self) -> None:
        videos = families(60)
        rows = assign(videos, SplitParams())
        plain = record(videos, SplitParams())
        assert plain["base_sha256"] is None
        assert plain["aliases_sha256"] is None
        appended = record(videos, SplitParams(), rows)
        assert len(appended["base_sha256"]) == 64
        assert record(videos[1:], SplitParams())["inputs_sha256"] != plain["inputs_sha256"]

    def test_edge_kinds_name_what_was_known(self) -> None:
        plain = [video("a"), video("b")]
        assert record(plain, SplitParams())["edge_kinds"] == []
        rich = [
            video("a", "k", "p", identity_keys=("p",), target_keys=("k",), donor_keys=("d",), sha256=b"\1" * 32),
            video("b", "k", dataset="other", source_keys=("k",), sha256=b"\1" * 32),
            video("c", original_video_id=digest16("toy", "a")),
        ]
        params = SplitParams(aliases=(("x", "y"),))
        kinds = record(rich, params)["edge_kinds"]
        assert kinds == ["PAIR", "ORIG", "SRC", "ID", "ALIAS", "DUP", "XDS"]
