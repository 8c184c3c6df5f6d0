"""Folders of frames, and WildDeepfake: what its tree, and what copies of it, become."""

import re
from collections.abc import Callable, Mapping

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from lps.pipeline.sources.shared.types import NO_SEQUENCE
from tests.builders import by_uri

ListTree = Callable[..., SourceListing]
FRAMES = dict.fromkeys(("real/a/000/", "real/a/001/", "fake/swap/a/000/", "fake/swap/000_001/", "fake/b/"), b"x")


class TestFrames:
    def test_folders_of_images_are_listed_as_files_are_in_folder(self, list_tree: ListTree) -> None:
        listing = list_tree("frames", FRAMES)
        videos = by_uri(listing)
        assert videos["fake/swap/a/000/"] == SourceVideo(
            uri="fake/swap/a/000/",
            dataset="frames",
            label=1,
            label_source="folder",
            method="swap",
            original_uri="real/a/000/",
            target_keys=("frames/a/000",),
        )
        files = by_uri(list_tree("folder", {f"{path[:-1]}.mp4": data for path, data in FRAMES.items()}))
        for uri, video in videos.items():
            file = files[f"{uri[:-1]}.mp4"]
            assert (video.label, video.method, video.donor_keys) == (file.label, file.method, file.donor_keys)
            assert (video.original_uri or "")[:-1] == (file.original_uri or "")[:-4]
        assert videos["fake/swap/000_001/"].original_uri == "real/a/000/"  # by the names of FaceForensics++

    def test_other_files_are_foreign(self, list_tree: ListTree) -> None:
        more = {
            **dict.fromkeys(
                ("real/v.mp4", "real/a/000/Thumbs.db", "notes/", "real/", "fake/.x/a/", "fake/1.tar.gz"), b"x"
            ),
            "real/empty/": b"",
        }
        listing = list_tree("frames", FRAMES | more)
        videos = by_uri(listing)
        assert {videos[path].code for path in more if path != "real/empty/"} == {Code.S_FOREIGN}
        assert videos["real/empty/"].code == Code.E_EMPTY_FILE
        assert videos["real/v.mp4"].detail == "no folder of images"
        assert sum(video.code is None for video in listing.videos) == len(FRAMES)

    def test_a_folder_may_be_called_as_a_video_was(self, list_tree: ListTree) -> None:
        videos = by_uri(
            list_tree("frames", dict.fromkeys(("real/a.mp4/", "fake/x/a/", "real/v1.0/", "real/v1.1/"), b"x"))
        )
        assert videos["fake/x/a/"].original_uri == "real/a.mp4/"
        assert videos["real/v1.0/"].target_keys != videos["real/v1.1/"].target_keys

    def test_a_tree_without_the_two_folders_is_refused(self, list_tree: ListTree) -> None:
        with pytest.raises(UnreadableError, match="neither a real/ nor a fake/ folder"):
            list_tree("frames", {"a/000/": b"x"})

    def test_folder_reads_no_images(self, list_tree: ListTree) -> None:
        listing = list_tree("folder", {"real/000/1.png": b"x", "real/a.mp4": b"x"})
        assert {video.uri: video.code for video in listing.videos} == {
            "real/000/1.png": Code.S_FOREIGN, "real/a.mp4": None,
        }  # fmt: skip


NUMBERS = [(label, split, n) for label in ("real", "fake") for split in ("train", "test") for n in (1, 20)]
ARCHIVES = [f"{label}_{split}/{n}.tar.gz" for label, split, n in NUMBERS]
WILD = {f"{label}_{split}/{n}.tar.gz!/{n}/{label}/{k}/": b"x" for label, split, n in NUMBERS for k in (0, 103)}
"""What a release is once somebody has looked into its archives."""


def unpacked(path: str) -> str:
    return re.sub(r"\.tar\.gz!/[0-9]+", "", path)


def said(listing: SourceListing) -> list[tuple[object, ...]]:
    return sorted((v.label, v.method, v.official_split, v.target_keys, v.code) for v in listing.videos)


