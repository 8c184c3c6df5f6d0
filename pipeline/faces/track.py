"""Follow one face through a run of frames, asking the detector as rarely as a bound on the error allows.

Key frames every `stride_frames` are detected. The middle of each interval is checked: optical flow from both ends may
say that interpolated landmarks lie where they should. If it does not, the middle is detected, and an interval whose
interpolated landmarks miss the detected ones by more than `bound_px` is split again. A frame is therefore either
detected or lies between two detections whose middle was checked. With a stride of 1 every frame is detected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Floats
from lps.manifests.codes import Code, Stage
from lps.manifests.errors import VideoFault
from lps.pipeline.config.params import Params
from lps.pipeline.faces.align import output_scale, similarity, template
from lps.pipeline.faces.detector import Faces
from lps.pipeline.faces.flow import Crop, miss_of_flow
from lps.pipeline.video.frame import Frame


class DetectFaces(Protocol):
    """The localizer, wherever it runs; see `Localizer.detect`."""

    def __call__(self, images: NDArray[np.uint8], *, dense: bool) -> list[Faces]:
        """Find the faces of (B, H, W, 3) RGB images."""
        ...


NEAR = 0.8
"""A face is the one looked for if its centre is within this many box sides of the expected place ..."""
SIZE_RATIO = 1.8
"""... and its size within this factor of the expected one."""
HALVING = 0.8
"""Crops of at least this many times twice the wanted side are halved first, so that bilinear sampling skips nothing."""
FLOW_SHARE = 0.5
"""Optical flow must arrive within this share of the bound: it does not know all that a detector knows."""
CELL = 32
"""Crops are placed on a grid of this many of their own px."""
MIN_IOU = 0.3
"""Two detections on neighbouring frames that overlap less are two people."""


class TrackLost(Exception):
    """No clip from this run. `resume_at` is the first offset from which another run may succeed."""

    def __init__(self, code: Code, stage: Stage, resume_at: int, detail: str = "") -> None:
        super().__init__(code)
        self.fault = VideoFault(code, stage, detail)
        self.resume_at = resume_at


@dataclass(frozen=True, slots=True)
class Sighting:
    """One detected face, source px."""

    box: Floats
    points: Floats
    score: float
    points68: Floats | None = None
    """(68, 2); None where the detector gave five points alone."""

    @property
    def centre(self) -> Floats:
        """Middle of the box, (2,)."""
        return (self.box[:2] + self.box[2:]) / 2

    @property
    def side(self) -> float:
        """Longer side of the box."""
        return float((self.box[2:] - self.box[:2]).max())


@dataclass(frozen=True, slots=True)
class Track:
    """One face over a whole run of n frames."""

    boxes: Floats
    """(n, 4) source px."""
    points: Floats
    """(n, 5, 2) source px, smoothed."""
    source: NDArray[np.uint8]
    """(n,) 0 detected, 1 bounded by detections, 2 asked for and missed."""
    scores: Floats
    """(n,) detector score, interpolated as the boxes are."""
    n_asked: int
    n_found: int
    n_faces: int
    """Most faces of usable size seen in one frame of the run."""
    points68: Floats | None = None
    """(n, 68, 2) source px, treated as `points` are; None unless every detection has them."""


@dataclass(slots=True)
class Sightings:
    """What is known so far about one face: a sighting, or None where the detector missed it."""

    by_frame: dict[int, Sighting | None] = field(default_factory=dict)

    def found(self) -> list[int]:
        """Frames where the face was seen, in order."""
        return sorted(i for i, s in self.by_frame.items() if s is not None)

    def expect(self, frame: int) -> tuple[Floats, float]:
        """Return the expected centre and side at `frame`: between two sightings, or carried on from the last two."""
        known = self.found()
        right = next((k for k, i in enumerate(known) if i > frame), len(known))
        pair = known[max(0, min(right, len(known) - 1) - 1) :][:2]
        a = self.by_frame[pair[0]]
        b = self.by_frame[pair[-1]]
        assert a is not None  # mypy
        assert b is not None
        if len(pair) == 1:
            return a.centre, a.side
        t = (frame - pair[0]) / (pair[1] - pair[0])
        t = min(max(t, -0.5), 1.5)  # a face does not keep its speed for long
        return a.centre + t * (b.centre - a.centre), a.side + min(max(t, 0.0), 1.0) * (b.side - a.side)


@dataclass(slots=True)
class DetectionCounts:
    """Frames of one video that the detector was asked about, and those of them with a face of usable score."""

    asked: set[int] = field(default_factory=set)
    with_face: set[int] = field(default_factory=set)


def find_tracks(frames: Sequence[Frame], detect: DetectFaces, params: Params, counts: DetectionCounts) -> list[Track]:
    """Follow the faces of `frames`, a run without breaks, that the face policy chooses.

    Returns at least one track, the largest face first, and adds to `counts`. Raises TrackLost.
    """
    run = FrameRun(frames, detect, params, counts)
    middle = len(frames) // 2
    faces = run.anchors(middle)
    tracks: list[Track] = []
    first: tuple[VideoFault, int] | None = None
    for face in faces if params.localize.faces == "all" else faces[:2]:
        try:
            tracks.append(run.follow(face, middle))
        except TrackLost as lost:
            first = first or (lost.fault, lost.resume_at)  # not `lost`: its traceback would keep the frames alive
        if tracks and params.localize.faces != "all":
            break
    if tracks:
        return tracks
    assert first is not None  # anchors() never returns an empty list
    fault, resume_at = first
    raise TrackLost(fault.code, fault.stage, resume_at, fault.detail)


class FrameRun:
    """One run of frames, the images cut from it and the counts of what was asked."""

    def __init__(self, frames: Sequence[Frame], detect: DetectFaces, params: Params, counts: DetectionCounts) -> None:
        self.counts = counts
        self.frames = frames
        self.detect = detect
        self.params = params
        self.local = params.localize
        self.n_faces = 0
        self.face_side = 1.0
        """Longer side of the box of the face that is followed, as it was first seen."""
        self.crops: dict[int, Crop] = {}
        """Around the face that is followed, by frame: the last one that was cut from it."""

    def anchors(self, middle: int) -> list[Sighting]:
        """Return the usable faces of the middle frame, largest first."""
        last = len(self.frames) - 1
        seen = dict(zip((0, middle, last), self._detect_in_frames((0, middle, last)), strict=True))
        usable = {i: [s for s in faces if self._height(s) >= self.local.min_face_px] for i, faces in seen.items()}
        self.n_faces = max(len(faces) for faces in usable.values())
        if not usable[middle]:
            if seen[middle] or (any(seen.values()) and self.n_faces == 0):
                code, stage = Code.E_FACE_TOO_SMALL, Stage.DETECT
            elif self.n_faces:
                code, stage = Code.E_TRACK_GAP, Stage.TRACK
            else:
                code, stage = Code.E_NO_FACE, Stage.DETECT
            where = f"in the frames {self.frames[0].index}, {self.frames[middle].index} and {self.frames[last].index}"
            raise TrackLost(code, stage, middle + 1 if usable[last] else len(self.frames), where)
        if self.local.faces == "single" and self.n_faces > 1:
            raise TrackLost(Code.E_MULTI_FACE_AMBIGUOUS, Stage.TRACK, len(self.frames), f"{self.n_faces} faces")
        return sorted(usable[middle], key=lambda s: (-self._area(s), *s.box))

    def follow(self, face: Sighting, middle: int) -> Track:
        """Follow one face of the middle frame to both ends. Raises TrackLost."""
        known = Sightings({middle: face})
        self.face_side = max(face.side, 1.0)
        self.crops = {}
        known.by_frame[middle] = self._redetect(known, [middle])[0] or face
        stride, last = self.local.stride_frames, len(self.frames) - 1
        left = list(range(middle, 0, -stride))[1:] + [0]
        right = list(range(middle, last, stride))[1:] + [last]
        for step in range(max(len(left), len(right))):
            wanted = [keys[step] for keys in (left, right) if step < len(keys)]
            wanted = [i for i in wanted if i not in known.by_frame]
            known.by_frame.update(zip(wanted, self._redetect(known, wanted), strict=True))
        self._check_keys(known)
        self._bisect(known)
        self._check(known)
        return self._track(known)

    def look_for(self, expected: Mapping[int, Sighting]) -> dict[int, float]:
        """Look for a face where it is `expected`, by frame of the run, in crops of one size.

        Returns the mean distance of the five points from those expected, output px, for each frame that shows a face.
        """
        frames = sorted(expected)
        self.face_side, self.crops = max(expected[frames[len(frames) // 2]].side, 1.0), {}
        places = [(expected[i].centre, expected[i].side) for i in frames]
        found = zip(frames, self._detect_in_crops(frames, places), strict=True)
        return {i: self._output_px(s.points - expected[i].points, expected[i].points, i) for i, s in found if s}

    def _bisect(self, known: Sightings) -> None:
        """Detect middles until every interval is short or its middle is where interpolation says."""
        keys = sorted(known.by_frame)
        open_intervals = [(a, b) for a, b in zip(keys, keys[1:], strict=False) if b - a > 1]
        while open_intervals := [(a, b) for a, b in open_intervals if not self._flow_agrees(known, a, b)]:
            middles = [(a + b) // 2 for a, b in open_intervals]
            found = self._redetect(known, middles)
            splits: list[tuple[int, int]] = []
            for (a, b), m, sighting in zip(open_intervals, middles, found, strict=True):
                if self._misses(known.by_frame[a], sighting, known.by_frame[b], (m - a) / (b - a), m):
                    splits += [(a, m), (m, b)]
            known.by_frame.update(zip(middles, found, strict=True))
            open_intervals = [(a, b) for a, b in splits if b - a > 1]

    def _misses(self, a: Sighting | None, m: Sighting | None, b: Sighting | None, t: float, frame: int) -> bool:
        if a is None or m is None or b is None:
            return True  # the edges of a gap are found frame by frame
        return self._output_px((1 - t) * a.points + t * b.points - m.points, m.points, frame) > self.local.bound_px

    def _flow_agrees(self, known: Sightings, a: int, b: int) -> bool:
        """Return whether the pictures show the middle's landmarks where interpolation between frames a and b puts them.

        They are followed from both ends: on average they must arrive near enough, and not further apart than twice the
        bound, as they do where a face turns or something passes in front of it.
        """
        first, last, m = known.by_frame[a], known.by_frame[b], (a + b) // 2
        if first is None or last is None:
            return False
        t = (m - a) / (b - a)
        expected = (1 - t) * first.points + t * last.points
        crop = self._crop(m, *known.expect(m))
        forward = miss_of_flow(self.crops[a], first.points, crop, expected)
        backward = miss_of_flow(self.crops[b], last.points, crop, expected)
        if forward is None or backward is None:
            return False
        bound_px = self.local.bound_px
        near = self._output_px((forward + backward) / 2, expected, m) <= FLOW_SHARE * bound_px
        return near and self._output_px(forward - backward, expected, m) <= 2 * bound_px

    def _output_px(self, distances: Floats, points: Floats, frame: int) -> float:
        """Return the mean length of `distances`, (5, 2) source px, in output px, with a face of the five `points`."""
        aspect = np.array(self.frames[frame].aspect_xy)
        try:
            scale = output_scale(similarity(points * aspect, template(self.params.out_px, self.params.template_scale)))
        except VideoFault:
            return float("inf")
        return float(np.hypot(*(distances * aspect).T).mean()) * scale

    def _check_keys(self, known: Sightings) -> None:
        """Raise TrackLost early where whole stretches of key frames have no face: to bisect those would be in vain."""
        found = known.found()
        ends = [-1, *found, len(self.frames)]
        for a, b in zip(ends, ends[1:], strict=False):
            missed = [i for i in range(a + 1, b) if i in known.by_frame]
            at_edge = a == -1 or b == len(self.frames)
            if missed and missed[-1] - missed[0] + 1 > (0 if at_edge else self.local.max_gap_frames):
                raise TrackLost(Code.E_TRACK_GAP, Stage.TRACK, max(1, b), f"face missing for about {b - a - 1} frames")

    def _check(self, known: Sightings) -> None:
        """Raise TrackLost where the face is gone for too long, is missed too often, or turns into another."""
        found = known.found()
        ends = [-1, *found, len(self.frames)]
        for a, b in zip(ends, ends[1:], strict=False):
            missed = sum(1 for i in range(a + 1, b) if i in known.by_frame)
            at_edge = a == -1 or b == len(self.frames)
            if missed > (0 if at_edge else self.local.max_gap_frames):
                raise TrackLost(Code.E_TRACK_GAP, Stage.TRACK, max(1, b), f"face missing for {b - a - 1} frames")
            before, after = known.by_frame.get(a), known.by_frame.get(b)
            if b - a == 1 and before and after and box_iou(before.box, after.box) < MIN_IOU:
                raise TrackLost(Code.E_TRACK_GAP, Stage.TRACK, b, "the face jumps")
        if len(found) < self.local.min_det_rate * len(known.by_frame):
            detail = f"found on {len(found)} of {len(known.by_frame)} frames asked"
            raise TrackLost(Code.E_LOW_DET_RATE, Stage.DETECT, len(self.frames) // 2, detail)

    def _track(self, known: Sightings) -> Track:
        n, found = len(self.frames), known.found()
        sightings = [s for i in found if (s := known.by_frame[i]) is not None]
        at = np.arange(n)

        def between(values: Floats) -> Floats:
            flat = values.reshape(len(found), -1)
            columns = [np.interp(at, found, column) for column in flat.T]
            return np.stack(columns, 1).reshape(n, *values.shape[1:])

        dense = [s.points68 for s in sightings if s.points68 is not None]
        source = np.ones(n, np.uint8)
        source[found] = 0
        source[[i for i, s in known.by_frame.items() if s is None]] = 2
        return Track(
            boxes=between(np.stack([s.box for s in sightings])),
            points=self._smooth(between(np.stack([s.points for s in sightings]))),
            source=source,
            scores=between(np.array([[s.score] for s in sightings]))[:, 0],
            n_asked=len(known.by_frame),
            n_found=len(found),
            n_faces=self.n_faces,
            points68=self._smooth(between(np.stack(dense))) if len(dense) == len(found) else None,
        )

    def _smooth(self, points: Floats) -> Floats:
        """Smooth (n, k, 2) points over the frames."""
        from scipy.signal import savgol_filter

        n = len(points)
        window = min(self.local.smooth_frames, n if n % 2 else n - 1)
        if window <= 2:
            return points
        return np.asarray(savgol_filter(points, window, polyorder=2, axis=0, mode="interp"), np.float64)

    def _detect_in_frames(self, indices: Sequence[int]) -> list[list[Sighting]]:
        """Search whole frames."""
        smalls = [self.frames[i].small(self.local.detect_side_px) for i in indices]
        height, width = smalls[0].shape[:2]
        canvas = np.zeros((len(smalls), *_padded(width, height, self.local.detect_side_px), 3), np.uint8)
        for image, small in zip(canvas, smalls, strict=True):
            image[:height, :width] = small
        result = []
        for i, faces in zip(indices, self.detect(canvas, dense=False), strict=True):
            to_source = np.array(self.frames[i].size) / (width, height)
            # pixel centres: u in the small frame is (u + 0.5) * scale - 0.5 in the source
            result.append(self._sightings(i, faces, to_source, 0.5 * to_source - 0.5))
        return result

    def _redetect(self, known: Sightings, indices: Sequence[int]) -> list[Sighting | None]:
        """Find the known face again on each frame: in a crop around its expected place, else in the whole frame."""
        if not indices:
            return []
        places = [known.expect(i) for i in indices]
        result = self._detect_in_crops(indices, places)
        missing = [k for k, sighting in enumerate(result) if sighting is None]
        if missing:
            wholes = self._detect_in_frames([indices[k] for k in missing])
            again = []
            for k, faces in zip(missing, wholes, strict=True):
                centre, side = places[k]
                near = [s for s in faces if self._matches(s, centre, side, reach=2 * NEAR)]
                if near:
                    best = min(near, key=lambda s: float(np.hypot(*(s.centre - centre))))
                    again.append((k, (best.centre, best.side)))
            for (k, _), sighting in zip(
                again, self._detect_in_crops([indices[k] for k, _ in again], [p for _, p in again]), strict=True
            ):
                result[k] = sighting
        return result

    def _detect_in_crops(self, indices: Sequence[int], places: Sequence[tuple[Floats, float]]) -> list[Sighting | None]:
        if not indices:
            return []
        crops = [self._crop(i, centre, side) for i, (centre, side) in zip(indices, places, strict=True)]
        result: list[Sighting | None] = []
        answers = self.detect(np.stack([crop.rgb for crop in crops]), dense=True)
        for i, faces, crop, (centre, side) in zip(indices, answers, crops, places, strict=True):
            seen = self._sightings(i, faces, crop.scale, crop.origin)
            near = [s for s in seen if self._matches(s, centre, side, reach=NEAR)]
            result.append(min(near, key=lambda s: float(np.hypot(*(s.centre - centre))), default=None))
        return result

    def _crop(self, i: int, centre: Floats, side: float) -> Crop:
        """Return the crop of frame `i` around a face; the last one of each frame is kept."""
        crop = _crop(self.frames[i], centre, self._span(side), self.local.crop_px, self.crops.get(i))
        self.crops[i] = crop
        return crop

    def _span(self, side: float) -> float:
        """Return the side of the crop for a face of `side`: that of the run's first face, times a power of two.

        One size as long as the face does not grow or shrink by a lot, because landmarks shift with the scale at which
        the network sees them.
        """
        steps = round(float(np.log2(max(side, 1.0) / self.face_side)))
        return self.face_side * 2.0**steps * self.local.crop_margin

    def _sightings(self, i: int, faces: Faces, scale: Floats, origin: Floats) -> list[Sighting]:
        keep = [k for k in range(len(faces)) if faces.scores[k] >= self.local.min_score]
        self.counts.asked.add(self.frames[i].index)
        if keep:
            self.counts.with_face.add(self.frames[i].index)
        tile = np.tile(scale, 2)
        shift = np.tile(origin, 2)

        def dense(k: int) -> Floats | None:
            own = None if faces.points68 is None else faces.points68[k]
            return None if own is None or not np.isfinite(own).all() else own * scale + origin

        return [
            Sighting(
                faces.boxes_xyxy[k] * tile + shift, faces.points[k] * scale + origin, float(faces.scores[k]), dense(k)
            )
            for k in keep
        ]

    @staticmethod
    def _matches(s: Sighting, centre: Floats, side: float, *, reach: float) -> bool:
        near = float(np.hypot(*(s.centre - centre))) <= reach * side
        return near and 1 / SIZE_RATIO <= s.side / side <= SIZE_RATIO

    @staticmethod
    def _height(s: Sighting) -> float:
        return float(s.box[3] - s.box[1])

    @staticmethod
    def _area(s: Sighting) -> float:
        return float(np.prod(s.box[2:] - s.box[:2]))


def box_iou(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> float:
    """Return the overlap of two boxes (x0, y0, x1, y1) over their union, 0 to 1."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - shared
    return float(shared / union) if union > 0 else 0.0


