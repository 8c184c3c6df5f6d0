"""Forged files: JSON, Parquet, tar and checkpoints with values that no writer of ours gives, and damaged bytes."""

import io
import json
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.attack.edits import ANYWHERE, edited

ESCAPED = "escaped"
"""Begins the names that forged paths lead to, outside of the output."""
NUMBERS = (0, -1, 1, 2**31, -(2**31), 2**63 - 1, 2**64, 10**30, 0.5, 1e308, float("nan"), float("inf"))
Forge = Callable[[bytes, random.Random, Path], tuple[bytes, str]]
"""Takes a file's bytes, and the folder outside of the output; returns others, and what was done."""


def hostile_text(rng: random.Random, outside: Path) -> str:
    """Return a text that is a path out of the output, or none that is fit for a name."""
    return rng.choice((
        f"../{ESCAPED}", f"../../{ESCAPED}", f"shards/../../{ESCAPED}.tar", f"{outside}/{ESCAPED}", f"file://{outside}/{ESCAPED}",
        "..", ".", "", "/", "a\0b", "x" * 70_000, "a\nb\rc\x1b[31m", "\ud800", "~", "-rf", "train/../../x", "CON",
        "http://127.0.0.1:9/x", "s3://nowhere/x", "0" * 64, "é" * 200, "%2e%2e/x", "..\\x", "index.json",
    ))  # fmt: skip


def hostile_value(rng: random.Random, outside: Path) -> Any:
    """Return a value of any JSON type."""
    deep: Any = []
    for _ in range(rng.choice((5, 900, 100_000)) if rng.random() < 0.1 else 2):
        deep = [deep]
    text = hostile_text(rng, outside)
    return rng.choice((text, text, rng.choice(NUMBERS), None, True, [], {}, [{}], {"a": None}, deep))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key or number) of everything in a JSON value."""
    items = (
        value.items()
        if isinstance(value, MutableMapping)
        else enumerate(value)
        if isinstance(value, MutableSequence)
        else ()
    )
    for key, inner in list(items):
        yield value, key
        yield from places(inner)


def forged_json(data: bytes, rng: random.Random, outside: Path) -> tuple[bytes, str]:
    """Replace, drop, double or rename values anywhere in a JSON document."""
    value = json.loads(data)
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        found = list(places(value))
        if not found:
            break
        container, key = rng.choice(found)
        way = rng.choice(("is", "is", "is", "dropped", "renamed", "twice"))
        if way == "is":
            container[key] = hostile_value(rng, outside)
            done.append(f"{key} = {str(container[key])[:40]!r}")
        elif way == "dropped" or isinstance(container, MutableSequence):
            del container[key]
            done.append(f"{key} dropped")
        else:
            new = hostile_text(rng, outside) if way == "renamed" else f"{key} "
            container[new] = container[key]
            done.append(f"{key} as {new[:40]!r}")
    try:
        return json.dumps(value).encode(), "; ".join(done)
    except RecursionError:
        return b"[" * 200_000, "200,000 brackets"


def forged_parquet(data: bytes, rng: random.Random, outside: Path) -> tuple[bytes, str]:
    """Change a column of a table: values, type, presence; or its rows; or its metadata. The rest stays as it is."""
    table = pq.read_table(io.BytesIO(data))
    number = rng.randrange(table.num_columns)
    name, column = table.column_names[number], table.column(number)
    way = rng.choice(
        ("values", "values", "values", "nulls", "dropped", "other type", "rows doubled", "rows dropped", "metadata")
    )
    if way == "values":
        values = column.to_pylist()
        for k in range(len(values)) if rng.random() < 0.5 else range(min(1, len(values))):
            values[k] = _other(values[k], rng, outside)
        try:
            table = table.set_column(number, table.field(number), pa.chunked_array([pa.array(values, column.type)]))
        except (pa.ArrowException, OverflowError, TypeError, ValueError, UnicodeError):
            way = "nulls"
    if way == "nulls":
        table = table.set_column(number, pa.field(name, column.type), pa.nulls(table.num_rows, column.type))
    elif way == "dropped":
        table = table.remove_column(number)
    elif way == "other type":
        table = table.set_column(number, name, pa.array(["x"] * table.num_rows))
    elif way == "rows doubled":
        table = pa.concat_tables([table, table])
    elif way == "rows dropped":
        table = table.slice(1)
    elif way == "metadata":
        kept = dict(table.schema.metadata or {b"x": b"y"})
        kept[rng.choice(list(kept))] = hostile_text(rng, outside).encode(errors="surrogatepass")[:1000]
        table = table.replace_schema_metadata(kept)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue(), f"column {name}: {way}"


def _other(value: Any, rng: random.Random, outside: Path) -> Any:
    if isinstance(value, bytes):
        return rng.randbytes(len(value))
    if isinstance(value, str):
        return hostile_text(rng, outside)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((0, -1, value + 1, 2**31 - 1, 2**15))
    return rng.choice(NUMBERS) if isinstance(value, float) else None


def forged_tar(data: bytes, rng: random.Random, outside: Path) -> tuple[bytes, str]:
    """Write a tar anew with members of other names, kinds or sizes, some twice, some missing."""
    sink, done = io.BytesIO(), ""
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as source,
        tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        members = source.getmembers()
        chosen = rng.randrange(max(1, len(members)))
        way = rng.choice(
            ("name", "link", "hard link", "device", "twice", "dropped", "empty", "content", "order", "folder")
        )
        if way == "order":
            rng.shuffle(members)
        for number, member in enumerate(members):
            inner = source.extractfile(member)
            content = inner.read() if inner is not None else b""
            if number != chosen or way == "order":
                tar.addfile(member, io.BytesIO(content))
                continue
            done = f"member {member.name}: {way}"
            for changed, body in _members(member, content, way, rng, outside):
                tar.addfile(changed, io.BytesIO(body))
    whole = bytearray(sink.getvalue())
    if rng.random() < 0.2 and len(whole) > 512:  # a size that is nonsense, with a checksum that is right
        whole[124:136] = rng.choice((b"77777777777\0", b"\x80" + b"\xff" * 11, b"-0000000001\0", b"           \0"))
        whole[148:156] = b" " * 8
        whole[148:156] = b"%06o\0 " % sum(whole[:512])
        done += "; the first size is nonsense"
    return bytes(whole), done


def _members(
    member: tarfile.TarInfo, content: bytes, way: str, rng: random.Random, outside: Path
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    if way == "dropped":
        return
    kinds = {
        "link": tarfile.SYMTYPE,
        "hard link": tarfile.LNKTYPE,
        "device": tarfile.CHRTYPE,
        "folder": tarfile.DIRTYPE,
    }
    ending = member.name.partition(".")[2]
    if way == "name":
        member.name = rng.choice(
            (f"../{ESCAPED}.{ending}", f"{outside}/{ESCAPED}.{ending}", "x", f"../../{ESCAPED}", f"{'a' * 90}.{ending}")
        )
    elif way in kinds:
        member.type, member.linkname, content = kinds[way], f"{outside}/canary", b""
    elif way in ("empty", "content"):
        content = b"" if way == "empty" else rng.randbytes(len(content))
    member.size = len(content)
    yield member, content
    if way == "twice":
        yield member, content


class Bomb:
    """An object whose pickle makes a folder where it is read."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self.target,)


