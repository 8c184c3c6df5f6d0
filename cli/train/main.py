"""lps-train: shards in, a detector and its scores out."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from lps.cli.common import EXIT_SIGNAL, VERSION, LpsGroup, echo, interrupted_line, written
from lps.cli.train.data_sets import CERTIFICATE
from lps.cli.train.evaluate import evaluate
from lps.cli.train.experiment import experiment
from lps.cli.train.export import export
from lps.cli.train.figure import figure
from lps.cli.train.report import report
from lps.cli.train.score import score
from lps.manifests.errors import Interrupted
from lps.manifests.names import FAKES, HEADS, KERNELS, PRESET_NAMES

if TYPE_CHECKING:
    from lps.manifests.names import Kernel, StageName
    from lps.model.data.sources import Sources
    from lps.model.training.job import TrainJob

F = TypeVar("F", bound=Callable[..., Any])

# torch then asks for huge pages, which takes a tenth off a training step on a CPU. It looks once, at its first memory.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

NOTHING: Mapping[str, Any] = MappingProxyType({})
SEED = click.IntRange(min=0, max=2**32 - 1)


@click.group(cls=LpsGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="lps-train")
def main() -> None:
    """Train and evaluate the Latent Pattern Sensing detector on shards of face clips.

    \b
    Exit codes: 0 done, 2 wrong usage, 3 refused (another configuration, leaky split, nothing to evaluate),
    4 something cannot be read or written, a loss is not finite, or the packages of a command are missing
    (pip install 'lps-prep[train]'), 5 bytes are not what they must be, 130 Ctrl-C, 143 SIGTERM: training has
    saved its last step, the same command resumes.

    \b
    Example:
      lps-train pretrain runs/pre --data out/ --init random
      lps-train classify runs/cls --data out/ --init runs/pre/checkpoints/best.pt
      lps-train distill runs/ssd --data out/ --init runs/cls/checkpoints/best.pt
      lps-train evaluate --checkpoint runs/ssd/checkpoints/best.pt --data out/ --split test --out runs/eval
    """


def stage_options(command: F) -> F:
    """Give a command the arguments that all stages share."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    option = partial(click.option, show_default=True)
    decorators = [
        click.argument("run", type=click.Path(file_okay=False, path_type=Path)),
        option(
            "--data",
            multiple=True,
            metavar="[NAME=]OUT",
            help="Data set of lps-prep: folder or URL; with a name, may be given again.",
        ),
        option("--split", default="train", help="Split to learn from."),
        option("--val-split", default="val", help="Split to validate with; 'none' for none."),
        option("--split-set", metavar="SET", help="Split set.  [default: that of the shards]"),
        option(
            "--shards",
            multiple=True,
            metavar="[NAME=]PATTERN",
            help="Shards instead of --data: 'URL/train-{000000..000009}.tar'; with a name, may be given again.",
        ),
        option(
            "--val-shards",
            multiple=True,
            metavar="[NAME=]PATTERN",
            help="Shards to validate with, of the set NAME; may be given again.",
        ),
        option("--preset", type=click.Choice(PRESET_NAMES), default="paper", help="Recipe to start from."),
        option("--config", type=file, help="TOML file with all other settings (docs/train.md)."),
        option("--epochs", type=click.IntRange(min=1), help="More than a run has had: it goes on, even if finished."),
        option("--seed", type=SEED, default=0, help="Decides first weights, order, augmentation."),
        option(
            "--allow-leaky",
            is_flag=True,
            help="Needed for a split set that is stamped leaky, and to learn from what another data set holds out.",
        ),
        CERTIFICATE,
    ]
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


INIT = partial(click.option, "--init", required=True, metavar="FILE|random", help="Checkpoint to start from.")


@main.command()
@stage_options
@INIT()
def pretrain(**asked: Any) -> None:
    """Learn encoder and aggregator by predicting feature maps, without labels (section 3.3 of the paper).

    \b
    Example:
      lps-train pretrain runs/pre --data out/ --init random --preset small
    """
    run_stage("pretrain", asked)


