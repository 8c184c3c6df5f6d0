"""Experiments: run what is missing, put the paper's figures beside ours, and write what they say."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from lps.cli.train.main import main
from lps.manifests.errors import RefusedError
from lps.manifests.names import EXPERIMENT_NAMES
from lps.model.networks.losses import DistillParams, selective_distillation
from lps.model.paper import published as paper
from lps.model.paper.distill_metrics import distilled_metrics, over_videos
from lps.model.paper.results import Result, ResultRow, Value, markdown
from lps.model.paper.tables import EXPERIMENTS, align, run_experiment
from lps.model.paper.timings import MODULES
from lps.model.paper.zoo import SMOKE, DataSet, ModelZoo, merged
from tests.model.evaluation.test_baselines import measured

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec

pytestmark = pytest.mark.usefixtures("one_thread")

N_FRAMES = 20
OF_TABLE1 = ["LPS_ri", "LPS", "LPS_ssd", "MesoNet-4", "MesoInception-4"]
"""What is run, not cited."""


@pytest.fixture
def prepared(make: "Maker", spec: "type[Spec]") -> Callable[..., str]:
    """Return a function that writes a small data set with all three splits, and gives its folder.

    The names of its videos begin with what it is given.
    """

    def write(content: str = "") -> str:
        shards = []
        for split, n in (("train", 3), ("val", 2), ("test", 2)):
            shard = []
            for k in range(n):
                name, fake = f"{content}{split}-r{k}", f"{content}{split}-f{k}"
                shard.append(spec(video=name, label=0, n_frames=N_FRAMES, split=split))
                shard.append(spec(video=fake, label=1, original=name, n_frames=N_FRAMES, split=split))
            shards.append(shard)
        return str(make.data_set(shards))

    return write


@pytest.fixture
def zoo(prepared: Callable[..., str], tmp_path: Path) -> ModelZoo:
    return ModelZoo(out=tmp_path / "zoo", data=(DataSet("celebdf", prepared()),), preset="small", smoke=True)


def names(result: Result) -> list[str]:
    return [row.name for row in result.rows if not row.cited]


def test_table1_has_ours_and_the_cited_baselines(zoo: ModelZoo) -> None:
    result = run_experiment("table1", zoo)
    assert names(result) == OF_TABLE1
    assert all(0 <= (row.values["auc"].value or 0) <= 100 for row in result.rows[:5])
    for row in result.rows[:3]:
        auc = row.values["auc"]
        assert auc.value is not None
        assert 0 <= auc.value <= 100
        assert auc.paper == paper.TABLE1[row.name][2]
    cited = {row.name: row.values["auc"] for row in result.rows if row.cited}
    assert not any(row.values["auc"].paper for row in result.rows[3:5]), (
        "MesoNet is run; the paper cites another run of it"
    )
    assert set(cited) == {name for name, figures in paper.TABLE1_BASELINES.items() if figures[2] is not None}
    assert all(value.value is None for value in cited.values())
    assert any("cited from the paper's Table 1" in note for note in result.notes)


def test_figures_that_mean_little_are_said_to(zoo: ModelZoo) -> None:
    """Two pairs have no interval, nothing is cited of data that the paper has not, and a lacking baseline is told."""
    (data,) = zoo.data
    other = replace(zoo, data=(DataSet("mine", data.location),))
    result = run_experiment("table1", other)
    for row in result.rows:
        assert row.values["pair_accuracy"].value is not None
        assert row.values["pair_accuracy"].low is None
    assert not any("cited" in note for note in result.notes)
    text = (zoo.out / "table1/result.md").read_text()
    said = "mine: what tells the label without a detector: not measured; `lps-audit shortcuts` does that for split set"
    assert text.count(said) == 1
    assert said in json.loads((zoo.out / "table1/result.json").read_bytes())["notes"][-1]

    measured(Path(data.location))
    assert {row.alone for row in run_experiment("table1", other).rows} == {"face size 98.70 [95.00, 100.00]"}
    text = (zoo.out / "table1/result.md").read_text()
    assert "not measured" not in text
    assert "mine: what tells the label without a detector: band power: too few videos" in text


def test_a_second_run_trains_nothing(zoo: ModelZoo) -> None:
    run_experiment("table1", zoo)
    before = {path: path.stat().st_mtime_ns for path in (zoo.out / "runs").rglob("*.pt")}
    again = run_experiment("table1", zoo)
    assert before
    assert {path: path.stat().st_mtime_ns for path in (zoo.out / "runs").rglob("*.pt")} == before
    assert names(again) == OF_TABLE1


def test_experiments_share_their_runs(zoo: ModelZoo) -> None:
    run_experiment("table1", zoo)
    before = set(zoo.out.rglob("best.pt")) | set(zoo.out.rglob("metrics.json"))
    result = run_experiment("cross", zoo)
    assert set(zoo.out.rglob("best.pt")) | set(zoo.out.rglob("metrics.json")) == before
    assert [(row.name, row.trained_on, row.data) for row in result.rows] == [
        ("LPS", "celebdf", "celebdf"),
        ("LPS_ssd", "celebdf", "celebdf"),
    ]
    assert result.rows[0].values["recall"].paper == 89.57


def test_what_data_sets_share_is_refused_before_anything_is_trained(
    make: "Maker", spec: "type[Spec]", tmp_path: Path
) -> None:
    def data(name: str, **content: str) -> str:
        specs = [
            [spec(video=f"{name}{split}{k}", label=k, n_frames=N_FRAMES, split=split, content=content.get(split)
             if not k else None) for k in range(2)]
            for split in ("train", "val", "test")
        ]  # fmt: skip
        return str(make.data_set(specs))

    a, in_test, in_val = data("a", train="same"), data("b", test="same"), data("c", val="same")
    asked = ["experiment", "cross", str(tmp_path / "zoo"), "--data", f"a={a}", "--preset", "small", "--smoke"]
    for more, held in (
        (["--data", f"b={in_test}"], "b, in its split 'test' (such as "),
        (["--data", f"c={in_val}", "--mix", "both"], "c, in its split 'val' (such as "),
    ):
        ended = CliRunner().invoke(main, [*asked, *more])
        assert ended.exit_code == 3, ended.output
        assert f"1 source file is learnt from in a and held out in {held}" in ended.output
        assert "Nothing was trained" in ended.output
        assert not (tmp_path / "zoo").exists()
    ModelZoo(out=tmp_path, data=(DataSet("a", a), DataSet("c", in_val))).require_apart()
    ModelZoo(out=tmp_path, data=(DataSet("a", a), DataSet("b", in_test)), allow_leaky=True).require_apart()


def test_mixes_are_rows_besides_each_data_set_alone(prepared: Callable[..., str], tmp_path: Path) -> None:
    out, settings = tmp_path / "zoo", tmp_path / "mix.toml"
    settings.write_text("[mix]\nb = 2.0\n")
    given = ["--data", f"a={prepared('a')}", "--data", f"b={prepared('b')}", "--data", f"c={prepared('c')}"]
    asked = ["experiment", "cross", str(out), *given, "--preset", "small", "--smoke", "--config", str(settings)]
    mixed = [*asked, "--mix", "every", "--mix", "two=b,a"]

    def trained() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("best.pt")}

    ended = CliRunner().invoke(main, mixed)
    assert ended.exit_code == 0, ended.output
    record = json.loads((out / "cross/result.json").read_bytes())
    trainings = ["a", "b", "c", "every", "two"]
    assert [(row["name"], row["trained_on"], row["data"]) for row in record["rows"]] == [
        *product(("LPS", "LPS_ssd"), trainings, ("a", "b", "c"))
    ]
    assert all(row["values"]["auc"]["value"] is not None for row in record["rows"])
    assert record["facts"] == {"mixes": {"every": {"a": 1.0, "b": 2.0, "c": 1.0}, "two": {"b": 2.0, "a": 1.0}}}
    config = json.loads((out / "runs/two/lps/classify/config.json").read_bytes())
    assert [(each["name"], each["weight"]) for each in config["data"]["sets"]] == [("a", 1.0), ("b", 2.0)]
    assert "every is trained on a, b, c together." in (out / "cross/result.md").read_text()
    before = trained()
    assert len(before) == 5 * 3, "pretrained, detector and distilled of each"
    ended = CliRunner().invoke(main, mixed)
    assert ended.exit_code == 0, ended.output
    assert trained() == before
    assert json.loads((out / "cross/result.json").read_bytes()) == record
    maps = ["figure", "featmap", str(tmp_path / "figs"), "--data", given[1].partition("=")[2], "--clips", "1"]
    ended = CliRunner().invoke(main, [*maps, "--checkpoint", str(out / "runs/every/lps/classify/checkpoints/best.pt")])
    assert ended.exit_code == 0, ended.output
    assert (tmp_path / "figs/featmap.png").read_bytes().startswith(b"\x89PNG")
    ended = CliRunner().invoke(main, [*asked, "--mix", "two=a,c"])
    assert ended.exit_code == 3
    assert "with the data sets a, b and is given the data sets a, c" in ended.output


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["cross", "--mix", "m=a,x"], "no --data is called 'x', got 'm=a,x'"),
        (["cross", "--mix", "m=a,a"], "a data set comes twice, got 'm=a,a'"),
        (["cross", "--mix", "a"], "the name 'a' of a mix is taken"),
        (["cross", "--mix", "m=a"], "the mix 'm' has fewer than two data sets"),
        (["cross", "--mix", "../m"], "'../m' cannot name a mix"),
        (["table1", "--mix", "m"], "--mix is for cross"),
    ],
)
def test_mixes_are_checked(tmp_path: Path, asked: list[str], message: str) -> None:
    result = CliRunner().invoke(
        main, ["experiment", asked[0], str(tmp_path), "--data", "a=x", "--data", "b=y", *asked[1:]]
    )
    assert result.exit_code in (2, 3)
    assert message in result.output


def test_weights_of_no_mix_are_refused(tmp_path: Path) -> None:
    settings = tmp_path / "mix.toml"
    settings.write_text("[mix]\na = 2.0\n")
    asked = ["experiment", "cross", str(tmp_path), "--data", "a=x", "--config", str(settings)]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 4
    assert "mix.toml: [mix] has weights of data sets that are trained on together: give a --mix" in result.output


def test_the_sweep_makes_one_cache_of_feature_maps(zoo: ModelZoo) -> None:
    told: list[str] = []
    result = run_experiment(
        "sweep", replace(zoo, on_event=lambda event: told.append(str(getattr(event, "text", None))))
    )
    assert names(result) == ["lambda 0.1, T 1", "lambda 0.7, T 1", "lambda 1, T 1", "lambda 0.7, T 10"]
    folders = {path.parent.parent.relative_to(zoo.out).as_posix() for path in zoo.out.rglob("maps.json")}
    assert folders == {"runs/celebdf/lps/maps"}
    assert told.count("feature maps of 6 clips were made") == told.count("feature maps of 4 clips were made") == 1


def test_the_sweep_gives_the_losses_that_validation_gave(zoo: ModelZoo) -> None:
    for row in run_experiment("sweep", zoo).rows:
        run = re.sub(r"lambda (.*), T (.*)", r"lambda-\1-T-\2", row.name)
        last = json.loads((zoo.out / f"runs/celebdf/lps/sweep/{run}/result.json").read_bytes())["last"]
        assert row.values["loss_val"].value == pytest.approx(last["loss"], abs=2e-6)
        assert row.values["cross_entropy_val"].value == pytest.approx(last["cross_entropy"], abs=2e-6)
        assert row.values["auc_val"].value == pytest.approx(100 * last["auc"])
        assert row.values["loss_val"].paper in {*paper.TABLE5_LAMBDA.values(), *paper.TABLE5_T.values()}
    assert row.values["loss_val"].paper == paper.TABLE5_T[10]


@pytest.mark.parametrize(("normaliser", "soften"), [*product(("batch", "selected"), ("teacher", "both"))])
def test_losses_of_the_sweep_are_those_of_training(
    normaliser: Literal["batch", "selected"], soften: Literal["teacher", "both"]
) -> None:
    student, teacher = torch.randn((2, 9, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1])
    params = DistillParams(weight=0.3, temperature=2.0, t_squared=True, normaliser=normaliser, soften=soften)
    video = np.array([0, 1, 1, 0, 2, 3, 3, 1, 2])
    found = distilled_metrics(student, teacher, labels, video, np.zeros_like(video), params)
    assert found["loss"].value == pytest.approx(float(selective_distillation(student, teacher, labels, params)))


def test_videos_are_drawn_whole() -> None:
    sums = np.array([[30.0, 3.0], [1.0, 1.0]])  # three clips of 10, and one of 1
    found = over_videos(lambda total: total[..., 0] / total[..., 1], sums)
    assert (found.value, found.low, found.high) == (31 / 4, 1.0, 10.0)


def test_ablations_change_one_part_each(zoo: ModelZoo) -> None:
    result = run_experiment("ablate", zoo)
    assert names(result) == ["LPS", "without encoder", "without aggregator", "without memory bank"]
    config = json.loads((zoo.out / "runs/celebdf/no-memory/pretrain/config.json").read_bytes())
    assert config["preset"]["pretrain"]["n_slots"] == 0


def test_alignment_needs_both_preparations(zoo: ModelZoo) -> None:
    with pytest.raises(RefusedError, match=r"^data set 'celebdf' has no partner 'celebdf-unaligned'"):
        align(zoo)


def test_alignment_compares_both_preparations(zoo: ModelZoo, prepared: Callable[..., str]) -> None:
    both = ModelZoo(
        out=zoo.out, data=(*zoo.data, DataSet("celebdf-unaligned", prepared())), preset="small", smoke=True
    )  # fmt: skip
    result = run_experiment("align", both)
    assert names(result) == ["aligned", "unaligned"]
    assert result.rows[1].values["auc"].paper == 92.11


def test_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="^an experiment needs at least one data set"):
        run_experiment("table1", ModelZoo(out=tmp_path, data=()))


def test_torchrun_is_refused(zoo: ModelZoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RefusedError, match="^an experiment is run by one process"):
        run_experiment("table1", zoo)


def test_runs_that_were_trained_before_are_taken(zoo: ModelZoo, tmp_path: Path) -> None:
    run, settings = zoo.out / "runs/celebdf/lps/pretrain", tmp_path / "smoke.toml"
    tables = {name: value for name, value in SMOKE.items() if isinstance(value, dict)}
    lines = [f"image_px = {SMOKE['image_px']}"]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    settings.write_text("\n".join(lines))
    asked = ["pretrain", str(run), "--data", zoo.data[0].location, "--init", "random", "--preset", "small"]
    done = CliRunner().invoke(main, [*asked, "--config", str(settings)])
    assert done.exit_code == 0, done.output
    before = (run / "checkpoints/best.pt").stat().st_mtime_ns
    run_experiment("table1", zoo)
    assert (run / "checkpoints/best.pt").stat().st_mtime_ns == before


def test_the_record_names_settings_data_and_seed(zoo: ModelZoo) -> None:
    def record(zoo: ModelZoo) -> dict[str, Any]:
        run_experiment("table1", zoo)
        return dict(json.loads((zoo.out / "table1/result.json").read_bytes()))

    first = record(zoo)
    assert record(zoo) == first
    facts = first["data"]["celebdf"]
    assert first["seed"] == 0
    assert facts["leaky"] is False
    assert set(facts["samples_sha256"]) == {"train", "val", "test"}
    assert all(len(digest) == 64 for digest in (first["config_sha256"], facts["sha256"], facts["index_sha256"]))
    assert all(len(row["checkpoint_sha256"]) == 64 for row in first["rows"] if not row["cited"])
    other = replace(zoo, settings={"train": {"lr": 0.5}})
    assert other.config_sha256() != first["config_sha256"]
    assert replace(zoo, settings={"run": {"workers": 7}}).config_sha256() == first["config_sha256"]


def test_the_command_writes_json_markdown_and_picture(prepared: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "zoo"
    asked = ["experiment", "table1", str(out), "--data", f"ours={prepared()}", "--preset", "small", "--smoke"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    assert {path.name for path in (out / "table1").iterdir()} == {"result.json", "result.md", "result.png"}
    assert "The metrics mean nothing" in (out / "table1/result.md").read_text()
    assert (out / "table1/result.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((out / "table1/result.json").read_bytes())
    assert record["smoke"] is True
    assert [row["name"] for row in record["rows"]] == OF_TABLE1  # no cited figure for "ours"


def test_efficiency_times_every_module_once(tmp_path: Path) -> None:
    asked = ["experiment", "efficiency", str(tmp_path), "--preset", "small", "--smoke"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "efficiency"
    record = json.loads((folder / "result.json").read_bytes())
    rows = {row["name"]: row for row in record["rows"]}
    assert set(rows) == set(paper.EFFICIENCY_MS)
    for name, row in rows.items():
        assert row["values"]["ms"]["paper"] == paper.EFFICIENCY_MS[name]
        assert row["cited"] == (name == "localizer")
    for name in MODULES:
        ms = rows[name]["values"]["ms"]
        assert 0 < ms["low"] <= ms["value"] <= ms["high"]
        assert rows[name]["values"]["ms_frame"]["value"] == pytest.approx(ms["value"] / 180)
    assert (folder / "result.png").read_bytes().startswith(b"\x89PNG")

    kept = json.loads((folder / "timings.json").read_bytes())
    kept["timings"] = kept["timings"][:2]
    (folder / "timings.json").write_text(json.dumps(kept))
    assert CliRunner().invoke(main, asked).exit_code == 0
    again = json.loads((folder / "timings.json").read_bytes())["timings"]
    assert [timing["module"] for timing in again] == list(MODULES)
    assert again[:2] == kept["timings"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["nonsense"], "must be NAME=OUT, got 'nonsense'"),
        (["a=x", "a=y"], "two data sets have the same name"),
        (["../a=x"], "'../a' cannot name a data set"),
    ],
)
def test_names_of_data_sets_are_checked(tmp_path: Path, data: list[str], message: str) -> None:
    options = [word for text in data for word in ("--data", text)]
    result = CliRunner().invoke(main, ["experiment", "table1", str(tmp_path), *options])
    assert result.exit_code in (2, 3)
    assert message in result.output


def test_markdown_puts_the_paper_beside_ours() -> None:
    row = ResultRow(
        name="LPS", data="ffpp", trained_on="ffpp",
        values={"auc": Value(value=88.5, low=80.0, high=95.25, paper=99.93), "recall": Value(value=50.0)},
    )  # fmt: skip
    text = markdown(Result(experiment="table1", item="Table 1", rows=(row,), metrics=("auc", "recall")))
    assert "| model | trained on | evaluated on | AUC % [95 %] | paper | recall % |" in text
    assert "| LPS | ffpp | ffpp | 88.50 [80.00, 95.25] | 99.93 | 50.00 |" in text


def test_every_experiment_says_which_item_of_the_paper_it_is() -> None:
    assert tuple(EXPERIMENTS) == EXPERIMENT_NAMES
    kinds = "Table|Figure|Efficiency|Question of the field"
    assert all(make.__doc__ and re.match(kinds, make.__doc__) for make in EXPERIMENTS.values())


def test_a_leaky_split_set_is_named_in_the_result(zoo: ModelZoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelZoo, "identity", lambda self, data: {"leaky": True})
    monkeypatch.setitem(EXPERIMENTS, "table1", lambda zoo: Result(experiment="", item="", rows=(), metrics=()))
    run_experiment("table1", zoo)
    assert "split set of celebdf is stamped leaky" in (zoo.out / "table1/result.md").read_text()


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


# ---- the paper's own figures -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def printed(shared: Callable[[str], Path]) -> list[list[str]]:
    """Return the lines of the paper, cut at tabs and without its marks."""
    text = re.sub(r"</?\w+>", "", shared("paper.txt").read_text())
    return [line.split("\t") for line in text.splitlines()]


def numbers(line: list[str]) -> list[float | None]:
    """Return the cells after the first as numbers; a dash is None, gains in brackets are left out."""
    cells = [re.sub(r" ?\(.*\)", "", cell) for cell in line[1:]]
    return [None if cell == "\u2014" else float(cell) for cell in cells if re.fullmatch(r"\u2014|[\d.]+", cell)]


def one(printed: list[list[str]], pattern: str) -> list[str]:
    (found,) = [line for line in printed if re.fullmatch(pattern, line[0]) and len(line) > 2]
    return found


@pytest.mark.parametrize("name", [*paper.TABLE1_BASELINES, *paper.TABLE1])
def test_table_1_is_cited_as_printed(printed: list[list[str]], name: str) -> None:
    stem = re.escape(name.split(" (")[0]).replace("FD2Net", "FD 2 Net").replace("_", "")
    line = one(printed, rf"{stem} \[\d+\]" if name in paper.TABLE1_BASELINES else f"Our {stem}")
    assert numbers(line)[:3] == list({**paper.TABLE1_BASELINES, **paper.TABLE1}[name])
    assert line[-1][-5:] == (f" {name[-5:-1]}" if name in paper.TABLE1_BASELINES else "\u2014")


def test_the_other_tables_are_cited_as_printed(printed: list[list[str]]) -> None:
    rows = [line for line in printed if len(line) == 5 and all("/" in cell for cell in line[2:])]
    pairs = [[[float(x) for x in cell.split("/")] for cell in row[2:]] for row in rows]
    found = {
        (model, trained, evaluated): tuple(pair[k] for pair in pairs[3 * i + j])
        for k, model in enumerate(("LPS", "LPS_ssd"))
        for i, trained in enumerate(paper.DATA_SETS)
        for j, evaluated in enumerate(paper.DATA_SETS)
    }
    assert found == paper.TABLE2
    for kind, name in (("aligned", "with"), ("unaligned", "without")):
        figures = numbers(one(printed, name))
        assert figures == [x for data in paper.DATA_SETS for x in paper.TABLE3[kind, data]]
    for name, values in paper.TABLE4.items():
        assert tuple(numbers(one(printed, name.replace("_", "")))) == values
    losses = [line[2:] for line in printed if len(line) > 1 and line[1] == "Loss"]
    assert [[float(x) for x in line] for line in losses] == [
        [*paper.TABLE5_LAMBDA.values()],
        [*paper.TABLE5_T.values()],
    ]


def test_efficiency_is_cited_as_printed(printed: list[list[str]]) -> None:
    text = " ".join(line[0] for line in printed)
    ms = paper.EFFICIENCY_MS
    first = [ms[name] for name in ("localizer", "encoder", "aggregator", "classifier")]
    assert f"{first[0]}, {first[1]}, {first[2]}, and {first[3]} ms for the localizer, encoder, aggregator" in text
    assert f"{ms['predictor']} ms in inferring a video and {ms['memory update']} ms in updating the memory bank" in text
