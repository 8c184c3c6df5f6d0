"""Checks L1 to L11: each finds its own fault by name, and nothing else."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lps.manifests.audit.checks import leakage as audit_leakage
from lps.manifests.audit.checks.leakage import L1
from lps.manifests.audit.core.database import alias_table
from lps.manifests.audit.core.queries import placed_table
from lps.manifests.audit.core.types import AuditContext, CheckResult, State
from lps.manifests.canonical import digest16
from lps.manifests.names import Level
from lps.manifests.splits.inputs import EMPTY_SHA256
from lps.manifests.splits.leakage import crossing_groups
from lps.manifests.splits.near_copies import chance_distance

if TYPE_CHECKING:
    from tests.manifests.audit.checks.conftest import World

Audited = Callable[["World"], Mapping[str, CheckResult]]
BROKEN = (State.FAIL, State.WARN, State.ERROR)


def broken(results: Mapping[str, CheckResult]) -> set[str]:
    return {check for check, result in results.items() if result.state in BROKEN}


def keys(result: CheckResult) -> set[str]:
    return {offender.key for offender in result.offenders}


def test_clean_data_set_passes_all_that_can_be_known(world: "World", leakage_of: Audited) -> None:
    states = {check: result.state for check, result in leakage_of(world).items()}
    assert {check for check, state in states.items() if state == State.SKIP} == {"L9", "L10", "L11"}
    assert {state for check, state in states.items() if check not in ("L9", "L10", "L11")} == {State.PASS}


def test_skipped_checks_say_why(world: "World", leakage_of: Audited) -> None:
    results = leakage_of(world)
    assert all(result.note for result in results.values() if result.state in (State.SKIP, State.UNKNOWN))


def test_fake_apart_from_its_original_is_named(world: "World", leakage_of: Audited) -> None:
    fake = world.video("Deepfakes/000_001")
    world.move("Deepfakes/000_001", "test")
    results = leakage_of(world)
    assert broken(results) == {"L1", "L2", "L3", "L4"}  # its target, recordings and people move with it
    assert keys(results["L2"]) == {fake["video_id"].hex()}
    assert "real/000.mp4 in train" in results["L2"].offenders[0].detail
    assert keys(results["L1"]) == {"ffpp/seq/000"}
    assert results["L1"].offenders[0].detail == "5 train, 1 test"


def test_only_the_original_ties_a_fake(world: "World", leakage_of: Audited) -> None:
    fake = world.add("loose", "test", label=1, original_video_id=world.video("real/000")["video_id"])
    results = leakage_of(world)
    assert broken(results) == {"L1", "L2"}
    assert keys(results["L2"]) == {fake["video_id"].hex()}


def test_missing_originals_are_no_leak_but_are_counted(world: "World", leakage_of: Audited) -> None:
    for name in world.placed("train", 1)[:3]:
        world.video(name)["original_video_id"] = None
    results = leakage_of(world)
    assert broken(results) == {"L2"}
    assert results["L2"].state == State.WARN
    assert "3 without one" in results["L2"].measured


def test_torn_group_is_found_without_its_column(world: "World", leakage_of: Audited) -> None:
    """A video tied by a sequence alone; the group columns of the split set say that all is well."""
    world.video(world.placed("test", 0)[0])["target_keys"].append("ffpp/seq/000")
    results = leakage_of(world)
    assert broken(results) == {"L1"}
    assert keys(results["L1"]) == {"ffpp/seq/000"}


def test_ties_through_others_count(world: "World", leakage_of: Audited) -> None:
    """a-b-c: no key is shared by a and c, and only the tie of b and c crosses."""
    world.add("a", "train", target_keys=["x/1"])
    world.add("b", "train", target_keys=["x/1", "x/2"])
    world.add("c", "val", target_keys=["x/2"])
    result = leakage_of(world)["L1"]
    assert keys(result) == {"x/1"}
    assert result.offenders[0].detail == "2 train, 1 val"


def test_shared_recording_is_named(world: "World", leakage_of: Audited) -> None:
    world.video(world.placed("val", 0)[0])["source_keys"].append("yt/000")
    results = leakage_of(world)
    assert broken(results) == {"L1", "L3"}
    assert keys(results["L3"]) == {"yt/000"}
    assert results["L3"].offenders[0].detail == "in train, val"


def test_shared_person_is_named(world: "World", leakage_of: Audited) -> None:
    world.video(world.placed("val", 0)[0])["identity_keys"].append("who/000")
    results = leakage_of(world)
    assert broken(results) == {"L1", "L4"}
    assert results["L4"].state == State.FAIL
    assert keys(results["L4"]) == {"who/000"}
    assert results["L4"].data["n_seen"] == 1


@pytest.mark.parametrize("kind", ["source_keys", "identity_keys"])
def test_published_lists_are_warned_of_not_failed(world: "World", leakage_of: Audited, kind: str) -> None:
    world.rule = {"rule": "official"}
    world.video(world.placed("val", 0)[0])[kind].append("yt/000" if kind == "source_keys" else "who/000")
    results = leakage_of(world)
    assert {results[check].state for check in broken(results)} == {State.WARN}
    assert broken(results) == {"L1", "L3" if kind == "source_keys" else "L4"}


def test_published_lists_that_tear_sequences_still_fail(world: "World", leakage_of: Audited) -> None:
    world.rule = {"rule": "official"}
    world.move("Deepfakes/000_001", "test")
    results = leakage_of(world)
    assert results["L1"].state == results["L2"].state == State.FAIL


def test_accepted_donors_are_warned_of(world: "World", leakage_of: Audited) -> None:
    world.rule = {"rule": "group", "accepted_leakage": ["donor"]}
    fake = world.video(world.placed("val", 1)[0])
    fake["donor_keys"].append("ffpp/seq/000")
    result = leakage_of(world)["L1"]
    assert result.state == State.WARN
    fake["target_keys"].append("ffpp/seq/000")
    assert leakage_of(world)["L1"].state == State.FAIL


@pytest.mark.parametrize("rule", [None, [], {}, {"rule": 7, "ratios": "?", "accepted_leakage": 1}])
def test_unreadable_rule_excuses_nothing(world: "World", leakage_of: Audited, rule: object) -> None:
    world.rule = rule
    world.video(world.placed("val", 0)[0])["source_keys"].append("yt/000")
    results = leakage_of(world)
    assert results["L1"].state == results["L3"].state == State.FAIL


def test_equal_files_are_named(world: "World", leakage_of: Audited) -> None:
    first, second = (world.video(world.placed(split, 0)[0]) for split in ("train", "test"))
    second["sha256"] = first["sha256"]
    results = leakage_of(world)
    assert broken(results) == {"L1", "L5"}
    assert keys(results["L5"]) == {first["video_id"].hex(), second["video_id"].hex()}
    assert "same file" in results["L5"].offenders[0].detail


def test_equal_clips_of_different_files_are_named(world: "World", leakage_of: Audited) -> None:
    one, two = (world.clip(world.placed(split, 0)[0]) for split in ("train", "test"))
    two["frames_sha256"] = one["frames_sha256"]
    results = leakage_of(world)
    assert broken(results) == {"L5"}
    assert keys(results["L5"]) == {one["video_id"].hex(), two["video_id"].hex()}


def test_empty_files_are_no_copies(world: "World", leakage_of: Audited) -> None:
    for split in ("train", "test"):
        world.video(world.placed(split, 0)[0])["sha256"] = EMPTY_SHA256
    world.video(world.placed("val", 1)[0])["sha256"] = EMPTY_SHA256
    assert broken(leakage_of(world)) == set()


def test_copy_with_the_opposite_label_is_named(world: "World", leakage_of: Audited) -> None:
    real, fake = world.video("real/000"), world.video("Deepfakes/000_001")
    fake["sha256"] = real["sha256"]
    results = leakage_of(world)
    assert broken(results) == {"L8"}
    assert keys(results["L8"]) == {real["video_id"].hex(), fake["video_id"].hex()}


def test_clips_with_the_opposite_label_are_named(world: "World", leakage_of: Audited) -> None:
    world.clip("Deepfakes/000_001")["frames_sha256"] = world.clip("real/000")["frames_sha256"]
    assert broken(leakage_of(world)) == {"L8"}


def test_other_compression_in_another_split_is_named(world: "World", leakage_of: Audited) -> None:
    world.add("c23/clip", "train", compression="c23")
    copy = world.add("c40/clip", "test", compression="c40")
    results = leakage_of(world)
    assert broken(results) == {"L7"}
    assert copy["video_id"].hex() in keys(results["L7"])
    assert len(results["L7"].offenders) == 2


def test_other_size_of_a_keyed_video_is_named(world: "World", leakage_of: Audited) -> None:
    world.add("large/clip", "train", target_keys=["x/1"], width=1920)
    world.add("small/clip", "test", target_keys=["x/1"], width=640)
    assert broken(leakage_of(world)) == {"L1", "L7"}


def test_equal_names_of_different_videos_are_no_copies(world: "World", leakage_of: Audited) -> None:
    world.add("one/000", "train", width=1920)
    world.add("two/000", "test", width=640)
    assert broken(leakage_of(world)) == set()


def test_data_set_that_reuses_a_sequence_is_named(world: "World", leakage_of: Audited) -> None:
    world.add("deeper", "test", dataset="deeper", target_keys=["ffpp/seq/000"])
    results = leakage_of(world)
    assert broken(results) == {"L1", "L10"}
    assert keys(results["L10"]) == {"ffpp/seq/000"}


def test_data_sets_apart_pass(world: "World", leakage_of: Audited) -> None:
    world.add("deeper", "test", dataset="deeper", target_keys=["deeper/1"])
    assert leakage_of(world)["L10"].state == State.PASS


def test_data_sets_without_keys_are_unknown(world: "World", leakage_of: Audited) -> None:
    world.add("wild", "test", dataset="wild")
    assert leakage_of(world)["L10"].state == State.UNKNOWN


# ---- near-duplicates -----------------------------------------------------------------------------------------------


def flipped(digest: bytes, n_bits: int, seed: int = 0) -> bytes:
    bits = Random(seed).sample(range(256), n_bits)
    return (int.from_bytes(digest, "big") ^ sum(1 << bit for bit in bits)).to_bytes(32, "big")


def near_copy(world: "World", *distances: int) -> tuple[str, str]:
    """Make a test video look like one of train, but for some bits of each frame's hash."""
    one, two = world.add("one", "train"), world.add("two", "test")
    two["phash"] = [flipped(digest, n) for digest, n in zip(one["phash"], distances, strict=True)]
    return one["video_id"].hex(), two["video_id"].hex()


