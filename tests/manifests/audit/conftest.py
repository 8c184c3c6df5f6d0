"""A small, complete data set for the audit's tests, made by the code that makes real ones, and a way to spoil copies.

Nothing is decoded and no cluster runs: the sources are files of noise, the clips are drawn, and the shards, commit
records, manifests and index come from the writers of the pipeline.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lps.manifests.audit.core.database import open_dataset
from lps.manifests.audit.core.policy import Policy
from lps.manifests.audit.core.types import AuditContext, State
from lps.manifests.audit.run import Audit, Suite, base_suite, run_audit
from lps.manifests.canonical import sha256_hex
from lps.manifests.codes import Code, PairFallback, Stage, Status
from lps.manifests.names import Level
from lps.manifests.records import Clip, Header, Outcome, SourceVideo, VideoResult
from lps.manifests.schemas import Row
from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import Store
from lps.pipeline.clips.encode import encode_image, frames_digest
from lps.pipeline.clips.places import start_frames, start_seed
from lps.pipeline.config.params import PairParams, Params
from lps.pipeline.faces.align import align_matrix, template
from lps.pipeline.job.finalize import finalize
from lps.pipeline.job.plan import PlanSpec, build_plan, publish_plan
from lps.pipeline.job.shards import write_shard
from lps.pipeline.job.split_sets import add_split_set
from lps.pipeline.video.kept_probes import Probes
from lps.pipeline.video.probe import Probe
from tests.builders import build_data_set
from tests.manifests.audit.edits import FileEdit, RowEdit, edit_file, edit_table, replan

Cut = Callable[[SourceVideo, int], Clip]
"""Takes a video and its number of frames and returns its clip."""

PARAMS = Params(localizer="mtcnn", clip_frames=10, block_frames=5, out_px=64)
VERSIONS = {
    **{name: "1.0" for name in ("lps-prep", "python", "numpy", "av", "opencv-python-headless", "pillow", "torch")},
    "device": "cpu",
    "weights/mtcnn": "0" * 64,
}
SPEC = PlanSpec(
    dataset="table",
    params=PARAMS,
    split=SplitParams(rule="group"),
    split_set="group",
    shard_bytes=700_000,
    versions=VERSIONS,
)
N_SEQUENCES = 14
METHODS = ("Deepfakes", "Face2Face")
FAILED = {
    "original_sequences/youtube/c23/videos/003.mp4": (Status.FAILED, Code.E_NO_FACE, Stage.DETECT),
    "manipulated_sequences/Deepfakes/c23/videos/004_005.mp4": (Status.FAILED, Code.E_NO_FACE, Stage.DETECT),
    "manipulated_sequences/Face2Face/c23/videos/007_006.mp4": (Status.FAILED, Code.E_TOO_SHORT, Stage.DECODE),
    "manipulated_sequences/Face2Face/c23/videos/009_008.mp4": (Status.PARTIAL, Code.E_TRUNCATED, Stage.DECODE),
}
EMPTY = "original_sequences/youtube/c23/videos/empty.mp4"
MASK = "manipulated_sequences/Deepfakes/masks/videos/000_001.mp4"


@dataclass(frozen=True, slots=True)
class Built:
    """Where the unspoiled data set and its sources lie."""

    out: Path
    source: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build 14 real videos, 28 fakes of two methods, an empty file and a mask; split sets `group` and `ranked`."""
    root = tmp_path_factory.mktemp("audit")
    source, out = root / "source", root / "out"
    videos = [*_sequences(), _real("empty"), _mask()]
    probes = {}
    for video in videos:
        data = b"" if video.uri == EMPTY else Random(video.uri).randbytes(2000 + len(video.uri))
        (source / video.uri).parent.mkdir(parents=True, exist_ok=True)
        (source / video.uri).write_bytes(data)
        if video.code is None:
            probes[video.uri] = _probe(video, data)
    plan = build_plan(SPEC, videos, Probes.of(probes))
    store = Store(str(out))
    publish_plan(plan, store)
    for job in plan.shard_jobs():
        results = [_result(video.source, probes[video.source.uri].header) for video in job.videos]
        write_shard(job, results, PARAMS, store, root)
    finalize(plan, store)
    add_split_set(str(out), "ranked", SplitParams(rule="ranked", seed=3, giant="component"), None)
    return Built(out, source)


