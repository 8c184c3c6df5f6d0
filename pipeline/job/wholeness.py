"""What an output holds, beside what it says that it holds: tars and commit records, the index and what it names."""

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lps.manifests.errors import UnreadableError
from lps.manifests.index import INDEX_JSON, read_index
from lps.manifests.schemas import Row
from lps.manifests.storage import Store
from lps.pipeline.job.finalize import read_commit

READERS = 16
SHOWN = 20
"""Faults that are told one by one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One file that is not as it should be."""

    path: str
    detail: str
    shard_id: str = ""
    """The committed shard whose tar it is, if it is one."""


def committed_tars(out: Store, shard_ids: Collection[str], plan_sha256: str) -> dict[str, Row | None]:
    """Return what the commit record of each shard says of its tar; None for one without samples.

    Raises IntegrityError for a record that is damaged or belongs to another plan, UnreadableError.
    """

    def tar_of(shard_id: str) -> Row | None:
        row: Row | None = read_commit(out, shard_id, plan_sha256)["shard"]
        return row

    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(shard_ids, pool.map(tar_of, shard_ids), strict=True))


def find_faults(out: Store, tars: Mapping[str, Row | None], *, verify: bool = False) -> list[Fault]:
    """Compare tars with their commit records, and what the index names with what is there: by size, or every byte.

    Raises UnreadableError where the store does not say what it holds.
    """
    rows = {shard_id: row for shard_id, row in tars.items() if row is not None}
    entries = {row["uri"]: _Entry(row["bytes"], row["sha256"], shard_id) for shard_id, row in rows.items()}
    faults = list(_unlike(out, entries, "shards", "its commit record", verify=verify))
    for file in out.walk("shards"):
        if file.path.endswith(".tar") and file.path not in entries:
            faults.append(Fault(file.path, "no commit record names it"))
    return faults + list(_index_faults(out, set(entries), verify=verify))


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is said of a file."""

    n_bytes: int
    sha256: str
    shard_id: str = ""


def _unlike(out: Store, entries: Mapping[str, _Entry], under: str, by: str, *, verify: bool) -> Iterator[Fault]:
    """Yield the files that are not what is said of them `by` some record."""
    whole = []
    for path, size in out.sizes(entries, under=under).items():
        said = entries[path]
        if isinstance(size, UnreadableError):
            raise size
        if size == said.n_bytes:
            whole.append(path)
        else:
            detail = "missing" if size is None else f"{size} bytes, {by} says {said.n_bytes}"
            yield Fault(path, detail, said.shard_id)
    if verify:
        with ThreadPoolExecutor(READERS) as pool:
            for path, sha256 in zip(whole, pool.map(out.sha256, whole), strict=True):
                if sha256 != entries[path].sha256:
                    yield Fault(path, f"its sha256 is not the one that {by} says", entries[path].shard_id)


def _index_faults(out: Store, committed: Collection[str], *, verify: bool) -> Iterator[Fault]:
    """Yield what the index names and is not there, or not so; nothing where there is no index yet."""
    if not out.exists(INDEX_JSON):
        return
    try:
        index = read_index(out).values
    except UnreadableError as e:
        yield Fault(INDEX_JSON, str(e).removeprefix(f"{out.join(INDEX_JSON)} "))
        return
    named = index["manifests"].items()
    manifests = {path: _Entry(row["bytes"], row["sha256"]) for path, row in named if "bytes" in row}
    yield from _unlike(out, manifests, "manifests", INDEX_JSON, verify=verify)
    for shard in (shard for shards in index.get("shards", {}).values() for shard in shards):
        if shard["uri"] not in committed:
            yield Fault(shard["uri"], f"{INDEX_JSON} names it, and no commit record does")


def fault_lines(faults: Collection[Fault]) -> Iterator[str]:
    """Yield faults for people, a line each; of many the first."""
    for fault in list(faults)[:SHOWN]:
        yield f"{fault.path}: {fault.detail}"
    if len(faults) > SHOWN:
        yield f"and {len(faults) - SHOWN} more"
