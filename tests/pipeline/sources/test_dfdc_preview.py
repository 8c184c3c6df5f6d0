"""DFDC preview."""

from collections.abc import Callable

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from tests.builders import by_uri
from tests.pipeline.sources.release_trees import ACTOR_LIST, RELEASES, json_bytes

ListTree = Callable[..., SourceListing]
TREE = RELEASES["dfdc-preview"]
REAL, FAKE, OTHER = ACTOR_LIST


def with_list(value: object) -> dict[str, bytes]:
    return TREE | {"dataset.json": json_bytes(value)}


class TestVideos:
    def test_a_fake_names_donor_and_target(self, list_tree: ListTree) -> None:
        assert by_uri(list_tree("dfdc-preview", TREE))[FAKE] == SourceVideo(
            uri=FAKE,
            dataset="dfdcp",
            label=1,
            label_source="folder",
            method="method_A",
            official_split="train",
            original_uri=REAL,
            target_keys=("dfdcp/actor/1003254",),
            donor_keys=("dfdcp/actor/1255229",),
            identity_keys=("dfdcp/actor/1003254", "dfdcp/actor/1255229"),
            identity_confidence="published",
        )

    def test_the_folders_of_originals_do_not_matter(self, list_tree: ListTree) -> None:
        deeper = REAL.replace("1003254/", "1003254/1003254_A/")
        tree = {path.replace(REAL, deeper): data for path, data in TREE.items()}
        videos = by_uri(list_tree("dfdc-preview", tree))
        assert (videos[FAKE].original_uri, videos[deeper].official_split) == (deeper, "train")
        assert REAL not in videos

    @pytest.mark.parametrize("name", ["original_videos/1/1_A", "method_B/1/1_A/1_A_001", "method_A/x_1_A_001"])
    def test_names_outside_the_grammar(self, list_tree: ListTree, name: str) -> None:
        path = f"{name}.mp4"
        video = by_uri(list_tree("dfdc-preview", TREE | {path: b"x"}))[path]
        assert (video.code, video.target_keys) == (Code.E_NAME_GRAMMAR, ())


class TestList:
    def test_sets_are_splits_and_the_unlisted_has_none(self, list_tree: ListTree) -> None:
        videos = by_uri(list_tree("dfdc-preview", TREE))
        unlisted = "original_videos/1004567/1004567_B_002.mp4"
        assert [videos[uri].official_split for uri in (REAL, FAKE, OTHER, unlisted)] == ["train", "train", "test", None]

    def test_without_a_list_labels_stay_and_splits_are_unknown(self, list_tree: ListTree) -> None:
        listing = list_tree("dfdc-preview", {path: data for path, data in TREE.items() if path != "dataset.json"})
        assert [(v.label, v.official_split, v.code) for v in listing.videos][:2] == [(1, None, None), (1, None, None)]
        assert "dfdc-preview: official split unknown: no dataset.json" in listing.notes

    def test_the_users_folder_wins_over_the_tree(self, list_tree: ListTree) -> None:
        given = {"dataset.json": json_bytes({REAL: {"label": "real", "set": "test"}})}
        assert by_uri(list_tree("dfdc-preview", TREE, splits=given))[REAL].official_split == "test"

    def test_another_label_is_a_conflict(self, list_tree: ListTree) -> None:
        video = by_uri(list_tree("dfdc-preview", with_list({FAKE: {"label": "real", "set": "test"}})))[FAKE]
        assert (video.code, video.label) == (Code.E_LABEL_CONFLICT, 1)

    def test_listed_and_absent(self, list_tree: ListTree) -> None:
        absent = "method_A/1004567/1004567_B/1300001_1004567_B_002.mp4"
        video = by_uri(list_tree("dfdc-preview", with_list({absent: {"label": "fake", "set": "test"}})))[absent]
        assert (video.code, video.official_split) == (Code.E_MISSING_FILE, "test")
        assert video.original_uri == "original_videos/1004567/1004567_B_002.mp4"

    def test_counts(self, list_tree: ListTree) -> None:
        notes = list_tree("dfdc-preview", TREE).notes
        assert "dfdc-preview: 2 of 1131 original_videos videos found" in notes
        assert "dfdc-preview: 2 of 4119 fakes found" in notes

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ([], "expected an object"),
            ({"a/b.mp4": {"label": "real", "set": "train"}}, "'a/b.mp4' is no path of the DFDC preview"),
            ({REAL: {"label": "real"}}, "needs a label"),
            ({REAL: {"label": "REALLY", "set": "train"}}, "needs a label"),
            ({REAL: "real"}, "needs a label"),
        ],
    )
    def test_a_malformed_list_stops(self, list_tree: ListTree, value: object, said: str) -> None:
        with pytest.raises(UnreadableError, match=f"^dataset.json: .*{said}"):
            list_tree("dfdc-preview", with_list(value))
