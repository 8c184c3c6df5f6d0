"""`--dataset auto`: what a source is taken for, and what is refused."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from lps.manifests.errors import RefusedError
from lps.manifests.names import AUTO
from lps.pipeline.job.request import PrepRequest
from lps.pipeline.job.survey import list_sources
from lps.pipeline.sources.adapters import LAYOUTS
from lps.pipeline.sources.guess import guess_layout
from tests.pipeline.sources.release_trees import RELEASES, wrapped

TREES: dict[str, Iterable[str]] = {
    **RELEASES,
    "ffpp": ["original_sequences/youtube/c23/videos/071.mp4", "manipulated_sequences/Deepfakes/masks/videos/a.mp4"],
    "dfdc": ["dfdc_train_part_0/metadata.json", "dfdc_train_part_0/aaaaaaaaaa.mp4", "x/test/labels.csv"],
    "folder": ["real/a.mp4", "fake/x/a.mp4", "real/a/0.png", "notes.txt"],
    "frames": ["real/a/000.png", "fake/x/a/000.jpg", "fake/x/a/001.jpg", "notes.txt"],
    "deepfakebench": ["x/dataset_json/FF-DF.json", "x/rgb/FF/frames/000/000.png", "x/rgb/FF/frames/000/009.png"],
    "wilddeepfake": ["deepfake_in_the_wild/real_train/1.tar.gz", "x/fake_test/20.tar.gz", "x/real_test/1/real/3/7.png"],
}
TOLD = [name for name in TREES if not name.startswith("celebdf-v")]


@pytest.mark.parametrize("dataset", TOLD)
def test_each_release_is_recognised_and_evidence_is_named(dataset: str) -> None:
    found, told = guess_layout(TREES[dataset])
    assert found == dataset
    assert told.startswith(f"--dataset auto: read as {dataset} ({LAYOUTS[dataset].title}) by ")
    assert told.rpartition(" by ")[2].partition("; ")[0] in [*TREES[dataset]]


def test_a_list_is_the_evidence_where_one_is_needed() -> None:
    assert guess_layout(TREES["dfdc"])[1].endswith(" by dfdc_train_part_0/metadata.json; 1 paths fit")


@pytest.mark.parametrize("dataset", [name for name in TOLD if name in RELEASES])
def test_a_folder_around_a_release_changes_nothing(dataset: str) -> None:
    assert guess_layout(wrapped(RELEASES[dataset], "a/b"))[0] == dataset


def test_every_layout_but_tables_has_a_tree_here() -> None:
    assert set(TREES) | {"table", "celebdf"} == set(LAYOUTS)


class TestCelebDf:
    def test_few_videos_may_be_v1_or_v2(self) -> None:
        with pytest.raises(
            RefusedError, match=r"looks like celebdf \(by .*; 3 paths fit\) and celebdf-v1 \(by .*; 3 paths"
        ):
            guess_layout(RELEASES["celebdf-v1"])

    def test_more_than_v1_has_are_v2(self) -> None:
        assert guess_layout(f"Celeb-synthesis/id0_id1_{k:04}.mp4" for k in range(1204))[0] == "celebdf"


class TestRefusals:
    def test_nothing_fits(self) -> None:
        with pytest.raises(
            RefusedError, match=r"^--dataset auto: no layout fits the 2 files .*, such as a.mp4; give one"
        ):
            guess_layout(["a.mp4", "x/b.mp4"])

    def test_two_releases_in_one_source(self) -> None:
        both = [*wrapped(RELEASES["uadfv"], "u"), *RELEASES["ffpp-flat"]]
        with pytest.raises(
            RefusedError, match=r"looks like ffpp-flat \(by .* and uadfv \(by u/fake/0000_fake.mp4; 2 paths"
        ):
            guess_layout(both)

    def test_few_videos_of_many(self) -> None:
        mixed = ["fake/simswap/ff/000_003.mp4", *(f"real/{k}.mp4" for k in range(2))]
        with pytest.raises(
            RefusedError, match="looks like df40 .*, but most of its 3 videos do not; give --dataset df40"
        ):
            guess_layout(mixed)

    def test_images_without_a_folder_of_their_own_are_no_frames(self) -> None:
        assert guess_layout(["real/1.png", "fake/2.png"])[0] == "folder"

    def test_a_release_of_frames_alone(self) -> None:
        with pytest.raises(RefusedError, match="no layout fits"):
            guess_layout(["simswap/ff/frames/000_003/000.png"])

    def test_lists_alone_are_no_release(self) -> None:
        with pytest.raises(RefusedError, match="no layout fits"):
            guess_layout(["part/metadata.json", "labels.csv"])


class TestJob:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        for path, data in RELEASES["uadfv"].items():
            (tmp_path / "src" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "src" / path).write_bytes(data)
        return tmp_path / "src"

    def request(self, source: Path) -> PrepRequest:
        return PrepRequest(source=str(source), out=str(source.parent / "out"), dataset=AUTO)

    def test_the_request_goes_on_with_the_layout(self, source: Path) -> None:
        tree = list_sources(self.request(source))
        assert (tree.request.dataset, {v.dataset for v in tree.listing.videos}) == ("uadfv", {"uadfv"})
        assert tree.told == "--dataset auto: read as uadfv (UADFV) by fake/0000_fake.mp4; 2 paths fit"

    def test_a_given_layout_is_not_questioned(self, source: Path) -> None:
        tree = list_sources(PrepRequest(source=str(source), out=str(source.parent / "out")))
        assert (tree.request.dataset, tree.told) == ("folder", "")

    @pytest.mark.parametrize("name", ["videos.csv", "videos.CSV"])
    def test_a_table_is_one_by_its_name(self, source: Path, name: str) -> None:
        (source / name).write_text("uri,label\nreal/0000.mp4,real\n")
        tree = list_sources(self.request(source / name))
        assert (tree.request.dataset, [v.uri for v in tree.listing.videos]) == ("table", ["real/0000.mp4"])
        assert tree.told.startswith("--dataset auto: read as table: ")
