"""All commits present: write manifests, cards and then, last, the index. All is derived from plan and commits."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lps.manifests.canonical import file_sha256, parse_json, pretty_json, sha256_hex
from lps.manifests.cards.publish import make_cards
from lps.manifests.codes import QUARANTINE_CODES, Status
from lps.manifests.columns import PATHS, column_batches, rule_path, split_path
from lps.manifests.environment import scratch_folder
from lps.manifests.errors import UnreadableError
from lps.manifests.index import (
    EDITED_CARD,
    Commit,
    committed_shards,
    named_manifests,
    publish_index,
    read_commits,
    read_committed,
)
from lps.manifests.names import label_name
from lps.manifests.row_digest import sum_of_digests, table_digest
from lps.manifests.rows import row_from_json
from lps.manifests.schemas import SCHEMA_VERSION, VIDEOS, Row, TableWriter, arrow_file, read_table, rows_table
from lps.manifests.sorting import SortedById
from lps.manifests.storage import Store
from lps.pipeline.job.plan import Plan

SUMMARY_COLUMNS = ("label", "split", "status", "error_code", "n_clips")
PAIR_COLUMNS = ("video_id", "pair_mode", "pair_fallback")
SHARED = "shared"
"""What stands for the fakes that share their original's window, among codes of why others do not."""
KNOWN_ROWS = 1024
"""Rows of videos that are not processed, made at a time."""
SPLIT_ROWS = 8192
"""Rows of a split set read at a time."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a data set holds, counted from its commits."""

    by_split: dict[tuple[str, str], tuple[int, int]]
    """(split, label) -> (videos with clips, clips)."""
    by_code: dict[tuple[str, str], int]
    """(code, label) -> videos."""
    n_videos: int
    n_ok: int
    n_quarantined: int
    n_selected: int
    """Videos that were inputs: all but the skipped."""
    untied_fakes: int
    """Fakes that nothing ties to a real video."""
    without_clips: tuple[tuple[str, str, int], ...] = ()
    """(split, label, videos) of every class of a split that has videos, of which none gave a clip."""
    paired: Mapping[str, int] = field(default_factory=dict)
    """SHARED, or the code of a fallback -> fakes with clips whose original is known; none without pairing."""

    @property
    def n_clips(self) -> int:
        """All clips."""
        return sum(clips for _, clips in self.by_split.values())

    @property
    def quarantined_share(self) -> float:
        """Quarantined videos over inputs, 0 to 1."""
        return self.n_quarantined / self.n_selected if self.n_selected else 0.0


def finalize(
    plan: Plan,
    out: Store,
    scratch: str | None = None,
    commits: Mapping[str, Commit] = MappingProxyType({}),
    check: Callable[[], None] = lambda: None,
) -> Summary:
    """Write manifests, cards and index of a finished run. Raises UnreadableError if a shard is not committed yet.

    Split sets that were added to the data set stay in the index, unless their files are not those that it named before.
    Files are built in the folder `scratch`. `commits` are those that have been read already, by shard. `check` is
    called before the index is written, and raises what must prevent that.
    """
    found = _all_commits(plan, out, commits)
    with scratch_folder("lps-manifests-", scratch) as folder:
        videos = SortedById(folder, VIDEOS, plan.rows.num_rows)
        digests: list[str] = []
        summary = summarise(_each_added(_video_pieces(plan, out, found, digests), videos), plan.untied_fakes)
        sorted_videos = (sum_of_digests(digests), videos.pieces())
        listing = _publish_manifests(plan, out, found, sorted_videos, folder / "table.parquet")
    summary = replace(summary, paired=_count_paired(plan, out))
    listing |= _added_split_sets(out, plan.spec.split_set, named_manifests(out))
    index = _index(plan, listing, [c.shard for c in found if c.shard is not None])
    publish_cards(out, index, named_manifests(out))
    check()
    publish_index(out, pretty_json(index))
    return summary


def publish_cards(out: Store, index: Row, before: Row) -> list[str]:
    """Write the cards of what `index` names, and name them in it. Raises UnreadableError.

    `before` are the entries of the index that was there. Cards with other bytes were edited: they are kept below runs/,
    and returned by their paths there.
    """
    kept = []
    for path, data in make_cards(out, index).items():
        old = out.read(path) if out.exists(path) else data
        if old != data and sha256_hex(old) != before.get(path, {}).get("sha256"):
            kept.append(EDITED_CARD.format(path))
            out.publish(kept[-1], old)
        out.publish(path, data)
        index["manifests"][path] = manifest_entry(data, None)
    return kept


