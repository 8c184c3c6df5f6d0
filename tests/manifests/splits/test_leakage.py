"""Leakage: small constructed splits, a plain recount, and what the published splits share."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lps.manifests.names import SPLITS
from lps.manifests.splits.groups import Membership
from lps.manifests.splits.inputs import SplitInput
from lps.manifests.splits.leakage import KINDS, Crossing, Leak
from lps.manifests.splits.records import SplitParams, SplitRow, make_row
from tests.manifests.splits.rows import crossing, leaks_of, video
from tests.manifests.splits.rows import split as assign


def rows_of(videos: Sequence[SplitInput], splits: Sequence[str | None]) -> list[SplitRow]:
    """Return rows that put each video where `splits` says."""
    return [
        make_row(v, SplitParams(), Membership(anchor=v.own_key, size=1, keys=v.keys), split=split, rule="manual")
        for v, split in zip(videos, splits, strict=True)
    ]


def leak(leaks: Sequence[Leak], kind: str, seen: str = "train", held: str = "test") -> Leak:
    """Return the one measure of this kind between these splits."""
    return next(x for x in leaks if (x.kind, x.seen, x.held) == (kind, seen, held))


class TestKinds:
    """Each kind of overlap, alone."""

    def test_every_kind_is_measured_for_every_pair(self) -> None:
        leaks = leaks_of([], [])
        assert len(leaks) == len(KINDS) * 3
        assert {x.state for x in leaks} == {"NONE"}

    def test_keys_count_in_whatever_role_they_had(self) -> None:
        videos = [
            video("seen", "a", "b", target_keys=("a",), donor_keys=("b",)),
            video("held", "b", "c", target_keys=("b",), donor_keys=("c",)),
        ]
        leaks = leaks_of(videos, rows_of(videos, ["train", "test"]))
        assert leak(leaks, "target").rate == 1
        assert leak(leaks, "donor").rate == 0
        assert (leak(leaks, "any").rate, leak(leaks, "any").rate_all) == (1, 0)

    def test_donor_only_is_a_known_donor_before_an_unknown_target(self) -> None:
        videos = [
            video("seen", "a", target_keys=("a",), label=0),
            video("one", "a", "b", target_keys=("b",), donor_keys=("a",)),
            video("two", "a", "c", target_keys=("a",), donor_keys=("c",)),
        ]
        leaks = leaks_of(videos, rows_of(videos, ["train", "test", "test"]))
        assert leak(leaks, "donor_only").n_leaked == 1
        assert leak(leaks, "target").n_leaked == 1

    def test_original_and_duplicate(self) -> None:
        real = video("real", label=0, sha256=b"\1" * 32)
        videos = [
            real,
            video("fake", original_video_id=real.video_id, sha256=b"\2" * 32),
            video("copy", label=0, sha256=b"\1" * 32),
        ]
        leaks = leaks_of(videos, rows_of(videos, ["train", "test", "test"]))
        assert (leak(leaks, "original").n_videos, leak(leaks, "original").n_leaked) == (1, 1)
        assert (leak(leaks, "duplicate").n_known, leak(leaks, "duplicate").n_leaked) == (2, 1)

    def test_absent_keys_are_unknown_not_zero(self) -> None:
        videos = [video("seen", "src/a", source_keys=("src/a",)), video("held", "src/b", source_keys=("src/b",))]
        leaks = leaks_of(videos, rows_of(videos, ["train", "test"]))
        donor = leak(leaks, "donor")
        assert (donor.state, donor.rate, donor.rate_all, donor.expected) == ("UNKNOWN", None, None, None)
        assert (leak(leaks, "source").state, leak(leaks, "source").rate) == ("MEASURED", 0)
        assert leak(leaks, "source", held="val").state == "NONE"

    def test_partly_published_keys_say_so(self) -> None:
        videos = [video("a", "x", identity_keys=("x",)), video("b", "x", identity_keys=("x",)), video("c")]
        identity = leak(leaks_of(videos, rows_of(videos, ["train", "test", "test"])), "identity")
        assert (identity.state, identity.rate, identity.n_known, identity.n_videos) == ("PARTLY UNKNOWN", 1, 1, 2)

    def test_real_videos_have_no_donors_to_know(self) -> None:
        videos = [video("a", "x", label=0), video("b", "x", label=0)]
        leaks = leaks_of(videos, rows_of(videos, ["train", "test"]))
        assert leak(leaks, "donor").state == "NONE"

    def test_excluded_videos_count_nowhere(self) -> None:
        videos = [video("a", "x"), video("b", "x"), video("c", "y")]
        rows = rows_of(videos, [None, "test", "train"])
        assert leak(leaks_of(videos, rows), "any").rate == 0
        assert crossing(videos, rows) == []

    def test_aliases_join_names(self) -> None:
        videos = [video("a", "x"), video("b", "y")]
        rows = rows_of(videos, ["train", "val"])
        aliases = (("x", "y"),)
        assert leak(leaks_of(videos, rows, aliases), "any", held="val").rate == 1
        expected = [Crossing(name="x", videos=(("train", 1), ("val", 1)))]
        assert crossing(videos, rows, aliases) == expected

    @given(
        st.lists(
            st.tuples(st.sets(st.sampled_from("abcdef"), max_size=3), st.sampled_from([*SPLITS, None])), max_size=15
        )
    )
    @settings(deadline=None)
    def test_rates_agree_with_a_plain_recount(self, drawn: list[tuple[set[str], str | None]]) -> None:
        videos = [video(str(i), *sorted(keys)) for i, (keys, _) in enumerate(drawn)]
        splits = [split for _, split in drawn]
        leaks = leaks_of(videos, rows_of(videos, splits))
        seen = {key for keys, split in drawn if split == "train" for key in keys}
        held = [keys for keys, split in drawn if split == "test" and keys]
        found = leak(leaks, "any")
        assert found.n_leaked == sum(bool(keys & seen) for keys in held)
        assert found.n_leaked_all == sum(keys <= seen for keys in held)
        assert found.n_known == len(held)

    def test_baseline_is_what_random_placement_gives(self) -> None:
        videos = [video(f"{i}.{j}", f"k{i}") for i in range(500) for j in range(2)]
        rows = assign(videos, SplitParams(rule="random", allow_leaky=True))
        found = leak(leaks_of(videos, rows), "any")
        assert found.rate is not None
        assert found.expected == pytest.approx(0.6, abs=0.03)
        assert found.rate == pytest.approx(0.6, abs=0.1)
        safe = leak(leaks_of(videos, assign(videos, SplitParams())), "any")
        assert safe.rate == 0
        assert safe.expected == pytest.approx(0.6, abs=0.1)


class TestPublishedSplits:
    """What the official splits share."""

    def test_seven_recordings_cross_the_ffpp_split(self, ffpp: list[SplitInput]) -> None:
        rows = assign(ffpp, SplitParams(rule="official"))
        groups = crossing(ffpp, rows)
        assert len(groups) == 7
        assert sorted(tuple(split for split, _ in group.videos) for group in groups) == [
            *[("train", "test")] * 2,
            *[("train", "val")] * 5,
        ]
        assert sum(n for group in groups for _, n in group.videos) == 5 * 30
        assert {leak(leaks_of(ffpp, rows), "target", held=held).n_leaked for held in ("val", "test")} == {0}

    def test_touched_reals_and_fakes_of_ffpp(self, ffpp: list[SplitInput]) -> None:
        rows = assign(ffpp, SplitParams(rule="official"))
        reals = leaks_of(ffpp[:1000], rows)
        assert [leak(reals, "source", held=held).n_leaked for held in ("val", "test")] == [5, 2]
        fakes = leaks_of([*ffpp[:1000], *(v for v in ffpp if v.method == "FaceSwap")], rows)
        assert [leak(fakes, "source", held=held).n_leaked for held in ("val", "test")] == [5 + 10, 2 + 4]
        assert leak(fakes, "original").rate == 0
        assert leak(fakes, "identity").state == "UNKNOWN"

    def test_random_ffpp_split_leaks_nearly_everything(self, ffpp: list[SplitInput]) -> None:
        rows = assign(ffpp, SplitParams(rule="random", allow_leaky=True))
        found = leak(leaks_of(ffpp, rows), "target")
        assert found.rate is not None
        assert found.rate > 0.995
        assert found.expected is not None
        assert found.expected > 0.995

    def test_originals_of_celebdf_test_fakes_are_in_train(self, celebdf: list[SplitInput]) -> None:
        splits = [v.official_split for v in celebdf]
        leaks = leaks_of(celebdf, rows_of(celebdf, splits))
        original = leak(leaks, "original")
        assert (original.n_known, original.n_leaked) == (340, 234)
        inside = {v.video_id for v in celebdf if v.official_split == "test"}
        assert sum(v.original_video_id in inside for v in celebdf) == 106
        identity = leak(leaks, "identity")
        assert (identity.state, identity.n_videos, identity.n_known) == ("PARTLY UNKNOWN", 518, 448)
        assert identity.rate is not None
        assert identity.rate > 0.9
