"""What is made for DeepfakeBench, read as its data sets are read.

`read_as_deepfakebench` does the steps of `training/dataset/abstract_dataset.py` (SCLBD/DeepfakeBench) that a file or a
name can fail.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lps.manifests.storage import Store
from lps.pipeline.tools.convert_deepfakebench import bench_name
from tests.builders import folder_video, manifest_rows
from tests.pipeline.tools.convert_data import PARAMS, converted, ffpp_videos, make_data_set, pixels

PUBLISHED_LABELS = {
    "DFD_fake": 1, "DFD_real": 0, "FF-SH": 1, "FF-F2F": 1, "FF-DF": 1, "FF-FS": 1, "FF-NT": 1, "FF-FH": 1, "FF-real": 0,
    "CelebDFv1_real": 0, "CelebDFv1_fake": 1, "CelebDFv2_real": 0, "CelebDFv2_fake": 1, "DFDCP_Real": 0,
    "DFDCP_FakeA": 1, "DFDCP_FakeB": 1, "DFDC_Fake": 1, "DFDC_Real": 0, "DF_fake": 1, "DF_real": 0, "UADFV_Fake": 1,
    "UADFV_Real": 0,
}  # fmt: skip
"""`label_dict` of training/config/train_config.yaml."""
WITH_COMPRESSION = (
    "FF-DF", "FF-F2F", "FF-FS", "FF-NT", "FaceForensics++", "DeepFakeDetection", "FaceShifter",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BenchFrame:
    """A frame as the reader hands it out."""

    image: NDArray[np.uint8]
    label: int
    video: str
    """By which frames are put together for the measures of videos: the folder."""


def read_as_deepfakebench(
    checkout: Path, name: str, mode: str, labels: Mapping[str, int], compression: str = "c23"
) -> list[BenchFrame]:
    """Read a split of a list, in a checkout whose settings leave LMDB, masks and landmarks out."""
    every = json.loads((checkout / "preprocessing/dataset_json" / f"{name}.json").read_text())
    frames = []
    for splits in every[name].values():
        videos = splits[mode][compression] if name in WITH_COMPRESSION else splits[mode]
        for video in videos.values():
            label = labels[video["label"]]
            paths = video["frames"]
            assert "\\" not in paths[0]
            numbers = [int(path.split("/")[-1].split(".")[0]) for path in paths]
            assert numbers == sorted(numbers), "its sort has one key for all, and so keeps the order of the list"
            for path in paths:
                assert path[0] == ".", "it puts rgb_dir and a backslash before any other"
                image = cv2.imread(str(checkout / path))
                assert image is not None, path
                assert path.count("frames") == 1, "it puts masks, landmarks in its place"
                assert not (checkout / path.replace("frames", "landmarks").replace(".png", ".npy")).exists()
                frames.append(BenchFrame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), label, path.split("/")[-2]))  # type: ignore[arg-type]
    return frames


def checkout_with(target: Path, place: Path) -> Path:
    """Link a convert into a checkout, as docs/prep.md says."""
    (place / "datasets/rgb").mkdir(parents=True)
    (place / "preprocessing").mkdir()
    (place / "preprocessing/dataset_json").symlink_to(target / "dataset_json")
    for folder in (target / "rgb").iterdir():
        (place / "datasets/rgb" / folder.name).symlink_to(folder)
    return place


@pytest.fixture(scope="module")
def ffpp(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    """A data set of FaceForensics++ with lossless images, and a checkout that has it."""
    place = tmp_path_factory.mktemp("bench")
    out = make_data_set(place / "out", ffpp_videos(), replace(PARAMS, codec="webp"))
    converted(out, place / "to", "deepfakebench")
    return out, checkout_with(place / "to", place / "checkout")


@pytest.mark.parametrize("mode", ["train", "val", "test"])
def test_its_reader_gets_every_frame_with_its_label(ffpp: tuple[Store, Path], mode: str) -> None:
    out, checkout = ffpp
    rows = [row for row in manifest_rows(Path(out.url), "clips") if row["split"] == mode]
    wanted = {row["sample_key"]: row for row in rows if row["method"] != "FaceShifter"}
    frames = read_as_deepfakebench(checkout, "FaceForensics++", mode, PUBLISHED_LABELS)
    assert Counter(frame.video for frame in frames) == dict.fromkeys(wanted, PARAMS.clip_frames)
    assert {frame.label for frame in frames} == {0, 1}
    for key, row in wanted.items():
        found = [frame for frame in frames if frame.video == key]
        assert {frame.label for frame in found} == {row["label"]}
        for frame, image in zip(found, pixels(row["video_id"]), strict=True):
            assert (frame.image == image).all()


def test_methods_have_lists_of_their_own_with_the_same_reals(ffpp: tuple[Store, Path]) -> None:
    _, checkout = ffpp
    names = sorted(path.stem for path in (checkout / "preprocessing/dataset_json").iterdir())
    assert names == ["FF-DF", "FF-NT", "FaceForensics++", "FaceShifter"]
    n_real = {}
    for name in names:
        frames = [
            frame
            for mode in ("train", "val", "test")
            for frame in read_as_deepfakebench(checkout, name, mode, PUBLISHED_LABELS)
        ]
        n_real[name] = len({frame.video for frame in frames if not frame.label})
        assert len({frame.video for frame in frames if frame.label}) == (20 if name == "FaceForensics++" else 10)
    assert set(n_real.values()) == {10}


def test_compressions_are_those_of_the_release(tmp_path: Path) -> None:
    videos = [
        replace(video, compression=c) for video, c in zip(ffpp_videos(1), ("c23", "c0", "c40", None), strict=True)
    ]
    converted(make_data_set(tmp_path / "out", videos), tmp_path / "to", "deepfakebench")
    found = json.loads((tmp_path / "to/dataset_json/FaceForensics++.json").read_text())["FaceForensics++"]
    assert set(found) == {"FF-real", "FF-DF", "FF-NT"}
    for splits in found.values():
        assert set(splits) == {"train", "val", "test"}
        assert all(set(split) == {"c23", "raw", "c40"} for split in splits.values())
    shifted = json.loads((tmp_path / "to/dataset_json/FaceShifter.json").read_text())["FaceShifter"]
    assert {each for splits in shifted.values() for split in splits.values() for each in split} == {"c23", "unknown"}


def test_data_sets_that_it_does_not_know_keep_their_names(tmp_path: Path) -> None:
    videos = [folder_video(f"{kind}/{k}.mp4", label) for label, kind in enumerate(("real", "fake")) for k in range(9)]
    videos = [replace(video, dataset="../../my set") for video in videos]
    converted(make_data_set(tmp_path / "out", videos), tmp_path / "to", "deepfakebench")
    first, *lines = (tmp_path / "to/label_dict.yaml").read_text().splitlines()
    labels = {name: int(value) for name, value in (line.strip().split(": ") for line in lines)}
    assert first == "label_dict:"
    assert labels == {"_my_set_Real": 0, "_my_set_Fake": 1}
    checkout = checkout_with(tmp_path / "to", tmp_path / "checkout")
    frames = [
        frame for mode in ("train", "val", "test") for frame in read_as_deepfakebench(checkout, "_my_set", mode, labels)
    ]
    assert len({frame.video for frame in frames}) == 18
    assert {path.name for path in tmp_path.iterdir()} == {"out", "to", "checkout"}


@pytest.mark.parametrize(
    ("dataset", "method", "label", "expected"),
    [
        ("ffpp", "Face2Face", 1, "FF-F2F"),
        ("ffpp", "FaceSwap", 1, "FF-FS"),
        ("ffpp", "another", 1, "ffpp_Fake"),
        ("dfd", None, 0, "DFD_real"),
        ("dfd", "DeepFakeDetection", 1, "DFD_fake"),
        ("celebdf1", "x", 1, "CelebDFv1_fake"),
        ("celebdf2", None, 0, "CelebDFv2_real"),
        ("dfdc", "dfdc", 1, "DFDC_Fake"),
        ("dfdcp", None, 0, "DFDCP_Real"),
        ("dfdcp", "method_B", 1, "DFDCP_FakeB"),
        ("deeperforensics", "end_to_end", 1, "DF_fake"),
        ("uadfv", None, 0, "UADFV_Real"),
        ("kodf", "dffs", 1, "kodf_Fake"),
        ("..", None, 0, "__Real"),
    ],
)
def test_names_of_labels(dataset: str, method: str | None, label: int, expected: str) -> None:
    found = bench_name(dataset, method, label)
    assert found.label == expected
    assert PUBLISHED_LABELS.get(found.label, label) == label
