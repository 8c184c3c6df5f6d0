"""The estimate of a plan: frames that decode for a window, all clips and a whole scan; what unknown values do."""

from dataclasses import replace

import numpy as np
import pytest

from lps.manifests.records import Header
from lps.pipeline.clips.effort import HASH_FRAMES, Effort, effort, frames_to_decode
from lps.pipeline.clips.places import start_frames
from lps.pipeline.config.params import ALL_CLIPS, DecodeParams, Params
from lps.pipeline.job.plan import build_plan
from lps.pipeline.video.kept_probes import Probes
from lps.pipeline.video.probe import Probe
from tests.builders import folder_spec, folder_video

WINDOW = Params(localizer="mtcnn", decode=DecodeParams(scan="window"))
WHOLE = replace(WINDOW, decode=DecodeParams(scan="whole"))
VIDEO = Probe(
    n_bytes=1,
    sha256="",
    header=Header(width=1920, height=1080, codec="h264"),
    n_frames_promised=500,
    key_distance=100.0,
)


def effort_of(probe: Probe, params: Params = WINDOW, n_clips: int = 1) -> Effort:
    return effort(Probes.of({"a": probe}).table, np.array([n_clips]), params)


def test_a_window_begins_at_a_key_frame() -> None:
    one, two = effort_of(VIDEO).n_frames, effort_of(VIDEO, n_clips=2).n_frames
    assert 60 + 60 < one < 60 + 100 + 61  # what no other refers to is left out
    assert one < two < 2 * one  # of the hashes' frames there is one
    assert effort_of(replace(VIDEO, key_distance=0.0)).n_frames < one
    assert effort_of(VIDEO, n_clips=8).n_frames == 500  # one pass serves them
    assert effort_of(VIDEO, WHOLE).n_frames == 500
    assert effort_of(VIDEO, replace(WINDOW, clips=ALL_CLIPS), n_clips=8).n_frames == 500
    assert effort_of(VIDEO, WHOLE).core_seconds > effort_of(VIDEO).core_seconds


@pytest.mark.parametrize("n_frames", [300, 500, 2000])
def test_frames_to_decode_are_those_of_seeded_starts(n_frames: int) -> None:
    one, n = np.ones(1), np.array([float(n_frames)])
    key_distance = np.array([np.mean([number % 250 for number in range(n_frames)])])
    ids = (number.to_bytes(16, "big") for number in range(2000))
    starts = np.array([min(start_frames(video_id, n_frames, WINDOW)) for video_id in ids])
    decoded = starts % 250 + 60 + np.where(starts < 250, 0, HASH_FRAMES)
    expected = frames_to_decode(n, key_distance, np.array([1]), WINDOW, lead_share=one)
    assert expected[0] == pytest.approx(decoded.mean(), rel=0.15)


def test_larger_pictures_and_slower_localizers_take_longer() -> None:
    small = replace(VIDEO, header=replace(VIDEO.header, width=640, height=360))
    assert effort_of(small).core_seconds < effort_of(VIDEO).core_seconds
    assert effort_of(VIDEO).core_seconds < effort_of(VIDEO, replace(WINDOW, localizer="retinaface-fan")).core_seconds


def test_what_a_header_does_not_say_is_taken_as_usual() -> None:
    rare = replace(VIDEO, header=Header(width=1280, height=720, codec="cinepak"))
    usual = replace(VIDEO, header=Header(width=1280, height=720, codec="h264"))
    assert effort_of(replace(VIDEO, header=Header())) == effort_of(rare)
    assert effort_of(rare, WHOLE) == effort_of(usual, WHOLE)


def test_no_videos_take_nothing() -> None:
    nothing = effort(Probes.of({}).table, np.zeros(0, np.int64), WINDOW)
    assert nothing == Effort(n_frames=0, core_seconds=0.0)
    assert isinstance(nothing.n_frames, int)


@pytest.mark.parametrize(("seconds", "said"), [(7.4, "7 core seconds"), (720.0, "0.20 core hours")])
def test_little_work_is_told_in_seconds(seconds: float, said: str) -> None:
    video = folder_video("real/a.mp4", 0)
    spec = folder_spec(Params(localizer="mtcnn"))
    plan = build_plan(spec, [video], Probes.of({video.uri: Probe(n_bytes=1, sha256="00" * 32, n_frames_promised=60)}))
    told = replace(plan, effort=Effort(n_frames=60, core_seconds=seconds)).estimate()
    assert f"takes about {said} with mtcnn" in told[-1]
