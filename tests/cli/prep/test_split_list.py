"""Lists of DeepfakeBench as split lists: what a convert writes is read back, and what does not go together is told."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lps.cli.audit.main import main as audit
from lps.cli.prep.main import main
from lps.manifests.schemas import read_table
from tests.builders import manifest_rows
from tests.pipeline.tools.convert_data import ffpp_videos, make_data_set


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, args)))


def split_of(out: Path, name: str) -> dict[bytes, str | None]:
    table = read_table("splits", (out / f"manifests/splits/{name}.parquet").read_bytes())
    return dict(zip(table["video_id"].to_pylist(), table["split"].to_pylist(), strict=True))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return Path(make_data_set(tmp_path / "out", ffpp_videos(6)).url)


def test_a_convert_is_read_back_with_the_same_splits(out: Path, tmp_path: Path) -> None:
    assert call("convert", out, tmp_path / "to", "--to", "deepfakebench").exit_code == 0
    lists = [f"--split-list={tmp_path}/to/dataset_json/{name}.json" for name in ("FaceForensics++", "FaceShifter")]
    done = call("split", out, "--rule", "official", "--name", "bench", *lists)
    assert done.exit_code == 0, done.output
    assert "note:" not in done.output
    assert split_of(out, "bench") == split_of(out, "group")
    assert len(set(split_of(out, "bench").values())) == 3
    rule = json.loads((out / "manifests/splits/bench.json").read_text())
    assert [each["name"] for each in rule["lists"]] == ["FaceForensics++.json", "FaceShifter.json"]
    assert rule["decided_by"] == {"official": 24}


def test_an_audit_runs_the_rule_again_only_where_the_lists_are_those_of_the_plan(out: Path, tmp_path: Path) -> None:
    assert call("convert", out, tmp_path / "to", "--to", "deepfakebench").exit_code == 0
    path = tmp_path / "to/dataset_json/FaceForensics++.json"
    assert call("split", out, "--rule", "official", "--name", "bench", "--split-list", path).exit_code == 0
    report = tmp_path / "report.json"
    CliRunner().invoke(audit, ["check", str(out), "--split-set", "bench", "--json", str(report)])
    (found,) = [check for check in json.loads(report.read_text())["checks"] if check["id"] == "R2"]
    assert found["state"] == "unknown"
    assert "FaceForensics++.json" in found["note"]


def test_what_does_not_go_together_is_told(out: Path, tmp_path: Path) -> None:
    names = {
        "FF-real": {"train": ["000", "001", "777"], "test": ["002"]},
        "FF-DF": {"train": ["000", "001"], "test": ["002", "003"]},
        "FF-NT": {"test": ["000"]},
    }
    content = {
        label: {s: {"c23": {n: {"label": label, "frames": []} for n in some}} for s, some in splits.items()}
        for label, splits in names.items()
    }
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps({"FaceForensics++": content}))
    done = call("split", out, "--rule", "official", "--name", "bench", "--split-list", path)
    assert done.exit_code == 0, done.output
    notes = [line for line in done.output.splitlines() if line.startswith("note: ")]
    assert notes[0] == "note: split list theirs.json: 1 of its videos are not here: 777 of FF-real, c23"
    assert notes[1].startswith(
        "note: split list theirs.json: 16 videos are not in it and are left out: fake/Deepfakes/"
    )
    uris = {row["video_id"]: row["uri"] for row in manifest_rows(out, "videos")}
    placed = {uris[video]: split for video, split in split_of(out, "bench").items() if split}
    assert len(placed) == 8
    assert {uri for uri, split in placed.items() if split == "test"} == {
        *("real/002.mp4", "fake/Deepfakes/002.mp4", "fake/Deepfakes/003.mp4", "fake/NeuralTextures/000.mp4")
    }


def test_a_list_of_test_videos_alone_leaves_the_others_out(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    video = {"label": "FF-real", "frames": []}
    path.write_text(json.dumps({"x": {"FF-real": {"test": {"c23": {"000": video}}}}}))
    assert call("split", out, "--rule", "official", "--name", "bench", "--split-list", path).exit_code == 0
    assert sorted(filter(None, split_of(out, "bench").values())) == ["test"]


def test_what_is_refused_is_one_line(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"x": {"FF-real": {"test": {"c23": {"900": {"label": "FF-real", "frames": []}}}}}}))
    words = ("split", out, "--name", "bench", "--split-list")
    refused = call(*words, path, "--rule", "official")
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (3, 1)
    assert "none of its 1 videos is here (900 of FF-real)" in refused.stderr
    absent = call(*words, tmp_path / "absent.json", "--rule", "official")
    assert (absent.exit_code, len(absent.stderr.splitlines())) == (4, 1)
    wrong = call(*words, path, "--rule", "group")
    assert wrong.exit_code == 2
    assert "--split-list goes with the rules official and official-clean" in wrong.stderr
    assert not (out / "manifests/splits/bench.parquet").exists()
