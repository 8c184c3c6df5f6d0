"""The Parquet tables: their columns are pinned, equal rows give equal bytes, and readers refuse what is not theirs."""

import io
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lps.manifests.canonical import rows_digest
from lps.manifests.errors import UnreadableError
from lps.manifests.schemas import (
    SCHEMA_ID,
    SCHEMA_VERSION,
    SHARDS,
    TABLES,
    VIDEOS,
    Row,
    check_version,
    read_table,
    table_bytes,
)

GOLDEN = Path(__file__).with_name("schemas.txt")


def described() -> str:
    parts = [f"{SCHEMA_ID} {SCHEMA_VERSION}\n"]
    for name, schema in TABLES.items():
        text = schema.to_string(truncate_metadata=False, show_field_metadata=True)
        parts.append(f"== {name}\n{text}\n")
    return "\n".join(parts)


def test_the_columns_are_those_published() -> None:
    """Regenerate with LPS_WRITE_GOLDEN=1, and change SCHEMA_VERSION: a new nullable column is minor, the rest major."""
    if os.environ.get("LPS_WRITE_GOLDEN") == "1":
        GOLDEN.write_text(described())
    assert described() == GOLDEN.read_text()


def test_the_columns_that_others_rely_on() -> None:
    """The names fixed by the contract of the data set on disk."""
    videos = (
        "video_id uri dataset sha256 label method status error_code error_stage split n_clips width height rotation "
        "fps_num fps_den n_frames_decoded target_keys source_keys identity_keys original_video_id"
    )
    clips = (
        "clip_id video_id shard_id sample_key label split track_id frame_idx pts_start_s pts_end_s max_gap_frames "
        "box_xyxy align_M det_rate"
    )
    shards = "shard_id uri split sha256 bytes n_samples n_real n_fake"
    for name, wanted in (("videos", videos), ("clips", clips), ("shards", shards)):
        assert set(wanted.split()) <= set(TABLES[name].names)
    assert TABLES["videos"].field("label").type == pa.int8()
    assert TABLES["clips"].field("align_M").type == pa.list_(pa.list_(pa.float32(), 6))


def shard(number: int = 0, **changes: object) -> Row:
    return {
        "shard_id": f"train-{number:06d}",
        "uri": f"shards/train/train-{number:06d}.tar",
        "split": "train",
        "bytes": 10240,
        "sha256": bytes(32),
        "md5": bytes(16),
        "n_samples": 2,
        "n_members": 4,
        "exts": ["00.jpg", "cls"],
        "n_real": 1,
        "n_fake": 1,
        "first_key": "a",
        "last_key": "b",
        "clips_rows_sha256": bytes(32),
        "writer_version": "0.1.0",
        "status": "sealed",
        **changes,
    }


SPLIT_ROW: Row = {
    "video_id": bytes(16),
    "split": None,
    "excluded": True,
    "exclude_reason": "bridge",
    "group_id": bytes(16),
    "group_anchor": "a",
    "group_size": 1,
    "group_keys": [],
    "u": 0.5,
    "rule": "group",
    "seed": 2**64 - 1,
    "pinned": False,
    "origin_run": None,
}


def altered(data: bytes, change: Any) -> bytes:
    """Return the Parquet file after a change of its table."""
    sink = io.BytesIO()
    pq.write_table(change(pq.read_table(io.BytesIO(data))), sink)
    return sink.getvalue()


def marked(data: bytes, **marks: str) -> bytes:
    """Return the Parquet file with other marks in its metadata."""
    named = {f"lps.{name}".encode(): value.encode() for name, value in marks.items()}
    return altered(data, lambda t: t.replace_schema_metadata({**(t.schema.metadata or {}), **named}))


# ---- writing ---------------------------------------------------------------------------------------------------------
def test_equal_rows_give_equal_bytes() -> None:
    rows = [shard(k, split="train" if k % 3 else "val") for k in range(300)]
    copies = [dict(reversed(list(row.items()))) for row in rows]
    assert table_bytes("shards", rows, {"lps.x": "1", "lps.a": "2"}) == table_bytes(
        "shards", copies, {"lps.a": "2", "lps.x": "1"}
    )
    assert table_bytes("shards", rows, {}) != table_bytes("shards", rows[:-1], {})
    assert table_bytes("shards", rows, {"lps.x": "1"}) != table_bytes("shards", rows, {"lps.x": "2"})


def test_marks_of_the_file() -> None:
    rows = [shard(0), shard(1)]
    marks = pq.read_metadata(io.BytesIO(table_bytes("shards", rows, {"lps.params_sha256": "ab"}))).metadata
    found = {key.decode(): value.decode() for key, value in marks.items() if key.startswith(b"lps.")}
    assert found == {
        "lps.schema_id": "lps.manifest",
        "lps.schema_version": SCHEMA_VERSION,
        "lps.table": "shards",
        "lps.rows_sha256": rows_digest(rows),
        "lps.box_convention": "xyxy_px8_source_topleft",
        "lps.label_map": '{"0":"real","1":"fake"}',
        "lps.params_sha256": "ab",
    }


def test_digest_of_rows_does_not_depend_on_their_order() -> None:
    def digest(rows: list[Row]) -> bytes:
        return pq.read_metadata(io.BytesIO(table_bytes("shards", rows, {}))).metadata[b"lps.rows_sha256"]  # type: ignore[no-any-return]

    rows = [shard(k) for k in range(5)]
    assert digest(rows) == digest(rows[::-1])
    assert digest(rows) != digest([*rows[:-1], shard(9)])


