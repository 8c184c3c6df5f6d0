"""Checks C7, C8 and B13, and what C6, A1 and L2 know of pairs: shared cuts are shared, and shared evenly."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from PIL import Image

from lps.cli.audit.main import main
from lps.manifests.audit.checks import clips as clip_checks
from lps.manifests.audit.checks import integrity, leakage
from lps.manifests.audit.checks.bias import LIMITS as BIAS_LIMITS
from lps.manifests.audit.checks.pair_pixels import around_face, check_surroundings, compare_around
from lps.manifests.audit.checks.pairs import CHECKS, LIMITS, check_fallbacks, check_shared
from lps.manifests.audit.core.types import AuditContext, CheckResult
from lps.manifests.audit.diff import diff_datasets
from lps.manifests.audit.report.data import read_facts
from lps.manifests.audit.run import Audit, base_suite
from lps.manifests.canonical import digest16
from lps.manifests.codes import PairFallback, fallback_meaning
from lps.manifests.schemas import BOX_UNITS, TABLES, Row
from lps.manifests.storage import Store
from tests.builders import manifest_rows
from tests.manifests.audit.checks.conftest import World

Mutated = Callable[..., Path]
Broken = Callable[..., dict[str, set[str]]]
Edit = Callable[[Row], Row]
Spoilt = Callable[[str, Edit], dict[str, CheckResult]]
QUICK = ("A1", "A5", "L1", "L2", "L5", "C1", "C3", "C5", "C6", "C7", "B13")
EVERY = "A,T,L,B,C,R"
SIZES = (1, 16, 3000)
FAKE = "manipulated_sequences/Face2Face/c23/videos/000_001.mp4"


@pytest.fixture(scope="module")
def clips(paired: Path) -> dict[str, Row]:
    """Return a clip of each kind."""
    rows = manifest_rows(paired, "clips")
    found = {row["pair_mode"]: row for row in rows}
    return {**found, "original": next(row for row in rows if row["video_id"].hex() == found["shared"]["pair_id"])}


def spoiled(clip: Row, edit: Edit) -> Edit:
    return lambda row: {**row, **edit(row)} if row["clip_id"] == clip["clip_id"] else row


def of_video(clip: Row, **columns: object) -> Edit:
    return lambda row: {**row, **columns} if row["video_id"] == clip["video_id"] else row


@pytest.fixture
def spoilt(paired: Path, audit_context: Callable[..., AuditContext]) -> Spoilt:
    """Return a function that changes each row of a table of the data set and gives the checks that then find fault.

    Those that read no tars are run.
    """
    entries = (*integrity.CHECKS, *leakage.CHECKS, *clip_checks.CHECKS, *CHECKS)
    chosen = [entry for entry in entries if entry.spec.id in QUICK and entry.spec.level == "quick"]

    def spoil(table: str, edit: Edit) -> dict[str, CheckResult]:
        ctx = audit_context(paired, limits=base_suite().limits)
        rows = [edit(row) for row in manifest_rows(paired, table)]
        ctx.db.execute(f"DROP VIEW {table}")
        ctx.db.from_arrow(pa.Table.from_pylist(rows, TABLES[table])).create(table)
        found = {entry.spec.id: entry.run(ctx) for entry in chosen}
        assert set(found) == set(QUICK)
        return {i: result for i, result in found.items() if result.state == "fail"}

    return spoil


# ---- a data set with pairing ---------------------------------------------------------------------------------------


def test_sound_pairs_pass(paired: Path, audit: Callable[..., Audit]) -> None:
    found = {result.id: result for result in audit(paired, EVERY).results}
    broken = {i: r.offenders for i, r in found.items() if r.state in ("fail", "error", "warn")}
    assert set(broken) <= {"B1", "B2"}, broken  # 14 sequences are few
    assert {i: str(found[i].state) for i in ("C6", "C7", "C8", "B13")} == dict.fromkeys(
        ("C6", "C7", "C8", "B13"), "pass"
    )
    assert found["C7"].note == "24 clips share their original's cut"
    assert found["C8"].measured.startswith("0 wrong of 24 pairs, of 24; correlation ")


@pytest.mark.parametrize(
    ("kind", "edit", "said"),
    [
        ("shared", lambda row: {"det_score": [*row["det_score"][:-1], 7]}, " in det_score"),
        ("shared", lambda row: {"box_source": [0] * row["n_frames"]}, " in box_source"),
        ("shared", lambda row: {"lmk5": [[n + 1 for n in points] for points in row["lmk5"]]}, " in lmk5"),
        ("shared", lambda row: {"box_xyxy": [[n + 8 for n in b] for b in row["box_xyxy"]]}, " in box_xyxy"),
        ("shared", lambda row: {"align_M": [[*m[:5], m[5] + 0.5] for m in row["align_M"]]}, " in align_M"),
        ("shared", lambda _: {"interp": "nearest", "border": "constant"}, " in interp, border"),
        ("shared", lambda _: {"start_rule": "all"}, " in start_rule"),
        ("shared", lambda _: {"track_id": 3}, "no clip of these frames and this track"),
        ("shared", lambda _: {"pair_face_px": 6.5}, "pair_face_px is 6.5"),
        ("shared", lambda _: {"pair_face_px": None}, "is missing"),
        ("shared", lambda _: {"pair_background": None}, "is missing"),
        ("shared", lambda _: {"pair_background": 0.25}, "pair_background is 0.25"),
        ("shared", lambda _: {"pair_background": float("nan")}, "pair_background is nan"),
        ("shared", lambda _: {"pair_fallback": "P_SIZE"}, "pair_mode is shared, pair_fallback P_SIZE"),
        ("fallback", lambda _: {"pair_fallback": None}, "pair_mode is fallback, pair_fallback null"),
        ("fallback", lambda _: {"pair_mode": "own", "pair_fallback": None}, "neither shared nor fallback"),
        ("fallback", lambda _: {"pair_mode": None, "pair_fallback": None}, "pair_mode is missing"),
        ("original", lambda _: {"pair_mode": "fallback", "pair_fallback": "P_SIZE"}, "is fallback, but no fake"),
        ("original", lambda _: {"pair_id": None}, "pair_id is null"),
        ("fallback", lambda _: {"pair_id": "zz"}, "pair_id is zz"),
    ],
)
def test_what_is_not_shared_is_found(clips: dict[str, Row], spoilt: Spoilt, kind: str, edit: Edit, said: str) -> None:
    found = spoilt("clips", spoiled(clips[kind], edit))
    assert set(found) == {"C7"}
    [offender] = found["C7"].offenders
    assert offender.key == clips[kind]["sample_key"]
    assert said in offender.detail


def test_another_window_is_found(clips: dict[str, Row], spoilt: Spoilt) -> None:
    def later(row: Row) -> Row:
        moved = {"frame_idx": [i + 1 for i in row["frame_idx"]], "pts_ticks": [t + 512 for t in row["pts_ticks"]]}
        return {**moved, "pts_start_s": row["pts_start_s"] + 0.04, "pts_end_s": row["pts_end_s"] + 0.04}

    assert set(spoilt("clips", spoiled(clips["shared"], later))) == {"C7"}


@pytest.mark.parametrize("columns", [{"width": 800}, {"height": 600}, {"rotation": 180}, {"sar_num": 2, "sar_den": 2}])
def test_videos_of_another_size_are_found(clips: dict[str, Row], spoilt: Spoilt, columns: Row) -> None:
    same = "sar_num" in columns  # 2/2 is 1/1
    assert set(spoilt("videos", of_video(clips["shared"], **columns))) == (set() if same else {"C7"})


def test_seed_is_that_of_the_original(clips: dict[str, Row], spoilt: Spoilt) -> None:
    found = spoilt("clips", spoiled(clips["shared"], lambda _: {"start_seed": clips["fallback"]["start_seed"]}))
    assert set(found) == {"C6", "C7"}
    assert {result.offenders[0].key for result in found.values()} == {clips["shared"]["sample_key"]}


def test_spoilt_data_set_does_not_pass(paired: Path, clips: dict[str, Row], mutated: Mutated, broken: Broken) -> None:
    out = mutated({"clips": spoiled(clips["shared"], lambda _: {"interp": "nearest"})}, base=paired)
    assert broken(out, "A,T,L2,C,R") == {"C7": {clips["shared"]["sample_key"]}}


@pytest.mark.parametrize("column", ["pair_mode", "pair_fallback"])
def test_names_that_nobody_knows_are_found(clips: dict[str, Row], spoilt: Spoilt, column: str) -> None:
    found = spoilt("clips", spoiled(clips["fallback"], lambda _: {column: "p_what"}))
    assert [offender.key for offender in found["A1"].offenders] == [f"clips.{column}"]


def test_fakes_that_show_something_else_around_the_face_are_found(
    build_paired: Callable[..., Path], audit: Callable[..., Audit], broken: Broken
) -> None:
    out = build_paired([FAKE])
    video_id = digest16("ffpp", FAKE)
    [clip] = [row for row in manifest_rows(out, "clips") if row["video_id"] == video_id]
    assert broken(out, "A,T,L2,L5,C,R") == {"C8": {clip["sample_key"]}}
    [result] = audit(out, "C8").results
    assert result.offenders[0].detail.startswith(f"{FAKE} is not like original_sequences/youtube/c23/videos/000.mp4 (")
    assert result.state == "fail"


def test_plan_without_pairing_has_nothing_to_compare(
    dataset: Path, mutated: Mutated, audit: Callable[..., Audit]
) -> None:
    found = {result.id: result for result in audit(dataset, "C7,C8,B13").results}
    assert {i: (str(r.state), r.note) for i, r in found.items()} == {
        "B13": ("skip", "the plan pairs no fake with its original"),
        "C7": ("pass", "the plan pairs no fake with its original"),
        "C8": ("skip", "no clip shares the cut of its original"),
    }
    shared = mutated({"clips": lambda row: {**row, "pair_mode": "shared"} if row["label"] else row})
    [result] = audit(shared, "C7").results
    assert {offender.detail for offender in result.offenders} == {"is shared without pairing"}


def test_clips_of_older_schemas_are_skipped(dataset: Path, mutated: Mutated, audit: Callable[..., Audit]) -> None:
    none = dict.fromkeys(("pair_id", "pair_mode", "pair_fallback", "pair_face_px", "pair_background"))
    older = mutated({"clips": lambda row: {**row, **none}})
    found = {result.id: result for result in audit(older, EVERY).results}
    skipped = "the clips have no columns of pairs (schema before 3.1)"
    assert {found[i].note for i in ("C7", "B13")} == {skipped}
    assert {str(found[i].state) for i in ("C7", "C8", "B13")} == {"skip"}
    assert found["C6"].state == "pass"


# ---- tables of any size --------------------------------------------------------------------------------------------


@pytest.fixture
def opened_rows(tmp_path: Path) -> Callable[..., AuditContext]:
    """Return a function that opens rows of tables for auditing, with the plan's parameters of pairing."""

    def open_it(tables: Mapping[str, Sequence[Row]], pair: Mapping[str, Any] | None, **limits: float) -> AuditContext:
        db = duckdb.connect(config={"threads": "1"})
        for name, rows in tables.items():
            columns = {item.name: pa.array([row.get(item.name) for row in rows], item.type) for item in TABLES[name]}
            db.from_arrow(pa.table(columns)).create(name)
        known = {**BIAS_LIMITS, **LIMITS, **limits}
        for name, value in known.items():
            db.execute(f"SET VARIABLE {name} = {value!r}::DOUBLE")
        plan = {} if pair is None else {"params": {"pair": dict(pair)}}
        return AuditContext(store=Store(str(tmp_path)), index={}, plan=plan, db=db, split_set="", limits=known)

    return open_it


