"""A stage trained on several sets of plain shards: `--shards NAME=PATTERN` again and again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from lps.cli.train.data_sets import named
from lps.model.report.runs import read_folders
from lps.model.report.settings import identities, setting_rows
from lps.model.training.checkpoint import read_checkpoint
from lps.model.training.run_log import read_log

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Runner, Spec, WebServer

    Settings = Callable[..., Path]
    Family = Callable[..., list[Spec]]


@pytest.fixture(scope="module")
def patterns(tmp_path_factory: pytest.TempPathFactory, maker: "type[Maker]", family: "Family") -> dict[str, str]:
    """Return the shards of two sets, of 7 and 4 clips to train on, and of 6 to validate the first with."""
    make = maker(tmp_path_factory.mktemp("shards"))
    return {
        "one": make.shards([family("a", 7)]),
        "two": make.shards([family("b", 4)]),
        "val": make.shards([family("v", 6)]),
    }


def options(patterns: dict[str, str], config: Path) -> list[object]:
    named = [word for name in ("one", "two") for word in ("--shards", f"{name}={patterns[name]}")]
    return [*named, "--val-shards", f"one={patterns['val']}", "--init", "random", "--config", config]


@pytest.fixture(scope="module")
def weighted(settings: "Settings") -> Path:
    return settings('augment = "light"', mix="two = 2.0")


@pytest.fixture(scope="module")
def trained(
    patterns: dict[str, str], lps_train: "Runner", weighted: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a finished run of `classify` on both."""
    out = tmp_path_factory.mktemp("trained") / "run"
    ended = lps_train("classify", out, *options(patterns, weighted))
    assert ended.code == 0, ended.stderr
    said = ended.stderr[0]
    assert "note: two has no shards to validate with: it counts in no metric" in said
    assert "note: shards without manifests: what one set learns from and another holds out is not looked for" in said
    return out


def test_files_of_a_run_name_all_sets_by_digest(trained: Path, patterns: dict[str, str]) -> None:
    config = json.loads((trained / "config.json").read_bytes())
    assert config["data"]["sets"] == [
        {"name": "one", "shards": patterns["one"], "val_shards": patterns["val"], "weight": 1.0},
        {"name": "two", "shards": patterns["two"], "val_shards": None, "weight": 2.0},
    ]
    checkpoint = read_checkpoint(trained / "checkpoints/best.pt")
    assert checkpoint.data["leaky"] is None, "shards carry no stamp"
    one, two = checkpoint.data["sets"]
    assert (one["shards"], two["shards"], two["weight"]) == (patterns["one"], patterns["two"], 2.0)
    assert len({one["samples_sha256"], two["samples_sha256"], checkpoint.data["samples_sha256"]}) == 3
    assert config["data_sha256"]["sets"] == {
        "one": {name: one[name] for name in ("samples_sha256", "val_samples_sha256")},
        "two": {"samples_sha256": two["samples_sha256"]},
    }
    (run,), _ = read_folders([trained])
    rows = {row.name: row.cells[0] for row in setting_rows([run])}
    assert rows["data.two.shards"] == f"…/{'/'.join(patterns['two'].split('/')[-2:])}"
    assert not any("data_sha256" in name for name in rows)
    found = {row.name: row.cells[0] for row in identities([run], [])[1]}
    assert found["two: SHA-256 of samples"] == two["samples_sha256"]


def test_an_epoch_reads_each_set_as_its_weight_says_and_validation_is_by_set(trained: Path) -> None:
    log = read_log(trained / "log.jsonl")
    assert sum(record["kind"] == "step" for record in log) == 2 * 4, "7 clips, and 2 times 4, in batches of 4"
    last = [record for record in log if record["kind"] == "validation"][-1]
    assert last["n_clips/one"] == last["n_clips"] == 6
    assert last["auc"] == last["auc/one"]
    assert "auc/two" not in last


