"""Late crops through the commands: a margin is trained with, recorded, evaluated, tried out and shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from click.testing import CliRunner, Result

from lps.cli.train.main import main
from lps.model.evaluation.loading import load_detector

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Runner, Spec

    Settings = Callable[..., Path]

OWN, LEAST, MOST = 1.1, 1.0, 1.3


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, maker: "type[Maker]", family: "Callable[..., list[Spec]]") -> Path:
    """Return a data set of 43 px with faces of 32 px."""
    shards = [family(name, n, split, margin=1.34) for name, n, split in (("a", 6, "train"), ("v", 6, "val"))]
    return maker(tmp_path_factory.mktemp("wide")).data_set([*shards, family("t", 8, "test", margin=1.34)])


@pytest.fixture(scope="module")
def trained(wide: Path, tmp_path_factory: pytest.TempPathFactory, lps_train: "Runner", settings: "Settings") -> Path:
    """Return the folder of a run that drew margins."""
    out = tmp_path_factory.mktemp("run") / "run"
    config = settings("epochs = 1", data=f"margin = {OWN}", augment=f"margins = [{LEAST}, {MOST}]")
    ended = lps_train("classify", out, "--data", wide, "--init", "random", "--config", config)
    assert ended.code == 0, ended.stderr
    return out


def call(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args], prog_name="lps-train", catch_exceptions=False)


def evaluated(checkpoint: Path, data: Path, out: Path, *options: str) -> Result:
    where = ("--checkpoint", checkpoint, "--data", data, "--out", out)
    return call("evaluate", *where, "--workers", 0, "--device", "cpu", "--no-board", *options)


def test_the_margin_is_recorded_and_another_is_another_run(
    trained: Path, wide: Path, lps_train: "Runner", settings: "Settings"
) -> None:
    preset = json.loads((trained / "config.json").read_bytes())["preset"]
    assert (preset["data"], preset["augment"]) == ({"margin": OWN}, {"margins": [LEAST, MOST]})
    assert load_detector(trained / "checkpoints/best.pt").margin == OWN
    config = settings("epochs = 1", data="margin = 1.2", augment=f"margins = [{LEAST}, {MOST}]")
    refused = lps_train("classify", trained, "--data", wide, "--init", "random", "--config", config)
    assert refused.code == 3
    assert "data.margin was 1.1 and is 1.2; use another folder" in refused.last_line


def test_the_curve_is_what_each_margin_gives(trained: Path, wide: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoints/best.pt"
    ended = evaluated(checkpoint, wide, tmp_path / "curve", "--margins", "1.0,1.1,1.3")
    assert ended.exit_code == 0, ended.stderr
    assert "how much depends on the margin" in ended.stdout
    assert "1.1 (its own)" in ended.stdout
    assert "test/test at margin 1.3: 8 clips" in ended.stderr
    record = json.loads((tmp_path / "curve/metrics.json").read_bytes())
    assert record["checkpoint"]["margin"] == OWN
    assert record["request"]["margins"] == [1.0, 1.1, 1.3]
    assert not (tmp_path / "curve/parts").exists()
    [entry] = record["data"]
    curve = {each["margin"]: each for each in entry["margins"]}
    assert curve[OWN] == {"margin": OWN, **entry["results"]["all"]}
    for margin in (1.0, 1.3):
        other = torch.load(checkpoint, weights_only=True)
        other["config"]["preset"]["data"]["margin"] = margin
        torch.save(other, tmp_path / "other.pt")
        assert evaluated(tmp_path / "other.pt", wide, tmp_path / f"at {margin}").exit_code == 0
        direct = json.loads((tmp_path / f"at {margin}/metrics.json").read_bytes())
        assert curve[margin] == {"margin": margin, **direct["data"][0]["results"]["all"]}
        assert direct["data"][0]["samples_sha256"] == entry["samples_sha256"]

    again = evaluated(checkpoint, wide, tmp_path / "curve", "--margins", "1.0,1.1,1.3")
    assert "holds this evaluation already" in again.stderr
    refused = evaluated(checkpoint, wide, tmp_path / "curve", "--margins", "1.0")
    assert refused.exit_code == 3
    assert "margins was [1.0, 1.1, 1.3] and is [1.0]" in refused.stderr.splitlines()[-1]

    page = tmp_path / "page.html"
    assert call("report", trained, tmp_path / "curve", "--html", page).exit_code == 0
    text = page.read_text()
    assert "margin 1.1, its own" in text
    assert "AUC over videos of test/test by margin" in text
    assert "<code>data.margin</code>" in text
    assert "<code>data.split</code>" in text


@pytest.mark.parametrize(
    ("margins", "code", "said"),
    [
        ("1.0,1.5", 3, "the clips are stored with a margin of 1.344 (a face of 32 px in 43), and 1.5 is asked for"),
        ("0.9", 2, "a margin must be from 1 to 2, got 0.9"),
        ("wide", 2, "must be numbers with commas between, got 'wide'"),
        ("1.0,nan", 2, "a margin must be from 1 to 2, got nan"),
    ],
)
def test_margins_that_cannot_be_had_are_one_line(
    trained: Path, wide: Path, tmp_path: Path, margins: str, code: int, said: str
) -> None:
    ended = evaluated(trained / "checkpoints/best.pt", wide, tmp_path / "out", "--margins", margins)
    assert ended.exit_code == code
    assert said in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_data_set_without_margin_is_named(
    trained: Path, wide: Path, make: "Maker", family: "Callable[..., list[Spec]]", tmp_path: Path
) -> None:
    plain = make.data_set([family("t", 4, "test")])
    ended = evaluated(trained / "checkpoints/best.pt", wide, tmp_path / "out", "--data", f"narrow={plain}")
    assert ended.exit_code == 3
    said = ended.stderr.splitlines()[-1]
    assert (
        f"the clips of narrow are stored with a margin of 1 (a face of 32 px in 32), and the detector's is {OWN}"
        in said
    )
    assert said.endswith(
        f"prepare them with `[crop] margin = {OWN}`, or evaluate a detector with a margin of at most 1 (data.margin)"
    )
    assert "ask for less" not in said


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"data": "margin = 2.5"}, "[data] is not usable: margin must be from 1 to 2, got 2.5"),
        ({"fakes": "share = 0"}, "[fakes] is not usable: fakes.share = 0.0 is not above 0 and at most 1"),
        ({"augment": "margins = [1.3, 1.0]"}, "margins are the least and the largest, got [1.3, 1.0]"),
        ({"augment": "margins = [1.0, 1.8]"}, "the clips are stored with a margin of 1.344"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(
    tables: dict[str, str], said: str, wide: Path, settings: "Settings", tmp_path: Path
) -> None:
    config = settings("epochs = 1", **tables)
    ended = call("classify", tmp_path / "run", "--data", wide, "--init", "random", "--config", config)
    assert ended.exit_code in (3, 4)
    assert said in ended.stderr.splitlines()[-1]


def test_another_margin_or_size_than_the_start_has_is_said(
    trained: Path, wide: Path, settings: "Settings", tmp_path: Path
) -> None:
    start = trained / "checkpoints/best.pt"
    margin = "it starts from a detector of data.margin = 1.1 and has data.margin = 1.0 itself"
    size = "it starts from a detector of image_px = 32 and has image_px = 48 itself"
    own = {"data": f"margin = {OWN}"}
    for name, command, top, tables, said in (
        ("distilled", ("distill",), "", {}, [margin]),
        ("kept", ("classify", "--keep-head"), "image_px = 48", {}, [margin, size]),
        ("same", ("distill",), "", own, []),
        ("anew", ("classify",), "", {}, []),
    ):
        config = settings("epochs = 1", top, **tables)
        stage, *options = command
        ended = call(stage, tmp_path / name, "--data", wide, "--init", start, "--config", config, *options)
        assert ended.exit_code == 0, ended.stderr
        assert [f"note: {each}" in ended.stderr for each in (margin, size)] == [each in said for each in (margin, size)]
        assert json.loads((tmp_path / name / "result.json").read_bytes()).get("notes", []) == said
    page = tmp_path / "page.html"
    assert call("report", tmp_path / "distilled", "--html", page).exit_code == 0
    assert margin in page.read_text()


def test_cached_maps_cannot_have_drawn_margins(trained: Path, wide: Path, settings: "Settings", tmp_path: Path) -> None:
    config = settings("epochs = 1", augment="margins = [1.0, 1.2]")
    start = trained / "checkpoints/best.pt"
    ended = call("distill", tmp_path / "run", "--data", wide, "--init", start, "--config", config)
    assert ended.exit_code == 3
    assert 'augment.margins = "none"' in ended.stderr.splitlines()[-1]
