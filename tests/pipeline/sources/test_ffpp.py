"""FaceForensics++ and DeepFakeDetection."""

import json
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

PAIRS = (("605", "591"), ("606", "567"), ("071", "054"), ("953", "974"))
LISTS = {
    "train.json": json.dumps([["605", "591"], ["071", "054"]]).encode(),
    "val.json": json.dumps([["606", "567"]]).encode(),
    "test.json": json.dumps([["953", "974"]]).encode(),
}
CONVERSION = {
    "605": "same-_id 0",
    "606": "same-_id 1",
    "591": "--b1Ua-kWJE 0",
    "567": "id with space 3",
    "071": "e 0",
    "054": "f 0",
    "953": "g 0",
    "974": "h 0",
}
CONVERSION_DICT = {"conversion_dict.json": json.dumps(CONVERSION).encode()}


def real(sequence: str, quality: str = "c23") -> str:
    return f"original_sequences/youtube/{quality}/videos/{sequence}.mp4"


def fake(stem: str, quality: str = "c23", method: str = "Deepfakes") -> str:
    return f"manipulated_sequences/{method}/{quality}/videos/{stem}.mp4"


def mini() -> dict[str, bytes]:
    """Return four pairs by two methods at c23, one of them at c40 too, a mask, and what else lies around."""
    paths = [real(sequence) for pair in PAIRS for sequence in pair]
    for a, b in PAIRS:
        paths += [fake(f"{x}_{y}", method=m) for x, y in ((a, b), (b, a)) for m in ("Deepfakes", "NeuralTextures")]
    paths += [real("071", "c40"), fake("071_054", "c40")]
    paths += ["manipulated_sequences/Deepfakes/c23/masks/videos/071_054.mp4", "downloaded_videos/e.mp4"]
    return dict.fromkeys(paths, b"x")


@pytest.fixture(scope="module")
def videos(list_tree: ListTree) -> dict[str, SourceVideo]:
    return by_uri(list_tree("ffpp", mini(), splits=LISTS | CONVERSION_DICT))


class TestVideos:
    def test_a_real_video(self, videos: dict[str, SourceVideo]) -> None:
        assert videos[real("605")] == SourceVideo(
            uri=real("605"),
            dataset="ffpp",
            label=0,
            label_source="folder",
            compression="c23",
            official_split="train",
            target_keys=("ffpp/seq/605",),
            source_keys=("yt/same-_id",),
        )

    def test_a_fake_video(self, videos: dict[str, SourceVideo]) -> None:
        assert videos[fake("605_591")] == SourceVideo(
            uri=fake("605_591"),
            dataset="ffpp",
            label=1,
            label_source="folder",
            method="Deepfakes",
            compression="c23",
            official_split="train",
            original_uri=real("605"),
            target_keys=("ffpp/seq/605",),
            donor_keys=("ffpp/seq/591",),
            source_keys=("yt/--b1Ua-kWJE", "yt/same-_id"),
        )

    def test_youtube_ids_end_at_the_last_space(self, videos: dict[str, SourceVideo]) -> None:
        assert videos[real("567")].source_keys == ("yt/id with space",)

    def test_copies_at_other_compressions_share_all_keys(self, videos: dict[str, SourceVideo]) -> None:
        small, large = videos[fake("071_054", "c40")], videos[fake("071_054")]
        assert (small.compression, large.compression) == ("c40", "c23")
        assert small.original_uri == real("071", "c40")
        assert (small.target_keys, small.donor_keys) == (large.target_keys, large.donor_keys)
        assert (small.source_keys, small.official_split) == (large.source_keys, large.official_split)

    @pytest.mark.parametrize("quality", ["raw", "c0"])
    def test_raw_and_c0_are_one_compression(self, list_tree: ListTree, quality: str) -> None:
        other = "c0" if quality == "raw" else "raw"
        videos = by_uri(list_tree("ffpp", {fake("071_054", quality): b"x", real("071", other): b"x"}))
        assert {v.compression for v in videos.values()} == {"c0"}
        assert videos[fake("071_054", quality)].original_uri == real("071", other)

    def test_raw_beside_c0_is_the_same_video_twice(self, list_tree: ListTree) -> None:
        videos = by_uri(list_tree("ffpp", {real("071", "raw"): b"x", real("071", "c0"): b"x", real("071"): b"x"}))
        assert {uri for uri, v in videos.items() if v.code == Code.E_DUP_NAME} == {real("071", "raw")}

    def test_an_empty_copy_does_not_displace_a_good_one(self, list_tree: ListTree) -> None:
        videos = by_uri(list_tree("ffpp", {real("071", "raw"): b"x", real("071", "c0"): b""}))
        assert videos[real("071", "raw")].code is None
        assert videos[real("071", "c0")].code == Code.E_EMPTY_FILE

    def test_one_name_in_two_methods_is_no_duplicate(self, videos: dict[str, SourceVideo]) -> None:
        assert {v.code for v in videos.values()} == {None, Code.S_MASK, Code.S_FOREIGN}

    def test_original_at_another_compression_does_not_count(self, list_tree: ListTree) -> None:
        listing = list_tree("ffpp", {fake("071_054", "c40"): b"x", real("071", "c23"): b"x"})
        assert by_uri(listing)[fake("071_054", "c40")].original_uri is None
        assert by_uri(listing)[fake("071_054", "c40")].code is None
        assert any(note.startswith(f"ffpp: 1 x {Code.E_ORIGINAL_UNRESOLVED}: ") for note in listing.notes)

    def test_a_misnamed_fake_is_no_original(self, list_tree: ListTree) -> None:
        videos = by_uri(list_tree("ffpp", {fake("071"): b"x", fake("071_054"): b"x"}))
        assert videos[fake("071_054")].original_uri is None

    def test_only_usable_fakes_count_as_unresolved(self, list_tree: ListTree) -> None:
        tree = {
            fake("071_054"): b"x",
            fake("oops"): b"x",
            fake("054_071"): b"",
            real("605"): b"x",
            fake("605_591"): b"x",
        }
        unresolved = [note for note in list_tree("ffpp", tree).notes if Code.E_ORIGINAL_UNRESOLVED in note]
        assert [note.split(" x ")[0] for note in unresolved] == ["ffpp: 1"]


