"""Data sets on the command line: `--data OUT`, or `--data NAME=OUT` again and again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lps.manifests.errors import UnreadableError
from lps.manifests.fields import checked, require_known
from lps.manifests.names import DATA_NAME

if TYPE_CHECKING:
    from lps.model.data.mix import NamedData


def named(data: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide each NAME=OUT into its two; what has no NAME, or exists as it stands, gets an empty one.

    Raises BadParameter for a name that is given twice and for one without a place.
    """
    found = []
    for text in data:
        name, sign, location = text.partition("=")
        is_named = sign and DATA_NAME.fullmatch(name) and not Path(text).exists()
        if is_named and not location:
            raise click.BadParameter(f"must be OUT or NAME=OUT, got '{text}'", param_hint="--data")
        found.append((name, location) if is_named else ("", text))
    names = [name for name, _ in found]
    for name in names:
        if name and names.count(name) > 1:
            raise click.BadParameter(f"two data sets are called '{name}'", param_hint="--data")
    return names, [location for _, location in found]


def mixed(data: Sequence[str], weights: Any, config: Path | None) -> "tuple[str | None, tuple[NamedData, ...]]":
    """Return the one data set without a name, or those that have one, with their weights of [mix] in the settings.

    Raises BadParameter for several of which one has no name, UnreadableError for a weight of none of them.
    """
    names, places = named(data)
    known = checked(weights, Mapping[str, float], "mix")
    if names == [""] or not names:
        if known:
            raise UnreadableError(f"{config}: [mix] has weights of data sets with a name: give them as --data NAME=OUT")
        return (places[0] if places else None), ()
    if "" in names:
        place = places[names.index("")]
        raise click.BadParameter(f"several data sets need names: NAME={place}", param_hint="--data")
    return None, weighted(dict(zip(names, places, strict=True)), known, config)


def weighted(places: Mapping[str, str], weights: Any, config: Path | None) -> "tuple[NamedData, ...]":
    """Return data sets with their weights of [mix] in the settings. Raises UnreadableError for a weight of none."""
    from lps.model.data.mix import NamedData

    known = checked(weights, Mapping[str, float], "mix")
    require_known(known, [*places], "mix")
    found = []
    for name, place in places.items():
        try:
            found.append(NamedData(name=name, data=place, weight=known.get(name, 1.0)))
        except ValueError as e:
            raise UnreadableError(f"{config}: {e}") from e
    return tuple(found)
