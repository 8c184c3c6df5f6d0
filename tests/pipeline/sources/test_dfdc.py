"""The Deepfake Detection Challenge."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from lps.pipeline.sources.releases import dfdc as source_dfdc
from tests.builders import by_uri

ListTree = Callable[..., SourceListing]
Shared = Callable[[str], Path]

REAL = {"label": "REAL", "split": "train"}


def name(letter: str) -> str:
    return f"{letter * 10}.mp4"


def fake_of(letter: str) -> dict[str, object]:
    return {"label": "FAKE", "split": "train", "original": name(letter)}


def part(number: int, entries: dict[str, Any], *, absent: str = "") -> dict[str, bytes]:
    """Return the files of one part: its metadata, and every video but those of the letters in `absent`."""
    folder = f"train/dfdc_train_part_{number}"
    files = {f"{folder}/{file}": b"x" for file in entries if file[0] not in absent}
    return {f"{folder}/metadata.json": json.dumps(entries).encode(), **files}


P0, P1 = "train/dfdc_train_part_0", "train/dfdc_train_part_1"


def mini() -> dict[str, bytes]:
    """Return two parts: fan-outs of 3 and 1, one original that is not there, one name in both parts, one stray."""
    first = {name("a"): REAL, name("b"): fake_of("a"), name("c"): fake_of("a"), name("d"): fake_of("a")}
    second = {name("e"): REAL, name("f"): fake_of("e"), name("g"): fake_of("z"), name("b"): REAL}
    return part(0, first) | part(1, second) | {f"{P0}/{name('h')}": b"x"}


@pytest.fixture(scope="module")
def videos(list_tree: ListTree) -> dict[str, SourceVideo]:
    return by_uri(list_tree("dfdc", mini()))


class TestTrain:
    def test_a_real_video(self, videos: dict[str, SourceVideo]) -> None:
        assert videos[f"{P0}/{name('a')}"] == SourceVideo(
            uri=f"{P0}/{name('a')}",
            dataset="dfdc",
            label=0,
            label_source="metadata",
            source_part="dfdc_train_part_0",
            official_split="train",
            source_keys=("dfdc/src/aaaaaaaaaa",),
        )

    def test_a_fake_video(self, videos: dict[str, SourceVideo]) -> None:
        assert videos[f"{P1}/{name('f')}"] == SourceVideo(
            uri=f"{P1}/{name('f')}",
            dataset="dfdc",
            label=1,
            label_source="metadata",
            method="dfdc",
            source_part="dfdc_train_part_1",
            official_split="train",
            original_uri=f"{P1}/{name('e')}",
            source_keys=("dfdc/src/eeeeeeeeee",),
        )

    def test_fakes_of_one_original_share_its_key(self, videos: dict[str, SourceVideo]) -> None:
        assert {videos[f"{P0}/{name(x)}"].source_keys for x in "abcd"} == {("dfdc/src/aaaaaaaaaa",)}

    def test_a_fake_without_its_original_stays_usable(self, list_tree: ListTree) -> None:
        listing = list_tree("dfdc", mini())
        orphan = by_uri(listing)[f"{P1}/{name('g')}"]
        assert (orphan.code, orphan.original_uri) == (None, None)
        assert orphan.source_keys == ("dfdc/src/zzzzzzzzzz",)
        assert any(note.startswith(f"dfdc: 1 x {Code.E_ORIGINAL_UNRESOLVED}: ") for note in listing.notes)

    def test_a_name_in_two_parts(self, videos: dict[str, SourceVideo]) -> None:
        assert videos[f"{P0}/{name('b')}"].code is None
        assert videos[f"{P1}/{name('b')}"].code == Code.E_DUP_NAME
        assert P0 in videos[f"{P1}/{name('b')}"].detail

    def test_an_unusable_copy_gives_way(self, list_tree: ListTree) -> None:
        tree = part(0, {name("a"): REAL}, absent="a") | part(1, {name("a"): REAL})
        assert {v.uri: v.code for v in list_tree("dfdc", tree).videos if v.label is not None} == {
            f"{P0}/{name('a')}": Code.E_MISSING_FILE,
            f"{P1}/{name('a')}": None,
        }

    def test_endings_in_capitals(self, list_tree: ListTree) -> None:
        tree = part(0, {name("a"): REAL, name("b"): fake_of("a")})
        copy = {path.replace(".mp4", ".MP4"): data for path, data in tree.items()}
        one, two = (list_tree("dfdc", files).videos for files in (tree, copy))
        assert [video.uri.replace(".MP4", ".mp4") for video in two] == [video.uri for video in one]
        assert [(v.code, v.label, v.source_keys) for v in two] == [(v.code, v.label, v.source_keys) for v in one]
        assert by_uri(list_tree("dfdc", copy))[f"{P0}/bbbbbbbbbb.MP4"].original_uri == f"{P0}/aaaaaaaaaa.MP4"
        both = by_uri(list_tree("dfdc", copy | tree))
        assert {both[f"{P0}/aaaaaaaaaa.{ending}"].code for ending in ("mp4", "MP4")} == {None, Code.S_FOREIGN}

    def test_a_file_that_no_list_names(self, list_tree: ListTree) -> None:
        stray = by_uri(list_tree("dfdc", mini()))[f"{P0}/{name('h')}"]
        assert (stray.code, stray.label) == (Code.S_FOREIGN, None)
        assert stray.detail == "not in the list of its folder"

    def test_videos_without_a_list(self, list_tree: ListTree) -> None:
        stray = f"test_videos/{name('h')}"
        listing = list_tree("dfdc", mini() | {stray: b"x"})
        assert by_uri(listing)[stray].code == Code.S_FOREIGN
        assert by_uri(listing)[stray].detail == "no metadata.json or labels.csv in its folder"

    def test_an_entry_without_a_file(self, list_tree: ListTree) -> None:
        tree = part(0, {name("a"): REAL, name("b"): fake_of("a")}, absent="a")
        videos = by_uri(list_tree("dfdc", tree))
        missing = videos[f"{P0}/{name('a')}"]
        assert (missing.code, missing.label, missing.source_keys) == (
            Code.E_MISSING_FILE,
            0,
            ("dfdc/src/aaaaaaaaaa",),
        )
        assert videos[f"{P0}/{name('b')}"].original_uri is None

    def test_the_original_of_the_own_part_comes_first(self, list_tree: ListTree) -> None:
        first, second = {name("a"): REAL}, {name("a"): REAL, name("f"): fake_of("a")}
        videos = by_uri(list_tree("dfdc", part(0, first) | part(1, second)))
        assert videos[f"{P1}/{name('f')}"].original_uri == f"{P1}/{name('a')}"

    def test_an_original_in_another_part_is_found(self, list_tree: ListTree) -> None:
        videos = by_uri(list_tree("dfdc", part(0, {name("a"): REAL}) | part(1, {name("f"): fake_of("a")})))
        assert videos[f"{P1}/{name('f')}"].original_uri == f"{P0}/{name('a')}"

    def test_a_fake_is_no_original(self, list_tree: ListTree) -> None:
        tree = part(0, {name("a"): REAL, name("b"): fake_of("a"), name("c"): fake_of("b")})
        assert by_uri(list_tree("dfdc", tree))[f"{P0}/{name('c')}"].original_uri is None

    @pytest.mark.parametrize(
        "entry", [{"original": None}, {"original": ""}, {"original": name("b")}, {"label": "real"}]
    )
    def test_spellings_of_a_real_entry(self, list_tree: ListTree, entry: dict[str, object]) -> None:
        tree = part(0, {name("a"): REAL | entry, name("b"): REAL})
        video = by_uri(list_tree("dfdc", tree))[f"{P0}/{name('a')}"]
        assert (video.label, video.original_uri, video.source_keys) == (0, None, ("dfdc/src/aaaaaaaaaa",))

    @pytest.mark.parametrize("original", [None, "", 7])
    def test_a_fake_entry_without_original(self, list_tree: ListTree, original: object) -> None:
        entry = {"label": "FAKE", "original": original}
        video = by_uri(list_tree("dfdc", part(0, {name("a"): entry})))[f"{P0}/{name('a')}"]
        assert (video.label, video.original_uri, video.source_keys, video.code) == (1, None, (), None)

    @pytest.mark.parametrize("bad", ["aaaaaaaaa.mp4", "aaaaaaaaaaa.mp4", "Aaaaaaaaaa.mp4", "aaaaaaaaa1.mp4", "a.avi"])
    def test_names_outside_the_grammar(self, list_tree: ListTree, bad: str) -> None:
        video = by_uri(list_tree("dfdc", part(0, {bad: REAL})))[f"{P0}/{bad}"]
        assert (video.code, video.label) == (Code.E_NAME_GRAMMAR, 0)

    def test_empty_file(self, list_tree: ListTree) -> None:
        tree = part(0, {name("a"): REAL}) | {f"{P0}/{name('a')}": b""}
        assert by_uri(list_tree("dfdc", tree))[f"{P0}/{name('a')}"].code == Code.E_EMPTY_FILE

    def test_one_part_may_be_the_source_itself(self, list_tree: ListTree) -> None:
        tree = {"metadata.json": json.dumps({name("a"): REAL}).encode(), name("a"): b"x"}
        video = by_uri(list_tree("dfdc", tree))[name("a")]
        assert (video.label, video.source_part, video.code) == (0, None, None)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"{", "not valid JSON"),
            (b"[]", "expected an object"),
            (b'{"a.mp4": {"label": "MAYBE"}}', "entry 'a.mp4' has no label"),
            (b'{"a.mp4": {}}', "entry 'a.mp4' has no label"),
            (b'{"a.mp4": "REAL"}', "entry 'a.mp4' has no label"),
            (b'{"../a.mp4": {"label": "REAL"}}', "not a file name"),
            (b'{"..": {"label": "REAL"}}', "not a file name"),
            (b'{"": {"label": "REAL"}}', "not a file name"),
        ],
    )
    def test_malformed_metadata(self, list_tree: ListTree, data: bytes, message: str) -> None:
        with pytest.raises(UnreadableError, match=f"^{P0}/metadata.json: .*{message}"):
            list_tree("dfdc", {f"{P0}/metadata.json": data})

    def test_metadata_of_a_hidden_folder_does_not_count(self, list_tree: ListTree) -> None:
        listing = list_tree("dfdc", mini() | {".cache/metadata.json": b"not JSON"})
        assert by_uri(listing)[".cache/metadata.json"].code == Code.S_FOREIGN

    def test_partial_copies_are_counted(self, list_tree: ListTree) -> None:
        tree = part(0, {name("a"): REAL, name("b"): fake_of("a")}, absent="b")
        assert "dfdc: 1 of about 119140 training videos found, in 1 of 50 parts" in list_tree("dfdc", tree).notes

    @pytest.mark.parametrize(("n", "noted"), [(2, True), (3, False), (4, False), (5, True)])
    def test_published_counts_differ_so_a_range_is_complete(
        self, list_tree: ListTree, monkeypatch: pytest.MonkeyPatch, n: int, noted: bool
    ) -> None:
        monkeypatch.setattr(source_dfdc, "N_TRAIN", range(3, 5))
        monkeypatch.setattr(source_dfdc, "N_PARTS", 2)
        tree = part(0, {name("z"): REAL}) | part(1, {name(letter): REAL for letter in "abcd"[: n - 1]})
        assert bool(list_tree("dfdc", tree).notes) is noted

    def test_all_videos_in_too_few_parts_are_not_complete(
        self, list_tree: ListTree, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(source_dfdc, "N_TRAIN", range(1, 5))
        assert (
            "dfdc: 1 of about 1 training videos found, in 1 of 50 parts"
            in list_tree("dfdc", part(0, {name("a"): REAL})).notes
        )

    def test_every_published_total_is_complete(self) -> None:
        assert all(n in source_dfdc.N_TRAIN for n in (119_146, 119_154, 119_197))


class TestTestFolder:
    LABELS = f"filename,label\n{name('a')},0\r\n{name('b')},1\n{name('c')},1\n".encode()

    def tree(self) -> dict[str, bytes]:
        return {"test/labels.csv": self.LABELS, f"test/{name('a')}": b"x", f"test/{name('b')}": b"x"}

    def test_labels(self, list_tree: ListTree) -> None:
        videos = by_uri(list_tree("dfdc", self.tree()))
        assert {v.official_split for v in videos.values() if v.label is not None} == {"test"}
        assert videos[f"test/{name('a')}"].label == 0
        assert videos[f"test/{name('b')}"] == SourceVideo(
            uri=f"test/{name('b')}",
            dataset="dfdc",
            label=1,
            label_source="csv",
            method="dfdc",
            source_part="test",
            official_split="test",
        )
        assert videos[f"test/{name('c')}"].code == Code.E_MISSING_FILE

    def test_the_test_folder_alone_has_no_counts_and_no_orphans(self, list_tree: ListTree) -> None:
        assert list_tree("dfdc", self.tree() | {f"test/{name('c')}": b"x"}).notes == ()

    def test_metadata_beside_the_labels_may_only_contradict(self, list_tree: ListTree) -> None:
        metadata = {name("a"): {"label": "FAKE"}, name("b"): {"label": "FAKE"}, name("c"): {"augmentations": []}}
        tree = self.tree() | {f"test/{name('c')}": b"x", "test/metadata.json": json.dumps(metadata).encode()}
        videos = by_uri(list_tree("dfdc", tree))
        assert [videos[f"test/{name(x)}"].code for x in "abc"] == [Code.E_LABEL_CONFLICT, None, None]
        assert [videos[f"test/{name(x)}"].label for x in "abc"] == [0, 1, 1]

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", ": expected the columns filename,label"),
            (b"name,label\na.mp4,1\n", ": expected the columns filename,label"),
            (b"filename,label\na.mp4,1\nb.mp4,2\n", ", line 3: expected"),
            (b"filename,label\na.mp4,FAKE\n", ", line 2: expected"),
            (b"filename,label\na.mp4,1\na.mp4,1\n", ", line 3: expected"),
            (b"filename,label\na.mp4\n", ", line 2: expected"),
            (b"filename,label\n../a.mp4,1\n", ": '../a.mp4' is not a file name"),
        ],
    )
    def test_malformed_labels(self, list_tree: ListTree, data: bytes, message: str) -> None:
        with pytest.raises(UnreadableError, match=f"^test/labels.csv{message}"):
            list_tree("dfdc", {"test/labels.csv": data})


class TestPublishedLists:
    def test_the_public_test_labels(self, shared: Shared, list_tree: ListTree) -> None:
        data = shared("splits/dfdc_public_test_labels.csv").read_bytes()
        names = [row["filename"] for row in csv.DictReader(data.decode().splitlines())]
        listing = list_tree("dfdc", {"test/labels.csv": data, **{f"test/{n}": b"x" for n in names}})
        labels = [v.label for v in listing.videos if v.code is None]
        assert (labels.count(0), labels.count(1)) == (2500, 2500)
        assert listing.notes == ()

    def test_a_published_metadata_sample(self, shared: Shared, list_tree: ListTree) -> None:
        data = shared("splits/dfdc_train_part_0_metadata_sample.json").read_bytes()
        listing = list_tree("dfdc", {f"{P0}/metadata.json": data, **{f"{P0}/{n}": b"x" for n in json.loads(data)}})
        fakes = [v for v in listing.videos if v.label is not None]
        assert [(v.label, v.code, v.source_keys) for v in fakes] == [
            (1, None, ("dfdc/src/lnhkjhyhvw",)),
            (1, None, ("dfdc/src/gnmmhlbzge",)),
        ]
