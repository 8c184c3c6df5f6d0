"""JSON records whose values are of the wrong type are refused by one line that names the place."""

from pathlib import Path
from typing import Any

import pytest

from lps.manifests.canonical import canonical_json, parse_json
from lps.manifests.errors import IntegrityError, RefusedError, UnreadableError
from lps.manifests.fields import TEXT, wrong_place
from lps.manifests.index import commit_path, read_commit, read_plan, read_rule, readable_rule
from lps.manifests.storage import Store

SHARD = {
    "shard_id": "train-000000", "uri": "shards/train/train-000000.tar", "split": "train", "bytes": 10240,
    "sha256": "0" * 64, "md5": "1" * 32, "n_samples": 1, "n_members": 3, "exts": ["cls"], "n_real": 1, "n_fake": 0,
    "first_key": "a", "last_key": "a", "clips_rows_sha256": "2" * 64, "writer_version": "3", "status": "sealed",
}  # fmt: skip
ROWS = {"n_rows": 1, "rows_sha256": "3" * 64, "n_bytes": 5, "sha256": "4" * 64}
COMMIT = {
    "commit_version": 2, "shard_id": "train-000000", "plan_sha256": "p", "shard": SHARD,
    "rows": {"videos": ROWS, "clips": ROWS},
}  # fmt: skip


def committed(folder: Path, record: Any) -> Store:
    """Return a store that holds a commit record."""
    store = Store(str(folder))
    store.publish(commit_path("train-000000"), canonical_json(record))
    return store


def test_commit_records_are_read(tmp_path: Path) -> None:
    assert read_commit(committed(tmp_path, COMMIT), "train-000000", "p").shard == SHARD
    empty = committed(tmp_path, {**COMMIT, "shard": None})
    assert read_commit(empty, "train-000000", "p").shard is None


def test_commit_records_of_an_older_writer_are_refused_by_name(tmp_path: Path) -> None:
    older = {**COMMIT, "commit_version": 1, "rows": {}, "videos": [], "clips": []}
    store = committed(tmp_path, older)
    with pytest.raises(RefusedError, match="made by an older version of this program: commits/train-000000.json is of"):
        read_commit(store, "train-000000", "p")
    assert read_commit(store, "train-000000", "p", older=True).shard == SHARD


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        [],
        {**COMMIT, "plan_sha256": 3},
        {**COMMIT, "shard": "x"},
        {**COMMIT, "shard": {}},
        {**COMMIT, "rows": []},
        {**COMMIT, "rows": {"videos": ROWS}},
        {**COMMIT, "rows": {"videos": ROWS, "clips": {**ROWS, "n_bytes": "x"}}},
        *({**COMMIT, "shard": {**SHARD, name: []}} for name in ("uri", "split", "bytes", "sha256", "md5", "n_real")),
        {**COMMIT, "shard": {**SHARD, "n_samples": "x"}},
        {**COMMIT, "shard": {**SHARD, "n_samples": None}},
        {**COMMIT, "shard": {**SHARD, "bytes": 10**30}},
        {**COMMIT, "shard": {**SHARD, "sha256": "no hex"}},
        {**COMMIT, "shard": {**SHARD, "exts": [3]}},
    ],
)
def test_commit_records_with_values_of_the_wrong_type_are_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(IntegrityError, match="is not a commit record: .*; delete it and run again"):
        read_commit(committed(tmp_path, wrong), "train-000000", "p")


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_no_json(number: str) -> None:
    with pytest.raises(ValueError, match=f"it holds {number}, which is no finite number"):
        parse_json(f'{{"a": {number}}}')
    assert parse_json('{"a": 1.5e3}') == {"a": 1500.0}


def test_rule_records_of_the_wrong_type_are_refused_and_excuse_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for rule, place in (({"base_sha256": 3}, "base_sha256"), ({"giant": {"policy": []}}, "giant.policy")):
        store.publish("manifests/splits/group.json", canonical_json({"rule": "group", **rule}))
        with pytest.raises(UnreadableError, match=f"group.json is damaged: its '{place}' is of the wrong type$"):
            read_rule(store, "group")
        assert readable_rule(store, "group") == {}


def test_plans_whose_shards_have_no_name_are_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.publish("plan/plan.json", canonical_json({"schema_version": "2.0", "shards": [{"n_videos": 1}]}))
    with pytest.raises(UnreadableError, match="an entry of its shards is not whole$"):
        read_plan(store)


def test_the_first_value_of_another_type_is_named() -> None:
    types = {"a": [{"b": int}], "c": TEXT, "*": (int, {"d": str})}
    assert wrong_place({"a": [{"b": 1}], "c": None, "x": 3, "y": {"d": "e", "f": []}}, types) is None
    assert wrong_place({"a": [{"b": 1}, {"b": True}]}, types) == "a[1].b"
    assert wrong_place({"x": {"d": 1}}, types) == "x.d"
    assert wrong_place([], types) == ""