@pytest.fixture(scope="session")
def build_paired(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that builds a data set with pairing, without the two files that are no videos.

    It takes the URIs of fakes that show something else than their original around the face.
    """

    def build(unlike: Sequence[str] = ()) -> Path:
        out = tmp_path_factory.mktemp("paired") / "out"
        sources = _sequences()
        by_uri = {video.uri: video for video in sources}
        original = {video.uri: by_uri.get(video.original_uri or "") for video in sources}
        probes = {video.uri: _probe(video, video.uri.encode(), original[video.uri]) for video in sources}

        def cut(video: SourceVideo, n_frames: int) -> Clip:
            ground = video.uri if video.uri in unlike else str(video.target_keys)
            return _paired_clip(video, original[video.uri], n_frames, ground)

        def result(video: SourceVideo) -> VideoResult:
            return _result(video, probes[video.uri].header, cut)

        paired = replace(PARAMS, pair=PairParams(mode="original", max_face_px=6.0))
        build_data_set(out, replace(SPEC, params=paired), sources, probes, result)
        return out

    return build


@pytest.fixture(scope="session")
def paired(build_paired: Callable[..., Path]) -> Path:
    """Return the folder of an unspoiled data set with pairing. Tests only read it."""
    return build_paired()


@pytest.fixture(scope="session")
def dataset(built: Built) -> Path:
    """Return the folder of the unspoiled data set. Tests only read it."""
    return built.out


@pytest.fixture(scope="session")
def dataset_source(built: Built) -> Path:
    """Return the folder of its sources. They are noise: good for hashing, not for decoding."""
    return built.source


@pytest.fixture
def mutated(dataset: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies the data set (or `base`), applies edits and returns the copy's folder.

    * `tables`: name of a table (`videos`, `clips`, `shards`, `splits`, `splits/ranked`) -> function of each row
    * `files`: path below the data set -> function of its bytes
    * `digests`: also forge the row digest in the table's metadata and the file's entry in index.json
    * `commits`: also forge the commit records of `videos`, `clips` and `shards`

    Files are edited first. Without `digests` a table keeps its old row digest, and the index that of the old file.
    """
    made: list[Path] = []

    def mutate(
        tables: Mapping[str, RowEdit] | None = None,
        *,
        files: Mapping[str, FileEdit] | None = None,
        digests: bool = True,
        commits: bool = True,
        base: Path | None = None,
    ) -> Path:
        copy = tmp_path / f"mutated-{len(made)}"
        made.append(copy)
        shutil.copytree(base or dataset, copy)
        for path, of_file in (files or {}).items():
            edit_file(copy / path, of_file)
        for name, of_row in (tables or {}).items():
            edit_table(copy, name, of_row, digests=digests, commits=commits)
        return copy

    return mutate


@pytest.fixture
def audit_context() -> Iterator[Callable[..., AuditContext]]:
    """Return a function that opens a data set for auditing until the test ends.

    Arguments: its folder, then `split_set`, `source` and `limits` (the LIMITS of the checks that are to run).
    """
    with ExitStack() as stack:

        def open_it(
            out: Path,
            *,
            split_set: str | None = None,
            source: Path | None = None,
            limits: Mapping[str, float] = MappingProxyType({}),
        ) -> AuditContext:
            return stack.enter_context(
                open_dataset(str(out), split_set=split_set, source=str(source) if source else None, limits=limits)
            )

        yield open_it


@pytest.fixture
def replanned(dataset: Path, mutated: Callable[..., Path]) -> Callable[[Row], Path]:
    """Return a function that copies the data set with entries of plan.json changed, and whatever names its digest."""

    def with_changes(changes: Row) -> Path:
        out = mutated()
        replan(out, changes)
        return out

    return with_changes


@pytest.fixture
def audit() -> Callable[..., Audit]:
    """Return a function that audits a folder; `checks` are classes or ids."""

    def run(
        out: Path,
        checks: str = "A,T,C,R",
        *,
        level: str = "full",
        policy: Policy | None = None,
        source: Path | None = None,
        split_set: str | None = None,
        suite: Suite | None = None,
        strict: bool = False,
        today: date | None = None,
    ) -> Audit:
        policy = policy or Policy()
        chosen = (suite or base_suite()).with_policy(policy)
        with open_dataset(str(out), split_set, str(source) if source else None, chosen.limits) as ctx:
            return run_audit(
                ctx, chosen, policy, level=Level(level), selection=checks.split(","), strict=strict, today=today
            )

    return run


@pytest.fixture
def broken(audit: Callable[..., Audit]) -> Callable[..., dict[str, set[str]]]:
    """Return a function that audits as `audit` does and gives each broken check with the keys of its offenders."""

    def find(out: Path, checks: str = "A,T,C,R", **options: Any) -> dict[str, set[str]]:
        bad = (State.FAIL, State.WARN, State.ERROR)
        results = [result for result in audit(out, checks, **options).results if result.state in bad]
        return {r.id: {o.key for o in r.offenders} if r.state != State.ERROR else {r.note} for r in results}

    return find


# ---- sources -------------------------------------------------------------------------------------------------------


# The source is a table that names FaceForensics++ videos: 14 sequences are not the whole of that data set.


def _sequences() -> list[SourceVideo]:
    """Pair the sequences as FaceForensics++ does: each is the target of one fake a method and the donor of another."""
    names = [f"{i:03d}" for i in range(N_SEQUENCES)]
    pairs = [(name, names[i ^ 1]) for i, name in enumerate(names)]
    return [*map(_real, names), *(_fake(method, *pair) for method in METHODS for pair in pairs)]


def _real(name: str) -> SourceVideo:
    keys = () if name == "empty" else (f"ffpp/seq/{name}",)
    return SourceVideo(
        uri=f"original_sequences/youtube/c23/videos/{name}.mp4",
        dataset="ffpp",
        label=0,
        label_source="folder",
        compression="c23",
        target_keys=keys,
        source_keys=tuple(f"yt/{key[-3:]}" for key in keys),
        identity_keys=keys,
        identity_confidence="published",
    )


def _fake(method: str, target: str, donor: str) -> SourceVideo:
    return SourceVideo(
        uri=f"manipulated_sequences/{method}/c23/videos/{target}_{donor}.mp4",
        dataset="ffpp",
        label=1,
        label_source="folder",
        method=method,
        compression="c23",
        original_uri=f"original_sequences/youtube/c23/videos/{target}.mp4",
        target_keys=(f"ffpp/seq/{target}",),
        donor_keys=(f"ffpp/seq/{donor}",),
        source_keys=(f"yt/{target}", f"yt/{donor}"),
        identity_keys=(f"ffpp/seq/{target}", f"ffpp/seq/{donor}"),
        identity_confidence="published",
    )


def _mask() -> SourceVideo:
    return SourceVideo(uri=MASK, dataset="ffpp", label=None, label_source="folder", code=Code.S_MASK)


def _probe(video: SourceVideo, data: bytes, like: SourceVideo | None = None) -> Probe:
    """Return what is known of a file; with `like` it is as long as that video."""
    sha256 = sha256_hex(data)
    if not data:
        return Probe(n_bytes=0, sha256=sha256, code=Code.E_EMPTY_FILE, stage=Stage.PROBE)
    n_frames = Random((like or video).uri).randint(80, 140)
    header = Header(
        container="mov",
        codec="h264",
        pix_fmt="yuv420p",
        width=640,
        height=480,
        rotation=0,
        sar_num=1,
        sar_den=1,
        fps_num=25,
        fps_den=1,
        time_base_num=1,
        time_base_den=12800,
        n_frames_container=n_frames,
        duration_s=n_frames / 25,
        bitrate_bps=400_000 + Random(video.uri).randint(0, 9000),
        has_audio=False,
        n_video_streams=1,
        color_transfer="bt709",
        color_primaries="bt709",
        color_matrix="bt709",
        color_range="tv",
        field_order="progressive",
    )
    return Probe(n_bytes=len(data), sha256=sha256, header=header, n_frames_promised=n_frames)


# ---- results -------------------------------------------------------------------------------------------------------


def _result(video: SourceVideo, header: Header, cut: Cut | None = None) -> VideoResult:
    status, code, stage = FAILED.get(video.uri, (Status.OK, None, None))
    n_frames = header.n_frames_container or 0
    clips = () if status == Status.FAILED else ((cut or _clip)(video, n_frames),)
    outcome = Outcome(
        status=status,
        code=code,
        stage=stage,
        header=header,
        n_frames_decoded=5 if code == Code.E_TOO_SHORT else n_frames,
        is_vfr=False,
        n_frames_sampled=4,
        n_frames_with_face=0 if code == Code.E_NO_FACE else 4,
        n_tracks=len(clips),
        det_score_mean=0.9912 if clips else None,
        face_px_median=clips[0].quality["box_side_med"] if clips else None,
        phash=_hashes(video),
        phash_quality=(90, 90, 90),
    )
    return VideoResult(video_id=video.video_id, outcome=outcome, clips=clips)


def _hashes(video: SourceVideo) -> tuple[bytes, ...]:
    """Hash three frames: a fake's differ from its target's in a few bits."""
    base = Random(f"frames of {video.target_keys}")
    noise = Random(video.uri)
    hashes = []
    for _ in range(3):
        flips = sum(1 << noise.randrange(256) for _ in range(6 if video.label else 0))
        hashes.append((base.getrandbits(256) ^ flips % 2**256).to_bytes(32, "big"))
    return tuple(hashes)


def _clip(video: SourceVideo, n_frames: int) -> Clip:
    n, rng = PARAMS.clip_frames, np.random.default_rng(Random(video.uri).getrandbits(32))
    start = min(start_frames(video.video_id, n_frames, PARAMS))
    target = template(PARAMS.out_px, PARAMS.template_scale)
    side = float(rng.uniform(110, 150))
    centres = np.array([rng.uniform(220, 420), rng.uniform(180, 300)]) + rng.normal(0, 0.4, (n, 2)).cumsum(axis=0)
    points = [(target / PARAMS.out_px - 0.5) * side + centre + rng.normal(0, 0.5, (5, 2)) for centre in centres]
    faces = [_face(rng, video, k) for k in range(n)]
    frame_idx = tuple(range(start, start + n))
    return Clip(
        track_id=0,
        n_tracks_in_video=1,
        face_label_certain=True,
        frame_idx=frame_idx,
        pts_ticks=tuple(512 * index for index in frame_idx),
        pts_seconds=tuple(index / 25 for index in frame_idx),
        start_rule="seeded",
        start_seed=start_seed(video.video_id, PARAMS),
        box_xyxy=tuple((x - side / 2, y - side / 2, x + side / 2, y + side / 2) for x, y in centres.tolist()),
        box_source=(0, *(1,) * (n - 2), 0),
        det_score=(0.99,) * n,
        lmk5=tuple(tuple(map(float, p.ravel())) for p in points),
        align_M=tuple(tuple(map(float, align_matrix(p, (1.0, 1.0), target).ravel())) for p in points),
        det_rate=11 / 12,
        quality={
            "blur_var_med": round(float(rng.uniform(200, 300)), 4),
            "luma_mean": round(float(rng.uniform(110, 130)), 4),
            "luma_std": round(float(rng.uniform(40, 50)), 4),
            "box_side_med": round(side, 4),
            "iod_med": round(side * 0.4, 4),
            "yaw_absmax": round(float(rng.uniform(5, 15)), 4),
            "jitter_px": round(float(rng.uniform(0.2, 0.4)), 4),
            "outside_share": 0.0,
        },
        phash=Random(f"face in {video.uri}").randbytes(32),
        frames_sha256=frames_digest(faces),
        frames=tuple(encode_image(face, PARAMS) for face in faces),
    )


def _face(rng: np.random.Generator, video: SourceVideo, k: int) -> NDArray[np.uint8]:
    """Draw an oval with two eyes and a mouth that opens from frame to frame, on noise."""
    side = PARAMS.out_px
    y, x = np.mgrid[:side, :side] / side
    image = rng.integers(60, 90, (side, side, 3))
    hue = np.array(Random(str(video.target_keys)).choices(range(120, 230), k=3))
    image[((x - 0.5) / 0.36) ** 2 + ((y - 0.5) / 0.46) ** 2 < 1] = hue
    for eye in (0.37, 0.63):
        image[((x - eye) / 0.06) ** 2 + ((y - 0.42) / 0.04) ** 2 < 1] = 20
    image[((x - 0.5) / 0.14) ** 2 + ((y - 0.7) / (0.02 + 0.006 * k)) ** 2 < 1] = (150, 40, 50)
    return np.asarray(np.clip(image, 0, 255), np.uint8)


def _paired_clip(video: SourceVideo, original: SourceVideo | None, n_frames: int, ground: str) -> Clip:
    """Return the clip of a video before the ground of that name; cut as its original is, if that has a clip."""
    shares = original is not None and original.uri not in FAILED
    clip = _clip(original if original is not None and shares else video, n_frames)
    boxes = np.array(clip.box_xyxy)
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * 0.3
    faces = [_face_before(ground, video, k) for k in range(clip.n_frames)]
    modes: dict[str, Any] = {}
    if shares:
        modes = {"pair_mode": "shared", "pair_face_px": 1.25, "pair_background": 0.995}
    elif original is not None:
        modes = {"pair_mode": "fallback", "pair_fallback": PairFallback.P_ORIGINAL_FAILED}
    return replace(
        clip,
        box_xyxy=tuple(tuple(box) for box in np.hstack([middle - half, middle + half]).tolist()),
        phash=Random(f"face in {video.uri}").randbytes(32),
        frames_sha256=frames_digest(faces),
        frames=tuple(encode_image(face, PARAMS) for face in faces),
        **modes,
    )


def _face_before(ground: str, video: SourceVideo, k: int) -> NDArray[np.uint8]:
    """Draw the face of a video before large squares of grey, which are those of all videos with this ground."""
    n = PARAMS.out_px // 8
    squares = np.random.default_rng(Random(ground).getrandbits(32)).integers(40, 220, (n, n, 1))
    image = np.array(np.broadcast_to(np.kron(squares, np.ones((8, 8, 1))), (PARAMS.out_px, PARAMS.out_px, 3)), np.uint8)
    rng = np.random.default_rng(Random(f"{video.uri} {k}").getrandbits(32))
    inside = slice(PARAMS.out_px // 4, 3 * PARAMS.out_px // 4)
    image[inside, inside] = _face(rng, video, k)[inside, inside] // 2 + rng.integers(0, 99, (1, 1, 3))
    return image
