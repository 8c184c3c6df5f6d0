"""The trainer's page: what it shows of runs and evaluations, that it needs nothing else, and that it trusts nothing."""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from lps.cli.train.main import main
from lps.manifests.errors import UnreadableError
from lps.model.evaluation.evaluate import metrics_by_group
from lps.model.evaluation.metrics import Bootstrap
from lps.model.evaluation.scores import Scores, scores_bytes
from lps.model.evaluation.together import together
from lps.model.report.board import write_evaluation as write_evaluation_to_board
from lps.model.report.errors import STRIP_PX
from lps.model.report.page import ReportOptions, render_report
from lps.model.report.settings import shown_place
from lps.model.training.checkpoint import Checkpoint, file_sha256, write_checkpoint
from tests.model.board_events import events
from tests.model.report.report_folders import IDENTITY, log_lines, made_scores, seen_videos, write_evaluation, write_run
from tests.pages import (
    CHROMIUM,
    NO_AXE,
    Page,
    assert_accessible,
    assert_dark_and_printable,
    assert_fits_a_telephone,
    assert_self_contained,
    browse,
)

if TYPE_CHECKING:
    from tests.model.conftest import Runner

    Settings = Callable[..., Path]

HOSTILE = "</style><script>alert('x')</script>\"><img src=http://evil.example/x.png onerror=alert(1)>"
IMAGES = ("data:image/jpeg;base64,", "data:image/png;base64,")


def report(*args: object) -> Result:
    return CliRunner().invoke(main, ["report", *(str(arg) for arg in args)])


