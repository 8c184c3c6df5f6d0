"""Small data sets for the tests of converts, and what their shards hold."""

import hashlib
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lps.manifests.codes import Status
from lps.manifests.records import Header, Outcome, SourceVideo, VideoResult
from lps.manifests.schemas import parquet_bytes, read_table
from lps.manifests.storage import Store
from lps.pipeline.clips.encode import encode_image
from lps.pipeline.config.params import Params
from lps.pipeline.tools.convert import Converted, ConvertRequest, convert_clips
from lps.pipeline.video.probe import Probe
from tests.builders import build_data_set, folder_spec, folder_video, still_clip

N_FRAMES = 5
PARAMS = Params(localizer="mtcnn", codec="jpg", clip_frames=N_FRAMES, block_frames=N_FRAMES, out_px=32)
TICKS = (30, 31, 33, 34, 38)
"""Time stamps of every clip, in units of 1/25 s: the rate is not constant."""
ALIGN = (0.5, -0.25, 7.0, 0.25, 0.5, -3.5)
"""Source px to px of the image, where a clip has landmarks."""
FFPP_METHODS = ("Deepfakes", "NeuralTextures", "FaceShifter")


def ffpp_videos(n: int = 10) -> list[SourceVideo]:
    """Return reals of FaceForensics++ and fakes of three methods."""
    reals = [folder_video(f"real/{k:03d}.mp4", 0) for k in range(n)]
    fakes = [folder_video(f"fake/{m}/{k:03d}.mp4", 1, method=m) for m in FFPP_METHODS for k in range(n)]
    return [replace(video, dataset="ffpp", compression="c23") for video in (*reals, *fakes)]


def pixels(video_id: bytes, params: Params = PARAMS) -> list[NDArray[np.uint8]]:
    """Return the images of a video's clip: noise, another one for every video."""
    shape = (params.clip_frames, params.out_px, params.out_px, 3)
    return list(np.random.default_rng(list(video_id)).integers(0, 256, shape, np.uint8))


def landmarks_of(video_id: bytes, n_frames: int = N_FRAMES) -> NDArray[np.float64]:
    """Return 68 landmarks for each frame of a video's clip, (n_frames, 68, 2) source px, eighths of them."""
    return np.random.default_rng([1, *video_id]).integers(0, 3000, (n_frames, 68, 2)) / 8


def make_data_set(
    out: Path,
    videos: Sequence[SourceVideo],
    params: Params = PARAMS,
    *,
    with_landmarks: Callable[[SourceVideo], bool] = lambda video: False,
) -> Store:
    """Make a data set of a clip a video."""
    header = Header(time_base_num=1, time_base_den=25)

    def processed(video: SourceVideo) -> VideoResult:
        images = tuple(encode_image(image, params) for image in pixels(video.video_id, params))
        clip = still_clip(
            params.clip_frames, 30, frames=images, pts_ticks=TICKS, pts_seconds=tuple(t / 25 for t in TICKS)
        )
        if with_landmarks(video):
            points = landmarks_of(video.video_id, params.clip_frames)
            clip = replace(
                clip,
                lmk68=tuple(tuple(map(float, face.ravel())) for face in points),
                align_M=(ALIGN,) * params.clip_frames,
            )
        outcome = Outcome(status=Status.OK, n_frames_decoded=80, n_tracks=1, header=header)
        return VideoResult(video_id=video.video_id, outcome=outcome, clips=(clip,))

    digests = {video.uri: hashlib.sha256(video.uri.encode()).hexdigest() for video in videos}
    probes = {uri: Probe(n_bytes=100, sha256=digest, n_frames_promised=80) for uri, digest in digests.items()}
    build_data_set(out, folder_spec(params, shard_bytes=100_000), videos, probes, processed)
    return Store(str(out))


def converted(out: Store, target: Path, kind: str, **options: object) -> Converted:
    """Convert, as the command does."""
    return convert_clips(ConvertRequest(out=out.url, target=target, kind=kind, **options), lambda event: None)  # type: ignore[arg-type]


def tree(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a folder by its path, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def stored_members(out: Store) -> dict[str, bytes]:
    """Return every member of every shard by its name."""
    found = {}
    for path in sorted(Path(out.url).rglob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def change_clips(out: Store, **changes: object) -> None:
    """Give the first row of the manifest of clips other values."""
    path = "manifests/clips.parquet"
    table = read_table("clips", out.read(path))
    for name, value in changes.items():
        values = [value, *table[name].to_pylist()[1:]]
        at = table.column_names.index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    out.publish(path, parquet_bytes("clips", table, {}))
