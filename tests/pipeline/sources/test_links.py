"""Links in sources, for every adapter: nothing behind them is lost, and nothing is an input twice."""

import ast
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import lps.pipeline.sources
from lps.manifests.codes import Code
from lps.manifests.errors import RefusedError
from lps.manifests.records import SourceVideo
from lps.pipeline.job.request import PrepRequest
from lps.pipeline.job.survey import SourceTree, list_sources

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that makes a tree `src` beside a folder `store`: path -> content, or the target of a link."""

    def made(files: Mapping[str, bytes | str]) -> Path:
        for path, content in files.items():
            full = tmp_path / path
            full.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                full.write_bytes(content)
            else:
                full.symlink_to(content)
        return tmp_path / "src"

    return made


def tree(source: Path, dataset: str = "folder") -> SourceTree:
    return list_sources(PrepRequest(source=str(source), out=str(source.parent / "out"), dataset=dataset))


def rows(source: Path, dataset: str = "folder") -> dict[str, SourceVideo]:
    return {video.uri: video for video in tree(source, dataset).listing.videos}


def codes(found: Mapping[str, SourceVideo]) -> dict[str, Code | None]:
    return {uri: video.code for uri, video in found.items()}


def test_a_linked_folder_has_its_videos(make: Make) -> None:
    source = make(
        {"src/real/a.mp4": b"x", "src/fake/x/b.mp4": b"x", "store/b.mp4": b"x", "src/real/more": "../../store"}
    )
    found = rows(source)
    assert codes(found) == {"fake/x/b.mp4": None, "real/a.mp4": None, "real/more/b.mp4": None}
    assert found["fake/x/b.mp4"].original_uri == "real/more/b.mp4"
    assert tree(source).links == {"real/more": str(source.parent / "store")}


def test_the_side_itself_may_be_a_link(make: Make) -> None:
    source = make({"src/real": "../store", "store/a.mp4": b"x", "src/fake/x/a.mp4": b"x"})
    assert rows(source)["fake/x/a.mp4"].original_uri == "real/a.mp4"


def test_ffpp_with_linked_originals(make: Make) -> None:
    fake = "manipulated_sequences/Deepfakes/c23/videos/000_001.mp4"
    source = make({"src/original_sequences": "../store", "store/youtube/c23/videos/000.mp4": b"x", f"src/{fake}": b"x"})
    found = rows(source, "ffpp")
    assert found[fake].original_uri == "original_sequences/youtube/c23/videos/000.mp4"
    assert set(codes(found).values()) == {None}


def test_celebdf_and_dfdc_behind_links(make: Make) -> None:
    names = {"Celeb-real": "id0_0000", "Celeb-synthesis": "id0_id1_0000"}
    celeb = make({f"store/{folder}/{name}.mp4": b"x" for folder, name in names.items()} | {"src": "store"})
    assert rows(celeb, "celebdf")["Celeb-synthesis/id0_id1_0000.mp4"].original_uri == "Celeb-real/id0_0000.mp4"
    listed = {"aaaaaaaaaa.mp4": {"label": "REAL"}, "bbbbbbbbbb.mp4": {"label": "FAKE", "original": "aaaaaaaaaa.mp4"}}
    files: dict[str, bytes | str] = {f"elsewhere/{name}": b"x" for name in listed}
    files |= {"elsewhere/metadata.json": json.dumps(listed).encode(), "dfdc/part_0": "../elsewhere"}
    dfdc = make(files | {"dfdc/part_1": "part_0"}).parent / "dfdc"
    found = rows(dfdc, "dfdc")
    assert found["part_0/bbbbbbbbbb.mp4"].original_uri == "part_0/aaaaaaaaaa.mp4"
    assert codes(found) == {
        "part_0/aaaaaaaaaa.mp4": None, "part_0/bbbbbbbbbb.mp4": None, "part_0/metadata.json": Code.S_FOREIGN,
        "part_1/aaaaaaaaaa.mp4": Code.S_LINK, "part_1/bbbbbbbbbb.mp4": Code.S_LINK,
        "part_1/metadata.json": Code.S_FOREIGN,
    }  # fmt: skip


def test_a_table_names_files_behind_links(make: Make) -> None:
    lines = b"uri,label,original\nlinked/a.mp4,0,\nlinked/b.mp4,0,\nc.mp4,1,linked/b.mp4\n"
    source = make(
        {
            "src/table.csv": lines,
            "store/a.mp4": b"x",
            "store/b.mp4": "a.mp4",
            "src/linked": "../store",
            "src/c.mp4": b"x",
        }
    )
    found = rows(source / "table.csv", "table")
    assert codes(found) == {"c.mp4": None, "linked/a.mp4": None, "linked/b.mp4": Code.S_LINK}
    assert found["c.mp4"].original_uri == "linked/a.mp4"
    assert found["c.mp4"].target_keys == found["linked/a.mp4"].target_keys == found["linked/b.mp4"].target_keys


class TestOtherPaths:
    """One file, several paths."""

    def test_the_path_without_a_link_is_used_and_then_the_first(self, make: Make) -> None:
        source = make(
            {
                "src/real/m.mp4": b"x",
                "src/real/a.mp4": "m.mp4",
                "src/fake/x/m.mp4": b"x",
                "src/fake/x/z.mp4": "../../../store/1.mp4",
                "src/fake/x/y.mp4": "../../../store/1.mp4",
                "store/1.mp4": b"x",
            }
        )
        found = rows(source)
        assert {uri: video.detail for uri, video in found.items() if video.code == Code.S_LINK} == {
            "real/a.mp4": "same file as real/m.mp4",
            "fake/x/z.mp4": "same file as fake/x/y.mp4",
        }
        assert found["real/a.mp4"].label == 0
        assert found["fake/x/m.mp4"].original_uri == "real/m.mp4"
        assert "folder: 2 x S_LINK: another path to what is listed already" in tree(source).listing.notes

    def test_a_fake_named_as_another_path_belongs_to_the_one_that_is_used(self, make: Make) -> None:
        source = make({"src/real/m.mp4": b"x", "src/real/a.mp4": "m.mp4", "src/fake/x/a.mp4": b"x"})
        fake = rows(source)["fake/x/a.mp4"]
        assert fake.original_uri == "real/m.mp4"
        assert fake.target_keys == ("folder/m",)

    def test_a_path_that_is_no_input_does_not_count(self, make: Make) -> None:
        source = make({"src/store/a.mp4": b"x", "src/real": "store", "src/fake/x/a.mp4": b"x"})
        found = rows(source)
        assert codes(found) == {"store/a.mp4": Code.S_FOREIGN, "real/a.mp4": None, "fake/x/a.mp4": None}

    def test_a_link_that_makes_a_real_video_a_fake_one_is_not_used(self, make: Make) -> None:
        source = make({"src/real/a.mp4": b"x", "src/fake/x": "../real"})
        assert codes(rows(source)) == {"real/a.mp4": None, "fake/x/a.mp4": Code.S_LINK}

    def test_copies_at_one_place_of_the_published_layout(self, make: Make) -> None:
        place = "original_sequences/youtube"
        found = rows(make({f"src/{place}/raw/videos/000.mp4": b"x", f"src/{place}/c0": "raw"}), "ffpp")
        assert codes(found) == {f"{place}/raw/videos/000.mp4": None, f"{place}/c0/videos/000.mp4": Code.S_LINK}

    def test_hard_links_are_files_of_their_own(self, make: Make) -> None:
        source = make({"src/real/a.mp4": b"x", "src/fake/x/b.mp4": b"x"})
        os.link(source / "real/a.mp4", source / "real/b.mp4")
        assert set(codes(rows(source)).values()) == {None}


@pytest.mark.parametrize("path", ["real/gone.mp4", "real/gone", "gone"])
def test_a_link_that_cannot_be_followed_is_a_row(make: Make, path: str) -> None:
    source = make({"src/real/a.mp4": b"x", "src/fake/x/a.mp4": b"x", f"src/{path}": "nowhere"})
    row = rows(source)[path]
    assert (row.code, row.detail) == (Code.E_UNREADABLE, "a link that cannot be followed: No such file or directory")
    assert row.label == (0 if path.endswith(".mp4") else None)
    assert any("1 x E_UNREADABLE" in note for note in tree(source).listing.notes)


def test_a_link_back_is_a_skipped_row(make: Make) -> None:
    source = make({"src/real/a.mp4": b"x", "src/fake/x/a.mp4": b"x", "src/real/up": ".."})
    row = rows(source)["real/up"]
    assert (row.code, row.detail) == (Code.S_LINK, "leads back to a folder that it lies in")


def test_a_link_into_the_output_is_refused(make: Make) -> None:
    source = make({"src/real/a.mp4": b"x", "out/index.json": b"{}", "src/fake": "../out"})
    with pytest.raises(RefusedError, match="the link fake of the source leads into the output"):
        tree(source)


@pytest.mark.parametrize(
    "path", sorted(Path(lps.pipeline.sources.__path__[0]).rglob("*.py")), ids=lambda path: path.name
)
def test_no_adapter_looks_past_the_listing(path: Path) -> None:
    looks = {"walk", "scandir", "listdir", "glob", "rglob", "iterdir", "find", "open", "exists", "stat"}
    tree = ast.parse(path.read_text())
    assert {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & looks == set()
    imported = {each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names}
    assert imported.isdisjoint({"os", "glob", "fsspec", "pathlib"})