def test_near_copy_is_named(world: "World", leakage_of: Audited) -> None:
    one, two = near_copy(world, 0, 12, 31)
    results = leakage_of(world)
    assert broken(results) == {"L6"}
    assert results["L6"].state == State.FAIL
    assert keys(results["L6"]) == {two}
    assert {video["video_id"] for video in results["L6"].data["pairs"][0]["videos"]} == {one, two}
    assert results["L6"].data["pairs"][0]["distances"] == [0, 12, 31]


def mirror_bits(digest: bytes) -> bytes:
    return bytes(byte ^ 0x55 for byte in digest)


def test_mirrored_copy_is_named(world: "World", leakage_of: Audited) -> None:
    _, two = near_copy(world, 0, 12, 31)
    copy = next(row for row in world.videos if row["video_id"].hex() == two)
    copy["phash"] = [mirror_bits(digest) for digest in copy["phash"]]
    result = leakage_of(world)["L6"]
    assert (result.state, keys(result)) == (State.FAIL, {two})
    assert "is a mirrored copy of" in result.offenders[0].detail
    [pair] = result.data["pairs"]
    assert (pair["distances"], pair["mirrored"]) == ([0, 12, 31], True)


def test_pair_near_both_ways_is_one_candidate(world: "World", leakage_of: Audited) -> None:
    _, two = near_copy(world, 0, 12, 60)
    copy = next(row for row in world.videos if row["video_id"].hex() == two)
    copy["phash"] = [copy["phash"][0], mirror_bits(copy["phash"][1]), copy["phash"][2]]
    [pair] = leakage_of(world)["L6"].data["pairs"]
    assert (pair["distances"][0], pair["mirrored"], pair["confirmed"]) == (0, False, False)


