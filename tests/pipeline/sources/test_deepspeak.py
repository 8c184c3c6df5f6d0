"""DeepSpeak v1.1 and v2."""

from collections.abc import Callable

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from tests.builders import by_uri
from tests.pipeline.sources.release_trees import RELEASES

ListTree = Callable[..., SourceListing]
V1, V2 = RELEASES["deepspeak-v1"], RELEASES["deepspeak-v2"]


class TestV1:
    def test_a_fake_names_actors_and_recordings(self, list_tree: ListTree) -> None:
        uri = "v/facefusion--10-11--4100-4897--0.mp4"
        assert by_uri(list_tree("deepspeak-v1", V1))[uri] == SourceVideo(
            uri=uri,
            dataset="deepspeak-v1",
            label=1,
            label_source="folder",
            method="facefusion",
            official_split="train",
            original_uri="v/11-4897.mp4",
            target_keys=("deepspeak-v1/actor/11",),
            donor_keys=("deepspeak-v1/actor/10",),
            identity_keys=("deepspeak-v1/actor/10", "deepspeak-v1/actor/11"),
            identity_confidence="published",
        )

    def test_a_fake_of_people_in_two_splits_has_none(self, list_tree: ListTree) -> None:
        videos = by_uri(list_tree("deepspeak-v1", V1))
        assert videos["v/wav2lip--10-12--4100-1--0.mp4"].official_split is None
        assert [videos[f"v/{name}.mp4"].official_split for name in ("10-4100", "12-1")] == ["train", "test"]

    def test_other_words_are_no_split(self, list_tree: ListTree) -> None:
        tree = V1 | {"annotations-split-def.csv": b"identity,split\n10,dev\n"}
        assert {v.official_split for v in list_tree("deepspeak-v1", tree).videos} == {None}

    def test_unknown_engines_are_told_as_foreign(self, list_tree: ListTree) -> None:
        path = "v/roop--10-11--4100-4897--0.mp4"
        assert by_uri(list_tree("deepspeak-v1", V1 | {path: b"x"}))[path].code == Code.S_FOREIGN


class TestV2:
    def test_actors_come_from_the_table(self, list_tree: ListTree) -> None:
        video = by_uri(list_tree("deepspeak-v2", V2))["diff2lip-6868-6860-playht.mp4"]
        assert (video.original_uri, video.method, video.official_split) == ("5-6860.mp4", "diff2lip", "test")
        assert (video.target_keys, video.donor_keys) == (("deepspeak-v2/actor/5",), ("deepspeak-v2/actor/6",))

    def test_a_fake_without_a_row_is_used_and_untied(self, list_tree: ListTree) -> None:
        listing = list_tree("deepspeak-v2", V2)
        video = by_uri(listing)["memo-1-2-real.mp4"]
        assert (video.code, video.target_keys, video.method) == (None, (), "memo")
        assert any(note.startswith(f"deepspeak-v2: 1 x {Code.E_ORIGINAL_UNRESOLVED}") for note in listing.notes)

    def test_without_the_table(self, list_tree: ListTree) -> None:
        listing = list_tree("deepspeak-v2", {path: data for path, data in V2.items() if "fake.csv" not in path})
        assert by_uri(listing)["diff2lip-6868-6860-playht.mp4"].target_keys == ()
        assert "deepspeak-v2: actors of its fakes unknown: no annotations-fake.csv" in listing.notes

    def test_a_table_without_its_columns_stops(self, list_tree: ListTree) -> None:
        with pytest.raises(
            UnreadableError, match="^annotations-fake.csv: needs the columns video-file,identity-target"
        ):
            list_tree("deepspeak-v2", V2 | {"annotations-fake.csv": b"video-file\n"})

    def test_counts(self, list_tree: ListTree) -> None:
        notes = list_tree("deepspeak-v2", V2).notes
        assert "deepspeak-v2: 2 of 9376 real videos found" in notes
        assert "deepspeak-v2: 2 of 7209 fakes found" in notes
