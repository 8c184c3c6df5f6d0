"""Raw videos to scores: prepared as `lps-prep` prepares them, evaluated as `lps-train evaluate` does, in this process.

A track is one face, followed from clip to clip. Its score is the mean over its clips; a video is scored by the rule
that evaluation has.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lps.manifests.arrays import Pixels, square_of
from lps.manifests.canonical import digest16
from lps.manifests.codes import CODE_MEANING
from lps.manifests.errors import UnreadableError
from lps.manifests.names import Role, ScoredFaces, VideoRule
from lps.manifests.records import Clip, Outcome
from lps.manifests.splits.learnt import NOT_RECORDED, roles_of
from lps.model.data.clip_decoder import Batch
from lps.model.data.frames import frame_span
from lps.model.data.sample import UNKNOWN_LABEL, decode
from lps.model.data.video_score import DEFAULT_RULE, VIDEO_RULE_TEXT, video_scores
from lps.model.evaluation.loading import LoadedDetector, load_detector
from lps.model.evaluation.metrics import few_videos
from lps.model.evaluation.predict import PredictOptions, predict
from lps.model.evaluation.scores import THRESHOLD
from lps.model.evaluation.threshold import StoredThreshold, calibrated
from lps.model.training.checkpoint import code_version, file_sha256
from lps.model.training.processes import choose_device
from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import ALL_CLIPS, CropParams, Params, params_from_record
from lps.pipeline.faces.detector import Localizer
from lps.pipeline.faces.link import Box
from lps.pipeline.faces.localizers import batch_size_on, load_localizer, weight_digests

SCHEMA, SCHEMA_VERSION = "lps.score", "1.2"
DIGITS = 6
"""Decimals of scores in records: beyond them, machines differ."""
BATCH_CLIPS = 4
"""Clips scored at a time; 4 of the full size need about 2 GB."""
NO_ID = bytes(16)
"""Raw videos are in no manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredClip:
    """One clip of one face with its score."""

    track: int
    first_frame: int
    """First of the frames that the detector saw; they are consecutive."""
    last_frame: int
    start_s: float
    """Time stamp of the first frame."""
    end_s: float
    """Time stamp of the last frame."""
    box_xyxy: Box
    """Box of the face on the middle frame, source px."""
    p_fake: float
    face: bytes
    """The middle aligned frame, an image file."""

    def record(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        names = ("track", "first_frame", "last_frame", "start_s", "end_s")
        box = [round(edge, 1) for edge in self.box_xyxy]
        return {**{name: getattr(self, name) for name in names}, "box_xyxy": box, "p_fake": round(self.p_fake, DIGITS)}


@dataclass(frozen=True, slots=True)
class ScoredTrack:
    """One face through the video."""

    number: int
    """In order of appearance, the larger face first."""
    clips: tuple[ScoredClip, ...]
    """In time order, at least one."""

    @property
    def p_fake(self) -> float:
        """Mean over its clips."""
        return float(np.mean([clip.p_fake for clip in self.clips]))


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoScore:
    """What is to be said of one video."""

    path: Path
    sha256: str | None
    """Digest of the file, in hex; None where it cannot be read."""
    outcome: Outcome
    tracks: tuple[ScoredTrack, ...] = ()
    rule: VideoRule = DEFAULT_RULE
    seen: tuple[Role, ...] | None = None
    """What this very file was to the detector; None where that is not known."""
    threshold: float = THRESHOLD
    """Above it the video is called fake."""
    temperature: float | None = None
    """Calibrates the video's score; None where nobody fitted one."""

    @property
    def worst(self) -> ScoredTrack | None:
        """The most suspicious track; None where there is none."""
        return max(self.tracks, key=lambda track: track.p_fake, default=None)

    @property
    def p_fake(self) -> float | None:
        """Score of the video by its rule; None where no face could be followed."""
        if not self.tracks:
            return None
        clips = [(track.number, clip.p_fake) for track in self.tracks for clip in track.clips]
        faces, scores = np.array([number for number, _ in clips], np.int64), np.array([p_fake for _, p_fake in clips])
        return float(video_scores(np.zeros_like(faces), faces, scores, self.rule)[0])

    @property
    def called(self) -> str | None:
        """Return "fake" or "real"; None without a score."""
        if self.p_fake is None:
            return None
        return "fake" if self.p_fake > self.threshold else "real"

    @property
    def p_calibrated(self) -> float | None:
        """Score of the video, as sure as it is right; None without a score or a temperature."""
        if self.p_fake is None or self.temperature is None:
            return None
        return float(calibrated(np.array([self.p_fake]), self.temperature)[0])

    @property
    def clips(self) -> list[ScoredClip]:
        """All clips in time order."""
        return sorted((clip for track in self.tracks for clip in track.clips), key=lambda c: (c.first_frame, c.track))

    @property
    def fault(self) -> str:
        """What is wrong with the video, in words; empty for a sound one."""
        code, detail = self.outcome.code, self.outcome.detail
        if code is None:
            return ""
        return f"{code}: {CODE_MEANING[code]}" + (f" ({detail})" if detail else "")

    def record(self, shown_path: str) -> dict[str, Any]:
        """Return video, tracks and clips as plain JSON values."""
        code, p_fake, p_calibrated = self.outcome.code, self.p_fake, self.p_calibrated
        return {
            "video": {
                "file": shown_path,
                "sha256": self.sha256,
                "status": str(self.outcome.status),
                "code": str(code) if code else None,
                "meaning": CODE_MEANING[code] if code else None,
                "detail": self.outcome.detail,
                "n_frames": self.outcome.n_frames_decoded,
                "p_fake": None if p_fake is None else round(p_fake, DIGITS),
                "p_calibrated": None if p_calibrated is None else round(p_calibrated, DIGITS),
                "called": self.called,
                "seen": None if self.seen is None else list(map(str, self.seen)),
            },
            "tracks": [
                {"track": track.number, "n_clips": len(track.clips), "p_fake": round(track.p_fake, DIGITS)}
                for track in self.tracks
            ],
            "clips": [clip.record() for clip in self.clips],
        }


@dataclass(frozen=True, slots=True)
class Scorer:
    """A detector and a localizer, loaded and ready."""

    detector: LoadedDetector
    localizer: Localizer
    params: Params
    how: PredictOptions
    rule: VideoRule
    threshold: float
    temperature: float | None
    notes: tuple[str, ...]
    """What makes scores less sure than they look."""
    facts: Mapping[str, Any]
    """What every record says of how it was made."""

    def score(self, path: Path) -> VideoScore:
        """Score all clips of a video. Faults of the content come back as the outcome.

        Raises LpsError for a score that is not finite.
        """
        sha256 = self._digest(path)
        result = process_video(path, digest16("score", path.name), self.localizer.detect, self.params)
        tracks: dict[int, list[ScoredClip]] = {}
        scores = predict(self.detector.network, self._batches(result.clips, path.name), self.how).p_fake.tolist()
        for clip, p_fake in zip(result.clips, scores, strict=True):
            tracks.setdefault(clip.face_id, []).append(self._scored(clip, clip.face_id, p_fake))
        found = tuple(ScoredTrack(number, tuple(tracks[number])) for number in sorted(tracks))
        learnt = self.detector.learnt
        seen = roles_of(learnt, sha256) if learnt is not None and sha256 else None
        return VideoScore(
            path=path, sha256=sha256, outcome=result.outcome, tracks=found, rule=self.rule, seen=seen,
            threshold=self.threshold, temperature=self.temperature,
        )  # fmt: skip

    def _digest(self, path: Path) -> str | None:
        """Return the digest of a file; None where it cannot be read or is too large to be, as the outcome says."""
        try:
            return file_sha256(path) if path.stat().st_size <= self.params.limits.max_bytes else None
        except (OSError, UnreadableError):
            return None

    def _scored(self, clip: Clip, number: int, p_fake: float) -> ScoredClip:
        first, stop = self._span(clip)
        middle = (first + stop) // 2
        return ScoredClip(
            track=number,
            first_frame=clip.frame_idx[first],
            last_frame=clip.frame_idx[stop - 1],
            start_s=clip.pts_seconds[first],
            end_s=clip.pts_seconds[stop - 1],
            box_xyxy=clip.box_xyxy[middle],
            p_fake=p_fake,
            face=clip.frames[middle],
        )

    def _span(self, clip: Clip) -> tuple[int, int]:
        """Return the first frame that the detector sees and the one after the last, as the reader chooses them."""
        return frame_span(clip.n_frames, self.detector.n_frames, "centre", 0.0)

    def _frames(self, clip: Clip) -> Pixels:
        """Return what the reader gives of a clip, (n_frames, H, H, 3): short ones padded with their last frame."""
        first, stop = self._span(clip)
        side = self.detector.image_px
        out = np.empty((self.detector.n_frames, side, side, 3), np.uint8)
        square = square_of(self.params.stored_px, self.params.out_px, self.detector.margin)
        decode(clip.frames[first:stop], first, square, out[: stop - first])
        out[stop - first :] = out[stop - first - 1]
        return out

    def _batches(self, clips: Sequence[Clip], name: str) -> Iterator[Batch]:
        for start in range(0, len(clips), BATCH_CLIPS):
            part = clips[start : start + BATCH_CLIPS]
            yield Batch(
                step=start // BATCH_CLIPS,
                frames=torch.from_numpy(np.stack([self._frames(clip) for clip in part])),
                labels=torch.full((len(part),), UNKNOWN_LABEL),
                keys=tuple(f"{name} at {clip.pts_seconds[0]:.1f} s" for clip in part),
                clip_ids=(NO_ID,) * len(part),
                video_ids=(NO_ID,) * len(part),
            )


def open_scorer(
    checkpoint: Path,
    *,
    localizer: str | None = None,
    weights_dir: Path | None = None,
    faces: ScoredFaces = "all",
    video_score: VideoRule = DEFAULT_RULE,
    threshold: float | StoredThreshold = THRESHOLD,
) -> Scorer:
    """Load the detector of a checkpoint and the localizer that its clips were made with, or another.

    `threshold` is a number, or what `evaluate` chose for this very detector. Raises RefusedError, UnreadableError or
    IntegrityError for a checkpoint, a threshold or weights that cannot be used.
    """
    detector = load_detector(checkpoint)
    params, notes = _preparation(detector, checkpoint, localizer)
    stored = threshold if isinstance(threshold, StoredThreshold) else None
    if stored is not None:
        stored.require_fit(detector.sha256, video_score)
        notes += _threshold_notes(stored)
    limit = threshold if not isinstance(threshold, StoredThreshold) else threshold.threshold
    notes += [NOT_RECORDED] if detector.learnt is None else detector.learnt.gaps
    params = replace(params, clips=ALL_CLIPS, localize=replace(params.localize, faces=faces))
    device = choose_device("auto")
    digests = weight_digests(params.localizer, weights_dir)
    n_images = batch_size_on(device.type)
    found = load_localizer(params.localizer, weights_dir=weights_dir, device=device.type, batch_size=n_images)
    detector.network.to(device)
    facts = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "video_score": video_score,
        "rule": VIDEO_RULE_TEXT[video_score],
        "threshold": limit,
        "threshold_from": stored.record() if stored is not None else None,
        "notes": notes,
        "checkpoint": {
            "sha256": detector.sha256,
            "stage": detector.stage,
            "image_px": detector.image_px,
            "margin": detector.margin,
            "n_frames": detector.n_frames,
        },
        "preparation": params.record(),
        "localizer_weights": digests,
        "code": code_version(),
    }
    how = PredictOptions(device=device, svm=detector.svm)
    temperature = None if stored is None else stored.temperature
    return Scorer(detector, found, params, how, video_score, limit, temperature, tuple(notes), facts)


