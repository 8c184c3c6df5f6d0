"""Checks C1, C3, C5 and C6: holes in time, wrong cuts, jumps between faces, chosen starts."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from lps.manifests.audit.checks.clips import CHECKS, LIMITS, check_starts
from lps.manifests.audit.core.types import AuditContext, State
from lps.manifests.audit.run import Audit
from lps.manifests.schemas import BOX_UNITS, Row
from lps.manifests.storage import Store
from lps.pipeline.clips.places import start_seed
from tests.builders import manifest_rows

Mutated = Callable[..., Path]
Broken = Callable[..., dict[str, set[str]]]
ByHand = Callable[[Path, str], set[str]]
Edit = Callable[[Row], Row]


@pytest.fixture
def first(dataset: Path) -> Row:
    """Return the row of one clip."""
    return dict(manifest_rows(dataset, "clips")[0])


def spoiled(clip: Row, edit: Edit) -> Edit:
    return lambda row: {**row, **edit(row)} if row["clip_id"] == clip["clip_id"] else row


@pytest.fixture
def by_hand(audit_context: Callable[..., AuditContext]) -> Callable[[Path, str], set[str]]:
    """Return a function that runs the first query of a check as an auditor would, and gives the keys it names."""

    def query(out: Path, check_id: str) -> set[str]:
        context = audit_context(out, limits=LIMITS)
        [entry] = [entry for entry in CHECKS if entry.spec.id == check_id]
        entry.run(context)  # sets what the query takes from the plan
        return {key for _, key, _ in context.db.execute(entry.spec.sql.split(";\n")[0]).fetchall()}

    return query


# ---- C1 ------------------------------------------------------------------------------------------------------------


def hole(row: Row) -> Row:
    return {"frame_idx": [*row["frame_idx"][:5], *(i + 1 for i in row["frame_idx"][5:])]}


@pytest.mark.parametrize(
    "edit",
    [
        hole,
        lambda row: {"frame_idx": row["frame_idx"][:1] * 2 + row["frame_idx"][2:]},
        lambda row: {"frame_idx": row["frame_idx"][::-1]},
        lambda row: {"frame_idx": row["frame_idx"][:-1]},
        lambda row: {"frame_idx": [i + 1000 for i in row["frame_idx"]]},
        lambda row: {"max_gap_frames": 2},
        lambda row: {"pts_ticks": row["pts_ticks"][:1] * 2 + row["pts_ticks"][2:]},
        lambda row: {"pts_ticks": row["pts_ticks"][::-1]},
        lambda row: {"pts_ticks": row["pts_ticks"][:-1]},
        lambda row: {"pts_start_s": row["pts_start_s"] + 1},
        lambda row: {"pts_end_s": row["pts_end_s"] + 1},
        lambda row: {"det_score": row["det_score"][:-1]},
        lambda row: {"box_source": [*row["box_source"], 0]},
    ],
)
def test_break_in_time_is_found(first: Row, mutated: Mutated, broken: Broken, edit: Edit) -> None:
    assert broken(mutated({"clips": spoiled(first, edit)})) == {"C1": {first["sample_key"]}}


def test_hole_is_named(first: Row, mutated: Mutated, audit: Callable[..., Audit]) -> None:
    [result] = audit(mutated({"clips": spoiled(first, hole)}), "C1").results
    assert "frame_idx has a hole" in result.offenders[0].detail


def of_window(row: Row, **columns: Any) -> Row:
    """Return a video of which few frames were decoded; its packets promise all of them."""
    return {**row, "scan": "window", "n_frames_container": row["n_frames_decoded"], "n_frames_decoded": 8, **columns}


def test_clip_ends_before_what_the_packets_promise_of_a_video_decoded_in_part(
    first: Row, mutated: Mutated, broken: Broken
) -> None:
    end = first["frame_idx"][-1] + 1
    assert end > 8
    assert broken(mutated({"videos": of_window})) == {}
    ends_there = mutated({"videos": lambda row: of_window(row, n_frames_container=end)})
    assert first["sample_key"] not in broken(ends_there).get("C1", set())
    ends_before = mutated({"videos": lambda row: of_window(row, n_frames_container=end - 1)})
    assert first["sample_key"] in broken(ends_before)["C1"]


@pytest.mark.parametrize("scan", [None, "whole"])
def test_clip_ends_before_the_last_frame_that_decodes_of_a_whole_video(
    first: Row, mutated: Mutated, broken: Broken, scan: str | None
) -> None:
    end = first["frame_idx"][-1] + 1
    header_lies = mutated({"videos": lambda row: {**row, "scan": scan, "n_frames_container": 1}})
    assert broken(header_lies) == {}
    ends_before = mutated({"videos": lambda row: {**row, "scan": scan, "n_frames_decoded": end - 1}})
    assert first["sample_key"] in broken(ends_before)["C1"]


def of_images(row: Row) -> Row:
    """Return a video as if it were a sequence of images."""
    return {**row, "container": "image2", "pts_nominal": True, "fps_num": None, "fps_den": None}


def test_time_stamps_of_images_prove_nothing(first: Row, mutated: Mutated, audit: Callable[..., Audit]) -> None:
    [result] = audit(mutated({"videos": of_images}), "C1").results
    assert result.state == State.UNKNOWN
    assert result.note.endswith("which have no time stamps: theirs are counted at a declared rate")
    [result] = audit(mutated({"videos": of_images, "clips": spoiled(first, hole)}), "C1").results
    assert result.state == State.FAIL
    [result] = audit(mutated({"videos": lambda row: {**row, "pts_nominal": True}}), "C1").results
    assert result.state == State.PASS  # of AVI: counted at the rate that the file has


# ---- C3, C5 --------------------------------------------------------------------------------------------------------


def matrices(row: Row, change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Row:
    changed = [change(np.array(m).reshape(2, 3)).astype(np.float32) for m in row["align_M"]]
    return {"align_M": [m.ravel().tolist() for m in changed]}


def boxes(row: Row, change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Row:
    changed = change(np.array(row["box_xyxy"], np.int64))
    return {"box_xyxy": changed.astype(int).tolist()}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda row: matrices(row, lambda m: m + [[0, 0, 4], [0, 0, 0]]), "misses by 4.0 px"),
        (lambda row: matrices(row, lambda m: m * [[1.02], [1]]), "no similarity"),
        (lambda row: matrices(row, lambda m: m * [[-1], [1]]), "mirrors"),
        (lambda row: boxes(row, lambda b: b - 500 * BOX_UNITS), "leaves the frame"),
        (lambda row: boxes(row, lambda b: np.hstack([b[:, :2], b[:, :2] + 20 * BOX_UNITS])), "no box reaches 32 px"),
    ],
)
def test_wrong_cut_is_found(
    first: Row, mutated: Mutated, broken: Broken, audit: Callable[..., Audit], by_hand: ByHand, edit: Edit, said: str
) -> None:
    out = mutated({"clips": spoiled(first, edit)})
    assert broken(out) == {"C3": {first["sample_key"]}}
    assert by_hand(out, "C3") == {first["sample_key"]}
    assert said in audit(out, "C3").results[0].offenders[0].detail


def test_numbers_that_are_not_finite_are_found(first: Row, mutated: Mutated, broken: Broken, by_hand: ByHand) -> None:
    def with_nan(data: bytes) -> bytes:
        table = pq.read_table(io.BytesIO(data))
        place = table.column_names.index("align_M")
        values = [[[np.nan] * 6] * row["n_frames"] for row in table.select(["n_frames"]).to_pylist()]
        field, sink = table.schema.field(place), io.BytesIO()
        pq.write_table(table.set_column(place, field, pa.array(values, field.type)), sink)
        return sink.getvalue()

    out = mutated(files={"manifests/clips.parquet": with_nan})
    found = broken(out)
    assert first["sample_key"] in found["C3"] == by_hand(out, "C3")
    assert "manifests/clips.parquet" in found["T4"]


def test_box_without_a_size_is_found(first: Row, mutated: Mutated, broken: Broken, by_hand: ByHand) -> None:
    out = mutated({"clips": spoiled(first, lambda row: boxes(row, lambda b: b[:, [2, 1, 0, 3]]))})
    assert broken(out) == {"C3": {first["sample_key"]}, "C5": {first["sample_key"]}}
    assert by_hand(out, "C3") == by_hand(out, "C5") == {first["sample_key"]}


def test_limit_of_the_policy_decides(first: Row, mutated: Mutated, broken: Broken) -> None:
    from lps.manifests.audit.core.policy import Policy

    out = mutated({"clips": spoiled(first, lambda row: matrices(row, lambda m: m + [[0, 0, 4], [0, 0, 0]]))})
    assert broken(out, "C3", policy=Policy(limits={"c3_landmark_px": 5.0})) == {}


def upright(row: Row, rotation: int, aspect: float) -> tuple[Row, Row]:
    """Film the same face with a turned camera or with oblong pixels; return the changes of clip and video."""
    size = {"width": 480, "height": 640} if rotation == 90 else {"width": 640, "height": 480}
    scale = np.array([1 / aspect, 1.0]) if rotation == 0 else np.array([1.0, 1 / aspect])
    points = np.array(row["lmk5"]).reshape(-1, 5, 2) * scale
    corners = np.array(row["box_xyxy"]).reshape(-1, 2, 2) * scale
    changed = np.array(row["align_M"]).reshape(-1, 2, 3)
    changed[:, :, :2] /= scale
    clip = {
        "lmk5": np.round(points).astype(int).reshape(-1, 10).tolist(),
        "box_xyxy": np.round(corners).astype(int).reshape(-1, 4).tolist(),
        "align_M": changed.astype(np.float32).reshape(-1, 6).tolist(),
    }
    return clip, {"rotation": rotation, "sar_num": round(aspect * 100), "sar_den": 100, **size}


@pytest.mark.parametrize(("rotation", "aspect"), [(0, 1.25), (90, 1.0), (90, 1.25), (270, 0.8)])
def test_rotation_and_pixel_aspect_are_understood(
    first: Row, mutated: Mutated, broken: Broken, by_hand: ByHand, rotation: int, aspect: float
) -> None:
    clip, video = upright(first, rotation, aspect)
    tables = {
        "clips": spoiled(first, lambda _: clip),
        "videos": lambda row: {**row, **video} if row["video_id"] == first["video_id"] else row,
    }
    out = mutated(tables)
    assert broken(out, "C") == {}
    assert by_hand(out, "C3") == set()


def test_cropped_clips_are_measured_by_their_box(first: Row, mutated: Mutated, broken: Broken, by_hand: ByHand) -> None:
    def cropped(row: Row) -> Row:
        middles = [((a + c) / 16, (b + d) / 16) for a, b, c, d in row["box_xyxy"]]
        cuts = [[0.25, 0.0, 32 - 0.25 * x, 0.0, 0.25, 32 - 0.25 * y] for x, y in middles]
        return {"align_template": "box", "align_M": np.array(cuts, np.float32).tolist()}

    def shifted(row: Row) -> Row:
        return cropped(row) | {"align_M": [[*m[:2], m[2] + 4, *m[3:]] for m in cropped(row)["align_M"]]}

    whole, spoilt = mutated({"clips": spoiled(first, cropped)}), mutated({"clips": spoiled(first, shifted)})
    assert broken(whole) == {}
    assert broken(spoilt) == {"C3": {first["sample_key"]}}
    assert (by_hand(whole, "C3"), by_hand(spoilt, "C3")) == (set(), {first["sample_key"]})


def test_jump_to_another_face_is_found(first: Row, mutated: Mutated, broken: Broken, by_hand: ByHand) -> None:
    def jump(row: Row) -> Row:
        right = row["box_xyxy"][0][0] < 250 * BOX_UNITS
        step = np.array([100, 0, 100, 0]) * BOX_UNITS * (1 if right else -1)
        return boxes(row, lambda b: np.vstack([b[:5], b[5:] + step]))

    out = mutated({"clips": spoiled(first, jump)})
    assert broken(out) == {"C5": {first["sample_key"]}}
    assert by_hand(out, "C5") == {first["sample_key"]}


# ---- C6 ------------------------------------------------------------------------------------------------------------


def test_seed_of_another_video_is_found(first: Row, mutated: Mutated, broken: Broken, by_hand: ByHand) -> None:
    seed = start_seed(bytes(16), align_params())
    out = mutated({"clips": spoiled(first, lambda _: {"start_seed": seed})})
    assert broken(out) == {"C6": {first["sample_key"]}}
    assert by_hand(out, "C6") == {first["sample_key"]}


def align_params() -> Any:
    from lps.pipeline.config.params import Params

    return Params()


@pytest.mark.parametrize(
    "lengths",
    [
        "30 AS n_frames_decoded, NULL AS n_frames_container, NULL AS scan",
        "30 AS n_frames_decoded, 90 AS n_frames_container, 'whole' AS scan",
        "10 AS n_frames_decoded, 30 AS n_frames_container, 'window' AS scan",
    ],
)
def test_steps_of_whole_frames_are_no_fault_in_large_sets(lengths: str) -> None:
    """30,000 videos with 21 possible starts each: steps of 1/21 must not be taken for places that were chosen."""
    n, params = 30_000, align_params()
    ids = [k.to_bytes(16, "big") for k in range(n)]
    seeds = [start_seed(video_id, params) for video_id in ids]
    starts = [seed % 21 for seed in seeds]
    clips = {
        "video_id": pa.array(ids, pa.binary()),
        "sample_key": [str(k) for k in range(n)],
        "frame_idx": [[start] for start in starts],
        "n_frames": [10] * n,
        "start_rule": ["seeded"] * n,
        "start_seed": pa.array(seeds, pa.uint64()),
        "label": [k % 2 for k in range(n)],
        "pair_id": pa.nulls(n, pa.string()),
        "pair_mode": ["own"] * n,
    }
    with duckdb.connect() as db:
        for name, value in LIMITS.items():
            db.execute(f"SET VARIABLE {name} = {value!r}::DOUBLE")
        db.from_arrow(pa.table(clips)).create("clips")
        db.execute(f"CREATE TABLE videos AS SELECT video_id, {lengths} FROM clips")
        plan = {"params": {"seed": params.seed, "clips": 1}}
        ctx = AuditContext(store=Store("."), index={}, plan=plan, db=db, split_set="", limits=dict(LIMITS))
        assert check_starts(ctx).state == "pass"
        db.execute("UPDATE clips SET frame_idx = [frame_idx[1] // 2] WHERE label = 1")
        assert {offender.key for offender in check_starts(ctx).offenders} == {"fake uniform", "real as fake"}


def test_starts_that_depend_on_the_class_are_found(
    mutated: Mutated, audit: Callable[..., Audit], broken: Broken
) -> None:
    def early(row: Row) -> Row:
        if row["label"] != 1:
            return row
        n = row["n_frames"]
        moved = {"frame_idx": list(range(n)), "pts_ticks": [512 * k for k in range(n)]}
        return {**row, **moved, "pts_start_s": 0.0, "pts_end_s": (n - 1) / 25}

    out = mutated({"clips": early})
    assert broken(out) == {"C6": {"fake uniform"}}
    result = audit(out, "C6")
    assert result.exit_code == 0  # information, no failure
    assert sum(result.results[0].data["starts"]["1"]) == 26
