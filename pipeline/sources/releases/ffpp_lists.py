"""The lists published with FaceForensics++: the official split and the YouTube recording of every sequence.

They are read from the user's folder or from the tree, never shipped; a list that differs from the published one is used
all the same, with a note.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lps.manifests.canonical import sha256_hex
from lps.manifests.errors import UnreadableError
from lps.manifests.names import SPLITS
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.shared.types import SourceFile, SourceOptions, parse_json, read_list

PUBLISHED_SHA256 = {
    "train": "e59386911255e6fb0a79a7808ec2210536b8c0474268342694c4bca766d1b347",
    "val": "b48cc511f66938e05356aaa9c67e150b1e3638c355db3d745225b0022884b36e",
    "test": "886f5a0da623c25820692e0d8dc33d197ddb1db527a7f1cfcb9bcbca60fe4f40",
    "conversion_dict": "2d5e03a3d4bd47ef0e8c84881f595ca1e1ba191928fa50dcd30a470a7173612f",
}

_SEQUENCE = re.compile(r"[0-9]{3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """What the published lists say of each sequence number."""

    split_of: dict[str, str]
    youtube_of: dict[str, str]
    notes: tuple[str, ...]


def read_lists(files: Sequence[SourceFile], options: SourceOptions, layout: str = "ffpp") -> Lists:
    """Read the lists that are there; a missing one leaves its part empty, with a note of `layout`."""
    present = frozenset(file.path for file in files)
    notes: list[str] = []
    split_of: dict[str, str] = {}
    missing: list[str] = []
    for split in SPLITS:
        name = f"{split}.json"
        found = read_list(options, (f"ffpp_split_{name}", name), (f"dataset/splits/{name}", f"splits/{name}"), present)
        if found is None:
            missing.append(name)
            continue
        _add_split(split_of, split, found)
        notes += _hash_note(layout, split, found)
    if missing:
        notes.append(f"{layout}: official split unknown: no {', '.join(missing)} given or in dataset/splits/")
    name = "conversion_dict.json"
    conversion = read_list(options, (f"ffpp_{name}", name), (f"dataset/{name}", name), present)
    if conversion is None:
        notes.append(f"{layout}: no {name}: sequences cut from one YouTube video cannot be told, a split may tear them")
        return Lists(split_of=split_of, youtube_of={}, notes=tuple(notes))
    notes += _hash_note(layout, "conversion_dict", conversion)
    return Lists(split_of=split_of, youtube_of=_youtube_ids(conversion), notes=tuple(notes))


def with_lists(video: SourceVideo, shown: Sequence[str], lists: Lists) -> SourceVideo:
    """Add recordings and split of the sequences that a video shows; a split only if they have one."""
    recordings = sorted({f"yt/{lists.youtube_of[s]}" for s in shown if s in lists.youtube_of})
    splits = {lists.split_of.get(sequence) for sequence in shown}
    split = splits.pop() if len(splits) == 1 else None
    return replace(video, source_keys=tuple(recordings), official_split=split)


def _hash_note(layout: str, key: str, found: tuple[str, bytes]) -> list[str]:
    path, data = found
    digest = sha256_hex(data)
    if digest == PUBLISHED_SHA256[key]:
        return []
    return [
        f"{layout}: {path} is not the published list (sha256 {digest[:12]}, published {PUBLISHED_SHA256[key][:12]})"
    ]


def _add_split(split_of: dict[str, str], split: str, found: tuple[str, bytes]) -> None:
    path, data = found
    pairs = parse_json(path, data)
    if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
        raise UnreadableError(f'{path}: expected a list of pairs of sequence numbers such as ["071", "054"]')
    for sequence in (sequence for pair in pairs for sequence in pair):
        if split_of.setdefault(sequence, split) != split:
            raise UnreadableError(f"{path}: sequence {sequence} is in {split} and in {split_of[sequence]}")


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(_is_sequence(sequence) for sequence in pair)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, str) and _SEQUENCE.fullmatch(value) is not None


def _youtube_ids(found: tuple[str, bytes]) -> dict[str, str]:
    """Map sequence numbers to YouTube ids. The value is `<id> <number>`, and an id may hold anything but a space."""
    path, data = found
    table = parse_json(path, data)
    if not isinstance(table, dict):
        raise UnreadableError(f'{path}: expected an object such as {{"000": "--b1Ua-kWJE 0"}}')
    ids: dict[str, str] = {}
    for sequence, value in table.items():
        youtube_id = value.rpartition(" ")[0] if isinstance(value, str) else ""
        if not youtube_id:
            raise UnreadableError(f"{path}: entry {sequence!r} is not '<YouTube id> <number>'")
        ids[sequence] = youtube_id
    return ids