@main.command()
@stage_options
@INIT()
@click.option("--head", type=click.Choice(HEADS), default="linear", show_default=True, help="svm is LPS_c.")
@click.option("--kernel", type=click.Choice(KERNELS), help="Kernel of the support vector machine.  [default: rbf]")
@click.option("--keep-head", is_flag=True, help="Fine-tune the whole detector of --init; else its head is learnt anew.")
def classify(head: str, kernel: "Kernel | None", **asked: Any) -> None:
    """Learn the detector from labels; --init random is LPS_ri, --head svm is LPS_c.

    \b
    Example:
      lps-train classify runs/cls --data out/ --init runs/pre/checkpoints/best.pt
    """
    if head == "svm":
        if asked["keep_head"] or asked["epochs"]:
            raise click.UsageError("--keep-head and --epochs are for --head linear")
        from lps.cli.train.progress import TrainProgress
        from lps.model.training.train_svm import train_svm

        job = stage_job("classify", asked)
        with TrainProgress() as progress:
            result = train_svm(job, kernel or "rbf", progress.on_event)
        finish(job, result)
    elif kernel:
        raise click.UsageError("--kernel is for --head svm")
    else:
        run_stage("classify", asked)


@main.command()
@stage_options
@INIT()
def distill(**asked: Any) -> None:
    """Fine-tune a detector by selective self-distillation with its encoder frozen (section 3.4, LPS_ssd).

    \b
    Example:
      lps-train distill runs/ssd --data out/ --init runs/cls/checkpoints/best.pt
    """
    run_stage("distill", asked)


@main.command()
@stage_options
def encoder(**asked: Any) -> None:
    """Stage 0 of LPS_e: learn the encoder alone from labels of single blocks ([net] encoder = "i3d").

    \b
    Example:
      lps-train encoder runs/i3d --data out/ --config i3d.toml
    """
    run_stage("encoder", {**asked, "init": "random"})


@main.command()
@stage_options
@click.option("--folds", type=click.IntRange(min=1), default=2, show_default=True, help="Parts held out; 1 for none.")
@click.option("--fakes", type=click.Choice(FAKES), help="Without fakes: learn from self-blends of the real clips.")
def check(folds: int, fakes: str | None, **asked: Any) -> None:
    """Check the machinery on a small data set: does the network fit its training videos?

    Prints beside it what a thumbnail reaches, and both on groups of people held out. Use --preset small, and a data set
    of some dozens of videos with both classes.

    With --fakes self-blend real videos will do. The network learns to tell clips from copies of them that were blended
    with themselves, in 300 steps unless --epochs says otherwise, and is asked about clips of the split --val-split
    (with 'none': of one part of --folds). That is a check of the machinery, too, and no detector.

    \b
    Example:
      lps-train check runs/check --data out/ --preset small
      lps-train check runs/check --data out/ --preset small --fakes self-blend
    """
    from lps.cli.train.progress import TrainProgress
    from lps.model.evaluation import sanity_check, self_blend_check

    recipe = self_blend_check.RECIPE if fakes else {}
    job = stage_job("classify", {**asked, "init": "random"}, recipe)
    if job.sources.sets or job.sources.plain:
        raise click.UsageError("check takes one data set (--data), without a name")
    with TrainProgress() as progress:
        if fakes:
            record = self_blend_check.check_self_blends(job, folds, progress.on_event, asked["epochs"])
            said = self_blend_check.lines(record)
        else:
            record = sanity_check.check(job, folds, progress.on_event)
            said = sanity_check.lines(record)
    echo("\n".join(said))


