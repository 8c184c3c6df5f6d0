"""One video while it is processed: decoding, following faces, cutting clips, and what became of it."""

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, islice
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from lps.manifests.arrays import Floats, Square
from lps.manifests.codes import Code, Stage, Status
from lps.manifests.errors import UnreadableError, VideoFault
from lps.manifests.records import Clip, OriginalWindows, Outcome, SharedWindow, VideoResult
from lps.pipeline.clips.encode import clip_quality, encode_image, frames_digest, perceptual_hash
from lps.pipeline.clips.pairs import shared_window
from lps.pipeline.clips.places import hash_places, start_frames, start_seed
from lps.pipeline.config.params import ALL_CLIPS, Params
from lps.pipeline.faces.align import align_matrix, crop_matrix, outside_share, template, warp_frame
from lps.pipeline.faces.link import with_faces
from lps.pipeline.faces.track import DetectFaces, DetectionCounts, Track, TrackLost, find_tracks
from lps.pipeline.video.container import VideoFile
from lps.pipeline.video.decode import DecodeStats
from lps.pipeline.video.frame import Frame
from lps.pipeline.video.images import decode_source, decode_source_windows
from lps.pipeline.video.window import Cursor

FAULT_ORDER = (
    Code.E_NO_FACE,
    Code.E_FACE_TOO_SMALL,
    Code.E_MULTI_FACE_AMBIGUOUS,
    Code.E_TRACK_GAP,
    Code.E_LOW_DET_RATE,
    Code.E_LANDMARK,
    Code.E_ALIGN,
    Code.E_OUT_OF_FRAME,
)
"""Where there are several faults, the one that came furthest names the video."""


SPOOL_BYTES = 64 << 20
"""Images of one video that stay in memory where the others go to the disk."""