def checked(text: str) -> Page:
    """Return a page that was found to need nothing else."""
    assert_self_contained(text, IMAGES)
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False)), "no level is left out"
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    assert all(attrs.get("aria-label") for tag, attrs in page.tags if attrs.get("class") == "chart")
    assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")
    assert re.search("<title>[^<]+</title>", text)
    return page


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Return two runs and an evaluation of one of them."""
    first = write_run(tmp_path / "cls")
    settings = {"image_px": 112, "train": {"lr": 0.003}}
    second = write_run(tmp_path / "wide", settings=settings, lines=log_lines(first_loss=0.9), config={"seed": 8})
    return [first, second, write_evaluation(tmp_path / "eval", made_scores(1))]


# ---- what it shows -------------------------------------------------------------------------------------------------


def test_one_run_says_first_how_it_ended(tmp_path: Path) -> None:
    text = render_report([write_run(tmp_path / "cls")])
    page = checked(text)
    assert "<title>Finished – report of cls</title>" in text
    body = page.text[page.text.index("Report of training and evaluation") :]
    assert body.startswith(
        "Report of training and evaluation ✓ Finished cls: classify, from random weights; 3 of 500 epochs, "
        "12 steps; best validation AUC 0.840 at step 12."
    )
    assert {"summary", "curves", "settings", "data"} <= page.ids()
    assert "Nothing differs from the paper's recipe." in page.text
    for value in ("ab" * 32, "cd" * 32, "ef" * 32, "✓ not leaky", "localizer: mtcnn; align: yes"):
        assert value in page.text
    assert "No evaluation here" in page.text
    assert "unseen" not in page.text


def test_side_by_side_shows_what_differs(three: list[Path]) -> None:
    page = checked(render_report(three))
    assert "✓ 2 runs, 1 evaluation All runs are finished. celebdf/test: AUC " in page.text
    differing = page.text[page.text.index("or between runs (≠)") : page.text.index("settings Every setting")]
    assert "Setting Paper's recipe cls wide" in differing
    assert "image_px ≠ 224 224 112" in differing
    assert "train.lr ≠ 0.001 0.001 0.003" in differing
    assert "seed ≠ 7 8" in differing
    assert "net.width" not in differing
    whole = page.text[page.text.index("Every setting, resolved") :]
    assert "net.width 64 64 64" in whole
    assert "SHA-256 of samples ≠ " + "cd" * 32 + " " + "cd" * 32 + " " + "99" * 32 in page.text


def test_curves_of_one_stage_share_their_charts(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name) for name in ("a", "b")]
    runs.append(write_run(tmp_path / "pre", stage="pretrain", lines=[line | {"top1_x": 0.5} for line in log_lines()]))
    page = checked(render_report(runs))
    charts = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("class") == "chart"]
    loss = "training, from 0.66 to 0.22", "validation, from 0.68 to 0.44"
    assert charts[0] == "Loss by step: " + "; ".join(f"{name}, {said}" for name in "ab" for said in loss)
    assert charts[2] == "Learning rate by step: a, training, from 0.001 to 0.00033; b, training, from 0.001 to 0.00033"
    assert sum(chart.startswith("Loss by step") for chart in charts) == 2, "one for each stage"
    assert "top1_x" in page.text
    assert "1 further value" in page.text
    assert "0.66 → 0.22 0.68 → 0.44 0.44 at 12" in page.text


@pytest.mark.parametrize(("waited", "said"), [(0.30, True), (0.04, False)])
def test_waiting_and_the_compute_floor_have_curves_and_much_waiting_a_note(
    waited: float, said: bool, tmp_path: Path
) -> None:
    speeds = [
        {
            "kind": "speed",
            "step": step,
            "wait_share": waited,
            "floor_share": floor,
            "step_s": 0.5,
            "floor_s": 0.5 * floor,
        }
        for step, floor in ((4, 0.6), (8, 0.65))
    ]
    page = checked(render_report([write_run(tmp_path / "cls", lines=[*log_lines(), *speeds])]))
    charts = [attrs["aria-label"] or "" for _, attrs in page.tags if attrs.get("class") == "chart"]
    assert f"Share of a step that waits for data by step: cls, training, from {waited:g} to {waited:g}" in charts
    [floor] = [chart for chart in charts if chart.startswith("Compute floor (a step on one cached batch) over a step")]
    assert floor.endswith("cls, training, from 0.6 to 0.65")
    assert ("its steps waited for data for 30% of their time; see run.workers" in page.text) is said


def test_metrics_are_those_of_the_evaluation(tmp_path: Path) -> None:
    folders = [write_evaluation(tmp_path / name, made_scores(seed)) for name, seed in (("one", 1), ("two", 2))]
    page = checked(render_report(folders))
    for folder in folders:
        found = json.loads((folder / "metrics.json").read_bytes())["data"][0]["results"]["all"]["video"]
        for name in ("auc", "average_precision", "eer", "recall"):
            metric = found[name]
            assert f"{metric['value']:.3f} {metric['low']:.3f}–{metric['high']:.3f}" in page.text
        assert f"AUC {found['auc']['value']:.3f} [{found['auc']['low']:.3f}–{found['auc']['high']:.3f}]" in page.text
    assert "95 % interval" in page.text
    labels = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("class") == "chart"]
    assert [label.split(":")[0] for label in labels] == [
        "ROC over videos of celebdf/test", "p_fake of one", "p_fake of two",
    ]  # fmt: skip


def test_intervals_of_few_videos_are_said_to_mean_nothing(tmp_path: Path) -> None:
    few, enough = (checked(render_report([write_evaluation(tmp_path / str(n), made_scores(1, n=n))])) for n in (18, 20))
    assert ("not meaningful" in few.text, "not meaningful" in enough.text) == (True, False)
    found = json.loads((tmp_path / "18/metrics.json").read_bytes())["data"][0]["results"]["all"]["video"]["auc"]
    assert f"AUC {found['value']:.3f}" in few.text
    assert f"{found['low']:.3f}–" not in few.text


def test_what_has_no_figure_says_why(tmp_path: Path) -> None:
    page = checked(render_report([write_evaluation(tmp_path / "real", made_scores(1, labels=(0, 0)))]))
    assert "✓ Evaluated real: evaluation of classify 555555555555; celebdf/test: 24 real + 0 fake videos" in page.text
    assert "– real: only real videos" in page.text
    assert "AUC none: only real videos" in page.text


def test_evaluations_of_other_samples_are_not_comparable(tmp_path: Path) -> None:
    one = write_evaluation(tmp_path / "one", made_scores(1))
    two = write_evaluation(tmp_path / "two", made_scores(2), entry={"samples_sha256": "98" * 32, "notes": ["seen"]})
    page = checked(render_report([one, two]))
    assert "comparison: not all evaluations on celebdf/test used the same clips" in page.text
    assert "two: celebdf/test: seen" in page.text
    assert "! SEE NOTES" in page.text


def test_an_evaluation_finds_its_run_and_a_run_its_start(three: list[Path], tmp_path: Path) -> None:
    run = three[0]
    record = Checkpoint(stage="classify", config={}, data={}, network={}, progress={})
    write_checkpoint(run / "checkpoints/best.pt", record)
    sha256 = file_sha256(run / "checkpoints/best.pt")
    checkpoint = {"sha256": sha256, "stage": "classify", "learnt_from": {**IDENTITY, "prep": None}}
    write_evaluation(three[2], made_scores(1), record={"checkpoint": checkpoint})
    student = write_run(tmp_path / "ssd", stage="distill", config={"init": "x/best.pt", "init_sha256": sha256})
    page = checked(render_report([*three, student]))
    assert "evaluation of 'cls'" in page.text
    assert "distill, from 'cls'" in page.text


# ---- unfinished and leaky ------------------------------------------------------------------------------------------


def test_unfinished_runs_are_shown_as_such(tmp_path: Path) -> None:
    run = write_run(tmp_path / "cls", finished=False, lines=log_lines(2))
    with (run / "log.jsonl").open("a") as file:
        file.write('{"kind":"step","step":9,"lo')
    record = Checkpoint(stage="classify", config={}, data={**IDENTITY, "leaky": True}, network={}, progress={})
    write_checkpoint(run / "checkpoints/step-00000008.pt", record)
    text = render_report([run])
    page = checked(text)
    assert "… UNFINISHED" in page.text
    assert "in epoch 2 of 500, 8 steps logged; best validation AUC so far 0.760 at step 8" in page.text
    assert "cls: the last line of its log is not whole; it is left out" in page.text
    assert "✕ LEAKY SPLIT" in page.text, "as its checkpoint says"
    (run / "checkpoints/step-00000008.pt").write_bytes(b"PK nothing")
    page = checked(render_report([run]))
    assert "… Unfinished" in page.text
    assert "its last checkpoint cannot be read, so its data are not known" in page.text


def test_a_run_without_a_step_is_a_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "cls", finished=False, lines=[])
    (run / "log.jsonl").unlink()
    page = checked(render_report([run]))
    assert "in epoch 0 of 500, 0 steps logged; not validated yet" in page.text
    assert "no checkpoint says yet what data it learns from" in page.text


@pytest.mark.parametrize("where", ["run", "evaluation", "detector"])
def test_leaky_splits_are_stamped_loudly(tmp_path: Path, where: str) -> None:
    run = write_run(tmp_path / "cls", data={"leaky": where == "run"})
    learnt = {"sha256": "55" * 32, "stage": "classify", "learnt_from": {**IDENTITY, "leaky": where == "detector"}}
    evaluated = write_evaluation(
        tmp_path / "evaluated", made_scores(1), entry={"leaky": where == "evaluation"}, record={"checkpoint": learnt}
    )
    text = render_report([run, evaluated])
    page = checked(text)
    assert "<title>LEAKY – Leaky split – report of" in text
    name = "cls" if where == "run" else "evaluated"
    assert f"✕ LEAKY SPLIT below {name}: the split set is stamped leaky" in page.text
    assert page.text.index("✕ Leaky split") < page.text.index("Summary")
    assert ("section", {"class": "verdict bad", "id": "verdict"}) in page.tags


@pytest.mark.parametrize(
    ("roles", "mark", "verdict"),
    [
        ({"labels": 3}, "✕ LEARNT FROM IT", "✕ Measured on videos learnt from"),
        ({"frames": 24}, "✕ LEARNT FROM IT", "✕ Measured on videos learnt from"),
        ({"validation": 24}, "! CHOSEN BY IT", "✓ 1 run, 2 evaluations"),
        ({}, "", "✓ 1 run, 2 evaluations"),
    ],
)
def test_videos_that_the_detector_has_seen_are_stamped(
    roles: dict[str, int], mark: str, verdict: str, tmp_path: Path
) -> None:
    seen = write_evaluation(tmp_path / "seen", made_scores(1, gain=0.6), entry={"seen": seen_videos(**roles)})
    fair = write_evaluation(tmp_path / "fair", made_scores(1, gain=0.2))
    assert report(write_run(tmp_path / "run"), seen, fair, "--html", tmp_path / "page.html").exit_code == 0
    page = checked((tmp_path / "page.html").read_text())
    assert f"Report of training and evaluation {verdict}" in page.text
    stamps = "✕ LEARNT FROM IT", "! CHOSEN BY IT", "? SEEN? UNKNOWN"
    summary = page.text[page.text.index("Folder What it is") :]
    assert [each for each in stamps if each in summary] == ([mark] if mark else [])
    learnt = mark == stamps[0]
    assert ("below seen: the detector, or what it started from, learnt from videos" in page.text) == learnt
    assert ("highest AUC" in page.text) == (not learnt), "a metric on videos learnt from is not ranked"
    n = "; ".join(f"{role}: {roles.get(role, 0)} of 24" for role in ("labels", "frames", "validation"))
    assert f"Videos that the detector has seen{' ≠' if roles else ''}" in page.text
    assert n in page.text


@pytest.mark.parametrize("seen", [None, {**seen_videos(), "gaps": ["it started from something"]}])
def test_what_a_detector_has_seen_may_be_unknown(seen: object, tmp_path: Path) -> None:
    page = checked(render_report([write_evaluation(tmp_path / "old", made_scores(1), entry={"seen": seen})]))
    assert "? SEEN? UNKNOWN" in page.text


def test_what_starts_from_a_leaky_run_is_leaky(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "pre", stage="pretrain", data={"leaky": True})]
    for name in ("cls", "ssd"):
        record = Checkpoint(stage="classify", config={"name": runs[-1].name}, data={}, network={}, progress={})
        write_checkpoint(runs[-1] / "checkpoints/best.pt", record)
        start = file_sha256(runs[-1] / "checkpoints/best.pt")
        runs.append(write_run(tmp_path / name, config={"init": "x/best.pt", "init_sha256": start}))
    evaluated = write_evaluation(tmp_path / "of-cls", made_scores(1))
    checkpoint = {"sha256": file_sha256(runs[1] / "checkpoints/best.pt"), "learnt_from": {**IDENTITY, "prep": None}}
    write_evaluation(evaluated, made_scores(1), record={"checkpoint": checkpoint})
    clean = write_run(tmp_path / "clean")
    page = checked(render_report([*reversed(runs), evaluated, clean]))
    assert "✕ LEAKY SPLIT below ssd, cls, pre, of-cls: the split set" in page.text


def test_plain_shards_have_no_stamp(tmp_path: Path) -> None:
    page = checked(render_report([write_run(tmp_path / "cls", data={"leaky": None, "index_sha256": ""})]))
    assert "? no stamp" in page.text


# ---- errors and their frames ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(
    lps_train: "Runner", settings: "Settings", tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Return a tiny run and its evaluation on the validation split; tests only read them."""
    root = tmp_path_factory.mktemp("trained")
    run, out = root / "cls", root / "eval"
    done = lps_train("classify", run, "--data", tiny_data, "--init", "random", "--config", settings())
    assert done.code == 0, done.stderr
    options = ["--data", tiny_data, "--split", "val", "--workers", 0, "--device", "cpu", "--out", out]
    done = lps_train("evaluate", "--checkpoint", run / "checkpoints/best.pt", *options)
    assert done.code == 0, done.stderr
    return [run, out]


