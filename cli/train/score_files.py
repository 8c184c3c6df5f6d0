"""Files that `lps-train score` writes, and what it finds in them when it is run again."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lps.manifests.canonical import canonical_json, file_sha256, parse_json, pretty_json
from lps.manifests.environment import write_atomically
from lps.manifests.errors import RefusedError, UnreadableError, first_line
from lps.manifests.storage import open_store

if TYPE_CHECKING:
    from lps.cli.train.scoring import VideoScore

Record = dict[str, Any]
Key = tuple[str, str]
"""Name of a file, without its folders, and its SHA-256 in hex: what a video is known by."""
DECIDING = (
    "schema_version",
    "video_score",
    "threshold",
    "threshold_from",
    "checkpoint",
    "preparation",
    "localizer_weights",
)
"""Facts of a record that decide its scores and verdicts: another one of them makes it a record of something else."""
CSV_COLUMNS = (
    "file", "sha256", "p_fake", "p_calibrated", "called", "status", "code", "n_tracks", "n_clips", "seen", "detail",
)  # fmt: skip


def shown(path: Path) -> str:
    """Return a path that can be printed, whatever bytes its name has."""
    return "".join(c if c.isprintable() else "?" for c in click.format_filename(path))


@dataclass(slots=True)
class ScoreFiles:
    """Where records go, and those of an earlier run of the same command that lie there.

    A video that has no digest, because it could not be read, is tried again.
    """

    facts: Mapping[str, Any]
    """What every record says of how it was made."""
    out: Path | None = None
    """Folder for NAME.json and NAME.png."""
    jsonl: Path | None = None
    """File with a record a line, in the order in which videos are done."""
    taken: set[str] = field(default_factory=set)
    """Names in `out` that this run has given away."""
    in_out: dict[Key, tuple[str, Record]] = field(default_factory=dict)
    """Name in `out` and record of a video."""
    in_jsonl: dict[Key, Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.out is not None and self.out.is_dir():
            for path in sorted(self.out.glob("*.json")):
                record = _record(_read(path))
                if record is not None and self.differing(record) is None and _has_picture(path, record):
                    self.in_out[_key(record)] = (path.stem, record)
        if self.jsonl is not None and self.jsonl.exists():
            self._open_jsonl(self.jsonl)

    def differing(self, record: Mapping[str, Any]) -> str | None:
        """Return the first fact that a record was made with another value of."""
        return next((name for name in DECIDING if not _same(record.get(name), self.facts.get(name))), None)

    def known(self, path: Path) -> Record | None:
        """Return the record of a video that has all its files already, but for its line; called as it is now."""
        found: Mapping[Key, Any] = self.in_jsonl if self.out is None else self.in_out
        try:
            key = (shown(Path(path.name)), file_sha256(path)) if found else ("", "")
        except OSError:
            return None  # its row will say why
        if key not in found:
            return None
        record: Record = self.in_jsonl[key] if self.out is None else self.in_out[key][1]
        if self.out is not None:
            self.taken.add(self.in_out[key][0].casefold())
        return {**record, "video": {**record["video"], "file": shown(path)}}

    def add(self, record: Record) -> None:
        """Write a record's line, if it has none."""
        if self.jsonl is None or _key(record) in self.in_jsonl:
            return
        try:
            self.jsonl.parent.mkdir(parents=True, exist_ok=True)
            with self.jsonl.open("ab") as file:
                file.write(canonical_json(record) + b"\n")
        except OSError as e:
            raise UnreadableError(f"cannot write {shown(self.jsonl)}: {first_line(e)}") from e

    def write(self, score: "VideoScore", record: Record) -> None:
        """Write NAME.json and, where there are clips, NAME.png into `out`. Raises UnreadableError.

        NAME is the file's name without its ending, numbered where it is taken or another video's result has it.
        """
        from lps.cli.train.timeline import draw_timeline

        if self.out is None:
            return
        name = _free_name(self.out, score.path.stem, record["video"], self.taken)
        self.taken.add(name.casefold())
        store = open_store(str(self.out))
        if score.tracks:
            store.publish(f"{name}.png", draw_timeline(score, shown(Path(score.path.name))))
        else:
            (self.out / f"{name}.png").unlink(missing_ok=True)  # of an earlier run
        store.publish(f"{name}.json", pretty_json(record))

    def _open_jsonl(self, path: Path) -> None:
        """Read the records of an earlier run; a last line that was cut, and videos without a digest, are dropped."""
        data = _read(path)
        lines = data.split(b"\n")
        for number, line in enumerate(lines[:-1], 1):
            record = _record(line)
            if record is None:
                raise UnreadableError(
                    f"{shown(path)}, line {number}, is no record of `lps-train score`; use another file"
                )
            if (name := self.differing(record)) is not None:
                raise RefusedError(f"{shown(path)} holds scores made with another {name}; use another file")
            if record["video"]["sha256"] is not None:
                self.in_jsonl[_key(record)] = record
        kept = b"".join(canonical_json(record) + b"\n" for record in self.in_jsonl.values())
        if kept != data:
            try:
                with write_atomically(path) as temporary:
                    temporary.write_bytes(kept)
            except OSError as e:
                raise UnreadableError(f"cannot write {shown(path)}: {first_line(e)}") from e


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise UnreadableError(f"cannot read {shown(path)}: {first_line(e)}") from e


def _record(data: bytes) -> Record | None:
    try:
        found: Record = parse_json(data)
        whole = (
            found["schema"] == "lps.score" and isinstance(found["tracks"], list) and isinstance(found["clips"], list)
        )
        return found if whole and _key(found) else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _key(record: Mapping[str, Any]) -> Key:
    return Path(record["video"]["file"]).name, str(record["video"]["sha256"])


def _same(one: Any, other: Any) -> bool:
    return canonical_json(one) == canonical_json(other)


def _has_picture(path: Path, record: Record) -> bool:
    return not record.get("tracks") or path.with_suffix(".png").exists()


def _free_name(out: Path, stem: str, video: Mapping[str, Any], taken: set[str]) -> str:
    """Return a name for the files of a video: no other video of this command or of an earlier one has it in `out`."""
    for n in count(1):
        name = stem if n == 1 else f"{stem}-{n}"
        if name.casefold() not in taken and _is_free(out / f"{name}.json", video):
            return name
    raise AssertionError("there is no last number")


def _is_free(path: Path, video: Mapping[str, Any]) -> bool:
    if not path.exists():
        return True
    try:
        found = parse_json(path.read_bytes())["video"]
        key = "sha256" if video["sha256"] else "file"
        return bool(found[key] == video[key])
    except (OSError, ValueError, LookupError, TypeError):
        return False  # somebody else's file


def csv_bytes(records: Iterable[Record]) -> bytes:
    """Return a table with a row for each video, CSV in UTF-8."""
    text = io.StringIO()
    table = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    table.writeheader()
    for record in records:
        video = record["video"]
        found = {name: video.get(name) for name in CSV_COLUMNS}
        seen = "unknown" if video["seen"] is None else " ".join(video["seen"])
        table.writerow({**found, "n_tracks": len(record["tracks"]), "n_clips": len(record["clips"]), "seen": seen})
    return text.getvalue().encode()
