"""lps-prep and lps-audit on videos that a packet was taken out of."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lps.cli.audit.main import main as audit
from lps.cli.prep.main import main as prep
from lps.pipeline.tools.demo_videos import make_face_video
from lps.pipeline.video.container import scan_packets
from tests.builders import LIMITS, manifest_rows, take_out


@pytest.mark.slow
@pytest.mark.usefixtures("joined")
def test_no_clip_holds_what_a_lost_packet_spoiled(tmp_path: Path) -> None:
    source, out, whole = tmp_path / "source", tmp_path / "out", tmp_path / "whole.mp4"
    lost = {"real/a.mp4": 25, "fake/x/b.mp4": 1}
    for label, (uri, first) in enumerate(lost.items()):
        make_face_video(whole, n_frames=60, width=320, height=240, seed=3, fake=bool(label))
        (source / uri).parent.mkdir(parents=True)
        for number in range(first, first + 8):  # until it is one that others refer to
            if scan_packets(take_out(whole, source / uri, number), LIMITS).lost_before:
                break
    (tmp_path / "params.toml").write_text("clip_frames = 10\n")
    ran = CliRunner().invoke(
        prep,
        [
            *("run", str(source), str(out), "--dataset", "folder", "--localizer", "mtcnn"),
            *("--workers", "1", "--clips", "all", "--params", str(tmp_path / "params.toml")),
        ],
    )
    assert ran.exit_code in (0, 3), ran.output
    videos = {row["uri"]: row for row in manifest_rows(out, "videos")}
    assert {uri: (row["status"], row["error_code"]) for uri, row in videos.items()} == {
        "real/a.mp4": ("partial", "E_DECODE"),
        "fake/x/b.mp4": ("failed", "E_DECODE"),
    }, ran.output
    assert videos["real/a.mp4"]["error_detail"].startswith("1 damaged places")
    clips = manifest_rows(out, "clips")
    assert clips
    assert all(clip["video_id"] == videos["real/a.mp4"]["video_id"] and max(clip["frame_idx"]) < 25 for clip in clips)
    report = tmp_path / "report.json"
    CliRunner().invoke(audit, ["check", str(out), "--level", "deep", "--source", str(source), "--json", str(report)])
    states = {check["id"]: check["state"] for check in json.loads(report.read_text())["checks"]}
    assert states["C2"] == "pass"
