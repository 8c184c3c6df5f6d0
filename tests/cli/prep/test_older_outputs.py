"""An output of another writer is not gone on with; it can still be looked at, audited and trained on."""

import json
from collections.abc import Sequence
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from lps.cli.audit.main import main as audit
from lps.cli.prep.main import main as prep
from lps.manifests.canonical import jsonable
from lps.manifests.codes import Status
from lps.manifests.records import Outcome, SourceVideo, VideoResult
from lps.pipeline.config.params import WRITER_VERSION, Params
from lps.pipeline.video.probe import Probe
from tests.builders import build_data_set, folder_spec, folder_video, still_clip


def call(program: click.Command, *args: str) -> Result:
    return CliRunner().invoke(program, args)


def processed(video: SourceVideo) -> VideoResult:
    return VideoResult(
        video_id=video.video_id, outcome=Outcome(status=Status.OK, n_frames_decoded=60), clips=(still_clip(60),)
    )


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a whole data set of the writer before this one."""
    monkeypatch.setattr("lps.pipeline.job.plan.WRITER_VERSION", "1")
    videos = [folder_video(f"{name}.mp4", label) for label, name in enumerate(("real/a", "fake/x/b"))]
    probes = {video.uri: Probe(n_bytes=1, sha256="00" * 32, n_frames_promised=60) for video in videos}
    build_data_set(tmp_path / "out", folder_spec(Params()), videos, probes, processed)
    monkeypatch.undo()
    for video in videos:
        (tmp_path / "in" / video.uri).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / video.uri).write_bytes(b"x")
    return tmp_path / "out"


def files(out: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("says", ["2", None], ids=["named", "without a version"])
@pytest.mark.parametrize(
    "args", [["run", "in", "out"], ["plan", "in", "out"], ["retry", "out", "--code", "E_INTERNAL"]], ids=lambda a: a[0]
)
def test_it_is_refused_by_name_and_left_as_it_is(older: Path, args: Sequence[str], says: str | None) -> None:
    path = older / "plan" / "plan.json"
    plan = {**json.loads(path.read_text()), "writer_version": says}
    path.write_text(json.dumps({key: value for key, value in plan.items() if value}))
    before = files(older)
    named = [str(older.parent / word) if word in ("in", "out") else word for word in args]
    result = call(prep, *named, *(["--localizer", "mtcnn"] if args[0] != "retry" else []))
    assert result.exit_code == 3
    assert result.output == (
        f"main: {older} was made by writer version {says or 1}, this is version {WRITER_VERSION}: the two cannot mix "
        "in one data set. It can still be read, audited and trained on; to prepare the videos, use a new output "
        "folder\n"
    )
    assert files(older) == before


def test_it_can_be_looked_at(older: Path) -> None:
    assert call(prep, "status", str(older)).exit_code == 0
    assert call(audit, "show", str(older)).exit_code == 0
    assert call(audit, "check", str(older), "--level", "quick").exit_code != 4


def test_the_status_of_records_that_hold_their_rows(older: Path) -> None:
    counts = call(prep, "status", str(older)).output
    for path in (older / "commits").glob("*.json"):
        record = json.loads(path.read_text())
        rows = {name: path.with_suffix(f".{name}.parquet") for name in record.pop("rows")}
        held = {name: jsonable(pq.read_table(file).to_pylist()) for name, file in rows.items()}
        path.write_text(json.dumps({**record, **held, "commit_version": 1}))
        for file in rows.values():
            file.unlink()
    result = call(prep, "status", str(older))
    assert result.exit_code == 0
    assert "complete; 1 of 1 shards, 2 of 2 videos" in result.output
    assert result.output == counts


def test_the_demo_is_refused_before_it_makes_videos(older: Path, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    older.rename(tmp_path / "demo" / "dataset")
    result = call(prep, "demo", str(tmp_path / "demo"))
    assert result.exit_code == 3
    assert "was made by writer version 1" in result.output
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["dataset"]
