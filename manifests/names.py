"""Names that commands, parameters and tables share, each list once. Imports nothing heavy, so that `--help` is fast."""

import re
from enum import StrEnum
from typing import Literal, get_args
from urllib.parse import quote

# fmt: off
DATASETS = (
    "folder", "frames", "table", "ffpp", "ffpp-flat", "dfdc", "dfdc-preview", "celebdf", "celebdf-v1", "celebdf-pp",
    "df40", "deeperforensics", "deepfake-eval-2024", "fakeavceleb", "ffiw", "uadfv", "deepspeak-v1", "deepspeak-v2",
    "kodf", "av-deepfake1m-pp", "idforge", "wilddeepfake", "deepfakebench",
)
# fmt: on
"""Layouts of sources."""
AUTO = "auto"
"""Asks for the layout that the files of a source show."""
TABLE_SUFFIXES = (".csv", ".parquet", ".pq")
LOCALIZERS = ("retinaface-fan", "retinaface-mobilenet", "mtcnn")
"""The first is the default of a run."""
RULES = ("group", "official", "official-clean", "ranked", "identity-hash", "stratified", "random")
"""Split rules."""
GIANT_POLICIES = ("fail", "component", "identity-hash", "target-only")
SPLITS = ("train", "val", "test")
UNTIED_FAKES = "fakes without a known original"
"""Fakes that nothing ties to a real video, in what people are told."""
DOCS_URL = "https://github.com/lps-prep/lps-prep/blob/main/docs"
"""Where messages send their readers: the address of docs/, as setup.cfg has it. Another host is another line here."""
LABELS = ("real", "fake", "unknown")
CLASSES = LABELS[:2]
"""Names of the labels 0 and 1."""
PRESET_NAMES = ("paper", "strong", "small")
EXPERIMENT_NAMES = ("table1", "cross", "align", "variants", "sweep", "ablate", "pairing", "leak", "efficiency")

DATA_NAME = re.compile(r"[A-Za-z0-9_-]+")
"""What `--data NAME=OUT` may call a data set."""

Codec = Literal["jpg", "png", "webp"]
CODECS: tuple[Codec, ...] = get_args(Codec)
ConvertKind = Literal["deepfakebench", "frames", "mp4"]
CONVERT_KINDS: tuple[ConvertKind, ...] = get_args(ConvertKind)
"""What `lps-prep convert` makes."""
Scan = Literal["window", "whole"]
Pairing = Literal["none", "original"]
PAIRINGS: tuple[Pairing, ...] = get_args(Pairing)
"""Whether fakes take windows and transforms of their originals."""
PairMode = Literal["own", "shared", "fallback"]
PAIR_MODES: tuple[PairMode, ...] = get_args(PairMode)
FacePolicy = Literal["largest", "all", "single"]
ScoredFaces = Literal["largest", "all"]
SCORED_FACES: tuple[ScoredFaces, ...] = get_args(ScoredFaces)
StageName = Literal["encoder", "pretrain", "classify", "distill"]
STAGES: tuple[StageName, ...] = get_args(StageName)
VideoRule = Literal["max", "mean"]
VIDEO_RULES: tuple[VideoRule, ...] = get_args(VideoRule)
FakesKind = Literal["none", "self-blend"]
FAKES = ("self-blend",)
"""Fakes that are made of real clips while these are read."""
Kernel = Literal["rbf", "linear"]
HEADS = ("linear", "svm")
KERNELS: tuple[Kernel, ...] = get_args(Kernel)
DeviceName = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[DeviceName, ...] = get_args(DeviceName)
Channel = Literal["random", "maxvar"]
CHANNELS: tuple[Channel, ...] = get_args(Channel)


class Level(StrEnum):
    """How much an audit reads: manifests only, every byte of every tar, or sources decoded again."""

    QUICK = "quick"
    """The manifests and what a listing of the files tells."""
    FULL = "full"
    """Every byte of every tar, too."""
    DEEP = "deep"
    """Some of the sources decoded again, too."""


LEVELS = tuple(Level)


class Role(StrEnum):
    """What a clip was to a run, or to one that it started from."""

    LABELS = "labels"
    """Learnt from with its label."""
    FRAMES = "frames"
    """Learnt from without its label (pretraining)."""
    VALIDATION = "validation"
    """Measured to choose the checkpoint."""


def label_name(label: int | None) -> str:
    """Return `real`, `fake` or `unknown`."""
    return LABELS[label] if label in (0, 1) else "unknown"


def check_link(check_id: str) -> str:
    """Return the address of what docs/audit.md says of a check."""
    return f"{DOCS_URL}/audit.md#{quote(check_id.lower(), safe='')}"
