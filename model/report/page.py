"""A training run, or several runs and evaluations side by side, as one self-contained HTML page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lps.manifests.pages.charts import number
from lps.manifests.pages.html import Mark, render_page
from lps.manifests.pages.pictures import DECODE_ERRORS, data_uri
from lps.model.evaluation.baselines import BASELINES
from lps.model.evaluation.metrics import TITLES
from lps.model.report.curves import Curve, colour, curves_chart, short, spans_decades
from lps.model.report.decisions import GivenThreshold, decision_views, read_thresholds, unused
from lps.model.report.errors import (
    STRIP_PX,
    ErrorsView,
    FrameSource,
    errors_view,
    of_entry,
    open_frame_sources,
    recorded_locations,
)
from lps.model.report.metrics import (
    EvaluatedData,
    auc_bar,
    auc_of,
    auc_text,
    by_title,
    contradictions,
    data_views,
    evaluated_data,
    incomparable,
    level_of,
    together_view,
)
from lps.model.report.runs import Evaluation, Series, TrainingRun, count, finite, mapping, read_folders
from lps.model.report.settings import (
    LEAKY,
    LEARNT,
    PLACES,
    differing,
    identities,
    name_view,
    seen_marks,
    setting_rows,
    shown_place,
    stamp,
)
from lps.model.report.views import CurveRow, CurveView, NameView, PictureView, ReportPageView, StageView, SummaryView
from lps.model.training.checkpoint import code_version
from lps.model.training.engine import WAIT_SHARE

FINISHED, UNFINISHED = Mark("FINISHED", "✓", "good"), Mark("UNFINISHED", "…", "open")
EVALUATED, NOTES = Mark("EVALUATED", "✓", "good"), Mark("SEE NOTES", "!", "warn")
FEW_VIDEOS = 10
"""Videos of a class below which the page warns: a bootstrap of so few cannot know what it has not seen."""
CURVES = {
    "loss": "Loss",
    "auc": "AUC over videos",
    "lr": "Learning rate",
    "grad_norm": "Norm of the gradient",
    "share_of_chance": "Loss as a share of chance",
    "selected": "Share of clips whose teacher is right",
    "wait_share": "Share of a step that waits for data",
    "floor_share": "Compute floor (a step on one cached batch) over a step",
}
"""Values that are drawn first, and their titles."""
NOT_DRAWN = ("step", "epoch", "n_clips")
MAX_CURVES = 24
"""Charts of one stage."""
PICTURES = {
    "second-diff": "Second differences of a face recognizer's features (Figure 2)",
    "second-diff-frames": "Frames of the second differences (Figure 1)",
    "stability": "Scores of consecutive clips (Figure 5)",
    "roc": "ROC over videos (Figure 6)",
    "align": "Faces with and without alignment (Figure 7)",
    "featmap": "Feature maps of the encoder (Figure 9)",
    "tsne": "Spatial and context features (Figure 10)",
    "failures": "Most confident errors (Figure 11)",
    "result": "Result of the experiment",
}
"""Titles of the figures that our commands draw."""
WORK_FOLDERS = ("checkpoints", "maps", "tensorboard", "parts")
MAX_PICTURES, MAX_PICTURE_BYTES, MAX_PICTURE_PIXELS = 24, 16 << 20, 40_000_000
PICTURE_PX = (1400, 2400)
"""Largest width and height of a figure on the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What a report shows besides runs and evaluations."""

    data: tuple[str, ...] = ()
    """Data sets (folders or URLs) to take the frames of errors from, besides those that the runs name."""
    n_errors: int = 8
    """Errors shown for each evaluation and data set."""
    gallery: str = ""
    """Address of the page of `lps-prep preview --html`, to which errors link."""
    thresholds: tuple[Path, ...] = ()
    """Files of `lps-train evaluate --save-threshold`."""


def render_report(folders: Sequence[Path], options: ReportOptions | None = None) -> str:
    """Return the page of runs and evaluations.

    Args:
        folders: of runs and evaluations, in the order in which they stand side by side.
        options: what else it shows.

    Raises UnreadableError for a folder that is neither, for damaged records, logs, scores and thresholds, and for a
    named data set that is not there; IntegrityError for scores that contradict themselves.
    """
    asked = options or ReportOptions()
    given = read_thresholds(asked.thresholds)
    runs, evaluations = read_folders(folders)
    return render_page(__package__, _page(runs, evaluations, asked, given))


def _page(
    runs: list[TrainingRun], evaluations: list[Evaluation], asked: ReportOptions, given: Sequence[GivenThreshold]
) -> ReportPageView:
    tainted = _tainted(runs)
    found = evaluated_data(evaluations, {run.best_sha256 for run in tainted.values()} - {""})
    lines = [_run_line(run, runs, leaky=run.number in tainted) for run in runs]
    summary = (*lines, *(_evaluation_line(each, runs) for each in found))
    leaky, learnt = (tuple(dict.fromkeys(x.who.name for x in summary if mark in x.marks)) for mark in (LEAKY, LEARNT))
    local, location_notes = recorded_locations([mapping(run.config.get("data")) for run in runs])
    sources, gone = open_frame_sources(asked.data, local) if evaluations else ([], [])
    rows = setting_rows(runs)
    pictures, picture_notes = _pictures([*runs, *evaluations])
    stamps, identity = identities(runs, found)
    notes = [*_notes(runs, evaluations, found), *picture_notes]
    notes += unused(given, found)
    notes += [("data", note) for note in (*location_notes, *gone)] if evaluations else []
    names = list(dict.fromkeys([*(run.name for run in runs), *(each.name for each in evaluations)]))
    return ReportPageView(
        verdict=_verdict(runs, evaluations, leaky, learnt),
        verdict_said=tuple(_said(runs, found, summary)),
        leaky=leaky,
        learnt=learnt,
        title=names[0] if len(names) == 1 else f"{len(names)} folders: {', '.join(names)}",
        summary=summary,
        notes=tuple(dict.fromkeys(notes)),
        level=level_of(evaluations),
        data=data_views(found),
        decisions=decision_views(found, given),
        together=together_view(evaluations),
        heads=tuple(TITLES.values()),
        baseline_heads=(TITLES["auc"], *(f"{words} alone" for words in BASELINES.values())),
        errors=tuple(_errors(found, sources, asked)),
        strip_px=STRIP_PX,
        stages=tuple(_stages(runs)),
        runs=tuple(name_view(run) for run in runs),
        settings=differing(rows),
        all_settings=rows,
        stamps=stamps,
        identity=identity,
        pictures=tuple(pictures),
        made_by=f"Made by lps-train {code_version()['lps-prep']}",
    )


def _verdict(
    runs: Sequence[TrainingRun], evaluations: Sequence[Evaluation], leaky: Sequence[str], learnt: Sequence[str]
) -> Mark:
    if leaky or learnt:
        return Mark("Leaky split" if leaky else "Measured on videos learnt from", "✕", "bad")
    tone, symbol = ("good", "✓") if all(run.result is not None for run in runs) else ("open", "…")
    if len(runs) + len(evaluations) == 1:
        word = ("Finished" if runs[0].result is not None else "Unfinished") if runs else "Evaluated"
    else:
        counts = ((len(runs), "run"), (len(evaluations), "evaluation"))
        word = ", ".join(f"{n} {name}{'s' if n > 1 else ''}" for n, name in counts if n)
    return Mark(word, symbol, tone)


def _said(runs: Sequence[TrainingRun], found: Sequence[EvaluatedData], summary: Sequence[SummaryView]) -> Iterator[str]:
    """Yield the page in a few sentences."""
    if len(summary) == 1:
        line = summary[0]
        yield f"{line.who.name}: {line.kind}; {line.how_far}; {line.metric}."
        return
    if runs:
        open_runs = [run.name for run in runs if run.result is None]
        yield f"Not finished: {', '.join(open_runs)}." if open_runs else "All runs are finished."
    for title, group in by_title(found).items():
        # A leak flatters, and other samples are another question: such metrics are not ranked.
        fair = [each for each in group if each.fair]
        yield from (f"{title}: {line}" for line in (_ranked(fair) if not incomparable(fair) else map(_alone, fair)))


def _ranked(group: Sequence[EvaluatedData]) -> Iterator[str]:
    """Yield which AUC is the highest, and whose intervals reach up to its own."""
    ranked = sorted((each for each in group if auc_of(each)[0] is not None), key=lambda each: -(auc_of(each)[0] or 0.0))
    if not ranked:
        return
    yield ("highest " if len(ranked) > 1 else "") + _alone(ranked[0])
    low = auc_of(ranked[0])[1]
    near = [each.evaluation.name for each in ranked[1:] if low is not None and (auc_of(each)[2] or 0.0) >= low]
    if near:
        yield f"its interval overlaps with that of {', '.join(near)}."


def _alone(each: EvaluatedData) -> str:
    n_real, n_fake = each.n_videos
    return f"AUC {auc_text(each)}, {each.evaluation.name} on {n_real:,} real and {n_fake:,} fake videos."


def _tainted(runs: Sequence[TrainingRun]) -> dict[int, TrainingRun]:
    """Return by number the runs that learn from a leaky split set, and those that start from such runs."""
    found = {run.number: run for run in runs if run.leaky}
    for _ in runs:
        digests = {run.best_sha256 for run in found.values()} - {""}
        found |= {run.number: run for run in runs if _start(run) in digests}
    return found


def _start(run: TrainingRun) -> str:
    return str(run.config.get("init_sha256") or "")


def _run_line(run: TrainingRun, runs: Sequence[TrainingRun], *, leaky: bool) -> SummaryView:
    marks = [UNFINISHED if run.result is None else FINISHED]
    marks += [LEAKY] if leaky else [stamp(None)] if run.data and run.leaky is None else []
    wanted = mapping(mapping(run.config.get("preset")).get("train")).get("epochs")
    if run.stage == "svm":
        how_far = "fitted at once"
    elif run.result is not None:
        n_epochs, n_steps = (count(run.result.get(name)) for name in ("epochs", "steps"))
        how_far = f"{n_epochs} of {count(wanted)} epochs, {n_steps:,} steps"
    else:
        how_far = f"in epoch {run.log.last_epoch} of {count(wanted)}, {run.log.last_step:,} steps logged"
    parents = [f"'{other.name}'" for other in runs if other.best_sha256 and other.best_sha256 == _start(run)]
    init = str(run.config.get("init"))
    parents.append("random weights" if init == "random" else shown_place(init, PLACES["init"]))
    return SummaryView(
        who=name_view(run),
        kind=f"{run.stage}, from {parents[0]}",
        marks=tuple(marks),
        how_far=how_far,
        metric=_best(run),
    )


def _best(run: TrainingRun) -> str:
    """Say what validation found at its best; such a metric chose its own checkpoint and has no interval."""
    auc, loss = (run.log.series.get(("validation", name)) for name in ("auc", "loss"))
    if run.result is not None:
        best, step = finite(run.result.get("best")), count(run.result.get("best_step"))
        if best is None:
            return "no validation"
        by_auc = auc is not None or run.stage == "svm"
        value = f"AUC {best:.3f}" if by_auc else f"loss {number(-best)}"
        return f"best validation {value}" + (f" at step {step:,}" if step else "")
    if auc is not None:
        losses = loss.values if loss is not None and len(loss.values) == len(auc.values) else np.zeros(len(auc.values))
        k = int(np.lexsort((losses, -auc.values))[0])
        return f"best validation AUC so far {auc.values[k]:.3f} at step {int(auc.steps[k]):,}"
    if loss is not None:
        k = int(np.argmin(loss.values))
        return f"best validation loss so far {number(float(loss.values[k]))} at step {int(loss.steps[k]):,}"
    return "not validated yet"


def _evaluation_line(each: EvaluatedData, runs: Sequence[TrainingRun]) -> SummaryView:
    entry, checkpoint = each.entry, each.evaluation.checkpoint
    sha256 = str(checkpoint.get("sha256") or "")
    of = [f"'{run.name}'" for run in runs if sha256 and run.best_sha256 == sha256]
    of.append(f"{checkpoint.get('stage')} {sha256[:12]}")
    known = isinstance(entry.get("leaky"), bool)
    marks = [EVALUATED, *([LEAKY] if each.leaky else [] if known else [stamp(None)])]
    marks += [*seen_marks(each), *([NOTES] if entry.get("notes") else [])]
    n_real, n_fake = each.n_videos
    return SummaryView(
        who=each.who,
        kind=f"evaluation of {of[0]}",
        marks=tuple(marks),
        how_far=f"{each.title}: {n_real:,} real + {n_fake:,} fake videos",
        metric=f"AUC {auc_text(each)}",
        bar=auc_bar(each),
    )


def _notes(
    runs: Sequence[TrainingRun], evaluations: Sequence[Evaluation], found: Sequence[EvaluatedData]
) -> Iterator[tuple[str, str]]:
    """Yield what weakens a metric or is missing, with the name that it is about."""
    for run in runs:
        yield from ((run.name, note) for note in _run_notes(run))
    for each in found:
        if 0 < min(each.n_videos) < FEW_VIDEOS:
            few = "{:,} real and {:,} fake videos are too few: its metrics and intervals say little"
            yield each.evaluation.name, f"{each.title}: {few.format(*each.n_videos)}"
        said = each.entry.get("notes")
        for note in said if isinstance(said, list) else []:
            yield each.evaluation.name, f"{each.title}: {note}"
        for name, words in (
            ("n_bad_samples", "bad samples were left out"),
            ("n_unlabelled_clips", "clips without a label are scored, not measured"),
        ):
            if count(each.entry.get(name)):
                yield each.evaluation.name, f"{each.title}: {count(each.entry.get(name))} {words}"
    for evaluation in evaluations:
        yield from ((evaluation.name, note) for note in evaluation.notes)
    yield from contradictions(found)
    yield from (("comparison", line) for line in incomparable(found))


def _run_notes(run: TrainingRun) -> Iterator[str]:
    yield from run.notes
    said = (run.result or {}).get("notes")
    yield from map(str, said if isinstance(said, list) else ())
    n_bad = count((run.result or {}).get("n_bad_samples"))
    if n_bad:
        yield f"{n_bad} bad samples were left out; its result.json names them"
    waits = run.log.series.get(("speed", "wait_share"))
    if waits is not None and waits.values.mean() > WAIT_SHARE:
        yield f"its steps waited for data for {waits.values.mean():.0%} of their time; see run.workers"
    if run.result is not None and not run.log.series and run.stage != "svm":
        yield "there is no log.jsonl, and so there are no curves"


def _stages(runs: Sequence[TrainingRun]) -> Iterator[StageView]:
    """Yield the curves stage by stage: losses of different stages do not belong on one axis."""
    for stage in dict.fromkeys(run.stage for run in runs):
        mine = [run for run in runs if run.stage == stage and run.log.series]
        logged = {name for run in mine for _, name in run.log.series} - set(NOT_DRAWN)
        names = [name for name in CURVES if name in logged] + sorted(logged - set(CURVES))
        views = [(name, _curve(name, mine)) for name in names[:MAX_CURVES]]
        if views:
            yield StageView(
                stage=stage,
                names=tuple(name_view(run) for run in mine),
                charts=tuple(view for name, view in views if name in CURVES),
                folded=tuple(view for name, view in views if name not in CURVES),
            )


def _curve(name: str, runs: Sequence[TrainingRun]) -> CurveView:
    curves = []
    for run in runs:
        train, validation = (run.log.series.get((kind, name)) for kind in ("step", "validation"))
        train = train or run.log.series.get(("speed", name))
        best = (run.result or {}).get("best_step")
        curves.append(
            Curve(
                name=run.name,
                number=run.number,
                train=train,
                validation=None if name == "lr" and train is not None else validation,  # the same, told again
                best_step=best if isinstance(best, int) else None,
            )
        )
    curves = [curve for curve in curves if curve.train is not None or curve.validation is not None]
    shown = [series.values for curve in curves for series in (curve.train, curve.validation) if series is not None]
    log = name != "lr" and spans_decades(shown)  # a schedule that ends near 0 would be all decades
    title = CURVES.get(name, name)
    return CurveView(
        title=title,
        said="logarithmic" if log else "",
        chart=curves_chart(title, curves, log=log),
        rows=tuple(
            CurveRow(
                who=NameView(name=curve.name, style=colour(curve.number)),
                train=_course(curve.train),
                validation=_course(curve.validation),
                best=_at_best(curve),
            )
            for curve in curves
        ),
    )


def _course(series: Series | None) -> str:
    if series is None or not len(series.values):
        return "–"
    first, last = (short(float(series.values[k])) for k in (0, -1))
    return f"{first} → {last}" if len(series.values) > 1 else last


def _at_best(curve: Curve) -> str:
    if curve.validation is None or curve.best_step is None:
        return "–"
    places = np.flatnonzero(curve.validation.steps == curve.best_step)
    return f"{short(float(curve.validation.values[places[-1]]))} at {curve.best_step:,}" if len(places) else "–"


def _errors(
    found: Sequence[EvaluatedData], sources: Sequence[FrameSource], asked: ReportOptions
) -> Iterator[ErrorsView]:
    for each in found:
        others = {
            other.evaluation.name: of_entry(other.evaluation.scores, other.number)
            for other in found
            if other is not each and other.title == each.title and other.evaluation.scores is not None
        }
        view = errors_view(each.evaluation, each.number, each.title, others, sources, asked.n_errors, asked.gallery)
        if view is not None:
            yield view


def _pictures(
    items: Sequence[TrainingRun | Evaluation],
) -> tuple[list[PictureView], list[tuple[str, str]]]:
    """Return the figures in the folders and just below them, and notes on those that cannot be shown."""
    views: list[PictureView] = []
    notes: list[tuple[str, str]] = []
    for folder, item in {item.folder: item for item in items}.items():
        files = [path for path in sorted([*folder.glob("*.png"), *folder.glob("*/*.png")]) if path.is_file()]
        for path in files:
            inside = path.relative_to(folder)
            if inside.parts[0] in WORK_FOLDERS or inside.name.startswith("."):
                continue
            if len(views) == MAX_PICTURES:
                notes.append((item.name, f"more than {MAX_PICTURES} figures; the rest is not shown"))
                break
            drawn = _picture(path)
            if drawn is None:
                notes.append((item.name, f"figure {inside.as_posix()} cannot be read, and is not shown"))
                continue
            title = PICTURES.get(path.stem, inside.as_posix())
            who = NameView(name=item.name, style=colour(item.number))
            views.append(PictureView(who=who, title=title, image=drawn[0], size=drawn[1]))
    return views, notes


def _picture(path: Path) -> tuple[str, tuple[int, int]] | None:
    """Return a figure as a data URI, drawn anew so that nothing but its pixels gets into the page, and its size."""
    try:
        if path.stat().st_size > MAX_PICTURE_BYTES:
            return None
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PICTURE_PIXELS:
                return None
            drawn = Image.new("RGB", image.size, "white")
            rgba = image.convert("RGBA")
            drawn.paste(rgba, mask=rgba.getchannel("A"))
    except DECODE_ERRORS:
        return None
    drawn.thumbnail(PICTURE_PX, Image.Resampling.LANCZOS)
    return data_uri(drawn, "png"), drawn.size
