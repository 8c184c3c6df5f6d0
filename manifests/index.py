"""The index of a data set, the plan's record and the records of split sets: the JSON files that say what there is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lps.manifests.canonical import parse_json, sha256_hex
from lps.manifests.columns import rule_path, split_path
from lps.manifests.errors import UnreadableError
from lps.manifests.schemas import check_version
from lps.manifests.storage import Store, check_relative

INDEX_JSON = "index.json"
PLAN_JSON = "plan/plan.json"
PLAN_VIDEOS = "plan/videos.parquet"
PLAN_SPLITS = "plan/splits.parquet"


@dataclass(frozen=True, slots=True)
class JsonRecord:
    """A JSON file of a data set: what it says, and the digest of the same bytes."""

    values: dict[str, Any]
    sha256: str


def split_sets(index: Mapping[str, Any]) -> list[str]:
    """Return the names of all split sets, sorted."""
    head, tail = split_path("\0").split("\0")
    return sorted(p[len(head) : -len(tail)] for p in index["manifests"] if p.startswith(head) and p.endswith(tail))


def read_index(store: Store) -> JsonRecord:
    """Return index.json. Raises UnreadableError where there is none, a damaged, a foreign or a newer one."""
    if store.is_local and not store.exists(INDEX_JSON):
        raise UnreadableError(
            f"{store.url} has no {INDEX_JSON}: it is no data set, or not a complete one (`lps-prep run` finishes it)"
        )
    record = _read(store, INDEX_JSON)
    index = record.values
    if index.get("schema") != "lps.dataset":
        raise UnreadableError(f"{store.join(INDEX_JSON)} is not the index of a data set of this program")
    check_version(str(index.get("schema_version")), what=store.join(INDEX_JSON))
    if not isinstance(index.get("manifests"), dict) or not isinstance(index.get("split_set"), str):
        raise UnreadableError(f"{store.join(INDEX_JSON)} is damaged: it lists no manifests")
    for path in index["manifests"]:
        check_relative(path)
    if not _lists_are_whole(index["manifests"], index.get("shards", {})):
        raise UnreadableError(f"{store.join(INDEX_JSON)} is damaged: an entry of its manifests or shards is not whole")
    return record


def _lists_are_whole(manifests: Mapping[str, Any], shards: Any) -> bool:
    """Tell whether every entry of an index names what readers of it rely on."""
    groups = list(shards.values()) if isinstance(shards, dict) else [None]
    entries = [entry for group in groups for entry in (group if isinstance(group, list) else [None])]
    wanted = {"shard_id", "uri", "sha256", "bytes", "n_samples"}
    return all(isinstance(entry, dict) and "sha256" in entry for entry in manifests.values()) and all(
        isinstance(entry, dict) and wanted <= set(entry) for entry in entries
    )


def read_plan(store: Store) -> JsonRecord | None:
    """Return plan.json, None where there is none. Raises UnreadableError for a damaged or a newer one."""
    if not store.exists(PLAN_JSON):
        return None
    plan = _read(store, PLAN_JSON)
    check_version(str(plan.values.get("schema_version")), what=store.join(PLAN_JSON))
    return plan


def read_rule(store: Store, split_set: str) -> dict[str, Any]:
    """Return the rule record of a split set, empty where there is none that can be read: nothing is excused then."""
    try:
        return read_json(store, rule_path(split_set))
    except UnreadableError:
        return {}


def read_json(store: Store, path: str) -> dict[str, Any]:
    """Return a JSON file of the data set. Raises UnreadableError for one that is missing or damaged."""
    return _read(store, path).values


def _read(store: Store, path: str) -> JsonRecord:
    data = store.read(path)
    try:
        value = parse_json(data)
    except ValueError as e:
        raise UnreadableError(f"{store.join(path)} is damaged: {e}") from e
    if not isinstance(value, dict):
        raise UnreadableError(f"{store.join(path)} is damaged: it holds no record")
    return JsonRecord(value, sha256_hex(data))
