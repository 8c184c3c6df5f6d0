"""lps-prep as its users meet it: exit codes, one-line errors, and the demo from end to end."""

import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from lps.cli.prep.main import main
from lps.pipeline.faces.weights import LOCALIZER_WEIGHTS, WEIGHTS_DIR_VARIABLE, WeightFile

# The columns that readers outside this project rely on.
VIDEO_COLUMNS = [
    "video_id",
    "uri",
    "dataset",
    "sha256",
    "label",
    "method",
    "status",
    "error_code",
    "error_stage",
    "split",
    "n_clips",
    "width",
    "height",
    "rotation",
    "fps_num",
    "fps_den",
    "n_frames_decoded",
    "target_keys",
    "source_keys",
    "identity_keys",
    "original_video_id",
]
CLIP_COLUMNS = [
    "clip_id",
    "video_id",
    "shard_id",
    "sample_key",
    "label",
    "split",
    "track_id",
    "frame_idx",
    "pts_start_s",
    "pts_end_s",
    "max_gap_frames",
    "box_xyxy",
    "align_M",
    "det_rate",
]
SHARD_COLUMNS = ["shard_id", "uri", "split", "sha256", "bytes", "n_samples", "n_real", "n_fake"]
WEIGHTS = b"these are not weights"


def call(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def program(*args: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from lps.cli.prep.main import main; main()", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env={**os.environ, **env})


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["run"], 2, "Missing argument"),
        (["run", "in", "out", "--clips", "0"], 2, "positive number or 'all'"),
        (["run", "in", "out", "--localizer", "dlib"], 2, "dlib"),
        (["run", "in", "out", "--split", "random"], 3, "leak"),
        (["status", "nowhere"], 4, "not a data set"),
        (["preview", "nowhere"], 4, "nowhere"),
        (["convert", "nowhere", "to", "--to", "mp4"], 4, "index.json"),
        (["convert", "nowhere", "s3://bucket/to", "--to", "mp4"], 2, "folder of this machine"),
        (["convert", "nowhere", "to", "--to", "avi"], 2, "avi"),
        (["convert", "nowhere", "to"], 2, "--to"),
        (["retry", "nowhere", "--code", "E_NOTHING"], 3, "unknown code"),
        (["retry", "nowhere", "--code", "E_TIMEOUT"], 4, "not a data set"),
        (["split", "nowhere", "--rule", "group", "--name", "x"], 4, "index.json"),
    ],
)
def test_wrong_use_ends_with_its_code_and_says_why(
    args: list[str], code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*args)
    assert result.exit_code == code, result.output
    assert says in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_missing_weight_is_one_line_with_the_offline_alternative(tmp_path: Path) -> None:
    (tmp_path / "in" / "real").mkdir(parents=True)
    (tmp_path / "in" / "real" / "a.mp4").write_bytes(b"x")
    weights = str(tmp_path / "weights")
    done = program(
        "run", str(tmp_path / "in"), str(tmp_path / "out"), "--workers", "1", "--weights-dir", weights,
        LPS_WEIGHTS_DIR="", XDG_CACHE_HOME=str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert "retinaface_resnet50" in line
    assert "f168fae3c" in line
    assert "mtcnn" in line
    assert "Traceback" not in done.stderr


def test_a_missing_package_of_the_localizer_is_told_before_anything_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lps.pipeline.faces.localizers.find_spec", lambda name: None)
    for command in ("run", "plan"):  # there is no source, and no Ray
        result = call(command, str(tmp_path / "in"), str(tmp_path / "out"), "--address", "127.0.0.1:1")
        assert result.exit_code == 4
        assert result.output.strip().endswith("pip install --no-deps 'face-alignment>=1.5,<2'")
        assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_absent_source_is_one_line(tmp_path: Path) -> None:
    done = program("run", str(tmp_path / "in"), str(tmp_path / "out"), "--localizer", "mtcnn", "--workers", "1")
    assert done.returncode == 4
    assert f"{tmp_path / 'in'}" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_an_output_inside_its_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.mp4").write_bytes(b"x")
    result = call("run", str(tmp_path), str(tmp_path / "out"), "--localizer", "mtcnn")
    assert result.exit_code == 3
    assert "inside the source" in result.output
    assert not (tmp_path / "out").exists()


def test_weights_list_names_every_localizer() -> None:
    result = call("weights", "list")
    assert result.exit_code == 0
    for word in ("retinaface-fan", "retinaface-mobilenet", "mtcnn", "5f88f7957d9e", "sha256"):
        assert word in result.output
    assert result.output.count(", inside facenet_pytorch, which lps-prep[prep] brings\n") == 3


def test_weights_check_fails_for_a_wrong_file_only(tmp_path: Path) -> None:
    env = {"LPS_WEIGHTS_DIR": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    run = CliRunner(env=env).invoke
    assert run(main, ["weights", "check", "--weights-dir", str(tmp_path)]).exit_code == 0  # absent is not wrong
    (tmp_path / "retinaface_resnet50_2020-07-20-f168fae3c.zip").write_bytes(b"something else")
    result = run(main, ["weights", "check", "--weights-dir", str(tmp_path)])
    assert result.exit_code == 4, result.output


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Result]]:
    """Return a function that fetches the weights of a localizer whose one file has a digest, from a loopback server."""
    monkeypatch.delenv(WEIGHTS_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(WEIGHTS)))
            self.end_headers()
            self.wfile.write(WEIGHTS)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name of the base class
            """Say nothing."""

    def fetch_weights(sha256: str) -> Result:
        url = f"http://127.0.0.1:{server.server_port}/sample.pth"
        file = WeightFile("sample", "sample.pth", url, sha256, len(WEIGHTS), "MIT")
        monkeypatch.setitem(LOCALIZER_WEIGHTS, "retinaface-fan", (file,))
        return call("weights", "fetch", "retinaface-fan", "--weights-dir", str(tmp_path / "weights"))

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield fetch_weights
        server.shutdown()
        thread.join()


