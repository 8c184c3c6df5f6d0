"""`lps-train evaluate`: a detector on the splits of data sets, measured."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lps.cli.common import LpsCommand, NumberRange, echo
from lps.cli.train.data_sets import CERTIFICATE, named, require_different

if TYPE_CHECKING:
    from lps.model.data.sources import Sources
    from lps.model.evaluation.evaluate import EvaluateOptions

from lps.manifests.names import DEVICES, VIDEO_RULES


@click.command(cls=LpsCommand)
@click.option("--checkpoint", required=True, type=click.Path(dir_okay=False, path_type=Path),
              help="Detector: a checkpoint of classify or distill.")  # fmt: skip
@click.option("--data", multiple=True, metavar="[NAME=]OUT",
              help="Data set of lps-prep, folder or URL, and what to call it; may be given again.")  # fmt: skip
@click.option("--split", default="test", show_default=True, help="Split to evaluate on.")
@click.option("--split-set", metavar="SET", help="Split set.  [default: that of the shards]")
@click.option("--shards", multiple=True, metavar="[NAME=]PATTERN",
              help="Shards instead of --data: 'URL/test-{000000..000009}.tar'; may be given again.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the results.")
@click.option("--clips", default="3", show_default=True, metavar="N|all",
              help="Clips per video, spread evenly over it; 3 are the paper's 180 frames.")  # fmt: skip
@click.option("--video-score", type=click.Choice(VIDEO_RULES), default="max", show_default=True,
              help="Score of a video: its highest face (mean of its clips), or the mean of all clips.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Clips at a time.")
@click.option("--workers", type=click.IntRange(min=0), default=2, show_default=True, help="Decoding processes.")
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True,
              help="What computes; auto takes a GPU where there is one.")  # fmt: skip
@click.option("--bf16", is_flag=True, help="Run the encoder in bfloat16.")
@click.option("--fpr", type=NumberRange(0, 1, max_open=True),
              help="Choose the threshold at this false-positive rate.  [default: at the equal error rate]")  # fmt: skip
@click.option("--save-threshold", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Store threshold and temperature of the one data set, for `--threshold`.")  # fmt: skip
@click.option("--threshold", metavar="FILE|x", help="Say what this threshold does here.  [default: none but 0.5]")
@click.option("--max-bad-share", type=NumberRange(0, 1), default=0.01, show_default=True,
              help="Share of a data set's samples that may be unusable; they are counted and named.")  # fmt: skip
@click.option("--margins", metavar="m,m,…",
              help="Score all with these margins, too, such as 1.0,1.1,1.3, and tell the AUC of each.")  # fmt: skip
@click.option(
    "--allow-leaky",
    is_flag=True,
    help="Needed for a split set that is stamped leaky, and for what the detector learnt from elsewhere.",
)
@CERTIFICATE
@click.option("--board/--no-board", default=True, show_default=True,
              help="Write metrics, ROC and pictures of the worst errors into the TensorBoard log of the run that the "
              "checkpoint lies in.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json instead of a table.")
def evaluate(checkpoint: Path, out: Path, as_json: bool, **asked: Any) -> None:  # noqa: FBT001  click passes flags this way
    """Evaluate a detector: scores.parquet and metrics.json in --out, with 95 % intervals over videos.

    Several data sets give a row of the cross-data-set matrix. NAME is letters, digits, '_' and '-'; what exists as it
    stands is an OUT without a name. Each is measured as a whole, and by method, data set and compression where it has
    several; then all together, pooled (micro) and as the mean over data sets (macro). Where a class has fewer than 10
    videos, intervals are not meaningful and not shown. Interrupted, the same command resumes with the first data set
    that is not done.

    A detector sees the margin that it was trained with (`data.margin`), whatever the data set stores. --margins shows
    how much depends on it; choosing one by its result on a test set would make that result too good.

    Thresholds at the equal error rate and at false-positive rates, and the temperature that calibrates the scores of
    videos, are told of each. Choose yours on a validation split, and look at it on another one.

    \b
    Example:
      lps-train evaluate --checkpoint best.pt --data out/ --split val --out val/ --fpr 0.01 --save-threshold thr.json
      lps-train evaluate --checkpoint runs/ssd/checkpoints/best.pt --data ff=ffpp/ --data cdf=celebdf/ --out eval/
    """
    if not asked["data"] and not asked["shards"]:
        raise click.UsageError("name a data set (--data) or shards (--shards)")
    if asked["save_threshold"] and len(asked["data"]) + len(asked["shards"]) > 1:
        raise click.UsageError("--save-threshold takes one data set: a threshold is chosen on one validation split")
    asked["clips"], asked["margins"] = clip_count(asked["clips"]), margin_list(asked["margins"])
    names, asked["data"] = named(asked["data"])
    shard_names, asked["shards"] = named(asked["shards"], "--shards")
    require_different([*names, *shard_names], "--shards", "of --data and --shards")
    from lps.cli.train.evaluate_view import EvaluateProgress, print_metrics
    from lps.cli.train.thresholds import parse_threshold, print_thresholds, save_threshold, videos_of
    from lps.manifests.canonical import pretty_json
    from lps.model.evaluation.evaluate import evaluate
    from lps.model.evaluation.loading import load_detector
    from lps.model.evaluation.threshold import StoredThreshold

    options = evaluate_options(asked)
    given = None if asked["threshold"] is None else parse_threshold(asked["threshold"])
    loaded = load_detector(checkpoint)
    if isinstance(given, StoredThreshold):
        given.require_fit(loaded.sha256, options.video_score)
    with EvaluateProgress() as progress:
        record = evaluate(loaded, sources(asked), out, options, progress.on_event, [*names, *shard_names])
    if asked["board"]:
        from lps.model.report.board import write_evaluation

        echo(write_evaluation(out, checkpoint, asked["data"]), err=True)
    videos = videos_of(out, len(record["data"]))
    if asked["save_threshold"]:
        save_threshold(asked["save_threshold"], record, videos[0], asked["fpr"])
    if as_json:
        echo(pretty_json(record), nl=False)
        return
    print_metrics(record, out)
    print_thresholds([entry["name"] for entry in record["data"]], videos, asked["fpr"], given)


def evaluate_options(asked: dict[str, Any]) -> "EvaluateOptions":
    """Return how the work is done, of options whose texts were read."""
    from lps.model.evaluation.evaluate import EvaluateOptions

    return EvaluateOptions(
        n_clips=asked["clips"],
        video_score=asked["video_score"],
        bf16=asked["bf16"],
        batch_size=asked["batch_size"],
        n_workers=asked["workers"],
        device=asked["device"],
        max_bad_share=asked["max_bad_share"],
        margins=asked["margins"],
    )


def clip_count(text: str) -> int | None:
    """Return the number of clips per video, None for all. Raises BadParameter."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"must be a positive number or 'all', got '{text}'", param_hint="--clips")
    return int(text)


def margin_list(text: str | None) -> tuple[float, ...]:
    """Return the margins of --margins, each once. Raises BadParameter."""
    from lps.manifests.arrays import check_margin

    try:
        found = tuple(dict.fromkeys(float(each) for each in (text or "").split(",") if text))
        for margin in found:
            check_margin("a margin", margin)
    except ValueError as e:
        said = str(e) if str(e).startswith("a margin") else f"must be numbers with commas between, got '{text}'"
        raise click.BadParameter(said, param_hint="--margins") from e
    return found


def sources(asked: dict[str, Any]) -> "list[Sources]":
    """Return what is to be evaluated: data sets first, then shards."""
    from lps.model.data.sources import Sources

    certified = asked["require_certificate"]
    named = [
        Sources(
            data=data, split=asked["split"], split_set=asked["split_set"], val_split=None,
            allow_leaky=asked["allow_leaky"], require_certificate=certified,
        )
        for data in asked["data"]
    ]  # fmt: skip
    return named + [Sources(shards=shards, val_split=None, require_certificate=certified) for shards in asked["shards"]]
