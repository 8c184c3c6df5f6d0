"""The panel of shortcuts: each planted one is found by its name and feature, and its clean twin is not."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from lps.manifests.audit.checks.shortcut import B14, check_panel
from lps.manifests.audit.core.types import AuditContext, State
from lps.manifests.canonical import canonical_json
from lps.manifests.shortcuts.panel import PROBES, measure_panel
from lps.manifests.shortcuts.pictures import BAND, radial_power
from lps.manifests.shortcuts.records import ShortcutPanel, panel_from
from lps.manifests.shortcuts.sample import MIN_GROUPS, MIN_VIDEOS, draw_sample
from lps.manifests.shortcuts.tables import sampled_clips
from tests.manifests.shortcuts.conftest import N_PICTURES, SIDE_PX, Drawn, Picture

Opened = Callable[[Drawn], AuditContext]
Plant = Callable[[Drawn, int], None]
"""Takes the data set and the number of a fake video and changes what tells."""


def measured(ctx: AuditContext, *names: str, **options: int) -> ShortcutPanel:
    probes = [probe for probe in PROBES if not names or probe.name in names]
    return measure_panel(ctx, probes=probes, **options).panel


def wave(radius: int, size: float) -> Picture:
    """Return stripes of so many periods per side."""
    x = np.arange(SIDE_PX) * 2 * np.pi * radius / SIDE_PX
    return np.asarray(np.broadcast_to((size * np.cos(x))[None, :, None], (SIDE_PX, SIDE_PX, 3)), np.float64)


def in_codec(made: Drawn, k: int) -> None:
    made.videos[k]["codec"] = "mpeg4"


def in_bit_rate(made: Drawn, k: int) -> None:
    made.videos[k]["bitrate_bps"] += 600_000


def in_name(made: Drawn, k: int) -> None:
    made.videos[k]["uri"] = str(made.videos[k]["uri"]).replace(".mp4", "x.mp4")


def in_order(made: Drawn, k: int) -> None:
    made.clips[k]["sample_key"] = f"z{made.clips[k]['sample_key']}"


def in_face_size(made: Drawn, k: int) -> None:
    made.clips[k]["box_side_med"] *= 0.4


def in_landmarks(made: Drawn, k: int) -> None:
    side = 8 * made.videos[k]["face_px_median"]
    made.clips[k]["lmk5"] = [[*p[:5], int(p[5] + 0.1 * side), *p[6:]] for p in made.clips[k]["lmk5"]]


def in_colour(made: Drawn, k: int) -> None:
    for picture in made.pictures[k]:
        picture[:27, -27:, 0] += 150.0  # 3 of 8 rows and columns


def in_spectrum(made: Drawn, k: int) -> None:
    made.pictures[k] = [picture + wave(12, 8.0) for picture in made.pictures[k]]


def in_band(made: Drawn, k: int) -> None:
    made.pictures[k] = [picture + wave(29, 8.0) for picture in made.pictures[k]]


def in_first_frame(made: Drawn, k: int) -> None:
    made.pictures[k][0] = made.pictures[k][0] + wave(7, 10.0)


PLANTED: dict[str, tuple[Plant, str]] = {
    "metadata": (in_codec, "codec"),
    "bit-rate": (in_bit_rate, "bitrate"),
    "names": (in_name, "n of 'x'"),
    "order": (in_order, "key_order"),
    "face-size": (in_face_size, "box_side"),
    "geometry": (in_landmarks, "nose y"),
    "thumbnail-1nn": (in_colour, "row 1 column 8 red"),
    "thumbnail-logistic": (in_colour, "row 2 column 8 red"),
    "spectrum": (in_spectrum, "radius 12"),
    "band-power": (in_band, f"power at {BAND[0]}-{BAND[1]}"),
    "first-frame": (in_first_frame, "radius 7"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_shortcut_is_found_by_its_feature(drawn: Drawn, opened: Opened, name: str) -> None:
    plant, feature = PLANTED[name]
    for k in drawn.fakes():
        plant(drawn, k)
    [score] = measured(opened(drawn), name).scores
    assert score.auc is not None
    assert score.auc > 0.9
    assert score.tells
    assert feature in {f.name for f in score.features}


def test_where_nothing_is_planted_no_interval_lies_above_a_limit(drawn: Drawn, opened: Opened) -> None:
    ctx = opened(drawn)
    panel = measured(ctx)
    assert [score.name for score in panel.scores] == [*PLANTED]
    for score in panel.scores:
        assert score.low is not None
        assert score.high is not None
    held = [
        score.low <= 0.5 <= score.high for score in panel.scores if score.low is not None and score.high is not None
    ]
    assert sum(held) >= 9  # of 11 intervals of 95 %
    assert all(not score.features for score in panel.scores if not score.tells)
    assert panel_from(json.loads(canonical_json(panel.record())), "here") == panel


def test_the_same_data_and_seed_give_the_same_record(drawn: Drawn, opened: Opened) -> None:
    ctx = opened(drawn)
    some = ("bit-rate", "thumbnail-logistic", "thumbnail-1nn")
    first, again, other = (measured(ctx, *some, max_clips=140, seed=seed) for seed in (0, 0, 1))
    assert canonical_json(again.record()) == canonical_json(first.record())
    assert other.scores != first.scores


def test_who_it_is_tells_nothing_of_people_not_seen(drawn: Drawn, opened: Opened) -> None:
    """Half of the people have fakes alone and half reals alone: colours tell who, and in a random split the label."""
    by_person = [int(group.split()[1]) for group in drawn.groups]
    for k, person in enumerate(by_person):
        drawn.videos[k]["label"] = person % 2
    ctx = opened(drawn)
    [score] = measured(ctx, "thumbnail-1nn").scores
    assert score.low is not None
    assert score.high is not None
    assert score.low <= 0.5 <= score.high
    ctx.db.execute("UPDATE splits SET group_id = video_id[1:16]")
    [leaked] = measured(ctx, "thumbnail-1nn").scores
    assert leaked.auc is not None
    assert leaked.auc > 0.95


def test_a_fake_is_in_the_fold_of_its_original_whatever_the_split_set_says(drawn: Drawn, opened: Opened) -> None:
    reals = {group: row["video_id"] for group, row in zip(drawn.groups, drawn.videos, strict=True) if not row["label"]}
    for group, row in zip(drawn.groups, drawn.videos, strict=True):
        row["original_video_id"] = reals[group] if row["label"] else None
    drawn.groups = [row["uri"] for row in drawn.videos]
    panel = measured(opened(drawn), "bit-rate")
    assert panel.n_groups == 2 * 40  # a real with two fakes, and a real alone, of each person


# ---- what is not known ---------------------------------------------------------------------------------------------


def of_people(drawn: Drawn, n: int) -> Drawn:
    kept = [k for k, group in enumerate(drawn.groups) if int(group.split()[1]) < n]
    return Drawn(
        videos=[drawn.videos[k] for k in kept],
        clips=[drawn.clips[k] for k in kept],
        pictures=[drawn.pictures[k] for k in kept],
        groups=[drawn.groups[k] for k in kept],
    )


def test_too_few_give_unknown_and_read_nothing(drawn: Drawn, opened: Opened) -> None:
    drawn = of_people(drawn, MIN_GROUPS - 1)
    ctx = opened(drawn)
    ctx.store.delete("shards/train/train-000000.tar")
    found = measure_panel(ctx)
    assert not found.unread
    assert {score.auc for score in found.panel.scores} == {None}
    assert {score.note for score in found.panel.scores} == {
        f"too few groups: 19 with real videos, {MIN_GROUPS} are needed"
    }
    assert check_panel(ctx).state == State.UNKNOWN
    drawn.videos = [{**row, "label": int(k > 0)} for k, row in enumerate(drawn.videos)]
    few = measured(opened(drawn), "order").scores[0]
    assert few.note == f"too few videos: 1 real, {MIN_VIDEOS} are needed"


def test_what_is_not_recorded_is_unknown_and_one_value_tells_nothing(drawn: Drawn, opened: Opened) -> None:
    for video, clip in zip(drawn.videos, drawn.clips, strict=True):
        video.update(bitrate_bps=None, face_px_median=100.0)
        clip.update(box_side_med=100.0, iod_med=40.0)
    rate, size = measured(opened(drawn), "bit-rate", "face-size").scores
    assert (rate.auc, rate.note) == (None, "the manifests hold none of it")
    assert (size.auc, size.low, size.high, size.note) == (0.5, 0.5, 0.5, "every feature has one value")


def test_small_pictures_have_no_band(drawn: Drawn, opened: Opened) -> None:
    drawn.pictures = [[p[:32, :32] for p in clip] for clip in drawn.pictures]
    band, spectrum = measured(opened(drawn), "band-power", "spectrum").scores[::-1]
    assert band.auc is None or spectrum.auc is None
    by_name = {score.name: score for score in (band, spectrum)}
    assert by_name["band-power"].note == "pictures are smaller than the 68 px that the band needs"
    assert by_name["spectrum"].auc is not None


def test_pictures_that_cannot_be_read_leave_the_audit_incomplete(drawn: Drawn, opened: Opened) -> None:
    ctx = opened(drawn)
    place = drawn.clips[0]["members"][0]
    path = ctx.store.local_path("shards/train/train-000000.tar")
    data = bytearray(path.read_bytes())
    data[place["offset"] : place["offset"] + place["nbytes"]] = bytes(place["nbytes"])
    path.write_bytes(data)
    found = measure_panel(ctx, probes=[probe for probe in PROBES if probe.name in ("spectrum", "order")])
    assert (found.panel.n_unread, len(found.unread)) == (1, 1)
    counts = {score.name: score.n_real + score.n_fake for score in found.panel.scores}
    assert counts == {"order": 160, "spectrum": 159}
    path.unlink()
    gone = measure_panel(ctx, probes=[probe for probe in PROBES if probe.name == "spectrum"])
    assert gone.panel.scores[0].note == "no picture could be read"
    assert "shards/train/train-000000.tar" in gone.unread[0]


# ---- samples, power, the check -------------------------------------------------------------------------------------


def test_a_sample_takes_whole_groups_and_leaves_room_beside_a_giant(drawn: Drawn, opened: Opened) -> None:
    some = measured(opened(drawn), "order", max_clips=100)
    assert (some.n_sampled, some.n_groups, some.n_videos) == (100, 25, 160)
    drawn.groups = ["giant" if k < 72 else group for k, group in enumerate(drawn.groups)]
    beside = measured(opened(drawn), "order", max_clips=100)
    assert beside.n_groups == 23  # 5 of the giant, all of the other 22


def test_of_sampled_clips_no_value_of_every_frame_is_kept(drawn: Drawn, opened: Opened) -> None:
    ctx = opened(drawn)
    clips = sampled_clips(ctx, draw_sample(ctx, 100, 0))
    assert len(clips) == 100
    assert all({"members", "box_xyxy", "lmk5"}.isdisjoint(clip) for clip in clips)
    assert {len(clip["pictures"]) for clip in clips} == {N_PICTURES}


def test_power_is_where_the_stripes_are() -> None:
    gray = (128 + wave(20, 40.0)[:, :, 0]).astype(np.float32)
    assert int(np.argmax(radial_power(gray))) + 1 == 20
    assert np.allclose(radial_power(gray), radial_power(gray * 0.5 + 30), atol=0.02)
    assert np.ptp(radial_power(np.full((16, 16), 7, np.float32))) == 0
    with pytest.raises(ValueError, match="no square picture"):
        radial_power(np.zeros((4, 6), np.float32))


def test_check_warns_of_what_a_trainer_sees_and_not_of_names(drawn: Drawn, opened: Opened) -> None:
    for plant in (in_face_size, in_name):
        for k in drawn.fakes():
            plant(drawn, k)
    result = check_panel(opened(drawn))
    assert (result.id, result.state) == (B14.id, State.WARN)
    assert {offender.key for offender in result.offenders} == {"face-size"}
    assert "box_side" in result.offenders[0].detail
    panel = panel_from(result.data["panel"], "the result")
    names = panel.score("names")
    assert names is not None
    assert names.tells
    assert panel.is_of({"manifests": {path: {"sha256": digest} for path, digest in panel.digests.items()}})
    assert not panel.is_of({"manifests": {path: {"sha256": "other"} for path in panel.digests}})


def test_clean_data_passes_the_check(drawn: Drawn, opened: Opened) -> None:
    assert check_panel(opened(drawn)).state == State.PASS