def test_one_frame_alike_is_only_a_candidate(world: "World", leakage_of: Audited) -> None:
    near_copy(world, 8, 60, 90)
    result = leakage_of(world)["L6"]
    assert result.state == State.WARN
    assert result.data["pairs"][0]["confirmed"] is False


def test_dull_frames_are_not_compared(world: "World", leakage_of: Audited) -> None:
    _, two = near_copy(world, 0, 5, 5)
    video = next(row for row in world.videos if row["video_id"].hex() == two)
    video["phash_quality"] = [10, 90, 90]
    result = leakage_of(world)["L6"]
    assert result.state == State.FAIL
    assert result.data["pairs"][0]["distances"] == [None, 5, 5]
    video["phash_quality"] = [10, 10, 90]
    assert leakage_of(world)["L6"].state == State.WARN
    video["phash_quality"] = [10, 10, 10]
    result = leakage_of(world)["L6"]
    assert result.state == State.PASS
    assert "1 of 962 videos have too few usable hashes" in result.note


def test_many_copies_do_not_blunt_the_threshold(world: "World", leakage_of: Audited) -> None:
    train, test = world.placed("train", 0), world.placed("test", 0)
    for one, two in zip(train, test, strict=False):
        world.video(two)["phash"] = [flipped(digest, 9) for digest in world.video(one)["phash"]]
    result = leakage_of(world)["L6"]
    assert len({tuple(v["uri"] for v in pair["videos"]) for pair in result.data["pairs"]}) >= len(test)
    assert result.state == State.FAIL


