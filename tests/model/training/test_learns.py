"""Pretraining learns: on clips whose motion goes on, what comes next is told apart far better than by chance."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lps.model.training.run_log import read_log

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Runner, Spec

    Settings = Callable[..., Path]

N_CLIPS, N_FRAMES = 48, 12


def drifting(name: str, n_frames: int, px: int) -> list[NDArray[np.uint8]]:
    """Return frames of a landscape that drifts with a velocity of its own."""
    rng = np.random.default_rng(list(name.encode()))
    coarse = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    wide = cv2.resize(coarse, (px, px), interpolation=cv2.INTER_CUBIC)
    dx, dy = rng.uniform(-1.5, 1.5, 2)
    shifts = [np.array([[1, 0, k * dx], [0, 1, k * dy]]) for k in range(n_frames)]
    frames = [cv2.warpAffine(wide, shift, (px, px), borderMode=cv2.BORDER_WRAP) for shift in shifts]
    return [np.asarray(frame, np.uint8) for frame in frames]


@pytest.fixture(scope="module")
def landscapes(maker: "type[Maker]", spec: "type[Spec]", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of them."""

    class Landscape(spec):  # type: ignore[misc, valid-type]
        def frames(self) -> list[NDArray[np.uint8]]:
            return drifting(self.video, self.n_frames, self.px)

    shard = [Landscape(video=f"l{k}", n_frames=N_FRAMES) for k in range(N_CLIPS)]
    return maker(tmp_path_factory.mktemp("landscapes")).data_set([shard])


@pytest.mark.slow
def test_loss_per_direction_falls_below_chance(
    lps_train: "Runner", settings: "Settings", landscapes: Path, tmp_path: Path
) -> None:
    tables = {
        "net": "width = 16\nn_blocks = 6\nblock_frames = 2",
        "pretrain": "n_slots = 128\nmin_context = 3",
        "run": "checkpoint_steps = 1000\nvalidate_epochs = 100",
    }
    config = settings("epochs = 20\nbatch_size = 8", **tables)
    command = ["pretrain", tmp_path / "run", "--data", landscapes, "--val-split", "none", "--init", "random"]
    ended = lps_train(*command, "--config", config)
    assert ended.code == 0, ended.stderr
    steps = [r for r in read_log(tmp_path / "run/log.jsonl") if r["kind"] == "step"]
    chance = math.log(8 * 3)  # clips of a batch times predicted steps; maps have one place
    assert steps[0]["loss_forward"] == pytest.approx(chance, abs=0.4)
    for direction in ("forward", "backward"):
        last = float(np.mean([r[f"loss_{direction}"] for r in steps[-12:]]))
        assert last < 0.8 * chance, last
    assert np.mean([r["share_of_chance"] for r in steps[-12:]]) < 0.8
