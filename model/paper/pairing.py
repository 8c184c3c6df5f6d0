"""Does it help to learn from pairs? The same network, data and steps, with a fake next to its own original or not."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

from lps.manifests.errors import RefusedError
from lps.model.data.pairs import pair_up
from lps.model.data.sources import open_split
from lps.model.evaluation.baselines import best_alone, lacking
from lps.model.evaluation.metrics import LEVEL, few_videos
from lps.model.paper.results import Result, ResultRow, Value
from lps.model.paper.zoo import DataSet, ModelZoo

N_SEEDS = 3
ARMS = {"pairs": "paired", "balanced": "unpaired"}
"""Samplings, and what their rows are called. Unpaired batches are as balanced as pairs are: the classes come equally
often in both."""
METRICS = ("auc", "pair_accuracy")
PERCENT = (0.0, 100.0)
"""What a share can be."""
CHANGES = (-100.0, 100.0)
"""What the difference of two shares can be."""


def pairing(zoo: ModelZoo) -> Result:
    """Question of the field: detectors learnt from pairs beside detectors learnt from the same clips unpaired.

    All start from one pretraining; each sampling is trained with the zoo's number of seeds, by default N_SEEDS, and
    evaluated on the test split. Raises RefusedError where the training split has no pairs.
    """
    rows: list[ResultRow] = []
    notes: list[str] = []
    seeds = range(zoo.seed, zoo.seed + (zoo.n_seeds or (2 if zoo.smoke else N_SEEDS)))
    for data in zoo.data:
        notes += _unpaired(zoo, data)
        init = str(zoo.pretrained(data))
        found: dict[str, list[ResultRow]] = {}
        for sampling, called in ARMS.items():
            found[called] = [_row(zoo, data, init, sampling, called, seed) for seed in seeds]
            rows += [*found[called], _mean(found[called], f"{called}, mean of {len(seeds)} seeds")]
        notes += [_difference(data, metric, *found.values()) for metric in METRICS]
    notes.append(
        "Intervals of a seed draw videos, or originals with their fakes, again; those of means and differences are "
        f"Student's t over {len(seeds)} seeds, which say nothing of other data."
    )
    return Result(experiment="pairing", item="Paired against unpaired sampling", rows=tuple(rows), metrics=METRICS,
                  notes=tuple(notes), facts={"seeds": list(seeds)})  # fmt: skip


def _unpaired(zoo: ModelZoo, data: DataSet) -> list[str]:
    """Say what pairs show, and which clips only one of the two samplings learns from.

    Raises RefusedError where there are no pairs.
    """
    train = open_split(zoo.sources(data), "train")
    pairs = pair_up(train)
    if not len(pairs):
        raise RefusedError(
            f"data set '{data.name}' has no pairs to learn from: no fake in its training split has its original there"
        )
    found = pairs.record()
    notes = [
        f"{data.name}: {found['n_shared']} of {found['n_pairs']} pairs to learn from are of the same frames; the "
        "others are of clips near in time."
    ]
    left = found["n_fakes_in_no_pair"], found["n_reals_in_no_pair"]
    if any(left):
        notes.append(
            f"{data.name}: {left[0]} fake and {left[1]} real clips are in no pair, so only unpaired sampling has them."
        )
    return notes


def _row(zoo: ModelZoo, data: DataSet, init: str, sampling: str, called: str, seed: int) -> ResultRow:
    """Train with one sampling and seed, and evaluate."""
    change = {"train": {"sampling": sampling}}
    job = replace(zoo.job(data, f"lps/pairing/{called}-{seed}", "classify", init, change), seed=seed)
    record = zoo.evaluated(zoo.trained(job), data)
    entry = record["data"][0]
    values = {
        "auc": auc_value(entry),
        "pair_accuracy": pair_value(entry),
    }
    return ResultRow(name=f"{called}, seed {seed}", data=data.name, trained_on=data.name, values=values,
                     checkpoint_sha256=record["checkpoint"]["sha256"], notes=tuple(entry["notes"]),
                     alone=best_alone(entry), lacking=lacking(entry))  # fmt: skip


def auc_value(entry: Mapping[str, Any]) -> Value:
    """Return the AUC over videos of an evaluated data set, in percent; without an interval that means nothing."""
    found = entry["results"]["all"]["video"]
    return _percents(found["auc"], few=few_videos(found["n_real"], found["n_fake"]))


def pair_value(entry: Mapping[str, Any]) -> Value:
    """Return the pair accuracy of an evaluated data set, in percent; without an interval that means nothing."""
    found = entry["pairs"]["all"]
    return _percents(found, few=few_videos(found["n_originals"], found["n_pairs"]))


def _percents(found: Mapping[str, Any], *, few: bool) -> Value:
    names = ("value",) if few else ("value", "low", "high")
    percents = {name: 100 * found[name] for name in names if found.get(name) is not None}
    return Value(**{"value": None, **percents})


def _mean(rows: Sequence[ResultRow], name: str) -> ResultRow:
    values = {metric: over_seeds([row.values[metric].value for row in rows]) for metric in METRICS}
    return replace(rows[0], name=name, values=values, checkpoint_sha256="", notes=())


def _difference(data: DataSet, metric: str, paired: Sequence[ResultRow], unpaired: Sequence[ResultRow]) -> str:
    """Say what pairs change, seed by seed."""
    each = [(a.values[metric].value, b.values[metric].value) for a, b in zip(paired, unpaired, strict=True)]
    change = over_seeds([None if a is None or b is None else a - b for a, b in each], CHANGES)
    what = {"auc": "AUC", "pair_accuracy": "pair accuracy"}[metric]
    if change.value is None:
        return f"{data.name}: {what} cannot be compared: the test split gives none."
    bounds = "" if change.low is None else f" [{change.low:+.2f}, {change.high:+.2f}]"
    return f"{data.name}: pairs change the {what} by {change.value:+.2f}{bounds} points."


def over_seeds(values: Sequence[float | None], possible: tuple[float, float] = PERCENT) -> Value:
    """Return the mean over seeds with the interval of Student's t, as far as such values are possible.

    None where the value of one is missing. The interval of two seeds is nearly always all that is possible.
    """
    from scipy.stats import t

    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return Value(value=None)
    if len(known) < 2:
        return Value(value=known[0])
    half = float(t.ppf((1 + LEVEL) / 2, len(known) - 1)) * stdev(known) / len(known) ** 0.5
    return Value(value=mean(known), low=max(mean(known) - half, possible[0]), high=min(mean(known) + half, possible[1]))
