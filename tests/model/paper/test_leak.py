"""`lps-train experiment leak`: the same videos under both rules, and what the random one changes."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from lps.cli.train.main import main
from lps.manifests.canonical import pretty_json, sha256_hex
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


def moved_on(out: Path) -> None:
    """Give a data set another index, as a run that is finalized again does."""
    index = json.loads((out / "index.json").read_bytes())
    (out / "index.json").write_bytes(pretty_json({**index, "plan_sha256": "0" * 64}))


def test_a_view_is_never_of_two_data_sets(make: "Maker", spec: "type[Spec]", tmp_path: Path) -> None:
    """What was learnt below an earlier OUT of the name would be taken for what is learnt from this one."""
    one, views = write(make, spec), tmp_path / "views"
    other = shutil.copytree(one, tmp_path / "other")
    split_both_ways(DataSet("demo", str(one)), views, 0)
    index = json.loads((views / "demo-random/index.json").read_bytes())
    assert index["view_of"] == {"index_sha256": sha256_hex((one / "index.json").read_bytes())}
    one.rename(tmp_path / "moved")
    shown = split_both_ways(DataSet("demo", str(tmp_path / "moved")), views, 0).views["group"]
    assert (Path(shown.location) / "shards").resolve() == (tmp_path / "moved/shards").resolve()
    before = {path: path.lstat().st_mtime_ns for path in views.rglob("*")}
    moved_on(tmp_path / "moved")
    moved_on(other)
    for place in (tmp_path / "moved", other):
        with pytest.raises(RefusedError, match=r"views/demo-group shows .* give the experiment another folder") as e:
            split_both_ways(DataSet("demo", str(place)), views, 0)
        assert "\n" not in str(e.value)
    assert {path: path.lstat().st_mtime_ns for path in views.rglob("*")} == before


def test_a_view_that_was_never_finished_is_made_anew(make: "Maker", spec: "type[Spec]", tmp_path: Path) -> None:
    one, views = write(make, spec), tmp_path / "views"
    other = shutil.copytree(one, tmp_path / "other")
    moved_on(other)
    split_both_ways(DataSet("demo", str(other)), views, 0)
    for rule in ("group", "random"):
        (views / f"demo-{rule}/index.json").unlink()
    arms = split_both_ways(DataSet("demo", str(one)), views, 0)
    for view in arms.views.values():
        links = [path for path in Path(view.location).rglob("*") if path.is_symlink()]
        assert links
        assert all(path.resolve().is_relative_to(one.resolve()) for path in links)


def test_a_view_that_was_copied_with_what_its_links_lead_to_is_refused(
    make: "Maker", spec: "type[Spec]", tmp_path: Path
) -> None:
    data, views = DataSet("demo", str(write(make, spec))), tmp_path / "views"
    arms = split_both_ways(data, views, 0)
    copied = shutil.copytree(views, tmp_path / "copied")  # follows links
    with pytest.raises(RefusedError, match=r"is no link to .*; delete .*copied/demo-group, and the same") as e:
        split_both_ways(data, copied, 0)
    assert "\n" not in str(e.value)
    for rule in arms.views:
        shutil.rmtree(copied / f"demo-{rule}")
    assert split_both_ways(data, copied, 0).shared == arms.shared


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
    premium = record["facts"]["data"]["demo"]["premium"]
    assert premium["value"] == pytest.approx(means["random"] - means["group"])
    assert -100 <= premium["low"] <= premium["value"] <= premium["high"] <= 100
    assert (premium["level"], premium["seeds"]) == (0.95, [0, 1])
    for value in (row["values"]["auc"] for row in record["rows"]):
        assert all(0 <= value[bound] <= 100 for bound in ("low", "high") if value[bound] is not None)
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
