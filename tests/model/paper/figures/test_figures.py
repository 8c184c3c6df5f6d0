"""Figures: each command writes its picture and the numbers behind it, and refuses what cannot be drawn."""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from lps.cli.train.main import main
from lps.manifests.canonical import digest16
from lps.manifests.errors import RefusedError
from lps.model.evaluation.scores import ScoreRows, Scores
from lps.model.networks.detector import Detector
from lps.model.paper.figures import self_blend
from lps.model.paper.figures.scores import draw_roc, draw_stability, stability_facts
from lps.model.training.checkpoint import write_checkpoint
from lps.model.training.presets import preset_for
from lps.model.training.processes import choose_device
from tests.builders import detector_checkpoint
from tests.model.report.report_folders import write_evaluation

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = {"image_px": 32, "net": {"width": 4, "n_blocks": 2, "block_frames": 3}}


def made_scores(values: dict[str, tuple[int, list[float]]]) -> Scores:
    """Return scores of videos by name: label, and p_fake of each clip."""
    rows = ScoreRows()
    for name, (label, clips) in values.items():
        for k, p in enumerate(clips):
            rows.add([digest16(name)], [digest16(name, str(k))], [label], [p])
    return rows.scores()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    preset = preset_for("small", "classify", SETTINGS)
    network = Detector(preset.net, preset.head)
    path = tmp_path / "best.pt"
    write_checkpoint(path, detector_checkpoint(network, preset))
    return path


@pytest.fixture
def data(make: "Maker", spec: "type[Spec]") -> str:
    shard = []
    for k in range(4):
        shard.append(spec(video=f"r{k}", label=0, n_frames=6, split="test"))
        shard.append(spec(video=f"f{k}", label=1, original=f"r{k}", n_frames=6, split="test"))
    return str(make.data_set([shard]))


def run(*words: str) -> str:
    result = CliRunner().invoke(main, ["figure", *words])
    assert result.exit_code == 0, result.output
    return result.output


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


def test_roc_ends_in_its_corners(tmp_path: Path) -> None:
    scores = made_scores({"a": (0, [0.1]), "b": (0, [0.6]), "c": (1, [0.4]), "d": (1, [0.9])})
    draw_roc({"LPS": scores}, tmp_path)
    assert is_png(tmp_path / "roc.png")
    rows = list(csv.DictReader((tmp_path / "roc.csv").read_text().splitlines()))
    points = [(float(row["fpr"]), float(row["tpr"])) for row in rows]
    assert (points[0], points[-1]) == ((0.0, 0.0), (1.0, 1.0))
    assert (0.0, 0.5) in points


def test_roc_needs_both_classes(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"^'LPS' has only one class"):
        draw_roc({"LPS": made_scores({"a": (0, [0.1, 0.2])})}, tmp_path)


def test_stability_counts_changes_of_the_verdict(tmp_path: Path) -> None:
    before = made_scores({"a": (0, [0.1, 0.9, 0.1]), "b": (1, [0.8, 0.8, 0.8]), "c": (1, [0.5])})
    after = made_scores({"a": (0, [0.1, 0.1, 0.1]), "b": (1, [0.8, 0.8, 0.8]), "c": (1, [0.5])})
    facts = draw_stability(before, after, tmp_path)
    assert facts["before"]["real"]["flips_per_video"] == 2
    assert facts["after"]["real"]["flips_per_video"] == 0
    assert facts["after"]["fake"] == {"n_videos": 1, "mean_deviation": pytest.approx(0, abs=1e-6), "flips_per_video": 0}
    assert is_png(tmp_path / "stability.png")
    assert json.loads((tmp_path / "stability.json").read_bytes()) == facts
    folders = [tmp_path / "before", tmp_path / "after"]
    for folder, scores in zip(folders, (before, after), strict=True):
        write_evaluation(folder, scores)
    said = run("stability", str(tmp_path / "out"), "--before", str(folders[0]), "--after", str(folders[1]))
    assert "2.00 changes of the verdict" in said
    assert json.loads((tmp_path / "out" / "stability.json").read_bytes()) == facts


