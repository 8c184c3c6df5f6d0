"""Checks B1 to B12: each finds its own bias by name, and nothing else."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lps.manifests.audit.checks import bias as audit_bias
from lps.manifests.audit.checks import leakage as audit_leakage
from lps.manifests.audit.core.types import AuditContext, CheckResult, State

if TYPE_CHECKING:
    from tests.manifests.audit.checks.conftest import World

Audited = Callable[["World"], Mapping[str, CheckResult]]
BROKEN = (State.FAIL, State.WARN, State.ERROR)
ENTRIES = tuple(e for e in (*audit_leakage.CHECKS, *audit_bias.CHECKS) if e.spec.id != "B14")


def broken(results: Mapping[str, CheckResult]) -> dict[str, State]:
    return {check: result.state for check, result in results.items() if result.state in BROKEN}


def keys(result: CheckResult) -> set[str]:
    return {offender.key for offender in result.offenders}


def spread(names: list[str], share: float) -> list[str]:
    """Return every n-th name, so that all splits and groups lose alike."""
    return names[:: round(1 / share)]


def all_placed(world: "World", label: int) -> list[str]:
    return [name for split in ("train", "val", "test") for name in world.placed(split, label)]


def test_clean_data_set_passes(world: "World", bias_of: Audited) -> None:
    assert {result.state for result in bias_of(world).values()} == {State.PASS}


# ---- B1 ------------------------------------------------------------------------------------------------------------


def test_split_without_reals_fails(world: "World", bias_of: Audited) -> None:
    for name in world.placed("val", 0):
        world.drop_clips(name)
    result = bias_of(world)["B1"]
    assert result.state == State.FAIL
    assert [(o.key, o.detail) for o in result.offenders if "no real" in o.detail] == [("val", "no real video")]


def test_split_that_the_rule_wants_must_exist(world: "World", bias_of: Audited) -> None:
    for row in world.splits:
        row["split"] = "train" if row["split"] == "test" else row["split"]
    assert bias_of(world)["B1"].state == State.FAIL
    world.rule["ratios"] = [0.75, 0.25, 0]
    assert bias_of(world)["B1"].state == State.PASS


def test_uneven_split_is_warned_of(world: "World", bias_of: Audited) -> None:
    for name in world.placed("val", 1)[::4]:
        world.drop_clips(name)
    results = bias_of(world)
    assert results["B1"].state == State.WARN
    assert "val" in keys(results["B1"])


def test_few_groups_are_warned_of(world: "World", bias_of: Audited) -> None:
    for row in world.splits:
        if row["split"] == "val":
            row["group_id"] = row["group_id"][:1] * 16  # at most 256 ids of 40 groups: some fall together
    world.limits["b1_min_groups"] = 40
    result = bias_of(world)["B1"]
    assert result.state == State.WARN
    assert keys(result) == {"val"}


# ---- B2, B3, B9 ----------------------------------------------------------------------------------------------------


def test_more_failures_in_one_class_fail(world: "World", bias_of: Audited) -> None:
    for name in spread(all_placed(world, 0), 0.1):
        world.video(name).update(status="failed", error_code="E_NO_FACE")
    result = bias_of(world)["B2"]
    assert broken(bias_of(world)) == {"B2": State.FAIL}
    assert keys(result) == {"ffpp/fake", "ffpp/Deepfakes", "ffpp/FaceSwap"}
    assert result.data["codes"] == [{"code": "E_NO_FACE", "label": 0, "n": 32}]


def test_method_that_fails_is_named(world: "World", bias_of: Audited) -> None:
    for row in [row for row in world.videos if row["method"] == "FaceSwap"][::10]:
        row.update(status="partial", error_code="E_TRUNCATED")
    result = bias_of(world)["B2"]
    assert result.state == State.FAIL
    assert "ffpp/FaceSwap" in keys(result)
    assert "ffpp/Deepfakes" not in keys(result)


def test_few_failures_are_warned_of(world: "World", bias_of: Audited) -> None:
    for name in all_placed(world, 0)[:3]:
        world.video(name).update(status="failed", error_code="E_NO_FACE")
    assert broken(bias_of(world)) == {"B2": State.WARN}


def test_skipped_videos_are_no_failures(world: "World", bias_of: Audited) -> None:
    for name in all_placed(world, 0)[:40]:
        world.video(name).update(status="skipped", error_code="S_NOT_SELECTED")
    assert bias_of(world)["B2"].state == State.PASS


def test_data_set_of_one_class_leaves_failures_unknown(world: "World", bias_of: Audited) -> None:
    world.add("wild", "train", dataset="wild")
    result = bias_of(world)["B2"]
    assert result.state == State.UNKNOWN
    assert "wild" in result.note


@pytest.mark.parametrize(("fewer", "state"), [(1, State.WARN), (4, State.FAIL)])
def test_faces_found_less_often_in_one_class(world: "World", bias_of: Audited, fewer: int, state: State) -> None:
    for video in world.each(1):
        video["n_frames_with_face"] -= fewer
    results = bias_of(world)
    assert broken(results) == {"B3": state}
    assert keys(results["B3"]) == {"detection_rate"}


def test_shifted_mix_of_methods_is_warned_of(world: "World", bias_of: Audited) -> None:
    for name in spread([n for n in all_placed(world, 1) if n.startswith("FaceSwap")], 0.1):
        world.drop_clips(name)
    results = bias_of(world)
    assert results["B9"].state == State.WARN
    assert keys(results["B9"]) == {"ffpp/Deepfakes", "ffpp/FaceSwap"}
    assert set(broken(results)) <= {"B9", "B1"}


# ---- B4 to B8 ------------------------------------------------------------------------------------------------------


def test_frame_count_that_tells_the_label_fails(world: "World", bias_of: Audited) -> None:
    for video in world.each(1):
        video["n_frames_decoded"] += 1000
    results = bias_of(world)
    assert broken(results) == {"B4": State.FAIL}
    assert keys(results["B4"]) == {"n_frames"}
    assert results["B4"].data["auc"] > 0.99


def test_length_of_a_video_decoded_in_part_is_what_its_packets_promise(world: "World", bias_of: Audited) -> None:
    for video in world.videos:
        n = video["n_frames_decoded"]
        decoded = 60 + 1000 * video["label"]
        video.update(scan="window", n_frames_container=n, n_frames_decoded=decoded, duration_s=None)
    assert broken(bias_of(world)) == {}
    for video in world.each(1):
        video["n_frames_container"] += 1000
    results = bias_of(world)
    assert broken(results) == {"B4": State.FAIL, "B7": State.WARN}
    assert keys(results["B4"]) == {"n_frames"}
    assert keys(results["B7"]) == {"duration"}


def test_header_tells_no_length_of_a_video_decoded_whole(world: "World", bias_of: Audited) -> None:
    for i, video in enumerate(world.videos):
        video.update(scan=(None, "whole")[i % 2], n_frames_container=60 + 1000 * video["label"], duration_s=None)
    assert broken(bias_of(world)) == {}


def test_weak_shortcut_is_warned_of(world: "World", bias_of: Audited) -> None:
    for video in world.each(1)[::4]:
        video["has_audio"] = True
    results = bias_of(world)
    assert broken(results) == {"B4": State.WARN}
    assert results["B4"].offenders[0].key == "has_audio"


def test_feature_of_few_videos_is_no_fault(world: "World", bias_of: Audited) -> None:
    for i, clip in enumerate(world.clips):
        clip["blur_var_med"] = float(i) if i in (3, 4) else None
    result = bias_of(world)["B4"]
    assert result.state == State.PASS
    assert result.data["importance"]["sharpness"] == 0


def test_shortcut_is_the_same_every_time(world: "World", bias_of: Audited) -> None:
    for video in world.each(1)[::3]:
        video["bytes"] *= 3
    assert bias_of(world)["B4"] == bias_of(world)["B4"]


def test_smaller_pictures_of_one_class_fail(world: "World", bias_of: Audited) -> None:
    for video in world.each(1):
        video["height"] = 480
    results = bias_of(world)
    assert results["B5"].state == State.FAIL
    assert keys(results["B5"]) == {"height"}
    assert set(broken(results)) == {"B4", "B5"}


def test_rotated_videos_count_as_shown(world: "World", bias_of: Audited) -> None:
    for video in world.each(1):
        video.update(width=video["height"], height=video["width"], rotation=90)
    assert bias_of(world)["B5"].state == State.PASS


def test_smaller_faces_of_one_class_are_named(world: "World", bias_of: Audited) -> None:
    for clip in world.clips:
        clip["box_side_med"] *= 0.92 if clip["label"] else 1
    results = bias_of(world)
    assert keys(results["B5"]) == {"box_side"}
    assert set(broken(results)) <= {"B4", "B5"}
    assert results["B5"].data["median_upscaling_fake"] > results["B5"].data["median_upscaling_real"]


def test_codec_of_one_class_fails(world: "World", bias_of: Audited) -> None:
    for video in world.each(1):
        video["codec"] = "mpeg4"
    results = bias_of(world)
    assert results["B6"].state == State.FAIL
    assert keys(results["B6"]) == {"codec"}
    assert "every fake video is mpeg4" in results["B6"].offenders[0].detail
    assert set(broken(results)) == {"B4", "B6"}


def test_compression_of_one_class_fails(world: "World", bias_of: Audited) -> None:
    for video in world.each(1):
        video["compression"] = "c40"
    assert broken(bias_of(world)) == {"B6": State.FAIL}


@pytest.mark.parametrize(
    ("column", "value", "detail"),
    [
        ("color_transfer", "smpte2084", "every real video is PQ"),
        ("color_transfer", "arib-std-b67", "every real video is HLG"),
        ("field_order", "tt", "every real video is interlaced"),
    ],
)
def test_high_dynamic_range_or_fields_of_one_class_fail(
    world: "World", bias_of: Audited, column: str, value: str, detail: str
) -> None:
    for video in world.each(0):
        video[column] = value
    results = bias_of(world)
    assert broken(results) == {"B6": State.FAIL}
    assert keys(results["B6"]) == {{"color_transfer": "transfer", "field_order": "scan"}[column]}
    assert detail in results["B6"].offenders[0].detail


def test_how_a_class_names_its_sdr_is_no_difference(world: "World", bias_of: Audited) -> None:
    for video in world.each(1):
        video["color_transfer"], video["field_order"] = "unknown", "unknown"
    assert bias_of(world)["B6"].state == State.PASS


def test_facts_that_an_older_data_set_lacks_are_unknown(world: "World", bias_of: Audited) -> None:
    for video in world.videos:
        video["color_transfer"] = video["field_order"] = None
    for clip in world.clips:
        clip["outside_share"] = None
    results = bias_of(world)
    assert results["B6"].state == results["B8"].state == State.UNKNOWN
    assert "transfer, scan" in results["B6"].note
    assert "outside_share" in results["B8"].note


def test_faces_cut_off_by_the_picture_in_one_class_are_warned_of(world: "World", bias_of: Audited) -> None:
    for clip in world.clips:
        clip["outside_share"] += 0.05 if clip["label"] else 0
    results = bias_of(world)
    assert broken(results) == {"B8": State.WARN}
    assert keys(results["B8"]) == {"outside_share"}


def test_bit_rate_of_one_class_is_warned_of(world: "World", bias_of: Audited) -> None:
    for video in world.each(1):
        video["bitrate_bps"] += 100_000
    results = bias_of(world)
    assert results["B6"].state == State.WARN
    assert keys(results["B6"]) == {"bitrate"}


def test_frame_rate_of_one_class_is_warned_of(world: "World", bias_of: Audited) -> None:
    for video in world.each(0):
        video["fps_num"], video["fps_den"] = 30_000, 1001
    for clip in world.clips:
        if clip["label"] == 0:
            clip["pts_start_s"], clip["pts_end_s"] = 0.0, 59 * 1001 / 30_000
    results = bias_of(world)
    assert keys(results["B7"]) == {"frame_rate"}
    assert set(broken(results)) == {"B4", "B7"}


@pytest.mark.parametrize("trait", ["time_stretch", "variable_frame_rate"])
def test_time_stamps_of_one_class_are_warned_of(world: "World", bias_of: Audited, trait: str) -> None:
    for video in world.each(1)[::2]:
        video["is_vfr"] = trait == "variable_frame_rate"
    for clip in world.clips:
        if clip["label"] and trait == "time_stretch":
            clip["pts_end_s"] += 0.1
    results = bias_of(world)
    assert broken(results) == {"B7": State.WARN}
    assert keys(results["B7"]) == {trait}


def test_timing_of_images_is_not_known(world: "World", bias_of: Audited) -> None:
    for video in world.videos:
        video.update(container="image2", pts_nominal=True, fps_num=None, fps_den=None, duration_s=None)
        video["is_vfr"] = bool(video["label"])  # numbers are missing in one class
    result = bias_of(world)["B7"]
    assert result.state == State.UNKNOWN
    assert result.note.endswith("videos are sequences of images, which have no time stamps of their own")


def test_darker_clips_of_one_class_are_warned_of(world: "World", bias_of: Audited) -> None:
    for clip in world.clips:
        clip["luma_mean"] -= 5 if clip["label"] else 0
    results = bias_of(world)
    assert broken(results) == {"B8": State.WARN}
    assert keys(results["B8"]) == {"brightness"}
    assert set(results["B8"].data["traits"]) == {
        *("log_sharpness", "brightness", "contrast", "jitter", "yaw", "outside_share")
    }


def test_heads_that_turn_further_in_one_class_are_warned_of(world: "World", bias_of: Audited) -> None:
    for clip in world.clips:
        clip["yaw_absmax"] += 3 if clip["label"] else 0
    results = bias_of(world)
    assert broken(results) == {"B8": State.WARN}
    assert keys(results["B8"]) == {"yaw"}


def test_difference_within_chance_is_unknown_not_pass(world: "World", bias_of: Audited) -> None:
    """Forty videos a class cannot show a distance of 0.15; nor can they show that there is none."""
    chosen = {row["video_id"] for label in (0, 1) for row in world.each(label)[:40]}
    world.videos = [row for row in world.videos if row["video_id"] in chosen]
    world.clips = [row for row in world.clips if row["video_id"] in chosen]
    for i, video in enumerate(world.videos):
        video["height"] = 480 if (video["label"] and i % 7 == 0) else 720
    result = bias_of(world)["B5"]
    assert result.state == State.UNKNOWN
    assert "too few videos to tell from chance" in result.note


def test_trait_without_values_stands_in_the_way_of_a_pass(world: "World", bias_of: Audited) -> None:
    for video in world.videos:
        video["bitrate_bps"] = None
    for clip in world.clips:
        clip["jitter_px"] = None
    results = bias_of(world)
    assert results["B6"].state == results["B8"].state == State.UNKNOWN
    assert "bitrate" in results["B6"].note
    assert "jitter" in results["B8"].note


# ---- B11, B12 ------------------------------------------------------------------------------------------------------


def test_uncertain_faces_are_named(world: "World", bias_of: Audited) -> None:
    clips = [clip for clip in world.clips if clip["label"]][:40]
    for clip in clips:
        clip.update(face_label_certain=False, n_tracks_in_video=2)
    results = bias_of(world)
    assert broken(results) == {"B11": State.WARN}
    assert keys(results["B11"]) == {clip["sample_key"] for clip in clips}
    world.limits["b11_max_ambiguous_pct"] = 10
    assert broken(bias_of(world)) == {}


@pytest.mark.parametrize("key", ["deepfakes-000", "train_Face_Swap_000", "fake000"])
def test_key_that_names_the_method_is_named(world: "World", bias_of: Audited, key: str) -> None:
    world.clip("FaceSwap/000_001")["sample_key"] = key
    results = bias_of(world)
    assert broken(results) == {"B12": State.FAIL}
    assert keys(results["B12"]) == {key}


def test_method_spelt_in_hex_digits_is_only_found_as_a_word(world: "World", bias_of: Audited) -> None:
    clip = world.clip("FaceSwap/000_001")
    world.video("FaceSwap/000_001")["method"] = "dfdc"
    clip["sample_key"] = "00dfdc" + clip["sample_key"][6:]
    assert bias_of(world)["B12"].state == State.PASS
    clip["sample_key"] = "dfdc-" + clip["sample_key"]
    assert bias_of(world)["B12"].state == State.FAIL


def test_shard_of_one_class_is_named(world: "World", bias_of: Audited) -> None:
    world.shards[0].update(n_samples=100, n_real=100, n_fake=0)
    world.shards.append({**world.shards[0], "shard_id": "train-000001", "n_real": 0, "n_fake": 100})
    world.shards.append({**world.shards[0], "shard_id": "train-000002", "n_samples": 20, "n_real": 0, "n_fake": 20})
    results = bias_of(world)
    assert broken(results) == {"B12": State.WARN}
    assert keys(results["B12"]) == {"train-000000", "train-000001"}


def test_shard_of_one_class_by_chance_is_none(world: "World", bias_of: Audited) -> None:
    world.shards[0].update(n_samples=1000, n_real=10, n_fake=990)
    world.shards.append({**world.shards[0], "shard_id": "train-000001", "n_samples": 30, "n_real": 0, "n_fake": 30})
    assert bias_of(world)["B12"].state == State.PASS


def test_keys_in_the_order_of_the_label_are_warned_of(world: "World", bias_of: Audited) -> None:
    for i, clip in enumerate(sorted(world.clips, key=lambda clip: int(clip["label"]))):
        clip["sample_key"] = f"{i:06d}"
    results = bias_of(world)
    assert broken(results) == {"B12": State.WARN}
    assert keys(results["B12"]) == {"sample_key"}


def test_order_of_few_keys_is_unknown(world: "World", bias_of: Audited) -> None:
    world.clips = world.clips[:6]
    for i, clip in enumerate(sorted(world.clips, key=lambda clip: int(clip["label"]))):
        clip["sample_key"] = f"{i:06d}"
    assert bias_of(world)["B12"].state == State.UNKNOWN


# ---- what cannot be measured ---------------------------------------------------------------------------------------


def unlabelled(world: "World") -> None:
    for row in (*world.videos, *world.clips):
        row["label"] = None


def only(label: int) -> Callable[["World"], None]:
    def edit(world: "World") -> None:
        world.videos = [row for row in world.videos if row["label"] == label]
        world.clips = [row for row in world.clips if row["label"] == label]

    return edit


def nothing_placed(world: "World") -> None:
    for row in world.splits:
        row.update(split=None, excluded=True)


def nothing_made(world: "World") -> None:
    world.clips, world.shards = [], []
    for video in world.videos:
        video.update(n_clips=0, status="failed", error_code="E_NO_FACE")


def nothing_known(world: "World") -> None:
    keep = {"video_id", "uri", "dataset", "label", "status", "n_clips"}
    for video in world.videos:
        video.update({name: [] if name.endswith("_keys") else None for name in video if name not in keep})
    for clip in world.clips:
        clip.update({name: None for name in clip if name.endswith(("_med", "_px", "_mean", "_std"))})


def two_videos(world: "World") -> None:
    world.videos, world.clips = world.videos[:1] + world.videos[-1:], world.clips[:1] + world.clips[-1:]


def foreign_splits(world: "World") -> None:
    for row in world.splits:
        row["split"] = "holdout"


ODD = [unlabelled, only(0), only(1), nothing_placed, nothing_made, nothing_known, two_videos, foreign_splits]
COMPARISONS = ("B3", "B4", "B5", "B6", "B7", "B8")


@pytest.mark.parametrize("edit", ODD)
def test_odd_data_sets_raise_nothing_and_fit_json(
    world: "World", opened: Callable[["World"], AuditContext], edit: Callable[["World"], None]
) -> None:
    edit(world)
    ctx = opened(world)
    for entry in ENTRIES:
        result = entry.run(ctx)
        json.dumps(result.data, allow_nan=False)
        assert result.id == entry.spec.id
        assert result.note or result.measured


@pytest.mark.parametrize("edit", [e for e in ODD if e is not nothing_made])
def test_classes_that_cannot_be_compared_never_pass(
    world: "World", bias_of: Audited, edit: Callable[["World"], None]
) -> None:
    edit(world)
    results = bias_of(world)
    passed = {check for check in COMPARISONS if results[check].state == State.PASS}
    # Nothing but the videos' own splits is odd there, and detection is compared over all videos.
    assert passed <= ({"B3"} if edit in (nothing_placed, foreign_splits) else set())


def test_set_of_one_class_fails_the_balance(world: "World", bias_of: Audited) -> None:
    only(0)(world)
    result = bias_of(world)["B1"]
    assert result.state == State.FAIL
    assert {offender.detail for offender in result.offenders if "no" in offender.detail} == {"no fake video"}


def test_every_query_can_be_run_by_itself(world: "World", opened: Callable[["World"], AuditContext]) -> None:
    ctx = opened(world)
    for entry in ENTRIES:
        if entry.spec.id == "L9":  # reads the split set of a training run
            continue
        for query in filter(None, entry.spec.sql.split(";\n")):
            ctx.db.execute(query).fetchall()


def test_data_set_on_disk_is_judged(dataset: Path, audit_context: Callable[..., AuditContext]) -> None:
    """The small set of the other tests: too few videos for statistics, and no leak."""
    ctx = audit_context(dataset, limits={**audit_leakage.LIMITS, **audit_bias.LIMITS})
    states = {entry.spec.id: entry.run(ctx).state for entry in ENTRIES}
    assert {states[f"L{i}"] for i in (1, 2, 3, 5, 6, 7, 8)} == {State.PASS}
    assert {states[check] for check in COMPARISONS} == {State.SKIP}
    assert State.FAIL not in states.values()
