"""Ways to spoil a copy of a data set and bring up to date whatever would tell of that.

Files are replaced, never written into: copies may share theirs with the data set that they were made from.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lps.manifests.canonical import canonical_json, pretty_json, sha256_hex
from lps.manifests.columns import PATHS, read_columns, rule_path, split_path
from lps.manifests.index import (
    TABLES_OF_A_COMMIT,
    commit_from,
    commit_of,
    commit_path,
    committed_shards,
    publish_commit,
    read_committed,
)
from lps.manifests.rows import row_to_json
from lps.manifests.schemas import TABLES, Row, packed_rows, packed_table, parquet_bytes, read_table, rows_table
from lps.manifests.splits.inputs import INPUT_COLUMNS
from lps.manifests.splits.records import SplitParams
from lps.manifests.splits.table import split_table
from lps.manifests.storage import Store

RowEdit = Callable[[Row], Row | list[Row] | None]
"""Takes a row and returns what replaces it: a row, several, or None to delete it."""
FileEdit = Callable[[bytes], bytes | None]
"""Takes a file's bytes (empty where there is none) and returns what replaces them; None deletes the file."""
Member = tuple[str, bytes]
KEY_OF = {"videos": "video_id", "clips": "clip_id", "shards": "shard_id", "splits": "video_id"}


def edit_file(path: Path, edit: FileEdit) -> None:
    """Replace a file by what `edit` makes of it."""
    data = edit(path.read_bytes() if path.exists() else b"")
    path.unlink(missing_ok=True)
    if data is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def edit_json(path: Path, changes: Row, pack: Callable[[Row], bytes] = pretty_json) -> None:
    """Change entries of a JSON file."""
    edit_file(path, lambda data: pack({**json.loads(data), **changes}))


# ---- tables ----------------------------------------------------------------------------------------------------------


def edit_table(out: Path, name: str, edit: RowEdit, *, digests: bool = True, commits: bool = True) -> None:
    """Change rows of a table: `videos`, `clips`, `shards`, `splits` (of the shards), `splits/NAME`.

    `digests` follow in the table and in the index, changed rows of `videos`, `clips` and `shards` in commit records.
    """
    index = json.loads((out / "index.json").read_bytes())
    table, _, split_set = name.partition("/")
    uri = split_path(split_set or index["split_set"]) if table == "splits" else PATHS[table]
    before = _stored(table, (out / uri).read_bytes())
    changed: dict[int, list[Row]] = {}
    for place, row in enumerate(before.rows):
        replaced = edit(dict(row))
        rows = replaced if isinstance(replaced, list) else [replaced] if replaced is not None else []
        if rows != [row]:
            changed[place] = rows
    marks = {key.decode(): value.decode() for key, value in (pq.read_schema(out / uri).metadata or {}).items()}
    marks = {key: value for key, value in marks.items() if key.startswith("lps.")}
    if digests:
        del marks["lps.rows_sha256"]
    after = before.with_rows(changed)
    data = packed_table(table, after, marks).data
    edit_file(out / uri, lambda _: data)
    if commits and table in ("videos", "clips", "shards"):
        _edit_commits(out, table, {_text(before.rows[place][KEY_OF[table]]): rows for place, rows in changed.items()})
        if table == "clips":
            edit_table(out, "shards", _with_clips_digest(out), digests=digests, commits=True)
            index = json.loads((out / "index.json").read_bytes())
    if digests:
        index["manifests"][uri] = {"sha256": sha256_hex(data), "bytes": len(data), "rows": after.num_rows}
        if table == "shards":
            index["shards"] = _shard_briefs(after.to_pylist())
        edit_file(out / "index.json", lambda _: pretty_json(index))


def stored_rows(out: Path, table: str) -> list[Row]:
    """Return the rows of a table. They are kept: do not change them."""
    return _stored(table, (out / PATHS[table]).read_bytes()).rows


@dataclass(frozen=True, slots=True)
class _Stored:
    """A table that was read, and its rows."""

    name: str
    table: pa.Table
    rows: list[Row]

    def with_rows(self, changed: Mapping[int, Sequence[Row]]) -> pa.Table:
        """Return the table with other rows in some places: what lies between stays as it is."""
        parts, start = [], 0
        if len(changed) > len(self.rows) // 10:
            return rows_table(self.name, [new for k, row in enumerate(self.rows) for new in changed.get(k, [row])])
        for place in sorted(changed):
            parts += [self.table.slice(start, place - start), rows_table(self.name, changed[place])]
            start = place + 1
        return pa.concat_tables([*parts, self.table.slice(start)]).combine_chunks()


@lru_cache(maxsize=8)
def _stored(name: str, data: bytes) -> _Stored:
    table = read_table(name, data).cast(TABLES[name])
    return _Stored(name, table, table.to_pylist())


def _with_clips_digest(out: Path) -> RowEdit:
    def edit(row: Row) -> Row:
        path = out / commit_path(row["shard_id"])
        if not path.exists():
            return row
        clips = json.loads(path.read_bytes())["rows"]["clips"]
        return {**row, "clips_rows_sha256": bytes.fromhex(clips["rows_sha256"])}

    return edit


def _shard_briefs(rows: Sequence[Row]) -> dict[str, list[Row]]:
    briefs: dict[str, list[Row]] = {}
    for row in rows:
        brief = {name: row[name] for name in ("shard_id", "uri", "bytes", "n_samples")}
        briefs.setdefault(str(row["split"]), []).append({**brief, "sha256": row["sha256"].hex()})
    return briefs


