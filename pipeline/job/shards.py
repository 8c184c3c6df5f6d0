"""Write one shard: a normalised USTAR file whose bytes depend on its samples alone, then its commit record."""

import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lps.manifests.arrays import template_name
from lps.manifests.canonical import pretty_json
from lps.manifests.errors import IntegrityError
from lps.manifests.index import Commit, commit_of, commit_path, publish_commit, read_commit
from lps.manifests.records import Clip, OriginalWindows, SourceVideo, VideoResult
from lps.manifests.rows import clip_facts, clip_id, row_to_json, video_row
from lps.manifests.schemas import Row, packed_rows
from lps.manifests.storage import Store
from lps.pipeline.config.params import BORDER, INTERPOLATION, WRITER_VERSION, Params


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardVideo:
    """What a shard must know of one of its videos besides the processing result."""

    source: SourceVideo
    n_bytes: int
    sha256: bytes
    original_video_id: bytes | None
    pair_id: bytes | None = None
    """Video id of the family's original, the video itself if fakes of it are here; None without a family."""
    mark: str = ""
    """Mark of its file in the listing of this run; no part of the plan."""
    original: OriginalWindows | None = None
    """What its original gave, where the video is a fake that shares the windows of that."""

    @property
    def is_original(self) -> bool:
        """Whether fakes of this video are in the data set."""
        return self.pair_id == self.source.video_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """One shard of the plan."""

    shard_id: str
    split: str
    plan_sha256: str
    videos: tuple[ShardVideo, ...]
    """In plan order."""

    @property
    def uri(self) -> str:
        """Path of the tar relative to the data set root."""
        return f"shards/{self.split}/{self.shard_id}.tar"

    @property
    def commit_uri(self) -> str:
        """Path of the commit record."""
        return commit_path(self.shard_id)


def sample_key(video_id: bytes, clip: Clip) -> str:
    """Return the sample's key: no dots, and nothing in it that tells the label or the method."""
    return f"{video_id.hex()}-{clip.track_id:02d}-{clip.frame_idx[0]:06d}"


def write_shard(job: ShardJob, results: Sequence[VideoResult], params: Params, out: Store, scratch: Path) -> Commit:
    """Build the shard in `scratch`, publish it, then its rows, then its commit record, and return that.

    A shard without samples gives a record and no tar. Of one that was committed before all is published again: some of
    it was lost, or somebody damaged it. Raises IntegrityError if it was committed with other content, UnreadableError
    if the output cannot be written.
    """
    samples = sorted(
        (
            (sample_key(r.video_id, clip), video, clip)
            for video, r in zip(job.videos, results, strict=True)
            for clip in r.clips
        ),
        key=lambda sample: sample[0],
    )
    params_sha256 = params.sha256()
    tar_path = scratch / f"{job.shard_id}.tar"
    try:
        clip_rows = _write_tar(tar_path, job, samples, params, params_sha256)
        packed = {
            "videos": packed_rows("videos", _video_rows(job, results), {"lps.params_sha256": params_sha256}),
            "clips": packed_rows("clips", clip_rows, {"lps.params_sha256": params_sha256}),
        }
        row = _shard_row(job, tar_path, clip_rows, packed["clips"].rows_sha256) if samples else None
        commit = commit_of(job.shard_id, job.plan_sha256, row_to_json(row) if row else None, packed)
        if out.exists(job.commit_uri) and read_commit(out, job.shard_id, job.plan_sha256).content != commit.content:
            raise IntegrityError(
                f"shard {job.shard_id} was committed before with other bytes: the same plan gave two results; "
                "compare library versions and hardware, then use a new output"
            )
        if samples:
            out.publish_file(tar_path, job.uri)
        else:
            out.delete(job.uri)  # of a run that was killed before its commit, in which a video gave clips
        publish_commit(out, commit, packed)
        return commit
    finally:
        tar_path.unlink(missing_ok=True)


