"""The paper's tables as functions of a zoo: each returns rows of ours beside the paper's."""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from lps.manifests.canonical import pretty_json
from lps.manifests.errors import RefusedError
from lps.manifests.storage import open_store
from lps.model.evaluation.baselines import best_alone, lacking
from lps.model.evaluation.metrics import Metric, few_videos
from lps.model.paper import published as paper
from lps.model.paper.distill_metrics import measure_distilled
from lps.model.paper.leak import leak
from lps.model.paper.pairing import pair_value, pairing
from lps.model.paper.results import Result, ResultRow, Value, markdown
from lps.model.paper.timings import VIDEO_FRAMES, kept_timings
from lps.model.paper.zoo import FRAME_BASELINES, DataSet, ModelZoo, TrainingData
from lps.model.training.checkpoint import code_version, file_sha256
from lps.model.training.processes import choose_device

METRICS = ("auc", "recall", "precision")
SWEEP_METRICS = tuple(f"{name}_{split}" for split in ("val", "train") for name in ("loss", "cross_entropy", "auc"))

Published = tuple[float | None, ...] | None
"""AUC, recall and precision as the paper prints them, or the first of these."""


def _row(
    zoo: ModelZoo,
    name: str,
    checkpoint: Path,
    trained: TrainingData,
    evaluated: DataSet,
    published: Published,
    names: tuple[str, ...],
) -> ResultRow:
    """Evaluate a detector on a data set and put the paper's values beside ours."""
    record = zoo.evaluated(checkpoint, evaluated)
    entry = record["data"][0]
    found = entry["results"]["all"]["video"]
    cited = dict(zip(names, published or (), strict=False))
    bounds = ("none", "none") if few_videos(found["n_real"], found["n_fake"]) else ("low", "high")
    values = {
        metric: Value(
            value=_percent(found[metric]["value"]), low=_percent(found[metric].get(bounds[0])),
            high=_percent(found[metric].get(bounds[1])), paper=cited.get(metric),
        )
        for metric in names
    }  # fmt: skip
    if entry.get("pairs", {}).get("all", {}).get("n_pairs"):
        values["pair_accuracy"] = pair_value(entry)
    notes = entry["notes"]
    if record["checkpoint"]["learnt_from"].get("leaky"):
        notes = ["the training data of the detector is stamped leaky", *notes]
    return ResultRow(name=name, data=evaluated.name, trained_on=trained.name, values=values,
               checkpoint_sha256=record["checkpoint"]["sha256"], notes=tuple(notes),
               alone=best_alone(entry), lacking=lacking(entry))  # fmt: skip


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def table1(zoo: ModelZoo) -> Result:
    """Table 1: LPS_ri, LPS, LPS_ssd and MesoNet on each data set, with the paper's 12 baselines as cited constants."""
    rows: list[ResultRow] = []
    makers: dict[str, Callable[[DataSet], Path]] = {
        "LPS_ri": zoo.random_detector,
        "LPS": zoo.detector,
        "LPS_ssd": zoo.distilled,
        **{name: partial(zoo.frame_baseline, encoder=encoder) for name, encoder in FRAME_BASELINES.items()},
    }
    for data in zoo.data:
        for name, make in makers.items():
            place = paper.DATA_SETS.index(data.name) if data.name in paper.DATA_SETS else None
            cited = (paper.TABLE1[name][place],) if place is not None and name in paper.TABLE1 else None
            rows.append(_row(zoo, name, make(data), data, data, cited, ("auc",)))
    for name, printed in paper.TABLE1_BASELINES.items():
        for data_name, auc in zip(paper.DATA_SETS, printed, strict=True):
            if auc is not None and any(data.name == data_name for data in zoo.data):
                rows.append(
                    ResultRow(name=name, data=data_name, cited=True, values={"auc": Value(value=None, paper=auc)})
                )
    cited_here = "Baselines marked so are cited from the paper's Table 1; they were not run here and used other splits."
    notes = (
        *([cited_here] if any(row.cited for row in rows) else []),
        f"{' and '.join(FRAME_BASELINES)} were run here: on these clips, each frame by itself, by the recipe of LPS.",
    )
    return Result(experiment="table1", item="Table 1", rows=tuple(rows), metrics=("auc",), notes=notes)


