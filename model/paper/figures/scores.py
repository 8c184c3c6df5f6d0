"""Figures of scores: ROC curves (Figure 6), stability over consecutive clips (5)."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lps.manifests.arrays import Floats
from lps.manifests.canonical import pretty_json
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.storage import open_store
from lps.model.evaluation.metrics import auc
from lps.model.evaluation.scores import THRESHOLD, Scores, read_scores
from lps.model.paper.figures.style import COLOURS, FAKE, MARKS, REAL, figure

N_SHOWN = 8
"""Videos of each class in the picture of stability."""


def read_evaluation(folder: Path) -> Scores:
    """Return the scores of a folder that `lps-train evaluate` wrote. Raises UnreadableError."""
    path = folder / "scores.parquet"
    try:
        data = path.read_bytes()
    except OSError as e:
        raise UnreadableError(f"no scores at {path}: {e.strerror}; give a folder that lps-train evaluate wrote") from e
    return read_scores(data, str(path))[0]


def draw_roc(evaluations: Mapping[str, Scores], out: Path) -> None:
    """Write OUT/roc.png and OUT/roc.csv (name, fpr, tpr, threshold): one curve an evaluation, over videos.

    Raises RefusedError for an evaluation with only one class.
    """
    from sklearn.metrics import roc_curve

    out.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["name", "fpr", "tpr", "threshold"])
    with figure(out / "roc.png", 4.4, 4.2) as drawn:
        ax = drawn.add_subplot()
        for k, (name, scores) in enumerate(evaluations.items()):
            videos = scores.labelled().by_video()
            if len(set(videos.labels.tolist())) < 2:
                raise RefusedError(f"'{name}' has only one class, and so no ROC curve")
            fpr, tpr, thresholds = roc_curve(videos.labels, videos.p_fake, drop_intermediate=False)
            for row in zip(fpr, tpr, thresholds, strict=True):
                table.writerow([name, *(f"{value:.6g}" for value in row)])
            style = ("-", "--", "-.", ":")[k % 4]
            label = f"{name}: AUC {auc(videos.labels, videos.p_fake):.3f}"
            ax.plot(fpr, tpr, style, color=COLOURS[k % len(COLOURS)], label=label)
            # Where the threshold lies is part of what a detector is.
            called = videos.p_fake > THRESHOLD
            point = [float(called[videos.labels == label].mean()) for label in (0, 1)]
            ax.plot(*point, MARKS[k % len(MARKS)], color=COLOURS[k % len(COLOURS)])
        ax.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
        ax.set(
            xlabel="real videos called fake", ylabel="fake videos called fake", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02)
        )
        ax.set_aspect("equal")
        ax.legend(loc="lower right", title="mark: p_fake > 0.5")
    open_store(str(out)).publish("roc.csv", text.getvalue().encode())


def stability(scores: Scores) -> dict[bytes, tuple[int, Floats, Floats]]:
    """Return for every labelled video with several clips its label, the clips' starts in seconds, and their p_fake."""
    rows: dict[bytes, tuple[int, list[tuple[float, float]]]] = {}
    columns = (scores.table[name].to_pylist() for name in ("video_id", "label", "start_s", "p_fake"))
    for video, label, start, p in zip(*columns, strict=True):
        if label is not None:
            rows.setdefault(video, (label, []))[1].append((start or 0.0, p))
    found = {}
    for video, (label, clips) in rows.items():
        if len(clips) > 1:
            ordered = np.array(sorted(clips, key=lambda clip: clip[0]))
            found[video] = (label, ordered[:, 0], ordered[:, 1])
    return found


def stability_facts(scores: Scores) -> dict[str, Any]:
    """Return the mean deviation of p_fake within a video, and changes of the verdict between consecutive clips."""
    videos = stability(scores)
    facts: dict[str, Any] = {"n_videos": len(videos)}
    for name, label in (("real", 0), ("fake", 1)):
        mine = [p for value, _, p in videos.values() if value == label]
        facts[name] = {
            "n_videos": len(mine),
            "mean_deviation": float(np.mean([p.std() for p in mine])) if mine else None,
            "flips_per_video": float(np.mean([np.abs(np.diff(p > THRESHOLD)).sum() for p in mine])) if mine else None,
        }
    return facts


def draw_stability(before: Scores, after: Scores, out: Path) -> dict[str, Any]:
    """Write OUT/stability.png and .json: p_fake over consecutive clips before and after distillation.

    The same videos in both panels, the ones with most clips. Raises RefusedError where no video has several clips.
    """
    panels = {"before distillation": stability(before), "after distillation": stability(after)}
    first = panels["before distillation"]
    both = sorted(set(first) & set(panels["after distillation"]), key=lambda v: (-len(first[v][1]), v))
    if not both:
        raise RefusedError("no video has several clips in both evaluations; evaluate with --clips all")
    shown = [video for label in (0, 1) for video in [v for v in both if first[v][0] == label][:N_SHOWN]]
    out.mkdir(parents=True, exist_ok=True)
    with figure(out / "stability.png", 7.0, 3.0) as drawn:
        axes = drawn.subplots(1, 2, sharey=True)
        for ax, (title, videos) in zip(axes, panels.items(), strict=True):
            for video in shown:
                label, start, p = videos[video]
                style = {"color": FAKE, "marker": "s", "linestyle": "--"} if label else {"color": REAL, "marker": "o"}
                ax.plot(start, p, markersize=3, linewidth=0.9, **style)
            ax.axhline(THRESHOLD, color="#555555", linewidth=0.8)
            ax.set(title=title, xlabel="start of the clip, s", ylim=(-0.03, 1.03))
        axes[0].set_ylabel("p_fake")
        axes[1].plot([], [], "o-", color=REAL, label="real")
        axes[1].plot([], [], "s--", color=FAKE, label="fake")
        axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    facts = {"before": stability_facts(before), "after": stability_facts(after), "n_shown": len(shown)}
    open_store(str(out)).publish("stability.json", pretty_json(facts))
    return facts
