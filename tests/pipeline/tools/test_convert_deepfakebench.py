"""What is made for DeepfakeBench, read as its data sets are read.

`read_as_deepfakebench` does the steps of `training/dataset/abstract_dataset.py` (SCLBD/DeepfakeBench) that a file or a
name can fail.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from lps.manifests.errors import IntegrityError
from lps.manifests.records import Note
from lps.manifests.storage import Store
from lps.pipeline.sources.shared.bench_names import PUBLISHED_LABELS as KNOWN_LABELS
from lps.pipeline.sources.shared.bench_names import bench_name, class_of_label
from lps.pipeline.tools.convert import ConvertRequest, convert_clips
from tests.builders import folder_video, manifest_rows
from tests.pipeline.tools.convert_data import (
    ALIGN,
    PARAMS,
    change_clips,
    converted,
    ffpp_videos,
    landmarks_of,
    make_data_set,
    pixels,
    tree,
)

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
    landmark: NDArray[np.float32]
    """As `load_landmark` gives it: zeros where there is no file, without a word."""


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
                landmark = load_landmark(checkout / path.replace("frames", "landmarks").replace(".png", ".npy"))
                frames.append(BenchFrame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), label, path.split("/")[-2], landmark))  # type: ignore[arg-type]
    return frames


def load_landmark(path: Path) -> NDArray[np.float32]:
    """Return the landmarks of a frame, px of its image."""
    return np.float32(np.load(path)) if path.exists() else np.zeros((81, 2), np.float32)  # type: ignore[return-value]


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
            assert not frame.landmark.any()
    assert not list(checkout.rglob("datasets/rgb/**/landmarks"))


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


def test_its_reader_gets_the_landmarks_in_px_of_the_image(tmp_path: Path) -> None:
    out = make_data_set(tmp_path / "out", ffpp_videos(4), with_landmarks=lambda video: video.label == 1)
    notes: list[str] = []
    made = convert_clips(
        ConvertRequest(out=out.url, target=tmp_path / "to", kind="deepfakebench"),
        lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    assert made.n_made == made.n_clips == 16
    assert notes == ["without landmarks, as not every frame has 68: 4 of 16 clips"]
    checkout = checkout_with(tmp_path / "to", tmp_path / "checkout")
    frames = [
        frame
        for mode in ("train", "val", "test")
        for frame in read_as_deepfakebench(checkout, "FaceForensics++", mode, PUBLISHED_LABELS)
    ]
    rows = {row["sample_key"]: row for row in manifest_rows(Path(out.url), "clips")}
    matrix = np.reshape(ALIGN, (2, 3))
    for key in {frame.video for frame in frames}:
        found = np.stack([frame.landmark for frame in frames if frame.video == key])
        if rows[key]["label"]:
            points = landmarks_of(rows[key]["video_id"])
            assert found.shape == points.shape
            assert np.abs(found - np.stack([cv2.transform(face[None], matrix)[0] for face in points])).max() < 1e-3
        else:
            assert found.shape[1:] == (81, 2)
            assert not found.any()
    lines = [json.loads(line) for line in (tmp_path / "to/clips.jsonl").read_text().splitlines()]
    for line in lines:
        assert (line["landmarks"] is not None) == (line["label"] == 1)
        assert line["landmarks"] in (None, line["path"].replace("/frames/", "/landmarks/"))


def test_landmarks_that_were_lost_are_made_again(tmp_path: Path) -> None:
    out = make_data_set(tmp_path / "out", ffpp_videos(2), with_landmarks=lambda video: True)
    converted(out, tmp_path / "to", "deepfakebench")
    expected = tree(tmp_path / "to")
    lost = sorted(path for path in (tmp_path / "to").rglob("landmarks/*") if path.is_dir())[3]
    shutil.rmtree(lost)
    half = lost.with_name(f".{lost.name}.0123abcd.tmp")
    half.mkdir()
    (half / "00.npy").touch()
    assert converted(out, tmp_path / "to", "deepfakebench").n_made == 1
    assert tree(tmp_path / "to") == expected
    assert converted(out, tmp_path / "to", "deepfakebench").n_made == 0


@pytest.mark.parametrize("kind", ["frames", "mp4"])
def test_other_forms_have_no_landmarks(tmp_path: Path, kind: str) -> None:
    trees = []
    for name, has in (("a", False), ("b", True)):
        out = make_data_set(tmp_path / name, ffpp_videos(1), with_landmarks=lambda video, has=has: has)  # type: ignore[misc]
        converted(out, tmp_path / f"{name}-to", kind)
        trees.append({path for path in tree(tmp_path / f"{name}-to") if path != "convert.json"})
    assert trees[0] == trees[1]
    assert not any("landmarks" in path for path in trees[0])


def test_a_data_set_of_before_the_column_has_no_landmarks(tmp_path: Path) -> None:
    out = make_data_set(tmp_path / "out", ffpp_videos(1), with_landmarks=lambda video: True)
    path = tmp_path / "out/manifests/clips.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["lmk68"]), path)
    assert converted(out, tmp_path / "to", "deepfakebench").n_made == 4
    assert not list((tmp_path / "to").rglob("landmarks"))


def test_landmarks_of_some_frames_alone_are_refused(tmp_path: Path) -> None:
    out = make_data_set(tmp_path / "out", ffpp_videos(1), with_landmarks=lambda video: True)
    change_clips(out, lmk68=[[0] * 136])
    with pytest.raises(IntegrityError, match="contradicts itself"):
        converted(out, tmp_path / "to", "deepfakebench")


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


def test_classes_of_labels() -> None:
    assert PUBLISHED_LABELS.keys() == KNOWN_LABELS
    assert {label: class_of_label(label) for label in PUBLISHED_LABELS} == PUBLISHED_LABELS
    others = {"heygen_real": 0, "simswap_Fake": 1, "real": 0, "Fake": 1, "ours-fake2": 1, "unreal": None, "FF-XY": None}
    assert {label: class_of_label(label) for label in others} == others
