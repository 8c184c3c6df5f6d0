"""The scripts of docs/api.md run as they stand, one after the other, in a folder with videos and a detector."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lps.model.networks.context_net import NetParams
from lps.model.networks.detector import Detector, HeadParams
from lps.model.training.checkpoint import Checkpoint, write_checkpoint
from lps.model.training.presets import Preset
from lps.pipeline.tools.demo_videos import make_face_video

PAGE = Path(__file__).parents[2] / "docs/api.md"
SCRIPTS = dict(re.findall(r"^## (.+?)\n.*?```python\n(.+?)```", PAGE.read_text(), re.DOTALL | re.MULTILINE))


def test_page_has_four_short_scripts() -> None:
    assert list(SCRIPTS) == ["Prepare a folder", "Read clips", "Score a video", "Run one audit check"]
    assert all(sum(bool(line) for line in script.splitlines()) <= 10 for script in SCRIPTS.values())


@pytest.mark.parametrize("title", SCRIPTS)
def test_imports_of_a_script_work(title: str) -> None:
    imports: list[ast.stmt] = [
        node for node in ast.parse(SCRIPTS[title]).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert imports
    exec(compile(ast.Module(imports, []), title, "exec"), {})


def run(title: str, folder: Path) -> list[str]:
    """Run a script in a process of its own; return what it prints."""
    (folder / "script.py").write_text(SCRIPTS[title])
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow  # prepares a data set on Ray
def test_scripts_run_as_they_stand(tmp_path: Path) -> None:
    for n in range(3):
        for place, fake in (("real", False), ("fake/blend", True)):
            make_face_video(tmp_path / f"videos/{place}/{n}.mp4", n_frames=64, width=320, height=240, seed=n, fake=fake)
    shutil.copy(tmp_path / "videos/fake/blend/0.mp4", tmp_path / "video.mp4")
    net, head = NetParams(width=4, n_blocks=2, gru_dropout=0.0), HeadParams(final_bn=False)
    preset = Preset(image_px=32, net=net, head=head)
    torch.manual_seed(0)
    network = Detector(net, head).state_dict()
    config = {"preset": preset.record()}
    checkpoint = Checkpoint(stage="classify", config=config, data={}, network=network, progress={})
    write_checkpoint(tmp_path / "best.pt", checkpoint)

    assert run("Prepare a folder", tmp_path)[-1] == "6 of 6 videos have clips"
    [batch] = run("Read clips", tmp_path)
    assert batch.startswith("0 (2, 60, 224, 224, 3) [")
    score, *tracks = run("Score a video", tmp_path)
    assert 0 <= float(score) <= 1
    assert tracks
    assert all(line.startswith("track 0, ") for line in tracks)
    assert run("Run one audit check", tmp_path) == ["L1 pass 0 groups cross"]
