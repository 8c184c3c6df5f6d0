"""Celeb-DF (v2)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from tests.builders import by_uri

ListTree = Callable[..., SourceListing]
Shared = Callable[[str], Path]

LIST = "List_of_testing_videos.txt"


def mini() -> dict[str, bytes]:
    """Return persons {0, 1, 16} and {49, 50}, and a test list with a missing file and a wrong label."""
    paths = [f"Celeb-real/id{person}_{number:04d}.mp4" for person in (0, 1, 16, 49, 50) for number in (0, 7)]
    paths += [f"Celeb-synthesis/{stem}.mp4" for stem in ("id0_id1_0007", "id1_id16_0000", "id49_id50_0007")]
    paths += ["YouTube-real/00170.mp4", "YouTube-real/00011.mp4"]
    listed = [
        "1 YouTube-real/00170.mp4",
        "1 Celeb-real/id0_0007.mp4",
        "0 Celeb-synthesis/id0_id1_0007.mp4",
        "0 Celeb-synthesis/id50_id49_0003.mp4",
        "1 Celeb-synthesis/id49_id50_0007.mp4",
    ]
    return dict.fromkeys(paths, b"x") | {LIST: "\n".join(listed).encode()}


@pytest.fixture(scope="module")
def videos(list_tree: ListTree) -> dict[str, SourceVideo]:
    return by_uri(list_tree("celebdf", mini()))


class TestVideos:
    def test_a_real_video(self, videos: dict[str, SourceVideo]) -> None:
        assert videos["Celeb-real/id16_0000.mp4"] == SourceVideo(
            uri="Celeb-real/id16_0000.mp4",
            dataset="celebdf2",
            label=0,
            label_source="folder",
            official_split="train",
            target_keys=("celebdf2/id/id16",),
            identity_keys=("celebdf2/id/id16",),
            identity_confidence="published",
        )

    def test_a_fake_video(self, videos: dict[str, SourceVideo]) -> None:
        assert videos["Celeb-synthesis/id1_id16_0000.mp4"] == SourceVideo(
            uri="Celeb-synthesis/id1_id16_0000.mp4",
            dataset="celebdf2",
            label=1,
            label_source="folder",
            method="celeb_synthesis",
            official_split="train",
            original_uri="Celeb-real/id1_0000.mp4",
            target_keys=("celebdf2/id/id1",),
            donor_keys=("celebdf2/id/id16",),
            identity_keys=("celebdf2/id/id1", "celebdf2/id/id16"),
            identity_confidence="published",
        )

    def test_endings_in_capitals(self, list_tree: ListTree) -> None:
        tree = dict.fromkeys(("Celeb-real/id0_0007.MP4", "Celeb-synthesis/id0_id1_0007.MP4"), b"x")
        fake, real = list_tree("celebdf", tree).videos[::-1]
        assert (fake.code, real.code, fake.original_uri) == (None, None, real.uri)

    def test_a_youtube_video_has_no_known_identity(self, videos: dict[str, SourceVideo]) -> None:
        assert videos["YouTube-real/00011.mp4"] == SourceVideo(
            uri="YouTube-real/00011.mp4", dataset="celebdf2", label=0, label_source="folder", official_split="train"
        )

    def test_a_fake_without_its_original_stays_usable(self, list_tree: ListTree) -> None:
        stems = ("id0_id1_0003", "id0_id1_0007", "id0_1_0003")  # orphan, with its original, not a name
        tree = {f"Celeb-synthesis/{stem}.mp4": b"x" for stem in stems} | {"Celeb-real/id0_0007.mp4": b"x"}
        listing = list_tree("celebdf", tree | {LIST: b"0 Celeb-synthesis/id0_id1_0009.mp4\n"})
        orphan = by_uri(listing)["Celeb-synthesis/id0_id1_0003.mp4"]
        assert (orphan.code, orphan.original_uri) == (None, None)
        assert any(note.startswith(f"celebdf: 1 x {Code.E_ORIGINAL_UNRESOLVED}: ") for note in listing.notes)

    def test_the_original_of_the_donor_is_not_the_original(self, list_tree: ListTree) -> None:
        listing = list_tree("celebdf", {"Celeb-synthesis/id0_id1_0003.mp4": b"x", "Celeb-real/id1_0003.mp4": b"x"})
        assert by_uri(listing)["Celeb-synthesis/id0_id1_0003.mp4"].original_uri is None


class TestTestList:
    def test_the_first_line_is_a_video_and_not_a_header(self, videos: dict[str, SourceVideo]) -> None:
        assert videos["YouTube-real/00170.mp4"].official_split == "test"
        assert videos["YouTube-real/00170.mp4"].code is None

    def test_one_means_real(self, videos: dict[str, SourceVideo]) -> None:
        listed = ("Celeb-real/id0_0007.mp4", "Celeb-synthesis/id0_id1_0007.mp4")
        assert [(videos[uri].label, videos[uri].code) for uri in listed] == [(0, None), (1, None)]

    def test_a_wrong_label_is_a_conflict_and_the_folder_counts(self, videos: dict[str, SourceVideo]) -> None:
        wrong = videos["Celeb-synthesis/id49_id50_0007.mp4"]
        assert (wrong.code, wrong.label, wrong.official_split) == (Code.E_LABEL_CONFLICT, 1, "test")

    def test_a_listed_file_that_is_not_there(self, videos: dict[str, SourceVideo]) -> None:
        missing = videos["Celeb-synthesis/id50_id49_0003.mp4"]
        assert (missing.code, missing.label, missing.official_split) == (Code.E_MISSING_FILE, 1, "test")
        assert missing.target_keys == ("celebdf2/id/id50",)

    def test_without_a_list_no_split_is_claimed(self, list_tree: ListTree) -> None:
        listing = list_tree("celebdf", {uri: data for uri, data in mini().items() if uri != LIST})
        assert {video.official_split for video in listing.videos} == {None}
        assert f"celebdf: official split unknown: no {LIST}" in listing.notes

    @pytest.mark.parametrize("given", [LIST, "celeb_df_v2_list_of_testing_videos.txt"])
    def test_the_users_folder_wins_over_the_tree(self, list_tree: ListTree, given: str) -> None:
        listing = list_tree("celebdf", mini(), splits={given: b"1 YouTube-real/00011.mp4\n"})
        assert [v.uri for v in listing.videos if v.official_split == "test"] == ["YouTube-real/00011.mp4"]

    def test_a_short_list_is_noted(self, list_tree: ListTree) -> None:
        assert f"celebdf: {LIST} names 5 videos, published 518" in list_tree("celebdf", mini()).notes

    @pytest.mark.parametrize("first", ["0", "1"])
    def test_a_repeated_line_conflicts_only_with_another_label(self, list_tree: ListTree, first: str) -> None:
        data = f"{first} YouTube-real/00170.mp4 \r\n  \r\n1 YouTube-real/00170.mp4\r\n".encode()
        video = by_uri(list_tree("celebdf", mini() | {LIST: data}))["YouTube-real/00170.mp4"]
        assert video.code == (None if first == "1" else Code.E_LABEL_CONFLICT)

    @pytest.mark.parametrize(
        "line",
        ["label path", "2 YouTube-real/00170.mp4", "1 Elsewhere/00170.mp4", "1 YouTube-real/170.mp4", "1", "1 /a.mp4"],
    )
    def test_a_malformed_line_stops(self, list_tree: ListTree, line: str) -> None:
        data = f"1 YouTube-real/00170.mp4\n{line}\n".encode()
        with pytest.raises(UnreadableError, match=f"^{LIST}, line 2: expected .* found '{line}'$"):
            list_tree("celebdf", mini() | {LIST: data})


class TestFolders:
    def test_copies_spell_folders_differently(self, list_tree: ListTree) -> None:
        tree = {
            "Youtube-real/videos/00170.mp4": b"x",
            "celeb-real/videos/id0_0000.mp4": b"x",
            "Celeb-Synthesis/id0_id1_0000.mp4": b"x",
            LIST.lower(): b"1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n",
        }
        videos = by_uri(list_tree("celebdf", tree))
        assert len(videos) == 4  # no row for a file that only seems to be missing
        assert videos["Youtube-real/videos/00170.mp4"].official_split == "test"
        assert videos["Celeb-Synthesis/id0_id1_0000.mp4"].original_uri == "celeb-real/videos/id0_0000.mp4"
        assert {v.code for uri, v in videos.items() if uri.endswith(".mp4")} == {None}

    def test_one_video_in_two_places(self, list_tree: ListTree) -> None:
        tree = {"Celeb-real/id0_0000.mp4": b"x", "Celeb-real/videos/id0_0000.mp4": b"x"}
        assert [v.code for v in list_tree("celebdf", tree).videos] == [None, Code.E_DUP_NAME]

    @pytest.mark.parametrize(
        "path",
        [
            "Celeb-real/ID0_0000.mp4",
            "Celeb-real/id0_000.mp4",
            "Celeb-real/id0_id1_0000.mp4",
            "Celeb-synthesis/id0_0000.mp4",
            "YouTube-real/0170.mp4",
        ],
    )
    def test_names_outside_the_grammar(self, list_tree: ListTree, path: str) -> None:
        video = by_uri(list_tree("celebdf", mini() | {path: b"x"}))[path]
        assert (video.code, video.target_keys, video.official_split) == (Code.E_NAME_GRAMMAR, (), None)
        assert video.label == (1 if "synthesis" in path else 0)

    @pytest.mark.parametrize(
        "path",
        ["a.mp4", "Other/id0_0000.mp4", "Celeb-real/x/id0_0000.mp4", "Celeb-real/._id0_0000.mp4", "Celeb-real/a"],
    )
    def test_what_lies_elsewhere_is_foreign(self, list_tree: ListTree, path: str) -> None:
        video = by_uri(list_tree("celebdf", mini() | {path: b"x"}))[path]
        assert (video.code, video.label, video.official_split) == (Code.S_FOREIGN, None, None)

    @pytest.mark.parametrize("listed", [True, False])
    def test_empty_files(self, list_tree: ListTree, listed: bool) -> None:
        tree = mini() | {"YouTube-real/00170.mp4": b"", "YouTube-real/00011.mp4": b""}
        videos = by_uri(list_tree("celebdf", {uri: data for uri, data in tree.items() if listed or uri != LIST}))
        assert {videos[f"YouTube-real/{n}.mp4"].code for n in ("00170", "00011")} == {Code.E_EMPTY_FILE}

    def test_partial_copies_are_counted(self, list_tree: ListTree) -> None:
        counts = [note for note in list_tree("celebdf", mini()).notes if note.endswith(" videos found")]
        assert counts == [
            "celebdf: 10 of 590 celeb-real videos found",
            "celebdf: 2 of 300 youtube-real videos found",
            "celebdf: 3 of 5639 celeb-synthesis videos found",
        ]


@pytest.fixture(scope="module")
def published(shared: Shared, list_tree: ListTree) -> SourceListing:
    """List a tree of exactly the videos of the official list."""
    data = shared("splits/celeb_df_v2_list_of_testing_videos.txt").read_bytes()
    tree = {line.split()[1]: b"x" for line in data.decode().splitlines()}
    return list_tree("celebdf", tree | {LIST: data})


class TestPublishedList:
    def test_all_518_are_test_and_agree_with_their_folder(self, published: SourceListing) -> None:
        videos = [v for v in published.videos if v.label is not None]
        assert {(v.official_split, v.code) for v in videos} == {("test", None)}
        labels = [v.label for v in videos]
        assert (labels.count(0), labels.count(1)) == (178, 340)
        assert not any("published 518" in note for note in published.notes)

    def test_identities_and_originals(self, published: SourceListing) -> None:
        fakes = [v for v in published.videos if v.label == 1]
        assert len({key for v in published.videos for key in v.identity_keys}) == 56
        assert sum(v.original_uri is not None for v in fakes) == 106
