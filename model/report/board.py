"""What TensorBoard shows of an evaluation beside the curves of its run: metrics, ROC curves, the worst errors.

It lies in a folder of its own below the run's, so that a run that is under way or resumed keeps its own files.
"""

import base64
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lps.manifests.canonical import canonical_json, sha256_hex
from lps.manifests.errors import LpsError, first_line
from lps.model.evaluation.metrics import TITLES
from lps.model.report.curves import roc_points
from lps.model.report.errors import ErrorView, FrameSource, errors_view, open_frame_sources
from lps.model.report.metrics import EvaluatedData, auc_text, evaluated_data
from lps.model.report.runs import count, finite, mapping, read_folders
from lps.model.training.run_folder import BEST, CONFIG, RESULT, read_json
from lps.model.training.run_log import BOARD, replace_board

MAX_ERRORS, MAX_DATA_SETS = 8, 8
"""Errors of each data set that become pictures, and data sets."""
CAPTION_PX = 20
ROC_PX = 480


def write_evaluation(out: Path, checkpoint: Path, data: Sequence[str]) -> str:
    """Write a finished evaluation into the TensorBoard log of its checkpoint's run; return what was done, for people.

    Args:
        out: folder of the evaluation.
        checkpoint: `RUN/checkpoints/*.pt`; one that lies elsewhere has no log.
        data: data sets (folders, URLs) to take the frames of errors from.

    An evaluation is worth more than its pictures: where these cannot be written, the answer says so.
    """
    run = checkpoint.absolute().parent.parent
    if not (run / CONFIG).is_file() or not (run / BOARD).is_dir():
        return f"TensorBoard: no log of a run beside {checkpoint}; no pictures of errors, no ROC"
    try:
        [evaluation] = read_folders([out])[1]
        sources, _ = open_frame_sources(data, [])
        found = evaluated_data([evaluation], ())[:MAX_DATA_SETS]
        request = sha256_hex(canonical_json(evaluation.record.get("request")))
        folder = run / BOARD / f"evaluate-{re.sub(r'[^A-Za-z0-9_.-]', '_', out.resolve().name)}-{request[:6]}"
        pictures = {tag: png for each in found for tag, png in _pictures(each, sources)}
        scalars = {tag: value for each in found for tag, value in _scalars(each)}
        replace_board(folder, _step(run, checkpoint), scalars, pictures)
    except (LpsError, OSError) as e:
        return f"TensorBoard: nothing written: {first_line(e)}"
    n_errors = sum("/error " in tag for tag in pictures)
    return f"TensorBoard: {n_errors} errors, {len(pictures) - n_errors} ROC curves: {folder}"


def _step(run: Path, checkpoint: Path) -> int:
    """Return the step of a checkpoint, as its name or the run's result says it; 0 where nothing does."""
    if named := re.fullmatch(r"step-(\d{1,15})\.pt", checkpoint.name):
        return int(named[1])
    finished = checkpoint.name == BEST and (run / RESULT).is_file()
    return count(read_json(run / RESULT).get("best_step")) if finished else 0


def _scalars(each: EvaluatedData) -> Iterator[tuple[str, float]]:
    for name in TITLES:
        value = finite(mapping(each.video.get(name)).get("value"))
        if value is not None:
            yield f"evaluate/{each.title}/{name}", value


def _pictures(each: EvaluatedData, sources: Sequence[FrameSource]) -> Iterator[tuple[str, bytes]]:
    """Yield the ROC and the worst errors by tag, as PNG."""
    labelled = each.labelled()
    points = None if labelled is None else roc_points(labelled)
    if points is not None:
        alarms, hits, at = points
        yield (
            f"evaluate/{each.title}/roc",
            _roc(f"{each.title}: AUC {auc_text(each)}", alarms.tolist(), hits.tolist(), at),
        )
    view = errors_view(each.evaluation, each.number, each.title, {}, sources, MAX_ERRORS)
    shown = [error for error in view.errors if error.image] if view is not None else []
    for k, error in enumerate(shown, 1):
        yield f"evaluate/{each.title}/error {k}", _captioned(error)


def _captioned(error: ErrorView) -> bytes:
    """Return the frames of an error with a line below that says what is wrong."""
    with Image.open(io.BytesIO(base64.b64decode(error.image.partition(",")[2])), formats=("JPEG",)) as strip:
        drawn = Image.new("RGB", (strip.width, strip.height + CAPTION_PX), "white")
        drawn.paste(strip)
    words = (f"{error.label}, called {error.called}, p_fake {error.p_fake:.3f}", *error.lines, error.uri)
    text = ", ".join(words).encode("ascii", "replace").decode()  # what Pillow's own font can draw
    place = (4, drawn.height - CAPTION_PX + 3)
    ImageDraw.Draw(drawn).text(place, text, fill="black", font=ImageFont.load_default(12))
    return _png(drawn)


def _roc(title: str, alarms: list[float], hits: list[float], at: tuple[float, float]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure((ROC_PX / 100, ROC_PX / 100), dpi=100, layout="tight")
    axes = figure.subplots()
    axes.plot(alarms, hits, drawstyle="default")
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.plot(*at, "o", fillstyle="none", color="black")
    axes.set(xlabel="reals called fake", ylabel="fakes called fake", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    axes.set_title(title, fontsize=9, wrap=True, parse_math=False)
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    with Image.open(sink) as image:
        return _png(image.convert("RGB"))


def _png(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG", optimize=True)
    return sink.getvalue()