def _edit_commits(out: Path, table: str, changed: Mapping[str, list[Row]]) -> None:
    """Write the changed rows into the commit records that hold them."""
    key, store = KEY_OF[table], Store(str(out))
    for shard_id in committed_shards(store):
        commit = commit_from(json.loads((out / commit_path(shard_id)).read_bytes()))
        shard = commit.shard
        if table == "shards":
            if shard_id not in changed:
                continue
            shard = row_to_json(changed[shard_id][0]) if changed[shard_id] else shard
        elif not any(_text(k) in changed for k in read_committed(store, commit, table)[key].to_pylist()):
            continue
        rows = {name: read_committed(store, commit, name).to_pylist() for name in TABLES_OF_A_COMMIT}
        if table != "shards":
            rows[table] = [new for row in rows[table] for new in changed.get(_text(row[key]), [row])]
        packed = {name: packed_rows(name, rows[name], {}) for name in TABLES_OF_A_COMMIT}
        publish_commit(store, commit_of(shard_id, commit.plan_sha256, shard, packed), packed)


def _text(key: object) -> str:
    return key.hex() if isinstance(key, bytes) else str(key)


# ---- plan and splits -------------------------------------------------------------------------------------------------


def replan(out: Path, changes: Row) -> None:
    """Change entries of plan.json, and whatever names its digest."""
    edit_json(out / "plan/plan.json", changes)
    digest = sha256_hex((out / "plan/plan.json").read_bytes())
    for path in [out / "index.json", *(out / "commits").glob("*.json")]:
        edit_json(path, {"plan_sha256": digest}, canonical_json)


def resplit(out: Path, split_set: str | None = None) -> None:
    """Make a split set (that of the shards) again by its rule, from the videos as they are now.

    Where the rule follows published lists, only its groups and its record change with the keys of the videos.
    """
    index = json.loads((out / "index.json").read_bytes())
    name = split_set or index["split_set"]
    rule = json.loads((out / rule_path(name)).read_bytes())
    params = SplitParams(rule=rule["rule"], ratios=tuple(rule["ratios"]), seed=rule["seed"])
    table, record = split_table(read_columns(Store(str(out)), "videos", INPUT_COLUMNS), params)
    packed = parquet_bytes("splits", table, {"lps.params_sha256": index["params_sha256"]})
    for path, data in ((split_path(name), packed), (rule_path(name), pretty_json(record))):
        edit_file(out / path, partial(_other, data))
        index["manifests"][path] |= {"sha256": sha256_hex(data), "bytes": len(data)}
    own = {"leaky": record["leaky"]} if name == index["split_set"] else {}
    edit_json(out / "index.json", {"manifests": index["manifests"], **own})


def _other(data: bytes, _: bytes) -> bytes:
    return data


# ---- tars ------------------------------------------------------------------------------------------------------------


def write_tar(members: Sequence[Member]) -> tuple[bytes, dict[str, Row]]:
    """Write a tar as the pipeline does; return it with the place of each member as the manifest spells it."""
    sink, places = io.BytesIO(), {}
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            start = tar.offset
            tar.addfile(info, io.BytesIO(data))
            digest = hashlib.sha256(data).digest()
            place = {"offset": start + tarfile.BLOCKSIZE, "nbytes": len(data), "sha256": digest}
            places[name] = {"ext": name.split(".", 1)[1], **place}
    return sink.getvalue(), places


def read_tar(data: bytes) -> list[Member]:
    """Return names and bytes of the members."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]


def retar(
    out: Path,
    shard_id: str,
    edit: Callable[[list[Member]], list[Member]],
    *,
    listed: bool,
    rename: Mapping[str, str] | None = None,
) -> None:
    """Write one shard anew; its own row follows the new file.

    `edit` takes and returns (name, bytes) of the members. With `listed`, the rows of its clips follow too, under the
    keys of `rename`: then the shard is all that the manifests say, however odd that is.
    """
    path = out / f"shards/{shard_id.rpartition('-')[0]}/{shard_id}.tar"
    data, places = write_tar(edit(read_tar(path.read_bytes())))
    keys: list[str] = []

    def of_clip(row: Row) -> Row:
        if row["shard_id"] != shard_id:
            return row
        row = {**row, "sample_key": (rename or {}).get(row["sample_key"], row["sample_key"])}
        keys.append(row["sample_key"])
        return with_places(row, places)

    def of_shard(row: Row) -> Row:
        if row["shard_id"] != shard_id:
            return row
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        new = {**row, "bytes": len(data), "sha256": hashlib.sha256(data).digest(), "md5": md5}
        listing = {"n_members": len(places), "first_key": min(keys), "last_key": max(keys)} if listed else {}
        return {**new, **listing}

    edit_file(path, lambda _: data)
    if listed:
        edit_table(out, "clips", of_clip)
    edit_table(out, "shards", of_shard)


def with_places(row: Row, places: Mapping[str, Row]) -> Row:
    """Return the row of a clip with the places of its members in a tar."""
    mine = [place for name, place in places.items() if name.split(".", 1)[0] == row["sample_key"]]
    start = mine[0]["offset"] - tarfile.BLOCKSIZE
    end = max(place["offset"] + -(-place["nbytes"] // 512) * 512 for place in mine)
    return {**row, "members": mine, "tar_offset": start, "tar_nbytes": end - start}