PAIR = {"mode": "original", "max_face_px": 6.0, "min_background": 0.9}


def families(n: int, members: Sequence[Row] = ()) -> dict[str, list[Row]]:
    """Return n originals with a fake each that shares all; their images are `members`, of frames of 16 px."""
    videos, clips = [], []
    for k in range(n):
        original = k.to_bytes(16, "big")
        for fake in (0, 1):
            video_id = (k + fake * 2**64).to_bytes(16, "big")
            known = {"width": 64, "height": 64, "dataset": "d", "split": "train"}
            named = {"video_id": video_id, "label": fake, "uri": f"{fake}/{k}", "method": "m" if fake else None}
            videos.append({**named, **known, "original_video_id": original if fake else None})
            clips.append({**_cut(k), **named, "sample_key": f"{fake}-{k}", "members": list(members)})
            clips[-1] |= {"pair_id": original.hex(), "pair_mode": "shared" if fake else "own"}
            clips[-1] |= {"pair_face_px": 1.0, "pair_background": 1.0} if fake else {}
    return {"videos": videos, "clips": clips, "shards": [{"shard_id": "s", "uri": "shard"}]}


def _cut(k: int) -> Row:
    box, matrix = [20 * BOX_UNITS, 20 * BOX_UNITS, 40 * BOX_UNITS, 40 * BOX_UNITS], [0.25, 0.0, 0.0, 0.0, 0.25, 0.0]
    lists = {"frame_idx": [k, k + 1], "box_xyxy": [box] * 2, "align_M": [matrix] * 2, "lmk5": [[k] * 10] * 2}
    numbers = {"n_frames": 2, "track_id": 0, "pts_start_s": 0.0, "pts_end_s": 0.04, "out_size": 16, "start_seed": k}
    return {**lists, **numbers, "shard_id": "s", "image_codec": "png"}


