"""Published lists as split inputs."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lps.manifests.canonical import digest16
from lps.manifests.names import SPLITS
from lps.manifests.splits.inputs import SplitInput

FFPP_METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")


@pytest.fixture
def ffpp(shared: Callable[[str], Path]) -> list[SplitInput]:
    """FaceForensics++ at c23: 1000 real sequences, then 1000 fakes of each of the paper's four methods."""
    recordings = json.loads(shared("splits/ffpp_conversion_dict.json").read_text())
    source = {name: "yt/" + recording.rsplit(" ", 1)[0] for name, recording in recordings.items()}
    listed = {split: json.loads(shared(f"splits/ffpp_split_{split}.json").read_text()) for split in SPLITS}
    split_of = {name: split for split, pairs in listed.items() for pair in pairs for name in pair}
    ordered = [pair for pairs in listed.values() for a, b in pairs for pair in ((a, b), (b, a))]
    reals = [_sequence(name, source[name], split_of[name]) for name in recordings]
    fakes = [
        _swap(method, target, donor, source, split_of[target]) for method in FFPP_METHODS for target, donor in ordered
    ]
    return [*reals, *fakes]


def _sequence(name: str, recording: str, split: str) -> SplitInput:
    return SplitInput(
        video_id=digest16("ffpp", f"youtube/{name}"),
        label=0,
        dataset="ffpp",
        compression="c23",
        keys=(f"ffpp/seq/{name}", recording),
        target_keys=(f"ffpp/seq/{name}",),
        source_keys=(recording,),
        official_split=split,
    )


def _swap(method: str, target: str, donor: str, source: dict[str, str], split: str) -> SplitInput:
    recordings = {source[target], source[donor]}
    return SplitInput(
        video_id=digest16("ffpp", f"{method}/{target}_{donor}"),
        label=1,
        dataset="ffpp",
        method=method,
        compression="c23",
        keys=tuple(sorted({f"ffpp/seq/{target}", f"ffpp/seq/{donor}", *recordings})),
        target_keys=(f"ffpp/seq/{target}",),
        donor_keys=(f"ffpp/seq/{donor}",),
        source_keys=tuple(sorted(recordings)),
        official_split=split,
        original_video_id=digest16("ffpp", f"youtube/{target}"),
    )


@pytest.fixture
def celebdf(shared: Callable[[str], Path]) -> list[SplitInput]:
    """The published Celeb-DF v2 test videos, and those of their originals that it leaves in train."""
    lines = shared("splits/celeb_df_v2_list_of_testing_videos.txt").read_text().split("\n")
    listed = [line.split(" ") for line in lines if line]
    videos = {path: _celeb(path, fake=real == "0", split="test") for real, path in listed}
    for path in list(videos):
        if (original := _celeb_original(path)) is not None and original not in videos:
            videos[original] = _celeb(original, fake=False, split="train")
    return list(videos.values())


def _celeb_original(path: str) -> str | None:
    swap = re.fullmatch(r"Celeb-synthesis/(id\d+)_id\d+_(\d{4})\.mp4", path)
    return f"Celeb-real/{swap[1]}_{swap[2]}.mp4" if swap else None


def _celeb(path: str, *, fake: bool, split: str) -> SplitInput:
    people = tuple(f"celebdf2/id/{name}" for name in re.findall(r"id\d+", path))
    original = _celeb_original(path)
    return SplitInput(
        video_id=digest16("celebdf2", path),
        label=int(fake),
        dataset="celebdf2",
        method="celeb_synthesis" if fake else None,
        keys=tuple(sorted(set(people))),
        identity_keys=people,
        target_keys=people[:1],
        donor_keys=people[1:],
        official_split=split,
        original_video_id=digest16("celebdf2", original) if original else None,
    )
