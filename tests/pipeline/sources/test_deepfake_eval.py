"""Deepfake-Eval-2024."""

from collections.abc import Callable

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from tests.builders import by_uri
from tests.pipeline.sources.release_trees import EVAL_TABLE, RELEASES

ListTree = Callable[..., SourceListing]
ID = "deepfake-eval-2024"
TREE = RELEASES[ID]


def with_rows(*rows: str) -> dict[str, bytes]:
    return TREE | {EVAL_TABLE: "\n".join(("Filename,Video Ground Truth", *rows)).encode()}


def test_a_fake(list_tree: ListTree) -> None:
    assert by_uri(list_tree(ID, TREE))["video-data/b.mp4"] == SourceVideo(
        uri="video-data/b.mp4", dataset=ID, label=1, label_source="csv", method="fake"
    )


def test_other_words_are_no_label(list_tree: ListTree) -> None:
    video = by_uri(list_tree(ID, with_rows("clip one.mp4,Real", "b.mp4,Unknown")))["video-data/b.mp4"]
    assert (video.code, video.label, video.detail) == (
        Code.S_NOT_SELECTED,
        None,
        "Video Ground Truth is 'unknown'",
    )


def test_two_words_are_a_conflict(list_tree: ListTree) -> None:
    listing = list_tree(ID, with_rows("clip one.mp4,Real", "b.mp4,Real", "B.mp4,Fake", "b.mp4,real"))
    video = by_uri(listing)["video-data/b.mp4"]
    assert (video.code, video.label, video.detail) == (Code.E_LABEL_CONFLICT, None, "the table says fake and real")


def test_what_the_table_does_not_name_is_foreign(list_tree: ListTree) -> None:
    video = by_uri(list_tree(ID, with_rows("b.mp4,Fake")))["video-data/clip one.mp4"]
    assert (video.code, video.detail) == (Code.S_FOREIGN, "not in the table")


def test_listed_and_absent(list_tree: ListTree) -> None:
    listing = list_tree(ID, with_rows("clip one.mp4,Real", "b.mp4,Fake", "c.mp4,Fake"))
    assert by_uri(listing)["video-data/c.mp4"].code == Code.E_MISSING_FILE
    assert f"{ID}: 2 of 3 videos of its table found" in listing.notes


def test_a_listed_file_is_a_video_whatever_its_name(list_tree: ListTree) -> None:
    listing = list_tree(ID, with_rows("clip one.mp4,Real", "b.mp4,Fake", "c,Fake") | {"video-data/c": b"x"})
    assert by_uri(listing)["video-data/c"].code is None


def test_the_other_name_of_the_table(list_tree: ListTree) -> None:
    tree = {path.replace("-with-links", ""): data for path, data in TREE.items()}
    assert by_uri(list_tree(ID, tree))["video-data/b.mp4"].label == 1


@pytest.mark.parametrize("data", [b"Filename,Label\nb.mp4,Fake\n", b""])
def test_a_table_without_its_columns_stops(list_tree: ListTree, data: bytes) -> None:
    with pytest.raises(UnreadableError, match=rf"^{EVAL_TABLE}: needs the columns Filename,Video Ground Truth"):
        list_tree(ID, TREE | {EVAL_TABLE: data})