class TestFolders:
    @pytest.mark.parametrize(
        "path",
        [
            "manipulated_sequences/Deepfakes/masks/videos/071_054.mp4",
            "manipulated_sequences/Deepfakes/c23/masks/videos/071_054.mp4",
            "manipulated_sequences/FaceSwap/masks/071_054.png",
        ],
    )
    def test_masks_are_skipped(self, list_tree: ListTree, path: str) -> None:
        mask = by_uri(list_tree("ffpp", {real("071"): b"x", path: b""}))[path]
        assert (mask.code, mask.label) == (Code.S_MASK, None)

    def test_endings_in_capitals(self, list_tree: ListTree) -> None:
        tree = {"original_sequences/youtube/c23/videos/003.MP4": b"x", fake("003_000"): b"x"}
        real_video = list_tree("ffpp", tree).videos[1]
        assert (real_video.code, real_video.target_keys) == (None, ("ffpp/seq/003",))
        assert list_tree("ffpp", tree).videos[0].original_uri == real_video.uri
        twice = by_uri(list_tree("ffpp", tree | {real("003"): b"x"}))
        assert [twice[uri].code for uri in (real_video.uri, real("003"))] == [None, Code.E_DUP_NAME]

    @pytest.mark.parametrize(
        "path",
        [
            "downloaded_videos/x/071.mp4",
            "models/a.pkl",
            "manipulated_sequences/MyMethod/c23/videos/071_054.mp4",
            "manipulated_sequences/Deepfakes/c30/videos/071_054.mp4",
            "manipulated_sequences/Deepfakes/c23/videos/071_054.avi",
            "manipulated_sequences/Deepfakes/c23/videos/._071_054.mp4",
            "manipulated_sequences/Deepfakes/c23/videos/more/071_054.mp4",
            "manipulated_sequences/youtube/c23/videos/071.mp4",
            "original_sequences/Deepfakes/c23/videos/071_054.mp4",
            "original_sequences/youtube/masks/videos/071.mp4",
            "copy/original_sequences/youtube/c23/videos/071.mp4",
        ],
    )
    def test_what_lies_elsewhere_is_foreign(self, list_tree: ListTree, path: str) -> None:
        video = by_uri(list_tree("ffpp", {real("071"): b"x", path: b"x"}))[path]
        assert (video.code, video.label, video.target_keys) == (Code.S_FOREIGN, None, ())

    @pytest.mark.parametrize(
        "path",
        [
            real("71"),
            real("0711"),
            real("071_054"),
            real("٠٧١"),
            fake("071"),
            fake("071-054"),
            fake("071_054_1"),
            fake("01_02__scene__ABCDEFGH"),
            "original_sequences/actors/c23/videos/1__scene.mp4",
            fake("01_02__scene__abcdefgh", method="DeepFakeDetection"),
            fake("01_02__scene", method="DeepFakeDetection"),
        ],
    )
    def test_names_outside_the_grammar(self, list_tree: ListTree, path: str) -> None:
        video = by_uri(list_tree("ffpp", {path: b"x"}))[path]
        assert video.code == Code.E_NAME_GRAMMAR
        assert video.label == (0 if path.startswith("original") else 1)
        assert (video.target_keys, video.official_split, video.original_uri) == ((), None, None)

    def test_all_five_methods(self, list_tree: ListTree) -> None:
        methods = ["Deepfakes", "Face2Face", "FaceShifter", "FaceSwap", "NeuralTextures"]
        listing = list_tree("ffpp", {fake("071_054", method=method): b"x" for method in methods})
        assert [(v.method, v.dataset, v.code) for v in listing.videos] == [(m, "ffpp", None) for m in methods]

    def test_empty_file(self, list_tree: ListTree) -> None:
        assert by_uri(list_tree("ffpp", {real("071"): b""}))[real("071")].code == Code.E_EMPTY_FILE


