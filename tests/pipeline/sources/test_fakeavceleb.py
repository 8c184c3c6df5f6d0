"""FakeAVCeleb."""

from collections.abc import Callable

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from tests.builders import by_uri
from tests.pipeline.sources.release_trees import FAKE_AV_ROWS, RELEASES

ListTree = Callable[..., SourceListing]
TREE = RELEASES["fakeavceleb"]
REAL = "RealVideo-RealAudio/African/men/id00076/00109.mp4"
HEARD = "RealVideo-FakeAudio/African/men/id00076/00109_fake.mp4"
VOICE = "FakeVideo-FakeAudio/African/men/id00076/00109_id00476_wavtolip.mp4"
FACE = "FakeVideo-RealAudio/Asian (East)/women/id04540/00078_id05235_eQTviHjyISo.mp4"


@pytest.fixture(scope="module")
def videos(list_tree: ListTree) -> dict[str, SourceVideo]:
    return by_uri(list_tree("fakeavceleb", TREE))


class TestVideos:
    def test_a_swapped_face_has_a_donor(self, videos: dict[str, SourceVideo]) -> None:
        assert videos[FACE] == SourceVideo(
            uri=FACE,
            dataset="fakeavceleb",
            label=1,
            label_source="folder",
            method="faceswap",
            source_part="FakeVideo-RealAudio",
            original_uri="RealVideo-RealAudio/Asian (East)/women/id04540/00078.mp4",
            target_keys=("fakeavceleb/clip/id04540/00078",),
            donor_keys=("voxceleb2/id/id05235",),
            identity_keys=("voxceleb2/id/id04540", "voxceleb2/id/id05235"),
            identity_confidence="published",
        )

    def test_a_voice_is_no_donor(self, videos: dict[str, SourceVideo]) -> None:
        video = videos[VOICE]
        assert (video.method, video.donor_keys, video.identity_keys) == ("wav2lip", (), ("voxceleb2/id/id00076",))
        assert video.original_uri == REAL

    def test_real_pictures_with_fake_sound_are_real_and_recorded(self, list_tree: ListTree) -> None:
        listing = list_tree("fakeavceleb", TREE)
        video = by_uri(listing)[HEARD]
        assert (video.label, video.method, video.source_part) == (0, None, "RealVideo-FakeAudio")
        assert video.target_keys == by_uri(listing)[REAL].target_keys
        assert "fakeavceleb: 1 videos with real pictures and fake sound count as real" in listing.notes

    def test_one_stem_of_two_people_is_no_duplicate(self, videos: dict[str, SourceVideo]) -> None:
        same = [v for v in videos.values() if v.uri.endswith("/00078.mp4")]
        assert [v.code for v in same] == [None, None]
        assert len({v.target_keys for v in same}) == 2

    def test_copies_write_races_differently(self, list_tree: ListTree, videos: dict[str, SourceVideo]) -> None:
        tree = {path.replace("Asian (East)", "Asian_East"): data for path, data in TREE.items()}
        video = by_uri(list_tree("fakeavceleb", tree))[FACE.replace("Asian (East)", "Asian_East")]
        assert (video.method, video.donor_keys) == (videos[FACE].method, videos[FACE].donor_keys)
        assert video.original_uri == "RealVideo-RealAudio/Asian_East/women/id04540/00078.mp4"

    def test_ids_are_whole_words(self, list_tree: ListTree) -> None:
        path = "FakeVideo-RealAudio/African/men/id00076/00109_id004761_xid00002.mp4"
        video = by_uri(list_tree("fakeavceleb", TREE | {path: b"x"}))[path]
        assert (video.donor_keys, video.code) == ((), None)

    def test_names_without_a_clip_are_outside_the_grammar(self, list_tree: ListTree) -> None:
        path = "FakeVideo-RealAudio/African/men/id00076/clip.mp4"
        assert by_uri(list_tree("fakeavceleb", TREE | {path: b"x"}))[path].code == Code.E_NAME_GRAMMAR


class TestMetadata:
    def test_without_it_every_id_of_a_name_is_a_donor(self, list_tree: ListTree) -> None:
        listing = list_tree("fakeavceleb", {path: data for path, data in TREE.items() if path != "meta_data.csv"})
        video = by_uri(listing)[VOICE]
        assert (video.method, video.donor_keys) == ("FakeVideo-FakeAudio", ("voxceleb2/id/id00476",))
        assert "fakeavceleb: methods unknown: no meta_data.csv" in listing.notes

    def test_a_row_without_its_file(self, list_tree: ListTree) -> None:
        listing = list_tree("fakeavceleb", {path: data for path, data in TREE.items() if path != VOICE})
        video = by_uri(listing)[VOICE]
        assert (video.code, video.label, video.method) == (Code.E_MISSING_FILE, 1, "wav2lip")

    def test_a_row_twice_is_one_missing_file(self, list_tree: ListTree) -> None:
        tree = {path: data for path, data in TREE.items() if path != VOICE}
        line = next(line for line in FAKE_AV_ROWS.splitlines() if "wavtolip" in line)
        listing = list_tree("fakeavceleb", tree | {"meta_data.csv": f"{FAKE_AV_ROWS}{line}\n".encode()})
        assert [v.uri for v in listing.videos].count(VOICE) == 1

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"source,method\nid1,x\n", "needs the columns source,method,type"),
            (b"\xff", "not UTF-8"),
            (FAKE_AV_ROWS.encode() + b"a,b\n", "line 8: 2 values for 10 columns"),
        ],
    )
    def test_a_malformed_table_stops(self, list_tree: ListTree, data: bytes, said: str) -> None:
        with pytest.raises(UnreadableError, match=f"^meta_data.csv.*{said}"):
            list_tree("fakeavceleb", TREE | {"meta_data.csv": data})
