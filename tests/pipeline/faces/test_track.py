"""Following a face: the bound on what is not detected, gaps, jumps, policies and counts, against known truth.

Faces are plain squares in one colour channel each; the detector here reads their place from the pixels it is shown, to
a fraction of a pixel, wherever and at whatever scale the crop was taken.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lps.manifests.arrays import ARCFACE_112, Floats
from lps.manifests.codes import Code
from lps.pipeline.config.params import LocalizeParams, Params
from lps.pipeline.faces.detector import Faces, no_faces, rounded_faces
from lps.pipeline.faces.fan import five_points
from lps.pipeline.faces.track import DetectionCounts, Track, TrackLost, find_tracks
from lps.pipeline.video.frame import Frame

Image = NDArray[np.uint8]
Path2D = Callable[[int], tuple[float, float]]

N = 60
MIDDLE = 30
WIDTH, HEIGHT = 320, 240
SHAPE = ARCFACE_112 / 112 - 0.5
"""The five points of a face, from its centre, in units of its side."""


@dataclass(frozen=True)
class Face:
    """One square face: where its centre is (source px, pixel centres at whole numbers) and on which frames."""

    centre: Path2D
    side: Callable[[int], float] = lambda k: 60.0
    seen: Callable[[int], bool] = lambda k: True
    score: float = 1.0


def still(x: float = 160.0, y: float = 120.0) -> Path2D:
    return lambda k: (x, y)


def absent(*stretches: Iterable[int]) -> Callable[[int], bool]:
    gone = {k for stretch in stretches for k in stretch}
    return lambda k: k not in gone


def coverage(n: int, centre: float, side: float) -> Floats:
    """Share of each of n pixels that a bar covers."""
    low, high = centre + 0.5 - side / 2, centre + 0.5 + side / 2
    at = np.arange(n)
    return np.asarray(np.clip(np.minimum(at + 1, high) - np.maximum(at, low), 0, 1), np.float64)


def film(faces: Sequence[Face], n: int = N, *, aspect: float = 1.0, first_index: int = 0) -> list[Frame]:
    """Return n frames without breaks that show up to three faces, each in its colour."""
    frames = []
    for k in range(n):
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for channel, face in enumerate(faces):
            if face.seen(k):
                (x, y), side = face.centre(k), face.side(k)
                light = np.outer(coverage(HEIGHT, y, side), coverage(WIDTH, x, side / aspect)) * 255 * face.score
                image[..., channel] = np.round(light)
        native = av.VideoFrame.from_ndarray(image, format="rgb24")
        frames.append(Frame(first_index + k, k * 1000, k / 25, 0, aspect, k == 0, native))
    return frames


def read_faces(image: Image, channels: Iterable[int] = range(3)) -> Faces:
    """Return the squares of one image."""
    boxes, scores, points = [], [], []
    for channel in channels:
        light = image[..., channel].astype(np.float64)
        if light.max() < 25:
            continue
        spans = []
        for axis in (0, 1):
            profile = light.sum(axis) / light.sum(axis).max()
            spans.append((float((np.arange(len(profile)) * profile).sum() / profile.sum()), float(profile.sum())))
        (x, w), (y, h) = spans
        boxes.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        scores.append(light.max() / 255)
        points.append(SHAPE * (w, h) + (x, y))
    return rounded_faces(np.array(boxes), np.array(scores), np.array(points)) if boxes else no_faces()


def _shape_68() -> Floats:
    """Return 68 places in the unit square whose five points are those of the template."""
    five = ARCFACE_112 / 112
    points = np.random.default_rng(3).uniform(0.1, 0.9, (68, 2))
    for eye, place in ((slice(36, 42), five[0]), (slice(42, 48), five[1])):
        points[eye] += place - points[eye].mean(axis=0)
    points[[30, 48, 54]] = five[2:]
    return points


SHAPE_68 = _shape_68()


class Detector:
    """Reads squares, and remembers what it was shown."""

    def __init__(self, channels: Sequence[int] = (0, 1, 2)) -> None:
        self.channels = channels
        self.shapes: list[tuple[tuple[int, ...], bool]] = []

    def __call__(self, images: Image, *, dense: bool) -> list[Faces]:
        assert images.ndim == 4
        assert images.dtype == np.uint8
        self.shapes.append((images.shape, dense))
        return [read_faces(image, self.channels) for image in images]


def params(**local: Any) -> Params:
    return Params(localize=LocalizeParams(**{"smooth_frames": 1, **local}))


def follow(
    faces: Sequence[Face], *, n: int = N, aspect: float = 1.0, counts: DetectionCounts | None = None, **local: object
) -> Track:
    """Return the first track of a film of `faces`."""
    return find_tracks(film(faces, n, aspect=aspect), Detector(), params(**local), counts or DetectionCounts())[0]


def lost(faces: Sequence[Face], **local: Any) -> TrackLost:
    with pytest.raises(TrackLost) as caught:
        follow(faces, **local)
    return caught.value


def misses(track: Track, face: Face, *, aspect: float = 1.0) -> Floats:
    """Mean distance of the five points from the truth, per frame, in px of a 224 px output."""
    square = np.array([aspect, 1.0])
    out = []
    for k, points in enumerate(track.points):
        side = face.side(k)
        truth = SHAPE * side / square + face.centre(k)
        scale = 224 * 0.85 / side
        out.append(np.hypot(*((points - truth) * square).T).mean() * scale)
    return np.array(out)


def swing(amplitude: float, period: float) -> Path2D:
    return lambda k: (160 + amplitude * np.sin(2 * np.pi * k / period), 120 + amplitude / 3 * np.cos(k / period))


class DenseDetector(Detector):
    """Gives 68 points in crops, and five that are reduced from them; none of the 68 where `blind` says so."""

    def __init__(self, *, blind: Callable[[Faces], bool] = lambda faces: False) -> None:
        super().__init__()
        self.blind = blind

    def __call__(self, images: Image, *, dense: bool) -> list[Faces]:
        return [self._with_68(faces) if dense else faces for faces in super().__call__(images, dense=dense)]

    def _with_68(self, faces: Faces) -> Faces:
        if self.blind(faces):
            return faces
        low, sides = faces.boxes_xyxy[:, None, :2], faces.boxes_xyxy[:, None, 2:] - faces.boxes_xyxy[:, None, :2]
        points68 = low + SHAPE_68 * sides
        return rounded_faces(faces.boxes_xyxy, faces.scores, five_points(points68), points68)


# ---- the bound -------------------------------------------------------------------------------------------------------
def test_a_still_face_needs_few_detections() -> None:
    track = follow([Face(still())])
    assert (track.n_asked, track.n_found) == (17, 17)
    assert track.source.tolist().count(0) == 17
    assert set(track.source.tolist()) == {0, 1}
    assert misses(track, Face(still())).max() < 0.2


def test_a_steady_pan_needs_no_more() -> None:
    face = Face(lambda k: (60 + 3.1 * k, 100 + 0.7 * k))
    track = follow([face])
    assert track.n_asked == 17
    assert misses(track, face).max() < 0.5


def test_a_steady_zoom_is_followed() -> None:
    face = Face(still(), side=lambda k: 40 + 2.5 * k)
    assert misses(follow([face]), face).max() < 2.0


@pytest.mark.parametrize(("amplitude", "period"), [(30, 60), (25, 45), (15, 30)])
def test_the_bound_holds_for_smooth_motion(amplitude: float, period: float) -> None:
    face = Face(swing(amplitude, period))
    track = follow([face])
    assert 17 < track.n_asked < N
    assert misses(track, face).max() < 2.2
    assert misses(track, face)[track.source == 0].max() < 0.3


@pytest.mark.parametrize(("amplitude", "period"), [(20, 16), (12, 11)])
def test_fast_motion_is_detected_almost_everywhere(amplitude: float, period: float) -> None:
    """Not the maximum: where a motion turns twice within an interval, its middle can lie on the line by chance."""
    face = Face(swing(amplitude, period))
    track = follow([face])
    assert track.n_asked >= 50
    assert np.mean(misses(track, face) > 2) < 0.1


def test_a_tighter_bound_asks_more_and_misses_less() -> None:
    face = Face(swing(25, 40))
    loose, usual, tight = (follow([face], bound_px=bound) for bound in (8.0, 2.0, 0.5))
    assert loose.n_asked < usual.n_asked < tight.n_asked
    assert misses(loose, face).max() > misses(usual, face).max() > misses(tight, face).max()
    assert misses(tight, face).max() < 0.7


def test_a_shaking_face_is_detected_almost_everywhere() -> None:
    shake = np.random.default_rng(0).uniform(-7, 7, (N, 2))
    face = Face(lambda k: (160 + shake[k, 0], 120 + shake[k, 1]))
    track = follow([face])
    assert track.n_asked >= 50
    assert np.median(misses(track, face)) < 0.3


def test_stride_of_one_detects_every_frame() -> None:
    face = Face(still())
    track = follow([face], stride_frames=1)
    assert (track.n_asked, track.n_found) == (N, N)
    assert not track.source.any()
    assert misses(track, face).max() < 0.2


def test_boxes_and_scores_are_those_of_the_face() -> None:
    face = Face(still(111.0, 87.5), side=lambda k: 48.0, score=0.9)
    track = follow([face])
    assert np.allclose(track.boxes, [87, 63.5, 135, 111.5], atol=0.25)
    assert np.allclose(track.scores, 0.9, atol=0.01)


@pytest.mark.parametrize("aspect", [0.75, 4 / 3])
def test_pixels_that_are_not_square(aspect: float) -> None:
    face = Face(swing(15, 40))
    track = follow([face], aspect=aspect)
    assert misses(track, face, aspect=aspect).max() < 2.3
    width, height = (track.boxes[:, 2:] - track.boxes[:, :2]).mean(axis=0)
    assert width * aspect == pytest.approx(height, rel=0.02)


def test_a_leap_beyond_the_crop_is_found_in_the_whole_frame() -> None:
    face = Face(lambda k: (100 + 11.0 * min(max(k - 38, 0), 8), 120.0))
    assert misses(follow([face]), face).max() < 2.3


def test_places_in_whole_frames_are_exact() -> None:
    """Whole frames are searched at a smaller size; a detector that is blind in crops shows what becomes of that."""
    light = np.outer(coverage(720, 300.0, 240.0), coverage(1280, 500.0, 240.0)) * 255
    image = np.stack([np.round(light).astype(np.uint8)] * 3, axis=2)
    frame = Frame(0, 0, 0.0, 0, 1.0, breaks=True, native=av.VideoFrame.from_ndarray(image, format="rgb24"))

    def ask(images: Image, *, dense: bool) -> list[Faces]:
        return [no_faces() if dense else read_faces(image) for image in images]

    track = find_tracks([frame], ask, params(), DetectionCounts())[0]
    assert np.allclose(track.boxes, [[380, 180, 620, 420]], atol=0.15)
    assert np.allclose(track.points[0].mean(axis=0), SHAPE.mean(axis=0) * 240 + (500, 300), atol=0.15)


def test_a_face_at_the_border_is_followed() -> None:
    face = Face(lambda k: (30 + 0.5 * k, 31.0))
    assert misses(follow([face]), face).max() < 0.5


@pytest.mark.parametrize("n", [2, 3, 10, 61])
def test_runs_of_any_length(n: int) -> None:
    face = Face(swing(10, 30))
    track = follow([face], n=n)
    assert track.points.shape == (n, 5, 2)
    assert track.boxes.shape == (n, 4)
    assert track.source.shape == track.scores.shape == (n,)
    assert misses(track, face).max() < 2.3


def test_smoothing_calms_noise_and_keeps_motion() -> None:
    noise = np.random.default_rng(1).normal(0, 0.6, (N, 2))
    noisy = Face(lambda k: (60 + 3 * k + noise[k, 0], 120 + noise[k, 1]))
    true = Face(lambda k: (60 + 3 * k, 120.0))
    rough = follow([noisy], stride_frames=1)
    smooth = follow([noisy], stride_frames=1, smooth_frames=7)
    assert misses(smooth, true).mean() < 0.75 * misses(rough, true).mean()
    steps = [np.abs(np.diff(track.points, n=2, axis=0)).mean() for track in (rough, smooth)]
    assert steps[1] < 0.4 * steps[0]
    assert np.array_equal(rough.boxes, smooth.boxes)


# ---- optical flow ----------------------------------------------------------------------------------------------------
def grained(
    face: Face, grain: Path2D, hidden: Iterable[int] = (), n: int = N, *, aspect: float = 1.0
) -> tuple[list[Frame], Detector]:
    """Return a film of one face with a texture that moves along `grain`, and a detector that does not see the texture.

    On the frames `hidden` something else covers it.
    """
    random = np.random.default_rng(5)
    # wider than the picture, so that it can move
    tile, other = (cv2.GaussianBlur(random.normal(size=(2 * HEIGHT, 2 * WIDTH)), (0, 0), 3) for _ in range(2))
    frames = []
    for frame in film([face], n, aspect=aspect):
        shown = other if frame.index in hidden else tile
        x, y = grain(frame.index)
        shift = np.array([[1, 0, x / aspect - WIDTH], [0, 1, y - HEIGHT]])
        pattern = cv2.warpAffine(shown, shift, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
        image = frame.rgb()
        image[..., 1] = np.clip(128 + 60 * pattern / tile.std(), 0, 255)
        frames.append(replace(frame, native=av.VideoFrame.from_ndarray(image, format="rgb24")))
    return frames, Detector(channels=(0, 2))


@pytest.mark.parametrize("aspect", [1.0, 4 / 3])
@pytest.mark.parametrize("path", [still(), lambda k: (60 + 3.1 * k, 100 + 0.7 * k)], ids=["still", "pan"])
def test_where_flow_agrees_only_key_frames_are_detected(path: Path2D, aspect: float) -> None:
    face = Face(lambda k: (path(k)[0] / aspect, path(k)[1]))
    frames, detector = grained(face, path, aspect=aspect)
    track = find_tracks(frames, detector, params(), DetectionCounts())[0]
    assert (track.n_asked, track.n_found) == (9, 9)
    assert misses(track, face, aspect=aspect).max() < 0.5


def test_flow_that_leads_elsewhere_is_asked_about() -> None:
    """The grain turns back within each interval of key frames, the face does not."""
    frames, detector = grained(Face(still()), lambda k: (6 * abs((k - MIDDLE) % 8 - 4), 0.0))
    assert find_tracks(frames, detector, params(), DetectionCounts())[0].n_asked == 17


@pytest.mark.parametrize("hidden", [[26], [41, 42, 43]])
def test_what_passes_in_front_of_a_face_is_asked_about(hidden: list[int]) -> None:
    frames, detector = grained(Face(still()), still(), hidden)
    track = find_tracks(frames, detector, params(), DetectionCounts())[0]
    assert track.n_asked == 10
    assert track.source[26 if 26 in hidden else 42] == 0


def test_a_face_that_flow_takes_for_gone_is_missed() -> None:
    frames, detector = grained(Face(still(), seen=absent(range(40, 45))), still(), range(40, 45))
    track = find_tracks(frames, detector, params(), DetectionCounts())[0]
    assert np.nonzero(track.source == 2)[0].tolist() == list(range(40, 45))


@pytest.mark.parametrize(("amplitude", "period"), [(30, 60), (25, 45), (15, 30)])
def test_with_flow_the_bound_holds_at_fewer_detections(amplitude: float, period: float) -> None:
    face = Face(swing(amplitude, period))
    frames, detector = grained(face, swing(amplitude, period))
    track = find_tracks(frames, detector, params(), DetectionCounts())[0]
    assert 9 < track.n_asked < follow([face]).n_asked
    assert misses(track, face).max() < 2.2


def test_without_a_bound_flow_decides_nothing() -> None:
    frames, detector = grained(Face(swing(15, 30)), swing(15, 30))
    assert find_tracks(frames, detector, params(bound_px=0.0), DetectionCounts())[0].n_asked == N


# ---- gaps ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stride", [1, 8])
@pytest.mark.parametrize("gap", [range(38, 39), range(36, 41), range(20, 25), range(1, 6), range(54, 59)])
def test_short_gaps_are_bridged_and_flagged(stride: int, gap: range) -> None:
    face = Face(lambda k: (100 + k, 120.0), seen=absent(gap))
    track = follow([face], stride_frames=stride)
    flagged = set(np.nonzero(track.source == 2)[0].tolist())
    assert flagged <= set(gap)
    if stride == 1 or 38 in gap:  # a key frame
        assert flagged == set(gap)
    assert track.n_asked - track.n_found == len(flagged)
    assert misses(track, face).max() < 0.5


@pytest.mark.parametrize(("stride", "gap"), [(1, range(36, 42)), (8, range(36, 42)), (1, range(5, 17))])
def test_a_longer_gap_ends_the_track_where_the_face_is_back(stride: int, gap: range) -> None:
    fault = lost([Face(still(), seen=absent(gap))], stride_frames=stride)
    assert fault.fault.code is Code.E_TRACK_GAP
    assert fault.resume_at == gap.stop


@pytest.mark.parametrize("gap", [range(35, 52), range(3, 21)])
def test_a_gap_over_several_key_frames_ends_the_track_early(gap: range) -> None:
    detector = Detector()
    with pytest.raises(TrackLost) as caught:
        find_tracks(film([Face(still(), seen=absent(gap))]), detector, params(), DetectionCounts())
    assert caught.value.fault.code is Code.E_TRACK_GAP
    assert gap.stop <= caught.value.resume_at < gap.stop + 8
    assert sum(shape[0] for shape, dense in detector.shapes if dense) <= 12, "key frames alone decide"


def test_the_longest_gap_is_a_parameter() -> None:
    face = Face(still(), seen=absent(range(36, 46)))
    assert lost([face], max_gap_frames=9).fault.code is Code.E_TRACK_GAP
    assert follow([face], max_gap_frames=10, stride_frames=1).source.tolist().count(2) == 10


@pytest.mark.parametrize("stride", [1, 8])
def test_a_face_that_comes_late_resumes_where_it_comes(stride: int) -> None:
    fault = lost([Face(still(), seen=absent(range(13)))], stride_frames=stride)
    assert fault.fault.code is Code.E_TRACK_GAP
    assert 13 <= fault.resume_at < 13 + stride


def test_a_face_that_leaves_ends_the_run() -> None:
    fault = lost([Face(still(), seen=absent(range(50, N)))])
    assert fault.fault.code is Code.E_TRACK_GAP
    assert fault.resume_at >= 50


def test_a_face_after_the_middle_resumes_after_the_middle() -> None:
    fault = lost([Face(still(), seen=absent(range(45)))])
    assert fault.fault.code is Code.E_TRACK_GAP
    assert MIDDLE < fault.resume_at <= 45


def test_every_resumed_run_moves_on() -> None:
    """Whatever is lost, the next run begins later: no video can be tried for ever."""
    rng = np.random.default_rng(2)
    for _ in range(60):
        gone = {int(k) for k in rng.choice(N, rng.integers(1, N), replace=False)}
        resume_at = 1
        try:
            follow([Face(still(), seen=absent(gone))], stride_frames=int(rng.integers(1, 10)))
        except TrackLost as fault:
            resume_at = fault.resume_at
        assert 1 <= resume_at <= N


# ---- rates, jumps, sizes ---------------------------------------------------------------------------------------------
def test_detection_rate_counts_asked_frames_only() -> None:
    face = Face(still(), seen=absent([10, 25, 38, 50]))
    dense = follow([face], stride_frames=1)
    assert (dense.n_found, dense.n_asked) == (56, 60)
    sparse = follow([face])
    assert sparse.n_asked < 40
    assert sparse.n_asked - sparse.n_found == np.count_nonzero(sparse.source == 2)
    assert sparse.n_found == np.count_nonzero(sparse.source == 0)


def test_a_face_missed_on_every_second_frame_is_refused() -> None:
    face = Face(still(), seen=lambda k: k % 2 == 0 or k == N - 1)
    fault = lost([face], stride_frames=1)
    assert fault.fault.code is Code.E_LOW_DET_RATE
    assert 0 < fault.resume_at < N
    assert follow([face], stride_frames=1, min_det_rate=0.5).n_found == 31


@pytest.mark.parametrize("stride", [1, 8])
@pytest.mark.parametrize("at", [40, 41, 47])
def test_a_face_that_turns_into_its_neighbour_ends_the_track(stride: int, at: int) -> None:
    a = Face(still(130.0), seen=lambda k: k < at)
    b = Face(still(170.0), seen=lambda k: k >= at)
    fault = lost([a, b], stride_frames=stride)
    assert fault.fault.code is Code.E_TRACK_GAP
    assert fault.resume_at == at


def test_a_face_far_away_is_another_face() -> None:
    a = Face(still(60.0), seen=lambda k: k < 45)
    b = Face(still(260.0), seen=lambda k: k >= 45)
    fault = lost([a, b])
    assert fault.fault.code is Code.E_TRACK_GAP
    assert fault.resume_at >= 45


def test_of_two_faces_near_each_other_the_nearer_is_followed() -> None:
    a = Face(lambda k: (110 + 0.2 * k, 120.0))
    b = Face(still(215.0))
    track = follow([a, b])
    assert misses(track, a).max() < 1.0
    assert track.n_faces == 2


@pytest.mark.parametrize(("side", "code"), [(30.0, Code.E_FACE_TOO_SMALL), (34.0, None)])
def test_faces_below_the_declared_size(side: float, code: Code | None) -> None:
    face = Face(still(), side=lambda k: side)
    if code is None:
        assert follow([face]).n_asked == 17
    else:
        fault = lost([face])
        assert fault.fault.code is code
        assert fault.resume_at == N


def test_small_faces_on_other_frames_than_the_middle() -> None:
    face = Face(still(), side=lambda k: 25.0, seen=lambda k: k > 50)
    assert lost([face]).fault.code is Code.E_FACE_TOO_SMALL


def test_no_face() -> None:
    for faces in ([], [Face(still(), score=0.7)]):
        counts = DetectionCounts()
        with pytest.raises(TrackLost) as caught:
            follow(faces, counts=counts)
        assert caught.value.fault.code is Code.E_NO_FACE
        assert caught.value.resume_at == N
        assert counts.asked == {0, MIDDLE, N - 1}
        assert not counts.with_face


# ---- policies --------------------------------------------------------------------------------------------------------
BIG = Face(still(70.0, 70.0), side=lambda k: 80.0)
MEDIUM = Face(still(250.0, 70.0), side=lambda k: 60.0)
SMALL = Face(still(160.0, 190.0), side=lambda k: 40.0)


def tracks(faces: Sequence[Face], policy: str) -> list[Track]:
    return find_tracks(film(faces), Detector(), params(faces=policy), DetectionCounts())


def test_policy_largest() -> None:
    found = tracks([SMALL, BIG, MEDIUM], "largest")
    assert len(found) == 1
    assert misses(found[0], BIG).max() < 0.3
    assert found[0].n_faces == 3


def test_policy_largest_takes_the_next_when_the_largest_leaves() -> None:
    found = tracks([replace(BIG, seen=lambda k: k < 50), MEDIUM, SMALL], "largest")
    assert len(found) == 1
    assert misses(found[0], MEDIUM).max() < 0.3


def test_policy_all() -> None:
    found = tracks([SMALL, BIG, MEDIUM], "all")
    for track, face in zip(found, (BIG, MEDIUM, SMALL), strict=True):
        assert misses(track, face).max() < 0.3
        assert track.n_faces == 3


def test_policy_all_leaves_out_who_is_lost() -> None:
    found = tracks([SMALL, BIG, replace(MEDIUM, seen=lambda k: k < 50)], "all")
    for track, face in zip(found, (BIG, SMALL), strict=True):
        assert misses(track, face).max() < 0.3


def test_policy_single() -> None:
    assert len(tracks([MEDIUM], "single")) == 1
    with pytest.raises(TrackLost) as caught:
        tracks([MEDIUM, SMALL], "single")
    assert caught.value.fault.code is Code.E_MULTI_FACE_AMBIGUOUS


def test_a_second_face_on_an_end_of_the_run_is_counted() -> None:
    late = replace(SMALL, seen=lambda k: k > 50)
    assert tracks([BIG, late], "largest")[0].n_faces == 2
    with pytest.raises(TrackLost):
        tracks([BIG, late], "single")


# ---- what the detector is asked, and that nothing else matters -------------------------------------------------------
def test_tally_holds_true_indices() -> None:
    counts = DetectionCounts()
    frames = film([Face(still(), seen=absent([38]))], first_index=1000)
    track = find_tracks(frames, Detector(), params(), counts)[0]
    asked = {1000 + int(k) for k in np.nonzero(track.source != 1)[0]}
    assert counts.asked == asked
    assert counts.with_face == asked - {1038}


def test_images_have_few_shapes() -> None:
    detector = Detector()
    find_tracks(film([Face(swing(20, 20))]), detector, params(), DetectionCounts())
    shapes = {(shape[1:], dense) for shape, dense in detector.shapes}
    assert shapes == {((320, 320, 3), True), ((384, 640, 3), False)}


@pytest.mark.parametrize("split", ["one by one", "backwards"])
def test_the_result_does_not_depend_on_batches(split: str) -> None:
    faces = [replace(BIG, centre=swing(25, 18), seen=absent([20, 21])), SMALL]
    detector = Detector()

    def ask(images: Image, *, dense: bool) -> list[Faces]:
        order = range(len(images)) if split == "one by one" else range(len(images) - 1, -1, -1)
        answers = {k: detector(images[k : k + 1], dense=dense)[0] for k in order}
        return [answers[k] for k in range(len(images))]

    whole = find_tracks(film(faces), Detector(), params(), DetectionCounts())[0]
    parts = find_tracks(film(faces), ask, params(), DetectionCounts())[0]
    assert_equal(whole, parts)


def test_the_result_is_the_same_every_time() -> None:
    shake = np.random.default_rng(3).uniform(-4, 4, (N, 2))
    face = Face(lambda k: (160 + shake[k, 0], 120 + shake[k, 1]), seen=absent(range(17, 20)))
    assert_equal(follow([face]), follow([face]))


def assert_equal(a: Track, b: Track) -> None:
    for name in ("boxes", "points", "source", "scores"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert (a.n_asked, a.n_found, a.n_faces) == (b.n_asked, b.n_found, b.n_faces)


# ---- 68 points -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("smooth_frames", [1, 7])
@pytest.mark.parametrize("face", [Face(swing(12, 30)), Face(swing(12, 30), seen=absent(range(20, 23)))])
def test_68_points_are_followed_as_the_five_are(face: Face, smooth_frames: int) -> None:
    """Detected, interpolated, bridged or smoothed: on every frame the five are what the 68 reduce to."""
    track = find_tracks(film([face]), DenseDetector(), params(smooth_frames=smooth_frames), DetectionCounts())[0]
    assert set(track.source.tolist()) >= {0, 1}
    assert track.points68 is not None
    assert track.points68.shape == (N, 68, 2)
    assert np.abs(five_points(track.points68) - track.points).max() <= 1 / 16
    if smooth_frames == 1:
        truth = np.stack([face.centre(k) + (SHAPE_68 - 0.5) * face.side(k) for k in range(N)])
        found = track.source == 0
        assert np.abs(track.points68 - truth)[found].max() < 0.5


def test_68_points_change_nothing_else() -> None:
    run = film([Face(swing(12, 30))])
    five, dense = (find_tracks(run, ask, params(), DetectionCounts())[0] for ask in (Detector(), DenseDetector()))
    assert five.points68 is None
    assert dense.points68 is not None
    assert np.array_equal(five.boxes, dense.boxes)
    assert np.array_equal(five.source, dense.source)


def test_where_one_detection_has_five_points_alone_there_are_no_68() -> None:
    asked: list[int] = []

    def blind(faces: Faces) -> bool:
        asked.append(len(faces))
        return len(asked) == 5

    track = find_tracks(film([Face(still())]), DenseDetector(blind=blind), params(), DetectionCounts())[0]
    assert len(asked) > 5
    assert track.points68 is None


def test_in_pixels_that_are_not_square_68_points_agree_too() -> None:
    track = find_tracks(film([Face(swing(9, 40))], aspect=4 / 3), DenseDetector(), params(), DetectionCounts())[0]
    assert track.points68 is not None
    assert np.abs(five_points(track.points68) - track.points).max() <= 1 / 16
