"""What holds for every release that is read by folders, and for every way in which copies of it differ."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from lps.pipeline.sources.shared.types import is_video
from tests.pipeline.sources.release_trees import RELEASES, wrapped

ListTree = Callable[..., SourceListing]
SCATTERED = ("df40", "ffiw", "deepfake-eval-2024", "deepspeak-v1", "deepspeak-v2", "kodf", "av-deepfake1m-pp")
"""Releases whose parts need not lie beside each other."""
NEEDED = {
    "deepfake-eval-2024": "video-metadata-publish-with-links.csv",
    "av-deepfake1m-pp": "val_metadata.json",
}
"""What a release cannot be read without."""

pytestmark = pytest.mark.parametrize("dataset", RELEASES)


def said(listing: SourceListing) -> list[SourceVideo]:
    """Return the rows of videos without what depends on where they lie."""
    return [replace(video, uri="", original_uri=None) for video in listing.videos if is_video(video.uri)]


def pairs(listing: SourceListing) -> list[str]:
    """Return the name of the original of every fake, none where it is not known."""
    return [(v.original_uri or "").rpartition("/")[2] for v in listing.videos if is_video(v.uri)]


def in_videos(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/videos/{name}" if is_video(path) else path


def test_every_file_becomes_one_row_and_all_videos_are_usable(dataset: str, list_tree: ListTree) -> None:
    tree = RELEASES[dataset]
    listing = list_tree(dataset, tree)
    assert [video.uri for video in listing.videos] == sorted(tree)
    assert {v.uri for v in listing.videos if v.code is None} == {path for path in tree if is_video(path)}
    assert {v.label for v in listing.videos if v.code is None} == {0, 1}
    assert all((v.method is None) == (v.label == 0) for v in listing.videos if v.code is None)


def test_the_release_may_lie_in_folders(dataset: str, list_tree: ListTree) -> None:
    plain, inside = (list_tree(dataset, tree) for tree in (RELEASES[dataset], wrapped(RELEASES[dataset], "a/b")))
    assert (said(inside), pairs(inside)) == (said(plain), pairs(plain))
    assert [note.replace("a/b/", "") for note in inside.notes] == [*plain.notes]


def test_folders_and_endings_in_capitals(dataset: str, list_tree: ListTree) -> None:
    tree = RELEASES[dataset]

    def capitals(path: str) -> str:
        folder, _, name = path.rpartition("/")
        return f"{folder.swapcase()}/{name[:-4]}.MP4" if is_video(path) else path

    other = list_tree(dataset, {capitals(path): data for path, data in tree.items()})
    assert {(v.label, v.code, v.target_keys) for v in said(other)} == {
        (v.label, v.code, v.target_keys) for v in said(list_tree(dataset, tree))
    }


def test_a_folder_videos_between(dataset: str, list_tree: ListTree) -> None:
    tree = RELEASES[dataset]
    plain, mirror = list_tree(dataset, tree), list_tree(dataset, {in_videos(path): tree[path] for path in tree})
    assert (said(mirror), pairs(mirror), mirror.notes) == (said(plain), pairs(plain), plain.notes)


def test_two_copies_are_refused_or_twice_the_same_videos(dataset: str, list_tree: ListTree) -> None:
    tree = wrapped(RELEASES[dataset], "old") | wrapped(RELEASES[dataset], "new")
    if dataset not in SCATTERED:
        with pytest.raises(UnreadableError, match=r"^2 copies of .* below the source \(new/, old/\): give one of them"):
            list_tree(dataset, tree)
        return
    codes = [v.code for v in list_tree(dataset, tree).videos if is_video(v.uri)]
    assert codes.count(Code.E_DUP_NAME) == codes.count(None) == len(codes) / 2


def test_a_copy_below_is_foreign(dataset: str, list_tree: ListTree) -> None:
    if dataset in SCATTERED:
        return
    listing = list_tree(dataset, RELEASES[dataset] | wrapped(RELEASES[dataset], "backup"))
    inside = [video for video in listing.videos if video.uri.startswith("backup/")]
    assert {(video.code, video.label) for video in inside} == {(Code.S_FOREIGN, None)}
    assert len(inside) == len(RELEASES[dataset])


def test_any_part_of_it_alone_is_read(dataset: str, list_tree: ListTree) -> None:
    tree = RELEASES[dataset]
    whole = {video.uri: video for video in list_tree(dataset, tree).videos}
    for absent in tree:
        if absent == NEEDED.get(dataset):
            continue
        listing = list_tree(dataset, {path: data for path, data in tree.items() if path != absent})
        rows = {video.uri: video for video in listing.videos}
        assert set(tree) - {absent} <= set(rows)
        assert absent not in rows or rows[absent].code == Code.E_MISSING_FILE
        for uri in set(rows) - {absent}:
            assert rows[uri].label in (whole[uri].label, None)


def test_empty_files_hidden_files_and_strangers(dataset: str, list_tree: ListTree) -> None:
    tree = RELEASES[dataset]
    empty = next(path for path in tree if is_video(path))
    folder = empty.rpartition("/")[0]
    more = {empty: b"", f"{folder}/._a.mp4": b"x", "elsewhere/a.mp4": b"x", "notes.md": b"x", "b.png": b"x"}
    rows = {video.uri: video.code for video in list_tree(dataset, tree | more).videos}
    assert rows[empty] == Code.E_EMPTY_FILE
    assert {rows[path] for path in more if path != empty} == {Code.S_FOREIGN}


def test_notes_name_the_layout(dataset: str, list_tree: ListTree) -> None:
    notes = list_tree(dataset, RELEASES[dataset]).notes
    assert notes
    assert all(note.startswith(f"{dataset}: ") and "\n" not in note for note in notes)


def test_a_tree_of_another_kind_is_refused(dataset: str, list_tree: ListTree) -> None:
    tree: Mapping[str, bytes] = {"clips/a.mp4": b"x", "notes.txt": b"x"}
    with pytest.raises(UnreadableError, match="^not .*: the source has no"):
        list_tree(dataset, tree)