def test_weights_fetch_downloads_what_is_missing(fetch: Callable[[str], Result], tmp_path: Path) -> None:
    result = fetch(hashlib.sha256(WEIGHTS).hexdigest())
    assert result.exit_code == 0, result.output
    assert result.output.startswith("sample.pth")
    assert (tmp_path / "weights" / "sample.pth").read_bytes() == WEIGHTS


KILLED_FETCH = """
import os, signal, sys
from pathlib import Path
from lps.pipeline.faces.weights import WeightFile, fetch_weight

def die(event, args):
    if event == "os.rename" and str(args[1]).endswith("sample.pth"):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
url, digest, folder = sys.argv[1:]
fetch_weight(WeightFile("sample", "sample.pth", url, digest, None, "MIT"), Path(folder))
"""


def test_weights_fetch_killed_before_the_file_has_its_name_fetches_it_again(
    fetch: Callable[[str], Result], tmp_path: Path
) -> None:
    fetch("0" * 64)
    (sample,) = LOCALIZER_WEIGHTS["retinaface-fan"]
    digest, folder = hashlib.sha256(WEIGHTS).hexdigest(), tmp_path / "weights"
    command = [sys.executable, "-c", KILLED_FETCH, sample.url, digest, str(folder)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -9
    assert not (folder / "sample.pth").exists()
    assert fetch(digest).exit_code == 0
    assert (folder / "sample.pth").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("sha256", "code", "says"),
    [
        ("0" * 64, 5, ["is not the expected one"]),
        (
            "abcdef123",
            4,
            ["no whole sha256 of sample.pth", "abcdef123", "sample.pth.sha256 and fetch it", "mtcnn"],
        ),
    ],
    ids=["wrong digest", "digest known in part"],
)
def test_weights_fetch_refuses_what_it_cannot_trust(
    fetch: Callable[[str], Result], tmp_path: Path, sha256: str, code: int, says: list[str]
) -> None:
    result = fetch(sha256)
    assert result.exit_code == code, result.output
    assert len(result.output.splitlines()) == 1
    for words in says:
        assert words in result.output
    assert not (tmp_path / "weights" / "sample.pth").exists()


# ---- the demo and everything on it -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, demo_videos: Path) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    # from a folder of its own: workers must find lps.* as installed, not by where they stand
    done = program("demo", "here", "--workers", "1", cwd=folder)
    folder = folder / "here"
    assert done.returncode == 0, done.stderr
    assert "What to do next" in done.stdout
    assert "Traceback" not in done.stderr
    made = {path.relative_to(demo_videos).as_posix() for path in demo_videos.rglob("*") if path.is_file()}
    assert {f"   {name}" for name in made} <= set(done.stderr.splitlines())
    (folder / "run.txt").write_text(re.findall("^2. (lps-prep run .*)$", done.stderr, re.MULTILINE)[0])
    return folder