def test_a_killed_run_resumes_to_the_same_weights_also_over_http(
    trained: Path, patterns: dict[str, str], lps_train: "Runner", weighted: Path, web: "WebServer"
) -> None:
    folder = Path(patterns["two"]).parent
    shutil.copytree(folder, web.root / folder.name)
    remote = {**patterns, "two": patterns["two"].replace(str(folder.parent), web.url)}
    out = web.root / "run"
    assert lps_train("classify", out, *options(remote, weighted), kill=("outside", "StepDone", 3)).code == -9
    ended = lps_train("classify", out, *options(remote, weighted))
    assert ended.code == 0, ended.stderr
    assert "resumed at step" in ended.stderr[0]
    expected = read_checkpoint(trained / "checkpoints/best.pt").network
    found = read_checkpoint(out / "checkpoints/best.pt").network
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_two_processes_go_on_from_one_and_other_shards_are_refused_by_name(
    patterns: dict[str, str], lps_train: "Runner", weighted: Path, make: "Maker", family: "Family", tmp_path: Path
) -> None:
    command = ["classify", tmp_path / "run"]
    given = options(patterns, weighted)
    assert lps_train(*command, *given, kill=("self", "CheckpointWritten", 1)).code == -9
    other = {**patterns, "two": make.shards([family("c", 4)])}
    refused = lps_train(*command, *options(other, weighted))
    assert refused.code == 3
    assert "the samples of two are not those that this run began with" in refused.last_line
    refused = lps_train(*command, *given[2:])
    assert (refused.code, "--val-shards: no --shards is called 'one'" in refused.last_line) == (2, True)
    ended = lps_train(*command, *given, ranks=2)
    assert ended.codes == [0, 0], ended.stderr
    steps = [record["step"] for record in read_log(tmp_path / "run/log.jsonl") if record["kind"] == "step"]
    assert steps == list(range(1, 9))


def test_what_does_not_fit_together_is_refused(
    patterns: dict[str, str], lps_train: "Runner", settings: "Settings", tmp_path: Path
) -> None:
    one, two, val = patterns["one"], patterns["two"], patterns["val"]
    mix = ("--config", settings(mix="two = 2.0"))
    pairs = ("--config", settings('sampling = "pairs"'))
    named = ["--shards", f"one={one}", "--shards", f"two={two}"]
    cases: list[tuple[list[object], int, str]] = [
        (["--shards", one, "--shards", two], 2, f"several data sets need names: NAME={one}"),
        (["--shards", f"one={one}", "--shards", f"one={two}"], 2, "two sets of shards are called 'one'"),
        (["--shards", "one="], 2, "must be PATTERN or NAME=PATTERN, got 'one='"),
        (["--shards", one, "--val-shards", f"one={val}"], 2, "one set of shards without a name takes one PATTERN"),
        ([*named, "--val-shards", val], 2, f"a mix needs names: NAME={val}"),
        ([*named, "--split-set", "group"], 2, "--split-set does not go with --shards"),
        (["--shards", one, *mix], 4, "give them as --shards NAME=PATTERN"),
        (["--shards", f"one={one}", *mix], 4, "unknown name 'mix.two'"),
        ([*named, *pairs], 3, "shards alone do not say which real video a fake was made from"),
        (["--shards", f"one={one}", "--shards", f"two={one}"], 3, "one and two are one data set (both have the shard"),
    ]
    for k, (args, code, says) in enumerate(cases):
        refused = lps_train("classify", tmp_path / f"run-{k}", "--init", "random", *args)
        assert (refused.code, says in refused.last_line) == (code, True), refused.last_line


def test_a_pattern_with_an_equals_sign_that_exists_has_no_name(
    patterns: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(Path(patterns["one"]).parent, tmp_path / "width=4")
    monkeypatch.chdir(tmp_path)
    name = Path(patterns["one"]).name
    assert named([f"width=4/{name}"], "--shards") == ([""], [f"width=4/{name}"])
    assert named([f"wide=4/{name}"], "--shards") == (["wide"], [f"4/{name}"])


def test_videos_of_validation_that_are_learnt_from_are_a_note(
    patterns: dict[str, str], lps_train: "Runner", settings: "Settings", tmp_path: Path
) -> None:
    config = settings("epochs = 1")
    given = ["--shards", patterns["one"], "--val-shards", patterns["one"], "--init", "random", "--config", config]
    ended = lps_train("classify", tmp_path / "run", *given)
    assert ended.code == 0, ended.stderr
    said = "note: 7 of 7 videos of validation have ids that are learnt from: the same videos; shards without manifests"
    assert said in ended.stderr[0]


def test_evaluate_calls_shards_by_name_and_measures_them_together(
    trained: Path, patterns: dict[str, str], lps_train: "Runner", tmp_path: Path
) -> None:
    given = [word for name in ("two", "val") for word in ("--shards", f"{name}={patterns[name]}")]
    best = trained / "checkpoints/best.pt"
    ended = lps_train("evaluate", "--checkpoint", best, *given, "--workers", 0, "--out", tmp_path / "out")
    assert ended.code == 0, ended.stderr
    found = json.loads((tmp_path / "out/metrics.json").read_bytes())
    assert [each["name"] for each in found["data"]] == ["two", "val"]
    assert found["together"]["macro"]["video"]["n_data_sets"] == 2
    learnt = found["checkpoint"]["learnt_from"]["sets"]
    assert [sorted({"prep", "shards"} & {*each}) for each in learnt] == [[], []], "places are not told"
