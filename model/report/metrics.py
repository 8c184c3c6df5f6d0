"""Metrics of evaluations for the trainer's page: tables with intervals, ROC curves, distributions of scores."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from lps.manifests.names import Role
from lps.manifests.pages.charts import Axis, histogram
from lps.model.evaluation.baselines import BASELINES, SOURCES, remarks
from lps.model.evaluation.metrics import LEVEL, TITLES, few_videos, point_values
from lps.model.evaluation.scores import LabelledScores
from lps.model.report.curves import colour, interval, margin_chart, roc_chart, roc_points
from lps.model.report.errors import of_entry
from lps.model.report.runs import Evaluation, Record, count, finite, mapping
from lps.model.report.views import CellView, DataView, MetricsRow, NameView, TogetherView


@dataclass(frozen=True, slots=True)
class EvaluatedData:
    """One evaluation on one data set."""

    evaluation: Evaluation
    number: int
    """Entry of the evaluation's data."""
    title: str
    leaky: bool
    """A split set that is stamped leaky was evaluated or trained on."""

    @property
    def seen(self) -> Record:
        """How much of it the detector has seen, by role; empty in a record of an older version."""
        return mapping(self.entry.get("seen"))

    def n_seen(self, *roles: Role) -> int:
        """Return the largest number of its videos that the detector has seen in one of these roles."""
        return max(count(mapping(self.seen.get(role)).get("videos")) for role in roles)

    @property
    def fair(self) -> bool:
        """Whether its metrics can be ranked: nobody is on both sides, and no video was learnt from."""
        return not self.leaky and not self.n_seen(Role.LABELS, Role.FRAMES)

    @property
    def entry(self) -> Record:
        """The record of it."""
        return self.evaluation.data[self.number]

    @property
    def video(self) -> Record:
        """Its metrics over all videos."""
        return mapping(mapping(mapping(self.entry.get("results")).get("all")).get("video"))

    @property
    def n_videos(self) -> tuple[int, int]:
        """Real and fake videos that were measured."""
        return count(self.video.get("n_real")), count(self.video.get("n_fake"))

    @property
    def who(self) -> NameView:
        """The evaluation's name."""
        return NameView(name=self.evaluation.name, style=colour(self.evaluation.number))

    def labelled(self) -> LabelledScores | None:
        """Return its labelled scores by video; None without a table. Raises IntegrityError for contradicting labels."""
        if self.evaluation.scores is None:
            return None
        return of_entry(self.evaluation.scores, self.number).labelled().by_video()


def evaluated_data(evaluations: Sequence[Evaluation], leaky_sha256: Collection[str]) -> list[EvaluatedData]:
    """Return every evaluation on every data set; a name that one evaluation has twice gets a number.

    `leaky_sha256` are digests of checkpoints that are known to rest on a leaky split set.
    """
    found = []
    for evaluation in evaluations:
        seen: dict[str, int] = {}
        on_leaky = (
            evaluation.learnt_from.get("leaky") is True or str(evaluation.checkpoint.get("sha256")) in leaky_sha256
        )
        for number, entry in enumerate(evaluation.data):
            name = str(entry.get("name") or f"data {number}")
            seen[name] = seen.get(name, 0) + 1
            title = name if seen[name] == 1 else f"{name} ({seen[name]})"
            found.append(EvaluatedData(evaluation, number, title, on_leaky or entry.get("leaky") is True))
    return found


def by_title(found: Sequence[EvaluatedData]) -> dict[str, list[EvaluatedData]]:
    """Group evaluations by the name of their data."""
    groups: dict[str, list[EvaluatedData]] = {}
    for each in found:
        groups.setdefault(each.title, []).append(each)
    return groups


def incomparable(found: Sequence[EvaluatedData]) -> list[str]:
    """Say which data sets have the same name, but not the same samples: metrics on them cannot be compared."""
    lines = []
    for title, group in by_title(found).items():
        digests = {str(each.entry.get("samples_sha256")) for each in group}
        if len(digests) > 1:
            lines.append(f"not all evaluations on {title} used the same clips; their metrics are not comparable")
    return lines


def contradictions(found: Sequence[EvaluatedData]) -> Iterator[tuple[str, str]]:
    """Yield the names of evaluations whose scores give another AUC than their record, and what is wrong."""
    for each in found:
        labelled, said = each.labelled(), auc_of(each)[0]
        if labelled is None or said is None:
            continue
        computed = point_values(labelled.labels, labelled.p_fake)["auc"]
        if isinstance(computed, str) or abs(computed - said) > 1e-6:
            again = computed if isinstance(computed, str) else f"{computed:.3f}"
            yield (
                each.evaluation.name,
                (
                    f"{each.title}: scores.parquet and metrics.json do not belong together: AUC {again} by the one, "
                    f"{said:.3f} by the other"
                ),
            )