def finished_summary(plan: Plan, out: Store) -> Summary:
    """Return the summary of a finished data set, from its manifests."""
    summary = summarise(column_batches(out, "videos", SUMMARY_COLUMNS), plan.untied_fakes)
    return replace(summary, paired=_count_paired(plan, out))


def _count_paired(plan: Plan, out: Store) -> Mapping[str, int]:
    """Count the fakes of the manifest `clips`, which takes a look at three of its columns."""
    if plan.spec.params.pair.mode != "original":
        return {}
    return count_paired(column_batches(out, "clips", PAIR_COLUMNS))


def _all_commits(plan: Plan, out: Store, known: Mapping[str, Commit]) -> list[Commit]:
    """Return the commit records of all shards, sorted by shard."""
    shard_ids = plan.shard_sizes()
    unread = [shard_id for shard_id in shard_ids if shard_id not in known]
    missing = sorted(set(unread) - committed_shards(out)) if unread else []
    if missing:
        raise UnreadableError(f"{len(missing)} shards are not committed (first: {missing[0]}); run again to resume")
    read = {commit.shard_id: commit for commit in read_commits(out, unread, plan.sha256)}
    return [known[shard_id] if shard_id in known else read[shard_id] for shard_id in shard_ids]


def _publish_manifests(
    plan: Plan, out: Store, commits: Sequence[Commit], videos: tuple[str, Iterable[pa.Table]], path: Path
) -> Row:
    """Write the manifests, some rows at a time, and return their entries in the index.

    `videos` are the digest of all rows of that table, and the rows.
    """
    spec = plan.spec
    marks = {"lps.params_sha256": spec.params.sha256(), "lps.code_version": spec.versions.get("lps-prep", "")}
    shards = rows_table("shards", [row_from_json("shards", c.shard) for c in commits if c.shard is not None])
    splits = pq.ParquetFile(arrow_file(plan.splits_bytes))
    splits_sha256 = splits.schema_arrow.metadata[b"lps.rows_sha256"].decode()
    split_pieces = (pa.Table.from_batches([batch]) for batch in splits.iter_batches(SPLIT_ROWS, use_threads=False))
    clips_sha256 = sum_of_digests(commit.rows["clips"].rows_sha256 for commit in commits)
    clips = (read_committed(out, commit, "clips") for commit in commits if commit.shard is not None)
    tables: dict[str, tuple[str, str, Iterable[pa.Table]]] = {
        PATHS["videos"]: ("videos", *videos),
        PATHS["clips"]: ("clips", clips_sha256, clips),
        PATHS["shards"]: ("shards", table_digest(shards), [shards]),
        split_path(spec.split_set): ("splits", splits_sha256, split_pieces),
    }
    listing = {}
    for uri, (name, rows_sha256, pieces) in tables.items():
        with path.open("wb") as sink, TableWriter(sink, name, rows_sha256, marks) as writer:
            for piece in pieces:
                writer.add(piece)
        out.publish_file(path, uri)
        listing[uri] = {"sha256": file_sha256(path), "bytes": path.stat().st_size, "rows": writer.n_rows}
    rule = pretty_json(parse_json(plan.json_bytes)["split"])
    out.publish(rule_path(spec.split_set), rule)
    listing[rule_path(spec.split_set)] = manifest_entry(rule, None)
    return listing


def _video_pieces(plan: Plan, out: Store, commits: Sequence[Commit], digests: list[str]) -> Iterator[pa.Table]:
    """Yield the rows of all videos, those of the shards and those of which the plan knows all; append their digests."""
    known = plan.known_rows()
    for rows in iter(lambda: list(islice(known, KNOWN_ROWS)), []):
        piece = rows_table("videos", rows)
        digests.append(table_digest(piece))
        yield piece
    for commit in commits:
        digests.append(commit.rows["videos"].rows_sha256)
        yield read_committed(out, commit, "videos")


def _each_added(pieces: Iterable[pa.Table], rows: SortedById) -> Iterator[pa.Table]:
    """Yield tables after they were added to the rows that are to be sorted."""
    for piece in pieces:
        rows.add(piece)
        yield piece


def manifest_entry(data: bytes, n_rows: int | None) -> Row:
    """Return what the index says of a manifest, or of a rule record, which has no rows."""
    return {"sha256": sha256_hex(data), "bytes": len(data), "rows": n_rows}