def cross(zoo: ModelZoo) -> Result:
    """Table 2: trained on each data set, and on each mix of several, and evaluated on each data set.

    Raises RefusedError before any training where one of them would be refused for what the data sets share.
    """
    zoo.require_apart()
    rows: list[ResultRow] = []
    learnt: tuple[TrainingData, ...] = (*zoo.data, *zoo.mixes)
    for name, make in (("LPS", zoo.detector), ("LPS_ssd", zoo.distilled)):
        for trained in learnt:
            checkpoint = make(trained)
            for evaluated in zoo.data:
                cited = paper.TABLE2.get((name, trained.name, evaluated.name))
                rows.append(_row(zoo, name, checkpoint, trained, evaluated, cited, METRICS))
    said = dict.fromkeys(
        f"Trained on {row.trained_on}, evaluated on {row.data}: {note}." for row in rows for note in row.notes
    )
    note = (
        "Recall and precision are at p_fake > 0.5, fake positive, natural prevalence. Of the paper's 18 triples of "
        "AUC, recall and precision 11 can come from one set of scores so read; compare AUC."
    )
    mixes = {mix.name: {part.name: part.weight for part in mix.parts} for mix in zoo.mixes}
    held = [f"{name} is trained on {', '.join(parts)} together." for name, parts in mixes.items()]
    return Result(experiment="cross", item="Table 2", rows=tuple(rows), metrics=METRICS, notes=(*held, *said, note),
                  facts={"mixes": mixes} if mixes else {})  # fmt: skip


def align(zoo: ModelZoo) -> Result:
    """Table 3: data sets prepared with and without alignment; the latter are named <name>-unaligned."""
    rows: list[ResultRow] = []
    by_name = {data.name: data for data in zoo.data}
    pairs = [
        (name, by_name[name], by_name.get(f"{name}-unaligned")) for name in by_name if not name.endswith("-unaligned")
    ]
    for name, aligned, unaligned in pairs:
        if unaligned is None:
            raise RefusedError(
                f"data set '{name}' has no partner '{name}-unaligned': prepare the same videos with "
                "`lps-prep run --no-align` and give it as --data"
            )
        for kind, data in (("aligned", aligned), ("unaligned", unaligned)):
            row = _row(zoo, kind, zoo.detector(data), data, data, paper.TABLE3.get((kind, name)), METRICS)
            rows.append(replace(row, data=name, trained_on=name))
    note = "Unaligned are trained and evaluated on the same videos, prepared without alignment: <name>-unaligned."
    return Result(experiment="align", item="Table 3", rows=tuple(rows), metrics=METRICS, notes=(note,))


def variants(zoo: ModelZoo) -> Result:
    """Table 4: another encoder (I3D with its stage 0) and another classifier (SVM)."""
    rows: list[ResultRow] = []
    for data in zoo.data:
        models = {"LPS": zoo.detector(data), "LPS_e": zoo.detector(data, "i3d"), "LPS_c": zoo.svm(data)}
        for name, checkpoint in models.items():
            cited = paper.TABLE4[name] if data.name == paper.TABLES_4_AND_5 else None
            rows.append(_row(zoo, name, checkpoint, data, data, cited, METRICS))
    return Result(experiment="variants", item="Table 4", rows=tuple(rows), metrics=METRICS)


def sweep(zoo: ModelZoo) -> Result:
    """Table 5: lambda at T = 1 and T at lambda = 0.7, on cached feature maps."""
    rows: list[ResultRow] = []
    lambdas = [0.1, 0.7, 1.0] if zoo.smoke else list(paper.TABLE5_LAMBDA)
    temperatures = [1.0, 10.0] if zoo.smoke else list(paper.TABLE5_T)
    points = [(w, 1.0) for w in lambdas] + [(0.7, t) for t in temperatures if t != 1.0]
    for data in zoo.data:
        for weight, temperature in points:
            job = zoo.sweep_job(data, weight, temperature)
            checkpoint = zoo.trained(job)
            cited = None
            if data.name == paper.TABLES_4_AND_5:
                cited = paper.TABLE5_LAMBDA[weight] if temperature == 1 else paper.TABLE5_T[temperature]
            values: dict[str, Value] = {}
            for split in ("val", "train"):
                found = measure_distilled(job, checkpoint, split)
                values[f"loss_{split}"] = _value(found["loss"], 1, cited if split == "val" else None)
                values[f"cross_entropy_{split}"] = _value(found["cross_entropy"], 1)
                values[f"auc_{split}"] = _value(found["auc"], 100)
            name = f"lambda {weight:g}, T {temperature:g}"
            rows.append(ResultRow(name=name, data=data.name, trained_on=data.name, values=values,
                            checkpoint_sha256=file_sha256(checkpoint)))  # fmt: skip
    notes = (
        "The paper prints a loss without saying which, nor on which split; it stands beside L_ssd on the validation "
        "split. L_ssd of different lambda or T is not comparable; cross entropy and AUC are.",
        "The best checkpoint of each run was chosen by its AUC on the validation split.",
    )
    return Result(experiment="sweep", item="Table 5", rows=tuple(rows), metrics=SWEEP_METRICS, notes=notes,
                  drawn=("loss_val", "cross_entropy_val", "auc_val"))  # fmt: skip


