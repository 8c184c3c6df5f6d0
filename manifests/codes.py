"""The closed vocabulary of what can become of an input video.

Every input video ends as one row; a row that is not ``ok`` carries one of these codes.
Adding a code is a minor schema change, renaming one a major change.
"""

from enum import StrEnum

from lps.manifests.names import DOCS_URL


class Status(StrEnum):
    """Outcome of one input video."""

    OK = "ok"
    PARTIAL = "partial"
    """Some clips were made, but the video has a fault that `error_code` names."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not an input by declared rule (a mask, a foreign file, not selected)."""


class Stage(StrEnum):
    """Where a fault was found."""

    DISCOVER = "discover"
    PROBE = "probe"
    DECODE = "decode"
    DETECT = "detect"
    TRACK = "track"
    ALIGN = "align"
    ENCODE = "encode"
    WRITE = "write"


class Code(StrEnum):
    """Why a video has no clips, or fewer than asked."""

    E_MISSING_FILE = "E_MISSING_FILE"
    E_EMPTY_FILE = "E_EMPTY_FILE"
    E_PROBE = "E_PROBE"
    E_NO_VIDEO_STREAM = "E_NO_VIDEO_STREAM"
    E_DECODE = "E_DECODE"
    E_TRUNCATED = "E_TRUNCATED"
    E_TOO_SHORT = "E_TOO_SHORT"
    E_LIMIT = "E_LIMIT"
    E_NO_FACE = "E_NO_FACE"
    E_FACE_TOO_SMALL = "E_FACE_TOO_SMALL"
    E_LOW_DET_RATE = "E_LOW_DET_RATE"
    E_TRACK_GAP = "E_TRACK_GAP"
    E_NO_CONTIGUOUS_RUN = "E_NO_CONTIGUOUS_RUN"
    E_ALIGN = "E_ALIGN"
    E_LANDMARK = "E_LANDMARK"
    E_OUT_OF_FRAME = "E_OUT_OF_FRAME"
    E_MULTI_FACE_AMBIGUOUS = "E_MULTI_FACE_AMBIGUOUS"
    E_LABEL_CONFLICT = "E_LABEL_CONFLICT"
    E_ORIGINAL_UNRESOLVED = "E_ORIGINAL_UNRESOLVED"
    E_NAME_GRAMMAR = "E_NAME_GRAMMAR"
    E_DUP_NAME = "E_DUP_NAME"
    E_UNREADABLE = "E_UNREADABLE"
    E_OOM = "E_OOM"
    E_TIMEOUT = "E_TIMEOUT"
    E_WORKER_LOST = "E_WORKER_LOST"
    E_INTERNAL = "E_INTERNAL"
    S_MASK = "S_MASK"
    S_FOREIGN = "S_FOREIGN"
    S_NOT_SELECTED = "S_NOT_SELECTED"
    S_LINK = "S_LINK"


CODE_MEANING: dict[Code, str] = {
    Code.E_MISSING_FILE: "a list names a file that is not there",
    Code.E_EMPTY_FILE: "the file has zero bytes",
    Code.E_PROBE: "the container cannot be opened",
    Code.E_NO_VIDEO_STREAM: "the file holds no video stream",
    Code.E_DECODE: "the decoder gave no usable frame, or broke off between frames",
    Code.E_TRUNCATED: "the stream ends before its last frame",
    Code.E_TOO_SHORT: "fewer frames decode than one clip needs",
    Code.E_LIMIT: "larger or longer than the declared limits",
    Code.E_NO_FACE: "no face was found in the frames that were looked at",
    Code.E_FACE_TOO_SMALL: "faces were found, all below the declared size",
    Code.E_LOW_DET_RATE: "the face was missed in too large a share of the frames looked at",
    Code.E_TRACK_GAP: "the face disappears for longer than the declared gap inside every run",
    Code.E_NO_CONTIGUOUS_RUN: "scene cuts or decoding holes leave no run of enough frames",
    Code.E_ALIGN: "no similarity transform fits the landmarks",
    Code.E_LANDMARK: "the landmarks are not those of a face (degenerate geometry)",
    Code.E_OUT_OF_FRAME: "too large a share of the aligned face lies outside the picture",
    Code.E_MULTI_FACE_AMBIGUOUS: "several faces and a policy that refuses to choose",
    Code.E_LABEL_CONFLICT: "folder, metadata and list disagree on the label",
    Code.E_ORIGINAL_UNRESOLVED: "the original of a fake is not among the inputs",
    Code.E_NAME_GRAMMAR: "the file name does not follow the data set's grammar",
    Code.E_DUP_NAME: "the same name occurs more than once where it must be unique",
    Code.E_UNREADABLE: "a link that cannot be followed, or a folder or file of the source that cannot be read",
    Code.E_OOM: "processing ran out of its memory limit twice",
    Code.E_TIMEOUT: "processing ran past its deadline twice",
    Code.E_WORKER_LOST: "processing killed its worker process twice",
    Code.E_INTERNAL: "an unexpected fault of this program; please report it",
    Code.S_MASK: "a mask video, not an input",
    Code.S_FOREIGN: "not a video of this data set",
    Code.S_NOT_SELECTED: "left out by the declared selection",
    Code.S_LINK: "another path to what is listed already",
}