def _added_split_sets(out: Store, own: str, named: Row) -> Row:
    """Return the entries of all split sets but the plan's; as they are found, where no index is left to name them."""
    listing: Row = {}
    files = {file.path for file in out.walk("manifests/splits")}
    for path in sorted(files - {split_path(own)}):
        rule = path.removesuffix(".parquet") + ".json"
        if not path.endswith(".parquet") or rule not in files:
            continue
        table, record = out.read(path), out.read(rule)
        try:
            entries = {
                path: manifest_entry(table, read_table("splits", table).num_rows),
                rule: manifest_entry(record, None),
            }
        except UnreadableError:
            continue
        if not named or all(named.get(p) == entry for p, entry in entries.items()):
            listing |= entries
    return listing


def _index(plan: Plan, listing: Row, shards: Sequence[Row]) -> Row:
    by_split: dict[str, list[Row]] = {}
    for row in shards:
        brief = {
            "shard_id": row["shard_id"],
            "uri": row["uri"],
            "sha256": row["sha256"],
            "bytes": row["bytes"],
            "n_samples": row["n_samples"],
        }
        by_split.setdefault(str(row["split"]), []).append(brief)
    return {
        "schema": "lps.dataset",
        "schema_version": SCHEMA_VERSION,
        "params_sha256": plan.spec.params.sha256(),
        "plan_sha256": plan.sha256,
        "split_set": plan.spec.split_set,
        "leaky": bool(parse_json(plan.json_bytes)["split"].get("leaky", False)),
        "untied_fakes": plan.untied_fakes,
        "manifests": listing,
        "shards": by_split,
    }


def summarise(pieces: Iterable[pa.Table], untied_fakes: int) -> Summary:
    """Count rows of the manifest `videos`, of which it needs SUMMARY_COLUMNS; the plan knows the untied fakes."""
    by_split: Counter[tuple[str, str]] = Counter()
    clips: Counter[tuple[str, str]] = Counter()
    inputs: Counter[tuple[str, str]] = Counter()
    by_code: Counter[tuple[str, str]] = Counter()
    n_videos = n_ok = n_quarantined = n_selected = 0
    quarantine = {str(code) for code in QUARANTINE_CODES}
    for row in _kinds(pieces):
        label, n = label_name(row["label"]), row["count_all"]
        n_videos += n
        n_selected += n * (row["status"] != Status.SKIPPED)
        n_ok += n * (row["status"] in (Status.OK, Status.PARTIAL))
        n_quarantined += n * (row["error_code"] in quarantine)
        if row["split"] and row["status"] != Status.SKIPPED:
            inputs[str(row["split"]), label] += n
        if row["has_clips"]:
            by_split[str(row["split"]), label] += n
            clips[str(row["split"]), label] += row["n_clips_sum"]
        if row["error_code"]:
            by_code[str(row["error_code"]), label] += n
    return Summary(
        {key: (by_split[key], clips[key]) for key in sorted(by_split)},
        dict(sorted(by_code.items())),
        n_videos,
        n_ok,
        n_quarantined,
        n_selected,
        untied_fakes,
        tuple((*key, inputs[key]) for key in sorted(inputs) if not clips[key]),
    )


def _kinds(pieces: Iterable[pa.Table]) -> Iterator[Row]:
    """Yield how many rows and clips of each kind there are, for each piece."""
    for videos in pieces:
        counted = videos.append_column("has_clips", pc.greater(videos["n_clips"], 0))
        kinds = counted.group_by(["label", "split", "status", "error_code", "has_clips"])
        yield from kinds.aggregate([("n_clips", "sum"), ([], "count_all")]).to_pylist()


def count_paired(pieces: Iterable[pa.Table]) -> dict[str, int]:
    """Count fakes by how they are paired, from rows of the manifest `clips`, of which it needs PAIR_COLUMNS.

    A fake that shares some windows of its original counts as one that shares.
    """
    found = [pa.table({"video_id": pa.array([], pa.binary(16)), "how": pa.array([], pa.string())})]
    for clips in pieces:
        how = pc.coalesce(clips["pair_fallback"], clips["pair_mode"])
        fakes = pa.table({"video_id": clips["video_id"], "how": how}).filter(pc.not_equal(how, "own"))
        found.append(fakes.group_by(["video_id", "how"]).aggregate([]))
    paired = pa.concat_tables(found).group_by(["video_id", "how"]).aggregate([])  # of a video in two pieces
    shares = pc.equal(paired["how"], SHARED)
    others = paired.filter(pc.invert(pc.is_in(paired["video_id"], value_set=paired.filter(shares)["video_id"])))
    codes = Counter(others["how"].to_pylist())
    n_sharing = int(pc.sum(shares).as_py() or 0)
    return ({SHARED: n_sharing} if n_sharing else {}) | dict(sorted(codes.items()))