def stage_job(stage: "StageName", asked: dict[str, Any], recipe: Mapping[str, Any] = NOTHING) -> "TrainJob":
    """Return the job that the command line describes; settings of a `recipe` come before those of the user."""
    from lps.manifests.fields import with_values
    from lps.model.training.job import TrainJob
    from lps.model.training.presets import preset_for, read_settings

    if bool(asked["data"]) == bool(asked["shards"]):
        raise click.UsageError("name either a data set (--data) or shards (--shards)")
    wrong = "val_shards" if asked["data"] else "split_set"
    if asked[wrong]:
        raise click.UsageError(
            f"--{wrong.replace('_', '-')} does not go with {'--data' if asked['data'] else '--shards'}"
        )
    settings = read_settings(asked["config"])
    sources = _sources(asked, settings.pop("mix", {}))
    if asked["epochs"]:
        settings = {**settings, "train": {**settings.get("train", {}), "epochs": asked["epochs"]}}
    return TrainJob(
        stage=stage,
        out=asked["run"],
        sources=sources,
        preset=with_values(preset_for(asked["preset"], stage, recipe), settings),
        init=asked["init"],
        seed=asked["seed"],
        keep_head=asked.get("keep_head", False),
    )


def _sources(asked: dict[str, Any], weights: Any) -> "Sources":
    from lps.cli.train.data_sets import mixed, mixed_shards
    from lps.model.data.sources import Sources

    if asked["shards"]:
        shards, val_shards, sets = mixed_shards(asked["shards"], asked["val_shards"], weights, asked["config"])
        return Sources(
            shards=shards, val_shards=val_shards, sets=sets, allow_leaky=asked["allow_leaky"],
            require_certificate=asked["require_certificate"],
        )  # fmt: skip
    data, data_sets = mixed(asked["data"], weights, asked["config"])
    return Sources(
        data=data,
        sets=data_sets,
        split=asked["split"],
        val_split=None if asked["val_split"] == "none" else asked["val_split"],
        split_set=asked["split_set"],
        allow_leaky=asked["allow_leaky"],
        require_certificate=asked["require_certificate"],
    )


def run_stage(stage: "StageName", asked: dict[str, Any]) -> None:
    """Train a stage as asked on the command line."""
    from lps.cli.train.progress import TrainProgress
    from lps.model.training.train import train

    job = stage_job(stage, asked)
    first, alone = int(os.environ.get("RANK", "0")) == 0, int(os.environ.get("WORLD_SIZE", "1")) == 1
    code, line = 0, ""
    try:
        with TrainProgress(quiet=not first) as progress:
            result = train(job, progress.on_event)
    except Interrupted as e:
        if alone:
            raise
        code, line = EXIT_SIGNAL + e.signum, interrupted_line(e)
    if code:  # not above: the exception holds the reader, of whose semaphores torch would say that they leaked
        if first:
            echo(line, err=True)
        _leave(code)
    if first:
        finish(job, result)
    if not alone:
        _leave(0)


def _leave(code: int) -> NoReturn:
    """End a process of torchrun at once: all is written, and torch has threads left that may abort an orderly exit.

    `DistributedDataParallel` keeps the group of processes alive beyond its end, and with it the threads of gloo.
    """
    os._exit(written(code))


def finish(job: "TrainJob", result: dict[str, Any]) -> None:
    """Say how a stage ended."""
    echo(summary(result))
    echo(f"best checkpoint: {job.out / result['checkpoint']} (step {result['best_step']})")


def summary(result: dict[str, Any]) -> str:
    """Return one line on a finished stage."""
    values = {name: result["last"].get(name) for name in ("loss", "auc")}
    last = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, float))
    bad = f", {result['n_bad_samples']} bad samples" if result["n_bad_samples"] else ""
    leaky = ", on a LEAKY split set" if result["data"].get("leaky") else ""
    done = f"{result['stage']}: {result['epochs']} epochs, {result['steps']} steps"
    n_sets = len(result["data"].get("sets", ()))
    mean = f" (mean of {n_sets} data sets)" if last and n_sets > 1 else ""
    return f"{done}; validation: {last or 'none'}{mean}{bad}{leaky}"


main.add_command(evaluate)
main.add_command(score)
main.add_command(experiment)
main.add_command(export)
main.add_command(figure)
main.add_command(report)
