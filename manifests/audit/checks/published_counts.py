"""How many videos published data sets have, by the id that `lps-prep run --dataset` takes."""

from collections.abc import Iterator
from typing import Any

from lps.manifests.audit.core.types import Offender

FFPP_VIDEOS = 1000
"""Number of each method and compression."""
DFD_VIDEOS: dict[str, dict[int, int]] = {"ffpp": {0: 363, 1: 3068}, "ffpp-flat": {1: 1000}}
"""DeepFakeDetection within them, by label."""
DFDC_RANGES = ((119_140, 119_200), (124_140, 124_200))
"""Training videos, for which published counts differ, and these with the 5,000 of the test."""
BY_LABEL: dict[str, tuple[int, int]] = {
    "celebdf": (890, 5639),
    "celebdf-v1": (408, 795),
    "celebdf-pp": (890, 53_196),
    "deeperforensics": (48_475, 11_000),
    "deepspeak-v1": (6667, 6796),
    "deepspeak-v2": (9376, 7209),
    "dfdc-preview": (1131, 4119),
    "fakeavceleb": (1000, 20_544),
    "ffiw": (9988, 9988),
    "idforge": (80_000, 170_000),
    "kodf": (62_166, 175_776),
    "uadfv": (49, 49),
    "wilddeepfake": (3805, 3509),
}
"""Real and fake videos of those that are counted as a whole."""
REAL_OPTIONAL = ("deeperforensics",)
"""Their recordings of actors are a part of their own, which few load."""


def is_counted(adapter: str) -> bool:
    """Tell whether it is known how many videos a data set has."""
    return adapter in BY_LABEL or adapter in DFD_VIDEOS or adapter == "dfdc"


def miscounted(adapter: str, rows: list[tuple[Any, ...]], tolerance: float) -> Iterator[Offender]:
    """Yield groups whose number of videos is not the published one. Rows: data set, label, method, compression, n."""
    if adapter == "dfdc":
        total = sum(int(row[-1]) for row in rows)
        if not any(low <= total <= high for low, high in DFDC_RANGES):
            yield _group("dfdc", total, "measured copies have 119146, and the test 5000")
        return
    if adapter in BY_LABEL:
        for label, expected in enumerate(BY_LABEL[adapter]):
            n = sum(int(row[-1]) for row in rows if row[1] == label)
            left_out = not n and not label and adapter in REAL_OPTIONAL
            if not left_out and abs(n - expected) > tolerance * expected:
                yield _group(f"{adapter} label {label}", n, f"published {expected}")
        return
    for dataset, label, method, compression, n in rows:
        expected = DFD_VIDEOS[adapter].get(label, 0) if dataset == "dfd" else FFPP_VIDEOS
        if abs(n - expected) > tolerance * expected:
            yield _group(f"{dataset} {method} {compression or ''}".strip(), n, f"published {expected}")


def _group(key: str, n: int, said: str) -> Offender:
    return Offender(kind="group", key=key, detail=f"{n} videos, {said}")
