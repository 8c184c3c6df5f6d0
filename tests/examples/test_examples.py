"""The scripts of examples/, run as their users run them: one after another, on a small FaceForensics++ tree."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lps.cli.docs.reference import PROGRAMS, walk
from lps.model.training.checkpoint import read_checkpoint
from lps.model.training.run_folder import step_checkpoints
from lps.pipeline.tools.demo_videos import make_face_video

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("*.sh"))
COMMANDS = {path: context.command for name, program in PROGRAMS.items() for path, context in walk(name, program)}

PAIRS = {"train": ("000", "003"), "val": ("001", "870"), "test": ("002", "006")}
N_FRAMES = 61
TINY = """
image_px = 32
[net]
width = 4
n_blocks = 4
[pretrain]
n_slots = 16
[train]
epochs = 1
batch_size = 4
[run]
device = "cpu"
workers = 0
threads = 1
"""


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs a script of examples/ in a folder of its own."""

    folder: Path

    def __call__(self, script: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return subprocess.run(
            [str(ROOT / "examples" / script), *args], cwd=self.folder, env={**os.environ, "PATH": path, **env},
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def source(run: Runner) -> str:
    """Return a FaceForensics++ tree in the official layout: pairs of sequences, reals and fakes."""
    root = run.folder / "FaceForensics++"
    for split, (a, b) in PAIRS.items():
        for target, donor in ((a, b), (b, a)) if split == "train" else ((a, b),):
            real = root / f"original_sequences/youtube/c23/videos/{target}.mp4"
            fake = root / f"manipulated_sequences/Deepfakes/c23/videos/{target}_{donor}.mp4"
            for path in (real, fake):
                make_face_video(path, n_frames=N_FRAMES, width=320, height=240, seed=int(target), fake=path == fake)
        lists = root / "dataset/splits"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.json").write_text(json.dumps([[a, b]]))
    return root.name


@pytest.fixture(scope="module")
def prepared(run: Runner, source: str) -> str:
    """Return the data set that the data engineer's script makes."""
    done = run("prepare_ffpp.sh", source, "ffpp", LOCALIZER="mtcnn", WORKERS="1")
    assert done.returncode == 0, done.stderr
    assert "split set group" in done.stdout
    return "ffpp"


@pytest.mark.slow
def test_the_data_engineer_gets_shards_and_two_split_sets(run: Runner, prepared: str) -> None:
    out = run.folder / prepared
    index = json.loads((out / "index.json").read_bytes())
    assert index["split_set"] == "official"
    videos = pq.read_table(out / "manifests/videos.parquet").to_pylist()
    usable = [video for video in videos if video["status"] == "ok"]
    assert len(usable) == 8
    splits = {video["uri"][-7:-4]: video["split"] for video in usable if video["label"] == 0}
    assert splits == {"000": "train", "003": "train", "001": "val", "002": "test"}
    assert {path.name for path in (out / "manifests/splits").glob("*.parquet")} == {"official.parquet", "group.parquet"}
    assert (run.folder / "ffpp-preview.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_trainer_gets_two_detectors_and_their_figures(run: Runner, prepared: str) -> None:
    (run.folder / "tiny.toml").write_text(TINY)
    done = run("train_two_gpus.sh", prepared, "runs", "--config", "tiny.toml")
    assert done.returncode == 0, done.stderr
    for name in ("pre", "cls", "ssd"):
        checkpoint = read_checkpoint(step_checkpoints(run.folder / "runs" / name / "checkpoints")[-1])
        assert checkpoint.training["feed"]["world_size"] == 2
    for name in ("cls", "ssd"):
        record = json.loads((run.folder / f"runs/eval-{name}/metrics.json").read_bytes())
        found = record["data"][0]["results"]["all"]["video"]
        assert (found["n_real"], found["n_fake"]) == (1, 1)
        assert found["auc"]["value"] is not None
    assert (run.folder / "runs/figures/roc.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_auditor_gets_reports_and_learns_that_videos_moved(run: Runner, prepared: str) -> None:
    before = shutil.copytree(run.folder / prepared, run.folder / "ffpp-before")
    path = before / "manifests/splits/official.parquet"
    table = pq.read_table(path)
    rows = [{**row, "split": {"val": "test"}.get(row["split"], row["split"])} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)

    done = run("audit_release.sh", prepared, "reports", before.name)
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads((run.folder / "reports/report.json").read_bytes())
    assert report["exit_code"] == 0
    assert "ffpp: fit" in done.stdout
    assert "<html" in (run.folder / "reports/report.html").read_text()
    assert "moved" in (run.folder / "reports/changes.txt").read_text()


@pytest.mark.slow
def test_the_auditor_learns_of_wrong_bytes_and_of_none(run: Runner, prepared: str) -> None:
    wrong = shutil.copytree(run.folder / prepared, run.folder / "ffpp-wrong")
    shard = next((wrong / "shards").rglob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    done = run("audit_release.sh", wrong.name, "reports-wrong")
    assert done.returncode == 5, done.stdout + done.stderr
    assert "ffpp-wrong: not intact" in done.stdout
    assert run("audit_release.sh", "nowhere", "reports-none").returncode == 4


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_started_and_call_what_there_is(path: Path) -> None:
    assert os.access(path, os.X_OK)
    lines = path.read_text().splitlines()
    assert "set -euo pipefail" in lines
    code = "\n".join(line for line in lines if not line.startswith("#"))
    calls = re.findall(r"(lps-(?:prep|train|audit)(?: [a-z]+)+)([^\n|]*)", code)
    assert calls or path.name == "s3_lifecycle.sh"
    for words, rest in calls:
        command = max((name for name in COMMANDS if f"{words} ".startswith(f"{name} ")), key=len)
        assert not isinstance(COMMANDS[command], click.Group), words
        known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, command


def test_a_script_without_arguments_says_how_it_is_called(run: Runner) -> None:
    for path in SCRIPTS:
        done = run(path.name)
        assert done.returncode != 0
        assert f"usage: {path.name}" in done.stderr
