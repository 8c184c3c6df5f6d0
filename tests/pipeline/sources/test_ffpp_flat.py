"""Flat copies of FaceForensics++."""

import json
from collections.abc import Callable

import pytest

from lps.manifests.codes import Code
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from tests.builders import by_uri
from tests.pipeline.sources.release_trees import RELEASES, wrapped

ListTree = Callable[..., SourceListing]
TREE = RELEASES["ffpp-flat"]
KAGGLE = wrapped(TREE, "FaceForensics++_C23")
LISTS = {
    "train.json": json.dumps([["071", "054"]]).encode(),
    "val.json": b"[]",
    "test.json": b"[]",
    "conversion_dict.json": json.dumps({"071": "e 0", "054": "f 0"}).encode(),
}
DFD = "FaceForensics++_C23/DeepFakeDetection/01_02__meeting_serious__YVGY8LOK.mp4"


def test_rows_are_those_of_ffpp(list_tree: ListTree) -> None:
    fake, real = "FaceForensics++_C23/Deepfakes/071_054.mp4", "FaceForensics++_C23/original/071.mp4"
    official = {
        "original_sequences/youtube/c23/videos/071.mp4": b"x",
        "manipulated_sequences/Deepfakes/c23/videos/071_054.mp4": b"x",
    }
    flat = by_uri(list_tree("ffpp-flat", KAGGLE, splits=LISTS))
    known = list_tree("ffpp", official, splits=LISTS).videos
    assert flat[fake].original_uri == real
    for path, video in zip((fake, real), known, strict=True):
        same = {name: getattr(video, name) for name in SourceVideo.__slots__ if name not in ("uri", "original_uri")}
        assert {name: getattr(flat[path], name) for name in same} == same


def test_deepfake_detection_has_actors_and_no_originals(list_tree: ListTree) -> None:
    listing = list_tree("ffpp-flat", KAGGLE)
    video = by_uri(listing)[DFD]
    assert (video.dataset, video.original_uri, video.method) == ("dfd", None, "DeepFakeDetection")
    assert video.identity_keys == ("dfd/actor/01", "dfd/actor/02")
    assert "ffpp-flat: 1 of 3068 deepfakedetection videos found" in listing.notes
    assert any(note.startswith(f"ffpp-flat: 1 x {Code.E_ORIGINAL_UNRESOLVED}: ") for note in listing.notes)


@pytest.mark.parametrize(
    ("folder", "compression"),
    [("FaceForensics++_C23", "c23"), ("ff-c40", "c40"), ("c23", "c23"), ("RAW", "c0"), ("c23/part_c40", "c40")],
)
def test_compression_is_that_of_a_folder(list_tree: ListTree, folder: str, compression: str) -> None:
    listing = list_tree("ffpp-flat", wrapped(TREE, folder))
    assert {v.compression for v in listing.videos if v.label is not None} == {compression}
    assert not any("compression" in note for note in listing.notes)


@pytest.mark.parametrize("folder", ["", "FaceForensics", "draw", "abc23"])
def test_compression_that_no_folder_tells_is_unknown(list_tree: ListTree, folder: str) -> None:
    listing = list_tree("ffpp-flat", wrapped(TREE, folder) if folder else TREE)
    assert {v.compression for v in listing.videos} == {None}
    assert any(note.startswith("ffpp-flat: compression unknown") for note in listing.notes)


def test_missing_lists_are_told_by_this_name(list_tree: ListTree) -> None:
    notes = list_tree("ffpp-flat", KAGGLE).notes
    assert any(note.startswith("ffpp-flat: official split unknown: no train.json") for note in notes)


@pytest.mark.parametrize("name", ["original/071_054", "Deepfakes/071", "DeepFakeDetection/071_054"])
def test_names_outside_the_grammar(list_tree: ListTree, name: str) -> None:
    path = f"{name}.mp4"
    assert by_uri(list_tree("ffpp-flat", TREE | {path: b"x"}))[path].code == Code.E_NAME_GRAMMAR