def spoilt_scores(folder: Path, target: Path) -> Path:
    """Copy an evaluation and turn its scores round, so that it has errors whatever the detector learnt."""
    shutil.copytree(folder, target)
    table = pq.read_table(target / "scores.parquet")
    wrong = pa.array([0.9 - 0.01 * k if label == 0 else 0.2 for k, label in enumerate(table["label"].to_pylist())])
    changed = table.set_column(table.column_names.index("p_fake"), table.schema.field("p_fake"), wrong.cast("float"))
    (target / "scores.parquet").write_bytes(scores_bytes(Scores(changed), {}))
    return target


@pytest.mark.slow
def test_a_real_run_has_its_errors_with_frames(trained: list[Path], tmp_path: Path) -> None:
    wrong = spoilt_scores(trained[1], tmp_path / "wrong")
    out = tmp_path / "page.html"
    result = report(*trained, wrong, "--html", out, "--errors", 4)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{out}\n"
    page = checked(out.read_text())
    assert "classify, from random weights" in page.text
    assert "evaluation of 'cls'" in page.text
    assert "2 of 2 epochs, 8 steps" in page.text
    assert "6 of 6 labelled clips are on the wrong side of 0.5; the 4 most confident errors." in page.text
    assert "wrong: test/val: scores.parquet and metrics.json do not belong together: AUC 0.000 by the one" in page.text
    assert "eval: test/val: scores.parquet" not in page.text
    section = page.text[page.text.index("wrong on test/val") :]
    assert "real , called fake , p_fake 0.9" in section
    assert "the same clip elsewhere: eval 0." in section
    images = [source for source in page.images() if source.startswith(IMAGES[0])]
    assert len(images) >= 4
    for source in images:
        with Image.open(io.BytesIO(base64.b64decode(source.removeprefix(IMAGES[0])))) as image:
            assert (image.format, image.size) == ("JPEG", STRIP_PX)
            frames = np.asarray(image, np.float64).reshape(STRIP_PX[1], 6, STRIP_PX[1], 3).mean((0, 2))
            assert len(np.unique(frames.round(), axis=0)) == 6, "six different frames"