def level_of(evaluations: Sequence[Evaluation]) -> str:
    """Return the level of the intervals as a percentage."""
    requests = (mapping(mapping(evaluation.record.get("request")).get("bootstrap")) for evaluation in evaluations)
    levels = {level for request in requests if (level := finite(request.get("level"))) is not None}
    return " / ".join(f"{level:.0%}" for level in sorted(levels or {LEVEL})).replace("%", " %")


def data_views(found: Sequence[EvaluatedData]) -> tuple[DataView, ...]:
    """Return metrics and charts by data set."""
    return tuple(_data_view(title, group) for title, group in by_title(found).items())


def _data_view(title: str, group: Sequence[EvaluatedData]) -> DataView:
    results = [(each, mapping(each.entry.get("results"))) for each in group]
    videos = [_row(each, "all", mapping(mapping(found.get("all")).get("video"))) for each, found in results]
    clips = [
        _row(each, "all", mapping(mapping(found.get("all")).get("clip")), few=few_videos(*each.n_videos))
        for each, found in results
    ]
    rocs, histograms = [], []
    for each in group:
        labelled = each.labelled()
        if labelled is None or not len(labelled):
            continue
        points = roc_points(labelled)
        if points is not None:
            rocs.append((each, points))
        samples = {"real": labelled.p_fake[labelled.labels == 0], "fake": labelled.p_fake[labelled.labels == 1]}
        said = f"p_fake of {each.evaluation.name}"
        histograms.append((each.who, histogram(samples, Axis(low=0.0, high=1.0), said, "p_fake")))
    said = "; ".join(f"{each.evaluation.name} AUC {auc_text(each)}" for each, _ in rocs)
    return DataView(
        title=title,
        pairs=tuple(row for each in group for row in _pair_rows(each)),
        videos=tuple(videos),
        baselines=tuple(row for each in group for row in _baseline_row(each)),
        groups=tuple(_groups(results)),
        margins=tuple(_margins(group)),
        margin_chart=_margin_chart(title, group),
        clips=tuple(clips),
        reasons=tuple(dict.fromkeys(reason for each in group for reason in _reasons(each))),
        roc=roc_chart(f"ROC over videos of {title}: {said}", [(e.evaluation.number, *p) for e, p in rocs])
        if rocs
        else "",
        histograms=tuple(histograms),
    )


def _groups(results: Sequence[tuple[EvaluatedData, Record]]) -> Iterator[MetricsRow]:
    """Yield a row for each method, data set and compression, where there are several."""
    for kind, word in (("methods", "method"), ("datasets", "data set"), ("compressions", "compression")):
        names = list(dict.fromkeys(str(name) for _, found in results for name in mapping(found.get(kind))))
        if len(names) < 2:
            continue
        for name in names:
            for each, found in results:
                metrics = mapping(mapping(mapping(found.get(kind)).get(name)).get("video"))
                if metrics:
                    yield _row(each, f"{word} {name}", metrics)


def _pair_rows(each: EvaluatedData) -> Iterator[MetricsRow]:
    """Yield the accuracy of all pairs, of each method where there are several, and of clips of the same frames."""
    pairs = mapping(each.entry.get("pairs"))
    methods = mapping(pairs.get("methods"))
    named = {f"method {name}": found for name, found in methods.items()} if len(methods) > 1 else {}
    shared = mapping(pairs.get("shared")).get("all")
    for group, record in {"all": pairs.get("all"), **named, "clips of the same frames": shared}.items():
        found = mapping(record)
        n_pairs, n_originals = count(found.get("n_pairs")), count(found.get("n_originals"))
        if n_pairs:
            cell = _cell(found, few=few_videos(n_originals, n_pairs), drawn=True)
            yield MetricsRow(who=each.who, group=group, n=f"{n_pairs:,} of {n_originals:,} originals", cells=(cell,))


def _baseline_row(each: EvaluatedData) -> Iterator[MetricsRow]:
    """Yield the AUC with its baselines; nothing where none was measured."""
    scores = mapping(mapping(each.entry.get("baselines")).get("scores"))
    if scores:
        auc = _cell(mapping(each.video.get("auc")), few=few_videos(*each.n_videos), drawn=True)
        cells = [_cell(mapping(scores.get(name)), few=False, drawn=True) for name in BASELINES]
        yield replace(_row(each, "all", each.video), cells=(auc, *cells))


def _by_margin(each: EvaluatedData) -> Iterator[tuple[float, Record]]:
    """Yield each margin that an evaluation tried, from the least on, and its metrics by video."""
    found = each.entry.get("margins")
    tried = [mapping(one) for one in (found if isinstance(found, list) else [])]
    known = [(margin, mapping(one.get("video"))) for one in tried if (margin := finite(one.get("margin"))) is not None]
    yield from sorted(known, key=lambda one: one[0])


def _margins(group: Sequence[EvaluatedData]) -> Iterator[MetricsRow]:
    for each in group:
        usual = finite(each.evaluation.checkpoint.get("margin"))
        for margin, metrics in _by_margin(each):
            yield _row(each, f"margin {margin:g}{', its own' if margin == usual else ''}", metrics)


