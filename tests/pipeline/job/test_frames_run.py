"""lps-prep and lps-audit on sequences of images: folders of frames, and WildDeepfake as downloaded."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from lps.cli.audit.main import main as audit
from lps.cli.prep.main import main as prep
from lps.manifests.schemas import Row
from lps.pipeline.job.events import ClusterReady
from tests.builders import manifest_rows
from tests.frame_trees import frames_of, image_bytes, numbered, tar_of, write_tree

if TYPE_CHECKING:
    from tests.pipeline.conftest import Scenario

Ended = subprocess.CompletedProcess[str]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def faces(scenario_source: Path) -> dict[str, list[bytes]]:
    """Return the frames of sample videos, real and fake."""
    paths = [f"{folder}/face_{k}.mp4" for folder in ("real", "fake/blend") for k in range(4)]
    return {path.removesuffix(".mp4"): frames_of(scenario_source / path) for path in paths}


def rows_of(out: Path) -> dict[str, Row]:
    return {row["uri"]: row for row in manifest_rows(out, "videos")}


def ends(out: Path) -> dict[str, tuple[str, str | None, int]]:
    return {uri: (row["status"], row["error_code"], row["n_clips"]) for uri, row in rows_of(out).items()}


def states(out: Path, source: Path) -> dict[str, str]:
    """Return the state of every check of a deep audit."""
    report = out.parent / "report.json"
    words = ["check", str(out), "--level", "deep", "--source", str(source), "--json", str(report)]
    CliRunner().invoke(audit, words)
    return {check["id"]: check["state"] for check in json.loads(report.read_text())["checks"]}


SOURCE_CHECKS = dict.fromkeys(("A1", "A7", "A8", "C2", "R1", "R2"), "pass") | {"C1": "unknown", "B7": "unknown"}


@pytest.fixture(scope="module")
def frames_source(faces: dict[str, list[bytes]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of frames: whole ones, one with a hole, one with a broken image, one of two sizes, a short one."""
    tree: dict[str, bytes] = {}
    for place, images in faces.items():
        tree |= numbered(images, place, width=3)
    dot = image_bytes(np.zeros((1, 1, 3), np.uint8))
    del tree["real/face_1/012.png"]
    tree |= {"real/face_2/015.png": faces["real/face_2"][15][:999], "real/face_3/007.png": dot}
    tree |= numbered(faces["fake/blend/face_3"][:3], "fake/blend/short")
    tree |= {"real/notes.txt": b"x", "real/face_0/Thumbs.db": b"x", "real/cover.png": dot}
    return write_tree(tmp_path_factory.mktemp("frames"), tree)