def test_frames_are_from_the_evaluated_data_set(trained: list[Path], tiny_data: Path, tmp_path: Path) -> None:
    wrong = spoilt_scores(trained[1], tmp_path / "wrong")
    page = checked(render_report([wrong]))
    index = json.loads((wrong / "metrics.json").read_bytes())["data"][0]["index_sha256"]
    said = f"No frames: the evaluated data set (index {index[:12]}…) was not found; name it with --data."
    assert said in page.text
    assert len(re.findall("called (?:real|fake) , p_fake [01]", page.text)) == 6
    assert not page.images()
    named = checked(render_report([wrong], ReportOptions(data=(str(tiny_data),))))
    assert len(named.images()) == 6
    assert "No frames" not in named.text
    other = shutil.copytree(tiny_data, tmp_path / "other")
    (other / "index.json").write_text((other / "index.json").read_text() + "\n")
    moved = checked(render_report([wrong], ReportOptions(data=(str(other),))))
    assert len(moved.images()) == 6
    assert "Frames are from 'other', whose index is not the one that was evaluated." in moved.text
    for tar in other.glob("shards/val/*.tar"):
        tar.write_bytes(b"")
    gone = checked(render_report([wrong], ReportOptions(data=(str(other),))))
    assert not gone.images()
    assert "Frames are missing: shards of 'other' cannot be read." in gone.text
    (other / "manifests/clips.parquet").write_bytes(b"PAR1")
    assert (
        "No frames: manifests of 'other' cannot be read."
        in checked(render_report([wrong], ReportOptions(data=(str(other),)))).text
    )