def test_one_backdrop_for_all_lowers_the_threshold(world: "World", leakage_of: Audited) -> None:
    """All videos are within PDQ's published 31 bits of each other, and none is a copy."""
    base = Random(1).randbytes(32)
    for i, video in enumerate(world.videos):
        video["phash"] = [flipped(base, 12, seed=3 * i + k) for k in range(3)]
    result = leakage_of(world)["L6"]
    assert 0 < result.data["distances"]["ffpp"]["threshold"] < 20
    assert result.state != State.FAIL


def test_pictures_all_alike_are_unknown(world: "World", leakage_of: Audited) -> None:
    for video in world.videos:
        video["phash"] = [bytes(32)] * 3
    result = leakage_of(world)["L6"]
    assert result.state == State.UNKNOWN
    assert result.data["distances"]["ffpp"]["threshold"] < 0


def test_why_nothing_is_compared(world: "World", leakage_of: Audited) -> None:
    world.videos = world.videos[:1]
    result = leakage_of(world)["L6"]
    assert (result.state, result.note) == (State.UNKNOWN, "one placed video alone has hashes of its frames")
    world.videos[0]["phash"] = []
    assert leakage_of(world)["L6"].note == "no placed video has hashes of its frames"


def test_videos_decoded_whole_and_in_part_are_compared(world: "World", leakage_of: Audited) -> None:
    """Both are hashed at the same frames, and one data set may hold both."""
    _, two = near_copy(world, 0, 12, 31)
    for video in world.videos:
        video["scan"] = "whole" if video["video_id"].hex() == two else "window"
    assert leakage_of(world)["L6"].state == State.FAIL


def test_hashes_are_only_compared_at_full_level() -> None:
    levels = {entry.spec.id: entry.spec.level for entry in audit_leakage.CHECKS}
    assert levels["L6"] == Level.FULL


@pytest.mark.parametrize(("mean", "spread", "expected"), [(128, 8, 89), (60, 6, 31), (10, 3, -1)])
def test_chance_distance_is_a_one_in_a_million_quantile(mean: float, spread: float, expected: int) -> None:
    distances = np.random.default_rng(0).normal(mean, spread, 200_000).round().astype(np.int64)
    assert chance_distance(distances, 1e-6) == pytest.approx(expected, abs=2)


