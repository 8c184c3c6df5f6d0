"""Clips stored with a margin: the inner square is what is stored without one, and the audit knows where it lies."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lps.manifests.arrays import Pixels
from lps.manifests.audit.checks import clips as clip_checks
from lps.manifests.audit.core.database import open_dataset
from lps.manifests.audit.core.types import CheckResult
from lps.manifests.schemas import Row, table_bytes
from lps.manifests.shortcuts.pictures import features_of
from lps.pipeline.config.params import CropParams, Params, params_from_record
from lps.pipeline.tools import recheck
from lps.pipeline.tools.demo_videos import make_face_video
from tests.builders import manifest_rows, process_folder

PARAMS = Params(localizer="mtcnn", clip_frames=10, codec="png")
MARGIN = 1.3
SAME = ("align_M", "lmk5", "box_xyxy", "frame_idx", "phash", "blur_var_med", "luma_mean", "jitter_px", "outside_share")
"""Columns that no margin changes."""
Dataset = tuple[Path, Path]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("margin_source")
    make_face_video(folder / "real/a.mp4", n_frames=24, width=320, height=240, seed=3)
    return folder


@pytest.fixture(scope="module")
def prepare(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Params], Path]:
    """Return a function that prepares the source."""

    def run(params: Params) -> Path:
        out = tmp_path_factory.mktemp("margin") / "out"
        assert process_folder(source, out, params).n_ok == 1
        return out

    return run


@pytest.fixture(scope="module")
def wide(prepare: Callable[[Params], Path]) -> Path:
    """Return a data set with a margin. Tests only read it."""
    return prepare(replace(PARAMS, crop=CropParams(margin=MARGIN)))


def members(out: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(out.rglob("*.tar")):
        with tarfile.open(path) as tar:
            found.update({each.name.partition(".")[2]: tar.extractfile(each).read() for each in tar})  # type: ignore[union-attr]
    return found


def encoded(out: Path) -> list[bytes]:
    return [data for name, data in members(out).items() if name.endswith("png")]


def pictures(out: Path) -> list[Pixels]:
    return [np.asarray(Image.open(io.BytesIO(data))) for data in encoded(out)]


def checked(out: Path, source: Path, *ids: str) -> dict[str, CheckResult]:
    limits = {**clip_checks.LIMITS, **recheck.LIMITS}
    with open_dataset(str(out), None, str(source), limits) as ctx:
        entries = [*clip_checks.CHECKS, *recheck.CHECKS]
        return {entry.spec.id: entry.run(ctx) for entry in entries if entry.spec.id in ids}


def test_without_a_margin_every_digest_stays() -> None:
    """The digests are those of the version before there were margins."""
    assert Params().sha256() == "30456e7bb552f6aafb7b86dc8cddd5a5505ce5796ad4a0c70473ffd8e7581e68"
    cropped = Params(localizer="mtcnn", align=False)
    assert cropped.sha256() == "365cfeb793708b295312b2678bd859d5ff852049b9b82e1472bc2ccc01950460"
    wide = Params(crop=CropParams(margin=MARGIN))
    assert wide.sha256() != Params().sha256()
    for params in (Params(), wide):
        assert params_from_record(params.record()) == params
    assert "crop" not in Params(crop=CropParams(margin=1.0)).record()


@pytest.mark.parametrize("align", [True, False])
def test_the_inner_square_is_what_is_stored_without_a_margin(
    prepare: Callable[[Params], Path], wide: Path, align: bool
) -> None:
    plain = prepare(replace(PARAMS, align=align))
    if not align:
        wide = prepare(replace(PARAMS, align=False, crop=CropParams(margin=MARGIN)))
    large, small = pictures(wide), pictures(plain)
    assert len(large) == len(small) == 10
    for a, b in zip(large, small, strict=True):
        assert (a.shape, b.shape) == ((291, 291, 3), (224, 224, 3))
        assert np.array_equal(a[33:257, 33:257], b)
        assert not np.array_equal(np.asarray(Image.fromarray(a).resize((224, 224))), b)
    [one], [other] = manifest_rows(wide, "clips"), manifest_rows(plain, "clips")
    assert {name: one[name] for name in SAME} == {name: other[name] for name in SAME}
    assert (one["out_size"], other["out_size"]) == (291, 224)
    seen, seen_before = (features_of(encoded(out), row["align_template"]) for out, row in ((wide, one), (plain, other)))
    assert np.array_equal(seen.thumbnail, seen_before.thumbnail)
    assert np.array_equal(seen.spectrum, seen_before.spectrum)
    names = ("arcface5-224x0.85",) * 2 if align else ("box-224", "box")
    assert (one["align_template"], other["align_template"]) == names
    facts, before = (json.loads(members(out)["json"]) for out in (wide, plain))
    assert facts.pop("inner_px") == 224
    assert {**facts, "clip_id": ""} == {**before, "clip_id": ""}


def test_the_audit_makes_the_same_again_and_knows_the_sides(wide: Path, source: Path) -> None:
    ids = ("C2", "C3", "C4", "R1")
    found = checked(wide, source, *ids)
    assert {name: str(result.state) for name, result in found.items()} == dict.fromkeys(ids, "pass")
    assert "1 with equal frames_sha256; lowest PSNR 99.0 dB" in found["C2"].measured


@pytest.mark.parametrize("planned", [True, False])
def test_the_audit_names_clips_of_another_size(wide: Path, source: Path, tmp_path: Path, planned: bool) -> None:
    """A clip of 224 px among clips with a margin: the plan says which is wrong, without one the most do."""
    [row] = manifest_rows(wide, "clips")
    others: list[Row] = [
        {**row, "sample_key": f"{row['sample_key']}-{k}", "clip_id": bytes([k]) * 16} for k in range(2)
    ]
    rows = [row, {**others[0], "out_size": 224}, others[1]]
    out = shutil.copytree(wide, tmp_path / "out")
    (out / "manifests/clips.parquet").write_bytes(table_bytes("clips", rows, {}))
    if not planned:
        (out / "plan/plan.json").unlink()
    found = checked(out, source, "C3")["C3"]
    assert str(found.state) == "fail"
    assert [(each.key, each.detail) for each in found.offenders] == [
        (rows[1]["sample_key"], "a face of 224 px in images of 224 px, not of 224 in 291 px")
    ]
