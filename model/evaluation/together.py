"""Several evaluated data sets together: pooled, where each video counts alike, and as means over the data sets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lps.model.evaluation.baselines import SOURCES
from lps.model.evaluation.metrics import METRICS, Bootstrap, measure
from lps.model.evaluation.scores import LabelledScores

NOWHERE = "none of the data sets has it"


def together(
    cases: Sequence[LabelledScores], results: Sequence[Mapping[str, Any]], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Return the metrics of several data sets together, by video and by clip.

    `micro` measures all their clips, or videos, as those of one data set; `macro` is the mean over the data sets that
    have a metric, without an interval. `cases` are the clips of each, `results` the metrics of each as
    `metrics_by_group` has them.
    """
    clips = pooled(cases)
    levels = {"video": clips.by_video(), "clip": clips}
    return {
        "pooled": SOURCES,
        "micro": {level: measure(found, bootstrap).record() for level, found in levels.items()},
        "macro": {level: _means([found["all"][level] for found in results]) for level in levels},
    }


def pooled(cases: Sequence[LabelledScores]) -> LabelledScores:
    """Return the scores of several data sets as one; equal ids of videos in two of them are two videos."""
    firsts = np.cumsum([0, *(int(each.video.max(initial=-1)) + 1 for each in cases)])
    return LabelledScores(
        labels=np.concatenate([each.labels for each in cases]),
        p_fake=np.concatenate([each.p_fake for each in cases]),
        video=np.concatenate([each.video + first for each, first in zip(cases, firsts, strict=False)]),
        face=np.concatenate([each.face for each in cases]),
        method=np.concatenate([each.method for each in cases]),
        dataset=np.concatenate([each.dataset for each in cases]),
        compression=np.concatenate([each.compression for each in cases]),
        rule=cases[0].rule,
    )


def _means(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means: dict[str, Any] = {"n_data_sets": len(found)}
    for name in METRICS:
        values = [each[name]["value"] for each in found if each[name]["value"] is not None]
        mean = {"value": sum(values) / len(values)} if values else {"value": None, "reason": NOWHERE}
        means[name] = {**mean, "n_data_sets": len(values)}
    return means