def test_folders_of_frames_from_a_run_to_an_audit(
    command: Callable[..., Ended],
    scenario: "Scenario",
    assert_one_line: Callable[[Ended, int, str], None],
    frames_source: Path,
    digests: Callable[[Path], Mapping[str, str]],
    tmp_path: Path,
) -> None:
    source, out, other = tmp_path / "src", tmp_path / "out", tmp_path / "other"
    shutil.copytree(frames_source, source)
    ended = command(out, "--dataset", "auto", "--clips", "2", source=str(source))
    assert ended.returncode == 0, ended.stderr
    assert "--dataset auto: read as frames (any folder of frames) by fake/blend/face_0/000.png" in ended.stderr
    assert ends(out) == {
        **{f"fake/blend/face_{k}/": ("ok", None, 2) for k in range(4)},
        "fake/blend/short/": ("failed", "E_TOO_SHORT", 0),
        "real/": ("skipped", "S_FOREIGN", 0),
        "real/face_0/": ("ok", None, 2),
        "real/face_0/Thumbs.db": ("skipped", "S_FOREIGN", 0),
        "real/face_1/": ("ok", None, 2),
        "real/face_2/": ("partial", "E_DECODE", 2),
        "real/face_3/": ("failed", "E_PROBE", 0),
        "real/notes.txt": ("skipped", "S_FOREIGN", 0),
    }
    rows = rows_of(out)
    assert rows["real/face_3/"]["error_detail"] == "images of different sizes: 007.png 1x1 px, 000.png 320x240 px"
    row = rows["real/face_0/"]
    facts = (row["container"], row["codec"], row["pts_nominal"], row["fps_num"], row["time_base_den"], row["scan"])
    assert facts == ("image2", "png", True, None, 25, "window")
    assert rows["fake/blend/face_0/"]["original_video_id"] == row["video_id"]
    holed = [clip for clip in manifest_rows(out, "clips") if clip["video_id"] == rows["real/face_1/"]["video_id"]]
    assert holed
    for clip in holed:  # 12 is missing: frame 12 is number 13
        assert clip["frame_idx"][-1] < 12 or clip["frame_idx"][0] >= 12
        assert [tick - index for tick, index in zip(clip["pts_ticks"], clip["frame_idx"], strict=True)] in (
            [0] * 10,
            [1] * 10,
        )
    found = states(out, source)
    assert {check: found[check] for check in SOURCE_CHECKS} == SOURCE_CHECKS
    # the same bytes with two workers, and after what was lost is made again
    request = scenario.request(other, source=str(source), dataset="frames")
    scenario.run(replace(request, params=replace(request.params, clips=2)))
    assert digests(other) == digests(out)
    (other / "index.json").unlink()
    next((other / "shards").rglob("*.tar")).unlink()
    assert command(other, "--dataset", "frames", "--clips", "2", source=str(source)).returncode == 0
    assert digests(other) == digests(out)
    # a changed source is refused by name; so is what was mended, until it is asked for
    whole = (source / "real/face_2/014.png").read_bytes()
    (source / "real/face_2/015.png").write_bytes(whole)
    ended = command(out, "--dataset", "frames", "--clips", "2", source=str(source))
    assert_one_line(ended, 3, "source changed: real/face_2/ (")
    assert states(out, source)["A8"] == "fail"


def test_a_fault_of_a_folder_is_mended_and_tried_again(
    command: Callable[..., Ended], faces: dict[str, list[bytes]], tmp_path: Path
) -> None:
    source, out = tmp_path / "src", tmp_path / "out"
    tree = numbered(faces["real/face_0"], "real/a") | numbered(faces["fake/blend/face_0"], "fake/x/a")
    write_tree(source, tree | numbered(faces["real/face_1"], "real/b") | {"real/b/cover.png": faces["real/face_1"][0]})
    assert command(out, "--dataset", "frames", "--pairing", "original", source=str(source)).returncode == 0
    assert ends(out)["real/b/"] == ("failed", "E_NAME_GRAMMAR", 0)
    (source / "real/b/cover.png").unlink()
    retried = CliRunner().invoke(prep, ["retry", str(out), "--code", "E_NAME_GRAMMAR", "--replan"])
    assert retried.exit_code == 0, retried.output
    assert command(out, "--dataset", "frames", "--pairing", "original", source=str(source)).returncode == 0
    assert ends(out)["real/b/"] == ("ok", None, 1)
    modes = {row["label"]: row["pair_mode"] for row in manifest_rows(out, "clips") if row["pair_id"]}
    assert modes == {0: "own", 1: "shared"}