def _padded(width: int, height: int, longest_px: int) -> tuple[int, int]:
    """Return the (height, width) of the canvas: few shapes in all, so that frames of many videos share a batch."""
    sides = [s for s in (longest_px * 3 // 5, longest_px * 4 // 5, longest_px)]
    grid = [-(-s // 32) * 32 for s in sides]
    longest = grid[-1]
    short = next(s for s in grid if s >= min(width, height))
    return (short, longest) if width >= height else (longest, short)


def _crop(frame: Frame, centre: Floats, side: float, px: int, made: Crop | None = None) -> Crop:
    """Return a square-pixel crop (px, px, 3) of about `side` source px: `made` if that is the one.

    The crop sits on a grid of CELL crop px, a multiple of the detectors' strides: crops of one size that differ in
    place show the network the same picture, shifted by whole cells, and so give the same landmarks. What a frame's
    landmarks are does then not depend on how its place was predicted.
    """
    aspect = np.array(frame.aspect_xy)
    spans = np.maximum(np.round(side / aspect * aspect.max() / 16), 1).astype(int) * 16  # source px in x and in y
    scale = spans / px
    cell = CELL * scale
    low = np.round(np.round((centre - spans / 2) / cell) * cell).astype(int)
    origin = low + 0.5 * scale - 0.5  # pixel centres: u in the crop is (u + 0.5) * scale - 0.5 in the source
    if made is not None and made.shows(scale, origin):
        return made
    high = low + spans
    width, height = frame.size
    x0, y0, x1, y1 = max(low[0], 0), max(low[1], 0), min(high[0], width), min(high[1], height)
    crop = np.zeros((spans[1], spans[0], 3), np.uint8)
    if x1 > x0 and y1 > y0:
        crop[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]] = frame.region(x0, y0, x1, y1)
    while spans.max() >= 2 * px * HALVING:  # exact halves are averaged fast; the rest is bilinear
        crop = np.asarray(cv2.resize(crop, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
        spans = spans // 2
    image = cv2.resize(crop, (px, px), interpolation=cv2.INTER_LINEAR)
    return Crop(np.asarray(image, np.uint8), scale, origin)