def _threshold_notes(stored: StoredThreshold) -> list[str]:
    """Say what makes a threshold less sure than it looks."""
    notes = []
    if stored.clips != "all":
        notes.append(
            f"the threshold was chosen with {stored.clips} clips of each video, and all are scored here; "
            "`lps-train evaluate --clips all` chooses one for that"
        )
    if few_videos(stored.n_real, stored.n_fake):
        notes.append(f"the threshold was chosen on {stored.n_real} real and {stored.n_fake} fake videos, which are few")
    return notes


def _preparation(detector: LoadedDetector, checkpoint: Path, localizer: str | None) -> tuple[Params, list[str]]:
    """Return how the detector's own clips were made, with another localizer if one is given, and remarks on that."""
    record = detector.data.get("prep")
    if not record:
        block_frames = detector.network.params.block_frames
        params = params_from_record(
            {**Params().record(), "clip_frames": detector.n_frames, "block_frames": block_frames}
        )
        notes = ["the checkpoint does not say how its clips were prepared; the defaults of lps-prep are used"]
        params = replace(params, crop=CropParams(margin=detector.margin))
        return (replace(params, localizer=localizer) if localizer else params), notes
    try:
        params = params_from_record(record)
    except UnreadableError as e:
        raise UnreadableError(
            f"{checkpoint}: its clips were prepared in a way that this version does not know: {e}"
        ) from e
    if localizer is None or localizer == params.localizer:
        return params, []
    note = f"localizer was {params.localizer} in training and is {localizer} here; faces are cut a little differently"
    return replace(params, localizer=localizer), [note]
