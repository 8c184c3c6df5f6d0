"""Data sets on the command line: `--data OUT`, or `--data NAME=OUT` again and again; `--shards` likewise."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lps.manifests.errors import LpsError, UnreadableError
from lps.manifests.fields import checked, require_known
from lps.manifests.names import DATA_NAME

if TYPE_CHECKING:
    from lps.model.data.mix import NamedData, NamedShards

N = TypeVar("N")
CERTIFICATE = click.option(
    "--require-certificate",
    is_flag=True,
    help="Refuse a data set unless a certificate (lps-audit certify) of its index and split set finds it good.",
)


def named(texts: Sequence[str], option: str = "--data") -> tuple[list[str], list[str]]:
    """Divide each NAME=OUT into its two; what has no NAME, or exists as it stands, gets an empty one.

    Raises BadParameter for a name that is given twice, for one without a place, and for what is no name.
    """
    found = []
    for text in texts:
        name, sign, location = text.partition("=")
        can_be_named = sign and "/" not in name and not _exists(text, option)  # else it is a place with an equals sign
        is_named = can_be_named and DATA_NAME.fullmatch(name)
        if can_be_named and not is_named:
            why = f"a NAME has letters, digits, '_' and '-', got '{name}' (of '{text}', and no such place exists)"
            raise click.BadParameter(why, param_hint=option)
        if is_named and not location:
            word = "OUT" if option == "--data" else "PATTERN"
            raise click.BadParameter(f"must be {word} or NAME={word}, got '{text}'", param_hint=option)
        found.append((name, location) if is_named else ("", text))
    names = [name for name, _ in found]
    require_different(names, option, "data sets" if option == "--data" else "sets of shards")
    return names, [location for _, location in found]


def require_different(names: Sequence[str], option: str, what: str) -> None:
    """Raise BadParameter for a name that comes twice; empty ones are none."""
    for name in names:
        if name and names.count(name) > 1:
            raise click.BadParameter(f"two {what} are called '{name}'", param_hint=option)


def _exists(text: str, option: str) -> bool:
    if option == "--data":
        return Path(text).exists()
    from lps.model.data.shards import expand_shards

    try:
        return Path(expand_shards(text)[0].uri).exists()
    except LpsError:
        return False


def mixed(data: Sequence[str], weights: Any, config: Path | None) -> "tuple[str | None, tuple[NamedData, ...]]":
    """Return the one data set without a name, or those that have one, with their weights of [mix] in the settings.

    Raises BadParameter for several of which one has no name, UnreadableError for a weight of none of them.
    """
    names, places = named(data)
    if _alone(names, weights, config, "--data NAME=OUT"):
        return (places[0] if places else None), ()
    _require_names(names, places, "--data")
    return None, weighted(dict(zip(names, places, strict=True)), weights, config)


def mixed_shards(
    shards: Sequence[str], val_shards: Sequence[str], weights: Any, config: Path | None
) -> "tuple[str | None, str | None, tuple[NamedShards, ...]]":
    """Return the patterns of the one set of shards without a name and of its validation, or the sets that have one.

    Raises BadParameter where names do not fit together, UnreadableError for a weight of none of them.
    """
    from lps.model.data.mix import NamedShards

    names, patterns = named(shards, "--shards")
    val_names, val_patterns = named(val_shards, "--val-shards")
    if _alone(names, weights, config, "--shards NAME=PATTERN"):
        if val_names not in ([], [""]):
            raise click.BadParameter("one set of shards without a name takes one PATTERN", param_hint="--val-shards")
        return patterns[0], (val_patterns[0] if val_patterns else None), ()
    _require_names(names, patterns, "--shards")
    _require_names(val_names, val_patterns, "--val-shards")
    unknown = next((name for name in val_names if name not in names), None)
    if unknown is not None:
        raise click.BadParameter(f"no --shards is called '{unknown}'", param_hint="--val-shards")
    places, val = dict(zip(names, patterns, strict=True)), dict(zip(val_names, val_patterns, strict=True))

    def make(name: str, weight: float) -> NamedShards:
        return NamedShards(name=name, shards=places[name], val_shards=val.get(name), weight=weight)

    return None, None, _weighted(names, weights, config, make)


def _alone(names: Sequence[str], weights: Any, config: Path | None, said: str) -> bool:
    """Tell whether there is one set without a name, or none. Raises UnreadableError for weights then."""
    if list(names) not in ([], [""]):
        return False
    if checked(weights, Mapping[str, float], "mix"):
        raise UnreadableError(f"{config}: [mix] has weights of data sets with a name: give them as {said}")
    return True


def _require_names(names: Sequence[str], places: Sequence[str], option: str) -> None:
    if "" in names:
        place = places[names.index("")]
        what = "several data sets need" if len(names) > 1 else "a mix needs"
        raise click.BadParameter(f"{what} names: NAME={place}", param_hint=option)


def weighted(places: Mapping[str, str], weights: Any, config: Path | None) -> "tuple[NamedData, ...]":
    """Return data sets with their weights of [mix] in the settings. Raises UnreadableError for a weight of none."""
    from lps.model.data.mix import NamedData

    def make(name: str, weight: float) -> NamedData:
        return NamedData(name=name, data=places[name], weight=weight)

    return _weighted([*places], weights, config, make)


def _weighted(
    names: Sequence[str], weights: Any, config: Path | None, make: Callable[[str, float], N]
) -> tuple[N, ...]:
    known = checked(weights, Mapping[str, float], "mix")
    require_known(known, names, "mix")
    try:
        return tuple(make(name, known.get(name, 1.0)) for name in names)
    except ValueError as e:
        raise UnreadableError(f"{config}: {e}") from e
