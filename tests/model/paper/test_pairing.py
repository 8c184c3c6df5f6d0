"""`lps-train experiment pairing`: what is trained, what the rows say, and the interval over seeds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from lps.cli.train.main import main
from lps.model.paper.pairing import CHANGES, over_seeds
from lps.model.paper.results import Value

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec

pytestmark = pytest.mark.usefixtures("one_thread")

N_FRAMES = 20


def write(make: "Maker", spec: "type[Spec]", *, original: bool = True) -> str:
    """Write a data set with two fakes of each real video, and a real and a fake video that are in no pair.

    Two of three real videos share their window with their fakes.
    """
    shards = []
    for split, n in (("train", 3), ("val", 2), ("test", 3)):
        reals = [f"{split}-r{k}" for k in range(n)]
        fakes = [(f"{split}-f{k}{m}", name) for k, name in enumerate(reals) for m in "ab"]
        shards.append(
            [
                *(spec(video=name, label=0, n_frames=N_FRAMES, split=split) for name in [*reals, f"{split}-alone"]),
                *(
                    spec(
                        video=name,
                        label=1,
                        original=of if original else None,
                        n_frames=N_FRAMES,
                        split=split,
                        pair_mode="fallback" if "0" in name else "shared",
                    )
                    for name, of in [*fakes, (f"{split}-stray", "elsewhere")]
                ),
            ]
        )
    return str(make.data_set(shards))


def test_pairs_are_measured_beside_unpaired_batches(make: "Maker", spec: "type[Spec]", tmp_path: Path) -> None:
    out = tmp_path / "zoo"
    args = ["experiment", "pairing", str(out), "--data", f"demo={write(make, spec)}", "--preset", "small", "--smoke"]
    args += ["--seeds", "3"]
    ended = CliRunner().invoke(main, args)
    assert ended.exit_code == 0, ended.output
    record = json.loads((out / "pairing/result.json").read_bytes())
    runs = ("seed 0", "seed 1", "seed 2", "mean of 3 seeds")
    named = [f"{arm}, {run}" for arm in ("paired", "unpaired") for run in runs]
    assert [row["name"] for row in record["rows"]] == named
    samplings = {}
    for path in sorted((out / "runs/demo/lps/pairing").iterdir()):
        config = json.loads((path / "config.json").read_bytes())
        samplings[path.name] = (config["preset"]["train"]["sampling"], config["seed"], config["init_sha256"])
    inits = {init for _, _, init in samplings.values()}
    assert len(inits) == 1, "all start from one pretraining"
    assert {name: facts[:2] for name, facts in samplings.items()} == {
        f"{arm}-{k}": (sampling, k)
        for arm, sampling in (("paired", "pairs"), ("unpaired", "balanced"))
        for k in range(3)
    }
    metrics = json.loads((out / "evals/demo-lps-pairing-paired-0/demo-test/metrics.json").read_bytes())
    values = record["rows"][0]["values"]
    assert values["pair_accuracy"]["value"] == pytest.approx(100 * metrics["data"][0]["pairs"]["all"]["value"])
    assert metrics["data"][0]["pairs"]["all"]["n_pairs"] == 6
    assert metrics["data"][0]["pairs"]["shared"]["all"]["n_pairs"] == 4
    notes = "\n".join(record["notes"])
    assert "demo: 4 of 6 pairs to learn from are of the same frames; the others are of clips near in time." in notes
    assert "demo: 1 fake and 1 real clips are in no pair, so only unpaired sampling has them." in notes
    means = [record["rows"][k]["values"]["auc"]["value"] for k in (3, 7)]
    assert f"demo: pairs change the AUC by {means[0] - means[1]:+.2f}" in notes
    before = {path: path.stat().st_mtime_ns for path in out.rglob("best.pt")}
    assert CliRunner().invoke(main, args).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("best.pt")} == before
    assert json.loads((out / "pairing/result.json").read_bytes()) == record


def test_without_pairs_it_is_refused(make: "Maker", spec: "type[Spec]", tmp_path: Path) -> None:
    data = write(make, spec, original=False)
    args = ["experiment", "pairing", str(tmp_path / "zoo"), "--data", f"demo={data}", "--preset", "small", "--smoke"]
    ended = CliRunner().invoke(main, args)
    assert CliRunner().invoke(main, ["experiment", "table1", *args[2:], "--seeds", "2"]).exit_code == 2
    assert ended.exit_code == 3
    assert "data set 'demo' has no pairs to learn from" in ended.output
    assert not (tmp_path / "zoo/runs").exists()


def test_the_interval_over_seeds_is_student_s() -> None:
    values = [61.0, 64.5, 60.25, 66.0]
    found = over_seeds(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert over_seeds([3.0]) == Value(value=3.0)
    assert over_seeds([0.0, 100.0]) == Value(value=50.0, low=0.0, high=100.0), "no AUC is outside"
    assert over_seeds([-60.0, 60.0], CHANGES) == Value(value=0.0, low=-100.0, high=100.0)
    assert over_seeds([3.0, None]) == over_seeds([]) == Value(value=None)
