"""The data set of the audit's tests is what it claims to be."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from lps.manifests.canonical import rows_digest
from lps.pipeline.job.status import read_status
from tests.builders import manifest_rows


def test_data_set_has_the_advertised_shape(dataset: Path) -> None:
    status = read_status(str(dataset))
    videos = manifest_rows(dataset, "videos")
    codes = Counter(row["error_code"] for row in videos if row["error_code"])
    assert status.complete
    assert status.n_shards >= 3
    assert {row["split"] for row in videos} == {"train", "val", "test", None}
    assert codes == {"E_NO_FACE": 2, "E_TOO_SHORT": 1, "E_TRUNCATED": 1, "E_EMPTY_FILE": 1, "S_MASK": 1}
    assert sum(row["n_clips"] for row in videos) == 39
    assert {path.stem for path in (dataset / "manifests/splits").glob("*.parquet")} == {"group", "ranked"}


def test_row_digests_follow_from_the_parquet_files_alone(dataset: Path) -> None:
    for path in sorted((dataset / "manifests").rglob("*.parquet")):
        found = (pq.read_metadata(path).metadata or {})[b"lps.rows_sha256"]
        assert rows_digest(pq.read_table(path).to_pylist()) == found.decode(), path.name
    clips = pq.read_table(dataset / "manifests/clips.parquet").to_pylist()
    for shard in pq.read_table(dataset / "manifests/shards.parquet").to_pylist():
        inside = [row for row in clips if row["shard_id"] == shard["shard_id"]]
        assert rows_digest(inside) == shard["clips_rows_sha256"].hex()


def test_mutated_table_is_forged_only_as_far_as_asked(dataset: Path, mutated: Callable[..., Path]) -> None:
    def relabel(row: dict[str, object]) -> dict[str, object]:
        return {**row, "label": None}

    index = (dataset / "index.json").read_bytes()
    plain = mutated({"videos": relabel}, digests=False, commits=False)
    forged = mutated({"videos": relabel})
    assert (plain / "index.json").read_bytes() == index
    assert (forged / "index.json").read_bytes() != index
    for out, committed in ((plain, False), (forged, True)):
        rows = manifest_rows(out, "videos")
        assert all(row["label"] is None for row in rows)
        commit = pq.read_table(next((out / "commits").glob("*.videos.parquet")))
        assert (commit["label"][0].as_py() is None) == committed
