"""Data sets of any number of clips, made by the code that makes real ones; cheap enough for ten thousand.

Nothing is decoded: pictures, boxes and landmarks are drawn once and used again, and no trait tells the label. Sequences
come in pairs; each of the two is the target of one fake and the donor of the other, and the four are in one split.
"""

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lps.manifests.canonical import sha256_hex
from lps.manifests.codes import Code, Stage, Status
from lps.manifests.records import Clip, Header, Outcome, SourceVideo, VideoResult
from lps.manifests.splits.records import Ratios, SplitParams
from lps.pipeline.clips.places import start_frames, start_seed
from lps.pipeline.config.params import PairParams, Params
from lps.pipeline.faces.align import align_matrix, template
from lps.pipeline.job.plan import PlanSpec
from lps.pipeline.tools.demo_videos import make_face_video
from lps.pipeline.video.probe import Probe
from tests.builders import build_data_set, process_folder

PARAMS = Params(localizer="mtcnn", clip_frames=5, block_frames=5, out_px=72)
PAIRED = replace(PARAMS, pair=PairParams(mode="original", max_face_px=6.0))
VERSIONS = {
    **{name: "1.0" for name in ("lps-prep", "python", "numpy", "av", "opencv-python-headless", "pillow", "torch")},
    "device": "cpu",
    "weights/mtcnn": "0" * 64,
}
SHARD_BYTES = 12_000_000
SPLITS = ("train", "val", "train", "test")
"""Splits of the pairs of sequences, in turn."""
DATASETS = ("one", "two")
METHODS = ("Morphing", "Reenactment")
N_GROUNDS, N_VARIANTS, N_TRACKS = 47, 4, 241
"""Backdrops, pictures before each, and movements of a face, of which clips have one; not in step with the splits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a data set is made of."""

    n_clips: int
    paired: bool = False
    """Fakes share the window and cut of their originals."""
    failing: int = 0
    """Every so manieth pair of sequences of the first data set gives no clip, four videos alike; 0: all give one."""
    single: bool = False
    """All videos are of the first data set; else half of them are of a second."""
    filmed: bool = False
    """Videos that are drawn, encoded and processed; their files are kept."""
    dataset: str = "table"
    """Published data set that the plan claims to be."""

    @property
    def params(self) -> Params:
        return PAIRED if self.paired else PARAMS

    @property
    def ratios(self) -> Ratios:
        return (0.5, 0.25, 0.25) if self.n_clips > 1 else (1.0, 0.0, 0.0)

    def videos(self) -> list[SourceVideo]:
        """Return the videos; one alone is real."""
        found = [video for pair in range(-(-self.n_clips // 4)) for video in self._family(pair)][: self.n_clips]
        return [replace(video, dataset=DATASETS[0]) for video in found] if self.single else found

    def _family(self, pair: int) -> list[SourceVideo]:
        a, b = 2 * pair, 2 * pair + 1
        one, other = METHODS if pair % 4 < 2 else METHODS[::-1]
        return [self._real(a), self._fake(one, a, b), self._real(b), self._fake(other, b, a)]

    def _real(self, k: int) -> SourceVideo:
        return SourceVideo(uri=f"a/{k:05d}/clip.mp4", label=0, **_traits(k, (k,)))

    def _fake(self, method: str, target: int, donor: int) -> SourceVideo:
        traits = {**_traits(target, (target, donor)), "target_keys": (_key(target),), "donor_keys": (_key(donor),)}
        uri, original = f"b/{target:05d}_{donor:05d}/clip.mp4", f"a/{target:05d}/clip.mp4"
        return SourceVideo(uri=uri, label=1, method=method, original_uri=original, **traits)

    def fails(self, video: SourceVideo) -> bool:
        """Tell whether a video gives no clip."""
        return bool(self.failing) and video.dataset == DATASETS[0] and _number(video) // 2 % self.failing == 0


def build(out: Path, recipe: Recipe) -> None:
    """Write the data set of a recipe; sources that are filmed lie beside it, in `source`."""
    if recipe.filmed:
        _film(out.parent / "source", recipe.n_clips)
        process_folder(out.parent / "source", out, replace(PARAMS, out_px=112))
        return
    videos = recipe.videos()
    by_uri = {video.uri: video for video in videos}
    probes = {video.uri: probe_of(video) for video in videos}

    def result(video: SourceVideo) -> VideoResult:
        header = probes[video.uri].header
        assert header is not None
        if recipe.fails(video):
            lost = outcome_of(video, header, Status.FAILED, 0)
            return VideoResult(video_id=video.video_id, outcome=replace(lost, code=Code.E_NO_FACE, stage=Stage.DETECT))
        clip = clip_of(video, by_uri.get(video.original_uri or "") if recipe.paired else None, header, recipe.params)
        return VideoResult(video_id=video.video_id, outcome=outcome_of(video, header, Status.OK, 1), clips=(clip,))

    spec = PlanSpec(
        dataset=recipe.dataset,
        params=recipe.params,
        split=SplitParams(rule="official", ratios=recipe.ratios),
        split_set="listed",
        shard_bytes=SHARD_BYTES,
        versions=VERSIONS,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    build_data_set(out, spec, videos, probes, result)


def _film(source: Path, n: int) -> None:
    """Draw n videos, every second one a fake of the one before."""
    for k in range(n):
        uri = f"fake/blend/{k // 2:05d}.mp4" if k % 2 else f"real/{k // 2:05d}.mp4"
        make_face_video(source / uri, n_frames=20, width=320, height=240, seed=k // 2, fake=bool(k % 2))


# ---- videos ----------------------------------------------------------------------------------------------------------


def _number(video: SourceVideo) -> int:
    """Return the number of a video's target sequence."""
    return int(video.uri[2:7])


def _key(k: int) -> str:
    return f"seq/{k:05d}"


def _traits(k: int, shown: Sequence[int]) -> dict[str, Any]:
    """Return what a video of sequence k has, in which the sequences `shown` are seen."""
    return {
        "dataset": DATASETS[(k // 4 + k // 8) % 2],
        "label_source": "csv",
        "compression": "c23",
        "official_split": SPLITS[k // 2 % len(SPLITS)],
        "target_keys": (_key(k),),
        "source_keys": tuple(f"recording/{s:05d}" for s in shown),
        "identity_keys": tuple(f"person/{s:05d}" for s in shown),
        "identity_confidence": "published",
    }


def probe_of(video: SourceVideo) -> Probe:
    """Return what is known of a file; a fake's is as that of its target but for its bytes."""
    data, traits = content_of(video), Random(f"file {_number(video)}")
    n_frames, height = traits.randint(80, 140), traits.choice((480, 720, 1080))
    header = Header(
        container="mov", codec=traits.choice(("h264", "h264", "vp9")), pix_fmt="yuv420p", width=height * 4 // 3,
        height=height, rotation=0, sar_num=1, sar_den=1, fps_num=25, fps_den=1, time_base_num=1, time_base_den=12800,
        n_frames_container=n_frames, duration_s=n_frames / 25, bitrate_bps=traits.randint(400_000, 900_000),
        has_audio=False, n_video_streams=1, color_transfer="bt709", color_primaries="bt709", color_matrix="bt709",
        color_range="tv", field_order="progressive",
    )  # fmt: skip
    return Probe(n_bytes=len(data), sha256=sha256_hex(data), header=header, n_frames_promised=n_frames)


def content_of(video: SourceVideo) -> bytes:
    """Return the bytes of a video's file: noise, as long as that of its target."""
    return Random(video.uri).randbytes(100 + _number(video) % 7)


def outcome_of(video: SourceVideo, header: Header, status: Status, n_tracks: int) -> Outcome:
    """Return what became of a video, but for a code."""
    looks = Random(f"looks {_number(video)}").randint(8, 12)
    made = {"status": Status.OK, "header": header, "n_frames_decoded": header.n_frames_container, "is_vfr": False}
    faces = {"n_frames_sampled": 12, "n_frames_with_face": looks if n_tracks else 0, "n_tracks": n_tracks}
    hashes = {"phash": _hashes(video), "phash_quality": (90, 90, 90)}
    outcome = Outcome(**made, **faces, **hashes)  # type: ignore[arg-type]
    return outcome if status == Status.OK else replace(outcome, status=status, code=Code.E_NO_FACE)


def _hashes(video: SourceVideo) -> tuple[bytes, ...]:
    base, noise = Random(f"frames of {_number(video)}"), Random(video.uri)
    flips = [sum(1 << noise.randrange(256) for _ in range(6 if video.label else 0)) for _ in range(3)]
    return tuple((base.getrandbits(256) ^ flip % 2**256).to_bytes(32, "big") for flip in flips)


# ---- clips -----------------------------------------------------------------------------------------------------------


def clip_of(video: SourceVideo, original: SourceVideo | None, header: Header, params: Params) -> Clip:
    """Return the clip of a video; with its original, a clip that shares the window and cut of that one's."""
    cut = original or video
    start = min(start_frames(cut.video_id, header.n_frames_container or 0, params))
    numbers = tuple(range(start, start + params.clip_frames))
    looks = Random(f"pictures {video.uri}")
    ground, variant = _number(video) % N_GROUNDS, looks.randrange(N_VARIANTS)
    shared: Mapping[str, Any] = {"pair_mode": "shared", "pair_face_px": 1.25, "pair_background": 0.995}
    return replace(
        _track(_number(video) % N_TRACKS),
        frame_idx=numbers,
        pts_ticks=tuple(512 * k for k in numbers),
        pts_seconds=tuple(k / 25 for k in numbers),
        start_seed=start_seed(cut.video_id, params),
        phash=Random(f"face {video.uri}").randbytes(32),
        frames_sha256=Random(f"frames {video.uri}").randbytes(32),
        frames=tuple(picture(ground, variant, k) for k in range(params.clip_frames)),
        **(shared if original is not None else {}),
    )


@cache
def _track(number: int) -> Clip:
    """Return a clip whose face moves in one of some ways; without time and pictures."""
    n, rng = PARAMS.clip_frames, np.random.default_rng(number)
    target = template(PARAMS.out_px, PARAMS.template_scale)
    side = float(rng.uniform(110, 150))
    centres = np.array([rng.uniform(220, 420), rng.uniform(180, 300)]) + rng.normal(0, 0.4, (n, 2)).cumsum(axis=0)
    points = [(target / PARAMS.out_px - 0.5) * side + centre + rng.normal(0, 0.5, (5, 2)) for centre in centres]
    half = side * 0.3
    return Clip(
        track_id=0,
        n_tracks_in_video=1,
        face_label_certain=True,
        frame_idx=(0,) * n,
        pts_ticks=(0,) * n,
        pts_seconds=(0.0,) * n,
        start_rule="seeded",
        start_seed=0,
        box_xyxy=tuple((x - half, y - half, x + half, y + half) for x, y in centres.tolist()),
        box_source=(0, *(1,) * (n - 2), 0),
        det_score=(0.99,) * n,
        lmk5=tuple(tuple(map(float, p.ravel())) for p in points),
        align_M=tuple(tuple(map(float, align_matrix(p, (1.0, 1.0), target).ravel())) for p in points),
        det_rate=11 / 12,
        quality={
            "blur_var_med": round(float(rng.uniform(200, 300)), 4),
            "luma_mean": round(float(rng.uniform(110, 130)), 4),
            "luma_std": round(float(rng.uniform(40, 50)), 4),
            "box_side_med": round(2 * half, 4),
            "iod_med": round(side * 0.4, 4),
            "yaw_absmax": round(float(rng.uniform(5, 15)), 4),
            "jitter_px": round(float(rng.uniform(0.2, 0.4)), 4),
            "outside_share": 0.0,
        },
        phash=bytes(32),
        frames_sha256=bytes(32),
        frames=(b"",) * n,
    )


@cache
def picture(ground: int, variant: int, k: int) -> bytes:
    """Draw frame k of a face before squares of grey, which all pictures of this ground show."""
    side = PARAMS.out_px
    squares = np.random.default_rng(ground).integers(40, 220, (side // 8, side // 8, 1))
    image = np.array(np.broadcast_to(np.kron(squares, np.ones((8, 8, 1))), (side, side, 3)), np.uint8)
    rng = np.random.default_rng((ground, variant, k))
    inside = slice(side // 4, 3 * side // 4)
    image[inside, inside] = rng.integers(60, 200, (1, 1, 3)) + rng.integers(-30, 30, (side // 2, side // 2, 3))
    return jpeg(image)


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return a picture as the shards hold it."""
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "JPEG", quality=75)
    return sink.getvalue()


def write_sources(folder: Path, videos: Collection[SourceVideo]) -> None:
    """Write the files that the videos were made from."""
    for video in videos:
        (folder / video.uri).parent.mkdir(parents=True, exist_ok=True)
        (folder / video.uri).write_bytes(content_of(video))
