"""Thresholds on the command line: told and stored by `evaluate`, taken by `evaluate` and `score`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lps.cli.common import console, write_output
from lps.manifests.canonical import pretty_json
from lps.manifests.errors import RefusedError
from lps.model.evaluation.evaluate import SCORES_PARQUET
from lps.model.evaluation.metrics import few_videos
from lps.model.evaluation.scores import LabelledScores, read_scores
from lps.model.evaluation.threshold import (
    FPRS,
    OperatingPoint,
    StoredThreshold,
    calibration,
    one_class,
    operating_point,
    point_at,
    read_threshold,
)
from lps.model.report.errors import of_entry


def parse_threshold(text: str) -> float | StoredThreshold:
    """Return a number, or what a file holds. Raises BadParameter for a number out of 0 to 1, UnreadableError."""
    try:
        number = float(text)
    except ValueError:
        return read_threshold(Path(text))
    if not 0 <= number <= 1:
        raise click.BadParameter(f"must be a file or a number from 0 to 1, got {text}", param_hint="--threshold")
    return number


def videos_of(out: Path, n_data: int) -> list[LabelledScores]:
    """Return the labelled videos of each data set of a finished evaluation."""
    path = out / SCORES_PARQUET
    scores, _ = read_scores(path.read_bytes(), str(path))
    return [of_entry(scores, number).labelled().by_video() for number in range(n_data)]


def save_threshold(path: Path, record: dict[str, Any], videos: LabelledScores, fpr: float | None) -> None:
    """Write the threshold and the temperature that the first data set suggests. Raises RefusedError for one class."""
    entry, labels, p_fake = record["data"][0], videos.labels, videos.p_fake
    if reason := one_class(labels):
        raise RefusedError(f"{entry['name']} gives no threshold: {reason}")
    point, found = operating_point(labels, p_fake, fpr), calibration(labels, p_fake)
    n_fake = int(labels.sum())
    stored = StoredThreshold(
        checkpoint_sha256=record["checkpoint"]["sha256"],
        video_score=videos.rule,
        clips=str(record["request"]["clips"]),
        data=entry["name"],
        n_real=len(labels) - n_fake,
        n_fake=n_fake,
        at=point.at,
        threshold=point.threshold,
        fpr=point.fpr,
        recall=point.recall,
        temperature=found.temperature,
        ece_before=found.ece_before,
        ece_after=found.ece_after,
    )
    write_output(path, pretty_json(stored.record()))


def print_thresholds(
    names: list[str], videos: list[LabelledScores], fpr: float | None, given: float | StoredThreshold | None
) -> None:
    """Print what thresholds do to each data set, the given one among them, and how sure its scores are."""
    from rich.table import Table
    from rich.text import Text

    table = Table("data", "threshold at", "p_fake above", "false-positive rate", "recall", title="thresholds, by video")
    for name, each in zip(names, videos, strict=True):
        if one_class(each.labels):
            continue
        for k, point in enumerate(_points(each, fpr, given)):
            cells = (point.at, f"{point.threshold:.6f}", f"{point.fpr:.3f}", f"{point.recall:.3f}")
            table.add_row(Text(name if k == 0 else ""), *cells)
        table.add_section()
    screen = console()
    if table.row_count:
        screen.print(table)
    for name, each in zip(names, videos, strict=True):
        for line in _remarks(each, fpr, given):
            screen.print(f"{name}: {line}", highlight=False, markup=False)


def _points(
    videos: LabelledScores, fpr: float | None, given: float | StoredThreshold | None
) -> Iterator[OperatingPoint]:
    labels, p_fake = videos.labels, videos.p_fake
    for rate in (None, *sorted({*FPRS, *([fpr] if fpr is not None else [])})):
        yield operating_point(labels, p_fake, rate)
    if isinstance(given, StoredThreshold):
        yield point_at(labels, p_fake, given.threshold, f"{given.at} of {given.data}")
    elif given is not None:
        yield point_at(labels, p_fake, given)


def _remarks(videos: LabelledScores, fpr: float | None, given: float | StoredThreshold | None) -> Iterator[str]:
    labels, p_fake = videos.labels, videos.p_fake
    if one_class(labels):
        return
    n_fake = int(labels.sum())
    n_real = len(labels) - n_fake
    found = calibration(labels, p_fake)
    few = ", which are too few" if few_videos(n_real, n_fake) else ""
    yield (
        f"calibration error (ECE) {found.ece_before:.3f}; with temperature {found.temperature:.3g}, fitted on these "
        f"videos{few}, {found.ece_after:.3f}"
    )
    if isinstance(given, StoredThreshold):
        theirs = calibration(labels, p_fake, given.temperature)
        yield f"with temperature {given.temperature:.3g} of {given.data} it is {theirs.ece_after:.3f}"
    if fpr is not None and fpr * n_real < 1:
        yield f"{n_real} real videos cannot tell a false-positive rate of {fpr:g}: none of them is above this threshold"
