"""Records to rows, rows to JSON and back, and nothing of this machine in them."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lps.manifests.codes import Code, Stage, Status
from lps.manifests.records import Clip, Header, Outcome, SourceVideo
from lps.manifests.rows import clip_facts, clip_id, row_from_json, row_to_json, scrubbed, video_row
from lps.manifests.schemas import CLIPS, TABLES, VIDEOS, Row, read_table, table_bytes

SOURCE = SourceVideo(
    uri="fake/blend/é.mp4",
    dataset="folder",
    label=1,
    label_source="folder",
    method="blend",
    original_uri="real/é.mp4",
    target_keys=("folder/seq/1",),
    identity_keys=("a", "b"),
)
OUTCOME = Outcome(
    status=Status.PARTIAL,
    code=Code.E_TRUNCATED,
    stage=Stage.DECODE,
    detail="broke off in /srv/videos/a.mp4",
    header=Header(container="mov", width=640, height=360, rotation=90, fps_num=30000, fps_den=1001, has_audio=True),
    n_frames_decoded=120,
    is_vfr=False,
    n_frames_sampled=20,
    n_frames_with_face=19,
    n_tracks=1,
    det_score_mean=0.9876,
    face_px_median=101.5,
    phash=(bytes(range(32)), bytes(32)),
    phash_quality=(100, 0),
)
CLIP = Clip(
    track_id=0,
    n_tracks_in_video=2,
    face_label_certain=False,
    frame_idx=(7, 8, 9),
    pts_ticks=(7000, 8000, 9000),
    pts_seconds=(0.28, 0.32, 0.36),
    start_rule="seeded",
    start_seed=2**64 - 1,
    box_xyxy=((10.0, -3.5, 4095.9, 5000.0), (1.06, 1.07, 2.0, 3.0), (0.0, 0.0, 1.0, 1.0)),
    box_source=(0, 1, 2),
    det_score=(1.0, 0.5, -0.1),
    lmk5=tuple((0.0625 * k,) * 10 for k in range(3)),
    align_M=((1.5, 0.25, -3.0, -0.25, 1.5, 7.0),) * 3,
    det_rate=2 / 3,
    quality={"blur_var_med": 12.5, "luma_mean": 100.0, "luma_std": 20.0, "box_side_med": 90.0, "iod_med": 30.0},
    phash=bytes(range(32)),
    frames_sha256=bytes(range(32, 64)),
    frames=(b"1", b"2", b"3"),
)


def row(outcome: Outcome = OUTCOME, source: SourceVideo = SOURCE) -> Row:
    return video_row(
        source, outcome, n_bytes=1234, sha256=bytes(32), split="train", n_clips=1, original_video_id=bytes(16)
    )


def clip_row(clip: Clip = CLIP) -> Row:
    """A clip's whole row: its facts and what the shard and the format add."""
    return clip_facts(SOURCE, clip, split="train", params_sha256="0" * 64) | {
        "shard_id": "train-000000",
        "sample_key": "abc",
        "tar_offset": 0,
        "tar_nbytes": 10240,
        "members": [{"ext": "00.jpg", "offset": 512, "nbytes": 1, "sha256": bytes(32)}],
        "block_len": 1,
        "align_template": "arcface5",
        "interp": "linear",
        "border": "reflect",
        "out_size": 224,
        "image_codec": "jpg",
        "jpeg_q": 95,
    }


def test_a_video_row_has_the_table_s_columns() -> None:
    assert set(row()) == set(VIDEOS.names)
    assert set(clip_row()) == set(CLIPS.names)


@pytest.mark.parametrize(("table", "made"), [("videos", row()), ("clips", clip_row())])
def test_rows_survive_json(table: str, made: Row) -> None:
    text = json.dumps(row_to_json(made))
    assert row_from_json(table, json.loads(text)) == made


@pytest.mark.parametrize(("table", "made"), [("videos", row()), ("clips", clip_row())])
def test_rows_survive_parquet(table: str, made: Row) -> None:
    found = read_table(table, table_bytes(table, [made], {})).to_pylist()[0]
    floats = {f.name for f in TABLES[table] if str(f.type) == "float"}
    for name, value in made.items():
        assert found[name] == (pytest.approx(value, rel=1e-6) if name in floats and value is not None else value), name


def test_a_missing_column_is_named() -> None:
    made = row_to_json(row())
    del made["split"]
    with pytest.raises(KeyError, match="split"):
        row_from_json("videos", made)