class TestDeepFakeDetection:
    def test_actors_are_identities(self, list_tree: ListTree) -> None:
        original = "original_sequences/actors/c23/videos/01__meeting_serious.mp4"
        path = fake("01_02__meeting_serious__YVGY8LOK", method="DeepFakeDetection")
        videos = by_uri(list_tree("ffpp", {original: b"x", path: b"x"}, splits=LISTS))
        assert videos[original] == SourceVideo(
            uri=original,
            dataset="dfd",
            label=0,
            label_source="folder",
            compression="c23",
            target_keys=("dfd/actor/01",),
            identity_keys=("dfd/actor/01",),
            identity_confidence="published",
        )
        assert videos[path] == SourceVideo(
            uri=path,
            dataset="dfd",
            label=1,
            label_source="folder",
            method="DeepFakeDetection",
            compression="c23",
            original_uri=original,
            target_keys=("dfd/actor/01",),
            donor_keys=("dfd/actor/02",),
            identity_keys=("dfd/actor/01", "dfd/actor/02"),
            identity_confidence="published",
        )


class TestLists:
    def test_lists_in_the_tree(self, list_tree: ListTree) -> None:
        tree = mini() | {f"dataset/splits/{name}": data for name, data in LISTS.items()}
        tree |= {f"dataset/{name}": data for name, data in CONVERSION_DICT.items()}
        listing = list_tree("ffpp", tree)
        assert by_uri(listing)[real("606")].official_split == "val"
        assert by_uri(listing)[fake("974_953")].official_split == "test"
        assert by_uri(listing)[real("606")].source_keys == ("yt/same-_id",)
        assert by_uri(listing)["dataset/splits/val.json"].code == Code.S_FOREIGN

    def test_the_users_folder_wins_over_the_tree(self, list_tree: ListTree) -> None:
        tree = {real("071"): b"x", "dataset/splits/train.json": b'[["071", "054"]]'}
        listing = list_tree("ffpp", tree, splits={"ffpp_split_test.json": b'[["071", "054"]]', "train.json": b"[]"})
        assert by_uri(listing)[real("071")].official_split == "test"

    def test_a_pair_that_the_official_split_tears_has_no_split(self, list_tree: ListTree) -> None:
        videos = by_uri(list_tree("ffpp", {fake("605_606"): b"x", fake("605_999"): b"x"}, splits=LISTS))
        assert {v.official_split for uri, v in videos.items() if uri.startswith("manip")} == {None}

    def test_without_lists_everything_is_usable_and_noted(self, list_tree: ListTree) -> None:
        listing = list_tree("ffpp", {real("071"): b"x"})
        video = by_uri(listing)[real("071")]
        assert (video.official_split, video.source_keys, video.code) == (None, (), None)
        assert any("official split unknown: no train.json, val.json, test.json" in note for note in listing.notes)
        assert any("no conversion_dict.json" in note for note in listing.notes)

    def test_one_missing_list_is_named(self, list_tree: ListTree) -> None:
        splits = {name: data for name, data in LISTS.items() if name != "val.json"}
        listing = list_tree("ffpp", mini(), splits=splits)
        assert any("unknown: no val.json given" in note for note in listing.notes)
        assert by_uri(listing)[real("071")].official_split == "train"

    def test_a_list_that_is_not_the_published_one_is_noted_and_used(self, list_tree: ListTree) -> None:
        notes = list_tree("ffpp", mini(), splits=LISTS | CONVERSION_DICT).notes
        named = [note.split()[1] for note in notes if "is not the published list" in note]
        assert named == ["train.json", "val.json", "test.json", "conversion_dict.json"]

    @pytest.mark.parametrize(
        ("name", "data", "message"),
        [
            ("train.json", b'[["071", "054"]', "not valid JSON"),
            ("train.json", b"\xff", "not UTF-8"),
            ("train.json", b'{"071": "054"}', "expected a list of pairs"),
            ("train.json", b"{}", "expected a list of pairs"),
            ("train.json", b'[["071"]]', "expected a list of pairs"),
            ("train.json", b'[{"071": 0, "054": 1}]', "expected a list of pairs"),
            ("train.json", b'["071", "054"]', "expected a list of pairs"),
            ("train.json", b'[["71", "054"]]', "expected a list of pairs"),
            ("train.json", b"[[71, 54]]", "expected a list of pairs"),
            ("test.json", b'[["071", "974"]]', "sequence 071 is in test and in train"),
            ("conversion_dict.json", b"[]", "expected an object"),
            ("conversion_dict.json", b'{"000": "no-number"}', "entry '000' is not"),
            ("conversion_dict.json", b'{"000": " 0"}', "entry '000' is not"),
            ("conversion_dict.json", b'{"000": 7}', "entry '000' is not"),
        ],
    )
    def test_a_malformed_list_stops(self, list_tree: ListTree, name: str, data: bytes, message: str) -> None:
        with pytest.raises(UnreadableError, match=rf"^{name}: .*{message}"):
            list_tree("ffpp", mini(), splits=LISTS | CONVERSION_DICT | {name: data})