def test_tensorboard_shows_the_worst_errors_and_the_roc(trained: list[Path], tiny_data: Path, tmp_path: Path) -> None:
    run, evaluated = trained
    [folder] = (run / "tensorboard").glob("evaluate-eval-*")
    record = json.loads((evaluated / "metrics.json").read_bytes())
    metrics = record["data"][0]["results"]["all"]["video"]
    values = {value.tag: value for event in events(folder) for value in event.summary.value}
    assert values["evaluate/test/val/auc"].simple_value == pytest.approx(metrics["auc"]["value"])
    before = {path.name for path in (run / "tensorboard").glob("events.*")}
    said = write_evaluation_to_board(
        spoilt_scores(evaluated, tmp_path / "wrong"), run / "checkpoints/best.pt", [str(tiny_data)]
    )
    [folder] = (run / "tensorboard").glob("evaluate-wrong-*")
    assert said == f"TensorBoard: 6 errors, 1 ROC curves: {folder}"
    again = write_evaluation_to_board(tmp_path / "wrong", run / "checkpoints/best.pt", [])
    assert again == f"TensorBoard: 0 errors, 1 ROC curves: {folder}"
    assert write_evaluation_to_board(tmp_path / "wrong", run / "checkpoints/best.pt", [str(tiny_data)]) == said
    found = [event for event in events(folder) if event.summary.value]
    assert len(list(folder.iterdir())) == 1
    step = json.loads((run / "result.json").read_bytes())["best_step"]
    assert {event.step for event in found} == {step}
    pictures = {event.summary.value[0].tag: event.summary.value[0].image for event in found}
    tags = ["evaluate/test/val/roc", *(f"evaluate/test/val/error {k}" for k in range(1, 7))]
    assert [tag for tag, image in pictures.items() if image.encoded_image_string] == tags
    for tag in tags:
        with Image.open(io.BytesIO(pictures[tag].encoded_image_string)) as image:
            assert (image.format, *image.size) == ("PNG", pictures[tag].width, pictures[tag].height)
            assert len(image.convert("RGB").getcolors(1 << 20)) > 20  # type: ignore[arg-type]
    assert before == {path.name for path in (run / "tensorboard").glob("events.*")}, "the run's own are not touched"
    loose = Path(shutil.copy(run / "checkpoints/best.pt", tmp_path / "best.pt"))
    assert "no log of a run beside" in write_evaluation_to_board(evaluated, loose, [])
    shutil.rmtree(folder)
    folder.write_text("in the way")
    assert write_evaluation_to_board(tmp_path / "wrong", run / "checkpoints/best.pt", []).startswith(
        "TensorBoard: nothing written: "
    )