def _value(metric: Metric, scale: float, cited: float | None = None) -> Value:
    def scaled(number: float | None) -> float | None:
        return None if number is None else round(scale * number, 6)

    return Value(value=scaled(metric.value), low=scaled(metric.low), high=scaled(metric.high), paper=cited)


def ablate(zoo: ModelZoo) -> Result:
    """Figure 8: without encoder, aggregator or memory bank."""
    rows: list[ResultRow] = []
    for data in zoo.data:
        for name, variant in (
            ("LPS", "lps"),
            ("without encoder", "no-encoder"),
            ("without aggregator", "no-aggregator"),
            ("without memory bank", "no-memory"),
        ):
            rows.append(_row(zoo, name, zoo.detector(data, variant), data, data, None, METRICS))
    return Result(experiment="ablate", item="Figure 8", rows=tuple(rows), metrics=METRICS, notes=(paper.FIGURE8,))


def efficiency(zoo: ModelZoo) -> Result:
    """Efficiency paragraph of section 4.5: time of each module for one video, on random frames. Needs no data set."""
    preset = zoo.configuration("classify")
    device = choose_device(preset.run.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    n_videos = 3 if zoo.smoke else 100 if device.type == "cuda" else 10
    timings = kept_timings(zoo.out / "efficiency", preset, device, where, n_videos)
    rows = [
        ResultRow(name="localizer", data="Titan Xp", cited=True,
            values={"ms": Value(value=None, paper=paper.EFFICIENCY_MS["localizer"])})
    ]  # fmt: skip
    for timing in timings:
        low, high = timing.interval_s
        rows.append(ResultRow(name=timing.module, data=where, values={
            "ms": Value(value=1000 * timing.median_s, low=1000 * low, high=1000 * high,
                        paper=paper.EFFICIENCY_MS[timing.module]),
            "ms_p95": Value(value=1000 * timing.p95_s),
            "ms_frame": Value(value=1000 * timing.median_s / VIDEO_FRAMES),
        }))  # fmt: skip
    notes = (
        f"One video is {VIDEO_FRAMES} frames. Medians over {n_videos} videos with their intervals; the paper's are "
        "means over 100 videos on a Titan Xp.",
        "The localizer is timed by benchmarks/prep.py on real videos. The paper's 31.7 ms is 0.18 ms per frame, which "
        "cannot be a detection on every frame.",
    )
    return Result(experiment="efficiency", item="Efficiency, section 4.5", rows=tuple(rows),
                  metrics=("ms", "ms_p95", "ms_frame"), drawn=("ms",), notes=notes,
                  facts={"device": where, "n_videos": n_videos})  # fmt: skip


EXPERIMENTS: dict[str, Callable[[ModelZoo], Result]] = {
    "table1": table1,
    "cross": cross,
    "align": align,
    "variants": variants,
    "sweep": sweep,
    "ablate": ablate,
    "pairing": pairing,
    "leak": leak,
    "efficiency": efficiency,
}


def run_experiment(name: str, zoo: ModelZoo) -> Result:
    """Run what is missing of an experiment and write OUT/<name>/result.json and result.md.

    Raises RefusedError without data sets or under torchrun, and as the stages do.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RefusedError(
            "an experiment is run by one process: start it without torchrun. Runs that torchrun trained before, with "
            "the same settings, in the folders below OUT/runs/ that it uses, are taken as they are"
        )
    needs_data = name != "efficiency"
    if needs_data and not zoo.data:
        raise RefusedError("an experiment needs at least one data set: --data NAME=OUT")
    data = {each.name: zoo.identity(each) for each in zoo.data} if needs_data else {}
    result = EXPERIMENTS[name](zoo).pairs_first()
    result = replace(result, notes=(*result.notes, *result.lacking()))
    leaky = [each for each, facts in data.items() if facts["leaky"]]
    if leaky:
        stamp = f"**The split set of {', '.join(leaky)} is stamped leaky: people are on both sides of it.**"
        result = replace(result, notes=(stamp, *result.notes))
    folder = zoo.out / name
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        **asdict(result),
        "config_sha256": zoo.config_sha256(),
        "data": data,
        "preset": zoo.preset,
        "settings": dict(zoo.settings),
        "smoke": zoo.smoke,
        "seed": zoo.seed,
        "code": code_version(),
    }
    store = open_store(str(folder))
    store.publish("result.md", markdown(result, smoke=zoo.smoke).encode())
    store.publish("result.json", pretty_json(record))
    return result