def _margin_chart(title: str, group: Sequence[EvaluatedData]) -> Markup | str:
    """Draw the AUC by margin of every evaluation that tried several."""
    lines = []
    for each in group:
        aucs = [(margin, finite(mapping(found.get("auc")).get("value"))) for margin, found in _by_margin(each)]
        points = [(margin, auc) for margin, auc in aucs if auc is not None]
        if len(points) > 1:
            lines.append((each.evaluation.name, each.evaluation.number, points))
    return margin_chart(f"AUC over videos of {title} by margin", lines) if lines else ""


def together_view(evaluations: Sequence[Evaluation]) -> TogetherView | None:
    """Return the metrics of evaluations on several data sets together, None for none."""
    rows: dict[str, list[MetricsRow]] = {"video": [], "clip": []}
    reasons = [SOURCES]
    for evaluation in evaluations:
        found = mapping(evaluation.record.get("together"))
        micro, macro = mapping(found.get("micro")), mapping(found.get("macro"))
        counts = mapping(micro.get("video"))
        few = few_videos(count(counts.get("n_real")), count(counts.get("n_fake")))
        who = NameView(name=evaluation.name, style=colour(evaluation.number))
        for level, mine in rows.items():
            if micro:
                mine.append(_metrics_row(who, "pooled (micro)", mapping(micro.get(level)), few=few))
            if macro:
                mine.append(_mean_row(who, mapping(macro.get(level))))
        for name, title in TITLES.items() if macro else ():
            metric = mapping(mapping(macro.get("video")).get(name))
            if finite(metric.get("value")) is None:
                reasons.append(f"{evaluation.name}: {title}: {metric.get('reason') or 'not measured'}")
    if not rows["video"]:
        return None
    return TogetherView(videos=tuple(rows["video"]), clips=tuple(rows["clip"]), reasons=tuple(dict.fromkeys(reasons)))


def _mean_row(who: NameView, metrics: Record) -> MetricsRow:
    """Return the row of means over data sets; a cell says where not all have the metric."""
    n = count(metrics.get("n_data_sets"))
    cells = []
    for name in TITLES:
        metric = mapping(metrics.get(name))
        cell, have = _cell(metric, few=False, drawn=name == "auc"), count(metric.get("n_data_sets"))
        cells.append(replace(cell, span=f"{have} of {n} data sets") if 0 < have < n else cell)
    return MetricsRow(who=who, group="mean (macro)", n=f"{n} data sets", cells=tuple(cells))


def _row(each: EvaluatedData, group: str, metrics: Record, *, few: bool | None = None) -> MetricsRow:
    """Return a row; `few` says that its intervals are not meaningful, where the counts of videos are not its own."""
    n_real, n_fake = count(metrics.get("n_real")), count(metrics.get("n_fake"))
    return _metrics_row(each.who, group, metrics, few=few_videos(n_real, n_fake) if few is None else few)


def _metrics_row(who: NameView, group: str, metrics: Record, *, few: bool) -> MetricsRow:
    n_real, n_fake = count(metrics.get("n_real")), count(metrics.get("n_fake"))
    return MetricsRow(
        who=who,
        group=group,
        n=f"{n_real:,} + {n_fake:,}",
        cells=tuple(_cell(mapping(metrics.get(name)), few=few, drawn=name == "auc") for name in TITLES),
    )


def _cell(metric: Record, *, few: bool, drawn: bool) -> CellView:
    value, low, high = (finite(metric.get(name)) for name in ("value", "low", "high"))
    if value is None:
        return CellView("–")
    if few and low is not None:
        return CellView(f"{value:.3f}", "not meaningful", interval(value, None, None) if drawn else "")
    span = "" if low is None or high is None else f"{low:.3f}–{high:.3f}"
    return CellView(f"{value:.3f}", span, interval(value, low, high) if drawn else "")


def _reasons(each: EvaluatedData) -> Iterator[str]:
    for name in TITLES:
        metric: Mapping[str, Any] = mapping(each.video.get(name))
        if finite(metric.get("value")) is None:
            yield f"{each.evaluation.name}: {metric.get('reason') or 'not measured'}"
    yield from (f"{each.evaluation.name}: {said}" for said in remarks(each.entry))


def auc_of(each: EvaluatedData) -> tuple[float | None, float | None, float | None]:
    """Return the AUC over videos and its interval, if that is meaningful."""
    metric = mapping(each.video.get("auc"))
    value = finite(metric.get("value"))
    if few_videos(*each.n_videos):
        return value, None, None
    return value, finite(metric.get("low")), finite(metric.get("high"))


def auc_text(each: EvaluatedData) -> str:
    """Spell the AUC over videos with its interval."""
    value, low, high = auc_of(each)
    if value is None:
        return f"none: {mapping(each.video.get('auc')).get('reason') or 'not measured'}"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}–{high:.3f}]"


def auc_bar(each: EvaluatedData) -> Markup | str:
    """Draw the AUC over videos with its interval."""
    value, low, high = auc_of(each)
    return "" if value is None else interval(value, low, high)
