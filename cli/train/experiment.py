"""lps-train experiment: every table of the paper as a command."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lps.cli.common import LpsCommand, console, echo
from lps.cli.train.data_sets import CERTIFICATE, weighted
from lps.manifests.errors import UnreadableError
from lps.manifests.names import EXPERIMENT_NAMES, PRESET_NAMES

if TYPE_CHECKING:
    from lps.model.paper.results import Result
    from lps.model.paper.zoo import DataSet, ModelZoo, TrainingMix
    from lps.model.training.events import OnTrainEvent


@click.command(cls=LpsCommand)
@click.argument("name", type=click.Choice(EXPERIMENT_NAMES))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--data", multiple=True, metavar="NAME=OUT", help="Data set of lps-prep and its name; may be given again."
)
@click.option(
    "--mix",
    "mixes",
    multiple=True,
    metavar="NAME[=A,B...]",
    help="cross: also train on these data sets together, on all without '='; may be given again.",
)
@click.option("--preset", type=click.Choice(PRESET_NAMES), default="paper", show_default=True,
              help="Recipe of all runs.")  # fmt: skip
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="TOML file with settings.")
@click.option("--split-set", metavar="SET", help="Split set.  [default: that of the shards]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of every run.")
@click.option("--seeds", "n_seeds", type=click.IntRange(min=2), help="pairing, leak: seeds of each arm.  [default: 3]")
@click.option("--allow-leaky", is_flag=True, help="Needed for a split set that is stamped leaky.")
@CERTIFICATE
@click.option("--smoke", is_flag=True, help="Tiny networks, one epoch: shows that it runs, in a minute.")
def experiment(name: str, out: Path, **asked: Any) -> None:
    """Run an experiment of the paper, only what is missing of it, and print the paper's values beside ours.

    \b
    table1      LPS_ri, LPS, LPS_ssd, MesoNet on each data set   (Table 1)
    cross       trained on each data set and each mix, evaluated on each data set   (Table 2)
    align       with and without alignment: NAME and NAME-unaligned   (Table 3)
    variants    I3D encoder, support vector machine           (Table 4)
    sweep       lambda and T of the distillation              (Table 5)
    ablate      without encoder, aggregator, memory bank      (Figure 8)
    pairing     paired against unpaired sampling, --seeds of each   (not in the paper)
    leak        the same videos under rule random and group, --seeds of each   (not in the paper)
    efficiency  time of each module, needs no data            (section 4.5)

    Call the data sets ffpp, dfdc and celebdf to have the paper's values beside them. Experiments with the same OUT
    share their runs. Writes OUT/NAME/result.json, result.md and result.png.

    \b
    Example:
      lps-train experiment table1 exp/ --data ffpp=ffpp/ --data celebdf=celebdf/
      lps-train experiment cross exp/ --data ffpp=ffpp/ --data celebdf=celebdf/ --data wild=wild/ --mix all
      lps-train experiment pairing exp/ --data ffpp=ffpp/ --preset strong --seeds 5
      lps-train experiment leak exp/ --data ffpp=ffpp/ --seeds 5
    """
    if asked["n_seeds"] and name not in ("pairing", "leak"):
        raise click.UsageError("--seeds is for pairing and leak")
    if asked["split_set"] and name == "leak":
        raise click.UsageError("leak makes its split sets itself: --split-set is for the others")
    if asked["mixes"] and name != "cross":
        raise click.UsageError("--mix is for cross")
    from lps.cli.train.progress import TrainProgress
    from lps.model.paper.figures.tables import draw_table
    from lps.model.paper.tables import run_experiment

    with TrainProgress() as progress:
        zoo = _zoo(out, progress.on_event, asked)
        result = run_experiment(name, zoo)
    draw_table(result, out / name / "result.png", smoke=zoo.smoke)
    _show(result, smoke=zoo.smoke)
    echo(f"{out / name / 'result.md'}")


def _zoo(out: Path, on_event: "OnTrainEvent", asked: dict[str, Any]) -> "ModelZoo":
    from lps.model.paper.zoo import DataSet, ModelZoo
    from lps.model.training.presets import read_settings

    data = []
    for text in asked["data"]:
        name, sign, location = text.partition("=")
        if not sign or not name or not location:
            raise click.BadParameter(f"must be NAME=OUT, got '{text}'", param_hint="--data")
        data.append(DataSet(name, location))
    settings = read_settings(asked["config"])
    mixes = _mixes(asked["mixes"], data, settings.pop("mix", {}), asked["config"])
    return ModelZoo(
        out=out, data=tuple(data), mixes=mixes, preset=asked["preset"], settings=settings, seed=asked["seed"],
        n_seeds=asked["n_seeds"],
        split_set=asked["split_set"], allow_leaky=asked["allow_leaky"], smoke=asked["smoke"], on_event=on_event,
        require_certificate=asked["require_certificate"],
    )  # fmt: skip


def _mixes(
    texts: Sequence[str], data: "Sequence[DataSet]", weights: Any, config: Path | None
) -> "tuple[TrainingMix, ...]":
    """Return the mixes of --mix. Raises BadParameter for what no data set is called, RefusedError for a bad name."""
    from lps.model.paper.zoo import TrainingMix

    if weights and not texts:
        raise UnreadableError(f"{config}: [mix] has weights of data sets that are trained on together: give a --mix")
    places = {each.name: each.location for each in data}
    parts = {each.name: each for each in weighted(places, weights, config)} if texts else {}
    found = []
    for text in texts:
        name, sign, chosen = text.partition("=")
        members = chosen.split(",") if sign else list(places)
        unknown = [member for member in members if member not in places]
        if unknown or len({*members}) < len(members):
            why = f"no --data is called '{unknown[0]}'" if unknown else "a data set comes twice"
            raise click.BadParameter(f"{why}, got '{text}'", param_hint="--mix")
        found.append(TrainingMix(name, tuple(parts[member] for member in members)))
    return tuple(found)


def _show(result: "Result", *, smoke: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from lps.model.paper.results import table_of

    heads, rows = table_of(result)
    table = Table(*heads, title=f"{result.item}{' (smoke size)' if smoke else ''}")
    for cells in rows:
        table.add_row(*map(escape, cells))
    screen = console(width=200)
    screen.print(table)
    for note in result.notes:
        screen.print(note, highlight=False, markup=False)
