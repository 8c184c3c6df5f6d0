"""DF40."""

from collections.abc import Callable

from lps.manifests.codes import Code
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from tests.builders import by_uri
from tests.pipeline.sources.release_trees import RELEASES

ListTree = Callable[..., SourceListing]
TREE = RELEASES["df40"]


def test_a_swap_has_the_keys_of_its_domain(list_tree: ListTree) -> None:
    videos = by_uri(list_tree("df40", TREE))
    uri = "test/simswap/cdf/id0_id1_0000.mp4"
    assert videos[uri] == SourceVideo(
        uri=uri,
        dataset="df40",
        label=1,
        label_source="folder",
        method="simswap",
        official_split="test",
        target_keys=("celebdf2/id/id0",),
        donor_keys=("celebdf2/id/id1",),
        identity_keys=("celebdf2/id/id0", "celebdf2/id/id1"),
        identity_confidence="published",
    )
    ff = videos["train/simswap/ff/000_003.mp4"]
    assert (ff.target_keys, ff.donor_keys, ff.official_split) == (("ffpp/seq/000",), ("ffpp/seq/003",), "train")


def test_where_the_order_is_not_known_both_are_targets(list_tree: ListTree) -> None:
    video = by_uri(list_tree("df40", TREE))["test/MRAA/ff/000_003.mp4"]
    assert (video.target_keys, video.donor_keys) == (("ffpp/seq/000", "ffpp/seq/003"), ())


def test_names_of_one_sequence_or_person(list_tree: ListTree) -> None:
    videos = by_uri(list_tree("df40", TREE | {"test/wav2lip/ff/071.mp4": b"x"}))
    assert videos["test/sadtalker/cdf/id0_0000.mp4"].identity_keys == ("celebdf2/id/id0",)
    assert videos["test/wav2lip/ff/071.mp4"].target_keys == ("ffpp/seq/071",)


def test_names_of_the_other_domain_give_no_keys(list_tree: ListTree) -> None:
    path = "test/simswap/ff/id0_id1_0000.mp4"
    assert by_uri(list_tree("df40", TREE | {path: b"x"}))[path].target_keys == ()


def test_what_has_no_keys_is_used_and_counted(list_tree: ListTree) -> None:
    listing = list_tree("df40", TREE)
    assert by_uri(listing)["test/wav2lip/ff/speech.mp4"].code is None
    said = "df40: 3 videos without keys: their names give neither sequences nor persons"
    assert said in listing.notes  # speech, and the two of HeyGen


def test_only_two_methods_bring_their_reals(list_tree: ListTree) -> None:
    videos = by_uri(list_tree("df40", TREE | {"test/simswap/real/a.mp4": b"x"}))
    assert (videos["test/heygen/real/b.mp4"].label, videos["test/heygen/fake/a.mp4"].method) == (0, "heygen")
    assert videos["test/simswap/real/a.mp4"].code == Code.S_FOREIGN


def test_frames_are_told(list_tree: ListTree) -> None:
    notes = list_tree("df40", TREE).notes
    assert "df40: left out, not videos: 1 .png" in notes
    assert any(note.startswith("df40: no videos of blendface, e4s") for note in notes)
