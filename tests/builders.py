"""What many tests build and read back: records, data sets, checkpoints, decoded videos."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from lps.manifests.codes import Code
from lps.manifests.records import Clip, SourceVideo, VideoResult
from lps.manifests.schemas import Row, read_table
from lps.manifests.splits.learnt import LEARNT, Learnt
from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import Store
from lps.model.networks.detector import Detector
from lps.model.training.checkpoint import Checkpoint, learnt_tensor
from lps.model.training.presets import Preset
from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import Limits, Params
from lps.pipeline.faces.localizers import load_localizer
from lps.pipeline.job.finalize import Summary, finalize
from lps.pipeline.job.plan import PlanSpec, build_plan, publish_plan
from lps.pipeline.job.shards import write_shard
from lps.pipeline.sources.shared.types import SourceListing
from lps.pipeline.video.decode import DecodeStats, decode
from lps.pipeline.video.frame import Frame
from lps.pipeline.video.kept_probes import Probes
from lps.pipeline.video.probe import Probe, probe_file
from lps.pipeline.video.source_reader import SourceReader, SourceRef

LIMITS = Limits()


# ---- videos ----------------------------------------------------------------------------------------------------------


def decoded(path: Path, limits: Limits = LIMITS) -> tuple[list[Frame], DecodeStats]:
    """Return the frames that the pipeline decodes, and what it counted."""
    stats = DecodeStats()
    return list(decode(path, Params(limits=limits), stats)), stats


def decoded_by_pyav(path: Path) -> dict[int, NDArray[np.uint8]]:
    """Return what PyAV alone decodes: pts -> RGB."""
    with av.open(str(path)) as container:
        return {frame.pts or 0: np.asarray(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)}


def take_out(path: Path, out: Path, *numbers: int) -> Path:
    """Write the packets of a video anew, all but those of the coded order's `numbers`."""
    with av.open(str(path)) as source, av.open(str(out), "w") as sink:
        stream = source.streams.video[0]
        copy = sink.add_stream_from_template(stream, opaque=True)
        for k, packet in enumerate(packet for packet in source.demux(stream) if packet.size):
            if k not in numbers:
                packet.stream = copy
                sink.mux(packet)
    return out


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return how alike two pictures are, in dB."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def breaks(frames: Sequence[Frame]) -> list[int]:
    """Return the indices of frames that do not follow the one before."""
    return [frame.index for frame in frames if frame.breaks]


# ---- records ---------------------------------------------------------------------------------------------------------


def folder_video(uri: str, label: int | None, *, method: str | None = None, code: Code | None = None) -> SourceVideo:
    """Return a video as the adapter of folders lists it."""
    return SourceVideo(uri=uri, dataset="folder", label=label, label_source="folder", method=method, code=code)


def by_uri(listing: SourceListing) -> dict[str, SourceVideo]:
    """Return the videos of a listing by their URIs."""
    return {video.uri: video for video in listing.videos}


def still_clip(n: int, start: int = 0, **changes: object) -> Clip:
    """Return a clip of n frames from frame `start` on in which a face of 100 px stands still."""
    numbers = tuple(range(start, start + n))
    clip = Clip(
        track_id=0,
        n_tracks_in_video=1,
        face_label_certain=True,
        frame_idx=numbers,
        pts_ticks=numbers,
        pts_seconds=tuple(k / 25 for k in numbers),
        start_rule="seeded",
        start_seed=0,
        box_xyxy=((0.0, 0.0, 100.0, 100.0),) * n,
        box_source=(0,) * n,
        det_score=(1.0,) * n,
        lmk5=((0.0,) * 10,) * n,
        align_M=((1.0, 0.0, 0.0, 0.0, 1.0, 0.0),) * n,
        det_rate=1.0,
        quality={},
        phash=bytes(32),
        frames_sha256=bytes(32),
        frames=(b"",) * n,
    )
    return replace(clip, **changes)  # type: ignore[arg-type]


# ---- data sets -------------------------------------------------------------------------------------------------------


def folder_spec(params: Params, *, shard_bytes: int = 1 << 30, split_set: str = "group") -> PlanSpec:
    """Return what a data set of folders is planned from."""
    return PlanSpec(
        dataset="folder", params=params, split=SplitParams(), split_set=split_set, shard_bytes=shard_bytes, versions={}
    )


def build_data_set(
    out: Path,
    spec: PlanSpec,
    videos: Sequence[SourceVideo],
    probes: Mapping[str, Probe],
    result_of: Callable[[SourceVideo], VideoResult],
) -> Summary:
    """Plan, write and finalize a data set as a run does; `result_of` stands for the processing of a video."""
    plan, store = build_plan(spec, videos, Probes.of(probes)), Store(str(out))
    publish_plan(plan, store)
    for job in plan.shard_jobs():
        write_shard(job, [result_of(video.source) for video in job.videos], spec.params, store, out.parent)
    return finalize(plan, store)


def process_folder(source: Path, out: Path, params: Params) -> Summary:
    """Build a data set of real/… and fake/…/… below `source`: probed and processed, without a cluster."""
    uris = sorted((path.relative_to(source).as_posix() for path in source.rglob("*.mp4")), reverse=True)
    videos = [folder_video(uri, int(uri.startswith("fake/"))) for uri in uris]
    probes = {uri: probe_file(SourceReader(Store(str(source))), SourceRef(uri), params.limits) for uri in uris}
    find_faces = load_localizer("mtcnn", weights_dir=None, device="cpu", batch_size=16).detect

    def processed(video: SourceVideo) -> VideoResult:
        return process_video(source / video.uri, video.video_id, find_faces, params)

    return build_data_set(out, folder_spec(params), videos, probes, processed)


def manifest_rows(out: Path, table: str) -> list[Row]:
    """Return the rows of a manifest of a data set."""
    return list(read_table(table, (out / f"manifests/{table}.parquet").read_bytes()).to_pylist())


# ---- detectors -------------------------------------------------------------------------------------------------------


def detector_checkpoint(network: Detector, preset: Preset, **changes: object) -> Checkpoint:
    """Return the checkpoint of a detector as a run of `classify` leaves it that saw no video."""
    record = Checkpoint(
        stage="classify",
        config={"preset": preset.record()},
        data={},
        network=network.state_dict(),
        progress={},
        learnt=learnt_tensor(Learnt(LEARNT.empty_table())),
    )
    return replace(record, **changes)  # type: ignore[arg-type]
