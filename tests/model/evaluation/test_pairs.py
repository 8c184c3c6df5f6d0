"""Pair accuracy: which videos are pairs, who wins, and intervals that draw originals with all their fakes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

from lps.cli.train.main import main
from lps.manifests.canonical import digest16
from lps.model.evaluation.metrics import Bootstrap
from lps.model.evaluation.pairs import NO_PAIRS, NO_SHARED, Pairs, pairs_of
from lps.model.evaluation.scores import ScoreRows, Scores
from lps.model.networks.context_net import NetParams
from lps.model.networks.detector import Detector, HeadParams
from lps.model.training.checkpoint import write_checkpoint
from lps.model.training.presets import Preset
from tests.builders import detector_checkpoint

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec

PRESET = Preset(image_px=32, net=NetParams(width=4, n_blocks=1, block_frames=3), head=HeadParams(dropout=0.0))
QUICK = Bootstrap(n_draws=200)
Video = tuple[str, int | None, float, str | None, str | None]
"""Name, label, score, original, method."""


def scored(videos: list[Video], n_clips: int = 2) -> tuple[Scores, pa.Table]:
    """Return the scores of videos with `n_clips` clips each, and their samples, in another order."""
    rows, samples = ScoreRows(), []
    for name, label, p_fake, original, method in videos:
        for k in range(n_clips):
            clip = digest16(name, str(k))
            rows.add([digest16(name)], [clip], [-1 if label is None else label], [p_fake])
            samples.append(
                {
                    "video_id": digest16(name),
                    "clip_id": clip,
                    "original_video_id": digest16(original) if original else None,
                    "method": method,
                    **dict.fromkeys(("dataset", "track_id", "face_id", "start_s", "compression")),
                }
            )
    table = pa.Table.from_pylist(samples[::-1])
    return rows.scores().with_sample_columns(table), table


def record(videos: list[Video], bootstrap: Bootstrap = QUICK) -> dict[str, dict[str, object]]:
    return pairs_of(*scored(videos)).record(bootstrap)


def test_the_fake_wins_that_scores_above_its_own_original() -> None:
    found = record(
        [
            ("a", 0, 0.5, None, None),
            ("b", 0, 0.1, None, None),
            ("a-swap", 1, 0.6, "a", "swap"),  # above its own
            ("a-blend", 1, 0.4, "a", "blend"),  # below its own, above the other real
            ("b-swap", 1, 0.1, "b", "swap"),  # alike
        ]
    )
    assert found["all"]["value"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert (found["all"]["n_pairs"], found["all"]["n_originals"]) == (3, 2)
    methods = found["methods"]
    assert {name: each["value"] for name, each in methods.items()} == {"blend": 0.0, "swap": 0.75}  # type: ignore[index]


def test_what_is_no_pair() -> None:
    """Originals that are not here, have no label or are called fake; fakes of nobody; fakes without a label."""
    found = record(
        [
            ("r", 0, 0.5, None, None),
            ("u", None, 0.5, None, None),
            ("f", 1, 0.6, "nobody", "swap"),
            ("g", 1, 0.6, None, "swap"),
            ("h", 1, 0.6, "u", "swap"),
            ("i", 1, 0.6, "f", "swap"),
            ("j", None, 0.6, "r", "swap"),
        ]
    )
    assert found == {"all": {"n_pairs": 0, "n_originals": 0, "value": None, "reason": NO_PAIRS}, "methods": {}}


def test_a_fake_of_an_unknown_method_is_a_pair() -> None:
    found = record([("r", 0, 0.1, None, None), ("f", 1, 0.6, "r", None)])
    assert found["methods"]["unnamed"]["value"] == found["all"]["value"] == 1.0  # type: ignore[index]


def test_videos_are_compared_and_not_clips() -> None:
    """By the rule of the scores: the mean, or the largest of the faces' means."""
    scores, samples = scored([("r", 0, 0.4, None, None), ("f", 1, 0.5, "r", "swap")], n_clips=2)
    low = np.asarray(scores.table["p_fake"].to_numpy()).copy()
    low[3] = 0.1  # one clip of the fake: its mean is 0.3
    table = scores.table.set_column(scores.table.schema.get_field_index("p_fake"), "p_fake", pa.array(low))
    assert pairs_of(Scores(table, scores.rule), samples).wins.tolist() == [0.0]


