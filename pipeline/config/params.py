"""Every parameter that decides what a clip looks like. All of them are recorded in the plan and hashed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

from lps.manifests.arrays import Square, check_margin, margin_side, square_of
from lps.manifests.canonical import canonical_json, sha256_hex
from lps.manifests.fields import with_values
from lps.manifests.names import Codec, FacePolicy, Pairing, Scan

WRITER_VERSION = "6"
"""Rises when equal sources and parameters give other clips, rows or files: 2 since decoding knows lost frames, 6 since
there are cards."""
ALL_CLIPS = 0
"""Value of `Params.clips` that means every clip the video holds."""
WITHOUT_A_RECORD = {"max_outside_share": 1.0, "max_step": 2.5, "tone_map": False, "decode": {"scan": "whole"}}
"""What was done before these parameters were: a record that lacks them is older than they are."""
WITHOUT_MARGIN: dict[str, Any] = {"crop": {"margin": 1.0}}
"""What a record that has no `crop` says."""
INTERPOLATION, BORDER = "linear", "reflect"
"""How faces are aligned (pipeline/faces/align.py), in the words of the manifests."""
MAX_CLIP_FRAMES = 1000
"""A run of as many frames is held in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on hostile or absurd input; a video beyond them ends as E_LIMIT."""

    max_bytes: int = 8 * 1024**3
    max_seconds: float = 3600.0
    max_frames: int = 250_000
    max_side_px: int = 4096
    """Boxes are stored as int16 eighths of a pixel, which end at 4095."""
    max_area_px: int = 4096 * 2304

    def __post_init__(self) -> None:
        require_above_zero(self, "max_bytes", "max_seconds", "max_frames", "max_side_px", "max_area_px")
        if self.max_side_px > 4096:
            raise ValueError(f"max_side_px cannot be above 4096, where boxes end, got {self.max_side_px}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalizeParams:
    """How faces are found and followed. `units`: 'source px' before alignment, 'output px' after it."""

    detect_side_px: int = 640
    """Whole frames are searched at this longest side."""
    crop_px: int = 320
    """Side of the fixed crop in which a known face is found again."""
    crop_margin: float = 2.5
    """Side of that crop in units of the longer side of the face's box."""
    stride_frames: int = 8
    """Distance of the key frames. 1 detects every frame, as the paper does."""
    bound_px: float = 2.0
    """Largest miss, in output px, of the interpolated landmarks at the middle of an interval before it is split."""
    min_score: float = 0.8
    min_face_px: float = 32.0
    """Height of the box in source px below which a face is not used."""
    max_gap_frames: int = 5
    """Longest run of missed frames that is bridged."""
    min_det_rate: float = 0.6
    smooth_frames: int = 7
    """Window of the Savitzky-Golay filter (order 2) over the landmarks of a track; 1 turns it off."""
    faces: FacePolicy = "largest"
    """Which faces become clips: the largest, every one, or only faces that are alone (others are refused)."""
    cut_score: float = 0.42
    """Scene-cut score, 0 to 1, above which a run ends."""

    def __post_init__(self) -> None:
        require_above_zero(self, "detect_side_px", "crop_px", "crop_margin", "stride_frames", "smooth_frames")
        for name in ("min_score", "min_det_rate", "cut_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be within 0 and 1, got {getattr(self, name)}")
        if self.crop_px % 32:
            raise ValueError(f"crop_px must be a multiple of 32, the detectors' stride, got {self.crop_px}")
        if self.smooth_frames % 2 == 0:
            raise ValueError(f"smooth_frames must be odd, got {self.smooth_frames}")
        if min(self.bound_px, self.min_face_px, self.max_gap_frames) < 0:
            raise ValueError(f"bound_px, min_face_px and max_gap_frames cannot be negative, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeParams:
    """How much of a video is decoded."""

    scan: Scan = "window"
    """`window`: what its clips need, from the key frame before each on, where every pixel is then that of decoding from
    the start. `whole`: all of it, which sees damage anywhere."""
    frames_fps: float = 25.0
    """Rate of sequences of images, which say nothing of time: their numbers over it are their time stamps, seconds."""

    def __post_init__(self) -> None:
        if not 0.1 <= self.frames_fps <= 1000:
            raise ValueError(f"frames_fps must be from 0.1 to 1000, got {self.frames_fps}")

    @property
    def rate(self) -> Fraction:
        """`frames_fps` as a fraction: 23.976 is 2997/125."""
        return Fraction(str(self.frames_fps)).limit_denominator(1001)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairParams:
    """Whether a fake takes windows, boxes and transforms of its original, and how far the two may differ."""

    mode: Pairing = "none"
    max_frames_off: float = 0.05
    """Largest difference of their numbers of frames, in shares of the original's; two frames are always allowed."""
    min_background: float = 0.9
    """Smallest correlation of what lies around both faces."""
    face_frames: int = 3
    """Frames of each clip on which the fake's own face is looked for."""
    max_face_px: float = 8.0
    """Largest mean distance, in output px, of its five points from its original's."""

    def __post_init__(self) -> None:
        require_above_zero(self, "face_frames", "max_face_px")
        if not 0 <= self.max_frames_off < 1:
            raise ValueError(f"max_frames_off must be from 0 to below 1, got {self.max_frames_off}")
        if not -1 <= self.min_background <= 1:
            raise ValueError(f"min_background is a correlation, -1 to 1, got {self.min_background}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CropParams:
    """How much is stored around the face; see `manifests/arrays.py`."""

    margin: float = 1.0
    """Side of the stored images in units of `out_px`, 1 to 2. The inner square stays what it is without a margin."""

    def __post_init__(self) -> None:
        check_margin("margin", self.margin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """What to make of each video."""

    localizer: str = "retinaface-fan"
    clips: int = 1
    """Clips per video; ALL_CLIPS for every one."""
    clip_frames: int = 60
    block_frames: int = 5
    max_step: float = 1.5
    """Step between time stamps, in usual steps, above which a run of frames ends in video of constant rate."""
    out_px: int = 224
    """Side of the aligned face: of the stored images without a margin, else of their inner square."""
    align: bool = True
    """False crops the box instead of aligning (the paper's Table 3)."""
    template_scale: float = 0.85
    """Size of the face in units of the ArcFace template (112 px, doubled)."""
    max_outside_share: float = 0.4
    """Largest share, 0 to 1, of a frame's output px that may lie outside the picture: they show a reflection."""
    tone_map: bool = True
    """Make SDR pictures of PQ and HLG video (`pipeline/video/tone_map.py`); False takes the code values as they are."""
    codec: Codec = "jpg"
    jpeg_quality: int = 95
    seed: int = 0
    decode: DecodeParams = field(default_factory=DecodeParams)
    crop: CropParams = field(default_factory=CropParams)
    localize: LocalizeParams = field(default_factory=LocalizeParams)
    pair: PairParams = field(default_factory=PairParams)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        require_above_zero(self, "block_frames", "max_step", "out_px", "template_scale")
        if not 2 <= self.clip_frames <= MAX_CLIP_FRAMES or self.clip_frames % self.block_frames:
            raise ValueError(
                f"clip_frames must be a multiple of block_frames, from 2 to {MAX_CLIP_FRAMES}, "
                f"got {self.clip_frames = }, {self.block_frames = }"
            )
        if not 0 <= self.max_outside_share <= 1:
            raise ValueError(f"max_outside_share must be within 0 and 1, got {self.max_outside_share}")
        if self.clips < 0 or not 0 < self.jpeg_quality <= 100:
            raise ValueError(
                f"clips must be >= 0 and jpeg_quality in 1..100, got {self.clips = }, {self.jpeg_quality = }"
            )

    @property
    def stored_px(self) -> int:
        """Side of the stored images, px."""
        return margin_side(self.out_px, self.crop.margin)

    @property
    def inner(self) -> Square:
        """The inner square of the stored images: what they are without a margin."""
        return square_of(self.stored_px, self.out_px)

    def record(self) -> dict[str, Any]:
        """Return the parameters as plain JSON values; without a margin, as they were before there was one."""
        record = asdict(self)
        return {name: value for name, value in record.items() if WITHOUT_MARGIN.get(name) != value}

    def sha256(self) -> str:
        """Return the digest that stands for these parameters in every manifest."""
        return sha256_hex(canonical_json(self.record()))


def params_from_record(record: Mapping[str, Any]) -> Params:
    """Rebuild `Params` from what a plan or a checkpoint recorded, nested tables included; see WITHOUT_A_RECORD.

    Raises UnreadableError for a name that is not a parameter or a value that is not allowed.
    """
    return with_values(Params(), {**WITHOUT_A_RECORD, **record})


def require_above_zero(params: Any, *names: str) -> None:
    """Raise ValueError for the first of the fields `names` that is not above zero."""
    for name in names:
        if getattr(params, name) <= 0:
            raise ValueError(f"{name} must be above zero, got {getattr(params, name)}")
