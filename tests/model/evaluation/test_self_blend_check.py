"""`lps-train check --fakes self-blend` and `figure self-blend`: real clips alone are enough."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from lps.cli.train.main import main

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec


@pytest.fixture
def reals(make: "Maker", spec: "type[Spec]") -> Path:
    """Return a data set without fakes: six clips to learn from, four held out."""
    learnt = [spec(video=f"a{k}", n_frames=12) for k in range(6)]
    return make.data_set([learnt, [spec(video=f"v{k}", n_frames=12, split="val") for k in range(4)]])


def run(*words: object) -> Result:
    """Run lps-train in this process."""
    return CliRunner().invoke(main, [str(word) for word in words])


def test_check_learns_from_real_clips_and_asks_about_those_held_out(
    reals: Path, settings: Callable[..., Path], tmp_path: Path
) -> None:
    out, config = tmp_path / "run", settings("batch_size = 6", net="n_blocks = 1")
    asked = ["check", out, "--data", reals, "--config", config, "--fakes", "self-blend", "--epochs", 2]
    first = run(*asked)
    assert first.exit_code == 0, first.output
    assert "16 pairs of a stretch and its self-blend, of 4 real clips in 4 groups" in first.output
    assert "no detector" in first.output.splitlines()[-1]
    record = json.loads((out / "check.json").read_bytes())
    names = ("pairs_ranked_right", "pretext_auc", "thumbnails_auc", "colours_auc", "training_pretext_auc")
    assert all(0 <= record[name] <= 1 for name in names)
    assert record["n_clips"] == {"learnt": 6, "held_out": 4}
    result = json.loads((out / "self-blend/result.json").read_bytes())
    assert (result["epochs"], result["data"]["pairs"]["n_shared"]) == (2, 6)
    assert run(*asked).output.splitlines()[-6:] == first.output.splitlines()[-6:]


def test_check_holds_a_part_of_the_groups_out_where_there_is_no_other_split(
    reals: Path, settings: Callable[..., Path], tmp_path: Path
) -> None:
    asked = ["check", tmp_path / "run", "--data", reals, "--config", settings("batch_size = 6", net="n_blocks = 1")]
    asked += ["--fakes", "self-blend", "--val-split", "none", "--epochs", 1, "--folds"]
    found = run(*asked, 1)
    assert found.exit_code == 3
    assert "nobody is held out: name a split with --val-split, or at least two --folds" in found.stderr
    found = run(*asked, 3)
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "run/check.json").read_bytes())["n_clips"] == {"learnt": 4, "held_out": 2}


def test_what_reads_each_clip_once_as_it_is_stored_refuses_self_blends(
    reals: Path, settings: Callable[..., Path], tmp_path: Path
) -> None:
    blends = settings("epochs = 1", fakes='kind = "self-blend"')
    best = tmp_path / "cls/checkpoints/best.pt"
    asked = ["--data", reals, "--config", blends, "--init"]
    found = run("classify", tmp_path / "cls", *asked, "random")
    assert found.exit_code == 0, found.output
    found = run("distill", tmp_path / "ssd", *asked, best)
    assert found.exit_code == 3
    assert "set run.cache_maps = false" in found.stderr
    found = run("classify", tmp_path / "svm", *asked, best, "--head", "svm")
    assert found.exit_code == 3
    assert "no self-blends" in found.stderr


def test_the_figure_shows_real_mask_and_blend(reals: Path, tmp_path: Path) -> None:
    asked = ["figure", "self-blend", tmp_path / "figs", "--data", reals, "--clips", 1]
    pictures = []
    for seed in (0, 0, 1):
        found = run(*asked, "--seed", seed)
        assert found.exit_code == 0, found.output
        pictures.append((tmp_path / "figs/self-blend.png").read_bytes())
    assert pictures[0].startswith(b"\x89PNG")
    assert pictures[0] == pictures[1] != pictures[2]
