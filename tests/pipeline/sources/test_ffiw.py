"""FFIW-10K and UADFV."""

from collections.abc import Callable

from lps.manifests.codes import Code
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from tests.builders import by_uri
from tests.pipeline.sources.release_trees import RELEASES

ListTree = Callable[..., SourceListing]
FFIW, UADFV = RELEASES["ffiw"], RELEASES["uadfv"]


class TestFfiw:
    def test_videos_of_one_number_share_a_key_and_are_no_pair(self, list_tree: ListTree) -> None:
        videos = by_uri(list_tree("ffiw", FFIW))
        uri = "target/train/00000001.mp4"
        assert videos[uri] == SourceVideo(
            uri=uri,
            dataset="ffiw",
            label=1,
            label_source="folder",
            method="fake",
            official_split="train",
            target_keys=("ffiw/video/train/00000001",),
        )
        assert videos["source/train/00000001.mp4"].target_keys == videos[uri].target_keys
        assert videos["source/test/00000001.mp4"].target_keys != videos[uri].target_keys

    def test_the_test_part_lies_elsewhere(self, list_tree: ListTree) -> None:
        tree = {("b" if "/test/" in path else "a/c") + f"/{path}": data for path, data in FFIW.items()}
        assert [v.code for v in list_tree("ffiw", tree).videos] == [None] * len(FFIW)

    def test_masks_are_skipped(self, list_tree: ListTree) -> None:
        paths = ["target_mask/train/00000000.mp4", "target_mask/val/x/00000000.mp4"]
        listing = list_tree("ffiw", FFIW | dict.fromkeys(paths, b"x"))
        assert {by_uri(listing)[path].code for path in paths} == {Code.S_MASK}
        assert "ffiw: 2 of 8000 target/train videos found" in listing.notes

    def test_a_prefix_of_the_split_is_no_part_of_the_number(self, list_tree: ListTree) -> None:
        path = "target/train/train_00000007.mp4"
        assert by_uri(list_tree("ffiw", {path: b"x"}))[path].target_keys == ("ffiw/video/train/00000007",)

    def test_names_outside_the_grammar(self, list_tree: ListTree) -> None:
        assert list_tree("ffiw", {"source/val/1.mp4": b"x"}).videos[0].code == Code.E_NAME_GRAMMAR


class TestUadfv:
    def test_a_fake_has_the_original_of_its_number(self, list_tree: ListTree) -> None:
        videos = by_uri(list_tree("uadfv", UADFV))
        assert videos["fake/0001_fake.mp4"] == SourceVideo(
            uri="fake/0001_fake.mp4",
            dataset="uadfv",
            label=1,
            label_source="folder",
            method="fake",
            original_uri="real/0001.mp4",
            target_keys=("uadfv/video/0001",),
        )
        assert videos["real/0001.mp4"].target_keys == ("uadfv/video/0001",)

    def test_without_its_original(self, list_tree: ListTree) -> None:
        listing = list_tree("uadfv", {"fake/0001_fake.mp4": b"x"})
        assert listing.videos[0].original_uri is None
        assert any(note.startswith(f"uadfv: 1 x {Code.E_ORIGINAL_UNRESOLVED}") for note in listing.notes)

    def test_names_outside_the_grammar(self, list_tree: ListTree) -> None:
        codes = [v.code for v in list_tree("uadfv", {"fake/0001.mp4": b"x", "real/0001_fake.mp4": b"x"}).videos]
        assert codes == [Code.E_NAME_GRAMMAR] * 2

    def test_counts(self, list_tree: ListTree) -> None:
        assert "uadfv: 2 of 49 real videos found" in list_tree("uadfv", UADFV).notes
