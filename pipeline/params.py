"""Every parameter that decides what a clip looks like. All of them are recorded in the plan and hashed."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from lps.manifests.canonical import canonical_json, sha256_hex
from lps.manifests.errors import UnreadableError

ALL_CLIPS = 0
"""Value of `Params.clips` that means every clip the video holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on hostile or absurd input; a video beyond them ends as E_LIMIT."""

    max_bytes: int = 8 * 1024**3
    max_seconds: float = 3600.0
    max_frames: int = 250_000
    max_side_px: int = 4096
    """Boxes are stored as int16 eighths of a pixel, which end at 4095."""
    max_area_px: int = 4096 * 2304


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
    faces: Literal["largest", "all", "single"] = "largest"
    """Which faces become clips: the largest, every one, or only faces that are alone (others are refused)."""
    cut_score: float = 0.42
    """Scene-cut score, 0 to 1, above which a run ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """What to make of each video."""

    localizer: str = "retinaface-fan"
    clips: int = 1
    """Clips per video; ALL_CLIPS for every one."""
    clip_frames: int = 60
    block_frames: int = 5
    out_px: int = 224
    align: bool = True
    """False crops the box instead of aligning (the paper's Table 3)."""
    template_scale: float = 0.85
    """Size of the face in units of the ArcFace template (112 px, doubled)."""
    codec: Literal["jpg", "png", "webp"] = "jpg"
    jpeg_quality: int = 95
    seed: int = 0
    localize: LocalizeParams = field(default_factory=LocalizeParams)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.clip_frames < 2 or self.clip_frames % self.block_frames:
            raise ValueError(
                f"clip_frames must be a multiple of block_frames, got {self.clip_frames = }, {self.block_frames = }"
            )
        if self.localize.smooth_frames % 2 == 0 or self.localize.stride_frames < 1:
            raise ValueError(f"smooth_frames must be odd and stride_frames positive, got {self.localize = }")
        if self.clips < 0 or not 0 < self.jpeg_quality <= 100:
            raise ValueError(
                f"clips must be >= 0 and jpeg_quality in 1..100, got {self.clips = }, {self.jpeg_quality = }"
            )

    def record(self) -> dict[str, Any]:
        """Return the parameters as plain JSON values."""
        return asdict(self)

    def sha256(self) -> str:
        """Return the digest that stands for these parameters in every manifest."""
        return sha256_hex(canonical_json(self.record()))


def params_from_record(record: dict[str, Any]) -> Params:
    """Rebuild `Params` from `record`, nested tables included.

    Raises UnreadableError for a name that is not a parameter or a value that is not allowed.
    """
    nested = {"localize": LocalizeParams, "limits": Limits}
    values = dict(record)
    for name, kind in nested.items():
        if name in values:
            values[name] = _build(kind, values[name], prefix=f"{name}.")
    built = _build(Params, values, prefix="")
    assert isinstance(built, Params)  # mypy
    return built


def _build(kind: type, values: Any, *, prefix: str) -> Any:
    known = {f.name for f in fields(kind)}
    if not isinstance(values, dict):
        raise UnreadableError(f"parameter table '{prefix.rstrip('.')}' must hold names and values, got {values!r}")
    unknown = sorted(set(values) - known)
    if unknown:
        raise UnreadableError(f"unknown parameter '{prefix}{unknown[0]}'; known ones: {', '.join(sorted(known))}")
    try:
        return kind(**values)
    except (TypeError, ValueError) as e:
        raise UnreadableError(f"parameters are not usable: {e}") from e
