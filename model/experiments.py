"""The paper's tables as functions of a lab: each returns rows of ours beside the paper's."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lps.manifests.canonical import pretty_json
from lps.manifests.errors import RefusedError
from lps.model import paper
from lps.model.checkpoint import code_version
from lps.model.lab import DataSet, Lab

METRICS = ("auc", "recall", "precision")


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One figure in per cent, with its 95 % interval over videos; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    """What the paper prints for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table."""

    name: str
    data: str
    """Data set that it was judged on."""
    values: dict[str, Value]
    cited: bool = False
    """A figure of another publication, not measured here."""
    trained_on: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An experiment's outcome."""

    experiment: str
    item: str
    """Of the paper."""
    rows: tuple[Row, ...]
    metrics: tuple[str, ...] = METRICS
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def _values(
    record: Mapping[str, Any], published: tuple[float | None, ...] | None, names: tuple[str, ...]
) -> dict[str, Value]:
    found = record["results"]["all"]["video"]
    values = {}
    for k, name in enumerate(names):
        ours = found[name]
        cited = published[k] if published is not None and k < len(published) else None
        values[name] = Value(
            value=_percent(ours["value"]), low=_percent(ours.get("low")), high=_percent(ours.get("high")), paper=cited
        )
    return values


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def _published(table: Mapping[Any, tuple[float, ...]], key: Any) -> tuple[float, ...] | None:
    return table.get(key)


def table1(lab: Lab) -> Result:
    """Table 1: LPS_ri, LPS and LPS_ssd on each data set, with the paper's 12 baselines as cited constants."""
    rows: list[Row] = []
    makers: dict[str, Callable[[DataSet], Path]] = {
        "LPS_ri": lab.random_detector,
        "LPS": lab.detector,
        "LPS_ssd": lab.distilled,
    }
    for data in lab.data:
        for name, make in makers.items():
            (record,) = lab.judged(make(data), [data])
            place = paper.DATA_SETS.index(data.name) if data.name in paper.DATA_SETS else None
            cited = (paper.TABLE1[name][place],) if place is not None else None
            rows.append(Row(name=name, data=data.name, trained_on=data.name, values=_values(record, cited, ("auc",))))
    for name, figures in paper.TABLE1_BASELINES.items():
        for data_name, figure in zip(paper.DATA_SETS, figures, strict=True):
            if figure is not None and any(data.name == data_name for data in lab.data):
                rows.append(Row(name=name, data=data_name, cited=True, values={"auc": Value(value=None, paper=figure)}))
    note = "Baselines are cited from the paper's Table 1; they were not run here and used other splits."
    return Result(experiment="table1", item="Table 1", rows=tuple(rows), metrics=("auc",), notes=(note,))


def cross(lab: Lab) -> Result:
    """Table 2: trained on one data set, judged on each."""
    rows: list[Row] = []
    for name, make in (("LPS", lab.detector), ("LPS_ssd", lab.distilled)):
        for trained in lab.data:
            records = lab.judged(make(trained), lab.data)
            for judged, record in zip(lab.data, records, strict=True):
                cited = _published(paper.TABLE2, (name, trained.name, judged.name))
                rows.append(
                    Row(name=name, data=judged.name, trained_on=trained.name, values=_values(record, cited, METRICS))
                )
    note = (
        "Recall and precision are at p_fake > 0.5, fake positive, natural prevalence. Of the paper's 18 triples of "
        "AUC, recall and precision 11 can come from one set of scores so read; compare AUC."
    )
    return Result(experiment="cross", item="Table 2", rows=tuple(rows), notes=(note,))


def align(lab: Lab) -> Result:
    """Table 3: data sets prepared with and without alignment; the latter are named <name>-unaligned."""
    rows: list[Row] = []
    by_name = {data.name: data for data in lab.data}
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
            (record,) = lab.judged(lab.detector(data), [data])
            cited = _published(paper.TABLE3, (kind, name))
            rows.append(Row(name=kind, data=name, trained_on=data.name, values=_values(record, cited, METRICS)))
    return Result(experiment="align", item="Table 3", rows=tuple(rows))


