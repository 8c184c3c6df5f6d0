"""What every file of the media folder ends as, and why: real footage with the traits that break pipelines."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from lps.manifests.canonical import digest16
from lps.manifests.codes import QUARANTINE_CODES, Code, Status
from lps.manifests.records import VideoResult
from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import Params
from lps.pipeline.faces.detector import Localizer
from lps.pipeline.faces.localizers import load_localizer

pytestmark = [pytest.mark.media, pytest.mark.usefixtures("one_thread")]

GAP = Code.E_TRACK_GAP
SHORT = Code.E_TOO_SHORT
NO_FACE = Code.E_NO_FACE

MTCNN: dict[str, tuple[int, Code | None, str]] = {
    "cartoon_sar_4x3_320x240.mp4": (132, GAP, "a cartoon rabbit that passes for a face on one frame of six"),
    "corrupted_undecodable.mp4": (
        48,
        Code.E_DECODE,
        "two packets do not decode, and their group of pictures with them",
    ),
    "crowd_raw_h264_no_container_960x366.h264": (127, GAP, "heads of some 20 px, found for a few frames at a time"),
    "face_then_noface_hevc_vfr_960x540.mov": (169, None, "a man for 72 frames, one black frame, a cartoon"),
    "kitchen_person_profile_mkv_426x240.mkv": (310, GAP, "a blurred profile that is found now and then"),
    "man_expressions_480.mp4": (216, None, ""),
    "man_glasses_expressions_480.mp4": (250, None, ""),
    "man_glasses_selfie_portrait_720x1280.mp4": (352, None, "portrait format"),
    "man_head_movement_512.mp4": (183, None, "moves all the time"),
    "man_lowcontrast_844.mp4": (125, None, ""),
    "man_nonsquare_sar_512x480.mp4": (587, None, "pixels of 15:16"),
    "man_odd_size_410x412.mp4": (169, None, ""),
    "man_sofa_gestures_1920x1080.mp4": (150, None, ""),
    "man_speech_editlist_1280x720.mp4": (55, SHORT, "the edit list shows 55 of the 158 frames in the file"),
    "man_suit_vfr_700.mp4": (135, None, "variable rate is no hole"),
    "noface_bird_yuv444p_1280x720.mp4": (280, NO_FACE, "a bird"),
    "noface_plant_320x240.mp4": (36, SHORT, ""),
    "noface_rotation_0_3f.mov": (3, SHORT, ""),
    "noface_rotation_180_3f.mov": (3, SHORT, ""),
    "noface_rotation_minus90_3f.mov": (3, SHORT, ""),
    "noface_rotation_plus90_3f.mov": (3, SHORT, ""),
    "noface_testcard_av1_640x360.mkv": (125, NO_FACE, "a test card"),
    "noface_testcard_hevc_10bit_200.mp4": (30, SHORT, ""),
    "noface_vp9_no_duration_1280x720.webm": (74, NO_FACE, "almost black"),
    "stage_scene_cuts_low_light_crowd_640x360.mp4": (275, None, "the shot between the second cut and the third"),
    "three_people_walking_gif_480x270.gif": (41, SHORT, ""),
    "tiny_unordered_pts_4f.mov": (4, SHORT, ""),
    "two_video_streams_subtitles_320x180.mp4": (325, NO_FACE, "a worker seen from behind"),
    "woman_expressions_512.mp4": (448, None, ""),
    "woman_full_body_small_face_720x1080.mp4": (103, None, "dances, face of 100 px"),
    "woman_glasses_524.mp4": (122, None, ""),
    "woman_head_turns_512.mp4": (354, None, "turns of 45 degrees"),
    "woman_in_car_short_24f_1920x1080.mp4": (24, SHORT, ""),
    "woman_outdoor_portrait_480x908.mp4": (297, None, ""),
    "woman_slow_zoom_1280x720.mp4": (282, None, ""),
    "woman_small_face_hevc_1080x1920.mp4": (250, None, "hands before the face"),
}
"""File -> frames that decode, code (None: ok), why."""

MOBILENET: dict[str, tuple[int, Code | None, str]] = {
    "cartoon_sar_4x3_320x240.mp4": (132, NO_FACE, "not taken in by the rabbit"),
    "crowd_raw_h264_no_container_960x366.h264": (127, NO_FACE, "heads of some 20 px are below its anchors"),
    "face_then_noface_hevc_vfr_960x540.mov": (169, None, ""),
    "kitchen_person_profile_mkv_426x240.mkv": (310, GAP, "a blurred profile that is found now and then"),
    "stage_scene_cuts_low_light_crowd_640x360.mp4": (275, None, ""),
    "woman_full_body_small_face_720x1080.mp4": (103, None, ""),
}


@pytest.fixture(scope="module")
def mtcnn() -> Localizer:
    return load_localizer("mtcnn", weights_dir=None, device="cpu", batch_size=1)


@pytest.fixture(scope="module")
def mobilenet(shared: Callable[[str], Path]) -> Localizer:
    return load_localizer("retinaface-mobilenet", weights_dir=shared("weights"), device="cpu", batch_size=4)


def processed(path: Path, localizer: Localizer, name: str) -> VideoResult:
    return process_video(path, digest16("media", path.name), localizer.detect, Params(localizer=name))


def check(result: VideoResult, n_frames: int, code: Code | None) -> None:
    outcome = result.outcome
    status = Status.OK if code is None else Status.FAILED
    assert (outcome.status, outcome.code) == (status, code), outcome.detail
    assert outcome.code not in QUARANTINE_CODES
    if outcome.scan == "window":
        assert outcome.header.n_frames_container == n_frames
        assert 0 < (outcome.n_frames_decoded or 0) <= n_frames
    else:
        assert outcome.n_frames_decoded == n_frames
    assert len(result.clips) == (1 if code is None else 0)
    for clip in result.clips:
        assert np.all(np.diff(clip.frame_idx) == 1)
        assert np.all(np.diff(clip.pts_ticks) > 0)
        assert len(clip.frame_idx) == len(clip.frames) == 60
        assert clip.frame_idx[-1] < n_frames
        assert clip.det_rate >= 0.6
        assert {PilImage.open(io.BytesIO(image)).size for image in clip.frames} == {(224, 224)}


def test_the_table_names_every_file(shared: Callable[[str], Path]) -> None:
    files = {path.name for path in shared("media/videos").iterdir()}
    assert files == set(MTCNN)
    assert set(MOBILENET) <= files


@pytest.mark.parametrize(("name", "n_frames", "code"), [(name, n, code) for name, (n, code, _) in MTCNN.items()])
@pytest.mark.slow
def test_with_mtcnn(
    shared: Callable[[str], Path], mtcnn: Localizer, name: str, n_frames: int, code: Code | None
) -> None:
    check(processed(shared("media/videos") / name, mtcnn, "mtcnn"), n_frames, code)


@pytest.mark.parametrize(("name", "n_frames", "code"), [(name, n, code) for name, (n, code, _) in MOBILENET.items()])
@pytest.mark.slow
def test_with_retinaface_mobilenet(
    shared: Callable[[str], Path], mobilenet: Localizer, name: str, n_frames: int, code: Code | None
) -> None:
    check(processed(shared("media/videos") / name, mobilenet, "retinaface-mobilenet"), n_frames, code)