def test_intervals_draw_originals() -> None:
    """Fakes of one original count as one draw: forty of two originals tell little."""
    wins = np.array([1.0] * 20 + [0.0] * 20)
    method = np.full(40, "swap", object)
    two = Pairs(wins=wins, original=np.repeat([0, 1], 20), method=method).record(QUICK)["all"]
    forty = Pairs(wins=wins, original=np.arange(40), method=method).record(QUICK)["all"]
    assert (two["low"], two["high"]) == (0.0, 1.0)
    assert 0.3 < forty["low"] < 0.5 < forty["high"] < 0.7
    again = Pairs(wins=wins, original=np.arange(40), method=method).record(QUICK)["all"]
    assert forty == again
    none = Pairs(wins=wins, original=np.arange(40), method=method).record(Bootstrap(n_draws=0))["all"]
    assert (none["value"], none["low"], none["n_draws"]) == (0.5, None, 0)


def test_evaluate_tells_pair_accuracy(make: "Maker", spec: "type[Spec]", tmp_path: Path) -> None:
    checkpoint = tmp_path / "best.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = Detector(PRESET.net, PRESET.head)
    config = {"stage": "classify", "seed": 7, "preset": PRESET.record()}
    write_checkpoint(checkpoint, detector_checkpoint(network, PRESET, stage="classify", config=config))
    reals = [spec(video=f"r{k}", start_frame=start, split="test") for k in range(4) for start in (0, 60)]
    modes = {0: "shared", 70: "fallback"}
    fakes = [
        spec(video=f"f{k}", label=1, original=f"r{k // 2}", start_frame=start, split="test", pair_mode=mode)
        for k in range(5)
        for start, mode in modes.items()
    ]
    data, alone = make.data_set([[*reals, *fakes]]), make.data_set([reals])
    args = ["evaluate", "--checkpoint", checkpoint, "--out", tmp_path / "out", "--workers", 0, "--device", "cpu"]
    ended = CliRunner().invoke(main, [*map(str, args), "--data", f"mixed={data}", "--data", f"reals={alone}"])
    assert ended.exit_code == 0, ended.output
    entries = json.loads((tmp_path / "out/metrics.json").read_text())["data"]
    found, none = (entry["pairs"]["all"] for entry in entries)
    assert (found["n_pairs"], found["n_originals"]) == (5, 3)
    table = pq.read_table(tmp_path / "out/scores.parquet").to_pandas()
    score = table[table["data"] == 0].groupby("video_id")["p_fake"].mean()
    ahead = [score[digest16("test", f"f{k}")] - score[digest16("test", f"r{k // 2}")] for k in range(5)]
    assert found["value"] == pytest.approx(np.mean(np.heaviside(ahead, 0.5)))
    assert none["reason"] == NO_PAIRS
    clip = table[table["data"] == 0].set_index("clip_id")["p_fake"]
    first = {each.video: clip[each.clip_id] for each in [*reals, *fakes] if not each.start_frame}
    alike, nowhere = (entry["pairs"]["shared"]["all"] for entry in entries)
    assert (alike["n_pairs"], alike["n_originals"]) == (5, 3)
    wins = np.heaviside([first[f"f{k}"] - first[f"r{k // 2}"] for k in range(5)], 0.5)
    assert alike["value"] == pytest.approx(wins.mean())
    assert nowhere["reason"] == NO_SHARED
    assert any("clips of the same frames" in line and "│ 5 " in line for line in ended.stdout.splitlines())
    shown = [line for line in ended.stdout.splitlines() if f"{found['value']:.3f}" in line and "mixed" in line]
    assert any(line.split("│")[2:4] == [" 5     ", " 3         "] for line in shown), ended.stdout
    assert "interval not meaningful" in ended.stdout
