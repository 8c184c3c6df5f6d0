"""Shards without manifests: one pass over each tar finds its samples; the result is kept beside the cached shards."""

import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from lps.manifests.canonical import open_regular, parse_json
from lps.manifests.environment import write_atomically
from lps.manifests.errors import IntegrityError, UnreadableError
from lps.model.data.clip_data import SAMPLES, ClipData, DataIdentity
from lps.model.data.download import identified
from lps.model.data.sample import (
    FRAME_MEMBER,
    MAX_SAMPLE_BYTES,
    BadSample,
    SampleFault,
    frame_members,
    image_side,
    label_of,
)
from lps.model.data.shard_cache import ShardCache
from lps.model.data.shards import Shard, expand_shards

SCAN_VERSION = 3
"""A kept index of another version is made again."""
MAX_JSON_BYTES = 16 << 20
KEY_LENGTH = 1024


def open_shards(pattern: str, cache: ShardCache) -> ClipData:
    """Return the samples of the shards that a pattern names: `dir/train-{000000..000009}.tar`, `http(s)://`, `s3://`.

    Labels come from each sample's `.cls`, ids from its `.json`. Remote shards are fetched into the cache one after
    another; what is found in a shard is kept there, for the next time and for the other ranks of a machine.

    Samples that cannot be used become `faults` of the result. Raises UnreadableError for a shard that cannot be read,
    none of whose samples can be used, whose members are not sorted, or that is no regular file; IntegrityError for one
    that is cut off or no tar (what is lost nobody knows) and for a key that occurs in two shards.
    """
    shards = tuple(identified(shard) for shard in expand_shards(pattern))
    tables: list[pa.Table] = []
    faults: list[BadSample] = []
    for number, shard in enumerate(shards):
        found = _scanned(shard, cache)
        if not found.samples.num_rows:
            said = f"the first of {len(found.faults)}: {found.faults[0]}" if found.faults else "it is empty"
            raise UnreadableError(f"shard {shard.shown} has no sample that can be used; {said}")
        column = pa.array([number] * found.samples.num_rows, pa.int32())
        tables.append(found.samples.set_column(SAMPLES.get_field_index("shard"), SAMPLES.field("shard"), column))
        faults += found.faults
    samples = pa.concat_tables(tables)
    _check_keys(samples, shards)
    names = sorted(name for name in samples["dataset"].unique().to_pylist() if name)
    identity = DataIdentity(datasets=tuple(names))
    return ClipData(samples=samples, shards=shards, identity=identity, faults=tuple(faults))


def _check_keys(samples: pa.Table, shards: tuple[Shard, ...]) -> None:
    seen: dict[str, int] = {}
    for key, number in zip(samples["key"].to_pylist(), samples["shard"].to_pylist(), strict=True):
        other = seen.setdefault(key, number)
        if other != number:
            raise IntegrityError(f"sample {key} is in two shards: {shards[other].shown} and {shards[number].shown}")


@dataclass(frozen=True, slots=True)
class _Found:
    samples: pa.Table
    faults: tuple[BadSample, ...]


def _scanned(shard: Shard, cache: ShardCache) -> _Found:
    """Return what is in a shard, from the kept index if there is one for just this file."""
    known = shard
    if shard.is_local:
        try:
            facts = shard.local_path.stat()
        except OSError as e:
            raise UnreadableError(f"cannot read shard {shard.shown}: {e.strerror or e}") from e
        known = replace(shard, uri=str(shard.local_path.absolute()), n_bytes=facts.st_size, mark=str(facts.st_mtime_ns))
    kept = cache.copy_of(known).with_suffix(".index")
    found = _load(kept)
    if found is None:
        held = cache.hold(shard)
        try:
            found = _scan(held.path, shard.shown)
        finally:
            held.release()
        _keep(found, kept)
    return found


def _load(kept: Path) -> _Found | None:
    try:
        table = pa.ipc.open_file(pa.BufferReader(kept.read_bytes())).read_all()
        marks = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if marks.get("version") != str(SCAN_VERSION) or not table.schema.equals(SAMPLES):
            return None
        return _Found(table.replace_schema_metadata(), tuple(BadSample(**each) for each in parse_json(marks["faults"])))
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None  # absent, torn, or of an older program: it is only a short cut


def _keep(found: _Found, kept: Path) -> None:
    faults = json.dumps([asdict(fault) for fault in found.faults])
    sink = io.BytesIO()
    table = found.samples.replace_schema_metadata({"version": str(SCAN_VERSION), "faults": faults})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with suppress(OSError), write_atomically(kept) as temporary:  # only a short cut
        temporary.write_bytes(sink.getvalue())


@dataclass(slots=True)
class _Piece:
    """A run of members with one key."""

    key: str
    members: list[tarfile.TarInfo]
    end: int


def _scan(path: Path, shown: str) -> _Found:
    rows: list[dict[str, Any]] = []
    faults: list[BadSample] = []
    first_of: dict[str, str] = {}
    key = "(none)"
    try:
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            n_bytes = os.fstat(file.fileno()).st_size
            for piece in _pieces(tar, n_bytes):
                key = piece.key
                try:
                    _check_unique(piece, first_of, shown)
                    rows.append(_row(tar, piece))
                except SampleFault as fault:
                    faults.append(BadSample(key, shown, str(fault)))
        _check_end(path)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError) as e:
        raise IntegrityError(f"shard {shown} is cut off or damaged after sample {key}: {e}; fetch it again") from e
    except OSError as e:
        raise UnreadableError(f"cannot read shard {shown}: {e.strerror or e}") from e
    columns = {name: [row[name] for row in rows] for name in SAMPLES.names}
    return _Found(pa.table(columns, schema=SAMPLES), tuple(faults))


