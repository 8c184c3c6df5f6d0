"""A fake cut like its original: the same frames, boxes, landmarks and transforms, once the two are seen to line up."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lps.manifests.codes import PairFallback
from lps.manifests.records import Clip, Header, OriginalWindows, SharedWindow, VideoResult
from lps.pipeline.clips.encode import clip_quality, encode_image, frames_digest, perceptual_hash
from lps.pipeline.clips.pairs import compare_background
from lps.pipeline.clips.video_work import VideoWork, cut_faces, inner_faces
from lps.pipeline.config.params import Params
from lps.pipeline.faces.track import FrameRun, Sighting
from lps.pipeline.video.frame import Frame

MIN_FRAMES_OFF = 2
"""Frames by which two videos may always differ."""


@dataclass(frozen=True, slots=True)
class Unpaired:
    """Why a fake, or a window of it, is not shared, and what was measured on the way."""

    code: PairFallback
    face_px: float | None = None
    background: float | None = None


@dataclass(slots=True)
class SharedWork(VideoWork):
    """State of one fake while it is cut like its original."""

    original: OriginalWindows = field(kw_only=True)
    fallback: Unpaired | None = None
    """Why the first window that is not shared is not."""
    n_shared: int = 0

    def shared_result(self) -> VideoResult | Unpaired:
        """Make the clips of all windows and return them; why not, where none could be shared.

        A window that cannot be shared after another could has its faces found anew. Raises WindowError with a cursor.
        """
        if (code := mismatch(self.original, self.file.header, self.file.scan.n_frames, self.params)) is not None:
            return Unpaired(code)
        result = self.result()
        if not self.n_shared:
            return self.fallback or Unpaired(PairFallback.P_DECODE)
        return result

    def _run(self) -> None:
        if self.file.fault is not None:
            raise self.file.fault
        windows = {window.clips[0].frame_idx[0]: window for window in self.original.windows}
        hash_at = self._hash_places()
        targets = sorted(hash_at | set(windows))
        window: SharedWindow | None = None
        run: list[Frame] = []
        self._leap(0, targets)
        for frame in self._frames(self.stats):
            self._note(frame, hash_at)
            window = window or windows.get(frame.index)
            if window is not None:
                run.append(frame)
                if len(run) == len(window.clips[0].frame_idx):
                    self._take(window, run)
                    window, run = None, []
            if window is None:
                if self.fallback is not None and not self.n_shared:
                    return  # nothing can be shared: all is to be found anew
                self._leap(frame.index + 1, targets)
        if window is not None:
            self.fallback = self.fallback or Unpaired(PairFallback.P_FRAMES)

    def _take(self, window: SharedWindow, run: list[Frame]) -> None:
        """Make the clips of one window."""
        made = self._shared(window, run)
        if not isinstance(made, Unpaired):
            self.n_shared += 1
            self._keep(made)
            return
        self.fallback = self.fallback or made
        if self.n_shared:
            before = len(self.clips)
            self._make_clips(run)
            self.clips[before:] = [as_fallback(clip, made) for clip in self.clips[before:]]

    def _shared(self, window: SharedWindow, run: Sequence[Frame]) -> list[Clip] | Unpaired:
        first, header = run[0], self.original.header
        if any(frame.breaks for frame in run[1:]):
            return Unpaired(PairFallback.P_DECODE)
        if first.rotation != (header.rotation or 0) or any(frame.size != first.size for frame in run):
            return Unpaired(PairFallback.P_SIZE)
        if not same_times(window.clips[0].pts_seconds, [frame.pts_seconds for frame in run]):
            return Unpaired(PairFallback.P_TIMES)
        background = compare_background(window, run, self.params.pair)
        if background.code is not None:
            return Unpaired(background.code, background=background.correlation)
        made = []
        for clip in window.clips:
            face_px = self._face_px(clip, run)
            if face_px is None:
                return Unpaired(PairFallback.P_NO_FACE, background=background.correlation)
            if face_px > self.params.pair.max_face_px:
                return Unpaired(PairFallback.P_FACE_MOVED, face_px, background.correlation)
            made.append(replace(self._cut(clip, run), pair_face_px=face_px, pair_background=background.correlation))
        return made

    def _face_px(self, clip: Clip, run: Sequence[Frame]) -> float | None:
        """Return how far the fake's own face lies from the original's, output px; None where most frames show none."""
        n = min(self.params.pair.face_frames, len(run))
        places = [(2 * k + 1) * len(run) // (2 * n) for k in range(n)]
        points = {k: np.array(clip.lmk5[k]).reshape(5, 2) for k in places}
        expected = {k: Sighting(np.array(clip.box_xyxy[k]), points[k], clip.det_score[k]) for k in places}
        found = FrameRun(run, self.detect, self.params, self.counts).look_for(expected)
        return float(np.mean(list(found.values()))) if 2 * len(found) > n else None

    def _cut(self, clip: Clip, run: Sequence[Frame]) -> Clip:
        """Return the original's `clip` with the faces and times of this video."""
        params = self.params
        matrices = [np.array(row, np.float32).reshape(2, 3) for row in clip.align_M]
        faces, placed = cut_faces(run, matrices, np.array(clip.lmk5).reshape(-1, 5, 2), params.inner)
        inner = inner_faces(faces, params.inner)
        quality = {name: round(value, 4) for name, value in clip_quality(inner, placed).items()}
        return replace(
            clip,
            pts_ticks=tuple(frame.pts_ticks for frame in run),
            pts_seconds=tuple(round(frame.pts_seconds, 6) for frame in run),
            quality=clip.quality | quality,
            phash=perceptual_hash(inner[len(inner) // 2])[0],
            frames_sha256=frames_digest(faces),
            frames=tuple(encode_image(face, params) for face in faces),
            pair_mode="shared",
        )


def mismatch(original: OriginalWindows, header: Header, n_frames: int, params: Params) -> PairFallback | None:
    """Return why a video of this header and number of frames cannot line up with its original; None if it may."""
    if not original.windows:
        return PairFallback.P_ORIGINAL_FAILED
    ours, theirs = ((h.width, h.height, h.sar_num or 1, h.sar_den or 1) for h in (header, original.header))
    if ours != theirs:
        return PairFallback.P_SIZE
    off = max(MIN_FRAMES_OFF, round(params.pair.max_frames_off * original.n_frames))
    needed = original.windows[-1].clips[0].frame_idx[-1] + 1
    if abs(n_frames - original.n_frames) > off or n_frames < needed:
        return PairFallback.P_FRAMES
    return None


def same_times(theirs: Sequence[float], ours: Sequence[float]) -> bool:
    """Return whether two windows take the same time from frame to frame, within half a step, seconds."""
    a, b = np.array(theirs) - theirs[0], np.array(ours) - ours[0]
    return bool((np.abs(a - b) <= np.median(np.diff(a)) / 2).all())


def as_fallback(clip: Clip, why: Unpaired) -> Clip:
    """Return a clip of a fake that should have shared its original's window."""
    return replace(
        clip,
        pair_mode="fallback",
        pair_fallback=why.code,
        pair_face_px=why.face_px,
        pair_background=why.background,
    )
