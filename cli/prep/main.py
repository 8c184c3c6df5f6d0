"""lps-prep: videos in, sharded face clips and manifests out."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lps.cli.common import VERSION, LpsGroup, NumberRange, echo, json_option, show_or_write
from lps.manifests.errors import RefusedError, TooManyFailedError
from lps.manifests.names import AUTO, CODECS, CONVERT_KINDS, DATASETS, LOCALIZERS, PAIRINGS, RULES, ConvertKind

if TYPE_CHECKING:
    from lps.pipeline.job.finalize import Summary
    from lps.pipeline.job.request import PrepRequest, RunOptions

F = TypeVar("F", bound=Callable[..., Any])


@click.group(cls=LpsGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="lps-prep")
def main() -> None:
    """Turn deepfake-video data sets into aligned face clips in WebDataset shards with Parquet manifests.

    \b
    Exit codes: 0 done, 1 done, but without a clip or with too many videos quarantined, 2 wrong usage,
    3 refused (parameters or sources changed, OUT is being written by another run), 4 something cannot be read
    or written, or the packages of a command are missing (pip install 'lps-prep[prep]'), 5 committed bytes are
    wrong, 130 Ctrl-C, 143 SIGTERM: committed shards are kept, the same command resumes.

    \b
    Example:
      lps-prep run videos/ out/ --dataset folder --localizer mtcnn
    """


def split_list_option(command: F) -> F:
    """Give a command the option `--split-list`."""
    help_text = "List of DeepfakeBench that gives the splits, for the rules official; may be given again."
    return click.option("--split-list", "split_lists", multiple=True, metavar="FILE|URL", help=help_text)(command)


def job_options(command: F) -> F:
    """Give a command the arguments that describe a data set and how to make it."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    folder = click.Path(file_okay=False, path_type=Path)
    option = partial(click.option, show_default=True)
    decorators = [
        click.argument("source"),
        click.argument("out"),
        option(
            "--dataset",
            type=click.Choice((*DATASETS, AUTO)),
            default="folder",
            help="Layout of SOURCE (see `lps-prep sources`); auto: as its files show.",
        ),
        option("--root", metavar="DIR|URL", help="Where the paths of a table begin.  [default: the table's folder]"),
        option("--localizer", type=click.Choice(LOCALIZERS), default=LOCALIZERS[0], help="Detector and landmarks."),
        option("--split", "rule", type=click.Choice(RULES), default="group", help="Split rule."),
        option("--clips", default="1", metavar="N|all", help="Clips per video."),
        option("--workers", type=click.IntRange(min=1), help="Videos at a time.  [default: one a usable CPU]"),
        option("--seed", type=click.IntRange(min=0), default=0, help="Decides clip starts, order and split."),
        option("--codec", type=click.Choice(CODECS), default="jpg", help="Image format of the frames."),
        option(
            "--pairing",
            type=click.Choice(PAIRINGS),
            default="none",
            help="original: a fake takes frames, boxes and transforms of its original, where both line up.",
        ),
        option("--no-align", is_flag=True, help="Crop the face box instead of aligning it."),
        option("--params", "params_file", type=file, help="TOML file with all other parameters (docs/prep.md)."),
        option("--splits-dir", metavar="DIR|URL", help="Published split lists of the data set."),
        split_list_option,
        option("--weights-dir", type=folder, help="Folder with weight files (see `lps-prep weights`)."),
        option(
            "--address", help="Join this running Ray cluster, or `auto`: RAY_ADDRESS. Else a private one is started."
        ),
        option("--i-understand-leakage", is_flag=True, help="Needed for `--split random`, whose splits share people."),
    ]
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


@main.command()
@job_options
@click.option(
    "--max-failed", type=NumberRange(0, 100), default=5.0, show_default=True, metavar="PERCENT",
    help="Share of quarantined videos above which the exit code is 1.",
)  # fmt: skip
@click.option("--verify", is_flag=True, help="Compare every byte of what was committed before, not sizes alone.")
def run(max_failed: float, verify: bool, **asked: Any) -> None:  # noqa: FBT001  click passes flags this way
    """Make the data set OUT from the videos of SOURCE, or finish one that was begun.

    SOURCE and OUT are folders or fsspec URLs (s3://bucket/prefix). Stop it at any time and run it again: committed
    shards are kept, those whose tar is lost or cut are made again, and the result has the same bytes.

    \b
    Example:
      lps-prep run /data/FaceForensics s3://bucket/ffpp-c23 --dataset ffpp --split official --workers 64
    """
    from lps.cli.prep.progress import PrepProgress, print_summary
    from lps.pipeline.job.run import run_job

    request, options = _job(asked)
    with PrepProgress() as progress:
        summary = run_job(request, replace(options, verify=verify), progress.on_event)
    print_summary(summary, request.out)
    check_summary(summary, max_failed)


