"""KoDF."""

from collections.abc import Callable

import pytest

from lps.manifests.codes import Code
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.adapters import SourceListing
from tests.builders import by_uri
from tests.pipeline.sources.release_trees import HEX, RELEASES

ListTree = Callable[..., SourceListing]
TREE = RELEASES["kodf"]


def test_a_fake_joins_two_actors(list_tree: ListTree) -> None:
    uri = f"dfl/20201117/{HEX}/{HEX}_123456_1_0001.mp4"
    assert by_uri(list_tree("kodf", TREE))[uri] == SourceVideo(
        uri=uri,
        dataset="kodf",
        label=1,
        label_source="folder",
        method="dfl",
        target_keys=(f"kodf/actor/{HEX}",),
        donor_keys=("kodf/actor/123456",),
        identity_keys=(f"kodf/actor/{HEX}", "kodf/actor/123456"),
        identity_confidence="published",
    )


@pytest.mark.parametrize(("code", "method"), [*enumerate(("dfl", "dffs", "fsgan", "fo", "audio-driven"), start=1)])
def test_the_code_is_the_method(list_tree: ListTree, code: int, method: str) -> None:
    path = f"x/123456_654321_{code}_0007.mp4"
    assert by_uri(list_tree("kodf", {path: b"x"}))[path].method == method


@pytest.mark.parametrize("stem", ["123456_654321_6_0007", "12345_001", "123456_01", f"{HEX}0_001", "123456_654321_1"])
def test_other_names_are_foreign(list_tree: ListTree, stem: str) -> None:
    assert by_uri(list_tree("kodf", TREE | {f"{stem}.mp4": b"x"}))[f"{stem}.mp4"].code == Code.S_FOREIGN


def test_one_name_in_two_folders(list_tree: ListTree) -> None:
    codes = [v.code for v in list_tree("kodf", {"a/123456_001.mp4": b"x", "b/123456_001.MP4": b"x"}).videos]
    assert codes == [None, Code.E_DUP_NAME]


def test_counts(list_tree: ListTree) -> None:
    notes = list_tree("kodf", TREE).notes
    assert "kodf: 2 of 62166 real videos found" in notes
    assert "kodf: 2 of 175776 fakes found" in notes