CODE_REMEDY: dict[Code, str] = {
    Code.E_MISSING_FILE: "Complete the copy, or take the file off the list.",
    Code.E_EMPTY_FILE: "Fetch the file again: a download or a copy broke off.",
    Code.E_PROBE: "Fetch the file again; if other players cannot open it either, it is damaged where it was published.",
    Code.E_NO_VIDEO_STREAM: "Look whether it is a sound track or a cover picture; else fetch it again.",
    Code.E_DECODE: "Fetch the file again. A `partial` video has clips of its sound parts.",
    Code.E_TRUNCATED: "Fetch the file again: its end is missing. A `partial` video has clips that lie before it.",
    Code.E_TOO_SHORT: "Lower `clip_frames`, for a data set of its own, or leave the video.",
    Code.E_LIMIT: "Raise the limit of `[limits]` that `error_detail` names, if you trust the file.",
    Code.E_NO_FACE: "Look at it (`lps-prep preview --html --source`); try another localizer, or lower `min_score`.",
    Code.E_FACE_TOO_SMALL: "Lower `min_face_px`, at the price of clips that are enlarged more.",
    Code.E_LOW_DET_RATE: "Try another localizer; or lower `min_det_rate`, at the price of less certain boxes.",
    Code.E_TRACK_GAP: "Try another localizer; or raise `max_gap_frames`, at the price of longer interpolation.",
    Code.E_NO_CONTIGUOUS_RUN: "Lower `clip_frames`; if cuts are found where there are none, raise `cut_score`.",
    Code.E_ALIGN: "Look at the video: the box of its face is degenerate. Try another localizer.",
    Code.E_LANDMARK: "Look at the video: what was found may be no face. Try another localizer.",
    Code.E_OUT_OF_FRAME: "Raise `max_outside_share`, at the price of faces that are filled up by reflection.",
    Code.E_MULTI_FACE_AMBIGUOUS: 'Choose another policy than `faces = "single"`: `"largest"` or `"all"`.',
    Code.E_LABEL_CONFLICT: "See `error_detail` for who says what; correct the list or the copy.",
    Code.E_ORIGINAL_UNRESOLVED: "Add the originals to the source, so that the split can keep fakes beside them.",
    Code.E_NAME_GRAMMAR: "Give the file the name that it was published with; `error_detail` has the expected form.",
    Code.E_DUP_NAME: "Remove one of the copies; `error_detail` names the one that was used.",
    Code.E_UNREADABLE: "Repair the link, the rights or the disk, and plan a new output; "
    "`lps-prep retry` if it was readable when the plan was made.",
    Code.E_OOM: "Raise `memory_mb` or take fewer workers, then `lps-prep retry` and the run again.",
    Code.E_TIMEOUT: "Raise `deadline_seconds` (or `…_per_frame`), then `lps-prep retry` and the run again.",
    Code.E_WORKER_LOST: "`lps-prep retry` and the run again; if it stays, the file crashes a decoder: leave it out.",
    Code.E_INTERNAL: "Report it with `error_detail`; then `lps-prep retry` and the run again.",
    Code.S_MASK: "Nothing: masks are listed, so that every file of the source has a row.",
    Code.S_FOREIGN: "Nothing, unless it is a video of yours: then see the layout that `--dataset` expects.",
    Code.S_NOT_SELECTED: "Nothing, unless you want it: then choose a split rule or lists that do not leave it out.",
    Code.S_LINK: "Nothing: the video is used by its other path.",
}
"""What the user can do about a code."""