def test_what_was_not_decoded_is_null() -> None:
    outcome = Outcome(status=Status.FAILED, code=Code.E_PROBE, stage=Stage.PROBE)
    made = row(outcome)
    assert table_bytes("videos", [made], {})
    for name in ("n_frames_decoded", "pts_nominal", "n_frames_sampled", "n_frames_with_face", "width", "phash"):
        assert made[name] is None, name
    assert made["error_detail"] is None
    assert (made["error_code"], made["error_stage"], made["status"]) == ("E_PROBE", "probe", "failed")


def test_an_ok_row_has_no_code() -> None:
    made = row(replace(OUTCOME, status=Status.OK, code=None, stage=None, detail=""))
    assert made["error_code"] is made["error_stage"] is made["error_detail"] is None
    with pytest.raises(ValueError, match="a code belongs"):
        replace(OUTCOME, status=Status.OK)
    with pytest.raises(ValueError, match="a code belongs"):
        Outcome(status=Status.FAILED)


def test_units_of_a_clip() -> None:
    made = clip_row()
    assert made["box_xyxy"][0] == [80, -28, 32767, 32767], "eighths of a pixel, as far as int16 goes"
    assert made["box_xyxy"][1] == [8, 9, 16, 24]
    assert made["det_score"] == [255, 128, 0]
    assert made["lmk5"][1] == [0] * 10, "half an eighth rounds to even"
    assert made["lmk5"][2] == [1] * 10
    assert made["max_gap_frames"] == 1
    assert (made["pts_start_s"], made["pts_end_s"]) == (0.28, 0.36)
    assert made["jitter_px"] is None


def test_68_points_of_a_clip() -> None:
    assert clip_row()["lmk68"] is None
    points = tuple(tuple(k + 0.25 * i for i in range(136)) for k in range(3))
    made = clip_row(replace(CLIP, lmk68=points))
    assert made["lmk68"] == [[8 * k + 2 * i for i in range(136)] for k in range(3)]
    assert row_from_json("clips", json.loads(json.dumps(row_to_json(made))))["lmk68"] == made["lmk68"]
    stored = read_table("clips", table_bytes("clips", [made], {}))
    assert stored["lmk68"].to_pylist() == [made["lmk68"]]


def test_max_gap_is_the_largest_step() -> None:
    holed = replace(CLIP, frame_idx=(7, 8, 12))
    assert clip_row(holed)["max_gap_frames"] == 4


def test_clip_id_depends_on_what_makes_a_clip() -> None:
    ids = {
        clip_id(video, clip, params)
        for video in (bytes(16), bytes(15) + b"\x01")
        for clip in (CLIP, replace(CLIP, track_id=1), replace(CLIP, frame_idx=(8, 9, 10)))
        for params in ("0" * 64, "1" * 64)
    }
    assert len(ids) == 12
    assert {len(i) for i in ids} == {16}


# ---- nothing of this machine -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("cannot open /srv/me/a b/x.mp4", "cannot open x.mp4"),
        ("'/srv/data/x.mp4': broken", "'x.mp4': broken"),
        ("(/tmp/x/y)", "(y)"),
        ("file:/tmp/q/z.mp4", "file:z.mp4"),
        ("C:\\Users\\me\\x.mp4 is gone", "x.mp4 is gone"),
        ("/srv/a/1.mp4,/srv/b/2.mp4", "1.mp4,2.mp4"),
        ("30000/1001 frames/s, 640/360 px", "30000/1001 frames/s, 640/360 px"),
        ("listed as real/a/x.mp4", "listed as real/a/x.mp4"),
        (r"same file as real/\xd6\xd0.mp4", r"same file as real/\xd6\xd0.mp4"),
        (r"cannot open /srv/\xd6/\xd0.mp4", r"cannot open \xd0.mp4"),
        ("nothing to hide", "nothing to hide"),
        ("", ""),
    ],
)
def test_details_hold_no_folders_of_this_machine(detail: str, expected: str) -> None:
    assert scrubbed(detail) == expected
    assert row(replace(OUTCOME, detail=detail))["error_detail"] == (expected or None)


def test_details_are_short() -> None:
    assert scrubbed("x" * 501) == "x" * 500


@given(st.lists(st.text("abc._- é", min_size=1, max_size=8), min_size=2, max_size=5), st.text("abc ,:", max_size=5))
def test_no_folder_gets_through(folders: list[str], before: str) -> None:
    path = "/" + "/".join(f"secret{name}" for name in folders) + "/file.mp4"
    assert "secret" not in scrubbed(f"{before} {path}")
