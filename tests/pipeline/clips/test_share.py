"""Fakes that take windows, boxes and transforms of their originals: what is shared, and when it is not."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage

from lps.manifests.canonical import digest16
from lps.manifests.codes import PairFallback, Status
from lps.manifests.records import Clip, Header, OriginalWindows, VideoResult
from lps.pipeline.clips import pairs
from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import ALL_CLIPS, DecodeParams, PairParams, Params
from lps.pipeline.faces.detector import Faces, no_faces
from tests.pipeline.clips.test_process import FACE, HEIGHT, LENGTH, PARAMS, WIDTH, see

Image = NDArray[np.uint8]
Write = Callable[..., Path]
Change = Callable[[list[Image]], list[Image]]

N = 60
PAIRED = replace(PARAMS, pair=PairParams(mode="original"))
OF_ORIGINAL = ("frame_idx", "box_xyxy", "box_source", "det_score", "lmk5", "align_M", "start_rule", "start_seed")
"""What a fake that shares has of its original, unchanged."""


def scene(n: int = N, *, seed: int = 0, light: int = 255, dx: int = 0) -> list[Image]:
    """Return n frames in which scenery passes by behind a white square; `light` is that of a bar across it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 120, (16, 64, 3)).astype(np.uint8)
    scenery = np.minimum(cv2.resize(coarse, (4 * WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), 120)
    frames = []
    for k in range(n):
        frame = np.ascontiguousarray(scenery[:, 2 * k : 2 * k + WIDTH])
        x, y = WIDTH // 2 + dx, HEIGHT // 2
        frame[y - FACE // 2 : y + FACE // 2, x - FACE // 2 : x + FACE // 2] = 255
        frame[y - 4 : y + 4, x - FACE // 2 + 6 : x + FACE // 2 - 6] = light
        frames.append(frame)
    return frames


def process(
    path: Path,
    params: Params = PAIRED,
    share: OriginalWindows | PairFallback | None = None,
    *,
    keep_windows: bool = False,
) -> VideoResult:
    return process_video(path, digest16(path.stem), see, params, share=share, keep_windows=keep_windows)


@pytest.fixture
def original(write_video: Write, tmp_path: Path) -> Callable[..., OriginalWindows]:
    """Return what the fakes of an original get."""

    def make(params: Params = PAIRED, n: int = N) -> OriginalWindows:
        windows = process(write_video(tmp_path / "real.mp4", scene(n)), params, keep_windows=True).windows
        assert windows is not None
        return windows

    return make


@pytest.fixture
def fake(write_video: Write, tmp_path: Path) -> Callable[..., Path]:
    """Return a fake of that original; `change` is done to its frames."""

    def make(change: Change = lambda frames: frames, **how: object) -> Path:
        return write_video(tmp_path / "fake.mp4", change(scene(light=200)), **how)

    return make


def code_of(result: VideoResult) -> PairFallback | None:
    """Return why a video shares nothing."""
    assert result.clips
    modes = {(clip.pair_mode, clip.pair_fallback) for clip in result.clips}
    assert len(modes) == 1
    [(mode, code)] = modes
    assert (mode == "fallback") == (code is not None)
    return code


def test_a_fake_that_lines_up_is_cut_like_its_original(
    original: Callable[..., OriginalWindows], fake: Callable[..., Path]
) -> None:
    windows = original()
    [window] = windows.windows
    [theirs] = window.clips
    assert theirs.frames == ()
    made = process(fake(), share=windows)
    [clip] = made.clips
    assert {name: getattr(clip, name) for name in OF_ORIGINAL} == {name: getattr(theirs, name) for name in OF_ORIGINAL}
    assert (made.outcome.status, clip.pair_mode, clip.pair_fallback) == (Status.OK, "shared", None)
    assert len(clip.frames) == clip.n_frames
    assert clip.frames_sha256 != theirs.frames_sha256
    assert clip.pair_face_px is not None
    assert clip.pair_face_px < 2
    assert clip.pair_background is not None
    assert clip.pair_background > 0.95
    assert made.outcome.n_frames_sampled == PAIRED.pair.face_frames
    alone = process(fake())
    assert alone.clips[0].pair_mode == "own"
    assert alone.clips[0].frame_idx != clip.frame_idx, "a fake on its own begins where its own id says"


def test_shared_pictures_show_the_same_places(
    original: Callable[..., OriginalWindows], fake: Callable[..., Path], tmp_path: Path
) -> None:
    windows = original(replace(PAIRED, codec="png"))
    params = replace(PAIRED, codec="png")
    [theirs] = process(tmp_path / "real.mp4", params).clips
    [ours] = process(fake(), params, share=windows).clips
    for a, b in zip(theirs.frames, ours.frames, strict=True):
        one, other = (np.asarray(PilImage.open(io.BytesIO(data)), int) for data in (a, b))
        outside = np.abs(one - other)[:20]
        assert outside.mean() < 4, "the scenery above the face"


@pytest.mark.parametrize("scan", ["window", "whole"])
@pytest.mark.parametrize("clips", [1, 3, ALL_CLIPS])
def test_every_window_of_the_original_is_shared(
    original: Callable[..., OriginalWindows], fake: Callable[..., Path], scan: str, clips: int
) -> None:
    params = replace(PAIRED, clips=clips, decode=DecodeParams(scan=scan))  # type: ignore[arg-type]
    windows = original(params)
    made = process(fake(), params, share=windows)
    assert [clip.frame_idx for clip in made.clips] == [window.clips[0].frame_idx for window in windows.windows]
    assert {clip.pair_mode for clip in made.clips} == {"shared"}
    assert made.outcome.scan == ("whole" if clips == ALL_CLIPS else scan)
    assert len(made.outcome.phash) == 3


ENLARGE = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 0, 1.02)
CHANGES: dict[str, tuple[Change, dict[str, object], PairFallback]] = {
    "a frame early": (lambda frames: [*frames[1:], frames[-1]], {}, PairFallback.P_SHIFTED),
    "a frame late": (lambda frames: [frames[0], *frames[:-1]], {}, PairFallback.P_SHIFTED),
    "two px right": (lambda frames: [np.roll(f, 2, axis=1) for f in frames], {}, PairFallback.P_SHIFTED),
    "two px up": (lambda frames: [np.roll(f, -2, axis=0) for f in frames], {}, PairFallback.P_SHIFTED),
    "two px right and left, by turns": (
        lambda frames: [np.roll(f, (2, -2, 0)[k // 7 % 3], axis=1) for k, f in enumerate(frames)],
        {},
        PairFallback.P_SHIFTED,
    ),
    "larger about the centre": (
        lambda frames: [
            np.asarray(cv2.warpAffine(f, ENLARGE, f.shape[1::-1], borderMode=cv2.BORDER_REFLECT), np.uint8)
            for f in frames
        ],
        {},
        PairFallback.P_SHIFTED,
    ),
    "another place": (lambda _: scene(seed=1, light=200), {}, PairFallback.P_BACKGROUND),
    "another size": (lambda frames: [f[:-2] for f in frames], {}, PairFallback.P_SIZE),
    "much shorter": (lambda frames: frames[:40], {}, PairFallback.P_FRAMES),
    "faster": (lambda frames: frames, {"rate": 30}, PairFallback.P_TIMES),
    "another face": (lambda _: scene(light=200, dx=9), {}, PairFallback.P_FACE_MOVED),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_line_up_has_its_faces_found_anew(
    original: Callable[..., OriginalWindows], fake: Callable[..., Path], name: str
) -> None:
    change, how, code = CHANGES[name]
    path = fake(change, **how)
    made, alone = process(path, share=original()), process(path)
    assert code_of(made) == code
    measured = {"another place": (False, True), "another face": (True, True)}.get(name, (False, code == "P_SHIFTED"))
    [clip] = made.clips
    assert (clip.pair_face_px is not None, clip.pair_background is not None) == measured
    own = replace(clip, pair_mode="own", pair_fallback=None, pair_face_px=None, pair_background=None)
    assert own == alone.clips[0]


def test_a_frame_dropped_on_the_way_is_seen(
    original: Callable[..., OriginalWindows], fake: Callable[..., Path]
) -> None:
    [window] = (windows := original()).windows
    k = window.clips[0].frame_idx[-6]
    path = fake(lambda frames: [*frames[:k], *frames[k + 1 :], frames[-1]])
    assert code_of(process(path, share=windows)) == PairFallback.P_SHIFTED


def test_a_window_with_a_cut_in_it_is_not_shared(
    original: Callable[..., OriginalWindows], fake: Callable[..., Path]
) -> None:
    windows = original()
    middle = windows.windows[0].clips[0].frame_idx[LENGTH // 2]
    made = process(fake(lambda frames: [255 - f if k == middle else f for k, f in enumerate(frames)]), share=windows)
    assert code_of(made) == PairFallback.P_DECODE
    assert middle not in made.clips[0].frame_idx


def test_what_is_left_out_by_the_caller(original: Callable[..., OriginalWindows], fake: Callable[..., Path]) -> None:
    path = fake()
    assert code_of(process(path, share=PairFallback.P_ORIGINAL_ELSEWHERE)) == PairFallback.P_ORIGINAL_ELSEWHERE
    nothing = OriginalWindows(header=Header(), n_frames=0)
    assert code_of(process(path, share=nothing)) == PairFallback.P_ORIGINAL_FAILED


def test_a_face_that_fills_the_picture_leaves_nothing_to_compare(
    original: Callable[..., OriginalWindows], fake: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = original()
    monkeypatch.setattr(pairs, "FACE_MARGIN", 10.0)
    assert code_of(process(fake(), share=windows)) == PairFallback.P_NO_BACKGROUND


def test_a_fake_without_a_face_where_the_original_has_one(
    original: Callable[..., OriginalWindows], fake: Callable[..., Path]
) -> None:
    asked = []

    def see_later(images: Image, *, dense: bool) -> list[Faces]:
        asked.append(len(images))
        return [no_faces() for _ in images] if len(asked) == 1 else see(images, dense=dense)

    made = process_video(fake(), digest16("fake"), see_later, PAIRED, share=original())
    assert code_of(made) == PairFallback.P_NO_FACE
    assert asked[0] == PAIRED.pair.face_frames


def test_one_window_that_does_not_line_up_costs_no_other(
    original: Callable[..., OriginalWindows], fake: Callable[..., Path]
) -> None:
    params = replace(PAIRED, clips=3)
    windows = original(params)
    last = windows.windows[-1].clips[0].frame_idx

    def spoil(frames: list[Image]) -> list[Image]:
        return [np.roll(f, 3, axis=1) if k in last else f for k, f in enumerate(frames)]

    made = process(fake(spoil), params, share=windows)
    assert [clip.pair_mode for clip in made.clips] == ["shared", "shared", "fallback"]
    assert made.clips[-1].frame_idx == last
    assert made.clips[-1].pair_fallback == PairFallback.P_SHIFTED


def test_several_faces_are_shared_together(
    original: Callable[..., OriginalWindows], write_video: Write, tmp_path: Path
) -> None:
    def two(light: int) -> list[Image]:
        frames = [np.concatenate([f, g], axis=1) for f, g in zip(scene(light=light), scene(seed=3), strict=True)]
        for frame in frames:
            frame[HEIGHT // 2 - 20 : HEIGHT // 2 + 20, -WIDTH // 2 - 20 : -WIDTH // 2 + 20] = 255
        return frames

    params = replace(PAIRED, localize=replace(PAIRED.localize, faces="all"))
    windows = process(write_video(tmp_path / "two.mp4", two(255)), params, keep_windows=True).windows
    assert windows is not None
    made = process(write_video(tmp_path / "forged.mp4", two(200)), params, share=windows)

    def facts(clips: tuple[Clip, ...]) -> list[tuple[int, int, object]]:
        return [(clip.track_id, clip.n_tracks_in_video, clip.align_M) for clip in clips]

    assert facts(made.clips) == facts(windows.windows[0].clips)
    assert len(made.clips) == 2
