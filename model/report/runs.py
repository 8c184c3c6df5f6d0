"""What the trainer's page is made of: folders of runs and of evaluations, read without trusting what is in them.

What must be there and is damaged ends the page with one line; what may be missing (scores, a checkpoint) is a note.
"""

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lps.manifests.arrays import Floats
from lps.manifests.canonical import parse_json
from lps.manifests.errors import LpsError, UnreadableError
from lps.manifests.schemas import check_version
from lps.model.evaluation.evaluate import METRICS_ID, METRICS_JSON, METRICS_VERSION, SCORES_PARQUET
from lps.model.evaluation.scores import Scores, read_scores
from lps.model.training.checkpoint import file_sha256, read_checkpoint
from lps.model.training.run_folder import BEST, CONFIG, RESULT, read_json, step_checkpoints
from lps.model.training.run_log import LOG

MAX_DEPTH = 24
"""Nesting of a record; ours have 7."""
LAST_STEP = 1 << 53
LARGEST = 1e100
"""Logged values beyond it are left out: axes cannot be divided there. What is nearer to 0 than its inverse is 0."""
MAX_SERIES = 200
"""Names of values in one log."""

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One logged value over the steps."""

    steps: Floats
    values: Floats
    """Finite, of the same length as `steps`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLogged:
    """The log of a run."""

    series: Mapping[tuple[str, str], Series]
    """By kind (`step`, `validation`) and name."""
    last_step: int = 0
    last_epoch: int = 0
    """Epochs begun."""
    torn: bool = False
    """The last line is not whole, as a run leaves it that is under way or was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """A folder of `lps-train pretrain`, `classify`, `distill` or `encoder`."""

    name: str
    number: int
    """Place among the folders; it decides the colour."""
    folder: Path
    config: Record
    result: Record | None
    """None while it is not finished."""
    log: RunLogged
    data: Record
    """Identity of what it learns from; empty where nothing says it yet."""
    best_sha256: str
    """SHA-256 of `best.pt`; empty where that is missing."""
    notes: tuple[str, ...] = ()

    @property
    def stage(self) -> str:
        """Its stage, `svm` for the support vector machine of `classify`."""
        return "svm" if self.config.get("head") == "svm" else str(self.config.get("stage"))

    @property
    def leaky(self) -> bool | None:
        """The stamp of its split set; None where nothing says it."""
        stamp = self.data.get("leaky")
        return stamp if isinstance(stamp, bool) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A folder of `lps-train evaluate`."""

    name: str
    number: int
    folder: Path
    record: Record
    scores: Scores | None
    """None where the table is not there."""
    notes: tuple[str, ...] = ()

    @property
    def data(self) -> list[Record]:
        """The evaluated data sets, entry by entry."""
        found = self.record["data"]
        return [mapping(entry) for entry in found] if isinstance(found, list) else []

    @property
    def checkpoint(self) -> Record:
        """The evaluated checkpoint."""
        return mapping(self.record.get("checkpoint"))

    @property
    def learnt_from(self) -> Record:
        """Identity of the data that the detector learnt from."""
        return mapping(self.checkpoint.get("learnt_from"))


def mapping(value: Any) -> Record:
    """Return a record, an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def named_sets(record: Record) -> list[tuple[str, Record]]:
    """Return the data sets of a mix, by name, of a configuration's `data` or an identity; none for one alone."""
    found = record.get("sets")
    sets = [mapping(each) for each in found] if isinstance(found, list) else []
    return [(str(each.get("name")), each) for each in sets]


