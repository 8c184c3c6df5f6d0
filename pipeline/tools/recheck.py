"""Checks C2 and R1: a sample of clips and videos made again from their sources. Only these need decoding.

What decodes is imported when a check runs: an audit that is not deep needs no package of the extra `prep`.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lps.manifests.arrays import inner_side, square_of
from lps.manifests.audit.core.database import fetch_rows
from lps.manifests.audit.core.types import (
    AuditContext,
    CheckEntry,
    CheckResult,
    CheckSpec,
    Offender,
    Severity,
    State,
    not_evaluated,
    pass_or_fail,
    with_unread,
)
from lps.manifests.codes import QUARANTINE_CODES, Code, PairFallback
from lps.manifests.errors import LpsError, UnreadableError, VideoFault
from lps.manifests.index import PLAN_JSON
from lps.manifests.names import Level
from lps.manifests.records import NO_WINDOWS, Clip, OriginalWindows, VideoResult
from lps.manifests.schemas import BOX_UNITS, Row
from lps.manifests.sequences.names import is_sequence
from lps.manifests.storage import Store
from lps.pipeline.config.params import WRITER_VERSION, Params, params_from_record
from lps.pipeline.faces.detector import CHUNK, Localizer
from lps.pipeline.faces.localizers import load_localizer
from lps.pipeline.video.source_reader import SourceReader, SourceRef

LIMITS: dict[str, float] = {
    "c2_sample_clips": 100,
    "c2_min_psnr_db": 35.0,
    "r1_sample_videos": 20,
    "r1_min_psnr_db": 40.0,
}
IDENTICAL_DB = 99.0
"""Stands for the infinite PSNR of equal images."""

RGB = NDArray[np.uint8]
LoadLocalizer = Callable[[str, int], Localizer]
"""Takes the localizer's name and the batch size of the recorded run."""

C2_COLUMNS = (
    *("sample_key", "uri", "frame_idx", "matrices", "members", "tar_offset", "tar_nbytes", "shard"),
    *("image_codec", "out_size", "align_template", "frames_sha256"),
)
C2 = CheckSpec(
    id="C2",
    title="Clips show the frames they name",
    rule="For c2_sample_clips clips chosen by their keys: the source frames at frame_idx, warped by align_M and "
    "encoded as recorded, are like the stored images (PSNR at least c2_min_psnr_db), and none of them lies behind "
    "damage in the video. Needs --source.",
    remedy="The frame indices or matrices of the named clips are wrong, or the decoder counts otherwise: compare "
    "versions in plan.json with those installed, and prepare the videos again. Clips behind damage were made by a "
    "version that did not see it.",
    severity=Severity.ERROR,
    level=Level.DEEP,
    sql="""SELECT c.sample_key, v.uri, c.frame_idx, c."align_M" AS matrices, c.members, c.tar_offset, c.tar_nbytes,
    s.uri AS shard, c.image_codec, c.out_size, c.align_template,
    c.frames_sha256
FROM clips c JOIN videos v USING (video_id) JOIN shards s USING (shard_id) ORDER BY sha256(c.sample_key)""",
)
R1 = CheckSpec(
    id="R1",
    title="Videos come out the same again",
    rule="r1_sample_videos videos, chosen by their ids in turn from each label and status, are processed again with "
    "the stored parameters, fakes that may share a cut after their originals: same status, code and clips, "
    "frames_sha256 equal. WARN where frames differ by less than r1_min_psnr_db allows (another processor or library "
    "version), FAIL beyond; UNKNOWN for a data set of another writer version, which makes videos otherwise. Needs "
    "--source.",
    remedy="Compare versions, device and batch_size in plan.json with this machine; where they agree, report it.",
    severity=Severity.ERROR,
    level=Level.DEEP,
    sql="""SELECT lower(hex(video_id)), uri, status, error_code, n_clips FROM (
    SELECT *, row_number() OVER (PARTITION BY label, status ORDER BY sha256(lower(hex(video_id)))) AS turn FROM videos
    WHERE video_id IN (SELECT unhex(video_id) FROM plan_videos WHERE shard_id IS NOT NULL)
        AND coalesce(error_code, '') NOT IN ('E_OOM', 'E_TIMEOUT', 'E_WORKER_LOST', 'E_INTERNAL', 'E_UNREADABLE')
) ORDER BY turn, label, status""",
)

