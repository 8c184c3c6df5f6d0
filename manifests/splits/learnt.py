"""What a detector learnt from, clip by clip: kept in every checkpoint and run, and passed on to all that start from it.

A video is known by the digest of its source file, so that copies, other names and other data sets hide nothing; by its
id where one side has no digest, as shards without manifests have none.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lps.manifests.canonical import parse_json
from lps.manifests.errors import IntegrityError, UnreadableError
from lps.manifests.names import Role
from lps.manifests.schemas import arrow_file, check_version

LEARNT_ID, LEARNT_VERSION = "lps.learnt", "1.0"
LEARNT_PARQUET = "learnt.parquet"
"""Name of the table in the folder of a run."""


LEARNT = pa.schema(
    [
        pa.field("role", pa.string(), nullable=False),
        pa.field("video_id", pa.binary(16), nullable=False),
        pa.field("sha256", pa.binary(32)),  # of the source file; null where only shards were read
        pa.field("clip_id", pa.binary(16), nullable=False),
    ]
)
"""A row for each clip in each role, sorted."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a run and all that it started from have seen."""

    table: pa.Table
    """Columns of `LEARNT`."""
    gaps: tuple[str, ...] = ()
    """What is not known, a sentence each: a start that says nothing of itself."""

    def n_videos(self) -> dict[str, int]:
        """Return the number of videos in each role."""
        return {role: pc.count_distinct(_of_role(self.table, role)["video_id"]).as_py() for role in Role}


def roles_of(learnt: Learnt, sha256: str) -> tuple[Role, ...]:
    """Return the roles in which the file with a digest (hex) was seen."""
    found = learnt.table.filter(pc.equal(learnt.table["sha256"], pa.scalar(bytes.fromhex(sha256), pa.binary(32))))
    roles = set(found["role"].to_pylist())
    return tuple(role for role in Role if role in roles)


def _of_role(table: pa.Table, role: Role) -> pa.Table:
    return table.filter(pc.equal(table["role"], str(role)))


def learnt_from(role: Role, samples: pa.Table) -> Learnt:
    """Return clips in one role; `samples` has columns `video_id`, `source_sha256` and `clip_id`."""
    columns = (samples[name] for name in ("video_id", "source_sha256", "clip_id"))
    roles = pa.array([str(role)] * samples.num_rows, pa.string())
    return Learnt(pa.table([roles, *columns], schema=LEARNT))


def merge_learnt(parts: Sequence[Learnt]) -> Learnt:
    """Return everything that the parts hold, each row once, in an order of its own."""
    table = pa.concat_tables(part.table for part in parts).group_by(LEARNT.names).aggregate([])
    gaps = dict.fromkeys(gap for part in parts for gap in part.gaps)
    return Learnt(table.sort_by([(name, "ascending") for name in LEARNT.names]).cast(LEARNT), tuple(gaps))


def learnt_bytes(learnt: Learnt) -> bytes:
    """Return the Parquet file. Equal rows give equal bytes."""
    marks = {"lps.schema_id": LEARNT_ID, "lps.schema_version": LEARNT_VERSION, "lps.gaps": json.dumps(learnt.gaps)}
    sink = io.BytesIO()
    table = learnt.table.combine_chunks().replace_schema_metadata(marks)
    # Digests and ids do not repeat but for the clips of a video, which lie side by side: zstd finds those.
    pq.write_table(table, sink, compression="zstd", use_dictionary=["role"], row_group_size=1 << 20)
    return sink.getvalue()


def read_learnt(data: bytes, name: str) -> Learnt:
    """Return what `learnt_bytes` wrote; `name` is for messages.

    Raises IntegrityError for anything else, UnreadableError for a newer version.
    """
    try:
        table = pq.read_table(arrow_file(data))
        marks = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if marks["lps.schema_id"] != LEARNT_ID:
            raise KeyError(marks["lps.schema_id"])
        check_version(marks["lps.schema_version"], what=name, newest=LEARNT_VERSION)
        table = table.select(LEARNT.names).replace_schema_metadata().cast(LEARNT)
        return Learnt(table, tuple(map(str, parse_json(marks["lps.gaps"]))))
    except UnreadableError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as e:
        raise IntegrityError(f"{name} does not hold what was learnt from: {' '.join(str(e).split())}") from e