@pytest.fixture(scope="module")
def wild_source(faces: dict[str, list[bytes]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small WildDeepfake: two sequences in one archive, a plain tar, one that breaks off, one with a link."""
    odd = tarfile.TarInfo("./2/fake/1/0.png")
    odd.type, odd.linkname = tarfile.SYMTYPE, "/etc/passwd"
    one = numbered(faces["real/face_0"], "1/real/0") | numbered(faces["real/face_1"], "1/real/103")
    fake = tar_of(numbered(faces["fake/blend/face_1"], "20/fake/8"))
    tree = {
        "real_train/1.tar.gz": tar_of(one),
        "real_train/2.tar.gz": tar_of(numbered(faces["real/face_2"], "2/real/5"), compressed=False),
        "real_test/1.tar.gz": tar_of(numbered(faces["real/face_3"], "1/real/7")),
        "fake_train/1.tar.gz": tar_of(numbered(faces["fake/blend/face_0"], "1/fake/3")),
        "fake_train/2.tar.gz": tar_of(numbered(faces["fake/blend/face_2"], "2/fake/0"), more=[odd]),
        "fake_train/3.tar.gz": tar_of(numbered(faces["fake/blend/face_3"], "3/fake/0"))[:-5000],
        "fake_test/20.tar.gz": fake,
        "fake_test/21.tar.gz": tar_of({"21/readme.txt": b"x"}),
        "README.md": b"x",
    }
    return write_tree(tmp_path_factory.mktemp("wild"), {f"deepfake_in_the_wild/{k}": v for k, v in tree.items()})


def test_wilddeepfake_from_its_archives_to_an_audit(
    command: Callable[..., Ended],
    scenario: "Scenario",
    wild_source: Path,
    digests: Callable[[Path], Mapping[str, str]],
    tmp_path: Path,
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    ended = command(out, "--dataset", "auto", "--split", "official", source=str(wild_source))
    assert ended.returncode == 0, ended.stderr
    assert "read as wilddeepfake (WildDeepfake) by deepfake_in_the_wild/fake_test/20.tar.gz" in ended.stderr
    top = "deepfake_in_the_wild/"
    assert {uri.removeprefix(top): end for uri, end in ends(out).items()} == {
        "real_train/1.tar.gz!/1/real/0/": ("ok", None, 1),
        "real_train/1.tar.gz!/1/real/103/": ("ok", None, 1),
        "real_train/2.tar.gz!/2/real/5/": ("ok", None, 1),
        "real_test/1.tar.gz!/1/real/7/": ("ok", None, 1),
        "fake_train/1.tar.gz!/1/fake/3/": ("ok", None, 1),
        "fake_test/20.tar.gz!/20/fake/8/": ("ok", None, 1),
        "fake_train/2.tar.gz": ("failed", "E_PROBE", 0),
        "fake_train/3.tar.gz": ("failed", "E_TRUNCATED", 0),
        "fake_test/21.tar.gz": ("skipped", "S_FOREIGN", 0),
        "README.md": ("skipped", "S_FOREIGN", 0),
    }
    rows = rows_of(out)
    assert (rows[f"{top}fake_train/3.tar.gz"]["label"], rows[f"{top}fake_test/21.tar.gz"]["label"]) == (1, None)
    assert {row["split"] for uri, row in rows.items() if "_test/" in uri and row["n_clips"]} == {"test"}
    assert {row["pts_nominal"] for row in rows.values() if row["n_clips"]} == {True}
    found = states(out, wild_source)
    assert {check: found[check] for check in SOURCE_CHECKS} == SOURCE_CHECKS
    # a second run reads no archive; with two workers the bytes are the same
    request = scenario.request(out, source=str(wild_source), dataset="wilddeepfake")
    request = replace(request, split=replace(request.split, rule="official"))
    again = scenario.run(request)
    assert again.summary.n_clips == 6
    assert not again.of(ClusterReady)
    scenario.run(replace(request, out=str(other)))
    assert digests(other) == digests(out)


def test_an_archive_that_changes_after_the_plan_ends_the_run(
    command: Callable[..., Ended],
    assert_one_line: Callable[[Ended, int, str], None],
    wild_source: Path,
    tmp_path: Path,
) -> None:
    source, out = tmp_path / "src", tmp_path / "out"
    shutil.copytree(wild_source, source)
    line = ["plan", str(source), str(out), "--dataset", "wilddeepfake", "--localizer", "mtcnn", "--workers", "1"]
    assert CliRunner().invoke(prep, line).exit_code == 0
    archive = source / "deepfake_in_the_wild/real_train/1.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-5000])
    ended = CliRunner().invoke(prep, ["run", *line[1:]])
    assert ended.exit_code == 3
    assert "source removed: deepfake_in_the_wild/real_train/1.tar.gz!/1/real/0/" in ended.stderr
