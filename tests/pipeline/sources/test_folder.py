"""Folders of real and fake videos."""

from collections.abc import Callable

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing

ListTree = Callable[..., SourceListing]


@pytest.fixture(scope="session")
def videos_of(list_tree: ListTree) -> Callable[..., dict[str, SourceVideo]]:
    """Return a function that lists files of one byte each and indexes the rows by uri."""
    return lambda *paths: {v.uri: v for v in list_tree("folder", dict.fromkeys(paths, b"x")).videos}


VideosOf = Callable[..., dict[str, SourceVideo]]


class TestLabels:
    def test_side_and_method_come_from_the_folders(self, videos_of: VideosOf) -> None:
        videos = videos_of("real/a.mp4", "fake/b.mp4", "fake/swap/c.mp4", "fake/swap/deep/er/d.mp4", "real/x/e.mp4")
        assert {uri: (v.label, v.method) for uri, v in videos.items()} == {
            "real/a.mp4": (0, None),
            "real/x/e.mp4": (0, None),
            "fake/b.mp4": (1, "fake"),
            "fake/swap/c.mp4": (1, "swap"),
            "fake/swap/deep/er/d.mp4": (1, "swap"),
        }
        assert {(v.dataset, v.label_source, v.identity_confidence) for v in videos.values()} == {
            ("folder", "folder", "none")
        }

    def test_case_of_the_two_folders_does_not_matter(self, videos_of: VideosOf) -> None:
        videos = videos_of("Real/a.mp4", "FAKE/a.mp4")
        assert [videos[uri].label for uri in ("Real/a.mp4", "FAKE/a.mp4")] == [0, 1]
        assert videos["FAKE/a.mp4"].original_uri == "Real/a.mp4"

    def test_neither_folder(self, videos_of: VideosOf) -> None:
        # A file called `real` is no folder.
        for path in ("a.mp4", "real", "data/real/a.mp4", "unreal/a.mp4"):
            with pytest.raises(UnreadableError, match="neither a real/ nor a fake/ folder"):
                videos_of(path)

    @pytest.mark.parametrize(("there", "absent"), [("real", "fake"), ("fake", "real")])
    def test_one_class_alone_is_noted(self, list_tree: ListTree, there: str, absent: str) -> None:
        *untied, note = list_tree("folder", {f"{there}/a.mp4": b"x"}).notes
        assert note == f"folder: no {absent} videos"
        assert len(untied) == (absent == "real")  # without real videos no fake has an original


class TestOriginals:
    @pytest.mark.parametrize(
        ("fake", "real"),
        [
            ("fake/a.mp4", "real/a.mp4"),
            ("fake/swap/a.mp4", "real/a.mp4"),
            ("fake/swap/a.mp4", "real/x/a.mp4"),
            ("fake/swap/x/a.mp4", "real/x/a.mp4"),
            ("fake/x/a.mp4", "real/x/a.mp4"),
            ("fake/swap/a.mp4", "real/a.mov"),
        ],
    )
    def test_a_fake_finds_its_real_and_shares_its_key(self, videos_of: VideosOf, fake: str, real: str) -> None:
        videos = videos_of(fake, real, "real/other.mp4")
        assert videos[fake].original_uri == real
        assert videos[fake].target_keys == videos[real].target_keys
        assert videos[real].original_uri is None
        assert videos["real/other.mp4"].target_keys == ("folder/other",)

    def test_the_same_place_wins_over_the_same_name(self, videos_of: VideosOf) -> None:
        videos = videos_of("real/x/001.mp4", "real/y/001.mp4", "fake/swap/y/001.mp4", "fake/x/001.mp4")
        assert videos["fake/swap/y/001.mp4"].original_uri == "real/y/001.mp4"
        assert videos["fake/x/001.mp4"].original_uri == "real/x/001.mp4"
        assert videos["real/x/001.mp4"].target_keys == ("folder/x/001",)
        assert videos["fake/x/001.mp4"].target_keys == ("folder/x/001",)

    def test_the_same_suffix_decides_between_equal_names(self, videos_of: VideosOf) -> None:
        videos = videos_of("real/a.avi", "real/a.mp4", "fake/a.mp4", "fake/a.mkv")
        assert videos["fake/a.mp4"].original_uri == "real/a.mp4"
        assert videos["fake/a.mkv"].original_uri is None
        assert {v.target_keys for v in videos.values()} == {("folder/a",)}

    def test_an_ambiguous_fake_is_tied_to_all_candidates(self, list_tree: ListTree) -> None:
        tree = dict.fromkeys(("real/x/1.mp4", "real/y/1.mp4", "fake/swap/1.mp4"), b"x")
        listing = list_tree("folder", tree)
        fake = listing.videos[0]
        assert fake.original_uri is None
        assert fake.target_keys == ("folder/x/1", "folder/y/1")
        assert listing.notes == ("folder: 1 fakes have more than one real of their name: no original set",)

    def test_fakes_of_one_absent_real_share_a_key(self, videos_of: VideosOf) -> None:
        videos = videos_of("fake/swap/a.mp4", "fake/morph/a.mp4", "fake/a.mp4", "real/b.mp4")
        assert {v.target_keys for uri, v in videos.items() if uri != "real/b.mp4"} == {("folder/a",)}
        assert all(v.original_uri is None for v in videos.values())

    def test_a_foreign_file_is_no_original(self, videos_of: VideosOf) -> None:
        assert videos_of("real/a.txt", "fake/a.mp4")["fake/a.mp4"].original_uri is None

    def test_an_empty_original_is_still_the_original(self, list_tree: ListTree) -> None:
        fake, real = list_tree("folder", {"real/a.mp4": b"", "fake/a.mp4": b"x"}).videos
        assert (real.code, fake.code) == (Code.E_EMPTY_FILE, None)
        assert fake.original_uri == "real/a.mp4"


