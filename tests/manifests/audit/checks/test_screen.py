"""The screens of clip geometry mark what the checks, clip by clip, find wrong, and give the same distances."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from lps.manifests.arrays import ARCFACE_112
from lps.manifests.audit.checks.clips import box_steps, cut_fault
from lps.manifests.audit.checks.screen import screen_cuts, screen_steps
from lps.manifests.schemas import CLIPS, Row
from tests.builders import manifest_rows

LIMITS = {"c3_box_margin": 0.1, "c3_shear": 1e-3, "c3_landmark_px": 3.0, "c5_min_iou": 0.3, "c5_max_jump": 0.5}
MIN_FACE_PX = 32.0
SCHEMA = pa.schema(
    [
        pa.field("box_xyxy", CLIPS.field("box_xyxy").type),
        pa.field("lmk5", CLIPS.field("lmk5").type),
        pa.field("matrix", CLIPS.field("align_M").type),
        ("align_template", pa.string()),
        *((name, pa.int32()) for name in ("out_size", "width", "height", "rotation", "sar_num", "sar_den")),
    ]
)


@pytest.fixture(scope="module")
def clips(dataset: Path) -> list[Row]:
    stored = manifest_rows(dataset, "clips")
    source = {"width": 640, "height": 480, "rotation": 0, "sar_num": 1, "sar_den": 1}
    return [{**source, **{n: row["align_M" if n == "matrix" else n] for n in SCHEMA.names[:5]}} for row in stored]


def assert_equal(rows: list[Row]) -> int:
    """Compare the screen with the check; return how many clips are wrong."""
    found = screen_cuts(pa.Table.from_pylist(rows, schema=SCHEMA), LIMITS, MIN_FACE_PX, ARCFACE_112)
    for row, marked, worst in zip(rows, found.marked.tolist(), found.worst.tolist(), strict=True):
        detail, miss = cut_fault(row, LIMITS, MIN_FACE_PX)
        assert marked == bool(detail), detail
        assert marked or worst == pytest.approx(miss, abs=1e-9)
    return int(found.marked.sum())


def changed(row: Row, name: str, change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Row:
    values = np.array(row[name], np.float64)
    return {**row, name: change(values).astype(np.int16 if name != "matrix" else np.float32).tolist()}


def shaken(rng: np.random.Generator, reach: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda values: np.clip(values + rng.uniform(-reach, reach, values.shape), -32767, 32767)


def scaled(values: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    values[:, 0] *= factor
    return values


def test_sound_clips_are_not_marked(clips: list[Row]) -> None:
    assert assert_equal(clips) == 0


@pytest.mark.parametrize("size", [1e-4, 9e-4, 1.1e-3, 0.1, -2.0])
def test_shear_and_mirrors(clips: list[Row], size: float) -> None:
    wrong = assert_equal([changed(row, "matrix", lambda m: scaled(m, 1 + size)) for row in clips])
    assert wrong in (0, len(clips)) or size < 2e-3


@pytest.mark.parametrize("px", [0.5, 2.0, 2.9, 3.0, 3.1, 9.0])
def test_shifted_matrices(clips: list[Row], px: float) -> None:
    shift = np.array([0, 0, px, 0, 0, 0])
    assert_equal([changed(row, "matrix", lambda m: m + shift) for row in clips])
    half = [changed(row, "matrix", lambda m: m + shift * (np.arange(len(m)) % 2)[:, None]) for row in clips]
    assert_equal(half)


def test_random_damage(clips: list[Row]) -> None:
    rng = np.random.default_rng(5)
    rows = []
    for _ in range(12):
        for row in clips:
            name = str(rng.choice(["box_xyxy", "lmk5"]))
            reach = float(rng.choice([2, 40, 400, 4000]))
            damaged = changed(row, name, shaken(rng, reach))
            extras = {"rotation": int(rng.choice([0, 90, 180, 270])), "sar_num": int(rng.choice([0, 1, 2, 99]))}
            sizes = {"width": None, "height": None} if rng.random() < 0.1 else {}
            rows.append({**damaged, **(extras if rng.random() < 0.5 else {}), **sizes})
    assert 0 < assert_equal(rows) < len(rows)


@pytest.mark.parametrize("size", [30, 31, 32, 33])
def test_small_faces_and_empty_boxes(clips: list[Row], size: int) -> None:
    def shrunk(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        boxes[:, 2:] = boxes[:, :2] + size * 8
        return boxes

    wrong = assert_equal([changed(row, "box_xyxy", shrunk) for row in clips])
    assert wrong == (len(clips) if size < MIN_FACE_PX else 0)


def test_what_is_irregular_is_left_to_the_check(clips: list[Row]) -> None:
    row = clips[0]
    odd = [
        {**row, "matrix": [[float("nan")] * 6] * len(row["matrix"])},
        {**row, "matrix": row["matrix"][:-1]},
        {**row, "box_xyxy": [], "lmk5": [], "matrix": []},
        {**row, "align_template": "crop"},
        {**row, "align_template": None},
        {**row, "lmk5": None},
    ]
    found = screen_cuts(pa.Table.from_pylist(odd, schema=SCHEMA), LIMITS, MIN_FACE_PX, ARCFACE_112)
    assert found.marked.all()
    assert np.isnan(found.worst).all()


def test_steps(clips: list[Row]) -> None:
    rng = np.random.default_rng(6)
    rows = list(clips)
    for reach in (10, 200, 400, 900):
        rows += [changed(row, "box_xyxy", shaken(rng, reach)) for row in clips]
    rows += [{**rows[0], "box_xyxy": rows[0]["box_xyxy"][:n]} for n in (1, 2, 3)]
    marked = screen_steps(pa.Table.from_pylist(rows, schema=SCHEMA), LIMITS)
    wanted = []
    for row in rows:
        iou, jump = box_steps(np.array(row["box_xyxy"], np.float64).reshape(-1, 4))
        wanted.append(iou < LIMITS["c5_min_iou"] or jump > LIMITS["c5_max_jump"])
    assert marked.tolist() == wanted
    assert 0 < sum(wanted) < len(rows)
