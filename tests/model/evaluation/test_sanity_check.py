"""`lps-train check`: a network and a thumbnail on their training videos and on people held out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from click.testing import CliRunner

from lps.cli.train.main import main
from lps.model.evaluation.sanity_check import VideoScores

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec


def test_check_trains_on_all_and_on_each_fold_and_resumes(
    make: "Maker", family: "Callable[..., list[Spec]]", settings: Callable[..., Path], tmp_path: Path
) -> None:
    data = make.data_set([family("a", 8), family("v", 2, "val")])
    asked = ["check", str(tmp_path / "run"), "--data", str(data), "--config", str(settings()), "--folds", "2"]
    first = CliRunner().invoke(main, asked)
    assert first.exit_code == 0, first.output
    assert "4 real and 4 fake videos" in first.output
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"all", "fold-0", "fold-1", "check.json"}
    record = json.loads((tmp_path / "run/check.json").read_bytes())
    assert record["n_videos"] == {"real": 4, "fake": 4}
    assert record["n_folds"] == len(record["fold_aucs"]) == 2
    names = ("training_auc", "thumbnail_training_auc", "held_out_auc", "thumbnail_held_out_auc")
    assert all(0 <= record[name] <= 1 for name in names)
    assert CliRunner().invoke(main, asked).output.splitlines()[-6:] == first.output.splitlines()[-6:]
    assert json.loads((tmp_path / "run/check.json").read_bytes()) == record


def test_a_video_is_scored_as_everywhere_else() -> None:
    videos = np.array([b"b", b"a", b"a", b"a"])
    faces, labels, groups = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1]), np.array([7, 3, 3, 3])
    found = VideoScores.of_clips(videos, faces, labels, groups, np.array([0.5, 0.2, 0.4, 0.9]))
    assert found.scores.tolist() == [0.9, 0.5]
    assert (found.labels.tolist(), found.groups.tolist()) == ([1, 0], [3, 7])
