"""What holds for every adapter: each file becomes one row, and the order of the listing does not matter."""

import json
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.names import DATASETS
from lps.pipeline.sources.adapters import ADAPTERS, SourceFile, SourceListing, SourceOptions, list_videos
from lps.pipeline.sources.shared.types import is_video, may_be_video
from tests.pipeline.sources.release_trees import RELEASES

ListTree = Callable[..., SourceListing]

BENCH_LIST = {
    "FF-DF": {
        label: {"train": {"c23": {name: {"label": label, "frames": [f"./datasets/rgb/FF/{name}/000.png"]}}}}
        for label, name in (("FF-real", "000"), ("FF-DF", "000_003"))
    }
}
TREES: dict[str, dict[str, bytes]] = {
    "folder": {
        "real/a.mp4": b"x",
        "real/b/a.mp4": b"x",
        "fake/m/a.mp4": b"x",
        "fake/c.mp4": b"",
        "notes.txt": b"x",
        "real/.DS_Store": b"x",
    },
    "ffpp": {
        "original_sequences/youtube/c23/videos/071.mp4": b"x",
        "original_sequences/youtube/raw/videos/071.mp4": b"x",
        "original_sequences/youtube/c0/videos/071.mp4": b"x",
        "manipulated_sequences/Deepfakes/c23/videos/071_054.mp4": b"x",
        "manipulated_sequences/Deepfakes/masks/videos/071_054.mp4": b"x",
        "manipulated_sequences/Deepfakes/masks/071_054.png": b"x",
        "manipulated_sequences/Deepfakes/c23/videos/oops.mp4": b"x",
        "downloaded_videos/x.mp4": b"x",
        "dataset/splits/train.json": b'[["071", "054"]]',
    },
    "dfdc": {
        "p0/metadata.json": json.dumps(
            {
                "aaaaaaaaaa.mp4": {"label": "REAL", "split": "train"},
                "bbbbbbbbbb.mp4": {"label": "FAKE", "split": "train", "original": "aaaaaaaaaa.mp4"},
            }
        ).encode(),
        "p1/metadata.json": json.dumps({"aaaaaaaaaa.mp4": {"label": "REAL", "split": "train"}}).encode(),
        "p0/aaaaaaaaaa.mp4": b"x",
        "p1/aaaaaaaaaa.mp4": b"x",
        "p0/bbbbbbbbbb.mp4": b"x",
        "p0/cccccccccc.mp4": b"x",
        "elsewhere/dddddddddd.mp4": b"x",
    },
    **RELEASES,
    "deepfakebench": {
        "dataset_json/FF-DF.json": json.dumps(BENCH_LIST).encode(),
        "rgb/FF/000/": b"x",
        "rgb/FF/000_003/": b"x",
        "rgb/FF/999/": b"x",
        "label_dict.yaml": b"x",
    },
    "celebdf": {
        "Celeb-real/id0_0000.mp4": b"x",
        "Celeb-real/videos/id0_0000.mp4": b"x",
        "Celeb-synthesis/id0_id1_0000.mp4": b"x",
        "YouTube-real/00170.mp4": b"x",
        "YouTube-real/170.mp4": b"x",
        "List_of_testing_videos.txt": b"1 YouTube-real/00170.mp4\n",
        "readme.md": b"x",
    },
}


def listing_in_order(dataset: str, tree: Mapping[str, bytes], order: list[str]) -> SourceListing:
    files = [SourceFile(path=path, n_bytes=len(tree[path])) for path in order]
    return list_videos(dataset, files, SourceOptions(read_bytes=tree.__getitem__))


class TestEveryAdapter:
    @pytest.mark.parametrize("dataset", TREES)
    def test_every_file_becomes_exactly_one_row(self, dataset: str, list_tree: ListTree) -> None:
        rows = [video.uri for video in list_tree(dataset, TREES[dataset]).videos]
        assert rows == sorted(TREES[dataset])

    @pytest.mark.parametrize("dataset", TREES)
    def test_a_row_without_a_code_is_a_labelled_video(self, dataset: str, list_tree: ListTree) -> None:
        videos = [video for video in list_tree(dataset, TREES[dataset]).videos if video.code is None]
        assert videos
        assert all(is_video(video.uri) and video.label in (0, 1) for video in videos)
        assert all((video.method is None) == (video.label == 0) for video in videos)

    @pytest.mark.parametrize("dataset", TREES)
    @given(data=st.data())
    def test_order_of_the_listing_does_not_matter(self, dataset: str, data: st.DataObject) -> None:
        tree = TREES[dataset]
        order = data.draw(st.permutations(sorted(tree)))
        assert listing_in_order(dataset, tree, order) == listing_in_order(dataset, tree, sorted(tree))

    @pytest.mark.parametrize("dataset", sorted(set(TREES)))
    def test_another_tree_is_refused(self, dataset: str, list_tree: ListTree) -> None:
        with pytest.raises(UnreadableError, match="neither|has no"):
            list_tree(dataset, {"videos/a.mp4": b"x"})