@pytest.mark.parametrize("n", SIZES)
def test_one_wrong_pair_is_found_among_any_number(n: int, opened_rows: Callable[..., AuditContext]) -> None:
    sound, wrong = families(n), families(n)
    wrong["clips"][-1]["lmk5"] = [[0] * 9 + [1]] * 2
    result = check_shared(opened_rows(sound, PAIR))
    assert (result.state, result.n_checked) == ("pass", 2 * n)
    result = check_shared(opened_rows(wrong, PAIR))
    assert (result.state, [offender.key for offender in result.offenders]) == ("fail", [f"1-{n - 1}"])


def test_original_that_is_a_fake_or_is_missing_is_found(opened_rows: Callable[..., AuditContext]) -> None:
    fake, missing, unlabelled = families(2), families(2), families(2)
    fake["videos"][0]["label"] = 1
    del missing["videos"][0], missing["clips"][0]
    for row in (*unlabelled["videos"], *unlabelled["clips"]):
        row["label"] = None
    said = [[o.detail for o in check_shared(opened_rows(rows, PAIR)).offenders] for rows in (fake, missing, unlabelled)]
    assert said == [["its original is a fake"] * 2, ["its original is not in videos"], []]


def test_plan_without_limits_asks_for_distances_alone(opened_rows: Callable[..., AuditContext]) -> None:
    rows = families(1)
    rows["clips"][1] |= {"pair_face_px": 99.0, "pair_background": -1.0}
    assert check_shared(opened_rows(rows, {"mode": "original"})).state == "pass"
    assert check_shared(opened_rows(rows, None)).state == "pass"
    assert check_shared(opened_rows(rows, PAIR)).state == "fail"
    rows["clips"][1]["pair_face_px"] = None
    assert check_shared(opened_rows(rows, None)).state == "fail"