def test_records_send_nobody_to_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("lps.model.report.errors.open_store", asked.append)
    data = {"data": "http://user:pa55@evil.example/set?sig=1", "split": "train", "val_split": "val"}
    run = write_run(tmp_path / "cls", config={"data": data})
    page = checked(render_report([run, write_evaluation(tmp_path / "eval", made_scores(1))]))
    assert asked == []
    assert "data: a data set of a run is at a URL; name it with --data to have its frames" in page.text
    assert "…/evil.example/set" in page.text
    assert "pa55" not in page.text
    assert "sig=1" not in page.text


def test_without_scores_there_are_still_metrics(three: list[Path]) -> None:
    (three[2] / "scores.parquet").unlink()
    page = checked(render_report(three))
    assert "eval: no scores.parquet beside its metrics: no curves, no errors" in page.text
    assert "No ROC and no distribution" in page.text
    assert "Metrics with intervals" in page.text


# ---- drawn figures -------------------------------------------------------------------------------------------------


def test_drawn_figures_of_the_folders_are_shown(three: list[Path]) -> None:
    Image.new("RGBA", (300, 200), (255, 0, 0, 0)).save(three[2] / "roc.png")
    (three[2] / "figures").mkdir()
    Image.new("RGB", (3000, 100), "blue").save(three[2] / "figures/mine.png")
    (three[0] / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (three[0] / "checkpoints").mkdir()
    Image.new("RGB", (9, 9)).save(three[0] / "checkpoints/cache.png")
    Image.new("RGB", (9, 9)).save(three[1] / "no.png", format="GIF")
    page = checked(render_report(three))
    shown = {attrs["alt"]: attrs for tag, attrs in page.tags if tag == "img" and attrs["src"].startswith(IMAGES[1])}
    assert set(shown) == {"ROC over videos (Figure 6), of eval", "figures/mine.png, of eval"}
    assert shown["figures/mine.png, of eval"]["width"] == "1400"
    data = base64.b64decode(shown["ROC over videos (Figure 6), of eval"]["src"].removeprefix(IMAGES[1]))
    with Image.open(io.BytesIO(data)) as image:
        assert image.getpixel((5, 5)) == (255, 255, 255), "dark pages keep what is transparent readable"
    for line in ("cls: figure broken.png cannot be read", "wide: figure no.png cannot be read"):
        assert line in page.text


# ---- hostile and damaged folders -----------------------------------------------------------------------------------


def test_hostile_words_are_text(tmp_path: Path) -> None:
    lines = [{**line, HOSTILE: 1.0, "nan": None, "big": 1e308, "text": HOSTILE} for line in log_lines()]
    config = {"init": HOSTILE, HOSTILE: HOSTILE, "data": {"data": HOSTILE, HOSTILE: [HOSTILE, {HOSTILE: None}]}}
    run = write_run(
        tmp_path / "<b>run", stage=HOSTILE, lines=lines, config=config,
        data={"datasets": [HOSTILE], "leaky": HOSTILE, "index_sha256": {HOSTILE: 1}},
        result={"best": "x", "best_step": [], "epochs": -1, "steps": 10**400, "n_bad_samples": HOSTILE},
    )  # fmt: skip
    entry = {"name": HOSTILE, "notes": [HOSTILE, 7], "n_bad_samples": 3, "index_sha256": HOSTILE}
    checkpoint = {"sha256": HOSTILE, "stage": HOSTILE, "learnt_from": [HOSTILE]}
    evaluated = write_evaluation(
        tmp_path / "<i>eval", made_scores(1), entry=entry, record={"checkpoint": checkpoint, "code": HOSTILE}
    )
    text = render_report([run, evaluated])
    page = checked(text)
    assert "<script" not in text
    assert "<script>alert('x')</script>" in page.text
    assert "<b>run" in page.text


def test_a_log_with_a_number_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", lines=[{**line, "nan": float("nan")} for line in log_lines()])
    with pytest.raises(UnreadableError, match=r"log.jsonl, line 1 is cut off or damaged"):
        render_report([run])


@pytest.mark.parametrize("results", [None, [], {"all": {"video": {"auc": {"value": "x", "low": []}}}}, {"methods": 3}])
def test_odd_results_are_dashes(tmp_path: Path, results: object) -> None:
    page = checked(render_report([write_evaluation(tmp_path / "eval", made_scores(1), entry={"results": results})]))
    assert "AUC none: not measured" in page.text


def log_with(text: str) -> Callable[[list[Path]], None]:
    def spoil(folders: list[Path]) -> None:
        lines = (folders[0] / "log.jsonl").read_text().splitlines(keepends=True)
        (folders[0] / "log.jsonl").write_text("".join([*lines[:2], text, *lines[2:]]))

    return spoil


def cut_log(folders: list[Path]) -> None:
    data = (folders[0] / "log.jsonl").read_bytes()
    (folders[0] / "log.jsonl").write_bytes(data[:-20])


def written(name: str, data: bytes, number: int = 0) -> Callable[[list[Path]], None]:
    return lambda folders: None if (folders[number] / name).write_bytes(data) else None


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folders: (folders[0] / "config.json").unlink(), "cls has neither config.json nor metrics.json; name"),
        (lambda folders: shutil.rmtree(folders[0]), "cls has neither config.json nor metrics.json; name"),
        (written("config.json", b"{"), "config.json: "),
        (written("config.json", b'{"stage": 3}'), "config.json is not the configuration of a run of lps-train"),
        (written("config.json", b'{"a":' * 60 + b"1" + b"}" * 60), "config.json is nested too deeply"),
        (written("config.json", b'{"a":' * 200_000), "config.json: it is nested too deeply"),
        (written("result.json", b'{"steps": 1'), "result.json: "),
        (log_with('{"kind":"step","st\n'), "log.jsonl, line 3 is cut off or damaged; restore the log"),
        (log_with("7\n"), "log.jsonl, line 3 is cut off"),
        (log_with('{"step":1}\n'), "log.jsonl, line 3 is cut off"),
        (cut_log, "log.jsonl, line 15 is cut off or damaged"),
        (written("metrics.json", b'{"schema": "other"}', 2), "metrics.json is not a result of lps-train evaluate"),
        (
            written("metrics.json", b'{"schema": "lps.metrics", "schema_version": "9.1", "data": []}', 2),
            "metrics.json has schema version '9.1'; this program reads up to 1.6",
        ),
        (written("scores.parquet", b"PAR1", 2), "scores.parquet is not a readable Parquet file"),
    ],
)
def test_bad_input_is_one_line(
    three: list[Path], tmp_path: Path, spoil: Callable[[list[Path]], object], says: str
) -> None:
    spoil(three)
    result = report(*three, "--html", tmp_path / "page.html")
    assert result.exit_code == 4
    assert len(result.stderr.splitlines()) == 1
    assert says in result.stderr
    assert not (tmp_path / "page.html").exists()