# ---- what is not known ---------------------------------------------------------------------------------------------


def test_unpublished_people_are_unknown(world: "World", leakage_of: Audited) -> None:
    for video in world.videos:
        video["identity_keys"] = []
    assert leakage_of(world)["L4"].state == State.UNKNOWN


def test_too_many_unknown_people_are_no_pass(world: "World", leakage_of: Audited) -> None:
    for video in world.videos[: len(world.videos) // 10]:
        video["identity_keys"] = []
    result = leakage_of(world)["L4"]
    assert result.state == State.UNKNOWN
    assert "10.00 %" in result.note


def test_nothing_published_is_no_pass(world: "World", leakage_of: Audited) -> None:
    for video in world.videos:
        video["original_video_id"] = None
        for kind in ("target_keys", "donor_keys", "source_keys", "identity_keys"):
            video[kind] = []
    states = {check: result.state for check, result in leakage_of(world).items()}
    assert {states[check] for check in ("L1", "L3", "L4")} == {State.UNKNOWN}
    assert states["L2"] == State.WARN


def test_fakes_that_nothing_ties_to_a_real_video_are_told(world: "World", leakage_of: Audited) -> None:
    fake = world.video("Deepfakes/000_001")
    fake["original_video_id"] = None
    fake |= dict.fromkeys(("target_keys", "donor_keys", "source_keys", "identity_keys"), [])
    n_fakes = sum(video["label"] == 1 for video in world.videos)
    result = leakage_of(world)["L2"]
    assert result.state == State.WARN
    assert f"1 of {n_fakes} fakes without a known original" in result.note
    assert result.data == {"untied_fakes": 1}


def test_keys_tie_a_fake_as_well_as_an_original_does(world: "World", leakage_of: Audited) -> None:
    for video in world.videos:
        video["original_video_id"] = None
    result = leakage_of(world)["L2"]
    assert (result.state, result.note) == (State.UNKNOWN, "no originals are published")


def test_missing_hashes_and_digests_are_no_pass(world: "World", leakage_of: Audited) -> None:
    for video in world.videos:
        video["phash"] = video["phash_quality"] = video["sha256"] = None
    world.clips = []
    results = leakage_of(world)
    assert results["L5"].state == State.UNKNOWN
    assert results["L6"].state == State.UNKNOWN
    assert results["L8"].state == State.SKIP


# ---- against the measures of the splits ----------------------------------------------------------------------------


def test_rates_by_kind_are_reported(world: "World", leakage_of: Audited) -> None:
    world.move("Deepfakes/000_001", "test")
    result = leakage_of(world)["L1"]
    leak = next(x for x in result.data["leakage"] if (x["kind"], x["seen"], x["held"]) == ("original", "train", "test"))
    assert leak["n_leaked"] == 1
    assert leak["expected"] > 0.3
    json.dumps(result.data, allow_nan=False)


def test_ffpp_official_lists_are_found_out(world: "World", leakage_of: Audited, shared: Callable[[str], Path]) -> None:
    """The published split of FaceForensics++: seven recordings cross, nothing else."""
    recordings = json.loads(shared("splits/ffpp_conversion_dict.json").read_text())
    for table in (world.videos, world.clips, world.splits):
        table.clear()
    for split in ("train", "val", "test"):
        for pair in json.loads(shared(f"splits/ffpp_split_{split}.json").read_text()):
            for target, donor in (pair, pair[::-1]):
                people = {name: f"yt/{recordings[name].rsplit(' ', 1)[0]}" for name in (target, donor)}
                own = {"target_keys": [f"ffpp/seq/{target}"], "source_keys": [people[target]]}
                both = {**own, "donor_keys": [f"ffpp/seq/{donor}"], "source_keys": sorted(set(people.values()))}
                world.add(f"real/{target}", split, 0, **own)
                world.add(f"Deepfakes/{target}_{donor}", split, 1, method="Deepfakes", **both)
    world.rule = {"rule": "official"}
    results = leakage_of(world)
    assert results["L3"].state == results["L1"].state == State.WARN
    assert len(results["L3"].offenders) == len(results["L1"].offenders) == 7
    assert results["L4"].state == State.UNKNOWN
    touched = {
        leak["held"]: leak["n_leaked"]
        for leak in results["L1"].data["leakage"]
        if leak["kind"] == "source" and leak["seen"] == "train"
    }
    assert touched == {"val": 5 + 10, "test": 2 + 4}


def test_celebdf_official_list_is_found_out(world: "World", leakage_of: Audited, shared: Callable[[str], Path]) -> None:
    """The published test list of Celeb-DF: the originals of 234 of its 340 fakes are left in train."""
    lines = shared("splits/celeb_df_v2_list_of_testing_videos.txt").read_text().split()
    listed = {name.removesuffix(".mp4"): 1 - int(real) for real, name in zip(lines[::2], lines[1::2], strict=True)}
    for table in (world.videos, world.clips, world.splits):
        table.clear()
    for name, label in listed.items():
        people = [f"celebdf2/id/{part}" for part in name.split("/")[1].split("_") if part.startswith("id")]
        keys = {"target_keys": people[:1], "donor_keys": people[1:], "identity_keys": sorted(set(people))}
        original = None
        if label:
            target, _, number = name.split("/")[1].split("_")
            shot = f"Celeb-real/{target}_{number}"
            if shot not in listed and not any(row["uri"] == f"{shot}.mp4" for row in world.videos):
                world.add(shot, "train", target_keys=people[:1], identity_keys=people[:1])
            original = digest16("ffpp", f"{shot}.mp4")
        world.add(name, "test", label, original_video_id=original, **keys)
    world.rule = {"rule": "official"}
    results = leakage_of(world)
    found = {check: results[check].state for check in ("L1", "L2", "L4")}
    assert found == {"L1": State.FAIL, "L2": State.FAIL, "L4": State.WARN}
    assert len(results["L2"].offenders) == 234
    assert "the people in 70 of" in results["L4"].note


LETTERS = st.sampled_from("abcdefgh")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(LETTERS, LETTERS, st.integers(0, 2)), max_size=8),
    st.lists(st.tuples(LETTERS, LETTERS), max_size=3),
)
def test_keys_cross_exactly_where_groups_do(drawn: list[tuple[str, str, int]], aliases: list[tuple[str, str]]) -> None:
    ctx = _keyed(drawn)
    alias_table(ctx.db, {"aliases": [list(pair) for pair in aliases]})
    videos, codes = placed_table(ctx)
    assert bool(ctx.db.execute(L1.sql).fetchall()) == bool(crossing_groups(videos, codes, tuple(aliases)))
    ctx.db.close()


