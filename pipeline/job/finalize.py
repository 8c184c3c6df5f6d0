"""All commits present: write the manifests, then the index, last. Everything is derived from plan and commits."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from lps.manifests.canonical import parse_json, pretty_json, sha256_hex
from lps.manifests.codes import QUARANTINE_CODES, Status
from lps.manifests.columns import PATHS, rule_path, split_path
from lps.manifests.errors import IntegrityError, UnreadableError
from lps.manifests.index import INDEX_JSON, read_index
from lps.manifests.names import label_name
from lps.manifests.rows import row_from_json
from lps.manifests.schemas import SCHEMA_VERSION, Row, read_table, table_bytes
from lps.manifests.storage import Store
from lps.pipeline.job.plan import Plan
from lps.pipeline.job.shards import commit_uri


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

    @property
    def n_clips(self) -> int:
        """All clips."""
        return sum(clips for _, clips in self.by_split.values())

    @property
    def quarantined_share(self) -> float:
        """Quarantined videos over inputs, 0 to 1."""
        return self.n_quarantined / self.n_selected if self.n_selected else 0.0


def read_commit(out: Store, shard_id: str, plan_sha256: str) -> Row:
    """Return one commit record. Raises IntegrityError when it belongs to another plan or is not readable."""
    uri = commit_uri(shard_id)
    try:
        record = parse_json(out.read(uri))
        found, *_ = [record[name] for name in ("plan_sha256", "shard", "videos", "clips")]
    except (ValueError, KeyError, TypeError) as e:
        raise IntegrityError(f"{out.join(uri)} is not a commit record: {e}; delete it and run again") from e
    if found != plan_sha256:
        raise IntegrityError(f"{out.join(uri)} belongs to another plan; use a new output")
    return dict(record)


def committed_shards(out: Store) -> set[str]:
    """Return the ids of all shards with a commit record."""
    names = [file.path.rsplit("/", 1)[-1] for file in out.walk("commits")]
    return {name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")}


def named_manifests(out: Store) -> Row:
    """Return the entries that the index has for manifests; none where there is no index that can be read."""
    try:
        return dict(read_index(out).values["manifests"])
    except UnreadableError:
        return {}


def finalize(plan: Plan, out: Store, named: Row | None = None) -> Summary:
    """Write manifests and index of a finished run. Raises UnreadableError if a shard is not committed yet.

    Split sets that were added to the data set stay in the index, unless their files are not those that it named before:
    `named` are its entries, where it is gone by now.
    """
    named = named_manifests(out) if named is None else named
    shard_ids = [job.shard_id for job in plan.shard_jobs()]
    missing = sorted(set(shard_ids) - committed_shards(out))
    if missing:
        raise UnreadableError(f"{len(missing)} shards are not committed (first: {missing[0]}); run again to resume")
    videos = [video.known_row() for video in plan.videos if video.shard_id is None]
    clips: list[Row] = []
    shards: list[Row] = []
    for shard_id in shard_ids:
        commit = read_commit(out, shard_id, plan.sha256)
        videos += [row_from_json("videos", row) for row in commit["videos"]]
        clips += [row_from_json("clips", row) for row in commit["clips"]]
        if commit["shard"] is not None:
            shards.append(row_from_json("shards", commit["shard"]))
    videos.sort(key=lambda row: bytes(row["video_id"]))
    clips.sort(key=lambda row: (str(row["shard_id"]), int(row["tar_offset"])))
    shards.sort(key=lambda row: str(row["shard_id"]))
    tables = {"videos": videos, "clips": clips, "shards": shards}
    listing = _publish_manifests(plan, out, tables) | _added_split_sets(out, plan.spec.split_set, named)
    out.publish(INDEX_JSON, pretty_json(_index(plan, listing, shards)))
    return summarise(videos, plan.untied_fakes)


def _publish_manifests(plan: Plan, out: Store, tables: dict[str, list[Row]]) -> Row:
    """Write the manifests and return their entries in the index."""
    spec = plan.spec
    marks = {"lps.params_sha256": spec.params.sha256(), "lps.code_version": spec.versions.get("lps-prep", "")}
    files = {PATHS[table]: (table, rows) for table, rows in tables.items()}
    files[split_path(spec.split_set)] = ("splits", [asdict(row) for row in plan.split_rows])
    listing = {}
    for uri, (table, rows) in files.items():
        data = table_bytes(table, rows, marks)
        out.publish(uri, data)
        listing[uri] = manifest_entry(data, len(rows))
    rule = pretty_json(json.loads(plan.json_bytes)["split"])
    out.publish(rule_path(spec.split_set), rule)
    listing[rule_path(spec.split_set)] = manifest_entry(rule, None)
    return listing


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
            "sha256": row["sha256"].hex(),
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
        "leaky": bool(json.loads(plan.json_bytes)["split"].get("leaky", False)),
        "untied_fakes": plan.untied_fakes,
        "manifests": listing,
        "shards": by_split,
    }


def summarise(videos: Iterable[Row], untied_fakes: int) -> Summary:
    """Count the rows of the manifest `videos`; the plan knows how many fakes are untied."""
    by_split: Counter[tuple[str, str]] = Counter()
    clips: Counter[tuple[str, str]] = Counter()
    inputs: Counter[tuple[str, str]] = Counter()
    by_code: Counter[tuple[str, str]] = Counter()
    n_videos = n_ok = n_quarantined = n_selected = 0
    quarantine = {str(code) for code in QUARANTINE_CODES}
    for row in videos:
        label = label_name(row["label"])
        n_videos += 1
        n_selected += row["status"] != Status.SKIPPED
        n_ok += row["status"] in (Status.OK, Status.PARTIAL)
        n_quarantined += row["error_code"] in quarantine
        if row["split"] and row["status"] != Status.SKIPPED:
            inputs[str(row["split"]), label] += 1
        if row["n_clips"]:
            by_split[str(row["split"]), label] += 1
            clips[str(row["split"]), label] += int(row["n_clips"])
        if row["error_code"]:
            by_code[str(row["error_code"]), label] += 1
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
