"""Celeb-DF v1 and Celeb-DF++; v2, with all that they share, is in test_celebdf.py."""

from collections.abc import Callable

import pytest

from lps.manifests.codes import Code
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from tests.builders import by_uri
from tests.pipeline.sources.release_trees import RELEASES

ListTree = Callable[..., SourceListing]
LIST = "List_of_testing_videos.txt"
PP = RELEASES["celebdf-pp"]
SYNTHESIS = "Celeb-synthesis"


@pytest.fixture(scope="module")
def videos(list_tree: ListTree) -> dict[str, SourceVideo]:
    return by_uri(list_tree("celebdf-pp", PP))


class TestPlusPlus:
    def test_a_swap_has_the_keys_of_v2(self, videos: dict[str, SourceVideo]) -> None:
        uri = f"{SYNTHESIS}/FaceSwap/GHOST/id0_id1_0007.mp4"
        assert videos[uri] == SourceVideo(
            uri=uri,
            dataset="celebdfpp",
            label=1,
            label_source="folder",
            method="GHOST",
            official_split="test",
            original_uri="Celeb-real/id0_0007.mp4",
            target_keys=("celebdf2/id/id0",),
            donor_keys=("celebdf2/id/id1",),
            identity_keys=("celebdf2/id/id0", "celebdf2/id/id1"),
            identity_confidence="published",
        )

    def test_a_talking_face_has_no_donor(self, videos: dict[str, SourceVideo]) -> None:
        video = videos[f"{SYNTHESIS}/TalkingFace/IP_LAP/id1_0000_test_00003.mp4"]
        assert (video.method, video.original_uri) == ("IP_LAP", "Celeb-real/id1_0000.mp4")
        assert (video.target_keys, video.donor_keys) == (("celebdf2/id/id1",), ())

    def test_one_stem_in_two_methods_is_no_duplicate_and_tested_once(self, videos: dict[str, SourceVideo]) -> None:
        both = [videos[f"{SYNTHESIS}/FaceSwap/{method}/id0_id1_0007.mp4"] for method in ("Celeb-DF", "GHOST")]
        assert [(v.code, v.official_split, v.method) for v in both] == [
            (None, "train", "celeb_synthesis"),
            (None, "test", "GHOST"),
        ]

    def test_counts_and_absent_methods_are_told(self, list_tree: ListTree) -> None:
        notes = list_tree("celebdf-pp", PP).notes
        assert f"celebdf-pp: {LIST} names 4 videos, published 5418" in notes
        assert "celebdf-pp: 4 of 53196 fakes found" in notes
        assert "celebdf-pp: 1 of 5639 celeb-synthesis/faceswap/celeb-df videos found" in notes
        (absent,) = (note for note in notes if note.startswith("celebdf-pp: no videos of "))
        assert len(absent.split(", ")) == 18  # of 21 besides the fakes of Celeb-DF
        assert "GHOST" not in absent

    def test_the_folder_of_old_fakes_may_be_spelled_as_v2(self, list_tree: ListTree) -> None:
        tree = {path.replace("FaceSwap/Celeb-DF/", "FaceSwap/Celeb-DF-v2/"): data for path, data in PP.items()}
        video = by_uri(list_tree("celebdf-pp", tree))[f"{SYNTHESIS}/FaceSwap/Celeb-DF-v2/id0_id1_0007.mp4"]
        assert (video.code, video.method, video.original_uri) == (None, "celeb_synthesis", "Celeb-real/id0_0007.mp4")
        twice = list_tree("celebdf-pp", tree | PP).videos
        assert [v.code for v in twice if "Celeb-DF" in v.uri] == [None, Code.E_DUP_NAME]

    def test_methods_that_are_not_published_are_foreign(self, list_tree: ListTree) -> None:
        paths = [f"{SYNTHESIS}/FaceSwap/Roop/id0_id1_0007.mp4", f"{SYNTHESIS}/id0_id1_0007.mp4"]
        found = by_uri(list_tree("celebdf-pp", PP | dict.fromkeys(paths, b"x")))
        assert {found[path].code for path in paths} == {Code.S_FOREIGN}

    @pytest.mark.parametrize("name", ["FaceSwap/GHOST/id0_0007", "TalkingFace/FLOAT/id0_id1_0007"])
    def test_the_grammar_is_that_of_the_family(self, list_tree: ListTree, name: str) -> None:
        path = f"{SYNTHESIS}/{name}.mp4"
        assert by_uri(list_tree("celebdf-pp", PP | {path: b"x"}))[path].code == Code.E_NAME_GRAMMAR


class TestLists:
    @pytest.mark.parametrize("edition", ["celebdf-v1", "celebdf-pp"])
    @pytest.mark.parametrize("swapped", [False, True])
    def test_either_digit_may_mean_real(self, list_tree: ListTree, edition: str, swapped: bool) -> None:
        tree = RELEASES[edition]
        lines = tree[LIST].decode().splitlines(keepends=True)
        lines = [str(1 - int(line[0])) + line[1:] for line in lines] if swapped else lines
        listed = list_tree(edition, tree | {LIST: "".join(lines).encode()}).videos
        assert {v.code for v in listed if v.official_split == "test"} == {None}

    def test_a_line_against_the_others_is_a_conflict(self, list_tree: ListTree) -> None:
        line = b"1 Celeb-synthesis/FaceSwap/Celeb-DF/id0_id1_0007.mp4\n"
        found = by_uri(list_tree("celebdf-pp", PP | {LIST: PP[LIST] + line}))
        conflicts = [uri for uri, video in found.items() if video.code == Code.E_LABEL_CONFLICT]
        assert conflicts == [line.split()[1].decode()]

    def test_listed_and_absent(self, list_tree: ListTree) -> None:
        absent = f"{SYNTHESIS}/FaceReenact/LIA/id1_id0_0007.mp4"
        video = by_uri(list_tree("celebdf-pp", PP | {LIST: PP[LIST] + f"0 {absent}\n".encode()}))[absent]
        assert (video.code, video.method, video.official_split) == (Code.E_MISSING_FILE, "LIA", "test")

    def test_v2_insists_on_its_digits(self, list_tree: ListTree) -> None:
        codes = {v.code for v in list_tree("celebdf", RELEASES["celebdf-v1"]).videos if v.official_split == "test"}
        assert codes == {Code.E_LABEL_CONFLICT}


class TestV1:
    def test_its_persons_have_keys_of_their_own(self, list_tree: ListTree) -> None:
        fake = by_uri(list_tree("celebdf-v1", RELEASES["celebdf-v1"]))[f"{SYNTHESIS}/id0_id1_0000.mp4"]
        assert (fake.dataset, fake.original_uri) == ("celebdf1", "Celeb-real/id0_0000.mp4")
        assert fake.identity_keys == ("celebdf1/id/id0", "celebdf1/id/id1")

    def test_counts(self, list_tree: ListTree) -> None:
        counts = [n for n in list_tree("celebdf-v1", RELEASES["celebdf-v1"]).notes if n.endswith("videos found")]
        assert [count.split(" of ")[1].split()[0] for count in counts] == ["158", "250", "795"]