@main.command()
@job_options
@json_option
def plan(json_to: Path | None, **asked: Any) -> None:
    """Make the plan of OUT and print what a run would make and cost; no video is processed.

    \b
    Example:
      lps-prep plan /data/dfdc out/ --dataset dfdc --clips 4
    """
    from lps.cli.prep.progress import PrepProgress, plan_record, print_plan
    from lps.pipeline.job.run import plan_job

    request, options = _job(asked)
    with PrepProgress() as progress:
        made = plan_job(request, options, progress.on_event)
    show_or_write(json_to, lambda: plan_record(made), lambda: print_plan(made))


@main.command()
@click.argument("layout", required=False, metavar="[ID]", type=click.Choice(DATASETS))
def sources(layout: str | None) -> None:
    """List the data sets that can be read, with counts and what is known of leakage; ID: one of them in full.

    ID is the value of `--dataset`. In full are the files that SOURCE holds, where labels and splits come from, and the
    page of the owner with licence and access.

    \b
    Example:
      lps-prep sources celebdf-pp
    """
    from lps.cli.prep.sources import print_layout, print_layouts

    if layout is None:
        print_layouts()
    else:
        print_layout(layout)


@main.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--workers", type=click.IntRange(min=1), help="Videos at a time [default: one a usable CPU].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides the sample videos.")
def demo(out: Path, workers: int | None, seed: int) -> None:
    """Make sample videos, then everything on them: offline, on the CPU, in about two minutes.

    \b
    Example:
      lps-prep demo build/demo
    """
    from lps.cli.prep.demo import run_demo

    run_demo(out, workers=workers, seed=seed)


@main.command()
@click.argument("out")
@json_option
def status(out: str, json_to: Path | None) -> None:
    """Show how far OUT is: shards and videos done, counts by split, label and code.

    \b
    Example:
      lps-prep status s3://bucket/ffpp-c23 --json
    """
    from lps.cli.prep.progress import print_status
    from lps.pipeline.job.status import read_status

    found = read_status(out)
    show_or_write(json_to, found.record, lambda: print_status(found, out))


@main.command()
@click.argument("out")
@click.option("--code", "codes", multiple=True, required=True, help="Error code to reopen; may be given again.")
@click.option("--replan", is_flag=True, help="Allow that all shards are made again, if the plan itself has the code.")
def retry(out: str, codes: tuple[str, ...], replan: bool) -> None:  # noqa: FBT001  click passes flags this way
    """Reopen the videos of OUT that ended with a code, so that the next run tries them again.

    The shards that hold them are rebuilt; all others stay as they are. Only a fault that was found before the plan was
    made, as in a header, is part of the plan, which is then made anew with all of its shards.

    \b
    Example:
      lps-prep retry out/ --code E_TIMEOUT && lps-prep run videos/ out/
    """
    from lps.pipeline.job.status import reopen

    found = reopen(out, codes, replan=replan)
    where = f"the plan and {found.n_shards} shards withdrawn" if found.replanned else f"{found.n_shards} shards"
    echo(f"{found.n_videos} videos in {where} reopened; now run the same `lps-prep run` again")


@main.command()
@click.argument("out")
@click.option("--png", is_flag=True, help="One picture of all of them: the default.")
@click.option("--html", is_flag=True, help="A page on which clips play and can be searched.")
@click.option("--to", "target", type=click.Path(path_type=Path), metavar="FILE|DIR",
              help="PNG file, HTML file, or the folder of index.html  [default: preview.png or gallery].")  # fmt: skip