def forged_checkpoint(data: bytes, rng: random.Random, outside: Path) -> tuple[bytes, str]:
    """Put code into a checkpoint, or change its values, or write a member of its archive anew."""
    import torch

    way = rng.choice(("pickle", "bomb inside", "bomb for its pickle", "value", "value", "value", "member"))
    bomb = Bomb(outside / f"{ESCAPED}-by-code")
    sink = io.BytesIO()
    if way == "pickle":
        return pickle.dumps(bomb), "nothing but a pickle"
    if way in ("bomb for its pickle", "member"):
        return _rewritten(data, rng, pickle.dumps(bomb) if way != "member" else None)
    values = torch.load(io.BytesIO(data), weights_only=False)
    found = [(holder, key) for holder, key in places(values) if isinstance(holder, MutableMapping)]
    holder, key = rng.choice(found)
    tensors = (
        torch.zeros(0),
        torch.full((2, 2), float("nan")),
        torch.zeros(3, dtype=torch.int8),
        torch.zeros(1, 10_000, 1),
    )
    new = bomb if way == "bomb inside" else rng.choice((hostile_value(rng, outside), rng.choice(tensors)))
    if way == "value" and rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = new
    torch.save(values, sink)
    return sink.getvalue(), f"{way}: {key}"


def _rewritten(data: bytes, rng: random.Random, pickled: bytes | None) -> tuple[bytes, str]:
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(sink, "w") as archive:
        names = source.namelist()
        chosen = next(name for name in names if name.endswith("data.pkl")) if pickled is not None else rng.choice(names)
        for name in names:
            content = source.read(name)
            if name == chosen:
                content = (
                    pickled if pickled is not None else rng.choice((b"", content[:-1], rng.randbytes(len(content))))
                )
            archive.writestr(name, content)
    return sink.getvalue(), f"member {chosen} written anew"


FORGERIES: dict[str, Forge] = {
    ".json": forged_json, ".parquet": forged_parquet, ".tar": forged_tar, ".pt": forged_checkpoint,
}  # fmt: skip


def forged(path: Path, rng: random.Random, outside: Path) -> str:
    """Forge one file, or damage its bytes, or take it away; return what was done."""
    data, way = path.read_bytes(), rng.random()
    if path.suffix in FORGERIES and way < 0.75:
        new, done = FORGERIES[path.suffix](data, rng, outside)
    elif way < 0.95 and data:
        name = rng.choice(list(ANYWHERE))
        new, done = edited(data, ANYWHERE[name](data, rng)), name
    else:
        return _replaced(path, rng, outside)
    path.write_bytes(new)
    return done


def _replaced(path: Path, rng: random.Random, outside: Path) -> str:
    way = rng.choice(("removed", "empty", "a folder", "a link outside", "a link in a circle"))
    path.unlink()
    if way == "empty":
        path.write_bytes(b"")
    elif way == "a folder":
        path.mkdir()
    elif way != "removed":
        path.symlink_to(outside / "canary" if way == "a link outside" else path)
    return way