def test_usage_and_places(three: list[Path], tmp_path: Path) -> None:
    assert report().exit_code == 2
    assert report(three[0], "--errors", -1).exit_code == 2
    gone = report(*three, "--html", tmp_path / "p.html", "--data", tmp_path / "absent")
    assert (gone.exit_code, len(gone.stderr.splitlines())) == (4, 1)
    assert "absent has no index.json" in gone.stderr
    nowhere = report(three[0], "--html", tmp_path / "absent/p.html")
    assert (nowhere.exit_code, len(nowhere.stderr.splitlines())) == (4, 1)
    assert "Example:" in report("--help").stdout


def test_page_names_no_folder_of_this_machine(three: list[Path], tmp_path: Path) -> None:
    text = render_report(three)
    assert str(tmp_path) not in text
    assert "…/nowhere/celebdf" in Page(text).text
    assert shown_place("s3://key:word@bucket/a/b.tar?sig=1", 2) == "…/a/b.tar"
    assert shown_place("runs/cls/best.pt", 3) == "runs/cls/best.pt"
    assert shown_place("http://[", 2) == "a malformed URL"


def test_equal_names_get_longer(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name / "classify") for name in ("ffpp", "dfdc")]
    page = checked(render_report([*runs, runs[0]]))
    assert "2 folders: ffpp/classify, dfdc/classify" in page.text


