"""Folders of runs and evaluations as `lps-train` writes them, made without training."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lps.manifests.canonical import digest16, pretty_json
from lps.model.evaluation.evaluate import metrics_by_group
from lps.model.evaluation.metrics import Bootstrap
from lps.model.evaluation.scores import ScoreRows, Scores, scores_bytes
from lps.model.training.presets import preset_for

IDENTITY = {
    "index_sha256": "ab" * 32,
    "split_set": "group",
    "split": "train",
    "leaky": False,
    "datasets": ["celebdf"],
    "samples_sha256": "cd" * 32,
    "val_samples_sha256": "ef" * 32,
    "prep": {"localizer": "mtcnn", "align": True, "secret": "unseen"},
}
N_STEPS = 12


def log_lines(n_epochs: int = 3, first_loss: float = 0.7) -> list[dict[str, object]]:
    """Return the log of a run of 4 steps an epoch whose loss falls."""
    lines: list[dict[str, object]] = []
    for step in range(1, 4 * n_epochs + 1):
        epoch = (step - 1) // 4
        values = {"epoch": epoch, "loss": first_loss - 0.04 * step, "lr": 1e-3 / (1 + epoch), "grad_norm": 2.0}
        lines.append({"kind": "step", "step": step, **values})
        if step % 4 == 0:
            found = {"epoch": epoch + 1, "loss": 0.8 - 0.03 * step, "auc": 0.6 + 0.02 * step, "n_clips": 9, "lr": 1e-3}
            lines.append({"kind": "validation", "step": step, **found})
    return lines


def write_run(
    folder: Path,
    *,
    stage: str = "classify",
    finished: bool = True,
    data: Mapping[str, object] | None = None,
    settings: Mapping[str, object] | None = None,
    config: Mapping[str, object] | None = None,
    lines: list[dict[str, object]] | None = None,
    result: Mapping[str, object] | None = None,
) -> Path:
    """Write the folder of a run as a stage leaves it, without tensors."""
    folder.mkdir(parents=True)
    record = {
        "stage": stage,
        "init": "random",
        "seed": 7,
        "data": {"data": str(folder.parent / "nowhere/celebdf"), "split": "train", "val_split": "val"},
        "preset": preset_for("paper", "classify", settings).record(),
        "init_sha256": "",
        **(config or {}),
    }
    (folder / "config.json").write_bytes(pretty_json(record))
    found = log_lines() if lines is None else lines
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
    if finished:
        outcome = {
            "stage": stage, "steps": N_STEPS, "epochs": 3, "best_step": N_STEPS, "best": 0.84, "last": {},
            "data": {**IDENTITY, **(data or {})}, "n_bad_samples": 0, "bad_samples": [],
            "checkpoint": "checkpoints/best.pt", **(result or {}),
        }  # fmt: skip
        (folder / "result.json").write_bytes(pretty_json(outcome))
    return folder


def made_scores(seed: int, *, n: int = 24, gain: float = 0.3, labels: tuple[int, int] = (0, 1)) -> Scores:
    """Return scores of n videos, two clips each, real and fake in turns."""
    rng = np.random.default_rng(seed)
    rows = ScoreRows()
    for k in range(n):
        label = labels[k % 2]
        for clip in range(2):
            p = float(np.clip(rng.normal(0.5 + gain * (label - 0.5), 0.25), 0.01, 0.99))
            rows.add([digest16("v", str(k))], [digest16("v", str(k), str(clip))], [label], [p])
    return rows.scores()


def seen_videos(n: int = 24, **roles: int) -> dict[str, object]:
    """Return how many of n videos a detector has seen in each role, as an evaluation records it."""
    counts = {role: {"videos": roles.get(role, 0), "clips": 0} for role in ("labels", "frames", "validation")}
    return {"n_videos": n, "n_clips": 2 * n, "n_namesakes": 0, **counts, "gaps": []}


def write_evaluation(
    folder: Path,
    scores: Scores,
    *,
    entry: Mapping[str, object] | None = None,
    record: Mapping[str, object] | None = None,
) -> Path:
    """Write the folder of an evaluation on one data set."""
    folder.mkdir(parents=True, exist_ok=True)
    entry_scores = scores.with_entry(0)
    facts = {
        "name": "celebdf/test", "index_sha256": "ab" * 32, "split_set": "group", "split": "test", "leaky": False,
        "datasets": ["celebdf"], "samples_sha256": "99" * 32, "prep_sha256": "77" * 32, "notes": [],
        "n_clips": len(scores), "n_unlabelled_clips": 0, "n_bad_samples": 0, "seen": seen_videos(),
        "results": metrics_by_group(entry_scores.labelled(), Bootstrap(n_draws=60)), **(entry or {}),
    }  # fmt: skip
    whole = {
        "schema": "lps.metrics",
        "schema_version": "1.0",
        "request": {"checkpoint": "55" * 32, "clips": 3, "bootstrap": {"level": 0.95, "n_draws": 60, "seed": 0}},
        "code": {"lps-prep": "0.1.0", "commit": "123abc"},
        "checkpoint": {"sha256": "55" * 32, "stage": "classify", "learnt_from": {**IDENTITY, "prep": None}},
        "data": [facts],
        **(record or {}),
    }
    (folder / "metrics.json").write_bytes(pretty_json(whole))
    (folder / "scores.parquet").write_bytes(scores_bytes(entry_scores, {}))
    return folder
