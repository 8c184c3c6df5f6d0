"""What a detector says of each clip, as one table: `scores.parquet`, and its rows gathered by video.

Versions are those of the manifests' rule: a major step renames, retypes or redefines a column, and older readers refuse
it; a minor step adds a nullable column.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lps.manifests.arrays import Bools, Floats, Ints
from lps.manifests.errors import IntegrityError, UnreadableError
from lps.manifests.names import VideoRule
from lps.manifests.row_digest import table_digest
from lps.manifests.schemas import arrow_file, check_version
from lps.model.data.sample import UNKNOWN_LABEL
from lps.model.data.video_score import DEFAULT_RULE, video_scores

SCORES_ID = "lps.scores"
SCORES_VERSION = "1.2"
THRESHOLD = 0.5
"""Above it a clip or a video is called fake, as by the larger of two logits."""

UNNAMED = "unnamed"
"""Stands for the method of fakes of which nobody knows it."""

_ID = pa.binary(16)
SCORES = pa.schema(
    [
        pa.field("video_id", _ID, nullable=False),
        pa.field("clip_id", _ID, nullable=False),
        pa.field("label", pa.int8(), metadata={"unit": "0 real, 1 fake, null unknown"}),
        pa.field("p_fake", pa.float32(), nullable=False),
        pa.field("method", pa.string()),
        pa.field("dataset", pa.string()),
        pa.field("track_id", pa.int16()),
        pa.field("face_id", pa.int16(), metadata={"unit": "number of the face within the video"}),
        pa.field("start_s", pa.float64(), metadata={"unit": "s, first frame of the clip"}),
        pa.field("data", pa.int16(), metadata={"unit": "number of the entry of `data` in metrics.json"}),
        pa.field("compression", pa.string()),
    ]
)
FACTS = ("method", "dataset", "track_id", "face_id", "start_s", "compression")
"""Columns that come from the data rather than from the detector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledScores:
    """Labelled scores to be measured, by clip or by video, as arrays of one length."""

    labels: Ints
    """0 real, 1 fake."""
    p_fake: Floats
    video: Ints
    """Number of the video, from 0; videos are what the bootstrap draws."""
    face: Ints
    """Number of the face within its video."""
    method: NDArray[np.object_]
    """Name of the manipulation; None for reals and where nobody knows."""
    dataset: NDArray[np.object_]
    compression: NDArray[np.object_]
    """How the source video is compressed, such as c23; None where nobody knows."""
    rule: VideoRule = DEFAULT_RULE
    """How a video is scored from its clips; see `video_scores`."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, mask: Bools) -> "LabelledScores":
        """Return some of them, their videos numbered anew."""
        _, video = np.unique(self.video[mask], return_inverse=True)
        return LabelledScores(
            labels=self.labels[mask],
            p_fake=self.p_fake[mask],
            video=video.astype(np.int64),
            face=self.face[mask],
            method=self.method[mask],
            dataset=self.dataset[mask],
            compression=self.compression[mask],
            rule=self.rule,
        )

    def by_video(self) -> "LabelledScores":
        """Return one case per video (the paper's Eq. 2), by `rule`. Of clips, in any order.

        Raises IntegrityError for a video whose clips have different labels.
        """
        if not len(self):
            return self
        numbers, first, video = np.unique(self.video, return_index=True, return_inverse=True)
        if (self.labels != self.labels[first][video]).any():
            raise IntegrityError("clips of one video have different labels; the data contradict each other")
        return LabelledScores(
            labels=self.labels[first],
            p_fake=video_scores(video, self.face, self.p_fake, self.rule),
            video=np.arange(len(numbers)),
            face=np.zeros(len(numbers), np.int64),
            method=self.method[first],
            dataset=self.dataset[first],
            compression=self.compression[first],
            rule=self.rule,
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """One row per clip."""

    table: pa.Table
    """Columns of `SCORES`."""
    rule: VideoRule = DEFAULT_RULE
    """How a video is scored from these."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def p_fake(self) -> Floats:
        """Probability of fake of every clip; float32 values, held as float64."""
        return np.asarray(self.table["p_fake"].to_numpy(), np.float64)

    @property
    def labels(self) -> Ints:
        """0 real, 1 fake, -1 unknown."""
        return np.asarray(self.table["label"].fill_null(UNKNOWN_LABEL).to_numpy(), np.int64)

    def with_sample_columns(self, samples: pa.Table) -> "Scores":
        """Return them with method, data set, track and start of their clips, by `clip_id` from a table that has these.

        Raises IntegrityError for a clip that `samples` lacks.
        """
        row = pc.index_in(self.table["clip_id"], value_set=samples["clip_id"].combine_chunks())
        if row.null_count:
            raise IntegrityError("a scored clip is not among the samples of its data")
        columns = {name: samples[name].take(row).cast(SCORES.field(name).type) for name in FACTS}
        return self._with(columns)

    def with_entry(self, data: int) -> "Scores":
        """Return them as those of entry `data`."""
        return self._with({"data": pa.array([data] * len(self), pa.int16())})

    def sorted_by_id(self) -> "Scores":
        """Return them in the order of their ids, so that a file does not depend on the order of reading."""
        keys = [(name, "ascending") for name in ("data", "video_id", "clip_id")]
        return replace(self, table=self.table.sort_by(keys).combine_chunks())

    def _with(self, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> "Scores":
        table = self.table
        for name, values in columns.items():
            table = table.set_column(SCORES.get_field_index(name), SCORES.field(name), values)
        return replace(self, table=table)

    def labelled(self) -> LabelledScores:
        """Return the labelled clips."""
        table = self.table.filter(self.table["label"].is_valid())
        video = table["video_id"].combine_chunks().dictionary_encode().indices
        return LabelledScores(
            labels=np.asarray(table["label"].to_numpy(), np.int64),
            p_fake=np.asarray(table["p_fake"].to_numpy(), np.float64),
            video=np.asarray(video.to_numpy(), np.int64),
            face=np.asarray(pc.coalesce(table["face_id"], table["track_id"]).fill_null(0).to_numpy(), np.int64),
            method=np.array(table["method"].to_pylist(), object),
            dataset=np.array(table["dataset"].to_pylist(), object),
            compression=np.array(table["compression"].to_pylist(), object),
            rule=self.rule,
        )


@dataclass(slots=True)
class ScoreRows:
    """Collects rows batch by batch."""

    video_ids: list[bytes] = field(default_factory=list)
    clip_ids: list[bytes] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    p_fake: list[float] = field(default_factory=list)

    def add(
        self, video_ids: Sequence[bytes], clip_ids: Sequence[bytes], labels: Sequence[int], p_fake: Sequence[float]
    ) -> None:
        """Add the clips of a batch."""
        self.video_ids += video_ids
        self.clip_ids += clip_ids
        self.labels += labels
        self.p_fake += p_fake

    def scores(self) -> Scores:
        """Return the table; unknown labels become null, and what the detector does not know is null."""
        n = len(self.p_fake)
        columns = {
            "video_id": pa.array(self.video_ids, _ID),
            "clip_id": pa.array(self.clip_ids, _ID),
            "label": pa.array([None if label == UNKNOWN_LABEL else label for label in self.labels], pa.int8()),
            "p_fake": pa.array(np.asarray(self.p_fake, np.float32)),
        }
        arrays = [columns.get(field.name, pa.nulls(n, field.type)) for field in SCORES]
        return Scores(pa.Table.from_arrays(arrays, schema=SCORES))


def concat(parts: Sequence[Scores]) -> Scores:
    """Return several tables of one rule as one."""
    table = pa.concat_tables([SCORES.empty_table(), *(part.table for part in parts)])
    return Scores(table, parts[0].rule) if parts else Scores(table)


def worst_errors(scores: Scores, n: int) -> list[dict[str, Any]]:
    """Return the clips that were most confidently wrong, worst first."""
    rows = [row for row in scores.table.to_pylist() if row["label"] is not None]
    wrong = [row for row in rows if (row["p_fake"] > THRESHOLD) != bool(row["label"])]
    return sorted(wrong, key=lambda row: (-abs(row["p_fake"] - THRESHOLD), row["clip_id"]))[:n]


def scores_bytes(scores: Scores, metadata: Mapping[str, str]) -> bytes:
    """Return the Parquet file; `metadata` joins its own marks. Equal rows give equal bytes."""
    marks = {
        "lps.schema_id": SCORES_ID,
        "lps.schema_version": SCORES_VERSION,
        "lps.table": "scores",
        "lps.rows_sha256": table_digest(scores.table),
        "lps.label_map": '{"0":"real","1":"fake"}',
        "lps.video_score": scores.rule,
        **metadata,
    }
    sink = io.BytesIO()
    table = scores.table.replace_schema_metadata(dict(sorted(marks.items())))
    pq.write_table(table, sink, compression="zstd", compression_level=3, row_group_size=65536)
    return sink.getvalue()


def read_scores(data: bytes, name: str) -> tuple[Scores, dict[str, str]]:
    """Return scores and marks of a file's bytes; `name` is for messages.

    A nullable column that an older file lacks is null, and its videos are scored as they were: by the mean of all
    clips. Raises UnreadableError for a foreign, damaged or newer file.
    """
    try:
        table = pq.read_table(arrow_file(data))
    except (pa.ArrowException, OSError) as e:
        raise UnreadableError(f"{name} is not a readable Parquet file: {' '.join(str(e).split())}") from e
    marks = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if marks.get("lps.schema_id") != SCORES_ID:
        raise UnreadableError(f"{name} is not a table of scores (found {marks.get('lps.schema_id')!r})")
    check_version(marks.get("lps.schema_version", ""), what=name, newest=SCORES_VERSION)
    arrays = []
    for column in SCORES:
        if column.name in table.column_names:
            arrays.append(table[column.name].cast(column.type))
        elif column.nullable:
            arrays.append(pa.chunked_array([pa.nulls(table.num_rows, column.type)], column.type))
        else:
            raise UnreadableError(f"{name} has no column '{column.name}'")
    rule: VideoRule = "max" if marks.get("lps.video_score") == "max" else "mean"
    return Scores(pa.Table.from_arrays(arrays, schema=SCORES), rule), marks