# ---- B13 -----------------------------------------------------------------------------------------------------------


def fallbacks(shares: Mapping[tuple[str, str], tuple[int, int]]) -> dict[str, list[Row]]:
    """Return fakes of methods and compressions, of which some fell back."""
    videos, clips = [], []
    for (method, compression), (n, n_fallback) in shares.items():
        for k in range(n):
            named = {"video_id": digest16(method, compression, str(k)), "label": 1, "method": method}
            videos.append({**named, "dataset": "d", "compression": compression})
            mode = {"pair_mode": "fallback", "pair_fallback": PairFallback.P_SIZE} if k < n_fallback else {}
            clips += [{**named, "pair_mode": "shared", **mode}] * 2
    return {"videos": videos, "clips": clips}


@pytest.mark.parametrize(
    ("shares", "state", "keys"),
    [
        ({("a", "c23"): (1, 1), ("b", "c23"): (1, 0)}, "unknown", set()),
        ({("a", "c23"): (16, 2), ("b", "c23"): (16, 0)}, "unknown", set()),
        ({("a", "c23"): (16, 0), ("b", "c23"): (16, 0)}, "pass", set()),
        ({("a", "c23"): (3000, 90), ("b", "c23"): (3000, 60)}, "pass", set()),
        ({("a", "c23"): (3000, 300), ("b", "c23"): (3000, 60)}, "warn", {"d/a", "d/b"}),
        ({("a", "c23"): (3000, 900), ("b", "c23"): (3000, 60)}, "fail", {"d/a", "d/b"}),
        ({("a", "c23"): (3000, 60), ("a", "c40"): (3000, 900)}, "fail", {"d/c23", "d/c40"}),
        ({("a", "c23"): (3000, 900)}, "skip", set()),
    ],
)
def test_fallbacks_of_one_method_or_compression_are_found(
    shares: Mapping[tuple[str, str], tuple[int, int]], state: str, keys: set[str],
    opened_rows: Callable[..., AuditContext],
) -> None:  # fmt: skip
    result = check_fallbacks(opened_rows(fallbacks(shares), PAIR))
    assert (result.state, {offender.key for offender in result.offenders}) == (state, keys)
    if state != "skip":
        assert result.n_checked == sum(n for n, _ in shares.values())


