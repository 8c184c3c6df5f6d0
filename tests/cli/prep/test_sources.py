"""Sources as users have them: behind links, and with fakes whose originals nobody names."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from lps.cli.audit.main import main as audit
from lps.cli.prep.main import main as prep
from lps.manifests.codes import Status
from lps.manifests.errors import UnreadableError
from lps.manifests.names import DATASETS
from lps.manifests.records import Outcome, SourceVideo, VideoResult
from lps.pipeline.config.params import Params
from lps.pipeline.job.plan import plan_rows
from lps.pipeline.job.request import PrepRequest
from lps.pipeline.job.survey import list_sources
from lps.pipeline.sources.adapters import SourceListing
from lps.pipeline.tools.demo_videos import make_texture_video
from lps.pipeline.video.probe import Probe
from tests.builders import build_data_set, folder_spec, manifest_rows, still_clip
from tests.frame_trees import image_bytes, numbered, write_tree


def call(program: click.Command, *args: str) -> Result:
    return CliRunner().invoke(program, args)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder in which a linked folder has one of three real videos, one a name in GBK, and a link leads nowhere."""
    for number, path in enumerate(("src/real/a.mp4", "src/fake/x/a.mp4", "src/fake/x/b.mp4", "src/fake/x/odd.mp4",
                                   "store/b.mp4")):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        make_texture_video(tmp_path / path, seed=number)
    (tmp_path / "src/real/more").symlink_to("../../store")
    (tmp_path / "src/real/gone").symlink_to("../../nowhere")
    make_texture_video(tmp_path / "src/real" / os.fsdecode(b"\xd6\xd0.mp4"), seed=9)
    make_texture_video(tmp_path / "src/real/clip", seed=10)
    (tmp_path / "src/real/notes").write_text("no video")
    return tmp_path / "src"


