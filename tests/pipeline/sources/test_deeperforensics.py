"""DeeperForensics-1.0."""

from collections.abc import Callable

from lps.manifests.codes import Code
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from tests.builders import by_uri
from tests.pipeline.sources.release_trees import RELEASES, SWAP

ListTree = Callable[..., SourceListing]
TREE = RELEASES["deeperforensics"]
SOURCE = "source_videos/M101/light_down/contempt/camera_front/M101_light_down_contempt_camera_front.mp4"


def test_a_swap_is_tied_to_its_sequence_of_ffpp(list_tree: ListTree) -> None:
    assert by_uri(list_tree("deeperforensics", TREE))[SWAP] == SourceVideo(
        uri=SWAP,
        dataset="deeperforensics",
        label=1,
        label_source="folder",
        method="end_to_end",
        official_split="train",
        target_keys=("ffpp/seq/071",),
        donor_keys=("deeperforensics/actor/M101",),
        identity_keys=("deeperforensics/actor/M101",),
        identity_confidence="published",
    )
    real = list_tree("ffpp", {"original_sequences/youtube/c23/videos/071.mp4": b"x"}).videos[0]
    assert real.target_keys == ("ffpp/seq/071",)


def test_recordings_of_actors_are_real_marked_and_without_split(list_tree: ListTree) -> None:
    listing = list_tree("deeperforensics", TREE)
    video = by_uri(listing)[SOURCE]
    assert (video.label, video.source_part, video.official_split) == (0, "source_videos", None)
    assert video.target_keys == video.identity_keys == ("deeperforensics/actor/M101",)
    assert any("not meant as the real class" in note for note in listing.notes)


def test_a_line_of_the_lists_holds_for_all_variants(list_tree: ListTree) -> None:
    listing = list_tree("deeperforensics", TREE)
    splits = {v.uri.partition("/")[2]: v.official_split for v in listing.videos if v.label == 1}
    assert splits == {
        "end_to_end/071_M101.mp4": "train",
        "end_to_end_level_1/071_M101.mp4": "train",
        "reenact_postprocess/500_W004.mp4": "test",
    }
    assert not any("official split unknown" in note for note in listing.notes)


def test_missing_lists_are_named_and_may_be_given(list_tree: ListTree) -> None:
    tree = {path: data for path, data in TREE.items() if not path.endswith(("val.txt", "test.txt"))}
    said = "deeperforensics: official split unknown: no val.txt, test.txt in lists/splits/"
    assert said in list_tree("deeperforensics", tree).notes
    given = {"val.txt": b"", "test.txt": b"071_M101.mp4"}
    listing = list_tree("deeperforensics", tree, splits=given)
    assert by_uri(listing)[SWAP].official_split == "test"
    assert said not in listing.notes


def test_counts_and_strange_variants(list_tree: ListTree) -> None:
    path = "manipulated_videos/my_variant/071_M101.mp4"
    listing = list_tree("deeperforensics", TREE | {path: b"x"})
    assert by_uri(listing)[path].code == Code.S_FOREIGN
    assert "deeperforensics: 0 of 1000 manipulated_videos/end_to_end_level_5 videos found" in listing.notes
    assert "deeperforensics: 2 of 48475 source_videos videos found" in listing.notes


def test_names_outside_the_grammar(list_tree: ListTree) -> None:
    paths = ["manipulated_videos/end_to_end/71_M101.mp4", "source_videos/M101/X101_light.mp4"]
    found = by_uri(list_tree("deeperforensics", TREE | dict.fromkeys(paths, b"x")))
    assert {found[path].code for path in paths} == {Code.E_NAME_GRAMMAR}