def test_stability_of_single_clips_is_refused(tmp_path: Path) -> None:
    single = made_scores({"a": (0, [0.1]), "b": (1, [0.8])})
    with pytest.raises(RefusedError, match="--clips all"):
        draw_stability(single, single, tmp_path)
    assert stability_facts(single)["n_videos"] == 0


def test_feature_maps_and_embedding_and_failures(checkpoint: Path, data: str, tmp_path: Path) -> None:
    common = ["--checkpoint", str(checkpoint), "--data", data]
    figures = tmp_path / "figures"
    run("featmap", str(figures), *common, "--clips", "1")
    assert is_png(figures / "featmap.png")
    assert "silhouette of context features" in run("tsne", str(figures), *common)
    table = pq.read_table(figures / "tsne.parquet")
    assert table.num_rows == 8
    assert {"spatial_x", "context_y", "label"} <= set(table.column_names)
    evaluation = tmp_path / "evaluation"
    asked = ["evaluate", *common, "--split", "test", "--out", str(evaluation), "--workers", "0", "--device", "cpu"]
    assert CliRunner().invoke(main, asked).exit_code == 0
    shown = run("failures", str(figures), *common, "--scores", str(evaluation), "--top", "3")
    rows = list(csv.DictReader((figures / "failures.csv").read_text().splitlines()))
    if rows:  # an untrained detector is wrong on some; on which depends on its weights
        assert is_png(figures / "failures.png")
        distance = [abs(float(row["p_fake"]) - 0.5) for row in rows]
        assert distance == sorted(distance, reverse=True)
        assert all((float(row["p_fake"]) > 0.5) != bool(int(row["label"])) for row in rows)
    else:
        assert "no clip is on the wrong side" in shown
    assert choose_device("cpu").type == "cpu"


def test_scores_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["figure", "roc", str(tmp_path), "--scores", f"LPS={tmp_path / 'none'}"])
    assert result.exit_code == 4
    assert "give a folder that lps-train evaluate wrote" in result.output


def test_self_blends_are_drawn_with_the_margin_of_a_training(
    make: "Maker", spec: "type[Spec]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make.data_set([[spec(video=f"r{k}", n_frames=12, margin=1.34) for k in range(2)]])
    drawn: list[tuple[int, ...]] = []
    monkeypatch.setattr(self_blend, "picture", lambda _, image, *levels: drawn.append((len(image), *levels)))
    for margin, side in ((None, 32), ("1.25", 40)):
        drawn.clear()
        run("self-blend", str(tmp_path / "figs"), "--data", str(data), *(("--margin", margin) if margin else ()))
        assert is_png(tmp_path / "figs/self-blend.png")
        assert {first for first, *_ in drawn} == {side}, "frames, masks and blends are of what is cut"
    refused = CliRunner().invoke(
        main, ["figure", "self-blend", str(tmp_path / "no"), "--data", str(data), "--margin", "1.5"]
    )
    assert refused.exit_code == 3
    assert "stored with a margin of 1.344" in refused.output


def test_masks_lie_on_the_face_whatever_the_margin(
    make: "Maker", spec: "type[Spec]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make.data_set([[spec(video="r", n_frames=12, margin=2.0)]])
    masks: list[NDArray[np.float32]] = []
    monkeypatch.setattr(self_blend, "picture", lambda _, image, *levels: masks.append(image) if levels else None)
    run("self-blend", str(tmp_path / "figs"), "--data", str(data))
    inner, shares = masks[0] > masks[0].max() / 2, []
    masks.clear()
    run("self-blend", str(tmp_path / "figs"), "--data", str(data), "--margin", "2")
    for mask in (inner, masks[0] > masks[0].max() / 2):
        shares.append(mask.any(axis=0).mean())
    assert shares[1] == pytest.approx(shares[0] / 2, abs=0.1)
