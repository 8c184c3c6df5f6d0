"""lps-prep preview --html: what is on the page, that it can be trusted, and how it plays."""

import base64
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from lps.cli.prep.main import main
from lps.manifests.codes import Code, code_link
from lps.manifests.names import DOCS_URL
from lps.pipeline.tools.gallery.animation import durations_ms
from tests.builders import folder_video, manifest_rows
from tests.pages import CHROMIUM, NO_AXE, Page, assert_accessible, browse
from tests.pipeline.tools.convert_data import TICKS, ffpp_videos, make_data_set

HOSTILE = "real/<script>alert(1)</script>\x1b[2J\"onload='x'.mp4"
REJECTS = [
    folder_video("fake/x/rejected.mp4", 1, code=Code.E_NO_FACE),
    folder_video("fake/x/crashes.mp4", 1, code=Code.E_DECODE),
    folder_video("real/absent.mp4", 0, code=Code.E_NO_FACE),
]


def call(*args: str | Path | int) -> Result:
    return CliRunner().invoke(main, ["preview", *map(str, args)])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    videos = [*ffpp_videos(4), folder_video(HOSTILE, 0), *REJECTS]
    return Path(make_data_set(tmp_path_factory.mktemp("gallery") / "out", videos).url)


@pytest.fixture(scope="module")
def made(out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("made") / "index.html"
    done = call(out, "--html", "--to", page.parent)
    assert done.exit_code == 0, done.output
    assert f"wrote {page}: 17 clips, 3 rejects" in done.stdout
    return page


def tiles_of(page: Path) -> dict[str, dict[str, str]]:
    tags = Page(page.read_text()).tags
    return {attrs["id"]: attrs for tag, attrs in tags if tag == "li" and attrs["class"].startswith("clip")}


def test_every_clip_and_reject_has_its_anchor_and_facts(out: Path, made: Path) -> None:
    tiles = tiles_of(made)
    clips = {row["sample_key"]: row for row in manifest_rows(out, "clips")}
    rejects = {row["video_id"].hex(): row for row in manifest_rows(out, "videos") if row["error_code"]}
    assert set(tiles) == {*clips, *rejects}
    for key, row in clips.items():
        found = [tiles[key][f"data-{name}"] for name in ("split", "label", "method", "dataset")]
        assert found == [row["split"], "fake" if row["label"] else "real", row["method"] or "", row["dataset"]]
    page = Page(made.read_text())
    assert {row["video_id"].hex() for row in clips.values()} <= page.ids()  # an audit names videos, too
    assert page.text.count("E_NO_FACE") == 3  # the heading and two rejects
    targets = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    outside = {target for target in targets if target.startswith(DOCS_URL)}
    assert code_link("E_NO_FACE") in outside
    assert {target[1:] for target in targets - outside} <= page.ids()


def test_a_clip_plays_in_its_own_time(out: Path, made: Path) -> None:
    images = [attrs for tag, attrs in Page(made.read_text()).tags if tag == "img"]
    assert len(images) == 2 * 17
    assert all(attrs["loading"] == "lazy" and attrs["alt"] for attrs in images)
    stills, moving = images[::2], images[1::2]
    for still, clip in zip(stills, moving, strict=True):
        with Image.open(made.parent / still["src"]) as first, Image.open(made.parent / clip["src"]) as animation:
            assert (first.format, animation.format) == ("JPEG", "WEBP")
            assert first.size == animation.size == (112, 112)
            assert animation.n_frames == len(TICKS)  # type: ignore[attr-defined]
            shown = []
            for k in range(len(TICKS)):
                animation.seek(k)
                animation.load()
                shown.append(animation.info["duration"])
                if k == 0:
                    a, b = (np.asarray(image.convert("RGB"), np.float64) for image in (first, animation))
                    assert abs(a - b).mean() < 20
        assert shown == [40, 80, 40, 160, 160]


def test_durations_do_not_drift_and_stay_in_bounds() -> None:
    thirtieths = durations_ms(range(61), 2.0, 1, 61)
    assert set(thirtieths) == {33, 34}
    assert sum(thirtieths[:-1]) == 2000
    assert durations_ms(range(120), 119 / 60, 2, 60)[:3] == [33, 34, 33]
    assert durations_ms([0, 1, 100_000], 4000.0, 1, 3) == [40, 10_000, 10_000]
    assert durations_ms([0, 1, 2], 0.002, 1, 3) == [20, 20, 20]
    assert durations_ms([5, 5], float("nan"), 1, 2) == durations_ms([], 1.0, 1, 2) == [40, 40]


def test_the_same_data_set_gives_the_same_files_and_old_pictures_go(out: Path, made: Path, tmp_path: Path) -> None:
    assert call(out, "--html", "--to", tmp_path / "index.html", "--clips", 3).exit_code == 0
    folder = tmp_path / "index_files"
    (folder / "mine.jpg").write_bytes(b"kept")
    old = {path.name for path in folder.iterdir()}
    assert call(out, "--html", "--to", tmp_path / "index.html").exit_code == 0
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files.pop("mine.jpg") == b"kept"
    assert files == {path.name: path.read_bytes() for path in (made.parent / "index_files").iterdir()}
    assert (tmp_path / "index.html").read_bytes() == made.read_bytes()
    assert call(out, "--html", "--to", tmp_path / "index.html", "--clips", 3).exit_code == 0
    assert {path.name for path in folder.iterdir()} == old


def test_nothing_that_others_wrote_runs(made: Path) -> None:
    text = made.read_text()
    page = Page(text)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "\x1b" not in text
    assert r"\x1b[2J" in page.text
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    for _, attrs in page.tags:
        assert attrs.get("href", "#").partition("#")[0] in ("", code_link())
        assert attrs.get("src", "index_files/").startswith("index_files/")
        assert "srcset" not in attrs


def test_every_kind_has_its_turn_and_what_is_asked_for_comes_first(out: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert call(out, "--html", "--to", page, "--clips", 6).exit_code == 0
    kinds = Counter(
        (row["split"], row["label"], row["method"], row["dataset"])
        for row in manifest_rows(out, "clips")
        if row["sample_key"] in tiles_of(page)
    )
    assert len(kinds) == 6
    clips = manifest_rows(out, "clips")
    report = {"checks": [
        {"state": "fail", "sample": [{"kind": "clip", "key": clips[3]["sample_key"]}, {"kind": "file", "key": "x"}]},
        {"state": "warn", "sample": [{"kind": "video", "key": clips[9]["video_id"].hex()}]},
        {"state": "error", "sample": [{"kind": "clip", "key": "absent"}]},
        {"state": "fail", "sample": [{"kind": "clip", "key": f"train-000/{clips[7]['sample_key']}"}]},
        {"state": "fail", "sample": [{"kind": "clip", "key": clips[8]["clip_id"].hex()}]},
        {"state": "pass", "sample": [{"kind": "clip", "key": clips[5]["sample_key"]}]},
    ]}  # fmt: skip
    (tmp_path / "audit.json").write_text(json.dumps(report))
    done = call(out, "--html", "--to", page, "--clips", 4, "--first", tmp_path / "audit.json")
    assert done.exit_code == 0, done.output
    shown = {key for key, attrs in tiles_of(page).items() if "reject" not in attrs["class"]}
    assert shown == {clips[k]["sample_key"] for k in (3, 7, 8, 9)}
    assert clips[8]["clip_id"].hex() in Page(page.read_text()).ids()
    assert "1 of those in" in done.stderr
    (tmp_path / "keys.txt").write_text(f"{clips[5]['sample_key']}\n{manifest_rows(out, 'videos')[0]['video_id'].hex()}")
    assert call(out, "--html", "--to", page, "--clips", 1, "--first", tmp_path / "keys.txt").exit_code == 0
    assert clips[5]["sample_key"] in tiles_of(page)


def test_a_video_with_clips_and_a_code_has_one_anchor(out: Path, tmp_path: Path) -> None:
    videos = shutil.copytree(out, tmp_path / "out") / "manifests/videos.parquet"
    table = pq.read_table(videos)
    rows = table.to_pylist()
    partial = next(row for row in rows if row["n_clips"])
    partial |= {"status": "partial", "error_code": "E_DECODE"}
    pq.write_table(pa.Table.from_pylist(rows, table.schema), videos)
    page = tmp_path / "page.html"
    assert call(tmp_path / "out", "--html", "--to", page).exit_code == 0
    ids = [attrs["id"] for _, attrs in Page(page.read_text()).tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert page.read_text().count(f'href="#{partial["video_id"].hex()}"') == 1


def test_a_clip_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    out = Path(make_data_set(tmp_path / "out", ffpp_videos(2)).url)
    row = manifest_rows(out, "clips")[0]
    tar = out / f"shards/{row['split']}/{row['shard_id']}.tar"
    data = bytearray(tar.read_bytes())
    start = row["members"][0]["offset"]
    data[start : start + 64] = bytes(64)
    tar.write_bytes(data)
    done = call(out, "--html", "--to", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert "1 clips have no readable frame" in done.stderr
    page = Page((tmp_path / "page.html").read_text())
    assert page.text.count("no readable frame") == 2
    assert len(page.images()) == 2 * 7


def test_one_file_from_a_bucket(out: Path, made: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in out.rglob("*"):
        if path.is_file():
            memory.pipe(f"/gallery/{path.relative_to(out)}", path.read_bytes())
    page = tmp_path / "page.html"
    done = call("memory://gallery", "--html", "--self-contained", "--to", page)
    assert done.exit_code == 0, done.output
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    images = Page(page.read_text()).images()
    assert all(re.match(r"data:image/(webp|jpeg);base64,", image) for image in images)
    beside = [(made.parent / name).read_bytes() for name in Page(made.read_text()).images()]
    assert [base64.b64decode(image.partition(",")[2]) for image in images] == beside
    assert "img-src data:;" in Page(page.read_text()).tags[3][1]["content"]


def test_rejects_show_their_first_frame(out: Path, write_video: Callable[..., Path], tmp_path: Path) -> None:
    videos = tmp_path / "videos/fake/x"
    videos.mkdir(parents=True)
    write_video(videos / "rejected.mp4", [np.full((64, 96, 3), (200, 30, 30), np.uint8)] * 5)
    (videos / "crashes.mp4").write_bytes((videos / "rejected.mp4").read_bytes()[:200])
    page = tmp_path / "page.html"
    done = call(out, "--html", "--to", page, "--clips", 1, "--source", tmp_path / "videos")
    assert done.exit_code == 0, done.output
    sources = [attrs for tag, attrs in Page(page.read_text()).tags if tag == "img" and attrs.get("class") == "source"]
    assert [attrs["alt"] for attrs in sources] == ["First frame of fake/x/rejected.mp4"]
    with Image.open(tmp_path / sources[0]["src"]) as image:
        red, green, blue = image.convert("RGB").getpixel((20, 20))  # type: ignore[misc]
        assert (red > 180, green < 60, blue < 60) == (True, True, True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--html", "--png"), 2, "give one of them"),
        (("--html", "--per-row", "3"), 2, "--per-row goes with --png"),
        (("--clips", "3"), 2, "--clips goes with --html"),
        (("--self-contained",), 2, "--self-contained goes with --html"),
        (("--to", "."), 2, "is a folder"),
        (("--html", "--to", "OUT/gallery"), 3, "does not belong into the data set"),
        (("--html", "--first", "OUT/index.json"), 4, "neither a list of keys nor"),
    ],
)
def test_what_cannot_be_done_is_one_line(out: Path, words: tuple[str, ...], code: int, said: str) -> None:
    done = call(out, *(word.replace("OUT", str(out)) for word in words))
    assert (done.exit_code, said in done.stderr.replace("\n", " ")) == (code, True), done.output
    assert "Traceback" not in done.output


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_the_script_runs_under_the_pages_own_policy(made: Path) -> None:
    dom = browse(made.parent, made.read_text(), "--dump-dom")
    assert "20 of 20 shown" in dom
    assert re.search(r'data-part="filters">', dom)
    assert "hidden" not in re.findall(r'<div class="filters"[^>]*>', dom)[0]


@pytest.mark.slow
@pytest.mark.skipif(NO_AXE, reason="no Chromium here, or no axe.min.js in LPS_AXE")
def test_the_gallery_is_accessible(made: Path) -> None:
    assert_accessible(made.parent, made.read_text())
