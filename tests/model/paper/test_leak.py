"""`lps-train experiment leak`: the same videos under both rules, and what the random one changes."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from lps.cli.train.main import main
from lps.manifests.columns import split_path
from lps.manifests.errors import RefusedError
from lps.manifests.schemas import Row, read_table, table_bytes
from lps.model.paper.leak import split_both_ways
from lps.model.paper.zoo import DataSet
from tests.model.certificates import certified

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec

pytestmark = pytest.mark.usefixtures("one_thread")

N_FRAMES = 20


def write(make: "Maker", spec: "type[Spec]") -> Path:
    """Write a data set of 15 people, each in a real and in two fake videos."""
    shards = []
    for split, people in (("train", range(9)), ("val", range(9, 12)), ("test", range(12, 15))):
        real = [spec(video=f"r{k}", label=0, n_frames=N_FRAMES, split=split) for k in people]
        fake = [
            spec(video=f"f{k}{m}", label=1, original=f"r{k}", n_frames=N_FRAMES, split=split)
            for k in people
            for m in "ab"
        ]
        shards.append([*real, *fake])
    out = make.data_set(shards)
    path = out / "manifests/videos.parquet"
    rows = [{**row, "n_clips": 1} for row in read_table("videos", path.read_bytes()).to_pylist()]
    path.write_bytes(table_bytes("videos", rows, {}))
    return out


def rows_of(place: str, rule: str) -> list[Row]:
    return list(read_table("splits", (Path(place) / split_path(rule)).read_bytes()).to_pylist())


def test_both_rules_have_the_same_videos_and_numbers(make: "Maker", spec: "type[Spec]", tmp_path: Path) -> None:
    out = write(make, spec)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    arms = split_both_ways(DataSet("demo", str(out)), tmp_path / "views", 0)
    again = split_both_ways(DataSet("demo", str(out)), tmp_path / "views", 0)
    assert again == arms
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    counts = {}
    for rule, view in arms.views.items():
        rows = rows_of(view.location, rule)
        assert len({row["video_id"] for row in rows}) == 45
        assert all(row["excluded"] == (row["split"] is None) for row in rows)
        counts[rule] = {split: sum(row["split"] == split for row in rows) for split in ("train", "val", "test")}
    assert counts["group"] == counts["random"] == arms.counts
    assert arms.shared["group"] == 0
    assert arms.shared["random"] > 0
    by_rule = {rule: rows_of(view.location, rule) for rule, view in arms.views.items()}
    seen = {row["group_id"] for row in by_rule["random"] if row["split"] == "train"}
    assert arms.shared["random"] == sum(r["group_id"] in seen for r in by_rule["random"] if r["split"] == "test")
    with pytest.raises(RefusedError, match="give it a local copy"):
        split_both_ways(DataSet("far", "s3://bucket/out"), tmp_path / "views", 0)


def test_premium_is_told_with_its_interval_and_nothing_is_trained_twice(
    make: "Maker", spec: "type[Spec]", tmp_path: Path
) -> None:
    data, out = write(make, spec), tmp_path / "zoo"
    args = ["experiment", "leak", str(out), "--data", f"demo={data}", "--preset", "small", "--smoke", "--seeds", "2"]
    args.append("--require-certificate")
    ended = CliRunner().invoke(main, args)
    assert ended.exit_code == 3, ended.output
    assert "has no certificate.json" in ended.stderr
    certificate_sha256 = certified(data)
    ended = CliRunner().invoke(main, args)
    assert ended.exit_code == 0, ended.output
    record = json.loads((out / "leak/result.json").read_bytes())
    assert record["data"]["demo"]["certificate_sha256"] == certificate_sha256
    runs = ("seed 0", "seed 1", "mean of 2 seeds")
    assert [row["name"] for row in record["rows"]] == [f"{arm}, {run}" for arm in ("group", "random") for run in runs]
    means = {
        row["name"].split(",")[0]: row["values"]["auc"]["value"] for row in record["rows"] if "mean" in row["name"]
    }
    notes = "\n".join(record["notes"])
    assert f"demo: the random split changes the AUC by {means['random'] - means['group']:+.2f} [" in notes
    assert "0 under group" in notes
    configs = {rule: out / f"runs/demo-{rule}/lps/classify-1/config.json" for rule in ("group", "random")}
    group, random = (json.loads(path.read_bytes()) for path in configs.values())
    assert group["preset"] == random["preset"]
    assert (group["data"]["split_set"], random["data"]["split_set"]) == ("group", "random")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("best.pt")}
    assert len(before) == 2 * (1 + 2)
    assert CliRunner().invoke(main, args).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("best.pt")} == before
    assert CliRunner().invoke(main, [*args, "--split-set", "x"]).exit_code == 2
    shutil.rmtree(out)