def variants(lab: Lab) -> Result:
    """Table 4: another encoder (I3D with its stage 0) and another classifier (SVM)."""
    rows: list[Row] = []
    for data in lab.data:
        models = {"LPS": lab.detector(data), "LPS_e": lab.detector(data, "i3d"), "LPS_c": lab.svm(data)}
        for name, checkpoint in models.items():
            (record,) = lab.judged(checkpoint, [data])
            cited = paper.TABLE4[name] if data.name == "celebdf" else None
            rows.append(Row(name=name, data=data.name, trained_on=data.name, values=_values(record, cited, METRICS)))
    return Result(experiment="variants", item="Table 4", rows=tuple(rows))


def sweep(lab: Lab) -> Result:
    """Table 5: lambda at T = 1 and T at lambda = 0.7, on cached feature maps."""
    rows: list[Row] = []
    lambdas = [0.1, 0.7, 1.0] if lab.smoke else list(paper.TABLE5_LAMBDA)
    temperatures = [1.0, 10.0] if lab.smoke else list(paper.TABLE5_T)
    points = [(w, 1.0) for w in lambdas] + [(0.7, t) for t in temperatures if t != 1.0]
    for data in lab.data:
        for weight, temperature in points:
            (record,) = lab.judged(lab.distilled(data, weight, temperature), [data], "val")
            name = f"lambda {weight:g}, T {temperature:g}"
            rows.append(Row(name=name, data=data.name, trained_on=data.name, values=_values(record, None, ("auc",))))
    note = (
        "Judged on the validation split. The paper prints a loss without saying which, and losses at different lambda "
        f"are not comparable, so ours is the AUC. Paper, loss by lambda: {paper.TABLE5_LAMBDA}; by T: {paper.TABLE5_T}."
    )
    return Result(experiment="sweep", item="Table 5", rows=tuple(rows), metrics=("auc",), notes=(note,))


def ablate(lab: Lab) -> Result:
    """Figure 8: without encoder, aggregator or memory bank."""
    rows: list[Row] = []
    for data in lab.data:
        for name, variant in (
            ("LPS", "lps"),
            ("without encoder", "no-encoder"),
            ("without aggregator", "no-aggregator"),
            ("without memory bank", "no-memory"),
        ):
            (record,) = lab.judged(lab.detector(data, variant), [data])
            rows.append(Row(name=name, data=data.name, trained_on=data.name, values=_values(record, None, METRICS)))
    note = "Figure 8 prints bars without figures, so there is nothing to put beside ours."
    return Result(experiment="ablate", item="Figure 8", rows=tuple(rows), notes=(note,))


EXPERIMENTS: dict[str, Callable[[Lab], Result]] = {
    "table1": table1,
    "cross": cross,
    "align": align,
    "variants": variants,
    "sweep": sweep,
    "ablate": ablate,
}


# ---- files -----------------------------------------------------------------------------------------------------------


def run_experiment(name: str, lab: Lab) -> Result:
    """Run what is missing of an experiment and write OUT/<name>/result.json and result.md.

    Raises RefusedError without data sets, and as the stages do.
    """
    if not lab.data:
        raise RefusedError("an experiment needs at least one data set: --data NAME=OUT")
    result = EXPERIMENTS[name](lab)
    folder = lab.out / name
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        **asdict(result),
        "preset": lab.preset,
        "settings": dict(lab.settings),
        "smoke": lab.smoke,
        "seed": lab.seed,
        "split_set": lab.split_set,
        "code": code_version(),
    }
    (folder / "result.md").write_text(markdown(result, smoke=lab.smoke))
    (folder / "result.json").write_bytes(pretty_json(record))
    return result


def markdown(result: Result, *, smoke: bool = False) -> str:
    """Return the result as a Markdown table, ours beside the paper's."""
    head = ["model", "trained on", "judged on"]
    for name in result.metrics:
        head += [f"{name} % [95 %]", f"paper's {name}"]
    lines = [f"# {result.item}", ""]
    if smoke:
        lines += ["**Smoke size: shows that the experiment runs. The figures mean nothing.**", ""]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in result.rows:
        cells = [row.name + (" (cited)" if row.cited else ""), row.trained_on or "-", row.data]
        for name in result.metrics:
            value = row.values.get(name)
            cells += [shown(value), "-" if value is None or value.paper is None else f"{value.paper:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *result.notes, ""])


def shown(value: Value | None) -> str:
    """Return a figure with its interval."""
    if value is None or value.value is None:
        return "-"
    if value.low is None or value.high is None:
        return f"{value.value:.2f}"
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"