# ---- in a browser --------------------------------------------------------------------------------------------------


@pytest.fixture
def whole(three: list[Path], trained: list[Path], tmp_path: Path) -> str:
    """Return a page with everything in it, hostile words among it."""
    Image.new("RGB", (300, 200), "white").save(three[2] / "roc.png")
    hostile = write_evaluation(tmp_path / "hostile", made_scores(3), entry={"name": HOSTILE, "notes": [HOSTILE]})
    return render_report([*three, *trained, spoilt_scores(trained[1], tmp_path / "wrong"), hostile])


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH")
def test_browser_shows_it_and_asks_nobody(whole: str, tmp_path: Path) -> None:
    dom, asked = browsed(tmp_path, whole)
    page = Page(dom)
    assert {"verdict", "summary", "metrics", "errors", "curves", "settings", "data", "pictures"} <= page.ids()
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert len(page.images()) == len(Page(whole).images()) >= 7
    for words in ("✓ 3 runs, 4 evaluations", "<script>alert('x')</script>", "Every setting, resolved"):
        assert words in page.text
    assert asked == set()
    assert browsed(tmp_path, "<img src=http://evil.example/x.png>")[1] == {"evil.example"}, "a request would be seen"


def browsed(folder: Path, text: str) -> tuple[str, set[str]]:
    """Return what Chromium makes of a page, and the hosts that it asked, without those that it asks for itself."""
    log = folder / "net.json"
    dom = browse(folder, text, f"--log-net-log={log}", "--dump-dom")
    hosts = set(re.findall(r'"url":"\w+://([^/":]+)', log.read_text()))
    return dom, {host for host in hosts if not re.search(r"(^|\.)(google|googleapis|gvt1)\.com$", host)}


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH")
def test_browser_needs_no_sideways_scrolling_on_a_telephone(whole: str, tmp_path: Path) -> None:
    assert_fits_a_telephone(tmp_path, whole)


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH")
def test_dark_rooms_and_paper(whole: str, tmp_path: Path) -> None:
    assert_dark_and_printable(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.skipif(NO_AXE, reason="no chromium on PATH, or no axe.min.js in LPS_AXE")
def test_page_is_accessible(whole: str, tmp_path: Path) -> None:
    assert_accessible(tmp_path, whole)


def test_several_data_sets_are_shown_together_pooled_and_as_means(tmp_path: Path) -> None:
    parts = [made_scores(1), made_scores(2, n=30, labels=(1, 1))]
    cases = [part.labelled() for part in parts]
    bootstrap = Bootstrap(n_draws=60)
    found = together(cases, [metrics_by_group(each, bootstrap) for each in cases], bootstrap)
    write_evaluation(tmp_path / "both", parts[0], record={"together": found})
    write_evaluation(tmp_path / "one", parts[0])
    text = render_report([tmp_path / "both", tmp_path / "one"])
    checked(text)
    section = text.partition('<h3 id="together">')[2].partition("<h2")[0]
    by_video, by_clip = section.split("<details")
    for level, part in (("video", by_video), ("clip", by_clip)):
        micro, macro = found["micro"][level]["auc"], found["macro"][level]["auc"]
        cells = re.findall(r'<td class="n span">([\d.–]+)', part)
        assert cells[0] == f"{micro['value']:.3f}"
        assert cells[len(cells) // 2] == f"{macro['value']:.3f}"
    assert f"{found['micro']['video']['auc']['low']:.3f}–{found['micro']['video']['auc']['high']:.3f}" in by_video
    assert "12 + 42" in by_video
    assert "2 data sets" in by_video
    assert "1 of 2 data sets" in by_video, "one of them has no AUC"
    assert section.count("pooled (micro)") == section.count("mean (macro)") == 2, "one evaluation has one data set"
    assert 'id="together"' not in render_report([tmp_path / "one"])
