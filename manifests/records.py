"""One frozen record per boundary: what a source yields, what a header says, what became of a video, what a clip is."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from lps.manifests.canonical import digest16
from lps.manifests.codes import Code, PairFallback, Stage, Status
from lps.manifests.names import PairMode, Scan


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceVideo:
    """One input video as its data set describes it. Adapters yield these; nothing here needs the file opened."""

    uri: str
    """POSIX path relative to the source root; that of a sequence of images ends with a slash."""
    dataset: str
    """`folder`, `ffpp`, `dfd`, `dfdc`, `celebdf2`, or what a table names."""
    label: int | None
    """0 real, 1 fake, None unknown."""
    label_source: str
    """`folder`, `metadata`, `list` or `csv`."""
    method: str | None = None
    """Name of the manipulation; None for real videos."""
    compression: str | None = None
    source_part: str | None = None
    official_split: str | None = None
    """`train`, `val` or `test` as published."""
    original_uri: str | None = None
    """Path, relative to the root, of the real video that a fake was made from."""
    target_keys: tuple[str, ...] = ()
    """Global keys of the target sequence, e.g. `ffpp/seq/071`."""
    donor_keys: tuple[str, ...] = ()
    source_keys: tuple[str, ...] = ()
    """Global provenance keys, e.g. `yt/--b1Ua-kWJE`."""
    identity_keys: tuple[str, ...] = ()
    """Global person keys, e.g. `celebdf2/id/id16`."""
    identity_confidence: str = "none"
    """`published`, `alias_list`, `embedding` or `none`."""
    code: Code | None = None
    """A fault or skip that the data set's own files already show; such a video is not processed."""
    detail: str = ""

    @property
    def video_id(self) -> bytes:
        """16 bytes that name the video without reading it: sha256 of data set and path."""
        return digest16(self.dataset, self.uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the container claims, before decoding. None where the container is silent."""

    container: str | None = None
    codec: str | None = None
    pix_fmt: str | None = None
    width: int | None = None
    """Pixels as coded, before rotation."""
    height: int | None = None
    rotation: int | None = None
    """Degrees of clockwise turn needed for display: 0, 90, 180 or 270."""
    sar_num: int | None = None
    sar_den: int | None = None
    fps_num: int | None = None
    fps_den: int | None = None
    time_base_num: int | None = None
    time_base_den: int | None = None
    n_frames_container: int | None = None
    duration_s: float | None = None
    bitrate_bps: int | None = None
    has_audio: bool | None = None
    n_video_streams: int | None = None
    color_transfer: str | None = None
    """FFmpeg's name, as all below; `unknown` where the stream is silent. PQ is `smpte2084`, HLG `arib-std-b67`."""
    color_primaries: str | None = None
    color_matrix: str | None = None
    color_range: str | None = None
    """`tv` (limited) or `pc` (full)."""
    field_order: str | None = None
    """`progressive`, or of interlaced video the field coded first and the field shown first: `tt`, `bb`, `tb`, `bt`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one video: the part of its row that processing decides."""

    status: Status
    code: Code | None = None
    stage: Stage | None = None
    detail: str = ""
    header: Header = field(default_factory=Header)
    n_frames_decoded: int | None = None
    """Frames that came out of the decoder: with a window scan only those on the way to clips."""
    scan: Scan | None = None
    """What of the video was decoded; None where nothing was."""
    is_vfr: bool | None = None
    pts_nominal: bool = False
    """True where the stream has no time stamps and they were counted from its frame rate."""
    n_frames_sampled: int = 0
    """Frames that a detector was asked about."""
    n_frames_with_face: int = 0
    """Frames among those where it found the face it was asked for."""
    n_tracks: int = 0
    det_score_mean: float | None = None
    face_px_median: float | None = None
    """Median height of the tracked face's box, source pixels."""
    phash: tuple[bytes, ...] = ()
    """PDQ hashes of the whole frame at 0, 1 and 2 seconds."""
    phash_quality: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if (self.status == Status.OK) != (self.code is None):
            raise ValueError(f"a code belongs to every row but an ok one, got {self.status = }, {self.code = }")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One sample: consecutive frames of one face track, aligned. Per-frame tuples all have length `n_frames`."""

    track_id: int
    n_tracks_in_video: int
    face_label_certain: bool
    face_id: int = 0
    """Number of the face in the video, the same for all clips that show it; `track_id` is its number in one run."""
    frame_idx: tuple[int, ...]
    """True indices of the decoded frames, counted from the first frame that decodes."""
    pts_ticks: tuple[int, ...]
    """Presentation time stamps in units of the stream's time base."""
    pts_seconds: tuple[float, ...]
    start_rule: str
    start_seed: int
    box_xyxy: tuple[tuple[float, float, float, float], ...]
    """Face box in source pixels (after rotation)."""
    box_source: tuple[int, ...]
    """0 detected; 1 between two detections that bound it; 2 asked for and missed, bridged."""
    det_score: tuple[float, ...]
    lmk5: tuple[tuple[float, ...], ...]
    """Five points (eyes, nose, mouth corners; x, y) in source pixels."""
    lmk68: tuple[tuple[float, ...], ...] | None = None
    """68 points (x, y) in source pixels, of localizers that find so many."""
    align_M: tuple[tuple[float, ...], ...]  # noqa: N815  the manifest's published column name
    """2x3 row-major matrices, source pixels to output pixels, exactly as used (float32)."""
    det_rate: float
    """Detected frames / frames asked about: interpolated frames count on neither side."""
    quality: dict[str, float]
    phash: bytes
    """PDQ hash of the middle aligned frame."""
    frames_sha256: bytes
    """Digest of the aligned RGB frames before image encoding."""
    frames: tuple[bytes, ...]
    """Encoded images, in time order."""
    pair_mode: PairMode = "own"
    """`shared`: window, boxes and transforms are those of the original; `fallback`: they should have been."""
    pair_fallback: PairFallback | None = None
    pair_face_px: float | None = None
    """Mean distance of the fake's own landmarks from its original's, output px; None where they were not looked for."""
    pair_background: float | None = None
    """Correlation, -1 to 1, of what lies around both faces; None where it was not looked at."""

    @property
    def n_frames(self) -> int:
        """Number of frames of the clip."""
        return len(self.frame_idx)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedWindow:
    """A run of frames of an original that gave clips, as its fakes need it."""

    clips: tuple[Clip, ...]
    """One for each face, without images."""
    thumbs: bytes
    """Small gray pictures of all frames, one below the other, PNG: what JPEG loses hides shifts in time."""
    stills: tuple[bytes, ...]
    """Larger gray pictures of some frames, JPEG."""

    @property
    def pictures(self) -> tuple[bytes, ...]:
        """All pictures, as `with_pictures` takes them."""
        return (self.thumbs, *self.stills)

    def with_pictures(self, pictures: tuple[bytes, ...]) -> "SharedWindow":
        """Return the window with the same pictures kept elsewhere."""
        return replace(self, thumbs=pictures[0], stills=pictures[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalWindows:
    """All that the fakes of an original need of it."""

    header: Header
    n_frames: int
    """As many as its packets promise, or decode."""
    windows: tuple[SharedWindow, ...] = ()
    """In order of time; none where it gave no clip."""


NO_WINDOWS = OriginalWindows(header=Header(), n_frames=0)
"""What an original gives that could not be processed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoResult:
    """All that one processing task returns."""

    video_id: bytes
    outcome: Outcome
    clips: tuple[Clip, ...] = ()
    windows: OriginalWindows | None = None
    """What its fakes need, where it is an original."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that long work tells whoever started it; the work continues. `kind` is its name in a log."""

    kind: ClassVar[str] = "note"
    text: str
