"""`lps-prep retry` reopens every fault: of the processing, and of headers, which are part of the plan."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from lps.cli.prep.main import main
from lps.manifests.codes import Code, Stage, Status
from lps.manifests.records import Outcome, SourceVideo, VideoResult
from lps.manifests.storage import Store
from lps.pipeline.config.params import Params
from lps.pipeline.video.kept_probes import ProbeKeeper, Probes, read_probes
from lps.pipeline.video.probe import Probe
from tests.builders import LIMITS, build_data_set, folder_spec, folder_video, manifest_rows, still_clip

VIDEOS = [folder_video(f"{name}.mp4", label) for label, name in enumerate(("real/a", "fake/x/b"))]
GOOD = Probe(n_bytes=1, sha256="00" * 32, n_frames_promised=60)
FAULTY = Probe(n_bytes=1, sha256="", code=Code.E_TIMEOUT, stage=Stage.PROBE, detail="no result after 120 s")


def processed(video: SourceVideo) -> VideoResult:
    outcome = Outcome(status=Status.OK, n_frames_decoded=60)
    return VideoResult(video_id=video.video_id, outcome=outcome, clips=(still_clip(60),))


def make(out: Path, *probes: Probe) -> None:
    by_uri = {video.uri: probe for video, probe in zip(VIDEOS, probes, strict=True)}
    build_data_set(out, folder_spec(Params()), VIDEOS, by_uri, processed)
    keeper = ProbeKeeper(Store(str(out)), LIMITS, Probes.of({}))
    for uri, probe in by_uri.items():
        keeper.add(uri, "", probe, is_certain=False)
    keeper.save(planned=True)


def call(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def files(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def test_a_fault_of_a_header_needs_leave_to_plan_anew(tmp_path: Path) -> None:
    make(tmp_path / "out", GOOD, FAULTY)
    before = files(tmp_path / "out")
    result = call("retry", str(tmp_path / "out"), "--code", "E_TIMEOUT")
    assert result.exit_code == 3
    assert len(result.output.splitlines()) == 1
    assert "the fault of 1 of these videos was found before the plan was made" in result.output
    assert "--replan" in result.output
    assert files(tmp_path / "out") == before


def test_a_fault_of_a_header_is_reopened_with_its_plan(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out, GOOD, FAULTY)
    (out / "commits/train-000077.clips.parquet").write_bytes(
        b"left by a retry that was killed when its record was gone"
    )
    result = call("retry", str(out), "--code", "E_TIMEOUT", "--replan")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("1 videos in the plan and 1 shards withdrawn reopened; now run the same")
    left = files(out)
    assert {path.split("/")[0] for path in left} == {"runs"}  # nothing of the old plan is mixed with the new one
    assert sum(path.startswith("runs/withdrawn/") for path in left) == 5  # index, plan, commit record, its rows
    kept = read_probes(Store(str(out)), LIMITS).table["uri"].to_pylist()
    assert kept == ["real/a.mp4"]  # the other header is read again
    build_data_set(out, folder_spec(Params()), VIDEOS, {video.uri: GOOD for video in VIDEOS}, processed)
    assert {row["status"] for row in manifest_rows(out, "videos")} == {"ok"}
    assert json.loads(call("status", str(out), "--json").output)["complete"]


def test_with_nothing_done_no_leave_is_needed(tmp_path: Path) -> None:
    make(tmp_path / "out", FAULTY, FAULTY)
    result = call("retry", str(tmp_path / "out"), "--code", "E_TIMEOUT")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("2 videos in the plan")


def test_what_no_video_has_is_not_reopened(tmp_path: Path) -> None:
    make(tmp_path / "out", GOOD, FAULTY)
    result = call("retry", str(tmp_path / "out"), "--code", "E_OOM", "--code", "S_NOT_SELECTED")
    assert result.exit_code == 3
    assert "no video of" in result.output
