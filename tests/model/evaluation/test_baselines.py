"""What stands beside an AUC: what tells the label without a detector, in the table, the record and the page."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from click.testing import CliRunner, Result

from lps.cli.train.main import main
from lps.manifests.index import read_index
from lps.manifests.shortcuts.records import SHORTCUTS_JSON, ShortcutPanel, ShortcutScore, panel_digests, store_panel
from lps.manifests.storage import Store
from lps.model.evaluation.baselines import SOURCES, best_alone
from lps.model.networks.context_net import NetParams
from lps.model.networks.detector import Detector, HeadParams
from lps.model.paper.results import Result as Outcome
from lps.model.paper.results import ResultRow, Value, markdown
from lps.model.training.checkpoint import write_checkpoint
from lps.model.training.presets import Preset
from tests.builders import detector_checkpoint

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec

PRESET = Preset(image_px=32, net=NetParams(width=4, n_blocks=1, block_frames=3), head=HeadParams(dropout=0.0))
SCORES = (
    ShortcutScore(name="face-size", what="", model="trees", auc=0.987, low=0.95, high=1.0, n_real=40, n_fake=41),
    ShortcutScore(name="bit-rate", what="", model="trees", auc=0.612, low=0.55, high=0.67, n_real=40, n_fake=41),
    ShortcutScore(name="band-power", what="", model="trees", auc=None, note="too few videos"),
)


def measured(data: Path) -> Path:
    """Keep a panel beside a data set, as `lps-audit shortcuts` does."""
    store = Store(str(data))
    index = read_index(store).values
    name = str(index["split_set"])
    panel = ShortcutPanel(
        split_set=name, seed=0, max_clips=81, n_videos=81, n_sampled=81, n_groups=40, scores=SCORES,
        digests=panel_digests(index, name), versions={},
    )  # fmt: skip
    store_panel(store, panel)
    return data


def without_values(data: Path) -> Path:
    """Take the values from the panel of a data set, as where it has too few videos for any."""
    record = json.loads((data / SHORTCUTS_JSON).read_bytes())
    (panel,) = record["panels"].values()
    for score in panel["scores"]:
        score |= {"auc": None, "low": None, "high": None, "note": "too few videos: 8 real, 30 are needed"}
    (data / SHORTCUTS_JSON).write_text(json.dumps(record))
    return data


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return a detector that has learnt nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = Detector(PRESET.net, PRESET.head)
    config = {"stage": "classify", "seed": 7, "preset": PRESET.record()}
    write_checkpoint(tmp_path / "best.pt", detector_checkpoint(network, PRESET, stage="classify", config=config))
    return tmp_path / "best.pt"


def evaluated(checkpoint: Path, *data: str) -> Result:
    out = checkpoint.parent / "out"
    args = ["evaluate", "--checkpoint", checkpoint, "--out", out, "--workers", 0, "--device", "cpu"]
    given = [word for each in data for word in ("--data", each)]
    ended = CliRunner().invoke(main, [*map(str, args), *given])
    assert ended.exit_code == 0, ended.output
    return ended


def a_data_set(make: "Maker", spec: "type[Spec]", *datasets: str) -> Path:
    """Make a data set of a fake and its original from each of `datasets`, all for the test."""
    return make.data_set(
        [
            [
                each
                for name in datasets
                for each in (
                    spec(video=f"{name}-r", split="test", dataset=name),
                    spec(video=f"{name}-f", label=1, original=f"{name}-r", split="test", dataset=name),
                )
            ]
        ]
    )


def test_the_table_and_the_page_show_what_tells_the_label_alone(
    make: "Maker", spec: "type[Spec]", checkpoint: Path
) -> None:
    data = measured(a_data_set(make, spec, "first", "second"))
    shown = evaluated(checkpoint, f"mixed={data}").stdout
    lines = shown.splitlines()
    alone = next(line for line in lines if "face size alone" in line)
    assert "40 + 41" in alone
    assert "0.987" in alone
    assert "0.950-1.000" in lines[lines.index(alone) + 1]
    assert "band power alone" not in shown  # it is not known
    assert f"mixed: {SOURCES}" in " ".join(shown.split())
    assert shown.index("share of pairs") < shown.index("by video, with")
    (entry,) = json.loads((checkpoint.parent / "out/metrics.json").read_bytes())["data"]
    assert entry["baselines"]["scores"]["bit-rate"]["low"] == 0.55
    assert entry["baselines"]["scores"]["thumbnail-logistic"] == {"value": None, "reason": "the panel lacks it"}
    assert best_alone(entry) == "face size 98.70 [95.00, 100.00]"
    page = checkpoint.parent / "page.html"
    ended = CliRunner().invoke(main, ["report", str(checkpoint.parent / "out"), "--html", str(page)])
    assert ended.exit_code == 0, ended.output
    text = page.read_text()
    assert text.index("Pair accuracy") < text.index("By video: the mean over its clips") < text.index("face size alone")
    assert "0.987" in text
    assert SOURCES in text


def test_where_nothing_was_measured_the_reason_is_said(make: "Maker", spec: "type[Spec]", checkpoint: Path) -> None:
    never = a_data_set(make, spec, "first")
    stale = measured(a_data_set(make, spec, "second"))
    record = json.loads((stale / SHORTCUTS_JSON).read_bytes())
    (panel,) = record["panels"].values()
    panel["digests"] = dict.fromkeys(panel["digests"], "0" * 64)
    (stale / SHORTCUTS_JSON).write_text(json.dumps(record))
    damaged = a_data_set(make, spec, "third")
    (damaged / SHORTCUTS_JSON).write_text("{}")
    shown = " ".join(evaluated(checkpoint, f"never={never}", f"stale={stale}", f"damaged={damaged}").stdout.split())
    said = "what tells the label without a detector:"
    assert f"never: {said} not measured; `lps-audit shortcuts` does that for split set" in shown
    assert f"stale: {said} the panel of shortcuts is of an earlier state" in shown
    assert f"damaged: {said} " in shown
    assert f"together (micro): {SOURCES}" in shown


def test_a_finished_evaluation_takes_up_what_was_measured_since(
    make: "Maker", spec: "type[Spec]", checkpoint: Path
) -> None:
    data = a_data_set(make, spec, "first")
    out = checkpoint.parent / "out"
    evaluated(checkpoint, f"first={data}")
    before = json.loads((out / "metrics.json").read_bytes())
    scores = (out / "scores.parquet").stat().st_mtime_ns
    assert "not measured" in before["data"][0]["baselines"]["reason"]

    measured(data)
    again = evaluated(checkpoint, f"first={data}")
    assert "face size alone" in again.stdout
    assert "not measured" not in again.stdout
    assert "what tells the label without a detector was measured since" in " ".join(again.stderr.split())
    after = json.loads((out / "metrics.json").read_bytes())
    assert after["data"][0].pop("baselines")["scores"]["face-size"]["value"] == 0.987
    before["data"][0].pop("baselines")
    assert after == before
    assert (out / "scores.parquet").stat().st_mtime_ns == scores, "nothing is scored again"

    (data / SHORTCUTS_JSON).unlink()
    written = (out / "metrics.json").stat().st_mtime_ns
    assert "face size alone" in evaluated(checkpoint, f"first={data}").stdout
    assert (out / "metrics.json").stat().st_mtime_ns == written, "what was measured of the same data stays"


def test_a_panel_without_any_value_was_not_measured_since(make: "Maker", spec: "type[Spec]", checkpoint: Path) -> None:
    data = a_data_set(make, spec, "first")
    evaluated(checkpoint, f"first={data}")
    again = evaluated(checkpoint, f"first={without_values(measured(data))}")
    assert "too few videos: 8 real, 30 are needed" in " ".join(again.stdout.split())
    assert "was measured since" not in " ".join(again.stderr.split())
    evaluated(checkpoint, f"first={measured(data)}")
    again = evaluated(checkpoint, f"first={without_values(data)}")
    assert "face size alone" in again.stdout, "values stay"
    assert "was measured since" not in " ".join(again.stderr.split())


def test_where_the_panel_knows_too_little_the_reason_is_said(
    make: "Maker", spec: "type[Spec]", checkpoint: Path
) -> None:
    data = without_values(measured(a_data_set(make, spec, "first")))
    shown = evaluated(checkpoint, f"first={data}").stdout
    words = " ".join(shown.split())
    assert "face size alone" not in shown
    said = "what tells the label without a detector: "
    assert f"first: {said}face size, band power, bit rate: too few videos: 8 real, 30 are needed" in words
    assert f"first: {said}thumbnail: the panel lacks it" in words
    page = checkpoint.parent / "page.html"
    ended = CliRunner().invoke(main, ["report", str(checkpoint.parent / "out"), "--html", str(page)])
    assert ended.exit_code == 0, ended.output
    assert "face size, band power, bit rate: too few videos: 8 real, 30 are needed" in page.read_text()


def test_experiments_have_pairs_first_and_the_best_baseline_last() -> None:
    row = ResultRow(
        name="LPS", data="ffpp", trained_on="ffpp", values={"auc": Value(value=90.0)}, alone="face size 98.70"
    )
    plain = Outcome(experiment="table1", item="Table 1", rows=(row,), metrics=("auc",))
    assert plain.pairs_first() == plain
    paired = replace(plain, rows=(replace(row, values={**row.values, "pair_accuracy": Value(value=61.0)}),))
    heads = next(line for line in markdown(paired.pairs_first()).splitlines() if line.startswith("| model"))
    assert heads.index("pair accuracy") < heads.index("AUC %") < heads.index("best without a detector")
    assert "| 61.00 | 90.00 | face size 98.70 |" in markdown(paired.pairs_first())
    assert "without a detector" not in markdown(replace(plain, rows=(replace(row, alone=""),)))