_ORIGINAL_SQL = """SELECT lower(hex(o.video_id)), o.uri,
    coalesce(p.shard_id = q.shard_id, false) AND o.original_video_id IS NULL, o.error_code
FROM videos v JOIN videos o ON o.video_id = v.original_video_id
LEFT JOIN plan_videos p ON p.video_id = lower(hex(v.video_id))
LEFT JOIN plan_videos q ON q.video_id = lower(hex(o.video_id)) WHERE v.video_id = unhex(?)"""
"""The original of a video, whether it gives that anything: both are of one shard, and it has no original itself; and
what became of it."""


def check_frames(ctx: AuditContext) -> CheckResult:
    """C2: decode, warp and compare."""
    source, params = ctx.source, _params(ctx)
    if source is None:
        return not_evaluated(C2, State.SKIP, "needs the source videos: --source")
    if params is None:
        return not_evaluated(C2, State.UNKNOWN, "without a plan the decoding limits are not known")
    offenders, unread, worst, n, n_equal = [], [], IDENTICAL_DB, 0, 0
    for values in fetch_rows(ctx, f"{C2.sql} LIMIT {int(ctx.limits['c2_sample_clips'])}"):
        row = dict(zip(C2_COLUMNS, values, strict=True))
        try:
            found = _compared(ctx, source, row, params)
        except UnreadableError as e:
            unread.append(str(e))
            continue
        n, n_equal, worst = n + 1, n_equal + found.equal, min(worst, found.psnr_db)
        if found.detail:
            offenders.append(Offender(kind="clip", key=row["sample_key"], detail=found.detail))
    result = pass_or_fail(C2, offenders, n, "clips", limit=f"{ctx.limits['c2_min_psnr_db']:g} dB")
    shown = f"{result.measured}; {n_equal} with equal frames_sha256; lowest PSNR {worst:.1f} dB"
    return with_unread(replace(result, measured=shown if n else ""), unread)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """What came of one clip."""

    psnr_db: float = 0.0
    """Lowest of its images."""
    equal: bool = False
    """Whether the frames have the recorded digest."""
    detail: str = ""


def _compared(ctx: AuditContext, source: Store, row: Row, params: Params) -> _Compared:
    from lps.pipeline.clips.encode import encode_image, frames_digest

    try:
        faces, spoiled = warped_frames(source, row, params)
    except VideoFault as e:
        if e.code == Code.E_UNREADABLE:
            raise UnreadableError(f"cannot read {source.join(row['uri'])}: {e.detail}") from e
        return _Compared(detail=f"cannot be made again: {e}")
    if spoiled:
        return _Compared(detail=f"{len(spoiled)} frames lie behind damage in the video, from {spoiled[0]} on")
    if len(faces) != len(row["frame_idx"]):
        return _Compared(detail=f"only {len(faces)} of {len(row['frame_idx'])} frames decode")
    data = ctx.store.read_range(row["shard"], row["tar_offset"], row["tar_offset"] + row["tar_nbytes"])
    stored = _images(data, row)
    if len(stored) != len(faces):
        return _Compared(detail=f"{len(stored)} images for {len(faces)} frames")
    # Both sides lose the same to the codec, so that noise, which JPEG keeps badly, does not count as a difference.
    lowest = min(psnr_db(a, _decoded(encode_image(b, params))) for a, b in zip(stored, faces, strict=True))
    wrong = lowest < ctx.limits["c2_min_psnr_db"]
    detail = f"the stored images are not these frames: {lowest:.1f} dB" if wrong else ""
    return _Compared(psnr_db=lowest, equal=frames_digest(faces) == row["frames_sha256"], detail=detail)


def warped_frames(source: Store, row: Row, params: Params) -> tuple[list[RGB], list[int]]:
    """Decode a video up to the last frame of a clip and cut the clip's faces again. Also name the spoiled frames."""
    from lps.pipeline.faces.align import warp
    from lps.pipeline.video.decode import DecodeStats
    from lps.pipeline.video.images import decode_source

    matrices = dict(zip(row["frame_idx"], row["matrices"], strict=True))
    inner = square_of(row["out_size"], inner_side(row["align_template"], row["out_size"]))
    last, faces, spoiled = max(matrices), [], []
    with _opened(source, row["uri"], params) as path:
        for frame in decode_source(path, params, DecodeStats()):
            if frame.index in matrices:
                spoiled += [frame.index] if frame.spoiled else []
                matrix = np.array(matrices[frame.index], np.float32).reshape(2, 3)
                # from the whole frame, as an outsider would: how the clip was cut is part of what is checked
                faces.append(warp(frame.rgb(), matrix, inner))
            if frame.index >= last:
                break
    return faces, spoiled