@click.option("--per-row", type=click.IntRange(1, 40), help="Clips or rejects in a row of the picture  [default: 8].")
@click.option("--clips", type=click.IntRange(1, 5000), help="Clips of the page, of all kinds in turn  [default: 200].")
@click.option("--first", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Shown before others: sample keys or ids, one a line, or an audit as JSON.")  # fmt: skip
@click.option("--source", metavar="DIR|URL", help="Root of the source videos: the page has a frame of each reject.")
@click.option("--self-contained", is_flag=True, help="The page as one file, with its pictures in it.")
def preview(out: str, **asked: Any) -> None:
    """Show what is in OUT: clips by split and label, and rejects by code, as a picture or as a page.

    The page needs no server and no script: a clip plays under the pointer, or when it is clicked. Its pictures lie in a
    folder beside it. `#KEY` after its address leads to the clip of that sample key, or of that video id.

    \b
    Example:
      lps-prep preview out/ --to sheet.png
      lps-prep preview out/ --html --to gallery/
      lps-prep preview s3://bucket/ffpp-c23 --html --to ffpp.html --self-contained --clips 50
      lps-prep preview out/ --html --first report.json --source /data/FaceForensics
    """
    from lps.cli.prep.preview import write_gallery, write_sheet

    if asked["png"] and asked["html"]:
        raise click.UsageError("--png and --html are two outputs: give one of them")
    only = ("per_row",) if asked["html"] else ("clips", "first", "source", "self_contained")
    for name in only:
        if asked[name]:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with {'--png' if asked['html'] else '--html'}")
    (write_gallery if asked["html"] else write_sheet)(out, asked)


@main.command()
@click.argument("out")
@click.argument("target", metavar="TO", type=click.Path(file_okay=False, path_type=Path))
@click.option("--to", "kind", type=click.Choice(CONVERT_KINDS), required=True, help="What to make.")
@click.option("--split-set", metavar="SET", help="Split set that counts [default: the one of the shards].")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Clips of each split and label, at most.")
def convert(out: str, target: Path, kind: ConvertKind, split_set: str | None, limit: int | None) -> None:
    """Write the clips of OUT into the folder TO for other tools: pictures, videos, or what DeepfakeBench trains on.

    frames: TO/SPLIT/LABEL/CLIP/00.jpg and so on, the stored bytes (WebP as PNG). mp4: TO/SPLIT/LABEL/CLIP.mp4, lossless
    H.264 with the recorded time stamps. deepfakebench: PNG files and the lists that its data sets are read by. In each
    TO/clips.jsonl tells of every clip. Stop it at any time and run it again: what is made is kept.

    \b
    Example:
      lps-prep convert s3://bucket/ffpp-c23 ffpp-bench/ --to deepfakebench
    """
    from lps.cli.prep.convert import ConvertProgress
    from lps.pipeline.tools.convert import ConvertRequest, convert_clips

    if "://" in str(target) or ":/" in str(target):
        raise click.BadParameter("must be a folder of this machine", param_hint="TO")
    request = ConvertRequest(out=out, target=target, kind=kind, split_set=split_set, limit=limit)
    with ConvertProgress() as progress:
        made = convert_clips(request, progress.on_event)
    echo(f"{made.n_clips} clips in {target}, {made.n_made} of them made now")
    for name in made.lists:
        echo(f"list: {target / name}")


@main.command()
@click.argument("out")
@click.option("--rule", type=click.Choice(RULES), required=True, help="Split rule.")
@click.option("--name", required=True, help="Name of the new split set.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides the places of groups.")
@click.option("--base", help="Split set whose videos must not move.")
@split_list_option
@click.option(
    "--params", "params_file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file whose table [split] has ratios, giant, tries and aliases (docs/prep.md).",
)  # fmt: skip
@click.option("--i-understand-leakage", is_flag=True, help="Needed for `--rule random`, whose splits share people.")
def split(out: str, name: str, base: str | None, params_file: Path | None, **asked: Any) -> None:
    """Add another split set over the same shards; no clip moves, readers join it on the video id.

    \b
    Example:
      lps-prep split out/ --rule ranked --name ranked-v1
      lps-prep split out/ --rule official --split-list dataset_json/Celeb-DF-v2.json --name bench
    """
    from lps.manifests.splits.records import SplitParams
    from lps.pipeline.config.settings import read_settings
    from lps.pipeline.job.split_sets import add_split_set

    _check_leak(asked["rule"], asked["i_understand_leakage"])
    _check_lists(asked["rule"], asked["split_lists"])
    more = read_settings(params_file).split
    params = SplitParams(rule=asked["rule"], seed=asked["seed"], allow_leaky=asked["i_understand_leakage"], **more)
    lists = asked["split_lists"]
    counts = add_split_set(out, name, params, base, split_lists=lists, on_note=lambda note: echo(f"note: {note.text}"))
    echo(f"split set {name}: " + ", ".join(f"{key} {n}" for key, n in counts.items()))


@main.group()
def weights() -> None:
    """List, fetch and check the weight files of the localizers.

    \b
    Example:
      lps-prep weights check --weights-dir weights/
    """


def weights_dir_option(command: F) -> F:
    """Give a command the option `--weights-dir`."""
    help_text = "Folder of the weight files [default: LPS_WEIGHTS_DIR, else the user's cache]."
    return click.option("--weights-dir", type=click.Path(file_okay=False, path_type=Path), help=help_text)(command)


@weights.command("list")
def list_files() -> None:
    """List every weight file with its localizer, size, digest and address.

    \b
    Example:
      lps-prep weights list
    """
    from lps.cli.prep.progress import print_weights

    print_weights()


@weights.command()
@click.argument("localizer", type=click.Choice(LOCALIZERS))
@weights_dir_option
def fetch(localizer: str, weights_dir: Path | None) -> None:
    """Download the weight files of LOCALIZER and check their digests.

    \b
    Example:
      lps-prep weights fetch retinaface-mobilenet --weights-dir weights/
    """
    from lps.pipeline.faces.weights import LOCALIZER_WEIGHTS, fetch_weight

    # what only the user can vouch for ends the command, so it comes last
    for weight in sorted(LOCALIZER_WEIGHTS[localizer], key=lambda weight: -len(weight.sha256)):
        found = fetch_weight(weight, weights_dir)
        echo(f"{weight.file_name}: {found.note or 'ok'}")


@weights.command()
@weights_dir_option
def check(weights_dir: Path | None) -> None:
    """Check which weight files are there and whether their digests are right; exit code 4 if a present one is wrong.

    \b
    Example:
      lps-prep weights check
    """
    from lps.pipeline.faces.weights import check_weights

    wrong = False
    for found in check_weights(weights_dir):
        echo(f"{found.weight.file_name}: {found.note or 'ok'}")
        wrong = wrong or (found.path is not None and not found.ok)
    if wrong:
        raise click.exceptions.Exit(4)


def _job(asked: dict[str, Any]) -> "tuple[PrepRequest, RunOptions]":
    """Turn what the command line says into a request and run options."""
    from lps.manifests.splits.records import SplitParams
    from lps.pipeline.config.params import ALL_CLIPS
    from lps.pipeline.config.settings import read_settings
    from lps.pipeline.job.request import PrepRequest, RunOptions

    if asked["root"] and asked["dataset"] != "table":
        raise click.UsageError("--root goes with --dataset table")
    settings = read_settings(asked["params_file"])
    clips = asked["clips"]
    if clips != "all" and not (clips.isdigit() and int(clips) > 0):
        raise click.BadParameter(f"must be a positive number or 'all', got '{clips}'", param_hint="--clips")
    params = replace(
        settings.params,
        localizer=asked["localizer"],
        clips=ALL_CLIPS if clips == "all" else int(clips),
        seed=asked["seed"],
        codec=asked["codec"],
        align=not asked["no_align"],
        pair=replace(settings.params.pair, mode=asked["pairing"]),
    )
    _check_leak(asked["rule"], asked["i_understand_leakage"])
    _check_lists(asked["rule"], asked["split_lists"])
    rule = SplitParams(
        rule=asked["rule"], seed=asked["seed"], allow_leaky=asked["i_understand_leakage"], **settings.split
    )
    request = PrepRequest(
        source=asked["source"],
        root=asked["root"],
        out=asked["out"],
        dataset=asked["dataset"],
        params=params,
        split=rule,
        splits_dir=asked["splits_dir"],
        split_lists=asked["split_lists"],
        shard_mb=settings.shard_mb,
    )
    options = RunOptions(
        workers=asked["workers"], address=asked["address"], weights_dir=asked["weights_dir"], **settings.run
    )
    return request, options


def _check_leak(rule: str, understood: bool) -> None:  # noqa: FBT001
    if rule == "random" and not understood:
        raise RefusedError(
            "a random split shares people between its parts; add --i-understand-leakage if you want that"
        )


def _check_lists(rule: str, split_lists: tuple[str, ...]) -> None:
    if split_lists and not rule.startswith("official"):
        raise click.UsageError("--split-list goes with the rules official and official-clean")


def check_summary(summary: "Summary", max_failed_percent: float) -> None:
    """Raise TooManyFailedError where no video gave a clip, or more were quarantined than allowed."""
    if not summary.n_clips:
        codes = ", ".join(dict.fromkeys(code for code, _ in summary.by_code)) or "no videos"
        raise TooManyFailedError(f"no clips: none of {summary.n_videos} input files gave one ({codes})")
    share = 100 * summary.quarantined_share
    if share > max_failed_percent:
        raise TooManyFailedError(
            f"{summary.n_quarantined} of {summary.n_selected} videos ({share:.1f} %) were quarantined, "
            f"more than --max-failed {max_failed_percent:g} %; see `lps-prep status`, then `lps-prep retry`"
        )