@dataclass(slots=True)
class VideoWork:
    """State of one video while it is processed."""

    path: Path
    video_id: bytes
    detect: DetectFaces
    params: Params
    file: VideoFile
    spool: str | None = None
    cursor: Cursor | None = None
    """Moved over the frames that no clip needs; None where all are decoded."""
    stats: DecodeStats = field(default_factory=DecodeStats)
    counts: DetectionCounts = field(default_factory=DetectionCounts)
    clips: list[Clip] = field(default_factory=list)
    hashes: list[tuple[bytes, int]] = field(default_factory=list)
    faults: list[VideoFault] = field(default_factory=list)
    fatal: VideoFault | None = None
    run_length: int = 0
    longest_run: int = 0
    n_on_disk: int = 0
    """How many of the clips have their images on the disk."""
    passed_over: list[list[int]] = field(default_factory=list)
    """First frame, and frame after the last, of each stretch that the first pass had no use for."""
    windows: list[SharedWindow] | None = None
    """What fakes of this video need; None where nobody asked."""
    n_windows_on_disk: int = 0
    """How many of these have their pictures on the disk ..."""
    n_picture_bytes: int = 0
    """... and what the pictures of the others take."""

    def result(self) -> VideoResult:
        """Make the clips and return them with what became of the video. Raises WindowError with a cursor."""
        try:
            self._run()
        except VideoFault as fault:
            self.fatal = fault.with_traceback(None)  # which would keep frames alive
        outcome, windows = self._outcome(), None
        if self.windows is not None:
            in_order = sorted(self.windows, key=lambda window: window.clips[0].frame_idx[0])
            n_frames = self.file.scan.n_frames or self.stats.n_frames
            windows = OriginalWindows(header=outcome.header, n_frames=n_frames, windows=tuple(in_order))
        return VideoResult(video_id=self.video_id, outcome=outcome, clips=with_faces(self.clips), windows=windows)

    def _run(self) -> None:
        if self.file.fault is not None:
            raise self.file.fault
        starts = start_frames(self.video_id, self.file.scan.n_frames, self.params)
        owed = self._first_pass(starts, self._hash_places())
        if self.cursor is None:  # fewer frames may decode than the container promised
            owed += sum(start >= self.stats.n_frames for start in starts)
        if owed > 0 and self.passed_over:
            self._second_pass(owed)

    def _hash_places(self) -> frozenset[int]:
        header = self.file.header
        rate = header.fps_num / header.fps_den if header.fps_num and header.fps_den else None
        return hash_places(self.file.scan.n_frames, rate)

    def _first_pass(self, starts: frozenset[int], hash_at: frozenset[int]) -> int:
        """Make the clips that begin at `starts` or after. Return how many are still owed at the end of the video."""
        params = self.params
        everything = params.clips == ALL_CLIPS
        targets = sorted(starts | hash_at)
        owed = 0
        run: list[Frame] = []
        self._leap(0, targets)
        for frame in self._frames(self.stats):
            self._note(frame, hash_at)
            owed += frame.index in starts
            wanted = owed > 0 or everything
            if not wanted:
                self._pass_over(frame.index, frame.index + 1)
            run = self._extend(run, frame, wanted=wanted)
            if len(run) == params.clip_frames:
                made, run = self._make_clips(run)
                owed -= made
            if owed == 0:
                self._leap(frame.index + 1, targets)
        return owed

    def _leap(self, index: int, targets: Sequence[int]) -> None:
        """Want no frame from `index` to the next target, or to the end, if frames may be left out."""
        if self.cursor is not None:
            end = self.file.scan.n_frames
            self.cursor.frame = min(next((target for target in targets if target >= index), end), end)
            self._pass_over(index, self.cursor.frame)

    def _pass_over(self, first: int, end: int) -> None:
        if self.passed_over and self.passed_over[-1][1] == first:
            self.passed_over[-1][1] = end
        elif end > first:
            self.passed_over.append([first, end])

    def _second_pass(self, owed: int) -> None:
        """Look for the clips still owed in every run that begins at a frame the first pass went over."""
        reach = self.params.clip_frames - 1
        run: list[Frame] = []
        firsts = [first for first, _ in self.passed_over]
        if self.cursor is not None:
            self.cursor.frame = firsts[0]
        for frame in self._frames(DecodeStats()):
            if owed == 0 or frame.index >= self.passed_over[-1][1] + reach:
                return
            self._count(frame)
            taken = any(clip.frame_idx[0] <= frame.index <= clip.frame_idx[-1] for clip in self.clips)
            wanted = not taken and any(first <= frame.index < end + reach for first, end in self.passed_over)
            run = self._extend(run, frame, wanted=wanted)
            if len(run) == self.params.clip_frames:
                made, run = self._make_clips(run)
                owed -= made

    def _note(self, frame: Frame, hash_at: frozenset[int]) -> None:
        if frame.index in hash_at:
            self.hashes.append(perceptual_hash(frame.small(self.params.localize.detect_side_px)))
        self._count(frame)

    def _count(self, frame: Frame) -> None:
        self.run_length = 1 if frame.breaks else self.run_length + 1
        self.longest_run = max(self.longest_run, self.run_length)

    def _frames(self, stats: DecodeStats) -> Iterator[Frame]:
        if self.cursor is None:
            return decode_source(self.path, self.params, stats, self.file.scan)
        return decode_source_windows(self.path, self.params, stats, self.file.scan, self.cursor)

    @staticmethod
    def _extend(run: list[Frame], frame: Frame, *, wanted: bool) -> list[Frame]:
        """Return the run with `frame` added; a frame that breaks starts a new one."""
        if not wanted:
            return []
        return [frame] if frame.breaks else [*run, frame]

    def _make_clips(self, run: list[Frame]) -> tuple[bool, list[Frame]]:
        """Make the clips of a full run. Return whether it gave any, and the frames that the next run begins with."""
        try:
            tracks = find_tracks(run, self.detect, self.params, self.counts)
        except TrackLost as lost:
            self.faults.append(lost.fault)
            return False, run[lost.resume_at :]
        clips: list[Clip] = []
        resume_at = len(run)
        for number, track in enumerate(tracks):
            try:
                clips.append(self._clip(run, track, number))
            except TrackLost as lost:
                self.faults.append(lost.fault)
                resume_at = min(resume_at, lost.resume_at)
            except VideoFault as fault:
                self.faults.append(fault.with_traceback(None))  # which would keep the run's frames alive
        self._keep(clips)
        if clips and self.windows is not None:
            self._keep_window(shared_window(run, clips))
        return bool(clips), [] if clips else run[resume_at:]

    def _keep(self, clips: Sequence[Clip]) -> None:
        self.clips += clips
        if self.spool is not None:
            self._move_to_disk(self.spool)

    def _move_to_disk(self, folder: str) -> None:
        in_memory = self.clips[self.n_on_disk :]
        if sum(len(image) for clip in in_memory for image in clip.frames) >= SPOOL_BYTES:
            self.clips[self.n_on_disk :] = on_disk(in_memory, folder)
            self.n_on_disk = len(self.clips)

    def _keep_window(self, window: SharedWindow) -> None:
        assert self.windows is not None  # mypy
        self.windows.append(window)
        self.n_picture_bytes += sum(map(len, window.pictures))
        if self.spool is not None and self.n_picture_bytes >= SPOOL_BYTES:
            self.windows[self.n_windows_on_disk :] = windows_on_disk(self.windows[self.n_windows_on_disk :], self.spool)
            self.n_windows_on_disk, self.n_picture_bytes = len(self.windows), 0

    def _matrices(self, run: Sequence[Frame], track: Track) -> tuple[list[NDArray[np.float32]], float]:
        """Return the matrix of each frame, and the largest share of a face that lies outside its frame.

        Raises TrackLost where that is too large: what is reflected at the border is no face.
        """
        params = self.params
        target = template(params.out_px, params.template_scale)
        matrices, shares = [], []
        for frame, points, box in zip(run, track.points, track.boxes, strict=True):
            if params.align:
                matrix = align_matrix(points, frame.aspect_xy, target)
            else:
                matrix = crop_matrix(box, frame.aspect_xy, params.out_px)
            matrices.append(matrix)
            shares.append(outside_share(frame.size, matrix, params.out_px))
        beyond = [i for i, share in enumerate(shares) if share > params.max_outside_share]
        if beyond:
            detail = f"{max(shares):.0%} of the face is outside the picture, in {len(beyond)} of {len(run)} frames"
            raise TrackLost(Code.E_OUT_OF_FRAME, Stage.ALIGN, beyond[-1] + 1, detail)
        return matrices, max(shares)

    def _clip(self, run: Sequence[Frame], track: Track, number: int) -> Clip:
        params = self.params
        matrices, outside = self._matrices(run, track)
        faces, placed = cut_faces(run, matrices, track.points, params.inner)
        inner = inner_faces(faces, params.inner)
        sides = (track.boxes[:, 2:] - track.boxes[:, :2]).max(axis=1)
        eyes = track.points[:, 1] - track.points[:, 0]
        phash, _ = perceptual_hash(inner[len(inner) // 2])
        quality = clip_quality(inner, placed)
        quality |= {"box_side_med": float(np.median(sides)), "iod_med": float(np.median(np.hypot(*eyes.T)))}
        quality["outside_share"] = outside
        return Clip(
            track_id=number,
            n_tracks_in_video=track.n_faces,
            face_label_certain=track.n_faces == 1,
            frame_idx=tuple(frame.index for frame in run),
            pts_ticks=tuple(frame.pts_ticks for frame in run),
            pts_seconds=tuple(round(frame.pts_seconds, 6) for frame in run),
            start_rule="all" if params.clips == ALL_CLIPS else "seeded",
            start_seed=start_seed(self.video_id, params),
            box_xyxy=tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in track.boxes),
            box_source=tuple(int(s) for s in track.source),
            det_score=tuple(float(s) for s in track.scores),
            lmk5=tuple(tuple(map(float, points.ravel())) for points in track.points),
            lmk68=None if track.points68 is None else tuple(tuple(map(float, p.ravel())) for p in track.points68),
            align_M=tuple(tuple(map(float, matrix.ravel())) for matrix in matrices),
            det_rate=track.n_found / track.n_asked,
            quality={name: round(value, 4) for name, value in quality.items()},
            phash=phash,
            frames_sha256=frames_digest(faces),
            frames=tuple(encode_image(face, params) for face in faces),
        )

    def _outcome(self) -> Outcome:
        fault = self._fault()
        faulty = Status.PARTIAL if self.clips else Status.FAILED
        heights = [box[3] - box[1] for clip in self.clips for box in clip.box_xyxy]
        scores = [score for clip in self.clips for score in clip.det_score]
        scan, n_decoded, is_vfr = self.file.scan, self.stats.n_frames, self.stats.is_vfr
        if self.cursor is not None and scan.index is not None:
            n_decoded, is_vfr = len(self.cursor.decoded), scan.index.is_vfr
        header = replace(
            self.file.header,
            rotation=self.stats.rotation,
            n_frames_container=scan.n_frames or self.file.header.n_frames_container,
        )
        return Outcome(
            status=Status.OK if fault is None else faulty,
            code=fault.code if fault else None,
            stage=fault.stage if fault else None,
            detail=fault.detail if fault else "",
            header=header,
            n_frames_decoded=n_decoded or None,
            scan="whole" if self.cursor is None else "window",
            is_vfr=is_vfr,
            pts_nominal=self.stats.pts_nominal,
            n_frames_sampled=len(self.counts.asked),
            n_frames_with_face=len(self.counts.with_face),
            n_tracks=len({clip.track_id for clip in self.clips}),
            det_score_mean=round(float(np.mean(scores)), 4) if scores else None,
            face_px_median=round(float(np.median(heights)), 2) if heights else None,
            phash=tuple(digest for digest, _ in self.hashes),
            phash_quality=tuple(quality for _, quality in self.hashes),
        )

    def _fault(self) -> VideoFault | None:
        """Name what is wrong with the video: damage first, then what kept it from giving a clip."""
        if self.fatal is not None:
            return self.fatal
        stats, needed = self.stats, self.params.clip_frames
        if stats.n_errors:
            code = Code.E_TRUNCATED if stats.ended_by_error else Code.E_DECODE
            return VideoFault(code, Stage.DECODE, f"{stats.n_errors} damaged places, {stats.n_frames} frames decode")
        if self.clips:
            return None
        n_frames = stats.n_frames if self.cursor is None else self.file.scan.n_frames
        if n_frames == 0:
            return VideoFault(Code.E_DECODE, Stage.DECODE, "no frame decodes")
        if n_frames < needed:
            return VideoFault(Code.E_TOO_SHORT, Stage.DECODE, f"{n_frames} frames, a clip needs {needed}")
        if self.longest_run < needed:
            return VideoFault(
                Code.E_NO_CONTIGUOUS_RUN, Stage.DECODE, f"longest run {self.longest_run} frames, a clip needs {needed}"
            )
        if not self.faults:
            return VideoFault(Code.E_INTERNAL, Stage.DETECT, "no run was tried")
        return max(self.faults, key=lambda f: FAULT_ORDER.index(f.code) if f.code in FAULT_ORDER else -1)


def cut_faces(
    run: Sequence[Frame], matrices: Sequence[NDArray[np.float32]], points: Floats, inner: Square
) -> tuple[list[NDArray[np.uint8]], Floats]:
    """Return the image of each frame, and the `points` (n, k, 2), source px, where they are in it, output px."""
    faces = [warp_frame(frame, matrix, inner) for frame, matrix in zip(run, matrices, strict=True)]
    placed = [p @ m[:, :2].T.astype(np.float64) + m[:, 2] for p, m in zip(points, matrices, strict=True)]
    return faces, np.stack(placed)


def inner_faces(faces: Sequence[NDArray[np.uint8]], inner: Square) -> list[NDArray[np.uint8]]:
    """Return the inner square of each image: clips are described by it, so that no margin changes what is said."""
    inside = slice(inner.first_px, inner.end_px)
    return [face[inside, inside] for face in faces]


def on_disk(clips: Sequence[Clip], folder: str) -> list[Clip]:
    """Return the clips with images that are views of a file in `folder`, which is gone with the last of them.

    Raises UnreadableError where it cannot be written.
    """
    views = _views([image for clip in clips for image in clip.frames], folder)
    return [replace(clip, frames=tuple(islice(views, clip.n_frames))) for clip in clips]


def windows_on_disk(windows: Sequence[SharedWindow], folder: str) -> list[SharedWindow]:
    """Return the windows with pictures that are views of a file, as `on_disk` does."""
    views = _views([picture for window in windows for picture in window.pictures], folder)
    return [window.with_pictures(tuple(islice(views, len(window.pictures)))) for window in windows]


def _views(images: Sequence[bytes], folder: str) -> Iterator[bytes]:
    try:
        with tempfile.TemporaryFile(prefix="lps-clips-", dir=folder) as file:
            file.writelines(images)
            file.flush()
            view = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    except OSError as e:
        raise UnreadableError(f"cannot keep clips in {folder}: {e.strerror or e}") from e
    ends = accumulate(len(image) for image in images)
    return (cast(bytes, view[end - len(image) : end]) for image, end in zip(images, ends, strict=True))