@pytest.mark.slow
@pytest.mark.usefixtures("joined")
def test_run_and_plan_follow_links_and_tell_what_nothing_ties(source: Path) -> None:
    out = source.parent / "out"
    for command in ("plan", "run"):
        result = call(prep, command, str(source), str(out), "--localizer", "mtcnn", "--workers", "1")
        assert "1 links of the source were followed, 1 of them out of it: runs/" in result.output
        assert "1 x E_UNREADABLE" in result.output
        assert "left out, not videos: 1 without ending" in result.output
        assert "1 fakes without a known original: nothing ties them to a real video" in result.output
    rows = {row["uri"]: row for row in plan_rows((out / "plan/videos.parquet").read_bytes())}
    fakes = ["fake/x/a.mp4", "fake/x/b.mp4", "fake/x/odd.mp4"]
    more = ["real/a.mp4", "real/clip", "real/gone", "real/more/b.mp4", "real/notes"]
    assert sorted(rows) == [*fakes, r"real/\xd6\xd0.mp4", *more]
    assert (rows["real/clip"]["code"], rows["real/notes"]["code"]) == (None, "S_FOREIGN")
    assert rows[r"real/\xd6\xd0.mp4"]["code"] is None
    assert rows["real/gone"]["code"] == "E_UNREADABLE"
    assert {row["label"]: row["error_code"] for row in manifest_rows(out, "videos")}[0] == "E_NO_FACE"
    for path in out.glob("runs/*/links.json"):
        assert json.loads(path.read_text()) == {"real/more": str(source.parent / "store")}
    assert "in the source, but without a row" not in call(audit, "check", str(out), "--source", str(source)).output


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A folder `data/` with two videos, a link to it, and tables beside it that name them in every way there is."""
    for number, name in enumerate(("real/a.mp4", "fake/b.mp4")):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        make_texture_video(tmp_path / "data" / name, seed=number)
    (tmp_path / "link").symlink_to("data")
    data, link = tmp_path / "data", tmp_path / "link"
    paths = {
        "relative": "real/a.mp4 fake/b.mp4",
        "windows": "real\\a.mp4 fake\\b.mp4",
        "absolute": f"{data}/real/a.mp4 {data}/fake/b.mp4",
        "linked": f"{link}/real/a.mp4 file://{link}/fake/b.mp4",
    }
    for name, (real, fake) in {name: pair.split() for name, pair in paths.items()}.items():
        (tmp_path / f"{name}.csv").write_text(f"uri,label,original\n{real},0,\n{fake},1,{real}\n")
    return tmp_path


def table_request(tables: Path, name: str, root: str) -> PrepRequest:
    return PrepRequest(
        source=str(tables / f"{name}.csv"), root=str(tables / root), out=str(tables / "out"), dataset="table"
    )


@pytest.mark.parametrize("root", ["data", "link"])
def test_a_table_may_lie_beside_its_videos(tables: Path, root: str) -> None:
    """However a table spells its paths, the rows are the same."""
    names = ("relative", "windows", "absolute", "linked")
    listings = [list_sources(table_request(tables, name, root)).listing for name in names]
    assert [video.uri for video in listings[0].videos] == ["fake/b.mp4", "real/a.mp4"]
    assert listings[0].videos[0].original_uri == "real/a.mp4"
    assert {listing.videos for listing in listings} == {listings[0].videos}


def test_a_table_may_name_folders_of_images(tmp_path: Path) -> None:
    picture = image_bytes(np.zeros((4, 4, 3), np.uint8))
    write_tree(tmp_path, {**numbered([picture] * 3, "a/real"), **numbered([picture] * 3, "a/fake"), "b/c.png": picture})
    table = f"uri,label,original\na/real/,0,\n{tmp_path}/a/fake/,1,a/real/\na/gone/,1,\n"
    (tmp_path / "t.csv").write_text(table)
    tree = list_sources(PrepRequest(source=str(tmp_path / "t.csv"), out=str(tmp_path / "out"), dataset="table"))
    assert {video.uri: (video.original_uri, video.code) for video in tree.listing.videos} == {
        "a/real/": (None, None), "a/fake/": ("a/real/", None), "a/gone/": (None, "E_MISSING_FILE"),
    }  # fmt: skip
    assert tree.files["a/real/"].n_bytes == 3 * len(picture)
    assert not [note for note in tree.listing.notes if "not in it" in note]


def test_paths_of_a_table_that_lead_elsewhere_end_the_run(tables: Path) -> None:
    (tables / "elsewhere").mkdir()
    for root, said in (("elsewhere", "source .*/elsewhere is empty"), ("data/real", "'.*' leaves the table's root")):
        with pytest.raises(UnreadableError, match=said):
            list_sources(table_request(tables, "absolute", root))


def test_a_root_is_for_tables(tables: Path) -> None:
    result = call(prep, "plan", str(tables / "data"), str(tables / "out"), "--root", str(tables / "data"))
    assert result.exit_code == 2
    assert "--root goes with --dataset table" in result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("joined")
def test_a_run_with_a_root_beside_the_table(tables: Path) -> None:
    out = tables / "out"
    words = ("--dataset", "table", "--root", str(tables / "data"), "--localizer", "mtcnn", "--workers", "1")
    result = call(prep, "run", str(tables / "windows.csv"), str(out), *words)
    assert "2 uris with backslashes were read with slashes" in result.output
    assert {row["uri"]: row["error_code"] for row in manifest_rows(out, "videos")} == {
        "fake/b.mp4": "E_NO_FACE", "real/a.mp4": "E_NO_FACE",
    }  # fmt: skip


def test_a_source_or_output_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xd6")
    for words in ([str(tmp_path / name), str(tmp_path / "out")], [str(tmp_path), str(tmp_path / name)]):
        result = call(prep, "plan", *words)
        assert result.exit_code == 3
        assert r"/\xd6 is not UTF-8: rename it, or give a link to it" in result.stderr
        assert not list(tmp_path.iterdir())


@pytest.fixture
def untied(tmp_path: Path, list_tree: Callable[..., SourceListing]) -> Callable[[Mapping[str, bytes]], Path]:
    """Return a function that makes a data set of a tree, without processing."""

    def processed(video: SourceVideo) -> VideoResult:
        outcome = Outcome(status=Status.OK, n_frames_decoded=60)
        return VideoResult(video_id=video.video_id, outcome=outcome, clips=(still_clip(60),))

    def make(tree: Mapping[str, bytes]) -> Path:
        videos = list_tree("folder", tree).videos
        probes = {
            video.uri: Probe(n_bytes=1, sha256=f"{number:064x}", n_frames_promised=60)
            for number, video in enumerate(videos)
        }
        build_data_set(tmp_path / "out", folder_spec(Params()), videos, probes, processed)
        return tmp_path / "out"

    return make


def test_a_split_is_stamped_with_its_untied_fakes(untied: Callable[[Mapping[str, bytes]], Path]) -> None:
    paths = ["fake/x/odd.mp4", "fake/x/other.mp4", "fake/x/000_001.mp4", *(f"real/{n:03}.mp4" for n in range(8))]
    out = untied(dict.fromkeys(paths, b"x"))
    assert json.loads((out / "index.json").read_text())["untied_fakes"] == 2
    assert json.loads((out / "manifests/splits/group.json").read_text())["untied_fakes"] == 2
    assert "2 fakes without a known original" in call(prep, "status", str(out)).output
    assert json.loads(call(prep, "status", str(out), "--json").output)["videos"]["untied_fakes"] == 2
    made = call(prep, "split", str(out), "--rule", "ranked", "--name", "ranked-v1")
    assert made.output.endswith("fakes without a known original 2\n")
    shown = call(audit, "show", str(out)).output
    assert shown.count("2 fakes without a known original") == 2
    report = out.parent / "report.json"
    assert call(audit, "check", str(out), "--checks", "L2", "--strict", "--json", str(report)).exit_code == 2
    assert "2 of 3 fakes without a known original" in report.read_text()


def test_nothing_is_told_where_every_fake_is_tied(untied: Callable[[Mapping[str, bytes]], Path]) -> None:
    out = untied(dict.fromkeys(["fake/x/000_001.mp4", "fake/x/002.mp4", *(f"real/{n:03}.mp4" for n in range(8))], b"x"))
    for program, command in ((prep, "status"), (audit, "show")):
        assert "without a known original" not in call(program, command, str(out)).output
    assert call(audit, "check", str(out), "--checks", "L1,L2").exit_code == 0


# ---- layouts ---------------------------------------------------------------------------------------------------------


def test_sources_lists_every_layout_in_a_line() -> None:
    lines = call(prep, "sources").output.splitlines()
    assert tuple(line.split()[0] for line in lines) == DATASETS
    assert all(". Leakage: " in line for line in lines)


@pytest.mark.parametrize("layout", DATASETS)
def test_sources_tells_all_of_one_layout(layout: str) -> None:
    result = call(prep, "sources", layout)
    assert result.exit_code == 0
    assert f": --dataset {layout}\n  " in result.output
    facts = [line.split()[0] for line in result.output.splitlines() if not line.startswith(" ")][1:]
    assert facts == ["videos", "labels", "splits", "leakage", "licence"]


def test_sources_of_what_is_not_known() -> None:
    result = call(prep, "sources", "vox")
    assert result.exit_code == 2
    assert "'vox' is not one of 'folder', 'frames', 'table', 'ffpp'" in result.output


@pytest.mark.slow
@pytest.mark.usefixtures("joined")
def test_a_plan_with_the_layout_that_its_files_show(tmp_path: Path) -> None:
    for number, path in enumerate(("real/0000.mp4", "real/0001.mp4", "fake/0000_fake.mp4", "fake/0001_fake.mp4")):
        (tmp_path / "src" / path).parent.mkdir(parents=True, exist_ok=True)
        make_texture_video(tmp_path / "src" / path, seed=number)
    words = (str(tmp_path / "src"), "--dataset", "auto", "--localizer", "mtcnn", "--workers", "1")
    for out in ("out", "out"):  # the second finds the plan of the first, and the same one
        result = call(prep, "plan", words[0], str(tmp_path / out), *words[1:])
        assert result.exit_code == 0, result.output
        assert "--dataset auto: read as uadfv (UADFV) by fake/0000_fake.mp4; 2 paths fit" in result.output
    assert json.loads((tmp_path / "out/plan/plan.json").read_text())["dataset"] == "uadfv"
    rows = {row["uri"]: row for row in plan_rows((tmp_path / "out/plan/videos.parquet").read_bytes())}
    assert {row["dataset"] for row in rows.values()} == {"uadfv"}
    (tmp_path / "src/Deepfakes").mkdir()
    make_texture_video(tmp_path / "src/Deepfakes/000_001.mp4", seed=8)
    result = call(prep, "plan", words[0], str(tmp_path / "other"), *words[1:])
    assert result.exit_code == 3
    assert (
        ": --dataset auto: the source looks like ffpp-flat (by Deepfakes/000_001.mp4; 1 paths fit) and uadfv"
        in result.stderr
    )