class TestCounts:
    def test_partial_copies_are_counted_per_folder_and_compression(self, list_tree: ListTree) -> None:
        counts = [note for note in list_tree("ffpp", mini()).notes if " videos found at " in note]
        assert counts == [
            "ffpp: 8 of 1000 Deepfakes videos found at c23",
            "ffpp: 1 of 1000 Deepfakes videos found at c40",
            "ffpp: 8 of 1000 NeuralTextures videos found at c23",
            "ffpp: 8 of 1000 youtube videos found at c23",
            "ffpp: 1 of 1000 youtube videos found at c40",
        ]

    def test_a_video_that_is_there_twice_counts_once(self, list_tree: ListTree) -> None:
        tree = {real("071", "raw"): b"x", real("071", "c0"): b"x", real("oops", "c0"): b"x"}
        assert "ffpp: 1 of 1000 youtube videos found at c0" in list_tree("ffpp", tree).notes

    def test_absent_reals_are_counted(self, list_tree: ListTree) -> None:
        tree = {fake("01_02__x__ABCDEFGH", method="DeepFakeDetection"): b"x", fake("071_054", "c40"): b"x"}
        notes = list_tree("ffpp", tree).notes
        assert "ffpp: 0 of 363 actors videos found at c23" in notes
        assert "ffpp: 0 of 1000 youtube videos found at c40" in notes


@pytest.fixture(scope="module")
def published(shared: Shared, list_tree: ListTree) -> SourceListing:
    """List all reals and the fakes of one method with the official lists."""
    names = [f"ffpp_split_{split}.json" for split in ("train", "val", "test")] + ["ffpp_conversion_dict.json"]
    splits = {name: shared(f"splits/{name}").read_bytes() for name in names}
    pairs = [pair for name in names[:3] for pair in json.loads(splits[name])]
    tree = [real(f"{number:03d}") for number in range(1000)]
    tree += [fake(f"{a}_{b}") for a, b in pairs] + [fake(f"{b}_{a}") for a, b in pairs]
    return list_tree("ffpp", dict.fromkeys(tree, b"x"), splits=splits)


class TestPublishedLists:
    """Counts that were measured on the official lists by other means."""

    def test_a_full_copy_has_no_notes(self, published: SourceListing) -> None:
        assert published.notes == ()

    def test_split_sizes(self, published: SourceListing) -> None:
        for label in (0, 1):
            splits = [v.official_split for v in published.videos if v.label == label]
            assert [splits.count(split) for split in ("train", "val", "test")] == [720, 140, 140]

    def test_every_fake_has_its_original_in_its_split(self, published: SourceListing) -> None:
        videos = by_uri(published)
        fakes = [v for v in published.videos if v.label == 1]
        assert all(videos[v.original_uri or ""].official_split == v.official_split for v in fakes)

    def test_shared_recordings(self, published: SourceListing) -> None:
        splits: dict[str, set[str | None]] = {}
        for video in published.videos:
            for key in video.source_keys if video.label == 0 else ():
                splits.setdefault(key, set()).add(video.official_split)
        assert len(splits) == 977
        assert sum(len(found) > 1 for found in splits.values()) == 7

    @pytest.mark.parametrize(("split", "n_real", "n_fake"), [("val", 5, 10), ("test", 2, 4)])
    def test_recordings_that_leak_from_train(
        self, published: SourceListing, split: str, n_real: int, n_fake: int
    ) -> None:
        train = {key for v in published.videos if v.official_split == "train" for key in v.source_keys}
        leaking = [v.label for v in published.videos if v.official_split == split and train & set(v.source_keys)]
        assert (leaking.count(0), leaking.count(1)) == (n_real, n_fake)