def _pieces(tar: tarfile.TarFile, n_bytes: int) -> Iterator[_Piece]:
    """Yield runs of members with one key, as `webdataset` groups them; members without a key belong to none.

    Raises TarError for a size that the file of `n_bytes` does not hold: a number in base 256 may be negative or huge.
    """
    from webdataset.tariterators import base_plus_ext

    piece: _Piece | None = None
    for member in tar:
        if member.size < 0 or member.offset_data + (member.size if member.isreg() else 0) > n_bytes:
            raise tarfile.ReadError(f"{member.name} would have {member.size} bytes")
        end = member.offset_data + (member.size + 511) // 512 * 512 if member.isreg() else member.offset_data
        key, _ = base_plus_ext(member.name)
        if not member.isreg() or key is None:
            continue
        if piece is None or key != piece.key:
            if piece is not None:
                yield piece
            piece = _Piece(key, [], end)
        piece.members.append(member)
        piece.end = end
    if piece is not None:
        yield piece


def _check_unique(piece: _Piece, first_of: dict[str, str], shown: str) -> None:
    """Raise SampleFault for a second sample of a key, UnreadableError for more members of a sample that had ended."""
    names = [member.name for member in piece.members]
    first = first_of.setdefault(piece.key, names[0])
    if first in names and first is not names[0]:
        raise SampleFault("its key occurs twice in the shard")
    if first not in names:
        raise UnreadableError(
            f"shard {shown} is not sorted: members of sample {piece.key} lie apart ({first}, then {names[0]}); "
            "write it anew with `tar --sort=name`"
        )


def _check_end(path: Path) -> None:
    """A tar ends with zeros. Without them its end is missing, even where the cut fell between two members."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1024))
        if size < 1024 or file.read(1024).strip(b"\0"):
            raise tarfile.ReadError("the end mark is missing")


def _row(tar: tarfile.TarFile, piece: _Piece) -> dict[str, Any]:
    start = piece.members[0].offset
    if piece.end - start > MAX_SAMPLE_BYTES:
        raise SampleFault(f"it has {piece.end - start} bytes; {MAX_SAMPLE_BYTES} are the limit")
    _check_key(piece.key)
    members = {member.name[len(piece.key) + 1 :].lower(): member for member in piece.members}
    if len(members) < len(piece.members):
        raise SampleFault("a member is there twice")
    if not any(ext in ("cls", "json") or FRAME_MEMBER.fullmatch(ext) for ext in members):
        raise SampleFault(f"{piece.members[0].name} belongs to no sample: take it out of the shard")
    frames = frame_members({ext: ext.encode() for ext in members})
    if not frames:
        raise SampleFault("it has no frames")
    first = min(ext for ext in members if FRAME_MEMBER.fullmatch(ext))
    facts = _facts(_content(tar, members, "json"))
    label = label_of({"cls": _content(tar, members, "cls")} if "cls" in members else {})
    if label is None and facts.get("label") is not None:
        raise SampleFault("its .cls is missing")
    return {
        "key": piece.key,
        "clip_id": _id(facts, "clip_id"),
        "video_id": _id(facts, "video_id"),
        "original_video_id": None,
        "source_sha256": None,
        "label": label,
        "dataset": str(facts.get("dataset") or ""),
        "method": None if facts.get("method") is None else str(facts["method"]),
        "compression": None,
        "shard": 0,
        "offset": start,
        "n_bytes": piece.end - start,
        "n_frames": len(frames),
        "side_px": (side := image_side(_content(tar, members, first), first.partition(".")[0])),
        "inner_px": _inner(facts, side),
        "track_id": _number(facts, "track_id") or 0,
        "face_id": _number(facts, "face_id"),
        "start_s": _start(facts),
        "window": None,
        "shares_window": False,
    }


def _check_key(key: str) -> None:
    """Nothing is written by its key; all the same, one that could leave a folder is no key of a sample."""
    if key.startswith("/") or ".." in key.split("/") or not key.isprintable() or len(key) > KEY_LENGTH:
        raise SampleFault("its key is no relative name")


def _content(tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], ext: str) -> bytes:
    member = members.get(ext)
    if member is None:
        raise SampleFault(f"its .{ext} is missing")
    if member.size > MAX_JSON_BYTES:
        raise SampleFault(f"its .{ext} has {member.size} bytes; {MAX_JSON_BYTES} are the limit")
    file = tar.extractfile(member)
    assert file is not None  # mypy: members are regular files
    data = file.read()
    if len(data) < member.size:
        raise tarfile.ReadError(f"{member.name} ends early")
    return data


def _facts(data: bytes) -> dict[str, Any]:
    try:
        facts = parse_json(data)
    except ValueError as e:
        raise SampleFault("its .json is damaged") from e
    if not isinstance(facts, dict):
        raise SampleFault("its .json is no record")
    return facts


def _id(facts: Mapping[str, Any], name: str) -> bytes:
    try:
        value = bytes.fromhex(facts[name])
    except (KeyError, TypeError, ValueError) as e:
        raise SampleFault(f"its .json has no {name}") from e
    if len(value) != 16:
        raise SampleFault(f"the {name} of its .json has {len(value)} bytes, not 16")
    return value


def _number(facts: Mapping[str, Any], name: str) -> int | None:
    value = facts.get(name)
    return value if isinstance(value, int) and 0 <= value < 1 << 15 else None


def _inner(facts: Mapping[str, Any], side_px: int) -> int:
    found = _number(facts, "inner_px")
    return found if found and found <= side_px else side_px


def _start(facts: Mapping[str, Any]) -> float:
    stamps = facts.get("pts_s")
    first = stamps[0] if isinstance(stamps, list) and stamps else 0.0
    return float(first) if isinstance(first, int | float) else 0.0