class TestDispatch:
    def test_names_are_those_of_the_command_line(self) -> None:
        assert tuple(ADAPTERS) == DATASETS

    def test_unknown_data_set(self, list_tree: ListTree) -> None:
        with pytest.raises(
            UnreadableError, match="no data set is called 'vox': choose one of folder, frames, table, ffpp"
        ):
            list_tree("vox", {})

    def test_a_store_that_lists_a_path_twice_is_refused(self) -> None:
        with pytest.raises(UnreadableError, match=r"the store lists 'real/a.mp4' more than once"):
            listing_in_order("folder", {"real/a.mp4": b"x"}, ["real/a.mp4", "real/a.mp4"])

    def test_a_metadata_file_that_cannot_be_read(self) -> None:
        def refuse(path: str) -> bytes:
            raise PermissionError(13, "Permission denied", "/secret/place")

        files = [SourceFile(path="p0/metadata.json", n_bytes=1)]
        with pytest.raises(UnreadableError, match=r"^p0/metadata.json: cannot be read \(Permission denied\)$"):
            list_videos("dfdc", files, SourceOptions(read_bytes=refuse))

    def test_a_given_list_that_cannot_be_read(self) -> None:
        def refuse(name: str) -> bytes | None:
            raise PermissionError(13, "Permission denied")

        files = [SourceFile(path="original_sequences/x.mp4", n_bytes=1)]
        options = SourceOptions(read_bytes=lambda _path: b"", splits_dir_read=refuse)
        with pytest.raises(UnreadableError, match=r"^ffpp_split_train.json: cannot be read"):
            list_videos("ffpp", files, options)


class TestNotes:
    def test_codes_are_counted_but_text_files_and_masks_are_not(self, list_tree: ListTree) -> None:
        notes = "\n".join(list_tree("ffpp", TREES["ffpp"]).notes)
        assert f"ffpp: 1 x {Code.E_NAME_GRAMMAR}: " in notes
        assert f"ffpp: 1 x {Code.E_DUP_NAME}: " in notes
        assert f"ffpp: 1 x {Code.S_FOREIGN}: " in notes  # downloaded_videos/x.mp4, not train.json
        assert Code.S_MASK not in notes

    def test_no_note_where_only_text_is_foreign(self, list_tree: ListTree) -> None:
        tree = {"real/a.mp4": b"x", "fake/a.mp4": b"x", "readme.md": b"x", "real/._a.mp4": b"x"}
        assert list_tree("folder", tree).notes == ()

    def test_what_is_left_out_is_counted_by_its_ending(self, list_tree: ListTree) -> None:
        tree = dict.fromkeys(("real/a.mp4", "fake/a.mp4", "real/b.PNG", "real/c.png", "real/d.zip", "real/e"), b"x")
        assert list_tree("folder", tree).notes == (
            "folder: left out, not videos: 2 .png, 1 without ending, 1 .zip",
        )  # fmt: skip

    @pytest.mark.parametrize("dataset", TREES)
    def test_each_note_is_one_line_that_names_the_adapter(self, dataset: str, list_tree: ListTree) -> None:
        for note in list_tree(dataset, TREES[dataset]).notes:
            assert "\n" not in note
            assert note.startswith(f"{dataset}: ")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.mp4", True),
        ("x/A.MOV", True),
        ("three_people.gif", True),
        ("crowd.h264", True),
        *((f"a{suffix}", True) for suffix in (".vob", ".asf", ".mxf", ".3g2", ".qt", ".f4v")),
        ("a.txt", False),
        ("mp4", False),
        (".mp4", False),
        ("._a.mp4", False),
        (".trash/a.mp4", False),
    ],
)
def test_is_video(path: str, expected: bool) -> None:
    assert is_video(path) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a", True),
        ("a.webp", True),
        ("a.xyz", True),
        ("a.mp4", False),
        ("a.TXT", False),
        ("a.png", False),
        (".x", False),
    ],
)
def test_may_be_video(path: str, expected: bool) -> None:
    assert may_be_video(path) is expected


def test_what_opens_is_a_video_whatever_its_name() -> None:
    files = [
        SourceFile(path="real/clip", n_bytes=1, opens=True),
        SourceFile(path="fake/x/clip.odd", n_bytes=1, opens=True),
    ]
    fake, real = list_videos("folder", files, SourceOptions(read_bytes=lambda _path: b"")).videos
    assert (real.uri, real.code, real.label) == ("real/clip", None, 0)
    assert (fake.code, fake.original_uri, fake.method) == (None, "real/clip", "x")
