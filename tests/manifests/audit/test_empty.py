"""A data set without clips, or a split or a class without, does not pass an audit."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lps.cli.audit.main import main
from lps.manifests.audit.core.seal import seal_dataset
from lps.manifests.audit.run import Audit
from lps.manifests.codes import Code, Stage, Status
from lps.manifests.errors import RefusedError
from lps.manifests.records import Outcome, SourceVideo, VideoResult
from lps.manifests.schemas import Row
from lps.manifests.storage import Store
from lps.pipeline.config.params import Params
from lps.pipeline.video.probe import Probe
from tests.builders import build_data_set, folder_spec, folder_video, still_clip

N_EACH = 12
PARAMS = Params(localizer="mtcnn", clip_frames=10, block_frames=5)
Fails = Callable[[SourceVideo], Code | None]


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a data set in which `fails` says which videos give no clip."""

    def make(fails: Fails, *, labels: tuple[int | None, ...] = (0, 1)) -> Path:
        videos = [folder_video(f"{label}/{k}.mp4", label) for label in labels for k in range(N_EACH)]
        probes = {v.uri: Probe(n_bytes=9, sha256=f"{k:064x}", n_frames_promised=20) for k, v in enumerate(videos)}

        def result(video: SourceVideo) -> VideoResult:
            code = fails(video)
            if code is None:
                outcome = Outcome(status=Status.OK, n_frames_decoded=20)
                return VideoResult(video_id=video.video_id, outcome=outcome, clips=(still_clip(10),))
            outcome = Outcome(status=Status.FAILED, code=code, stage=Stage.DETECT)
            return VideoResult(video_id=video.video_id, outcome=outcome)

        build_data_set(tmp_path / "out", folder_spec(PARAMS), videos, probes, result)
        return tmp_path / "out"

    return make


def check(out: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["check", str(out), *words])


@pytest.mark.parametrize("level", ["quick", "full"])
@pytest.mark.parametrize("code", [Code.E_INTERNAL, Code.E_NO_FACE])
@pytest.mark.parametrize("labels", [(0, 1), (None,)], ids=["labelled", "without labels"])
def test_no_clips_at_all(
    made: Callable[..., Path], audit: Callable[..., Audit], labels: tuple[int | None, ...], code: Code, level: str
) -> None:
    out = made(lambda _: code, labels=labels)
    ended = check(out, "--level", level)
    assert ended.exit_code == 1, ended.output
    assert "Verdict: FAIL" in ended.stdout
    found = {result.id: result for result in audit(out, "A,B,C,R5", level=level).results}
    assert (found["A7"].state, {o.key for o in found["A7"].offenders}) == ("fail", {"train", "val", "test"})
    assert found["R5"].state == ("warn" if code == Code.E_INTERNAL else "pass")
    assert found["B1"].state == ("fail" if None not in labels else "skip")
    assert {str(found[name].state) for name in ("A2", "C1", "C3", "C5")} == {"skip"}, "nothing was looked at"


def test_faults_of_the_program_are_counted_and_no_seal_hides_them(
    made: Callable[..., Path], audit: Callable[..., Audit]
) -> None:
    out = made(lambda video: Code.E_INTERNAL if video.uri.endswith("/3.mp4") else None)
    [result] = audit(out, "R5").results
    assert (result.state, len(result.offenders)) == ("warn", 2)
    with pytest.raises(RefusedError, match="2 videos ended with E_INTERNAL"):
        seal_dataset(Store(str(out)))
    seal_dataset(Store(str(out)), allow_transient=True)
    assert check(out, "--checks", "R5").exit_code == 1


@pytest.mark.parametrize(("label", "keys"), [(None, {"val"}), (1, set())])
def test_a_split_or_a_class_of_it_without_clips(
    mutated: Callable[..., Path], audit: Callable[..., Audit], label: int | None, keys: set[str]
) -> None:
    def gone(row: Row) -> bool:
        return row["split"] == "val" and label in (None, row["label"])

    def failed(row: Row) -> Row:
        lost = {"status": "failed", "error_code": "E_NO_FACE", "error_stage": "detect", "n_clips": 0}
        return {**row, **lost} if gone(row) and row["status"] != "skipped" else row

    out = mutated({"videos": failed, "clips": lambda row: None if gone(row) else row})
    found = {result.id: result for result in audit(out, "A7,B1").results}
    assert {o.key for o in found["A7"].offenders if o.kind == "split"} == keys
    assert found["B1"].state == "fail"
    assert ("val", "no fake video") in {(o.key, o.detail) for o in found["B1"].offenders}


def test_a_split_without_videos_though_it_should_have_some(
    mutated: Callable[..., Path], audit: Callable[..., Audit]
) -> None:
    out = mutated({"splits": lambda row: {**row, "split": "train"} if row["split"] == "test" else row})
    [result] = audit(out, "A7").results
    assert ("test", "no video, though the split rule gives it a share") in {(o.key, o.detail) for o in result.offenders}