def _keyed(drawn: list[tuple[str, str, int]]) -> AuditContext:
    """Open videos that have two keys each, in splits 0 to 2."""
    import duckdb

    from lps.manifests.storage import Store

    db = duckdb.connect(config={"threads": "1"})
    db.execute(
        """CREATE TABLE videos (video_id BLOB, label TINYINT, dataset VARCHAR, method VARCHAR, compression VARCHAR,
        official_split VARCHAR, sha256 BLOB, original_video_id BLOB, identity_keys VARCHAR[], target_keys VARCHAR[],
        donor_keys VARCHAR[], source_keys VARCHAR[], split VARCHAR)"""
    )
    db.execute("CREATE TABLE splits (video_id BLOB, split VARCHAR, excluded BOOLEAN, group_id BLOB)")
    for i, (one, two, split) in enumerate(drawn):
        video_id, place = bytes([i]) * 16, ("train", "val", "test")[split]
        original = bytes([ord(one) - ord("a")]) * 16 if i > 5 else None
        row = [video_id, 0, "d", None, None, None, None, original, [], [one], [two], [], None]
        db.execute("INSERT INTO videos VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        db.execute("INSERT INTO splits VALUES (?, ?, false, ?)", [video_id, place, b""])
    return AuditContext(store=Store("."), index={}, plan={}, db=db, split_set="group", limits={})
