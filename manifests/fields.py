"""Dataclasses from the plain values of a settings file: every name and every type checked, every mistake named."""

import difflib
import math
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lps.manifests.errors import UnreadableError

T = TypeVar("T")
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def checked(value: Any, kind: Any, name: str) -> Any:
    """Return `value` if it is of `kind`: int, float (a whole number will do), bool, str or a Literal of texts.

    Raises UnreadableError that says what `name` must be.
    """
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UnreadableError(f"'{name}' must be one of {', '.join(get_args(kind))}, got {value!r}")
        return value
    if kind is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise UnreadableError(f"'{name}' must be {WORDS[kind]}, got {value!r}")
    return value


def changed(start: T, values: Mapping[str, Any], where: str) -> T:
    """Return the dataclass `start` with some of its fields replaced by plain values.

    For an optional field, "none" stands for None, which TOML lacks. Raises UnreadableError for unknown names and wrong
    types, and for what the dataclass itself refuses.
    """
    hints = get_type_hints(type(start))
    known = {f.name for f in fields(start)}  # type: ignore[arg-type]
    new = {f.name: getattr(start, f.name) for f in fields(start)}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known ones: {', '.join(sorted(known))}"
            raise UnreadableError(f"unknown name '{where}.{name}'; {hint}")
        new[name] = _value(value, hints[name], f"{where}.{name}")
    try:
        return type(start)(**new)
    except ValueError as e:
        raise UnreadableError(f"[{where}] is not usable: {e}") from e


def _value(value: Any, kind: Any, name: str) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (k for k in get_args(kind) if k is not type(None))
        if value is None or value == "none":
            return None
    return checked(value, kind, name)
