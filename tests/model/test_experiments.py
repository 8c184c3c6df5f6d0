"""Experiments: run what is missing, put the paper's figures beside ours, and write what they say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from lps.cli.train import main
from lps.manifests.errors import RefusedError
from lps.model import paper
from lps.model.experiments import EXPERIMENTS, Result, Row, Value, align, markdown, run_experiment
from lps.model.lab import DataSet, Lab, merged

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec

pytestmark = pytest.mark.usefixtures("one_thread")

N_FRAMES = 20


@pytest.fixture
def prepared(make: "Maker", spec: "type[Spec]") -> Callable[[], str]:
    """Return a function that writes a small data set with all three splits, and gives its folder."""

    def write() -> str:
        shards = []
        for split, n in (("train", 3), ("val", 2), ("test", 2)):
            shard = []
            for k in range(n):
                name = f"{split}-r{k}"
                shard.append(spec(video=name, label=0, n_frames=N_FRAMES, split=split))
                shard.append(spec(video=f"{split}-f{k}", label=1, original=name, n_frames=N_FRAMES, split=split))
            shards.append(shard)
        return str(make.data_set(shards))

    return write


@pytest.fixture
def lab(prepared: Callable[[], str], tmp_path: Path) -> Lab:
    return Lab(out=tmp_path / "lab", data=(DataSet("celebdf", prepared()),), preset="small", smoke=True)


def names(result: Result) -> list[str]:
    return [row.name for row in result.rows if not row.cited]


def test_table1_has_ours_and_the_cited_baselines(lab: Lab) -> None:
    result = run_experiment("table1", lab)
    assert names(result) == ["LPS_ri", "LPS", "LPS_ssd"]
    for row in result.rows[:3]:
        auc = row.values["auc"]
        assert auc.value is not None
        assert 0 <= auc.value <= 100
        assert auc.paper == paper.TABLE1[row.name][2]
    cited = {row.name: row.values["auc"] for row in result.rows if row.cited}
    assert set(cited) == {name for name, figures in paper.TABLE1_BASELINES.items() if figures[2] is not None}
    assert all(value.value is None for value in cited.values())


def test_a_second_run_trains_nothing(lab: Lab) -> None:
    run_experiment("table1", lab)
    before = {path: path.stat().st_mtime_ns for path in (lab.out / "runs").rglob("*.pt")}
    again = run_experiment("table1", lab)
    assert before
    assert {path: path.stat().st_mtime_ns for path in (lab.out / "runs").rglob("*.pt")} == before
    assert names(again) == ["LPS_ri", "LPS", "LPS_ssd"]


def test_experiments_share_their_runs(lab: Lab) -> None:
    run_experiment("table1", lab)
    before = set((lab.out / "runs").rglob("best.pt"))
    result = run_experiment("cross", lab)
    assert set((lab.out / "runs").rglob("best.pt")) == before
    assert [(row.name, row.trained_on, row.data) for row in result.rows] == [
        ("LPS", "celebdf", "celebdf"),
        ("LPS_ssd", "celebdf", "celebdf"),
    ]
    assert result.rows[0].values["recall"].paper == 89.57


def test_the_sweep_makes_one_cache_of_feature_maps(lab: Lab) -> None:
    result = run_experiment("sweep", lab)
    assert names(result) == ["lambda 0.1, T 1", "lambda 0.7, T 1", "lambda 1, T 1", "lambda 0.7, T 10"]


def test_ablations_change_one_part_each(lab: Lab) -> None:
    result = run_experiment("ablate", lab)
    assert names(result) == ["LPS", "without encoder", "without aggregator", "without memory bank"]
    config = json.loads((lab.out / "runs/celebdf/no-memory/pretrain/config.json").read_bytes())
    assert config["preset"]["pretrain"]["n_slots"] == 0


def test_alignment_needs_both_preparations(lab: Lab) -> None:
    with pytest.raises(RefusedError, match=r"^data set 'celebdf' has no partner 'celebdf-unaligned'"):
        align(lab)


def test_alignment_compares_both_preparations(lab: Lab, prepared: Callable[[], str]) -> None:
    both = Lab(
        out=lab.out, data=(*lab.data, DataSet("celebdf-unaligned", prepared())), preset="small", smoke=True
    )  # fmt: skip
    result = run_experiment("align", both)
    assert names(result) == ["aligned", "unaligned"]
    assert result.rows[1].values["auc"].paper == 92.11


def test_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="^an experiment needs at least one data set"):
        run_experiment("table1", Lab(out=tmp_path, data=()))


def test_the_command_writes_json_markdown_and_picture(prepared: Callable[[], str], tmp_path: Path) -> None:
    out = tmp_path / "lab"
    asked = ["experiment", "table1", str(out), "--data", f"ours={prepared()}", "--preset", "small", "--smoke"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    assert {path.name for path in (out / "table1").iterdir()} == {"result.json", "result.md", "result.png"}
    assert "The figures mean nothing" in (out / "table1/result.md").read_text()
    assert (out / "table1/result.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((out / "table1/result.json").read_bytes())
    assert record["smoke"] is True
    assert [row["name"] for row in record["rows"]] == ["LPS_ri", "LPS", "LPS_ssd"]  # no cited figure for "ours"


def test_efficiency_times_every_module(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["experiment", "efficiency", str(tmp_path), "--preset", "small", "--smoke"])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "efficiency/result.json").read_bytes())
    assert set(record["modules"]) == set(paper.EFFICIENCY_MS) - {"localizer"}
    assert all(facts["median_s"] > 0 for facts in record["modules"].values())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["nonsense"], "must be NAME=OUT, got 'nonsense'"),
        (["a=x", "a=y"], "two data sets have the same name"),
    ],
)
def test_names_of_data_sets_are_checked(tmp_path: Path, data: list[str], message: str) -> None:
    options = [word for text in data for word in ("--data", text)]
    result = CliRunner().invoke(main, ["experiment", "table1", str(tmp_path), *options])
    assert result.exit_code in (2, 3)
    assert message in result.output


def test_markdown_puts_the_paper_beside_ours() -> None:
    row = Row(
        name="LPS", data="ffpp", trained_on="ffpp", values={"auc": Value(value=88.5, low=80.0, high=95.25, paper=99.93)}
    )
    text = markdown(Result(experiment="table1", item="Table 1", rows=(row,), metrics=("auc",)))
    assert "| LPS | ffpp | ffpp | 88.50 [80.00, 95.25] | 99.93 |" in text


def test_every_experiment_says_which_item_of_the_paper_it_is() -> None:
    assert all(make.__doc__ and ("Table" in make.__doc__ or "Figure" in make.__doc__) for make in EXPERIMENTS.values())


def test_settings_merge_by_name() -> None:
    base: dict[str, Any] = {"net": {"width": 4, "n_blocks": 2}, "seed": 1}
    assert merged(base, {"net": {"width": 8}}) == {"net": {"width": 8, "n_blocks": 2}, "seed": 1}
    assert base["net"]["width"] == 4


def test_published_tables_agree_with_each_other() -> None:
    for k, name in enumerate(paper.DATA_SETS):
        assert paper.TABLE2["LPS", name, name] == paper.TABLE3["aligned", name]
        assert paper.TABLE1["LPS"][k] == paper.TABLE2["LPS", name, name][0]
        assert paper.TABLE1["LPS_ssd"][k] == paper.TABLE2["LPS_ssd", name, name][0]
    assert paper.TABLE4["LPS"] == paper.TABLE2["LPS", "celebdf", "celebdf"]