# ---- compared with what is held out ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """How much of what is measured a detector has seen."""

    n_videos: int
    n_clips: int
    """What is measured."""
    videos: Mapping[str, int]
    clips: Mapping[str, int]
    """Those that were seen, in each role. A video is seen with any of its clips."""
    n_namesakes: int
    """Videos that have the id of one that was seen, but other bytes."""
    gaps: tuple[str, ...]
    """Why there may be more."""

    @property
    def known(self) -> bool:
        """True where nothing can have been overlooked."""
        return not self.gaps

    def record(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        roles = {str(role): {"videos": self.videos[role], "clips": self.clips[role]} for role in Role}
        whole = {"n_videos": self.n_videos, "n_clips": self.n_clips, "n_namesakes": self.n_namesakes}
        return {**whole, **roles, "gaps": list(self.gaps)}

    def notes(self) -> list[str]:
        """Say what makes metrics better than they are, and what is not known."""
        words = {
            Role.LABELS: "the detector learnt from {} of these {} videos",
            Role.FRAMES: "the detector was pretrained on {} of these {} videos, without labels",
            Role.VALIDATION: "the checkpoint, or one that it started from, was chosen by its metrics on {} of these {} "
            "videos",
        }
        said = [text.format(self.videos[role], self.n_videos) for role, text in words.items() if self.videos[role]]
        if self.n_namesakes:
            said.append(f"{self.n_namesakes} of these videos have the id of one that it has seen, but other bytes")
        return [*said, *self.gaps]


NOT_RECORDED = "the checkpoint does not say what it learnt from (an older version wrote it): it may be these videos"
NO_DIGESTS = (
    "{} of these {} videos come without the digest of their file, as shards without manifests do: copies under another "
    "name are not noticed"
)
LEARNT_WITHOUT_DIGESTS = (
    "{} of the {} videos that it learnt from are known by id only, not by the digest of their file: copies under "
    "another name are not noticed"
)


def overlap(learnt: Learnt | None, samples: pa.Table) -> Overlap:
    """Compare what was learnt from (None: nobody knows) with `samples`, as `learnt_from` takes them."""
    videos = samples.group_by(["video_id", "source_sha256"]).aggregate([])
    if learnt is None:
        learnt = Learnt(LEARNT.empty_table(), (NOT_RECORDED,))
    seen: dict[str, int] = {}
    clips: dict[str, int] = {}
    found = namesakes = pa.array([False] * videos.num_rows)
    for role in Role:
        mine = _of_role(learnt.table, role)
        same, alike = _same(mine, videos)
        found, namesakes = pc.or_(found, same), pc.or_(namesakes, alike)
        of_same = pc.is_in(samples["video_id"], value_set=videos["video_id"].filter(same).combine_chunks())
        seen[role] = pc.sum(same).as_py() or 0
        clips[role] = pc.sum(pc.and_(of_same, pc.is_in(samples["clip_id"], value_set=_values(mine, "clip_id")))).as_py()
    gaps = list(learnt.gaps)
    if videos["source_sha256"].null_count:
        gaps.append(NO_DIGESTS.format(videos["source_sha256"].null_count, videos.num_rows))
    every = learnt.table.group_by(["video_id", "sha256"]).aggregate([])
    if every["sha256"].null_count:
        gaps.append(LEARNT_WITHOUT_DIGESTS.format(every["sha256"].null_count, every.num_rows))
    return Overlap(
        n_videos=videos.num_rows, n_clips=samples.num_rows, videos=seen, clips={k: n or 0 for k, n in clips.items()},
        n_namesakes=pc.sum(pc.and_not(namesakes, found)).as_py() or 0, gaps=tuple(gaps),
    )  # fmt: skip


def _values(table: pa.Table, name: str) -> pa.Array:
    return table[name].combine_chunks().drop_null()


def _same(mine: pa.Table, videos: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Tell for each video whether it is among `mine`, and whether only one of its id with other bytes is."""
    by_bytes = pc.is_in(videos["source_sha256"], value_set=_values(mine, "sha256"))
    by_id = pc.is_in(videos["video_id"], value_set=_values(mine, "video_id"))
    nameless = _values(mine.filter(mine["sha256"].is_null()), "video_id")
    undecided = pc.or_(videos["source_sha256"].is_null(), pc.is_in(videos["video_id"], value_set=nameless))
    same = pc.or_(by_bytes, pc.and_(by_id, undecided))
    return same, pc.and_not(by_id, same)