class PairFallback(StrEnum):
    """Why a fake does not share the windows and transforms of its original."""

    P_ORIGINAL_ELSEWHERE = "P_ORIGINAL_ELSEWHERE"
    P_ORIGINAL_FAILED = "P_ORIGINAL_FAILED"
    P_SIZE = "P_SIZE"
    P_FRAMES = "P_FRAMES"
    P_TIMES = "P_TIMES"
    P_DECODE = "P_DECODE"
    P_NO_BACKGROUND = "P_NO_BACKGROUND"
    P_BACKGROUND = "P_BACKGROUND"
    P_SHIFTED = "P_SHIFTED"
    P_NO_FACE = "P_NO_FACE"
    P_FACE_MOVED = "P_FACE_MOVED"


PAIR_FALLBACK_MEANING: dict[PairFallback, str] = {
    PairFallback.P_ORIGINAL_ELSEWHERE: "the original is in another split, not processed, or has an original itself",
    PairFallback.P_ORIGINAL_FAILED: "the original gave no clip",
    PairFallback.P_SIZE: "size, rotation or pixel aspect differ",
    PairFallback.P_FRAMES: "the number of frames differs by more than the limit, or the window is not in the fake",
    PairFallback.P_TIMES: "the time stamps of the window differ by more than half a frame",
    PairFallback.P_DECODE: "the window does not decode without a break",
    PairFallback.P_NO_BACKGROUND: "too little is seen around the face to compare",
    PairFallback.P_BACKGROUND: "what lies around the face does not look alike",
    PairFallback.P_SHIFTED: "the background fits better a frame or some pixels away",
    PairFallback.P_NO_FACE: "the fake shows no face where the original does",
    PairFallback.P_FACE_MOVED: "the fake's face lies elsewhere than the original's",
}

PAIR_FALLBACK_REMEDY: dict[PairFallback, str] = {
    PairFallback.P_ORIGINAL_ELSEWHERE: "Choose a split rule that keeps a fake beside its original (`group` does), "
    "and have the original in the source.",
    PairFallback.P_ORIGINAL_FAILED: "See the code of the original; what cures it lets its fakes share.",
    PairFallback.P_SIZE: "Use the copies that were published together: this one was scaled, cropped or turned.",
    PairFallback.P_FRAMES: "Raise `max_frames_off` of `[pair]`, if the fake only ends sooner.",
    PairFallback.P_TIMES: "Use the copies that were published together: this one lost frames or has another rate.",
    PairFallback.P_DECODE: "Fetch the fake again: it is damaged within the window.",
    PairFallback.P_NO_BACKGROUND: "Nothing: less than 5 % of the picture is seen around the face.",
    PairFallback.P_BACKGROUND: "Look at both: `pair_background` has the correlation. Lower `min_background` "
    "of `[pair]` only for a method that repaints all of the picture.",
    PairFallback.P_SHIFTED: "Nothing: a shared window would show another moment or place.",
    PairFallback.P_NO_FACE: "Look at the fake; another localizer may find its face.",
    PairFallback.P_FACE_MOVED: "Nothing for driven heads, which move on their own; else see `pair_face_px`, and "
    "`max_face_px` of `[pair]`.",
}
"""What the user can do, where more fakes are to share."""

QUARANTINE_CODES = frozenset({Code.E_OOM, Code.E_TIMEOUT, Code.E_WORKER_LOST, Code.E_INTERNAL})
"""Faults of the processing rather than of the content: they count against `--max-failed`."""


def meaning_of(code: str) -> str:
    """Return what a code means, one that this version does not know included."""
    return CODE_MEANING[Code(code)] if code in tuple(Code) else "a code that this version does not know"


def fallback_meaning(code: str) -> str:
    """Return why a fake shares nothing, for a code that this version does not know, too."""
    known = code in tuple(PairFallback)
    return PAIR_FALLBACK_MEANING[PairFallback(code)] if known else "a code that this version does not know"


def code_link(code: str = "") -> str:
    """Return the address of what docs/codes.md says of a code; without a known one, that of the page."""
    known = code in (*Code, *PairFallback)
    return f"{DOCS_URL}/codes.md{f'#{code.lower()}' if known else ''}"
