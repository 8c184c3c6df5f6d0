"""Checks C2 and R1 on real clips: decoded and processed again, they are what the data set says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lps.manifests.audit.core.database import open_dataset
from lps.manifests.audit.core.types import AuditContext, CheckResult
from lps.manifests.canonical import canonical_json
from lps.manifests.errors import UnreadableError
from lps.manifests.schemas import Row, read_table, table_bytes
from lps.pipeline.config.params import Params
from lps.pipeline.tools.demo_videos import make_face_video
from lps.pipeline.tools.recheck import CHECKS, LIMITS, check_again, check_frames, psnr_db
from tests.builders import process_folder, take_out

PARAMS = Params(localizer="mtcnn", clip_frames=10, block_frames=5)
VIDEOS = ("real/a.mp4", "fake/blend/a.mp4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a data set of two processed videos, and their folder. Tests only read them."""
    root = tmp_path_factory.mktemp("recheck")
    source, out = root / "source", root / "out"
    for label, uri in enumerate(VIDEOS):
        make_face_video(source / uri, n_frames=30, width=320, height=240, seed=3, fake=bool(label))
    assert process_folder(source, out, PARAMS).n_ok == 2
    return out, source


@pytest.fixture
def copy(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Return copies that a test may spoil."""
    shutil.copytree(made[0], tmp_path / "out")
    shutil.copytree(made[1], tmp_path / "source")
    return tmp_path / "out", tmp_path / "source"


def run(out: Path, source: Path | None, **limits: float) -> dict[str, CheckResult]:
    with open_dataset(str(out), None, str(source) if source else None, {**LIMITS, **limits}) as ctx:
        return {entry.spec.id: entry.run(ctx) for entry in CHECKS}


def respell(out: Path, edit: Callable[[Row], Row]) -> None:
    path = out / "manifests/clips.parquet"
    rows = [edit(row) for row in read_table("clips", path.read_bytes()).to_pylist()]
    path.write_bytes(table_bytes("clips", rows, {}))


def test_clips_and_videos_come_out_the_same(made: tuple[Path, Path]) -> None:
    found = run(*made)
    assert {name: str(result.state) for name, result in found.items()} == {"C2": "pass", "R1": "pass"}
    assert found["C2"].n_checked == found["R1"].n_checked == 2
    assert "2 with equal frames_sha256; lowest PSNR 99.0 dB" in found["C2"].measured


def test_without_the_source_nothing_is_said(made: tuple[Path, Path]) -> None:
    found = run(made[0], None)
    assert {str(result.state) for result in found.values()} == {"skip"}
    assert {result.note for result in found.values()} == {"needs the source videos: --source"}


def test_sample_is_as_large_as_the_limit(made: tuple[Path, Path]) -> None:
    found = run(*made, c2_sample_clips=1, r1_sample_videos=1)
    assert found["C2"].n_checked == found["R1"].n_checked == 1


def test_wrong_frame_indices_are_found(copy: tuple[Path, Path]) -> None:
    def later(row: Row) -> Row:
        step = 5 if row["frame_idx"][0] < 10 else -5
        return {**row, "frame_idx": [i + step for i in row["frame_idx"]]}

    respell(copy[0], later)
    found = run(*copy)
    assert (found["C2"].state, len(found["C2"].offenders)) == ("fail", 2)
    assert (found["R1"].state, len(found["R1"].offenders)) == ("fail", 2)


def test_wrong_matrices_are_found(copy: tuple[Path, Path]) -> None:
    def shifted(row: Row) -> Row:
        return {**row, "align_M": [[*m[:2], m[2] + 6, *m[3:]] for m in row["align_M"]]}

    respell(copy[0], shifted)
    found = run(*copy)
    assert len(found["C2"].offenders) == 2
    assert found["R1"].state == "warn"  # the images are the same, the row is not


def test_frames_that_only_nearly_agree_are_a_warning(copy: tuple[Path, Path]) -> None:
    respell(copy[0], lambda row: {**row, "frames_sha256": bytes(32)})
    found = run(*copy)
    assert found["C2"].state == "pass"
    assert "0 with equal frames_sha256" in found["C2"].measured
    assert (found["R1"].state, len(found["R1"].offenders)) == ("warn", 2)
    assert "bitwise differs" in found["R1"].note


def test_another_source_video_is_found(copy: tuple[Path, Path]) -> None:
    make_face_video(copy[1] / VIDEOS[0], n_frames=30, width=320, height=240, seed=8)
    found = run(*copy)
    assert len(found["C2"].offenders) == 1
    assert len(found["R1"].offenders) == 1


def test_clips_behind_damage_are_found(copy: tuple[Path, Path], tmp_path: Path) -> None:
    whole = copy[1] / VIDEOS[0]
    whole.rename(tmp_path / "whole.mp4")
    take_out(tmp_path / "whole.mp4", whole, 1)
    found = run(*copy)
    assert ["behind damage" in offender.detail for offender in found["C2"].offenders] == [True]


def test_missing_and_shorter_sources_are_found(copy: tuple[Path, Path]) -> None:
    (copy[1] / VIDEOS[0]).unlink()
    make_face_video(copy[1] / VIDEOS[1], n_frames=3, width=320, height=240, seed=3, fake=True)
    found = run(*copy)
    details = " ".join(offender.detail for offender in found["C2"].offenders)
    assert "E_MISSING_FILE" in details
    assert "frames decode" in details
    assert len(found["R1"].offenders) == 2


def test_sources_that_cannot_be_read_leave_it_unknown(copy: tuple[Path, Path]) -> None:
    for uri in VIDEOS:
        (copy[1] / uri).unlink()
        (copy[1] / uri).mkdir()
    found = run(*copy)
    for check in ("C2", "R1"):
        assert (found[check].state, found[check].offenders) == ("unknown", ())
        assert "cannot read" in found[check].note


def test_localizer_that_is_not_here_skips(made: tuple[Path, Path]) -> None:
    def absent(name: str, batch_size: int) -> Any:
        raise UnreadableError(f"no weights of {name}")

    with open_dataset(str(made[0]), None, str(made[1]), LIMITS) as ctx:
        result = check_again(ctx, load=absent)
    assert (result.state, result.note) == ("skip", "the localizer mtcnn is not here: no weights of mtcnn")


@pytest.mark.parametrize("said", ["x", "0", "-1", "9" * 30])
def test_a_batch_size_that_is_none_is_told(copy: tuple[Path, Path], said: str) -> None:
    plan = copy[0] / "plan/plan.json"
    record = json.loads(plan.read_bytes())
    plan.write_bytes(canonical_json({**record, "versions": {**record["versions"], "batch_size": said}}))
    with pytest.raises(UnreadableError, match=f"plan.json is damaged: '{said}' of its versions is no batch size$"):
        run(*copy)


def test_without_a_plan_nothing_can_be_made_again(made: tuple[Path, Path]) -> None:
    with open_dataset(str(made[0]), None, str(made[1]), LIMITS) as ctx:
        bare = AuditContext(**{name: getattr(ctx, name) for name in ctx.__slots__} | {"plan": {}})
        assert check_frames(bare).state == "unknown"


def test_psnr_of_images() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr_db(black, black) == 99.0
    assert psnr_db(black, black + np.uint8(255)) == 0.0
    assert round(psnr_db(black, black + np.uint8(1)), 2) == 48.13
    assert psnr_db(black, black[:2]) == 0.0


@pytest.mark.parametrize("says", ["3", None], ids=["named", "without a version"])
def test_what_another_writer_made_is_not_made_again(copy: tuple[Path, Path], says: str | None) -> None:
    path = copy[0] / "plan/plan.json"
    plan = {**json.loads(path.read_text()), "writer_version": says}
    path.write_text(json.dumps({key: value for key, value in plan.items() if value}))
    found = run(*copy)
    assert found["C2"].state == "pass", "its clips show the frames that they name all the same"
    assert found["R1"].state == "unknown"
    assert found["R1"].note.startswith(f"made by writer version {says or 1}, this is version ")
