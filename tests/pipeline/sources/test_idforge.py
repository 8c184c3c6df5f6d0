"""IDForge."""

from collections.abc import Callable

from lps.manifests.codes import Code
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from tests.builders import by_uri
from tests.pipeline.sources.release_trees import RELEASES

ListTree = Callable[..., SourceListing]
TREE = RELEASES["idforge"]
FAKE = "face_tts/id00/id00_03/id00_scene_0015_0_infoswap.mp4"


def test_a_fake(list_tree: ListTree) -> None:
    assert by_uri(list_tree("idforge", TREE))[FAKE] == SourceVideo(
        uri=FAKE,
        dataset="idforge",
        label=1,
        label_source="folder",
        method="face_tts",
        source_part="face_tts",
        official_split="test",
        target_keys=("idforge/id/id00",),
        identity_keys=("idforge/id/id00",),
        identity_confidence="published",
    )


def test_fake_sound_is_real_recorded_and_told(list_tree: ListTree) -> None:
    listing = list_tree("idforge", TREE)
    video = by_uri(listing)["rvc_textmismatch/id00/id00_03/id00_scene_0014.mp3.mp4"]
    assert (video.label, video.method, video.source_part) == (0, None, "rvc_textmismatch")
    assert "idforge: 1 videos with real pictures and fake sound count as real" in listing.notes


def test_a_video_that_no_line_names_has_the_split_of_its_namesakes(list_tree: ListTree) -> None:
    namesake = "lip_tts_textgen/id00/id00_03/id00_scene_0015_0_infoswap.mp4"
    listed = by_uri(list_tree("idforge", TREE | {namesake: b"x"}))
    assert listed[namesake].official_split == "test"
    assert listed["lip_rvc_textmismatch/id00/id00_04/id00_scene_0015_0_infoswap.mp4"].official_split is None
    torn = TREE | {namesake: b"x", "val.csv": b"face_rvc_textmismatch/id00/id00_03/id00_scene_0015_0_infoswap.mp4"}
    videos = by_uri(list_tree("idforge", torn))
    assert (videos[namesake].official_split, videos[FAKE].official_split) == (None, "test")


def test_lists_that_are_missing_or_of_something_else_are_told(list_tree: ListTree) -> None:
    tree = {path: data for path, data in TREE.items() if path != "test.csv"} | {"val.csv": b"a,b\nc\n"}
    listing = list_tree("idforge", tree)
    assert "idforge: official split unknown: no test.csv" in listing.notes
    assert "idforge: 2 lines of val.csv name no video of IDForge" in listing.notes
    assert by_uri(listing)[FAKE].official_split is None


def test_names_outside_the_grammar(list_tree: ListTree) -> None:
    path = "pristine/id00/id00_03/scene.mp4"
    assert by_uri(list_tree("idforge", TREE | {path: b"x"}))[path].code == Code.E_NAME_GRAMMAR
