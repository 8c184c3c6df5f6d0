"""The commands of `lps-train` that train: usage, exit codes, and what they show."""

import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from lps.cli import common
from lps.cli.train.main import main, summary
from lps.cli.train.progress import TrainProgress
from lps.manifests.records import Note
from lps.model.training.events import RunBegun, StepDone, Validated, Validating
from lps.model.training.presets import PAPER, preset_for

ROOT = Path(__file__).parents[3]


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.mark.parametrize("command", ["encoder", "pretrain", "classify", "distill"])
def test_stages_say_how_they_are_used(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "--data [NAME=]OUT" in result.output
    assert ("--init" in result.output) == (command != "encoder")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["pretrain"], "Missing argument 'RUN'"),
        (["pretrain", "run", "--data", "x"], "Missing option '--init'"),
        (["pretrain", "run", "--init", "random"], "name either a data set (--data) or shards (--shards)"),
        (["pretrain", "run", "--init", "random", "--data", "x", "--shards", "y"], "name either a data set"),
        (["pretrain", "run", "--init", "random", "--data", "x", "--val-shards", "y"], "--val-shards does not go with"),
        (["pretrain", "run", "--init", "random", "--shards", "x", "--split-set", "y"], "--split-set does not go with"),
        (["pretrain", "run", "--init", "random", "--data", "x", "--preset", "best"], "'best' is not one of"),
        (["pretrain", "run", "--init", "random", "--data", "x", "--config", "absent.toml"], "does not exist"),
        (["pretrain", "run", "--init", "random", "--data", "x", "--seed", -1], "-1 is not in the range"),
        (["classify", "run", "--init", "random", "--data", "x", "--kernel", "rbf"], "--kernel is for --head svm"),
        (
            ["pretrain", "run", "--init", "random", "--data", "x", "--data", "b=y"],
            "several data sets need names: NAME=x",
        ),
        (["pretrain", "run", "--init", "random", "--data", "a=x", "--data", "a=y"], "two data sets are called 'a'"),
        (["pretrain", "run", "--init", "random", "--data", "a=x", "--shards", "y"], "name either a data set"),
        (["check", "run", "--data", "a=x"], "check takes one data set (--data), without a name"),
        (["teach"], "No such command 'teach'"),
    ],
)
def test_wrong_usage_is_exit_code_2(args: list[object], says: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["pretrain", "run", "--init", "random", "--data", "nowhere"], 4, "nowhere"),
        (["pretrain", "run", "--init", "random", "--shards", "nowhere/{0..1}.tar"], 4, "nowhere/0.tar"),
        (["pretrain", "run", "--init", "nothing.pt", "--data", "nowhere"], 4, "nothing.pt"),
        (["distill", "run", "--init", "random", "--data", "nowhere"], 4, "nowhere"),
    ],
)
def test_errors_are_one_line(
    args: list[object], code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = run(*args)
    assert result.exit_code == code
    assert result.stderr.startswith("main: ") or result.stderr.startswith("lps-train: ")
    assert len(result.stderr.splitlines()) == 1
    assert says in result.stderr


@pytest.mark.parametrize(
    ("mix", "data", "says"),
    [
        ("fff = 2.0", ["ff=x"], "unknown name 'mix.fff'; did you mean 'ff'?"),
        ("ff = 0.0", ["ff=x"], "the weight of ff must be above 0 and at most 1000, got 0.0"),
        ('ff = "2"', ["ff=x"], "'mix.ff' must be a number, got '2'"),
        ("ff = 2.0", ["x"], "[mix] has weights of data sets with a name: give them as --data NAME=OUT"),
    ],
)
def test_wrong_weights_are_one_line(mix: str, data: list[str], says: str, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(f"[mix]\n{mix}\n")
    given = [word for each in data for word in ("--data", each)]
    result = run("pretrain", tmp_path / "run", "--init", "random", *given, "--config", config)
    assert (result.exit_code, len(result.stderr.splitlines())) == (4, 1)
    assert says in result.stderr


def test_interrupted_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lps.model.training.train.train", interrupted)
    result = run("pretrain", "run", "--init", "random", "--data", "x")
    assert result.exit_code == 130
    assert result.stderr.split(": ", 1)[1] == "interrupted; run the same command again\n"


def test_documented_settings_are_those_of_the_paper_preset() -> None:
    text = (ROOT / "docs" / "train.md").read_text()
    block = text.split("<!-- settings -->")[1].split("<!-- end of settings -->")[0]
    settings = tomllib.loads(block.strip().removeprefix("```toml").removesuffix("```"))
    assert preset_for("paper", "classify", settings) == PAPER
    assert {name: set(value) if isinstance(value, dict) else None for name, value in settings.items()} == {
        name: set(value) if isinstance(value, dict) else None for name, value in PAPER.record().items()
    }


# ---- what it shows ---------------------------------------------------------------------------------------------------

BEGUN = RunBegun(
    stage="classify", step=10, n_steps=1000, device="cpu", n_clips=64, n_parameters=14_847_554, resumed=True
)
METRICS = {"epoch": 2, "loss": 0.61234, "auc": 0.875, "lr": 0.001, "n_clips": 9}
VALIDATED = Validated(step=12, epoch=2, best=True, metrics=METRICS)


def step(number: int, loss: float | None = 0.5) -> StepDone:
    return StepDone(step=number, epoch=0, values={"loss": loss, "lr": 1e-3})


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Set the clock of the progress: the last of the list."""
    now = [0.0]
    monkeypatch.setattr(common, "monotonic", lambda: now[-1])
    return now


def test_plain_lines_come_now_and_then(seconds: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with TrainProgress() as progress:
        progress.on_event(Note("no validation"))
        progress.on_event(BEGUN)
        for number, at in ((11, 1.0), (12, 20.0), (13, 21.0), (1000, 22.0)):
            seconds.append(at)
            progress.on_event(step(number))
        progress.on_event(Validating(step=12, epoch=2))
        progress.on_event(VALIDATED)
    assert capsys.readouterr().err.splitlines() == [
        "note: no validation",
        "classify: 64 clips, 14,847,554 trainable parameters, 1000 steps on cpu, resumed at step 10",
        "classify: 12/1000 loss 0.5000, lr 1.0e-03, 0.10 steps/s, 2.7 h left",
        "classify: 1000/1000 loss 0.5000, lr 1.0e-03, 45.00 steps/s, 0 s left",
        "epoch 2, step 12: loss 0.6123, auc 0.875 (best)",
    ]


def test_end_of_an_epoch_without_validation(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainProgress() as progress:
        progress.on_event(replace(VALIDATED, metrics={}))
    assert capsys.readouterr().err == "epoch 2, step 12\n"


def test_terminals_get_a_bar(seconds: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(force_terminal=True, width=100, file=sys.stderr, record=True)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    with TrainProgress() as progress:
        progress.on_event(BEGUN)
        seconds.append(2.0)
        progress.on_event(step(500, loss=0.25))
        progress.on_event(Validating(step=12, epoch=2))
        progress.on_event(VALIDATED)
        progress.on_event(step(1000, loss=None))
    shown = console.export_text()
    assert "epoch 2, step 12: loss 0.6123, auc 0.875 (best)" in shown
    assert "1000/1000" in shown
    assert "loss 0.2500" in shown


def test_other_processes_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainProgress(quiet=True) as progress:
        progress.on_event(BEGUN)
        progress.on_event(step(11))
        progress.on_event(Note("x"))
    assert capsys.readouterr() == ("", "")


def test_summary_names_what_a_reader_must_know() -> None:
    result = {"stage": "classify", "epochs": 3, "steps": 30, "last": {"loss": 0.5, "auc": 0.75, "accuracy": 1.0},
              "n_bad_samples": 2, "data": {"leaky": True}}  # fmt: skip
    assert summary(result) == (
        "classify: 3 epochs, 30 steps; validation: loss 0.5, auc 0.75, 2 bad samples, on a LEAKY split set"
    )
    plain = {**result, "n_bad_samples": 0, "data": {}, "last": {}}
    assert summary(plain) == "classify: 3 epochs, 30 steps; validation: none"