@pytest.mark.parametrize("column", [f.name for f in SHARDS if not f.nullable])
def test_nulls_where_none_may_be(column: str) -> None:
    with pytest.raises(ValueError, match=f"column {column} must not be null"):
        table_bytes("shards", [shard(), shard(1, **{column: None})], {})


def test_nulls_where_they_may_be() -> None:
    found = read_table("splits", table_bytes("splits", [SPLIT_ROW], {})).to_pylist()
    assert found == [SPLIT_ROW]
    nullable = {f.name for f in VIDEOS if f.nullable}
    assert {"label", "sha256", "split", "method", "error_code", "original_video_id"} <= nullable
    assert not {"video_id", "uri", "dataset", "status", "n_clips", "target_keys"} & nullable


def test_a_row_without_a_column() -> None:
    row = shard()
    del row["md5"]
    with pytest.raises(KeyError, match="md5"):
        table_bytes("shards", [row], {})


@pytest.mark.parametrize("changes", [{"sha256": bytes(31)}, {"n_real": "one"}, {"n_real": 2**31}, {"exts": 5}])
def test_values_of_another_type(changes: Row) -> None:
    with pytest.raises((ValueError, pa.ArrowException)):
        table_bytes("shards", [shard(**changes)], {})


def test_names_are_numbered_on_disk_and_strings_when_read() -> None:
    data = table_bytes("shards", [shard(k) for k in range(1000)], {})
    raw = pq.ParquetFile(io.BytesIO(data))
    assert raw.schema_arrow.field("split").type == pa.string()
    column = raw.schema_arrow.get_field_index("split")
    assert "RLE_DICTIONARY" in raw.metadata.row_group(0).column(column).encodings
    assert read_table("shards", data).schema.field("split").type == pa.string()


def test_an_empty_table() -> None:
    for name in TABLES:
        assert read_table(name, table_bytes(name, [], {})).num_rows == 0


# ---- reading ---------------------------------------------------------------------------------------------------------
def test_what_is_written_is_read() -> None:
    rows = [shard(k, split="val", exts=[]) for k in range(3)]
    table = read_table("shards", table_bytes("shards", rows, {}))
    assert table.to_pylist() == rows
    assert table.column_names == SHARDS.names


def test_some_columns() -> None:
    table = read_table("shards", table_bytes("shards", [shard()], {}), columns=["n_real", "shard_id"])
    assert table.to_pylist() == [{"n_real": 1, "shard_id": "train-000000"}]


@pytest.mark.parametrize("version", ["4.0", "10.3", "", "one"])
def test_versions_that_are_refused(version: str) -> None:
    with pytest.raises(UnreadableError, match="schema version"):
        read_table("shards", marked(table_bytes("shards", [shard()], {}), schema_version=version))
    with pytest.raises(UnreadableError, match="index.json has schema version"):
        check_version(version, what="index.json")


@pytest.mark.parametrize("version", ["2.9", "1.0", "1.9", "0.7"])
def test_versions_that_are_read(version: str) -> None:
    assert read_table("shards", marked(table_bytes("shards", [shard()], {}), schema_version=version)).num_rows == 1


def test_a_column_that_an_older_writer_did_not_know_is_null() -> None:
    data = altered(table_bytes("splits", [SPLIT_ROW], {}), lambda t: t.drop_columns(["origin_run", "exclude_reason"]))
    assert read_table("splits", data).to_pylist() == [{**SPLIT_ROW, "exclude_reason": None}]
    assert read_table("splits", data, columns=["exclude_reason"]).to_pylist() == [{"exclude_reason": None}]


def test_a_column_that_a_newer_writer_added_is_left_out() -> None:
    data = altered(table_bytes("shards", [shard()], {}), lambda t: t.append_column("new", pa.array([1])))
    assert read_table("shards", data).to_pylist() == [shard()]


def test_a_column_that_must_be_there() -> None:
    data = altered(table_bytes("shards", [shard()], {}), lambda t: t.drop_columns(["sha256"]))
    with pytest.raises(UnreadableError, match="has no column 'sha256'"):
        read_table("shards", data)


def test_a_column_of_another_type() -> None:
    def retyped(table: pa.Table) -> pa.Table:
        at = table.column_names.index("n_real")
        return table.set_column(at, "n_real", pa.array(["many"]))

    with pytest.raises(UnreadableError, match="'n_real' is not of type int32"):
        read_table("shards", altered(table_bytes("shards", [shard()], {}), retyped))


def test_foreign_files() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), sink)
    shards = table_bytes("shards", [shard()], {})
    for name, data in (
        ("videos", sink.getvalue()),
        ("videos", shards),
        ("shards", marked(shards, schema_id="other")),
    ):
        with pytest.raises(UnreadableError, match=r"is not a table '\w+' of lps"):
            read_table(name, data)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "footer", "body"])
def test_damaged_files(damage: str) -> None:
    data = table_bytes("shards", [shard(k) for k in range(500)], {})
    harmed = {
        "empty": b"",
        "cut": data[: len(data) // 2],
        "text": b"shard_id,uri\n",
        "footer": data[:-8] + b"\xff\xff\xff\x7fPAR1",
        "body": data[:4] + bytes(2000) + data[2004:],
    }[damage]
    with pytest.raises(UnreadableError, match="is not a readable Parquet file") as caught:
        read_table("shards", harmed)
    assert "\n" not in str(caught.value)