def finite(value: Any) -> float | None:
    """Return a number, None for anything else and for what is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def count(value: Any) -> int:
    """Return a whole number of at least 0, 0 for anything else."""
    number = finite(value)
    return int(number) if number is not None and 0 <= number < LAST_STEP else 0


def read_folders(folders: Sequence[Path]) -> tuple[list[TrainingRun], list[Evaluation]]:
    """Read runs and evaluations; a folder that is both gives both, one that is named twice counts once.

    Raises UnreadableError for a folder that is neither, and for records, logs and scores that are damaged.
    """
    distinct = list({folder.resolve(): folder.resolve() for folder in folders})
    runs: list[TrainingRun] = []
    evaluations: list[Evaluation] = []
    for number, (folder, name) in enumerate(zip(distinct, _names(distinct), strict=True)):
        is_run, is_evaluation = ((folder / file).is_file() for file in (CONFIG, METRICS_JSON))
        if is_run:
            runs.append(_run(folder, name, number))
        if is_evaluation:
            evaluations.append(_evaluation(folder, name, number))
        if not is_run and not is_evaluation:
            raise UnreadableError(
                f"{folder} has neither {CONFIG} nor {METRICS_JSON}; name folders that a stage of lps-train or "
                "`lps-train evaluate` wrote"
            )
    return runs, evaluations


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    for n in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-n:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _run(folder: Path, name: str, number: int) -> TrainingRun:
    config = _record(folder / CONFIG)
    if not isinstance(config.get("stage"), str) or not isinstance(config.get("preset"), dict):
        raise UnreadableError(f"{folder / CONFIG} is not the configuration of a run of lps-train; restore it")
    result = _record(folder / RESULT) if (folder / RESULT).is_file() else None
    log = read_run_log(folder / LOG, finished=result is not None)
    notes = []
    if log.torn:
        notes.append("the last line of its log is not whole; it is left out")
    data = mapping(result.get("data")) if result is not None else {}
    if result is None:
        data, said = _identity(folder)
        notes += said
    best = folder / "checkpoints" / BEST
    try:
        sha256 = file_sha256(best) if best.is_file() else ""
    except LpsError as e:
        sha256 = ""
        notes.append(f"{BEST} cannot be read: {e}")
    return TrainingRun(
        name=name, number=number, folder=folder, config=config, result=result, log=log, data=data, best_sha256=sha256,
        notes=tuple(notes),
    )  # fmt: skip


def _identity(folder: Path) -> tuple[Record, list[str]]:
    """Return what the last checkpoint of an unfinished run says of its data, and notes."""
    paths = step_checkpoints(folder / "checkpoints")
    if not paths:
        return {}, ["no checkpoint says yet what data it learns from"]
    try:
        return mapping(read_checkpoint(paths[-1]).data), []
    except LpsError as e:
        return {}, [f"its last checkpoint cannot be read, so its data are not known: {paths[-1].name}, {_cause(e)}"]


def _cause(error: LpsError) -> str:
    """Return an error's words without the path that they begin with."""
    return str(error).rpartition(": ")[2]


def _evaluation(folder: Path, name: str, number: int) -> Evaluation:
    path = folder / METRICS_JSON
    record = _record(path)
    if record.get("schema") != METRICS_ID or not isinstance(record.get("data"), list):
        raise UnreadableError(f"{path} is not a result of lps-train evaluate; restore it, or evaluate again")
    check_version(str(record.get("schema_version")), what=str(path), newest=METRICS_VERSION)
    scores, notes = None, []
    try:
        data = (folder / SCORES_PARQUET).read_bytes()
    except FileNotFoundError:
        notes.append(f"no {SCORES_PARQUET} beside its metrics: no curves, no errors")
    except OSError as e:
        raise UnreadableError(f"cannot read {folder / SCORES_PARQUET}: {e.strerror or e}") from e
    else:
        scores, _ = read_scores(data, str(folder / SCORES_PARQUET))
    return Evaluation(name=name, number=number, folder=folder, record=record, scores=scores, notes=tuple(notes))


def _record(path: Path) -> Record:
    """Read a JSON record of bounded depth. Raises UnreadableError."""
    record = read_json(path)
    level: list[Any] = [record]
    for _ in range(MAX_DEPTH):
        level = [item for value in level for item in _inner(value)]
        if not level:
            return record
    raise UnreadableError(f"{path} is nested too deeply for a record of lps-train; restore it")


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def read_run_log(path: Path, *, finished: bool) -> RunLogged:
    """Read a run's log into columns; one that is not there is empty.

    The last line of a run that is not `finished` may be torn: it is being written, or its writer was killed. Raises
    UnreadableError that names the line for any other one that is not whole.
    """
    columns: dict[tuple[str, str], tuple[array[float], array[float]]] = {}
    last_step = last_epoch = 0
    torn = False
    for number, line, is_last in _lines(path):
        record = _log_line(line)
        if record is None:
            if is_last and not finished:
                torn = True
                break
            raise UnreadableError(
                f"{path}, line {number} is cut off or damaged; restore the log, or delete the line to go without it"
            )
        step = count(record["step"])
        last_step = max(last_step, step)
        last_epoch = max(last_epoch, count(record.get("epoch")) + (record["kind"] == "step"))
        for name, value in record.items():
            found = finite(value)
            key = (record["kind"], name)
            if found is None or abs(found) > LARGEST or (key not in columns and len(columns) >= MAX_SERIES):
                continue
            steps, values = columns.setdefault(key, (array("d"), array("d")))
            steps.append(step)
            values.append(found if abs(found) > 1 / LARGEST else 0.0)
    series = {key: Series(steps=np.array(steps), values=np.array(values)) for key, (steps, values) in columns.items()}
    return RunLogged(series=series, last_step=last_step, last_epoch=last_epoch, torn=torn)


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Yield number, content and whether it is the last, of each line that is not blank."""
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            before: tuple[int, bytes] | None = None
            for number, line in enumerate(file, 1):
                if line.strip():
                    if before is not None:
                        yield (*before, False)
                    before = number, line
            if before is not None:
                yield (*before, True)
    except OSError as e:
        raise UnreadableError(f"cannot read {path}: {e.strerror or e}") from e


def _log_line(line: bytes) -> dict[str, Any] | None:
    try:
        record = parse_json(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and isinstance(record.get("kind"), str) and isinstance(record.get("step"), int)
    return record if whole else None
