"""What an output holds, beside what it says that it holds: tars and commit records, the index and what it names."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lps.manifests.errors import UnreadableError
from lps.manifests.index import CARDS, INDEX_JSON, Commit, read_index, rows_path
from lps.manifests.storage import Store

READERS = 16
SHOWN = 20
"""Faults that are told one by one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One file that is not as it should be."""

    path: str
    detail: str
    shard_id: str = ""
    """The committed shard whose tar or rows it is, if it is one of these."""


def find_faults(out: Store, commits: Sequence[Commit], *, verify: bool = False) -> list[Fault]:
    """Compare what is there with what commit records and the index say: by size, or every byte.

    Raises UnreadableError where the store does not say what it holds.
    """
    tars = {
        commit.shard["uri"]: _Entry(commit.shard["bytes"], commit.shard["sha256"], commit.shard_id)
        for commit in commits
        if commit.shard is not None
    }
    rows = {
        rows_path(commit.shard_id, table): _Entry(one.n_bytes, one.sha256, commit.shard_id)
        for commit in commits
        for table, one in commit.rows.items()
    }
    faults = list(_unlike(out, tars, "shards", "its commit record", verify=verify))
    faults += _unlike(out, rows, "commits", "its commit record", verify=verify)
    for file in out.walk("shards"):
        if file.path.endswith(".tar") and file.path not in tars:
            faults.append(Fault(file.path, "no commit record names it"))
    return faults + list(_index_faults(out, set(tars), verify=verify))


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
    cards = {path: manifests.pop(path) for path in CARDS if path in manifests}
    yield from _unlike(out, manifests, "manifests", INDEX_JSON, verify=verify)
    for path, size in out.sizes_by_name(tuple(cards)).items():  # with other bytes: people fill in a licence
        if isinstance(size, UnreadableError):
            raise size
        if size is None:
            yield Fault(path, "missing")
    in_index = {shard["uri"] for shards in index.get("shards", {}).values() for shard in shards}
    for uri in sorted(in_index - set(committed)):
        yield Fault(uri, f"{INDEX_JSON} names it, and no commit record does")
    for uri in sorted(set(committed) - in_index):
        yield Fault(INDEX_JSON, f"does not name {uri}")


def fault_lines(faults: Collection[Fault]) -> Iterator[str]:
    """Yield faults for people, a line each; of many the first."""
    for fault in list(faults)[:SHOWN]:
        yield f"{fault.path}: {fault.detail}"
    if len(faults) > SHOWN:
        yield f"and {len(faults) - SHOWN} more"