def digests(tree: Path) -> dict[str, str]:
    files = sorted(path for path in tree.rglob("*") if path.is_file())
    return {path.relative_to(tree).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_the_printed_command_takes_the_demo_up_again(demo: Path) -> None:
    words = shlex.split((demo / "run.txt").read_text())[1:]
    assert words[words.index("--params") + 1] == "here/params.toml"
    again = program(*words, cwd=demo.parent)
    assert again.returncode == 0, again.stderr
    assert "What to do next" not in again.stdout


@pytest.mark.slow
def test_sample_videos_are_the_same_bytes_in_every_process(demo: Path, demo_videos: Path) -> None:
    assert digests(demo / "videos") == digests(demo_videos)


def table(demo: Path, name: str) -> list[dict[str, object]]:
    return list(pq.read_table(demo / "dataset" / "manifests" / f"{name}.parquet").to_pylist())


@pytest.mark.slow
def test_demo_accounts_for_every_video(demo: Path) -> None:
    videos = table(demo, "videos")
    assert len(videos) == len(list((demo / "videos").rglob("*.mp4"))) == 19
    by_uri = {row["uri"]: row for row in videos}
    assert by_uri["real/no_face.mp4"]["error_code"] == "E_NO_FACE"
    assert by_uri["real/too_short.mp4"]["error_code"] == "E_TOO_SHORT"
    assert by_uri["fake/blend/corrupt.mp4"]["error_code"] == "E_PROBE"
    assert sum(row["status"] == "ok" for row in videos) == 16
    for row in videos:
        assert (row["error_code"] is None) == (row["status"] == "ok")
    pair = by_uri["fake/blend/face_00.mp4"], by_uri["real/face_00.mp4"]
    assert pair[0]["original_video_id"] == pair[1]["video_id"]
    assert pair[0]["split"] == pair[1]["split"]


@pytest.mark.slow
def test_demo_has_the_published_columns_and_digests(demo: Path) -> None:
    data = demo / "dataset"
    for name, columns in (("videos", VIDEO_COLUMNS), ("clips", CLIP_COLUMNS), ("shards", SHARD_COLUMNS)):
        assert set(columns) <= set(pq.read_schema(data / "manifests" / f"{name}.parquet").names)
    index = json.loads((data / "index.json").read_bytes())
    for uri, entry in index["manifests"].items():
        assert hashlib.sha256((data / uri).read_bytes()).hexdigest() == entry["sha256"]
    listed = {shard["uri"]: shard["sha256"] for shards in index["shards"].values() for shard in shards}
    assert set(listed) == {str(path.relative_to(data)) for path in data.glob("shards/*/*.tar")}
    for uri, sha256 in listed.items():
        assert hashlib.sha256((data / uri).read_bytes()).hexdigest() == sha256


@pytest.mark.slow
def test_demo_shards_are_normalised_and_lead_back_to_the_manifest(demo: Path) -> None:
    data = demo / "dataset"
    clips = {row["sample_key"]: row for row in table(demo, "clips")}
    seen = set()
    for path in sorted(data.glob("shards/*/*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            assert [m.name for m in members] == sorted(m.name for m in members)
            assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
            for member in members:
                key, ext = member.name.split(".", 1)
                seen.add(key)
                found = {m["ext"]: m for m in clips[key]["members"]}[ext]  # type: ignore[attr-defined]
                assert (found["offset"], found["nbytes"]) == (member.offset_data, member.size)
    assert seen == set(clips)
    for row in clips.values():
        frames = row["frame_idx"]
        assert frames == list(range(frames[0], frames[0] + 60))  # type: ignore[index]
        assert row["max_gap_frames"] == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves the tar open
def test_demo_is_read_by_plain_webdataset(demo: Path) -> None:
    import webdataset as wds
    from PIL import Image

    path = sorted((demo / "dataset" / "shards" / "train").glob("*.tar"))[0]
    samples = list(wds.WebDataset(str(path), shardshuffle=False, empty_check=False))
    assert samples
    for sample in samples:
        images = [Image.open(io.BytesIO(sample[f"{i:02d}.jpg"])) for i in range(60)]
        assert {image.size for image in images} == {(224, 224)}
        assert sample["cls"] in (b"0", b"1")
        facts = json.loads(sample["json"])
        assert len(facts["frame_idx"]) == len(facts["pts_s"]) == len(facts["align_M"]) == 60


@pytest.mark.slow
def test_status_preview_and_split_work_on_the_demo(demo: Path, tmp_path: Path) -> None:
    data = str(demo / "dataset")
    status = json.loads(call("status", data, "--json").output)
    assert status["complete"] is True
    counts = {"total": 19, "done": 19, "with_clips": 16, "quarantined": 0}
    assert status["videos"] == counts | {"untied_fakes": 1}  # the corrupt one has no real video of its name
    (tmp_path / "ds[v2]").symlink_to(data)
    assert "ds[v2]: complete; " in call("status", str(tmp_path / "ds[v2]")).output
    sheet = tmp_path / "sheet.png"
    assert call("preview", data, "--to", str(sheet)).exit_code == 0
    assert sheet.read_bytes().startswith(b"\x89PNG")
    added = call("split", data, "--rule", "ranked", "--name", "ranked-v1")
    assert added.exit_code == 0, added.output
    index = json.loads((demo / "dataset" / "index.json").read_bytes())
    assert "manifests/splits/ranked-v1.parquet" in index["manifests"]
    assert index["split_set"] == "group"
    again = call("split", data, "--rule", "ranked", "--name", "ranked-v1")
    assert again.exit_code == 3
    assert call("retry", data, "--code", "E_TIMEOUT").exit_code == 3  # nothing has it


@pytest.mark.slow
def test_nothing_outside_runs_names_this_machine(demo: Path) -> None:
    folder = str(demo).encode()
    for path in (demo / "dataset").rglob("*"):
        if path.is_file() and "runs" not in path.relative_to(demo / "dataset").parts:
            assert folder not in path.read_bytes(), path


def test_help_is_quick_to_load() -> None:
    code = "import sys, lps.cli.prep.main; print(sorted(m for m in ('torch', 'ray', 'cv2', 'av') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\[\]\s*", done.stdout)