class TestWildDeepfake:
    def test_sequences_of_an_archive_share_a_key(self, list_tree: ListTree) -> None:
        tree = {"real_train/1.tar.gz!/1/real/3/": b"x", "fake_test/20.tar.gz!/20/fake/103/": b"x"}
        listing = list_tree("wilddeepfake", tree | dict.fromkeys(("real_train/1.tar.gz", "fake_test/20.tar.gz"), b"x"))
        assert by_uri(listing) == {
            "real_train/1.tar.gz!/1/real/3/": SourceVideo(
                uri="real_train/1.tar.gz!/1/real/3/",
                dataset="wilddeepfake",
                label=0,
                label_source="folder",
                official_split="train",
                target_keys=("wilddeepfake/archive/real_train/1",),
            ),
            "fake_test/20.tar.gz!/20/fake/103/": SourceVideo(
                uri="fake_test/20.tar.gz!/20/fake/103/",
                dataset="wilddeepfake",
                label=1,
                label_source="folder",
                method="fake",
                official_split="test",
                target_keys=("wilddeepfake/archive/fake_test/20",),
            ),
        }
        assert "wilddeepfake: 1 of 3409 real_train videos found" in listing.notes
        assert "wilddeepfake: 0 of 396 real_test videos found" in listing.notes

    def test_archives_before_anybody_has_looked_into_them(self, list_tree: ListTree) -> None:
        tree = dict.fromkeys((*ARCHIVES, "more/1.tar.gz", "real_train/README.md"), b"x")
        videos = by_uri(list_tree("wilddeepfake", tree))
        assert {path for path, video in videos.items() if video.detail == NO_SEQUENCE} == set(ARCHIVES)
        assert {video.code for video in videos.values()} == {Code.S_FOREIGN}

    @pytest.mark.parametrize(
        "change",
        [
            lambda path: f"deepfake_in_the_wild/{path}",
            lambda path: path.replace("real_train", "Real_Train").replace("fake_test", "FAKE_TEST"),
            unpacked,
            lambda path: f"a/b/{path.replace('.tar.gz!', '')}",
        ],
        ids=["in a folder", "in capitals", "unpacked", "unpacked into folders"],
    )
    def test_copies_say_the_same(self, list_tree: ListTree, change: Callable[[str], str]) -> None:
        assert said(list_tree("wilddeepfake", {change(path): data for path, data in WILD.items()})) == said(
            list_tree("wilddeepfake", WILD)
        )

    def test_an_archive_beside_what_was_unpacked_from_it_counts_once(self, list_tree: ListTree) -> None:
        listing = list_tree("wilddeepfake", WILD | {unpacked(path): data for path, data in WILD.items()})
        codes = [video.code for video in listing.videos]
        assert codes.count(Code.E_DUP_NAME) == codes.count(None) == len(WILD)

    def test_any_part_of_it_is_read(self, list_tree: ListTree) -> None:
        tree: Mapping[str, bytes] = {path: data for path, data in WILD.items() if path.startswith("fake_test/")}
        assert {(v.label, v.official_split, v.code) for v in list_tree("wilddeepfake", tree).videos} == {
            (1, "test", None)
        }

    def test_sequences_in_a_heap_have_keys_of_their_own(self, list_tree: ListTree) -> None:
        tree = dict.fromkeys(("real_train/frames/3/", "real_train/frames/4/", "real_train/5/"), b"x")
        keys = [video.target_keys for video in list_tree("wilddeepfake", tree).videos]
        assert keys == [(f"wilddeepfake/sequence/real_train/{k}",) for k in (5, 3, 4)]

    def test_odd_names_and_labels(self, list_tree: ListTree) -> None:
        tree = dict.fromkeys(("real_train/1.tar.gz!/1/fake/3/", "real_train/1.tar.gz!/1/real/face/"), b"x")
        assert {video.uri: video.code for video in list_tree("wilddeepfake", tree).videos} == {
            "real_train/1.tar.gz!/1/fake/3/": Code.E_LABEL_CONFLICT,
            "real_train/1.tar.gz!/1/real/face/": Code.E_NAME_GRAMMAR,
        }

    def test_a_tree_of_another_kind_is_refused(self, list_tree: ListTree) -> None:
        with pytest.raises(UnreadableError, match="^not WildDeepfake: the source has no videos in any of real_train/"):
            list_tree("wilddeepfake", {"real/000/": b"x", "1.tar.gz": b"x"})

    def test_archives_are_no_inputs_elsewhere(self, list_tree: ListTree) -> None:
        tree = {"fake/0000_fake.mp4": b"x", "fake/0001.tar.gz": b"x"}
        assert by_uri(list_tree("uadfv", tree))["fake/0001.tar.gz"].detail == "not a video"