class TestCodes:
    def test_other_files_are_foreign_without_a_label(self, videos_of: VideosOf) -> None:
        others = ("real/a.txt", "fake/.DS_Store", "fake/._a.mp4", "fake/.x/a.mp4", "clip.mp4", "other/real/a.mp4")
        videos = videos_of("real/a.mp4", *others)
        assert {uri for uri, v in videos.items() if v.code == Code.S_FOREIGN} == set(others)
        assert all(v.label is None and v.method is None for v in videos.values() if v.code)

    def test_empty_videos(self, list_tree: ListTree) -> None:
        tree = {"real/a.mp4": b"", "fake/a.mp4": b"x", "fake/b.mp4": b"", "fake/empty.txt": b""}
        codes = {v.uri: v.code for v in list_tree("folder", tree).videos}
        assert codes == {
            "real/a.mp4": Code.E_EMPTY_FILE,
            "fake/a.mp4": None,
            "fake/b.mp4": Code.E_EMPTY_FILE,
            "fake/empty.txt": Code.S_FOREIGN,
        }


class TestNames:
    """Fakes whose names follow the grammar of a published data set."""

    @pytest.mark.parametrize(
        ("fake", "original", "donor", "keys"),
        [
            ("000_001", "000", "001", ("ffpp/seq/000", "ffpp/seq/001")),
            ("id0_id1_0002", "id0_0002", "id1_0003", ("celebdf2/id/id0", "celebdf2/id/id1")),
            ("01_02__walk__ABCD1234", "01__walk", "02__hug", ("dfd/actor/01", "dfd/actor/02")),
        ],
    )
    def test_a_fake_has_its_original_and_both_keys(
        self, videos_of: VideosOf, fake: str, original: str, donor: str, keys: tuple[str, str]
    ) -> None:
        videos = videos_of(f"fake/x/{fake}.mp4", f"real/{original}.mp4", f"real/y/{donor}.avi", "real/other.mp4")
        found = videos[f"fake/x/{fake}.mp4"]
        assert found.original_uri == f"real/{original}.mp4"
        assert keys[0] in found.target_keys
        assert found.donor_keys == (keys[1],)
        assert keys[0] in videos[f"real/{original}.mp4"].target_keys
        assert keys[1] in videos[f"real/y/{donor}.avi"].target_keys
        assert videos["real/other.mp4"].target_keys == ("folder/other",)
        assert (found.identity_keys == keys) == ("ffpp" not in keys[0])

    def test_the_adapter_of_the_data_set_says_the_same(self, list_tree: ListTree) -> None:
        trees = {
            "ffpp": (("original_sequences/youtube/c23/videos", ("000", "001")),
                     ("manipulated_sequences/Deepfakes/c23/videos", ("000_001", "001_000"))),
            "celebdf": (("Celeb-real", ("id0_0000", "id1_0000")), ("Celeb-synthesis", ("id0_id1_0000",))),
        }  # fmt: skip
        for dataset, (reals, fakes) in trees.items():
            named = list_tree(dataset, {f"{place}/{n}.mp4": b"x" for place, names in (reals, fakes) for n in names})
            sides = (("real", reals[1]), ("fake/x", fakes[1]))
            folder = list_tree("folder", {f"{place}/{n}.mp4": b"x" for place, names in sides for n in names})
            of_stem = {video.uri.rpartition("/")[2]: video for video in folder.videos}
            for video in named.videos:
                same = of_stem[video.uri.rpartition("/")[2]]
                assert set(video.target_keys) <= set(same.target_keys)
                assert (video.donor_keys, video.identity_keys) == (same.donor_keys, same.identity_keys)
                assert (video.original_uri is None) == (same.original_uri is None)

    def test_names_that_only_look_like_it_are_left_alone(self, videos_of: VideosOf) -> None:
        videos = videos_of("fake/x/123_456.mp4", "fake/x/123_457.mp4", "real/456.mp4")
        assert [video.original_uri for video in videos.values()] == [None, None, None]
        assert videos["fake/x/123_456.mp4"].target_keys == ("folder/123_456",)

    def test_fakes_of_one_missing_original_stay_together(self, videos_of: VideosOf) -> None:
        videos = videos_of("fake/x/000_001.mp4", "fake/x/002_003.mp4", "fake/y/002_003.mp4", "real/000.mp4")
        assert videos["fake/x/002_003.mp4"].target_keys == ("ffpp/seq/002", "folder/002_003")
        assert videos["fake/y/002_003.mp4"].original_uri is None

    def test_several_originals_tie_all_and_are_none(self, videos_of: VideosOf) -> None:
        videos = videos_of("fake/x/000_001.mp4", "real/c23/000.mp4", "real/c40/000.mp4")
        fake = videos["fake/x/000_001.mp4"]
        assert fake.original_uri is None
        assert {"folder/c23/000", "folder/c40/000", "ffpp/seq/000"} <= set(fake.target_keys)

    def test_what_is_tied_and_what_is_not_is_noted(self, list_tree: ListTree) -> None:
        paths = ("real/000.mp4", "fake/x/000_001.mp4", "fake/y/000_002.mp4", "fake/y/007_008.mp4", "fake/y/odd.mp4")
        assert list_tree("folder", dict.fromkeys(paths, b"x")).notes == (
            "folder: 2 fakes tied to their originals by the names of FaceForensics++",
            "folder: 2 x E_ORIGINAL_UNRESOLVED: the original of a fake is not among the inputs "
            "(these fakes are still used)",
        )