def _video_rows(job: ShardJob, results: Sequence[VideoResult]) -> list[Row]:
    return [
        video_row(
            video.source,
            result.outcome,
            n_bytes=video.n_bytes,
            sha256=video.sha256,
            split=job.split,
            n_clips=len(result.clips),
            original_video_id=video.original_video_id,
        )
        for video, result in zip(job.videos, results, strict=True)
    ]


def _write_tar(
    path: Path, job: ShardJob, samples: Sequence[tuple[str, ShardVideo, Clip]], params: Params, params_sha256: str
) -> list[Row]:
    """Write all samples and return their manifest rows."""
    rows = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, video, clip in samples:
            start = tar.offset
            members = [
                _add(tar, f"{key}.{ext}", data)
                for ext, data in _members(job, video.source, clip, params, params_sha256)
            ]
            rows.append(
                {
                    **clip_facts(
                        video.source, clip, split=job.split, params_sha256=params_sha256, pair_id=video.pair_id
                    ),
                    "shard_id": job.shard_id,
                    "sample_key": key,
                    "tar_offset": start,
                    "tar_nbytes": tar.offset - start,
                    "members": members,
                    "block_len": params.block_frames,
                    "align_template": template_name(
                        params.out_px, params.template_scale if params.align else None, params.crop.margin
                    ),
                    "interp": INTERPOLATION,
                    "border": BORDER,
                    "out_size": params.stored_px,
                    "image_codec": params.codec,
                    "jpeg_q": params.jpeg_quality if params.codec == "jpg" else None,
                }
            )
    return rows


def _members(
    job: ShardJob, source: SourceVideo, clip: Clip, params: Params, params_sha256: str
) -> list[tuple[str, bytes]]:
    """Return (extension, bytes) of one sample, sorted by extension."""
    facts: dict[str, Any] = {
        "clip_id": clip_id(source.video_id, clip, params_sha256).hex(),
        "video_id": source.video_id.hex(),
        "dataset": source.dataset,
        "method": source.method,
        "label": source.label,
        "track_id": clip.track_id,
        "face_id": clip.face_id,
        "frame_idx": list(clip.frame_idx),
        "pts_s": list(clip.pts_seconds),
        "align_M": [list(matrix) for matrix in clip.align_M],
        "box_source": list(clip.box_source),
        "fps": job_fps(clip),
    }
    if params.stored_px != params.out_px:
        facts["inner_px"] = params.out_px  # `align_M` leads to this square, in the middle of the images
    members = [(f"{i:02d}.{params.codec}", image) for i, image in enumerate(clip.frames)]
    if source.label is not None:
        members.append(("cls", str(source.label).encode()))
    members.append(("json", pretty_json(facts)))
    return sorted(members)


def job_fps(clip: Clip) -> float | None:
    """Return the clip's mean frame rate from its time stamps, frames per second."""
    seconds = clip.pts_seconds[-1] - clip.pts_seconds[0]
    return round((clip.n_frames - 1) / seconds, 4) if seconds > 0 else None


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> Row:
    """Append one member without any trace of machine, user or time."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o644, 0
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    start = tar.offset
    tar.addfile(info, io.BytesIO(data))
    return {
        "ext": name.split(".", 1)[1],
        "offset": start + tarfile.BLOCKSIZE,
        "nbytes": len(data),
        "sha256": hashlib.sha256(data).digest(),
    }


def _shard_row(job: ShardJob, path: Path, clips: Sequence[Row], rows_sha256: str) -> Row:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").digest()
        file.seek(0)
        md5 = hashlib.file_digest(file, "md5").digest()  # what WebDataset's shard index wants; not for trust
    labels = [row["label"] for row in clips]
    return {
        "shard_id": job.shard_id,
        "uri": job.uri,
        "split": job.split,
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "md5": md5,
        "n_samples": len(clips),
        "n_members": sum(len(row["members"]) for row in clips),
        "exts": sorted({member["ext"] for row in clips for member in row["members"]}),
        "n_real": labels.count(0),
        "n_fake": labels.count(1),
        "first_key": clips[0]["sample_key"],
        "last_key": clips[-1]["sample_key"],
        "clips_rows_sha256": bytes.fromhex(rows_sha256),
        "writer_version": WRITER_VERSION,
        "status": "sealed",
    }
