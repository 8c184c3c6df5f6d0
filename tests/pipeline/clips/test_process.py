"""One video in, its row and clips out: where clips begin, what is tried again, and what each failure is called."""

import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage

from lps.manifests.arrays import ARCFACE_112
from lps.manifests.canonical import digest16
from lps.manifests.codes import Code, Stage, Status
from lps.manifests.errors import UnreadableError
from lps.manifests.records import VideoResult
from lps.pipeline.clips import video_work
from lps.pipeline.clips.places import start_frames, start_seed
from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import ALL_CLIPS, DecodeParams, Limits, LocalizeParams, Params
from lps.pipeline.faces.detector import Faces, no_faces, rounded_faces
from lps.pipeline.faces.fan import five_points

Image = NDArray[np.uint8]
Write = Callable[..., Path]
DetectFaces = Callable[..., list[Faces]]

LENGTH = 10
PARAMS = Params(localizer="none", clip_frames=LENGTH, block_frames=5, localize=LocalizeParams(smooth_frames=1))
SHAPE = ARCFACE_112 / 112 - 0.5
WIDTH, HEIGHT = 192, 128
FACE = 48


def shot(n: int, *, seed: int = 0, at: Sequence[tuple[int, int]] = ((90, 60),)) -> list[Image]:
    """Return n frames of a dim landscape with white squares for faces, centred at `at`."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 120, (6, 9, 3)).astype(np.uint8)
    scenery = np.asarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)
    scenery = np.minimum(scenery, 120)
    for x, y in at:
        scenery[y - FACE // 2 : y + FACE // 2, x - FACE // 2 : x + FACE // 2] = 255
    # a blinking corner, so that no two frames are equal
    frames = []
    for k in range(n):
        frame = scenery.copy()
        frame[:8, :8] = 10 + k % 100
        frames.append(frame)
    return frames


def see(images: Image, *, dense: bool) -> list[Faces]:
    """Find white squares."""
    return [_see_one(image) for image in images]


def _see_one(image: Image) -> Faces:
    light = (image.min(axis=2) > 190).astype(np.uint8)
    n, _, stats, centres = cv2.connectedComponentsWithStats(light)
    found = [k for k in range(1, n) if stats[k][4] > 150]
    if not found:
        return no_faces()
    sides = np.array([stats[k][2:4] for k in found], np.float64)
    middles = np.array([centres[k] for k in found])
    boxes = np.hstack([middles - sides / 2, middles + sides / 2])
    points = middles[:, None] + SHAPE * sides[:, None]
    return rounded_faces(boxes, np.full(len(found), 0.95), points)


def see_68(images: Image, *, dense: bool) -> list[Faces]:
    """Find white squares, in crops with 68 landmarks whose five points are those of `see`."""
    return [_with_68(faces) if dense else faces for faces in see(images, dense=dense)]


def _with_68(faces: Faces) -> Faces:
    points68 = np.repeat(faces.points[:, 2:3], 68, axis=1)
    for place, five in ((slice(36, 42), 0), (slice(42, 48), 1), (48, 3), (54, 4)):
        points68[:, place] = faces.points[:, five : five + 1] if isinstance(place, slice) else faces.points[:, five]
    return Faces(faces.boxes_xyxy, faces.scores, faces.points, points68)


def see_collapsed(images: Image, *, dense: bool) -> list[Faces]:
    """Find faces whose five landmarks fall on one point."""
    return [
        Faces(faces.boxes_xyxy, faces.scores, np.repeat(faces.points[:, :1], 5, axis=1))
        for faces in see(images, dense=dense)
    ]


def process(path: Path, *, name: str = "a", params: Params = PARAMS, ask: DetectFaces = see) -> VideoResult:
    result = process_video(path, digest16(name), ask, params)
    for clip in result.clips:
        assert len(clip.frame_idx) == len(clip.frames) == len(clip.align_M) == len(clip.lmk5) == params.clip_frames
        assert np.all(np.diff(clip.frame_idx) == 1)
        assert np.all(np.diff(clip.pts_ticks) > 0)
    return result


def starts_of(result: VideoResult) -> list[int]:
    return [clip.frame_idx[0] for clip in result.clips]


def named(wanted: Callable[[list[int]], bool], n_frames: int, params: Params = PARAMS) -> str:
    """Return a name whose seeded starts are as wanted."""
    for k in range(1000):
        if wanted(sorted(start_frames(digest16(str(k)), n_frames, params))):
            return str(k)
    raise AssertionError("no name found")


def coded_packets(path: Path) -> list[tuple[int, int]]:
    """Return place and length of each packet of the file, in coded order."""
    with av.open(str(path)) as source:
        return [(packet.pos or 0, packet.size) for packet in source.demux(video=0) if packet.size]


def overwrite(path: Path, packets: Sequence[tuple[int, int]]) -> None:
    """Fill these packets with zeros."""
    data = bytearray(path.read_bytes())
    for at, size in packets:
        data[at : at + size] = bytes(size)
    path.write_bytes(bytes(data))


def outcome(result: VideoResult) -> tuple[Status, Code | None, Stage | None]:
    return result.outcome.status, result.outcome.code, result.outcome.stage


OK = (Status.OK, None, None)


# ---- where clips begin -----------------------------------------------------------------------------------------------
def test_start_is_a_function_of_id_and_seed() -> None:
    a, b = digest16("a"), digest16("b")
    assert start_frames(a, 500, PARAMS) == start_frames(a, 500, PARAMS)
    assert start_seed(a, PARAMS) != start_seed(b, PARAMS)
    assert start_seed(a, PARAMS) != start_seed(a, replace(PARAMS, seed=1))
    assert start_seed(a, PARAMS) == start_seed(a, replace(PARAMS, codec="png", clips=3, clip_frames=60))
    assert 0 <= start_seed(a, PARAMS) < 2**64
    assert start_seed(bytes(16), Params()) == 16900168143493908102, "another number moves every clip of every data set"


def test_starts_are_spread_evenly() -> None:
    counts = Counter(min(start_frames(digest16(str(k)), 19, PARAMS)) for k in range(5000))
    assert set(counts) == set(range(10))
    assert max(abs(n - 500) for n in counts.values()) < 5 * 500**0.5


@pytest.mark.parametrize("clips", [1, 2, 5])
def test_one_start_in_each_part(clips: int) -> None:
    params = replace(PARAMS, clips=clips)
    for k in range(50):
        starts = sorted(start_frames(digest16(str(k)), 103, params))
        part = 103 // clips
        assert [start // part for start in starts] == list(range(clips))
        assert all(start % part <= part - LENGTH for start in starts)


@pytest.mark.parametrize(
    ("n_frames", "clips", "expected"),
    [(25, 3, {0, 10}), (29, 3, {0, 10}), (9, 1, {0}), (0, 1, {0}), (10, 1, {0}), (30, 3, {0, 10, 20}), (7, 0, {0})],
)
def test_starts_of_short_videos(n_frames: int, clips: int, expected: set[int]) -> None:
    assert start_frames(digest16("a"), n_frames, replace(PARAMS, clips=clips)) == expected


def test_the_clip_begins_at_its_start(write_video: Write, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", shot(100))
    for name in ("a", "b", "c"):
        result = process(path, name=name)
        assert outcome(result) == OK
        assert starts_of(result) == sorted(start_frames(digest16(name), 100, PARAMS))
        assert result.clips[0].start_seed == start_seed(digest16(name), PARAMS)
        assert result.clips[0].start_rule == "seeded"


def test_several_clips(write_video: Write, tmp_path: Path) -> None:
    params = replace(PARAMS, clips=4)
    result = process(write_video(tmp_path / "a.mp4", shot(100)), params=params)
    assert outcome(result) == OK
    assert starts_of(result) == sorted(start_frames(digest16("a"), 100, params))


def test_more_clips_than_fit(write_video: Write, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", shot(35))
    assert starts_of(process(path, params=replace(PARAMS, clips=8))) == [0, 10, 20]


def test_all_clips(write_video: Write, tmp_path: Path) -> None:
    frames = [*shot(37), *shot(28, seed=1, at=[(40, 40)])]
    result = process(write_video(tmp_path / "a.mp4", frames), params=replace(PARAMS, clips=ALL_CLIPS))
    assert outcome(result) == OK
    assert starts_of(result) == [0, 10, 20, 37, 47]
    assert {clip.start_rule for clip in result.clips} == {"all"}


def test_every_face_of_a_run(write_video: Write, tmp_path: Path) -> None:
    params = replace(PARAMS, localize=replace(PARAMS.localize, faces="all"))
    result = process(write_video(tmp_path / "a.mp4", shot(30, at=[(40, 60), (130, 60)])), params=params)
    assert [clip.track_id for clip in result.clips] == [0, 1]
    assert {clip.n_tracks_in_video for clip in result.clips} == {2}
    assert not any(clip.face_label_certain for clip in result.clips)
    assert result.outcome.n_tracks == 2


# ---- what is tried again ---------------------------------------------------------------------------------------------
def test_a_face_in_the_second_half_only(write_video: Write, tmp_path: Path) -> None:
    frames = [*shot(50, at=[]), *shot(50)]
    path = write_video(tmp_path / "a.mp4", frames)
    result = process(path, name=named(lambda s: s[0] < 20, 100))
    assert outcome(result) == OK
    assert 50 <= starts_of(result)[0] < 50 + 2 * LENGTH


def test_the_only_usable_run_is_before_the_start(write_video: Write, tmp_path: Path) -> None:
    frames = [*shot(20), *shot(80, at=[])]
    path = write_video(tmp_path / "a.mp4", frames)
    result = process(path, name=named(lambda s: s[0] > 40, 100))
    assert outcome(result) == OK
    assert starts_of(result) == [0]


def test_a_run_that_reaches_into_the_start(write_video: Write, tmp_path: Path) -> None:
    name = named(lambda s: 20 < s[0] < 60, 100)
    first = min(start_frames(digest16(name), 100, PARAMS))
    frames = [*shot(first - 2, at=[]), *shot(LENGTH, seed=1), *shot(100 - first + 2 - LENGTH, seed=2, at=[])]
    result = process(write_video(tmp_path / "a.mp4", frames), name=name)
    assert outcome(result) == OK
    assert starts_of(result) == [first - 2]


def test_clips_owed_are_found_between_the_parts(write_video: Write, tmp_path: Path) -> None:
    params = replace(PARAMS, clips=2)
    name = named(lambda s: s[0] < 20, 120, params)
    first = min(start_frames(digest16(name), 120, params))
    frames = [*shot(60), *shot(60, at=[])]
    result = process(write_video(tmp_path / "a.mp4", frames), name=name, params=params)
    assert outcome(result) == OK
    assert len(result.clips) == 2
    assert starts_of(result)[0] == first
    one, two = (set(clip.frame_idx) for clip in result.clips)
    assert not one & two
    assert max(one | two) < 60


def test_clips_of_the_second_pass_share_no_frames_with_the_first(write_video: Write, tmp_path: Path) -> None:
    params = replace(PARAMS, clips=2)
    name = named(lambda s: 4 < s[0] < LENGTH, 60, params)
    first = min(start_frames(digest16(name), 60, params))
    path = write_video(tmp_path / "a.mp4", [*shot(first + LENGTH), *shot(60 - first - LENGTH, at=[])])
    assert starts_of(process(path, name=name, params=params)) == [first]


def test_a_run_begins_again_where_the_face_comes(write_video: Write, tmp_path: Path) -> None:
    """No run of ten from a multiple of ten has the face throughout."""
    params = replace(PARAMS, clips=ALL_CLIPS, localize=replace(PARAMS.localize, cut_score=1.0))
    frames = [*shot(51, at=[]), *shot(18), *shot(31, at=[])]
    result = process(write_video(tmp_path / "a.mp4", frames), params=params)
    assert outcome(result) == OK
    assert len(result.clips) == 1
    assert 51 <= starts_of(result)[0] <= 59


def test_frames_that_the_container_only_promises(write_video: Write, tmp_path: Path) -> None:
    """The start may lie beyond the last frame that decodes; the clip is then looked for before it."""
    options, container = {"g": "20", "bf": "0", "crf": "10"}, {"movflags": "faststart"}
    path = write_video(tmp_path / "a.mp4", shot(100), options=options, container=container)
    overwrite(path, coded_packets(path)[40:])
    result = process(path, name=named(lambda s: s[0] > 70, 100))
    assert result.outcome.n_frames_decoded == 40
    assert outcome(result) == (Status.PARTIAL, Code.E_TRUNCATED, Stage.DECODE)
    assert len(result.clips) == 1


def test_clips_avoid_the_damage(write_video: Write, tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mp4", shot(100), options={"g": "20", "crf": "10"}, container={"movflags": "faststart"}
    )
    whole = process(path, params=replace(PARAMS, clips=ALL_CLIPS))
    overwrite(path, coded_packets(path)[45:46])
    result = process(path, params=replace(PARAMS, clips=ALL_CLIPS))
    assert outcome(result) == (Status.PARTIAL, Code.E_DECODE, Stage.DECODE)
    assert "damaged" in result.outcome.detail
    times = {round(t * 25) for clip in result.clips for t in clip.pts_seconds}
    assert len(result.clips) >= 6
    assert not times & {45, 50, 55}
    intact = {round(c.pts_seconds[0] * 25): c.frames_sha256 for c in whole.clips}
    for clip in result.clips:
        start = round(clip.pts_seconds[0] * 25)
        if start in intact:
            assert clip.frames_sha256 == intact[start]


@pytest.mark.parametrize("size", [1 << 29, 1 << 31, (1 << 32) - 1])
def test_a_nonsense_size_costs_what_follows_and_not_the_clips_before(
    write_video: Write, tmp_path: Path, size: int
) -> None:
    """Libav answers a packet of 512 MiB with ENOMEM, a larger one as if the file ended there: both are its fault."""
    path = write_video(tmp_path / "a.mp4", shot(100), container={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    sizes = data.index(b"stsz") + 4 + 12  # version and flags, the common size, the number of packets
    data[sizes + 4 * 70 : sizes + 4 * 71] = size.to_bytes(4, "big")
    path.write_bytes(bytes(data))
    if size == 1 << 29:
        with pytest.raises(MemoryError):
            coded_packets(path)
    else:
        assert len(coded_packets(path)) == 70
    result = process(path, params=replace(PARAMS, clips=ALL_CLIPS))
    assert outcome(result) == (Status.PARTIAL, Code.E_TRUNCATED, Stage.DECODE)
    assert len(result.clips) >= 6


def test_truncated_but_enough(write_video: Write, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", shot(100), container={"movflags": "faststart"}, options={"crf": "10"})
    os.truncate(path, coded_packets(path)[70][0] + 4)
    result = process(path, params=replace(PARAMS, clips=ALL_CLIPS))
    assert outcome(result) == (Status.PARTIAL, Code.E_TRUNCATED, Stage.DECODE)
    assert 60 < (result.outcome.n_frames_decoded or 0) <= 71
    assert starts_of(result)[:6] == [0, 10, 20, 30, 40, 50]


# ---- what failures are called ----------------------------------------------------------------------------------------
def failure(path: Path, params: Params = PARAMS, ask: DetectFaces = see) -> tuple[Code | None, Stage | None, str]:
    result = process(path, params=params, ask=ask)
    assert result.outcome.status is Status.FAILED
    assert result.clips == ()
    return result.outcome.code, result.outcome.stage, result.outcome.detail


def test_too_short(write_video: Write, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", shot(LENGTH - 1))
    assert failure(path) == (Code.E_TOO_SHORT, Stage.DECODE, "9 frames, a clip needs 10")
    assert outcome(process(write_video(tmp_path / "b.mp4", shot(LENGTH)))) == OK


def test_cuts_leave_no_run(write_video: Write, tmp_path: Path) -> None:
    frames = [
        image for k in range(8) for image in shot(LENGTH - 2, seed=k, at=[(40 + 50 * (k % 3), 40 + 40 * (k % 2))])
    ]
    code, stage, detail = failure(write_video(tmp_path / "a.mp4", frames))
    assert (code, stage) == (Code.E_NO_CONTIGUOUS_RUN, Stage.DECODE)
    assert detail == "longest run 8 frames, a clip needs 10"


def test_no_face(write_video: Write, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", shot(40, at=[]))
    assert failure(path)[:2] == (Code.E_NO_FACE, Stage.DETECT)


def test_face_too_small(write_video: Write, tmp_path: Path) -> None:
    params = replace(PARAMS, localize=replace(PARAMS.localize, min_face_px=60.0))
    assert failure(write_video(tmp_path / "a.mp4", shot(40)), params)[:2] == (Code.E_FACE_TOO_SMALL, Stage.DETECT)


def test_two_faces_and_a_policy_that_refuses(write_video: Write, tmp_path: Path) -> None:
    params = replace(PARAMS, localize=replace(PARAMS.localize, faces="single"))
    path = write_video(tmp_path / "a.mp4", shot(40, at=[(40, 60), (130, 60)]))
    assert failure(path, params)[:2] == (Code.E_MULTI_FACE_AMBIGUOUS, Stage.TRACK)


def test_the_fault_that_came_furthest_names_the_video(write_video: Write, tmp_path: Path) -> None:
    frames = [*shot(30, at=[]), *shot(LENGTH - 3), *shot(30, at=[])]
    params = replace(PARAMS, clips=ALL_CLIPS, localize=replace(PARAMS.localize, cut_score=1.0))
    assert failure(write_video(tmp_path / "a.mp4", frames), params)[:2] == (Code.E_TRACK_GAP, Stage.TRACK)


def test_landmarks_that_are_no_face(write_video: Write, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", shot(40))
    assert failure(path, ask=see_collapsed)[:2] == (Code.E_LANDMARK, Stage.ALIGN)
    assert outcome(process(path, params=replace(PARAMS, align=False), ask=see_collapsed)) == OK


def test_a_face_that_the_picture_cuts_off(write_video: Write, tmp_path: Path) -> None:
    """A face of 48 px comes with 4 px around it; this one has its right half in the picture."""
    path = write_video(tmp_path / "a.mp4", shot(40, at=[(FACE // 2, 60)]))
    border = process(path)
    assert outcome(border) == OK
    assert border.clips[0].quality["outside_share"] == pytest.approx(4.2 / 56.5, abs=0.03)

    def see_half(images: Image, *, dense: bool) -> list[Faces]:
        found = see(images, dense=dense)
        return [
            Faces(f.boxes_xyxy, f.scores, f.points - [np.ptp(f.boxes_xyxy[:, ::2], axis=1).mean() / 2, 0])
            if len(f.scores)
            else f
            for f in found
        ]

    code, stage, detail = failure(path, ask=see_half)
    assert (code, stage) == (Code.E_OUT_OF_FRAME, Stage.ALIGN)
    assert re.fullmatch(r"(49|5\d)% of the face is outside the picture, in 10 of 10 frames", detail)
    allowed = process(path, params=replace(PARAMS, max_outside_share=0.6), ask=see_half)
    assert outcome(allowed) == OK
    assert allowed.clips[0].quality["outside_share"] == pytest.approx(0.5, abs=0.05)


def test_a_face_that_comes_into_the_picture(write_video: Write, tmp_path: Path) -> None:
    """The run begins again after the last frame that has too little of it."""
    frames = [shot(1, at=[(min(24 + max(0, k - 17), 60), 60)])[0] for k in range(40)]
    params = replace(PARAMS, clips=ALL_CLIPS, max_outside_share=0.05)
    result = process(write_video(tmp_path / "a.mp4", frames), params=params)
    assert outcome(result) == OK
    first = starts_of(result)[0]
    assert 18 <= first <= 22
    assert starts_of(result) == [first, first + LENGTH]
    assert all(clip.quality["outside_share"] <= 0.05 for clip in result.clips)


def test_one_face_of_several_is_cut_off(write_video: Write, tmp_path: Path) -> None:
    params = replace(PARAMS, max_outside_share=0.05, localize=replace(PARAMS.localize, faces="all"))
    result = process(write_video(tmp_path / "a.mp4", shot(30, at=[(24, 60), (130, 60)])), params=params)
    assert outcome(result) == OK
    assert len(result.clips) == 1
    assert result.clips[0].n_tracks_in_video == 2
    assert not result.clips[0].face_label_certain


def test_a_file_that_does_not_open(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("not a video")
    assert failure(path)[:2] == (Code.E_PROBE, Stage.PROBE)
    result = process(tmp_path / "missing.mp4")
    assert outcome(result) == (Status.FAILED, Code.E_MISSING_FILE, Stage.PROBE)
    assert str(tmp_path) not in result.outcome.detail
    assert result.outcome.n_frames_decoded is None


def test_a_limit(write_video: Write, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", shot(40))
    assert failure(path, replace(PARAMS, limits=Limits(max_frames=39)))[0] is Code.E_LIMIT


def test_faults_of_the_detector_are_not_the_video_s(write_video: Write, tmp_path: Path) -> None:
    def broken(images: Image, *, dense: bool) -> list[Faces]:
        raise RuntimeError("CUDA error")

    with pytest.raises(RuntimeError, match="CUDA"):
        process(write_video(tmp_path / "a.mp4", shot(40)), ask=broken)


# ---- the row and the clip --------------------------------------------------------------------------------------------
def test_the_row(write_video: Write, tmp_path: Path) -> None:
    result = process(write_video(tmp_path / "a.mp4", shot(100)))
    row = result.outcome
    assert (row.is_vfr, row.pts_nominal, row.n_tracks, row.header.n_frames_container) == (False, False, 1, 100)
    clip = result.clips[0]
    assert row.scan == "window"
    assert clip.n_frames <= (row.n_frames_decoded or 0) < 100
    whole = process(tmp_path / "a.mp4", params=replace(PARAMS, decode=DecodeParams(scan="whole")))
    assert (whole.outcome.scan, whole.outcome.n_frames_decoded) == ("whole", 100)
    assert whole.clips == result.clips
    assert (row.header.width, row.header.height, row.header.rotation) == (WIDTH, HEIGHT, 0)
    assert row.n_frames_sampled == row.n_frames_with_face > 2
    assert row.det_score_mean == pytest.approx(0.95, abs=1e-3)
    assert row.face_px_median == pytest.approx(FACE, abs=1.5)
    assert len(row.phash) == len(row.phash_quality) == 3
    assert all(len(digest) == 32 for digest in row.phash)


def test_the_clip(write_video: Write, tmp_path: Path) -> None:
    result = process(write_video(tmp_path / "a.mp4", shot(100)), params=replace(PARAMS, codec="png"))
    clip = result.clips[0]
    assert clip.pts_seconds == tuple(k / 25 for k in clip.frame_idx)
    assert clip.det_rate == 1.0
    assert clip.face_label_certain
    faces = [np.asarray(PilImage.open(io.BytesIO(image))) for image in clip.frames]
    assert {face.shape for face in faces} == {(224, 224, 3)}
    digest = hashlib.sha256()
    for face in faces:
        digest.update(face.tobytes())
    assert digest.digest() == clip.frames_sha256
    # the white square of the face's side fills its share of the output
    share = np.mean([(face.min(axis=2) > 190).mean() for face in faces])
    assert share == pytest.approx((0.85 * 224) ** 2 / 224**2, abs=0.03)
    assert set(clip.quality) == {
        "blur_var_med",
        "luma_mean",
        "luma_std",
        "yaw_absmax",
        "jitter_px",
        "box_side_med",
        "iod_med",
        "outside_share",
    }
    assert clip.quality["box_side_med"] == pytest.approx(FACE, abs=1.5)
    assert clip.quality["iod_med"] == pytest.approx(FACE * 35.2378 / 112, abs=0.6)
    assert clip.quality["jitter_px"] < 0.5


def test_jitter_is_measured_after_alignment(write_video: Write, tmp_path: Path) -> None:
    frames = [shot(1, at=[(90 + 6 * (k % 2), 60)])[0] for k in range(20)]
    params = replace(PARAMS, localize=replace(PARAMS.localize, stride_frames=1))
    clip = process(write_video(tmp_path / "a.mp4", frames, options={"crf": "10"}), params=params).clips[0]
    assert clip.quality["jitter_px"] < 1
    assert np.abs(np.diff(np.array(clip.lmk5)[:, 0], n=2)).min() > 8


@pytest.mark.parametrize("change", [{}, {"codec": "webp"}, {"align": False}, {"clips": 3}, {"seed": 5}])
def test_the_same_in_the_same_out(write_video: Write, tmp_path: Path, change: dict[str, Any]) -> None:
    path = write_video(tmp_path / "a.mp4", shot(80))
    params = replace(PARAMS, **change)

    def one_by_one(images: Image, *, dense: bool) -> list[Faces]:
        return [see(images[k : k + 1], dense=dense)[0] for k in range(len(images))]

    assert process(path, params=params) == process(path, params=params, ask=one_by_one)


# ---- images on the disk --------------------------------------------------------------------------------------------


def test_clips_are_the_same_where_their_images_lie_on_the_disk(
    write_video: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", shot(5 * LENGTH + 3))
    params = replace(PARAMS, clips=ALL_CLIPS)
    expected = process(path, params=params)
    n_clip_bytes = sum(map(len, expected.clips[0].frames))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(video_work, "SPOOL_BYTES", round(1.5 * n_clip_bytes))  # two clips a file
    result = process_video(path, digest16("a"), see, params, spool=str(scratch))
    assert result == expected
    kinds = [{type(image) for image in clip.frames} for clip in result.clips]
    assert kinds == [{memoryview}] * 4 + [{bytes}]
    assert list(scratch.iterdir()) == []


def test_pictures_of_windows_lie_on_the_disk_too(
    write_video: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", shot(5 * LENGTH))
    params = replace(PARAMS, clips=ALL_CLIPS)
    expected = process_video(path, digest16("a"), see, params, keep_windows=True).windows
    assert expected is not None
    n_bytes = sum(map(len, expected.windows[0].pictures))
    monkeypatch.setattr(video_work, "SPOOL_BYTES", round(1.5 * n_bytes))  # two windows a file
    windows = process_video(path, digest16("a"), see, params, spool=str(tmp_path), keep_windows=True).windows
    assert windows == expected
    kinds = [{type(picture) for picture in window.pictures} for window in windows.windows]
    assert kinds == [{memoryview}] * 4 + [{bytes}]


def test_images_that_cannot_be_written_are_no_fault_of_the_video(
    write_video: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", shot(LENGTH))
    monkeypatch.setattr(video_work, "SPOOL_BYTES", 1)
    with pytest.raises(UnreadableError, match=r"^cannot keep clips in .*gone: No such file or directory$"):
        process_video(path, digest16("a"), see, PARAMS, spool=str(tmp_path / "gone"))


def test_68_landmarks_are_kept_and_nothing_else_changes(write_video: Write, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", shot(3 * LENGTH))
    five, dense = (process(path, ask=ask) for ask in (see, see_68))
    assert all(clip.lmk68 is None for clip in five.clips)
    assert [replace(clip, lmk68=None) for clip in dense.clips] == list(five.clips)
    for clip in dense.clips:
        points = np.array(clip.lmk68).reshape(LENGTH, 68, 2)
        assert np.abs(five_points(points.reshape(-1, 68, 2)).reshape(LENGTH, 10) - np.array(clip.lmk5)).max() < 1e-9