@contextmanager
def _opened(source: Store, uri: str, params: Params) -> Iterator[Path]:
    """Give a video as a local path. Raises UnreadableError for a folder in a file's place, which is no sequence."""
    with SourceReader(source).local(SourceRef(uri), limits=params.limits) as path:
        if path.is_dir() and not is_sequence(uri):
            raise UnreadableError(f"cannot read {source.join(uri)}: it is a folder")
        yield path


def _images(data: bytes, row: Row) -> list[RGB]:
    """Decode the images of a sample from its bytes in the tar."""
    places = [
        (member["offset"] - row["tar_offset"], member["nbytes"])
        for member in row["members"]
        if member["ext"].endswith(row["image_codec"])
    ]
    return [_decoded(data[start : start + n_bytes]) for start, n_bytes in places]


def _decoded(data: bytes) -> RGB:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def psnr_db(a: RGB, b: RGB) -> float:
    """Return the peak signal-to-noise ratio of two images, at most IDENTICAL_DB; 0 for different sizes."""
    if a.shape != b.shape:
        return 0.0
    error = float(((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean())
    return min(IDENTICAL_DB, 10 * float(np.log10(255.0**2 / error))) if error > 0 else IDENTICAL_DB


def check_again(ctx: AuditContext, *, load: LoadLocalizer) -> CheckResult:
    """R1: process a sample again."""
    source, params = ctx.source, _params(ctx)
    if source is None:
        return not_evaluated(R1, State.SKIP, "needs the source videos: --source")
    if params is None:
        return not_evaluated(R1, State.UNKNOWN, "without a plan the parameters are not known")
    writer = str(ctx.plan.get("writer_version", "1"))  # the first one did not say
    if writer != WRITER_VERSION:
        note = f"made by writer version {writer}, this is version {WRITER_VERSION}: only that one makes the same again"
        return not_evaluated(R1, State.UNKNOWN, note)
    batch_size = _batch_size(ctx)
    try:
        localizer = load(params.localizer, batch_size)
    except (LpsError, ImportError) as e:
        return not_evaluated(R1, State.SKIP, f"the localizer {params.localizer} is not here: {e}")
    again = _Again(ctx, source, params, localizer)
    rows = fetch_rows(ctx, f"{R1.sql} LIMIT {int(ctx.limits['r1_sample_videos'])}")
    offenders = [offender for row in rows for offender in again.offenders(*row)]
    limit = f"equal, else {ctx.limits['r1_min_psnr_db']:g} dB"
    result = pass_or_fail(R1, offenders, len(rows), "videos", limit=limit)
    if again.n_close and not offenders:
        note = "bitwise differs: another processor, device or library version than in plan.json"
        close = tuple(again.close)
        result = replace(
            result, state=State.WARN, measured=f"{again.n_close} clips nearly equal", note=note, offenders=close
        )
    return with_unread(result, again.unread)


class _Again:
    """Processes videos again and compares what comes out."""

    def __init__(self, ctx: AuditContext, source: Store, params: Params, localizer: Localizer) -> None:
        self.ctx, self.source, self.params, self.localizer = ctx, source, params, localizer
        self.close: list[Offender] = []
        self.unread: list[str] = []

    @property
    def n_close(self) -> int:
        """Number of clips that differ, but look the same."""
        return len(self.close)

    def _ask(self, images: RGB, *, dense: bool) -> list[Any]:
        """Find faces in chunks of the size that a run asks for."""
        parts = [self.localizer.detect(images[k : k + CHUNK], dense=dense) for k in range(0, len(images), CHUNK)]
        return [faces for part in parts for faces in part]

    def _made(
        self,
        video_id: str,
        uri: str,
        *,
        share: OriginalWindows | PairFallback | None = None,
        keep_windows: bool = False,
    ) -> VideoResult:
        """Process a video as its job did. Raises UnreadableError, or VideoFault for a sequence of images."""
        from lps.pipeline.clips.process import process_video

        with _opened(self.source, uri, self.params) as path:
            return process_video(
                path, bytes.fromhex(video_id), self._ask, self.params, share=share, keep_windows=keep_windows
            )

    def _share(self, video_id: str) -> OriginalWindows | PairFallback | None:
        """Return what the original of a fake gives it, made again, or why it gives nothing; None for other videos."""
        rows = fetch_rows(self.ctx, _ORIGINAL_SQL, [video_id]) if self.params.pair.mode == "original" else []
        if not rows:
            return None
        [(original, uri, is_near, code)] = rows
        if not is_near:
            return PairFallback.P_ORIGINAL_ELSEWHERE
        if code in QUARANTINE_CODES | {Code.E_UNREADABLE}:
            return NO_WINDOWS
        made = self._made(original, uri, keep_windows=True)
        if made.outcome.code == Code.E_UNREADABLE:
            raise UnreadableError(f"cannot read {self.source.join(uri)}: {made.outcome.detail}")
        return made.windows

    def offenders(self, video_id: str, uri: str, status: str, code: str | None, n_clips: int) -> Iterator[Offender]:
        """Yield what comes out otherwise for one video."""
        try:
            made = self._made(video_id, uri, share=self._share(video_id))
        except (UnreadableError, VideoFault) as e:
            self.unread.append(str(e))
            return
        if made.outcome.code == Code.E_UNREADABLE:
            self.unread.append(f"cannot read {self.source.join(uri)}: {made.outcome.detail}")
            return
        outcome = (str(made.outcome.status), str(made.outcome.code) if made.outcome.code else None, len(made.clips))
        if outcome != (status, code, n_clips):
            detail = f"{uri}: now {outcome}, was {(status, code, n_clips)}"
            yield Offender(kind="video", key=video_id, detail=detail)
            return
        sql = """SELECT c.sample_key, c.frame_idx, c.frames_sha256, c."align_M", c.box_xyxy, c.members, c.tar_offset,
            c.tar_nbytes, s.uri, c.image_codec FROM clips c JOIN shards s USING (shard_id)
            WHERE c.video_id = unhex(?) ORDER BY c.track_id, c.frame_idx[1]"""
        clips = sorted(made.clips, key=lambda clip: (clip.track_id, clip.frame_idx[0]))
        for stored, clip in zip(fetch_rows(self.ctx, sql, [video_id]), clips, strict=True):
            yield from self._clip(stored, clip)

    def _clip(self, stored: Sequence[Any], clip: Clip) -> Iterator[Offender]:
        key, frame_idx, digest, matrices, boxes, members, offset, n_bytes, shard, codec = stored
        same_rows = (
            tuple(frame_idx) == clip.frame_idx
            and [list(matrix) for matrix in clip.align_M] == [list(matrix) for matrix in matrices]
            and np.array_equal(np.round(np.array(clip.box_xyxy) * BOX_UNITS), np.array(boxes))
        )
        if same_rows and digest == clip.frames_sha256:
            return
        data = self.ctx.store.read_range(shard, offset, offset + n_bytes)
        old = _images(data, {"tar_offset": offset, "image_codec": codec, "members": members})
        pairs = zip(old, map(_decoded, clip.frames), strict=False)
        lowest = min((psnr_db(a, b) for a, b in pairs), default=0.0) if tuple(frame_idx) == clip.frame_idx else 0.0
        offender = Offender(kind="clip", key=key, detail=f"comes out otherwise: {lowest:.1f} dB")
        if lowest >= self.ctx.limits["r1_min_psnr_db"]:
            self.close.append(offender)
        else:
            yield offender


def _params(ctx: AuditContext) -> Params | None:
    record = ctx.plan.get("params")
    return params_from_record(record) if record else None


MAX_BATCH = 4096
"""Images. No device of today takes more at a time."""


def _batch_size(ctx: AuditContext) -> int:
    """Return the batch size that the plan names. Raises UnreadableError."""
    text = ctx.plan.get("versions", {}).get("batch_size", str(CHUNK))
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= MAX_BATCH):
        raise UnreadableError(f"{ctx.store.join(PLAN_JSON)} is damaged: '{text}' of its versions is no batch size")
    return int(text)


def _load(name: str, batch_size: int) -> Localizer:
    return load_localizer(name, weights_dir=None, device="cpu", batch_size=batch_size)


CHECKS = (
    CheckEntry(C2, check_frames),
    CheckEntry(R1, partial(check_again, load=_load)),
)