def test_fallbacks_are_told_by_code(opened_rows: Callable[..., AuditContext]) -> None:
    result = check_fallbacks(opened_rows(fallbacks({("a", "c23"): (40, 3), ("b", "c23"): (40, 0)}), PAIR))
    assert result.data["codes"] == [{"dataset": "d", "method": "a", "code": "P_SIZE", "n": 3}]
    assert result.measured == (
        "d/a: 7.50 % of 40 fell back, others 0.00 % of 40: +7.50 pp [-2.55, +19.86], p 0.24; all: 3.75 % of 80"
    )


# ---- C8 ------------------------------------------------------------------------------------------------------------


def png(seed: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(sink, "png")
    return sink.getvalue()


@pytest.fixture
def images(tmp_path: Path) -> dict[int, list[Row]]:
    """Write one file with all images, and return the members of a clip for each of the two pictures."""
    data = [png(0), png(1), b"no image"]
    (tmp_path / "shard").write_bytes(b"".join(data))
    starts = np.cumsum([0, *map(len, data)]).tolist()
    return {
        number: [{"ext": f"{k:02d}.png", "offset": starts[number], "nbytes": len(data[number])} for k in range(2)]
        for number in range(len(data))
    }


def looked_at(result: CheckResult) -> tuple[str, int, list[str]]:
    return str(result.state), result.n_checked, [offender.key for offender in result.offenders]


@pytest.mark.parametrize("n", SIZES)
def test_one_unlike_pair_is_found_among_those_looked_at(
    n: int, images: dict[int, list[Row]], opened_rows: Callable[..., AuditContext]
) -> None:
    looked = min(n, 250)
    rows = families(n, images[0])
    ctx = opened_rows(rows, PAIR, c8_sample_pairs=looked, c8_frames=1)
    result = check_surroundings(ctx)
    assert looked_at(result) == ("pass", looked, [])
    assert result.measured == f"0 wrong of {looked} pairs, of {n}; correlation 1.000 in the median, 1.000 at least"
    [(key,)] = ctx.db.execute(
        "SELECT sample_key FROM clips WHERE pair_mode = 'shared' ORDER BY sha256(sample_key) LIMIT 1"
    ).fetchall()
    ctx.db.execute(f"UPDATE clips SET members = ?::{_kind(ctx)} WHERE sample_key = ?", [images[1], key])
    assert looked_at(check_surroundings(ctx)) == ("fail" if n <= 16 else "warn", looked, [key])


def _kind(ctx: AuditContext) -> str:
    [(kind,)] = ctx.db.execute("SELECT typeof(members) FROM clips LIMIT 1").fetchall()
    return str(kind)


def test_image_that_does_not_decode_is_found(
    images: dict[int, list[Row]], opened_rows: Callable[..., AuditContext]
) -> None:
    rows = families(2, images[0])
    rows["clips"][1]["members"] = images[2]
    result = check_surroundings(opened_rows(rows, PAIR))
    assert looked_at(result) == ("fail", 2, ["1-0"])
    assert "does not decode" in result.offenders[0].detail


def test_shard_that_is_not_there_leaves_the_answer_open(opened_rows: Callable[..., AuditContext]) -> None:
    result = check_surroundings(opened_rows(families(2, [{"ext": "00.png", "offset": 0, "nbytes": 9}] * 2), PAIR))
    assert (result.state, result.unread) == ("unknown", True)


def test_faces_that_fill_the_picture_are_not_counted(
    images: dict[int, list[Row]], opened_rows: Callable[..., AuditContext]
) -> None:
    rows = families(2, images[0])
    for row in rows["clips"]:
        row["box_xyxy"] = [[0, 0, 64 * BOX_UNITS, 64 * BOX_UNITS]] * 2
    result = check_surroundings(opened_rows(rows, PAIR))
    assert (result.state, result.note) == (
        "skip", "2 pairs show too little around the face; there are no pairs to check"
    )  # fmt: skip


def test_mask_is_the_turned_box_and_what_lies_outside_the_picture() -> None:
    turned = [0.0, -1.0, 63.0, 1.0, 0.0, 0.0]  # a quarter turn
    cut = {"align_M": [turned], "align_template": "arcface5-64x0.85", "out_size": 64}
    row = {**cut, "box_xyxy": [[0, 0, 80, 240]], "width": 64, "height": 48}
    mask = around_face(row, 0, 1.0)
    left_out = ~mask
    assert left_out[:11, 33:].all(), "the box: 10 px down and 30 px from the right edge after the turn"
    assert left_out[:, :16].all(), "below the picture's 48 rows"
    assert mask[12:, 17:].all()


@pytest.mark.parametrize(("noise", "alike"), [(1.0, True), (60.0, False)])
def test_even_grounds_are_told_by_their_difference(noise: float, alike: bool) -> None:
    rng = np.random.default_rng(0)
    a, b = (128 + rng.normal(0, noise, (16, 16)) for _ in range(2))
    seen = compare_around([a], [b], [np.ones((16, 16), np.bool_)])
    assert abs(seen.correlation) < 0.3
    assert (seen.difference <= LIMITS["c8_max_diff"]) == alike


# ---- B3 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "state"), [("shared", "pass"), ("fallback", "fail"), (None, "fail")])
def test_few_looks_at_fakes_that_share_are_no_higher_rate(
    world: World, bias_of: Callable[[World], Mapping[str, CheckResult]], mode: str | None, state: str
) -> None:
    for row in world.each(1):
        row |= {"n_frames_sampled": 3, "n_frames_with_face": 3}
    for clip in world.clips:
        clip["pair_mode"] = mode if clip["label"] else "own"
    assert bias_of(world)["B3"].state == state


# ---- L2 ------------------------------------------------------------------------------------------------------------


def test_family_in_two_splits_is_found_by_what_its_clips_name(
    world: World, leakage_of: Callable[[World], Mapping[str, CheckResult]]
) -> None:
    fakes = [f"{method}/000_001" for method in ("Deepfakes", "FaceSwap")]
    for name in fakes:
        world.clip(name)["pair_id"] = world.video("real/000")["video_id"].hex()
        world.video(name)["original_video_id"] = None
    assert leakage_of(world)["L2"].offenders == ()
    world.move(fakes[0], "test")
    [offender] = leakage_of(world)["L2"].offenders
    assert offender.detail == f"{fakes[0]}.mp4 is in test, its original real/000.mp4 in train"


def test_fakes_of_an_original_in_no_split_stay_together(
    world: World, leakage_of: Callable[[World], Mapping[str, CheckResult]]
) -> None:
    original = world.video("real/000")["video_id"]
    next(row for row in world.splits if row["video_id"] == original)["split"] = None
    assert leakage_of(world)["L2"].state == "pass"
    world.move("Deepfakes/000_001", "test")
    found = leakage_of(world)["L2"].offenders
    assert {offender.detail.split(" ")[0] for offender in found} == {"Deepfakes/000_001.mp4", "FaceSwap/000_001.mp4"}


# ---- show, diff, balance, report -----------------------------------------------------------------------------------


def test_show_tells_who_shares_and_who_does_not(paired: Path, dataset: Path) -> None:
    shown = CliRunner().invoke(main, ["show", str(paired)]).stdout
    assert "fakes beside their originals" in shown
    assert "fallback" in shown
    record = json.loads(CliRunner().invoke(main, ["show", str(paired), "--json"]).stdout)
    counts = {(row["method"], row["pair_mode"], row["pair_fallback"]): row["clips"] for row in record["pairs"]}
    assert counts[("Deepfakes", "fallback", "P_ORIGINAL_FAILED")] == 1
    assert sum(n for (_, mode, _), n in counts.items() if mode == "shared") == 24
    [facet] = [facet for facet in record["balance"]["facets"] if facet["facet"] == "pair"]
    assert {cell["value"] for cell in facet["cells"]} >= {"own", "shared", "fallback"}
    assert json.loads(CliRunner().invoke(main, ["show", str(dataset), "--json"]).stdout)["pairs"] == []


def test_diff_names_videos_that_are_paired_otherwise(dataset: Path, paired: Path) -> None:
    assert diff_datasets(Store(str(paired)), Store(str(paired))).same
    found = diff_datasets(Store(str(dataset)), Store(str(paired)))
    [changes] = [changes for changes in found.clips if changes.what == "videos paired otherwise"]
    assert changes.n == 24 + 2
    assert {(change.before, change.after) for change in changes.named} >= {("own", "shared")}
    assert "params.pair.mode" in {change.name for change in found.parameters}


def test_page_counts_clips_by_how_they_are_paired(paired: Path, dataset: Path) -> None:
    tallies = {tally.title: tally for tally in read_facts(Store(str(paired)), "group", []).tallies}
    assert dict(tallies["Window and cut (clips)"].rows) == {"shared": (0, 24), "own": (13, 0), "fallback": (0, 2)}
    assert tallies["Why none is shared (clips)"].rows == (("P_ORIGINAL_FAILED", (0, 2)),)
    assert "Window and cut (clips)" not in {t.title for t in read_facts(Store(str(dataset)), "group", []).tallies}


def test_code_that_nobody_knows_has_words() -> None:
    assert fallback_meaning("P_SIZE") == "size, rotation or pixel aspect differ"
    assert fallback_meaning("P_NEW") == "a code that this version does not know"
