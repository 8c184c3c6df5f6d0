"""Every table of a data set is read by the tools that people have, without options.

Those that are no dependency are tried where they are installed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from lps.manifests.codes import Code, Stage, Status
from lps.manifests.records import Outcome, SourceVideo, VideoResult
from lps.pipeline.config.params import Params
from lps.pipeline.video.probe import Probe
from tests.builders import build_data_set, folder_spec, folder_video, still_clip

HASHES = (bytes(range(32)), bytes(32), b"\xff" * 32)


def processed(video: SourceVideo) -> VideoResult:
    if video.label == 0:
        outcome = Outcome(status=Status.FAILED, code=Code.E_DECODE, stage=Stage.DECODE, detail="it is damaged")
        return VideoResult(video_id=video.video_id, outcome=outcome)
    outcome = Outcome(status=Status.OK, n_frames_decoded=60, phash=HASHES, phash_quality=(90, 0, 100))
    return VideoResult(video_id=video.video_id, outcome=outcome, clips=(still_clip(60),))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the tables of a data set with failures, lists without entries and columns without a value."""
    out = tmp_path_factory.mktemp("readers") / "out"
    videos = [folder_video(f"{name}.mp4", label) for name, label in (("real/a", 0), ("fake/x/b", 1), ("fake/y/c", 1))]
    probes = {video.uri: Probe(n_bytes=1, sha256="00" * 32, n_frames_promised=60) for video in videos}
    build_data_set(out, folder_spec(Params()), videos, probes, processed)
    return sorted(out.rglob("*.parquet"))


def read_by_arrow(path: Path) -> int:
    return len(pq.read_table(path).to_pylist())


def read_by_duckdb(path: Path) -> int:
    return len(duckdb.execute(f"FROM '{path}'").fetchall())


def read_by_pandas(path: Path) -> int:
    return len(pytest.importorskip("pandas").read_parquet(path))


def read_by_polars(path: Path) -> int:
    polars = pytest.importorskip("polars")
    return len(polars.read_parquet(path).to_dicts())


def read_by_datasets(path: Path) -> int:
    datasets: Any = pytest.importorskip("datasets")
    found = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=path.parent / "cache")
    return len([found[i] for i in range(len(found))])


def read_by_ray_data(path: Path) -> int:
    """Make each form that Ray Data gives its batches in, of a block as it reads one."""
    block = pytest.importorskip("ray.data.block").BlockAccessor.for_block(pyarrow.dataset.dataset(path).to_table())
    for form in ("numpy", "pandas", "pyarrow"):
        if form != "pandas" or pytest.importorskip("pandas"):
            block.to_batch_format(form)
    return int(block.num_rows())


READERS = [read_by_arrow, read_by_duckdb, read_by_pandas, read_by_polars, read_by_datasets, read_by_ray_data]


@pytest.mark.filterwarnings("default")  # of libraries that are not ours
@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__.removeprefix("read_by_"))
def test_every_table_is_read_without_options(tables: list[Path], read: Callable[[Path], int]) -> None:
    names = [path.stem for path in tables if path.parent.name != "commits"]
    assert names == ["clips", "shards", "group", "videos", "splits", "videos"]
    assert [read(path) for path in tables] == [pq.read_metadata(path).num_rows for path in tables]
