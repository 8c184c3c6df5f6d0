"""Plain values of settings files and JSON records: every name and every type checked, every mistake named."""

import difflib
import math
import re
import tomllib
import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lps.manifests.canonical import sha256_hex
from lps.manifests.errors import UnreadableError

T = TypeVar("T")
WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    date: "a date such as 2027-01-31",
}


NUMBER = (int, float)
TEXT = (str, type(None))
"""May be null."""


def read_toml(path: Path | None) -> tuple[dict[str, Any], str]:
    """Return what a TOML file holds, and the SHA-256 of its bytes; None is an empty file. Raises UnreadableError."""
    if path is None:
        return {}, ""
    try:
        data = path.read_bytes()
        return tomllib.loads(data.decode()), sha256_hex(data)
    except (OSError, ValueError) as e:
        raise UnreadableError(f"{path}: not a readable TOML file: {e}") from e


def with_values(start: T, values: Any, where: str = "") -> T:
    """Return the dataclass `start` with some of its fields, and those of dataclasses in it, replaced by plain values.

    `where` names the table of a settings file. For an optional field, "none" stands for None, which TOML lacks. Raises
    UnreadableError for unknown names and wrong types, and for what the dataclass itself refuses.
    """
    kind = type(start)
    now = {f.name: getattr(start, f.name) for f in fields(start)}  # type: ignore[arg-type]
    inner = {name: value for name, value in now.items() if is_dataclass(value)}
    table = _table(values, where)
    new = {name: with_values(inner[name], table[name], _path(where, name)) for name in inner if name in table}
    plain = {name: value for name, value in table.items() if name not in inner}
    return _built(kind, {**now, **new, **checked_values(kind, plain, where, now)}, where)


def checked_values(kind: type, values: Any, where: str, names: Collection[str]) -> dict[str, Any]:
    """Return the values of a table as the fields `names` of a dataclass have them. Raises UnreadableError."""
    hints = get_type_hints(kind)
    table = _table(values, where)
    require_known(table, names, where)
    return {name: checked(value, hints[name], _path(where, name)) for name, value in table.items()}


def require_known(found: Collection[str], known: Collection[str], where: str) -> None:
    """Raise UnreadableError for the first name that is not known, with the one that may have been meant."""
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known ones: {', '.join(known)}"
            raise UnreadableError(f"unknown name '{_path(where, name)}'; {hint}")


def checked(value: Any, kind: Any, name: str) -> Any:
    """Return `value` as the type `kind` has it, or raise UnreadableError that says what `name` must be.

    Kinds: int, float (a whole number will do), bool, str, date, a Literal or StrEnum of texts, a dataclass (from a
    table), tuples (from lists) and mappings of texts to all these, and each of them or None.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (kind,) = (part for part in parts if part is not type(None))
        return None if value is None or value == "none" else checked(value, kind, name)
    if origin is tuple:
        return _tuple(value, parts, name)
    if origin is Mapping:
        return {key: checked(item, parts[1], f"{name}.{key}") for key, item in _table(value, name).items()}
    if is_dataclass(kind):
        return _from_table(kind, value, name)
    if origin is Literal or issubclass(kind, StrEnum):
        allowed = parts or tuple(kind)
        if value not in allowed:
            raise UnreadableError(f"'{name}' must be one of {', '.join(allowed)}, got {value!r}")
        return value if parts else kind(value)
    if kind is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise UnreadableError(f"'{name}' must be {WORDS[kind]}, got {value!r}")
    return value


def _tuple(value: Any, kinds: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UnreadableError(f"'{name}' must be a list, got {value!r}")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(value) != len(kinds):
        raise UnreadableError(f"'{name}' must be a list of {len(kinds)}, got {value!r}")
    return tuple(checked(item, kind, name) for item, kind in zip(value, kinds, strict=True))


def _from_table(kind: Any, value: Any, name: str) -> Any:
    known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(kind)}
    given = checked_values(kind, value, name, known)
    missing = [each for each, needed in known.items() if needed and each not in given]
    if missing:
        raise UnreadableError(f"[{name}] needs {', '.join(known)}; {missing[0]} is missing")
    return _built(kind, given, name)


def _built(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    try:
        return kind(**values)
    except ValueError as e:
        said = re.sub(r"\bself\.(?=\w)", f"{where}." if where else "", str(e))  # of f"{self.name = }"
        raise UnreadableError(f"{f'[{where}] is' if where else 'the settings are'} not usable: {said}") from e


def _table(values: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise UnreadableError(f"[{where}] must be a table, got {values!r}")
    return values


def _path(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def wrong_place(value: Any, types: Any, where: str = "") -> str | None:
    """Return the name of the first value of a JSON record not of its type, such as `shards[0].bytes`; None: all are.

    `types` is a type; a list with that of its elements; a record of them, in which `*` is any other name; or a tuple of
    alternatives. What is not there is no fault: records of older versions lack what newer ones have.
    """
    if isinstance(types, tuple):
        found = [wrong_place(value, each, where) for each in types]
        return None if None in found else found[-1]
    if isinstance(types, list):
        inner = [(f"{where}[{k}]", each, types[0]) for k, each in enumerate(value)] if isinstance(value, list) else None
    elif isinstance(types, dict):
        inner = None if not isinstance(value, dict) else [
            (f"{where}.{name}".strip("."), each, types.get(name, types.get("*", object)))
            for name, each in value.items()
        ]  # fmt: skip
    else:
        is_flag = isinstance(value, bool) and types not in (bool, object)  # for Python, a bool is an int
        inner = [] if isinstance(value, types) and not is_flag else None
    if inner is None:
        return where
    return next((place for name, each, wanted in inner if (place := wrong_place(each, wanted, name)) is not None), None)
