"""lps-train figure: the paper's figures from trained detectors and their scores."""

from pathlib import Path
from typing import Any

import click

from lps.cli.common import NumberRange, SubGroup, echo
from lps.manifests.names import CHANNELS

PATH = click.Path(file_okay=False, path_type=Path)
MARGIN = NumberRange(1.0, 2.0)
"""MIN_MARGIN to MAX_MARGIN of `lps.manifests.arrays`, which is not imported at the start: it brings numpy."""
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(cls=SubGroup)
def figure() -> None:
    """Draw a figure of the paper.

    \b
    second-diff  second differences of a face recognizer's features (Figures 1, 2)
    stability    scores of consecutive clips before, after          (Figure 5)
    roc          ROC curves over videos                             (Figure 6)
    align        faces with and without alignment                   (Figure 7)
    featmap      frames and feature maps of the encoder             (Figure 9)
    tsne         spatial and context features in the plane          (Figure 10)
    failures     the most confident errors                          (Figure 11)
    self-blend   real clips, masks and the self-blends made of them (not in the paper)

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
    from lps.model.paper.figures.scores import draw_roc, read_evaluation

    draw_roc({name: read_evaluation(Path(folder)) for name, folder in _named(scores, "--scores", "DIR").items()}, out)
    echo(out / "roc.png")


def _named(texts: tuple[str, ...], option: str, what: str) -> dict[str, str]:
    """Return what options of the form NAME=VALUE say. Raises BadParameter, also for a name that comes twice."""
    named: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            raise click.BadParameter(f"must be NAME={what}, got '{text}'", param_hint=option)
        if name in named:
            raise click.BadParameter(f"the name '{name}' comes twice", param_hint=option)
        named[name] = value
    return named


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
    from lps.model.paper.figures.scores import draw_stability, read_evaluation

    facts = draw_stability(read_evaluation(before), read_evaluation(after), out)
    for name in ("before", "after"):
        for kind in ("real", "fake"):
            found = facts[name][kind]
            if found["n_videos"]:
                deviation, flips = found["mean_deviation"], found["flips_per_video"]
                echo(f"{name}, {kind}: deviation within a video {deviation:.3f}, {flips:.2f} changes of the verdict")
    echo(out / "stability.png")


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
    from lps.model.data.sources import Sources, open_split
    from lps.model.evaluation.loading import load_detector

    sources = Sources(
        data=asked["data"], split=asked["split"], split_set=asked["split_set"], allow_leaky=asked["allow_leaky"],
        val_split=None,
    )  # fmt: skip
    return load_detector(asked["checkpoint"]), open_split(sources, asked["split"])


@figure.command()
@data_options
@click.option("--channel", type=click.Choice(CHANNELS), default="maxvar", show_default=True,
              help="Channel to show; the paper draws one at random.")  # fmt: skip
@click.option("--clips", type=click.IntRange(min=1), default=2, show_default=True, help="Clips of each class.")
def featmap(out: Path, channel: Any, clips: int, **asked: Any) -> None:
    """Draw frames and one channel of the encoder's map: OUT/featmap.png and OUT/featmap.npz.

    \b
    Example:
      lps-train figure featmap figs/ --checkpoint runs/cls/checkpoints/best.pt --data out/
    """
    from lps.model.paper.figures.features import chosen, draw_feature_maps

    loaded, data = _opened(asked)
    keys, labels = data.samples["key"].to_pylist(), data.labels.tolist()
    picked = [key for label in (1, 0) for key in [k for k, v in zip(keys, labels, strict=True) if v == label][:clips]]
    draw_feature_maps(loaded, chosen(data, picked), out, channel=channel)
    echo(out / "featmap.png")


@figure.command()
@data_options
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the embedding.")
def tsne(out: Path, seed: int, **asked: Any) -> None:
    """Draw spatial and context features in the plane: OUT/tsne.png, .parquet and .json.

    \b
    Example:
      lps-train figure tsne figs/ --checkpoint runs/cls/checkpoints/best.pt --data out/
    """
    from lps.model.paper.figures.features import draw_tsne, features_of

    loaded, data = _opened(asked)
    facts = draw_tsne(features_of(loaded, data), out, seed)
    for name in ("spatial", "context"):
        value = facts[f"{name}_silhouette"]
        echo(f"silhouette of {name} features: {'-' if value is None else f'{value:.3f}'}")
    echo(out / "tsne.png")


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
    from lps.model.paper.figures.features import draw_failures
    from lps.model.paper.figures.scores import read_evaluation

    loaded, data = _opened(asked)
    n = draw_failures(read_evaluation(scores), data, loaded, out, top)
    echo(out / "failures.png" if n else "no clip is on the wrong side of 0.5")


@figure.command("second-diff")
@click.argument("out", type=PATH)
@click.option("--data", multiple=True, required=True, metavar="NAME=OUT",
              help="Data set of lps-prep and its name; may be given again.")  # fmt: skip
@click.option("--recognizer", multiple=True, metavar="NAME=FILE",
              help="Weights of facenet-pytorch's FaceNet, or any network as .onnx; may be given again.")  # fmt: skip
@click.option("--videos", type=click.IntRange(min=2), default=1000, show_default=True,
              help="Videos of each class and data set, at most.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws videos and frames.")
def second_diff(out: Path, data: tuple[str, ...], recognizer: tuple[str, ...], videos: int, seed: int) -> None:
    """Draw how a face recognizer's features change over three frames, real beside fake.

    Writes OUT/second-diff.png (Figure 2: means over videos, fake over real), second-diff-frames.png (Figure 1: single
    videos), the statistics with intervals as .json and all maps as .npz. Splits play no part: nothing is learnt.

    A network as .onnx takes (n, 3, H, W), RGB, 0 to 255, and returns the map of its last convolution, (n, C, h, w).
    It needs pip install 'lps-prep[export]'.

    \b
    Example:
      lps-train figure second-diff figs/ --data ffpp=ffpp/ --recognizer facenet=20180402-114759-vggface2.pt
    """
    from lps.manifests.errors import UnreadableError
    from lps.model.paper.figures.clips import open_whole
    from lps.model.paper.figures.second_difference import draw_second_difference
    from lps.model.paper.recognizer import HOW_TO_GET, open_recognizer

    places, files = _named(data, "--data", "OUT"), _named(recognizer, "--recognizer", "FILE")
    if not files:
        raise UnreadableError(f"no weights of a face recognizer; {HOW_TO_GET}")
    networks = [open_recognizer(name, Path(file)) for name, file in files.items()]
    sets = {name: open_whole(place) for name, place in places.items()}
    for record in draw_second_difference(networks, sets, out, videos, seed):
        head = f"{record['recognizer']} on {record['data']}, {record['n_real']} real and {record['n_fake']} fake videos"
        echo(f"{head}, fake over real:")
        for name, found in record["statistics"].items():
            ratio = found["fake_over_real"]
            shown = ["-" if ratio[key] is None else f"{ratio[key]:.3f}" for key in ("value", "low", "high")]
            echo(f"  {name:<9} {shown[0]} ({shown[1]} to {shown[2]})")
    echo(out / "second-diff.png")


@figure.command()
@click.argument("out", type=PATH)
@click.option("--data", required=True, metavar="OUT", help="Data set of aligned clips: folder or URL.")
@click.option("--unaligned", metavar="OUT", help="The same videos by lps-prep run --no-align.")
@click.option("--source", metavar="DIR|URL", help="Root of the source videos, to show the whole frames, too.")
@click.option("--clips", type=click.IntRange(min=1), default=3, show_default=True, help="Videos of each class.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws the videos.")
def align(out: Path, data: str, unaligned: str | None, source: str | None, clips: int, seed: int) -> None:
    """Draw faces with and without alignment: OUT/align.png.

    Needs --unaligned, --source or both. With --source the whole frames are shown with the detector's box (dashed), its
    points and the outline of the aligned face; without --unaligned the crop is then made here.

    \b
    Example:
      lps-train figure align figs/ --data ffpp/ --source FaceForensics++/
    """
    from lps.model.paper.figures.align import alignment_examples, draw_alignment, open_clips

    if unaligned is None and source is None:
        raise click.UsageError("there is nothing to compare with: give --unaligned, --source or both")
    crops = None if unaligned is None else open_clips(unaligned, aligned=False)
    examples = alignment_examples(open_clips(data, aligned=True), crops, clips, seed)
    if source is not None:
        from lps.cli.train.originals import with_originals

        examples = with_originals(examples, data, source)
    draw_alignment(examples, out)
    echo(out / "align.png")


@figure.command("self-blend")
@click.argument("out", type=PATH)
@click.option("--data", required=True, metavar="OUT", help="Data set of lps-prep: folder or URL.")
@click.option("--split", default="train", show_default=True, help="Split to show.")
@click.option("--split-set", metavar="SET", help="Split set.  [default: that of the shards]")
@click.option("--clips", type=click.IntRange(min=1), default=3, show_default=True, help="Real clips to show.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws clips and blends.")
@click.option("--margin", type=MARGIN, default=1.0, show_default=True,
              help="What is cut out of each frame, in sides of the aligned face, as by data.margin.")  # fmt: skip
def self_blend(out: Path, data: str, split: str, split_set: str | None, clips: int, seed: int, margin: float) -> None:
    """Draw frames of real clips, the mask, and their self-blends: OUT/self-blend.png.

    As [fakes] kind = "self-blend" makes them, before augmentation. Nothing is learnt: leaky splits will do.

    \b
    Example:
      lps-train figure self-blend figs/ --data out/
      lps-train figure self-blend figs/ --data out/ --margin 1.3
    """
    from lps.model.data.sources import Sources
    from lps.model.paper.figures.self_blend import draw_self_blends

    sources = Sources(data=data, split=split, split_set=split_set, allow_leaky=True)
    draw_self_blends(sources, out, clips, seed, margin)
    echo(out / "self-blend.png")
