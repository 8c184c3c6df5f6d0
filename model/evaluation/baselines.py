"""What tells the label of an evaluated data set without a detector: some of its panel of shortcuts.

A detector that is no better than the size of the face may have learnt nothing else. The panel is measured by
`lps-audit shortcuts` over the videos of all splits, each scored by a model that saw nobody of its group.
"""

from collections.abc import Mapping
from typing import Any

from lps.manifests.errors import LpsError
from lps.manifests.index import read_index
from lps.manifests.shortcuts.records import ShortcutPanel, read_panels
from lps.manifests.storage import open_store
from lps.model.data.sources import Sources

BASELINES = {
    "face-size": "face size",
    "band-power": "band power",
    "thumbnail-logistic": "thumbnail",
    "bit-rate": "bit rate",
}
"""Shortcut -> what it looks at, in words."""
PLAIN = "shards without manifests have no panel of shortcuts"
SEVERAL = "several data sets are evaluated as one: their panels of shortcuts stand for each alone"
STALE = "the panel of shortcuts is of an earlier state of the data set: `lps-audit shortcuts` measures it again"
SOURCES = "a pooled AUC over several sources: it measures how well these are told apart, too"
"""Said of every AUC over the videos of several data sets."""


def baselines_of(sources: Sources, split_set: str) -> dict[str, Any]:
    """Return AUC and interval of each of `BASELINES` on the evaluated data set, as plain values, or why there are none.

    A damaged panel is a reason, too: metrics do not depend on it.
    """
    if sources.plain:
        return {"reason": PLAIN}
    if len(sources.places) > 1:
        return {"reason": SEVERAL}
    store = open_store(sources.places[0])
    try:
        panel = read_panels(store).get(split_set)
        fits = panel is not None and panel.is_of(read_index(store).values)
    except LpsError as e:
        return {"reason": str(e)}
    if panel is None:
        return {
            "reason": f"not measured; `lps-audit shortcuts` does that for split set {split_set}, and the same command "
            "again takes it up"
        }
    return _record(panel) if fits else {"reason": STALE}


def known_scores(baselines: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return those of the baselines of an evaluated data set that have a value."""
    scores = (baselines or {}).get("scores", {})
    return {name: score for name, score in scores.items() if score["value"] is not None}


def best_alone(entry: Mapping[str, Any]) -> str:
    """Name the baseline that tells the label best, with its AUC and interval in per cent; empty where none is known."""
    known = known_scores(entry.get("baselines"))
    if not known:
        return ""
    name = max(known, key=lambda each: known[each]["value"])
    value, low, high = (known[name][bound] for bound in ("value", "low", "high"))
    bounds = "" if low is None else f" [{100 * low:.2f}, {100 * high:.2f}]"
    return f"{BASELINES[name]} {100 * value:.2f}{bounds}"


def remarks(entry: Mapping[str, Any]) -> list[str]:
    """Say of an evaluated data set, as metrics.json has it, what its AUC measures, too, and why it lacks baselines."""
    return [*([entry["pooled"]] if entry.get("pooled") else []), *lacking(entry)]


def lacking(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Say of an evaluated data set why it has no baselines, or not all of them; nothing where all are known."""
    found = entry.get("baselines") or {}  # an older version did not look for them
    reasons: dict[str, list[str]] = {found["reason"]: []} if found.get("reason") else {}
    for name, words in BASELINES.items():
        score = found.get("scores", {}).get(name)
        if score is not None and score.get("value") is None:
            reasons.setdefault(score.get("reason") or "not known", []).append(words)
    return tuple(
        f"what tells the label without a detector: {', '.join(names)}{': ' if names else ''}{reason}"
        for reason, names in reasons.items()
    )


def _record(panel: ShortcutPanel) -> dict[str, Any]:
    found = {name: panel.score(name) for name in BASELINES}
    return {
        "split_set": panel.split_set,
        "n_videos": panel.n_sampled,
        "scores": {
            name: {"value": None, "reason": "the panel lacks it"}
            if score is None
            else {"value": score.auc, "low": score.low, "high": score.high, "n_real": score.n_real,
                  "n_fake": score.n_fake, "reason": score.note}
            for name, score in found.items()
        },
    }  # fmt: skip
