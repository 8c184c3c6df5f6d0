"""lps-train figure: the paper's figures from trained detectors and their scores."""

from pathlib import Path
from typing import Any

import click

PATH = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def figure() -> None:
    """Draw a figure of the paper.

    \b
    roc        ROC curves over videos                            (Figure 6)
    stability  scores of consecutive clips before, after         (Figure 5)
    featmap    frames and feature maps of the encoder            (Figure 9)
    tsne       spatial and context features in the plane         (Figure 10)
    failures   the most confident errors                         (Figure 11)

    \b
    Example:
      lps-train figure roc figs/ --scores LPS=runs/eval
    """


@figure.command()
@click.argument("out", type=PATH)
@click.option("--scores", multiple=True, required=True, metavar="NAME=DIR", help="An evaluation and its name.")
def roc(out: Path, scores: tuple[str, ...]) -> None:
    """Draw ROC curves over videos: OUT/roc.png and OUT/roc.csv.

    \b
    Example:
      lps-train figure roc figs/ --scores LPS=runs/eval-cls --scores LPS_ssd=runs/eval-ssd
    """
    from lps.model.figure_scores import draw_roc, read_evaluation

    named = {}
    for text in scores:
        name, sign, folder = text.partition("=")
        if not sign or not name or not folder:
            raise click.BadParameter(f"must be NAME=DIR, got '{text}'", param_hint="--scores")
        named[name] = read_evaluation(Path(folder))
    draw_roc(named, out)
    click.echo(out / "roc.png")


@figure.command()
@click.argument("out", type=PATH)
@click.option("--before", type=PATH, required=True, help="Evaluation of LPS, made with --clips all.")
@click.option("--after", type=PATH, required=True, help="Evaluation of LPS_ssd, made with --clips all.")
def stability(out: Path, before: Path, after: Path) -> None:
    """Draw p_fake over consecutive clips: OUT/stability.png and OUT/stability.json.

    \b
    Example:
      lps-train figure stability figs/ --before runs/eval-cls --after runs/eval-ssd
    """
    from lps.model.figure_scores import draw_stability, read_evaluation

    facts = draw_stability(read_evaluation(before), read_evaluation(after), out)
    for name in ("before", "after"):
        for kind in ("real", "fake"):
            found = facts[name][kind]
            if found["n_videos"]:
                deviation, flips = found["mean_deviation"], found["flips_per_video"]
                click.echo(
                    f"{name}, {kind}: deviation within a video {deviation:.3f}, {flips:.2f} changes of the verdict"
                )
    click.echo(out / "stability.png")


def data_options(command: Any) -> Any:
    """Give a command a detector and a split."""
    for decorator in reversed(
        [
            click.argument("out", type=PATH),
            click.option("--checkpoint", type=FILE, required=True, help="Detector."),
            click.option("--data", required=True, metavar="OUT", help="Data set of lps-prep: folder or URL."),
            click.option("--split", default="test", show_default=True, help="Split to show."),
            click.option("--split-set", metavar="SET", help="Split set.  [default: that of the shards]"),
            click.option("--allow-leaky", is_flag=True, help="Needed for a split set that is stamped leaky."),
        ]
    ):
        command = decorator(command)
    return command


def _opened(asked: dict[str, Any]) -> tuple[Any, Any]:
    from lps.model.checkpoint import load_detector
    from lps.model.setup import Sources, open_split

    sources = Sources(
        data=asked["data"], split=asked["split"], split_set=asked["split_set"], allow_leaky=asked["allow_leaky"],
        val_split=None,
    )  # fmt: skip
    return load_detector(asked["checkpoint"]), open_split(sources, asked["split"])


@figure.command()
@data_options
@click.option("--channel", type=click.Choice(["random", "maxvar"]), default="maxvar", show_default=True,
              help="Channel to show; the paper draws one at random.")  # fmt: skip
@click.option("--clips", type=click.IntRange(min=1), default=2, show_default=True, help="Clips of each class.")
def featmap(out: Path, channel: Any, clips: int, **asked: Any) -> None:
    """Draw frames and one channel of the encoder's map: OUT/featmap.png and OUT/featmap.npz.

    \b
    Example:
      lps-train figure featmap figs/ --checkpoint runs/cls/checkpoints/best.pt --data out/
    """
    from lps.model.figure_features import chosen, draw_feature_maps

    loaded, data = _opened(asked)
    keys, labels = data.samples["key"].to_pylist(), data.labels.tolist()
    picked = [key for label in (1, 0) for key in [k for k, v in zip(keys, labels, strict=True) if v == label][:clips]]
    draw_feature_maps(loaded, chosen(data, picked), out, channel=channel)
    click.echo(out / "featmap.png")


@figure.command()
@data_options
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the embedding.")
def tsne(out: Path, seed: int, **asked: Any) -> None:
    """Draw spatial and context features in the plane: OUT/tsne.png, .parquet and .json.

    \b
    Example:
      lps-train figure tsne figs/ --checkpoint runs/cls/checkpoints/best.pt --data out/
    """
    from lps.model.figure_features import draw_tsne, features_of

    loaded, data = _opened(asked)
    facts = draw_tsne(features_of(loaded, data), out, seed)
    for name in ("spatial", "context"):
        value = facts[f"{name}_silhouette"]
        click.echo(f"silhouette of {name} features: {'-' if value is None else f'{value:.3f}'}")
    click.echo(out / "tsne.png")


@figure.command()
@data_options
@click.option("--scores", type=PATH, required=True, help="Evaluation of this detector on this split.")
@click.option("--top", type=click.IntRange(min=1), default=8, show_default=True, help="Clips to show.")
def failures(out: Path, scores: Path, top: int, **asked: Any) -> None:
    """Draw the most confident errors: OUT/failures.png and OUT/failures.csv.

    \b
    Example:
      lps-train figure failures figs/ --scores runs/eval --checkpoint runs/cls/checkpoints/best.pt --data out/
    """
    from lps.model.figure_features import draw_failures
    from lps.model.figure_scores import read_evaluation

    loaded, data = _opened(asked)
    n = draw_failures(read_evaluation(scores), data, loaded, out, top)
    click.echo(out / "failures.png" if n else "no clip is on the wrong side of 0.5")
